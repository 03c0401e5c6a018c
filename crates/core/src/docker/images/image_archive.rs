//! Reads the stream of `docker save`: an image's configuration, and the files of each of its layers. Only names and
//! sizes are kept.
//!
//! Formats: docker's image specification 1.2 (`manifest.json`; layers as `ID/layer.tar`, or as `blobs/sha256/...` since
//! engine 25) and OCI's image layers (plain, gzip or zstd tar; `.wh.` files are deletions).

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Chain, Cursor, Read};

use serde::Deserialize;

use super::bounded_tar::BoundedTar;

/// The most bytes of a document; what is longer is a layer.
const LONGEST_DOCUMENT: u64 = 16 << 20;
/// The most bytes of all documents together.
const LONGEST_DOCUMENTS: u64 = 64 << 20;
/// The most memory for the names of an image's files: enough for some millions. A layer of a few kilobytes can extract
/// to any number.
const MOST_KEPT: usize = 512 << 20;
/// How many bytes show a layer's format: one block of tar.
const HEAD: usize = 512;
/// Where a tar header says `ustar` (POSIX and GNU).
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Names of the files by which a layer deletes, and by which it empties a directory.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An archive that is not of an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageArchiveError {
    /// It ends early, or a layer is damaged.
    #[error("the archive can't be read")]
    Io(#[from] io::Error),
    /// A document in it is not what it should be.
    #[error("{what} of the archive is damaged")]
    Document {
        /// Its name.
        what: &'static str,
        source: serde_json::Error,
    },
    /// A part is missing that another part names.
    #[error("the archive has no {0}")]
    Absent(String),
    /// There is so much of it that it would fill the memory.
    #[error("the archive has more {0} than any image")]
    Endless(&'static str),
}

/// An image of an archive.
#[derive(Debug)]
pub struct ArchivedImage {
    /// How it was made, oldest first.
    pub history: Vec<Step>,
    /// Its layers, lowest first; one for each step that is not empty.
    pub layers: Vec<Vec<LayerChange>>,
}

/// A step of an image's history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Step {
    /// The instruction, as the builder wrote it down.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// What a layer does to one path. Paths are relative to the root, without a slash at either end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerChange {
    /// A file, with its size in bytes; links have no size.
    File(Vec<u8>, u64),
    /// A directory is there, new or with other attributes.
    Directory(Vec<u8>),
    /// What lower layers had here is gone.
    Deleted(Vec<u8>),
    /// All that lower layers had in this directory is gone.
    Emptied(Vec<u8>),
}

/// Reads an archive of one image to its end.
///
/// # Errors
/// [`ImageArchiveError`].
pub fn read(archive: impl Read) -> Result<ArchivedImage, ImageArchiveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct SaveManifest {
        config: String,
        layers: Vec<String>,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        history: Vec<Step>,
    }
    let mut documents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut layers: HashMap<String, Vec<LayerChange>> = HashMap::new();
    let mut links: HashMap<String, String> = HashMap::new();
    let mut documents_left = LONGEST_DOCUMENTS;
    let mut budget = MemoryBudget(MOST_KEPT);
    let (archive, allowance) = BoundedTar::new(archive);
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        allowance.begins(&entry)?;
        budget.take(entry.path_bytes().len())?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_symlink() || kind.is_hard_link() {
            // Old engines write a layer once and link to it where it comes again.
            if let Some(target) = entry.link_name_bytes() {
                budget.take(target.len())?;
                links.insert(path.clone(), resolve(&path, &String::from_utf8_lossy(&target)));
            }
        } else if kind.is_file() {
            let size = entry.size();
            let mut head = Vec::with_capacity(HEAD);
            entry.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
            let reader = Cursor::new(head.clone()).chain(&mut entry);
            if let Some(changes) = changes(&head, reader, &mut budget)? {
                layers.insert(path, changes);
            } else if size <= LONGEST_DOCUMENT && head.first().is_some_and(|byte| b"{[".contains(byte)) {
                documents_left = documents_left
                    .checked_sub(size)
                    .ok_or(ImageArchiveError::Endless("documents"))?;
                let mut document = head;
                entry.read_to_end(&mut document)?;
                documents.insert(path, document);
            }
        }
    }
    let document = |path: &str| {
        documents
            .get(path)
            .ok_or_else(|| ImageArchiveError::Absent(path.to_owned()))
    };
    let damaged = |what| move |source| ImageArchiveError::Document { what, source };
    let manifests: Vec<SaveManifest> =
        serde_json::from_slice(document("manifest.json")?).map_err(damaged("manifest.json"))?;
    let manifest = manifests
        .into_iter()
        .next()
        .ok_or_else(|| ImageArchiveError::Absent("image".to_owned()))?;
    let config: Config =
        serde_json::from_slice(document(&manifest.config)?).map_err(damaged("the image's configuration"))?;
    // A layer may occur twice.
    let layers = manifest.layers.iter().map(|path| {
        let found = layers.get(path).or_else(|| layers.get(links.get(path)?));
        budget.take(found.map_or(0, |found| found.iter().map(LayerChange::memory).sum()))?;
        // A tar without an entry has no header to recognise it by.
        Ok(found.cloned().unwrap_or_default())
    });
    Ok(ArchivedImage {
        history: config.history,
        layers: layers.collect::<Result<_, ImageArchiveError>>()?,
    })
}

/// `../X/layer.tar` as seen from `Y/layer.tar` is `X/layer.tar`.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The changes of a layer; `None` if this is not a layer.
fn changes<R: Read>(
    head: &[u8],
    reader: Chain<Cursor<Vec<u8>>, R>,
    budget: &mut MemoryBudget,
) -> Result<Option<Vec<LayerChange>>, ImageArchiveError> {
    Ok(Some(if head.starts_with(GZIP_MAGIC) {
        list(flate2::read::MultiGzDecoder::new(reader), budget)?
    } else if head.starts_with(ZSTD_MAGIC) {
        list(zstd::stream::read::Decoder::new(reader)?, budget)?
    } else if head.get(TAR_MAGIC) == Some(b"ustar") {
        list(reader, budget)?
    } else {
        return Ok(None);
    }))
}

fn list(layer: impl Read, budget: &mut MemoryBudget) -> Result<Vec<LayerChange>, ImageArchiveError> {
    let mut changes = Vec::new();
    let (layer, allowance) = BoundedTar::new(layer);
    for entry in tar::Archive::new(layer).entries()? {
        let entry = entry?;
        allowance.begins(&entry)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path_bytes();
        let path = trimmed(&path);
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (path.get(..slash), path.get(slash + 1..)),
            None => (Some(&b""[..]), Some(path)),
        };
        let (parent, name) = (parent.unwrap_or_default(), name.unwrap_or_default());
        let change = if name == OPAQUE {
            LayerChange::Emptied(parent.to_vec())
        } else if let Some(name) = name.strip_prefix(WHITEOUT) {
            let slash: &[u8] = if parent.is_empty() { b"" } else { b"/" };
            LayerChange::Deleted([parent, slash, name].concat())
        } else if kind.is_dir() {
            LayerChange::Directory(path.to_vec())
        } else {
            // Another name of a file takes no space.
            let size = if kind.is_hard_link() { 0 } else { entry.size() };
            LayerChange::File(path.to_vec(), size)
        };
        budget.take(change.memory())?;
        changes.push(change);
    }
    Ok(changes)
}

/// How much memory may still be taken.
struct MemoryBudget(usize);

impl MemoryBudget {
    fn take(&mut self, bytes: usize) -> Result<(), ImageArchiveError> {
        self.0 = self.0.checked_sub(bytes).ok_or(ImageArchiveError::Endless("files"))?;
        Ok(())
    }
}

impl LayerChange {
    /// Bytes of memory, about.
    fn memory(&self) -> usize {
        let (Self::File(path, _) | Self::Directory(path) | Self::Deleted(path) | Self::Emptied(path)) = self;
        size_of::<Self>() + path.len()
    }
}

/// Without `./` at its beginning and slashes at its ends.
fn trimmed(path: &[u8]) -> &[u8] {
    let mut path = path;
    loop {
        path = match path {
            [b'.', b'/', rest @ ..] | [b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            [b'.'] => b"",
            path => return path,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if path.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
            }
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn layers_of_every_compression_are_read() {
        let layer = tar_of(&[
            ("a/", b""),
            ("a/b", b"12345"),
            ("a/.wh.c", b""),
            ("d/.wh..wh..opq", b""),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&layer).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&layer[..], 1).unwrap();
        let archive = tar_of(&[
            ("blobs/sha256/1", &layer),
            ("blobs/sha256/2", &gzip),
            ("blobs/sha256/3", &zstd),
            (
                "blobs/sha256/4",
                br#"{"history":[{"created_by":"COPY a"},{"empty_layer":true}]}"#,
            ),
            (
                "manifest.json",
                br#"[{"Config":"blobs/sha256/4","Layers":["blobs/sha256/1","blobs/sha256/2","blobs/sha256/3"]}]"#,
            ),
        ]);
        let image = read(&archive[..]).unwrap();
        let expected = [
            LayerChange::Directory(b"a".to_vec()),
            LayerChange::File(b"a/b".to_vec(), 5),
            LayerChange::Deleted(b"a/c".to_vec()),
            LayerChange::Emptied(b"d".to_vec()),
        ];
        assert_eq!(image.layers, [&expected, &expected, &expected]);
        assert_eq!(image.history.len(), 2);
        assert!(image.history[1].empty_layer);
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let read_error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(read_error(&tar_of(&[("x", b"y")])), "the archive has no manifest.json");
        assert_eq!(
            read_error(&tar_of(&[("manifest.json", b"[]")])),
            "the archive has no image"
        );
        assert_eq!(
            read_error(&tar_of(&[("manifest.json", b"{}")])),
            "manifest.json of the archive is damaged"
        );
        let whole = tar_of(&[("l", &tar_of(&[("a", b"1")])), ("manifest.json", b"[]")]);
        assert_eq!(read_error(&whole[..700]), "the archive can't be read");
    }

    #[test]
    fn what_would_fill_the_memory_is_an_error() {
        // A name of a gigabyte: its header, and then bytes for ever.
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 30);
        header.set_cksum();
        let endless = header.as_bytes().chain(io::repeat(b'a'));
        let error = read(endless).unwrap_err();
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("headers"),
            "{error:?}"
        );
        // The same in a layer.
        let mut layer = tar_of(&[("a", b"")]);
        layer.truncate(512);
        layer.extend_from_slice(header.as_bytes());
        let layer = layer.chain(io::repeat(b'a').take(2 << 20));
        let mut packed = flate2::read::GzEncoder::new(layer, flate2::Compression::fast());
        let mut gzip = Vec::new();
        packed.read_to_end(&mut gzip).unwrap();
        let error = read(&tar_of(&[("layer", &gzip)])[..]).unwrap_err();
        assert!(
            std::error::Error::source(&error)
                .unwrap()
                .to_string()
                .contains("headers"),
            "{error:?}"
        );
        // Documents that never end.
        let document = [&b"{"[..], &vec![b' '; (LONGEST_DOCUMENT - 1) as usize]].concat();
        let documents = (0..5).map(|number| (number.to_string(), &document[..]));
        let documents: Vec<_> = documents.collect();
        let documents: Vec<(&str, &[u8])> = documents.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        assert_eq!(
            read(&tar_of(&documents)[..]).unwrap_err().to_string(),
            "the archive has more documents than any image"
        );
        let mut budget = MemoryBudget(200);
        let files = tar_of(&[
            ("a", b""),
            ("b", b""),
            ("c", b""),
            ("d", b""),
            ("e", b""),
            ("f", b""),
            ("g", b""),
        ]);
        let error = list(&files[..], &mut budget).unwrap_err();
        assert_eq!(error.to_string(), "the archive has more files than any image");
    }

    #[test]
    fn links_of_old_engines_lead_to_their_layer() {
        assert_eq!(resolve("2/layer.tar", "../1/layer.tar"), "1/layer.tar");
        assert_eq!(trimmed(b"./a/b/"), b"a/b");
        assert_eq!(trimmed(b"./"), b"");
    }
}
