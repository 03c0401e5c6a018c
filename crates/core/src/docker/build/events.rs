//! What is heard of a build while it runs, and what comes out of it.

use tokio::sync::mpsc;

use build_context::weight::Heavy;

/// Events go out by this; a full channel makes the builder wait.
pub type Events = mpsc::Sender<BuildEvent>;

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
