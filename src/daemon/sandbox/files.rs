//! Which files and TCP ports a daemon reaches (Landlock): its own files, its folders, and the ports that the
//! configuration names.
//!
//! The rules are made of what the configuration says at the start and cannot be widened. So it is remembered
//! what they were made of: a folder that was added, or another directory where one lay, needs a new process.
//! The kernel tells directories apart by what they are and not by their names; so do we.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::config::Config;
use crate::config::address::DEFAULT_PORT;
use crate::config::paths::Paths;

/// Of the rights over files that there are up to here, those that are not given are refused.
const FILES: ABI = ABI::V5;
/// What is read besides: time zones, how many processors there are, randomness.
const READ: &[&str] = &[
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/urandom",
    "/dev/random",
];
/// What is read of this process alone.
const READ_OF_SELF: &str = "/proc/self";
/// What may be written to, and swallows it.
const NOWHERE: &str = "/dev/null";

/// What the rules were made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Covered {
    /// The roots of the folders, and which directories they were; `None` where none was there.
    roots: BTreeMap<PathBuf, Option<(u64, u64)>>,
    /// Ports that may be listened on.
    bind: BTreeSet<u16>,
    /// Ports that may be dialed.
    connect: BTreeSet<u16>,
}

impl Covered {
    /// Looks at what a configuration needs now.
    pub fn by(config: &Config) -> Self {
        let folders = config.folders.iter().map(|folder| &folder.path);
        let roots = folders.chain(config.accepts.iter().map(|accept| &accept.path));
        let dialed = config.devices.iter().flat_map(|device| &device.addresses).map(|address| address.port());
        Self {
            roots: roots.map(|path| (path.clone(), which(path))).collect(),
            bind: config.network.listen.iter().map(|address| address.port()).collect(),
            connect: dialed.chain([DEFAULT_PORT]).collect(),
        }
    }

    /// Returns whether rules made of this are enough for a configuration as things lie now. A root that is
    /// away needs nothing.
    pub fn suffices(&self, config: &Config) -> bool {
        let needed = Self::by(config);
        let is_covered = |(path, root): (&PathBuf, &Option<(u64, u64)>)| {
            root.is_none() || self.roots.get(path).is_some_and(|covered| covered == root)
        };
        needed.roots.iter().all(is_covered)
            && needed.bind.is_subset(&self.bind)
            && needed.connect.is_subset(&self.connect)
    }
}

fn which(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// What came of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// Directories below which all may be done.
    pub places: Vec<PathBuf>,
    /// Whether emptying a file counts as writing to it; before Linux 6.2 any file of the same user can be emptied.
    pub truncation: bool,
    /// Whether TCP ports are bounded too; kernels before 6.7 cannot.
    pub ports: bool,
    /// Whether signals to other processes and abstract sockets are cut off too; kernels before 6.12 cannot.
    pub scopes: bool,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum NoRules {
    /// Rules of the first kind refuse each rename from one directory to another, of which all depends.
    #[error("the kernel has no Landlock, or one before Linux 5.19")]
    Kernel,
    /// The kernel refused.
    #[error("Landlock refused its rules")]
    Refused(#[from] RulesetError),
}

/// Puts the rules in force, in this thread and all that it starts.
pub fn confine(paths: &Paths, covered: &Covered) -> Result<Rules, NoRules> {
    let refer = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Refer);
    if refer.is_err() {
        return Err(NoRules::Kernel);
    }
    let truncation = is_known(|ruleset| ruleset.handle_access(AccessFs::Truncate));
    let ports = is_known(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V4)));
    let scopes = is_known(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)));
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(FILES))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    let own = AccessFs::from_all(FILES)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let places = places(paths, covered);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules: Vec<(PathBuf, BitFlags<AccessFs>)> = places.iter().map(|place| (place.clone(), own)).collect();
    rules.extend(READ.iter().chain([&READ_OF_SELF]).map(|path| (path.into(), read)));
    rules.push((NOWHERE.into(), AccessFs::ReadFile | AccessFs::WriteFile));
    for (path, access) in rules {
        // What is not there is not reached; a root that appears later needs a new process.
        let Ok(fd) = PathFd::new(&path) else { continue };
        // The kernel refuses rights over directories for a file.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(FILES) };
        ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
    }
    for port in &covered.bind {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    for port in &covered.connect {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    // The kernel had it a moment ago, and yet nothing may have come into force.
    if ruleset.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        return Err(NoRules::Kernel);
    }
    Ok(Rules { places, truncation, ports, scopes })
}

/// Takes all files and ports from this thread and all that it starts, as far as the kernel can.
pub fn confine_to_nothing() -> Result<(), RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(FILES))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?;
    ruleset.create()?.restrict_self()?;
    Ok(())
}

fn is_known(add: impl FnOnce(Ruleset) -> Result<Ruleset, RulesetError>) -> bool {
    add(Ruleset::default().set_compatibility(CompatLevel::HardRequirement)).is_ok()
}

/// Returns the directories that a daemon needs wholly. A configuration that is a link lies elsewhere, and
/// is replaced there.
fn places(paths: &Paths, covered: &Covered) -> Vec<PathBuf> {
    let file = fs::canonicalize(&paths.config_file).unwrap_or_else(|_| paths.config_file.clone());
    let linked = file.parent().map(Path::to_owned);
    let own = [paths.state_dir.clone(), paths.config_dir().to_owned()].into_iter().chain(linked);
    let mut places: Vec<PathBuf> = own.chain(covered.roots.keys().cloned()).collect();
    places.sort();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::load::parse;

    fn config(dir: &Path, more: &str) -> Config {
        let paths = Paths::below(&dir.join("home")).unwrap();
        parse(&format!("name = \"h\"\n{more}"), &paths).unwrap()
    }

    fn folder(path: &Path) -> String {
        let path = path.display();
        format!("[[folders]]\nname = \"a\"\nid = \"0123456789abcdef0123456789abcdef\"\npath = \"{path}\"\n")
    }

    #[test]
    fn another_directory_another_folder_or_another_port_needs_other_rules() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir(&a).unwrap();
        let before = config(dir.path(), &folder(&a));
        let covered = Covered::by(&before);
        assert!(covered.suffices(&before));
        // A folder that is given up needs none.
        assert!(covered.suffices(&config(dir.path(), "")));
        // One that is not there needs none until it is.
        let other = config(dir.path(), &folder(&b));
        assert!(covered.suffices(&other));
        fs::create_dir(&b).unwrap();
        assert!(!covered.suffices(&other));
        // The name is the same and the directory is another; then it is gone.
        fs::rename(&a, dir.path().join("c")).unwrap();
        assert!(covered.suffices(&before));
        fs::create_dir(&a).unwrap();
        assert!(!covered.suffices(&before));
        let listens = config(dir.path(), "[network]\nlisten = [\"127.0.0.1:1234\"]");
        assert!(!covered.suffices(&listens));
        let id = crate::model::id::DeviceId::from_public_key([1; 32]);
        let dials = |address: &str| {
            let device = format!("[[devices]]\nname = \"l\"\nid = \"{id}\"\naddresses = [\"{address}\"]");
            config(dir.path(), &device)
        };
        assert!(covered.suffices(&dials("10.0.0.1")));
        assert!(!covered.suffices(&dials("10.0.0.1:1234")));
    }

    #[test]
    fn a_lookout_reaches_no_file_and_no_port() {
        if !is_known(|ruleset| ruleset.handle_access(AccessFs::Refer)) {
            assert!(std::env::var_os("KINFOLD_NEED_LANDLOCK").is_none(), "this kernel has no Landlock");
            eprintln!("this kernel has no Landlock: nothing was tried");
            return;
        }
        let has_ports = is_known(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V4)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "content").unwrap();
        // Only the thread that asks for it is confined, and ends.
        let tried = std::thread::spawn(move || {
            confine_to_nothing().unwrap();
            let dialed = std::net::TcpStream::connect(address).map(drop);
            [fs::read(&file).map(drop), fs::write(&file, "other"), fs::read_dir("/").map(drop), dialed]
        });
        let [read, written, listed, dialed] = tried.join().unwrap().map(|done| done.map_err(|error| error.kind()));
        let refused = Err(std::io::ErrorKind::PermissionDenied);
        assert_eq!([read, written, listed], [refused; 3]);
        assert!(dialed == refused || !has_ports, "{dialed:?}");
    }
}
