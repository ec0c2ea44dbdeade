//! By which way daemons talk, and to whom they never do: seen in the system calls they make (`strace`) and in
//! network namespaces that the test makes.
//!
//! Where `strace` or the right to make namespaces is missing, the tests say so and do nothing, unless
//! `KINFOLD_NEED_STRACE` or `KINFOLD_NEED_NETNS` is set, as `.ci/run` does where it can.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::lab::{DATA, Device, Lab, wait_until};

/// Files by which names are looked up.
const OF_NAMES: [&str; 6] = ["resolv.conf", "nsswitch.conf", "/etc/hosts", "gai.conf", "host.conf", "/etc/services"];

fn has_strace() -> bool {
    let has = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !has {
        assert!(std::env::var_os("KINFOLD_NEED_STRACE").is_none(), "strace is missing");
        eprintln!("strace is missing: what is asked of the network was not looked at");
    }
    has
}

/// Makes a command whose calls for files and sockets are written to a file.
fn traced(device: &Device, args: &[&str], trace: &std::path::Path) -> Command {
    let plain = device.command(args);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "256", "-e", "trace=%network,open,openat,openat2", "-o"]).arg(trace);
    command.arg(plain.get_program()).args(plain.get_args()).env("HOME", device.home.join("user"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns what in a trace speaks of name servers, or of any address but loopback.
fn forbidden(trace: &str) -> Vec<&str> {
    let is_bad = |line: &&str| {
        let names = OF_NAMES.iter().any(|name| line.contains(name));
        let asks = line.contains("htons(53)") || line.contains("htons(5353)");
        let talks = ["connect(", "sendto(", "sendmsg(", "sendmmsg("].iter().any(|call| line.contains(call));
        let inet = line.contains("sa_family=AF_INET");
        let outside = talks && inet && !line.contains("127.0.0.1") && !line.contains("\"::1\"");
        names || asks || outside
    };
    trace.lines().filter(is_bad).collect()
}

#[test]
fn nobody_is_asked_for_a_name_and_nothing_leaves_for_elsewhere() {
    if !has_strace() {
        return;
    }
    // What the look is worth: it sees what a program does that looks a name up.
    let lookup = r#"7 openat(AT_FDCWD, "/etc/resolv.conf", O_RDONLY|O_CLOEXEC) = 3
7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
7 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("203.0.113.7")}, 16) = 0
7 connect(3, {sa_family=AF_INET, sin_port=htons(25463), sin_addr=inet_addr("127.0.0.1")}, 16) = 0"#;
    assert_eq!(forbidden(lookup).len(), 3);

    let lab = Lab::new();
    let (a, b) = lab.pair();
    // An address beyond local networks is known of a device, too.
    a.ok(&["device", "add", &lab.device("c").id(), "--name", "far", "--address", "203.0.113.7"]);
    let traces = [&a, &b].map(|device| lab.path(&format!("trace-{}", device.name)));
    let set_up = lab.path("trace-init");
    let fresh = lab.device("d");
    fs::remove_file(fresh.home.join("config.toml")).unwrap();
    assert!(traced(&fresh, &["init"], &set_up).status().unwrap().success());
    let mut children =
        [(&a, &traces[0]), (&b, &traces[1])].map(|(device, trace)| traced(device, &["serve"], trace).spawn().unwrap());
    a.write("file", "content");
    wait_until("the file comes over", || b.read("file").as_deref() == Some("content"));
    wait_until("the far device was thought of", || {
        let status = a.status_now();
        status.is_some_and(|s| {
            s.peers
                .iter()
                .any(|p| p.name == "far" && p.last_error.as_deref().is_some_and(|why| why.contains("outside")))
        })
    });
    let shown = a.json(&["status"]);
    assert_eq!(shown["policy"]["mode"], "lan", "{shown}");
    for (device, child) in [&a, &b].into_iter().zip(&mut children) {
        device.client().shutdown().unwrap();
        child.wait().unwrap();
    }
    for trace in traces.iter().chain([&set_up]) {
        let text = fs::read_to_string(trace).unwrap();
        assert!(text.contains("openat"), "nothing was traced");
        assert_eq!(forbidden(&text), [""; 0], "{}", trace.display());
    }
    // The daemons did talk, so that not seeing anything is worth something.
    assert!(fs::read_to_string(&traces[0]).unwrap().contains("inet_addr(\"127.0.0.1\")"));
}

/// Two machines with two cables between them: `in` and `ex`. They go with this.
pub struct Machines {
    pub names: [String; 2],
    daemons: Vec<Child>,
}

pub fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

impl Machines {
    pub fn new() -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|end| format!("kf-{}-{number}-{end}", std::process::id()));
        let machines = Self { names, daemons: Vec::new() };
        let made = machines.names.iter().all(|name| ip(&["netns", "add", name]))
            && machines.cable("in", 1)
            && machines.cable("ex", 2)
            && machines.names.iter().all(|name| ip(&["-n", name, "link", "set", "lo", "up"]));
        if !made {
            assert!(std::env::var_os("KINFOLD_NEED_NETNS").is_none(), "network namespaces cannot be made");
            eprintln!("network namespaces cannot be made (`ip`, as root): interfaces were not tried");
            return None;
        }
        Some(machines)
    }

    /// Lays a cable: 10.77.`net`.1 at the one end and 10.77.`net`.2 at the other.
    pub fn cable(&self, link: &str, net: u8) -> bool {
        let [a, b] = &self.names;
        ip(&["-n", a, "link", "add", link, "type", "veth", "peer", "name", link, "netns", b])
            && self.names.iter().enumerate().all(|(n, name)| {
                ip(&["-n", name, "addr", "add", &format!("10.77.{net}.{}/24", n + 1), "dev", link])
                    && ip(&["-n", name, "link", "set", link, "up"])
            })
    }

    pub fn command(&self, n: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[n], program]).stdin(Stdio::null());
        command
    }

    pub fn serve(&mut self, n: usize, device: &Device) {
        let plain = device.command(&["serve"]);
        let log = fs::File::options().create(true).append(true).open(&device.log).unwrap();
        let mut command = self.command(n, plain.get_program().to_str().unwrap());
        command.args(plain.get_args()).env("HOME", &device.home).env("KINFOLD_LOG", "info,kinfold=debug");
        self.daemons.push(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        wait_until("the daemon answers", || device.status_now().is_some());
    }

    /// Returns whether somebody at the one end takes a connection to an address of the other.
    fn reaches(&self, from: usize, address: SocketAddr) -> bool {
        let script = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
        self.command(from, "bash").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            daemon.kill().ok();
            daemon.wait().ok();
        }
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

#[test]
fn where_an_interface_is_named_nothing_goes_by_another_and_all_rests_while_it_is_away() {
    let Some(mut machines) = Machines::new() else { return };
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let at = |net: u8, n: u8| SocketAddr::from(([10, 77, net, n], 25463));
    for device in [&a, &b] {
        let config = device.home.join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace(&device.address.to_string(), "0.0.0.0:25463")).unwrap();
    }
    // Only a names an interface. Both know the addresses at both cables.
    let config = a.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[network]", "[network]\ninterfaces = [\"in\"]")).unwrap();
    for (device, other, n) in [(&a, &b, 2), (&b, &a, 1)] {
        let (by_ex, by_in) = (at(2, n).to_string(), at(1, n).to_string());
        device.ok(&["device", "add", &other.id(), "--name", &other.name, "--address", &by_ex, "--address", &by_in]);
    }
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
    machines.serve(0, &a);
    machines.serve(1, &b);
    a.write("f", "f");
    wait_until("it comes by the cable that was named", || b.read("f").as_deref() == Some("f"));
    assert!(machines.reaches(1, at(1, 1)) && !machines.reaches(1, at(2, 1)));
    assert!(machines.reaches(0, at(2, 2)), "the other cable works");
    let peers = |device: &Device| device.status().peers;
    // Whatever address it dialed, it did so by the one cable, and from there.
    assert_eq!(peers(&b)[0].address.map(|address| address.ip().to_string()).as_deref(), Some("10.77.1.1"));
    let sockets = a.status().sockets;
    assert!(sockets.iter().all(|socket| !socket.contains("10.77.2.1:")), "{sockets:?}");
    assert_eq!(a.status().policy.interfaces, ["in"]);

    // The cable is gone; there is another, and it is not used.
    assert!(ip(&["-n", &machines.names[0], "link", "del", "in"]));
    wait_until("it is told", || a.status().policy.interfaces_away == ["in"]);
    wait_until("they are apart", || !peers(&a)[0].connected);
    wait_until("the reason is told", || {
        peers(&a)[0].last_error.as_deref().is_some_and(|why| why.contains("interface in is away"))
    });
    assert!(a.ok(&["status"]).contains("by in alone, of which in is away"));
    assert!(a.status().listen.is_empty() && !machines.reaches(1, at(2, 1)));
    let waits = a.cli(&["inbox"]);
    assert!(waits.code == 4 && waits.stdout.contains("network interface in is away"), "{waits:?}");
    a.write("g", "g");
    a.ok(&["folder", "scan", DATA]);
    // Nobody could tell b that they are apart.
    assert!(!b.has("g") && !peers(&a)[0].connected);

    // It comes back as another of the same name.
    assert!(machines.cable("in", 1));
    wait_until("it goes on", || b.read("g").as_deref() == Some("g"));
    // By a connection that a itself made, perhaps, before it listens there again.
    wait_until("it is told", || a.status().policy.interfaces_away.is_empty());
    wait_until("it listens again", || machines.reaches(1, at(1, 1)));
}
