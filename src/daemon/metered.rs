//! Whether the connection is metered, as the lookout says.
//!
//! Folders rest where it is, and where it is not known yet, for the short time that asking may take at the start. Where it
//! cannot be known they go on.

use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use crate::config::Config;
use crate::config::metered::WhenMetered;
use crate::control::types::MeteredStatus;
use crate::daemon::hub::Hub;
use crate::daemon::lookout::Word;

/// Longest time that folders rest because nothing was said yet; the lookout itself takes less.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whether the connection is metered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metered {
    /// As the lookout says.
    Said(Word),
    /// It has not said anything yet.
    Asked,
    /// Nothing says so: nobody needs to know, or there is no lookout.
    Unasked,
}

impl Metered {
    /// Returns why it is not known, where that is so.
    fn why_unknown(self) -> Option<&'static str> {
        match self {
            Self::Said(Word::Metered | Word::Unmetered) => None,
            Self::Said(Word::Undecided) => Some("NetworkManager does not know"),
            Self::Said(Word::NoManager) => Some("NetworkManager does not run, or does not answer"),
            Self::Said(Word::NoBus) => Some("the bus of the system (D-Bus) cannot be reached"),
            Self::Asked => Some("NetworkManager was asked a moment ago"),
            Self::Unasked => {
                Some("the process that asks NetworkManager has ended; it is started again with the daemon")
            }
        }
    }

    /// Returns whether the lookout is connected to the bus.
    pub fn came_by_bus(self) -> bool {
        matches!(self, Self::Said(word) if word != Word::NoBus)
    }

    /// Returns it for `status`.
    pub fn status(self) -> MeteredStatus {
        let connection = match self {
            Self::Said(Word::Metered) => "metered",
            Self::Said(Word::Unmetered) => "unmetered",
            _ => "unknown",
        };
        MeteredStatus { connection: connection.to_owned(), why: self.why_unknown().map(str::to_owned) }
    }
}

/// Returns whether a configuration needs to know.
pub fn matters(config: &Config) -> bool {
    config.folders.iter().any(|folder| folder.metered == WhenMetered::Pause)
}

/// A daemon's end of the line to its lookout.
#[derive(Debug)]
pub struct Lookout {
    line: Option<UnixStream>,
    /// What was said last; `None`: nothing yet.
    said: Mutex<Option<Metered>>,
    since: Instant,
}

impl Lookout {
    /// Starts the lookout. `args` make this program one; our process id goes after them. The daemon must not be confined
    /// yet.
    pub fn start(args: &[OsString]) -> Self {
        let line = spawn(args);
        let mut said = None;
        if let Err(error) = &line {
            tracing::warn!(%error, "nobody can be asked whether the connection is metered");
            said = Some(Metered::Unasked);
        }
        Self { line: line.ok(), said: Mutex::new(said), since: Instant::now() }
    }

    /// Returns whether the connection is metered, as far as is known.
    pub fn metered(&self) -> Metered {
        let said = *self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Some(said) => said,
            None if self.since.elapsed() < PATIENCE => Metered::Asked,
            None => Metered::Unasked,
        }
    }

    /// Has the lookout end, which cannot be ended by a signal from where we are.
    pub fn dismiss(&self) {
        if let Some(line) = &self.line {
            // One that has ended already hears nothing.
            line.shutdown(Shutdown::Both).ok();
        }
    }

    /// Takes note of what is said now. Returns whether that is news.
    fn note(&self, now: Metered) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).replace(now) != Some(now)
    }
}

fn spawn(args: &[OsString]) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut lookout = Command::new("/proc/self/exe");
    lookout.args(args).arg(std::process::id().to_string());
    lookout.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    for of_service_manager in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"] {
        lookout.env_remove(of_service_manager);
    }
    // It ends with us, or when we close the line. Nobody waits for it by its id.
    lookout.spawn()?;
    Ok(ours)
}

/// Listens to the lookout, and has folders rest and go on as it says.
pub async fn keep_listening(hub: Arc<Hub>) {
    let Some(lookout) = &hub.lookout else { return };
    let line = lookout.line.as_ref().and_then(|line| tokio::net::UnixStream::from_std(line.try_clone().ok()?).ok());
    let Some(mut line) = line else { return };
    loop {
        let said = match line.read_u8().await {
            // What is no word says no more than that nobody knows.
            Ok(byte) => Metered::Said(Word::parse(byte).unwrap_or(Word::NoManager)),
            Err(_) => Metered::Unasked,
        };
        if lookout.note(said) {
            match said.why_unknown() {
                Some(why) => {
                    tracing::warn!(why, "whether the connection is metered is not known: taken as not metered")
                }
                None => tracing::info!(connection = said.status().connection, "the network connection"),
            }
        }
        let hub = hub.clone();
        tokio::task::spawn_blocking(move || hub.check_rests()).await.ok();
        if said == Metered::Unasked {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(since: Instant) -> Lookout {
        Lookout { line: None, said: Mutex::new(None), since }
    }

    #[test]
    fn what_is_not_said_in_time_is_waited_for_no_longer() {
        let now = Instant::now();
        assert_eq!(silent(now).metered(), Metered::Asked);
        assert_eq!(silent(now.checked_sub(PATIENCE).unwrap()).metered(), Metered::Unasked);
    }

    #[test]
    fn only_what_is_new_is_told() {
        let lookout = silent(Instant::now());
        assert!(lookout.note(Metered::Said(Word::NoBus)) && !lookout.note(Metered::Said(Word::NoBus)));
        assert!(lookout.note(Metered::Said(Word::Metered)));
        assert_eq!(lookout.metered(), Metered::Said(Word::Metered));
    }

    #[test]
    fn what_is_not_known_says_why() {
        for said in [Word::Metered, Word::Unmetered].map(Metered::Said) {
            assert_eq!(said.status().why, None);
        }
        for said in [Metered::Said(Word::Undecided), Metered::Said(Word::NoManager), Metered::Asked, Metered::Unasked] {
            assert!(said.status().connection == "unknown" && said.status().why.is_some());
        }
    }
}
