//! Rates and rests between real daemons. Only the least time that something takes is looked at, never the most.

use std::time::{Duration, Instant};

use kinfold::control::types::FolderState;

use crate::lab::{DATA, Lab, noise, wait_settled, wait_until};

const MIB: usize = 1 << 20;

/// Has a file of 6 MiB go from a to b with 2 MiB a second set at one of them, and returns how long it took.
fn transfer(limit_at_a: &[&str], limit_at_b: &[&str]) -> Duration {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("small", "before");
    wait_settled(&[&a, &b]);
    for (device, limit) in [(&a, limit_at_a), (&b, limit_at_b)] {
        if !limit.is_empty() {
            device.ok(&[&["limit"], limit].concat());
        }
    }
    let begun = Instant::now();
    a.write("large", noise(1, 6 * MIB));
    wait_until("the file is there", || b.has("large"));
    let took = begun.elapsed();
    wait_settled(&[&a, &b]);
    took
}

#[test]
fn what_is_sent_with_a_limit_arrives_whole_and_takes_its_time() {
    // A tenth of a second is saved up, and the last record does not wait.
    let least = Duration::from_millis(2800);
    for limit in
        [&["--send", "2 MiB/s"][..], &["--send", "2 MiB/s", "--folder", DATA], &["--send", "2 MiB/s", "--device", "b"]]
    {
        let took = transfer(limit, &[]);
        assert!(took >= least, "{limit:?}: {took:?}");
    }
}

#[test]
fn what_is_received_with_a_limit_arrives_whole_and_takes_its_time() {
    // The last request, for 1 MiB, is answered at once.
    let least = Duration::from_millis(2300);
    for limit in [&["--receive", "2 MiB/s"][..], &["--receive", "16 Mbit/s", "--folder", DATA]] {
        let took = transfer(&[], limit);
        assert!(took >= least, "{limit:?}: {took:?}");
    }
}

#[test]
fn a_small_change_goes_ahead_of_a_large_file_and_a_limit_that_is_lifted_counts_at_once() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.ok(&["limit", "--send", "64 KiB/s"]);
    assert_eq!(a.status().rates.send_bytes, Some(64 << 10));
    assert!(a.ok(&["status"]).contains("sends 64.00 KiB/s at most"));
    a.wait_connected(&b);
    // Which takes four minutes at that rate.
    a.write("large", noise(2, 16 * MIB));
    wait_until("it is on its way", || a.folder(DATA).sent_bytes > 0);
    a.write("small", "now");
    wait_until("the small one is there", || b.read("small").as_deref() == Some("now"));
    assert!(!b.has("large"));
    a.ok(&["limit", "--send", "off"]);
    assert_eq!(a.status().rates.send_bytes, None);
    wait_settled(&[&a, &b]);
}

#[test]
fn a_pause_with_an_end_survives_a_restart_and_ends_by_itself() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("before", "x");
    wait_settled(&[&a, &b]);
    let begun = Instant::now();
    let said = a.ok(&["folder", "pause", DATA, "--for", "15s"]);
    assert!(said.contains("rests until"), "{said}");
    let is_paused = || {
        let folder = a.folder(DATA);
        folder.state == FolderState::Paused && folder.rests_until.is_some()
    };
    // Seconds are not counted by parts.
    let surely = Duration::from_secs(14);
    assert!(is_paused() || begun.elapsed() > surely);
    a.stop();
    a.serve();
    assert!(is_paused() || begun.elapsed() > surely);
    assert!(a.ok(&["status"]).contains("paused until") || begun.elapsed() > surely);
    a.write("meanwhile", "y");
    wait_until("it goes on by itself", || b.has("meanwhile"));
    assert!(begun.elapsed() > surely, "{:?}", begun.elapsed());
    wait_settled(&[&a, &b]);
    assert_eq!(a.folder(DATA).rests_until, None);
}

#[test]
fn outside_of_its_times_a_folder_takes_note_of_all_and_exchanges_nothing() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("before", "x");
    wait_settled(&[&a, &b]);
    // Some hours from now, by the clock of the daemons, whatever the hour is.
    let hour = i64::from(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).hour());
    let active = format!("active={:02}:00-{:02}:30", (hour + 8) % 24, (hour + 8) % 24);
    a.ok(&["folder", "set", DATA, &active]);
    let folder = a.folder(DATA);
    assert!(folder.state == FolderState::Resting && folder.rests_until.is_some() && !folder.in_sync, "{folder:?}");
    assert!(a.ok(&["status"]).contains("rests until"));
    let waited = a.cli(&["wait", DATA, "--timeout", "0"]);
    assert!(waited.code == 3 && waited.stderr.contains("rests until"), "{waited:?}");
    a.ok(&["wait", "--timeout", "0"]);

    a.write("here", "of a");
    b.write("there", "of b");
    wait_until("each takes note of its own", || a.folder(DATA).files == 2 && b.folder(DATA).files == 2);
    a.ok(&["folder", "scan", DATA]);
    a.ok(&["history", &a.text("before")]);
    assert!(a.is_connected_to(&b) && !a.has("there") && !b.has("here"));

    a.ok(&["folder", "set", DATA, "active=always"]);
    wait_until("they meet", || a.has("there") && b.has("here"));
    wait_settled(&[&a, &b]);
}
