//! Cutting and hashing in one pass: what a first scan is made of.

use criterion::{Criterion, Throughput};
use kinfold::engine::chunker::{ChunkBuffer, Chunker};
use std::hint::black_box;

use crate::made_up;

const FILE_LEN: usize = 64 << 20;

pub fn bench(c: &mut Criterion) {
    let file = made_up::noise(FILE_LEN);
    let mut memory = ChunkBuffer::default();
    let mut group = c.benchmark_group("chunker");
    group.throughput(Throughput::Bytes(FILE_LEN as u64)).sample_size(20);
    group.bench_function("cut and hash 64 MiB", |b| b.iter(|| chunks_of(black_box(&file), &mut memory)));
    group.bench_function("hash 64 MiB", |b| b.iter(|| blake3::hash(black_box(&file))));
    group.finish();
}

fn chunks_of(file: &[u8], memory: &mut ChunkBuffer) -> usize {
    let mut chunker = Chunker::new(file.len() as u64, memory);
    let (mut rest, mut chunks) = (file, 0);
    while !rest.is_empty() {
        let space = chunker.buffer();
        let (read, after) = rest.split_at(space.len().min(rest.len()));
        space[..read.len()].copy_from_slice(read);
        rest = after;
        chunker.advance(read.len());
        if rest.is_empty() {
            chunker.end();
        }
        chunks += std::iter::from_fn(|| chunker.next_chunk()).count();
    }
    chunks
}
