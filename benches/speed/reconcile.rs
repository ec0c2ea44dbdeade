//! The verdict about one path, and the plan of a large file of which most lies here.

use std::hint::black_box;

use criterion::Criterion;
use kinfold::engine::assemble::find_pieces;
use kinfold::engine::reconcile::reconcile;
use kinfold::model::id::Sequence;
use kinfold::model::recipe::Recipe;
use kinfold::model::record::Record;
use kinfold::model::version::VersionVector;

use crate::made_up;

/// Chunks of a file of 1 GiB, about.
const CHUNKS: u64 = 16_000;

pub fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("reconcile");
    let mine = record(1, &made_up::version(1, 5));
    let seen = mine.version.after_change(kinfold::model::id::AuthorId(2), 6).unwrap();
    for (name, theirs) in
        [("equal", mine.clone()), ("newer", record(2, &seen)), ("in conflict", record(2, &made_up::version(2, 6)))]
    {
        group.bench_function(name, |b| b.iter(|| reconcile(black_box(Some(&mine)), black_box(&theirs))));
    }
    let former = made_up::recipe(1, CHUNKS);
    let mut chunks = former.chunks().to_vec();
    chunks.insert(CHUNKS as usize / 2, made_up::recipe(2, 1).chunks()[0]);
    let edited = Recipe::parse(chunks).unwrap();
    group.bench_function("find pieces of 1 GiB", |b| {
        b.iter(|| find_pieces(black_box(&edited), std::slice::from_ref(&former)));
    });
    group.finish();
}

fn record(content: u64, version: &VersionVector) -> Record {
    let local = made_up::local(1, Sequence(1), &made_up::recipe(content, 1));
    Record { version: version.clone(), ..local.record }
}
