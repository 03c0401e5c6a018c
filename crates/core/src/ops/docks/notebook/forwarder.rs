//! Which process of this machine leads to a server on a dock, and at which port.
//!
//! That is written in a file for each server, in the private directory of agents' sockets. The process holds the file's lock, which
//! the system releases however the process ends; the file stays, so that the next one takes the same port: a tab that is open in a
//! browser goes on with it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::is_key;
use crate::agent::{Agent, paths};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::private_file;

/// A process that leads to a server, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forwarder {
    pub(super) pid: u32,
    /// The port of 127.0.0.1.
    pub(super) port: u16,
    /// Which call has started that server: a later one of the same key is another.
    pub(super) call: String,
}

/// The file of one server.
#[derive(Clone, Debug)]
pub(super) struct ForwarderFile {
    path: PathBuf,
}

/// The right to be the one that leads there, for as long as this lives.
#[derive(Debug)]
pub(super) struct ForwarderLock {
    file: File,
    path: PathBuf,
    /// The port of the last one.
    pub(super) last_port: Option<u16>,
}

impl ForwarderFile {
    /// The file of the server of this key on this agent's dock.
    ///
    /// # Errors
    /// No private directory, and what can't be a key: it would name another file.
    pub(super) fn of(agent: &Agent, key: &str, env: &Env) -> Result<Self> {
        if !is_key(key) {
            return Err(Error::usage(format!("{key:?} is not the key of a server on a dock")));
        }
        let name = format!("{}.notebook-{key}", agent.paths().identity());
        Ok(Self {
            path: paths::own_directory(env)?.join(name),
        })
    }

    /// Takes the place; `None` if another process has it.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn try_take(&self) -> Result<Option<ForwarderLock>> {
        let file = private_file::open_lock(&self.path).map_err(|cause| self.unwritable(cause))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(self.unwritable(cause)),
        }
        let last_port = self.read().map(|last| last.port);
        // Until there is a port, nobody is to take the last one's for ours.
        file.set_len(0).map_err(|cause| self.unwritable(cause))?;
        Ok(Some(ForwarderLock {
            file,
            path: self.path.clone(),
            last_port,
        }))
    }

    /// The process that leads there now; `None` if there is none, or if it has no port yet.
    pub(super) fn running(&self) -> Option<Forwarder> {
        // Nothing is made for a look.
        let file = File::open(&self.path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => self.read(),
            _ => None,
        }
    }

    /// Forgets the port: the server has ended.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn read(&self) -> Option<Forwarder> {
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    fn unwritable(&self, cause: io::Error) -> Error {
        Error::failed(format!("{} can't be written", self.path.display())).because(cause)
    }
}

impl ForwarderLock {
    /// Tells others the port, and to which server it leads; returns what they read.
    ///
    /// # Errors
    /// A disk that is full, and its like.
    pub(super) fn tell(&self, port: u16, call: &str) -> Result<Forwarder> {
        let own = Forwarder {
            pid: std::process::id(),
            port,
            call: call.to_owned(),
        };
        let written = serde_json::to_vec(&own)
            .map_err(io::Error::from)
            .and_then(|text| self.file.write_all_at(&text, 0));
        match written {
            Ok(()) => Ok(own),
            Err(cause) => Err(Error::failed(format!("{} can't be written", self.path.display())).because(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_leads_there_and_the_next_one_takes_its_port() {
        let directory = tempfile::tempdir().unwrap();
        let file = ForwarderFile {
            path: directory.path().join("notebook"),
        };
        assert_eq!(file.running(), None);
        assert!(!file.path.exists());
        let lock = file.try_take().unwrap().unwrap();
        assert!(file.try_take().unwrap().is_none());
        assert_eq!((file.running(), lock.last_port), (None, None));
        let own = lock.tell(8889, "c1").unwrap();
        assert_eq!((own.pid, own.port, own.call.as_str()), (std::process::id(), 8889, "c1"));
        assert_eq!(file.running(), Some(own));
        drop(lock);
        assert_eq!(file.running(), None);
        let next = file.try_take().unwrap().unwrap();
        assert_eq!((file.running(), next.last_port), (None, Some(8889)));
        file.forget();
        assert!(!file.path.exists());
    }
}
