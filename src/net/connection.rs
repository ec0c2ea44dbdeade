//! A connection to a peer after its handshake: frames in, frames out, on blocking threads.
//!
//! Ciphers, files and this stream all want a thread for themselves, so the socket leaves the runtime
//! once its handshake is done. One thread reads, another writes; a third can cut the connection.
//!
//! While much is being sent, every record on the wire has the same length, so that the bounds of chunks
//! do not show; a shorter one only goes out on [`FrameWriter::flush`].
//!
//! The end of the stream is never taken for the end of the conversation: whoever sits between two
//! devices can cut their connection. Only a message that says so is an end, and it is for the caller to
//! know that message.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::engine::session::handshake::Established;
use crate::engine::session::record::{
    self, Opener, RECORD_HEADER_LEN, RECORD_LEN_MAX, RecordError, Sealer, sealed_len,
};
use crate::engine::session::renewal::{KIND_MIN, RENEW_AFTER, RenewalError, ToSend};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::model::limits::{KEEP_ALIVE, NOISE_PAYLOAD_MAX, PEER_TIMEOUT};
use crate::net::endpoint::Endpoint;
use crate::net::frame::{self, Frame, FrameDecoder, FrameError};
use crate::net::pace::{Meter, Pace};
use crate::net::renewal::{Clock, Renewing};

/// Records in one write to the socket.
const BATCH_RECORDS: usize = 16;
/// Plaintext in one write to the socket, in bytes.
const BATCH_LEN: usize = BATCH_RECORDS * NOISE_PAYLOAD_MAX;
/// What is no longer than this waits for no rate: pings, words of a renewal, a goodbye. It is counted all the same.
const SHORT_LEN: usize = 4 << 10;
/// Room for what one read from the socket brings, in bytes.
const INBOX_LEN: usize = 512 << 10;

const _: () = assert!(INBOX_LEN >= 2 * RECORD_LEN_MAX);

/// Why a connection cannot be used any more, or not now.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing arrived within the read timeout. The connection is as good as before.
    #[error("the peer was silent")]
    Idle,
    /// The stream ended without a word; nobody's fault that can be told. Redial with backoff.
    #[error("the connection was cut")]
    Cut,
    /// The path to the peer failed. Redial with backoff.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// What arrived was not made by the peer, or not in this order. Redial with backoff.
    #[error("the connection was tampered with")]
    Tampered(#[source] RecordError),
    /// The peer broke the protocol. Do not redial soon.
    #[error("the peer misbehaved")]
    Misbehaved(#[source] FrameError),
    /// This device could not seal what it had to send.
    #[error("nothing can be sent")]
    Local(#[source] RecordError),
    /// The keys could not be renewed. Redial with backoff.
    #[error("the keys of the session could not be renewed")]
    Renewal(#[from] RenewalError),
    /// The connection failed before.
    #[error("the connection failed before")]
    Failed,
}

/// What is known of a connection besides its stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// The device at the other end, proven.
    pub peer: DeviceId,
    /// Our end.
    pub local_addr: SocketAddr,
    /// The other end.
    pub remote_addr: SocketAddr,
    /// Whether this device dialed.
    pub outgoing: bool,
    /// The suite in use.
    pub suite: Suite,
    /// The protocol version in use.
    pub version: u16,
    /// Whether the peer's processor has AES instructions; for [`Suite::preferred`] at the next dial.
    pub peer_has_aes: bool,
    /// The same at both ends and never twice.
    pub handshake_hash: [u8; 32],
}

/// A connection after its handshake.
pub struct Connection {
    link: Link,
    stream: Arc<TcpStream>,
    sealer: Sealer,
    opener: Opener,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.link).finish()
    }
}

impl Connection {
    /// Takes the stream of a finished handshake out of the runtime.
    pub(crate) fn new(stream: tokio::net::TcpStream, established: Established, outgoing: bool) -> io::Result<Self> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PEER_TIMEOUT))?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
        let link = Link {
            peer: established.peer,
            local_addr: stream.local_addr()?,
            remote_addr: stream.peer_addr()?,
            outgoing,
            suite: established.suite,
            version: established.version,
            peer_has_aes: established.peer_has_aes,
            handshake_hash: established.handshake_hash,
        };
        let (sealer, opener) = record::split(established.transport);
        Ok(Self { link, stream: Arc::new(stream), sealer, opener })
    }

    /// Returns what is known of the connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Returns a handle that cuts the connection from any thread.
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::clone(&self.stream))
    }

    /// Parts the connection into its two directions.
    ///
    /// Its keys last for as long as they may ([`KEYS_LAST`](crate::engine::session::renewal::KEYS_LAST)); see
    /// [`Connection::split_renewing`].
    pub fn split(self) -> (FrameReader, FrameWriter) {
        self.split_with(None)
    }

    /// Parts the connection into its two directions, whose keys are renewed. What is to be said for that is sent when the
    /// writer is flushed or sends something else; who reads a frame of a kind that no message has sees to it soon.
    pub fn split_renewing(self, endpoint: Arc<Endpoint>, clock: Clock) -> (FrameReader, FrameWriter) {
        let renewing = Renewing::new(endpoint, &self.link, clock);
        self.split_with(Some(Arc::new(renewing)))
    }

    fn split_with(self, renewing: Option<Arc<Renewing>>) -> (FrameReader, FrameWriter) {
        let since = renewing.as_ref().map_or(Duration::ZERO, |renewing| renewing.now());
        let reader = FrameReader {
            stream: Arc::clone(&self.stream),
            opener: self.opener,
            decoder: FrameDecoder::default(),
            inbox: Inbox { bytes: vec![0; INBOX_LEN], start: 0, end: 0 },
            plain: vec![0; NOISE_PAYLOAD_MAX],
            plain_start: 0,
            plain_end: 0,
            failed: false,
            renewing: renewing.clone(),
            since,
        };
        let writer = FrameWriter {
            stream: self.stream,
            sealer: self.sealer,
            plain: vec![0; BATCH_LEN],
            filled: 0,
            body_missing: 0,
            sealed: vec![0; sealed_len(BATCH_LEN)],
            failed: false,
            renewing,
            since,
            pace: Pace::default(),
            pace_of_frame: None,
        };
        (reader, writer)
    }
}

/// Cuts a connection: a read or write that waits on another thread returns with an error.
#[derive(Clone)]
pub struct Cutter(Arc<TcpStream>);

impl Cutter {
    /// Cuts the connection in both directions. Doing it twice does no harm.
    pub fn cut(&self) {
        // The only failure is a connection that is cut already.
        drop(self.0.shutdown(Shutdown::Both));
    }

    /// Has the system end the connection where what is sent finds nobody for so long (`TCP_USER_TIMEOUT`, RFC 5482), or
    /// no more than usual.
    pub fn set_patience(&self, patience: Option<Duration>) {
        // A system without it takes longer.
        drop(SockRef::from(&*self.0).set_tcp_user_timeout(patience));
    }
}

/// The receiving direction.
pub struct FrameReader {
    stream: Arc<TcpStream>,
    opener: Opener,
    decoder: FrameDecoder,
    inbox: Inbox,
    /// The record opened last, of which `plain_start..plain_end` is not decoded yet.
    plain: Vec<u8>,
    plain_start: usize,
    plain_end: usize,
    failed: bool,
    renewing: Option<Arc<Renewing>>,
    /// When the keys of this direction were agreed on.
    since: Duration,
}

impl FrameReader {
    /// Waits for the next frame.
    ///
    /// After [`ConnectionError::Idle`] it can be called again and goes on where it was; after any other
    /// error the connection is over. Records are opened into one buffer that stays in the processor's
    /// cache and copied from there: opening them right into a body would save the copy but need its
    /// memory to be zeroed first, which costs the same.
    pub fn read(&mut self) -> Result<Frame, ConnectionError> {
        if self.failed {
            return Err(ConnectionError::Failed);
        }
        let result = self.read_frame();
        self.failed = !matches!(result, Ok(_) | Err(ConnectionError::Idle));
        result
    }

    /// Gives back a frame that is done with, to use its memory for the next one. Fresh memory is dear.
    pub fn recycle(&mut self, frame: Frame) {
        self.decoder.recycle(frame);
    }

    /// Sets how long [`FrameReader::read`] waits for the next byte; at first [`PEER_TIMEOUT`].
    ///
    /// # Errors
    /// The timeout is zero.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    /// Returns how many records have arrived.
    pub fn records(&self) -> u64 {
        self.opener.records()
    }

    fn read_frame(&mut self) -> Result<Frame, ConnectionError> {
        loop {
            let mut rest = &self.plain[self.plain_start..self.plain_end];
            let decoded = self.decoder.decode(&mut rest);
            self.plain_start = self.plain_end - rest.len();
            if let Some(frame) = decoded.map_err(ConnectionError::Misbehaved)? {
                if frame.kind >= KIND_MIN {
                    self.renew(&frame)?;
                }
                return Ok(frame);
            }
            let message = self.inbox.next_record(&self.stream)?;
            if let Some(renewing) = &self.renewing {
                renewing.check_age(self.since)?;
            }
            self.plain_end = self.opener.open(message, &mut self.plain).map_err(ConnectionError::Tampered)?;
            self.plain_start = 0;
        }
    }
}

impl FrameReader {
    /// Takes a word of the renewal, and changes keys where that is the last one.
    fn renew(&mut self, frame: &Frame) -> Result<(), ConnectionError> {
        let Some(renewing) = &self.renewing else { return Ok(()) };
        let is_end_of_record = self.plain_start == self.plain_end;
        if let Some(keys) = renewing.hear(frame.kind, &frame.body)? {
            if !is_end_of_record {
                return Err(RenewalError::OutOfOrder.into());
            }
            self.opener.renew(keys);
            self.since = renewing.now();
        }
        Ok(())
    }
}

/// Bytes from the socket of which `start..end` are not opened yet.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Returns the next whole record without its length field, reading as much as there is.
    fn next_record(&mut self, stream: &TcpStream) -> Result<&[u8], ConnectionError> {
        loop {
            let waiting = &self.bytes[self.start..self.end];
            if let Some((header, rest)) = waiting.split_first_chunk::<RECORD_HEADER_LEN>() {
                let len = usize::from(u16::from_be_bytes(*header));
                if rest.len() >= len {
                    let at = self.start + RECORD_HEADER_LEN;
                    self.start = at + len;
                    return Ok(&self.bytes[at..at + len]);
                }
            }
            self.make_room();
            self.end += read_some(stream, &mut self.bytes[self.end..])?;
        }
    }

    /// Moves the begun record to the front where the longest one would no longer fit behind it.
    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.start < RECORD_LEN_MAX {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

fn read_some(mut stream: &TcpStream, out: &mut [u8]) -> Result<usize, ConnectionError> {
    loop {
        match stream.read(out) {
            Ok(0) => return Err(ConnectionError::Cut),
            Ok(len) => return Ok(len),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Linux calls a read timeout the former, other systems the latter.
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(ConnectionError::Idle),
                _ => return Err(ConnectionError::Lost(error)),
            },
        }
    }
}

/// The sending direction.
///
/// Frames gather until a batch is full or [`FrameWriter::flush`] is called. Dropping the writer sends
/// nothing.
///
/// To send a large body without holding it in memory of one's own:
///
/// 1. [`FrameWriter::begin_frame`] with its length,
/// 2. read into [`FrameWriter::body_buffer`] and say how much with [`FrameWriter::advance_body`],
/// 3. until [`FrameWriter::body_missing`] is zero.
///
/// A frame that was begun cannot be taken back. Where the source turns out to be shorter, fill the rest
/// with anything: a receiver checks what it gets.
///
/// With a rate to keep to ([`FrameWriter::set_pace`]) each record goes by itself, when nothing is owed any more. Two
/// things do not wait, though they are counted: what is short, and the rest of a frame while the keys wait to be
/// renewed, which is possible between frames alone and has to be done in time.
pub struct FrameWriter {
    stream: Arc<TcpStream>,
    sealer: Sealer,
    plain: Vec<u8>,
    filled: usize,
    body_missing: usize,
    sealed: Vec<u8>,
    failed: bool,
    renewing: Option<Arc<Renewing>>,
    /// When the keys of this direction were agreed on.
    since: Duration,
    pace: Pace,
    /// What the frame in hand keeps to besides.
    pace_of_frame: Option<Arc<Meter>>,
}

impl FrameWriter {
    /// Has this direction keep to a pace, in all that goes over the wire.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Has what is written from now on keep to a rate besides.
    pub fn set_pace_of_frame(&mut self, meter: Option<Arc<Meter>>) {
        let meter = meter.filter(|meter| meter.is_limited());
        if meter.as_ref().map(Arc::as_ptr) != self.pace_of_frame.as_ref().map(Arc::as_ptr) {
            // What has gathered goes with what follows, and is of what went before.
            let before = std::mem::replace(&mut self.pace_of_frame, meter);
            before.iter().for_each(|before| before.spend(self.filled as u64));
        }
    }

    /// Sends a frame, now or with the next flush.
    ///
    /// # Panics
    /// As [`FrameWriter::begin_frame`] does.
    pub fn send(&mut self, kind: u8, header: &[u8], body: &[u8]) -> Result<(), ConnectionError> {
        self.begin_frame(kind, header, body.len())?;
        self.body_missing = 0;
        self.write(body)
    }

    /// Begins a frame whose body of `body_len` bytes follows.
    ///
    /// # Panics
    /// The frame before is not complete, or this one would be longer than
    /// [`FRAME_LEN_MAX`](crate::model::limits::FRAME_LEN_MAX) or its header than 65535 bytes.
    pub fn begin_frame(&mut self, kind: u8, header: &[u8], body_len: usize) -> Result<(), ConnectionError> {
        assert_eq!(self.body_missing, 0, "the frame before lacks a part of its body");
        self.renew()?;
        self.write(&frame::prefix(kind, header.len(), body_len))?;
        self.write(header)?;
        self.body_missing = body_len;
        Ok(())
    }

    /// Returns how much of the begun frame's body is missing, in bytes.
    pub fn body_missing(&self) -> usize {
        self.body_missing
    }

    /// Returns room for the next part of the body: empty if nothing is missing, and never longer than
    /// what is. It holds whatever was there before.
    pub fn body_buffer(&mut self) -> Result<&mut [u8], ConnectionError> {
        if self.filled >= self.batch_len() {
            self.send_batch()?;
        }
        let end = self.batch_len().max(self.filled).min(self.filled + self.body_missing);
        Ok(&mut self.plain[self.filled..end])
    }

    /// Counts the first `len` bytes of [`FrameWriter::body_buffer`] as part of the body.
    ///
    /// # Panics
    /// The buffer was shorter.
    pub fn advance_body(&mut self, len: usize) {
        assert!(len <= self.body_missing && len <= BATCH_LEN - self.filled, "the body buffer was shorter");
        self.filled += len;
        self.body_missing -= len;
    }

    /// Sends all that has gathered.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        if self.body_missing == 0 {
            self.renew()?;
        }
        self.flush_batch()
    }

    fn flush_batch(&mut self) -> Result<(), ConnectionError> {
        if self.filled > 0 { self.send_batch() } else { self.check() }
    }

    /// Says what is to be said for new keys, and changes them after the last word. Between frames alone.
    fn renew(&mut self) -> Result<(), ConnectionError> {
        self.check()?;
        let Some(renewing) = self.renewing.clone() else { return Ok(()) };
        let result = self.say_renewal(&renewing);
        self.note(result)
    }

    fn say_renewal(&mut self, renewing: &Renewing) -> Result<(), ConnectionError> {
        renewing.check_age(self.since)?;
        while let Some(ToSend { kind, body, then }) = renewing.next()? {
            self.write(&frame::prefix(kind, 0, body.len()))?;
            self.write(&body)?;
            // The peer waits for it, and where keys change the record has to end.
            self.flush_batch()?;
            if let Some(keys) = then {
                self.sealer.renew(keys);
                self.since = renewing.now();
            }
        }
        Ok(())
    }

    /// Sets how long a write may wait for the peer to take something; at first [`PEER_TIMEOUT`].
    ///
    /// # Errors
    /// The timeout is zero.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(timeout)
    }

    /// Returns how many records were sent.
    pub fn records(&self) -> u64 {
        self.sealer.records()
    }

    /// Gathers bytes; whole batches are sealed from where they lie.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), ConnectionError> {
        self.check()?;
        while !bytes.is_empty() {
            let batch_len = self.batch_len();
            if self.filled == 0 && bytes.len() >= batch_len {
                let (batch, rest) = bytes.split_at(batch_len);
                bytes = rest;
                self.keep_pace(batch.len());
                let sent = seal_and_send(&self.stream, &mut self.sealer, batch, &mut self.sealed);
                self.note(sent)?;
                continue;
            }
            let (piece, rest) = bytes.split_at(bytes.len().min(batch_len.saturating_sub(self.filled)));
            bytes = rest;
            self.plain[self.filled..][..piece.len()].copy_from_slice(piece);
            self.filled += piece.len();
            if self.filled >= batch_len {
                self.send_batch()?;
            }
        }
        Ok(())
    }

    fn send_batch(&mut self) -> Result<(), ConnectionError> {
        self.check()?;
        self.keep_pace(self.filled);
        let sent = seal_and_send(&self.stream, &mut self.sealer, &self.plain[..self.filled], &mut self.sealed);
        self.filled = 0;
        self.note(sent)
    }

    /// Returns how much gathers before it is sent: a record where there is a rate to keep to, so that what goes is
    /// never much more than what may.
    fn batch_len(&self) -> usize {
        if self.is_limited() { NOISE_PAYLOAD_MAX } else { BATCH_LEN }
    }

    fn is_limited(&self) -> bool {
        self.pace_of_frame.is_some() || self.pace.is_limited()
    }

    /// Waits until so much may be sent, and counts it.
    fn keep_pace(&self, len: usize) {
        if !self.is_limited() {
            return;
        }
        let keys_wait = self.renewing.as_ref().is_some_and(|keys| keys.now().saturating_sub(self.since) >= RENEW_AFTER);
        if len > SHORT_LEN && !keys_wait {
            // What is owed for others, or for keys, is no reason to be silent for so long that the peer gives up.
            let of_frame = self.pace_of_frame.as_ref().and_then(|meter| meter.owed());
            self.pace.owed().max(of_frame).into_iter().for_each(|owed| thread::sleep(owed.min(KEEP_ALIVE)));
        }
        let bytes = sealed_len(len) as u64;
        self.pace.spend(bytes);
        self.pace_of_frame.iter().for_each(|meter| meter.spend(bytes));
    }

    fn check(&self) -> Result<(), ConnectionError> {
        if self.failed { Err(ConnectionError::Failed) } else { Ok(()) }
    }

    /// Remembers a failure: nobody knows how much of a batch arrived, so nothing may follow it.
    fn note(&mut self, sent: Result<(), ConnectionError>) -> Result<(), ConnectionError> {
        self.failed |= sent.is_err();
        sent
    }
}

fn seal_and_send(
    mut stream: &TcpStream,
    sealer: &mut Sealer,
    plain: &[u8],
    sealed: &mut [u8],
) -> Result<(), ConnectionError> {
    let len = sealer.seal_into(plain, sealed).map_err(ConnectionError::Local)?;
    stream.write_all(&sealed[..len]).map_err(ConnectionError::Lost)
}
