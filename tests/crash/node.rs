//! A device in one thread: the real state machine, index and disk code, without sockets and real time.
//!
//! What `daemon::folder` does with threads is done here one after the other, so that each run makes the
//! same system calls in the same order.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kinfold::daemon::recover::recover;
use kinfold::disk::commit::commit;
use kinfold::disk::hash::{Durability, hash_file};
use kinfold::disk::ignore::{Gitignores, Rules};
use kinfold::disk::read::Reader;
use kinfold::disk::root::Root;
use kinfold::disk::scan::scan;
use kinfold::disk::staging::{Scratch, Staging, assemble};
use kinfold::disk::verify::verify;
use kinfold::engine::chunk::VerifiedChunk;
use kinfold::engine::chunker::ChunkBuffer;
use kinfold::engine::effect::{Action, CommitItem, CommitOutcome};
use kinfold::engine::folder::{Folder, Greeting, Input, Now, Output, Params};
use kinfold::engine::index::Index;
use kinfold::model::brake::Thresholds;
use kinfold::model::id::{DeviceId, DeviceTag, FolderId, Incarnation};
use kinfold::model::problem::Problem;
use kinfold::model::rights::{Members, Right};
use kinfold::store::index::SqliteIndex;
use kinfold::wire::message::{ChunkHeader, FolderHello, Message};

pub const FOLDER: FolderId = FolderId([7; 16]);
/// Some time in 2025, from which the devices' clocks count.
const WALL_NS: i64 = 1_750_000_000_000_000_000;
/// What is due later than this is not waited for.
const HORIZON: Duration = Duration::from_secs(20);
/// How often two devices may begin anew before something must be wrong.
const MEETINGS_MAX: usize = 3;

pub enum OnWire {
    Message(Message),
    Chunk(ChunkHeader, Vec<u8>),
}

pub struct Node {
    pub id: DeviceId,
    pub engine: Folder<SqliteIndex>,
    pub root: Root,
    rules: Rules,
    staging: Staging,
    at: Duration,
    sent: VecDeque<OnWire>,
    /// Whether it wants to meet all others anew.
    starts_over: bool,
}

impl Node {
    /// Starts a device as the daemon starts a folder: the index, what a crash left, then the scan.
    pub fn start(dir: &Path, number: u8) -> Self {
        let id = DeviceId::from_public_key([number; 32]);
        let incarnation = Incarnation(u64::from(number));
        let index = SqliteIndex::open(&dir.join("index"), incarnation).expect("the index opens");
        let is_new = index.last_sequence().0 == 0;
        let root = match Root::open(&dir.join("data"), FOLDER) {
            Err(_) if is_new => Root::create(&dir.join("data"), FOLDER),
            other => other,
        };
        let root = root.expect("the root is there");
        let params = Params {
            folder: FOLDER,
            device: id,
            rescan_interval: Duration::from_secs(3600),
            quiet: Duration::from_millis(10),
            patience: Duration::from_secs(1),
            brake: Some(Thresholds::default()),
            scrub: None,
            forget_after: Duration::from_secs(86_400),
            seed: [number; 32],
        };
        let mut engine = Folder::open(params, index);
        recover(engine.index_mut(), &root, "crash", DeviceTag::of(&id)).expect("the index works");
        let rules = Rules::new(Gitignores::Unused);
        let staging = Staging::default();
        Self { id, engine, root, rules, staging, at: Duration::ZERO, sent: VecDeque::new(), starts_over: false }
    }

    pub fn now(&self) -> Now {
        Now { at: self.at, wall_ns: WALL_NS + self.at.as_nanos() as i64 }
    }

    pub fn give(&mut self, input: Input) {
        self.engine.handle(self.now(), input).expect("the index works");
    }

    pub fn problems(&self) -> Vec<Problem> {
        self.engine.problems().collect()
    }

    fn hello_for(&mut self, other: &DeviceId) -> FolderHello {
        let Greeting { incarnation, life, last, received } = self.engine.hello_for(other).expect("the index works");
        FolderHello {
            folder: FOLDER,
            name: String::new(),
            holds: true,
            incarnation,
            life,
            last,
            received,
            members: Members::default(),
        }
    }

    /// Does all that is to be done at this moment. Returns whether there was anything.
    fn work(&mut self) -> bool {
        self.engine.flush(self.now()).expect("the index works");
        let outputs: Vec<Output> = std::iter::from_fn(|| self.engine.poll_output()).collect();
        let any = !outputs.is_empty();
        outputs.into_iter().for_each(|output| self.act(output));
        any
    }

    fn act(&mut self, output: Output) {
        let never = AtomicBool::new(false);
        match output {
            Output::Scan(job, scope) => {
                let mut found = Vec::new();
                let end = scan(&self.root, &scope, &self.rules, &never, 1, &mut |items| found.push(items));
                found.into_iter().for_each(|items| self.give(Input::Scanned(job, items)));
                self.give(Input::ScanEnded(job, end));
            }
            Output::Hash(path, stat) => {
                let mut memory = ChunkBuffer::default();
                let outcome = hash_file(&self.root, &path, &stat, Durability::Now, &never, &mut memory);
                self.give(Input::Hashed(path, outcome));
            }
            Output::Verify(items, is_slow) => {
                let outcomes = verify(&self.root, &items, is_slow, &never);
                self.give(Input::Verified(outcomes));
            }
            Output::Assemble(plan) => {
                let outcome = assemble(&self.root, &plan, &mut Scratch::default());
                self.give(Input::Assembled(plan.stage, outcome));
            }
            Output::Stage(stage, number, offset, chunk) => {
                let result = self.staging.write_chunk(&self.root, stage, offset, &chunk);
                self.give(Input::Staged(stage, number, result.map_err(|error| (error.kind, error.detail))));
            }
            Output::Discard(stage) => self.staging.discard(&self.root, stage).expect("it can be discarded"),
            Output::Commit(items) => {
                let outcomes = self.commit(&items);
                self.give(Input::Committed(outcomes));
            }
            Output::Send(_, message) => self.sent.push_back(OnWire::Message(message)),
            Output::Announce { records, .. } => self.sent.push_back(OnWire::Message(Message::Records(records))),
            Output::Serve { request, items, .. } => {
                for (item, path, stat, runs) in items {
                    let Ok(reader) = Reader::open(&self.root, &path, &stat) else {
                        self.sent.push_back(OnWire::Message(Message::Missing { request, item }));
                        continue;
                    };
                    for run in runs {
                        let mut offset = run.offset;
                        for (chunk, len) in (run.first..).zip(run.lens) {
                            let mut bytes = vec![0; len as usize];
                            reader.read_exact_at(offset, &mut bytes).expect("it can be read");
                            offset += u64::from(len);
                            self.sent.push_back(OnWire::Chunk(ChunkHeader { request, item, chunk }, bytes));
                        }
                    }
                }
            }
            Output::Reconnect => self.starts_over = true,
            Output::Parted(_) | Output::Note(_) => {}
            other => panic!("not here: {other:?}"),
        }
    }

    fn commit(&self, items: &[CommitItem]) -> Vec<CommitOutcome> {
        for item in items {
            if let Action::Place { stage, body } = &item.action {
                self.staging.finish(&self.root, *stage, body.size).expect("it can be finished");
            }
        }
        commit(&self.root, items, self.now().wall_ns)
    }

    fn due(&self) -> Option<Duration> {
        self.engine.poll_timeout().filter(|due| *due <= self.at + HORIZON)
    }

    /// Goes on alone until there is nothing to do.
    pub fn settle(&mut self) {
        settle(&mut [self]);
    }
}

/// Connects two devices, again where one wishes so, and goes on until there is nothing to do.
pub fn sync(a: &mut Node, b: &mut Node) {
    for _ in 0..MEETINGS_MAX {
        meet(a, b);
        let start_over = [&mut *a, &mut *b].map(|node| std::mem::take(&mut node.starts_over));
        if start_over == [false, false] {
            return;
        }
    }
    panic!("they meet again and again");
}

fn meet(a: &mut Node, b: &mut Node) {
    let (from_a, from_b) = (a.hello_for(&b.id), b.hello_for(&a.id));
    let (id_a, id_b) = (a.id, b.id);
    a.give(Input::PeerUp(id_b, Right::Owner, from_b));
    b.give(Input::PeerUp(id_a, Right::Owner, from_a));
    settle(&mut [a, b]);
    a.give(Input::PeerDown(id_b));
    b.give(Input::PeerDown(id_a));
    settle(&mut [a, b]);
}

fn settle(nodes: &mut [&mut Node]) {
    for _ in 0..10_000 {
        let mut any = false;
        for n in 0..nodes.len() {
            any |= nodes[n].work();
            let from = nodes[n].id;
            for sent in std::mem::take(&mut nodes[n].sent) {
                any = true;
                let Some(other) = nodes.get_mut((n + 1) % 2) else { continue };
                match sent {
                    OnWire::Message(message) => other.give(Input::Message(from, message)),
                    OnWire::Chunk(header, bytes) => {
                        other.give(Input::Chunk(from, header, VerifiedChunk::hash(bytes)));
                    }
                }
            }
        }
        if any {
            continue;
        }
        let due = nodes.iter().filter_map(|node| node.due()).min();
        let Some(due) = due else { return };
        for node in nodes.iter_mut() {
            node.at = node.at.max(due) + Duration::from_millis(1);
        }
    }
    panic!("it does not come to rest");
}
