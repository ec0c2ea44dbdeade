//! Beacons: how a device is found by those that trust it, wherever it is, and by nobody else.
//!
//! A beacon is a random name and a list of tags. Each tag is a MAC of the name and the quarter of an hour under a key
//! that only this device and one of those that it trusts can derive. A device that sees a beacon makes the tags that its
//! peers would make for it and compares. To all others the tags are random numbers: they do not tell who shows the
//! beacon, nor whether two beacons are of one device or of two that know each other. Name and tags are new every quarter
//! of an hour.
//!
//! A tag has a direction, so that the beacons of a pair have none in common. It is bound to the name, and it is worth
//! nothing after three quarters of an hour: whoever plays it again elsewhere later learns not even who would have come.
//! How many devices are trusted shows only as 8, 32 or 128.
//!
//! A beacon proves nothing: it says where to try, and the handshake decides.

use std::time::Duration;

use crate::engine::session::gate::{Gate, PairKeys};
use crate::model::id::DeviceId;

/// For how long a beacon is shown.
pub const PERIOD: Duration = Duration::from_secs(15 * 60);
/// Length of the random name.
pub const NAME_LEN: usize = 16;
/// Length of a tag. A stranger hits one of those that a device looks for once in 2^64 tries.
pub const TAG_LEN: usize = 8;
/// How many tags a beacon has: the first of these that fits.
const LENS: [usize; 3] = [8, 32, 128];
/// Most tags of a beacon. A device that trusts more than so many is found by the first of them alone.
pub const TAGS_MAX: usize = LENS[LENS.len() - 1];
/// By how many periods two clocks may differ.
const SLACK: i64 = 1;

/// The random name of a beacon.
pub type Name = [u8; NAME_LEN];
type Tag = [u8; TAG_LEN];

/// Returns the period of a time in nanoseconds since 1970.
pub fn period_of(wall_ns: i64) -> i64 {
    wall_ns.div_euclid(PERIOD.as_nanos() as i64)
}

fn tag(keys: &PairKeys, shown_by: &DeviceId, seen_by: &DeviceId, name: &Name, period: i64) -> Tag {
    let mut hasher = blake3::Hasher::new_keyed(keys.beacon());
    hasher.update(shown_by.as_bytes()).update(seen_by.as_bytes()).update(name).update(&period.to_le_bytes());
    let mut tag = [0; TAG_LEN];
    hasher.finalize_xof().fill(&mut tag);
    tag
}

/// Makes the tags of a beacon, for all whom the gate trusts. `filler` gives random ones.
pub fn tags(gate: &Gate, name: &Name, period: i64, mut filler: impl FnMut() -> Tag) -> Vec<u8> {
    let mut tags: Vec<Tag> =
        gate.pairs().take(TAGS_MAX).map(|(device, keys)| tag(keys, &gate.own(), device, name, period)).collect();
    let len = LENS.into_iter().find(|len| tags.len() <= *len).unwrap_or(TAGS_MAX);
    tags.resize_with(len, &mut filler);
    // In the order of the list, a device that is added or removed would show.
    tags.sort_unstable();
    tags.concat()
}

/// Returns which of the trusted devices shows a beacon, if one does.
pub fn shown_by(gate: &Gate, name: &Name, tags: &[u8], period: i64) -> Option<DeviceId> {
    let tags = tags.as_chunks::<TAG_LEN>().0;
    if tags.len() > TAGS_MAX {
        return None;
    }
    let is_in = |wanted: Tag| tags.contains(&wanted);
    let own = gate.own();
    let shows = |device: &DeviceId, keys: &PairKeys| {
        (-SLACK..=SLACK).any(|off| is_in(tag(keys, device, &own, name, period.saturating_add(off))))
    };
    gate.pairs().find(|(device, keys)| shows(device, keys)).map(|(device, _)| *device)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeSet;

    fn id(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    /// The gate of a device that trusts others; any two have a secret of their own.
    fn gate(own: u8, others: impl IntoIterator<Item = u8>) -> Gate {
        let mut gate = Gate::new(id(own));
        for other in others {
            let mut shared = [7; 32];
            (shared[0], shared[1]) = (own.min(other), own.max(other));
            gate.trust(id(other), PairKeys::derive(&shared)).unwrap();
        }
        gate
    }

    /// Fillers that differ from call to call.
    fn filler() -> impl FnMut() -> Tag {
        let mut count = 0_u64;
        move || {
            count += 1;
            let mut tag = [0; TAG_LEN];
            tag.copy_from_slice(&blake3::hash(&count.to_le_bytes()).as_bytes()[..TAG_LEN]);
            tag
        }
    }

    fn set(tags: &[u8]) -> BTreeSet<Tag> {
        tags.as_chunks().0.iter().copied().collect()
    }

    #[test]
    fn a_beacon_is_recognised_by_those_who_are_trusted_and_by_nobody_else() {
        let (laptop, desk, stranger) = (gate(1, [2, 3]), gate(2, [1, 9]), gate(5, [1, 2, 3]));
        let (name, now) = ([4; NAME_LEN], 1_000);
        let shown = tags(&laptop, &name, now, filler());
        assert_eq!(shown_by(&desk, &name, &shown, now), Some(id(1)));
        assert_eq!(shown_by(&stranger, &name, &shown, now), None, "it has other secrets");
        assert_eq!(shown_by(&laptop, &name, &shown, now), None, "it is no beacon for itself");
        assert_eq!(shown_by(&gate(2, [3, 9]), &name, &shown, now), None, "it is not trusted any more");
    }

    #[test]
    fn a_beacon_is_of_its_name_and_its_time() {
        let (laptop, desk) = (gate(1, [2]), gate(2, [1]));
        let (name, now) = ([4; NAME_LEN], 1_000);
        let shown = tags(&laptop, &name, now, filler());
        for off in -3..=3_i64 {
            let found = shown_by(&desk, &name, &shown, now + off).is_some();
            assert_eq!(found, off.abs() <= SLACK, "{off} periods away");
        }
        assert_eq!(shown_by(&desk, &[5; NAME_LEN], &shown, now), None, "the tags of one under the name of another");
        for extreme in [i64::MIN, i64::MAX] {
            shown_by(&desk, &name, &shown, extreme);
        }
    }

    #[test]
    fn nothing_of_two_beacons_is_the_same() {
        let (laptop, desk) = (gate(1, [2]), gate(2, [1]));
        let mut random = filler();
        let first = set(&tags(&laptop, &[4; NAME_LEN], 1_000, &mut random));
        let later = set(&tags(&laptop, &[5; NAME_LEN], 1_001, &mut random));
        let renamed = set(&tags(&laptop, &[6; NAME_LEN], 1_000, &mut random));
        let others = set(&tags(&desk, &[4; NAME_LEN], 1_000, &mut random));
        assert!(first.is_disjoint(&later), "one device in two periods");
        assert!(first.is_disjoint(&renamed), "one device under two names");
        assert!(first.is_disjoint(&others), "two devices that know each other");
    }

    #[test]
    fn how_many_devices_are_trusted_does_not_show() {
        for (devices, len) in [(0, 8), (1, 8), (8, 8), (9, 32), (32, 32), (33, 128), (128, 128), (200, 128)] {
            let shown = tags(&gate(0, 1..=devices), &[4; NAME_LEN], 1, filler());
            assert_eq!(set(&shown).len(), len, "{devices} devices");
            assert!(shown.as_chunks::<TAG_LEN>().0.is_sorted());
        }
    }

    #[test]
    fn what_is_no_beacon_is_nobodys() {
        let desk = gate(2, [1]);
        let shown = tags(&gate(1, [2]), &[4; NAME_LEN], 1, filler());
        let mut long = shown.clone();
        long.extend(vec![0; TAGS_MAX * TAG_LEN]);
        for what in [&[][..], &[1], &[0; 7], &long] {
            assert_eq!(shown_by(&desk, &[4; NAME_LEN], what, 1), None);
        }
        // What is left over behind the last whole tag does not count.
        let mut odd = shown;
        odd.push(1);
        assert_eq!(shown_by(&desk, &[4; NAME_LEN], &odd, 1), Some(id(1)));
    }
}
