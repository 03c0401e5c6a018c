//! One dock of the lab: a container with an engine, and its directory on the host.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rootfs::has_base_image;
use super::{ANSWER, BASE_IMAGE, Error, LABEL, Lab, LabEngine, Store, Suite, create_directory, host_of, probe, write};
use crate::http;
use crate::process::{self, announce};

/// Every dock of the lab.
pub(super) static MATRIX: [Dock; 5] = [
    Dock::of("20", Suite::Bookworm, Store::Classic),
    Dock::of("26", Suite::Trixie, Store::Classic),
    Dock::of("26-containerd", Suite::Trixie, Store::Containerd),
    Dock::of("28", Suite::Sid, Store::Classic),
    Dock::of("28-containerd", Suite::Sid, Store::Containerd),
];

/// How long an engine may take from its start to its first answer, on a machine that is busy compiling.
const START: Duration = Duration::from_secs(180);

/// How often to say that an engine has not answered yet.
const NEWS: Duration = Duration::from_secs(15);

/// The file in a dock's directory with what its engine reported when it was started.
const FACTS: &str = "engine.json";

/// The path of a socket must fit into `sockaddr_un`; macOS has the shorter one.
const SOCKET_PATH: usize = 103;

const SCRIPT: &str = include_str!("dock.sh");

#[derive(Debug, Clone)]
pub(super) struct Dock {
    pub(super) name: Cow<'static, str>,
    pub(super) suite: Suite,
    pub(super) store: Store,
    /// The size in MiB of a disk in memory, if there is one instead of a volume.
    pub(super) disk: Option<u32>,
    /// Whether the engine may end without its machine.
    pub(super) supervised: bool,
}

impl Dock {
    const fn of(name: &'static str, suite: Suite, store: Store) -> Self {
        Self {
            name: Cow::Borrowed(name),
            suite,
            store,
            disk: None,
            supervised: false,
        }
    }

    /// A dock that is only to be removed.
    pub(super) fn named(name: String) -> Self {
        Self {
            name: Cow::Owned(name),
            ..Self::of("", Suite::Trixie, Store::Classic)
        }
    }

    /// The engine, if it answers, was started from exactly this recipe, and has the base image: a single request.
    pub(super) fn running(&self, lab: &Lab) -> Option<LabEngine> {
        let socket = self.socket(lab);
        if !self.is_of_this_recipe(lab) {
            return None;
        }
        let facts = fs::read(self.directory(lab).join(FACTS)).ok()?;
        let facts: Value = serde_json::from_slice(&facts).ok()?;
        let version = facts.get("version")?.as_str()?.to_owned();
        has_base_image(&socket).then(|| LabEngine {
            name: self.name.to_string(),
            version,
            store: self.store,
            host: host_of(&socket),
            container: Some(self.container(lab)),
        })
    }

    fn is_of_this_recipe(&self, lab: &Lab) -> bool {
        fs::read_to_string(self.directory(lab).join("recipe"))
            .is_ok_and(|started| started == self.recipe(lab).join("\n"))
    }

    /// Whether its container runs, which it does as long as its engine lives.
    fn is_alive(&self, lab: &Lab) -> bool {
        let path = format!("/containers/{}/json", self.container(lab));
        http::get(&lab.local, &path, ANSWER).is_ok_and(|answer| {
            answer.status == 200 && answer.json().pointer("/State/Running") == Some(&Value::Bool(true))
        })
    }

    /// Starts the dock unless it runs; does not wait for its engine.
    pub(super) fn start(&self, lab: &Lab) -> Result<(), Error> {
        // However long it is silent: if its engine lives, other tests may be using it.
        if self.is_of_this_recipe(lab) && self.is_alive(lab) {
            return Ok(());
        }
        let directory = self.directory(lab);
        if self.socket(lab).as_os_str().len() > SOCKET_PATH {
            return Err(Error::LongPath(self.socket(lab)));
        }
        // A dead dock is not repaired but made anew, on an empty volume: tests begin from a known state.
        self.remove_container(lab)?;
        create_directory(&directory)?;
        for stale in ["recipe", FACTS, "host_keys"] {
            // The file may not exist.
            let _ = fs::remove_file(directory.join(stale));
        }
        let containerd = matches!(self.store, Store::Containerd);
        let settings = json!({ "features": { "containerd-snapshotter": containerd } });
        write(&directory.join("daemon.json"), &settings.to_string())?;
        write(&directory.join("dock.sh"), SCRIPT)?;
        let recipe = self.recipe(lab);
        process::capture(lab.docker().args(&recipe))?;
        write(&directory.join("recipe"), &recipe.join("\n"))
    }

    /// Waits for the engine, and gives it the base image.
    pub(super) fn wait(&self, lab: &Lab) -> Result<(), Error> {
        let socket = self.socket(lab);
        let started = Instant::now();
        let mut news = NEWS;
        let engine = loop {
            if let Some(engine) = probe(&self.name, &socket, Some(&self.container(lab))) {
                break engine;
            }
            if started.elapsed() > START {
                return Err(Error::Silent {
                    name: self.name.to_string(),
                    container: self.container(lab),
                    limit: START,
                });
            }
            if started.elapsed() > news {
                announce(format_args!(
                    "lab: {} has not answered for {} s",
                    self.name,
                    news.as_secs()
                ));
                news += NEWS;
            }
            thread::sleep(Duration::from_millis(50));
        };
        if engine.store != self.store {
            return Err(Error::Store {
                name: self.name.to_string(),
                store: engine.store,
            });
        }
        if !has_base_image(&socket) {
            process::pipe(lab.docker().args(["save", BASE_IMAGE]), engine.docker().arg("load"))?;
        }
        let facts = json!({ "version": engine.version });
        write(&self.directory(lab).join(FACTS), &facts.to_string())
    }

    /// Removes the container and all that its engine stored.
    pub(super) fn remove(&self, lab: &Lab) -> Result<(), Error> {
        self.remove_container(lab)?;
        let directory = self.directory(lab);
        match fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
                path: directory,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn remove_container(&self, lab: &Lab) -> Result<(), Error> {
        // Neither command fails if there is nothing to remove.
        process::capture(lab.docker().args(["rm", "--force", "--volumes", &self.container(lab)]))?;
        process::capture(lab.docker().args(["volume", "rm", "--force", &self.container(lab)]))?;
        Ok(())
    }

    /// The arguments of `docker` that start the dock.
    ///
    /// It is not `--privileged`, which fails on machines that lack CAP_SYS_RESOURCE; these are the parts of it that
    /// dockerd needs.
    fn recipe(&self, lab: &Lab) -> Vec<String> {
        let container = self.container(lab);
        let group = rustix::process::getegid().as_raw();
        let mut words = ["run", "--detach", "--init", "--cap-add=ALL", "--cap-drop=SYS_RESOURCE"]
            .map(str::to_owned)
            .to_vec();
        words.extend(lab.labels());
        if self.supervised {
            words.push("--env=LAB_SUPERVISED=yes".to_owned());
        }
        words.extend([
            "--security-opt=seccomp=unconfined".to_owned(),
            "--security-opt=apparmor=unconfined".to_owned(),
            "--device-cgroup-rule=a *:* rwm".to_owned(),
            "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw".to_owned(),
            // An overlay cannot lie on the overlay that is the container's own file system.
            match self.disk {
                Some(size) => format!("--tmpfs=/var/lib/docker:exec,size={size}m"),
                None => format!(
                    "--mount=type=volume,source={container},target=/var/lib/docker,volume-label={LABEL}={}",
                    lab.id()
                ),
            },
            format!("--volume={}:/run/lab", self.directory(lab).display()),
            "--env=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1".to_owned(),
            // The user who runs the tests may use the socket without being root.
            format!("--env=LAB_GROUP={group}"),
            format!("--name={container}"),
            format!("--hostname=dockerutils-lab-{}", self.name),
            self.suite.image(),
            "/bin/sh".to_owned(),
            "/run/lab/dock.sh".to_owned(),
        ]);
        words
    }

    pub(super) fn container(&self, lab: &Lab) -> String {
        format!("dockerutils-lab-{}-{}", lab.id(), self.name)
    }

    pub(super) fn directory(&self, lab: &Lab) -> PathBuf {
        lab.directory.join(&*self.name)
    }

    fn socket(&self, lab: &Lab) -> PathBuf {
        self.directory(lab).join("docker.sock")
    }
}
