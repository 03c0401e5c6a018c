//! Tools that know nothing of docks, with bind mounts of a project here: compose on a dock beside itself without mounts,
//! and `docker run -v` beside rsync and `docker run` over `ssh://`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::BASE_IMAGE;
use dockerutils_test_support::{machine, process};

use super::context::Noise;
use super::far::{Distance, FarDock, NAME};
use super::measure::{Samples, time};
use super::{Comparison, Setting};
use crate::error::Error;

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// The directories of the project that services mount, and how many files are in each.
const MOUNTED: [&str; 2] = ["src", "data"];
const FILES: usize = 5_000;
/// The bytes of each file.
const SIZE: usize = 2_000;
/// What one changed file gets: as many bytes as it had.
const CHANGED: &str = "src/file-17";

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let needed_for = "the bench of any tool";
    machine::require("docker-compose", &["docker-compose"], needed_for)?;
    machine::require("rsync", &["rsync"], needed_for)?;
    machine::require("git", &["git"], needed_for)?;
    let distance = Distance {
        round_trip: ROUND_TRIP,
        capacity: None,
    };
    let dock = FarDock::register(setting, &setting.dock, distance)?;
    let directory = tempfile::Builder::new()
        .prefix("any-tool")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let project = Project::write(directory.path())?;
    process::capture(dock.ours("sync-up").args(["--dock", NAME]).current_dir(project.root()))?;
    Ok(vec![
        compose(setting, &dock, &project)?,
        one_changed(setting, &dock, &project)?,
    ])
}

/// A git repository with two directories of files, and a compose file with and one without mounts of them.
struct Project<'a>(&'a Path);

impl<'a> Project<'a> {
    fn write(root: &'a Path) -> Result<Self, Error> {
        process::capture(Command::new("git").args(["init", "--quiet"]).arg(root))?;
        let mut noise = Noise::seeded_by(root);
        for directory in MOUNTED {
            let directory = root.join(directory);
            fs::create_dir(&directory).map_err(Error::file(&directory))?;
            for number in 0..FILES {
                let file = directory.join(format!("file-{number}"));
                fs::write(&file, noise.text(SIZE)).map_err(Error::file(&file))?;
            }
        }
        let project = Self(root);
        for mounts in [true, false] {
            let file = project.compose_file(mounts);
            fs::write(&file, services(mounts)).map_err(Error::file(&file))?;
        }
        Ok(project)
    }

    fn root(&self) -> &Path {
        self.0
    }

    fn compose_file(&self, mounts: bool) -> PathBuf {
        self.0.join(if mounts { "mounts.yml" } else { "plain.yml" })
    }
}

/// Three services, of which two mount a directory.
fn services(mounts: bool) -> String {
    let mut text = "version: '3.4'\nservices:\n".to_owned();
    for (number, mounted) in [Some(MOUNTED[0]), Some(MOUNTED[1]), None].into_iter().enumerate() {
        text.push_str(&format!(
            "  service-{number}:\n    image: {BASE_IMAGE}\n    command: sleep 600\n    stop_grace_period: 0s\n"
        ));
        if let (true, Some(directory)) = (mounts, mounted) {
            text.push_str(&format!("    volumes:\n    - ./{directory}:/mounted\n"));
        }
    }
    text
}

fn compose(setting: &Setting, dock: &FarDock, project: &Project<'_>) -> Result<Comparison, Error> {
    let compose = |mounts: bool, arguments: &[&str]| {
        let mut compose = dock.docked_program("docker-compose");
        compose
            .args(["-p", "bench-any-tool", "-f"])
            .arg(project.compose_file(mounts))
            .args(arguments)
            .current_dir(project.root());
        compose
    };
    let up = |mounts: bool| {
        let took = time(&mut compose(mounts, &["up", "-d"]));
        process::capture(&mut compose(mounts, &["down"]))?;
        took
    };
    // The first is not measured.
    up(true)?;
    up(false)?;
    let (mut with, mut without) = (Samples::default(), Samples::default());
    for _ in 0..setting.runs {
        with.push(up(true)?);
        without.push(up(false)?);
    }
    Ok(Comparison {
        what: "compose up, two mounts".to_owned(),
        ours: with,
        peer: without,
        limit: Some(1.2),
        memory: None,
    })
}

fn one_changed(setting: &Setting, dock: &FarDock, project: &Project<'_>) -> Result<Comparison, Error> {
    let run = |source: &str| {
        ["run", "--rm", "--network=none", "-v"]
            .into_iter()
            .map(str::to_owned)
            .chain([
                format!("{source}:/app"),
                BASE_IMAGE.to_owned(),
                "cat".to_owned(),
                format!("/app/{CHANGED}"),
            ])
            .collect::<Vec<_>>()
    };
    let root = project.root().display().to_string();
    let theirs = "/tmp/bench-any-tool";
    let ours = || time(dock.docked().args(run(&root)).current_dir(project.root()));
    let peer = || {
        let began = Instant::now();
        let mut rsync = dock.docked_program("rsync");
        rsync
            .args(["-az", "-e", "ssh"])
            .arg(format!("{root}/"))
            .arg(format!("{NAME}:{theirs}/"));
        process::capture(&mut rsync)?;
        process::capture(dock.by_ssh().args(run(theirs)))?;
        Ok::<_, Error>(began.elapsed())
    };
    ours()?;
    peer()?;
    let mut noise = Noise::seeded_by(Path::new(CHANGED));
    let (mut our_samples, mut peer_samples) = (Samples::default(), Samples::default());
    let changed = project.root().join(CHANGED);
    for _ in 0..setting.runs {
        for (samples, measure) in [
            (&mut our_samples, &ours as &dyn Fn() -> Result<Duration, Error>),
            (&mut peer_samples, &peer),
        ] {
            fs::write(&changed, noise.text(SIZE)).map_err(Error::file(&changed))?;
            samples.push(measure()?);
        }
    }
    process::capture(setting.dock.exec("rm")?.args(["-rf", theirs]))?;
    Ok(Comparison {
        what: "docker run -v, one changed".to_owned(),
        ours: our_samples,
        peer: peer_samples,
        limit: Some(0.5),
        memory: None,
    })
}
