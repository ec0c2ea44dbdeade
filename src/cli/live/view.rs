//! What the live view shows, as lines: pure, so that it is the same on each terminal and in tests.
//!
//! Each section gets a line at least, and the rest of the height by how much it has to say; what does not fit is
//! counted. Names are escaped, for a file may be called anything.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

use ratatui::Frame;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;
use ratatui::widgets::Paragraph;

use crate::cli::output;
use crate::cli::output::counted;
use crate::cli::output::escaped;
use crate::cli::output::printable;
use crate::cli::status;
use crate::control::types::Event;
use crate::control::types::EventKind;
use crate::control::types::FolderState;
use crate::control::types::FolderStatus;
use crate::control::types::InboxItem;
use crate::control::types::Moving;
use crate::control::types::PeerStatus;
use crate::control::types::Status;
use crate::model::id::FolderId;

/// Time over which rates are taken.
const RATE_SPAN: Duration = Duration::from_secs(4);
/// Events that are kept to be shown.
const EVENTS_SHOWN_MAX: usize = 64;
/// Cells of a bar.
const BAR: usize = 10;
/// Below so many columns lines say less.
const NARROW: usize = 60;

/// What is known of a daemon, from one look to the next.
#[derive(Debug, Default)]
pub struct View {
    status: Option<Status>,
    inbox: Vec<InboxItem>,
    /// The newest last.
    events: VecDeque<Event>,
    rates: BTreeMap<FolderId, Rate>,
    /// What is said in the last line.
    pub footer: String,
    /// Whether colours are wanted.
    pub is_coloured: bool,
}

impl View {
    /// Makes a view that knows nothing yet.
    pub fn new(footer: &str, is_coloured: bool) -> Self {
        Self { footer: footer.to_owned(), is_coloured, ..Self::default() }
    }

    /// Takes what the daemon says of itself at `now`, a time since some beginning.
    pub fn see(&mut self, now: Duration, status: Status) {
        for folder in &status.folders {
            self.rates.entry(folder.id).or_default().see(now, folder.sent_bytes, folder.received_bytes);
        }
        self.rates.retain(|id, _| status.folders.iter().any(|folder| folder.id == *id));
        self.status = Some(status);
    }

    /// Takes what waits for a person.
    pub fn see_inbox(&mut self, inbox: Vec<InboxItem>) {
        self.inbox = inbox;
    }

    /// Takes what happened since the last look.
    pub fn see_events(&mut self, events: Vec<Event>) {
        self.events.extend(events);
        while self.events.len() > EVENTS_SHOWN_MAX {
            self.events.pop_front();
        }
    }

    /// Draws all of it.
    pub fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        let mut lines = self.lines(usize::from(area.width), usize::from(area.height));
        if !self.is_coloured {
            for line in &mut lines {
                line.style = Style::new();
                line.spans.iter_mut().for_each(|span| span.style = Style::new());
            }
        }
        frame.render_widget(Paragraph::new(lines), area);
    }

    fn lines(&self, width: usize, height: usize) -> Vec<Line<'static>> {
        let Some(status) = &self.status else {
            return vec![Line::raw("the daemon is starting")];
        };
        let mut lines = vec![self.header(status, width)];
        let sections = self.sections(status, width);
        // The header, the footer and a blank line above it.
        let mut room = height.saturating_sub(3);
        let mut shown: Vec<usize> = vec![0; sections.len()];
        for (section, shown) in sections.iter().zip(&mut shown) {
            if !section.rows.is_empty() && room >= 2 {
                (*shown, room) = (1, room - 2);
            }
        }
        while room > 0 {
            let wanting = (0..sections.len()).filter(|at| shown[*at] > 0 && shown[*at] < sections[*at].rows.len());
            // The one that has shown the least of what it may.
            let Some(next) = wanting.min_by_key(|at| shown[*at] * 4 / sections[*at].weight) else { break };
            shown[next] += 1;
            room -= 1;
        }
        for (section, shown) in sections.into_iter().zip(shown).filter(|(_, shown)| *shown > 0) {
            let left = section.rows.len() - shown;
            let more = if left > 0 {
                format!(" ({left} more {})", if left == 1 { "line" } else { "lines" })
            } else {
                String::new()
            };
            lines.push(Line::styled(format!("{}{more}", section.title), Modifier::BOLD));
            let first = if section.newest_last { left } else { 0 };
            lines.extend(section.rows.into_iter().skip(first).take(shown));
        }
        let footer = fit(&self.footer, width);
        let blank = height.saturating_sub(lines.len() + 1);
        lines.extend(std::iter::repeat_n(Line::default(), blank));
        lines.push(Line::styled(footer, Modifier::DIM));
        lines
    }

    fn header(&self, status: &Status, width: usize) -> Line<'static> {
        let connected = status.peers.iter().filter(|peer| peer.connected).count();
        let rate = self.rates.values().fold((0, 0), |sum, rate| (sum.0 + rate.sent(), sum.1 + rate.received()));
        let devices = format!("{connected} of {}", counted(status.peers.len() as u64, "device", "devices"));
        let moved = format!("\u{2193} {}/s  \u{2191} {}/s", output::bytes(rate.1), output::bytes(rate.0));
        let right = if width < NARROW { moved } else { format!("{devices}  {moved}") };
        let name = format!("kinfold on {}", escaped(&status.device.name));
        Line::styled(sides(&name, &right, width), Modifier::REVERSED)
    }

    fn sections(&self, status: &Status, width: usize) -> Vec<Section> {
        let section = |title, weight, rows| Section { title, weight, rows, newest_last: false };
        let mut moving: Vec<_> = status.folders.iter().flat_map(|folder| &folder.moving).collect();
        moving.sort_by_key(|moving| moving.missing_bytes);
        let waits = self.inbox.iter().map(|item| inbox_row(item, width)).collect();
        let or_none = |rows: Vec<Line<'static>>, how: &str| match rows.is_empty() {
            true => vec![Line::raw(fit(&format!("  none yet: {how}"), width))],
            false => rows,
        };
        let folders = status.folders.iter().flat_map(|folder| self.folder_rows(folder, width)).collect();
        let devices = status.peers.iter().map(|peer| peer_row(peer, width)).collect();
        vec![
            section("Folders", 4, or_none(folders, "kinfold folder add PATH --name NAME")),
            section("Devices", 2, or_none(devices, "kinfold pair")),
            section("Waits for you", 2, waits),
            section("On its way", 2, moving.into_iter().map(|moving| moving_row(moving, width)).collect()),
            Section {
                title: "Last changes",
                weight: 3,
                rows: self.events.iter().map(|event| event_row(event, width)).collect(),
                newest_last: true,
            },
        ]
    }

    fn folder_rows(&self, folder: &FolderStatus, width: usize) -> Vec<Line<'static>> {
        let colour = match (folder.state, folder.in_sync) {
            (FolderState::Idle, true) => Color::Green,
            (FolderState::Stopped, _) => Color::Red,
            (FolderState::Paused | FolderState::Resting, _) => Color::DarkGray,
            _ => Color::Yellow,
        };
        let size = match width < NARROW {
            true => output::bytes(folder.bytes),
            false => format!("{}, {}", counted(folder.files, "file", "files"), output::bytes(folder.bytes)),
        };
        let left = format!("  {}  {}", escaped(&folder.name), status::state(folder));
        let mut rows = vec![Line::styled(sides(&left, &size, width), colour)];
        for (why, colour) in [(&folder.stopped_because, Color::Red), (&folder.rests_because, Color::DarkGray)] {
            rows.extend(why.iter().map(|why| Line::styled(fit(&format!("    {}", printable(why)), width), colour)));
        }
        if folder.need_files > 0 {
            let rate = self.rates.get(&folder.id).map_or(0, Rate::received);
            let left = match rate {
                0 => String::new(),
                rate => format!(", {} left", duration(folder.need_bytes / rate)),
            };
            let files = counted(folder.need_files, "file", "files");
            let text = format!("    {files} to come, {}{left}", output::bytes(folder.need_bytes));
            rows.push(Line::raw(fit(&text, width)));
        }
        rows
    }
}

struct Section {
    title: &'static str,
    /// How much of the height it is worth.
    weight: usize,
    rows: Vec<Line<'static>>,
    /// Whether the last rows are shown where not all fit.
    newest_last: bool,
}

/// How fast something counts up.
#[derive(Debug, Default)]
struct Rate {
    /// When, and what had been sent and received by then.
    samples: VecDeque<(Duration, u64, u64)>,
}

impl Rate {
    fn see(&mut self, now: Duration, sent: u64, received: u64) {
        if self.samples.back().is_some_and(|(_, s, r)| sent < *s || received < *r) {
            // Another daemon counts from the beginning.
            self.samples.clear();
        }
        self.samples.push_back((now, sent, received));
        while self.samples.len() > 2 && self.samples[1].0 + RATE_SPAN < now {
            self.samples.pop_front();
        }
    }

    fn sent(&self) -> u64 {
        self.per_second(|(_, sent, _)| *sent)
    }

    fn received(&self) -> u64 {
        self.per_second(|(_, _, received)| *received)
    }

    fn per_second(&self, count: impl Fn(&(Duration, u64, u64)) -> u64) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else { return 0 };
        let ms = u64::try_from((last.0 - first.0).as_millis()).unwrap_or(u64::MAX);
        (count(last) - count(first)).saturating_mul(1000).checked_div(ms).unwrap_or(0)
    }
}

fn peer_row(peer: &PeerStatus, width: usize) -> Line<'static> {
    let since = peer.since.map(output::local_time);
    let (state, colour) = match (peer.connected, since) {
        (true, _) => ("connected".to_owned(), Color::Green),
        (false, Some(since)) => (format!("away, seen {}", &since[..since.len() - 3]), Color::Yellow),
        (false, None) => ("away".to_owned(), Color::Yellow),
    };
    let detail = match (&peer.last_error, peer.address) {
        (Some(error), _) if !peer.connected => printable(error),
        (_, Some(address)) => address.to_string(),
        _ => String::new(),
    };
    let left = format!("  {}  {state}", escaped(&peer.name));
    Line::styled(sides(&left, if width < NARROW { "" } else { &detail }, width), colour)
}

fn moving_row(moving: &Moving, width: usize) -> Line<'static> {
    let have = moving.bytes.saturating_sub(moving.missing_bytes);
    // A file of several exabytes is not shown to the last percent.
    let part = |of: u64| have.saturating_mul(of).checked_div(moving.bytes).unwrap_or(of);
    let full = usize::try_from(part(BAR as u64)).unwrap_or(BAR).min(BAR);
    let bar: String =
        std::iter::repeat_n('\u{2588}', full).chain(std::iter::repeat_n('\u{2591}', BAR - full)).collect();
    let right = format!("{bar} {:>3} %", part(100).min(100));
    let right = if width < NARROW { right } else { format!("{right}  {}", output::bytes(moving.bytes)) };
    // The end of a path says more than its beginning.
    let room = width.saturating_sub(cells(&right) + 3);
    let path = moving.path.to_string();
    let cut = path.char_indices().map(|(at, _)| at).find(|at| cells(&path[*at..]) < room);
    let path = if cells(&path) <= room { path } else { format!("\u{2026}{}", &path[cut.unwrap_or(path.len())..]) };
    Line::raw(sides(&format!("  {path}"), &right, width))
}

fn event_row(event: &Event, width: usize) -> Line<'static> {
    let verb = match event.kind {
        EventKind::Written => "wrote",
        EventKind::Deleted => "deleted",
        EventKind::Directory => "made",
        EventKind::Link => "linked",
        EventKind::Conflict => "conflict:",
        EventKind::Held => "held:",
        EventKind::Healed => "healed",
        EventKind::Problem => "problem:",
        EventKind::Connected => "connected",
        EventKind::Disconnected => "went away",
    };
    let time = output::local_time(event.time);
    let time = time.split(' ').nth(1).unwrap_or_default().to_owned();
    let name = event.path.as_ref().and_then(|path| path.as_path().file_name());
    let name = match (width < NARROW, &event.path, name) {
        (true, _, Some(name)) => escaped_bytes(name),
        (_, Some(path), _) => path.to_string(),
        (_, None, _) => event.detail.as_deref().map(printable).unwrap_or_default(),
    };
    let who = event.device.as_deref().map(|device| format!("{} ", escaped(device))).unwrap_or_default();
    let size = event.size.map(output::bytes).filter(|_| width >= NARROW).unwrap_or_default();
    let colour = match event.kind {
        EventKind::Conflict | EventKind::Held | EventKind::Problem => Color::Yellow,
        _ => Color::Reset,
    };
    Line::styled(sides(&format!("  {time} {who}{verb} {name}"), &size, width), colour)
}

fn inbox_row(item: &InboxItem, width: usize) -> Line<'static> {
    let place = match (&item.path, &item.folder) {
        (Some(path), _) => format!("{path}: "),
        (None, Some(folder)) => format!("{}: ", escaped(folder)),
        (None, None) => String::new(),
    };
    Line::styled(fit(&format!("  {place}{}", printable(&item.what)), width), Color::Yellow)
}

fn escaped_bytes(name: &std::ffi::OsStr) -> String {
    crate::model::path::Escaped(name.as_encoded_bytes()).to_string()
}

/// Returns a number of seconds for people, roughly.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Returns a line with something at its left and something at its right; the left yields, then the right.
fn sides(left: &str, right: &str, width: usize) -> String {
    let right_width = cells(right);
    if right_width == 0 || right_width + 8 > width {
        return fit(left, width);
    }
    let left = fit(left, width - right_width - 1);
    let blank = width - right_width - cells(&left);
    format!("{left}{}{right}", " ".repeat(blank))
}

/// Cuts a text to a number of cells; what is cut ends in `…`.
fn fit(text: &str, width: usize) -> String {
    if cells(text) <= width {
        return text.to_owned();
    }
    let (mut kept, mut used) = (String::new(), 0);
    for c in text.chars() {
        let wide = cells(c.encode_utf8(&mut [0; 4]));
        if used + wide + 1 > width {
            break;
        }
        kept.push(c);
        used += wide;
    }
    if width > 0 {
        kept.push('\u{2026}');
    }
    kept
}

/// Returns how many cells of a terminal a text takes.
fn cells(text: &str) -> usize {
    Span::raw(text).width()
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
