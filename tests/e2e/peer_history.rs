//! Former versions that another device keeps: listed, taken, and refused.

use std::fs;
use std::time::Duration;

use kinfold::model::id::ContentId;
use kinfold::model::path::RelPath;
use kinfold::wire::message::{Hello, Message, Run, Want, WantItem};
use kinfold::wire::past::WantHistory;

use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};
use crate::puppet::{Puppet, claim};

/// Writes a file on one device, and waits until the other has it.
fn write_through(from: &Device, to: &Device, path: &str, content: &str) {
    from.write(path, content);
    wait_until("the other has it", || to.read(path).as_deref() == Some(content));
    wait_settled(&[from, to]);
}

/// Returns the time of the kept state that has this size.
fn time_of(entries: &serde_json::Value, size: u64) -> String {
    let entries = entries.as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["size"] == size).unwrap_or_else(|| panic!("{entries:?}"));
    entry["time"].as_str().unwrap().to_owned()
}

#[test]
fn what_only_another_device_keeps_is_listed_and_comes_back() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.ok(&["folder", "set", DATA, "history_days=0"]);
    for content in ["first", "second!", "third, and last"] {
        write_through(&a, &b, "letter.txt", content);
    }
    let letter = a.text("letter.txt");

    // Here there is nothing; there are two, and who asks all is told so.
    assert_eq!(a.ok(&["history", &letter]), "");
    let there = a.json(&["history", &letter, "--from", "b"]);
    let sizes: Vec<_> = there.as_array().unwrap().iter().map(|entry| entry["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [7, 5], "{there}");
    assert_eq!(there[0]["held_by"], serde_json::json!(["b"]));
    assert_eq!(there[0]["device"], "a");
    let all = a.ok(&["history", &letter, "--all"]);
    assert!(all.lines().count() == 2 && all.lines().all(|line| line.ends_with("  a  b")), "{all}");
    let of_b = b.json(&["history", &b.text("letter.txt"), "--all"]);
    assert_eq!(of_b[0]["held_by"], serde_json::json!(["here"]), "{of_b}");

    // What would be done says from where, and does nothing.
    let first = time_of(&there, 5);
    let would = a.ok(&["restore", &letter, "--at", &first, "--from", "b", "--dry-run"]);
    assert!(would.contains("from b") && would.contains("would restore 1 file, 5 B, from b, to "), "{would}");
    assert_eq!(a.read("letter.txt").as_deref(), Some("third, and last"));

    // Elsewhere, and in its place: then it syncs, and what lay there lies beside it, for a keeps no history.
    let out = lab.path("out/letter.txt");
    a.ok(&["restore", &letter, "--at", &first, "--from", "b", "--to", out.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "first");
    let said = a.ok(&["restore", &letter, "--at", &first, "--from", "b"]);
    assert!(said.contains("restored 1 file, 5 B, from b, to "), "{said}");
    assert_eq!(a.read("letter.txt").as_deref(), Some("first"));
    wait_until("it comes to b", || b.read("letter.txt").as_deref() == Some("first"));
    wait_settled(&[&a, &b]);
    let copies: Vec<_> = fs::read_dir(&a.root).unwrap().map(|entry| entry.unwrap().path()).collect();
    let copy = copies.iter().find(|path| path.to_string_lossy().contains(".conflict-")).expect("a copy lies beside");
    assert_eq!(fs::read_to_string(copy).unwrap(), "third, and last");
    assert_eq!(fs::read_dir(a.at(".kinfold/staging")).unwrap().count(), 0, "what was taken is used up");
}

#[test]
fn a_version_that_is_not_kept_here_is_taken_from_who_keeps_it() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    // Several pieces and chunks, of which the middle changes.
    let large = |mark: u8| {
        let mut bytes: Vec<u8> = (0..700_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        bytes[1_400_000..1_400_100].fill(mark);
        bytes
    };
    a.write("large", large(1));
    wait_settled(&[&a, &b]);
    a.write("large", large(2));
    wait_until("b has the second", || fs::read(b.at("large")).is_ok_and(|bytes| bytes == large(2)));
    wait_settled(&[&a, &b]);
    // As it was before the last change, which was made here and so is kept on b alone.
    let said = a.ok(&["restore", &a.text("large")]);
    assert!(said.contains("from b, to "), "{said}");
    assert!(fs::read(a.at("large")).unwrap() == large(1));
    wait_settled(&[&a, &b]);
    // What was replaced by that is kept here, and is taken from here; who is named is asked alone.
    let said = a.ok(&["restore", &a.text("large"), "--from", "a"]);
    assert!(!said.contains("from b"), "{said}");
    assert!(fs::read(a.at("large")).unwrap() == large(2));
}

#[test]
fn a_tree_comes_back_as_it_was_at_a_time() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    for (path, content) in [("tree/one", "1"), ("tree/sub/two", "22"), ("tree/empty", ""), ("tree/same", "unchanged")] {
        a.write(path, content);
    }
    std::os::unix::fs::symlink("one", a.at("tree/link")).unwrap();
    wait_until("b has the link", || b.at("tree/link").is_symlink());
    wait_settled(&[&a, &b]);
    let then = jiff::Timestamp::now().to_string();
    write_through(&a, &b, "tree/one", "one");
    write_through(&a, &b, "tree/one", "uno");
    write_through(&a, &b, "tree/empty", "no more");
    fs::remove_dir_all(a.at("tree/sub")).unwrap();
    fs::remove_file(a.at("tree/link")).unwrap();
    wait_until("b has done the same", || !b.has("tree/sub") && !b.has("tree/link"));
    wait_settled(&[&a, &b]);

    let out = lab.path("out");
    a.ok(&["restore", &a.text("tree"), "--at", &then, "--to", out.to_str().unwrap()]);
    let expected = [("one", "1"), ("sub/two", "22"), ("empty", ""), ("same", "unchanged"), ("link", "1")];
    for (path, content) in expected {
        assert_eq!(fs::read_to_string(out.join(path)).unwrap(), content, "{path}");
    }
    assert!(out.join("link").is_symlink());
    let said = a.ok(&["restore", &a.text("tree"), "--at", &then]);
    assert!(said.contains("restored 4 files, 3 B, from b, to "), "{said}");
    for (path, content) in expected {
        assert_eq!(a.read(&format!("tree/{path}")).as_deref(), Some(content), "{path}");
    }
    wait_until("b has it too", || b.read("tree/sub/two").as_deref() == Some("22") && b.at("tree/link").is_symlink());
    wait_settled(&[&a, &b]);
    // What the restore replaced is kept here.
    assert_eq!(a.json(&["history", &a.text("tree/one")])[0]["size"], 3);
}

#[test]
fn who_cannot_be_asked_is_named_with_what_to_do() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let stranger = lab.device("c");
    a.trusts(&stranger);
    write_through(&a, &b, "f", "first");
    write_through(&a, &b, "f", "second");
    let refusal = |from: &str| {
        let ran = a.cli(&["restore", &a.text("f"), "--from", from]);
        assert_eq!(ran.code, 1, "{ran:?}");
        ran.stderr
    };
    assert!(refusal("nobody").contains("there is no device called nobody"));
    assert!(refusal("c").contains("c does not belong to the folder data"));
    assert!(refusal("a").contains("no former version is kept here"));
    b.stop();
    wait_until("a knows that b is away", || !a.status().peers.iter().any(|peer| peer.connected));
    let said = refusal("b");
    assert!(said.contains("b is not connected") && said.contains("start kinfold on b"), "{said}");
    let ran = a.cli(&["restore", &a.text("f")]);
    assert!(ran.code == 1 && ran.stderr.contains("no former version is kept here"), "{ran:?}");
    assert!(ran.stderr.contains("a device that is not connected may keep one"), "{ran:?}");
    assert_eq!(a.read("f").as_deref(), Some("second"));
}

#[test]
fn a_reader_is_believed_only_by_who_names_it() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.ok(&["folder", "share", DATA, "b:reader"]);
    write_through(&a, &b, "f", "first");
    write_through(&a, &b, "f", "second");
    let ran = a.cli(&["restore", &a.text("f")]);
    assert!(ran.code == 1 && ran.stderr.contains("no former version is kept here"), "{ran:?}");
    a.ok(&["restore", &a.text("f"), "--from", "b"]);
    assert_eq!(a.read("f").as_deref(), Some("first"));
}

#[test]
fn a_device_without_a_right_hears_nothing_of_the_past() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    write_through(&b, &a, "secret", "first");
    write_through(&b, &a, "secret", "second");
    let versions = a.json(&["history", &a.text("secret")]);
    assert_eq!(versions.as_array().unwrap().len(), 1);
    // Paired, and knows the folder's id, which is all that a former member knows.
    let puppet = Puppet::new(&lab, "puppet");
    a.ok(&["device", "add", &puppet.id().to_string(), "--name", "puppet"]);
    let folder = a.folder(DATA).id;
    let ask = |is_member: bool| {
        let mut session = puppet.session(&a);
        session.say(&Message::Hello(Hello { name: "puppet".to_owned(), folders: vec![claim(folder)] }));
        let path = RelPath::parse(b"secret").unwrap();
        session.reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        if is_member {
            // The folder's thread hears of the session before it hears the questions.
            while session.reader.read().unwrap().kind != 0x11 {}
        }
        session.say(&Message::WantHistory(WantHistory { request: 1, folder, top: None, after: None }));
        let run = Run { first: 0, offset: 0, lens: vec![5] };
        let items = vec![WantItem { path, content: ContentId([1; 32]), runs: vec![run] }];
        session.say(&Message::Want(Want { request: 2, folder, items }));
        session.say(&Message::Ping);
        let mut heard = Vec::new();
        // What answers to the past comes by way of the folder, and may come after the pong.
        session.reader.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        while let Ok(frame) = session.reader.read() {
            heard.extend(Message::decode(frame.kind, &frame.header, &frame.body).unwrap());
        }
        assert!(heard.contains(&Message::Pong), "{heard:?}");
        heard
    };
    let answers = |heard: &[Message]| {
        heard.iter().filter(|message| matches!(message, Message::History(_) | Message::Missing { .. })).count()
    };
    let heard = ask(false);
    assert_eq!(answers(&heard), 0, "{heard:?}");
    // The same device, once it may read: it is the right that makes the difference.
    a.ok(&["folder", "share", DATA, "puppet:reader"]);
    let heard = ask(true);
    assert_eq!(answers(&heard), 2, "{heard:?}");
}
