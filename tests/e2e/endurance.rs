//! Clusters under all troubles at once: people edit on every device, daemons are killed, stopped and started,
//! lines are cut, held and closed. In the end all devices have the same, and nothing is missing.
//!
//! A run lasts some seconds, or as many as `KINFOLD_ENDURANCE` says. `KINFOLD_ENDURANCE_SEED` gives people and
//! troubles the same intentions as in an earlier run; when they come to pass is the machine's matter.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::census::{Ledger, Observer, line};
use crate::lab::{DATA, Device, Lab, Tree, conflict_copies, differences, wait_same};
use crate::people::{ANCHORS, Person, Random};
use crate::proxy::Proxy;

/// Files whose names are never without a file.
const ANCHOR_COUNT: usize = 4;
/// How long people work where nobody says otherwise.
const SHORT: Duration = Duration::from_secs(12);
/// How long it may take until all is the same.
const SETTLE_MAX: Duration = Duration::from_secs(600);

#[test]
fn three_devices_lose_nothing_whatever_is_killed_and_cut() {
    endure(3);
}

#[test]
fn five_devices_lose_nothing_whatever_is_killed_and_cut() {
    endure(5);
}

/// How often each trouble came.
#[derive(Debug, Default)]
struct Troubles {
    kills: AtomicUsize,
    kills_at_start: AtomicUsize,
    stops: AtomicUsize,
    cuts: AtomicUsize,
    holds: AtomicUsize,
    times_offline: AtomicUsize,
}

struct Cluster {
    devices: Vec<Device>,
    /// The line on which one device dials another.
    lines: Vec<(usize, usize, Proxy)>,
    troubles: Troubles,
    /// The device that keeps its brake on and has a person who lets everything go.
    braked: Option<usize>,
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

fn endure(count: usize) {
    let duration = number_of("KINFOLD_ENDURANCE").map_or(SHORT, Duration::from_secs);
    let by_time = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000;
    let seed = number_of("KINFOLD_ENDURANCE_SEED").unwrap_or_else(by_time);
    println!("{count} devices, KINFOLD_ENDURANCE_SEED={seed}");
    let mut lab = Lab::new();
    let cluster = Cluster::new(&lab, count);
    let ledger = Ledger::new();
    cluster.begin(&ledger);
    cluster.live(&ledger, duration, seed);
    let tree = cluster.settle();
    let roots: Vec<&Path> = cluster.devices.iter().map(|device| device.root.as_path()).collect();
    let copies = conflict_copies(&tree).len();
    match ledger.count(&roots) {
        Ok(count) => {
            println!("{count}; {} things, {copies} of them conflict copies; {:?}", tree.len(), cluster.troubles);
            assert!(count.live > 0 && count.kept > 0, "nothing was at stake: {count}");
        }
        Err(wrong) => {
            if duration > SHORT {
                std::fs::write(lab.path("journal"), ledger.journal()).unwrap();
                println!("all is kept in {}", lab.keep().display());
            }
            panic!("KINFOLD_ENDURANCE_SEED={seed}: {wrong}");
        }
    }
    // Where all is at rest, a restart of everything changes nothing.
    for device in &cluster.devices {
        device.stop();
    }
    for device in &cluster.devices {
        device.serve();
    }
    let again = cluster.settle();
    if again != tree {
        println!("all is kept in {}", lab.keep().display());
        panic!("KINFOLD_ENDURANCE_SEED={seed}: a restart made changes: {:?}", differences(&tree, &again));
    }
}

impl Cluster {
    fn new(lab: &Lab, count: usize) -> Self {
        let names = ["a", "b", "c", "d", "e"];
        let devices: Vec<_> = names[..count].iter().map(|name| lab.device(name)).collect();
        let mut lines = Vec::new();
        for (from, device) in devices.iter().enumerate() {
            for (to, other) in devices.iter().enumerate().filter(|(to, _)| *to != from) {
                let line = Proxy::start(other.address, 0);
                device.trusts_at(other, line.address);
                lines.push((from, to, line));
            }
        }
        let shares: Vec<_> = names[1..count].iter().flat_map(|name| ["--share", name]).collect();
        devices[0].ok(&[&["folder", "add", devices[0].root_text(), "--name", DATA], &shares[..]].concat());
        for device in &devices[1..] {
            device.ok(&["folder", "accept", DATA, device.root_text(), "--from", "a"]);
        }
        // Where brakes are off nothing waits for a person; one device of the larger cluster has such a person.
        let braked = (count > 3).then_some(count - 1);
        Self { devices, lines, troubles: Troubles::default(), braked }
    }

    /// All devices have the same first files.
    fn begin(&self, ledger: &Ledger) {
        for n in 0..ANCHOR_COUNT {
            let token = ledger.new_token();
            ledger.allow(line(token).as_bytes());
            self.devices[0].write(&format!("{ANCHORS}/{n}"), line(token));
            ledger.wrote(token, "written at first".into());
        }
        for device in &self.devices {
            device.serve();
        }
        wait_same(&self.devices.iter().collect::<Vec<_>>());
        for (n, device) in self.devices.iter().enumerate() {
            if self.braked != Some(n) {
                device.ok(&["folder", "set", DATA, "brake=off"]);
            }
        }
    }

    /// People work and troubles come, for this long.
    fn live(&self, ledger: &Ledger, duration: Duration, seed: u64) {
        std::thread::scope(|scope| {
            for (n, device) in self.devices.iter().enumerate() {
                scope.spawn(move || Person::new(n, &device.root, ledger, seed).work());
                scope.spawn(move || {
                    let mut observer = Observer::new(n, &device.root, ledger);
                    while !ledger.is_over() {
                        observer.round();
                        std::thread::sleep(Duration::from_millis(150));
                    }
                });
                scope.spawn(move || self.trouble(n, ledger, Random(seed.wrapping_mul(31) + n as u64)));
            }
            scope.spawn(|| self.watch_anchors(ledger));
            scope.spawn(|| {
                while !ledger.is_over() {
                    self.release();
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
            std::thread::sleep(duration);
            ledger.is_over.store(true, Ordering::Relaxed);
        });
    }

    /// What befalls one device.
    fn trouble(&self, n: usize, ledger: &Ledger, mut random: Random) {
        let device = &self.devices[n];
        let lines = || self.lines.iter().filter(move |(from, to, _)| *from == n || *to == n).map(|(.., line)| line);
        let count = |of: &AtomicUsize| of.fetch_add(1, Ordering::Relaxed);
        while !ledger.is_over() {
            std::thread::sleep(random.millis(200, 4000));
            match random.below(100) {
                0..40 => {
                    ledger.say(format!("{n} is killed"));
                    device.kill9();
                    count(&self.troubles.kills);
                    // And at times again, amid all that a start has to put in order.
                    while random.chance(30) {
                        device.start();
                        std::thread::sleep(random.millis(0, 300));
                        device.kill9();
                        count(&self.troubles.kills_at_start);
                    }
                    std::thread::sleep(random.millis(0, 1500));
                    ledger.say(format!("{n} starts"));
                    device.serve();
                }
                40..55 => {
                    ledger.say(format!("{n} is stopped"));
                    device.stop();
                    count(&self.troubles.stops);
                    std::thread::sleep(random.millis(0, 3000));
                    ledger.say(format!("{n} starts"));
                    device.serve();
                }
                55..70 => {
                    ledger.say(format!("{n} is offline"));
                    lines().for_each(|line| line.close(true));
                    count(&self.troubles.times_offline);
                    std::thread::sleep(random.millis(1000, 7000));
                    lines().for_each(|line| line.close(false));
                    ledger.say(format!("{n} is online"));
                }
                70..85 => {
                    lines().for_each(Proxy::cut);
                    count(&self.troubles.cuts);
                }
                _ => {
                    let of_it: Vec<_> = lines().collect();
                    let line = random.pick(&of_it);
                    line.hold(true);
                    count(&self.troubles.holds);
                    std::thread::sleep(random.millis(300, 4000));
                    line.hold(false);
                }
            }
        }
    }

    /// A name whose file is only ever replaced is never without one.
    fn watch_anchors(&self, ledger: &Ledger) {
        while !ledger.is_over() {
            for device in &self.devices {
                for n in 0..ANCHOR_COUNT {
                    let path = device.at(ANCHORS).join(n.to_string());
                    if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                        ledger.violated(format!("{} was not there", path.display()));
                    }
                }
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// A person lets go what the one brake holds.
    fn release(&self) {
        let Some(braked) = self.braked.map(|n| &self.devices[n]) else { return };
        let is_held = |folder: &kinfold::control::types::FolderStatus| folder.held > 0;
        if braked.status_now().is_some_and(|status| status.folders.iter().any(is_held)) {
            braked.cli(&["folder", "release", DATA]);
        }
    }

    /// Waits until nothing is to be done any more, and all devices have the same.
    fn settle(&self) -> Tree {
        let begun = Instant::now();
        loop {
            self.release();
            let tree = self.devices[0].tree();
            let differ: Vec<_> = self.devices[1..].iter().flat_map(|d| differences(&tree, &d.tree())).collect();
            let is_told = |device: &Device| {
                let status = device.status();
                status.folders.iter().all(|f| f.in_sync && f.members.iter().all(|m| m.connected && m.in_sync))
            };
            if differ.is_empty() && self.devices.iter().all(is_told) && self.devices[0].tree() == tree {
                break;
            }
            assert!(begun.elapsed() < SETTLE_MAX, "the devices do not come to hold the same: {differ:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        for device in &self.devices {
            device.wait();
        }
        wait_same(&self.devices.iter().collect::<Vec<_>>())
    }
}
