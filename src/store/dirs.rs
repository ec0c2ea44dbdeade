//! Directories as numbers, with a small memory of those asked for last.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

use rusqlite::{Connection, OptionalExtension};

use crate::model::limits::PATH_DEPTH_MAX;
use crate::model::path::RelPath;
use crate::store::codec;
use crate::store::error::{At, StoreError};

/// The number of the folder's root.
pub(crate) const ROOT: i64 = 0;
/// Bytes of paths in one generation of a cache.
const GENERATION_BYTES: usize = 128 << 10;

const TABLE: &str = "dir";

/// The table of directories.
#[derive(Debug, Default)]
pub(crate) struct Dirs {
    numbers: RefCell<Cache<Box<[u8]>, i64>>,
    paths: RefCell<Cache<i64, RelPath>>,
}

impl Dirs {
    /// Returns the number of a directory (its path, empty for the root), if it has one.
    pub(crate) fn find(&self, conn: &Connection, dir: &[u8]) -> Result<Option<i64>, StoreError> {
        self.walk(conn, dir, |_, _| Ok(None))
    }

    /// Returns the number of a directory, giving it one if it has none.
    pub(crate) fn find_or_create(&self, conn: &Connection, dir: &[u8]) -> Result<i64, StoreError> {
        let created = self.walk(conn, dir, |parent, name| create(conn, parent, name).map(Some))?;
        created.ok_or_else(|| StoreError::corrupt(TABLE, "a directory could not be numbered"))
    }

    /// Returns the path of a directory; `None` is the root.
    pub(crate) fn path(&self, conn: &Connection, dir: i64) -> Result<Option<RelPath>, StoreError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut at = dir;
        let top = loop {
            if at == ROOT {
                break None;
            }
            if let Some(path) = self.paths.borrow_mut().get(&at) {
                break Some(path);
            }
            if names.len() >= PATH_DEPTH_MAX {
                return Err(StoreError::corrupt(TABLE, "directories lie inside themselves"));
            }
            let (parent, name) = row_of(conn, at)?;
            names.push(name);
            at = parent;
        };
        if names.is_empty() {
            return Ok(top);
        }
        let mut bytes = top.map_or_else(Vec::new, |path| path.as_bytes().to_vec());
        for name in names.iter().rev() {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name);
        }
        let path = RelPath::parse(&bytes).map_err(|e| StoreError::corrupt(TABLE, e.to_string()))?;
        self.paths.borrow_mut().insert(dir, path.clone(), path.as_bytes().len());
        Ok(Some(path))
    }

    /// Forgets the number of a directory that holds nothing any more, and of those above it for which
    /// that was the last thing they held.
    pub(crate) fn prune(&self, conn: &Connection, dir: i64) -> Result<(), StoreError> {
        const IS_USED: &str =
            "SELECT EXISTS (SELECT 1 FROM entry WHERE dir = ?1) OR EXISTS (SELECT 1 FROM dir WHERE parent = ?1)";
        let mut at = dir;
        while at != ROOT {
            let mut statement = conn.prepare_cached(IS_USED).at(TABLE)?;
            if statement.query_row([at], |row| row.get::<_, bool>(0)).at(TABLE)? {
                break;
            }
            let (parent, _) = row_of(conn, at)?;
            if let Some(path) = self.path(conn, at)? {
                self.numbers.borrow_mut().remove(path.as_bytes());
            }
            self.paths.borrow_mut().remove(&at);
            conn.prepare_cached("DELETE FROM dir WHERE dir = ?").at(TABLE)?.execute([at]).at(TABLE)?;
            at = parent;
        }
        Ok(())
    }

    /// Forgets what is remembered, because the table was set back.
    pub(crate) fn clear(&self) {
        *self.numbers.borrow_mut() = Cache::default();
        *self.paths.borrow_mut() = Cache::default();
    }

    fn walk(
        &self,
        conn: &Connection,
        dir: &[u8],
        on_missing: impl Fn(i64, &[u8]) -> Result<Option<i64>, StoreError>,
    ) -> Result<Option<i64>, StoreError> {
        let (mut at, mut from) = self.nearest_known(dir);
        while from < dir.len() {
            let end = dir[from..].iter().position(|b| *b == b'/').map_or(dir.len(), |n| from + n);
            let name = &dir[from..end];
            let found = match lookup(conn, at, name)? {
                Some(number) => Some(number),
                None => on_missing(at, name)?,
            };
            let Some(number) = found else { return Ok(None) };
            self.numbers.borrow_mut().insert(dir[..end].into(), number, end);
            (at, from) = (number, end + 1);
        }
        Ok(Some(at))
    }

    /// Returns the nearest directory at or above `dir` whose number is remembered, and where the
    /// components below it begin.
    fn nearest_known(&self, dir: &[u8]) -> (i64, usize) {
        let mut numbers = self.numbers.borrow_mut();
        let mut end = dir.len();
        while end > 0 {
            if let Some(number) = numbers.get(&dir[..end]) {
                return (number, end + 1);
            }
            end = dir[..end].iter().rposition(|b| *b == b'/').unwrap_or(0);
        }
        (ROOT, 0)
    }
}

fn lookup(conn: &Connection, parent: i64, name: &[u8]) -> Result<Option<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT dir, sum FROM dir WHERE parent = ? AND name = ?").at(TABLE)?;
    let row = statement.query_row((parent, name), |row| Ok((row.get(0)?, row.get(1)?))).optional().at(TABLE)?;
    let Some((dir, sum)) = row else { return Ok(None) };
    check(dir, parent, name, sum)?;
    Ok(Some(dir))
}

fn row_of(conn: &Connection, dir: i64) -> Result<(i64, Vec<u8>), StoreError> {
    let mut statement = conn.prepare_cached("SELECT parent, name, sum FROM dir WHERE dir = ?").at(TABLE)?;
    let row = statement.query_row([dir], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional().at(TABLE)?;
    let Some((parent, name, sum)) = row else { return Err(StoreError::corrupt(TABLE, "a directory is missing")) };
    let name: Vec<u8> = name;
    check(dir, parent, &name, sum)?;
    Ok((parent, name))
}

fn create(conn: &Connection, parent: i64, name: &[u8]) -> Result<i64, StoreError> {
    let last: i64 = conn
        .prepare_cached("SELECT ifnull(max(dir), 0) FROM dir")
        .at(TABLE)?
        .query_row([], |row| row.get(0))
        .at(TABLE)?;
    let dir = last.checked_add(1).ok_or_else(|| StoreError::corrupt(TABLE, "a number is out of bounds"))?;
    let mut statement =
        conn.prepare_cached("INSERT INTO dir (dir, parent, name, sum) VALUES (?, ?, ?, ?)").at(TABLE)?;
    statement.execute((dir, parent, name, sum(dir, parent, name))).at(TABLE)?;
    Ok(dir)
}

fn check(dir: i64, parent: i64, name: &[u8], found: i64) -> Result<(), StoreError> {
    if found == sum(dir, parent, name) && dir != ROOT {
        Ok(())
    } else {
        Err(StoreError::corrupt(TABLE, "a row does not match its checksum"))
    }
}

fn sum(dir: i64, parent: i64, name: &[u8]) -> i64 {
    let mut covered = vec![b'd'];
    covered.extend_from_slice(&dir.to_le_bytes());
    covered.extend_from_slice(&parent.to_le_bytes());
    covered.extend_from_slice(name);
    i64::from(codec::sum_of(&covered))
}

/// A memory of bounded size: when the young generation is full, it becomes the old one, and what was
/// not asked for in the meantime is forgotten with the old one before it.
#[derive(Debug)]
struct Cache<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_bytes: usize,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0 }
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, bytes)) = self.old.remove_entry(key)?;
        self.insert(key, value.clone(), bytes);
        Some(value)
    }

    fn insert(&mut self, key: K, value: V, bytes: usize) {
        // The constant stands for what a map needs around its keys and values.
        const OVERHEAD: usize = 64;
        self.young_bytes += bytes + OVERHEAD;
        if self.young_bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = bytes + OVERHEAD;
        }
        self.young.insert(key, (value, bytes));
    }

    fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
    {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("schema.sql")).unwrap();
        conn
    }

    #[test]
    fn numbers_and_paths_are_inverse_with_and_without_memory() {
        let (conn, dirs) = (table(), Dirs::default());
        let deep = "d/".repeat(PATH_DEPTH_MAX - 1) + "d";
        for path in ["a", "a/b", "b/a", &deep, "a b/\u{e9}"] {
            let number = dirs.find_or_create(&conn, path.as_bytes()).unwrap();
            for _ in 0..2 {
                assert_eq!(dirs.find(&conn, path.as_bytes()).unwrap(), Some(number));
                assert_eq!(dirs.path(&conn, number).unwrap().unwrap().as_bytes(), path.as_bytes());
                dirs.clear();
            }
        }
        assert_eq!(dirs.find(&conn, b"").unwrap(), Some(ROOT));
        assert_eq!(dirs.find(&conn, b"a/c").unwrap(), None);
        assert_eq!(dirs.path(&conn, ROOT).unwrap(), None);
    }

    #[test]
    fn pruning_forgets_empty_directories_up_to_one_in_use() {
        let (conn, dirs) = (table(), Dirs::default());
        let deep = dirs.find_or_create(&conn, b"a/b/c").unwrap();
        dirs.find_or_create(&conn, b"a/x").unwrap();
        dirs.prune(&conn, deep).unwrap();
        assert_eq!(dirs.find(&conn, b"a/b").unwrap(), None);
        assert!(dirs.find(&conn, b"a/x").unwrap().is_some());
        assert!(dirs.find(&conn, b"a").unwrap().is_some());
    }

    #[test]
    fn directories_inside_themselves_are_found_out() {
        let (conn, dirs) = (table(), Dirs::default());
        for (dir, parent) in [(1, 2), (2, 1)] {
            let values = (dir, parent, b"n".as_slice(), sum(dir, parent, b"n"));
            conn.execute("INSERT INTO dir VALUES (?, ?, ?, ?)", values).unwrap();
        }
        assert!(matches!(dirs.path(&conn, 1), Err(StoreError::Corrupt { .. })));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let mut cache: Cache<Box<[u8]>, i64> = Cache::default();
        cache.insert((*b"often").into(), -1, 5);
        for n in 0..100_000i64 {
            cache.insert(n.to_le_bytes().as_slice().into(), n, 8);
            assert_eq!(cache.get(b"often".as_slice()), Some(-1));
            assert!((cache.young.len() + cache.old.len()) * 72 < 3 * GENERATION_BYTES);
        }
        assert_eq!(cache.get(0i64.to_le_bytes().as_slice()), None);
    }
}
