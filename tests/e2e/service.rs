//! What a service manager hears of a daemon, as systemd would.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{AMPLE, Lab, wait_until};

/// Waits for a message that holds `line`.
fn wait_for(socket: &UnixDatagram, line: &str) {
    let begun = Instant::now();
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while begun.elapsed() < AMPLE {
        if let Ok(len) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            let is_it = text.lines().any(|said| said == line);
            heard.push(text);
            if is_it {
                return;
            }
        }
    }
    panic!("{line} was not said: {heard:?}");
}

#[test]
fn a_service_manager_is_told_that_the_daemon_is_ready_lives_reloads_and_stops() {
    let lab = Lab::new();
    let a = lab.device("a");
    let path = lab.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut command = a.command(&["serve"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    wait_for(&socket, "READY=1");
    assert!(a.status_now().is_some(), "it said so too early");
    for _ in 0..3 {
        wait_for(&socket, "WATCHDOG=1");
    }
    // A daemon that hangs is not said to live.
    kill_process(pid, Signal::STOP).unwrap();
    wait_until("no word comes any more", || {
        let begun = Instant::now();
        let mut buffer = [0; 4096];
        while begun.elapsed() < Duration::from_secs(2) {
            if socket.recv(&mut buffer).is_ok() {
                return false;
            }
        }
        true
    });
    kill_process(pid, Signal::CONT).unwrap();
    wait_for(&socket, "WATCHDOG=1");

    kill_process(pid, Signal::HUP).unwrap();
    wait_for(&socket, "RELOADING=1");
    wait_for(&socket, "READY=1");
    kill_process(pid, Signal::TERM).unwrap();
    wait_for(&socket, "STOPPING=1");
    wait_until("it ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    assert!(!a.home.join("kinfold.sock").exists());
}

#[test]
fn a_daemon_that_is_stopped_while_it_starts_ends_in_order() {
    let lab = Lab::new();
    let a = lab.device("a");
    for number in 0..60 {
        let root = lab.path(&format!("roots/{number}"));
        std::fs::create_dir_all(&root).unwrap();
        a.ok(&["folder", "add", root.to_str().unwrap(), "--name", &number.to_string()]);
    }
    a.serve();
    a.stop();
    assert!(a.log_text().contains("stopping"), "{}", a.log_tail());
}
