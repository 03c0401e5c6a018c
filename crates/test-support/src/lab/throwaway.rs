//! Engines for one test alone.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::dock::Dock;
use super::{Error, Lab, LabEngine, Store, Suite, create_directory, engines, write};
use crate::process;

/// What their names begin with.
const PREFIX: &str = "throwaway-";

/// A file in the directory of each: locked by the process that owns the engine. The system releases it when that
/// process dies.
const OWNER: &str = "owner";

/// An engine for one test alone, which the test may fill, kill or stop; removed with all it stored when this is
/// dropped.
#[derive(Debug)]
pub struct Throwaway {
    dock: Dock,
    engine: LabEngine,
    _owner: File,
}

impl Throwaway {
    /// Starts one, which takes a few seconds. With `disk`, it stores its data on a disk in memory of this size in MiB.
    ///
    /// # Errors
    /// As [`engines`].
    pub fn start(suite: Suite, store: Store, disk: Option<u32>) -> Result<Self, Error> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let lab = Lab::open()?;
        // They provide the image of its container, and the base image.
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
                // The first error is the one to report.
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

    /// Freezes the engine: it keeps its connections and sends nothing more.
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

    /// Ends the engine, while its machine and sshd go on. With `TERM`, as a service is stopped; with `KILL`, as in a
    /// crash.
    ///
    /// # Errors
    /// When it does not end, or the machine's engine refuses.
    pub fn stop_engine(&self, signal: Signal) -> Result<(), Error> {
        let lab = Lab::open()?;
        write(&self.dock.directory(&lab).join("held"), "")?;
        // Up to a minute: an engine waits for its containers.
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
        // The socket is new, and does not belong to the ssh users' group yet.
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
        // There is no one to report a failure to; `down` and the next start cope with what is left.
        let _ = Lab::open().and_then(|lab| self.dock.remove(&lab));
    }
}

/// Makes the directory and the lock in it; the lock is held from its first moment.
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

/// Removes engines that were left by tests that were killed.
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
        // An engine that is just being made has no owner yet.
        let Ok(owner) = File::open(entry.path().join(OWNER)) else {
            continue;
        };
        if owner.try_lock().is_ok() {
            Dock::named(name).remove(lab)?;
        }
    }
    Ok(())
}
