//! One build of one Dockerfile on an engine: what is asked for, what is heard of it, what comes out.
//!
//! Two builders stand behind it: [`crate::docker::build::buildkit`] where the engine has it, else [`crate::docker::build::classic`].

pub mod build_needs;
pub mod buildkit;
pub mod classic;
pub mod dockerfile;
pub mod pip_conf;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::docker::connect::client_config::ClientConfig;
use crate::docker::connect::engine::{ApiVersion, Engine};
use crate::docker::connect::locality::Locality;
use crate::docker::connect::logins::Logins;
use crate::docker::containers::container::is_id;
use crate::docker::images::image;
use crate::docker::options::build_options::BuildOptions;
use crate::error::{Error, Result};
use crate::hint;
use crate::project_file;
use build_context::ignore;
use build_context::weight::Heavy;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The folder of the build context.
    pub context: PathBuf,
    /// The Dockerfile; outside the context, too.
    pub dockerfile: PathBuf,
    /// Names that the image gets, `repository:tag`.
    pub tags: Vec<String>,
    /// All else.
    pub options: BuildOptions,
}

impl BuildRequest {
    /// The same once more, when all of its steps have just been run.
    fn from_cache(&self) -> Self {
        let mut again = self.clone();
        again.options.no_cache = false;
        again.options.no_cache_filter.clear();
        again
    }

    /// The patterns of what is ignored in a folder of the build: for its context, those of the file beside the Dockerfile before
    /// those of the root's `.dockerignore`, as BuildKit has it; the classic client knows only the latter.
    ///
    /// # Errors
    /// A file that makes no sense.
    pub(in crate::docker) fn ignored(&self, folder: &Path) -> Result<Vec<Vec<u8>>> {
        let mut beside = self.dockerfile.clone().into_os_string();
        beside.push(".dockerignore");
        let beside = (folder == self.context).then(|| PathBuf::from(beside));
        let mut text = Vec::new();
        for file in beside.into_iter().chain([folder.join(".dockerignore")]) {
            match project_file::read(&file) {
                Ok(found) => {
                    text = found;
                    break;
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                // Without it, all that it leaves out would be sent.
                Err(cause) => {
                    return Err(Error::failed(format!("{} can't be read", file.display()))
                        .because(cause)
                        .hint(
                            "it says what stays on this machine: put a text file there, or remove it to send everything",
                        ));
                }
            }
        }
        ignore::read(&text).map_err(|cause| {
            Error::failed(format!("the .dockerignore of {} can't be read", folder.display())).because(cause)
        })
    }
}

/// Where a Dockerfile that is a symbolic link leads; `None` where it is none. No builder follows a link by itself, so what it leads
/// to is sent in its place.
///
/// # Errors
/// It leads nowhere, or out of the project: a project that was cloned brings its links, and would have any file of this machine
/// sent.
pub fn link_target(dockerfile: &Path, context: &Path) -> Result<Option<PathBuf>> {
    let Ok(said) = dockerfile.read_link() else {
        return Ok(None);
    };
    let target = dockerfile.canonicalize().map_err(|cause| {
        Error::usage(format!(
            "{} is a link to {}, which can't be read",
            dockerfile.display(),
            said.display()
        ))
        .because(cause)
    })?;
    // The folder of an image type may be a link itself: what lies there was put there by its owner.
    let mut folders = [Some(context), dockerfile.parent()].into_iter().flatten();
    if folders.any(|folder| folder.canonicalize().is_ok_and(|folder| target.starts_with(folder))) {
        return Ok(Some(target));
    }
    Err(link_out(dockerfile, &target))
}

/// The error of a link that leads out of the project.
fn link_out(link: &Path, target: &Path) -> Error {
    let (link, target) = (link.display(), target.display());
    Error::usage(format!(
        "{link} is a link to {target}, outside of the project: what that says would be sent to the engine"
    ))
    .hint(hint!(
        "where that is meant, put a copy in its place: cp --remove-destination {} {}",
        target,
        link
    ))
}

/// Which builder builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builder {
    /// BuildKit, inside the engine.
    BuildKit,
    /// The builder of docker before 23.
    Classic,
}

/// What is heard of a build while it runs.
#[derive(Clone, Debug)]
pub enum BuildEvent {
    /// A step appeared, began, or ended.
    Step(Step),
    /// A step's command wrote this.
    Output {
        /// The step's [`Step::id`].
        step: String,
        /// Raw bytes, whole lines or parts of them.
        text: Vec<u8>,
    },
    /// Something below a step goes on: a layer that is pulled, the context that is sent.
    Transfer {
        /// The step's [`Step::id`].
        step: String,
        /// What is moved.
        name: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 where that isn't known.
        total: u64,
        /// True when it ended.
        done: bool,
    },
    /// The builder advises against something.
    Warning(String),
    /// Something is not as it was asked for, and stops nothing: a sentence of our own.
    Notice(String),
    /// A login to a registry can't be had, which stops nothing by itself.
    NoLogin {
        /// A sentence.
        warning: String,
        /// What helps where a registry refuses.
        hint: String,
    },
}

/// One step as the builder names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What tells it from other steps of the build.
    pub id: String,
    /// Such as `[2/3] RUN make`.
    pub name: String,
    /// How far it is.
    pub state: StepState,
}

/// How far a [`Step`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Known, not begun.
    Waiting,
    /// It ran, as is told with its end.
    Seen,
    /// Running; it may have ended before: BuildKit ends what it looks at for its cache, and begins it again.
    Running,
    /// Taken from the cache.
    Cached,
    /// Done after so many seconds.
    Done(f64),
    /// Failed with this message.
    Failed(String),
}

/// What came out of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildOutcome {
    /// The image's ID.
    pub id: String,
    /// Bytes of the image, where the engine says them.
    pub size: Option<u64>,
    /// Steps of the Dockerfile.
    pub steps: usize,
    /// Those of them that came from the cache.
    pub cached_steps: usize,
    /// Bytes of build context that were sent.
    pub context_bytes: u64,
    /// Bytes of the files that the build uses of the context, sent or not.
    pub context_size: u64,
    /// What is heaviest among them.
    pub heaviest: Vec<Heavy>,
}

/// A failure that is the build's own: a step, or the Dockerfile.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildFailure {
    /// The builder's message.
    pub message: String,
    /// The line of the Dockerfile, from 1, where the builder told it or it can be found.
    pub line: Option<usize>,
}

/// The line in messages such as `dockerfile parse error line 12: unknown instruction` and `... on line 12: ...`.
pub(in crate::docker) fn dockerfile_line(message: &str) -> Option<usize> {
    let (_, rest) = message
        .split_once("parse error line ")
        .or_else(|| message.split_once("parse error on line "))?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}

/// Events go out by this; a full channel makes the builder wait.
pub type Events = mpsc::Sender<BuildEvent>;

/// The builder that this engine builds with: BuildKit wherever it is, unless `DOCKER_BUILDKIT=0` asks for the other.
pub fn builder_of(engine: &Engine, docker_buildkit: Option<&str>) -> Builder {
    let refused = docker_buildkit.is_some_and(|value| crate::docker::options::flags::parse_bool(value) == Some(false));
    // BuildKit came with API 1.39; engines for Windows don't have it. An engine since 23 that names builder 1 has
    // it turned off, while 20.10 names 1 and has it all the same.
    let turned_off = engine.api() >= ApiVersion(1, 42) && engine.greeting().builder.as_deref() == Some("1");
    if refused || turned_off || engine.api() < ApiVersion(1, 39) || engine.greeting().os == "windows" {
        Builder::Classic
    } else {
        Builder::BuildKit
    }
}

/// Builds. To an engine that is far away the context goes compressed, where the link is slow, and no more
/// [`Logins`] than the build needs.
///
/// Dropping the future cancels the build on the engine, too.
///
/// # Errors
/// [`BuildFailure`] as the cause where the build failed of itself; else what the engine or the context said.
pub async fn build(
    engine: &Engine,
    locality: Locality,
    builder: Builder,
    request: &BuildRequest,
    config: &Arc<ClientConfig>,
    events: Events,
) -> Result<BuildOutcome> {
    let logins = Logins::of_build(config, &engine.choice().endpoint, locality, request).telling(&events);
    for warning in build_needs::check(engine, builder, request).await? {
        // Nobody listens any more where the build was given up.
        let _ = events.send(BuildEvent::Notice(warning)).await;
    }
    let mut outcome = match builder {
        Builder::BuildKit => {
            let from_cache = request.from_cache();
            let build = |request| buildkit::build(engine, locality, request, config, logins.clone(), events.clone());
            let mut built = build(request).await;
            for pause in image::NAMING_PAUSES {
                match &built {
                    Err(error) if image::is_of_moving_name(&error.with_causes()) => {}
                    _ => break,
                }
                tokio::time::sleep(pause).await;
                built = build(&from_cache).await;
            }
            built?
        }
        Builder::Classic => classic::build(engine, request, config, &logins, events).await?,
    };
    if let Some(tag) = request.tags.first() {
        let image = image::find_made(engine, tag).await?;
        outcome.id = if is_id(&image.id) { image.id } else { String::new() };
        outcome.size = image.size;
    }
    if let Some(file) = &request.options.iidfile {
        std::fs::write(file, &outcome.id)
            .map_err(|cause| Error::failed(format!("--iidfile {} can't be written", file.display())).because(cause))?;
    }
    Ok(outcome)
}
