//! The contract of `Index`, kept by every implementation of it.

// The whole crate is a test; the helpers between its tests may unwrap as these do.
#![allow(clippy::unwrap_used)]

mod checks;
mod damage;
mod fixture;
mod operations;
mod random;
