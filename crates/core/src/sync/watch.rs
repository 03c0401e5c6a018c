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
use super::news::{Before, News};
use super::plan::{Direction, SyncRequest};
use super::remote::Shell;
use super::session::{Report, Session};
use crate::error::Error;

/// How often the dock is looked at, unless looking takes long itself.
pub const POLL: Duration = Duration::from_secs(2);
/// A look must not take more than this part of the time where nobody works, and more than that where somebody does.
const LOOK_SHARE: u32 = 10;
const BUSY_LOOK_SHARE: u32 = 3;
/// How long to wait for what belongs to the same save, after each change and in all.
const QUIET: Duration = Duration::from_millis(30);
const QUIET_AT_MOST: Duration = Duration::from_millis(150);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(5);
/// How long to wait at most before what did not travel is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What happened while watching.
#[derive(Debug)]
pub enum WatchEvent {
    /// Something travelled, or is in the way that was not said yet; with how much of its kind was.
    Synced(Report, Before),
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
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Here { all: bool },
    There,
    Asked,
}

/// When the dock is looked at, and when what did not travel is tried again.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    /// The next look.
    poll: Instant,
    /// The next try of what failed, and how long after that the next one is.
    again: Instant,
    pause: Duration,
}

impl Rhythm {
    fn new(now: Instant) -> Self {
        Self {
            poll: now + POLL,
            again: now,
            pause: POLL,
        }
    }

    /// A look took so long. Where somebody works, more is to come.
    fn looked(&mut self, now: Instant, took: Duration, is_busy: bool) {
        let share = if is_busy { BUSY_LOOK_SHARE } else { LOOK_SHARE };
        self.poll = now + POLL.max(took * share);
    }

    /// Somebody works: what failed may have been in the middle of that, and is tried with the next look.
    fn is_busy(&mut self, now: Instant) {
        self.pause = POLL;
        self.again = self.again.min(now + POLL);
    }

    /// A round that was begun then has left something behind, or nothing. What fails by itself is tried less and less often.
    fn came_out(&mut self, begun: Instant, now: Instant, has_troubles: bool) {
        if !has_troubles {
            self.pause = POLL;
        } else if begun >= self.again {
            // Rounds for something else, which come in between, put it off no longer.
            self.again = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_somebody_works_the_dock_is_looked_at_within_five_seconds_however_slow_a_look_is() {
        let now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        let looks_after = |rhythm: &mut Rhythm, took, is_busy| {
            rhythm.looked(now, Duration::from_millis(took), is_busy);
            rhythm.poll - now
        };
        assert_eq!(looks_after(&mut rhythm, 20, true), POLL);
        assert_eq!(looks_after(&mut rhythm, 20, false), POLL);
        assert!(looks_after(&mut rhythm, 1_500, true) < Duration::from_secs(5));
        assert_eq!(looks_after(&mut rhythm, 1_500, false), Duration::from_secs(15));
    }

    #[test]
    fn what_fails_by_itself_is_tried_less_and_less_often_and_at_once_when_somebody_works() {
        let mut now = Instant::now();
        let mut rhythm = Rhythm::new(now);
        for pause in [2, 4, 8, 16, 32, 60, 60] {
            rhythm.came_out(now, now, true);
            assert_eq!(rhythm.again - now, Duration::from_secs(pause));
            // A round in between changes nothing.
            let between = now + Duration::from_secs(1);
            rhythm.came_out(between, between, true);
            assert_eq!(rhythm.again - now, Duration::from_secs(pause));
            now = rhythm.again;
        }
        rhythm.came_out(now, now, true);
        rhythm.is_busy(now);
        assert_eq!(rhythm.again - now, POLL);
        now = rhythm.again;
        rhythm.came_out(now, now, true);
        assert_eq!(rhythm.again - now, POLL);
    }
}
