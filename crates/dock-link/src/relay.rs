//! Bytes from a connection here to one on the dock, and back.
//!
//! Each direction ends by itself: docker's attach, cp and load close one half to say that they send no more, and read
//! on. A break in one direction does not stop the other, which may still bring the reason.

use std::io;
use std::time::Duration;

use dock_client::agent::frame::{self, FrameKind, HEADER};
use dock_client::agent::target::Size;
use dock_client::agent::wire::{Failure, FailureKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::link::{Over, ended};
use crate::transport::{Connection, Duplex, ExecSide};

/// How many bytes are moved at once in each direction.
pub(crate) const BUFFER: usize = 64 * 1024;
/// How often to check whether a peer that has closed its sending half is still there to receive.
const LOOK: Duration = Duration::from_secs(2);
/// How long a client has to take what it must have read before more comes, and how often it is looked at.
const TAKING: Duration = Duration::from_secs(2);
const GLANCE: Duration = Duration::from_millis(1);
/// How long the last message about a command may take to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Moves raw bytes both ways until both sides are done, the link is over, or the local peer is gone. An engine's
/// connection has a relay of its own, [`crate::http::relay`].
pub(crate) async fn raw(here: UnixStream, far: Box<dyn Duplex>, mut over: Over) {
    let (from_here, to_here) = here.into_split();
    let (from_far, to_far) = tokio::io::split(far);
    tokio::select! {
        () = both(from_here, to_here, from_far, to_far) => {}
        // Dropping both sides closes them at once.
        _ = ended(&mut over) => {}
    }
}

async fn both(
    mut from_here: OwnedReadHalf,
    mut to_here: OwnedWriteHalf,
    mut from_far: impl AsyncRead + Unpin,
    mut to_far: impl AsyncWrite + Unpin,
) {
    let out = async {
        // A dock that takes no more may still send.
        let _ = copy_away(&mut from_here, &mut to_far).await;
        let _ = to_far.shutdown().await;
        from_here
    };
    let back = async {
        let result = copy(&mut from_far, &mut to_here).await;
        let _ = to_here.shutdown().await;
        result.is_ok()
    };
    tokio::pin!(out, back);
    tokio::select! {
        // The local side sends no more: the dock may send on, as long as the peer is there.
        from_here = &mut out => tokio::select! {
            _ = back => {}
            () = gone(&from_here) => {}
        },
        // The dock sends no more, and may still receive; if its bytes could not be delivered, the local peer is gone.
        heard = &mut back => if heard {
            out.await;
        }
    }
}

async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while let Some(bytes) = next(from, &mut buffer).await? {
        write(to, bytes).await?;
    }
    Ok(())
}

/// [`copy`] from a socket here: if the peer has gone, it does not wait for a dock that takes nothing.
async fn copy_away(from: &mut OwnedReadHalf, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while let Some(bytes) = next(from, &mut buffer).await? {
        write_for(from, to, bytes).await?;
    }
    Ok(())
}

/// The next bytes; `None` at the end.
async fn next<'a>(from: &mut (impl AsyncRead + Unpin), buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    let read = from.read(buffer).await?;
    Ok(buffer.get(..read).filter(|bytes| !bytes.is_empty()))
}

pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Writes bytes that came from a socket, as long as its peer is there.
pub(crate) async fn write_for(
    from: &OwnedReadHalf,
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    tokio::select! {
        biased;
        written = write(to, bytes) => written,
        () = gone(from) => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// Waits until the process behind a socket that sends no more has closed it altogether. A stream that brings nothing
/// for hours (`docker events`) would outlive it otherwise.
pub(crate) async fn gone(socket: &OwnedReadHalf) {
    loop {
        tokio::time::sleep(LOOK).await;
        if has_gone(socket) {
            return;
        }
    }
}

/// Whether the process behind a socket has closed it altogether.
#[cfg(target_os = "linux")]
pub(crate) fn has_gone(socket: &OwnedReadHalf) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut looked_at = [PollFd::new(socket.as_ref(), PollFlags::empty())];
    // unix(7) sockets report POLLHUP if both directions are closed, and only then.
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let looked = poll(&mut looked_at, Some(&now));
    looked.is_ok() && looked_at.iter().any(|found| found.revents().contains(PollFlags::HUP))
}

/// Elsewhere POLLHUP may mean one direction only; a failing write shows that the peer is gone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn has_gone(_: &OwnedReadHalf) -> bool {
    false
}

/// Waits until the process behind a socket has taken all that was written to it, for [`TAKING`] at most.
pub(crate) async fn taken(socket: &OwnedWriteHalf) {
    let looking = async {
        while !is_taken(socket) {
            // No event says it.
            tokio::time::sleep(GLANCE).await;
        }
    };
    // A process that takes nothing gets what follows as it gets everything: when it reads.
    let _ = tokio::time::timeout(TAKING, looking).await;
}

/// Whether nothing that was written to a socket is still to be read.
#[cfg(target_os = "linux")]
fn is_taken(socket: &OwnedWriteHalf) -> bool {
    use rustix::ioctl::{Getter, ioctl};
    // SIOCOUTQ, by the name that it has for terminals: bytes that the other end has not read, as unix(7) says of FIONREAD
    // for this one.
    const UNREAD: rustix::ioctl::Opcode = libc::TIOCOUTQ as rustix::ioctl::Opcode;
    // SAFETY: the request writes one int, wherever it is known, and reads nothing.
    let unread = unsafe { ioctl(socket.as_ref(), Getter::<UNREAD, std::ffi::c_int>::new()) };
    // A system that does not say it is not waited for.
    unread.map_or(true, |unread| unread == 0)
}

/// Elsewhere sockets do not say it.
#[cfg(not(target_os = "linux"))]
fn is_taken(_: &OwnedWriteHalf) -> bool {
    true
}

/// Moves what a command reads and writes, in frames, until it has ended or the client is gone.
pub(crate) async fn exec(here: UnixStream, connection: Connection, mut over: Over) {
    let (from_here, mut to_here) = here.into_split();
    let Connection { stream, exec } = connection;
    let (stdout, stdin) = tokio::io::split(stream);
    let (stderr, resize, exit) = match exec {
        Some(ExecSide { stderr, resize, exit }) => (stderr, resize, exit),
        None => return,
    };
    let output = async {
        copy_out(stdout, stderr, &mut to_here).await?;
        io::Result::Ok(exit.await.ok())
    };
    let last = tokio::select! {
        // The command's own end takes precedence over that of the link, if both happened.
        biased;
        output = output => match output {
            Ok(Some(exit)) => Ok(exit),
            Ok(None) => Err(why(&over, "the connection to the command broke")),
            // The client is gone.
            Err(_) => return,
        },
        error = ended(&mut over) => Err(Failure::from(error)),
        // The client is gone: dropping the connection closes it.
        () = listen(from_here, stdin, resize) => return,
    };
    let saying = async {
        match last {
            Ok(exit) => say(&mut to_here, FrameKind::Exit, &exit).await,
            Err(failure) => say(&mut to_here, FrameKind::Failure, &failure).await,
        }
    };
    // A client that does not read any more misses it.
    let _ = tokio::time::timeout(LAST_WORDS, saying).await;
}

fn why(over: &Over, otherwise: &str) -> Failure {
    match &*over.borrow() {
        Some(error) => error.clone().into(),
        None => Failure {
            message: otherwise.to_owned(),
            hint: None,
            kind: FailureKind::Unreachable,
        },
    }
}

async fn say<T: serde::Serialize>(to: &mut OwnedWriteHalf, kind: FrameKind, what: &T) -> io::Result<()> {
    frame::write(to, kind, &serde_json::to_vec(what)?).await
}

/// Both outputs of a command, up to their ends. An output that breaks counts as ended.
async fn copy_out(
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: Box<dyn AsyncRead + Send + Unpin>,
    to: &mut OwnedWriteHalf,
) -> io::Result<()> {
    // Room for a frame's header is left before the data, so that both go out in one write.
    let (mut out, mut err) = (vec![0; HEADER + BUFFER], vec![0; HEADER + BUFFER]);
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        let (kind, read, buffer) = tokio::select! {
            read = stdout.read(body(&mut out)), if out_open => (FrameKind::Stdout, read.unwrap_or(0), &mut out),
            read = stderr.read(body(&mut err)), if err_open => (FrameKind::Stderr, read.unwrap_or(0), &mut err),
        };
        if read == 0 {
            match kind {
                FrameKind::Stdout => out_open = false,
                _ => err_open = false,
            }
            continue;
        }
        if let Some(head) = buffer.first_chunk_mut() {
            *head = frame::header(kind, read)?;
        }
        to.write_all(buffer.get(..HEADER + read).unwrap_or_default()).await?;
    }
    Ok(())
}

fn body(buffer: &mut [u8]) -> &mut [u8] {
    buffer.get_mut(HEADER..).unwrap_or_default()
}

/// Handles what the client sends, until it is gone.
async fn listen(mut from: OwnedReadHalf, mut stdin: impl AsyncWrite + Unpin, resize: mpsc::Sender<Size>) {
    let mut payload = Vec::new();
    let mut takes = true;
    while let Ok(Some(kind)) = frame::read(&mut from, &mut payload).await {
        match kind {
            FrameKind::Stdin if payload.is_empty() => {
                // A command that has closed its stdin knows already.
                let _ = stdin.shutdown().await;
                takes = false;
            }
            FrameKind::Stdin if takes => {
                // A command need not read its stdin.
                takes = write_for(&from, &mut stdin, &payload).await.is_ok();
            }
            FrameKind::Resize => {
                if let Ok(size) = serde_json::from_slice(&payload) {
                    // If a size doesn't fit into the queue, a newer one follows soon, or the user has stopped resizing
                    // for long.
                    let _ = resize.try_send(size);
                }
            }
            FrameKind::Stdin => {}
            // A frame that clients don't send.
            _ => return,
        }
    }
}
