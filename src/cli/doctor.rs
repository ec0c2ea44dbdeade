//! `kinfold doctor`: checks all that a person can put in order, and says how.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::unlock;
use crate::config::Config;
use crate::config::Device;
use crate::config::Folder;
use crate::config::NetworkMode;
use crate::config::metered::WhenMetered;
use crate::config::paths::Paths;
use crate::control::client::ControlError;
use crate::control::types::SandboxStatus;
use crate::control::types::Status;
use crate::keys::key_file::KeyFile;

/// Arguments of `kinfold doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    verdict: Verdict,
    what: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// Fewer directories than this are watched where a distribution left the old default of Linux.
const WATCHES_ENOUGH: u64 = 65_536;
/// A clock outside these years was never set.
const YEAR_MIN: i16 = 2026;
const YEAR_MAX: i16 = 2100;

/// Runs the command. Fails where a check does.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let checks = look(context)?;
    if args.json {
        output::say_json(&checks)?;
    } else {
        for check in &checks {
            let word = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "fail",
            };
            output::say(format_args!(
                "{word}  {}: {}",
                output::printable(&check.what),
                output::printable(&check.found)
            ))?;
            if let Some(advice) = &check.advice {
                output::say(format_args!("      {}", output::printable(advice)))?;
            }
        }
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn look(context: &Context) -> Result<Vec<Check>, Failure> {
    let mut checks = vec![];
    let status = check_daemon(context, &mut checks)?;
    checks.push(match context.own_id() {
        Ok(id) => ok("identity", id.to_string()),
        Err(failure) => failed("identity", &failure),
    });
    match context.config() {
        Ok(config) => {
            checks.push(ok("configuration", context.paths.config_file.display().to_string()));
            checks.extend(config.network.listen.iter().map(|address| check_port(*address, status.as_ref())));
            checks.extend(config.folders.iter().map(check_folder));
            check_devices(&config, status.as_ref(), &mut checks);
        }
        Err(failure) => checks.push(failed("configuration", &failure)),
    }
    checks.extend(status.as_ref().map(|status| check_sandbox(&status.sandbox)));
    checks.push(check_watches(status.as_ref()));
    checks.push(check_clock());
    if let Ok(config) = context.config() {
        checks.extend(check_firewall(&config));
        checks.push(check_discovery(&config, status.as_ref()));
        checks.extend(check_metered(&config, status.as_ref()));
        checks.push(seen_by_strangers(&config));
        checks.extend(config.devices.iter().map(|device| seen_by_peer(&config, device)));
        checks.push(seen_by_thieves(&context.paths));
    }
    Ok(checks)
}

fn ok(what: impl Into<String>, found: impl Into<String>) -> Check {
    Check { verdict: Verdict::Ok, what: what.into(), found: found.into(), advice: None }
}

fn warn(what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { verdict: Verdict::Warn, advice: Some(advice.into()), ..ok(what, found) }
}

fn fail(what: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { verdict: Verdict::Fail, advice: Some(advice.into()), ..ok(what, found) }
}

fn failed(what: &str, failure: &Failure) -> Check {
    let advice = failure.hint().map(str::to_owned);
    Check { verdict: Verdict::Fail, advice, ..ok(what, failure.message()) }
}

fn check_daemon(context: &Context, checks: &mut Vec<Check>) -> Result<Option<Status>, Failure> {
    match context.client()?.status() {
        Ok(status) => {
            checks.push(ok("daemon", format!("version {} is running", status.version)));
            Ok(Some(status))
        }
        Err(ControlError::NoDaemon { .. }) => {
            checks.push(warn("daemon", "is not running", "start it with `kinfold serve`"));
            Ok(None)
        }
        Err(error) => {
            checks.push(failed("daemon", &error.into()));
            Ok(None)
        }
    }
}

fn check_port(address: SocketAddr, status: Option<&Status>) -> Check {
    let what = format!("address {address}");
    if status.is_some_and(|status| status.listen.contains(&address)) {
        return ok(what, "the daemon listens there");
    }
    if address.port() == 0 {
        return ok(what, "takes a port that is free");
    }
    match TcpListener::bind(address) {
        Ok(_) if status.is_none() => ok(what, "is free"),
        Ok(_) => fail(what, "the daemon does not listen there", "restart the daemon, and look at its log"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            fail(what, "is in use by another program", "choose another port under [network] listen")
        }
        Err(error) => fail(what, error.to_string(), "choose an address of this machine under [network] listen"),
    }
}

/// A firewall that is known to be on, by what anybody may read of it.
fn check_firewall(config: &Config) -> Option<Check> {
    let ports: BTreeSet<u16> =
        config.network.listen.iter().filter(|at| !at.ip().is_loopback()).map(SocketAddr::port).collect();
    let open = |command: &dyn Fn(String) -> String| {
        let tcp = ports.iter().map(|port| command(format!("{port}/tcp")));
        tcp.chain(config.network.discovery.then(|| command("5353/udp".to_owned()))).collect::<Vec<_>>().join("; ")
    };
    let is_on =
        fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| text.lines().any(|line| line == "ENABLED=yes"));
    let advice = if is_on {
        open(&|port| format!("sudo ufw allow {port}"))
    } else if Path::new("/run/firewalld").exists()
        || Path::new("/sys/fs/cgroup/system.slice/firewalld.service").exists()
    {
        open(&|port| format!("sudo firewall-cmd --permanent --add-port={port}")) + "; sudo firewall-cmd --reload"
    } else {
        return None;
    };
    (!ports.is_empty())
        .then(|| warn("firewall", "is on, and may keep other devices out", format!("where it does: {advice}")))
}

fn check_discovery(config: &Config, status: Option<&Status>) -> Check {
    let what = "discovery";
    if !config.network.discovery {
        return ok(what, "is off: devices are dialed at addresses that are written down");
    }
    if config.devices.is_empty() {
        return ok(what, "rests: no device is trusted yet");
    }
    let Some(status) = status else { return ok(what, "is on") };
    let by: Vec<_> = status.sockets.iter().filter_map(|socket| socket.strip_prefix("udp multicast ")).collect();
    match by.is_empty() {
        false => ok(what, format!("by {}", by.join(" and "))),
        true if !shows_beacons(config) => ok(what, "rests: the daemon listens on this machine alone"),
        true => {
            warn(what, "rests: there is no network by which this device may be found", "look at the log of the daemon")
        }
    }
}

/// Whether a daemon with this configuration shows beacons, where there is a network.
fn shows_beacons(config: &Config) -> bool {
    let is_reached = config.network.listen.iter().any(|at| !at.ip().is_loopback());
    config.network.discovery && !config.devices.is_empty() && is_reached
}

/// What somebody on the network sees who is not trusted.
fn seen_by_strangers(config: &Config) -> Check {
    let ports: BTreeSet<_> = config.network.listen.iter().map(|at| at.port().to_string()).collect();
    let ports = ports.into_iter().collect::<Vec<_>>().join(" and ");
    let beacons = match shows_beacons(config) {
        true => ", and beacons that do not tell which device it is",
        false => "",
    };
    let whom = match config.network.mode {
        NetworkMode::Lan => "in local networks",
        NetworkMode::Any => "anywhere",
    };
    ok(format!("a stranger {whom}"), format!("sees that TCP port {ports} is open{beacons}; has no answer"))
}

/// What a device gets that is trusted, or whoever has it in his hands.
fn seen_by_peer(config: &Config, device: &Device) -> Check {
    let may = |folder: &Folder| {
        let name = output::escaped(&folder.name);
        folder.members.right_of(&device.id).map(|right| format!("{name} ({})", right.as_str()))
    };
    let folders: Vec<_> = config.folders.iter().filter_map(may).collect();
    let what = format!("the device {}", output::escaped(&device.name));
    match folders.is_empty() {
        true => ok(what, "sees no folder of this device"),
        false => ok(what, format!("has {}", folders.join(", "))),
    }
}

/// What whoever takes the disk away has.
fn seen_by_thieves(paths: &Paths) -> Check {
    let what = "a thief of the disk";
    // Where it cannot be read, another line says so.
    let is_locked = unlock::find(paths).ok().flatten().is_some_and(|found| matches!(found.file, KeyFile::Locked(_)));
    let reads = match is_locked {
        true => "reads the files and their history, and not the identity, which has a passphrase",
        false => "reads the files, their history and the identity",
    };
    match is_encrypted(&paths.state_dir) {
        Some(true) => ok(what, "has nothing without the passphrase of the disk, which is encrypted"),
        Some(false) => warn(
            what,
            format!("{reads}: the disk does not look encrypted"),
            "encrypt the disk, or know how to have this device revoked: kinfold device revoke, on another one",
        ),
        None => ok(what, format!("{reads}, unless the disk is encrypted, which cannot be told")),
    }
}

/// Returns whether the disk under a path is one that Linux decrypts (dm-crypt), or `None` where it is no disk.
fn is_encrypted(path: &Path) -> Option<bool> {
    let number = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let block = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
    block.exists().then(|| is_decrypted(&block, LAYERS_MAX))
}

/// Most layers of block devices that are looked through.
const LAYERS_MAX: u32 = 8;

/// Whether a block device, or all of those that it stands on, are decrypted ones.
fn is_decrypted(block: &Path, layers: u32) -> bool {
    let is_crypt = fs::read_to_string(block.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("CRYPT-"));
    let below = fs::read_dir(block.join("slaves")).into_iter().flatten().flatten();
    let mut below = below.map(|entry| entry.path()).peekable();
    is_crypt || layers > 0 && below.peek().is_some() && below.all(|block| is_decrypted(&block, layers - 1))
}

/// Whether it is known if the connection is metered, where a folder is to rest for that.
fn check_metered(config: &Config, status: Option<&Status>) -> Option<Check> {
    let what = "metered connections";
    if config.folders.iter().all(|folder| folder.metered == WhenMetered::Go) {
        return None;
    }
    let metered = status?.policy.metered.as_ref();
    Some(match metered.map(|metered| (metered.connection.as_str(), metered.why.as_deref())) {
        Some(("unknown", why)) => warn(
            what,
            format!("it is not known whether this is one: {}; folders go on", why.unwrap_or("nobody says so")),
            "NetworkManager says so, where it runs; without it use `kinfold folder pause --until` and `active`",
        ),
        Some((connection, _)) => ok(what, format!("the connection is {connection} now")),
        None => warn(what, "the daemon does not ask whether this is one", "restart the daemon"),
    })
}

fn check_folder(folder: &Folder) -> Check {
    let what = format!("folder {}", output::escaped(&folder.name));
    let path = folder.path.display();
    match fs::metadata(&folder.path) {
        Ok(meta) if !meta.is_dir() => {
            fail(what, format!("{path} is not a directory"), "put the directory back in its place")
        }
        Ok(_) if !folder.path.join(".kinfold/marker").is_file() => warn(
            what,
            format!("{path} has no .kinfold/marker"),
            "that is right before its first scan; later it means that another disk is mounted there, or none",
        ),
        Ok(_) => ok(what, path.to_string()),
        Err(error) => fail(what, format!("{path}: {error}"), "mount its disk, or bring the directory back"),
    }
}

fn check_devices(config: &Config, status: Option<&Status>, checks: &mut Vec<Check>) {
    if config.devices.is_empty() {
        checks.push(warn("devices", "none is trusted yet", "add one: kinfold pair"));
    }
    for peer in status.iter().flat_map(|status| &status.peers) {
        let what = format!("device {}", output::escaped(&peer.name));
        checks.push(match (peer.connected, &peer.last_error) {
            (true, _) => ok(what, "is connected"),
            (false, why) => {
                let why = why.as_ref().map_or_else(|| "is away".to_owned(), |why| format!("is away: {why}"));
                Check { advice: peer.hint.clone(), ..warn(what, why, "") }
            }
        });
    }
}

fn check_sandbox(sandbox: &SandboxStatus) -> Check {
    let what = "sandbox";
    let in_force = sandbox.in_force.join(", ");
    match (sandbox.mode.as_str(), sandbox.missing.is_empty()) {
        ("off", _) => warn(what, "is off", "take `sandbox = \"off\"` out of the configuration"),
        (_, true) => ok(what, format!("the daemon is confined: {in_force}")),
        (_, false) => warn(
            what,
            format!("the daemon is not confined by {}", sandbox.missing.join("; ")),
            "all of it needs Linux 6.12 with Landlock; `serve --require-sandbox` runs with nothing less",
        ),
    }
}

fn check_watches(status: Option<&Status>) -> Check {
    const ADVICE: &str = "raise it: sysctl fs.inotify.max_user_watches=1048576";
    let what = "watched directories";
    let limit = read_number(Path::new("/proc/sys/fs/inotify/max_user_watches"));
    let found = match (limit, status) {
        (None, _) => return warn(what, "the limit cannot be read", "changes may be found by scanning only"),
        (Some(limit), None) => format!("at most {limit}"),
        (Some(limit), Some(status)) => format!("{} of at most {limit}", status.watch.dirs),
    };
    let is_short = status.map_or(limit < Some(WATCHES_ENOUGH), |status| status.watch.limit_reached);
    if is_short { warn(what, found, ADVICE) } else { ok(what, found) }
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn check_clock() -> Check {
    let now = jiff::Zoned::now();
    let found = now.strftime("%Y-%m-%d %H:%M %Z").to_string();
    match (YEAR_MIN..YEAR_MAX).contains(&now.year()) {
        true => ok("clock", found),
        false => warn("clock", found, "set the clock; conflict copies and history go by it"),
    }
}
