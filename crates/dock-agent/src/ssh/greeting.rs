//! What an sshd sends before its banner, with OpenSSH's limits: libssh2 reads such lines for as long as they come, a
//! byte at a time.
//!
//! A server may send any lines before the one that begins with `SSH-` (RFC 4253, 4.2). OpenSSH's client reads 1024 of at most
//! 8192 bytes (`SSH_MAX_PRE_BANNER_LINES`, `SSH_MAX_BANNER_LEN`), and so does this.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

/// The most lines before the banner.
const LINES: usize = 1024;
/// The longest line, in bytes.
const LINE: usize = 8192;
/// How the banner begins.
const BANNER: &[u8] = b"SSH-";
/// A server that is silent for this long may wait for us to speak first.
const SILENCE: Duration = Duration::from_secs(5);
/// How long to wait for the rest of the banner's first bytes.
const REST: Duration = Duration::from_millis(10);

/// Why a server is not an sshd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoSshd {
    #[error("the server is not an sshd: it sends {LINES} lines without a banner")]
    ManyLines,
    #[error("the server is not an sshd: it sends {LINE} bytes without a banner or the end of a line")]
    LongLine,
    #[error("the server sends no banner within {} s", .0.as_secs())]
    Slow(Duration),
}

/// Reads what comes before the banner, and leaves the banner in the socket. A socket that is closed, or silent, is left
/// as it is: the handshake deals with it.
pub(super) fn skip(socket: impl AsFd, limit: Duration) -> Result<(), NoSshd> {
    let (socket, begun) = (socket.as_fd(), Instant::now());
    let mut buffer = vec![0; LINE];
    let (mut lines, mut in_line) = (0, 0);
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let patience = if lines == 0 && in_line == 0 {
            left.min(SILENCE)
        } else {
            left
        };
        let Ok(Some(peeked)) = peek(socket, &mut buffer, patience) else {
            return match begun.elapsed() < limit || lines + in_line == 0 {
                true => Ok(()),
                false => Err(NoSshd::Slow(limit)),
            };
        };
        let bytes = buffer.get(..peeked).unwrap_or_default();
        if in_line == 0 {
            if bytes.starts_with(BANNER) {
                return Ok(());
            }
            if BANNER.starts_with(bytes) {
                if begun.elapsed() >= limit {
                    return Err(NoSshd::Slow(limit));
                }
                std::thread::sleep(REST);
                continue;
            }
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(bytes.len(), |end| end + 1);
        let Ok((taken, _)) = recv(socket, buffer.get_mut(..take).unwrap_or_default(), RecvFlags::empty()) else {
            return Ok(());
        };
        in_line += taken;
        if in_line > LINE {
            return Err(NoSshd::LongLine);
        }
        if end.is_some() && taken == take {
            (lines, in_line) = (lines + 1, 0);
            if lines == LINES {
                return Err(NoSshd::ManyLines);
            }
        }
    }
}

/// How many bytes can be read, without taking them; `None` if the other side has closed, or sends nothing in time.
fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
    let mut looked_at = [PollFd::new(&socket, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    if poll(&mut looked_at, Some(&limit))? == 0 {
        return Ok(None);
    }
    let (count, _) = recv(socket, buffer, RecvFlags::PEEK)?;
    Ok((count > 0).then_some(count))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// The result for these pieces, each of which is sent by itself; and what is left in the socket.
    fn said(words: Vec<Vec<u8>>) -> (Result<(), NoSshd>, Vec<u8>) {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        let speaking = std::thread::spawn(move || {
            for word in words {
                // A reader that has read enough closes the connection.
                if far.write_all(&word).is_err() {
                    return;
                }
            }
        });
        let result = skip(&near, LIMIT);
        let mut left = Vec::new();
        if result.is_ok() {
            near.read_to_end(&mut left).unwrap();
        }
        drop(near);
        speaking.join().unwrap();
        (result, left)
    }

    #[test]
    fn lines_before_the_banner_are_passed_over_and_the_banner_stays() {
        let banner = b"SSH-2.0-OpenSSH_9.2\r\nrest";
        for before in ["", "hello\r\n", "S\n\nSSH\n", "a\n"] {
            let whole = [before.as_bytes(), banner].concat();
            for size in [1, 3, 7, whole.len()] {
                let (result, left) = said(whole.chunks(size).map(<[u8]>::to_vec).collect());
                assert_eq!(result, Ok(()), "{before:?} {size}");
                assert_eq!(left, banner, "{before:?} {size}");
            }
        }
    }

    #[test]
    fn what_goes_on_without_end_is_no_sshd() {
        assert_eq!(said(vec![vec![b'x'; 1 << 20]]).0, Err(NoSshd::LongLine));
        assert_eq!(said(vec![b"x\n".repeat(1 << 20)]).0, Err(NoSshd::ManyLines));
    }

    #[test]
    fn what_says_nothing_is_left_to_the_handshake() {
        assert_eq!(said(Vec::new()), (Ok(()), Vec::new()));
    }
}
