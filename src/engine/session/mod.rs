//! Sessions: the handshake, and what runs inside it.

pub mod beacon;
pub mod gate;
pub mod handshake;
pub mod record;
pub mod renewal;
pub mod succession;
pub mod suite;
