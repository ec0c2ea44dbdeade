//! From the text of the file to a [`Config`]: all defaults and all rules.
//!
//! Nothing is guessed: a key that nobody knows, a name that stands twice or a folder inside another
//! stops the reading, with the line and what to do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use toml::Spanned;

use crate::config::Accept;
use crate::config::Config;
use crate::config::Device;
use crate::config::Folder;
use crate::config::History;
use crate::config::Network;
use crate::config::NetworkMode;
use crate::config::Revoked;
use crate::config::SandboxMode;
use crate::config::address;
use crate::config::address::AddressError;
use crate::config::address::DEFAULT_PORT;
use crate::config::brake;
use crate::config::error::Advice;
use crate::config::error::ConfigError;
use crate::config::error::Fault;
use crate::config::error::check_label;
use crate::config::file;
use crate::config::merge;
use crate::config::merge::Merge;
use crate::config::metered;
use crate::config::metered::WhenMetered;
use crate::config::paths::Paths;
use crate::config::rate::Rate;
use crate::config::rate::Rates;
use crate::config::raw::RawAccept;
use crate::config::raw::RawConfig;
use crate::config::raw::RawDevice;
use crate::config::raw::RawFolder;
use crate::config::raw::RawHistory;
use crate::config::raw::RawMember;
use crate::config::raw::RawNetwork;
use crate::config::raw::RawRevoked;
use crate::config::raw::RawSize;
use crate::config::size::HistorySize;
use crate::config::subnet::Subnet;
use crate::config::windows::WINDOWS_MAX;
use crate::config::windows::Windows;
use crate::model::brake::Thresholds;
use crate::model::id::DeviceId;
use crate::model::id::FolderId;
use crate::model::limits::DEVICES_MAX;
use crate::model::limits::FOLDERS_MAX;
use crate::model::limits::FORMER_IDS_MAX;
use crate::model::limits::MEMBERS_MAX;
use crate::model::limits::REVOCATIONS_MAX;
use crate::model::limits::VERSION_COUNTER_MAX;
use crate::model::revocation::Revocation;
use crate::model::rights::Member;
use crate::model::rights::Members;
use crate::model::rights::Right;

/// Days that the past is kept, where nothing is said.
pub const DEFAULT_HISTORY_DAYS: u32 = 30;
/// Space that the past may take, where nothing is said.
pub const DEFAULT_HISTORY_SIZE: HistorySize = HistorySize::Percent(10);
/// Minutes between two full scans, where nothing is said: a net below the watching of changes.
pub const DEFAULT_RESCAN_MINUTES: u32 = 60;
/// Days within which all files are read again, where nothing is said.
pub const DEFAULT_SCRUB_DAYS: u32 = 30;
/// Longest name of a network interface, in bytes (`IFNAMSIZ` of Linux less the closing NUL).
const INTERFACE_LEN_MAX: usize = 15;
/// The word for the right of a member that was removed.
pub const NO_RIGHT: &str = "none";

impl Config {
    /// Reads and checks the configuration at `paths`.
    pub fn load(paths: &Paths) -> Result<Self, ConfigError> {
        let text = file::read(&paths.config_file)?;
        parse(&text, paths).map_err(|fault| ConfigError::Invalid { path: paths.config_file.clone(), fault })
    }
}

/// Reads and checks the text of a configuration. `paths` are the places that no folder may hold.
pub fn parse(text: &str, paths: &Paths) -> Result<Config, Fault> {
    let raw: RawConfig = toml::from_str(text).map_err(|error| syntax_fault(text, &error))?;
    let reader = Reader { text };
    let name = reader.label(&raw.name)?;
    let history = reader.history(&raw.history)?;
    let metered = reader.metered(raw.network.metered.as_ref())?.unwrap_or_default();
    let config = Config {
        network: reader.network(&raw.network)?,
        sandbox: reader.sandbox(raw.sandbox.as_ref())?,
        devices: reader.each(&raw.devices, |device| reader.device(device))?,
        folders: reader.each(&raw.folders, |folder| reader.folder(folder, history, metered))?,
        accepts: reader.each(&raw.accepts, |accept| reader.accept(accept))?,
        revoked: reader.each(&raw.revoked, |revoked| reader.revoked(revoked))?,
        former: reader.former(&raw.former)?,
        name,
        history,
    };
    reader.check_devices(&raw)?;
    reader.check_folders(&raw)?;
    reader.check_places(&raw, paths)?;
    Ok(config)
}

/// Turns the parser's own message into one of ours.
fn syntax_fault(text: &str, error: &toml::de::Error) -> Fault {
    let message =
        error.message().trim().replace("unknown field", "unknown key").replace("missing field", "missing key");
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) if what.starts_with("unknown key") => {
            (what.to_owned(), Some(format!("known here: {}", expected.trim_start_matches("one of "))))
        }
        _ => (message.replace('\n', ", "), None),
    };
    Fault { line: line_at(text, error.span().map_or(0, |span| span.start)), what, hint: expected }
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text.as_bytes().iter().take(byte).filter(|b| **b == b'\n').count()
}

/// Checks raw values; knows the text so that a fault can name its line.
struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn fault(&self, span: Range<usize>, what: impl ToString) -> Fault {
        Fault { line: line_at(self.text, span.start), what: what.to_string(), hint: None }
    }

    fn advised(&self, span: Range<usize>, error: &impl Advice) -> Fault {
        Fault { hint: Some(error.advice().to_owned()), ..self.fault(span, error) }
    }

    fn each<R, T>(&self, raws: &[R], read: impl FnMut(&R) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        raws.iter().map(read).collect()
    }

    fn label(&self, raw: &Spanned<String>) -> Result<String, Fault> {
        check_label(raw.get_ref()).map_err(|error| self.advised(raw.span(), &error))?;
        Ok(raw.get_ref().clone())
    }

    fn network(&self, raw: &RawNetwork) -> Result<Network, Fault> {
        let listen = match &raw.listen {
            Some(listen) => self.each(listen, |text| self.address(text, address::parse_listen))?,
            None => default_listen(),
        };
        let mode = match raw.mode.as_ref().map(|mode| (mode.get_ref().as_str(), mode)) {
            None | Some(("lan", _)) => NetworkMode::Lan,
            Some(("any", _)) => NetworkMode::Any,
            Some((other, mode)) => {
                return Err(Fault {
                    hint: Some("write \"lan\" for local networks alone, or \"any\"".to_owned()),
                    ..self.fault(mode.span(), format!("`{}` is not a mode", other.escape_default()))
                });
            }
        };
        let allow = self
            .each(&raw.allow, |text| Subnet::parse(text.get_ref()).map_err(|error| self.fault(text.span(), error)))?;
        let interfaces = self.each(&raw.interfaces, |name| self.interface(name))?;
        let discovery = raw.discovery.unwrap_or(true);
        let rates = self.rates(raw.send_rate.as_ref(), raw.receive_rate.as_ref())?;
        Ok(Network { listen, mode, allow, interfaces, discovery, rates })
    }

    fn rates(&self, send: Option<&Spanned<String>>, receive: Option<&Spanned<String>>) -> Result<Rates, Fault> {
        let rate = |raw: Option<&Spanned<String>>| match raw {
            None => Ok(None),
            Some(raw) => Rate::parse(raw.get_ref()).map_err(|error| self.advised(raw.span(), &error)),
        };
        Ok(Rates { send: rate(send)?, receive: rate(receive)? })
    }

    fn interface(&self, raw: &Spanned<String>) -> Result<String, Fault> {
        let name = raw.get_ref();
        let is_plain = name.chars().all(|c| c.is_ascii_graphic() && c != '/');
        if name.is_empty() || name.len() > INTERFACE_LEN_MAX || !is_plain {
            return Err(Fault {
                hint: Some("write the name that `ip link` shows, like wg0".to_owned()),
                ..self.fault(raw.span(), format!("`{}` is no name of a network interface", name.escape_default()))
            });
        }
        Ok(name.clone())
    }

    fn sandbox(&self, raw: Option<&Spanned<String>>) -> Result<SandboxMode, Fault> {
        match raw.map(|word| (word.get_ref().as_str(), word)) {
            None | Some(("on", _)) => Ok(SandboxMode::On),
            Some(("required", _)) => Ok(SandboxMode::Required),
            Some(("off", _)) => Ok(SandboxMode::Off),
            Some((other, word)) => Err(Fault {
                hint: Some("write \"on\", \"required\" to run only where all of it can be had, or \"off\"".to_owned()),
                ..self.fault(word.span(), format!("`{}` is no setting of the sandbox", other.escape_default()))
            }),
        }
    }

    fn address(
        &self,
        raw: &Spanned<String>,
        parse: fn(&str) -> Result<SocketAddr, AddressError>,
    ) -> Result<SocketAddr, Fault> {
        parse(raw.get_ref()).map_err(|error| Fault {
            hint: Some("write the address in numbers, like 192.168.1.20 or [fd00::20]:25463".to_owned()),
            ..self.fault(raw.span(), error)
        })
    }

    fn history(&self, raw: &RawHistory) -> Result<History, Fault> {
        Ok(History {
            days: raw.days.unwrap_or(DEFAULT_HISTORY_DAYS),
            size: self.size(raw.size.as_ref())?.unwrap_or(DEFAULT_HISTORY_SIZE),
        })
    }

    fn size(&self, raw: Option<&Spanned<RawSize>>) -> Result<Option<HistorySize>, Fault> {
        let Some(raw) = raw else { return Ok(None) };
        match raw.get_ref() {
            RawSize::Bytes(bytes) => Ok(Some(HistorySize::Bytes(*bytes))),
            RawSize::Text(text) => HistorySize::parse(text).map(Some).map_err(|error| self.advised(raw.span(), &error)),
        }
    }

    fn device_id(&self, raw: &Spanned<String>) -> Result<DeviceId, Fault> {
        DeviceId::parse(raw.get_ref()).map_err(|error| self.fault(raw.span(), error))
    }

    fn former(&self, raw: &[Spanned<String>]) -> Result<Vec<DeviceId>, Fault> {
        match raw.get(FORMER_IDS_MAX) {
            None => self.each(raw, |id| self.device_id(id)),
            Some(beyond) => {
                Err(self.fault(beyond.span(), format!("at most {FORMER_IDS_MAX} former ids are remembered")))
            }
        }
    }

    fn device(&self, raw: &RawDevice) -> Result<Device, Fault> {
        Ok(Device {
            name: self.label(&raw.name)?,
            id: self.device_id(&raw.id)?,
            next: raw.next.as_ref().map(|next| self.device_id(next)).transpose()?,
            former: self.former(&raw.former)?,
            addresses: self.each(&raw.addresses, |text| self.address(text, address::parse_device))?,
            rates: self.rates(raw.send_rate.as_ref(), raw.receive_rate.as_ref())?,
        })
    }

    /// Reads a folder; `history` and `metered` hold where it says nothing of its own.
    fn folder(&self, raw: &RawFolder, history: History, metered: WhenMetered) -> Result<Folder, Fault> {
        let rescan_minutes = raw.rescan_minutes.unwrap_or(DEFAULT_RESCAN_MINUTES);
        let scrub_days = raw.scrub_days.unwrap_or(DEFAULT_SCRUB_DAYS);
        Ok(Folder {
            name: self.label(&raw.name)?,
            id: FolderId::parse(raw.id.get_ref())
                .ok_or_else(|| self.fault(raw.id.span(), "a folder id has 32 hexadecimal digits"))?,
            path: self.place(&raw.path)?,
            paused: raw.paused,
            paused_until: raw.paused_until.as_ref().map(|text| self.time(text)).transpose()?,
            active: self.windows(&raw.active)?,
            metered: self.metered(raw.metered.as_ref())?.unwrap_or(metered),
            rates: self.rates(raw.send_rate.as_ref(), raw.receive_rate.as_ref())?,
            members: self.members(raw)?,
            rescan: (rescan_minutes > 0).then(|| Duration::from_secs(u64::from(rescan_minutes) * 60)),
            gitignore: raw.gitignore,
            history: History {
                days: raw.history_days.unwrap_or(history.days),
                size: self.size(raw.history_size.as_ref())?.unwrap_or(history.size),
            },
            brake: match &raw.brake {
                None => Some(Thresholds::default()),
                Some(text) => brake::parse(text.get_ref()).map_err(|error| self.advised(text.span(), &error))?,
            },
            scrub: (scrub_days > 0).then(|| Duration::from_secs(u64::from(scrub_days) * 86_400)),
            merge: match &raw.merge {
                None => Merge::default(),
                Some(text) => merge::parse(text.get_ref()).map_err(|error| self.advised(text.span(), &error))?,
            },
        })
    }

    /// Reads a point in time: with its offset, or by the clock of this machine.
    fn time(&self, raw: &Spanned<String>) -> Result<Timestamp, Fault> {
        let text = raw.get_ref().trim();
        let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::system()).ok().map(|time| time.timestamp());
        text.parse().ok().or_else(local).ok_or_else(|| Fault {
            hint: Some("write it like \"2026-05-31 18:00\" or \"2026-05-31T18:00+02:00\"".to_owned()),
            ..self.fault(raw.span(), format!("`{}` is no point in time", text.escape_default()))
        })
    }

    fn windows(&self, raw: &[Spanned<String>]) -> Result<Windows, Fault> {
        let mut windows = Windows::default();
        for (n, text) in raw.iter().enumerate() {
            if n == WINDOWS_MAX {
                return Err(
                    self.fault(text.span(), format!("a folder is active at {WINDOWS_MAX} times of the week at most"))
                );
            }
            windows.add(text.get_ref()).map_err(|error| self.advised(text.span(), &error))?;
        }
        Ok(windows)
    }

    fn metered(&self, raw: Option<&Spanned<String>>) -> Result<Option<WhenMetered>, Fault> {
        let parse =
            |raw: &Spanned<String>| metered::parse(raw.get_ref()).map_err(|error| self.advised(raw.span(), &error));
        raw.map(parse).transpose()
    }

    fn members(&self, raw: &RawFolder) -> Result<Members, Fault> {
        if raw.members.len() > MEMBERS_MAX {
            return Err(self.fault(raw.name.span(), format!("a folder has at most {MEMBERS_MAX} members")));
        }
        let lines = self.each(&raw.members, |member| self.member(member))?;
        let mut seen = BTreeMap::new();
        for member in &raw.members {
            self.only_once(&mut seen, member.device.get_ref(), member.device.span(), "member")?;
        }
        Ok(Members::from_lines(lines))
    }

    fn member(&self, raw: &RawMember) -> Result<Member, Fault> {
        let right = match raw.right.get_ref().as_str() {
            NO_RIGHT => None,
            word => Some(Right::parse(word).ok_or_else(|| Fault {
                hint: Some("rights are reader, adder, writer, owner, and none".to_owned()),
                ..self.fault(raw.right.span(), format!("`{}` is not a right", word.escape_default()))
            })?),
        };
        Ok(Member { device: self.device_id(&raw.device)?, right, stamp: raw.stamp.unwrap_or(1) })
    }

    fn accept(&self, raw: &RawAccept) -> Result<Accept, Fault> {
        let shares = self.each(&raw.share, |member| self.member(member))?;
        let shares = shares.into_iter().filter_map(|member| Some((member.device, member.right?))).collect();
        let (name, path, from) = (self.label(&raw.name)?, self.place(&raw.path)?, self.device_id(&raw.from)?);
        Ok(Accept { name, path, from, shares })
    }

    fn revoked(&self, raw: &RawRevoked) -> Result<Revoked, Fault> {
        let stamp = raw.stamp.unwrap_or(1).min(VERSION_COUNTER_MAX);
        let said = Revocation { device: self.device_id(&raw.id)?, stamp, is_lifted: raw.lifted };
        let by = raw.by.as_ref().map(|by| self.device_id(by)).transpose()?;
        let name = raw.name.as_ref().map(|name| self.label(name)).transpose()?;
        Ok(Revoked { said, by, name })
    }

    fn place(&self, raw: &Spanned<String>) -> Result<PathBuf, Fault> {
        let path = PathBuf::from(raw.get_ref());
        let climbs = path.components().any(|part| part == Component::ParentDir);
        if !path.is_absolute() || climbs || raw.get_ref().contains('\0') {
            return Err(Fault {
                hint: Some("write the whole path from / on, without `..`".to_owned()),
                ..self.fault(raw.span(), "a folder's path is absolute")
            });
        }
        Ok(path)
    }

    fn check_devices(&self, raw: &RawConfig) -> Result<(), Fault> {
        let next = raw.devices.iter().filter(|device| device.next.is_some());
        if raw.devices.len() + next.count() > DEVICES_MAX {
            return Err(self.fault(raw.name.span(), format!("at most {DEVICES_MAX} devices can be trusted")));
        }
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        self.only_once(&mut names, raw.name.get_ref(), raw.name.span(), "device name")?;
        for id in &raw.former {
            self.only_once(&mut ids, &id.get_ref().trim().to_lowercase(), id.span(), "device id")?;
        }
        for device in &raw.devices {
            self.only_once(&mut names, device.name.get_ref(), device.name.span(), "device name")?;
            for id in [&device.id].into_iter().chain(&device.next).chain(&device.former) {
                self.only_once(&mut ids, &id.get_ref().trim().to_lowercase(), id.span(), "device id")?;
            }
        }
        if raw.revoked.len() > REVOCATIONS_MAX {
            return Err(self.fault(raw.name.span(), format!("at most {REVOCATIONS_MAX} devices can be revoked")));
        }
        let mut revoked = BTreeMap::new();
        for device in &raw.revoked {
            let id = device.id.get_ref().trim().to_lowercase();
            self.only_once(&mut revoked, &id, device.id.span(), "revoked device")?;
            if !device.lifted && ids.contains_key(&id) {
                return Err(Fault {
                    hint: Some(
                        "take it out of [[devices]]; or, to trust it again, run `kinfold device add`".to_owned(),
                    ),
                    ..self.fault(device.id.span(), "a device that was revoked is not trusted")
                });
            }
        }
        Ok(())
    }

    fn check_folders(&self, raw: &RawConfig) -> Result<(), Fault> {
        if raw.folders.len() + raw.accepts.len() > FOLDERS_MAX {
            return Err(self.fault(raw.name.span(), format!("at most {FOLDERS_MAX} folders can be synced")));
        }
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for folder in &raw.folders {
            self.only_once(&mut names, folder.name.get_ref(), folder.name.span(), "folder name")?;
            self.only_once(&mut ids, &folder.id.get_ref().to_lowercase(), folder.id.span(), "folder id")?;
        }
        for accept in &raw.accepts {
            self.only_once(&mut names, accept.name.get_ref(), accept.name.span(), "folder name")?;
        }
        Ok(())
    }

    fn only_once(
        &self,
        seen: &mut BTreeMap<String, usize>,
        value: &str,
        span: Range<usize>,
        what: &str,
    ) -> Result<(), Fault> {
        let line = line_at(self.text, span.start);
        match seen.insert(value.to_owned(), line) {
            None => Ok(()),
            Some(first) => Err(Fault {
                hint: Some("change one of the two".to_owned()),
                ..self.fault(span, format!("the {what} `{}` stands in line {first} already", value.escape_debug()))
            }),
        }
    }

    /// Checks that no folder holds another, or the program's own files.
    fn check_places(&self, raw: &RawConfig, paths: &Paths) -> Result<(), Fault> {
        let folders = raw.folders.iter().map(|folder| (&folder.path, &folder.name));
        let accepts = raw.accepts.iter().map(|accept| (&accept.path, &accept.name));
        let mut places: Vec<(PathBuf, &Spanned<String>, &str)> = folders
            .chain(accepts)
            .map(|(path, name)| (real_path(Path::new(path.get_ref())), path, name.get_ref().as_str()))
            .collect();
        let (state, config) = (real_path(&paths.state_dir), real_path(paths.config_dir()));
        for (real, path, _) in &places {
            if state.starts_with(real) || config.starts_with(real) || real.starts_with(&state) {
                return Err(Fault {
                    hint: Some("choose a directory apart from the configuration and state of kinfold".to_owned()),
                    ..self.fault(path.span(), format!("{} holds files of kinfold itself", shown(path)))
                });
            }
        }
        // In this order a directory stands right before all that lies below it.
        places.sort_by(|a, b| a.0.cmp(&b.0));
        for pair in places.windows(2) {
            let [(outer, outer_path, outer_name), (inner, inner_path, _)] = pair else { continue };
            if inner.starts_with(outer) {
                let later = if inner_path.span().start > outer_path.span().start { inner_path } else { outer_path };
                let what = match inner == outer {
                    true => format!("{} is synced already, as `{outer_name}`", shown(inner_path)),
                    false => format!("{} lies inside {}, which is a folder too", shown(inner_path), shown(outer_path)),
                };
                return Err(Fault {
                    hint: Some("each folder needs a place of its own, outside all others".to_owned()),
                    ..self.fault(later.span(), what)
                });
            }
        }
        Ok(())
    }
}

fn shown(path: &Spanned<String>) -> String {
    path.get_ref().escape_debug().to_string()
}

fn default_listen() -> Vec<SocketAddr> {
    use std::net::Ipv4Addr;
    use std::net::Ipv6Addr;
    vec![(Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into(), (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()]
}

/// Resolves links as far as the path exists; what does not exist yet is taken as written.
pub fn real_path(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    match existing {
        Some((ancestor, real)) => match path.strip_prefix(ancestor) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::brake::Grade;

    const ID: &str = "00112233445566778899aabbccddeeff";

    fn device(n: u8) -> DeviceId {
        DeviceId::from_public_key([n; 32])
    }

    fn read(text: &str) -> Result<Config, Fault> {
        parse(text, &Paths::below(Path::new("/nowhere/home")).unwrap())
    }

    /// `line` and a part of the message are what a person goes by.
    #[track_caller]
    fn check(text: &str, line: usize, part: &str) {
        let fault = read(text).expect_err(text);
        assert!(fault.what.contains(part), "{}", fault.what);
        assert_eq!(fault.line, line, "{}", fault.what);
    }

    #[test]
    fn a_name_is_all_that_is_needed() {
        let config = read("name = \"h0\"").unwrap();
        assert_eq!(config.name, "h0");
        assert_eq!(config.network.listen, ["0.0.0.0:25463".parse().unwrap(), "[::]:25463".parse().unwrap()]);
        assert_eq!(config.network.mode, NetworkMode::Lan);
        assert_eq!(config.history, History { days: 30, size: HistorySize::Percent(10) });
        assert_eq!((config.devices.len(), config.folders.len(), config.accepts.len()), (0, 0, 0));
    }

    #[test]
    fn everything_that_can_be_written_is_read() {
        let (a, b) = (device(1), device(2));
        let config = read(&format!(
            r#"
            name = "h0"
            sandbox = "required"
            former = ["{}"]
            [network]
            listen = ["10.77.1.1", "[fd00::1]:0"]
            mode = "any"
            allow = ["100.64.0.0/10"]
            interfaces = ["wg0", "eth0.7"]
            discovery = false
            metered = "pause"
            [history]
            days = 7
            size = 1000
            [[devices]]
            name = "laptop"
            id = "{a}"
            next = "{}"
            former = ["{}"]
            addresses = ["10.77.1.2"]
            [[folders]]
            name = "data"
            id = "{ID}"
            path = "/nowhere/data"
            paused = true
            rescan_minutes = 0
            gitignore = true
            history_days = 0
            history_size = "5%"
            brake = "300 files, 40%"
            scrub_days = 0
            merge = "text"
            metered = "go"
            members = [
              {{ device = "{a}", right = "owner" }},
              {{ device = "{b}", right = "none", stamp = 4 }},
            ]
            [[folders]]
            name = "more"
            id = "ff112233445566778899aabbccddeeff"
            path = "/nowhere/more"
            [[accepts]]
            name = "photos"
            path = "/nowhere/photos"
            from = "{a}"
            "#,
            device(3),
            device(4),
            device(5)
        ))
        .unwrap();
        assert_eq!(config.network.listen, ["10.77.1.1:25463".parse().unwrap(), "[fd00::1]:0".parse().unwrap()]);
        assert_eq!(config.sandbox, SandboxMode::Required);
        assert_eq!(config.former, [device(3)]);
        assert_eq!((config.devices[0].next, &config.devices[0].former[..]), (Some(device(4)), &[device(5)][..]));
        assert_eq!(config.network.interfaces, ["wg0", "eth0.7"]);
        assert!(!config.network.discovery);
        let [data, more] = &config.folders[..] else { panic!("two folders") };
        assert_eq!(data.history, History { days: 0, size: HistorySize::Percent(5) });
        assert_eq!(more.history, History { days: 7, size: HistorySize::Bytes(1000) });
        assert_eq!((data.rescan, more.rescan), (None, Some(Duration::from_secs(3600))));
        assert_eq!(data.brake.as_ref().map(Thresholds::first), Some(Grade { files: 300, percent: 40 }));
        assert_eq!(more.brake, Some(Thresholds::default()), "it is on where nothing is said");
        assert_eq!((data.scrub, more.scrub), (None, Some(Duration::from_secs(30 * 86_400))));
        assert_eq!((data.merge, more.merge), (Merge::Text, Merge::Ask));
        assert_eq!((data.metered, more.metered), (WhenMetered::Go, WhenMetered::Pause), "a folder's word counts first");
        assert_eq!(data.members.right_of(&a), Some(Right::Owner));
        assert_eq!(data.members.lines()[1], Member { device: b, right: None, stamp: 4 });
        assert_eq!(config.device_named("laptop"), config.device(&a));
        assert_eq!(config.device_named(&a.to_string()), config.device(&a));
        assert_eq!(config.accepts[0].from, a);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        check("name = \"h\"\n[network]\nlisten = []\nport = 1\n", 4, "unknown key `port`");
        check("name = \"h\"\n[networks]\n", 2, "unknown key `networks`");
        let fault = read("name = \"h\"\nnme = 1").unwrap_err();
        assert_eq!(
            fault.hint.as_deref(),
            Some(
                "known here: `name`, `sandbox`, `former`, `network`, `history`, `devices`, `folders`, `accepts`, `revoked`"
            )
        );
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        check("name = \"h\"\n[network\n", 2, "");
        check("\nname = 7\n", 2, "expected a string");
        check("[network]\n", 1, "missing key `name`");
    }

    #[test]
    fn every_value_is_checked() {
        check("name = \"\"", 1, "cannot be empty");
        check("name = \"h\"\n[network]\nlisten = [\n\"nas.local\"]", 4, "host names are never looked up");
        check("name = \"h\"\n[network]\nmode = \"wan\"", 3, "`wan` is not a mode");
        check("name = \"h\"\nsandbox = \"yes\"", 2, "`yes` is no setting of the sandbox");
        check("name = \"h\"\n[network]\nallow = [\"10.0.0.1/8\"]", 3, "write 10.0.0.0/8");
        for name in ["", "a b", "../x", "a-name-of-16-chr"] {
            let text = format!("name = \"h\"\n[network]\ninterfaces = [\"{name}\"]");
            check(&text, 3, "is no name of a network interface");
        }
        check("name = \"h\"\n[history]\nsize = \"much\"", 3, "`much` is not a size");
        check("name = \"h\"\n[history]\nsize = true", 3, "write a size like");
        check("name = \"h\"\n[[devices]]\nname = \"a\"\nid = \"kin1\"", 4, "has 62 characters");
        check("name = \"h\"\n[[folders]]\nname = \"a\"\nid = \"12\"\npath = \"/a\"", 4, "32 hexadecimal digits");
        check(&format!("name = \"h\"\n[[folders]]\nname = \"a\"\nid = \"{ID}\"\npath = \"a\""), 5, "is absolute");
        let brake = format!("name = \"h\"\n[[folders]]\nname = \"a\"\nid = \"{ID}\"\npath = \"/a\"\nbrake = \"no\"");
        check(&brake, 6, "no setting of the brake");
        check(&brake.replace("brake", "merge"), 6, "no way to merge");
        check(&brake.replace("brake", "metered"), 6, "`no` says nothing of metered connections");
        check("name = \"h\"\n[network]\nmetered = \"stop\"", 3, "`stop` says nothing of metered connections");
    }

    #[test]
    fn names_and_ids_stand_once() {
        let (a, b) = (device(1), device(2));
        let devices = |x: &str, y: &str| format!("name = \"h\"\n[[devices]]\n{x}\n[[devices]]\n{y}");
        check(&devices(&format!("name=\"a\"\nid=\"{a}\""), &format!("name=\"a\"\nid=\"{b}\"")), 6, "stands in line 3");
        check(&devices(&format!("name=\"a\"\nid=\"{a}\""), &format!("name=\"b\"\nid=\"{a}\"")), 7, "stands in line 4");
        check(&devices(&format!("name=\"a\"\nid=\"{a}\""), &format!("name=\"h\"\nid=\"{b}\"")), 6, "stands in line 1");
    }

    #[test]
    fn no_folder_lies_inside_another() {
        let folders = |x: &str, y: &str| {
            format!(
                "name = \"h\"\n[[folders]]\nname=\"x\"\nid=\"{ID}\"\npath=\"{x}\"\n[[folders]]\nname=\"y\"\nid=\"{}\"\npath=\"{y}\"",
                ID.replace('0', "1")
            )
        };
        assert!(read(&folders("/nowhere/a", "/nowhere/a-b")).is_ok());
        check(&folders("/nowhere/a", "/nowhere/a/b/c"), 9, "/nowhere/a/b/c lies inside /nowhere/a");
        check(&folders("/nowhere/a/b", "/nowhere/a"), 9, "/nowhere/a/b lies inside /nowhere/a");
        check(&folders("/nowhere/a", "/nowhere/a/"), 9, "is synced already, as `x`");
        check(&folders("/nowhere/a", "/nowhere/home/state/x"), 9, "holds files of kinfold itself");
        check(&folders("/nowhere/home", "/nowhere/a"), 5, "holds files of kinfold itself");
    }

    #[test]
    fn links_do_not_hide_that_a_folder_lies_inside_another() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", dir.path().join("link")).unwrap();
        assert_eq!(real_path(&dir.path().join("link/new")), real_path(&dir.path().join("a/b/new")));
    }
}
