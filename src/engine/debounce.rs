//! Turns bursts of events into settled sets of paths.

use std::collections::BTreeMap;
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
        Self { quiet, patience, touched: BTreeMap::new() }
    }

    /// Notes an event.
    pub fn handle_event(&mut self, now: Duration, path: RelPath, depth: Depth) {
        let touch = self.touched.entry(path).or_insert(Touch { first: now, last: now, depth });
        touch.last = now;
        touch.depth = touch.depth.max(depth);
    }

    /// Returns when the next path settles.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.touched.values().map(|touch| self.due(touch)).min()
    }

    /// Takes the paths that have settled.
    pub fn poll_settled(&mut self, now: Duration) -> BTreeMap<RelPath, Depth> {
        let due: Vec<_> = self.touched.iter().filter(|(_, t)| self.due(t) <= now).map(|(p, _)| p.clone()).collect();
        due.into_iter().filter_map(|path| self.touched.remove(&path).map(|touch| (path, touch.depth))).collect()
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
