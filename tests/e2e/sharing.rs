//! Who shares what with whom, and how that changes while daemons run.

use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};

fn offers(device: &Device) -> usize {
    device.json(&["folder", "offers"]).as_array().unwrap().len()
}

#[test]
fn a_chain_of_three_converges_and_the_ends_need_not_know_each_other() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let c = lab.device("c");
    b.trusts(&c);
    c.trusts(&b);
    c.serve();
    a.write("from-a", "a");
    wait_settled(&[&a, &b]);

    // A running third device is offered the folder, and takes it.
    b.wait_connected(&c);
    assert_eq!(offers(&c), 0);
    b.ok(&["folder", "share", DATA, "c"]);
    wait_until("c is offered the folder", || offers(&c) == 1);
    assert!(!c.has("from-a"), "nothing comes before it is accepted");
    c.ok(&["folder", "accept", DATA, c.root_text(), "--from", "b"]);
    wait_until("c has what a wrote", || c.has("from-a"));
    assert_eq!(offers(&c), 0);

    c.write("from-c", "c");
    b.write("from-b", "b");
    wait_until("the ends have all three", || a.tree().len() == 3 && c.tree().len() == 3);
    wait_settled(&[&a, &b, &c]);
    a.write("from-c", "changed by a");
    wait_until("c has what a changed", || c.read("from-c").as_deref() == Some("changed by a"));

    // The middle rests; what the ends do meanwhile meets when it is back.
    b.stop();
    a.write("meanwhile-a", "a");
    c.write("meanwhile-c", "c");
    a.remove("from-b");
    b.serve();
    wait_until("the ends have met", || c.has("meanwhile-a") && a.has("meanwhile-c") && !c.has("from-b"));
    wait_settled(&[&a, &b, &c]);

    // The ends come to know each other and need the middle no longer.
    a.trusts(&c);
    c.trusts(&a);
    a.wait_connected(&c);
    b.stop();
    a.write("directly", "from a to c");
    wait_until("c has it without b", || c.read("directly").as_deref() == Some("from a to c"));
    wait_settled(&[&a, &c]);
    b.serve();
    wait_settled(&[&a, &b, &c]);
}

#[test]
fn a_chain_can_be_laid_out_before_any_of_its_daemons_runs() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let c = lab.device("c");
    b.trusts(&c);
    c.trusts(&b);
    let said = b.ok(&["folder", "share", DATA, "c"]);
    assert!(said.contains("once it is offered"), "{said}");
    c.ok(&["folder", "accept", DATA, c.root_text(), "--from", "b"]);
    a.write("from-a", "a");
    c.write("from-c", "c");
    for device in [&c, &b, &a] {
        device.serve();
    }
    wait_until("the ends have both", || a.tree().len() == 2 && c.tree().len() == 2);
    wait_settled(&[&a, &b, &c]);
}

#[test]
fn a_folder_is_accepted_before_or_after_it_is_offered() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    a.trusts(&b);
    b.trusts(&a);
    a.serve();
    b.serve();
    a.wait_connected(&b);

    // Before: nothing is there yet, and it is remembered.
    let said = b.ok(&["folder", "accept", "early", lab.path("early-b").to_str().unwrap(), "--from", "a"]);
    assert!(said.contains("comes as soon as it is offered"), "{said}");
    std::fs::create_dir(lab.path("early-a")).unwrap();
    std::fs::write(lab.path("early-a/file"), "early").unwrap();
    a.ok(&["folder", "add", lab.path("early-a").to_str().unwrap(), "--name", "early", "--share", "b"]);
    wait_until("the early one is here", || std::fs::read(lab.path("early-b/file")).is_ok_and(|text| text == b"early"));

    // After, with a daemon that ends and begins in between.
    std::fs::create_dir(lab.path("late-a")).unwrap();
    std::fs::write(lab.path("late-a/file"), "late").unwrap();
    a.ok(&["folder", "add", lab.path("late-a").to_str().unwrap(), "--name", "late", "--share", "b"]);
    wait_until("the late one is offered", || offers(&b) == 1);
    b.stop();
    b.serve();
    wait_until("it is offered again", || offers(&b) == 1);
    b.ok(&["folder", "accept", "late", lab.path("late-b").to_str().unwrap(), "--from", "a"]);
    wait_until("the late one is here", || std::fs::read(lab.path("late-b/file")).is_ok_and(|text| text == b"late"));
    b.wait();

    // Unshared: what is there stays, what comes later does not come.
    a.ok(&["folder", "unshare", "late", "b"]);
    wait_until("they share one folder", || {
        a.folder("late").members.iter().all(|member| member.name.as_deref() != Some("b") || !member.in_sync)
    });
    std::fs::write(lab.path("late-a/secret"), "not for b").unwrap();
    std::fs::write(lab.path("early-a/marker"), "for b").unwrap();
    wait_until("the other folder goes on", || lab.path("early-b/marker").exists());
    a.ok(&["folder", "scan", "late"]);
    b.ok(&["folder", "scan", "late"]);
    assert!(lab.path("late-b/file").exists() && !lab.path("late-b/secret").exists());
}

#[test]
fn a_device_that_is_removed_is_out_and_cannot_come_back() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    let c = lab.device("c");
    a.trusts(&c);
    c.trusts(&a);
    c.serve();
    a.ok(&["folder", "share", DATA, "c"]);
    c.ok(&["folder", "accept", DATA, c.root_text(), "--from", "a"]);
    a.write("before", "for all");
    wait_until("all have it", || b.has("before") && c.has("before"));
    wait_settled(&[&a, &b, &c]);

    a.ok(&["device", "remove", "b"]);
    wait_until("b is out", || !b.is_connected_to(&a));
    assert!(a.status().peers.iter().all(|peer| peer.name != "b"));
    a.write("after", "for c alone");
    wait_until("c has it", || c.has("after"));
    // It knocks again and is not answered; its own daemon says so, with what to do.
    wait_until("b says why", || {
        b.status().peers.iter().any(|p| p.name == "a" && p.last_error.as_ref().is_some_and(|e| e.contains("no answer")))
    });
    b.stop();
    b.serve();
    wait_until("b says why again", || {
        b.status().peers.iter().any(|p| p.name == "a" && !p.connected && p.last_error.is_some() && p.hint.is_some())
    });
    b.write("by-b", "not wanted");
    b.ok(&["folder", "scan", DATA]);
    a.write("marker", "for c");
    wait_until("c has the marker", || c.has("marker"));
    assert!(!b.has("after") && !a.has("by-b"));

    // Trusted again on both sides, it catches up.
    a.trusts(&b);
    a.ok(&["folder", "share", DATA, "b"]);
    wait_until("b is back and has caught up", || b.has("after") && c.has("by-b"));
    wait_settled(&[&a, &b, &c]);
}

#[test]
fn a_right_counts_from_the_moment_it_is_changed() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("before", "a");
    wait_settled(&[&a, &b]);
    a.ok(&["folder", "share", DATA, "b:reader"]);
    b.write("by-b", "b");
    wait_until("a refuses it", || a.cli(&["inbox", "--json"]).stdout.contains("by-b"));
    assert!(!a.has("by-b"));
    a.ok(&["folder", "share", DATA, "b:writer"]);
    wait_until("a takes it", || a.has("by-b"));
    wait_settled(&[&a, &b]);
}

#[test]
fn a_folder_that_rests_does_nothing_until_it_goes_on() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("before", "1");
    wait_settled(&[&a, &b]);
    std::fs::create_dir(lab.path("other-a")).unwrap();
    a.ok(&["folder", "add", lab.path("other-a").to_str().unwrap(), "--name", "other", "--share", "b"]);
    b.ok(&["folder", "accept", "other", lab.path("other-b").to_str().unwrap(), "--from", "a"]);

    b.ok(&["folder", "pause", DATA]);
    assert_eq!(b.folder(DATA).state.as_str(), "paused");
    a.write("while-paused", "a");
    b.write("by-b-while-paused", "b");
    std::fs::write(lab.path("other-a/marker"), "m").unwrap();
    wait_until("the other folder goes on", || lab.path("other-b/marker").exists());
    a.ok(&["folder", "scan", DATA]);
    assert!(!b.has("while-paused") && !a.has("by-b-while-paused"));
    // A restart does not wake it.
    b.stop();
    b.serve();
    b.wait_connected(&a);
    assert_eq!(b.folder(DATA).state.as_str(), "paused");

    b.ok(&["folder", "resume", DATA]);
    wait_until("both have both", || b.has("while-paused") && a.has("by-b-while-paused"));
    wait_settled(&[&a, &b]);
    // And the same on the other side, with a connection that stands all the time.
    a.ok(&["folder", "pause", DATA]);
    b.write("again", "b");
    b.ok(&["folder", "scan", DATA]);
    a.ok(&["folder", "resume", DATA]);
    wait_until("a has it", || a.has("again"));
    wait_settled(&[&a, &b]);
}
