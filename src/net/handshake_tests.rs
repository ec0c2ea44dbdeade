//! The handshake and the records of `engine::session`, run with the real cryptography.

use std::sync::Arc;

use snow::StatelessTransportState;
use snow::resolvers::BoxedCryptoResolver;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::engine::session::gate::{Gate, PairKeys, Silence, TAG_LEN};
use crate::engine::session::handshake::{
    Decapsulate, Established, FIRST_LEN, HandshakeError, Initiator, KEM_CIPHERTEXT_LEN, KEM_KEY_LEN, KemError,
    LAST_LEN, Local, Primitives, Responder, SECOND_LEN, Versions,
};
use crate::engine::session::record::{self, REKEY_RECORDS, RecordError, sealed_len};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::model::limits::NOISE_PAYLOAD_MAX;
use crate::net::crypto::SystemPrimitives;

/// A device of the tests: its key is a hash of its number.
pub(crate) struct Device {
    pub(crate) local: Local,
    pub(crate) secret: StaticSecret,
}

impl Device {
    pub(crate) fn new(n: u8) -> Self {
        let secret = StaticSecret::from(*blake3::hash(&[n]).as_bytes());
        let device = DeviceId::from_public_key(PublicKey::from(&secret).to_bytes());
        let private = Zeroizing::new(secret.to_bytes());
        Self { local: Local { device, private, versions: Versions::OURS, has_aes: true }, secret }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.local.device
    }

    pub(crate) fn keys_with(&self, peer: DeviceId) -> PairKeys {
        PairKeys::derive(self.secret.diffie_hellman(&PublicKey::from(*peer.as_bytes())).as_bytes())
    }

    pub(crate) fn gate(&self, trusted: &[DeviceId]) -> Gate {
        let mut gate = Gate::new(self.id());
        for peer in trusted {
            gate.trust(*peer, self.keys_with(*peer)).unwrap();
        }
        gate
    }

    fn start(&self, peer: &Self, suite: Suite) -> (Initiator, Vec<u8>) {
        let keys = self.keys_with(peer.id());
        Initiator::start(&self.local, peer.id(), keys, suite, &SystemPrimitives).unwrap()
    }

    fn answer(&self, peer: &Self, first: &[u8]) -> (Responder, Vec<u8>) {
        let mut gate = self.gate(&[peer.id()]);
        Responder::start(&self.local, gate.admit(first).unwrap(), &SystemPrimitives).unwrap()
    }
}

fn connect(a: &Device, b: &Device, suite: Suite) -> (Established, Established) {
    let (initiator, first) = a.start(b, suite);
    let (responder, second) = b.answer(a, &first);
    let (complete, last) = initiator.handle_second(&second).unwrap();
    assert_eq!((first.len(), second.len(), last.len()), (FIRST_LEN, SECOND_LEN, LAST_LEN));
    (complete.establish().unwrap(), responder.handle_last(&last).unwrap())
}

fn flipped(message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] ^= 1;
    message
}

#[test]
fn both_ends_know_each_other_and_agree_on_the_session() {
    for suite in Suite::ALL {
        let (mut a, b) = (Device::new(1), Device::new(2));
        a.local.has_aes = false;
        let (at_a, at_b) = connect(&a, &b, suite);
        assert_eq!((at_a.peer, at_b.peer), (b.id(), a.id()));
        assert_eq!((at_a.peer_has_aes, at_b.peer_has_aes), (true, false));
        assert_eq!((at_a.suite, at_b.suite), (suite, suite));
        assert_eq!((at_a.version, at_b.version), (1, 1));
        assert_eq!(at_a.handshake_hash, at_b.handshake_hash);
        assert_ne!(at_a.handshake_hash, connect(&a, &b, suite).0.handshake_hash);
    }
}

#[test]
fn a_stranger_who_knows_the_device_id_gets_nothing() {
    let (stranger, b, friend) = (Device::new(1), Device::new(2), Device::new(3));
    let (_, first) = stranger.start(&b, Suite::AesGcm);
    assert_eq!(b.gate(&[friend.id()]).admit(&first).err(), Some(Silence::Unknown));
}

#[test]
fn a_first_message_is_answered_once_and_never_by_its_maker() {
    let (a, b) = (Device::new(1), Device::new(2));
    let (_, first) = a.start(&b, Suite::AesGcm);
    assert_eq!(a.gate(&[b.id()]).admit(&first).err(), Some(Silence::Unknown));
    let mut gate = b.gate(&[a.id()]);
    assert!(gate.admit(&first).is_ok());
    assert_eq!(gate.admit(&first).err(), Some(Silence::Replay));
}

#[test]
fn a_first_message_with_a_valid_tag_and_a_wrong_inside_is_refused() {
    let (a, b) = (Device::new(1), Device::new(2));
    let (_, first) = a.start(&b, Suite::AesGcm);
    for at in [TAG_LEN, TAG_LEN + 40, FIRST_LEN - 1] {
        let mut wrong = flipped(&first, at);
        let tag = a.keys_with(b.id()).tag(&a.id(), &b.id(), Suite::AesGcm, &wrong[TAG_LEN..]);
        wrong[..TAG_LEN].copy_from_slice(&tag);
        let mut gate = b.gate(&[a.id()]);
        let admission = gate.admit(&wrong).unwrap();
        let refused = Responder::start(&b.local, admission, &SystemPrimitives);
        assert!(matches!(refused, Err(HandshakeError::Forged(_))), "byte {at}");
    }
}

#[test]
fn a_first_message_of_another_length_is_refused() {
    let (a, b) = (Device::new(1), Device::new(2));
    for len in [0, 31, 32, 100, FIRST_LEN - TAG_LEN - 1, FIRST_LEN] {
        let noise = vec![9; len];
        let tag = a.keys_with(b.id()).tag(&a.id(), &b.id(), Suite::AesGcm, &noise);
        let message = [tag.as_slice(), &noise].concat();
        let mut gate = b.gate(&[a.id()]);
        let admission = gate.admit(&message).unwrap();
        let refused = Responder::start(&b.local, admission, &SystemPrimitives);
        assert!(matches!(refused, Err(HandshakeError::Forged(_))), "{len} bytes");
    }
}

#[test]
fn one_flipped_bit_in_a_later_message_is_refused() {
    let (a, b) = (Device::new(1), Device::new(2));
    for at in (0..SECOND_LEN).step_by(97).chain([SECOND_LEN - 1]) {
        let (initiator, first) = a.start(&b, Suite::ChaChaPoly);
        let (_, second) = b.answer(&a, &first);
        let refused = initiator.handle_second(&flipped(&second, at));
        assert!(matches!(refused, Err(HandshakeError::Forged(_))), "byte {at} of the second");
    }
    for at in 0..LAST_LEN {
        let (initiator, first) = a.start(&b, Suite::ChaChaPoly);
        let (responder, second) = b.answer(&a, &first);
        let (_, last) = initiator.handle_second(&second).unwrap();
        let refused = responder.handle_last(&flipped(&last, at));
        assert!(matches!(refused, Err(HandshakeError::Forged(_))), "byte {at} of the last");
    }
}

#[test]
fn only_the_device_that_was_dialed_can_answer() {
    let (a, b, other) = (Device::new(1), Device::new(2), Device::new(3));
    let (initiator, _) = a.start(&b, Suite::AesGcm);
    let (_, to_other) = a.start(&other, Suite::AesGcm);
    let (_, second) = other.answer(&a, &to_other);
    assert!(matches!(initiator.handle_second(&second), Err(HandshakeError::Forged(_))));
}

#[test]
fn a_tag_of_one_device_does_not_let_another_in() {
    // Somebody who stole the pair's keys of `a` but not its private key dials with a key of their own.
    let (a, b, thief) = (Device::new(1), Device::new(2), Device::new(3));
    let mut posing = Device::new(3);
    posing.local.device = a.id();
    let (initiator, first) =
        Initiator::start(&posing.local, b.id(), a.keys_with(b.id()), Suite::AesGcm, &SystemPrimitives).unwrap();
    let (responder, second) = b.answer(&a, &first);
    let (_, last) = initiator.handle_second(&second).unwrap();
    match responder.handle_last(&last) {
        Err(HandshakeError::Impostor { claimed, found }) => assert_eq!((claimed, found), (a.id(), thief.id())),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn ends_that_disagree_on_who_they_are_do_not_meet() {
    // The tag is made for `b`, the prologue says another.
    let (a, b, other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut posing = Device::new(1);
    posing.local.device = other.id();
    let (_, mut first) =
        Initiator::start(&posing.local, b.id(), a.keys_with(b.id()), Suite::AesGcm, &SystemPrimitives).unwrap();
    let tag = a.keys_with(b.id()).tag(&a.id(), &b.id(), Suite::AesGcm, &first[TAG_LEN..]);
    first[..TAG_LEN].copy_from_slice(&tag);
    let mut gate = b.gate(&[a.id()]);
    let admission = gate.admit(&first).unwrap();
    assert!(matches!(Responder::start(&b.local, admission, &SystemPrimitives), Err(HandshakeError::Forged(_))));
}

#[test]
fn ends_without_a_common_version_both_say_so() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.local.versions = Versions { min: 1, max: 2 };
    b.local.versions = Versions { min: 3, max: 4 };
    let (initiator, first) = a.start(&b, Suite::AesGcm);
    let (responder, second) = b.answer(&a, &first);
    let (complete, last) = initiator.handle_second(&second).unwrap();
    let at_a = complete.establish().err().unwrap();
    assert_eq!(at_a.to_string(), "the peer speaks protocol version 3 to 4, this device speaks 1 to 2");
    let at_b = responder.handle_last(&last).err().unwrap();
    assert_eq!(at_b.to_string(), "the peer speaks protocol version 1 to 2, this device speaks 3 to 4");
}

#[test]
fn ends_take_the_highest_version_that_both_speak() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.local.versions = Versions { min: 1, max: 3 };
    b.local.versions = Versions { min: 2, max: 9 };
    let (at_a, at_b) = connect(&a, &b, Suite::AesGcm);
    assert_eq!((at_a.version, at_b.version), (3, 3));
}

/// Real primitives, but for an ML-KEM whose two ends come to different secrets.
struct BrokenKem;

impl Primitives for BrokenKem {
    fn resolver(&self) -> BoxedCryptoResolver {
        SystemPrimitives.resolver()
    }

    fn kem_generate(&self) -> Result<(Box<dyn Decapsulate>, [u8; KEM_KEY_LEN]), KemError> {
        SystemPrimitives.kem_generate()
    }

    fn kem_encapsulate(
        &self,
        key: &[u8; KEM_KEY_LEN],
    ) -> Result<([u8; KEM_CIPHERTEXT_LEN], Zeroizing<[u8; 32]>), KemError> {
        let (ciphertext, mut secret) = SystemPrimitives.kem_encapsulate(key)?;
        secret[0] ^= 1;
        Ok((ciphertext, secret))
    }
}

#[test]
fn the_session_depends_on_the_secret_of_ml_kem() {
    let (a, b) = (Device::new(1), Device::new(2));
    let (initiator, first) = a.start(&b, Suite::AesGcm);
    let mut gate = b.gate(&[a.id()]);
    let (responder, second) = Responder::start(&b.local, gate.admit(&first).unwrap(), &BrokenKem).unwrap();
    let (_, last) = initiator.handle_second(&second).unwrap();
    assert!(matches!(responder.handle_last(&last), Err(HandshakeError::Forged(_))));
}

#[test]
fn a_malformed_ml_kem_key_is_refused() {
    struct AllOnes;
    impl Primitives for AllOnes {
        fn resolver(&self) -> BoxedCryptoResolver {
            SystemPrimitives.resolver()
        }
        fn kem_generate(&self) -> Result<(Box<dyn Decapsulate>, [u8; KEM_KEY_LEN]), KemError> {
            Ok((SystemPrimitives.kem_generate()?.0, [0xff; KEM_KEY_LEN]))
        }
        fn kem_encapsulate(
            &self,
            _: &[u8; KEM_KEY_LEN],
        ) -> Result<([u8; KEM_CIPHERTEXT_LEN], Zeroizing<[u8; 32]>), KemError> {
            Err(KemError)
        }
    }
    let (a, b) = (Device::new(1), Device::new(2));
    let keys = a.keys_with(b.id());
    let (_, first) = Initiator::start(&a.local, b.id(), keys, Suite::AesGcm, &AllOnes).unwrap();
    let mut gate = b.gate(&[a.id()]);
    let admission = gate.admit(&first).unwrap();
    assert!(matches!(Responder::start(&b.local, admission, &SystemPrimitives), Err(HandshakeError::Kem(_))));
}

fn transports() -> (StatelessTransportState, StatelessTransportState) {
    let (a, b) = connect(&Device::new(1), &Device::new(2), Suite::AesGcm);
    (a.transport, b.transport)
}

/// Returns the messages of a run of records, without their length fields.
fn messages_of(mut records: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((header, rest)) = records.split_first_chunk::<2>() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*header)));
        messages.push(message.to_vec());
        records = rest;
    }
    messages
}

#[test]
fn what_is_sealed_opens_at_the_other_end_across_changes_of_key() {
    let (a, b) = transports();
    let ((mut from_a, mut to_a), (mut from_b, mut to_b)) = (record::split(a), record::split(b));
    let mut out = vec![0; NOISE_PAYLOAD_MAX];
    let mut sealed = [0; 64];
    for n in 0..3 * REKEY_RECORDS {
        let text = n.to_le_bytes();
        for (sealer, opener) in [(&mut from_a, &mut to_b), (&mut from_b, &mut to_a)] {
            let len = sealer.seal_into(&text, &mut sealed).unwrap();
            let len = opener.open(&sealed[2..len], &mut out).unwrap();
            assert_eq!(out[..len], text);
        }
    }
    assert_eq!((from_a.records(), to_b.records()), (3 * REKEY_RECORDS, 3 * REKEY_RECORDS));
}

#[test]
fn a_long_text_is_cut_into_full_records() {
    let (a, b) = transports();
    let (mut sealer, mut opener) = (record::split(a).0, record::split(b).1);
    let text: Vec<u8> = (0..=2 * NOISE_PAYLOAD_MAX).map(|n| n as u8).collect();
    let mut sealed = vec![0; sealed_len(text.len())];
    assert_eq!(sealer.seal_into(&text, &mut sealed).unwrap(), sealed.len());
    let messages = messages_of(&sealed);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [65_535, 65_535, 17]);
    let mut opened = Vec::new();
    let mut out = vec![0; NOISE_PAYLOAD_MAX];
    for message in messages {
        let len = opener.open(&message, &mut out).unwrap();
        opened.extend_from_slice(&out[..len]);
    }
    assert!(opened == text);
}

#[test]
fn a_record_that_is_not_the_next_ends_the_session() {
    type Tamper = fn(&mut Vec<Vec<u8>>);
    let tampers: [(&str, Tamper); 6] = [
        ("changed", |m| m[0][3] ^= 1),
        ("repeated", |m| m[1] = m[0].clone()),
        ("swapped", |m| m.swap(0, 1)),
        ("lost", |m| drop(m.remove(0))),
        ("cut short", |m| m[0].truncate(15)),
        ("empty", |m| m[0].clear()),
    ];
    for (name, tamper) in tampers {
        let (a, b) = transports();
        let (mut sealer, mut opener) = (record::split(a).0, record::split(b).1);
        let mut sealed = vec![0; 1024];
        let mut messages = Vec::new();
        for text in [b"one", b"two", b"tri"] {
            let len = sealer.seal_into(text, &mut sealed).unwrap();
            messages.extend(messages_of(&sealed[..len]));
        }
        let honest = messages.clone();
        tamper(&mut messages);
        let mut out = vec![0; NOISE_PAYLOAD_MAX];
        let error = messages.iter().find_map(|message| opener.open(message, &mut out).err());
        assert!(matches!(error, Some(RecordError::Forged { .. })), "{name}");
        let nonce = usize::try_from(opener.records()).unwrap();
        assert!(matches!(opener.open(&honest[nonce], &mut out), Err(RecordError::Broken)), "{name}");
    }
}

#[test]
fn a_record_of_our_own_does_not_open_at_our_end() {
    let (a, _) = transports();
    let (mut sealer, mut opener) = record::split(a);
    let mut sealed = [0; 64];
    let len = sealer.seal_into(b"hello", &mut sealed).unwrap();
    assert!(opener.open(&sealed[2..len], &mut vec![0; NOISE_PAYLOAD_MAX]).is_err());
}

#[test]
fn halves_work_on_threads_of_their_own() {
    fn is_send<T: Send + 'static>(_: &T) {}
    let (sealer, opener) = record::split(transports().0);
    is_send(&sealer);
    is_send(&opener);
    is_send(&Arc::new(SystemPrimitives));
}
