//! The user's own configuration: `config.yml` in [`Env::config_dir`]. No project can change it.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::project_file;

const NAME: &str = "config.yml";

/// The content of `config.yml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnConfiguration {
    /// Directories in which projects are read, no matter who owns them.
    pub trusted_directories: Vec<String>,
    /// The user's preferences for syncs.
    pub sync: SyncConfiguration,
}

/// How the user wants syncs to work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfiguration {
    /// How much a sync removes without `--delete`.
    pub remove_unasked: RemoveUnasked,
    /// Whether git's own files are synced, as with `--with-git`.
    pub with_git: bool,
}

/// How many files a sync may remove without `--delete`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveUnasked {
    /// The most files.
    pub files: Option<usize>,
    /// The most files as a percentage of a side's files.
    pub percent: Option<usize>,
}

impl OwnConfiguration {
    /// The file, whether there is one or not.
    pub fn file(env: &Env) -> PathBuf {
        env.config_dir().join(NAME)
    }

    /// Reads it; without a file, nothing is configured.
    ///
    /// # Errors
    /// A file that is not such a configuration, or that others may have written.
    pub fn read(env: &Env) -> Result<Self> {
        Self::read_file(&Self::file(env), &env.writers())
    }

    /// [`OwnConfiguration::read`] of this file, which only these users may write.
    pub(super) fn read_file(file: &Path, writers: &[u32]) -> Result<Self> {
        let text = match project_file::read_own(file, |owner| writers.contains(&owner)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(cause) => {
                return Err(Error::usage(format!("{} can't be read", file.display()))
                    .because(cause)
                    .hint(hint!("see who owns it, and who may read it: ls -lL {}", file.display())));
            }
        };
        if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
            return Ok(Self::default());
        }
        serde_yaml::from_str(&text).map_err(|cause| {
            let line = cause.location().map(|at| format!(":{}", at.line())).unwrap_or_default();
            Error::usage(format!("{}{line} is not a configuration", file.display()))
                .because(cause)
                .hint("it is YAML, for example: trusted_directories: [\"/srv/shared/project\"]")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_says_whom_to_trust_and_how_much_is_removed_unasked() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap()), ("XDG_CONFIG_HOME", "")]);
        assert_eq!(OwnConfiguration::read(&env).unwrap(), OwnConfiguration::default());
        let file = OwnConfiguration::file(&env);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            OwnConfiguration::read(&env)
        };
        assert_eq!(read("# nothing\n\n").unwrap(), OwnConfiguration::default());
        let own =
            read("trusted_directories: [/srv]\nsync:\n  remove_unasked:\n    files: 500\n  with_git: true\n").unwrap();
        assert_eq!(own.trusted_directories, ["/srv"]);
        let removals = own.sync.remove_unasked;
        assert_eq!(
            (removals.files, removals.percent, own.sync.with_git),
            (Some(500), None, true)
        );
        for wrong in [
            "sync: {remove_unasked: {file: 1}}",
            "sync: {remove_unasked: {files: -1}}",
            "- a",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("is not a configuration"), "{wrong}: {error}");
        }
    }
}
