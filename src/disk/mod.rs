//! The folder on disk: the only place that touches files.
//!
//! It does what [`crate::engine::effect`] asks for and reports what came of it; it decides nothing. All
//! below a folder's root is reached through a held directory handle, never by an absolute path and
//! never through a symbolic link ([`root`]). Only [`chunks that were hashed here`] reach the staging
//! area, and only complete staged files reach the folder.
//!
//! [`chunks that were hashed here`]: crate::engine::chunk::VerifiedChunk

pub mod atomic;
pub mod bases;
pub mod commit;
pub mod hash;
pub mod history;
pub mod ignore;
pub mod leftover;
pub mod probe;
pub mod read;
pub mod root;
pub mod scan;
pub mod staging;
pub mod verify;
pub mod watch;

mod batch;
mod copy;
mod fault;
#[cfg(test)]
pub(crate) mod testing;
