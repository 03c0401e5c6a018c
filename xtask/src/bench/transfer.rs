//! An image of 494 MB from the machine's own engine to a dock, over ssh: all of it, and one layer of a megabyte that changed;
//! without delay, and over links of 50 ms with 100 Mbit/s and 1 Gbit/s.
//!
//! The dock has no layer of the image before the whole image is sent, and all but the changed layer before that one is.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, Suite, Throwaway};
use dockerutils_test_support::process::{self, announce};
use dockerutils_test_support::{SlowLink, machine};

use super::context::Noise;
use super::measure::{Samples, peak_memory, time};
use super::{Comparison, Setting, peers, say};
use crate::error::Error;

const IMAGE: &str = "bench-transfer:1";
/// The peers' name for the dock.
const HOST: &str = "bench-dock";
/// Megabytes of each layer; the top one changes.
const LAYERS: [(&str, usize); 4] = [("base", 250), ("libraries", 160), ("model", 83), ("top", 1)];
/// The links: their names, round trips, bits a second, and the limits of all of it and of one layer: against dockerutils, and
/// against save and load.
const LINKS: [LinkProfile; 3] = [
    LinkProfile {
        name: "0 ms",
        round_trip: Duration::ZERO,
        rate: None,
        whole: (0.45, 1.0),
        layer: (0.2, 0.6),
    },
    LinkProfile {
        name: "100 Mbit/s",
        round_trip: Duration::from_millis(50),
        rate: Some(100_000_000),
        whole: (0.6, 0.6),
        layer: (0.2, 0.6),
    },
    LinkProfile {
        name: "1 Gbit/s",
        round_trip: Duration::from_millis(50),
        rate: Some(1_000_000_000),
        whole: (0.8, 0.8),
        layer: (0.2, 0.6),
    },
];

struct LinkProfile {
    name: &'static str,
    round_trip: Duration,
    rate: Option<u64>,
    whole: (f64, f64),
    layer: (f64, f64),
}

/// The three ways to send.
#[derive(Clone, Copy)]
enum SendMethod {
    Ours,
    Original,
    SaveAndLoad,
}

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    machine::require("ssh", &["openssh-client"], "the bench of transfer-image")?;
    let chosen = |link: &&LinkProfile| setting.link.as_deref().is_none_or(|name| name == link.name);
    if !LINKS.iter().any(|link| chosen(&link)) {
        let known = LINKS.map(|link| link.name).join(", ");
        return Err(Error::Failed(format!("no such link; there are: {known}")));
    }
    let original = peers::original(&setting.workspace)?;
    let directory = tempfile::Builder::new()
        .prefix("bench")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let source = lab::engine("20")?;
    // A dock of its own, so that its images can be removed between two runs.
    let dock = Throwaway::start(Suite::Trixie, setting.engine.store, None)?;
    announce(format_args!(
        "from {} ({} store) to {} ({} store)",
        source.version,
        source.store,
        dock.engine().version,
        dock.engine().store
    ));
    let project = LayeredProject::write(directory.path().join("project"))?;
    project.build(setting, &source)?;
    let mut rows = Vec::new();
    for link in LINKS.iter().filter(chosen) {
        let bench = TransferBench::new(setting, &source, dock.engine(), &original, directory.path(), link)?;
        rows.extend(bench.rows(&project, link)?);
    }
    process::capture(source.docker().args(["rmi", "--force", IMAGE]))?;
    Ok(rows)
}

/// Files of which an image is built, a layer for each.
struct LayeredProject {
    root: PathBuf,
}

impl LayeredProject {
    fn write(root: PathBuf) -> Result<Self, Error> {
        let docker = root.join("docker/transfer");
        fs::create_dir_all(&docker).map_err(Error::file(&docker))?;
        let copies: String = LAYERS
            .iter()
            .map(|(name, _)| format!("COPY {name} /{name}\n"))
            .collect();
        let dockerfile = docker.join("Dockerfile");
        fs::write(&dockerfile, format!("FROM scratch\n{copies}")).map_err(Error::file(&dockerfile))?;
        let project = Self { root };
        for (name, megabytes) in LAYERS {
            project.fill(name, megabytes)?;
        }
        Ok(project)
    }

    /// Half of it can be compressed.
    fn fill(&self, name: &str, megabytes: usize) -> Result<(), Error> {
        let path = self.root.join(name);
        let mut noise = Noise::seeded_by(&path);
        let mut file = fs::File::create(&path).map_err(Error::file(&path))?;
        for _ in 0..megabytes {
            file.write_all(&noise.bytes(500_000))
                .and_then(|()| file.write_all(&noise.text(500_000)))
                .map_err(Error::file(&path))?;
        }
        Ok(())
    }

    /// Changes the top layer, so that no engine has it.
    fn change(&self) -> Result<(), Error> {
        let path = self.root.join("top");
        let mut content = fs::read(&path).map_err(Error::file(&path))?;
        content.rotate_left(1);
        fs::write(&path, content).map_err(Error::file(&path))
    }

    /// Bytes of the top layer's file as zstd packs it at its usual level.
    fn packed_top(&self) -> Result<u64, Error> {
        let path = self.root.join("top");
        let packed =
            fs::read(&path).and_then(|content| zstd::bulk::compress(&content, zstd::DEFAULT_COMPRESSION_LEVEL));
        Ok(packed.map_err(Error::file(&path))?.len() as u64)
    }

    fn build(&self, setting: &Setting, engine: &LabEngine) -> Result<(), Error> {
        let (name, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
        let mut build = setting.ours("build-image");
        build
            .args(["transfer", "-q", "-i", name, "-t", tag])
            .current_dir(&self.root)
            .env("DOCKER_HOST", &engine.host);
        process::capture(&mut build)?;
        Ok(())
    }
}

/// One link, and what is needed to send over it.
struct TransferBench<'a> {
    setting: &'a Setting,
    source: &'a LabEngine,
    dock: &'a LabEngine,
    original: &'a Path,
    /// A home of ours, with an ssh that knows the dock.
    home: PathBuf,
    key: PathBuf,
    link: SlowLink,
}

impl<'a> TransferBench<'a> {
    fn new(
        setting: &'a Setting,
        source: &'a LabEngine,
        dock: &'a LabEngine,
        original: &'a Path,
        directory: &Path,
        link: &LinkProfile,
    ) -> Result<Self, Error> {
        let ssh = dock.ssh()?;
        // The Python package calls sudo there.
        let mut sudo = dock.exec("sh")?;
        sudo.args([
            "-c",
            "printf '#!/bin/sh\\nexec \"$@\"\\n' > /usr/local/bin/sudo; chmod 755 /usr/local/bin/sudo",
        ]);
        process::capture(&mut sudo)?;
        let slow = SlowLink::start(ssh.address, link.round_trip, link.rate).map_err(Error::file("a link"))?;
        let home = directory.join(format!("home-{}", slow.address().port()));
        let (dot_ssh, bin) = (home.join(".ssh"), home.join("bin"));
        for folder in [&dot_ssh, &bin] {
            fs::create_dir_all(folder).map_err(Error::file(folder))?;
        }
        let known_hosts = dot_ssh.join("known_hosts");
        let config = dot_ssh.join("config");
        let write = |path: &Path, text: String| fs::write(path, text).map_err(Error::file(path));
        write(&known_hosts, ssh.known_hosts_at(slow.address()))?;
        write(
            &config,
            format!(
                "Host {HOST}\n  HostName {}\n  Port {}\n  User root\n  IdentityFile {}\nHost *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n",
                slow.address().ip(),
                slow.address().port(),
                ssh.key.display(),
                known_hosts.display()
            ),
        )?;
        // OpenSSH takes the home from the password database, and ignores HOME.
        for program in ["ssh", "scp"] {
            let path = bin.join(program);
            write(
                &path,
                format!("#!/bin/sh\nexec /usr/bin/{program} -F {} \"$@\"\n", config.display()),
            )?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::file(&path))?;
        }
        Ok(Self {
            setting,
            source,
            dock,
            original,
            home,
            key: ssh.key,
            link: slow,
        })
    }

    fn rows(&self, project: &LayeredProject, link: &LinkProfile) -> Result<Vec<Comparison>, Error> {
        let ways = [SendMethod::Ours, SendMethod::Original, SendMethod::SaveAndLoad];
        let mut whole = ways.map(|_| Samples::default());
        let mut layer = ways.map(|_| Samples::default());
        let (mut layer_bytes, mut packed) = (0, 0);
        for _ in 0..self.setting.runs {
            for (way, (whole, layer)) in ways.iter().zip(whole.iter_mut().zip(&mut layer)) {
                self.forget()?;
                whole.push(time(&mut self.send(*way))?);
                project.change()?;
                project.build(self.setting, self.source)?;
                let before = self.link.bytes().0;
                layer.push(time(&mut self.send(*way))?);
                if matches!(way, SendMethod::Ours) {
                    layer_bytes = self.link.bytes().0 - before;
                    packed = project.packed_top()?;
                }
            }
        }
        let limit = packed + packed / 100 + (64 << 10);
        let verdict = if layer_bytes <= limit { "met" } else { "missed" };
        say(&format!(
            "{}: one layer of 1 MB, which zstd packs to {packed} bytes, took {layer_bytes} bytes of the link, limit {limit}: {verdict}",
            link.name
        ))?;
        self.forget()?;
        let memory = peak_memory(&mut self.send(SendMethod::Ours))?;
        let [ours, original, save] = whole;
        let [our_layer, original_layer, save_layer] = layer;
        let row = |what: &str, ours: &Samples, peer: Samples, limit| Comparison {
            what: format!("{what}, {}", link.name),
            ours: ours.clone(),
            peer,
            limit: Some(limit),
            memory: Some(memory),
        };
        Ok(vec![
            row("all / 2.0.7", &ours, original, link.whole.0),
            row("all / save|load", &ours, save, link.whole.1),
            row("1 layer / 2.0.7", &our_layer, original_layer, link.layer.0),
            row("1 layer / save|load", &our_layer, save_layer, link.layer.1),
        ])
    }

    fn send(&self, way: SendMethod) -> Command {
        let mut command = match way {
            SendMethod::Ours => {
                let mut command = Command::new(self.setting.bin.join("transfer-image"));
                command.args([IMAGE, &format!("root@{}", self.link.address())]);
                command
            }
            SendMethod::Original => {
                let mut command = Command::new(self.original.join("transfer-image"));
                command.args([IMAGE, HOST]);
                command
            }
            SendMethod::SaveAndLoad => {
                let mut command = Command::new("sh");
                command.args(["-ec", &format!("docker save {IMAGE} | ssh {HOST} docker load")]);
                command
            }
        };
        let path = format!(
            "{}:{}",
            self.home.join("bin").display(),
            std::env::var("PATH").unwrap_or_default()
        );
        command
            .env("PATH", path)
            .env("HOME", &self.home)
            .env("SSH_KEY", &self.key)
            .env("DOCKER_HOST", &self.source.host)
            .stdin(Stdio::null());
        command
    }

    /// Removes the image, and everything left of it, from the dock.
    fn forget(&self) -> Result<(), Error> {
        // It need not be there.
        let _ = process::capture(self.dock.docker().args(["rmi", "--force", IMAGE]));
        process::capture(self.dock.docker().args(["system", "prune", "--force"]))?;
        Ok(())
    }
}
