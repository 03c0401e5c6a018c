//! Ports of this machine, for programs that a test starts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::mutex::lock;

/// Below the ports that the system assigns by itself (32768 and above on Linux): no connection of another program takes
/// one between our check and its use.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// Held until the process ends: no other test, of whatever checkout and user, gets the port.
#[cfg(target_os = "linux")]
type Reservation = std::os::unix::net::UnixListener;
#[cfg(not(target_os = "linux"))]
type Reservation = ();

/// A port on which nothing listens, and which this process alone has among all tests.
///
/// # Errors
/// When all are taken.
pub fn free_port() -> io::Result<u16> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    static RESERVED: Mutex<Vec<Reservation>> = Mutex::new(Vec::new());
    // Processes that start at the same time begin at different ports.
    let begin = std::process::id()
        .wrapping_mul(2_654_435_761)
        .wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
    let begin = (begin % u32::from(COUNT)) as u16;
    for port in (0..COUNT).map(|step| FIRST + (begin + step) % COUNT) {
        let Some(reservation) = reserve(port) else {
            continue;
        };
        if is_free(port) {
            let mut reserved = lock(&RESERVED);
            reserved.push(reservation);
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn is_free(port: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    // A machine without IPv6 has no such port to take.
    let v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    v4 && v6.err().is_none_or(|error| error.kind() != io::ErrorKind::AddrInUse)
}

/// Claims the port with a socket's name that is not a file, and disappears with the process.
#[cfg(target_os = "linux")]
fn reserve(port: u16) -> Option<Reservation> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    let name = SocketAddr::from_abstract_name(format!("dockerutils-test-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

#[cfg(not(target_os = "linux"))]
const fn reserve(_port: u16) -> Option<Reservation> {
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_or_while_somebody_listens() {
        let first = free_port().unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&first));
        let others: Vec<u16> = (0..20).map(|_| free_port().unwrap()).collect();
        assert!(!others.contains(&first));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
        drop(listener);
        assert!(reserve(first).is_none());
    }
}
