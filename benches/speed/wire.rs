//! Messages to bytes and back: a full batch of records, as at the first meeting of two devices.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use kinfold::model::id::{FolderId, Sequence};
use kinfold::model::limits::RECORDS_PER_MESSAGE_MAX;
use kinfold::wire::message::{Message, Records, SentRecord};

use crate::made_up;

pub fn bench(c: &mut Criterion) {
    let message = batch();
    let (header, body) = message.encode();
    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Elements(RECORDS_PER_MESSAGE_MAX as u64));
    group.bench_function("encode records", |b| b.iter(|| black_box(&message).encode()));
    group.bench_function("decode records", |b| {
        b.iter(|| Message::decode(message.kind(), black_box(&header), black_box(&body)).unwrap());
    });
    group.finish();
}

fn batch() -> Message {
    let sent = |n| {
        let recipe = made_up::recipe(n, 1);
        SentRecord {
            record: made_up::local(n, Sequence(n + 1), &recipe).record,
            recipe: Some(recipe),
            content: None,
            left_out: false,
        }
    };
    let count = RECORDS_PER_MESSAGE_MAX as u64;
    Message::Records(Records {
        folder: FolderId([7; 16]),
        after: Sequence(0),
        through: Sequence(count),
        more: false,
        records: (0..count).map(sent).collect(),
    })
}
