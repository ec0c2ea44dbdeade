//! `kinfold metrics`: how the daemon does, in the form that Prometheus reads.
//!
//! It is a process of its own that asks the daemon as every program does. So the daemon, which is confined, opens no
//! port for it, and what listens here knows no key and reads no file. It answers on loopback alone: folders and devices
//! have names that are nobody else's business.

use std::fmt::Write;
use std::net::IpAddr;
use std::net::SocketAddr;

use axum::Router;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::control::client::Client;
use crate::control::types::FolderState;
use crate::control::types::FolderStatus;
use crate::control::types::Status;

/// Arguments of `kinfold metrics`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on, and answer Prometheus at this address of loopback, under /metrics
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    listen: Option<SocketAddr>,
}

/// What Prometheus calls the form.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let Some(address) = args.listen else {
        output::write(&exposition(Some(&context.client()?.status()?)))?;
        return Ok(Exit::Done);
    };
    let socket = context.paths.socket.clone();
    let doing = format!("cannot listen on {address}");
    let failed = |error: std::io::Error| {
        Failure::from_error(&error).while_doing(&doing).with_hint("choose another port, where no program listens")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        output::say(format_args!("http://{address}/metrics"))?;
        let answer = async move |headers: HeaderMap| {
            if !is_local(&headers) {
                return StatusCode::FORBIDDEN.into_response();
            }
            let status = tokio::task::spawn_blocking(move || Client::new(&socket).ok()?.status().ok()).await;
            answered(status.ok().flatten().as_ref())
        };
        axum::serve(listener, Router::new().route("/metrics", get(answer))).await.map_err(failed)?;
        Ok(Exit::Done)
    })
}

fn answered(status: Option<&Status>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], exposition(status)).into_response()
}

/// Whether a request names this machine by an address of loopback. A page in a browser can have its own name point
/// here, but cannot have the browser say another one.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "write it like 127.0.0.1:9725 or [::1]:9725".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("only addresses of loopback are listened on: 127.0.0.1 or [::1]".to_owned()),
    }
}

/// Writes what is measured; of a daemon that does not answer, only that.
fn exposition(status: Option<&Status>) -> String {
    let mut text = Exposition::default();
    text.family("kinfold_up", "gauge", "Whether the daemon answers.");
    text.value("kinfold_up", &[], u64::from(status.is_some()));
    let Some(status) = status else { return text.0 };
    text.family("kinfold_build_info", "gauge", "The version of the daemon.");
    text.value("kinfold_build_info", &[("version", &status.version)], 1);
    text.family("kinfold_inbox_items", "gauge", "Things that wait for a person.");
    text.value("kinfold_inbox_items", &[], status.inbox);
    text.family("kinfold_watched_directories", "gauge", "Directories whose changes are told by the system.");
    text.value("kinfold_watched_directories", &[], status.watch.dirs);
    text.family("kinfold_watch_limit_reached", "gauge", "Whether the system lets no more directories be watched.");
    text.value("kinfold_watch_limit_reached", &[], u64::from(status.watch.limit_reached));
    text.family("kinfold_device_connected", "gauge", "Whether a trusted device is connected.");
    for peer in &status.peers {
        text.value("kinfold_device_connected", &[("device", &peer.name)], u64::from(peer.connected));
    }
    for (name, kind, help, of) in OF_FOLDERS {
        text.family(name, kind, help);
        for folder in &status.folders {
            text.value(name, &[("folder", &folder.name)], of(folder));
        }
    }
    text.family("kinfold_folder_state", "gauge", "Whether a folder is in a state.");
    for folder in &status.folders {
        for state in STATES {
            let labels = [("folder", folder.name.as_str()), ("state", state.as_str())];
            text.value("kinfold_folder_state", &labels, u64::from(folder.state == state));
        }
    }
    text.0
}

const STATES: [FolderState; 6] = [
    FolderState::Scanning,
    FolderState::Syncing,
    FolderState::Idle,
    FolderState::Stopped,
    FolderState::Paused,
    FolderState::Resting,
];

/// What is measured of each folder: name, kind, help, and where it is found.
type OfFolder = (&'static str, &'static str, &'static str, fn(&FolderStatus) -> u64);

const OF_FOLDERS: &[OfFolder] = &[
    ("kinfold_folder_files", "gauge", "Files of a folder.", |f| f.files),
    ("kinfold_folder_directories", "gauge", "Directories of a folder.", |f| f.dirs),
    ("kinfold_folder_size_bytes", "gauge", "Bytes of all files of a folder.", |f| f.bytes),
    ("kinfold_folder_needed_files", "gauge", "Files that are still to be fetched.", |f| f.need_files),
    ("kinfold_folder_needed_bytes", "gauge", "Bytes that are still to be fetched.", |f| f.need_bytes),
    ("kinfold_folder_sent_bytes_total", "counter", "Bytes of content that were sent.", |f| f.sent_bytes),
    ("kinfold_folder_received_bytes_total", "counter", "Bytes of content that were received.", |f| f.received_bytes),
    ("kinfold_folder_held_files", "gauge", "Files that others would delete or rewrite, held for a person.", |f| f.held),
    ("kinfold_folder_problems", "gauge", "Paths that could not be handled.", |f| f.problems),
    ("kinfold_folder_history_bytes", "gauge", "Bytes that history takes.", |f| f.history_bytes),
    ("kinfold_folder_history_limit_bytes", "gauge", "Bytes that history may take.", |f| f.history_bytes_max),
    ("kinfold_folder_in_sync", "gauge", "Whether every connected device holds the same.", |f| u64::from(f.in_sync)),
];

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("a string takes all that is written");
    }
}

/// Escapes a label's value as the form asks for; what would steer a terminal besides.
fn escaped(value: &str) -> String {
    output::escaped(value).replace("\\\\", "\\").replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_listened_on() {
        for address in ["127.0.0.1:9725", "[::1]:9725", "127.8.8.8:0"] {
            assert!(loopback(address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:9725", "[::]:9725", "192.168.1.2:9725", "localhost:9725", "127.0.0.1", ""] {
            assert!(loopback(address).is_err(), "{address}");
        }
    }

    #[test]
    fn a_page_in_a_browser_that_has_its_name_point_here_is_refused() {
        let asked = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_local(&headers)
        };
        for host in ["127.0.0.1:9725", "[::1]:9725", "localhost:9725", "localhost", "127.0.0.1"] {
            assert!(asked(host), "{host}");
        }
        for host in ["evil.example:9725", "192.168.1.2:9725", "localhost.evil.example", ""] {
            assert!(!asked(host), "{host}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\\\n");
        assert_eq!(
            exposition(None),
            "# HELP kinfold_up Whether the daemon answers.\n# TYPE kinfold_up gauge\nkinfold_up 0\n"
        );
    }
}
