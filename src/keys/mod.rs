//! This device's identity, and how people compare it.

pub mod fingerprint;
pub mod identity;
