//! Turns bursts of events into settled sets of paths.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::effect::Depth;
use crate::model::path::RelPath;

/// Collects paths that were touched until they rest.
///
/// A path settles `quiet` after its last event, and at the latest `patience` after its first: a log
/// file that never rests must not keep itself from syncing for ever. Times are durations since some
/// beginning that the caller chooses.
#[derive(Debug)]
pub struct Debounce {
    quiet: Duration,
    patience: Duration,
    touched: BTreeMap<RelPath, Touch>,
    /// The same, by when they settle.
    order: BTreeSet<(Duration, RelPath)>,
}

#[derive(Clone, Copy, Debug)]
struct Touch {
    first: Duration,
    last: Duration,
    depth: Depth,
}

impl Debounce {
    /// Creates an idle debouncer.
    pub fn new(quiet: Duration, patience: Duration) -> Self {
        Self { quiet, patience, touched: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Notes an event.
    pub fn handle_event(&mut self, now: Duration, path: RelPath, depth: Depth) {
        let mut touch = Touch { first: now, last: now, depth };
        if let Some(known) = self.touched.get(&path).copied() {
            self.order.remove(&(self.due(&known), path.clone()));
            touch = Touch { first: known.first, last: now, depth: depth.max(known.depth) };
        }
        self.order.insert((self.due(&touch), path.clone()));
        self.touched.insert(path, touch);
    }

    /// Returns when the next path settles.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes the paths that have settled.
    pub fn poll_settled(&mut self, now: Duration) -> BTreeMap<RelPath, Depth> {
        let mut settled = BTreeMap::new();
        while self.order.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, path)) = self.order.pop_first()
                && let Some(touch) = self.touched.remove(&path)
            {
                settled.insert(path, touch.depth);
            }
        }
        settled
    }

    /// Returns the number of paths that have not settled.
    pub fn len(&self) -> usize {
        self.touched.len()
    }

    /// Returns whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    fn due(&self, touch: &Touch) -> Duration {
        (touch.last + self.quiet).min(touch.first + self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_burst_settles_once() {
        let mut debounce = Debounce::new(ms(10), ms(1000));
        for at in 0..5 {
            debounce.handle_event(ms(at), path("f"), Depth::Entry);
        }
        assert_eq!(debounce.poll_timeout(), Some(ms(14)));
        assert!(debounce.poll_settled(ms(13)).is_empty());
        assert_eq!(debounce.poll_settled(ms(14)).len(), 1);
        assert!(debounce.is_empty());
    }

    #[test]
    fn one_that_never_rests_runs_out_of_patience() {
        let mut debounce = Debounce::new(ms(10), ms(100));
        let mut settled = 0;
        for at in 0..1000 {
            debounce.handle_event(ms(at), path("log"), Depth::Entry);
            settled += debounce.poll_settled(ms(at)).len();
        }
        assert_eq!(settled, 9);
    }

    #[test]
    fn a_tree_is_not_forgotten_for_its_entry() {
        let mut debounce = Debounce::new(ms(10), ms(100));
        debounce.handle_event(ms(0), path("d"), Depth::Tree);
        debounce.handle_event(ms(1), path("d"), Depth::Entry);
        assert_eq!(debounce.poll_settled(ms(11)), BTreeMap::from([(path("d"), Depth::Tree)]));
    }
}
