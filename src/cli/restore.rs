//! `kinfold restore`: a file or directory as it was.

use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::control::types::Restore;
use crate::control::types::Time;

/// Arguments of `kinfold restore`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory; it may have been deleted
    path: PathBuf,

    /// As it was at this time: a time that `kinfold history` prints, or `2026-05-31 18:00` on the clock
    /// of this machine [default: as it was before the last change]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Time>,

    /// Put it here instead of back in its place
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let to = args.to.as_deref().map(place::meant).transpose()?;
    let restored = context.client()?.restore(&Restore { path: place::meant(&args.path)?, at: args.at, to })?;
    let files = output::counted(restored.files, "file", "files");
    output::say(format_args!("restored {files}, {}, to {}", output::bytes(restored.bytes), restored.to))?;
    Ok(Exit::Done)
}

fn time(text: &str) -> Result<Time, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Time(time));
    }
    let local = text.parse::<DateTime>().ok().and_then(|time| time.to_zoned(TimeZone::system()).ok());
    local
        .map(|time| Time(time.timestamp()))
        .ok_or_else(|| "write it like 2026-05-31T18:00:00Z or 2026-05-31 18:00".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_and_programs_write_them() {
        let check = |text: &str, expected: &str| assert_eq!(time(text).unwrap().to_string(), expected);
        check("2026-05-31T18:00:00Z", "2026-05-31T18:00:00Z");
        check("2026-05-31T18:00:00.123456789Z", "2026-05-31T18:00:00.123456789Z");
        check("2026-05-31T18:00:00+02:00", "2026-05-31T16:00:00Z");
        let local = |text: &str| {
            let time = text.parse::<DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap();
            time.timestamp().to_string()
        };
        check("2026-05-31 18:00", &local("2026-05-31T18:00:00"));
        check("2026-05-31 18:00:07", &local("2026-05-31T18:00:07"));
        for text in ["", "yesterday", "18:00", "2026-13-01 00:00"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
