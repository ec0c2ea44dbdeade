//! `kinfold import`: folders that another program has synced so far.
//!
//! Nothing that exists is overwritten, and a folder whose patterns cannot be translated is left out: without
//! them, what a person wants to keep to themselves would be given away. A second run finds what the first has
//! done and does the rest.

pub mod stignore;
pub mod syncthing;

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::folder::new_id;
use crate::cli::import::stignore::Translated;
use crate::cli::import::syncthing::Device;
use crate::cli::import::syncthing::Direction;
use crate::cli::import::syncthing::Folder;
use crate::cli::import::syncthing::Syncthing;
use crate::cli::output;
use crate::cli::output::counted;
use crate::cli::output::escaped;
use crate::cli::output::printable;
use crate::config::Config;
use crate::config::edit::Edit;
use crate::config::edit::NewFolder;
use crate::config::error::check_label;
use crate::config::load::DEFAULT_HISTORY_DAYS;
use crate::config::load::DEFAULT_RESCAN_MINUTES;
use crate::model::id::DeviceId;
use crate::model::limits::IGNORE_FILE_LEN_MAX;
use crate::model::shell::quoted;

/// Arguments of `kinfold import`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Take over the folders of Syncthing, with their ignore patterns
    Syncthing(Args),
}

/// Arguments of `kinfold import syncthing`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration of Syncthing, such as ~/.local/state/syncthing/config.xml
    config: PathBuf,

    /// Only say what would be done, and print the patterns
    #[arg(long)]
    dry_run: bool,
}

const IGNORE_FILE: &str = ".kinfoldignore";

/// Runs the command. Ends with [`Exit::NeedsPerson`] where a folder is left out.
pub fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let Command::Syncthing(args) = command;
    let read = read(&args.config)?;
    let own_name_there = own_device(&args.config, &read.devices);
    let own = context.own_id()?;
    let outcomes = if args.dry_run {
        let config = context.config()?;
        let mut names = vec![];
        read.folders.iter().map(|folder| plan(folder, &config, &mut names)).collect::<Vec<_>>()
    } else {
        context.edit(|edit| {
            let mut names = vec![];
            let take = |folder| {
                let planned = plan(folder, edit.config(), &mut names);
                carry_out(edit, &own, folder, planned)
            };
            Ok(read.folders.iter().map(take).collect::<Vec<_>>())
        })?
    };
    let here = context.config()?.name;
    report(&read, &outcomes, own_name_there.as_deref(), &here, args.dry_run)?;
    let is_left_out = outcomes.iter().any(|outcome| matches!(outcome, Outcome::LeftOut { .. }));
    Ok(if is_left_out { Exit::NeedsPerson } else { Exit::Done })
}

/// What becomes of a folder.
enum Outcome {
    /// It is taken over.
    Taken { name: String, path: PathBuf, rules: Translated },
    /// It is synced by this device already.
    Here { name: String },
    /// It has to come from another device, which sends it.
    FromElsewhere { name: String, path: PathBuf },
    /// It is not taken over.
    LeftOut { why: String, hint: Option<String> },
}

impl Outcome {
    fn left_out(why: impl Into<String>, hint: &str) -> Self {
        Self::LeftOut { why: why.into(), hint: Some(hint.to_owned()) }
    }
}

fn read(path: &Path) -> Result<Syncthing, Failure> {
    let failed = |failure: Failure| {
        let hint = "name the `config.xml` of Syncthing; `syncthing paths` says where it lies";
        failure.while_doing(&format!("cannot read {}", path.display())).with_hint(hint)
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(syncthing::CONFIG_LEN_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(failed(Failure::new(Exit::Failed, "it is not UTF-8")));
        }
        Err(error) => return Err(failed(Failure::from_error(&error))),
        Ok(_) if text.len() as u64 > syncthing::CONFIG_LEN_MAX => {
            let most = output::bytes(syncthing::CONFIG_LEN_MAX);
            return Err(failed(Failure::new(Exit::Failed, format!("it is longer than {most}"))));
        }
        Ok(_) => {}
    }
    syncthing::read(&text).map_err(|error| failed(Failure::from_error(&error)))
}

/// Returns which of the devices there this one is, by the certificate that lies beside the configuration.
fn own_device(config: &Path, devices: &[Device]) -> Option<String> {
    let pem = fs::read_to_string(config.with_file_name("cert.pem")).ok()?;
    let own = syncthing::id_of_certificate(&pem)?;
    devices.iter().find(|device| syncthing::is_id(&device.id, &own)).map(|device| device.id.clone())
}

/// Decides what is to become of a folder. Changes nothing but the names that are given already.
fn plan(folder: &Folder, config: &Config, names: &mut Vec<String>) -> Outcome {
    let path = match absolute(&folder.path) {
        Ok(path) => path,
        Err(why) => return Outcome::left_out(why, "add it by hand with `kinfold folder add`"),
    };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let known = config.folders.iter().map(|folder| (&folder.name, &folder.path));
    let mut known = known.chain(config.accepts.iter().map(|accept| (&accept.name, &accept.path)));
    if let Some((name, _)) = known.find(|(_, known)| real(known) == real(&path)) {
        return Outcome::Here { name: name.clone() };
    }
    let name = name_for(folder, config, names);
    match folder.direction {
        Direction::Receive => return Outcome::FromElsewhere { name, path },
        Direction::ReceiveEncrypted => {
            return Outcome::left_out(
                "a device that stores what it cannot read has no counterpart",
                "keep Syncthing for this one, or have it read the folder: `kinfold folder accept`",
            );
        }
        Direction::Both | Direction::Send => {}
    }
    if !path.is_dir() {
        return Outcome::left_out(format!("{} is no directory", path.display()), "is its disk mounted?");
    }
    if !path.join(&folder.marker).exists() {
        let why = format!("{} is missing, by which Syncthing knows the folder", path.join(&folder.marker).display());
        return Outcome::left_out(why, "is its disk mounted? If all is there, `kinfold folder add` takes it as it is");
    }
    match rules(&path) {
        Ok(rules) => match fs::read(path.join(IGNORE_FILE)) {
            Ok(there) if there != rules.text.as_bytes() => Outcome::left_out(
                format!("{} exists already, with other rules", path.join(IGNORE_FILE).display()),
                "compare it with what `--dry-run` prints, then `kinfold folder add`",
            ),
            Ok(_) => Outcome::Taken { name, path, rules },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Outcome::Taken { name, path, rules },
            Err(error) => Outcome::LeftOut { why: format!("cannot read its {IGNORE_FILE}: {error}"), hint: None },
        },
        Err(why) => Outcome::left_out(
            format!("its patterns cannot be translated: {why}"),
            "without them more would be synced than before; change that line, then run this once more",
        ),
    }
}

/// Reads and translates the patterns of a folder.
fn rules(root: &Path) -> Result<Translated, String> {
    let text = match read_patterns(&root.join(".stignore")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(format!(".stignore cannot be read: {error}")),
    };
    let mut include = |name: &str| read_patterns(&root.join(name)).map_err(|error| error.to_string());
    let rules = stignore::translate(&text, &mut include).map_err(|error| error.to_string())?;
    if rules.text.len() as u64 > IGNORE_FILE_LEN_MAX {
        return Err(format!("they come to more than {}", output::bytes(IGNORE_FILE_LEN_MAX)));
    }
    Ok(rules)
}

fn read_patterns(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(IGNORE_FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > IGNORE_FILE_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(text)
}

/// Returns the path of a folder there, as it is meant here.
fn absolute(written: &str) -> Result<PathBuf, String> {
    let path = match written.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = std::env::home_dir().filter(|home| home.is_absolute());
            let home = home.ok_or_else(|| format!("{written} needs HOME, which is not set"))?;
            home.join(rest.trim_start_matches('/'))
        }
        _ => PathBuf::from(written),
    };
    if !path.is_absolute() {
        return Err(format!("{written} is no absolute path"));
    }
    // Without what is there twice or at the end: `/a//b/` is `/a/b`.
    Ok(path.components().collect())
}

/// Returns a name for a folder that no other has.
fn name_for(folder: &Folder, config: &Config, names: &mut Vec<String>) -> String {
    let is_free = |name: &String, names: &[String]| {
        let known = config.folders.iter().map(|folder| &folder.name).chain(config.accepts.iter().map(|a| &a.name));
        check_label(name).is_ok() && !names.contains(name) && !known.into_iter().any(|known| known == name)
    };
    let mut ways = vec![folder.label.clone(), folder.id.clone(), format!("{} ({})", folder.label, folder.id)];
    if !folder.label.is_empty() {
        // Two of the same label: the id says which.
        ways.swap(1, 2);
    }
    ways.extend((2..).take(names.len() + config.folders.len() + 2).map(|n| format!("syncthing-{n}")));
    let name = ways.into_iter().find(|name| is_free(name, names)).unwrap_or_else(|| folder.id.clone());
    names.push(name.clone());
    name
}

/// Writes the rules of a folder and adds it to the configuration. What fails leaves out the folder alone.
fn carry_out(edit: &mut Edit, own: &DeviceId, folder: &Folder, planned: Outcome) -> Outcome {
    let Outcome::Taken { name, path, rules } = planned else { return planned };
    let file = path.join(IGNORE_FILE);
    let is_new = match write_new(&file, &rules.text) {
        Ok(()) => true,
        // Equal to what was to be written, a moment ago.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            let why = format!("cannot write {}: {error}", file.display());
            return Outcome::LeftOut { why, hint: None };
        }
    };
    if !is_new && fs::read(&file).ok().as_deref() != Some(rules.text.as_bytes()) {
        let why = format!("{} exists already, with other rules", file.display());
        return Outcome::LeftOut { why, hint: None };
    }
    match add(edit, own, folder, &name, &path) {
        Ok(()) => Outcome::Taken { name, path, rules },
        Err(failure) => {
            if is_new {
                // Only what was written here a moment ago.
                fs::remove_file(&file).ok();
            }
            Outcome::LeftOut { why: failure.message().to_owned(), hint: failure.hint().map(str::to_owned) }
        }
    }
}

fn add(edit: &mut Edit, own: &DeviceId, folder: &Folder, name: &str, path: &Path) -> Result<(), Failure> {
    let new = NewFolder { name: name.to_owned(), path: path.to_owned(), id: new_id()?, shares: vec![] };
    edit.add_folder(own, &new)?;
    for (key, value) in settings(folder) {
        edit.set(name, key, &value)?;
    }
    if folder.paused {
        edit.pause(name)?;
    }
    Ok(())
}

/// Returns the settings of a folder that are not the default here.
fn settings(folder: &Folder) -> Vec<(&'static str, String)> {
    let mut settings = vec![];
    let minutes = folder.rescan_seconds.map(|seconds| seconds.div_ceil(60).min(u64::from(u32::MAX)));
    if let Some(minutes) = minutes.filter(|minutes| *minutes != u64::from(DEFAULT_RESCAN_MINUTES)) {
        settings.push(("rescan_minutes", minutes.to_string()));
    }
    if let Some(days) = folder.history_days.filter(|days| *days != DEFAULT_HISTORY_DAYS) {
        settings.push(("history_days", days.to_string()));
    }
    settings
}

/// Writes a file that is not there yet, durably.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half of the rules would be worse than none.
        fs::remove_file(path).ok();
    }
    written
}

fn report(read: &Syncthing, outcomes: &[Outcome], own: Option<&str>, here: &str, dry_run: bool) -> Result<(), Failure> {
    let mut shares: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (folder, outcome) in read.folders.iter().zip(outcomes) {
        folder_lines(folder, outcome, dry_run).iter().try_for_each(output::say)?;
        let (name, right) = match outcome {
            Outcome::Taken { name, .. } | Outcome::Here { name } => {
                (name, if folder.direction == Direction::Send { ":reader" } else { "" })
            }
            Outcome::FromElsewhere { .. } | Outcome::LeftOut { .. } => continue,
        };
        for device in folder.devices.iter().filter(|id| Some(id.as_str()) != own) {
            let with = read.devices.iter().find(|known| known.id == *device).map_or(device, |known| &known.name);
            let with = output::word(&format!("{with}{right}"));
            shares.entry(device).or_default().push(format!("kinfold folder share {} {with}", output::word(name)));
        }
    }
    if !read.notes.is_empty() {
        output::say("Otherwise")?;
        read.notes.iter().try_for_each(|note| output::say(format_args!("  {}", printable(note))))?;
    }
    let others: Vec<_> = read.devices.iter().filter(|device| Some(device.id.as_str()) != own).collect();
    if !others.is_empty() {
        let which = if own.is_none() { ", but for this one, which is among them" } else { "" };
        output::say(format_args!("Devices to be trusted anew, each on both sides{which}"))?;
    }
    for device in others {
        device_lines(device, shares.get(device.id.as_str())).iter().try_for_each(output::say)?;
    }
    output::say("Then, on each of these devices, into the directory where the folder lies there already:")?;
    output::say(format_args!("  kinfold folder accept NAME PATH --from {}", output::word(here)))?;
    let last = "Let only one of the two programs run in a folder: stop Syncthing before kinfold is started.";
    output::say(last)
}

fn folder_lines(folder: &Folder, outcome: &Outcome, dry_run: bool) -> Vec<String> {
    let mut lines = vec![];
    let mut notes: Vec<&String> = vec![];
    match outcome {
        Outcome::Taken { name, path, rules } => {
            let what = if dry_run { "would be taken over" } else { "is taken over" };
            let path = output::printable(&path.display().to_string());
            let patterns = counted(rules.patterns as u64, "pattern", "patterns");
            lines.push(format!("`{}` {what}: {path}, {patterns}", escaped(name)));
            notes.extend(&rules.notes);
            if folder.paused {
                lines.push("  rests, as it did there".to_owned());
            }
            lines.extend(settings(folder).into_iter().map(|(key, value)| format!("  {key} = {value}")));
            if folder.direction == Direction::Send {
                lines.push("  this device only sends it: share it with others as `reader`".to_owned());
            }
            if dry_run {
                lines.push(format!("  {IGNORE_FILE} would be:"));
                lines.extend(rules.text.lines().map(|line| format!("    {}", printable(line))));
            }
        }
        Outcome::Here { name } => lines.push(format!("`{}` is synced already", escaped(name))),
        Outcome::FromElsewhere { name, path } => {
            let path = output::printable(&path.display().to_string());
            lines.push(format!("`{}` has to come from the device that sends it: {path}", escaped(name)));
            lines.push("  there: kinfold folder share NAME THIS-DEVICE:reader".to_owned());
            let path = quoted(&path);
            lines.push(format!("  here:  kinfold folder accept NAME {path} --from THAT-DEVICE"));
            lines.push(
                "  its .stignore stays as it is; what is left out is said in the .kinfoldignore of that device"
                    .to_owned(),
            );
        }
        Outcome::LeftOut { why, hint } => {
            let name = if folder.label.is_empty() { &folder.id } else { &folder.label };
            lines.push(format!("`{}` is left out: {}", escaped(name), printable(why)));
            lines.extend(hint.iter().map(|hint| format!("  {}", printable(hint))));
        }
    }
    notes.extend(&folder.notes);
    lines.extend(notes.into_iter().map(|note| format!("  {}", printable(note))));
    lines
}

fn device_lines(device: &Device, shares: Option<&Vec<String>>) -> Vec<String> {
    let name = if device.name.is_empty() { "unnamed" } else { &device.name };
    let mut lines = vec![format!("  {} ({})", escaped(name), escaped(&device.id))];
    let addresses: String = device.addresses.iter().map(|address| format!(" --address {address}")).collect();
    lines.push(format!("    kinfold device add ID --name {}{addresses}", output::word(name)));
    lines.extend(shares.into_iter().flatten().map(|share| format!("    {share}")));
    lines.extend(device.notes.iter().map(|note| format!("    {}", printable(note))));
    lines
}
