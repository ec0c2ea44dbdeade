//! The `net` layer.

pub mod crypto;

#[cfg(test)]
mod handshake_tests;
