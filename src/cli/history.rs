//! `kinfold history`: the kept states of a file.

use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::place;

/// Arguments of `kinfold history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file; it may have been deleted
    file: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let path = place::meant(&args.file)?;
    let entries = context.client()?.history(&path)?;
    if args.json {
        output::say_json(&entries)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            let other = if entry.path == path { String::new() } else { entry.path.to_string() };
            vec![entry.time.to_string(), output::bytes(entry.size), output::escaped(&entry.device), other]
        })
        .collect();
    output::say_columns(&rows)?;
    Ok(Exit::Done)
}
