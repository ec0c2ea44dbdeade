//! `kinfold key`: a passphrase on the identity of this device.

use std::io;
use std::io::IsTerminal;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::passphrase;
use crate::cli::unlock;
use crate::keys::key_file;
use crate::keys::key_file::KeyError;
use crate::keys::key_file::KeyFile;
use crate::keys::key_file::Remains;
use crate::keys::passphrase::Passphrase;
use crate::keys::sealed::Cost;

/// Arguments of `kinfold key`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Put a passphrase on the identity, which is needed from then on whenever the daemon is started
    Lock(Source),
    /// Put another passphrase on it
    Change(Source),
    /// Take the passphrase off
    Unlock(Source),
    /// Show whether the identity is locked
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where passphrases come from.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Source {
    /// Read the passphrase from the standard input, a line; where two are needed, the one that it has now comes first
    #[arg(long)]
    stdin: bool,
}

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Lock(from) => lock(context, *from)?,
        Command::Change(from) => change(context, *from)?,
        Command::Unlock(from) => unlock(context, *from)?,
        Command::Status { json } => status(context, *json)?,
    }
    Ok(Exit::Done)
}

fn lock(context: &Context, from: Source) -> Result<(), Failure> {
    let path = context.paths.identity();
    if let KeyFile::Locked(_) = file(context)? {
        return Err(KeyError::LockedAlready { path }.into());
    }
    let remains = key_file::lock(&path, &from.new_one()?, Cost::STANDARD)?;
    output::say("the identity is locked; without the passphrase nobody can open it, you neither")?;
    match remains {
        Remains::Overwritten => {
            output::say("what lay there in the clear was overwritten; on flash memory it may remain all the same")
        }
        Remains::OtherName => {
            output::say("the file has another name (a hard link), where it lies in the clear still: remove that")
        }
        Remains::Kept(error) => output::say(format_args!(
            "what lay there in the clear could not be overwritten and may remain on the disk: {}",
            output::printable(&error.to_string())
        )),
    }
}

fn change(context: &Context, from: Source) -> Result<(), Failure> {
    let path = context.paths.identity();
    if let KeyFile::Plain(_) = file(context)? {
        return Err(KeyError::NotLocked { path }.into());
    }
    let old = from.present_one()?;
    key_file::change(&path, &old, &from.new_one()?, Cost::STANDARD)?;
    output::say("the identity has another passphrase now; copies of the file still have the old one")
}

fn unlock(context: &Context, from: Source) -> Result<(), Failure> {
    let path = context.paths.identity();
    if let KeyFile::Plain(_) = file(context)? {
        return Err(KeyError::NotLocked { path }.into());
    }
    key_file::unlock(&path, &from.present_one()?)?;
    output::say("the identity is not locked any more: whoever has the file is this device")
}

/// Reads the identity's own file: a credential is for whoever made it to change.
fn file(context: &Context) -> Result<KeyFile, Failure> {
    match KeyFile::read(&context.paths.identity()) {
        Err(KeyError::Missing { .. }) => Err(unlock::missing(&context.paths)),
        file => Ok(file?),
    }
}

impl Source {
    fn present_one(self) -> Result<Passphrase, Failure> {
        self.check()?;
        if self.stdin { passphrase::from_stdin() } else { passphrase::ask("Passphrase of this device: ") }
    }

    /// A mistake in a new one would lock everybody out, so that whoever types it does so twice.
    fn new_one(self) -> Result<Passphrase, Failure> {
        self.check()?;
        let checked = |given: Passphrase| given.check_new().map_err(Failure::from);
        if self.stdin {
            return checked(passphrase::from_stdin()?);
        }
        let new = checked(passphrase::ask("New passphrase: ")?)?;
        if !passphrase::ask("The same again: ")?.is(&new) {
            return Err(
                Failure::new(Exit::Failed, "the two are not the same").with_hint("nothing was changed; run it again")
            );
        }
        Ok(new)
    }

    fn check(self) -> Result<(), Failure> {
        if self.stdin || io::stdin().is_terminal() {
            return Ok(());
        }
        Err(Failure::new(Exit::Usage, "nobody is here to be asked for a passphrase")
            .with_hint("run it on a terminal, or give the passphrase in the standard input and add --stdin"))
    }
}

/// How the identity is kept, for programs.
#[derive(Debug, Serialize)]
struct Standing {
    device: String,
    path: String,
    /// Whether a passphrase is needed to open it.
    locked: bool,
    /// Whether a service manager hands it over.
    credential: bool,
    /// What each try of a passphrase takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u32>,
}

fn status(context: &Context, json: bool) -> Result<(), Failure> {
    let found = unlock::found(&context.paths)?;
    let cost = match &found.file {
        KeyFile::Locked(sealed) => Some(sealed.cost()),
        KeyFile::Plain(_) => None,
    };
    let standing = Standing {
        device: found.file.device_id().to_string(),
        path: found.path.display().to_string(),
        locked: cost.is_some(),
        credential: found.is_credential,
        memory_mib: cost.map(|cost| cost.memory_mib()),
    };
    if json {
        return output::say_json(&standing);
    }
    let kind = if found.is_credential { "credential" } else { "file" };
    let locked = match cost {
        Some(cost) => format!("with a passphrase (Argon2id, {} MiB)", cost.memory_mib()),
        None => "no; `kinfold key lock` puts a passphrase on it".to_owned(),
    };
    output::say_columns(&[
        vec!["device".into(), standing.device],
        vec![kind.into(), output::printable(&standing.path)],
        vec!["locked".into(), locked],
    ])
}
