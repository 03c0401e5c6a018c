//! Engines of one test alone.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::dock::Dock;
use super::{Error, Lab, LabEngine, Store, Suite, create_directory, engines, write};
use crate::process;

/// What their names begin with.
const PREFIX: &str = "throwaway-";

/// In the directory of each: locked by the process whose it is. The system lets go of it when that process dies.
const OWNER: &str = "owner";

/// An engine of one test alone, which it may fill, kill or stop; removed with all it stored when this is dropped.
#[derive(Debug)]
pub struct Throwaway {
    dock: Dock,
    engine: LabEngine,
    _owner: File,
}

impl Throwaway {
    /// Starts one: a few seconds. With `disk`, what it stores lies on a disk of so many MiB, in memory.
    ///
    /// # Errors
    /// As [`engines`].
    pub fn start(suite: Suite, store: Store, disk: Option<u32>) -> Result<Self, Error> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::open()?;
        // The image of its container, and the base image that it is given.
        engines()?;
        sweep(&lab)?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dock = Dock {
            name: format!("{PREFIX}{}-{number}", std::process::id()).into(),
            suite,
            store,
            disk,
            supervised: true,
        };
        dock.remove(&lab)?;
        let owner = own(&dock.directory(&lab))?;
        let started = dock
            .start(&lab)
            .and_then(|()| dock.wait(&lab))
            .and_then(|()| dock.running(&lab).ok_or(Error::Vanished));
        match started {
            Ok(engine) => Ok(Self {
                dock,
                engine,
                _owner: owner,
            }),
            Err(error) => {
                // The error that counts is the first one.
                let _ = dock.remove(&lab);
                Err(error)
            }
        }
    }

    /// The engine.
    pub fn engine(&self) -> &LabEngine {
        &self.engine
    }

    /// Kills the engine and its machine, as a power cut does.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn kill(&self) -> Result<(), Error> {
        self.tell("kill")
    }

    /// Freezes the engine: it keeps its connections and says nothing more.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn freeze(&self) -> Result<(), Error> {
        self.tell("pause")
    }

    /// Lets a frozen engine go on.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        self.tell("unpause")
    }

    /// Ends the engine and leaves its machine: sshd goes on. By `TERM`, as a service is stopped; by `KILL`, as it crashes.
    ///
    /// # Errors
    /// When it does not end, or the machine's engine refuses.
    pub fn stop_engine(&self, signal: Signal) -> Result<(), Error> {
        let lab = Lab::open()?;
        write(&self.dock.directory(&lab).join("held"), "")?;
        // A minute: an engine waits for its containers.
        let script = "pid=$(cat /var/run/docker.pid) && kill -$0 $pid || exit 1; \
                      for _ in $(seq 600); do kill -0 $pid 2>/dev/null || exit 0; sleep 0.1; done; exit 1";
        let mut sh = self.engine.exec("sh")?;
        process::capture(sh.args(["-c", script, &signal.as_raw().to_string()]))?;
        Ok(())
    }

    /// Starts the engine again, and waits until it answers as before.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_engine(&self) -> Result<(), Error> {
        let lab = Lab::open()?;
        let held = self.dock.directory(&lab).join("held");
        fs::remove_file(&held).map_err(|source| Error::File { path: held, source })?;
        self.dock.wait(&lab)?;
        // The socket is a new one, and not yet for the group that the users of ssh are in.
        let mut sh = self.engine.exec("sh")?;
        let script = "if getent group docker >/dev/null; then chgrp docker /var/run/docker.sock; fi";
        process::capture(sh.args(["-c", script]))?;
        Ok(())
    }

    fn tell(&self, verb: &str) -> Result<(), Error> {
        let lab = Lab::open()?;
        process::capture(lab.docker().args([verb, &self.dock.container(&lab)]))?;
        Ok(())
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `down` and the next start do not stumble over the rest.
        let _ = Lab::open().and_then(|lab| self.dock.remove(&lab));
    }
}

/// Makes the directory and the lock in it, which appears locked.
fn own(directory: &Path) -> Result<File, Error> {
    create_directory(directory)?;
    let (fresh, owner) = (directory.join("fresh"), directory.join(OWNER));
    let made = File::create(&fresh).and_then(|file| {
        file.lock()?;
        fs::rename(&fresh, &owner)?;
        Ok(file)
    });
    made.map_err(|source| Error::File { path: owner, source })
}

/// Removes those that are left of tests that were killed.
pub(super) fn sweep(lab: &Lab) -> Result<(), Error> {
    let entries = fs::read_dir(&lab.directory).map_err(|source| Error::File {
        path: lab.directory.clone(),
        source,
    })?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        // One that is only about to be made has no owner yet.
        let Ok(owner) = File::open(entry.path().join(OWNER)) else {
            continue;
        };
        if owner.try_lock().is_ok() {
            Dock::named(name).remove(lab)?;
        }
    }
    Ok(())
}
