//! The newest things that happened, kept in memory for `kinfold events` and the live view: who changed what, which
//! conflicts came of it, which devices came and went.
//!
//! The log says the same to people, in words that may change. This is for programs. Nothing is decided by it, and
//! what nobody fetched in time is gone.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::daemon::run::wall_ns;
use crate::engine::folder::Note;
use crate::model::id::{DeviceId, DeviceTag, FolderId};
use crate::model::limits::EVENTS_MAX;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Counts what happened in one run of the daemon; the first is 1.
    pub seq: u64,
    /// When, in nanoseconds since 1970.
    pub wall_ns: i64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// Something in a folder; who made it, where that is known.
    InFolder(FolderId, DeviceTag, Note),
    /// A device connected.
    Connected(DeviceId),
    /// A device is gone.
    Disconnected(DeviceId),
}

/// The newest things that happened; at most [`EVENTS_MAX`].
#[derive(Debug, Default)]
pub struct Events(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    last_seq: u64,
    newest: VecDeque<Happened>,
}

impl Events {
    /// Takes note of something.
    pub fn push(&self, what: What) {
        let mut kept = self.lock();
        kept.last_seq += 1;
        if kept.newest.len() == EVENTS_MAX {
            kept.newest.pop_front();
        }
        let happened = Happened { seq: kept.last_seq, wall_ns: wall_ns(), what };
        kept.newest.push_back(happened);
    }

    /// Returns at most `limit` of them: the first after `after`, or the newest of all for `None`.
    ///
    /// Whoever asks for what comes after something that has not happened yet has read a daemon before this one, and
    /// gets all.
    pub fn after(&self, after: Option<u64>, limit: usize) -> Vec<Happened> {
        let kept = self.lock();
        let after = after.map(|seq| if seq > kept.last_seq { 0 } else { seq });
        let skipped = match after {
            Some(seq) => kept.newest.partition_point(|happened| happened.seq <= seq),
            None => kept.newest.len().saturating_sub(limit),
        };
        kept.newest.iter().skip(skipped).take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing is half done when a thread panics here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept_and_none_is_skipped_when_followed() {
        let events = Events::default();
        for _ in 0..EVENTS_MAX + 2 {
            events.push(What::Connected(DeviceId::from_public_key([1; 32])));
        }
        let seqs = |after, limit| events.after(after, limit).iter().map(|e| e.seq).collect::<Vec<_>>();
        let last = EVENTS_MAX as u64 + 2;
        assert_eq!(seqs(None, 2), [last - 1, last]);
        assert_eq!(seqs(Some(0), 2), [3, 4]);
        assert_eq!(seqs(Some(4), 2), [5, 6]);
        assert!(seqs(Some(last), 2).is_empty());
        assert_eq!(seqs(Some(last + 9), 1), [3]);
    }
}
