//! A change of this device's key while it is under way: who this device is going to be, and which devices know of it.
//!
//! A small file of JSON beside the file of the next identity. The next key lies in it under the present one: so a daemon
//! that has the present one has both, without a passphrase, and nobody who has not can give it another. Where the file is
//! missing or broken, nothing is under way.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::disk::atomic::write_atomically;
use crate::keys::identity::Identity;
use crate::keys::seed::wipe_stack;
use crate::model::id::DeviceId;
use crate::model::limits::DEVICES_MAX;

/// Longest file that is read, in bytes: an id for each device.
const FILE_LEN_MAX: u64 = (DEVICES_MAX * 128 + 1024) as u64;
/// Length of a private key, in bytes.
const KEY_LEN: usize = 32;
/// Length of one that lies under another, in bytes.
const SEALED_LEN: usize = KEY_LEN + 16;

/// A change of the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    /// Who this device is.
    pub from: DeviceId,
    /// Who it is going to be.
    pub next: DeviceId,
    /// When that was begun, in nanoseconds since 1970.
    pub since_ns: i64,
    /// The devices that have noted it.
    pub heard: BTreeSet<DeviceId>,
    /// The next private key under the present one, with its tag.
    key: [u8; SEALED_LEN],
}

#[derive(Deserialize, Serialize)]
struct Raw {
    from: String,
    next: String,
    since: i64,
    heard: Vec<String>,
    key: String,
}

impl Rotation {
    /// Begins one of which nobody knows yet.
    pub fn new(present: &Identity, next: &Identity, since_ns: i64) -> Self {
        let (from, next_id) = (present.device_id(), next.device_id());
        let mut key = [0; SEALED_LEN];
        let (text, tag) = key.split_at_mut(KEY_LEN);
        text.copy_from_slice(next.private_key().as_slice());
        let sealed = cipher(present, &next_id).seal_in_place_separate_tag(nonce(), Aad::empty(), text);
        tag.copy_from_slice(sealed.expect("nothing but a text of many gigabytes is ever refused").as_ref());
        Self { from, next: next_id, since_ns, heard: BTreeSet::new(), key }
    }

    /// Returns the next identity, for who has the present one; `None` where that has not made it.
    pub fn open(&self, present: &Identity) -> Option<Identity> {
        let mut text = Zeroizing::new(self.key);
        let opened = cipher(present, &self.next).open_in_place(nonce(), Aad::empty(), text.as_mut_slice()).ok()?;
        let private = <&[u8; KEY_LEN]>::try_from(&*opened).ok()?;
        Some(Identity::from_private_key(private)).filter(|next| next.device_id() == self.next)
    }

    /// Reads the file, if it is there and makes sense.
    pub fn read(path: &Path) -> Option<Self> {
        if std::fs::metadata(path).ok()?.len() > FILE_LEN_MAX {
            return None;
        }
        let raw: Raw = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
        let id = |text: &String| DeviceId::parse(text).ok();
        let heard = raw.heard.iter().filter_map(id).collect();
        let key = HEXLOWER.decode(raw.key.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { from: id(&raw.from)?, next: id(&raw.next)?, since_ns: raw.since, heard, key })
    }

    /// Writes the file, durably.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let raw = Raw {
            from: self.from.to_string(),
            next: self.next.to_string(),
            since: self.since_ns,
            heard: self.heard.iter().map(DeviceId::to_string).collect(),
            key: HEXLOWER.encode(&self.key),
        };
        write_atomically(path, serde_json::to_string(&raw)?.as_bytes(), 0o600)
    }
}

/// The cipher for one next key. It is derived of the present private key and not of what two keys agree on, for that
/// anybody could compute who makes up a next key; and it depends on whose key it is, so that it serves once.
fn cipher(present: &Identity, next: &DeviceId) -> LessSafeKey {
    let base = Zeroizing::new(blake3::derive_key("kinfold 1 next key under the present", &*present.private_key()));
    let key = Zeroizing::new(*blake3::keyed_hash(&base, next.as_bytes()).as_bytes());
    wipe_stack();
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the cipher has keys of 32 bytes"))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::seed::{SEED_LEN, Seed};

    fn identity(n: u8) -> Identity {
        Identity::from_seed(&Seed::from_bytes([n; SEED_LEN]))
    }

    fn id(n: u8) -> DeviceId {
        identity(n).device_id()
    }

    #[test]
    fn what_was_heard_outlives_the_program_and_a_broken_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rotation.json");
        assert_eq!(Rotation::read(&path), None);
        let mut rotation = Rotation::new(&identity(1), &identity(2), 7);
        rotation.heard.extend([id(3), id(4)]);
        rotation.write(&path).unwrap();
        assert_eq!(Rotation::read(&path), Some(rotation));
        let text = std::fs::read_to_string(&path).unwrap();
        for broken in ["", "{}", &text[1..], &text.replace("kin1", "kin2"), &text.replace("\"key\":\"", "\"key\":\"00")]
        {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(Rotation::read(&path), None, "{broken}");
        }
        std::fs::File::create(&path).unwrap().set_len(FILE_LEN_MAX + 1).unwrap();
        assert_eq!(Rotation::read(&path), None);
    }

    #[test]
    fn only_who_has_the_present_key_has_the_next_one_or_can_have_made_it() {
        let rotation = Rotation::new(&identity(1), &identity(2), 7);
        let opened = rotation.open(&identity(1)).unwrap();
        assert_eq!(opened.private_key(), identity(2).private_key());
        assert!(rotation.open(&identity(2)).is_none() && rotation.open(&identity(3)).is_none());
        let forged = Rotation { from: id(1), ..Rotation::new(&identity(3), &identity(4), 7) };
        assert!(forged.open(&identity(1)).is_none());
        let other_id = Rotation { next: id(4), ..rotation.clone() };
        assert!(other_id.open(&identity(1)).is_none());
        for at in 0..SEALED_LEN {
            let mut bent = rotation.clone();
            bent.key[at] ^= 1;
            assert!(bent.open(&identity(1)).is_none(), "the byte {at}");
        }
        assert_ne!(rotation.key[..KEY_LEN], identity(2).private_key()[..]);
    }
}
