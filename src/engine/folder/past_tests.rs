//! Who hears of what is kept here, and what is believed of what others keep.

use super::tests::{Bench, FOLDER, path, peer};
use super::*;
use crate::engine::index::Kept;
use crate::engine::memory_index::MemoryIndex;
use crate::model::record::FileBody;
use crate::wire::message::{Want, WantItem};
use crate::wire::past::{History, WantHistory};

const SIZE: u64 = 600 << 10;

fn body(seed: u8) -> FileBody {
    FileBody { mode: 0o644, mtime_ns: 5, size: SIZE, content: ContentId([seed; 32]) }
}

fn former(at: &str, until_ns: i64) -> Former {
    let (by, since_ns) = (DeviceTag([4; 5]), until_ns - 1);
    Former { path: path(at), body: Body::File(body(1)), by, since_ns, until_ns }
}

impl Bench {
    fn keeps(&mut self, at: &str, until_ns: i64, seed: u8) {
        let Former { path, by, since_ns, .. } = former(at, until_ns);
        let (body, file) = (Body::File(body(seed)), Some(format!("kept {at} {until_ns}")));
        self.folder.index_mut().add_kept(&Kept { path, body, by, since_ns, until_ns, file }).unwrap();
    }

    fn hears(&mut self, message: Message) {
        self.give(Input::Message(peer(), message));
    }

    fn said<T>(&mut self, pick: impl Fn(&Message) -> Option<T>) -> Option<T> {
        self.take(|output| match output {
            Output::Send(to, message) if *to == peer() => pick(message),
            _ => None,
        })
    }

    fn is_asked(&mut self, top: Option<&str>, after: Option<(&str, i64)>) -> Option<History> {
        let after = after.map(|(at, until_ns)| (path(at), until_ns));
        self.hears(Message::WantHistory(WantHistory { request: 3, folder: FOLDER, top: top.map(path), after }));
        self.said(|message| match message {
            Message::History(history) => Some(history.clone()),
            _ => None,
        })
    }

    fn asks(&mut self) -> WantHistory {
        let asked = self.said(|message| match message {
            Message::WantHistory(want) => Some(want.clone()),
            _ => None,
        });
        asked.expect("nothing was asked")
    }

    fn told(&mut self) -> Option<Result<Vec<Former>, PastError>> {
        self.take(|output| match output {
            Output::Told(_, told) => Some(told.clone()),
            _ => None,
        })
    }

    fn wants(&mut self, at: &str, seed: u8, len: u32) {
        let run = Run { first: 0, offset: SIZE - 100, lens: vec![len] };
        let item = WantItem { path: path(at), content: ContentId([seed; 32]), runs: vec![run] };
        self.hears(Message::Want(Want { request: 8, folder: FOLDER, items: vec![item] }));
    }

    fn is_refused(&mut self) -> bool {
        self.said(|message| (*message == Message::Missing { request: 8, item: 0 }).then_some(())).is_some()
    }

    fn served(&mut self) -> Option<(String, u64)> {
        self.take(|output| match output {
            Output::ServeKept { items, .. } => items.first().map(|(_, file, size, _)| (file.clone(), *size)),
            _ => None,
        })
    }

    /// Sets out to take a version, and returns what is asked for.
    fn takes(&mut self) -> (u64, Vec<Run>) {
        self.meet(Right::Owner, None);
        self.folder.take_former(self.now(), peer(), &[(path("f"), body(1))]);
        self.flush();
        let want = self.said(|message| match message {
            Message::Want(want) => Some(want.clone()),
            _ => None,
        });
        let want = want.expect("nothing was asked for");
        assert_eq!((want.items[0].path.clone(), want.items[0].content), (path("f"), ContentId([1; 32])));
        (want.request, want.items[0].runs.clone())
    }

    fn receives(&mut self, request: u64, chunk: u32, len: u32) {
        let chunk_bytes = VerifiedChunk::hash(vec![7; len as usize]);
        self.give(Input::Chunk(peer(), ChunkHeader { request, item: 0, chunk }, chunk_bytes));
    }

    fn taken(&mut self) -> Option<Result<Vec<StageId>, PastError>> {
        self.take(|output| match output {
            Output::Taken(_, taken) => Some(taken.clone()),
            _ => None,
        })
    }

    fn is_discarded(&mut self) -> bool {
        self.take(|output| matches!(output, Output::Discard(_)).then_some(())).is_some()
    }
}

#[test]
fn only_who_may_read_the_folder_hears_of_its_past() {
    let mut bench = Bench::new();
    bench.keeps("f", 9, 1);
    assert_eq!(bench.is_asked(None, None), None);
    bench.wants("f", 1, 100);
    assert!(!bench.is_refused() && bench.served().is_none(), "not even a refusal");

    bench.meet(Right::Reader, None);
    let told = bench.is_asked(None, None).expect("a reader may read");
    assert_eq!((told.versions, told.more), (vec![former("f", 9)], false));
    bench.wants("f", 1, 100);
    assert_eq!(bench.served(), Some(("kept f 9".to_owned(), SIZE)));

    bench.give(Input::PeerDown(peer()));
    assert_eq!(bench.is_asked(None, None), None);
    bench.wants("f", 1, 100);
    assert!(bench.served().is_none());
}

#[test]
fn a_former_version_is_given_at_its_own_path_alone_and_no_byte_beyond_it() {
    let mut bench = Bench::new();
    bench.keeps("f", 9, 1);
    bench.keeps("g", 9, 2);
    bench.meet(Right::Owner, None);
    for (at, seed, len) in [("f", 2, 100), ("h", 1, 100), ("f", 1, 101)] {
        bench.wants(at, seed, len);
        assert!(bench.is_refused() && bench.served().is_none(), "{at} {seed} {len}");
    }
}

#[test]
fn history_is_told_in_pages_of_what_was_asked_for() {
    let mut bench = Bench::new();
    let count = i64::try_from(limits::HISTORY_PAGE_MAX).unwrap() + 3;
    (0..count).for_each(|n| bench.keeps("d/f", n, 1));
    bench.keeps("e", 1, 1);
    bench.meet(Right::Reader, None);
    let first = bench.is_asked(Some("d"), None).unwrap();
    assert_eq!((first.versions.len(), first.more), (limits::HISTORY_PAGE_MAX, true));
    let last = first.versions.last().unwrap().until_ns;
    let rest = bench.is_asked(Some("d"), Some(("d/f", last))).unwrap();
    assert_eq!((rest.versions.len(), rest.more), (3, false));
    assert_eq!(bench.is_asked(Some("e"), None).unwrap().versions, [former("e", 1)]);
    // Those of which nobody knows the content are not told of, however many come in between.
    (0..count).for_each(|n| bench.keeps("dark/f", n, 0));
    assert_eq!(bench.is_asked(None, Some(("d/f", count))).unwrap().versions, [former("e", 1)]);
    bench.wants("dark/f", 0, 100);
    assert!(bench.is_refused());
}

#[test]
fn what_a_peer_keeps_is_asked_for_page_by_page() {
    let mut bench = Bench::new();
    bench.folder.ask_history(bench.now(), peer(), None);
    bench.flush();
    assert_eq!(bench.told(), Some(Err(PastError::Away)));

    bench.meet(Right::Owner, None);
    bench.folder.ask_history(bench.now(), peer(), Some(path("d")));
    bench.flush();
    let want = bench.asks();
    assert_eq!((want.top, want.after), (Some(path("d")), None));
    let versions = vec![former("d", 1), former("d/f", 7)];
    bench.hears(Message::History(History { request: want.request, versions, more: true }));
    let want = bench.asks();
    assert_eq!(want.after, Some((path("d/f"), 7)));
    assert_eq!(bench.told(), None);
    bench.hears(Message::History(History { request: want.request, versions: vec![former("d/f", 8)], more: false }));
    assert_eq!(bench.told(), Some(Ok(vec![former("d", 1), former("d/f", 7), former("d/f", 8)])));
    // Once more nobody has asked for.
    bench.hears(Message::History(History { request: want.request, versions: vec![former("d/f", 9)], more: false }));
    assert_eq!(bench.told(), None);
}

#[test]
fn a_history_of_something_else_is_not_believed() {
    for versions in
        [vec![former("e", 1)], vec![former("d/f", 7), former("d/f", 6)], vec![former("d/f", 7), former("d", 8)]]
    {
        let mut bench = Bench::new();
        bench.meet(Right::Owner, None);
        bench.folder.ask_history(bench.now(), peer(), Some(path("d")));
        bench.flush();
        let request = bench.asks().request;
        bench.hears(Message::History(History { request, versions, more: false }));
        assert!(matches!(bench.told(), Some(Err(PastError::Wrong(_)))));
        assert!(bench.take(|output| matches!(output, Output::Misbehaved(..)).then_some(())).is_some());
    }
}

#[test]
fn a_question_that_is_never_answered_to_its_end_ends() {
    let mut bench = Bench::new();
    bench.meet(Right::Owner, None);
    bench.folder.ask_history(bench.now(), peer(), None);
    bench.flush();
    bench.at += limits::HISTORY_PATIENCE;
    bench.flush();
    assert_eq!(bench.told(), Some(Err(PastError::Silent)));
    // One that always says that there is more.
    bench.folder.ask_history(bench.now(), peer(), None);
    bench.flush();
    let mut pages = 0;
    let told = loop {
        if let Some(told) = bench.told() {
            break told;
        }
        let request = bench.asks().request;
        pages += 1;
        bench.at += limits::HISTORY_PATIENCE - Duration::from_secs(1);
        bench.hears(Message::History(History { request, versions: vec![former("f", pages)], more: true }));
    };
    assert_eq!(told, Err(PastError::Silent));
    assert!(pages < 10, "{pages}");
}

#[test]
fn a_former_version_counts_once_it_is_whole_and_what_it_was_called() {
    for (content, is_it) in [(Some(ContentId([1; 32])), true), (Some(ContentId([2; 32])), false), (None, false)] {
        let mut bench = Bench::new();
        let (request, runs) = bench.takes();
        let lens = &runs[0].lens;
        assert_eq!((runs.len(), runs[0].first, runs[0].offset, runs[0].bytes()), (1, 0, 0, SIZE));
        for (chunk, len) in (0..).zip(lens) {
            bench.receives(request, chunk, *len);
            let (stage, offset) = bench
                .take(|output| match output {
                    Output::Stage(stage, n, offset, _) if *n == chunk => Some((*stage, *offset)),
                    _ => None,
                })
                .expect("it is not staged");
            assert_eq!(offset, lens[..chunk as usize].iter().map(|len| u64::from(*len)).sum::<u64>());
            assert!(bench.take(|output| matches!(output, Output::Rechunk(..)).then_some(())).is_none());
            bench.give(Input::Staged(stage, chunk, Ok(())));
        }
        let stage = bench.take(|output| match output {
            Output::Rechunk(stage, SIZE) => Some(*stage),
            _ => None,
        });
        let stage = stage.expect("it is not checked");
        assert_eq!(bench.taken(), None);
        bench.give(Input::Rechunked(stage, Ok(content)));
        let expected = if is_it { Ok(vec![stage]) } else { Err(PastError::Wrong(path("f"))) };
        assert_eq!(bench.taken(), Some(expected));
        assert_eq!(bench.is_discarded(), !is_it);
    }
}

#[test]
fn a_version_that_does_not_come_is_given_up_with_all_that_came_of_it() {
    type Deed = fn(&mut Bench, u64);
    let deeds: [(Deed, PastError); 4] = [
        (|bench, request| bench.hears(Message::Missing { request, item: 0 }), PastError::Gone(path("f"))),
        (|bench, request| bench.receives(request, 1, 3), PastError::Wrong(path("f"))),
        (|bench, _| bench.give(Input::PeerDown(peer())), PastError::Away),
        (
            |bench, _| {
                bench.at += Duration::from_secs(60);
                bench.flush();
            },
            PastError::Silent,
        ),
    ];
    for (deed, error) in deeds {
        let mut bench = Bench::new();
        let (request, _) = bench.takes();
        bench.receives(request, 0, 256 << 10);
        deed(&mut bench, request);
        assert_eq!(bench.taken(), Some(Err(error)));
        assert!(bench.is_discarded());
        assert_eq!(bench.folder.past.poll_timeout(), None);
        // What comes after that is nobody's.
        bench.receives(request, 1, 256 << 10);
        assert_eq!(bench.taken(), None);
    }
}

#[test]
fn a_chunk_that_nobody_asked_for_ends_the_session_and_a_slow_disk_does_not() {
    let mut bench = Bench::new();
    let (request, runs) = bench.takes();
    for (chunk, len) in (0..).zip(&runs[0].lens) {
        bench.receives(request, chunk, *len);
    }
    // All is here: now it is the disk that is waited for.
    bench.at += Duration::from_secs(3000);
    bench.flush();
    assert_eq!(bench.taken(), None);

    let mut bench = Bench::new();
    let (request, _) = bench.takes();
    bench.receives(request, 77, 3);
    assert!(bench.take(|output| matches!(output, Output::Misbehaved(..)).then_some(())).is_some());
}

#[test]
fn an_empty_version_needs_nothing_to_be_asked_for() {
    let mut bench = Bench::with_index(MemoryIndex::new(Incarnation(1)));
    bench.answer_scan(&[]);
    bench.meet(Right::Owner, None);
    let empty = FileBody { size: 0, ..body(1) };
    bench.folder.take_former(bench.now(), peer(), &[(path("f"), empty), (path("g"), body(2))]);
    bench.flush();
    let stage = bench.take(|output| match output {
        Output::Rechunk(stage, 0) => Some(*stage),
        _ => None,
    });
    assert!(stage.is_some());
    assert!(
        bench.said(|message| matches!(message, Message::Want(want) if want.items.len() == 1).then_some(())).is_some()
    );
}
