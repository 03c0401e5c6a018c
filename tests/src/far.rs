//! An engine of the lab as if it were far away: by TCP, over a slow link.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dockerutils_test_support::SlowLink;
use dockerutils_test_support::lab::LabEngine;

/// A link of so many bits a second to an engine, and the engine's address at its near end.
///
/// # Panics
/// When no port is free.
pub fn link(engine: &LabEngine, bits: u64) -> (SlowLink, String) {
    link_by(engine, bits, |near, far| drop(carry(near, far)))
}

/// [`link`], whose connections are carried on to the engine's socket in some other way, each on a thread of its own.
///
/// # Panics
/// As there.
pub fn link_by(
    engine: &LabEngine,
    bits: u64,
    carry: impl Fn(TcpStream, UnixStream) + Send + Sync + 'static,
) -> (SlowLink, String) {
    let link = SlowLink::start(by_tcp(engine, carry), Duration::from_millis(5), Some(bits)).expect("a free port");
    let address = format!("tcp://{}", link.address());
    (link, address)
}

/// A TCP address that leads to an engine's Unix socket.
fn by_tcp(engine: &LabEngine, carry: impl Fn(TcpStream, UnixStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let socket = engine.host.trim_start_matches("unix://").to_owned();
    let carry = Arc::new(carry);
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = UnixStream::connect(&socket) else {
                continue;
            };
            let carry = Arc::clone(&carry);
            thread::spawn(move || carry(near, far));
        }
    });
    address
}

fn carry(near: TcpStream, far: UnixStream) -> io::Result<()> {
    let (near_read, far_read) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut &near_read, &mut &far);
        let _ = far.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut &far_read, &mut &near);
    let _ = near.shutdown(Shutdown::Both);
    far_read.shutdown(Shutdown::Both)
}
