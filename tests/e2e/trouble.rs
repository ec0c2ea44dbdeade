//! Crashes, cut lines, disks that vanish, files that nobody can read: nothing is lost, and it is said.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lab::{DATA, Device, Lab, conflict_copies, noise, wait_same, wait_settled, wait_until};
use crate::proxy::Proxy;

const MIB: u64 = 1 << 20;

/// Bytes of what is staged in a folder, as far as they take space.
fn staged(device: &Device) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(device.at(".kinfold/staging")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

#[test]
fn a_big_file_survives_a_crash_a_restart_and_a_cut_line_in_mid_transfer() {
    const LEN: u64 = 160 * MIB;
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    // The line between them is slow, and only b dials.
    let line = Proxy::start(a.address, 24 * MIB);
    b.trusts_at(&a, line.address);
    a.ok(&["device", "add", &b.id(), "--name", "b"]);
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
    a.write("big.bin", noise(10, LEN as usize));
    a.serve();
    a.ok(&["folder", "scan", DATA]);
    b.serve();

    // The receiver crashes.
    wait_until("a part is here", || a.folder(DATA).sent_bytes > 30 * MIB && staged(&b) > 20 * MIB);
    b.kill9();
    assert!(!b.has("big.bin"), "a file appears whole or not at all");
    b.serve();
    wait_until("more is here", || staged(&b) > 60 * MIB);
    // The giver is restarted.
    let sent_before_restart = a.folder(DATA).sent_bytes;
    a.stop();
    a.serve();
    wait_until("still more is here", || staged(&b) > 90 * MIB);
    // The giver crashes, which its peers cannot tell from a line that is cut.
    let sent_before_crash = a.folder(DATA).sent_bytes;
    a.kill9();
    a.serve();
    wait_until("nearly all is here", || staged(&b) > 120 * MIB);
    line.cut();
    // The receiver is stopped in order.
    b.wait_connected(&a);
    b.stop();
    assert!(!b.has("big.bin"));
    line.set_rate(0);
    b.serve();
    wait_settled(&[&a, &b]);
    let sent = sent_before_restart + sent_before_crash + a.folder(DATA).sent_bytes;
    assert!(sent < LEN * 17 / 10, "{} MiB were sent for {} MiB", sent / MIB, LEN / MIB);
    wait_until("no staged file is left", || staged(&b) < MIB);
}

#[test]
fn a_crash_amid_many_small_files_costs_nothing() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    for n in 0..1500_u64 {
        a.write(&format!("{}/{n}", n % 20), noise(n, 1000 + n as usize % 5000));
    }
    a.serve();
    b.serve();
    wait_until("some are here", || b.tree().len() > 200);
    b.kill9();
    b.serve();
    wait_until("more are here", || b.tree().len() > 600);
    a.kill9();
    a.serve();
    let tree = wait_settled(&[&a, &b]);
    assert!(conflict_copies(&tree).is_empty());
    assert_eq!(tree.len(), 1520);
}

#[test]
fn a_root_that_vanishes_stops_the_folder_and_deletes_nothing() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("precious", "must not be lost");
    a.write("dir/too", "neither");
    wait_settled(&[&a, &b]);

    // Moved away while all runs.
    let away = lab.path("away");
    fs::rename(&b.root, &away).unwrap();
    b.cli(&["folder", "scan", DATA]);
    wait_until("the folder is stopped", || b.folder(DATA).state.as_str() == "stopped");
    let inbox = b.cli(&["inbox"]);
    assert!(inbox.code == 4 && inbox.stdout.contains("the folder is missing"), "{inbox:?}");
    assert!(b.cli(&["status"]).stdout.contains("stopped"));
    a.write("meanwhile", "on a");
    a.ok(&["folder", "scan", DATA]);
    assert_eq!(a.read("precious").as_deref(), Some("must not be lost"));

    // Something else in its place is not the folder.
    fs::create_dir(&b.root).unwrap();
    b.cli(&["folder", "scan", DATA]);
    assert_eq!(b.folder(DATA).state.as_str(), "stopped");
    b.stop();
    b.serve();
    b.wait_connected(&a);
    wait_until("it is stopped after a start, too", || b.folder(DATA).state.as_str() == "stopped");
    a.write("meanwhile 2", "on a");
    a.ok(&["folder", "scan", DATA]);
    assert!(b.tree().is_empty() && a.has("precious"), "{:?}", b.tree());

    // Back again, with what was edited while it was away.
    fs::remove_dir(&b.root).unwrap();
    fs::write(away.join("dir/edited away"), "found").unwrap();
    fs::rename(&away, &b.root).unwrap();
    b.cli(&["folder", "scan", DATA]);
    wait_until("it goes on", || b.has("meanwhile 2") && a.has("dir/edited away"));
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(tree.len(), 6, "{tree:?}");
    assert_eq!(b.cli(&["inbox"]).code, 0, "{:?}", b.cli(&["inbox"]));

    // An emptied root is the same: it lost its marker.
    for device in [&a, &b] {
        device.stop();
    }
    let emptied = lab.path("emptied");
    fs::rename(&b.root, &emptied).unwrap();
    fs::create_dir(&b.root).unwrap();
    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_until("it is stopped", || b.folder(DATA).state.as_str() == "stopped");
    assert!(a.has("precious"));
    fs::remove_dir(&b.root).unwrap();
    fs::rename(&emptied, &b.root).unwrap();
    b.cli(&["folder", "scan", DATA]);
    wait_until("it goes on again", || b.folder(DATA).state.as_str() != "stopped");
    assert_eq!(wait_settled(&[&a, &b]).len(), 6);
}

#[test]
fn what_cannot_be_synced_is_told_and_the_rest_goes_on() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let fifo = a.at("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    a.write("unreadable", "secret");
    let closed = fs::Permissions::from_mode(0o000);
    fs::set_permissions(a.at("unreadable"), closed).unwrap();
    let root_reads_all = fs::read(a.at("unreadable")).is_ok();
    a.write("fine", "f");
    a.serve();
    b.serve();
    wait_until("the rest has come over", || b.has("fine"));
    wait_until("it is told", || a.status().inbox >= if root_reads_all { 1 } else { 2 });
    let inbox = a.json(&["inbox"]);
    let about = |name: &str| inbox.as_array().unwrap().iter().find(|item| item["path"] == a.text(name)).cloned();
    let item = about("fifo").unwrap_or_else(|| panic!("{inbox}"));
    assert!(item["what"].as_str().unwrap().contains("pipe"), "{item}");
    assert!(!item["advice"].as_str().unwrap().is_empty());
    assert!(!b.has("fifo"));
    if root_reads_all {
        eprintln!("this user can read everything: what cannot be read was not tried");
    } else {
        assert!(about("unreadable").is_some() && !b.has("unreadable"));
        fs::set_permissions(a.at("unreadable"), fs::Permissions::from_mode(0o600)).unwrap();
        wait_until("it comes when it can be read", || b.has("unreadable"));
    }
    fs::remove_file(&fifo).unwrap();
    wait_until("the inbox is empty again", || a.status().inbox == 0);
    a.wait();
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_what_to_do() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    a.serve();
    let second = a.cli(&["serve"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("error: another daemon is running"), "{second:?}");
    assert!(a.runs() && a.status_now().is_some(), "the first is not troubled");

    let config = b.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(&b.address.to_string(), &a.address.to_string())).unwrap();
    let taken = b.cli(&["serve"]);
    assert_eq!(taken.code, 1, "{taken:?}");
    assert!(taken.stderr.contains(&format!("cannot listen on {}", a.address)), "{taken:?}");
    assert!(taken.stderr.contains("another program listens there"), "{taken:?}");
    assert!(!b.home.join("kinfold.sock").exists());

    fs::write(&config, "name = \"b\"\nlistn = 1\n").unwrap();
    let typo = b.cli(&["serve"]);
    assert!(typo.code == 1 && typo.stderr.contains("listn"), "{typo:?}");
    assert_eq!(b.cli(&["status"]).code, 5);
    assert_eq!(b.cli(&["wait", "--timeout", "1"]).code, 5);

    // A socket that a crash left behind is no obstacle.
    fs::write(&config, text).unwrap();
    b.serve();
    b.kill9();
    b.serve();
    b.stop();
    assert!(!b.home.join("kinfold.sock").exists());
}

pub fn index_of(device: &Device) -> PathBuf {
    let state = device.home.join("state");
    let is_index = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("index-") && name.ends_with(".sqlite")
    };
    fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path()).find(is_index).unwrap()
}

#[test]
fn an_index_that_was_brought_back_from_a_backup_while_alone_takes_nothing_for_what_it_is_not() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("before", "the backup");
    wait_settled(&[&a, &b]);
    a.stop();
    let index = index_of(&a);
    let backup = fs::read(&index).unwrap();

    a.serve();
    a.wait_connected(&b);
    a.write("f", "told to b");
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();
    // Files and index are as they were at the time of the backup. Now as many changes as before are made.
    fs::write(&index, backup).unwrap();
    fs::remove_file(index.with_extension("sqlite-wal")).ok();
    a.remove("f");
    a.serve();
    a.write("f", "made after the restore");
    wait_until("the edit is recorded", || a.folder(DATA).files == 2);

    b.serve();
    a.wait_connected(&b);
    let tree = wait_settled(&[&a, &b]);
    let contents: BTreeSet<_> = tree.keys().map(|path| a.read(path.to_str().unwrap()).unwrap_or_default()).collect();
    for content in ["the backup", "told to b", "made after the restore"] {
        assert!(contents.contains(content), "{content} is lost: {contents:?}");
    }
}

#[test]
fn a_damaged_index_is_made_anew_and_no_conflict_comes_of_it() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    for n in 0..200 {
        a.write(&format!("{}/{n}", n % 5), noise(n, 3000));
    }
    wait_settled(&[&a, &b]);
    b.stop();
    let index = index_of(&b);
    let mut bytes = fs::read(&index).unwrap();
    let middle = bytes.len() / 4..bytes.len() * 3 / 4;
    bytes[middle].fill(0xa5);
    bytes[..100].fill(0);
    fs::write(&index, &bytes).unwrap();
    a.write("0/0", "changed by a meanwhile");
    a.remove("1/1");
    b.serve();
    wait_until("b has caught up", || b.read("0/0").as_deref() == Some("changed by a meanwhile"));
    let tree = wait_settled(&[&a, &b]);
    assert!(b.log_text().contains("the index is damaged and is made anew"), "{}", b.log_tail());
    let copies = conflict_copies(&tree);
    // What was deleted meanwhile may be back, for nobody remembers that it was the same; what was
    // edited meanwhile may be a conflict. All else is as it was.
    assert!(copies.iter().all(|copy| copy.starts_with("0")) && copies.len() <= 1, "{copies:?}");
    a.write("after", "goes on");
    wait_until("it goes on", || b.has("after"));
    b.remove("after");
    wait_until("so do deletions", || !a.has("after"));

    // Without a change in between there is nothing to be in conflict about.
    wait_settled(&[&a, &b]);
    let before = wait_same(&[&a, &b]);
    a.stop();
    fs::write(index_of(&a), b"this is no index").unwrap();
    a.serve();
    a.wait_connected(&b);
    let after = wait_settled(&[&a, &b]);
    assert_eq!(before, after);
}

#[test]
fn an_index_of_a_newer_kinfold_is_left_alone() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("file", "f");
    wait_settled(&[&a, &b]);
    b.stop();
    let index = index_of(&b);
    // The format's version is a big-endian number at byte 60 of an SQLite file.
    let mut bytes = fs::read(&index).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&index, &bytes).unwrap();
    b.serve();
    wait_until("the folder is stopped", || b.folder(DATA).state.as_str() == "stopped");
    let folder = b.folder(DATA);
    let why = folder.stopped_because.clone().unwrap_or_default();
    assert!(why.contains("format 99") && why.contains("update kinfold"), "{folder:?}");
    assert_eq!(b.cli(&["inbox"]).code, 4);
    a.write("file", "changed");
    a.wait_connected(&b);
    a.ok(&["folder", "scan", DATA]);
    assert_eq!(b.read("file").as_deref(), Some("f"));
    assert!(Path::new(&index).exists());
    assert!(!index.with_extension("sqlite.damaged").exists());
    b.stop();
}
