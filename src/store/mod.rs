//! The index of a folder, in one SQLite file.
//!
//! `schema.sql` describes the format. [`index::SqliteIndex`] is what the engine works with; the
//! modules beside it each keep a table or two.
//!
//! Promises: a commit is durable before it returns; what was not committed is forgotten as a whole,
//! by a crash or by a failed write; memory does not grow with the folder; whatever the file holds,
//! reading it gives what was written or an error, never a panic. What is deliberately not here:
//! rebuilding a damaged index, for only the scan knows what to build it from.

pub mod error;
pub mod index;

mod codec;
mod dirs;
mod kept;
mod meta;
mod migrations;
mod peers;
mod recipes;
mod remotes;
mod single;
