//! Disks that are full, read-only or gone, and files that hold still for nobody.
//!
//! Most of it needs file systems of its own. Only root may mount these; where that is not so, or not
//! allowed, a test says so and tries nothing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::lab::{DATA, Device, Lab, conflict_copies, noise, wait_same, wait_settled, wait_until};

const MIB: usize = 1 << 20;

/// A file system that is mounted as long as this lives.
struct Mount(PathBuf);

impl Mount {
    /// Mounts an empty file system in memory; `None`, with a word about it, where that is not allowed.
    fn memory(at: &Path, size: &str) -> Option<Self> {
        let mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "kinfold-test", text(at)]);
        if !mounted {
            eprintln!("nothing can be mounted here: not tried");
        }
        mounted.then(|| Self(at.to_owned()))
    }

    /// Lets a directory be seen at another place.
    fn bind(from: &Path, at: &Path) -> Self {
        assert!(run("mount", &["--bind", text(from), text(at)]));
        Self(at.to_owned())
    }

    /// Returns whether it could be done: what is being written keeps a disk from becoming read-only.
    fn remount(&self, options: &str) -> bool {
        run("mount", &["-o", &format!("remount,{options}"), text(&self.0)])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run("umount", &["-l", text(&self.0)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn share(a: &Device, b: &Device) {
    a.trusts(b);
    b.trusts(a);
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
}

#[test]
fn a_full_disk_costs_nothing_and_goes_on_when_there_is_room() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let Some(disk) = Mount::memory(&b.root, "6m") else { return };
    share(&a, &b);
    a.write("small", "first");
    a.serve();
    b.serve();
    wait_settled(&[&a, &b]);
    a.write("big", noise(1, 12 * MIB));
    a.write("small", "second");
    wait_until("it is told", || b.cli(&["inbox"]).stdout.contains("the disk is full"));
    let small = b.read("small");
    assert!(small.as_deref() == Some("first") || small.as_deref() == Some("second"), "{small:?}");
    assert!(!b.has("big"), "a file appears whole or not at all");
    assert!(a.has("big") && a.read("small").as_deref() == Some("second"));
    assert!(disk.remount("size=40m"));
    b.ok(&["folder", "scan", DATA]);
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.len() == 2 && b.cli(&["inbox"]).code == 0, "{tree:?}");

    // What was too large may also go away again.
    assert!(disk.remount("size=20m"));
    a.write("too big", noise(2, 30 * MIB));
    wait_until("it is told", || b.cli(&["inbox"]).stdout.contains("the disk is full"));
    a.remove("too big");
    a.write("after", noise(3, MIB));
    assert_eq!(wait_settled(&[&a, &b]).len(), 3);
    wait_until("nothing is left to tell", || b.status().inbox == 0);
    b.stop();
}

#[test]
fn a_full_disk_under_the_index_deletes_nothing_and_is_got_over() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let (state, aside) = (b.home.join("state"), lab.path("aside"));
    assert!(run("cp", &["-a", text(&state), text(&aside)]));
    let Some(disk) = Mount::memory(&state, "1m") else { return };
    assert!(run("cp", &["-a", &format!("{}/.", text(&aside)), text(&state)]));
    for n in 0..6000_u64 {
        a.write(&format!("{}/a name that takes its room in the index {n}", n % 10), n.to_string());
    }
    a.serve();
    b.serve();
    wait_until("the index is full", || b.log_text().contains("no space is left on the disk that holds the index"));
    assert_eq!(a.tree().len(), 6010);
    assert!(disk.remount("size=64m"));
    b.stop();
    b.serve();
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.len() == 6010 && conflict_copies(&tree).is_empty(), "{}", tree.len());
    b.stop();
}

#[test]
fn a_disk_that_becomes_read_only_deletes_nothing_and_is_told() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let Some(disk) = Mount::memory(&b.root, "20m") else { return };
    share(&a, &b);
    a.write("d/edited", "first");
    a.write("d/removed", "to be removed");
    a.serve();
    b.serve();
    wait_settled(&[&a, &b]);
    wait_until("it is read-only", || disk.remount("ro"));
    a.write("d/edited", "second");
    a.remove("d/removed");
    a.write("new", "new");
    wait_until("it is told", || b.status().inbox >= 3);
    assert_eq!(b.read("d/edited").as_deref(), Some("first"));
    assert_eq!(b.read("d/removed").as_deref(), Some("to be removed"));
    b.stop();
    b.serve();
    a.wait_connected(&b);
    wait_until("it is told after a start, too", || b.status().inbox >= 3);
    assert!(a.read("d/edited").as_deref() == Some("second") && !a.has("d/removed"));
    assert!(disk.remount("rw"));
    b.ok(&["folder", "scan", DATA]);
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.len() == 3 && conflict_copies(&tree).is_empty(), "{tree:?}");
    b.stop();
}

#[test]
fn a_disk_that_is_mounted_inside_the_folder_and_goes_away_is_no_deletion() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    let Some(_disk) = Mount::memory(&outside, "20m") else { return };
    fs::create_dir(b.at("nested")).unwrap();
    let nested = Mount::bind(&outside, &b.at("nested"));
    share(&a, &b);
    b.write("nested/of b/deep", "lies on the other disk");
    b.write("plain", "lies on the first");
    a.serve();
    b.serve();
    wait_until("both are here", || a.has("nested/of b/deep") && a.has("plain"));
    a.write("nested/of a", "comes to lie on the other disk");
    a.write("nested/of b/deep", "changed by a");
    wait_settled(&[&a, &b]);
    assert_eq!(fs::read_to_string(outside.join("of b/deep")).unwrap(), "changed by a");
    let past = b.json(&["history", &b.text("nested/of b/deep")]);
    assert_eq!(past.as_array().unwrap().len(), 1, "{past}");

    // Gone while all runs.
    drop(nested);
    assert!(!b.has("nested/of b"));
    b.ok(&["folder", "scan", DATA]);
    wait_until("it is told", || b.cli(&["inbox"]).stdout.contains("another file system is mounted here"));
    a.write("plain", "goes on");
    wait_until("the rest goes on", || b.read("plain").as_deref() == Some("goes on"));
    // Gone while nothing runs.
    b.stop();
    b.serve();
    a.wait_connected(&b);
    wait_until("it is told again", || b.cli(&["inbox"]).stdout.contains("another file system is mounted here"));
    for path in ["nested/of b/deep", "nested/of a"] {
        assert!(a.has(path), "{path} was deleted");
    }
    b.stop();

    // Back again, with an edit that was made there meanwhile.
    fs::write(outside.join("of a"), "edited while it was away").unwrap();
    let _nested = Mount::bind(&outside, &b.at("nested"));
    b.serve();
    wait_until("the edit comes", || a.read("nested/of a").as_deref() == Some("edited while it was away"));
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.len() == 5 && conflict_copies(&tree).is_empty(), "{tree:?}");
    b.stop();
}

#[test]
fn what_comes_while_a_disk_inside_the_folder_is_away_waits_for_it_and_is_no_deletion_later() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let outside = lab.path("outside");
    fs::create_dir(&outside).unwrap();
    let Some(_disk) = Mount::memory(&outside, "20m") else { return };
    fs::create_dir(b.at("nested")).unwrap();
    let nested = Mount::bind(&outside, &b.at("nested"));
    b.write("nested/kept", "lies on the other disk");
    wait_until("it is here", || a.has("nested/kept"));
    wait_settled(&[&a, &b]);
    // It goes, and before anybody has looked something is to be put onto it.
    drop(nested);
    a.write("nested/new", "made while it is away");
    a.write("plain", "goes on");
    wait_until("the rest goes on", || b.has("plain"));
    wait_until("it is told", || b.cli(&["inbox"]).stdout.contains("another file system is mounted here"));
    assert!(!b.has("nested/new"), "it was put under the mount point");
    // Nobody tells that it is back.
    let _nested = Mount::bind(&outside, &b.at("nested"));
    wait_until("what waited is here", || b.has("nested/new"));
    assert!(outside.join("new").exists());
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.len() == 4 && a.has("nested/kept") && a.has("nested/new"), "{tree:?}");
    b.stop();
}

#[test]
fn sockets_and_devices_are_told_and_a_file_that_grows_comes_over_in_the_end() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("plain", "comes over");
    let _socket = std::os::unix::net::UnixListener::bind(a.at("socket")).unwrap();
    let may_make_devices = run("mknod", &[text(&a.at("device")), "c", "1", "3"]);
    // Appended to all the while, with never a pause as long as a reading.
    let mut log = fs::File::create(a.at("grows")).unwrap();
    for n in 0..60_u64 {
        log.write_all(&noise(n, 40_000)).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    drop(log);
    wait_until("all of it is here", || fs::metadata(b.at("grows")).is_ok_and(|meta| meta.len() == 60 * 40_000));
    wait_until("what cannot be synced is told", || a.status().inbox == 1 + u64::from(may_make_devices));
    let inbox = a.cli(&["inbox"]).stdout;
    assert!(inbox.contains("socket") && inbox.contains("device") == may_make_devices, "{inbox}");
    assert!(!b.has("socket") && !b.has("device"));
    for path in ["socket", "device"] {
        fs::remove_file(a.at(path)).ok();
    }
    let tree = wait_same(&[&a, &b]);
    assert_eq!(tree.len(), 2, "{tree:?}");
}
