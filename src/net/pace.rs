//! Rates that sessions keep to: shared by several of them where they bound what all send together, and changed
//! while sessions run.
//!
//! Where no rate is set a look at one number tells, and that is all that it costs.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::engine::bucket::Bucket;
use crate::net::renewal::{Clock, monotonic};

/// A rate in one direction, or none.
pub struct Meter {
    /// Bytes in a second; 0 is none. What is in force is in the bucket: this spares the look at it.
    rate: AtomicU64,
    bucket: Mutex<Option<Bucket>>,
    clock: Clock,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.rate).finish()
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(monotonic())
    }
}

impl Meter {
    /// Makes one without a rate.
    pub fn new(clock: Clock) -> Self {
        Self { rate: AtomicU64::new(0), bucket: Mutex::new(None), clock }
    }

    /// Sets the rate in bytes a second, or none. One that is changed owes nothing.
    pub fn set_rate(&self, rate: Option<NonZeroU64>) {
        let now = (self.clock)();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        if bucket.as_ref().map(Bucket::rate) != rate {
            *bucket = rate.map(|rate| Bucket::new(now, rate));
            self.rate.store(rate.map_or(0, NonZeroU64::get), Ordering::Relaxed);
        }
    }

    /// Returns whether there is a rate to keep to.
    pub fn is_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != 0
    }

    /// Counts bytes as gone.
    pub fn spend(&self, bytes: u64) {
        if self.is_limited() {
            let now = (self.clock)();
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket.iter_mut().for_each(|bucket| bucket.spend(now, bytes));
        }
    }

    /// Returns how long to wait before the next may go; `None`: not at all.
    pub fn owed(&self) -> Option<Duration> {
        if !self.is_limited() {
            return None;
        }
        let now = (self.clock)();
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.owed(now)
    }
}

/// All rates that one direction of a session keeps to.
#[derive(Clone, Debug, Default)]
pub struct Pace(Vec<Arc<Meter>>);

impl Pace {
    /// Keeps to all of these rates.
    pub fn new(meters: impl IntoIterator<Item = Arc<Meter>>) -> Self {
        Self(meters.into_iter().collect())
    }

    /// Returns whether there is any rate to keep to.
    pub fn is_limited(&self) -> bool {
        self.0.iter().any(|meter| meter.is_limited())
    }

    /// Counts bytes as gone.
    pub fn spend(&self, bytes: u64) {
        self.0.iter().for_each(|meter| meter.spend(bytes));
    }

    /// Returns how long to wait before the next may go; `None`: not at all.
    pub fn owed(&self) -> Option<Duration> {
        self.0.iter().filter_map(|meter| meter.owed()).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Instant;

    use crate::engine::session::record::sealed_len;
    use crate::engine::session::renewal::{KIND_MIN, RENEW_AFTER};
    use crate::engine::session::suite::Suite;
    use crate::model::limits::KEEP_ALIVE;
    use crate::net::connection::{FrameReader, FrameWriter};
    use crate::net::frame;
    use crate::net::loopback_tests::connected_with;

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        Some(NonZeroU64::new(bytes).unwrap())
    }

    fn clock(ms: &Arc<AtomicU64>) -> Clock {
        let ms = ms.clone();
        Arc::new(move || Duration::from_millis(ms.load(Ordering::SeqCst)))
    }

    #[test]
    fn the_slowest_of_all_rates_counts_and_each_counts_all_bytes() {
        let time = Arc::new(AtomicU64::new(0));
        let [network, device] = [(); 2].map(|()| Arc::new(Meter::new(clock(&time))));
        let pace = Pace::new([network.clone(), device.clone()]);
        pace.spend(1 << 40);
        assert!(!pace.is_limited() && pace.owed().is_none(), "nothing is owed where there is no rate");
        network.set_rate(rate(1000));
        device.set_rate(rate(500));
        pace.spend(1000);
        assert_eq!(pace.owed(), Some(Duration::from_secs(2)));
        time.store(1500, Ordering::SeqCst);
        assert_eq!((network.owed(), pace.owed()), (None, Some(Duration::from_millis(500))));
    }

    #[test]
    fn a_rate_that_is_changed_owes_nothing_and_one_that_is_set_again_still_does() {
        let meter = Meter::new(clock(&Arc::default()));
        meter.set_rate(rate(10));
        meter.spend(1000);
        meter.set_rate(rate(10));
        assert_eq!(meter.owed(), Some(Duration::from_secs(100)));
        meter.set_rate(rate(11));
        assert_eq!(meter.owed(), None);
        meter.spend(1000);
        meter.set_rate(None);
        assert!(meter.owed().is_none() && !meter.is_limited());
    }

    /// Both ends of a connection whose keys have an age that the test says.
    async fn ends(age: Duration) -> (FrameWriter, FrameReader) {
        let ((a, a_endpoint), (b, _)) = connected_with(Suite::AesGcm).await;
        let seconds = Arc::new(AtomicU64::new(0));
        let (_, writer) = a.split_renewing(a_endpoint, clock(&seconds));
        let (reader, _) = b.split();
        seconds.store(u64::try_from(age.as_millis()).unwrap(), Ordering::SeqCst);
        (writer, reader)
    }

    /// A pace at which nothing may go for hours.
    fn exhausted() -> Pace {
        let meter = Arc::new(Meter::new(clock(&Arc::default())));
        meter.set_rate(rate(1 << 14));
        meter.spend(1 << 30);
        Pace::new([meter])
    }

    #[tokio::test]
    async fn all_that_goes_over_the_wire_is_counted_to_the_byte() {
        let (mut writer, mut reader) = ends(Duration::ZERO).await;
        // A nanosecond for each byte, by a clock that stands still.
        let [all, of_frame] = [(); 2].map(|()| Arc::new(Meter::new(clock(&Arc::default()))));
        all.set_rate(rate(1_000_000_000));
        of_frame.set_rate(rate(1_000_000_000));
        writer.set_pace(Pace::new([all.clone()]));
        writer.send(1, b"head", &[7; 200_000]).unwrap();
        writer.flush().unwrap();
        let plain = frame::FRAME_PREFIX_LEN + 4 + 200_000;
        let first = sealed_len(plain) as u128;
        assert_eq!(all.owed().unwrap().as_nanos(), first);
        writer.set_pace_of_frame(Some(of_frame.clone()));
        writer.send(2, b"", b"").unwrap();
        writer.flush().unwrap();
        let second = sealed_len(frame::FRAME_PREFIX_LEN) as u128;
        assert_eq!(all.owed().unwrap().as_nanos(), first + second);
        assert_eq!(of_frame.owed().unwrap().as_nanos(), second);
        // What goes together with something else is counted where it belongs.
        writer.send(3, b"", &[7; 1000]).unwrap();
        writer.set_pace_of_frame(None);
        writer.send(4, b"", &[7; 2000]).unwrap();
        writer.flush().unwrap();
        assert_eq!(of_frame.owed().unwrap().as_nanos(), second + frame::FRAME_PREFIX_LEN as u128 + 1000);
        assert_eq!(reader.read().unwrap().body, [7; 200_000]);
        assert_eq!(reader.read().unwrap().kind, 2);
    }

    #[tokio::test]
    async fn what_is_short_waits_for_no_rate() {
        let (mut writer, mut reader) = ends(Duration::ZERO).await;
        writer.set_pace(exhausted());
        let begun = Instant::now();
        writer.send(1, b"ping", b"").unwrap();
        writer.flush().unwrap();
        assert_eq!(reader.read().unwrap().header, b"ping");
        assert!(begun.elapsed() < KEEP_ALIVE);
    }

    #[tokio::test]
    async fn the_rest_of_a_frame_does_not_keep_the_keys_from_being_renewed() {
        let (mut writer, mut reader) = ends(RENEW_AFTER).await;
        writer.set_pace(exhausted());
        let begun = Instant::now();
        let sending = std::thread::spawn(move || {
            writer.send(1, b"", &[3; 300_000]).unwrap();
            writer.flush().unwrap();
        });
        assert!(reader.read().unwrap().kind >= KIND_MIN, "the dialer asks for new keys first");
        assert_eq!(reader.read().unwrap().body, [3; 300_000]);
        sending.join().unwrap();
        assert!(begun.elapsed() < KEEP_ALIVE);
    }
}
