//! Where the identity of this device is, and how it is opened where it is locked.
//!
//! It lies in the state directory, or a service manager hands it over as a credential. The passphrase of a locked one
//! comes from a file that was named, from a credential, or from whoever sits at the terminal; never from an argument or
//! the environment, which others can see and programs hand on.

use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::passphrase;
use crate::config::paths::Paths;
use crate::keys::identity::Identity;
use crate::keys::key_file;
use crate::keys::key_file::KeyError;
use crate::keys::key_file::KeyFile;
use crate::keys::passphrase::Passphrase;
use crate::keys::sealed::SealError;
use crate::keys::sealed::Sealed;

/// Arguments of commands that need the identity itself.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// Where the identity is locked, take its passphrase from the first line of this file, or of `-`, the standard input
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// The credential that is an identity.
pub const IDENTITY: &str = "kinfold.identity";
/// The credential that is a passphrase.
const PASSPHRASE: &str = "kinfold.passphrase";
/// The directory in which systemd hands credentials over.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// How often a person may mistype the passphrase.
const TRIES: u32 = 3;

/// An identity that was found.
#[derive(Debug)]
pub struct Found {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is.
    pub file: KeyFile,
    /// Whether a service manager has handed it over.
    pub is_credential: bool,
}

impl Found {
    /// Returns whether a passphrase is needed to open it.
    pub fn is_locked(&self) -> bool {
        matches!(self.file, KeyFile::Locked(_))
    }
}

/// Returns the path of a credential, where there is one of that name.
pub fn credential(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os(CREDENTIALS)?).join(name);
    // One that cannot be looked at is there, and the reason is told when it is read.
    path.try_exists().unwrap_or(true).then_some(path)
}

/// Finds the identity of this device. There is none before `kinfold init`.
///
/// # Errors
/// There are two, of different devices; or what lies there is no identity.
pub fn find(paths: &Paths) -> Result<Option<Found>, Failure> {
    let path = paths.identity();
    let own = match KeyFile::read(&path) {
        Err(KeyError::Missing { .. }) => None,
        own => Some(Found { file: own?, path, is_credential: false }),
    };
    let Some(path) = credential(IDENTITY) else { return Ok(own) };
    let given = Found { file: KeyFile::read_credential(&path)?, path, is_credential: true };
    match own {
        Some(own) if own.file.device_id() != given.file.device_id() => Err(Failure::new(
            Exit::Failed,
            format!(
                "{} is the identity of another device than {}, which the service manager hands over",
                own.path.display(),
                given.path.display()
            ),
        )
        .with_hint("keep the one that this device is, and put the other away")),
        _ => Ok(Some(given)),
    }
}

/// Finds it, where there has to be one.
pub fn found(paths: &Paths) -> Result<Found, Failure> {
    find(paths)?.ok_or_else(|| missing(paths))
}

/// There is none.
pub fn missing(paths: &Paths) -> Failure {
    let path = paths.identity();
    Failure::new(Exit::Failed, format!("this device has no identity yet ({})", path.display()))
        .with_hint("run `kinfold init` once on this device")
}

/// Opens the identity of this device, with a passphrase where it needs one.
pub fn identity(paths: &Paths, args: &KeyArgs) -> Result<Identity, Failure> {
    let Found { path, file, .. } = found(paths)?;
    let sealed = match file {
        KeyFile::Plain(seed) => return Ok(Identity::from_seed(&seed)),
        KeyFile::Locked(sealed) => sealed,
    };
    match given(args)? {
        Some(passphrase) => Ok(key_file::open_locked(&sealed, &passphrase, &path)?),
        None if io::stdin().is_terminal() => ask(&sealed, &path),
        None => Err(Failure::new(
            Exit::Locked,
            format!("the identity {} is locked, and nobody is here to be asked for its passphrase", path.display()),
        )
        .with_hint(
            "give it by --passphrase-file, or in a service by the credential kinfold.passphrase; see kinfold-key(1)",
        )),
    }
}

/// Returns the passphrase that needs nobody to be asked, where there is one.
fn given(args: &KeyArgs) -> Result<Option<Passphrase>, Failure> {
    let file = args.passphrase_file.clone().or_else(|| credential(PASSPHRASE));
    let Some(path) = file else { return Ok(None) };
    if path == Path::new("-") {
        return passphrase::from_stdin().map(Some);
    }
    let read = File::open(&path).map_err(Into::into).and_then(|mut file| Passphrase::read_line(&mut file));
    read.map(Some).map_err(|error| passphrase::failed(&error, &path.display().to_string()))
}

/// Asks a person, who may mistype it.
fn ask(sealed: &Sealed, path: &Path) -> Result<Identity, Failure> {
    let mut tries = 1;
    loop {
        let passphrase = passphrase::ask("Passphrase of this device: ")?;
        match key_file::open_locked(sealed, &passphrase, path) {
            Err(KeyError::Seal { source: SealError::Wrong, .. }) if tries < TRIES => {
                passphrase::tell("That is not it.")?;
                tries += 1;
            }
            opened => return Ok(opened?),
        }
    }
}
