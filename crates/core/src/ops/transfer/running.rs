//! Which transfers run on this machine. Each has an ID, which the layers that it keeps at the destination name, too, and
//! holds a lock as long as its process lives: what nobody holds was interrupted.
//!
//! The locks lie where the machine's ID does. So whoever has the ID sees the locks, whatever else its environment is.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::agent::paths::state_directory;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hexadecimal::{self, is_hex};
use crate::machine_id::machine_id;
use crate::{private_file, project_file};

/// How many bytes an ID has.
const ID: usize = 8;
/// The last part of the name of a lock.
const EXTENSION: &str = "lock";
/// The longest number of a process, in digits.
const PID: u64 = 20;

/// Whose a transfer is. Nothing of it changes while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferIdentity {
    /// Tells it from every other.
    pub id: String,
    /// The user's name.
    pub user: String,
    /// The ID of the machine that it runs on, where that shows its locks.
    pub machine: Option<String>,
    /// The machine's name.
    pub host: String,
}

/// A transfer that runs. When it ends, its lock goes.
#[derive(Debug)]
pub struct RunningTransfer {
    pub identity: TransferIdentity,
    lock: Option<Lock>,
}

#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _held: File,
}

impl RunningTransfer {
    /// Begins one. What can't be locked is no failure, and why is given: then it belongs to no machine that is known, and
    /// nobody takes what it keeps for interrupted.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn begin(env: &Env) -> Result<(Self, Option<Error>)> {
        let (mut machine, mut lock, mut failure) = (None, None, None);
        let mut id = hexadecimal::random::<ID>()?;
        match machine_id(env).and_then(|machine| Ok((machine, Lock::take(&directory(env))?))) {
            Ok((own, (name, taken))) => (machine, id, lock) = (Some(own), name, Some(taken)),
            Err(error) => failure = Some(error),
        }
        let identity = TransferIdentity {
            id,
            user: env.user(),
            machine,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        Ok((Self { identity, lock }, failure))
    }
}

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // While it is held: nobody else has a lock of this name. One that stays is swept away by the next transfer.
            let _ = fs::remove_file(&lock.path);
        }
    }
}

impl Lock {
    /// Takes one of a new name in this directory, and removes those that nobody holds.
    fn take(directory: &Path) -> Result<(String, Self)> {
        let failed = |path: &Path, cause: io::Error| {
            Error::failed(format!("{} can't be written", path.display())).because(cause)
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|cause| failed(directory, cause))?;
        sweep(directory);
        loop {
            let id = hexadecimal::random::<ID>()?;
            let path = directory.join(&id).with_extension(EXTENSION);
            let mut file = private_file::open_lock(&path).map_err(|cause| failed(&path, cause))?;
            match file.try_lock() {
                // Before it was locked, it looked like one that nobody holds.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    // Only for people to read.
                    let _ = write!(file, "{}", std::process::id());
                    return Ok((id, Self { path, _held: file }));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(cause)) => {
                    let _ = fs::remove_file(&path);
                    return Err(failed(&path, cause));
                }
            }
        }
    }
}

/// The number of the process in which a transfer of this ID runs on this machine; `None` where none does, which a stranger's
/// text never does. In doubt it runs.
pub fn process_of(id: &str, env: &Env) -> Option<String> {
    if !is_hex(id, 2 * ID) {
        return None;
    }
    let path = directory(env).join(id).with_extension(EXTENSION);
    let (file, _) = match project_file::open(&path, false) {
        Ok(opened) => opened,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => return Some("unknown".to_owned()),
    };
    match file.try_lock_shared() {
        Ok(()) => None,
        Err(_) => {
            let mut pid = String::new();
            let read = file.take(PID).read_to_string(&mut pid);
            let is_number = read.is_ok() && !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
            Some(if is_number { pid } else { "unknown".to_owned() })
        }
    }
}

fn directory(env: &Env) -> PathBuf {
    state_directory(env).join("transfers")
}

/// Removes the locks of transfers that were killed. What can't be removed does no harm.
fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == EXTENSION);
        let Some((file, _)) = is_lock.then(|| project_file::open(&path, false).ok()).flatten() else {
            continue;
        };
        // Shared: two that look at the same moment do not take each other for its owner.
        if file.try_lock_shared().is_ok() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether this file is still the one of this name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Env) {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap()), ("USER", "ann")]);
        (home, env)
    }

    fn begin(env: &Env) -> RunningTransfer {
        let (running, failure) = RunningTransfer::begin(env).unwrap();
        assert!(failure.is_none(), "{failure:?}");
        running
    }

    #[test]
    fn a_transfer_runs_until_it_ends() {
        let (_home, env) = home();
        let (one, two) = (begin(&env), begin(&env));
        assert_ne!(one.identity.id, two.identity.id);
        assert_eq!(one.identity.machine, two.identity.machine);
        assert_eq!(one.identity.machine, Some(machine_id(&env).unwrap()));
        let pid = std::process::id().to_string();
        assert_eq!(process_of(&one.identity.id, &env).as_ref(), Some(&pid));
        let id = one.identity.id.clone();
        drop(one);
        assert_eq!(process_of(&id, &env), None);
        assert_eq!(process_of(&two.identity.id, &env), Some(pid));
        drop(two);
        assert_eq!(fs::read_dir(directory(&env)).unwrap().count(), 0);
    }

    #[test]
    fn one_that_was_killed_does_not_run_and_its_lock_is_swept_away() {
        let (_home, env) = home();
        let running = begin(&env);
        let killed = directory(&env).join("0123456789abcdef.lock");
        fs::write(&killed, "1").unwrap();
        assert_eq!(process_of("0123456789abcdef", &env), None);
        let _second = begin(&env);
        assert!(!killed.exists());
        assert!(process_of(&running.identity.id, &env).is_some());
    }

    #[test]
    fn what_a_stranger_wrote_is_no_path() {
        let (home, env) = home();
        let _running = begin(&env);
        let lock = private_file::open_lock(&home.path().join("x.lock")).unwrap();
        lock.lock().unwrap();
        for id in ["", ".", "../../../../x", "0123456789ABCDEF", "0123456789abcdef/"] {
            assert_eq!(process_of(id, &env), None, "{id}");
        }
    }

    #[test]
    fn where_nothing_can_be_written_a_transfer_is_no_machines() {
        let (home, env) = home();
        fs::write(home.path().join(".local"), "").unwrap();
        let (running, failure) = RunningTransfer::begin(&env).unwrap();
        assert!(failure.is_some());
        assert_eq!(running.identity.machine, None);
        assert!(is_hex(&running.identity.id, 2 * ID));
    }
}
