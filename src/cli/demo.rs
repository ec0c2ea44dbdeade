//! `kinfold demo`: kinfold at work between devices made up on this machine.

use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Arguments of `kinfold demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Do not stop between the steps
    #[arg(long)]
    yes: bool,

    /// Leave the made-up devices and their folders on the disk
    #[arg(long)]
    keep: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let Args { yes: _, keep: _ } = args;
    Err(Failure::new(Exit::Failed, "this build has no demo"))
}
