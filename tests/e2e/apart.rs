//! What two devices did while they did not see each other.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::lab::{DATA, Device, Lab, conflict_copies, noise, wait_same, wait_settled, wait_until};

/// Gives a file a time, so that it is known which of two edits is the later one.
fn at_second(device: &Device, path: &str, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
    File::options().write(true).open(device.at(path)).unwrap().set_modified(time).unwrap();
}

#[test]
fn edits_made_apart_are_all_kept() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let long = "n".repeat(251) + ".txt";
    for name in ["plan.txt", "edited and deleted", "deleted by both", "same on both", &long] {
        a.write(name, format!("{name}, as it was"));
    }
    a.write("dir/inside", "as it was");
    a.write("moved.bin", noise(3, 100_000));
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();

    a.write("plan.txt", "by a");
    at_second(&a, "plan.txt", 1);
    b.write("plan.txt", "by b, later");
    at_second(&b, "plan.txt", 2);
    a.write(&long, "long by a");
    at_second(&a, &long, 4);
    b.write(&long, "long by b");
    at_second(&b, &long, 3);
    a.remove("edited and deleted");
    b.write("edited and deleted", "an edit beats a deletion");
    a.remove("deleted by both");
    b.remove("deleted by both");
    a.write("same on both", "the same edit");
    b.write("same on both", "the same edit");
    at_second(&a, "same on both", 5);
    at_second(&b, "same on both", 5);
    // A directory goes on one side and has something new on the other.
    fs::remove_dir_all(a.at("dir")).unwrap();
    b.write("dir/new", "made while the directory went");
    // Made on both under one name.
    a.write("new.txt", "new by a");
    at_second(&a, "new.txt", 1);
    b.write("new.txt", "new by b");
    at_second(&b, "new.txt", 2);
    a.write("only a", "a");
    b.write("only b", "b");
    fs::rename(b.at("moved.bin"), b.at("dir/moved.bin")).unwrap();

    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_until("both sides have seen each other", || a.has("only b") && b.has("only a"));
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(a.read("plan.txt").as_deref(), Some("by b, later"));
    assert_eq!(a.read(&long).as_deref(), Some("long by a"));
    assert_eq!(a.read("new.txt").as_deref(), Some("new by b"));
    assert_eq!(a.read("edited and deleted").as_deref(), Some("an edit beats a deletion"));
    assert_eq!(a.read("dir/new").as_deref(), Some("made while the directory went"));
    assert!(!a.has("deleted by both") && !a.has("dir/inside") && a.has("dir/moved.bin") && !a.has("moved.bin"));
    let copies = conflict_copies(&tree);
    assert_eq!(copies.len(), 3, "one copy for each pair of edits, under one name on both: {copies:?}");
    let contents: Vec<_> = copies.iter().map(|copy| fs::read_to_string(a.at(copy)).unwrap()).collect();
    for lost in ["by a", "long by b", "new by a"] {
        assert!(contents.iter().any(|content| content == lost), "{lost} is in {contents:?}");
    }
    assert!(copies.iter().all(|copy| copy.file_name().unwrap().as_bytes().len() <= 255));

    // Both devices list them, and a person settles them on one.
    let listed = a.json(&["conflicts", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");
    assert_eq!(b.json(&["conflicts", "list"]).as_array().unwrap().len(), 3);
    assert_eq!(a.cli(&["conflicts"]).code, 4);
    assert_eq!(a.status().inbox, 3);
    let of_plan = listed.as_array().unwrap().iter().find(|c| c["of"] == a.text("plan.txt")).unwrap().clone();
    assert_eq!(of_plan["device"], "a");
    assert_eq!(of_plan["size"], 4);
    let shown = b.ok(&["conflicts", "show", &b.text("plan.txt")]);
    assert!(shown.contains("on b  has the name") && shown.contains("on a  beside it"), "{shown}");
    assert!(shown.contains("-by b, later\n") && shown.contains("+by a\n"), "{shown}");

    a.ok(&["conflicts", "keep", &a.text("plan.txt"), "mine"]);
    b.ok(&["conflicts", "keep", &b.text("new.txt"), "mine"]);
    wait_until("what was chosen stays", || b.read("plan.txt").as_deref() == Some("by a"));
    let left = |device: &Device| device.json(&["conflicts", "list"]).as_array().unwrap().len();
    wait_until("the settled ones are gone", || left(&a) == 1 && left(&b) == 1);
    // A person may as well settle one with the means of the file system.
    let tree = a.tree();
    let [copy] = conflict_copies(&tree)[..] else { panic!("{:?}", conflict_copies(&tree)) };
    fs::rename(a.at(copy), a.at(&long)).unwrap();
    wait_until("none is left", || left(&a) == 0 && left(&b) == 0);
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(a.read("plan.txt").as_deref(), Some("by a"));
    assert_eq!(b.read("new.txt").as_deref(), Some("new by b"));
    assert_eq!(b.read(&long).as_deref(), Some("long by b"));
    assert!(conflict_copies(&tree).is_empty(), "{tree:?}");
    assert_eq!(a.cli(&["conflicts"]).code, 0);
    // What was not chosen is in the history of the device where the choice was made.
    let past = a.json(&["history", &a.text("plan.txt")]);
    assert!(past.as_array().unwrap().iter().any(|entry| entry["size"] == "by b, later".len()), "{past}");
}

#[test]
fn a_conflict_can_be_kept_as_two_ordinary_files() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    a.write("x.txt", "x by a");
    b.write("x.txt", "x by b");
    a.serve();
    b.serve();
    wait_until("the conflict is on both", || [&a, &b].iter().all(|device| conflict_copies(&device.tree()).len() == 1));
    wait_settled(&[&a, &b]);
    a.ok(&["conflicts", "keep", &a.text("x.txt"), "both"]);
    wait_until("the copy is an ordinary file on both", || {
        [&a, &b].iter().all(|device| conflict_copies(&device.tree()).is_empty() && device.tree().len() == 2)
    });
    let tree = wait_settled(&[&a, &b]);
    let mut contents: Vec<_> = tree.keys().map(|path| fs::read_to_string(b.at(path)).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["x by a", "x by b"]);
    assert_eq!(a.cli(&["conflicts"]).code, 0);
}

#[test]
fn what_was_done_while_a_daemon_did_not_run_is_found() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("stays/1", "1");
    a.write("goes/2", "2");
    a.write("changes", "before");
    a.write("tree/x/y", noise(4, 300_000));
    wait_settled(&[&a, &b]);
    b.stop();
    fs::remove_dir_all(b.at("goes")).unwrap();
    b.write("changes", "after, while b did not run");
    fs::rename(b.at("tree"), b.at("stays/tree")).unwrap();
    b.write("made/offline", "o");
    a.write("meanwhile", "on a");
    let before = a.folder(DATA).received_bytes;
    b.serve();
    wait_until("both are one again", || a.has("made/offline") && b.has("meanwhile"));
    let tree = wait_settled(&[&a, &b]);
    assert!(!a.has("goes") && !a.has("tree") && a.has("stays/tree/x/y"));
    assert_eq!(a.read("changes").as_deref(), Some("after, while b did not run"));
    assert!(conflict_copies(&tree).is_empty());
    assert!(a.folder(DATA).received_bytes - before < 100_000, "a rename made offline sends nothing either");
    assert!(!tree.contains_key(Path::new("goes/2")));
}

/// Copies a directory with all that is in it, as an image of a disk would have it.
fn copy_all(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_machine_that_was_restored_from_an_image_loses_and_overwrites_nothing() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("edited", "before the image");
    a.write("deleted", "before the image");
    wait_same(&[&a, &b]);
    a.stop();
    let (home, root) = (lab.path("home-image"), lab.path("root-image"));
    copy_all(&a.home, &home);
    copy_all(&a.root, &root);
    a.serve();
    a.write("edited", "after the image");
    a.write("made", "after the image");
    a.remove("deleted");
    wait_until("it comes over", || {
        b.read("edited").as_deref() == Some("after the image") && b.has("made") && !b.has("deleted")
    });
    a.stop();
    b.stop();
    // The whole machine goes back, is used for a while, and is started twice, before it meets the other.
    for (image, at) in [(&home, &a.home), (&root, &a.root)] {
        fs::remove_dir_all(at).unwrap();
        copy_all(image, at);
    }
    a.serve();
    a.write("edited", "on the restored machine");
    a.write("new", "on the restored machine");
    for n in 0..20 {
        a.write(&format!("more/{n}"), "more than was changed before");
    }
    a.ok(&["folder", "scan", DATA]);
    a.stop();
    a.serve();
    a.write("newer", "on the restored machine");
    a.ok(&["folder", "scan", DATA]);
    b.serve();
    wait_until("both have what was done on either", || {
        let contents = |device: &Device| {
            let mut contents: Vec<_> = fs::read_dir(&device.root)
                .unwrap()
                .filter_map(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    name.starts_with("edited").then(|| device.read(&name)).flatten()
                })
                .collect();
            contents.sort();
            contents
        };
        [&a, &b].iter().all(|device| {
            contents(device) == ["after the image", "on the restored machine"]
                && ["made", "new", "newer", "more/0", "more/19"].iter().all(|name| device.has(name))
        })
    });
    let tree = wait_same(&[&a, &b]);
    assert!(!a.has("deleted") && !b.has("deleted"), "what was deleted after the image came back");
    assert_eq!(conflict_copies(&tree).len(), 1);
}
