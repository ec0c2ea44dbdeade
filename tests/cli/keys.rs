//! `kinfold key`, and what a locked identity means to the other commands.

use std::fs;
use std::path::PathBuf;

use crate::Device;

const PASSPHRASE: &str = "correct horse battery";

fn identity(device: &Device) -> PathBuf {
    device.path("home/state/identity")
}

/// Runs a command with a text in its standard input.
fn with(device: &Device, text: &str, args: &[&str]) -> String {
    let output = device.command(args).write_stdin(text).output().unwrap();
    let seen = [&output.stdout[..], &output.stderr].concat();
    device.stable(&format!("exit {}\n{}", output.status.code().unwrap(), String::from_utf8_lossy(&seen)))
}

fn locked() -> Device {
    let device = Device::new();
    with(&device, &format!("{PASSPHRASE}\n"), &["key", "lock", "--stdin"]);
    device
}

#[test]
fn an_identity_is_locked_shown_changed_and_unlocked() {
    let device = Device::new();
    let plain = fs::read(identity(&device)).unwrap();
    sees!(device, ["key", "status"], @r#"
    exit 0
    --- stdout
    device  [id]
    file    [dir]/home/state/identity
    locked  no; `kinfold key lock` puts a passphrase on it
    "#);
    insta::assert_snapshot!(with(&device, &format!("{PASSPHRASE}\n"), &["key", "lock", "--stdin"]), @r#"
    exit 0
    the identity is locked; without the passphrase nobody can open it, you neither
    what lay there in the clear was overwritten; on flash memory it may remain all the same
    "#);
    sees!(device, ["key", "status"], @r#"
    exit 0
    --- stdout
    device  [id]
    file    [dir]/home/state/identity
    locked  with a passphrase (Argon2id, 256 MiB)
    "#);
    sees!(device, ["key", "status", "--json"], @r#"
    exit 0
    --- stdout
    {
      "device": "[id]",
      "path": "[dir]/home/state/identity",
      "locked": true,
      "credential": false,
      "memory_mib": 256
    }
    "#);
    // Who this device is needs no passphrase.
    sees!(device, ["id"], @r#"
    exit 0
    --- stdout
    [id]
    "#);
    device.ok(&["device", "add", &crate::laptop(), "--name", "laptop"]);
    insta::assert_snapshot!(with(&device, &format!("{PASSPHRASE}\nanother one, as long\n"), &["key", "change", "--stdin"]), @r#"
    exit 0
    the identity has another passphrase now; copies of the file still have the old one
    "#);
    insta::assert_snapshot!(with(&device, &format!("{PASSPHRASE}\n"), &["key", "unlock", "--stdin"]), @r#"
    exit 6
    error: cannot unlock the identity [dir]/home/state/identity: the passphrase is wrong
    hint: nothing was changed; upper and lower case count, and a file that was changed since it was locked never opens
    "#);
    insta::assert_snapshot!(with(&device, "another one, as long\n", &["key", "unlock", "--stdin"]), @r#"
    exit 0
    the identity is not locked any more: whoever has the file is this device
    "#);
    assert_eq!(fs::read(identity(&device)).unwrap(), plain);
}

#[test]
fn what_makes_no_sense_is_refused_before_anybody_is_asked() {
    let device = Device::bare();
    sees!(device, ["key", "lock"], @r#"
    exit 1
    --- stderr
    error: this device has no identity yet ([dir]/home/state/identity)
    hint: run `kinfold init` once on this device
    "#);
    let device = Device::new();
    sees!(device, ["key", "lock"], @r#"
    exit 2
    --- stderr
    error: nobody is here to be asked for a passphrase
    hint: run it on a terminal, or give the passphrase in the standard input and add --stdin
    "#);
    sees!(device, ["key", "unlock"], @r#"
    exit 1
    --- stderr
    error: the identity [dir]/home/state/identity is not locked
    hint: `kinfold key lock` puts a passphrase on it
    "#);
    insta::assert_snapshot!(with(&device, "seven c\n", &["key", "lock", "--stdin"]), @r#"
    exit 1
    error: the passphrase is too short: it has to have 8 characters
    hint: five words that nobody chose are good
    "#);
    insta::assert_snapshot!(with(&device, "", &["key", "lock", "--stdin"]), @r#"
    exit 1
    error: the standard input: there is no passphrase in it
    hint: the passphrase is the first line
    "#);
    assert_eq!(fs::read(identity(&device)).unwrap().len(), 32);
    let device = locked();
    sees!(device, ["key", "lock"], @r#"
    exit 1
    --- stderr
    error: the identity [dir]/home/state/identity is locked already
    hint: `kinfold key change` puts another passphrase on it
    "#);
}

#[test]
fn a_daemon_does_not_start_without_the_passphrase_and_says_what_to_do() {
    let device = locked();
    let before = fs::read(identity(&device)).unwrap();
    for command in [&["serve"][..], &["pair", "--yes"]] {
        insta::allow_duplicates! {
            insta::assert_snapshot!(with(&device, "", command), @r#"
            exit 6
            error: the identity [dir]/home/state/identity is locked, and nobody is here to be asked for its passphrase
            hint: give it by --passphrase-file, or in a service by the credential kinfold.passphrase; see kinfold-key(1)
            "#);
        }
    }
    insta::assert_snapshot!(with(&device, "wrong\n", &["serve", "--passphrase-file", "-"]), @r#"
    exit 6
    error: cannot unlock the identity [dir]/home/state/identity: the passphrase is wrong
    hint: nothing was changed; upper and lower case count, and a file that was changed since it was locked never opens
    "#);
    insta::assert_snapshot!(with(&device, "", &["serve", "--passphrase-file", "nowhere"]), @r#"
    exit 1
    error: nowhere: cannot read the passphrase: No such file or directory (os error 2)
    hint: name a file that holds the passphrase and that you may read
    "#);
    sees!(device, ["init", "--name", "other"], @r#"
    exit 1
    --- stderr
    error: this device is set up already: [dir]/home/config.toml
    hint: nothing was changed; to set it up differently, edit that file
    "#);
    assert_eq!(fs::read(identity(&device)).unwrap(), before);
}

#[test]
fn an_identity_that_is_damaged_or_asks_for_too_much_is_refused() {
    let device = locked();
    let text = fs::read_to_string(identity(&device)).unwrap();
    fs::write(identity(&device), &text[..text.len() - 10]).unwrap();
    sees!(device, ["id"], @r#"
    exit 1
    --- stderr
    error: [dir]/home/state/identity is not an identity: it should be a regular file of 32 bytes, or a locked identity, unchanged
    hint: bring the file back from a copy; or put it away and run `kinfold init`: then this is another device
    "#);
    fs::write(identity(&device), text.replace("memory=262144", "memory=104857600")).unwrap();
    insta::assert_snapshot!(with(&device, &format!("{PASSPHRASE}\n"), &["key", "unlock", "--stdin"]), @r#"
    exit 1
    error: cannot unlock the identity [dir]/home/state/identity: it asks for memory=104857600 passes=3 lanes=1, and no more is tried than memory=1048576 passes=16 lanes=4
    hint: nothing was changed; bring the file back from a copy
    "#);
    fs::write(identity(&device), text.replace("memory=262144", "memory=262143")).unwrap();
    let refused = with(&device, &format!("{PASSPHRASE}\n"), &["key", "unlock", "--stdin"]);
    assert!(refused.contains("the passphrase is wrong"), "{refused}");
}

#[test]
fn the_doctor_knows_what_a_thief_would_have_of_the_identity() {
    // Of a disk that is encrypted a thief has nothing either way.
    let told = |device: &Device| device.run(&["doctor"]).replace("has nothing without the passphrase", "");
    assert!(!told(&locked()).contains("their history and the identity"), "it is locked");
    let open = told(&Device::new());
    assert!(open.contains("their history and the identity") || open.contains("which is encrypted"), "{open}");
    // Nobody is trusted yet, so nothing is shown to the network.
    assert!(open.contains("discovery: rests: no device is trusted yet") && !open.contains("and beacons"), "{open}");
}
