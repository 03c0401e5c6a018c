//! Our side of an attached container: stdin, stdout, stderr, the terminal's raw mode and size, signals.
//!
//! Without a terminal of its own, a container's output comes framed: eight bytes (stream, three zeros, length in
//! big endian), then the bytes (the engine's API reference, "Attach to a container").

use std::io::{self, IsTerminal as _, Read};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::termios::{tcgetattr, tcgetwinsize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::container;
use super::heard::{OutputCounter, OutputStream};
use crate::docker::connect::engine::Engine;
use crate::docker::connect::stream::{HalfClose, Halves};
use crate::docker::options::run_options::ContainerPlan;
use crate::error::{Class, Error, Result};
use crate::terminal::{self, RawMode};

/// Bytes moved at once in either direction: twice what a pipe holds.
const BUFFER: usize = 128 * 1024;
/// A longer frame is not an engine's; docker's are 64 KiB at most.
const FRAME_LIMIT: u32 = 64 * 1024 * 1024;
/// This many SIGINTs and SIGTERMs end us, whatever the container does with them, as in docker.
const FORCE: usize = 3;
/// How often, and with which pause, the terminal's size is sent to a new container until it accepts it.
const SIZE_TRIES: usize = 10;
const SIZE_PAUSE: Duration = Duration::from_millis(50);
/// How long a container may take to react to a closed terminal: a shell writes its history.
const HANGUP_GRACE: Duration = Duration::from_secs(2);
/// The code that a shell shows if SIGHUP ended a program.
const HUNG_UP: u8 = 129;
/// Ctrl-P Ctrl-Q, unless the user set other keys.
const DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// How an attached session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachOutcome {
    /// The container's output ended.
    Closed,
    /// The user typed the detach keys.
    Detached,
    /// Nobody reads our output any more.
    OutputClosed,
}

/// How we attach to a container in the foreground.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// It has a terminal.
    pub tty: bool,
    /// Our input is its input.
    pub stdin: bool,
    /// It gets the signals that we get.
    pub sig_proxy: bool,
    /// The engine removes it when it has ended.
    pub remove: bool,
    /// The keys that detach, where the user chose them.
    pub detach_keys: Option<String>,
}

impl AttachOptions {
    /// The options of a container that is about to be created.
    pub fn of(plan: &ContainerPlan) -> Self {
        Self {
            tty: plan.tty,
            stdin: plan.attach.stdin,
            sig_proxy: plan.sig_proxy,
            remove: plan.remove,
            detach_keys: plan.detach_keys.clone(),
        }
    }
}

/// An attached container.
pub struct AttachSession<'a> {
    pub engine: &'a Engine,
    pub id: &'a str,
    /// How we attach to it.
    pub options: &'a AttachOptions,
    /// How much of its output was written.
    heard: Arc<OutputCounter>,
    /// Whether our stdin was a terminal when the session began.
    at_terminal: bool,
    /// Whether the program in it should draw its screen again.
    redraws: bool,
}

impl<'a> AttachSession<'a> {
    /// A new session. `heard` counts what it writes of the container's output.
    pub fn new(engine: &'a Engine, id: &'a str, options: &'a AttachOptions, heard: &Arc<OutputCounter>) -> Self {
        Self {
            engine,
            id,
            options,
            heard: Arc::clone(heard),
            at_terminal: options.tty && io::stdin().is_terminal(),
            redraws: false,
        }
    }

    /// The same for a container that has run for a while: programs draw their screens again when the size changes.
    #[must_use]
    pub const fn redrawn(mut self) -> Self {
        self.redraws = true;
        self
    }

    /// Carries streams, signals and sizes until the output ends or the user detaches.
    ///
    /// # Errors
    /// The connection is lost, or our stdout can't be written to.
    pub async fn run(&self, streams: Halves, signals: &mut Signals) -> Result<AttachOutcome> {
        let _raw = if self.options.tty && self.options.stdin {
            RawMode::enter()
        } else {
            None
        };
        let stdin = self.options.stdin.then(|| spawn_stdin(streams.writer, self.options));
        let output = spawn_output(streams.reader, self.options.tty, &self.heard);
        let signals = self.pass_signals(signals);
        tokio::pin!(signals);
        let detached = async {
            if let Some(detached) = stdin
                && detached.await.is_ok()
            {
                return;
            }
            // The end of our input does not mean the end of the output.
            std::future::pending().await
        };
        tokio::select! {
            copied = output => {
                let copied = copied.unwrap_or(Err(CopyError::Container(io::ErrorKind::Other.into())));
                if matches!(copied, Err(CopyError::Own(_))) && self.terminal_is_closed() {
                    // The signal of the closed terminal may come later than the last output.
                    return Err(match tokio::time::timeout(2 * HANGUP_GRACE, &mut signals).await {
                        Ok(error) => error,
                        Err(_) => hung_up(),
                    });
                }
                ending(self.engine, copied)
            }
            () = detached => Ok(AttachOutcome::Detached),
            error = &mut signals => Err(error),
        }
    }

    /// Passes signals on, and the terminal's size when it changes. Returns only with an error.
    pub async fn pass_signals(&self, signals: &mut Signals) -> Error {
        let mut size = match signal(SignalKind::window_change()) {
            Ok(size) => size,
            Err(cause) => return unhandled(cause),
        };
        if self.redraws
            && self.options.tty
            && let Ok(size) = tcgetwinsize(io::stdout())
        {
            container::resize(self.engine, self.id, size.ws_row.saturating_add(1), size.ws_col).await;
        }
        // A process that was just started may have no terminal yet.
        for _ in 0..SIZE_TRIES {
            if self.tell_size().await {
                break;
            }
            tokio::time::sleep(SIZE_PAUSE).await;
        }
        let mut ends = 0;
        // The input of a closed terminal may end before the signal comes.
        let mut deadline = self.terminal_is_closed().then(|| Instant::now() + HANGUP_GRACE);
        loop {
            let is_over = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = is_over => return hung_up(),
                name = signals.next() => {
                    // In raw mode the terminal sends keys, not signals; a signal is therefore meant to end us, and so
                    // the container. A container without our signals (`--sig-proxy=false`) goes on without us.
                    if !self.options.sig_proxy && !self.options.remove && ends_programs(name) {
                        return Error::interrupted();
                    }
                    ends += usize::from(matches!(name, "SIGINT" | "SIGTERM"));
                    if ends == FORCE {
                        return Error::interrupted();
                    }
                    container::signal(self.engine, self.id, name).await;
                    if deadline.is_none() && self.terminal_is_closed() {
                        deadline = Some(Instant::now() + HANGUP_GRACE);
                    }
                }
                _ = size.recv() => {
                    self.tell_size().await;
                }
            }
        }
    }

    /// Whether the terminal is gone.
    fn terminal_is_closed(&self) -> bool {
        self.at_terminal && tcgetattr(io::stdin()).is_err()
    }

    /// Whether the engine has accepted the size, or there is no terminal.
    async fn tell_size(&self) -> bool {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if self.options.tty => container::resize(self.engine, self.id, size.ws_row, size.ws_col).await,
            _ => true,
        }
    }
}

/// The signals that end programs or inform them. They are caught as soon as this exists.
pub struct Signals {
    caught: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// Begins to catch them.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn listen() -> Result<Self> {
        let kinds = [
            ("SIGINT", SignalKind::interrupt()),
            ("SIGTERM", SignalKind::terminate()),
            ("SIGHUP", SignalKind::hangup()),
            ("SIGQUIT", SignalKind::quit()),
            ("SIGUSR1", SignalKind::user_defined1()),
            ("SIGUSR2", SignalKind::user_defined2()),
            ("SIGALRM", SignalKind::alarm()),
        ];
        let caught = kinds
            .into_iter()
            .map(|(name, kind)| Ok((name, signal(kind)?)))
            .collect::<io::Result<_>>()
            .map_err(unhandled)?;
        Ok(Self { caught })
    }

    /// Waits for the next one and gives its name, such as `SIGINT`.
    async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            for (name, stream) in &mut self.caught {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*name);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Waits for the next signal that is meant to end a program.
    pub async fn ending(&mut self) {
        while !ends_programs(self.next().await) {}
    }

    /// Runs one step of creating a container. A signal that ends programs ends the step; `grace` is how long it may
    /// then take to finish, so that what it created is known, and can be removed.
    ///
    /// # Errors
    /// Those of the step, and [`Error::interrupted`].
    pub async fn guard<T>(&mut self, grace: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(step);
        loop {
            tokio::select! {
                result = &mut step => return result,
                name = self.next() => if ends_programs(name) {
                    // A container that is created too late is dropped, and so removed.
                    let _ = tokio::time::timeout(grace, step).await;
                    return Err(Error::interrupted());
                }
            }
        }
    }
}

/// Whether this signal is meant to end a program.
fn ends_programs(signal: &str) -> bool {
    matches!(signal, "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGQUIT")
}

fn hung_up() -> Error {
    Error::new(Class::Code(HUNG_UP), "the terminal was closed")
}

fn unhandled(cause: io::Error) -> Error {
    Error::failed("signals can't be handled").because(cause)
}

/// Moves stdin to the container on a thread of its own: a read of a terminal can't be cancelled, and must not keep the
/// runtime from ending. The receiver resolves when the detach keys were typed, and fails when input has ended.
fn spawn_stdin(mut to_container: Box<dyn HalfClose>, options: &AttachOptions) -> oneshot::Receiver<()> {
    let (detached, receiver) = oneshot::channel();
    let mut detacher = options
        .tty
        .then(|| Detacher::new(options.detach_keys.as_deref().unwrap_or(DETACH_KEYS)));
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(read @ 1..) = terminal::read(rustix::stdio::stdin(), &mut buffer) {
            let bytes = buffer.get(..read).unwrap_or_default();
            let sent = match &mut detacher {
                Some(detacher) => match detacher.pass(bytes) {
                    Some(bytes) => to_container.write_all(&bytes),
                    None => {
                        // Nobody listens if the session has ended by itself.
                        let _ = detached.send(());
                        return;
                    }
                },
                None => to_container.write_all(bytes),
            };
            if sent.and_then(|()| to_container.flush()).is_err() {
                return;
            }
        }
        // The end of our input closes the container's; its output goes on.
        let _ = to_container.close();
    });
    receiver
}

/// Writes output that a container has made before, to its end, without what was written before.
///
/// # Errors
/// The connection is lost, or our stdout can't be written to.
pub async fn write_past(
    engine: &Engine,
    from: Box<dyn Read + Send>,
    tty: bool,
    heard: &Arc<OutputCounter>,
) -> Result<AttachOutcome> {
    let copied = spawn_output(from, tty, heard).await;
    ending(
        engine,
        copied.unwrap_or(Err(CopyError::Container(io::ErrorKind::Other.into()))),
    )
}

fn ending(engine: &Engine, copied: Result<(), CopyError>) -> Result<AttachOutcome> {
    match copied {
        Ok(()) => Ok(AttachOutcome::Closed),
        // The engine is there, and no link was cut.
        Err(CopyError::Container(cause)) if cause.kind() == io::ErrorKind::InvalidData => Err(Error::failed(format!(
            "{} gives output of a container that makes no sense",
            engine.choice().engine()
        ))
        .because(cause)),
        Err(CopyError::Container(cause)) => Err(engine.lost(cause)),
        Err(CopyError::Own(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(AttachOutcome::OutputClosed),
        Err(CopyError::Own(cause)) => Err(Error::failed("our output can't be written").because(cause)),
    }
}

/// Moves the container's output to ours on a thread of its own: a slow reader may block it, while signals still work.
/// All is written when this resolves.
fn spawn_output(
    mut from_container: Box<dyn Read + Send>,
    tty: bool,
    heard: &Arc<OutputCounter>,
) -> oneshot::Receiver<Result<(), CopyError>> {
    let (copied, receiver) = oneshot::channel();
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        // After the session, nobody needs the output that still comes.
        let result = copy_output(&mut from_container, tty, &heard, || copied.is_closed());
        let _ = copied.send(result);
    });
    receiver
}

/// A read that no signal interrupts.
pub(super) fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Finds the detach keys in what is typed. The first keys are held back until it is clear whether the rest follows.
struct Detacher {
    keys: Vec<u8>,
    matched: usize,
}

impl Detacher {
    fn new(keys: &str) -> Self {
        Self {
            keys: keys.split(',').filter_map(key_code).collect(),
            matched: 0,
        }
    }

    /// The bytes to pass on; `None` when the keys are complete.
    fn pass(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + self.matched);
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return None;
                }
                continue;
            }
            passed.extend(self.keys.iter().take(self.matched));
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        Some(passed)
    }
}

/// `ctrl-p`, `ctrl-@`, or a plain character.
fn key_code(key: &str) -> Option<u8> {
    match key.strip_prefix("ctrl-") {
        Some(letter) => match letter.bytes().next()? {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            b'[' => Some(27),
            b'\\' => Some(28),
            b']' => Some(29),
            b'^' => Some(30),
            b'_' => Some(31),
            _ => None,
        },
        None => key.bytes().next(),
    }
}

pub(super) enum CopyError {
    /// The connection to the container.
    Container(io::Error),
    /// Our stdout or stderr.
    Own(io::Error),
}

fn copy_output(
    mut from: impl Read,
    tty: bool,
    heard: &OutputCounter,
    is_over: impl Fn() -> bool,
) -> Result<(), CopyError> {
    // Not those of the standard library: they look for the ends of lines, and buffer what comes after.
    let (out, err) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    let mut frames = Frames::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = read(&mut from, &mut buffer).map_err(CopyError::Container)?;
        if is_over() {
            return Ok(());
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        let write = |stream: OutputStream, bytes: &[u8]| {
            let news = heard.news(stream, bytes);
            write_all(if stream == OutputStream::Out { out } else { err }, news)?;
            heard.add(stream, news);
            Ok(())
        };
        if tty {
            write(OutputStream::Out, bytes)?;
        } else if read > 0 {
            frames.take(bytes, write)?;
        } else {
            frames.end().map_err(CopyError::Container)?;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

fn write_all(to: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), CopyError> {
    terminal::write_all(to, bytes).map_err(CopyError::Own)
}

/// Splits the stream into frames, wherever the connection cuts them.
#[derive(Default)]
pub(super) struct Frames {
    header: [u8; 8],
    /// The number of header bytes that are there.
    known: usize,
    /// The number of bytes of the frame that are still to come.
    left: usize,
    stream: OutputStream,
}

impl Frames {
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        mut write: impl FnMut(OutputStream, &[u8]) -> Result<(), CopyError>,
    ) -> Result<(), CopyError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let (part, rest) = bytes.split_at(bytes.len().min(self.left));
                write(self.stream, part)?;
                self.left -= part.len();
                bytes = rest;
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.header.len() - self.known));
            for (byte, place) in part.iter().zip(self.header.iter_mut().skip(self.known)) {
                *place = *byte;
            }
            self.known += part.len();
            bytes = rest;
            if self.known == self.header.len() {
                self.known = 0;
                self.begin()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), CopyError> {
        let [stream, _, _, _, a, b, c, d] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        if stream > 3 || length > FRAME_LIMIT {
            return Err(CopyError::Container(io::Error::new(
                io::ErrorKind::InvalidData,
                "the engine's output is not a stream of frames",
            )));
        }
        // Streams 0 and 1 are stdin's echo and stdout; 3 is an error of the engine.
        self.stream = if stream < 2 {
            OutputStream::Out
        } else {
            OutputStream::Err
        };
        self.left = length as usize;
        Ok(())
    }

    /// The connection has ended.
    pub(super) fn end(&self) -> io::Result<()> {
        if self.left > 0 || self.known > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_keys_are_found_across_chunks() {
        let mut detacher = Detacher::new(DETACH_KEYS);
        assert_eq!(detacher.pass(b"ab\x10").as_deref(), Some(&b"ab"[..]));
        assert_eq!(detacher.pass(b"x").as_deref(), Some(&b"\x10x"[..]));
        assert_eq!(detacher.pass(b"\x10\x10").as_deref(), Some(&b"\x10"[..]));
        assert_eq!(detacher.pass(b"\x11"), None);
    }

    #[test]
    fn frames_are_put_together_wherever_they_are_cut() {
        let whole = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x02er\x01\0\0\0\0\0\0\0\x00\0\0\0\0\0\0\x01!";
        for size in 1..=whole.len() {
            let (mut frames, mut out, mut err) = (Frames::default(), Vec::new(), Vec::new());
            for piece in whole.chunks(size) {
                let taken = frames.take(piece, |stream, bytes| {
                    let to = if stream == OutputStream::Out {
                        &mut out
                    } else {
                        &mut err
                    };
                    to.extend_from_slice(bytes);
                    Ok(())
                });
                assert!(taken.is_ok());
            }
            assert!(frames.end().is_ok());
            assert_eq!((&out[..], &err[..]), (&b"out!"[..], &b"er"[..]), "pieces of {size}");
        }
        for cut in [4, 9, 15] {
            let mut frames = Frames::default();
            assert!(frames.take(&whole[..cut], |_, _| Ok(())).is_ok());
            assert!(frames.end().is_err(), "cut at {cut}");
        }
        assert!(Frames::default().take(b"HTTP/1.1", |_, _| Ok(())).is_err());
    }

    #[test]
    fn keys_are_named_as_docker_names_them() {
        for (name, code) in [
            ("ctrl-p", Some(16)),
            ("ctrl-@", Some(0)),
            ("a", Some(b'a')),
            ("ctrl-_", Some(31)),
            ("ctrl-1", None),
        ] {
            assert_eq!(key_code(name), code);
        }
    }
}
