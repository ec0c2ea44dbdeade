//! `kinfold wait`: until every connected device holds the same.

use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Arguments of `kinfold wait`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Wait for this folder alone
    folder: Option<String>,

    /// Give up after so many seconds, with exit code 3
    #[arg(long, value_name = "S", value_parser = seconds)]
    timeout: Option<Duration>,
}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let client = context.client()?;
    let begun = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let state = client.sync_state(args.folder.as_deref())?;
        if state.in_sync {
            return Ok(Exit::Done);
        }
        let left = args.timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        if left == Some(Duration::ZERO) {
            let seconds = args.timeout.unwrap_or_default().as_secs_f64();
            let why = state.why.unwrap_or_else(|| "not all changes have arrived".to_owned());
            return Err(Failure::new(Exit::Timeout, format!("not in sync after {seconds} s: {why}"))
                .with_hint("see `kinfold status`"));
        }
        thread::sleep(left.map_or(pause, |left| left.min(pause)));
        pause = (pause * 5 / 4).min(PAUSE_MAX);
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "give a number of seconds, not below 0".to_owned())
}
