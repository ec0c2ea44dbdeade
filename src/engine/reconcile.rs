//! What to do at one path, given what lies here and what a peer holds.
//!
//! Pure and total: every pair of records has one verdict, the same wherever it is asked. Version
//! vectors say who has seen whom; where neither has seen the other, [`Body::precedence`](crate::model::record::Body::precedence) names the
//! winner, the same on every device.
//!
//! Only the loser acts on a conflict. It puts its own version aside as a conflict copy and takes the
//! winner's under the merged version; the winner waits for that. If the winner merged as well, the
//! merged version could reach the loser before the winner's own did, and would seem to have seen the
//! loser's work: it would be replaced without a copy.
//!
//! The same version must mean the same body everywhere. A version is a set of changes, and its body
//! is that of its last ones, those that no other of the set has seen. So where two different bodies
//! meet, putting them together is a change of its own, which the loser counts; only where the bodies
//! are equal to the last bit do the versions merge and nothing is counted. (Merging different bodies
//! without counting looks the same on two devices, but not on three: the winner of one merge may have
//! been replaced already, and then which body the sum of all has depends on the order.)

use std::cmp::Ordering;

use crate::model::id::DeviceTag;
use crate::model::record::Record;
use crate::model::version::{Causality, VersionError, VersionVector};

/// What to do at a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing: the peer has the same or less, or has lost a conflict and will act on it.
    Stay,
    /// Take what the peer has: it has seen what lies here.
    Take,
    /// Both hold just the same without having seen each other: hold it under this version. It has seen both, or
    /// where that would be a crowd of authors it is that of the two which names fewer.
    Agree {
        /// The version.
        version: VersionVector,
        /// Who is named as its author.
        by: DeviceTag,
    },
    /// What lies here has lost: put its content aside, if it is another one, and hold what the peer
    /// has, as a change of our own that follows this version.
    Yield {
        /// The version that has seen both.
        version: VersionVector,
    },
}

/// Decides about one path. `local` is `None` where nothing was ever known of it.
///
/// # Errors
/// The merged version would have too many authors.
pub fn reconcile(local: Option<&Record>, remote: &Record) -> Result<Verdict, VersionError> {
    let Some(local) = local else {
        return Ok(Verdict::Take);
    };
    match local.version.compare(&remote.version) {
        Causality::Equal | Causality::After => return Ok(Verdict::Stay),
        Causality::Before => return Ok(Verdict::Take),
        Causality::Concurrent => {}
    }
    // Neither has seen the other.
    match local.body.precedence(&remote.body) {
        Ordering::Equal => {
            let are_crowded = local.version.is_crowded() || remote.version.is_crowded();
            let version = match (are_crowded, leaner(&local.version, &remote.version)) {
                (true, Ordering::Less | Ordering::Equal) => return Ok(Verdict::Stay),
                (true, Ordering::Greater) => remote.version.clone(),
                (false, _) => local.version.merge(&remote.version)?,
            };
            Ok(Verdict::Agree { version, by: local.by.min(remote.by) })
        }
        Ordering::Less => Ok(Verdict::Yield { version: local.version.merge(&remote.version)? }),
        Ordering::Greater => Ok(Verdict::Stay),
    }
}

/// Orders versions that one of is to stay of; the lesser does, on every device.
fn leaner(a: &VersionVector, b: &VersionVector) -> Ordering {
    let key = |version: &VersionVector| version.counters().len();
    key(a).cmp(&key(b)).then_with(|| a.counters().cmp(b.counters()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{AuthorId, ContentId};
    use crate::model::path::RelPath;
    use crate::model::record::{Body, FileBody};
    use crate::model::version::tests::any_version;
    use proptest::prelude::*;

    fn any_body() -> impl Strategy<Value = Body> {
        prop_oneof![
            Just(Body::Tombstone),
            (0u16..2).prop_map(|mode| Body::Dir { mode }),
            (0u8..2).prop_map(|t| Body::Symlink { target: vec![b'a' + t].into() }),
            (0u16..2, 0i64..3, 0u8..3).prop_map(|(mode, mtime_ns, c)| {
                Body::File(FileBody { mode, mtime_ns, size: u64::from(c), content: ContentId([c; 32]) })
            }),
        ]
    }

    fn record(version: VersionVector, body: Body) -> Record {
        Record { path: RelPath::parse(b"f").unwrap(), version, by: DeviceTag::default(), body }
    }

    /// Two records with the same version are the same record: that is what a version means.
    fn any_pair() -> impl Strategy<Value = (Record, Record)> {
        (any_version(), any_body(), any_version(), any_body())
            .prop_filter("one version, one body", |(v, b, w, c)| !v.is_empty() && !w.is_empty() && (v != w || b == c))
            .prop_map(|(v, b, w, c)| (record(v, b), record(w, c)))
    }

    /// Both sides act on what they see of the other, until nobody has anything to do.
    fn settle(a: Record, b: Record) -> (Record, Record, Vec<Body>) {
        settle_by((a, AuthorId(100)), (b, AuthorId(101)))
    }

    fn settle_by((mut a, by_a): (Record, AuthorId), (mut b, by_b): (Record, AuthorId)) -> (Record, Record, Vec<Body>) {
        let mut aside = Vec::new();
        for _ in 0..4 {
            for mine in [true, false] {
                let (local, remote, author) = if mine { (&a, &b, by_a) } else { (&b, &a, by_b) };
                let next = match reconcile(Some(local), remote).unwrap() {
                    Verdict::Stay => continue,
                    Verdict::Take => remote.clone(),
                    Verdict::Agree { version, by } => Record { version, by, ..local.clone() },
                    Verdict::Yield { version } => {
                        if local.body.is_live() && !local.body.is_same_content(&remote.body) {
                            aside.push(local.body.clone());
                        }
                        Record { version: version.after_change(author, 1).unwrap(), ..remote.clone() }
                    }
                };
                if mine { a = next } else { b = next }
            }
        }
        (a, b, aside)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn two_devices_end_with_the_same((a, b) in any_pair()) {
            let (x, y, _) = settle(a.clone(), b.clone());
            prop_assert_eq!(&x, &y);
            // Who speaks first does not matter.
            let (z, ..) = settle_by((b, AuthorId(101)), (a, AuthorId(100)));
            prop_assert_eq!(&z, &x);
        }

        #[test]
        fn nothing_that_was_not_seen_is_lost((a, b) in any_pair()) {
            let (end, _, aside) = settle(a.clone(), b.clone());
            for (mine, other) in [(&a, &b), (&b, &a)] {
                let unseen = mine.version.compare(&other.version) == Causality::Concurrent;
                let survives = end.body.is_same_content(&mine.body) || aside.iter().any(|x| x.is_same_content(&mine.body));
                prop_assert!(!unseen || !mine.body.is_live() || survives);
            }
            let conflict = a.version.compare(&b.version) == Causality::Concurrent
                && a.body.is_live() && b.body.is_live() && !a.body.is_same_content(&b.body);
            prop_assert_eq!(aside.len(), usize::from(conflict));
        }

        #[test]
        fn what_is_decided_has_seen_both((a, b) in any_pair()) {
            let version = match reconcile(Some(&a), &b).unwrap() {
                Verdict::Stay => return Ok(()),
                Verdict::Take => b.version.clone(),
                Verdict::Agree { version, .. } | Verdict::Yield { version } => version,
            };
            for seen in [&a.version, &b.version] {
                prop_assert!(matches!(seen.compare(&version), Causality::Before | Causality::Equal));
            }
        }

        #[test]
        fn what_is_settled_stays((a, b) in any_pair()) {
            let (x, y, _) = settle(a, b);
            prop_assert_eq!(reconcile(Some(&x), &y), Ok(Verdict::Stay));
        }
    }

    #[test]
    fn an_edit_beats_a_deletion() {
        let version = |author| VersionVector::default().after_change(AuthorId(author), 1).unwrap();
        let edited = record(version(1), Body::Symlink { target: (*b"x").into() });
        let deleted = record(version(2), Body::Tombstone);
        assert_eq!(reconcile(Some(&edited), &deleted), Ok(Verdict::Stay));
        assert!(matches!(reconcile(Some(&deleted), &edited), Ok(Verdict::Yield { .. })));
    }

    #[test]
    fn a_directory_beats_a_file() {
        let version = |author| VersionVector::default().after_change(AuthorId(author), 1).unwrap();
        let dir = record(version(1), Body::Dir { mode: 0 });
        let link = record(version(2), Body::Symlink { target: (*b"x").into() });
        assert_eq!(reconcile(Some(&dir), &link), Ok(Verdict::Stay));
        assert!(matches!(reconcile(Some(&link), &dir), Ok(Verdict::Yield { .. })));
    }
}
