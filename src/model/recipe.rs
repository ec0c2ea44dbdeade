//! Recipes: a file as an ordered list of chunks, cut into pages.
//!
//! Pages are cut where the chunk ids say so, so that an edit of a huge file changes a page or two and
//! the rest of the list need not travel. The content id is a hash over the page ids.

use crate::model::id::{ChunkId, ContentId, PageId};
use crate::model::limits::{CHUNK_LEN_MAX, PAGE_CHUNKS_MAX, PAGE_CHUNKS_MIN, RECIPE_PAGES_MAX};

/// One chunk of a file: what it is and how long.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChunkRef {
    /// The hash of the bytes.
    pub id: ChunkId,
    /// Their number; never zero, at most [`CHUNK_LEN_MAX`].
    pub len: u32,
}

/// The ordered chunks of a file. The empty file has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recipe {
    chunks: Vec<ChunkRef>,
}

/// One page of a recipe, as it is named in the recipe's root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageRef {
    /// The hash of the page's chunk references.
    pub id: PageId,
    /// Number of chunks in the page.
    pub chunks: u16,
    /// Bytes of the file that the page stands for.
    pub bytes: u64,
}

/// Why some chunk references are not a recipe.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecipeError {
    /// A chunk is empty or longer than any tier allows.
    #[error("a chunk of a recipe has an impossible length")]
    ChunkLength,
    /// The recipe has more pages than the bound.
    #[error("a recipe has too many pages")]
    Pages,
    /// A page is empty or has more chunks than the bound.
    #[error("a page of a recipe has an impossible number of chunks")]
    PageChunks,
}

impl Recipe {
    /// Checks chunk references that came from a peer, the chunker, or the index.
    pub fn parse(chunks: Vec<ChunkRef>) -> Result<Self, RecipeError> {
        if chunks.len() > RECIPE_PAGES_MAX * PAGE_CHUNKS_MAX {
            return Err(RecipeError::Pages);
        }
        if chunks.iter().any(|c| c.len == 0 || c.len as usize > CHUNK_LEN_MAX) {
            return Err(RecipeError::ChunkLength);
        }
        Ok(Self { chunks })
    }

    /// Returns the chunks in the order of the file.
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Returns each chunk with its offset in the file.
    pub fn places(&self) -> impl Iterator<Item = (u64, ChunkRef)> {
        self.chunks.iter().scan(0, |offset, chunk| {
            let at = *offset;
            *offset += u64::from(chunk.len);
            Some((at, *chunk))
        })
    }

    /// Returns the size of the file, in bytes.
    pub fn size(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len)).sum()
    }

    /// Returns the pages in order, as slices of the chunks.
    pub fn pages(&self) -> impl Iterator<Item = &[ChunkRef]> {
        let mut rest = self.chunks.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (page, after) = rest.split_at(page_len(rest));
            rest = after;
            Some(page)
        })
    }

    /// Returns the root: the list of pages that the content id is a hash of.
    pub fn root(&self) -> Vec<PageRef> {
        self.pages().map(PageRef::of).collect()
    }

    /// Returns the identity of the file's content.
    pub fn content_id(&self) -> ContentId {
        content_id_of(&self.root())
    }
}

impl PageRef {
    /// Names a page.
    pub fn of(chunks: &[ChunkRef]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 recipe page");
        for chunk in chunks {
            hasher.update(&chunk.id.0);
            hasher.update(&chunk.len.to_le_bytes());
        }
        Self {
            id: PageId(*hasher.finalize().as_bytes()),
            chunks: chunks.len() as u16,
            bytes: chunks.iter().map(|c| u64::from(c.len)).sum(),
        }
    }

    /// Checks what a peer says of a page, before the page is asked for.
    pub fn parse(id: PageId, chunks: u16, bytes: u64) -> Result<Self, RecipeError> {
        if chunks == 0 || usize::from(chunks) > PAGE_CHUNKS_MAX {
            return Err(RecipeError::PageChunks);
        }
        if bytes < u64::from(chunks) || bytes > u64::from(chunks) * CHUNK_LEN_MAX as u64 {
            return Err(RecipeError::ChunkLength);
        }
        Ok(Self { id, chunks, bytes })
    }
}

/// Returns the content id of a recipe whose pages are these.
pub fn content_id_of(root: &[PageRef]) -> ContentId {
    let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 recipe root");
    for page in root {
        hasher.update(&page.id.0);
        hasher.update(&page.chunks.to_le_bytes());
        hasher.update(&page.bytes.to_le_bytes());
    }
    ContentId(*hasher.finalize().as_bytes())
}

/// Length of the first page: up to the first chunk whose id says "cut here", within the bounds.
fn page_len(chunks: &[ChunkRef]) -> usize {
    let end = chunks.len().min(PAGE_CHUNKS_MAX);
    let from = PAGE_CHUNKS_MIN.min(end);
    let cut = chunks[from.saturating_sub(1)..end].iter().position(|c| c.id.0[31] & 0x7f == 0);
    cut.map_or(end, |at| from.max(1) + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(seeds: impl IntoIterator<Item = u32>) -> Recipe {
        let chunks = seeds.into_iter().map(|n| ChunkRef { id: ChunkId::of(&n.to_le_bytes()), len: 1 + n % 1000 });
        Recipe::parse(chunks.collect()).unwrap()
    }

    #[test]
    fn pages_are_the_whole_recipe_within_the_bounds() {
        for len in [0, 1, 15, 16, 17, 600, 20_000] {
            let recipe = recipe(0..len);
            let pages: Vec<_> = recipe.pages().collect();
            assert_eq!(pages.concat(), recipe.chunks());
            assert!(pages.iter().all(|p| p.len() <= PAGE_CHUNKS_MAX));
            assert!(pages.iter().rev().skip(1).all(|p| p.len() >= PAGE_CHUNKS_MIN));
            assert_eq!(recipe.root().iter().map(|p| p.bytes).sum::<u64>(), recipe.size());
        }
    }

    #[test]
    fn one_changed_chunk_changes_few_pages() {
        let before = recipe(0..20_000);
        let after = recipe((0..20_000).map(|n| if n == 10_000 { 77_777 } else { n }));
        let old = before.root();
        let new_pages = after.root().iter().filter(|page| !old.contains(page)).count();
        assert!((1..=3).contains(&new_pages), "{new_pages}");
        assert_ne!(before.content_id(), after.content_id());
    }

    #[test]
    fn impossible_recipes_are_refused() {
        let chunk = |len| vec![ChunkRef { id: ChunkId([0; 32]), len }];
        assert_eq!(Recipe::parse(chunk(0)), Err(RecipeError::ChunkLength));
        assert_eq!(Recipe::parse(chunk(CHUNK_LEN_MAX as u32 + 1)), Err(RecipeError::ChunkLength));
        assert!(Recipe::parse(chunk(CHUNK_LEN_MAX as u32)).is_ok());
        assert_eq!(PageRef::parse(PageId([0; 32]), 0, 0), Err(RecipeError::PageChunks));
        assert_eq!(PageRef::parse(PageId([0; 32]), 2, u64::MAX), Err(RecipeError::ChunkLength));
    }

    #[test]
    fn the_content_id_is_part_of_the_format() {
        assert_eq!(recipe(0..100).content_id().to_string(), recipe(0..100).content_id().to_string().to_lowercase(),);
        assert_ne!(recipe([]).content_id(), recipe([1]).content_id());
        assert_ne!(recipe([1, 2]).content_id(), recipe([2, 1]).content_id());
    }
}
