//! Every state that a crash in mid-commit can leave, made by hand, and what becomes of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::TempDir;

use crate::daemon::recover::recover;
use crate::disk::leftover::name_of;
use crate::disk::testing::{Folder, path};
use crate::engine::brake::Standing;
use crate::engine::chunker::chunk_all;
use crate::engine::conflict::is_copy;
use crate::engine::index::{Index, Kept, Local, Remote};
use crate::model::id::{AuthorId, DeviceId, DeviceTag, Incarnation};
use crate::model::path::RelPath;
use crate::model::record::{Body, FileBody, Record};
use crate::model::stat::Kind;
use crate::model::version::VersionVector;
use crate::store::index::SqliteIndex;

const OWN: DeviceTag = DeviceTag([1; 5]);
const THEIRS: DeviceTag = DeviceTag([2; 5]);
const US: AuthorId = AuthorId(1);
const THEM: AuthorId = AuthorId(2);

struct Lab {
    folder: Folder,
    index: SqliteIndex,
    _dir: TempDir,
}

fn version(counts: &[(AuthorId, u64)]) -> VersionVector {
    counts
        .iter()
        .fold(VersionVector::default(), |version, (author, count)| version.after_change(*author, *count).unwrap())
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let index = SqliteIndex::open(&dir.path().join("index"), Incarnation(1)).unwrap();
        Self { folder: Folder::new(), index, _dir: dir }
    }

    /// Writes a file and lets the index hold it.
    fn hold(&mut self, at: &str, bytes: &[u8]) {
        self.folder.write(at, bytes);
        self.hold_what_lies(at, file(bytes, self.folder.stat(at).mtime_ns));
    }

    fn hold_what_lies(&mut self, at: &str, body: Body) {
        let record = Record { path: path(at), version: version(&[(US, 1)]), by: OWN, body };
        let sequence = self.index.next_sequence(crate::model::id::Sequence(0)).unwrap();
        let stat = Some(self.folder.stat(at));
        let local = Local { record, sequence, stat, ignored: false, since_ns: 5 };
        self.index.set_local(&local, None).unwrap();
    }

    /// Lets the index hold that a peer has something, and has seen what lies here or not.
    fn offer(&mut self, at: &str, body: Body, has_seen: bool) {
        let counts: &[_] = if has_seen { &[(US, 1), (THEM, 7)] } else { &[(THEM, 7)] };
        let record = Record { path: path(at), version: version(counts), by: THEIRS, body };
        let peer = DeviceId::from_public_key([9; 32]);
        self.index
            .set_remote(&peer, &path(at), Some(&Remote { record, recipe: None, standing: Standing::Open }))
            .unwrap();
    }

    /// Does what the first half of a commit does: something goes to history.
    fn retire(&self, at: &str, number: u64) -> String {
        let name = name_of(100, number, &path(at));
        fs::rename(self.folder.at(at), self.kept_at(&name)).unwrap();
        name
    }

    fn kept_at(&self, name: &str) -> std::path::PathBuf {
        self.folder.at(".kinfold/history").join(name)
    }

    /// Recovers, twice, for once must be enough.
    fn recover(&mut self) {
        recover(&mut self.index, &self.folder.root, "test", OWN).unwrap();
        let (names, kept, history) = self.all();
        recover(&mut self.index, &self.folder.root, "test", OWN).unwrap();
        assert_eq!(self.all(), (names, kept, history));
    }

    fn all(&self) -> (Vec<String>, Vec<Kept>, Vec<String>) {
        (self.folder.names(""), self.index.kept(None, true).unwrap(), self.folder.names(".kinfold/history"))
    }

    fn kept(&self, at: &str) -> Vec<Kept> {
        self.index.kept(Some(&path(at)), false).unwrap()
    }

    #[track_caller]
    fn assert_kept(&self, at: &str, name: &str, bytes: &[u8]) -> Kept {
        let kept = self.kept(at);
        let [kept] = &kept[..] else { panic!("{kept:?}") };
        assert_eq!((kept.file.as_deref(), kept.until_ns), (Some(name), 100));
        assert_eq!(fs::read(self.kept_at(name)).unwrap(), bytes);
        kept.clone()
    }

    #[track_caller]
    fn assert_no_history(&self) {
        assert_eq!(self.folder.names(".kinfold/history"), Vec::<String>::new());
        assert_eq!(self.index.kept(None, true).unwrap(), []);
    }

    fn copies(&self) -> Vec<Vec<u8>> {
        let names = self.folder.names("");
        names
            .iter()
            .filter(|name| RelPath::parse(name.as_bytes()).is_ok_and(|name| is_copy(&name)))
            .map(|name| self.folder.read(name))
            .collect()
    }
}

fn file(bytes: &[u8], mtime_ns: i64) -> Body {
    let content = chunk_all(bytes).content_id();
    Body::File(FileBody { mode: 0o644, mtime_ns, size: bytes.len() as u64, content })
}

#[test]
fn what_was_replaced_gets_its_row() {
    let mut lab = Lab::new();
    lab.hold("d/f", b"old");
    lab.offer("d/f", file(b"new!", 1), true);
    let held = lab.index.local(&path("d/f")).unwrap().unwrap();
    let name = lab.retire("d/f", 0);
    lab.folder.write("d/f", b"new!");
    lab.recover();
    let kept = lab.assert_kept("d/f", &name, b"old");
    assert_eq!((kept.body, kept.by, kept.since_ns), (held.record.body, OWN, 5));
    assert_eq!(lab.folder.read("d/f"), b"new!");
}

#[test]
fn the_loser_of_a_conflict_becomes_a_copy() {
    let mut lab = Lab::new();
    lab.hold("f.txt", b"ours");
    lab.offer("f.txt", file(b"theirs", i64::MAX), false);
    lab.retire("f.txt", 0);
    lab.folder.write("f.txt", b"theirs");
    lab.recover();
    assert_eq!(lab.copies(), [b"ours"]);
    assert_eq!(lab.folder.read("f.txt"), b"theirs");
    lab.assert_no_history();
}

#[test]
fn what_a_peer_removed_stays_removed_and_gets_its_row() {
    let mut lab = Lab::new();
    lab.hold("f", b"old");
    lab.offer("f", Body::Tombstone, true);
    let name = lab.retire("f", 0);
    lab.recover();
    lab.assert_kept("f", &name, b"old");
    assert_eq!(lab.folder.probe("f"), None);
}

#[test]
fn what_nobody_is_known_to_have_removed_is_put_back() {
    for remote in [None, Some(Body::Tombstone), Some(file(b"concurrent", 1))] {
        let mut lab = Lab::new();
        lab.hold("d/f", b"old");
        if let Some(body) = remote {
            lab.offer("d/f", body, false);
        }
        lab.retire("d/f", 0);
        lab.recover();
        assert_eq!(lab.folder.read("d/f"), b"old");
        lab.assert_no_history();
    }
    // Its directory is gone as well: it is at least in history, with a row.
    let mut lab = Lab::new();
    lab.hold("d/f", b"old");
    let name = lab.retire("d/f", 0);
    fs::remove_dir(lab.folder.at("d")).unwrap();
    lab.recover();
    lab.assert_kept("d/f", &name, b"old");
}

#[test]
fn what_was_on_its_way_in_is_staged_again() {
    for is_staged_twice in [false, true] {
        let mut lab = Lab::new();
        lab.hold("f", b"old");
        lab.offer("f", file(b"new!", 1), true);
        lab.folder.write("draft", b"new!");
        fs::rename(lab.folder.at("draft"), lab.kept_at(&name_of(100, 0, &path("f")))).unwrap();
        let stage = format!(".kinfold/staging/{}-0", chunk_all(b"new!").content_id());
        if is_staged_twice {
            lab.folder.write(&stage, b"new!");
        }
        lab.recover();
        assert_eq!(lab.folder.read(&stage), b"new!");
        assert_eq!(lab.folder.read("f"), b"old");
        lab.assert_no_history();
    }
    let mut lab = Lab::new();
    symlink("old", lab.folder.at("l")).unwrap();
    lab.hold_what_lies("l", Body::Symlink { target: b"old"[..].into() });
    lab.offer("l", Body::Symlink { target: b"new"[..].into() }, true);
    symlink("new", lab.kept_at(&name_of(100, 0, &path("l")))).unwrap();
    lab.recover();
    lab.assert_no_history();
}

#[test]
fn a_link_that_was_replaced_gets_its_row() {
    let mut lab = Lab::new();
    symlink("old", lab.folder.at("l")).unwrap();
    lab.hold_what_lies("l", Body::Symlink { target: b"old"[..].into() });
    lab.offer("l", Body::Symlink { target: b"new"[..].into() }, true);
    lab.retire("l", 0);
    symlink("new", lab.folder.at("l")).unwrap();
    lab.recover();
    assert_eq!(lab.kept("l").len(), 1);
}

#[test]
fn an_edit_that_nobody_had_seen_is_a_conflict_copy_or_back_in_its_place() {
    for unseen in [&b"unseen edit"[..], b"same"] {
        let mut lab = Lab::new();
        lab.hold("f.txt", b"old");
        // Of the same size as the peer's, too.
        lab.offer("f.txt", file(b"new!", 1), true);
        lab.folder.write("f.txt", unseen);
        lab.retire("f.txt", 0);
        lab.folder.write("f.txt", b"new!");
        lab.recover();
        assert_eq!(lab.copies(), [unseen]);
        assert_eq!(lab.folder.read("f.txt"), b"new!");
        lab.assert_no_history();
    }
    let mut lab = Lab::new();
    lab.hold("f", b"old");
    lab.offer("f", Body::Tombstone, true);
    lab.folder.write("f", b"unseen edit");
    lab.retire("f", 0);
    lab.recover();
    assert_eq!(lab.folder.read("f"), b"unseen edit");
    lab.assert_no_history();
}

#[test]
fn the_second_name_of_a_file_that_was_not_replaced_is_no_former_version() {
    let mut lab = Lab::new();
    lab.hold("f", b"old");
    fs::hard_link(lab.folder.at("f"), lab.kept_at(&name_of(100, 0, &path("f")))).unwrap();
    lab.recover();
    assert_eq!(lab.folder.read("f"), b"old");
    assert_eq!(fs::metadata(lab.folder.at("f")).unwrap().nlink(), 1);
    lab.assert_no_history();
}

#[test]
fn a_file_that_was_to_take_anothers_place_goes_back_to_its_own() {
    let mut lab = Lab::new();
    lab.hold("from", b"moved");
    lab.hold("over", b"old");
    fs::rename(lab.folder.at("from"), lab.kept_at(&name_of(100, 0, &path("over")))).unwrap();
    lab.recover();
    assert_eq!((lab.folder.read("from"), lab.folder.read("over")), (b"moved".to_vec(), b"old".to_vec()));
    lab.assert_no_history();
}

#[test]
fn a_directory_that_was_to_become_a_file_is_a_directory_again_if_something_lies_in_it() {
    for (is_filled, is_placed) in [(false, true), (true, true), (true, false)] {
        let mut lab = Lab::new();
        fs::create_dir(lab.folder.at("d")).unwrap();
        lab.hold_what_lies("d", Body::Dir { mode: 0o755 });
        lab.offer("d", file(b"a file", 1), true);
        if is_filled {
            lab.folder.write("d/unseen", b"just made");
        }
        lab.retire("d", 0);
        if is_placed {
            lab.folder.write("d", b"a file");
        }
        lab.recover();
        if is_filled {
            assert_eq!(lab.folder.read("d/unseen"), b"just made");
        } else {
            assert_eq!(lab.folder.read("d"), b"a file");
        }
        lab.assert_no_history();
    }
}

#[test]
fn without_an_index_all_of_history_is_listed() {
    let mut lab = Lab::new();
    let paths = ["f", "d/e/f.txt", "new\nline", "50% ~ off"];
    let mut names = Vec::new();
    for (number, at) in paths.iter().enumerate() {
        lab.folder.write(at, at.as_bytes());
        names.push(lab.retire(at, number as u64));
    }
    lab.folder.write("f", b"is there again");
    fs::write(lab.kept_at("a note of mine.txt"), b"not ours").unwrap();
    lab.recover();
    for (at, name) in paths.iter().zip(&names) {
        let kept = lab.assert_kept(at, name, at.as_bytes());
        assert_eq!((kept.body.file().unwrap().size, kept.by), (at.len() as u64, DeviceTag::default()));
    }
    assert_eq!(lab.index.kept(None, true).unwrap().len(), paths.len());
    assert_eq!(lab.index.kept_bytes().unwrap(), paths.iter().map(|at| at.len() as u64).sum::<u64>());
    assert_eq!(fs::read(lab.kept_at("a note of mine.txt")).unwrap(), b"not ours");
    assert_eq!(lab.folder.read("f"), b"is there again");
}

#[test]
fn what_has_a_path_too_long_for_its_name_is_known_by_its_inode() {
    let mut lab = Lab::new();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let at = RelPath::parse(long.as_bytes()).unwrap();
    lab.hold(&long, b"old");
    lab.offer(&long, file(b"new!", 1), true);
    let name = lab.retire(&long, 0);
    assert!(name.contains('^'), "{name}");
    lab.folder.write(&long, b"new!");
    assert_eq!(lab.folder.stat_of(&at).kind, Kind::File);
    lab.recover();
    lab.assert_kept(&long, &name, b"old");
}
