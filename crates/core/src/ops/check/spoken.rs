//! Which state of which Dockerfile a build has spoken about: the same is said once.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::agent::paths::state_directory;
use crate::env::Env;
use crate::hexadecimal;
use crate::private_file;

/// Bytes of a digest that is kept.
const DIGEST: usize = 16;

/// What was spoken about of one project.
#[derive(Debug)]
pub(super) struct Spoken {
    file: PathBuf,
    /// The digest of the Dockerfile of each image type.
    digests: BTreeMap<String, String>,
    is_changed: bool,
}

impl Spoken {
    /// What is remembered; nothing, if it can't be read.
    pub(super) fn of(env: &Env, root: &Path) -> Self {
        let name = digest(root.as_os_str().as_bytes());
        let file = state_directory(env).join("checked").join(format!("{name}.json"));
        let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self {
            file,
            digests: known.unwrap_or_default(),
            is_changed: false,
        }
    }

    /// Whether this Dockerfile was not spoken about as it is; from now on it was.
    pub(super) fn is_new(&mut self, image: &str, text: &str) -> bool {
        let digest = digest(text.as_bytes());
        let before = self.digests.insert(image.to_owned(), digest.clone());
        let is_new = before.as_ref() != Some(&digest);
        self.is_changed |= is_new;
        is_new
    }

    /// Writes it down. If that fails, the same is said again.
    pub(super) fn keep(&self) {
        if !self.is_changed {
            return;
        }
        let Some(directory) = self.file.parent() else { return };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        if let (Ok(()), Ok(text)) = (made, serde_json::to_vec(&self.digests)) {
            let _ = private_file::replace_quickly(&self.file, &text);
        }
    }
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    hexadecimal::hex(digest.get(..DIGEST).unwrap_or_default())
}
