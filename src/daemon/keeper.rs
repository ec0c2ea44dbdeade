//! The keeper: the small process that a person or the system starts, and that has the daemon as its child.
//!
//! What confines a daemon (`sandbox`) cannot be loosened, not even by `execve`. So a folder that is added
//! later needs a new process, and somebody outside to start it. The keeper is that somebody. Once it runs it
//! reads no file, talks to no peer and has no thread but one that asks how the daemon does. It holds what must not
//! vanish in between: the process id that the system knows, and the control socket, in whose queue clients
//! wait until the next daemon takes them.
//!
//! Neither outlives the other: where the keeper dies, the kernel ends the daemon.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::file::create_private_dir;
use crate::config::paths::Paths;
use crate::control::client::Client;
use crate::daemon::{DYING_PATIENCE, LOCK_PATIENCE, control, lock, sandbox};

/// The exit code of a daemon that wants to be started again, with what its configuration says now.
pub const AGAIN: u8 = 75;
/// How often a daemon that does not answer yet is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Runs daemons, one after the other, until one ends for good. Returns its exit code.
///
/// `args` are the arguments of this program that make it the daemon itself; its process id goes after them. What
/// the daemon logs goes to `log`, or to where this process says what goes wrong.
///
/// # Errors
/// Another daemon runs, or the system does not allow to start one. Each says what to do.
pub fn keep(paths: &Paths, args: &[OsString], log: Option<&File>) -> anyhow::Result<u8> {
    create_private_dir(&paths.state_dir).with_context(|| format!("cannot use {}", paths.state_dir.display()))?;
    let _lock = lock(paths, "daemon.lock", LOCK_PATIENCE)?;
    let socket = bind(&paths.socket).with_context(|| format!("cannot use {}", paths.socket.display()))?;
    sandbox::process::harden_keeper();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no threads")?;
    let code = runtime.block_on(async {
        // Taken before the first child, so that no signal is missed.
        let mut signals = Signals::take()?;
        attend(&paths.socket);
        loop {
            let child = spawn(args, &socket, &paths.state_dir, log).context("cannot start the daemon")?;
            match signals.wait(child).await? {
                Some(AGAIN) => {}
                code => return anyhow::Ok(code),
            }
        }
    });
    std::fs::remove_file(&paths.socket).ok();
    match code? {
        Some(code) => Ok(code),
        None => Ok(0),
    }
}

/// Takes the control socket. There is no other keeper; but the daemon of one that was killed may be dying
/// and hold it a moment longer.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    let until = Instant::now() + DYING_PATIENCE;
    loop {
        match control::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(ASK_PAUSE);
            }
            bound => return bound.map(OwnedFd::from),
        }
    }
}

fn spawn(args: &[OsString], socket: &OwnedFd, state_dir: &Path, log: Option<&File>) -> io::Result<Child> {
    let log = log.map(File::try_clone).transpose()?;
    // The very file that runs here, also after it was replaced by a newer one.
    Command::new("/proc/self/exe")
        .args(args)
        .arg(std::process::id().to_string())
        // The control socket takes the place of standard output, where a daemon says nothing.
        .stdout(Stdio::from(socket.try_clone()?))
        .stderr(log.map_or_else(Stdio::inherit, Stdio::from))
        // Where SQLite would put what does not fit into memory: inside what the daemon may write to.
        .env("SQLITE_TMPDIR", state_dir)
        // The service manager hears the keeper alone.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .spawn()
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Waits until the daemon has ended, and hands on what it is to know. Returns its exit code, or `None`
    /// where it was ended because somebody asked twice.
    async fn wait(&mut self, mut child: Child) -> anyhow::Result<Option<u8>> {
        let pid = Pid::from_child(&child);
        let mut is_stopping = false;
        loop {
            if let Some(status) = child.try_wait()? {
                return code_of(status, is_stopping);
            }
            let signal = tokio::select! {
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.hangup.recv() => Signal::HUP,
                _ = self.child.recv() => continue,
            };
            if signal == Signal::HUP {
                tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]);
            } else {
                tell(&[NotifyState::Stopping]);
            }
            // Whoever asks twice does not want to wait.
            let signal = if is_stopping && signal != Signal::HUP { Signal::KILL } else { signal };
            is_stopping |= signal != Signal::HUP;
            // It may have ended a moment ago, which the next look shows.
            kill_process(pid, signal).ok();
            if signal == Signal::HUP {
                tell(&[NotifyState::Ready]);
            }
        }
    }
}

/// Returns how a daemon ended, or says what ended it.
fn code_of(status: ExitStatus, is_stopping: bool) -> anyhow::Result<Option<u8>> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(Some(code as u8)),
        (None, _) if is_stopping => Ok(None),
        (None, Some(signal)) if signal == Signal::SYS.as_raw() => {
            bail!("the daemon was ended by its sandbox, for it did what it never does; please report that with its log")
        }
        (None, signal) => bail!("the daemon was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// Tells the service manager, where there is one.
fn tell(what: &[NotifyState<'_>]) {
    // One that does not listen is none.
    sd_notify::notify(what).ok();
}

/// Tells the service manager that the daemon answers, and goes on to tell it while that is so.
///
/// What is asked goes through all of the daemon that could hang and waits for no disk, so that one that
/// only has much to do is not taken for one that is stuck.
fn attend(socket: &Path) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let (socket, period) = (socket.to_owned(), sd_notify::watchdog_enabled().map(|period| period / 3));
    thread::spawn(move || {
        let Ok(client) = Client::new(&socket) else { return };
        let mut was_ready = false;
        loop {
            match client.offers() {
                Ok(_) if !was_ready => {
                    was_ready = true;
                    tell(&[NotifyState::Ready, NotifyState::Watchdog]);
                }
                Ok(_) => tell(&[NotifyState::Watchdog]),
                Err(_) => {
                    thread::sleep(ASK_PAUSE);
                    continue;
                }
            }
            let Some(period) = period else { return };
            thread::sleep(period);
        }
    });
}
