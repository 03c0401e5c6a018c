//! A terminal on a dock, or a command there with clean stdin and stdout.

use std::io::{self, IsTerminal as _};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::termios::tcgetwinsize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::dock_or_current;
use crate::agent::target::{Exec, Exit, Pty, RemoteCommand, Size};
use crate::agent::{Agent, CallOptions, Execution};
use crate::context::Context;
use crate::docks::{self, Access, Dock, Docks, SshAccess};
use crate::error::{Error, ExitStatus, Result};
use crate::heartbeat::{Heard, Heartbeat};
use crate::hint;
use crate::output::visible;
use crate::shell;
use crate::terminal::{self, RawMode};
use dock_client::mutex::lock;

/// Bytes moved at once.
const BUFFER: usize = 64 * 1024;
/// So many pieces wait between a stream and the thread that reads or writes it.
const QUEUE: usize = 4;
/// What a shell shows of a program that SIGPIPE ended, as it would have ended ssh.
const OUTPUT_CLOSED: u8 = 141;
/// The code of a command on a dock that a signal ended, as ssh has it.
const SIGNALLED: u8 = 255;

/// What ssh-dock is asked for.
#[derive(Clone, Debug, Default)]
pub struct SshArgs {
    /// Options for the ssh client, in one word: it is run in place of our own connection.
    pub ssh_options: Option<String>,
    /// Another user than the dock's.
    pub user: Option<String>,
    /// A terminal for the command, too.
    pub tty: bool,
    /// The dock; none for the current one.
    pub name: Option<String>,
    /// The command's words, joined by blanks as ssh joins them; none for a login shell.
    pub command: Vec<String>,
}

/// Runs a command or a shell on a dock.
///
/// # Errors
/// No such dock, one that is no machine, one that can't be reached; a link that is lost in the middle.
pub fn ssh(context: &Context, args: &SshArgs) -> Result<ExitStatus> {
    let dock = dock(context, args)?;
    let Access::Ssh(access) = &dock.access else {
        return Err(Error::usage(format!(
            "{:?} is {}: its engine is all that can be reached",
            dock.moniker,
            dock.access.place()
        ))
        .hint("register its machine, if it has an sshd: register-dock HOST MONIKER"));
    };
    if args.ssh_options.is_some() || context.global.dry_run {
        let words = client_words(access, args)?;
        if context.global.dry_run {
            context.printer.plan(&[shell::join(&words)])?;
            return Ok(ExitStatus::SUCCESS);
        }
        return Err(become_client(&words));
    }
    let agent = Agent::of(&dock, &context.env)?;
    // A terminal's keys are the dock's; without one, Ctrl-C ends us, and so the connection.
    context.block_on(async {
        let options = CallOptions::of_terminal();
        agent.connect(&options).await?;
        run(context, &agent, args, &options).await
    })
}

/// The dock that is meant. rsync calls `ssh-dock [-l USER] NAME rsync --server ...`.
fn dock(context: &Context, args: &SshArgs) -> Result<Dock> {
    let docks = Docks::read(&context.env)?;
    let mut user = args.user.clone();
    let named = args.name.as_deref().map(|name| match name.rsplit_once('@') {
        // As ssh takes it, where no dock has that very name.
        Some((before, host)) if docks.find(name).is_none() => {
            user.get_or_insert_with(|| before.to_owned());
            host
        }
        _ => name,
    });
    let mut dock = dock_or_current(context, named).map_err(|error| match (named, docks::current(&context.env)) {
        (Some(name), Some(current)) if docks.find(name).is_none() => {
            Error::new(error.class(), error.to_string()).hint(hint!(
                "a command comes after the dock's name: {line}";
                line = shell::join(
                    ["ssh-dock", current, name]
                        .iter()
                        .copied()
                        .chain(args.command.iter().map(String::as_str))
                )
            ))
        }
        _ => error,
    })?;
    if let (Access::Ssh(access), Some(user)) = (&mut dock.access, user) {
        access.user = Some(user);
    }
    Ok(dock)
}

/// The equivalent command of the ssh client.
fn client_words(access: &SshAccess, args: &SshArgs) -> Result<Vec<String>> {
    let mut words = vec!["ssh".to_owned()];
    if let Some(options) = &args.ssh_options {
        words.extend(shell::split(options).map_err(|cause| {
            Error::usage(format!("-s {options:?} can't be split into words"))
                .because(cause)
                .hint("-s takes options of ssh in one word: -s '-L 8888:localhost:8888'")
        })?);
    }
    if args.tty {
        words.push("-t".to_owned());
    }
    if let Some(port) = access.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(identity) = &access.identity {
        words.extend(["-i".to_owned(), identity.display().to_string()]);
    }
    if let Some(user) = &access.user {
        words.extend(["-l".to_owned(), user.clone()]);
    }
    words.extend(["--".to_owned(), access.host.clone()]);
    words.extend(args.command.iter().cloned());
    Ok(words)
}

/// Becomes the ssh client; comes back only with an error.
fn become_client(words: &[String]) -> Error {
    let mut words = words.iter();
    let program = words.next().map(String::as_str).unwrap_or("ssh");
    let cause = std::process::Command::new(program).args(words).exec();
    Error::failed("ssh can't be started")
        .because(cause)
        .hint("-s needs OpenSSH's client; without it, ssh-dock connects by itself")
}

async fn run(context: &Context, agent: &Agent, args: &SshArgs, options: &CallOptions) -> Result<ExitStatus> {
    let wants_terminal = args.tty || (args.command.is_empty() && io::stdin().is_terminal());
    let pty = wants_terminal.then(|| Pty {
        term: context.env.non_empty("TERM").unwrap_or("xterm").to_owned(),
        size: size(),
    });
    let command = match args.command.as_slice() {
        [] => RemoteCommand::Shell,
        words => RemoteCommand::Line(words.join(" ")),
    };
    let has_pty = pty.is_some();
    let screen = Arc::<RemoteScreen>::default();
    let heartbeat = Heartbeat::telling(agent, silence_teller(context, agent, has_pty, &screen));
    let execution = agent.execute(Exec { command, pty }, options).await?;
    context.printer.give_stdout_away();
    let raw = if has_pty { RawMode::enter() } else { None };
    screen.is_raw.store(raw.is_some(), Ordering::Release);
    let ended = carry(execution, raw.is_some(), &screen).await;
    // Before anything is said.
    drop((heartbeat, raw));
    match ended? {
        Ended::Exit(Exit::Code(code)) => Ok(ExitStatus::from_code(code)),
        Ended::Exit(Exit::Signal(name)) => {
            context
                .printer
                .note(&format!("the command was ended by SIG{}", visible(&name)));
            Ok(ExitStatus::from_code(SIGNALLED))
        }
        Ended::OutputClosed => Ok(ExitStatus::from_code(OUTPUT_CLOSED)),
        Ended::Escaped => Err(Error::failed(format!(
            "the connection to {} was closed by ~.",
            agent.dock().moniker
        ))),
    }
}

/// Says that the dock is silent. On a terminal of the dock's that is done once, in a line of its own, and not at all while a program
/// has the whole screen: it would not know that a part of it is ours.
fn silence_teller(
    context: &Context,
    agent: &Agent,
    has_pty: bool,
    screen: &Arc<RemoteScreen>,
) -> impl FnMut(Heard) + Send + use<> {
    let (printer, screen) = (context.printer.clone(), Arc::clone(screen));
    let moniker = agent.dock().moniker.clone();
    let mut is_said = false;
    move |heard| match heard {
        Heard::Nothing(since) => {
            let is_raw = screen.is_raw.load(Ordering::Acquire);
            // Where stderr is a file, nothing of it is on the screen.
            let shares_screen = is_raw && io::stderr().is_terminal();
            if (is_said && has_pty) || (shares_screen && screen.is_taken()) {
                return;
            }
            is_said = true;
            let line = format!(
                "dock {moniker:?} has given no sign of life for {} s; waiting for it, {}",
                since.elapsed().as_secs(),
                if is_raw {
                    "Enter, then ~. leaves"
                } else {
                    "Ctrl-C ends it"
                }
            );
            if shares_screen {
                // The cursor is wherever the shell there has left it, and a raw terminal takes it back for no end of a line.
                let line = format!("\r\nssh-dock: warning: {}\r\n", visible(&line));
                // A terminal that is gone ends the session by itself.
                let _ = terminal::write_all(rustix::stdio::stderr(), line.as_bytes());
            } else {
                printer.warning(&line);
            }
        }
        Heard::Life(after) if is_said && !has_pty => {
            printer.note(&format!("dock {moniker:?} answers again, after {} s", after.as_secs()));
        }
        Heard::Life(_) => {}
    }
}

/// The terminal here, while it is one of the dock's.
#[derive(Debug, Default)]
struct RemoteScreen {
    is_raw: AtomicBool,
    /// Whether a program on the dock has the whole screen, and shows the rest again at its end.
    is_taken: AtomicBool,
    /// The end of what was seen last: a sequence may come in two pieces.
    tail: Mutex<Vec<u8>>,
}

impl RemoteScreen {
    /// The beginnings of the sequences of the alternate screen; `h` behind them takes it, `l` gives it back.
    const SEQUENCES: [&[u8]; 3] = [b"\x1b[?1049", b"\x1b[?1047", b"\x1b[?47"];
    /// The length of the longest.
    const LONGEST: usize = 8;

    fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Acquire)
    }

    /// Looks at what is about to be shown.
    fn see(&self, bytes: &[u8]) {
        let mut tail = lock(&self.tail);
        // Most of what comes has none.
        if tail.is_empty() && !bytes.contains(&b'\x1b') {
            return;
        }
        tail.extend_from_slice(bytes);
        let last = tail
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\x1b')
            .find_map(|(at, _)| {
                let here = tail.get(at..)?;
                let behind = Self::SEQUENCES
                    .iter()
                    .find_map(|sequence| here.strip_prefix(*sequence))?;
                match behind.first()? {
                    b'h' => Some(true),
                    b'l' => Some(false),
                    _ => None,
                }
            });
        if let Some(is_taken) = last {
            self.is_taken.store(is_taken, Ordering::Release);
        }
        // Only what may be the beginning of one is of use.
        let end = tail.len().saturating_sub(Self::LONGEST - 1);
        let kept = tail.iter().enumerate().skip(end).find(|(_, byte)| **byte == b'\x1b');
        let kept = kept.map_or(tail.len(), |(at, _)| at);
        tail.drain(..kept);
    }
}

/// How a session came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Exit(Exit),
    /// Who read our output has gone.
    OutputClosed,
    /// The user typed `~.` at the beginning of a line.
    Escaped,
}

/// Carries the streams and sizes of a command until it ends.
async fn carry(execution: Execution, is_terminal: bool, screen: &RemoteScreen) -> Result<Ended> {
    let Execution {
        mut stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = execution;
    let (mut typed, escaped) = read_stdin(is_terminal);
    let feeding = async move {
        while let Some(bytes) = typed.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                // The command reads no more; it may go on to write.
                break;
            }
        }
        // The end of our input is the command's.
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let sizing = async move {
        let Ok(mut changed) = signal(SignalKind::window_change()) else {
            return std::future::pending().await;
        };
        while changed.recv().await.is_some() {
            let _ = resize.send(size()).await;
        }
    };
    let writing = async {
        // The first that can't go on ends both: nobody hears the rest.
        tokio::try_join!(
            write_output(stdout, Stream::Out, is_terminal.then_some(screen)),
            write_output(stderr, Stream::Err, None)
        )
        .map(drop)
    };
    tokio::pin!(writing);
    let escaping = async {
        // A thread that ends without a word has read all input.
        if escaped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let written = tokio::select! {
        written = &mut writing => written,
        () = feeding => return Err(Error::failed("our input ended in an impossible way")),
        () = sizing => return Err(Error::failed("signals can't be handled")),
        () = escaping => return Ok(Ended::Escaped),
    };
    match written {
        Ok(()) => Ok(Ended::Exit(exit.wait().await?)),
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Ended::OutputClosed),
        Err(cause) => Err(Error::failed("our output can't be written").because(cause)),
    }
}

fn size() -> Size {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    size.map_or(Size { rows: 24, columns: 80 }, |size| Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Reads stdin on a thread of its own: a read of a terminal can't be cancelled, and must not keep the runtime from ending.
fn read_stdin(is_terminal: bool) -> (mpsc::Receiver<Vec<u8>>, oneshot::Receiver<()>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (escape, escaped) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        let mut escapes = is_terminal.then(Escapes::default);
        while let Ok(read @ 1..) = terminal::read(rustix::stdio::stdin(), &mut buffer) {
            let bytes = buffer.get(..read).unwrap_or_default();
            let bytes = match &mut escapes {
                None => bytes.to_vec(),
                Some(escapes) => match escapes.pass(bytes) {
                    Some(bytes) => bytes,
                    None => {
                        let _ = escape.send(());
                        return;
                    }
                },
            };
            if sender.blocking_send(bytes).is_err() {
                return;
            }
        }
    });
    (receiver, escaped)
}

/// Finds `~.` at the beginning of a line, as ssh does; `~~` is a tilde.
#[derive(Default)]
struct Escapes {
    state: EscapeState,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum EscapeState {
    #[default]
    LineStart,
    Tilde,
    Within,
}

impl Escapes {
    /// What is to be passed on; none when the user wants to leave.
    fn pass(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (self.state, byte) {
                (EscapeState::LineStart, b'~') => {
                    self.state = EscapeState::Tilde;
                    continue;
                }
                (EscapeState::Tilde, b'.') => return None,
                (EscapeState::Tilde, b'~') => {}
                (EscapeState::Tilde, _) => passed.push(b'~'),
                _ => {}
            }
            passed.push(*byte);
            self.state = match byte {
                b'\r' | b'\n' => EscapeState::LineStart,
                _ => EscapeState::Within,
            };
        }
        Some(passed)
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// Writes a stream of the command to ours on a thread of its own, which may be kept waiting by who reads it, while the
/// other streams go on. All is written when this resolves.
async fn write_output(mut from: impl AsyncRead + Unpin, to: Stream, screen: Option<&RemoteScreen>) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(QUEUE);
    let (done, written) = oneshot::channel();
    std::thread::spawn(move || {
        let result = (|| {
            while let Some(bytes) = receiver.blocking_recv() {
                terminal::write_all(to.descriptor(), &bytes)?;
            }
            Ok(())
        })();
        // After an interruption nobody asks.
        let _ = done.send(result);
    });
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let bytes = buffer.get(..read).unwrap_or_default().to_vec();
        if let Some(screen) = screen {
            screen.see(&bytes);
        }
        if sender.send(bytes).await.is_err() {
            // The thread knows why.
            break;
        }
    }
    drop(sender);
    written
        .await
        .unwrap_or_else(|_| Err(io::Error::other("a thread of ours is gone")))
}

impl Stream {
    /// Not those of the standard library: they look for the ends of lines, and keep what comes behind.
    fn descriptor(self) -> BorrowedFd<'static> {
        match self {
            Self::Out => rustix::stdio::stdout(),
            Self::Err => rustix::stdio::stderr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_and_a_dot_at_the_beginning_of_a_line_leave() {
        let pass = |pieces: &[&[u8]]| {
            let mut escapes = Escapes::default();
            let mut passed = Vec::new();
            for piece in pieces {
                passed.extend(escapes.pass(piece)?);
            }
            Some(String::from_utf8(passed).unwrap())
        };
        assert_eq!(pass(&[b"ls ~.\r"]).unwrap(), "ls ~.\r");
        assert_eq!(pass(&[b"ls\r~", b"."]), None);
        assert_eq!(pass(&[b"~."]), None);
        assert_eq!(pass(&[b"~~.\r"]).unwrap(), "~.\r");
        assert_eq!(pass(&[b"~/bin\r"]).unwrap(), "~/bin\r");
        assert_eq!(pass(&[b"a~.b~~"]).unwrap(), "a~.b~~");
    }

    #[test]
    fn a_program_that_has_the_whole_screen_is_known_by_its_sequences() {
        let screen = RemoteScreen::default();
        for (piece, is_taken) in [
            (&b"$ vi\r\n"[..], false),
            (b"\x1b[1mbold\x1b[?10", false),
            (b"49", false),
            (b"h~\r\n", true),
            (b"\x1b[?25l\x1b[?104", true),
            (b"x", true),
            (b"\x1b[?1049l$ \x1b", false),
            (b"[?47h", true),
            (b"\x1b[?47l\x1b[?1047h", true),
            (b"\x1b[?1047l", false),
        ] {
            screen.see(piece);
            assert_eq!(screen.is_taken(), is_taken, "{:?}", String::from_utf8_lossy(piece));
        }
    }

    #[test]
    fn the_clients_words_are_those_that_a_person_would_type() {
        let access = SshAccess {
            host: "10.0.0.7".into(),
            user: Some("ann".into()),
            port: Some(2222),
            ..SshAccess::default()
        };
        let args = SshArgs {
            ssh_options: Some("-L 8888:localhost:8888 -o 'A B'".into()),
            command: vec!["ls".into(), "-l *".into()],
            ..SshArgs::default()
        };
        assert_eq!(
            shell::join(client_words(&access, &args).unwrap()),
            "ssh -L 8888:localhost:8888 -o 'A B' -p 2222 -l ann -- 10.0.0.7 ls '-l *'"
        );
        let broken = SshArgs {
            ssh_options: Some("'".into()),
            ..args
        };
        assert!(client_words(&access, &broken).is_err());
    }
}
