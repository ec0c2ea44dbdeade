//! effect.
