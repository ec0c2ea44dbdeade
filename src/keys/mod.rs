//! The `keys` layer.

pub mod fingerprint;
pub mod identity;
pub mod invite;
