//! A container that exits at once, and 1 GiB through a container that copies its input, against docker's own client.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dockerutils_test_support::process;

use super::measure::{Samples, peak_memory, time};
use super::{Comparison, Setting};
use crate::error::Error;

/// What goes through `cat`: 1 GiB.
const SIZE: u64 = 1 << 30;

/// Nothing is built: the section names the image that the lab's engines have.
const CONFIG: &str = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\n";

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let project = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let docker = project.path().join("docker");
    fs::create_dir_all(&docker).map_err(Error::file(&docker))?;
    let config = docker.join("dockerutils.cfg");
    fs::write(&config, CONFIG).map_err(Error::file(config))?;
    Ok(vec![exit(setting, project.path())?, pipe(setting, project.path())?])
}

fn exit(setting: &Setting, project: &Path) -> Result<Comparison, Error> {
    let ours = || run_image(setting, project, "true");
    let peer = Peer::of(setting, project, "true")?;
    // The first run of each is not measured.
    time(&mut ours())?;
    time(&mut peer.command())?;
    let (mut our_samples, mut peer_samples) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        our_samples.push(time(&mut ours())?);
        peer_samples.push(time(&mut peer.command())?);
    }
    Ok(Comparison {
        what: "a container that exits".to_owned(),
        ours: our_samples,
        peer: peer_samples,
        limit: Some(1.05),
        memory: Some(peak_memory(&mut ours())?),
    })
}

fn pipe(setting: &Setting, project: &Path) -> Result<Comparison, Error> {
    let peer = Peer::of(setting, project, "cat")?;
    let (mut our_samples, mut peer_samples) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        our_samples.push(time_copy(&mut run_image(setting, project, "cat"))?);
        peer_samples.push(time_copy(&mut peer.command())?);
    }
    Ok(Comparison {
        what: "1 GiB through cat".to_owned(),
        ours: our_samples,
        peer: peer_samples,
        limit: Some(1.0),
        memory: None,
    })
}

fn run_image(setting: &Setting, project: &Path, command: &str) -> Command {
    let mut run = setting.ours("run-image");
    run.args(["box", "-c", command])
        .current_dir(project)
        .stdin(Stdio::null())
        .env("DOCKER_HOST", &setting.engine.host);
    run
}

/// The line that ours prints, for docker.
struct Peer<'a> {
    setting: &'a Setting,
    words: Vec<String>,
}

impl<'a> Peer<'a> {
    fn of(setting: &'a Setting, project: &Path, command: &str) -> Result<Self, Error> {
        let line = process::capture_text(run_image(setting, project, command).arg("--dry-run"))?;
        let mut words = line.split_whitespace();
        if words.next() != Some("docker") {
            return Err(Error::Failed(format!("run-image printed no docker command: {line}")));
        }
        Ok(Self {
            setting,
            words: words.map(str::to_owned).collect(),
        })
    }

    fn command(&self) -> Command {
        let mut docker = self.setting.engine.docker();
        docker.args(&self.words).stdin(Stdio::null());
        docker
    }
}

/// How long `command` takes to copy [`SIZE`] zeros from a pipe into a pipe, and to end.
fn time_copy(command: &mut Command) -> Result<Duration, Error> {
    let name = process::shown(command);
    let failed = || Error::file(&name);
    let mut zeros = Command::new("head")
        .args(["-c", &SIZE.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::file("head"))?;
    let started = Instant::now();
    if let Some(pipe) = zeros.stdout.take() {
        command.stdin(pipe);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed())?;
    // An open end of the pipe here would keep `head` from noticing that the reader has gone.
    command.stdin(Stdio::null());
    let mut output = child.stdout.take().ok_or_else(|| Error::Failed(name.clone()))?;
    let mut copied = 0;
    // Faster than what is measured: reads of twice a pipe's capacity.
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match output.read(&mut buffer).map_err(failed())? {
            0 => break,
            read => copied += read as u64,
        }
    }
    let status = child.wait().map_err(failed())?;
    let took = started.elapsed();
    zeros.wait().map_err(Error::file("head"))?;
    if !status.success() || copied != SIZE {
        return Err(Error::Failed(format!(
            "`{name}` ({status}) copied {copied} of {SIZE} bytes"
        )));
    }
    Ok(took)
}
