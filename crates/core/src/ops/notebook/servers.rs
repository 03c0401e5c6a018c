//! The notebook servers of a user on an engine, as their labels show them: for `--list`, `--stop`, and a second
//! `run-notebook` in the same project.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Notify;

use super::label::{NotebookLabel, ServerKind};
use super::owner::PROJECT_MOUNT;
use super::ready::{Awaited, Ready, look};
use crate::context::Context;
use crate::docker::connect::engine::{Engine, found};
use crate::docker::containers::{LABEL_NOTEBOOK, LABEL_NOTEBOOK_PAGE, LABEL_PROJECT, LABEL_USER};
use crate::error::{Error, Result};
use crate::hint;
use crate::jupyter::client::{ServerError, ServerStatus};
use crate::jupyter::token::{TOKEN_VARIABLE, Token};

/// How long a server that runs may take to answer.
const LIMIT: Duration = Duration::from_secs(8);
/// So many servers are asked at the same time.
const AT_ONCE: usize = 8;
/// The longest path of a first page that is taken from a label, in bytes.
const LONGEST_PAGE: usize = 2048;
/// The most servers of one user that are looked at.
const MOST: usize = 200;

/// A server in a JSON document. All fields are always there; what does not apply, or is not known, is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotebookServer {
    /// What opens it in a browser, with the token in it.
    pub url: Option<String>,
    /// The server's token; `null` for something that is not Jupyter.
    pub token: Option<String>,
    /// The container's name.
    pub container: String,
    /// The moniker of the dock that it is on; `null` for another engine.
    pub dock: Option<String>,
    pub image: String,
    /// The port of 127.0.0.1 here.
    pub port: Option<u16>,
    /// When the container was started, as RFC 3339 has it.
    pub started: Option<String>,
    /// How long neither a kernel nor a page has done anything.
    pub idle_seconds: Option<u64>,
    /// Running kernels.
    pub kernels: Option<u32>,
    /// Open connections to kernels.
    pub connections: Option<u32>,
    /// Why it is not known how the server is.
    pub error: Option<String>,
}

/// A running container with a notebook server of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundNotebook {
    /// The container's ID.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// The name of the image that it was made of.
    pub image: String,
    /// The project that it was started for.
    pub project: Option<String>,
    /// The folder of the engine's machine that it has as its project, if something is mounted there.
    pub mounted: Option<String>,
    /// All places inside where that folder is.
    pub project_mounts: Vec<String>,
    pub label: NotebookLabel,
    /// The path of the first page that it was started for, if that is another than Jupyter's own.
    pub page: Option<String>,
    /// The token that it was given.
    pub token: Option<Token>,
    /// When it was started.
    pub started: Option<Timestamp>,
}

/// The notebook servers of this user, of one project or of all, the newest first. Containers that have ended meanwhile are left
/// out.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn find(engine: &Engine, user: &str, project: Option<&str>) -> Result<Vec<FoundNotebook>> {
    let mut labels = vec![LABEL_NOTEBOOK.to_owned(), format!("{LABEL_USER}={user}")];
    labels.extend(project.map(|project| format!("{LABEL_PROJECT}={project}")));
    let options = ListContainersOptions {
        filters: Some(HashMap::from([("label".to_owned(), labels)])),
        ..ListContainersOptions::default()
    };
    let listed = engine.docker().list_containers(Some(options)).await;
    let listed = listed.map_err(|cause| engine.error("its containers", cause))?;
    let ids = listed.into_iter().filter_map(|container| container.id).take(MOST);
    let inspecting = futures_util::stream::iter(ids.map(|id| inspect(engine, id))).buffered(AT_ONCE);
    let inspected: Vec<Result<Option<ContainerInspectResponse>>> = inspecting.collect().await;
    let mut servers = Vec::new();
    for container in inspected {
        servers.extend(container?.and_then(|container| FoundNotebook::of(container, user, project)));
    }
    servers.sort_by(|one, other| other.started.cmp(&one.started).then_with(|| one.name.cmp(&other.name)));
    Ok(servers)
}

/// The server in this container of the user's; `None` if it has ended.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub(super) async fn of_container(engine: &Engine, id: &str, user: &str) -> Result<Option<FoundNotebook>> {
    let container = inspect(engine, id.to_owned()).await?;
    Ok(container.and_then(|container| FoundNotebook::of(container, user, None)))
}

async fn inspect(engine: &Engine, id: String) -> Result<Option<ContainerInspectResponse>> {
    let answer = engine
        .docker()
        .inspect_container(&id, None::<InspectContainerOptions>)
        .await;
    found(answer).map_err(|cause| engine.error(&id, cause))
}

impl FoundNotebook {
    /// Whose container it is, and what serves in it, as its labels say; `None` if it is another's, or does not run. (The
    /// filter of the listing is the engine's, and old ones have others.)
    fn of(container: ContainerInspectResponse, user: &str, project: Option<&str>) -> Option<Self> {
        let state = container.state?;
        let mounts = container.mounts.unwrap_or_default();
        let config = container.config?;
        let labels = config.labels?;
        let of_project = labels.get(LABEL_PROJECT).map(String::as_str);
        let is_asked = labels.get(LABEL_USER).is_some_and(|owner| owner == user)
            && project.is_none_or(|project| of_project == Some(project));
        if state.running != Some(true) || !is_asked {
            return None;
        }
        let label = NotebookLabel::parse(labels.get(LABEL_NOTEBOOK)?)?;
        let variables = config.env.unwrap_or_default();
        let token = variables
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .find(|(name, _)| *name == TOKEN_VARIABLE)
            .and_then(|(_, value)| Token::from_environment_value(value));
        let mounts = || {
            mounts
                .iter()
                .map(|mount| (mount.destination.as_deref(), mount.source.as_deref()))
        };
        let mounted = mounts().find_map(|(inside, source)| {
            (inside == Some(PROJECT_MOUNT)).then(|| source.unwrap_or_default().to_owned())
        });
        let project_mounts = mounts()
            .filter(|(_, source)| source.is_some() && *source == mounted.as_deref())
            .filter_map(|(inside, _)| inside.map(str::to_owned))
            .collect();
        Some(Self {
            id: container.id?,
            name: container.name?.trim_start_matches('/').to_owned(),
            image: config.image.unwrap_or_default(),
            project: of_project.map(str::to_owned),
            mounted,
            project_mounts,
            label,
            page: labels
                .get(LABEL_NOTEBOOK_PAGE)
                .filter(|page| page.len() <= LONGEST_PAGE)
                .cloned(),
            token,
            started: state.started_at.and_then(|time| time.parse().ok()),
        })
    }

    /// Where the server is reached from here, and with which token: for a second `run-notebook`, and to stop it. `local` says
    /// whether the engine is on this machine.
    ///
    /// # Errors
    /// A server that does not answer, or does not take its token.
    pub async fn reach(&self, context: &Context, engine: &Engine, local: bool) -> Result<(Ready, Token)> {
        let token = match (&self.token, self.label.kind) {
            (Some(token), _) => token.clone(),
            // It is sent to nobody.
            (None, ServerKind::Page) => Token::generate()?,
            (None, ServerKind::Jupyter) => {
                return Err(Error::failed(format!(
                    "container {} was given no {TOKEN_VARIABLE}: its server's token is not known",
                    self.name
                ))
                .hint(hint!("stop it, and start it again: run-notebook --stop {}", self.name)));
            }
        };
        let awaited = Awaited {
            container: &self.id,
            name: &self.name,
            label: &self.label,
            token: &token,
            limit: LIMIT,
            shows_log: true,
            wants_root_dir: true,
        };
        let never = Notify::new();
        let looking = look(context, engine, local, &awaited, &never);
        match tokio::time::timeout(LIMIT, looking).await {
            Ok(ready) => Ok((ready?, token)),
            Err(_) => Err(Error::failed(format!(
                "the server in container {} has not answered for {} s",
                self.name,
                LIMIT.as_secs()
            ))
            .hint(hint!("see what it does: docker logs -- {}", self.name))),
        }
    }

    /// The server as JSON shows it; what is wrong with it is a field.
    pub async fn describe(&self, context: &Context, engine: &Engine, local: bool) -> NotebookServer {
        match self.reach(context, engine, local).await {
            Ok((ready, token)) => self.describe_ready(engine, &ready, &token).await,
            Err(error) => NotebookServer {
                error: Some(error.with_causes()),
                ..self.unasked(engine)
            },
        }
    }

    /// [`describe`](Self::describe), where it is known how the server is reached.
    pub(super) async fn describe_ready(&self, engine: &Engine, ready: &Ready, token: &Token) -> NotebookServer {
        let mut server = self.unasked(engine);
        server.take(ready, token);
        if let Some(client) = ready.client(token) {
            server.take_status(client.status().await);
        }
        server
    }

    /// What is known without asking it.
    fn unasked(&self, engine: &Engine) -> NotebookServer {
        NotebookServer {
            url: None,
            token: None,
            container: self.name.clone(),
            dock: engine.choice().dock().map(str::to_owned),
            image: self.image.clone(),
            port: None,
            started: self.started.map(|time| time.to_string()),
            idle_seconds: None,
            kernels: None,
            connections: None,
            error: None,
        }
    }
}

impl NotebookServer {
    /// Where the server is reached.
    fn take(&mut self, ready: &Ready, token: &Token) {
        self.url = Some(ready.url(token, None));
        self.port = Some(ready.port);
        self.token = (ready.kind == ServerKind::Jupyter).then(|| token.reveal().to_owned());
    }

    /// How the server is.
    fn take_status(&mut self, status: Result<ServerStatus, ServerError>) {
        match status {
            Ok(status) => {
                self.idle_seconds = Some(status.idle.as_secs());
                self.kernels = Some(status.kernels);
                self.connections = Some(status.connections);
            }
            Err(error) => self.error = Some(format!("the server in container {}: {error}", self.container)),
        }
    }
}

/// All of these servers, each asked how it is, several at a time.
pub async fn describe_all(
    context: &Context,
    engine: &Engine,
    local: bool,
    servers: &[FoundNotebook],
) -> Vec<NotebookServer> {
    let asking = servers.iter().map(|server| server.describe(context, engine, local));
    futures_util::stream::iter(asking).buffered(AT_ONCE).collect().await
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::{Value, json};

    use super::super::samples::{connected, context, engine, inspected, jupyter, port_of, printed};
    use super::*;

    fn listing(engine: ScriptedEngine, ids: &[&str]) -> ScriptedEngine {
        let listed: Vec<Value> = ids.iter().map(|id| json!({ "Id": id })).collect();
        engine.on("GET", "/containers/json", Reply::json(200, &json!(listed)))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_is_found_by_its_labels_and_asked_how_it_is() {
        let server = jupyter();
        let port = port_of(&server);
        let scripted = listing(engine(port), &["c1"]).on("POST", "/exec/e1/start", printed(""));
        let engine = connected(&scripted).await;
        let found = find(&engine, "ann", Some("proj")).await.unwrap();
        assert_eq!(found.len(), 1);
        assert!(!format!("{found:?}").contains("s3cret"));
        let filters = scripted.request("GET", "/containers/json").query;
        let filters: HashMap<_, _> = form_urlencoded::parse(filters.as_bytes()).into_owned().collect();
        let filters: Value = serde_json::from_str(&filters["filters"]).unwrap();
        assert_eq!(
            filters["label"],
            json!([
                "io.dockerutils.notebook",
                "io.dockerutils.user=ann",
                "io.dockerutils.project=proj"
            ])
        );
        let described = describe_all(&context(&scripted), &engine, true, &found).await;
        assert_eq!(
            serde_json::to_value(&described).unwrap(),
            json!([{
                "url": format!("http://127.0.0.1:{port}/lab?token=s3cret"), "token": "s3cret", "container": "nb", "dock": null,
                "image": "lab:ann", "port": port, "started": "2026-11-29T09:59:30.123456789Z", "idle_seconds": 60,
                "kernels": 2, "connections": 1, "error": null,
            }])
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn others_servers_and_what_ended_meanwhile_are_left_out_and_the_newest_is_first() {
        let labelled = |id: &str, notebook: &str, user: &str, project: &str, more: &Value| {
            let mut container = inspected(1, more);
            container["Id"] = json!(id);
            container["Name"] = json!(format!("/{id}"));
            container["Config"]["Labels"] = json!({
                "io.dockerutils.notebook": notebook, "io.dockerutils.user": user, "io.dockerutils.project": project,
            });
            Reply::json(200, &container)
        };
        let plain = json!({});
        let later = json!({"State": {"Running": true, "StartedAt": "2026-11-29T11:00:00Z"}});
        let ended = json!({"State": {"Running": false}});
        let scripted = listing(ScriptedEngine::start(), &["a", "b", "c", "d", "e", "f"])
            .on(
                "GET",
                "/containers/a/json",
                labelled("a", "jupyter:8888/", "ann", "proj", &plain),
            )
            .on(
                "GET",
                "/containers/b/json",
                labelled("b", "jupyter:8888/", "ann", "other", &later),
            )
            .on(
                "GET",
                "/containers/c/json",
                labelled("c", "jupyter:8888/", "bob", "proj", &plain),
            )
            .on(
                "GET",
                "/containers/d/json",
                labelled("d", "jupyter:8888//evil/", "ann", "proj", &plain),
            )
            .on(
                "GET",
                "/containers/e/json",
                labelled("e", "jupyter:8888/", "ann", "proj", &ended),
            )
            .on("GET", "/containers/f/json", Reply::error(404, "no such container"));
        let engine = connected(&scripted).await;
        let names = |found: Vec<FoundNotebook>| found.into_iter().map(|found| found.name).collect::<Vec<_>>();
        assert_eq!(names(find(&engine, "ann", None).await.unwrap()), ["b", "a"]);
        assert_eq!(names(find(&engine, "ann", Some("proj")).await.unwrap()), ["a"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_not_well_is_listed_with_its_error() {
        let without = json!({"Config": {
            "Image": "lab:ann", "Env": ["JUPYTER_TOKEN="],
            "Labels": {"io.dockerutils.notebook": "jupyter:8888/", "io.dockerutils.user": "ann"},
        }});
        let scripted = listing(ScriptedEngine::start(), &["c1"]).on(
            "GET",
            "/containers/c1/json",
            Reply::json(200, &inspected(1, &without)),
        );
        let engine = connected(&scripted).await;
        let found = find(&engine, "ann", None).await.unwrap();
        let described = describe_all(&context(&scripted), &engine, true, &found).await;
        let error = described[0].error.as_deref().unwrap();
        assert!(error.contains("was given no JUPYTER_TOKEN"), "{error}");
        assert_eq!(
            (described[0].url.as_deref(), described[0].container.as_str()),
            (None, "nb")
        );
    }
}
