//! A damaged file gives what was written, or an error, never anything else and never a panic.

use std::fs;
use std::path::Path;

use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::id::{Incarnation, Sequence};
use kinfold::store::error::StoreError;
use kinfold::store::index::SqliteIndex;

use crate::fixture::fill;
use crate::operations::{Op, apply, assert_same, chunk, path, paths, peer};

struct Whole {
    bytes: Vec<u8>,
    expected: MemoryIndex,
}

fn whole() -> Whole {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index");
    let mut index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    let mut expected = MemoryIndex::new(Incarnation(5));
    fill(&mut index);
    fill(&mut expected);
    index.close().unwrap();
    Whole { bytes: fs::read(&file).unwrap(), expected }
}

/// Opens damaged bytes and reads and changes what there is. Returns whether the damage was noticed.
fn survives(dir: &Path, bytes: &[u8], expected: &MemoryIndex) -> bool {
    let file = dir.join("index");
    fs::write(&file, bytes).unwrap();
    let index = match SqliteIndex::open(&file, Incarnation(6)) {
        Ok(index) => index,
        Err(StoreError::Corrupt { .. } | StoreError::Newer { .. }) => return true,
        // Bytes of the header that ask for another kind of file make SQLite refuse to write it.
        Err(StoreError::Io { .. }) => return true,
        Err(error) => panic!("{error:?}"),
    };
    let noticed = std::cell::Cell::new(false);
    let look = |error: StoreError| {
        assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Io { .. }), "{error:?}");
        noticed.set(true);
    };
    macro_rules! read {
        ($call:expr) => {
            match $call {
                Ok(found) => Some(found),
                Err(error) => {
                    look(error);
                    None
                }
            }
        };
    }
    // An index that was made new over bytes that are no longer a database holds nothing.
    if index.incarnation() == Incarnation(6) {
        return true;
    }
    assert_eq!((index.tree_hash(), index.last_sequence()), (expected.tree_hash(), expected.last_sequence()));
    assert_eq!(index.totals().unwrap(), expected.totals().unwrap());
    let is_true = |local: &_| expected.locals().any(|known| known == local);
    for path in paths() {
        if let Some(Some(local)) = read!(index.local(&path)) {
            assert_eq!(Some(local), expected.local(&path).unwrap());
        }
        if let Some(Some(recipe)) = read!(index.recipe(&path)) {
            assert_eq!(Some(recipe), expected.recipe(&path).unwrap());
        }
        for child in read!(index.children(Some(&path))).unwrap_or_default() {
            assert!(is_true(&child));
        }
        for (peer, remote) in read!(index.remotes(&path)).unwrap_or_default() {
            assert_eq!(Some(remote), expected.remote(&peer, &path).unwrap());
        }
        for n in 0..3 {
            if let Some(Some(remote)) = read!(index.remote(&peer(n), &path)) {
                assert_eq!(Some(remote), expected.remote(&peer(n), &path).unwrap());
            }
        }
        for kept in read!(index.kept(Some(&path), true)).unwrap_or_default() {
            assert!(expected.kept(None, true).unwrap().contains(&kept));
        }
        read!(index.has_live_below(&path));
    }
    for (local, recipe) in read!(index.changes_since(Sequence(0), 1000)).unwrap_or_default() {
        assert!(is_true(&local));
        assert!(recipe.is_none() || recipe == expected.recipe(&local.record.path).unwrap());
    }
    for n in 0..300 {
        let holders = expected.holders_of(&chunk(n).id, 1000).unwrap();
        for holder in read!(index.holders_of(&chunk(n).id, 1000)).unwrap_or_default() {
            assert!(holders.contains(&holder), "{holder} {n}");
        }
    }
    for local in read!(index.conflicts()).unwrap_or_default() {
        assert!(is_true(&local));
    }
    read!(index.remote_paths(None, 1000));
    change_everything(index, &look);
    noticed.get()
}

fn change_everything(mut index: SqliteIndex, look: &dyn Fn(StoreError)) {
    for at in paths() {
        let sequence = index.next_sequence(Sequence(0)).unwrap();
        let (local, recipe) = crate::operations::local(at.clone(), sequence, 33);
        index.set_local(&local, recipe.as_ref()).unwrap_or_else(look);
        index.drop_local(&at).unwrap_or_else(look);
        index.set_remote(&peer(1), &at, None).unwrap_or_else(look);
    }
    index.drop_peer(&peer(0)).unwrap_or_else(look);
    drop(index.expire_kept(i64::MAX, 0, 1000).map_err(look));
    index.commit().unwrap_or_else(look);
    index.close().unwrap_or_else(look);
}

/// A row of numbers without order (Lehmer, modulus 2^31 - 1).
fn numbers(seed: u64) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(seed), |n| Some(n * 48_271 % 0x7fff_ffff)).skip(1).map(|n| n as usize)
}

#[test]
fn flipped_bits_are_noticed_or_do_no_harm() {
    let Whole { bytes, expected } = whole();
    let dir = tempfile::tempdir().unwrap();
    let mut noticed = 0;
    let mut numbers = numbers(1);
    const ROUNDS: usize = 400;
    for round in 0..ROUNDS {
        let mut damaged = bytes.clone();
        // The first pages, with the header and the schema, get more than their share.
        let within = if round % 4 == 0 { 8192 } else { damaged.len() };
        let at = numbers.next().unwrap() % within;
        damaged[at] ^= 1 << (round % 8);
        noticed += usize::from(survives(dir.path(), &damaged, &expected));
    }
    assert!(noticed > ROUNDS / 10, "{noticed}");
}

#[test]
fn overwritten_pages_are_noticed_or_do_no_harm() {
    let Whole { bytes, expected } = whole();
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = numbers(2);
    for page in 0..bytes.len() / 4096 {
        for fill in [Some(0), Some(0xff), None] {
            let mut damaged = bytes.clone();
            let page = &mut damaged[page * 4096..][..4096];
            page.iter_mut().for_each(|byte| *byte = fill.unwrap_or(numbers.next().unwrap() as u8));
            survives(dir.path(), &damaged, &expected);
        }
    }
}

#[test]
fn a_cut_off_file_is_noticed() {
    let Whole { bytes, expected } = whole();
    let dir = tempfile::tempdir().unwrap();
    for len in [1, 15, 16, 99, 100, 511, 512, 4095, 4096, 5000, 8192, bytes.len() / 2, bytes.len() - 4096] {
        assert!(survives(dir.path(), &bytes[..len], &expected), "{len}");
    }
}

#[test]
fn something_else_is_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index");
    fs::write(&file, "a letter to a friend, long enough to be taken for a database header".repeat(20)).unwrap();
    assert!(matches!(SqliteIndex::open(&file, Incarnation(1)), Err(StoreError::Corrupt { .. })));
    assert!(fs::read(&file).unwrap().starts_with(b"a letter"));
    assert!(matches!(SqliteIndex::open(dir.path(), Incarnation(1)), Err(StoreError::Io { .. })));
    let nowhere = dir.path().join("none/index");
    assert!(matches!(SqliteIndex::open(&nowhere, Incarnation(1)), Err(StoreError::Io { .. })));
}

#[test]
fn an_index_that_was_not_closed_is_checked_at_its_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index");
    let mut index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    fill(&mut index);
    index.close().unwrap();
    let mut index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    apply(&mut index, &Op::TreeHash(1));
    apply(&mut index, &Op::Commit);
    index.checkpoint().unwrap();
    drop(index);
    // The heads of all pages but the few that are read at any opening; opening would not see them.
    let mut bytes = fs::read(&file).unwrap();
    for page in bytes.chunks_mut(4096).skip(10) {
        page[..8].fill(0xee);
    }
    fs::write(&file, bytes).unwrap();
    assert!(matches!(SqliteIndex::open(&file, Incarnation(5)), Err(StoreError::Corrupt { .. })));
}

#[test]
fn what_was_not_committed_is_forgotten_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index");
    let mut index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    apply(&mut index, &Op::Set { at: 0, seed: 3, new_sequence: true });
    apply(&mut index, &Op::Commit);
    let kept = index.local(&path(b"a")).unwrap();
    assert!(kept.is_some());
    apply(&mut index, &Op::Set { at: 1, seed: 3, new_sequence: true });
    drop(index);
    let index = SqliteIndex::open(&file, Incarnation(6)).unwrap();
    assert_eq!(index.incarnation(), Incarnation(5));
    assert_eq!(index.last_sequence(), Sequence(1));
    assert_eq!(index.local(&path(b"a")).unwrap(), kept);
    assert_eq!(index.local(&paths()[1]).unwrap(), None);
}

#[test]
fn an_index_is_opened_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("index");
    let index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    assert!(matches!(SqliteIndex::open(&file, Incarnation(5)), Err(StoreError::Busy)));
    index.close().unwrap();
    SqliteIndex::open(&file, Incarnation(5)).unwrap();
}

#[test]
fn a_power_cut_leaves_the_state_of_some_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("index"), dir.path().join("index-wal"));
    let mut index = SqliteIndex::open(&file, Incarnation(5)).unwrap();
    let mut states = vec![MemoryIndex::new(Incarnation(5))];
    for n in 0..8 {
        let mut state = states[n].clone();
        for at in [n, n + 1, n + 2] {
            let op = Op::Set { at, seed: 1_000 + 37 * n as u64, new_sequence: true };
            apply(&mut state, &op);
            apply(&mut index, &op);
        }
        apply(&mut index, &Op::Commit);
        apply(&mut state, &Op::Commit);
        states.push(state);
    }
    apply(&mut index, &Op::Set { at: 0, seed: 5, new_sequence: true });
    // The files as another would find them, had the power gone now or while the log was written.
    let (bytes, log) = (fs::read(&file).unwrap(), fs::read(&log).unwrap());
    let after = tempfile::tempdir().unwrap();
    let mut last = 0;
    for len in (0..=log.len()).step_by(1021).chain([log.len()]) {
        fs::write(after.path().join("index"), &bytes).unwrap();
        fs::write(after.path().join("index-wal"), &log[..len]).unwrap();
        let found = SqliteIndex::open(&after.path().join("index"), Incarnation(5)).unwrap();
        let reached = (found.last_sequence().0 / 3) as usize;
        assert_same(&found, &states[reached]);
        assert!(reached >= last, "a longer log holds no less");
        last = reached;
    }
    assert_eq!(last, 8);
}
