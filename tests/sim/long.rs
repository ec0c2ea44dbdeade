//! The simulator for as long as one likes: `cargo run --release --example sim -- --steps 1000000`.
//!
//! Plays one seed after the other, from `--from` on, until so many steps are done, and ends with 1 if
//! one of them failed. A step is what befalls a device; see [`World::play`](world::World::play).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod disk;
mod oracle;
mod people;
mod runner;
#[allow(dead_code, reason = "the test asks more of it")]
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines about how far it has come.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

const USAGE: &str = "usage: sim [--steps N] [--from SEED]
  --steps N    play until so many steps are done (1000000)
  --from SEED  the first seed (0)";

/// Reads the arguments: how many steps, and from which seed on.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(u64, u64)> {
    let (mut steps, mut from) = (1_000_000, 0);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.replace('_', "").parse().ok()?;
        match name.as_str() {
            "--steps" => steps = value,
            "--from" => from = value,
            _ => return None,
        }
    }
    Some((steps, from))
}

fn main() -> ExitCode {
    let Some((steps, from)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    // A failing seed is named in the end, with what went wrong; where in the oracle is of no interest.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let told = Mutex::new(begun);
    let played = runner::play_all(from.., steps, |played| {
        let mut told = told.lock().unwrap();
        if told.elapsed() >= TELL_INTERVAL {
            *told = Instant::now();
            let (runs, failed) = (played.runs, played.failures.len());
            println!(
                "{:>6.0} s: {} steps, {runs} runs, {failed} failures",
                begun.elapsed().as_secs_f64(),
                played.steps
            );
        }
    });
    let succeeded = played.runs - played.failures.len() as u64;
    println!(
        "{} steps in {} runs, seeds {from} to {}, {:.0} s; {} steps a run in the mean, {} at least; {} failures",
        played.steps,
        played.runs,
        from + played.runs.saturating_sub(1),
        begun.elapsed().as_secs_f64(),
        played.steps.checked_div(succeeded).unwrap_or(0),
        played.fewest.unwrap_or(0),
        played.failures.len(),
    );
    for failure in &played.failures {
        println!("{failure}");
    }
    if played.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
