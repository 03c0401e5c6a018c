//! A sync of a project with its workspace: list both sides, compare, plan, send, receive, and record what both sides
//! agree on.
//!
//! A [`Session`] is one connection to one dock for one project. Each attempt of a sync is a [`Round`], which owns
//! its working state.

mod conflict_copies;
mod digests;
mod download;
mod large_files;
mod look;
mod memory;
mod records;
mod report;
mod restore;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::guard::Guard;
use super::local::{Listed, Local};
use super::manifest::{Manifest, Memory};
use super::obeyed;
use super::plan::{self, Action, Brake, Contents, Direction, Sides, Steps, SyncRequest};
use super::remote::Shell;
use super::rsync::Rsync;
use super::send::Generated;
use super::trash::Trash;
use super::{ItemKind, Tree, is_acceptable, is_at_or_below, shown};
use crate::error::{Error, Result};
use crate::hexadecimal;
use crate::output::Printer;
use crate::output::progress::bars::Bars;
use crate::output::progress::counter::Counter;
use build_context::{Builder, PatternError, Selector};
use memory::Settling;

pub use look::{LastLook, Workspace};
pub(crate) use memory::another_folder;
pub use report::{Conflict, Report};

/// How many attempts a sync makes while files keep changing.
const TRIES: usize = 3;
/// A sync of more files or bytes than these is announced before it starts.
const NOTED_FILES: usize = 100;
const NOTED_BYTES: u64 = 4_000_000;

/// Identifies a workspace, and says how to create it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The dock's moniker.
    pub moniker: String,
    /// The directory for workspaces that the user chose.
    pub base: Option<String>,
    /// The user: part of the workspace's path.
    pub user: String,
    /// The project's name.
    pub project: String,
    /// This machine's own ID.
    pub machine: String,
}

/// The end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Files changed meanwhile: start again.
    Again,
}

/// One attempt of a sync: both sides as they were listed, the steps to take, and the results so far.
struct Round<'a> {
    request: &'a SyncRequest<'a>,
    /// This machine's files.
    here: Listed,
    /// The dock's files, updated as this round changes them.
    there: Tree,
    /// The digests that had to be computed.
    contents: Contents,
    steps: Steps,
    settling: Settling,
    report: &'a mut Report,
}

impl Round<'_> {
    /// Adds to the report what the plan leaves alone, and why.
    fn report_left(&mut self) {
        report::count(&self.steps, &self.here.tree, &self.there, self.report);
    }

    fn is_directory_there(&self, path: &[u8]) -> bool {
        self.there
            .get(path)
            .is_some_and(|item| item.kind == ItemKind::Directory)
    }

    /// Adds a path that could not be synced to the report.
    fn trouble(&mut self, path: &[u8], why: impl Into<String>) {
        self.report.troubles.push((path.to_vec(), why.into()));
    }
}

/// A project and its workspace.
pub struct Session<S> {
    shell: S,
    local: Local,
    memory: Memory,
    target: Target,
    manifest: Manifest,
    /// The version file, as it would be generated now.
    pub generated: Option<Generated>,
    /// The path of the version file, if it could not be generated.
    pub unmade: Option<Vec<u8>>,
    /// This machine's rsync, for large files with small changes; used if the dock has it, too.
    pub rsync: Option<Rsync>,
    /// Receives announcements of slow work before it starts.
    pub notice: Notice,
    /// Shows progress; `None` shows none.
    pub printer: Option<Printer>,
    /// Growing files that the user has been told about.
    growing: BTreeSet<Vec<u8>>,
    /// Whether this sync has announced how much it sends.
    is_sending_said: bool,
    /// How many removals are done without confirmation, by default.
    pub brake: Brake,
    /// Keeps what a sync removes or overwrites on this machine; `None` keeps nothing.
    pub trash: Option<Trash>,
    /// Whether `.git` is synced, too.
    pub with_git: bool,
    /// Whether only the two are synced that a person has synced before: this very folder, and this very workspace. Another
    /// folder may have the project's path now, and another machine the dock's moniker: nobody has asked for those.
    pub only_known: bool,
    workspace: Workspace,
    last_look: LastLook,
    /// The patterns of the project's `.dockerignore` when the dock was last listed; `None` before.
    rules: Option<Vec<Vec<u8>>>,
    /// Whether what is remembered was begun anew, for another folder or workspace, and is not on disk yet.
    begun_anew: bool,
    /// Whether the manifest in memory differs from the one on disk.
    touched: bool,
    /// Whether it differs in what both sides agree on, not only in time stamps.
    agreed: bool,
    /// The generation that this round gives the workspace; `None` as long as it changes nothing.
    next: Option<String>,
    /// The directories here when they were last listed.
    directories: BTreeSet<Vec<u8>>,
    /// Whether a full round is due: the dock may have changes that none has seen yet, or one failed in part.
    owes: bool,
    /// Whether the user has been told why rsync is not used.
    is_distrust_told: AtomicBool,
}

/// Receives a line about what is going on.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

impl<S: Shell> Session<S> {
    /// Syncs this project, with what this machine remembers of earlier syncs.
    pub fn new(shell: S, local: Local, memory: Memory, target: Target) -> Self {
        Self {
            manifest: memory.manifest(),
            shell,
            local,
            memory,
            target,
            generated: None,
            unmade: None,
            rsync: None,
            notice: Arc::new(|_| {}),
            printer: None,
            growing: BTreeSet::new(),
            is_sending_said: false,
            brake: Brake::default(),
            trash: None,
            with_git: false,
            only_known: false,
            workspace: Workspace::default(),
            last_look: LastLook::default(),
            rules: None,
            begun_anew: false,
            touched: false,
            agreed: false,
            next: None,
            directories: BTreeSet::new(),
            owes: false,
            is_distrust_told: AtomicBool::new(false),
        }
    }

    /// The project's directories that are synced, without the root.
    pub const fn directories(&self) -> &BTreeSet<Vec<u8>> {
        &self.directories
    }

    /// The dock's side, as it was last listed.
    pub const fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The project's folder.
    pub const fn local(&self) -> &Local {
        &self.local
    }

    /// Syncs, starting with a new listing of the dock.
    ///
    /// # Errors
    /// A dock that can't be reached, and all else that stops the whole sync. Failures of single paths are in the report.
    pub async fn sync(&mut self, request: &SyncRequest<'_>, dry: bool) -> Result<Report> {
        self.is_sending_said = false;
        self.sync_from(1, request, dry).await
    }

    /// [`Session::sync`], beginning with this attempt.
    async fn sync_from(&mut self, first: usize, request: &SyncRequest<'_>, dry: bool) -> Result<Report> {
        let mut report = Report::default();
        for attempt in first.. {
            let makes = !dry && request.direction != Direction::Down && !self.only_known;
            self.look(makes).await?;
            if !self.workspace.exists && request.direction == Direction::Down {
                return Err(Error::failed(format!(
                    "there is no workspace {} on dock {:?}",
                    self.workspace.path, self.target.moniker
                ))
                .hint("sync-up makes it"));
            }
            if attempt == 1 {
                self.find_named(request.only)?;
            }
            match self.round(request, dry, &mut report).await? {
                Outcome::Again if attempt < TRIES => report.troubles.clear(),
                Outcome::Again => {
                    if report.troubles.is_empty() {
                        let all = (b".".to_vec(), "files of the workspace change all the time".to_owned());
                        report.troubles.push(all);
                    }
                    break;
                }
                Outcome::Done => break,
            }
        }
        Ok(report)
    }

    /// Checks that each path that the user named exists, or existed, on one of the sides.
    fn find_named(&self, only: &[Vec<u8>]) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        for path in only {
            let is_it = |other: &Vec<u8>| is_at_or_below(other, path);
            let here = self.local.root().join(std::ffi::OsStr::from_bytes(path));
            let is_known = here.symlink_metadata().is_ok()
                || self.workspace.listing.tree.keys().any(is_it)
                || self.manifest.records.keys().any(is_it)
                || self.workspace.unseen.iter().any(|unseen| is_at_or_below(path, unseen));
            if !is_known {
                return Err(Error::usage(format!(
                    "there is no {} on either side: neither here nor in {}",
                    shown(path),
                    self.workspace.path
                ))
                .hint("a path is relative to the current folder; without one, all changes are synced"));
            }
        }
        Ok(())
    }

    /// Whether the dock was listed by the rules of now, and has a workspace: there is something to [`push`](Self::push) to.
    pub const fn has_looked(&self) -> bool {
        self.workspace.exists && self.rules.is_some()
    }

    /// Sends what changed here if the dock is as it was last listed. Otherwise syncs both ways: the changes there would
    /// not be noticed again.
    ///
    /// # Errors
    /// As [`Session::sync`].
    pub async fn push(&mut self, request: &SyncRequest<'_>) -> Result<Report> {
        let mut report = Report::default();
        self.is_sending_said = false;
        match self.round(request, false, &mut report).await? {
            Outcome::Done => Ok(report),
            Outcome::Again => {
                let both = SyncRequest {
                    direction: Direction::Both,
                    ..*request
                };
                self.sync_from(2, &both, false).await
            }
        }
    }

    /// Lists the dock, and syncs both ways if something changed there; `None` if nothing did. With `again`, also syncs
    /// for earlier changes that have not been brought yet.
    ///
    /// # Errors
    /// As [`Session::sync`].
    pub async fn poll(&mut self, again: bool) -> Result<Option<Report>> {
        // It is done every other second: no row on the screen.
        let changed = self.look_counted(false, Counter::new(None, "", "", 0)).await?;
        let is_due = changed || (self.owes && again);
        if !is_due {
            return Ok(None);
        }
        let request = SyncRequest::everything(Direction::Both, self.brake);
        let mut report = Report::default();
        self.is_sending_said = false;
        match self.round(&request, false, &mut report).await? {
            Outcome::Done => Ok(Some(report)),
            Outcome::Again => self.sync_from(2, &request, false).await.map(Some),
        }
    }

    async fn round(&mut self, request: &SyncRequest<'_>, dry: bool, report: &mut Report) -> Result<Outcome> {
        report.workspace = self.workspace.path.clone();
        self.judge_memory()?;
        self.manifest.header.workspace.clone_from(&self.workspace.path);
        // Both sides are listed by the same rules: otherwise, files that only one of them leaves out would look
        // removed.
        let rules = self.rules.clone().unwrap_or_default();
        if self.patterns()? != rules {
            return Ok(Outcome::Again);
        }
        let here = self.list(rules).await?;
        let directories = here.tree.iter().filter(|(_, item)| item.kind == ItemKind::Directory);
        self.directories = directories.map(|(path, _)| path.clone()).collect();
        report.others.clone_from(&here.others);
        self.report_root_files(report);
        let settling = Settling {
            here_ns: here.begun_ns,
            here: here.clocks.clone(),
            there_ns: self.workspace.clock_ns,
            there: self.workspace.listing.clocks.clone(),
        };
        let mut round = Round {
            request,
            here,
            // The listing may be large: it is not copied.
            there: std::mem::take(&mut self.workspace.listing.tree),
            contents: Contents::default(),
            steps: Steps::new(),
            settling,
            report,
        };
        let outcome = match self.plan(&mut round).await {
            Ok(()) if dry => {
                let planned = round.steps.iter().filter(|(_, action)| report::is_done(**action));
                let planned = planned.map(|(path, action)| (path.clone(), *action));
                round.report.done.extend(planned);
                Ok(Outcome::Done)
            }
            Ok(()) => self.carry_out(&mut round).await,
            Err(error) => Err(error),
        };
        self.workspace.listing.tree = round.there;
        if !dry {
            let is_whole = request.direction == Direction::Both && request.only.is_empty();
            match outcome {
                Ok(Outcome::Done) if report.troubles.is_empty() => self.owes &= !is_whole,
                _ => self.owes = true,
            }
        }
        outcome
    }

    /// Decides what this round does.
    async fn plan(&self, round: &mut Round<'_>) -> Result<()> {
        let root = self.local.root();
        let here = &round.here.tree;
        let mut guard = Guard::new(root, here, obeyed::all(root, here, &round.here.left_out));
        let links = plan::links(&self.manifest.records, here, &round.there);
        if !links.is_empty() {
            self.read_links(&links, &mut round.there).await?;
            let mut selector = selector(self.rules.as_deref().unwrap_or_default())?;
            guard
                .judge_links(root, &links, here, &round.there, &mut selector)
                .map_err(wrong_rules)?;
        }
        let sides = Sides {
            base: &self.manifest.records,
            here,
            there: &round.there,
            folds: (self.local.folds(here), self.workspace.folds),
            unseen: &self.workspace.unseen,
            generated: self.generated.as_ref().map(|generated| generated.path.as_slice()),
            unmade: self.unmade.as_deref(),
            guard: &guard,
        };
        round.contents = self.ask(&sides, round.request).await?;
        round.steps = plan::plan(&sides, &round.contents, round.request);
        round.report_left();
        Ok(())
    }

    /// Carries out the steps, and records what both sides agree on afterwards.
    async fn carry_out(&mut self, round: &mut Round<'_>) -> Result<Outcome> {
        let former = round.steps.iter().find(|(path, action)| {
            **action == Action::Forget
                && !self.with_git
                && path.split(|byte| *byte == b'/').next_back() == Some(b".git")
        });
        if let Some((path, _)) = former {
            // It is forgotten by this round, so this is said once.
            (self.notice)(&format!(
                "{} is in the workspace since an earlier sync: it stays there, and is no longer kept in step. \
                 --with-git keeps it in step again",
                shown(path)
            ));
        }
        // Also where nothing travels, of an empty project or where all is in conflict: a person has synced these two.
        let begun_anew = std::mem::take(&mut self.begun_anew);
        (self.touched, self.agreed, self.next) = (begun_anew, false, None);
        self.write_down(round);
        let sent = self.send(round).await;
        let received = match &sent {
            Ok(Outcome::Done) => self.receive(round).await,
            _ => Ok(()),
        };
        let remembered = self.remember().await;
        received?;
        remembered?;
        sent
    }

    /// The first arguments of every script that runs in the workspace: its path, and the ID in its mark (empty without
    /// one).
    fn in_workspace(&self) -> (String, String) {
        let id = self.workspace.owner.as_ref().map(|owner| owner.id.clone());
        (self.workspace.path.clone(), id.unwrap_or_default())
    }

    /// A progress row that counts; shown after a moment, until it is dropped.
    fn counter(&self, doing: &str, place: &str, expected: usize) -> Counter {
        Counter::new(self.printer.as_ref(), doing, place, expected)
    }

    fn at_dock(&self) -> String {
        format!("on {}", self.target.moniker)
    }

    fn with_dock(&self) -> String {
        format!("with {}", self.target.moniker)
    }

    /// Progress bars for files that travel, until they are dropped.
    fn bars(&self, title: &str, files: usize, bytes: u64) -> Bars {
        Bars::files(self.printer.as_ref(), title, files, bytes)
    }
}

fn unhex(text: impl AsRef<str>) -> Option<Vec<u8>> {
    let digits = text.as_ref().as_bytes().chunks(2);
    let path: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    path.filter(|path| is_acceptable(path))
}

/// The nonce of a call: it marks where a login shell's greeting ends and the script's own output begins.
fn nonce() -> Result<String> {
    hexadecimal::random::<8>()
}

fn selector(patterns: &[Vec<u8>]) -> Result<Selector> {
    Selector::new(patterns, Builder::default()).map_err(wrong_rules)
}

fn wrong_rules(cause: PatternError) -> Error {
    Error::usage("the project's .dockerignore is wrong").because(cause)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::failed("a part of the sync could not be run")))
}

/// How much travels, counted as a report counts it: with directories.
fn amount(files: usize, directories: usize) -> String {
    let files = crate::output::counted(files, "file");
    match directories {
        0 => files,
        1 => format!("{files} and 1 directory"),
        directories => format!("{files} and {directories} directories"),
    }
}
