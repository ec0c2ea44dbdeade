//! The command line: one file a command.
//!
//! Commands that change the configuration do so with and without a running daemon; one that runs is
//! told to read it anew.

pub mod completions;
pub mod conflicts;
pub mod context;
pub mod demo;
pub mod device;
pub mod doctor;
pub mod error;
pub mod events;
pub mod exit;
pub mod folder;
pub mod history;
pub mod id;
pub mod import;
pub mod inbox;
pub mod init;
pub mod key;
pub mod limit;
pub mod live;
pub mod log;
pub mod logging;
pub mod man;
pub mod metrics;
pub mod output;
pub mod pair;
pub mod passphrase;
pub mod place;
pub mod restore;
pub mod rotate;
pub mod schema;
pub mod serve;
pub mod service;
pub mod status;
pub mod unlock;
pub mod up;
pub mod verify;
pub mod wait;
pub mod when;

use std::ffi::OsString;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;

/// Keeps folders identical across your own devices, over your own network
#[derive(Debug, Parser)]
#[command(name = "kinfold", version, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 timeout, 4 something waits for a person, 5 no daemon,
6 the identity is locked.
First steps: `kinfold pair ~/Photos` on the first device, the line that it shows on the second, `kinfold up` on both.")]
pub struct Cli {
    /// Keep configuration, state and socket together in this directory
    #[arg(long, global = true, env = "KINFOLD_HOME", hide_env_values = true, value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up this device where that is not done yet, sync a folder, and keep running
    Up(up::Args),
    /// Make this device's identity and configuration
    Init(init::Args),
    /// Print this device's id
    Id(id::Args),
    /// Put a passphrase on this device's identity, or give the device another key
    #[command(subcommand)]
    Key(key::Command),
    /// Run the daemon in the foreground, as a service does
    Serve(serve::Args),
    /// Show folders, devices and what is under way
    Status(status::Args),
    /// Wait until every connected device holds the same
    Wait(wait::Args),
    /// Meet another device by a short code, and share a folder with it
    Pair(pair::Args),
    /// Choose which devices to trust
    #[command(subcommand)]
    Device(device::Command),
    /// Choose which folders to sync, and with whom
    #[command(subcommand)]
    Folder(folder::Command),
    /// Show how fast is sent and received, or bound it
    Limit(limit::Args),
    /// Look at edits that were made apart, and settle them
    Conflicts(conflicts::Args),
    /// List the kept states of a file
    History(history::Args),
    /// Bring back a file or directory as it was
    Restore(restore::Args),
    /// Read all files again, and find those that the disk has damaged
    Verify(verify::Args),
    /// List what waits for a person
    Inbox(inbox::Args),
    /// Show the daemon's log
    Log(log::Args),
    /// Print what happens, a JSON object a line
    Events(events::Args),
    /// Print how the daemon does in the form of Prometheus, or answer it
    Metrics(metrics::Args),
    /// Have the system start the daemon by itself
    #[command(subcommand)]
    Service(service::Command),
    /// Check that everything is in order, and say what is not
    Doctor(doctor::Args),
    /// Take over what another program has synced so far
    #[command(subcommand)]
    Import(import::Command),
    /// See kinfold at work between devices made up on this machine
    Demo(demo::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the JSON Schema of what the daemon answers and `--json` prints
    Schema,
    /// Write the manual pages into a directory
    Man(man::Args),
}

/// Runs the command line and returns how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and usage go where they can; whether somebody reads them changes nothing.
            error.print().ok();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match dispatch(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let mut stderr = io::stderr().lock();
            for line in failure.lines() {
                // Nobody is left to tell that nothing can be told.
                writeln!(stderr, "{line}").ok();
            }
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Exit, Failure> {
    match cli.command {
        Command::Completions(args) => return completions::run(&args),
        Command::Man(args) => return man::run(&args),
        Command::Schema => return schema::run(),
        Command::Demo(args) => return demo::run(&args),
        Command::Service(command) => return service::run(cli.home.as_deref(), command),
        _ => {}
    }
    let context = Context::new(cli.home.as_deref())?;
    match cli.command {
        Command::Up(args) => up::run(&context, &args),
        Command::Init(args) => init::run(&context, &args),
        Command::Id(args) => id::run(&context, &args),
        Command::Key(command) => key::run(&context, &command),
        Command::Serve(args) => serve::run(&context, &args),
        Command::Status(args) => status::run(&context, &args),
        Command::Wait(args) => wait::run(&context, &args),
        Command::Pair(args) => pair::run(&context, &args),
        Command::Device(command) => device::run(&context, command),
        Command::Folder(command) => folder::run(&context, command),
        Command::Limit(args) => limit::run(&context, &args),
        Command::Conflicts(args) => conflicts::run(&context, args),
        Command::History(args) => history::run(&context, &args),
        Command::Restore(args) => restore::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Inbox(args) => inbox::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Events(args) => events::run(&context, &args),
        Command::Metrics(args) => metrics::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Import(command) => import::run(&context, command),
        Command::Completions(_) | Command::Man(_) | Command::Schema | Command::Demo(_) | Command::Service(_) => {
            Ok(Exit::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_of_commands_is_sound() {
        Cli::command().debug_assert();
    }
}
