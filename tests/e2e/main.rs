//! Real daemons, real files, real sockets of this machine: what a person gets, through the built program.
//!
//! Nothing here is timed: a test waits for what has to become true, as long as a busy machine needs.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod apart;
mod brake;
mod census;
mod confined;
mod demo;
mod endurance;
mod found;
mod hostile;
mod independent;
mod keys;
mod lab;
mod limits;
mod live;
mod merge;
mod metered;
mod network;
mod pairing;
mod past;
mod peer_history;
mod people;
mod proxy;
mod puppet;
mod race;
mod revoked;
mod rot;
mod rotate;
mod service;
mod sharing;
mod storms;
mod strangers;
mod sync;
mod trouble;
