//! The configuration of Syncthing (`config.xml`) as far as it says something that can be taken over, and
//! words for what cannot.
//!
//! The file is read as something that a stranger may have written: no document types, so no entities that
//! grow, and bounds on its length and on the number of its elements. What is not known is told, never
//! skipped in silence.

use std::collections::BTreeMap;

use data_encoding::BASE32_NOPAD;
use roxmltree::Node;

/// Longest file that is read.
pub const CONFIG_LEN_MAX: u64 = 16 << 20;
/// Most elements, attributes and texts in it.
const NODES_MAX: u32 = 1_000_000;
/// Longest nesting of elements that is looked at: a configuration has five levels.
const DEPTH_MAX: usize = 64;
/// Longest word of the file that is repeated in a message, in characters.
const SHOWN_MAX: usize = 80;
/// Days that stand for ever.
const FOREVER_DAYS: u32 = 36_500;
/// What Syncthing calls the file by which it knows a folder.
const DEFAULT_MARKER: &str = ".stfolder";

/// A configuration that was read.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Syncthing {
    /// The folders, in the order of the file.
    pub folders: Vec<Folder>,
    /// The devices, with their ids as they are written there; this device is one of them.
    pub devices: Vec<Device>,
    /// What is not taken over, beyond folders and devices.
    pub notes: Vec<String>,
}

/// A folder there.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Folder {
    /// Its id there.
    pub id: String,
    /// What people call it; may be empty, and may stand twice.
    pub label: String,
    /// Where it lies, as written.
    pub path: String,
    /// Which way changes go.
    pub direction: Direction,
    /// Whether it rests.
    pub paused: bool,
    /// Seconds between two full scans; 0: never.
    pub rescan_seconds: Option<u64>,
    /// For how many days the past is kept, where that is said.
    pub history_days: Option<u32>,
    /// The name in its root by which it is known.
    pub marker: String,
    /// Ids of its devices.
    pub devices: Vec<String>,
    /// What is not taken over, or is otherwise here.
    pub notes: Vec<String>,
}

/// Which way changes of a folder go, as this device sees it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direction {
    /// Both ways.
    #[default]
    Both,
    /// Only from this device to others.
    Send,
    /// Only from others to this device.
    Receive,
    /// From others to this device, which cannot read what it keeps.
    ReceiveEncrypted,
}

/// A device there.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Device {
    /// Its id there.
    pub id: String,
    /// What people call it; may be empty.
    pub name: String,
    /// Where it can be reached, in the form that `kinfold device add --address` takes, without ports: they
    /// are those of Syncthing.
    pub addresses: Vec<String>,
    /// What is not taken over.
    pub notes: Vec<String>,
}

/// Why a file cannot be read as a configuration of Syncthing.
#[derive(Debug, thiserror::Error)]
pub enum SyncthingError {
    /// It is no XML, or uses what no configuration has a reason to use.
    #[error("it is not well-formed")]
    Xml(#[from] roxmltree::Error),
    /// It is XML of another kind.
    #[error("its first element is <{found}>, and not <configuration>")]
    NotAConfiguration {
        /// The element.
        found: String,
    },
    /// It nests elements without end.
    #[error("its elements are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// A folder or device lacks what it cannot be without.
    #[error("line {line}: {what}")]
    Incomplete {
        /// Which line.
        line: u32,
        /// What is missing.
        what: String,
    },
}

/// Options of a folder that say how fast or in which order it is synced, and their defaults.
const FOLDER_TUNING: &[(&str, &[&str])] = &[
    ("fsWatcherDelayS", &["10"]),
    ("fsWatcherTimeoutS", &["0"]),
    ("copiers", &["0", "1"]),
    ("pullers", &["0", "16"]),
    ("hashers", &["0"]),
    ("order", &["random"]),
    ("pullerMaxPendingKiB", &["0"]),
    ("pullerPauseS", &["0"]),
    ("pullerSleepS", &["0"]),
    ("scanProgressIntervalS", &["0"]),
    ("weakHashThresholdPct", &["25"]),
    ("maxConcurrentWrites", &["2", "16"]),
    ("blockPullOrder", &["standard"]),
    ("blockIndexing", &["true"]),
    ("copyRangeMethod", &["standard"]),
    ("filesystemType", &["basic"]),
    ("disableSparseFiles", &["false"]),
    ("disableTempIndexes", &["false"]),
    ("useLargeBlocks", &["true", "false"]),
    ("group", &[""]),
];

/// Options of a folder that say what is synced, their defaults, and what is to be told where they differ.
const FOLDER_MEANING: &[(&str, &[&str], &str)] = &[
    ("fsWatcherEnabled", &["true"], "changes are watched for here in any case"),
    ("ignorePerms", &["false"], "permissions are synced here: ignorePerms has no counterpart"),
    ("autoNormalize", &["true"], "names are kept byte for byte here: autoNormalize has no counterpart"),
    (
        "ignoreDelete",
        &["false"],
        "deletions of other devices count here: ignoreDelete has no counterpart. What they delete is kept in the \
         history, and masses of it are held until you look",
    ),
    ("minDiskFree", &["1 %", "1.00 %"], "minDiskFree has no counterpart"),
    ("minDiskFreePct", &["1", "0"], "minDiskFreePct has no counterpart"),
    ("maxConflicts", &["10", "-1"], "all sides of a conflict are kept here: maxConflicts has no counterpart"),
    ("modTimeWindowS", &["0"], "times count to the nanosecond here: modTimeWindowS has no counterpart"),
    (
        "copyOwnershipFromParent",
        &["false"],
        "files belong to the user that runs kinfold: copyOwnershipFromParent has no counterpart",
    ),
    ("syncOwnership", &["false"], "owners and groups are not synced here"),
    ("sendOwnership", &["false"], "owners and groups are not synced here"),
    ("syncXattrs", &["false"], "extended attributes are not synced here"),
    ("sendXattrs", &["false"], "extended attributes are not synced here"),
    ("disableFsync", &["false"], "what is synced is always made durable here: disableFsync has no counterpart"),
    ("junctionsAsDirs", &["false"], "junctionsAsDirs has no counterpart"),
    ("caseSensitiveFS", &["true", "false"], ""),
];

/// Options of a device that say nothing which is missed here, and their defaults.
const DEVICE_TUNING: &[(&str, &[&str])] = &[
    ("compression", &["metadata"]),
    ("certName", &[""]),
    ("maxRequestKiB", &["0"]),
    ("numConnections", &["0", "1"]),
    ("remoteGUIPort", &["0"]),
    ("skipIntroductionRemovals", &["false"]),
    ("introducedBy", &[""]),
    ("group", &[""]),
];

/// Options of a device that say something, their defaults, and what is to be told where they differ.
const DEVICE_MEANING: &[(&str, &[&str], &str)] = &[
    ("introducer", &["false"], "devices are trusted one by one here: an introducer has no counterpart"),
    ("autoAcceptFolders", &["false"], "folders are accepted one by one here: autoAcceptFolders has no counterpart"),
    ("untrusted", &["false"], "a device that stores what it cannot read has no counterpart"),
    ("paused", &["false"], "it was paused; here a device is trusted or not"),
    ("maxSendKbps", &["0"], "its limits of rates are not taken over: set them with `kinfold limit`"),
    ("maxRecvKbps", &["0"], "its limits of rates are not taken over: set them with `kinfold limit`"),
];

/// Options of the whole program that say whom it talks to or what it does by itself, and what to tell.
const OPTION_MEANING: &[(&str, &[&str], &str)] = &[
    ("listenAddress", &["default"], "the addresses to listen on are not taken over: set `listen` under [network]"),
    ("maxSendKbps", &["0"], "limits of rates are not taken over: set them with `kinfold limit`"),
    ("maxRecvKbps", &["0"], "limits of rates are not taken over: set them with `kinfold limit`"),
    ("limitBandwidthInLan", &["false"], "limits of rates are not taken over: set them with `kinfold limit`"),
    ("alwaysLocalNet", &[""], "alwaysLocalNet is not taken over: set `allow` under [network]"),
    ("minHomeDiskFree", &["1 %"], "minHomeDiskFree has no counterpart"),
];

/// Reads the text of a `config.xml`.
pub fn read(text: &str) -> Result<Syncthing, SyncthingError> {
    let options = roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: NODES_MAX, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(text, options)?;
    let root = document.root_element();
    if root.tag_name().name() != "configuration" {
        return Err(SyncthingError::NotAConfiguration { found: shown(root.tag_name().name()) });
    }
    let mut read = Syncthing::default();
    let mut unknown = vec![];
    for element in root.children().filter(Node::is_element) {
        match element.tag_name().name() {
            "folder" => read.folders.push(folder(element)?),
            "device" => read.devices.push(device(element)?),
            "options" => read.notes.extend(program_options(element)),
            // What the program itself notes down, and the page in the browser, which is not there here.
            "gui" | "ldap" | "defaults" | "pendingDevice" | "remoteIgnoredDevice" | "xattrFilter" => {}
            other => unknown.push(shown(other)),
        }
    }
    if !unknown.is_empty() {
        unknown.sort();
        unknown.dedup();
        read.notes.push(format!("not known, and not taken over: {}", unknown.join(", ")));
    }
    read.notes.push(
        "discovery over the Internet, relays and port mapping have no counterpart: devices talk to each other directly, \
         over networks that count as local unless the configuration says otherwise"
            .to_owned(),
    );
    Ok(read)
}

/// Returns the device id, as Syncthing writes it, that belongs to a certificate in PEM; `None` if it is none.
pub fn id_of_certificate(pem: &str) -> Option<String> {
    let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1)?.split("-----END CERTIFICATE-----").next()?;
    let body: String = body.split_whitespace().collect();
    let der = data_encoding::BASE64.decode(body.as_bytes()).ok()?;
    Some(BASE32_NOPAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref()))
}

/// Whether an id as it is written in the configuration is that of a certificate. It has dashes, and a check
/// character after each 13 of the others.
pub fn is_id(written: &str, of_certificate: &str) -> bool {
    let characters: Vec<char> = written.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let kept = characters.iter().enumerate().filter(|(at, _)| at % 14 != 13).map(|(_, c)| c.to_ascii_uppercase());
    characters.len() == 56 && kept.eq(of_certificate.chars())
}

fn folder(element: Node) -> Result<Folder, SyncthingError> {
    let options = options_of(element)?;
    let required = |name: &str| match options.get(name).and_then(|values| values.first()) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(incomplete(element, format!("a folder without `{name}`"))),
    };
    let value = |name: &str| options.get(name).and_then(|values| values.last()).map(String::as_str);
    let mut folder = Folder {
        id: required("id")?,
        path: required("path")?,
        label: value("label").unwrap_or_default().trim().to_owned(),
        marker: value("markerName").filter(|name| !name.is_empty()).unwrap_or(DEFAULT_MARKER).to_owned(),
        paused: value("paused") == Some("true"),
        ..Folder::default()
    };
    let mut unknown = vec![];
    let mut tuning = vec![];
    let mut notes = vec![];
    for (name, values) in &options {
        let text = values.last().map_or("", String::as_str);
        match name.as_str() {
            "id" | "path" | "label" | "markerName" | "paused" | "device" | "versioning" | "xattrFilter" => {}
            // The older way to say `sendonly`.
            "ro" if text == "true" => folder.direction = Direction::Send,
            "ro" => {}
            "type" => match text {
                "sendreceive" | "readwrite" | "" => {}
                "sendonly" | "readonly" => folder.direction = Direction::Send,
                "receiveonly" => folder.direction = Direction::Receive,
                "receiveencrypted" => folder.direction = Direction::ReceiveEncrypted,
                other => return Err(incomplete(element, format!("a folder of the type `{}`", shown(other)))),
            },
            "rescanIntervalS" => match text.parse() {
                Ok(seconds) => folder.rescan_seconds = Some(seconds),
                Err(_) => notes.push(format!("rescanIntervalS={} is not a number of seconds", shown(text))),
            },
            _ => say(name, values, FOLDER_TUNING, FOLDER_MEANING, &mut tuning, &mut notes, &mut unknown),
        }
    }
    for below in element.children().filter(Node::is_element) {
        match below.tag_name().name() {
            "device" => {
                folder.devices.extend(below.attribute("id").map(str::to_owned));
                let password = below.children().find(|node| node.tag_name().name() == "encryptionPassword");
                if password.and_then(|node| node.text()).is_some_and(|text| !text.trim().is_empty()) {
                    notes.push(
                        "it was encrypted for a device; storing what cannot be read has no counterpart".to_owned(),
                    );
                }
            }
            "versioning" => notes.extend(versioning(below, &mut folder.history_days)),
            _ => {}
        }
    }
    if !tuning.is_empty() {
        notes.push(format!("has no counterpart, and changes nothing but speed and order: {}", tuning.join(", ")));
    }
    if !unknown.is_empty() {
        notes.push(format!("not known, and not taken over: {}", unknown.join(", ")));
    }
    notes.dedup();
    folder.notes = notes;
    Ok(folder)
}

fn device(element: Node) -> Result<Device, SyncthingError> {
    let options = options_of(element)?;
    let first = |name: &str| options.get(name).and_then(|values| values.first()).cloned().unwrap_or_default();
    let mut device = Device { id: first("id"), name: first("name").trim().to_owned(), ..Device::default() };
    if device.id.is_empty() {
        return Err(incomplete(element, "a device without `id`".to_owned()));
    }
    let (mut unknown, mut tuning) = (vec![], vec![]);
    for (name, values) in &options {
        match name.as_str() {
            "id" | "name" => {}
            "address" => {
                for address in values.iter().filter(|address| *address != "dynamic") {
                    match static_address(address) {
                        Some(address) => device.addresses.push(address),
                        None => device.notes.push(format!("the address {} is not taken over", shown(address))),
                    }
                }
            }
            "allowedNetwork" => {
                device.notes.push(format!("may come from {} alone there; not taken over", shown(&values.join(", "))));
            }
            // Folders that were turned down there.
            "ignoredFolder" | "pendingFolder" => {}
            _ => say(name, values, DEVICE_TUNING, DEVICE_MEANING, &mut tuning, &mut device.notes, &mut unknown),
        }
    }
    if !unknown.is_empty() {
        device.notes.push(format!("not known, and not taken over: {}", unknown.join(", ")));
    }
    device.notes.dedup();
    Ok(device)
}

fn program_options(element: Node) -> Vec<String> {
    let mut notes = vec![];
    let Ok(options) = options_of(element) else { return notes };
    for (name, values) in &options {
        if let Some((_, defaults, told)) = OPTION_MEANING.iter().find(|(known, ..)| known == name)
            && values.iter().any(|value| !defaults.contains(&value.as_str()))
        {
            notes.push((*told).to_owned());
        }
    }
    notes.dedup();
    notes
}

/// Tells of an option that is not taken over, unless it has its default.
fn say(
    name: &str,
    values: &[String],
    harmless: &[(&str, &[&str])],
    meaning: &[(&str, &[&str], &str)],
    tuning: &mut Vec<String>,
    notes: &mut Vec<String>,
    unknown: &mut Vec<String>,
) {
    let differs = |defaults: &[&str]| values.iter().any(|value| !defaults.contains(&value.as_str()));
    let written = || format!("{}={}", shown(name), shown(&values.join(",")));
    if let Some((_, defaults)) = harmless.iter().find(|(known, _)| *known == name) {
        if differs(defaults) {
            tuning.push(written());
        }
    } else if let Some((_, defaults, told)) = meaning.iter().find(|(known, ..)| *known == name) {
        if differs(defaults) && !told.is_empty() {
            notes.push((*told).to_owned());
        }
    } else {
        unknown.push(written());
    }
}

/// Returns what is written in an element, by name: attributes, and elements with their texts. An element
/// that holds other elements stands with the text `…`.
fn options_of(element: Node) -> Result<BTreeMap<String, Vec<String>>, SyncthingError> {
    let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for attribute in element.attributes() {
        options.entry(attribute.name().to_owned()).or_default().push(attribute.value().trim().to_owned());
    }
    for below in element.children().filter(Node::is_element) {
        if below.descendants().any(|node| node.ancestors().take(DEPTH_MAX + 1).count() > DEPTH_MAX) {
            return Err(SyncthingError::TooDeep);
        }
        let name = below.tag_name().name().to_owned();
        // Ids of devices and parameters of versions are read where they stand.
        let mut text = match below.children().any(|node| node.is_element()) {
            true => "…".to_owned(),
            false => below.text().unwrap_or_default().trim().to_owned(),
        };
        if let Some(unit) = below.attribute("unit").filter(|unit| !unit.is_empty()) {
            text = format!("{text} {unit}");
        }
        options.entry(name).or_default().push(text);
    }
    Ok(options)
}

/// Reads how old versions are kept, and says what is otherwise here.
fn versioning(element: Node, days: &mut Option<u32>) -> Vec<String> {
    let mut notes = vec![];
    let parameters: BTreeMap<&str, &str> = element
        .children()
        .filter(|node| node.tag_name().name() == "param")
        .filter_map(|node| Some((node.attribute("key")?, node.attribute("val").unwrap_or_default())))
        .collect();
    let number = |key: &str| parameters.get(key).and_then(|text| text.trim().parse::<u64>().ok());
    let as_days = |days: u64| if days == 0 { FOREVER_DAYS } else { u32::try_from(days).unwrap_or(FOREVER_DAYS) };
    match element.attribute("type").unwrap_or_default() {
        "" | "none" => return vec![],
        "trashcan" => *days = Some(as_days(number("cleanoutDays").unwrap_or(0))),
        "simple" => {
            *days = Some(as_days(number("cleanoutDays").unwrap_or(0)));
            let keep = number("keep").unwrap_or(5);
            notes.push(format!("versions are counted by days here, and not kept to {keep} each"));
        }
        "staggered" => {
            *days = Some(as_days(number("maxAge").unwrap_or(31_536_000).div_ceil(86_400)));
            notes.push("all versions are kept for the same time here, and not fewer of the older ones".to_owned());
        }
        "external" => notes.push("an external program for old versions is not taken over".to_owned()),
        other => notes.push(format!("the versioning `{}` is not known, and not taken over", shown(other))),
    }
    let path = element.children().find(|node| node.tag_name().name() == "fsPath").and_then(|node| node.text());
    let path = path.or(parameters.get("versionsPath").copied()).map(str::trim).filter(|path| !path.is_empty());
    notes.push(format!(
        "old versions that Syncthing kept stay in {}; here history is kept in `.kinfold`, also within `history_size`",
        shown(path.unwrap_or(".stversions"))
    ));
    notes
}

/// Returns the address of `tcp://192.168.1.20:22000` and its kin without the port, where it is one in numbers.
fn static_address(written: &str) -> Option<String> {
    let rest = ["tcp://", "tcp4://", "tcp6://", "quic://", "quic4://", "quic6://"]
        .iter()
        .find_map(|scheme| written.strip_prefix(scheme))?;
    let rest = rest.split('/').next()?;
    let ip = rest.parse::<std::net::SocketAddr>().map(|address| address.ip());
    let ip = ip.or_else(|_| rest.trim_matches(['[', ']']).parse()).ok()?;
    (!ip.is_unspecified()).then(|| ip.to_string())
}

fn incomplete(element: Node, what: String) -> SyncthingError {
    let line = element.document().text_pos_at(element.range().start).row;
    SyncthingError::Incomplete { line, what }
}

/// Returns a word of the file as it may stand in a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
