//! The lab: real engines of several versions and both image stores, for tests of kind "real" and for benchmarks.
//!
//! The machine's own engine hosts the others: each is a container that runs `dockerd` (and `sshd`), and listens on a
//! Unix socket that the host sees, too. The images of these containers are made from Debian's packages, because no
//! registry is needed then, and Debian keeps an engine of each age:
//!
//! | name | engine | image store |
//! |---|---|---|
//! | `local` | the machine's own | its own |
//! | `20` | 20.10 (bookworm), only where the machine's own is another | classic |
//! | `26`, `26-containerd` | 26.1 (trixie) | classic, containerd |
//! | `28`, `28-containerd` | 28.5 (sid) | classic, containerd |
//!
//! [`engines`] starts what does not run yet; it is quick when all runs, and safe in many processes at once. Nothing
//! stops the engines but [`down`]: the next run of the tests finds them warm.

mod client;
mod dock;
mod rootfs;
mod ssh;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use crate::{http, local_engine, machine, process};
pub use client::Client;
use dock::Dock;
pub use rootfs::Suite;
pub use ssh::{Ssh, Sshd, USERS};

/// The image that every engine of the lab has, so that nothing is pulled.
pub const BASE_IMAGE: &str = "busybox:latest";

/// How long an engine may take to answer that it is there: one that is only busy must not be taken for a dead one, and be
/// made anew while tests use it.
const ANSWER: Duration = Duration::from_secs(60);

/// The lab cannot be brought up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the lab cannot be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A package is missing and cannot be installed.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// There is no engine on this machine to hold the others.
    #[error(transparent)]
    LocalEngine(#[from] local_engine::Error),
    /// An engine of the lab was started and stayed silent.
    #[error("the lab's engine {name} did not answer within {}\n\nhint: docker logs {container}", human(.limit))]
    Silent {
        /// The engine.
        name: String,
        /// Its container.
        container: String,
        /// How long it was given.
        limit: Duration,
    },
    /// There is no engine of that name.
    #[error("the lab has no engine {name:?}, it has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The machine's own engine is no dock.
    #[error("the lab's engine {0} is the machine's own, and no dock")]
    NoDock(String),
    /// A dock could not be made ready for ssh; the engine's client has said why.
    #[error("{0} can't be made ready for ssh\n\nhint: cargo xtask lab down")]
    SetUp(String),
    /// An engine answered when it was started, and does not any more.
    #[error("an engine of the lab ended right after its start\n\nhint: cargo xtask lab status")]
    Vanished,
    /// A thread of ours panicked; it has said why.
    #[error("a part of the lab could not be made")]
    Thread,
    /// A Unix socket's path has 108 bytes at most (104 on macOS).
    #[error("{}: too long for the path of a socket\n\nhint: set XDG_CACHE_HOME to a directory with a short name", .0.display())]
    LongPath(PathBuf),
    /// Neither XDG_CACHE_HOME nor HOME is set.
    #[error("neither XDG_CACHE_HOME nor HOME says where the lab may keep its files")]
    NoCache,
}

/// Where an engine keeps its images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The graph drivers of old: layers by chain ID.
    Classic,
    /// containerd's content store and snapshotters: blobs by digest.
    Containerd,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Classic => "classic",
            Self::Containerd => "containerd",
        })
    }
}

/// An engine that answers.
#[derive(Debug, Clone)]
pub struct LabEngine {
    /// Its name in the lab, as `26-containerd`.
    pub name: String,
    /// The version it reports, as `26.1.5+dfsg1`.
    pub version: String,
    /// Its image store.
    pub store: Store,
    /// Its address for DOCKER_HOST, as `unix:///root/.cache/dockerutils-lab/26/docker.sock`.
    pub host: String,
    /// The container that it runs in; `None` for the machine's own.
    pub container: Option<String>,
}

impl LabEngine {
    /// The docker client, speaking to this engine and ignoring the person's own settings.
    pub fn docker(&self) -> Command {
        docker(&self.host)
    }
}

/// The whole matrix, running: what is missing is made and started first.
///
/// # Errors
/// When a part is missing and cannot be made; the lab never goes on with fewer engines.
pub fn engines() -> Result<Vec<LabEngine>, Error> {
    let lab = Lab::open()?;
    if let Ok(Some(running)) = lab.running() {
        return Ok(running);
    }
    let _lock = lab.lock()?;
    lab.up()?;
    lab.running()?.ok_or(Error::Vanished)
}

/// One engine of the matrix, by name. The first one that is asked for brings all up.
///
/// # Errors
/// As [`engines`], and when there is none of that name.
pub fn engine(name: &str) -> Result<LabEngine, Error> {
    let lab = Lab::open()?;
    // Only this one is asked: another may be busy, and each test asks.
    if let Some(dock) = lab.docks()?.into_iter().find(|dock| dock.name == name)
        && let Some(engine) = dock.running(&lab)
    {
        return Ok(engine);
    }
    let engines = engines()?;
    let known = engines
        .iter()
        .map(|engine| engine.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let found = engines.into_iter().find(|engine| engine.name == name);
    found.ok_or_else(|| Error::Unknown {
        name: name.to_owned(),
        known,
    })
}

/// Makes the image of a machine that hosts Docker, and returns its name: the docks of the lab are containers of it, and
/// docker's own client is in it.
///
/// # Errors
/// When it is not there and cannot be made.
pub fn dock_image(suite: Suite) -> Result<String, Error> {
    let lab = Lab::open()?;
    let _lock = lab.lock()?;
    rootfs::ensure(&lab, &[suite])?;
    Ok(suite.image())
}

/// Stops the lab's engines and forgets what they stored. The images that they run from stay.
///
/// # Errors
/// When the machine's engine refuses.
pub fn down() -> Result<(), Error> {
    let lab = Lab::open()?;
    let _lock = lab.lock()?;
    for dock in lab.docks()? {
        dock.remove(&lab)?;
    }
    Ok(())
}

/// An engine of one test alone, which it may fill, kill or stop; removed with all it stored when this is dropped.
#[derive(Debug)]
pub struct Throwaway {
    dock: Dock,
    engine: LabEngine,
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
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dock = Dock {
            name: format!("throwaway-{}-{number}", std::process::id()).into(),
            suite,
            store,
            disk,
            supervised: true,
        };
        let started = dock
            .start(&lab)
            .and_then(|()| dock.wait(&lab))
            .and_then(|()| dock.running(&lab).ok_or(Error::Vanished));
        match started {
            Ok(engine) => Ok(Self { dock, engine }),
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
        let mut docker = Lab::open()?.docker();
        process::capture(docker.args([verb, &self.dock.container()]))?;
        Ok(())
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; `down` and the next start do not stumble over the rest.
        let _ = Lab::open().and_then(|lab| self.dock.remove(&lab));
    }
}

/// Each engine of the matrix by name, and the engine itself where it answers. Starts nothing.
///
/// # Errors
/// When the machine's own engine does not answer.
pub fn status() -> Result<Vec<(String, Option<LabEngine>)>, Error> {
    let lab = Lab::open()?;
    let mut table = vec![("local".to_owned(), Some(lab.local_engine()?))];
    table.extend(
        lab.docks()?
            .into_iter()
            .map(|dock| (dock.name.to_string(), dock.running(&lab))),
    );
    Ok(table)
}

/// Where the lab keeps its files; other parts of the tests may, too, by names of their own.
///
/// # Errors
/// When it cannot be made.
pub fn directory() -> Result<PathBuf, Error> {
    Ok(Lab::open()?.directory)
}

/// Where the lab keeps its files, and the machine's own engine.
struct Lab {
    directory: PathBuf,
    local: PathBuf,
}

impl Lab {
    fn open() -> Result<Self, Error> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or(Error::NoCache)?;
        let directory = cache.join("dockerutils-lab");
        create_directory(&directory)?;
        Ok(Self {
            directory,
            local: PathBuf::from(local_engine::SOCKET),
        })
    }

    /// Held by the one process that changes the lab. The system lets go of it when that process dies.
    fn lock(&self) -> Result<File, Error> {
        let path = self.directory.join("lock");
        let lock = File::create(&path).and_then(|file| file.lock().map(|()| file));
        lock.map_err(|source| Error::File { path, source })
    }

    /// All engines, when all of them run as they should: a few questions over Unix sockets, no program started.
    fn running(&self) -> Result<Option<Vec<LabEngine>>, Error> {
        let local = self.local_engine()?;
        if !has_base_image(&self.local) {
            return Ok(None);
        }
        let docks = self.docks()?.into_iter().map(|dock| dock.running(self));
        Ok(std::iter::once(Some(local)).chain(docks).collect())
    }

    fn up(&self) -> Result<(), Error> {
        local_engine::ensure()?;
        // Debian has had the client in a package of its own since trixie.
        machine::require("docker", &["docker-cli"], "the lab")?;
        let docks = self.docks()?;
        let mut suites: Vec<Suite> = docks.iter().map(|dock| dock.suite).collect();
        suites.dedup();
        rootfs::ensure(self, &suites)?;
        rootfs::ensure_base_image(self)?;
        // All start at once, then each is waited for.
        for dock in &docks {
            dock.start(self)?;
        }
        for dock in &docks {
            dock.wait(self)?;
        }
        Ok(())
    }

    fn docks(&self) -> Result<Vec<Dock>, Error> {
        let old = !self.local_engine()?.version.starts_with("20.10");
        Ok(dock::MATRIX
            .into_iter()
            .filter(|dock| old || dock.suite != Suite::Bookworm)
            .collect())
    }

    fn local_engine(&self) -> Result<LabEngine, Error> {
        probe("local", &self.local, None).ok_or(Error::LocalEngine(local_engine::Error::Silent))
    }

    fn docker(&self) -> Command {
        docker(&host_of(&self.local))
    }
}

/// The docker client on `host`, without the settings (contexts, proxies, credential helpers) of who runs the tests.
fn docker(host: &str) -> Command {
    let mut command = Command::new("docker");
    for variable in [
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_API_VERSION",
        "BUILDX_BUILDER",
    ] {
        command.env_remove(variable);
    }
    command.env("DOCKER_CONFIG", "/nonexistent").env("DOCKER_HOST", host);
    command
}

/// Asks the engine on `socket` what it is; `None` when it does not answer.
fn probe(name: &str, socket: &Path, container: Option<&str>) -> Option<LabEngine> {
    let version = http::get(socket, "/version", ANSWER).ok()?.json();
    let info = http::get(socket, "/info", ANSWER).ok()?.json();
    // The classic store names its graph driver, the other one says what stands behind it.
    let containerd = info
        .get("DriverStatus")
        .is_some_and(|status| status.to_string().contains("io.containerd.snapshotter"));
    Some(LabEngine {
        name: name.to_owned(),
        version: version.get("Version")?.as_str()?.to_owned(),
        store: if containerd { Store::Containerd } else { Store::Classic },
        host: host_of(socket),
        container: container.map(str::to_owned),
    })
}

fn has_base_image(socket: &Path) -> bool {
    let path = format!("/images/{BASE_IMAGE}/json");
    http::get(socket, &path, ANSWER).is_ok_and(|answer| answer.status == 200)
}

fn host_of(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn create_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn human(limit: &Duration) -> String {
    format!("{} s", limit.as_secs())
}
