//! Changes of the configuration file that keep its comments, its order and its spacing.
//!
//! An [`Edit`] holds the lock from reading to writing. Each change is checked by reading the whole
//! text anew; one that would break a rule is refused and leaves no trace. Nothing reaches the disk
//! before [`Edit::save`].

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use toml_edit::Array;
use toml_edit::ArrayOfTables;
use toml_edit::DocumentMut;
use toml_edit::InlineTable;
use toml_edit::Item;
use toml_edit::Table;
use toml_edit::Value;

use crate::config::Accept;
use crate::config::Config;
use crate::config::Device;
use crate::config::Folder;
use crate::config::brake;
use crate::config::error::ConfigError;
use crate::config::error::EditError;
use crate::config::error::check_label;
use crate::config::file;
use crate::config::file::Lock;
use crate::config::load;
use crate::config::load::NO_RIGHT;
use crate::config::load::real_path;
use crate::config::merge;
use crate::config::metered;
use crate::config::paths::Paths;
use crate::config::size::HistorySize;
use crate::config::windows::Windows;
use crate::model::brake::Thresholds;
use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::rights::Member;
use crate::model::rights::Members;
use crate::model::rights::Right;

/// Writes the first configuration of a device. Never overwrites one.
pub fn init(paths: &Paths, name: &str, listen: &[SocketAddr]) -> Result<(), ConfigError> {
    check_label(name).map_err(EditError::Label)?;
    let _lock = Lock::take(paths.config_dir())?;
    if fs::symlink_metadata(&paths.config_file).is_ok() {
        return Err(ConfigError::Exists { path: paths.config_file.clone() });
    }
    file::write(&paths.config_file, &template(name, listen))
}

/// The configuration while it is being changed.
#[derive(Debug)]
pub struct Edit {
    paths: Paths,
    read: String,
    doc: DocumentMut,
    config: Config,
    _lock: Lock,
}

/// A folder that shall be synced.
#[derive(Clone, Debug)]
pub struct NewFolder {
    /// What to call it.
    pub name: String,
    /// Where it lies; a directory that exists.
    pub path: PathBuf,
    /// Its id, random.
    pub id: FolderId,
    /// Whom to share it with.
    pub shares: Vec<(DeviceId, Right)>,
}

impl Edit {
    /// Waits for the lock, then reads and checks the configuration.
    pub fn open(paths: &Paths) -> Result<Self, ConfigError> {
        if !paths.config_file.exists() {
            return Err(ConfigError::Missing { path: paths.config_file.clone() });
        }
        let lock = Lock::take(paths.config_dir())?;
        let read = file::read(&paths.config_file)?;
        let invalid = |fault| ConfigError::Invalid { path: paths.config_file.clone(), fault };
        let config = load::parse(&read, paths).map_err(invalid)?;
        let doc = read.parse().expect("the text was read as TOML just now");
        Ok(Self { paths: paths.clone(), read, doc, config, _lock: lock })
    }

    /// Returns the configuration with all changes so far.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Writes the changes, if there are any, and returns the configuration as it is now.
    pub fn save(self) -> Result<Config, ConfigError> {
        let text = self.doc.to_string();
        if text != self.read {
            file::write(&self.paths.config_file, &text)?;
        }
        Ok(self.config)
    }

    /// Trusts a device, also one that was revoked. Returns whether that changed anything.
    ///
    /// A device that is trusted under this name already only gains addresses. `own` is this device.
    pub fn add_device(&mut self, own: &DeviceId, device: &Device) -> Result<bool, EditError> {
        check_label(&device.name)?;
        if device.id == *own {
            return Err(EditError::OwnDevice);
        }
        if let Some(at) = self.config.devices.iter().position(|known| known.id == device.id) {
            let known = &self.config.devices[at];
            if known.name != device.name {
                return Err(EditError::DeviceKnown { name: known.name.clone() });
            }
            let new: Vec<_> = device.addresses.iter().filter(|new| !known.addresses.contains(new)).copied().collect();
            if !new.is_empty() {
                self.apply(|doc| {
                    let addresses = row(doc, "devices", at).entry("addresses").or_insert(Array::new().into());
                    if let Some(addresses) = addresses.as_array_mut() {
                        addresses.extend(new.iter().map(SocketAddr::to_string));
                    }
                })?;
            }
            return Ok(!new.is_empty());
        }
        self.check_device_name(&device.name)?;
        self.lift_revocation(&device.id)?;
        self.apply(|doc| {
            let mut row = Table::new();
            row.insert("name", value(&device.name));
            row.insert("id", value(&device.id.to_string()));
            if !device.addresses.is_empty() {
                row.insert("addresses", Array::from_iter(device.addresses.iter().map(SocketAddr::to_string)).into());
            }
            push(doc, "devices", row);
        })?;
        Ok(true)
    }

    /// Calls a device otherwise. Returns whether that changed anything.
    pub fn rename_device(&mut self, old: &str, new: &str) -> Result<bool, EditError> {
        check_label(new)?;
        let at = self.device_at(old)?;
        if self.config.devices[at].name == new {
            return Ok(false);
        }
        self.check_device_name(new)?;
        self.apply(|doc| row(doc, "devices", at)["name"] = value(new))?;
        Ok(true)
    }

    /// Trusts a device no longer, and takes it out of all folders that `own`, this device, is an
    /// owner of; what other owners say of their folders is theirs.
    pub fn remove_device(&mut self, own: &DeviceId, name: &str) -> Result<Device, EditError> {
        let at = self.device_at(name)?;
        let device = self.config.devices[at].clone();
        for folder in self.config.folders.clone() {
            let mut members = folder.members.clone();
            if members.right_of(own) == Some(Right::Owner) && members.set(device.id, None) {
                self.write_members(&folder.id, &members)?;
            }
        }
        let accepts = self.config.accepts.clone();
        self.apply(|doc| {
            rows(doc, "devices").remove(at);
            for (n, accept) in accepts.iter().enumerate().rev() {
                if accept.from == device.id {
                    rows(doc, "accepts").remove(n);
                } else {
                    let left = accept.shares.iter().filter(|(known, _)| *known != device.id);
                    write_shares(row(doc, "accepts", n), left);
                }
            }
        })?;
        Ok(device)
    }

    /// Begins to sync a directory, with `own`, this device, as its first owner.
    pub fn add_folder(&mut self, own: &DeviceId, folder: &NewFolder) -> Result<(), EditError> {
        let path = real_directory(&folder.path)?;
        self.check_folder_place(&path)?;
        self.check_folder_name(&folder.name)?;
        let mut members = Members::default();
        members.set(*own, Some(Right::Owner));
        for (device, right) in &folder.shares {
            self.check_trusted(device)?;
            members.set(*device, Some(*right));
        }
        self.push_folder(&folder.name, &folder.id, &path, &members)
    }

    /// Remembers where a folder shall lie that `accept.from` shares or is going to share. Returns
    /// whether that changed anything.
    pub fn accept(&mut self, accept: &Accept) -> Result<bool, EditError> {
        let path = real_path(&accept.path);
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            return Err(EditError::NotADirectory { path });
        }
        let place = |name: &String, path: &Path| (name.clone(), real_path(path));
        let asked = place(&accept.name, &path);
        if self.config.folders.iter().any(|folder| place(&folder.name, &folder.path) == asked) {
            return Ok(false);
        }
        let mut accepts = self.config.accepts.iter();
        if accepts.any(|known| place(&known.name, &known.path) == asked && known.from == accept.from) {
            return Ok(false);
        }
        self.check_folder_place(&path)?;
        self.check_folder_name(&accept.name)?;
        self.check_trusted(&accept.from)?;
        let text = utf8(&path)?.to_owned();
        self.apply(|doc| {
            let mut row = Table::new();
            row.insert("name", value(&accept.name));
            row.insert("path", value(&text));
            row.insert("from", value(&accept.from.to_string()));
            push(doc, "accepts", row);
        })?;
        Ok(true)
    }

    /// Turns what was accepted as `name` from `from` into a folder, now that its offer is here.
    ///
    /// Returns whether it was waited for; if not, nothing changes. It is shared onward as was asked for, as far as
    /// the devices are trusted and this one owns it.
    pub fn complete_accept(
        &mut self,
        own: &DeviceId,
        name: &str,
        from: &DeviceId,
        id: &FolderId,
        members: &Members,
    ) -> Result<bool, EditError> {
        let waits = |accept: &Accept| accept.name == name && accept.from == *from;
        let Some(at) = self.config.accepts.iter().position(waits) else { return Ok(false) };
        if let Some(known) = self.config.folder(id) {
            return Err(EditError::FolderKnown { name: known.name.clone(), path: known.path.clone() });
        }
        let Accept { path, shares, .. } = self.config.accepts[at].clone();
        let mut members = members.clone();
        if members.right_of(own) == Some(Right::Owner) {
            for (device, right) in shares.iter().filter(|(device, _)| self.config.device(device).is_some()) {
                members.set(*device, Some(*right));
            }
        }
        let before = (self.doc.clone(), self.config.clone());
        self.apply(|doc| {
            rows(doc, "accepts").remove(at);
        })?;
        if let Err(error) = self.push_folder(name, id, &path, &members) {
            (self.doc, self.config) = before;
            return Err(error);
        }
        Ok(true)
    }

    /// Gives a device a right in a folder, or remembers to do so where its offer has not arrived yet. Returns
    /// whether that changed anything.
    pub fn share(&mut self, own: &DeviceId, folder: &str, device: &DeviceId, right: Right) -> Result<bool, EditError> {
        self.check_trusted(device)?;
        if let Some(at) = self.accept_at(folder) {
            return self.set_future_share(at, device, Some(right));
        }
        self.set_member(own, folder, device, Some(right))
    }

    /// Takes a device out of a folder, trusted or not. Returns whether that changed anything.
    pub fn unshare(&mut self, own: &DeviceId, folder: &str, device: &DeviceId) -> Result<bool, EditError> {
        if let Some(at) = self.accept_at(folder) {
            return self.set_future_share(at, device, None);
        }
        self.set_member(own, folder, device, None)
    }

    /// Merges the member list that an owner of the folder sent. Returns whether that changed anything.
    pub fn merge_members(&mut self, id: &FolderId, members: &Members) -> Result<bool, EditError> {
        let Some(folder) = self.config.folder(id) else {
            return Err(EditError::UnknownFolder { name: id.to_string() });
        };
        let mut merged = folder.members.clone();
        if !merged.merge(members) {
            return Ok(false);
        }
        self.write_members(id, &merged)?;
        Ok(true)
    }

    /// Syncs a folder no longer, or gives up waiting for its offer. The files stay. Returns where it lies.
    pub fn remove_folder(&mut self, name: &str) -> Result<PathBuf, EditError> {
        if let Some(at) = self.accept_at(name) {
            let path = self.config.accepts[at].path.clone();
            self.apply(|doc| {
                rows(doc, "accepts").remove(at);
            })?;
            return Ok(path);
        }
        let at = self.folder_at(name)?;
        let path = self.config.folders[at].path.clone();
        self.apply(|doc| {
            rows(doc, "folders").remove(at);
        })?;
        Ok(path)
    }

    /// Lets a folder rest until a person says otherwise. Returns whether it did not already.
    pub fn pause(&mut self, name: &str) -> Result<bool, EditError> {
        let at = self.folder_at(name)?;
        let changes = !self.config.folders[at].paused;
        if changes {
            self.apply(|doc| {
                let row = row(doc, "folders", at);
                row.remove("paused_until");
                row["paused"] = toml_edit::value(true);
            })?;
        }
        Ok(changes)
    }

    /// Lets a folder go on. Returns whether a person had let it rest.
    pub fn resume(&mut self, name: &str) -> Result<bool, EditError> {
        let at = self.folder_at(name)?;
        let changes = self.config.folders[at].paused || self.config.folders[at].paused_until.is_some();
        if changes {
            self.apply(|doc| {
                let row = row(doc, "folders", at);
                row.remove("paused");
                row.remove("paused_until");
            })?;
        }
        Ok(changes)
    }

    /// Changes a setting of a folder, from text. Returns whether that changed anything.
    pub fn set(&mut self, name: &str, key: &str, text: &str) -> Result<bool, EditError> {
        let at = self.folder_at(name)?;
        let (key, item) = setting(key, text)?;
        let before = self.config.folders[at].clone();
        self.apply(|doc| row(doc, "folders", at)[key] = item)?;
        Ok(self.config.folders[at] != before)
    }

    pub(super) fn apply(&mut self, change: impl FnOnce(&mut DocumentMut)) -> Result<(), EditError> {
        let mut doc = self.doc.clone();
        change(&mut doc);
        self.config = load::parse(&doc.to_string(), &self.paths).map_err(EditError::Rule)?;
        self.doc = doc;
        Ok(())
    }

    fn set_member(
        &mut self,
        own: &DeviceId,
        folder: &str,
        device: &DeviceId,
        right: Option<Right>,
    ) -> Result<bool, EditError> {
        let at = self.folder_at(folder)?;
        let Folder { id, mut members, .. } = self.config.folders[at].clone();
        if members.right_of(own) != Some(Right::Owner) {
            return Err(EditError::NotOwner { folder: folder.to_owned() });
        }
        if !members.set(*device, right) {
            return Ok(false);
        }
        self.write_members(&id, &members)?;
        Ok(true)
    }

    fn set_future_share(&mut self, at: usize, device: &DeviceId, right: Option<Right>) -> Result<bool, EditError> {
        let Accept { name, from, shares: before, .. } = self.config.accepts[at].clone();
        if *device == from {
            // What it may do is its own word until the folder is here.
            return Err(EditError::NotOffered { name });
        }
        let mut shares = before.clone();
        shares.retain(|(known, _)| known != device);
        shares.extend(right.map(|right| (*device, right)));
        if shares.iter().all(|share| before.contains(share)) && shares.len() == before.len() {
            return Ok(false);
        }
        self.apply(|doc| write_shares(row(doc, "accepts", at), shares.iter()))?;
        Ok(true)
    }

    fn accept_at(&self, name: &str) -> Option<usize> {
        self.config.accepts.iter().position(|accept| accept.name == name)
    }

    fn push_folder(&mut self, name: &str, id: &FolderId, path: &Path, members: &Members) -> Result<(), EditError> {
        let path = utf8(path)?.to_owned();
        self.apply(|doc| {
            let mut row = Table::new();
            row.insert("name", value(name));
            row.insert("id", value(&id.to_string()));
            row.insert("path", value(&path));
            write_lines(&mut row, members.lines());
            push(doc, "folders", row);
        })
    }

    pub(super) fn write_members(&mut self, id: &FolderId, members: &Members) -> Result<(), EditError> {
        let Some(at) = self.config.folders.iter().position(|folder| folder.id == *id) else {
            return Err(EditError::UnknownFolder { name: id.to_string() });
        };
        self.apply(|doc| write_lines(row(doc, "folders", at), members.lines()))
    }

    pub(super) fn device_at(&self, name: &str) -> Result<usize, EditError> {
        let id = DeviceId::parse(name).ok();
        let found = self.config.devices.iter().position(|device| device.name == name || Some(device.id) == id);
        found.ok_or_else(|| EditError::UnknownDevice { name: name.to_owned() })
    }

    pub(super) fn folder_at(&self, name: &str) -> Result<usize, EditError> {
        if let Some(at) = self.config.folders.iter().position(|folder| folder.name == name) {
            return Ok(at);
        }
        let name = name.to_owned();
        match self.accept_at(&name).is_some() {
            true => Err(EditError::NotOffered { name }),
            false => Err(EditError::UnknownFolder { name }),
        }
    }

    fn check_trusted(&self, id: &DeviceId) -> Result<(), EditError> {
        match self.config.device(id) {
            Some(_) => Ok(()),
            None => Err(EditError::UnknownDevice { name: id.to_string() }),
        }
    }

    fn check_device_name(&self, name: &str) -> Result<(), EditError> {
        let name = name.to_owned();
        if self.config.name == name {
            return Err(EditError::OwnName { name });
        }
        match self.config.devices.iter().any(|device| device.name == name) {
            true => Err(EditError::DeviceNameTaken { name }),
            false => Ok(()),
        }
    }

    fn check_folder_name(&self, name: &str) -> Result<(), EditError> {
        check_label(name)?;
        match self.named_places().find(|(known, _)| *known == name) {
            Some((_, path)) => Err(EditError::FolderNameTaken { name: name.to_owned(), path: path.to_owned() }),
            None => Ok(()),
        }
    }

    fn check_folder_place(&self, real: &Path) -> Result<(), EditError> {
        match self.named_places().find(|(_, path)| real_path(path) == real) {
            Some((name, path)) => Err(EditError::FolderKnown { name: name.to_owned(), path: path.to_owned() }),
            None => Ok(()),
        }
    }

    fn named_places(&self) -> impl Iterator<Item = (&str, &Path)> {
        let folders = self.config.folders.iter().map(|folder| (folder.name.as_str(), folder.path.as_path()));
        let accepts = self.config.accepts.iter().map(|accept| (accept.name.as_str(), accept.path.as_path()));
        folders.chain(accepts)
    }
}

/// Resolves a directory that has to exist.
fn real_directory(path: &Path) -> Result<PathBuf, EditError> {
    let real = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotADirectory => EditError::NotADirectory { path: path.to_owned() },
        _ => EditError::NoSuchDirectory { path: path.to_owned() },
    })?;
    if !real.is_dir() {
        return Err(EditError::NotADirectory { path: path.to_owned() });
    }
    Ok(real)
}

fn utf8(path: &Path) -> Result<&str, EditError> {
    path.to_str().ok_or_else(|| EditError::NotUtf8 { path: path.to_owned() })
}

/// Finds a setting of a folder by its key, and reads its value.
fn setting(key: &str, text: &str) -> Result<(&'static str, Item), EditError> {
    let bad = |key, expected| EditError::BadValue { key, value: text.to_owned(), expected };
    let number = |key| text.parse::<u32>().map(|n| toml_edit::value(i64::from(n))).map_err(|_| key);
    match key {
        "rescan_minutes" => {
            let item = number("rescan_minutes").map_err(|key| bad(key, "give minutes, or 0 for never"))?;
            Ok(("rescan_minutes", item))
        }
        "history_days" => {
            let item = number("history_days").map_err(|key| bad(key, "give days, or 0 to keep nothing"))?;
            Ok(("history_days", item))
        }
        "scrub_days" => {
            let item = number("scrub_days").map_err(|key| bad(key, "give days, or 0 for never"))?;
            Ok(("scrub_days", item))
        }
        "history_size" => {
            HistorySize::parse(text)?;
            Ok(("history_size", value(text)))
        }
        "gitignore" => {
            let on: bool = text.parse().map_err(|_| bad("gitignore", "give true or false"))?;
            Ok(("gitignore", toml_edit::value(on)))
        }
        "active" => {
            let texts: Vec<_> = text.split(',').map(str::trim).filter(|text| *text != "always").collect();
            texts.iter().try_for_each(|text| Windows::default().add(text))?;
            Ok(("active", toml_edit::value(Array::from_iter(texts))))
        }
        "metered" => Ok(("metered", value(metered::parse(text)?.as_str()))),
        "brake" => {
            let on = brake::parse(text)?;
            let text = match on {
                None => "off".to_owned(),
                Some(on) if on == Thresholds::default() => "on".to_owned(),
                Some(_) => text.trim().to_owned(),
            };
            Ok(("brake", value(&text)))
        }
        "merge" => Ok(("merge", value(merge::parse(text)?.as_str()))),
        _ => Err(EditError::UnknownKey { key: key.to_owned() }),
    }
}

pub(super) fn value(text: &str) -> Item {
    toml_edit::value(text)
}

/// Returns the tables of `key`, making the key where it is missing.
///
/// A person may have written them as an array of inline tables, to which no table can be added; then
/// they are written anew.
fn rows<'a>(doc: &'a mut DocumentMut, key: &str) -> &'a mut ArrayOfTables {
    let item = doc.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        let tables = std::mem::take(item).into_array_of_tables().unwrap_or_default();
        *item = Item::ArrayOfTables(tables);
    }
    item.as_array_of_tables_mut().expect("it was made one just now")
}

pub(super) fn row<'a>(doc: &'a mut DocumentMut, key: &str, at: usize) -> &'a mut Table {
    rows(doc, key).get_mut(at).expect("the configuration has its rows in the order of the file")
}

pub(super) fn push(doc: &mut DocumentMut, key: &str, mut row: Table) {
    row.decor_mut().set_prefix("\n");
    rows(doc, key).push(row);
}

/// Writes with whom a folder is to be shared once it is here.
pub(super) fn write_shares<'a>(accept: &mut Table, shares: impl Iterator<Item = &'a (DeviceId, Right)>) {
    let lines = shares.map(|(device, right)| {
        let mut line = InlineTable::new();
        line.insert("device", device.to_string().into());
        line.insert("right", right.as_str().into());
        line
    });
    let lines: Array = lines.collect();
    if lines.is_empty() {
        accept.remove("share");
    } else {
        accept["share"] = toml_edit::value(lines);
    }
}

/// Writes a folder's member list; lines that did not change keep their comments.
fn write_lines(folder: &mut Table, lines: &[Member]) {
    let item = folder.entry("members").or_insert(Array::new().into());
    item.make_value();
    let Some(members) = item.as_array_mut() else { return };
    for line in lines {
        let right = line.right.map_or(NO_RIGHT, Right::as_str);
        let stamp = i64::try_from(line.stamp).unwrap_or(i64::MAX);
        let known = members.iter_mut().filter_map(Value::as_inline_table_mut).find(|row| is_line_of(row, &line.device));
        if let Some(row) = known {
            row.insert("right", right.into());
            row.insert("stamp", stamp.into());
            continue;
        }
        let mut row = InlineTable::new();
        row.insert("device", line.device.to_string().into());
        row.insert("right", right.into());
        row.insert("stamp", stamp.into());
        let mut row = Value::from(row);
        row.decor_mut().set_prefix("\n  ");
        members.push_formatted(row);
    }
    members.set_trailing_comma(true);
    members.set_trailing("\n");
}

fn is_line_of(row: &InlineTable, device: &DeviceId) -> bool {
    row.get("device").and_then(Value::as_str).and_then(|text| DeviceId::parse(text).ok()) == Some(*device)
}

fn template(name: &str, listen: &[SocketAddr]) -> String {
    let name = Value::from(name);
    let listen = match listen {
        [] => "# listen = [\"0.0.0.0:25463\", \"[::]:25463\"]".to_owned(),
        some => format!("listen = {}", Array::from_iter(some.iter().map(SocketAddr::to_string))),
    };
    format!(
        r#"# Configuration of kinfold on this device.
#
# It is yours to edit. The commands of kinfold (device, folder) edit it too, and keep your comments.
# A running kinfold takes changes by those commands at once, changes by hand at its next start.
#
# [[devices]]  the devices that this one trusts: name, id, addresses (where discovery does not reach)
# [[folders]]  the folders it keeps: name, id, path, members, and if wished
#              paused = true         rests for now; or paused_until = "2026-05-31 18:00"
#              active = ["Mon-Fri 18:00-08:00", "Sat-Sun"]   exchanges nothing at other times
#              metered = "pause"     as below, for this folder alone; or "go"
#              send_rate = "2 MiB/s", receive_rate   as below, for this folder alone
#              rescan_minutes = 60   a full scan so often, besides watching for changes; 0: never
#              gitignore = true      what .gitignore names is not synced, as with .kinfoldignore
#              history_days, history_size   as days and size below, for this folder alone
#              brake = "off"          what others delete or rewrite is never held; or "200 files, 50%"
#              scrub_days = 30       all files are read and checked within so many days; 0: never
#              merge = "text"        texts edited apart are merged where the edits do not overlap; or "ask", "off"
# [[accepts]]  folders that were accepted and whose offer has not arrived yet

# What people call this device.
name = {name}

[history]
# What a sync overwrites or deletes is kept, for `kinfold restore`: for so many days (0: not at all),
# and up to so much space per folder: a part of its disk like "10%", or "20 GiB".
# days = 30
# size = "10%"

[network]
# Addresses to listen on, in numbers; the port is 25463 where none is given.
{listen}

# Trusted devices find each other on the network, by beacons that tell nobody else which device it is.
# discovery = true

# How much goes over the network in a second, with all devices together. The same keys bound a device.
# send_rate = "2 MiB/s"
# receive_rate = "20 Mbit/s"

# "pause": while the system calls the connection metered, as that by a phone is, folders exchange nothing.
# metered = "go"

# "lan" talks to addresses of local networks alone, "any" to all. Networks that count as local too,
# such as that of a VPN:
# allow = ["100.64.0.0/10"]
mode = "lan"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::error::LabelError;
    use crate::config::testing::{Home, OWN, device, id};

    #[test]
    fn the_first_configuration_is_valid_and_says_what_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path()).unwrap();
        init(&paths, "it's \"h0\"", &["10.0.0.1:7".parse().unwrap()]).unwrap();
        let config = Config::load(&paths).unwrap();
        assert_eq!(config.name, "it's \"h0\"");
        assert_eq!(config.network.listen, ["10.0.0.1:7".parse().unwrap()]);
        assert!(matches!(init(&paths, "h1", &[]), Err(ConfigError::Exists { .. })));
        assert_eq!(Config::load(&paths).unwrap(), config);
    }

    #[test]
    fn comments_and_spacing_survive_every_edit() {
        let text = "# mine\nname = \"h0\"   # really\n\n[history]\ndays = 3 # few\n# the end\n";
        let home = Home::with_text(text);
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("laptop", 2)).unwrap();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        edit.share(&id(OWN), "data", &id(2), Right::Reader).unwrap();
        edit.pause("data").unwrap();
        edit.save().unwrap();
        for line in text.lines() {
            assert!(home.text().contains(line), "{line}\n{}", home.text());
        }
        let mut edit = home.edit();
        edit.remove_folder("data").unwrap();
        edit.remove_device(&id(OWN), "laptop").unwrap();
        edit.save().unwrap();
        assert_eq!(home.text(), text);
    }

    #[test]
    fn an_edit_reads_as_a_person_would_write_it() {
        let home = Home::with_text("name = \"h0\"\n");
        let mut edit = home.edit();
        let with_address = Device { addresses: vec!["10.0.0.2:25463".parse().unwrap()], ..device("laptop", 2) };
        edit.add_device(&id(OWN), &with_address).unwrap();
        let mut folder = home.folder("data", 9);
        folder.shares.push((id(2), Right::Writer));
        edit.add_folder(&id(OWN), &folder).unwrap();
        edit.save().unwrap();
        let path = folder.path.display();
        let (own, other) = (id(OWN), id(2));
        assert_eq!(
            home.text(),
            format!(
                r#"name = "h0"

[[devices]]
name = "laptop"
id = "{other}"
addresses = ["10.0.0.2:25463"]

[[folders]]
name = "data"
id = "09090909090909090909090909090909"
path = "{path}"
members = [
  {{ device = "{own}", right = "owner", stamp = 1 }},
  {{ device = "{other}", right = "writer", stamp = 1 }},
]
"#
            )
        );
    }

    #[test]
    fn adding_a_device_twice_changes_nothing_but_its_addresses() {
        let home = Home::new();
        let mut edit = home.edit();
        assert!(edit.add_device(&id(OWN), &device("laptop", 2)).unwrap());
        assert!(!edit.add_device(&id(OWN), &device("laptop", 2)).unwrap());
        let moved = Device { addresses: vec!["10.0.0.2:1".parse().unwrap()], ..device("laptop", 2) };
        assert!(edit.add_device(&id(OWN), &moved).unwrap());
        assert!(!edit.add_device(&id(OWN), &moved).unwrap());
        assert_eq!(edit.config().devices, [moved]);
    }

    #[test]
    fn a_device_is_refused_that_would_confuse_people() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("laptop", 2)).unwrap();
        let mut check = |new: Device| edit.add_device(&id(OWN), &new).unwrap_err();
        assert!(matches!(check(device("nas", OWN)), EditError::OwnDevice));
        assert!(matches!(check(device("h0", 3)), EditError::OwnName { .. }));
        assert!(matches!(check(device("nas", 2)), EditError::DeviceKnown { .. }));
        assert!(matches!(check(device("laptop", 3)), EditError::DeviceNameTaken { .. }));
        assert!(matches!(check(device("", 3)), EditError::Label(LabelError::Empty)));
        assert!(edit.rename_device("laptop", "desk").unwrap());
        assert!(!edit.rename_device("desk", "desk").unwrap());
        assert!(matches!(edit.rename_device("laptop", "x"), Err(EditError::UnknownDevice { .. })));
        assert!(matches!(edit.rename_device("desk", "h0"), Err(EditError::OwnName { .. })));
    }

    #[test]
    fn a_device_that_is_removed_leaves_all_folders() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("laptop", 2)).unwrap();
        let mut folder = home.folder("data", 9);
        folder.shares.push((id(2), Right::Owner));
        edit.add_folder(&id(OWN), &folder).unwrap();
        let accept = Accept { name: "photos".to_owned(), path: home.place("photos"), from: id(2), shares: vec![] };
        edit.accept(&accept).unwrap();
        edit.add_device(&id(OWN), &device("nas", 3)).unwrap();
        let other = Accept { name: "music".to_owned(), path: home.place("music"), from: id(3), ..accept };
        edit.accept(&other).unwrap();
        edit.share(&id(OWN), "music", &id(2), Right::Owner).unwrap();
        edit.remove_device(&id(OWN), "laptop").unwrap();
        let config = edit.save().unwrap();
        assert_eq!((config.devices.len(), &config.accepts), (1, &vec![other]));
        let gone = Member { device: id(2), right: None, stamp: 2 };
        assert!(config.folders[0].members.lines().contains(&gone));
        assert_eq!(Config::load(&home.paths).unwrap(), config);
    }

    #[test]
    fn a_folder_is_refused_at_a_place_that_is_none() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        fs::write(home.dir.path().join("file"), "x").unwrap();
        let mut check = |name: &str, path: &str| {
            let folder = NewFolder { path: home.dir.path().join(path), ..home.folder(name, 8) };
            edit.add_folder(&id(OWN), &folder).unwrap_err()
        };
        assert!(matches!(check("again", "data"), EditError::FolderKnown { .. }));
        assert!(matches!(check("data", "again"), EditError::FolderNameTaken { .. }));
        assert!(matches!(check("x", "file"), EditError::NotADirectory { .. }));
        assert!(matches!(check("x", "file/x"), EditError::NotADirectory { .. }));
        assert!(matches!(check("x", "none"), EditError::NoSuchDirectory { .. }));
        home.place("data/below");
        assert!(matches!(check("x", "data/below"), EditError::Rule(_)));
        assert!(matches!(check("x", ""), EditError::Rule(_)));
        assert_eq!(edit.config().folders.len(), 1);
    }

    #[test]
    fn what_is_not_offered_yet_can_be_shared_onward_in_advance() {
        let home = Home::new();
        let mut edit = home.edit();
        for (name, n) in [("laptop", 2), ("nas", 3), ("desk", 4)] {
            edit.add_device(&id(OWN), &device(name, n)).unwrap();
        }
        let accept = Accept { name: "data".to_owned(), path: home.place("data"), from: id(2), shares: vec![] };
        edit.accept(&accept).unwrap();
        assert!(edit.share(&id(OWN), "data", &id(3), Right::Owner).unwrap());
        assert!(edit.share(&id(OWN), "data", &id(3), Right::Reader).unwrap());
        assert!(!edit.share(&id(OWN), "data", &id(3), Right::Reader).unwrap());
        assert!(edit.share(&id(OWN), "data", &id(4), Right::Owner).unwrap());
        assert!(edit.unshare(&id(OWN), "data", &id(4)).unwrap());
        assert!(matches!(edit.share(&id(OWN), "data", &id(5), Right::Owner), Err(EditError::UnknownDevice { .. })));
        assert_eq!(edit.config().accepts[0].shares, [(id(3), Right::Reader)]);
        let complete = |edit: &mut Edit, own: Right| {
            let mut members = Members::default();
            members.set(id(2), Some(Right::Owner));
            members.set(id(OWN), Some(own));
            let folder = FolderId::parse(&"9".repeat(32)).unwrap();
            assert!(edit.complete_accept(&id(OWN), "data", &id(2), &folder, &members).unwrap());
            edit.config().folders[0].members.right_of(&id(3))
        };
        edit.save().unwrap();
        // Only an owner may.
        assert_eq!(complete(&mut home.edit(), Right::Writer), None);
        assert_eq!(complete(&mut home.edit(), Right::Owner), Some(Right::Reader));
    }

    #[test]
    fn what_was_accepted_becomes_a_folder_when_it_is_offered() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("laptop", 2)).unwrap();
        let accept = Accept { name: "data".to_owned(), path: home.place("data"), from: id(2), shares: vec![] };
        assert!(edit.accept(&accept).unwrap());
        assert!(!edit.accept(&accept).unwrap());
        assert!(matches!(edit.pause("data"), Err(EditError::NotOffered { .. })));

        let mut members = Members::default();
        members.set(id(2), Some(Right::Owner));
        members.set(id(OWN), Some(Right::Owner));
        let folder = FolderId([9; 16]);
        assert!(!edit.complete_accept(&id(OWN), "data", &id(3), &folder, &members).unwrap());
        assert!(edit.complete_accept(&id(OWN), "data", &id(2), &folder, &members).unwrap());
        assert!(!edit.complete_accept(&id(OWN), "data", &id(2), &folder, &members).unwrap());
        assert!(!edit.accept(&accept).unwrap());
        let config = edit.save().unwrap();
        assert!(config.accepts.is_empty());
        assert_eq!((&config.folders[0].path, &config.folders[0].members), (&accept.path, &members));
    }

    #[test]
    fn only_an_owner_shares_and_only_with_whom_it_trusts() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("laptop", 2)).unwrap();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        let (own, other) = (id(OWN), id(2));
        assert!(edit.share(&own, "data", &id(2), Right::Owner).unwrap());
        assert!(!edit.share(&own, "data", &id(2), Right::Owner).unwrap());
        assert!(edit.unshare(&own, "data", &id(2)).unwrap());
        assert!(!edit.unshare(&own, "data", &id(2)).unwrap());
        assert!(matches!(edit.share(&own, "data", &id(3), Right::Owner), Err(EditError::UnknownDevice { .. })));
        assert!(matches!(edit.share(&own, "x", &id(2), Right::Owner), Err(EditError::UnknownFolder { .. })));
        assert!(matches!(edit.share(&other, "data", &id(2), Right::Owner), Err(EditError::NotOwner { .. })));
    }

    #[test]
    fn member_lists_of_owners_are_merged() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        let folder = FolderId([9; 16]);
        let news = Members::from_lines([Member { device: id(3), right: Some(Right::Reader), stamp: 7 }]);
        assert!(edit.merge_members(&folder, &news).unwrap());
        assert!(!edit.merge_members(&folder, &news).unwrap());
        assert_eq!(edit.config().folders[0].members.right_of(&id(3)), Some(Right::Reader));
        assert!(edit.merge_members(&FolderId([8; 16]), &news).is_err());
    }

    #[test]
    fn settings_are_checked_before_they_are_written() {
        let home = Home::new();
        let mut edit = home.edit();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        assert!(edit.set("data", "history_days", "7").unwrap());
        assert!(!edit.set("data", "history_days", "7").unwrap());
        assert!(edit.set("data", "history_size", "5%").unwrap());
        assert!(edit.set("data", "gitignore", "true").unwrap());
        assert!(edit.set("data", "rescan_minutes", "0").unwrap());
        assert!(edit.set("data", "scrub_days", "90").unwrap() && edit.set("data", "scrub_days", "x").is_err());
        assert!(edit.set("data", "active", "Mon-Fri 18:00-08:00, Sat-Sun").unwrap());
        assert_eq!(edit.config().folders[0].active.to_string(), "Mon-Fri 18:00-08:00, Sat-Sun");
        assert!(edit.set("data", "active", "always").unwrap() && edit.config().folders[0].active.is_empty());
        assert!(edit.set("data", "brake", "off").unwrap());
        assert_eq!(edit.config().folders[0].brake, None);
        assert!(edit.set("data", "brake", "7 files, 5%").unwrap());
        assert!(edit.set("data", "brake", "on").unwrap() && !edit.set("data", "brake", "on").unwrap());
        assert!(edit.set("data", "merge", " text ").unwrap() && !edit.set("data", "merge", "text").unwrap());
        assert!(edit.set("data", "metered", "pause").unwrap() && !edit.set("data", "metered", " pause ").unwrap());
        assert!(edit.set("data", "metered", "stop").is_err());
        let bad = [("history_days", "many"), ("history_size", "x"), ("gitignore", "1"), ("rescan_minutes", "-1")];
        for (key, text) in bad.into_iter().chain([("brake", "loose"), ("merge", "all"), ("active", "soon")]) {
            assert!(edit.set("data", key, text).is_err(), "{key}={text}");
        }
        assert!(matches!(edit.set("data", "name", "x"), Err(EditError::UnknownKey { .. })));
        assert!(edit.pause("data").unwrap() && !edit.pause("data").unwrap());
        assert!(edit.resume("data").unwrap() && !edit.resume("data").unwrap());
    }

    #[test]
    fn rows_written_as_inline_tables_can_be_edited_too() {
        let text = format!("name = \"h0\"\ndevices = [{{ name = \"a\", id = \"{}\" }}]\nfolders = []\n", id(2));
        let home = Home::with_text(&text);
        let mut edit = home.edit();
        edit.add_device(&id(OWN), &device("b", 3)).unwrap();
        edit.add_folder(&id(OWN), &home.folder("data", 9)).unwrap();
        let config = edit.save().unwrap();
        assert_eq!(config.devices.len(), 2);
        assert_eq!(Config::load(&home.paths).unwrap(), config);
    }
}
