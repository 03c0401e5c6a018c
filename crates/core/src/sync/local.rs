//! This machine's side: the files of the project, and changing them.
//!
//! All goes from the root by descriptors that follow no symbolic link. What is put comes complete from a directory of
//! ours in the root, by one rename, and only in the place of what was listed there: who saved a file meanwhile keeps it.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::clock::{Clocks, now_ns};
use super::listing::below_root;
use super::{Content, Item, ItemKind, MODE_BITS, OWN_DIRECTORY, Stamp, Tree, split};
use crate::error::{Error, Result};
use crate::hexadecimal;
use crate::hint;
use crate::project_file;
use build_context::{ContextDir, WalkError, WalkOptions};

/// How the name of a process's directory begins, in ours.
const STAGE: &str = "stage.";
/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// A path of the project that could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Somebody was faster; it is as they left it.
    #[error("it changed meanwhile")]
    Meanwhile,
    /// A mount is in between.
    #[error("it is on another file system than the project")]
    OtherFileSystem,
    /// The system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for LocalError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::XDEV => Self::OtherFileSystem,
            error => Self::Io(error.into()),
        }
    }
}

/// What was listed.
#[derive(Debug)]
pub struct Listed {
    /// The files.
    pub tree: Tree,
    /// When it was begun, in nanoseconds since 1970.
    pub begun_ns: i64,
    /// How finely the project's file systems tell times.
    pub clocks: Clocks,
    /// Pipes and devices: a build would get them, a sync leaves them out.
    pub others: Vec<Vec<u8>>,
    /// Links that `.dockerignore` leaves out, and directories that it leaves out with all that is in them.
    pub left_out: Vec<Vec<u8>>,
}

/// A directory, told from every other that has its path later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootIdentity {
    inode: u64,
    /// The number of its file system until the next restart.
    device: u64,
    /// What the file system itself calls its number; not every one keeps it over a restart.
    file_system: u64,
    /// When it was made, where the file system knows it.
    born_ns: Option<u64>,
}

impl RootIdentity {
    /// Whether both are one and the same.
    pub fn is(&self, other: &Self) -> bool {
        let same_born = match (self.born_ns, other.born_ns) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        let same_disk = self.device == other.device || (self.file_system != 0 && self.file_system == other.file_system);
        self.inode == other.inode && same_born && same_disk
    }
}

/// The project's folder.
#[derive(Clone, Debug)]
pub struct Local {
    context: ContextDir,
    /// The number of the file system that the root is on.
    device: u64,
}

impl Local {
    /// Of the project's root.
    ///
    /// # Errors
    /// A root that can't be opened.
    pub fn open(root: &Path) -> Result<Self, WalkError> {
        let context = ContextDir::open(root)?;
        let failed = |source: io::Error| WalkError::Io {
            action: "read",
            path: root.to_owned(),
            source,
        };
        let directory = context.open_directory(b"").map_err(|error| failed(error.into()))?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| failed(error.into()))?;
        Ok(Self {
            context,
            device: device(&stat),
        })
    }

    /// By what the project's folder is told from another one that has its place later: a clone made anew, a disk that is
    /// mounted there.
    ///
    /// # Errors
    /// What the system says.
    pub fn identity(&self) -> io::Result<RootIdentity> {
        let directory = self.context.open_directory(b"")?;
        let space = rustix::fs::fstatvfs(&directory)?;
        let found = File::from(directory).metadata()?;
        let born = found
            .created()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(RootIdentity {
            inode: std::os::unix::fs::MetadataExt::ino(&found),
            device: self.device,
            file_system: space.f_fsid,
            born_ns: born.and_then(|since| u64::try_from(since.as_nanos()).ok()),
        })
    }

    /// The root: absolute, without symbolic links.
    pub fn root(&self) -> &Path {
        self.context.path()
    }

    /// Its files, as a build would get them.
    pub(super) const fn context(&self) -> &ContextDir {
        &self.context
    }

    /// The patterns of the project's `.dockerignore`, which must be a file of its own: what it says decides what leaves this
    /// machine. No link is followed, no pipe is waited for, and one that is too long is not read in part.
    ///
    /// # Errors
    /// A file that can't be read, or that Docker refuses.
    pub fn patterns(&self) -> Result<Vec<Vec<u8>>> {
        let path = self.root().join(".dockerignore");
        let refused = |what: &str| Error::failed(format!("{} {what}, and nothing is synced", path.display()));
        let unread = |cause: io::Error| {
            refused("can't be read")
                .because(cause)
                .hint("it lists what stays on this machine: put a text file there, or remove it to sync everything")
        };
        let file = match project_file::open(&path, false) {
            Ok((file, _)) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) => {
                let path = path.to_string_lossy();
                return Err(refused("is a symbolic link").because(cause).hint(hint!(
                    "put the file itself there: cp --remove-destination \"$(readlink -f {})\" {}",
                    path,
                    path
                )));
            }
            Err(cause) => return Err(unread(cause)),
        };
        let text = project_file::all(file).map_err(unread)?;
        build_context::ignore::read(&text)
            .map_err(|cause| Error::usage("the project's .dockerignore is wrong").because(cause))
    }

    /// How many bytes are free on the project's disk for this user, and how many files; `None` where the system does not say.
    pub fn free(&self) -> (Option<u64>, Option<u64>) {
        let root = self.context.open_directory(b"").ok();
        let Some(found) = root.and_then(|root| rustix::fs::fstatvfs(root).ok()) else {
            return (None, None);
        };
        let bytes = (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize));
        (bytes, (found.f_files > 0).then_some(found.f_favail))
    }

    /// Lists what a `COPY . .` would get, but for our own directory and for `without`; `one` hears of each.
    ///
    /// # Errors
    /// What can't be listed, and a wrong pattern.
    pub fn list(&self, patterns: &[Vec<u8>], without: &BTreeSet<Vec<u8>>, one: &dyn Fn()) -> Result<Listed, WalkError> {
        let begun_ns = now_ns();
        let options = WalkOptions {
            exclude: patterns.to_vec(),
            ..WalkOptions::default()
        };
        let mut tree = Tree::new();
        let mut others = Vec::new();
        let mut clocks = Clocks::default();
        let mut walk = self.context.walk(&options)?;
        for entry in walk.by_ref() {
            let entry = entry?;
            one();
            if entry.path.split(|byte| *byte == b'/').next() == Some(OWN_DIRECTORY) || without.contains(&entry.path) {
                continue;
            }
            let Some(item) = walked(&entry, self.device) else {
                others.push(entry.path);
                continue;
            };
            clocks.learn(item.device, &item.stamp);
            tree.insert(entry.path, item);
        }
        Ok(Listed {
            tree,
            begun_ns,
            clocks,
            others,
            left_out: walk.left_out(),
        })
    }

    /// Whether the root's file system takes names for one that differ in capitals alone: as far as a name in it tells.
    pub fn folds(&self, tree: &Tree) -> bool {
        let swapped = |name: &[u8]| -> Vec<u8> {
            let swap = |byte: &u8| match byte.is_ascii_lowercase() {
                true => byte.to_ascii_uppercase(),
                false => byte.to_ascii_lowercase(),
            };
            name.iter().map(swap).collect()
        };
        let top = tree.iter().filter(|(path, _)| !path.contains(&b'/'));
        let told = top
            .map(|(path, item)| (swapped(path), path, item))
            .find(|(other, path, _)| other != *path);
        told.is_some_and(|(other, _, item)| {
            matches!(self.look(&other), Ok(Some(found)) if found.stamp.inode == item.stamp.inode && !tree.contains_key(&other))
        })
    }

    /// What is at a path now; `None` for nothing, and for what does not travel.
    ///
    /// # Errors
    /// A directory on the way that can't be opened; a link is not accepted as a directory.
    pub fn look(&self, path: &[u8]) -> Result<Option<Item>, LocalError> {
        let (parent, name) = split(path);
        let parent = match self.context.open_directory(parent) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.look_at(&parent, name)
    }

    /// The contents of files and links. What vanished or can't be read is missing.
    pub fn contents(&self, paths: &[Vec<u8>]) -> HashMap<Vec<u8>, Content> {
        self.contents_counted(paths, &|| ())
    }

    /// The same; `one` hears of each.
    pub fn contents_counted(&self, paths: &[Vec<u8>], one: &(dyn Fn() + Sync)) -> HashMap<Vec<u8>, Content> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        let part = paths.len().div_ceil(threads).max(64);
        std::thread::scope(|scope| {
            let workers: Vec<_> = paths
                .chunks(part)
                .map(|paths| {
                    scope.spawn(move || {
                        let known = paths
                            .iter()
                            .inspect(|_| one())
                            .filter_map(|path| Some((path.clone(), self.content(path)?)));
                        known.collect::<Vec<_>>()
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_default())
                .collect()
        })
    }

    fn content(&self, path: &[u8]) -> Option<Content> {
        if let Ok(Some(item)) = self.look(path)
            && let Some(target) = item.target
        {
            return Some(Content::of(&target));
        }
        contents_of(self.context.open_file(path).ok()?)
    }

    /// Opens a file of the project, and says what it is.
    ///
    /// # Errors
    /// As [`ContextDir::open_file`].
    pub fn open_file(&self, path: &[u8]) -> Result<(File, Item), WalkError> {
        let file = self.context.open_file(path)?;
        let item = self.item_of(&file).map_err(|source| WalkError::Io {
            action: "read",
            path: self.root().join(OsStr::from_bytes(path)),
            source,
        })?;
        Ok((file, item))
    }

    /// Takes a file out of a directory of the stage that rsync has filled, and says what it is; `None` where there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn take(
        &self,
        stage: &StagingDirectory,
        directory: &str,
        path: &[u8],
        staged: &str,
    ) -> Result<Option<Item>, LocalError> {
        let own = [OWN_DIRECTORY, b"/", directory.as_bytes()].concat();
        let (parent, name) = split(path);
        let parent = match parent {
            b"" => own,
            parent => [own.as_slice(), b"/", parent].concat(),
        };
        let parent = self.context.open_directory(&parent)?;
        if !matches!(self.look_at(&parent, name)?, Some(item) if item.kind == ItemKind::File) {
            return Ok(None);
        }
        rustix::fs::renameat(&parent, OsStr::from_bytes(name), &stage.fd, staged)?;
        self.look_at(&stage.fd, staged.as_bytes())
    }

    /// A directory of this process in ours, for files that are being received.
    ///
    /// # Errors
    /// A root that can't be written to, and a full disk.
    pub fn stage(&self) -> io::Result<StagingDirectory> {
        let own = self.root().join(OsStr::from_bytes(OWN_DIRECTORY));
        loop {
            match private_directory(&own) {
                // A project may be a workspace itself: then there is one, and its mark is in it.
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => own_directory(&own)?,
                made => made?,
            }
            let nonce = hexadecimal::random::<8>().map_err(io::Error::other)?;
            let name = format!("{STAGE}{nonce}");
            let path = own.join(&name);
            match private_directory(&path) {
                // Another process was the last to leave, and took ours with it.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                made => made?,
            }
            // Locked until this process ends: what no process has locked was left behind.
            let Some(fd) = held(&path)? else { continue };
            if fs::symlink_metadata(&path).is_ok() {
                return Ok(StagingDirectory {
                    own,
                    name,
                    path,
                    fd,
                    next: AtomicU64::new(0),
                });
            }
        }
    }

    /// Removes what syncs left behind that were killed.
    pub fn clean(&self) {
        let own = self.root().join(OsStr::from_bytes(OWN_DIRECTORY));
        if own_directory(&own).is_err() {
            return;
        }
        for entry in fs::read_dir(&own).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.as_bytes().starts_with(STAGE.as_bytes())
                && let Ok(Some(_held)) = held(&entry.path())
            {
                // Where that fails, the next sync tries it again.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        // A workspace's mark keeps it.
        let _ = fs::remove_dir(own);
    }

    /// Puts a received file or link in its place, by one rename; `expected` is what was listed there.
    ///
    /// # Errors
    /// Somebody else's change meanwhile, which stays; a system that refuses.
    pub fn put(
        &self,
        path: &[u8],
        staged: &str,
        stage: &StagingDirectory,
        expected: Option<&Item>,
    ) -> Result<Item, LocalError> {
        let (parent, name) = split(path);
        let parent = self.context.open_directory(parent).map_err(meanwhile)?;
        self.check(&parent, name, expected)?;
        let to = OsStr::from_bytes(name);
        let rename = |flags| rustix::fs::renameat_with(&stage.fd, staged, &parent, to, flags);
        let plain = || rustix::fs::renameat(&stage.fd, staged, &parent, to);
        match expected {
            None => match rename(RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return Err(LocalError::Meanwhile),
                // A file system that can't: between the look and the rename it is a matter of microseconds.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => plain()?,
                result => result?,
            },
            Some(expected) => match rename(RenameFlags::EXCHANGE) {
                Ok(()) => {
                    // What was there is ours now: if it is not what was listed, it goes back.
                    let was = self.look_at(&stage.fd, staged.as_bytes())?;
                    let same = was.is_some_and(|was| {
                        (was.stamp.inode, was.stamp.size, was.stamp.mtime)
                            == (expected.stamp.inode, expected.stamp.size, expected.stamp.mtime)
                    });
                    if !same {
                        rename(RenameFlags::EXCHANGE)?;
                        return Err(LocalError::Meanwhile);
                    }
                    // It lies in the stage, and goes with it.
                    let _ = rustix::fs::unlinkat(&stage.fd, staged, AtFlags::empty());
                }
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => plain()?,
                Err(Errno::NOENT) => return Err(LocalError::Meanwhile),
                Err(error) => return Err(error.into()),
            },
        }
        self.look_at(&parent, name)?.ok_or(LocalError::Meanwhile)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// Something that is there meanwhile and is none.
    pub fn make_directory(&self, path: &[u8], mode: u32) -> Result<Item, LocalError> {
        let (parent, name) = split(path);
        let parent = self.context.open_directory(parent).map_err(meanwhile)?;
        match rustix::fs::mkdirat(&parent, OsStr::from_bytes(name), Mode::from_raw_mode(0o700 as _)) {
            Ok(()) => {}
            Err(Errno::EXIST) => match self.look_at(&parent, name)? {
                Some(item) if item.kind == ItemKind::Directory => return Ok(item),
                _ => return Err(LocalError::Meanwhile),
            },
            Err(error) => return Err(error.into()),
        }
        self.set_mode(path, mode | 0o700, ItemKind::Directory)
    }

    /// Gives a file or directory a mode.
    ///
    /// # Errors
    /// Something else in its place meanwhile; a system that refuses.
    pub fn set_mode(&self, path: &[u8], mode: u32, kind: ItemKind) -> Result<Item, LocalError> {
        let file: File = match kind {
            ItemKind::Directory => self.context.open_directory(path).map_err(meanwhile)?.into(),
            _ => self.context.open_file(path).map_err(|error| match error {
                WalkError::Io { source, .. } => LocalError::Io(source),
                _ => LocalError::Meanwhile,
            })?,
        };
        let kept = fs_mode(&file)? & !MODE_BITS;
        rustix::fs::fchmod(&file, Mode::from_raw_mode((kept | mode) as _))?;
        Ok(self.item_of(&file)?)
    }

    /// Removes a file, a link, or a directory that is empty; true where it is gone. One that holds something, even if only
    /// what is ignored, stays.
    ///
    /// # Errors
    /// As [`Local::put`].
    pub fn remove(&self, path: &[u8], expected: &Item) -> Result<bool, LocalError> {
        let (parent, name) = split(path);
        let parent = match self.context.open_directory(parent) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let directory = expected.kind == ItemKind::Directory;
        let flags = match directory {
            true => AtFlags::REMOVEDIR,
            false => {
                self.check(&parent, name, Some(expected))?;
                AtFlags::empty()
            }
        };
        match rustix::fs::unlinkat(&parent, OsStr::from_bytes(name), flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) if directory => Ok(false),
            Err(Errno::NOTDIR) => Err(LocalError::Meanwhile),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the system write down what was put: a power cut must not leave empty files that then count as changes.
    ///
    /// # Errors
    /// A disk that can't be written to.
    pub fn settle(&self) -> io::Result<()> {
        let root = self.context.open_directory(b"")?;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(root)?;
        #[cfg(not(target_os = "linux"))]
        {
            drop(root);
            rustix::fs::sync();
        }
        Ok(())
    }

    fn check(&self, parent: &OwnedFd, name: &[u8], expected: Option<&Item>) -> Result<(), LocalError> {
        let found = self.look_at(parent, name)?;
        let same = match (&found, expected) {
            (None, None) => true,
            (Some(found), Some(expected)) => found.kind == expected.kind && found.stamp == expected.stamp,
            _ => false,
        };
        if same { Ok(()) } else { Err(LocalError::Meanwhile) }
    }

    fn look_at(&self, parent: &OwnedFd, name: &[u8]) -> Result<Option<Item>, LocalError> {
        let name = OsStr::from_bytes(name);
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut item = item(&stat, self.device);
        if let Some(item) = &mut item
            && item.kind == ItemKind::Symlink
        {
            item.target = rustix::fs::readlinkat(parent, name, Vec::new())
                .ok()
                .map(|target| target.into_bytes());
        }
        Ok(item)
    }

    fn item_of(&self, file: &File) -> io::Result<Item> {
        let stat = rustix::fs::fstat(file.as_fd())?;
        item(&stat, self.device).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// What a walk has met, where `root` is the root's file system; `None` for what does not travel.
pub(super) fn walked(entry: &build_context::ContextEntry, root: u64) -> Option<Item> {
    let (kind, target) = match &entry.kind {
        build_context::FileKind::Directory => (ItemKind::Directory, None),
        build_context::FileKind::File | build_context::FileKind::HardLink(_) => (ItemKind::File, None),
        build_context::FileKind::Symlink(target) => (ItemKind::Symlink, Some(target.clone())),
        _ => return None,
    };
    Some(Item {
        kind,
        mode: entry.permissions & MODE_BITS,
        stamp: Stamp {
            size: entry.size,
            mtime: entry.mtime_ns.div_euclid(1_000_000_000),
            ctime_ns: entry.ctime_ns,
            inode: entry.inode,
        },
        owner: entry.uid,
        device: below_root(entry.device, root),
        target,
    })
}

/// The contents of an open file; `None` if it can't be read.
pub fn contents_of(mut file: File) -> Option<Content> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Some(Content(hash.finalize().into())),
            Ok(read) => hash.update(buffer.get(..read)?),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A directory of this process in ours, while files are received. It goes when this is dropped.
#[derive(Debug)]
pub struct StagingDirectory {
    own: PathBuf,
    name: String,
    path: PathBuf,
    fd: OwnedFd,
    /// How many names were given out.
    next: AtomicU64,
}

impl StagingDirectory {
    /// A name that nothing in it has yet, whoever asks at the same time.
    pub fn free_name(&self) -> String {
        self.next.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// The name of a directory in it, seen from our own directory in the project.
    pub fn directory(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }

    /// Makes a new file in it.
    ///
    /// # Errors
    /// A full disk, and its like.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(rustix::fs::openat(&self.fd, name, flags, mode)?.into())
    }

    /// Opens a file in it again.
    ///
    /// # Errors
    /// One that is not there.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into())
    }

    /// Makes a symbolic link in it.
    ///
    /// # Errors
    /// As [`StagingDirectory::create`].
    pub fn link(&self, name: &str, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(OsStr::from_bytes(target), &self.fd, name)?)
    }

    /// Gives a file its mode and its time, before it is put in place.
    ///
    /// # Errors
    /// A system that refuses.
    pub fn finish(&self, name: &str, mode: u32, mtime: i64) -> io::Result<()> {
        let file = self.open(name)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode as _))?;
        let time = Timespec {
            tv_sec: mtime,
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        // A time that the file system does not know is no reason to leave the file behind.
        let _ = rustix::fs::futimens(&file, &times);
        Ok(())
    }
}

impl Drop for StagingDirectory {
    fn drop(&mut self) {
        // The next sync removes what this can't.
        let _ = fs::remove_dir_all(&self.path);
        // Another process, or a workspace's mark, keeps it.
        let _ = fs::remove_dir(&self.own);
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Checks that our own directory is one, and not a link to another.
fn own_directory(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} is in the way, and is not a directory of ours", path.display()),
    ))
}

/// Opens a directory and locks it; `None` where another process holds it, or where it is gone.
fn held(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(None),
        locked => Ok(locked.map(|()| Some(fd))?),
    }
}

/// A directory on the way is gone, or became a link: what was listed is not so any more.
fn meanwhile(error: Errno) -> LocalError {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => LocalError::Meanwhile,
        error => error.into(),
    }
}

fn fs_mode(file: &File) -> io::Result<u32> {
    Ok(std::os::unix::fs::MetadataExt::mode(&file.metadata()?) & 0o7777)
}

// The fields of `struct stat` have other types on other systems.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
fn device(stat: &Stat) -> u64 {
    stat.st_dev as u64
}

// As above.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
fn item(stat: &Stat, root: u64) -> Option<Item> {
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => ItemKind::File,
        rustix::fs::FileType::Directory => ItemKind::Directory,
        rustix::fs::FileType::Symlink => ItemKind::Symlink,
        _ => return None,
    };
    let ctime = (stat.st_ctime as i64).saturating_mul(1_000_000_000);
    Some(Item {
        kind,
        mode: u32::from(stat.st_mode) & MODE_BITS,
        stamp: Stamp {
            size: match kind {
                ItemKind::Directory => 0,
                _ => u64::try_from(stat.st_size).unwrap_or_default(),
            },
            mtime: stat.st_mtime as i64,
            ctime_ns: ctime.saturating_add(stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
        },
        owner: stat.st_uid,
        device: below_root(device(stat), root),
        target: None,
    })
}
