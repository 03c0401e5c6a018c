//! What becomes of the requests of one docker client that create something with mounts: their sources are found, projects
//! are sent, and the request goes on with the paths of the dock, or is refused with the line that helps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dock_client::agent::target::Target;
use dock_client::docks::{Access, Dock, ENGINE_SOCKET, MountPaths};
use dock_client::mount_sync::{Missing, MissingSource};
use dock_client::shell::quote;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::answers::{self, MountAnswer};
use super::dock_paths::{self, Place};
use super::events::{self, LONGEST_EVENTS};
use super::label::MountLabel;
use super::messages;
use super::other_requests::{self, OtherRequest};
use super::projects::{MountedProjects, MountedRoots};
use super::requests::{self, MountRequest};
use super::sources::{HostPaths, Location, below};
use super::{api_path, between};
use crate::disk;
use crate::exposures::{Exposures, host_name};
use crate::http::hooks::{
    AnswerNote, AnswerTreatment, BodyChange, ChunkRewrite, Decision, EngineHooks, HeldRequest, Rewrite, Treatment,
    Verdict,
};
use crate::link::{Link, OpenOptions, Over};
use crate::ports::Ports;
use crate::ports::created_containers::{is_container, is_service};
use crate::transport::{Connector, Duplex};

/// The longest body of a request that creates something, in bytes as they come.
const LONGEST_REQUEST: usize = 4 << 20;
/// The longest answer in which mounts are shown as they were said, in bytes: some thousand containers. Longer ones pass as they
/// come.
const LONGEST_ANSWER: usize = 8 << 20;
/// The longest answer to a request that creates or starts something, in bytes: an ID and warnings, a volume, or what is wrong.
const LONGEST_CREATED: usize = 256 * 1024;
/// How long this machine may take to find its paths: one may lie on a file system that hangs.
const LIMIT_HERE: Duration = Duration::from_secs(10);
/// How long a client whose request is held waits for a link that broke.
const LIMIT_REOPEN: Duration = Duration::from_secs(60);
/// The variable with which a client has its paths taken as the dock's.
const LITERAL: (&str, &str) = ("DOCK_MOUNTS", "literal");
/// What is done with one connection of a docker client.
pub(crate) struct ClientConnection<C: Connector> {
    projects: Arc<MountedProjects>,
    link: Link<C>,
    ports: Arc<Ports>,
    exposures: Arc<Exposures>,
    /// The engine's socket on the dock.
    engine_socket: String,
    /// Whose the paths are that it has mounted.
    paths: PathOwner,
}

/// Whose the paths are that a client has the engine mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathOwner {
    /// This machine's, as far as they are in its projects.
    Here,
    /// The dock's, as they are.
    Dock,
}

impl PathOwner {
    /// Of a program here that speaks to this dock: the dock's entry, or the program's environment, may say that it means the dock's.
    pub(crate) fn of(dock: &Dock, client: Option<i32>) -> Self {
        match dock.mounts == MountPaths::Literal || client.is_some_and(says_literal) {
            true => Self::Dock,
            false => Self::Here,
        }
    }
}

/// A request as the engine is asked, and what is mounted by it.
struct TranslatedRequest {
    verdict: Verdict,
    mounted: MountedRoots,
}

impl<C: Connector> ClientConnection<C> {
    /// The connection of a client to this dock.
    pub(crate) fn new(
        projects: Arc<MountedProjects>,
        link: Link<C>,
        ports: Arc<Ports>,
        exposures: Arc<Exposures>,
        dock: &Dock,
        paths: PathOwner,
    ) -> Self {
        let engine_socket = match &dock.access {
            Access::Ssh(ssh) => ssh.engine_socket(),
            Access::Tcp { .. } | Access::Context { .. } => ENGINE_SOCKET,
        };
        Self {
            projects,
            link,
            ports,
            exposures,
            engine_socket: engine_socket.to_owned(),
            paths,
        }
    }

    async fn translated(&self, kind: MountRequest, request: &HeldRequest) -> Result<TranslatedRequest, MountRefusal> {
        let wrong = |error: requests::RequestError| MountRefusal(StatusCode::BAD_REQUEST, error.to_string());
        let nothing = BTreeMap::new();
        if self.paths == PathOwner::Dock {
            // Nothing is translated, and a label that says otherwise is dropped.
            let body = requests::translate(kind, &request.body, &nothing, &nothing).map_err(wrong)?;
            return Ok(TranslatedRequest {
                verdict: body.map_or(Verdict::AsItWas, Verdict::Body),
                mounted: MountedRoots::default(),
            });
        }
        let mut sources: BTreeSet<String> = requests::sources(kind, &request.body)
            .map_err(wrong)?
            .into_iter()
            .map(|source| source.path)
            .collect();
        let references = requests::references(kind, &request.body).map_err(wrong)?;
        let mut inherited = self.projects.inherited(&self.link, references).await;
        // What is mounted by name is sent, and looked at on the dock, as if its path had been said.
        sources.extend(inherited.values().cloned());
        let found = self.found(sources).await?;
        let (paths, roots, warnings) = self.on_the_dock(found).await?;
        inherited.retain(|there, here| paths.get(here) == Some(there));
        let body = requests::translate(kind, &request.body, &paths, &inherited).map_err(wrong)?;
        let mut label = MountLabel::default();
        for (here, there) in &paths {
            label.note(there, here);
        }
        self.projects.remember(&label).await;
        Ok(TranslatedRequest {
            verdict: body.map_or(Verdict::AsItWas, Verdict::Body),
            mounted: MountedRoots { roots, label, warnings },
        })
    }

    /// What is done with the answer to a request that creates or updates something, which mounts this.
    fn creation(&self, kind: MountRequest, target: &str, mounted: MountedRoots) -> AnswerTreatment {
        let (projects, ports) = (Arc::clone(&self.projects), Arc::clone(&self.ports));
        let label = mounted.label.clone();
        let warnings = mounted.warnings.clone();
        let is_ours = {
            let projects = Arc::clone(&projects);
            move |there: &str, here: &str| projects.has_mounted(there, here)
        };
        let name = name_of(target);
        let updated = updated_service(target);
        let note: AnswerNote = match kind {
            MountRequest::Container => Box::new(move |status, body| {
                if let Some(id) = created(status, body).filter(|id| is_container(id)) {
                    if !mounted.roots.is_empty() {
                        projects.created(id.clone(), name, mounted);
                    }
                    ports.note(id);
                }
            }),
            MountRequest::Service => Box::new(move |status, body| {
                let id = match status {
                    200 => updated,
                    status => created(status, body),
                };
                // Its tasks are followed, whose containers the engine creates by itself.
                if let Some(id) = id.filter(|id| !mounted.roots.is_empty() && is_service(id)) {
                    ports.note(id);
                }
            }),
            MountRequest::Volume => Box::new(move |status, body| {
                if status == 201 {
                    projects.note_volume(body);
                }
            }),
        };
        let body: BodyChange = Box::new(move |status, body| match (status, kind) {
            (201, MountRequest::Volume) => answers::restore(MountAnswer::Volume, body, &is_ours),
            (201, MountRequest::Container) => messages::with_warnings(body, &warnings),
            (400.., _) => messages::restored_error(body, &label),
            _ => None,
        });
        AnswerTreatment::Whole(Rewrite {
            limit: LONGEST_CREATED,
            statuses: |_| true,
            note: Some(note),
            // An ID waits for no disk.
            concerns: |status, body| status >= 400 || answers::may_show(body),
            body,
        })
    }

    /// What is done with the answer to a request of which nothing else is decided.
    fn answer_to(&self, method: &str, target: &str) -> AnswerTreatment {
        let path = &*api_path(target).unwrap_or_default();
        if waited_for(target).is_some() {
            return AnswerTreatment::Delayed(target.to_owned());
        }
        match (method, path) {
            ("GET", "/events") => {
                return AnswerTreatment::Chunks(ChunkRewrite {
                    limit: LONGEST_EVENTS,
                    chunk: events::unlabelled,
                });
            }
            // Podman's own API says the same of what it has created.
            ("POST", "/libpod/containers/create") => {
                return self.creation(MountRequest::Container, target, MountedRoots::default());
            }
            _ => {}
        }
        if let Some(label) = started(method, path).and_then(|container| self.projects.label_of(container)) {
            return AnswerTreatment::Whole(Rewrite {
                limit: LONGEST_CREATED,
                statuses: |status| status >= 400,
                note: None,
                concerns: |_, _| true,
                body: Box::new(move |_, body| messages::restored_error(body, &label)),
            });
        }
        match MountAnswer::of(method, target, 200) {
            Some(kind) => {
                let projects = Arc::clone(&self.projects);
                AnswerTreatment::Whole(Rewrite {
                    limit: LONGEST_ANSWER,
                    statuses: |status| status == 200,
                    note: None,
                    concerns: |_, body| answers::may_show(body),
                    body: Box::new(move |_, body| {
                        answers::restore(kind, body, &|there, here| projects.has_mounted(there, here))
                    }),
                })
            }
            None => AnswerTreatment::Passes,
        }
    }

    /// The request, if it concerns mounts though it carries none.
    fn concerned(&self, method: &str, target: &str) -> Option<OtherRequest> {
        let other = OtherRequest::of(method, target)?;
        let concerns = match &other {
            OtherRequest::Commit(container) => self.projects.is_mounting(container),
            OtherRequest::List(_) | OtherRequest::Podman => self.paths == PathOwner::Here,
        };
        concerns.then_some(other)
    }

    async fn other(&self, other: OtherRequest, request: &HeldRequest) -> Verdict {
        match other {
            OtherRequest::Commit(_) => Verdict::Target(other_requests::unlabelled(&request.target)),
            OtherRequest::List(volumes) => {
                let paths = self.projects.paths().clone();
                let looking = disk::within(LIMIT_HERE, move || {
                    let absolute = volumes.iter().filter(|volume| volume.starts_with('/'));
                    let place = |volume: &String| paths.place(volume);
                    absolute.filter_map(place).collect::<Vec<_>>()
                });
                let places = looking.await.unwrap_or_default();
                let target = match places.is_empty() {
                    true => None,
                    false => other_requests::finding_also(&request.target, &places),
                };
                target.map_or(Verdict::AsItWas, Verdict::Target)
            }
            OtherRequest::Podman if other_requests::mounts_a_path(&request.body) => Verdict::Answer {
                status: StatusCode::BAD_REQUEST,
                message: format!(
                    "paths in requests of Podman's own API are not translated for dock {:?}: use docker's API (docker, or another of \
                     its clients), or {}",
                    self.moniker(),
                    HostPaths::literally()
                ),
            },
            OtherRequest::Podman => Verdict::AsItWas,
        }
    }

    /// Where these sources are; an error if one is nowhere.
    async fn found(&self, sources: BTreeSet<String>) -> Result<Vec<(String, Location)>, MountRefusal> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let paths = self.projects.paths().clone();
        let locating = disk::within(LIMIT_HERE, move || {
            let located = sources.into_iter().map(|source| {
                let location = paths.locate(&source);
                (source, location)
            });
            located.collect::<Vec<_>>()
        });
        let Some(found) = locating.await else {
            let why = "the mounted paths could not be looked at on this machine: its disk does not answer";
            return Err(MountRefusal(StatusCode::INTERNAL_SERVER_ERROR, why.to_owned()));
        };
        let refused = found.iter().filter_map(|(_, location)| match location {
            Location::Refused(why) => Some(why.clone()),
            _ => None,
        });
        MountRefusal::of(refused.collect())?;
        Ok(found)
    }

    /// Sends the projects, and says which path on the dock each source is.
    async fn on_the_dock(
        &self,
        found: Vec<(String, Location)>,
    ) -> Result<(BTreeMap<String, String>, BTreeSet<PathBuf>, Vec<String>), MountRefusal> {
        let mut paths = BTreeMap::new();
        let mut warnings = Vec::new();
        let mut projects: BTreeMap<PathBuf, Vec<(String, String)>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (source, location) in found {
            match location {
                Location::Project { root, inside } => projects.entry(root).or_default().push((source, inside)),
                Location::Engine => drop(paths.insert(source, self.engine_socket.clone())),
                Location::Unknown { is_here: true } => unknown.push(source),
                // Where neither side has it, the engine does what it does anywhere.
                Location::Unknown { is_here: false } | Location::Dock | Location::Refused(_) => {}
            }
        }
        let roots = projects.keys().cloned().collect();
        let mut sending = JoinSet::new();
        for (root, sources) in projects {
            let mounted = Arc::clone(&self.projects);
            sending.spawn(async move {
                let inside = sources.iter().map(|(_, inside)| inside.clone()).collect();
                let sent = mounted.send(&root, inside).await;
                (root, sources, sent)
            });
        }
        let absent = self.absent(unknown);
        let mut refused = absent.await?;
        while let Some(sent) = sending.join_next().await {
            let Ok((root, sources, sent)) = sent else {
                let why = "a part of the agent ended early".to_owned();
                return Err(MountRefusal(StatusCode::INTERNAL_SERVER_ERROR, why));
            };
            let done = sent.map_err(|failure| {
                let hint = failure.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
                let message = format!(
                    "{} could not be sent to dock {:?}, so nothing was created: {}{hint}",
                    root.display(),
                    self.moniker(),
                    failure.message
                );
                MountRefusal(StatusCode::INTERNAL_SERVER_ERROR, message)
            })?;
            warnings.extend(done.warnings.iter().cloned());
            let (missing, there): (Vec<_>, Vec<_>) = sources
                .into_iter()
                .partition(|(_, inside)| done.missing.iter().any(|missing| missing.path == *inside));
            for (source, inside) in missing {
                let why = done.missing.iter().find(|missing| missing.path == inside);
                refused.extend(why.map(|missing| self.sentence(&source, missing)));
            }
            if !there.is_empty() {
                refused.extend(self.strayed(&root, &done.workspace, &there).await?);
            }
            for (source, inside) in there {
                paths.insert(source, below(&done.workspace, &inside));
            }
        }
        MountRefusal::of(refused)?;
        Ok((paths, roots, warnings))
    }

    /// Says which of these paths of this machine the dock does not have.
    async fn absent(&self, sources: Vec<String>) -> Result<Vec<String>, MountRefusal> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let there = match dock_paths::exist(&self.link, &sources).await {
            Ok(there) => there,
            Err(_) => {
                let why = format!(
                    "dock {:?} did not say whether it has {}: try again, or {}",
                    self.moniker(),
                    sources.join(", "),
                    HostPaths::literally()
                );
                return Err(MountRefusal(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
        };
        let absent = sources.iter().zip(there).filter(|(_, there)| !there);
        let sentence = |source: &String| {
            format!(
                "{source} is on this machine, in no project (a folder with docker/, or a git repository), and not on dock {:?}",
                self.moniker()
            )
        };
        Ok(absent.map(|(source, _)| sentence(source)).collect())
    }

    /// Says which of these places in a project's copy are not what they are here: a container may have put a link there that
    /// leads to anything that the dock's engine can read.
    async fn strayed(
        &self,
        root: &Path,
        workspace: &str,
        sources: &[(String, String)],
    ) -> Result<Vec<String>, MountRefusal> {
        let there: Vec<String> = sources.iter().map(|(_, inside)| below(workspace, inside)).collect();
        let moniker = quote(self.moniker());
        let Ok(places) = dock_paths::places(&self.link, workspace, &there).await else {
            let why = format!(
                "dock {:?} did not say where {} leads to, so nothing was created: try again",
                self.moniker(),
                there.join(", "),
            );
            return Err(MountRefusal(StatusCode::INTERNAL_SERVER_ERROR, why));
        };
        let settled = |source: &str, inside: &str| {
            let path = if inside.is_empty() { "." } else { inside };
            let root = quote(&root.display().to_string()).into_owned();
            format!(
                "to have {source} there again: cd {root} && sync-up --dock {moniker} --ours {}",
                quote(path)
            )
        };
        let sentence = |(((source, inside), there), place): (((&String, &String), &String), Place)| match place {
            Place::Inside => None,
            Place::Outside => Some(format!(
                "{source} leads out of the project's copy on dock {:?}: there, {there} is a link, or below one (ssh-dock {moniker} ls \
                 -ld {}); {}",
                self.moniker(),
                quote(&quote(there)),
                settled(source, inside)
            )),
            Place::Absent => Some(format!(
                "{source} was removed on dock {:?}, and an empty folder is not made in its place: sync-down --dock {moniker} \
                 removes it here, too; {}",
                self.moniker(),
                settled(source, inside)
            )),
            Place::Hidden => Some(format!(
                "{source} can't be looked at on dock {:?}, where {there} is another user's (to have its files: sync-down --dock \
                 {moniker} --chown)",
                self.moniker(),
            )),
        };
        let pairs = sources.iter().map(|(source, inside)| (source, inside));
        Ok(pairs.zip(&there).zip(places).filter_map(sentence).collect())
    }

    fn moniker(&self) -> &str {
        &self.projects.paths().moniker
    }

    fn sentence(&self, source: &str, missing: &MissingSource) -> String {
        let moniker = self.moniker();
        match missing.why {
            Missing::Absent => format!("{source} does not exist here, and an empty folder is not made for it"),
            Missing::Ignored => format!(
                "{source} is left out by .dockerignore, so dock {moniker:?} does not have it: take it out there (a line !{}), \
                 or don't mount it",
                quote(&missing.path)
            ),
            Missing::Git => format!(
                "{source} is git's own, which is not sent to a dock, unless {{sync: {{with_git: true}}}} is in \
                 ~/.config/dockerutils/config.yml"
            ),
            Missing::Special => {
                format!("{source} is a socket, a pipe or a device, which does not travel to dock {moniker:?}")
            }
            Missing::Unsent => format!(
                "{source} could not be sent to dock {moniker:?}; to see why: sync-up --dock {}",
                quote(moniker)
            ),
        }
    }
}

impl<C: Connector> EngineHooks for ClientConnection<C> {
    fn on_request(&self, method: &str, target: &str) -> Treatment {
        let is_held = MountRequest::of(method, target).is_some() || self.concerned(method, target).is_some();
        Treatment {
            hold: is_held.then_some(LONGEST_REQUEST),
            answer: self.answer_to(method, target),
        }
    }

    async fn held(&self, request: &HeldRequest) -> Decision {
        if let Some(other) = self.concerned(&request.method, &request.target) {
            return self.other(other, request).await.into();
        }
        let Some(kind) = MountRequest::of(&request.method, &request.target) else {
            return Verdict::AsItWas.into();
        };
        let TranslatedRequest { verdict, mounted } = match self.translated(kind, request).await {
            Ok(translated) => translated,
            Err(MountRefusal(status, message)) => return Verdict::Answer { status, message }.into(),
        };
        let numbered = match (kind, &verdict) {
            (MountRequest::Container, Verdict::Body(body)) => self.ports.numbered(&self.link, body).await,
            (MountRequest::Container, _) => self.ports.numbered(&self.link, &request.body).await,
            (MountRequest::Volume | MountRequest::Service, _) => None,
        };
        let verdict = numbered.map_or(verdict, Verdict::Body);
        let named = match (kind, self.exposures.gateway()) {
            (MountRequest::Container, Some(address)) => {
                let body = match &verdict {
                    Verdict::Body(body) => body,
                    _ => &request.body,
                };
                host_name::named(body, address)
            }
            _ => None,
        };
        Decision {
            verdict: named.map_or(verdict, Verdict::Body),
            answer: Some(self.creation(kind, &request.target, mounted)),
        }
    }

    async fn reopen(&self) -> Result<(Box<dyn Duplex>, Over), String> {
        let options = OpenOptions {
            arrival: Instant::now(),
            patience: LIMIT_REOPEN,
            answers: false,
        };
        match self.link.open(options, &Target::Engine).await {
            Ok((connection, over)) => Ok((connection.stream, over)),
            Err(error) => Err(format!(
                "the link to dock {0:?} broke while the request waited for its mounts, so nothing was created: {1} (to see what is wrong: \
                 ls-dock --check {2})",
                self.moniker(),
                error.message,
                quote(self.moniker())
            )),
        }
    }

    async fn before_body(&self, target: &str) {
        if let Some(container) = waited_for(target) {
            // Who waits for a container's end finds what it made.
            self.projects.bring_of(&container).await;
        }
    }
}

/// An answer that creates nothing.
#[derive(Debug)]
struct MountRefusal(StatusCode, String);

impl MountRefusal {
    /// The refusal for these reasons; none without a reason.
    fn of(reasons: Vec<String>) -> Result<(), Self> {
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(Self(StatusCode::BAD_REQUEST, reasons.join("; "))),
        }
    }
}

/// The ID of what an engine says that it has created.
fn created(status: u16, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Id", alias = "ID")]
        id: String,
    }
    let Created { id } = serde_json::from_slice(body).ok().filter(|_| status == 201)?;
    Some(id)
}

/// The service that a request updates.
fn updated_service(target: &str) -> Option<String> {
    between(&api_path(target)?, "/services/", "/update").map(str::to_owned)
}

/// The container that a request with this path starts.
fn started<'a>(method: &str, path: &'a str) -> Option<&'a str> {
    let starts = |end| between(path, "/containers/", end).filter(|container| !container.contains('/'));
    let container = starts("/start").or_else(|| starts("/restart"));
    container.filter(|_| method == "POST")
}

/// The container for whose end a request waits.
fn waited_for(target: &str) -> Option<String> {
    let path = api_path(target)?;
    let container = between(&path, "/containers/", "/wait").filter(|container| !container.contains('/'));
    container.map(str::to_owned)
}

/// The name that a request gives to a container.
fn name_of(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name="))?;
    // A container's name has no character that a query escapes.
    Some(name.to_owned()).filter(|name| !name.is_empty() && !name.contains('%'))
}

/// Whether a process was started with paths that are the dock's own.
#[cfg(target_os = "linux")]
fn says_literal(client: i32) -> bool {
    let environment = std::fs::read(format!("/proc/{client}/environ")).unwrap_or_default();
    let wanted = format!("{}={}", LITERAL.0, LITERAL.1);
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted.as_bytes())
}

/// Elsewhere the environment of another process can't be read: `register-dock --mounts literal` says it for a dock.
#[cfg(not(target_os = "linux"))]
fn says_literal(_: i32) -> bool {
    let _ = LITERAL;
    false
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn the_name_of_a_container_is_in_the_query() {
        for (target, name) in [
            ("/v1.45/containers/create?name=web", Some("web")),
            ("/containers/create?platform=&name=web-1", Some("web-1")),
            ("/containers/create?name=", None),
            ("/containers/create", None),
            ("/containers/create?name=%2e", None),
        ] {
            assert_eq!(name_of(target).as_deref(), name, "{target}");
        }
    }

    #[test]
    fn what_was_created_is_in_the_answer() {
        for (status, body, id) in [
            (201, r#"{"Id":"a","Warnings":[]}"#, Some("a")),
            (201, r#"{"ID":"s","Warnings":null}"#, Some("s")),
            (200, r#"{"Id":"a"}"#, None),
            (409, r#"{"Id":"a","message":"taken"}"#, None),
            (201, r#"{"Name":"v"}"#, None),
            (201, r#"{"Id":"a","ID":"b"}"#, None),
            (201, "", None),
        ] {
            assert_eq!(created(status, body.as_bytes()).as_deref(), id, "{body}");
        }
    }

    #[test]
    fn what_a_request_starts_or_updates_is_in_its_path() {
        let starts = |method, target| started(method, &api_path(target).unwrap()).map(str::to_owned);
        assert_eq!(starts("POST", "/v1.45/containers/web/start"), Some("web".to_owned()));
        assert_eq!(starts("POST", "/containers/web/restart?t=1"), Some("web".to_owned()));
        for (method, target) in [
            ("GET", "/containers/web/start"),
            ("POST", "/containers/a/b/start"),
            ("POST", "/containers/web/stop"),
            ("POST", "/libpod/containers/web/start"),
        ] {
            assert_eq!(starts(method, target), None, "{target}");
        }
        assert_eq!(
            updated_service("/v1.45/services/abc/update?version=7").as_deref(),
            Some("abc")
        );
        assert_eq!(updated_service("/services/create"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_environment_of_a_client_says_whose_its_paths_are() {
        let run = |value: &str| {
            let mut child = std::process::Command::new("cat")
                .env("DOCK_MOUNTS", value)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // A client has connected, and so has begun.
            child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            let said = says_literal(i32::try_from(child.id()).unwrap());
            drop(child.stdin.take());
            child.wait().unwrap();
            said
        };
        assert!(run("literal"));
        assert!(!run("translated") && !says_literal(0));
    }
}
