//! `kinfold key`: the key of this device, and a passphrase on its identity.

use std::io;
use std::io::IsTerminal;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::passphrase;
use crate::cli::rotate;
use crate::cli::unlock;
use crate::daemon::rotation;
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
    /// Give this device another key, without pairing it again
    Rotate(rotate::Args),
}

/// Where passphrases come from.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Source {
    /// Read the passphrase from the standard input, a line; where two are needed, the one that it has now comes first
    #[arg(long)]
    pub stdin: bool,
}

/// Runs the command.
pub fn run(context: &Context, command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Lock(from) => lock(context, *from)?,
        Command::Change(from) => change(context, *from)?,
        Command::Unlock(from) => unlock(context, *from)?,
        Command::Status { json } => status(context, *json)?,
        Command::Rotate(args) => return rotate::run(context, args),
    }
    Ok(Exit::Done)
}

fn lock(context: &Context, from: Source) -> Result<(), Failure> {
    let path = context.paths.identity();
    if let KeyFile::Locked(_) = file(context)? {
        return Err(KeyError::LockedAlready { path }.into());
    }
    let new = from.new_one()?;
    let _still = rotation::hold_off(&context.paths)?;
    let remains = key_file::lock(&path, &new, Cost::STANDARD)?;
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
    let (old, new) = (from.present_one()?, from.new_one()?);
    let _still = rotation::hold_off(&context.paths)?;
    key_file::change(&path, &old, &new, Cost::STANDARD)?;
    output::say("the identity has another passphrase now; copies of the file still have the old one")
}

fn unlock(context: &Context, from: Source) -> Result<(), Failure> {
    let path = context.paths.identity();
    if let KeyFile::Plain(_) = file(context)? {
        return Err(KeyError::NotLocked { path }.into());
    }
    let old = from.present_one()?;
    let _still = rotation::hold_off(&context.paths)?;
    key_file::unlock(&path, &old)?;
    output::say("the identity is not locked any more: whoever has the file is this device")
}

/// Reads the identity's own file: a credential is for whoever made it to change. Nor does it change while it is one of
/// two.
fn file(context: &Context) -> Result<KeyFile, Failure> {
    let file = match KeyFile::read(&context.paths.identity()) {
        Err(KeyError::Missing { .. }) => return Err(unlock::missing(&context.paths)),
        file => file?,
    };
    // Before anybody types a passphrase; what counts is the look after that.
    rotation::hold_off(&context.paths)?;
    Ok(file)
}

impl Source {
    /// Returns the passphrase that the identity has.
    pub fn present_one(self) -> Result<Passphrase, Failure> {
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
