//! The live view of `kinfold up`: a progress bar on a terminal, plain lines otherwise.

use std::io;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::cli::error::Failure;
use crate::cli::output;
use crate::cli::output::bytes;
use crate::cli::output::counted;
use crate::cli::output::escaped;
use crate::cli::status;
use crate::control::client::Client;
use crate::control::types::FolderState;
use crate::control::types::Status;

const PAUSE: Duration = Duration::from_millis(250);

/// A view that follows the daemon until it is finished.
#[derive(Debug)]
pub struct LiveView {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl LiveView {
    /// Begins to follow the daemon at `socket`, which may still be starting.
    pub fn start(socket: PathBuf) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            if let Ok(client) = Client::new(&socket) {
                // The only failure is that nobody reads the view any more.
                follow(&client, &stopped).ok();
            }
        });
        Self { stop, thread }
    }

    /// Ends the view.
    pub fn finish(self) {
        drop(self.stop);
        // A view that panicked has nothing left to draw.
        self.thread.join().ok();
    }
}

fn follow(client: &Client, stopped: &mpsc::Receiver<()>) -> Result<(), Failure> {
    let on_terminal = io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").map_err(|error| Failure::from_error(&error))?);
    let mut said = String::new();
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let Ok(status) = client.status() else { continue };
        let line = summary(&status);
        if on_terminal {
            draw(&bar, &status, line);
        } else if line != said {
            output::say(&line)?;
            said = line;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn draw(bar: &ProgressBar, status: &Status, line: String) {
    let need: u64 = status.folders.iter().map(|folder| folder.need_bytes).sum();
    let have: u64 = status.folders.iter().map(|folder| folder.bytes).sum();
    let template = if need > 0 { "{bar:30} {percent:>3} %  {msg}" } else { "{spinner} {msg}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(have.saturating_add(need));
    bar.set_position(have);
    bar.set_message(line);
    bar.tick();
}

/// Returns all folders and devices in one line.
fn summary(status: &Status) -> String {
    let folders = status.folders.iter().map(|folder| {
        let progress = match folder.state {
            FolderState::Scanning => format!(", {}", counted(folder.files, "file", "files")),
            _ if folder.need_files > 0 => {
                format!(", {} to come ({})", counted(folder.need_files, "file", "files"), bytes(folder.need_bytes))
            }
            _ => String::new(),
        };
        format!("{}: {}{progress}", escaped(&folder.name), status::state(folder))
    });
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    let devices = format!("{connected} of {} connected", counted(status.peers.len() as u64, "device", "devices"));
    let inbox = (status.inbox > 0).then(|| "see `kinfold inbox`".to_owned());
    folders.chain([devices]).chain(inbox).collect::<Vec<_>>().join(" | ")
}
