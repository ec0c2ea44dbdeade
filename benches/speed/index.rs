//! The index on disk: taking in a folder, and what a scan and a peer ask of it.

use criterion::{BatchSize, Criterion, Throughput};
use kinfold::engine::index::{Index, Local};
use kinfold::model::id::{Incarnation, Sequence};
use kinfold::model::recipe::Recipe;
use kinfold::store::index::SqliteIndex;
use tempfile::TempDir;

use crate::made_up;

/// Files in the folder.
const FILES: u64 = 10_000;
/// Files in one commit.
const BATCH: usize = 1000;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.sample_size(10).throughput(Throughput::Elements(FILES));
    for chunks in [1, 20] {
        group.bench_function(format!("take in files of {chunks} chunks"), |b| {
            b.iter_batched(|| (empty(), files(chunks)), |(index, files)| fill(index, &files), BatchSize::PerIteration);
        });
    }
    let (_dir, index) = fill(empty(), &files(1));
    group.bench_function("look up each file", |b| {
        b.iter(|| (0..FILES).filter(|n| index.local(&made_up::path(*n)).unwrap().is_some()).count());
    });
    group.bench_function("list each directory", |b| {
        let list = |n: u64| index.children(made_up::path(n).parent().as_ref()).unwrap().len();
        b.iter(|| (0..FILES).step_by(50).map(list).sum::<usize>());
    });
    group.bench_function("tell all changes", |b| b.iter(|| tell_all(&index)));
    group.finish();
}

fn empty() -> (TempDir, SqliteIndex) {
    let dir = TempDir::new().unwrap();
    let index = SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap();
    (dir, index)
}

fn files(chunks: u64) -> Vec<(Local, Recipe)> {
    let file = |n| {
        let recipe = made_up::recipe(n, chunks);
        (made_up::local(n, Sequence(n + 1), &recipe), recipe)
    };
    (0..FILES).map(file).collect()
}

fn fill((dir, mut index): (TempDir, SqliteIndex), files: &[(Local, Recipe)]) -> (TempDir, SqliteIndex) {
    for batch in files.chunks(BATCH) {
        for (local, recipe) in batch {
            index.next_sequence(Sequence(0)).unwrap();
            index.set_local(local, Some(recipe)).unwrap();
        }
        index.commit().unwrap();
    }
    (dir, index)
}

fn tell_all(index: &SqliteIndex) -> usize {
    let (mut since, mut told) = (Sequence(0), 0);
    loop {
        let changes = index.changes_since(since, BATCH).unwrap();
        let Some((last, _)) = changes.last() else { return told };
        since = last.sequence;
        told += changes.len();
    }
}
