//! The real `test-stack` in a sandbox, with a scripted engine and a program that plays pytest: help, suites in all their outcomes,
//! and each error with its hint.

use std::fs::{self, File};

use dockerutils_core::agent::paths::state_directory;
use dockerutils_core::env::Env;
use dockerutils_test_support::{Invocation, Reply, Sandbox, ScriptedEngine, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

const SPEC: &str = "tag: {prefix: 1.10}\nimages:\n  base: {image_name: r.example/t/base, integration_tests: true}\n  leaf: \
                    {image_name: r.example/t/leaf, depend_on: base}\n";
/// Plays pytest: says what it was given, writes a JUnit file, and ends as the file `code` says.
const PYTEST: &str = r#"#!/bin/sh
echo "pytest in $(pwd) for $TEST_IMAGE by $DOCKER_HOST: $*"
for word; do case "$word" in --junitxml=*) file=${word#--junitxml=};; esac; done
code=$(cat code)
case "$code" in
1) inside='<testcase classname="t" name="good"/><testcase classname="t" name="bad"><failure message="1 == 2">x</failure></testcase>';;
0) inside='<testcase classname="t" name="good"/>';;
esac
mkdir -p "$(dirname "$file")"
echo "<testsuites><testsuite>$inside</testsuite></testsuites>" > "$file"
exit "$code"
"#;

/// A stack of two images on branch main, with tests for pytest, which ends with this code.
fn stack(code: &str) -> Sandbox {
    let sandbox = Sandbox::new()
        .file("images/spec.yml", SPEC)
        .file("images/base/Dockerfile", "FROM scratch\n")
        .file(
            "images/leaf/Dockerfile",
            "ARG BASE_TAG\nFROM r.example/t/base:$BASE_TAG\n",
        )
        .file("images/tests_common/test_all.py", "")
        .file("images/leaf/test/test_leaf.py", "")
        .file("images/base/integration_tests/test_page.py", "")
        .file("images/base/manual_tests/look.ipynb", "")
        .file("code", code)
        .script("bin/pytest", PYTEST);
    sandbox.shell("git init -q -b main; git add -A; git -c user.name=a -c user.email=a@b commit -qm first");
    sandbox
}

/// An engine with both images.
fn engine() -> ScriptedEngine {
    let image = |id: &str| {
        Reply::json(
            200,
            &json!({ "Id": id, "Os": "linux", "Architecture": "amd64", "RepoDigests": [] }),
        )
    };
    ScriptedEngine::start()
        .on("GET", "/info", Reply::json(200, &json!({ "ID": "the-engine" })))
        .on("GET", "/images/r.example/t/base:1.10-main/json", image("sha256:1"))
        .on("GET", "/images/r.example/t/leaf:1.10-main/json", image("sha256:2"))
}

fn test_stack(sandbox: &Sandbox) -> Invocation<'_> {
    let path = format!("{}:/usr/bin:/bin", sandbox.project().join("bin").display());
    sandbox.command("test-stack").env("PATH", path)
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    test_stack(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    test_stack(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn suites_run_and_are_listed() {
    let (sandbox, engine) = (stack("0"), engine());
    let outcome = test_stack(&sandbox)
        .engine(&engine)
        .any_stdout()
        .stderr_has("for r.example/t/leaf:1.10-main by unix://")
        .stderr_has("base: to be looked at by a person: [SANDBOX]/sample/images/base/manual_tests/look.ipynb")
        .run();
    let lines: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        &lines[1][..5],
        ["base", "r.example/t/base:1.10-main", "basic", "1", "test"]
    );
    assert_eq!(&lines[2][2..5], ["integration", "1", "test"]);
    assert_eq!(&lines[3][..3], ["leaf", "r.example/t/leaf:1.10-main", "basic"]);
    assert_eq!(&lines[4][2..], ["integration", "no", "tests", "-"]);
    let log = sandbox.read("logs/r.example-t-leaf-1.10-main.basic-tests.log");
    assert!(log.contains("images/tests_common images/leaf/test\n"), "{log}");
    assert!(
        !sandbox
            .read("artifacts/r.example-t-base-1.10-main.integration-tests.xml")
            .is_empty()
    );
}

#[test]
fn a_failure_names_the_image_the_kind_and_the_log() {
    let (sandbox, engine) = (stack("1"), engine());
    let said = test_stack(&sandbox)
        .engine(&engine)
        .args(["--only", "leaf", "--kind", "basic", "--artifacts", "results", "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("------\n > leaf: pytest images/tests_common images/leaf/test:\n| pytest in ")
        .stderr_has(
            "test-stack: the basic tests of leaf (r.example/t/leaf:1.10-main): 1 of 2 tests failed\n\nhint: all that they printed \
             is in [SANDBOX]/sample/results/logs/r.example-t-leaf-1.10-main.basic-tests.log",
        )
        .run()
        .json();
    assert_eq!(said["tag"], Value::Null);
    let image = &said["images"][0];
    assert_eq!((&image["image"], &image["digest"]), (&json!("leaf"), &Value::Null));
    let suite = &image["suites"][0];
    assert_eq!((&suite["verdict"], &suite["kind"]), (&json!("failed"), &json!("basic")));
    assert_eq!((&suite["tests"], &suite["failures"]), (&json!(2), &json!(1)));
    assert_eq!(suite["failed"], json!([{ "name": "t::bad", "message": "1 == 2" }]));
    assert!(suite["error"].as_str().unwrap().ends_with("1 of 2 tests failed"));
    assert_eq!(suite["junit"].as_array().unwrap().len(), 1);
}

#[test]
fn no_tests_are_good_and_another_end_of_pytest_is_not() {
    let engine = engine();
    for (code, status, says) in [
        ("5", 0, ""),
        ("2", 1, "pytest: exit code 2"),
        ("4", 1, "pytest: exit code 4"),
    ] {
        let sandbox = stack(code);
        test_stack(&sandbox)
            .engine(&engine)
            .args(["--only", "leaf", "--kind", "basic"])
            .code(status)
            .any_stdout()
            .stderr_has(says)
            .run();
    }
}

#[test]
fn executable_files_are_tests_too() {
    let engine = engine();
    let sandbox = stack("0")
        .script("images/leaf/test/b good", "#!/bin/sh\necho \"$TEST_IMAGE $(pwd)\"\n")
        .script("images/leaf/test/c bad", "#!/bin/sh\necho because >&2\nexit 7\n")
        .script("images/leaf/test/d lost", "#!/nonexistent/interpreter\n");
    let said = test_stack(&sandbox)
        .engine(&engine)
        .args(["--only", "leaf", "--kind", "basic", "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("------\n > leaf: images/leaf/test/c bad:\n| because\n------")
        .run()
        .json();
    let suite = &said["images"][0]["suites"][0];
    assert_eq!((&suite["tests"], &suite["failures"]), (&json!(4), &json!(2)));
    assert_eq!(
        suite["failed"][0],
        json!({ "name": "images/leaf/test/c bad", "message": "exit code 7" })
    );
    assert!(
        suite["failed"][1]["message"]
            .as_str()
            .unwrap()
            .contains("can't be started")
    );
    let junit = sandbox.read("artifacts/r.example-t-leaf-1.10-main.basic-tests.programs.xml");
    assert!(junit.contains("tests=\"3\""), "{junit}");
    assert!(
        junit.contains("<failure message=\"exit code 7\">because</failure>"),
        "{junit}"
    );
    let log = sandbox.read("logs/r.example-t-leaf-1.10-main.basic-tests.log");
    let project = sandbox.project().display();
    assert!(
        log.contains(&format!(
            "$ images/leaf/test/b good\nr.example/t/leaf:1.10-main {project}\n"
        )),
        "{log}"
    );
}

#[test]
fn what_can_not_be_tested_is_said_and_the_others_are_tested() {
    let sandbox = stack("0");
    let engine = ScriptedEngine::start()
        .on("GET", "/info", Reply::json(200, &json!({ "ID": "the-engine" })))
        .on(
            "GET",
            "/images/r.example/t/base:1.10-main/json",
            Reply::error(404, "No such image"),
        )
        .on(
            "GET",
            "/images/r.example/t/leaf:1.10-main/json",
            Reply::json(200, &json!({ "Id": "sha256:2" })),
        );
    let said = test_stack(&sandbox)
        .engine(&engine)
        .args(["--json", "--kind", "basic"])
        .code(1)
        .any_stdout()
        .stderr_has(
            "has no image r.example/t/base:1.10-main\n\nhint: build it: build-stack base --no-push; or name a tag",
        )
        .run()
        .json();
    assert!(said["images"][0]["error"].as_str().unwrap().contains("has no image"));
    assert_eq!(said["images"][1]["suites"][0]["verdict"], "passed");
    // Without pytest.
    let sandbox = sandbox.symlink("only/git", "/usr/bin/git");
    let said = sandbox
        .command("test-stack")
        .env("PATH", sandbox.project().join("only"))
        .engine(&engine)
        .args(["--json", "--only", "leaf", "--kind", "basic"])
        .code(1)
        .any_stdout()
        .stderr_has("test-stack: there is neither pytest nor python3 on PATH\n\nhint: install it")
        .run()
        .json();
    let suite = &said["images"][0]["suites"][0];
    assert_eq!(
        (&suite["verdict"], &suite["kind"]),
        (&json!("not_run"), &json!("basic"))
    );
}

#[test]
fn wrong_usage_is_code_2() {
    let sandbox = stack("0");
    test_stack(&sandbox)
        .args(["--kind", "manual"])
        .code(2)
        .stderr_has("[possible values: basic, integration, workflow]")
        .run();
    test_stack(&sandbox)
        .args(["--only", "leav"])
        .code(2)
        .stderr_has("there is no image \"leav\"\n\nhint: did you mean leaf?")
        .run();
    test_stack(&sandbox)
        .arg("r.example/t/base:1")
        .code(2)
        .stderr_has("\"r.example/t/base:1\" can't be a tag")
        .run();
    sandbox.shell("git switch -q --detach");
    test_stack(&sandbox)
        .code(2)
        .stderr_has("is not known: HEAD is on none")
        .run();
    // A tag is known without a branch.
    test_stack(&sandbox)
        .args(["--dry-run", "--only", "leaf", "--kind", "workflow", "-g", "1.10-x"])
        .stdout(
            "docker pull r.example/t/leaf:1.10-x\ndocker run --rm --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all --label \
             io.dockerutils.project=sample --label io.dockerutils.user=tester r.example/t/leaf:1.10-x pytest \
             --junitxml=/tmp/dockerutils-workflow-tests.xml /opt/workflow_tests\n",
        )
        .run();
}

#[test]
fn ctrl_c_lets_tests_clean_up_and_ends_them() {
    let (sandbox, engine) = (stack("0"), engine());
    sandbox.write(
        "bin/pytest",
        "#!/bin/sh\ntrap 'echo removed > cleaned; exit 2' INT\necho ready\necho $$ > group\nwhile :; do sleep 0.05; done\n",
    );
    let running = test_stack(&sandbox)
        .engine(&engine)
        .args(["--only", "leaf", "--kind", "basic"])
        .code(130)
        .any_stderr()
        .spawn();
    running.wait_for_stderr("ready");
    running.interrupt();
    running.wait();
    assert_eq!(sandbox.read("cleaned"), "removed\n");
    let group = sandbox.read("group");
    wait::until("the tests have ended", || {
        !std::path::Path::new("/proc").join(group.trim()).exists()
    });
}

/// Its first run lasts as long as the file `second` is there, which it makes; the next ends at once.
const LASTING: &str =
    "#!/bin/sh\necho began $$\n[ -e second ] && exit 0\ntouch second\nwhile [ -e second ]; do sleep 0.05; done\n";

fn lasting<'s>(sandbox: &'s Sandbox, engine: &ScriptedEngine) -> Invocation<'s> {
    test_stack(sandbox)
        .engine(engine)
        .args(["--only", "leaf", "--kind", "basic"])
        .any_stdout()
        .any_stderr()
}

#[test]
fn suites_on_an_engine_wait_for_each_other_and_a_kill_lets_go() {
    let (sandbox, engine) = (stack("0").script("bin/pytest", LASTING), engine());
    let first = lasting(&sandbox, &engine).code(-9).spawn();
    first.wait_for_stderr("began");
    let second = lasting(&sandbox, &engine).spawn();
    second.wait_for_stderr("waiting for other tests on this engine");
    first.signal(Signal::KILL);
    first.wait();
    second.wait();
    fs::remove_file(sandbox.project().join("second")).unwrap();
}

#[test]
fn tests_of_a_killed_run_clean_up_and_end_before_the_next_may_begin() {
    let (sandbox, engine) = (stack("0"), engine());
    sandbox.write(
        "bin/pytest",
        "#!/bin/sh\ntrap 'touch asked; while [ ! -e go ]; do sleep 0.05; done; echo removed > cleaned; exit 2' INT\n\
         sleep 600 &\necho $! > child\necho ready\nwhile :; do sleep 0.05; done\n",
    );
    let running = lasting(&sandbox, &engine).code(-9).spawn();
    running.wait_for_stderr("ready");
    running.signal(Signal::KILL);
    running.wait();
    wait::until("the tests are asked to end", || {
        sandbox.project().join("asked").exists()
    });
    let env = Env::from_pairs([("HOME", sandbox.home().to_str().unwrap())]);
    let mut locks = fs::read_dir(state_directory(&env).join("stack-tests")).unwrap();
    let lock = File::open(locks.next().unwrap().unwrap().path()).unwrap();
    assert!(lock.try_lock().is_err(), "the next may not begin");
    sandbox.write("go", "");
    wait::until("the next may begin", || lock.try_lock().is_ok());
    assert_eq!(sandbox.read("cleaned"), "removed\n");
    let child = sandbox.read("child");
    wait::until("what the tests left has ended", || {
        !std::path::Path::new("/proc").join(child.trim()).exists()
    });
}

#[test]
fn suites_run_side_by_side_where_the_spec_says_so() {
    let (sandbox, engine) = (stack("0").script("bin/pytest", LASTING), engine());
    sandbox.write("images/spec.yml", format!("parallel: true\n{SPEC}"));
    let first = lasting(&sandbox, &engine).spawn();
    first.wait_for_stderr("began");
    wait::until("the first suite runs", || sandbox.project().join("second").exists());
    lasting(&sandbox, &engine).run();
    fs::remove_file(sandbox.project().join("second")).unwrap();
    first.wait();
}
