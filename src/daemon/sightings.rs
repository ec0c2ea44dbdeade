//! When each trusted device was last connected, kept across restarts: so that a person is told of one that has been
//! away for long, and what was not brought to it in time is no surprise. And when one was first met with another key than
//! before, which a person is told as well.
//!
//! A small file of JSON, for people may read it. Nothing is decided by it: one that is missing or broken is begun anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::disk::atomic::write_atomically;
use crate::model::id::DeviceId;
use crate::model::limits::DEVICES_MAX;

/// Longest file that is read, in bytes: an id and a number for each device.
const FILE_LEN_MAX: u64 = (DEVICES_MAX * 128) as u64;

/// When devices were last connected.
#[derive(Debug)]
pub struct Sightings {
    path: PathBuf,
    /// In nanoseconds since 1970.
    last: Mutex<BTreeMap<DeviceId, i64>>,
}

impl Sightings {
    /// Reads the file, as far as it makes sense.
    pub fn open(path: PathBuf) -> Self {
        let is_short = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= FILE_LEN_MAX);
        let text = if is_short { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let read: BTreeMap<String, i64> = serde_json::from_str(&text).unwrap_or_default();
        let last = read.into_iter().filter_map(|(id, ns)| Some((DeviceId::parse(&id).ok()?, ns)));
        Self { path, last: Mutex::new(last.collect()) }
    }

    /// Takes note that devices are connected; and forgets those that are not `known` any more.
    pub fn note(&self, devices: impl IntoIterator<Item = DeviceId>, known: impl Fn(&DeviceId) -> bool, now_ns: i64) {
        let mut last = self.lock();
        last.extend(devices.into_iter().map(|device| (device, now_ns)));
        last.retain(|device, _| known(device));
    }

    /// Writes the file. That it cannot be written is no matter.
    pub fn save(&self) {
        let by_text: BTreeMap<String, i64> = self.lock().iter().map(|(id, ns)| (id.to_string(), *ns)).collect();
        let Ok(text) = serde_json::to_string(&by_text) else { return };
        if let Err(error) = write_atomically(&self.path, text.as_bytes(), 0o600) {
            tracing::debug!(%error, "when devices were last connected cannot be noted");
        }
    }

    /// Returns when a device was last connected, in nanoseconds since 1970.
    pub fn of(&self, device: &DeviceId) -> Option<i64> {
        self.lock().get(device).copied()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, i64>> {
        // Each change is whole.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    #[test]
    fn sightings_outlive_the_daemon_and_only_of_known_devices() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-seen.json");
        let sightings = Sightings::open(path.clone());
        sightings.note([id(1), id(2)], |_| true, 7);
        sightings.note([id(1)], |_| true, 8);
        sightings.save();
        let again = Sightings::open(path.clone());
        assert_eq!((again.of(&id(1)), again.of(&id(2)), again.of(&id(3))), (Some(8), Some(7), None));
        again.note([], |device| *device == id(2), 9);
        again.save();
        assert_eq!((again.of(&id(1)), Sightings::open(path).of(&id(1))), (None, None));
    }

    #[test]
    fn a_broken_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("last-seen.json");
        for text in ["", "{", "[1]", "{\"kin1x\": 5}", "{\"a\": \"b\"}"] {
            std::fs::write(&path, text).unwrap();
            let sightings = Sightings::open(path.clone());
            assert_eq!(sightings.of(&id(1)), None);
            sightings.note([id(1)], |_| true, 5);
            sightings.save();
            assert_eq!(Sightings::open(path.clone()).of(&id(1)), Some(5));
        }
        std::fs::File::create(&path).unwrap().set_len(FILE_LEN_MAX + 1).unwrap();
        assert_eq!(Sightings::open(path).of(&id(1)), None);
    }
}
