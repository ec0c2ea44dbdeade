//! An identity under a passphrase: Argon2id (RFC 9106) makes a key of the passphrase, ChaCha20-Poly1305 (RFC 8439)
//! encrypts with it.
//!
//! Four lines of text, each as it is written here and no other way:
//!
//! ```text
//! kinfold identity 1, locked
//! device kin1…
//! argon2id memory=262144 passes=3 lanes=1 salt=<16 bytes, hex>
//! sealed <32 bytes and a tag of 16, hex>
//! ```
//!
//! Memory is in KiB. The lines above the last are authenticated with it, so that neither the device nor the cost can be
//! another than when it was locked. Who the device is can be read without the passphrase; it is proven when the
//! identity is opened, and not before. The nonce is zero: a salt, and so a key, is for one use.
//!
//! A file may come from anywhere: what it can make this program spend is bounded by [`Cost::MAX`].

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::keys::passphrase::Passphrase;
use crate::keys::seed::{SEED_LEN, Seed, wipe_stack};
use crate::model::id::DeviceId;

/// Longest file, in bytes.
pub(crate) const FILE_LEN_MAX: usize = 512;
/// What every file begins with.
const TITLE: &str = "kinfold identity 1, locked";
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Length of what is encrypted, in bytes.
const SEALED_LEN: usize = SEED_LEN + TAG_LEN;

/// What each try of a passphrase costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// What an identity is locked with: half a second or so, and as much memory as a small machine has to spare. It is
    /// between the two that RFC 9106 recommends.
    pub const STANDARD: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 1 };
    /// Beyond this nothing is tried.
    pub const MAX: Self = Self { memory_kib: 1 << 20, passes: 16, lanes: 4 };

    /// Returns the memory that it takes, in MiB.
    pub fn memory_mib(&self) -> u32 {
        self.memory_kib >> 10
    }

    fn is_within(&self, max: &Self) -> bool {
        self.memory_kib <= max.memory_kib && self.passes <= max.passes && self.lanes <= max.lanes
    }
}

impl fmt::Display for Cost {
    /// As it is written in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, passes, lanes } = self;
        write!(f, "memory={memory_kib} passes={passes} lanes={lanes}")
    }
}

const _: () = assert!(Cost::STANDARD.memory_kib <= Cost::MAX.memory_kib && Cost::STANDARD.passes <= Cost::MAX.passes);

/// An identity that is locked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sealed {
    device: DeviceId,
    cost: Cost,
    salt: [u8; SALT_LEN],
    sealed: [u8; SEALED_LEN],
}

/// Why an identity cannot be locked or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The text is no locked identity.
    #[error("it is not a locked identity as this program writes them")]
    Malformed,
    /// To open it would take more than anybody should need.
    #[error("it asks for {asked}, and no more is tried than {}", Cost::MAX)]
    TooDear {
        /// What it asks for.
        asked: Cost,
    },
    /// The passphrase is another one, or the file was changed: there is no telling which.
    #[error("the passphrase is wrong")]
    Wrong,
    /// The system gave not enough memory.
    #[error("the system does not give the {mib} MiB of memory that it takes")]
    Memory {
        /// What it takes.
        mib: u32,
    },
    /// The system gave no randomness.
    #[error("the system has no randomness to give")]
    Randomness,
}

impl Sealed {
    /// Locks the secret of a device.
    pub fn seal(seed: &Seed, device: DeviceId, passphrase: &Passphrase, cost: Cost) -> Result<Self, SealError> {
        let mut salt = [0; SALT_LEN];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| SealError::Randomness)?;
        let mut locked = Self { device, cost, salt, sealed: [0; SEALED_LEN] };
        let key = locked.key(passphrase)?;
        let (text, tag) = locked.sealed.split_at_mut(SEED_LEN);
        text.copy_from_slice(seed.as_bytes());
        let head = head(&device, &cost, &salt);
        let sealed = key.seal_in_place_separate_tag(nonce(), Aad::from(head.as_bytes()), text);
        tag.copy_from_slice(sealed.expect("nothing but a text of many gigabytes is ever refused").as_ref());
        Ok(locked)
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`SealError::Wrong`] if it was not locked with this passphrase, or is not as it was locked.
    pub fn open(&self, passphrase: &Passphrase) -> Result<Seed, SealError> {
        let key = self.key(passphrase)?;
        let mut text = Zeroizing::new(self.sealed);
        let head = head(&self.device, &self.cost, &self.salt);
        let opened = key.open_in_place(nonce(), Aad::from(head.as_bytes()), text.as_mut_slice());
        let opened = opened.map_err(|_| SealError::Wrong)?;
        Seed::try_from(&*opened).map_err(|_| SealError::Malformed)
    }

    /// Returns whose it is, as the file says; what opens it proves it.
    pub fn device_id(&self) -> DeviceId {
        self.device
    }

    /// Returns what each try costs.
    pub fn cost(&self) -> Cost {
        self.cost
    }

    fn key(&self, passphrase: &Passphrase) -> Result<LessSafeKey, SealError> {
        let Cost { memory_kib, passes, lanes } = self.cost;
        if !self.cost.is_within(&Cost::MAX) {
            return Err(SealError::TooDear { asked: self.cost });
        }
        let params = Params::new(memory_kib, passes, lanes, None).map_err(|_| SealError::Malformed)?;
        // So much memory goes back to the system, which wipes it, as soon as it is given up.
        let mut memory: Vec<Block> = Vec::new();
        let refused = memory.try_reserve_exact(params.block_count());
        refused.map_err(|_| SealError::Memory { mib: self.cost.memory_mib() })?;
        memory.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2
            .hash_password_into_with_memory(passphrase.as_bytes(), &self.salt, key.as_mut_slice(), &mut memory)
            .map_err(|_| SealError::Malformed)?;
        wipe_stack();
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the cipher has keys of 32 bytes");
        Ok(LessSafeKey::new(key))
    }
}

/// Returns the lines that anybody may read and nobody may change.
fn head(device: &DeviceId, cost: &Cost, salt: &[u8; SALT_LEN]) -> String {
    format!("{TITLE}\ndevice {device}\nargon2id {cost} salt={}\n", HEXLOWER.encode(salt))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = head(&self.device, &self.cost, &self.salt);
        writeln!(f, "{head}sealed {}", HEXLOWER.encode(&self.sealed))
    }
}

impl FromStr for Sealed {
    type Err = SealError;

    fn from_str(text: &str) -> Result<Self, SealError> {
        let sealed = parse(text).ok_or(SealError::Malformed)?;
        // There is one way to write it, so that what is authenticated is what the file says.
        if sealed.to_string() != text {
            return Err(SealError::Malformed);
        }
        Ok(sealed)
    }
}

fn parse(text: &str) -> Option<Sealed> {
    let mut lines = text.lines();
    lines.next().filter(|line| *line == TITLE)?;
    let device = DeviceId::parse(lines.next()?.strip_prefix("device ")?).ok()?;
    let mut words = lines.next()?.strip_prefix("argon2id ")?.split(' ');
    let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
    let cost = Cost {
        memory_kib: value("memory")?.parse().ok()?,
        passes: value("passes")?.parse().ok()?,
        lanes: value("lanes")?.parse().ok()?,
    };
    let salt = bytes(value("salt")?)?;
    let sealed = bytes(lines.next()?.strip_prefix("sealed ")?)?;
    Some(Sealed { device, cost, salt, sealed })
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    pub(crate) fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.into())).unwrap()
    }

    impl Cost {
        pub(crate) fn dearer_than_allowed() -> Self {
            Self { passes: Self::MAX.passes + 1, ..CHEAP }
        }
    }

    fn some() -> Sealed {
        let device = DeviceId::from_public_key([1; 32]);
        Sealed::seal(&Seed::from_bytes([7; SEED_LEN]), device, &passphrase("right"), CHEAP).unwrap()
    }

    #[test]
    fn what_was_locked_is_opened_by_its_passphrase_alone() {
        let sealed: Sealed = some().to_string().parse().unwrap();
        assert_eq!(sealed.open(&passphrase("right")).unwrap().as_bytes(), &[7; SEED_LEN]);
        for wrong in ["Right", "right ", "r"] {
            assert!(matches!(sealed.open(&passphrase(wrong)), Err(SealError::Wrong)), "{wrong}");
        }
        let other = some();
        assert!(other.salt != sealed.salt && other.sealed != sealed.sealed, "a key was used twice");
        assert!(sealed.to_string().len() <= FILE_LEN_MAX);
    }

    /// A file of this form is opened for ever.
    #[test]
    fn the_form_is_the_one_that_was_given_out() {
        let text = include_str!("../../tests/fixtures/locked-identity");
        let sealed: Sealed = text.parse().unwrap();
        assert_eq!(sealed.open(&passphrase("a passphrase of old")).unwrap().as_bytes(), &[7; SEED_LEN]);
    }

    #[test]
    fn a_file_in_which_anything_was_changed_is_not_opened() {
        let text = some().to_string();
        let others = [
            text.replace("memory=64", "memory=65"),
            text.replace("passes=1", "passes=2"),
            text.replace(&some().device.to_string(), &DeviceId::from_public_key([2; 32]).to_string()),
        ];
        for other in others {
            assert_ne!(other, text);
            let opened = other.parse::<Sealed>().unwrap().open(&passphrase("right"));
            assert!(matches!(opened, Err(SealError::Wrong)), "{other}");
        }
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(sealed) = String::from_utf8(bytes).unwrap().parse::<Sealed>() else { continue };
            assert!(sealed.open(&passphrase("right")).is_err(), "the byte {at}");
        }
    }

    #[test]
    fn what_is_not_written_as_we_write_it_is_refused() {
        let text = some().to_string();
        let cases = [
            ("nothing", String::new()),
            ("half a file", text[..text.len() / 2].to_owned()),
            ("no line end", text.trim_end().to_owned()),
            ("something after it", format!("{text}\n")),
            ("lines of Windows", text.replace('\n', "\r\n")),
            ("another version", text.replace("identity 1", "identity 2")),
            ("capital digits", text.replace("sealed ", "sealed A")),
            ("a number with a sign", text.replace("memory=", "memory=+")),
            ("a number with a zero in front", text.replace("memory=", "memory=0")),
            ("a number beyond all", text.replace("memory=", "memory=99999999999")),
            ("a missing word", text.replace(" lanes=1", "")),
            ("one word more", text.replace(" salt=", " more=1 salt=")),
        ];
        for (case, text) in cases {
            assert!(matches!(text.parse::<Sealed>(), Err(SealError::Malformed)), "{case}");
        }
    }

    #[test]
    fn a_file_cannot_ask_for_more_than_is_allowed() {
        let text = some().to_string();
        for (from, to) in [
            ("memory=64", "memory=4294967295"),
            ("memory=64", "memory=1048577"),
            ("passes=1", "passes=17"),
            ("lanes=1", "lanes=5"),
        ] {
            let sealed: Sealed = text.replace(from, to).parse().unwrap();
            assert!(matches!(sealed.open(&passphrase("right")), Err(SealError::TooDear { .. })), "{to}");
        }
        for (from, to) in [("memory=64", "memory=7"), ("passes=1", "passes=0"), ("lanes=1", "lanes=0")] {
            let sealed: Sealed = text.replace(from, to).parse().unwrap();
            assert!(matches!(sealed.open(&passphrase("right")), Err(SealError::Malformed)), "{to}");
        }
    }
}
