//! What is looked at while a commit is under way.

use super::tests::{Bench, file, path, recipe, stat};
use super::*;
use crate::engine::effect::{CommitOutcome, Depth, Displaced, Found, HashOutcome, ScanEnd};
use crate::model::stat::Kind;
use crate::model::version::{Causality, VersionVector};

fn link(target: &str) -> Body {
    Body::Symlink { target: target.as_bytes().into() }
}

impl Bench {
    /// The scan that was asked for last.
    fn scan(&mut self) -> Option<(JobId, Scope)> {
        self.take(|o| match o {
            Output::Scan(job, scope) => Some((*job, scope.clone())),
            _ => None,
        })
    }

    /// A path was touched, and the look at it begins.
    fn touch(&mut self, name: &str) -> JobId {
        self.give(Input::Touched(BTreeMap::from([(path(name), Depth::Entry)])));
        self.rest();
        let (job, scope) = self.scan().expect("no look at what was touched");
        assert!(matches!(scope, Scope::Paths(paths) if paths.contains_key(&path(name))));
        job
    }

    fn end_scan(&mut self, job: JobId, items: Vec<ScanItem>) {
        self.give(Input::Scanned(job, items));
        self.give(Input::ScanEnded(job, ScanEnd::Complete));
    }
}

#[test]
fn a_look_from_before_a_copy_was_put_there_does_not_count() {
    let mut bench = Bench::new();
    let ours = stat(Kind::Symlink, 4, 1);
    bench.scan_all(&[("l", Found::Symlink(ours, (*b"ours").into()))]);
    bench.meet(Right::Owner, None);
    // Of two that know nothing of each other one is put beside the other.
    let target = (0..64).map(|n| format!("theirs {n}"));
    let copy = target.zip(1..).find_map(|(target, count)| {
        bench.hear("l", count, link(&target), None);
        bench.commit().and_then(|items| match &items[0].displaced {
            Displaced::Copy(copy) => Some(copy.clone()),
            Displaced::History | Displaced::Drop => None,
        })
    });
    let copy = copy.expect("none of them won");
    let name = String::from_utf8(copy.as_bytes().to_vec()).unwrap();
    let job = bench.touch(&name);
    let done = CommitOutcome::Done {
        stat: Some(stat(Kind::Symlink, 5, 2)),
        kept: None,
        aside: Some((copy.clone(), ours)),
        unseen: false,
    };
    bench.give(Input::Committed(vec![done]));
    assert_eq!(bench.body(&name), Some(link("ours")));
    bench.end_scan(job, vec![ScanItem::Path { path: copy.clone(), found: None }]);
    bench.rest();
    assert_eq!(bench.body(&name), Some(link("ours")));
    assert!(bench.scan().is_some_and(|(_, scope)| matches!(scope, Scope::Paths(paths) if paths.contains_key(&copy))));
}

#[test]
fn a_look_that_saw_no_directory_where_something_was_put_since_does_not_count() {
    let mut bench = Bench::new();
    bench.scan_all(&[("d", Found::Entry(stat(Kind::Dir, 7, 1)))]);
    bench.meet(Right::Owner, None);
    bench.give(Input::ScanAll);
    let (job, _) = bench.scan().unwrap();
    bench.hear("d/l", 1, link("x"), None);
    assert_eq!(bench.commit().map(|items| items.len()), Some(1));
    let found = Some(stat(Kind::Symlink, 8, 1));
    let done = CommitOutcome::Done { stat: found, kept: None, aside: None, unseen: false };
    bench.give(Input::Committed(vec![done]));
    assert_eq!(bench.body("d/l"), Some(link("x")));
    // Before that the directory was a file for a moment, and is one no longer.
    let entries = vec![((*b"d").into(), Found::Entry(stat(Kind::File, 9, 1)))];
    bench.end_scan(job, vec![ScanItem::Listing { dir: None, entries }]);
    bench.rest();
    assert_eq!(bench.body("d/l"), Some(link("x")));
}

#[test]
fn what_is_queued_to_be_read_by_one_of_two_looks_is_looked_at_again() {
    let mut bench = Bench::new();
    bench.give(Input::ScanAll);
    let (full, _) = bench.scan().unwrap();
    let partial = bench.touch("f");
    let stat = stat(Kind::File, 4, 1);
    bench.end_scan(partial, vec![ScanItem::Path { path: path("f"), found: Some(Found::Entry(stat)) }]);
    bench.give(Input::Hashed(path("f"), HashOutcome::Done { stat, recipe: recipe(b"one") }));
    let (_, scope) = bench.scan().expect("which of the two looks was the later is not known");
    assert!(matches!(scope, Scope::Paths(paths) if paths.contains_key(&path("f"))));
    bench.end_scan(full, vec![]);
}

#[test]
fn what_is_to_be_put_onto_a_file_system_says_which_and_waits_while_it_is_away() {
    let mut bench = Bench::new();
    let on = |dev, kind, ino| crate::model::stat::Stat { dev, ..stat(kind, ino, 1) };
    let dir = |dev| ("d", Found::Entry(on(dev, Kind::Dir, 7)));
    bench.scan_all(&[("a", Found::Symlink(on(1, Kind::Symlink, 4), (*b"x").into())), dir(2)]);
    bench.meet(Right::Owner, None);
    bench.hear("d/kept", 1, link("x"), None);
    let items = bench.commit().unwrap();
    assert_eq!(items[0].dir_dev, Some(2));
    let found = Some(on(2, Kind::Symlink, 8));
    let done = CommitOutcome::Done { stat: found, kept: None, aside: None, unseen: false };
    bench.give(Input::Committed(vec![done]));
    // Nobody has told yet that it is away.
    bench.hear("d/new", 2, link("y"), None);
    assert_eq!(bench.commit().unwrap()[0].dir_dev, Some(2));
    bench.give(Input::Committed(vec![CommitOutcome::OtherFileSystem]));
    assert_eq!(bench.body("d/new"), None);
    let is_look = |scope: &Scope| matches!(scope, Scope::Paths(paths) if paths.contains_key(&path("d")));
    let (job, scope) = bench.scan().unwrap();
    assert!(is_look(&scope));
    let entry = ScanItem::Path { path: path("d"), found: Some(Found::Entry(on(1, Kind::Dir, 9))) };
    let listing = ScanItem::Listing { dir: Some(path("d")), entries: Vec::new() };
    bench.end_scan(job, vec![entry, listing]);
    for _ in 0..5 {
        bench.rest();
        assert!(bench.commit().is_none());
    }
    assert!(bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged));
    assert_eq!(bench.body("d/kept"), Some(link("x")));
    // It is looked for from time to time, for no event tells when it is back.
    for _ in 0..6 {
        bench.rest();
    }
    let (job, scope) = bench.scan().expect("it is looked for");
    assert!(is_look(&scope));
    let entry = ScanItem::Path { path: path("d"), found: Some(Found::Entry(on(2, Kind::Dir, 7))) };
    bench.end_scan(job, vec![entry]);
    bench.rest();
    assert!(bench.folder.problems().all(|problem| problem.kind != ProblemKind::MountChanged));
    assert_eq!(bench.folder.poll_timeout().map(|due| due > bench.at + Duration::from_secs(60)), Some(true));
}

#[test]
fn a_file_that_is_where_it_was_tells_that_its_file_system_is_back_whatever_number_the_directory_had() {
    let mut bench = Bench::new();
    let on = |dev, kind, ino| crate::model::stat::Stat { dev, ..stat(kind, ino, 1) };
    let look = |bench: &mut Bench, dir: u64, file: u64| {
        bench.give(Input::ScanAll);
        let (job, _) = bench.scan().unwrap();
        let root = vec![((*b"d").into(), Found::Entry(on(dir, Kind::Dir, 7)))];
        let inside = vec![((*b"f").into(), Found::Entry(on(file, Kind::File, 8)))];
        let listing = |dir, entries| ScanItem::Listing { dir, entries };
        bench.end_scan(job, vec![listing(None, root), listing(Some(path("d")), inside)]);
    };
    look(&mut bench, 3, 2);
    let done = HashOutcome::Done { stat: on(2, Kind::File, 8), recipe: recipe(b"one") };
    bench.give(Input::Hashed(path("d/f"), done));
    // The directory was last seen under a number that the file was not seen under.
    look(&mut bench, 2, 2);
    let (job, _) = bench.scan().expect("it is looked at once more");
    let entry = ScanItem::Path { path: path("d"), found: Some(Found::Entry(on(2, Kind::Dir, 7))) };
    bench.end_scan(job, vec![entry]);
    assert_eq!(bench.folder.index().local(&path("d")).unwrap().unwrap().stat.unwrap().dev, 2);
    assert!(bench.folder.problems().all(|problem| problem.kind != ProblemKind::MountChanged));
}

#[test]
fn a_directory_that_is_where_it_was_tells_that_its_file_system_was_renumbered_unless_it_may_be_the_root_of_one() {
    for (ino, is_same) in [(5000, true), (2, false)] {
        let mut bench = Bench::new();
        let on = |dev, kind, ino| crate::model::stat::Stat { dev, ..stat(kind, ino, 1) };
        let look = |bench: &mut Bench, dev| {
            bench.give(Input::ScanAll);
            let (job, _) = bench.scan().unwrap();
            let listing = |dir, name: &[u8], found| ScanItem::Listing { dir, entries: vec![(name.into(), found)] };
            let link = Found::Symlink(on(dev, Kind::Symlink, 9), (*b"x").into());
            let root = listing(None, b"d", Found::Entry(on(dev, Kind::Dir, ino)));
            bench.end_scan(job, vec![root, listing(Some(path("d")), b"l", link)]);
        };
        look(&mut bench, 3);
        look(&mut bench, 2);
        let is_reported = bench.folder.problems().any(|problem| problem.kind == ProblemKind::MountChanged);
        assert_eq!(is_reported, !is_same);
    }
}

#[test]
fn what_lies_on_a_file_system_with_another_number_is_not_read_again() {
    let mut bench = Bench::new();
    let was = bench.has_file("f", 4, b"one");
    let is = crate::model::stat::Stat { dev: was.dev + 1, ..was };
    bench.scan_all(&[("f", Found::Entry(is))]);
    assert!(bench.take(|o| matches!(o, Output::Hash(..)).then_some(())).is_none());
    assert_eq!(bench.folder.index().local(&path("f")).unwrap().unwrap().stat, Some(is));
    assert_eq!(bench.folder.index().recipe(&path("f")).unwrap(), Some(recipe(b"one")));
}

#[test]
fn what_waits_for_its_directory_goes_on_when_a_person_makes_that() {
    let mut bench = Bench::new();
    let file = Found::Symlink(stat(Kind::Symlink, 4, 1), (*b"x").into());
    bench.scan_all(&[("d", file)]);
    bench.meet(Right::Owner, None);
    // A link lies where the directory should be.
    bench.hear("d/l", 1, link("y"), None);
    assert!(bench.commit().is_none());
    bench.scan_all(&[("d", Found::Entry(stat(Kind::Dir, 7, 2)))]);
    let items = bench.commit().expect("it goes on");
    assert_eq!(items[0].path, path("d/l"));
}

#[test]
fn a_file_system_that_comes_back_under_another_number_is_known_by_what_lies_on_it() {
    let mut bench = Bench::new();
    let on = |dev, kind, ino| crate::model::stat::Stat { dev, ..stat(kind, ino, 1) };
    let entry = |dev| ScanItem::Path { path: path("d"), found: Some(Found::Entry(on(dev, Kind::Dir, 2))) };
    let listing = |entries| ScanItem::Listing { dir: Some(path("d")), entries };
    let file = |dev| ((*b"f").into(), Found::Entry(on(dev, Kind::File, 8)));
    bench.give(Input::ScanAll);
    let (job, _) = bench.scan().unwrap();
    let root = ScanItem::Listing { dir: None, entries: vec![((*b"d").into(), Found::Entry(on(2, Kind::Dir, 2)))] };
    bench.end_scan(job, vec![root, listing(vec![file(2)])]);
    let done = HashOutcome::Done { stat: on(2, Kind::File, 8), recipe: recipe(b"one") };
    bench.give(Input::Hashed(path("d/f"), done));
    // It goes, and comes back: each is looked into once, and not again while nothing changes.
    let looks = |bench: &mut Bench| match bench.scan() {
        Some((job, Scope::Paths(paths))) => Some((job, paths[&path("d")])),
        _ => None,
    };
    let job = bench.touch("d");
    bench.end_scan(job, vec![entry(1)]);
    let (job, depth) = looks(&mut bench).unwrap();
    assert_eq!(depth, Depth::Tree);
    bench.end_scan(job, vec![entry(1), listing(Vec::new())]);
    bench.at += Duration::from_secs(6);
    bench.flush();
    let (job, depth) = looks(&mut bench).expect("it is looked for");
    assert_eq!(depth, Depth::Entry);
    bench.end_scan(job, vec![entry(3)]);
    let (job, depth) = looks(&mut bench).unwrap();
    assert_eq!(depth, Depth::Tree);
    bench.end_scan(job, vec![entry(3), listing(vec![file(3)])]);
    let (job, _) = looks(&mut bench).unwrap();
    bench.end_scan(job, vec![entry(3), listing(vec![file(3)])]);
    assert_eq!(bench.body("d/f"), Some(super::tests::file(&recipe(b"one"))));
    assert!(bench.folder.problems().all(|problem| problem.kind != ProblemKind::MountChanged));
}

#[test]
fn edits_made_apart_are_told_of_with_what_each_has_seen() {
    let mut bench = Bench::new();
    bench.has_file("f", 1, b"ours");
    bench.meet(Right::Owner, None);
    let parted = |bench: &mut Bench| {
        bench.take(|o| match o {
            Output::Parted(parting) => Some(parting.clone()),
            _ => None,
        })
    };
    let theirs = recipe(b"theirs");
    bench.hear("f", 1, file(&theirs), Some(theirs.clone()));
    let told = parted(&mut bench).expect("nothing was told");
    let held = bench.folder.index().local(&path("f")).unwrap().unwrap().record;
    assert_eq!((told.path, told.one.content), (path("f"), recipe(b"ours").content_id()));
    assert_eq!(told.other.content, theirs.content_id());
    assert_eq!(told.one.version.compare(&told.other.version), Causality::Concurrent);
    assert!(told.one.version == held.version, "before either side had seen the other");
    // The same content written apart is no conflict, and neither is what has seen ours.
    let mut bench = Bench::new();
    bench.has_file("f", 1, b"ours");
    bench.meet(Right::Owner, None);
    let same = recipe(b"ours");
    bench.hear("f", 1, file(&same), Some(same));
    let seen = bench.folder.index().local(&path("f")).unwrap().unwrap().record.version;
    let later = seen.merge(&VersionVector::parse(vec![(AuthorId(77), 2)]).unwrap()).unwrap();
    bench.hear_version("f", 2, later, file(&theirs), Some(theirs.clone()));
    assert_eq!(parted(&mut bench), None);
}
