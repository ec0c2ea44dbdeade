//! The `keys` layer.

pub mod fingerprint;
pub mod identity;
pub mod invite;
pub mod key_file;
pub mod passphrase;
pub mod rotation;
pub mod sealed;
pub mod seed;
