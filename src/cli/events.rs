//! `kinfold events`: what happens, a JSON object a line, for programs.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::types::AskLog;

/// Arguments of `kinfold events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what is known and end, instead of waiting for more
    #[arg(long)]
    no_follow: bool,

    /// Begin after the event with this number; 0: with the oldest that is known [default: with the next]
    #[arg(long, value_name = "SEQ", value_parser = seq)]
    after: Option<u64>,
}

/// How long one request waits for something to happen.
const WAIT_MS: u64 = 20_000;

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let client = context.client()?;
    let mut after = match args.after {
        Some(after) => after,
        None if args.no_follow => 0,
        None => {
            let newest = client.events(AskLog { limit: Some(1), ..AskLog::default() })?;
            newest.last().map_or(0, |event| event.seq)
        }
    };
    loop {
        let wait_ms = (!args.no_follow).then_some(WAIT_MS);
        let events = client.events(AskLog { after: Some(after), limit: None, wait_ms })?;
        events.iter().try_for_each(output::say_json_line)?;
        match events.last() {
            Some(event) => after = event.seq,
            None if args.no_follow => return Ok(Exit::Done),
            None => {}
        }
    }
}

fn seq(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give the `seq` of an event, a number".to_owned())
}
