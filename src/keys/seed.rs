//! The secret that an identity file holds: 32 random bytes, of which the keys are derived.

use zeroize::{Zeroize, Zeroizing};

/// Length of the secret, in bytes.
pub const SEED_LEN: usize = 32;

/// As far below the end of the stack as whatever reads or derives a secret gets.
const STACK_LEN: usize = 32 << 10;

/// Writes over what calls that have returned left on the stack: hashes and ciphers keep there what they work on.
#[inline(never)]
pub(crate) fn wipe_stack() {
    let mut below = [0_u8; STACK_LEN];
    below.zeroize();
    std::hint::black_box(&below);
}

/// The secret. Wiped on drop; it lies on the heap, for a move of what lies on the stack leaves it behind there.
pub struct Seed(Box<[u8; SEED_LEN]>);

impl Seed {
    /// Draws a new one; `None` where the system has no randomness to give.
    pub fn random() -> Option<Self> {
        let mut seed = Self::zeros();
        aws_lc_rs::rand::fill(seed.0.as_mut_slice()).ok()?;
        Some(seed)
    }

    /// Derives the key for one use, which its context names. What the hash held of the secret is wiped as well.
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.0.as_slice());
        let mut key = Zeroizing::new([0; 32]);
        let mut output = hasher.finalize_xof();
        output.fill(key.as_mut_slice());
        output.zeroize();
        hasher.zeroize();
        key
    }

    /// Returns the bytes, for a file.
    pub(crate) fn as_bytes(&self) -> &[u8; SEED_LEN] {
        &self.0
    }

    fn zeros() -> Self {
        Self(Box::new([0; SEED_LEN]))
    }
}

#[cfg(test)]
impl Seed {
    pub(crate) fn from_bytes(bytes: [u8; SEED_LEN]) -> Self {
        Self(Box::new(bytes))
    }
}

impl TryFrom<&[u8]> for Seed {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let bytes: &[u8; SEED_LEN] = bytes.try_into()?;
        let mut seed = Self::zeros();
        seed.0.copy_from_slice(bytes);
        Ok(seed)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(…)")
    }
}
