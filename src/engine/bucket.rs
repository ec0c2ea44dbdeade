//! A rate kept on the average: what was spent beyond it is owed, and paid off by time; pure.
//!
//! Whoever spends asks first whether anything is owed, and waits until nothing is. What is spent may be more than
//! is there, for a frame cannot be sent by halves: then the next waits for longer. So over any time no more goes than
//! the rate allows, but for what may be saved up, and for one piece.

use std::num::NonZeroU64;
use std::time::Duration;

/// Time for which is saved up what was not spent: too short to be noticed, long enough for an inexact timer.
const SAVED_UP: Duration = Duration::from_millis(100);

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Bytes in a second.
    rate: NonZeroU64,
    /// When all that was spent is paid for.
    paid_at: Duration,
}

impl Bucket {
    /// Makes one for a rate in bytes a second; `now` is the time since any moment.
    pub fn new(now: Duration, rate: NonZeroU64) -> Self {
        Self { rate, paid_at: now }
    }

    /// Returns the rate, in bytes a second.
    pub fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Counts bytes as spent, whether they are there or not.
    pub fn spend(&mut self, now: Duration, bytes: u64) {
        let cost_ns = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(self.rate.get()));
        let cost = Duration::from_nanos(u64::try_from(cost_ns).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(now.saturating_sub(SAVED_UP)).saturating_add(cost);
    }

    /// Returns how long it is until nothing is owed; `None`: now.
    pub fn owed(&self, now: Duration) -> Option<Duration> {
        self.paid_at.checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn bucket(rate: u64) -> Bucket {
        Bucket::new(Duration::ZERO, NonZeroU64::new(rate).unwrap())
    }

    /// Plays one who sends pieces as fast as it may, and returns when the last may go.
    fn play(bucket: &mut Bucket, pieces: &[u64]) -> Duration {
        let mut now = Duration::ZERO;
        for bytes in pieces {
            now += bucket.owed(now).unwrap_or_default();
            assert_eq!(bucket.owed(now), None);
            bucket.spend(now, *bytes);
        }
        now + bucket.owed(now).unwrap_or_default()
    }

    #[test]
    fn the_rate_is_kept_whatever_the_pieces_are() {
        let second = Duration::from_secs(1);
        assert_eq!(play(&mut bucket(KIB), &[KIB; 10]), 10 * second);
        assert_eq!(play(&mut bucket(KIB), &[10 * KIB]), 10 * second);
        assert_eq!(play(&mut bucket(KIB), &[1, 5 * KIB, 3 * KIB, 2 * KIB - 1]).as_millis(), 10_000);
        assert_eq!(play(&mut bucket(3), &[1; 3000]).as_secs(), 1000);
    }

    #[test]
    fn what_was_not_spent_is_saved_up_for_a_moment_alone() {
        let mut bucket = bucket(1000);
        let day = Duration::from_secs(86_400);
        bucket.spend(day, 100);
        assert_eq!(bucket.owed(day), None, "a tenth of a second was saved up");
        bucket.spend(day, 100);
        assert_eq!(bucket.owed(day), Some(Duration::from_millis(100)));
    }

    #[test]
    fn a_debt_is_paid_off_by_time() {
        let mut bucket = bucket(100);
        bucket.spend(Duration::ZERO, 1000);
        assert_eq!(bucket.owed(Duration::ZERO), Some(Duration::from_secs(10)));
        assert_eq!(bucket.owed(Duration::from_secs(4)), Some(Duration::from_secs(6)));
        assert_eq!(bucket.owed(Duration::from_secs(10)), None);
    }

    #[test]
    fn no_number_is_too_large() {
        let mut bucket = bucket(1);
        bucket.spend(Duration::MAX, u64::MAX);
        bucket.spend(Duration::ZERO, u64::MAX);
        assert!(bucket.owed(Duration::ZERO).is_some());
    }
}
