//! `kinfold serve`: the daemon in the foreground.

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::logging;
use crate::cli::logging::LogArgs;
use crate::daemon;
use crate::daemon::ServeOptions;

/// Arguments of `kinfold serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArgs,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    context.config()?;
    context.own_id()?;
    let log = logging::start(&args.log, "info")?;
    daemon::serve(context.paths.clone(), ServeOptions { log })?;
    Ok(Exit::Done)
}
