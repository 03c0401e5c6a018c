//! What comes from the dock: tar archives, one behind the other, of the files that were asked for.
//!
//! All of it is hostile. Only what was asked for is taken, and only with the size that was listed; it goes into a
//! directory of ours under names of ours. A directory or a link in an archive leads nowhere: nothing is unpacked.

use std::collections::HashMap;
use std::io::{self, Read, Write as _};

use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType};

use super::compression::Compression;
use super::local::StagingDirectory;
use super::remote::broken;
use super::{Content, Item, ItemKind, LONGEST_PATH};
use crate::error::{Error, Result};
use crate::output::progress::bars::Bars;

/// Beside the files themselves, so much may come for each of them: headers, long names, the padding of archives.
const OVERHEAD: u64 = 32 * 1024;
/// How much is moved at once.
const CHUNK: usize = 256 * 1024;

/// A file or link that has arrived, and lies in the stage.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Its name in the stage.
    pub staged: String,
    pub content: Content,
}

/// An archive that is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// More than was asked for, by far.
    #[error("the dock sends more than was asked for")]
    TooMuch,
    /// A name that is longer than any path.
    #[error("a name in the archive is too long")]
    LongName,
    /// Broken, or no archive.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the files that were asked for: by path, what they were when they were listed. What does not come as it was
/// listed is missing.
///
/// # Errors
/// A link that breaks, an archive that is not valid, a disk that is full.
pub fn receive(
    from: &mut dyn Read,
    compression: Compression,
    wanted: &HashMap<Vec<u8>, Item>,
    stage: &StagingDirectory,
    bars: &Bars,
) -> Result<HashMap<Vec<u8>, Arrived>> {
    let bytes: u64 = wanted.values().map(|item| item.stamp.size).fold(0, u64::saturating_add);
    let limit = bytes.saturating_add(OVERHEAD.saturating_mul(wanted.len() as u64 + 8));
    let reader = io::BufReader::with_capacity(CHUNK, from);
    let reader = compression.reader(reader).map_err(|cause| broken(&cause))?;
    // A few compressed bytes can stand for very many: what is counted is what comes out.
    unpack(&mut Limited::new(reader, limit), wanted, stage, bars).map_err(|error| match error {
        Unpack::Here(cause) => {
            let full = matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let error = Error::failed("what the dock sends can't be written here").because(cause);
            if full {
                error.hint("make room on this disk, and try again; nothing was put in place, and every file is whole")
            } else {
                error
            }
        }
        Unpack::There(ReceiveError::Io(cause)) => broken(&cause),
        Unpack::There(cause) => Error::failed("what the dock sends is refused").because(cause),
    })
}

/// Whose fault it is.
enum Unpack {
    Here(io::Error),
    There(ReceiveError),
}

impl From<ReceiveError> for Unpack {
    fn from(error: ReceiveError) -> Self {
        Self::There(error)
    }
}

impl From<io::Error> for Unpack {
    fn from(error: io::Error) -> Self {
        Self::There(error.into())
    }
}

/// What is known of the next entry from those before it.
#[derive(Default)]
struct Long {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

fn unpack(
    from: &mut impl Read,
    wanted: &HashMap<Vec<u8>, Item>,
    stage: &StagingDirectory,
    bars: &Bars,
) -> Result<HashMap<Vec<u8>, Arrived>, Unpack> {
    let mut arrived: HashMap<Vec<u8>, Arrived> = HashMap::new();
    let mut archive = Archive::new(from);
    archive.set_ignore_zeros(true);
    let mut long = Long::default();
    let mut buffer = vec![0; CHUNK];
    // Raw: tar's own reader would take long names of any length into memory.
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry.map_err(refused)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {
                let size = entry.header().entry_size()?;
                if size > 2 * LONGEST_PATH as u64 {
                    return Err(ReceiveError::LongName.into());
                }
                let mut text = Vec::new();
                entry.read_to_end(&mut text).map_err(refused)?;
                match kind {
                    EntryType::XHeader => pax(&text, &mut long),
                    EntryType::GNULongName => long.name = Some(until_nul(text)),
                    _ => long.link = Some(until_nul(text)),
                }
                continue;
            }
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let Long { name, link } = std::mem::take(&mut long);
        let name = name.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let path = name.strip_prefix(b"./").unwrap_or(&name).to_vec();
        let Some(item) = wanted.get(&path).filter(|_| !arrived.contains_key(&path)) else {
            continue;
        };
        let staged = stage.free_name();
        let link = || link.or_else(|| entry.header().link_name_bytes().map(std::borrow::Cow::into_owned));
        let content = match (kind, item.kind) {
            (EntryType::Symlink, ItemKind::Symlink) => {
                let Some(target) = link().filter(|target| !target.is_empty() && target.len() < LONGEST_PATH) else {
                    continue;
                };
                stage.link(&staged, &target).map_err(Unpack::Here)?;
                Content::of(&target)
            }
            // Another name of what came before.
            (EntryType::Link, ItemKind::File) => {
                let target = link().unwrap_or_default();
                let target = target.strip_prefix(b"./").unwrap_or(&target);
                let Some(first) = arrived.get(target) else { continue };
                // A copy costs the dock nothing: it counts against what was listed, as all does that comes.
                if wanted
                    .get(target)
                    .is_none_or(|first| first.stamp.size != item.stamp.size)
                {
                    continue;
                }
                let first_file = stage.open(&first.staged).map_err(Unpack::Here)?;
                let mut file = stage.create(&staged).map_err(Unpack::Here)?;
                io::copy(&mut first_file.take(item.stamp.size), &mut file).map_err(Unpack::Here)?;
                first.content
            }
            (EntryType::Regular | EntryType::Continuous, ItemKind::File) => {
                if entry.header().entry_size()? != item.stamp.size {
                    // It changed since it was listed, and comes with the next sync.
                    continue;
                }
                let mut file = stage.create(&staged).map_err(Unpack::Here)?;
                let mut hash = Sha256::new();
                loop {
                    let read = entry.read(&mut buffer).map_err(refused)?;
                    let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
                        break;
                    };
                    hash.update(chunk);
                    bars.advance(read as u64);
                    file.write_all(chunk).map_err(Unpack::Here)?;
                }
                Content(hash.finalize().into())
            }
            _ => continue,
        };
        bars.file_done();
        arrived.insert(path, Arrived { staged, content });
    }
    Ok(arrived)
}

/// A limit that was reached, out of the reader that it went through.
fn refused(error: io::Error) -> Unpack {
    if error.get_ref().is_some_and(|inner| inner.is::<ReceiveError>()) {
        return Unpack::There(ReceiveError::TooMuch);
    }
    Unpack::There(error.into())
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

/// Records `LENGTH KEY=VALUE` and a line feed (POSIX, pax).
fn pax(text: &[u8], long: &mut Long) {
    let mut rest = text;
    loop {
        let Some(blank) = rest.iter().position(|byte| *byte == b' ') else {
            return;
        };
        let length = rest
            .get(..blank)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some((record, after)) = length
            .filter(|length| *length > blank + 1)
            .and_then(|length| rest.split_at_checked(length))
        else {
            return;
        };
        rest = after;
        let record = record.get(blank + 1..record.len() - 1).unwrap_or_default();
        if let Some(path) = record.strip_prefix(b"path=") {
            long.name = Some(path.to_vec());
        } else if let Some(path) = record.strip_prefix(b"linkpath=") {
            long.link = Some(path.to_vec());
        }
    }
}

/// Reads so much and no more.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R> Limited<R> {
    const fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other(ReceiveError::TooMuch))?;
        Ok(read)
    }
}
