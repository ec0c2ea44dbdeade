//! Deterministic state machines and plans: inputs in, outputs out, nothing async.

pub mod assemble;
pub mod brake;
pub mod bucket;
pub mod chunk;
pub mod chunker;
pub mod conflict;
pub mod debounce;
pub mod effect;
pub mod folder;
pub mod index;
pub mod memory_index;
pub mod merge;
pub mod pairing;
pub mod reconcile;
pub mod session;
