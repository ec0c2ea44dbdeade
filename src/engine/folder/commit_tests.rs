//! What is looked at while a commit is under way.

use super::tests::{Bench, path, recipe, stat};
use super::*;
use crate::engine::effect::{CommitOutcome, Depth, Displaced, Found, HashOutcome, ScanEnd};
use crate::model::stat::Kind;

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
