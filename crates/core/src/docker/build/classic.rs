//! Builds by the builder of docker before 23: POST `/build` with the context as a tar stream.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::events::{BuildEvent, BuildFailure, BuildOutcome, Events, Step, StepState, dockerfile_line};
use super::request::{BuildRequest, link_target};
use crate::docker::build::logins::Logins;
use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::{Engine, one_line, refusal};
use crate::docker::connect::json_messages::{JsonMessage, Messages};
use crate::docker::containers::container::is_id;
use crate::docker::images::image;
use crate::error::{Error, Result};
use crate::project_file;
use build_context::archive::{ArchiveError, ArchiveOptions, ExtraFile, write_archive};
use build_context::weight::{Heavy, Weights};

/// Chunks of the archive that wait for the connection, 64 KiB each.
const QUEUE: usize = 32;

/// More bytes than any line of output has.
const LONGEST_LINE: usize = 1 << 20;

/// Lines without information about a step.
const NOISE: [&str; 3] = [
    "Removing intermediate container",
    "Successfully built",
    "Successfully tagged",
];

/// Builds; see [`super::build`].
///
/// # Errors
/// As there.
pub async fn build(
    engine: &Engine,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
    logins: &Logins,
    events: Events,
) -> Result<BuildOutcome> {
    let (chunks, body) = mpsc::channel::<std::io::Result<Frame<Bytes>>>(QUEUE);
    let sent = Arc::new(AtomicU64::new(0));
    let dockerfile = DockerfileInContext::find(request)?;
    let archive_options = archive_options(request, &dockerfile)?;
    let context = super::pip_conf::open(&request.context).map_err(context_error)?;
    let archiving = {
        let sent = Arc::clone(&sent);
        tokio::task::spawn_blocking(move || {
            let mut out = ChunkWriter {
                chunks,
                buffer: BytesMut::new(),
                sent,
            };
            let mut weights = Weights::default();
            let archived = write_archive(&context, &archive_options, &mut out, |entry| weights.add(entry));
            match archived {
                Ok(()) => {
                    // The engine may have hung up before the end, and reports the reason itself.
                    let _ = out.flush_buffer();
                    Ok((weights.total(), weights.finish()))
                }
                Err(cause) => {
                    // Ends the request in the middle: the engine must not build a part of the context.
                    let _ = out
                        .chunks
                        .blocking_send(Err(std::io::Error::other("the context broke off")));
                    Err(cause)
                }
            }
        })
    };
    let mut post = Request::builder()
        .method(Method::POST)
        .uri(format!(
            "/build?{}",
            query(request, &dockerfile.name, &engine.proxy_variables(config))
        ))
        .header("Content-Type", "application/x-tar");
    if let Some(header) = logins.registry_config().await {
        post = post.header("X-Registry-Config", header);
    }
    let post = post
        .body(StreamBody::new(ReceiverStream::new(body)))
        .map_err(|cause| Error::failed("the build can't be requested").because(cause))?;
    let responded = engine.request(post).await;
    let response = match responded {
        Ok(response) => response,
        // The context may be what broke the request; then its error is the better message.
        Err(lost) => return Err(archive_failure(archiving).await.unwrap_or(lost)),
    };
    if !response.status().is_success() {
        let refused = refusal(response).await;
        let message = logins.clean(&refused.to_string());
        return Err(match dockerfile_line(&message) {
            // The engine parses the Dockerfile before it begins to answer.
            line @ Some(_) => Error::failed("the build failed").because(BuildFailure { message, line }),
            None => Error::failed(message),
        });
    }
    let mut log = StepLog::new(events, logins.clone());
    let mut messages = Messages::default();
    let mut body = response.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(cause) => return Err(archive_failure(archiving).await.unwrap_or_else(|| engine.lost(cause))),
        };
        for message in messages.push(&chunk) {
            log.message(message).await?;
        }
    }
    log.end().await;
    if log.is_unnamed {
        for tag in &request.tags {
            image::tag(engine, &log.image, tag)
                .await
                .map_err(|cause| engine.error(tag, cause))?;
        }
    }
    let (context_size, heaviest) = match archiving.await {
        Ok(Ok(weight)) => weight,
        _ => Default::default(),
    };
    Ok(BuildOutcome {
        id: log.image,
        size: None,
        steps: log.steps,
        cached_steps: log.cached,
        context_bytes: sent.load(Ordering::Relaxed),
        context_size,
        heaviest,
    })
}

fn context_error(cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("the build context could not be read").because(cause)
}

type Archiving = tokio::task::JoinHandle<std::result::Result<(u64, Vec<Heavy>), ArchiveError>>;

/// The archive's error, unless the engine stopped reading.
async fn archive_failure(archiving: Archiving) -> Option<Error> {
    match archiving.await {
        Ok(Err(cause)) if !matches!(cause, ArchiveError::Send(_)) => Some(context_error(cause)),
        _ => None,
    }
}

/// How the engine finds the Dockerfile in the archive.
struct DockerfileInContext {
    name: String,
    // Its text, if it is outside the context.
    outside: Option<Vec<u8>>,
}

impl DockerfileInContext {
    fn find(request: &BuildRequest) -> Result<Self> {
        let linked = link_target(&request.dockerfile, &request.context)?;
        let inside = match &linked {
            // As docker's client does it: under its own name, ignored or not.
            Some(target) => {
                let context = request.context.canonicalize().map_err(context_error)?;
                target.strip_prefix(context).ok().map(Path::to_owned)
            }
            None => request
                .dockerfile
                .strip_prefix(&request.context)
                .ok()
                .map(Path::to_owned),
        };
        if let Some(inside) = inside {
            return Ok(Self {
                name: inside.to_string_lossy().into_owned(),
                outside: None,
            });
        }
        let text = project_file::read(&request.dockerfile)
            .map_err(|cause| Error::usage(format!("{} can't be read", request.dockerfile.display())).because(cause))?;
        Ok(Self {
            name: format!(".dockerfile.{}", super::buildkit::session::random_id()?),
            outside: Some(text),
        })
    }
}

fn archive_options(request: &BuildRequest, dockerfile: &DockerfileInContext) -> Result<ArchiveOptions> {
    Ok(ArchiveOptions {
        exclude: request.ignored(&request.context)?,
        dockerfile: dockerfile
            .outside
            .is_none()
            .then(|| dockerfile.name.clone().into_bytes()),
        extra: dockerfile.outside.clone().map(|contents| ExtraFile {
            name: dockerfile.name.clone().into_bytes(),
            contents,
        }),
    })
}

fn query(request: &BuildRequest, dockerfile: &str, proxies: &[(&'static str, String)]) -> String {
    let options = &request.options;
    let classic = &options.classic;
    let mut pairs: Vec<(&str, String)> = vec![("dockerfile", dockerfile.to_owned()), ("version", "1".to_owned())];
    pairs.extend(request.tags.iter().map(|tag| ("t", tag.clone())));
    let json = |value: serde_json::Value| value.to_string();
    let mut arguments: serde_json::Map<String, serde_json::Value> = proxies
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    arguments.extend(
        options
            .build_args
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into())),
    );
    if !arguments.is_empty() {
        pairs.push(("buildargs", json(arguments.into())));
    }
    if !options.labels.is_empty() {
        pairs.push(("labels", json(serde_json::json!(options.labels))));
    }
    let references: Vec<_> = options
        .cache_from
        .iter()
        .filter_map(|cache| cache.values.get("ref"))
        .collect();
    if !references.is_empty() {
        pairs.push(("cachefrom", json(serde_json::json!(references))));
    }
    if !options.ulimits.is_empty() {
        pairs.push(("ulimits", json(serde_json::json!(options.ulimits))));
    }
    pairs.extend(options.add_hosts.iter().map(|host| ("extrahosts", host.clone())));
    let switches = [
        ("pull", options.pull),
        ("nocache", options.no_cache),
        // Otherwise the container of a failed step would remain.
        ("forcerm", classic.force_rm || !classic.keep_containers),
        ("squash", classic.squash),
    ];
    pairs.extend(
        switches
            .into_iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| (name, "1".to_owned())),
    );
    pairs.push(("rm", if classic.keep_containers { "0" } else { "1" }.to_owned()));
    let texts = [
        ("target", &options.target),
        ("networkmode", &options.network),
        ("platform", &options.platform),
        ("cgroupparent", &options.cgroup_parent),
        ("cpusetcpus", &classic.cpuset_cpus),
        ("cpusetmems", &classic.cpuset_mems),
        ("isolation", &classic.isolation),
    ];
    pairs.extend(texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
    let numbers = [
        ("shmsize", options.shm_size),
        ("memory", classic.memory),
        ("memswap", classic.memory_swap),
        ("cpushares", classic.cpu_shares),
        ("cpuperiod", classic.cpu_period),
        ("cpuquota", classic.cpu_quota),
    ];
    pairs.extend(
        numbers
            .into_iter()
            .filter_map(|(name, number)| Some((name, number?.to_string()))),
    );
    if !classic.security_opts.is_empty() {
        pairs.push(("securityopt", json(serde_json::json!(classic.security_opts))));
    }
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// Hands an archive to the request's body in chunks.
struct ChunkWriter {
    chunks: mpsc::Sender<std::io::Result<Frame<Bytes>>>,
    buffer: BytesMut,
    sent: Arc<AtomicU64>,
}

impl ChunkWriter {
    const CHUNK: usize = 64 * 1024;

    fn flush_buffer(&mut self) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        self.chunks
            .blocking_send(Ok(Frame::data(chunk)))
            .map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }
}

impl std::io::Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= Self::CHUNK {
            self.flush_buffer()?;
        }
        Ok(data.len())
    }

    // Chunks go out when they are full; the end of the archive flushes the last.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Makes steps from the lines `Step 2/3 : RUN make` and ` ---> Using cache`.
struct StepLog {
    events: Events,
    given: Logins,
    image: String,
    steps: usize,
    cached: usize,
    current: Option<(Step, std::time::Instant)>,
    text: String,
    // The image is built, but the engine could not give it its names.
    is_unnamed: bool,
}

impl StepLog {
    fn new(events: Events, given: Logins) -> Self {
        Self {
            events,
            given,
            image: String::new(),
            steps: 0,
            cached: 0,
            current: None,
            text: String::new(),
            is_unnamed: false,
        }
    }

    async fn message(&mut self, message: JsonMessage) -> Result<()> {
        let (current, total) = message.progress();
        if let Some(id) = message.aux("ID") {
            id.clone_into(&mut self.image);
        }
        if let Some(error) = message.error {
            if is_id(&self.image) && image::is_of_moving_name(&error) {
                self.is_unnamed = true;
                return Ok(());
            }
            self.close(StepState::Failed(error.clone())).await;
            let line = dockerfile_line(&error);
            return Err(Error::failed("the build failed").because(BuildFailure {
                message: one_line(&self.given.clean(&error)),
                line,
            }));
        }
        if let Some(text) = message.stream {
            let mut text = std::mem::take(&mut self.text) + &text;
            let rest = text.split_off(text.rfind('\n').map_or(0, |end| end + 1));
            for line in text.lines() {
                self.text_line(line.trim_end()).await;
            }
            // A line that does not end is not a message.
            if rest.len() <= LONGEST_LINE {
                self.text = rest;
            }
        }
        if let (Some(status), Some((step, _))) = (message.status, &self.current) {
            let event = BuildEvent::Transfer {
                step: step.id.clone(),
                name: message.id.map_or_else(|| status.clone(), |id| format!("{id} {status}")),
                current,
                total,
                done: message.progress_detail.is_none(),
            };
            let _ = self.events.send(event).await;
        }
        Ok(())
    }

    async fn text_line(&mut self, line: &str) {
        if let Some((number, instruction)) = step_of(line) {
            self.close(StepState::Done(0.0)).await;
            // A FROM runs nothing, and is never from the cache.
            self.steps += usize::from(!instruction.starts_with("FROM "));
            let step = Step {
                id: number.to_owned(),
                name: format!("[{number}] {instruction}"),
                state: StepState::Running,
            };
            let _ = self.events.send(BuildEvent::Step(step.clone())).await;
            self.current = Some((step, std::time::Instant::now()));
        } else if line.trim() == "---> Using cache" {
            self.cached += 1;
            self.close(StepState::Cached).await;
        } else if line.starts_with(" ---> ") || NOISE.iter().any(|noise| line.starts_with(noise)) {
            // The names of intermediate images and containers mean nothing to the user; the end is shown elsewhere.
        } else if let Some((step, _)) = &self.current {
            let event = BuildEvent::Output {
                step: step.id.clone(),
                text: format!("{line}\n").into_bytes(),
            };
            let _ = self.events.send(event).await;
        } else if let Some(warning) = line.strip_prefix("[Warning] ") {
            let _ = self.events.send(BuildEvent::Warning(warning.to_owned())).await;
        }
    }

    async fn close(&mut self, state: StepState) {
        if let Some((mut step, began)) = self.current.take() {
            step.state = match state {
                StepState::Done(_) => StepState::Done(began.elapsed().as_secs_f64()),
                other => other,
            };
            let _ = self.events.send(BuildEvent::Step(step)).await;
        }
    }

    async fn end(&mut self) {
        self.close(StepState::Done(0.0)).await;
    }
}

/// The two parts of `Step 2/3 : RUN make`.
fn step_of(line: &str) -> Option<(&str, &str)> {
    let (number, instruction) = line.strip_prefix("Step ")?.split_once(" : ")?;
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'/')
        .then_some((number, instruction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_known_by_their_form() {
        assert_eq!(step_of("Step 2/3 : RUN a : b"), Some(("2/3", "RUN a : b")));
        assert_eq!(step_of("Step by step : no"), None);
        assert_eq!(dockerfile_line("dockerfile parse error line 12: unknown"), Some(12));
    }
}
