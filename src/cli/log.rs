//! `kinfold log`: what the daemon did.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::types::AskLog;
use crate::control::types::LogLine;

/// Arguments of `kinfold log`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on, and print lines as they come
    #[arg(long, short)]
    follow: bool,

    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// How long one request waits for a new line.
const WAIT_MS: u64 = 20_000;

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let client = context.client()?;
    let mut ask = AskLog::default();
    loop {
        let lines = client.log(ask)?;
        for line in &lines {
            match args.json {
                true => output::say_json_line(line)?,
                false => output::say(text(line))?,
            }
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        let last = lines.last().map(|line| line.seq).or(ask.after).unwrap_or(0);
        ask = AskLog { after: Some(last), limit: None, wait_ms: Some(WAIT_MS) };
    }
}

fn text(line: &LogLine) -> String {
    let folder = line.folder.as_deref().map(|folder| format!("{}: ", output::escaped(folder))).unwrap_or_default();
    let path = line.path.as_deref().map(|path| format!("{}: ", output::printable(path))).unwrap_or_default();
    format!("{}  {:5}  {folder}{path}{}", output::local_time(line.time), line.level, output::printable(&line.message))
}
