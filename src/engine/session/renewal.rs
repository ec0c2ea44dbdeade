//! Fresh keys inside a living session: every [`RENEW_AFTER`] a whole handshake of its own, inside the tunnel, so that
//! keys found on a device open no more of a session than the minutes before. Keys older than [`KEYS_LAST`] are refused.
//!
//! The dialing end begins. What is said are the three messages of the handshake and a word that it is over, as frames of
//! kinds that no message has:
//!
//! | kind | name | from | after it |
//! |---|---|---|---|
//! | 0xf0 | first | dialer | |
//! | 0xf1 | second | listener | |
//! | 0xf2 | last | dialer | the dialer seals with the new keys, the listener opens with them |
//! | 0xf3 | done | listener | the listener seals with the new keys, the dialer opens with them |
//!
//! A frame after which keys change ends its record, and the next record is the first under the new keys. The old ones are
//! gone when the last is said and heard. Pure: the clock and the handshakes are arguments.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::engine::session::handshake::{Established, HandshakeError, Initiator, Responder};
use crate::engine::session::record::Transport;

/// Age of the keys at which new ones are made.
pub const RENEW_AFTER: Duration = Duration::from_secs(120);
/// Age of the keys from which on they are refused, and the session ends.
pub const KEYS_LAST: Duration = Duration::from_secs(180);
/// Age of the keys before which a peer may not ask for new ones: a handshake costs more than a question.
pub const RENEW_NOT_BEFORE: Duration = Duration::from_secs(60);

/// The first kind of these frames; those above it are of the kind, too.
pub const KIND_MIN: u8 = 0xf0;
const FIRST: u8 = 0xf0;
const SECOND: u8 = 0xf1;
const LAST: u8 = 0xf2;
const DONE: u8 = 0xf3;

/// Why keys were not renewed. The session is over.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// What was said does not come now, or not from this end.
    #[error("a word of the renewal came out of order")]
    OutOfOrder,
    /// The handshake failed.
    #[error("the new handshake failed")]
    Handshake(#[from] HandshakeError),
    /// The handshake was refused: the peer is not trusted any more, or repeats itself.
    #[error("no new handshake is made with the peer")]
    Refused,
    /// The keys are too old.
    #[error("the keys were not renewed in time")]
    TooOld,
}

/// What makes the handshakes with the peer of a session.
pub trait Handshakes {
    /// Begins one.
    fn begin(&self) -> Result<(Initiator, Vec<u8>), RenewalError>;

    /// Answers one, of nobody but the peer.
    fn answer(&self, first: &[u8]) -> Result<(Responder, Vec<u8>), RenewalError>;
}

/// A frame to be sent.
pub struct ToSend {
    /// Its kind.
    pub kind: u8,
    /// Its body.
    pub body: Vec<u8>,
    /// The keys that all is sealed with after it.
    pub then: Option<Transport>,
}

enum Step {
    Resting,
    /// The dialer has said its first message.
    Asked(Box<Initiator>),
    /// The listener has answered it.
    Answered(Box<Responder>),
    /// The dialer seals with new keys, and waits until it can open with them.
    Sealing(Transport),
}

/// The renewals of one session.
pub struct Renewal {
    is_dialer: bool,
    /// When the keys in force were agreed on.
    since: Duration,
    step: Step,
    to_send: Option<ToSend>,
}

impl Renewal {
    /// Begins with a session whose keys were just made.
    pub fn new(is_dialer: bool, now: Duration) -> Self {
        Self { is_dialer, since: now, step: Step::Resting, to_send: None }
    }

    /// Returns what is to be sent now, if anything is.
    pub fn next(&mut self, now: Duration, handshakes: &dyn Handshakes) -> Result<Option<ToSend>, RenewalError> {
        let is_due = now.saturating_sub(self.since) >= RENEW_AFTER;
        if self.is_dialer && is_due && matches!(self.step, Step::Resting) {
            let (initiator, body) = handshakes.begin()?;
            self.step = Step::Asked(Box::new(initiator));
            return Ok(Some(ToSend { kind: FIRST, body, then: None }));
        }
        Ok(self.to_send.take())
    }

    /// Takes a frame of the peer. Returns the keys that all after it is opened with, where they change.
    pub fn hear(
        &mut self,
        now: Duration,
        kind: u8,
        body: &[u8],
        handshakes: &dyn Handshakes,
    ) -> Result<Option<Transport>, RenewalError> {
        match (kind, std::mem::replace(&mut self.step, Step::Resting)) {
            (FIRST, Step::Resting)
                if !self.is_dialer && now.saturating_sub(self.since) >= RENEW_NOT_BEFORE && self.to_send.is_none() =>
            {
                let (responder, body) = handshakes.answer(body)?;
                self.step = Step::Answered(Box::new(responder));
                self.to_send = Some(ToSend { kind: SECOND, body, then: None });
                Ok(None)
            }
            (SECOND, Step::Asked(initiator)) => {
                let (complete, body) = initiator.handle_second(body)?;
                let keys = keys_of(complete.establish()?);
                self.step = Step::Sealing(keys.clone());
                self.to_send = Some(ToSend { kind: LAST, body, then: Some(keys) });
                Ok(None)
            }
            (LAST, Step::Answered(responder)) => {
                let keys = keys_of(responder.handle_last(body)?);
                self.to_send = Some(ToSend { kind: DONE, body: Vec::new(), then: Some(keys.clone()) });
                self.since = now;
                Ok(Some(keys))
            }
            (DONE, Step::Sealing(keys)) if self.to_send.is_none() => {
                self.since = now;
                Ok(Some(keys))
            }
            _ => Err(RenewalError::OutOfOrder),
        }
    }
}

fn keys_of(established: Established) -> Transport {
    Arc::new(RwLock::new(established.transport))
}
