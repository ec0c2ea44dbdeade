//! Texts that were edited apart, and both edits put into one.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use crate::lab::{DATA, Device, Lab, Tree, conflict_copies, wait_settled, wait_until};

const PLAN: &str = "Plan\n\nbuy milk\n\nfeed the cat\n\nwater the plants\n";

/// Waits until a device knows what its texts are, so many in all: it writes that down once it rests.
fn wait_known(device: &Device, texts: usize) {
    let is_sheet = |entry: &fs::DirEntry| entry.file_name().len() == 32;
    wait_until(&format!("{} knows its texts", device.name), || {
        let dir = fs::read_dir(device.at(".kinfold/bases"));
        dir.is_ok_and(|dir| dir.filter(|entry| is_sheet(entry.as_ref().unwrap())).count() == texts)
    });
}

/// Writes on one device only, with a time that says which edit is the later one.
fn write_at(device: &Device, path: &str, text: &[u8], second: u64) {
    device.write(path, text);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
    File::options().write(true).open(device.at(path)).unwrap().set_modified(time).unwrap();
}

/// A name, what the file was, and what each of the two made of it.
type Text<'a> = (&'a str, &'a [u8], &'a [u8], &'a [u8]);

/// Has both devices hold a text, then edit it apart, and meet again.
fn edit_apart(a: &Device, b: &Device, texts: &[Text<'_>]) -> Tree {
    for (path, before, ..) in texts {
        a.write(path, before);
    }
    wait_settled(&[a, b]);
    let known = texts.iter().filter(|(_, before, ..)| !before.contains(&0)).count();
    [a, b].iter().for_each(|device| wait_known(device, known));
    a.stop();
    b.stop();
    for (path, _, by_a, by_b) in texts {
        write_at(a, path, by_a, 1);
        write_at(b, path, by_b, 2);
    }
    a.serve();
    b.serve();
    a.wait_connected(b);
    wait_until("both have met", || [a, b].iter().all(|device| !conflict_copies(&device.tree()).is_empty()));
    wait_settled(&[a, b])
}

fn copy_of(tree: &Tree, start: &str) -> String {
    let copies = conflict_copies(tree);
    let found = copies.iter().find(|copy| copy.to_str().unwrap().starts_with(start));
    found.unwrap_or_else(|| panic!("{start}: {copies:?}")).to_str().unwrap().to_owned()
}

#[test]
fn a_text_edited_apart_is_merged_and_both_sides_are_in_the_history() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let (by_a, by_b) = (PLAN.replace("milk", "milk and bread"), PLAN.replace("plants\n", "plants, twice"));
    let tree = edit_apart(&a, &b, &[("plan.txt", PLAN.as_bytes(), by_a.as_bytes(), by_b.as_bytes())]);
    let copy = copy_of(&tree, "plan");
    for device in [&a, &b] {
        assert!(device.cli(&["conflicts"]).stdout.contains("can be merged"));
        assert!(device.ok(&["conflicts", "show", &device.text("plan.txt")]).contains("the edits do not overlap"));
        let would = device.ok(&["conflicts", "merge", &device.text("plan.txt"), "--dry-run"]);
        assert!(would.starts_with("would merge"), "{would}");
    }
    assert_eq!(a.tree(), tree, "asking changes nothing");
    // The side that lost its name merges as well as the other.
    assert!(a.ok(&["conflicts", "merge", &a.text(&copy)]).starts_with("merged "));
    wait_until("the copy is gone on both", || [&a, &b].iter().all(|device| !device.has(&copy)));
    let merged = by_a.replace("plants\n", "plants, twice");
    wait_until("both hold both edits", || {
        [&a, &b].iter().all(|device| device.read("plan.txt").as_ref() == Some(&merged))
    });
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(tree.len(), 1, "{tree:?}");
    for device in [&a, &b] {
        assert_eq!(device.cli(&["conflicts"]).code, 0);
        for (path, side) in [("plan.txt", &by_b), (copy.as_str(), &by_a)] {
            let past = device.json(&["history", &device.text(path)]);
            assert!(past.as_array().unwrap().iter().any(|entry| entry["size"] == side.len()), "{path}: {past}");
        }
        let back = device.home.join("back");
        device.ok(&["restore", &device.text(&copy), "--to", back.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(back).unwrap(), by_a);
    }
}

#[test]
fn what_overlaps_is_no_text_or_has_no_known_past_is_left_to_a_person() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let (by_a, by_b) = (PLAN.replace("milk", "bread"), PLAN.replace("milk", "butter"));
    let sides = [
        ("plan.txt", PLAN.as_bytes(), by_a.as_bytes(), by_b.as_bytes()),
        ("picture", &b"\x89P\0\n1\n2\n3\n"[..], &b"\x89P\0\n9\n2\n3\n"[..], &b"\x89P\0\n1\n2\n9\n"[..]),
    ];
    let before = edit_apart(&a, &b, &sides);
    // Made on both under one name, and so of no common past.
    a.stop();
    b.stop();
    write_at(&a, "new.txt", b"new by a", 1);
    write_at(&b, "new.txt", b"new by b", 2);
    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_until("the third is there", || conflict_copies(&a.tree()).len() == conflict_copies(&before).len() + 1);
    let tree = wait_settled(&[&a, &b]);
    for (path, why, advice) in [
        ("plan.txt", "the edits overlap at line 3", "conflicts keep PATH merged"),
        ("picture", "it is no text", "keep PATH mine|theirs|both|merged"),
        ("new.txt", "it is not known here what it was before both edits", "another device may know"),
        ("nothing", "that path has no conflict", "kinfold conflicts"),
    ] {
        for more in [&["--dry-run"][..], &[]] {
            let ran = b.cli(&[&["conflicts", "merge", &b.text(path)], more].concat());
            assert!(ran.code == 1 && ran.stderr.contains(why) && ran.stderr.contains(advice), "{path}: {ran:?}");
        }
        assert!(!b.cli(&["conflicts"]).stdout.contains("can be merged"));
    }
    assert_eq!(wait_settled(&[&a, &b]), tree, "nothing was changed");
}

#[test]
fn a_folder_that_merges_texts_by_itself_does_so_on_all_devices_at_once_and_they_agree() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let names = ["1.txt", "2.txt", "3.txt", "4.txt"];
    let (by_a, by_b) = (PLAN.replace("milk", "milk and bread"), PLAN.replace("plants\n", "plants, twice"));
    let overlaps = PLAN.replace("milk", "butter");
    for name in names.iter().chain(&["overlaps.txt"]) {
        a.write(name, PLAN);
    }
    wait_settled(&[&a, &b]);
    for device in [&a, &b] {
        device.ok(&["folder", "set", DATA, "merge=text"]);
        wait_known(device, names.len() + 1);
    }
    a.stop();
    b.stop();
    for (n, name) in names.into_iter().enumerate() {
        // Now the one, now the other has the later edit.
        write_at(&a, name, by_a.as_bytes(), 10 + n as u64 % 2);
        write_at(&b, name, by_b.as_bytes(), 11 - n as u64 % 2);
    }
    write_at(&a, "overlaps.txt", by_a.as_bytes(), 1);
    write_at(&b, "overlaps.txt", overlaps.as_bytes(), 2);
    a.serve();
    b.serve();
    let merged = by_a.replace("plants\n", "plants, twice");
    wait_until("all that do not overlap are merged", || {
        [&a, &b].iter().all(|device| {
            let is_merged = |name: &&str| device.read(name).as_ref() == Some(&merged);
            names.iter().all(is_merged) && conflict_copies(&device.tree()).len() == 1
        })
    });
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(tree.len(), names.len() + 2, "{tree:?}");
    copy_of(&tree, "overlaps");
    assert_eq!(a.read("overlaps.txt").as_deref(), Some(overlaps.as_str()));
    // Both sides of each can be brought back, wherever it was merged.
    let sizes = [by_a.len(), by_b.len()];
    for (device, name) in [&a, &b].iter().flat_map(|device| names.map(|name| (device, name))) {
        let past = device.json(&["history", &device.text(name)]);
        let holds = |entry: &serde_json::Value| sizes.iter().any(|size| entry["size"] == *size);
        assert!(past.as_array().unwrap().iter().any(holds), "{name}: {past}");
    }
}

#[test]
fn three_edits_apart_end_in_one_text() {
    let lab = Lab::new();
    let devices = lab.three();
    let all: Vec<&Device> = devices.iter().collect();
    devices.iter().for_each(Device::serve);
    let lines: String = (0..30).map(|n| format!("line {n}\n")).collect();
    let names: Vec<String> = (0..6).map(|n| format!("{n}.txt")).collect();
    for name in &names {
        devices[0].write(name, &lines);
    }
    wait_settled(&all);
    for device in &devices {
        device.ok(&["folder", "set", DATA, "merge=text"]);
        wait_known(device, names.len());
    }
    devices.iter().for_each(Device::stop);
    // Each has another line, and each is once the first and once the last.
    let edit = |n: usize| format!("line {}, by {}\n", 5 + 10 * n, devices[n].name);
    for (round, name) in names.iter().enumerate() {
        for (n, device) in devices.iter().enumerate() {
            let text = lines.replace(&format!("line {}\n", 5 + 10 * n), &edit(n));
            write_at(device, name, text.as_bytes(), (round + n * (1 + round % 2)) as u64 % 3);
        }
    }
    devices.iter().for_each(Device::serve);
    let is_merged = |device: &&Device, name: &String| {
        let text = device.read(name).unwrap_or_default();
        (0..3).all(|n| text.contains(&edit(n)))
    };
    // What was merged here and there with other sides first is a conflict itself, and is merged as well.
    wait_until("all texts hold all edits", || {
        let is_done = |device: &&Device| {
            names.iter().all(|name| is_merged(device, name)) && conflict_copies(&device.tree()).is_empty()
        };
        all.iter().all(is_done)
    });
    let tree = wait_settled(&all);
    for name in &names {
        let text = devices[0].read(name).unwrap();
        assert_eq!(text.lines().count(), 30, "{name}: {text}");
    }
    assert_eq!(tree.len(), names.len(), "{tree:?}");
}
