//! The channels of a session that OpenSSH's client holds: the connection protocol of ssh (RFC 4254), in the clear, over
//! the client's control socket. The client encrypts, and replaces our channel numbers with its own (`ssh -O proxy`,
//! PROTOCOL.mux of OpenSSH).
//!
//! One thread speaks it, as with libssh2, and hands out the same kind of ends.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dock_client::agent::target::{Exit, Pty, Size};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::oneshot;

use super::super::flow::Flow;
use super::super::handle::{
    ChannelPart, Ends, ExecEnds, Inbox, Open, OpenError, OpenReply, Opened, SessionCommand, closed, unreachable,
};
use super::Master;
use super::wire::{MessageReader, MessageWriter};

const OPEN: u8 = 90;
const OPEN_CONFIRMATION: u8 = 91;
const OPEN_FAILURE: u8 = 92;
const WINDOW_ADJUST: u8 = 93;
const DATA: u8 = 94;
const EXTENDED_DATA: u8 = 95;
const EOF: u8 = 96;
const CLOSE: u8 = 97;
const REQUEST: u8 = 98;
const SUCCESS: u8 = 99;
const FAILURE: u8 = 100;

/// The reason of a refusal by sshd's configuration (`SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`).
const PROHIBITED: u32 = 1;
/// The kind of extended data that is stderr.
const STDERR: u32 = 1;

/// The receive window of most channels.
const WINDOW: u32 = 2 * 1024 * 1024;
/// The receive window of a channel that has brought [`BULK`] bytes.
const BULK_WINDOW: u32 = 10 * 1024 * 1024;
/// A channel that has brought more bytes than this carries bulk.
const BULK: u64 = 1024 * 1024;
/// The largest packet in either direction: what OpenSSH takes.
const PACKET: u32 = 32 * 1024;
/// How many packets a channel sends before it is the turn of the others.
const PACKETS: usize = 8;
/// How many bytes may wait for the client; it sends no faster than the network.
const OUTGOING: usize = 1024 * 1024;
/// How many bytes are read from the client at once.
const READ: usize = 256 * 1024;
/// The longest message of the client, in bytes.
const MESSAGE: usize = 512 * 1024;
/// How long a channel may still take to open when its caller has gone.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// The request on a channel whose answer is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelRequest {
    Channel,
    Terminal,
    Start,
}

/// A channel that is not handed out yet.
struct Opening {
    open: Open,
    reply: OpenReply,
    since: Instant,
    asked: ChannelRequest,
}

/// A channel, from its opening until both sides have closed it.
struct Channel {
    opening: Option<Opening>,
    /// The remote side's number for it.
    remote: u32,
    /// How many bytes the remote side takes now.
    window: u32,
    /// How many bytes it takes in one packet.
    packet: u32,
    /// How many bytes the remote side may still send.
    granted: u32,
    flows: Option<Flows>,
    /// We have closed it: nothing more is sent.
    closed: bool,
    /// The remote side has closed it.
    far_closed: bool,
}

/// The local ends of a channel that was handed out.
struct Flows {
    stdout: Flow,
    stderr: Option<Flow>,
    exit: Option<oneshot::Sender<Exit>>,
    /// How the command ended, as the remote side reported.
    ended: Option<Exit>,
    /// The local side sends no more.
    near_ended: bool,
    eof_sent: bool,
    /// What was written is still to be sent, though nobody reads.
    finishing: bool,
    /// No part of it is needed any more.
    unwanted: bool,
}

impl Flows {
    fn all(&mut self) -> impl Iterator<Item = &mut Flow> {
        std::iter::once(&mut self.stdout).chain(self.stderr.as_mut())
    }

    fn kept(&self) -> usize {
        self.stdout.kept() + self.stderr.as_ref().map_or(0, Flow::kept)
    }

    fn count(&self) -> u64 {
        self.stdout.count + self.stderr.as_ref().map_or(0, |stderr| stderr.count)
    }

    fn all_delivered(&self) -> bool {
        let over = |flow: &Flow| flow.done || flow.discarded;
        over(&self.stdout) && self.stderr.as_ref().is_none_or(over)
    }

    fn drop_part(&mut self, part: ChannelPart) {
        match part {
            ChannelPart::Stream => {
                self.stdout.discard();
                self.near_ended = true;
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
        let deaf = self.stdout.discarded && self.stderr.as_ref().is_none_or(|stderr| stderr.discarded);
        self.unwanted |= deaf && self.exit.is_none() && !self.finishing;
    }
}

impl Channel {
    fn wants_near(&self) -> bool {
        let open = !self.closed && !self.far_closed && self.window > 0;
        open && self.flows.as_ref().is_some_and(|flows| !flows.near_ended)
    }
}

/// The thread's side of a session that OpenSSH's client holds.
pub(in super::super) struct Loop {
    socket: UnixStream,
    master: Master,
    inbox: Inbox,
    /// The inbox has woken the thread.
    roused: bool,
    channels: BTreeMap<u32, Channel>,
    /// The number of the next channel. The handle uses the same numbers.
    next: u32,
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    scratch: Vec<u8>,
    /// The callers that wait for a sign of life, and since when.
    waiting: Vec<(Instant, OpenReply)>,
    stopping: bool,
}

/// Why the loop ends.
struct Lost(String);

impl Loop {
    /// `socket` speaks the protocol from its first byte on.
    pub(super) fn new(socket: UnixStream, master: Master, inbox: Inbox) -> Self {
        Self {
            socket,
            master,
            inbox,
            roused: false,
            channels: BTreeMap::new(),
            next: 0,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            scratch: vec![0; READ],
            waiting: Vec::new(),
            stopping: false,
        }
    }

    /// Carries bytes until the session is lost or not needed any more.
    pub(in super::super) fn run(mut self) {
        let reason = loop {
            match self.turn() {
                Ok(()) if self.stopping => break closed(),
                Ok(()) => {}
                Err(Lost(what)) => {
                    let said = self.master.said();
                    let what = if said.is_empty() { what } else { said };
                    break unreachable(format!("the link to {} broke: {what}", self.master.name));
                }
            }
        };
        // First the reason: a reader that is woken by an end of file asks for it.
        self.inbox.fate.send_replace(Some(reason.clone()));
        for channel in std::mem::take(&mut self.channels).into_values() {
            if let Some(opening) = channel.opening {
                // The caller may have gone.
                let _ = opening.reply.send(Err(OpenError::Lost(reason.clone())));
            }
        }
    }

    fn turn(&mut self) -> Result<(), Lost> {
        self.hear_commands()?;
        if self.stopping {
            return Ok(());
        }
        self.receive()?;
        let numbers: Vec<u32> = self.channels.keys().copied().collect();
        for number in numbers {
            self.tend(number);
        }
        self.send()?;
        self.wait()
    }

    fn hear_commands(&mut self) -> Result<(), Lost> {
        if std::mem::take(&mut self.roused) {
            self.inbox.rest();
        }
        // After that, so that a command that comes now wakes the thread again.
        while let Some(command) = self.inbox.next() {
            match command {
                SessionCommand::Open(open, reply) => self.open(open, reply)?,
                SessionCommand::Life(reply) => {
                    self.waiting.push((Instant::now(), reply));
                    let mut openings = self.channels.values().filter_map(|channel| channel.opening.as_ref());
                    if !openings.any(|opening| matches!(opening.open, Open::Ping)) {
                        self.open(Open::Ping, oneshot::channel().0)?;
                    }
                }
                SessionCommand::Resize(id, size) => self.resize(id, size),
                SessionCommand::Drop(id, part) => {
                    if let Some(flows) = self.flows(id) {
                        flows.drop_part(part);
                    }
                }
                // It never listens.
                SessionCommand::StopListening(_) => {}
                SessionCommand::Shutdown => self.stopping = true,
            }
        }
        Ok(())
    }

    fn flows(&mut self, id: u64) -> Option<&mut Flows> {
        let number = u32::try_from(id).ok()?;
        self.channels.get_mut(&number)?.flows.as_mut()
    }

    fn resize(&mut self, id: u64, size: Size) {
        let number = u32::try_from(id).ok();
        let Some(channel) = number.and_then(|number| self.channels.get(&number)) else {
            return;
        };
        if !channel.closed && channel.flows.is_some() {
            let message = MessageWriter::packet(REQUEST)
                .number(channel.remote)
                .string("window-change");
            let message = sized(message.byte(0), size);
            self.outgoing.extend(message.framed());
        }
    }

    fn open(&mut self, open: Open, reply: OpenReply) -> Result<(), Lost> {
        if matches!(open, Open::Listen { .. }) {
            // The client passes the request on, and has none for taking it back (`channel_proxy_downstream`).
            let _ = reply.send(Err(OpenError::Unsupported));
            return Ok(());
        }
        // Numbers of channels that still exist are not reused.
        while self.channels.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let kind = match &open {
            Open::Socket(_) => "direct-streamlocal@openssh.com",
            Open::Tcp(..) => "direct-tcpip",
            // A session that runs nothing is a sign of life. A refusal would be one, too; but OpenSSH's client keeps a
            // little memory of each refused channel for ever, so a channel of an unknown type can't be used for that.
            Open::Exec { .. } | Open::Listen { .. } | Open::Ping => "session",
        };
        let message = MessageWriter::packet(OPEN)
            .string(kind)
            .number(number)
            .number(WINDOW)
            .number(PACKET);
        let message = match &open {
            Open::Socket(path) => message.string(path).string("").number(0),
            Open::Tcp(host, port) => message
                .string(host)
                .number(u32::from(*port))
                .string("127.0.0.1")
                .number(0),
            Open::Exec { .. } | Open::Listen { .. } | Open::Ping => message,
        };
        self.outgoing.extend(message.framed());
        let channel = Channel {
            opening: Some(Opening {
                open,
                reply,
                since: Instant::now(),
                asked: ChannelRequest::Channel,
            }),
            remote: 0,
            window: 0,
            packet: PACKET,
            granted: WINDOW,
            flows: None,
            closed: false,
            far_closed: false,
        };
        self.channels.insert(number, channel);
        Ok(())
    }

    /// Reads what the client has sent, and acts on it.
    fn receive(&mut self) -> Result<(), Lost> {
        match self.socket.read(&mut self.scratch) {
            Ok(0) => return Err(Lost("OpenSSH's client has ended".to_owned())),
            Ok(count) => {
                let came = self.scratch.get(..count).unwrap_or_default();
                self.incoming.extend_from_slice(came);
                for (since, reply) in self.waiting.drain(..) {
                    // The caller may have gone.
                    let _ = reply.send(Ok(Opened::Pong(since.elapsed())));
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(Lost(error.to_string())),
        }
        let incoming = std::mem::take(&mut self.incoming);
        let mut rest = MessageReader(&incoming);
        loop {
            let mut ahead = rest;
            match ahead.number() {
                Some(length) if length as usize > MESSAGE => {
                    return Err(Lost("OpenSSH's client sent nonsense".to_owned()));
                }
                Some(_) => {}
                None => break,
            }
            let Some(message) = rest.string() else { break };
            self.hear(MessageReader(message))?;
        }
        self.incoming = rest.0.to_vec();
        Ok(())
    }

    /// Handles one packet of the remote side.
    fn hear(&mut self, mut fields: MessageReader<'_>) -> Result<(), Lost> {
        let nonsense = || Lost("OpenSSH's client passed on nonsense".to_owned());
        let _padding = fields.byte();
        let kind = fields.byte().ok_or_else(nonsense)?;
        let number = fields.number().ok_or_else(nonsense)?;
        let Some(mut channel) = self.channels.remove(&number) else {
            // A last message on a channel that is over.
            return Ok(());
        };
        let understood = match kind {
            OPEN_CONFIRMATION => self.confirmed(&mut channel, number, fields),
            OPEN_FAILURE => {
                let (reason, text) = (fields.number(), fields.text());
                if let Some(opening) = channel.opening.take() {
                    let _ = opening.reply.send(refused(&opening.open, opening.since, reason, text));
                }
                // The channel was never open.
                return Ok(());
            }
            WINDOW_ADJUST => fields
                .number()
                .map(|more| channel.window = channel.window.saturating_add(more)),
            DATA => fields.string().and_then(|bytes| came(&mut channel, bytes, false)),
            EXTENDED_DATA => {
                let kind = fields.number();
                fields
                    .string()
                    .and_then(|bytes| came(&mut channel, bytes, kind == Some(STDERR)))
            }
            EOF | CLOSE => {
                end(&mut channel);
                channel.far_closed |= kind == CLOSE;
                Some(())
            }
            REQUEST => self.requested(&mut channel, fields),
            SUCCESS | FAILURE => {
                self.answered(&mut channel, number, kind == SUCCESS);
                Some(())
            }
            _ => Some(()),
        };
        self.channels.insert(number, channel);
        understood.ok_or_else(nonsense)
    }

    fn confirmed(&mut self, channel: &mut Channel, number: u32, mut fields: MessageReader<'_>) -> Option<()> {
        channel.remote = fields.number()?;
        channel.window = fields.number()?;
        channel.packet = fields.number()?.clamp(1, PACKET);
        let Some(opening) = &channel.opening else {
            return Some(());
        };
        match &opening.open {
            Open::Ping => {
                let took = opening.since.elapsed();
                if let Some(opening) = channel.opening.take() {
                    let _ = opening.reply.send(Ok(Opened::Pong(took)));
                }
                self.close(channel);
            }
            Open::Socket(_) | Open::Tcp(..) => self.hand_out(channel, number),
            Open::Exec { .. } => self.ask(channel),
            // It was declined before.
            Open::Listen { .. } => {}
        }
        Some(())
    }

    /// Sends the next request that an opened session needs: a terminal, then its command.
    fn ask(&mut self, channel: &mut Channel) {
        let Some(opening) = &mut channel.opening else { return };
        let Open::Exec { line, pty } = &opening.open else {
            return;
        };
        let request = |name: &str| {
            MessageWriter::packet(REQUEST)
                .number(channel.remote)
                .string(name)
                .byte(1)
        };
        let message = match (pty, line) {
            (Some(Pty { term, size }), _) if opening.asked == ChannelRequest::Channel => {
                opening.asked = ChannelRequest::Terminal;
                // No modes: the remote system's defaults.
                sized(request("pty-req").string(term), *size).string([0_u8])
            }
            (_, Some(line)) => {
                opening.asked = ChannelRequest::Start;
                request("exec").string(line)
            }
            (_, None) => {
                opening.asked = ChannelRequest::Start;
                request("shell")
            }
        };
        self.outgoing.extend(message.framed());
    }

    fn answered(&mut self, channel: &mut Channel, number: u32, yes: bool) {
        let Some(opening) = &channel.opening else { return };
        let denied = match (opening.asked, yes) {
            (ChannelRequest::Channel, _) => return,
            (ChannelRequest::Terminal, true) => return self.ask(channel),
            (ChannelRequest::Start, true) => return self.hand_out(channel, number),
            (ChannelRequest::Terminal, false) => "a terminal",
            (ChannelRequest::Start, false) => "to run a command",
        };
        if let Some(opening) = channel.opening.take() {
            let _ = opening.reply.send(Err(OpenError::Denied(denied)));
        }
        self.close(channel);
    }

    /// Handles a request of the remote side on a channel; only how a command ended is of interest.
    fn requested(&mut self, channel: &mut Channel, mut fields: MessageReader<'_>) -> Option<()> {
        let name = fields.string()?;
        let wants_answer = fields.byte()? != 0;
        if let Some(flows) = &mut channel.flows {
            match name {
                b"exit-status" => {
                    // What does not fit into a byte is not an exit code of any system that we reach.
                    let code = u8::try_from(fields.number()? & 0xff).unwrap_or(255);
                    flows.ended = Some(Exit::Code(code));
                }
                b"exit-signal" => flows.ended = Some(Exit::Signal(fields.text()?)),
                _ => {}
            }
        }
        if wants_answer && !channel.closed {
            let answer = MessageWriter::packet(FAILURE).number(channel.remote);
            self.outgoing.extend(answer.framed());
        }
        Some(())
    }

    /// Gives the ends of a channel to the caller that asked for it.
    fn hand_out(&mut self, channel: &mut Channel, number: u32) {
        let Some(opening) = channel.opening.take() else { return };
        let made = Flow::new().and_then(|stdout| match &opening.open {
            Open::Exec { pty, .. } => Ok((stdout, Some((Flow::new()?, pty.is_some())))),
            _ => Ok((stdout, None)),
        });
        let ((stdout, stream), stderr) = match made {
            Ok(made) => made,
            Err(error) => {
                let why = format!("no socket pair: {error}");
                let _ = opening.reply.send(Err(OpenError::Failed(why)));
                return self.close(channel);
            }
        };
        let (exit, exited) = oneshot::channel();
        let (stderr, exec, exit) = match stderr {
            None => (None, None, None),
            Some(((mut flow, given), is_terminal)) => {
                // A terminal has all output in one stream.
                flow.ended = is_terminal;
                flow.finish();
                let ends = ExecEnds {
                    stderr: given,
                    stderr_end: Arc::clone(&flow.clean),
                    exit: exited,
                };
                (Some(flow), Some(ends), Some(exit))
            }
        };
        let ends = Ends {
            id: u64::from(number),
            stream,
            stream_end: Arc::clone(&stdout.clean),
            exec,
        };
        let mut flows = Flows {
            stdout,
            stderr,
            exit,
            ended: None,
            near_ended: false,
            eof_sent: false,
            finishing: false,
            unwanted: false,
        };
        if opening.reply.send(Ok(Opened::Channel(ends))).is_err() {
            // The caller has gone. The output is thrown away.
            for part in [ChannelPart::Stream, ChannelPart::Stderr] {
                flows.drop_part(part);
            }
        }
        channel.flows = Some(flows);
    }

    fn close(&mut self, channel: &mut Channel) {
        if !std::mem::replace(&mut channel.closed, true) {
            let message = MessageWriter::packet(CLOSE).number(channel.remote);
            self.outgoing.extend(message.framed());
        }
    }

    /// Moves a channel's bytes on, in both directions, and checks whether it is over.
    fn tend(&mut self, number: u32) {
        let Some(mut channel) = self.channels.remove(&number) else {
            return;
        };
        if let Some(flows) = &mut channel.flows {
            for flow in flows.all() {
                flow.flush();
                flow.finish();
            }
        }
        self.widen(&mut channel);
        self.take_near(&mut channel);
        if self.settle(&mut channel) {
            self.channels.insert(number, channel);
        }
    }

    /// Lets the remote side send more, as far as its earlier bytes were taken.
    fn widen(&mut self, channel: &mut Channel) {
        let Some(flows) = channel
            .flows
            .as_ref()
            .filter(|_| !channel.closed && !channel.far_closed)
        else {
            return;
        };
        let full = if flows.count() > BULK { BULK_WINDOW } else { WINDOW };
        let kept = u32::try_from(flows.kept()).unwrap_or(u32::MAX);
        let target = full.saturating_sub(kept);
        let more = target.saturating_sub(channel.granted);
        if more > full / 4 {
            channel.granted += more;
            let message = MessageWriter::packet(WINDOW_ADJUST).number(channel.remote).number(more);
            self.outgoing.extend(message.framed());
        }
    }

    /// Sends what the local side has.
    fn take_near(&mut self, channel: &mut Channel) {
        for _ in 0..PACKETS {
            if !channel.wants_near() || self.outgoing.len() > OUTGOING {
                break;
            }
            let Some(flows) = &mut channel.flows else { break };
            let room = channel.window.min(channel.packet) as usize;
            let buffer = self.scratch.get_mut(..room).unwrap_or_default();
            match (&flows.stdout.local).read(buffer) {
                Ok(0) => flows.near_ended = true,
                Ok(count) => {
                    channel.window -= u32::try_from(count).unwrap_or(channel.window);
                    let bytes = self.scratch.get(..count).unwrap_or_default();
                    let message = MessageWriter::packet(DATA).number(channel.remote).string(bytes);
                    self.outgoing.extend(message.framed());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    flows.near_ended = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        if let Some(flows) = &mut channel.flows
            && flows.near_ended
            && !channel.closed
            && !std::mem::replace(&mut flows.eof_sent, true)
        {
            let message = MessageWriter::packet(EOF).number(channel.remote);
            self.outgoing.extend(message.framed());
        }
    }

    /// Closes the channel if it is over; false when both sides have closed it.
    fn settle(&mut self, channel: &mut Channel) -> bool {
        if let Some(flows) = &mut channel.flows {
            let is_over = match flows.exit {
                // The remote side reports how the command ended before it closes the channel.
                Some(_) => channel.far_closed,
                // A stream whose both directions ended is over, even if the remote side does not close it.
                None => channel.far_closed || flows.eof_sent,
            };
            let is_over = (is_over && flows.all_delivered()) || flows.unwanted;
            if is_over {
                if let Some(exit) = flows.exit.take() {
                    // The receiver may have gone.
                    let _ = exit.send(flows.ended.take().unwrap_or(Exit::Code(255)));
                }
                self.close(channel);
            }
        } else if channel.far_closed {
            if let Some(opening) = channel.opening.take() {
                let why = "sshd closed the session before it ran anything".to_owned();
                let _ = opening.reply.send(Err(OpenError::Failed(why)));
            }
            self.close(channel);
        } else if channel
            .opening
            .as_ref()
            .is_some_and(|opening| opening.reply.is_closed() && opening.since.elapsed() > GIVEN_UP)
        {
            return false;
        }
        !(channel.closed && channel.far_closed)
    }

    fn send(&mut self) -> Result<(), Lost> {
        while !self.outgoing.is_empty() {
            let (first, _) = self.outgoing.as_slices();
            match self.socket.write(first) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What the client sent before is still to be read; then its end is seen.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.outgoing.clear();
                }
                Err(error) => return Err(Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// Waits for bytes, room or commands.
    fn wait(&mut self) -> Result<(), Lost> {
        let mut wants = PollFlags::IN;
        wants.set(PollFlags::OUT, !self.outgoing.is_empty());
        let mut fds = Vec::with_capacity(2 + 2 * self.channels.len());
        fds.push(PollFd::from_borrowed_fd(self.socket.as_fd(), wants));
        fds.push(PollFd::new(self.inbox.woken(), PollFlags::IN));
        let has_room = self.outgoing.len() <= OUTGOING;
        for channel in self.channels.values() {
            let Some(flows) = &channel.flows else { continue };
            let mut near = PollFlags::empty();
            near.set(PollFlags::IN, has_room && channel.wants_near());
            near.set(PollFlags::OUT, flows.stdout.is_blocked());
            // An end for which nothing is awaited is left out: otherwise poll would report for ever that its peer is
            // gone.
            if !near.is_empty() {
                fds.push(PollFd::from_borrowed_fd(flows.stdout.local.as_fd(), near));
            }
            if let Some(stderr) = flows.stderr.as_ref().filter(|stderr| stderr.is_blocked()) {
                fds.push(PollFd::from_borrowed_fd(stderr.local.as_fd(), PollFlags::OUT));
            }
        }
        let rest = Timespec::try_from(GIVEN_UP).ok();
        match poll(&mut fds, rest.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Lost(error.to_string())),
        }
        self.roused = fds.get(1).is_some_and(|woken| !woken.revents().is_empty());
        Ok(())
    }
}

/// Takes bytes of the remote side for the reader.
fn came(channel: &mut Channel, bytes: &[u8], is_stderr: bool) -> Option<()> {
    // A peer that sends more than it may (RFC 4254, 5.2) would make us keep any amount of it.
    channel.granted = channel.granted.checked_sub(u32::try_from(bytes.len()).ok()?)?;
    let Some(flows) = &mut channel.flows else {
        return Some(());
    };
    let flow = match (is_stderr, &mut flows.stderr) {
        (true, Some(stderr)) => stderr,
        (true, None) => return Some(()),
        (false, _) => &mut flows.stdout,
    };
    flow.count += bytes.len() as u64;
    // Bytes after an end, or for a reader that has gone, are dropped.
    if !flow.ended && !flow.discarded {
        flow.add(bytes);
    }
    Some(())
}

/// The remote side sends no more.
fn end(channel: &mut Channel) {
    if let Some(flows) = &mut channel.flows {
        for flow in flows.all() {
            flow.ended = true;
        }
    }
}

fn sized(message: MessageWriter, size: Size) -> MessageWriter {
    message
        .number(u32::from(size.columns))
        .number(u32::from(size.rows))
        .number(0)
        .number(0)
}

/// The answer for a caller whose channel the remote side does not open.
fn refused(open: &Open, since: Instant, reason: Option<u32>, text: Option<String>) -> Result<Opened, OpenError> {
    match (open, reason) {
        // A server that is full is alive.
        (Open::Ping, _) => Ok(Opened::Pong(since.elapsed())),
        (_, Some(PROHIBITED)) => Err(OpenError::Prohibited),
        // The text comes from the dock: it must not move the cursor.
        _ => Err(OpenError::Failed(super::super::auth::printable(
            &text.unwrap_or_default(),
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;
    use std::sync::Mutex;
    use std::thread::{self, JoinHandle};

    use super::super::super::handle::{Handle, sides};
    use super::*;

    /// OpenSSH's client and sshd behind it, as the test plays them.
    struct Far {
        socket: UnixStream,
        handle: Handle,
        looped: JoinHandle<()>,
    }

    impl Far {
        fn new() -> Self {
            let (socket, theirs) = UnixStream::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (handle, inbox) = sides().unwrap();
            let looped = thread::spawn(move || {
                // Something that ends when it is told to.
                let child = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
                let master = Master {
                    child,
                    said: Arc::new(Mutex::default()),
                    name: "ann@dock".to_owned(),
                };
                Loop::new(theirs, master, inbox).run();
            });
            Self { socket, handle, looped }
        }

        fn open(&self, open: Open) -> JoinHandle<Result<Opened, OpenError>> {
            let opening = self.handle.opening(open);
            thread::spawn(move || opening.blocking_recv().unwrap())
        }

        /// The fields of the next packet, which must be of this kind.
        fn hear(&mut self, kind: u8) -> Vec<u8> {
            let mut length = [0; 4];
            self.socket.read_exact(&mut length).unwrap();
            let mut packet = vec![0; u32::from_be_bytes(length) as usize];
            self.socket.read_exact(&mut packet).unwrap();
            assert_eq!(packet[..2], [0, kind]);
            packet.split_off(2)
        }

        fn say(&mut self, message: MessageWriter) {
            self.socket.write_all(&message.framed()).unwrap();
        }

        /// Opens a channel to a socket that takes this many bytes.
        fn channel(&mut self, window: u32) -> Ends {
            let opening = self.open(Open::Socket("/s".to_owned()));
            let asked = self.hear(OPEN);
            let mut fields = MessageReader(&asked);
            assert_eq!(fields.text().as_deref(), Some("direct-streamlocal@openssh.com"));
            let number = fields.number().unwrap();
            self.say(
                MessageWriter::packet(OPEN_CONFIRMATION)
                    .number(number)
                    .number(70 + number)
                    .number(window)
                    .number(PACKET),
            );
            match opening.join().unwrap() {
                Ok(Opened::Channel(ends)) => ends,
                _ => panic!("no channel"),
            }
        }

        fn end(self) {
            drop(self.handle);
            self.looped.join().unwrap();
        }
    }

    #[test]
    fn bytes_and_ends_go_both_ways() {
        let mut far = Far::new();
        let mut ends = far.channel(1000);
        ends.stream.set_nonblocking(false).unwrap();
        ends.stream.write_all(b"question").unwrap();
        let data = far.hear(DATA);
        let mut fields = MessageReader(&data);
        assert_eq!((fields.number(), fields.string()), (Some(70), Some(&b"question"[..])));
        ends.stream.shutdown(std::net::Shutdown::Write).unwrap();
        far.hear(EOF);
        far.say(MessageWriter::packet(DATA).number(0).string("answer"));
        far.say(MessageWriter::packet(EOF).number(0));
        let mut answer = String::new();
        ends.stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        assert!(ends.stream_end.load(std::sync::atomic::Ordering::Acquire));
        // Both directions have ended.
        far.hear(CLOSE);
        far.say(MessageWriter::packet(CLOSE).number(0));
        far.end();
    }

    #[test]
    fn no_more_is_sent_than_the_far_side_takes() {
        let mut far = Far::new();
        let mut ends = far.channel(5);
        ends.stream.write_all(b"0123456789").unwrap();
        assert!(far.hear(DATA).ends_with(b"01234"));
        far.say(MessageWriter::packet(WINDOW_ADJUST).number(0).number(3));
        assert!(far.hear(DATA).ends_with(b"567"));
        far.say(MessageWriter::packet(WINDOW_ADJUST).number(0).number(100));
        assert!(far.hear(DATA).ends_with(b"89"));
        // The caller drops it.
        far.handle.notifier().drop_part(ends.id, ChannelPart::Stream);
        far.hear(EOF);
        far.hear(CLOSE);
        far.end();
    }

    #[test]
    fn what_nobody_reads_is_not_asked_for() {
        let mut far = Far::new();
        let mut ends = far.channel(5);
        let chunk = vec![7_u8; PACKET as usize];
        let sent = BULK as usize;
        for _ in 0..sent / chunk.len() {
            far.say(MessageWriter::packet(DATA).number(0).string(&chunk));
        }
        // Some of it lies in the pair. When a channel that is opened now is confirmed, everything before it was read.
        let other = far.open(Open::Ping);
        far.hear(OPEN);
        far.say(
            MessageWriter::packet(OPEN_FAILURE)
                .number(1)
                .number(4)
                .string("full")
                .string(""),
        );
        assert!(matches!(other.join().unwrap(), Ok(Opened::Pong(_))));
        ends.stream.set_nonblocking(false).unwrap();
        let mut all = vec![0; sent];
        ends.stream.read_exact(&mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 7));
        far.hear(WINDOW_ADJUST);
        far.end();
    }

    #[test]
    fn a_far_side_that_sends_more_than_it_may_ends_the_session() {
        let mut far = Far::new();
        let _ends = far.channel(5);
        let chunk = vec![7_u8; PACKET as usize];
        // Three times what the largest window takes.
        let broke = (0..3 * BULK_WINDOW / PACKET).any(|_| {
            let message = MessageWriter::packet(DATA).number(0).string(&chunk);
            far.socket.write_all(&message.framed()).is_err()
        });
        assert!(broke);
        far.looped.join().unwrap();
    }

    #[test]
    fn a_command_has_its_outputs_and_its_end() {
        let mut far = Far::new();
        let opening = far.open(Open::Exec {
            line: Some("make".to_owned()),
            pty: None,
        });
        far.hear(OPEN);
        far.say(
            MessageWriter::packet(OPEN_CONFIRMATION)
                .number(0)
                .number(70)
                .number(9)
                .number(9),
        );
        assert!(far.hear(REQUEST).ends_with(b"\0\0\0\x04make"));
        far.say(MessageWriter::packet(SUCCESS).number(0));
        let Ok(Opened::Channel(ends)) = opening.join().unwrap() else {
            panic!("no channel");
        };
        let mut exec = ends.exec.unwrap();
        far.say(
            MessageWriter::packet(EXTENDED_DATA)
                .number(0)
                .number(STDERR)
                .string("oops"),
        );
        far.say(
            MessageWriter::packet(REQUEST)
                .number(0)
                .string("exit-signal")
                .byte(0)
                .string("TERM"),
        );
        far.say(MessageWriter::packet(EOF).number(0));
        far.say(MessageWriter::packet(CLOSE).number(0));
        exec.stderr.set_nonblocking(false).unwrap();
        let mut said = String::new();
        exec.stderr.read_to_string(&mut said).unwrap();
        assert_eq!(said, "oops");
        assert_eq!(exec.exit.blocking_recv().unwrap(), Exit::Signal("TERM".to_owned()));
        far.hear(CLOSE);
        far.end();
    }

    #[test]
    fn refusals_are_told_apart_and_an_end_breaks_what_is_open() {
        let mut far = Far::new();
        for (reason, prohibited) in [(PROHIBITED, true), (2, false)] {
            let opening = far.open(Open::Tcp("127.0.0.1".to_owned(), 80));
            let asked = far.hear(OPEN);
            let mut fields = MessageReader(&asked);
            assert_eq!(fields.string(), Some(&b"direct-tcpip"[..]));
            let number = fields.number().unwrap();
            let refusal = MessageWriter::packet(OPEN_FAILURE).number(number).number(reason);
            far.say(refusal.string("no\u{1b}[2J").string(""));
            match opening.join().unwrap() {
                Err(OpenError::Prohibited) => assert!(prohibited),
                Err(OpenError::Failed(why)) => assert_eq!((prohibited, &*why), (false, "no[2J")),
                _ => panic!("it is refused"),
            }
        }
        let mut ends = far.channel(5);
        far.socket.shutdown(std::net::Shutdown::Both).unwrap();
        ends.stream.set_nonblocking(false).unwrap();
        assert_eq!(ends.stream.read(&mut [0]).unwrap_or(0), 0);
        assert!(!ends.stream_end.load(std::sync::atomic::Ordering::Acquire));
        let fate = far.handle.fate().borrow().clone().unwrap();
        assert!(fate.message.starts_with("the link to ann@dock broke: "), "{fate}");
        far.end();
    }
}
