//! Ports nobody listens on, found by binding them.
//!
//! A port found free may be taken a moment later; who starts something on it must look whether it serves, and ask for
//! the next port if not.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Hands out ports, none of them twice.
#[derive(Default)]
pub(super) struct Ports {
    /// Ports handed out so far; nothing awaits under the lock.
    given: Mutex<BTreeSet<u16>>,
}

/// Every port of the range is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no port from {from} to {to} is free on 127.0.0.1")]
pub(super) struct NoneFree {
    from: u16,
    to: u16,
}

/// How many ports are looked at. The ranges begin below 10,000 and so stay clear of the ports the kernel gives to
/// outgoing connections (from 32,768 on): one of those could take the port of a backend that is being started again,
/// and a probe of it could even connect to itself.
const RANGE: u16 = 500;

impl Ports {
    /// The first port from `from` on that is free on loopback, IPv4 and IPv6, and was not handed out before.
    ///
    /// # Errors
    /// When 500 ports are taken.
    pub(super) fn next(&self, from: u16) -> Result<u16, NoneFree> {
        let to = from.saturating_add(RANGE - 1);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let port = (from..=to).find(|port| !given.contains(port) && is_free(*port)).ok_or(NoneFree { from, to })?;
        given.insert(port);
        Ok(port)
    }
}

/// Nobody listens on this port of the loopback addresses.
pub(super) fn is_free(port: u16) -> bool {
    let taken_on_ipv6 = || match TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::AddrInUse,
    };
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).is_ok() && !taken_on_ipv6()
}

/// This machine has an IPv6 loopback address.
pub(super) fn has_ipv6() -> bool {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = taken.local_addr().unwrap().port();
        let port = Ports::default().next(from).unwrap();
        assert!(port > from, "{port} instead of something above {from}");
        assert!(!is_free(from));
    }

    #[test]
    fn no_port_is_given_twice() {
        let ports = Ports::default();
        let first = ports.next(5600).unwrap();
        assert_ne!(ports.next(5600).unwrap(), first);
    }

    #[test]
    fn a_port_taken_on_ipv6_only_is_taken() {
        if !has_ipv6() {
            return;
        }
        let taken = TcpListener::bind("[::1]:0").unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }

    #[test]
    fn when_all_are_taken_the_range_is_named() {
        let ports = Ports::default();
        ports.given.lock().unwrap().extend(5000..5500);
        assert_eq!(ports.next(5000), Err(NoneFree { from: 5000, to: 5499 }));
    }
}
