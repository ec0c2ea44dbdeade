//! Asks a running daemon, one connection a request.

use std::error::Error;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::Method;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::control::types::ApiError;
use crate::control::types::AskHistory;
use crate::control::types::AskLog;
use crate::control::types::Conflict;
use crate::control::types::Event;
use crate::control::types::HistoryEntry;
use crate::control::types::InboxItem;
use crate::control::types::KeepConflict;
use crate::control::types::LogLine;
use crate::control::types::MergeConflict;
use crate::control::types::MergedConflict;
use crate::control::types::Offer;
use crate::control::types::ReleaseFolder;
use crate::control::types::Released;
use crate::control::types::Restore;
use crate::control::types::Restored;
use crate::control::types::ScanFolder;
use crate::control::types::Status;
use crate::control::types::SyncState;
use crate::control::types::{Verified, Verify};
use crate::model::limits::CONTROL_ANSWER_LEN_MAX;

/// How long a question may take that the daemon answers from memory.
const QUICK: Duration = Duration::from_secs(30);
/// How long work on the disk may take before the daemon is given up.
const PATIENT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens.
    #[error("no daemon is running here (nobody listens at {})", .socket.display())]
    NoDaemon {
        /// Where one would.
        socket: PathBuf,
    },
    /// The daemon belongs to somebody else.
    #[error("the daemon at {} belongs to another user", .socket.display())]
    Denied {
        /// Where it listens.
        socket: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] ApiError),
    /// The daemon did not answer in time.
    #[error("the daemon did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The daemon went away.
    #[error("lost the daemon before it had answered: {0}")]
    Lost(String),
    /// Something answered, and not as a daemon of this version does.
    #[error("what listens at {} does not answer as a daemon of this version: {why}", .socket.display())]
    Garbled {
        /// Where it listens.
        socket: PathBuf,
        /// What cannot be read of it.
        why: serde_json::Error,
    },
    /// This process could not even ask.
    #[error("cannot ask the daemon")]
    Local(#[from] io::Error),
}

/// A client of the daemon at one socket. Calls block until they are answered.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// Prepares to ask the daemon at `socket`; whether there is one shows with the first question.
    pub fn new(socket: &Path) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Asks how the daemon does.
    pub fn status(&self) -> Result<Status, ControlError> {
        self.get("/v1/status")
    }

    /// Asks what waits for a person.
    pub fn inbox(&self) -> Result<Vec<InboxItem>, ControlError> {
        self.get("/v1/inbox")
    }

    /// Asks which folders others would share.
    pub fn offers(&self) -> Result<Vec<Offer>, ControlError> {
        self.get("/v1/offers")
    }

    /// Asks whether a folder is in sync, or all of them.
    pub fn sync_state(&self, folder: Option<&str>) -> Result<SyncState, ControlError> {
        self.get(&with_folder("/v1/folders/sync", folder))
    }

    /// Asks for conflicts in a folder, or in all of them.
    pub fn conflicts(&self, folder: Option<&str>) -> Result<Vec<Conflict>, ControlError> {
        self.get(&with_folder("/v1/conflicts", folder))
    }

    /// Asks for lines of the log.
    pub fn log(&self, ask: AskLog) -> Result<Vec<LogLine>, ControlError> {
        self.follow("/v1/log", ask)
    }

    fn follow<T: DeserializeOwned>(&self, target: &str, ask: AskLog) -> Result<T, ControlError> {
        let numbers = [("after", ask.after), ("limit", ask.limit.map(|n| n as u64)), ("wait_ms", ask.wait_ms)];
        let query: Vec<_> = numbers.iter().filter_map(|(key, n)| n.map(|n| format!("{key}={n}"))).collect();
        let patience = QUICK + Duration::from_millis(ask.wait_ms.unwrap_or(0));
        self.call(Method::GET, &format!("{target}?{}", query.join("&")), Bytes::new(), patience)
    }

    /// Asks for what happened, as it is asked for lines of the log.
    pub fn events(&self, ask: AskLog) -> Result<Vec<Event>, ControlError> {
        self.follow("/v1/events", ask)
    }

    /// Has a folder scanned; returns when that is done.
    pub fn scan(&self, folder: &str) -> Result<(), ControlError> {
        self.post("/v1/folders/scan", &ScanFolder { folder: folder.to_owned() }, PATIENT)
    }

    /// Lets go what is held in a folder, or rejects it. Returns how much it was.
    pub fn release(&self, folder: &str, reject: bool) -> Result<Released, ControlError> {
        self.post("/v1/folders/release", &ReleaseFolder { folder: folder.to_owned(), reject }, PATIENT)
    }

    /// Has all files of a folder, or of all folders, compared with their records, and with `heal` mended.
    pub fn verify(&self, folder: Option<&str>, heal: bool) -> Result<(), ControlError> {
        self.post("/v1/folders/verify", &Verify { folder: folder.map(str::to_owned), heal }, PATIENT)
    }

    /// Asks how far that has come.
    pub fn verified(&self, folder: Option<&str>) -> Result<Vec<Verified>, ControlError> {
        self.get(&with_folder("/v1/folders/verify", folder))
    }

    /// Settles a conflict.
    pub fn keep(&self, keep: &KeepConflict) -> Result<(), ControlError> {
        self.post("/v1/conflicts/keep", keep, PATIENT)
    }

    /// Merges both sides of a conflict, where they are texts and the edits do not overlap.
    pub fn merge(&self, merge: &MergeConflict) -> Result<MergedConflict, ControlError> {
        self.post("/v1/conflicts/merge", merge, PATIENT)
    }

    /// Asks for the kept states of a path, newest first.
    pub fn history(&self, ask: &AskHistory) -> Result<Vec<HistoryEntry>, ControlError> {
        self.post("/v1/history", ask, PATIENT)
    }

    /// Brings back the past of a path.
    pub fn restore(&self, restore: &Restore) -> Result<Restored, ControlError> {
        self.post("/v1/restore", restore, PATIENT)
    }

    /// Has the configuration read anew; returns when it is in force.
    pub fn reload(&self) -> Result<(), ControlError> {
        self.call(Method::POST, "/v1/reload", Bytes::new(), QUICK)
    }

    /// Ends the daemon.
    pub fn shutdown(&self) -> Result<(), ControlError> {
        self.call(Method::POST, "/v1/shutdown", Bytes::new(), QUICK)
    }

    /// Asks a question that changes nothing. So it can be asked again where the daemon was just about to begin
    /// again and hung up; the next one answers.
    fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ControlError> {
        let ask = || self.call(Method::GET, target, Bytes::new(), QUICK);
        match ask() {
            Err(ControlError::Lost(why)) => ask().map_err(|error| match error {
                ControlError::NoDaemon { .. } => ControlError::Lost(why),
                other => other,
            }),
            answer => answer,
        }
    }

    fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
        patience: Duration,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(body).map_err(lost)?;
        self.call(Method::POST, target, body.into(), patience)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ControlError> {
        let garbled = |why| ControlError::Garbled { socket: self.socket.clone(), why };
        self.runtime.block_on(async {
            let exchange = exchange(&self.socket, method, target, body);
            let (ok, answer) =
                tokio::time::timeout(patience, exchange).await.map_err(|_| ControlError::Timeout(patience))??;
            match ok {
                true => serde_json::from_slice(&answer).map_err(garbled),
                false => Err(ControlError::Refused(serde_json::from_slice(&answer).map_err(garbled)?)),
            }
        })
    }
}

impl ControlError {
    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoDaemon { .. } => Some("start it with `kinfold serve`".to_owned()),
            Self::Denied { .. } => Some("run this command as the user that the daemon runs as".to_owned()),
            Self::Refused(error) => error.hint.clone(),
            Self::Timeout(_) => Some("it may be very busy; see its log".to_owned()),
            Self::Lost(_) => Some("see whether it still runs; its log says why it ended".to_owned()),
            Self::Garbled { .. } => Some("restart the daemon, so that both are of the same version".to_owned()),
            Self::Local(_) => Some("see whether this user may open more files and sockets".to_owned()),
        }
    }
}

/// Sends one request, and returns whether it went well together with the answer's body.
async fn exchange(socket: &Path, method: Method, target: &str, body: Bytes) -> Result<(bool, Bytes), ControlError> {
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ControlError::NoDaemon { socket: socket.to_owned() }
        }
        io::ErrorKind::PermissionDenied => ControlError::Denied { socket: socket.to_owned() },
        _ => ControlError::Local(error),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "kinfold")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(lost)?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(lost)?;
        let ok = answer.status().is_success();
        let body = Limited::new(answer.into_body(), CONTROL_ANSWER_LEN_MAX).collect().await.map_err(lost)?;
        Ok((ok, body.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(asked);
    // The connection only has to be driven; that it ended well shows in the answer.
    tokio::select! {
        answer = &mut asked => answer,
        Err(error) = &mut connection => Err(lost(error)),
    }
}

fn lost(error: impl Into<Box<dyn Error + Send + Sync>>) -> ControlError {
    let error = error.into();
    let (mut told, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    ControlError::Lost(told)
}

fn with_folder(target: &str, folder: Option<&str>) -> String {
    match folder {
        Some(folder) => format!("{target}?folder={}", percent_encoded(folder)),
        None => target.to_owned(),
    }
}

/// Escapes all but the unreserved characters of RFC 3986, section 2.3.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_silent_socket_means_no_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let asked = || Client::new(&socket).unwrap().status();
        assert!(matches!(asked(), Err(ControlError::NoDaemon { .. })));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(matches!(asked(), Err(ControlError::NoDaemon { .. })));
    }

    #[test]
    fn a_daemon_that_hangs_up_is_not_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || drop(listener.accept()));
        assert!(matches!(Client::new(&socket).unwrap().status(), Err(ControlError::Lost(_))));
        server.join().unwrap();
    }

    #[test]
    fn names_of_folders_are_escaped_in_queries() {
        assert_eq!(with_folder("/x", Some("a b&c=ü")), "/x?folder=a%20b%26c%3D%C3%BC");
    }
}
