//! What a sync replaced or deleted is kept, and comes back.

use std::fs;

use crate::lab::{Lab, conflict_copies, wait_settled, wait_until};

#[test]
fn what_won_a_conflict_unseen_lies_beside_what_is_restored_over_it() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("f.txt", "first");
    wait_settled(&[&a, &b]);
    a.write("f.txt", "second!");
    wait_until("b has the second", || b.read("f.txt").as_deref() == Some("second!"));
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();
    a.write("f.txt", "an edit that b has not seen");
    b.remove("f.txt");
    a.serve();
    b.serve();
    a.wait_connected(&b);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("f.txt").as_deref(), Some("an edit that b has not seen"));

    b.ok(&["restore", &b.text("f.txt")]);
    wait_until("the version from before is back on a", || a.read("f.txt").as_deref() == Some("first"));
    let tree = wait_settled(&[&a, &b]);
    let copies = conflict_copies(&tree);
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(a.read(copies[0].to_str().unwrap()).as_deref(), Some("an edit that b has not seen"));
}

#[test]
fn files_and_trees_come_back_as_they_were() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("letter.txt", "first");
    a.write("tree/one", "1");
    a.write("tree/sub/two", "22");
    a.write("tree/sub/unchanged", "the same all along");
    wait_settled(&[&a, &b]);
    a.write("letter.txt", "second!");
    wait_until("b has the second", || b.read("letter.txt").as_deref() == Some("second!"));
    wait_settled(&[&a, &b]);
    a.write("letter.txt", "third, and last");
    wait_until("b has the third", || b.read("letter.txt").as_deref() == Some("third, and last"));
    wait_settled(&[&a, &b]);

    // The list: newest first, times that `restore` takes, and sizes.
    let past = b.json(&["history", &b.text("letter.txt")]);
    let past = past.as_array().unwrap();
    let sizes: Vec<_> = past.iter().map(|entry| entry["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [7, 5], "{past:?}");
    assert!(past.iter().all(|entry| entry["device"] == "a" && entry["kind"] == "file"), "{past:?}");
    let first_time = past[1]["time"].as_str().unwrap().to_owned();

    // To another place; the file itself is left alone.
    let out = lab.path("out/letter.txt");
    b.ok(&["restore", &b.text("letter.txt"), "--at", &first_time, "--to", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "first");
    assert_eq!(b.read("letter.txt").as_deref(), Some("third, and last"));

    // By the time that people are shown; and without doing it.
    let shown = b.ok(&["history", &b.text("letter.txt")]);
    let shown_time = shown.lines().last().unwrap().split("  ").next().unwrap().to_owned();
    let would = b.ok(&["restore", &b.text("letter.txt"), "--at", &shown_time, "--dry-run"]);
    assert!(
        would.contains("what lies there goes to history") && would.contains("would restore 1 file, 5 B"),
        "{would}"
    );
    let aside = lab.path("out/shown.txt");
    b.ok(&["restore", &b.text("letter.txt"), "--at", &shown_time, "--to", aside.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&aside).unwrap(), "first");
    assert_eq!(b.read("letter.txt").as_deref(), Some("third, and last"));
    let space = b.ok(&["history"]);
    assert!(space.contains("data  12 B of at most ") && space.contains("for 30 days"), "{space}");

    // Back in its place, as it was before the last change; that syncs, and can be undone.
    b.ok(&["restore", &b.text("letter.txt")]);
    wait_until("what was restored comes to a", || a.read("letter.txt").as_deref() == Some("second!"));
    wait_settled(&[&a, &b]);
    b.ok(&["restore", &b.text("letter.txt"), "--at", &first_time]);
    wait_until("the first comes to a", || a.read("letter.txt").as_deref() == Some("first"));
    wait_settled(&[&a, &b]);

    // A deleted tree, out of the history of the device that did not delete it.
    b.write("tree/one", "1 by b");
    wait_until("a has what b changed", || a.read("tree/one").as_deref() == Some("1 by b"));
    wait_settled(&[&a, &b]);
    let before_deletion = jiff::Timestamp::now().to_string();
    fs::remove_dir_all(a.at("tree")).unwrap();
    wait_until("the tree is gone on b", || !b.has("tree"));
    wait_settled(&[&a, &b]);
    let out = lab.path("out/tree");
    b.ok(&["restore", &b.text("tree"), "--at", &before_deletion, "--to", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(out.join("one")).unwrap(), "1 by b");
    assert_eq!(fs::read_to_string(out.join("sub/unchanged")).unwrap(), "the same all along");
    b.ok(&["restore", &b.text("tree")]);
    wait_until("the tree is back on both", || {
        let expected = [("tree/one", "1 by b"), ("tree/sub/two", "22"), ("tree/sub/unchanged", "the same all along")];
        expected.iter().all(|(path, text)| [&a, &b].iter().all(|d| d.read(path).as_deref() == Some(text)))
    });
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(tree.len(), 6, "{tree:?}");

    // What is asked for and was never there is a clear error.
    let ran = b.cli(&["restore", &b.text("never")]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("error: "), "{ran:?}");
    let ran = b.cli(&["history", &b.text("never")]);
    assert!(ran.code == 1 && ran.stderr.contains("nothing is known of"), "{ran:?}");
    let ran = b.cli(&["history", "/nowhere/at/all"]);
    assert!(ran.code == 1 && ran.stderr.contains("lies in no synced folder"), "{ran:?}");

    // History outlives the daemon.
    b.stop();
    b.serve();
    b.wait_connected(&a);
    assert!(b.json(&["history", &b.text("letter.txt")]).as_array().unwrap().len() >= 3);
    assert!(b.status().folders[0].history_bytes > 0);
}

#[test]
fn a_restore_overwrites_nothing_that_history_would_not_keep() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("f.txt", "first");
    wait_settled(&[&a, &b]);
    a.write("f.txt", "second!");
    wait_until("b has the second", || b.read("f.txt").as_deref() == Some("second!"));
    wait_settled(&[&a, &b]);
    // An edit larger than all that history may hold; what is in there already is smaller.
    b.ok(&["folder", "set", "data", "history_size=8 B"]);
    b.write("f.txt", "an edit that lies nowhere else");
    wait_settled(&[&a, &b]);
    // Out of its own history alone: a keeps what that edit replaced.
    b.ok(&["restore", &b.text("f.txt"), "--from", "b"]);
    wait_until("the first is back", || b.read("f.txt").as_deref() == Some("first"));
    let tree = wait_settled(&[&a, &b]);
    let copies = conflict_copies(&tree);
    assert_eq!(copies.len(), 1, "{tree:?}");
    assert_eq!(b.read(copies[0].to_str().unwrap()).as_deref(), Some("an edit that lies nowhere else"));
}

#[test]
fn a_conflict_is_shown_with_both_sides_and_merged_by_hand() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("list.txt", "milk\nbread\neggs\n");
    wait_settled(&[&a, &b]);
    a.stop();
    b.stop();
    a.write("list.txt", "milk\nbread\neggs\napples\n");
    std::thread::sleep(std::time::Duration::from_millis(20));
    b.write("list.txt", "butter\nmilk\nbread\neggs\n");
    a.serve();
    b.serve();
    a.wait_connected(&b);
    let tree = wait_settled(&[&a, &b]);
    let copies = conflict_copies(&tree);
    assert_eq!(copies.len(), 1, "{tree:?}");
    let shown = b.ok(&["conflicts", "show", &b.text("list.txt")]);
    for part in ["on a", "on b", "has the name", "-butter", "+apples", " bread", "23 B"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(a.ok(&["conflicts", "show", &a.text("list.txt")]).contains("mine, beside it"));
    b.write("list.txt", "butter\nmilk\nbread\neggs\napples\n");
    wait_settled(&[&a, &b]);
    b.ok(&["conflicts", "keep", &b.text("list.txt"), "merged"]);
    wait_until("the copy is gone on both", || [&a, &b].iter().all(|device| !device.has(copies[0].to_str().unwrap())));
    wait_settled(&[&a, &b]);
    assert_eq!(a.read("list.txt").as_deref(), Some("butter\nmilk\nbread\neggs\napples\n"));
    // What was put aside can be brought back.
    assert!(b.ok(&["history", &b.text(copies[0].to_str().unwrap())]).contains("23 B"));
}
