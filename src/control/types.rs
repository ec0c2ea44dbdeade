//! Requests and answers of the control API, and of every `--json` on the command line.
//!
//! Fields are only ever added. Ids, rights and times are values here and text in JSON; a text that
//! is none of its kind is refused when it is read.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;

use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::path::Escaped;
use crate::model::rights::Right;

/// How the daemon does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// This device.
    pub device: DeviceRef,
    /// Addresses that are listened on.
    pub listen: Vec<SocketAddr>,
    /// Which addresses are talked to.
    pub policy: PolicyStatus,
    /// The trusted devices, connected or not.
    pub peers: Vec<PeerStatus>,
    /// The folders.
    pub folders: Vec<FolderStatus>,
    /// Every socket that is open, one line each, for people.
    pub sockets: Vec<String>,
    /// How changes are noticed.
    pub watch: WatchStatus,
    /// How many things wait for a person.
    pub inbox: u64,
    /// What the daemon took from itself.
    #[serde(default)]
    pub sandbox: SandboxStatus,
    /// Rates that all devices together keep to.
    #[serde(default)]
    pub rates: RatesStatus,
    /// A change of this device's key, while one is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationStatus>,
}

/// A change of this device's key that is under way.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RotationStatus {
    /// Who it is going to be.
    #[serde(with = "device_id")]
    pub next: DeviceId,
    /// When that was begun.
    pub since: Time,
    /// The devices that do not know of it yet.
    pub unheard: Vec<String>,
}

/// Rates that are kept to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RatesStatus {
    /// Bytes that are sent in a second at most; missing where there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_bytes: Option<u64>,
    /// Bytes that are received in a second at most; missing where there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_bytes: Option<u64>,
}

/// What a daemon took from itself, so that whoever takes it over gains little.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SandboxStatus {
    /// `on`, `required` or `off`.
    pub mode: String,
    /// What is bounded.
    pub in_force: Vec<String>,
    /// What is not, and why.
    pub missing: Vec<String>,
    /// Directories that it reaches, where files are bounded.
    pub places: Vec<RawPath>,
}

/// A device, for people and for programs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceRef {
    /// What it is called here.
    pub name: String,
    /// Who it is.
    #[serde(with = "device_id")]
    pub id: DeviceId,
}

/// Which addresses are talked to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// `lan` or `any`.
    pub mode: String,
    /// Networks that count as local too.
    pub allow: Vec<String>,
    /// Network interfaces that every socket is bound to; none binds to no one.
    #[serde(default)]
    pub interfaces: Vec<String>,
    /// Those of them that are away.
    #[serde(default)]
    pub interfaces_away: Vec<String>,
    /// Whether trusted devices are looked for on the network.
    #[serde(default)]
    pub discovery: bool,
    /// Whether the connection is metered; missing where no folder is to rest for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<MeteredStatus>,
}

/// Whether the network connection of this machine is metered, as NetworkManager says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct MeteredStatus {
    /// `metered`, `unmetered` or `unknown`, which counts as not metered.
    pub connection: String,
    /// Why it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A trusted device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PeerStatus {
    /// What it is called here.
    pub name: String,
    /// Who it is.
    #[serde(with = "device_id")]
    pub id: DeviceId,
    /// Whether there is a session with it.
    pub connected: bool,
    /// Where it is connected from or to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Since when it is connected, or was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What to do about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Rates that it is spoken to at.
    #[serde(default)]
    pub rates: RatesStatus,
}

/// A folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FolderStatus {
    /// What it is called here.
    pub name: String,
    /// Which one it is.
    #[serde(with = "folder_id")]
    pub id: FolderId,
    /// Where it lies.
    pub path: RawPath,
    /// What it is doing.
    pub state: FolderState,
    /// Whether every connected member is known to hold the same as this device.
    pub in_sync: bool,
    /// Why it stopped, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_because: Option<String>,
    /// Files here.
    pub files: u64,
    /// Directories here.
    pub dirs: u64,
    /// Bytes of all files here.
    pub bytes: u64,
    /// Files still to be fetched.
    pub need_files: u64,
    /// Bytes still to be fetched.
    pub need_bytes: u64,
    /// Files on their way, at most 16.
    #[serde(default)]
    pub moving: Vec<Moving>,
    /// Bytes sent for this folder since the daemon began.
    pub sent_bytes: u64,
    /// Bytes received for this folder since the daemon began.
    pub received_bytes: u64,
    /// Files that other devices would delete or rewrite, held until a person looks.
    #[serde(default)]
    pub held: u64,
    /// Paths that could not be handled.
    pub problems: u64,
    /// Bytes that its history takes.
    pub history_bytes: u64,
    /// Bytes that its history may take.
    #[serde(default)]
    pub history_bytes_max: u64,
    /// Who belongs to it, this device left out.
    pub members: Vec<MemberStatus>,
    /// When it goes on by itself, where it is paused or rests until a time that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_until: Option<Time>,
    /// Why it rests, where that is neither a person's word nor the time of the week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rests_because: Option<String>,
    /// Rates that it keeps to.
    #[serde(default)]
    pub rates: RatesStatus,
}

/// A file on its way here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Moving {
    /// Which; absolute.
    pub path: RawPath,
    /// Its bytes.
    pub bytes: u64,
    /// Those of them that are not here yet.
    pub missing_bytes: u64,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FolderState {
    /// It compares the disk with its index.
    Scanning,
    /// It fetches, or takes over what others changed.
    Syncing,
    /// Nothing is to be done, as far as is known.
    Idle,
    /// It cannot go on without a person.
    Stopped,
    /// A person let it rest.
    Paused,
    /// It takes note of what is done here and exchanges nothing, for it is not its time of the week or the
    /// connection is metered.
    Resting,
}

impl FolderState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scanning => "scanning",
            Self::Syncing => "syncing",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Resting => "resting",
        }
    }
}

/// A member of a folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MemberStatus {
    /// What it is called here; missing where this device does not trust it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who it is.
    #[serde(with = "device_id")]
    pub id: DeviceId,
    /// What it may do.
    #[serde(with = "right")]
    pub right: Right,
    /// Whether there is a session with it.
    pub connected: bool,
    /// Whether it is known to hold the same as this device.
    pub in_sync: bool,
}

/// How changes are noticed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct WatchStatus {
    /// Directories that are watched.
    pub dirs: u64,
    /// Whether the system allows no more, so that some are only scanned.
    pub limit_reached: bool,
}

/// Something that waits for a person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InboxItem {
    /// In which folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// At which path; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RawPath>,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub advice: String,
    /// The system's own words, or other detail; may be empty.
    pub detail: String,
    /// What is held, where that is what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// Changes of a device that are held because they would delete or rewrite much of a folder.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Held {
    /// The device.
    pub device: DeviceRef,
    /// How many files it would delete.
    pub deleted: u64,
    /// How many files it would rewrite.
    pub rewritten: u64,
    /// Some of the files; absolute.
    pub files: Vec<HeldFile>,
}

/// A file that is held.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HeldFile {
    /// Which; absolute.
    pub path: RawPath,
    /// Whether it would be deleted, and not only rewritten.
    pub deleted: bool,
}

/// A folder that another device would share.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Offer {
    /// What it is called there.
    pub name: String,
    /// Which one it is.
    #[serde(with = "folder_id")]
    pub id: FolderId,
    /// Who offers it.
    pub from: DeviceRef,
    /// What this device may do in it.
    #[serde(with = "right")]
    pub right: Right,
}

/// Whether a folder, or all of them, are in sync.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SyncState {
    /// Whether every connected device holds the same.
    pub in_sync: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Asks for a full scan.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ScanFolder {
    /// Of which folder.
    pub folder: String,
}

/// Lets go what is held in a folder, or rejects it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReleaseFolder {
    /// Which folder.
    pub folder: String,
    /// Whether the other devices are to take back what lies here.
    #[serde(default)]
    pub reject: bool,
}

/// What was held and is no longer.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Released {
    /// How many files were to be deleted.
    pub deleted: u64,
    /// How many files were to be rewritten.
    pub rewritten: u64,
}

/// To compare all files with their records.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verify {
    /// In which folder; in all where it is left out.
    pub folder: Option<String>,
    /// Whether to mend what is damaged from what connected devices have.
    #[serde(default)]
    pub heal: bool,
}

/// Where the check of a folder's files stands.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verified {
    /// Which folder.
    pub folder: String,
    /// Whether one was asked for since the daemon started.
    pub begun: bool,
    /// Whether it is under way.
    pub running: bool,
    /// Whether it can only go on once the folder is back where it was.
    pub stopped: bool,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the folder.
    pub total_files: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Files that were found damaged.
    pub found: u64,
    /// Files that were healed since.
    pub healed: u64,
    /// Files that are damaged now, as far as is known.
    pub damaged: Vec<Damaged>,
    /// When all files were last checked without being asked.
    pub scrubbed: Option<Time>,
}

/// A file that holds something else than what was written there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Damaged {
    /// Which file; absolute.
    pub path: RawPath,
    /// Bytes of the chunks that are not what they should be.
    pub bytes: u64,
}

/// Two edits of a path that did not know of each other.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Conflict {
    /// In which folder.
    pub folder: String,
    /// The copy that was put aside; absolute.
    pub path: RawPath,
    /// The path that it is a copy of; absolute.
    pub of: RawPath,
    /// Who made the edit that was put aside.
    pub device: String,
    /// When that edit was made, by the clock of that device.
    pub time: Time,
    /// Bytes of the copy.
    pub size: u64,
    /// Whether the copy is the edit that was made on this device.
    #[serde(default)]
    pub is_mine: bool,
    /// The edit that has the plain name, where something lies there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<ConflictSide>,
}

/// One side of a conflict.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConflictSide {
    /// Who made the edit.
    pub device: String,
    /// When, by the clock of that device.
    pub time: Time,
    /// Bytes of the file.
    pub size: u64,
}

/// Settles a conflict.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeepConflict {
    /// The path or its copy; absolute.
    pub path: RawPath,
    /// Which side stays under the plain name.
    pub keep: Keep,
}

/// Merges both sides of a conflict.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MergeConflict {
    /// The path or its copy; absolute.
    pub path: RawPath,
    /// Whether only to say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What came, or would come, of a merge.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct MergedConflict {
    /// The file that holds both edits; absolute.
    pub path: RawPath,
    /// The copy that went to history; absolute.
    pub copy: RawPath,
    /// Bytes of the merged file.
    pub size: u64,
}

/// Which side of a conflict stays.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The edit made on this device.
    Mine,
    /// The other edit.
    Theirs,
    /// Both: the copy becomes an ordinary file that nobody has to look at.
    Both,
    /// What lies under the plain name, into which a person has merged the other; the copy goes to history.
    Merged,
}

/// Asks for the past of a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AskHistory {
    /// Which path; absolute. Nothing needs to be there any more.
    pub path: RawPath,
    /// Whether to ask all connected devices too.
    #[serde(default)]
    pub all: bool,
    /// The device whose history is asked, by its name here; without it, this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// A kept state of a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HistoryEntry {
    /// From when on the path was in that state; what `restore --at` takes.
    pub time: Time,
    /// Who made it so.
    pub device: String,
    /// Bytes of the file.
    pub size: u64,
    /// `file`, `symlink` or `dir`.
    pub kind: String,
    /// Which path; absolute.
    pub path: RawPath,
    /// Tells kept states apart.
    pub id: String,
    /// The devices that keep it, by their names here; `here` is this one.
    #[serde(default)]
    pub held_by: Vec<String>,
}

/// Asks to bring back the past of a path, and of all below it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Restore {
    /// Which path; absolute.
    pub path: RawPath,
    /// As it was at that time; without it, as it was before the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// Where to put it, absolute; without it, back in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RawPath>,
    /// Whether only to say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// The device whose history counts, by its name here; without it, this one's, and where that does not hold a version
    /// those of the connected devices that may change the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What was brought back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Restored {
    /// How many files.
    pub files: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they lie now; absolute.
    pub to: RawPath,
    /// What would be brought back, where that was all that was asked; at most 10,000 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listed: Vec<WouldRestore>,
    /// The other devices that something comes from, by their names here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

/// A file that would be brought back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WouldRestore {
    /// Which; absolute.
    pub path: RawPath,
    /// From when on it was in the state that would be brought back.
    pub time: Time,
    /// Who made it so.
    pub device: String,
    /// Its bytes.
    pub size: u64,
    /// Whether something lies there now, which would go to history.
    pub replaces: bool,
    /// The other device that it would be taken from, by its name here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// Asks for lines of the log.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct AskLog {
    /// Only lines after this one; without it, the newest.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: Option<usize>,
    /// How long to wait for a line where there is none yet.
    pub wait_ms: Option<u64>,
}

/// A line of the log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogLine {
    /// Counts the lines of one run of the daemon; the first is 1.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// What happened.
    pub message: String,
    /// In which folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// At which path, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Event {
    /// Counts the events of one run of the daemon; the first is 1.
    pub seq: u64,
    /// When.
    pub time: Time,
    /// What happened.
    pub kind: EventKind,
    /// In which folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// At which path; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RawPath>,
    /// Who made the change, or which device came or went; what it is called here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Bytes of the file that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// More of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A file was made or changed.
    Written,
    /// A file, link or directory was deleted.
    Deleted,
    /// A directory was made or its mode changed.
    Directory,
    /// A symbolic link was made or changed.
    Link,
    /// A path had been changed on both sides; the loser lies at `path`.
    Conflict,
    /// A device would delete or rewrite much.
    Held,
    /// A damaged file is whole again.
    Healed,
    /// Something could not be done.
    Problem,
    /// A device connected.
    Connected,
    /// A device is gone.
    Disconnected,
}

/// Why a request failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Whose fault it is.
    pub kind: ApiErrorKind,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Whose fault it is that a request failed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApiErrorKind {
    /// What was asked for makes no sense.
    Invalid,
    /// What was asked for is not here.
    NotFound,
    /// It cannot be done now: the folder is stopped, or paused.
    Unavailable,
    /// The daemon could not do it.
    Failed,
}

impl ApiError {
    /// Makes an error that has no advice.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A point in time; RFC 3339 in UTC as text, to the nanosecond.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub jiff::Timestamp);

impl Time {
    /// Converts from nanoseconds since 1970.
    pub fn from_unix_ns(ns: i64) -> Self {
        Self(jiff::Timestamp::from_nanosecond(ns.into()).expect("292 years around 1970 are within the calendar"))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}

/// A path of this machine, as bytes. In JSON a text, or where it is not UTF-8 `{"base64": …, "text": …}`
/// whose `text` is for people alone.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RawPath(pub PathBuf);

impl RawPath {
    /// Returns the path as the system calls want it.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl From<&Path> for RawPath {
    fn from(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

/// Writes the path for people, escaped as [`Escaped`] does.
impl fmt::Display for RawPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.0.as_os_str().as_bytes()).fmt(f)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum RawPathForm {
    Text(String),
    Bytes { base64: String, text: String },
}

impl Serialize for RawPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let form = match self.0.to_str() {
            Some(text) => RawPathForm::Text(text.to_owned()),
            None => RawPathForm::Bytes {
                base64: data_encoding::BASE64.encode(self.0.as_os_str().as_bytes()),
                text: self.to_string(),
            },
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match RawPathForm::deserialize(deserializer)? {
            RawPathForm::Text(text) => Ok(Self(text.into())),
            RawPathForm::Bytes { base64, .. } => {
                let bytes = data_encoding::BASE64.decode(base64.as_bytes()).map_err(D::Error::custom)?;
                Ok(Self(std::ffi::OsString::from_vec(bytes).into()))
            }
        }
    }
}

/// Writes and reads a value through its text.
macro_rules! as_text {
    ($module:ident, $value:ty, $write:expr, $read:expr) => {
        mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(value: &$value, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&$write(value))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$value, D::Error> {
                $read(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    };
}

as_text!(device_id, DeviceId, DeviceId::to_string, DeviceId::parse);
as_text!(folder_id, FolderId, FolderId::to_string, |text: &str| FolderId::parse(text).ok_or("not a folder id"));
as_text!(right, Right, |right: &Right| right.as_str(), |text: &str| Right::parse(text).ok_or("not a right"));

#[cfg(test)]
mod tests {
    use super::*;

    fn survives(path: &[u8], json: &str) {
        let raw = RawPath(std::ffi::OsString::from_vec(path.to_vec()).into());
        assert_eq!(serde_json::to_string(&raw).unwrap(), json);
        assert_eq!(serde_json::from_str::<RawPath>(json).unwrap(), raw);
    }

    #[test]
    fn a_path_survives_json_whatever_its_bytes_are() {
        survives(b"/data/a b", r#""/data/a b""#);
        survives("/data/été\n".as_bytes(), r#""/data/été\n""#);
        survives(b"/data/\xff", r#"{"base64":"L2RhdGEv/w==","text":"/data/\\xff"}"#);
    }

    #[test]
    fn a_time_survives_json_to_the_nanosecond() {
        let time = Time::from_unix_ns(1_789_000_000_123_456_789);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-09-10T00:26:40.123456789Z\"");
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), time);
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
        assert!(Time::from_unix_ns(i64::MIN) < Time::from_unix_ns(i64::MAX));
    }

    #[test]
    fn ids_and_rights_are_text_that_is_checked() {
        let device = DeviceRef { name: "a".to_owned(), id: DeviceId::from_public_key([1; 32]) };
        let offer = Offer { name: "data".to_owned(), id: FolderId([9; 16]), from: device, right: Right::Reader };
        let json = serde_json::to_string(&offer).unwrap();
        assert_eq!(serde_json::from_str::<Offer>(&json).unwrap(), offer);
        assert!(serde_json::from_str::<Offer>(&json.replace("reader", "king")).is_err());
        assert!(serde_json::from_str::<Offer>(&json.replace("kin1", "kin2")).is_err());
    }
}
