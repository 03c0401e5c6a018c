//! Reports containers of plain docker or compose that mount a directory of the dock where one of this machine was
//! meant.
//!
//! A docker client turns `-v "$PWD":/app` into a path of this machine, which a remote engine takes for one of its own:
//! if the path does not exist there, the engine creates an empty directory. `run-image` mounts the project's copy
//! instead; other clients are not changed. So each path that a new container mounts ([`crate::ports::http_observer`])
//! and that exists on this machine is looked for on the dock, and the user is told, in the log and at the next prompt
//! of the docked shell: if it is missing or empty on the dock, and if it lies in a project that has its copy elsewhere.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::holder::lineage;
use dock_client::agent::paths::AgentPaths;
use dock_client::agent::target::{Exec, RemoteCommand, Target};
use dock_client::private_file;
use dock_client::sync_memory;
use dock_client::text::visible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};

use crate::link::{Link, OpenOptions};
use crate::log::Log;
use crate::shells::Shells;
use crate::transport::{Connector, TransportError};
use dock_client::mutex::lock;

/// How many created containers may wait to be checked; further ones are not checked.
const WAITING: usize = 16;
/// How long the dock may take to answer.
const LIMIT: Duration = Duration::from_secs(20);
/// How long this machine may take: a path may lie on a file system that hangs.
const LIMIT_HERE: Duration = Duration::from_secs(10);
/// How long a notice about a path is not repeated to the same shell.
const SAID: Duration = Duration::from_secs(10 * 60);
/// How many such paths are remembered.
const REMEMBERED: usize = 256;
/// The most that waits for a prompt, in bytes.
const NOTICE: u64 = 4096;
/// The longest answer of the dock for one path, in bytes.
const WORD: u64 = 16;
/// The most that a login shell may print before the answers, in bytes.
const GREETING: u64 = 64 * 1024;

/// Prints for each path whether there is `none`, an `empty` directory, or `something`. The engine may have created the
/// directory meanwhile, so an empty one is treated as missing.
const LOOK: &str = r#"for p; do
if [ ! -e "$p" ]; then echo none
elif [ ! -d "$p" ] || [ ! -r "$p" ] || [ -n "$(ls -A "$p" 2>/dev/null | head -c 1)" ]; then echo something
else echo empty
fi
done"#;

/// The mounts of containers that are created through one agent.
pub(crate) struct Mounts {
    moniker: String,
    paths: AgentPaths,
    log: Log,
    shells: Arc<Mutex<Shells>>,
    seen: Sender<Seen>,
    said: Mutex<HashMap<(Option<i32>, String), Instant>>,
    /// Held while a notice is written, so that notices from before stay in it.
    leaving: Mutex<()>,
}

/// What a container mounts, and the docked shells that are to be told.
#[derive(Debug)]
pub(crate) struct Seen {
    sources: Vec<String>,
    shells: Vec<i32>,
}

/// A path that exists on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Here {
    source: String,
    /// The path of the copy on the dock, if it lies in a project that was synced with this dock.
    copy: Option<String>,
    /// Whether the path has any content.
    holds: bool,
}

impl Mounts {
    /// Without any mounts yet. The receiver is for [`Mounts::run`].
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
        // An agent that was killed may have left notices.
        mounts.clean();
        (Arc::new(mounts), seeing)
    }

    /// Notes what a container is to mount; `client` is the process that asked for it. Waits for nothing.
    pub(crate) fn see(&self, sources: Vec<String>, client: Option<i32>) {
        // At once: the client ends soon, and its shell can't be found then.
        let line = client.map(lineage).unwrap_or_default();
        let mut shells: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        if let Some(own) = line.iter().find(|pid| shells.contains(pid)) {
            shells = vec![*own];
        }
        if let Err(TrySendError::Full(_)) = self.seen.try_send(Seen { sources, shells }) {
            self.log
                .line("too many containers were made at once to check what they mount");
        }
    }

    /// Checks the mounts that were noted, for ever.
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
                // What is known without the dock is reported all the same.
                Ok(Err(cause)) => {
                    self.log.line(format!("the mounted paths can't be checked: {cause}"));
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

    /// Those of these paths that exist on this machine.
    fn here(&self, sources: Vec<String>) -> Vec<Here> {
        sources
            .into_iter()
            .filter_map(|source| {
                let real = fs::canonicalize(&source).ok()?;
                let holds = match fs::read_dir(&real) {
                    Ok(mut entries) => entries.next().is_some(),
                    // A file, or a directory that this user can't read.
                    Err(_) => true,
                };
                let copy = self.copy(&real).filter(|copy| *copy != source);
                Some(Here { source, copy, holds })
            })
            // If the directory is empty here, too, nothing is missed.
            .filter(|here| here.holds || here.copy.is_some())
            .collect()
    }

    /// The path of a project path's copy on the dock.
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
                self.log.line(format!("a notice can't be written: {cause}"));
            }
        }
        for (source, line) in lines {
            if self.is_news(None, source) {
                self.log.line(line);
            }
        }
    }

    /// Whether there was no recent notice about a path: to a shell, or in the log.
    fn is_news(&self, to: Option<i32>, source: &str) -> bool {
        let mut said = lock(&self.said);
        said.retain(|_, when| when.elapsed() < SAID);
        if said.len() > REMEMBERED {
            said.clear();
        }
        said.insert((to, source.to_owned()), Instant::now()).is_none()
    }

    /// Shows this line at the next prompt of every docked shell; returns how many there are.
    pub(crate) fn tell_all(&self, line: &str) -> usize {
        let shells: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for shell in &shells {
            if let Err(cause) = self.leave(*shell, &format!("dock: {}\n", visible(line))) {
                self.log.line(format!("a notice can't be written: {cause}"));
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
            if let Err(cause) = private_file::replace_quickly(&file, left.as_bytes()) {
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
        private_file::replace_quickly(&file, &[&before, text.as_bytes()].concat())
    }

    /// Forgets the notices for this shell: an earlier one may have had its number.
    pub(crate) fn forget(&self, shell: i32) {
        // There seldom is a file.
        let _ = fs::remove_file(self.paths.notice_file(shell));
        lock(&self.said).retain(|(to, _), _| *to != Some(shell));
    }

    /// Removes the notices for shells that are gone.
    pub(crate) fn clean(&self) {
        let alive: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for (shell, _) in self.paths.notice_files() {
            if !alive.contains(&shell) {
                self.forget(shell);
            }
        }
    }
}

/// The notice about a path, from what the dock has there; `None` if the mount may well be meant.
fn sentence(here: &Here, there: &str, moniker: &str) -> Option<String> {
    let (source, moniker) = (visible(&here.source), visible(moniker));
    let is_missing = matches!(there, "none" | "empty");
    Some(match &here.copy {
        Some(copy) => format!(
            "a mount of {source} leads to that path on {moniker}{}, not to this machine's; the project's copy there is \
             {} (sync-up renews it, run-image mounts it)",
            if is_missing { ", where it is empty" } else { "" },
            visible(copy)
        ),
        None if is_missing => format!(
            "a mount of {source} leads to that path on {moniker}, where it is empty, not to this machine's (run-image \
             sends a project and mounts its copy)"
        ),
        None => return None,
    })
}

/// Asks the dock what it has at these paths: one word for each.
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
    // If the connection breaks, the missing words are filled in below.
    let _ = connection.stream.take(most).read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    let said: Vec<&str> = text.lines().collect();
    // A login shell's greeting may come first.
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
                "a mount of /home/ann/my\u{fffd}app leads to that path on far, where it is empty, not to this \
                 machine's (run-image sends a project and mounts its copy)"
            );
        }
        assert_eq!(
            said(Some("/data/app"), "something"),
            "a mount of /home/ann/my\u{fffd}app leads to that path on far, not to this machine's; the project's copy \
             there is /data/app (sync-up renews it, run-image mounts it)"
        );
        assert!(said(Some("/data/app"), "none").contains("on far, where it is empty, not"));
    }
}
