//! Who belongs to a folder, and what each may do there.

use crate::model::id::DeviceId;
use crate::model::limits::MEMBERS_MAX;

/// What a device may do in a folder.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Right {
    /// May read.
    Reader,
    /// May read and add, but neither change nor delete.
    Adder,
    /// May read, add, change and delete.
    Writer,
    /// May do all that, and share the folder onward.
    Owner,
}

impl Right {
    /// All rights, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Adder, Self::Writer, Self::Owner];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Adder => "adder",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }

    /// Parses the word for it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.as_str() == text)
    }

    /// Returns whether changes and deletions by such a device count.
    pub fn may_write(self) -> bool {
        self >= Self::Writer
    }
}

/// One line of a folder's member list.
///
/// Lists of several owners are merged line by line: the higher stamp wins, and at the same stamp the
/// lesser right, so that all devices end with the same list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// Who.
    pub device: DeviceId,
    /// What it may do; `None` where it was removed.
    pub right: Option<Right>,
    /// Counts the changes of this line.
    pub stamp: u64,
}

/// Who belongs to a folder. At most [`MEMBERS_MAX`] lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members(Vec<Member>);

impl Members {
    /// Collects lines, merging those that speak of the same device.
    pub fn from_lines(lines: impl IntoIterator<Item = Member>) -> Self {
        let mut members = Self::default();
        for line in lines {
            members.merge_line(line);
        }
        members
    }

    /// Returns all lines, those of removed members included, in the order of devices.
    pub fn lines(&self) -> &[Member] {
        &self.0
    }

    /// Returns what `device` may do, or `None` where it does not belong here.
    pub fn right_of(&self, device: &DeviceId) -> Option<Right> {
        self.line_of(device)?.right
    }

    /// Gives `device` a right, or removes it. Returns whether that changed anything.
    pub fn set(&mut self, device: DeviceId, right: Option<Right>) -> bool {
        let stamp = match self.line_of(&device) {
            Some(line) if line.right == right => return false,
            Some(line) => line.stamp.saturating_add(1),
            None if right.is_none() => return false,
            None => 1,
        };
        self.merge_line(Member { device, right, stamp })
    }

    /// Hands the place of a device over to another id that it goes by from now on: the same right, and the former id is
    /// removed. Each line gets a higher stamp than the former id had, so that all who do this on their own end with the
    /// same, and what an owner has changed of the former id meanwhile counts for the new one as well. Returns whether
    /// that changed anything; where the list is full, nothing does.
    pub fn hand_over(&mut self, from: &DeviceId, to: DeviceId) -> bool {
        let Some(former) = self.line_of(from).copied() else { return false };
        let known = self.line_of(&to).map(|line| line.stamp);
        let is_done = former.right.is_none() && known.is_some();
        if is_done || (known.is_none() && self.0.len() >= MEMBERS_MAX) {
            return false;
        }
        let stamp = former.stamp.saturating_add(1);
        let new = known.map_or(stamp, |known| stamp.max(known.saturating_add(1)));
        self.merge_line(Member { device: to, right: former.right, stamp: new });
        self.merge_line(Member { device: *from, right: None, stamp });
        true
    }

    /// Merges another list into this one. Returns whether that changed anything.
    pub fn merge(&mut self, other: &Self) -> bool {
        other.0.iter().fold(false, |changed, line| self.merge_line(*line) | changed)
    }

    fn line_of(&self, device: &DeviceId) -> Option<&Member> {
        self.0.binary_search_by_key(device, |m| m.device).ok().map(|at| &self.0[at])
    }

    fn merge_line(&mut self, line: Member) -> bool {
        match self.0.binary_search_by_key(&line.device, |m| m.device) {
            Ok(at) => {
                let weight = |m: &Member| (m.stamp, std::cmp::Reverse(m.right));
                let wins = weight(&line) > weight(&self.0[at]);
                if wins {
                    self.0[at] = line;
                }
                wins
            }
            Err(_) if self.0.len() >= MEMBERS_MAX => false,
            Err(at) => {
                self.0.insert(at, line);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    #[test]
    fn lists_that_changed_apart_become_one() {
        let mut a = Members::default();
        a.set(device(1), Some(Right::Owner));
        a.set(device(2), Some(Right::Owner));
        let mut b = a.clone();
        a.set(device(2), None);
        b.set(device(3), Some(Right::Reader));
        b.set(device(2), Some(Right::Reader));
        let (mut x, mut y) = (a.clone(), b.clone());
        assert!(x.merge(&b));
        assert!(y.merge(&a));
        assert_eq!(x, y);
        assert_eq!(x.right_of(&device(2)), None);
        assert_eq!(x.right_of(&device(3)), Some(Right::Reader));
        assert!(!x.merge(&y));
    }

    #[test]
    fn a_removed_member_can_come_back() {
        let mut members = Members::default();
        assert!(!members.set(device(1), None));
        assert!(members.set(device(1), Some(Right::Writer)));
        assert!(!members.set(device(1), Some(Right::Writer)));
        assert!(members.set(device(1), None));
        let removed = members.clone();
        assert!(members.set(device(1), Some(Right::Writer)));
        assert!(!members.merge(&removed));
    }

    #[test]
    fn a_place_that_is_handed_over_on_two_devices_is_the_same_and_what_was_changed_meanwhile_counts() {
        let mut list = Members::default();
        list.set(device(1), Some(Right::Owner));
        list.set(device(2), Some(Right::Writer));
        for change in [None, Some(Right::Reader), Some(Right::Writer)] {
            let (mut here, mut there) = (list.clone(), list.clone());
            there.set(device(2), change);
            assert!(here.hand_over(&device(2), device(3)) && there.hand_over(&device(2), device(3)));
            here.merge(&there);
            there.merge(&here);
            assert_eq!(here, there);
            assert_eq!((here.right_of(&device(2)), here.right_of(&device(3))), (None, change));
            assert!(!here.hand_over(&device(2), device(3)), "it is done");
        }
        assert!(!list.hand_over(&device(7), device(8)), "who has no place has none to hand over");
        let crowd = (0..MEMBERS_MAX).map(|n| {
            let id = DeviceId::from_public_key(*blake3::hash(&n.to_le_bytes()).as_bytes());
            Member { device: id, right: Some(Right::Reader), stamp: 1 }
        });
        let mut full = Members::from_lines(crowd);
        let (before, one) = (full.clone(), full.lines()[0].device);
        assert!(!full.hand_over(&one, device(9)) && full == before, "a full list keeps the place that there is");
    }

    #[test]
    fn words_and_rights_are_inverse() {
        for right in Right::ALL {
            assert_eq!(Right::parse(right.as_str()), Some(right));
        }
        assert_eq!(Right::parse("Owner"), None);
    }
}
