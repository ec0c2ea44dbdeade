//! Kinfold keeps folders identical across a person's own devices.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod keys;
pub mod model;
pub mod net;
pub mod store;
pub mod wire;
