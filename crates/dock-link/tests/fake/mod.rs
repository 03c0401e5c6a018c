//! A dock that is this machine: its engine is a Unix socket, its commands run here, and its link is cut when a test
//! does so. Shows what a transport has to do.
#![allow(dead_code, reason = "each test, and the example, uses a part of it")]

pub mod http;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dock_client::agent::target::{Exit, RemoteCommand, Target};
use dock_link::transport::{
    Asker, Connection, Connector, ExecSide, Question, QuestionKind, Transport, TransportError, TransportErrorKind,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};

/// What a test controls and observes of a dock.
pub struct Dock {
    /// Its engine.
    pub engine: PathBuf,
    /// Whether a link can be made.
    pub reachable: AtomicBool,
    /// Whether signs of life come back on links that are up.
    pub answers: AtomicBool,
    /// Whether streams open on links that are up; they wait otherwise.
    pub opens: AtomicBool,
    /// Whether it forwards to TCP ports.
    pub forwards: AtomicBool,
    /// The password without which there is no link.
    pub password: Option<String>,
    /// How long it takes to connect.
    pub delay: Duration,
    /// How many attempts to connect there were.
    pub attempts: AtomicUsize,
    /// How many links are up.
    pub links: AtomicUsize,
    /// Counts the cuts: every earlier link is lost.
    cuts: watch::Sender<usize>,
    /// How often the configuration was changed to lead elsewhere: every earlier link is outdated.
    moves: AtomicUsize,
}

impl Dock {
    pub fn new(engine: impl Into<PathBuf>) -> Self {
        Self {
            engine: engine.into(),
            reachable: AtomicBool::new(true),
            answers: AtomicBool::new(true),
            opens: AtomicBool::new(true),
            forwards: AtomicBool::new(true),
            password: None,
            delay: Duration::ZERO,
            attempts: AtomicUsize::new(0),
            links: AtomicUsize::new(0),
            cuts: watch::Sender::new(0),
            moves: AtomicUsize::new(0),
        }
    }

    /// Cuts every link that is up, as sshd does when it ends.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Changes the configuration to lead elsewhere from now on.
    pub fn moves(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    pub fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    pub fn set_reachable(&self, reachable: bool) {
        self.reachable.store(reachable, Ordering::SeqCst);
    }
}

/// Makes links to a [`Dock`].
pub struct FakeConnector(pub Arc<Dock>);

/// A link to a [`Dock`].
pub struct FakeTransport {
    dock: Arc<Dock>,
    /// The number of cuts before it was made.
    born: usize,
    /// The number of moves before it was made.
    place: usize,
}

impl Drop for FakeTransport {
    fn drop(&mut self) {
        self.dock.links.fetch_sub(1, Ordering::SeqCst);
    }
}

fn error(kind: TransportErrorKind, message: &str) -> TransportError {
    TransportError {
        message: message.to_owned(),
        hint: None,
        kind,
    }
}

impl Connector for FakeConnector {
    type Transport = FakeTransport;

    async fn connect(&self, asker: Arc<dyn Asker>) -> Result<FakeTransport, TransportError> {
        let dock = &self.0;
        dock.attempts.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(dock.delay).await;
        if !dock.reachable.load(Ordering::SeqCst) {
            return Err(error(TransportErrorKind::Unreachable, "connection refused"));
        }
        if let Some(password) = &dock.password {
            let question = Question {
                prompt: "password: ".into(),
                echo: false,
                kind: QuestionKind::Secret,
            };
            // Blocks, as the thread of an ssh session does.
            let answer = tokio::task::spawn_blocking(move || asker.ask(&question)).await;
            if answer.ok().flatten().as_ref() != Some(password) {
                return Err(error(TransportErrorKind::NeedsPerson, "the password is wrong"));
            }
        }
        dock.links.fetch_add(1, Ordering::SeqCst);
        Ok(FakeTransport {
            born: *dock.cuts.borrow(),
            place: dock.moves.load(Ordering::SeqCst),
            dock: Arc::clone(dock),
        })
    }
}

impl Transport for FakeTransport {
    async fn open(&self, target: Target) -> Result<Connection, TransportError> {
        while !self.dock.opens.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let refused = |cause: std::io::Error| error(TransportErrorKind::Refused, &cause.to_string());
        match target {
            Target::Engine => Ok(Connection {
                stream: Box::new(UnixStream::connect(&self.dock.engine).await.map_err(refused)?),
                exec: None,
            }),
            Target::Socket { path } => Ok(Connection {
                stream: Box::new(UnixStream::connect(path).await.map_err(refused)?),
                exec: None,
            }),
            Target::Tcp { .. } if !self.dock.forwards.load(Ordering::SeqCst) => Err(TransportError {
                hint: Some("AllowTcpForwarding yes".to_owned()),
                ..error(TransportErrorKind::Forbidden, "sshd forbids forwarding")
            }),
            Target::Tcp { host, port } => Ok(Connection {
                stream: Box::new(TcpStream::connect((host, port)).await.map_err(refused)?),
                exec: None,
            }),
            Target::Exec(exec) => execute(exec.command).map_err(refused),
        }
    }

    async fn lost(&self) -> TransportError {
        let mut cuts = self.dock.cuts.subscribe();
        // The sender can't be gone: it is in the dock, which we hold.
        let _ = cuts.wait_for(|cuts| *cuts > self.born).await;
        error(TransportErrorKind::Unreachable, "the link was cut")
    }

    async fn check(&self) -> Result<Duration, TransportError> {
        while !self.dock.answers.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Duration::from_micros(1500))
    }

    async fn outdated(&self) -> Option<String> {
        let moved = self.place != self.dock.moves.load(Ordering::SeqCst);
        moved.then(|| "the configuration leads elsewhere".to_owned())
    }
}

fn execute(command: RemoteCommand) -> std::io::Result<Connection> {
    let mut program = tokio::process::Command::new("sh");
    match command {
        RemoteCommand::Shell => drop(program.arg("-l")),
        RemoteCommand::Line(line) => drop(program.arg("-c").arg(line)),
        RemoteCommand::Argv(words) => drop(program.args(["-c", r#""$@""#, "sh"]).args(words)),
    }
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(std::io::Error::other("no pipes"));
    };
    let (resize, _) = mpsc::channel(1);
    let (ended, exit) = oneshot::channel();
    tokio::spawn(wait(child, ended));
    Ok(Connection {
        stream: Box::new(Pipes { stdin, stdout }),
        exec: Some(ExecSide {
            stderr: Box::new(stderr),
            resize,
            exit,
        }),
    })
}

async fn wait(mut child: Child, mut ended: oneshot::Sender<Exit>) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = tokio::select! {
        status = child.wait() => status,
        // The connection was closed: dropped, the command is killed.
        () = ended.closed() => return,
    };
    let Ok(status) = status else { return };
    let exit = match status.code() {
        Some(code) => Exit::Code(u8::try_from(code).unwrap_or(255)),
        None => Exit::Signal(status.signal().map_or_else(String::new, |signal| signal.to_string())),
    };
    let _ = ended.send(exit);
}

/// stdin and stdout of a command as one stream.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl AsyncRead for Pipes {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.stdout).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => std::pin::Pin::new(stdin).poll_write(cx, bytes),
            None => std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.stdin = None;
        std::task::Poll::Ready(Ok(()))
    }
}
