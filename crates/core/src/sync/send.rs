//! What is sent to the dock: one tar archive, whose parts are put in place by [`super::script::APPLY`].
//!
//! - `np0/NAME`, `rh1/NAME`, `xd2/NAME`: batches, each for one directory. The first letter says what is done: names that
//!   are new there (`n`: files, links and whole directories), names whose file is replaced (`r`), and removed (`x`: what is
//!   in the archive only names them). The second says how the names begin (`.x`: `h`; `..x`: `d`; others: `p`), so that a
//!   shell's pattern finds them all;
//! - `c/out` and `c/into`: the batches that remove, and those that put, each as `BATCH/./DIRECTORY/`; `c/BATCH`: what `stat`
//!   must say of a batch's names directly before it is put in place or removed;
//! - `c/absent`, `c/dirs`, `c/present` with `c/expected`: what must be so that the listing still holds, of all batches;
//!   `c/emptied`: directories that are removed; `c/mode.NNN`: what gets this mode; `c/paths`: what is looked at afterwards;
//!   `c/skip`: parts that changed while they were sent, and are left out; `c/made`: parts that rsync has made there
//!   ([`super::rsync`]), each with its mode, its path there, and its place in the archive;
//! - `c/go`, last: all has been sent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::clock::now_ns;
use super::listing::expectation;
use super::local::Local;
use super::plan::{Action, Steps};
use super::remote::broken;
use super::{Content, Item, ItemKind, Tree, ancestors, split};
use crate::docker::connect::adaptive_compression::{self, Format};
use crate::error::{Error, Result};
use crate::output::progress::bars::Bars;

/// The most names and bytes in a batch: they become one command's arguments. Between the check of a batch and its last
/// rename, no change by others is noticed: so a batch is small. A new name never replaces another file, so batches of
/// new names are larger.
const BATCH_NAMES: usize = 100;
const BATCH_NEW_NAMES: usize = 1000;
const BATCH_BYTES: usize = 60_000;
/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// What is about to be sent.
#[derive(Clone, Debug, Default)]
pub struct UploadBatch {
    /// Each path that is put, with its place in the archive, its mode, and what it is here.
    parts: Vec<StagedFile>,
    /// Each path that is removed, with its place in the archive.
    removals: Vec<(Vec<u8>, Vec<u8>)>,
    into: Vec<u8>,
    out: Vec<u8>,
    /// What `stat` must say of a name, by its place in the archive.
    checks: Vec<(Vec<u8>, Vec<u8>)>,
    absent: Vec<u8>,
    directories: Vec<u8>,
    present: Vec<u8>,
    expected: Vec<u8>,
    emptied: Vec<u8>,
    modes: BTreeMap<u32, Vec<u8>>,
    paths: Vec<u8>,
    /// What rsync has made there.
    made: Made,
    /// How many files are sent, for people.
    pub files: usize,
    /// How many directories are made.
    pub folders: usize,
    /// Bytes of the files, before they are packed for the link.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
struct StagedFile {
    path: Vec<u8>,
    staged: Vec<u8>,
    mode: u32,
    item: Item,
}

impl StagedFile {
    /// What needs no reading, or is ours to make.
    fn as_listed(&self, content: Content) -> AsRead {
        AsRead {
            content,
            item: self.item.clone(),
            looked_at_ns: None,
        }
    }
}

/// Files that lie on the dock already, in a directory of ours, and need only be put in place.
pub type Made = HashMap<Vec<u8>, AsRead>;

/// A path of this machine, as it was read.
#[derive(Clone, Debug)]
pub struct AsRead {
    pub content: Content,
    /// What it was before and after.
    pub item: Item,
    /// When it was last looked at, in nanoseconds since 1970; `None` for what is as it was listed.
    pub looked_at_ns: Option<i64>,
}

/// A file whose contents are ours to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The path whose place it takes on the dock.
    pub path: Vec<u8>,
    /// What it says.
    pub text: Vec<u8>,
}

/// What was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Each path that was.
    pub files: HashMap<Vec<u8>, AsRead>,
    /// Those of them that grew meanwhile, and were sent as they were when they were opened.
    pub growing: Vec<Vec<u8>>,
    /// Those that changed meanwhile, vanished, or can't be read, with why.
    pub skipped: Vec<(Vec<u8>, String)>,
}

/// What is done with the names of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Deed {
    PutNew,
    Replace,
    Remove,
}

#[derive(Default)]
struct Batches {
    count: usize,
    /// The batches that may have room, by what is done, directory, and how their names begin.
    open: HashMap<(Deed, Vec<u8>, u8), Batch>,
}

/// Its name, and how many names and bytes of names are in it.
type Batch = (Vec<u8>, usize, usize);

impl Batches {
    /// The place of a name of a directory, in a batch of it that has room; a new one is added to `list`.
    fn place(&mut self, deed: Deed, directory: &[u8], name: &[u8], list: &mut Vec<u8>) -> Vec<u8> {
        let class = match name {
            [b'.', b'.', ..] => b'd',
            [b'.', ..] => b'h',
            _ => b'p',
        };
        let key = (deed, directory.to_vec(), class);
        let most = match deed {
            Deed::PutNew => BATCH_NEW_NAMES,
            Deed::Replace | Deed::Remove => BATCH_NAMES,
        };
        let room = self
            .open
            .get_mut(&key)
            .filter(|(_, names, bytes)| *names < most && *bytes < BATCH_BYTES);
        if let Some((batch, names, bytes)) = room {
            *names += 1;
            *bytes += name.len();
            return [batch.as_slice(), b"/", name].concat();
        }
        let letter = match deed {
            Deed::PutNew => 'n',
            Deed::Replace => 'r',
            Deed::Remove => 'x',
        };
        let batch = format!("{letter}{}{}", char::from(class), self.count).into_bytes();
        self.count += 1;
        list.extend_from_slice(&batch);
        list.extend_from_slice(b"/./");
        if !directory.is_empty() {
            list.extend_from_slice(directory);
            list.push(b'/');
        }
        list.push(0);
        let staged = [batch.as_slice(), b"/", name].concat();
        self.open.insert(key, (batch, 1, name.len()));
        staged
    }
}

fn name_path(list: &mut Vec<u8>, path: &[u8]) {
    list.extend_from_slice(b"./");
    list.extend_from_slice(path);
    list.push(0);
}

impl UploadBatch {
    /// Packs what the steps send to the dock, but for what rsync has made there.
    pub fn pack(steps: &Steps, here: &Tree, there: &Tree, precise: bool, made_there: Made) -> Self {
        let mut batch = Self {
            made: made_there,
            ..Self::default()
        };
        let mut batches = Batches::default();
        // New directories, with their places in the archive.
        let mut made: HashMap<&[u8], Vec<u8>> = HashMap::new();
        let mut directories: BTreeSet<&[u8]> = BTreeSet::new();
        let mut emptied = Vec::new();
        for (path, action) in steps {
            let (before, item) = (there.get(path), here.get(path));
            let is_directory = before.is_some_and(|item| item.kind == ItemKind::Directory);
            let top = match action {
                Action::Send(mode) => {
                    let Some(item) = item else { continue };
                    if is_directory && item.kind == ItemKind::Directory {
                        batch.mode(path, *mode);
                        name_path(&mut batch.paths, path);
                        continue;
                    }
                    name_path(&mut batch.paths, path);
                    let (parent, name) = split(path);
                    let inside = made.get(parent).map(|parent| [parent.as_slice(), b"/", name].concat());
                    let top = inside.is_none();
                    let replaced = before.filter(|_| !is_directory && item.kind != ItemKind::Directory);
                    let staged = inside.unwrap_or_else(|| {
                        let deed = replaced.map_or(Deed::PutNew, |_| Deed::Replace);
                        let staged = batches.place(deed, parent, name, &mut batch.into);
                        if let Some(before) = replaced {
                            batch.check(&staged, name, before, precise);
                        }
                        staged
                    });
                    if item.kind == ItemKind::Directory {
                        batch.folders += 1;
                        made.insert(path, staged.clone());
                        if mode & 0o700 != 0o700 {
                            batch.mode(path, *mode);
                        }
                    } else if !batch.made.contains_key(path) {
                        batch.files += 1;
                        batch.bytes += item.stamp.size;
                    }
                    if top {
                        match before {
                            None => name_path(&mut batch.absent, path),
                            Some(_) if is_directory => emptied.push(path),
                            Some(before) => {
                                batch.expect(path, before, precise);
                                if item.kind == ItemKind::Directory {
                                    batch.remove(&mut batches, path, before, precise);
                                }
                            }
                        }
                    }
                    batch.parts.push(StagedFile {
                        path: path.clone(),
                        staged,
                        mode: *mode,
                        item: item.clone(),
                    });
                    top
                }
                Action::RemoveThere => {
                    name_path(&mut batch.paths, path);
                    match before {
                        None => continue,
                        Some(_) if is_directory => emptied.push(path),
                        Some(before) => {
                            batch.expect(path, before, precise);
                            batch.remove(&mut batches, path, before, precise);
                        }
                    }
                    true
                }
                Action::ModeThere(mode) => {
                    if let Some(before) = before.filter(|_| !is_directory) {
                        batch.expect(path, before, precise);
                    }
                    batch.mode(path, *mode);
                    name_path(&mut batch.paths, path);
                    true
                }
                _ => continue,
            };
            if top {
                directories.extend(ancestors(path).filter(|above| there.contains_key(*above)));
                if is_directory {
                    directories.insert(path);
                }
            }
        }
        for path in directories {
            name_path(&mut batch.directories, path);
        }
        // What lies deepest first.
        for path in emptied.into_iter().rev() {
            name_path(&mut batch.emptied, path);
        }
        batch
    }

    /// The files whose contents are read here and sent.
    pub fn files(&self, generated: Option<&Generated>) -> HashMap<Vec<u8>, Item> {
        let is_ours = |part: &&StagedFile| generated.is_some_and(|generated| generated.path == part.path);
        let files = self.parts.iter().filter(|part| part.item.kind == ItemKind::File);
        let files = files.filter(|part| !is_ours(part) && !self.made.contains_key(&part.path));
        files.map(|part| (part.path.clone(), part.item.clone())).collect()
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths of these batches.
    pub fn paths_of(&self, batches: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        let all = self.parts.iter().map(|part| (&part.path, &part.staged));
        let all = all.chain(self.removals.iter().map(|(path, staged)| (path, staged)));
        all.filter(|(_, staged)| {
            let batch = staged.split(|byte| *byte == b'/').next();
            batches.iter().any(|named| batch == Some(named))
        })
        .map(|(path, _)| path.clone())
        .collect()
    }

    fn remove(&mut self, batches: &mut Batches, path: &[u8], before: &Item, precise: bool) {
        let (parent, name) = split(path);
        let staged = batches.place(Deed::Remove, parent, name, &mut self.out);
        self.check(&staged, name, before, precise);
        self.removals.push((path.to_vec(), staged));
    }

    fn check(&mut self, staged: &[u8], name: &[u8], before: &Item, precise: bool) {
        let line = expectation(name, &before.stamp, precise);
        self.checks.push((staged.to_vec(), line));
    }

    fn mode(&mut self, path: &[u8], mode: u32) {
        name_path(self.modes.entry(mode).or_default(), path);
    }

    fn expect(&mut self, path: &[u8], before: &Item, precise: bool) {
        name_path(&mut self.present, path);
        let path = [b"./", path].concat();
        self.expected.extend(expectation(&path, &before.stamp, precise));
    }

    /// Writes the archive, compressed in this format.
    ///
    /// # Errors
    /// A link that breaks. What can't be read here is left out, and said.
    pub fn write(
        &self,
        to: &mut dyn Write,
        local: &Local,
        generated: Option<&Generated>,
        format: Option<Format>,
        bars: &Bars,
    ) -> Result<Sent> {
        let Some(format) = format else {
            return self.write_archive(to, local, generated, bars);
        };
        adaptive_compression::packed(to, format, |to| self.write_archive(to, local, generated, bars))
            .map_err(|cause| broken(&cause))?
    }

    fn write_archive(
        &self,
        to: &mut dyn Write,
        local: &Local,
        generated: Option<&Generated>,
        bars: &Bars,
    ) -> Result<Sent> {
        let mut builder = Builder::new(to);
        let mut sent = Sent::default();
        let (mut skip, mut made) = (Vec::new(), Vec::new());
        self.batches(&mut builder)?;
        for part in &self.parts {
            let outcome = match part.item.kind {
                ItemKind::Directory => {
                    let mut header = header(part.mode | 0o700, part.item.stamp.mtime, 0);
                    header.set_entry_type(EntryType::Directory);
                    add(&mut builder, &mut header, &part.staged, io::empty())?;
                    Ok(part.as_listed(Content::of(b"")))
                }
                ItemKind::Symlink => {
                    let target = part.item.target.clone().unwrap_or_default();
                    let mut header = header(0o777, part.item.stamp.mtime, 0);
                    header.set_entry_type(EntryType::Symlink);
                    let path = Path::new(OsStr::from_bytes(&part.staged));
                    builder
                        .append_link(&mut header, path, OsStr::from_bytes(&target))
                        .map_err(|cause| sending(&part.path, &cause))?;
                    Ok(part.as_listed(Content::of(&target)))
                }
                ItemKind::File => match generated.filter(|generated| generated.path == part.path) {
                    Some(generated) => {
                        let size = u64::try_from(generated.text.len()).unwrap_or(u64::MAX);
                        let mut header = header(part.mode, part.item.stamp.mtime, size);
                        add(&mut builder, &mut header, &part.staged, generated.text.as_slice())?;
                        Ok(part.as_listed(Content::of(&generated.text)))
                    }
                    None => match self.made.get(&part.path) {
                        Some(file) => {
                            made.extend_from_slice(format!("{:o}\0", part.mode).as_bytes());
                            for path in [&part.path, &part.staged] {
                                made.extend_from_slice(path);
                                made.push(0);
                            }
                            Ok(file.clone())
                        }
                        None => {
                            let added = add_file(&mut builder, local, part, bars)?;
                            if let Ok((_, true)) = &added {
                                sent.growing.push(part.path.clone());
                            }
                            added.map(|(read, _)| read)
                        }
                    },
                },
            };
            if part.item.kind != ItemKind::Directory {
                bars.file_done();
            }
            match outcome {
                Ok(file) => {
                    sent.files.insert(part.path.clone(), file);
                }
                Err(why) => {
                    skip.extend_from_slice(&part.staged);
                    skip.push(0);
                    sent.skipped.push((part.path.clone(), why));
                }
            }
        }
        let lists = [
            ("c/into", &self.into),
            ("c/out", &self.out),
            ("c/absent", &self.absent),
            ("c/dirs", &self.directories),
            ("c/present", &self.present),
            ("c/expected", &self.expected),
            ("c/emptied", &self.emptied),
            ("c/paths", &self.paths),
            ("c/skip", &skip),
            ("c/made", &made),
        ];
        let modes: Vec<(String, &Vec<u8>)> = self
            .modes
            .iter()
            .map(|(mode, list)| (format!("c/mode.{mode:o}"), list))
            .collect();
        for (_, staged) in &self.removals {
            add(&mut builder, &mut header(0o600, 0, 0), staged, io::empty())?;
        }
        let go = b"go\n".to_vec();
        let lists = lists.iter().map(|(name, list)| (name.as_bytes().to_vec(), *list));
        // What is left out is not looked at. The rest comes in the order of a shell's pattern, which is that of the bytes.
        let skipped: HashSet<&[u8]> = skip.split(|byte| *byte == 0).collect();
        let mut checks: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (staged, line) in self
            .checks
            .iter()
            .filter(|(staged, _)| !skipped.contains(staged.as_slice()))
        {
            let batch = split(staged).0;
            checks.entry([b"c/", batch].concat()).or_default().extend(line);
        }
        let checks = checks.iter().map(|(name, list)| (name.clone(), list));
        let modes = modes.iter().map(|(name, list)| (name.as_bytes().to_vec(), *list));
        for (name, list) in lists.chain(checks).chain(modes).chain([(b"c/go".to_vec(), &go)]) {
            let size = u64::try_from(list.len()).unwrap_or(u64::MAX);
            add(&mut builder, &mut header(0o600, 0, size), &name, list.as_slice())?;
        }
        let to = builder.into_inner().map_err(|cause| broken(&cause))?;
        to.flush().map_err(|cause| broken(&cause))?;
        Ok(sent)
    }

    /// The directories of all batches.
    fn batches(&self, builder: &mut Builder<&mut dyn Write>) -> Result<()> {
        let all = self
            .into
            .split(|byte| *byte == 0)
            .chain(self.out.split(|byte| *byte == 0));
        let batches = all.filter(|into| !into.is_empty());
        let names = batches.filter_map(|into| into.split(|byte| *byte == b'/').next());
        for name in [&b"c"[..]].into_iter().chain(names) {
            let mut header = header(0o700, 0, 0);
            header.set_entry_type(EntryType::Directory);
            add(builder, &mut header, name, io::empty())?;
        }
        Ok(())
    }
}

fn header(mode: u32, mtime: i64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    // Before 1970, tar has no form that every reader knows.
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn add(builder: &mut Builder<&mut dyn Write>, header: &mut Header, name: &[u8], contents: impl io::Read) -> Result<()> {
    let path = Path::new(OsStr::from_bytes(name));
    builder
        .append_data(header, path, contents)
        .map_err(|cause| sending(name, &cause))
}

fn sending(path: &[u8], cause: &io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Error::failed(format!("{} can't be sent: {cause}", super::shown(path)))
        }
        _ => broken(cause),
    }
}

/// Adds a file as it is while it is read, and whether it grew meanwhile; where it changes otherwise, why it is to be left out.
fn add_file(
    builder: &mut Builder<&mut dyn Write>,
    local: &Local,
    part: &StagedFile,
    bars: &Bars,
) -> Result<std::result::Result<(AsRead, bool), String>> {
    let (file, item) = match local.open_file(&part.path) {
        Ok(opened) => opened,
        Err(error) => {
            let cause = std::error::Error::source(&error)
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            return Ok(Err(format!("{error}{cause}")));
        }
    };
    let mut header = header(part.mode, item.stamp.mtime, item.stamp.size);
    let mut reading = Hashing {
        file,
        left: item.stamp.size,
        hash: Sha256::new(),
        short: false,
        bars,
    };
    add(builder, &mut header, &part.staged, &mut reading)?;
    // A byte more, and the file grew.
    let mut more = [0];
    let grew = matches!(reading.file.read(&mut more), Ok(1..));
    let content = Content(reading.hash.finalize().into());
    let looked_at_ns = now_ns();
    let now = local.look(&part.path);
    let is_same = matches!(&now, Ok(Some(now)) if now.stamp == item.stamp);
    // What only grows, as a log does, is sent as it was: it may never rest. What was read must still be how it begins.
    let is_longer = |now: &Item| now.kind == ItemKind::File && now.stamp.size > item.stamp.size;
    let is_growing = || {
        matches!(&now, Ok(Some(now)) if is_longer(now))
            && beginning(&reading.file, item.stamp.size).is_ok_and(|now| now == content)
    };
    let grows = match (reading.short, grew, is_same) {
        (false, false, true) => false,
        (false, ..) if is_growing() => true,
        _ => return Ok(Err("it changed while it was sent".to_owned())),
    };
    let read = AsRead {
        content,
        item,
        looked_at_ns: Some(looked_at_ns),
    };
    Ok(Ok((read, grows)))
}

/// The contents of the first so many bytes of a file, as they are now.
fn beginning(file: &std::fs::File, size: u64) -> io::Result<Content> {
    use std::os::unix::fs::FileExt as _;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let room = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read_at(buffer.get_mut(..room).unwrap_or_default(), at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        at += read as u64;
    }
    Ok(Content(hash.finalize().into()))
}

/// Reads just as much as a file had, whatever becomes of it.
struct Hashing<'a> {
    file: std::fs::File,
    left: u64,
    hash: Sha256,
    short: bool,
    bars: &'a Bars,
}

impl io::Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len())
            .min(CHUNK);
        let Some(buffer) = buffer.get_mut(..room).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let read = match self.short {
            true => 0,
            false => match self.file.read(buffer) {
                Ok(read) => read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => return Err(cause),
                // What can't be read is left out, like what shrank.
                Err(_) => 0,
            },
        };
        self.bars.advance(read as u64);
        if read == 0 {
            self.short = true;
            buffer.fill(0);
            self.left -= room as u64;
            return Ok(room);
        }
        self.hash.update(buffer.get(..read).unwrap_or_default());
        self.left -= read as u64;
        Ok(read)
    }
}
