//! What is left out here, and what a peer leaves out.

use super::tests::{Bench, FOLDER, file, path, peer, recipe, stat};
use super::*;
use crate::engine::effect::{CommitOutcome, Depth, Found, Scope};
use crate::model::id::DeviceTag;
use crate::model::stat::Kind;
use crate::model::version::VersionVector;
use crate::wire::message::{Ack, SentRecord};

/// What was announced of a path since this was asked last: whether each time it was that it is left out.
///
/// That the record of what is left out is one that is withdrawn is checked with it.
fn said_of(bench: &mut Bench, name: &str) -> Vec<bool> {
    let (said, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut bench.outputs).into_iter().partition(|o| matches!(o, Output::Announce { .. }));
    bench.outputs = others;
    let records = said.into_iter().flat_map(|output| match output {
        Output::Announce { records, .. } => records.records,
        _ => Vec::new(),
    });
    let of_path = records.filter(|sent| sent.record.path == path(name));
    of_path.inspect(|sent| assert!(sent.record.is_withdrawn() || !sent.left_out)).map(|sent| sent.left_out).collect()
}

/// The tree that was last named to the peer.
fn named_tree(bench: &mut Bench) -> Option<[u8; 32]> {
    let tree = |o: &Output| match o {
        Output::Send(_, Message::Ack(ack)) => Some(ack.tree),
        _ => None,
    };
    std::iter::from_fn(|| bench.take(tree)).last()
}

/// The peer says, as its `count`th change, that it leaves a path out.
fn hear_withdrawn(bench: &mut Bench, name: &str, count: u64) {
    hear_nothing(bench, name, count, true);
}

/// The peer says, as its `count`th change, that it has nothing at a path, for it leaves it out or knows of nothing.
fn hear_nothing(bench: &mut Bench, name: &str, count: u64, left_out: bool) {
    let record = Record::withdrawn(path(name), DeviceTag([2; 5]));
    let records = vec![SentRecord { record, recipe: None, content: None, left_out }];
    let (after, through) = (Sequence(count - 1), Sequence(count));
    let records = Records { folder: FOLDER, after, through, more: false, records };
    bench.give(Input::Message(peer(), Message::Records(records)));
}

fn acknowledge(bench: &mut Bench, last: u64, tree: [u8; 32]) {
    let received = bench.folder.index().last_sequence();
    let ack = Ack { folder: FOLDER, received, last: Sequence(last), tree };
    bench.give(Input::Message(peer(), Message::Ack(ack)));
}

#[test]
fn what_is_left_out_from_now_on_is_withdrawn_and_told_again_to_whoever_tells_of_it() {
    let mut bench = Bench::new();
    let stat = bench.has_file("f", 4, b"one");
    bench.meet(Right::Owner, None);
    assert_eq!(said_of(&mut bench, "f"), [false]);
    bench.scan_all(&[("f", Found::Ignored)]);
    assert_eq!(said_of(&mut bench, "f"), [true]);
    // A peer edits it, deletes it, or has it as before: nothing is fetched, nothing is done to what lies here.
    for (count, body) in [(1, file(&recipe(b"two"))), (2, Body::Tombstone)] {
        let recipe = body.file().map(|_| recipe(b"two"));
        bench.hear("f", count, body, recipe);
        assert!(bench.want().is_none() && bench.commit().is_none());
        assert_eq!(said_of(&mut bench, "f"), [true]);
    }
    assert_eq!(bench.folder.status().unwrap().needed, 0);
    acknowledge(&mut bench, 2, [0; 32]);
    // It counts again, with what was done meanwhile on both sides.
    bench.scan_all(&[("f", Found::Entry(stat))]);
    assert_eq!(bench.body("f"), Some(file(&recipe(b"one"))));
    assert_eq!(said_of(&mut bench, "f"), [false]);
}

#[test]
fn what_a_peer_leaves_out_is_kept_and_both_name_the_tree_of_the_rest() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.has_file("f", 4, b"one");
    let with_it = bench.folder.index().tree_hash();
    acknowledge(&mut bench, 0, with_it);
    assert!(bench.folder.is_settled());
    hear_withdrawn(&mut bench, "f", 1);
    assert_eq!(named_tree(&mut bench), Some([0; 32]));
    assert_eq!(bench.body("f"), Some(file(&recipe(b"one"))));
    assert!(bench.commit().is_none());
    // The peer holds nothing else: that is the same as here. If it held this, it would not be.
    acknowledge(&mut bench, 1, with_it);
    assert!(!bench.folder.is_settled());
    acknowledge(&mut bench, 1, [0; 32]);
    assert!(bench.folder.is_settled());
    // It holds it again, as we do.
    let held = bench.folder.index().local(&path("f")).unwrap().unwrap().record;
    bench.hear_version("f", 2, held.version, held.body, Some(recipe(b"one")));
    assert_eq!(named_tree(&mut bench), Some(with_it));
    acknowledge(&mut bench, 2, with_it);
    assert!(bench.folder.is_settled());
}

#[test]
fn a_change_of_what_a_peer_leaves_out_asks_it_anew() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.has_file("f", 4, b"one");
    hear_withdrawn(&mut bench, "f", 1);
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    bench.rest();
    bench.rest();
    assert_eq!(bench.body("f"), Some(Body::Tombstone));
    assert!(bench.folder.index().remote(&peer(), &path("f")).unwrap().is_none());
    assert_eq!(bench.folder.index().cursor(&peer()).unwrap().apart, [0; 32]);
}

#[test]
fn of_what_is_not_known_here_it_is_not_noted_who_leaves_it_out() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    for n in 1..=50 {
        hear_withdrawn(&mut bench, &format!("f{n}"), n);
    }
    assert_eq!(bench.folder.index().remote_count(&peer()).unwrap(), 0);
    // What it had told of before is no longer asked of it.
    bench.hear("d", 51, file(&recipe(b"one")), None);
    assert_eq!(bench.folder.index().remote_count(&peer()).unwrap(), 1);
    hear_withdrawn(&mut bench, "d", 52);
    assert_eq!(bench.folder.index().remote_count(&peer()).unwrap(), 0);
    assert!(bench.body("d").is_none());
}

#[test]
fn a_directory_is_left_out_with_all_in_it_and_looked_into_when_it_counts_again() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.hear("d", 1, Body::Dir { mode: 0o755 }, None);
    bench.hear("d/e", 2, Body::Dir { mode: 0o755 }, None);
    for _ in 0..2 {
        let items = bench.commit().unwrap();
        let found = stat(Kind::Dir, 7, 1);
        bench.give(Input::Committed(
            items
                .iter()
                .map(|_| CommitOutcome::Done { stat: Some(found), kept: None, aside: None, unseen: false })
                .collect(),
        ));
    }
    assert!(bench.body("d").is_some() && bench.body("d/e").is_some());
    bench.scan_all(&[("d", Found::Ignored)]);
    assert!(bench.body("d").is_none() && bench.body("d/e").is_none());
    assert_eq!(bench.folder.index().tree_hash(), [0; 32]);
    // It is found to count, and what is in it was looked at too early.
    let found = stat(Kind::Dir, 7, 1);
    bench.scan_all(&[("d", Found::Entry(found))]);
    let looks = |o: &Output| match o {
        Output::Scan(_, Scope::Paths(paths)) => Some(paths.get(&path("d")).copied()),
        _ => None,
    };
    assert_eq!(bench.take(looks), Some(Some(Depth::Tree)));
}

#[test]
fn a_version_of_nobody_is_a_withdrawal_only() {
    assert!(Record::withdrawn(path("f"), DeviceTag([1; 5])).is_withdrawn());
    let version = VersionVector::parse(vec![(AuthorId(1), 1)]).unwrap();
    let record = Record { path: path("f"), version, by: DeviceTag([1; 5]), body: Body::Tombstone };
    assert!(!record.is_withdrawn());
}

#[test]
fn a_peer_that_leaves_a_path_out_no_longer_and_lacks_it_is_not_in_sync() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.has_file("f", 4, b"one");
    hear_withdrawn(&mut bench, "f", 1);
    acknowledge(&mut bench, 1, [0; 32]);
    assert!(bench.folder.is_settled());
    hear_nothing(&mut bench, "f", 2, false);
    assert!(bench.folder.index().remote(&peer(), &path("f")).unwrap().is_none());
    acknowledge(&mut bench, 2, [0; 32]);
    assert!(!bench.folder.is_settled());
    let tree = bench.folder.index().tree_hash();
    acknowledge(&mut bench, 2, tree);
    assert!(bench.folder.is_settled());
}

#[test]
fn peers_are_told_that_nothing_is_here_any_more_where_what_was_left_out_is_gone() {
    let mut bench = Bench::new();
    bench.give(Input::Members([peer()].into_iter().collect()));
    bench.meet(Right::Owner, None);
    bench.has_file("f", 4, b"one");
    bench.scan_all(&[("f", Found::Ignored)]);
    assert_eq!(said_of(&mut bench, "f"), [false, true]);
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    bench.rest();
    let row = bench.folder.index().local(&path("f")).unwrap().unwrap();
    assert!(row.record.is_withdrawn() && !row.ignored);
    // All peers are asked again for what was not taken; then they learn it.
    bench.meet(Right::Owner, Some((Incarnation(1), Sequence(0))));
    assert_eq!(said_of(&mut bench, "f"), [false]);
    assert!(bench.body("f").is_none_or(|body| !body.is_live()));
    // A peer has something there, and it comes as if nothing had ever been here.
    bench.hear("f", 1, file(&recipe(b"two")), Some(recipe(b"two")));
    assert!(bench.want().is_some());
}

#[test]
fn that_nothing_is_here_any_more_is_forgotten_once_all_know() {
    let mut bench = Bench::new();
    bench.give(Input::Members([peer()].into_iter().collect()));
    bench.meet(Right::Owner, None);
    bench.has_file("f", 4, b"one");
    bench.scan_all(&[("f", Found::Ignored)]);
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    bench.rest();
    bench.meet(Right::Owner, Some((Incarnation(1), Sequence(0))));
    assert!(bench.folder.index().local(&path("f")).unwrap().is_some());
    acknowledge(&mut bench, 0, [0; 32]);
    assert!(bench.folder.is_settled());
    let end = bench.at + Duration::from_secs(2 * 86_400);
    while let Some(due) = bench.folder.poll_timeout().filter(|due| *due <= end) {
        bench.at = bench.at.max(due);
        bench.flush();
        while bench.outputs.iter().any(|output| matches!(output, Output::Scan(..))) {
            bench.answer_scan(&[]);
        }
    }
    assert!(bench.folder.index().local(&path("f")).unwrap().is_none());
}

#[test]
fn what_was_to_be_read_is_not_read_once_it_is_left_out() {
    let mut bench = Bench::new();
    let stat = stat(Kind::File, 4, 1);
    bench.give(Input::ScanAll);
    let job = bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    // It is queued to be read, and found to be left out before that begins.
    let (now, at) = (bench.now(), path("f"));
    for found in [Found::Entry(stat), Found::Ignored] {
        let item = ScanItem::Path { path: at.clone(), found: Some(found) };
        bench.folder.handle(now, Input::Scanned(job, vec![item])).unwrap();
    }
    bench.flush();
    assert!(bench.take(|o| matches!(o, Output::Hash(..)).then_some(())).is_none());
}
