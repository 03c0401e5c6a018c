//! The projects that containers on the dock mount, and what keeps them in step: one process for each project
//! ([`super::sync_process`]), from the first container that is created with a mount of it until the last one has ended.
//!
//! A container bears what it mounts in a label ([`super::label`]), so that an agent that was started meanwhile knows it,
//! too. The label says nothing that is believed without a look: only containers count that were created by way of this machine's
//! agents, or are those of a service that was, and only projects that a person has sent to this dock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::agent::wire::ProjectMount;
use dock_client::error::WireError;
use dock_client::mount_sync::{Done, Task};
use dock_client::mutex::lock;
use dock_client::sync_memory;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout};

use super::inherited::{self, KnownVolumes};
use super::label::{LABEL, MountLabel};
use super::requests::References;
use super::sources::{HostPaths, Location};
use super::sync_process::{SyncProcess, finish, program};
use super::translated_paths::TranslatedPaths;
use crate::disk;
use crate::link::{Link, OpenOptions, ended};
use crate::log::Log;
use crate::notices::Notices;
use crate::ports::created_containers::is_service;
use crate::ports::engine::{Engine, EngineEvent, LabelledContainer, ShownVolume};
use crate::ports::{Ports, Trouble};
use crate::transport::Connector;

/// How long a project is kept in step after the last request for it while no container runs that mounts it: one that was
/// created is usually started soon.
const GRACE: Duration = Duration::from_secs(60);
/// How often to look whether that has passed.
const TICK: Duration = Duration::from_secs(5);
/// How long the start of a process may take: it waits for the disk that the project is on.
const START: Duration = Duration::from_secs(20);
/// How long this machine may take to find the projects that a label names.
const LOOK: Duration = Duration::from_secs(10);
/// How long a client waits for what a container made, after the container's end.
const LIMIT_BRING: Duration = Duration::from_secs(600);
/// How long that is not said.
const UNSAID: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 3 });
/// A name of at least this many hexadecimal digits may be the beginning of an ID.
const SHORT_ID: usize = 12;
/// How long the same is not said again, and how long a process that has ended is not started again unasked.
const QUIET: Duration = Duration::from_secs(600);
/// How many sentences are known as said at most.
const SAID: usize = 100;
/// The pause after an engine that did not answer well.
const PAUSE: Duration = Duration::from_secs(5);
/// How many are shown at most: a frame has room for them.
const SHOWN: usize = 500;
/// The longest name of a container, in characters.
const NAME: usize = 255;
/// How many containers are known at most: more than an engine runs.
const CONTAINERS: usize = 4096;
/// How long the engine may take to say what a container mounts by name.
const ASKING: Duration = Duration::from_secs(20);
/// The label of a container that says of which service it is a task.
const SERVICE: &str = "com.docker.swarm.service.id";

/// The projects of one dock that containers mount.
pub(crate) struct MountedProjects {
    paths: HostPaths,
    /// What syncs a project.
    program: PathBuf,
    notices: Arc<Notices>,
    ports: Arc<Ports>,
    log: Log,
    state: Mutex<State>,
    translated: TranslatedPaths,
    /// A project came.
    changed: Notify,
}

#[derive(Default)]
struct State {
    projects: HashMap<PathBuf, MountedProject>,
    /// By ID.
    containers: HashMap<String, MountingContainer>,
    /// Processes that do their last sync.
    ending: Vec<JoinHandle<()>>,
    /// Whose process is being started: one at a time for each project.
    starting: HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>,
    /// Which are being asked to be kept in step.
    watching: BTreeSet<PathBuf>,
    /// Whose files are being brought: what waits for the next time, if somebody does.
    bringing: HashMap<PathBuf, Option<Bringing>>,
    /// When a process was last started only because a container runs.
    restarted: HashMap<PathBuf, Instant>,
    /// What was said, and when.
    said: HashMap<String, Instant>,
    volumes: KnownVolumes,
    /// Whether it was said that more containers mount projects than are followed.
    is_surfeit_said: bool,
}

/// Whether the files have come, once they have or could not.
type Bringing = watch::Sender<bool>;

struct MountedProject {
    process: SyncProcess,
    running: JoinHandle<()>,
    /// The last request.
    used: Instant,
}

/// A container that mounts projects.
#[derive(Clone, Debug)]
struct MountingContainer {
    name: String,
    mounted: MountedRoots,
    runs: bool,
    /// What came, or comes, since it has ended.
    coming: Vec<watch::Receiver<bool>>,
    /// When it was removed. It is known for a while longer: who waits for its removal is still to find what it made.
    removed: Option<Instant>,
}

/// The projects that a container mounts.
#[derive(Clone, Debug, Default)]
pub(super) struct MountedRoots {
    /// Their folders here.
    pub(super) roots: BTreeSet<PathBuf>,
    /// Which paths of them are mounted.
    pub(super) label: MountLabel,
    /// What whoever mounts them should know.
    pub(super) warnings: Vec<String>,
}

impl MountedProjects {
    /// None yet.
    pub(crate) fn new(
        paths: HostPaths,
        mounted_file: PathBuf,
        notices: Arc<Notices>,
        ports: Arc<Ports>,
        log: Log,
    ) -> Arc<Self> {
        Arc::new(Self {
            paths,
            program: program(std::env::var_os("PATH").as_deref()),
            notices,
            ports,
            log,
            state: Mutex::default(),
            translated: TranslatedPaths::read(mounted_file),
            changed: Notify::new(),
        })
    }

    /// What this machine knows of paths.
    pub(super) const fn paths(&self) -> &HostPaths {
        &self.paths
    }

    /// The containers that mount projects, for each project once. A workspace is empty if the disk does not say it.
    pub(crate) async fn all(&self) -> Vec<ProjectMount> {
        let containers = lock(&self.state).containers.clone();
        let containers = containers
            .into_iter()
            .filter(|(_, container)| container.removed.is_none());
        let mounts = containers.flat_map(|(id, container)| {
            let MountingContainer {
                name, mounted, runs, ..
            } = container;
            mounted.roots.into_iter().map(move |project| ProjectMount {
                container: id.clone(),
                name: name.clone(),
                running: runs,
                workspace: String::new(),
                project,
            })
        });
        let mut mounts: Vec<ProjectMount> = mounts.collect();
        mounts.sort();
        mounts.truncate(SHOWN);
        let roots: BTreeSet<PathBuf> = mounts.iter().map(|mount| mount.project.clone()).collect();
        if roots.is_empty() {
            return mounts;
        }
        let paths = self.paths.clone();
        let reading = disk::within(LOOK, move || {
            let workspace = |root: PathBuf| Some((paths.workspace(&root)?, root));
            let read = roots.into_iter().filter_map(workspace);
            read.map(|(workspace, root)| (root, workspace))
                .collect::<BTreeMap<_, _>>()
        });
        let workspaces = reading.await.unwrap_or_default();
        for mount in &mut mounts {
            mount.workspace = workspaces.get(&mount.project).cloned().unwrap_or_default();
        }
        mounts
    }

    /// Whether a container runs that mounts a project, or a sync is under way for one.
    pub(crate) fn keeps(&self) -> bool {
        let mut state = lock(&self.state);
        state.ending.retain(|process| !process.is_finished());
        !state.projects.is_empty() || !state.ending.is_empty()
    }

    /// Sends what changed in a project, and looks for these paths of it.
    pub(super) async fn send(self: &Arc<Self>, root: &Path, sources: Vec<String>) -> Result<Done, WireError> {
        self.process(root).await?.ask(Task::Send { sources }).await
    }

    /// Whether a client here has had this path on the dock mounted, by this source: only then, the source is shown in the
    /// place of the path, or its project followed, whatever a label on the dock says.
    pub(super) fn has_mounted(&self, on_dock: &str, source: &str) -> bool {
        self.translated.contains(on_dock, source)
    }

    /// Remembers what is to be mounted, on this machine's disk, too.
    pub(super) async fn remember(self: &Arc<Self>, label: &MountLabel) {
        if !self.translated.note(label) {
            return;
        }
        let projects = Arc::clone(self);
        let writing = disk::within(LOOK, move || projects.translated.write());
        if let Some(Err(cause)) = writing.await {
            self.log
                .line(format!("the list of mounted paths can't be written: {cause}"));
        }
    }

    /// Notes that the engine has created a container that mounts these projects: from now on they are kept in step.
    pub(super) fn created(self: &Arc<Self>, id: String, name: Option<String>, mounted: MountedRoots) {
        for root in &mounted.roots {
            self.watch(root);
        }
        let container = MountingContainer {
            name: short(&name.unwrap_or_default()),
            mounted,
            runs: false,
            coming: Vec::new(),
            removed: None,
        };
        self.note(id, container);
    }

    /// Brings what a container has made, by its ID, the beginning of that, or its name. Returns at once if it mounts no project.
    /// Whoever waits for that is told what for; and not for ever.
    pub(super) async fn bring_of(self: &Arc<Self>, name: &str) {
        let Some((
            id,
            MountingContainer {
                name,
                mounted,
                runs,
                coming,
                ..
            },
        )) = self.named(name)
        else {
            return;
        };
        let name = match name.as_str() {
            "" => id.get(..SHORT_ID).unwrap_or_default().to_owned(),
            name => name.to_owned(),
        };
        let moniker = &self.paths.moniker;
        // If the engine's event came first, that has it brought already.
        let coming = match runs || coming.is_empty() {
            true => self.bringing(mounted.roots),
            false => coming,
        };
        let mut bringing = std::pin::pin!(all_over(coming));
        if timeout(UNSAID, &mut bringing).await.is_ok() {
            return;
        }
        self.tell(&format!(
            "container {name} has ended on dock {moniker:?}, and what it made is still coming: who waits for its end waits for that"
        ));
        if timeout(LIMIT_BRING, &mut bringing).await.is_err() {
            self.tell(&format!(
                "what container {name} made on dock {moniker:?} has not all come, and nobody waits for it any more"
            ));
        }
    }

    /// Whether a container of this name or ID is known to mount projects.
    pub(super) fn is_mounting(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// Which paths a container of this name or ID mounts, as far as it is known.
    pub(super) fn label_of(&self, name: &str) -> Option<MountLabel> {
        self.named(name).map(|(_, container)| container.mounted.label)
    }

    /// Notes what the engine says of a volume that it was asked to create: perhaps it was there before.
    pub(super) fn note_volume(&self, answer: &[u8]) {
        if let Ok(volume) = serde_json::from_slice::<ShownVolume>(answer) {
            let label = inherited::of_volume(&volume);
            lock(&self.state).volumes.note(volume.name, label);
        }
    }

    /// What is mounted by way of these: paths on the dock, and those here that they stand for. The engine is asked for what
    /// is not known.
    pub(super) async fn inherited<C: Connector>(
        self: &Arc<Self>,
        link: &Link<C>,
        mut references: References,
    ) -> BTreeMap<String, String> {
        let mut labels = lock(&self.state).volumes.take_known(&mut references.volumes);
        references.containers.retain(|name| match self.named(name) {
            Some((_, container)) if container.removed.is_none() => {
                labels.push(container.mounted.label);
                false
            }
            _ => true,
        });
        if references != References::default() && self.has_sent().await {
            let asking = async { timeout(ASKING, inherited::ask(link, &references)).await? };
            match asking.await {
                Ok(asked) => {
                    labels.extend(asked.volumes.iter().map(|(_, label)| label.clone()));
                    let mut containers = asked.containers;
                    containers.retain(|(id, _)| self.ports.has_made(id));
                    labels.extend(containers.into_iter().map(|(_, label)| label));
                    let mut state = lock(&self.state);
                    for (name, label) in asked.volumes {
                        state.volumes.note(name, label);
                    }
                }
                Err(cause) => self.tell(&format!(
                    "dock {:?} did not say what a new container mounts by name, so it is not kept in step (sync-down brings what it \
                     makes): {cause}",
                    self.paths.moniker
                )),
            }
        }
        let mut pairs: BTreeMap<String, String> = labels
            .iter()
            .flat_map(MountLabel::sources)
            .filter(|(there, here)| self.has_mounted(there, here))
            .map(|(there, here)| (there.to_owned(), here.to_owned()))
            .collect();
        if pairs.is_empty() {
            return pairs;
        }
        let projects = Arc::clone(self);
        let looking = disk::within(LOOK, move || {
            pairs.retain(|there, here| projects.paths.leads_to(here, there));
            pairs
        });
        looking.await.unwrap_or_else(|| {
            self.tell("what a container mounts by name is not kept in step: this machine's disk does not answer");
            BTreeMap::new()
        })
    }

    fn named(&self, name: &str) -> Option<(String, MountingContainer)> {
        let state = lock(&self.state);
        let name = name.trim_start_matches('/');
        let is_named = |id: &str, container: &MountingContainer| {
            container.name == name || (name.len() >= SHORT_ID && id.starts_with(name)) || id == name
        };
        let named = state
            .containers
            .iter()
            .filter(|(id, container)| is_named(id, container));
        // A name may have been given to another one since.
        let found = named.min_by_key(|(_, container)| container.removed.is_some());
        found
            .filter(|_| !name.is_empty())
            .map(|(id, container)| (id.clone(), container.clone()))
    }

    /// Follows the dock's containers, for ever.
    pub(crate) async fn run<C: Connector>(self: Arc<Self>, link: Link<C>) {
        loop {
            // An agent of somebody who has sent nothing has nothing to follow.
            while lock(&self.state).projects.is_empty() && !self.has_sent().await {
                self.changed.notified().await;
            }
            link.standing().await;
            let followed = self.follow(&link).await;
            lock(&self.state).volumes.lose();
            if let Err(Trouble::Engine(cause)) = followed {
                self.log
                    .line(format!("the containers that mount projects are not known: {cause}"));
                sleep(PAUSE).await;
            }
        }
    }

    /// Whether this machine has sent anything anywhere. In doubt it has.
    async fn has_sent(&self) -> bool {
        let state = self.paths.state.clone();
        let workspaces = disk::within(LOOK, move || sync_memory::workspaces(&state)).await;
        workspaces.is_none_or(|workspaces| !workspaces.is_empty())
    }

    /// Ends all processes, and waits for their last sync.
    pub(crate) async fn close(&self) {
        let running: Vec<JoinHandle<()>> = {
            let mut state = lock(&self.state);
            state.containers.clear();
            let projects = std::mem::take(&mut state.projects);
            let ending = std::mem::take(&mut state.ending);
            ending
                .into_iter()
                .chain(projects.into_values().map(|project| project.running))
                .collect()
        };
        finish(running).await;
    }

    async fn follow<C: Connector>(self: &Arc<Self>, link: &Link<C>) -> Result<(), Trouble> {
        let options = || OpenOptions {
            arrival: Instant::now(),
            patience: Duration::ZERO,
            answers: false,
        };
        // Events first: a container that starts while the list is made is in one or the other.
        let (connection, mut over) = link.open(options(), &Target::Engine).await?;
        let mut events = Engine::on(connection.stream).await?.events().await?;
        lock(&self.state).volumes.follow();
        let (connection, _) = link.open(options(), &Target::Engine).await?;
        let running = Engine::on(connection.stream).await?.containers_with(LABEL).await?;
        self.take_list(running).await;
        let mut tick = interval(TICK);
        loop {
            // In no order: an engine that tells without an end keeps nothing else from its turn.
            tokio::select! {
                _ = ended(&mut over) => return Err(Trouble::Link),
                event = events.next() => self.take_event(&event?).await,
                _ = tick.tick() => self.end_unused(),
            }
        }
    }

    /// Takes the list of all running containers that bear the label.
    async fn take_list(self: &Arc<Self>, running: Vec<LabelledContainer>) {
        let ids: BTreeSet<String> = running.iter().map(|container| container.id.clone()).collect();
        for container in running {
            let mounted = self.mounted_by(&container.id, &container.labels).await;
            let name = container
                .names
                .first()
                .map(|name| name.trim_start_matches('/').to_owned());
            self.started(container.id, name.unwrap_or_default(), mounted);
        }
        let ended: Vec<String> = {
            let state = lock(&self.state);
            let gone = |(id, container): &(&String, &MountingContainer)| container.runs && !ids.contains(*id);
            state.containers.iter().filter(gone).map(|(id, _)| id.clone()).collect()
        };
        for id in ended {
            self.ended(&id);
        }
    }

    async fn take_event(self: &Arc<Self>, event: &EngineEvent) {
        match (event.kind.as_str(), event.action.as_str()) {
            ("container", _) => {}
            ("volume", "destroy" | "prune") => return lock(&self.state).volumes.forget(&event.actor.id),
            _ => return,
        }
        let (id, attributes) = (event.container(), &event.actor.attributes);
        match event.action.as_str() {
            "start" => {
                let name = attributes.get("name").cloned().unwrap_or_default();
                let mounted = self.mounted_by(id, attributes).await;
                self.started(id.to_owned(), name, mounted);
            }
            "rename" => {
                if let (Some(container), Some(name)) =
                    (lock(&self.state).containers.get_mut(id), attributes.get("name"))
                {
                    container.name = short(name);
                }
            }
            "die" => self.ended(id),
            "destroy" => {
                if let Some(container) = lock(&self.state).containers.get_mut(id) {
                    (container.runs, container.removed) = (false, Some(Instant::now()));
                }
            }
            _ => {}
        }
    }

    fn started(self: &Arc<Self>, id: String, name: String, mounted: MountedRoots) {
        if mounted.roots.is_empty() {
            return;
        }
        for root in &mounted.roots {
            self.watch(root);
        }
        let container = MountingContainer {
            name: short(&name),
            mounted,
            runs: true,
            coming: Vec::new(),
            removed: None,
        };
        self.note(id, container);
    }

    fn ended(self: &Arc<Self>, id: &str) {
        let roots = match lock(&self.state).containers.get_mut(id) {
            Some(container) => {
                container.runs = false;
                container.mounted.roots.clone()
            }
            None => return,
        };
        // No task waits for it: an engine may tell of very many ends.
        let coming = self.bringing(roots);
        if let Some(container) = lock(&self.state).containers.get_mut(id) {
            container.coming = coming;
        }
    }

    /// Has brought what changed on the dock in these projects, and gives when each is over; what hinders it is told.
    fn bringing(self: &Arc<Self>, roots: BTreeSet<PathBuf>) -> Vec<watch::Receiver<bool>> {
        roots.into_iter().map(|root| self.have_brought(root)).collect()
    }

    /// Has a project's files brought: now, or if that is under way already, once more after it. However many ask meanwhile,
    /// that is one more time.
    fn have_brought(self: &Arc<Self>, root: PathBuf) -> watch::Receiver<bool> {
        let mut state = lock(&self.state);
        let waits = match state.bringing.get_mut(&root) {
            Some(waits) => waits,
            None => {
                let projects = Arc::clone(self);
                let own = root.clone();
                tokio::spawn(async move { projects.bring_all(own).await });
                state.bringing.entry(root).or_default()
            }
        };
        waits.get_or_insert_with(|| watch::Sender::new(false)).subscribe()
    }

    /// Brings a project's files as long as somebody waits for it.
    async fn bring_all(self: Arc<Self>, root: PathBuf) {
        loop {
            let waiting = {
                let mut state = lock(&self.state);
                match state.bringing.get_mut(&root).and_then(Option::take) {
                    Some(waiting) => waiting,
                    None => {
                        state.bringing.remove(&root);
                        return;
                    }
                }
            };
            let brought = match self.process(&root).await {
                Ok(process) => process.ask(Task::Bring).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = brought {
                let copy = format!("what a container made in the copy of {} did not come", root.display());
                self.tell_failure(&copy, &failure);
            }
            waiting.send_replace(true);
        }
    }

    /// Has a project kept in step.
    fn watch(self: &Arc<Self>, root: &Path) {
        // However many containers start meanwhile, that is asked for once.
        if !lock(&self.state).watching.insert(root.to_owned()) {
            return;
        }
        let (projects, root) = (Arc::clone(self), root.to_owned());
        tokio::spawn(async move {
            let watched = match projects.process(&root).await {
                Ok(process) => process.ask(Task::Watch).await,
                Err(failure) => Err(failure),
            };
            lock(&projects.state).watching.remove(&root);
            if let Err(failure) = watched {
                projects.tell_failure(&format!("{} is not kept in step", root.display()), &failure);
            }
        });
    }

    /// The process of a project, which is started if there is none.
    async fn process(self: &Arc<Self>, root: &Path) -> Result<SyncProcess, WireError> {
        if let Some(process) = self.running(root) {
            return Ok(process);
        }
        let turn = Arc::clone(lock(&self.state).starting.entry(root.to_owned()).or_default());
        let _turn = turn.lock().await;
        // Somebody else may have started it meanwhile.
        if let Some(process) = self.running(root) {
            return Ok(process);
        }
        let projects = Arc::clone(self);
        let said = move |line: &str| projects.tell(line);
        let (program, folder, moniker) = (self.program.clone(), root.to_owned(), self.paths.moniker.clone());
        let starting = disk::within(START, move || SyncProcess::start(&program, &folder, &moniker, said)).await;
        let (process, running) = starting.ok_or_else(|| {
            WireError::failed(
                format!("{} can't be synced: its disk does not answer", root.display()),
                None,
            )
        })??;
        let project = MountedProject {
            process: process.clone(),
            running,
            used: Instant::now(),
        };
        lock(&self.state).projects.insert(root.to_owned(), project);
        self.changed.notify_one();
        Ok(process)
    }

    /// The process of a project, if it runs.
    fn running(&self, root: &Path) -> Option<SyncProcess> {
        let mut state = lock(&self.state);
        let project = state.projects.get_mut(root)?;
        if !project.process.has_ended() {
            project.used = Instant::now();
            return Some(project.process.clone());
        }
        let project = state.projects.remove(root)?;
        state.ending.push(project.running);
        None
    }

    fn note(&self, id: String, container: MountingContainer) {
        let mut state = lock(&self.state);
        if state.containers.len() < CONTAINERS || state.containers.contains_key(&id) {
            state.containers.insert(id, container);
        } else if !std::mem::replace(&mut state.is_surfeit_said, true) {
            drop(state);
            self.tell(&format!(
                "more than {CONTAINERS} containers mount projects: of the others, sync-down brings what they make"
            ));
        }
    }

    /// Has the processes end whose projects no running container mounts, and that nobody has asked for a while.
    /// Starts those again that have ended while a container runs.
    fn end_unused(self: &Arc<Self>) {
        let mut locked = lock(&self.state);
        let state = &mut *locked;
        let is_known = |container: &MountingContainer| container.removed.is_none_or(|when| when.elapsed() < GRACE);
        state.containers.retain(|_, container| is_known(container));
        let runs = |container: &&MountingContainer| container.runs;
        let used: BTreeSet<PathBuf> = state
            .containers
            .values()
            .filter(runs)
            .flat_map(|container| container.mounted.roots.iter().cloned())
            .collect();
        let is_unused = |root: &PathBuf, project: &MountedProject| {
            project.process.has_ended() || (!used.contains(root) && project.used.elapsed() > GRACE)
        };
        let unused: Vec<PathBuf> = {
            let unused = state.projects.iter().filter(|(root, project)| is_unused(root, project));
            unused.map(|(root, _)| root.clone()).collect()
        };
        for root in unused {
            // Its stdin ends with this.
            if let Some(project) = state.projects.remove(&root) {
                state.ending.push(project.running);
            }
        }
        state.ending.retain(|process| !process.is_finished());
        state.starting.retain(|_, turn| Arc::strong_count(turn) > 1);
        state.said.retain(|_, when| when.elapsed() < QUIET);
        state.restarted.retain(|_, when| when.elapsed() < QUIET);
        let (projects, restarted) = (&state.projects, &mut state.restarted);
        let lost = |root: &&PathBuf| !projects.contains_key(*root) && !restarted.contains_key(*root);
        let lost: Vec<PathBuf> = used.iter().filter(lost).cloned().collect();
        restarted.extend(lost.iter().map(|root| (root.clone(), Instant::now())));
        drop(locked);
        for root in lost {
            self.watch(&root);
        }
    }

    /// The projects that a container's label names, if they are this machine's and were sent to this dock. A dock may have any
    /// container bear any label, and has nothing brought here by that: only those count that were created from here, themselves
    /// or as the tasks of a service.
    async fn mounted_by(&self, id: &str, labels: &HashMap<String, String>) -> MountedRoots {
        let service = labels.get(SERVICE).filter(|service| is_service(service));
        let is_made = self.ports.has_made(id) || service.is_some_and(|service| self.ports.has_made(service));
        let label = labels.get(LABEL).filter(|_| is_made);
        let Some(mut label) = label.and_then(|label| MountLabel::parse(label)) else {
            return MountedRoots::default();
        };
        // A dock may have an image or a container bear a label of its own: what nobody here has mounted there is not looked for.
        label.retain(&|there, here| self.has_mounted(there, here));
        if label.is_empty() {
            return MountedRoots::default();
        }
        let paths = self.paths.clone();
        let looking = disk::within(LOOK, move || {
            label.retain(&|there, here| paths.leads_to(here, there));
            let roots = label.sources().filter_map(|(_, here)| match paths.locate(here) {
                Location::Project { root, .. } => Some(root),
                _ => None,
            });
            let roots = roots.collect();
            MountedRoots {
                roots,
                label,
                warnings: Vec::new(),
            }
        });
        looking.await.unwrap_or_else(|| {
            self.tell("what a container mounts is not kept in step: this machine's disk does not answer");
            MountedRoots::default()
        })
    }

    fn tell_failure(&self, what: &str, failure: &WireError) {
        let hint = failure
            .hint
            .as_ref()
            .map(|hint| format!(" ({hint})"))
            .unwrap_or_default();
        self.tell(&format!("{what}: {}{hint}", failure.message));
    }

    /// Says something to the people in docked shells, once in a while.
    fn tell(&self, line: &str) {
        {
            let mut state = lock(&self.state);
            if state.said.get(line).is_some_and(|when| when.elapsed() < QUIET) {
                return;
            }
            if state.said.len() < SAID {
                state.said.insert(line.to_owned(), Instant::now());
            }
        }
        self.log.line(line);
        self.notices.tell_all(line);
    }
}

async fn all_over(coming: Vec<watch::Receiver<bool>>) {
    for mut brought in coming {
        // One that was given up is over, too.
        let _ = brought.wait_for(|is_over| *is_over).await;
    }
}

/// A container's name, of which an engine may say anything: docker takes none that is longer.
fn short(name: &str) -> String {
    name.chars().take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use dock_client::agent::paths::AgentPaths;
    use dock_client::docks::{Access, Dock, Forward, MountPaths, SshAccess};
    use dock_client::env::Env;
    use dockerutils_test_support::wait;
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::prompts::Prompts;
    use crate::service::Streams;
    use crate::shells::Shells;
    use crate::timing::Timing;
    use crate::transport::{Asker, Connection, Transport, TransportError};

    /// Answers each request; before it has brought anything, it writes a line to `begun`, and reads one from `go`.
    const SYNCS: &str = r#"#!/bin/sh
while read -r line; do
id=${line#*:}; id=${id%%,*}
case $line in *bring*) echo bring >> brought; echo > begun; read -r _ < go ;; esac
echo '{"id":'$id',"outcome":{"done":{"workspace":"/w","missing":[]}}}'
done
"#;

    struct Scene {
        folder: tempfile::TempDir,
        log: PathBuf,
        projects: Arc<MountedProjects>,
    }

    impl Scene {
        /// A folder that is synced by this script.
        fn new(script: &str) -> Self {
            let folder = tempfile::Builder::new()
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir()
                .unwrap();
            let path = folder.path().to_str().unwrap();
            let env = Env::from_pairs([("XDG_RUNTIME_DIR", path), ("HOME", path), ("PATH", "")]);
            let dock = Dock {
                moniker: "far".into(),
                access: Access::Ssh(SshAccess::default()),
                workspace: None,
                forward: Forward::None,
                mounts: MountPaths::default(),
            };
            let paths = AgentPaths::of(&dock, &env).unwrap();
            paths.prepare().unwrap();
            let log = Log::of(&paths, "test");
            let shells = Arc::new(Mutex::new(Shells::read(&paths.shells_file())));
            let notices = Notices::new("far".into(), paths.clone(), shells, log.clone());
            let ports = Ports::new(&paths, "ann".into(), Streams::new(), Arc::clone(&notices), log.clone());
            let host = HostPaths {
                state: paths.state_directory().to_owned(),
                home: folder.path().to_owned(),
                moniker: "far".into(),
                engine_sockets: Vec::new(),
            };
            let program = folder.path().join("program");
            fs::write(&program, script).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            for pipe in ["begun", "go"] {
                let made = std::process::Command::new("mkfifo")
                    .arg(folder.path().join(pipe))
                    .status();
                assert!(made.unwrap().success());
            }
            let mut projects = MountedProjects::new(host, paths.mounted_file(), notices, ports, log);
            Arc::get_mut(&mut projects).unwrap().program = program;
            Self {
                log: paths.log_file(),
                folder,
                projects,
            }
        }

        fn root(&self) -> PathBuf {
            self.folder.path().to_owned()
        }

        fn mounted(&self) -> MountedRoots {
            MountedRoots {
                roots: BTreeSet::from([self.root()]),
                label: MountLabel::default(),
                warnings: Vec::new(),
            }
        }

        /// Notes the folder as a project that was sent to this place on the dock.
        fn sent(&self, workspace: &str) -> String {
            let root = fs::canonicalize(self.root()).unwrap();
            let stem = sync_memory::stem(&self.projects.paths.state, &root, "far");
            fs::create_dir_all(stem.parent().unwrap()).unwrap();
            let line = format!(
                "{{\"dockerutils_sync\":{},\"workspace\":{workspace:?}}}\n",
                sync_memory::VERSION
            );
            fs::write(stem.with_extension(sync_memory::MANIFEST), line).unwrap();
            root.to_str().unwrap().to_owned()
        }

        fn said(&self, text: &str) -> usize {
            fs::read_to_string(&self.log).unwrap_or_default().matches(text).count()
        }

        /// Waits until the script brings.
        async fn begun(&self) {
            let begun = self.root().join("begun");
            tokio::task::spawn_blocking(move || fs::read(begun))
                .await
                .unwrap()
                .unwrap();
        }

        /// Lets the script go on.
        async fn go(&self) {
            let go = self.root().join("go");
            tokio::task::spawn_blocking(move || fs::write(go, "\n"))
                .await
                .unwrap()
                .unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_containers_end_at_once_their_project_is_brought_once_more() {
        let scene = Scene::new(SYNCS);
        let mut waiting = vec![scene.projects.have_brought(scene.root())];
        scene.begun().await;
        waiting.extend((0..100).map(|_| scene.projects.have_brought(scene.root())));
        scene.go().await;
        scene.begun().await;
        assert!(*waiting[0].borrow() && !*waiting[1].borrow());
        scene.go().await;
        for mut brought in waiting {
            brought.wait_for(|is_over| *is_over).await.unwrap();
        }
        assert_eq!(
            fs::read_to_string(scene.root().join("brought")).unwrap(),
            "bring\nbring\n"
        );
        // Who comes later has it brought again.
        let mut late = scene.projects.have_brought(scene.root());
        scene.begun().await;
        scene.go().await;
        late.wait_for(|is_over| *is_over).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_an_end_that_is_known_waits_for_one_round_and_not_for_two() {
        let scene = Scene::new(SYNCS);
        let id = format!("{:064x}", 7);
        scene.projects.started(id.clone(), "web".into(), scene.mounted());
        scene.projects.ended(&id);
        scene.begun().await;
        let projects = Arc::clone(&scene.projects);
        let waiting = tokio::spawn(async move { projects.bring_of("web").await });
        scene.go().await;
        waiting.await.unwrap();
        assert_eq!(fs::read_to_string(scene.root().join("brought")).unwrap(), "bring\n");
        // Once it runs again, its next end is another one.
        scene.projects.started(id.clone(), "web".into(), scene.mounted());
        let projects = Arc::clone(&scene.projects);
        let waiting = tokio::spawn(async move { projects.bring_of("web").await });
        scene.begun().await;
        scene.go().await;
        waiting.await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_what_a_container_made_is_told() {
        let scene = Scene::new(SYNCS);
        let id = format!("{:064x}", 7);
        scene.projects.created(id.clone(), Some("web".into()), scene.mounted());
        let (projects, start) = (Arc::clone(&scene.projects), id[..SHORT_ID].to_owned());
        let waiting = tokio::spawn(async move { projects.bring_of(&start).await });
        scene.begun().await;
        let text = "container web has ended on dock";
        tokio::task::block_in_place(|| wait::until("that is said", || scene.said(text) == 1));
        scene.go().await;
        waiting.await.unwrap();
        scene.projects.bring_of("another").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_label_counts_on_what_was_made_from_here_and_on_the_tasks_of_a_service_that_was() {
        let scene = Scene::new(SYNCS);
        let root = scene.sent("/data/w/app");
        let (id, service) = (format!("{:064x}", 7), "c0eg5hz9xcsc2ewaxqmnk1jxx".to_owned());
        scene.projects.ports.note(id.clone());
        scene.projects.ports.note(service.clone());
        let other = format!("{:064x}", 8);
        let label = serde_json::json!({"/data/w/app/src": format!("{root}/src"), "/etc": "/etc", "/etc/x": root});
        let said: HashMap<String, String> = serde_json::from_value(label.clone()).unwrap();
        let mut mounted = MountLabel::default();
        for (there, here) in said.iter().filter(|(there, _)| *there != "/etc/x") {
            mounted.note(there, here);
        }
        let alone = HashMap::from([(LABEL.to_owned(), label.to_string())]);
        let before = scene.projects.mounted_by(&id, &alone);
        assert!(before.await.roots.is_empty(), "nobody here has mounted it");
        scene.projects.remember(&mounted).await;
        let labels = |service: Option<&String>| {
            let service = service.map(|service| (SERVICE.to_owned(), service.clone()));
            let own = [(LABEL.to_owned(), label.to_string()), ("a".into(), "b".into())];
            own.into_iter().chain(service).collect::<HashMap<_, _>>()
        };
        for (id, labels) in [(&id, labels(None)), (&other, labels(Some(&service)))] {
            let mounted = scene.projects.mounted_by(id, &labels).await;
            assert_eq!(mounted.roots, BTreeSet::from([PathBuf::from(&root)]));
            let sources: Vec<_> = mounted.label.sources().map(|(there, _)| there.to_owned()).collect();
            assert_eq!(sources, ["/data/w/app/src"]);
        }
        let nobody = "d0eg5hz9xcsc2ewaxqmnk1jxx".to_owned();
        for service in [None, Some(&nobody), Some(&id)] {
            let mounted = scene.projects.mounted_by(&other, &labels(service)).await;
            assert!(mounted.roots.is_empty() && mounted.label.is_empty(), "{service:?}");
        }
    }

    /// A dock whose engine gives these answers, by path, and notes what it was asked.
    #[derive(Clone, Default)]
    struct EngineAlone {
        answers: Arc<Mutex<HashMap<String, String>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl EngineAlone {
        fn shows(&self, path: &str, document: &serde_json::Value) {
            lock(&self.answers).insert(path.to_owned(), document.to_string());
        }

        fn asked(&self) -> String {
            std::mem::take(&mut *lock(&self.asked)).join(" ")
        }

        async fn serve(self, stream: tokio::io::DuplexStream) {
            let (from, mut to) = tokio::io::split(stream);
            let mut lines = tokio::io::BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some(path) = line
                    .strip_prefix("GET ")
                    .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
                else {
                    continue;
                };
                lock(&self.asked).push(path.to_owned());
                let answer = lock(&self.answers).get(path).cloned();
                let (status, body) = answer.map_or(("404 Not Found", "{}".to_owned()), |body| ("200 OK", body));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                to.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    impl Connector for EngineAlone {
        type Transport = Self;

        async fn connect(&self, _: Arc<dyn Asker>) -> Result<Self, TransportError> {
            Ok(self.clone())
        }
    }

    impl Transport for EngineAlone {
        async fn open(&self, _: Target) -> Result<Connection, TransportError> {
            let (near, far) = tokio::io::duplex(4096);
            tokio::spawn(self.clone().serve(far));
            Ok(Connection {
                stream: Box::new(near),
                exec: None,
            })
        }

        async fn lost(&self) -> TransportError {
            std::future::pending().await
        }

        async fn check(&self) -> Result<Duration, TransportError> {
            Ok(Duration::ZERO)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_mounted_by_name_is_asked_for_once_and_believed_of_what_was_sent() {
        let scene = Scene::new(SYNCS);
        let (projects, root) = (&scene.projects, scene.sent("/data/w/app"));
        let engine = EngineAlone::default();
        let prompts = Prompts::new(Duration::from_secs(1), Vec::new());
        let link = Link::new(engine.clone(), prompts, Timing::default(), projects.log.clone());
        let labels = |there: &str, here: &str| serde_json::json!({LABEL: serde_json::json!({there: here}).to_string()});
        let volume = |name: &str, there: &str, here: &str| {
            let document =
                serde_json::json!({"Name": name, "Labels": labels(there, here), "Options": {"device": there}});
            engine.shows(&format!("/volumes/{name}"), &document);
            document.to_string()
        };
        let container = |id: &str, there: &str, here: &str| {
            let document = serde_json::json!({"Id": id, "Config": {"Labels": labels(there, here)}});
            engine.shows(&format!("/containers/{id}/json"), &document);
        };
        let (data, src) = (format!("{root}/data"), format!("{root}/src"));
        volume("data", "/data/w/app/data", &data);
        // What a dock makes up: another folder of this machine, or another place on the dock.
        volume("home", "/data/w/app", "/home");
        volume("etc", "/etc", &data);
        engine.shows(
            "/volumes/plain",
            &serde_json::json!({"Name": "plain", "Labels": null, "Options": null}),
        );
        let [ours, another] = [7, 8].map(|number| format!("{number:064x}"));
        projects.ports.note(ours.clone());
        container(&ours, "/data/w/app/src", &src);
        container(&another, "/data/w/app", &root);
        // What was mounted from here before; the dock's places of the others would be believed otherwise.
        let mut before = MountLabel::default();
        for (there, here) in [
            ("/data/w/app/data", &data),
            ("/data/w/app/src", &src),
            ("/data/w/app", &root),
            ("/etc", &data),
        ] {
            before.note(there, here);
        }
        projects.remember(&before).await;
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let references = References {
            volumes: names(&["data", "etc", "home", "none", "plain"]),
            containers: names(&[&ours, &another, "none"]),
        };
        let expected = BTreeMap::from([
            ("/data/w/app/data".to_owned(), data.clone()),
            ("/data/w/app/src".to_owned(), src.clone()),
        ]);
        for _ in 0..2 {
            assert_eq!(projects.inherited(&link, references.clone()).await, expected);
            // Nobody follows the engine: what it has said may not hold any more.
            let all = format!(
                "/volumes/data /volumes/etc /volumes/home /volumes/none /volumes/plain /containers/{ours}/json /containers/{another}/json \
                 /containers/none/json"
            );
            assert_eq!(engine.asked(), all);
        }
        lock(&projects.state).volumes.follow();
        let mut mounted = scene.mounted();
        mounted.label.note("/data/w/app/src", &src);
        projects.created(ours.clone(), Some("web".into()), mounted);
        projects.note_volume(volume("new", "/data/w/app", &root).as_bytes());
        let volumes = |volumes: &[&str]| References {
            volumes: names(volumes),
            containers: names(&["web"]),
        };
        let expected = BTreeMap::from([("/data/w/app".to_owned(), root), ("/data/w/app/src".to_owned(), src)]);
        assert_eq!(projects.inherited(&link, volumes(&["new", "plain"])).await, expected);
        assert_eq!(engine.asked(), "/volumes/plain");
        assert_eq!(projects.inherited(&link, volumes(&["new", "plain"])).await, expected);
        assert_eq!(engine.asked(), "");
        // Another one of that name comes after it.
        let event = EngineEvent {
            kind: "volume".into(),
            action: "destroy".into(),
            actor: crate::ports::engine::Actor {
                id: "new".into(),
                attributes: HashMap::new(),
            },
        };
        projects.take_event(&event).await;
        assert_eq!(projects.inherited(&link, volumes(&["new", "plain"])).await, expected);
        assert_eq!(engine.asked(), "/volumes/new");
        assert_eq!(scene.said("did not say"), 0);
        // An engine that talks nonsense holds nothing up.
        engine.shows("/volumes/odd", &serde_json::json!([1]));
        assert_eq!(projects.inherited(&link, volumes(&["odd"])).await.len(), 1);
        assert_eq!(scene.said("did not say what a new container mounts by name"), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_project_that_can_t_be_synced_is_said_once_with_its_cause() {
        let scene = Scene::new("#!/bin/sh\necho 'sync-up: no such dock' >&2\nexit 1\n");
        for _ in 0..3 {
            all_over(scene.projects.bringing(scene.mounted().roots)).await;
        }
        assert_eq!(scene.said("did not come: "), 1);
        assert_eq!(scene.said("no such dock"), 2, "as it was said, and as the cause");
        let failure = scene
            .projects
            .send(&scene.root().join("gone"), Vec::new())
            .await
            .unwrap_err();
        assert!(failure.message.ends_with("the folder is gone"), "{failure:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_project_is_kept_in_step_by_one_process_however_many_ask_at_once() {
        let scene = Scene::new(&SYNCS.replacen('\n', "\necho started >> started\n", 1));
        let asking = (0..20).map(|_| {
            let (projects, root) = (Arc::clone(&scene.projects), scene.root());
            tokio::spawn(async move { projects.send(&root, Vec::new()).await })
        });
        for asked in asking.collect::<Vec<_>>() {
            assert_eq!(asked.await.unwrap().unwrap().workspace, "/w");
        }
        assert_eq!(fs::read_to_string(scene.root().join("started")).unwrap(), "started\n");
        assert!(scene.projects.keeps());
        scene.projects.close().await;
        assert!(!scene.projects.keeps());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_containers_than_are_followed_are_said_once() {
        let scene = Scene::new(SYNCS);
        let ended = || MountingContainer {
            name: String::new(),
            mounted: MountedRoots::default(),
            runs: true,
            coming: Vec::new(),
            removed: None,
        };
        for number in 0..CONTAINERS + 3 {
            scene.projects.note(format!("{number:064x}"), ended());
        }
        assert_eq!(lock(&scene.projects.state).containers.len(), CONTAINERS);
        assert_eq!(scene.said("containers mount projects"), 1);
    }
}
