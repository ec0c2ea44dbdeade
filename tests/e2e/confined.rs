//! What a daemon took from itself before it listened to anybody, seen from outside.
//!
//! Where the kernel lacks Landlock or `strace` is missing, the tests that need them say so and do nothing,
//! unless `KINFOLD_NEED_LANDLOCK` or `KINFOLD_NEED_STRACE` is set, as `.ci/run` does with the latter.

use std::fs;
use std::process::{Command, Stdio};

use kinfold::control::client::ControlError;
use kinfold::control::types::{RawPath, Restore};

use crate::lab::{DATA, Device, Lab, wait_settled, wait_until};

/// Returns whether files are bounded in this daemon; where they are not, the kernel has to be the reason.
pub fn has_files(device: &Device) -> bool {
    let sandbox = device.status().sandbox;
    let has = sandbox.in_force.iter().any(|part| part == "files");
    if !has {
        assert!(sandbox.missing.iter().any(|why| why.contains("the kernel has no Landlock")), "{sandbox:?}");
        assert!(std::env::var_os("KINFOLD_NEED_LANDLOCK").is_none(), "this kernel has no Landlock");
        eprintln!("this kernel has no Landlock: files were not tried");
    }
    has
}

/// The processes of a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pids {
    /// What was started.
    pub first: u32,
    /// Its child.
    pub keeper: u32,
    /// The daemon: the first one, or the keeper's child.
    pub daemon: u32,
}

pub fn pids(device: &Device) -> Pids {
    let child = |of: u32| {
        let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
        children.trim().parse().ok()
    };
    let first = device.pid();
    let keeper = child(first).unwrap();
    Pids { first, keeper, daemon: child(keeper).unwrap_or(first) }
}

fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Adds a folder that the daemon cannot reach, and waits until one runs that can.
pub fn add_folder_beyond(lab: &Lab, device: &Device) -> Pids {
    let beyond = lab.path("beyond");
    fs::create_dir(&beyond).unwrap();
    device.ok(&["folder", "add", beyond.to_str().unwrap(), "--name", "beyond"]);
    wait_until("it can reach the folder", || {
        device.status_now().is_some_and(|status| status.sandbox.places.iter().any(|place| place.0 == beyond))
    });
    pids(device)
}

fn line_of(pid: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).trim_start_matches(name).trim().to_owned()
}

#[test]
fn a_daemon_gives_up_what_it_does_not_need_and_says_so() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.ok(&["folder", "add", a.root_text(), "--name", DATA]);
    a.serve();
    let sandbox = a.status().sandbox;
    assert_eq!(sandbox.mode, "on");
    for part in ["memory dumps", "privileges", "system calls"] {
        assert!(sandbox.in_force.iter().any(|in_force| in_force == part), "{sandbox:?}");
    }
    let Pids { keeper, daemon, .. } = pids(&a);
    assert_eq!(line_of(daemon, "status", "NoNewPrivs:"), "1");
    assert_eq!(line_of(keeper, "status", "NoNewPrivs:"), "1");
    assert_eq!(line_of(daemon, "status", "Seccomp:"), "2");
    // The soft limit and the hard one.
    let limits = line_of(daemon, "limits", "Max core file size");
    assert_eq!(limits.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    // Of root's capabilities it keeps two over files: dac_override (bit 1) and fowner (bit 3).
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        let bits = u64::from_str_radix(&line_of(daemon, "status", set), 16).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert!(bits & !0b1010 == 0 || (set == "CapBnd:" && !is_root), "{set} {bits:x}");
    }
    let shown = a.ok(&["status"]);
    assert!(shown.contains("confined: memory dumps, privileges"), "{shown}");
    let checked = a.cli(&["doctor"]);
    assert!(checked.stdout.contains("sandbox: the daemon is"), "{checked:?}");
    a.stop();
    assert!(!a.home.join("kinfold.sock").exists());
}

#[test]
fn a_daemon_reaches_no_file_but_its_own_and_its_folders() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("f", "first");
    wait_settled(&[&a, &b]);
    a.write("f", "second!");
    wait_until("b has the second", || b.read("f").as_deref() == Some("second!"));
    wait_settled(&[&a, &b]);
    if !has_files(&b) {
        return;
    }
    // Somebody who has the socket asks it to write elsewhere.
    let outside = lab.path("outside");
    let wish = |to: RawPath| Restore { path: RawPath(b.at("f")), at: None, to: Some(to), dry_run: false, from: None };
    let refused = b.client().restore(&wish(RawPath(outside.clone())));
    assert!(matches!(refused, Err(ControlError::Refused(_))), "{refused:?}");
    assert!(!outside.exists());
    let inside = b.home.join("state/out");
    b.client().restore(&wish(RawPath(inside.clone()))).unwrap();
    assert_eq!(fs::read_to_string(inside).unwrap(), "first");
    // The command line can what its person can.
    b.ok(&["restore", &b.text("f"), "--to", outside.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(outside).unwrap(), "first");
}

#[test]
fn a_folder_that_is_added_later_begins_the_daemon_again_under_the_same_process_id() {
    let lab = Lab::new();
    let (a, b) = lab.running_pair();
    a.write("f", "f");
    wait_settled(&[&a, &b]);
    let before = pids(&b);
    let more = [&a, &b].map(|device| device.home.join("../more"));
    for dir in &more {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(if dir == &more[0] { "of a" } else { "of b" }), "x").unwrap();
    }
    a.ok(&["folder", "add", more[0].canonicalize().unwrap().to_str().unwrap(), "--name", "more", "--share", "b"]);
    b.ok(&["folder", "accept", "more", more[1].canonicalize().unwrap().to_str().unwrap(), "--from", "a"]);
    // No command comes too early.
    assert_eq!(a.folder("more").name, "more");
    wait_until("both sides hold it", || more.iter().all(|dir| dir.join("of a").exists() && dir.join("of b").exists()));
    a.write("g", "the old one goes on");
    wait_settled(&[&a, &b]);
    let after = pids(&b);
    assert_eq!((before.first, before.keeper), (after.first, after.keeper));
    assert_eq!(before.daemon, before.first);
    if has_files(&b) {
        assert_ne!(after.daemon, after.first, "{}", b.log_tail());
        assert!(b.status().sandbox.places.iter().any(|place| place.as_path().ends_with("more")));
    }
    assert!(b.runs() && a.runs());
}

#[test]
fn a_disk_that_is_mounted_late_is_reached() {
    let lab = Lab::new();
    let (a, b) = lab.pair();
    let away = lab.path("away");
    a.serve();
    b.serve();
    a.write("f", "f");
    wait_settled(&[&a, &b]);
    b.stop();
    fs::rename(&b.root, &away).unwrap();
    b.serve();
    wait_until("the folder is stopped", || b.folder(DATA).state.as_str() == "stopped");
    a.write("g", "meanwhile");
    fs::rename(&away, &b.root).unwrap();
    b.cli(&["folder", "scan", DATA]);
    wait_until("it goes on", || b.has("g"));
    wait_settled(&[&a, &b]);
}

/// Runs a daemon on a kernel that has not what `calls` ask for; returns what it said once it ended, or
/// `None` where `strace` is missing.
fn without(device: &Device, calls: &str, args: &[&str]) -> Option<(Option<i32>, String)> {
    let has_strace = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !has_strace {
        assert!(std::env::var_os("KINFOLD_NEED_STRACE").is_none(), "strace is missing");
        eprintln!("strace is missing: nothing was tried");
        return None;
    }
    let log = fs::File::create(&device.log).unwrap();
    let inject = format!("inject={calls}:error=ENOSYS");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject]);
    let plain = device.command(&[&["serve"], args].concat());
    strace.arg(plain.get_program()).args(plain.get_args()).env("HOME", &device.home);
    let mut child = strace.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut status = None;
    wait_until("it has begun or ended", || {
        status = child.try_wait().unwrap();
        status.is_some() || device.status_now().is_some()
    });
    if status.is_none() {
        let said = device.status().sandbox;
        device.client().shutdown().unwrap();
        child.wait().unwrap();
        return Some((None, format!("{said:?}\n{}", device.log_text())));
    }
    Some((status.and_then(|status| status.code()), device.log_text()))
}

#[test]
fn a_kernel_without_landlock_is_told_and_refused_where_a_sandbox_is_required() {
    let lab = Lab::new();
    let a = lab.device("a");
    let Some((code, said)) = without(&a, "landlock_create_ruleset", &[]) else { return };
    assert_eq!(code, None, "{said}");
    assert!(said.contains("WARN not confined by files: the kernel has no Landlock"), "{said}");
    assert!(said.contains("system calls"), "{said}");
    let (code, said) = without(&a, "landlock_create_ruleset", &["--require-sandbox"]).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("error: a sandbox is required and cannot be had whole: files: "), "{said}");
    let (code, said) = without(&a, "seccomp,prctl", &["--require-sandbox"]).unwrap();
    assert_eq!(code, Some(1), "{said}");
    // The configuration can ask for it, too.
    let config = a.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("sandbox = \"required\"\n{text}")).unwrap();
    let (code, said) = without(&a, "landlock_create_ruleset", &[]).unwrap();
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn whoever_ends_the_first_process_has_ended_all_of_them() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.serve();
    let Pids { first, keeper, daemon } = pids(&a);
    assert_eq!(first, daemon);
    a.kill9();
    // The daemon is not dying somewhere still when its end is told.
    assert!(is_gone(daemon));
    wait_until("its keeper is gone", || is_gone(keeper));

    a.serve();
    if !has_files(&a) {
        return;
    }
    let Pids { first, keeper, daemon } = add_folder_beyond(&lab, &a);
    assert_ne!(first, daemon);
    a.kill9();
    wait_until("the others are gone", || is_gone(keeper) && is_gone(daemon));
    a.serve();
    a.stop();
    assert!(!a.home.join("kinfold.sock").exists());
}

#[test]
fn a_later_daemon_is_stopped_and_reloads_by_the_first_process_and_the_keeper_tells_what_ended_it() {
    let lab = Lab::new();
    let a = lab.device("a");
    a.serve();
    if !has_files(&a) {
        return;
    }
    let Pids { first, daemon, .. } = add_folder_beyond(&lab, &a);
    let config = a.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("nonsense = 1\n{text}")).unwrap();
    signal(first, rustix::process::Signal::HUP);
    wait_until("it has read its configuration", || a.log_text().contains("the configuration is not valid"));
    fs::write(&config, text).unwrap();
    a.stop();
    assert!(is_gone(daemon) && !a.home.join("kinfold.sock").exists());

    a.serve();
    fs::create_dir(lab.path("further")).unwrap();
    a.ok(&["folder", "add", lab.path("further").to_str().unwrap(), "--name", "further"]);
    wait_until("the keeper's daemon runs", || {
        let pids = pids(&a);
        pids.daemon != pids.first && a.status_now().is_some()
    });
    signal(pids(&a).daemon, rustix::process::Signal::ABORT);
    wait_until("all end", || !a.runs());
    assert!(a.log_text().contains("error: the daemon was ended by signal 6"), "{}", a.log_tail());
}
