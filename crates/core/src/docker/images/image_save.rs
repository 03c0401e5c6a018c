//! Single layers out of the stream of `docker save`: engines with the classic store only send whole images, with the
//! layers in an order that the engine chooses.
//!
//! Since engine 25 a layer is at `blobs/sha256/DIGEST` of its plain tar, and the configuration beside it. Before, a layer is
//! at `ID/layer.tar`, where ID is that of docker's image specification 1.0, which the engine computes from the layers below
//! (moby, `image/v1.CreateID`); and the configuration at `DIGEST.json`. [`LayerPaths`] knows both, so that one pass is enough.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::bounded_tar::BoundedTar;
use super::manifest::{Digest, chain_ids};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// The most bytes of a document.
const LONGEST_DOCUMENT: u64 = 16 << 20;

/// The configuration of a container in every layer but the top one, by specification 1.0: all is empty.
const EMPTY_CONFIG: &str = concat!(
    r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"#,
    r#""Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","#,
    r#""Entrypoint":null,"OnBuild":null,"Labels":null}"#
);

/// An archive that is not of an image, or that breaks off.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It ends early.
    #[error("the archive can't be read")]
    Io(#[from] io::Error),
    /// A document in it is not what it should be.
    #[error("manifest.json of the archive is damaged")]
    Manifest(#[from] serde_json::Error),
    /// It lacks something that was asked for.
    #[error("the archive lacks {0}")]
    Lacks(String),
}

/// What is found in an archive.
#[derive(Debug)]
pub enum SavedPart {
    /// A layer that is wanted begins; so many bytes follow.
    Layer(Digest, u64),
    /// Bytes of that layer.
    Data(Bytes),
    /// It was read to its end.
    End,
    /// The image's configuration, whole.
    Config(Vec<u8>),
}

/// Where layers are in the archive of one image.
#[derive(Clone, Debug, Default)]
pub struct LayerPaths {
    by_path: HashMap<String, Digest>,
    /// The layer of unknown path: the top one, in archives of before engine 25.
    top: Option<Digest>,
    config: Vec<String>,
}

impl LayerPaths {
    /// The paths in an image with this ID, and with these layers' digests, lowest first.
    pub fn of(id: &Digest, diff_ids: &[Digest]) -> Self {
        let mut names = Self {
            config: vec![format!("blobs/sha256/{}", id.hex()), format!("{}.json", id.hex())],
            ..Self::default()
        };
        let mut below: Option<Digest> = None;
        for (chain, diff_id) in chain_ids(diff_ids).iter().zip(diff_ids) {
            names
                .by_path
                .insert(format!("blobs/sha256/{}", diff_id.hex()), diff_id.clone());
            let parent = below.map_or_else(String::new, |below| format!(r#","parent":"{below}""#));
            let text = format!(
                r#"{{"container_config":{EMPTY_CONFIG},"created":"1970-01-01T00:00:00Z","layer_id":"{chain}"{parent}}}"#
            );
            let id = Digest::of(text.as_bytes());
            names.by_path.insert(format!("{}/layer.tar", id.hex()), diff_id.clone());
            below = Some(id);
        }
        // The top layer's ID depends on the image's whole configuration; what is computed for it here is not its ID.
        names.top = diff_ids.last().cloned();
        names
    }

    /// Without the computed paths: if the layers turn out to be needed, the first pass finds them by the archive's own
    /// `manifest.json`.
    #[must_use]
    pub fn certain(&self) -> Self {
        let by_path = self.by_path.iter().filter(|(path, _)| path.starts_with("blobs/"));
        Self {
            by_path: by_path.map(|(path, digest)| (path.clone(), digest.clone())).collect(),
            top: None,
            config: self.config.clone(),
        }
    }

    /// The paths in the archive's own `manifest.json`, where the computed ones did not fit.
    fn of_manifest(&self, layers: &[String], diff_ids: &[Digest]) -> Self {
        Self {
            by_path: layers.iter().cloned().zip(diff_ids.iter().cloned()).collect(),
            top: None,
            config: self.config.clone(),
        }
    }

    fn layer(&self, path: &str) -> Option<&Digest> {
        self.by_path
            .get(path)
            .or_else(|| self.top.as_ref().filter(|_| path.ends_with("/layer.tar")))
    }
}

/// How a pass over an archive ended.
#[derive(Debug)]
pub enum Pass {
    /// All that was wanted was in it.
    Whole,
    /// Layers are elsewhere than expected, and nothing that was not wanted was handed on: these paths fit.
    Again(LayerPaths),
}

/// Reads an archive until all that is wanted was handed on: the configuration, and each of these layers once. Also ends
/// when the receiver is gone.
///
/// # Errors
/// [`SaveError`].
pub fn read(
    archive: impl Read,
    names: &LayerPaths,
    diff_ids: &[Digest],
    wanted: &[Digest],
    found: &mpsc::Sender<SavedPart>,
) -> Result<Pass, SaveError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct SaveManifest {
        layers: Vec<String>,
    }
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut missing: BTreeMap<&Digest, ()> = wanted.iter().map(|digest| (digest, ())).collect();
    let mut config_read = false;
    let mut unknown = false;
    let (archive, allowance) = BoundedTar::new(archive);
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_gnu_sparse() {
            // The size in its header is not the size of its data.
            return Err(io::Error::other("it has a file with holes, which no engine writes").into());
        }
        allowance.begins(&entry)?;
        if !entry.header().entry_type().is_file() {
            // Old engines write a layer once and link to it where it comes again.
            continue;
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if !config_read && names.config.contains(&path) {
            let config = document(&mut entry)?;
            found.blocking_send(SavedPart::Config(config)).map_err(|_| gone())?;
            config_read = true;
        } else if let Some((digest, ())) = names.layer(&path).and_then(|digest| missing.remove_entry(digest)) {
            let digest = digest.clone();
            let mut left = entry.size();
            found
                .blocking_send(SavedPart::Layer(digest, left))
                .map_err(|_| gone())?;
            while left > 0 {
                let mut chunk = vec![0; CHUNK];
                let read = fill(&mut entry, &mut chunk)?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                left = left.saturating_sub(read as u64);
                chunk.truncate(read);
                found
                    .blocking_send(SavedPart::Data(Bytes::from(chunk)))
                    .map_err(|_| gone())?;
            }
            found.blocking_send(SavedPart::End).map_err(|_| gone())?;
        } else if path.ends_with("/layer.tar") && names.layer(&path).is_none() {
            unknown = true;
        } else if path == "manifest.json" && !missing.is_empty() {
            let manifests: Vec<SaveManifest> = serde_json::from_slice(&document(&mut entry)?)?;
            let layers = manifests.into_iter().next().map(|manifest| manifest.layers);
            let layers = layers
                .filter(|layers| layers.len() == diff_ids.len())
                .unwrap_or_default();
            let again = names.of_manifest(&layers, diff_ids);
            // Another pass is only worth it if it finds what this one did not.
            if unknown
                && missing
                    .keys()
                    .all(|digest| again.by_path.values().any(|there| there == *digest))
            {
                return Ok(Pass::Again(again));
            }
        }
        if missing.is_empty() && config_read {
            return Ok(Pass::Whole);
        }
    }
    Err(SaveError::Lacks(match missing.keys().next() {
        Some(digest) => format!("the layer {}", digest.short()),
        None => "the image's configuration".to_owned(),
    }))
}

fn document(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    entry.take(LONGEST_DOCUMENT).read_to_end(&mut document)?;
    Ok(document)
}

/// Fills the buffer, unless the end comes before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads what is sent in pieces, on a thread outside of the runtime. Ends when the sender ends; fails if the sender
/// sent an error.
#[derive(Debug)]
pub struct PieceReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl PieceReader {
    /// A reader of these pieces.
    pub const fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            rest: Bytes::new(),
        }
    }
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(buffer.len()));
        if let Some(place) = buffer.get_mut(..taken.len()) {
            place.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// What is handed on: layers by their content.
    fn found(
        archive: &[u8],
        names: &LayerPaths,
        diff_ids: &[Digest],
        wanted: &[Digest],
    ) -> (Result<Pass, SaveError>, Vec<String>) {
        let (sender, mut receiver) = mpsc::channel(100);
        let pass = read(archive, names, diff_ids, wanted, &sender);
        drop(sender);
        let mut said = Vec::new();
        while let Some(found) = receiver.blocking_recv() {
            said.push(match found {
                SavedPart::Layer(digest, size) => format!("{}:{size}", digest.short()),
                SavedPart::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
                SavedPart::End => "end".to_owned(),
                SavedPart::Config(config) => format!("config {}", String::from_utf8(config).unwrap()),
            });
        }
        (pass, said)
    }

    #[test]
    fn wanted_layers_are_taken_from_archives_of_either_age() {
        let (id, low, top) = (Digest::of(b"id"), Digest::of(b"low"), Digest::of(b"top"));
        let diff_ids = [low.clone(), top.clone()];
        let names = LayerPaths::of(&id, &diff_ids);
        let old_low = names
            .by_path
            .iter()
            .find(|(path, digest)| path.ends_with("layer.tar") && **digest == low)
            .unwrap()
            .0;
        let config = format!("{}.json", id.hex());
        let old = archive(&[
            (&format!("{}/layer.tar", "e".repeat(64)), b"top"),
            (&config, b"{}"),
            (old_low, b"low"),
            ("manifest.json", b"not read"),
        ]);
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let new = archive(&[
            (&blob(&top), b"top"),
            (&blob(&id), b"{}"),
            (&blob(&low), b"low"),
            ("x", b""),
        ]);
        for archive in [old, new] {
            let (pass, said) = found(&archive, &names, &diff_ids, std::slice::from_ref(&top));
            assert!(matches!(pass, Ok(Pass::Whole)), "{pass:?}");
            assert_eq!(
                said,
                [
                    format!("{}:3", top.short()),
                    "top".into(),
                    "end".into(),
                    "config {}".into()
                ]
            );
            let (pass, said) = found(&archive, &names, &diff_ids, &diff_ids);
            assert!(matches!(pass, Ok(Pass::Whole)), "{pass:?}");
            assert_eq!(said.len(), 7);
        }
    }

    #[test]
    fn ids_are_computed_as_engine_20_10_does() {
        // Of an image on busybox as that engine saved it.
        let layer = Digest::parse("sha256:83af4cc888ff4b74401399b2ca2a4fcb84eb92a2bf9f09670c1f28094bef6309").unwrap();
        let names = LayerPaths::of(&Digest::of(b""), &[layer.clone(), Digest::of(b"x")]);
        let path = "00cd7d3983cbb95cb50dfef3cf026074cdda1af3015b5f3a8521e00400915e06/layer.tar";
        assert_eq!(names.by_path.get(path), Some(&layer));
    }

    #[test]
    fn what_lies_elsewhere_is_found_by_the_manifest() {
        let (id, low, top) = (Digest::of(b"id"), Digest::of(b"low"), Digest::of(b"top"));
        let diff_ids = [low.clone(), top.clone()];
        let names = LayerPaths {
            top: None,
            ..LayerPaths::of(&id, &diff_ids)
        };
        let config = format!("{}.json", id.hex());
        let archive = archive(&[
            ("1/layer.tar", b"low"),
            ("2/layer.tar", b"top"),
            (&config, b"{}"),
            ("manifest.json", br#"[{"Layers":["1/layer.tar","2/layer.tar"]}]"#),
        ]);
        let (pass, _) = found(&archive, &names, &diff_ids, std::slice::from_ref(&low));
        let Ok(Pass::Again(names)) = pass else {
            panic!("{pass:?}");
        };
        let (pass, said) = found(&archive, &names, &diff_ids, std::slice::from_ref(&low));
        assert!(matches!(pass, Ok(Pass::Whole)));
        assert_eq!(said[1], "low");
    }

    #[test]
    fn endless_headers_and_holes_are_refused() {
        let id = Digest::of(b"id");
        let read_error = |kind: tar::EntryType, extra: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(1 << 40);
            header.set_path("x").unwrap();
            header.set_cksum();
            let archive = header.as_bytes().chain(extra).chain(io::repeat(b'a'));
            let (sender, _receiver) = mpsc::channel(1);
            let names = LayerPaths::of(&id, &[]);
            let SaveError::Io(error) = read(archive, &names, &[], &[], &sender).unwrap_err() else {
                panic!("no such error");
            };
            error.to_string()
        };
        for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
            assert_eq!(read_error(kind, b""), "it has headers that are longer than any image's");
        }
        assert!(!read_error(tar::EntryType::GNUSparse, &[0; 512]).is_empty());
    }

    #[test]
    fn an_archive_that_breaks_off_is_an_error() {
        let (id, layer) = (Digest::of(b"id"), Digest::of(b"layer"));
        let names = LayerPaths::of(&id, std::slice::from_ref(&layer));
        let whole = archive(&[(&format!("blobs/sha256/{}", layer.hex()), &[7; 4000])]);
        let (pass, _) = found(
            &whole,
            &names,
            std::slice::from_ref(&layer),
            std::slice::from_ref(&layer),
        );
        assert_eq!(
            pass.unwrap_err().to_string(),
            "the archive lacks the image's configuration"
        );
        for length in [0, 100, 512, 2000] {
            let (pass, _) = found(
                &whole[..length],
                &names,
                std::slice::from_ref(&layer),
                std::slice::from_ref(&layer),
            );
            assert!(pass.is_err(), "{length}");
        }
    }
}
