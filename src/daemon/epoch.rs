//! Finds out whether the index is an old copy, as after restoring a backup.
//!
//! An index that went back in time would count changes anew with numbers that peers know already, and two
//! different contents would then pass for one version. So index and root both remember a random number, the
//! epoch, which changes with each start, each orderly end and every few minutes in which something changes. Where the root
//! remembers one that the index does not know, the index begins a new incarnation, that is: it changes
//! things in another name from now on. That costs no more than telling the peers everything once more, so in
//! doubt it is done.
//!
//! Two things escape: an index that was restored together with the root, which peers notice that remember
//! more; and one restored after a crash from a copy made in the same epoch.

use crate::disk::root::Root;
use crate::engine::index::Index;
use crate::model::id::{Epoch, Sequence};
use crate::store::error::StoreError;
use crate::store::index::SqliteIndex;

/// How much later a change is counted that begins a new epoch: sequences are microseconds, or one more than the last.
const SPAN: u64 = 300_000_000;

/// Returns whether the root remembers another epoch than the index.
///
/// # Errors
/// The index failed.
pub fn is_outdated(index: &SqliteIndex, root: &Root) -> Result<bool, StoreError> {
    // One that has none is new, or of a version that had none.
    let Some(known) = index.epochs()? else { return Ok(false) };
    match root.epoch() {
        Ok(found) => Ok(found.is_none_or(|found| !known.contains(&found))),
        Err(error) => {
            tracing::warn!(%error, "it cannot be told whether the index is an old one; taking it for one");
            Ok(true)
        }
    }
}

/// Begins a new epoch. Returns the sequence at which the next one is due.
///
/// The index learns of it first and keeps the old one until the root has it, so that a crash in between
/// looks like neither.
///
/// # Errors
/// The index failed. A root that cannot be written stays in the old epoch.
pub fn begin(index: &mut SqliteIndex, root: &Root, random: [u8; 16]) -> Result<Sequence, StoreError> {
    let next = Epoch(random);
    let now = match root.epoch() {
        Ok(Some(now)) => now,
        _ => next,
    };
    index.set_epochs([now, next])?;
    index.commit()?;
    if let Err(error) = root.set_epoch(next) {
        tracing::debug!(%error, "the epoch stays as it is");
    }
    Ok(Sequence(index.last_sequence().0.saturating_add(SPAN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{FolderId, Incarnation};
    use std::fs;

    #[test]
    fn an_old_copy_of_the_index_is_told_from_the_one_that_went_on() {
        let dir = tempfile::tempdir().unwrap();
        let [file, copy] = ["index", "copy"].map(|name| dir.path().join(name));
        let root = Root::create(&dir.path().join("root"), FolderId([7; 16])).unwrap();
        let open = || SqliteIndex::open(&file, Incarnation(1)).unwrap();
        let mut index = open();
        assert!(!is_outdated(&index, &root).unwrap(), "a new one is no old one");
        begin(&mut index, &root, [1; 16]).unwrap();
        assert!(!is_outdated(&index, &root).unwrap());
        index.close().unwrap();
        fs::copy(&file, &copy).unwrap();
        let mut index = open();
        assert!(!is_outdated(&index, &root).unwrap());
        begin(&mut index, &root, [2; 16]).unwrap();
        // A crash at this place, and one before the root was written.
        drop(index);
        assert!(!is_outdated(&open(), &root).unwrap());
        root.set_epoch(Epoch([1; 16])).unwrap();
        assert!(!is_outdated(&open(), &root).unwrap());
        root.set_epoch(Epoch([2; 16])).unwrap();
        fs::copy(&copy, &file).unwrap();
        fs::remove_file(dir.path().join("index-wal")).ok();
        assert!(is_outdated(&open(), &root).unwrap());
        fs::remove_file(root.path().join(".kinfold/epoch")).unwrap();
        assert!(is_outdated(&open(), &root).unwrap(), "in doubt it is one");
    }
}
