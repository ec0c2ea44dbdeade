//! The renewal of a session's keys between its two threads; what is said is `engine::session::renewal`'s.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::session::handshake::{HandshakeError, Initiator, Responder};
use crate::engine::session::record::Transport;
use crate::engine::session::renewal::{Handshakes, KEYS_LAST, Renewal, RenewalError, ToSend};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::net::connection::Link;
use crate::net::endpoint::{Endpoint, Unanswered};

/// Tells the time since any moment.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A clock that is never set.
pub fn monotonic() -> Clock {
    let begun = Instant::now();
    Arc::new(move || begun.elapsed())
}

/// What the reading and the writing thread of a session share.
pub(crate) struct Renewing {
    handshakes: WithPeer,
    clock: Clock,
    renewal: Mutex<Renewal>,
}

/// Handshakes with one peer.
struct WithPeer {
    endpoint: Arc<Endpoint>,
    peer: DeviceId,
    suite: Suite,
}

impl Handshakes for WithPeer {
    fn begin(&self) -> Result<(Initiator, Vec<u8>), RenewalError> {
        let begun = self.endpoint.initiate(self.peer, self.suite).ok_or(RenewalError::Refused)?;
        Ok(begun?)
    }

    fn answer(&self, first: &[u8]) -> Result<(Responder, Vec<u8>), RenewalError> {
        let (responder, second) = self.endpoint.respond_inside(first).map_err(|unanswered| match unanswered {
            Unanswered::Silence(_) => RenewalError::Refused,
            Unanswered::Handshake(error) => RenewalError::Handshake(error),
        })?;
        match responder.peer() {
            peer if peer == self.peer => Ok((responder, second)),
            found => Err(HandshakeError::Impostor { claimed: self.peer, found }.into()),
        }
    }
}

impl Renewing {
    pub(crate) fn new(endpoint: Arc<Endpoint>, link: &Link, clock: Clock) -> Self {
        let renewal = Renewal::new(link.outgoing, clock());
        let handshakes = WithPeer { endpoint, peer: link.peer, suite: link.suite };
        Self { handshakes, clock, renewal: Mutex::new(renewal) }
    }

    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Refuses keys that were agreed on too long ago.
    pub(crate) fn check_age(&self, since: Duration) -> Result<(), RenewalError> {
        if self.now().saturating_sub(since) >= KEYS_LAST { Err(RenewalError::TooOld) } else { Ok(()) }
    }

    pub(crate) fn next(&self) -> Result<Option<ToSend>, RenewalError> {
        self.renewal().next(self.now(), &self.handshakes)
    }

    pub(crate) fn hear(&self, kind: u8, body: &[u8]) -> Result<Option<Transport>, RenewalError> {
        self.renewal().hear(self.now(), kind, body, &self.handshakes)
    }

    /// Each step leaves it whole, or the session is over.
    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::engine::session::renewal::{KIND_MIN, RENEW_AFTER};
    use crate::net::connection::{Connection, ConnectionError, FrameReader, FrameWriter};
    use crate::net::frame::Frame;
    use crate::net::loopback_tests::connected_with;

    /// A clock that stands still until it is moved.
    #[derive(Clone, Default)]
    struct Fake(Arc<AtomicU64>);

    impl Fake {
        fn clock(&self) -> Clock {
            let seconds = self.0.clone();
            Arc::new(move || Duration::from_secs(seconds.load(Ordering::SeqCst)))
        }

        fn pass(&self, time: Duration) {
            self.0.fetch_add(time.as_secs(), Ordering::SeqCst);
        }
    }

    /// One end of a session, by one thread.
    struct End(FrameReader, FrameWriter);

    impl End {
        fn new((connection, endpoint): (Connection, Arc<Endpoint>), fake: &Fake) -> Self {
            let (reader, writer) = connection.split_renewing(endpoint, fake.clock());
            Self(reader, writer)
        }

        fn say(&mut self, body: &[u8]) {
            self.1.send(1, b"", body).unwrap();
            self.1.flush().unwrap();
        }

        fn hear(&mut self) -> Frame {
            self.0.read().unwrap()
        }
    }

    /// Plays the words of one renewal, and nothing else.
    fn renew(dialer: &mut End, listener: &mut End) {
        dialer.1.flush().unwrap();
        assert_eq!(listener.hear().kind, 0xf0);
        listener.1.flush().unwrap();
        assert_eq!(dialer.hear().kind, 0xf1);
        dialer.1.flush().unwrap();
        assert_eq!(listener.hear().kind, 0xf2);
        listener.1.flush().unwrap();
        assert_eq!(dialer.hear().kind, 0xf3);
    }

    async fn ends(fake: &Fake) -> (End, End) {
        let (a, b) = connected_with(Suite::AesGcm).await;
        (End::new(a, fake), End::new(b, fake))
    }

    #[tokio::test]
    async fn keys_are_renewed_inside_a_session_and_what_is_said_goes_on() {
        let fake = Fake::default();
        let (mut a, mut b) = ends(&fake).await;
        for round in 0..3u8 {
            a.say(&[round; 100_000]);
            assert_eq!(b.hear().body, [round; 100_000]);
            let before = (a.1.records(), b.0.records());
            assert!(before.0 > 0 && before.0 == before.1);
            fake.pass(RENEW_AFTER - Duration::from_secs(1));
            a.1.flush().unwrap();
            assert_eq!(a.1.records(), before.0, "not yet");
            fake.pass(Duration::from_secs(1));
            renew(&mut a, &mut b);
            // Both directions count their records anew: the keys are others.
            assert_eq!([a.1.records(), b.0.records(), b.1.records(), a.0.records()], [0; 4]);
            b.say(b"back");
            assert_eq!(a.hear().body, b"back");
        }
    }

    #[tokio::test]
    async fn what_is_being_said_meanwhile_arrives_in_order() {
        let fake = Fake::default();
        let (mut a, mut b) = ends(&fake).await;
        fake.pass(RENEW_AFTER);
        // Before, between and after each of the words, both ways.
        a.say(b"1");
        assert_eq!((b.hear().kind, b.hear().body), (0xf0, b"1".to_vec()));
        b.say(b"2");
        assert_eq!((a.hear().kind, a.hear().body), (0xf1, b"2".to_vec()));
        a.say(b"3");
        a.say(b"4");
        assert_eq!(b.hear().kind, 0xf2);
        assert_eq!((b.hear().body, b.hear().body), (b"3".to_vec(), b"4".to_vec()));
        b.say(b"5");
        assert_eq!((a.hear().kind, a.hear().body), (0xf3, b"5".to_vec()));
        // A body that is sent piece by piece is not broken into.
        fake.pass(RENEW_AFTER);
        a.1.begin_frame(1, b"", 10).unwrap();
        a.1.flush().unwrap();
        assert_eq!(b.hear().kind, 0xf0);
        b.1.flush().unwrap();
        assert_eq!(a.hear().kind, 0xf1);
        a.1.body_buffer().unwrap().copy_from_slice(b"0123456789");
        a.1.advance_body(10);
        a.1.flush().unwrap();
        assert_eq!((b.hear().body, b.hear().kind), (b"0123456789".to_vec(), 0xf2));
    }

    #[tokio::test]
    async fn keys_that_are_not_renewed_are_refused_at_both_ends() {
        let fake = Fake::default();
        let (mut a, mut b) = ends(&fake).await;
        a.say(b"early");
        assert_eq!(b.hear().body, b"early");
        fake.pass(KEYS_LAST - Duration::from_secs(1));
        b.say(b"still");
        assert_eq!(a.hear().body, b"still");
        b.1.send(1, b"", b"too late").unwrap();
        b.1.flush().unwrap();
        fake.pass(Duration::from_secs(1));
        let too_old =
            |result: Result<(), ConnectionError>| matches!(result, Err(ConnectionError::Renewal(RenewalError::TooOld)));
        assert!(too_old(a.0.read().map(drop)), "what was sealed with old keys is not opened");
        assert!(too_old(a.1.flush()) && too_old(b.1.send(1, b"", b"x")));
        assert!(matches!(b.1.flush(), Err(ConnectionError::Failed)));
    }

    #[tokio::test]
    async fn words_out_of_order_too_early_or_of_the_wrong_end_end_the_session() {
        // The listener asks; the dialer asks at once; what is no handshake is said; the last word is said first.
        for (from_listener, kind, age) in [
            (true, 0xf0, RENEW_AFTER),
            (false, 0xf0, Duration::ZERO),
            (false, 0xf0, RENEW_AFTER),
            (false, 0xf3, RENEW_AFTER),
        ] {
            let fake = Fake::default();
            let ((a, a_endpoint), (b, b_endpoint)) = connected_with(Suite::AesGcm).await;
            let (speaker, hearer) = if from_listener { (b, (a, a_endpoint)) } else { (a, (b, b_endpoint)) };
            let (_reader, mut writer) = speaker.split();
            let mut hearer = End::new(hearer, &fake);
            fake.pass(age);
            writer.send(kind, b"", &[7; 1248]).unwrap();
            writer.flush().unwrap();
            assert!(matches!(hearer.0.read(), Err(ConnectionError::Renewal(_))), "{from_listener} {kind:x} {age:?}");
        }
    }

    #[tokio::test]
    async fn a_device_that_is_trusted_no_longer_gets_no_new_keys() {
        let fake = Fake::default();
        let (a, b) = connected_with(Suite::AesGcm).await;
        let (listener, dialer) = (b.1.clone(), a.0.link().local_addr);
        let id = b.0.link().peer;
        let (mut a, mut b) = (End::new(a, &fake), End::new(b, &fake));
        fake.pass(RENEW_AFTER);
        listener.distrust(&id);
        a.1.flush().unwrap();
        let refused = b.0.read();
        assert!(matches!(refused, Err(ConnectionError::Renewal(RenewalError::Refused))), "{dialer}");
    }

    #[tokio::test]
    async fn who_does_not_know_of_renewals_is_let_go_when_its_keys_are_old() {
        let fake = Fake::default();
        let (a, (b, _)) = connected_with(Suite::AesGcm).await;
        let mut a = End::new(a, &fake);
        let (mut reader, mut writer) = b.split();
        fake.pass(RENEW_AFTER);
        a.say(b"x");
        assert!(reader.read().unwrap().kind >= KIND_MIN);
        assert_eq!(reader.read().unwrap().body, b"x");
        writer.send(1, b"", b"y").unwrap();
        writer.flush().unwrap();
        assert_eq!(a.hear().body, b"y");
        fake.pass(KEYS_LAST - RENEW_AFTER);
        assert!(matches!(a.1.flush(), Err(ConnectionError::Renewal(RenewalError::TooOld))));
    }
}
