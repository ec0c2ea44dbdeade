//! The identity of this device: 32 random bytes in a file that nobody else may read.
//!
//! The X25519 key is derived from them, so that keys for other uses can be derived beside it and none
//! has to serve twice. The secret is wiped from memory on drop and is never printed.
//!
//! A crash while the file is made leaves it absent or whole; at worst a file `identity.….tmp` stays
//! behind that is never read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::model::id::DeviceId;

/// Length of the identity file, in bytes.
const SEED_LEN: usize = 32;
/// Permission bits of the identity file.
const MODE: u32 = 0o600;

/// The long-term key of this device.
pub struct Identity {
    secret: StaticSecret,
    device: DeviceId,
}

/// Why there is no identity to work with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none yet.
    #[error("there is no identity at {path:?}")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one already; it is never overwritten.
    #[error("there is an identity at {path:?} already")]
    Exists {
        /// Where it lies.
        path: PathBuf,
    },
    /// Others could read or replace the file.
    #[error("{path:?} has mode {mode:o}, others can read it: run `chmod 600 {}`", .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("{path:?} belongs to user {owner}, not to the user {user} that runs this program")]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who runs the program.
        user: u32,
    },
    /// The file is no identity: not a regular file, or not of its length.
    #[error("{path:?} is not an identity: it should be a regular file of {SEED_LEN} bytes")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("could not {doing} {path:?}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The system gave no randomness.
    #[error("the system has no randomness to give")]
    Randomness,
    /// The other device's key is none: every secret shared with it would be zero.
    #[error("{peer} is not the id of a device")]
    WeakPeer {
        /// The key.
        peer: DeviceId,
    },
}

impl Identity {
    /// Makes a new identity and its file, durably.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if there is a file of any kind; it is left alone.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let seed = random_seed()?;
        write_new(path, &seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// Reads the identity, refusing a file that others could have read or put there.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let io_error = |doing| move |source| KeyError::Io { doing, path: path.to_owned(), source };
        // NOFOLLOW: a link could lead anywhere. NONBLOCK: opening a pipe would wait for its writer.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyError::Missing { path: path.to_owned() });
            }
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(KeyError::Malformed { path: path.to_owned() });
            }
            Err(error) => return Err(io_error("open")(error)),
        };
        check(path, &file.metadata().map_err(io_error("look at"))?)?;
        let mut seed = Zeroizing::new([0; SEED_LEN]);
        file.read_exact(seed.as_mut_slice()).map_err(io_error("read"))?;
        Ok(Self::from_seed(&seed))
    }

    /// Returns the id of this device.
    pub fn device_id(&self) -> DeviceId {
        self.device
    }

    /// Returns the private X25519 key, for the handshake.
    pub fn private_key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Computes the secret shared with another device: the Diffie-Hellman of the two long-term keys.
    ///
    /// # Errors
    /// [`KeyError::WeakPeer`] if the result is zero, as a made-up key can force.
    pub fn agree(&self, peer: &DeviceId) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*peer.as_bytes()));
        if !shared.was_contributory() {
            return Err(KeyError::WeakPeer { peer: *peer });
        }
        Ok(Zeroizing::new(shared.to_bytes()))
    }

    fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        let private = Zeroizing::new(blake3::derive_key("kinfold 1 device x25519 key", seed));
        let secret = StaticSecret::from(*private);
        let device = DeviceId::from_public_key(PublicKey::from(&secret).to_bytes());
        Self { secret, device }
    }
}

fn random_seed() -> Result<Zeroizing<[u8; SEED_LEN]>, KeyError> {
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| KeyError::Randomness)?;
    Ok(seed)
}

/// Checks the open file, not its name: what is checked is what is read.
fn check(path: &Path, found: &fs::Metadata) -> Result<(), KeyError> {
    let user = rustix::process::geteuid().as_raw();
    if !found.is_file() {
        return Err(KeyError::Malformed { path: path.to_owned() });
    }
    if found.uid() != user {
        return Err(KeyError::Owner { path: path.to_owned(), owner: found.uid(), user });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Permissions { path: path.to_owned(), mode });
    }
    if found.len() != SEED_LEN as u64 {
        return Err(KeyError::Malformed { path: path.to_owned() });
    }
    Ok(())
}

/// Writes a file that did not exist: under another name first, then linked, which fails where something
/// has the name. So the name never stands for half a secret.
fn write_new(path: &Path, seed: &[u8; SEED_LEN]) -> Result<(), KeyError> {
    let staged = staged_path(path)?;
    let written = write_staged(&staged, seed).and_then(|()| fs::hard_link(&staged, path));
    let removed = fs::remove_file(&staged);
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Exists { path: path.to_owned() }),
        written => written
            .and(removed)
            .and_then(|()| File::open(parent_of(path))?.sync_all())
            .map_err(|source| KeyError::Io { doing: "create", path: path.to_owned(), source }),
    }
}

fn write_staged(staged: &Path, seed: &[u8; SEED_LEN]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(staged)?;
    file.write_all(seed)?;
    file.sync_all()
}

fn staged_path(path: &Path) -> Result<PathBuf, KeyError> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| KeyError::Randomness)?;
    Ok(path.with_added_extension(format!("{:016x}.tmp", u64::from_le_bytes(random))))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A directory, and the path of an identity in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        (dir, path)
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn an_identity_is_the_same_when_opened_again() {
        let (dir, path) = place();
        let made = Identity::create(&path).unwrap();
        let opened = Identity::open(&path).unwrap();
        assert_eq!(made.device_id(), opened.device_id());
        assert_eq!(made.private_key(), opened.private_key());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_identity_is_never_overwritten() {
        let (dir, path) = place();
        write(&path, b"something", 0o600);
        assert!(matches!(Identity::create(&path), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"something");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dangling_link_in_its_place_is_not_followed() {
        let (dir, path) = place();
        let elsewhere = dir.path().join("elsewhere");
        symlink(&elsewhere, &path).unwrap();
        assert!(matches!(Identity::create(&path), Err(KeyError::Exists { .. })));
        assert!(!elsewhere.exists());
        Identity::create(&elsewhere).unwrap();
        assert!(matches!(Identity::open(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let (_dir, path) = place();
        Identity::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o610, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::open(&path).err().unwrap();
            assert!(matches!(error, KeyError::Permissions { mode: found, .. } if found == mode));
            assert!(error.to_string().contains(&format!("`chmod 600 {}`", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Identity::open(&path).is_ok());
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let (dir, path) = place();
        assert!(matches!(Identity::open(&path), Err(KeyError::Missing { .. })));
        for len in [0, 31, 33] {
            write(&path, &vec![7; len], 0o600);
            assert!(matches!(Identity::open(&path), Err(KeyError::Malformed { .. })), "{len} bytes");
        }
        assert!(matches!(Identity::open(dir.path()), Err(KeyError::Malformed { .. })));
        assert!(matches!(Identity::create(&dir.path().join("no/where")), Err(KeyError::Io { .. })));
    }

    #[test]
    fn a_seed_always_gives_the_same_device() {
        let device = Identity::from_seed(&[7; SEED_LEN]).device_id();
        assert_eq!(device.to_string(), "kin1axfhxhv4t97s9ythq35yh4gf5rdw02e59whn6gwxywf29vward0s5ga5rz");
    }

    #[test]
    fn two_devices_agree_on_one_secret_and_no_device_on_zero() {
        let (a, b) = (Identity::from_seed(&[1; SEED_LEN]), Identity::from_seed(&[2; SEED_LEN]));
        assert_eq!(a.agree(&b.device_id()).unwrap(), b.agree(&a.device_id()).unwrap());
        let weak = DeviceId::from_public_key([0; 32]);
        assert!(matches!(a.agree(&weak), Err(KeyError::WeakPeer { .. })));
    }
}
