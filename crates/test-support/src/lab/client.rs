//! docker's own client with buildx, of the age of engine 26.1, for any engine of the lab: what benchmarks compare us
//! with.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use super::{Error, Lab, LabEngine, Suite, dock_image};
use crate::process;

/// A container in which the client is run. It ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    container: String,
    /// The machine's own engine, which runs the container, whichever engine its client speaks to.
    host: String,
}

impl Client {
    /// Starts the container; it sees the directory `shared` by the same path as we do.
    ///
    /// # Errors
    /// When its image cannot be made, or the machine's engine refuses.
    pub fn start(engine: &LabEngine, shared: &Path) -> Result<Self, Error> {
        let socket = engine.host.strip_prefix("unix://").unwrap_or(&engine.host);
        Self::run(
            &["--network=none", &format!("--volume={socket}:/var/run/docker.sock")],
            &[shared],
        )
    }

    /// Starts the container for engines that it reaches over the machine's network; it sees the directories `shared`.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub fn start_in_network(shared: &[&Path]) -> Result<Self, Error> {
        Self::run(&["--network=host"], shared)
    }

    fn run(options: &[&str], shared: &[&Path]) -> Result<Self, Error> {
        let lab = Lab::open()?;
        let image = dock_image(Suite::Trixie)?;
        lab.hold()?;
        let mut run = lab.docker();
        run.args(["run", "--rm", "--detach", "--init"]);
        run.args(lab.labels()).args(options);
        for directory in shared.iter().map(|directory| directory.display()) {
            run.arg(format!("--volume={directory}:{directory}"));
        }
        // A container that is left over ends by itself after some time.
        run.args([image.as_str(), "sleep", "3600"]);
        let container = process::capture_text(&mut run)?;
        Ok(Self {
            container,
            host: super::host_of(&lab.local),
        })
    }

    /// A command that runs `program` in the container, in `directory`.
    pub fn exec(&self, directory: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut exec = super::docker(&self.host);
        exec.args(["exec", "--workdir"])
            .arg(directory)
            .arg(&self.container)
            .arg(program);
        exec
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut remove = super::docker(&self.host);
        // If this fails, the container ends by itself later.
        let _ = process::capture(remove.args(["rm", "--force", &self.container]));
    }
}
