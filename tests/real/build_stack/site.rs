//! A small stack of images in a repository of git, an engine, and a registry.

use std::fs::File;

use dockerutils_test_support::lab::LabEngine;
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Invocation, Sandbox};
use serde_json::Value;

/// The images of the stack, a parent before its children.
pub(crate) const IMAGES: [&str; 4] = ["base", "mid", "side", "leaf"];

/// A stack of four images on branch main, an engine, and a registry that both reach.
pub(crate) struct Site {
    pub(crate) engine: LabEngine,
    pub(crate) registry: Registry,
    pub(crate) sandbox: Sandbox,
}

impl Site {
    pub(crate) fn new(engine: &LabEngine) -> Self {
        let registry = Registry::on(engine).shared().start().unwrap();
        let address = registry.address();
        let from = |parent: &str| format!("ARG BASE_TAG\nFROM {address}/{parent}:$BASE_TAG\nCOPY file /own\n");
        let spec = format!(
            "tag: {{prefix: 1.10, sha: true}}\nimages:\n  base: {{image_name: {address}/base}}\n  mid: {{image_name: {address}/mid, \
             depend_on: base}}\n  side: {{image_name: {address}/side, depend_on: base}}\n  leaf: {{image_name: {address}/leaf, \
             depend_on: mid}}\n"
        );
        let site = Self {
            sandbox: Sandbox::new()
                .file("images/spec.yml", spec)
                .file(
                    "images/base/Dockerfile",
                    "FROM scratch\nADD root.tar /\nCOPY file /base\n",
                )
                .file("images/mid/Dockerfile", from("base"))
                .file("images/side/Dockerfile", from("base"))
                .file("images/leaf/Dockerfile", from("mid")),
            engine: engine.clone(),
            registry,
        };
        // Engines remember for each layer where they pushed it: each test has layers of its own.
        for image in IMAGES {
            site.sandbox.write(
                &format!("images/{image}/file"),
                format!("{image} {}", site.registry.address()),
            );
        }
        write_root(engine, &site.sandbox);
        site.sandbox.shell("git init -q -b main");
        site.sandbox.commit("first");
        site
    }

    pub(crate) fn command(&self) -> Invocation<'_> {
        self.sandbox
            .command("build-stack")
            .env("DOCKER_HOST", &self.engine.host)
            .any_stdout()
            .any_stderr()
    }

    pub(crate) fn build(&self, arguments: &[&str]) -> Value {
        self.command().arg("--json").args(arguments).run().json()
    }

    /// The same where no engine is: what is done needs none.
    pub(crate) fn without_engine(&self, arguments: &[&str]) -> Value {
        let nowhere = self.sandbox.home().join("no-engine.sock");
        let command = self
            .command()
            .env("DOCKER_HOST", format!("unix://{}", nowhere.display()));
        command.arg("--json").args(arguments).run().json()
    }

    pub(crate) fn reference(&self, image: &str, tag: &str) -> String {
        format!("{}/{image}:{tag}", self.registry.address())
    }

    /// The tags that manifests were written by, each once.
    pub(crate) fn written(&self) -> Vec<String> {
        let mut tags: Vec<String> = self
            .registry
            .requests("PUT", "/manifests/")
            .iter()
            .filter_map(|path| path.strip_prefix("/v2/").map(|path| path.replace("/manifests/", ":")))
            .filter(|tag| !tag.contains("sha256"))
            .collect();
        tags.sort();
        tags.dedup();
        tags
    }

    pub(crate) fn has(&self, reference: &str) -> bool {
        self.engine
            .docker()
            .args(["inspect", reference])
            .output()
            .unwrap()
            .status
            .success()
    }
}

/// What came of each image.
pub(crate) fn statuses(document: &Value) -> Vec<String> {
    let images = document["images"].as_array().unwrap().iter();
    images
        .map(|image| {
            format!(
                "{} {}",
                image["image"].as_str().unwrap(),
                image["status"].as_str().unwrap()
            )
        })
        .collect()
}

pub(crate) fn all(status: &str) -> Vec<String> {
    IMAGES.iter().map(|image| format!("{image} {status}")).collect()
}

/// Writes the files of the lab's base image into the directory of `base`, as `root.tar`: no registry has that image.
pub(crate) fn write_root(engine: &LabEngine, sandbox: &Sandbox) {
    let container = capture_text(engine.docker().args(["create", "dockerutils-lab-base:1", "sh"])).unwrap();
    let root = File::create(sandbox.project().join("images/base/root.tar")).unwrap();
    let mut export = engine.docker();
    assert!(
        export
            .args(["export", container.trim()])
            .stdout(root)
            .status()
            .unwrap()
            .success()
    );
    capture_text(engine.docker().args(["rm", container.trim()])).unwrap();
}
