//! `kinfold schema`: what JSON to expect, for programs that check it.

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::man::api;
use crate::cli::output;

/// Runs the command.
pub fn run() -> Result<Exit, Failure> {
    output::say_json(&api::schema())?;
    Ok(Exit::Done)
}
