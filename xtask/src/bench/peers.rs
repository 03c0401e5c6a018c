//! The peers: dockerutils 2.0.7, and docker's own client with buildx.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::machine;
use dockerutils_test_support::process::{self, announce};

use crate::error::Error;
use crate::workspace::Workspace;

/// The release of the Python package that is replaced.
const ORIGINAL: &str = "dockerutils==2.0.7";

/// The directory of the original's commands, in a virtual environment made when it is not there.
pub(super) fn original(workspace: &Workspace) -> Result<PathBuf, Error> {
    let environment = workspace.target.join("dockerutils-2.0.7");
    let bin = environment.join("bin");
    if bin.join("build-image").exists() {
        return Ok(bin);
    }
    machine::require("python3", &["python3", "python3-venv"], "the peer dockerutils 2.0.7")?;
    announce(format_args!("installing {ORIGINAL} into {}", environment.display()));
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(&environment);
    if process::capture(&mut venv).is_err() {
        // Debian's python3 comes without it.
        machine::install(&["python3-venv"], "the peer dockerutils 2.0.7")?;
        process::capture(&mut venv)?;
    }
    process::capture(Command::new(bin.join("pip")).args(["install", "--quiet", ORIGINAL]))?;
    Ok(bin)
}

/// How long `docker ARGUMENTS` of the peer takes; `exec` runs `env` in the client's container. The time is taken in the
/// container: entering it is not measured.
pub(super) fn time_docker(mut exec: Command, arguments: &[&str]) -> Result<Duration, Error> {
    const SCRIPT: &str = r#"TIMEFORMAT=%R; out=$(mktemp); time "$@" >"$out" 2>&1 || { cat "$out"; exit 1; } >&2"#;
    exec.args(["bash", "-c", SCRIPT, "peer", "docker"]).args(arguments);
    let output = exec.output().map_err(Error::file("docker"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match said.trim().lines().last().and_then(|line| line.parse().ok()) {
        Some(seconds) if output.status.success() => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Error::Failed(format!(
            "the peer failed: docker {}\n{said}",
            arguments.join(" ")
        ))),
    }
}
