//! What syncs removed or overwrote, kept for a while: on this machine outside of the project, on a dock beside the
//! workspace's mark.
//!
//! Both trashes have one form: `ENTRY/REASON/PATH`. An entry is what one sync took, or one restore put out of its way; its
//! name is `SECONDS.NONCE`, with `.restore` behind it for the latter. The reason is `removed` or `overwritten`. This module
//! says what such a tree means ([`versions`], [`chosen`]), and keeps this machine's; the dock's is kept by
//! [`super::trash_script`].
//!
//! This machine's is `trash/KEY` below the state directory, where the key stands for the project's root. `ENTRY/record` says
//! the root and the dock, for people and for the list. A file gets a second name in the trash before it loses the one in the
//! project, so that a crash at any moment leaves it at one of them at least; where the two are on other file systems, it is
//! copied whole. Descriptors lead there that follow no symbolic link.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::clock::now_ns;
use super::local::{Local, LocalError, StagingDirectory, contents_of, walked};
use super::manifest::Records;
use super::{Content, Item, ItemKind, MODE_BITS, Tree, ancestors, below, is_acceptable, shown, split};
use crate::error::{Error, Result};
use crate::hexadecimal::{self, hex};
use build_context::{ContextDir, WalkOptions};

/// How long removed and overwritten files are kept, in seconds: a week.
pub const KEPT_SECONDS: i64 = 7 * 24 * 3600;
/// The most bytes that are kept of a project; the oldest go first.
pub const KEPT_BYTES: u64 = 1_000_000_000;
/// The version of the record's format.
const VERSION: u32 = 1;
/// The file of an entry that says where it comes from.
const RECORD: &str = "record";
/// Behind the name of an entry that a restore made.
pub const BY_RESTORE: &str = ".restore";
/// Directories on the way to what is kept, of which nothing else is known.
const PARENT_MODE: u32 = 0o755;

/// Why something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It was removed.
    Removed,
    /// Something else took its place.
    Overwritten,
}

impl Reason {
    /// In a word, which is also the name of a directory.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Overwritten => "overwritten",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        [Self::Removed, Self::Overwritten]
            .into_iter()
            .find(|reason| reason.text().as_bytes() == name)
    }
}

/// Something that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The name of the entry that it is in: `SECONDS.NONCE`, when it was begun, since 1970.
    pub entry: String,
    /// Why it is kept.
    pub reason: Reason,
    /// Where it was in the project.
    pub path: Vec<u8>,
    /// What it is. Its times are those of the file, but for the last change: that is when it was kept.
    pub item: Item,
    /// The dock with which the project was synced; `None` where nobody wrote it down, and for what a restore put out of its
    /// way.
    pub dock: Option<String>,
}

impl Version {
    /// Where it lies in the trash.
    pub fn kept(&self) -> Vec<u8> {
        let reason = self.reason.text().as_bytes();
        [self.entry.as_bytes(), b"/", reason, b"/", &self.path].concat()
    }

    /// When its entry was begun, in seconds since 1970.
    pub fn when(&self) -> i64 {
        begun(&self.entry).unwrap_or_default()
    }

    /// Whether a restore put it out of its way, and no sync.
    pub fn is_by_restore(&self) -> bool {
        self.entry.ends_with(BY_RESTORE)
    }
}

/// When an entry was begun, in seconds since 1970; `None` if this is not the name of an entry.
fn begun(entry: &str) -> Option<i64> {
    let (seconds, nonce) = entry.split_once('.')?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !nonce.is_empty()).then(|| seconds.parse().ok())?
}

/// What a trash holds, the newest first. A directory counts where it was removed itself and nothing that was in it is kept:
/// with what is kept, it comes by itself.
pub fn versions(trash: &Tree) -> Vec<Version> {
    let mut all: Vec<Version> = trash
        .iter()
        .filter_map(|(kept, item)| {
            let mut names = kept.splitn(3, |byte| *byte == b'/');
            let entry = std::str::from_utf8(names.next()?).ok()?;
            begun(entry)?;
            let reason = Reason::parse(names.next()?)?;
            let path = names.next().filter(|path| is_acceptable(path))?;
            let counts =
                item.kind != ItemKind::Directory || (reason == Reason::Removed && below(trash, kept).next().is_none());
            counts.then(|| Version {
                entry: entry.to_owned(),
                reason,
                path: path.to_vec(),
                item: item.clone(),
                dock: None,
            })
        })
        .collect();
    // Of two entries of one second, the files themselves say which is newer.
    let age = |version: &Version| (version.when(), version.item.stamp.ctime_ns);
    all.sort_by(|a, b| {
        age(b)
            .cmp(&age(a))
            .then_with(|| a.entry.cmp(&b.entry))
            .then_with(|| a.path.cmp(&b.path))
    });
    all
}

/// Whether a version is at or below one of these paths; of no paths, each is.
pub fn is_meant(version: &Version, only: &[Vec<u8>]) -> bool {
    let is_at = |path: &Vec<u8>| version.path == *path || ancestors(&version.path).any(|above| above == path);
    only.is_empty() || only.iter().any(is_at)
}

/// What a restore of these paths brings back, in the order of paths: the newest version of each path at or below them;
/// without any, all that the last sync took that took something. `versions` come the newest first.
pub fn chosen(versions: &[Version], only: &[Vec<u8>]) -> Vec<Version> {
    let last = versions.iter().find(|version| !version.is_by_restore());
    let mut taken: BTreeMap<Vec<u8>, &Version> = BTreeMap::new();
    for version in versions {
        let meant = match (only, last) {
            ([], Some(last)) => version.entry == last.entry,
            ([], None) => false,
            (only, _) => is_meant(version, only),
        };
        let is_directory = |version: &Version| version.item.kind == ItemKind::Directory;
        // A file and what lay below a directory of its name were never there together.
        let fits = !taken.contains_key(&version.path)
            && !ancestors(&version.path).any(|above| taken.get(above).is_some_and(|above| !is_directory(above)))
            && (is_directory(version) || below(&taken, &version.path).next().is_none());
        if meant && fits {
            taken.insert(version.path.clone(), version);
        }
    }
    taken.into_values().cloned().collect()
}

/// Something that can't be kept, and therefore stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum TrashError {
    /// Somebody was faster; it is as they left it.
    #[error("it changed meanwhile")]
    Meanwhile,
    /// More than is kept, even without all that is older.
    #[error(
        "it stays: it can't be kept, because with its {} a sync would keep more than {}",
        crate::output::size(*.size),
        crate::output::size(*.limit)
    )]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The bytes that are kept at most.
        limit: u64,
    },
    /// The disk is full.
    #[error("it stays: it can't be kept, as the disk of {} is full", .0.display())]
    Full(PathBuf),
    /// The system refuses.
    #[error("it stays: it can't be kept in {}: {cause}", trash.display())]
    Io {
        /// Where it was to be kept.
        trash: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl TrashError {
    /// Whether there is no room for it: a person can make some, or say that it need not be kept.
    pub const fn is_no_room(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Full(_))
    }
}

/// What was kept of several paths.
#[derive(Debug, Default)]
pub struct Kept {
    /// What is in the project now: the second name has changed a file's stamp. Only what is here may be removed or replaced.
    pub items: Tree,
    /// What could not be kept, and stays.
    pub refused: BTreeMap<Vec<u8>, TrashError>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
struct Limits {
    seconds: i64,
    bytes: u64,
}

/// What the record of an entry says.
#[derive(Debug, Default, Serialize, Deserialize)]
struct TrashRecord {
    dockerutils_trash: u32,
    root: String,
    dock: Option<String>,
}

/// An entry that is being filled.
#[derive(Debug)]
struct TrashEntry {
    name: String,
    fd: OwnedFd,
    /// The record. While it is locked, no process removes the entry.
    _lock: File,
    bytes: u64,
    /// Whether there are copies that may not be on the disk yet.
    unsettled: bool,
    /// The directory in which something was kept last.
    last: Option<(Reason, Vec<u8>, Arc<OwnedFd>)>,
}

/// What this machine keeps of a project.
#[derive(Debug)]
pub struct Trash {
    /// Of all projects.
    all: PathBuf,
    /// Of this one.
    directory: PathBuf,
    root: PathBuf,
    /// None for a restore.
    dock: Option<String>,
    limits: Limits,
    /// Whether second names are tried before copies.
    links: bool,
    /// The entries of others and of before, the oldest first, with their bytes; none before they were looked at.
    others: Option<Vec<(String, u64)>>,
    entry: Option<TrashEntry>,
}

impl Trash {
    /// Of a project's root, for a sync with this dock, or for a restore. Nothing is made before something is kept.
    pub fn open(state: &Path, root: &Path, dock: Option<&str>) -> Self {
        let all = state.join("trash");
        let key: String = hex(&Content::of(root.as_os_str().as_bytes()).0)
            .chars()
            .take(32)
            .collect();
        Self {
            directory: all.join(key),
            all,
            root: root.to_owned(),
            dock: dock.map(str::to_owned),
            limits: Limits {
                seconds: KEPT_SECONDS,
                bytes: KEPT_BYTES,
            },
            links: true,
            others: None,
            entry: None,
        }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps no more than this.
    #[cfg(test)]
    pub(super) const fn limit(&mut self, seconds: i64, bytes: u64) {
        self.limits = Limits { seconds, bytes };
    }

    /// Makes copies, as where the project is on another file system.
    #[cfg(test)]
    pub(super) const fn copy_only(&mut self, copies: bool) {
        self.links = !copies;
    }

    /// Begins a new entry: what is kept from now on was taken by another sync.
    pub fn begin(&mut self) {
        if let (Some(entry), Some(others)) = (self.entry.take(), &mut self.others) {
            others.push((entry.name, entry.bytes));
        }
    }

    /// Keeps all of these, and has the system write down what was copied. Each is as it was listed, or it is refused.
    pub fn keep_all<'a>(
        &mut self,
        local: &Local,
        wanted: impl IntoIterator<Item = (&'a Vec<u8>, &'a Item, Reason)>,
    ) -> Kept {
        let mut kept = Kept::default();
        let mut reasons = Vec::new();
        for (path, item, reason) in wanted {
            match self.keep(local, path, item, reason) {
                Ok(item) => {
                    kept.items.insert(path.clone(), item);
                    reasons.push((path, reason));
                }
                Err(error) => drop(kept.refused.insert(path.clone(), error)),
            }
        }
        if let Err(cause) = self.settle() {
            for (path, reason) in reasons {
                self.release(path, reason);
                let cause = io::Error::from(cause.kind());
                kept.items.remove(path);
                kept.refused.insert(path.clone(), self.failed(cause));
            }
        }
        kept
    }

    /// Keeps a file or link that is about to be removed or replaced, where it is as it was listed: it has another name in the
    /// trash then, or a copy is there, and its own name stays. Gives what it is now. Of a directory only its being there is
    /// kept, and its mode; it may be gone already.
    ///
    /// What was copied is safe only after [`Trash::settle`].
    ///
    /// # Errors
    /// What can't be kept must stay: somebody's change meanwhile, no room, a system that refuses.
    pub fn keep(&mut self, local: &Local, path: &[u8], expected: &Item, reason: Reason) -> Result<Item, TrashError> {
        if expected.kind == ItemKind::Directory {
            self.keep_directory(path, expected.mode, reason)?;
            return Ok(expected.clone());
        }
        let size = match expected.kind {
            ItemKind::File => expected.stamp.size,
            _ => 0,
        };
        let (above, name) = split(path);
        let parent = local.context().open_directory(above).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => TrashError::Meanwhile,
            error => self.failed(error.into()),
        })?;
        if !self
            .look(local, path)?
            .is_some_and(|found| is_same(&found, expected) && found.stamp == expected.stamp)
        {
            return Err(TrashError::Meanwhile);
        }
        self.make_room(size)?;
        match self.name_twice(&parent, name, path, expected, reason) {
            // An earlier version of this path is in the entry already, or a file where a directory is needed.
            Err(TrashError::Io { cause, .. })
                if matches!(Errno::from_io_error(&cause), Some(Errno::EXIST | Errno::NOTDIR)) =>
            {
                self.begin();
                self.name_twice(&parent, name, path, expected, reason)?;
            }
            result => result?,
        }
        match self.look(local, path) {
            Ok(Some(now)) if is_same(&now, expected) => {
                if let Some(entry) = &mut self.entry {
                    entry.bytes = entry.bytes.saturating_add(size);
                }
                Ok(now)
            }
            outcome => {
                self.release(path, reason);
                Err(outcome.err().unwrap_or(TrashError::Meanwhile))
            }
        }
    }

    /// Gives up what was kept of a path in this entry: it was not removed or replaced after all.
    pub fn release(&mut self, path: &[u8], reason: Reason) {
        let Some(entry) = &mut self.entry else { return };
        entry.last = None;
        let kept = [entry.name.as_bytes(), b"/", reason.text().as_bytes(), b"/", path].concat();
        // One that stays is more than is needed, and goes with its age.
        if let Ok(trash) = ContextDir::open(&self.directory) {
            let _ = discard(&trash, &kept);
        }
    }

    /// Has the system write down what was copied. Names need no such care: they come to the disk in the order in which they
    /// were made and removed.
    ///
    /// # Errors
    /// A disk that can't be written to; then nothing that was copied may be removed.
    pub fn settle(&mut self) -> io::Result<()> {
        let Some(entry) = &mut self.entry else { return Ok(()) };
        #[cfg(target_os = "linux")]
        if entry.unsettled {
            rustix::fs::syncfs(&entry.fd)?;
        }
        entry.unsettled = false;
        Ok(())
    }

    /// Removes what is older than a week, of all projects, and of this one what is more than is kept. What can't be removed
    /// now goes another time.
    pub fn prune(&mut self) {
        let now = now_ns().div_euclid(1_000_000_000);
        for project in fs::read_dir(&self.all).into_iter().flatten().flatten() {
            let project = project.path();
            for (name, when) in entries(&project) {
                if now.saturating_sub(when) > self.limits.seconds {
                    let _ = remove_entry(&project, &name);
                }
            }
            // One that still holds something stays.
            let _ = fs::remove_dir(&project);
        }
        self.others = None;
        // More than fits without anything new is no error: an entry that is being filled stays.
        let _ = self.make_room(0);
    }

    /// What is kept, the newest first.
    ///
    /// # Errors
    /// A trash that can't be read.
    pub fn list(&self) -> Result<Vec<Version>> {
        let unread = |cause: build_context::WalkError| {
            Error::failed(format!("what is kept in {} can't be read", self.directory.display())).because(cause)
        };
        let trash = match ContextDir::open(&self.directory) {
            Ok(trash) => trash,
            Err(build_context::WalkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(cause) => return Err(unread(cause)),
        };
        let mut all = versions(&tree(&trash).map_err(unread)?);
        let mut docks: HashMap<String, Option<String>> = HashMap::new();
        for version in &mut all {
            let dock = docks
                .entry(version.entry.clone())
                .or_insert_with_key(|entry| read_record(&self.directory.join(entry).join(RECORD)).dock);
            version.dock.clone_from(dock);
        }
        Ok(all)
    }

    /// Puts versions back into the project, where they are in the trash no more then. What is there now is kept itself.
    ///
    /// # Errors
    /// A trash that can't be read, a project that can't be written to. What concerns single paths is in the result.
    pub fn restore(&mut self, local: &Local, versions: &[Version]) -> Result<Restored> {
        let trash = ContextDir::open(&self.directory).map_err(|cause| {
            Error::failed(format!("what is kept in {} can't be read", self.directory.display())).because(cause)
        })?;
        let mut restored = Restored::default();
        let mut stage = None;
        for (number, version) in versions.iter().enumerate() {
            if stage.is_none() && version.item.kind != ItemKind::Directory {
                let made = local.stage();
                stage =
                    Some(made.map_err(|cause| Error::failed("nothing can be put into the project").because(cause))?);
            }
            match self.put_back(
                &trash,
                local,
                stage.as_ref(),
                &number.to_string(),
                version,
                &mut restored,
            ) {
                Ok(true) => restored.done.push(version.clone()),
                Ok(false) => restored.same.push(version.clone()),
                Err(why) => restored.troubles.push((version.path.clone(), why)),
            }
        }
        // Directories that may not be written to, only now that all is in them.
        for version in restored.done.iter().rev() {
            if version.item.kind == ItemKind::Directory && version.item.mode & 0o700 != 0o700 {
                // It is there; its mode is the least of it.
                let _ = local.set_mode(&version.path, version.item.mode, ItemKind::Directory);
            }
        }
        drop(stage);
        // What is put back must be on the disk before it leaves the trash.
        local
            .settle()
            .map_err(|cause| Error::failed("what was put back can't be kept on this disk").because(cause))?;
        for version in restored.done.iter().chain(&restored.same) {
            // One that stays is offered again, and is the same then.
            let _ = discard(&trash, &version.kept());
            let _ = discard_empty(&self.directory.join(&version.entry));
        }
        Ok(restored)
    }

    /// Puts one version back; false where the same is there already.
    fn put_back(
        &mut self,
        trash: &ContextDir,
        local: &Local,
        stage: Option<&StagingDirectory>,
        staged: &str,
        version: &Version,
        restored: &mut Restored,
    ) -> Result<bool, String> {
        let Version { path, item, .. } = version;
        let kept = version.kept();
        let told = |error: LocalError| error.to_string();
        let in_the_way = |path: &[u8]| format!("{} is in the way: move it, and restore again", shown(path));
        let before = local.look(path).map_err(told)?;
        if item.kind == ItemKind::Directory {
            return match before {
                Some(before) if before.kind == ItemKind::Directory => Ok(false),
                Some(_) => Err(in_the_way(path)),
                None => {
                    Self::make_way(trash, local, version)?;
                    local.make_directory(path, item.mode).map_err(told)?;
                    Ok(true)
                }
            };
        }
        let stage = stage.ok_or("there is no directory to make it in")?;
        let content = match &item.target {
            Some(target) => Content::of(target),
            None => {
                let file = trash.open_file(&kept).map_err(|cause| cause.to_string())?;
                contents_of(file).ok_or("it can't be read in the trash")?
            }
        };
        restored.contents.insert(path.clone(), content);
        if let Some(before) = &before {
            if before.kind == ItemKind::Directory {
                return Err(in_the_way(path));
            }
            let now = local.contents(std::slice::from_ref(path)).get(path).copied();
            if before.kind == item.kind && now == Some(content) {
                return Ok(false);
            }
        }
        Self::make_way(trash, local, version)?;
        match &item.target {
            Some(target) => stage.link(staged, target).map_err(|cause| cause.to_string())?,
            None => {
                let mut file = trash.open_file(&kept).map_err(|cause| cause.to_string())?;
                let mut copy = stage.create(staged).map_err(|cause| cause.to_string())?;
                io::copy(&mut file, &mut copy).map_err(|cause| cause.to_string())?;
                #[cfg(not(target_os = "linux"))]
                copy.sync_all().map_err(|cause| cause.to_string())?;
                // Its own time would make it look like what a power cut left: it is changed now.
                stage
                    .finish(staged, item.mode, now_ns().div_euclid(1_000_000_000))
                    .map_err(|cause| cause.to_string())?;
            }
        }
        let expected = match before {
            Some(before) => {
                let now = self
                    .keep(local, path, &before, Reason::Overwritten)
                    .map_err(|error| error.to_string())?;
                self.settle().map_err(|cause| cause.to_string())?;
                Some(now)
            }
            None => None,
        };
        if let Err(error) = local.put(path, staged, stage, expected.as_ref()) {
            if expected.is_some() {
                self.release(path, Reason::Overwritten);
            }
            return Err(error.to_string());
        }
        restored.bytes = restored.bytes.saturating_add(item.stamp.size);
        Ok(true)
    }

    /// Makes the directories that a path lies in, as they were.
    fn make_way(trash: &ContextDir, local: &Local, version: &Version) -> Result<(), String> {
        let root = [version.entry.as_bytes(), b"/", version.reason.text().as_bytes(), b"/"].concat();
        for above in ancestors(&version.path) {
            match local.look(above).map_err(|error| error.to_string())? {
                Some(item) if item.kind == ItemKind::Directory => {}
                Some(_) => return Err(format!("{} is in the way: move it, and restore again", shown(above))),
                None => {
                    let known = trash.open_directory(&[root.as_slice(), above].concat());
                    let mode = known
                        .ok()
                        .and_then(|fd| rustix::fs::fstat(fd).ok())
                        .map_or(PARENT_MODE, mode_of);
                    local.make_directory(above, mode).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> TrashError {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => TrashError::Full(self.directory.clone()),
            _ => TrashError::Io {
                trash: self.directory.clone(),
                cause,
            },
        }
    }

    fn look(&self, local: &Local, path: &[u8]) -> Result<Option<Item>, TrashError> {
        local.look(path).map_err(|error| match error {
            LocalError::Io(cause) => self.failed(cause),
            LocalError::Meanwhile => TrashError::Meanwhile,
            error @ LocalError::OtherFileSystem => self.failed(io::Error::other(error.to_string())),
        })
    }

    /// Gives a file a second name in the trash, or copies it there.
    fn name_twice(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        expected: &Item,
        reason: Reason,
    ) -> Result<(), TrashError> {
        let links = self.links;
        let into = self.directory_in_entry(split(path).0, reason)?;
        let name = OsStr::from_bytes(name);
        let linked = match links {
            true => rustix::fs::linkat(parent, name, &*into, name, AtFlags::empty()),
            false => Err(Errno::XDEV),
        };
        match linked {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(TrashError::Meanwhile),
            // Another file system, one without second names, too many of them, a file of another user.
            Err(Errno::XDEV | Errno::PERM | Errno::ACCESS | Errno::MLINK | Errno::NOTSUP | Errno::NOSYS) => {
                copy(parent, name, &into, expected).map_err(|cause| {
                    if !matches!(Errno::from_io_error(&cause), Some(Errno::EXIST)) {
                        // Half of it is nothing.
                        let _ = rustix::fs::unlinkat(&*into, name, AtFlags::empty());
                    }
                    self.failed(cause)
                })?;
                if let Some(entry) = &mut self.entry {
                    entry.unsettled = true;
                }
                Ok(())
            }
            Err(error) => Err(self.failed(error.into())),
        }
    }

    fn keep_directory(&mut self, path: &[u8], mode: u32, reason: Reason) -> Result<(), TrashError> {
        self.make_room(0)?;
        let (above, name) = split(path);
        let into = self.directory_in_entry(above, reason)?;
        let made = make_directory_at(&into, name, 0o700).and_then(|made| {
            Ok(rustix::fs::fchmod(
                &made,
                Mode::from_raw_mode((mode & MODE_BITS | 0o700) as _),
            )?)
        });
        made.map_err(|cause| self.failed(cause))
    }

    /// The directory of the entry for what lay in this directory of the project.
    fn directory_in_entry(&mut self, path: &[u8], reason: Reason) -> Result<Arc<OwnedFd>, TrashError> {
        let entry = match self.entry.take() {
            Some(entry) => entry,
            None => self.make_entry().map_err(|cause| self.failed(cause))?,
        };
        let entry = self.entry.insert(entry);
        if let Some((last, directory, fd)) = &entry.last
            && *last == reason
            && directory == path
        {
            return Ok(Arc::clone(fd));
        }
        let made = || {
            let mut fd = make_directory_at(&entry.fd, reason.text().as_bytes(), PARENT_MODE)?;
            for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                fd = make_directory_at(&fd, name, PARENT_MODE)?;
            }
            Ok(Arc::new(fd))
        };
        match made() {
            Ok(fd) => {
                entry.last = Some((reason, path.to_vec(), Arc::clone(&fd)));
                Ok(fd)
            }
            Err(cause) => Err(self.failed(cause)),
        }
    }

    fn make_entry(&self) -> io::Result<TrashEntry> {
        let nonce = hexadecimal::random::<8>().map_err(io::Error::other)?;
        let by = if self.dock.is_none() { BY_RESTORE } else { "" };
        let name = format!("{}.{nonce}{by}", now_ns().div_euclid(1_000_000_000));
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(&name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut lock = File::from(rustix::fs::openat(&fd, RECORD, flags, Mode::from_raw_mode(0o600))?);
        lock.lock()?;
        let record = TrashRecord {
            dockerutils_trash: VERSION,
            root: self.root.to_string_lossy().into_owned(),
            dock: self.dock.clone(),
        };
        lock.write_all(&serde_json::to_vec(&record)?)?;
        Ok(TrashEntry {
            name,
            fd,
            _lock: lock,
            bytes: 0,
            unsettled: false,
            last: None,
        })
    }

    /// Makes room for so many bytes: the oldest entries go first, and never the one that is being filled.
    fn make_room(&mut self, size: u64) -> Result<(), TrashError> {
        let limit = self.limits.bytes;
        let own = self.entry.as_ref().map_or(0, |entry| entry.bytes);
        let too_large = TrashError::TooLarge { size, limit };
        if own.saturating_add(size) > limit {
            return Err(too_large);
        }
        let mut others = match self.others.take() {
            Some(others) => others,
            None => self.weigh(),
        };
        let mut used = others.iter().fold(own, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let directory = &self.directory;
        others.retain(|(name, bytes)| {
            // One that another sync is filling stays, and counts.
            let goes = used.saturating_add(size) > limit && matches!(remove_entry(directory, name), Ok(true));
            used -= if goes { *bytes } else { 0 };
            !goes
        });
        self.others = Some(others);
        match used.saturating_add(size) > limit {
            true => Err(too_large),
            false => Ok(()),
        }
    }

    /// The entries but the one that is being filled, the oldest first, with their bytes. One that can't be read weighs
    /// nothing, and goes with its age.
    fn weigh(&self) -> Vec<(String, u64)> {
        let own = self.entry.as_ref().map(|entry| &entry.name);
        let mut names = entries(&self.directory);
        names.sort_by(|(a, begun_a), (b, begun_b)| begun_a.cmp(begun_b).then_with(|| a.cmp(b)));
        let names = names.into_iter().filter(|(name, _)| Some(name) != own);
        names
            .map(|(name, _)| {
                let files = ContextDir::open(&self.directory.join(&name)).and_then(|entry| tree(&entry));
                let bytes = files.unwrap_or_default().values().fold(0, |sum: u64, item| {
                    let size = if item.kind == ItemKind::File {
                        item.stamp.size
                    } else {
                        0
                    };
                    sum.saturating_add(size)
                });
                (name, bytes)
            })
            .collect()
    }
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Restored {
    /// What was put back.
    pub done: Vec<Version>,
    /// What was there already.
    pub same: Vec<Version>,
    /// What could not be put back and is still kept, with why.
    pub troubles: Vec<(Vec<u8>, String)>,
    /// The contents of the files and links that were put back or were there, where they are known.
    pub contents: HashMap<Vec<u8>, Content>,
    /// The bytes of what was put back.
    pub bytes: u64,
}

/// Whether a file is still what was listed. Its last change is not compared: a second name is one.
fn is_same(found: &Item, expected: &Item) -> bool {
    let key = |item: &Item| (item.kind, item.stamp.inode, item.stamp.size, item.stamp.mtime);
    key(found) == key(expected)
}

/// The names of the entries in a directory, and when they were begun.
fn entries(directory: &Path) -> Vec<(String, i64)> {
    let found = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = found.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| {
            let when = begun(&name)?;
            Some((name, when))
        })
        .collect()
}

/// Removes an entry with all that is in it; false for one that is being filled.
fn remove_entry(directory: &Path, name: &str) -> io::Result<bool> {
    let path = directory.join(name);
    let lock = File::open(path.join(RECORD));
    if let Ok(lock) = &lock
        && matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock))
    {
        return Ok(false);
    }
    match fs::remove_dir_all(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(true),
    }
}

/// Removes an entry of which nothing is kept any more.
fn discard_empty(entry: &Path) -> io::Result<()> {
    let holds = [Reason::Removed, Reason::Overwritten]
        .iter()
        .any(|reason| entry.join(reason.text()).exists());
    if holds {
        return Ok(());
    }
    fs::remove_file(entry.join(RECORD))?;
    fs::remove_dir(entry)
}

/// Removes what is kept at a path of a trash, and the directories that held nothing else, up to that of its reason.
fn discard(trash: &ContextDir, kept: &[u8]) -> Result<(), Errno> {
    let (above, name) = split(kept);
    let parent = trash.open_directory(above)?;
    let name = OsStr::from_bytes(name);
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?,
        result => result?,
    }
    let mut directory = above;
    // The first name is that of the entry.
    while let (above @ [_, ..], name) = split(directory) {
        let parent = trash.open_directory(above)?;
        match rustix::fs::unlinkat(&parent, OsStr::from_bytes(name), AtFlags::REMOVEDIR) {
            Ok(()) => directory = above,
            Err(Errno::NOTEMPTY | Errno::EXIST) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a directory unless it exists, and opens it.
fn make_directory_at(parent: &OwnedFd, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let name = OsStr::from_bytes(name);
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode((mode | 0o700) as _)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Copies a file or link, where it is still the one that was listed. A copy that fails may be there in part.
fn copy(parent: &OwnedFd, name: &OsStr, into: &OwnedFd, expected: &Item) -> io::Result<()> {
    if expected.kind == ItemKind::Symlink {
        let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
        return Ok(rustix::fs::symlinkat(&target, into, name)?);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
    let stat = rustix::fs::fstat(&source)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut kept = File::from(rustix::fs::openat(into, name, flags, Mode::from_raw_mode(0o600))?);
    // One that grows all the time ends here, and is another one then.
    io::copy(&mut source.take(expected.stamp.size.saturating_add(1)), &mut kept)?;
    rustix::fs::fchmod(&kept, Mode::from_raw_mode(mode_of(stat) as _))?;
    let time = Timespec {
        tv_sec: expected.stamp.mtime,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    // A time that the file system does not know is no reason to keep nothing.
    let _ = rustix::fs::futimens(&kept, &times);
    #[cfg(not(target_os = "linux"))]
    kept.sync_all()?;
    Ok(())
}

// The fields of `struct stat` have other types on other systems.
#[allow(clippy::useless_conversion)]
fn mode_of(stat: rustix::fs::Stat) -> u32 {
    u32::from(stat.st_mode) & MODE_BITS
}

/// All that lies in a directory of the trash.
fn tree(trash: &ContextDir) -> Result<Tree, build_context::WalkError> {
    let mut tree = Tree::new();
    for entry in trash.walk(&WalkOptions::default())? {
        let entry = entry?;
        // A trash is on one file system.
        if let Some(item) = walked(&entry, entry.device) {
            tree.insert(entry.path, item);
        }
    }
    Ok(tree)
}

/// What a record says; nothing of one that was never finished.
fn read_record(path: &Path) -> TrashRecord {
    fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

/// Forgets that both sides had what was restored: a sync that was cut short may remember that still, and the next one would
/// take it again. Whether there was any.
pub fn forget(records: &mut Records, restored: &HashMap<Vec<u8>, Content>) -> bool {
    let before = records.len();
    records.retain(|path, record| restored.get(path) != Some(&record.content));
    records.len() < before
}

/// The docks with which what is kept was synced.
pub fn docks(versions: &[Version]) -> BTreeSet<&str> {
    versions.iter().filter_map(|version| version.dock.as_deref()).collect()
}
