//! A build whose context is large: 20,000 files, 200 MB, half of it compressible.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{Client, LabEngine};

use super::far::{self, Distance, FarDock};
use super::measure::{Samples, peak_memory, time};
use super::{Comparison, Setting, peers};
use crate::error::Error;

const FILES: usize = 20_000;
const FILE_SIZE: usize = 10_000;

/// Both sides use this Dockerfile: the engine's own work is the same.
const DOCKERFILE: &str = "FROM scratch\nCOPY . /context\n";

/// The link to a distant dock, and the limits there.
const FAR: Distance = Distance {
    round_trip: Duration::from_millis(50),
    capacity: Some(100_000_000),
};
const FAR_LIMITS: [f64; 3] = [0.6, 0.5, 0.3];
const LIMITS: [f64; 3] = [0.9, 1.0, 0.5];

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let place = BuildSite::new(setting, directory.path())?;
    let names = ["cold", "one file changed", "nothing changed"];
    let mut rows = names.map(|what| (what, Samples::default(), Samples::default()));
    let mut memory = [None; 3];
    for run in 0..setting.runs {
        // A project of its own for each side and run: neither finds what another has sent.
        let project = |side: &str| BenchProject::write(directory.path().join(format!("{side}{run}")));
        let (ours, theirs) = (project("ours")?, project("theirs")?);
        for (step, (_, our_samples, peer_samples)) in rows.iter_mut().enumerate() {
            if step == 1 {
                ours.change()?;
                theirs.change()?;
            }
            let mut build = place.build(&ours);
            our_samples.push(time(&mut build)?);
            let arguments = ["build", "-t", "bench-context", "-f", "docker/web/Dockerfile", "."];
            peer_samples.push(place.time_peer(&theirs.root, &arguments)?);
        }
        place.forget(&ours)?;
        if run == 0 {
            memory = measure_memory(&place, directory.path())?;
        }
        for project in [ours, theirs] {
            fs::remove_dir_all(&project.root).map_err(Error::file(&project.root))?;
        }
    }
    let limits = if setting.far { FAR_LIMITS } else { LIMITS };
    let rows = rows.into_iter().zip(limits).zip(memory);
    Ok(rows
        .map(|(((what, ours, peer), limit), memory)| Comparison {
            what: what.to_owned(),
            ours,
            peer,
            limit: Some(limit),
            memory,
        })
        .collect())
}

/// The same three builds once more, watched.
fn measure_memory(place: &BuildSite<'_>, directory: &Path) -> Result<[Option<u64>; 3], Error> {
    let project = BenchProject::write(directory.join("memory"))?;
    let mut build = place.build(&project);
    let cold = peak_memory(&mut build)?;
    project.change()?;
    let changed = peak_memory(&mut build)?;
    let unchanged = peak_memory(&mut build)?;
    place.forget(&project)?;
    fs::remove_dir_all(&project.root).map_err(Error::file(&project.root))?;
    Ok([Some(cold), Some(changed), Some(unchanged)])
}

/// Where both sides build: on an engine that is reached by a socket, or on a distant dock.
struct BuildSite<'a> {
    setting: &'a Setting,
    client: Client,
    /// With the dock's own engine, to clean up there.
    far: Option<(FarDock, LabEngine)>,
}

impl<'a> BuildSite<'a> {
    fn new(setting: &'a Setting, shared: &Path) -> Result<Self, Error> {
        if !setting.far {
            return Ok(Self {
                setting,
                client: Client::start(&setting.engine, shared)?,
                far: None,
            });
        }
        let engine = setting.dock.clone();
        let dock = FarDock::register(setting, &engine, FAR)?;
        Ok(Self {
            setting,
            client: Client::start_in_network(&[shared, dock.home()])?,
            far: Some((dock, engine)),
        })
    }

    fn build(&self, project: &BenchProject) -> Command {
        let mut build = match &self.far {
            Some((dock, _)) => {
                let mut build = dock.ours("build-image");
                build.args(["--dock", far::NAME]);
                build
            }
            None => {
                let mut build = self.setting.ours("build-image");
                build.env("DOCKER_HOST", &self.setting.engine.host);
                build
            }
        };
        build.arg("web").current_dir(&project.root);
        build
    }

    fn time_peer(&self, directory: &Path, arguments: &[&str]) -> Result<Duration, Error> {
        let exec = match &self.far {
            Some((dock, _)) => dock.buildx_by_ssh(&self.client, directory),
            None => self.client.exec(directory, "env"),
        };
        peers::time_docker(exec, arguments)
    }

    /// Removes what both sides built.
    fn forget(&self, project: &BenchProject) -> Result<(), Error> {
        let engine = self.far.as_ref().map_or(&self.setting.engine, |(_, engine)| engine);
        super::forget(self.setting, engine, &project.root, "bench-context")
    }
}

pub(super) struct BenchProject {
    pub(super) root: PathBuf,
}

impl BenchProject {
    pub(super) fn write(root: PathBuf) -> Result<Self, Error> {
        let docker = root.join("docker/web");
        fs::create_dir_all(&docker).map_err(Error::file(&docker))?;
        fs::write(docker.join("Dockerfile"), DOCKERFILE).map_err(Error::file(&docker))?;
        // The engine's cache finds files by content, too: so no two projects share any.
        let mut noise = Noise::seeded_by(&root);
        for index in 0..FILES {
            let directory = root.join(format!("src/{:03}", index / 100));
            if index % 100 == 0 {
                fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
            }
            let path = directory.join(format!("{index:05}.bin"));
            let mut file = File::create(&path).map(BufWriter::new).map_err(Error::file(&path))?;
            let content = if index % 2 == 0 {
                noise.bytes(FILE_SIZE)
            } else {
                noise.text(FILE_SIZE)
            };
            file.write_all(&content)
                .and_then(|()| file.flush())
                .map_err(Error::file(&path))?;
        }
        Ok(Self { root })
    }

    fn change(&self) -> Result<(), Error> {
        let path = self.root.join("src/100/10050.bin");
        fs::write(&path, format!("changed in {}\n", self.root.display())).map_err(Error::file(path))
    }
}

/// Marsaglia's xorshift64: its output does not compress.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn seeded_by(path: &Path) -> Self {
        use std::hash::{BuildHasher, RandomState};
        // Each process has another seed, because the engine remembers the last one's files.
        Self(RandomState::new().hash_one(path) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes())
            .flatten()
            .take(length)
            .collect()
    }

    /// Lines like a program's, of few different words.
    pub(super) fn text(&mut self, length: usize) -> Vec<u8> {
        const WORDS: [&str; 8] = [
            "let ",
            "return ",
            "value",
            " = ",
            "(index)",
            ";\n",
            "    ",
            "image.name",
        ];
        let words = std::iter::repeat_with(|| WORDS.get((self.next() % 8) as usize).copied().unwrap_or_default());
        words.flat_map(str::bytes).take(length).collect()
    }
}
