//! Which images were pushed from here before their tests ended: an interrupted build-stack, or failed tests, must not leave
//! behind what the next one takes for good.
//!
//! A file for each, in the user's state directory: it is made before the push, and removed when the tests have ended well. Its
//! name is a digest of the repository and the image's input digest, so that it says nothing of another build.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::private_file;

use crate::input_digest::digest;

/// The directory below that for state.
const DIRECTORY: &str = "stack/pending-tests";
/// How many files are read; more than any stack has images.
const MOST: usize = 10_000;

/// The name by which the tests of an image are known here. `input` is its input digest.
pub fn key(repository: &str, input: &str) -> String {
    digest(format!("{repository}\n{input}").as_bytes())
}

/// The [`key`]s of all images whose tests are pending.
pub fn read(env: &Env) -> BTreeSet<String> {
    let entries = fs::read_dir(directory(env)).into_iter().flatten().flatten();
    let names = entries.take(MOST).map(|entry| entry.file_name());
    names
        .filter_map(|name| Some(format!("sha256:{}", name.to_str()?)))
        .collect()
}

/// Notes that the tests of an image are to be ended, `reference` being for people who look.
///
/// # Errors
/// The file can't be written.
pub fn begin(env: &Env, key: &str, reference: &str) -> Result<()> {
    let directory = directory(env);
    let written = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    let written = written.and_then(|()| private_file::replace(&file(&directory, key), reference.as_bytes()));
    written.map_err(|cause| failed(&directory, cause))
}

/// The tests of an image ended well.
///
/// # Errors
/// The file can't be removed.
pub fn end(env: &Env, key: &str) -> Result<()> {
    let directory = directory(env);
    match fs::remove_file(file(&directory, key)) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed(&directory, cause)),
        _ => Ok(()),
    }
}

fn directory(env: &Env) -> PathBuf {
    state_directory(env).join(DIRECTORY)
}

fn file(directory: &Path, key: &str) -> PathBuf {
    directory.join(key.trim_start_matches("sha256:"))
}

fn failed(directory: &Path, cause: io::Error) -> Error {
    Error::failed(format!(
        "which tests are pending can't be noted in {}",
        directory.display()
    ))
    .because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_pending_until_they_end() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        assert_eq!(read(&env), BTreeSet::new());
        let input = key("r.example/a", "sha256:5");
        assert_ne!(input, key("r.example/b", "sha256:5"));
        begin(&env, &input, "r.example/a:1").unwrap();
        begin(&env, &input, "r.example/a:1").unwrap();
        assert_eq!(read(&env), BTreeSet::from([input.clone()]));
        end(&env, &input).unwrap();
        end(&env, &input).unwrap();
        assert_eq!(read(&env), BTreeSet::new());
    }
}
