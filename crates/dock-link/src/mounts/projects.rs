//! The projects that containers on the dock mount, and what keeps them in step: one process for each project
//! ([`super::sync_process`]), from the first container that is created with a mount of it until the last one has ended.
//!
//! A container bears what it mounts in a label ([`super::label`]), so that an agent that was started meanwhile knows it,
//! too. The label says nothing that is believed without a look: only containers count that were created by way of this machine's
//! agents, and only projects that a person has sent to this dock.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::agent::wire::ProjectMount;
use dock_client::mount_sync::{Done, SyncFailure, Task};
use dock_client::mutex::lock;
use dock_client::sync_memory;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep};

use super::label::{LABEL, MountLabel};
use super::sources::{HostPaths, Location};
use super::sync_process::{SyncProcess, finish};
use crate::link::{Link, OpenOptions, ended};
use crate::log::Log;
use crate::notices::Notices;
use crate::ports::engine::{Engine, EngineEvent, LabelledContainer};
use crate::ports::{Ports, Trouble};
use crate::transport::Connector;

/// How long a project is kept in step after the last request for it while no container runs that mounts it: one that was
/// created is usually started soon.
const GRACE: Duration = Duration::from_secs(60);
/// How often to look whether that has passed.
const TICK: Duration = Duration::from_secs(5);
/// The pause after an engine that did not answer well.
const PAUSE: Duration = Duration::from_secs(5);
/// How many are shown at most: a frame has room for them.
const SHOWN: usize = 500;
/// How many containers are known at most: more than an engine runs.
const CONTAINERS: usize = 4096;

/// The projects of one dock that containers mount.
pub(crate) struct MountedProjects {
    paths: HostPaths,
    notices: Arc<Notices>,
    ports: Arc<Ports>,
    log: Log,
    state: Mutex<State>,
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
}

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
    roots: BTreeSet<PathBuf>,
    runs: bool,
    /// When it was removed. It is known for a while longer: who waits for its removal is still to find what it made.
    removed: Option<Instant>,
}

impl MountedProjects {
    /// None yet.
    pub(crate) fn new(paths: HostPaths, notices: Arc<Notices>, ports: Arc<Ports>, log: Log) -> Arc<Self> {
        Arc::new(Self {
            paths,
            notices,
            ports,
            log,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// What this machine knows of paths.
    pub(super) const fn paths(&self) -> &HostPaths {
        &self.paths
    }

    /// The containers that mount projects, for each project once.
    pub(crate) fn all(&self) -> Vec<ProjectMount> {
        let containers = lock(&self.state).containers.clone();
        let containers = containers
            .into_iter()
            .filter(|(_, container)| container.removed.is_none());
        let mounts = containers.flat_map(|(id, container)| {
            let MountingContainer { name, roots, runs, .. } = container;
            roots.into_iter().map(move |project| ProjectMount {
                container: id.clone(),
                name: name.clone(),
                running: runs,
                workspace: self.paths.workspace(&project).unwrap_or_default(),
                project,
            })
        });
        let mut mounts: Vec<ProjectMount> = mounts.collect();
        mounts.sort();
        mounts.truncate(SHOWN);
        mounts
    }

    /// Whether a container runs that mounts a project, or a sync is under way for one.
    pub(crate) fn keeps(&self) -> bool {
        let mut state = lock(&self.state);
        state.ending.retain(|process| !process.is_finished());
        !state.projects.is_empty() || !state.ending.is_empty()
    }

    /// Sends what changed in a project, and looks for these paths of it.
    pub(super) async fn send(&self, root: &Path, sources: Vec<String>) -> Result<Done, SyncFailure> {
        self.process(root)?.ask(Task::Send { sources }).await
    }

    /// Notes that the engine has created a container that mounts these projects: from now on they are kept in step.
    pub(super) fn created(self: &Arc<Self>, id: String, name: Option<String>, roots: BTreeSet<PathBuf>) {
        for root in &roots {
            self.watch(root);
        }
        let container = MountingContainer {
            name: name.unwrap_or_default(),
            roots,
            runs: false,
            removed: None,
        };
        self.note(id, container);
    }

    /// Brings what a container has made, by its ID, the beginning of that, or its name. Returns at once if it mounts no project.
    pub(super) async fn bring_of(self: &Arc<Self>, name: &str) {
        let roots = {
            let state = lock(&self.state);
            let mut containers = state.containers.iter();
            let is_named = |id: &str, container: &MountingContainer| {
                container.name == name || (name.len() >= 12 && id.starts_with(name)) || id == name
            };
            containers
                .find(|(id, container)| is_named(id, container))
                .map(|(_, container)| container.roots.clone())
        };
        if let Some(roots) = roots {
            self.bring(roots).await;
        }
    }

    /// Follows the dock's containers, for ever.
    pub(crate) async fn run<C: Connector>(self: Arc<Self>, link: Link<C>) {
        loop {
            // An agent of somebody who has sent nothing has nothing to follow.
            while lock(&self.state).projects.is_empty() && sync_memory::workspaces(&self.paths.state).is_empty() {
                self.changed.notified().await;
            }
            link.standing().await;
            if let Err(Trouble::Engine(cause)) = self.follow(&link).await {
                self.log
                    .line(format!("the containers that mount projects are not known: {cause}"));
                sleep(PAUSE).await;
            }
        }
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
        let (connection, _) = link.open(options(), &Target::Engine).await?;
        let running = Engine::on(connection.stream).await?.containers_with(LABEL).await?;
        self.take_list(running);
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                biased;
                _ = ended(&mut over) => return Err(Trouble::Link),
                event = events.next() => self.take_event(&event?),
                _ = tick.tick() => self.end_unused(),
            }
        }
    }

    /// Takes the list of all running containers that bear the label.
    fn take_list(self: &Arc<Self>, running: Vec<LabelledContainer>) {
        let ids: BTreeSet<String> = running.iter().map(|container| container.id.clone()).collect();
        for container in running {
            let Some(roots) = container.labels.get(LABEL).map(|label| self.roots(label)) else {
                continue;
            };
            let name = container
                .names
                .first()
                .map(|name| name.trim_start_matches('/').to_owned());
            self.started(container.id, name.unwrap_or_default(), roots);
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

    fn take_event(self: &Arc<Self>, event: &EngineEvent) {
        if event.kind != "container" {
            return;
        }
        let (id, attributes) = (event.container(), &event.actor.attributes);
        match event.action.as_str() {
            "start" => {
                if let Some(label) = attributes.get(LABEL) {
                    let name = attributes.get("name").cloned().unwrap_or_default();
                    self.started(id.to_owned(), name, self.roots(label));
                }
            }
            "rename" => {
                if let (Some(container), Some(name)) =
                    (lock(&self.state).containers.get_mut(id), attributes.get("name"))
                {
                    container.name.clone_from(name);
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

    fn started(self: &Arc<Self>, id: String, name: String, roots: BTreeSet<PathBuf>) {
        // A dock may have any container bear any label, and has nothing brought here by that.
        if roots.is_empty() || !self.ports.has_made(&id) {
            return;
        }
        for root in &roots {
            self.watch(root);
        }
        let container = MountingContainer {
            name,
            roots,
            runs: true,
            removed: None,
        };
        self.note(id, container);
    }

    fn ended(self: &Arc<Self>, id: &str) {
        let roots = match lock(&self.state).containers.get_mut(id) {
            Some(container) => {
                container.runs = false;
                container.roots.clone()
            }
            None => return,
        };
        let projects = Arc::clone(self);
        tokio::spawn(async move { projects.bring(roots).await });
    }

    /// Brings what changed on the dock in these projects; what hinders it is told.
    async fn bring(self: &Arc<Self>, roots: BTreeSet<PathBuf>) {
        let mut bringing = JoinSet::new();
        for root in roots {
            let projects = Arc::clone(self);
            bringing.spawn(async move {
                let brought = match projects.process(&root) {
                    Ok(process) => process.ask(Task::Bring).await,
                    Err(failure) => Err(failure),
                };
                if let Err(failure) = brought {
                    projects.tell(&format!(
                        "what a container made in the copy of {} did not come: {}",
                        root.display(),
                        failure.message
                    ));
                }
            });
        }
        while bringing.join_next().await.is_some() {}
    }

    /// Has a project kept in step.
    fn watch(self: &Arc<Self>, root: &Path) {
        match self.process(root) {
            Ok(process) => {
                let (projects, root) = (Arc::clone(self), root.to_owned());
                tokio::spawn(async move {
                    if let Err(failure) = process.ask(Task::Watch).await {
                        projects.tell(&format!("{} is not kept in step: {}", root.display(), failure.message));
                    }
                });
            }
            Err(failure) => self.tell(&failure.message),
        }
    }

    /// The process of a project, which is started if there is none.
    fn process(&self, root: &Path) -> Result<SyncProcess, SyncFailure> {
        let mut state = lock(&self.state);
        if let Some(project) = state.projects.get_mut(root) {
            if !project.process.has_ended() {
                project.used = Instant::now();
                return Ok(project.process.clone());
            }
            if let Some(project) = state.projects.remove(root) {
                state.ending.push(project.running);
            }
        }
        let (notices, log) = (Arc::clone(&self.notices), self.log.clone());
        let said = move |line: &str| {
            log.line(line);
            notices.tell_all(line);
        };
        let (process, running) = SyncProcess::start(root, &self.paths.moniker, said).map_err(|cause| SyncFailure {
            message: format!("{} can't be synced: {cause}", root.display()),
            hint: (cause.kind() == io::ErrorKind::NotFound)
                .then(|| "install sync-up beside dock-agent: cargo xtask install".to_owned()),
        })?;
        let project = MountedProject {
            process: process.clone(),
            running,
            used: Instant::now(),
        };
        state.projects.insert(root.to_owned(), project);
        drop(state);
        self.changed.notify_one();
        Ok(process)
    }

    fn note(&self, id: String, container: MountingContainer) {
        let mut state = lock(&self.state);
        if state.containers.len() < CONTAINERS || state.containers.contains_key(&id) {
            state.containers.insert(id, container);
        }
    }

    /// Has the processes end whose projects no running container mounts, and that nobody has asked for a while.
    fn end_unused(&self) {
        let mut state = lock(&self.state);
        let is_known = |container: &MountingContainer| container.removed.is_none_or(|when| when.elapsed() < GRACE);
        state.containers.retain(|_, container| is_known(container));
        let runs = |container: &&MountingContainer| container.runs;
        let used: BTreeSet<PathBuf> = state
            .containers
            .values()
            .filter(runs)
            .flat_map(|container| container.roots.iter().cloned())
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
    }

    /// The projects that a label names, if they are this machine's and were sent to this dock.
    fn roots(&self, label: &str) -> BTreeSet<PathBuf> {
        let Some(label) = MountLabel::parse(label) else {
            return BTreeSet::new();
        };
        let sources = label.sources().filter(|(there, here)| self.paths.leads_to(here, there));
        sources
            .filter_map(|(_, here)| match self.paths.locate(here) {
                Location::Project { root, .. } => Some(root),
                _ => None,
            })
            .collect()
    }

    fn tell(&self, line: &str) {
        self.log.line(line);
        self.notices.tell_all(line);
    }
}
