//! One build-stack at a time for an image of an engine: tags are global there. Two runs, in two clones of a repository as in one,
//! would test, push and name each other's images.
//!
//! A lock for each image, taken in the order of their names: so two runs never wait for each other in a circle.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::cli::Context;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::canonical;
use dockerutils_core::private_file;

use crate::input_digest::digest;
use crate::tags::StackTarget;

/// The directory below that for state.
const DIRECTORY: &str = "stack/locks";
/// How often is looked whether the other has ended.
const LOOK: Duration = Duration::from_millis(200);
/// The most digits of a process number.
const DIGITS: u64 = 20;

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct StackLock {
    _files: Vec<LockedFile>,
}

/// A file that is locked; it is removed when this is dropped. What a killed process leaves, the next one locks and removes.
#[derive(Debug)]
struct LockedFile {
    path: PathBuf,
    /// Closed after the file was removed: nobody else gets the lock of what is about to be removed.
    _file: File,
}

impl StackLock {
    /// Waits until no other build-stack works on one of these images ([`names`]) on the engine of the call; that is said.
    ///
    /// # Errors
    /// The file of a lock can't be made; no such dock.
    pub async fn take(context: &Context, images: &BTreeSet<String>) -> Result<Self> {
        let engine = context.engine_choice()?.endpoint.to_string();
        let folder = state_directory(&context.env).join(DIRECTORY);
        let failed = |cause| Error::failed(format!("no lock can be made in {}", folder.display())).because(cause);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(failed)?;
        let (mut files, mut is_said) = (Vec::new(), false);
        for image in images {
            let key = digest(format!("{image}\n{engine}").as_bytes());
            let path = folder.join(key.trim_start_matches("sha256:"));
            let file = loop {
                if let Some(file) = LockedFile::take(&path).map_err(failed)? {
                    break file;
                }
                if !std::mem::replace(&mut is_said, true) {
                    context.printer.warning(&format!(
                        "waiting for another build-stack{}, which makes {image} on the same engine; Ctrl-C ends this one",
                        holder(&path)
                    ));
                }
                tokio::time::sleep(LOOK).await;
            };
            files.push(file);
        }
        Ok(Self { _files: files })
    }
}

impl LockedFile {
    /// `None` if another has it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let mut file = private_file::open_lock(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(cause)) => return Err(cause),
            }
            // Whoever had it may have removed it between the two lines above.
            let is_there = match (file.metadata(), fs::metadata(path)) {
                (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
                _ => false,
            };
            if !is_there {
                continue;
            }
            // Only for the message of those who wait.
            let noted = file.set_len(0).and_then(|()| file.rewind());
            let _ = noted.and_then(|()| write!(file, "{}", std::process::id()));
            return Ok(Some(Self {
                path: path.to_owned(),
                _file: file,
            }));
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // What stays is locked and removed by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// The images by their full names: an engine knows one by several.
pub fn names(targets: &[StackTarget]) -> BTreeSet<String> {
    let designations = targets.iter().map(|target| target.designation.to_string());
    designations.map(|designation| canonical(&designation)).collect()
}

/// The process that has noted itself, for people.
fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(DIGITS).read_to_string(&mut text));
    match read.is_ok() && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!(" (process {text})"),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_core::cli::GlobalArgs;
    use dockerutils_core::env::Env;
    use dockerutils_core::output::{Printer, Verbosity};
    use futures_util::FutureExt as _;

    use super::*;

    fn context(home: &Path, engine: &str) -> Context {
        let env = Env::from_pairs([("HOME", home.to_str().unwrap()), ("DOCKER_HOST", engine)]);
        let printer = Printer::new("build-stack", Verbosity::Quiet, false, &env);
        Context::new(env, home.to_owned(), printer, GlobalArgs::default(), None)
    }

    fn images(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| canonical(name)).collect()
    }

    #[tokio::test]
    async fn an_image_of_an_engine_is_held_by_one_and_whatever_is_another_is_free() {
        let home = tempfile::tempdir().unwrap();
        let one = context(home.path(), "unix:///one.sock");
        let other = context(home.path(), "unix:///other.sock");
        let both = images(&["r.example/a:1", "ann/b:1"]);
        let held = StackLock::take(&one, &both).await.unwrap();
        // The same image by another name; one of two.
        for taken in [
            &both,
            &images(&["docker.io/ann/b:1"]),
            &images(&["r.example/a:1", "r.example/c:1"]),
        ] {
            assert!(StackLock::take(&one, taken).now_or_never().is_none(), "{taken:?}");
        }
        let free = [
            (&one, images(&["r.example/a:2", "r.example/c:1"])),
            (&other, both.clone()),
        ];
        for (context, images) in &free {
            StackLock::take(context, images).now_or_never().unwrap().unwrap();
        }
        drop(held);
        let held = StackLock::take(&one, &both).now_or_never().unwrap().unwrap();
        drop(held);
        let folder = home.path().join(".local/state/dockerutils").join(DIRECTORY);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "no file is left");
    }

    #[test]
    fn the_lock_of_a_file_that_was_removed_is_none() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let first = LockedFile::take(&path).unwrap().unwrap();
        // Somebody waits, and has the file open that is about to be removed.
        let waiting = private_file::open_lock(&path).unwrap();
        assert_eq!(holder(&path), format!(" (process {})", std::process::id()));
        drop(first);
        let second = LockedFile::take(&path).unwrap().unwrap();
        assert!(waiting.try_lock().is_ok(), "it is another file");
        assert!(LockedFile::take(&path).unwrap().is_none());
        drop(second);
    }
}
