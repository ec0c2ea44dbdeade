//! Version vectors: which changes of which authors a record has seen.
//!
//! Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", IEEE TSE 9(3), 1983.
//! Wall clocks order nothing here.

use std::cmp::Ordering;

use crate::model::id::AuthorId;
use crate::model::limits::{VERSION_AUTHORS_CROWD, VERSION_AUTHORS_MAX, VERSION_COUNTER_MAX};

/// A counter for each author that ever changed a path.
///
/// Invariant: sorted by author, no author twice, no counter zero or above [`VERSION_COUNTER_MAX`],
/// at most [`VERSION_AUTHORS_MAX`] authors.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct VersionVector(Vec<(AuthorId, u64)>);

/// How one version stands to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Causality {
    /// Both have seen the same changes.
    Equal,
    /// The first has seen less: the other replaces it.
    Before,
    /// The first has seen more: it replaces the other.
    After,
    /// Each has seen something that the other has not.
    Concurrent,
}

/// Why a version vector cannot be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VersionError {
    /// The authors are not in rising order.
    #[error("the authors of a version are out of order")]
    Order,
    /// A counter is zero or above the bound.
    #[error("a counter of a version is out of bounds")]
    Counter,
    /// There are too many authors.
    #[error("a version has too many authors")]
    Authors,
}

impl VersionVector {
    /// Parses what came from a peer or the index.
    pub fn parse(counters: Vec<(AuthorId, u64)>) -> Result<Self, VersionError> {
        if counters.len() > VERSION_AUTHORS_MAX {
            return Err(VersionError::Authors);
        }
        if counters.iter().any(|(_, n)| *n == 0 || *n > VERSION_COUNTER_MAX) {
            return Err(VersionError::Counter);
        }
        if !counters.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(VersionError::Order);
        }
        Ok(Self(counters))
    }

    /// Returns the counters in the order of their authors.
    pub fn counters(&self) -> &[(AuthorId, u64)] {
        &self.0
    }

    /// Returns whether no change was ever made.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the counter of `author`, zero where it never changed the path.
    pub fn counter(&self, author: AuthorId) -> u64 {
        self.0.binary_search_by_key(&author, |c| c.0).map_or(0, |at| self.0[at].1)
    }

    /// Returns the version after a change by `author`, who counts it as its `count`th.
    ///
    /// Authors count all their changes in one row, so that a count is never used twice.
    ///
    /// # Errors
    /// The count is not above the author's last one, or it or the number of authors is out of bounds.
    pub fn after_change(&self, author: AuthorId, count: u64) -> Result<Self, VersionError> {
        if count <= self.counter(author) || count > VERSION_COUNTER_MAX {
            return Err(VersionError::Counter);
        }
        let mut next = self.clone();
        match next.0.binary_search_by_key(&author, |c| c.0) {
            Ok(at) => next.0[at].1 = count,
            Err(_) if next.0.len() >= VERSION_AUTHORS_MAX => return Err(VersionError::Authors),
            Err(at) => next.0.insert(at, (author, count)),
        }
        Ok(next)
    }

    /// Returns the least version that has seen all that both have seen.
    ///
    /// # Errors
    /// Together they have too many authors.
    pub fn merge(&self, other: &Self) -> Result<Self, VersionError> {
        let mut merged = Vec::with_capacity(self.0.len().max(other.0.len()));
        let (mut a, mut b) = (self.0.as_slice(), other.0.as_slice());
        while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_first(), b.split_first()) {
            match x.0.cmp(&y.0) {
                Ordering::Less => {
                    merged.push(*x);
                    a = rest_a;
                }
                Ordering::Greater => {
                    merged.push(*y);
                    b = rest_b;
                }
                Ordering::Equal => {
                    merged.push((x.0, x.1.max(y.1)));
                    (a, b) = (rest_a, rest_b);
                }
            }
        }
        merged.extend_from_slice(a);
        merged.extend_from_slice(b);
        if merged.len() > VERSION_AUTHORS_MAX {
            return Err(VersionError::Authors);
        }
        Ok(Self(merged))
    }

    /// Returns whether so many authors wrote here that those who write no more should go.
    pub fn is_crowded(&self) -> bool {
        self.0.len() > VERSION_AUTHORS_CROWD
    }

    /// Returns the version without the authors that are not to be kept.
    ///
    /// It has seen less: whoever still holds something older than all devices may then meet it as a conflict.
    pub fn without_others_than(&self, keep: impl Fn(AuthorId) -> bool) -> Self {
        Self(self.0.iter().copied().filter(|(author, _)| keep(*author)).collect())
    }

    /// Returns the version that has seen of an author's changes at most those up to a count.
    pub fn with_at_most(&self, author: AuthorId, count: u64) -> Self {
        let capped = |&(a, n): &(AuthorId, u64)| (a, if a == author { n.min(count) } else { n });
        Self(self.0.iter().map(capped).filter(|(_, n)| *n > 0).collect())
    }

    /// Tells how this version stands to `other`.
    pub fn compare(&self, other: &Self) -> Causality {
        let ahead = self.0.iter().any(|(author, n)| *n > other.counter(*author));
        let behind = other.0.iter().any(|(author, n)| *n > self.counter(*author));
        match (ahead, behind) {
            (false, false) => Causality::Equal,
            (false, true) => Causality::Before,
            (true, false) => Causality::After,
            (true, true) => Causality::Concurrent,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_version() -> impl Strategy<Value = VersionVector> {
        proptest::collection::btree_map(0u64..5, 1u64..4, 0..4)
            .prop_map(|map| VersionVector(map.into_iter().map(|(a, n)| (AuthorId(a), n)).collect()))
    }

    fn mirrored(causality: Causality) -> Causality {
        match causality {
            Causality::Before => Causality::After,
            Causality::After => Causality::Before,
            same => same,
        }
    }

    proptest! {
        #[test]
        fn comparing_is_antisymmetric(a in any_version(), b in any_version()) {
            prop_assert_eq!(a.compare(&b), mirrored(b.compare(&a)));
            prop_assert_eq!(a.compare(&b) == Causality::Equal, a == b);
        }

        #[test]
        fn a_merge_has_seen_both_and_nothing_else(a in any_version(), b in any_version()) {
            let merged = a.merge(&b).unwrap();
            prop_assert_eq!(&merged, &b.merge(&a).unwrap());
            prop_assert_eq!(&merged, &merged.merge(&a).unwrap());
            for author in 0..5 {
                let author = AuthorId(author);
                prop_assert_eq!(merged.counter(author), a.counter(author).max(b.counter(author)));
            }
            prop_assert!(VersionVector::parse(merged.0.clone()).is_ok());
        }

        #[test]
        fn merging_is_associative(a in any_version(), b in any_version(), c in any_version()) {
            let left = a.merge(&b).unwrap().merge(&c).unwrap();
            prop_assert_eq!(left, a.merge(&b.merge(&c).unwrap()).unwrap());
        }

        #[test]
        fn a_change_replaces_what_it_saw(a in any_version(), author in 0u64..6) {
            let next = a.after_change(AuthorId(author), 9).unwrap();
            prop_assert_eq!(a.compare(&next), Causality::Before);
        }

        #[test]
        fn two_changes_of_one_version_are_concurrent(a in any_version()) {
            let (x, y) = (a.after_change(AuthorId(8), 1).unwrap(), a.after_change(AuthorId(9), 1).unwrap());
            prop_assert_eq!(x.compare(&y), Causality::Concurrent);
        }
    }

    #[test]
    fn what_breaks_the_invariant_is_refused() {
        let a = AuthorId;
        assert_eq!(VersionVector::parse(vec![(a(2), 1), (a(1), 1)]), Err(VersionError::Order));
        assert_eq!(VersionVector::parse(vec![(a(1), 1), (a(1), 2)]), Err(VersionError::Order));
        assert_eq!(VersionVector::parse(vec![(a(1), 0)]), Err(VersionError::Counter));
        assert_eq!(VersionVector::parse(vec![(a(1), u64::MAX)]), Err(VersionError::Counter));
        let many = (0..=VERSION_AUTHORS_MAX as u64).map(|n| (a(n), 1)).collect();
        assert_eq!(VersionVector::parse(many), Err(VersionError::Authors));
    }

    #[test]
    fn a_count_never_goes_back_nor_past_its_bound() {
        let seven = VersionVector::parse(vec![(AuthorId(1), 7)]).unwrap();
        assert_eq!(seven.after_change(AuthorId(1), 7), Err(VersionError::Counter));
        assert_eq!(seven.after_change(AuthorId(1), VERSION_COUNTER_MAX + 1), Err(VersionError::Counter));
        assert_eq!(seven.after_change(AuthorId(1), 8).unwrap().counter(AuthorId(1)), 8);
    }
}
