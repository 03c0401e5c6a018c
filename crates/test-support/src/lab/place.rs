//! The paths of a lab: the checkout that it belongs to, its directory, its locks.
//!
//! Each checkout has a lab of its own, so that several can test at the same time on one machine. What takes long to
//! make (the tarballs of Debian, the images on the machine's engine) is shared by all of them.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::{Error, LABEL, create_directory, docker, host_of, share};
use crate::local_engine;
use crate::mutex;
use crate::process::announce;

/// The label with the lab's directory: it leads from a container of another checkout to that lab's locks.
pub(super) const LABEL_DIRECTORY: &str = "io.dockerutils.lab.directory";

/// A file that each process that uses the lab holds with a shared lock; see [`Lab::hold`].
const IN_USE: &str = "in-use";

/// The lab of one checkout.
#[derive(Debug, Clone)]
pub struct Lab {
    /// The directory that all checkouts of this user share.
    pub(super) shared: PathBuf,
    /// The directory of this lab alone.
    pub(super) directory: PathBuf,
    /// Part of the names of everything that it makes.
    pub(super) id: String,
    /// The socket of the engine that hosts its docks.
    pub(super) local: PathBuf,
}

impl Lab {
    /// The lab of this checkout, on the machine's own engine.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn open() -> Result<Self, Error> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or(Error::NoCache)?;
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::at(
            checkout,
            &cache.join("dockerutils-lab"),
            Path::new(local_engine::SOCKET),
        )
    }

    /// The lab of a checkout that keeps its files below `shared`, on the engine that listens on this socket.
    ///
    /// # Errors
    /// As [`Lab::open`].
    pub fn at(checkout: &Path, shared: &Path, socket: &Path) -> Result<Self, Error> {
        create_directory(shared)?;
        let shared = fs::canonicalize(shared).map_err(|source| Error::File {
            path: shared.to_owned(),
            source,
        })?;
        let id = id(checkout, &shared);
        let directory = shared.join(&id);
        create_directory(&directory)?;
        Ok(Self {
            shared,
            directory,
            id,
            local: socket.to_owned(),
        })
    }

    /// A short name, different for each checkout and each directory of files: `3f9c01ab`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Marks the lab as in use until this process ends: no other checkout's `down --all` removes it meanwhile. If a
    /// removal is under way, waits for its end.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub fn hold(&self) -> Result<(), Error> {
        static HELD: Mutex<BTreeMap<PathBuf, File>> = Mutex::new(BTreeMap::new());
        let mut held = mutex::lock(&HELD);
        if !held.contains_key(&self.directory) {
            let path = self.directory.join(IN_USE);
            let lock = lock(&path, File::lock_shared).map_err(|source| Error::File { path, source })?;
            held.insert(self.directory.clone(), lock);
            // If another user's lab went down since this lab was started, the weight was lowered.
            share::raise();
        }
        Ok(())
    }

    /// Held by the one process that changes the lab. The system releases it when that process dies.
    pub(super) fn lock(&self) -> Result<File, Error> {
        wait(
            &self.directory.join("lock"),
            "lab: waiting for another process that works on it",
        )
    }

    /// Held by the one process that changes the images on the machine's engine, across all users and checkouts.
    pub(super) fn lock_images(&self) -> Result<File, Error> {
        // The directory of the engine's socket: it is the same for all users, and nothing has to be written.
        let directory = self.local.parent().unwrap_or(Path::new("/"));
        let opened = File::open(directory).and_then(|file| {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    announce("lab: waiting for another process that makes the images");
                    file.lock()?;
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => {}
            }
            Ok(file)
        });
        opened.map_err(|source| Error::File {
            path: directory.to_owned(),
            source,
        })
    }

    /// The docker client, speaking to the engine that hosts the docks.
    pub fn docker(&self) -> Command {
        docker(&host_of(&self.local))
    }

    /// The labels of each container of this lab, as options of `docker run`.
    pub fn labels(&self) -> [String; 2] {
        [
            format!("--label={LABEL}={}", self.id),
            format!("--label={LABEL_DIRECTORY}={}", self.directory.display()),
        ]
    }

    /// Part of all names that tests give to what they make on the machine's own engine: `lab3f9c01ab`.
    pub fn mark(&self) -> String {
        format!("lab{}", self.id)
    }
}

/// Whether a process uses the lab with this directory: `None` if one does, or else a lock that keeps processes from
/// starting to.
///
/// # Errors
/// When that cannot be found out.
pub(super) fn unused(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join(IN_USE);
    match lock(&path, |file| {
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })
    }) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the exclusive lock of this file, and prints the message if it has to wait.
pub(super) fn wait(path: &Path, message: &str) -> Result<File, Error> {
    let taken = lock(path, |file| match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            announce(message);
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
    });
    taken.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Locks a file that its previous holder may remove: then there is another file of its name.
fn lock(path: &Path, take: impl Fn(&File) -> io::Result<()>) -> io::Result<File> {
    loop {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            fs::create_dir_all(directory)?;
        }
        let file = match File::options().create(true).truncate(false).write(true).open(path) {
            // Its directory was removed just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // A file of another user's can be locked, too.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path)?,
            opened => opened?,
        };
        take(&file)?;
        let ours = file.metadata()?;
        if fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

fn id(checkout: &Path, shared: &Path) -> String {
    let bytes = [checkout, shared].map(|path| path.as_os_str().as_encoded_bytes());
    digest(&bytes.join(&0))
}

/// Eight hexadecimal digits: FNV-1a, which is the same in every build.
pub(super) fn digest(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Both halves: the upper one alone depends little on the last bytes.
    format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_checkout_and_each_directory_has_a_lab_of_its_own() {
        let id = |checkout: &str, shared: &str| id(Path::new(checkout), Path::new(shared));
        assert_eq!(id("/a", "/b").len(), 8);
        assert_eq!(id("/a", "/b"), id("/a", "/b"));
        assert_ne!(id("/a", "/b"), id("/c", "/b"));
        assert_ne!(id("/a", "/b"), id("/a", "/c"));
        assert_ne!(id("/a/b", "/c"), id("/a", "/b/c"));
    }

    #[test]
    fn a_lab_that_is_in_use_is_known_by_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::at(Path::new("/a"), directory.path(), Path::new("/nowhere/docker.sock")).unwrap();
        assert!(unused(&lab.directory).unwrap().is_some());
        lab.hold().unwrap();
        assert!(unused(&lab.directory).unwrap().is_none());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lab/lock");
        let first = wait(&path, "").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| wait(&path, "").unwrap());
            // At once: the other thread may be making a file in the directory just then.
            fs::rename(directory.path().join("lab"), directory.path().join("removed")).unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert_eq!(second.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        });
    }
}
