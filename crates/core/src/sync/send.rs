//! What is sent to the far side: one tar archive, whose parts are put in place by [`super::script::APPLY`].
//!
//! - `p0/NAME`, `h1/NAME`, `d2/NAME`: batches of files, links and whole new directories, each for one directory; the
//!   letter says how the names begin (`.x`: `h`; `..x`: `d`), so that a shell's pattern finds them all;
//! - `c/into`: for each batch, `BATCH/./DIRECTORY/`; `c/absent`, `c/dirs`, `c/present` with `c/expected`: what must be so
//!   that the listing still holds; `c/gone`, `c/emptied`: what is removed; `c/mode.NNN`: what gets this mode; `c/paths`:
//!   what is looked at afterwards; `c/skip`: parts that changed while they were sent, and are left out; `c/made`: parts
//!   that rsync has made there ([`super::rsync`]), each with its mode, its path there, and its place in the archive;
//! - `c/go`, last: all has been sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::far::broken;
use super::listing::expectation;
use super::local::Local;
use super::plan::{Action, Steps};
use super::{Content, Item, Kind, Tree, ancestors, split};
use crate::error::{Error, Result};

/// So many names are in a batch at most, and so many bytes: they become one command's arguments.
const BATCH_NAMES: usize = 500;
const BATCH_BYTES: usize = 60_000;
/// How much of a file is read at once.
const CHUNK: usize = 256 * 1024;

/// What is about to be sent.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    /// Each path that is put, with its place in the archive, its mode, and what it is here.
    parts: Vec<Part>,
    into: Vec<u8>,
    absent: Vec<u8>,
    directories: Vec<u8>,
    present: Vec<u8>,
    expected: Vec<u8>,
    gone: Vec<u8>,
    emptied: Vec<u8>,
    modes: BTreeMap<u32, Vec<u8>>,
    paths: Vec<u8>,
    /// What rsync has made there.
    made: Made,
    /// How many files are sent, for people.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
struct Part {
    path: Vec<u8>,
    staged: Vec<u8>,
    mode: u32,
    item: Item,
}

/// Files that lie on the dock already, in a directory of ours, and need only be put in place: their contents, and what
/// they were here when they were read.
pub type Made = HashMap<Vec<u8>, (Content, Item)>;

/// A file whose contents are ours to make.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The path whose place it takes on the dock.
    pub path: Vec<u8>,
    /// What it says.
    pub text: Vec<u8>,
}

/// What was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Each path: its contents, and what it was here when it was read.
    pub files: HashMap<Vec<u8>, (Content, Item)>,
    /// Those that changed meanwhile, vanished, or can't be read, with why.
    pub skipped: Vec<(Vec<u8>, String)>,
}

struct Batches {
    count: usize,
    /// The batches that may have room, by directory and how their names begin.
    open: HashMap<(Vec<u8>, u8), Batch>,
}

/// Its place in the archive, and how many names and bytes of names are in it.
type Batch = (Vec<u8>, usize, usize);

impl Batches {
    /// The place of a new name of a directory, in a batch of it that has room.
    fn place(&mut self, directory: &[u8], name: &[u8], into: &mut Vec<u8>) -> Vec<u8> {
        let class = match name {
            [b'.', b'.', ..] => b'd',
            [b'.', ..] => b'h',
            _ => b'p',
        };
        let key = (directory.to_vec(), class);
        let room = self
            .open
            .get_mut(&key)
            .filter(|(_, names, bytes)| *names < BATCH_NAMES && *bytes < BATCH_BYTES);
        let batch = match room {
            Some((batch, names, bytes)) => {
                *names += 1;
                *bytes += name.len();
                batch.clone()
            }
            None => {
                let batch = format!("{}{}", char::from(class), self.count).into_bytes();
                self.count += 1;
                into.extend_from_slice(&batch);
                into.extend_from_slice(b"/./");
                if !directory.is_empty() {
                    into.extend_from_slice(directory);
                    into.push(b'/');
                }
                into.push(0);
                self.open.insert(key, (batch.clone(), 1, name.len()));
                batch
            }
        };
        [batch.as_slice(), b"/", name].concat()
    }
}

fn name_path(list: &mut Vec<u8>, path: &[u8]) {
    list.extend_from_slice(b"./");
    list.extend_from_slice(path);
    list.push(0);
}

impl Parcel {
    /// Packs what the steps send to the dock, but for what rsync has made there.
    pub fn pack(steps: &Steps, here: &Tree, there: &Tree, precise: bool, made_there: Made) -> Self {
        let mut parcel = Self {
            made: made_there,
            ..Self::default()
        };
        let mut batches = Batches {
            count: 0,
            open: HashMap::new(),
        };
        // New directories, with their places in the archive.
        let mut made: HashMap<&[u8], Vec<u8>> = HashMap::new();
        let mut directories: BTreeSet<&[u8]> = BTreeSet::new();
        let mut emptied = Vec::new();
        for (path, action) in steps {
            let (before, item) = (there.get(path), here.get(path));
            let is_directory = before.is_some_and(|item| item.kind == Kind::Directory);
            let top = match action {
                Action::Send(mode) => {
                    let Some(item) = item else { continue };
                    if is_directory && item.kind == Kind::Directory {
                        parcel.mode(path, *mode);
                        name_path(&mut parcel.paths, path);
                        continue;
                    }
                    name_path(&mut parcel.paths, path);
                    let (parent, name) = split(path);
                    let inside = made.get(parent).map(|parent| [parent.as_slice(), b"/", name].concat());
                    let top = inside.is_none();
                    let staged = inside.unwrap_or_else(|| batches.place(parent, name, &mut parcel.into));
                    if item.kind == Kind::Directory {
                        made.insert(path, staged.clone());
                        if mode & 0o700 != 0o700 {
                            parcel.mode(path, *mode);
                        }
                    } else if !parcel.made.contains_key(path) {
                        parcel.files += 1;
                        parcel.bytes += item.stamp.size;
                    }
                    if top {
                        match before {
                            None => name_path(&mut parcel.absent, path),
                            Some(_) if is_directory => emptied.push(path),
                            Some(before) => {
                                parcel.expect(path, before, precise);
                                if item.kind == Kind::Directory {
                                    name_path(&mut parcel.gone, path);
                                }
                            }
                        }
                    }
                    parcel.parts.push(Part {
                        path: path.clone(),
                        staged,
                        mode: *mode,
                        item: item.clone(),
                    });
                    top
                }
                Action::RemoveThere => {
                    name_path(&mut parcel.paths, path);
                    match before {
                        None => continue,
                        Some(_) if is_directory => emptied.push(path),
                        Some(before) => {
                            parcel.expect(path, before, precise);
                            name_path(&mut parcel.gone, path);
                        }
                    }
                    true
                }
                Action::ModeThere(mode) => {
                    if let Some(before) = before.filter(|_| !is_directory) {
                        parcel.expect(path, before, precise);
                    }
                    parcel.mode(path, *mode);
                    name_path(&mut parcel.paths, path);
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
            name_path(&mut parcel.directories, path);
        }
        // What lies deepest first.
        for path in emptied.into_iter().rev() {
            name_path(&mut parcel.emptied, path);
        }
        parcel
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The paths of these batches.
    pub fn paths_of(&self, batches: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        let is_in = |part: &&Part| {
            batches
                .iter()
                .any(|batch| part.staged.split(|byte| *byte == b'/').next() == Some(batch))
        };
        self.parts.iter().filter(is_in).map(|part| part.path.clone()).collect()
    }

    fn mode(&mut self, path: &[u8], mode: u32) {
        name_path(self.modes.entry(mode).or_default(), path);
    }

    fn expect(&mut self, path: &[u8], before: &Item, precise: bool) {
        name_path(&mut self.present, path);
        self.expected.extend(expectation(path, &before.stamp, precise));
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A link that breaks. What can't be read here is left out, and said.
    pub fn write(&self, to: &mut dyn Write, local: &Local, generated: Option<&Generated>, gzip: bool) -> Result<Sent> {
        let level = if gzip { Compression::fast() } else { Compression::none() };
        if gzip {
            let mut encoder = GzEncoder::new(to, level);
            let sent = self.write_archive(&mut encoder, local, generated)?;
            encoder.finish().map_err(|cause| broken(&cause))?;
            Ok(sent)
        } else {
            self.write_archive(to, local, generated)
        }
    }

    fn write_archive(&self, to: &mut dyn Write, local: &Local, generated: Option<&Generated>) -> Result<Sent> {
        let mut builder = Builder::new(to);
        let mut sent = Sent::default();
        let (mut skip, mut made) = (Vec::new(), Vec::new());
        self.batches(&mut builder)?;
        for part in &self.parts {
            let outcome = match part.item.kind {
                Kind::Directory => {
                    let mut header = header(part.mode | 0o700, part.item.stamp.mtime, 0);
                    header.set_entry_type(EntryType::Directory);
                    add(&mut builder, &mut header, &part.staged, io::empty())?;
                    Ok((Content::of(b""), part.item.clone()))
                }
                Kind::Symlink => {
                    let target = part.item.target.clone().unwrap_or_default();
                    let mut header = header(0o777, part.item.stamp.mtime, 0);
                    header.set_entry_type(EntryType::Symlink);
                    let path = Path::new(OsStr::from_bytes(&part.staged));
                    builder
                        .append_link(&mut header, path, OsStr::from_bytes(&target))
                        .map_err(|cause| sending(&part.path, &cause))?;
                    Ok((Content::of(&target), part.item.clone()))
                }
                Kind::File => match generated.filter(|generated| generated.path == part.path) {
                    Some(generated) => {
                        let size = u64::try_from(generated.text.len()).unwrap_or(u64::MAX);
                        let mut header = header(part.mode, part.item.stamp.mtime, size);
                        add(&mut builder, &mut header, &part.staged, generated.text.as_slice())?;
                        Ok((Content::of(&generated.text), part.item.clone()))
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
                        None => add_file(&mut builder, local, part)?,
                    },
                },
            };
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
            ("c/absent", &self.absent),
            ("c/dirs", &self.directories),
            ("c/present", &self.present),
            ("c/expected", &self.expected),
            ("c/gone", &self.gone),
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
        let go = b"go\n".to_vec();
        let lists = lists.iter().map(|(name, list)| (*name, *list));
        let modes = modes.iter().map(|(name, list)| (name.as_str(), *list));
        for (name, list) in lists.chain(modes).chain([("c/go", &go)]) {
            let size = u64::try_from(list.len()).unwrap_or(u64::MAX);
            add(
                &mut builder,
                &mut header(0o600, 0, size),
                name.as_bytes(),
                list.as_slice(),
            )?;
        }
        let to = builder.into_inner().map_err(|cause| broken(&cause))?;
        to.flush().map_err(|cause| broken(&cause))?;
        Ok(sent)
    }

    /// The directories of all batches.
    fn batches(&self, builder: &mut Builder<&mut dyn Write>) -> Result<()> {
        let batches = self.into.split(|byte| *byte == 0).filter(|into| !into.is_empty());
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

/// Adds a file as it is while it is read; where it changes meanwhile, why it is to be left out.
fn add_file(
    builder: &mut Builder<&mut dyn Write>,
    local: &Local,
    part: &Part,
) -> Result<std::result::Result<(Content, Item), String>> {
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
    };
    add(builder, &mut header, &part.staged, &mut reading)?;
    // A byte more, and the file grew.
    let mut more = [0];
    let grew = matches!(reading.file.read(&mut more), Ok(1..));
    let now = local.look(&part.path);
    let same = matches!(&now, Ok(Some(now)) if now.stamp == item.stamp);
    if reading.short || grew || !same {
        return Ok(Err("it changed while it was sent".to_owned()));
    }
    let content = Content(reading.hash.finalize().into());
    Ok(Ok((content, item)))
}

/// Reads just as much as a file had, whatever becomes of it.
struct Hashing {
    file: std::fs::File,
    left: u64,
    hash: Sha256,
    short: bool,
}

impl io::Read for Hashing {
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
