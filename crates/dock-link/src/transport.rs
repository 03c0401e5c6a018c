//! The one trait between an agent and what carries its bytes: ssh, Kubernetes, or a fake in tests.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dock_client::agent::target::{Exit, Size, Target};
use dock_client::agent::wire::{Failure, FailureKind};
pub use dock_client::agent::wire::{Question, QuestionKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// What every kind of stream can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A link to a dock, once it is up. Cheap to share; dropping it takes it down.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to a target. Half-close goes both ways.
    fn open(&self, target: Target) -> impl Future<Output = Result<Connection, TransportError>> + Send;

    /// Has the dock listen at this address of its own, which is not a loopback one, and nowhere else, until what is
    /// returned is dropped or the link is lost. The port is what the caller asks for, and never what the dock says later.
    fn listen(&self, at: SocketAddr) -> impl Future<Output = Result<Listening, TransportError>> + Send {
        let message = format!("a dock of this kind can't listen at {at} for this machine");
        std::future::ready(Err(TransportError {
            message,
            hint: None,
            kind: TransportErrorKind::Refused,
        }))
    }

    /// Resolves when the link is lost, with the reason; all its connections fail then.
    fn lost(&self) -> impl Future<Output = TransportError> + Send;

    /// Asks the dock for a sign of life, now, and returns the round trip. Called after this machine slept, when a
    /// stream is slow to open, and for the status. The caller sets the time limit and drops the link if it fails.
    fn check(&self) -> impl Future<Output = Result<Duration, TransportError>> + Send;

    /// Waits, without a limit, until the dock shows that it is there: by an answer, or by anything else that it sends.
    /// Fails if the link is lost meanwhile.
    fn life(&self) -> impl Future<Output = Result<(), TransportError>> + Send {
        async { self.check().await.map(drop) }
    }

    /// Why a new link is to be made for later streams, though this one is up: the user's configuration leads elsewhere
    /// by now, or the dock allows what it forbade. Called before each stream, so it takes no time if there is nothing
    /// new.
    fn outdated(&self) -> impl Future<Output = Option<String>> + Send {
        std::future::ready(None)
    }
}

/// Makes links to one dock.
pub trait Connector: Send + Sync + 'static {
    /// The links that it makes.
    type Transport: Transport;

    /// Connects and authenticates. `asker` is asked what only the user can answer. Sets its own time limits for each
    /// step that the dock may delay; if this future is dropped, it gives up.
    fn connect(&self, asker: Arc<dyn Asker>) -> impl Future<Output = Result<Self::Transport, TransportError>> + Send;
}

/// Asks the user at the terminal of the command for which the link is made. Called from threads that may block, never
/// from those of the runtime.
pub trait Asker: Send + Sync {
    /// Shows the question and returns the answer; `None` if no user can be asked.
    fn ask(&self, question: &Question) -> Option<String>;

    /// The ssh-agent (SSH_AUTH_SOCK) of the newest shell.
    fn ssh_auth_sock(&self) -> Option<PathBuf>;
}

/// An open connection on a dock.
pub struct Connection {
    /// The bytes: of an engine or a TCP port, or a command's stdin and stdout.
    pub stream: Box<dyn Duplex>,
    /// The rest of a command; `None` for the other targets.
    pub exec: Option<ExecSide>,
}

/// A port that the dock listens on for this machine.
pub struct Listening {
    /// What has connected to it. A connection that is not taken has the others wait, and a limit of the transport refuse them.
    pub connections: mpsc::Receiver<Connection>,
    /// The dock listens no longer when this is dropped.
    pub kept: Box<dyn Send + Sync>,
}

/// What a command has besides its stdin and stdout.
pub struct ExecSide {
    /// Its stderr; at its end from the start if there is a terminal.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Tells its terminal a new size.
    pub resize: mpsc::Sender<Size>,
    /// How it ended, after all output.
    pub exit: oneshot::Receiver<Exit>,
}

/// Why a link or a connection could not be made, or broke.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What happened, to which object.
    pub message: String,
    /// The exact command or edit that helps.
    pub hint: Option<String>,
    /// What can be done about it.
    pub kind: TransportErrorKind,
}

/// What can be done about a [`TransportError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The link is down or can't be made now: trying again may help.
    Unreachable,
    /// The user must do something first (a passphrase, a changed host key): trying again by itself won't help.
    NeedsPerson,
    /// The dock refuses this target (no such socket, connection refused); the link is up.
    Refused,
    /// The dock's configuration forbids all targets of this kind, such as sshd's `AllowTcpForwarding no`; the link is
    /// up.
    Forbidden,
    /// The user may not use this target (the engine's socket is for a group that they are not in); the link stands.
    Denied,
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self {
            message: error.message,
            hint: error.hint,
            kind: match error.kind {
                TransportErrorKind::Unreachable => FailureKind::Unreachable,
                TransportErrorKind::NeedsPerson => FailureKind::NeedsPerson,
                TransportErrorKind::Refused => FailureKind::Refused,
                TransportErrorKind::Forbidden => FailureKind::Forbidden,
                TransportErrorKind::Denied => FailureKind::Denied,
            },
        }
    }
}
