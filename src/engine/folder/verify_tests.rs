//! Files that are compared with their records, found damaged, and healed.

use super::tests::{Bench, SCRUB, file, path, peer, recipe, stat};
use super::*;
use crate::engine::effect::{Action, Expect, Found};
use crate::model::id::AuthorId;
use crate::model::stat::Kind;
use crate::wire::message::{Run, Want, WantItem};

impl Bench {
    /// What happens after a restart, with all on the disk as the index has it.
    fn restarted(&self) -> Self {
        let mut bench = Self::with_index(self.folder.index().clone());
        bench.at = self.at;
        bench.look();
        bench
    }

    /// Answers all scans with what the index has, all of it in the root.
    fn look(&mut self) {
        while self.outputs.iter().any(|o| matches!(o, Output::Scan(..))) {
            let there = self.folder.index().children(None).unwrap();
            let there: Vec<_> = there.iter().filter_map(|l| Some((l.record.path.to_string(), l.stat?))).collect();
            let there: Vec<_> = there.iter().map(|(name, stat)| (name.as_str(), Found::Entry(*stat))).collect();
            self.answer_scan(&there);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.at + time;
        loop {
            self.flush();
            self.look();
            match self.folder.poll_timeout().filter(|due| *due <= end) {
                Some(due) => {
                    assert!(due > self.at, "it would be asked again and again");
                    self.at = due;
                }
                None => break,
            }
        }
        self.at = end;
        self.flush();
        self.look();
    }

    fn stat_of(&self, name: &str) -> Stat {
        self.folder.index().local(&path(name)).unwrap().unwrap().stat.unwrap()
    }

    /// Several files come to be.
    fn has_files(&mut self, names: &[String]) {
        let stat = |n| Stat { ino: n as u64, ..stat(Kind::File, 0, 1) };
        let there: Vec<_> = names.iter().enumerate().map(|(n, name)| (&**name, Found::Entry(stat(n)))).collect();
        self.scan_all(&there);
        while let Some((name, stat)) = self.take(|o| match o {
            Output::Hash(path, stat) => Some((path.clone(), *stat)),
            _ => None,
        }) {
            self.give(Input::Hashed(name, HashOutcome::Done { stat, recipe: recipe(b"one") }));
        }
    }

    fn verify(&mut self, heals: bool) {
        let now = self.now();
        self.folder.begin_verify(now, heals);
        self.flush();
    }

    /// What is to be compared, and whether slowly.
    fn verifies(&mut self) -> Option<(Vec<String>, bool)> {
        self.take(|o| match o {
            Output::Verify(items, is_slow) => {
                Some((items.iter().map(|item| item.path.to_string()).collect(), *is_slow))
            }
            _ => None,
        })
    }

    fn damaged(&self) -> Vec<RelPath> {
        let damaged = self.folder.problems().filter(|problem| problem.kind == ProblemKind::Damaged);
        damaged.filter_map(|problem| problem.path).collect()
    }

    /// A file that turns out to be damaged.
    fn has_damaged_file(&mut self, heals: bool) -> Stat {
        let stat = self.has_file("f", 4, b"one");
        self.verify(heals);
        assert_eq!(self.verifies(), Some((vec!["f".to_owned()], false)));
        self.give(Input::Verified(vec![VerifyOutcome::Damaged { bytes: 3, detail: String::new() }]));
        stat
    }

    /// The disk finds that all of the file is missing, and the peer sends it.
    fn heal(&mut self) {
        let stage = self
            .take(|o| match o {
                Output::Assemble(plan) => Some(plan.stage),
                _ => None,
            })
            .expect("nothing is put together");
        self.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: vec![0] }));
        let want = self.want().expect("nothing is asked for");
        let header = ChunkHeader { request: want.request, item: 0, chunk: 0 };
        self.give(Input::Chunk(peer(), header, VerifiedChunk::hash(b"one".to_vec())));
        assert!(self.take(|o| matches!(o, Output::Stage(..)).then_some(())).is_some());
        self.give(Input::Staged(stage, 0, Ok(())));
    }
}

#[test]
fn damage_is_told_and_not_given_to_peers_and_is_over_when_the_file_is_another() {
    let mut bench = Bench::new();
    bench.has_damaged_file(false);
    assert_eq!(bench.damaged(), [path("f")]);
    let status = bench.folder.verify_status();
    assert_eq!((status.files, status.bytes, status.found, status.is_running), (1, 3, 1, false));
    assert_eq!(status.damaged, [(path("f"), 3)]);

    bench.meet(Right::Owner, None);
    assert!(bench.take(|o| matches!(o, Output::Assemble(..)).then_some(())).is_none(), "nobody asked for that");
    let runs = vec![Run { first: 0, offset: 0, lens: vec![3] }];
    let items = vec![WantItem { path: path("f"), content: recipe(b"one").content_id(), runs }];
    let want = Want { request: 1, folder: bench.folder.params.folder, items };
    bench.give(Input::Message(peer(), Message::Want(want)));
    assert!(bench.take(|o| matches!(o, Output::Serve { .. }).then_some(())).is_none());
    assert!(bench.take(|o| matches!(o, Output::Send(_, Message::Missing { .. })).then_some(())).is_some());

    // A person writes to it.
    bench.scan_all(&[("f", Found::Entry(Stat { ctime_ns: 9, ..bench.stat_of("f") }))]);
    let stat = bench.take(|o| if let Output::Hash(_, stat) = o { Some(*stat) } else { None }).unwrap();
    bench.give(Input::Hashed(path("f"), HashOutcome::Done { stat, recipe: recipe(b"two") }));
    assert_eq!(bench.damaged(), []);
    assert_eq!(bench.folder.verify_status().damaged, []);
}

#[test]
fn what_is_damaged_is_healed_from_a_peer_and_goes_to_history() {
    let mut bench = Bench::new();
    let stat = bench.has_damaged_file(true);
    assert!(!bench.folder.verify_status().is_running, "there is nobody who could have it");
    let before = bench.folder.index().local(&path("f")).unwrap().unwrap().record;
    bench.meet(Right::Reader, None);
    assert!(bench.folder.verify_status().is_running);
    bench.heal();
    let items = bench.commit().unwrap();
    assert!(matches!(items[0].action, Action::Place { .. }));
    assert_eq!(items[0].expect, Expect::Stat(stat));
    assert_eq!(items[0].displaced, crate::engine::effect::Displaced::History);
    let healed = Stat { ino: 5, ctime_ns: 7, ..stat };
    let (kept, aside) = (Some("f~".to_owned()), None);
    bench.give(Input::Committed(vec![CommitOutcome::Done { stat: Some(healed), kept, aside, unseen: false }]));
    let local = bench.folder.index().local(&path("f")).unwrap().unwrap();
    assert_eq!((local.record, local.stat), (before, Some(healed)));
    assert_eq!(bench.folder.index().kept(Some(&path("f")), false).unwrap().len(), 1);
    assert_eq!((bench.damaged(), bench.folder.verify_status().healed), (vec![], 1));
    assert!(!bench.folder.verify_status().is_running);
    assert!(bench.outputs.iter().any(|o| matches!(o, Output::Note(Note::Healed(p)) if *p == path("f"))));
}

#[test]
fn who_does_not_have_it_is_not_asked_again_and_the_next_peer_is() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.has_damaged_file(true);
    let stage = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage) } else { None }).unwrap();
    bench.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: vec![0] }));
    let want = bench.want().unwrap();
    bench.give(Input::Message(peer(), Message::Missing { request: want.request, item: 0 }));
    assert!(!bench.folder.verify_status().is_running);
    for _ in 0..100 {
        bench.rest();
    }
    assert!(bench.take(|o| matches!(o, Output::Assemble(..)).then_some(())).is_none());
    assert_eq!(bench.damaged(), [path("f")]);
    bench.give(Input::PeerDown(peer()));
    bench.meet(Right::Owner, None);
    bench.heal();
    assert!(bench.commit().is_some());
}

#[test]
fn a_newer_version_of_a_peer_goes_before_healing() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.has_damaged_file(true);
    let version = bench.folder.index().local(&path("f")).unwrap().unwrap().record.version;
    let version = version.after_change(AuthorId(77), 1).unwrap();
    bench.hear_version("f", 1, version, file(&recipe(b"two")), Some(recipe(b"two")));
    // The order to put together what lies here is still to be answered.
    let stage = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage) } else { None }).unwrap();
    bench.give(Input::Assembled(stage, AssembleOutcome::Staged { missing: vec![0] }));
    bench.rest();
    let next = bench.take(|o| if let Output::Assemble(plan) = o { Some(plan.stage.content) } else { None });
    let want = bench.want().map(|want| want.items[0].content).or(next);
    assert_eq!(want, Some(recipe(b"two").content_id()));
    assert!(bench.commit().is_none());
}

#[test]
fn a_walk_reads_all_files_and_a_file_that_changed_meanwhile_is_looked_at() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..200).map(|n| format!("f{n:03}")).collect();
    bench.has_files(&names);
    bench.verify(false);
    let mut seen = Vec::new();
    while let Some((batch, is_slow)) = bench.verifies() {
        assert!(!is_slow);
        let mut outcomes = vec![VerifyOutcome::Intact; batch.len()];
        if seen.is_empty() {
            outcomes[0] = VerifyOutcome::Changed;
            outcomes[1] = VerifyOutcome::Failed("permission denied".to_owned());
        }
        seen.extend(batch);
        bench.give(Input::Verified(outcomes));
    }
    seen.sort();
    assert_eq!(seen, names);
    let scope = bench.take(|o| if let Output::Scan(_, scope) = o { Some(scope.clone()) } else { None });
    assert_eq!(scope, Some(Scope::Paths(BTreeMap::from([(path("f000"), Depth::Entry)]))));
    let problem = bench.folder.problems().next().unwrap();
    assert_eq!((problem.path, problem.kind), (Some(path("f001")), ProblemKind::Unreadable));
    let status = bench.folder.verify_status();
    assert_eq!((status.files, status.found, status.is_running), (200, 0, false));
}

#[test]
fn the_slow_check_sees_everything_in_its_time_and_remembers_where_it_was() {
    let mut bench = Bench::new();
    bench.has_files(&(0..50).map(|n| format!("f{n:02}")).collect::<Vec<_>>());
    let (mut seen, mut turns) = (Vec::new(), 0);
    while bench.folder.verify_status().scrubbed_ns.is_none() {
        bench.pass(Duration::from_secs(3600));
        turns += 1;
        assert!(turns <= 30 * 24 + 2, "it takes longer than it should");
        while let Some((batch, is_slow)) = bench.verifies() {
            assert!(is_slow);
            let outcomes = vec![VerifyOutcome::Intact; batch.len()];
            seen.extend(batch);
            bench.give(Input::Verified(outcomes));
        }
        if turns == 20 {
            // A restart in the middle does not begin from the start.
            bench = bench.restarted();
        }
    }
    let mut all = seen.clone();
    all.sort();
    all.dedup();
    assert_eq!((seen.len(), all.len()), (50, 50));
    // The next pass begins when its time has come.
    bench.pass(Duration::from_secs(3600));
    assert_eq!(bench.verifies(), None);
    bench.pass(SCRUB);
    assert!(bench.verifies().is_some());
}

#[test]
fn what_was_found_damaged_is_known_after_a_restart_unless_it_is_another_file_now() {
    let mut bench = Bench::new();
    bench.has_damaged_file(false);
    let mut again = bench.restarted();
    assert_eq!(again.damaged(), [path("f")]);
    again.has_file("f", 9, b"two");
    assert_eq!(again.damaged(), []);
    let last = again.restarted();
    assert_eq!(last.damaged(), []);
}

#[test]
fn a_check_says_that_it_waits_for_the_root() {
    let mut bench = Bench::new();
    let stat = bench.has_file("f", 4, b"one");
    bench.give(Input::ScanAll);
    let job = bench.take(|o| if let Output::Scan(job, _) = o { Some(*job) } else { None }).unwrap();
    bench.give(Input::ScanEnded(job, ScanEnd::RootMissing("it is away".to_owned())));
    bench.verify(false);
    assert_eq!(bench.verifies(), None);
    let status = bench.folder.verify_status();
    assert!(status.is_running && status.is_stopped);
    bench.scan_all(&[("f", Found::Entry(stat))]);
    assert!(bench.verifies().is_some());
    bench.give(Input::Verified(vec![VerifyOutcome::Intact]));
    let status = bench.folder.verify_status();
    assert!(!status.is_running && !status.is_stopped);
}
