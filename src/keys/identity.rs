//! The identity of this device on disk: 32 random bytes that only its owner can read.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::model::id::DeviceId;

/// Length of the secret, in bytes.
const SECRET_LEN: usize = 32;

/// The identity of this device.
pub struct Identity {
    secret: Zeroizing<[u8; SECRET_LEN]>,
}

/// Why the identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is one already; it is never overwritten.
    #[error("there is an identity already: {}", .path.display())]
    Exists {
        /// Where it lies.
        path: PathBuf,
    },
    /// Others could read it.
    #[error("{} can be read by others (mode {mode:04o}); run `chmod 600` on it", .path.display())]
    Open {
        /// Where it lies.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to another user", .path.display())]
    Owner {
        /// Where it lies.
        path: PathBuf,
    },
    /// It is not 32 bytes long.
    #[error("{} is damaged: it has {found} bytes instead of {SECRET_LEN}", .path.display())]
    Damaged {
        /// Where it lies.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// The system refused.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Identity {
    /// Makes a new identity. Fails where there is one.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let error = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
            _ => KeyError::Io { path: path.to_owned(), source },
        };
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        aws_lc_rs::rand::fill(&mut *secret).map_err(|_| error(io::Error::other("no randomness")))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(error)?;
        file.write_all(&*secret).and_then(|()| file.sync_all()).map_err(error)?;
        Ok(Self { secret })
    }

    /// Reads the identity. Refuses one that others could have read.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let error = |source| KeyError::Io { path: path.to_owned(), source };
        let mut file = fs::File::open(path).map_err(error)?;
        let meta = file.metadata().map_err(error)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(KeyError::Owner { path: path.to_owned() });
        }
        if meta.mode() & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode: meta.mode() & 0o7777 });
        }
        if meta.len() != SECRET_LEN as u64 {
            return Err(KeyError::Damaged { path: path.to_owned(), found: meta.len() });
        }
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        file.read_exact(&mut *secret).map_err(error)?;
        Ok(Self { secret })
    }

    /// Returns the device id that belongs to it.
    pub fn device_id(&self) -> DeviceId {
        let key = Zeroizing::new(blake3::derive_key("kinfold 1 x25519 static key", &*self.secret));
        let secret = x25519_dalek::StaticSecret::from(*key);
        DeviceId::from_public_key(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}
