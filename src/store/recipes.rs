//! Recipes of several chunks, in parts of a page each, and where their chunks are found.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use crate::model::id::ChunkId;
use crate::model::limits::{PAGE_CHUNKS_MAX, RECIPE_PAGES_MAX};
use crate::model::recipe::ChunkRef;
use crate::store::codec::{self, Malformed};
use crate::store::error::{At, StoreError};

/// Chunks in a part: as many as fill one page of the database file.
const PART_CHUNKS: usize = 112;
/// Bits of a part's key that count the parts of one recipe.
const PART_BITS: u32 = 19;
/// Highest number of a recipe.
const RECIPE_NUMBER_MAX: i64 = i64::MAX >> PART_BITS;

const _: () = assert!((RECIPE_PAGES_MAX * PAGE_CHUNKS_MAX).div_ceil(PART_CHUNKS) <= 1 << PART_BITS);

/// The file that a recipe belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) dir: i64,
    pub(crate) name: &'a [u8],
}

/// A recipe in the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old {
    pub(crate) recipe: i64,
    pub(crate) chunks: usize,
    /// Whether its chunks are found by [`candidates`].
    pub(crate) is_placed: bool,
}

/// Returns the first bits of a chunk id, by which it is found.
pub(crate) fn prefix_of(chunk: &ChunkId) -> i64 {
    let [a, b, c, d, ..] = chunk.0;
    i64::from(u32::from_be_bytes([a, b, c, d]) >> 1)
}

/// Returns the chunks of a recipe.
pub(crate) fn read(conn: &Connection, recipe: i64, chunks: usize) -> Result<Vec<ChunkRef>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT part, chunks FROM part WHERE part BETWEEN ? AND ? ORDER BY part").at("part")?;
    let (first, last) = (part_key(recipe, 0)?, part_key(recipe, (1 << PART_BITS) - 1)?);
    let mut rows = statement.query((first, last)).at("part")?;
    let mut read = Vec::new();
    while let Some(row) = rows.next().at("part")? {
        let part: i64 = row.get(0).at("part")?;
        let in_part = codec::decode_part(part, row.get_ref(1).at("part")?.as_blob().at("part")?).at("part")?;
        let is_next = part - first == (read.len() / PART_CHUNKS) as i64 && read.len().is_multiple_of(PART_CHUNKS);
        if !is_next || in_part.len() > PART_CHUNKS {
            return Err(StoreError::corrupt("part", "parts of a recipe are missing or out of order"));
        }
        read.extend(in_part);
    }
    if read.len() != chunks {
        return Err(StoreError::corrupt("part", "a recipe has not as many chunks as its entry says"));
    }
    Ok(read)
}

/// Writes a recipe in the place of the one that a file had in the tables, if any, and returns its
/// number. Parts that stay the same are not touched.
pub(crate) fn write(
    conn: &Connection,
    old: Option<Old>,
    owner: Owner<'_>,
    chunks: &[ChunkRef],
    is_placed: bool,
) -> Result<i64, StoreError> {
    let recipe = match old {
        Some(old) => old.recipe,
        None => create(conn, owner)?,
    };
    let old_parts = old.map_or(0, |old| old.chunks.div_ceil(PART_CHUNKS));
    let was_placed = old.is_some_and(|old| old.is_placed);
    let new_parts: Vec<&[ChunkRef]> = chunks.chunks(PART_CHUNKS).collect();
    let mut places = Places::default();
    for nth in 0..old_parts.max(new_parts.len()) {
        let part = part_key(recipe, nth as i64)?;
        let before = if nth < old_parts { read_part(conn, part)? } else { Vec::new() };
        let after = new_parts.get(nth).copied().unwrap_or(&[]);
        if before != after {
            write_part(conn, part, after)?;
        } else if was_placed == is_placed {
            continue;
        }
        places.change(part, if was_placed { &before } else { &[] }, if is_placed { after } else { &[] });
    }
    places.apply(conn)?;
    Ok(recipe)
}

/// Removes a recipe and all that leads to it.
pub(crate) fn remove(conn: &Connection, old: Old) -> Result<(), StoreError> {
    write(conn, Some(old), Owner { dir: 0, name: b"" }, &[], false)?;
    conn.prepare_cached("DELETE FROM recipe WHERE recipe = ?").at("recipe")?.execute([old.recipe]).at("recipe")?;
    Ok(())
}

/// Returns the owners of up to `limit` recipes that hold `chunk`, each once.
pub(crate) fn candidates(conn: &Connection, chunk: &ChunkId, limit: usize) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT part FROM place WHERE prefix = ? ORDER BY part LIMIT ?").at("place")?;
    let mut rows = statement.query((prefix_of(chunk), CANDIDATES_MAX)).at("place")?;
    let mut owners = Vec::new();
    let mut last = None;
    while owners.len() < limit {
        let Some(row) = rows.next().at("place")? else { break };
        let part: i64 = row.get(0).at("place")?;
        let recipe = part >> PART_BITS;
        if last == Some(recipe) || !read_part(conn, part)?.iter().any(|c| c.id == *chunk) {
            continue;
        }
        last = Some(recipe);
        owners.push(owner_of(conn, recipe)?);
    }
    Ok(owners)
}

/// Rows with one prefix that are looked at. Somebody who makes files on purpose whose chunks agree in
/// the prefix may so keep a chunk from being found, which costs a transfer, but not time without end.
const CANDIDATES_MAX: i64 = 1024;

fn owner_of(conn: &Connection, recipe: i64) -> Result<(i64, Vec<u8>), StoreError> {
    let mut statement = conn.prepare_cached("SELECT dir, name FROM recipe WHERE recipe = ?").at("recipe")?;
    let row = statement.query_row([recipe], |row| Ok((row.get(0)?, row.get(1)?))).optional().at("recipe")?;
    row.ok_or_else(|| StoreError::corrupt("recipe", "a recipe belongs to nothing"))
}

fn create(conn: &Connection, owner: Owner<'_>) -> Result<i64, StoreError> {
    let mut statement = conn.prepare_cached("SELECT ifnull(max(recipe), 0) + 1 FROM recipe").at("recipe")?;
    let recipe: i64 = statement.query_row([], |row| row.get(0)).at("recipe")?;
    part_key(recipe, 0)?;
    let mut statement = conn.prepare_cached("INSERT INTO recipe (recipe, dir, name) VALUES (?, ?, ?)").at("recipe")?;
    statement.execute((recipe, owner.dir, owner.name)).at("recipe")?;
    Ok(recipe)
}

fn part_key(recipe: i64, nth: i64) -> Result<i64, StoreError> {
    if (1..RECIPE_NUMBER_MAX).contains(&recipe) && (0..1 << PART_BITS).contains(&nth) {
        Ok(recipe << PART_BITS | nth)
    } else {
        Err(StoreError::corrupt("recipe", "a recipe's number is out of bounds"))
    }
}

fn read_part(conn: &Connection, part: i64) -> Result<Vec<ChunkRef>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT chunks FROM part WHERE part = ?").at("part")?;
    let mut rows = statement.query([part]).at("part")?;
    let Some(row) = rows.next().at("part")? else {
        return Err(StoreError::corrupt("part", "a part of a recipe is missing"));
    };
    let chunks = row.get_ref(0).at("part")?.as_blob().at("part")?;
    codec::decode_part(part, chunks).map_err(|Malformed(what)| StoreError::corrupt("part", what))
}

fn write_part(conn: &Connection, part: i64, chunks: &[ChunkRef]) -> Result<(), StoreError> {
    if chunks.is_empty() {
        conn.prepare_cached("DELETE FROM part WHERE part = ?").at("part")?.execute([part]).at("part")?;
    } else {
        let mut statement = conn.prepare_cached("REPLACE INTO part (part, chunks) VALUES (?, ?)").at("part")?;
        statement.execute((part, codec::encode_part(part, chunks))).at("part")?;
    }
    Ok(())
}

/// Changes of the table of places, collected so that they are made in the order of their keys: the
/// keys are random, and going through them once in order touches each page once.
#[derive(Default)]
struct Places {
    removed: Vec<(i64, i64)>,
    added: Vec<(i64, i64)>,
}

impl Places {
    fn change(&mut self, part: i64, before: &[ChunkRef], after: &[ChunkRef]) {
        let prefixes = |chunks: &[ChunkRef]| chunks.iter().map(|c| prefix_of(&c.id)).collect::<BTreeSet<_>>();
        let (before, after) = (prefixes(before), prefixes(after));
        self.removed.extend(before.difference(&after).map(|prefix| (*prefix, part)));
        self.added.extend(after.difference(&before).map(|prefix| (*prefix, part)));
    }

    fn apply(mut self, conn: &Connection) -> Result<(), StoreError> {
        self.removed.sort_unstable();
        self.added.sort_unstable();
        let mut remove = conn.prepare_cached("DELETE FROM place WHERE prefix = ? AND part = ?").at("place")?;
        for place in self.removed {
            remove.execute(place).at("place")?;
        }
        let mut add = conn.prepare_cached("INSERT INTO place (prefix, part) VALUES (?, ?)").at("place")?;
        for place in self.added {
            add.execute(place).at("place")?;
        }
        Ok(())
    }
}
