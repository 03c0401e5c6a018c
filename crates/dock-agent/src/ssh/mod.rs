//! The transport of a dock that ssh reaches: libssh2 by way of the ssh2 crate, or the user's own OpenSSH client.
//!
//! [`SshConnector`] makes links: it asks `ssh -G` for the user's configuration ([`resolve`]), dials ([`dial`]), checks
//! the host key ([`host_key`]), logs in ([`auth`]), and leaves a thread that carries the channels ([`session`]). If
//! only OpenSSH itself can log in (keys in a token, GSSAPI), its client does, and the thread has the client carry the
//! channels ([`openssh`]). Both are used through the same [`handle`].
//!
//! [`SshTransport`] opens targets on a link: the engine's socket by stream forwarding, or, if sshd forbids that, by
//! `docker system dial-stdio`, which takes a session channel for each connection, and further ssh sessions beyond
//! `MaxSessions`.

mod auth;
mod connect;
mod dial;
mod engine;
mod flow;
mod greeting;
mod handle;
mod host_key;
mod intake;
mod keys;
mod listen;
mod login_shell;
mod news;
mod openssh;
mod resolve;
mod session;
mod sessions;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use dock_client::agent::target::{Exec, RemoteCommand, Target};
use dock_client::docks::SshAccess;
use dock_client::env::Env;
use dock_link::transport::{Asker, Connection, Connector, Listening, Transport, TransportError, TransportErrorKind};

use auth::Memory;
use connect::Plan;
use engine::EnginePath;
use handle::{Open, OpenError, Opened};
use news::{Forbidden, News};
use sessions::Sessions;

pub use openssh::if_asked;

/// Makes links to a dock that ssh reaches. It keeps, in memory only, what the user typed, so that a link comes back by
/// itself.
pub struct SshConnector {
    plan: Arc<Plan>,
}

impl SshConnector {
    /// A connector for the access that the user gave for the dock. `env` is that of the call: HOME, PATH (ssh is found
    /// there), SHELL.
    pub fn new(access: SshAccess, env: Env) -> Self {
        Self::with_asking_program(access, env, None)
    }

    /// The same for a program other than `dock-agent`: `asking` is the program that OpenSSH's client starts to ask the
    /// user.
    pub fn with_asking_program(access: SshAccess, env: Env, asking: Option<PathBuf>) -> Self {
        Self::asking_again_after(news::FIRST_PAUSE, access, env, asking)
    }

    /// The same; what sshd forbids is tried again after this time.
    pub fn asking_again_after(pause: Duration, access: SshAccess, env: Env, asking: Option<PathBuf>) -> Self {
        Self {
            plan: Arc::new(Plan {
                access,
                env,
                memory: Memory::default(),
                asking,
                by_openssh: AtomicBool::new(false),
                ask_again: pause,
            }),
        }
    }
}

impl Connector for SshConnector {
    type Transport = SshTransport;

    async fn connect(&self, asker: Arc<dyn Asker>) -> Result<SshTransport, TransportError> {
        let agent = asker.ssh_auth_sock();
        let connected = connect::connect(Arc::clone(&self.plan), asker).await?;
        Ok(SshTransport {
            name: connected.resolved.name(),
            news: News::new(&connected.resolved, Arc::clone(&self.plan), agent.clone()),
            sessions: Arc::new(Sessions::new(connected, Arc::clone(&self.plan), agent)),
            engine: EnginePath::new(self.plan.access.engine_socket().to_owned()),
        })
    }
}

/// A link to a dock.
pub struct SshTransport {
    /// `user@host`.
    name: String,
    sessions: Arc<Sessions>,
    engine: EnginePath,
    news: Arc<News>,
}

impl Transport for SshTransport {
    async fn open(&self, target: Target) -> Result<Connection, TransportError> {
        match target {
            Target::Engine => self.engine.open(self).await,
            Target::Socket { path } => match self.socket(&path).await? {
                Some(connection) => Ok(connection),
                None => Err(self.refused(
                    &format!("sshd does not forward to {path}: it forbids it, or nothing listens there"),
                    None,
                )),
            },
            Target::Tcp { host, port } => self.tcp(&host, port).await,
            Target::Exec(exec) => self.execute(exec).await,
        }
    }

    async fn listen(&self, at: SocketAddr) -> Result<Listening, TransportError> {
        listen::listen(self, at).await
    }

    async fn lost(&self) -> TransportError {
        self.sessions.main().lost().await
    }

    async fn check(&self) -> Result<Duration, TransportError> {
        match self.sessions.main().open(Open::Ping).await {
            Ok(Opened::Pong(took)) => Ok(took),
            Ok(_) => Err(self.refused("answered a ping with something else", None)),
            Err(error) => Err(self.open_error("give a sign of life", error)),
        }
    }

    async fn life(&self) -> Result<(), TransportError> {
        let life = self.sessions.main().life().await;
        life.map_err(|error| self.open_error("give a sign of life", error))
    }

    async fn outdated(&self) -> Option<String> {
        match self.news.outdated().await {
            Some(why) => Some(why),
            None => self.engine.outdated(self).await,
        }
    }
}

impl SshTransport {
    /// A connection to a Unix socket of the dock; `None` if sshd does not open it, for which it gives no reason.
    async fn socket(&self, path: &str) -> Result<Option<Connection>, TransportError> {
        if path.contains('\0') {
            return Err(self.refused("a socket's path has no NUL", None));
        }
        let handle = self.sessions.main();
        match handle.open(Open::Socket(path.to_owned())).await {
            Ok(Opened::Channel(ends)) => {
                let connection = stream::connection(ends, handle, None);
                connection
                    .map(Some)
                    .map_err(|error| self.refused(&error.to_string(), None))
            }
            Ok(_) => Err(self.refused("opened something else than a channel", None)),
            Err(OpenError::Prohibited | OpenError::Failed(_)) => Ok(None),
            Err(error) => Err(self.open_error(&format!("reach {path}"), error)),
        }
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<Connection, TransportError> {
        let what = format!("connect to {host} port {port}");
        if host.contains('\0') {
            return Err(self.refused(&format!("cannot {what}: a host name has no NUL"), None));
        }
        let handle = self.sessions.main();
        match handle.open(Open::Tcp(host.to_owned(), port)).await {
            Ok(Opened::Channel(ends)) => {
                stream::connection(ends, handle, None).map_err(|error| self.refused(&error.to_string(), None))
            }
            Ok(_) => Err(self.refused("opened something else than a channel", None)),
            Err(OpenError::Failed(_)) => Err(TransportError {
                message: format!(
                    "{} cannot connect to {host} port {port}: nothing listens there",
                    self.name
                ),
                hint: None,
                kind: TransportErrorKind::Refused,
            }),
            Err(OpenError::Prohibited) => {
                self.news.note(Forbidden::Tcp(host.to_owned(), port));
                Err(TransportError {
                    message: format!("sshd of {} forbids forwarding to {host} port {port}", self.name),
                    hint: Some(
                        "on the dock, as root: put `AllowTcpForwarding yes` into /etc/ssh/sshd_config, then \
                     `systemctl reload ssh`"
                            .to_owned(),
                    ),
                    kind: TransportErrorKind::Forbidden,
                })
            }
            Err(error) => Err(self.open_error(&what, error)),
        }
    }

    async fn execute(&self, exec: Exec) -> Result<Connection, TransportError> {
        let line = match exec.command {
            RemoteCommand::Shell => None,
            RemoteCommand::Line(line) if line.contains('\0') => {
                return Err(self.refused("a command has no NUL", None));
            }
            RemoteCommand::Line(line) => Some(line),
            RemoteCommand::Argv(words) => {
                let line = login_shell::line(&words);
                Some(line.ok_or_else(|| self.refused("a command is not empty and has no NUL", None))?)
            }
        };
        if exec.pty.as_ref().is_some_and(|pty| pty.term.contains('\0')) {
            return Err(self.refused("a terminal's name has no NUL", None));
        }
        let open = || Open::Exec {
            line: line.clone(),
            pty: exec.pty.clone(),
        };
        self.sessions
            .execute(&open)
            .await
            .map_err(|error| self.open_error("run a command", error))
    }

    fn refused(&self, what: &str, hint: Option<&str>) -> TransportError {
        TransportError {
            message: format!("{}: {what}", self.name),
            hint: hint.map(str::to_owned),
            kind: TransportErrorKind::Refused,
        }
    }

    fn open_error(&self, what: &str, error: OpenError) -> TransportError {
        match error {
            OpenError::Lost(error) => error,
            OpenError::Prohibited => self.refused(&format!("sshd forbids to {what}"), None),
            OpenError::Unsupported => self.refused(&format!("the link can't {what}"), None),
            OpenError::Denied(denied) => self.refused(
                &format!("sshd denies {denied}"),
                Some("see the limits of the key in ~/.ssh/authorized_keys there (no-pty, command=)"),
            ),
            OpenError::Failed(why) => self.refused(
                &format!("sshd refuses to {what}: {why}"),
                Some("on the dock, as root: see `MaxSessions` in /etc/ssh/sshd_config, and `journalctl -u ssh`"),
            ),
        }
    }
}
