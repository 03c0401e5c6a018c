//! One container's life as `docker run` lives it: created, attached, started, waited for, its exit code passed on.
//!
//! Facts: the engine's API reference, and docker's reference of `docker run` (exit codes 125, 126, 127).

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerCreateResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, KillContainerOptions, RemoveContainerOptions,
    ResizeContainerTTYOptions, StartContainerOptions, UploadToContainerOptions,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use serde::Deserialize;

use super::heard::OutputCounter;
use super::terminal::{self, AttachOptions, AttachOutcome, Signals};
use crate::docker::connect::engine::{Engine, answer, one_line, refusal};
use crate::docker::connect::stream::{HalfClose, Halves};
use crate::docker::options::run_options::{Attach, ContainerFile, ContainerPlan};
use crate::error::{Class, Error, ExitStatus, Result};
use crate::output::Printer;

/// The code of `docker run` for a command that can't be run, and for one that isn't there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;
/// How long a container that nobody wants may take to be removed.
const CLEANING: Duration = Duration::from_secs(10);
/// How long after a lost answer a container may still come to be.
const LATE: Duration = Duration::from_secs(2);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// 128 and the number of SIGPIPE.
const OUTPUT_CLOSED: u8 = 141;
/// The end of a container is told in a line.
const LONGEST_ANSWER: usize = 1 << 20;

/// A container that was made, and is removed when this is dropped before [`Created::keep`].
pub struct Created {
    engine: Engine,
    id: String,
    armed: bool,
    /// What the engine advises against.
    pub warnings: Vec<String>,
}

impl Created {
    /// The container's ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// From now on it lives its own life.
    pub fn keep(mut self) -> String {
        self.armed = false;
        std::mem::take(&mut self.id)
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.armed {
            clean_up(remove(&self.engine, &self.id));
        }
    }
}

/// Finishes what is to be undone when a call is dropped.
fn clean_up(undoing: impl Future) {
    // A future that was interrupted can't wait here; the runtime is still there to finish the call.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                // The engine may be what failed; then it can't be helped.
                let _ = tokio::time::timeout(CLEANING, undoing).await;
            });
        });
    }
}

/// A container that is being made. An answer that is lost, or not waited for, may have been that it is there: it is looked
/// for by its name then, and removed.
struct Making<'a> {
    engine: &'a Engine,
    plan: &'a ContainerPlan,
    armed: bool,
}

impl Making<'_> {
    async fn undo(&self, name: &str) {
        let began = tokio::time::Instant::now();
        loop {
            let looked = self
                .engine
                .docker()
                .inspect_container(name, None::<InspectContainerOptions>);
            if let Ok(found) = looked.await {
                // One of that name that is not just this, was there before.
                let is_new = found.state.and_then(|state| state.status) == Some(ContainerStateStatusEnum::CREATED);
                let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
                let wanted = self.plan.body.labels.iter().flatten();
                let is_ours = wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value));
                if let Some(id) = found.id.filter(|_| is_new && is_ours) {
                    // Nobody is left to be told.
                    let _ = remove(self.engine, &id).await;
                }
                return;
            }
            // The engine may still be at it.
            if began.elapsed() > LATE {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.plan.name.as_deref().filter(|_| self.armed) {
            clean_up(self.undo(name));
        }
    }
}

/// Makes a container; nothing of it runs.
///
/// # Errors
/// The engine's refusal.
pub async fn create(engine: &Engine, plan: &ContainerPlan) -> Result<Created> {
    try_create(engine, plan).await?.map_err(|refusal| match refusal {
        Refusal::NameTaken(error) | Refusal::NoImage(error) => error,
    })
}

/// What an engine refuses, and something can be done about.
#[derive(Debug)]
pub enum Refusal {
    /// Another container has the name; with the engine's refusal.
    NameTaken(Error),
    /// The engine does not have the image, or not for the platform that is asked for; with the engine's refusal.
    NoImage(Error),
}

/// [`create`], with the refusals as a value that another name helps against, or having the image.
///
/// # Errors
/// Any other.
pub async fn try_create(engine: &Engine, plan: &ContainerPlan) -> Result<Result<Created, Refusal>> {
    let options = CreateContainerOptions {
        name: plan.name.clone(),
        platform: plan.platform.clone().unwrap_or_default(),
    };
    let mut making = Making {
        engine,
        plan,
        armed: true,
    };
    let result = match plan.kernel_memory {
        None => engine.docker().create_container(Some(options), plan.body.clone()).await,
        Some(_) => make_by_request(engine, plan).await?,
    };
    // What the engine has answered, is sure.
    making.armed = !matches!(
        result,
        Ok(_) | Err(bollard::errors::Error::DockerResponseServerError { .. })
    );
    drop(making);
    let is_taken = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, message }) if message.contains("name")
    );
    let is_absent = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, message }) if is_of_image(message)
    );
    let has_no_command = matches!(
        &result,
        Err(bollard::errors::Error::DockerResponseServerError { message, .. })
            if message.to_ascii_lowercase().contains("no command specified")
    );
    let made = match result.map_err(|cause| engine.error("the container can't be made", cause)) {
        Err(error) if has_no_command => {
            return Err(error.hint(
                "the image does not say what it runs: give a CMD in its Dockerfile, the key cmd in its section, or run-image -c COMMAND",
            ));
        }
        Err(error) if is_taken => return Ok(Err(Refusal::NameTaken(error))),
        Err(error) if is_absent => return Ok(Err(Refusal::NoImage(error))),
        made => made?,
    };
    if !is_id(&made.id) {
        return Err(Error::failed(format!(
            "the engine at {} gave the container an ID that is not valid: {:?}",
            engine.choice().endpoint,
            one_line(&made.id)
        )));
    }
    let created = Created {
        engine: engine.clone(),
        id: made.id,
        armed: true,
        warnings: made.warnings,
    };
    for file in &plan.files {
        copy_into(engine, &created.id, file).await?;
    }
    Ok(Ok(created))
}

/// Makes a container by a request of our own: it has fields that bollard does not know.
async fn make_by_request(
    engine: &Engine,
    plan: &ContainerPlan,
) -> Result<std::result::Result<ContainerCreateResponse, bollard::errors::Error>> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in [("name", &plan.name), ("platform", &plan.platform)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let body = plan.request().map(|body| body.to_string());
    let body = body.map_err(|cause| Error::failed("the container can't be asked for").because(cause))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/containers/create?{}", query.finish()))
        .header("Content-Type", "application/json")
        .body(Full::<Bytes>::from(body))
        .map_err(|cause| Error::failed("the container can't be asked for").because(cause))?;
    let response = engine.worked(engine.request(request)).await?;
    let status_code = response.status().as_u16();
    if !response.status().is_success() {
        let message = refusal(response).await.to_string();
        return Ok(Err(bollard::errors::Error::DockerResponseServerError {
            status_code,
            message,
        }));
    }
    let text = answer(response, LONGEST_ANSWER)
        .await
        .map_err(|cause| engine.lost(cause))?;
    Ok(serde_json::from_slice(&text).map_err(bollard::errors::Error::from))
}

/// Whether a text can be the ID of a container or an image. It is printed for scripts, and written to files that they read: what
/// has blanks or options in it would be more than one word there.
pub(in crate::docker) fn is_id(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.len() <= 128
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":._-".contains(&byte))
}

/// Whether what is not found is the image, and not another container whose network or volumes are asked for. With the second words
/// engines name one that is for another platform.
fn is_of_image(message: &str) -> bool {
    let message = message.to_lowercase();
    ["no such image", "image with reference"]
        .iter()
        .any(|words| message.contains(words))
}

async fn copy_into(engine: &Engine, id: &str, file: &ContainerFile) -> Result<()> {
    let failed =
        |cause: std::io::Error| Error::failed(format!("{} can't be put into the container", file.path)).because(cause);
    let path = Path::new(&file.path);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(file.content.len() as u64);
    header.set_mode(file.mode);
    header.set_cksum();
    archive
        .append_data(
            &mut header,
            path.strip_prefix("/").unwrap_or(path),
            file.content.as_bytes(),
        )
        .map_err(failed)?;
    let bytes = archive.into_inner().map_err(failed)?;
    let options = UploadToContainerOptions {
        path: "/".to_owned(),
        ..UploadToContainerOptions::default()
    };
    engine
        .docker()
        .upload_to_container(id, Some(options), bollard::body_full(bytes.into()))
        .await
        .map_err(|cause| engine.error(&file.path, cause))
}

/// Removes a container, running or not; one that isn't there is no failure.
///
/// # Errors
/// The engine's refusal.
pub async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..RemoveContainerOptions::default()
    };
    match engine.docker().remove_container(id, Some(options)).await {
        Ok(())
        | Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404 | 409, ..
        }) => Ok(()),
        Err(cause) => Err(engine.error(id, cause)),
    }
}

/// Whether there is a container of this name or ID.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn exists(engine: &Engine, name: &str) -> Result<bool> {
    match engine
        .docker()
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
    {
        Ok(_) => Ok(true),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
        Err(cause) => Err(engine.error(name, cause)),
    }
}

/// Starts a container.
///
/// # Errors
/// The engine's refusal; with the class of docker's 126 and 127 where the command can't be run or isn't there.
pub async fn start(engine: &Engine, id: &str, detach_keys: Option<&str>) -> Result<()> {
    let options = StartContainerOptions {
        detach_keys: detach_keys.map(str::to_owned),
    };
    engine
        .docker()
        .start_container(id, Some(options))
        .await
        .map_err(|cause| match cause {
            bollard::errors::Error::DockerResponseServerError { message, .. } => Error::new(
                start_class(&message),
                format!("the container can't be started: {}", one_line(&message)),
            ),
            other => engine.error("the container can't be started", other),
        })
}

/// What docker makes of the engine's message: 127 where the program isn't there, 126 where it can't be executed.
fn start_class(message: &str) -> Class {
    const ABSENT: [&str; 4] = [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
        "failed to run runc create/start call: exec: not found",
    ];
    // `permission denied` of a mount is no matter of the command.
    let of_command = message.contains("exec") || message.contains("starting container process");
    if of_command && ABSENT.iter().any(|text| message.contains(text)) {
        Class::Code(NOT_FOUND)
    } else if of_command && (message.contains("permission denied") || message.contains("is a directory")) {
        Class::Code(CANNOT_RUN)
    } else {
        Class::Failed
    }
}

/// How a container in the foreground came out.
#[derive(Debug)]
pub enum Foreground {
    /// It ended, was detached from, or lost who reads it.
    Done(ExitStatus),
    /// The connection was lost: the container goes its own way.
    Lost(Error),
}

/// Runs a container in the foreground: streams, signals and terminal are ours until it ends.
/// `started` hears of its published ports; what is written of its output counts in `heard`.
///
/// A connection that is lost is no wish to end the container. Where one is lost that has not run yet, it is removed.
///
/// # Errors
/// The engine's refusal, an interruption, or a connection that is lost before the container runs.
pub async fn run_attached(
    engine: &Engine,
    created: Created,
    plan: &ContainerPlan,
    signals: &mut Signals,
    heard: &Arc<OutputCounter>,
    started: impl AsyncFnOnce(&[PublishedPort]),
) -> Result<Foreground> {
    let mut created = created;
    let id = created.id().to_owned();
    let options = AttachOptions::of(plan);
    let preparing = async {
        let streams = attach(engine, &id, plan.attach, plan.detach_keys.as_deref()).await?;
        let exit = wait(engine, &id, if plan.remove { "removed" } else { "next-exit" }).await?;
        // A link that broke in between has been mended for the second connection, and not for the first: what the container
        // says would be lost, and its code look like success.
        if streams.writer.is_over() {
            return Err(engine.lost(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        }
        Ok((streams, exit))
    };
    let (streams, exit) = signals.guard(Duration::ZERO, preparing).await?;
    let starting = start(engine, &id, plan.detach_keys.as_deref());
    match signals.guard(Duration::ZERO, starting).await {
        // Only its answer may have been lost.
        Err(error) if error.class() == Class::Unreachable => {
            created.keep();
            return Ok(Foreground::Lost(error));
        }
        result => result?,
    }
    // Without --rm it is the user's, whatever becomes of us.
    created.armed = plan.remove;
    if plan.body.host_config.as_ref().is_some_and(publishes) {
        // One that ended meanwhile has none.
        started(&published_ports(engine, &id).await.unwrap_or_default()).await;
    }
    let session = terminal::AttachSession::new(engine, &id, &options, heard);
    let ending = session.run(streams, signals).await;
    finish(created, ending, exit, &session, signals).await
}

/// What becomes of a container whose streams have ended.
async fn finish(
    created: Created,
    ending: Result<AttachOutcome>,
    exit: impl Future<Output = Result<ExitStatus>>,
    session: &terminal::AttachSession<'_>,
    signals: &mut Signals,
) -> Result<Foreground> {
    let lost = |created: Created, error: Error| {
        if error.class() != Class::Unreachable {
            return Err(error);
        }
        created.keep();
        Ok(Foreground::Lost(error))
    };
    match ending {
        Ok(AttachOutcome::Detached) => {
            created.keep();
            Ok(Foreground::Done(ExitStatus::SUCCESS))
        }
        // What a shell shows of a program that SIGPIPE ended, as it would have ended the docker client.
        Ok(AttachOutcome::OutputClosed) => Ok(Foreground::Done(ExitStatus::from_code(OUTPUT_CLOSED))),
        Ok(AttachOutcome::Closed) => {
            let ended = tokio::select! {
                // It may have closed its output and go on for days.
                ended = exit => ended,
                error = session.pass_signals(signals) => return Err(error),
            };
            match ended {
                Ok(status) => {
                    created.keep();
                    Ok(Foreground::Done(status))
                }
                Err(error) => lost(created, error),
            }
        }
        Err(error) => lost(created, error),
    }
}

/// Runs a container to its end, and shows nothing of it; it is removed then, and when this is dropped.
///
/// # Errors
/// The engine's refusal. That its program fails is no error.
pub async fn run_unseen(engine: &Engine, plan: &ContainerPlan) -> Result<ExitStatus> {
    let created = create(engine, plan).await?;
    let exit = wait(engine, created.id(), if plan.remove { "removed" } else { "next-exit" }).await?;
    start(engine, created.id(), None).await?;
    let status = exit.await?;
    drop(created);
    Ok(status)
}

/// A container that was started before, as far as coming back to it goes.
#[derive(Clone, Debug)]
pub struct FoundContainer {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it runs; else with which code it ended.
    pub ended: Option<ExitStatus>,
    /// Whether it was made, and never started.
    pub is_new: bool,
    /// How it is spoken to.
    pub options: AttachOptions,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Whether ports of it are published.
    pub publishes: bool,
}

/// Looks for a container by its name or ID; `None` where there is none.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn find(engine: &Engine, name: &str) -> Result<Option<FoundContainer>> {
    let found = match engine
        .docker()
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
    {
        Ok(found) => found,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(cause) => return Err(engine.error(name, cause)),
    };
    let Some(id) = found.id.filter(|id| is_id(id)) else {
        return Err(Error::failed(format!("{name}: the engine gives it no ID")));
    };
    let state = found.state.unwrap_or_default();
    let config = found.config.unwrap_or_default();
    let host = found.host_config.unwrap_or_default();
    let runs = state.running == Some(true);
    let is_new = state.status == Some(ContainerStateStatusEnum::CREATED);
    let tty = config.tty == Some(true);
    Ok(Some(FoundContainer {
        id,
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        // Codes are bytes on Linux, as in `wait`.
        ended: (!runs).then(|| ExitStatus::from_code((state.exit_code.unwrap_or_default() & 0xff) as u8)),
        is_new,
        options: AttachOptions {
            tty,
            // Without a terminal, the engine closes a container's input when whoever gave it goes.
            stdin: config.open_stdin == Some(true) && tty && runs,
            sig_proxy: true,
            remove: host.auto_remove == Some(true),
            detach_keys: None,
        },
        labels: config.labels.unwrap_or_default(),
        publishes: publishes(&host),
    }))
}

/// Goes on with a container in the foreground that was started before: its output from where it was heard, its signals and its
/// terminal, until it ends. `ours` says whether whoever ends us wants it to end, too, and to be removed where the engine does
/// that at its end.
///
/// # Errors
/// The engine's refusal, an interruption, or a connection that is lost before the container is reached.
pub async fn run_again(
    engine: &Engine,
    found: &FoundContainer,
    ours: bool,
    signals: &mut Signals,
    heard: &Arc<OutputCounter>,
    printer: &Printer,
) -> Result<Foreground> {
    let FoundContainer { id, options, .. } = found;
    let created = Created {
        engine: engine.clone(),
        id: id.clone(),
        // Not before all is there that tells its end.
        armed: false,
        warnings: Vec::new(),
    };
    let streams_of = |stdin: bool, output: bool| Attach {
        stdin,
        stdout: output,
        stderr: output,
    };
    let preparing = async {
        let exit = wait(engine, id, if options.remove { "removed" } else { "not-running" }).await?;
        // A terminal's prompts are no lines, and are not in what the engine keeps before they end.
        let live = match options.tty && found.ended.is_none() {
            true => Some(
                attach(
                    engine,
                    id,
                    streams_of(options.stdin, true),
                    options.detach_keys.as_deref(),
                )
                .await?,
            ),
            false => None,
        };
        let kept = logs(engine, id, live.is_none()).await?;
        Ok((exit, live, kept))
    };
    let (exit, live, kept) = signals.guard(Duration::ZERO, preparing).await?;
    let mut created = created;
    created.armed = options.remove && ours;
    let session = terminal::AttachSession::new(engine, id, options, heard).redrawn();
    let streams = match (live, kept) {
        (Some(live), kept) => {
            if let Some(kept) = kept {
                match terminal::write_past(engine, kept, true, heard).await {
                    Ok(AttachOutcome::Closed) => {}
                    other => return finish(created, other, exit, &session, signals).await,
                }
            }
            heard.is_caught_up();
            live
        }
        (None, Some(kept)) => Halves {
            reader: kept,
            writer: Box::new(Unread),
        },
        (None, None) if found.ended.is_some() => Halves {
            reader: Box::new(std::io::empty()),
            writer: Box::new(Unread),
        },
        (None, None) => {
            printer.warning("the engine keeps no output of this container: what it says from now on is shown");
            heard.is_caught_up();
            attach(engine, id, streams_of(false, true), None).await?
        }
    };
    let ending = session.run(streams, signals).await;
    finish(created, ending, exit, &session, signals).await
}

/// An input that nobody reads.
struct Unread;

impl std::io::Write for Unread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl HalfClose for Unread {
    fn close(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The output that the engine keeps of a container, from its beginning; with `follow`, to its end. None where it keeps none.
async fn logs(engine: &Engine, id: &str, follow: bool) -> Result<Option<Box<dyn Read + Send>>> {
    let request = Request::builder()
        .uri(format!(
            "/containers/{id}/logs?stdout=1&stderr=1&follow={}",
            u8::from(follow)
        ))
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("the output of container {id} can't be asked for")).because(cause))?;
    let response = engine.answered(engine.request(request)).await?;
    if !response.status().is_success() {
        return Ok(None);
    }
    // A container may be silent for a year; the connection itself is watched by whoever carries it.
    let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let reader = tokio_util::io::StreamReader::new(body);
    Ok(Some(Box::new(tokio_util::io::SyncIoBridge::new(reader))))
}

fn publishes(host: &bollard::models::HostConfig) -> bool {
    host.publish_all_ports == Some(true) || host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty())
}

/// Opens the container's streams.
async fn attach(engine: &Engine, id: &str, attach: Attach, detach_keys: Option<&str>) -> Result<Halves> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("stream", "1");
    for (name, on) in [
        ("stdin", attach.stdin),
        ("stdout", attach.stdout),
        ("stderr", attach.stderr),
    ] {
        if on {
            query.append_pair(name, "1");
        }
    }
    if let Some(keys) = detach_keys {
        query.append_pair("detachKeys", keys);
    }
    let stream = engine
        .hijack(&format!("/containers/{id}/attach?{}", query.finish()), "tcp", &[])
        .await?;
    Halves::of(stream.into_inner()).map_err(|cause| engine.lost(cause))
}

/// Asks to be told of the end. What it gives resolves when the container has ended (`next-exit`, `not-running`), or is gone
/// (`removed`).
async fn wait(engine: &Engine, id: &str, condition: &str) -> Result<impl Future<Output = Result<ExitStatus>> + use<>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct WaitResponse {
        status_code: i64,
        error: Option<WaitExitError>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct WaitExitError {
        message: Option<String>,
    }
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/containers/{id}/wait?condition={condition}"))
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("container {id} can't be waited for")).because(cause))?;
    // The headers come at once: from then on no end can be missed.
    let response = engine.answered(engine.request(request)).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let engine = engine.clone();
    Ok(async move {
        // It comes when the container ends, which may be in a year; how much it is has a bound.
        let body = http_body_util::Limited::new(response.into_body(), LONGEST_ANSWER).collect();
        let text = body.await.map_err(|cause| engine.lost(cause))?.to_bytes();
        let answer: WaitResponse = serde_json::from_slice(&text).map_err(|cause| engine.lost(cause))?;
        if let Some(message) = answer
            .error
            .and_then(|error| error.message)
            .filter(|text| !text.is_empty())
        {
            return Err(Error::failed(format!(
                "the container ended badly: {}",
                one_line(&message)
            )));
        }
        // Codes are bytes on Linux; Windows has larger ones, of which the shell sees the lowest byte.
        Ok(ExitStatus::from_code((answer.status_code & 0xff) as u8))
    })
}

/// Sends a signal, such as `SIGINT`; a container that has ended already takes none.
pub async fn signal(engine: &Engine, id: &str, signal: &str) {
    let options = KillContainerOptions {
        signal: signal.to_owned(),
    };
    let _ = engine.docker().kill_container(id, Some(options)).await;
}

/// Tells the container's terminal its size; gives whether the engine took it.
pub async fn resize(engine: &Engine, id: &str, rows: u16, columns: u16) -> bool {
    if rows == 0 || columns == 0 {
        return true;
    }
    let options = ResizeContainerTTYOptions {
        h: rows.into(),
        w: columns.into(),
    };
    engine.docker().resize_container_tty(id, options).await.is_ok()
}

/// A port of the container that is reached from its engine's machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct PublishedPort {
    /// Port and protocol inside, such as `5000/tcp`.
    pub container: String,
    /// The address that the engine listens on.
    pub host_ip: String,
    /// The port that it listens on.
    pub host_port: u16,
}

/// The ports of a running container.
///
/// # Errors
/// The engine's refusal.
pub async fn published_ports(engine: &Engine, id: &str) -> Result<Vec<PublishedPort>> {
    let inspected = engine
        .docker()
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
        .map_err(|cause| engine.error(id, cause))?;
    let mut ports: Vec<PublishedPort> = inspected
        .network_settings
        .and_then(|settings| settings.ports)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(container, bindings)| {
            bindings.unwrap_or_default().into_iter().filter_map(move |binding| {
                Some(PublishedPort {
                    container: container.clone(),
                    host_ip: binding.host_ip.unwrap_or_default(),
                    host_port: binding.host_port?.parse().ok()?,
                })
            })
        })
        .collect();
    ports.sort();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_starts_have_dockers_codes() {
        for (message, class) in [
            ("exec: \"nope\": executable file not found in $PATH", Class::Code(127)),
            ("exec: \"/etc\": permission denied", Class::Code(126)),
            (
                "starting container process caused: exec: \"/x\": is a directory",
                Class::Code(126),
            ),
            ("driver failed programming external connectivity", Class::Failed),
        ] {
            assert_eq!(start_class(message), class, "{message}");
        }
    }
}
