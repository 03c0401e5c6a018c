//! Images that are moved between engines: made of layers that nobody else has, sent by `transfer-image`, and looked at where
//! they arrive.

use std::io::Read as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dockerutils_test_support::lab::LabEngine;
use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::{Invocation, Sandbox};

use crate::site;

/// The label of the images that keep layers for the next try.
pub const PARTIAL_LABEL: &str = "io.dockerutils.transfer";

/// An image of one test, on one engine or more; removed from them at the end.
#[derive(Debug)]
pub struct Moving {
    /// Its name and tag.
    pub name: String,
    engines: Vec<LabEngine>,
    sandbox: Sandbox,
}

impl Moving {
    /// An image named after the test, that will be on these engines.
    pub fn on(test: &str, engines: &[&LabEngine]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("rt-transfer-{test}:{}-{number}", std::process::id()),
            engines: engines.iter().map(|engine| (*engine).clone()).collect(),
            sandbox: Sandbox::named("moving"),
        }
    }

    /// The sandbox that commands run in.
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Builds it on an engine by this Dockerfile.
    ///
    /// # Panics
    /// When that fails.
    pub fn build(&self, engine: &LabEngine, dockerfile: &str) {
        self.build_as(engine, &self.name, dockerfile);
    }

    /// Builds another image of the same test.
    ///
    /// # Panics
    /// When that fails.
    pub fn build_as(&self, engine: &LabEngine, name: &str, dockerfile: &str) {
        let (repository, tag) = name.rsplit_once(':').expect("a name has a tag");
        // No step is from the build cache: a layer of an earlier test may be anywhere.
        let dockerfile = dockerfile.replace("RUN ", &format!("RUN : {name}; "));
        self.sandbox.write("docker/moving/Dockerfile", dockerfile);
        for last in [false, false, true] {
            let build = self
                .sandbox
                .command("build-image")
                .args(["moving", "-q", "-i", repository, "-t", tag])
                .env("DOCKER_HOST", &engine.host)
                .limit(Duration::from_secs(170));
            let outcome = build.spawn().wait();
            // containerd's garbage collection, called by another test's rmi, may take a layer from a build that has it cached.
            let is_taken = outcome.stderr.contains("does not exist: not found");
            if outcome.code == 0 {
                return;
            }
            assert!(is_taken && !last, "{outcome}");
        }
    }

    /// `transfer-image`, from an engine.
    pub fn transfer<'a>(&'a self, from: &LabEngine) -> Invocation<'a> {
        self.sandbox
            .command("transfer-image")
            .env("DOCKER_HOST", &from.host)
            .limit(Duration::from_secs(170))
    }

    /// Sends the image to an address, and gives what `--json` says of it.
    ///
    /// # Panics
    /// When that fails.
    pub fn send(&self, from: &LabEngine, to: &str) -> serde_json::Value {
        let outcome = self
            .transfer(from)
            .args([self.name.as_str(), to, "--json"])
            .any_stdout()
            .any_stderr()
            .run();
        outcome.json()["images"][0].clone()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        for engine in &self.engines {
            let repository = self.name.rsplit_once(':').map_or(self.name.as_str(), |(name, _)| name);
            let mut list = engine.docker();
            list.args(["images", "--format={{.Repository}}:{{.Tag}}", "--filter"]);
            list.arg(format!("reference={repository}*"));
            // A throwaway engine may be gone, and with it all that it had.
            let names = capture_text(&mut list).unwrap_or_default();
            let tag = self.name.rsplit_once(':').map_or("", |(_, tag)| tag);
            for name in names.lines().filter(|name| name.contains(tag)) {
                let _ = capture(engine.docker().args(["rmi", "--force", name]));
            }
        }
    }
}

/// What the docker client says.
///
/// # Panics
/// When it fails.
pub fn docker(engine: &LabEngine, arguments: &[&str]) -> String {
    let said = capture_text(engine.docker().args(arguments));
    said.unwrap_or_else(|error| panic!("{}: {error}", engine.name))
}

/// What the command of an image prints, without the space around it. It writes into a file of its container, which is copied out:
/// engines that are busy lose what a container prints that ends at once.
///
/// # Panics
/// When there is no such image, it has no shell, or its command fails.
pub fn printed(engine: &LabEngine, image: &str) -> String {
    let command = docker(engine, &["image", "inspect", "--format={{json .Config.Cmd}}", image]);
    let command: Vec<String> = serde_json::from_str(&command).expect("an image with a command");
    let create = [
        "create",
        "--network=none",
        image,
        "sh",
        "-c",
        "exec \"$@\" > /printed",
        "sh",
    ];
    let command = command.iter().map(String::as_str);
    let container = docker(engine, &create.into_iter().chain(command).collect::<Vec<_>>());
    docker(engine, &["start", &container]);
    assert_eq!(docker(engine, &["wait", &container]), "0", "{}: {image}", engine.name);
    let mut text = String::new();
    site::copied(engine, &container, "/printed", |entry| {
        entry.read_to_string(&mut text).expect("a whole archive of text");
    });
    docker(engine, &["rm", "--force", &container]);
    text.trim().to_owned()
}

/// Whether the docker client succeeds.
pub fn docker_succeeds(engine: &LabEngine, arguments: &[&str]) -> bool {
    capture(engine.docker().args(arguments)).is_ok()
}

/// The IDs of the images that keep layers on an engine for the image with this ID.
///
/// # Panics
/// When the engine does not tell.
pub fn partial_images(engine: &LabEngine, image: &str) -> Vec<String> {
    let filter = format!("label={PARTIAL_LABEL}={image}");
    let ids = docker(engine, &["images", "--all", "--quiet", "--filter", &filter]);
    ids.lines().map(str::to_owned).collect()
}

/// The number of layers that a saved image really has: those of whose files not one is missing.
///
/// # Panics
/// When the archive is no image's.
pub fn saved_layers(engine: &LabEngine, image: &str) -> usize {
    let mut save: Command = engine.docker();
    let archive = capture(save.args(["save", image])).unwrap_or_else(|error| panic!("{}: {error}", engine.name));
    let mut archive = tar::Archive::new(&archive[..]);
    let mut files = std::collections::BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("a whole entry");
        if let Some(link) = entry.link_name().expect("a link") {
            content = link.display().to_string().into_bytes();
        }
        files.insert(path, content);
    }
    let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).expect("a manifest");
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    layers
        .iter()
        .filter(|layer| {
            let path = layer.as_str().expect("a path");
            files.get(path).is_some_and(|content| !content.is_empty())
        })
        .count()
}
