//! `kinfold history`: the kept states of a file, and the space that all of them take.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::control::types::AskHistory;
use crate::control::types::Time;

/// Arguments of `kinfold history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file or directory; it may have been deleted [default: say how much space history takes]
    file: Option<PathBuf>,

    /// Ask all connected devices too, and say who keeps which state
    #[arg(long, requires = "file")]
    all: bool,

    /// Ask DEVICE instead: its history may reach further back
    #[arg(long, value_name = "DEVICE", requires = "file", conflicts_with = "all")]
    from: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    match &args.file {
        Some(file) => of_file(context, file, args)?,
        None => space(context, args.json)?,
    }
    Ok(Exit::Done)
}

fn of_file(context: &Context, file: &Path, args: &Args) -> Result<(), Failure> {
    let path = place::meant(file)?;
    let ask = AskHistory { path: path.clone(), all: args.all, from: args.from.clone() };
    let entries = context.client()?.history(&ask)?;
    if args.json {
        return output::say_json(&entries);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let other = if entry.path == path { String::new() } else { entry.path.to_string() };
            let size = if entry.kind == "file" { output::bytes(entry.size) } else { entry.kind.clone() };
            let mut row = vec![to_be_restored(entry.time), size, output::escaped(&entry.device)];
            // Who asks one device knows who keeps it.
            row.extend(args.all.then(|| output::escaped(&entry.held_by.join(", "))));
            row.push(other);
            row
        })
        .collect();
    output::say_columns(&rows)
}

/// Returns a time on the clock of this machine as `restore --at` finds that very state by it: a millisecond
/// later than too early.
fn to_be_restored(time: Time) -> String {
    let ms = jiff::TimestampRound::new().smallest(jiff::Unit::Millisecond).mode(jiff::RoundMode::Ceil);
    let time = time.0.round(ms).unwrap_or(time.0);
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn space(context: &Context, json: bool) -> Result<(), Failure> {
    #[derive(serde::Serialize)]
    struct Row {
        folder: String,
        bytes: u64,
        bytes_max: u64,
        days: u32,
    }
    let config = context.config()?;
    let days = |name: &str| config.folder_named(name).map_or(0, |folder| folder.history.days);
    let folders = context.client()?.status()?.folders;
    let row = |folder: &crate::control::types::FolderStatus| Row {
        folder: folder.name.clone(),
        bytes: folder.history_bytes,
        bytes_max: folder.history_bytes_max,
        days: days(&folder.name),
    };
    let rows: Vec<Row> = folders.iter().map(row).collect();
    if json {
        return output::say_json(&rows);
    }
    let columns = rows.iter().map(|row| {
        let of = format!("{} of at most {}", output::bytes(row.bytes), output::bytes(row.bytes_max));
        let days = match row.days {
            0 => "keeps nothing".to_owned(),
            days => format!("for {}", output::counted(days.into(), "day", "days")),
        };
        vec![output::escaped(&row.folder), of, days]
    });
    output::say_columns(&columns.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_shown_is_never_too_early_to_find_its_state() {
        let shown = |ns: i64| to_be_restored(Time::from_unix_ns(ns));
        let read = |text: &str| crate::cli::when::parse(text, &jiff::Zoned::now()).unwrap().as_nanosecond();
        for ns in [1_700_000_000_000_000_000, 1_700_000_000_000_000_001, 1_700_000_000_999_999_999] {
            let later = read(&shown(ns)) - i128::from(ns);
            assert!((0..1_000_000).contains(&later), "{later}");
        }
    }
}
