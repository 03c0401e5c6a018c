//! The tree of files in an image, to be compared with another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use dockerutils_test_support::process::capture_text;
use sha2::{Digest as _, Sha256};

use crate::site::Site;

/// What an archive says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The type, as a character of `ls -l`.
    pub kind: char,
    /// The permissions, with setuid, setgid and the sticky bit.
    pub mode: u32,
    /// User and group.
    pub owner: (u64, u64),
    /// Seconds since 1970.
    pub mtime: u64,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of what it holds.
    pub digest: String,
    /// Where a link leads.
    pub link: String,
    /// Extended attributes: PAX records and their values.
    pub attributes: BTreeMap<String, String>,
}

/// Files by path, seen from the folder that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, File>);

impl Tree {
    /// What is below `folder` (as `ctx`) of an image.
    ///
    /// # Panics
    /// When the image is not there, or what docker exports is no archive.
    pub fn of(site: &Site, image: &str, folder: &str) -> Self {
        let id = capture_text(site.docker().args(["create", image, "true"])).expect("a container of the image");
        let child = site
            .docker()
            .args(["export", &id])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker runs");
        let tree = Self::read(child, folder);
        capture_text(site.docker().args(["rm", "--force", &id])).expect("a container that was just made");
        tree
    }

    fn read(mut child: Child, folder: &str) -> Self {
        let mut archive = tar::Archive::new(child.stdout.take().expect("it is piped"));
        let mut files = BTreeMap::new();
        for entry in archive.entries().expect("docker exports an archive") {
            let mut entry = entry.expect("docker exports a whole archive");
            let path = shown(&entry.path_bytes());
            let Some(path) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            // The folder itself is the builder's.
            if path.is_empty() {
                continue;
            }
            let path = path.trim_end_matches('/').to_owned();
            let attributes = match entry.pax_extensions() {
                Ok(Some(records)) => records
                    .flatten()
                    .filter(|record| record.key_bytes().starts_with(b"SCHILY.xattr"))
                    .map(|record| (shown(record.key_bytes()), shown(record.value_bytes())))
                    .collect(),
                _ => BTreeMap::new(),
            };
            let mut digest = Sha256::new();
            let mut size = 0;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = entry.read(&mut buffer).expect("docker exports a whole archive");
                if read == 0 {
                    break;
                }
                size += read as u64;
                digest.update(buffer.get(..read).unwrap_or_default());
            }
            let header = entry.header();
            let file = File {
                kind: kind(header.entry_type()),
                mode: header.mode().unwrap_or_default() & 0o7777,
                owner: (header.uid().unwrap_or_default(), header.gid().unwrap_or_default()),
                mtime: header.mtime().unwrap_or_default(),
                size,
                digest: digest.finalize().iter().fold(String::new(), |mut text, byte| {
                    // A String takes everything.
                    let _ = write!(text, "{byte:02x}");
                    text
                }),
                link: entry.link_name_bytes().map(|link| shown(&link)).unwrap_or_default(),
                attributes,
            };
            files.insert(path, file);
        }
        let status = child.wait().expect("it is our child");
        assert!(status.success(), "docker export: {status}");
        Self(files)
    }

    /// The paths.
    pub fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// Each file in which two trees differ, for a message that can be read.
    pub fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for path in paths {
            let (here, there) = (self.0.get(path), other.0.get(path));
            if here != there {
                let _ = writeln!(text, "{path:?}\n  here:  {here:?}\n  there: {there:?}");
            }
        }
        text
    }

    /// Forgets times since `began`: they are the builder's own (20.10's BuildKit gives them to folders), not the
    /// context's.
    #[must_use]
    pub fn without_times_since(mut self, began: SystemTime) -> Self {
        let began = began.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        // Dates of the far future are the context's.
        let now = began..began + 3600;
        for file in self.0.values_mut().filter(|file| now.contains(&file.mtime)) {
            file.mtime = began;
        }
        self
    }

    /// Asserts that two trees are the same.
    ///
    /// # Panics
    /// When they are not, with the files that differ.
    pub fn assert_same(&self, reference: &Self, what: &str) {
        assert!(self == reference, "{what}:\n{}", self.differences(reference));
    }
}

/// Bytes as text that differs wherever the bytes do.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn kind(kind: tar::EntryType) -> char {
    match kind {
        tar::EntryType::Directory => 'd',
        tar::EntryType::Symlink => 'l',
        tar::EntryType::Link => 'h',
        tar::EntryType::Fifo => 'p',
        tar::EntryType::Char => 'c',
        tar::EntryType::Block => 'b',
        kind if kind.is_file() => '-',
        _ => '?',
    }
}
