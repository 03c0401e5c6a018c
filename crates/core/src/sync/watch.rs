//! Keeping a project and its workspace in step while both are worked in: the system tells of changes here, and the dock is
//! looked at again and again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use super::OWN_DIRECTORY;
use super::holder::Holder;
use super::news::{News, WatchEvent};
use super::plan::{Direction, SyncRequest};
use super::remote::Shell;
use super::rhythm::Rhythm;
use super::session::Session;
use crate::error::Error;

/// How long to wait for what belongs to the same save, after each change and in all.
const QUIET: Duration = Duration::from_millis(30);
const QUIET_AT_MOST: Duration = Duration::from_millis(150);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(5);
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
    Error::failed("the system does not report changes in the project")
        .because(cause)
        .hint("sudo sysctl fs.inotify.max_user_watches=1048576 fs.inotify.max_user_instances=1024")
}

/// What a round of watching is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Here { all: bool },
    There,
    Asked,
}

/// Keeps both in step, both ways, until another command asks `holder` to step aside; without one, until this is dropped.
/// What others ask for is done between. Failures are told, and do not end it.
pub async fn watch<S: Shell>(
    session: &mut Session<S>,
    mut holder: Option<&mut Holder>,
    news: &mut News,
    mut tell: impl FnMut(WatchEvent),
) {
    let (mut watcher, failed) = Watcher::new(session.local().root());
    failed.map(WatchEvent::Blind).into_iter().for_each(&mut tell);
    let mut rhythm = Rhythm::new(Instant::now());
    let mut broken = false;
    // Whether so much is gone that it is looked at again before it is said.
    let mut is_in_doubt = false;
    let mut turn = Turn::Here { all: true };
    loop {
        let begun = Instant::now();
        let brake = session.brake;
        let both = |direction| SyncRequest::everything(direction, brake);
        let result = match (turn, &mut holder) {
            (Turn::Asked, Some(holder)) => {
                for served in holder.answer(session).await {
                    // What is in the way was said where it was asked for.
                    let report = match served.is_heard {
                        true => served.report.done_alone(),
                        false => served.report,
                    };
                    news.filter(report, false, begun).tell(&mut tell);
                }
                if holder.is_to_leave() {
                    return;
                }
                Ok(None)
            }
            _ if broken => session.sync(&both(Direction::Both), false).await.map(Some),
            (Turn::Here { all: true }, _) => session.sync(&both(Direction::Both), false).await.map(Some),
            (Turn::Here { all: false }, _) => session.push(&both(Direction::Up)).await.map(Some),
            (Turn::There | Turn::Asked, _) => session.poll(begun >= rhythm.again).await,
        };
        let looks = matches!(turn, Turn::There | Turn::Here { all: true });
        let is_busy = turn == Turn::Here { all: false } || (looks && session.last_look().changed);
        if is_busy {
            rhythm.is_busy(Instant::now());
        }
        match result {
            Ok(report) => {
                if turn != Turn::Asked && std::mem::take(&mut broken) {
                    tell(WatchEvent::Back);
                }
                if let Some(report) = report {
                    rhythm.came_out(begun, Instant::now(), !report.troubles.is_empty());
                    let filtered = news.filter(report, turn != Turn::Here { all: false }, begun);
                    is_in_doubt = filtered.is_in_doubt;
                    filtered.tell(&mut tell);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut broken, true) {
                    tell(WatchEvent::Failed(error));
                }
            }
        }
        if broken {
            rhythm.poll = Instant::now() + PAUSE;
        } else if looks {
            rhythm.looked(Instant::now(), session.last_look().took, is_busy);
        }
        let (new, failed) = watcher.follow(session.directories());
        failed.map(WatchEvent::Blind).into_iter().for_each(&mut tell);
        if new && !broken {
            // What was put into a new directory before it was watched.
            turn = Turn::Here { all: false };
            continue;
        }
        let asked = async {
            match &mut holder {
                Some(holder) => holder.asked().await,
                None => std::future::pending().await,
            }
        };
        turn = tokio::select! {
            all = watcher.changed(), if !broken => Turn::Here { all },
            () = asked => Turn::Asked,
            () = tokio::time::sleep_until(rhythm.poll) => match watcher.watcher {
                Some(_) if !is_in_doubt => Turn::There,
                _ => Turn::Here { all: true },
            },
        };
    }
}
