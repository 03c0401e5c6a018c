//! Keeping a project and its workspace in step while both are worked in: the system tells of changes here, and the dock is
//! looked at again and again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::OWN_DIRECTORY;
use super::far::Shell;
use super::plan::{Direction, Wish};
use super::session::{Conflict, Report, Session};
use crate::error::Error;

/// How often the dock is looked at, unless looking takes long itself.
pub const POLL: Duration = Duration::from_secs(2);
/// A look must not take more than this part of the time.
const LOOK_SHARE: u32 = 10;
/// How long to wait for what belongs to the same save, after each change and in all.
const QUIET: Duration = Duration::from_millis(30);
const QUIET_AT_MOST: Duration = Duration::from_millis(150);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// What happened while watching.
#[derive(Debug)]
pub enum Event {
    /// Something travelled, or is in conflict.
    Synced(Report),
    /// Something failed; it is tried again.
    Failed(Error),
    /// It works again.
    Back,
    /// The system does not tell of changes here: they are looked for as often as the dock's.
    Blind(Error),
}

/// What watches the project's directories.
struct Watcher {
    watcher: Option<RecommendedWatcher>,
    root: PathBuf,
    watched: BTreeSet<Vec<u8>>,
    changes: UnboundedReceiver<PathBuf>,
}

impl Watcher {
    fn new(root: &Path) -> (Self, Option<Error>) {
        let (tell, changes) = unbounded_channel();
        let heard = move |event: notify::Result<notify::Event>| match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => {}
            Ok(event) => {
                for path in event.paths {
                    // Whoever listened has gone.
                    let _ = tell.send(path);
                }
            }
            // Events were lost: whatever it was, the project is looked at.
            Err(_) => drop(tell.send(PathBuf::new())),
        };
        let mut watcher = Self {
            watcher: None,
            root: root.to_owned(),
            watched: BTreeSet::new(),
            changes,
        };
        let begun = notify::recommended_watcher(heard).and_then(|mut inner| {
            inner.watch(root, RecursiveMode::NonRecursive)?;
            Ok(inner)
        });
        match begun {
            Ok(inner) => {
                watcher.watcher = Some(inner);
                (watcher, None)
            }
            Err(cause) => (watcher, Some(blind(cause))),
        }
    }

    /// Watches these directories and no others; whether there were new ones, and what went wrong.
    fn follow(&mut self, directories: &BTreeSet<Vec<u8>>) -> (bool, Option<Error>) {
        let Some(watcher) = &mut self.watcher else {
            return (false, None);
        };
        let path = |directory: &Vec<u8>| self.root.join(OsStr::from_bytes(directory));
        for directory in self.watched.difference(directories) {
            // One that is gone is not watched any more anyway.
            let _ = watcher.unwatch(&path(directory));
        }
        let mut new = false;
        let mut now = BTreeSet::new();
        for directory in directories {
            if !self.watched.contains(directory) {
                match watcher.watch(&path(directory), RecursiveMode::NonRecursive) {
                    Ok(()) => new = true,
                    // Gone again meanwhile.
                    Err(cause) if matches!(cause.kind, notify::ErrorKind::PathNotFound) => continue,
                    Err(cause) if is_gone(&cause) => continue,
                    Err(cause) => {
                        self.watcher = None;
                        return (false, Some(blind(cause)));
                    }
                }
            }
            now.insert(directory.clone());
        }
        self.watched = now;
        (new, None)
    }

    /// Waits for a change, and for what belongs to it; whether `.dockerignore` is among it.
    async fn changed(&mut self) -> bool {
        let mut ignore = false;
        let own = self.root.join(OsStr::from_bytes(OWN_DIRECTORY));
        loop {
            let Some(path) = self.changes.recv().await else {
                return std::future::pending().await;
            };
            ignore |= path == self.root.join(".dockerignore");
            if !path.starts_with(&own) {
                break;
            }
        }
        let limit = Instant::now() + QUIET_AT_MOST;
        loop {
            let quiet = (Instant::now() + QUIET).min(limit);
            match tokio::time::timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(path)) => ignore |= path == self.root.join(".dockerignore"),
                Ok(None) | Err(_) => return ignore,
            }
        }
    }
}

fn is_gone(cause: &notify::Error) -> bool {
    matches!(&cause.kind, notify::ErrorKind::Io(cause) if matches!(cause.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory))
}

fn blind(cause: notify::Error) -> Error {
    Error::failed("the system does not tell of changes in the project")
        .because(cause)
        .hint("sudo sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024")
}

/// What a round of watching is for.
enum Turn {
    Here { all: bool },
    There,
}

/// Keeps both in step, both ways, until this is dropped. Failures are told, and do not end it.
pub async fn watch<S: Shell>(session: &mut Session<S>, mut tell: impl FnMut(Event)) -> Infallible {
    let (mut watcher, failed) = Watcher::new(session.local().root());
    failed.map(Event::Blind).into_iter().for_each(&mut tell);
    let mut poll = Instant::now() + POLL;
    let mut broken = false;
    // The conflicts that were told already.
    let mut told: Vec<Conflict> = Vec::new();
    let mut turn = Turn::Here { all: true };
    loop {
        let begun = Instant::now();
        let brake = session.brake;
        let both = |direction| Wish::everything(direction, brake);
        let result = match turn {
            _ if broken => session.sync(&both(Direction::Both), false).await.map(Some),
            Turn::Here { all: true } => session.sync(&both(Direction::Both), false).await.map(Some),
            Turn::Here { all: false } => session.push(&both(Direction::Up)).await.map(Some),
            Turn::There => session.poll().await,
        };
        match result {
            Ok(report) => {
                if std::mem::take(&mut broken) {
                    tell(Event::Back);
                }
                if let Some(mut report) = report {
                    let conflicts = std::mem::take(&mut report.conflicts);
                    report.conflicts = conflicts.iter().filter(|one| !told.contains(one)).cloned().collect();
                    // Where only changes here were looked at, others may be what they were.
                    match turn {
                        Turn::Here { all: false } => told.extend_from_slice(&report.conflicts),
                        _ => told = conflicts,
                    }
                    if !report.done.is_empty() || !report.is_clean() {
                        tell(Event::Synced(report));
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut broken, true) {
                    tell(Event::Failed(error));
                }
            }
        }
        if matches!(turn, Turn::There | Turn::Here { all: true }) || broken {
            let pause = POLL.max(begun.elapsed() * LOOK_SHARE);
            poll = Instant::now() + if broken { PAUSE } else { pause };
        }
        let (new, failed) = watcher.follow(session.directories());
        failed.map(Event::Blind).into_iter().for_each(&mut tell);
        if new && !broken {
            // What was put into a new directory before it was watched.
            turn = Turn::Here { all: false };
            continue;
        }
        turn = tokio::select! {
            all = watcher.changed(), if !broken => Turn::Here { all },
            () = tokio::time::sleep_until(poll) => match watcher.watcher {
                Some(_) => Turn::There,
                None => Turn::Here { all: true },
            },
        };
    }
}
