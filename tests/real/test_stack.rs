//! `test-stack` with pytest and docker's SDK from PyPI, on a dock and on engines that are near: a suite in the form that public stacks
//! have, unchanged; what is at a tag in a registry; tests in an image; and that an interruption leaves nothing behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dockerutils_stack::suites::TestKind;
use dockerutils_stack::verdicts;
use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Invocation, Sandbox, free_port};
use dockerutils_tests::python;
use serde_json::{Value, json};

use crate::any_tool::{Docked, IMAGE};

/// Writes a stack of one image, with a suite in the public form whose port is this.
pub(crate) fn write_public(sandbox: &Sandbox, repository: &str, port: u16) {
    let of_port = |text: &str| text.replace("@PORT@", &port.to_string());
    let files = [
        (
            "images/spec.yml",
            format!("tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {repository}}}\n"),
        ),
        (
            "images/base/Dockerfile",
            format!(
                "FROM {IMAGE}\nCOPY page /www/index.html\nCMD [\"httpd\", \"-f\", \"-p\", \"8888\", \"-h\", \"/www\"]\n"
            ),
        ),
        ("images/base/page", "a page\n".to_owned()),
        ("images/conftest.py", of_port(include_str!("test_stack/conftest.py"))),
        (
            "images/tests_common/test_page.py",
            of_port(include_str!("test_stack/test_page.py")),
        ),
        (
            "images/base/test/test_data.py",
            include_str!("test_stack/test_data.py").to_owned(),
        ),
        ("images/base/test/data/in", "in\n".to_owned()),
        ("images/base/test/out/.keep", String::new()),
    ];
    for (path, text) in files {
        sandbox.write(path, text);
    }
}

/// The suites of the only image in a document.
pub(crate) fn suites(document: &Value) -> Vec<String> {
    let suites = document["images"][0]["suites"].as_array().unwrap().iter();
    suites
        .map(|suite| {
            format!(
                "{} {} {}/{}",
                suite["kind"].as_str().unwrap(),
                suite["verdict"].as_str().unwrap(),
                suite["failures"],
                suite["tests"]
            )
        })
        .collect()
}

#[test]
fn a_public_suite_runs_unchanged_on_a_dock() {
    let docked = Docked::new("stack");
    let sandbox = docked.home.sandbox();
    let reference = format!("{}:1.10-main", docked.mark);
    write_public(sandbox, &docked.mark, free_port().unwrap());
    let python = python::CONTAINER_TOOLS.commands().unwrap();
    let script = format!(
        "export PATH=\"{}:$PATH\"\ngit switch -q -c main\nsync-up -q\ndocker build -q -t {reference} images/base >&2\n\
         test-stack --json 2>said; code=$?; cat said >&2; docker rmi -f {reference} >&2; exit $code",
        python.display()
    );
    let said = docked.bash(&script);
    // Both streams are one.
    let document = said.stdout.find("\n{\n").map_or("", |begin| &said.stdout[begin..]);
    let document = document.rfind("\n}\n").map_or("", |end| &document[..end + 3]);
    let document: Value = serde_json::from_str(document).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(
        suites(&document),
        ["basic passed 0/4", "integration no_tests 0/0"],
        "{said}"
    );
    assert_eq!(docked.read("images/base/test/out/made"), "made\n");
    let log = docked.read(&format!("logs/{}-1.10-main.basic-tests.log", docked.mark));
    assert!(log.contains("4 passed"), "{log}");
    assert_eq!(docked.there("docker ps -aq --filter name=any-tool-stack"), "", "{said}");
}

/// A stack in a sandbox, an engine, and Python's packages on PATH.
struct NearStack {
    sandbox: Sandbox,
    engine: LabEngine,
    path: String,
    /// In the names of all that the test makes.
    mark: String,
}

impl NearStack {
    fn new(engine: &LabEngine, test: &str) -> Self {
        let tools = python::CONTAINER_TOOLS.commands().unwrap();
        let machine = std::env::var("PATH").unwrap_or_default();
        Self {
            sandbox: Sandbox::new(),
            engine: engine.clone(),
            path: format!("{}:{machine}", tools.display()),
            mark: format!("{}-stack-{test}", lab::mark().unwrap()),
        }
    }

    fn commit(&self) {
        self.sandbox.shell("git init -q -b main");
        self.sandbox.commit("first");
    }

    fn docker(&self, arguments: &[&str]) -> String {
        capture_text(self.engine.docker().args(arguments)).unwrap()
    }

    fn build(&self, reference: &str) {
        let context = self.sandbox.project().join("images/base").display().to_string();
        self.docker(&["build", "-q", "-t", reference, &context]);
    }

    fn test_stack(&self) -> Invocation<'_> {
        self.sandbox
            .command("test-stack")
            .env("DOCKER_HOST", &self.engine.host)
            .env("PATH", &self.path)
            .env("MARK", &self.mark)
            .any_stdout()
            .any_stderr()
            .limit(Duration::from_secs(180))
    }
}

impl Drop for NearStack {
    fn drop(&mut self) {
        let script = "docker ps -aq --filter name=\"$MARK\" | xargs -r docker rm -fv\n\
                      docker images -q --filter reference=\"$MARK*\" | sort -u | xargs -r docker rmi -f";
        let mut shell = std::process::Command::new("sh");
        // What is left is removed with the lab.
        let _ = shell
            .args(["-c", script])
            .env("DOCKER_HOST", &self.engine.host)
            .env("MARK", &self.mark)
            .output();
    }
}

#[test]
fn a_public_suite_runs_on_this_machine_s_engine_and_says_what_fails() {
    let near = NearStack::new(&lab::engine("local").unwrap(), "public");
    let repository = near.mark.clone();
    write_public(&near.sandbox, &near.mark, free_port().unwrap());
    near.commit();
    let reference = format!("{repository}:1.10-main");
    near.build(&reference);
    let outcome = near.test_stack().arg("--json").run();
    assert_eq!(suites(&outcome.json())[0], "basic passed 0/4", "{outcome}");
    // No compiled file is in the context of the next build, and none of pytest's own.
    near.sandbox
        .shell("! find images -name '__pycache__' -o -name '.pytest_cache' | grep .");
    near.sandbox.write("images/base/page", "another\n");
    near.build(&reference);
    let outcome = near.test_stack().args(["--json", "--kind", "basic"]).code(1).run();
    let suite = outcome.json()["images"][0]["suites"][0].clone();
    assert_eq!(
        (&suite["tests"], &suite["failures"]),
        (&json!(4), &json!(1)),
        "{outcome}"
    );
    let name = suite["failed"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        name,
        "images.tests_common.test_page::test_the_server_answers_on_localhost"
    );
    assert!(
        outcome.stderr.contains("test-stack: the basic tests of base"),
        "{outcome}"
    );
    assert_eq!(
        near.docker(&["ps", "-aq", "--filter", &format!("name={}-tracked", near.mark)]),
        ""
    );
}

#[test]
fn an_interruption_removes_the_container_of_the_test_that_runs() {
    let near = NearStack::new(&lab::engine("local").unwrap(), "cut");
    let repository = near.mark.clone();
    write_public(&near.sandbox, &near.mark, free_port().unwrap());
    let test = "import time\n\ndef test_it_hangs(container):\n    container.run()\n    print('hanging', flush=True)\n    time.sleep(600)\n";
    near.sandbox.write("images/base/test/test_data.py", test);
    fs::remove_file(near.sandbox.project().join("images/tests_common/test_page.py")).unwrap();
    near.sandbox.write("pytest.ini", "[pytest]\naddopts = -s\n");
    near.commit();
    let reference = format!("{repository}:1.10-main");
    near.build(&reference);
    let running = near.test_stack().code(130).spawn();
    running.wait_for_stderr("hanging");
    let filter = format!("name={}-tracked", near.mark);
    assert_ne!(near.docker(&["ps", "-q", "--filter", &filter]), "");
    running.interrupt();
    running.wait();
    assert_eq!(near.docker(&["ps", "-aq", "--filter", &filter]), "");
}

/// A suite that asks the image what it is: without ports and mounts, it runs wherever the engine is.
const ASKS: &str = "import os\n\nimport docker\n\ndef test_what_it_is():\n    client = docker.from_env()\n    said = \
                    client.containers.run(os.environ['TEST_IMAGE'], ['cat', '/page'], remove=True)\n    assert said == b'a page\\n'\n";

#[test]
fn what_is_at_a_tag_is_pulled_tested_and_told_to_the_registry() {
    for name in ["20", "28-containerd"] {
        at_a_tag(&lab::engine(name).unwrap());
    }
}

fn at_a_tag(engine: &LabEngine) {
    let near = NearStack::new(engine, "tag");
    let registry = Registry::on(engine).shared().start().unwrap();
    let repository = format!("{}/base", registry.address());
    let spec = format!("tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {repository}}}\n");
    near.sandbox.write("images/spec.yml", spec);
    near.sandbox
        .write("images/base/Dockerfile", format!("FROM {IMAGE}\nCOPY page own /\n"));
    near.sandbox.write("images/base/page", "a page\n");
    near.sandbox.write("images/base/own", registry.address());
    near.sandbox.write("images/base/test/test_what.py", ASKS);
    near.commit();
    let reference = format!("{repository}:1.10-good");
    near.build(&reference);
    near.docker(&["push", &reference]);
    near.sandbox.write("images/base/page", "another\n");
    let bad = format!("{repository}:1.10-bad");
    near.build(&bad);
    near.docker(&["push", &bad]);
    // What the engine has under the tag is not what the registry has there.
    near.docker(&["tag", &bad, &reference]);
    for (tag, code, says) in [
        ("1.10-good", 0, "basic passed 0/1"),
        ("1.10-bad", 1, "basic failed 1/1"),
    ] {
        let outcome = near.test_stack().args(["--json", tag]).code(code).run();
        let document = outcome.json();
        assert_eq!(suites(&document)[0], says, "{} {outcome}", engine.name);
        let image = &document["images"][0];
        let digest = image["digest"].as_str().unwrap();
        let text = fs::read_to_string(near.sandbox.project().join(format!(
            "logs/{}-{tag}.basic-tests.log",
            repository.replace(['/', ':'], "-")
        )));
        assert!(
            text.is_ok_and(|text| text.contains(if code == 0 { "1 passed" } else { "1 failed" })),
            "{outcome}"
        );
        assert_eq!(image["verdicts"], 1, "{outcome}");
        let found = tokio::runtime::Runtime::new().unwrap().block_on(async {
            let client = registry_client::Registry::connect(
                registry.address(),
                registry_client::RegistryCredentials::Anonymous,
                registry_client::Options::default(),
            );
            let digest = registry_client::Digest::parse(digest).unwrap();
            verdicts::find(&client.await.unwrap(), "base", &digest, None)
                .await
                .unwrap()
        });
        let kinds: Vec<_> = found
            .newest
            .iter()
            .map(|found| (found.verdict.kind, found.verdict.passed, found.verdict.tests))
            .collect();
        assert_eq!(kinds, [(TestKind::Basic, code == 0, 1)], "{}", engine.name);
    }
    let before = registry.requests("PUT", "/manifests/").len();
    near.test_stack().args(["--no-verdict", "1.10-good"]).run();
    assert_eq!(registry.requests("PUT", "/manifests/").len(), before);
    let absent = near.test_stack().arg("1.10-gone").code(1).run();
    assert!(
        absent.stderr.contains("there is no") && absent.stderr.contains("in its registry"),
        "{absent}"
    );
}

/// Copies the packages of pytest, which are Python alone, into a folder of a context.
fn copy_pytest(commands: &Path, to: &Path) {
    let packages = fs::read_dir(commands.join("../lib"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("site-packages");
    fs::create_dir_all(to).unwrap();
    // With their metadata, which pytest asks for.
    let parts = [
        "_pytest",
        "pytest",
        "py.py",
        "pluggy",
        "iniconfig",
        "packaging",
        "pygments",
    ];
    for entry in fs::read_dir(&packages).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_part = parts.iter().any(|part| {
            let rest = name.strip_prefix(part);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('-') && rest.ends_with(".dist-info")))
        });
        if is_part {
            capture_text(std::process::Command::new("cp").arg("-r").arg(&path).arg(to)).unwrap();
        }
    }
}

#[test]
fn workflow_tests_run_in_the_image_by_its_own_pytest() {
    let near = NearStack::new(&lab::engine("local").unwrap(), "workflow");
    let parent = near.engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let repository = near.mark.clone();
    let spec = format!("tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {repository}}}\n");
    near.sandbox.write("images/spec.yml", spec);
    near.sandbox.write(
        "images/base/Dockerfile",
        format!(
            "FROM {parent}\nCOPY pytest /opt/pytest\nCOPY run-pytest /usr/local/bin/pytest\nCOPY workflow_tests \
             /opt/workflow_tests\n"
        ),
    );
    let wrapper =
        "#!/bin/sh\nPYTHONPATH=/opt/pytest exec /opt/jupyter/bin/python -m pytest -p no:cacheprovider \"$@\"\n";
    let wrapper = near.sandbox.write("images/base/run-pytest", wrapper);
    let context = near.sandbox.project().join("images/base");
    copy_pytest(&python::CONTAINER_TOOLS.commands().unwrap(), &context.join("pytest"));
    let test = "import jupyterlab\n\ndef test_it_has_jupyterlab():\n    assert jupyterlab.__version__\n\ndef test_bad():\n    assert 1 == 2\n";
    near.sandbox.write("images/base/workflow_tests/test_lab.py", test);
    let check = near.sandbox.write(
        "images/base/workflow_tests/check",
        "#!/bin/sh\ntest -d /opt/jupyter && echo there\n",
    );
    capture_text(std::process::Command::new("chmod").arg("755").args([&check, &wrapper])).unwrap();
    near.commit();
    let reference = format!("{repository}:1.10-main");
    near.build(&reference);
    let outcome = near.test_stack().args(["--json", "--kind", "workflow"]).code(1).run();
    let document = outcome.json();
    assert_eq!(suites(&document), ["workflow failed 1/3"], "{outcome}");
    let suite = &document["images"][0]["suites"][0];
    assert_eq!(suite["failed"][0]["name"], "test_lab::test_bad", "{outcome}");
    assert_eq!(suite["junit"].as_array().unwrap().len(), 2);
    let log = near
        .sandbox
        .read(&format!("logs/{repository}-1.10-main.workflow-tests.log"));
    assert!(
        log.contains("1 failed, 1 passed") && log.contains("$ /opt/workflow_tests/check\nthere\n"),
        "{log}"
    );
    // Interrupted, nothing is left.
    near.sandbox.write(
        "images/base/workflow_tests/test_lab.py",
        "import time\n\ndef test_it_hangs():\n    print('hanging', flush=True)\n    time.sleep(600)\n",
    );
    near.sandbox
        .write("images/base/workflow_tests/pytest.ini", "[pytest]\naddopts = -s\n");
    near.build(&reference);
    let running = near.test_stack().args(["--kind", "workflow"]).code(130).spawn();
    running.wait_for_stderr("hanging");
    running.interrupt();
    running.wait();
    assert_eq!(
        near.docker(&["ps", "-aq", "--filter", &format!("ancestor={reference}")]),
        ""
    );
}
