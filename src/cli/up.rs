//! `kinfold up`: from nothing to a synced folder, and every day after that.

use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::folder;
use crate::cli::init;
use crate::cli::live;
use crate::cli::live::LiveView;
use crate::cli::logging::LogArgs;
use crate::cli::output;
use crate::cli::serve;
use crate::cli::unlock;
use crate::cli::unlock::KeyArgs;
use crate::config::Config;
use crate::config::edit::NewFolder;
use crate::config::load::real_path;
use crate::control::client::ControlError;
use crate::model::id::DeviceId;

/// Arguments of `kinfold up`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory to sync; made where it is missing [default: ~/Kinfold, where no folder is synced yet]
    path: Option<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    log: LogArgs,
}

/// Bytes of the log that are told once the view is over; `kinfold log` has more while the daemon runs.
const LOG_TOLD_MAX: u64 = 16 << 10;

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let own = init::set_up(context, None, &[])?;
    if let Some(path) = wanted(&context.config()?, args.path.as_deref())? {
        sync(context, &own, &path)?;
    }
    let config = context.config()?;
    output::say(format_args!("{}  {own}", output::escaped(&config.name)))?;
    for folder in &config.folders {
        let path = output::printable(&folder.path.display().to_string());
        output::say(format_args!("{}  {path}", output::escaped(&folder.name)))?;
    }
    match context.client()?.status() {
        Err(ControlError::NoDaemon { .. }) => {}
        answer => {
            answer?;
            output::say("a daemon is running already; see `kinfold status`")?;
            return Ok(Exit::Done);
        }
    }
    if config.devices.is_empty() {
        output::say("to add a device, run `kinfold pair` here and what it shows there")?;
    }
    // Asked for before the view has the terminal.
    let identity = unlock::identity(&context.paths, &args.key)?;
    // Where the view has the whole terminal, what is logged has to wait until it gives it back.
    let log = match live::has_terminal() {
        true => Some(tempfile::tempfile().map_err(|error| Failure::from_error(&error).while_doing("cannot log"))?),
        false => None,
    };
    let view = LiveView::start(context.paths.socket.clone(), log.is_some());
    let served = serve::keep(context, identity, args.log.as_given("warn"), log.as_ref());
    view.finish();
    if let Some(log) = log {
        // Nobody is left to tell that nothing can be told.
        tell(log).ok();
    }
    served
}

/// Says the last of what was logged.
fn tell(mut log: File) -> io::Result<()> {
    let len = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(len.saturating_sub(LOG_TOLD_MAX)))?;
    io::copy(&mut log, &mut io::stderr().lock())?;
    Ok(())
}

/// Returns the directory that was asked for, or on a device without folders the default one.
fn wanted(config: &Config, path: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    match path {
        Some(path) => folder::absolute(path).map(Some),
        None if config.folders.is_empty() && config.accepts.is_empty() => {
            let home = etcetera::home_dir().map_err(|error| Failure::from_error(&error))?;
            Ok(Some(home.join("Kinfold")))
        }
        None => Ok(None),
    }
}

/// Begins to sync a directory, unless that is done already.
fn sync(context: &Context, own: &DeviceId, path: &Path) -> Result<(), Failure> {
    let real = real_path(path);
    context.edit(|edit| {
        let config = edit.config();
        let is_accepted = config.accepts.iter().any(|accept| real_path(&accept.path) == real);
        if is_accepted || config.folders.iter().any(|folder| real_path(&folder.path) == real) {
            return Ok(());
        }
        let name = free_name(config, &real);
        folder::make_directory(path)?;
        let folder = NewFolder { name, path: path.to_owned(), id: folder::new_id()?, shares: vec![] };
        Ok(edit.add_folder(own, &folder)?)
    })
}

/// Names a folder after its directory, with a number where that name is taken.
pub(crate) fn free_name(config: &Config, path: &Path) -> String {
    let plain = path.file_name().and_then(|name| name.to_str()).unwrap_or("folder").to_owned();
    let numbered = (2..).map(|n| format!("{plain}-{n}"));
    let taken =
        |name: &String| config.folder_named(name).is_some() || config.accepts.iter().any(|accept| accept.name == *name);
    std::iter::once(plain.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(plain)
}
