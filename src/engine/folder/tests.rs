//! One folder over an index in memory, fed by hand. What only shows between several devices is
//! tested by the simulator.

use super::*;
use crate::engine::effect::{Action, Displaced, Expect, Found};
use crate::engine::memory_index::MemoryIndex;
use crate::model::id::{ChunkId, ContentId, Life};
use crate::model::recipe::{ChunkRef, PageRef, Recipe};
use crate::model::record::FileBody;
use crate::model::rights::Members;
use crate::model::stat::Kind;
use crate::model::version::VersionVector;
use crate::wire::message::{SentRecord, Want};

/// Time within which all files are read again.
pub(super) const SCRUB: Duration = Duration::from_secs(30 * 86_400);
pub(super) const FOLDER: FolderId = FolderId([7; 16]);

pub(super) fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

pub(super) fn peer() -> DeviceId {
    DeviceId::from_public_key([2; 32])
}

pub(super) fn stat(kind: Kind, ino: u64, ctime_ns: i64) -> Stat {
    Stat { kind, mode: 0o644, size: 3, mtime_ns: 5, ctime_ns, dev: 1, ino }
}

pub(super) fn recipe(bytes: &[u8]) -> Recipe {
    Recipe::parse(vec![ChunkRef { id: ChunkId::of(bytes), len: bytes.len() as u32 }]).unwrap()
}

pub(super) fn file(recipe: &Recipe) -> Body {
    Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: recipe.size(), content: recipe.content_id() })
}

/// A folder and what it said since it was last asked.
pub(super) struct Bench {
    pub(super) folder: Folder<MemoryIndex>,
    pub(super) at: Duration,
    pub(super) outputs: Vec<Output>,
}

impl Bench {
    /// A folder that has seen that nothing lies in its root.
    pub(super) fn new() -> Self {
        let mut bench = Self::with_index(MemoryIndex::new(Incarnation(1)));
        bench.answer_scan(&[]);
        bench
    }

    /// A folder with this index, that has yet to look at its root.
    pub(super) fn with_index(index: MemoryIndex) -> Self {
        let params = Params {
            folder: FOLDER,
            device: DeviceId::from_public_key([1; 32]),
            rescan_interval: Duration::from_secs(3600),
            quiet: Duration::from_millis(10),
            patience: Duration::from_secs(1),
            brake: Some(Thresholds::default()),
            scrub: Some(SCRUB),
            forget_after: Duration::from_secs(86_400),
            seed: [3; 32],
        };
        let folder = Folder::open(params, index);
        let mut bench = Self { folder, at: Duration::ZERO, outputs: Vec::new() };
        bench.flush();
        bench
    }

    /// Lets some time pass in which nothing happens.
    pub(super) fn rest(&mut self) {
        self.at += Duration::from_secs(1);
        self.flush();
    }

    pub(super) fn now(&self) -> Now {
        Now { at: self.at, wall_ns: 1_700_000_000_000_000_000 + self.at.as_nanos() as i64 }
    }

    pub(super) fn give(&mut self, input: Input) {
        self.folder.handle(self.now(), input).unwrap();
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        self.folder.flush(self.now()).unwrap();
        self.outputs.extend(std::iter::from_fn(|| self.folder.poll_output()));
    }

    pub(super) fn take<T>(&mut self, pick: impl Fn(&Output) -> Option<T>) -> Option<T> {
        let at = self.outputs.iter().position(|output| pick(output).is_some())?;
        pick(&self.outputs.remove(at))
    }

    /// Answers the scan that was asked for last with what lies in the root.
    pub(super) fn answer_scan(&mut self, there: &[(&str, Found)]) -> Scope {
        let (job, scope) = self
            .take(|o| match o {
                Output::Scan(job, scope) => Some((*job, scope.clone())),
                _ => None,
            })
            .expect("no scan was asked for");
        let found =
            |path: &RelPath| there.iter().find(|(name, _)| name.as_bytes() == path.as_bytes()).map(|t| t.1.clone());
        let items = match &scope {
            Scope::All => {
                let entries = there.iter().map(|(name, found)| (name.as_bytes().into(), found.clone())).collect();
                vec![ScanItem::Listing { dir: None, entries }]
            }
            Scope::Paths(paths) => {
                paths.keys().map(|path| ScanItem::Path { path: path.clone(), found: found(path) }).collect()
            }
        };
        self.give(Input::Scanned(job, items));
        self.give(Input::ScanEnded(job, ScanEnd::Complete));
        scope
    }

    pub(super) fn scan_all(&mut self, there: &[(&str, Found)]) {
        self.give(Input::ScanAll);
        self.answer_scan(there);
    }

    /// A file comes to be, is seen, read and recorded.
    pub(super) fn has_file(&mut self, name: &str, ino: u64, bytes: &[u8]) -> Stat {
        let stat = stat(Kind::File, ino, 1);
        self.scan_all(&[(name, Found::Entry(stat))]);
        assert!(self.take(|o| matches!(o, Output::Hash(..)).then_some(())).is_some());
        self.give(Input::Hashed(path(name), HashOutcome::Done { stat, recipe: recipe(bytes) }));
        stat
    }

    pub(super) fn meet(&mut self, right: Right, received: Option<(Incarnation, Sequence)>) {
        self.meet_with(Incarnation(9), right, received);
    }

    pub(super) fn meet_with(
        &mut self,
        incarnation: Incarnation,
        right: Right,
        received: Option<(Incarnation, Sequence)>,
    ) {
        let (name, members, last) = (String::new(), Members::default(), Sequence(0));
        let (life, received) = (Life(5), received.map(|(incarnation, at)| (incarnation, at, Life::default())));
        self.give(Input::PeerUp(
            peer(),
            right,
            FolderHello { folder: FOLDER, name, holds: true, incarnation, life, last, received, members },
        ));
    }

    /// The peer says that it holds this, as its `count`th change.
    pub(super) fn hear(&mut self, name: &str, count: u64, body: Body, recipe: Option<Recipe>) {
        let version = VersionVector::parse(vec![(AuthorId(77), count)]).unwrap();
        self.hear_version(name, count, version, body, recipe);
    }

    pub(super) fn hear_version(
        &mut self,
        name: &str,
        count: u64,
        version: VersionVector,
        body: Body,
        recipe: Option<Recipe>,
    ) {
        let record = Record { path: path(name), version, by: DeviceTag([2; 5]), body };
        let records = vec![SentRecord { record, recipe, content: None, left_out: false }];
        let after = Sequence(count - 1);
        let records = Records { folder: FOLDER, after, through: Sequence(count), more: false, records };
        self.give(Input::Message(peer(), Message::Records(records)));
    }

    pub(super) fn body(&self, name: &str) -> Option<Body> {
        self.folder.index().local(&path(name)).unwrap().filter(|l| !l.ignored).map(|l| l.record.body)
    }

    pub(super) fn want(&mut self) -> Option<Want> {
        self.take(|o| match o {
            Output::Send(_, Message::Want(want)) => Some(want.clone()),
            _ => None,
        })
    }

    pub(super) fn commit(&mut self) -> Option<Vec<CommitItem>> {
        self.take(|o| match o {
            Output::Commit(items) => Some(items.clone()),
            _ => None,
        })
    }

    pub(super) fn announced(&mut self) -> Vec<RelPath> {
        let said = self.outputs.iter().filter_map(|o| match o {
            Output::Announce { records, .. } => Some(&records.records),
            _ => None,
        });
        said.flatten().map(|sent| sent.record.path.clone()).collect()
    }

    pub(super) fn is_told_off(&self) -> bool {
        self.outputs.iter().any(|o| matches!(o, Output::Misbehaved(..)))
    }
}

#[test]
fn an_edit_is_announced_only_once_it_is_durable() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let stat = stat(Kind::Symlink, 4, 1);
    bench.give(Input::ScanAll);
    let job = bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    let found = Found::Symlink(stat, (*b"t").into());
    let listing = ScanItem::Listing { dir: None, entries: vec![((*b"l").into(), found)] };
    let now = bench.now();
    bench.folder.handle(now, Input::Scanned(job, vec![listing])).unwrap();
    assert!(bench.folder.index().is_dirty());
    assert!(std::iter::from_fn(|| bench.folder.poll_output()).all(|o| !matches!(o, Output::Announce { .. })));
    bench.flush();
    assert!(!bench.folder.index().is_dirty());
    assert_eq!(bench.announced(), [path("l")]);
}

#[test]
fn a_deletion_is_believed_after_a_second_look() {
    let mut bench = Bench::new();
    bench.has_file("f", 4, b"one");
    bench.scan_all(&[]);
    assert!(bench.body("f").unwrap().is_live());
    let scope = bench.answer_scan(&[]);
    assert_eq!(scope, Scope::Paths(BTreeMap::from([(path("f"), Depth::Entry)])));
    assert!(bench.body("f").unwrap().is_live(), "it may turn up under another name");
    bench.rest();
    assert_eq!(bench.body("f"), Some(Body::Tombstone));
}

#[test]
fn what_our_own_commit_made_while_a_scan_ran_is_not_deleted() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.give(Input::ScanAll);
    let job = bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    bench.hear("d", 1, Body::Dir { mode: 0o755 }, None);
    assert_eq!(bench.commit().unwrap()[0].action, Action::MakeDir { mode: 0o755 });
    let there = stat(Kind::Dir, 6, 2);
    bench.give(Input::Committed(vec![CommitOutcome::Done {
        stat: Some(there),
        kept: None,
        aside: None,
        unseen: false,
    }]));
    // The scan looked before.
    bench.give(Input::Scanned(job, vec![ScanItem::Path { path: path("d"), found: None }]));
    bench.give(Input::ScanEnded(job, ScanEnd::Complete));
    assert!(bench.body("d").unwrap().is_dir());
    bench.answer_scan(&[("d", Found::Entry(Stat { mode: 0o755, ..there }))]);
    assert!(bench.body("d").unwrap().is_dir());
}

#[test]
fn a_file_under_another_name_is_not_read_again() {
    let mut bench = Bench::new();
    let stat = bench.has_file("f", 4, b"one");
    bench.scan_all(&[("g", Found::Entry(stat))]);
    assert!(bench.take(|o| matches!(o, Output::Hash(..)).then_some(())).is_none());
    assert_eq!(bench.body("g"), Some(file(&recipe(b"one"))));
}

#[test]
fn what_was_removed_while_it_was_ignored_is_not_deleted_elsewhere() {
    let mut bench = Bench::new();
    bench.has_file("f", 4, b"one");
    bench.scan_all(&[("f", Found::Ignored)]);
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    bench.rest();
    let row = bench.folder.index().local(&path("f")).unwrap();
    assert!(row.is_none_or(|row| row.record.is_withdrawn() && !row.ignored));
    assert!(bench.outputs.iter().any(|o| matches!(o, Output::Reconnect)));
    // Somebody still has it, and it comes back.
    bench.meet(Right::Owner, None);
    bench.hear("f", 1, file(&recipe(b"one")), Some(recipe(b"one")));
    assert!(bench.want().is_some());
}

#[test]
fn an_ignored_file_that_counts_again_is_told_again() {
    let mut bench = Bench::new();
    let stat = bench.has_file("f", 4, b"one");
    bench.scan_all(&[("f", Found::Ignored)]);
    assert_eq!(bench.folder.index().tree_hash(), [0; 32]);
    let before = bench.folder.index().last_sequence();
    bench.scan_all(&[("f", Found::Entry(stat))]);
    assert!(bench.folder.index().local(&path("f")).unwrap().unwrap().sequence > before);
    assert_ne!(bench.folder.index().tree_hash(), [0; 32]);
}

#[test]
fn a_peer_that_remembers_more_of_us_makes_us_somebody_new() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, Some((Incarnation(1), Sequence(1000))));
    assert_ne!(bench.folder.index().incarnation(), Incarnation(1));
    assert!(bench.outputs.iter().any(|o| matches!(o, Output::Reconnect)));
    assert!(bench.outputs.iter().any(|o| matches!(o, Output::Note(Note::NewIncarnation))));
}

#[test]
fn what_a_reader_says_is_refused() {
    let mut bench = Bench::new();
    bench.meet(Right::Reader, None);
    bench.hear("d", 1, Body::Dir { mode: 0o755 }, None);
    assert!(bench.commit().is_none());
    assert_eq!(bench.body("d"), None);
    assert!(bench.folder.problems().any(|problem| problem.kind == ProblemKind::Refused));
}

#[test]
fn what_was_refused_is_taken_once_the_right_is_given_and_not_after_it_is_gone() {
    let mut bench = Bench::new();
    bench.meet(Right::Reader, None);
    bench.hear("f", 1, file(&recipe(b"one")), Some(recipe(b"one")));
    assert!(bench.want().is_none());
    bench.meet(Right::Writer, None);
    assert!(bench.want().is_some());
    bench.hear("g", 2, file(&recipe(b"two")), Some(recipe(b"two")));
    let want = bench.want().unwrap();
    bench.meet(Right::Reader, None);
    // What was asked for still arrives, and is not put in its place.
    let header = ChunkHeader { request: want.request, item: 0, chunk: 0 };
    bench.give(Input::Chunk(peer(), header, VerifiedChunk::hash(b"two".to_vec())));
    assert!(bench.take(|o| matches!(o, Output::Stage(..)).then_some(())).is_none());
    assert!(bench.commit().is_none());
}

#[test]
fn an_adder_adds_and_neither_changes_nor_deletes() {
    let mut bench = Bench::new();
    bench.has_file("f", 4, b"one");
    let version = bench.folder.index().local(&path("f")).unwrap().unwrap().record.version;
    bench.meet(Right::Adder, None);
    for (count, body) in [(1, file(&recipe(b"two"))), (2, Body::Tombstone)] {
        let version = version.after_change(AuthorId(77), count).unwrap();
        let record = Record { path: path("f"), version, by: DeviceTag([2; 5]), body };
        let records = vec![SentRecord { record, recipe: Some(recipe(b"two")), content: None, left_out: false }];
        let (after, through) = (Sequence(count - 1), Sequence(count));
        let records = Records { folder: FOLDER, after, through, more: false, records };
        bench.give(Input::Message(peer(), Message::Records(records)));
        assert!(bench.want().is_none() && bench.commit().is_none());
    }
    assert_eq!(bench.folder.problems().filter(|p| p.kind == ProblemKind::Refused).count(), 1);
    bench.hear("new", 3, file(&recipe(b"new")), Some(recipe(b"new")));
    assert_eq!(bench.want().unwrap().items[0].path, path("new"));
}

#[test]
fn a_recipe_of_more_chunks_than_its_file_can_have_is_no_good_manners() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let pages: Vec<_> =
        (0..300u32).map(|n| PageRef::parse(crate::model::id::PageId([n as u8; 32]), 500, 500).unwrap()).collect();
    let content = crate::model::recipe::content_id_of(&pages);
    let body = Body::File(FileBody { mode: 0o644, mtime_ns: 5, size: 150_000, content });
    bench.hear("f", 1, body, None);
    let request = bench
        .take(|o| match o {
            Output::Send(_, Message::WantRecipe(want)) => Some(want.request),
            _ => None,
        })
        .unwrap();
    bench.give(Input::Message(peer(), Message::Recipe { request, pages }));
    assert!(bench.is_told_off());
}

#[test]
fn bytes_that_are_not_the_chunk_are_never_staged() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let right = recipe(b"one");
    bench.hear("f", 1, file(&right), Some(right));
    let request = bench.want().unwrap().request;
    let header = ChunkHeader { request, item: 0, chunk: 0 };
    bench.give(Input::Chunk(peer(), header, VerifiedChunk::hash(b"two".to_vec())));
    assert!(!bench.outputs.iter().any(|o| matches!(o, Output::Stage(..))));
    // It is asked for again, after a pause.
    assert!(bench.want().is_none());
    bench.at += Duration::from_secs(3);
    bench.flush();
    let request = bench.want().unwrap().request;
    let header = ChunkHeader { request, item: 0, chunk: 0 };
    bench.give(Input::Chunk(peer(), header, VerifiedChunk::hash(b"one".to_vec())));
    assert!(bench.outputs.iter().any(|o| matches!(o, Output::Stage(..))));
}

#[test]
fn a_chunk_that_was_not_asked_for_is_no_good_manners() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.hear("f", 1, file(&recipe(b"one")), Some(recipe(b"one")));
    let request = bench.want().unwrap().request;
    let header = ChunkHeader { request, item: 0, chunk: 1 };
    bench.give(Input::Chunk(peer(), header, VerifiedChunk::hash(b"one".to_vec())));
    assert!(bench.is_told_off());
}

#[test]
fn a_recipe_that_does_not_fit_its_record_is_no_good_manners() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.hear("f", 1, file(&recipe(b"one")), None);
    let request = bench.take(|o| match o {
        Output::Send(_, Message::WantRecipe(want)) => Some(want.request),
        _ => None,
    });
    let pages = recipe(b"two").pages().map(PageRef::of).collect();
    bench.give(Input::Message(peer(), Message::Recipe { request: request.unwrap(), pages }));
    assert!(bench.is_told_off());
}

#[test]
fn a_removed_directory_with_something_unknown_in_it_stays_for_all() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.hear("d", 1, Body::Dir { mode: 0o755 }, None);
    bench.commit().unwrap();
    let dir = Stat { mode: 0o755, ..stat(Kind::Dir, 6, 2) };
    bench.give(Input::Committed(vec![CommitOutcome::Done { stat: Some(dir), kept: None, aside: None, unseen: false }]));
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.at += Duration::from_secs(1);
    bench.flush();
    bench.answer_scan(&[("d", Found::Entry(dir)), ("d/l", Found::Symlink(stat(Kind::Symlink, 7, 3), (*b"t").into()))]);
    bench.outputs.clear();
    bench.hear("d", 2, Body::Tombstone, None);
    assert!(bench.commit().is_none());
    let version = bench.folder.index().local(&path("d")).unwrap().unwrap().record.version;
    assert!(version.counter(bench.folder.author) > 0);
    assert_eq!(bench.announced(), [path("d")]);
}

#[test]
fn no_more_is_asked_of_a_peer_at_a_time_than_the_window_holds() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let chunk =
        |file: u64, n: u64| ChunkRef { id: ChunkId::of(&[file.to_le_bytes(), n.to_le_bytes()].concat()), len: 1 << 20 };
    for number in 1..40 {
        let recipe = Recipe::parse((0..3).map(|n| chunk(number, n)).collect()).unwrap();
        bench.hear(&format!("f{number}"), number, file(&recipe), Some(recipe));
        if let Some(stage) = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage) } else { None }) {
            bench.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: vec![0, 1, 2] }));
        }
    }
    let asked: u64 = std::iter::from_fn(|| bench.want()).map(|want| want.bytes()).sum();
    assert!((limits::WANT_BYTES_IN_FLIGHT_MAX / 4..=limits::WANT_BYTES_IN_FLIGHT_MAX).contains(&asked), "{asked}");
}

#[test]
fn an_answer_to_a_former_task_does_not_count_for_the_next() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let first = recipe(b"one");
    bench.hear("f", 1, file(&first), Some(first.clone()));
    let request = bench.want().unwrap().request;
    bench.give(Input::Chunk(peer(), ChunkHeader { request, item: 0, chunk: 0 }, VerifiedChunk::hash(b"one".to_vec())));
    let stage = bench.take(|o| if let Output::Stage(stage, ..) = o { Some(*stage) } else { None }).unwrap();
    assert_eq!(stage.content, first.content_id());
    assert_ne!(stage.content, ContentId([0; 32]));
    // The peer is gone and comes back before the disk has answered.
    bench.hear("f", 2, Body::Dir { mode: 0o755 }, None);
    bench.hear("f", 3, file(&first), Some(first));
    assert!(bench.commit().is_some_and(|items| matches!(items[0].action, Action::MakeDir { .. })));
    bench.give(Input::Staged(stage, 0, Ok(())));
    assert!(bench.commit().is_none());
}

#[test]
fn a_peer_that_lacks_what_a_former_task_asked_for_does_not_end_the_next_in_mid_commit() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let whole = recipe(b"one");
    bench.hear("f", 1, file(&whole), Some(whole.clone()));
    let former = bench.want().unwrap().request;
    // The same content under another version: another task.
    let Body::File(body) = file(&whole) else { unreachable!() };
    bench.hear("f", 2, Body::File(FileBody { mode: 0o600, ..body }), Some(whole.clone()));
    let request = bench.want().unwrap().request;
    assert_ne!(request, former);
    bench.give(Input::Chunk(peer(), ChunkHeader { request, item: 0, chunk: 0 }, VerifiedChunk::hash(b"one".to_vec())));
    bench.give(Input::Staged(StageId { content: whole.content_id(), copy: 0 }, 0, Ok(())));
    assert!(bench.commit().is_some());
    bench.give(Input::Message(peer(), Message::Missing { request: former, item: 0 }));
    let stat = Some(stat(Kind::File, 8, 2));
    bench.give(Input::Committed(vec![CommitOutcome::Done { stat, kept: None, aside: None, unseen: false }]));
    assert_eq!(bench.body("f"), Some(Body::File(FileBody { mode: 0o600, ..body })));
}

#[test]
fn a_file_that_was_being_assembled_when_its_last_giver_left_is_given_up() {
    let mut bench = Bench::new();
    bench.has_file("old", 4, b"one");
    bench.meet(Right::Owner, None);
    let chunk = |bytes: &[u8]| ChunkRef { id: ChunkId::of(bytes), len: bytes.len() as u32 };
    let both = Recipe::parse(vec![chunk(b"one"), chunk(b"two")]).unwrap();
    bench.hear("new", 1, file(&both), Some(both.clone()));
    let stage = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage) } else { None }).unwrap();
    bench.give(Input::PeerDown(peer()));
    bench.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: vec![1] }));
    // It comes back with another index that has nothing of the kind.
    bench.meet_with(Incarnation(10), Right::Owner, None);
    assert!(bench.want().is_none());
    assert_eq!(bench.folder.status().unwrap().state, FolderState::Idle);
}

/// Asks for a look at one path and a scan of everything, and returns the two jobs, both under way.
fn two_looks(bench: &mut Bench, name: &str) -> (JobId, JobId) {
    bench.give(Input::Touched(BTreeMap::from([(path(name), Depth::Entry)])));
    bench.rest();
    bench.give(Input::ScanAll);
    let mut job = || bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    (job(), job())
}

fn link(target: &str) -> Found {
    Found::Symlink(stat(Kind::Symlink, 4, 1), target.as_bytes().into())
}

#[test]
fn a_look_that_is_told_late_does_not_delete_what_a_later_look_found() {
    let mut bench = Bench::new();
    bench.scan_all(&[("l", link("t"))]);
    let (early, late) = two_looks(&mut bench, "l");
    let entries = vec![((*b"l").into(), link("t"))];
    bench.give(Input::Scanned(late, vec![ScanItem::Listing { dir: None, entries }]));
    bench.give(Input::ScanEnded(late, ScanEnd::Complete));
    bench.give(Input::Scanned(early, vec![ScanItem::Path { path: path("l"), found: None }]));
    bench.give(Input::ScanEnded(early, ScanEnd::Complete));
    bench.rest();
    assert!(bench.body("l").unwrap().is_live());
    let scope = bench.answer_scan(&[("l", link("t"))]);
    assert_eq!(scope, Scope::Paths(BTreeMap::from([(path("l"), Depth::Entry)])));
    bench.rest();
    assert!(bench.body("l").unwrap().is_live());
}

#[test]
fn what_two_looks_at_once_saw_differently_is_looked_at_a_third_time() {
    let mut bench = Bench::new();
    bench.scan_all(&[("l", link("old"))]);
    let (early, late) = two_looks(&mut bench, "l");
    let entries = vec![((*b"l").into(), link("new"))];
    bench.give(Input::Scanned(late, vec![ScanItem::Listing { dir: None, entries }]));
    bench.give(Input::ScanEnded(late, ScanEnd::Complete));
    bench.give(Input::Scanned(early, vec![ScanItem::Path { path: path("l"), found: Some(link("old")) }]));
    bench.give(Input::ScanEnded(early, ScanEnd::Complete));
    bench.answer_scan(&[("l", link("new"))]);
    assert_eq!(bench.body("l"), Some(Body::Symlink { target: (*b"new").into() }));
}

#[test]
fn a_change_of_mode_waits_for_a_copy_of_the_same_content_and_leaves_its_staging_file_alone() {
    let mut bench = Bench::new();
    bench.has_file("old", 4, b"one");
    bench.meet(Right::Owner, None);
    let whole = recipe(b"one");
    bench.hear("new", 1, file(&whole), Some(whole.clone()));
    let stage = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage) } else { None }).unwrap();
    let Body::File(body) = file(&whole) else { unreachable!() };
    bench.hear("old", 2, Body::File(FileBody { mode: 0o755, ..body }), Some(whole));
    assert!(bench.commit().is_none(), "a file is not touched while it is copied from");
    bench.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: Vec::new() }));
    let items = bench.commit().unwrap();
    assert!(matches!(items[0].action, Action::Place { stage: placed, .. } if placed == stage));
    assert!(matches!(items[1].action, Action::SetMeta { .. }));
}

#[test]
fn what_lies_on_a_disk_that_went_away_is_not_deleted() {
    let dir = |dev, ino| Found::Entry(Stat { dev, ..stat(Kind::Dir, ino, 1) });
    let on_disk = Stat { dev: 2, ..stat(Kind::File, 11, 1) };
    // What the two states of the mount point look like: with its disk, and without.
    let there = [("m", dir(2, 2)), ("m/f", Found::Entry(on_disk))];
    let away = [("m", dir(1, 10))];
    let answer = |bench: &mut Bench, state: &[(&str, Found)]| {
        for _ in 0..20 {
            let scan = bench.take(|o| match o {
                Output::Scan(job, scope) => Some((*job, scope.clone())),
                _ => None,
            });
            let Some((job, scope)) = scan else {
                bench.rest();
                continue;
            };
            let found = |path: &RelPath| state.iter().find(|(name, _)| *name == path.to_string()).map(|t| t.1.clone());
            let list = |dir: Option<&str>| {
                let inside = state.iter().filter(|(name, _)| name.rsplit_once('/').map(|(dir, _)| dir) == dir);
                let entries =
                    inside.map(|(name, found)| (name.rsplit('/').next().unwrap().as_bytes().into(), found.clone()));
                ScanItem::Listing { dir: dir.map(path), entries: entries.collect() }
            };
            let items = match scope {
                Scope::All => vec![list(None), list(Some("m"))],
                Scope::Paths(paths) => {
                    paths.into_keys().map(|path| ScanItem::Path { found: found(&path), path }).collect()
                }
            };
            bench.give(Input::Scanned(job, items));
            bench.give(Input::ScanEnded(job, ScanEnd::Complete));
        }
    };
    let is_told = |bench: &Bench| bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged);
    // Found by a scan of all, by an event about what lay there, and by one about the mount point.
    for hint in [None, Some("m/f"), Some("m")] {
        let mut bench = Bench::new();
        bench.give(Input::ScanAll);
        answer(&mut bench, &there);
        bench.give(Input::Hashed(path("m/f"), HashOutcome::Done { stat: on_disk, recipe: recipe(b"one") }));
        assert!(bench.body("m/f").is_some());
        let last = bench.folder.index().last_sequence();
        bench.give(match hint {
            None => Input::ScanAll,
            Some(hint) => Input::Touched(BTreeMap::from([(path(hint), Depth::Tree)])),
        });
        answer(&mut bench, &away);
        assert!(is_told(&bench), "{hint:?}");
        assert_eq!(bench.body("m/f"), Some(file(&recipe(b"one"))), "{hint:?}");
        assert_eq!(bench.folder.index().last_sequence(), last, "{hint:?}");

        // Nothing is put there either.
        bench.meet(Right::Owner, None);
        bench.hear("m/g", 1, file(&recipe(b"two")), Some(recipe(b"two")));
        bench.rest();
        assert_eq!(bench.want(), None);

        // It is back, under the same number or another.
        let dev = if hint.is_none() { 2 } else { 3 };
        let back = [("m", dir(dev, 2)), ("m/f", Found::Entry(Stat { dev, ..on_disk }))];
        bench.give(Input::ScanAll);
        answer(&mut bench, &back);
        assert!(!is_told(&bench), "{hint:?}");
        assert!(bench.want().is_some());
        // With another number it is read once more. Then a deletion is one again.
        let stat = Stat { dev, ..on_disk };
        bench.give(Input::Hashed(path("m/f"), HashOutcome::Done { stat, recipe: recipe(b"one") }));
        bench.give(Input::ScanAll);
        answer(&mut bench, &back[..1]);
        assert_eq!(bench.body("m/f"), Some(Body::Tombstone), "{hint:?}");
    }
}

/// A folder with a file of its own and a directory with a link in it, which lies on file system 2.
fn with_mount() -> (Bench, Stat) {
    let mut bench = Bench::new();
    let own = bench.has_file("own", 3, b"one");
    let dir = Stat { dev: 2, ..stat(Kind::Dir, 6, 2) };
    bench.scan_all(&[("own", Found::Entry(own)), ("d", Found::Entry(dir))]);
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.rest();
    bench.answer_scan(&[("d", Found::Entry(dir)), ("d/l", link("t"))]);
    assert!(bench.body("d/l").unwrap().is_live());
    (bench, dir)
}

fn listing(dir: Option<&str>, entries: &[(&str, Found)]) -> ScanItem {
    let entries = entries.iter().map(|(name, found)| (name.as_bytes().into(), found.clone())).collect();
    ScanItem::Listing { dir: dir.map(path), entries }
}

#[test]
fn what_lay_on_a_file_system_that_is_away_is_not_deleted() {
    let (mut bench, dir) = with_mount();
    // The directory under the mount point is empty.
    let below = Stat { dev: 1, ino: 9, ..dir };
    bench.give(Input::ScanAll);
    let job = bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    let root = listing(None, &[("own", Found::Entry(stat(Kind::File, 3, 1))), ("d", Found::Entry(below))]);
    bench.give(Input::Scanned(job, vec![root, listing(Some("d"), &[])]));
    bench.give(Input::ScanEnded(job, ScanEnd::Complete));
    // The watch may tell of it as well.
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.rest();
    bench.answer_scan(&[("d", Found::Entry(below))]);
    bench.rest();
    assert!(bench.body("d/l").unwrap().is_live());
    assert!(bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged));
    // Once it is back, all is looked at, and what is missing then was deleted.
    bench.give(Input::Touched(BTreeMap::from([(path("d"), Depth::Entry)])));
    bench.rest();
    bench.answer_scan(&[("d", Found::Entry(dir))]);
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.answer_scan(&[("d", Found::Entry(dir))]);
    bench.rest();
    bench.answer_scan(&[("d", Found::Entry(dir))]);
    bench.rest();
    assert_eq!(bench.body("d/l"), Some(Body::Tombstone));
    assert!(!bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged));
}

#[test]
fn a_mount_point_that_vanished_with_its_file_system_is_not_a_deletion() {
    let (mut bench, _) = with_mount();
    bench.scan_all(&[("own", Found::Entry(stat(Kind::File, 3, 1)))]);
    bench.answer_scan(&[]);
    bench.rest();
    assert!(bench.body("d").unwrap().is_live() && bench.body("d/l").unwrap().is_live());
    assert!(bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged));
}

#[test]
fn a_folder_on_another_disk_than_before_is_no_mount_that_is_away() {
    let mut bench = Bench::new();
    let own = bench.has_file("own", 3, b"one");
    let dir = stat(Kind::Dir, 6, 2);
    bench.scan_all(&[("own", Found::Entry(own)), ("d", Found::Entry(dir))]);
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.rest();
    bench.answer_scan(&[("d", Found::Entry(dir)), ("d/l", link("t"))]);
    bench.scan_all(&[("own", Found::Entry(Stat { dev: 7, ..own })), ("d", Found::Entry(Stat { dev: 7, ..dir }))]);
    assert!(!bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged));
    assert_eq!(bench.folder.index().local(&path("d")).unwrap().unwrap().stat.unwrap().dev, 7);
}

#[test]
fn a_link_that_was_renamed_away_and_back_can_be_replaced() {
    let mut bench = Bench::new();
    bench.scan_all(&[("l", link("t"))]);
    let later = stat(Kind::Symlink, 4, 9);
    bench.scan_all(&[("l", Found::Symlink(later, (*b"t").into()))]);
    bench.meet(Right::Owner, None);
    bench.hear("l", 1, Body::Dir { mode: 0o755 }, None);
    assert_eq!(bench.commit().unwrap()[0].expect, Expect::Stat(later));
}

#[test]
fn a_directory_that_was_something_else_at_an_older_look_keeps_what_is_in_it() {
    let mut bench = Bench::new();
    let dir = stat(Kind::Dir, 6, 2);
    let there = [("d", Found::Entry(dir)), ("d/l", link("t"))];
    bench.scan_all(&there[..1]);
    bench.give(Input::Touched(BTreeMap::from([(path("d/l"), Depth::Entry)])));
    bench.rest();
    bench.answer_scan(&there);
    assert!(bench.body("d/l").unwrap().is_live());
    let (early, late) = two_looks(&mut bench, "d");
    bench.give(Input::Scanned(late, vec![listing(None, &there[..1]), listing(Some("d"), &[("l", link("t"))])]));
    bench.give(Input::ScanEnded(late, ScanEnd::Complete));
    let old = Found::Entry(stat(Kind::File, 5, 1));
    bench.give(Input::Scanned(early, vec![ScanItem::Path { path: path("d"), found: Some(old) }]));
    bench.give(Input::ScanEnded(early, ScanEnd::Complete));
    assert!(bench.body("d").unwrap().is_dir() && bench.body("d/l").unwrap().is_live());
    bench.rest();
    bench.answer_scan(&there);
    bench.rest();
    assert!(bench.body("d").unwrap().is_dir() && bench.body("d/l").unwrap().is_live());
}

#[test]
fn equal_files_of_a_renamed_directory_are_neither_fetched_nor_copied_from_where_they_just_left() {
    let mut bench = Bench::new();
    let one = recipe(b"one");
    let stats = ["f", "g"].map(|name| stat(Kind::File, name.len() as u64 + u64::from(name.as_bytes()[0]), 1));
    let there = [("f", Found::Entry(stats[0])), ("g", Found::Entry(stats[1]))];
    bench.scan_all(&there);
    for (name, stat) in [("f", stats[0]), ("g", stats[1])] {
        bench.give(Input::Hashed(path(name), HashOutcome::Done { stat, recipe: one.clone() }));
    }
    let versions = ["f", "g"].map(|name| bench.folder.index().local(&path(name)).unwrap().unwrap().record.version);
    bench.meet(Right::Owner, None);
    let sent = |name: &str, version: VersionVector, body: Body| SentRecord {
        record: Record { path: path(name), version, by: DeviceTag([2; 5]), body },
        recipe: Some(one.clone()),
        content: None,
        left_out: false,
    };
    let gone = |n: usize| versions[n].after_change(AuthorId(77), n as u64 + 4).unwrap();
    let new = |count| VersionVector::parse(vec![(AuthorId(77), count)]).unwrap();
    let records = vec![
        sent("x", new(1), file(&one)),
        sent("y", new(2), file(&one)),
        sent("z", new(3), file(&one)),
        sent("f", gone(0), Body::Tombstone),
        sent("g", gone(1), Body::Tombstone),
    ];
    let records = Records { folder: FOLDER, after: Sequence(0), through: Sequence(5), more: false, records };
    bench.give(Input::Message(peer(), Message::Records(records)));
    // Two are moved, and the third waits for that.
    let items = bench.commit().unwrap();
    assert!(items.iter().all(|item| matches!(item.action, Action::Move { .. })), "{items:?}");
    assert_eq!(items.len(), 2);
    let assembled = |o: &Output| if let Output::Assemble(plan) = o { Some(plan.clone()) } else { None };
    assert!(bench.take(assembled).is_none());
    let done = |stat| CommitOutcome::Done { stat: Some(stat), kept: None, aside: None, unseen: false };
    bench.give(Input::Committed(stats.map(done).to_vec()));
    let plan = bench.take(assembled).unwrap();
    assert_eq!(plan.sources[0].path, path("x"));
    assert!(bench.want().is_none());
}

#[test]
fn many_equal_files_are_renamed_in_one_go() {
    const COUNT: u64 = 100;
    let mut bench = Bench::new();
    let one = recipe(b"one");
    let names: Vec<_> = (0..COUNT).map(|n| (format!("a{n:03}"), format!("b{n:03}"))).collect();
    let stat_of = |n: u64| stat(Kind::File, 10 + n, 1);
    let there: Vec<_> = (0..).zip(&names).map(|(n, (old, _))| (old.as_str(), Found::Entry(stat_of(n)))).collect();
    bench.scan_all(&there);
    for (n, (old, _)) in (0..).zip(&names) {
        bench.give(Input::Hashed(path(old), HashOutcome::Done { stat: stat_of(n), recipe: one.clone() }));
    }
    bench.meet(Right::Owner, None);
    let mut records = Vec::new();
    for (n, (old, new)) in (1..).zip(&names) {
        let before = bench.folder.index().local(&path(old)).unwrap().unwrap().record.version;
        let made = VersionVector::parse(vec![(AuthorId(77), n)]).unwrap();
        let gone = before.after_change(AuthorId(77), COUNT + n).unwrap();
        for (name, version, body) in [(new, made, file(&one)), (old, gone, Body::Tombstone)] {
            let record = Record { path: path(name), version, by: DeviceTag([2; 5]), body };
            records.push(SentRecord { record, recipe: Some(one.clone()), content: None, left_out: false });
        }
    }
    let (after, through) = (Sequence(0), Sequence(2 * COUNT));
    let records = Records { folder: FOLDER, after, through, more: false, records };
    bench.give(Input::Message(peer(), Message::Records(records)));
    let moved = bench.commit().unwrap().len();
    let copied = bench.outputs.iter().filter(|o| matches!(o, Output::Assemble(_))).count();
    assert_eq!((moved + copied) as u64, COUNT, "none of them waits for others");
    assert!(moved > 1 && bench.want().is_none());
}

/// A file here, and a conflict copy of it with the same content, of these inodes.
fn with_equal_copy(ino: u64, copy_ino: u64) -> (Bench, String) {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let copy = crate::engine::conflict::copy_path(&path("f"), 5, DeviceTag([1; 5]), 1).to_string();
    bench.has_file(&copy, copy_ino, b"one");
    save(&mut bench, "f", ino, b"one");
    assert_eq!(bench.body("f"), Some(file(&recipe(b"one"))));
    (bench, copy)
}

/// Somebody saves a file, and it is seen.
fn save(bench: &mut Bench, name: &str, ino: u64, bytes: &[u8]) {
    bench.give(Input::Touched(BTreeMap::from([(path(name), Depth::Entry)])));
    bench.rest();
    let stat = stat(Kind::File, ino, 2);
    bench.answer_scan(&[(name, Found::Entry(stat))]);
    bench.give(Input::Hashed(path(name), HashOutcome::Done { stat, recipe: recipe(bytes) }));
}

/// The disk has done what was asked for, and this lies there.
fn made(kind: Kind, ino: u64) -> Input {
    let stat = Some(stat(kind, ino, 2));
    Input::Committed(vec![CommitOutcome::Done { stat, kept: None, aside: None, unseen: false }])
}

/// The peer has made a directory at its path, which wins. Returns what is to be done there.
fn lose_to_a_directory(bench: &mut Bench, count: u64) -> Option<CommitItem> {
    bench.hear("f", count, Body::Dir { mode: 0o755 }, None);
    bench.commit().map(|mut items| items.remove(0))
}

#[test]
fn a_loser_that_lies_here_as_a_copy_already_makes_no_other() {
    let (mut bench, _) = with_equal_copy(5, 4);
    assert_eq!(lose_to_a_directory(&mut bench, 1).unwrap().displaced, Displaced::History);
}

#[test]
fn a_thousand_copies_do_not_cost_the_next_loser_its_own() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let mut ino = 10;
    for number in 1..=crate::engine::folder::take::COPIES_MAX {
        let copy = crate::engine::conflict::copy_path(&path("f"), 5, DeviceTag([1; 5]), number).to_string();
        save(&mut bench, &copy, ino, format!("copy {number}").as_bytes());
        ino += 1;
    }
    save(&mut bench, "f", ino, b"one");
    let displaced = lose_to_a_directory(&mut bench, 1).unwrap().displaced;
    assert!(matches!(displaced, Displaced::Copy(_)), "history forgets: {displaced:?}");
}

#[test]
fn a_copy_that_was_renamed_to_the_loser_is_no_other_copy_of_it() {
    let (mut bench, copy) = with_equal_copy(4, 4);
    assert!(lose_to_a_directory(&mut bench, 1).is_none(), "whether a copy lies there is about to be seen");
    bench.rest();
    bench.answer_scan(&[]);
    bench.rest();
    let displaced = bench.commit().unwrap().remove(0).displaced;
    assert!(matches!(&displaced, Displaced::Copy(to) if to.to_string() == copy), "{displaced:?}");
}

/// The peer has seen what lies here and makes something else of it.
fn replace_at_peer(bench: &mut Bench, name: &str, body: Body, more: bool) {
    let version = bench.folder.index().local(&path(name)).unwrap().unwrap().record.version;
    let version = version.after_change(AuthorId(77), 1).unwrap();
    let record = Record { path: path(name), version, by: DeviceTag([2; 5]), body };
    let records = vec![SentRecord { record, recipe: None, content: None, left_out: false }];
    let records = Records { folder: FOLDER, after: Sequence(0), through: Sequence(1), more, records };
    bench.give(Input::Message(peer(), Message::Records(records)));
}

#[test]
fn a_copy_that_a_peer_has_removed_is_not_relied_on() {
    let (mut bench, copy) = with_equal_copy(5, 4);
    replace_at_peer(&mut bench, &copy, Body::Tombstone, true);
    let displaced = lose_to_a_directory(&mut bench, 2).unwrap().displaced;
    assert!(matches!(displaced, Displaced::Copy(_)), "{displaced:?}");
}

#[test]
fn a_copy_that_is_about_to_be_looked_at_is_waited_for() {
    let (mut bench, copy) = with_equal_copy(5, 4);
    bench.give(Input::Touched(BTreeMap::from([(path(&copy), Depth::Entry)])));
    bench.rest();
    assert_eq!(lose_to_a_directory(&mut bench, 1), None);
    bench.answer_scan(&[]);
    bench.rest();
    assert_eq!(bench.body(&copy), Some(Body::Tombstone));
    let displaced = bench.commit().unwrap().remove(0).displaced;
    assert_eq!(displaced, Displaced::Copy(path(&copy)), "it is gone, and its name is free");
}

#[test]
fn what_was_put_into_a_directory_that_is_not_recorded_waits_for_a_look() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let sent = |(name, count)| {
        let version = VersionVector::parse(vec![(AuthorId(77), count)]).unwrap();
        let record = Record { path: path(name), version, by: DeviceTag([2; 5]), body: Body::Dir { mode: 0o755 } };
        SentRecord { record, recipe: None, content: None, left_out: false }
    };
    let records = [("d", 1), ("d/e", 2)].map(sent).to_vec();
    let records = Records { folder: FOLDER, after: Sequence(0), through: Sequence(2), more: false, records };
    bench.give(Input::Message(peer(), Message::Records(records)));
    assert_eq!(bench.commit().unwrap().len(), 2);
    // Somebody has just made the directory as well.
    let made = CommitOutcome::Done { stat: Some(stat(Kind::Dir, 6, 2)), kept: None, aside: None, unseen: false };
    bench.give(Input::Committed(vec![CommitOutcome::Mismatch, made]));
    assert_eq!(bench.body("d/e"), None, "a crash now would leave it below nothing, where no listing finds it");
    let asked = bench.take(|o| match o {
        Output::Scan(_, Scope::Paths(paths)) => Some(paths.clone()),
        _ => None,
    });
    assert_eq!(asked.unwrap(), BTreeMap::from([(path("d"), Depth::Entry), (path("d/e"), Depth::Tree)]));
}

#[test]
fn a_directory_that_something_was_just_put_into_is_not_gone() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let dir = Found::Entry(Stat { mode: 0o755, ..stat(Kind::Dir, 4, 1) });
    bench.scan_all(&[("d", dir.clone())]);
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    // It is back, and nobody has looked.
    bench.hear("d/l", 1, Body::Symlink { target: (*b"t").into() }, None);
    assert_eq!(bench.commit().unwrap().len(), 1);
    bench.give(made(Kind::Symlink, 6));
    bench.rest();
    assert_eq!(bench.body("d/l"), Some(Body::Symlink { target: (*b"t").into() }));
    bench.answer_scan(&[("d", dir)]);
    bench.rest();
    assert!(bench.body("d").unwrap().is_dir() && bench.body("d/l").unwrap().is_live());
}

#[test]
fn what_came_into_a_directory_and_left_before_that_was_replaced_is_gone() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    let dir = Found::Entry(Stat { mode: 0o755, ..stat(Kind::Dir, 4, 1) });
    bench.scan_all(&[("d", dir.clone())]);
    replace_at_peer(&mut bench, "d", Body::Symlink { target: (*b"t").into() }, false);
    assert_eq!(bench.commit().unwrap().len(), 1);
    // Somebody saves a file in it, and renames it to elsewhere.
    save(&mut bench, "d/e", 5, b"one");
    assert!(bench.body("d/e").unwrap().is_live());
    bench.give(made(Kind::Symlink, 6));
    assert!(!bench.body("d").unwrap().is_dir());
    assert_eq!(bench.body("d/e"), Some(Body::Tombstone), "below a link no listing finds it any more");
}
