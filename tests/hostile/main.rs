//! A device that is paired, shares a folder, and means harm: all that it can say, said to a real daemon.
//!
//! It stands on this library's own tunnel and encodes what it says as this library does; then it changes bytes, for a
//! value that is refused cannot be made here either. After each attempt nothing lies outside of the folder, the daemon
//! lives, and two honest devices go on.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../e2e/lab.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod lab;
#[path = "../e2e/puppet.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod puppet;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use kinfold::model::id::{AuthorId, ChunkId, ContentId, DeviceTag, FolderId, Incarnation, Sequence};
use kinfold::model::limits::{CHUNK_LEN_MAX, VERSION_COUNTER_MAX};
use kinfold::model::path::RelPath;
use kinfold::model::recipe::{ChunkRef, PageRef, Recipe};
use kinfold::model::record::{Body, FileBody, Record};
use kinfold::model::rights::Members;
use kinfold::model::version::VersionVector;
use kinfold::net::connection::{FrameReader, FrameWriter};
use kinfold::wire::message::{
    Ack, ChunkHeader, FolderHello, Hello, Message, Records, SentRecord, Want, WantItem, WantRecipe,
};

use lab::{AMPLE, DATA, Device, Lab, wait_settled, wait_until};
use puppet::{Puppet, id_of};

/// Two honest devices, and one that is not and may write.
struct Stage {
    lab: Lab,
    a: Device,
    b: Device,
    puppet: Puppet,
    folder: FolderId,
}

impl Stage {
    fn new(right: &str) -> Self {
        let lab = Lab::new();
        let (a, b) = lab.running_pair();
        a.write("honest", "written by a");
        wait_settled(&[&a, &b]);
        fs::write(lab.path("canary"), "alive").unwrap();
        let puppet = Puppet::new(&lab, "puppet");
        a.ok(&["device", "add", &puppet.id().to_string(), "--name", "puppet"]);
        a.ok(&["folder", "share", DATA, &format!("puppet:{right}")]);
        let folder = a.folder(DATA).id;
        Self { lab, a, b, puppet, folder }
    }

    /// Connects, and says that it holds the folder.
    fn session(&self) -> Session {
        let connection = self.puppet.dial(id_of(&self.a), self.a.address).unwrap();
        let (reader, writer) = connection.split();
        let mut session = Session { reader, writer, folder: self.folder, said: 0 };
        let hello = FolderHello {
            folder: self.folder,
            name: DATA.to_owned(),
            holds: true,
            incarnation: Incarnation(0xbad),
            life: kinfold::model::id::Life::default(),
            last: Sequence(0),
            received: None,
            members: Members::default(),
        };
        session.send(&Message::Hello(Hello { name: "puppet".to_owned(), folders: vec![hello] }));
        session
    }

    /// Nothing was destroyed, nothing lies outside, and the others go on.
    fn check(&self, what: &str) {
        assert!(self.a.runs() && self.b.runs(), "{what}: a daemon is gone\n{}", self.a.log_tail());
        assert_eq!(fs::read_to_string(self.lab.path("canary")).unwrap(), "alive", "{what}");
        for name in ["evil", "b/evil", "a/evil"] {
            assert!(!self.lab.path(name).exists(), "{what}: {name} lies outside of the folder");
        }
        assert_eq!(self.a.read("honest").as_deref(), Some("written by a"), "{what}");
        let probe = format!("after {what}").replace(['/', ' '], "-");
        self.b.write(&probe, what);
        wait_until("the honest devices go on", || self.a.has(&probe));
    }
}

struct Session {
    reader: FrameReader,
    writer: FrameWriter,
    folder: FolderId,
    said: u64,
}

impl Session {
    fn send(&mut self, message: &Message) {
        let (header, body) = message.encode();
        self.send_raw(message.kind(), &header, &body);
    }

    /// Sends what may be nonsense. The other end may have closed.
    fn send_raw(&mut self, kind: u8, header: &[u8], body: &[u8]) {
        self.writer.send(kind, header, body).and_then(|()| self.writer.flush()).ok();
    }

    fn records(&mut self, records: Vec<SentRecord>) -> Message {
        let after = Sequence(self.said);
        self.said += records.len() as u64;
        Message::Records(Records { folder: self.folder, after, through: Sequence(self.said), more: false, records })
    }

    /// Says that it holds something, with bytes of the message exchanged for others of the same length.
    fn say_with(&mut self, record: SentRecord, find: &[u8], put: &[u8]) {
        assert_eq!(find.len(), put.len());
        let message = self.records(vec![record]);
        let (mut header, mut body) = message.encode();
        let mut count = 0;
        for part in [&mut header, &mut body] {
            while let Some(at) = part.windows(find.len()).position(|bytes| bytes == find && find != put) {
                part[at..at + find.len()].copy_from_slice(put);
                count += 1;
            }
        }
        assert!(count > 0, "there was nothing to exchange");
        self.send_raw(message.kind(), &header, &body);
    }

    fn say(&mut self, record: SentRecord) {
        let message = self.records(vec![record]);
        self.send(&message);
    }

    /// Whether the other end closes, rather than answer a ping.
    fn is_cut_off(&mut self) -> bool {
        self.send(&Message::Ping);
        self.reader.set_read_timeout(Some(AMPLE)).unwrap();
        loop {
            match self.reader.read() {
                Ok(frame) if frame.kind == Message::Pong.kind() => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    /// Answers whatever is asked for, for a while; a chunk with the bytes that stand beside it.
    fn serve(&mut self, patience: Duration, mut answer: impl FnMut(Message) -> Vec<(Message, Vec<u8>)>) {
        self.reader.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < patience {
            let Ok(frame) = self.reader.read() else { continue };
            let Ok(Some(message)) = Message::decode(frame.kind, &frame.header, &frame.body) else { continue };
            for (message, bytes) in answer(message) {
                let (header, body) = message.encode();
                self.send_raw(message.kind(), &header, if bytes.is_empty() { &body } else { &bytes });
            }
        }
    }
}

fn rel(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn version(counters: &[(u64, u64)]) -> VersionVector {
    VersionVector::parse(counters.iter().map(|(author, n)| (AuthorId(*author), *n)).collect()).unwrap()
}

fn plain(path: &str, count: u64, body: Body) -> SentRecord {
    let record = Record { path: rel(path), version: version(&[(66, count)]), by: DeviceTag([6; 5]), body };
    SentRecord { record, recipe: None, content: None, left_out: false }
}

fn recipe(content: &[u8]) -> Recipe {
    let len = u32::try_from(content.len()).unwrap();
    Recipe::parse(vec![ChunkRef { id: ChunkId::of(content), len }]).unwrap()
}

fn file_body(content: &[u8]) -> Body {
    let recipe = recipe(content);
    Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: recipe.size(), content: recipe.content_id() })
}

/// A small file with its content along.
fn file(path: &str, count: u64, content: &[u8]) -> SentRecord {
    let sent = plain(path, count, file_body(content));
    SentRecord { recipe: Some(recipe(content)), content: Some(content.to_vec()), ..sent }
}

#[test]
fn paths_that_lead_out_of_the_folder_are_refused_as_they_arrive() {
    let stage = Stage::new("writer");
    // Each as long as the one that is allowed, which it takes the place of.
    let tricks: &[(&str, &[u8])] = &[
        ("xx/evil", b"../evil"),
        ("xxx/evil", b"/../evil"),
        ("a/xx/evil", b"a/../evil"),
        ("x/evil", b"./evil"),
        ("xx/evil", b"x//evil"),
        ("xx/evil", b"xx/evi/"),
        ("x_evil", b"x\0evil"),
        (".kinfol_/evil", b".kinfold/evil"),
    ];
    for (n, (path, trick)) in tricks.iter().enumerate() {
        let mut session = stage.session();
        session.say_with(file(path, 1, b"evil"), path.as_bytes(), trick);
        assert!(session.is_cut_off(), "{}", String::from_utf8_lossy(trick));
        stage.check(&format!("path {n}"));
    }
    let refusals = stage.a.log_text().matches("the device broke the protocol").count();
    assert!(refusals >= tricks.len(), "{refusals}\n{}", stage.a.log_tail());
    assert!(!stage.a.at(".kinfold/evil").exists());
}

#[test]
fn a_link_that_leads_out_of_the_folder_is_never_followed() {
    let stage = Stage::new("writer");
    let mut session = stage.session();
    let out = stage.lab.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    for (count, (link, target)) in [("up", ".."), ("out", &*out), ("self", "self")].into_iter().enumerate() {
        session.say(plain(link, count as u64 + 1, Body::Symlink { target: target.as_bytes().into() }));
        wait_until("the link is there", || stage.a.at(link).is_symlink());
    }
    // What is to lie below what is a link here, or becomes one in the middle.
    for (count, path) in ["up/evil", "out/evil", "self/evil", "up/canary", "out/canary"].iter().enumerate() {
        session.say(file(path, count as u64 + 10, b"evil"));
    }
    session.say(plain("turns", 30, Body::Dir { mode: 0o755 }));
    session.say(file("turns/evil", 31, b"evil"));
    session.say(plain("turns/evil", 32, Body::Tombstone));
    session.say(plain("turns", 33, Body::Symlink { target: out.as_bytes().into() }));
    session.say(file("turns/evil", 34, b"evil"));
    assert!(!session.is_cut_off());
    stage.check("links");
    // A link that was swapped in by somebody who may write here, under a path that the index knows as a directory.
    session.say(plain("known", 40, Body::Dir { mode: 0o755 }));
    wait_until("the directory is there", || stage.a.at("known").is_dir());
    fs::remove_dir(stage.a.at("known")).unwrap();
    std::os::unix::fs::symlink(&out, stage.a.at("known")).unwrap();
    session.say(file("known/evil", 41, b"evil"));
    session.say(file("known/canary", 42, b"dead"));
    stage.check("links that were swapped in");
}

#[test]
fn content_that_is_not_what_was_said_never_comes_to_lie_in_the_folder() {
    let stage = Stage::new("writer");
    // Along with its record.
    let mut session = stage.session();
    session.say_with(file("lie", 1, b"what it says"), b"what it says", b"what it lies");
    assert!(session.is_cut_off());
    stage.check("content beside its record");
    assert!(!stage.a.has("lie"));
    // When it is asked for: other bytes, bytes that were never asked for, and pages of another recipe.
    let (good, bad) = (vec![b'g'; 3000], vec![b'b'; 3000]);
    let mut session = stage.session();
    session.say(plain("asked", 1, file_body(&good)));
    let chunk = |content: &[u8]| ChunkRef { id: ChunkId::of(content), len: 3000 };
    let mut asked = 0;
    session.serve(Duration::from_secs(3), |message| match message {
        Message::WantRecipe(WantRecipe { request, .. }) => {
            asked += 1;
            let pages = vec![PageRef::of(&[chunk(if asked == 1 { &bad } else { &good })])];
            vec![(Message::Recipe { request, pages }, Vec::new())]
        }
        Message::WantPages { want, .. } => {
            vec![(Message::Page { request: want.request, page: 0, chunks: vec![chunk(&bad)] }, Vec::new())]
        }
        _ => Vec::new(),
    });
    assert!(asked > 0, "nothing was asked for");
    stage.check("pages of another recipe");
    assert!(!stage.a.has("asked"));
    let mut session = stage.session();
    session.say(SentRecord { recipe: Some(recipe(&good)), ..plain("asked", 2, file_body(&good)) });
    let mut asked = 0;
    session.serve(Duration::from_secs(3), |message| match message {
        Message::Want(Want { request, .. }) => {
            asked += 1;
            // The right one of the request, with other bytes; and one of a request that was never made.
            let header = |request| Message::Chunk(ChunkHeader { request, item: 0, chunk: 0 });
            vec![(header(request + 1), bad.clone()), (header(request), bad.clone())]
        }
        _ => Vec::new(),
    });
    stage.check("other bytes");
    assert!(asked > 0 && !stage.a.has("asked"));
}

#[test]
fn counts_and_times_at_their_ends_poison_nothing() {
    let stage = Stage::new("writer");
    // A count beyond all: refused as it arrives. At the very end of what is allowed: taken, and still edited here.
    let mut session = stage.session();
    let top = SentRecord {
        record: Record { version: version(&[(66, VERSION_COUNTER_MAX)]), ..file("top", 1, b"top").record },
        ..file("top", 1, b"top")
    };
    session.say(top);
    wait_until("it is here", || stage.a.read("top").as_deref() == Some("top"));
    stage.a.write("top", "edited by a");
    wait_until("the edit goes on", || stage.b.read("top").as_deref() == Some("edited by a"));
    for (count, mtime_ns) in [i64::MIN, -1, i64::MAX].into_iter().enumerate() {
        let content = format!("time {count}");
        let mut sent = file("time", count as u64 + 2, content.as_bytes());
        if let Body::File(body) = &mut sent.record.body {
            body.mtime_ns = mtime_ns;
        }
        session.say(sent);
        wait_until("it is here", || stage.a.read("time").as_deref() == Some(&*content));
        wait_until("it goes on", || stage.b.read("time").as_deref() == Some(&*content));
    }
    assert!(!session.is_cut_off());
    // A size that nothing has, and one that does not go with its chunks.
    for size in [u64::MAX, i64::MAX as u64, 0] {
        let mut session = stage.session();
        let mut sent = file("size", 1, b"size");
        if let Body::File(body) = &mut sent.record.body {
            body.size = size;
        }
        session.say(sent);
        assert!(session.is_cut_off(), "{size}");
        stage.check(&format!("size {size}"));
    }
    assert!(!stage.a.has("size"));
}

#[test]
fn requests_for_what_is_not_there_or_not_shared_are_answered_alike() {
    let stage = Stage::new("reader");
    let mut session = stage.session();
    let mut answers = BTreeMap::new();
    let contents = [("random", ContentId([9; 32])), ("of another folder", recipe(b"written by a").content_id())];
    for (n, (what, content)) in contents.into_iter().enumerate() {
        let folder = FolderId([n as u8; 16]);
        let want = WantRecipe { request: n as u64, folder, path: rel("honest"), content };
        session.send(&Message::WantRecipe(want));
        let run = kinfold::wire::message::Run { first: 0, offset: 0, lens: vec![12] };
        let item = WantItem { path: rel("honest"), content, runs: vec![run] };
        session.send(&Message::Want(Want { request: 100 + n as u64, folder, items: vec![item] }));
        session.send(&Message::Ping);
        let mut kinds = Vec::new();
        loop {
            let frame = session.reader.read().unwrap();
            if frame.kind == Message::Pong.kind() {
                break;
            }
            // What is announced of the folder that it shares is no answer.
            if matches!(
                Message::decode(frame.kind, &frame.header, &frame.body),
                Ok(Some(Message::Missing { .. } | Message::Recipe { .. } | Message::Page { .. } | Message::Chunk(..)))
            ) {
                kinds.push(frame.kind);
            }
        }
        answers.insert(what, kinds);
    }
    assert_eq!(answers["random"], answers["of another folder"]);
    stage.check("requests");
}

#[test]
fn a_reader_changes_nothing_whatever_it_says() {
    let stage = Stage::new("reader");
    let mut session = stage.session();
    // As itself, as another, as if it had seen all there is.
    let held = version(&[(66, 1)]);
    for (count, (path, body)) in [
        ("honest", file_body(b"changed")),
        ("honest", Body::Tombstone),
        ("new", file_body(b"new")),
        ("dir", Body::Dir { mode: 0o755 }),
        ("link", Body::Symlink { target: (*b"honest").into() }),
    ]
    .into_iter()
    .enumerate()
    {
        let record = Record {
            path: rel(path),
            version: held.after_change(AuthorId(77), count as u64 + 1).unwrap(),
            by: DeviceTag::of(&id_of(&stage.b)),
            body,
        };
        session.say(SentRecord { record, recipe: None, content: None, left_out: false });
    }
    assert!(!session.is_cut_off());
    stage.check("a reader");
    for path in ["new", "dir", "link"] {
        assert!(!stage.a.has(path), "{path}");
    }
    assert_eq!(stage.a.read("honest").as_deref(), Some("written by a"));
    // And it reads no less for it.
    let ack = Message::Ack(Ack { folder: stage.folder, received: Sequence(0), last: Sequence(5), tree: [0; 32] });
    session.send(&ack);
    assert!(!session.is_cut_off());
}

#[test]
fn names_that_would_speak_to_a_terminal_are_told_in_escapes() {
    let stage = Stage::new("writer");
    let mut session = stage.session();
    let names = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "line\nkinfold: all is well",
        "\u{202e}gpj.exe",
        "<script>alert(1)</script>",
        "\u{9b}31m",
    ];
    for (count, name) in names.iter().enumerate() {
        session.say(file(name, count as u64 + 1, b"x"));
        wait_until("it is here", || stage.a.has(name));
        stage.a.write(name, "mine");
    }
    // What cannot be synced is named in the inbox.
    let socket = stage.a.at("\u{1b}[31msocket\nkinfold: all is well");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    wait_until("it is told", || stage.a.status().inbox > 0);
    let said = [
        stage.a.log_text(),
        stage.a.cli(&["inbox"]).stdout,
        stage.a.cli(&["status"]).stdout,
        stage.a.cli(&["history", stage.a.root_text()]).stdout,
    ];
    for text in said {
        let bad = text
            .chars()
            .find(|c| (c.is_control() && *c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
        assert_eq!(bad, None, "{text}");
        assert!(!text.lines().any(|line| line.starts_with("kinfold: all is well")), "{text}");
    }
    // What programs get is the names as they are, and valid.
    let inbox = stage.a.json(&["inbox"]);
    assert!(inbox.to_string().contains("socket"), "{inbox}");
    fs::remove_file(&socket).unwrap();
    stage.check("names");
}

#[test]
fn half_frames_huge_frames_and_floods_of_small_ones_end_the_session_and_nothing_else() {
    let stage = Stage::new("writer");
    // A chunk nobody asked for, as long as one may be; thousands of empty messages; pings without end.
    let mut session = stage.session();
    session.send_raw(0x25, &[0; 8], &vec![0; CHUNK_LEN_MAX]);
    for n in 0..20_000u64 {
        let kind = if n % 2 == 0 { 0x30 } else { 0x7f };
        if session.writer.send(kind, b"", b"").is_err() {
            break;
        }
    }
    session.writer.flush().ok();
    stage.check("floods");
    // A frame that is begun and never ended.
    let mut session = stage.session();
    session.writer.begin_frame(0x10, b"", 1 << 20).unwrap();
    session.writer.flush().ok();
    drop(session);
    stage.check("half a frame");
    // The same changes, said again and again.
    let mut session = stage.session();
    let message = session.records(vec![file("again", 1, b"again")]);
    for _ in 0..200 {
        session.send(&message);
    }
    wait_until("it is here", || stage.a.read("again").as_deref() == Some("again"));
    stage.check("replays");
}

#[test]
fn deletions_of_everything_are_held_until_a_person_looks() {
    let stage = Stage::new("writer");
    for n in 0..300 {
        stage.a.write(&format!("many/{n}"), format!("content {n}"));
    }
    wait_settled(&[&stage.a, &stage.b]);
    let mut session = stage.session();
    // It learns what it has to have seen to delete.
    let mut held = Vec::new();
    session.serve(Duration::from_secs(3), |message| {
        if let Message::Records(records) = message {
            held.extend(records.records.into_iter().map(|sent| sent.record));
        }
        Vec::new()
    });
    assert!(held.len() >= 300, "{}", held.len());
    let deletions =
        held.into_iter().filter(|record| record.path.as_bytes() != b"honest").enumerate().map(|(n, record)| {
            let version = record.version.after_change(AuthorId(66), n as u64 + 1).unwrap();
            let record = Record { version, body: Body::Tombstone, by: DeviceTag([6; 5]), ..record };
            SentRecord { record, recipe: None, content: None, left_out: false }
        });
    for deletion in deletions.collect::<Vec<_>>() {
        session.say(deletion);
    }
    wait_until("they are held", || stage.a.cli(&["inbox"]).stdout.contains("held"));
    let left = (0..300).filter(|n| stage.a.has(&format!("many/{n}"))).count();
    assert!(left >= 200, "{left} of 300 files are left");
    stage.check("deletions");
}
