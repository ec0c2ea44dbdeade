//! The brake: what would delete or rewrite much of a folder waits for a person, on every device for itself.

use std::fs;

use crate::lab::{DATA, Device, Lab, wait_same, wait_settled, wait_until};

const FILES: usize = 300;

fn fill(device: &Device) {
    for n in 0..FILES {
        device.write(&format!("d{}/{n}", n % 3), format!("dear content {n}"));
    }
}

fn empty(device: &Device) {
    for n in 0..3 {
        fs::remove_dir_all(device.at(format!("d{n}"))).unwrap();
    }
}

fn files(device: &Device) -> usize {
    device.tree().iter().filter(|(path, _)| path.components().count() == 2).count()
}

fn wait_held(device: &Device) {
    wait_until("all of it is held", || device.folder(DATA).held == FILES as u64);
    assert_eq!(files(device), FILES, "{}", device.log_tail());
}

#[test]
fn a_mass_deletion_is_held_released_and_rejected() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("plan", "as it was");
    fill(&a);
    wait_settled(&[&a, &b]);
    // Files that come and go in one breath are nobody's loss; these have to be older.
    std::thread::sleep(std::time::Duration::from_secs(4));
    empty(&a);
    wait_held(&b);

    // A person is told, in every place.
    let inbox = b.cli(&["inbox"]);
    assert_eq!(inbox.code, 4, "{inbox:?}");
    for word in ["300 deletions by a are held", "d0/0, d0/102", "and 297 more", "folder release data --reject"] {
        assert!(inbox.stdout.contains(word), "{word}: {inbox:?}");
    }
    let json = b.json(&["inbox"]);
    let held = &json[0]["held"];
    assert_eq!((held["deleted"].as_u64(), held["rewritten"].as_u64()), (Some(300), Some(0)), "{json}");
    assert_eq!(held["device"]["name"], "a");
    assert_eq!(held["files"][0]["path"], b.text("d0/0"));
    assert_eq!(b.status().inbox, 1);
    assert!(b.cli(&["status"]).stdout.contains("300 changes are held"), "{:?}", b.cli(&["status"]));
    let wait = b.cli(&["wait", DATA, "--timeout", "1"]);
    assert!(wait.code == 3 && wait.stderr.contains("changes are held"), "{wait:?}");

    // All else goes on, both ways, and so it is after an end of the daemon and after a crash.
    a.write("new on a", "n");
    a.write("plan", "edited");
    b.write("new on b", "n");
    wait_until("the rest goes on", || b.read("plan").as_deref() == Some("edited") && a.has("new on b"));
    wait_until("the rest goes on", || b.has("new on a"));
    b.stop();
    b.serve();
    b.wait_connected(&a);
    b.kill9();
    b.serve();
    b.wait_connected(&a);
    a.write("another", "n");
    wait_until("it is in touch again", || b.has("another"));
    wait_held(&b);

    // Rejected: the files are back on the other side.
    let rejected = b.ok(&["folder", "release", DATA, "--reject"]);
    assert!(rejected.contains("rejected in `data`: 300 deletions"), "{rejected}");
    let tree = wait_settled(&[&a, &b]);
    assert_eq!((files(&a), tree.len()), (FILES, FILES + 3 + 4));
    assert_eq!(a.read("d1/100").as_deref(), Some("dear content 100"));
    assert_eq!((b.cli(&["inbox"]).code, b.folder(DATA).held), (0, 0));
    assert!(b.ok(&["folder", "release", DATA]).contains("nothing is held in `data`"));

    // Done once more, and released: it goes through.
    std::thread::sleep(std::time::Duration::from_secs(4));
    empty(&a);
    wait_held(&b);
    assert!(b.ok(&["folder", "release", DATA]).contains("released in `data`: 300 deletions"));
    assert_eq!(wait_settled(&[&a, &b]).len(), 4);
    assert_eq!(b.cli(&["inbox"]).code, 0);
}

#[test]
fn each_device_is_asked_for_itself_and_a_rejection_wins() {
    let lab = Lab::new();
    let (a, b, c) = (lab.device("a"), lab.device("b"), lab.device("c"));
    for (one, other) in [(&a, &b), (&a, &c), (&b, &a), (&b, &c), (&c, &a), (&c, &b)] {
        one.trusts(other);
    }
    a.ok(&["folder", "add", a.root_text(), "--name", DATA, "--share", "b", "--share", "c"]);
    b.ok(&["folder", "accept", DATA, b.root_text(), "--from", "a"]);
    c.ok(&["folder", "accept", DATA, c.root_text(), "--from", "a"]);
    fill(&a);
    for device in [&a, &b, &c] {
        device.serve();
    }
    wait_settled(&[&a, &b, &c]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    empty(&a);
    wait_held(&b);
    wait_held(&c);
    b.ok(&["folder", "release", DATA]);
    wait_same(&[&a, &b]);
    b.wait_connected(&c);
    b.write("later", "n");
    wait_until("c has heard of b", || c.has("later"));
    wait_held(&c);
    c.ok(&["folder", "release", DATA, "--reject"]);
    let tree = wait_settled(&[&a, &b, &c]);
    assert_eq!((tree.len(), files(&b)), (FILES + 4, FILES));
}

#[test]
fn a_mass_rewriting_is_held_unless_the_brake_is_off() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    fill(&a);
    wait_settled(&[&a, &b]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    for n in 0..FILES {
        a.write(&format!("d{}/{n}", n % 3), format!("ENCRYPTED {n}"));
    }
    wait_until("most of it is held", || b.folder(DATA).held > FILES as u64 / 2);
    let lost = (0..FILES).filter(|n| b.read(&format!("d{}/{n}", n % 3)).unwrap().starts_with("ENC")).count();
    assert!(lost <= 100, "{lost}");
    // Off by hand: then it is as if there were none.
    b.ok(&["folder", "set", DATA, "brake=off"]);
    wait_settled(&[&a, &b]);
    assert_eq!(b.read("d0/0").as_deref(), Some("ENCRYPTED 0"));
    assert_eq!(b.folder(DATA).held, 0);
}

#[test]
fn renames_and_what_was_only_just_made_are_not_held() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    fill(&a);
    wait_settled(&[&a, &b]);
    std::thread::sleep(std::time::Duration::from_secs(4));
    for n in 0..3 {
        fs::rename(a.at(format!("d{n}")), a.at(format!("moved{n}"))).unwrap();
    }
    let tree = wait_settled(&[&a, &b]);
    assert_eq!(tree.len(), FILES + 3);
    assert!(!b.log_text().contains("held:"), "{}", b.log_tail());
}
