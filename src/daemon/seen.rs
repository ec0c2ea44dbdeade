//! The first messages that were answered, kept across restarts so that none is answered twice.
//!
//! A file of tags, one after the other, appended to before each answer. It is not flushed: after a power
//! cut the last ones may be missing, and such a message could have one more answer, which cannot be
//! continued. A part of a tag at the end is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::disk::atomic::write_atomically;
use crate::engine::session::gate::{TAG_LEN, Tag};
use crate::model::limits::REPLAY_CACHE_MAX;

/// The file of tags.
pub struct Seen(Mutex<File>);

impl Seen {
    /// Opens the file and returns what it holds, the oldest first; what is beyond the bound is dropped.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Tag>)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let all: Vec<Tag> = bytes.as_chunks::<TAG_LEN>().0.to_vec();
        let tags = all[all.len().saturating_sub(REPLAY_CACHE_MAX)..].to_vec();
        if tags.len() * TAG_LEN != bytes.len() {
            write_atomically(path, tags.as_flattened(), 0o600)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok((Self(Mutex::new(file)), tags))
    }

    /// Adds a tag.
    pub fn add(&self, tag: &Tag) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(tag) {
            tracing::warn!(%error, "an answered handshake cannot be noted; after a restart it could be answered again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_in_the_next_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        let (seen, tags) = Seen::open(&path).unwrap();
        assert!(tags.is_empty());
        seen.add(&[1; TAG_LEN]);
        seen.add(&[2; TAG_LEN]);
        let (_, tags) = Seen::open(&path).unwrap();
        assert_eq!(tags, [[1; TAG_LEN], [2; TAG_LEN]]);
    }

    #[test]
    fn half_a_tag_at_the_end_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seen");
        std::fs::write(&path, [7; TAG_LEN + 3]).unwrap();
        let (seen, tags) = Seen::open(&path).unwrap();
        assert_eq!(tags, [[7; TAG_LEN]]);
        seen.add(&[8; TAG_LEN]);
        assert_eq!(Seen::open(&path).unwrap().1, [[7; TAG_LEN], [8; TAG_LEN]]);
    }
}
