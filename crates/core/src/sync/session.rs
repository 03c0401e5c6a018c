//! A sync of a project with its workspace: looking, asking, planning, sending, receiving, and writing down what arrived.

mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::clock::{Clocks, now_ns};
use super::guard::Guard;
use super::listing::{self, Listing};
use super::local::{Listed, Local, LocalError, StagingDirectory, contents_of};
use super::manifest::{Header, Manifest, Memory, Record, RecordedSide, Records};
use super::obeyed;
use super::owner::Owner;
use super::plan::{self, Action, Brake, Contents, Direction, Side, Sides, Steps, SyncRequest, Why};
use super::receive::{Arrived, receive};
use super::remote::{self, Shell, broken, call, feed_nothing, feed_paths, read_line};
use super::rsync::{Rsync, RsyncDirection};
use super::samples::{self, Survey};
use super::send::{AsRead, Generated, Made, Sent, UploadBatch};
use super::trash::{self, Kept, Reason, Trash, TrashError};
use super::{Content, Item, ItemKind, OTHERS_WRITE, Tree, ancestors, is_acceptable, is_at_or_below, script, shown};
use crate::agent::target::Exit;
use crate::error::{Error, Result};
use crate::hexadecimal::{self, hex};
use crate::hint;
use crate::output::Printer;
use crate::output::progress::bars::Bars;
use crate::output::progress::counter::Counter;
use crate::version;
use build_context::{Builder, PatternError, Selector};

/// How often a sync is begun again, because files changed meanwhile.
const TRIES: usize = 3;
/// How long a `.dockerignore` that changed must stay as it is, and how often that is tried.
const SETTLED: Duration = Duration::from_millis(300);
const SETTLING: usize = 20;
/// The longest list of directories that can't be looked into.
const LONGEST_UNSEEN: u64 = 64 << 20;
/// The longest texts of links that are looked at at once.
const LONGEST_LINKS: u64 = 64 << 20;
/// Beside its path, a record of `stat` is no longer than this.
const LONGEST_RECORD: u64 = 400;
/// On a disk, a file takes whole blocks, and its name takes something, too.
const BLOCK: u64 = 4096;
/// The longest listing that is read: enough for [`listing::MOST_PATHS`].
const LONGEST_LISTING: u64 = 1 << 30;
/// From so many files or bytes on, it is said before they travel.
const NOTED_FILES: usize = 100;
const NOTED_BYTES: u64 = 4_000_000;
/// The directory in a stage in which rsync makes files here.
const MADE: &str = "made";
/// Why something is not removed on the dock.
const FULL_THERE: &str =
    "it stays on the dock: there is no room to keep it there for a week, as what a sync removes is";
/// So many entries that git ignores are named.
const NAMED: usize = 3;
/// What is put behind the name of a file in conflict, for the dock's version.
const BESIDE: &[u8] = b".dock";

/// Which workspace is meant, and how it would be made.
#[derive(Clone, Debug)]
pub struct Target {
    /// The dock.
    pub moniker: String,
    /// The directory for workspaces that the user chose.
    pub base: Option<String>,
    /// The user, by whom workspaces are sorted.
    pub user: String,
    /// The project's name.
    pub project: String,
    /// This machine's own ID.
    pub machine: String,
}

/// The far side, when it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Far {
    /// Where the workspace is, without links.
    pub workspace: String,
    /// Its mark; `None` where there is no workspace yet, or nobody's.
    pub owner: Option<Owner>,
    /// Whether the directory is there.
    pub exists: bool,
    uid: u32,
    /// Its time before it was listed, in nanoseconds since 1970.
    clock_ns: i64,
    /// How the sync called the state that last changed it.
    generation: String,
    /// Whether its disk takes names for one that differ in capitals alone.
    folds: bool,
    gzip: bool,
    rsync: bool,
    listing: Listing,
    unseen: BTreeSet<Vec<u8>>,
}

/// How the far side was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastLook {
    /// How long that took.
    pub took: Duration,
    /// Whether it was not as the time before.
    pub changed: bool,
}

/// A conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: Vec<u8>,
    /// Why.
    pub why: Why,
    /// Where the dock's version was put.
    pub beside: Option<Vec<u8>>,
}

/// What a sync did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Where the workspace is.
    pub workspace: String,
    /// What was done to each path.
    pub done: BTreeMap<Vec<u8>, Action>,
    /// What is left alone on both sides.
    pub conflicts: Vec<Conflict>,
    /// What could not be done, with why.
    pub troubles: Vec<(Vec<u8>, String)>,
    /// So many paths changed here that were not to be sent.
    pub later_here: usize,
    /// So many paths changed on the dock that were not to be brought.
    pub later_there: usize,
    /// What was removed on the dock and is kept here, until a person says that so much is to be removed.
    pub held_here: Vec<Vec<u8>>,
    /// What was removed here and is kept on the dock, likewise.
    pub held_there: Vec<Vec<u8>>,
    /// Files of root on the dock.
    pub root_files: Vec<Vec<u8>>,
    /// The number of the user on the dock.
    pub user: u32,
    /// Pipes and devices here, which do not travel.
    pub others: Vec<Vec<u8>>,
    /// Bytes of the files that were sent, and that were brought.
    pub bytes: (u64, u64),
}

impl Report {
    /// What travelled, without what is in the way.
    #[must_use]
    pub fn done_alone(self) -> Self {
        Self {
            workspace: self.workspace,
            done: self.done,
            bytes: self.bytes,
            ..Self::default()
        }
    }

    /// Whether all is in step, as far as it was to be.
    pub fn is_clean(&self) -> bool {
        self.conflicts.is_empty() && self.troubles.is_empty() && self.held_here.is_empty() && self.held_there.is_empty()
    }
}

/// What takes room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DiskUsage {
    bytes: u64,
    /// Files and directories: many disks have only so many, whatever is in them.
    files: u64,
}

impl DiskUsage {
    /// For these files, and the directories that a plan makes here.
    fn needed(wanted: &HashMap<Vec<u8>, Item>, steps: &Steps, here: &Tree, there: &Tree) -> Self {
        let is_directory = |path: &Vec<u8>| there.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
        let directories = steps
            .iter()
            .filter(|(path, action)| {
                matches!(action, Action::Bring(_)) && !here.contains_key(*path) && is_directory(path)
            })
            .count() as u64;
        let sizes = wanted
            .values()
            .map(|item| item.stamp.size.div_ceil(BLOCK).saturating_add(1));
        let blocks = sizes.fold(directories, u64::saturating_add);
        Self {
            bytes: blocks.saturating_mul(BLOCK),
            files: directories.saturating_add(wanted.len() as u64),
        }
    }
}

/// A round that is to be begun again.
enum Round {
    Done,
    /// Files changed meanwhile.
    Again,
}

/// A project and its workspace.
pub struct Session<S> {
    shell: S,
    local: Local,
    memory: Memory,
    target: Target,
    manifest: Manifest,
    /// The version file, made anew.
    pub generated: Option<Generated>,
    /// The path whose place it would take, where it could not be made.
    pub unmade: Option<Vec<u8>>,
    /// By what large files travel of which little changed, where the dock has it, too.
    pub rsync: Option<Rsync>,
    /// Hears what takes longer, before it is done.
    pub notice: Notice,
    /// Where what takes long is shown; none shows nothing.
    pub printer: Option<Printer>,
    /// Files that were said to grow.
    growing: BTreeSet<Vec<u8>>,
    /// Whether it was said, in this sync, how much is sent.
    is_sending_said: bool,
    /// How many removals are done without a person's word, where nobody says otherwise.
    pub brake: Brake,
    /// Where is kept what a sync takes on this machine; `None` where nothing is.
    pub trash: Option<Trash>,
    /// Whether git's own files travel, too.
    pub with_git: bool,
    far: Far,
    last_look: LastLook,
    /// What the project's `.dockerignore` said when the dock was last looked at; none before.
    rules: Option<Vec<Vec<u8>>>,
    /// Whether the manifest says something that is not written down yet.
    touched: bool,
    /// Whether that is more than how files are marked: what both sides agree on.
    agreed: bool,
    /// How this round calls the state in which it leaves both sides; none as long as it changes nothing.
    next: Option<String>,
    /// The directories here when they were last listed.
    directories: BTreeSet<Vec<u8>>,
    /// Whether the dock may have something that no round both ways has seen, or a round failed at something.
    owes: bool,
    /// Whether it was said why rsync is not used.
    is_distrust_told: AtomicBool,
}

/// Hears a line about what is going on.
pub type Notice = Arc<dyn Fn(&str) + Send + Sync>;

impl<S: Shell> Session<S> {
    /// Of a project, with what this machine remembers of it.
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
            far: Far::default(),
            last_look: LastLook::default(),
            rules: None,
            touched: false,
            agreed: false,
            next: None,
            directories: BTreeSet::new(),
            owes: false,
            is_distrust_told: AtomicBool::new(false),
        }
    }

    /// The directories of the project that a sync is about, without the root.
    pub const fn directories(&self) -> &BTreeSet<Vec<u8>> {
        &self.directories
    }

    /// The far side, as it was last looked at.
    pub const fn far(&self) -> &Far {
        &self.far
    }

    /// The project's folder.
    pub const fn local(&self) -> &Local {
        &self.local
    }

    /// Looks at the far side; true where it is not as it was the last time. With `make`, a workspace that is not there is
    /// made, and marked.
    ///
    /// # Errors
    /// A dock that can't be reached, a workspace of somebody else, one that can't be made or listed.
    pub async fn look(&mut self, make: bool) -> Result<bool> {
        let counter = self.counter("looking at", &self.at_dock(), self.manifest.records.len());
        self.look_counted(make, counter).await
    }

    async fn look_counted(&mut self, make: bool, counter: Counter) -> Result<bool> {
        let began = Instant::now();
        let changed = self.look_at(make, counter).await?;
        self.last_look = LastLook {
            took: began.elapsed(),
            changed,
        };
        Ok(changed)
    }

    /// How the far side was last looked at.
    pub const fn last_look(&self) -> LastLook {
        self.last_look
    }

    async fn look_at(&mut self, make: bool, counter: Counter) -> Result<bool> {
        // Before anything is asked of the dock: a wrong pattern needs no dock.
        let patterns = self.read_rules().await?;
        let mut selector = selector(&patterns)?;
        self.rules = Some(patterns);
        let own = Owner::new(self.local.root(), &self.target.machine, &self.target.user)?;
        let word = nonce()?;
        let kept = self.memory.listing();
        let digest = kept.as_ref().map_or("", |(_, digest)| digest);
        let remembered = self.manifest.header.workspace.clone();
        let arguments = [
            if make { "make" } else { "look" },
            &remembered,
            self.target.base.as_deref().unwrap_or(""),
            &self.target.user,
            &self.target.project,
            digest,
            &own.render(),
            listing::FORMAT,
        ];
        let reply = call(&self.shell, script::LOOK, &word, &arguments, feed_nothing(), {
            let counter = counter.clone();
            Box::new(move |from| read_look(from, &counter))
        })
        .await?;
        let (complaints, complaints_cut) = (reply.complaints.clone(), reply.complaints_cut);
        let ((), looked) = reply.ok("show its workspace")?;
        let Looked {
            workspace,
            mark,
            generation,
            uid,
            clock_ns,
            folds,
            gzip,
            rsync,
            text,
        } = looked;
        let Some(text) = text else {
            self.far = Far {
                workspace,
                ..Far::default()
            };
            return Ok(true);
        };
        let owner = mark.as_deref().and_then(Owner::parse);
        if owner.is_none() && mark.is_some_and(|mark| !mark.is_empty()) {
            return Err(damaged(&workspace, &self.target));
        }
        if let Some(owner) = &owner
            && owner.id != self.manifest.header.workspace_id
            && !owner.is_same_checkout(&own)
        {
            return Err(foreign(&workspace, owner, &self.target));
        }
        let changed = text.is_some();
        self.owes |= changed;
        let text = match (text, kept) {
            (Some(text), _) => Arc::new(text),
            (None, Some((kept, _))) => Arc::new(kept),
            (None, None) => {
                return Err(Error::failed(
                    "the dock says that nothing changed, and nothing is known of it",
                ));
            }
        };
        let parsing = Arc::clone(&text);
        let listing = blocking(move || {
            listing::read(&parsing, &mut selector)
                .map_err(|cause| Error::failed("the dock's list of files is refused").because(cause))
        })
        .await?;
        self.far = Far {
            workspace,
            owner,
            exists: true,
            uid,
            clock_ns,
            generation,
            folds,
            gzip,
            rsync,
            listing,
            unseen: BTreeSet::new(),
        };
        if self.far.listing.status == 0 {
            if changed && self.memory.is_ours() {
                self.memory.keep_listing(&text)?;
            }
        } else {
            self.find_unseen(&complaints, complaints_cut).await?;
        }
        Ok(changed)
    }

    /// What is left out on both sides: by the project's `.dockerignore`, and git's own files. A `.git` that only grows on one side
    /// is changed by every command there, and holds all that ever was in the project.
    fn patterns(&self) -> Result<Vec<Vec<u8>>> {
        let mut patterns = self.local.patterns()?;
        if !self.with_git {
            // The last pattern that fits decides: none takes it in again.
            patterns.push(b"**/.git".to_vec());
        }
        Ok(patterns)
    }

    /// [`Session::patterns`], when they rest. Others than the last time count only once they stay: an editor or git that
    /// writes the file anew has it empty, or away, for a moment, and in this moment nothing that it names may leave.
    async fn read_rules(&self) -> Result<Vec<Vec<u8>>> {
        // Away and empty say the same, and are not.
        let read = || Ok::<_, Error>((self.local.look(b".dockerignore").ok(), self.patterns()?));
        let mut last = read()?;
        for _ in 0..SETTLING {
            if self.rules.as_ref().is_none_or(|rules| *rules == last.1) {
                return Ok(last.1);
            }
            tokio::time::sleep(SETTLED).await;
            let now = read()?;
            if now == last {
                return Ok(now.1);
            }
            last = now;
        }
        Err(
            Error::failed("the project's .dockerignore changes all the time, and nothing is sent meanwhile")
                .hint("find out what writes it; the sync goes on when it stays as it is"),
        )
    }

    /// The directories there that can't be looked into: what is in them is neither here nor gone. Whatever else there is
    /// to complain about in a listing, files may be missing from it that are there.
    async fn find_unseen(&mut self, complaints: &str, cut: bool) -> Result<()> {
        let (workspace, id) = self.in_workspace();
        let take = Box::new(|from: &mut dyn Read| {
            let mut text = Vec::new();
            from.take(LONGEST_UNSEEN)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            Ok(text)
        });
        let reply = call(
            &self.shell,
            script::UNSEEN,
            &nonce()?,
            &[&workspace, &id],
            feed_nothing(),
            take,
        )
        .await?;
        let ((), text) = reply.ok("name the directories that can't be read")?;
        let paths = text
            .split(|byte| *byte == 0)
            .filter_map(|path| path.strip_prefix(b"./"));
        self.far.unseen = paths.filter(|path| is_acceptable(path)).map(<[u8]>::to_vec).collect();
        match listing::unexplained(complaints, &self.far.unseen) {
            None if !cut => Ok(()),
            line => Err(Error::failed(format!("{workspace} on the dock can't be listed"))
                .because(crate::output::visible(
                    line.unwrap_or("it has more to complain about than is read"),
                ))
                .hint("look at it there: what is not listed would count as removed")),
        }
    }

    /// Syncs, from a fresh look on.
    ///
    /// # Errors
    /// A dock that can't be reached, and whatever stops all of it. What concerns single paths is in the report.
    pub async fn sync(&mut self, request: &SyncRequest<'_>, dry: bool) -> Result<Report> {
        self.is_sending_said = false;
        self.sync_from(1, request, dry).await
    }

    /// The same, where so many tries less one were made already.
    async fn sync_from(&mut self, first: usize, request: &SyncRequest<'_>, dry: bool) -> Result<Report> {
        let mut report = Report::default();
        for attempt in first.. {
            self.look(!dry && request.direction != Direction::Down).await?;
            if !self.far.exists && request.direction == Direction::Down {
                return Err(Error::failed(format!(
                    "there is no workspace {} on dock {:?}",
                    self.far.workspace, self.target.moniker
                ))
                .hint("sync-up makes it"));
            }
            if attempt == 1 {
                self.find_named(request.only)?;
            }
            match self.round(request, dry, &mut report).await? {
                Round::Again if attempt < TRIES => report.troubles.clear(),
                Round::Again => {
                    if report.troubles.is_empty() {
                        let all = (b".".to_vec(), "files of the workspace change all the time".to_owned());
                        report.troubles.push(all);
                    }
                    break;
                }
                Round::Done => break,
            }
        }
        Ok(report)
    }

    /// That each path that was named is, or was, on either side.
    fn find_named(&self, only: &[Vec<u8>]) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        for path in only {
            let is_it = |other: &Vec<u8>| is_at_or_below(other, path);
            let here = self.local.root().join(std::ffi::OsStr::from_bytes(path));
            let is_known = here.symlink_metadata().is_ok()
                || self.far.listing.tree.keys().any(is_it)
                || self.manifest.records.keys().any(is_it)
                || self.far.unseen.iter().any(|unseen| is_at_or_below(path, unseen));
            if !is_known {
                return Err(Error::usage(format!(
                    "there is no {} on either side: neither here nor in {}",
                    shown(path),
                    self.far.workspace
                ))
                .hint("a path is seen from the folder that you are in; without one, all that changed travels"));
            }
        }
        Ok(())
    }

    /// Sends what changed here, as long as the dock is as it was last looked at; else syncs both ways: what changed there
    /// would not be looked for again.
    ///
    /// # Errors
    /// As [`Session::sync`].
    pub async fn push(&mut self, request: &SyncRequest<'_>) -> Result<Report> {
        let mut report = Report::default();
        self.is_sending_said = false;
        match self.round(request, false, &mut report).await? {
            Round::Done => Ok(report),
            Round::Again => {
                let both = SyncRequest {
                    direction: Direction::Both,
                    ..*request
                };
                self.sync_from(2, &both, false).await
            }
        }
    }

    /// Looks at the dock, and syncs both ways where something changed there; `None` where nothing did. With `again`, also where
    /// something did earlier that has not come yet.
    ///
    /// # Errors
    /// As [`Session::sync`].
    pub async fn poll(&mut self, again: bool) -> Result<Option<Report>> {
        // What is done every other second has no row on the screen.
        let changed = self.look_counted(false, Counter::new(None, "", "", 0)).await?;
        let is_due = changed || (self.owes && again);
        if !is_due {
            return Ok(None);
        }
        let request = SyncRequest::everything(Direction::Both, self.brake);
        let mut report = Report::default();
        self.is_sending_said = false;
        match self.round(&request, false, &mut report).await? {
            Round::Done => Ok(Some(report)),
            Round::Again => self.sync_from(2, &request, false).await.map(Some),
        }
    }

    async fn round(&mut self, request: &SyncRequest<'_>, dry: bool, report: &mut Report) -> Result<Round> {
        report.workspace = self.far.workspace.clone();
        self.judge_memory()?;
        self.manifest.header.workspace.clone_from(&self.far.workspace);
        // Both sides are listed by the same rules, or what one of them leaves out looks like removed.
        let rules = self.rules.clone().unwrap_or_default();
        if self.patterns()? != rules {
            return Ok(Round::Again);
        }
        let here = self.list(rules).await?;
        let directories = here.tree.iter().filter(|(_, item)| item.kind == ItemKind::Directory);
        self.directories = directories.map(|(path, _)| path.clone()).collect();
        report.others.clone_from(&here.others);
        self.report_root_files(report);
        // The listing may be large: it is not copied.
        let mut there = std::mem::take(&mut self.far.listing.tree);
        let outcome = self.round_of(&here, &mut there, request, dry, report).await;
        self.far.listing.tree = there;
        if !dry {
            let is_whole = request.direction == Direction::Both && request.only.is_empty();
            match outcome {
                Ok(Round::Done) if report.troubles.is_empty() => self.owes &= !is_whole,
                _ => self.owes = true,
            }
        }
        outcome
    }

    /// What is remembered counts only for the workspace, the project's folder and the machine that it was written down of,
    /// and for the state in which the last sync left the workspace. Where any of them is another, contents are compared,
    /// and nothing is taken for removed.
    fn judge_memory(&mut self) -> Result<()> {
        let (_, id) = self.in_workspace();
        let root = self
            .local
            .identity()
            .map_err(|cause| Error::failed("the project's folder can't be read").because(cause))?;
        let header = &self.manifest.header;
        let (is_workspace, is_machine, is_root) = (
            header.workspace_id == id && !id.is_empty(),
            header.machine == self.target.machine,
            header.root.is(&root),
        );
        let generation = &self.far.generation;
        let is_ours = is_workspace && is_machine && is_root;
        if is_ours && header.generation == *generation {
            return Ok(());
        }
        if is_ours && self.memory.expected(&self.manifest).contains(generation) {
            // The last sync broke off after the dock had heard of it.
            self.manifest.header.generation.clone_from(generation);
            return match self.memory.is_ours() {
                true => self.memory.remember(&self.manifest),
                false => Ok(()),
            };
        }
        if !self.manifest.records.is_empty() && is_workspace {
            let why = match (is_machine, is_root) {
                (false, _) => "what is remembered of the last sync is another machine's".to_owned(),
                (_, false) => format!("{} is not the folder that was last synced", self.local.root().display()),
                _ => format!(
                    "the workspace on dock {:?} is not as the last sync left it: a snapshot or a backup took its place",
                    self.target.moniker
                ),
            };
            (self.notice)(&format!(
                "{why}; files are compared by their contents, and nothing is removed"
            ));
        }
        let mut header = Header::new(&id, &self.far.workspace);
        header.generation.clone_from(generation);
        header.machine.clone_from(&self.target.machine);
        header.root = root;
        header.beside = std::mem::take(&mut self.manifest.header.beside);
        self.manifest = Manifest {
            header,
            records: Records::new(),
        };
        Ok(())
    }

    async fn round_of(
        &mut self,
        here: &Listed,
        there: &mut Tree,
        request: &SyncRequest<'_>,
        dry: bool,
        report: &mut Report,
    ) -> Result<Round> {
        let root = self.local.root();
        let mut guard = Guard::new(root, &here.tree, obeyed::all(root, &here.tree, &here.left_out));
        let links = plan::links(&self.manifest.records, &here.tree, there);
        if !links.is_empty() {
            self.read_links(&links, there).await?;
            let mut selector = selector(self.rules.as_deref().unwrap_or_default())?;
            guard
                .judge_links(self.local.root(), &links, &here.tree, there, &mut selector)
                .map_err(wrong_rules)?;
        }
        let sides = Sides {
            base: &self.manifest.records,
            here: &here.tree,
            there,
            folds: (self.local.folds(&here.tree), self.far.folds),
            unseen: &self.far.unseen,
            generated: self.generated.as_ref().map(|generated| generated.path.as_slice()),
            unmade: self.unmade.as_deref(),
            guard: &guard,
        };
        let contents = self.ask(&sides, request).await?;
        let steps = plan::plan(&sides, &contents, request);
        count(&steps, &here.tree, there, report);
        if dry {
            let planned = steps.iter().filter(|(_, action)| is_done(**action));
            report
                .done
                .extend(planned.map(|(path, action)| (path.clone(), *action)));
            return Ok(Round::Done);
        }
        let former = steps.iter().find(|(path, action)| {
            **action == Action::Forget
                && !self.with_git
                && path.split(|byte| *byte == b'/').next_back() == Some(b".git")
        });
        if let Some((path, _)) = former {
            // What is forgotten is said once.
            (self.notice)(&format!(
                "{} is in the workspace since an earlier sync: it stays there, and is no longer kept in step. --with-git goes on with it",
                shown(path)
            ));
        }
        (self.touched, self.agreed, self.next) = (false, false, None);
        let settling = Settling {
            here_ns: here.begun_ns,
            here: here.clocks.clone(),
            there_ns: self.far.clock_ns,
            there: self.far.listing.clocks.clone(),
        };
        self.write_down(&steps, &here.tree, there, &contents, &settling);
        let planned = Planned {
            steps: &steps,
            request,
            here: &here.tree,
            contents: &contents,
            settling: &settling,
        };
        let sent = self.send(&planned, there, report).await;
        let received = match &sent {
            Ok(Round::Done) => self.receive(&steps, request, here, there, report).await,
            _ => Ok(()),
        };
        let remembered = self.remember().await;
        received?;
        remembered?;
        sent
    }

    /// How this round calls the state that it leaves on both sides. Before the dock hears of it, it is written down here:
    /// whatever then breaks off, the next sync knows it for ours.
    fn next_generation(&mut self) -> Result<String> {
        if let Some(next) = &self.next {
            return Ok(next.clone());
        }
        let next = nonce()?;
        self.memory.expect(&self.manifest, &next)?;
        self.next = Some(next.clone());
        Ok(next)
    }

    /// The dock has written down that its files are as this round leaves them.
    fn is_told(&self) -> bool {
        self.next.as_ref() == Some(&self.far.generation)
    }

    /// Writes down what both sides agree on now, where that is not so already; and on the dock, that it has been.
    async fn remember(&mut self) -> Result<()> {
        if self.agreed && !self.is_told() {
            let next = self.next_generation()?;
            let (workspace, id) = self.in_workspace();
            let arguments = [workspace.as_str(), &id, &next];
            let take: remote::Take<String> = Box::new(read_line);
            let reply = call(&self.shell, script::MARK, &nonce()?, &arguments, feed_nothing(), take).await?;
            self.take_generation(&reply.ok("write down that it is in step")?.1);
        }
        if self.touched {
            self.manifest.header.generation.clone_from(&self.far.generation);
            self.memory.remember(&self.manifest)?;
        }
        Ok(())
    }

    /// What a script says of the state's name. A dock whose disk is full keeps the last one.
    fn take_generation(&mut self, line: &str) {
        if let Some(next) = self
            .next
            .as_ref()
            .filter(|next| line.trim() == format!("generation {next}"))
        {
            self.far.generation.clone_from(next);
        }
    }

    async fn list(&self, rules: Vec<Vec<u8>>) -> Result<Listed> {
        let local = self.local.clone();
        let beside: BTreeSet<Vec<u8>> = self.manifest.header.beside.keys().filter_map(unhex).collect();
        let counter = self.counter("looking at", "here", 0);
        blocking(move || local.list(&rules, &beside, &|| counter.add(1)).map_err(local_error)).await
    }

    /// Looks at the contents that decide.
    async fn ask(&self, sides: &Sides<'_>, request: &SyncRequest<'_>) -> Result<Contents> {
        let (ask_here, ask_there) = sides.questions(request);
        let local = self.local.clone();
        let counter = self.counter("comparing", &self.with_dock(), 0);
        let counting = counter.clone();
        let (here, there) = tokio::join!(
            blocking(move || Ok(local.contents_counted(&ask_here, &|| counting.add(1)))),
            self.contents_there(ask_there, sides.there, &counter)
        );
        let mut contents = Contents {
            here: here?,
            there: there?,
        };
        if let Some(Generated { path, text }) = &self.generated
            && sides.here.contains_key(path)
        {
            contents.here.insert(path.clone(), Content::of(text));
        }
        Ok(contents)
    }

    async fn contents_there(
        &self,
        paths: Vec<Vec<u8>>,
        tree: &Tree,
        counter: &Counter,
    ) -> Result<HashMap<Vec<u8>, Content>> {
        let is_plain = |path: &Vec<u8>| {
            tree.get(path).is_some_and(|item| item.kind == ItemKind::File)
                && !path.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'\\'))
        };
        let (plain, odd): (Vec<_>, Vec<_>) = paths.into_iter().partition(is_plain);
        let (plain, odd) = tokio::join!(self.sums(plain, counter.clone()), self.odd_sums(odd));
        let mut all = plain?;
        all.extend(odd?);
        Ok(all)
    }

    /// The first arguments of a script that is run in the workspace: where it is, and its mark; an empty one where it has none.
    fn in_workspace(&self) -> (String, String) {
        let id = self.far.owner.as_ref().map(|owner| owner.id.clone());
        (self.far.workspace.clone(), id.unwrap_or_default())
    }

    async fn sums(&self, paths: Vec<Vec<u8>>, counter: Counter) -> Result<HashMap<Vec<u8>, Content>> {
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let limit = paths.iter().map(|path| path.len() as u64 + 80).sum::<u64>();
        let take = Box::new(move |from: &mut dyn Read| {
            let mut text = Vec::new();
            CountingLines(from.take(limit), &counter)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            let lines = text.split(|byte| *byte == b'\n').filter_map(|line| {
                let (sum, name) = line.split_at_checked(64)?;
                let name = name.strip_prefix(b"  ./").or_else(|| name.strip_prefix(b" *./"))?;
                Some((name.to_vec(), Content::from_hex(sum)?))
            });
            Ok(lines.collect())
        });
        let feed = feed_paths(&paths);
        let reply = call(&self.shell, script::SUMS, &nonce()?, &[&workspace, &id], feed, take).await?;
        reply.ok("read its files").map(|((), sums)| sums)
    }

    async fn odd_sums(&self, paths: Vec<Vec<u8>>) -> Result<HashMap<Vec<u8>, Content>> {
        let limit = paths.len() as u64 * (super::LONGEST_PATH as u64 + 80);
        let content = |answer: &[u8]| match answer {
            [b'l', target @ ..] => Some(Content::of(target)),
            [b'f', sum @ ..] => Content::from_hex(sum),
            _ => None,
        };
        self.odd_answers(paths, limit, content).await
    }

    /// Reads the texts of links there whose text is not known yet. What the dock does not say stays unknown.
    async fn read_links(&self, links: &[Vec<u8>], there: &mut Tree) -> Result<()> {
        let unknown = |path: &&Vec<u8>| there.get(*path).is_some_and(|item| item.target.is_none());
        let paths: Vec<Vec<u8>> = links.iter().filter(unknown).cloned().collect();
        let text = |answer: &[u8]| answer.strip_prefix(b"l").map(<[u8]>::to_vec);
        for (path, target) in self.odd_answers(paths, LONGEST_LINKS, text).await? {
            if let Some(item) = there.get_mut(&path) {
                item.target = Some(target);
            }
        }
        Ok(())
    }

    async fn odd_answers<T: Send + 'static>(
        &self,
        paths: Vec<Vec<u8>>,
        limit: u64,
        meaning: impl Fn(&[u8]) -> Option<T> + Send + 'static,
    ) -> Result<HashMap<Vec<u8>, T>> {
        if paths.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let feed = feed_paths(&paths);
        let take = Box::new(move |from: &mut dyn Read| {
            let mut text = Vec::new();
            from.take(limit)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            // Behind the last NUL there is nothing, or an answer that was cut.
            let end = text.iter().rposition(|byte| *byte == 0).unwrap_or(0);
            let answers = text.get(..end).unwrap_or_default().split(|byte| *byte == 0);
            let answers = paths.iter().zip(answers);
            Ok(answers
                .filter_map(|(path, answer)| Some((path.clone(), meaning(answer)?)))
                .collect())
        });
        let reply = call(&self.shell, script::ODD_SUMS, &nonce()?, &[&workspace, &id], feed, take).await?;
        reply.ok("read its files").map(|((), answers)| answers)
    }

    /// Writes down what both sides agree on without anything travelling.
    fn write_down(&mut self, steps: &Steps, here: &Tree, there: &Tree, contents: &Contents, settling: &Settling) {
        for (path, action) in steps {
            match action {
                Action::Forget => {
                    self.forget(path);
                }
                Action::Agree => {
                    if let (Some(here), Some(there)) = (here.get(path), there.get(path))
                        && let Some(content) = self.content(path, here.kind, contents)
                    {
                        self.agree(path, here.kind, content, settling.here(here), settling.there(there));
                    }
                }
                _ => {}
            }
        }
    }

    /// Writes down that both sides have these contents.
    fn agree(&mut self, path: &[u8], kind: ItemKind, content: Content, here: RecordedSide, there: RecordedSide) {
        let record = Record {
            kind,
            content,
            here,
            there,
        };
        let same = |before: &Record| {
            (before.kind, before.content) == (kind, content)
                && (before.here.mode, before.there.mode) == (here.mode, there.mode)
        };
        let before = self.manifest.records.insert(path.to_vec(), record);
        self.touched |= before.as_ref() != self.manifest.records.get(path);
        self.agreed |= !before.as_ref().is_some_and(same);
    }

    /// Writes down that a path is gone on both sides.
    fn forget(&mut self, path: &[u8]) {
        let known = self.manifest.records.remove(path).is_some();
        self.touched |= known;
        self.agreed |= known;
    }

    fn content(&self, path: &[u8], kind: ItemKind, contents: &Contents) -> Option<Content> {
        if kind == ItemKind::Directory {
            return Some(Content::of(b""));
        }
        let known = contents.here.get(path).or_else(|| contents.there.get(path)).copied();
        known.or_else(|| self.manifest.records.get(path).map(|record| record.content))
    }

    /// This machine's rsync, where the dock has one, too.
    fn rsync(&self) -> Option<&Rsync> {
        self.rsync.as_ref().filter(|_| self.far.rsync)
    }

    /// Has rsync make the large files on the dock that are about to be sent. Gives the directory of ours in which it did,
    /// and what is there; what is not travels as all else does.
    async fn make_there(
        &self,
        steps: &Steps,
        here: &Tree,
        there: &Tree,
        settling: &Settling,
    ) -> Result<(String, Made)> {
        let directory = format!("made.{}", nonce()?);
        let Some(rsync) = self.rsync() else {
            return Ok((directory, Made::new()));
        };
        let generated = self.generated.as_ref().map(|generated| &generated.path);
        let sent = steps.iter().filter(|(_, action)| matches!(action, Action::Send(_)));
        let worth = sent
            .map(|(path, _)| path)
            .filter(|path| {
                here.get(*path)
                    .is_some_and(|item| rsync.is_worth(item, there.get(*path)))
            })
            .filter(|path| generated != Some(path));
        // What is read here twice, by rsync and for its digest, must be the same: a change meanwhile would show.
        let is_still = |path: &Vec<u8>| {
            let looked_at = now_ns();
            let item = self.local.look(path).ok()??;
            settling
                .here
                .is_settled(&item, looked_at)
                .then_some((path.clone(), item))
        };
        let before: Vec<(Vec<u8>, Item)> = worth.filter_map(is_still).collect();
        if before.is_empty() || !self.is_trusted(rsync).await {
            return Ok((directory, Made::new()));
        }
        self.notice_large("sending", before.len());
        let paths: Vec<Vec<u8>> = before.iter().map(|(path, _)| path.clone()).collect();
        let names: Vec<&[u8]> = before.iter().map(|(path, _)| path.as_slice()).collect();
        let local = self.local.clone();
        let bytes = before.iter().map(|(_, item)| item.stamp.size);
        let bars = self.bars("sending by rsync", before.len(), bytes.fold(0, u64::saturating_add));
        let (made, contents) = tokio::join!(
            rsync.make(
                RsyncDirection::Up(&directory),
                self.local.root(),
                &self.far.workspace,
                &names,
                &bars
            ),
            blocking(move || Ok(local.contents(&paths)))
        );
        let contents = contents?;
        if let Err(cause) = made {
            self.notice_failed(&cause);
            return Ok((directory, Made::new()));
        }
        let same = |path: &[u8], item: &Item| matches!(self.local.look(path), Ok(Some(now)) if now.stamp == item.stamp);
        let looked_at_ns = now_ns();
        let made = before.into_iter().filter(|(path, item)| same(path, item));
        let made = made.filter_map(|(path, item)| {
            let content = *contents.get(&path)?;
            let read = AsRead {
                content,
                item,
                looked_at_ns: Some(looked_at_ns),
            };
            Some((path, read))
        });
        Ok((directory, made.collect()))
    }

    /// Whether this machine's rsync is one that talks to a dock's; where it is not, it is said.
    async fn is_trusted(&self, rsync: &Rsync) -> bool {
        let why = rsync.distrust().await;
        if let Some(why) = &why
            && !self.is_distrust_told.swap(true, Ordering::Relaxed)
        {
            (self.notice)(&format!("{why}: large files travel whole"));
        }
        why.is_none()
    }

    fn notice_large(&self, doing: &str, count: usize) {
        (self.notice)(&match count {
            1 => format!("{doing} what changed in a large file, by rsync"),
            count => format!("{doing} what changed in {count} large files, by rsync"),
        });
    }

    fn notice_failed(&self, cause: &io::Error) {
        (self.notice)(&format!("rsync failed, and all of it travels: {cause}"));
    }

    /// Says, once for a project and a dock, that most of what is sent is what git ignores, and how it stays here.
    async fn notice_ignored_by_git(&self, steps: &Steps, here: &Tree) -> Result<()> {
        const TOLD: &str = "told-ignored-by-git";
        if self.memory.is_noted(TOLD) {
            return Ok(());
        }
        let root = self.local.root().to_owned();
        let ignored = blocking(move || Ok(version::ignored_by_git(&root))).await?;
        let sent = steps.iter().filter(|(_, action)| matches!(action, Action::Send(_)));
        let sent = sent.filter_map(|(path, _)| here.get(path).map(|item| (path, item)));
        let (mut all, mut bytes, mut files) = (0_u64, 0_u64, 0_usize);
        let mut tops: BTreeMap<&[u8], u64> = BTreeMap::new();
        for (path, item) in sent.filter(|(_, item)| item.kind == ItemKind::File) {
            all = all.saturating_add(item.stamp.size);
            let top = std::iter::once(path.as_slice()).chain(ancestors(path));
            if let Some(top) = top.filter_map(|above| ignored.get(above)).next() {
                bytes = bytes.saturating_add(item.stamp.size);
                files += 1;
                *tops.entry(top).or_default() += item.stamp.size;
            }
        }
        if bytes <= all / 2 {
            return Ok(());
        }
        self.memory.note(TOLD)?;
        let mut tops: Vec<(&[u8], u64)> = tops.into_iter().collect();
        tops.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let lines: Vec<String> = tops
            .iter()
            .take(NAMED)
            .map(|(path, _)| crate::shell::quote(&String::from_utf8_lossy(path)).into_owned())
            .collect();
        (self.notice)(&format!(
            "{} of this ({files} {}) are what .gitignore names. What no container needs stays here by .dockerignore: printf '%s\\n' {} >> .dockerignore",
            crate::output::size(bytes),
            if files == 1 { "file" } else { "files" },
            lines.join(" "),
        ));
        Ok(())
    }

    async fn send(&mut self, planned: &Planned<'_>, there: &mut Tree, report: &mut Report) -> Result<Round> {
        let Planned {
            steps,
            request,
            here,
            contents,
            settling,
        } = *planned;
        let (directory, made) = self.make_there(steps, here, there, settling).await?;
        let batch = Arc::new(UploadBatch::pack(steps, here, there, self.far.listing.precise, made));
        if batch.is_empty() {
            return Ok(Round::Done);
        }
        let (what, size) = (amount(batch.files, batch.folders), crate::output::size(batch.bytes));
        if std::mem::replace(&mut self.is_sending_said, true) {
            // The report counts it with the rest.
            if batch.files + batch.folders > 0 {
                (self.notice)(&format!("sending {what} more, {size}, which came or changed meanwhile"));
            }
        } else if batch.files > NOTED_FILES || batch.bytes > NOTED_BYTES {
            self.notice_ignored_by_git(steps, here).await?;
            (self.notice)(&format!("sending {what}, {size}"));
        } else {
            self.is_sending_said = false;
        }
        let limit = records_limit(steps.keys());
        let (workspace, id) = self.in_workspace();
        let gzip = self.goes_packed(&batch).await?;
        // What goes into the trash there.
        let takes = |action: &Action| matches!(action, Action::Send(_) | Action::RemoveThere);
        let taken = steps.iter().filter(|(_, action)| takes(action));
        let taken = taken
            .filter_map(|(path, _)| there.get(path))
            .map(|item| item.stamp.size);
        let taken = taken.fold(0, u64::saturating_add);
        let next = self.next_generation()?;
        let precise = self.far.listing.precise;
        let arguments = [
            workspace.as_str(),
            &id,
            listing::expectation_format(precise),
            listing::FORMAT,
            if gzip { "gzip" } else { "plain" },
            &directory,
            &next,
            &taken.div_ceil(1024).to_string(),
            &(trash::KEPT_BYTES / 1024).to_string(),
            &trash::KEPT_SECONDS.to_string(),
            if request.brake.is_none() { "delete" } else { "" },
        ];
        let (sending, local, generated) = (Arc::clone(&batch), self.local.clone(), self.generated.clone());
        let bars = self.bars("sending", batch.files, batch.bytes);
        let moved = bars.clone();
        let feed: remote::Feed<Sent> = Box::new(move |to| {
            let mut to = io::BufWriter::with_capacity(256 * 1024, to);
            let sent = sending.write(&mut to, &local, generated.as_ref(), gzip, &moved)?;
            io::Write::flush(&mut to).map_err(|cause| broken(&cause))?;
            moved.retitle("the dock puts it in place");
            Ok(sent)
        });
        let reply = call(
            &self.shell,
            script::APPLY,
            &nonce()?,
            &arguments,
            feed,
            Box::new(move |from| read_applied(from, limit)),
        )
        .await?;
        bars.finish();
        if reply.exit == Exit::Code(script::CHANGED_MEANWHILE) {
            return Ok(Round::Again);
        }
        let complaints = reply.complaints.clone();
        let (sent, mut applied) = reply.ok("take the files")?;
        self.notice_growing(&sent.growing);
        self.take_generation(&applied.generation);
        for item in applied.tree.values_mut() {
            item.device = listing::below_root(item.device, self.far.listing.device);
        }
        let stuck = batch.paths_of(&applied.stuck);
        let changed = batch.paths_of(&applied.changed);
        let full = batch.paths_of(&applied.full);
        report
            .troubles
            .extend(full.iter().map(|path| (path.clone(), FULL_THERE.to_owned())));
        let at = Settling {
            there_ns: applied.clock_ns,
            ..settling.clone()
        };
        let line = complaints
            .lines()
            .find(|line| line.contains("denied") || line.contains("cannot") || line.contains("can't"));
        let refusal = crate::output::visible(line.unwrap_or("the dock did not put it in place"));
        for (path, action) in steps
            .iter()
            .filter(|(path, _)| !changed.contains(*path) && !full.contains(*path))
        {
            let result = applied.tree.get(path);
            let base = self.manifest.records.get(path).cloned();
            match action {
                Action::Send(mode) => {
                    let Some(AsRead {
                        content,
                        item,
                        looked_at_ns,
                    }) = sent.files.get(path)
                    else {
                        continue;
                    };
                    let arrived = result.filter(|result| {
                        result.kind == item.kind
                            && result.stamp.size == self.size_of(path, item)
                            && (item.kind != ItemKind::File || result.stamp.mtime == item.stamp.mtime.max(0))
                            && !stuck.contains(path)
                    });
                    let Some(result) = arrived else {
                        report
                            .troubles
                            .push((path.clone(), refused(path, there, self.far.uid, &refusal)));
                        continue;
                    };
                    let mut side = at.there(result);
                    if *mode != item.mode
                        && let Some(base) = &base
                    {
                        // The dock's own change of the mode is still to come here.
                        side.mode = base.there.mode;
                    }
                    let own = RecordedSide::of(
                        item,
                        settling.here.is_settled(item, looked_at_ns.unwrap_or(settling.here_ns)),
                    );
                    self.agree(path, item.kind, *content, own, side);
                    there.retain_below(path, result.kind);
                    there.insert(path.clone(), result.clone());
                    report.bytes.0 += item.stamp.size;
                    report.done.insert(path.clone(), *action);
                }
                Action::RemoveThere => match result {
                    None => {
                        self.forget(path);
                        there.remove(path);
                        report.done.insert(path.clone(), *action);
                    }
                    // It holds something that is ignored.
                    Some(result) if result.kind == ItemKind::Directory => {}
                    Some(_) => {
                        let why = refused(path, there, self.far.uid, &refusal);
                        report.troubles.push((path.clone(), why));
                    }
                },
                Action::ModeThere(mode) => {
                    let Some(result) = result else { continue };
                    let Some(item) = here.get(path) else { continue };
                    let Some(content) = self.content(path, item.kind, contents) else {
                        continue;
                    };
                    if result.mode != *mode && complaints.contains("not permitted") {
                        report.troubles.push((
                            path.clone(),
                            "its mode can't be changed there: it is another user's".to_owned(),
                        ));
                        continue;
                    }
                    self.agree(path, item.kind, content, settling.here(item), at.there(result));
                    there.insert(path.clone(), result.clone());
                    report.done.insert(path.clone(), *action);
                }
                _ => {}
            }
        }
        let is_done = sent.skipped.is_empty() && changed.is_empty();
        report.troubles.extend(sent.skipped);
        Ok(if is_done { Round::Done } else { Round::Again })
    }

    /// Shows what is counted, until it is dropped, if it takes longer.
    fn counter(&self, doing: &str, place: &str, expected: usize) -> Counter {
        Counter::new(self.printer.as_ref(), doing, place, expected)
    }

    fn at_dock(&self) -> String {
        format!("on {}", self.target.moniker)
    }

    fn with_dock(&self) -> String {
        format!("with {}", self.target.moniker)
    }

    /// Shows what moves, until it is dropped.
    fn bars(&self, title: &str, files: usize, bytes: u64) -> Bars {
        Bars::files(self.printer.as_ref(), title, files, bytes)
    }

    /// What grows all the time is sent as it was, and said once.
    fn notice_growing(&mut self, growing: &[Vec<u8>]) {
        for path in growing {
            if self.growing.insert(path.clone()) {
                (self.notice)(&format!(
                    "{} grows: what it had when it was read is sent, and the rest with the next sync",
                    shown(path)
                ));
            }
        }
    }

    /// The size of what was sent: that of the version file is not the one that lies here.
    fn size_of(&self, path: &[u8], item: &Item) -> u64 {
        match &self.generated {
            Some(generated) if generated.path == path => generated.text.len() as u64,
            _ => item.stamp.size,
        }
    }

    async fn receive(
        &mut self,
        steps: &Steps,
        request: &SyncRequest<'_>,
        listed: &Listed,
        there: &Tree,
        report: &mut Report,
    ) -> Result<()> {
        let here = &listed.tree;
        let beside = self.plan_beside(steps, request, there);
        let brings = steps
            .iter()
            .filter(|(_, action)| matches!(action, Action::Bring(_)))
            .map(|(path, _)| path);
        let fetched = brings.chain(beside.keys());
        let wanted: HashMap<Vec<u8>, Item> = fetched
            .filter_map(|path| {
                Some((
                    path.clone(),
                    there.get(path).filter(|item| item.kind != ItemKind::Directory)?.clone(),
                ))
            })
            .collect();
        let wanted = Arc::new(wanted);
        let changes = steps
            .values()
            .any(|action| matches!(action, Action::Bring(_) | Action::RemoveHere | Action::ModeHere(_)));
        let mut conflicts = self.conflicts(steps, there);
        if !changes && wanted.is_empty() {
            report.conflicts = conflicts;
            return Ok(());
        }
        let local = self.local.clone();
        let stage = blocking(move || {
            local
                .stage()
                .map_err(|cause| Error::failed("what comes from the dock can't be put into the project").because(cause))
        })
        .await?;
        let stage = Arc::new(stage);
        self.check_room(DiskUsage::needed(&wanted, steps, here, there))?;
        let mut arrived = HashMap::new();
        if !wanted.is_empty() {
            let brings = steps.iter().filter(|(_, action)| matches!(action, Action::Bring(_)));
            let is_directory = |path: &Vec<u8>| there.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
            let folders = brings.filter(|(path, _)| is_directory(path)).count();
            arrived = self.fetch(&wanted, folders, here, &stage).await?;
            // What is about to be put in place is on the disk before its name is.
            self.settle().await?;
        }
        let counter = self.counter("putting in place", "here", 0);
        let kept = self.keep(steps, request, here, there, &arrived).await?;
        for (path, error) in &kept.refused {
            report.troubles.push((path.clone(), error.to_string()));
        }
        let stays = |path: &Vec<u8>| kept.refused.contains_key(path);
        for (path, action) in steps.iter().rev().filter(|(path, _)| !stays(path)) {
            if *action == Action::RemoveHere {
                counter.add(1);
                let Some(item) = kept.items.get(path).or_else(|| here.get(path)) else {
                    continue;
                };
                match self.local.remove(path, item) {
                    Ok(true) => {
                        self.forget(path);
                        report.done.insert(path.clone(), *action);
                    }
                    Ok(false) => {}
                    Err(error) => report.troubles.push((path.clone(), error.to_string())),
                }
            }
        }
        let brought = Brought {
            there,
            arrived: &arrived,
            stage: &stage,
            clocks: &listed.clocks,
        };
        for (path, action) in steps.iter().filter(|(path, _)| !stays(path)) {
            let before = kept.items.get(path).or_else(|| here.get(path));
            let result = match action {
                Action::Bring(mode) => self.bring(path, *mode, before, &brought),
                Action::ModeHere(mode) => self.change_mode_here(path, *mode, there),
                _ => continue,
            };
            counter.add(1);
            match result {
                Ok(bytes) => {
                    report.bytes.1 += bytes;
                    report.done.insert(path.clone(), *action);
                }
                Err(error) => report.troubles.push((path.clone(), error)),
            }
        }
        // Directories that may not be written to, only now that all is in them.
        for (path, action) in steps.iter().rev() {
            if let Action::Bring(mode) = action
                && mode & 0o700 != 0o700
                && there.get(path).is_some_and(|item| item.kind == ItemKind::Directory)
                && let Ok(item) = self.local.set_mode(path, *mode, ItemKind::Directory)
                && let Some(record) = self.manifest.records.get_mut(path)
            {
                record.here.mode = item.mode;
                self.touched = true;
            }
        }
        for conflict in &mut conflicts {
            if let Some(name) = beside.get(&conflict.path) {
                match self.put_beside(&conflict.path, name, there, &arrived, &stage) {
                    Ok(()) => conflict.beside = Some(name.clone()),
                    Err(error) => report.troubles.push((name.clone(), error)),
                }
            }
        }
        report.conflicts = conflicts;
        // Before it is written down that it has arrived.
        self.settle().await
    }

    /// Keeps what these steps remove and replace here. What can't be kept is not removed, unless a person has said that all
    /// is to be; it is replaced all the same, since both sides had it at the last sync, and that is said.
    async fn keep(
        &mut self,
        steps: &Steps,
        request: &SyncRequest<'_>,
        here: &Tree,
        there: &Tree,
        arrived: &HashMap<Vec<u8>, Arrived>,
    ) -> Result<Kept> {
        let Some(mut trash) = self.trash.take() else {
            return Ok(Kept::default());
        };
        let is_directory = |path: &Vec<u8>| there.get(path).is_some_and(|item| item.kind == ItemKind::Directory);
        let wanted = steps.iter().filter_map(|(path, action)| {
            let item = here.get(path)?;
            let reason = match action {
                Action::RemoveHere => Reason::Removed,
                Action::Bring(_) if item.kind == ItemKind::Directory && is_directory(path) => return None,
                Action::Bring(_) if item.kind == ItemKind::Directory => Reason::Removed,
                Action::Bring(_) if is_directory(path) || arrived.contains_key(path) => Reason::Overwritten,
                _ => return None,
            };
            Some((path.clone(), item.clone(), reason))
        });
        let wanted: Vec<(Vec<u8>, Item, Reason)> = wanted.collect();
        let local = self.local.clone();
        let (mut kept, trash, wanted) = blocking(move || {
            trash.begin();
            if !wanted.is_empty() {
                trash.prune();
            }
            let kept = trash.keep_all(&local, wanted.iter().map(|(path, item, reason)| (path, item, *reason)));
            Ok((kept, trash, wanted))
        })
        .await?;
        self.trash = Some(trash);
        let mut unkept = 0;
        for (path, _, reason) in &wanted {
            let goes = *reason == Reason::Overwritten || request.brake.is_none();
            if goes && kept.refused.get(path).is_some_and(TrashError::is_no_room) {
                kept.refused.remove(path);
                unkept += 1;
            }
        }
        if unkept > 0 {
            (self.notice)(&format!(
                "{unkept} of what is removed or replaced here is not kept: there is no room for it"
            ));
        }
        Ok(kept)
    }

    /// Has this machine's disk keep what was put.
    async fn settle(&self) -> Result<()> {
        let local = self.local.clone();
        blocking(move || {
            local
                .settle()
                .map_err(|cause| Error::failed("what came from the dock can't be kept on this disk").because(cause))
        })
        .await
    }

    /// What is listed must fit onto this disk, before any of it comes: its bytes and its names.
    fn check_room(&self, needed: DiskUsage) -> Result<()> {
        let (bytes, files) = self.local.free();
        let (needs, has) = match (bytes, files) {
            (Some(free), _) if free < needed.bytes => (crate::output::size(needed.bytes), crate::output::size(free)),
            (_, Some(free)) if free < needed.files => {
                (format!("{} files and directories", needed.files), free.to_string())
            }
            _ => return Ok(()),
        };
        Err(Error::failed(format!(
            "the dock has {needs} to bring, and {has} are free on the disk of {}",
            self.local.root().display()
        ))
        .hint(
            "make room, bring less (sync-down PATH), or leave it out by a line in .dockerignore; nothing was brought",
        ))
    }

    /// What is fetched is checked twice: it came whole, and it is still there as it was listed. So many directories are made besides.
    async fn fetch(
        &mut self,
        wanted: &Arc<HashMap<Vec<u8>, Item>>,
        folders: usize,
        here: &Tree,
        stage: &Arc<StagingDirectory>,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        let mut arrived = self.make_here(wanted, here, stage).await?;
        let rest = wanted.iter().filter(|(path, _)| !arrived.contains_key(*path));
        let rest: HashMap<Vec<u8>, Item> = rest.map(|(path, item)| (path.clone(), item.clone())).collect();
        let bytes: u64 = rest.values().map(|item| item.stamp.size).fold(0, u64::saturating_add);
        if rest.len() > NOTED_FILES || bytes > NOTED_BYTES {
            (self.notice)(&format!(
                "bringing {}, {}",
                amount(rest.len(), folders),
                crate::output::size(bytes)
            ));
        }
        if !rest.is_empty() {
            let bars = self.bars("bringing", rest.len(), bytes);
            let (packed, plain) = self.divide(&rest).await?;
            let (packed, plain) = tokio::join!(
                self.fetch_part(packed, true, stage, &bars),
                self.fetch_part(plain, false, stage, &bars)
            );
            arrived.extend(packed?);
            arrived.extend(plain?);
        }
        let come: Vec<Vec<u8>> = arrived.keys().cloned().collect();
        if come.is_empty() {
            return Ok(arrived);
        }
        // With what is above them: a directory may have become a link meanwhile, through which the same files are seen.
        let above = come.iter().flat_map(|path| ancestors(path)).map(<[u8]>::to_vec);
        let looked_at: BTreeSet<Vec<u8>> = above.chain(come.iter().cloned()).collect();
        let looked_at: Vec<Vec<u8>> = looked_at.into_iter().collect();
        let (workspace, id) = self.in_workspace();
        let limit = records_limit(looked_at.iter());
        let take: remote::Take<(String, Tree)> =
            Box::new(move |from| Ok((read_line(from)?, read_records(from, limit)?)));
        let next = self.next_generation()?;
        let arguments = [workspace.as_str(), &id, listing::FORMAT, &next];
        let reply = call(
            &self.shell,
            script::STAT,
            &nonce()?,
            &arguments,
            feed_paths(&looked_at),
            take,
        )
        .await?;
        let ((), (generation, now)) = reply.ok("show its files again")?;
        self.take_generation(&generation);
        arrived.retain(|path, arrived| {
            // Of a link, the text that was looked at is the one that comes.
            let is_text = |then: &Item| {
                then.kind != ItemKind::Symlink || then.target.as_deref().map(Content::of) == Some(arrived.content)
            };
            let same = |now: &Item| {
                wanted
                    .get(path)
                    .is_some_and(|then| then.stamp == now.stamp && then.kind == now.kind && is_text(then))
            };
            now.get(path).is_some_and(same)
        });
        Ok(arrived)
    }

    /// Whether what goes to the dock is packed on the way.
    async fn goes_packed(&self, batch: &UploadBatch) -> Result<bool> {
        let files = batch.files(self.generated.as_ref());
        let (true, Some(survey)) = (self.far.gzip, Survey::of(&files)) else {
            return Ok(self.far.gzip);
        };
        let local = self.local.clone();
        let sampled = tokio::task::spawn_blocking(move || {
            let samples = survey.read(&local)?;
            Some(survey.gets_smaller(&files, samples))
        });
        // What can't be read here now is said when it is sent.
        if let Ok(Some(false)) = sampled.await {
            return Ok(false);
        }
        let (workspace, id) = self.in_workspace();
        let (feed, take) = samples::probe(batch.bytes, Instant::now());
        let reply = call(&self.shell, script::PROBE, &nonce()?, &[&workspace, &id], feed, take).await?;
        let is_fast = reply
            .ok("be asked how fast the link is")
            .is_ok_and(|((), is_fast)| is_fast);
        Ok(!is_fast)
    }

    /// What comes packed, and what as it is: much is asked for samples first.
    async fn divide(
        &self,
        wanted: &HashMap<Vec<u8>, Item>,
    ) -> Result<(HashMap<Vec<u8>, Item>, HashMap<Vec<u8>, Item>)> {
        let all = || wanted.clone();
        if !self.far.gzip {
            return Ok((HashMap::new(), all()));
        }
        let Some(survey) = Survey::of(wanted) else {
            return Ok((all(), HashMap::new()));
        };
        let (text, lengths, began) = (survey.feed(), survey.lengths(), Instant::now());
        let (workspace, id) = self.in_workspace();
        let reply = call(
            &self.shell,
            script::SAMPLES,
            &nonce()?,
            &[&workspace, &id],
            remote::feed_text(text),
            Box::new(move |from| samples::hear(from, lengths, began).map_err(|cause| broken(&cause))),
        )
        .await?;
        // Without samples all comes as well.
        let heard = reply.ok("show parts of its files").ok().and_then(|((), heard)| heard);
        let (packed, plain) = survey.divide(heard.as_ref());
        let of = |paths: Vec<Vec<u8>>| {
            let items = paths.into_iter().filter_map(|path| {
                let item = wanted.get(&path)?.clone();
                Some((path, item))
            });
            items.collect()
        };
        Ok((of(packed), of(plain)))
    }

    /// Brings these files, packed or as they are.
    async fn fetch_part(
        &self,
        wanted: HashMap<Vec<u8>, Item>,
        gzip: bool,
        stage: &Arc<StagingDirectory>,
        bars: &Bars,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let (workspace, id) = self.in_workspace();
        let mut paths: Vec<Vec<u8>> = wanted.keys().cloned().collect();
        paths.sort();
        let (into, bars) = (Arc::clone(stage), bars.clone());
        let take = Box::new(move |from: &mut dyn Read| receive(from, gzip, &wanted, &into, &bars));
        let arguments = [workspace.as_str(), &id, if gzip { "gzip" } else { "plain" }];
        let feed = feed_paths(&paths);
        let reply = call(&self.shell, script::FETCH, &nonce()?, &arguments, feed, take).await?;
        reply.ok("send the files").map(|((), come)| come)
    }

    /// Has rsync make the large files here that are about to be brought; what is not among them comes as all else does.
    async fn make_here(
        &self,
        wanted: &Arc<HashMap<Vec<u8>, Item>>,
        here: &Tree,
        stage: &Arc<StagingDirectory>,
    ) -> Result<HashMap<Vec<u8>, Arrived>> {
        let Some(rsync) = self.rsync() else {
            return Ok(HashMap::new());
        };
        let worth = wanted
            .iter()
            .filter(|(path, item)| rsync.is_worth(item, here.get(*path)));
        let paths: Vec<Vec<u8>> = worth.map(|(path, _)| path.clone()).collect();
        if paths.is_empty() || !self.is_trusted(rsync).await {
            return Ok(HashMap::new());
        }
        let bytes = paths
            .iter()
            .filter_map(|path| wanted.get(path))
            .map(|item| item.stamp.size)
            .fold(0, u64::saturating_add);
        self.notice_large("bringing", paths.len());
        let names: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
        let directory = stage.directory(MADE);
        let bars = self.bars("bringing by rsync", paths.len(), bytes);
        let made = rsync.make(
            RsyncDirection::Down(&directory, bytes),
            self.local.root(),
            &self.far.workspace,
            &names,
            &bars,
        );
        if let Err(cause) = made.await {
            self.notice_failed(&cause);
            return Ok(HashMap::new());
        }
        let (local, wanted, stage) = (self.local.clone(), Arc::clone(wanted), Arc::clone(stage));
        blocking(move || {
            let arrived = paths.into_iter().enumerate().filter_map(|(number, path)| {
                let staged = format!("{MADE}-{number}");
                let item = local.take(&stage, &directory, &path, &staged).ok()??;
                // It changed since it was listed, and comes with the next sync.
                let same = wanted
                    .get(&path)
                    .is_some_and(|wanted| wanted.stamp.size == item.stamp.size);
                let content = contents_of(stage.open(&staged).ok().filter(|_| same)?)?;
                Some((path, Arrived { staged, content }))
            });
            Ok(arrived.collect())
        })
        .await
    }

    fn bring(&mut self, path: &[u8], mode: u32, before: Option<&Item>, brought: &Brought<'_>) -> Result<u64, String> {
        let Brought {
            there,
            arrived,
            stage,
            clocks,
        } = *brought;
        let item = there.get(path).ok_or("it vanished")?;
        let told = |error: LocalError| error.to_string();
        let looked_at = now_ns();
        let (content, placed) = if item.kind == ItemKind::Directory {
            if let Some(before) = before.filter(|before| before.kind != ItemKind::Directory) {
                self.local.remove(path, before).map_err(told)?;
            }
            (Content::of(b""), self.local.make_directory(path, mode).map_err(told)?)
        } else {
            let arrived = arrived
                .get(path)
                .ok_or("it can't be read on the dock, or changed while it was brought")?;
            if let Some(before) = before.filter(|before| before.kind == ItemKind::Directory)
                && !self.local.remove(path, before).map_err(told)?
            {
                return Err("a directory is in the way that holds ignored files".to_owned());
            }
            if item.kind == ItemKind::File {
                stage
                    .finish(&arrived.staged, mode, item.stamp.mtime)
                    .map_err(|cause| cause.to_string())?;
            }
            let expected = before.filter(|before| before.kind != ItemKind::Directory);
            (
                arrived.content,
                self.local.put(path, &arrived.staged, stage, expected).map_err(told)?,
            )
        };
        // It was looked at after that, and just put: the next sync compares contents.
        let mut side = RecordedSide::of(&placed, clocks.is_settled(&placed, looked_at));
        if mode != plan::taken(item.mode, before)
            && item.kind != ItemKind::Symlink
            && let Some(base) = self.manifest.records.get(path)
        {
            // This machine's own change of the mode is still to come there.
            side.mode = base.here.mode;
        }
        let settled = self.far.listing.clocks.is_settled(item, self.far.clock_ns);
        self.agree(path, item.kind, content, side, RecordedSide::of(item, settled));
        Ok(item.stamp.size)
    }

    fn change_mode_here(&mut self, path: &[u8], mode: u32, there: &Tree) -> Result<u64, String> {
        let item = there.get(path).ok_or("it vanished")?;
        let placed = self
            .local
            .set_mode(path, mode, item.kind)
            .map_err(|error| error.to_string())?;
        if let Some(record) = self.manifest.records.get_mut(path) {
            (self.touched, self.agreed) = (true, true);
            record.here = RecordedSide::of(&placed, false);
            record.there.mode = item.mode;
        }
        Ok(0)
    }

    /// The conflicts of a plan, with where the dock's version lies from an earlier sync.
    fn conflicts(&self, steps: &Steps, there: &Tree) -> Vec<Conflict> {
        let conflicts = steps.iter().filter_map(|(path, action)| match action {
            Action::Conflict(why) => Some(Conflict {
                path: path.clone(),
                why: *why,
                beside: there.get(path).and_then(|item| self.lies_beside(path, item)),
            }),
            _ => None,
        });
        conflicts.collect()
    }

    /// Where this very version of the dock's lies already.
    fn lies_beside(&self, path: &[u8], item: &Item) -> Option<Vec<u8>> {
        let version = version_of(path, item);
        let known = self
            .manifest
            .header
            .beside
            .iter()
            .find(|(_, known)| known.starts_with(&version))?;
        let name = unhex(known.0)?;
        matches!(self.local.look(&name), Ok(Some(_))).then_some(name)
    }

    /// Which of the dock's versions are put beside ours, and under which names; those of conflicts that are over go.
    fn plan_beside(&mut self, steps: &Steps, request: &SyncRequest<'_>, there: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let over: Vec<(String, String)> = self
            .manifest
            .header
            .beside
            .iter()
            .filter(|(_, version)| {
                let path = version.split(' ').next().and_then(unhex).unwrap_or_default();
                !matches!(steps.get(&path), Some(Action::Conflict(_)))
                    && (request.only.is_empty() || steps.contains_key(&path))
            })
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect();
        for (name, version) in over {
            self.forget_beside(&name, &version);
        }
        let mut beside = BTreeMap::new();
        if request.direction == Direction::Up {
            return beside;
        }
        for (path, action) in steps {
            let Action::Conflict(Why::BothChanged | Why::BothNew | Why::RemovedHere) = action else {
                continue;
            };
            let Some(item) = there.get(path).filter(|item| item.kind != ItemKind::Directory) else {
                continue;
            };
            if self.lies_beside(path, item).is_some() {
                continue;
            }
            // An older version of the dock's makes room, unless it was edited.
            let prefix = format!("{} ", hex(path));
            let older: Vec<(String, String)> = self
                .manifest
                .header
                .beside
                .iter()
                .filter(|(_, version)| version.starts_with(&prefix))
                .map(|(name, version)| (name.clone(), version.clone()))
                .collect();
            for (name, version) in older {
                self.forget_beside(&name, &version);
            }
            let name = [path.as_slice(), BESIDE].concat();
            let others = (2..100).map(|number| [name.as_slice(), format!("-{number}").as_bytes()].concat());
            let free = std::iter::once(name.clone())
                .chain(others)
                .find(|name| matches!(self.local.look(name), Ok(None)) && !there.contains_key(name));
            beside.extend(free.map(|name| (path.clone(), name)));
        }
        beside
    }

    /// Removes a copy of ours that nobody has changed.
    fn forget_beside(&mut self, name: &str, version: &str) {
        self.manifest.header.beside.remove(name);
        self.touched = true;
        let Some(path) = unhex(name) else { return };
        let content = version
            .rsplit(' ')
            .next()
            .and_then(|text| Content::from_hex(text.as_bytes()));
        let now = self.local.contents(std::slice::from_ref(&path)).get(&path).copied();
        if content.is_some()
            && now == content
            && let Ok(Some(item)) = self.local.look(&path)
        {
            // One that can't be removed is the user's now.
            let _ = self.local.remove(&path, &item);
        }
    }

    fn put_beside(
        &mut self,
        path: &[u8],
        name: &[u8],
        there: &Tree,
        arrived: &HashMap<Vec<u8>, Arrived>,
        stage: &StagingDirectory,
    ) -> Result<(), String> {
        let item = there.get(path).ok_or("it vanished")?;
        let arrived = arrived
            .get(path)
            .ok_or("it can't be read on the dock, or changed while it was brought")?;
        if item.kind == ItemKind::File {
            stage
                .finish(&arrived.staged, item.mode & !OTHERS_WRITE, item.stamp.mtime)
                .map_err(|cause| cause.to_string())?;
        }
        self.local
            .put(name, &arrived.staged, stage, None)
            .map_err(|error| error.to_string())?;
        let version = format!("{}{}", version_of(path, item), hex(&arrived.content.0));
        self.manifest.header.beside.insert(hex(name), version);
        self.touched = true;
        Ok(())
    }

    fn report_root_files(&self, report: &mut Report) {
        report.user = self.far.uid;
        if self.far.uid == 0 {
            return;
        }
        let tree = &self.far.listing.tree;
        let roots = tree.iter().filter(|(_, item)| item.owner == 0);
        report.root_files = roots.map(|(path, _)| path.clone()).collect();
    }
}

/// Why the dock did not do what was to be done to a path: what it said, unless that is because of root's directories.
fn refused(path: &[u8], there: &Tree, uid: u32, said: &str) -> String {
    match there.get(super::split(path).0) {
        Some(parent) if parent.owner == 0 && uid != 0 => {
            "its directory belongs to root on the dock, made by a container: sync-down --chown gives both to you"
                .to_owned()
        }
        _ => said.to_owned(),
    }
}

/// How much travels, as a report counts it: directories, too.
fn amount(files: usize, folders: usize) -> String {
    let files = crate::output::counted(files, "file");
    match folders {
        0 => files,
        1 => format!("{files} and 1 directory"),
        folders => format!("{files} and {folders} directories"),
    }
}

/// A round that has been planned.
#[derive(Clone, Copy)]
struct Planned<'a> {
    steps: &'a Steps,
    request: &'a SyncRequest<'a>,
    here: &'a Tree,
    contents: &'a Contents,
    settling: &'a Settling,
}

/// What is brought: what the dock has, what of it has arrived, and where that lies.
struct Brought<'a> {
    there: &'a Tree,
    arrived: &'a HashMap<Vec<u8>, Arrived>,
    stage: &'a StagingDirectory,
    /// How this machine's file systems tell times.
    clocks: &'a Clocks,
}

/// By what it is told whether a later change would show: the clocks of both sides, and when each was looked at.
#[derive(Clone)]
struct Settling {
    here: Clocks,
    here_ns: i64,
    there: Clocks,
    there_ns: i64,
}

impl Settling {
    fn here(&self, item: &Item) -> RecordedSide {
        RecordedSide::of(item, self.here.is_settled(item, self.here_ns))
    }

    fn there(&self, item: &Item) -> RecordedSide {
        RecordedSide::of(item, self.there.is_settled(item, self.there_ns))
    }
}

/// Removing what lay below a path that is no directory any more.
trait RetainBelow {
    fn retain_below(&mut self, path: &[u8], kind: ItemKind);
}

impl RetainBelow for Tree {
    fn retain_below(&mut self, path: &[u8], kind: ItemKind) {
        if kind == ItemKind::Directory {
            return;
        }
        let lower: Vec<Vec<u8>> = super::below(self, path).map(|(path, _)| path.clone()).collect();
        for path in lower {
            self.remove(&path);
        }
    }
}

/// A version of the dock's, in words without blanks but between them: path and stamp.
fn version_of(path: &[u8], item: &Item) -> String {
    let stamp = item.stamp;
    format!(
        "{} {},{},{},{} ",
        hex(path),
        stamp.size,
        stamp.mtime,
        stamp.ctime_ns,
        stamp.inode
    )
}

fn unhex(text: impl AsRef<str>) -> Option<Vec<u8>> {
    let digits = text.as_ref().as_bytes().chunks(2);
    let path: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    path.filter(|path| is_acceptable(path))
}

/// The word of a call: by it the script's own output is told from a greeting's.
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

fn local_error(cause: build_context::WalkError) -> Error {
    let usage = matches!(cause, build_context::WalkError::Pattern(_));
    let error = if usage {
        Error::usage("the project's .dockerignore is wrong")
    } else {
        Error::failed("the project's files can't be listed")
    };
    error.because(cause)
}

fn foreign(workspace: &str, owner: &Owner, target: &Target) -> Error {
    use crate::output::visible;
    Error::failed(format!(
        "{workspace} on dock {:?} is the copy of {} of {}@{}: two checkouts in one workspace would be mixed",
        target.moniker,
        visible(&owner.checkout),
        visible(&owner.user),
        visible(&owner.machine)
    ))
    .hint(hint!(
        "rename the project's folder, or give this machine another directory for workspaces (register-dock --workspace); \
         where that checkout is gone for good: ssh-dock {} rm {}",
        target.moniker,
        crate::shell::quote(&format!("{workspace}/.dockerutils-sync/owner"))
    ))
}

fn damaged(workspace: &str, target: &Target) -> Error {
    Error::failed(format!(
        "whose copy {workspace} on dock {:?} is can't be read: its mark is damaged",
        target.moniker
    ))
    .hint(hint!(
        "where it is this project's: ssh-dock {} rm {}; files that differ are conflicts then, and none is removed",
        target.moniker,
        crate::shell::quote(&format!("{workspace}/.dockerutils-sync/owner"))
    ))
}

fn is_done(action: Action) -> bool {
    !matches!(
        action,
        Action::Agree | Action::Forget | Action::Conflict(_) | Action::Later(_) | Action::Held(_)
    )
}

fn count(steps: &Steps, here: &Tree, there: &Tree, report: &mut Report) {
    let later = |place| steps.values().filter(|action| **action == Action::Later(place)).count();
    (report.later_here, report.later_there) = (later(Side::Here), later(Side::There));
    // Directories go with what is in them.
    let held = |place, tree: &Tree| {
        let held = steps.iter().filter(|(_, action)| **action == Action::Held(place));
        let files = held.filter(|(path, _)| tree.get(*path).is_some_and(|item| item.kind != ItemKind::Directory));
        files.map(|(path, _)| path.clone()).collect()
    };
    (report.held_here, report.held_there) = (held(Side::Here, here), held(Side::There, there));
    let conflicts = steps.iter().filter_map(|(path, action)| match action {
        Action::Conflict(why) => Some(Conflict {
            path: path.clone(),
            why: *why,
            beside: None,
        }),
        _ => None,
    });
    report.conflicts = conflicts.collect();
}

/// What [`script::LOOK`] says.
struct Looked {
    workspace: String,
    mark: Option<String>,
    generation: String,
    uid: u32,
    clock_ns: i64,
    folds: bool,
    gzip: bool,
    rsync: bool,
    /// None where there is no workspace; `Some(None)` where nothing changed.
    text: Option<Option<Vec<u8>>>,
}

fn read_look(from: &mut dyn Read, counter: &Counter) -> Result<Looked> {
    let strange = |what: &str| Error::failed(format!("what the dock says of its {what} makes no sense"));
    let workspace = read_line(from)?;
    if !workspace.starts_with('/') || workspace.len() > super::LONGEST_PATH || workspace.chars().any(char::is_control) {
        return Err(strange("workspace"));
    }
    let mark = match read_line(from)?.as_str() {
        "absent" => {
            return Ok(Looked {
                workspace,
                mark: None,
                generation: String::new(),
                uid: 0,
                clock_ns: 0,
                folds: false,
                gzip: false,
                rsync: false,
                text: None,
            });
        }
        "unmarked" => None,
        line => {
            let length = line
                .strip_prefix("mark ")
                .and_then(|length| length.trim().parse::<u64>().ok());
            let length = length
                .filter(|length| *length <= 8192)
                .ok_or_else(|| strange("workspace's owner"))?;
            let mut text = Vec::new();
            from.take(length)
                .read_to_end(&mut text)
                .map_err(|cause| broken(&cause))?;
            Some(String::from_utf8_lossy(&text).into_owned())
        }
    };
    let generation = read_line(from)?
        .strip_prefix("generation ")
        .map(|name| name.trim().to_owned())
        .filter(|name| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| strange("last sync"))?;
    let uid = read_line(from)?.trim().parse().map_err(|_| strange("user"))?;
    let clock_ns = clock(&read_line(from)?).ok_or_else(|| strange("clock"))?;
    let tools = read_line(from)?;
    let has = |tool| tools.split(' ').any(|had| had == tool);
    let (gzip, rsync, folds) = (has("gzip"), has("rsync"), has("folds"));
    let text = match read_line(from)?.as_str() {
        "same" => None,
        _ => Some(read_listing(from, gzip, counter)?),
    };
    Ok(Looked {
        workspace,
        mark,
        generation,
        uid,
        clock_ns,
        folds,
        gzip,
        rsync,
        text: Some(text),
    })
}

/// A time of the far side, in nanoseconds since 1970: seconds, and nanoseconds where its `date` has them.
fn clock(line: &str) -> Option<i64> {
    let mut words = line.split(' ');
    let seconds: i64 = words.next()?.parse().ok()?;
    let digits = words.next().filter(|digits| digits.len() == 9);
    let nanoseconds = digits.and_then(|digits| digits.parse().ok());
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(nanoseconds.unwrap_or(0))
}

/// What [`script::APPLY`] says.
struct Applied {
    /// Batches that could not be put in place.
    stuck: Vec<Vec<u8>>,
    /// Batches that were left, because something in their place is not as it was listed.
    changed: Vec<Vec<u8>>,
    /// Batches that were not removed, because they can't be kept.
    full: Vec<Vec<u8>>,
    clock_ns: i64,
    generation: String,
    tree: Tree,
}

fn read_applied(from: &mut dyn Read, limit: u64) -> Result<Applied> {
    let (mut stuck, mut changed, mut full) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = limit;
    loop {
        let line = read_line(from)?;
        left = left.saturating_sub(line.len() as u64 + 1);
        let (word, batch) = line.split_once(' ').unwrap_or((line.as_str(), ""));
        let batches = match word {
            "done" => break,
            "stuck" if left > 0 => &mut stuck,
            "changed" if left > 0 => &mut changed,
            "full" if left > 0 => &mut full,
            _ => {
                return Err(Error::failed(format!(
                    "what the dock says of the files makes no sense: {}",
                    shown(line.as_bytes())
                )));
            }
        };
        batches.push(batch.as_bytes().to_vec());
    }
    Ok(Applied {
        stuck,
        changed,
        full,
        // Without one, the next sync compares contents.
        clock_ns: clock(&read_line(from)?).unwrap_or_default(),
        generation: read_line(from)?,
        tree: read_records(from, limit)?,
    })
}

/// The text of a listing, to its end.
fn read_listing(from: &mut dyn Read, gzip: bool, counter: &Counter) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if gzip {
        let unpacked = flate2::read::GzDecoder::new(io::BufReader::new(from));
        CountingLines(unpacked.take(LONGEST_LISTING), counter).read_to_end(&mut text)
    } else {
        CountingLines(from.take(LONGEST_LISTING), counter).read_to_end(&mut text)
    };
    read.map_err(|cause| broken(&cause))?;
    Ok(text)
}

/// Counts the lines of what is read: each is about a file.
struct CountingLines<'a, R>(R, &'a Counter);

impl<R: Read> Read for CountingLines<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        let lines = buffer
            .get(..read)
            .unwrap_or_default()
            .iter()
            .filter(|byte| **byte == b'\n');
        self.1.add(lines.count());
        Ok(read)
    }
}

/// A listing of which nothing is left out.
fn whole_listing(text: &[u8], refused: &str) -> Result<Listing> {
    let mut selector = Selector::new(&[], Builder::default())
        .map_err(|cause| Error::failed("an empty .dockerignore is wrong").because(cause))?;
    listing::read(text, &mut selector).map_err(|cause| Error::failed(refused).because(cause))
}

/// The length of the records of these paths, at most.
fn records_limit<'a>(paths: impl Iterator<Item = &'a Vec<u8>>) -> u64 {
    paths
        .map(|path| path.len() as u64 + LONGEST_RECORD)
        .fold(LONGEST_RECORD, u64::saturating_add)
}

/// Records of single paths. `stat` follows links on the way to a path, so what lies behind one of the links among the records is
/// none: it is another file, which has a path of its own.
fn read_records(from: &mut dyn Read, limit: u64) -> Result<Tree> {
    let mut text = Vec::new();
    from.take(limit)
        .read_to_end(&mut text)
        .map_err(|cause| broken(&cause))?;
    let mut tree = whole_listing(&text, "the dock's list of files is refused")?.tree;
    let links = tree.iter().filter(|(_, item)| item.kind == ItemKind::Symlink);
    let links: BTreeSet<Vec<u8>> = links.map(|(path, _)| path.clone()).collect();
    if !links.is_empty() {
        tree.retain(|path, _| !ancestors(path).any(|above| links.contains(above)));
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: ItemKind, size: u64) -> Item {
        let stamp = super::super::Stamp {
            size,
            ..Default::default()
        };
        Item {
            kind,
            mode: 0o644,
            stamp,
            owner: 0,
            device: 0,
            target: None,
        }
    }

    #[test]
    fn directories_and_empty_files_take_room_too() {
        let there: Tree = [
            ("d", ItemKind::Directory, 0),
            ("d/e", ItemKind::Directory, 0),
            ("here", ItemKind::Directory, 0),
            ("empty", ItemKind::File, 0),
            ("file", ItemKind::File, BLOCK + 1),
        ]
        .into_iter()
        .map(|(path, kind, size)| (path.as_bytes().to_vec(), item(kind, size)))
        .collect();
        let here = Tree::from([(b"here".to_vec(), item(ItemKind::Directory, 0))]);
        let steps: Steps = there.keys().map(|path| (path.clone(), Action::Bring(0o755))).collect();
        let files = there.iter().filter(|(_, item)| item.kind == ItemKind::File);
        let wanted = files.map(|(path, item)| (path.clone(), item.clone())).collect();
        let room = DiskUsage::needed(&wanted, &steps, &here, &there);
        assert_eq!((room.bytes, room.files), ((2 + 1 + 3) * BLOCK, 4));
        // Sizes that no disk has.
        let wanted = HashMap::from([(b"file".to_vec(), item(ItemKind::File, u64::MAX))]);
        assert_eq!(DiskUsage::needed(&wanted, &steps, &here, &there).bytes, u64::MAX);
    }

    #[test]
    fn what_a_dock_could_not_do_is_no_longer_a_list_than_what_it_was_asked_for() {
        let said = b"stuck p1\nchanged p3\nstuck p2\ndone 1\n12\n\n//status 0\n";
        let applied = read_applied(&mut said.as_slice(), 1000).unwrap();
        assert_eq!((applied.stuck.len(), applied.changed.len()), (2, 1));
        // It would never end.
        let endless = b"stuck a\n".repeat(1000);
        let mut said = endless.as_slice().chain(io::repeat(b'a'));
        assert!(read_applied(&mut said, 1000).is_err());
    }
}
