//! Reading lists of files that a script on the dock prints.

use std::collections::BTreeSet;
use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::output::progress::counter::Counter;
use crate::sync::compression::Compression;
use crate::sync::listing::{self, Listing};
use crate::sync::remote::broken;
use crate::sync::{ItemKind, Tree, ancestors};
use build_context::{Builder, Selector};

/// The most bytes of a `stat` record, without its path.
const LONGEST_RECORD: u64 = 400;
/// The most bytes of a listing: enough for [`listing::MOST_PATHS`].
const LONGEST_LISTING: u64 = 1 << 30;

/// Reads the text of a listing to its end.
pub(super) fn read_listing(from: &mut dyn Read, compression: Compression, counter: &Counter) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let lines = compression.reader(from).map(|lines| lines.take(LONGEST_LISTING));
    lines
        .and_then(|lines| CountingLines(lines, counter).read_to_end(&mut text))
        .map_err(|cause| broken(&cause))?;
    Ok(text)
}

/// Counts the lines that are read: one for each file.
pub(super) struct CountingLines<'a, R>(pub(super) R, pub(super) &'a Counter);

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

/// Parses a listing without leaving anything out.
pub(super) fn whole_listing(text: &[u8], refused: &str) -> Result<Listing> {
    let mut selector = Selector::new(&[], Builder::default())
        .map_err(|cause| Error::failed("an empty .dockerignore is wrong").because(cause))?;
    listing::read(text, &mut selector).map_err(|cause| Error::failed(refused).because(cause))
}

/// The most bytes of the records of these paths.
pub(super) fn records_limit<'a>(paths: impl Iterator<Item = &'a Vec<u8>>) -> u64 {
    paths
        .map(|path| path.len() as u64 + LONGEST_RECORD)
        .fold(LONGEST_RECORD, u64::saturating_add)
}

/// Reads records of single paths. `stat` follows links on the way to a path, so a path below one of the links among the
/// records is dropped: it names a file that has another path.
pub(super) fn read_records(from: &mut dyn Read, limit: u64) -> Result<Tree> {
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
