//! What waits for a person beyond folders and their paths: disks that are nearly full, and devices that have been away
//! for long. Each with what to do about it.

use std::time::Duration;

use crate::config::Device;
use crate::control::types::{InboxItem, Time};
use crate::model::shell::quoted;

/// A device that was not connected for so long is told of.
pub const AWAY_MAX: Duration = Duration::from_secs(14 * 86_400);
/// A device that has not heard of this one's next id for so long is told of.
pub const UNHEARD_MAX: Duration = Duration::from_secs(3 * 86_400);
/// For so long it is told that a device has another key.
pub const NEW_KEY_MAX: Duration = Duration::from_secs(7 * 86_400);
/// A disk with less room than this, and less than [`DISK_SHARE_MIN`] of it, is nearly full.
const DISK_ROOM_MIN: u64 = 1 << 30;
/// One part in so many.
const DISK_SHARE_MIN: u64 = 20;

/// Returns what to tell of the disk of a folder with `free` bytes of `total`, if there is anything.
pub fn disk(folder: &str, word: &str, free: u64, total: u64) -> Option<InboxItem> {
    if free >= DISK_ROOM_MIN || free >= total / DISK_SHARE_MIN {
        return None;
    }
    Some(InboxItem {
        folder: Some(folder.to_owned()),
        path: None,
        what: format!("its disk is nearly full: {} MiB are free", free >> 20),
        advice: format!(
            "make room; `kinfold history` says what old versions take, \
             `kinfold folder set {word} history_size='1 GiB'` bounds them"
        ),
        detail: String::new(),
        held: None,
    })
}

/// Returns what to tell of a device that was last connected at `last_ns`, if there is anything at `now_ns`.
pub fn away(device: &str, word: &str, last_ns: i64, now_ns: i64) -> Option<InboxItem> {
    let away = Duration::from_nanos(u64::try_from(now_ns.saturating_sub(last_ns)).unwrap_or(0));
    if away < AWAY_MAX {
        return None;
    }
    Some(InboxItem {
        folder: None,
        path: None,
        what: format!("the device {device} has been away for {} days", away.as_secs() / 86_400),
        advice: format!(
            "start kinfold there; `kinfold doctor` says why it may not be reached; \
             `kinfold device remove {word}` if there is no such device any more"
        ),
        detail: format!("last connected {}", Time::from_unix_ns(last_ns)),
        held: None,
    })
}

/// Returns what to tell of a device that was trusted here and that the device `by` has revoked.
pub fn revoked(device: &str, id: &str, by: &str) -> InboxItem {
    InboxItem {
        folder: None,
        path: None,
        what: format!("the device {device} is trusted no longer: {by} says that it is lost"),
        advice: format!(
            "`kinfold device revoke {id}` if that is right; if not, `kinfold device add {id} --name {}`, and look at {by}",
            quoted(device)
        ),
        detail: String::new(),
        held: None,
    }
}

/// Returns what to tell of a device that has come with another key at `since_ns`, if there is anything at `now_ns`: whoever
/// had its former key could have made that, too.
pub fn has_new_key(device: &Device, since_ns: i64, now_ns: i64) -> Option<InboxItem> {
    let age = Duration::from_nanos(u64::try_from(now_ns.saturating_sub(since_ns)).unwrap_or(0));
    let former = device.former.last().filter(|_| age < NEW_KEY_MAX)?;
    Some(InboxItem {
        folder: None,
        path: None,
        what: format!("the device {} has another key since {}", device.name, Time::from_unix_ns(since_ns)),
        advice: format!(
            "nothing, if `kinfold key rotate` was run there; if not, somebody else has its key: \
             `kinfold device revoke {}`, and pair the device anew",
            quoted(&device.name)
        ),
        detail: format!("it was {former}, and is {}; this is told for a week", device.id),
        held: None,
    })
}

/// Returns what to tell of devices that keep this one from changing its key, which was begun at `since_ns`, if there is
/// anything at `now_ns`.
pub fn unheard(devices: &[String], since_ns: i64, now_ns: i64) -> Option<InboxItem> {
    let waiting = Duration::from_nanos(u64::try_from(now_ns.saturating_sub(since_ns)).unwrap_or(0));
    if devices.is_empty() || waiting < UNHEARD_MAX {
        return None;
    }
    Some(InboxItem {
        folder: None,
        path: None,
        what: format!(
            "the next key of this device waits since {} days for devices that do not know of it",
            waiting.as_secs() / 86_400
        ),
        advice: "connect them; or `kinfold key rotate --now`, after which they have to be paired again; or \
                 `kinfold key rotate --cancel`"
            .to_owned(),
        detail: devices.join(", "),
        held: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::DeviceId;

    const DAY: i64 = 86_400_000_000_000;

    #[test]
    fn a_disk_is_nearly_full_when_little_is_left_of_it_and_little_at_all() {
        let says = |free, total| disk("data", "data", free, total).is_some();
        assert!(says(512 << 20, 100 << 30));
        assert!(!says(2 << 30, 100 << 30), "two GiB are something, whatever the disk");
        assert!(!says(100 << 20, 1 << 30), "a tenth of a small disk");
        assert!(says(40 << 20, 1 << 30));
        assert!(!says(0, 0), "a file system that tells nothing of its size");
        let item = disk("data", "data", 512 << 20, 100 << 30).unwrap();
        assert_eq!(item.what, "its disk is nearly full: 512 MiB are free");
    }

    #[test]
    fn a_device_with_another_key_is_told_of_for_a_week() {
        let [former, id] = [1, 2].map(|n| DeviceId::from_public_key([n; 32]));
        let mut device = Device::new("my nas", id, vec![]);
        assert!(has_new_key(&device, DAY, 2 * DAY).is_none(), "it never had another");
        device.former.push(former);
        let item = has_new_key(&device, DAY, 2 * DAY).unwrap();
        assert_eq!(item.what, "the device my nas has another key since 1970-01-02T00:00:00Z");
        assert!(item.advice.contains("`kinfold device revoke 'my nas'`"), "{}", item.advice);
        assert!(item.detail.contains(&former.to_string()) && item.detail.contains(&id.to_string()));
        assert!(has_new_key(&device, 2 * DAY, DAY).is_some(), "a clock that was set back");
        assert!(has_new_key(&device, DAY, 8 * DAY).is_none());
    }

    #[test]
    fn devices_that_keep_the_next_key_waiting_are_told_of_after_three_days() {
        let devices = ["tv".to_owned(), "nas".to_owned()];
        assert!(unheard(&devices, 0, 3 * DAY - 1).is_none());
        assert!(unheard(&[], 0, 9 * DAY).is_none(), "it waits for nobody");
        assert!(unheard(&devices, 5 * DAY, 0).is_none(), "a clock that was set back");
        let item = unheard(&devices, 0, 4 * DAY).unwrap();
        assert_eq!(item.what, "the next key of this device waits since 4 days for devices that do not know of it");
        assert_eq!(item.detail, "tv, nas");
    }

    #[test]
    fn a_device_is_told_of_once_it_was_away_for_two_weeks() {
        assert!(away("tv", "tv", 0, 14 * DAY - 1).is_none());
        assert!(away("tv", "tv", 5 * DAY, 0).is_none(), "a clock that was set back");
        let item = away("old tv", &quoted("old tv"), 0, 15 * DAY).unwrap();
        assert_eq!(item.what, "the device old tv has been away for 15 days");
        assert!(item.advice.contains("kinfold device remove 'old tv'"), "{}", item.advice);
        assert_eq!(item.detail, "last connected 1970-01-01T00:00:00Z");
    }
}
