//! The live view on terminals of several sizes, with names that would do harm.

use std::path::Path;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::control::types::DeviceRef;
use crate::control::types::MemberStatus;
use crate::control::types::PolicyStatus;
use crate::control::types::RatesStatus;
use crate::control::types::RawPath;
use crate::control::types::SandboxStatus;
use crate::control::types::Time;
use crate::control::types::WatchStatus;
use crate::model::id::DeviceId;
use crate::model::rights::Right;

fn id(n: u8) -> DeviceId {
    DeviceId::from_public_key([n; 32])
}

fn peer(name: &str, n: u8, connected: bool) -> PeerStatus {
    PeerStatus {
        name: name.to_owned(),
        id: id(n),
        connected,
        address: connected.then(|| "192.168.1.20:25463".parse().unwrap()),
        since: None,
        last_error: (!connected).then(|| "connection refused".to_owned()),
        hint: None,
        rates: RatesStatus::default(),
    }
}

fn folder(name: &str, n: u8) -> FolderStatus {
    FolderStatus {
        name: name.to_owned(),
        id: FolderId([n; 16]),
        path: RawPath::from(Path::new("/home/me/data")),
        state: FolderState::Idle,
        in_sync: true,
        stopped_because: None,
        files: 12_345,
        dirs: 2,
        bytes: 3 << 30,
        need_files: 0,
        need_bytes: 0,
        moving: vec![],
        sent_bytes: 0,
        received_bytes: 0,
        held: 0,
        problems: 0,
        history_bytes: 0,
        history_bytes_max: 0,
        members: vec![MemberStatus { name: None, id: id(9), right: Right::Owner, connected: true, in_sync: true }],
        rests_until: None,
        rests_because: None,
        rates: RatesStatus::default(),
    }
}

fn status(folders: Vec<FolderStatus>, peers: Vec<PeerStatus>) -> Status {
    Status {
        version: "0".to_owned(),
        device: DeviceRef { name: "desk".to_owned(), id: id(1) },
        listen: vec![],
        policy: PolicyStatus::default(),
        peers,
        folders,
        sockets: vec![],
        watch: WatchStatus::default(),
        inbox: 1,
        sandbox: SandboxStatus::default(),
        rates: RatesStatus::default(),
        rotation: None,
    }
}

fn event(seq: u64, kind: EventKind, path: &str) -> Event {
    Event {
        seq,
        time: Time::from_unix_ns(1_789_000_000_000_000_000 + seq as i64 * 1_000_000_000),
        kind,
        folder: Some("Photos".to_owned()),
        path: Some(RawPath::from(Path::new(path))),
        device: Some("laptop".to_owned()),
        size: (kind == EventKind::Written).then_some(5 << 20),
        detail: None,
    }
}

/// A device with a folder that is being synced, and much to tell.
fn busy() -> View {
    let moving =
        |name: &str, missing| Moving { path: RawPath::from(Path::new(name)), bytes: 8 << 20, missing_bytes: missing };
    let syncing = |received| FolderStatus {
        state: FolderState::Syncing,
        in_sync: false,
        need_files: 40,
        need_bytes: 300 << 20,
        received_bytes: received,
        moving: vec![
            moving("/home/me/Photos/2026/holidays by the sea/a very long name of a picture.raw", 2 << 20),
            moving("/home/me/Photos/b\u{1b}[2J.jpg", 8 << 20),
            moving("/home/me/Photos/\u{65e5}\u{672c}\u{8a9e}\u{306e}\u{5199}\u{771f}.jpg", 0),
        ],
        ..folder("Photos", 1)
    };
    let stopped = FolderStatus {
        state: FolderState::Stopped,
        in_sync: false,
        stopped_because: Some("the folder is missing, or is not the one it was".to_owned()),
        ..folder("Mu\u{202e}sic", 2)
    };
    let mut view = View { footer: "q leaves".to_owned(), is_coloured: true, ..View::default() };
    let peers = || vec![peer("laptop", 2, true), peer("phone", 3, false)];
    for second in 0..6 {
        let folders = vec![syncing(second * (5 << 20)), stopped.clone(), folder("Notes", 3)];
        view.see(Duration::from_secs(second), status(folders, peers()));
    }
    view.see_inbox(vec![InboxItem {
        folder: Some("Photos".to_owned()),
        path: None,
        what: "120 deletions by laptop are held".to_owned(),
        advice: String::new(),
        detail: String::new(),
        held: None,
    }]);
    let kinds = [EventKind::Written, EventKind::Deleted, EventKind::Conflict, EventKind::Written, EventKind::Directory];
    view.see_events(
        kinds.into_iter().enumerate().map(|(n, kind)| event(n as u64, kind, "/home/me/Photos/x.jpg")).collect(),
    );
    view
}

fn drawn(view: &View, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    let text = terminal.backend().to_string();
    // Times are those of this machine.
    text.lines().map(|line| line.trim_matches('"').trim_end()).collect::<Vec<_>>().join("\n")
}

fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() == 8 && word.bytes().filter(|b| *b == b':').count() == 2;
    let words =
        |line: &str| line.split(' ').map(|w| if is_time(w) { "HH:MM:SS" } else { w }).collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_busy_device_fits_into_80_by_24() {
    insta::assert_snapshot!(without_times(&drawn(&busy(), 80, 24)), @r#"
    kinfold on desk                            1 of 2 devices  ↓ 5.00 MiB/s  ↑ 0 B/s
    Folders
      Photos  syncing                                          12345 files, 3.00 GiB
        40 files to come, 300.00 MiB, 1 min left
      Mu\u{202e}sic  stopped                                   12345 files, 3.00 GiB
        the folder is missing, or is not the one it was
      Notes  in sync                                           12345 files, 3.00 GiB
    Devices
      laptop  connected                                           192.168.1.20:25463
      phone  away                                                 connection refused
    Waits for you
      Photos: 120 deletions by laptop are held
    On its way
      /home/me/Photos/日本語の写真.jpg                    ██████████ 100 %  8.00 MiB" Hidden by multi-width symbols: [(19, " "), (21, " "), (23, " "), (25, " "), (27, " "), (29, " ")]
      …idays by the sea/a very long name of a picture.raw ███████░░░  75 %  8.00 MiB
      /home/me/Photos/b\u{1b}[2J.jpg                      ░░░░░░░░░░   0 %  8.00 MiB
    Last changes
      HH:MM:SS laptop wrote /home/me/Photos/x.jpg                           5.00 MiB
      HH:MM:SS laptop deleted /home/me/Photos/x.jpg
      HH:MM:SS laptop conflict: /home/me/Photos/x.jpg
      HH:MM:SS laptop wrote /home/me/Photos/x.jpg                           5.00 MiB
      HH:MM:SS laptop made /home/me/Photos/x.jpg

    q leaves
    "#);
}

#[test]
fn it_can_be_read_in_40_columns() {
    insta::assert_snapshot!(without_times(&drawn(&busy(), 40, 24)), @r#"
    kinfold on desk    ↓ 5.00 MiB/s  ↑ 0 B/s
    Folders
      Photos  syncing               3.00 GiB
        40 files to come, 300.00 MiB, 1 min…
      Mu\u{202e}sic  stopped        3.00 GiB
        the folder is missing, or is not th…
      Notes  in sync                3.00 GiB
    Devices
      laptop  connected
      phone  away
    Waits for you
      Photos: 120 deletions by laptop are h…
    On its way
      …tos/日本語の写真.jpg ██████████ 100 %" Hidden by multi-width symbols: [(8, " "), (10, " "), (12, " "), (14, " "), (16, " "), (18, " ")]
      …ame of a picture.raw ███████░░░  75 %
      …hotos/b\u{1b}[2J.jpg ░░░░░░░░░░   0 %
    Last changes
      HH:MM:SS laptop wrote x.jpg
      HH:MM:SS laptop deleted x.jpg
      HH:MM:SS laptop conflict: x.jpg
      HH:MM:SS laptop wrote x.jpg
      HH:MM:SS laptop made x.jpg

    q leaves
    "#);
}

#[test]
fn what_does_not_fit_is_counted() {
    insta::assert_snapshot!(without_times(&drawn(&busy(), 60, 12)), @r#"
    kinfold on desk        1 of 2 devices  ↓ 5.00 MiB/s  ↑ 0 B/s
    Folders (3 more lines)
      Photos  syncing                      12345 files, 3.00 GiB
        40 files to come, 300.00 MiB, 1 min left
    Devices (1 more line)
      laptop  connected                       192.168.1.20:25463
    Waits for you
      Photos: 120 deletions by laptop are held
    On its way (2 more lines)
      …ome/me/Photos/日本語の写真.jpg ██████████ 100 %  8.00 MiB" Hidden by multi-width symbols: [(18, " "), (20, " "), (22, " "), (24, " "), (26, " "), (28, " ")]

    q leaves
    "#);
    // Nothing is too small to be drawn in.
    for (width, height) in [(1, 1), (2, 2), (5, 3), (8, 40), (200, 4)] {
        drawn(&busy(), width, height);
    }
}

#[test]
fn a_daemon_that_starts_and_an_empty_one_are_shown() {
    let mut view = View { footer: "q leaves".to_owned(), ..View::default() };
    assert_eq!(drawn(&view, 40, 2), "the daemon is starting\n");
    view.see(Duration::ZERO, status(vec![], vec![]));
    insta::assert_snapshot!(drawn(&view, 60, 6), @r#"
    kinfold on desk             0 of 0 devices  ↓ 0 B/s  ↑ 0 B/s
    Folders
      none yet: kinfold folder add PATH --name NAME


    q leaves
    "#);
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let is_plain = |view: &View| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        buffer.content().iter().all(|cell| cell.fg == Color::Reset && cell.modifier.is_empty())
    };
    assert!(!is_plain(&busy()));
    assert!(is_plain(&View { is_coloured: false, ..busy() }));
}

#[test]
fn rates_are_of_the_last_seconds_and_survive_a_new_daemon() {
    let mut rate = Rate::default();
    assert_eq!(rate.received(), 0);
    for second in 0..20u64 {
        rate.see(Duration::from_secs(second), 0, if second < 10 { 0 } else { (second - 10) * 1000 });
    }
    assert_eq!((rate.sent(), rate.received()), (0, 1000));
    rate.see(Duration::from_secs(20), 0, 5);
    assert_eq!(rate.received(), 0);
    rate.see(Duration::from_secs(20), 0, u64::MAX);
    assert_eq!(rate.received(), 0);
}

#[test]
fn lines_are_cut_by_cells_and_not_by_bytes() {
    assert_eq!(fit("\u{65e5}\u{672c}\u{8a9e}", 5), "\u{65e5}\u{672c}\u{2026}");
    assert_eq!((fit("abc", 3).as_str(), fit("abcd", 3).as_str(), fit("abcd", 0).as_str()), ("abc", "ab\u{2026}", ""));
    assert_eq!(sides("left", "right", 20), "left           right");
    assert_eq!(sides("a long left side", "right", 20), "a long left s\u{2026} right");
    assert_eq!(sides("left", "right", 10), "left");
    assert_eq!([5, 61, 7260, 200_000].map(duration), ["5 s", "2 min", "2 h 1 min", "2 days"]);
}
