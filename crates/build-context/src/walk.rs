//! The walk of a build context, entry by entry.
//!
//! The entries, their order and their numbers are those of `github.com/tonistiigi/fsutil`, with which
//! BuildKit's clients list a context: names in byte order and a directory's entries right after it (so `/`
//! sorts before all else), modes as Go's `os.FileMode`, the second name of a file as a hard link to the
//! first, extended attributes but for Apple's. It differs in two places: a socket is left out (fsutil makes an
//! empty file of it), and only the file that vanishes under the walk is missing (fsutil also drops
//! the rest of its directory).
//!
//! The walk goes from directory to directory by file descriptor and follows no symbolic link, so it
//! cannot be led out of the context. It holds one directory's names for each level that it is deep, and
//! the name of each file that has several.

use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::follow::follow_links;
use super::ignore::{Builder, ParentMatches, PatternError, Patterns};
use super::stand_in::StandIn;

/// How many directories the walk keeps open; deeper trees have the outer ones opened again.
const OPEN_DIRECTORIES: usize = 64;

/// The most that the kernel returns for the names, or for the value, of extended attributes.
const LARGEST_XATTR: usize = 64 * 1024;

/// How the name of a version file begins while it is written, in the context's root. It may be gone in the next moment, and is
/// never listed: the docker client's build would break off for it.
pub const ASIDE: &str = "._version.py.bld.";

/// A build context that cannot be listed or read.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A file or directory that the system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `open`, `list`, `read`, ...
        action: &'static str,
        /// The path, with the context's own before it.
        path: PathBuf,
        /// Why it was refused.
        source: io::Error,
    },
    /// A file was asked for, and this is something else.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A pattern of `.dockerignore` or of the builder.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// Another name of the regular file at this path, which came earlier.
    HardLink(Vec<u8>),
    /// A symbolic link, and the text in it.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A block device.
    BlockDevice(Device),
    /// A character device.
    CharDevice(Device),
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// The names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A file, directory or other thing in a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextEntry {
    /// Relative to the context, with `/` between names.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Permission, set-user-ID, set-group-ID and sticky bits, as Unix has them (at most `0o7777`).
    pub permissions: u32,
    /// The owner on this machine. What is sent to a builder belongs to 0.
    pub uid: u32,
    /// The group on this machine.
    pub gid: u32,
    /// In bytes; 0 for directories. A hard link has the size of its file, though nothing is sent for it.
    pub size: u64,
    /// Last modification, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Last change of contents or attributes, in nanoseconds since 1970; no program can set it.
    pub ctime_ns: i64,
    /// Its number in its file system.
    pub inode: u64,
    /// The file system's number on this machine, which may be another after a restart.
    pub device: u64,
    /// Extended attributes, in the order of the file system.
    pub xattrs: Xattrs,
}

impl ContextEntry {
    /// The path, for the functions of the standard library.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// What a symbolic or hard link points to; empty for everything else, as in `fsutil.types.Stat`.
    #[must_use]
    pub fn link_name(&self) -> &[u8] {
        match &self.kind {
            FileKind::HardLink(target) | FileKind::Symlink(target) => target,
            _ => b"",
        }
    }

    /// The device's number, for devices.
    #[must_use]
    pub fn device(&self) -> Option<Device> {
        match self.kind {
            FileKind::BlockDevice(device) | FileKind::CharDevice(device) => Some(device),
            _ => None,
        }
    }

    /// The mode as Go's `os.FileMode` (<https://pkg.go.dev/io/fs#FileMode>), which fsutil sends.
    #[must_use]
    pub fn go_mode(&self) -> u32 {
        const DIRECTORY: u32 = 1 << 31;
        const SYMLINK: u32 = 1 << 27;
        const DEVICE: u32 = 1 << 26;
        const NAMED_PIPE: u32 = 1 << 25;
        const SETUID: u32 = 1 << 23;
        const SETGID: u32 = 1 << 22;
        const CHAR_DEVICE: u32 = 1 << 21;
        const STICKY: u32 = 1 << 20;
        let kind = match self.kind {
            FileKind::Directory => DIRECTORY,
            FileKind::File | FileKind::HardLink(_) => 0,
            FileKind::Symlink(_) => SYMLINK,
            FileKind::Fifo => NAMED_PIPE,
            FileKind::BlockDevice(_) => DEVICE,
            FileKind::CharDevice(_) => DEVICE | CHAR_DEVICE,
        };
        let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];
        special
            .iter()
            .filter(|(unix, _)| self.permissions & unix != 0)
            .fold(kind | (self.permissions & 0o777), |mode, (_, go)| mode | go)
    }
}

/// The folder that is a build context.
#[derive(Debug, Clone)]
pub struct ContextDir {
    fd: Arc<OwnedFd>,
    path: Arc<Path>,
    stand_in: Option<Arc<StandIn>>,
}

impl ContextDir {
    /// Opens the folder. It may be named through a symbolic link.
    ///
    /// # Errors
    ///
    /// It is not there, is no directory, or may not be read.
    pub fn open(path: &Path) -> Result<Self, WalkError> {
        let failed = |source| WalkError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        };
        let real = path.canonicalize().map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &real, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        Ok(Self {
            fd: Arc::new(fd),
            path: real.into(),
            stand_in: None,
        })
    }

    /// The same, in which a file of it is listed and read under a name that it lacks, too.
    #[must_use]
    pub fn with_stand_in(mut self, stand_in: Option<StandIn>) -> Self {
        self.stand_in = stand_in.map(Arc::new);
        self
    }

    /// What is read under this name, where that is another file.
    fn stand_in(&self, path: &[u8]) -> Option<&StandIn> {
        let stand_in = self.stand_in.as_deref()?;
        stand_in.counts(self.fd.as_fd(), path).then_some(stand_in)
    }

    /// Where it is: absolute, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the entries that the options choose.
    ///
    /// # Errors
    ///
    /// A pattern that Docker refuses; a symbolic link of [`WalkOptions::follow`] that cannot be read; a
    /// context that cannot be listed.
    pub fn walk(&self, options: &WalkOptions) -> Result<Walk, WalkError> {
        let filter = Filter::new(self, options)?;
        Walk::new(self.clone(), filter)
    }

    /// Opens a regular file of the context for reading. No symbolic link is followed, in no part of the
    /// path, and opening never waits (for the other end of a pipe that has taken the file's place).
    ///
    /// # Errors
    ///
    /// The file is not there, may not be read, or is no regular file.
    pub fn open_file(&self, path: &[u8]) -> Result<File, WalkError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let path = self.stand_in(path).map_or(path, |stand_in| &stand_in.file);
        let error = |error| io_error("open", self.locate(path), error);
        let fd = self.open_beneath(path, flags).map_err(error)?;
        let stat = rustix::fs::fstat(&fd).map_err(error)?;
        if file_type(&stat) != FileType::RegularFile {
            return Err(WalkError::NotAFile(self.locate(path)));
        }
        Ok(fd.into())
    }

    /// The target of a symbolic link of the context, or `None` for anything else.
    pub(super) fn read_link(&self, path: &[u8]) -> Result<Option<Vec<u8>>, WalkError> {
        if self.stand_in(path).is_some() {
            return Ok(None);
        }
        let (parent, name) = split(path);
        let target = self
            .open_directory(parent)
            .and_then(|parent| rustix::fs::readlinkat(parent, OsStr::from_bytes(name), Vec::new()));
        match target {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(error) if error == Errno::INVAL || is_gone(error) => Ok(None),
            Err(error) => Err(io_error("read", self.locate(path), error)),
        }
    }

    /// The names in a directory of the context, in order; empty if it does not exist.
    pub(super) fn names_in(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, WalkError> {
        let names = self
            .open_directory(path)
            .and_then(|directory| DirectoryNames::read(directory.as_fd()));
        match names {
            Ok(mut names) => {
                let mut all = Vec::new();
                while let Some((name, _)) = names.next() {
                    all.push(name.to_bytes().to_vec());
                }
                Ok(all)
            }
            Err(error) if is_gone(error) => Ok(Vec::new()),
            Err(error) => Err(io_error("list", self.locate(path), error)),
        }
    }

    /// Opens a directory of the context; no symbolic link is followed, in no part of the path.
    pub fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::ResolveFlags;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let name = OsStr::from_bytes(path);
            match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve) {
                // An old kernel, or a sandbox that does not know the call.
                Err(Errno::NOSYS | Errno::PERM) => {}
                result => return result,
            }
        }
        self.open_stepwise(path, flags)
    }

    /// Opens a path by one directory at a time, where the kernel cannot do it safely by itself.
    fn open_stepwise(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let (parents, name) = split(path);
        let mut directory = None;
        for parent in parents.split(|byte| *byte == b'/') {
            let parent: &[u8] = match parent {
                b"" => continue,
                b".." => return Err(Errno::XDEV),
                parent => parent,
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let above = directory.as_ref().unwrap_or(&*self.fd);
            let opened = rustix::fs::openat(above, OsStr::from_bytes(parent), flags, Mode::empty())?;
            directory = Some(opened);
        }
        if name == b".." {
            return Err(Errno::XDEV);
        }
        let above = directory.as_ref().unwrap_or(&*self.fd);
        rustix::fs::openat(above, OsStr::from_bytes(name), flags, Mode::empty())
    }

    /// A path in the context, for people.
    pub(super) fn locate(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }
}

/// The directory of a path, and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    match slash.and_then(|slash| path.split_at_checked(slash)) {
        Some((parent, name)) => (parent, name.get(1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// Which entries of a context are listed. By default, all.
#[derive(Debug, Clone, Default)]
pub struct WalkOptions {
    /// Only what one of these matches, when there are any.
    pub include: Vec<Vec<u8>>,
    /// Not what these match.
    pub exclude: Vec<Vec<u8>>,
    /// Nor what these match, whatever `exclude` says: they are judged by themselves, so that no other pattern takes an
    /// exception from them.
    pub withhold: Vec<Vec<u8>>,
    /// Paths, with wildcards in their names, that are added to `include` together with all that the
    /// symbolic links in them lead to.
    pub follow: Vec<Vec<u8>>,
    /// Whose client's rules hold inside excluded directories.
    pub builder: Builder,
}

/// The patterns of a walk.
#[derive(Debug)]
struct Filter {
    include: Option<Patterns>,
    /// Each judged by itself: in one list, an exception for a file counts although a later pattern leaves out its directory, where
    /// that directory was left out before.
    exclude: [Patterns; 2],
    builder: Builder,
}

/// What the filter makes of an entry.
struct FilterDecision {
    listed: bool,
    /// For directories: whether anything in them may be listed.
    descend: bool,
    matches: Matches,
}

/// What a directory's entries inherit.
#[derive(Debug, Default)]
struct Matches {
    include: ParentMatches,
    exclude: [ParentMatches; 2],
}

impl Filter {
    fn new(context: &ContextDir, options: &WalkOptions) -> Result<Self, WalkError> {
        let mut include = options.include.clone();
        if let Some(targets) = follow_links(context, &options.follow)? {
            include.extend(targets);
            include = super::follow::without_nested(include).unwrap_or_default();
        }
        let include = (!include.is_empty()).then(|| Patterns::parse(include)).transpose()?;
        Ok(Self {
            include,
            exclude: [Patterns::parse(&options.exclude)?, Patterns::parse(&options.withhold)?],
            builder: options.builder,
        })
    }

    fn judge(&self, path: &[u8], is_directory: bool, parent: &Matches) -> Result<FilterDecision, PatternError> {
        let mut verdict = FilterDecision {
            listed: true,
            descend: is_directory,
            matches: Matches::default(),
        };
        if let Some(patterns) = &self.include {
            let included = if is_directory {
                let (included, matches) = patterns.matches_directory(path, &parent.include)?;
                verdict.matches.include = matches;
                included
            } else {
                patterns.matches_below(path, &parent.include)?
            };
            if !included {
                verdict.listed = false;
                verdict.descend &= patterns.match_below(path);
                if is_directory && !verdict.descend {
                    return Ok(verdict);
                }
            }
        }
        let lists = self
            .exclude
            .iter()
            .zip(&parent.exclude)
            .zip(&mut verdict.matches.exclude);
        for ((patterns, parent), own) in lists {
            if patterns.is_empty() {
                continue;
            }
            let excluded = if is_directory {
                let (excluded, matches) = patterns.matches_directory(path, parent)?;
                *own = matches;
                excluded
            } else {
                patterns.matches_below(path, parent)?
            };
            if excluded {
                verdict.listed = false;
                verdict.descend &= patterns.exception_below(path, self.builder);
            }
        }
        Ok(verdict)
    }
}

/// Decides, path by path, what a [`Walk`] with the same patterns would list of a tree that is described, and not here.
#[derive(Debug)]
pub struct Selector {
    filter: Filter,
    /// What the directories that were asked about leave to their entries; `None` where nothing in them is listed.
    directories: HashMap<Vec<u8>, Option<Arc<Matches>>>,
}

impl Selector {
    /// Of the patterns of `.dockerignore`, as [`read`](super::ignore::read) gives them.
    ///
    /// # Errors
    ///
    /// A pattern that Docker refuses.
    pub fn new(exclude: &[Vec<u8>], builder: Builder) -> Result<Self, PatternError> {
        let filter = Filter {
            include: None,
            exclude: [Patterns::parse(exclude)?, Patterns::default()],
            builder,
        };
        let root = (Vec::new(), Some(Arc::default()));
        Ok(Self {
            filter,
            directories: HashMap::from([root]),
        })
    }

    /// Whether the entry would be listed for its own sake. (A directory that is left out is listed all the same, where
    /// something in it is.)
    ///
    /// # Errors
    ///
    /// A pattern that turns out to be wrong.
    pub fn lists(&mut self, path: &[u8], is_directory: bool) -> Result<bool, PatternError> {
        let Some(parent) = self.below(split(path).0)? else {
            return Ok(false);
        };
        let verdict = self.filter.judge(path, is_directory, &parent)?;
        let listed = verdict.listed;
        if is_directory {
            let matches = verdict.descend.then(|| Arc::new(verdict.matches));
            self.directories.insert(path.to_vec(), matches);
        }
        Ok(listed)
    }

    /// What a directory leaves to its entries.
    fn below(&mut self, directory: &[u8]) -> Result<Option<Arc<Matches>>, PatternError> {
        if let Some(known) = self.directories.get(directory) {
            return Ok(known.clone());
        }
        // From the root down: a path from elsewhere may be deeper than a stack.
        let ends = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends: Vec<usize> = ends.map(|(at, _)| at).chain([directory.len()]).collect();
        let mut matches = self.directories.get(&b""[..]).cloned().flatten();
        for above in ends.into_iter().filter_map(|end| directory.get(..end)) {
            matches = match (self.directories.get(above), matches) {
                (Some(known), _) => known.clone(),
                (None, None) => None,
                (None, Some(parent)) => {
                    let verdict = self.filter.judge(above, true, &parent)?;
                    let matches = verdict.descend.then(|| Arc::new(verdict.matches));
                    self.directories.insert(above.to_vec(), matches.clone());
                    matches
                }
            };
        }
        Ok(matches)
    }
}

/// The entries of a context, in order: see [`ContextDir::walk`].
///
/// It ends after an error.
#[derive(Debug)]
pub struct Walk {
    context: ContextDir,
    filter: Filter,
    /// The directories on the way to the next entry, outermost first.
    levels: Vec<Level>,
    /// The path of the entry that is looked at.
    path: Vec<u8>,
    /// Directories that were left out until something in them was not, and that something.
    ready: VecDeque<ContextEntry>,
    /// The first path of each file with several names, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    xattrs: XattrReader,
    left_out: Vec<Vec<u8>>,
}

/// A directory that is being listed.
#[derive(Debug)]
struct Level {
    /// `None` where too many are open already.
    fd: Option<OwnedFd>,
    names: DirectoryNames,
    /// How much of [`Walk::path`] is this directory's, its slash included.
    prefix: usize,
    matches: Matches,
    /// Its own entry, not listed yet.
    pending: Option<ContextEntry>,
}

impl Walk {
    fn new(context: ContextDir, filter: Filter) -> Result<Self, WalkError> {
        // A descriptor of its own: reading a directory moves its offset.
        let error = |error| io_error("list", context.path().to_owned(), error);
        let fd = context.open_directory(b"").map_err(error)?;
        let mut names = DirectoryNames::read(fd.as_fd()).map_err(error)?;
        if let Some(stand_in) = &context.stand_in {
            names.add(&stand_in.name);
        }
        let xattrs = XattrReader::new(&context.path);
        let level = Level {
            fd: Some(fd),
            names,
            prefix: 0,
            matches: Matches::default(),
            pending: None,
        };
        Ok(Self {
            context,
            filter,
            levels: vec![level],
            path: Vec::new(),
            ready: VecDeque::new(),
            links: HashMap::new(),
            xattrs,
            left_out: Vec::new(),
        })
    }

    /// The symbolic links that were left out so far, and the directories that were left out with all that is in them.
    #[must_use]
    pub fn left_out(self) -> Vec<Vec<u8>> {
        self.left_out
    }

    /// Looks at the next name of the innermost directory. `None` when it is not listed.
    fn step(&mut self) -> Result<Option<ContextEntry>, WalkError> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(None);
        };
        self.path.truncate(level.prefix);
        let Some((name, mut kind)) = level.names.next() else {
            self.levels.pop();
            return Ok(None);
        };
        let context = &self.context;
        let fd = match &level.fd {
            Some(fd) => fd.as_fd(),
            None => {
                let fd = context
                    .open_directory(self.path.strip_suffix(b"/").unwrap_or(&self.path))
                    .map_err(|error| io_error("open", context.locate(&self.path), error))?;
                OwnedFd::as_fd(level.fd.insert(fd))
            }
        };
        self.path.extend_from_slice(name.to_bytes());
        let path = &self.path;
        let failed = |action, error| Err(io_error(action, context.locate(path), error));
        if level.prefix == 0 && path.starts_with(ASIDE.as_bytes()) {
            return Ok(None);
        }
        if let Some(stand_in) = context.stand_in(path) {
            if !self.filter.judge(path, false, &level.matches)?.listed {
                return Ok(None);
            }
            let opened = context.open_beneath(&stand_in.file, OFlags::RDONLY | OFlags::NONBLOCK);
            return match opened.and_then(rustix::fs::fstat) {
                Ok(stat) if file_type(&stat) == FileType::RegularFile => {
                    Ok(Some(entry(path, FileKind::File, &stat, Xattrs::new())))
                }
                Ok(_) => Ok(None),
                Err(error) if is_gone(error) => Ok(None),
                Err(error) => failed("read", error),
            };
        }

        let mut known = None;
        if kind == FileType::Unknown {
            match stat_at(fd, name) {
                Ok(stat) => kind = file_type(known.insert(stat)),
                Err(error) if is_gone(error) => return Ok(None),
                Err(error) => return failed("read", error),
            }
        }
        let verdict = self.filter.judge(path, kind == FileType::Directory, &level.matches)?;

        if kind == FileType::Directory {
            if !verdict.listed && !verdict.descend {
                self.left_out.push(self.path.clone());
                return Ok(None);
            }
            let opened = open_subdirectory(fd, name);
            let (fd, names, stat) = match opened {
                Ok(opened) => opened,
                Err(error) if is_gone(error) => return Ok(None),
                Err(Errno::ACCESS | Errno::PERM) if !verdict.listed => return Ok(None),
                Err(error) => return failed("list", error),
            };
            let xattrs = match self.xattrs.of_open(fd.as_fd()) {
                Ok(xattrs) => xattrs,
                Err(error) => return failed("read the attributes of", error),
            };
            let entry = entry(path, FileKind::Directory, &stat, xattrs);
            self.path.push(b'/');
            let prefix = self.path.len();
            let (listed, pending) = match (verdict.listed, self.filter.builder) {
                (true, _) => (Some(entry), None),
                (false, Builder::BuildKit) => (None, Some(entry)),
                (false, Builder::Classic) => (None, None),
            };
            if verdict.descend {
                self.enter(Level {
                    fd: Some(fd),
                    names,
                    prefix,
                    matches: verdict.matches,
                    pending,
                });
            }
            return Ok(listed);
        }

        if !verdict.listed {
            if kind == FileType::Symlink {
                self.left_out.push(self.path.clone());
            }
            return Ok(None);
        }
        let stat = match known.map_or_else(|| stat_at(fd, name), Ok) {
            Ok(stat) => stat,
            Err(error) if is_gone(error) => return Ok(None),
            Err(error) => return failed("read", error),
        };
        let kind = match file_type(&stat) {
            FileType::RegularFile if stat.st_nlink > 1 => match self.links.entry(identity(&stat)) {
                std::collections::hash_map::Entry::Occupied(first) => FileKind::HardLink(first.get().clone()),
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(path.clone());
                    FileKind::File
                }
            },
            FileType::RegularFile => FileKind::File,
            FileType::Symlink => match rustix::fs::readlinkat(fd, name, Vec::new()) {
                Ok(target) => FileKind::Symlink(target.into_bytes()),
                Err(error) if error == Errno::INVAL || is_gone(error) => return Ok(None),
                Err(error) => return failed("read", error),
            },
            FileType::Fifo => FileKind::Fifo,
            FileType::BlockDevice => FileKind::BlockDevice(device(&stat)),
            FileType::CharacterDevice => FileKind::CharDevice(device(&stat)),
            // A socket; or a directory that was a file a moment ago.
            _ => return Ok(None),
        };
        let xattrs = match self.xattrs.of_entry(path, fd, name) {
            Ok(xattrs) => xattrs,
            Err(error) if is_gone(error) => Vec::new(),
            Err(error) => return failed("read the attributes of", error),
        };
        Ok(Some(entry(path, kind, &stat, xattrs)))
    }

    fn enter(&mut self, level: Level) {
        self.levels.push(level);
        let outer = self.levels.len().checked_sub(OPEN_DIRECTORIES + 1);
        if let Some(level) = outer.and_then(|outer| self.levels.get_mut(outer)) {
            level.fd = None;
        }
    }
}

impl Iterator for Walk {
    type Item = Result<ContextEntry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Some(Ok(entry));
            }
            if self.levels.is_empty() {
                return None;
            }
            match self.step() {
                Ok(None) => {}
                Ok(Some(entry)) => {
                    let pending = self.levels.iter_mut().filter_map(|level| level.pending.take());
                    self.ready.extend(pending);
                    if self.ready.is_empty() {
                        return Some(Ok(entry));
                    }
                    self.ready.push_back(entry);
                }
                Err(error) => {
                    self.levels.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

fn entry(path: &[u8], kind: FileKind, stat: &Stat, xattrs: Xattrs) -> ContextEntry {
    let is_directory = kind == FileKind::Directory;
    ContextEntry {
        path: path.to_vec(),
        kind,
        permissions: raw_mode(stat) & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if is_directory {
            0
        } else {
            u64::try_from(stat.st_size).unwrap_or_default()
        },
        mtime_ns: mtime_ns(stat),
        ctime_ns: ctime_ns(stat),
        inode: identity(stat).1,
        device: identity(stat).0,
        xattrs,
    }
}

fn stat_at(directory: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn open_subdirectory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(OwnedFd, DirectoryNames, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let names = DirectoryNames::read(fd.as_fd())?;
    let stat = rustix::fs::fstat(&fd)?;
    Ok((fd, names, stat))
}

/// Whether an error only says that what was listed is not there any more.
fn is_gone(error: Errno) -> bool {
    // A directory whose place a file or a symbolic link took: ENOTDIR, ELOOP.
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn io_error(action: &'static str, path: PathBuf, error: Errno) -> WalkError {
    WalkError::Io {
        action,
        path,
        source: error.into(),
    }
}

// The fields of `struct stat` have other types on other systems.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
mod fields {
    use rustix::fs::{FileType, Stat};

    use super::Device;

    pub(super) fn raw_mode(stat: &Stat) -> u32 {
        u32::from(stat.st_mode)
    }

    pub(super) fn file_type(stat: &Stat) -> FileType {
        FileType::from_raw_mode(stat.st_mode)
    }

    pub(super) fn identity(stat: &Stat) -> (u64, u64) {
        (stat.st_dev as u64, stat.st_ino as u64)
    }

    pub(super) fn mtime_ns(stat: &Stat) -> i64 {
        (stat.st_mtime as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64)
    }

    pub(super) fn ctime_ns(stat: &Stat) -> i64 {
        (stat.st_ctime as i64)
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_ctime_nsec as i64)
    }

    pub(super) fn device(stat: &Stat) -> Device {
        Device {
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
        }
    }
}
use fields::{ctime_ns, device, file_type, identity, mtime_ns, raw_mode};

/// The names in a directory, sorted.
#[derive(Debug, Default)]
struct DirectoryNames {
    /// The names, each with a NUL after it, in the order of the directory.
    text: Vec<u8>,
    /// Where each name starts and ends (its NUL included), and what is there; in order of names.
    index: std::vec::IntoIter<(usize, usize, FileType)>,
}

impl DirectoryNames {
    fn read(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut text = Vec::new();
        let mut index = Vec::new();
        for_each_name(directory, |name, kind| {
            let start = text.len();
            text.extend_from_slice(name.to_bytes_with_nul());
            index.push((start, text.len(), kind));
        })?;
        // NUL sorts before all bytes, as the end of a name does.
        index.sort_unstable_by(|(start, end, _), (other_start, other_end, _)| {
            text.get(*start..*end).cmp(&text.get(*other_start..*other_end))
        });
        text.shrink_to_fit();
        Ok(Self {
            text,
            index: index.into_iter(),
        })
    }

    /// Adds a name of which nothing is known; nothing where it is there.
    fn add(&mut self, name: &[u8]) {
        let mut index: Vec<_> = self.index.by_ref().collect();
        let with_nul = [name, b"\0"].concat();
        let place = index.binary_search_by(|(start, end, _)| self.text.get(*start..*end).cmp(&Some(&with_nul[..])));
        if let Err(place) = place {
            let start = self.text.len();
            self.text.extend_from_slice(&with_nul);
            index.insert(place, (start, self.text.len(), FileType::Unknown));
        }
        self.index = index.into_iter();
    }

    fn next(&mut self) -> Option<(&CStr, FileType)> {
        let (start, end, kind) = self.index.next()?;
        let name = CStr::from_bytes_with_nul(self.text.get(start..end)?).ok()?;
        Some((name, kind))
    }
}

#[cfg(target_os = "linux")]
fn for_each_name(directory: BorrowedFd<'_>, mut each: impl FnMut(&CStr, FileType)) -> Result<(), Errno> {
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 32 * 1024];
    let mut entries = rustix::fs::RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name(), entry.file_type());
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn for_each_name(directory: BorrowedFd<'_>, mut each: impl FnMut(&CStr, FileType)) -> Result<(), Errno> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name(), entry.file_type());
        }
    }
    Ok(())
}

/// Reads extended attributes.
///
/// No system call before Linux 6.13 takes a directory and a name for them, and nearly no file has any. So
/// whether there are any is asked by path, which is quick, and what they are by descriptor. A directory
/// that becomes a symbolic link meanwhile can hide attributes, and cannot lend those of another file.
#[derive(Debug)]
struct XattrReader {
    /// The context's absolute path with a slash after it, then the entry's path and a NUL.
    path: Vec<u8>,
    /// The length of the context's path in it.
    root: usize,
    buffer: Vec<u8>,
}

impl XattrReader {
    fn new(context: &Path) -> Self {
        let mut path = context.as_os_str().as_bytes().to_vec();
        path.push(b'/');
        Self {
            root: path.len(),
            path,
            buffer: vec![0; LARGEST_XATTR],
        }
    }

    /// Those of an open file or directory.
    fn of_open(&mut self, fd: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
        let listed = rustix::fs::flistxattr(fd, self.buffer.as_mut_slice());
        self.values(listed, |name, buffer| rustix::fs::fgetxattr(fd, name, buffer))
    }

    /// Those of the entry at a path, which has this name in this directory.
    fn of_entry(&mut self, path: &[u8], directory: BorrowedFd<'_>, name: &CStr) -> Result<Xattrs, Errno> {
        self.path.truncate(self.root);
        self.path.extend_from_slice(path);
        self.path.push(0);
        let full = CStr::from_bytes_with_nul(&self.path).map_err(|_| Errno::INVAL)?;
        // Only the length of the list: the kernel allocates whatever buffer it is offered.
        if matches!(rustix::fs::llistxattr_query(full), Ok(0) | Err(Errno::NOTSUP)) {
            return Ok(Xattrs::new());
        }
        #[cfg(target_os = "linux")]
        let exact = {
            let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
            let directory = format!("/proc/self/fd/{number}");
            Path::new(&directory).join(OsStr::from_bytes(name.to_bytes()))
        };
        // Without /proc, the directory can only be trusted to be where it was.
        #[cfg(not(target_os = "linux"))]
        let exact = {
            let _ = (directory, name);
            full.to_owned()
        };
        let listed = rustix::fs::llistxattr(&exact, self.buffer.as_mut_slice());
        self.values(listed, |name, buffer| rustix::fs::lgetxattr(&exact, name, buffer))
    }

    fn values(
        &mut self,
        listed: Result<usize, Errno>,
        mut get: impl FnMut(&[u8], &mut [u8]) -> Result<usize, Errno>,
    ) -> Result<Xattrs, Errno> {
        let length = match listed {
            Ok(0) | Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
            Ok(length) => length,
            Err(error) => return Err(error),
        };
        let names = self.buffer.get(..length).unwrap_or_default().to_vec();
        let mut xattrs = Xattrs::new();
        for name in names.split(|byte| *byte == 0) {
            if name.is_empty() || name.starts_with(b"com.apple.") {
                continue;
            }
            // One that is listed and may not be read is left out, as fsutil does.
            if let Ok(length) = get(name, &mut self.buffer) {
                let value = self.buffer.get(..length).unwrap_or_default();
                xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
        Ok(xattrs)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let full = root.path().join(path);
            if path.ends_with('/') {
                fs::create_dir_all(full).unwrap();
            } else {
                fs::create_dir_all(full.parent().unwrap()).unwrap();
                fs::write(full, path).unwrap();
            }
        }
        root
    }

    fn make_pipe(path: &Path) {
        let mut mkfifo = std::process::Command::new("mkfifo");
        let status = mkfifo.args(["-m", "600"]).arg(path).status();
        assert!(status.unwrap().success());
    }

    fn walk(root: &Path, options: &WalkOptions) -> Walk {
        ContextDir::open(root).unwrap().walk(options).unwrap()
    }

    fn listed(root: &Path, options: &WalkOptions) -> Vec<String> {
        let paths = walk(root, options).map(|entry| String::from_utf8(entry.unwrap().path).unwrap());
        paths.collect()
    }

    fn bytes(patterns: &[&str]) -> Vec<Vec<u8>> {
        patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect()
    }

    fn excluding(patterns: &[&str]) -> WalkOptions {
        WalkOptions {
            exclude: bytes(patterns),
            ..WalkOptions::default()
        }
    }

    fn including(patterns: &[&str]) -> WalkOptions {
        WalkOptions {
            include: bytes(patterns),
            ..WalkOptions::default()
        }
    }

    #[test]
    fn a_stand_in_is_listed_and_read_where_its_name_is_not_there() {
        let root = tree(&["a", "pip.conf.template", "z", "sub/pip.conf.template"]);
        let stand_in = || StandIn {
            name: b"pip.conf".to_vec(),
            file: b"pip.conf.template".to_vec(),
            mark: b"./pip.conf.template".to_vec(),
        };
        let context = || ContextDir::open(root.path()).unwrap().with_stand_in(Some(stand_in()));
        let listed = |options: &WalkOptions| -> Vec<(String, FileKind)> {
            let entries = context().walk(options).unwrap().map(Result::unwrap);
            let named = entries.map(|entry| (String::from_utf8(entry.path).unwrap(), entry.kind));
            named.filter(|(path, _)| path.contains("conf")).collect()
        };
        let read = || {
            let mut text = String::new();
            let mut file = context().open_file(b"pip.conf").unwrap();
            io::Read::read_to_string(&mut file, &mut text).unwrap();
            text
        };
        let expected = [
            ("pip.conf".to_owned(), FileKind::File),
            ("pip.conf.template".to_owned(), FileKind::File),
            ("sub/pip.conf.template".to_owned(), FileKind::File),
        ];
        let check = || {
            assert_eq!(listed(&WalkOptions::default()), expected);
            assert_eq!(listed(&including(&["pip.conf"])), expected[..1]);
            assert_eq!(listed(&excluding(&["pip.conf"])), expected[1..]);
            let follow = WalkOptions {
                follow: bytes(&["pip.con?"]),
                ..WalkOptions::default()
            };
            assert_eq!(listed(&follow), expected[..1]);
            assert_eq!(read(), "pip.conf.template");
        };
        check();
        // The link that stands for it is it.
        symlink("./pip.conf.template", root.path().join("pip.conf")).unwrap();
        check();
        // One of the user's own is not.
        fs::remove_file(root.path().join("pip.conf")).unwrap();
        symlink("pip.conf.template", root.path().join("pip.conf")).unwrap();
        assert_eq!(
            listed(&including(&["pip.conf"]))[0].1,
            FileKind::Symlink(b"pip.conf.template".to_vec())
        );
        fs::remove_file(root.path().join("pip.conf")).unwrap();
        fs::write(root.path().join("pip.conf"), "own").unwrap();
        assert_eq!(read(), "own");
        fs::remove_file(root.path().join("pip.conf")).unwrap();
        fs::remove_file(root.path().join("pip.conf.template")).unwrap();
        assert_eq!(listed(&WalkOptions::default()), expected[2..]);
    }

    #[test]
    fn a_version_file_that_is_being_written_is_not_listed() {
        let root = tree(&["._version.py.bld.x1", "_version.py.bld", "sub/._version.py.bld.x1"]);
        let expected = ["_version.py.bld", "sub", "sub/._version.py.bld.x1"];
        assert_eq!(listed(root.path(), &WalkOptions::default()), expected);
    }

    #[test]
    fn a_directory_comes_right_before_its_entries() {
        let root = tree(&["a/x", "a-b", "a.c", "a/.y", "B", "ab/", "é"]);
        let expected = ["B", "a", "a/.y", "a/x", "a-b", "a.c", "ab", "é"];
        assert_eq!(listed(root.path(), &WalkOptions::default()), expected);
    }

    #[test]
    fn directories_on_the_way_are_listed_once_needed() {
        let root = tree(&["a/b/c", "a/b/d", "a/x/y", "z/q"]);
        let expected = ["a", "a/b", "a/b/c"];
        assert_eq!(listed(root.path(), &excluding(&["*", "!a/b/c"])), expected);
        assert_eq!(listed(root.path(), &excluding(&["**", "!**/c"])), expected);
        assert_eq!(listed(root.path(), &including(&["a/b/c"])), expected);
        assert_eq!(listed(root.path(), &including(&["**/c"])), expected);
        let expected = ["a", "a/b", "a/b/c", "a/b/d"];
        assert_eq!(listed(root.path(), &including(&["a/b"])), expected);
        assert_eq!(listed(root.path(), &including(&["a/*", "!a/x"])), expected);
        assert_eq!(listed(root.path(), &excluding(&["a/x", "z"])), expected);
        let classic = WalkOptions {
            builder: Builder::Classic,
            ..excluding(&["*", "!a/b/c"])
        };
        assert_eq!(listed(root.path(), &classic), ["a/b/c"]);
    }

    #[test]
    fn followed_paths_are_included() {
        let root = tree(&["dir/file", "dir/other", "more"]);
        symlink("dir/file", root.path().join("link")).unwrap();
        let mut options = including(&["more"]);
        options.follow = bytes(&["link"]);
        let expected = ["dir", "dir/file", "link", "more"];
        assert_eq!(listed(root.path(), &options), expected);
        options.follow = bytes(&["."]);
        assert_eq!(listed(root.path(), &options), ["more"]);
        options.include.clear();
        assert_eq!(listed(root.path(), &options).len(), 5);
    }

    #[test]
    fn entries_are_described_as_fsutil_does() {
        let root = tree(&["dir/", "file", "suid"]);
        let path = |name: &str| root.path().join(name);
        fs::set_permissions(path("dir"), Permissions::from_mode(0o1750)).unwrap();
        fs::set_permissions(path("file"), Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(path("suid"), Permissions::from_mode(0o6711)).unwrap();
        fs::hard_link(path("file"), path("second")).unwrap();
        symlink("dir/../file", path("sym")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        make_pipe(&path("pipe"));
        let second = fs::metadata(path("file")).unwrap().modified().unwrap();
        let entries: Vec<ContextEntry> = walk(root.path(), &WalkOptions::default()).map(Result::unwrap).collect();
        let described: Vec<_> = entries
            .iter()
            .map(|entry| {
                let path = String::from_utf8_lossy(&entry.path);
                let link = String::from_utf8_lossy(entry.link_name());
                (path, entry.go_mode(), entry.size, link)
            })
            .collect();
        let expected = [
            ("dir", 0x8010_01e8, 0, ""),
            ("file", 0o640, 4, ""),
            ("pipe", 0x0200_0180, 0, ""),
            ("second", 0o640, 4, "file"),
            ("suid", 0x00c0_01c9, 4, ""),
            ("sym", 0x0800_01ff, 11, "dir/../file"),
        ];
        let expected = expected.map(|(path, mode, size, link)| (path.into(), mode, size, link.into()));
        assert_eq!(described, expected);
        let file = entries.iter().find(|entry| entry.path == b"file").unwrap();
        let since = second.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(file.mtime_ns, i64::try_from(since.as_nanos()).unwrap());
    }

    #[test]
    fn a_described_tree_is_selected_as_a_walk_lists_it() {
        let root = tree(&[
            "a/b/c",
            "a/b/keep",
            "a/x.pyc",
            "build/out",
            "build/keep/one",
            "src/m.py",
            ".git/HEAD",
        ]);
        for patterns in [
            &[][..],
            &["**/*.pyc", ".git"],
            &["a", "!a/b/keep"],
            &["build/*", "!build/keep"],
            &["*", "!src"],
            &["**/b", "!**/keep"],
        ] {
            let options = excluding(patterns);
            let mut selector = Selector::new(&options.exclude, options.builder).unwrap();
            let mut selected: Vec<String> = Vec::new();
            for entry in walk(root.path(), &WalkOptions::default()) {
                let entry = entry.unwrap();
                if selector.lists(&entry.path, entry.is_directory()).unwrap() {
                    selected.push(String::from_utf8(entry.path).unwrap());
                }
            }
            // Directories that are listed for what is in them alone.
            let mut expected = listed(root.path(), &options);
            expected.retain(|path| {
                selected.contains(path) || !selected.iter().any(|other| other.starts_with(&format!("{path}/")))
            });
            assert_eq!(selected, expected, "{patterns:?}");
        }
    }

    #[test]
    fn extended_attributes_are_read() {
        let root = tree(&["dir/", "file", "none"]);
        for name in ["dir", "file"] {
            let path = root.path().join(name);
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&path, "user.one", name.as_bytes(), flags).unwrap();
            rustix::fs::setxattr(&path, "user.com.apple", b"", flags).unwrap();
        }
        for entry in walk(root.path(), &WalkOptions::default()) {
            let mut entry = entry.unwrap();
            entry.xattrs.retain(|(name, _)| name.starts_with(b"user."));
            entry.xattrs.sort();
            let expected = match entry.path.as_slice() {
                b"none" => Vec::new(),
                path => vec![
                    (b"user.com.apple".to_vec(), Vec::new()),
                    (b"user.one".to_vec(), path.to_vec()),
                ],
            };
            assert_eq!(entry.xattrs, expected);
        }
    }

    #[test]
    fn what_vanishes_is_not_listed() {
        let root = tree(&["a", "b", "c/d", "e/f", "g"]);
        let mut walk = walk(root.path(), &WalkOptions::default());
        assert_eq!(walk.next().unwrap().unwrap().path, b"a");
        fs::remove_file(root.path().join("b")).unwrap();
        fs::remove_dir_all(root.path().join("c")).unwrap();
        // A directory that becomes a link must not be entered.
        fs::remove_dir_all(root.path().join("e")).unwrap();
        symlink("/etc", root.path().join("e")).unwrap();
        let rest: Vec<_> = walk.map(|entry| entry.unwrap().path).collect();
        assert_eq!(rest, [b"g"]);
    }

    #[test]
    fn deep_trees_do_not_exhaust_descriptors() {
        let root = tempfile::tempdir().unwrap();
        let mut directory = root.path().to_owned();
        for _ in 0..300 {
            directory.push("d");
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("e"), "").unwrap();
        }
        let mut walk = walk(root.path(), &WalkOptions::default());
        let mut count = 0;
        let mut open = 0;
        while let Some(entry) = walk.next() {
            entry.unwrap();
            count += 1;
            open = open.max(walk.levels.iter().filter(|level| level.fd.is_some()).count());
        }
        assert_eq!(count, 600);
        assert!(open <= OPEN_DIRECTORIES + 1, "{open}");
    }

    #[test]
    fn only_regular_files_inside_are_opened() {
        let root = tree(&["dir/file"]);
        symlink("dir", root.path().join("link")).unwrap();
        symlink("dir/file", root.path().join("to-file")).unwrap();
        make_pipe(&root.path().join("pipe"));
        let context = ContextDir::open(root.path()).unwrap();
        assert!(context.open_file(b"dir/file").is_ok());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
        assert!(context.open_stepwise(b"dir/file", flags).is_ok());
        for path in [
            "link/file",
            "to-file",
            "../etc",
            "dir/../dir/../..",
            "/etc/passwd",
            "nowhere",
        ] {
            let error = context.open_file(path.as_bytes()).unwrap_err();
            assert!(matches!(error, WalkError::Io { .. }), "{path}: {error}");
            let stepwise = context.open_stepwise(path.as_bytes(), flags);
            assert!(stepwise.is_err(), "{path}");
        }
        for path in ["pipe", "dir", ""] {
            let error = context.open_file(path.as_bytes()).unwrap_err();
            assert!(matches!(error, WalkError::NotAFile(_)), "{path}: {error}");
        }
    }

    #[test]
    fn the_context_must_be_a_directory() {
        let root = tree(&["file"]);
        for name in ["file", "nowhere"] {
            let path = root.path().join(name);
            let error = ContextDir::open(&path).unwrap_err().to_string();
            assert_eq!(error, format!("cannot open {}", path.display()));
        }
        symlink(root.path(), root.path().join("link")).unwrap();
        assert!(ContextDir::open(&root.path().join("link")).is_ok());
    }

    /// Root may read everything, so this thread becomes nobody.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_unreadable_directory_is_named() {
        let root = tree(&["a/b/c", "d"]);
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root.path().join("a/b"), Permissions::from_mode(0o000)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if rustix::process::geteuid().is_root() {
                    let nobody = rustix::fs::Uid::from_raw(65534);
                    rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                }
                let error = walk(root.path(), &WalkOptions::default())
                    .find_map(Result::err)
                    .unwrap();
                let path = root.path().canonicalize().unwrap().join("a/b");
                assert_eq!(error.to_string(), format!("cannot list {}", path.display()));
                // Left out, it does no harm, even where something in it was wanted.
                assert_eq!(listed(root.path(), &excluding(&["a/b"])), ["a", "d"]);
                assert_eq!(listed(root.path(), &excluding(&["a/b", "!a/b/c"])), ["a", "d"]);
            });
        });
        fs::set_permissions(root.path().join("a/b"), Permissions::from_mode(0o755)).unwrap();
    }
}
