//! Listening: whoever connects is let in, or learns nothing.
//!
//! A stranger gets not one byte. What it sends, be it garbage, a replay, half a message or nothing, is
//! read and thrown away until it closes, until it has sent [`DISCARD_LEN_MAX`] bytes or until the time of
//! a handshake is over, whichever comes first; then the connection is closed, always in the same way. So
//! neither what is sent nor when the connection ends tells a valid device id from an invalid one.
//!
//! Connections that have not proven themselves are bounded in number; beyond that the newest has the place of the one
//! that has waited longest (`net::anteroom`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
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
use crate::model::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_PER_DEVICE_MAX, STRANGERS_MAX, STRANGERS_PER_ADDRESS_MAX};
use crate::net::anteroom::{Anteroom, AnteroomBounds, Place};
use crate::net::connection::Connection;
use crate::net::endpoint::{Endpoint, Unanswered};
use crate::net::interfaces::tcp_socket;

/// Most bytes that are read on one connection before it has proven itself.
pub const DISCARD_LEN_MAX: usize = 64 << 10;
/// Connections that the system holds until they are taken. A flood fills it; what does not fit is asked for again by the
/// system of the other side after a second.
const BACKLOG: i32 = 4096;
/// Rest after the system could not give a connection, as when all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenBounds {
    /// Longest time that a handshake may take.
    pub handshake_timeout: Duration,
    /// Connections at a time that have not proven themselves.
    pub anteroom: AnteroomBounds,
}

impl ListenBounds {
    /// The bounds that the program runs with.
    pub const STANDARD: Self = Self {
        handshake_timeout: HANDSHAKE_TIMEOUT,
        anteroom: AnteroomBounds {
            strangers: STRANGERS_MAX,
            strangers_per_address: STRANGERS_PER_ADDRESS_MAX,
            handshakes_per_device: HANDSHAKES_PER_DEVICE_MAX,
        },
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
        let anteroom = Anteroom::new(self.bounds.anteroom);
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.accept() => match accepted {
                    Ok((stream, addr)) => {
                        if !endpoint.permits(addr.ip()) {
                            debug!(%addr, "connection from outside the local network refused");
                        } else {
                            let place = anteroom.enter(addr.ip());
                            let number = place.number();
                            let greeting = Greeting {
                                endpoint: Arc::clone(&endpoint),
                                stream,
                                addr,
                                deadline: Instant::now() + self.bounds.handshake_timeout,
                                read_len: 0,
                                place,
                            };
                            anteroom.note_task(number, handshakes.spawn(greeting.run(arrivals.clone())));
                        }
                    }
                    Err(error) => {
                        warn!(%error, "no connection could be taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = handshakes.join_next(), if !handshakes.is_empty() => {
                    // Who lost its place to another was ended from outside.
                    if let Err(error) = ended && !error.is_cancelled() {
                        warn!(%error, "a handshake ended by a bug");
                    }
                }
                () = arrivals.closed() => return,
            }
        }
    }

    /// Waits for a connection on any of the sockets. Waits forever if there is none.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
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
    place: Place,
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
        // The place is held until the arrival is taken, so that a peer which connects again and again
        // waits in no longer a queue than its share.
        let Self { stream, place: _place, .. } = self;
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
        self.place.admit(responder.peer());
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
