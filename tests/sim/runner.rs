//! Plays seeds on all cores, and says what went wrong with which.

use std::cell::RefCell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::world::{Script, World};

/// Longest time that one seed may take; more is an endless loop.
const SEED_TIME_MAX: Duration = Duration::from_secs(10);
/// Failing seeds after which no more are played.
const FAILURES_MAX: usize = 30;

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    /// Seeds that were played to their end, or failed.
    pub runs: u64,
    /// Steps of those that came to their end; see [`World::play`].
    pub steps: u64,
    /// The fewest steps that one of these had.
    pub fewest: Option<u64>,
    /// Seeds that failed, and why.
    pub failures: Vec<String>,
}

impl Played {
    fn note(&mut self, outcome: Result<u64, String>) {
        self.runs += 1;
        match outcome {
            Ok(steps) => {
                self.steps += steps;
                self.fewest = Some(self.fewest.map_or(steps, |fewest| fewest.min(steps)));
            }
            Err(why) => self.failures.push(why),
        }
    }
}

/// Plays a seed. Returns its steps, or what went wrong with it in a line.
pub fn play(seed: u64) -> Result<u64, String> {
    attempt(|| World::play(seed)).map_err(|why| format!("{seed}: {why}"))
}

/// Does something, and returns the first line of why it panics.
fn attempt<T>(deed: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(deed)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panics");
        text.lines().next().unwrap_or_default().to_owned()
    })
}

/// What sort of failure this is: its words, without the names and numbers, which change with what is left out.
fn sort_of(why: &str) -> String {
    let words = why.split_whitespace().filter(|word| word.chars().all(|c| c.is_ascii_alphabetic() || c == ','));
    words.collect::<Vec<_>>().join(" ")
}

/// Finds the few turns of a failing world that it takes to fail in the same way. Returns why it fails, its whole
/// script, and what is left of that; `None` if it does not fail.
pub fn shrink(seed: u64) -> Option<(String, Script, Script)> {
    let whole = RefCell::default();
    let why = attempt(|| World::record(seed, &whole)).err()?;
    let (whole, sort) = (whole.into_inner(), sort_of(&why));
    let fails = |turns: &[u64]| {
        let script = Script { turns: turns.to_vec(), end: whole.end };
        attempt(|| World::replay(seed, &script, false)).is_err_and(|why| sort_of(&why) == sort)
    };
    let turns = fewest(&whole.turns, fails);
    let left = Script { turns, end: whole.end };
    Some((why, whole, left))
}

/// Leaves out of a list what it can do without, in ever smaller pieces, until no single one can go (after Zeller and
/// Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).
pub fn fewest<T: Clone>(of: &[T], mut holds: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = of.to_vec();
    let mut piece = left.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut has_shrunk) = (0, false);
        while at < left.len() {
            let mut without = left.clone();
            without.drain(at..(at + piece).min(left.len()));
            if holds(&without) {
                left = without;
                has_shrunk = true;
            } else {
                at += piece;
            }
        }
        if piece == 1 && !has_shrunk {
            return left;
        }
        if !has_shrunk {
            piece = piece.div_ceil(2);
        }
    }
}

/// Plays seeds on all cores until there are no more of them, or so many steps were played. `tell` hears of
/// it after each.
pub fn play_all(seeds: impl Iterator<Item = u64> + Send, steps_max: u64, tell: impl Fn(&Played) + Sync) -> Played {
    let table = Mutex::new((seeds, Played::default()));
    let is_over = AtomicBool::new(false);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let under_way: Vec<Mutex<Option<(u64, Instant)>>> = (0..workers).map(|_| Mutex::new(None)).collect();
    let put = |slot: &Mutex<Option<(u64, Instant)>>, what| {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = what;
    };
    let next = || {
        let mut table = table.lock().unwrap();
        let is_enough = table.1.steps >= steps_max || table.1.failures.len() >= FAILURES_MAX;
        if is_enough { None } else { table.0.next() }
    };
    std::thread::scope(|scope| {
        let players: Vec<_> = under_way
            .iter()
            .map(|slot| {
                scope.spawn(|| {
                    while let Some(seed) = next() {
                        put(slot, Some((seed, Instant::now())));
                        let outcome = play(seed);
                        let mut table = table.lock().unwrap();
                        table.1.note(outcome);
                        tell(&table.1);
                    }
                    put(slot, None);
                })
            })
            .collect();
        // An endless loop cannot be broken from outside; it is named, and the program ends.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for slot in &under_way {
                    let slot = *slot.lock().unwrap();
                    if let Some((seed, since)) = slot
                        && since.elapsed() > SEED_TIME_MAX
                    {
                        // Past the test harness, which would keep it for itself.
                        let others = table.lock().unwrap().1.failures.join("\n");
                        writeln!(std::io::stderr(), "seed {seed} loops for ever\n{others}").ok();
                        std::process::exit(101);
                    }
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for player in players {
            player.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    table.into_inner().unwrap().1
}
