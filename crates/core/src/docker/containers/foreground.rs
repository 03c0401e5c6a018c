//! A container from its start to its end, as `docker run` waits for it: attached in the foreground, attached again, or
//! not shown.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::InspectContainerOptions;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use serde::Deserialize;

use super::container::{Created, PublishedPort, create, is_id, published_ports, start};
use super::heard::OutputCounter;
use super::terminal::{self, AttachOptions, AttachOutcome, Signals};
use crate::docker::connect::engine::{Engine, found, one_line, refusal};
use crate::docker::connect::stream::{HalfClose, Halves};
use crate::docker::options::run_options::{Attach, ContainerPlan};
use crate::error::{Class, Error, ExitStatus, Result};
use crate::output::Printer;

/// 128 and the number of SIGPIPE.
const OUTPUT_CLOSED: u8 = 141;
/// The most bytes of the engine's answer at a container's end.
const LONGEST_ANSWER: usize = 1 << 20;

/// How a run in the foreground ended.
#[derive(Debug)]
pub enum Foreground {
    /// The container ended, the user detached, or nobody reads our output any more.
    Done(ExitStatus),
    /// The connection was lost: the container goes on by itself.
    Lost(Error),
}

/// Runs a container in the foreground: streams, signals and terminal are ours until it ends. `started` gets its
/// published ports; `heard` counts what is written of its output.
///
/// A lost connection does not mean that the container should end. If it was lost before the container ran, the
/// container is removed.
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
        // A link that broke in between was repaired for the second connection, but not for the first: the container's
        // output would be lost, and its exit code look like success.
        if streams.writer.is_over() {
            return Err(engine.lost(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
        }
        Ok((streams, exit))
    };
    let (streams, exit) = signals.guard(Duration::ZERO, preparing).await?;
    let starting = start(engine, &id, plan.detach_keys.as_deref());
    match signals.guard(Duration::ZERO, starting).await {
        // Perhaps only the answer was lost.
        Err(error) if error.class() == Class::Unreachable => {
            created.keep();
            return Ok(Foreground::Lost(error));
        }
        result => result?,
    }
    // Without --rm the container is kept, whatever happens to us.
    created.armed = plan.remove;
    if plan.body.host_config.as_ref().is_some_and(publishes) {
        // A container that ended meanwhile has no ports.
        started(&published_ports(engine, &id).await.unwrap_or_default()).await;
    }
    let session = terminal::AttachSession::new(engine, &id, &options, heard);
    let ending = session.run(streams, signals).await;
    finish(created, ending, exit, &session, signals).await
}

/// Waits for a container whose streams have ended, and removes it where that is ours to do.
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
        // The code that a shell shows if SIGPIPE ended a program, as it would have ended the docker client.
        Ok(AttachOutcome::OutputClosed) => Ok(Foreground::Done(ExitStatus::from_code(OUTPUT_CLOSED))),
        Ok(AttachOutcome::Closed) => {
            let ended = tokio::select! {
                // The container may have closed its output and go on for days.
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

/// Runs a container to its end, without showing its output; it is removed then, and when this is dropped.
///
/// # Errors
/// The engine's refusal. A program that fails is not an error.
pub async fn run_unseen(engine: &Engine, plan: &ContainerPlan) -> Result<ExitStatus> {
    let created = create(engine, plan).await?;
    let exit = wait(engine, created.id(), if plan.remove { "removed" } else { "next-exit" }).await?;
    start(engine, created.id(), None).await?;
    let status = exit.await?;
    drop(created);
    Ok(status)
}

/// A container that was started before, with what is needed to attach to it again.
#[derive(Clone, Debug)]
pub struct FoundContainer {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the slash that the engine puts before it.
    pub name: String,
    /// The exit code, if it has ended; `None` while it runs.
    pub ended: Option<ExitStatus>,
    /// Whether it was created, but never started.
    pub is_new: bool,
    /// How to attach to it.
    pub options: AttachOptions,
    pub labels: HashMap<String, String>,
    /// Whether ports of it are published.
    pub publishes: bool,
}

/// Looks for a container by its name or ID; `None` if it does not exist.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn find(engine: &Engine, name: &str) -> Result<Option<FoundContainer>> {
    let answer = engine
        .docker()
        .inspect_container(name, None::<InspectContainerOptions>)
        .await;
    let Some(found) = found(answer).map_err(|cause| engine.error(name, cause))? else {
        return Ok(None);
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
            // Without a terminal, the engine closes a container's input when the client that gave it leaves.
            stdin: config.open_stdin == Some(true) && tty && runs,
            sig_proxy: true,
            remove: host.auto_remove == Some(true),
            detach_keys: None,
        },
        labels: config.labels.unwrap_or_default(),
        publishes: publishes(&host),
    }))
}

/// Attaches again to a container in the foreground that was started before: the output that was not shown yet, signals
/// and terminal, until it ends. `ours` says whether a signal that ends us should end the container, too, and remove it
/// if the engine removes it at its end.
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
    // Removed only when everything is there that shows its end.
    let created = Created::unarmed(engine, id);
    let streams_of = |stdin: bool, output: bool| Attach {
        stdin,
        stdout: output,
        stderr: output,
    };
    let preparing = async {
        let exit = wait(engine, id, if options.remove { "removed" } else { "not-running" }).await?;
        // A terminal's prompts are not whole lines, and the engine does not log them until the line ends.
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
            printer.warning("the engine keeps no output of this container: only what it prints from now on is shown");
            heard.is_caught_up();
            attach(engine, id, streams_of(false, true), None).await?
        }
    };
    let ending = session.run(streams, signals).await;
    finish(created, ending, exit, &session, signals).await
}

/// An input without a reader.
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

/// The output that the engine keeps of a container, from its beginning; with `follow`, to its end. `None` if the engine keeps no output.
pub(super) async fn logs(engine: &Engine, id: &str, follow: bool) -> Result<Option<Box<dyn Read + Send>>> {
    let request = Request::builder()
        .uri(format!(
            "/containers/{id}/logs?stdout=1&stderr=1&follow={}",
            u8::from(follow)
        ))
        .body(Full::<Bytes>::default())
        .map_err(|cause| Error::failed(format!("the output of container {id} can't be requested")).because(cause))?;
    let response = engine.answered(engine.request(request)).await?;
    if !response.status().is_success() {
        return Ok(None);
    }
    // A container may be silent for a year; whoever carries the output watches the connection itself.
    let body = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let reader = tokio_util::io::StreamReader::new(body);
    Ok(Some(Box::new(tokio_util::io::SyncIoBridge::new(reader))))
}

fn publishes(host: &bollard::models::HostConfig) -> bool {
    host.publish_all_ports == Some(true) || host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty())
}

/// Opens the container's streams.
pub(super) async fn attach(engine: &Engine, id: &str, attach: Attach, detach_keys: Option<&str>) -> Result<Halves> {
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

/// Requests the end of the container. The returned future resolves when the container has ended (`next-exit`,
/// `not-running`), or is removed (`removed`).
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn wait(
    engine: &Engine,
    id: &str,
    condition: &str,
) -> Result<impl Future<Output = Result<ExitStatus>> + use<>> {
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
    // The headers come at once: after them no end can be missed.
    let response = engine.answered(engine.request(request)).await?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let engine = engine.clone();
    Ok(async move {
        // The body comes when the container ends, perhaps in a year; its size is bounded.
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
