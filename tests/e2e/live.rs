//! What programs and people see while things happen: the stream of events, and the live view on a terminal.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::lab::{Device, Lab, wait_settled, wait_until};

/// A program on a terminal of its own, and all that it wrote there.
pub struct OnTerminal {
    pub child: Child,
    terminal: std::fs::File,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&terminal).unwrap();
        rustix::pty::unlockpt(&terminal).unwrap();
        let name = rustix::pty::ptsname(&terminal, vec![]).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let side = || -> OwnedFd {
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
            rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap()
        };
        command.env("TERM", "xterm").stdin(Stdio::from(side())).stdout(Stdio::from(side())).stderr(Stdio::from(side()));
        // A session of its own would need unsafe code; a group of its own is enough to be signalled alone.
        let child = command.process_group(0).spawn().unwrap();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut reader, all) = (std::fs::File::from(terminal.as_fd().try_clone_to_owned().unwrap()), seen.clone());
        thread::spawn(move || {
            let mut part = [0; 4096];
            // It fails once nobody holds the other side any more.
            while let Ok(len @ 1..) = reader.read(&mut part) {
                all.lock().unwrap().extend(&part[..len]);
            }
        });
        Self { child, terminal: terminal.into(), seen }
    }

    /// All that was written there, without what moves the cursor and sets colours.
    pub fn text(&self) -> String {
        let all = String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned();
        let mut text = String::new();
        let mut rest = all.as_str();
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            text.push_str(before);
            let after = after.strip_prefix('[').unwrap_or(after);
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || ";?".contains(c));
            rest = rest.get(1..).unwrap_or_default();
        }
        text + rest
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    pub fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }
}

fn lines_of(events: &str) -> Vec<serde_json::Value> {
    events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_tell_programs_who_did_what() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    a.write("f.txt", "twelve bytes");
    wait_settled(&[&a, &b]);
    a.remove("f.txt");
    wait_settled(&[&a, &b]);
    let all = |device: &Device| lines_of(&device.ok(&["events", "--no-follow"]));
    wait_until("b has told of the deletion", || all(&b).iter().any(|event| event["kind"] == "deleted"));
    let events = all(&b);
    assert!(events.iter().any(|event| event["kind"] == "connected" && event["device"] == "a"), "{events:?}");
    let written = events.iter().find(|event| event["kind"] == "written").unwrap();
    assert_eq!((&written["device"], &written["size"]), (&"a".into(), &12.into()), "{written}");
    assert_eq!(written["path"], b.text("f.txt"));
    assert_eq!(written["folder"], "data");
    // On the device where it was done, too, and by the same name as everywhere.
    assert!(all(&a).iter().any(|event| event["kind"] == "written" && event["device"] == "a"));
    // From a number on, and no more than there is.
    let last = events.last().unwrap()["seq"].as_u64().unwrap();
    assert_eq!(b.ok(&["events", "--no-follow", "--after", &last.to_string()]), "");

    // One that follows hears of what comes, at once.
    let mut follower = b.command(&["events"]).stdout(Stdio::piped()).spawn().unwrap();
    let heard: Arc<Mutex<String>> = Arc::default();
    let (mut stdout, all_heard) = (follower.stdout.take().unwrap(), heard.clone());
    let reader = thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = stdout.read(&mut part) {
            all_heard.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..len]));
        }
    });
    let mut number = 0;
    wait_until("the follower hears of a new file", || {
        number += 1;
        a.write(&format!("new-{number}"), "new");
        thread::sleep(std::time::Duration::from_millis(200));
        heard.lock().unwrap().contains("new-")
    });
    b.stop();
    // It ends with the daemon, and says so.
    assert_eq!(follower.wait().unwrap().code(), Some(1));
    reader.join().unwrap();
}

#[test]
fn the_live_view_has_the_terminal_and_gives_it_back() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    let mut view = OnTerminal::start(b.command(&["status", "--watch"]), 80, 24);
    wait_until("the folder is shown", || view.text().contains("in sync"));
    a.write("hello\u{1b}[31m.txt", "hi");
    wait_until("what a wrote is shown, escaped", || view.text().contains("hello\\u{1b}[31m.txt"));
    assert!(view.raw().contains("\u{1b}[?1049h"), "it has a screen of its own");
    view.press("q");
    assert_eq!(view.child.wait().unwrap().code(), Some(0));
    wait_until("the terminal is as before", || {
        view.raw().ends_with("\u{1b}[?1049l") || view.raw().contains("\u{1b}[?25h")
    });
    assert!(view.raw().contains("\u{1b}[?1049l"));

    // A signal leaves the terminal in order as well.
    let mut view = OnTerminal::start(b.command(&["status", "--watch"]), 40, 12);
    wait_until("the folder is shown", || view.text().contains("Folders"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&view.child), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(view.child.wait().unwrap().code(), Some(0));
    wait_until("the terminal is as before", || view.raw().contains("\u{1b}[?1049l"));

    // The daemon goes away: the view ends, and the reason can be read.
    let mut view = OnTerminal::start(b.command(&["status", "--watch"]), 80, 24);
    wait_until("the folder is shown", || view.text().contains("in sync"));
    b.stop();
    assert_eq!(view.child.wait().unwrap().code(), Some(5));
    wait_until("why is said after the view", || {
        view.raw().split("\u{1b}[?1049l").nth(1).is_some_and(|after| after.contains("error: no daemon is running"))
    });
}

#[test]
fn up_shows_the_daemon_that_it_keeps_and_ends_it() {
    let lab = Lab::new();
    let a = lab.device("a");
    let mut up = OnTerminal::start(a.command(&["up", a.root_text()]), 80, 24);
    wait_until("the folder is shown", || up.text().contains("Folders") && up.text().contains("q ends kinfold here"));
    assert!(a.ok(&["status"]).contains("data"));
    up.press("q");
    assert_eq!(up.child.wait().unwrap().code(), Some(0));
    assert_eq!(a.cli(&["status"]).code, 5);
    // Piped, it is plain lines.
    let b = lab.device("b");
    let log = lab.path("plain");
    let mut plain = b.command(&["up", b.root_text()]);
    let mut child = plain.stdout(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    wait_until("a line says how it does", || std::fs::read_to_string(&log).unwrap().contains("in sync"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!std::fs::read_to_string(&log).unwrap().contains('\u{1b}'));
}

/// Asks for something over HTTP and returns the whole answer.
fn http(address: &str, target: &str, host: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn prometheus_is_answered_on_loopback() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    a.write("f.txt", "twelve bytes");
    wait_settled(&[&a, &b]);
    let metrics = b.ok(&["metrics"]);
    for line in [
        "kinfold_up 1",
        "kinfold_device_connected{device=\"a\"} 1",
        "kinfold_folder_files{folder=\"data\"} 1",
        "kinfold_folder_size_bytes{folder=\"data\"} 12",
        "kinfold_folder_in_sync{folder=\"data\"} 1",
        "kinfold_folder_state{folder=\"data\",state=\"stopped\"} 0",
    ] {
        assert!(metrics.lines().any(|told| told == line), "{line}:\n{metrics}");
    }
    // Where there is Prometheus' own tool, it has nothing to say.
    if let Ok(mut promtool) =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()
    {
        promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    let mut served = b.command(&["metrics", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(served.stdout.take().unwrap()), &mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned();
    let answer = http(&address, "/metrics", &address);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\nkinfold_up 1\n"), "{answer}");
    assert!(http(&address, "/metrics", "evil.example").starts_with("HTTP/1.1 403 "));
    assert!(http(&address, "/", &address).starts_with("HTTP/1.1 404 "));
    b.stop();
    assert!(http(&address, "/metrics", &address).ends_with("\nkinfold_up 0\n"));
    served.kill().unwrap();
    served.wait().unwrap();
}

#[test]
fn a_device_that_has_been_away_for_long_waits_for_a_person() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    b.stop();
    wait_until("a knows that b is gone", || a.json(&["status"])["peers"][0]["connected"] == false);
    let seen = a.json(&["status"])["peers"][0]["since"].as_str().unwrap().to_owned();
    assert_eq!(a.cli(&["inbox"]).code, 0);
    // It is known in the next life, too.
    a.stop();
    let file = a.home.join("state/last-seen.json");
    let noted = std::fs::read_to_string(&file).unwrap();
    let old = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 20);
    let ns = seen.parse::<jiff::Timestamp>().unwrap().as_nanosecond().to_string();
    assert!(noted.contains(&ns), "{noted} {ns}");
    std::fs::write(&file, noted.replace(&ns, &old.as_nanosecond().to_string())).unwrap();
    a.serve();
    let ran = a.cli(&["inbox"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stdout.contains("the device b has been away for 20 days"), "{ran:?}");
    assert!(ran.stdout.contains("kinfold device remove b"), "{ran:?}");
    // Back again, it is no matter any more.
    b.serve();
    a.wait_connected(&b);
    assert_eq!(a.cli(&["inbox"]).code, 0);
}

/// Says what of a value is not as a schema says; enough of JSON Schema for the one that the program prints.
fn faults(root: &serde_json::Value, schema: &serde_json::Value, value: &serde_json::Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let definition = root.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is nowhere"));
        return faults(root, definition, value, at);
    }
    for (key, most) in [("oneOf", 1), ("anyOf", usize::MAX)] {
        if let Some(ways) = schema[key].as_array() {
            let fitting = ways.iter().filter(|way| faults(root, way, value, at).is_empty()).count();
            return if fitting >= 1 && fitting <= most {
                vec![]
            } else {
                vec![format!("{at}: {value} fits {fitting} of {ways:?}")]
            };
        }
    }
    if let Some(word) = schema.get("const") {
        return if word == value { vec![] } else { vec![format!("{at}: {value} is not {word}")] };
    }
    let is_right = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        other => panic!("{at}: the type {other:?}"),
    };
    if !is_right {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let mut found = vec![];
    for item in value.as_array().into_iter().flatten() {
        found.extend(faults(root, &schema["items"], item, &format!("{at}[]")));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at} lacks {name}"));
        }
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(of) => found.extend(faults(root, of, below, &format!("{at}.{name}"))),
            None => found.push(format!("{at}.{name} is not told of")),
        }
    }
    found
}

#[test]
fn what_is_printed_as_json_is_as_the_schema_says() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    a.write("f.txt", "one side");
    b.write("f.txt", "the other, which is longer");
    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_settled(&[&a, &b]);
    a.write("g.txt", "first");
    wait_settled(&[&a, &b]);
    a.write("g.txt", "second");
    wait_until("b has the second", || b.read("g.txt").as_deref() == Some("second"));
    wait_settled(&[&a, &b]);
    let root: serde_json::Value = serde_json::from_str(&b.ok(&["schema"])).unwrap();
    let check = |name: &str, value: &serde_json::Value| {
        let schema = &root["$defs"][name];
        assert!(schema.is_object(), "there is no {name}");
        let found = faults(&root, schema, value, name);
        assert!(found.is_empty(), "{found:#?}");
    };
    let each = |name: &str, list: &serde_json::Value| {
        let list = list.as_array().unwrap();
        assert!(!list.is_empty(), "nothing to check of {name}");
        list.iter().for_each(|value| check(name, value));
    };
    check("Status", &b.json(&["status"]));
    each("InboxItem", &b.json(&["inbox"]));
    each("Conflict", &b.json(&["conflicts", "list"]));
    each("HistoryEntry", &b.json(&["history", &b.text("g.txt")]));
    each("Verified", &b.json(&["verify"]));
    check("Restored", &b.json(&["restore", &b.text("g.txt"), "--dry-run"]));
    for (name, lines) in [("Event", b.ok(&["events", "--no-follow"])), ("LogLine", b.ok(&["log", "--json"]))] {
        each(name, &lines_of(&lines).into());
    }
    // It finds what it is for.
    let mut wrong = b.json(&["status"]);
    wrong["folders"][0]["files"] = "many".into();
    assert_eq!(faults(&root, &root["$defs"]["Status"], &wrong, "Status").len(), 1);
}
