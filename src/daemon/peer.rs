//! A session with a peer: one thread that reads, one that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, unbounded};

use crate::daemon::folder::Traffic;
use crate::daemon::place::Place;
use crate::disk::read::Reader;
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

/// What is to be sent to a peer.
pub enum Outgoing {
    /// A message.
    Message(Message),
    /// Chunks of files, read just before they are sent.
    Serve {
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
}

/// What the writing thread takes from.
pub struct PeerQueue {
    queue: Receiver<Outgoing>,
    waiting: Arc<AtomicUsize>,
}

/// Makes both ends of a session's queue.
pub fn queue(session: u64, cutter: Cutter) -> (PeerSender, PeerQueue) {
    let (sender, queue) = unbounded();
    let waiting = Arc::new(AtomicUsize::new(0));
    (PeerSender { session, queue: sender, waiting: waiting.clone(), cutter }, PeerQueue { queue, waiting })
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

    /// Cuts the session.
    pub fn cut(&self) {
        self.cutter.cut();
    }
}

/// Sends what is in the queue until the session ends.
pub fn write(mut writer: FrameWriter, queue: &PeerQueue) -> Result<(), ConnectionError> {
    writer.set_write_timeout(Some(WRITE_TIMEOUT)).map_err(ConnectionError::Lost)?;
    loop {
        let next = match queue.queue.try_recv() {
            Ok(next) => Ok(next),
            Err(TryRecvError::Empty) => {
                writer.flush()?;
                queue.queue.recv_timeout(KEEP_ALIVE)
            }
            Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Outgoing::Message(message)) => send(&mut writer, &message)?,
            Ok(Outgoing::Nothing) => {}
            Ok(Outgoing::Serve { request, items, place, traffic }) => {
                for (item, path, stat, runs) in items {
                    let reader = place.root().and_then(|root| Reader::open(&root, &path, &stat).ok());
                    serve(&mut writer, &traffic, (request, item), reader, &runs)?;
                }
            }
            Ok(Outgoing::ServeKept { request, items, place, traffic }) => {
                for (item, kept, size, runs) in items {
                    let reader = place.root().and_then(|root| Reader::open_kept(&root, &kept, size).ok());
                    serve(&mut writer, &traffic, (request, item), reader, &runs)?;
                }
            }
            Ok(Outgoing::Close(reason)) => {
                send(&mut writer, &Message::Goodbye(reason))?;
                return writer.flush();
            }
            Err(RecvTimeoutError::Timeout) => {
                send(&mut writer, &Message::Ping)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return writer.flush(),
        }
        queue.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn send(writer: &mut FrameWriter, message: &Message) -> Result<(), ConnectionError> {
    let (header, body) = message.encode();
    writer.send(message.kind(), &header, &body)
}

/// Reads chunks right into the buffer that is sealed, and so to the socket.
fn serve(
    writer: &mut FrameWriter,
    traffic: &Traffic,
    (request, item): (u64, u16),
    reader: Option<Reader>,
    runs: &[Run],
) -> Result<(), ConnectionError> {
    let Some(reader) = reader else {
        // It changed meanwhile; a scan finds out, and then the peer hears of it.
        return send(writer, &Message::Missing { request, item });
    };
    for run in runs {
        let mut offset = run.offset;
        for (chunk, len) in (run.first..).zip(&run.lens) {
            let message = Message::Chunk(ChunkHeader { request, item, chunk });
            let (header, _) = message.encode();
            writer.begin_frame(message.kind(), &header, *len as usize)?;
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
            traffic.sent.fetch_add(u64::from(*len), Ordering::Relaxed);
        }
    }
    Ok(())
}
