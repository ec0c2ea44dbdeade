//! `kinfold demo`, unattended.

use std::process::{Command, Stdio};

use crate::lab::Lab;

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
        [".conflict-", "kinfold conflicts", "kinfold restore", "restored 1 file", "0 B were sent", "kinfold device add"]
    {
        assert!(stdout.contains(part), "`{part}` is missing:\n{stdout}");
    }
    assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "the demo cleans up behind itself");
}
