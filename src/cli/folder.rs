//! `kinfold folder`: which folders are synced, and with whom.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::Zoned;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::when;
use crate::config::Accept;
use crate::config::Config;
use crate::config::edit::NewFolder;
use crate::config::error::EditError;
use crate::config::windows::shortly;
use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::rights::Right;

/// Arguments of `kinfold folder`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Sync a directory
    Add {
        /// The directory
        path: PathBuf,

        /// What to call the folder
        #[arg(long)]
        name: String,

        /// Share it with a device; may be repeated. RIGHT is reader, adder, writer or owner, and owner where it is left out
        #[arg(long = "share", value_name = "DEVICE[:RIGHT]")]
        shares: Vec<String>,
    },
    /// Share a folder with a device, or change what the device may do
    Share {
        /// The folder
        folder: String,

        /// The device; RIGHT is reader, adder, writer or owner, and owner where it is left out
        #[arg(value_name = "DEVICE[:RIGHT]")]
        device: String,
    },
    /// Share a folder with a device no longer
    Unshare {
        /// The folder
        folder: String,

        /// The device, by name or id
        device: String,
    },
    /// List the folders that other devices would share
    Offers {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a folder that another device shares, now or later
    Accept {
        /// What the folder is called there
        name: String,

        /// Where to put it; made where it is missing
        path: PathBuf,

        /// The device that shares it
        #[arg(long, value_name = "DEVICE")]
        from: String,
    },
    /// List the folders of this device
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Sync a folder no longer; its files stay
    Remove {
        /// The folder
        folder: String,
    },
    /// Let a folder rest, until you say otherwise or until a time
    Pause {
        /// The folder
        folder: String,

        /// Go on at this time: `18:00`, `tomorrow 8:00`, `monday` or `2026-05-31 18:00`
        #[arg(long, value_name = "TIME", value_parser = ahead, conflicts_with = "end")]
        until: Option<Timestamp>,

        /// Go on after so long: `2h`, `90 minutes` or `3 days`
        #[arg(long = "for", value_name = "LENGTH", value_parser = end)]
        end: Option<Timestamp>,
    },
    /// Let a folder that was paused go on
    Resume {
        /// The folder
        folder: String,
    },
    /// Compare a folder with the disk now; returns when that is done
    Scan {
        /// The folder
        folder: String,
    },
    /// Let happen what is held in a folder because it would delete or rewrite much of it
    Release {
        /// The folder
        folder: String,

        /// Let it not happen: the other devices take back what lies here
        #[arg(long)]
        reject: bool,
    },
    /// Change a setting of a folder: rescan_minutes, gitignore, history_days, history_size, active, metered, brake, scrub_days or
    /// merge
    Set {
        /// The folder
        folder: String,

        /// The setting and its value
        #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
        setting: (String, String),
    },
}

/// Runs the command.
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Add { path, name, shares } => add(context, &path, &name, &shares)?,
        Command::Share { folder, device } => share(context, &folder, &device)?,
        Command::Unshare { folder, device } => unshare(context, &folder, &device)?,
        Command::Offers { json } => offers(context, json)?,
        Command::Accept { name, path, from } => accept(context, name, &path, &from)?,
        Command::List { json } => list(context, json)?,
        Command::Remove { folder } => remove(context, &folder)?,
        Command::Pause { folder, until, end } => pause(context, &folder, until.or(end))?,
        Command::Resume { folder } => {
            context.edit(|edit| Ok(edit.resume(&folder)?))?;
            output::say(format_args!("`{}` goes on", output::escaped(&folder)))?;
        }
        Command::Release { folder, reject } => release(context, &folder, reject)?,
        Command::Scan { folder } => context.client()?.scan(&folder)?,
        Command::Set { folder, setting: (key, value) } => {
            context.edit(|edit| Ok(edit.set(&folder, &key, &value)?))?;
        }
    }
    Ok(Exit::Done)
}

fn pause(context: &Context, folder: &str, until: Option<Timestamp>) -> Result<(), Failure> {
    let name = output::escaped(folder);
    match until {
        None => {
            context.edit(|edit| Ok(edit.pause(folder)?))?;
            output::say(format_args!("`{name}` rests"))
        }
        Some(until) => {
            context.edit(|edit| Ok(edit.pause_until(folder, until)?))?;
            let now = Zoned::now();
            let until = shortly(&until.to_zoned(now.time_zone().clone()), &now);
            output::say(format_args!("`{name}` rests until {until}"))
        }
    }
}

fn add(context: &Context, path: &Path, name: &str, shares: &[String]) -> Result<(), Failure> {
    let own = context.own_id()?;
    context.edit(|edit| {
        let shares = shares.iter().map(|text| parse_share(edit.config(), text)).collect::<Result<_, _>>()?;
        let path = absolute(path)?;
        Ok(edit.add_folder(&own, &NewFolder { name: name.to_owned(), path, id: new_id()?, shares })?)
    })?;
    output::say(format_args!("`{}` is synced now", output::escaped(name)))
}

fn share(context: &Context, folder: &str, text: &str) -> Result<(), Failure> {
    let own = context.own_id()?;
    let (name, right, changed, is_here) = context.edit(|edit| {
        let (device, right) = parse_share(edit.config(), text)?;
        let changed = edit.share(&own, folder, &device, right)?;
        let name = edit.config().device(&device).map_or_else(|| device.to_string(), |device| device.name.clone());
        Ok((name, right, changed, edit.config().folder_named(folder).is_some()))
    })?;
    let (folder, name, right) = (output::escaped(folder), output::escaped(&name), right.as_str());
    match (is_here, changed) {
        (true, true) => output::say(format_args!("`{folder}` is now shared with `{name}` as {right}")),
        (true, false) => output::say(format_args!("`{folder}` is already shared with `{name}` as {right}")),
        (false, _) => output::say(format_args!("`{folder}` is shared with `{name}` as {right} once it is offered")),
    }
}

fn unshare(context: &Context, folder: &str, text: &str) -> Result<(), Failure> {
    let own = context.own_id()?;
    context.edit(|edit| {
        // A member that is trusted no longer, or never was, can be named by its id.
        let device = match edit.config().device_named(text) {
            Some(device) => device.id,
            None => DeviceId::parse(text).map_err(|_| EditError::UnknownDevice { name: text.to_owned() })?,
        };
        Ok(edit.unshare(&own, folder, &device)?)
    })?;
    output::say(format_args!("`{}` is not shared with `{}`", output::escaped(folder), output::escaped(text)))
}

fn offers(context: &Context, json: bool) -> Result<(), Failure> {
    let offers = context.client()?.offers()?;
    if json {
        return output::say_json(&offers);
    }
    let rows: Vec<_> = offers
        .iter()
        .map(|offer| {
            let from = format!("from {}", output::escaped(&offer.from.name));
            vec![output::escaped(&offer.name), from, format!("as {}", offer.right.as_str())]
        })
        .collect();
    output::say_columns(&rows)
}

fn accept(context: &Context, name: String, path: &Path, from: &str) -> Result<(), Failure> {
    let path = absolute(path)?;
    let is_here = context.edit(|edit| {
        let device = edit.config().device_named(from).map(|device| device.id);
        let from = device.ok_or_else(|| EditError::UnknownDevice { name: from.to_owned() })?;
        let made = make_directory(&path)?;
        if let Err(error) = edit.accept(&Accept { name: name.clone(), path: path.clone(), from, shares: vec![] }) {
            if made {
                // Only what was made here a moment ago, and only while it is empty.
                fs::remove_dir(&path).ok();
            }
            return Err(error.into());
        }
        Ok(edit.config().folder_named(&name).is_some())
    })?;
    let when = if is_here { "is here already" } else { "comes as soon as it is offered" };
    let path = output::printable(&path.display().to_string());
    output::say(format_args!("`{}` {when}: {path}", output::escaped(&name)))
}

fn list(context: &Context, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Row {
        name: String,
        path: PathBuf,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        state: &'static str,
        members: Vec<String>,
    }
    let config = context.config()?;
    let name_of = |id: &DeviceId| config.device(id).map_or_else(|| id.to_string(), |device| device.name.clone());
    // The list is of use on a device without an identity, too.
    let own = context.own_id().ok();
    let mut rows = vec![];
    let now = Timestamp::now();
    for folder in &config.folders {
        let members = folder.members.lines().iter().filter(|line| Some(line.device) != own);
        rows.push(Row {
            name: folder.name.clone(),
            path: folder.path.clone(),
            id: Some(folder.id.to_string()),
            state: if folder.is_paused(now) { "paused" } else { "active" },
            members: members
                .filter_map(|line| Some(format!("{}:{}", name_of(&line.device), line.right?.as_str())))
                .collect(),
        });
    }
    for accept in &config.accepts {
        let (name, path, members) = (accept.name.clone(), accept.path.clone(), vec![name_of(&accept.from)]);
        rows.push(Row { name, path, id: None, state: "waits for its offer", members });
    }
    if json {
        return output::say_json(&rows);
    }
    let columns: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let path = output::escaped(&row.path.to_string_lossy());
            vec![output::escaped(&row.name), path, row.state.to_owned(), output::escaped(&row.members.join(" "))]
        })
        .collect();
    output::say_columns(&columns)
}

fn remove(context: &Context, folder: &str) -> Result<(), Failure> {
    let path = context.edit(|edit| Ok(edit.remove_folder(folder)?))?;
    let path = output::printable(&path.display().to_string());
    output::say(format_args!("`{}` is synced no longer; its files stay in {path}", output::escaped(folder)))
}

fn release(context: &Context, folder: &str, reject: bool) -> Result<(), Failure> {
    let released = context.client()?.release(folder, reject)?;
    let folder = output::escaped(folder);
    let mut what = vec![];
    if released.deleted > 0 {
        what.push(output::counted(released.deleted, "deletion", "deletions"));
    }
    if released.rewritten > 0 {
        what.push(output::counted(released.rewritten, "rewritten file", "rewritten files"));
    }
    let what = what.join(" and ");
    output::say(match (what.is_empty(), reject) {
        (true, _) => format!("nothing is held in `{folder}`"),
        (false, false) => format!("released in `{folder}`: {what}"),
        (false, true) => format!("rejected in `{folder}`: {what}; the other devices take back what lies here"),
    })
}

/// Reads `DEVICE[:RIGHT]`. A device whose whole name fits comes first, for names may have colons.
fn parse_share(config: &Config, text: &str) -> Result<(DeviceId, Right), Failure> {
    let unknown = |name: &str| EditError::UnknownDevice { name: name.to_owned() };
    if let Some(device) = config.device_named(text) {
        return Ok((device.id, Right::Owner));
    }
    let (name, word) = text.rsplit_once(':').ok_or_else(|| unknown(text))?;
    let device = config.device_named(name).ok_or_else(|| unknown(name))?;
    match Right::parse(word) {
        Some(right) => Ok((device.id, right)),
        None => {
            let words = Right::ALL.map(Right::as_str).join(", ");
            Err(Failure::new(Exit::Failed, format!("`{word}` is not a right")).with_hint(format!("rights are {words}")))
        }
    }
}

/// Returns a new random folder id.
pub fn new_id() -> Result<FolderId, Failure> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Failure::new(Exit::Failed, "the system gives no randomness"))?;
    Ok(FolderId(id))
}

/// Makes a directory whose parent exists. Returns whether it was missing.
pub fn make_directory(path: &Path) -> Result<bool, Failure> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            let doing = format!("cannot create {}", path.display());
            Err(Failure::from_error(&error).while_doing(&doing).with_hint("make the directory above it first"))
        }
    }
}

/// Makes a path absolute without following links.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let doing = || format!("cannot tell what {} is", path.display());
    std::path::absolute(path).map_err(|error| Failure::from_error(&error).while_doing(&doing()))
}

fn ahead(text: &str) -> Result<Timestamp, String> {
    when::parse_ahead(text, &Zoned::now())
}

fn end(text: &str) -> Result<Timestamp, String> {
    when::parse_length(text, &Zoned::now())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
