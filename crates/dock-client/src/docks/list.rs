//! The file that holds the list of docks: `docks.yml` in the user's configuration directory.
//!
//! It names machines and keys, and decides where secrets go: so it is private (0600, in a directory of 0700). It is
//! changed under a lock, by a new file that replaces the old one. A mistake of the user's in it is reported with its
//! line, and the file stays as it is.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::dock::Dock;
use super::moniker;
use crate::error::{Error, Result};
use crate::hint;
use crate::private_file;
use crate::project_file;

/// The version of the format; a newer one is refused.
const VERSION: u32 = 1;
/// How long to wait for another command that changes the list.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// What the file begins with.
const PREFACE: &str =
    "# The docks of dockerutils. register-dock and unregister-dock change it; comments are not kept.\n";

/// Why a text is not a list of docks.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not YAML, or not of a list's form; the cause has the line.
    #[error("{0}")]
    Damaged(#[from] serde_yaml::Error),
    /// Of a newer version.
    #[error("it has version {0}, and this dockerutils knows {VERSION}")]
    Newer(u32),
    /// A name that can't be a moniker.
    #[error("{0:?} can't be a moniker: {1}")]
    Moniker(String, moniker::MonikerError),
    /// The same moniker twice.
    #[error("{0:?} is listed twice")]
    Twice(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocksFile {
    version: u32,
    #[serde(default)]
    docks: Vec<Dock>,
}

/// Only the version: a newer file may have keys that we do not know.
#[derive(Deserialize)]
struct Versioned {
    #[serde(default)]
    version: Option<u32>,
}

/// Reads a list; an empty text is an empty list.
///
/// # Errors
/// What is wrong with the list, with its line if that is known.
pub fn parse(text: &str) -> Result<Vec<Dock>, ListError> {
    if text.lines().all(|line| line.trim().is_empty() || line.starts_with('#')) {
        return Ok(Vec::new());
    }
    if let Ok(Versioned { version: Some(version) }) = serde_yaml::from_str(text)
        && version > VERSION
    {
        return Err(ListError::Newer(version));
    }
    let document: DocksFile = serde_yaml::from_str(text)?;
    let mut seen = BTreeSet::new();
    for dock in &document.docks {
        moniker::check(&dock.moniker).map_err(|why| ListError::Moniker(dock.moniker.clone(), why))?;
        if !seen.insert(&dock.moniker) {
            return Err(ListError::Twice(dock.moniker.clone()));
        }
    }
    Ok(document.docks)
}

/// The text of a list.
///
/// # Errors
/// A path that is not UTF-8.
pub fn render(docks: &[Dock]) -> Result<String, ListError> {
    let text = serde_yaml::to_string(&DocksFile {
        version: VERSION,
        docks: docks.to_vec(),
    })?;
    Ok(format!("{PREFACE}{text}"))
}

/// The list in a directory.
#[derive(Clone, Debug)]
pub struct List {
    directory: PathBuf,
    writers: Vec<u32>,
}

impl List {
    /// The list in this directory, if one of these users owns it; nothing is read or created yet.
    pub const fn at(directory: PathBuf, writers: Vec<u32>) -> Self {
        Self { directory, writers }
    }

    /// Its file.
    pub fn file(&self) -> PathBuf {
        self.directory.join("docks.yml")
    }

    /// The docks, in the order in which they were registered; `None` if there is no file.
    ///
    /// # Errors
    /// A file that can't be read or is damaged, with its line.
    pub fn read(&self) -> Result<Vec<Dock>> {
        let file = self.file();
        // The file decides where contexts, logins and files go.
        let text = match project_file::read_own(&file, |owner| self.writers.contains(&owner)) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => {
                return Err(
                    Error::usage(format!("the list of docks {} can't be read", file.display()))
                        .because(cause)
                        .hint(hint!("check the file and its owner: ls -lL {}", file.display())),
                );
            }
        };
        parse(&text).map_err(|cause| {
            let line = match &cause {
                ListError::Damaged(cause) => cause.location().map(|at| format!(":{}", at.line())),
                _ => None,
            };
            let hint = match cause {
                ListError::Newer(_) => "update dockerutils here, or move the file away".to_owned(),
                _ => hint!(
                    "fix the file by hand, or move it away: mv {} {}",
                    file.display(),
                    format!("{}.old", file.display())
                ),
            };
            let line = line.unwrap_or_default();
            Error::usage(format!("the list of docks {}{line} is damaged", file.display()))
                .because(cause)
                .hint(hint)
        })
    }

    /// Changes the list, alone: others wait.
    ///
    /// # Errors
    /// An error of `change`, a damaged file (which is left as it is), a directory that can't be written.
    pub fn change<T>(&self, change: impl FnOnce(&mut Vec<Dock>) -> Result<T>) -> Result<T> {
        let file = self.file();
        let unwritable = |cause: io::Error| {
            Error::failed(format!("the list of docks {} can't be written", file.display())).because(cause)
        };
        self.make_directory().map_err(unwritable)?;
        let _lock = self.lock()?;
        let mut docks = self.read()?;
        let before = docks.clone();
        let result = change(&mut docks)?;
        if docks != before {
            let text = render(&docks).map_err(|cause| unwritable(io::Error::other(cause)))?;
            // If the user keeps the file elsewhere, behind a link, it stays there.
            let target = fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
            private_file::replace(&target, text.as_bytes()).map_err(unwritable)?;
        }
        Ok(result)
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let mode = fs::metadata(&self.directory)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(&self.directory, Permissions::from_mode(mode & 0o700))?;
        }
        Ok(())
    }

    /// Held until it is dropped; the system releases it when its process dies.
    fn lock(&self) -> Result<File> {
        let path = self.directory.join("docks.lock");
        let failed = |cause: io::Error| Error::failed(format!("{} can't be locked", path.display())).because(cause);
        let lock = private_file::open_lock(&path).map_err(failed)?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_TIMEOUT => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::failed(format!(
                        "another command has been changing the list of docks for {} seconds",
                        LOCK_TIMEOUT.as_secs()
                    ))
                    .hint(hint!("see which process holds it: fuser {}", path.display())));
                }
                Err(TryLockError::Error(cause)) => return Err(failed(cause)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::docks::{Access, Forward, MountPaths, SshAccess};
    use crate::env::Env;

    fn dock(moniker: &str) -> Dock {
        Dock {
            moniker: moniker.to_owned(),
            access: Access::Ssh(SshAccess {
                host: "10.0.0.7".into(),
                ..SshAccess::default()
            }),
            workspace: None,
            forward: Forward::default(),
            mounts: MountPaths::default(),
        }
    }

    fn add(list: &List, moniker: &str) -> Result<()> {
        list.change(|docks| {
            docks.push(dock(moniker));
            Ok(())
        })
    }

    #[test]
    fn a_list_that_another_user_wrote_is_not_obeyed() {
        let home = tempfile::tempdir().unwrap();
        let list = List::at(home.path().to_owned(), vec![rustix::process::geteuid().as_raw() + 1]);
        fs::write(list.file(), "").unwrap();
        let error = list.read().unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("belongs to another user"), "{cause}");
        fs::remove_file(list.file()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, list.file(), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        assert!(list.read().is_err(), "and a pipe holds nobody up");
    }

    #[test]
    fn what_is_written_is_read_again_whatever_the_monikers_are() {
        let docks: Vec<Dock> = ["far", "x[$(touch pwned)]", "50%", "no", "1", "~", "a: b", "'\"", "é"]
            .map(dock)
            .to_vec();
        let mut all = docks.clone();
        all.push(Dock {
            access: Access::Tcp {
                address: "[::1]:2376".into(),
                tls_dir: Some("/certs of mine".into()),
            },
            workspace: Some("/data".into()),
            forward: Forward::None,
            mounts: MountPaths::default(),
            ..dock("tcp")
        });
        all.push(Dock {
            access: Access::Context { name: "colima".into() },
            ..dock("context")
        });
        let text = render(&all).unwrap();
        assert_eq!(parse(&text).unwrap(), all, "{text}");
    }

    #[test]
    fn the_file_and_its_directory_are_private() {
        let home = tempfile::tempdir().unwrap();
        let list = List::at(home.path().join("config/dockerutils"), Env::default().users());
        assert_eq!(list.read().unwrap(), []);
        assert!(!home.path().join("config").exists(), "reading made something");
        add(&list, "far").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&list.file()), mode(&list.directory)), (0o600, 0o700));
        fs::set_permissions(list.file(), Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&list.directory, Permissions::from_mode(0o755)).unwrap();
        add(&list, "near").unwrap();
        assert_eq!((mode(&list.file()), mode(&list.directory)), (0o600, 0o700));
    }

    #[test]
    fn what_is_damaged_is_an_error_with_its_line_and_stays() {
        let home = tempfile::tempdir().unwrap();
        let list = List::at(home.path().to_owned(), Env::default().users());
        for (text, parts) in [
            ("version: 1\ndocks:\n- moniker: [far\n", vec!["docks.yml:"]),
            ("version: 1\ndocks:\n- moniker: far\n", vec!["docks.yml:3"]),
            (
                "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: a\n- moniker: b\n  ssh:\n    hots: b\n",
                vec!["docks.yml:6", "hots"],
            ),
            (
                "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: a\n  colour: red\n",
                vec!["docks.yml:3", "colour"],
            ),
            ("docks: []\n", vec!["version"]),
            ("version: 2\ndocks: {}\nmore: 1\n", vec!["version 2"]),
            (
                "version: 1\ndocks:\n- moniker: a\n  context:\n    name: x\n- moniker: a\n  context:\n    name: y\n",
                vec!["\"a\" is listed twice"],
            ),
            (
                "version: 1\ndocks:\n- moniker: a/b\n  context:\n    name: x\n",
                vec!["a/b"],
            ),
        ] {
            fs::write(list.file(), text).unwrap();
            for error in [list.read().unwrap_err(), add(&list, "new").unwrap_err()] {
                let shown = format!("{error}: {}", std::error::Error::source(&error).unwrap());
                for part in &parts {
                    assert!(shown.contains(part), "{text}\n{shown}");
                }
                assert!(error.hint_text().is_some());
            }
            assert_eq!(fs::read_to_string(list.file()).unwrap(), text);
        }
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        let list = List::at(home.path().to_owned(), Env::default().users());
        std::thread::scope(|scope| {
            for number in 0..8 {
                let list = &list;
                scope.spawn(move || add(list, &format!("dock-{number}")).unwrap());
            }
        });
        assert_eq!(list.read().unwrap().len(), 8);
    }

    #[test]
    fn a_file_behind_a_link_stays_there() {
        let home = tempfile::tempdir().unwrap();
        let list = List::at(home.path().join("dockerutils"), Env::default().users());
        fs::create_dir(&list.directory).unwrap();
        let kept = home.path().join("dotfiles.yml");
        fs::write(&kept, "").unwrap();
        std::os::unix::fs::symlink(&kept, list.file()).unwrap();
        add(&list, "far").unwrap();
        assert!(fs::read_to_string(&kept).unwrap().contains("far"));
        assert!(fs::symlink_metadata(list.file()).unwrap().is_symlink());
    }
}
