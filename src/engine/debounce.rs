//! Turns bursts of events into settled sets of paths.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::effect::Depth;
use crate::model::path::RelPath;

/// Time that a file rests which somebody has written to and not closed. Closing says that it is done; where it
/// stays open, as logs and databases do, only silence does.
const WRITE_QUIET: Duration = Duration::from_secs(2);
/// Longest time that such a file is left alone: it may be long, and each look reads all of it.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);

/// Collects paths that were touched until they rest.
///
/// A path settles `quiet` after its last event, and at the latest `patience` after its first: a log
/// file that never rests must not keep itself from syncing for ever. While it is being written to, it may take
/// longer over it. Times are durations since some beginning that the caller chooses.
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
    /// Whether the last that was heard is that it was written to.
    is_open: bool,
}

impl Debounce {
    /// Creates an idle debouncer.
    pub fn new(quiet: Duration, patience: Duration) -> Self {
        Self { quiet, patience, touched: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Notes an event after which a path may be complete.
    pub fn handle_event(&mut self, now: Duration, path: RelPath, depth: Depth) {
        self.note(now, path, depth, false);
    }

    /// Notes that a file was written to by somebody who may not be done.
    pub fn handle_write(&mut self, now: Duration, path: RelPath) {
        self.note(now, path, Depth::Entry, true);
    }

    fn note(&mut self, now: Duration, path: RelPath, depth: Depth, is_open: bool) {
        let mut touch = Touch { first: now, last: now, depth, is_open };
        if let Some(known) = self.touched.get(&path).copied() {
            self.order.remove(&(self.due(&known), path.clone()));
            touch = Touch { first: known.first, depth: depth.max(known.depth), ..touch };
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
        let (quiet, patience) = if touch.is_open { (WRITE_QUIET, WRITE_PATIENCE) } else { (self.quiet, self.patience) };
        (touch.last + quiet).min(touch.first + patience)
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

    #[test]
    fn a_file_that_is_written_to_rests_longer_until_it_is_closed() {
        let mut debounce = Debounce::new(ms(10), ms(100));
        debounce.handle_event(ms(0), path("f"), Depth::Entry);
        debounce.handle_write(ms(5), path("f"));
        assert!(debounce.poll_settled(ms(1500)).is_empty());
        debounce.handle_event(ms(1500), path("f"), Depth::Entry);
        assert_eq!(debounce.poll_settled(ms(1500)).len(), 1);
        // One that stays open is looked at once nothing is written any more.
        debounce.handle_write(ms(2000), path("f"));
        debounce.handle_write(ms(3000), path("f"));
        assert!(debounce.poll_settled(ms(4999)).is_empty());
        assert_eq!(debounce.poll_settled(ms(5000)).len(), 1);
        // And now and then where that never ends.
        let settled = (6000..66_000).step_by(100).map(|at| {
            debounce.handle_write(ms(at), path("f"));
            debounce.poll_settled(ms(at)).len()
        });
        assert_eq!(settled.sum::<usize>(), 2);
    }
}
