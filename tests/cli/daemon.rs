//! Commands that ask a daemon, against one that answers as the test wants.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use kinfold::control::types::ApiError;
use kinfold::control::types::ApiErrorKind;
use kinfold::control::types::AskHistory;
use kinfold::control::types::Conflict;
use kinfold::control::types::DeviceRef;
use kinfold::control::types::Event;
use kinfold::control::types::HistoryEntry;
use kinfold::control::types::InboxItem;
use kinfold::control::types::KeepConflict;
use kinfold::control::types::LogLine;
use kinfold::control::types::MergeConflict;
use kinfold::control::types::MergedConflict;
use kinfold::control::types::Offer;
use kinfold::control::types::RawPath;
use kinfold::control::types::ReleaseFolder;
use kinfold::control::types::Released;
use kinfold::control::types::Restore;
use kinfold::control::types::Restored;
use kinfold::control::types::Status;
use kinfold::control::types::SyncState;
use kinfold::control::types::Time;
use kinfold::control::types::WouldRestore;
use kinfold::control::types::{Damaged, Verified, Verify};
use kinfold::daemon::control;
use kinfold::daemon::control::Api;
use kinfold::model::id::DeviceId;
use kinfold::model::id::FolderId;
use kinfold::model::rights::Right;
use tokio::sync::watch;

use crate::Device;

/// What the daemon answers, and what it was asked to do.
#[derive(Default)]
struct Fake {
    inbox: Vec<InboxItem>,
    conflicts: Vec<Conflict>,
    offers: Vec<Offer>,
    history: Vec<HistoryEntry>,
    log: Vec<LogLine>,
    events: Vec<Event>,
    verified: Vec<Verified>,
    /// How many questions are answered with "not yet".
    not_yet: Mutex<u32>,
    refuses_reload: bool,
    done: Mutex<Vec<String>>,
}

impl Fake {
    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }
}

impl Api for Fake {
    fn status(&self) -> Result<Status, ApiError> {
        Err(ApiError::new(ApiErrorKind::Unavailable, "the daemon is still starting").with_hint("try again in a moment"))
    }
    fn inbox(&self) -> Result<Vec<InboxItem>, ApiError> {
        Ok(self.inbox.clone())
    }
    fn offers(&self) -> Result<Vec<Offer>, ApiError> {
        Ok(self.offers.clone())
    }
    fn sync_state(&self, folder: Option<&str>) -> Result<SyncState, ApiError> {
        if folder == Some("nothing") {
            return Err(ApiError::new(ApiErrorKind::NotFound, "there is no folder `nothing` here"));
        }
        let mut not_yet = self.not_yet.lock().unwrap();
        let in_sync = *not_yet == 0;
        *not_yet = not_yet.saturating_sub(1);
        Ok(SyncState { in_sync, why: (!in_sync).then(|| "laptop lacks 3 files".to_owned()) })
    }
    fn conflicts(&self, _: Option<&str>) -> Result<Vec<Conflict>, ApiError> {
        Ok(self.conflicts.clone())
    }
    fn log(&self, _: Option<u64>, _: usize) -> Result<Vec<LogLine>, ApiError> {
        Ok(self.log.clone())
    }
    fn events(&self, after: Option<u64>, _: usize) -> Result<Vec<Event>, ApiError> {
        let after = after.unwrap_or(0);
        Ok(self.events.iter().filter(|event| event.seq > after).cloned().collect())
    }
    fn scan(&self, folder: &str) -> Result<(), ApiError> {
        self.note(format!("scan {folder}"));
        Ok(())
    }
    fn release(&self, release: ReleaseFolder) -> Result<Released, ApiError> {
        self.note(format!("release {} reject={}", release.folder, release.reject));
        let held = Released { deleted: 1000, rewritten: 1 };
        Ok(if release.folder == "data" { held } else { Released::default() })
    }
    fn verify(&self, verify: Verify) -> Result<(), ApiError> {
        if verify.folder.as_deref() == Some("nothing") {
            return Err(ApiError::new(ApiErrorKind::NotFound, "there is no folder `nothing` here"));
        }
        self.note(format!("verify {:?} heal={}", verify.folder, verify.heal));
        Ok(())
    }
    fn verified(&self, _: Option<&str>) -> Result<Vec<Verified>, ApiError> {
        let mut not_yet = self.not_yet.lock().unwrap();
        let running = *not_yet > 0;
        *not_yet = not_yet.saturating_sub(1);
        Ok(self.verified.iter().map(|one| Verified { running, ..one.clone() }).collect())
    }
    fn keep(&self, keep: KeepConflict) -> Result<(), ApiError> {
        self.note(format!("keep {} {:?}", keep.path, keep.keep));
        Ok(())
    }
    fn merge(&self, merge: MergeConflict) -> Result<MergedConflict, ApiError> {
        let Some(found) = self.conflicts.iter().find(|one| [&one.path, &one.of].contains(&&merge.path)) else {
            let error = ApiError::new(ApiErrorKind::Unavailable, "a.txt: the edits overlap at line 3");
            return Err(error.with_hint("edit the file until it holds both"));
        };
        if !merge.dry_run {
            self.note(format!("merge {}", merge.path));
        }
        Ok(MergedConflict { path: found.of.clone(), copy: found.path.clone(), size: 2048 })
    }
    fn history(&self, ask: AskHistory) -> Result<Vec<HistoryEntry>, ApiError> {
        let AskHistory { path, all, from } = ask;
        self.note(match (all, from) {
            (false, None) => format!("history {path}"),
            (all, from) => format!("history {path} all={all} from {from:?}"),
        });
        Ok(self.history.clone())
    }
    fn restore(&self, restore: Restore) -> Result<Restored, ApiError> {
        let to = restore.to.unwrap_or_else(|| restore.path.clone());
        let at = restore.at.map(|at| at.to_string());
        // It is asked to put it where a daemon may write.
        let is_own = to.to_string().contains("/state/restored-");
        let place = if is_own { "a place of its own".to_owned() } else { to.to_string() };
        let from = restore.from.iter().map(|from| format!(" from {from}")).collect::<String>();
        self.note(format!("restore {} at {at:?} to {place}{from}", restore.path));
        let listed = WouldRestore {
            path: restore.path.clone(),
            time: Time("2026-05-31T18:00:00Z".parse().unwrap()),
            device: "laptop".to_owned(),
            size: 2048,
            replaces: true,
            from: restore.from.clone(),
        };
        let listed = if restore.dry_run { vec![listed] } else { vec![] };
        Ok(Restored { files: 1, bytes: 2048, to, listed, from: restore.from.into_iter().collect() })
    }
    fn reload(&self) -> Result<(), ApiError> {
        self.note("reload".to_owned());
        match self.refuses_reload {
            true => Err(ApiError::new(ApiErrorKind::Failed, "port 25463 is in use")),
            false => Ok(()),
        }
    }
    fn shutdown(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

/// Takes the device's socket.
fn bind(device: &Device) -> UnixListener {
    for _ in 0..1000 {
        match control::bind(&device.path("home/kinfold.sock")) {
            // Whatever another test has just started holds all that is locked here, until it has become its program.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(Duration::from_millis(10)),
            listener => return listener.unwrap(),
        }
    }
    panic!("another daemon is running");
}

/// Runs `test` while `fake` is the device's daemon, and returns what that was asked to do.
fn with_daemon(device: &Device, fake: Fake, test: impl FnOnce()) -> Vec<String> {
    let listener = bind(device);
    let fake = Arc::new(fake);
    let api: Arc<dyn Api> = Arc::<Fake>::clone(&fake);
    let (_begin, begun) = watch::channel(true);
    let (stop, stopped) = watch::channel(false);
    let server = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(control::serve(listener, api, begun, stopped)).unwrap();
    });
    test();
    stop.send(true).unwrap();
    server.join().unwrap();
    let done = fake.done.lock().unwrap();
    done.iter().map(|what| device.stable(what)).collect()
}

fn raw(path: &Path) -> RawPath {
    RawPath::from(path)
}

#[test]
fn a_running_daemon_takes_changes_at_once() {
    let device = Device::new();
    device.make("data");
    let done = with_daemon(&device, Fake::default(), || {
        device.ok(&["folder", "add", "data", "--name", "data"]);
        device.ok(&["folder", "scan", "data"]);
    });
    assert_eq!(done, ["reload", "scan data"]);
}

#[test]
fn a_change_that_the_daemon_does_not_take_is_told() {
    let device = Device::new();
    device.make("data");
    let fake = Fake { refuses_reload: true, ..Fake::default() };
    with_daemon(&device, fake, || {
        sees!(device, ["folder", "add", "data", "--name", "data"], @r#"
        exit 1
        --- stderr
        error: the change was saved, but the running daemon did not take it: port 25463 is in use
        "#);
    });
    assert!(device.ok(&["folder", "list"]).contains("data"));
}

#[test]
fn waiting_ends_when_all_is_in_sync_or_time_is_up() {
    let device = Device::new();
    let fake = Fake { not_yet: Mutex::new(2), ..Fake::default() };
    with_daemon(&device, fake, || {
        sees!(device, ["wait", "nothing"], @r#"
        exit 1
        --- stderr
        error: there is no folder `nothing` here
        "#);
        sees!(device, ["wait", "--timeout", "0"], @r#"
        exit 3
        --- stderr
        error: not in sync after 0 s: laptop lacks 3 files
        hint: see `kinfold status`
        "#);
        sees!(device, ["wait", "data"], @"exit 0");
    });
}

#[test]
fn what_is_held_is_released_or_rejected() {
    let device = Device::new();
    let done = with_daemon(&device, Fake::default(), || {
        sees!(device, ["folder", "release", "data"], @r#"
        exit 0
        --- stdout
        released in `data`: 1000 deletions and 1 rewritten file
        "#);
        sees!(device, ["folder", "release", "data", "--reject"], @r#"
        exit 0
        --- stdout
        rejected in `data`: 1000 deletions and 1 rewritten file; the other devices take back what lies here
        "#);
        sees!(device, ["folder", "release", "more"], @r#"
        exit 0
        --- stdout
        nothing is held in `more`
        "#);
    });
    assert_eq!(done, ["release data reject=false", "release data reject=true", "release more reject=false"]);
}

#[test]
fn what_waits_for_a_person_ends_with_4() {
    let device = Device::new();
    let item = InboxItem {
        folder: Some("data".to_owned()),
        path: Some(raw(Path::new("/data/a\u{1b}b"))),
        what: "cannot be read".to_owned(),
        advice: "check its permissions, and the disk".to_owned(),
        detail: "permission denied".to_owned(),
        held: None,
    };
    with_daemon(&device, Fake::default(), || {
        sees!(device, ["inbox"], @"exit 0");
        sees!(device, ["inbox", "--json"], @r#"
        exit 0
        --- stdout
        []
        "#);
        sees!(device, ["conflicts"], @"exit 0");
        sees!(device, ["status"], @r#"
        exit 1
        --- stderr
        error: the daemon is still starting
        hint: try again in a moment
        "#);
    });
    with_daemon(&device, Fake { inbox: vec![item], ..Fake::default() }, || {
        sees!(device, ["inbox"], @r#"
        exit 4
        --- stdout
        /data/a\u{1b}b: cannot be read
          permission denied
          what to do: check its permissions, and the disk
        "#);
        sees!(device, ["inbox", "--json"], @r#"
        exit 4
        --- stdout
        [
          {
            "folder": "data",
            "path": "/data/a\u001bb",
            "what": "cannot be read",
            "advice": "check its permissions, and the disk",
            "detail": "permission denied"
          }
        ]
        "#);
    });
}

#[test]
fn conflicts_are_listed_shown_and_settled() {
    let device = Device::new();
    device.make("data");
    let (copy, of) = (device.path("data/a.conflict-20260531-180000-laptop.txt"), device.path("data/a.txt"));
    std::fs::write(&copy, "mine").unwrap();
    let conflict = Conflict {
        folder: "data".to_owned(),
        path: raw(&copy),
        of: raw(&of),
        device: "laptop".to_owned(),
        time: Time("2026-05-31T18:00:00Z".parse().unwrap()),
        size: 4,
        is_mine: false,
        winner: None,
    };
    let done = with_daemon(&device, Fake { conflicts: vec![conflict], ..Fake::default() }, || {
        sees!(device, ["conflicts"], @r#"
        exit 4
        --- stdout
        data  2026-05-31 18:00:00 on laptop  [dir]/data/a.conflict-20260531-180000-laptop.txt  can be merged
        "#);
        sees!(device, ["conflicts", "list", "--json"], @r#"
        exit 4
        --- stdout
        [
          {
            "folder": "data",
            "path": "[dir]/data/a.conflict-20260531-180000-laptop.txt",
            "of": "[dir]/data/a.txt",
            "device": "laptop",
            "time": "2026-05-31T18:00:00Z",
            "size": 4,
            "is_mine": false
          }
        ]
        "#);
        sees!(device, ["conflicts", "show", "data/b.txt"], @r#"
        exit 1
        --- stderr
        error: there is no conflict at [dir]/data/b.txt
        hint: see `kinfold conflicts list`
        "#);
        let shown = device.run(&["conflicts", "show", "data/a.txt"]);
        assert!(shown.contains("a.txt") && shown.contains("not there") && shown.contains("on laptop"), "{shown}");
        assert!(shown.contains("the edits do not overlap; `kinfold conflicts merge"), "{shown}");
        sees!(device, ["conflicts", "merge", "data/a.txt", "--dry-run"], @r#"
        exit 0
        --- stdout
        would merge [dir]/data/a.conflict-20260531-180000-laptop.txt into [dir]/data/a.txt, 2.00 KiB
        "#);
        sees!(device, ["conflicts", "merge", "data/a.txt"], @r#"
        exit 0
        --- stdout
        merged [dir]/data/a.conflict-20260531-180000-laptop.txt into [dir]/data/a.txt, 2.00 KiB
        "#);
        sees!(device, ["conflicts", "merge", "data/a.txt", "--json"], @r#"
        exit 0
        --- stdout
        {
          "path": "[dir]/data/a.txt",
          "copy": "[dir]/data/a.conflict-20260531-180000-laptop.txt",
          "size": 2048
        }
        "#);
        sees!(device, ["conflicts", "merge", "data/b.txt"], @r#"
        exit 1
        --- stderr
        error: a.txt: the edits overlap at line 3
        hint: edit the file until it holds both
        "#);
        sees!(device, ["conflicts", "keep", "data/a.txt", "theirs"], @"exit 0");
        sees!(device, ["conflicts", "keep", "data/a.txt", "merged"], @"exit 0");
    });
    assert_eq!(
        done,
        [
            "merge [dir]/data/a.txt",
            "merge [dir]/data/a.txt",
            "keep [dir]/data/a.txt Theirs",
            "keep [dir]/data/a.txt Merged"
        ]
    );
}

#[test]
fn the_past_is_listed_and_brought_back() {
    let device = Device::new();
    let entry = HistoryEntry {
        time: Time("2026-05-31T18:00:00.123456789Z".parse().unwrap()),
        device: "laptop".to_owned(),
        size: 2048,
        kind: "file".to_owned(),
        path: raw(&device.path("data/gone/a.txt")),
        id: "1".to_owned(),
        held_by: vec!["here".to_owned(), "nas".to_owned()],
    };
    let done = with_daemon(&device, Fake { history: vec![entry], ..Fake::default() }, || {
        sees!(device, ["history", "data/gone/a.txt"], @r#"
        exit 0
        --- stdout
        2026-05-31 18:00:00.124  2.00 KiB  laptop
        "#);
        sees!(device, ["history", "data/gone/a.txt", "--json"], @r#"
        exit 0
        --- stdout
        [
          {
            "time": "2026-05-31T18:00:00.123456789Z",
            "device": "laptop",
            "size": 2048,
            "kind": "file",
            "path": "[dir]/data/gone/a.txt",
            "id": "1",
            "held_by": [
              "here",
              "nas"
            ]
          }
        ]
        "#);
        sees!(device, ["history", "data/gone/a.txt", "--all"], @r#"
        exit 0
        --- stdout
        2026-05-31 18:00:00.124  2.00 KiB  laptop  here, nas
        "#);
        sees!(device, ["history", "data/gone/a.txt", "--from", "nas"], @r#"
        exit 0
        --- stdout
        2026-05-31 18:00:00.124  2.00 KiB  laptop
        "#);
        sees!(device, ["restore", "data/gone", "--dry-run", "--from", "nas"], @r#"
        exit 0
        --- stdout
        [dir]/data/gone  2.00 KiB  2026-05-31 18:00:00 by laptop, from nas  what lies there goes to history
        would restore 1 file, 2.00 KiB, from nas, to [dir]/data/gone
        "#);
        sees!(device, ["restore", "data/gone", "--at", "2026-05-31T18:00:00.123456789Z", "--to", "back"], @r#"
        exit 0
        --- stdout
        restored 1 file, 2.00 KiB, to [dir]/back
        "#);
        sees!(device, ["restore", "data/gone", "--dry-run", "--to", "back"], @r#"
        exit 0
        --- stdout
        [dir]/data/gone  2.00 KiB  2026-05-31 18:00:00 by laptop  what lies there goes to history
        would restore 1 file, 2.00 KiB, to [dir]/back
        "#);
        sees!(device, ["restore", "data/gone"], @r#"
        exit 0
        --- stdout
        restored 1 file, 2.00 KiB, to [dir]/data/gone
        "#);
    });
    assert_eq!(
        done[2..],
        [
            "history [dir]/data/gone/a.txt all=true from None",
            "history [dir]/data/gone/a.txt all=false from Some(\"nas\")",
            "restore [dir]/data/gone at None to [dir]/data/gone from nas",
            "restore [dir]/data/gone at Some(\"2026-05-31T18:00:00.123456789Z\") to a place of its own",
            "restore [dir]/data/gone at None to [dir]/back",
            "restore [dir]/data/gone at None to [dir]/data/gone",
        ]
    );
}

#[test]
fn offers_say_from_whom_and_with_which_right() {
    let device = Device::new();
    let from = DeviceRef { name: "laptop".to_owned(), id: DeviceId::from_public_key([1; 32]) };
    let offer = Offer { name: "photos".to_owned(), id: FolderId([9; 16]), from, right: Right::Reader };
    with_daemon(&device, Fake { offers: vec![offer], ..Fake::default() }, || {
        sees!(device, ["folder", "offers"], @r#"
        exit 0
        --- stdout
        photos  from laptop  as reader
        "#);
        sees!(device, ["folder", "offers", "--json"], @r#"
        exit 0
        --- stdout
        [
          {
            "name": "photos",
            "id": "09090909090909090909090909090909",
            "from": {
              "name": "laptop",
              "id": "kin1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqsx0c5tx"
            },
            "right": "reader"
          }
        ]
        "#);
    });
}

#[test]
fn a_line_of_the_log_says_when_where_and_what() {
    let device = Device::new();
    let line = LogLine {
        seq: 7,
        time: Time("2026-05-31T18:00:00.5Z".parse().unwrap()),
        level: "WARN".to_owned(),
        message: "cannot be read\u{202e}".to_owned(),
        folder: Some("data".to_owned()),
        path: Some("a/b\\n".to_owned()),
    };
    with_daemon(&device, Fake { log: vec![line], ..Fake::default() }, || {
        sees!(device, ["log"], @r#"
        exit 0
        --- stdout
        2026-05-31 18:00:00  WARN   data: a/b\n: cannot be read\u{202e}
        "#);
        sees!(device, ["log", "--json"], @r#"
        exit 0
        --- stdout
        {"seq":7,"time":"2026-05-31T18:00:00.5Z","level":"WARN","message":"cannot be read\u202e","folder":"data","path":"a/b\\n"}
        "#);
    });
}

#[test]
fn a_check_of_all_files_ends_with_what_it_found() {
    let device = Device::new();
    let one = Verified { folder: "data".to_owned(), begun: true, files: 3, bytes: 2048, ..Verified::default() };
    let fake = Fake { verified: vec![one.clone()], not_yet: Mutex::new(3), ..Fake::default() };
    let done = with_daemon(&device, fake, || {
        sees!(device, ["verify"], @r"
        exit 0
        --- stdout
        data: 3 files read (2.00 KiB)
        data: all is as it was written
        ");
        sees!(device, ["verify", "nothing"], @r"
        exit 1
        --- stderr
        error: there is no folder `nothing` here
        ");
    });
    assert_eq!(done, ["verify None heal=false"]);

    let damaged = vec![Damaged { path: raw(Path::new("/nowhere/data/a\u{1b}b")), bytes: 1024 }];
    let found = Verified { damaged, found: 2, healed: 1, ..one.clone() };
    let fake = Fake { verified: vec![found], ..Fake::default() };
    let done = with_daemon(&device, fake, || {
        sees!(device, ["verify", "--heal", "data"], @r"
        exit 4
        --- stdout
        data: 3 files read (2.00 KiB)
        data: 1 file is whole again; what lay there is in history
        /nowhere/data/a\u{1b}b: damaged (1.00 KiB)
        what to do: check the disk; `kinfold verify --heal` mends what a connected device has whole; if a content is right, `touch` the file
        ");
        let output = device.command(&["verify", "--json"]).output().unwrap();
        let json: Vec<Verified> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((json[0].healed, json[0].damaged.len()), (1, 1));
    });
    assert_eq!(done, [r#"verify Some("data") heal=true"#, "verify None heal=false"]);

    let stopped = Verified { stopped: true, running: true, ..one.clone() };
    let fake = Fake { verified: vec![stopped], not_yet: Mutex::new(9), ..Fake::default() };
    with_daemon(&device, fake, || {
        sees!(device, ["verify"], @r"
        exit 1
        --- stderr
        error: the folder data is missing, or is not the one it was
        hint: the check goes on when it is back; see `kinfold status`
        ");
    });

    let fake = Fake { verified: vec![Verified { begun: false, ..one }], ..Fake::default() };
    with_daemon(&device, fake, || {
        sees!(device, ["verify"], @r"
        exit 1
        --- stderr
        error: the check was broken off
        hint: see `kinfold log`
        ");
    });
}
