//! The gate: who may have an answer, decided by one short hash a device before any costly step.
//!
//! In Noise XK the responder answers before it learns who asks, so anybody who knows a device id would
//! get an answer. Here the first message comes with a tag that only the two devices of a pair can make:
//! a MAC of the message under a key that both derive from the Diffie-Hellman of their long-term keys. A
//! first message without a valid tag, or one that was seen before, gets nothing. No clock is asked: a
//! device whose clock is wrong by years is let in like any other, and one that is set back opens no
//! window for replays.
//!
//! The tag is bound to its direction, so that a message sent to a device cannot be played back to the
//! device that made it, and to the suite, which is therefore never written on the wire.
//!
//! Not here: what silence looks like from outside; that is up to the shell that owns the socket.
//! The shell keeps what [`Gate::admit`] let in across restarts ([`Gate::remember`]). Should that be
//! lost, an old first message can have one more answer; it proves nothing to whoever replays it beyond
//! the fact that a device is there, and cannot be continued without the initiator's ephemeral key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zeroize::Zeroizing;

use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::model::limits::{DEVICES_MAX, REPLAY_CACHE_MAX};

/// Length of the tag in front of the first message, in bytes.
pub const TAG_LEN: usize = 16;

/// The tag in front of a first message.
pub type Tag = [u8; TAG_LEN];

/// The keys that a pair of devices shares without ever having spoken, all derived from the
/// Diffie-Hellman of their long-term keys. Wiped on drop.
#[derive(Clone)]
pub struct PairKeys {
    gate: Zeroizing<[u8; 32]>,
    secret: Zeroizing<[u8; 32]>,
    beacon: Zeroizing<[u8; 32]>,
}

impl PairKeys {
    /// Derives the keys from the Diffie-Hellman result of the two long-term keys.
    ///
    /// The caller has refused a result of all zeros.
    pub fn derive(shared: &[u8; 32]) -> Self {
        Self {
            gate: Zeroizing::new(blake3::derive_key("kinfold 1 gate key", shared)),
            secret: Zeroizing::new(blake3::derive_key("kinfold 1 pair secret", shared)),
            beacon: Zeroizing::new(blake3::derive_key("kinfold 1 beacon key", shared)),
        }
    }

    /// Returns the secret that goes into the pre-shared key of the handshake.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Returns the key of the tags in beacons.
    pub(super) fn beacon(&self) -> &[u8; 32] {
        &self.beacon
    }

    /// Makes the tag with which `initiator` asks `responder` for an answer.
    pub fn tag(&self, initiator: &DeviceId, responder: &DeviceId, suite: Suite, message: &[u8]) -> Tag {
        self.direction(initiator, responder).tag(suite, &blake3::hash(message))
    }

    fn direction(&self, initiator: &DeviceId, responder: &DeviceId) -> TagKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.gate);
        hasher.update(initiator.as_bytes());
        hasher.update(responder.as_bytes());
        TagKey(Zeroizing::new(*hasher.finalize().as_bytes()))
    }
}

/// Makes the tags of one direction of one pair.
#[derive(Clone)]
struct TagKey(Zeroizing<[u8; 32]>);

impl TagKey {
    /// Hashes 33 bytes, that is one block: a responder does this twice for each device it trusts.
    fn tag(&self, suite: Suite, message: &blake3::Hash) -> Tag {
        let mut input = [0; 33];
        input[0] = suite.code();
        input[1..].copy_from_slice(message.as_bytes());
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&blake3::keyed_hash(&self.0, &input).as_bytes()[..TAG_LEN]);
        tag
    }
}

/// Why a first message gets no answer. For the local log only: whoever sent it learns nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Silence {
    /// No trusted device made the tag for us.
    #[error("the first message has no tag of a trusted device")]
    Unknown,
    /// The message was answered before.
    #[error("the first message was seen before")]
    Replay,
}

/// The leave to answer one first message. Only [`Gate::admit`] makes it.
pub struct Admission<'m> {
    pub(crate) peer: DeviceId,
    pub(crate) suite: Suite,
    pub(crate) pair: PairKeys,
    pub(crate) tag: Tag,
    pub(crate) noise: &'m [u8],
}

impl Admission<'_> {
    /// Returns the device whose tag it was; the rest of the handshake has to prove it.
    pub fn peer(&self) -> DeviceId {
        self.peer
    }
}

/// The trust list as the tunnel needs it, and the first messages that were answered.
pub struct Gate {
    own: DeviceId,
    trusted: BTreeMap<DeviceId, Trusted>,
    answered: ReplayCache,
}

struct Trusted {
    keys: PairKeys,
    incoming: TagKey,
}

/// The trust list is full.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the trust list already has {DEVICES_MAX} devices")]
pub struct TrustListFull;

impl Gate {
    /// Creates the gate of a device that trusts nobody.
    pub fn new(own: DeviceId) -> Self {
        Self { own, trusted: BTreeMap::new(), answered: ReplayCache::new(REPLAY_CACHE_MAX) }
    }

    /// Adds a device. A device is never its own peer: adding it changes nothing.
    ///
    /// # Errors
    /// There are [`DEVICES_MAX`] others already.
    pub fn trust(&mut self, device: DeviceId, keys: PairKeys) -> Result<(), TrustListFull> {
        if device == self.own {
            return Ok(());
        }
        if self.trusted.len() >= DEVICES_MAX && !self.trusted.contains_key(&device) {
            return Err(TrustListFull);
        }
        let incoming = keys.direction(&device, &self.own);
        self.trusted.insert(device, Trusted { keys, incoming });
        Ok(())
    }

    /// Removes a device. What it has sent stays remembered.
    pub fn distrust(&mut self, device: &DeviceId) {
        self.trusted.remove(device);
    }

    /// Returns whose gate it is.
    pub(super) fn own(&self) -> DeviceId {
        self.own
    }

    /// Returns the trusted devices, and the keys shared with each.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&DeviceId, &PairKeys)> {
        self.trusted.iter().map(|(device, trusted)| (device, &trusted.keys))
    }

    /// Returns the keys shared with a trusted device.
    pub fn keys_of(&self, device: &DeviceId) -> Option<PairKeys> {
        self.trusted.get(device).map(|trusted| trusted.keys.clone())
    }

    /// Decides whether a first message gets an answer; each gets one at most.
    ///
    /// The cost for a message that gets none depends on the number of trusted devices alone: the list is gone through to
    /// its end also where the tag is found, and what was answered is looked up for any tag. Else it would show in the time
    /// that a message which is played again was one once.
    pub fn admit<'m>(&mut self, message: &'m [u8]) -> Result<Admission<'m>, Silence> {
        let (tag, noise) = message.split_first_chunk::<TAG_LEN>().ok_or(Silence::Unknown)?;
        let was_answered = self.answered.tags.contains(tag);
        let (peer, suite) = self.find(tag, noise).ok_or(Silence::Unknown)?;
        if was_answered {
            return Err(Silence::Replay);
        }
        self.answered.insert(*tag);
        let pair = self.trusted.get(&peer).map(|trusted| trusted.keys.clone()).ok_or(Silence::Unknown)?;
        Ok(Admission { peer, suite, pair, tag: *tag, noise })
    }

    /// Remembers a first message that was answered in an earlier life, by its tag. The oldest first.
    pub fn remember(&mut self, tag: Tag) {
        self.answered.insert(tag);
    }

    fn find(&self, tag: &Tag, noise: &[u8]) -> Option<(DeviceId, Suite)> {
        let hash = blake3::hash(noise);
        let mut found = None;
        for (device, trusted) in &self.trusted {
            for suite in Suite::ALL {
                if is_equal(&trusted.incoming.tag(suite, &hash), tag) {
                    found = Some((*device, suite));
                }
            }
        }
        found
    }
}

/// Compares in constant time, as [`blake3::Hash`] does.
fn is_equal(a: &Tag, b: &Tag) -> bool {
    let padded = |tag: &Tag| {
        let mut bytes = [0; 32];
        bytes[..TAG_LEN].copy_from_slice(tag);
        blake3::Hash::from_bytes(bytes)
    };
    padded(a) == padded(b)
}

/// The tags of the first messages answered last, at most a bound of them.
///
/// Nothing is forgotten by its age; the oldest makes room for the newest. Only trusted devices get this far, so no stranger can push one out.
struct ReplayCache {
    bound: usize,
    tags: BTreeSet<Tag>,
    order: VecDeque<Tag>,
}

impl ReplayCache {
    fn new(bound: usize) -> Self {
        Self { bound, tags: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Remembers a tag. Returns whether it is new.
    fn insert(&mut self, tag: Tag) -> bool {
        if !self.tags.insert(tag) {
            return false;
        }
        self.order.push_back(tag);
        if self.order.len() > self.bound
            && let Some(oldest) = self.order.pop_front()
        {
            self.tags.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(n: u32) -> DeviceId {
        DeviceId::from_public_key(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    /// The keys of a pair: the same whichever of the two is named first, as with the real exchange.
    fn keys(a: u32, b: u32) -> PairKeys {
        let pair = [a.min(b).to_le_bytes(), a.max(b).to_le_bytes()].concat();
        PairKeys::derive(blake3::hash(&pair).as_bytes())
    }

    fn gate(own: u32, trusted: impl IntoIterator<Item = u32>) -> Gate {
        let mut gate = Gate::new(device(own));
        for peer in trusted {
            gate.trust(device(peer), keys(own, peer)).unwrap();
        }
        gate
    }

    fn first_message(from: u32, to: u32, suite: Suite, noise: &[u8]) -> Vec<u8> {
        let tag = keys(from, to).tag(&device(from), &device(to), suite, noise);
        [&tag, noise].concat()
    }

    fn check(gate: &mut Gate, message: &[u8]) -> Result<(DeviceId, Suite), Silence> {
        gate.admit(message).map(|admission| (admission.peer, admission.suite))
    }

    #[test]
    fn each_of_a_thousand_devices_is_known_by_its_tag() {
        let mut gate = gate(0, 1..=1000);
        for from in [1, 2, 500, 1000] {
            for suite in Suite::ALL {
                let message = first_message(from, 0, suite, b"hello");
                assert_eq!(check(&mut gate, &message), Ok((device(from), suite)));
            }
        }
        let stranger = first_message(1001, 0, Suite::AesGcm, b"hello");
        assert_eq!(check(&mut gate, &stranger), Err(Silence::Unknown));
    }

    #[test]
    fn a_message_is_answered_once() {
        let mut gate = gate(0, [1]);
        let message = first_message(1, 0, Suite::AesGcm, b"hello");
        assert!(check(&mut gate, &message).is_ok());
        assert_eq!(check(&mut gate, &message), Err(Silence::Replay));
        let other = first_message(1, 0, Suite::AesGcm, b"hello again");
        assert!(check(&mut gate, &other).is_ok());
    }

    #[test]
    fn a_message_played_back_to_its_maker_is_refused() {
        let message = first_message(1, 0, Suite::AesGcm, b"hello");
        assert_eq!(check(&mut gate(1, [0]), &message), Err(Silence::Unknown));
    }

    #[test]
    fn a_message_for_another_device_is_refused() {
        let message = first_message(1, 2, Suite::AesGcm, b"hello");
        assert_eq!(check(&mut gate(0, [1, 2]), &message), Err(Silence::Unknown));
    }

    #[test]
    fn a_message_that_an_earlier_life_answered_is_refused() {
        let message = first_message(1, 0, Suite::AesGcm, b"hello");
        let mut gate = gate(0, [1]);
        gate.remember(*message.first_chunk().unwrap());
        assert_eq!(check(&mut gate, &message), Err(Silence::Replay));
    }

    #[test]
    fn one_flipped_bit_is_refused() {
        let message = first_message(1, 0, Suite::AesGcm, b"hello");
        let mut gate = gate(0, [1]);
        for bit in 0..message.len() * 8 {
            let mut wrong = message.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&mut gate, &wrong), Err(Silence::Unknown), "bit {bit}");
        }
        assert!(check(&mut gate, &message).is_ok());
    }

    #[test]
    fn what_is_shorter_than_a_tag_is_refused() {
        for len in 0..=TAG_LEN {
            assert_eq!(check(&mut gate(0, [1]), &vec![0; len]), Err(Silence::Unknown));
        }
    }

    #[test]
    fn a_device_no_longer_trusted_is_refused() {
        let mut gate = gate(0, [1, 2]);
        gate.distrust(&device(1));
        let message = first_message(1, 0, Suite::AesGcm, b"hello");
        assert_eq!(check(&mut gate, &message), Err(Silence::Unknown));
        assert!(gate.keys_of(&device(1)).is_none());
        assert!(gate.keys_of(&device(2)).is_some());
    }

    #[test]
    fn a_device_never_trusts_itself() {
        let mut gate = gate(0, [0]);
        let message = first_message(0, 0, Suite::AesGcm, b"hello");
        assert_eq!(check(&mut gate, &message), Err(Silence::Unknown));
    }

    #[test]
    fn the_trust_list_has_a_bound() {
        let mut gate = gate(0, 1..=u32::try_from(DEVICES_MAX).unwrap());
        assert_eq!(gate.trust(device(5000), keys(0, 5000)), Err(TrustListFull));
        assert_eq!(gate.trust(device(1), keys(0, 1)), Ok(()));
    }

    #[test]
    fn the_replay_cache_forgets_the_oldest_beyond_its_bound() {
        let mut cache = ReplayCache::new(2);
        let tag = |n| [n; TAG_LEN];
        assert!(cache.insert(tag(1)));
        assert!(cache.insert(tag(2)));
        assert!(!cache.insert(tag(1)));
        assert!(cache.insert(tag(3)));
        assert!(!cache.insert(tag(2)));
        assert!(cache.insert(tag(1)));
        assert_eq!((cache.tags.len(), cache.order.len()), (2, 2));
    }
}
