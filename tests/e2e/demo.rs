//! `kinfold demo`, unattended.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::lab::{Lab, wait_until};

#[test]
fn the_demo_runs_to_its_end_and_leaves_nothing() {
    let lab = Lab::new();
    let temp = lab.path("tmp");
    std::fs::create_dir(&temp).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kinfold"))
        .args(["demo", "--yes"])
        .env_clear()
        .env("TMPDIR", &temp)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for part in
        [".conflict-", "kinfold conflicts", "kinfold restore", "restored 1 file", "0 B were sent", "kinfold pair"]
    {
        assert!(stdout.contains(part), "`{part}` is missing:\n{stdout}");
    }
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "the demo cleans up behind itself");
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing_either() {
    let lab = Lab::new();
    let temp = lab.path("tmp");
    std::fs::create_dir(&temp).unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_kinfold"))
        .args(["demo", "--yes"])
        .env_clear()
        .env("TMPDIR", &temp)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the demo has a running daemon", || {
        let dirs = std::fs::read_dir(&temp).unwrap();
        dirs.flatten().any(|dir| dir.path().join("laptop/home/kinfold.sock").exists())
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&demo), rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    demo.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0);
}
