//! `kinfold conflicts`: edits that were made apart, both of which were kept.

use std::fs;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;
use crate::control::types::Conflict;
use crate::control::types::Keep;
use crate::control::types::KeepConflict;
use crate::control::types::RawPath;
use crate::control::types::Time;

/// Arguments of `kinfold conflicts`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the conflicts of all folders
    List(ListArgs),
    /// Show both sides of a conflict
    Show {
        /// The file or its conflict copy
        path: PathBuf,
    },
    /// Settle a conflict
    Keep {
        /// The file or its conflict copy
        path: PathBuf,

        /// Which side stays under the plain name
        side: Side,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    /// The edit made on this device; the other goes to the history
    Mine,
    /// The other edit; the one made on this device goes to the history
    Theirs,
    /// Both stay as two ordinary files
    Both,
}

/// Runs the command. A list ends with [`Exit::NeedsPerson`] where it is not empty.
pub fn run(context: &Context, args: Args) -> Result<Exit, Failure> {
    match args.command.unwrap_or(Command::List(args.list)) {
        Command::List(args) => list(context, args.json),
        Command::Show { path } => show(context, &place::meant(&path)?),
        Command::Keep { path, side } => {
            let keep = match side {
                Side::Mine => Keep::Mine,
                Side::Theirs => Keep::Theirs,
                Side::Both => Keep::Both,
            };
            context.client()?.keep(&KeepConflict { path: place::meant(&path)?, keep })?;
            Ok(Exit::Done)
        }
    }
}

fn list(context: &Context, json: bool) -> Result<Exit, Failure> {
    let conflicts = context.client()?.conflicts(None)?;
    if json {
        output::say_json(&conflicts)?;
    } else {
        let row = |conflict: &Conflict| {
            let made = format!("{} on {}", output::local_time(conflict.time), output::escaped(&conflict.device));
            vec![output::escaped(&conflict.folder), made, conflict.path.to_string()]
        };
        output::say_columns(&conflicts.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(if conflicts.is_empty() { Exit::Done } else { Exit::NeedsPerson })
}

fn show(context: &Context, path: &RawPath) -> Result<Exit, Failure> {
    let conflicts = context.client()?.conflicts(None)?;
    let mut found = conflicts.iter().filter(|conflict| conflict.path == *path || conflict.of == *path).peekable();
    let Some(first) = found.peek() else {
        return Err(Failure::new(Exit::Failed, format!("there is no conflict at {path}"))
            .with_hint("see `kinfold conflicts list`"));
    };
    let mut rows = vec![side(&first.of, "")];
    rows.extend(found.map(|conflict| side(&conflict.path, &format!("made on {}", output::escaped(&conflict.device)))));
    output::say_columns(&rows)?;
    Ok(Exit::Done)
}

/// Describes what lies at a path now.
fn side(path: &RawPath, note: &str) -> Vec<String> {
    let (size, time) = match fs::symlink_metadata(path.as_path()) {
        Ok(meta) => {
            let time = meta.modified().ok().and_then(|time| jiff::Timestamp::try_from(time).ok());
            (output::bytes(meta.len()), time.map(|time| output::local_time(Time(time))).unwrap_or_default())
        }
        Err(_) => ("not there".to_owned(), String::new()),
    };
    vec![path.to_string(), size, time, note.to_owned()]
}
