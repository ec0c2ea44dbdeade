//! Commands that ask a daemon: two devices that run, and sync with each other.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::Device;
use crate::every::{Daemon, Scene, Seen, wait_until, write};

pub const SCENES: &[Scene] = &[running, meeting, kept];

/// A device that listens on loopback alone.
fn listening(name: &str) -> (Device, String) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut device = Device::bare();
    device.ok(&["init", "--name", name, "--listen", &address]);
    let id = device.ok(&["id"]).trim().to_owned();
    device.names.push((id, format!("[id of {name}]")));
    device.names.push((address.clone(), format!("[address of {name}]")));
    (device, address)
}

/// Two devices that trust each other, and know each other's places by name.
fn pair() -> (Device, Device) {
    let ((mut desk, at_desk), (mut laptop, at_laptop)) = (listening("desk"), listening("laptop"));
    let ids = [&desk, &laptop].map(|device| device.ok(&["id"]).trim().to_owned());
    desk.ok(&["device", "add", &ids[1], "--name", "laptop", "--address", &at_laptop]);
    laptop.ok(&["device", "add", &ids[0], "--name", "desk", "--address", &at_desk]);
    let names = [laptop.names.clone(), desk.names.clone()];
    desk.names.extend(names[0][1..].to_vec());
    laptop.names.extend(names[1][1..].to_vec());
    (desk, laptop)
}

fn read(device: &Device, path: &str) -> Option<String> {
    fs::read_to_string(device.path(path)).ok()
}

fn running(seen: &mut Seen) {
    let (desk, laptop) = pair();
    for device in [&desk, &laptop] {
        device.make("data");
    }
    desk.ok(&["folder", "add", "data", "--name", "data", "--share", "laptop"]);
    // What it may take is a part of the disk otherwise.
    desk.ok(&["folder", "set", "data", "history_size=1 GiB"]);
    write(&desk.path("data/list.txt"), "bread\nbutter\nsalt\n");
    write(&desk.path("data/plan.txt"), "one\ntwo\nthree\nfour\nfive\n");
    let (_desk, _laptop) = (Daemon::of(&desk), Daemon::of(&laptop));
    let offers = || laptop.ok(&["folder", "offers"]);
    wait_until("the folder is offered", || offers().contains("data"));
    seen.run(&laptop, "folder offers");
    laptop.ok(&["folder", "accept", "data", "data", "--from", "desk"]);
    wait_until("all is there", || read(&laptop, "data/plan.txt").is_some() && read(&laptop, "data/list.txt").is_some());
    desk.ok(&["wait"]);
    laptop.ok(&["wait"]);

    seen.run(&desk, "wait");
    seen.run(&desk, "wait data --timeout 60");
    seen.run(&desk, "wait music");
    // Either may have dialed the other, from a port that is free; and not every kernel confines it as much.
    let own = |text: &str| {
        let is_own =
            |line: &&str| !line.contains("confined") && (!line.starts_with("  tcp ") || line.contains("listen"));
        let without_address = |line: &str| match line.split_once("connected since") {
            Some((name, _)) => format!("{name}connected since [time]\n"),
            None => format!("{line}\n"),
        };
        text.lines().filter(is_own).map(without_address).collect()
    };
    seen.part(&desk, "status", own);
    seen.until(&desk, "status --watch", "Folders");
    seen.run(&desk, "folder scan data");
    seen.run(&desk, "folder scan music");
    seen.run(&desk, "folder release data");
    seen.run(&desk, "folder release music");
    seen.run(&desk, "inbox");
    seen.run(&desk, "verify data");
    seen.run(&desk, "verify music");
    seen.part(&desk, "log", |text| beginning(text, "listening"));
    seen.part(&desk, "log --json", |text| {
        assert!(text.lines().all(is_json), "{text}");
        "[lines of JSON]\n".to_owned()
    });
    seen.part(&desk, "events --no-follow", |text| beginning(text, "\"connected\""));
    seen.until(&desk, "events --after 0", "\"connected\"");
    seen.until(&desk, "log --follow", "listening");
    // What it counts is looked at elsewhere.
    let names = |text: &str| {
        let values = text.lines().filter(|line| !line.starts_with('#'));
        values.map(|line| format!("{}\n", line.rsplit_once(' ').unwrap().0)).collect()
    };
    seen.part(&desk, "metrics", names);
    are_sound(&desk.ok(&["metrics"]));
    seen.until(&desk, "metrics --listen 127.0.0.1:0", "http://127.0.0.1:");
    seen.run(&desk, "serve");

    // Edits on both sides, which meet later.
    laptop.ok(&["folder", "pause", "data"]);
    let edit = |device: &Device, path: &str, text: &str, ago: u64| {
        fs::write(device.path(path), text).unwrap();
        let file = fs::File::options().write(true).open(device.path(path)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
    };
    edit(&desk, "data/list.txt", "bread\nbutter\npepper\n", 60);
    edit(&laptop, "data/list.txt", "bread\nbutter\nsugar\n", 30);
    edit(&desk, "data/plan.txt", "zero\ntwo\nthree\nfour\nfive\n", 60);
    edit(&laptop, "data/plan.txt", "one\ntwo\nthree\nfour\nsix\n", 30);
    desk.ok(&["folder", "scan", "data"]);
    laptop.ok(&["folder", "resume", "data"]);
    let conflicts = || desk.command(&["conflicts"]).output().unwrap().stdout;
    wait_until("both edits have met", || String::from_utf8(conflicts()).unwrap().lines().count() == 2);
    desk.ok(&["wait"]);
    laptop.ok(&["wait"]);
    seen.run(&desk, "conflicts list");
    seen.run(&desk, "conflicts show data/plan.txt");
    seen.run(&desk, "conflicts show data/other.txt");
    seen.run(&desk, "conflicts show notes/list.txt");
    seen.run(&desk, "conflicts merge data/list.txt");
    seen.run(&desk, "conflicts merge data/other.txt");
    seen.run(&desk, "conflicts merge data");
    seen.run(&desk, "conflicts merge data/plan.txt --dry-run");
    seen.run(&desk, "conflicts merge data/plan.txt");
    seen.run(&desk, "conflicts keep data/other.txt mine");
    seen.run(&desk, "conflicts keep notes/list.txt mine");
    seen.run(&desk, "conflicts keep data both");
    seen.run(&desk, "conflicts keep data/list.txt mine");
    desk.ok(&["wait"]);
    laptop.ok(&["wait"]);
    seen.run(&desk, "conflicts keep data/list.txt mine");
    seen.run(&desk, "conflicts list");

    seen.run(&desk, "history");
    seen.run(&desk, "history data/list.txt");
    seen.run(&desk, "history data/other.txt");
    seen.run(&desk, "history notes/list.txt");
    seen.run(&desk, "history data/list.txt --from tablet");
    seen.run(&desk, "restore data/list.txt --dry-run");
    seen.run(&desk, "restore data/list.txt --to back.txt");
    seen.run(&desk, "restore data/list.txt --to back.txt");
    seen.run(&desk, "restore data/other.txt");
    seen.run(&desk, "restore notes/list.txt");
    seen.run(&desk, "restore data");
    seen.run(&desk, "restore data/list.txt --from tablet");
    seen.part(&desk, "doctor", |text| text.lines().find(|line| line.contains("daemon:")).unwrap().to_owned() + "\n");
}

/// Has the tool of Prometheus look at what is measured. Where it is missing this is left out, unless
/// `KINFOLD_NEED_PROMTOOL` is set.
fn are_sound(metrics: &str) {
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut tool = match tool {
        Ok(tool) => tool,
        Err(error) => {
            assert!(std::env::var_os("KINFOLD_NEED_PROMTOOL").is_none(), "promtool: {error}");
            return;
        }
    };
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
}

fn is_json(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok()
}

/// Says only whether something is told.
fn beginning(text: &str, part: &str) -> String {
    assert!(text.contains(part), "{text}");
    "[lines]\n".to_owned()
}

/// Two devices meet by a code.
fn meeting(seen: &mut Seen) {
    let ((mut desk, _), (mut laptop, _)) = (listening("desk"), listening("laptop"));
    let mut host = desk.process(&["pair", "--yes", "--json", "photos"]);
    let mut host = host.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut lines = std::io::BufReader::new(host.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    let invitation: serde_json::Value = serde_json::from_str(&line).unwrap();
    let (code, at) = (invitation["code"].as_str().unwrap(), invitation["addresses"][0].as_str().unwrap());
    let number = code.split_once('-').unwrap().0;
    let names = [desk.names.clone(), laptop.names.clone()];
    laptop.names.extend(names[0][1..].to_vec());
    desk.names.extend(names[1][1..].to_vec());
    laptop.names.extend([(code.to_owned(), "[code]".to_owned()), (at.to_owned(), "[at]".to_owned())]);
    laptop.names.push((format!("{number}-zoo-zoo"), "[wrong code]".to_owned()));
    seen.run(&laptop, &format!("pair --yes {number}-zoo-zoo photos --at {at}"));
    seen.run(&laptop, &format!("pair --yes {code} photos --at {at}"));
    let run = seen.runs.last_mut().unwrap();
    let words = |line: &str| match line.split_once("these words: ") {
        Some((before, _)) => format!("{before}these words: [words]\n"),
        None => format!("{line}\n"),
    };
    run.stdout = run.stdout.lines().map(words).collect();
    assert!(host.wait().unwrap().success());
}

/// What runs in the foreground until it is ended, as a service manager does it.
fn kept(seen: &mut Seen) {
    let (desk, _) = listening("desk");
    desk.make("data");
    seen.until(&desk, "up data", "data: in sync");
    seen.until(&desk, "serve", "listening");
}
