//! A lab of made-up devices: each has its own home, folder, port and daemon.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kinfold::control::client::Client;
use kinfold::control::types::{FolderStatus, Status};
use tempfile::TempDir;

/// Longer than anything here takes, on a busy machine too.
pub const AMPLE: Duration = Duration::from_secs(120);
/// Pause between two looks at what has to become true.
const POLL: Duration = Duration::from_millis(50);
/// The folder that most tests share.
pub const DATA: &str = "data";

/// Devices on this machine.
pub struct Lab {
    dir: TempDir,
}

impl Lab {
    /// Makes a lab without devices.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// Returns a path for what belongs to no device.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// Keeps all that belongs to the lab when it ends, and says where.
    pub fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.path("")
    }

    /// Makes a device that is set up and has an empty directory for the folder.
    pub fn device(&self, name: &str) -> Device {
        let dir = self.path(name);
        let device = Device {
            name: name.to_owned(),
            home: dir.join("home"),
            root: dir.join(DATA),
            address: free_address(),
            log: dir.join("log"),
            child: Mutex::new(None),
        };
        fs::create_dir_all(&device.root).unwrap();
        device.ok(&["init", "--name", name, "--listen", &device.address.to_string()]);
        device
    }

    /// Makes two devices that trust each other and share [`DATA`]; their daemons do not run.
    pub fn pair(&self) -> (Device, Device) {
        let (a, b) = (self.device("a"), self.device("b"));
        a.trusts(&b);
        b.trusts(&a);
        a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
        b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
        (a, b)
    }

    /// Makes such a pair whose daemons run.
    pub fn running_pair(&self) -> (Device, Device) {
        let (a, b) = self.pair();
        a.serve();
        b.serve();
        (a, b)
    }

    /// Makes three devices that all trust each other and share [`DATA`]; their daemons do not run.
    pub fn three(&self) -> [Device; 3] {
        let devices = ["a", "b", "c"].map(|name| self.device(name));
        for device in &devices {
            for other in devices.iter().filter(|other| other.name != device.name) {
                device.trusts(other);
            }
        }
        let [a, others @ ..] = &devices;
        a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b", "--share", "c"]);
        for other in others {
            other.ok(&["folder", "accept", DATA, other.root_text(), "--from", "a"]);
        }
        devices
    }
}

/// Finds a port that nobody listens on, outside the range from which the system takes its own.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() % 600) as u16 * 20;
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Waits until `is_true`, and fails with `what` where that does not come to be.
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < AMPLE, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A device of its own, with a daemon that ends with it.
pub struct Device {
    pub name: String,
    pub home: PathBuf,
    pub root: PathBuf,
    pub address: SocketAddr,
    pub log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Device {
    pub fn root_text(&self) -> &str {
        self.root.to_str().unwrap()
    }

    /// Returns a path in the folder.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Returns a path in the folder for a command line.
    pub fn text(&self, path: &str) -> String {
        self.at(path).to_str().unwrap().to_owned()
    }

    /// Writes a file in the folder, and the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Reads a file in the folder, if it is there.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read(self.at(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.at(path)).is_ok()
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    // --------------------------------------------------------------------------------- commands

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinfold"));
        command.arg("--home").arg(&self.home).args(args).env_clear().env("TZ", "UTC");
        command.env("HOME", self.home.join("user")).stdin(Stdio::null());
        command
    }

    /// Runs a command.
    pub fn cli(&self, args: &[&str]) -> Ran {
        let output = self.command(args).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that has to do what it is asked.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.cli(args);
        assert_eq!(ran.code, 0, "{}: {args:?}: {ran:?}", self.name);
        ran.stdout
    }

    /// Runs a command with `--json`, whatever its exit code says of the inbox.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let ran = self.cli(&[args, &["--json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{}: {args:?}: {error}: {ran:?}", self.name))
    }

    pub fn id(&self) -> String {
        self.ok(&["id"]).trim().to_owned()
    }

    /// Trusts another device, and knows where it listens.
    pub fn trusts(&self, other: &Device) {
        self.trusts_at(other, other.address);
    }

    /// Trusts another device that is reached at an address.
    pub fn trusts_at(&self, other: &Device, address: SocketAddr) {
        self.ok(&["device", "add", &other.id(), "--name", &other.name, "--address", &address.to_string()]);
    }

    // ----------------------------------------------------------------------------------- daemon

    /// Starts the daemon and waits until it answers.
    pub fn serve(&self) {
        self.serve_with(|_| {});
    }

    /// Starts the daemon in another way than usual, and waits until it answers.
    pub fn serve_with(&self, adjust: impl FnOnce(&mut Command)) {
        self.start_with(adjust);
        wait_until("the daemon answers", || {
            let mut child = self.child.lock().unwrap();
            let status = child.as_mut().unwrap().try_wait().unwrap();
            assert!(status.is_none(), "{}: the daemon ended: {status:?}\n{}", self.name, self.log_tail());
            drop(child);
            self.status_now().is_some()
        });
    }

    /// Starts the daemon and does not wait for it.
    pub fn start(&self) {
        self.start_with(|_| {});
    }

    fn start_with(&self, adjust: impl FnOnce(&mut Command)) {
        let mut child = self.child.lock().unwrap();
        assert!(child.is_none(), "{}: a daemon runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = self.command(&["serve"]);
        command.env("KINFOLD_LOG", "info,kinfold=debug").stdout(log.try_clone().unwrap()).stderr(log);
        adjust(&mut command);
        *child = Some(command.spawn().unwrap());
    }

    /// Ends the daemon as a service manager does.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap().take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}: {status}\n{}", self.name, self.log_tail());
                return;
            }
            if begun.elapsed() > AMPLE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{}: the daemon does not stop", self.name);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends the daemon as a crash does.
    pub fn kill9(&self) {
        let mut child = self.child.lock().unwrap().take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Returns the process id of what was started, which is the keeper of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().unwrap().id()
    }

    /// Says whether the daemon that was started still runs.
    pub fn runs(&self) -> bool {
        self.child.lock().unwrap().as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn client(&self) -> Client {
        Client::new(&self.home.join("kinfold.sock")).unwrap()
    }

    /// Asks the daemon how it does; `None` where it does not answer.
    pub fn status_now(&self) -> Option<Status> {
        self.client().status().ok()
    }

    pub fn status(&self) -> Status {
        self.client().status().unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.log_tail()))
    }

    /// Says where a folder stands.
    pub fn folder(&self, name: &str) -> FolderStatus {
        let status = self.status();
        let found = status.folders.iter().find(|folder| folder.name == name);
        found.unwrap_or_else(|| panic!("{}: there is no folder {name}: {status:?}", self.name)).clone()
    }

    pub fn is_connected_to(&self, other: &Device) -> bool {
        self.status_now().is_some_and(|status| status.peers.iter().any(|p| p.name == other.name && p.connected))
    }

    pub fn wait_connected(&self, other: &Device) {
        wait_until(&format!("{} is connected to {}", self.name, other.name), || self.is_connected_to(other));
    }

    /// Waits with the command that scripts wait with.
    pub fn wait(&self) {
        let ran = self.cli(&["wait", "--timeout", "120"]);
        assert_eq!(ran.code, 0, "{}: {ran:?}\n{:?}\n{}", self.name, self.status_now(), self.log_tail());
    }

    /// Returns the last lines of what the daemon said.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn tree(&self) -> Tree {
        tree(&self.root)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let child = self.child.get_mut().map(Option::take);
        if let Ok(Some(mut child)) = child {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}\n{}", self.name, self.log_tail());
        }
    }
}

// --------------------------------------------------------------------------------------------- trees

/// What lies below a directory: all that has to be the same on every device.
pub type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    Dir { mode: u32 },
    File { mode: u32, mtime: (i64, i64), size: u64 },
    Link { target: PathBuf },
    Other,
}

/// Lists what lies below a directory, Kinfold's own things left out.
pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        // What is looked at may be changing.
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            if dir == root && entry.file_name() == OsStr::from_bytes(b".kinfold") {
                continue;
            }
            let mode = meta.permissions().mode() & 0o777;
            let seen = if meta.is_dir() {
                dirs.push(path.clone());
                Entry::Dir { mode }
            } else if meta.is_symlink() {
                Entry::Link { target: fs::read_link(&path).unwrap_or_default() }
            } else if meta.is_file() {
                Entry::File { mode, mtime: (meta.mtime(), meta.mtime_nsec()), size: meta.len() }
            } else {
                Entry::Other
            };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), seen);
        }
    }
    tree
}

/// Says in what two trees differ; the first few.
pub fn differences(a: &Tree, b: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for path in a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))) {
        if a.get(path) != b.get(path) {
            found.push(format!("{}: {:?} / {:?}", path.display(), a.get(path), b.get(path)));
        }
    }
    found.truncate(10);
    found
}

/// Waits until all devices hold the same: names, kinds, sizes, permission bits, times, and then each byte.
pub fn wait_same(devices: &[&Device]) -> Tree {
    let (first, others) = devices.split_first().unwrap();
    let begun = Instant::now();
    let tree = loop {
        let tree = first.tree();
        let differ: Vec<_> = others.iter().flat_map(|other| differences(&tree, &other.tree())).collect();
        if differ.is_empty() {
            break tree;
        }
        if begun.elapsed() > AMPLE {
            let stand: Vec<_> = devices.iter().map(|d| (d.name.as_str(), d.status_now().map(|s| s.folders))).collect();
            panic!("the devices do not come to hold the same: {differ:#?}\n{stand:#?}");
        }
        std::thread::sleep(POLL);
    };
    for (path, entry) in &tree {
        if matches!(entry, Entry::File { .. }) {
            for other in others {
                assert!(same_bytes(&first.at(path), &other.at(path)), "{}: {}", other.name, path.display());
            }
        }
    }
    tree
}

/// Waits until all devices hold the same and say so.
pub fn wait_settled(devices: &[&Device]) -> Tree {
    let tree = wait_same(devices);
    for device in devices {
        device.wait();
    }
    tree
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    let (mut a, mut b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let (mut of_a, mut of_b) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    loop {
        let n = a.read(&mut of_a).unwrap();
        if n == 0 {
            return b.read(&mut of_b).unwrap() == 0;
        }
        if b.read_exact(&mut of_b[..n]).is_err() || of_a[..n] != of_b[..n] {
            return false;
        }
    }
}

/// Makes bytes that cannot be compressed or guessed, the same ones for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Returns the conflict copies in a folder.
pub fn conflict_copies(tree: &Tree) -> Vec<&Path> {
    tree.keys()
        .map(PathBuf::as_path)
        .filter(|p| p.as_os_str().as_bytes().windows(10).any(|w| w == b".conflict-"))
        .collect()
}
