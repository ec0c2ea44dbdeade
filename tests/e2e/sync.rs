//! What two connected devices do: the first sync, and every sort of change after it.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::lab::{DATA, Device, Entry, Lab, conflict_copies, noise, wait_same, wait_settled, wait_until};

/// Files and bytes of the real tree, at most.
const FILES_MAX: usize = 4000;
const BYTES_MAX: u64 = 150 << 20;

/// Finds a tree that people really have: the documentation and libraries of the Rust toolchain, or the
/// sources of crates.
fn real_files() -> Vec<(PathBuf, PathBuf)> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let sysroot = sysroot.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let places = sysroot
        .iter()
        .flat_map(|sysroot| ["etc", "libexec", "share/doc/rust/html/std", "share/doc"].map(|p| sysroot.join(p)));
    let mut found = Vec::new();
    let mut bytes = 0;
    for place in places.chain(home.map(|home| home.join("registry/src"))) {
        let mut dirs = vec![place.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Ok(meta) = fs::symlink_metadata(entry.path()) else {
                    continue;
                };
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else if meta.is_file() && bytes + meta.len() <= BYTES_MAX && found.len() < FILES_MAX {
                    bytes += meta.len();
                    let inside = entry.path().strip_prefix(place.parent().unwrap()).unwrap().to_owned();
                    found.push((entry.path(), inside));
                }
            }
        }
        if found.len() >= FILES_MAX / 2 {
            break;
        }
    }
    assert!(found.len() >= 2000, "this machine has no tree to sync: {} files", found.len());
    found
}

fn copy_into(device: &Device, files: &[(PathBuf, PathBuf)]) {
    for (from, inside) in files {
        let to = device.at("real").join(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

fn sent(devices: &[&Device]) -> u64 {
    devices.iter().map(|device| device.folder(DATA).sent_bytes).sum()
}

#[test]
fn a_real_tree_comes_over_whole_and_a_rename_of_it_sends_nothing() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let files = real_files();
    copy_into(&a, &files);
    a.serve();
    b.serve();
    wait_same(&[&a, &b]);
    a.wait();
    b.wait();
    let folder = b.folder(DATA);
    assert_eq!(folder.files, files.len() as u64);
    assert!(folder.in_sync && folder.members.iter().all(|member| member.connected && member.in_sync), "{folder:?}");

    // A whole tree is renamed, and then renamed on the other side into another directory.
    let before = sent(&[&a, &b]);
    fs::rename(a.at("real"), a.at("renamed")).unwrap();
    wait_settled(&[&a, &b]);
    fs::create_dir(b.at("below")).unwrap();
    fs::rename(b.at("renamed"), b.at("below/again")).unwrap();
    let tree = wait_settled(&[&a, &b]);
    assert!(tree.contains_key(Path::new("below/again")) && !tree.contains_key(Path::new("renamed")));
    let sent_by_renames = sent(&[&a, &b]) - before;
    assert_eq!(b.folder(DATA).files, files.len() as u64);

    // Everything goes, once a person has let it go, and the folder stays.
    fs::remove_dir_all(b.at("below")).unwrap();
    wait_until("the brake holds it", || a.folder(DATA).held > 100);
    wait_until("the tree is deleted on the other side", || {
        // What is told only after a release is judged anew.
        if a.folder(DATA).held > 0 {
            a.ok(&["folder", "release", DATA]);
        }
        !a.has("below")
    });
    assert!(wait_settled(&[&a, &b]).is_empty());
    assert_eq!(sent_by_renames, 0, "a rename sends no content");
}

#[test]
fn edits_go_both_ways_while_both_run() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);

    a.write("from-a.txt", "one");
    b.write("dir/from-b.txt", "two");
    wait_until("both have both", || {
        b.read("from-a.txt").as_deref() == Some("one") && a.read("dir/from-b.txt").as_deref() == Some("two")
    });
    b.write("from-a.txt", "one, changed by b");
    wait_until("a has what b changed", || a.read("from-a.txt").as_deref() == Some("one, changed by b"));
    a.write("from-a.txt", "one, changed by a");
    wait_until("b has what a changed", || b.read("from-a.txt").as_deref() == Some("one, changed by a"));

    // As editors save: a new file takes the place of the old one.
    fs::write(a.at(".tmp"), "saved").unwrap();
    fs::rename(a.at(".tmp"), a.at("from-a.txt")).unwrap();
    wait_until("b has what was saved", || b.read("from-a.txt").as_deref() == Some("saved") && !b.has(".tmp"));

    // Many lines appended to a large file: only what is new is sent.
    let mut log = noise(1, 8 << 20);
    a.write("big.log", &log);
    wait_settled(&[&a, &b]);
    let before = sent(&[&a]);
    log.extend_from_slice(&noise(2, 10_000));
    File::options().append(true).open(a.at("big.log")).unwrap().write_all_at(&noise(2, 10_000), 8 << 20).unwrap();
    wait_until("b has the longer file", || fs::metadata(b.at("big.log")).is_ok_and(|m| m.len() == log.len() as u64));
    wait_settled(&[&a, &b]);
    assert!(sent(&[&a]) - before < 1 << 20, "an append sent {} bytes", sent(&[&a]) - before);

    b.remove("dir/from-b.txt");
    fs::remove_dir(b.at("dir")).unwrap();
    wait_until("the deletion arrives", || !a.has("dir"));
    assert!(conflict_copies(&wait_settled(&[&a, &b])).is_empty());
    assert_eq!(a.cli(&["inbox"]).code, 0, "{:?}", a.cli(&["inbox"]));
}

#[test]
fn times_modes_names_holes_and_kinds_arrive_as_they_are() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);

    for mode in [0o400, 0o444, 0o600, 0o644, 0o755, 0o777] {
        let name = format!("mode/{mode:o}");
        a.write(&name, name.as_bytes());
        fs::set_permissions(a.at(&name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir_all(a.at("private")).unwrap();
    fs::set_permissions(a.at("private"), fs::Permissions::from_mode(0o700)).unwrap();
    for (name, time) in [
        ("time/1970", SystemTime::UNIX_EPOCH + Duration::new(1, 1)),
        ("time/1969", SystemTime::UNIX_EPOCH - Duration::new(86_400, 999_999_999)),
        ("time/2038", SystemTime::UNIX_EPOCH + Duration::new(1 << 31, 123_456_789)),
    ] {
        a.write(name, name);
        File::options().write(true).open(a.at(name)).unwrap().set_modified(time).unwrap();
    }
    a.write("empty file", "");
    fs::create_dir_all(a.at("empty/of/files")).unwrap();
    for name in [
        &b"not \xff UTF-8"[..],
        b"new\nline",
        b" spaces ",
        b"-dash",
        b"back\\slash",
        "été NFC".as_bytes(),
        "e\u{301}te\u{301} NFD".as_bytes(),
        b"con.txt",
        b"colon: question?",
        &[b'n'; 255],
        "ä".repeat(127).as_bytes(),
    ] {
        fs::write(a.root.join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let deep = vec!["deep"; 60].join("/");
    a.write(&format!("{deep}/file"), "at the bottom");
    symlink("../outside", a.at("link to nothing")).unwrap();
    symlink("/etc", a.at("link out")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xfe"), a.at("mode/link")).unwrap();
    let sparse = File::create(a.at("sparse")).unwrap();
    sparse.set_len(96 << 20).unwrap();
    sparse.write_all_at(b"beginning", 0).unwrap();
    sparse.write_all_at(b"middle", 48 << 20).unwrap();
    drop(sparse);
    a.write("hard", "linked twice");
    fs::hard_link(a.at("hard"), a.at("hard too")).unwrap();

    let tree = wait_settled(&[&a, &b]);
    assert_eq!(b.read(&format!("{deep}/file")).as_deref(), Some("at the bottom"));
    assert_eq!(tree.get(Path::new("link out")), Some(&Entry::Link { target: "/etc".into() }));
    let blocks = |device: &Device| fs::metadata(device.at("sparse")).unwrap().blocks() * 512;
    assert!(blocks(&b) < 16 << 20, "the sparse file takes {} bytes here and {} there", blocks(&a), blocks(&b));

    // Only the mode changes, only the time changes; each arrives without content.
    let before = sent(&[&a, &b]);
    fs::set_permissions(b.at("mode/644"), fs::Permissions::from_mode(0o700)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    File::options().write(true).open(b.at("time/2038")).unwrap().set_modified(time).unwrap();
    wait_until("mode and time are back", || {
        let mode = fs::metadata(a.at("mode/644")).unwrap().permissions().mode() & 0o777;
        mode == 0o700 && fs::metadata(a.at("time/2038")).unwrap().modified().unwrap() == time
    });
    wait_settled(&[&a, &b]);
    assert_eq!(sent(&[&a, &b]), before);

    // Each kind takes the place of each other.
    a.write("kinds/file to dir", "f");
    a.write("kinds/file to link", "f");
    a.write("kinds/dir to file/below", "d");
    a.write("kinds/dir to link/below/deeper", "d");
    symlink("target", a.at("kinds/link to file")).unwrap();
    symlink("target", a.at("kinds/link to dir")).unwrap();
    symlink("target", a.at("kinds/link to link")).unwrap();
    wait_settled(&[&a, &b]);
    for name in ["file to dir", "file to link", "link to file", "link to dir", "link to link"] {
        b.remove(&format!("kinds/{name}"));
    }
    for name in ["dir to file", "dir to link"] {
        fs::remove_dir_all(b.at("kinds").join(name)).unwrap();
    }
    b.write("kinds/file to dir/below", "now a directory");
    symlink("elsewhere", b.at("kinds/file to link")).unwrap();
    b.write("kinds/dir to file", "now a file");
    symlink("elsewhere", b.at("kinds/dir to link")).unwrap();
    b.write("kinds/link to file", "now a file");
    b.write("kinds/link to dir/below", "now a directory");
    symlink("elsewhere", b.at("kinds/link to link")).unwrap();
    let tree = wait_settled(&[&a, &b]);
    assert!(matches!(tree.get(Path::new("kinds/dir to link")), Some(Entry::Link { .. })), "{tree:?}");
    assert_eq!(a.read("kinds/link to dir/below").as_deref(), Some("now a directory"));
    assert!(conflict_copies(&tree).is_empty(), "{:?}", conflict_copies(&tree));
}

#[test]
fn what_is_ignored_stays_where_it_is() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    a.write(".kinfoldignore", "*.tmp\n/build/\n!keep.tmp\n");
    a.write("a.tmp", "stays");
    a.write("keep.tmp", "goes");
    a.write("build/output", "stays");
    a.write("sub/build/output", "goes");
    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_until("the rest has come over", || b.has("keep.tmp") && b.has("sub/build/output") && b.has(".kinfoldignore"));
    b.write("b.tmp", "stays too");
    b.ok(&["folder", "scan", DATA]);
    a.wait();
    b.wait();
    assert!(!b.has("a.tmp") && !b.has("build"), "{:?}", b.tree().keys());
    assert!(b.has("b.tmp") && !a.has("b.tmp"));

    // A file that was synced and becomes ignored is deleted nowhere.
    b.write("notes.txt", "before");
    wait_until("notes are on both", || a.has("notes.txt"));
    a.write(".kinfoldignore", "*.tmp\n/build/\n!keep.tmp\nnotes.txt\n");
    wait_until("the rules are on both", || b.read(".kinfoldignore").is_some_and(|rules| rules.contains("notes.txt")));
    // Both follow the new rules by themselves: the file is there and does not count any more.
    wait_until("both leave it out", || [&a, &b].iter().all(|d| d.folder(DATA).files == 3));
    // The rules of a directory as well.
    a.write("sub/x.log", "before");
    wait_until("it is on both", || b.has("sub/x.log"));
    a.write("sub/.kinfoldignore", "*.log\n");
    wait_until("both leave it out", || {
        b.has("sub/.kinfoldignore") && [&a, &b].iter().all(|d| d.folder(DATA).files == 4)
    });
    a.remove("notes.txt");
    a.write("marker", "after");
    wait_until("the marker has come over", || b.has("marker"));
    b.wait();
    assert_eq!(b.read("notes.txt").as_deref(), Some("before"));
}

/// One device leaves out what the others go on with: nobody asks it for that, nobody waits for it, and nothing of it is
/// deleted there or elsewhere; when it counts again, what was done on both sides meets.
#[test]
fn what_one_device_leaves_out_goes_on_among_the_others_and_meets_again() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    for name in ["edited there", "deleted there", "edited here", "edited on both", "as it was", "removed here"] {
        a.write(&format!("target/{name}"), name);
    }
    a.write(".gitignore", "target/\n");
    a.write("counts", "1");
    wait_settled(&[&a, &b]);
    let settled = || {
        a.wait();
        b.wait();
    };
    let all = a.folder(DATA).files;
    a.ok(&["folder", "set", DATA, "gitignore=true"]);
    wait_until("a leaves six files out", || a.folder(DATA).files + 6 == all);
    settled();

    b.write("target/edited there", "by b");
    b.remove("target/deleted there");
    b.write("target/edited on both", "by b, and longer");
    b.write("target/new there", "by b");
    b.write("counts", "2, by b");
    a.write("target/edited here", "by a");
    a.write("target/edited on both", "by a");
    a.write("target/new here", "by a");
    a.remove("target/removed here");
    wait_until("what counts goes on", || a.read("counts").as_deref() == Some("2, by b"));
    a.ok(&["folder", "scan", DATA]);
    b.ok(&["folder", "scan", DATA]);
    settled();
    assert_eq!(a.read("target/edited there").as_deref(), Some("edited there"));
    assert_eq!(a.read("target/deleted there").as_deref(), Some("deleted there"));
    assert!(!a.has("target/new there") && !b.has("target/new here"));
    assert_eq!(b.read("target/edited here").as_deref(), Some("edited here"));
    assert_eq!(b.read("target/removed here").as_deref(), Some("removed here"));
    // It is so after a restart of either, too.
    b.stop();
    b.serve();
    a.stop();
    a.serve();
    a.wait_connected(&b);
    settled();
    assert!(a.has("target/deleted there") && !a.has("target/new there") && !b.has("target/new here"));

    a.ok(&["folder", "set", DATA, "gitignore=false"]);
    wait_until("both have the new ones", || a.has("target/new there") && b.has("target/new here"));
    let tree = wait_settled(&[&a, &b]);
    for (name, content) in [
        ("edited there", Some("by b")),
        ("deleted there", None),
        ("edited here", Some("by a")),
        ("as it was", Some("as it was")),
        // It was not known whether it was meant to go everywhere.
        ("removed here", Some("removed here")),
    ] {
        assert_eq!(a.read(&format!("target/{name}")).as_deref(), content, "{name}");
    }
    let copies = conflict_copies(&tree);
    assert_eq!(copies.len(), 1, "{copies:?}");
    let mut both = [a.read("target/edited on both").unwrap(), fs::read_to_string(a.at(copies[0])).unwrap()];
    both.sort();
    assert_eq!(both, ["by a", "by b, and longer"]);
}

#[test]
fn many_small_edits_at_once_from_both_sides_converge() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.wait_connected(&b);
    std::thread::scope(|scope| {
        for device in [&a, &b] {
            scope.spawn(move || {
                for n in 0..300 {
                    device.write(&format!("{}/{}/{n}", device.name, n % 7), format!("{n} by {}", device.name));
                    if n % 3 == 0 {
                        device.write(&format!("{}/{}/{n}", device.name, n % 7), format!("{n} again"));
                    }
                    if n % 5 == 0 {
                        fs::remove_file(device.at(format!("{}/{}/{n}", device.name, n % 7))).unwrap();
                    }
                }
            });
        }
    });
    let tree = wait_settled(&[&a, &b]);
    let files = tree.values().filter(|entry| matches!(entry, Entry::File { .. })).count();
    assert_eq!(files, 2 * (300 - 60), "{:?}", conflict_copies(&tree));
}

#[test]
fn an_edit_under_one_name_of_a_hard_link_comes_over_under_all_of_them() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("here/one", "first");
    fs::create_dir_all(a.at("there")).unwrap();
    for name in ["here/also", "there/two"] {
        fs::hard_link(a.at("here/one"), a.at(name)).unwrap();
    }
    wait_settled(&[&a, &b]);
    a.write("there/two", "second");
    for name in ["here/one", "here/also", "there/two"] {
        wait_until(name, || b.read(name).as_deref() == Some("second"));
    }
    wait_settled(&[&a, &b]);
}
