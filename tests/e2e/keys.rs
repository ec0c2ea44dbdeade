//! Devices whose identity is locked, or comes from a service manager: they are set up, pair, sync and begin again.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kinfold::keys::identity::Identity;
use kinfold::keys::key_file::{KeyFile, open_locked};
use kinfold::keys::passphrase::Passphrase;

use crate::confined::{Pids, add_folder_beyond, has_files, pids};
use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};
use crate::live::OnTerminal;
use crate::pairing::Host;
use crate::puppet::id_of;

const PASSPHRASE: &str = "correct horse battery";

/// Runs a command with a text in its standard input; it has to do what it is asked.
fn with_stdin(device: &Device, args: &[&str], text: &str) {
    assert_eq!(code_with_stdin(device, args, text), 0, "{args:?}");
}

/// The same, and returns its exit code.
fn code_with_stdin(device: &Device, args: &[&str], text: &str) -> i32 {
    let mut child = device.command(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait().unwrap().code().unwrap()
}

fn lock(device: &Device) {
    with_stdin(device, &["key", "lock", "--stdin"], &format!("{PASSPHRASE}\n"));
}

/// Makes a directory such as systemd hands credentials over in.
fn credentials(lab: &Lab, name: &str, content: &[u8]) -> PathBuf {
    let dir = lab.path(&format!("credentials-{name}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), content).unwrap();
    dir
}

fn given(command: &mut Command, credentials: &Path) {
    command.env("CREDENTIALS_DIRECTORY", credentials);
}

/// Says how often a process has some bytes in memory that it may write to; `None` where that cannot be seen, as it
/// should be for all but root.
fn occurrences(pid: u32, bytes: &[u8]) -> Option<usize> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (begin, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [begin, end] = [begin, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut held = vec![0; (end - begin) as usize];
        // Some of what the kernel maps cannot be read.
        if memory.read_exact_at(&mut held, begin).is_ok() {
            let starts = held.iter().enumerate().filter(|(_, byte)| **byte == bytes[0]);
            found += starts.filter(|(at, _)| held[*at..].starts_with(bytes)).count();
        }
    }
    Some(found)
}

/// Checks of each process of a device that it holds the key and not what must not be kept.
fn check_memory(device: &Device, identity: &Identity, gone: &[(&str, &[u8])]) {
    let Pids { first, keeper, daemon } = pids(device);
    let Some(keys) = occurrences(daemon, identity.private_key().as_slice()) else {
        assert!(!rustix::process::geteuid().is_root());
        eprintln!("only root can look into a daemon: its memory was not looked at");
        return;
    };
    assert!(keys > 0, "its key was not found, so that nothing else would be");
    for pid in [first, keeper, daemon] {
        for (what, bytes) in gone {
            assert_eq!(occurrences(pid, bytes), Some(0), "{what} in {pid} of {first}, {keeper} and {daemon}");
        }
    }
}

#[test]
fn a_locked_device_pairs_and_syncs_and_begins_again_with_its_passphrase_as_a_credential() {
    let lab = Lab::new();
    let (a, b) = (lab.device("a"), lab.device("b"));
    let file = a.home.join("state/identity");
    let (identity, seed) = (Identity::open(&file).unwrap(), fs::read(&file).unwrap());
    lock(&a);
    assert!(!fs::read(&file).unwrap().windows(32).any(|bytes| bytes == seed));
    let dir = credentials(&lab, "kinfold.passphrase", PASSPHRASE.as_bytes());

    b.write("photo", "a photo");
    let host = Host::of(&b, &[b.root_text()]);
    let join = ["pair", "--yes", host.code(), a.root_text(), "--at", host.at()];
    let mut join = a.command(&join);
    given(&mut join, &dir);
    let output = join.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(host.outcome()["id"].as_str(), Some(&*identity.device_id().to_string()));

    a.serve_with(|command| given(command, &dir));
    b.serve();
    wait_until("the photo arrives", || a.read("photo").as_deref() == Some("a photo"));
    let gone: [(&str, &[u8]); 2] = [("the secret", &seed), ("the passphrase", PASSPHRASE.as_bytes())];
    check_memory(&a, &identity, &gone);

    // Nobody is asked again, and nothing is read again.
    fs::remove_dir_all(&dir).unwrap();
    if has_files(&a) {
        let before = pids(&a);
        let after = add_folder_beyond(&lab, &a);
        assert_ne!(before.daemon, after.daemon);
        check_memory(&a, &identity, &gone);
    }
    a.write("other", "written after that");
    wait_settled(&[&a, &b]);
    a.stop();
}

#[test]
fn a_locked_device_changes_its_key_while_it_runs_and_is_locked_as_before() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    lock(&a);
    let file = a.home.join("state/identity");
    let dir = credentials(&lab, "kinfold.passphrase", PASSPHRASE.as_bytes());
    a.serve_with(|command| given(command, &dir));
    b.serve();
    a.write("before", "written before");
    wait_settled(&[&a, &b]);
    b.stop();

    let former = id_of(&a);
    assert_eq!(a.cli(&["key", "rotate"]).code, 2, "nobody is here to be asked");
    let rotate = ["key", "rotate", "--stdin"];
    assert_eq!(code_with_stdin(&a, &rotate, "not it\n"), 6);
    assert!(!a.home.join("state/identity.next").exists());
    with_stdin(&a, &rotate, &format!("{PASSPHRASE}\n"));
    // From here on it has the next key by the present one, also when it is started anew.
    wait_until("the daemon has both", || a.status().rotation.is_some());
    let refused = a.cli(&["key", "unlock", "--stdin"]);
    assert!(refused.code == 1 && refused.stderr.contains("the key of this device is being changed"), "{refused:?}");
    a.kill9();
    a.serve_with(|command| given(command, &dir));
    fs::remove_dir_all(&dir).unwrap();
    b.serve();
    wait_until("it has its next key", || id_of(&a) != former);
    a.write("after", "written after that");
    wait_settled(&[&a, &b]);

    let KeyFile::Locked(sealed) = KeyFile::read(&file).unwrap() else { panic!("it is not locked any more") };
    let passphrase = Passphrase::read_line(&mut PASSPHRASE.as_bytes()).unwrap();
    let identity = open_locked(&sealed, &passphrase, &file).unwrap();
    assert_eq!(identity.device_id(), id_of(&a));
    check_memory(&a, &identity, &[("the passphrase", PASSPHRASE.as_bytes())]);
    if has_files(&a) {
        add_folder_beyond(&lab, &a);
        assert_eq!(a.status().device.id, identity.device_id(), "the keeper starts it as who it is now");
    }
    a.stop();
    let dir = credentials(&lab, "kinfold.passphrase", PASSPHRASE.as_bytes());
    a.serve_with(|command| given(command, &dir));
    b.write("again", "written at last");
    wait_settled(&[&a, &b]);
}

#[test]
fn an_identity_that_is_locked_while_the_daemon_runs_matters_at_the_next_start_alone() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA]);
    a.serve();
    let seed = fs::read(a.home.join("state/identity")).unwrap();
    let identity = Identity::open(&a.home.join("state/identity")).unwrap();
    check_memory(&a, &identity, &[("the secret", &seed)]);
    lock(&a);
    if has_files(&a) {
        add_folder_beyond(&lab, &a);
    }
    assert_eq!(a.id(), identity.device_id().to_string());
    a.stop();
    let refused = a.cli(&["serve"]);
    assert_eq!(refused.code, 6, "{refused:?}");
}

#[test]
fn whoever_starts_it_on_a_terminal_is_asked_and_what_is_typed_is_not_shown() {
    let lab = Lab::new();
    let a = lab.device("a");
    lock(&a);
    for args in [&["serve"][..], &["up", a.root_text()]] {
        let mut terminal = OnTerminal::start(a.command(args), 80, 24);
        wait_until("it asks", || terminal.text().contains("Passphrase of this device: "));
        terminal.press("not it\n");
        wait_until("it asks again", || terminal.text().contains("That is not it."));
        terminal.press(&format!("{PASSPHRASE}\n"));
        wait_until("the daemon answers", || a.status_now().is_some());
        assert!(!terminal.text().contains(PASSPHRASE) && !terminal.text().contains("not it\r"), "{}", terminal.text());
        a.client().shutdown().unwrap();
        assert!(terminal.child.wait().unwrap().success(), "{}", terminal.text());
    }
    // Ctrl-C is no passphrase, and the terminal shows again what is typed.
    let mut terminal = OnTerminal::start(a.command(&["serve"]), 80, 24);
    wait_until("it asks", || terminal.text().contains("Passphrase of this device: "));
    assert!(!terminal.shows_what_is_typed());
    terminal.press("\u{3}");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(6));
    assert!(terminal.shows_what_is_typed());
}

#[test]
fn a_passphrase_is_put_on_at_a_terminal_when_it_was_typed_twice() {
    let lab = Lab::new();
    let a = lab.device("a");
    let answer = |second: &str| {
        let mut terminal = OnTerminal::start(a.command(&["key", "lock"]), 80, 24);
        wait_until("it asks", || terminal.text().contains("New passphrase: "));
        terminal.press(&format!("{PASSPHRASE}\n"));
        wait_until("it asks again", || terminal.text().contains("The same again: "));
        terminal.press(second);
        (terminal.child.wait().unwrap().code().unwrap(), terminal)
    };
    let (code, terminal) = answer("correct horse batteri\n");
    assert_eq!(code, 1);
    wait_until("it says why", || terminal.text().contains("the two are not the same"));
    assert!(a.ok(&["key", "status"]).contains("no; `kinfold key lock`"));
    assert_eq!(answer(&format!("{PASSPHRASE}\n")).0, 0);
    assert!(a.ok(&["key", "status"]).contains("with a passphrase"));
}

#[test]
fn an_identity_that_is_a_credential_needs_no_file() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA]);
    let (id, file) = (a.id(), a.home.join("state/identity"));
    let dir = credentials(&lab, "kinfold.identity", &fs::read(&file).unwrap());
    fs::remove_file(&file).unwrap();
    a.serve_with(|command| given(command, &dir));
    assert_eq!(a.id(), id, "the daemon knows it");
    if has_files(&a) {
        add_folder_beyond(&lab, &a);
        assert_eq!(a.id(), id);
    }
    let refused = a.cli(&["key", "rotate"]);
    assert!(refused.code == 1 && refused.stderr.contains("is a credential"), "{refused:?}");
    a.stop();
    assert_eq!(a.cli(&["id"]).code, 1);
    // Nothing makes another one.
    let mut init = a.command(&["init"]);
    given(&mut init, &dir);
    let output = init.output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(&id), "{output:?}");
    assert!(!file.exists());
    // Two are one too many.
    a.ok(&["init"]);
    assert_ne!(a.id(), id);
    let mut serve = a.command(&["serve"]);
    given(&mut serve, &dir);
    let output = serve.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is the identity of another device"), "{output:?}");
}
