//! What is said of a device that was lost or stolen.

use crate::model::id::DeviceId;

/// That a device is to be trusted by nobody, or again. Devices hand it on to each other; of two about the same device the
/// one with the higher stamp counts, and of two with the same stamp the one that revokes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// The device.
    pub device: DeviceId,
    /// Counts what was said of it.
    pub stamp: u64,
    /// Whether it may be trusted again: a person has added it anew.
    pub is_lifted: bool,
}

impl Revocation {
    /// Returns whether this counts where `known` was said before.
    pub fn counts_over(&self, known: Option<&Self>) -> bool {
        known.is_none_or(|known| (self.stamp, !self.is_lifted) > (known.stamp, !known.is_lifted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_word_counts_and_of_two_at_once_the_revocation() {
        let said = |stamp, is_lifted| Revocation { device: DeviceId::from_public_key([1; 32]), stamp, is_lifted };
        assert!(said(1, false).counts_over(None));
        assert!(said(2, true).counts_over(Some(&said(1, false))));
        assert!(!said(1, false).counts_over(Some(&said(2, true))));
        assert!(said(2, false).counts_over(Some(&said(2, true))));
        assert!(!said(2, true).counts_over(Some(&said(2, false))));
        assert!(!said(2, false).counts_over(Some(&said(2, false))));
    }
}
