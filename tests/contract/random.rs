//! The same random changes, commits and crashes on both indexes, and all reads compared.

use proptest::prelude::*;

use kinfold::engine::index::Index;
use kinfold::engine::memory_index::MemoryIndex;
use kinfold::model::id::Incarnation;
use kinfold::store::index::SqliteIndex;

use crate::operations::{Op, apply, assert_same, paths};

#[derive(Clone, Debug)]
enum Step {
    Change(Op),
    /// Power is cut, and the index opened again.
    Crash,
    /// The index is closed in order, and opened again.
    Close,
    Compare,
}

fn any_op() -> impl Strategy<Value = Op> {
    let at = 0..paths().len();
    let seed = any::<u32>().prop_map(u64::from);
    prop_oneof![
        8 => (at.clone(), seed.clone(), any::<bool>())
            .prop_map(|(at, seed, new_sequence)| Op::Set { at, seed, new_sequence }),
        3 => (at.clone(), seed.clone()).prop_map(|(at, seed)| Op::Touch { at, seed }),
        3 => at.clone().prop_map(|at| Op::Drop { at }),
        4 => (at.clone(), 0u8..3, seed.clone()).prop_map(|(at, peer, seed)| Op::Remote { at, peer, seed }),
        2 => (at.clone(), 0u8..3, seed.clone()).prop_map(|(at, peer, seed)| Op::Stand { at, peer, seed }),
        1 => any::<u8>().prop_map(Op::Brake),
        1 => any::<u8>().prop_map(Op::Scrub),
        1 => any::<u8>().prop_map(Op::Lives),
        1 => (0u8..3, seed.clone()).prop_map(|(peer, seed)| Op::Cursor { peer, seed }),
        1 => (0u8..3, seed.clone()).prop_map(|(peer, seed)| Op::Agree { peer, seed }),
        1 => (0u8..3).prop_map(|peer| Op::DropPeer { peer }),
        1 => (0u8..3, 0u8..3).prop_map(|(from, to)| Op::RenamePeer { from, to }),
        2 => (at, seed).prop_map(|(at, seed)| Op::Keep { at, seed }),
        1 => (-5i64..15, 0u64..3000, 0usize..4)
            .prop_map(|(until_ns, bytes_max, limit)| Op::Expire { until_ns, bytes_max, limit }),
        1 => any::<u8>().prop_map(Op::TreeHash),
        1 => any::<u64>().prop_map(Op::Incarnation),
        1 => Just(Op::Next),
        3 => Just(Op::Commit),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => any_op().prop_map(Step::Change),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
        2 => Just(Step::Compare),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn both_indexes_say_the_same(steps in proptest::collection::vec(any_step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index.sqlite");
        let mut memory = MemoryIndex::new(Incarnation(9));
        let mut sqlite = SqliteIndex::open(&file, Incarnation(9)).unwrap();
        for step in &steps {
            match step {
                Step::Change(Op::Expire { until_ns, bytes_max, limit }) => {
                    let of_memory = memory.expire_kept(*until_ns, *bytes_max, *limit).unwrap();
                    prop_assert_eq!(of_memory, sqlite.expire_kept(*until_ns, *bytes_max, *limit).unwrap());
                }
                Step::Change(op) => {
                    apply(&mut memory, op);
                    apply(&mut sqlite, op);
                }
                Step::Crash | Step::Close => {
                    memory.crash();
                    if matches!(step, Step::Close) {
                        sqlite.close().unwrap();
                    } else {
                        drop(sqlite);
                    }
                    sqlite = SqliteIndex::open(&file, Incarnation(10)).unwrap();
                }
                Step::Compare => assert_same(&memory, &sqlite),
            }
        }
        assert_same(&memory, &sqlite);
        sqlite.check().unwrap();
    }

    #[test]
    fn a_crash_goes_back_to_the_last_commit(
        before in proptest::collection::vec(any_op(), 0..40),
        after in proptest::collection::vec(any_op(), 0..40),
    ) {
        let mut index = MemoryIndex::new(Incarnation(1));
        before.iter().for_each(|op| apply(&mut index, op));
        apply(&mut index, &Op::Commit);
        let mut committed = index.clone();
        after.iter().filter(|op| !matches!(op, Op::Commit)).for_each(|op| apply(&mut index, op));
        index.crash();
        assert_same(&index, &committed);
        // And goes on from there as if nothing had been.
        after.iter().for_each(|op| apply(&mut index, op));
        after.iter().for_each(|op| apply(&mut committed, op));
        assert_same(&index, &committed);
    }
}
