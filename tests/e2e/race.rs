//! Somebody swaps directories for links that lead out of the folder, as fast as it goes, while a sync writes, replaces
//! and removes below them. Nothing outside is touched.
//!
//! It takes a moment, or as many seconds as `KINFOLD_RACE` says.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::lab::{Lab, wait_until};

#[test]
fn a_race_of_links_that_lead_out_touches_nothing_outside() {
    let seconds = std::env::var("KINFOLD_RACE").ok().map_or(3, |text| text.parse().unwrap());
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    for dir in ["d", "f/e"] {
        a.write(&format!("{dir}/kept"), "as it is");
        a.write(&format!("{dir}/victim"), "first");
    }
    wait_until("it is there", || b.read("f/e/victim").is_some() && b.read("d/victim").is_some());
    // What the links lead to has just the names that are about to be written, replaced and removed.
    let outside = lab.path("outside");
    let canary = |at: &std::path::Path| {
        fs::create_dir_all(at.join("e")).unwrap();
        for dir in [at.to_owned(), at.join("e")] {
            for name in ["victim", "kept", "new0", "new1", "new2"] {
                fs::write(dir.join(name), "alive").unwrap();
            }
        }
    };
    canary(&outside);
    let before = listing(&outside);
    let (is_over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for (dir, spare) in [("d", "spare"), ("f/e", "f/spare")] {
            let (b, outside, is_over, swaps) = (&b, &outside, &is_over, &swaps);
            scope.spawn(move || {
                let target = if dir == "d" { outside.clone() } else { outside.join("e") };
                while !is_over.load(Ordering::Relaxed) {
                    // Either place may be the link at this moment, or have been made anew by the sync.
                    if fs::symlink_metadata(b.at(spare)).is_err() {
                        symlink(&target, b.at(spare)).ok();
                    }
                    if renameat_with(CWD, b.at(dir), CWD, b.at(spare), RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_micros(200));
                }
            });
        }
        let begun = Instant::now();
        let mut round = 0u32;
        while begun.elapsed() < Duration::from_secs(seconds) {
            for dir in ["d", "f/e"] {
                fs::create_dir_all(a.at(dir)).ok();
                fs::write(a.at(format!("{dir}/victim")), format!("round {round}")).ok();
                fs::write(a.at(format!("{dir}/new{}", round % 3)), format!("round {round}")).ok();
                fs::remove_file(a.at(format!("{dir}/new{}", (round + 1) % 3))).ok();
            }
            round += 1;
            thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let swaps = swaps.into_inner();
    println!("{swaps} swaps in {seconds} s");
    assert!(swaps > 100, "there was no race: {swaps} swaps");
    // What is still under way ends, too.
    b.ok(&["folder", "scan", crate::lab::DATA]);
    assert!(a.runs() && b.runs());
    assert_eq!(listing(&outside), before, "something outside of the folder was touched");
}

/// All that lies in a directory, with its content.
fn listing(dir: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(listing(&entry.path()));
        } else {
            found.push((entry.path(), fs::read_to_string(entry.path()).unwrap_or_default()));
        }
    }
    found.sort();
    found
}
