//! The client of a dock's agent, the process that holds the connection to the dock (`dock-agent`).
//!
//! There is one agent for each dock and user. It has two Unix sockets in a private directory ([`paths`]): the
//! *engine's* speaks pure Docker API, for DOCKER_HOST and docker contexts; on the *control* socket commands open
//! streams ([`Agent::open_engine`], [`Agent::open_tcp`], [`Agent::execute`]), answer the questions that only the user
//! can answer, and ask for the agent's status. [`wire`] has the protocol. A third one may be systemd's, for the
//! dock's docker context: what systemd starts when something connects to it has the agent serve that, too
//! ([`Agent::serve`]).
//!
//! Any command that needs an agent starts it if it does not run. The agent outlives the command: it ends by itself when
//! no docked shell ([`Agent::hold`]) and no stream has needed it for some minutes.
//!
//! ```no_run
//! # use dock_client::agent::{Agent, CallOptions};
//! # async fn example(dock: &dock_client::docks::Dock, env: &dock_client::env::Env) -> dock_client::error::Result<()> {
//! let agent = Agent::of(dock, env)?;
//! // Starts the agent and logs in, asking the user if needed.
//! agent.connect(&CallOptions::of_terminal()).await?;
//! let host = agent.docker_host(); // unix:///run/user/1000/dockerutils/0f3a....sock
//! # Ok(()) }
//! ```

pub mod descriptor;
mod exec;
pub mod frame;
pub mod holder;
pub mod paths;
mod question;
pub mod start;
pub mod target;
pub mod wire;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

pub use exec::{Execution, PendingExit};
pub use holder::Holder;
pub use wire::{ExposedPort, LinkStatus, Port, ProjectMount, Status};

use crate::docks::{Dock, Forward};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use paths::AgentPaths;
use start::Started;
use target::{Exec, Target};
use wire::{Answer, Call, Failure, FailureKind, Greeting, Hello, PROTOCOL, QuestionKind, Reply, Request, VERSION};

/// How long an agent may take to greet a command; it needs no link for that.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait for an agent that is ending, or that another command is starting, before giving up.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);
/// How often to check meanwhile.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);
/// How long a stream that is no longer needed may take to close.
const CLOSING_LIMIT: Duration = Duration::from_secs(2);
/// How long a call that opens nothing may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long the files of an agent that ended are kept, unless it is needed again.
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long an agent keeps trying to restore a link that was cut, unless a command says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a command waits for a link, and what it can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOptions {
    /// Whether the user at the terminal may be asked for passphrases and the like.
    pub person: bool,
    /// Whether a host key that is not known yet is trusted without asking (`--accept-new`).
    pub accept_new: bool,
    /// How long to wait for a link that was cut to come back. A link that was never up is tried once.
    pub patience: Duration,
    /// Whether an agent that only calls like this one have used ends after seconds instead of minutes.
    pub brief: bool,
    /// Whose ports are to be forwarded for a docked shell.
    pub forward: Option<Forward>,
    /// Further containers and ports to forward for it.
    pub named: Vec<String>,
    /// Ports of this machine to open to the containers on the dock for it.
    pub expose: Vec<u16>,
}

/// What a docked shell wants of the agent, for as long as it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShellDemand {
    /// Whose published ports are to be forwarded.
    pub forward: Forward,
    /// Further containers, by name or ID, and ports that the dock's engine listens on, to be forwarded.
    pub named: Vec<String>,
    /// Ports of this machine's loopback to be opened to the containers on the dock.
    pub expose: Vec<u16>,
}

impl CallOptions {
    /// Asks the user, if there is one at a terminal; patient.
    pub fn of_terminal() -> Self {
        Self {
            person: question::has_person(),
            ..Self::unattended()
        }
    }

    /// Asks no questions; patient.
    pub const fn unattended() -> Self {
        Self {
            person: false,
            accept_new: false,
            patience: PATIENCE,
            brief: false,
            forward: None,
            named: Vec::new(),
            expose: Vec::new(),
        }
    }

    /// Asks no questions, and waits for no link that is down: for listing many docks.
    pub const fn impatient() -> Self {
        let mut options = Self::unattended();
        options.patience = Duration::ZERO;
        options
    }

    /// For a single request: an agent that is started for it does not stay.
    #[must_use]
    pub const fn briefly(mut self) -> Self {
        self.brief = true;
        self
    }

    /// Trusts host keys that are not known yet, and records them.
    #[must_use]
    pub const fn accepting_new(mut self, accept_new: bool) -> Self {
        self.accept_new = accept_new;
        self
    }
}

/// The agent of one dock, whether it runs or not. Cheap to create: nothing is started before it is needed.
#[derive(Clone, Debug)]
pub struct Agent {
    dock: Dock,
    paths: AgentPaths,
    env: Env,
}

impl Agent {
    /// The agent of this dock, which need not be in the list of docks. Nothing is started or written.
    ///
    /// # Errors
    /// No directory for sockets, or one whose path is too long.
    pub fn of(dock: &Dock, env: &Env) -> Result<Self> {
        Ok(Self {
            paths: AgentPaths::of(dock, env)?,
            dock: dock.clone(),
            env: env.clone(),
        })
    }

    /// The agent whose engine socket this is, as DOCKER_HOST or a docker context names it; `None` if the socket belongs
    /// to something else, or to a dock that has had no agent since the directory was made.
    ///
    /// # Errors
    /// A file beside the socket that can't be read, or is damaged.
    pub fn of_engine_socket(socket: &Path, env: &Env) -> Result<Option<Self>> {
        let Some(paths) = AgentPaths::of_engine_socket(socket, env) else {
            return Ok(None);
        };
        let file = paths.dock_file();
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(Error::failed(format!("{} can't be read", file.display())).because(cause)),
        };
        let dock = serde_json::from_slice(&text).map_err(|cause| {
            Error::failed(format!("{} is damaged", file.display()))
                .because(cause)
                .hint("castoff, then dock again: it is written anew")
        })?;
        Ok(Some(Self {
            dock,
            paths,
            env: env.clone(),
        }))
    }

    /// Whether this is one of the sockets of its engine.
    pub fn is_behind(&self, socket: &Path) -> bool {
        socket == self.engine_socket() || socket == self.context_socket()
    }

    /// Whether this is the engine socket of some agent, in whatever environment that was started: then the engine is on
    /// another machine.
    pub fn is_engine_socket(socket: &Path) -> bool {
        AgentPaths::is_engine_socket(socket)
    }

    /// The agent's dock.
    pub const fn dock(&self) -> &Dock {
        &self.dock
    }

    /// The socket that speaks the engine's API; its path stays the same for as long as the dock's access does.
    pub fn engine_socket(&self) -> PathBuf {
        self.paths.engine_socket()
    }

    /// The socket of a docker context on which systemd listens, where it was set up to.
    pub fn context_socket(&self) -> PathBuf {
        self.paths.context_socket()
    }

    /// Where its sockets and files are.
    pub const fn paths(&self) -> &AgentPaths {
        &self.paths
    }

    /// The engine's socket as DOCKER_HOST names it.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.paths.engine_socket().display())
    }

    /// The agent's log.
    pub fn log_file(&self) -> PathBuf {
        self.paths.log_file()
    }

    /// Starts the agent if it does not run, and brings its link to the dock up; then the engine's socket works without
    /// questions to the user.
    ///
    /// # Errors
    /// [`Error::unreachable`] if the dock can't be reached or the user would have to be asked, with a hint that says
    /// what helps.
    pub async fn connect(&self, options: &CallOptions) -> Result<()> {
        self.open(Request::Link, options).await.map(drop)
    }

    /// [`Agent::connect`], with the reason why the dock can't be reached as a value.
    ///
    /// # Errors
    /// An agent that can't be started, or does not answer. What is wrong with the dock is inside.
    pub async fn try_connect(&self, options: &CallOptions) -> Result<Result<(), Failure>> {
        Ok(self.try_request(Request::Link, options).await?.map(drop))
    }

    /// Opens a target that the dock may refuse, with the reason as a value.
    ///
    /// # Errors
    /// As [`Agent::try_connect`].
    pub async fn try_open(&self, target: Target, options: &CallOptions) -> Result<Result<UnixStream, Failure>> {
        self.try_request(Request::Open(target), options).await
    }

    async fn try_request(&self, request: Request, options: &CallOptions) -> Result<Result<UnixStream, Failure>> {
        let mut stream = self.reach().await?;
        match self.call(&mut stream, request, options).await? {
            Reply::Done => Ok(Ok(stream)),
            Reply::Failed(failure) if failure.kind != FailureKind::Unknown => Ok(Err(failure)),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Opens a connection to the engine behind an agent's engine socket, as a command of ours: the paths that it has the
    /// engine mount are the dock's. `None` if this is no such socket, or its agent does not run or is of a version that knows
    /// nothing of this: then the socket itself leads to the engine.
    pub async fn open_engine(socket: &Path) -> Option<UnixStream> {
        let control = AgentPaths::control_of(socket)?;
        let calling = async {
            let (mut stream, greeting) = greet(&control, false).await?;
            if greeting.dockerutils_agent != PROTOCOL {
                return Ok(None);
            }
            let call = Call {
                request: Request::Engine,
                ssh_auth_sock: None,
                person: false,
                accept_new: false,
                brief: false,
                forward: None,
                named: Vec::new(),
                expose: Vec::new(),
                patience_ms: 0,
            };
            frame::write_message(&mut stream, &call).await?;
            let reply = frame::read_message(&mut stream).await?;
            io::Result::Ok(matches!(reply, Some(Reply::Done)).then_some(stream))
        };
        tokio::time::timeout(GREETING_LIMIT, calling).await.ok()?.ok()?
    }

    /// Opens a connection from the dock to a host and TCP port, as the dock sees them.
    ///
    /// # Errors
    /// As [`Agent::connect`], and the dock's refusal.
    pub async fn open_tcp(&self, host: &str, port: u16, options: &CallOptions) -> Result<UnixStream> {
        let host = host.to_owned();
        self.open(Request::Open(Target::Tcp { host, port }), options).await
    }

    /// Runs a command on the dock.
    ///
    /// # Errors
    /// As [`Agent::open_tcp`]. That the command itself fails is no error.
    pub async fn execute(&self, exec: Exec, options: &CallOptions) -> Result<Execution> {
        let request = Request::Open(Target::Exec(exec));
        Ok(Execution::new(self.open(request, options).await?))
    }

    /// Keeps the agent running at least as long as this process, a docked shell, and has it forward the ports that the
    /// shell asked for; starts the agent if it does not run.
    ///
    /// # Errors
    /// A process that is not there, and an agent that can't be started.
    pub async fn hold(&self, pid: i32, forward: Forward) -> Result<()> {
        let demand = ShellDemand {
            forward,
            ..ShellDemand::default()
        };
        self.hold_with(pid, demand).await
    }

    /// [`Agent::hold`], with all that a shell can ask for.
    ///
    /// # Errors
    /// As [`Agent::hold`].
    pub async fn hold_with(&self, pid: i32, demand: ShellDemand) -> Result<()> {
        let holder =
            Holder::of(pid).ok_or_else(|| Error::failed(format!("there is no process {pid} to keep the agent for")))?;
        let options = CallOptions {
            forward: Some(demand.forward),
            named: demand.named,
            expose: demand.expose,
            ..CallOptions::unattended()
        };
        self.limited(self.open(Request::Hold(holder), &options)).await.map(drop)
    }

    /// Keeps the agent running until [`Agent::stop`] or [`Agent::remove`], with or without a docked shell: a docker
    /// context leads programs to its socket that know nothing of agents. Starts it if it does not run.
    ///
    /// # Errors
    /// An agent that can't be started.
    pub async fn stay(&self) -> Result<()> {
        let options = CallOptions::unattended();
        self.limited(self.open(Request::Stay, &options)).await.map(drop)
    }

    /// Has the agent serve another listening socket of the engine, as its own one; starts it if it does not run. It does not
    /// live for that: waits until it has ended.
    ///
    /// # Errors
    /// An agent that can't be started, or does not take the socket.
    pub async fn serve(&self, listener: BorrowedFd<'_>) -> Result<()> {
        let options = CallOptions::unattended();
        let passing = async {
            let mut stream = self.open(Request::Serve, &options).await?;
            let passed = descriptor::send(&stream, listener).await;
            passed.map_err(|cause| self.silent(cause))?;
            match frame::read_message(&mut stream).await {
                Ok(Some(Reply::Done)) => Ok(stream),
                Ok(Some(reply)) => Err(self.unexpected(reply)),
                Ok(None) => Err(self.silent(io::ErrorKind::UnexpectedEof.into())),
                Err(cause) => Err(self.silent(cause)),
            }
        };
        let stream = self.limited(passing).await?;
        // It says nothing more: this is its end, however that came.
        let _ = frame::incoming(&stream).await;
        Ok(())
    }

    /// Releases the agent: it need no longer live for this process. An agent that does not run is not started.
    ///
    /// # Errors
    /// An agent that does not answer.
    pub async fn release(&self, pid: i32) -> Result<()> {
        match Holder::of(pid) {
            Some(holder) => self.ask_running(Request::Release(holder)).await.map(drop),
            // It has ended, so nothing is held any more.
            None => Ok(()),
        }
    }

    /// The file in which the agent leaves its message to the docked shell of this process, for its next prompt.
    pub fn notice_file(&self, pid: i32) -> PathBuf {
        self.paths.notice_file(pid)
    }

    /// The agent's status; `None` if it does not run. With `measure`, the round trip is measured if the link is up.
    ///
    /// # Errors
    /// An agent that does not answer.
    pub async fn status(&self, measure: bool) -> Result<Option<Status>> {
        match self.ask_running(Request::Status { measure }).await? {
            Some(Reply::Status(status)) => Ok(Some(status)),
            Some(_) => Err(self.failed("did not say how it is")),
            None => Ok(None),
        }
    }

    /// Which of these ports of this machine containers on the dock reach, once that is settled; none if the agent does not
    /// run.
    ///
    /// # Errors
    /// An agent that does not answer.
    pub async fn exposed(&self, ports: &[u16]) -> Result<Vec<ExposedPort>> {
        match self.ask_running(Request::Exposed(ports.to_vec())).await? {
            Some(Reply::Exposed(exposed)) => Ok(exposed),
            Some(_) => Err(self.failed("did not say which ports it exposes")),
            None => Ok(Vec::new()),
        }
    }

    /// Waits until the dock shows that it is there, however long that takes; the reason why no link can be made is a
    /// value. If the agent does not run, it is not started, and this returns at once.
    ///
    /// # Errors
    /// An agent that does not answer.
    pub async fn alive(&self) -> Result<Result<(), Failure>> {
        let (mut stream, greeting) = match self.greet(false).await {
            Ok(greeted) => greeted,
            Err(cause) if is_absent(&cause) => return Ok(Ok(())),
            Err(cause) => return Err(self.silent(cause)),
        };
        self.check_protocol(&greeting)?;
        match self
            .call(&mut stream, Request::Life, &CallOptions::unattended())
            .await?
        {
            Reply::Failed(failure) if failure.kind != FailureKind::Unknown => Ok(Err(failure)),
            Reply::Done => Ok(Ok(())),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Whether a docked shell or a stream needs the agent; true if it does not answer.
    pub async fn is_in_use(&self) -> bool {
        let deadline = Instant::now() + CLOSING_LIMIT;
        loop {
            match self.status(false).await {
                Ok(Some(status)) if !status.holders.is_empty() => return true,
                // Our own streams may be about to close.
                Ok(Some(status)) if status.streams > 0 && Instant::now() < deadline => {}
                Ok(Some(status)) => return status.streams > 0,
                Ok(None) => return false,
                Err(_) => return true,
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    /// Ends the agent, and breaks the streams that are open. It is no failure if the agent does not run.
    ///
    /// # Errors
    /// An agent that does not end.
    pub async fn stop(&self) -> Result<()> {
        if self.ask_running(Request::Stop).await?.is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + CHANGE_LIMIT;
        // An agent that was killed before it could clean up leaves a socket that no process serves.
        while UnixStream::connect(self.paths.control_socket()).await.is_ok() {
            if Instant::now() > deadline {
                return Err(self.failed("does not end").hint(self.kill_hint()));
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
        Ok(())
    }

    /// Ends an agent that was started with another entry of the same dock, and breaks what is open. The next call starts one
    /// with today's entry, for the same shells. Returns whether one ran.
    ///
    /// # Errors
    /// As [`Agent::stop`], and a file that can't be removed.
    pub async fn forget_entry(&self) -> Result<bool> {
        let ran = self.status(false).await?.is_some();
        self.stop().await?;
        let file = self.paths.dock_file();
        match std::fs::remove_file(&file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::failed(format!("{} can't be removed", file.display())).because(cause))
            }
            _ => Ok(ran),
        }
    }

    /// Ends the agent, and removes all its files: for a dock that is forgotten.
    ///
    /// # Errors
    /// As [`Agent::stop`], and files that can't be removed.
    pub async fn remove(&self) -> Result<()> {
        self.stop().await?;
        let paths = &self.paths;
        paths.sweep(STALE);
        for file in [paths.made_file(), paths.mounted_file(), paths.told_file()]
            .into_iter()
            .chain(paths.files())
        {
            match std::fs::remove_file(&file) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::failed(format!("{} can't be removed", file.display())).because(cause));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a call, and answers its questions; the rest of the connection is the stream, if one was asked for.
    async fn open(&self, request: Request, options: &CallOptions) -> Result<UnixStream> {
        let mut stream = self.reach().await?;
        match self.call(&mut stream, request, options).await? {
            Reply::Done => Ok(stream),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// Makes a call to an agent that runs; `None` if it does not.
    async fn ask_running(&self, request: Request) -> Result<Option<Reply>> {
        self.paths.check()?;
        self.limited(async {
            let mut stream = match self.greet(false).await {
                Ok((stream, greeting)) => {
                    self.check_protocol(&greeting)?;
                    stream
                }
                Err(cause) if is_absent(&cause) => return Ok(None),
                Err(cause) => return Err(self.silent(cause)),
            };
            match self.call(&mut stream, request, &CallOptions::unattended()).await? {
                reply @ (Reply::Done | Reply::Status(_) | Reply::Exposed(_)) => Ok(Some(reply)),
                reply => Err(self.unexpected(reply)),
            }
        })
        .await
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(ANSWER_LIMIT + CHANGE_LIMIT, call).await {
            Ok(result) => result,
            Err(_) => Err(self.silent(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn call(&self, stream: &mut UnixStream, request: Request, options: &CallOptions) -> Result<Reply> {
        let call = Call {
            request,
            ssh_auth_sock: self.env.non_empty("SSH_AUTH_SOCK").map(PathBuf::from),
            person: options.person,
            accept_new: options.accept_new,
            brief: options.brief,
            forward: options.forward,
            named: options.named.clone(),
            expose: options.expose.clone(),
            patience_ms: u64::try_from(options.patience.as_millis()).unwrap_or(u64::MAX),
        };
        let gone = |cause: Option<io::Error>| {
            let error = Error::unreachable(format!("the agent of dock {:?} ended meanwhile", self.dock.moniker))
                .hint(hint!("try again; its log is {}", self.log_file().display()));
            match cause {
                Some(cause) => error.because(cause),
                None => error,
            }
        };
        let written = frame::write_message(stream, &call).await;
        written.map_err(|cause| gone(Some(cause)))?;
        loop {
            let reply = frame::read_message(stream).await;
            match reply.map_err(|cause| gone(Some(cause)))? {
                Some(Reply::Ask(question)) => {
                    let answering = async {
                        match question.kind {
                            QuestionKind::HostKey if options.accept_new => Some("yes".to_owned()),
                            _ if options.person => question::ask(&question).await,
                            _ => None,
                        }
                    };
                    let text = tokio::select! {
                        text = answering => text,
                        // The dock waits no longer; the answer would come too late.
                        _ = frame::incoming(stream) => continue,
                    };
                    let written = frame::write_message(stream, &Answer { text }).await;
                    written.map_err(|cause| gone(Some(cause)))?;
                }
                Some(reply) => return Ok(reply),
                None => return Err(gone(None)),
            }
        }
    }

    /// A connection to the agent, which is started if it does not run, and replaced if it is an older version with
    /// nothing open.
    async fn reach(&self) -> Result<UnixStream> {
        self.paths.check()?;
        let deadline = Instant::now() + CHANGE_LIMIT;
        loop {
            match self.greet(false).await {
                Ok((stream, greeting)) => {
                    if !is_older(&greeting) {
                        self.check_protocol(&greeting)?;
                        return Ok(stream);
                    }
                    // An agent of any version understands that.
                    match self.greet(true).await {
                        Ok((_, Greeting { leaving: false, .. })) => {
                            self.check_protocol(&greeting)?;
                            return Ok(stream);
                        }
                        Ok(_) => {}
                        Err(cause) if is_absent(&cause) => {}
                        Err(cause) => return Err(self.silent(cause)),
                    }
                }
                Err(cause) if is_absent(&cause) => match start::start(&self.paths, &self.dock, &self.env).await? {
                    Started::Ready => continue,
                    Started::Running => {}
                    Started::Failed { message, hint } => {
                        let error = Error::failed(message);
                        return Err(match hint {
                            Some(hint) => error.hint(hint),
                            None => error,
                        });
                    }
                },
                Err(cause) => return Err(self.silent(cause)),
            }
            if Instant::now() > deadline {
                return Err(self.failed("neither serves nor ends").hint(self.kill_hint()));
            }
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    async fn greet(&self, leave: bool) -> io::Result<(UnixStream, Greeting)> {
        greet(&self.paths.control_socket(), leave).await
    }

    fn check_protocol(&self, greeting: &Greeting) -> Result<()> {
        if greeting.dockerutils_agent == PROTOCOL {
            return Ok(());
        }
        let other = format!(
            "is of dockerutils {}, this command of {VERSION}, and their protocols differ",
            crate::text::visible(&greeting.version)
        );
        Err(self.failed(&other).hint(if greeting.streams > 0 {
            hint!(
                "{open} open through it; end what uses that and try again, or: kill {}",
                greeting.pid;
                open = crate::text::counted(greeting.streams, "connection")
            )
        } else {
            hint!("use the commands of that version, or: kill {}", greeting.pid)
        }))
    }

    fn unexpected(&self, reply: Reply) -> Error {
        match reply {
            Reply::Failed(failure) if failure.kind != FailureKind::Unknown => failure.into_error(),
            Reply::Failed(failure) => self
                .failed(&format!("refuses: {}", failure.message))
                .hint(self.kill_hint()),
            Reply::Ask(_) | Reply::Status(_) | Reply::Exposed(_) | Reply::Done => {
                self.failed("sent an unexpected answer")
            }
        }
    }

    fn silent(&self, cause: io::Error) -> Error {
        let error = Error::unreachable(format!("the agent of dock {:?} does not answer", self.dock.moniker));
        error.because(cause).hint(self.kill_hint())
    }

    fn failed(&self, what: &str) -> Error {
        Error::failed(format!("the agent of dock {:?} {what}", self.dock.moniker))
    }

    fn kill_hint(&self) -> String {
        let log = self.log_file();
        let written = std::fs::read_to_string(self.paths.lock_file()).unwrap_or_default();
        match written.trim().parse::<u32>() {
            Ok(pid) => hint!("kill {}, and try again; its log is {}", pid, log.display()),
            Err(_) => hint!("its log is {}", log.display()),
        }
    }
}

/// The first words with whoever serves a control socket.
async fn greet(control: &Path, leave: bool) -> io::Result<(UnixStream, Greeting)> {
    let greeting = async {
        let mut stream = UnixStream::connect(control).await?;
        // The user types passphrases for it.
        if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user serves its socket",
            ));
        }
        let hello = Hello {
            dockerutils_agent: PROTOCOL,
            version: VERSION.to_owned(),
            leave,
        };
        frame::write_message(&mut stream, &hello).await?;
        let greeting = frame::read_message(&mut stream).await?;
        Ok((stream, greeting.ok_or(io::ErrorKind::ConnectionReset)?))
    };
    tokio::time::timeout(GREETING_LIMIT, greeting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The dock and the container that answer at this port of this machine, forwarded by one of the agents with these
/// engine sockets ([`paths::engine_sockets`]).
pub async fn forwarded_here(port: u16, sockets: &[PathBuf], env: &Env) -> Option<(String, String)> {
    let asking = async {
        for socket in sockets {
            let Ok(Some(agent)) = Agent::of_engine_socket(socket, env) else {
                continue;
            };
            if let Ok(Some(status)) = agent.status(false).await
                && let Some(found) = status.ports.into_iter().find(|found| found.here == Some(port))
            {
                return Some((agent.dock.moniker.clone(), found.name));
            }
        }
        None
    };
    // The answer is only used in a message.
    tokio::time::timeout(CLOSING_LIMIT, asking).await.ok().flatten()
}

/// Whether no process serves a control socket: there never was one, it was killed, or it is just ending.
fn is_absent(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// Whether an agent's version is older than ours. A newer one that speaks our protocol is as good as our own.
fn is_older(greeting: &Greeting) -> bool {
    let numbers = |version: &str| -> Vec<u64> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    greeting.dockerutils_agent < PROTOCOL
        || (greeting.dockerutils_agent == PROTOCOL && numbers(&greeting.version) < numbers(VERSION))
}
