//! Makes ports that containers publish on the dock answer on this machine, too: at the same port of 127.0.0.1, while
//! they run.
//!
//! The engine's events say when a container starts and ends; its list of containers says which ports it has. Whenever
//! something may have changed, the list is requested anew and the open ports are adjusted to it: so a link that was
//! cut, a start that was missed, and an agent that was killed are all handled in the same way.
//!
//! - `created_containers`: which containers and services were made through the agent's sockets, also by earlier agents of
//!   the dock;
//! - `forward_rules`: whose ports are forwarded, and which;
//! - `engine`: the dock's engine;
//! - `publication`: numbers for published ports that have none, so that the dock's are free here, too;
//! - `listener`: a port here, and the way through it.

pub(crate) mod created_containers;
pub(crate) mod engine;
mod forward_rules;
pub(crate) mod listener;
mod publication;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::target::Target;
use dock_client::agent::wire;
use dock_client::docks::Forward;
use dock_client::env::Env;
use dock_client::hint;
use dock_client::text::visible;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::link::{Link, OpenOptions, Over, ended};
use crate::log::Log;
use crate::notices::Notices;
use crate::service::Streams;
use crate::transport::{Connector, TransportError, TransportErrorKind};
use created_containers::CreatedContainers;
use dock_client::mutex::lock;
use engine::{Engine, EngineEvent};
use forward_rules::{Claim, Key, WantedPort, Whose};
use listener::Listener;

/// The label of containers that our commands make with their user.
const LABEL_USER: &str = "io.dockerutils.user";
/// The most ports that are forwarded: a container may publish all that there are.
const PORTS: usize = 500;
/// The most ports that are shown as not forwarded.
const SHOWN: usize = 500;
/// The most ports of one container that a sentence names.
const NAMED: usize = 3;
/// The most ports of a container that get numbers here.
const NUMBERED: usize = 64;
/// How long the engine may take to say what is needed to give numbers to ports.
const NUMBERING: Duration = Duration::from_secs(5);
/// The longest name at a prompt, in characters.
const NAME: usize = 80;
/// The pause between two requests for the list of containers.
const PAUSE: Duration = Duration::from_millis(100);
/// The pauses after which the engine is asked again when it did not answer well.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often to try again to restore a link that ports need.
const MENDING: Duration = Duration::from_secs(60);
/// How long such an attempt goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// A port at which nothing listens anywhere: tells whether sshd forwards at all, without disturbing a server.
const NOBODY: u16 = 1;

/// The ports of one dock.
pub(crate) struct Ports {
    user: String,
    /// The engine's socket of this agent.
    own: PathBuf,
    made: CreatedContainers,
    log: Log,
    streams: Arc<Streams>,
    notices: Arc<Notices>,
    /// Exists once the user was told that a label alone forwards nothing.
    told: PathBuf,
    /// The last notice of a change in this agent's life: the container, the sentence, and the number of shells.
    told_of: Mutex<Option<(String, String, usize)>>,
    /// The containers of which was said that ports stay on the dock, each with the sentence as long as it may wait for a
    /// prompt.
    told_to_stay: Mutex<BTreeMap<String, Option<String>>>,
    /// Which ports are to be forwarded; `None` as long as nothing needs them.
    demand: watch::Sender<Option<Demand>>,
    /// Whether a docked shell lives: then a link that was cut is restored without a request.
    has_shells: AtomicBool,
    /// The ports that are open.
    book: Mutex<Book>,
}

/// Which ports docked shells want to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Whose ports.
    pub(crate) forward: Forward,
    /// Further containers and ports, by name or number.
    pub(crate) named: BTreeSet<String>,
}

impl Demand {
    fn is_nothing(&self) -> bool {
        self.forward == Forward::None && self.named.is_empty()
    }
}

#[derive(Default)]
struct Book {
    open: BTreeMap<Key, ForwardedPort>,
    /// Ports that are not forwarded, with the reason.
    shut: Vec<wire::Port>,
    /// Whether the engine's events are being followed.
    live: bool,
}

struct ForwardedPort {
    port: wire::Port,
    /// What was said of it at the prompts, or is still to be shown there.
    said: String,
    own: bool,
    listener: Listener,
}

impl Ports {
    pub(crate) fn new(
        paths: &AgentPaths,
        user: String,
        streams: Arc<Streams>,
        notices: Arc<Notices>,
        log: Log,
    ) -> Arc<Self> {
        Arc::new(Self {
            user,
            notices,
            own: paths.engine_socket(),
            told: paths.told_file(),
            told_of: Mutex::default(),
            told_to_stay: Mutex::default(),
            made: CreatedContainers::read(paths.made_file()),
            log,
            streams,
            demand: watch::Sender::new(None),
            has_shells: AtomicBool::new(false),
            book: Mutex::default(),
        })
    }

    /// Sets whose ports are to be forwarded, and whether docked shells live.
    pub(crate) fn want(&self, demand: Option<Demand>, has_shells: bool) {
        self.has_shells.store(has_shells, Ordering::Release);
        self.demand.send_if_modified(|current| {
            let changed = *current != demand;
            *current = demand;
            changed
        });
    }

    /// Whether the agent is to live for a running container of its user.
    pub(crate) fn keeps(&self) -> bool {
        let book = lock(&self.book);
        book.live && book.open.values().any(|entry| entry.own)
    }

    /// All ports, including those that are not forwarded.
    pub(crate) fn all(&self) -> Vec<wire::Port> {
        let book = lock(&self.book);
        let open = book.open.values().map(|entry| &entry.port);
        open.chain(&book.shut).cloned().collect()
    }

    /// Whether a container or a service was created through this machine's agents of the dock.
    pub(crate) fn has_made(&self, id: &str) -> bool {
        self.made.contains(id)
    }

    /// Notes a container or a service that was created through this agent.
    pub(crate) fn note(&self, id: String) {
        self.made.add(id);
    }

    /// Whether what is created from here is forwarded.
    pub(crate) fn forwards_created(&self) -> bool {
        let demand = self.demand.borrow();
        demand.as_ref().is_some_and(|demand| demand.forward >= Forward::Mine)
    }

    /// The request to create a container with a range of numbers that are free here for each port that has none; `None`
    /// if it is to stay as it is: also where the engine does not answer, which then says so to its client itself.
    pub(crate) async fn numbered<C: Connector>(&self, link: &Link<C>, body: &[u8]) -> Option<Vec<u8>> {
        let image = publication::publishes_all_of(body);
        if !self.forwards_created() || image.is_none() && publication::unnumbered(body, &BTreeSet::new()) == 0 {
            return None;
        }
        let asking = async {
            let (mut engine, _) = self.engine(link).await.ok()?;
            if !engine.takes_ranges().await.ok()? {
                return None;
            }
            // An image that is not there yet: its client pulls it, and asks again.
            match image {
                Some(image) => engine.exposed_by(&image).await.ok(),
                None => Some(BTreeSet::new()),
            }
        };
        let exposed = timeout(NUMBERING, asking).await.ok()??;
        let count = publication::unnumbered(body, &exposed);
        if count == 0 || count > NUMBERED {
            return None;
        }
        let length = u16::try_from(count).ok()?.checked_mul(publication::WIDTH)?;
        let first = listener::free_row(length).await?;
        publication::numbered(body, &exposed, first)
    }

    /// Closes all ports.
    pub(crate) async fn close(&self) {
        let book = std::mem::take(&mut *lock(&self.book));
        for entry in book.open.into_values() {
            self.notices.take_back(&entry.said, None);
            entry.listener.close().await;
        }
    }

    /// Runs the forwarding until it is dropped.
    pub(crate) async fn run<C: Connector>(&self, link: Link<C>) {
        tokio::select! {
            () = self.made.keep(&self.log) => {}
            () = self.watch(&link) => {}
        }
    }

    async fn watch<C: Connector>(&self, link: &Link<C>) {
        let mut demands = self.demand.subscribe();
        let mut pause = FIRST_PAUSE;
        loop {
            let demand = demands.borrow_and_update().clone();
            let Some(demand) = demand.filter(|demand| !demand.is_nothing()) else {
                self.close().await;
                // The sender can't be gone: it is in `self`.
                let _ = demands.changed().await;
                continue;
            };
            tokio::select! {
                () = self.stand(link) => {}
                _ = demands.changed() => continue,
            }
            let began = Instant::now();
            let error = tokio::select! {
                error = self.follow(link, &demand) => error,
                _ = demands.changed() => continue,
            };
            lock(&self.book).live = false;
            // The end of a link has its own message.
            if let Err(Trouble::Engine(cause)) = error {
                self.log.line(format!("the ports of containers are not known: {cause}"));
                pause = if began.elapsed() > LONGEST_PAUSE {
                    FIRST_PAUSE
                } else {
                    (2 * pause).min(LONGEST_PAUSE)
                };
                sleep(pause).await;
            } else {
                pause = FIRST_PAUSE;
            }
        }
    }

    /// Waits until the link is up. It is made for a docked shell, or for ports that are open; for nothing else, as the
    /// user may have to be asked for a passphrase.
    async fn stand<C: Connector>(&self, link: &Link<C>) {
        loop {
            let needed = !lock(&self.book).open.is_empty() || self.has_shells.load(Ordering::Acquire);
            // A link that was dropped because nothing needed it is made again when something does.
            if needed && !link.rests() {
                let options = OpenOptions {
                    arrival: Instant::now(),
                    patience: PATIENCE,
                    answers: false,
                };
                if link.up(options).await.is_ok() {
                    return;
                }
            }
            if timeout(MENDING, link.standing()).await.is_ok() {
                return;
            }
        }
    }

    /// Keeps the open ports as they should be, as long as the link and the engine answer.
    async fn follow<C: Connector>(&self, link: &Link<C>, demand: &Demand) -> Result<(), Trouble> {
        let (engine, mut over) = self.engine(link).await?;
        // Events first: a container that starts while the list is made is in one or the other.
        let mut events = engine.events().await?;
        self.forget_removed(link).await?;
        let (mut engine, _) = self.engine(link).await?;
        // Another link may lead to another machine, or allow more.
        let of_this = over.clone();
        let left = link.left(&of_this);
        tokio::pin!(left);
        let mut forbidden = None;
        let mut next = Some(Instant::now());
        loop {
            tokio::select! {
                biased;
                _ = ended(&mut over) => return Err(Trouble::Link),
                () = &mut left => return Err(Trouble::Link),
                event = events.next() => {
                    if self.concerns(&event?, demand).await {
                        next.get_or_insert_with(Instant::now);
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    if !engine.is_open() {
                        engine = self.engine(link).await?.0;
                    }
                    let containers = engine.containers().await?;
                    let ports = self.whose(demand, &|id| self.made.contains(id)).ports(containers);
                    self.settle(ports, link, &mut forbidden).await;
                    lock(&self.book).live = true;
                    // Whatever happens during the pause is handled together.
                    next = None;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn whose<'a>(&'a self, demand: &'a Demand, made: &'a dyn Fn(&str) -> bool) -> Whose<'a> {
        Whose {
            forward: demand.forward,
            named: &demand.named,
            user: &self.user,
            made,
        }
    }

    /// Forgets the containers that were removed while no agent listened.
    async fn forget_removed<C: Connector>(&self, link: &Link<C>) -> Result<(), Trouble> {
        // First: containers that are made from now on may not be in the list yet.
        let known = self.made.containers();
        if known.is_empty() {
            return Ok(());
        }
        let (engine, _) = self.engine(link).await?;
        // If the engine does not answer, they are kept, at the longest until there are too many.
        if let Ok(all) = engine.ids().await {
            known
                .iter()
                .filter(|id| !all.contains(*id))
                .for_each(|id| self.made.forget(id));
        }
        Ok(())
    }

    async fn engine<C: Connector>(&self, link: &Link<C>) -> Result<(Engine, Over), Trouble> {
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: Duration::ZERO,
            answers: false,
        };
        let (connection, over) = link.open(options, &Target::Engine).await?;
        Ok((Engine::on(connection.stream).await?, over))
    }

    /// Whether an event may change which ports are to be open. The listeners of a container that has ended are closed
    /// at once.
    async fn concerns(&self, event: &EngineEvent, demand: &Demand) -> bool {
        if event.kind == "volume" {
            return false;
        }
        let id = event.container();
        let is_known = {
            let book = lock(&self.book);
            let mut open = book.open.keys().map(|key| &key.container);
            open.any(|container| container == id) || book.shut.iter().any(|port| port.container == id)
        };
        match event.action.as_str() {
            "die" | "destroy" => {
                self.shut(|key| key.container == id).await;
                if event.action == "destroy" {
                    self.made.forget(id);
                    lock(&self.told_to_stay).remove(id);
                }
                is_known
            }
            _ => {
                let label = event.actor.attributes.get(LABEL_USER).map(String::as_str);
                let made = |id: &str| self.made.contains(id);
                is_known || event.kind == "network" || self.whose(demand, &made).concerns(id, label)
            }
        }
    }

    /// Closes these listeners.
    async fn shut(&self, which: impl Fn(&Key) -> bool) {
        let closing: Vec<ForwardedPort> = {
            let mut book = lock(&self.book);
            let keys: Vec<Key> = book.open.keys().filter(|key| which(key)).cloned().collect();
            keys.iter().filter_map(|key| book.open.remove(key)).collect()
        };
        for entry in closing {
            self.log
                .line(format!("{} of {} is closed here", entry.port.inside, entry.port.name));
            self.notices.take_back(&entry.said, None);
            // What needed this agent has ended now.
            self.streams.touch();
            entry.listener.close().await;
        }
    }

    /// Opens and closes ports until the open ones are those that are wanted.
    async fn settle<C: Connector>(
        &self,
        wanted: Vec<WantedPort>,
        link: &Link<C>,
        forbidden: &mut Option<Option<TransportError>>,
    ) {
        let (wanted, label_alone): (Vec<WantedPort>, Vec<WantedPort>) =
            wanted.into_iter().partition(|port| port.claim > Claim::LabelAlone);
        let keys: BTreeSet<&Key> = wanted.iter().map(|port| &port.key).collect();
        self.shut(|key| !keys.contains(key)).await;
        let numbers: BTreeSet<u16> = wanted.iter().map(|port| port.key.port).collect();
        self.tell_of_labels(&label_alone);
        self.tell_of_udp(&wanted);
        let mut shut = Vec::new();
        for port in &wanted {
            if let Some(entry) = lock(&self.book).open.get_mut(&port.key) {
                if entry.port.name != port.name {
                    entry.port.name.clone_from(&port.name);
                    let said = self.sentence(&entry.port);
                    self.notices.take_back(&entry.said, Some(&said));
                    entry.said = said;
                }
                continue;
            }
            match self.open(port, link, &numbers, forbidden).await {
                Ok(entry) => {
                    self.notices.tell_all(&entry.said);
                    lock(&self.book).open.insert(port.key.clone(), entry);
                }
                Err(told) => shut.push(*told),
            }
        }
        shut.extend(label_alone.iter().map(|port| self.stays(port)));
        shut.truncate(SHOWN);
        lock(&self.book).shut = shut;
    }

    /// The sentence that announces an opened port at the prompts.
    fn sentence(&self, port: &wire::Port) -> String {
        let here = port.here.unwrap_or_default();
        let reason = port.reason.as_ref().map(|reason| format!(" ({reason})"));
        format!(
            "127.0.0.1:{here} is {} of {} on {} now{}",
            port.inside,
            short(&port.name),
            self.notices.moniker(),
            reason.unwrap_or_default()
        )
    }

    /// Says, only once, that containers which bear the user's label alone are not forwarded.
    fn tell_of_labels(&self, ports: &[WantedPort]) {
        let mut told_of = lock(&self.told_of);
        if let Some((container, line, shells)) = &*told_of
            && ports.iter().all(|port| port.key.container != *container)
        {
            if self.notices.take_back(line, None) == *shells {
                // Nobody has read it: it is said of the next one.
                let _ = std::fs::remove_file(&self.told);
            }
            *told_of = None;
        }
        let Some(port) = ports.first() else { return };
        if self.told.exists() {
            return;
        }
        let moniker = self.notices.moniker();
        let line = format!(
            "ports of {} on {moniker} stay there: \"mine\" are containers that you make from here, and that one only bears your \
             name. ls-dock --ports says more",
            short(&port.name)
        );
        let told = self.notices.tell_all(&line);
        if told > 0 {
            *told_of = Some((port.key.container.clone(), line, told));
            if let Err(cause) = created_containers::note(&self.told) {
                self.log
                    .line(format!("{} can't be written: {cause}", self.told.display()));
            }
        }
    }

    /// Says, once of each container, which of its ports stay on the dock because they are not TCP.
    fn tell_of_udp(&self, wanted: &[WantedPort]) {
        let mut stay: BTreeMap<&str, (&str, BTreeSet<&str>)> = BTreeMap::new();
        for port in wanted.iter().filter(|port| port.host.is_none()) {
            let (_, insides) = stay
                .entry(&port.key.container)
                .or_insert_with(|| (&port.name, BTreeSet::new()));
            insides.insert(&port.key.inside);
        }
        let mut told = lock(&self.told_to_stay);
        told.retain(|container, line| {
            if stay.contains_key(container.as_str()) {
                return true;
            }
            // It has ended. If nobody has read of it, it is said again when it starts again.
            line.take().is_none_or(|line| self.notices.take_back(&line, None) == 0)
        });
        for (container, (name, insides)) in stay {
            if told.contains_key(container) {
                continue;
            }
            let line = stays_there(name, &insides, self.notices.moniker());
            self.log.line(visible(&line));
            self.notices.tell_all(&line);
            told.insert(container.to_owned(), Some(line));
        }
    }

    /// The entry of a port that stays on the dock.
    fn stays(&self, wanted: &WantedPort) -> wire::Port {
        let moniker = self.notices.moniker();
        wire::Port {
            reason: Some("it bears your name, and was not made from here".to_owned()),
            hint: Some(hint!(
                "what only bears your name is forwarded in a shell that asks for it: source dock {} --forward \
                 PORT|CONTAINER; all of it: register-dock --force HOST {} --forward labelled",
                moniker,
                moniker
            )),
            ..described(wanted)
        }
    }

    /// Opens a listener, or says why it stays closed.
    async fn open<C: Connector>(
        &self,
        wanted: &WantedPort,
        link: &Link<C>,
        numbers: &BTreeSet<u16>,
        forbidden: &mut Option<Option<TransportError>>,
    ) -> Result<ForwardedPort, Box<wire::Port>> {
        let key = &wanted.key;
        let mut port = described(wanted);
        let not = |mut port: wire::Port, reason: String, hint: Option<String>| {
            port.reason = Some(reason);
            port.hint = hint;
            Err(Box::new(port))
        };
        let Some(host) = &wanted.host else {
            return not(port, "only TCP is forwarded".to_owned(), None);
        };
        if lock(&self.book).open.len() >= PORTS {
            return not(port, format!("{PORTS} ports are forwarded already"), None);
        }
        if let Some(error) = self.forbids(link, host, key.port, forbidden).await {
            return not(port, error.message, error.hint);
        }
        let paths = match listener::find(
            key.port,
            wanted.claim == Claim::Named,
            &self.own,
            &Env::from_process(),
            |other| numbers.contains(&other),
        )
        .await
        {
            Ok(paths) => paths,
            Err(cause) => return not(port, format!("no port is free here: {cause}"), None),
        };
        port.here = Some(paths.port);
        port.reason.clone_from(&paths.reason);
        self.log.line(format!(
            "{} of {} ({host} port {}) is port {} here{}",
            key.inside,
            visible(&wanted.name),
            key.port,
            paths.port,
            paths
                .reason
                .as_ref()
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default()
        ));
        let target = (host.clone(), key.port);
        let listener = Listener::open(paths, target, link.clone(), Arc::clone(&self.streams), self.log.clone());
        Ok(ForwardedPort {
            said: self.sentence(&port),
            port,
            own: wanted.own,
            listener,
        })
    }

    /// Why the dock's sshd does not forward, if it doesn't. It is tried once for each link, with a port at which
    /// nothing listens: a server that takes one connection and ends must not get ours.
    async fn forbids<C: Connector>(
        &self,
        link: &Link<C>,
        host: &str,
        port: u16,
        known: &mut Option<Option<TransportError>>,
    ) -> Option<TransportError> {
        let ask = async |host: &str, port: u16| {
            let options = OpenOptions {
                arrival: Instant::now(),
                patience: Duration::ZERO,
                answers: false,
            };
            let host = host.to_owned();
            let opened = link.open(options, &Target::Tcp { host, port }).await;
            opened.err().filter(|error| error.kind == TransportErrorKind::Forbidden)
        };
        if known.is_none() {
            *known = Some(ask("127.0.0.1", NOBODY).await);
            if let Some(Some(error)) = known {
                let hint = error.hint.as_deref().unwrap_or_default();
                self.log.line(format!("no ports are forwarded: {error} ({hint})"));
            }
        }
        match known {
            // An sshd may allow some ports (`PermitOpen`), and this may be one of them.
            Some(Some(_)) => ask(host, port).await,
            _ => None,
        }
    }
}

fn described(wanted: &WantedPort) -> wire::Port {
    let key = &wanted.key;
    wire::Port {
        container: key.container.clone(),
        name: wanted.name.clone(),
        inside: key.inside.clone(),
        address: key.address.clone(),
        port: key.port,
        here: None,
        reason: None,
        hint: None,
    }
}

/// The sentence about ports of a container that are not TCP.
fn stays_there(name: &str, insides: &BTreeSet<&str>, moniker: &str) -> String {
    let named: Vec<&str> = insides.iter().copied().take(NAMED).collect();
    let more = match insides.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let verb = if insides.len() == 1 { "stays" } else { "stay" };
    format!(
        "{}{more} of {} {verb} on {moniker}: only TCP is forwarded",
        named.join(", "),
        short(name)
    )
}

/// A name, cut to the room that a prompt has for it.
fn short(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}...", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

/// Why the engine is not followed any more.
pub(crate) enum Trouble {
    /// The link is over.
    Link,
    /// The engine does not answer well.
    Engine(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(cause: io::Error) -> Self {
        Self::Engine(cause)
    }
}

impl From<TransportError> for Trouble {
    fn from(error: TransportError) -> Self {
        match error.kind {
            TransportErrorKind::Unreachable | TransportErrorKind::NeedsPerson => Self::Link,
            TransportErrorKind::Refused | TransportErrorKind::Forbidden | TransportErrorKind::Denied => {
                Self::Engine(io::Error::other(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_a_few_ports() {
        let of = |insides: &[&'static str]| stays_there("dns", &insides.iter().copied().collect(), "far");
        assert_eq!(of(&["53/udp"]), "53/udp of dns stays on far: only TCP is forwarded");
        assert_eq!(
            of(&["1/udp", "2/udp", "3/udp", "4/udp", "5/sctp"]),
            "1/udp, 2/udp, 3/udp and 2 more of dns stay on far: only TCP is forwarded"
        );
    }
}
