//! The simulator for as long as one likes: `cargo run --release --example sim -- --steps 1000000`.
//!
//! Plays one seed after the other, from `--from` on, until so many steps are done, and ends with 1 if
//! one of them failed. A step is what befalls a device; see [`World::play`](world::World::play).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod disk;
mod letters;
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
       sim --shrink SEED
  --steps N      play until so many steps are done (1000000)
  --from SEED    the first seed (0)
  --shrink SEED  leave out of a failing seed what it does not need to fail, and print what happens then";

/// What is to be done.
enum Wish {
    /// So many steps, from this seed on.
    Play(u64, u64),
    Shrink(u64),
}

/// Reads the arguments.
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Wish> {
    let (mut steps, mut from) = (1_000_000, 0);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.replace('_', "").parse().ok()?;
        match name.as_str() {
            "--steps" => steps = value,
            "--from" => from = value,
            "--shrink" => return arguments.next().is_none().then_some(Wish::Shrink(value)),
            _ => return None,
        }
    }
    Some(Wish::Play(steps, from))
}

fn shrink(seed: u64) -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let Some((why, whole, left)) = runner::shrink(seed) else {
        println!("seed {seed} does not fail");
        return ExitCode::SUCCESS;
    };
    println!(
        "{why}\nneeds {} of its {} turns: {:?}, end {}",
        left.turns.len(),
        whole.turns.len(),
        left.turns,
        left.end
    );
    // Once more, in the open.
    world::World::show(seed, &left);
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    let (steps, from) = match parse(std::env::args().skip(1)) {
        Some(Wish::Play(steps, from)) => (steps, from),
        Some(Wish::Shrink(seed)) => return shrink(seed),
        None => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
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
