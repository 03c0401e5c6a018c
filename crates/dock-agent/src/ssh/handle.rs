//! A session as seen by the callers that open channels on it: a handle, and the messages between it and the session's
//! thread. Behind it, either libssh2 ([`super::session`]) or OpenSSH's own client ([`super::openssh`]) carries the
//! channels.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use dock_client::agent::target::{Exit, Pty, Size};
use dock_link::transport::{TransportError, TransportErrorKind};
use tokio::sync::{mpsc as channel, oneshot, watch};

/// What is to be opened.
#[derive(Debug)]
pub(super) enum Open {
    /// A connection to a Unix socket of the dock.
    Socket(String),
    /// A connection from the dock to a host and port.
    Tcp(String, u16),
    /// A line for the login shell, or the login shell itself.
    Exec { line: Option<String>, pty: Option<Pty> },
    /// No channel yet: the dock is to listen at this address and port, and the channels of its connections go here.
    Listen {
        address: String,
        port: u16,
        accepted: channel::Sender<Ends>,
    },
    /// Nothing: a sign of life.
    Ping,
}

/// What was opened.
pub(super) enum Opened {
    /// A channel.
    Channel(Ends),
    /// The answer to a ping, and the time that it took.
    Pong(Duration),
    /// The dock listens, under this number.
    Listening(u64),
}

/// The local ends of a channel.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) id: u64,
    pub(super) stream: UnixStream,
    pub(super) stream_end: Arc<AtomicBool>,
    pub(super) exec: Option<ExecEnds>,
}

/// What a command has besides its stream.
#[derive(Debug)]
pub(super) struct ExecEnds {
    pub(super) stderr: UnixStream,
    pub(super) stderr_end: Arc<AtomicBool>,
    pub(super) exit: oneshot::Receiver<Exit>,
}

/// Why a channel is not opened. The session goes on, except for [`OpenError::Lost`].
#[derive(Debug)]
pub(super) enum OpenError {
    /// sshd says that its configuration forbids it.
    Prohibited,
    /// sshd only says that it failed, as it does for a session beyond `MaxSessions`, too.
    Failed(String),
    /// The channel was opened, but the terminal or the command was denied.
    Denied(&'static str),
    /// What carries the session can't do this at all.
    Unsupported,
    /// The whole session is lost.
    Lost(TransportError),
}

/// A part of a channel that is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChannelPart {
    /// Its stream, in both directions: what was written and not yet sent is thrown away.
    Stream,
    /// Its stream, whose end was written: nothing is read any more, but what was written is still sent, and the end.
    Reader,
    /// Its stderr.
    Stderr,
    /// Its exit code.
    Exit,
}

/// Where the answer to an [`Open`] goes.
pub(super) type OpenReply = oneshot::Sender<Result<Opened, OpenError>>;

/// A message to a session's thread.
pub(super) enum SessionCommand {
    Open(Open, OpenReply),
    /// The next bytes that come from the dock, whatever they are, are the answer.
    Life(OpenReply),
    /// The terminal of a command has another size.
    Resize(u64, Size),
    /// This part of a channel is not needed any more.
    Drop(u64, ChannelPart),
    /// The dock is to listen no longer under this number.
    StopListening(u64),
    /// The session is not needed any more.
    Shutdown,
}

/// Sends messages to the thread; never blocks.
#[derive(Clone)]
pub(super) struct Notifier {
    commands: mpsc::Sender<SessionCommand>,
    waker: Arc<Waker>,
}

struct Waker {
    awake: AtomicBool,
    pipe: UnixStream,
}

impl Notifier {
    fn send(&self, command: SessionCommand) {
        // The thread may be gone: then the message does not matter any more, and `lost` reports the end.
        let _ = self.commands.send(command);
        if !self.waker.awake.swap(true, Ordering::AcqRel) {
            let _ = (&self.waker.pipe).write(&[0]);
        }
    }

    /// The terminal of a command has another size.
    pub(super) fn resize(&self, id: u64, size: Size) {
        self.send(SessionCommand::Resize(id, size));
    }

    /// This part is not needed any more.
    pub(super) fn drop_part(&self, id: u64, part: ChannelPart) {
        self.send(SessionCommand::Drop(id, part));
    }

    /// The dock is to listen no longer under this number.
    pub(super) fn stop_listening(&self, id: u64) {
        self.send(SessionCommand::StopListening(id));
    }
}

/// A session that is up; taken down when this is dropped.
pub(super) struct Handle {
    notifier: Notifier,
    lost: watch::Receiver<Option<TransportError>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.notifier.send(SessionCommand::Shutdown);
    }
}

impl Handle {
    pub(super) const fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Why the session was lost, if it was.
    pub(super) const fn fate(&self) -> &watch::Receiver<Option<TransportError>> {
        &self.lost
    }

    /// Resolves when the session is lost.
    pub(super) async fn lost(&self) -> TransportError {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        }
        .unwrap_or_else(closed)
    }

    /// Asks for a channel, or for a sign of life.
    pub(super) fn opening(&self, open: Open) -> oneshot::Receiver<Result<Opened, OpenError>> {
        let (reply, opened) = oneshot::channel();
        self.notifier.send(SessionCommand::Open(open, reply));
        opened
    }

    /// Waits for a sign of life: the answer to a ping, or anything else.
    pub(super) async fn life(&self) -> Result<(), OpenError> {
        let (reply, heard) = oneshot::channel();
        self.notifier.send(SessionCommand::Life(reply));
        match heard.await {
            Ok(result) => result.map(drop),
            Err(_) => Err(OpenError::Lost(self.lost.borrow().clone().unwrap_or_else(closed))),
        }
    }

    /// Opens a channel, or asks for a sign of life.
    pub(super) async fn open(&self, open: Open) -> Result<Opened, OpenError> {
        match self.opening(open).await {
            Ok(result) => result,
            Err(_) => Err(OpenError::Lost(self.lost.borrow().clone().unwrap_or_else(closed))),
        }
    }
}

pub(super) fn closed() -> TransportError {
    unreachable("the ssh session was closed".to_owned())
}

pub(super) fn unreachable(message: String) -> TransportError {
    TransportError {
        message,
        hint: None,
        kind: TransportErrorKind::Unreachable,
    }
}

/// The thread's side of a [`Handle`]: its messages, and where it reports how the session ended.
pub(super) struct Inbox {
    commands: mpsc::Receiver<SessionCommand>,
    waker: Arc<Waker>,
    woken: UnixStream,
    pub(super) fate: watch::Sender<Option<TransportError>>,
}

impl Inbox {
    /// Becomes readable when there are commands.
    pub(super) const fn woken(&self) -> &UnixStream {
        &self.woken
    }

    /// Notes that [`Inbox::woken`] was seen to be readable: a command that comes after this makes it readable again.
    pub(super) fn rest(&self) {
        let mut drained = [0; 64];
        while matches!((&self.woken).read(&mut drained), Ok(count) if count == drained.len()) {}
        self.waker.awake.store(false, Ordering::Release);
    }

    /// The next command; `None` if there is none now.
    pub(super) fn next(&self) -> Option<SessionCommand> {
        self.commands.try_recv().ok()
    }
}

/// Both sides of a session.
///
/// # Errors
/// When no socket pair can be made.
pub(super) fn sides() -> io::Result<(Handle, Inbox)> {
    let (commands, heard) = mpsc::channel();
    let (pipe, woken) = UnixStream::pair()?;
    pipe.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let waker = Arc::new(Waker {
        awake: AtomicBool::new(false),
        pipe,
    });
    let (fate, lost) = watch::channel(None);
    let inbox = Inbox {
        commands: heard,
        waker: Arc::clone(&waker),
        woken,
        fate,
    };
    let notifier = Notifier { commands, waker };
    Ok((Handle { notifier, lost }, inbox))
}
