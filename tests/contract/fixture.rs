//! An index of each format version that was ever released can be read.
//!
//! The files of `tests/fixtures` are never made again, but for versions not yet released: delete the
//! file, and run this test with `KINFOLD_BLESS=1`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::id::Incarnation;
use kinfold::store::index::SqliteIndex;

use crate::operations::{Op, apply, assert_same};

/// Some changes that touch every table.
pub fn fill<I: Index>(index: &mut I) {
    for seed in 0..60u64 {
        let (at, peer) = (seed as usize, (seed % 3) as u8);
        let seed = seed * 7_919;
        for op in [
            Op::Set { at, seed, new_sequence: true },
            Op::Remote { at, peer, seed: seed + 1 },
            Op::Cursor { peer, seed },
            Op::Keep { at, seed },
            Op::TreeHash(seed as u8),
        ] {
            apply(index, &op);
        }
    }
    apply(index, &Op::Commit);
}

#[test]
fn an_index_of_version_1_can_be_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index-v1.sqlite");
    if !fixture.exists() && std::env::var_os("KINFOLD_BLESS").is_some() {
        let mut index = SqliteIndex::open(&fixture, Incarnation(77)).unwrap();
        fill(&mut index);
        index.close().unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("index.sqlite");
    fs::copy(&fixture, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let index = SqliteIndex::open(&copy, Incarnation(78)).unwrap();
    let mut expected = MemoryIndex::new(Incarnation(77));
    fill(&mut expected);
    assert_same(&index, &expected);
    assert!(expected.locals().count() > 5);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    index.close().unwrap();
}
