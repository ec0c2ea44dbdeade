//! Deterministic state machines and plans: inputs in, outputs out, nothing async.

pub mod chunk;
pub mod chunker;
pub mod conflict;
pub mod debounce;
pub mod effect;
pub mod index;
pub mod session;
