//! What both sides agreed on when they were last in step: a file of this machine for each project and dock.
//!
//! It is written whole, by a new file that takes the old one's place, and only says what has arrived. One that is lost or
//! damaged does no harm: the next sync compares contents, and overwrites nothing.
//!
//! The format: a first line of JSON ([`Header`]), then a record for each path: `KIND CONTENT HERE THERE PATH` and a NUL,
//! where HERE and THERE are `MODE,SIZE,MTIME,CTIME,INODE,DEVICE,SETTLED`; then `end COUNT`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dock_client::sync_memory::{self, MANIFEST, VERSION};
use serde::{Deserialize, Serialize};

use super::local::RootIdentity;
use super::{Content, Item, ItemKind, MODE_BITS, Stamp, is_acceptable};
use crate::agent::paths::state_directory;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hexadecimal::hex;
use crate::hint;
use crate::private_file;

/// The longest first line of a manifest, in bytes: it names files in conflict.
const LONGEST_HEADER: u64 = 16 << 20;

/// One side of a path when it was last in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedSide {
    /// Permission bits, as in [`Item::mode`].
    pub mode: u32,
    pub stamp: Stamp,
    /// The file system that it was on, as [`Item::device`] has it.
    pub device: u64,
    /// Whether a later change can't have left the stamp as it is. Where it can, contents are compared the next time.
    pub settled: bool,
}

impl RecordedSide {
    /// Of what is there now.
    pub const fn of(item: &Item, settled: bool) -> Self {
        Self {
            mode: item.mode,
            stamp: item.stamp,
            device: item.device,
            settled,
        }
    }
}

/// A path when it was last in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it was, on both sides.
    pub kind: ItemKind,
    /// Its contents, on both sides; of directories, those of nothing.
    pub content: Content,
    /// On this machine.
    pub here: RecordedSide,
    /// On the dock.
    pub there: RecordedSide,
}

/// Records by path.
pub type Records = BTreeMap<Vec<u8>, Record>;

/// What a manifest says of the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    dockerutils_sync: u32,
    /// The mark of the workspace that it is about: another one has nothing to do with it.
    pub workspace_id: String,
    /// The absolute path of the workspace on the dock.
    pub workspace: String,
    /// What the last sync called the state in which it left the workspace, there and here: another one there was put in its
    /// place by a snapshot or a backup.
    pub generation: String,
    /// The machine that wrote it down: one to which the file was copied knows nothing of its own files.
    pub machine: String,
    /// The project's folder then.
    pub root: RootIdentity,
    /// The dock's versions of files in conflict, that were put beside ours: path of the copy, and its contents then.
    #[serde(default)]
    pub beside: BTreeMap<String, String>,
}

impl Header {
    /// Of a workspace.
    pub fn new(id: &str, workspace: &str) -> Self {
        Self {
            dockerutils_sync: VERSION,
            workspace_id: id.to_owned(),
            workspace: workspace.to_owned(),
            generation: String::new(),
            machine: String::new(),
            root: RootIdentity::default(),
            beside: BTreeMap::new(),
        }
    }
}

/// What was last agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Of the whole.
    pub header: Header,
    /// Of each path.
    pub records: Records,
}

impl Manifest {
    /// Reads a manifest; `None` if it is damaged, or of another version.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let line = text.iter().position(|byte| *byte == b'\n')?;
        let (header, rest) = text.split_at_checked(line)?;
        let header: Header = serde_json::from_slice(header)
            .ok()
            .filter(|header: &Header| header.dockerutils_sync == VERSION)?;
        let rest = rest.get(1..)?;
        let end = rest.iter().rposition(|byte| *byte == 0).map_or(0, |at| at + 1);
        let (lines, end) = rest.split_at_checked(end)?;
        let mut records = Records::new();
        for line in lines.strip_suffix(b"\0").unwrap_or(lines).split(|byte| *byte == 0) {
            if lines.is_empty() {
                break;
            }
            let (path, record) = read_record(line)?;
            records.insert(path.to_vec(), record);
        }
        let count: usize = std::str::from_utf8(end)
            .ok()?
            .trim_end()
            .strip_prefix("end ")?
            .parse()
            .ok()?;
        (count == records.len()).then_some(Self { header, records })
    }

    /// Its text.
    ///
    /// # Errors
    /// None that a header could have.
    pub fn render(&self) -> Result<Vec<u8>> {
        let header = serde_json::to_vec(&self.header)
            .map_err(|cause| Error::failed("the manifest of the sync has no JSON form").because(cause))?;
        let mut text = Vec::with_capacity(header.len() + self.records.len() * 220);
        text.extend(header);
        text.push(b'\n');
        for (path, record) in &self.records {
            let kind = match record.kind {
                ItemKind::File => 'f',
                ItemKind::Directory => 'd',
                ItemKind::Symlink => 'l',
            };
            let line = format!(
                "{kind} {} {} {} ",
                hex(&record.content.0),
                side(&record.here),
                side(&record.there)
            );
            text.extend_from_slice(line.as_bytes());
            text.extend_from_slice(path);
            text.push(0);
        }
        text.extend_from_slice(format!("end {}\n", self.records.len()).as_bytes());
        Ok(text)
    }
}

fn side(side: &RecordedSide) -> String {
    let Stamp {
        size,
        mtime,
        ctime_ns,
        inode,
    } = side.stamp;
    let (device, settled) = (side.device, u8::from(side.settled));
    format!("{:o},{size},{mtime},{ctime_ns},{inode},{device},{settled}", side.mode)
}

fn read_record(line: &[u8]) -> Option<(&[u8], Record)> {
    let mut fields = line.splitn(5, |byte| *byte == b' ');
    let kind = match fields.next()? {
        b"f" => ItemKind::File,
        b"d" => ItemKind::Directory,
        b"l" => ItemKind::Symlink,
        _ => return None,
    };
    let content = Content::from_hex(fields.next()?)?;
    let (here, there) = (read_side(fields.next()?)?, read_side(fields.next()?)?);
    let path = fields.next().filter(|path| is_acceptable(path))?;
    let record = Record {
        kind,
        content,
        here,
        there,
    };
    Some((path, record))
}

fn read_side(text: &[u8]) -> Option<RecordedSide> {
    let mut fields = std::str::from_utf8(text).ok()?.split(',');
    let side = RecordedSide {
        mode: u32::from_str_radix(fields.next()?, 8)
            .ok()
            .filter(|mode| mode & !MODE_BITS == 0)?,
        stamp: Stamp {
            size: fields.next()?.parse().ok()?,
            mtime: fields.next()?.parse().ok()?,
            ctime_ns: fields.next()?.parse().ok()?,
            inode: fields.next()?.parse().ok()?,
        },
        device: fields.next()?.parse().ok()?,
        settled: match fields.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        },
    };
    fields.next().is_none().then_some(side)
}

/// The files in which this machine remembers a project's syncs with a dock. While this lives, no other command syncs
/// the two.
#[derive(Debug)]
pub struct Memory {
    stem: PathBuf,
    lock: Option<File>,
}

impl Memory {
    /// Of a project's root and a dock. Waits for nobody; [`super::shared`] does.
    ///
    /// # Errors
    /// Another sync of the same, and a directory that can't be made.
    pub fn open(root: &Path, moniker: &str, env: &Env) -> Result<Self> {
        Self::try_open(root, moniker, env)?.ok_or_else(|| Self::peek(root, moniker, env).is_taken(root, moniker))
    }

    /// [`Memory::open`]; `None` where another command syncs the same.
    ///
    /// # Errors
    /// A directory that can't be made.
    pub fn try_open(root: &Path, moniker: &str, env: &Env) -> Result<Option<Self>> {
        let mut memory = Self::peek(root, moniker, env);
        let directory = memory.stem.parent().unwrap_or(Path::new("."));
        let failed = |path: &Path, cause| Error::failed(format!("{} can't be written", path.display())).because(cause);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|cause| failed(directory, cause))?;
        let path = memory.stem.with_extension("lock");
        let lock = private_file::open_lock(&path).map_err(|cause| failed(&path, cause))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(failed(&path, cause)),
        }
        memory.lock = Some(lock);
        Ok(Some(memory))
    }

    /// The error of a command that finds another one at work, which can't be asked.
    pub fn is_taken(&self, root: &Path, moniker: &str) -> Error {
        let lock = self.stem.with_extension("lock");
        Error::failed(format!(
            "another command syncs {} with dock {moniker:?} just now, and does not answer",
            root.display()
        ))
        .hint(hint!(
            "if it is stopped, continue it (fg); else end it: fuser {}",
            lock.display()
        ))
    }

    /// Where whoever holds the lock says how it is asked: see [`super::holder`].
    pub fn holder_file(&self) -> PathBuf {
        self.stem.with_extension("holder")
    }

    /// By what its files are named.
    pub fn name(&self) -> String {
        let name = self.stem.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// [`Memory::open`] to read only, beside whatever syncs.
    pub fn peek(root: &Path, moniker: &str, env: &Env) -> Self {
        Self {
            stem: sync_memory::stem(&state_directory(env), root, moniker),
            lock: None,
        }
    }

    /// Whether this holds the lock: else it only reads.
    pub const fn is_ours(&self) -> bool {
        self.lock.is_some()
    }

    /// The manifest; an empty one if it is missing or can't be read.
    pub fn manifest(&self) -> Manifest {
        fs::read(self.manifest_file())
            .ok()
            .and_then(|text| Manifest::parse(&text))
            .unwrap_or_default()
    }

    /// What the manifest says of the whole, without the time that it takes to read all of it; `None` if it is missing or
    /// can't be read.
    pub fn header(&self) -> Option<Header> {
        let mut line = Vec::new();
        let file = File::open(self.manifest_file()).ok()?;
        BufReader::new(file)
            .take(LONGEST_HEADER)
            .read_until(b'\n', &mut line)
            .ok()?;
        let header = serde_json::from_slice(&line).ok();
        header.filter(|header: &Header| header.dockerutils_sync == VERSION)
    }

    /// Where the manifest is.
    pub fn manifest_file(&self) -> PathBuf {
        self.stem.with_extension(MANIFEST)
    }

    /// Puts a manifest in the place of the last one.
    ///
    /// # Errors
    /// A disk that is full, and its like.
    pub fn remember(&self, manifest: &Manifest) -> Result<()> {
        let text = manifest.render()?;
        let file = self.manifest_file();
        private_file::replace(&file, &text).map_err(|cause| unwritable(&file, cause))
    }

    /// Writes down, before the dock is told, how the state is called that a sync is about to leave there, after the one of
    /// the manifest. Where the sync then breaks off, either may be what is there.
    ///
    /// # Errors
    /// As [`Memory::remember`].
    pub fn expect(&self, manifest: &Manifest, next: &str) -> Result<()> {
        let mut expected = self.expected(manifest);
        expected.push(next.to_owned());
        let lines = std::iter::once(&manifest.header.generation).chain(&expected);
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let file = self.stem.with_extension("expected");
        private_file::replace(&file, text.as_bytes()).map_err(|cause| unwritable(&file, cause))
    }

    /// The states that a sync after this manifest's may have left on the dock.
    pub fn expected(&self, manifest: &Manifest) -> Vec<String> {
        let text = fs::read_to_string(self.stem.with_extension("expected")).unwrap_or_default();
        let mut lines = text.lines().map(str::to_owned);
        match lines.next() {
            // Beside another manifest, one from a backup for example, it says nothing.
            Some(after) if after == manifest.header.generation => lines.collect(),
            _ => Vec::new(),
        }
    }

    /// Whether something of this name was [noted](Memory::note).
    pub fn is_noted(&self, name: &str) -> bool {
        self.stem.with_extension(name).exists()
    }

    /// Notes that something was said that is said once.
    ///
    /// # Errors
    /// As [`Memory::remember`].
    pub fn note(&self, name: &str) -> Result<()> {
        let file = self.stem.with_extension(name);
        private_file::replace(&file, b"").map_err(|cause| unwritable(&file, cause))
    }

    /// What the dock's files were when they were last listed, and the name by which the dock tells whether they still
    /// are.
    pub fn listing(&self) -> Option<(Vec<u8>, String)> {
        let text = fs::read(self.stem.with_extension("listing")).ok()?;
        let digest = hex(&Content::of(&text).0);
        Some((text, digest))
    }

    /// Keeps a listing for the next time.
    ///
    /// # Errors
    /// As [`Memory::remember`].
    pub fn keep_listing(&self, text: &[u8]) -> Result<()> {
        let file = self.stem.with_extension("listing");
        private_file::replace_quickly(&file, text).map_err(|cause| unwritable(&file, cause))
    }
}

fn unwritable(file: &Path, cause: io::Error) -> Error {
    Error::failed(format!("what was synced can't be recorded in {}", file.display()))
        .because(cause)
        .hint("nothing is lost: the next sync compares the files themselves")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp() -> impl Strategy<Value = Stamp> {
        (any::<u64>(), any::<i64>(), any::<i64>(), any::<u64>()).prop_map(|(size, mtime, ctime_ns, inode)| Stamp {
            size,
            mtime,
            ctime_ns,
            inode,
        })
    }

    fn one_side() -> impl Strategy<Value = RecordedSide> {
        (0..=MODE_BITS, stamp(), any::<u64>(), any::<bool>()).prop_map(|(mode, stamp, device, settled)| RecordedSide {
            mode,
            stamp,
            device,
            settled,
        })
    }

    fn records() -> impl Strategy<Value = Records> {
        let path = prop::collection::vec(1..=255_u8, 1..12).prop_filter("a path", |path| is_acceptable(path));
        let kind = prop_oneof![Just(ItemKind::File), Just(ItemKind::Directory), Just(ItemKind::Symlink)];
        let record =
            (kind, any::<[u8; 32]>(), one_side(), one_side()).prop_map(|(kind, content, here, there)| Record {
                kind,
                content: Content(content),
                here,
                there,
            });
        prop::collection::btree_map(path, record, 0..8)
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_read_again(records in records(), workspace in ".*") {
            let manifest = Manifest { header: Header::new("0f", &workspace), records };
            let text = manifest.render().unwrap();
            prop_assert_eq!(Manifest::parse(&text), Some(manifest));
            // Cut anywhere, it is not a valid manifest.
            for end in 0..text.len() - 1 {
                prop_assert_eq!(Manifest::parse(&text[..end]), None);
            }
        }
    }

    #[test]
    fn one_sync_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let memory = Memory::open(Path::new("/p"), "far", &env).unwrap();
        assert!(Memory::open(Path::new("/p"), "far", &env).is_err());
        assert!(Memory::open(Path::new("/p"), "near", &env).is_ok());
        assert_eq!(memory.manifest(), Manifest::default());
        let manifest = Manifest {
            header: Header::new("id", "/w"),
            records: Records::new(),
        };
        memory.remember(&manifest).unwrap();
        assert_eq!(Memory::peek(Path::new("/p"), "far", &env).manifest(), manifest);
        // What agents look up.
        let workspace = sync_memory::workspace(&state_directory(&env), Path::new("/p"), "far");
        assert_eq!(workspace.as_deref(), Some("/w"));
        drop(memory);
        assert!(Memory::open(Path::new("/p"), "far", &env).is_ok());
    }
}
