//! Who has connected and not proven itself: a bounded number, in which the newest has precedence.
//!
//! A stranger cannot be told from a device that we trust before its first message is here. So whoever connects is let in
//! and has the place of the one that has waited longest, of its own address where that has its share already. Strangers
//! that connect and say nothing, however many, thus delay nobody: a trusted device needs its place for no longer than its
//! first message takes, and whoever has shown the tag of one (`Place::admit`) has a place among few that strangers
//! cannot take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use crate::model::id::DeviceId;

/// How many may be there at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AnteroomBounds {
    /// Connections that have not shown the tag of a trusted device, in all.
    pub strangers: usize,
    /// Of these, from one address.
    pub strangers_per_address: usize,
    /// Handshakes under way with one trusted device.
    pub handshakes_per_device: usize,
}

/// The connections that have not proven themselves.
#[derive(Clone)]
pub(crate) struct Anteroom {
    bounds: AnteroomBounds,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// Places are numbered in the order in which they were taken.
    last: u64,
    strangers: BTreeMap<u64, IpAddr>,
    by_address: BTreeMap<IpAddr, BTreeSet<u64>>,
    devices: BTreeMap<DeviceId, BTreeSet<u64>>,
    /// How to end each.
    tasks: BTreeMap<u64, AbortHandle>,
}

impl Waiting {
    fn remove(&mut self, number: u64) {
        self.tasks.remove(&number);
        if let Some(address) = self.strangers.remove(&number)
            && let Some(here) = self.by_address.get_mut(&address)
        {
            here.remove(&number);
            if here.is_empty() {
                self.by_address.remove(&address);
            }
        }
        self.devices.retain(|_, handshakes| {
            handshakes.remove(&number);
            !handshakes.is_empty()
        });
    }

    /// Ends a connection. Where its task is not known yet, it ends as soon as it is.
    fn turn_out(&mut self, number: u64) {
        if let Some(task) = self.tasks.get(&number) {
            task.abort();
        }
        self.remove(number);
    }

    fn is_there(&self, number: u64) -> bool {
        self.strangers.contains_key(&number) || self.devices.values().any(|handshakes| handshakes.contains(&number))
    }
}

impl Anteroom {
    pub(crate) fn new(bounds: AnteroomBounds) -> Self {
        Self { bounds, waiting: Arc::default() }
    }

    /// Takes a place, if need be that of another.
    pub(crate) fn enter(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut waiting = self.waiting();
        let here = waiting.by_address.get(&address);
        let longest_here = here.filter(|here| here.len() >= self.bounds.strangers_per_address);
        let longest = match longest_here.and_then(BTreeSet::first) {
            Some(number) => Some(*number),
            None if waiting.strangers.len() >= self.bounds.strangers => waiting.strangers.keys().next().copied(),
            None => None,
        };
        if let Some(number) = longest {
            waiting.turn_out(number);
        }
        waiting.last += 1;
        let number = waiting.last;
        waiting.strangers.insert(number, address);
        waiting.by_address.entry(address).or_default().insert(number);
        Place { anteroom: self.clone(), number }
    }

    /// Says which task ends with a place.
    pub(crate) fn note_task(&self, number: u64, task: AbortHandle) {
        let mut waiting = self.waiting();
        if waiting.is_there(number) {
            waiting.tasks.insert(number, task);
        } else {
            // It is over already, or lost its place before it began.
            task.abort();
        }
    }

    /// Every change behind the lock leaves it whole, so a panic elsewhere does no harm.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; dropping it gives it up.
pub(crate) struct Place {
    anteroom: Anteroom,
    number: u64,
}

impl Place {
    /// Names the place, for [`Anteroom::note_task`].
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// It has shown the tag of a trusted device: from now on it is of those, and no stranger takes its place. Of too many
    /// with one device the first ends.
    pub(crate) fn admit(&self, device: DeviceId) {
        let mut waiting = self.anteroom.waiting();
        let task = waiting.tasks.get(&self.number).cloned();
        if !waiting.strangers.contains_key(&self.number) {
            // It has lost its place, and is about to be ended.
            return;
        }
        waiting.remove(self.number);
        if let Some(task) = task {
            waiting.tasks.insert(self.number, task);
        }
        let handshakes = waiting.devices.entry(device).or_default();
        handshakes.insert(self.number);
        if handshakes.len() > self.anteroom.bounds.handshakes_per_device
            && let Some(first) = handshakes.first().copied()
        {
            waiting.turn_out(first);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.anteroom.waiting().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: AnteroomBounds = AnteroomBounds { strangers: 3, strangers_per_address: 2, handshakes_per_device: 2 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn device(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    impl Anteroom {
        fn has(&self, place: &Place) -> bool {
            self.waiting().is_there(place.number)
        }

        fn is_empty(&self) -> bool {
            let waiting = self.waiting();
            let Waiting { last: _, strangers, by_address, devices, tasks } = &*waiting;
            strangers.is_empty() && by_address.is_empty() && devices.is_empty() && tasks.is_empty()
        }
    }

    #[test]
    fn whoever_comes_has_the_place_of_the_one_that_has_waited_longest() {
        let anteroom = Anteroom::new(BOUNDS);
        let [a, b, c] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(address);
        let first = anteroom.enter(a);
        let second = anteroom.enter(b);
        // An address written another way is the same, and has its share.
        let third = anteroom.enter(address("::ffff:10.0.0.2"));
        let fourth = anteroom.enter(b);
        assert!(anteroom.has(&first) && !anteroom.has(&second) && anteroom.has(&third) && anteroom.has(&fourth));
        let fifth = anteroom.enter(c);
        assert!(!anteroom.has(&first) && anteroom.has(&third) && anteroom.has(&fifth));
        drop([first, second, third, fourth, fifth]);
        assert!(anteroom.is_empty());
    }

    #[test]
    fn who_has_shown_a_tag_is_not_turned_out_for_strangers_and_has_a_share_of_its_own() {
        let anteroom = Anteroom::new(BOUNDS);
        let a = address("10.0.0.1");
        let first = anteroom.enter(a);
        first.admit(device(1));
        let strangers: Vec<_> = (0..9).map(|_| anteroom.enter(a)).collect();
        assert!(anteroom.has(&first));
        assert_eq!(strangers.iter().filter(|place| anteroom.has(place)).count(), 2);
        let others = [1, 1, 2].map(|n| {
            let place = anteroom.enter(a);
            place.admit(device(n));
            place
        });
        assert!(!anteroom.has(&first) && others.iter().all(|place| anteroom.has(place)));
        // Who lost its place does not come back by a tag.
        let lost = &strangers[0];
        lost.admit(device(3));
        assert!(!anteroom.has(lost));
        drop((first, strangers, others));
        assert!(anteroom.is_empty());
    }

    #[tokio::test]
    async fn who_loses_its_place_ends_also_if_its_task_is_known_later() {
        let anteroom = Anteroom::new(AnteroomBounds { strangers: 1, ..BOUNDS });
        let endless = || tokio::spawn(std::future::pending::<()>());
        let (early, late) = (endless(), endless());
        let first = anteroom.enter(address("10.0.0.1"));
        anteroom.note_task(first.number(), early.abort_handle());
        let second = anteroom.enter(address("10.0.0.1"));
        assert!(early.await.unwrap_err().is_cancelled());
        let _third = anteroom.enter(address("10.0.0.1"));
        anteroom.note_task(second.number(), late.abort_handle());
        assert!(late.await.unwrap_err().is_cancelled());
    }
}
