//! A stack of eight images in a registry that is 50 ms away: its promotion beside a loop of docker pull, tag and push; a plan
//! in which nothing changed beside a loop of docker manifest inspect; and one changed leaf beside a loop of docker build and push.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{SlowLink, oras, process};
use serde_json::{Value, json};

use super::measure::{Samples, time};
use super::{Comparison, Setting};
use crate::error::Error;

const ROUND_TRIP: Duration = Duration::from_millis(50);
const IMAGES: usize = 8;
const FROM: &str = "2026.3-main";
/// The tag of what the loop of docker build makes.
const LOOP: &str = "2026.3-loop";
const ARTIFACT_TYPE: &str = "application/vnd.dockerutils.stack.verdict.v1+json";
/// The longest that each may take.
const PROMOTION: Duration = Duration::from_secs(2);
const PLAN: Duration = Duration::from_secs(1);

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    // The machine's own engine: it sees the link's address.
    let engine = lab::engine("local")?;
    let registry = Registry::on(&engine).start().map_err(failed)?;
    let to: SocketAddr = registry.address().parse().map_err(failed)?;
    let link = SlowLink::start(to, ROUND_TRIP, None).map_err(Error::file("a slow link"))?;
    let directory = tempfile::Builder::new()
        .prefix("stack")
        .tempdir()
        .map_err(Error::file("a temporary directory"))?;
    let site = StackSite {
        setting,
        engine,
        address: link.address().to_string(),
        root: directory.path(),
    };
    site.fill()?;
    let measured = site.measure();
    site.forget()?;
    measured
}

fn failed(cause: impl std::fmt::Display) -> Error {
    Error::Failed(cause.to_string())
}

/// A stack, and the registry that holds its images.
struct StackSite<'s> {
    setting: &'s Setting,
    engine: LabEngine,
    /// Of the link to the registry.
    address: String,
    root: &'s Path,
}

impl StackSite<'_> {
    fn image(&self, number: usize) -> String {
        format!("{}/team/image-{number}", self.address)
    }

    /// Writes the stack, and pushes its images with what they were made from, and a verdict of each.
    fn fill(&self) -> Result<(), Error> {
        let mut spec = "tag: {prefix: 2026.3}\nimages:\n".to_owned();
        for number in 0..IMAGES {
            let (parent, from) = match number {
                0 => (String::new(), "FROM scratch\n".to_owned()),
                _ => (
                    ", depend_on: image-0".to_owned(),
                    format!("ARG BASE_TAG\nFROM {}:$BASE_TAG\n", self.image(0)),
                ),
            };
            spec += &format!("  image-{number}: {{image_name: {}{parent}}}\n", self.image(number));
            let image = self.root.join(format!("images/image-{number}"));
            fs::create_dir_all(&image).map_err(Error::file(&image))?;
            fs::write(image.join("Dockerfile"), from + &format!("COPY file /file-{number}\n"))
                .map_err(Error::file(&image))?;
            fs::write(image.join("file"), number.to_string()).map_err(Error::file(&image))?;
        }
        let file = self.root.join("images/spec.yml");
        fs::write(&file, spec).map_err(Error::file(&file))?;
        let git =
            "git init -q -b main; git add -A; git -c user.name=bench -c user.email=bench@example.org commit -qm bench";
        process::capture(Command::new("sh").args(["-ec", git]).current_dir(self.root))?;
        process::capture(&mut self.build())?;
        for number in 0..IMAGES {
            self.judge(number, &format!("{}:{FROM}", self.image(number)))?;
        }
        Ok(())
    }

    /// Attaches a verdict to an image, without a signature.
    fn judge(&self, number: usize, reference: &str) -> Result<(), Error> {
        let digest = process::capture_text(self.oras()?.args(["resolve", "--plain-http", reference]))?;
        let hex = digest.trim().strip_prefix("sha256:").unwrap_or_default();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": self.image(number), "digest": { "sha256": hex } }],
            "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
            "predicate": {
                "result": "PASSED",
                "configuration": [{ "name": "basic" }],
                "io.dockerutils.stack": { "kind": "basic", "tests": 3, "failures": 0, "finishedOn": "2026-10-01T10:00:00Z" },
            },
        });
        let file = self.root.join("verdict.json");
        fs::write(&file, statement.to_string()).map_err(Error::file(&file))?;
        let mut attach = self.oras()?;
        attach.args(["attach", "--plain-http", "--artifact-type", ARTIFACT_TYPE, reference]);
        attach.args(["--annotation", "io.dockerutils.stack.tests=basic"]);
        attach.args(["--annotation", "io.dockerutils.stack.result=passed"]);
        process::capture(attach.arg("verdict.json:application/vnd.in-toto+json"))?;
        Ok(())
    }

    fn measure(&self) -> Result<Vec<Comparison>, Error> {
        let (mut promoted, mut pushed) = (Samples::default(), Samples::default());
        let (mut planned, mut inspected) = (Samples::default(), Samples::default());
        for run in 0..self.setting.runs {
            // New tags: what is there already would not be moved.
            let to = |side: &str| format!("2026.3-{side}-{run}");
            promoted.push(time(self.ours("tag-stack").args([FROM, &to("ours")]))?);
            pushed.push(self.pull_tag_push(&to("theirs"))?);
            planned.push(time(&mut self.ours("plan-stack"))?);
            inspected.push(self.inspect()?);
        }
        let plan = process::capture_text(self.ours("plan-stack").arg("--json"))?;
        let plan: Value = serde_json::from_str(&plan).map_err(failed)?;
        let images = plan.get("images").and_then(Value::as_array);
        let is_unchanged = images.is_some_and(|images| {
            images.len() == IMAGES
                && images
                    .iter()
                    .all(|image| image.get("action") == Some(&json!("nothing")))
        });
        if !is_unchanged {
            return Err(failed(format!("something is to be done: {plan}")));
        }
        let (built, looped) = self.one_leaf_changed()?;
        // A limit is a ratio: that at which ours takes the longest that it may.
        let limit = |most: Duration, peer: &Samples| Some(most.as_secs_f64() / peer.median().as_secs_f64());
        Ok(vec![
            Comparison {
                what: "promotion of eight, 2 s".to_owned(),
                limit: limit(PROMOTION, &pushed),
                ours: promoted,
                peer: pushed,
                memory: None,
            },
            Comparison {
                what: "plan, nothing changed, 1 s".to_owned(),
                limit: limit(PLAN, &inspected),
                ours: planned,
                peer: inspected,
                memory: None,
            },
            Comparison {
                what: "one leaf changed".to_owned(),
                limit: Some(0.3),
                ours: built,
                peer: looped,
                memory: None,
            },
        ])
    }

    /// Building and pushing what one changed file makes stale, beside a loop of docker build and docker push over all.
    fn one_leaf_changed(&self) -> Result<(Samples, Samples), Error> {
        let (mut ours, mut theirs) = (Samples::default(), Samples::default());
        // Nothing of it is measured before each side has built all once.
        self.build_and_push_all()?;
        for run in 0..self.setting.runs {
            self.change(&format!("ours {run}"))?;
            ours.push(time(&mut self.build())?);
            self.change(&format!("theirs {run}"))?;
            theirs.push(self.build_and_push_all()?);
        }
        Ok((ours, theirs))
    }

    /// Changes a file of the last image.
    fn change(&self, text: &str) -> Result<(), Error> {
        let file = self.root.join(format!("images/image-{}/file", IMAGES - 1));
        fs::write(&file, text).map_err(Error::file(&file))
    }

    fn build_and_push_all(&self) -> Result<Duration, Error> {
        let began = Instant::now();
        for number in 0..IMAGES {
            let reference = format!("{}:{LOOP}", self.image(number));
            let mut build = self.engine.docker();
            build.args(["build", "--quiet", "--tag", &reference]);
            build.args(["--build-arg", &format!("BASE_TAG={LOOP}")]);
            build.arg(self.root.join(format!("images/image-{number}")));
            process::capture(&mut build)?;
            process::capture(self.engine.docker().args(["push", "--quiet", &reference]))?;
        }
        Ok(began.elapsed())
    }

    fn build(&self) -> Command {
        let mut build = self.ours("build-stack");
        build.arg("--no-test");
        build
    }

    /// A loop of docker pull, tag and push, on an engine that has no such image.
    fn pull_tag_push(&self, tag: &str) -> Result<Duration, Error> {
        self.forget()?;
        let began = Instant::now();
        for number in 0..IMAGES {
            let image = self.image(number);
            let (from, to) = (format!("{image}:{FROM}"), format!("{image}:{tag}"));
            process::capture(self.engine.docker().args(["pull", "--quiet", &from]))?;
            process::capture(self.engine.docker().args(["tag", &from, &to]))?;
            process::capture(self.engine.docker().args(["push", "--quiet", &to]))?;
        }
        Ok(began.elapsed())
    }

    fn inspect(&self) -> Result<Duration, Error> {
        let began = Instant::now();
        for number in 0..IMAGES {
            let reference = format!("{}:{FROM}", self.image(number));
            let mut inspect = self.engine.docker();
            process::capture(inspect.args(["manifest", "inspect", "--insecure", &reference]))?;
        }
        Ok(began.elapsed())
    }

    /// Removes the images from the engine.
    fn forget(&self) -> Result<(), Error> {
        let filter = format!("--filter=reference={}/*/*", self.address);
        let format = "--format={{.Repository}}:{{.Tag}}";
        let names = process::capture_text(self.engine.docker().args(["images", &filter, format]))?;
        for name in names.lines() {
            process::capture(self.engine.docker().args(["rmi", "--force", name]))?;
        }
        Ok(())
    }

    fn ours(&self, program: &str) -> Command {
        let mut command = self.setting.ours(program);
        command.current_dir(self.root).env("HOME", self.root);
        command.env("DOCKER_HOST", &self.engine.host);
        command
    }

    fn oras(&self) -> Result<Command, Error> {
        let mut command = Command::new(oras::program().map_err(failed)?);
        command.current_dir(self.root).env("HOME", self.root);
        Ok(command)
    }
}
