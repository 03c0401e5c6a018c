//! The terminal that a command runs in: its size, its raw mode, input without echo; and reading and writing the three
//! streams, terminal or not.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The size of the terminal on stdout, rows and columns; zeros if stdout is not a terminal.
pub fn size() -> (usize, usize) {
    tcgetwinsize(io::stdout()).map_or((0, 0), |size| (size.ws_row.into(), size.ws_col.into()))
}

/// Raw mode of a terminal, until this is dropped, also by a panic: keys arrive one by one, Ctrl-C among them.
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Turns it on for the terminal on stdin; `None` if stdin is not a terminal.
    pub fn enter() -> Option<Self> {
        Self::of(io::stdin().as_fd())
    }

    fn of(terminal: BorrowedFd<'_>) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let terminal = terminal.try_clone_to_owned().ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The longest line that is read, in bytes; a password is much shorter.
const LINE_LIMIT: usize = 4096;

/// A terminal that does not show what is typed, until this is dropped, also by an interruption.
pub struct Silence {
    terminal: OwnedFd,
    before: Termios,
}

impl Silence {
    /// Turns the echo off. Input that was typed before was visible, and is discarded: it is not the password.
    ///
    /// # Errors
    /// If it is not a terminal, or one that is gone.
    pub fn of(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The unread half of a password must not appear at the shell's next prompt. A terminal that is gone needs no
        // restoring.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        // The echo was off for the final line end, too.
        let _ = rustix::io::write(&self.terminal, b"\n");
    }
}

/// A line that the user types, without its end, read byte by byte: what follows it is not ours. `None` if the input has
/// ended, or the line is too long or not UTF-8.
///
/// It can't be cancelled: call it on a thread that no one waits for.
pub fn read_line(mut terminal: impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match terminal.read(&mut byte) {
            Ok(0) if line.is_empty() => return None,
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if line.len() < LINE_LIMIT => line.extend(byte),
            Ok(_) => return None,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    String::from_utf8(line).ok()
}

/// Reads from one of our own streams, and retries after interruptions. Zero bytes mean the end.
///
/// The process that started us may have made the stream non-blocking (rsync does, another job of the shell may): so
/// this waits for data itself.
///
/// # Errors
/// What the operating system says.
pub fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(from, &mut *buffer) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(from, PollFlags::IN)?,
            result => return Ok(result?),
        }
    }
}

/// Writes everything to one of our own streams; as [`read`].
///
/// # Errors
/// What the operating system says.
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(to, PollFlags::OUT)?,
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(())
}

fn wait(stream: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(stream, flags)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};

    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back_as_it_was() {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let modes = || format!("{:?}", tcgetattr(&terminal).unwrap());
        let before = modes();
        let panicking = std::panic::catch_unwind(|| {
            let _raw = RawMode::of(terminal.as_fd()).unwrap();
            assert_ne!(modes(), before);
            panic!("in raw mode");
        });
        assert!(panicking.is_err());
        assert_eq!(modes(), before);
        assert!(RawMode::of(std::fs::File::open("/dev/null").unwrap().as_fd()).is_none());
    }

    #[test]
    fn a_stream_that_does_not_wait_is_waited_for() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let sent: Vec<u8> = (0..2_000_000_u32).map(|number| number as u8).collect();
        let expected = sent.clone();
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut received = Vec::new();
            far.read_to_end(&mut received).unwrap();
            assert!(received == expected);
        });
        write_all(near.as_fd(), &sent).unwrap();
        drop(near);
        reading.join().unwrap();

        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let writing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            write_all(far.as_fd(), b"late").unwrap();
        });
        let mut buffer = [0; 8];
        assert_eq!(read(near.as_fd(), &mut buffer).unwrap(), 4);
        assert_eq!(read(near.as_fd(), &mut buffer).unwrap(), 0);
        writing.join().unwrap();
    }
}
