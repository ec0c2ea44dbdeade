//! The lives of an index: each time it is opened a new one begins, and peers remember from which of them they heard.
//!
//! An index that went back in time counts changes anew with numbers that peers know already, and two different contents
//! would then pass for one version. Where the index alone was brought back from a backup, the folder's root tells
//! (`daemon/epoch.rs`). Where a whole machine was, root and index agree, and nothing here shows it: only peers know better.
//! Each says which of our changes it last heard, and in which life. Where we have had no such life, or a shorter one, we
//! are not who it knew. From then on we count as somebody new, and what we counted since we went back is counted anew, as
//! changes that have seen no more than what both of us did. So what was done here and what was done by who we were meet
//! as the edits apart that they are.
//!
//! What escapes: a peer that has not heard from us since the time that we went back to cannot tell. What it hears from us
//! before we meet one that can, it holds under numbers that stand for something else there.

use crate::engine::folder::{Folder, Now};
use crate::engine::index::Index;
use crate::model::id::{Life, Sequence};
use crate::model::limits::{LIVES_MAX, RECORDS_PER_MESSAGE_MAX};
use crate::model::record::Record;

/// One life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Begun {
    life: Life,
    /// The last change before it.
    after: Sequence,
    /// Whether a peer has taken changes of ours in it, or knew us from before and found us to be ourselves.
    is_known: bool,
}

const BEGUN_LEN: usize = 17;

/// The lives of an index, the current one last.
#[derive(Debug, Default)]
pub(super) struct Lives {
    begun: Vec<Begun>,
}

impl Lives {
    fn parse(bytes: &[u8]) -> Self {
        let (rows, _) = bytes.as_chunks::<BEGUN_LEN>();
        let number = |row: &[u8; BEGUN_LEN], at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let begun = |row: &[u8; BEGUN_LEN]| Begun {
            life: Life(number(row, 0)),
            after: Sequence(number(row, 8)),
            is_known: row[16] != 0,
        };
        Self { begun: rows.iter().map(begun).collect() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let row = |begun: &Begun| {
            let mut row = [0; BEGUN_LEN];
            row[..8].copy_from_slice(&begun.life.0.to_le_bytes());
            row[8..16].copy_from_slice(&begun.after.0.to_le_bytes());
            row[16] = u8::from(begun.is_known);
            row
        };
        self.begun.iter().flat_map(row).collect()
    }

    /// Returns up to where we are who a peer knew that heard our changes up to `at` in a life; `None` where it is
    /// ourselves that it knew.
    fn parted_at(&self, life: Life, at: Sequence) -> Option<Sequence> {
        // Lives that are told apart by nothing are one: with the last of them it went on.
        let place = self.begun.iter().rposition(|begun| begun.life == life);
        match place {
            // What it has heard is from the time before lives were counted, or from the current one.
            _ if life == Life::default() => None,
            Some(place) => self.begun.get(place + 1).map(|next| next.after).filter(|end| at > *end),
            None => Some(self.unproven()),
        }
    }

    /// Returns the last change before those lives in which nobody has met us yet that could know better.
    fn unproven(&self) -> Sequence {
        let unknown = self.begun.iter().rev().take_while(|begun| !begun.is_known);
        unknown.last().or(self.begun.last()).map_or(Sequence(0), |begun| begun.after)
    }
}

impl<I: Index> Folder<I> {
    /// Returns the current life, which begins with the first change or the first peer that is met.
    pub(super) fn life(&mut self) -> Result<Life, I::Error> {
        if let Some(current) = self.lives.as_ref().and_then(|lives| lives.begun.last()) {
            return Ok(current.life);
        }
        let mut lives = Lives::parse(&self.index.lives()?);
        let forgotten = (lives.begun.len() + 1).saturating_sub(LIVES_MAX);
        lives.begun.drain(..forgotten);
        // Whatever randomness is worth where a whole machine went back: two lives with a change between them differ.
        let life = Life((self.random_u64() ^ self.opened_at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1));
        lives.begun.push(Begun { life, after: self.opened_at, is_known: false });
        self.index.set_lives(&lives.to_bytes())?;
        self.is_changed = true;
        self.lives = Some(lives);
        Ok(life)
    }

    /// Returns up to where we are who a peer knew that heard our changes up to `at` in a life; `None` where it is
    /// ourselves that it knew.
    pub(super) fn parted_at(&mut self, life: Life, at: Sequence) -> Result<Option<Sequence>, I::Error> {
        if at > self.index.last_sequence() {
            return self.unproven().map(Some);
        }
        self.life()?;
        Ok(self.lives.as_ref().and_then(|lives| lives.parted_at(life, at)))
    }

    /// Notes that a peer takes us for ourselves, and what we change for ours.
    pub(super) fn note_known(&mut self) -> Result<(), I::Error> {
        self.life()?;
        if let Some(lives) = &mut self.lives
            && let Some(current) = lives.begun.last_mut()
            && !std::mem::replace(&mut current.is_known, true)
        {
            let bytes = lives.to_bytes();
            self.index.set_lives(&bytes)?;
            self.is_changed = true;
        }
        Ok(())
    }

    /// Returns the last change before what nobody has proven to be ours alone.
    pub(super) fn unproven(&mut self) -> Result<Sequence, I::Error> {
        self.life()?;
        Ok(self.lives.as_ref().map_or(Sequence(0), Lives::unproven))
    }

    /// Counts as somebody new from now on, and counts anew what was counted after `common`: these numbers were used
    /// before, for other changes.
    pub(super) fn part(&mut self, now: Now, common: Sequence) -> Result<(), I::Error> {
        let (former, end) = (self.author, self.index.last_sequence());
        self.begin_incarnation()?;
        let mut at = common;
        while at < end {
            let changes = self.index.changes_since(at, RECORDS_PER_MESSAGE_MAX)?;
            let Some((last, _)) = changes.last() else { break };
            at = last.sequence;
            for (local, _) in changes.into_iter().filter(|(local, _)| local.sequence <= end) {
                if local.ignored || local.record.version.counter(former) <= common.0 {
                    continue;
                }
                let version = local.record.version.with_at_most(former, common.0);
                let sequence = self.next_sequence()?;
                // One with too many authors stays as it is.
                if let Ok(version) = version.after_change(self.author, sequence.0) {
                    let path = local.record.path.clone();
                    self.drop_task(&path);
                    self.ready.insert(path);
                    let record = Record { version, ..local.record };
                    self.hold(now, record, sequence, local.stat, None)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(begun: &[(u64, u64, bool)]) -> Lives {
        let row = |&(life, after, is_known)| Begun { life: Life(life), after: Sequence(after), is_known };
        Lives { begun: begun.iter().map(row).collect() }
    }

    #[test]
    fn lives_are_kept_as_bytes() {
        let lives = lives(&[(7, 0, true), (u64::MAX, 1 << 61, false)]);
        assert_eq!(Lives::parse(&lives.to_bytes()).begun, lives.begun);
        assert!(Lives::parse(&[1; BEGUN_LEN - 1]).begun.is_empty());
    }

    #[test]
    fn who_was_heard_in_a_life_that_ended_earlier_here_is_somebody_else() {
        let lives = lives(&[(1, 0, true), (2, 50, true), (3, 60, false)]);
        let parted_at = |life, at| lives.parted_at(Life(life), Sequence(at)).map(|at| at.0);
        assert_eq!(parted_at(1, 50), None);
        assert_eq!(parted_at(1, 51), Some(50));
        assert_eq!(parted_at(2, 60), None);
        assert_eq!(parted_at(2, 61), Some(60));
        // The current life has no end yet; that nobody heard more than there is, is looked at elsewhere.
        assert_eq!(parted_at(3, 1000), None);
        assert_eq!(parted_at(0, 55), None, "who does not know lives cannot tell");
        assert_eq!(parted_at(9, 1), Some(60), "a life that is not of here");
    }

    #[test]
    fn lives_with_one_number_and_no_change_between_them_are_one() {
        let lives = lives(&[(1, 0, true), (2, 50, true), (2, 50, true)]);
        assert_eq!(lives.parted_at(Life(2), Sequence(70)), None);
        assert_eq!(lives.parted_at(Life(1), Sequence(51)), Some(Sequence(50)));
    }

    #[test]
    fn what_was_counted_in_lives_that_nobody_knows_is_unproven() {
        let unproven = |begun: &[(u64, u64, bool)]| lives(begun).unproven().0;
        assert_eq!(unproven(&[(1, 0, true), (2, 50, false), (3, 60, false)]), 50);
        assert_eq!(unproven(&[(1, 0, true), (2, 50, true)]), 50);
        assert_eq!(unproven(&[(1, 5, false)]), 5);
        assert_eq!(unproven(&[]), 0);
    }
}
