//! JupyterLab on a dock's bare machine: `nb-dock`.
//!
//! The server runs on the dock, detached from whatever started it, and listens on a Unix socket in a private folder there. A process
//! here listens on a port of 127.0.0.1, and has the dock's agent open a connection to that socket for each that comes. So a link that
//! is cut ends neither: connections break, the page dials again, and the kernels go on.
//!
//! The process here is `nb-dock` itself while it is in the foreground, and with `--detach` another one of it. An agent could do that,
//! too, but it ends when nothing has needed it for a while, is replaced by one of another version, and is restarted when it dies: a
//! port in it would have to be asked for again each time. A process of its own needs nothing but to live, and its lock
//! ([`forwarder`]) says whether it does.
//!
//! - [`plan`]: which server is meant; [`script`] and [`remote`]: starting, finding and stopping it on the dock;
//! - [`listener`]: the port here; [`forwarder`]: which process has it; [`watch`]: whether the server is still there.

mod forwarder;
mod listener;
mod plan;
mod remote;
mod script;
mod watch;

use std::cell::Cell;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setsid};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{sleep, timeout};

use self::forwarder::{Forwarder, ForwarderFile, ForwarderLock};
use self::listener::ServerPort;
use self::plan::DockNotebookPlan;
use self::remote::{DockServers, GRACE, ServerOnDock, StartRequest};
use super::dock_or_current;
use crate::agent::target::Target;
use crate::agent::wire::{Failure, FailureKind};
use crate::agent::{Agent, CallOptions};
use crate::browser;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::stream::Duplex;
use crate::docks::{Dock, Docks};
use crate::error::{Class, Error, ExitStatus, Result};
use crate::heartbeat::Heartbeat;
use crate::hexadecimal;
use crate::hint;
use crate::jupyter::client::{ServerAddress, ServerClient, ServerDialer, ServerError};
use crate::jupyter::runtime_file::RuntimeFile;
use crate::jupyter::token::Token;
use crate::ops::notebook::listener::ssh_line;
use crate::ops::notebook::stop::busy_kernels;
use crate::output::progress::waiting::WaitingRow;
use crate::output::table::{Align, Table};
use crate::output::{counted, one_line, visible};
use crate::patience::patiently;
use crate::shell;

/// How long JupyterLab may take to say where it listens. By a batch system it takes as long as that has no room.
const START_LIMIT: Duration = Duration::from_secs(180);
/// After how long a batch system is mentioned.
const QUEUED: Duration = Duration::from_secs(10);
/// How long it may take from there to its first answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// How long a socket may refuse, before it is asked why.
const SETTLED: Duration = Duration::from_secs(2);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long another process of ours may take to open its port.
const FORWARDER_LIMIT: Duration = Duration::from_secs(60);
/// How long that process may take to end.
const FORWARDER_END: Duration = Duration::from_secs(5);
/// How long a server may take to say how it is, where that is only shown.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of a server may take, with the dock's answer to it.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How long a link that is down is waited for by who is leaving.
const LEAVING: Duration = Duration::from_secs(5);
/// How much of what a process of ours complained about is read.
const COMPLAINT: u64 = 8 * 1024;
/// Where a server listens on the dock if no socket can be reached there.
const ON_DOCK: &str = "127.0.0.1";
/// How many busy kernels are named.
const NAMED: usize = 5;
/// The hidden option of the process that `--detach` starts.
pub const FORWARD_OPTION: &str = "forward-server";

/// What nb-dock is asked for.
#[derive(Clone, Debug, Default)]
pub struct DockNotebookArgs {
    /// The dock; none for the current one.
    pub name: Option<String>,
    /// The environment on the dock, by its name or path.
    pub environment: Option<String>,
    /// What starts it through a batch system, in one word.
    pub launch: Option<String>,
    /// The port here; any if there is none.
    pub port: Option<u16>,
    /// Leave it running.
    pub detach: bool,
    /// Open no browser.
    pub no_browser: bool,
    /// Further arguments of JupyterLab.
    pub arguments: Vec<String>,
    /// What is to be done.
    pub action: DockNotebookAction,
}

/// What is to be done with a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockNotebookAction {
    /// Start it, or find it.
    #[default]
    Start,
    /// List all of the user's.
    List,
    /// Stop the one of this ID, or the one that would be found.
    Stop(Option<String>),
    /// Lead to the one of this key, for a process that leaves.
    Forward(String),
}

/// A server, as JSON has it.
#[derive(Debug, Serialize)]
struct ServerDocument {
    /// Its key on the dock: what `--stop=ID` takes.
    id: String,
    /// Where it answers here; null if nothing leads there now.
    url: Option<String>,
    token: Option<String>,
    dock: String,
    port: Option<u16>,
    directory: String,
    /// The environment that it is from; null if it was found in the PATH.
    environment: Option<String>,
    /// RFC 3339.
    started: Option<String>,
    idle_seconds: Option<u64>,
    kernels: Option<u32>,
    connections: Option<u32>,
    error: Option<String>,
}

/// JupyterLab on a dock.
///
/// # Errors
/// No such dock, or one that is no machine; no JupyterLab there; a dock that can't be reached.
pub fn notebook(context: &Context, args: &DockNotebookArgs) -> Result<ExitStatus> {
    let dock = dock_or_current(context, args.name.as_deref())?;
    let agent = dock_engine::agent(&dock, &context.env)?.ok_or_else(|| no_machine(&dock))?;
    let plan = DockNotebookPlan::of(context, &dock, args)?;
    let session = Session {
        context,
        agent: &agent,
        plan: &plan,
        options: CallOptions::of_terminal(),
    };
    match &args.action {
        DockNotebookAction::List => context.block_on(session.list()),
        DockNotebookAction::Stop(id) if context.global.dry_run => {
            let what = id.as_deref().unwrap_or(&plan.request.key);
            context.printer.plan(&[format!(
                "stop the server {} on {}",
                visible(what),
                visible(&dock.moniker)
            )])?;
            Ok(ExitStatus::SUCCESS)
        }
        DockNotebookAction::Stop(id) => context.block_on(session.stop(id.as_deref())),
        DockNotebookAction::Start if context.global.dry_run => {
            context.printer.plan(&[plan.line()])?;
            Ok(ExitStatus::SUCCESS)
        }
        DockNotebookAction::Start => context.block_on_uninterrupted(session.start(args)),
        DockNotebookAction::Forward(key) => context.block_on_uninterrupted(session.forward(key)),
    }
}

fn no_machine(dock: &Dock) -> Error {
    Error::usage(format!(
        "{:?} is {}: its engine is all that can be reached, and JupyterLab would run beside it",
        dock.moniker,
        visible(&dock.access.place())
    ))
    .hint("register its machine, if it has an sshd: register-dock HOST MONIKER")
}

/// What a call works with.
struct Session<'a> {
    context: &'a Context,
    agent: &'a Agent,
    plan: &'a DockNotebookPlan,
    options: CallOptions,
}

/// A server that answers.
struct Ready {
    server: ServerOnDock,
    runtime: RuntimeFile,
    target: Target,
    token: Token,
    client: ServerClient,
}

/// What became of a server that listens.
enum Reached {
    Ready(Box<Ready>),
    /// The dock's sshd does not lead to where it listens.
    Forbidden {
        target: Target,
        failure: Failure,
    },
}

/// Ctrl-C, and the signal of who ends us.
struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|cause| Error::failed("signals can't be handled").because(cause));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl Session<'_> {
    fn moniker(&self) -> &str {
        &self.agent.dock().moniker
    }

    fn servers(&self) -> DockServers<'_> {
        DockServers {
            agent: self.agent,
            owner: self.context.env.user(),
            options: self.options.clone(),
        }
    }

    /// The same for who leaves: nobody is asked, and a link that is down is not waited for long.
    fn leaving(&self) -> DockServers<'_> {
        DockServers {
            options: CallOptions {
                patience: LEAVING,
                ..CallOptions::unattended()
            },
            ..self.servers()
        }
    }

    /// A client of a server, by streams of the agent.
    fn client(&self, runtime: &RuntimeFile, target: &Target, token: &Token) -> ServerClient {
        let (agent, target) = (self.agent.clone(), target.clone());
        let dialer = ServerDialer::new(move || {
            let (agent, target) = (agent.clone(), target.clone());
            async move {
                match agent.try_open(target, &CallOptions::unattended()).await {
                    Ok(Ok(stream)) => Ok(Box::new(stream) as Box<dyn Duplex>),
                    Ok(Err(failure)) => Err(io::Error::other(failure.message)),
                    Err(error) => Err(io::Error::other(error)),
                }
            }
        });
        let address = ServerAddress::Dialed(dialer);
        ServerClient::new(address, runtime.base_path.clone(), runtime.secure, token)
    }

    /// Starts a server or finds it, and leads there until it ends, or is ended.
    async fn start(&self, args: &DockNotebookArgs) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        let mut signals = Signals::listen()?;
        // Whether a server may run that this call has started.
        let (call, may_run) = (hexadecimal::random::<8>()?, Cell::new(false));
        let starting = async {
            self.agent.connect(&self.options).await?;
            let _heartbeat = Heartbeat::of(self.agent, printer, Arc::default());
            self.ready(&call, &may_run).await
        };
        let started = tokio::select! {
            started = starting => started,
            () = signals.next() => Err(Error::interrupted()),
        };
        let ready = match started {
            Ok(ready) => ready,
            Err(error) => {
                printer.screen().close();
                if may_run.get() {
                    self.undo(&call).await;
                }
                return Err(error);
            }
        };
        let file = ForwarderFile::of(self.agent, &ready.server.key, &self.context.env)?;
        let lock = match self.place(&file, &ready.server.call).await? {
            Ok(lock) => lock,
            Err(running) => {
                self.announce(&ready, &running, args, "").await?;
                return Ok(ExitStatus::SUCCESS);
            }
        };
        if args.detach {
            drop(lock);
            let running = self.spawn(&file, &ready.server.key).await?;
            let stop = hint!("it goes on by itself: nb-dock {} --stop ends it", self.moniker());
            self.announce(&ready, &running, args, &stop).await?;
            return Ok(ExitStatus::SUCCESS);
        }
        let port = ServerPort::open(self.plan.port, lock.last_port).await?;
        let running = lock.tell(port.number, &ready.server.call)?;
        let page = self
            .announce(&ready, &running, args, "Ctrl-C stops it, with its kernels")
            .await?;
        let (heartbeat, servers) = (Heartbeat::of(self.agent, printer, Arc::default()), self.servers());
        let ended = tokio::select! {
            never = port.serve(self.agent, &ready.target) => match never {},
            ended = watch::until_ended(self.agent, &servers, &ready.server, &ready.target, Some(printer), || true) => Some(ended),
            () = signals.next() => None,
        };
        drop((heartbeat, page));
        match ended {
            Some(ended) => ended?,
            None => self.end(&ready, &mut signals).await?,
        }
        file.forget();
        drop(lock);
        printer.note(&format!("JupyterLab on {} has ended", visible(self.moniker())));
        Ok(ExitStatus::SUCCESS)
    }

    /// A server that answers: the one that runs, or a new one. Where the dock's sshd leads to no socket, the new one listens on a port
    /// there instead.
    async fn ready(&self, call: &str, may_run: &Cell<bool>) -> Result<Ready> {
        let request = &self.plan.request;
        let (target, failure) = match self.ready_by(request, call, may_run).await? {
            Reached::Ready(ready) => return Ok(*ready),
            Reached::Forbidden { target, failure } => (target, failure),
        };
        // One that was found has kernels already, and where it is to listen may have been said.
        let is_socket = matches!(target, Target::Socket { .. });
        if !is_socket || !may_run.get() || request.says_address() {
            return Err(self.forbidden(&target, failure));
        }
        self.context.printer.warning(&format!(
            "the sshd of {} forwards to no Unix socket (AllowStreamLocalForwarding): JupyterLab listens on {ON_DOCK} there instead, a \
             port that every user of that machine can ask; its token keeps them out",
            visible(self.moniker())
        ));
        self.servers().stop(&request.key, call, Duration::ZERO, GRACE).await?;
        match self.ready_by(&request.at_address(ON_DOCK), call, may_run).await? {
            Reached::Ready(ready) => Ok(*ready),
            Reached::Forbidden { target, failure } => Err(self.forbidden(&target, failure)),
        }
    }

    /// [`Session::ready`], with what is started in one way.
    async fn ready_by(&self, request: &StartRequest, call: &str, may_run: &Cell<bool>) -> Result<Reached> {
        let printer = &self.context.printer;
        let moniker = visible(self.moniker());
        let servers = self.servers();
        let began = Instant::now();
        let row = WaitingRow::new(printer, &format!("starting JupyterLab on {moniker}"), began);
        let token = Token::generate()?;
        may_run.set(true);
        let start = servers.start(request, call, &token).await.inspect_err(|error| {
            // Where the dock has answered that it could not, there is nothing to undo.
            may_run.set(error.class() == Class::Unreachable);
        })?;
        may_run.set(!start.is_found);
        self.say(&start);
        let mut is_said = false;
        let (server, runtime) = loop {
            let looked = patiently(
                async || servers.look(&request.key).await,
                async || self.agent.connect(&self.options).await,
                |news| printer.warning(&news.to_string()),
            );
            let server = match looked.await? {
                Some(server) if server.lives => server,
                ended => return Err(self.died(ended.unwrap_or(start.server))),
            };
            if let Some(runtime) = server.runtime() {
                break (server, runtime);
            }
            let waited = began.elapsed();
            if let Some(why) = server.runtime_error().filter(|_| waited > START_LIMIT) {
                return Err(
                    Error::failed(format!("JupyterLab's runtime file on {moniker} can't be read")).because(why),
                );
            }
            if request.launch.is_empty() && waited > START_LIMIT {
                self.excerpt(&server);
                return Err(Error::failed(format!(
                    "JupyterLab on {moniker} has not said where it listens within {} s",
                    START_LIMIT.as_secs()
                ))
                .hint(hint!("ssh-dock {} {}", self.moniker(), shell::join([&server.program]))));
            }
            if !request.launch.is_empty() && waited > QUEUED && !std::mem::replace(&mut is_said, true) {
                printer.note(&format!(
                    "waiting for {} to start it; Ctrl-C gives it up",
                    visible(&shell::join(&request.launch))
                ));
            }
            sleep(PAUSE).await;
        };
        drop(row);
        let target = server.target(&runtime)?;
        let Some(token) = runtime.token.clone() else {
            return Err(Error::failed(format!(
                "JupyterLab on {moniker} asks for no token, and everybody on this machine could use it"
            ))
            .hint("take the empty token out of its configuration there: IdentityProvider.token, or ServerApp.token"));
        };
        let client = self.client(&runtime, &target, &token);
        if let Some(failure) = self.answers(&server, &target, &client).await? {
            return Ok(Reached::Forbidden { target, failure });
        }
        Ok(Reached::Ready(Box::new(Ready {
            server,
            runtime,
            target,
            token,
            client,
        })))
    }

    /// Says what was found and what was not.
    fn say(&self, start: &remote::Start) {
        let printer = &self.context.printer;
        let moniker = self.moniker();
        if start.is_found {
            printer.note(&format!("JupyterLab runs on {} already", visible(moniker)));
        }
        match (&start.absent, &self.plan.not_synced) {
            (Some(absent), _) => printer.warning(&format!(
                "{} is not on {} any more: JupyterLab starts in the home there",
                visible(absent),
                visible(moniker)
            )),
            (None, Some(project)) if !start.is_found => printer.note(&hint!(
                "{project} was never synced with {}, and JupyterLab starts in the home there: sync-up --dock {} sends it",
                moniker,
                moniker;
                project = visible(project)
            )),
            _ => {}
        }
    }

    /// Waits until a server that listens answers, and takes the token; the failure if sshd leads to no such target.
    async fn answers(&self, server: &ServerOnDock, target: &Target, client: &ServerClient) -> Result<Option<Failure>> {
        let moniker = visible(self.moniker());
        let began = Instant::now();
        loop {
            let why = match self.agent.try_open(target.clone(), &self.options).await? {
                Err(failure) if failure.kind == FailureKind::Forbidden => return Ok(Some(failure)),
                Err(failure) if failure.kind == FailureKind::NeedsPerson => return Err(failure.into_error()),
                Err(failure) if began.elapsed() > SETTLED && self.is_forbidden(server, target, &failure).await? => {
                    return Ok(Some(failure));
                }
                Err(failure) => failure.into_error(),
                Ok(stream) => {
                    drop(stream);
                    match client.status().await {
                        Ok(_) => return Ok(None),
                        Err(error @ ServerError::TokenRefused(_)) => {
                            return Err(Error::failed(format!("JupyterLab on {moniker} refuses its own token"))
                                .because(error)
                                .hint(hint!("nb-dock {} --stop, then nb-dock again", self.moniker())));
                        }
                        Err(error) => Error::failed("it does not answer as it should").because(error),
                    }
                }
            };
            if began.elapsed() > ANSWER_LIMIT {
                self.excerpt(server);
                return Err(Error::failed(format!("JupyterLab on {moniker} does not answer")).because(why));
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether it is for sshd that a server can't be reached: for sockets, sshd gives no reason. One that runs, and has said that it listens
    /// there, does.
    async fn is_forbidden(&self, server: &ServerOnDock, target: &Target, failure: &Failure) -> Result<bool> {
        if !matches!(target, Target::Socket { .. }) || failure.kind != FailureKind::Refused {
            return Ok(false);
        }
        let now = self.servers().look_now(&server.key).await?;
        Ok(now.is_some_and(|now| now.lives && now.call == server.call))
    }

    /// The error of a dock whose sshd leads to no such target.
    fn forbidden(&self, target: &Target, failure: Failure) -> Error {
        let hint = match target {
            Target::Socket { .. } => hint!(
                "`AllowStreamLocalForwarding yes` in its sshd's configuration; or nb-dock {} --stop, then nb-dock again without --sock: \
                 a new server listens on 127.0.0.1 there",
                self.moniker()
            ),
            _ => "`AllowTcpForwarding yes` in its sshd's configuration".to_owned(),
        };
        Error::failed(failure.message).hint(hint)
    }

    /// The last lines of a server's log.
    fn excerpt(&self, server: &ServerOnDock) {
        let lines: Vec<String> = server
            .log
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(visible)
            .collect();
        if !lines.is_empty() {
            self.context.printer.excerpt(&lines.join("\n"));
        }
    }

    /// The error of a server that ended before it answered.
    fn died(&self, server: ServerOnDock) -> Error {
        self.excerpt(&server);
        Error::failed(format!("JupyterLab on {} ended at its start", visible(self.moniker()))).hint(hint!(
            "the lines above are its own; ssh-dock {} {} shows all of them",
            self.moniker(),
            shell::join([&server.program])
        ))
    }

    /// Ends a server that was started in vain.
    async fn undo(&self, call: &str) {
        let servers = self.leaving();
        let stopping = servers.stop(&self.plan.request.key, call, Duration::ZERO, GRACE);
        let why = match timeout(STOP_LIMIT, stopping).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.with_causes(),
            Err(_) => "it does not answer".to_owned(),
        };
        self.context.printer.warning(&hint!(
            "JupyterLab may run on {} now ({why}); nb-dock {} --stop ends it",
            self.moniker(),
            self.moniker();
            why = why
        ));
    }

    /// The right to lead to the server of this call, or who does that already.
    async fn place(&self, file: &ForwarderFile, call: &str) -> Result<Result<ForwarderLock, Forwarder>> {
        let began = Instant::now();
        loop {
            match file.running() {
                Some(running) if running.call == call => return Ok(Err(running)),
                // It leads to an earlier one, which has ended.
                Some(running) => end_forwarder(file, &running).await,
                None => {}
            }
            if let Some(lock) = file.try_take()? {
                return Ok(Ok(lock));
            }
            if began.elapsed() > FORWARDER_LIMIT {
                return Err(Error::failed(format!(
                    "another nb-dock is about to lead to JupyterLab on {}, and does not say where",
                    visible(self.moniker())
                ))
                .hint("if it is stopped, continue it (fg); else end it"));
            }
            sleep(PAUSE).await;
        }
    }

    /// Shows where a server answers. What is returned keeps the file that the browser reads.
    async fn announce(
        &self,
        ready: &Ready,
        running: &Forwarder,
        args: &DockNotebookArgs,
        note: &str,
    ) -> Result<Option<browser::OpenedPage>> {
        let printer = &self.context.printer;
        let url = url(running.port, &ready.runtime, &ready.token);
        let wanted = self.plan.port.filter(|port| *port != 0 && *port != running.port);
        if let Some(wanted) = wanted {
            printer.warning(&format!(
                "process {} leads there already, at port {} and not at {wanted}",
                running.pid, running.port
            ));
        }
        if printer.json() {
            printer.result_json(&self.document(&ready.server, Some(running)).await)?;
            return Ok(None);
        }
        printer.note(&format!(
            "JupyterLab on {}, in {}, from {}",
            visible(self.moniker()),
            visible(&ready.server.directory),
            ready.server.environment()
        ));
        printer.result(&url);
        if let Some(line) = ssh_line(&self.context.env, running.port) {
            printer.note(&format!("from the machine that this shell came from: {line}"));
        }
        if !note.is_empty() {
            printer.note(note);
        }
        if args.no_browser {
            return Ok(None);
        }
        match browser::open(&self.context.env, &url).await {
            Ok(mut page) => {
                if running.pid != std::process::id() {
                    page.is_read().await;
                }
                Ok(Some(page))
            }
            Err(why) => {
                printer.note(&why.to_string());
                Ok(None)
            }
        }
    }

    /// What JSON says of a server.
    async fn document(&self, server: &ServerOnDock, running: Option<&Forwarder>) -> ServerDocument {
        let mut document = ServerDocument {
            id: server.key.clone(),
            url: None,
            token: None,
            dock: self.moniker().to_owned(),
            port: running.map(|running| running.port),
            directory: server.directory.clone(),
            environment: Some(server.prefix.clone()).filter(|prefix| !prefix.is_empty()),
            started: None,
            idle_seconds: None,
            kernels: None,
            connections: None,
            error: None,
        };
        let Some(runtime) = server.runtime() else {
            document.error = Some("it has not said yet where it listens".to_owned());
            return document;
        };
        let Some(token) = runtime.token.clone() else {
            document.error = Some("it asks for no token".to_owned());
            return document;
        };
        document.url = running.map(|running| url(running.port, &runtime, &token));
        document.token = Some(token.reveal().to_owned());
        let target = match server.target(&runtime) {
            Ok(target) => target,
            Err(error) => {
                document.error = Some(error.with_causes());
                return document;
            }
        };
        match self
            .client(&runtime, &target, &token)
            .within(STATUS_LIMIT)
            .status()
            .await
        {
            Ok(status) => {
                document.started = Some(status.started.to_string());
                document.idle_seconds = Some(status.idle.as_secs());
                document.kernels = Some(status.kernels);
                document.connections = Some(status.connections);
            }
            Err(error) => document.error = Some(Error::failed(error.to_string()).because(error).with_causes()),
        }
        document
    }

    /// Ends the server at the user's request, and at once if that is said twice.
    async fn end(&self, ready: &Ready, signals: &mut Signals) -> Result<()> {
        let printer = &self.context.printer;
        let (moniker, server) = (visible(self.moniker()), &ready.server);
        printer.note(&format!("stopping JupyterLab on {moniker}; Ctrl-C again kills it"));
        let properly = async {
            self.name_busy(&ready.client).await;
            self.stop_properly(&self.leaving(), Some(&ready.client), server).await
        };
        let ended = tokio::select! {
            ended = timeout(STOP_LIMIT, properly) => ended,
            () = signals.next() => {
                let servers = self.leaving();
                let killing = servers.stop(&server.key, &server.call, Duration::ZERO, Duration::ZERO);
                tokio::select! {
                    ended = timeout(STOP_LIMIT, killing) => ended,
                    // The third one.
                    () = signals.next() => Ok(Err(Error::interrupted())),
                }
            }
        };
        let error = match ended {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => Error::unreachable(format!("dock {:?} does not answer", self.moniker())),
        };
        Err(Error::new(
            error.class(),
            format!("JupyterLab runs on on {moniker}, with its kernels"),
        )
        .because(error)
        .hint(hint!(
            "nb-dock {} goes on with it, nb-dock {} --stop ends it",
            self.moniker(),
            self.moniker()
        )))
    }

    /// Names the kernels whose work is about to be lost.
    async fn name_busy(&self, client: &ServerClient) {
        let busy = match timeout(STATUS_LIMIT, busy_kernels(client)).await {
            Ok(Ok(busy)) if !busy.is_empty() => busy,
            _ => return,
        };
        let names: Vec<String> = busy.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if busy.len() > NAMED { ", ..." } else { "" };
        self.context.printer.warning(&format!(
            "{} at work: {}{more}",
            counted(busy.len(), "kernel"),
            names.join(", ")
        ));
    }

    /// Has a server end by itself, and sees to it that it does.
    async fn stop_properly(
        &self,
        servers: &DockServers<'_>,
        client: Option<&ServerClient>,
        server: &ServerOnDock,
    ) -> Result<()> {
        let grace = match client {
            // One that does not take the request is told by a signal.
            Some(client) if client.clone().within(STATUS_LIMIT).shutdown().await.is_ok() => GRACE,
            _ => Duration::ZERO,
        };
        servers.stop(&server.key, &server.call, grace, GRACE).await
    }

    /// Lists the user's servers on the dock.
    async fn list(&self) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        self.agent.connect(&self.options).await?;
        let _heartbeat = Heartbeat::of(self.agent, printer, Arc::default());
        let mut rows = Vec::new();
        for server in self.servers().list().await? {
            let file = ForwarderFile::of(self.agent, &server.key, &self.context.env)?;
            rows.push(self.document(&server, file.running().as_ref()).await);
        }
        if printer.json() {
            printer.result_json(&rows)?;
        } else if rows.is_empty() {
            printer.note(&format!("no JupyterLab of yours runs on {}", visible(self.moniker())));
        } else {
            printer.table(&table(&rows));
        }
        Ok(ExitStatus::SUCCESS)
    }

    /// Stops the server of this ID, the one that this call would find, or the only one.
    async fn stop(&self, id: Option<&str>) -> Result<ExitStatus> {
        let printer = &self.context.printer;
        self.agent.connect(&self.options).await?;
        let _heartbeat = Heartbeat::of(self.agent, printer, Arc::default());
        let servers = self.servers();
        let server = chosen(servers.list().await?, id, &self.plan.request.key, self.moniker())?;
        let file = ForwarderFile::of(self.agent, &server.key, &self.context.env)?;
        let running = file.running();
        let document = self.document(&server, running.as_ref()).await;
        let client = server.runtime().and_then(|runtime| {
            let target = server.target(&runtime).ok()?;
            let token = runtime.token.clone()?;
            Some(self.client(&runtime, &target, &token))
        });
        if let Some(client) = &client {
            self.name_busy(client).await;
        }
        self.stop_properly(&servers, client.as_ref(), &server).await?;
        if let Some(running) = running {
            end_forwarder(&file, &running).await;
        }
        file.forget();
        if printer.json() {
            printer.result_json(&document)?;
        } else {
            printer.note(&format!(
                "JupyterLab on {}, in {}, has ended",
                visible(self.moniker()),
                visible(&server.directory)
            ));
        }
        Ok(ExitStatus::SUCCESS)
    }

    /// Starts a process that leads to a server when this one has ended.
    async fn spawn(&self, file: &ForwarderFile, key: &str) -> Result<Forwarder> {
        let failed =
            |cause: io::Error| Error::failed("the process that leads to JupyterLab can't be started").because(cause);
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg(self.moniker())
            .arg(format!("--{FORWARD_OPTION}={key}"))
            .arg("--quiet")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(port) = self.plan.port {
            command.arg(format!("--port={port}"));
        }
        let mut child = command.spawn().map_err(failed)?;
        let began = Instant::now();
        loop {
            if let Some(running) = file.running() {
                return Ok(running);
            }
            if let Some(status) = child.try_wait().map_err(failed)? {
                let mut said = String::new();
                if let Some(stderr) = child.stderr.take() {
                    // What it could not say is not waited for.
                    let _ = timeout(PAUSE, stderr.take(COMPLAINT).read_to_string(&mut said)).await;
                }
                let said = one_line(said.trim().trim_start_matches("nb-dock: "));
                return Err(Error::failed(match status.code() {
                    Some(0) => "the process that leads to JupyterLab ended at once: it found no server".to_owned(),
                    _ => format!("the process that leads to JupyterLab ended at once: {said}"),
                })
                .hint(hint!(
                    "JupyterLab runs: nb-dock {} leads there, nb-dock {} --stop ends it",
                    self.moniker(),
                    self.moniker()
                )));
            }
            if began.elapsed() > FORWARDER_LIMIT {
                let _ = child.start_kill();
                return Err(Error::failed(format!(
                    "the process that leads to JupyterLab does not say where within {} s",
                    FORWARDER_LIMIT.as_secs()
                )));
            }
            sleep(PAUSE / 4).await;
        }
    }

    /// What that process does: leads to the server of this key until it has ended.
    async fn forward(&self, key: &str) -> Result<ExitStatus> {
        // A terminal that is closed is none of its business. It fails where that is so already.
        let _ = setsid();
        let mut signals = Signals::listen()?;
        let file = ForwarderFile::of(self.agent, key, &self.context.env)?;
        let Some(lock) = file.try_take()? else {
            return Ok(ExitStatus::SUCCESS);
        };
        let servers = self.servers();
        let found = servers.look(key).await?;
        let Some((server, runtime)) = found.and_then(|server| server.runtime().map(|runtime| (server, runtime))) else {
            return Ok(ExitStatus::SUCCESS);
        };
        let target = server.target(&runtime)?;
        let port = ServerPort::open(self.plan.port, lock.last_port).await?;
        lock.tell(port.number, &server.call)?;
        // A dock that was taken off the list is dialed no more.
        let is_listed = || Docks::read(&self.context.env).is_ok_and(|docks| docks.find(self.moniker()).is_some());
        tokio::select! {
            never = port.serve(self.agent, &target) => match never {},
            ended = watch::until_ended(self.agent, &servers, &server, &target, None, is_listed) => {
                ended?;
                file.forget();
            }
            () = signals.next() => {}
        }
        drop(lock);
        Ok(ExitStatus::SUCCESS)
    }
}

/// `http://127.0.0.1:PORT/lab?token=...`.
fn url(port: u16, runtime: &RuntimeFile, token: &Token) -> String {
    let scheme = if runtime.secure { "https" } else { "http" };
    format!(
        "{scheme}://127.0.0.1:{port}{}?{}",
        runtime.base_path.join("lab"),
        token.in_query()
    )
}

/// The server that is to be stopped.
fn chosen(all: Vec<ServerOnDock>, id: Option<&str>, own: &str, moniker: &str) -> Result<ServerOnDock> {
    let ids: Vec<String> = all.iter().map(|server| visible(&server.key)).collect();
    let is_only = all.len() == 1;
    let mut all = all.into_iter();
    let found = match id {
        Some(id) => all.find(|server| server.key == id),
        None => all.find(|server| server.key == own || is_only),
    };
    match (found, ids.first(), id) {
        (Some(server), ..) => Ok(server),
        (None, None, _) => Err(
            Error::failed(format!("no JupyterLab of yours runs on dock {moniker:?}"))
                .hint(hint!("nb-dock {} starts one", moniker)),
        ),
        (None, Some(_), Some(id)) => Err(
            Error::usage(format!("no server {id:?} of yours runs on dock {moniker:?}"))
                .hint(hint!("nb-dock {} --list shows them: {ids}", moniker; ids = ids.join(", "))),
        ),
        (None, Some(first), None) => Err(Error::usage(format!(
            "{} of yours run on dock {moniker:?}, and none of them belongs to this folder",
            counted(ids.len(), "JupyterLab server")
        ))
        .hint(hint!(
            "nb-dock {} --list shows them; nb-dock {} --stop={}",
            moniker,
            moniker,
            first
        ))),
    }
}

/// Ends the process that led to a server which has ended: it would notice by itself, some seconds later.
async fn end_forwarder(file: &ForwarderFile, running: &Forwarder) {
    let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
    // It holds the lock still: the number is its own.
    if let Some(pid) = pid
        && file.running().as_ref() == Some(running)
    {
        let _ = kill_process(pid, Signal::TERM);
    }
    let began = Instant::now();
    while file.running().as_ref() == Some(running) && began.elapsed() < FORWARDER_END {
        sleep(PAUSE / 4).await;
    }
}

fn table(rows: &[ServerDocument]) -> Table {
    let mut table = Table::new(vec![
        ("ID", Align::Left),
        ("DIRECTORY", Align::Left),
        ("ENVIRONMENT", Align::Left),
        ("HERE", Align::Left),
        ("KERNELS", Align::Right),
        ("CONNECTIONS", Align::Right),
        ("IDLE", Align::Right),
    ])
    .dropping(["ENVIRONMENT", "CONNECTIONS"]);
    for row in rows {
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let here = row
            .port
            .map_or_else(|| "-".to_owned(), |port| format!("127.0.0.1:{port}"));
        table.row([
            visible(&row.id),
            visible(&row.directory),
            visible(row.environment.as_deref().unwrap_or("-")),
            here,
            number(row.kernels),
            number(row.connections),
            match (&row.error, row.idle_seconds) {
                (Some(error), _) => one_line(error),
                (None, Some(seconds)) => format!("{} min", seconds / 60),
                (None, None) => "-".to_owned(),
            },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(key: &str) -> ServerOnDock {
        ServerOnDock {
            key: key.into(),
            ..ServerOnDock::default()
        }
    }

    #[test]
    fn the_server_that_is_stopped_is_the_named_one_ones_own_or_the_only_one() {
        let choose = |keys: &[&str], id: Option<&str>| {
            let all = keys.iter().map(|key| server(key)).collect();
            chosen(all, id, "own", "far").map(|server| server.key)
        };
        assert_eq!(choose(&["a", "own"], None).unwrap(), "own");
        assert_eq!(choose(&["a", "own"], Some("a")).unwrap(), "a");
        assert_eq!(choose(&["a"], None).unwrap(), "a");
        let none = choose(&[], None).unwrap_err();
        assert!(none.to_string().starts_with("no JupyterLab of yours runs"), "{none:?}");
        let several = choose(&["a", "b"], None).unwrap_err();
        assert!(
            several.hint_text().unwrap().ends_with("nb-dock far --stop=a"),
            "{several:?}"
        );
        let other = choose(&["a"], Some("b")).unwrap_err();
        assert!(other.to_string().contains("no server \"b\" of yours"), "{other:?}");
    }

    #[test]
    fn the_url_leads_to_lab_with_the_token() {
        let runtime =
            RuntimeFile::parse(br#"{"pid": 1, "sock": "/s", "base_url": "/user/ann/", "token": "a+b"}"#).unwrap();
        let token = runtime.token.clone().unwrap();
        assert_eq!(
            url(8889, &runtime, &token),
            "http://127.0.0.1:8889/user/ann/lab?token=a%2Bb"
        );
    }

    #[test]
    fn a_server_is_a_line_of_the_list() {
        let row = ServerDocument {
            id: "0f3a".into(),
            url: None,
            token: Some("secret".into()),
            dock: "far".into(),
            port: Some(8888),
            directory: "/data\x1b[2J".into(),
            environment: None,
            started: None,
            idle_seconds: Some(125),
            kernels: Some(2),
            connections: Some(1),
            error: None,
        };
        let lines = table(&[row]).lines();
        assert!(!lines.join("\n").contains("secret"), "{lines:?}");
        assert!(lines[1].starts_with("0f3a  /data  "), "{lines:?}");
        assert!(lines[1].ends_with("2 min"), "{lines:?}");
    }
}
