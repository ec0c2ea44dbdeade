//! Addresses as people write them. Host names are refused: nothing here ever asks a DNS server.

use std::net::IpAddr;
use std::net::SocketAddr;

/// The port where none is written.
pub const DEFAULT_PORT: u16 = 25463;

/// Why a text is not an address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// It looks like a name.
    #[error("`{0}` is not an IP address; host names are never looked up, for that would ask a DNS server")]
    HostName(String),
    /// The port is not a number up to 65535.
    #[error("`{0}` is not a port; ports are numbers from 1 to 65535")]
    Port(String),
    /// Nobody can be called at port 0.
    #[error("`{0}` has port 0, where nobody can be reached")]
    PortZero(String),
}

/// Parses an address to listen on: `HOST` or `HOST:PORT`, where port 0 lets the system choose.
pub fn parse_listen(text: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(host) = bare.parse::<IpAddr>() {
        return Ok(SocketAddr::new(host, DEFAULT_PORT));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
            Err(AddressError::Port(port.to_owned()))
        }
        _ => Err(AddressError::HostName(text.to_owned())),
    }
}

/// Parses an address to call: `HOST` or `HOST:PORT`.
pub fn parse_device(text: &str) -> Result<SocketAddr, AddressError> {
    let address = parse_listen(text)?;
    if address.port() == 0 {
        return Err(AddressError::PortZero(text.to_owned()));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = parse_device(text).map_or_else(|e| e.to_string(), |address| address.to_string());
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn a_missing_port_is_the_default_one() {
        check("10.0.0.7", "10.0.0.7:25463");
        check("10.0.0.7:1", "10.0.0.7:1");
        check("fd00::7", "[fd00::7]:25463");
        check("[fd00::7]", "[fd00::7]:25463");
        check("[fd00::7]:1", "[fd00::7]:1");
    }

    #[test]
    fn host_names_and_bad_ports_are_refused() {
        let name = "is not an IP address; host names are never looked up, for that would ask a DNS server";
        check("nas.local", &format!("`nas.local` {name}"));
        check("nas:25463", &format!("`nas:25463` {name}"));
        check("10.0.0", &format!("`10.0.0` {name}"));
        check("", &format!("`` {name}"));
        check("10.0.0.7:99999", "`99999` is not a port; ports are numbers from 1 to 65535");
        check("[fd00::7]:x", "`x` is not a port; ports are numbers from 1 to 65535");
        check("10.0.0.7:0", "`10.0.0.7:0` has port 0, where nobody can be reached");
        assert_eq!(parse_listen("10.0.0.7:0"), Ok("10.0.0.7:0".parse().unwrap()));
    }
}
