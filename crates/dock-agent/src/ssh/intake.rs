//! Counts what libssh2 reads from a session's socket.
//!
//! Any call of libssh2 may read packets, also those for other channels, which it keeps. A thread that then waits for
//! the socket may wait in vain: what it waits for has come already. So the session's thread must know whether a round
//! of calls has read anything. libssh2 does not report that; but it accepts a function to read with
//! (`libssh2_session_callback_set`, which the ssh2 crate does not wrap), and this one counts. It also reads nothing
//! more once the socket was empty, until the next round.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};
use std::os::fd::BorrowedFd;
use std::slice;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use ssh2::Session;

/// `LIBSSH2_CALLBACK_RECV` of libssh2.h.
const CALLBACK_RECV: c_int = 6;

thread_local! {
    /// Bytes read by this thread's session.
    static RECEIVED: Cell<u64> = const { Cell::new(0) };
    /// The socket was empty in this round.
    static EMPTY: Cell<bool> = const { Cell::new(false) };
    /// The calls wait for what they need: what comes meanwhile is read.
    static WAITING: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    fn libssh2_session_callback_set(session: *mut c_void, kind: c_int, callback: *mut c_void) -> *mut c_void;
}

/// Counts what this session reads from now on. The session is to be used on the calling thread alone, and to be that
/// thread's only session.
pub(super) fn count(session: &Session) {
    let mut raw = session.raw();
    let session: *mut c_void = (&raw mut *raw).cast();
    // SAFETY: the session is alive, and locked by `raw`. `receive` has the type that libssh2.h gives for this callback
    // (LIBSSH2_RECV_FUNC), and lives as long as the program.
    unsafe {
        libssh2_session_callback_set(session, CALLBACK_RECV, receive as *mut c_void);
    }
}

/// Begins a round: the socket may be read again.
pub(super) fn begin_round() {
    EMPTY.set(false);
}

/// Whether the next calls wait for what they need, which a round would keep from them.
pub(super) fn set_waiting(waiting: bool) {
    WAITING.set(waiting);
    EMPTY.set(false);
}

/// How many bytes were read since [`count`].
pub(super) fn received() -> u64 {
    RECEIVED.get()
}

/// Reads from the socket, as libssh2's own function does: a negative number is an error code.
unsafe extern "C" fn receive(
    socket: c_int,
    buffer: *mut c_void,
    length: usize,
    _flags: c_int,
    _session: *mut *mut c_void,
) -> c_long {
    if EMPTY.get() {
        return refusal(Errno::AGAIN);
    }
    // SAFETY: libssh2 gives its session's own socket, which is open as long as the session, and a buffer of this length
    // that nothing else uses during the call.
    let (socket, buffer) = unsafe {
        (
            BorrowedFd::borrow_raw(socket),
            slice::from_raw_parts_mut(buffer.cast::<u8>(), length),
        )
    };
    match recv(socket, buffer, RecvFlags::DONTWAIT) {
        Ok((count, _)) => {
            RECEIVED.set(RECEIVED.get().wrapping_add(count as u64));
            c_long::try_from(count).unwrap_or(c_long::MAX)
        }
        Err(Errno::AGAIN | Errno::INTR) => {
            EMPTY.set(!WAITING.get());
            refusal(Errno::AGAIN)
        }
        Err(error) => refusal(error),
    }
}

fn refusal(error: Errno) -> c_long {
    -c_long::from(error.raw_os_error())
}
