//! Pairing: two devices that have never met prove to each other that they were given the same code.
//!
//! First a PAKE (SPAKE2, Abdalla and Pointcheval 2005) makes a key of the code, of which nothing can be told from what
//! goes over the wire: a code can only be guessed by asking, one guess a connection, and whoever invites counts. Then a
//! Noise handshake that needs this key as its first step proves the long-term keys of both, in secret. The bytes are
//! described in [`wire`](crate::wire). A machine in the middle that does not know the code can relay, cut or guess, like
//! any other stranger.
//!
//! Whoever joins proves the code first. So a stranger that connects to a window learns nothing by which it could try
//! codes on its own: it never gets a message that depends on the key before it has proven to have it.
//!
//! Nothing here draws randomness of its own or knows a clock.

use snow::{Builder, HandshakeState, TransportState};
use spake2::rand_core::{Infallible, TryCryptoRng, TryRng};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use zeroize::{Zeroize, Zeroizing};

use crate::engine::session::handshake::{Decapsulate, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemError, Primitives};
use crate::model::id::DeviceId;
use crate::model::limits::PAIRING_MESSAGE_MAX;

const MAGIC: &[u8; 16] = b"kinfold pair 1\0\0";
const PAKE_LEN: usize = 33;
const KEY_LEN: usize = 32;
const MAC_LEN: usize = 16;
const PATTERN: &str = "Noise_XXpsk0+psk3_25519_ChaChaPoly_SHA256";

/// Length of the first message of whoever joins, in bytes.
pub const FIRST_LEN: usize = MAGIC.len() + 1 + PAKE_LEN;
/// Length of the answer to it, in bytes.
pub const SECOND_LEN: usize = PAKE_LEN;
/// Length of the message that proves the code, in bytes.
pub const THIRD_LEN: usize = KEY_LEN + KEM_KEY_LEN + MAC_LEN;
/// Length of the answer to it, after the byte that says whether the code was right, in bytes.
pub const FOURTH_LEN: usize = KEY_LEN + KEY_LEN + MAC_LEN + KEM_CIPHERTEXT_LEN + MAC_LEN;
/// Length of the last message, in bytes.
pub const FIFTH_LEN: usize = KEY_LEN + MAC_LEN + MAC_LEN;
/// Longest sealed message after that, in bytes.
pub const SEALED_LEN_MAX: usize = PAIRING_MESSAGE_MAX + MAC_LEN;

/// What both were given.
#[derive(Clone)]
pub struct Secret {
    kind: SecretKind,
    password: Zeroizing<Vec<u8>>,
}

/// How they were given it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum SecretKind {
    /// As a short code.
    Code = 0,
    /// As a link with a long secret.
    Link = 1,
}

impl Secret {
    /// The secret of a code, as it is written.
    pub fn of_code(code: &str) -> Self {
        Self { kind: SecretKind::Code, password: Zeroizing::new(code.as_bytes().to_vec()) }
    }

    /// The secret of a link.
    pub fn of_link(secret: &[u8; 16]) -> Self {
        Self { kind: SecretKind::Link, password: Zeroizing::new(secret.to_vec()) }
    }

    fn password(&self) -> Password {
        let bytes = Zeroizing::new([&[self.kind as u8], self.password.as_slice()].concat());
        Password::new(&*bytes)
    }
}

/// Why a pairing came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The other end speaks another protocol.
    #[error("the other end does not speak this program's pairing protocol")]
    Foreign,
    /// The other end was not given the same code, or somebody is in between.
    #[error("the code was not right")]
    WrongSecret,
    /// What followed the proof of the code is not authentic.
    #[error("a message of the pairing is not authentic")]
    Forged(#[source] snow::Error),
    /// The part of ML-KEM is malformed.
    #[error("the key exchange of the other end is malformed")]
    Kem(#[source] KemError),
    /// A message is longer than any may be.
    #[error("a message of the pairing is too long")]
    TooLong,
    /// The other end holds the key of this device.
    #[error("this device cannot be paired with itself")]
    Itself,
    /// This device could not do its part.
    #[error("the pairing could not be computed")]
    Local(#[source] snow::Error),
    /// This device could not make a key pair for ML-KEM.
    #[error("no key pair could be made")]
    LocalKem(#[source] KemError),
}

/// Two devices that have proven the code and their keys to each other.
pub struct Paired {
    /// The device at the other end, proven.
    pub peer: DeviceId,
    /// What both ends agree the handshake was.
    pub handshake_hash: [u8; 32],
    transport: TransportState,
}

impl Paired {
    /// Seals a message of at most [`PAIRING_MESSAGE_MAX`] bytes.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>, PairingError> {
        if plain.len() > PAIRING_MESSAGE_MAX {
            return Err(PairingError::TooLong);
        }
        let mut sealed = vec![0; plain.len() + MAC_LEN];
        self.transport.write_message(plain, &mut sealed).map_err(PairingError::Local)?;
        Ok(sealed)
    }

    /// Opens the next message.
    pub fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, PairingError> {
        if sealed.len() > SEALED_LEN_MAX {
            return Err(PairingError::TooLong);
        }
        let mut plain = vec![0; sealed.len()];
        let len = self.transport.read_message(sealed, &mut plain).map_err(PairingError::Forged)?;
        plain.truncate(len);
        Ok(plain)
    }

    fn new(noise: HandshakeState, own: DeviceId) -> Result<Self, PairingError> {
        let peer = noise.get_remote_static().and_then(|key| <[u8; 32]>::try_from(key).ok());
        let peer = DeviceId::from_public_key(peer.expect("a finished handshake of XX has a key of 32 bytes"));
        if peer == own {
            return Err(PairingError::Itself);
        }
        let handshake_hash = noise.get_handshake_hash().try_into().expect("SHA-256 has 32 bytes");
        Ok(Self { peer, handshake_hash, transport: noise.into_transport_mode().map_err(PairingError::Local)? })
    }
}

/// This device in a pairing.
#[derive(Clone)]
pub struct Own {
    /// Its id.
    pub device: DeviceId,
    /// Its private key.
    pub private: Zeroizing<[u8; 32]>,
}

/// The end that was given a code, after its first message.
pub struct Joiner {
    own: Own,
    pake: Spake2<Ed25519Group>,
    first: [u8; FIRST_LEN],
}

impl Joiner {
    /// Begins. `seed` is 32 random bytes for this attempt alone.
    pub fn start(own: Own, secret: &Secret, seed: &[u8; 32]) -> (Self, [u8; FIRST_LEN]) {
        let (pake, message) = Spake2::start_a_with_rng(&secret.password(), &joins(), &invites(), Seeded::new(seed));
        let mut first = [0; FIRST_LEN];
        first[..MAGIC.len()].copy_from_slice(MAGIC);
        first[MAGIC.len()] = secret.kind as u8;
        first[MAGIC.len() + 1..].copy_from_slice(&message);
        (Self { own, pake, first }, first)
    }

    /// Takes the answer and makes the message that proves the code.
    pub fn handle_second(
        self,
        second: &[u8; SECOND_LEN],
        primitives: &dyn Primitives,
    ) -> Result<(JoinerProving, Vec<u8>), PairingError> {
        let key = finish(self.pake, second)?;
        let prologue = [&self.first[..], second].concat();
        let mut noise = builder(&self.own, &prologue, &key, primitives)
            .and_then(Builder::build_initiator)
            .map_err(PairingError::Local)?;
        let (decapsulate, kem_key) = primitives.kem_generate().map_err(PairingError::LocalKem)?;
        let third = write(&mut noise, &kem_key, THIRD_LEN)?;
        Ok((JoinerProving { own: self.own.device, noise, decapsulate }, third))
    }
}

/// The end that was given a code, once it has proven it.
pub struct JoinerProving {
    own: DeviceId,
    noise: HandshakeState,
    decapsulate: Box<dyn Decapsulate>,
}

impl JoinerProving {
    /// Takes the proof of the other end and makes the last message.
    pub fn handle_fourth(mut self, fourth: &[u8; FOURTH_LEN]) -> Result<(Paired, Vec<u8>), PairingError> {
        let mut ciphertext = [0; KEM_CIPHERTEXT_LEN];
        read(&mut self.noise, fourth, &mut ciphertext)?;
        let secret = self.decapsulate.decapsulate(&ciphertext).map_err(PairingError::Kem)?;
        set_kem_psk(&mut self.noise, &secret)?;
        let fifth = write(&mut self.noise, &[], FIFTH_LEN)?;
        Ok((Paired::new(self.noise, self.own)?, fifth))
    }
}

/// The end that invites, after its first message.
pub struct Host {
    own: Own,
    key: Zeroizing<[u8; 32]>,
    prologue: Vec<u8>,
}

impl Host {
    /// Answers the first message of whoever wants to join; `secret_of` has the secret of each kind. `seed` is 32 random
    /// bytes for this attempt alone.
    ///
    /// The answer says nothing of the code, and nobody has guessed yet.
    pub fn start(
        own: Own,
        secret_of: impl FnOnce(SecretKind) -> Secret,
        first: &[u8; FIRST_LEN],
        seed: &[u8; 32],
    ) -> Result<(Self, [u8; SECOND_LEN]), PairingError> {
        let rest = first.strip_prefix(MAGIC.as_slice()).ok_or(PairingError::Foreign)?;
        let kind = match rest[0] {
            0 => SecretKind::Code,
            1 => SecretKind::Link,
            _ => return Err(PairingError::Foreign),
        };
        let password = secret_of(kind).password();
        let (pake, message) = Spake2::start_b_with_rng(&password, &joins(), &invites(), Seeded::new(seed));
        let second: [u8; SECOND_LEN] = message.try_into().expect("a message of SPAKE2 has 33 bytes");
        let key = finish(pake, &rest[1..])?;
        Ok((Self { own, key, prologue: [&first[..], &second].concat() }, second))
    }

    /// Takes the proof of the code. Each call is one guess of whoever is there: the caller counts them before.
    ///
    /// # Errors
    /// [`PairingError::WrongSecret`] where the guess was wrong.
    pub fn handle_third(
        self,
        third: &[u8; THIRD_LEN],
        primitives: &dyn Primitives,
    ) -> Result<(HostProven, Vec<u8>), PairingError> {
        let mut noise = builder(&self.own, &self.prologue, &self.key, primitives)
            .and_then(Builder::build_responder)
            .map_err(PairingError::Local)?;
        let mut kem_key = [0; KEM_KEY_LEN];
        match noise.read_message(third, &mut kem_key) {
            Ok(KEM_KEY_LEN) => {}
            Ok(_) | Err(_) => return Err(PairingError::WrongSecret),
        }
        let (ciphertext, secret) = primitives.kem_encapsulate(&kem_key).map_err(PairingError::Kem)?;
        let fourth = write(&mut noise, &ciphertext, FOURTH_LEN)?;
        set_kem_psk(&mut noise, &secret)?;
        Ok((HostProven { own: self.own.device, noise }, fourth))
    }
}

/// The end that invites, once the other has proven the code.
pub struct HostProven {
    own: DeviceId,
    noise: HandshakeState,
}

impl HostProven {
    /// Takes the last message.
    pub fn handle_fifth(mut self, fifth: &[u8; FIFTH_LEN]) -> Result<Paired, PairingError> {
        read(&mut self.noise, fifth, &mut [])?;
        Paired::new(self.noise, self.own)
    }
}

fn joins() -> Identity {
    Identity::new(b"kinfold joins")
}

fn invites() -> Identity {
    Identity::new(b"kinfold invites")
}

/// Makes the key of the PAKE, and of it the one that Noise needs.
fn finish(pake: Spake2<Ed25519Group>, message: &[u8]) -> Result<Zeroizing<[u8; 32]>, PairingError> {
    let key = Zeroizing::new(pake.finish(message).map_err(|_| PairingError::Foreign)?);
    Ok(Zeroizing::new(blake3::derive_key("kinfold 1 pairing psk", &key)))
}

fn set_kem_psk(noise: &mut HandshakeState, secret: &[u8; 32]) -> Result<(), PairingError> {
    let psk = Zeroizing::new(blake3::derive_key("kinfold 1 pairing kem", secret));
    noise.set_psk(3, psk.as_slice()).map_err(PairingError::Local)
}

fn builder<'a>(
    own: &'a Own,
    prologue: &'a [u8],
    key: &'a [u8; 32],
    primitives: &dyn Primitives,
) -> Result<Builder<'a>, snow::Error> {
    Builder::with_resolver(PATTERN.parse()?, primitives.resolver())
        .prologue(prologue)?
        .local_private_key(own.private.as_slice())?
        .psk(0, key)
}

fn write(noise: &mut HandshakeState, payload: &[u8], len: usize) -> Result<Vec<u8>, PairingError> {
    let mut message = vec![0; len];
    let written = noise.write_message(payload, &mut message).map_err(PairingError::Local)?;
    assert_eq!(written, len, "every message of the pairing has a fixed length");
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8], payload: &mut [u8]) -> Result<(), PairingError> {
    let len = noise.read_message(message, payload).map_err(PairingError::Forged)?;
    if len == payload.len() { Ok(()) } else { Err(PairingError::Forged(snow::Error::Input)) }
}

/// Random bytes that are drawn from a seed (BLAKE3 in its extendable form), for SPAKE2 wants a source of them.
struct Seeded(blake3::OutputReader);

impl Seeded {
    fn new(seed: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 pairing scalar");
        hasher.update(seed);
        let reader = hasher.finalize_xof();
        hasher.zeroize();
        Self(reader)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out);
        Ok(())
    }
}

/// The seed of each attempt is random and used once.
impl TryCryptoRng for Seeded {}

impl Drop for Seeded {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
