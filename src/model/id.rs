//! Identities: of devices, folders, chunks, contents and authors.

use std::fmt;

use bech32::{Bech32m, Hrp};

/// The human-readable part of a device id.
const DEVICE_HRP: &str = "kin";

/// A device: its X25519 public key.
///
/// Written as bech32m (BIP 350) with the prefix `kin`, whose checksum finds every error of up to
/// three characters.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceId([u8; 32]);

/// Why a text is not a device id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DeviceIdError {
    /// The text does not begin with `kin1`.
    #[error("a device id begins with `kin1`")]
    Prefix,
    /// The text is shorter or longer than a device id.
    #[error("a device id has {} characters, this has {found}", DeviceId::TEXT_LEN)]
    Length {
        /// Characters of the text.
        found: usize,
    },
    /// The text has a character that no device id has.
    #[error("`{}` cannot be part of a device id", .found.escape_default())]
    Character {
        /// The first such character.
        found: char,
    },
    /// The checksum does not fit.
    #[error("the device id has a typing error: its checksum does not fit; copy it again from `kinfold id`")]
    Checksum,
}

impl DeviceId {
    /// Length of the written form, in characters.
    pub const TEXT_LEN: usize = 62;

    /// Wraps a public key.
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Returns the public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses the written form; upper case is accepted, a mix of cases is not.
    pub fn parse(text: &str) -> Result<Self, DeviceIdError> {
        let text = text.trim();
        if !text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("kin1")) {
            return Err(DeviceIdError::Prefix);
        }
        if let Some(found) = text.chars().find(|c| !c.is_ascii_alphanumeric()) {
            return Err(DeviceIdError::Character { found });
        }
        if text.len() != Self::TEXT_LEN {
            return Err(DeviceIdError::Length { found: text.len() });
        }
        let checked =
            bech32::primitives::decode::CheckedHrpstring::new::<Bech32m>(text).map_err(|_| DeviceIdError::Checksum)?;
        let mut key = [0; 32];
        let mut bytes = checked.byte_iter();
        for (to, from) in key.iter_mut().zip(bytes.by_ref()) {
            *to = from;
        }
        Ok(Self(key))
    }

    /// Returns the few characters by which people tell devices apart, as in names of conflict copies.
    pub fn short(&self) -> String {
        DeviceTag::of(self).to_string()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(DEVICE_HRP), &self.0)
            .expect("32 bytes and a short prefix are within bech32's bounds");
        f.write_str(&text)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", &self.to_string()[..11])
    }
}

/// The first 40 bits of a device's key: names who made a change, for people only.
///
/// Nothing is decided by it: two devices may share one. It is written as the first seven characters
/// of the device id after `kin1` (35 of the bits).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DeviceTag(pub [u8; 5]);

impl DeviceTag {
    /// Returns the tag of a device.
    pub fn of(device: &DeviceId) -> Self {
        let mut tag = [0; 5];
        tag.copy_from_slice(&device.0[..5]);
        Self(tag)
    }
}

impl fmt::Display for DeviceTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
        let bits = self.0.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
        for n in 0..7 {
            let digit = (bits >> (35 - 5 * n) & 31) as usize;
            write!(f, "{}", char::from(ALPHABET[digit]))?;
        }
        Ok(())
    }
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

byte_id!(
    /// A folder: 128 random bits, the same on every member. Written in hex in files, never for people.
    FolderId,
    16
);
byte_id!(
    /// A stretch of an index's life: 128 random bits that the index and the folder's root both remember.
    /// Where they differ, the index is an old one, as after restoring a backup.
    Epoch,
    16
);
byte_id!(
    /// A chunk: the BLAKE3-256 hash of its bytes.
    ChunkId,
    32
);
byte_id!(
    /// A recipe page: a hash of its chunk references.
    PageId,
    32
);
byte_id!(
    /// A file's content: a hash of its recipe, the same on every device that chunks the same bytes.
    ContentId,
    32
);

impl Epoch {
    /// Parses the 32 hex digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        FolderId::parse(text).map(|FolderId(bytes)| Self(bytes))
    }
}

impl FolderId {
    /// Parses the 32 hex digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl ChunkId {
    /// Hashes the bytes of a chunk.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Who counts in a version vector: a device together with one life of its index.
///
/// A device whose index was lost or restored from a backup must not count on where it stopped, for it
/// may not remember where that was; it counts as somebody new.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AuthorId(pub u64);

impl AuthorId {
    /// Derives the author of a device and an index incarnation.
    pub fn derive(device: &DeviceId, incarnation: Incarnation) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 author id");
        hasher.update(device.as_bytes());
        hasher.update(&incarnation.0.to_le_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        Self(u64::from_le_bytes(id))
    }
}

/// One life of a folder's index on one device: 64 random bits, new with every new index.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u64);

/// One time between the opening of an index and its end: 64 random bits, never zero; zero stands for one that is not known.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Life(pub u64);

/// A place in a device's own order of changes: every change of its index gets the next number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sequence(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn some_device() -> DeviceId {
        DeviceId::from_public_key(*blake3::hash(b"a device").as_bytes())
    }

    #[test]
    fn a_device_id_survives_being_written_and_read() {
        let text = some_device().to_string();
        assert_eq!(text.len(), DeviceId::TEXT_LEN);
        assert_eq!(DeviceId::parse(&text), Ok(some_device()));
        assert_eq!(DeviceId::parse(&text.to_uppercase()), Ok(some_device()));
        assert_eq!(DeviceId::parse(&format!(" {text}\n")), Ok(some_device()));
    }

    #[test]
    fn every_error_of_one_character_is_refused() {
        let text = some_device().to_string();
        for at in 0..text.len() {
            for c in ('a'..='z').chain('0'..='9') {
                let mut wrong: Vec<char> = text.chars().collect();
                if wrong[at] == c {
                    continue;
                }
                wrong[at] = c;
                let wrong: String = wrong.into_iter().collect();
                assert!(DeviceId::parse(&wrong).is_err(), "{wrong}");
            }
            let mut shorter = text.clone();
            shorter.remove(at);
            assert!(DeviceId::parse(&shorter).is_err(), "{shorter}");
            let mut longer = text.clone();
            longer.insert(at, 'q');
            assert!(DeviceId::parse(&longer).is_err(), "{longer}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_id_is_said() {
        for (text, why) in [
            ("", DeviceIdError::Prefix),
            ("laptop", DeviceIdError::Prefix),
            ("kin1qqq", DeviceIdError::Length { found: 7 }),
            ("kin1qé", DeviceIdError::Character { found: 'é' }),
            ("kin1q\u{1b}", DeviceIdError::Character { found: '\u{1b}' }),
        ] {
            assert_eq!(DeviceId::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn the_short_name_is_the_beginning_of_the_id() {
        let id = some_device();
        assert_eq!(id.short(), id.to_string()[4..11]);
    }

    #[test]
    fn a_new_incarnation_is_a_new_author() {
        let device = some_device();
        assert_ne!(AuthorId::derive(&device, Incarnation(1)), AuthorId::derive(&device, Incarnation(2)));
    }
}
