//! Builds by the engine's own BuildKit: Solve and Status over `/grpc`, files and secrets over [`session`].
//!
//! Protocol: `moby.buildkit.v1.Control` of moby/buildkit and the attributes of its Dockerfile frontend, as
//! `docker buildx build` sends them to the engine's builder.

pub mod filesync;
mod grpc_stream;
pub mod lint;
pub mod session;
pub mod ssh_agent;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, ListWorkersRequest, SolveRequest, StatusRequest, StatusResponse, Vertex,
};
use prost::Message as _;
use serde::Deserialize;
use tonic::transport::Channel;

use crate::docker::build::build_needs::is_folder;
use crate::docker::build::events::{BuildEvent, BuildFailure, BuildOutcome, Events, Step, StepState, dockerfile_line};
use crate::docker::build::logins::Logins;
use crate::docker::build::request::{BuildRequest, link_target};
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::Engine;
use crate::docker::connect::locality::Locality;
use crate::docker::options::build_options::{Attributes, BuildOptions};
use crate::docker::options::flags::parse_bool;
use crate::error::{Error, Result};
use crate::project_file;
use filesync::{Bound, Linked, SyncedFolder};
use session::{BuildSession, Offer};

/// The names in `FileSync` of the two folders that every Dockerfile build has.
const CONTEXT: &str = "context";
const DOCKERFILE: &str = "dockerfile";
/// How long Solve may take to end after its session did.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// In bytes. Status messages carry the logs of a step; BuildKit cuts them at 2 MiB, and 16 leave room.
const MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Builds; see [`super::build`].
///
/// # Errors
/// As there.
pub async fn build(
    engine: &Engine,
    locality: Locality,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
    logins: Logins,
    events: Events,
) -> Result<BuildOutcome> {
    check_network(&request.options)?;
    let given = logins.clone();
    let offer = Offer {
        folders: folders(request, locality)?,
        locality,
        secrets: request.options.secrets.clone(),
        agents: ssh_agent::Agents::start(&request.options.ssh).await?,
        logins,
    };
    let mut session = BuildSession::open(engine, offer).await?;
    let sent = session.sent();
    let reference = session::random_id()?;
    let mut control = connect(engine).await?;
    let attributes = Attached {
        proxies: engine.proxy_variables(config),
        add_hosts: resolved_hosts(engine, &mut control, &request.options.add_hosts).await?,
    };
    let solve = solve_request(request, session.id(), &reference, &attributes);

    let mut observer = control.clone();
    let status = observer.status(StatusRequest { r#ref: reference });
    let building = async { tokio::join!(control.solve(solve), follow(status, events)) };
    tokio::pin!(building);
    let (solved, tally) = tokio::select! {
        biased;
        built = &mut building => built,
        () = session.ended() => {
            // Solve's own error, if it comes, is the better message.
            tokio::time::timeout(LAST_WORDS, building)
                .await
                .map_err(|_| engine.lost("the build's session ended before the build did"))?
        }
    };
    match solved {
        Ok(response) => {
            if let Some(file) = &request.options.metadata_file {
                write_metadata(file, &response.into_inner().exporter_response)?;
            }
            let (context_size, heaviest) = sent.weight();
            Ok(BuildOutcome {
                id: String::new(),
                size: None,
                steps: tally.steps,
                cached_steps: tally.cached,
                context_bytes: sent.bytes(),
                context_size,
                heaviest,
            })
        }
        Err(status) => Err(match (sent.changed().into_iter().next(), sent.not_utf8()) {
            (Some(file), _) => Error::failed(format!("the build context could not be read: {file}")),
            (None, Some(name)) if is_of_name(&status) => {
                Error::failed(format!("this engine only accepts names in UTF-8, and {name} is not"))
                    .hint("rename it, or leave it out by a line in .dockerignore")
            }
            _ => failure(engine, &given, &status),
        }),
    }
}

/// Whether a name that is not UTF-8 may be why a build failed: newer engines report that, or that the call was
/// cancelled, which we never do without ending the build ourselves; which of the two comes is a matter of chance.
fn is_of_name(status: &tonic::Status) -> bool {
    let message = status.message();
    message.contains("invalid UTF-8") || message.contains("context canceled")
}

async fn connect(engine: &Engine) -> Result<ControlClient<Channel>> {
    let channel = crate::docker::connect::grpc::connect(engine, crate::docker::connect::grpc::SMALL_MESSAGES).await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
}

/// The folders that the engine may request. An engine here gets what it requests of them; one elsewhere does not:
/// ignored files stay here, and of the Dockerfile's folder it only gets the Dockerfile and `.dockerignore`s.
fn folders(request: &BuildRequest, locality: Locality) -> Result<Vec<SyncedFolder>> {
    let is_far = locality == Locality::Docked;
    let contexts = request.options.contexts.iter().filter(|(_, place)| is_folder(place));
    let mut folders = std::iter::once((CONTEXT.to_owned(), request.context.clone()))
        .chain(contexts.map(|(name, place)| (name.clone(), request.context.join(place))))
        .map(|(name, path)| {
            // An engine here reads the rules itself. It would wait for a pipe in their place, and send everything if
            // they are a link to what it can't read.
            let ignored = request.ignored(&path)?;
            let bound = match is_far {
                true => Bound::NotIgnored(ignored),
                false => Bound::None,
            };
            Ok(SyncedFolder {
                name,
                path,
                bound,
                linked: None,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let name = request.dockerfile.file_name().unwrap_or_default().as_bytes();
    let bound = match is_far {
        true => Bound::Only(vec![
            name.to_owned(),
            name.to_ascii_lowercase(),
            [name, b".dockerignore"].concat(),
            b".dockerignore".to_vec(),
        ]),
        false => Bound::None,
    };
    let linked = match link_target(&request.dockerfile, &request.context)? {
        Some(target) => {
            let contents = project_file::read(&target)
                .map_err(|cause| Error::usage(format!("{} can't be read", target.display())).because(cause))?;
            Some(Linked {
                name: name.to_owned(),
                contents: contents.into(),
            })
        }
        None => None,
    };
    folders.insert(
        1,
        SyncedFolder {
            name: DOCKERFILE.to_owned(),
            path: request.dockerfile.parent().unwrap_or(Path::new("/")).to_owned(),
            bound,
            linked,
        },
    );
    Ok(folders)
}

/// What a request needs beside its options.
struct Attached {
    proxies: Vec<(&'static str, String)>,
    // `name=address`.
    add_hosts: Vec<String>,
}

/// `--add-host` as BuildKit takes it, with the engine's own address in place of `host-gateway`.
async fn resolved_hosts(
    engine: &Engine,
    control: &mut ControlClient<Channel>,
    hosts: &[String],
) -> Result<Vec<String>> {
    const HOST_GATEWAY: &str = "host-gateway";
    const LABEL: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";
    let mut gateway = None;
    if hosts.iter().any(|host| host.ends_with(&format!(":{HOST_GATEWAY}"))) {
        let asking = async {
            let listed = control.list_workers(ListWorkersRequest::default()).await;
            listed.map_err(|cause| engine.lost(cause))
        };
        let workers = engine.answered(asking).await?.into_inner();
        gateway = workers
            .record
            .into_iter()
            .find_map(|mut worker| worker.labels.remove(LABEL));
    }
    hosts
        .iter()
        .filter_map(|host| host.split_once(':'))
        .map(|(name, address)| match (address, &gateway) {
            (HOST_GATEWAY, Some(address)) => Ok(format!("{name}={address}")),
            (HOST_GATEWAY, None) => Err(Error::usage(format!(
                "--add-host {name}:host-gateway: this engine's BuildKit does not report its address"
            ))
            .hint("write the address (docker network inspect bridge), or set DOCKER_BUILDKIT=0")),
            (address, _) => Ok(format!("{name}={address}")),
        })
        .collect()
}

/// Refuses what only the classic builder can do.
fn check_network(options: &BuildOptions) -> Result<()> {
    match options.network.as_deref() {
        None | Some("" | "default" | "host" | "none") => Ok(()),
        Some(other) => Err(
            Error::usage(format!("--network {other}: BuildKit only knows default, host and none"))
                .hint("set DOCKER_BUILDKIT=0 for the classic builder, which accepts networks by name"),
        ),
    }
}

fn solve_request(request: &BuildRequest, session: &str, reference: &str, attached: &Attached) -> SolveRequest {
    let options = &request.options;
    let mut exporter = HashMap::from([("name".to_owned(), request.tags.join(","))]);
    exporter.extend(
        options
            .annotations
            .iter()
            .map(|(key, value)| (format!("annotation.{key}"), value.clone())),
    );
    let host_network = options.network.as_deref() == Some("host");
    let mut entitlements = options.allow.clone();
    if host_network && !entitlements.iter().any(|name| name == "network.host") {
        entitlements.push("network.host".to_owned());
    }
    SolveRequest {
        r#ref: reference.to_owned(),
        // BuildKit since 0.13 reads a list of exporters and then ignores these; 20.10 knows only these.
        exporter_deprecated: "moby".to_owned(),
        exporter_attrs_deprecated: exporter,
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: frontend_attributes(request, attached),
        cache: Some(CacheOptions {
            exports: cache_exports(options),
            imports: options.cache_from.iter().map(cache_entry).collect(),
            // 20.10 reads the plain references.
            import_refs_deprecated: options
                .cache_from
                .iter()
                .filter(|cache| cache.kind == "registry")
                .filter_map(|cache| cache.values.get("ref").cloned())
                .collect(),
            ..CacheOptions::default()
        }),
        entitlements,
        ..SolveRequest::default()
    }
}

/// Where the build's cache goes: also into the image, if the build argument of BuildKit's first versions requests that.
fn cache_exports(options: &BuildOptions) -> Vec<CacheOptionsEntry> {
    let mut exports: Vec<_> = options.cache_to.iter().map(cache_entry).collect();
    let inline = options
        .build_args
        .get("BUILDKIT_INLINE_CACHE")
        .and_then(|value| parse_bool(value));
    if inline == Some(true) && !exports.iter().any(|export| export.r#type == "inline") {
        exports.push(CacheOptionsEntry {
            r#type: "inline".to_owned(),
            ..CacheOptionsEntry::default()
        });
    }
    exports
}

fn cache_entry(cache: &Attributes) -> CacheOptionsEntry {
    CacheOptionsEntry {
        r#type: cache.kind.clone(),
        attrs: cache.values.clone().into_iter().collect(),
    }
}

/// The attributes of the Dockerfile frontend.
fn frontend_attributes(request: &BuildRequest, attached: &Attached) -> HashMap<String, String> {
    let options: &BuildOptions = &request.options;
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: &str| {
        attributes.insert(name.to_owned(), value.to_owned());
    };
    let file = request.dockerfile.file_name().unwrap_or_default();
    set("filename", &file.to_string_lossy());
    set("image-resolve-mode", if options.pull { "pull" } else { "local" });
    if let Some(target) = &options.target {
        set("target", target);
    }
    for (name, value) in &attached.proxies {
        set(&format!("build-arg:{name}"), value);
    }
    for (name, value) in &options.build_args {
        set(&format!("build-arg:{name}"), value);
    }
    for (name, value) in &options.labels {
        set(&format!("label:{name}"), value);
    }
    if options.no_cache {
        set("no-cache", "");
    } else if !options.no_cache_filter.is_empty() {
        set("no-cache", &options.no_cache_filter.join(","));
    }
    if let Some(platform) = &options.platform {
        set("platform", platform);
    }
    if let Some(network @ ("host" | "none")) = options.network.as_deref() {
        set("force-network-mode", network);
    }
    if !attached.add_hosts.is_empty() {
        set("add-hosts", &attached.add_hosts.join(","));
    }
    if let Some(bytes) = options.shm_size {
        set("shm-size", &bytes.to_string());
    }
    if !options.ulimits.is_empty() {
        let limits: Vec<_> = options
            .ulimits
            .iter()
            .filter_map(|limit| Some(format!("{}={}:{}", limit.name.as_ref()?, limit.soft?, limit.hard?)))
            .collect();
        set("ulimit", &limits.join(","));
    }
    if let Some(parent) = &options.cgroup_parent {
        set("cgroup-parent", parent);
    }
    for (kind, values) in &options.attestations {
        set(&format!("attest:{kind}"), values);
    }
    if !options.contexts.is_empty() {
        set("frontend.caps", "moby.buildkit.frontend.contexts+forward");
    }
    for (name, place) in &options.contexts {
        let place = if is_folder(place) {
            format!("local:{name}")
        } else {
            place.clone()
        };
        set(&format!("context:{name}"), &place);
    }
    // Where 20.10 looks for references to import caches from.
    let references: Vec<_> = options
        .cache_from
        .iter()
        .filter_map(|cache| cache.values.get("ref").map(String::as_str))
        .collect();
    if !references.is_empty() {
        set("cache-from", &references.join(","));
    }
    attributes
}

/// How many steps of the Dockerfile there were.
#[derive(Default)]
struct StepCounts {
    steps: usize,
    cached: usize,
}

/// Turns status messages into events until the build is over.
async fn follow(
    status: impl Future<Output = Result<tonic::Response<tonic::Streaming<StatusResponse>>, tonic::Status>>,
    events: Events,
) -> StepCounts {
    let mut vertexes = Vertexes::default();
    // Solve has the error; without a status there is just nothing to show meanwhile.
    if let Ok(response) = status.await {
        let mut messages = response.into_inner();
        while let Ok(Some(message)) = messages.message().await {
            for event in digest(message, &mut vertexes) {
                if events.send(event).await.is_err() {
                    break;
                }
            }
        }
    }
    StepCounts {
        steps: vertexes.0.len(),
        cached: vertexes.0.values().filter(|cached| **cached).count(),
    }
}

/// The steps of the Dockerfile that were reported, and whether each was from the cache.
#[derive(Default)]
struct Vertexes(HashMap<String, bool>);

impl Vertexes {
    /// A hostile engine may report steps for ever; no Dockerfile has more.
    const MOST: usize = 100_000;
    /// Nor is a digest longer.
    const LONGEST: usize = 512;

    fn note(&mut self, vertex: &Vertex) {
        let known = self.0.contains_key(&vertex.digest);
        let fits = self.0.len() < Self::MOST && vertex.digest.len() <= Self::LONGEST;
        if is_dockerfile_step(&vertex.name) && (known || fits) {
            self.0.insert(vertex.digest.clone(), vertex.cached);
        }
    }
}

/// Steps are `[2/3] RUN make` and `[linux/amd64 builder 2/3] RUN make`, but not `[internal] load build context`,
/// `exporting to image` and a FROM, which runs nothing. Nor is `[context base] busybox:1`, a named context: BuildKit
/// reports it by the name that any build has for the same image, perhaps another build at the same time.
fn is_dockerfile_step(name: &str) -> bool {
    let Some((place, instruction)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let of = place.rsplit(' ').next().and_then(|last| last.split_once('/'));
    of.is_some_and(|(number, count)| is_number(number) && is_number(count)) && !instruction.starts_with("FROM ")
}

fn digest(message: StatusResponse, vertexes: &mut Vertexes) -> Vec<BuildEvent> {
    let mut events = Vec::new();
    // The output of a step comes before its end, though one message may hold both.
    let mut ended = Vec::new();
    for vertex in message.vertexes {
        let event = BuildEvent::Step(Step {
            id: vertex.digest.clone(),
            name: vertex.name.clone(),
            state: state(&vertex),
        });
        if vertex.completed.is_some() {
            // The message may also be the first of this step, and its output needs the step.
            let began = BuildEvent::Step(Step {
                id: vertex.digest.clone(),
                name: vertex.name.clone(),
                state: StepState::Seen,
            });
            events.push(began);
            ended.push(event);
        } else {
            // It begins again, after an end that is in this message, too.
            if vertex.started.is_some() {
                let is_of_it = |event: &BuildEvent| matches!(event, BuildEvent::Step(step) if step.id == vertex.digest);
                ended.retain(|event| !is_of_it(event));
            }
            events.push(event);
        }
        vertexes.note(&vertex);
    }
    for status in message.statuses {
        events.push(BuildEvent::Transfer {
            step: status.vertex,
            name: if status.id.is_empty() { status.name } else { status.id },
            current: status.current.try_into().unwrap_or_default(),
            total: status.total.try_into().unwrap_or_default(),
            done: status.completed.is_some(),
        });
    }
    for log in message.logs {
        events.push(BuildEvent::Output {
            step: log.vertex,
            text: log.msg,
        });
    }
    for warning in message.warnings {
        let mut text = String::from_utf8_lossy(&warning.short).into_owned();
        if let (Some(info), Some(range)) = (&warning.info, warning.ranges.first())
            && let Some(start) = &range.start
        {
            text = format!("{text} ({}:{})", info.filename, start.line);
        }
        events.push(BuildEvent::Warning(text));
    }
    events.extend(ended);
    events
}

fn state(vertex: &Vertex) -> StepState {
    match (&vertex.started, &vertex.completed) {
        _ if !vertex.error.is_empty() => StepState::Failed(vertex.error.clone()),
        _ if vertex.cached => StepState::Cached,
        (Some(started), Some(completed)) => StepState::Done(seconds(completed) - seconds(started)),
        (Some(_), None) => StepState::Running,
        (None, _) => StepState::Waiting,
    }
}

fn seconds(time: &Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

/// The reason of Solve's failure: the build itself, or the engine.
fn failure(engine: &Engine, given: &Logins, status: &tonic::Status) -> Error {
    use tonic::Code;
    // Failures of the transport have a source; BuildKit's messages have none.
    if status.code() == Code::Unavailable || std::error::Error::source(status).is_some() {
        return engine.lost(status.clone());
    }
    let message = without_wrapping(status.message());
    Error::failed("the build failed").because(BuildFailure {
        message: given.clean(message),
        line: source_line(status.details()).or_else(|| dockerfile_line(message)),
    })
}

/// BuildKit's message without the names of its own parts at the beginning.
fn without_wrapping(message: &str) -> &str {
    const WRAPPING: [&str; 4] = [
        "failed to solve: ",
        "failed to solve with frontend dockerfile.v0: ",
        "rpc error: code = Unknown desc = ",
        "failed to create LLB definition: ",
    ];
    let mut message = message;
    while let Some(rest) = WRAPPING.iter().find_map(|part| message.strip_prefix(part)) {
        message = rest;
    }
    message
}

/// The line of the Dockerfile in a status' details: `errdefs.Source` of BuildKit, as JSON in an Any.
fn source_line(details: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Source {
        ranges: Vec<Range>,
    }
    #[derive(Deserialize)]
    struct Range {
        start: Position,
    }
    #[derive(Deserialize)]
    struct Position {
        line: usize,
    }
    let status = rpc::Status::decode(details).ok()?;
    status
        .details
        .iter()
        .filter(|detail| detail.type_url.contains("errdefs.Source"))
        .find_map(|detail| serde_json::from_slice::<Source>(&detail.value).ok())
        .and_then(|source| source.ranges.first().map(|range| range.start.line))
}

fn write_metadata(file: &Path, response: &HashMap<String, String>) -> Result<()> {
    let json = serde_json::to_vec_pretty(response)
        .map_err(|cause| Error::failed("the build's metadata is not JSON").because(cause))?;
    std::fs::write(file, json)
        .map_err(|cause| Error::failed(format!("--metadata-file {} can't be written", file.display())).because(cause))
}

#[cfg(test)]
mod tests {
    use super::{Vertex, Vertexes, is_dockerfile_step};

    #[test]
    fn steps_that_are_told_of_for_ever_are_not_counted_for_ever() {
        let mut vertexes = Vertexes::default();
        let mut vertex = |digest: String, name: &str, cached| {
            vertexes.note(&Vertex {
                digest,
                name: name.to_owned(),
                cached,
                ..Vertex::default()
            });
            vertexes.0.len()
        };
        for number in 0..Vertexes::MOST + 10 {
            vertex(number.to_string(), "[2/3] RUN x", false);
        }
        assert_eq!(vertex("more".to_owned(), "[2/3] RUN x", false), Vertexes::MOST);
        assert_eq!(vertex("7".to_owned(), "[2/3] RUN x", true), Vertexes::MOST);
        assert!(vertexes.0["7"]);
    }

    #[test]
    fn steps_of_the_dockerfile_are_told_from_what_is_around_them() {
        for name in [
            "[2/3] RUN make",
            "[builder 2/3] COPY a b",
            "[context 2/3] RUN x",
            "[linux/amd64 builder 10/12] RUN make",
            "[stage-1 1/1] COPY --from=builder /a /a",
        ] {
            assert!(is_dockerfile_step(name), "{name}");
        }
        for name in [
            "[1/3] FROM docker.io/library/busybox:1",
            "[internal] load build context",
            "[internal] load metadata for docker.io/library/busybox:1",
            "[auth] library/busybox:pull token for registry-1.docker.io",
            "[context start] dockerutils-lab-base:1",
            "[context base] load from client",
            "exporting to image",
            "resolve image config for docker-image://docker.io/docker/dockerfile:1",
        ] {
            assert!(!is_dockerfile_step(name), "{name}");
        }
    }
}
