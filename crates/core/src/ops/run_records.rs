//! Records of runs in the foreground, kept as long as their run-image lives.
//!
//! A container whose run-image was killed goes on: the next command on that engine says so, once, and `run-image
//! --attach` goes back to it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::holder::Holder;
use crate::agent::paths::state_directory;
use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::containers::foreground::{self, FoundContainer};
use crate::docker::containers::heard::Positions;
use crate::env::Env;
use crate::error::Result;
use crate::hint;
use crate::private_file;

/// How long a command that is about something else may ask what became of a container.
pub(super) const GLANCE: Duration = Duration::from_secs(3);

/// A run in the foreground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    /// The container's ID and name.
    pub id: String,
    pub name: String,
    /// The engine, as DOCKER_HOST would name it.
    pub engine: String,
    /// The moniker of its dock, if it is on one.
    pub dock: Option<String>,
    /// The root of its project.
    pub root: PathBuf,
    /// Whether the project is kept in step with the dock while it runs.
    pub watch: bool,
    /// How much of its output has been printed.
    #[serde(default)]
    pub heard: Positions,
    /// The run-image that has it in the foreground.
    pub process: Option<Holder>,
    /// Whether the user has been told that it was left.
    #[serde(default)]
    pub is_said: bool,
}

/// All records of a user.
#[derive(Clone, Debug)]
pub(super) struct RunRecords {
    directory: PathBuf,
}

impl RunRecords {
    /// The records of this user.
    pub fn of(env: &Env) -> Self {
        Self {
            directory: state_directory(env).join("foreground"),
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Saves a record.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn keep(&self, record: &RunRecord) -> std::io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let text = serde_json::to_vec(record).map_err(std::io::Error::other)?;
        private_file::replace_quickly(&self.file(&record.id), &text)
    }

    /// Removes a record, if it exists.
    pub fn forget(&self, id: &str) {
        let _ = fs::remove_file(self.file(id));
    }

    /// The records of this engine whose run-image is gone.
    pub(super) fn left(&self, engine: &Engine) -> Vec<RunRecord> {
        let address = engine.choice().endpoint.to_string();
        let mut left: Vec<RunRecord> = self
            .all()
            .filter(|record| record.engine == address)
            .filter(|record| !record.process.as_ref().is_some_and(Holder::lives))
            .collect();
        left.sort_by(|one, other| one.name.cmp(&other.name));
        left
    }

    /// All records; damaged ones are skipped.
    pub(super) fn all(&self) -> impl Iterator<Item = RunRecord> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
    }
}

/// What became of a container whose connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fate {
    Running,
    /// It ended with this code, and is still there.
    Ended(u8),
    /// It ended, and the engine has removed it.
    Removed,
    /// It was never started.
    NotStarted,
    /// The engine does not answer.
    Unknown,
}

impl Fate {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended(_) => "ended",
            Self::Removed => "removed",
            Self::NotStarted => "not_started",
            Self::Unknown => "unknown",
        }
    }
}

pub(super) async fn fate(engine: &Engine, id: &str) -> Result<Fate> {
    Ok(match foreground::find(engine, id).await? {
        None => Fate::Removed,
        Some(FoundContainer { is_new: true, .. }) => Fate::NotStarted,
        Some(FoundContainer { ended: Some(code), .. }) => Fate::Ended(code.code()),
        Some(_) => Fate::Running,
    })
}

/// The command that goes back to a container.
pub(super) fn way_back(dock: Option<&str>, name: &str) -> String {
    match dock {
        Some(dock) => hint!("run-image --attach {} --dock {}", name, dock),
        None => hint!("run-image --attach {}", name),
    }
}

pub(super) fn way_to_end(context: &Context, name: &str) -> String {
    let prefix = context.docker_prefix().unwrap_or_default();
    hint!("{prefix}docker rm -f {}", name; prefix = prefix)
}

/// Connects to the engine that the call is for, and says which containers a run-image that was killed left there.
///
/// # Errors
/// As [`Context::connect`].
pub(super) async fn connect_and_remind(context: &Context) -> Result<Engine> {
    let engine = context.connect().await?;
    say_left(&engine, context.dock.as_deref(), context).await;
    Ok(engine)
}

/// Says, once, which containers a run-image that was killed left on this engine. `dock` is the moniker that a command
/// must name to get there.
pub(super) async fn say_left(engine: &Engine, dock: Option<&str>, context: &Context) {
    let records = RunRecords::of(&context.env);
    for record in records.left(engine).into_iter().filter(|record| !record.is_said) {
        let Ok(Ok(fate)) = tokio::time::timeout(GLANCE, fate(engine, &record.id)).await else {
            // The command itself will report that the engine does not answer.
            return;
        };
        let name = &record.name;
        let what = match fate {
            Fate::Running => "still runs".to_owned(),
            Fate::Ended(code) => format!("has ended, with code {code}"),
            Fate::NotStarted => "was not started".to_owned(),
            Fate::Removed | Fate::Unknown => {
                records.forget(&record.id);
                continue;
            }
        };
        context.printer.warning(&format!(
            "container {name} {what} on {}, and its run-image was killed: {} goes back to it, {} ends it",
            engine.choice().place(),
            way_back(dock, name),
            way_to_end(context, name),
        ));
        // If it can't be saved, it is said again.
        let _ = records.keep(&RunRecord {
            is_said: true,
            ..record
        });
    }
}
