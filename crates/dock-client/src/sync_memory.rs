//! Where this machine remembers what it synced with which dock: files of one stem for each project and dock, in `sync`
//! below the state directory. Their content is sync's own business with one exception: the path of the workspace, which
//! an agent looks up, too.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::hexadecimal::hex;

/// The version of the manifest's format.
pub const VERSION: u32 = 2;
/// The manifest's extension.
pub const MANIFEST: &str = "manifest";
/// The longest first line of a manifest that is read, in bytes.
const LINE: u64 = 16 << 20;

/// The part of a manifest's first line that is read here.
#[derive(Deserialize)]
struct Header {
    dockerutils_sync: u32,
    workspace: String,
}

/// The path of the files of a project's root and a dock's moniker, without their extensions.
pub fn stem(state: &Path, root: &Path, moniker: &str) -> PathBuf {
    let key = [root.as_os_str().as_bytes(), b"\0", moniker.as_bytes()].concat();
    let name: String = hex(&Sha256::digest(&key)).chars().take(32).collect();
    state.join("sync").join(name)
}

/// The path of the project's copy on the dock, if the two were ever in sync.
pub fn workspace(state: &Path, root: &Path, moniker: &str) -> Option<String> {
    read(&stem(state, root, moniker).with_extension(MANIFEST))
}

/// The paths of all copies that this machine knows, on whichever dock.
pub fn workspaces(state: &Path) -> Vec<String> {
    let files = std::fs::read_dir(state.join("sync")).into_iter().flatten().flatten();
    let files = files.map(|entry| entry.path());
    let manifests = files.filter(|file| file.extension().is_some_and(|extension| extension == MANIFEST));
    manifests
        .filter_map(|file| read(&file))
        .filter(|workspace| !workspace.is_empty())
        .collect()
}

fn read(manifest: &Path) -> Option<String> {
    let file = File::open(manifest).ok()?;
    let mut line = Vec::new();
    BufReader::new(file.take(LINE)).read_until(b'\n', &mut line).ok()?;
    let header: Header = serde_json::from_slice(&line).ok()?;
    (header.dockerutils_sync == VERSION).then_some(header.workspace)
}
