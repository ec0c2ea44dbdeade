//! Folders that rest while the connection is metered: real daemons, a real bus of their own, and a service on it that says
//! what NetworkManager would.
//!
//! Where `dbus-daemon` is missing, the tests say so and do nothing, unless `KINFOLD_NEED_DBUS` is set, as `.ci/run` does.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kinfold::control::types::{FolderState, MeteredStatus};
use tokio::runtime::Runtime;
use zbus::object_server::InterfaceRef;

use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};

const MANAGER_PATH: &str = "/org/freedesktop/NetworkManager";

/// What NetworkManager says (`NMMetered`).
const UNKNOWN: u32 = 0;
const YES: u32 = 1;
const NO: u32 = 2;
const GUESS_YES: u32 = 3;

/// A bus of its own, as that of the system, which goes with this.
struct Bus {
    address: String,
    socket: PathBuf,
    daemon: Child,
}

impl Bus {
    fn start(lab: &Lab) -> Option<Self> {
        let socket = lab.path("bus");
        let address = format!("unix:path={}", socket.display());
        let daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nosyslog", "--address", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(daemon) = daemon else {
            assert!(std::env::var_os("KINFOLD_NEED_DBUS").is_none(), "dbus-daemon is missing");
            eprintln!("dbus-daemon is missing: metered connections were not tried");
            return None;
        };
        let bus = Self { address, socket, daemon };
        wait_until("the bus is there", || bus.socket.exists());
        Some(bus)
    }

    fn end(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().unwrap();
        fs::remove_file(&self.socket).ok();
    }

    /// Starts a daemon that takes this for the bus of the system.
    fn serve(&self, device: &Device) {
        device.serve_with(|command| {
            command.env("DBUS_SYSTEM_BUS_ADDRESS", &self.address);
        });
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.end();
    }
}

struct Properties(u32);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl Properties {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0
    }
}

/// Says what NetworkManager would.
struct Manager {
    runtime: Runtime,
    connection: zbus::Connection,
}

impl Manager {
    fn start(bus: &Bus, metered: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let builder = zbus::connection::Builder::address(bus.address.as_str()).unwrap();
            let served = builder.serve_at(MANAGER_PATH, Properties(metered)).unwrap();
            served.name("org.freedesktop.NetworkManager").unwrap().build().await.unwrap()
        });
        Self { runtime, connection }
    }

    fn say(&self, metered: u32) {
        self.runtime.block_on(async {
            let server = self.connection.object_server();
            let properties: InterfaceRef<Properties> = server.interface(MANAGER_PATH).await.unwrap();
            properties.get_mut().await.0 = metered;
            properties.get().await.metered_changed(properties.signal_emitter()).await.unwrap();
        });
    }

    fn end(self) {
        self.runtime.block_on(async { self.connection.close().await.unwrap() });
    }
}

fn ask_to_rest(device: &Device) {
    let config = device.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let asked = text.replace("[network]\n", "[network]\nmetered = \"pause\"\n");
    assert_ne!(asked, text);
    fs::write(&config, asked).unwrap();
}

fn wait_for(device: &Device, connection: &str) -> MeteredStatus {
    let mut found = None;
    wait_until(&format!("{} finds the connection {connection}", device.name), || {
        found = device.status_now().and_then(|status| status.policy.metered);
        found.as_ref().is_some_and(|found| found.connection == connection)
    });
    found.unwrap()
}

#[test]
fn a_folder_rests_while_the_connection_is_metered_and_goes_on_by_itself() {
    let lab = Lab::new();
    let Some(bus) = Bus::start(&lab) else { return };
    let manager = Manager::start(&bus, YES);
    let (a, b) = lab.pair();
    ask_to_rest(&a);
    bus.serve(&a);
    b.serve();
    a.wait_connected(&b);
    assert_eq!(wait_for(&a, "metered").why, None);
    a.write("file", "content");
    wait_until("a has taken note of it", || a.folder(DATA).files == 1);
    assert!(!b.has("file"));
    // Said to people, to programs, and to who waits.
    wait_until("the folder rests", || a.folder(DATA).rests_because.as_deref() == Some("the connection is metered"));
    assert_eq!(a.folder(DATA).state, FolderState::Resting);
    assert!(a.ok(&["status"]).contains("the connection is metered"));
    let why = a.client().sync_state(Some(DATA)).unwrap().why;
    assert_eq!(why.as_deref(), Some("data: rests while the connection is metered"));
    let json = a.json(&["status"]);
    assert_eq!(json["policy"]["metered"]["connection"], "metered", "{json}");
    assert_eq!(json["folders"][0]["state"], "resting", "{json}");
    assert!(a.cli(&["doctor"]).stdout.contains("metered connections: the connection is metered now"));
    // The other device was asked for nothing, and asks nobody.
    assert_eq!(b.status().policy.metered, None);

    manager.say(NO);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("file").as_deref(), Some("content"));
    assert_eq!(a.folder(DATA).rests_because, None);

    manager.say(GUESS_YES);
    wait_for(&a, "metered");
    wait_until("the folder rests", || a.folder(DATA).state == FolderState::Resting);
    b.write("late", "more");
    wait_until("b has taken note of it", || b.folder(DATA).files == 2);
    assert!(!a.has("late"));
    // A folder that is to go on does so.
    a.ok(&["folder", "set", DATA, "metered=go"]);
    wait_settled(&[&a, &b]);
    a.stop();
    assert!(!a.log_text().contains("is not known"), "{}", a.log_tail());
}

#[test]
fn where_nobody_can_say_whether_the_connection_is_metered_folders_go_on() {
    let lab = Lab::new();
    let Some(mut bus) = Bus::start(&lab) else { return };
    let (a, b) = lab.pair();
    ask_to_rest(&a);
    bus.serve(&a);
    b.serve();
    a.write("file", "content");
    let why = |device: &Device| wait_for(device, "unknown").why.unwrap_or_default();
    wait_until("there is no manager", || why(&a).contains("does not run"));
    wait_settled(&[&a, &b]);

    // It is heard when it comes, and when the bus dies.
    let manager = Manager::start(&bus, YES);
    wait_for(&a, "metered");
    manager.say(UNKNOWN);
    wait_until("it does not know", || why(&a).contains("does not know"));
    manager.say(YES);
    wait_for(&a, "metered");
    wait_until("the folder rests", || a.folder(DATA).state == FolderState::Resting);
    bus.end();
    drop(manager);
    wait_until("the bus is gone", || why(&a).contains("cannot be reached"));
    a.write("second", "goes on");
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("second").as_deref(), Some("goes on"));
    let checked = a.cli(&["doctor"]).stdout;
    assert!(checked.contains("metered connections: it is not known whether"), "{checked}");
    assert_eq!(a.log_text().matches("(D-Bus) cannot be reached").count(), 1, "{}", a.log_tail());

    // Another bus in its place is found by itself.
    let bus = Bus::start(&lab).unwrap();
    let manager = Manager::start(&bus, YES);
    wait_for(&a, "metered");
    manager.end();
    wait_until("there is no manager again", || why(&a).contains("does not run"));
}

/// The processes that a process has started and that still run.
fn children(of: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let runs = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(runs).collect()
}

fn lookouts(device: &Device) -> BTreeSet<u32> {
    let is_lookout = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--lookout-of")
    };
    // The first process, its keeper, and the keeper's daemon, where that is another.
    let mut all = children(device.pid());
    for _ in 0..2 {
        all.extend(all.clone().into_iter().flat_map(children));
    }
    all.into_iter().filter(is_lookout).collect::<BTreeSet<u32>>()
}

#[test]
fn a_bus_is_asked_only_where_that_matters_and_by_a_process_that_holds_nothing() {
    let lab = Lab::new();
    let Some(bus) = Bus::start(&lab) else { return };
    let _manager = Manager::start(&bus, NO);
    let a = lab.device("a");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA]);
    bus.serve(&a);
    assert_eq!((a.status().policy.metered, lookouts(&a)), (None, BTreeSet::new()));
    let has_bus =
        |device: &Device| device.status().sockets.iter().any(|socket| socket.contains("the bus of the system"));
    assert!(!has_bus(&a));
    // What is already confined begins again for it.
    a.ok(&["folder", "set", DATA, "metered=pause"]);
    wait_for(&a, "unmetered");
    assert!(has_bus(&a), "{:?}", a.status().sockets);
    wait_until("one process asks", || lookouts(&a).len() == 1);
    let lookout = lookouts(&a).into_iter().next().unwrap();
    let status = fs::read_to_string(format!("/proc/{lookout}/status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // The bus, its line to the daemon, and the pair by which the runtime hears of signals are all it has open.
    let open = fs::read_dir(format!("/proc/{lookout}/fd")).unwrap().flatten();
    let open: BTreeSet<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    let sockets = open.iter().filter(|to| to.to_string_lossy().starts_with("socket:")).count();
    let files = open.iter().filter(|to| to.is_absolute() && to.as_os_str() != "/dev/null").count();
    assert!(sockets <= 4 && files == 0, "{open:?}");
    // It does not outlive the daemon, however that ends.
    a.kill9();
    wait_until("the lookout is gone", || !PathBuf::from(format!("/proc/{lookout}")).exists());
}
