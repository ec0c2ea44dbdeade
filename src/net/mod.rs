//! The `net` layer.

pub mod anteroom;
pub mod beacon;
pub mod connection;
pub mod crypto;
pub mod dial;
pub mod discovery;
pub mod endpoint;
pub mod frame;
pub mod interfaces;
pub mod listen;
pub mod pace;
pub mod pairing;
pub mod policy;
pub mod renewal;

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod loopback_tests;
