//! Ports of this machine's loopback that docked shells have opened to the containers on the dock (`source dock NAME --expose
//! PORT`), and no others.
//!
//! The dock listens at its containers' gateway ([`Engine::bridge_gateway`]), with the same number; what connects there is
//! joined with that one port here. Which port that is, is decided by the shell's word alone: each has a task of its own, which
//! knows the number, and nothing that the dock says changes it. The task asks again whenever a link comes back, and takes the
//! port back when no shell wants it any more.
//!
//! [`host_name`] gives containers that are created meanwhile the name `host.docker.internal`.

pub(crate) mod host_name;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::agent::wire::ExposedPort;
use dock_client::docks::LEAST_EXPOSED;
use dock_client::text::visible;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::link::{Link, OpenOptions, Over, ended};
use crate::log::Log;
use crate::notices::Notices;
use crate::ports::engine::Engine;
use crate::ports::listener;
use crate::service::Streams;
use crate::transport::{Connection, Connector, Listening, TransportError, TransportErrorKind};
use host_name::HOST_NAME;

/// How many connections to one port are open at a time; the transport has a limit for all.
const CONNECTIONS: usize = 64;
/// How long this machine may take to answer on its own loopback.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a link that was cut is waited for in one attempt.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a command waits until it is known what became of its ports.
const SETTLING: Duration = Duration::from_secs(20);

/// The exposed ports of one dock.
pub(crate) struct Exposures {
    log: Log,
    notices: Arc<Notices>,
    streams: Arc<Streams>,
    /// The ports that docked shells want to be exposed.
    wanted: watch::Sender<BTreeSet<u16>>,
    /// What became of them.
    book: watch::Sender<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// Of each that is settled.
    ports: BTreeMap<u16, Exposure>,
    /// What shells were told of each that did not work.
    told: BTreeMap<u16, String>,
    /// Those of which a command is about to ask, and tells its shell.
    owed: BTreeSet<u16>,
    /// Where containers find the dock, as long as a port is exposed, or comes back when the link does.
    gateway: Option<IpAddr>,
}

/// What became of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exposure {
    /// It is exposed at this address of the dock.
    Open(IpAddr),
    /// It can't be.
    Shut { reason: String, hint: Option<String> },
}

/// A task that ends with this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Exposures {
    pub(crate) fn new(notices: Arc<Notices>, streams: Arc<Streams>, log: Log) -> Arc<Self> {
        Arc::new(Self {
            log,
            notices,
            streams,
            wanted: watch::Sender::default(),
            book: watch::Sender::default(),
        })
    }

    /// Sets which ports are to be exposed. Those of the system's own services never are.
    pub(crate) fn want(&self, mut ports: BTreeSet<u16>) {
        ports.retain(|port| *port >= LEAST_EXPOSED);
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != ports;
            *wanted = ports;
            changed
        });
    }

    /// A command has just asked for these, and will ask what became of them.
    pub(crate) fn owe(&self, ports: &[u16]) {
        self.book.send_modify(|book| book.owed.extend(ports));
    }

    /// Whether the link is to stay: a container may connect at any time.
    pub(crate) fn keeps(&self) -> bool {
        let is_open = |outcome: &Exposure| matches!(outcome, Exposure::Open(_));
        self.book.borrow().ports.values().any(is_open)
    }

    /// The address for the name of this machine in containers; `None` if nothing is exposed.
    pub(crate) fn gateway(&self) -> Option<IpAddr> {
        self.book.borrow().gateway
    }

    /// All that are wanted.
    pub(crate) fn all(&self) -> Vec<ExposedPort> {
        let wanted = self.wanted.borrow().clone();
        wanted.into_iter().map(|port| self.exposed(port)).collect()
    }

    /// These, once it is settled what becomes of them.
    pub(crate) async fn settled(&self, ports: &[u16]) -> Vec<ExposedPort> {
        let mut book = self.book.subscribe();
        let is_settled = |book: &Book| ports.iter().all(|port| book.ports.contains_key(port));
        // What takes longer is told as far as it is known.
        let _ = timeout(SETTLING, book.wait_for(is_settled)).await;
        self.book
            .send_modify(|book| book.owed.retain(|port| !ports.contains(port)));
        ports.iter().map(|port| self.exposed(*port)).collect()
    }

    fn exposed(&self, port: u16) -> ExposedPort {
        let (address, reason, hint) = match self.book.borrow().ports.get(&port) {
            Some(Exposure::Open(address)) => (Some(address.to_string()), None, None),
            Some(Exposure::Shut { reason, hint }) => (None, Some(reason.clone()), hint.clone()),
            None => (None, Some("the link to the dock is being made".to_owned()), None),
        };
        ExposedPort {
            port,
            address,
            reason,
            hint,
        }
    }

    /// Exposes what is wanted until it is dropped; then nothing is exposed any more.
    pub(crate) async fn run<C: Connector>(self: Arc<Self>, link: Link<C>) {
        let mut wanted = self.wanted.subscribe();
        let mut tasks: BTreeMap<u16, Task> = BTreeMap::new();
        loop {
            let ports = wanted.borrow_and_update().clone();
            tasks.retain(|port, _| ports.contains(port));
            self.forget_others(&ports);
            for port in ports {
                let start = || Task(tokio::spawn(Arc::clone(&self).expose(link.clone(), port)));
                tasks.entry(port).or_insert_with(start);
            }
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    fn forget_others(&self, ports: &BTreeSet<u16>) {
        self.book.send_modify(|book| {
            book.ports.retain(|port, _| ports.contains(port));
            book.told.retain(|port, _| ports.contains(port));
            if ports.is_empty() {
                book.gateway = None;
            }
        });
    }

    /// Exposes one port, again after each link that broke.
    async fn expose<C: Connector>(self: Arc<Self>, link: Link<C>, port: u16) {
        let mut pause = FIRST_PAUSE;
        loop {
            // A link that was dropped because nothing needed it is made again when something does.
            let is_shut = matches!(self.book.borrow().ports.get(&port), Some(Exposure::Shut { .. }));
            if is_shut && link.rests() {
                link.standing().await;
            }
            match self.hold_open(&link, port).await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.unsettle(port);
                    continue;
                }
                Err(error) => self.fail(port, error),
            }
            // Where it is the link that is missing, its return is waited for.
            let is_refused = self.book.borrow().ports.contains_key(&port);
            let link_comes = async {
                sleep(FIRST_PAUSE).await;
                link.standing().await;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = link_comes, if !is_refused => {}
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Exposes it as long as the link stands.
    async fn hold_open<C: Connector>(&self, link: &Link<C>, port: u16) -> Result<(), TransportError> {
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: PATIENCE,
            answers: false,
        };
        let gateway = gateway(link, options).await?;
        let (listening, mut over) = link.listen(options, SocketAddr::new(gateway, port)).await?;
        self.settle(port, Exposure::Open(gateway));
        let of_this = over.clone();
        let joined_until = over.clone();
        tokio::select! {
            () = self.serve(listening, port, joined_until) => {}
            _ = ended(&mut over) => {}
            // Another link may lead to another machine.
            () = link.left(&of_this) => {}
        }
        Ok(())
    }

    async fn serve(&self, mut listening: Listening, port: u16, over: Over) {
        let mut passing = JoinSet::new();
        loop {
            let came = tokio::select! {
                came = listening.connections.recv() => came,
                // Connections that have ended are forgotten at once, so that memory stays flat.
                Some(_) = passing.join_next() => continue,
            };
            match came {
                // One too many is hung up on.
                Some(connection) if passing.len() < CONNECTIONS => {
                    let open = self.streams.begin(false);
                    let (over, log) = (over.clone(), self.log.clone());
                    passing.spawn(async move {
                        pass(connection, port, over, &log).await;
                        drop(open);
                    });
                }
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Notes what became of a port, and tells docked shells if it is news that nobody has asked for.
    fn settle(&self, port: u16, outcome: Exposure) {
        let moniker = visible(self.notices.moniker());
        let (mut line, mut is_owed) = (None, false);
        self.book.send_modify(|book| {
            is_owed = book.owed.contains(&port);
            let told = book.told.get(&port);
            match &outcome {
                Exposure::Open(address) => {
                    book.gateway = Some(*address);
                    if told.is_some() {
                        line = Some(format!(
                            "port {port} of this machine is {HOST_NAME}:{port} in containers on {moniker} now"
                        ));
                    }
                    book.told.remove(&port);
                }
                Exposure::Shut { reason, hint } => {
                    let hint = hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
                    let news = format!(
                        "port {port} of this machine is not exposed to containers on {moniker}: {reason}{hint}"
                    );
                    if told != Some(&news) {
                        line = Some(news.clone());
                    }
                    book.told.insert(port, news);
                }
            }
            book.ports.insert(port, outcome.clone());
            let is_open = |outcome: &Exposure| matches!(outcome, Exposure::Open(_));
            if !book.ports.values().any(is_open) && !is_open(&outcome) {
                book.gateway = None;
            }
        });
        let Some(line) = line else { return };
        self.log.line(&line);
        if !is_owed {
            self.notices.tell_all(&line);
        }
    }

    /// The link is over: what becomes of the port is open.
    fn unsettle(&self, port: u16) {
        self.book.send_modify(|book| drop(book.ports.remove(&port)));
    }

    fn fail(&self, port: u16, error: TransportError) {
        match error.kind {
            // That the dock can't be reached is said where it is used.
            TransportErrorKind::Unreachable | TransportErrorKind::NeedsPerson => {
                self.unsettle(port);
                self.log.line(format!("port {port} is not exposed yet: {error}"));
            }
            TransportErrorKind::Refused | TransportErrorKind::Forbidden | TransportErrorKind::Denied => {
                let reason = error.message;
                let hint = error.hint;
                self.settle(port, Exposure::Shut { reason, hint });
            }
        }
    }
}

/// Where containers on the dock find the dock.
async fn gateway<C: Connector>(link: &Link<C>, options: OpenOptions) -> Result<IpAddr, TransportError> {
    let (connection, _) = link.open(options, &Target::Engine).await?;
    let failed = |cause: io::Error| TransportError {
        message: format!("the dock's engine does not say where its containers find it: {cause}"),
        hint: None,
        kind: TransportErrorKind::Unreachable,
    };
    let engine = Engine::on(connection.stream).await.map_err(failed)?;
    match engine.bridge_gateway().await.map_err(failed)? {
        Some(gateway) => Ok(gateway.into()),
        None => Err(TransportError {
            message: "the dock's engine has no network \"bridge\" with a private gateway, at which containers would find this machine"
                .to_owned(),
            hint: Some("see docker network inspect bridge".to_owned()),
            kind: TransportErrorKind::Refused,
        }),
    }
}

/// Joins what came in with the port here.
async fn pass(connection: Connection, port: u16, over: Over, log: &Log) {
    match timeout(CONNECT, connect(port)).await {
        Ok(Ok(stream)) => {
            listener::prepare(&stream);
            listener::join(stream, connection.stream, over).await;
        }
        // The container sees its connection end.
        Ok(Err(cause)) => log.line(format!(
            "a container was not let through to port {port} of this machine: {cause}"
        )),
        Err(_) => log.line(format!("port {port} of this machine does not answer")),
    }
}

/// Connects to the port of this machine's loopback: a server may listen at one of its addresses only.
async fn connect(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(cause) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| cause),
    }
}
