//! How fast the parts are that all bytes and all records pass through, each on one core.
//!
//! `cargo bench` runs them all, `cargo bench -- index` those whose name has `index` in it. Compare runs
//! on the same machine and nothing else.

// Made-up data may be made with `unwrap`, as in tests.
#![allow(clippy::unwrap_used)]

mod chunker;
mod index;
mod made_up;
mod reconcile;
mod session;
mod wire;

use criterion::{criterion_group, criterion_main};

criterion_group!(speed, chunker::bench, session::bench, index::bench, reconcile::bench, wire::bench);
criterion_main!(speed);
