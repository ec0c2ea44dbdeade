//! The identity of this device: its long-term key.
//!
//! The X25519 key is derived from the secret of the identity file, so that keys for other uses can be derived beside it
//! and none has to serve twice. It is wiped from memory on drop and is never printed. The secret itself is not kept.

use std::path::Path;

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::keys::key_file;
use crate::keys::key_file::{KeyError, KeyFile};
use crate::keys::seed::{Seed, wipe_stack};
use crate::model::id::DeviceId;

/// The long-term key of this device.
pub struct Identity {
    secret: StaticSecret,
    device: DeviceId,
}

/// The other device's key is none: every secret shared with it would be zero.
#[derive(Debug, thiserror::Error)]
#[error("{peer} is not the id of a device")]
pub struct WeakPeer {
    /// The key.
    pub peer: DeviceId,
}

impl Identity {
    /// Makes a new identity and its file, durably.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if there is a file of any kind; it is left alone.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let seed = Seed::random().ok_or(KeyError::Randomness)?;
        key_file::create(path, seed.as_bytes())?;
        Ok(Self::from_seed(&seed))
    }

    /// Reads an identity that is not locked, refusing a file that others could have read or put there.
    ///
    /// # Errors
    /// [`KeyError::Locked`] where it is; see [`KeyFile`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        match KeyFile::read(path)? {
            KeyFile::Plain(seed) => Ok(Self::from_seed(&seed)),
            KeyFile::Locked(_) => Err(KeyError::Locked { path: path.to_owned() }),
        }
    }

    /// Derives the key of a device from its secret.
    pub fn from_seed(seed: &Seed) -> Self {
        let private = seed.derive("kinfold 1 device x25519 key");
        wipe_stack();
        Self::from_private_key(&private)
    }

    /// Takes the private key of a device, as [`Identity::private_key`] gives it.
    pub fn from_private_key(private: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*private);
        let device = DeviceId::from_public_key(PublicKey::from(&secret).to_bytes());
        Self { secret, device }
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
    /// The result is zero, as a made-up key can force.
    pub fn agree(&self, peer: &DeviceId) -> Result<Zeroizing<[u8; 32]>, WeakPeer> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(*peer.as_bytes()));
        if !shared.was_contributory() {
            return Err(WeakPeer { peer: *peer });
        }
        Ok(Zeroizing::new(shared.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::seed::SEED_LEN;

    fn of(byte: u8) -> Identity {
        Identity::from_seed(&Seed::from_bytes([byte; SEED_LEN]))
    }

    #[test]
    fn a_seed_always_gives_the_same_device() {
        let device = of(7).device_id();
        assert_eq!(device.to_string(), "kin1axfhxhv4t97s9ythq35yh4gf5rdw02e59whn6gwxywf29vward0s5ga5rz");
    }

    #[test]
    fn a_key_that_is_handed_on_is_the_same_device() {
        let handed_on = Identity::from_private_key(&of(7).private_key());
        assert_eq!(handed_on.device_id(), of(7).device_id());
    }

    #[test]
    fn two_devices_agree_on_one_secret_and_no_device_on_zero() {
        let (a, b) = (of(1), of(2));
        assert_eq!(a.agree(&b.device_id()).unwrap(), b.agree(&a.device_id()).unwrap());
        let weak = DeviceId::from_public_key([0; 32]);
        assert_eq!(a.agree(&weak).unwrap_err().peer, weak);
    }
}
