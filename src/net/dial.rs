//! Dialing: from an address to a connection with the device that should be there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::engine::session::handshake::{HandshakeError, SECOND_LEN};
use crate::engine::session::suite::Suite;
use crate::model::id::DeviceId;
use crate::net::connection::Connection;
use crate::net::endpoint::Endpoint;
use crate::net::interfaces::tcp_socket;

/// Why a dial gave no connection, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not one that this device talks to.
    #[error("{addr} is outside the local network")]
    Forbidden {
        /// The address.
        addr: SocketAddr,
    },
    /// The peer is not in the trust list.
    #[error("{peer} is not trusted")]
    Untrusted {
        /// The peer.
        peer: DeviceId,
    },
    /// The interfaces that alone may be used are away.
    #[error("the network interface {interfaces} is away")]
    NoInterface {
        /// Their names.
        interfaces: String,
    },
    /// Nobody listens there, or there is no way to it.
    #[error("{addr} cannot be reached")]
    Unreachable {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody took the connection and said nothing: it is another device or another program, it has
    /// not added this device, or one of the two clocks is days off.
    #[error("{addr} gave no answer")]
    NoAnswer {
        /// The address.
        addr: SocketAddr,
    },
    /// The connection failed amid the handshake.
    #[error("the connection to {addr} was lost")]
    Lost {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The handshake failed.
    #[error("no session with {addr}")]
    Handshake {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: HandshakeError,
    },
}

/// Connects to a trusted device at an address, within `timeout` in all.
///
/// Cancel-safe: dropping the future closes the connection.
pub async fn dial(
    endpoint: &Endpoint,
    peer: DeviceId,
    addr: SocketAddr,
    suite: Suite,
    timeout: Duration,
) -> Result<Connection, DialError> {
    if !endpoint.permits(addr.ip()) {
        return Err(DialError::Forbidden { addr });
    }
    let handshake_error = |source| DialError::Handshake { addr, source };
    let (initiator, first) =
        endpoint.initiate(peer, suite).ok_or(DialError::Untrusted { peer })?.map_err(handshake_error)?;
    let deadline = Instant::now() + timeout;
    let mut stream = connect(addr, &endpoint.interfaces(), deadline).await?;
    let second = ask(&mut stream, addr, &first, deadline).await?;
    let (complete, last) = initiator.handle_second(&second).map_err(handshake_error)?;
    let lost = |source| DialError::Lost { addr, source };
    timeout_at(deadline, stream.write_all(&last)).await.map_err(|late| lost(late.into()))?.map_err(lost)?;
    let established = complete.establish().map_err(handshake_error)?;
    Connection::new(stream, established, true).map_err(lost)
}

/// Connects by the first of the interfaces by which it can be done; by any where none are given.
pub(crate) async fn connect(
    addr: SocketAddr,
    interfaces: &[String],
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let mut ways: Vec<Option<&str>> = interfaces.iter().map(|name| Some(name.as_str())).collect();
    if ways.is_empty() {
        ways.push(None);
    }
    let mut left = ways.len() as u32;
    let mut last: Option<io::Error> = None;
    for way in ways {
        // Each has its share of the time, so that one that swallows packets leaves some to the others.
        let until = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        let connected = async {
            let socket = TcpSocket::from_std_stream(tcp_socket(addr, way)?.into());
            let stream = timeout_at(until, socket.connect(addr)).await??;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(source),
        }
    }
    let source = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NODEV.raw_os_error() => {
            DialError::NoInterface { interfaces: interfaces.join(", ") }
        }
        _ => DialError::Unreachable { addr, source },
    })
}

/// Sends the first message and waits for the whole answer.
async fn ask(
    stream: &mut TcpStream,
    addr: SocketAddr,
    first: &[u8],
    deadline: Instant,
) -> Result<[u8; SECOND_LEN], DialError> {
    let mut second = [0; SECOND_LEN];
    let mut len = 0;
    let exchange = async {
        stream.write_all(first).await?;
        while len < SECOND_LEN {
            match stream.read(&mut second[len..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => len += read,
            }
        }
        Ok(())
    };
    match timeout_at(deadline, exchange).await.unwrap_or_else(|late| Err(late.into())) {
        Ok(()) => Ok(second),
        // However a connection ends on which nothing was said, it was silence.
        Err(_) if len == 0 => Err(DialError::NoAnswer { addr }),
        Err(source) => Err(DialError::Lost { addr, source }),
    }
}
