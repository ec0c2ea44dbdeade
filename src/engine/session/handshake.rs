//! The handshake: three messages of fixed length, pure and without sockets.
//!
//! `Noise_XKpsk3_25519_{AESGCM|ChaChaPoly}_SHA256` (Noise specification, revision 34) with ML-KEM-768
//! beside the X25519 of Noise, so that whoever records a session today and has a quantum computer
//! later still lacks the key.
//!
//! | message | from      | bytes on the wire | content                                                        |
//! |---------|-----------|-------------------|----------------------------------------------------------------|
//! | first   | initiator | [`FIRST_LEN`]     | tag of the gate, `e, es`, payload: ML-KEM encapsulation key    |
//! | second  | responder | [`SECOND_LEN`]    | `e, ee`, payload: ML-KEM ciphertext, hello                     |
//! | last    | initiator | [`LAST_LEN`]      | `s, se, psk`, payload: hello                                   |
//!
//! A hello is 16 bytes: the lowest and the highest protocol version spoken (`u16` LE each), flags (`u32`
//! LE, bit 0: this processor has AES instructions), 8 bytes of zeros that a reader ignores.
//!
//! The prologue binds the protocol's name, the suite and both device ids. The pre-shared key is made of
//! the pair's secret (see [`PairKeys`]) and the secret of ML-KEM; it enters with the last message,
//! which is why the pattern is XK and not IK.
//!
//! Nothing here draws randomness: [`Primitives`] brings it, and the ciphers with it. Every state is
//! consumed by its step; after an error there is none left to go on with.

use snow::resolvers::BoxedCryptoResolver;
use snow::{Builder, HandshakeState, StatelessTransportState};
use zeroize::Zeroizing;

use crate::engine::session::gate::{Admission, PairKeys, TAG_LEN};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;

/// Length of an ML-KEM-768 encapsulation key, in bytes (FIPS 203, table 3).
pub const KEM_KEY_LEN: usize = 1184;
/// Length of an ML-KEM-768 ciphertext, in bytes (FIPS 203, table 3).
pub const KEM_CIPHERTEXT_LEN: usize = 1088;
/// Length of the first message, the gate's tag included, in bytes.
pub const FIRST_LEN: usize = TAG_LEN + KEY_LEN + KEM_KEY_LEN + MAC_LEN;
/// Length of the responder's message, in bytes.
pub const SECOND_LEN: usize = KEY_LEN + SECOND_PAYLOAD_LEN + MAC_LEN;
/// Length of the last message, in bytes.
pub const LAST_LEN: usize = KEY_LEN + MAC_LEN + HELLO_LEN + MAC_LEN;

const KEY_LEN: usize = 32;
const MAC_LEN: usize = 16;
const HELLO_LEN: usize = 16;
const SECOND_PAYLOAD_LEN: usize = KEM_CIPHERTEXT_LEN + HELLO_LEN;
const PSK_PLACE: usize = 3;
const FLAG_AES: u32 = 1;

/// What the handshake needs of cryptography and randomness; an argument, so that the same inputs make
/// the same handshake.
pub trait Primitives: Send + Sync {
    /// Returns what snow computes with.
    fn resolver(&self) -> BoxedCryptoResolver;

    /// Makes an ML-KEM-768 key pair: the encapsulation key to send, and what opens the answer.
    fn kem_generate(&self) -> Result<(Box<dyn Decapsulate>, [u8; KEM_KEY_LEN]), KemError>;

    /// Makes a secret and the ciphertext that only the holder of the key pair can open.
    ///
    /// # Errors
    /// The key is none, or there was no randomness.
    fn kem_encapsulate(
        &self,
        key: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; KEM_CIPHERTEXT_LEN], Zeroizing<[u8; 32]>), KemError>;
}

/// The secret half of an ML-KEM-768 key pair, for one use.
pub trait Decapsulate: Send + Sync {
    /// Opens a ciphertext. One that was tampered with gives another secret, not an error.
    fn decapsulate(self: Box<Self>, ciphertext: &[u8; KEM_CIPHERTEXT_LEN]) -> Result<Zeroizing<[u8; 32]>, KemError>;
}

/// An ML-KEM operation was refused: a malformed key, or no randomness.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("ML-KEM refused its input")]
pub struct KemError;

/// The protocol versions that a device speaks, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Self = Self { min: 1, max: 1 };

    /// Returns the highest version that both speak.
    fn agree(self, other: Self) -> Option<u16> {
        let (min, max) = (self.min.max(other.min), self.max.min(other.max));
        (min <= max).then_some(max)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// This device, as its handshakes need it.
pub struct Local {
    /// Its public key.
    pub device: DeviceId,
    /// Its private key.
    pub private: Zeroizing<[u8; 32]>,
    /// The versions it speaks.
    pub versions: Versions,
    /// Whether its processor has AES instructions.
    pub has_aes: bool,
}

/// Why a handshake failed, for the local log; the peer is told nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's message is not authentic: it has not the key that it should have, or somebody changed
    /// the message on its way.
    #[error("the handshake message is not authentic")]
    Forged(#[source] snow::Error),
    /// The peer holds another key than its tag said.
    #[error("{claimed:?} turned out to be {found:?}")]
    Impostor {
        /// The device that the tag named.
        claimed: DeviceId,
        /// The device that the last message proved.
        found: DeviceId,
    },
    /// The peer's part of ML-KEM is malformed.
    #[error("the peer's key exchange is malformed")]
    Kem(#[source] KemError),
    /// The peer is who it should be, but no version is spoken by both.
    #[error("the peer speaks protocol version {theirs}, this device speaks {ours}")]
    Version {
        /// What the peer speaks.
        theirs: Versions,
        /// What this device speaks.
        ours: Versions,
    },
    /// This device could not do its part.
    #[error("the handshake could not be computed")]
    Local(#[source] snow::Error),
    /// This device could not make a key pair for ML-KEM.
    #[error("no key pair could be made")]
    LocalKem(#[source] KemError),
}

/// A finished handshake.
pub struct Established {
    /// The device at the other end, proven.
    pub peer: DeviceId,
    /// What both ends agree the handshake was; the same on both, and never twice.
    pub handshake_hash: [u8; 32],
    /// The keys of the session.
    pub transport: StatelessTransportState,
    /// The suite in use.
    pub suite: Suite,
    /// The protocol version: the highest that both speak.
    pub version: u16,
    /// Whether the peer's processor has AES instructions; remembered for the next dial.
    pub peer_has_aes: bool,
}

/// The dialing end after its first message.
pub struct Initiator {
    noise: HandshakeState,
    decapsulate: Box<dyn Decapsulate>,
    pair: PairKeys,
    session: Session,
}

impl Initiator {
    /// Begins a handshake with a trusted device. The bytes are [`FIRST_LEN`] long.
    pub fn start(
        local: &Local,
        peer: DeviceId,
        pair: PairKeys,
        suite: Suite,
        primitives: &dyn Primitives,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let prologue = prologue(suite, &local.device, &peer);
        let mut noise = builder(local, suite, &prologue, primitives)
            .and_then(|builder| builder.remote_public_key(peer.as_bytes()))
            .and_then(Builder::build_initiator)
            .map_err(HandshakeError::Local)?;
        let (decapsulate, key) = primitives.kem_generate().map_err(HandshakeError::LocalKem)?;
        let mut message = vec![0; FIRST_LEN];
        write_exactly(&mut noise, &key, &mut message[TAG_LEN..])?;
        let tag = pair.tag(&local.device, &peer, suite, &message[TAG_LEN..]);
        message[..TAG_LEN].copy_from_slice(&tag);
        Ok((Self { noise, decapsulate, pair, session: Session::new(local, peer, suite) }, message))
    }

    /// Takes the responder's [`SECOND_LEN`] bytes and makes the last message, of [`LAST_LEN`].
    pub fn handle_second(mut self, message: &[u8]) -> Result<(Complete, Vec<u8>), HandshakeError> {
        let mut payload = [0; SECOND_PAYLOAD_LEN];
        read_exactly(&mut self.noise, message, &mut payload)?;
        let (ciphertext, hello) = payload
            .split_first_chunk::<KEM_CIPHERTEXT_LEN>()
            .expect("the payload is made of a ciphertext and a hello, see SECOND_PAYLOAD_LEN");
        let secret = self.decapsulate.decapsulate(ciphertext).map_err(HandshakeError::Kem)?;
        set_psk(&mut self.noise, &self.pair, &secret)?;
        let mut last = vec![0; LAST_LEN];
        write_exactly(&mut self.noise, &self.session.hello(), &mut last)?;
        let theirs = Hello::parse(hello);
        Ok((Complete { noise: self.noise, theirs, session: self.session }, last))
    }
}

/// The dialing end once its last message is made.
///
/// The message goes out whatever comes of [`Complete::establish`]: the other end then also learns which
/// versions do not fit, and can tell its person.
pub struct Complete {
    noise: HandshakeState,
    theirs: Hello,
    session: Session,
}

impl Complete {
    /// Turns the handshake into the keys of a session.
    pub fn establish(self) -> Result<Established, HandshakeError> {
        self.session.establish(self.noise, self.theirs)
    }
}

/// The answering end after its message.
pub struct Responder {
    noise: HandshakeState,
    session: Session,
}

impl Responder {
    /// Answers a first message that the gate let in. The bytes are [`SECOND_LEN`] long.
    pub fn start(
        local: &Local,
        admission: Admission<'_>,
        primitives: &dyn Primitives,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let Admission { peer, suite, pair, noise: message, .. } = admission;
        let prologue = prologue(suite, &peer, &local.device);
        let mut noise = builder(local, suite, &prologue, primitives)
            .and_then(Builder::build_responder)
            .map_err(HandshakeError::Local)?;
        let mut key = [0; KEM_KEY_LEN];
        read_exactly(&mut noise, message, &mut key)?;
        let (ciphertext, secret) = primitives.kem_encapsulate(&key).map_err(HandshakeError::Kem)?;
        set_psk(&mut noise, &pair, &secret)?;
        let session = Session::new(local, peer, suite);
        let mut payload = [0; SECOND_PAYLOAD_LEN];
        payload[..KEM_CIPHERTEXT_LEN].copy_from_slice(&ciphertext);
        payload[KEM_CIPHERTEXT_LEN..].copy_from_slice(&session.hello());
        let mut answer = vec![0; SECOND_LEN];
        write_exactly(&mut noise, &payload, &mut answer)?;
        Ok((Self { noise, session }, answer))
    }

    /// Returns the device whose tag came with the first message; the last one has to prove it.
    pub fn peer(&self) -> DeviceId {
        self.session.peer
    }

    /// Takes the initiator's last [`LAST_LEN`] bytes.
    pub fn handle_last(mut self, message: &[u8]) -> Result<Established, HandshakeError> {
        let mut hello = [0; HELLO_LEN];
        read_exactly(&mut self.noise, message, &mut hello)?;
        let found = self.noise.get_remote_static().and_then(|key| <[u8; 32]>::try_from(key).ok());
        let found = DeviceId::from_public_key(found.expect("the last message of XK carries a key of 32 bytes"));
        if found != self.session.peer {
            return Err(HandshakeError::Impostor { claimed: self.session.peer, found });
        }
        self.session.establish(self.noise, Hello::parse(&hello))
    }
}

/// What both ends keep from their first step to their last.
struct Session {
    peer: DeviceId,
    suite: Suite,
    ours: Hello,
}

impl Session {
    fn new(local: &Local, peer: DeviceId, suite: Suite) -> Self {
        Self { peer, suite, ours: Hello { versions: local.versions, has_aes: local.has_aes } }
    }

    fn hello(&self) -> [u8; HELLO_LEN] {
        self.ours.to_bytes()
    }

    fn establish(self, noise: HandshakeState, theirs: Hello) -> Result<Established, HandshakeError> {
        let version = self
            .ours
            .versions
            .agree(theirs.versions)
            .ok_or(HandshakeError::Version { theirs: theirs.versions, ours: self.ours.versions })?;
        let handshake_hash = noise.get_handshake_hash().try_into().expect("SHA-256 has 32 bytes");
        Ok(Established {
            peer: self.peer,
            handshake_hash,
            transport: noise.into_stateless_transport_mode().map_err(HandshakeError::Local)?,
            suite: self.suite,
            version,
            peer_has_aes: theirs.has_aes,
        })
    }
}

/// What each end says of itself; its bytes are described at the top of the file.
#[derive(Clone, Copy)]
struct Hello {
    versions: Versions,
    has_aes: bool,
}

impl Hello {
    fn to_bytes(self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        bytes[..2].copy_from_slice(&self.versions.min.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.versions.max.to_le_bytes());
        let flags = if self.has_aes { FLAG_AES } else { 0 };
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    /// Reads the fields known here; `bytes` has [`HELLO_LEN`] of them.
    fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self { versions: Versions { min: word(0), max: word(2) }, has_aes: u32::from(word(4)) & FLAG_AES != 0 }
    }
}

/// Prepares what is the same at both ends; `prologue` is [`prologue`]'s.
fn builder<'a>(
    local: &'a Local,
    suite: Suite,
    prologue: &'a [u8],
    primitives: &dyn Primitives,
) -> Result<Builder<'a>, snow::Error> {
    Builder::with_resolver(suite.noise_name().parse()?, primitives.resolver())
        .prologue(prologue)?
        .local_private_key(local.private.as_slice())
}

/// What both ends must agree on before the first byte.
fn prologue(suite: Suite, initiator: &DeviceId, responder: &DeviceId) -> Vec<u8> {
    [b"kinfold handshake 1".as_slice(), &[suite.code()], initiator.as_bytes(), responder.as_bytes()].concat()
}

/// Mixes the two secrets into the key that the last message needs.
fn set_psk(noise: &mut HandshakeState, pair: &PairKeys, kem: &[u8; 32]) -> Result<(), HandshakeError> {
    let mut hasher = blake3::Hasher::new_derive_key("kinfold 1 handshake psk");
    hasher.update(pair.secret());
    hasher.update(kem);
    let psk = Zeroizing::new(*hasher.finalize().as_bytes());
    zeroize::Zeroize::zeroize(&mut hasher);
    noise.set_psk(PSK_PLACE, psk.as_slice()).map_err(HandshakeError::Local)
}

/// Writes a message that fills `out` to the last byte.
fn write_exactly(noise: &mut HandshakeState, payload: &[u8], out: &mut [u8]) -> Result<(), HandshakeError> {
    let len = noise.write_message(payload, out).map_err(HandshakeError::Local)?;
    assert_eq!(len, out.len(), "every message of the handshake has a fixed length");
    Ok(())
}

/// Reads a message whose payload fills `payload` to the last byte.
fn read_exactly(noise: &mut HandshakeState, message: &[u8], payload: &mut [u8]) -> Result<(), HandshakeError> {
    match noise.read_message(message, payload) {
        Ok(len) if len == payload.len() => Ok(()),
        Ok(_) => Err(HandshakeError::Forged(snow::Error::Input)),
        Err(error) => Err(HandshakeError::Forged(error)),
    }
}
