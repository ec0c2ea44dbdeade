//! The planner on random trees: what [`reconcile`] decides and what [`find_pieces`] plans must be true of
//! any two devices, however their trees came about.
//!
//! Trees are correlated: two devices edit copies of one tree, now and then hearing of each other.
//! `PLANNER_CASES=n` plays that many.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::collections::{BTreeMap, BTreeSet};

use kinfold::engine::assemble::find_pieces;
use kinfold::engine::reconcile::{Verdict, reconcile};
use kinfold::model::id::{AuthorId, ChunkId, ContentId, DeviceTag};
use kinfold::model::path::RelPath;
use kinfold::model::recipe::{ChunkRef, Recipe};
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::version::{Causality, VersionVector};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Half of the cases go to either property.
fn cases() -> u32 {
    let asked = std::env::var("PLANNER_CASES").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(100_000) / 2
}

/// The same cases each time, so that a change shows what it breaks; `PROPTEST_RNG_SEED=n` tries others.
fn runner() -> TestRunner {
    let config = Config { cases: cases(), failure_persistence: None, ..Config::default() };
    let rng_seed = match config.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        asked => asked,
    };
    TestRunner::new(Config { rng_seed, ..config })
}

// ------------------------------------------------------------------------------------------ reconcile

type Tree = BTreeMap<u8, Record>;

/// What may happen to one of three devices.
#[derive(Clone, Debug)]
enum Deed {
    /// A person changes a path.
    Edit { on: usize, path: u8, body: Body },
    /// The device acts on what another holds, at every path.
    Hear { on: usize, from: usize },
}

fn any_body() -> impl Strategy<Value = Body> {
    prop_oneof![
        2 => Just(Body::Tombstone),
        1 => (0u16..2).prop_map(|mode| Body::Dir { mode }),
        1 => (0u8..2).prop_map(|t| Body::Symlink { target: vec![b'a' + t].into() }),
        4 => (0u16..2, 0i64..3, 0u8..4).prop_map(|(mode, mtime_ns, c)| {
            Body::File(FileBody { mode, mtime_ns, size: u64::from(c), content: ContentId([c; 32]) })
        }),
    ]
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0usize..3, 0u8..3, any_body()).prop_map(|(on, path, body)| Deed::Edit { on, path, body }),
        2 => (0usize..3, 0usize..3).prop_map(|(on, from)| Deed::Hear { on, from }),
    ]
}

#[derive(Clone, Default)]
struct Device {
    tree: Tree,
    /// Counts all changes of this device in one row.
    count: u64,
}

#[derive(Default)]
struct Cluster {
    devices: [Device; 3],
    /// Bodies that a conflict put aside, wherever.
    aside: Vec<(u8, Body)>,
    /// What each version stands for.
    meanings: BTreeMap<(u8, Vec<(AuthorId, u64)>), Body>,
    /// What nobody knowingly replaced, and the version that it was made as.
    owed: BTreeMap<u8, Vec<(VersionVector, Body)>>,
}

fn author(device: usize) -> AuthorId {
    AuthorId(100 + device as u64)
}

impl Cluster {
    fn hold(&mut self, on: usize, path: u8, record: Record) -> Result<(), TestCaseError> {
        let key = (path, record.version.counters().to_vec());
        let known = self.meanings.entry(key).or_insert_with(|| record.body.clone());
        prop_assert_eq!(&*known, &record.body, "one version has two bodies");
        if let Some(before) = self.devices[on].tree.get(&path) {
            prop_assert_eq!(before.version.compare(&record.version), Causality::Before, "a version went back");
        }
        self.devices[on].tree.insert(path, record);
        Ok(())
    }

    fn edit(&mut self, on: usize, path: u8, body: Body) -> Result<(), TestCaseError> {
        let device = &mut self.devices[on];
        let there = device.tree.get(&path).cloned();
        let was = there.as_ref().map_or(&Body::Tombstone, |record| &record.body);
        if *was == body {
            return Ok(());
        }
        let seen = there.as_ref().map(|record| record.version.clone()).unwrap_or_default();
        device.count += 1;
        let version = seen.after_change(author(on), device.count).unwrap();
        let owed = self.owed.entry(path).or_default();
        if !was.is_same_content(&body) {
            let is_seen = |v: &VersionVector| matches!(v.compare(&seen), Causality::Before | Causality::Equal);
            owed.retain(|(made, content)| !(is_seen(made) && content.is_same_content(was)));
            if matches!(body, Body::File(_) | Body::Symlink { .. }) {
                owed.push((version.clone(), body.clone()));
            }
        }
        let name = RelPath::parse(&[b'a' + path]).unwrap();
        self.hold(on, path, Record { path: name, version, by: DeviceTag([on as u8; 5]), body })
    }

    /// Returns whether anything was done.
    fn hear(&mut self, on: usize, from: usize) -> Result<bool, TestCaseError> {
        let mut has_acted = false;
        for (path, remote) in self.devices[from].tree.clone() {
            let local = self.devices[on].tree.get(&path).cloned();
            let record = match reconcile(local.as_ref(), &remote).unwrap() {
                Verdict::Stay => continue,
                Verdict::Take => remote,
                Verdict::Agree { version, by } => {
                    let local = local.unwrap();
                    prop_assert_eq!(&local.body, &remote.body);
                    Record { version, by, ..local }
                }
                Verdict::Yield { version } => {
                    let local = local.unwrap();
                    if local.body.is_live() && !local.body.is_same_content(&remote.body) {
                        self.aside.push((path, local.body));
                    }
                    self.devices[on].count += 1;
                    let version = version.after_change(author(on), self.devices[on].count).unwrap();
                    Record { version, ..remote }
                }
            };
            has_acted = true;
            self.hold(on, path, record)?;
        }
        Ok(has_acted)
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..20 {
            let mut has_acted = false;
            for (on, from) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                has_acted |= self.hear(on, from)?;
            }
            if !has_acted {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("it never comes to rest"))
    }
}

#[test]
fn trees_converge_and_lose_nothing() {
    let deeds = proptest::collection::vec(any_deed(), 1..24);
    let result = runner().run(&deeds, |deeds| {
        let mut cluster = Cluster::default();
        for deed in deeds {
            match deed {
                Deed::Edit { on, path, body } => cluster.edit(on, path, body)?,
                Deed::Hear { on, from } => drop(cluster.hear(on, from)?),
            }
        }
        let before: Vec<_> = cluster.devices.iter().map(|device| device.tree.clone()).collect();
        cluster.settle()?;
        for path in 0..3 {
            let end = cluster.devices[0].tree.get(&path).cloned();
            for device in &cluster.devices {
                // Who is named is left out: of several who made the same apart, each device may name another.
                let held = |record: &Record| (record.version.clone(), record.body.clone());
                prop_assert_eq!(device.tree.get(&path).map(held), end.as_ref().map(held));
            }
            // Nothing is invented: what all hold in the end was somewhere, and a path is gone only if
            // somebody had deleted it, or it never was.
            let bodies: Vec<_> = before.iter().filter_map(|tree| tree.get(&path)).map(|r| r.body.clone()).collect();
            if let Some(end) = &end {
                prop_assert!(bodies.contains(&end.body));
                let is_best = bodies.iter().any(|body| body.precedence(&end.body).is_gt());
                let all_concurrent = before.iter().filter_map(|tree| tree.get(&path)).all(|one| {
                    before.iter().filter_map(|tree| tree.get(&path)).all(|other| {
                        one.version == other.version || one.version.compare(&other.version) == Causality::Concurrent
                    })
                });
                prop_assert!(!(is_best && all_concurrent), "a lesser body won");
            }
            for (_, owed) in cluster.owed.get(&path).into_iter().flatten() {
                let is_there = end.as_ref().is_some_and(|end| end.body.is_same_content(owed));
                let is_aside = cluster.aside.iter().any(|(at, body)| *at == path && body.is_same_content(owed));
                prop_assert!(is_there || is_aside, "{:?} at {} is lost", owed, path);
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

// ------------------------------------------------------------------------------------------- assemble

/// A file as the numbers of its chunks; files of one case share chunks, as versions of a file do.
fn recipe(chunks: &[u8]) -> Recipe {
    let chunk = |n: &u8| ChunkRef { id: ChunkId::of(&[*n]), len: 1 + u32::from(*n) };
    Recipe::parse(chunks.iter().map(chunk).collect()).unwrap()
}

/// Edits of a sequence of chunks: cut here, put in there, moved.
fn variant(of: &[u8], edits: &[(u8, u8, u8)]) -> Vec<u8> {
    let mut chunks = of.to_vec();
    for (what, at, with) in edits {
        let at = if chunks.is_empty() { 0 } else { usize::from(*at) % chunks.len() };
        match what % 4 {
            0 => chunks.insert(at, *with),
            1 if !chunks.is_empty() => drop(chunks.remove(at)),
            2 => chunks.rotate_left(at),
            _ => chunks.truncate(at + 1),
        }
    }
    chunks
}

#[test]
fn what_lies_here_is_found_whole_and_only_where_it_lies() {
    let base = proptest::collection::vec(0u8..32, 0..24);
    let edits = || proptest::collection::vec((any::<u8>(), any::<u8>(), 0u8..32), 0..5);
    let case = (base, edits(), proptest::collection::vec(edits(), 0..4));
    let result = runner().run(&case, |(base, wanted, sources)| {
        let wanted = variant(&base, &wanted);
        let sources: Vec<_> = sources.iter().map(|edits| variant(&base, edits)).collect();
        let recipes: Vec<_> = sources.iter().map(|chunks| recipe(chunks)).collect();
        let here: BTreeSet<u8> = sources.iter().flatten().copied().collect();
        let pieces = find_pieces(&recipe(&wanted), &recipes);
        let mut found = BTreeMap::new();
        let mut end = 0;
        for piece in &pieces {
            prop_assert!(piece.chunk >= end && piece.chunks > 0, "pieces overlap or are out of order");
            end = piece.chunk + piece.chunks;
            let places: BTreeMap<u64, ChunkRef> = recipes[piece.source as usize].places().collect();
            let mut offset = piece.offset;
            for index in piece.chunk..end {
                // What is copied from there is what it should be, to the length.
                let there = places.get(&offset).copied();
                let wanted = recipe(&wanted).chunks()[index as usize];
                prop_assert_eq!(there, Some(wanted));
                offset += u64::from(wanted.len);
                found.insert(index as usize, ());
            }
        }
        for (index, chunk) in wanted.iter().enumerate() {
            prop_assert_eq!(found.contains_key(&index), here.contains(chunk), "chunk {}", index);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
