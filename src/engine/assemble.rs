//! Which parts of a file lie here already.

use std::collections::BTreeMap;

use crate::engine::effect::Piece;
use crate::model::id::ChunkId;
use crate::model::recipe::Recipe;

/// Finds the chunks of `recipe` in files whose recipes are `sources`, and joins neighbours to runs.
///
/// Earlier sources are preferred, and a run goes on in its source as long as it can, so that copying
/// reads in order.
pub fn find_pieces(recipe: &Recipe, sources: &[Recipe]) -> Vec<Piece> {
    let mut places: BTreeMap<ChunkId, (u32, u64)> = BTreeMap::new();
    for (source, of) in sources.iter().enumerate() {
        for (offset, chunk) in of.places() {
            places.entry(chunk.id).or_insert((source as u32, offset));
        }
    }
    let mut pieces: Vec<Piece> = Vec::new();
    let mut next = None;
    for (index, chunk) in recipe.chunks().iter().enumerate() {
        let Some(&(source, offset)) = places.get(&chunk.id) else {
            next = None;
            continue;
        };
        match pieces.last_mut() {
            Some(piece) if next == Some((source, offset)) => piece.chunks += 1,
            _ => pieces.push(Piece { chunk: index as u32, chunks: 1, source, offset }),
        }
        next = Some((source, offset + u64::from(chunk.len)));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recipe::ChunkRef;

    fn recipe(text: &str) -> Recipe {
        let chunk = |c: char| ChunkRef { id: ChunkId::of(c.to_string().as_bytes()), len: 10 };
        Recipe::parse(text.chars().map(chunk).collect()).unwrap()
    }

    fn check(wanted: &str, sources: &[&str], pieces: &[(u32, u32, u32, u64)]) {
        let sources: Vec<_> = sources.iter().map(|s| recipe(s)).collect();
        let found = find_pieces(&recipe(wanted), &sources);
        let found: Vec<_> = found.iter().map(|p| (p.chunk, p.chunks, p.source, p.offset)).collect();
        assert_eq!(found, pieces, "{wanted}");
    }

    #[test]
    fn what_lies_here_is_found_in_runs() {
        check("abc", &["abc"], &[(0, 3, 0, 0)]);
        check("xabc", &["abc"], &[(1, 3, 0, 0)]);
        check("abxcd", &["abcd"], &[(0, 2, 0, 0), (3, 2, 0, 20)]);
        check("abcd", &["cd", "ab"], &[(0, 2, 1, 0), (2, 2, 0, 0)]);
        check("aaa", &["a"], &[(0, 1, 0, 0), (1, 1, 0, 0), (2, 1, 0, 0)]);
        check("xyz", &["abc"], &[]);
        check("", &["abc"], &[]);
    }
}
