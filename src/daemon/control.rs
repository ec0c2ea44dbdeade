//! The server of the control API: HTTP/JSON on a Unix socket, for this user and root alone.
//!
//! Nothing is decided here: each request becomes one call of an [`Api`], on a thread that may block.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::FromRequest;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use axum::serve::Listener;
use rustix::fs::Mode;
use rustix::net::AddressFamily;
use rustix::net::SocketAddrUnix;
use rustix::net::SocketFlags;
use rustix::net::SocketType;
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::types::ApiError;
use crate::control::types::ApiErrorKind;
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
use crate::model::limits::EVENTS_MAX;
use crate::model::limits::LOG_LINES_MAX;

/// Longest time that a client may have the log wait for a line.
const LOG_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a question waits for a daemon that is just beginning.
const BEGIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often a waiting client looks for a new line.
const LOG_POLL: Duration = Duration::from_millis(100);
/// Clients that may wait for a connection to be taken.
const BACKLOG: i32 = 64;

/// What a daemon does when it is asked. Calls may block; several may run at a time.
pub trait Api: Send + Sync + 'static {
    /// Tells how the daemon does.
    fn status(&self) -> Result<Status, ApiError>;
    /// Tells what waits for a person.
    fn inbox(&self) -> Result<Vec<InboxItem>, ApiError>;
    /// Tells which folders others would share.
    fn offers(&self) -> Result<Vec<Offer>, ApiError>;
    /// Tells whether a folder is in sync, or all of them.
    fn sync_state(&self, folder: Option<&str>) -> Result<SyncState, ApiError>;
    /// Lists the conflicts of a folder, or of all of them.
    fn conflicts(&self, folder: Option<&str>) -> Result<Vec<Conflict>, ApiError>;
    /// Returns at most `limit` lines of the log: the first after line `after`, or the newest.
    fn log(&self, after: Option<u64>, limit: usize) -> Result<Vec<LogLine>, ApiError>;
    /// Returns at most `limit` of what happened: the first after `after`, or the newest.
    fn events(&self, after: Option<u64>, limit: usize) -> Result<Vec<Event>, ApiError>;
    /// Scans a folder; returns when that is done.
    fn scan(&self, folder: &str) -> Result<(), ApiError>;
    /// Lets go what is held in a folder, or rejects it.
    fn release(&self, release: ReleaseFolder) -> Result<Released, ApiError>;
    /// Has all files compared with their records; returns when that is begun.
    fn verify(&self, verify: Verify) -> Result<(), ApiError>;
    /// Tells how far that has come in a folder, or in all of them.
    fn verified(&self, folder: Option<&str>) -> Result<Vec<Verified>, ApiError>;
    /// Settles a conflict.
    fn keep(&self, keep: KeepConflict) -> Result<(), ApiError>;
    /// Merges both sides of a conflict.
    fn merge(&self, merge: MergeConflict) -> Result<MergedConflict, ApiError>;
    /// Returns the kept states of a path, newest first.
    fn history(&self, ask: AskHistory) -> Result<Vec<HistoryEntry>, ApiError>;
    /// Brings back the past of a path.
    fn restore(&self, restore: Restore) -> Result<Restored, ApiError>;
    /// Reads the configuration anew; returns when it is in force.
    fn reload(&self) -> Result<(), ApiError>;
    /// Begins to end the daemon.
    fn shutdown(&self) -> Result<(), ApiError>;
}

/// Makes the socket, which nobody but this user can connect to at any moment.
///
/// A socket that a crash left behind is replaced. Fails with [`io::ErrorKind::AddrInUse`] where a
/// daemon answers there.
pub fn bind(path: &Path) -> io::Result<StdUnixListener> {
    match StdUnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon is running")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the name the mode of the socket that is bound, so it is never open to others, not
    // even between `bind` and a later `chmod`.
    rustix::fs::fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Answers requests until `stop` becomes true or its sender is gone; those under way are finished. Until `begun` is
/// true, and for a while at most, it only ends the daemon: of folders that are just being opened nothing true could be
/// said.
pub async fn serve(
    listener: StdUnixListener,
    api: Arc<dyn Api>,
    begun: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let (listens, listening) = watch::channel(());
    let listener = OwnUserListener { socket: UnixListener::from_std(listener)?, _listens: listens };
    let mut stopped = stop.clone();
    let until_stopped = async move {
        // An error says that nobody is left to say it.
        stopped.wait_for(|stop| *stop).await.ok();
    };
    axum::serve(listener, router(Server { api, begun, stop, listening })).with_graceful_shutdown(until_stopped).await
}

/// Takes connections of this user and of root, and drops all others unread.
struct OwnUserListener {
    socket: UnixListener,
    /// Dropped with it.
    _listens: watch::Sender<()>,
}

impl Listener for OwnUserListener {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.socket).await;
            match stream.peer_cred().map(|peer| peer.uid()) {
                Ok(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => return (stream, address),
                Ok(uid) => tracing::warn!(uid, "another user tried to use the control socket"),
                Err(error) => tracing::warn!(%error, "cannot tell who uses the control socket"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.socket.local_addr()
    }
}

#[derive(Clone)]
struct Server {
    api: Arc<dyn Api>,
    begun: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
    /// Closed once no connection is taken any more.
    listening: watch::Receiver<()>,
}

fn router(server: Server) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(s): State<Server>| s.ask(|api| api.status()).await))
        .route("/v1/inbox", get(async |State(s): State<Server>| s.ask(|api| api.inbox()).await))
        .route("/v1/offers", get(async |State(s): State<Server>| s.ask(|api| api.offers()).await))
        .route("/v1/folders/sync", get(sync_state))
        .route("/v1/conflicts", get(conflicts))
        .route("/v1/log", get(log))
        .route("/v1/events", get(events))
        .route("/v1/folders/scan", post(scan))
        .route("/v1/folders/release", post(release))
        .route("/v1/folders/verify", post(verify).get(verified))
        .route("/v1/conflicts/keep", post(keep))
        .route("/v1/conflicts/merge", post(merge))
        .route("/v1/history", post(history))
        .route("/v1/restore", post(restore))
        .route("/v1/reload", post(reload))
        .route("/v1/shutdown", post(async |State(s): State<Server>| s.ask_at_once(|api| api.shutdown()).await))
        .fallback(async || Refusal(ApiError::new(ApiErrorKind::NotFound, "the daemon knows no such request")))
        .with_state(server)
}

impl Server {
    /// Makes one call of the API once the daemon has begun.
    async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Api) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<Json<T>, Refusal> {
        let (mut begun, mut stop) = (self.begun.clone(), self.stop.clone());
        let either = async {
            tokio::select! {
                // An error says that nobody is left to say it.
                _ = begun.wait_for(|begun| *begun) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        // After that the answer is what there is to say.
        tokio::time::timeout(BEGIN_PATIENCE, either).await.ok();
        self.ask_at_once(call).await
    }

    /// Makes one call of the API on a thread that may block.
    async fn ask_at_once<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Api) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<Json<T>, Refusal> {
        let api = Arc::clone(&self.api);
        match tokio::task::spawn_blocking(move || call(&*api)).await {
            Ok(answer) => answer.map(Json).map_err(Refusal),
            Err(_) => Err(Refusal(ApiError::new(ApiErrorKind::Failed, "the daemon failed over this; see its log"))),
        }
    }
}

#[derive(Deserialize)]
struct OfFolder {
    folder: Option<String>,
}

/// Answers when the configuration is in force, or where the daemon begins again for it, when nobody who asks
/// from then on is answered by this one: they wait in the queue of the socket for the next.
async fn reload(State(mut server): State<Server>) -> Result<Json<()>, Refusal> {
    let Json(()) = server.ask(|api| api.reload()).await?;
    if *server.stop.borrow() {
        // An error is what is waited for: nobody is left to send anything.
        while server.listening.changed().await.is_ok() {}
    }
    Ok(Json(()))
}

type AskedQuery<T> = Result<Query<T>, QueryRejection>;

async fn sync_state(State(server): State<Server>, query: AskedQuery<OfFolder>) -> Result<Json<SyncState>, Refusal> {
    let Query(OfFolder { folder }) = query?;
    server.ask(move |api| api.sync_state(folder.as_deref())).await
}

async fn conflicts(State(server): State<Server>, query: AskedQuery<OfFolder>) -> Result<Json<Vec<Conflict>>, Refusal> {
    let Query(OfFolder { folder }) = query?;
    server.ask(move |api| api.conflicts(folder.as_deref())).await
}

async fn scan(State(server): State<Server>, Body(ask): Body<ScanFolder>) -> Result<Json<()>, Refusal> {
    server.ask(move |api| api.scan(&ask.folder)).await
}

async fn release(State(server): State<Server>, Body(ask): Body<ReleaseFolder>) -> Result<Json<Released>, Refusal> {
    server.ask(move |api| api.release(ask)).await
}

async fn verify(State(server): State<Server>, Body(ask): Body<Verify>) -> Result<Json<()>, Refusal> {
    server.ask(move |api| api.verify(ask)).await
}

async fn verified(State(server): State<Server>, query: AskedQuery<OfFolder>) -> Result<Json<Vec<Verified>>, Refusal> {
    let Query(OfFolder { folder }) = query?;
    server.ask(move |api| api.verified(folder.as_deref())).await
}

async fn keep(State(server): State<Server>, Body(ask): Body<KeepConflict>) -> Result<Json<()>, Refusal> {
    server.ask(move |api| api.keep(ask)).await
}

async fn merge(State(server): State<Server>, Body(ask): Body<MergeConflict>) -> Result<Json<MergedConflict>, Refusal> {
    server.ask(move |api| api.merge(ask)).await
}

async fn history(
    State(server): State<Server>,
    Body(ask): Body<AskHistory>,
) -> Result<Json<Vec<HistoryEntry>>, Refusal> {
    server.ask(move |api| api.history(ask)).await
}

async fn restore(State(server): State<Server>, Body(ask): Body<Restore>) -> Result<Json<Restored>, Refusal> {
    server.ask(move |api| api.restore(ask)).await
}

/// Answers with lines of the log. Where there is none yet it waits here and not in the API, so that
/// clients that follow the log hold no threads.
async fn log(State(server): State<Server>, query: AskedQuery<AskLog>) -> Result<Json<Vec<LogLine>>, Refusal> {
    let Query(ask) = query?;
    follow(server, ask, LOG_LINES_MAX, |api, after, limit| api.log(after, limit)).await
}

async fn events(State(server): State<Server>, query: AskedQuery<AskLog>) -> Result<Json<Vec<Event>>, Refusal> {
    let Query(ask) = query?;
    follow(server, ask, EVENTS_MAX, |api, after, limit| api.events(after, limit)).await
}

/// Asks the API for at most so many of what came after a number.
type Look<T> = fn(&dyn Api, Option<u64>, usize) -> Result<Vec<T>, ApiError>;

async fn follow<T: Send + 'static>(
    mut server: Server,
    AskLog { after, limit, wait_ms }: AskLog,
    limit_max: usize,
    look: Look<T>,
) -> Result<Json<Vec<T>>, Refusal> {
    let limit = limit.unwrap_or(limit_max).min(limit_max);
    let wait = Duration::from_millis(wait_ms.unwrap_or(0)).min(LOG_WAIT_MAX);
    let deadline = Instant::now() + wait;
    loop {
        let lines = server.ask(move |api| look(api, after, limit)).await?;
        if !lines.is_empty() || Instant::now() >= deadline || *server.stop.borrow() {
            return Ok(lines);
        }
        // Both a pause that is over and a stop lead to another look.
        tokio::time::timeout(LOG_POLL, server.stop.changed()).await.ok();
    }
}

/// A JSON body; what is none is refused as every other error is.
struct Body<T>(T);

impl<T, S> FromRequest<S> for Body<T>
where
    Json<T>: FromRequest<S, Rejection = JsonRejection>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Refusal> {
        let Json(body) = Json::from_request(request, state).await.map_err(|error| invalid(&error.body_text()))?;
        Ok(Self(body))
    }
}

/// An error on its way to the client.
struct Refusal(ApiError);

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        invalid(&rejection.body_text())
    }
}

fn invalid(why: &str) -> Refusal {
    Refusal(ApiError::new(ApiErrorKind::Invalid, format!("the daemon cannot read this request: {why}")))
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            ApiErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ApiErrorKind::NotFound => StatusCode::NOT_FOUND,
            ApiErrorKind::Unavailable => StatusCode::CONFLICT,
            ApiErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;
    use std::thread;

    use crate::control::client::Client;
    use crate::control::client::ControlError;
    use crate::control::log::LogRing;
    use crate::control::types::Keep;
    use crate::control::types::RawPath;
    use crate::control::types::Time;

    /// Answers little and remembers what it was asked.
    #[derive(Default)]
    struct Fake {
        asked: Mutex<Vec<String>>,
    }

    impl Fake {
        fn note(&self, what: impl Into<String>) {
            self.asked.lock().unwrap().push(what.into());
        }
    }

    fn refused<T>() -> Result<T, ApiError> {
        Err(ApiError::new(ApiErrorKind::NotFound, "not here").with_hint("look elsewhere"))
    }

    impl Api for Fake {
        fn status(&self) -> Result<Status, ApiError> {
            panic!("a bug in the daemon")
        }
        fn inbox(&self) -> Result<Vec<InboxItem>, ApiError> {
            Ok(vec![])
        }
        fn offers(&self) -> Result<Vec<Offer>, ApiError> {
            refused()
        }
        fn sync_state(&self, folder: Option<&str>) -> Result<SyncState, ApiError> {
            self.note(format!("sync {folder:?}"));
            Ok(SyncState { in_sync: true, why: None })
        }
        fn conflicts(&self, _: Option<&str>) -> Result<Vec<Conflict>, ApiError> {
            Ok(vec![])
        }
        fn log(&self, after: Option<u64>, limit: usize) -> Result<Vec<LogLine>, ApiError> {
            self.note("log");
            Ok(LogRing::default().lines(after, limit))
        }
        fn events(&self, _: Option<u64>, _: usize) -> Result<Vec<Event>, ApiError> {
            self.note("events");
            Ok(vec![])
        }
        fn scan(&self, folder: &str) -> Result<(), ApiError> {
            self.note(format!("scan {folder}"));
            Ok(())
        }
        fn release(&self, release: ReleaseFolder) -> Result<Released, ApiError> {
            self.note(format!("release {} reject={}", release.folder, release.reject));
            Ok(Released { deleted: 3, rewritten: 0 })
        }
        fn verify(&self, verify: Verify) -> Result<(), ApiError> {
            self.note(format!("verify {:?} heal={}", verify.folder, verify.heal));
            Ok(())
        }
        fn verified(&self, folder: Option<&str>) -> Result<Vec<Verified>, ApiError> {
            self.note(format!("verified {folder:?}"));
            Ok(vec![Verified { files: 2, ..Verified::default() }])
        }
        fn keep(&self, keep: KeepConflict) -> Result<(), ApiError> {
            self.note(format!("keep {} {:?}", keep.path, keep.keep));
            Ok(())
        }
        fn merge(&self, merge: MergeConflict) -> Result<MergedConflict, ApiError> {
            self.note(format!("merge {} dry_run={}", merge.path, merge.dry_run));
            Ok(MergedConflict { path: merge.path.clone(), copy: merge.path, size: 3 })
        }
        fn history(&self, ask: AskHistory) -> Result<Vec<HistoryEntry>, ApiError> {
            self.note(format!("history {} all={} from {:?}", ask.path, ask.all, ask.from));
            Ok(vec![])
        }
        fn restore(&self, restore: Restore) -> Result<Restored, ApiError> {
            let at = restore.at.map(|at| at.to_string());
            self.note(format!("restore {} at {at:?} from {:?}", restore.path, restore.from));
            Ok(Restored { files: 1, bytes: 2, to: restore.path, listed: vec![], from: vec![] })
        }
        fn reload(&self) -> Result<(), ApiError> {
            self.note("reload");
            Ok(())
        }
        fn shutdown(&self) -> Result<(), ApiError> {
            self.note("shutdown");
            Ok(())
        }
    }

    struct Running {
        _dir: tempfile::TempDir,
        socket: PathBuf,
        fake: Arc<Fake>,
        begin: watch::Sender<bool>,
        stop: watch::Sender<bool>,
        thread: thread::JoinHandle<io::Result<()>>,
    }

    fn start() -> Running {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = bind(&socket).unwrap();
        let fake = Arc::new(Fake::default());
        let api: Arc<dyn Api> = Arc::<Fake>::clone(&fake);
        let (begin, begun) = watch::channel(true);
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(listener, api, begun, stopped))
        });
        Running { _dir: dir, socket, fake, begin, stop, thread }
    }

    impl Running {
        fn client(&self) -> Client {
            Client::new(&self.socket).unwrap()
        }

        fn stop(self) -> Vec<String> {
            self.stop.send(true).unwrap();
            self.thread.join().unwrap().unwrap();
            self.fake.asked.lock().unwrap().clone()
        }
    }

    #[test]
    fn a_question_waits_until_the_daemon_has_begun_and_its_end_does_not() {
        let running = start();
        running.begin.send_replace(false);
        let client = running.client();
        let asking = thread::spawn(move || client.scan("data").unwrap());
        // One that does not wait is answered by then.
        thread::sleep(Duration::from_millis(200));
        running.client().shutdown().unwrap();
        assert_eq!(*running.fake.asked.lock().unwrap(), ["shutdown"]);
        running.begin.send_replace(true);
        asking.join().unwrap();
        assert_eq!(running.stop(), ["shutdown", "scan data"]);
    }

    #[test]
    fn every_question_reaches_the_api_as_it_was_asked() {
        let running = start();
        let client = running.client();
        let path = RawPath::from(Path::new("/data/a b"));
        assert_eq!(client.inbox().unwrap(), []);
        assert!(client.sync_state(None).unwrap().in_sync);
        assert!(client.sync_state(Some("été & co")).unwrap().in_sync);
        assert_eq!(client.conflicts(Some("x")).unwrap(), []);
        client.scan("data").unwrap();
        assert_eq!(client.release("data", true).unwrap(), Released { deleted: 3, rewritten: 0 });
        client.verify(Some("data"), true).unwrap();
        assert_eq!(client.verified(None).unwrap()[0].files, 2);
        client.keep(&KeepConflict { path: path.clone(), keep: Keep::Theirs }).unwrap();
        assert_eq!(client.merge(&MergeConflict { path: path.clone(), dry_run: true }).unwrap().size, 3);
        let from = Some("laptop".to_owned());
        let ask = AskHistory { path: path.clone(), all: false, from: from.clone() };
        assert_eq!(client.history(&ask).unwrap(), []);
        let at = Some(Time::from_unix_ns(1));
        let restore = Restore { path: path.clone(), at, to: None, dry_run: false, from };
        assert_eq!(client.restore(&restore).unwrap().to, path);
        client.reload().unwrap();
        client.shutdown().unwrap();
        assert_eq!(
            running.stop(),
            [
                "sync None",
                "sync Some(\"été & co\")",
                "scan data",
                "release data reject=true",
                "verify Some(\"data\") heal=true",
                "verified None",
                "keep /data/a b Theirs",
                "merge /data/a b dry_run=true",
                "history /data/a b all=false from Some(\"laptop\")",
                "restore /data/a b at Some(\"1970-01-01T00:00:00.000000001Z\") from Some(\"laptop\")",
                "reload",
                "shutdown",
            ]
        );
    }

    #[test]
    fn refusals_and_bugs_are_answered() {
        let running = start();
        let Err(ControlError::Refused(error)) = running.client().offers() else { panic!("a refusal") };
        assert_eq!((error.message.as_str(), error.hint.as_deref()), ("not here", Some("look elsewhere")));
        let Err(ControlError::Refused(error)) = running.client().status() else { panic!("a refusal") };
        assert_eq!(error.kind, ApiErrorKind::Failed);
        running.stop();
    }

    #[test]
    fn the_socket_is_private_and_answered_by_one_daemon() {
        let running = start();
        let mode = std::fs::metadata(&running.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(bind(&running.socket).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        running.stop();
    }

    #[test]
    fn a_socket_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(bind(&path).unwrap());
        assert!(path.exists());
        assert!(bind(&path).is_ok());
    }

    #[test]
    fn a_client_that_waits_for_the_log_does_not_hold_up_the_end() {
        let running = start();
        let client = running.client();
        let waiting = thread::spawn(move || client.log(AskLog { after: Some(0), limit: None, wait_ms: Some(30_000) }));
        while !running.fake.asked.lock().unwrap().contains(&"log".to_owned()) {
            thread::yield_now();
        }
        running.stop();
        assert_eq!(waiting.join().unwrap().unwrap(), []);
    }
}
