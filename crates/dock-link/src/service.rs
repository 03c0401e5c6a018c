//! What the worker does: serves the two sockets, and knows how long to live.
//!
//! It lives while a stream is open or a docked shell lives, and some minutes more. What else it does for its dock (the
//! ports of containers, [`crate::ports`]) runs beside the two sockets in [`Service::run`], opens its streams with
//! [`Link::open`] as they do, and keeps the agent alive while it needs it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::target::Target;
use dock_client::agent::wire::{
    Answer, Call, FAILURE_HEADER, Failure, FailureKind, Greeting, Hello, PROTOCOL, Port, Reply, Request, Status,
    VERSION,
};
use dock_client::agent::{ShellDemand, descriptor, frame};
use dock_client::docks::Dock;
use dock_client::env::Env;
use dock_client::shell::quote;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::context_socket;
use crate::exposures::Exposures;
use crate::http;
use crate::link::{Link, OpenOptions, Over};
use crate::log::Log;
use crate::mounts::projects::MountedProjects;
use crate::mounts::sources::HostPaths;
use crate::mounts::translation::{ClientConnection, PathOwner};
use crate::notices::Notices;
use crate::ports::{Demand, Ports};
use crate::prompts::{PendingQuestion, Prompts, Subscription};
use crate::relay;
use crate::shells::Shells;
use crate::timing::Timing;
use crate::transport::{Connection, Connector, TransportError};
use dock_client::mutex::lock;

/// How many bytes of a frame are for ports: the rest is for the other fields of a status.
const PORTS_ROOM: usize = frame::FRAME_LIMIT / 2;
/// How many bytes the mounts may have in it.
const MOUNTS_ROOM: usize = frame::FRAME_LIMIT / 4;
/// How long a command may take to send its request.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// How long a docker client waits for a link that is being restored.
const ENGINE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a socket is left alone when this process has no descriptors left.
const SURFEIT: Duration = Duration::from_millis(100);
/// How many bytes of a request are read before it is answered that the dock can't be reached.
const REQUEST_HEAD: usize = 64 * 1024;
/// How long that reading may take, and how long the client has to read the answer.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(2);

/// The sockets that an agent serves.
#[derive(Debug)]
pub struct Sockets {
    /// On which commands speak to the agent.
    pub control: UnixListener,
    /// Which speaks the engine's API.
    pub engine: UnixListener,
}

/// Why a worker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// Nothing needs it.
    Idle,
    /// It was told to end.
    Stopped,
}

/// An agent at work.
pub struct Service<C: Connector> {
    dock: Dock,
    paths: AgentPaths,
    timing: Timing,
    log: Log,
    prompts: Arc<Prompts>,
    link: Link<C>,
    shells: Arc<Mutex<Shells>>,
    streams: Arc<Streams>,
    ports: Arc<Ports>,
    exposures: Arc<Exposures>,
    notices: Arc<Notices>,
    projects: Arc<MountedProjects>,
    ending: Notify,
}

/// How many streams are open, and when the last one ended.
pub(crate) struct Streams {
    open: AtomicUsize,
    last: Mutex<Instant>,
    /// Whether all streams so far were brief ones.
    brief: AtomicBool,
}

/// Who speaks to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// A command of ours, which has said so on the control socket. What it sends to the engine says nothing about that: anybody's
    /// container may bear our labels.
    OwnCommand,
    /// Any program.
    Program,
}

/// One stream among them.
pub(crate) struct StreamGuard(Arc<Streams>);

impl Streams {
    /// None yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            brief: AtomicBool::new(true),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>, brief: bool) -> StreamGuard {
        if !brief {
            self.brief.store(false, Ordering::Release);
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        StreamGuard(Arc::clone(self))
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// How long there has been no stream; zero while there is one.
    fn idle(&self) -> Duration {
        match self.open() {
            0 => lock(&self.last).elapsed(),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn touch(&self) {
        *lock(&self.last) = Instant::now();
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<C: Connector> Service<C> {
    /// An agent of this dock with these paths, which makes its links with `connector`.
    pub fn new(dock: Dock, paths: AgentPaths, connector: C, timing: Timing, log: Log) -> Arc<Self> {
        let shells = Shells::read(&paths.shells_file());
        let mut key_agents = shells.key_agents.clone();
        // The ssh-agent of the shell that started us, unless an earlier agent has left a newer one.
        if key_agents.is_empty() {
            key_agents.extend(
                std::env::var_os("SSH_AUTH_SOCK")
                    .filter(|socket| !socket.is_empty())
                    .map(Into::into),
            );
        }
        let prompts = Prompts::new(timing.answer, key_agents);
        let streams = Streams::new();
        let shells = Arc::new(Mutex::new(shells));
        let moniker = dock.moniker.clone();
        let env = Env::from_process();
        let host = HostPaths {
            state: paths.state_directory().to_owned(),
            home: env.home(),
            moniker: moniker.clone(),
            engine_sockets: vec![paths.engine_socket(), paths.context_socket()],
        };
        let notices = Notices::new(moniker, paths.clone(), Arc::clone(&shells), log.clone());
        let ports = Ports::new(
            &paths,
            env.user(),
            Arc::clone(&streams),
            Arc::clone(&notices),
            log.clone(),
        );
        let exposures = Exposures::new(Arc::clone(&notices), Arc::clone(&streams), log.clone());
        Arc::new(Self {
            exposures,
            link: Link::new(connector, Arc::clone(&prompts), timing.clone(), log.clone()),
            dock,
            timing,
            prompts,
            shells,
            projects: MountedProjects::new(
                host,
                paths.mounted_file(),
                Arc::clone(&notices),
                Arc::clone(&ports),
                log.clone(),
            ),
            ports,
            notices,
            streams,
            paths,
            log,
            ending: Notify::new(),
        })
    }

    /// Serves until nothing needs the agent, or it is told to stop (also by [`Service::stop`]).
    pub async fn run(self: Arc<Self>, sockets: Sockets) -> ShutdownReason {
        let mut tasks = JoinSet::new();
        self.tell_ports();
        let ports = Arc::clone(&self.ports);
        let link = self.link.clone();
        tasks.spawn(async move { ports.run(link).await });
        tasks.spawn(Arc::clone(&self.exposures).run(self.link.clone()));
        tasks.spawn(Arc::clone(&self.projects).run(self.link.clone()));
        tasks.spawn(Arc::clone(&self).accept_calls(sockets.control));
        tasks.spawn(Arc::clone(&self).accept_engine(sockets.engine, std::future::pending()));
        let ending = tokio::select! {
            ending = self.live() => ending,
            () = self.ending.notified() => ShutdownReason::Stopped,
        };
        self.log.line(match ending {
            ShutdownReason::Idle => "nothing needs this agent any more",
            ShutdownReason::Stopped => "this agent was told to end",
        });
        // What syncs for containers does its last sync by way of this agent.
        self.projects.close().await;
        // This also ends the connections.
        tasks.shutdown().await;
        self.ports.close().await;
        self.link.rest();
        ending
    }

    /// Ends the agent, and breaks what is open.
    pub fn stop(&self) {
        self.ending.notify_one();
    }

    /// Checks regularly what can't be waited for, until there is nothing left to live for.
    async fn live(&self) -> ShutdownReason {
        let own = inode(&self.paths.engine_socket());
        let (mut clock, mut ticks) = (SystemTime::now(), Instant::now());
        loop {
            tokio::time::sleep(self.timing.tick).await;
            // The monotonic clock stands still while the machine sleeps; the other one doesn't.
            let (clock_now, ticks_now) = (SystemTime::now(), Instant::now());
            let ahead = clock_now.duration_since(clock).unwrap_or_default();
            if has_slept(ahead, ticks_now - ticks, self.timing.slept) {
                self.log.line(format!("this machine slept for {} s", ahead.as_secs()));
                self.link.examine().await;
            }
            (clock, ticks) = (clock_now, ticks_now);
            let (is_needed, have_ended) = {
                let mut shells = lock(&self.shells);
                let have_ended = shells.forget_dead();
                if have_ended {
                    // A shell that has just ended may be followed by its last command.
                    self.streams.touch();
                    self.keep(&shells);
                }
                (shells.stays || !shells.holders.is_empty(), have_ended)
            };
            if have_ended {
                self.notices.clean();
            }
            self.tell_ports();
            let keeps = self.ports.keeps() || self.projects.keeps();
            let keeps_link = keeps || self.exposures.keeps();
            let idle = self.streams.idle();
            let limit = match self.streams.brief.load(Ordering::Acquire) {
                true => self.timing.idle_brief,
                false => self.timing.idle_agent,
            };
            // The directory of sockets was cleared, or another agent has taken over: no program can find this one any
            // more.
            let is_lost = own.is_some() && inode(&self.paths.engine_socket()) != own;
            if is_lost && self.streams.open() == 0 || !is_needed && !keeps && idle > limit {
                return ShutdownReason::Idle;
            }
            if idle > self.timing.idle_link && !keeps_link {
                self.link.rest();
            }
        }
    }

    /// Passes on whose ports are wanted (none if there were only brief calls), and which of this machine's are exposed.
    fn tell_ports(&self) {
        let shells = lock(&self.shells);
        self.exposures.want(shells.exposed());
        // A docker context needs ports as a shell does.
        let has_shells = shells.stays || !shells.holders.is_empty();
        let needed = has_shells || !self.streams.brief.load(Ordering::Acquire);
        let forward = shells.forward().unwrap_or(self.dock.forward);
        let demand = Demand {
            forward,
            named: shells.named(),
        };
        self.ports.want(needed.then_some(demand), has_shells);
    }

    fn keep(&self, shells: &Shells) {
        if let Err(cause) = shells.write(&self.paths.shells_file()) {
            self.log.line(format!("the list of shells can't be written: {cause}"));
        }
    }

    async fn accept_calls(self: Arc<Self>, listener: UnixListener) {
        let mut tasks = JoinSet::new();
        loop {
            let stream = accept(&listener, &mut tasks, &self.log).await;
            let service = Arc::clone(&self);
            tasks.spawn(async move {
                // A command that goes away in the middle is not worth a line in the log.
                let _ = service.serve_call(stream).await;
            });
        }
    }

    /// Serves docker clients: new ones until `end`, those that have come to their own end.
    async fn accept_engine(self: Arc<Self>, listener: UnixListener, end: impl Future<Output = ()> + Send) {
        let mut tasks = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            let stream = tokio::select! {
                stream = accept(&listener, &mut tasks, &self.log) => stream,
                () = &mut end => break,
            };
            let service = Arc::clone(&self);
            tasks.spawn(async move { service.serve_engine(stream, Caller::Program).await });
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    /// Serves the socket of a docker context, on which systemd listens, until who brings it goes.
    async fn serve_context(self: &Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        frame::write_message(&mut stream, &Reply::Done).await?;
        let received = within_limit(descriptor::receive(&stream)).await?;
        let listener = match context_socket::check(received, &self.paths.context_socket()) {
            Ok(listener) => UnixListener::from_std(listener)?,
            Err(cause) => {
                let failure = Failure {
                    message: format!("what was to be served is no socket of its docker context: {cause}"),
                    hint: None,
                    kind: FailureKind::Unknown,
                };
                return frame::write_message(&mut stream, &Reply::Failed(failure)).await;
            }
        };
        frame::write_message(&mut stream, &Reply::Done).await?;
        let end = async {
            // Whatever it says, it has no more to say than its end.
            let _ = frame::incoming(&stream).await;
        };
        Arc::clone(self).accept_engine(listener, end).await;
        Ok(())
    }

    /// A connection of a docker client, or of anything else that speaks to an engine.
    async fn serve_engine(&self, stream: UnixStream, caller: Caller) {
        let _open = self.streams.begin(false);
        self.tell_ports();
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: ENGINE_PATIENCE,
            answers: false,
        };
        match self.link.open(options, &Target::Engine).await {
            Ok((connection, over)) => {
                let hooks = self.hooks(&stream, caller);
                http::relay::engine(stream, connection.stream, over, &hooks).await;
            }
            Err(error) => {
                self.log.line(format!("a docker client was refused: {error}"));
                // A client that has gone already misses nothing.
                let kind = Failure::from(error.clone()).kind;
                let _ = timeout(2 * REQUEST_LIMIT, refuse(stream, kind, &self.refusal(error))).await;
            }
        }
    }

    /// What decides about the requests of a client of the engine.
    fn hooks(&self, stream: &UnixStream, caller: Caller) -> ClientConnection<C> {
        let paths = match caller {
            // They have sent their projects, and mount the copies.
            Caller::OwnCommand => PathOwner::Dock,
            Caller::Program => {
                let client = stream.peer_cred().ok().and_then(|peer| peer.pid());
                PathOwner::of(&self.dock, client)
            }
        };
        let (projects, ports) = (Arc::clone(&self.projects), Arc::clone(&self.ports));
        let exposures = Arc::clone(&self.exposures);
        ClientConnection::new(projects, self.link.clone(), ports, exposures, &self.dock, paths)
    }

    /// The message that a docker client shows its user.
    fn refusal(&self, error: TransportError) -> String {
        let moniker = &self.dock.moniker;
        let hint = error.hint.unwrap_or_else(|| match error.kind {
            crate::transport::TransportErrorKind::NeedsPerson => {
                format!("to log in again: ssh-dock {} true", quote(moniker))
            }
            _ => format!("to see what is wrong: ls-dock --check {}", quote(moniker)),
        });
        format!("dock {moniker:?} can't be reached: {} ({hint})", error.message)
    }

    async fn serve_call(self: &Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        let Some(hello) = within_limit(frame::read_message::<Hello>(&mut stream)).await? else {
            return Ok(());
        };
        let leaving = hello.leave && self.streams.open() == 0;
        let greeting = Greeting {
            dockerutils_agent: PROTOCOL,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            streams: self.streams.open(),
            leaving,
        };
        frame::write_message(&mut stream, &greeting).await?;
        if hello.leave || hello.dockerutils_agent != PROTOCOL {
            if leaving {
                self.log.line(format!("makes room for dockerutils {}", hello.version));
                self.stop();
            }
            return Ok(());
        }
        // After that, there is time: the client may read the greeting first, or may only have wanted that.
        let call = match within_limit(frame::read_message::<Call>(&mut stream)).await {
            Ok(Some(call)) => call,
            Ok(None) => return Ok(()),
            Err(cause) => {
                let failure = Failure {
                    message: format!("the call is not understood: {cause}"),
                    hint: None,
                    kind: FailureKind::Unknown,
                };
                return frame::write_message(&mut stream, &Reply::Failed(failure)).await;
            }
        };
        if let Some(socket) = &call.ssh_auth_sock
            && self.prompts.note_key_agent(socket)
        {
            let mut shells = lock(&self.shells);
            shells.key_agents = self.prompts.key_agents();
            self.keep(&shells);
            self.link.forgive();
        }
        match call.request.clone() {
            Request::Open(target) => self.serve_open(stream, &call, Some(target)).await,
            Request::Engine => {
                frame::write_message(&mut stream, &Reply::Done).await?;
                self.serve_engine(stream, Caller::OwnCommand).await;
                Ok(())
            }
            Request::Link => self.serve_open(stream, &call, None).await,
            Request::Status { measure } => {
                let shells = lock(&self.shells).clone();
                let forward = shells.forward().unwrap_or(self.dock.forward);
                let (ports, more_ports) = fitting(self.ports.all());
                let status = Status {
                    version: VERSION.to_owned(),
                    pid: std::process::id(),
                    link: self.link.status(measure).await,
                    streams: self.streams.open(),
                    holders: shells.holders.into_iter().collect(),
                    forward,
                    ports,
                    more_ports,
                    exposed: self.exposures.all(),
                    mounts: within(MOUNTS_ROOM, self.projects.all().await),
                };
                frame::write_message(&mut stream, &Reply::Status(status)).await
            }
            Request::Life => {
                let options = OpenOptions {
                    arrival: Instant::now(),
                    patience: Duration::from_millis(call.patience_ms),
                    answers: false,
                };
                let alive = tokio::select! {
                    alive = self.link.alive(options) => alive,
                    // The command that asked has gone.
                    _ = frame::incoming(&stream) => return Ok(()),
                };
                let reply = alive.map_or_else(|error| Reply::Failed(error.into()), |()| Reply::Done);
                frame::write_message(&mut stream, &reply).await
            }
            Request::Exposed(ports) => {
                let exposed = tokio::select! {
                    exposed = self.exposures.settled(&ports) => exposed,
                    // The command that asked has gone.
                    _ = frame::incoming(&stream) => return Ok(()),
                };
                frame::write_message(&mut stream, &Reply::Exposed(exposed)).await
            }
            Request::Hold(holder) => {
                let demand = ShellDemand {
                    forward: call.forward.unwrap_or(self.dock.forward),
                    named: call.named.clone(),
                    expose: call.expose.clone(),
                };
                self.notices.forget(holder.pid);
                self.exposures.owe(&demand.expose);
                self.change_shells(|shells| shells.hold(holder, demand));
                frame::write_message(&mut stream, &Reply::Done).await
            }
            Request::Release(holder) => {
                self.change_shells(|shells| shells.release(holder));
                self.notices.forget(holder.pid);
                frame::write_message(&mut stream, &Reply::Done).await
            }
            Request::Stay => {
                self.change_shells(|shells| !std::mem::replace(&mut shells.stays, true));
                frame::write_message(&mut stream, &Reply::Done).await
            }
            Request::Serve => self.serve_context(stream).await,
            Request::Stop => {
                frame::write_message(&mut stream, &Reply::Done).await?;
                self.stop();
                Ok(())
            }
        }
    }

    fn change_shells(&self, change: impl FnOnce(&mut Shells) -> bool) {
        let mut shells = lock(&self.shells);
        if change(&mut shells) {
            self.streams.brief.store(false, Ordering::Release);
            self.streams.touch();
            self.keep(&shells);
        }
        drop(shells);
        self.tell_ports();
    }

    /// Opens a stream, or only the link if there is no target, and asks the command what only the user can answer.
    async fn serve_open(&self, mut stream: UnixStream, call: &Call, target: Option<Target>) -> io::Result<()> {
        let _open = self.streams.begin(call.brief);
        self.tell_ports();
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: Duration::from_millis(call.patience_ms),
            answers: call.person || call.accept_new,
        };
        let mut subscription = self.prompts.subscribe(call.person, call.accept_new);
        let opening = async {
            match &target {
                Some(target) => self.link.open(options, target).await.map(Some),
                None => self.link.up(options).await.map(|_| None),
            }
        };
        tokio::pin!(opening);
        let mut asking: Option<PendingQuestion> = None;
        let opened: Result<Option<(Connection, Over)>, TransportError> = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                asked = next_question(&mut subscription), if asking.is_none() => {
                    frame::write_message(&mut stream, &Reply::Ask(asked.question.clone())).await?;
                    asking = Some(asked);
                }
                incoming = frame::incoming(&stream) => match (incoming?, asking.take()) {
                    (true, Some(asked)) => pass_on(&mut stream, &asked).await?,
                    // A command that waits sends nothing: it has gone, or broken the protocol, which is treated alike.
                    _ => return Ok(()),
                }
            }
        };
        if asking.is_some() && matches!(opened, Ok(Some(_))) {
            // The login succeeded without the answer. That may be on its way, and must not become the stream's first
            // bytes.
            let failure = Failure {
                message: "the dock accepted the login before the answer came".to_owned(),
                hint: Some("run the command again".to_owned()),
                kind: FailureKind::Unreachable,
            };
            return frame::write_message(&mut stream, &Reply::Failed(failure)).await;
        }
        drop(subscription);
        match opened {
            Ok(Some((connection, over))) => {
                frame::write_message(&mut stream, &Reply::Done).await?;
                let is_engine = matches!(target, Some(Target::Engine));
                match connection.exec {
                    Some(_) => relay::exec(stream, connection, over).await,
                    None if is_engine => {
                        let hooks = self.hooks(&stream, Caller::OwnCommand);
                        http::relay::engine(stream, connection.stream, over, &hooks).await;
                    }
                    None => relay::raw(stream, connection.stream, over).await,
                }
                Ok(())
            }
            Ok(None) => frame::write_message(&mut stream, &Reply::Done).await,
            Err(error) => frame::write_message(&mut stream, &Reply::Failed(error.into())).await,
        }
    }
}

/// As many ports as a frame has room for, open ones first, and how many more there are: an engine may have any number
/// of containers, with names of any length.
fn fitting(mut ports: Vec<Port>) -> (Vec<Port>, usize) {
    let all = ports.len();
    ports.sort_by_key(|port| port.here.is_none());
    let ports = within(PORTS_ROOM, ports);
    let left = all - ports.len();
    (ports, left)
}

/// The first of these that have room in so many bytes of JSON.
fn within<T: Serialize>(mut room: usize, items: Vec<T>) -> Vec<T> {
    let fits = |item: &T| {
        let length = serde_json::to_vec(item).map_or(usize::MAX, |text| text.len().saturating_add(1));
        let rest = room.checked_sub(length);
        room = rest.unwrap_or(0);
        rest.is_some()
    };
    items.into_iter().take_while(fits).collect()
}

async fn next_question(subscription: &mut Subscription) -> PendingQuestion {
    match subscription.questions.recv().await {
        Some(asked) => asked,
        // The prompts live as long as a subscription.
        None => std::future::pending().await,
    }
}

/// Passes the user's answer on.
async fn pass_on(stream: &mut UnixStream, asked: &PendingQuestion) -> io::Result<()> {
    match within_limit(frame::read_message(stream)).await? {
        Some(Answer { text }) => {
            // If the asker has waited too long, it has gone.
            let _ = asked.answer.send(text);
            Ok(())
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn within_limit<T>(reading: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CALL_LIMIT, reading)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The next connection of this user, or of root.
async fn accept(listener: &UnixListener, tasks: &mut JoinSet<()>, log: &Log) -> UnixStream {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Connections that have ended are forgotten at once, so that memory stays flat.
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            // The directory keeps others out; this is for a system that ignores the directory's mode.
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() || peer.uid() == 0 => return stream,
                Ok(peer) => log.line(format!("user {} was turned away", peer.uid())),
                Err(cause) => log.line(format!("an unknown user was turned away: {cause}")),
            },
            Err(cause) => {
                log.line(format!("a connection can't be taken: {cause}"));
                tokio::time::sleep(SURFEIT).await;
            }
        }
    }
}

/// Answers a request with an error, as the engine would. The request is read first: a docker client that can't send
/// does not read the answer.
pub(crate) async fn refuse(mut stream: UnixStream, kind: FailureKind, message: &str) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    let reading = async {
        while head.len() < REQUEST_HEAD && !head.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => head.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
        io::Result::Ok(())
    };
    if let Ok(result) = timeout(REQUEST_LIMIT, reading).await {
        result?;
    }
    let body = serde_json::json!({ "message": message }).to_string();
    let body = format!("{body}\n");
    // Programs that know us must not take this for the engine's own response.
    let kind = serde_json::to_string(&kind)?;
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{FAILURE_HEADER}: {}\r\nConnection: \
         close\r\n\r\n",
        body.len(),
        kind.trim_matches('"'),
    );
    stream.write_all(response.as_bytes()).await?;
    // The response to a HEAD has no body.
    if !head.starts_with(b"HEAD ") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await?;
    // If unread bytes are left when a socket is closed, the other side fails before it has read.
    let draining = async { while matches!(stream.read(&mut buffer).await, Ok(1..)) {} };
    let _ = timeout(REQUEST_LIMIT, draining).await;
    Ok(())
}

/// Whether this machine slept: the time of day went ahead of the ticks by more than a correction of the clock does.
fn has_slept(time_of_day: Duration, ticks: Duration, limit: Duration) -> bool {
    time_of_day > ticks + limit
}

fn inode(file: &Path) -> Option<(u64, u64)> {
    let found = file.symlink_metadata().ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_slept_when_its_clock_went_ahead_of_its_ticks() {
        let [tick, limit] = [2, 10].map(Duration::from_secs);
        assert!(!has_slept(tick, tick, limit));
        assert!(!has_slept(tick + limit, tick, limit), "a corrected clock");
        assert!(!has_slept(Duration::ZERO, tick, limit), "one that was set back");
        assert!(!has_slept(tick * 10, tick * 10, limit), "a machine that was busy");
        assert!(has_slept(Duration::from_secs(8 * 3600), tick, limit));
    }
}
