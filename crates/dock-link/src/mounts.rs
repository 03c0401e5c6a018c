//! Says where a container of plain docker or compose mounts a directory of the dock, and this machine's was meant.
//!
//! A docker client turns `-v "$PWD":/app` into a path of this machine, which an engine far away takes for one of its own:
//! what is not there it makes, empty. `run-image` mounts the project's copy in its place; other clients are not changed.
//! So each path that a creation mounts ([`crate::ports::http_observer`]) and that is on this machine is looked for on the dock,
//! and the user hears of it, in the log and at the next prompt of the docked shell: where the dock has none or an empty
//! one, and where the path lies in a project that has its copy elsewhere.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::holder::lineage;
use dock_client::agent::paths::AgentPaths;
use dock_client::agent::target::{Exec, RemoteCommand, Target};
use dock_client::sync_memory;
use dock_client::text::visible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};

use crate::link::{Link, OpenOptions};
use crate::log::Log;
use crate::mutex::lock;
use crate::shells::{Shells, write_private};
use crate::transport::{Connector, TransportError};

/// So many creations wait to be looked at; more, and the rest is not.
const WAITING: usize = 16;
/// How long the dock may take to say what it has.
const LIMIT: Duration = Duration::from_secs(20);
/// How long this machine may take: a path may lie on a file system that hangs.
const LIMIT_HERE: Duration = Duration::from_secs(10);
/// What is said of a path is not said again to the same shell for so long.
const SAID: Duration = Duration::from_secs(10 * 60);
/// So many paths are remembered as said.
const REMEMBERED: usize = 256;
/// The most that waits for a prompt, in bytes.
const NOTICE: u64 = 4096;
/// The most that the dock may say, for each path.
const WORD: u64 = 16;
/// What a login shell may say before, in bytes.
const GREETING: u64 = 64 * 1024;

/// Says of each path whether there is `none`, an `empty` directory, or `something`. The engine may have made the directory
/// meanwhile, so an empty one is as good as none.
const LOOK: &str = r#"for p; do
if [ ! -e "$p" ]; then echo none
elif [ ! -d "$p" ] || [ ! -r "$p" ] || [ -n "$(ls -A "$p" 2>/dev/null | head -c 1)" ]; then echo something
else echo empty
fi
done"#;

/// What is mounted through one agent.
pub(crate) struct Mounts {
    moniker: String,
    paths: AgentPaths,
    log: Log,
    shells: Arc<Mutex<Shells>>,
    seen: Sender<Seen>,
    said: Mutex<HashMap<(Option<i32>, String), Instant>>,
    /// Held while a notice is written: what was left before stays in it.
    leaving: Mutex<()>,
}

/// What a container mounts, and the docked shells that are to hear of it.
#[derive(Debug)]
pub(crate) struct Seen {
    sources: Vec<String>,
    shells: Vec<i32>,
}

/// A path that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Here {
    source: String,
    /// Where the dock has the copy, if it lies in a project that was synced with this dock.
    copy: Option<String>,
    /// Whether there is anything in it.
    holds: bool,
}

impl Mounts {
    /// Nothing is mounted yet. What is seen is to be given to [`Mounts::run`].
    pub(crate) fn new(
        moniker: String,
        paths: AgentPaths,
        shells: Arc<Mutex<Shells>>,
        log: Log,
    ) -> (Arc<Self>, Receiver<Seen>) {
        let (seen, seeing) = channel(WAITING);
        let mounts = Self {
            moniker,
            paths,
            log,
            shells,
            seen,
            said: Mutex::default(),
            leaving: Mutex::default(),
        };
        // An agent that was killed may have left some.
        mounts.clean();
        (Arc::new(mounts), seeing)
    }

    /// Takes note of what a container is to mount, for which this process asked. Waits for nothing.
    pub(crate) fn see(&self, sources: Vec<String>, client: Option<i32>) {
        // Now: the client ends soon, and nobody knows its shell then.
        let line = client.map(lineage).unwrap_or_default();
        let mut shells: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        if let Some(own) = line.iter().find(|pid| shells.contains(pid)) {
            shells = vec![*own];
        }
        if let Err(TrySendError::Full(_)) = self.seen.try_send(Seen { sources, shells }) {
            self.log
                .line("too many containers were made at once to look at what they mount");
        }
    }

    /// Looks at what was seen, for ever.
    pub(crate) async fn run<C: Connector>(self: Arc<Self>, link: Link<C>, mut seeing: Receiver<Seen>) {
        while let Some(Seen { sources, shells }) = seeing.recv().await {
            let mounts = Arc::clone(&self);
            let looking = tokio::task::spawn_blocking(move || mounts.here(sources));
            let Ok(Ok(here)) = timeout(LIMIT_HERE, looking).await else {
                continue;
            };
            if here.is_empty() {
                continue;
            }
            let there = match timeout(LIMIT, look(&link, &here)).await {
                Ok(Ok(there)) => there,
                // What is known without the dock counts all the same.
                Ok(Err(cause)) => {
                    self.log.line(format!("what containers mount is not known: {cause}"));
                    vec![String::new(); here.len()]
                }
                Err(_) => vec![String::new(); here.len()],
            };
            let lines: Vec<(String, String)> = here
                .iter()
                .zip(&there)
                .filter_map(|(here, there)| Some((here.source.clone(), sentence(here, there, &self.moniker)?)))
                .collect();
            self.say(&lines, &shells);
        }
    }

    /// Which of these paths are on this machine.
    fn here(&self, sources: Vec<String>) -> Vec<Here> {
        sources
            .into_iter()
            .filter_map(|source| {
                let real = fs::canonicalize(&source).ok()?;
                let holds = match fs::read_dir(&real) {
                    Ok(mut entries) => entries.next().is_some(),
                    // A file, or a directory that only others may read.
                    Err(_) => true,
                };
                let copy = self.copy(&real).filter(|copy| *copy != source);
                Some(Here { source, copy, holds })
            })
            // Of one that is empty here, too, nothing is missed.
            .filter(|here| here.holds || here.copy.is_some())
            .collect()
    }

    /// Where the copy of a project's path is on the dock.
    fn copy(&self, path: &Path) -> Option<String> {
        path.ancestors().find_map(|root| {
            let workspace = sync_memory::workspace(self.paths.state_directory(), root, &self.moniker)?;
            let inside = path.strip_prefix(root).ok()?.to_str()?;
            match (workspace.as_str(), inside) {
                ("", _) => None,
                (_, "") => Some(workspace),
                _ => Some(format!("{workspace}/{inside}")),
            }
        })
    }

    fn say(&self, lines: &[(String, String)], shells: &[i32]) {
        for shell in shells {
            let text: String = lines
                .iter()
                .filter(|(source, _)| self.is_news(Some(*shell), source))
                .map(|(_, line)| format!("dock: {line}\n"))
                .collect();
            if let Err(cause) = self.leave(*shell, &text) {
                self.log.line(format!("a shell can't be told: {cause}"));
            }
        }
        for (source, line) in lines {
            if self.is_news(None, source) {
                self.log.line(line);
            }
        }
    }

    /// Whether a path was not spoken of for some time: to a shell, or in the log.
    fn is_news(&self, to: Option<i32>, source: &str) -> bool {
        let mut said = lock(&self.said);
        said.retain(|_, when| when.elapsed() < SAID);
        if said.len() > REMEMBERED {
            said.clear();
        }
        said.insert((to, source.to_owned()), Instant::now()).is_none()
    }

    /// Says this at the next prompt of every docked shell; gives how many there are.
    pub(crate) fn tell_all(&self, line: &str) -> usize {
        let shells: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for shell in &shells {
            if let Err(cause) = self.leave(*shell, &format!("dock: {}\n", visible(line))) {
                self.log.line(format!("a shell can't be told: {cause}"));
            }
        }
        shells.len()
    }

    /// Takes back what was told to all and still waits for a prompt, since it is not true any more; `instead` is told in its place.
    /// Gives at how many shells it waited.
    pub(crate) fn take_back(&self, line: &str, instead: Option<&str>) -> usize {
        let of = |line: &str| format!("dock: {}\n", visible(line));
        let (old, new) = (of(line), instead.map(of).unwrap_or_default());
        let _alone = lock(&self.leaving);
        let mut waited = 0;
        for (_, file) in self.paths.notice_files() {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            if !text.split_inclusive('\n').any(|line| line == old) {
                continue;
            }
            waited += 1;
            let lines = text.split_inclusive('\n');
            let left: String = lines
                .map(|line| if line == old { new.as_str() } else { line })
                .collect();
            if let Err(cause) = write_private(&file, left.as_bytes()) {
                self.log.line(format!("a shell can't be told: {cause}"));
            }
        }
        waited
    }

    /// The dock's moniker.
    pub(crate) fn moniker(&self) -> &str {
        &self.moniker
    }

    /// Leaves a text for a shell's next prompt.
    fn leave(&self, shell: i32, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let _alone = lock(&self.leaving);
        let file = self.paths.notice_file(shell);
        let before = match fs::metadata(&file) {
            // A shell that shows no notices has them in the log.
            Ok(found) if found.len() > NOTICE => return Ok(()),
            Ok(_) => fs::read(&file)?,
            Err(_) => Vec::new(),
        };
        write_private(&file, &[&before, text.as_bytes()].concat())
    }

    /// Forgets what was to be said to this shell: another one may have had its number.
    pub(crate) fn forget(&self, shell: i32) {
        // There seldom is one.
        let _ = fs::remove_file(self.paths.notice_file(shell));
        lock(&self.said).retain(|(to, _), _| *to != Some(shell));
    }

    /// Removes what was to be said to shells that are gone.
    pub(crate) fn clean(&self) {
        let alive: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for (shell, _) in self.paths.notice_files() {
            if !alive.contains(&shell) {
                self.forget(shell);
            }
        }
    }
}

/// What there is to say of a path, by what the dock says of it; `None` where the mount may well be meant.
fn sentence(here: &Here, there: &str, moniker: &str) -> Option<String> {
    let (source, moniker) = (visible(&here.source), visible(moniker));
    let is_missing = matches!(there, "none" | "empty");
    Some(match &here.copy {
        Some(copy) => format!(
            "a mount of {source} is {moniker}'s own{}, not this machine's; the project's copy there is {} (sync-up renews it, \
             run-image mounts it)",
            if is_missing { ", with nothing in it" } else { "" },
            visible(copy)
        ),
        None if is_missing => format!(
            "a mount of {source} is {moniker}'s own, with nothing in it, not this machine's (run-image sends a project and \
             mounts its copy)"
        ),
        None => return None,
    })
}

/// Asks the dock what it has of these paths: a word for each.
async fn look<C: Connector>(link: &Link<C>, here: &[Here]) -> Result<Vec<String>, TransportError> {
    let words = ["sh", "-c", LOOK, "sh"].into_iter();
    let paths = here.iter().map(|here| here.source.as_str());
    let target = Target::Exec(Exec {
        command: RemoteCommand::Argv(words.chain(paths).map(str::to_owned).collect()),
        pty: None,
    });
    let options = OpenOptions {
        arrival: Instant::now(),
        patience: Duration::ZERO,
        answers: false,
    };
    let (mut connection, _over) = link.open(options, &target).await?;
    let _ = connection.stream.shutdown().await;
    let mut text = Vec::new();
    let most = GREETING + WORD * here.len() as u64;
    // What was read before it broke is short of words.
    let _ = connection.stream.take(most).read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    let said: Vec<&str> = text.lines().collect();
    // A login shell's greeting comes before.
    let own = said.len().saturating_sub(here.len());
    let mut words: Vec<String> = said.into_iter().skip(own).map(str::to_owned).collect();
    words.resize(here.len(), String::new());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_names_both_paths_and_only_where_something_is_amiss() {
        let here = |copy: Option<&str>| Here {
            source: "/home/ann/my\x1bapp".into(),
            copy: copy.map(str::to_owned),
            holds: true,
        };
        let said = |copy, there| sentence(&here(copy), there, "far").unwrap_or_default();
        assert_eq!(said(None, "something"), "");
        assert_eq!(said(None, ""), "");
        for there in ["none", "empty"] {
            assert_eq!(
                said(None, there),
                "a mount of /home/ann/my\u{fffd}app is far's own, with nothing in it, not this machine's (run-image sends a \
                 project and mounts its copy)"
            );
        }
        assert_eq!(
            said(Some("/data/app"), "something"),
            "a mount of /home/ann/my\u{fffd}app is far's own, not this machine's; the project's copy there is /data/app (sync-up \
             renews it, run-image mounts it)"
        );
        assert!(said(Some("/data/app"), "none").contains("far's own, with nothing in it, not"));
    }
}
