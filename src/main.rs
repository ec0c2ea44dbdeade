//! The program: arguments in, exit code out.

use std::process::ExitCode;

use kinfold::cli;

fn main() -> ExitCode {
    cli::run(std::env::args_os())
}
