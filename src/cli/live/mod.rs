//! The live view of `kinfold up` and `kinfold status --watch`: the whole terminal, or plain lines where there is none.

pub mod view;

use std::io;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use ratatui::crossterm::event;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::crossterm::event::KeyModifiers;
use rustix::process::Signal;
use tokio::signal::unix::SignalKind;

use crate::cli::error::Failure;
use crate::cli::live::view::View;
use crate::cli::output;
use crate::cli::output::bytes;
use crate::cli::output::counted;
use crate::cli::output::escaped;
use crate::cli::status;
use crate::control::client::Client;
use crate::control::client::ControlError;
use crate::control::types::AskLog;
use crate::control::types::FolderState;
use crate::control::types::Status;

/// Pause between two looks at the daemon.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a key is looked for.
const KEY_PAUSE: Duration = Duration::from_millis(100);
/// Looks at the daemon between two looks at the inbox, which costs more.
const INBOX_EVERY: u64 = 4;
/// Events of before that are shown at first.
const EVENTS_FIRST: usize = 50;

/// A view that follows the daemon until it is finished.
#[derive(Debug)]
pub struct LiveView {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl LiveView {
    /// Begins to follow the daemon at `socket`, which may still be starting. On a terminal, `whole` has it take all of
    /// it, and whoever ends the view there ends this process.
    pub fn start(socket: PathBuf, whole: bool) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let Ok(client) = Client::new(&socket) else { return };
            // The only failure is that nobody reads the view any more.
            match whole {
                true => up_on_terminal(&client, &stopped).ok(),
                false => plain(&client, &stopped).ok(),
            };
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

/// Returns whether there is a terminal that the view could have for itself.
pub fn has_terminal() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb && io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Shows the daemon until somebody has seen enough.
pub fn watch(client: &Client) -> Result<(), Failure> {
    // Before the terminal changes: whether there is a daemon at all.
    let status = client.status()?;
    let ended = Arc::new(AtomicBool::new(false));
    end_on_signal(ended.clone());
    let mut screen = Screen::open("q leaves")?;
    screen.view.see(screen.begun.elapsed(), status);
    let result = loop {
        let looked = match screen.look(client) {
            // A daemon that ends may hang up before it is gone.
            Err(ControlError::Lost(_)) => screen.look(client),
            looked => looked,
        };
        if let Err(error) = looked {
            break Err(Failure::from(error));
        }
        if screen.show(PAUSE, || ended.load(Ordering::Relaxed))? {
            break Ok(());
        }
    };
    drop(screen);
    result
}

/// Notes that the process was asked to end, so that the terminal is left as it was found.
fn end_on_signal(ended: Arc<AtomicBool>) {
    thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
            let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals.map(tokio::signal::unix::signal)
            else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {}
            }
            ended.store(true, Ordering::Relaxed);
        });
    });
}

/// The terminal while the view has it. It is given back when this is dropped, and when the program panics.
struct Screen {
    terminal: ratatui::DefaultTerminal,
    view: View,
    begun: Instant,
    looks: u64,
    last_event: Option<u64>,
}

impl Screen {
    fn open(footer: &str) -> Result<Self, Failure> {
        // https://no-color.org
        let is_coloured = std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let view = View::new(footer, is_coloured);
        Ok(Self { terminal: ratatui::try_init()?, view, begun: Instant::now(), looks: 0, last_event: None })
    }

    /// Asks the daemon what there is.
    fn look(&mut self, client: &Client) -> Result<(), ControlError> {
        self.view.see(self.begun.elapsed(), client.status()?);
        let limit = self.last_event.is_none().then_some(EVENTS_FIRST);
        let events = client.events(AskLog { after: self.last_event, limit, wait_ms: None })?;
        self.last_event = events.last().map(|event| event.seq).or(self.last_event);
        self.view.see_events(events);
        if self.looks.is_multiple_of(INBOX_EVERY) {
            self.view.see_inbox(client.inbox()?);
        }
        self.looks += 1;
        Ok(())
    }

    /// Draws, and waits for so long. Returns whether the view is to end: by a key, or as `is_over` says.
    fn show(&mut self, pause: Duration, is_over: impl Fn() -> bool) -> Result<bool, Failure> {
        let until = Instant::now() + pause;
        let mut is_drawn = false;
        while Instant::now() < until {
            if !is_drawn {
                self.terminal.draw(|frame| self.view.draw(frame))?;
                is_drawn = true;
            }
            if is_over() {
                return Ok(true);
            }
            if !event::poll(KEY_PAUSE.min(until.saturating_duration_since(Instant::now())))? {
                continue;
            }
            match event::read()? {
                event::Event::Key(key) if key.kind == KeyEventKind::Press => match (key.code, key.modifiers) {
                    (KeyCode::Char('q') | KeyCode::Esc, _) => return Ok(true),
                    (KeyCode::Char('c' | 'd'), KeyModifiers::CONTROL) => return Ok(true),
                    _ => {}
                },
                event::Event::Resize(..) => is_drawn = false,
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        ratatui::try_restore().ok();
    }
}

/// Shows a daemon that this process keeps, until that has ended. Who leaves the view has it end.
fn up_on_terminal(client: &Client, stopped: &mpsc::Receiver<()>) -> Result<(), Failure> {
    let mut screen = Screen::open("q ends kinfold here")?;
    let is_over = || stopped.try_recv() != Err(mpsc::TryRecvError::Empty);
    let mut asked = false;
    loop {
        // It is starting, beginning again, or ending.
        screen.look(client).ok();
        if is_over() {
            return Ok(());
        }
        if screen.show(PAUSE, is_over)? {
            if is_over() {
                return Ok(());
            }
            if !asked {
                asked = true;
                screen.view.footer = "it is ending".to_owned();
                // As the terminal does where nobody reads keys: the keeper hears it.
                rustix::process::kill_process(rustix::process::getpid(), Signal::INT).ok();
            }
        }
    }
}

/// Follows the daemon with a line for each change.
fn plain(client: &Client, stopped: &mpsc::Receiver<()>) -> Result<(), Failure> {
    let mut said = String::new();
    while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let Ok(status) = client.status() else { continue };
        let line = summary(&status);
        if line != said {
            output::say(&line)?;
            said = line;
        }
    }
    Ok(())
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
