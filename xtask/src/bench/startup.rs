//! What a user waits for each time: the help, and a build in which nothing changed.

use std::fs;
use std::path::Path;
use std::process::Command;

use dockerutils_test_support::lab::Client;
use dockerutils_test_support::process::announce;

use super::measure::{Samples, peak_memory, time};
use super::{Comparison, Setting, peers};
use crate::error::Error;

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let mut rows = help(setting)?;
    rows.push(unchanged_build(setting)?);
    rows.push(check(setting)?);
    Ok(rows)
}

/// `--help` of each command whose original has a help, too.
fn help(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let original = peers::original(&setting.workspace)?;
    // Some of the Python package's commands act before they read their arguments: so they run in a directory of their
    // own.
    let nowhere = tempfile::tempdir().map_err(Error::file("a temporary directory"))?;
    write(
        nowhere.path(),
        &[("docker/web/Dockerfile", "FROM dockerutils-lab-base:1\n")],
    )?;
    let ask = |program: &Path| {
        let mut ask = Command::new(program);
        ask.arg("--help")
            .current_dir(nowhere.path())
            .env("HOME", nowhere.path())
            .env("DOCKER_HOST", "unix:///nonexistent");
        ask
    };
    let mut rows = Vec::new();
    for command in setting.workspace.commands() {
        let (our_program, peer_program) = (setting.bin.join(&command.name), original.join(&command.name));
        if time(&mut ask(&peer_program)).is_err() {
            announce(format_args!(
                "{}: the original has no --help to compare with",
                command.name
            ));
            continue;
        }
        let (mut ours, mut peer) = (Samples::default(), Samples::default());
        for _ in 0..setting.runs {
            ours.push(time(&mut ask(&our_program))?);
            peer.push(time(&mut ask(&peer_program))?);
        }
        let memory = Some(peak_memory(&mut ask(&our_program))?);
        rows.push(Comparison {
            what: format!("{} --help", command.name),
            ours,
            peer,
            limit: Some(0.1),
            memory,
        });
    }
    Ok(rows)
}

/// What is said of a Dockerfile of 200 instructions with a context of 20,000 files. The peer is docker's outline of the same file:
/// buildx 0.13, which the lab has, knows no checks, and the outline reads a Dockerfile in the same way, by the engine.
fn check(setting: &Setting) -> Result<Comparison, Error> {
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let project = directory.path().join("checked");
    let mut text = "FROM dockerutils-lab-base:1\nCOPY . /src\n".to_owned();
    for number in 0..100 {
        text.push_str(&format!(
            "RUN apt-get update && apt-get install -y d{number} c b a\nENV A{number}=b\n"
        ));
    }
    write(&project, &[("docker/web/Dockerfile", text.as_str())])?;
    for folder in 0..200 {
        for file in 0..100 {
            write(&project, &[(&format!("src/{folder}/{file}"), "x")])?;
        }
    }
    let client = Client::start(&setting.dock, directory.path())?;
    let mut check = setting.ours("build-image");
    check
        .args(["web", "--check"])
        .current_dir(&project)
        .env("DOCKER_HOST", "unix:///nonexistent");
    let outline = ["buildx", "build", "--print=outline", "-f", "docker/web/Dockerfile", "."];
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        ours.push(time(&mut check)?);
        let mut env = client.exec(&project, "env");
        env.arg("BUILDX_EXPERIMENTAL=1");
        peer.push(peers::time_docker(env, &outline)?);
    }
    Ok(Comparison {
        what: "build-image --check".to_owned(),
        ours,
        peer,
        limit: None,
        memory: Some(peak_memory(&mut check)?),
    })
}

fn unchanged_build(setting: &Setting) -> Result<Comparison, Error> {
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let project = directory.path().join("small");
    write(
        &project,
        &[
            (
                "docker/web/Dockerfile",
                "FROM dockerutils-lab-base:1\nCOPY app.txt /app.txt\nRUN echo built > /built\n",
            ),
            ("app.txt", "hello\n"),
        ],
    )?;
    let client = Client::start(&setting.engine, directory.path())?;
    let mut build = setting.ours("build-image");
    build
        .arg("web")
        .current_dir(&project)
        .env("DOCKER_HOST", &setting.engine.host);
    let theirs = ["build", "-t", "bench-small", "-f", "docker/web/Dockerfile", "."];
    // The first build of each is not measured.
    time(&mut build)?;
    peers::time_docker(client.exec(&project, "env"), &theirs)?;
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        ours.push(time(&mut build)?);
        peer.push(peers::time_docker(client.exec(&project, "env"), &theirs)?);
    }
    let memory = Some(peak_memory(&mut build)?);
    super::forget(setting, &setting.engine, &project, "bench-small")?;
    Ok(Comparison {
        what: "unchanged small build".to_owned(),
        ours,
        peer,
        limit: Some(0.6),
        memory,
    })
}

fn write(project: &Path, files: &[(&str, &str)]) -> Result<(), Error> {
    for (name, content) in files {
        let path = project.join(name);
        let directory = path.parent().unwrap_or(project);
        fs::create_dir_all(directory).map_err(Error::file(directory))?;
        fs::write(&path, content).map_err(Error::file(&path))?;
    }
    Ok(())
}
