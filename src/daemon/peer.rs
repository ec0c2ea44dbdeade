//! A session with a peer: one thread that reads, one that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::vec;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use crate::daemon::folder::Traffic;
use crate::daemon::lanes::{Chunks, Lanes, Next};
use crate::daemon::place::Place;
use crate::daemon::rates::Flow;
use crate::disk::read::Reader;
use crate::model::id::FolderId;
use crate::model::limits::KEEP_ALIVE;
use crate::model::path::RelPath;
use crate::model::stat::Stat;
use crate::net::connection::{ConnectionError, Cutter, FrameWriter};
use crate::wire::message::{ChunkHeader, Goodbye, Message, Run};

/// Things that may wait to be sent to one peer. What is asked for is bounded by the peer's own windows;
/// a peer that makes more wait than this breaks the protocol, or does not read.
const WAITING_MAX: usize = 16_384;
/// Longest time that a peer may take to take something.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a peer that may be elsewhere by now has to take a question.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// What is to be sent to a peer.
pub enum Outgoing {
    /// A message.
    Message(Message),
    /// Chunks of files, read just before they are sent.
    Serve {
        /// Of which folder.
        folder: FolderId,
        /// The request they answer.
        request: u64,
        /// What is asked for.
        items: Vec<(u16, RelPath, Stat, Vec<Run>)>,
        /// Where it lies.
        place: Arc<Place>,
        /// Where it is counted.
        traffic: Arc<Traffic>,
    },
    /// Chunks of former versions, likewise.
    ServeKept {
        /// The folder that it is of.
        folder: FolderId,
        /// The request they answer.
        request: u64,
        /// What is asked for.
        items: Vec<(u16, String, u64, Vec<Run>)>,
        /// Where it lies.
        place: Arc<Place>,
        /// Where it is counted.
        traffic: Arc<Traffic>,
    },
    /// Nothing of ours: but the tunnel may have something to say.
    Nothing,
    /// Say goodbye, and close.
    Close(Goodbye),
}

/// The sending end of a session.
#[derive(Clone)]
pub struct PeerSender {
    /// Tells the session from others with the same peer.
    pub session: u64,
    queue: Sender<Outgoing>,
    waiting: Arc<AtomicUsize>,
    cutter: Cutter,
    flow: Flow,
}

/// What the writing thread takes from.
pub struct PeerQueue {
    queue: Receiver<Outgoing>,
    waiting: Arc<AtomicUsize>,
    flow: Flow,
}

/// Makes both ends of a session's queue. What is sent and asked for keeps to the rates of `flow`.
pub fn queue(session: u64, cutter: Cutter, flow: Flow) -> (PeerSender, PeerQueue) {
    let (sender, queue) = unbounded();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sender = PeerSender { session, queue: sender, waiting: waiting.clone(), cutter, flow: flow.clone() };
    (sender, PeerQueue { queue, waiting, flow })
}

impl PeerSender {
    /// Has something sent. Never waits.
    pub fn send(&self, what: Outgoing) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            tracing::warn!("a device takes nothing and asks for more; the connection is cut");
            self.cutter.cut();
        } else {
            // Nobody takes it once the session is over.
            self.queue.send(what).ok();
        }
    }

    /// Asks whether the peer is still there, and ends the session soon where nothing can reach it.
    pub fn probe(&self) {
        self.cutter.set_patience(Some(PROBE_PATIENCE));
        self.send(Outgoing::Message(Message::Ping));
    }

    /// The peer has answered.
    pub fn is_there(&self) {
        self.cutter.set_patience(None);
    }

    /// Counts what the peer has sent.
    pub fn heard(&self, message: &Message, len: usize) {
        self.flow.heard(message, len);
    }

    /// Cuts the session.
    pub fn cut(&self) {
        self.cutter.cut();
    }
}

/// Sends what is in the queue until the session ends.
pub fn write(mut writer: FrameWriter, queue: &PeerQueue) -> Result<(), ConnectionError> {
    writer.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(ConnectionError::Lost)?;
    writer.set_pace(queue.flow.send().clone());
    let mut lanes = Lanes::default();
    let mut spoke_at = Instant::now();
    let mut has_spoken = false;
    // What was written last is not on its way before a flush, or before more follows.
    let mut ends_in_chunk = false;
    loop {
        loop {
            match queue.queue.try_recv() {
                Ok(next) => ends_in_chunk &= queue.take(&mut lanes, next),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return writer.flush(),
            }
        }
        let pause = match lanes.next(&queue.flow) {
            Next::Message(message, folder) => {
                writer.set_pace_of_frame(folder.map(|folder| queue.flow.send_of(&folder)));
                send(&mut writer, &message)?;
                queue.done(1);
                (has_spoken, ends_in_chunk) = (true, false);
                continue;
            }
            Next::Chunk(at) => {
                if let Some(chunks) = lanes.chunks.get_mut(at) {
                    let is_limited = chunks.meter.is_limited();
                    writer.set_pace_of_frame(is_limited.then(|| chunks.meter.clone()));
                    if !chunks.what.send_next(&mut writer)? {
                        lanes.chunks.remove(at);
                        queue.done(1);
                    }
                }
                (has_spoken, ends_in_chunk) = (true, true);
                continue;
            }
            Next::Goodbye(reason) => {
                writer.set_pace_of_frame(None);
                send(&mut writer, &Message::Goodbye(reason))?;
                return writer.flush();
            }
            Next::Later(pause) => pause.min(KEEP_ALIVE),
            Next::Nothing => KEEP_ALIVE,
        };
        // Where more chunks follow, the end of this one is not to be told by the length of a record.
        if !(ends_in_chunk && lanes.is_bulk_waiting()) {
            writer.flush()?;
        }
        if std::mem::take(&mut has_spoken) {
            spoke_at = Instant::now();
        }
        match queue.queue.recv_timeout(pause.min(KEEP_ALIVE.saturating_sub(spoke_at.elapsed()))) {
            Ok(next) => ends_in_chunk &= queue.take(&mut lanes, next),
            Err(RecvTimeoutError::Timeout) if spoke_at.elapsed() >= KEEP_ALIVE => {
                writer.set_pace_of_frame(None);
                send(&mut writer, &Message::Ping)?;
                writer.flush()?;
                spoke_at = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return writer.flush(),
        }
    }
}

impl PeerQueue {
    /// Puts what was taken from the queue where it waits for its turn. Returns whether there is any: where there is
    /// not, the tunnel has something to say, and a flush says it.
    fn take(&self, lanes: &mut Lanes<Serving>, next: Outgoing) -> bool {
        match next {
            Outgoing::Message(message) => self.done(lanes.add(message)),
            Outgoing::Serve { folder, request, items, place, traffic } => {
                let items = items.into_iter().map(|(item, path, stat, runs)| (item, Source::File(path, stat), runs));
                self.serve(lanes, folder, (request, items.collect()), place, traffic);
            }
            Outgoing::ServeKept { folder, request, items, place, traffic } => {
                let items = items.into_iter().map(|(item, name, size, runs)| (item, Source::Kept(name, size), runs));
                self.serve(lanes, folder, (request, items.collect()), place, traffic);
            }
            Outgoing::Nothing => {
                self.done(1);
                return false;
            }
            Outgoing::Close(reason) => lanes.close(reason),
        }
        true
    }

    fn serve(
        &self,
        lanes: &mut Lanes<Serving>,
        folder: FolderId,
        (request, items): (u64, Vec<(u16, Source, Vec<Run>)>),
        place: Arc<Place>,
        traffic: Arc<Traffic>,
    ) {
        let what = Serving { request, items: items.into_iter(), file: None, place, traffic };
        lanes.chunks.push_back(Chunks { folder, meter: self.flow.send_of(&folder), what });
    }

    /// Counts what waits no longer.
    fn done(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }
}

fn send(writer: &mut FrameWriter, message: &Message) -> Result<(), ConnectionError> {
    let (header, body) = message.encode();
    writer.send(message.kind(), &header, &body)
}

/// What chunks are read from.
enum Source {
    /// A file of the folder, as it was looked at.
    File(RelPath, Stat),
    /// A former version, by its name in history, and its length.
    Kept(String, u64),
}

impl Source {
    /// Opens it, if it is still there as it was.
    fn open(&self, place: &Place) -> Option<Reader> {
        let root = place.root()?;
        match self {
            Self::File(path, stat) => Reader::open(&root, path, stat).ok(),
            Self::Kept(name, size) => Reader::open_kept(&root, name, *size).ok(),
        }
    }
}

/// A request of a peer that is being answered, chunk by chunk.
struct Serving {
    request: u64,
    items: vec::IntoIter<(u16, Source, Vec<Run>)>,
    file: Option<ServedFile>,
    place: Arc<Place>,
    traffic: Arc<Traffic>,
}

/// A file of which chunks are being sent.
struct ServedFile {
    item: u16,
    reader: Reader,
    runs: vec::IntoIter<Run>,
    run: Option<Run>,
    /// How many chunks of the run were sent, and where in the file the next one begins.
    sent: usize,
    offset: u64,
}

impl ServedFile {
    /// Returns the next chunk's index, offset and length.
    fn next(&mut self) -> Option<(u32, u64, u32)> {
        loop {
            if let Some(run) = &self.run
                && let Some(len) = run.lens.get(self.sent).copied()
            {
                let next = (run.first.saturating_add(u32::try_from(self.sent).ok()?), self.offset, len);
                self.sent += 1;
                self.offset = self.offset.saturating_add(u64::from(len));
                return Some(next);
            }
            let run = self.runs.next()?;
            (self.sent, self.offset) = (0, run.offset);
            self.run = Some(run);
        }
    }
}

impl Serving {
    /// Sends the next chunk, or that a file cannot be had. Returns whether there may be more.
    fn send_next(&mut self, writer: &mut FrameWriter) -> Result<bool, ConnectionError> {
        loop {
            if let Some(file) = &mut self.file
                && let Some((chunk, offset, len)) = file.next()
            {
                let header = ChunkHeader { request: self.request, item: file.item, chunk };
                send_chunk(writer, header, &file.reader, offset, len)?;
                self.traffic.sent.fetch_add(u64::from(len), Ordering::Relaxed);
                return Ok(true);
            }
            let Some((item, source, runs)) = self.items.next() else {
                return Ok(false);
            };
            let Some(reader) = source.open(&self.place) else {
                // It changed meanwhile; a scan finds out, and then the peer hears of it.
                send(writer, &Message::Missing { request: self.request, item })?;
                return Ok(true);
            };
            self.file = Some(ServedFile { item, reader, runs: runs.into_iter(), run: None, sent: 0, offset: 0 });
        }
    }
}

/// Reads a chunk right into the buffer that is sealed, and so to the socket.
fn send_chunk(
    writer: &mut FrameWriter,
    header: ChunkHeader,
    reader: &Reader,
    mut offset: u64,
    len: u32,
) -> Result<(), ConnectionError> {
    let message = Message::Chunk(header);
    let (header, _) = message.encode();
    writer.begin_frame(message.kind(), &header, len as usize)?;
    while writer.body_missing() > 0 {
        let room = writer.body_buffer()?;
        let len = room.len();
        if reader.read_exact_at(offset, room).is_err() {
            // The frame has begun and must be filled; its hash will not fit, and the peer
            // asks again for what is there then.
            room.fill(0);
        }
        writer.advance_body(len);
        offset += len as u64;
    }
    Ok(())
}
