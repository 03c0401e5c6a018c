//! Stacks on docks: a public suite with its port and mounts on one that ssh reaches, a link that breaks in the middle of a build, and
//! an engine that has nothing, which takes its cache from the registry.

use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{SlowLink, free_port, wait};
use dockerutils_tests::python;
use serde_json::Value;

use crate::any_tool::Docked;
use crate::build_stack::site::{Site, statuses, write_root};
use crate::test_stack::{suites, write_public};

/// What the link takes.
const DELAY: Duration = Duration::from_millis(5);
/// How long a step of a build sleeps in vain, in seconds: a name by which it is found.
const FIRST: &str = "317.0411";
const SECOND: &str = "317.0412";

/// Writes a stack of two images with the suite in the public form.
fn write_stack(docked: &Docked, address: &str) {
    let sandbox = docked.home.sandbox();
    write_public(sandbox, &format!("{address}/base"), free_port().unwrap());
    for (path, text) in [
        (
            "images/spec.yml",
            format!(
                "tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {address}/base}}\n  leaf: {{image_name: {address}/leaf, \
                 depend_on: base}}\n"
            ),
        ),
        (
            "images/base/Dockerfile",
            "FROM scratch\nADD root.tar /\nCOPY page /www/index.html\nCMD [\"httpd\", \"-f\", \"-p\", \"8888\", \"-h\", \"/www\"]\n"
                .to_owned(),
        ),
        // What the suite makes is no change of the suite.
        (
            ".gitignore",
            "/images/base/test/out/made\n/artifacts\n/logs\n/manifests\n/*.json\n".to_owned(),
        ),
    ] {
        sandbox.write(path, text);
    }
    write_root(&docked.engine, sandbox);
    write_leaf(docked, address, FIRST);
    sandbox.shell("git switch -q -c main");
    sandbox.commit("first");
}

/// Has the build of the second image wait, the first time that this step runs.
fn write_leaf(docked: &Docked, address: &str, wait: &str) {
    let step = format!(
        "RUN --mount=type=cache,id={},target=/seen if [ ! -e /seen/{wait} ]; then touch /seen/{wait}; sleep {wait}; fi; true",
        docked.mark
    );
    let text = format!("ARG BASE_TAG\nFROM {address}/base:$BASE_TAG\n{step}\n");
    docked.home.sandbox().write("images/leaf/Dockerfile", text);
}

/// Waits until the step runs on the dock.
fn wait_for_step(docked: &Docked, wait: &str) {
    let script = format!("pgrep -x -f 'sleep {wait}'");
    wait::until("the build waits", || !docked.there(&script).is_empty());
}

#[test]
fn on_a_dock_a_stack_is_built_tested_and_pushed_and_goes_on_after_a_broken_link() {
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let link = SlowLink::start(ssh.address, DELAY, None).unwrap();
    let docked = Docked::at("build-stack", Some(link.address()));
    let registry = Registry::on(&docked.engine).shared().start().unwrap();
    let address = registry.address();
    write_stack(&docked, address);
    let tools = python::CONTAINER_TOOLS.commands().unwrap();
    let build = |file: &str, words: &str| {
        let script = format!(
            "source dock far >/dev/null 2>&1\nexport PATH=\"{}:$PATH\"\nsync-up -q\nexec build-stack {words} --json > {file}",
            tools.display()
        );
        let words = ["--norc", "--noprofile", "-c", &script];
        docked.program("bash").args(words).spawn()
    };
    let read = |file: &str| -> Value {
        let text = docked.read(file);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{file}: {text}"))
    };

    // A build goes on by itself.
    let running = build("first.json", "");
    wait_for_step(&docked, FIRST);
    link.drop_connections();
    let first = running.wait();
    assert_eq!(first.code, 0, "{first}");
    let said = read("first.json");
    assert_eq!(statuses(&said), ["base built", "leaf built"], "{first}");
    // Its server answers on localhost, and folders of this machine are mounted there.
    assert_eq!(
        suites(&said),
        ["basic passed 0/4", "integration no_tests 0/0"],
        "{first}"
    );
    assert_eq!(docked.read("images/base/test/out/made"), "made\n");
    let written = || registry.requests("PUT", "/manifests/1.10-main").len();
    wait::until("both are pushed", || written() == 2);

    // What comes after it does not: here the registry is silent, so that nothing ends before the link breaks.
    write_leaf(&docked, address, SECOND);
    let mut running = build("cut.json", "--no-test");
    wait_for_step(&docked, SECOND);
    let port = address.rsplit(':').next().unwrap();
    let signal = |name: &str| {
        docked.there(&format!(
            "kill -{name} $(ss -ltnpH 'sport = :{port}' | sed 's/.*pid=\\([0-9]*\\).*/\\1/')"
        ))
    };
    signal("STOP");
    docked.there(&format!("kill $(pgrep -x -f 'sleep {SECOND}')"));
    let log = format!("logs/{}-leaf-1.10-main.build.log", address.replace(':', "-"));
    wait::until("the image is built", || docked.read(&log).contains(SECOND));
    wait::until("build-stack has ended", || {
        link.drop_connections();
        running.has_ended()
    });
    signal("CONT");
    let cut = running.wait();
    assert_eq!(cut.code, 3, "{cut}");
    let said = read("cut.json");
    assert_eq!(statuses(&said), ["base unchanged", "leaf failed"], "{cut}");
    let error = said["images"][1]["error"].as_str().unwrap();
    assert!(
        error.contains("the connection to the engine of dock \"far\" was lost"),
        "{cut}"
    );
    for inside in ["chunk size", "unexpected EOF", "unix://", "hyper", "tonic", "h2"] {
        assert!(!error.contains(inside), "{inside}: {cut}");
    }
    assert!(cut.stderr.contains("1 of 2 images failed: leaf"), "{cut}");

    // The dock is reached again, and what is done is not done twice.
    let again = build("again.json", "").wait();
    assert_eq!(again.code, 0, "{again}");
    let said = read("again.json");
    assert_eq!(statuses(&said), ["base unchanged", "leaf built"], "{again}");
    let build = &said["images"][1]["build"];
    assert_eq!(build["steps"], build["cached_steps"], "{again}");
    assert_eq!(said["images"][1]["suites"][0]["verdict"], "passed", "{again}");
}

/// An engine on which a test leaves no image of a registry.
struct Cleaned<'e> {
    engine: &'e LabEngine,
    address: String,
}

impl Drop for Cleaned<'_> {
    fn drop(&mut self) {
        let script =
            "docker images --format '{{.Repository}}:{{.Tag}}' | grep -F \"$ADDRESS\" | xargs -r docker rmi -f";
        let mut shell = std::process::Command::new("sh");
        // What is left is removed with the lab.
        let _ = shell
            .args(["-c", script])
            .env("DOCKER_HOST", &self.engine.host)
            .env("ADDRESS", &self.address)
            .output();
    }
}

#[test]
fn an_engine_that_has_nothing_takes_its_cache_from_the_registry() {
    // Of one version: the cache of another's BuildKit has other keys.
    let site = Site::new(&lab::engine("20").unwrap());
    let other = lab::engine("local").unwrap();
    let address = site.registry.address().to_owned();
    let _cleaned = Cleaned {
        engine: &other,
        address: address.clone(),
    };
    // Whoever runs the step again has another number.
    let leaf = site.sandbox.read("images/leaf/Dockerfile");
    let numbered = leaf.replace("COPY ", "RUN cat /proc/sys/kernel/random/uuid > /number\nCOPY ");
    site.sandbox.write("images/leaf/Dockerfile", numbered);
    site.build(&[]);
    let reference = site.reference("leaf", "1.10-main");
    let printed = |engine: &LabEngine| {
        let command = ["run", "--rm", &reference, "cat", "/number", "/own"];
        capture_text(engine.docker().args(command)).unwrap()
    };
    let before = printed(&site.engine);
    site.sandbox.write("images/leaf/file", format!("changed {address}"));
    let built = site
        .command()
        .env("DOCKER_HOST", &other.host)
        .arg("--json")
        .run()
        .json();
    let expected = ["base unchanged", "mid unchanged", "side unchanged", "leaf built"];
    assert_eq!(statuses(&built), expected, "{built}");
    // RUN is, and COPY is not.
    assert_eq!(built["images"][3]["build"]["cached_steps"], 1, "{built}");
    let number = before.lines().next().unwrap();
    assert_eq!(printed(&other), format!("{number}\nchanged {address}"), "{built}");
    // What its parents are made from came with them: nothing of it is built or fetched but by them.
    let all = site
        .command()
        .env("DOCKER_HOST", &other.host)
        .args(["--json", "--all"])
        .run()
        .json();
    let parents = all["images"].as_array().unwrap().iter().take(3);
    for image in parents {
        assert_eq!(image["build"]["cached_steps"], image["build"]["steps"], "{all}");
    }
}
