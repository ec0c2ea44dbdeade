//! What is forgotten, and when.

use super::tests::{Bench, file, path, peer, recipe};
use super::*;
use crate::model::version::VersionVector;
use crate::wire::message::Ack;

const DAY: Duration = Duration::from_secs(86_400);

impl Bench {
    /// A folder that it shares with one peer, in which a file was deleted here.
    fn with_deletion() -> Self {
        let mut bench = Self::new();
        bench.has_file("f", 4, b"one");
        bench.scan_all(&[]);
        bench.answer_scan(&[]);
        bench.rest();
        assert_eq!(bench.body("f"), Some(Body::Tombstone));
        bench
    }

    fn members(&mut self, members: &[DeviceId]) {
        self.give(Input::Members(members.iter().copied().collect()));
    }

    /// The peer says that it has all that is here, and the same tree.
    fn agree(&mut self) {
        let index = self.folder.index();
        let (received, tree) = (index.last_sequence(), index.tree_hash());
        let last = index.cursor(&peer()).unwrap().received;
        self.give(Input::Message(
            peer(),
            Message::Ack(Ack { folder: self.folder.params.folder, received, last, tree }),
        ));
        assert!(self.folder.is_in_sync_with(&peer()));
    }

    /// Time passes, and all that is due is done.
    fn wait(&mut self, time: Duration, there: &[(&str, crate::engine::effect::Found)]) {
        let end = self.at + time;
        while self.folder.poll_timeout().is_some_and(|due| due <= end) {
            self.at = self.at.max(self.folder.poll_timeout().unwrap());
            self.flush();
            while self.outputs.iter().any(|output| matches!(output, Output::Scan(..))) {
                self.answer_scan(there);
            }
        }
        self.at = end;
        self.flush();
    }

    fn remembers(&self, name: &str) -> bool {
        self.folder.index().local(&path(name)).unwrap().is_some()
    }
}

#[test]
fn a_deletion_is_forgotten_once_it_is_old_and_every_member_knows_of_it() {
    let mut bench = Bench::with_deletion();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    bench.wait(3 * DAY, &[]);
    assert!(bench.remembers("f"), "the peer has not said that it knows");
    bench.agree();
    bench.wait(2 * DAY, &[]);
    assert!(!bench.remembers("f"));
    assert_eq!(bench.folder.retire_timeout(), None, "nothing is left to be looked for");
}

#[test]
fn a_young_deletion_is_remembered_until_it_is_old() {
    let mut bench = Bench::with_deletion();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.wait(DAY / 2, &[]);
    assert!(bench.remembers("f"));
    bench.wait(DAY, &[]);
    assert!(!bench.remembers("f"));
}

#[test]
fn a_member_that_was_not_met_keeps_deletions_from_being_forgotten_until_it_is_removed() {
    let mut bench = Bench::with_deletion();
    let away = DeviceId::from_public_key([3; 32]);
    bench.members(&[peer(), away]);
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.wait(5 * DAY, &[]);
    assert!(bench.remembers("f"));
    bench.members(&[peer()]);
    bench.wait(DAY, &[]);
    assert!(!bench.remembers("f"));
}

#[test]
fn nothing_is_forgotten_before_the_members_are_known() {
    let mut bench = Bench::with_deletion();
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.wait(5 * DAY, &[]);
    assert!(bench.remembers("f"));
}

#[test]
fn a_member_with_a_new_index_has_to_agree_again() {
    let mut bench = Bench::with_deletion();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.give(Input::PeerDown(peer()));
    bench.meet_with(Incarnation(10), Right::Owner, None);
    bench.wait(5 * DAY, &[]);
    assert!(bench.remembers("f"));
    bench.agree();
    bench.wait(2 * DAY, &[]);
    assert!(!bench.remembers("f"));
}

#[test]
fn a_member_that_remembers_less_than_it_did_has_to_agree_again() {
    let mut bench = Bench::with_deletion();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.give(Input::PeerDown(peer()));
    bench.meet(Right::Owner, Some((Incarnation(1), Sequence(1))));
    bench.wait(5 * DAY, &[]);
    assert!(bench.remembers("f"));
}

#[test]
fn what_came_after_the_last_agreement_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    bench.agree();
    bench.give(Input::PeerDown(peer()));
    bench.has_file("f", 4, b"one");
    bench.scan_all(&[]);
    bench.answer_scan(&[]);
    bench.rest();
    assert_eq!(bench.body("f"), Some(Body::Tombstone));
    bench.wait(5 * DAY, &[]);
    assert!(bench.remembers("f"));
}

#[test]
fn a_crowded_version_loses_the_authors_that_write_no_more_once_all_agree() {
    let mut bench = Bench::new();
    bench.members(&[peer()]);
    bench.meet(Right::Owner, None);
    // A deletion of what was never here is held at once, whoever wrote there before.
    let writes = AuthorId::derive(&peer(), Incarnation(9));
    let mut counters: Vec<_> = (1..=limits::VERSION_AUTHORS_CROWD as u64).map(|n| (AuthorId(n), n)).collect();
    counters.push((writes, 1));
    counters.sort();
    let crowd = VersionVector::parse(counters).unwrap();
    assert!(crowd.is_crowded());
    bench.hear_version("f", 1, crowd.clone(), Body::Tombstone, None);
    let version = |bench: &Bench| bench.folder.index().local(&path("f")).unwrap().unwrap().record.version;
    bench.wait(DAY / 4, &[]);
    assert_eq!(version(&bench), crowd);
    bench.agree();
    bench.wait(DAY / 4, &[]);
    let lean = version(&bench);
    let ours = bench.folder.author;
    assert_eq!(lean.counters().iter().map(|c| c.0).collect::<BTreeSet<_>>(), BTreeSet::from([ours, writes]));
    // The peer, which holds the crowd, takes the lean one for the same body; and we stay with it.
    use crate::engine::reconcile::{Verdict, reconcile};
    let record = |version| Record { path: path("f"), version, by: bench.folder.tag, body: file(&recipe(b"x")) };
    let (crowd, lean) = (record(crowd), record(lean));
    let taken = Verdict::Agree { version: lean.version.clone(), by: lean.by };
    assert_eq!(reconcile(Some(&crowd), &lean), Ok(taken));
    assert_eq!(reconcile(Some(&lean), &crowd), Ok(Verdict::Stay));
}
