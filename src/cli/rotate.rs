//! `kinfold key rotate`: another key for this device, which the other devices go on trusting.

use std::io::{self, IsTerminal, Write};

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::key;
use crate::cli::output;
use crate::cli::output::escaped;
use crate::cli::unlock;
use crate::config::{Config, Device};
use crate::control::types::{RotationStatus, Time};
use crate::daemon::rotation;
use crate::keys::key_file::KeyFile;
use crate::keys::passphrase::Passphrase;
use crate::keys::rotation::Rotation;

/// Arguments of `kinfold key rotate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show which devices know the next id already, and change nothing
    #[arg(long, conflicts_with_all = ["now", "cancel"])]
    status: bool,

    /// Print JSON
    #[arg(long, requires = "status")]
    json: bool,

    /// Take the next key now; devices that do not know it yet have to be paired again
    #[arg(long, conflicts_with = "cancel")]
    now: bool,

    /// Ask nothing
    #[arg(long, requires = "now")]
    yes: bool,

    /// Stay who this device is, and forget the next key
    #[arg(long)]
    cancel: bool,

    /// Where the identity is locked, read its passphrase from the standard input, a line
    #[arg(long, conflicts_with_all = ["status", "cancel"])]
    stdin: bool,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let config = rotation::finish(&context.paths)?.map_or_else(|| context.config(), Ok)?;
    let own = context.own_id()?;
    if args.status {
        let pending = rotation::pending(&context.paths, &own)?;
        return show(pending.as_ref(), &config, args.json).map(|()| Exit::Done);
    }
    if args.cancel {
        let was_there = rotation::cancel(&context.paths)?;
        context.reload()?;
        output::say(match was_there {
            true => "this device stays who it is; the devices that know of the next id are told so",
            false => "no change of the key is under way",
        })?;
        return Ok(Exit::Done);
    }
    if rotation::pending(&context.paths, &own)?.is_none() {
        rotation::begin(&context.paths, passphrase(context, args)?.as_ref())?;
    }
    context.reload()?;
    let Some(pending) = rotation::pending(&context.paths, &own)? else {
        // All others were connected, and it has come to that already.
        return output::say(format_args!("this device is {} now", context.own_id()?)).map(|()| Exit::Done);
    };
    let unheard = rotation::unheard(&pending, &config);
    if !unheard.is_empty() && !args.now {
        output::say(format_args!("the next id of this device is {}", pending.next))?;
        output::say(
            "the other devices are told as they connect; once all of them know it, this device has it by itself, and \
             nothing is to be paired again. `kinfold key rotate --status` says how far that has come",
        )?;
        return Ok(Exit::Done);
    }
    if !unheard.is_empty() && !args.yes && !agrees(&unheard)? {
        return Err(Failure::new(Exit::Failed, "nothing was changed; the devices go on being told"));
    }
    let again: Vec<_> = unheard.iter().map(|device| escaped(&device.name)).collect();
    let id = rotation::take(&context.paths, rotation::WaitFor::Nobody)?;
    context.reload()?;
    if let Some(id) = id {
        output::say(format_args!("this device is {id} now"))?;
    }
    if !again.is_empty() {
        output::say(format_args!("to be paired again: {}", again.join(", ")))?;
    }
    Ok(Exit::Done)
}

/// Returns the passphrase that the next identity is to have, where the present one has one.
fn passphrase(context: &Context, args: &Args) -> Result<Option<Passphrase>, Failure> {
    match unlock::find(&context.paths)? {
        Some(found) if !found.is_credential => match found.file {
            KeyFile::Plain(_) => Ok(None),
            KeyFile::Locked(_) => key::Source { stdin: args.stdin }.present_one().map(Some),
        },
        // Or one that the daemon alone was given.
        _ => Err(Failure::new(
            Exit::Failed,
            "the identity of this device is a credential, which only its maker can change",
        )
        .with_hint(
            "put it into the file of an identity, see kinfold-key(1); or pair the device anew with another one",
        )),
    }
}

/// Asks whether these devices may be lost.
fn agrees(unheard: &[&Device]) -> Result<bool, Failure> {
    let names: Vec<_> = unheard.iter().map(|device| escaped(&device.name)).collect();
    let names = names.join(", ");
    if !io::stdin().is_terminal() {
        let what = format!("these devices do not know the next id, and would have to be paired again: {names}");
        return Err(Failure::new(Exit::Failed, what).with_hint("connect them first, or add --yes"));
    }
    let mut stdout = io::stdout().lock();
    write!(stdout, "To be paired again, for they do not know the next id: {names}\nTake it now? [y/N] ")?;
    stdout.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| Failure::from_error(&error))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn show(pending: Option<&Rotation>, config: &Config, json: bool) -> Result<(), Failure> {
    let status = pending.map(|pending| RotationStatus {
        next: pending.next,
        since: Time::from_unix_ns(pending.since_ns),
        unheard: rotation::unheard(pending, config).into_iter().map(|device| device.name.clone()).collect(),
    });
    if json {
        return output::say_json(&status);
    }
    let Some(status) = status else {
        return output::say("no change of the key is under way");
    };
    output::say(format_args!(
        "since {} the next id of this device is {}",
        output::local_time(status.since),
        status.next
    ))?;
    let rows: Vec<_> = config
        .devices
        .iter()
        .map(|device| {
            let is_unheard = status.unheard.contains(&device.name);
            vec![escaped(&device.name), if is_unheard { "does not know it yet" } else { "knows it" }.to_owned()]
        })
        .collect();
    output::say_columns(&rows)
}

impl From<rotation::RotationError> for Failure {
    fn from(error: rotation::RotationError) -> Self {
        match error {
            rotation::RotationError::Config(error) => error.into(),
            rotation::RotationError::Key(error) => error.into(),
            error @ rotation::RotationError::UnderWay => Self::from_error(&error).with_hint(
                "see `kinfold key rotate --status`; or `kinfold key rotate --cancel`, and begin it again afterwards",
            ),
            error => Self::from_error(&error),
        }
    }
}
