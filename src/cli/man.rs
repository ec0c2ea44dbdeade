//! `kinfold man`: the manual pages, one a command.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Arguments of `kinfold man`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory; made where it is missing
    dir: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let doing = format!("cannot write manual pages into {}", args.dir.display());
    fs::create_dir_all(&args.dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.dir))
        .map_err(|error| Failure::from_error(&error).while_doing(&doing))?;
    Ok(Exit::Done)
}
