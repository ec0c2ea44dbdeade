//! Listening: whoever connects is let in, or learns nothing.
//!
//! A stranger gets not one byte. What it sends, be it garbage, a replay, half a message or nothing, is
//! read and thrown away until it closes, until it has sent [`DISCARD_LEN_MAX`] bytes or until the time of
//! a handshake is over, whichever comes first; then the connection is closed, always in the same way. So
//! neither what is sent nor when the connection ends tells a valid device id from an invalid one.
//!
//! Handshakes under way are bounded in all and for each address; a connection beyond that is closed at
//! once.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use crate::engine::session::handshake::{Established, FIRST_LEN, HandshakeError, LAST_LEN, Versions};
use crate::model::id::DeviceId;
use crate::model::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use crate::net::connection::Connection;
use crate::net::endpoint::{Endpoint, Unanswered};
use crate::net::interfaces::tcp_socket;

/// Most bytes that are read on one connection before it has proven itself.
pub const DISCARD_LEN_MAX: usize = 64 << 10;
/// Handshakes under way at a time with one address.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = 16;
/// Connections that the system holds until they are taken.
const BACKLOG: i32 = 128;
/// Rest after the system could not give a connection, as when all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenBounds {
    /// Longest time that a handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes under way at a time, in all.
    pub handshakes: usize,
    /// Handshakes under way at a time with one address.
    pub handshakes_per_address: usize,
}

impl ListenBounds {
    /// The bounds that the program runs with.
    pub const STANDARD: Self = Self {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        handshakes: HANDSHAKES_MAX,
        handshakes_per_address: HANDSHAKES_PER_ADDRESS_MAX,
    };
}

/// What a listener reports.
#[derive(Debug)]
pub enum Arrival {
    /// A trusted device has connected.
    Peer(Connection),
    /// A trusted device has connected but speaks no version that this one speaks; its person and ours
    /// should know.
    Incompatible {
        /// The device, proven.
        peer: DeviceId,
        /// Where it connected from.
        addr: SocketAddr,
        /// What it speaks.
        theirs: Versions,
        /// What this device speaks.
        ours: Versions,
    },
}

/// An address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct ListenError {
    /// The address.
    pub addr: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Sockets that wait for peers.
pub struct Listener {
    sockets: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    bounds: ListenBounds,
}

impl Listener {
    /// Listens on every one of the addresses, or on none. Must be called inside a runtime.
    ///
    /// `[::]` means IPv6 alone, so that each address stands for itself and `0.0.0.0` can stand beside it.
    pub fn bind(addresses: &[SocketAddr], bounds: ListenBounds) -> Result<Self, ListenError> {
        let mut listener = Self { sockets: Vec::new(), addresses: Vec::new(), bounds };
        addresses.iter().try_for_each(|addr| listener.add(*addr, None))?;
        Ok(listener)
    }

    /// Listens on the addresses by each of these interfaces alone, and where that is not possible now, as an
    /// address belongs to another, does not. Must be called inside a runtime.
    pub fn bind_by<'a>(
        addresses: &[SocketAddr],
        interfaces: impl IntoIterator<Item = &'a str>,
        bounds: ListenBounds,
    ) -> Self {
        let mut listener = Self { sockets: Vec::new(), addresses: Vec::new(), bounds };
        for interface in interfaces {
            for addr in addresses {
                if let Err(error) = listener.add(*addr, Some(interface)) {
                    debug!(%addr, interface, error = %error.source, "not listening there");
                }
            }
        }
        listener
    }

    fn add(&mut self, addr: SocketAddr, interface: Option<&str>) -> Result<(), ListenError> {
        let error = |source| ListenError { addr, source };
        let socket = bind_socket(addr, interface).map_err(error)?;
        self.addresses.push(socket.local_addr().map_err(error)?);
        self.sockets.push(socket);
        Ok(())
    }

    /// Returns the addresses listened on, with the ports that the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Lets trusted devices in until nobody takes arrivals any more.
    ///
    /// Handshakes run as tasks that belong to this future: dropping it ends them.
    pub async fn run(self, endpoint: Arc<Endpoint>, arrivals: mpsc::Sender<Arrival>) {
        let slots = Slots::new(self.bounds);
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok((stream, addr)) => {
                        if !endpoint.permits(addr.ip()) {
                            debug!(%addr, "connection from outside the local network refused");
                        } else if let Some(slot) = slots.take(addr.ip()) {
                            let greeting = Greeting {
                                endpoint: Arc::clone(&endpoint),
                                stream,
                                addr,
                                deadline: Instant::now() + self.bounds.handshake_timeout,
                                read_len: 0,
                                slot,
                            };
                            handshakes.spawn(greeting.run(arrivals.clone()));
                        } else {
                            debug!(%addr, "too many handshakes under way, connection refused");
                        }
                    }
                    Err(error) => {
                        warn!(%error, "no connection could be taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = handshakes.join_next(), if !handshakes.is_empty() => {
                    if let Err(error) = ended {
                        warn!(%error, "a handshake ended by a bug");
                    }
                }
                () = arrivals.closed() => return,
            }
        }
    }

    /// Waits for a connection on any of the sockets. Waits forever if there is none.
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|cx| {
            let mut ready = self.sockets.iter().map(|socket| socket.poll_accept(cx)).filter(Poll::is_ready);
            ready.next().unwrap_or(Poll::Pending)
        })
        .await
    }
}

fn bind_socket(addr: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = tcp_socket(addr, interface)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Without this a daemon that is started again would have to wait for its old connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// One connection from its first byte to its arrival, or to its silent end.
struct Greeting {
    endpoint: Arc<Endpoint>,
    stream: TcpStream,
    addr: SocketAddr,
    deadline: Instant,
    /// Bytes read so far.
    read_len: usize,
    /// Held until the connection is handed on or closed.
    slot: Slot,
}

/// Why a connection came to nothing; for the local log.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the connection ended amid the handshake")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl Greeting {
    async fn run(mut self, arrivals: mpsc::Sender<Arrival>) {
        let addr = self.addr;
        let outcome = timeout_at(self.deadline, self.shake_hands()).await;
        let arrival = match outcome.unwrap_or_else(|late| Err(Refusal::Io(late.into()))) {
            Ok(arrival) => arrival,
            Err(refusal) => {
                debug!(%addr, %refusal, "connection left unanswered");
                self.discard().await;
                return;
            }
        };
        // The slot is held until the arrival is taken, so that a peer which connects again and again
        // waits in no longer a queue than a stranger does.
        let Self { stream, slot: _slot, .. } = self;
        let arrival = match arrival {
            Ok(established) => match Connection::new(stream, established, false) {
                Ok(connection) => Arrival::Peer(connection),
                Err(error) => return debug!(%addr, %error, "connection lost after its handshake"),
            },
            Err(incompatible) => incompatible,
        };
        // It is not taken only if the listener is being stopped.
        drop(arrivals.send(arrival).await);
    }

    /// Does the handshake. What comes of it is a peer, or a device that is one but for its version.
    async fn shake_hands(&mut self) -> Result<Result<Established, Arrival>, Refusal> {
        let first = self.read::<FIRST_LEN>().await?;
        let (responder, second) = self.endpoint.respond(&first)?;
        self.stream.write_all(&second).await?;
        let last = self.read::<LAST_LEN>().await?;
        let peer = responder.peer();
        match responder.handle_last(&last) {
            Ok(established) => Ok(Ok(established)),
            Err(HandshakeError::Version { theirs, ours }) => {
                Ok(Err(Arrival::Incompatible { peer, addr: self.addr, theirs, ours }))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read<const LEN: usize>(&mut self) -> io::Result<[u8; LEN]> {
        let mut message = [0; LEN];
        self.stream.read_exact(&mut message).await?;
        self.read_len += LEN;
        Ok(message)
    }

    /// Ends a connection as every other that came to nothing: see the top of the file.
    async fn discard(mut self) {
        let mut buffer = [0; 4096];
        let read_on = async {
            while self.read_len < DISCARD_LEN_MAX {
                match self.stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(len) => self.read_len += len,
                }
            }
        };
        // Late or not, it ends here.
        drop(timeout_at(self.deadline, read_on).await);
        drop(self.stream.shutdown().await);
    }
}

/// Counts the handshakes under way.
#[derive(Clone)]
struct Slots {
    bounds: ListenBounds,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Slots {
    fn new(bounds: ListenBounds) -> Self {
        Self { bounds, taken: Arc::default() }
    }

    /// Takes a slot, unless too many are taken in all or by this address.
    fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut taken = self.taken();
        let here = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.total >= self.bounds.handshakes || here >= self.bounds.handshakes_per_address {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(address, here + 1);
        Some(Slot { slots: self.clone(), address })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One handshake under way; dropping it ends the count.
struct Slot {
    slots: Slots,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_bounded_in_all_and_for_each_address() {
        let bounds = ListenBounds { handshake_timeout: Duration::ZERO, handshakes: 3, handshakes_per_address: 2 };
        let slots = Slots::new(bounds);
        let [a, mapped, b, c] =
            ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| text.parse().unwrap());
        let first = slots.take(a).unwrap();
        let _second = slots.take(mapped).unwrap();
        assert!(slots.take(a).is_none());
        let third = slots.take(b).unwrap();
        assert!(slots.take(c).is_none());
        drop(first);
        assert!(slots.take(c).is_some());
        drop(third);
        assert_eq!(slots.taken().by_address.len(), 1);
        assert_eq!(slots.taken().total, 1);
    }
}
