//! The keeper: a small process that is not confined and can start a daemon.
//!
//! What confines a daemon (`sandbox`) cannot be loosened, not even by `execve`. So a folder that is added
//! later needs a new process, and somebody outside to start it. The keeper is that somebody. It reads no file,
//! talks to no peer and has no thread but one that asks how the daemon does.
//!
//! `kinfold serve` becomes the first daemon itself and has the keeper as its child, which stands by. So whoever
//! ends and waits for the process that it started has ended the daemon, wholly. Once that needs to begin again, it
//! gives up all it has and does nothing any more but pass on signals: the keeper starts the next daemon, and the
//! ones after that. What must not vanish in between stays: the process id that the system knows, and the control
//! socket, in whose queue clients wait until the next daemon takes them.
//!
//! `kinfold up`, which has a view to show and so is not alone in its process, is the keeper of its daemon from the
//! beginning.
//!
//! None outlives the one that it hangs on: the kernel sees to that.
//!
//! The identity is opened once, by what a person or the system has started: it may need a passphrase, and nobody is
//! there to be asked again. The private key goes from there to the keeper and on to each later daemon through a socket
//! between the two, never by arguments, environment or disk. So it does not matter either what becomes of the identity's
//! file meanwhile. The secret in that file, of which the key is derived, goes no further than the process that read it.
//! A daemon that is to begin again hands a key back, for the next one: another one where the device has changed its key.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use sd_notify::NotifyState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::config::file::create_private_dir;
use crate::config::paths::Paths;
use crate::control::client::Client;
use crate::daemon::{DYING_PATIENCE, LOCK_PATIENCE, ServeOptions, control, lock, sandbox, serve};
use crate::keys::identity::Identity;

/// The exit code of a daemon that wants to be started again, with what its configuration says now.
pub const AGAIN: u8 = 75;
/// How often a daemon that does not answer yet is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Where SQLite puts what does not fit into memory: that has to be inside what the daemon may write to.
const SQLITE_TMPDIR: &str = "SQLITE_TMPDIR";

/// What the first daemon tells its keeper, a byte each.
mod word {
    /// It begins an orderly end.
    pub const STOPPING: u8 = b's';
    /// It begins to read its configuration anew.
    pub const RELOADING: u8 = b'r';
    /// It has done so.
    pub const RELOADED: u8 = b'd';
    /// It needs to begin again: from now on the daemon is the keeper's. The private key of that follows.
    pub const AGAIN: u8 = b'a';
    /// Somebody wants the keeper's daemon to end, to be interrupted, to read its configuration anew.
    pub const TERMINATE: u8 = b'T';
    pub const INTERRUPT: u8 = b'I';
    pub const HANG_UP: u8 = b'H';
}

/// The line to a keeper that stands by.
#[derive(Debug)]
pub struct Line(UnixStream);

impl Line {
    pub fn stopping(&self) {
        self.say(word::STOPPING);
    }

    pub fn reloading(&self) {
        self.say(word::RELOADING);
    }

    pub fn reloaded(&self) {
        self.say(word::RELOADED);
    }

    fn say(&self, word: u8) {
        // A keeper that is gone is missed when it is needed.
        (&self.0).write_all(&[word]).ok();
    }
}

/// The private key of a device, on its way from one process to the next.
pub type PrivateKey = Zeroizing<[u8; 32]>;

/// Is the daemon until it ends, and then, where it needs to begin again, whoever waits for the next ones. Returns
/// the exit code. It must be the only thread of this process.
///
/// `as_keeper` are the arguments of this program that make it the keeper; our process id goes after them. `open` opens
/// the identity, once it is sure that it is needed, and may ask a person.
///
/// # Errors
/// Another daemon runs, this one cannot begin, or the system does not allow to start the keeper. Each says what to do.
/// And what `open` ends with.
pub fn serve_kept<E: From<anyhow::Error>>(
    paths: &Paths,
    options: ServeOptions,
    as_keeper: &[OsString],
    open: impl FnOnce() -> Result<Identity, E>,
) -> Result<u8, E> {
    begin_with_environment(paths)?;
    let _lock = hold_state(paths)?;
    let identity = open()?;
    Ok(serve_with(paths, options, as_keeper, identity)?)
}

/// Sees to it that SQLite puts its own files where a daemon may write.
fn begin_with_environment(paths: &Paths) -> anyhow::Result<()> {
    if std::env::var_os(SQLITE_TMPDIR).as_deref() != Some(paths.state_dir.as_os_str()) {
        // A process that may have threads cannot change its own environment, but begin anew with another.
        let mut anew = Command::new("/proc/self/exe");
        anew.args(std::env::args_os().skip(1)).env(SQLITE_TMPDIR, &paths.state_dir);
        return Err(anew.exec()).context("cannot start itself");
    }
    Ok(())
}

/// Keeps a second daemon off the same state, until the result is dropped.
fn hold_state(paths: &Paths) -> anyhow::Result<File> {
    create_private_dir(&paths.state_dir).with_context(|| format!("cannot use {}", paths.state_dir.display()))?;
    lock(paths, "daemon.lock", LOCK_PATIENCE)
}

fn serve_with(paths: &Paths, options: ServeOptions, as_keeper: &[OsString], identity: Identity) -> anyhow::Result<u8> {
    let socket = bind(&paths.socket).with_context(|| format!("cannot use {}", paths.socket.display()))?;
    let (ours, theirs) = UnixStream::pair().context("the system gives no sockets")?;
    // It waits there until the keeper takes it.
    (&ours).write_all(identity.private_key().as_slice()).context("the system gives no sockets")?;
    // It ends with us. Nobody waits for it by its id: it closes its end of the line.
    let mut keeper = command(as_keeper, &socket)?;
    keeper.stdin(Stdio::from(OwnedFd::from(theirs))).spawn().context("cannot start the keeper")?;
    drop(keeper);
    let line = Arc::new(Line(ours));
    let ended = serve(paths.clone(), options, identity, socket.into(), Some(line.clone()));
    let code = match ended {
        Ok(None) => Ok(0),
        Ok(Some(key)) => wait_for_next(&line, key),
        Err(error) => Err(error),
    };
    // It takes the socket's file away, which may lie where we reach nothing.
    line.0.shutdown(Shutdown::Write).ok();
    (&line.0).read_to_end(&mut Vec::new()).ok();
    code
}

/// Leaves the daemon to the keeper and passes on what it is to be told, until it ends.
fn wait_for_next(line: &Line, key: PrivateKey) -> anyhow::Result<u8> {
    line.say(word::AGAIN);
    // A keeper that is gone shows below.
    (&line.0).write_all(key.as_slice()).ok();
    drop(key);
    small_runtime()?.block_on(async {
        let mut signals = Signals::take()?;
        let mut replies = tokio_stream(&line.0)?;
        loop {
            let word = tokio::select! {
                code = replies.read_u8() => return code.context("the keeper of the daemon was ended"),
                order = signals.order() => match order {
                    Signal::INT => word::INTERRUPT,
                    Signal::HUP => word::HANG_UP,
                    _ => word::TERMINATE,
                },
            };
            replies.write_u8(word).await.ok();
        }
    })
}

/// The line, for whoever waits for other things as well.
type Wire = tokio::net::UnixStream;

fn tokio_stream(stream: &UnixStream) -> io::Result<Wire> {
    let stream = stream.try_clone()?;
    stream.set_nonblocking(true)?;
    Wire::from_std(stream)
}

fn small_runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no threads")
}

/// Is the keeper of the first daemon, which is this process's parent, and then of those after it.
///
/// `as_daemon` are the arguments of this program that make it the daemon itself; our process id goes after them.
///
/// # Errors
/// This process was not started by a daemon, or cannot start one.
pub fn stand_by(paths: &Paths, parent: i32, as_daemon: &[OsString]) -> anyhow::Result<()> {
    let socket = OwnedFd::from(sandbox::process::inherit(parent)?);
    sandbox::process::harden_keeper();
    let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned().context("the daemon handed no line over")?);
    let mut key = take_key(line.as_fd())?;
    let code = small_runtime()?.block_on(async {
        // A terminal sends its signals to all processes; what they mean is for the daemon to say.
        let mut signals = Signals::take()?;
        let mut line = Some(tokio_stream(&line)?);
        attend(&paths.socket);
        while let Some(line) = &mut line {
            match line.read_u8().await {
                Ok(word::AGAIN) => {
                    line.read_exact(key.as_mut_slice()).await.context("no identity was handed over")?;
                    break;
                }
                Ok(word::STOPPING) => tell(&[NotifyState::Stopping]),
                Ok(word::RELOADING) => tell(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
                Ok(word::RELOADED) => tell(&[NotifyState::Ready]),
                Ok(_) => {}
                // The daemon has ended for good.
                Err(_) => return Ok(()),
            }
        }
        let code = keep_on(paths, key, as_daemon, &socket, &mut signals, &mut line, None).await?;
        if let Some(line) = &mut line {
            line.write_u8(code).await.ok();
        }
        anyhow::Ok(())
    });
    std::fs::remove_file(&paths.socket).ok();
    code
}

/// Runs daemons, one after the other, until one ends for good. Returns its exit code.
///
/// `as_daemon` are the arguments of this program that make it the daemon itself; our process id goes after them. What
/// the daemon logs goes to `log`, or to where this process says what goes wrong.
///
/// # Errors
/// Another daemon runs, or the system does not allow to start one. Each says what to do.
pub fn keep(paths: &Paths, identity: Identity, as_daemon: &[OsString], log: Option<&File>) -> anyhow::Result<u8> {
    let _lock = hold_state(paths)?;
    let key = identity.private_key();
    drop(identity);
    let socket = bind(&paths.socket).with_context(|| format!("cannot use {}", paths.socket.display()))?;
    sandbox::process::harden_keeper();
    let code = small_runtime()?.block_on(async {
        // Taken before the first child, so that no signal is missed.
        let mut signals = Signals::take()?;
        attend(&paths.socket);
        keep_on(paths, key, as_daemon, &socket, &mut signals, &mut None, log).await
    });
    std::fs::remove_file(&paths.socket).ok();
    code
}

/// Starts daemons as long as they need to begin again. They are told what comes by the line, or where there is
/// none, by our own signals.
async fn keep_on(
    paths: &Paths,
    mut key: PrivateKey,
    as_daemon: &[OsString],
    socket: &OwnedFd,
    signals: &mut Signals,
    line: &mut Option<Wire>,
    log: Option<&File>,
) -> anyhow::Result<u8> {
    loop {
        let mut daemon = command(as_daemon, socket)?;
        if let Some(log) = log {
            daemon.stderr(log.try_clone()?);
        }
        let (ours, theirs) = UnixStream::pair().context("the system gives no sockets")?;
        daemon.stdin(Stdio::from(OwnedFd::from(theirs))).env(SQLITE_TMPDIR, &paths.state_dir);
        // The service manager hears the keeper alone.
        daemon.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        // It waits there until the daemon takes it.
        (&ours).write_all(key.as_slice()).context("the system gives no sockets")?;
        let child = daemon.spawn().context("cannot start the daemon")?;
        // With its copy of the other end goes the last one but the daemon's own.
        drop(daemon);
        match wait(child, signals, line).await? {
            Some(AGAIN) => key = take_key(ours.as_fd())?,
            code => return Ok(code.unwrap_or(0)),
        }
    }
}

/// Takes the identity that a keeper hands to a daemon.
///
/// # Errors
/// This process was not started by a keeper.
pub fn take_identity() -> anyhow::Result<Identity> {
    Ok(Identity::from_private_key(&*take_key(io::stdin().as_fd())?))
}

/// Hands the keeper the private key of the daemon that it is to start next.
pub fn hand_back(key: &PrivateKey) -> anyhow::Result<()> {
    let mut rest = key.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(io::stdin().as_fd(), rest));
        rest = &rest[written.context("the keeper cannot be told who it starts next")?..];
    }
    Ok(())
}

/// Reads a private key, and nothing beyond it. Not by what std has for standard input, which would keep a copy.
fn take_key(from: BorrowedFd<'_>) -> anyhow::Result<PrivateKey> {
    let mut key = PrivateKey::default();
    let mut len = 0;
    while len < key.len() {
        match rustix::io::read(from, &mut key[len..]) {
            Ok(0) => bail!("no identity was handed over"),
            Ok(read) => len += read,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("no identity was handed over"),
        }
    }
    Ok(key)
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

/// This program once more, with the control socket in the place of standard output, where nothing is said.
fn command(args: &[OsString], socket: &OwnedFd) -> io::Result<Command> {
    // The very file that runs here, also after it was replaced by a newer one.
    let mut command = Command::new("/proc/self/exe");
    command.args(args).arg(std::process::id().to_string()).stdout(Stdio::from(socket.try_clone()?));
    Ok(command)
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

    /// Waits for a signal that says what a daemon is to do.
    async fn order(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// Waits until a daemon has ended, and hands on what it is to know. Returns its exit code, or `None` where it was
/// ended because somebody asked twice.
async fn wait(mut child: Child, signals: &mut Signals, line: &mut Option<Wire>) -> anyhow::Result<Option<u8>> {
    let pid = Pid::from_child(&child);
    let mut is_stopping = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return code_of(status, is_stopping);
        }
        let signal = match line {
            None => tokio::select! {
                _ = signals.child.recv() => continue,
                _ = signals.terminate.recv() => Signal::TERM,
                _ = signals.interrupt.recv() => Signal::INT,
                _ = signals.hangup.recv() => Signal::HUP,
            },
            Some(line) => tokio::select! {
                _ = signals.child.recv() => continue,
                word = line.read_u8() => match word? {
                    word::HANG_UP => Signal::HUP,
                    word::INTERRUPT => Signal::INT,
                    _ => Signal::TERM,
                },
            },
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
