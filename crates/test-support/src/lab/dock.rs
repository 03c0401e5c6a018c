//! One dock of the lab: a container with an engine, and its directory on the host.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{ANSWER, BASE_IMAGE, Error, Lab, LabEngine, Store, Suite, create_directory, has_base_image, probe, write};
use crate::{http, process};

/// Every dock that the lab may have.
pub(super) const MATRIX: [Dock; 5] = [
    Dock::of("20", Suite::Bookworm, Store::Classic),
    Dock::of("26", Suite::Trixie, Store::Classic),
    Dock::of("26-containerd", Suite::Trixie, Store::Containerd),
    Dock::of("28", Suite::Sid, Store::Classic),
    Dock::of("28-containerd", Suite::Sid, Store::Containerd),
];

/// How long an engine may take from its start to its first answer, on a machine that is busy compiling.
const START: Duration = Duration::from_secs(90);

/// The path of a socket must fit into `sockaddr_un`; macOS has the shorter one.
const SOCKET_PATH: usize = 103;

const SCRIPT: &str = include_str!("dock.sh");

#[derive(Debug, Clone)]
pub(super) struct Dock {
    pub(super) name: Cow<'static, str>,
    pub(super) suite: Suite,
    pub(super) store: Store,
    /// The size in MiB of a disk in memory, in place of a volume.
    pub(super) disk: Option<u32>,
    /// The engine may end without its machine.
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

    /// The engine, when it answers, was started from this very recipe, and has the base image.
    pub(super) fn running(&self, lab: &Lab) -> Option<LabEngine> {
        let socket = self.socket(lab);
        if !self.is_of_this_recipe(lab) || !has_base_image(&socket) {
            return None;
        }
        probe(&self.name, &socket, Some(&self.container()))
    }

    fn is_of_this_recipe(&self, lab: &Lab) -> bool {
        fs::read_to_string(self.directory(lab).join("recipe"))
            .is_ok_and(|started| started == self.recipe(lab).join("\n"))
    }

    /// Whether its container runs, which it does as long as its engine lives.
    fn is_alive(&self, lab: &Lab) -> bool {
        let path = format!("/containers/{}/json", self.container());
        http::get(&lab.local, &path, ANSWER).is_ok_and(|answer| {
            answer.status == 200 && answer.json().pointer("/State/Running") == Some(&serde_json::Value::Bool(true))
        })
    }

    /// Starts the dock unless it runs; does not wait for its engine.
    pub(super) fn start(&self, lab: &Lab) -> Result<(), Error> {
        // However long it is silent: other tests have their things on an engine that lives.
        if self.is_of_this_recipe(lab) && self.is_alive(lab) {
            return Ok(());
        }
        let directory = self.directory(lab);
        if self.socket(lab).as_os_str().len() > SOCKET_PATH {
            return Err(Error::LongPath(self.socket(lab)));
        }
        // A dock that is dead is not mended but made anew, on an empty volume: tests begin from a known state.
        self.remove(lab)?;
        create_directory(&directory)?;
        let containerd = matches!(self.store, Store::Containerd);
        let settings = serde_json::json!({ "features": { "containerd-snapshotter": containerd } });
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
        let engine = loop {
            if let Some(engine) = probe(&self.name, &socket, Some(&self.container())) {
                break engine;
            }
            if started.elapsed() > START {
                return Err(Error::Silent {
                    name: self.name.to_string(),
                    container: self.container(),
                    limit: START,
                });
            }
            thread::sleep(Duration::from_millis(50));
        };
        if !has_base_image(&socket) {
            process::pipe(lab.docker().args(["save", BASE_IMAGE]), engine.docker().arg("load"))?;
        }
        Ok(())
    }

    /// Removes the container and all that its engine stored.
    pub(super) fn remove(&self, lab: &Lab) -> Result<(), Error> {
        // Neither complains about what is not there.
        process::capture(lab.docker().args(["rm", "--force", "--volumes", &self.container()]))?;
        process::capture(lab.docker().args(["volume", "rm", "--force", &self.container()]))?;
        let directory = self.directory(lab);
        match fs::remove_dir_all(&directory) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
                path: directory,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The arguments of `docker` that start the dock.
    ///
    /// It is not `--privileged`, which fails on machines that lack CAP_SYS_RESOURCE; this is what dockerd needs of it.
    fn recipe(&self, lab: &Lab) -> Vec<String> {
        let container = self.container();
        let group = rustix::process::getegid().as_raw();
        let mut words = ["run", "--detach", "--init", "--cap-add=ALL", "--cap-drop=SYS_RESOURCE"]
            .map(str::to_owned)
            .to_vec();
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
                None => format!("--volume={container}:/var/lib/docker"),
            },
            format!("--volume={}:/run/lab", self.directory(lab).display()),
            "--env=DOCKER_ALLOW_IPV6_ON_IPV4_INTERFACE=1".to_owned(),
            // Whoever runs the tests may use the socket without being root.
            format!("--env=LAB_GROUP={group}"),
            format!("--name={container}"),
            format!("--hostname={container}"),
            self.suite.image(),
            "/bin/sh".to_owned(),
            "/run/lab/dock.sh".to_owned(),
        ]);
        words
    }

    pub(super) fn container(&self) -> String {
        format!("dockerutils-lab-{}", self.name)
    }

    pub(super) fn directory(&self, lab: &Lab) -> PathBuf {
        lab.directory.join(&*self.name)
    }

    fn socket(&self, lab: &Lab) -> PathBuf {
        self.directory(lab).join("docker.sock")
    }
}
