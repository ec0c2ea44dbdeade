//! Network interfaces that every socket is bound to, where a person named some: not a packet goes out or comes
//! in by another, and where they are away nothing does.
//!
//! The kernel binds a socket to an interface by its number. One that was taken away and made anew has the same
//! name and another number, and a socket that was bound before is dead. So numbers are watched.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use socket2::{Domain, Protocol, Socket, Type};

/// Returns the interfaces of these that are there now, and their numbers.
pub fn present(names: &[String]) -> io::Result<BTreeMap<String, u32>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Any socket will do to ask with.
    let asking = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let numbered = |name: &String| name_to_index(&asking, name).ok().map(|number| (name.clone(), number));
    Ok(names.iter().filter_map(numbered).collect())
}

/// Makes a socket for TCP that talks by this interface alone, or by any where none is given.
///
/// # Errors
/// There is no such interface, or the kernel is older than 5.7 and the program may not bind to one.
pub fn tcp_socket(addr: SocketAddr, interface: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_gives_no_socket() {
        let names = ["lo".to_owned(), "kf-nowhere".to_owned()];
        assert_eq!(present(&names).unwrap().into_keys().collect::<Vec<_>>(), ["lo"]);
        let addr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(tcp_socket(addr, Some("lo")).unwrap().device().unwrap().as_deref(), Some(&b"lo"[..]));
        assert!(tcp_socket(addr, Some("kf-nowhere")).is_err());
        assert_eq!(tcp_socket(addr, None).unwrap().device().unwrap(), None);
    }
}
