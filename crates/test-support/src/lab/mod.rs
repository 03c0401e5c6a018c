//! The lab: real engines of several versions and both image stores, for tests of kind "real" and for benchmarks.
//!
//! The machine's own engine hosts the others: each is a container that runs `dockerd` (and `sshd`), and listens on a
//! Unix socket that the host sees, too. The images of these containers are made from Debian's packages, because no
//! registry is needed then, and Debian keeps an engine of each age:
//!
//! | name | engine | image store |
//! |---|---|---|
//! | `20` | 20.10 (bookworm) | classic |
//! | `26`, `26-containerd` | 26.1 (trixie) | classic, containerd |
//! | `28`, `28-containerd` | 28.5 (sid) | classic, containerd |
//!
//! `local` is the machine's own engine, of whatever version and with whatever else on it: for a test that needs an
//! engine which sees this machine's files and network. What such a test makes there has [`mark`] in its name.
//!
//! [`engines`] starts the engines that do not run yet; it is quick when all run, and safe in many processes at once.
//! Only [`down`] stops the engines: the next run of the tests finds them warm. Each checkout has docks of its own; what
//! is needed to make them is shared.

mod cleaning;
mod client;
mod dock;
mod jupyterlab;
mod notebook_images;
mod place;
mod rootfs;
mod share;
mod ssh;
mod throwaway;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::announce;
use crate::{http, local_engine, machine, process};
pub use cleaning::Other;
pub use client::Client;
use dock::MATRIX;
pub use notebook_images::{NotebookImage, notebook_image, notebook_images};
pub use place::Lab;
pub use rootfs::Suite;
use rootfs::has_base_image;
pub use ssh::{Ssh, Sshd, USERS};
pub use throwaway::Throwaway;

/// The image that every engine of the lab has, so that nothing is pulled: a busybox. No other image has this name.
pub const BASE_IMAGE: &str = "dockerutils-lab-base:1";

/// The label of all containers and volumes of labs, with the lab's id.
const LABEL: &str = "io.dockerutils.lab";

/// The label of the base image, with the number of its recipe; images that are built on it inherit it.
const LABEL_BASE: &str = "io.dockerutils.lab.base";

/// The name of the machine's own engine.
const LOCAL: &str = "local";

/// How long an engine may take for a sign of life: one that is only busy must not be taken for dead, and be made anew
/// while tests use it.
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
    /// An engine of the lab was started and did not answer.
    #[error("the lab's engine {name} did not answer within {}\n\nhint: docker logs {container}", human(.limit))]
    Silent {
        /// The engine.
        name: String,
        /// Its container.
        container: String,
        /// How long it was given to answer.
        limit: Duration,
    },
    /// There is no engine of that name.
    #[error("the lab has no engine {name:?}, it has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The machine's own engine is not a dock.
    #[error("the lab's engine {0} is the machine's own, and no dock")]
    NoDock(String),
    /// A dock could not be made ready for ssh; the engine's client has printed why.
    #[error("{0} can't be made ready for ssh\n\nhint: cargo xtask lab down")]
    SetUp(String),
    /// An engine has another image store than it was set up with.
    #[error("the lab's engine {name} has the {store} image store\n\nhint: cargo xtask lab down")]
    Store {
        /// The engine.
        name: String,
        /// The store that it has.
        store: Store,
    },
    /// Labs of other checkouts are in use.
    #[error(
        "labs of other checkouts are in use, and stay, with the images that they need:\n    {0}\n\nhint: cargo xtask lab \
         down --all, when their tests have ended"
    )]
    InUse(String),
    /// An engine answered when it was started, but does not any more.
    #[error("an engine of the lab ended right after its start\n\nhint: cargo xtask lab status")]
    Vanished,
    /// A thread of ours panicked; it has printed why.
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
    /// The docker client, speaking to this engine and ignoring the user's own settings.
    pub fn docker(&self) -> Command {
        docker(&self.host)
    }
}

/// The whole matrix, running: what is missing is made and started first.
///
/// # Errors
/// When a part is missing and cannot be made; the lab never goes on with fewer engines.
pub fn engines() -> Result<Vec<LabEngine>, Error> {
    Lab::open()?.engines()
}

/// One engine by name: of the matrix, or `local`. The first call starts all engines.
///
/// # Errors
/// As [`engines`], and when there is no engine of that name.
pub fn engine(name: &str) -> Result<LabEngine, Error> {
    Lab::open()?.engine(name)
}

/// Makes the image of a machine that hosts Docker, and returns its name: the docks of the lab are containers of it, and
/// docker's own client is in it.
///
/// # Errors
/// When it does not exist and cannot be made.
pub fn dock_image(suite: Suite) -> Result<String, Error> {
    let lab = Lab::open()?;
    lab.hold()?;
    rootfs::ensure(&lab, &[suite])?;
    Ok(suite.image())
}

/// `docker run --rm` on the machine's own engine, for a container of [`dock_image`] beside the docks. The container
/// belongs to the lab: if its test is killed, [`down`] removes it.
///
/// # Errors
/// When the lab's directory cannot be made.
pub fn run() -> Result<Command, Error> {
    let lab = Lab::open()?;
    lab.hold()?;
    let mut run = lab.docker();
    run.args(["run", "--rm"]).args(lab.labels());
    Ok(run)
}

/// What a test puts into each name that it gives to something on the machine's own engine: unique to this checkout, of
/// lower-case letters and digits. [`down`] removes everything with it.
///
/// # Errors
/// When the lab's directory cannot be made.
pub fn mark() -> Result<String, Error> {
    Ok(Lab::open()?.mark())
}

/// The label `name=value` for an image that a test makes on the machine's own engine; all images that are built on it
/// and their containers inherit the label: [`down`] also finds those that have lost their names.
///
/// # Errors
/// When the lab's directory cannot be made.
pub fn label() -> Result<String, Error> {
    Ok(format!("{LABEL}={}", Lab::open()?.id))
}

/// Marks the lab as used by this process until it ends: no other checkout's `down --all` removes it. Every function of
/// this module that returns an engine does this by itself.
///
/// # Errors
/// When the lab's directory cannot be written to.
pub fn hold() -> Result<(), Error> {
    Lab::open()?.hold()
}

/// Stops the lab's engines and removes what they stored. The images that they run from stay.
///
/// # Errors
/// When the machine's engine refuses.
pub fn down() -> Result<(), Error> {
    Lab::open()?.down()
}

/// The directory in which all labs of this user keep their files; other parts of the tests may use it, too, with names
/// of their own.
///
/// # Errors
/// When it cannot be made.
pub fn directory() -> Result<PathBuf, Error> {
    let lab = Lab::open()?;
    lab.hold()?;
    Ok(lab.shared)
}

impl Lab {
    /// As [`engines`].
    ///
    /// # Errors
    /// As there.
    pub fn engines(&self) -> Result<Vec<LabEngine>, Error> {
        self.hold()?;
        if let Some(running) = self.running() {
            return Ok(running);
        }
        let _lock = self.lock()?;
        self.up()?;
        self.running().ok_or(Error::Vanished)
    }

    /// As [`engine`].
    ///
    /// # Errors
    /// As there.
    pub fn engine(&self, name: &str) -> Result<LabEngine, Error> {
        self.hold()?;
        if name == LOCAL {
            return self.local_engine();
        }
        let Some(dock) = MATRIX.iter().find(|dock| dock.name == name) else {
            let known = MATRIX.iter().map(|dock| dock.name.as_ref()).collect::<Vec<_>>();
            return Err(Error::Unknown {
                name: name.to_owned(),
                known: format!("{LOCAL}, {}", known.join(", ")),
            });
        };
        // Only this one is asked: another one may be busy, and each test asks.
        if let Some(engine) = dock.running(self) {
            return Ok(engine);
        }
        self.engines()?;
        dock.running(self).ok_or(Error::Vanished)
    }

    /// Each engine by name, and the engine itself if it answers. Starts nothing.
    pub fn status(&self) -> Vec<(String, Option<LabEngine>)> {
        let mut table = vec![(LOCAL.to_owned(), probe(LOCAL, &self.local, None))];
        let docks = MATRIX.iter().map(|dock| (dock.name.to_string(), dock.running(self)));
        table.extend(docks);
        table
    }

    /// All engines, if all of them run as they should: one request over each one's Unix socket, and no program is
    /// started.
    fn running(&self) -> Option<Vec<LabEngine>> {
        thread::scope(|scope| {
            let asked: Vec<_> = MATRIX.iter().map(|dock| scope.spawn(|| dock.running(self))).collect();
            asked.into_iter().map(|answer| answer.join().ok().flatten()).collect()
        })
    }

    fn up(&self) -> Result<(), Error> {
        let began = Instant::now();
        let suites: Vec<Suite> = MATRIX.iter().map(|dock| dock.suite).collect();
        self.prepare(&suites)?;
        throwaway::sweep(self)?;
        let down: Vec<_> = MATRIX.iter().filter(|dock| dock.running(self).is_none()).collect();
        let names: Vec<&str> = down.iter().map(|dock| dock.name.as_ref()).collect();
        announce(format_args!("lab: starting {}", names.join(", ")));
        thread::scope(|scope| {
            let starting: Vec<_> = down
                .iter()
                .map(|dock| scope.spawn(|| dock.start(self).and_then(|()| dock.wait(self))))
                .collect();
            starting
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or(Err(Error::Thread)))
        })?;
        share::raise();
        announce(format_args!("lab: up after {:.1} s", began.elapsed().as_secs_f64()));
        Ok(())
    }

    /// The machine's engine, the client, and all images.
    fn prepare(&self, suites: &[Suite]) -> Result<(), Error> {
        self.require_engine()?;
        let mut suites = suites.to_vec();
        suites.dedup();
        rootfs::ensure(self, &suites)?;
        rootfs::ensure_base_image(self)
    }

    /// The machine's engine, and the client.
    fn require_engine(&self) -> Result<(), Error> {
        if self.local == Path::new(local_engine::SOCKET) {
            local_engine::ensure()?;
        }
        // Debian has had the client in a package of its own since trixie.
        machine::require("docker", &["docker-cli"], "the lab")?;
        Ok(())
    }

    /// The machine's own engine, with the base image.
    fn local_engine(&self) -> Result<LabEngine, Error> {
        if !has_base_image(&self.local) {
            let _lock = self.lock()?;
            self.prepare(&[Suite::Trixie])?;
        }
        probe(LOCAL, &self.local, None).ok_or(Error::LocalEngine(local_engine::Error::Silent))
    }
}

/// The docker client on `host`, without the settings (contexts, proxies, credential helpers) of the user who runs the
/// tests.
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

/// Asks the engine on `socket` for its version and store; `None` if it does not answer.
fn probe(name: &str, socket: &Path, container: Option<&str>) -> Option<LabEngine> {
    let version = http::get(socket, "/version", ANSWER).ok()?.json();
    let info = http::get(socket, "/info", ANSWER).ok()?.json();
    // The classic store names its graph driver, the other one says what it is built on.
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
