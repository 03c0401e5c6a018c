//! The events of a build while it runs, and its result.

use tokio::sync::mpsc;

use build_context::weight::Heavy;

/// Events are sent through this; a full channel makes the builder wait.
pub type Events = mpsc::Sender<BuildEvent>;

/// An event of a build.
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
    /// Progress below a step: a layer that is pulled, the context that is sent.
    Transfer {
        /// The step's [`Step::id`].
        step: String,
        /// Such as a layer, or the context.
        name: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 if unknown.
        total: u64,
        /// True when it ended.
        done: bool,
    },
    /// The builder advises against something.
    Warning(String),
    /// Something is not as requested, but nothing fails: a sentence of our own.
    Notice(String),
    /// A login to a registry can't be read, which is no failure by itself.
    NoLogin {
        /// A sentence.
        warning: String,
        /// The hint if a registry refuses.
        hint: String,
    },
}

/// One step as the builder names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Unique within the build.
    pub id: String,
    /// Such as `[2/3] RUN make`.
    pub name: String,
    /// How far the step is.
    pub state: StepState,
}

/// How far a [`Step`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum StepState {
    /// Known, not begun.
    Waiting,
    /// It ran, as its end shows.
    Seen,
    /// Running; it may have ended before: BuildKit ends a step while it checks its cache, and begins it again.
    Running,
    /// Taken from the cache.
    Cached,
    /// Done after so many seconds.
    Done(f64),
    /// Failed with this message.
    Failed(String),
}

/// The result of a build.
#[derive(Clone, Debug, Default)]
pub struct BuildOutcome {
    /// The image's ID.
    pub id: String,
    /// Bytes of the image, if the engine reports them.
    pub size: Option<u64>,
    /// Steps of the Dockerfile.
    pub steps: usize,
    /// How many of them came from the cache.
    pub cached_steps: usize,
    /// Bytes of build context that were sent.
    pub context_bytes: u64,
    /// Bytes of the files that the build uses of the context, sent or not.
    pub context_size: u64,
    /// The heaviest among them.
    pub heaviest: Vec<Heavy>,
}

/// A failure of the build itself: a step, or the Dockerfile.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildFailure {
    /// The builder's message.
    pub message: String,
    /// The line of the Dockerfile, from 1, if the builder named it or it can be found.
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
