//! An ssh session that is up: a thread of its own, which alone speaks to libssh2 and carries every channel's bytes.
//!
//! libssh2 is used non-blocking, and has a rule of its own: when a packet was sent in part, every other call that sends
//! fails until the call that made the packet is repeated with the same arguments. The thread obeys it: a call that
//! leaves [`BlockDirections::Outbound`] behind is *pinned*, and nothing else is called before it has succeeded.
//!
//! The local ends of channels are handed out as one end of a Unix socket pair: see [`Flow`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dock_client::agent::target::{Exit, Size};
use dock_link::transport::TransportError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, Listener, Session};
use tokio::sync::{mpsc, oneshot};

use super::flow::Flow;
use super::handle::{
    ChannelPart, Ends, ExecEnds, Inbox, Open, OpenError, OpenReply, Opened, SessionCommand, closed, unreachable,
};
use super::intake;

/// How many bytes are read from a channel at once.
const READ: usize = 256 * 1024;
/// The receive window that libssh2 gives a new channel.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Below this, libssh2 would adjust the window by itself within a read of [`READ`] bytes, and be confused when the read
/// is repeated with another size. So we adjust it before.
const LEAST_WINDOW: u32 = WINDOW / 4 * 3 + 2 * READ as u32;
/// The receive window of most channels.
const SMALL_WINDOW: u32 = WINDOW + 2 * READ as u32;
/// The receive window of a channel that has brought [`BULK`] bytes: a dock with a long round trip needs a wide one (117
/// against 31 MB/s at 50 ms).
const BULK_WINDOW: u32 = 10 * 1024 * 1024;
/// A channel that has brought more bytes than this carries bulk.
const BULK: u64 = 1024 * 1024;
/// How many bytes are read at once to be sent: two of the packets that libssh2 makes.
const SEND: usize = 2 * 32_700;
/// How many packets a channel sends before it is the turn of the others.
const PACKETS: usize = 8;
/// libssh2's code for "not now".
const EAGAIN: i32 = -37;
/// libssh2's code for a channel that the remote side does not open.
const CHANNEL_FAILURE: i32 = -21;
/// libssh2's code for a request on a channel that the remote side denies.
const CHANNEL_REQUEST_DENIED: i32 = -22;
/// libssh2's code for a global request that the remote side denies.
const REQUEST_DENIED: i32 = -32;
/// libssh2's code for a call that waited too long.
const TIMEOUT: i32 = -9;
/// How many connections to one port that the dock listens on wait to be taken; libssh2 refuses more.
const BACKLOG: u32 = 16;
/// How many connections that came in at such ports there are at most; their windows bound what is kept of each.
const ACCEPTED: usize = 64;
/// How many channels may wait to be closed.
const UNWANTED: usize = 1024;
/// How long the dock may take to hear that it is to listen no longer.
const STOP_LISTENING: Duration = Duration::from_secs(5);
/// A channel type that does not exist: the answer is a refusal, at once, and it is the only question whose answer
/// libssh2 does not keep for ever (those to its own keepalives pile up in the session).
const PING: &str = "ping@dockerutils.io";

/// How often a sign of life is asked for, and how much silence is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalive {
    /// How long the dock may be silent before it is asked.
    pub(super) interval: Duration,
    /// After this many intervals of silence, the link is dead.
    pub(super) count: u32,
}

/// A session that is authenticated, before its thread takes it over.
pub(super) struct Established {
    pub(super) session: Session,
    /// The socket's other descriptor, to wait on and to shut down.
    pub(super) socket: OwnedFd,
    /// Ends with the session: the process that carries it, if there is one.
    pub(super) carrier: Option<Box<dyn Send>>,
    pub(super) keepalive: Keepalive,
    /// `user@host`, for messages.
    pub(super) name: String,
}

impl Established {
    /// The thread's side of the session. [`Loop::run`] is to be called on the thread.
    pub(super) fn stand(self, inbox: Inbox) -> Loop {
        self.session.set_blocking(false);
        Loop {
            session: self.session,
            socket: self.socket,
            _carrier: self.carrier,
            keepalive: self.keepalive,
            name: self.name,
            inbox,
            roused: false,
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            unwanted: Vec::new(),
            dropped: Vec::new(),
            next: 0,
            turn: 0,
            queue: VecDeque::new(),
            opening: None,
            pinned: None,
            heard: Instant::now(),
            waiting: Vec::new(),
            pinging: false,
            scratch: vec![0; READ],
            near: vec![0; SEND],
            unread: false,
            stopping: false,
        }
    }
}

/// A channel and its local ends.
struct LinkedChannel {
    channel: Channel,
    stdout: Flow,
    stderr: Option<Flow>,
    exit: Option<oneshot::Sender<Exit>>,
    /// Bytes that were read from the local side, and are being sent.
    outgoing: Vec<u8>,
    out_sent: usize,
    /// The local side sends no more.
    near_ended: bool,
    /// The remote side was told that.
    eof_sent: bool,
    /// The remote side sends no more, and all that it sent is in libssh2's queue.
    far_ended: bool,
    /// The remote side has closed the channel.
    far_closed: bool,
    /// What was written is still to be sent, though nobody reads.
    finishing: bool,
    /// It is to be closed, whatever state it is in.
    closing: bool,
    /// The terminal's new size, which is to be sent.
    resize: Option<Size>,
    /// The bytes of receive window that are to be granted.
    widen: Option<u32>,
    /// The dock opened it, for a connection at a port that it listens on for us.
    accepted: bool,
}

impl LinkedChannel {
    /// One that was just opened.
    fn new(channel: Channel, stdout: Flow) -> Self {
        Self {
            channel,
            stdout,
            stderr: None,
            exit: None,
            outgoing: Vec::new(),
            out_sent: 0,
            near_ended: false,
            eof_sent: false,
            far_ended: false,
            far_closed: false,
            finishing: false,
            closing: false,
            resize: None,
            widen: None,
            accepted: false,
        }
    }

    /// Whether it has brought much from the dock, and is to bring more at once. The number of those that the dock opens
    /// is up to strangers, and so the windows of these stay small.
    fn bulk(&self) -> bool {
        let stderr = self.stderr.as_ref().map_or(0, |stderr| stderr.count);
        !self.accepted && self.stdout.count.max(stderr) > BULK
    }

    fn all_delivered(&self) -> bool {
        self.stdout.done && self.stderr.as_ref().is_none_or(|stderr| stderr.done)
    }

    /// Drops a part that is not needed any more.
    fn drop_part(&mut self, part: ChannelPart) {
        match part {
            ChannelPart::Stream => {
                self.stdout.discard();
                self.near_ended = true;
                self.outgoing.clear();
                self.out_sent = 0;
            }
            ChannelPart::Reader => {
                self.stdout.discard();
                self.finishing = true;
            }
            ChannelPart::Stderr => {
                if let Some(stderr) = &mut self.stderr {
                    stderr.discard();
                }
            }
            ChannelPart::Exit => self.exit = None,
        }
        self.close_if_unwanted();
    }

    /// Closes it when no part of it is needed any more.
    fn close_if_unwanted(&mut self) {
        let deaf = self.stdout.discarded && self.stderr.as_ref().is_none_or(|stderr| stderr.discarded);
        let mute = !self.finishing || self.eof_sent;
        self.closing |= deaf && mute && self.exit.is_none();
    }

    /// Whether more is to be read from the local side.
    fn wants_near(&self) -> bool {
        !self.near_ended && !self.closing && !self.far_closed && self.out_sent >= self.outgoing.len()
    }
}

/// A port that the dock listens on.
struct RemotePort {
    listener: Listener,
    /// Where the channels of its connections go.
    accepted: mpsc::Sender<Ends>,
    /// The dock is to listen no longer.
    leaving: bool,
}

/// A channel that is being opened.
struct Opening {
    open: Open,
    reply: Option<OpenReply>,
    since: Instant,
    stage: OpeningStage,
}

enum OpeningStage {
    /// The channel was requested.
    Channel,
    /// Its terminal was requested.
    Terminal(Channel),
    /// Its command was requested.
    Start(Channel),
    /// It is being closed: it was refused half-way, or is not needed any more.
    Close(Channel),
}

/// A call that must be repeated, unchanged, before all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    Window(u64),
    Read {
        id: u64,
        stderr: bool,
    },
    Write(u64),
    Eof(u64),
    Resize(u64),
    Finish(u64),
    Close(u64),
    Accept(u64),
    /// Closes a channel that nobody takes.
    Refuse,
    StopListening,
}

/// Why the loop ends.
struct Lost(TransportError);

/// The thread's side of a session.
pub(super) struct Loop {
    session: Session,
    socket: OwnedFd,
    _carrier: Option<Box<dyn Send>>,
    keepalive: Keepalive,
    name: String,
    inbox: Inbox,
    /// The inbox has woken the thread.
    roused: bool,
    links: BTreeMap<u64, LinkedChannel>,
    /// The ports that the dock listens on. libssh2 itself refuses what comes in at any other address and port.
    listeners: BTreeMap<u64, RemotePort>,
    /// Channels that the dock opened and nobody takes: they are to be closed.
    unwanted: Vec<Channel>,
    /// Parts of channels that are not needed any more, of which the channels have not been told yet.
    dropped: Vec<(u64, ChannelPart)>,
    next: u64,
    /// The channel whose turn it is.
    turn: u64,
    queue: VecDeque<(Open, OpenReply)>,
    /// libssh2 opens one channel at a time.
    opening: Option<Opening>,
    pinned: Option<Call>,
    /// When the dock gave its last sign of life.
    heard: Instant,
    /// The callers that wait for the next one, and since when.
    waiting: Vec<(Instant, OpenReply)>,
    pinging: bool,
    scratch: Vec<u8>,
    /// A buffer for reads from local ends.
    near: Vec<u8>,
    /// The socket had something to read, and no call has read it since.
    unread: bool,
    stopping: bool,
}

impl Loop {
    /// Carries bytes until the session is lost or not needed any more.
    pub(super) fn run(mut self) {
        intake::count(&self.session);
        // sshd sends small packets without delay only after a session channel has run something.
        self.queue.push_back((
            Open::Exec {
                line: Some("true".to_owned()),
                pty: None,
            },
            oneshot::channel().0,
        ));
        let reason = loop {
            match self.turn_once() {
                Ok(()) if self.stopping => break closed(),
                Ok(()) => {}
                Err(Lost(reason)) => break reason,
            }
        };
        self.end(reason);
    }

    fn end(mut self, reason: TransportError) {
        // First the reason: a reader that is woken by an end of file asks for it.
        self.inbox.fate.send_replace(Some(reason.clone()));
        if self.stopping && self.pinned.is_none() {
            // Best effort: a closing packet, which sshd logs as a clean end.
            let _ = self.session.disconnect(None, "done", None);
        }
        // So that no send blocks or is retried: libssh2 frees channels only when it can close them or the socket is
        // dead.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Some(reply) = self.opening.take().and_then(|opening| opening.reply) {
            let _ = reply.send(Err(OpenError::Lost(reason.clone())));
        }
        for (_, reply) in self.queue.drain(..) {
            let _ = reply.send(Err(OpenError::Lost(reason.clone())));
        }
        self.links.clear();
        self.listeners.clear();
        self.unwanted.clear();
    }

    fn turn_once(&mut self) -> Result<(), Lost> {
        self.hear_commands();
        if self.stopping {
            return Ok(());
        }
        match self.pinned.take() {
            Some(call) => {
                intake::begin_round();
                self.call(call)?;
                if self.pinned.is_some() {
                    // It may be the packet of a new key exchange, which is sent on by reading.
                    self.pump_step()?;
                }
                // Other channels may have waited, and packets for them may have been read.
                if self.pinned.is_none() {
                    return Ok(());
                }
            }
            None => {
                while self.pinned.is_none() && self.pass()? {
                    self.hear_commands();
                    if self.stopping {
                        return Ok(());
                    }
                    // Each pass reads from the transport: what it brings is a sign of life.
                }
            }
        }
        if self.pinned.is_none() {
            self.ask_for_life();
            if self.has_work() {
                return Ok(());
            }
        }
        self.wait()
    }

    /// Whether something can be called now that was not tried in the last pass.
    fn has_work(&self) -> bool {
        self.opening.is_none() && !self.queue.is_empty()
    }

    fn hear_commands(&mut self) {
        if std::mem::take(&mut self.roused) {
            self.inbox.rest();
        }
        // After the flag was reset, so that a command that comes now wakes the thread again.
        while let Some(command) = self.inbox.next() {
            match command {
                SessionCommand::Open(open, reply) => self.queue.push_back((open, reply)),
                SessionCommand::Life(reply) => {
                    self.waiting.push((Instant::now(), reply));
                    if !self.pinging {
                        self.pinging = true;
                        self.queue.push_back((Open::Ping, oneshot::channel().0));
                    }
                }
                SessionCommand::Resize(id, size) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.resize = Some(size);
                    }
                }
                SessionCommand::Drop(id, part) => self.dropped.push((id, part)),
                SessionCommand::StopListening(id) => {
                    if let Some(port) = self.listeners.get_mut(&id) {
                        port.leaving = true;
                    }
                }
                SessionCommand::Shutdown => self.stopping = true,
            }
        }
        // A call whose packet was sent in part is repeated as it was: what it is about must not end meanwhile, or the rest of
        // the packet would never go.
        if self.pinned.is_none() {
            for (id, part) in self.dropped.drain(..) {
                if let Some(link) = self.links.get_mut(&id) {
                    link.drop_part(part);
                }
            }
        }
    }

    /// Queues a ping when the dock is silent; after several silent intervals, it is considered dead.
    ///
    /// libssh2 reads packets only for a channel. So if no channel reads, and something has come (an end, too), a ping
    /// reads it.
    fn ask_for_life(&mut self) {
        if self.pinging || (!self.unread && self.heard.elapsed() < self.keepalive.interval) {
            return;
        }
        self.pinging = true;
        self.queue.push_back((Open::Ping, oneshot::channel().0));
    }

    /// Waits for bytes, room, commands, or the time of the next sign of life.
    fn wait(&mut self) -> Result<(), Lost> {
        let limit = self.keepalive.interval * self.keepalive.count.max(1);
        let silent = self.heard.elapsed();
        let due = if self.pinging || self.pinned.is_some() {
            limit
        } else {
            self.keepalive.interval
        };
        let timeout = due.saturating_sub(silent).max(Duration::from_millis(1));
        let socket_wants = match self.pinned {
            Some(_) => PollFlags::OUT,
            // The dock is told of these only where that needs no waiting.
            None if self.listeners.values().any(|port| port.leaving) => PollFlags::IN | PollFlags::OUT,
            None => PollFlags::IN,
        };
        let mut fds = Vec::with_capacity(2 + 2 * self.links.len());
        fds.push(PollFd::from_borrowed_fd(self.socket.as_fd(), socket_wants));
        fds.push(PollFd::new(self.inbox.woken(), PollFlags::IN));
        // While a call is pinned, nothing can be done for the local ends.
        if self.pinned.is_none() {
            for link in self.links.values() {
                add_near(&mut fds, link);
            }
        }
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            // Only after the socket was checked: this process may have been stopped for long, and the bytes may be
            // there.
            Ok(0) if silent >= limit => {
                let seconds = limit.as_secs();
                return Err(Lost(unreachable(format!(
                    "the link to {} is dead: nothing was heard for {seconds} s",
                    self.name
                ))));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Lost(unreachable(format!("cannot wait for {}: {error}", self.name)))),
        }
        let came = fds.first().map_or(PollFlags::empty(), PollFd::revents);
        self.roused = fds.get(1).is_some_and(|woken| !woken.revents().is_empty());
        self.unread = came.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        if !came.is_empty() {
            // That the socket can be written to says nothing about the dock.
            if came.intersects(PollFlags::IN) {
                for (since, reply) in self.waiting.drain(..) {
                    let _ = reply.send(Ok(Opened::Pong(since.elapsed())));
                }
            }
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// Tries everything once; true if something was done, so that more may be possible.
    fn pass(&mut self) -> Result<bool, Lost> {
        let mut progress = false;
        intake::begin_round();
        let before = intake::received();
        let listening: Vec<u64> = self.listeners.keys().copied().collect();
        for id in listening {
            progress |= self.call_unpinned(Call::Accept(id))?;
        }
        let ids: Vec<u64> = self
            .links
            .range(self.turn..)
            .chain(self.links.range(..self.turn))
            .map(|(id, _)| *id)
            .collect();
        // The next pass begins with the next channel.
        self.turn = ids.get(1).copied().unwrap_or(0);
        for id in ids {
            for call in [
                Call::Window(id),
                Call::Read { id, stderr: false },
                Call::Read { id, stderr: true },
                Call::Resize(id),
                Call::Write(id),
                Call::Eof(id),
                Call::Finish(id),
                Call::Close(id),
            ] {
                progress |= self.call_unpinned(call)?;
            }
        }
        progress |= self.call_unpinned(Call::Refuse)?;
        // Before others are asked for: one may be for the same port.
        progress |= self.call_unpinned(Call::StopListening)?;
        // Last: what was closed just now makes room under sshd's MaxSessions.
        progress |= self.call_unpinned(Call::Open)?;
        // What was read may be for a channel that had its turn before, or for no channel: an answer, more window.
        if intake::received() != before {
            self.heard = Instant::now();
            for (since, reply) in self.waiting.drain(..) {
                let _ = reply.send(Ok(Opened::Pong(since.elapsed())));
            }
            progress = true;
        }
        Ok(progress && self.pinned.is_none())
    }

    fn call_unpinned(&mut self, call: Call) -> Result<bool, Lost> {
        if self.pinned.is_some() {
            return Ok(false);
        }
        self.call(call)
    }

    /// Makes one call of libssh2, and pins it if its packet was sent in part. True if something was done.
    fn call(&mut self, call: Call) -> Result<bool, Lost> {
        let progress = match call {
            Call::Open => self.open_step()?,
            Call::Window(id) => self.window_step(id)?,
            Call::Read { id, stderr } => self.read_step(id, stderr)?,
            Call::Write(id) => self.write_step(id)?,
            Call::Eof(id) => self.eof_step(id)?,
            Call::Resize(id) => self.resize_step(id)?,
            Call::Finish(id) => self.finish_step(id)?,
            Call::Close(id) => self.close_step(id)?,
            Call::Accept(id) => self.accept_step(id)?,
            Call::Refuse => self.refuse_step()?,
            Call::StopListening => self.stop_listening_step()?,
        };
        if matches!(
            self.session.block_directions(),
            BlockDirections::Outbound | BlockDirections::Both
        ) {
            self.pinned = Some(call);
        }
        Ok(progress)
    }

    /// The outcome of a call: done, not now (`None`), or the session's end.
    fn outcome(&self, result: Result<(), ssh2::Error>) -> Result<Option<()>, Lost> {
        match result {
            Ok(()) => Ok(Some(())),
            Err(error) if is_eagain(&error) => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    fn lost(&self, error: &ssh2::Error) -> Lost {
        let what = match error.code() {
            // The socket was closed, or could not be read or written.
            ErrorCode::Session(-13 | -43 | -7) => "the connection was closed".to_owned(),
            _ => error.message().to_owned(),
        };
        Lost(unreachable(format!("the link to {} broke: {what}", self.name)))
    }

    /// The error behind an [`io::Error`] of a stream; `None` if it was only "not now".
    fn stream_error(&self, error: &io::Error) -> Option<ssh2::Error> {
        if error.kind() == io::ErrorKind::WouldBlock {
            return None;
        }
        Some(ssh2::Error::last_session_error(&self.session).unwrap_or_else(ssh2::Error::unknown))
    }

    /// Lets libssh2 read packets, for whichever channels they are.
    fn pump_step(&mut self) -> Result<bool, Lost> {
        let Some(link) = self.links.values().next() else {
            return Ok(false);
        };
        self.unread = false;
        match link.channel.stream(0).read(&mut []) {
            Ok(_) => {}
            Err(error) => {
                if let Some(error) = self.stream_error(&error) {
                    return Err(self.lost(&error));
                }
            }
        }
        Ok(false)
    }

    /// Widens the receive window again by what was used up.
    fn window_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.closing) else {
            return Ok(false);
        };
        let target = match link.bulk() {
            true => BULK_WINDOW,
            false => SMALL_WINDOW,
        };
        let more = link.widen.unwrap_or_else(|| {
            let remaining = link.channel.read_window().remaining;
            let low = LEAST_WINDOW.max(target / 4 * 3);
            if remaining < low { target - remaining } else { 0 }
        });
        if more == 0 {
            return Ok(false);
        }
        // Until it was sent, it is repeated unchanged.
        link.widen = Some(more);
        let result = link.channel.adjust_receive_window(more.into(), true).map(|_| ());
        let told = self.outcome(result)?.is_some();
        if let Some(link) = self.links.get_mut(&id)
            && told
        {
            link.widen = None;
        }
        Ok(told)
    }

    fn read_step(&mut self, id: u64, stderr: bool) -> Result<bool, Lost> {
        let Some(mut link) = self.links.remove(&id) else {
            return Ok(false);
        };
        let result = self.read_link(&mut link, stderr);
        self.links.insert(id, link);
        result
    }

    fn read_link(&mut self, link: &mut LinkedChannel, stderr: bool) -> Result<bool, Lost> {
        let LinkedChannel {
            channel,
            stdout,
            stderr: stderr_flow,
            far_ended,
            closing,
            ..
        } = link;
        let flow = if stderr {
            match stderr_flow {
                Some(flow) => flow,
                None => return Ok(false),
            }
        } else {
            stdout
        };
        let mut progress = flow.flush();
        if *closing || flow.ended {
            return Ok(progress | flow.finish());
        }
        // If the reader is blocked, nothing is taken, but the session's packets are read on, for the sake of the
        // others.
        let narrow = channel.read_window().remaining < LEAST_WINDOW;
        let size = if flow.is_blocked() || narrow { 0 } else { READ };
        let buffer = self.scratch.get_mut(..size).unwrap_or_default();
        let mut stream = if stderr { channel.stderr() } else { channel.stream(0) };
        self.unread = false;
        match stream.read(buffer) {
            // No bytes were requested.
            Ok(0) if size == 0 => {}
            Ok(0) if *far_ended => {
                flow.ended = true;
                flow.finish();
                progress = true;
            }
            // Perhaps only nothing came; it is the end if libssh2 has seen one.
            Ok(0) => {
                let ended = channel.wait_eof();
                if self.outcome(ended)?.is_some() {
                    *far_ended = true;
                    progress = true;
                }
            }
            Ok(count) => {
                flow.count += count as u64;
                flow.deliver(self.scratch.get(..count).unwrap_or_default());
                progress = true;
            }
            Err(error) => {
                if let Some(error) = self.stream_error(&error) {
                    return Err(self.lost(&error));
                }
            }
        }
        Ok(progress)
    }

    fn write_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(mut link) = self.links.remove(&id) else {
            return Ok(false);
        };
        let result = self.write_link(&mut link);
        self.links.insert(id, link);
        result
    }

    fn write_link(&mut self, link: &mut LinkedChannel) -> Result<bool, Lost> {
        let mut progress = false;
        for _ in 0..PACKETS {
            if link.wants_near() {
                progress |= take_near(link, &mut self.near);
            }
            let Some(rest) = link.outgoing.get(link.out_sent..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            // Without room, libssh2 would forget that a packet of its own waits to be sent on.
            if link.eof_sent || link.channel.write_window().remaining == 0 {
                break;
            }
            match link.channel.stream(0).write(rest) {
                Ok(0) => break,
                Ok(count) => {
                    link.out_sent += count;
                    progress = true;
                }
                Err(error) => match self.stream_error(&error) {
                    None => break,
                    // The channel was closed meanwhile; its end is seen by reading.
                    Some(error) if matches!(error.code(), ErrorCode::Session(-26 | -27)) => {
                        link.near_ended = true;
                        link.outgoing.clear();
                        link.out_sent = 0;
                        break;
                    }
                    Some(error) => return Err(self.lost(&error)),
                },
            }
        }
        Ok(progress)
    }

    fn eof_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        if link.eof_sent || link.closing || !link.near_ended || link.out_sent < link.outgoing.len() {
            return Ok(false);
        }
        let result = link.channel.send_eof();
        let sent = self.outcome(result)?.is_some();
        if let Some(link) = self.links.get_mut(&id) {
            link.eof_sent = sent;
            if sent && link.finishing {
                link.close_if_unwanted();
            }
        }
        Ok(sent)
    }

    fn resize_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        let Some(size) = link.resize.filter(|_| !link.closing && !link.far_closed) else {
            return Ok(false);
        };
        let result = link
            .channel
            .request_pty_size(size.columns.into(), size.rows.into(), None, None);
        let told = self.outcome(result)?.is_some();
        if let Some(link) = self.links.get_mut(&id)
            && told
            && link.resize == Some(size)
        {
            link.resize = None;
        }
        Ok(told)
    }

    /// Notices that the remote side has closed the channel, and reports how its command ended.
    fn finish_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        if link.closing || !link.far_ended {
            return Ok(false);
        }
        if !link.far_closed {
            let result = link.channel.wait_close();
            self.unread = false;
            if self.outcome(result)?.is_none() {
                // A stream whose both directions ended is over, even if the remote side does not close it.
                let Some(link) = self.links.get_mut(&id) else {
                    return Ok(false);
                };
                link.closing = link.exit.is_none() && link.eof_sent && link.all_delivered();
                return Ok(link.closing);
            }
        }
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(false);
        };
        link.far_closed = true;
        if !link.all_delivered() {
            return Ok(false);
        }
        if let Some(exit) = link.exit.take() {
            // The receiver may have gone.
            let _ = exit.send(exit_of(&link.channel));
        }
        link.closing = true;
        Ok(true)
    }

    fn close_step(&mut self, id: u64) -> Result<bool, Lost> {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.closing) else {
            return Ok(false);
        };
        let result = link.channel.close();
        self.unread = false;
        let closed = self.outcome(result)?.is_some();
        if closed {
            // It is freed without another packet: it is closed on both sides.
            self.links.remove(&id);
        }
        Ok(closed)
    }

    fn open_step(&mut self) -> Result<bool, Lost> {
        let mut opening = match self.opening.take() {
            Some(opening) => opening,
            None => {
                // A request whose caller has gone is opened, too, as our own look alike; the channel is closed later.
                let Some((open, reply)) = self.queue.pop_front() else {
                    return Ok(false);
                };
                Opening {
                    open,
                    reply: Some(reply),
                    since: Instant::now(),
                    stage: OpeningStage::Channel,
                }
            }
        };
        self.unread = false;
        if matches!(opening.open, Open::Listen { .. }) {
            return self.listen_step(opening);
        }
        let stage = std::mem::replace(&mut opening.stage, OpeningStage::Channel);
        match stage {
            OpeningStage::Channel => match self.open_channel(&opening.open) {
                Ok(channel) => {
                    opening.stage = match &opening.open {
                        Open::Exec { pty: Some(_), .. } => OpeningStage::Terminal(channel),
                        Open::Exec { .. } => OpeningStage::Start(channel),
                        Open::Socket(_) | Open::Tcp(..) => return self.opened(opening, channel),
                        Open::Ping | Open::Listen { .. } => OpeningStage::Close(channel),
                    };
                    self.opening = Some(opening);
                    Ok(true)
                }
                Err(error) if is_eagain(&error) => {
                    self.opening = Some(opening);
                    Ok(false)
                }
                Err(error) if error.code() == ErrorCode::Session(CHANNEL_FAILURE) => {
                    self.refused(opening, &error);
                    Ok(true)
                }
                Err(error) => {
                    self.opening = Some(opening);
                    Err(self.lost(&error))
                }
            },
            OpeningStage::Terminal(mut channel) => {
                let Open::Exec { pty: Some(pty), .. } = &opening.open else {
                    return Ok(false);
                };
                let size = (pty.size.columns.into(), pty.size.rows.into(), 0, 0);
                let result = channel.request_pty(&pty.term, None, Some(size));
                self.request_step(opening, channel, result, "a terminal", OpeningStage::Start)
            }
            OpeningStage::Start(mut channel) => {
                let result = match &opening.open {
                    Open::Exec { line: Some(line), .. } => channel.exec(line),
                    _ => channel.shell(),
                };
                match result {
                    Ok(()) => self.opened(opening, channel),
                    result => self.request_step(opening, channel, result, "to run a command", OpeningStage::Start),
                }
            }
            OpeningStage::Close(mut channel) => {
                let result = channel.close();
                match self.outcome(result)? {
                    Some(()) => Ok(true),
                    None => {
                        opening.stage = OpeningStage::Close(channel);
                        self.opening = Some(opening);
                        Ok(false)
                    }
                }
            }
        }
    }

    /// Goes on after a request on a channel that is being opened.
    fn request_step(
        &mut self,
        mut opening: Opening,
        channel: Channel,
        result: Result<(), ssh2::Error>,
        what: &'static str,
        next: fn(Channel) -> OpeningStage,
    ) -> Result<bool, Lost> {
        let denied = matches!(&result, Err(error) if error.code() == ErrorCode::Session(CHANNEL_REQUEST_DENIED));
        let again = matches!(&result, Err(error) if is_eagain(error));
        if denied {
            if let Some(reply) = opening.reply.take() {
                let _ = reply.send(Err(OpenError::Denied(what)));
            }
            opening.stage = OpeningStage::Close(channel);
        } else if again {
            opening.stage = match &opening.open {
                Open::Exec { pty: Some(_), .. } if what == "a terminal" => OpeningStage::Terminal(channel),
                _ => OpeningStage::Start(channel),
            };
        } else if let Err(error) = result {
            self.opening = Some(opening);
            return Err(self.lost(&error));
        } else {
            opening.stage = next(channel);
        }
        self.opening = Some(opening);
        Ok(!again)
    }

    fn open_channel(&self, open: &Open) -> Result<Channel, ssh2::Error> {
        match open {
            Open::Socket(path) => self.session.channel_direct_streamlocal(path, None),
            Open::Tcp(host, port) => self.session.channel_direct_tcpip(host, *port, None),
            Open::Exec { .. } => self.session.channel_session(),
            Open::Ping | Open::Listen { .. } => self.session.channel_open(PING, 0x8000, 0x8000, None),
        }
    }

    /// Has the dock listen (`tcpip-forward` of RFC 4254, 7.1).
    fn listen_step(&mut self, mut opening: Opening) -> Result<bool, Lost> {
        let Open::Listen {
            address,
            port,
            accepted,
        } = &opening.open
        else {
            return Ok(false);
        };
        let answer = match self.session.channel_forward_listen(*port, Some(address), Some(BACKLOG)) {
            Ok((listener, _)) => {
                let id = self.next;
                self.next += 1;
                let port = RemotePort {
                    listener,
                    accepted: accepted.clone(),
                    leaving: false,
                };
                self.listeners.insert(id, port);
                Ok(Opened::Listening(id))
            }
            Err(error) if is_eagain(&error) => {
                self.opening = Some(opening);
                return Ok(false);
            }
            Err(error) if error.code() == ErrorCode::Session(REQUEST_DENIED) => Err(OpenError::Denied("to listen")),
            Err(error) => {
                self.opening = Some(opening);
                return Err(self.lost(&error));
            }
        };
        let listening = match &answer {
            Ok(Opened::Listening(id)) => Some(*id),
            _ => None,
        };
        let told = opening.reply.take().is_some_and(|reply| reply.send(answer).is_ok());
        if !told && let Some(port) = listening.and_then(|id| self.listeners.get_mut(&id)) {
            // The caller has gone.
            port.leaving = true;
        }
        Ok(true)
    }

    /// Takes a connection that came in at a port that the dock listens on.
    fn accept_step(&mut self, id: u64) -> Result<bool, Lost> {
        // What waits to be refused is up to the dock: libssh2 refuses what comes while it is much.
        let is_full = self.unwanted.len() >= BACKLOG as usize;
        let Some(port) = self.listeners.get_mut(&id).filter(|port| !port.leaving && !is_full) else {
            return Ok(false);
        };
        match port.listener.accept() {
            Ok(channel) => {
                self.unread = false;
                self.accept(id, channel);
                Ok(true)
            }
            Err(error) => {
                // All other errors say only that no packet was read: the call that comes next knows why.
                if is_eagain(&error) {
                    self.unread = false;
                }
                Ok(false)
            }
        }
    }

    /// Hands the end of such a connection out; one too many is closed.
    fn accept(&mut self, id: u64, channel: Channel) {
        let accepted = self.links.values().filter(|link| link.accepted).count();
        let place = match self.listeners.get(&id) {
            Some(port) if accepted < ACCEPTED => port.accepted.try_reserve().ok(),
            _ => None,
        };
        let (Some(place), Ok((stdout, stream))) = (place, Flow::new()) else {
            return self.unwanted.push(channel);
        };
        let id = self.next;
        self.next += 1;
        place.send(Ends {
            id,
            stream,
            stream_end: Arc::clone(&stdout.clean),
            exec: None,
        });
        let link = LinkedChannel {
            accepted: true,
            ..LinkedChannel::new(channel, stdout)
        };
        self.links.insert(id, link);
    }

    fn refuse_step(&mut self) -> Result<bool, Lost> {
        let Some(channel) = self.unwanted.first_mut() else {
            return Ok(false);
        };
        let result = channel.close();
        self.unread = false;
        let closed = self.outcome(result)?.is_some();
        if closed {
            self.unwanted.remove(0);
        }
        Ok(closed)
    }

    /// Has the dock listen no longer at a port that nobody needs any more.
    ///
    /// The ssh2 crate makes this call when the listener is dropped, and forgets it even if it could not be finished. So
    /// it is made where it can be: when nothing else is on its way, there is room to send, and nothing waits to be
    /// taken; and it waits, if it must (for a new key exchange).
    fn stop_listening_step(&mut self) -> Result<bool, Lost> {
        let Some((&id, port)) = self.listeners.iter_mut().find(|(_, port)| port.leaving) else {
            return Ok(false);
        };
        while let Ok(channel) = port.listener.accept() {
            self.unwanted.push(channel);
            if self.unwanted.len() > UNWANTED {
                return Err(Lost(unreachable(format!(
                    "{} opens channels without an end: the link was dropped",
                    self.name
                ))));
            }
        }
        let is_sending = matches!(
            self.session.block_directions(),
            BlockDirections::Outbound | BlockDirections::Both
        );
        let mut socket = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::OUT)];
        let has_room = poll(&mut socket, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        if is_sending || !has_room {
            return Ok(false);
        }
        self.session
            .set_timeout(u32::try_from(STOP_LISTENING.as_millis()).unwrap_or(u32::MAX));
        self.session.set_blocking(true);
        intake::set_waiting(true);
        drop(self.listeners.remove(&id));
        intake::set_waiting(false);
        self.session.set_blocking(false);
        self.session.set_timeout(0);
        match ssh2::Error::last_session_error(&self.session) {
            Some(error) if error.code() == ErrorCode::Session(TIMEOUT) => Err(Lost(unreachable(format!(
                "the link to {} is dead: it did not take back a port within {} s",
                self.name,
                STOP_LISTENING.as_secs()
            )))),
            _ => Ok(true),
        }
    }

    fn refused(&mut self, mut opening: Opening, error: &ssh2::Error) {
        let Some(reply) = opening.reply.take() else { return };
        let answer = match &opening.open {
            Open::Ping => {
                self.pinging = false;
                Ok(Opened::Pong(opening.since.elapsed()))
            }
            _ if error.message().contains("administratively prohibited") => Err(OpenError::Prohibited),
            _ => Err(OpenError::Failed(error.message().to_owned())),
        };
        let _ = reply.send(answer);
    }

    /// Hands the ends of a channel out.
    fn opened(&mut self, mut opening: Opening, channel: Channel) -> Result<bool, Lost> {
        let is_exec = matches!(opening.open, Open::Exec { .. });
        let pairs = Flow::new().and_then(|stdout| {
            let stderr = if is_exec { Some(Flow::new()?) } else { None };
            Ok((stdout, stderr))
        });
        let ((stdout, stream), stderr) = match pairs {
            Ok(pairs) => pairs,
            Err(error) => {
                if let Some(reply) = opening.reply.take() {
                    let _ = reply.send(Err(OpenError::Failed(format!("no socket pair: {error}"))));
                }
                opening.stage = OpeningStage::Close(channel);
                self.opening = Some(opening);
                return Ok(true);
            }
        };
        let id = self.next;
        self.next += 1;
        let stream_end = Arc::clone(&stdout.clean);
        let (stderr, exec, exit) = match stderr {
            None => (None, None, None),
            Some((mut flow, stderr)) => {
                // A terminal has all output in one stream.
                flow.ended = matches!(&opening.open, Open::Exec { pty: Some(_), .. });
                flow.finish();
                let (exit, ended) = oneshot::channel();
                let ends = ExecEnds {
                    stderr,
                    stderr_end: Arc::clone(&flow.clean),
                    exit: ended,
                };
                (Some(flow), Some(ends), Some(exit))
            }
        };
        let mut link = LinkedChannel {
            stderr,
            exit,
            ..LinkedChannel::new(channel, stdout)
        };
        let ends = Ends {
            id,
            stream,
            stream_end,
            exec,
        };
        let reply = opening.reply.take();
        if reply.is_none_or(|reply| reply.send(Ok(Opened::Channel(ends))).is_err()) {
            // The caller has gone. The output is thrown away.
            for part in [ChannelPart::Stream, ChannelPart::Stderr] {
                link.drop_part(part);
            }
        }
        self.links.insert(id, link);
        Ok(true)
    }
}

/// Reads bytes to be sent from the local side, through `buffer`; true if something came.
fn take_near(link: &mut LinkedChannel, buffer: &mut [u8]) -> bool {
    link.out_sent = 0;
    link.outgoing.clear();
    loop {
        match (&link.stdout.local).read(buffer) {
            Ok(0) => {
                link.outgoing = Vec::new();
                link.near_ended = true;
                return true;
            }
            Ok(count) => {
                link.outgoing.extend_from_slice(buffer.get(..count).unwrap_or_default());
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                link.outgoing = Vec::new();
                link.near_ended = error.kind() != io::ErrorKind::WouldBlock;
                return link.near_ended;
            }
        }
    }
}

/// Adds what is awaited of a channel's local ends. An end for which nothing is awaited is left out: otherwise poll
/// would report for ever that its peer is gone.
fn add_near<'a>(fds: &mut Vec<PollFd<'a>>, link: &'a LinkedChannel) {
    let mut wants = PollFlags::empty();
    wants.set(PollFlags::IN, link.wants_near());
    wants.set(PollFlags::OUT, link.stdout.is_blocked());
    let mut add = |fd: BorrowedFd<'a>, wants: PollFlags| {
        if !wants.is_empty() {
            fds.push(PollFd::from_borrowed_fd(fd, wants));
        }
    };
    add(link.stdout.local.as_fd(), wants);
    if let Some(stderr) = link.stderr.as_ref().filter(|stderr| stderr.is_blocked()) {
        add(stderr.local.as_fd(), PollFlags::OUT);
    }
}

fn is_eagain(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(EAGAIN)
}

/// How the command of a closed channel ended.
fn exit_of(channel: &Channel) -> Exit {
    if let Ok(signal) = channel.exit_signal()
        && let Some(name) = signal.exit_signal
    {
        return Exit::Signal(name);
    }
    // What does not fit into a byte is not an exit code of any system that we reach.
    let code = channel.exit_status().unwrap_or(255);
    Exit::Code(u8::try_from(code & 0xff).unwrap_or(255))
}
