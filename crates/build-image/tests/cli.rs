//! The real `build-image` in a sandbox, against a scripted engine: help, plans, builds, and each error with its hint.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dockerutils_test_support::{Invocation, Reply, Sandbox, ScriptedEngine, binary, wait};
use rustix::process::Signal;
use serde_json::json;

const RULE: &str = "============================================================================\n";
const IMAGE: &str = "/images/sample-dev:tester/json";

fn project() -> Sandbox {
    Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\n")
}

fn configured(config: &str) -> Sandbox {
    project().file("docker/dockerutils.cfg", config)
}

fn build_image(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("build-image")
}

/// The classic builder, whose conversation can be scripted by hand.
fn classic<'a>(sandbox: &'a Sandbox, engine: &ScriptedEngine) -> Invocation<'a> {
    build_image(sandbox).engine(engine).env("DOCKER_BUILDKIT", "0")
}

/// An engine on which the image `dev` is built in two steps, one of them cached.
fn building() -> ScriptedEngine {
    let said = [
        json!({ "stream": "Step 1/3 : FROM scratch\n" }),
        json!({ "stream": " ---> 0123456789ab\n" }),
        json!({ "stream": "Step 2/3 : COPY a /a\n" }),
        json!({ "stream": " ---> Using cache\n" }),
        json!({ "stream": "Step 3/3 : RUN make\n" }),
        json!({ "stream": " ---> Running in 0123456789ab\n" }),
        json!({ "stream": "made it\n" }),
        json!({ "aux": { "ID": "sha256:4711" } }),
        json!({ "stream": "Successfully built 4711\n" }),
    ];
    ScriptedEngine::start().on("POST", "/build", Reply::stream(&said)).on(
        "GET",
        IMAGE,
        Reply::json(200, &json!({ "Id": "sha256:4711", "Size": 1_500_000 })),
    )
}

/// A command that mode bits stop, also where the tests run as root.
fn without_privileges(sandbox: &Sandbox) -> Invocation<'_> {
    let probe = sandbox.write("probe", "");
    fs::set_permissions(&probe, fs::Permissions::from_mode(0o000)).unwrap();
    let privileged = fs::read(&probe).is_ok();
    fs::remove_file(probe).unwrap();
    if privileged {
        sandbox
            .program("setpriv")
            .args(["--bounding-set", "-dac_override,-dac_read_search"])
            .arg(binary("build-image"))
    } else {
        build_image(sandbox)
    }
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    build_image(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    build_image(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
    build_image(&sandbox)
        .arg("--version")
        .stdout("build-image 3.0.0\n")
        .run();
}

#[test]
fn wrong_usage_is_code_2() {
    let sandbox = project();
    build_image(&sandbox)
        .code(2)
        .stderr_has("<IMAGE|all|clean>")
        .stderr_has("--help")
        .run();
    build_image(&sandbox)
        .args(["dev", "--force_build_bsae"])
        .code(2)
        .stderr_has("--force_build_base")
        .run();
    build_image(&sandbox)
        .args(["all", "-j", "0"])
        .code(2)
        .stderr_has("--jobs")
        .run();
    build_image(&sandbox)
        .args(["dev", "-q", "-v"])
        .code(2)
        .stderr_has("cannot be used with")
        .run();
}

#[test]
fn a_dry_run_prints_the_command_and_nothing_else() {
    let sandbox = configured("[dev]\nbuild_args = --build-arg 'A=b c' --no-cache\npre_build_script = ./pre.sh 'a b'\n");
    build_image(&sandbox)
        .args(["dev", "--dry-run"])
        .stdout(
            "./pre.sh 'a b'\n\
             docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile --build-arg 'A=b c' --no-cache .\n",
        )
        .run();
    build_image(&sandbox)
        .args(["dev", "-p", "-i", "other", "-t", "1.0", "--dry-run"])
        .stdout_has("docker build --pull --compress -t other:1.0 -f docker/dev/Dockerfile ")
        .run();
}

#[test]
fn a_plan_has_a_json_form() {
    let sandbox = project();
    let outcome = build_image(&sandbox)
        .args(["dev", "--dry-run", "--json"])
        .any_stdout()
        .run();
    let line = "docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .";
    assert_eq!(outcome.json(), json!({ "commands": [line] }));
}

#[test]
fn long_options_may_be_shortened_and_are_written_in_two_ways() {
    let sandbox = project();
    for option in ["--image_name", "--image-name", "--image_n"] {
        build_image(&sandbox)
            .args(["dev", "--dry-run", option, "x"])
            .stdout_has(" -t x:tester ")
            .run();
    }
}

#[test]
fn a_dry_run_works_from_a_folder_below_the_root() {
    let sandbox = project().dir("src/deep");
    build_image(&sandbox)
        .args(["dev", "--dry-run"])
        .current_dir("src/deep")
        .stdout("cd [SANDBOX]/sample && docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .\n")
        .run();
}

#[test]
fn all_is_printed_in_the_order_of_what_needs_what() {
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "ARG WHAT=b\nFROM sample-${WHAT}:tester\n")
        .file("docker/b/Dockerfile", "FROM scratch as builder\nFROM sample-c:tester\n")
        .file("docker/c/Dockerfile", "FROM scratch\n");
    build_image(&sandbox)
        .args(["all", "--dry-run"])
        .stdout(
            "docker build --compress -t sample-c:tester -f docker/c/Dockerfile .\n\
             docker build --compress -t sample-b-builder:tester -f docker/b/Dockerfile --target builder .\n\
             docker build --compress -t sample-b:tester -f docker/b/Dockerfile .\n\
             docker build --compress -t sample-a:tester -f docker/a/Dockerfile .\n",
        )
        .run();
}

/// The image types in the order in which `all` builds them.
fn order(build: Invocation<'_>) -> Vec<String> {
    let outcome = build.args(["all", "--dry-run"]).any_stdout().run();
    let lines = outcome.stdout.lines();
    lines
        .filter_map(|line| Some(line.split_once(" -f docker/")?.1.split_once('/')?.0.to_owned()))
        .collect()
}

#[test]
fn a_name_that_is_made_of_variables_is_the_one_that_buildkit_makes_of_them() {
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "ARG R=sample\nFROM ${X:-${R}-zbase:tester}\n")
        .file(
            "docker/b/Dockerfile",
            "FROM scratch\nRUN --mount=from=\"sample-y:tester\",target=/x true\n",
        )
        .file("docker/y/Dockerfile", "FROM scratch\n")
        .file("docker/zbase/Dockerfile", "FROM scratch\n");
    assert_eq!(order(build_image(&sandbox)), ["zbase", "a", "y", "b"]);
}

#[test]
fn only_stages_that_are_needed_need_something_and_onbuild_is_left_to_others() {
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "FROM sample-b:tester AS unused\nFROM scratch\n")
        .file("docker/b/Dockerfile", "FROM sample-a:tester\n");
    assert_eq!(order(build_image(&sandbox)), ["a", "b"]);
    // The classic builder makes them all.
    build_image(&sandbox)
        .env("DOCKER_BUILDKIT", "0")
        .args(["all", "--dry-run"])
        .code(2)
        .stderr_has("a -> b -> a")
        .run();
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "FROM sample-b:tester\n")
        .file(
            "docker/b/Dockerfile",
            "FROM scratch\nONBUILD COPY --from=sample-z:tester /x /y\n",
        )
        .file("docker/z/Dockerfile", "FROM scratch\n");
    assert_eq!(order(build_image(&sandbox)), ["b", "z", "a"]);
}

#[test]
fn base_is_built_first_where_it_is_forced_and_keeps_its_name() {
    let sandbox = Sandbox::new()
        .file("docker/base/Dockerfile", "FROM scratch\n")
        .file("docker/dev/Dockerfile", "FROM sample-base:tester\n")
        .file(
            "docker/dockerutils.cfg",
            "[base]\npull_FROM_on_force = True\n[dev]\npull_FROM_on_force = False\n",
        );
    build_image(&sandbox)
        .args(["dev", "-f", "-t", "x", "--dry-run"])
        .stdout(
            "docker build --pull --compress -t sample-base:tester -f docker/base/Dockerfile .\n\
             docker build --compress -t sample-dev:x -f docker/dev/Dockerfile .\n",
        )
        .run();
}

#[test]
fn a_circle_is_named() {
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "FROM sample-b:tester\n")
        .file("docker/b/Dockerfile", "FROM sample-a:tester\n");
    build_image(&sandbox)
        .args(["all", "--dry-run"])
        .code(2)
        .stderr(
            "build-image: images need each other in a circle: a -> b -> a\n\nhint: look at the FROM lines of their Dockerfiles\n",
        )
        .run();
}

#[test]
fn a_build_is_printed_shown_and_summed_up() {
    let (sandbox, engine) = (project().file("a", "content"), building());
    let outcome = classic(&sandbox, &engine)
        .arg("dev")
        .stdout_has("IMAGE")
        .stdout_has("sample-dev:tester  built")
        .stdout_has("1.5 MB")
        .stderr_has(&format!(
            "{RULE}docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .\n"
        ))
        .stderr_has("COPY a /a")
        .stderr_has("made it")
        .run();
    assert!(
        !outcome.stderr.contains('\x1b') && !outcome.stderr.contains("0123456789ab"),
        "{outcome}"
    );
    let request = engine.request("POST", "/build");
    assert_eq!(request.version, "1.45");
    for pair in ["t=sample-dev%3Atester", "dockerfile=docker%2Fdev%2FDockerfile"] {
        assert!(request.query.contains(pair), "{}", request.query);
    }
    let has = |name: &[u8]| request.body.windows(name.len()).any(|window| window == name);
    assert!(has(b"docker/dev/Dockerfile\0") && has(b"content"));
    assert!(sandbox.leftovers().is_empty());
}

#[test]
fn json_is_one_document() {
    let (sandbox, engine) = (project(), building());
    let outcome = classic(&sandbox, &engine).args(["dev", "--json"]).any_stdout().run();
    let document = outcome.json();
    let image = &document["images"][0];
    assert_eq!(
        (&image["image"], &image["status"], &image["id"], &image["size"]),
        (
            &json!("sample-dev:tester"),
            &json!("built"),
            &json!("sha256:4711"),
            &json!(1_500_000)
        )
    );
    assert_eq!((&image["steps"], &image["cached_steps"]), (&json!(2), &json!(1)));
    assert!(
        image["context_bytes"].as_u64() > Some(0) && image["seconds"].is_f64(),
        "{document}"
    );
}

#[test]
fn quiet_prints_the_id() {
    let (sandbox, engine) = (project(), building());
    classic(&sandbox, &engine)
        .args(["dev", "-q"])
        .stdout("sha256:4711\n")
        .run();
}

#[test]
fn a_step_that_fails_is_shown_with_its_lines() {
    let said = [
        json!({ "stream": "Step 1/2 : FROM scratch\n" }),
        json!({ "stream": "Step 2/2 : RUN make\n" }),
        json!({ "stream": "no rule for \u{1b}[2Jtarget\n" }),
        json!({ "error": "The command '/bin/sh -c make' returned a non-zero code: 2" }),
    ];
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\n\nRUN make\n");
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::stream(&said));
    let outcome = classic(&sandbox, &engine)
        .arg("dev")
        .code(1)
        .stdout_has("failed")
        .stderr_has("no rule for")
        .stderr_has("docker/dev/Dockerfile:3")
        .stderr_has(
            "build-image: sample-dev:tester can't be built: The command '/bin/sh -c make' returned a non-zero code: 2",
        )
        .run();
    assert!(!outcome.stderr.contains("\x1b[2J"), "{outcome}");
    let outcome = classic(&sandbox, &engine)
        .args(["dev", "--json"])
        .code(1)
        .any_stdout()
        .any_stderr()
        .run();
    let image = &outcome.json()["images"][0];
    assert_eq!((&image["status"], &image["kind"]), (&json!("failed"), &json!("failed")));
    assert_eq!(
        image["error"],
        "sample-dev:tester can't be built: The command '/bin/sh -c make' returned a non-zero code: 2"
    );
    let excerpts = image["excerpts"].as_array().unwrap();
    assert!(excerpts[0].as_str().unwrap().contains("no rule for"), "{outcome}");
    assert!(
        excerpts[1].as_str().unwrap().starts_with("docker/dev/Dockerfile:3"),
        "{outcome}"
    );
    classic(&sandbox, &engine)
        .args(["dev", "-q"])
        .code(1)
        .stderr_has("no rule for")
        .stderr_has("can't be built")
        .run();
}

/// A CI takes commands from the beginning of a line, behind blanks, too: GitHub Actions sets variables by them.
#[test]
fn no_line_of_a_failed_step_begins_one_of_ours() {
    let said = [
        json!({ "stream": "Step 1/2 : FROM scratch\n" }),
        json!({ "stream": "Step 2/2 : RUN make\n" }),
        json!({ "stream": "::save-state name=a::b\n \t::error::no rule\n" }),
        json!({ "error": "The command '/bin/sh -c make' returned a non-zero code: 2\n::error::no" }),
    ];
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\nRUN make\n");
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::stream(&said));
    for option in ["-q", "-v"] {
        let outcome = classic(&sandbox, &engine)
            .args(["dev", option])
            .code(1)
            .any_stdout()
            .stderr_has("\n| ::save-state name=a::b\n")
            .run();
        let lines = || outcome.stdout.lines().chain(outcome.stderr.lines());
        assert!(lines().all(|line| !line.trim_start().starts_with("::")), "{outcome}");
    }
}

#[test]
fn all_goes_on_past_a_failure_with_what_does_not_need_it() {
    let sandbox = Sandbox::new()
        .file("docker/a/Dockerfile", "FROM scratch\n")
        .file("docker/b/Dockerfile", "FROM sample-a:tester\n")
        .file("docker/c/Dockerfile", "FROM scratch\n");
    let engine = ScriptedEngine::start()
        .on(
            "POST",
            "/build",
            Reply::error(500, "dockerfile parse error line 1: unknown instruction: FRMO"),
        )
        .on(
            "POST",
            "/build",
            Reply::stream(&[json!({ "aux": { "ID": "sha256:1" } })]),
        )
        .on(
            "GET",
            "/images/*/json",
            Reply::json(200, &json!({ "Id": "sha256:1", "Size": 1 })),
        );
    let outcome = classic(&sandbox, &engine)
        .args(["all", "-j", "1", "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("unknown instruction: FRMO")
        .run();
    let status = |index: usize| outcome.json()["images"][index]["status"].clone();
    assert_eq!([status(0), status(1), status(2)], ["failed", "skipped", "cached"]);
    let error = |index: usize| outcome.json()["images"][index]["error"].clone();
    assert!(
        error(0).as_str().is_some_and(|error| error.contains("FRMO")),
        "{outcome}"
    );
    assert!(
        error(1)
            .as_str()
            .is_some_and(|error| error.ends_with("which could not be built")),
        "{outcome}"
    );
    assert!(error(2).is_null());
}

#[test]
fn there_must_be_a_project() {
    build_image(&Sandbox::new())
        .arg("dev")
        .code(2)
        .stderr(
            "build-image: no docker/ folder in [SANDBOX]/sample or above it\n\n\
             hint: go to the project, or make docker/dev/Dockerfile in it\n",
        )
        .run();
    build_image(&Sandbox::new().file("docker/Dockerfile", "FROM scratch\n"))
        .arg("dev")
        .code(2)
        .stderr(
            "build-image: [SANDBOX]/sample/docker holds a Dockerfile, but no image type\n\n\
             hint: mkdir [SANDBOX]/sample/docker/dev && mv [SANDBOX]/sample/docker/Dockerfile [SANDBOX]/sample/docker/dev/\n",
        )
        .run();
    build_image(&Sandbox::new().dir("docker/dev"))
        .arg("dev")
        .code(2)
        .stderr_has("holds neither an image type nor a dockerutils.cfg")
        .stderr_has("hint: write [SANDBOX]/sample/docker/dev/Dockerfile\n")
        .run();
    // In CI, HOME often is the checkout; but seen from a folder in it, a home directory is not a project.
    let sandbox = project().dir("below");
    let at_home = || {
        build_image(&sandbox)
            .args(["dev", "--dry-run"])
            .env("HOME", sandbox.project())
    };
    at_home().stdout_has("docker build").any_stderr().run();
    at_home()
        .current_dir("below")
        .code(2)
        .stderr_has("is the home directory, which counts only for calls right in it")
        .run();
}

#[test]
fn the_search_ends_at_the_git_root() {
    let sandbox = project().dir("sub/.git");
    build_image(&sandbox)
        .arg("dev")
        .current_dir("sub")
        .code(2)
        .stderr_has("no docker/ folder in [SANDBOX]/sample/sub")
        .run();
}

#[test]
fn an_image_that_is_not_there_names_the_nearest() {
    let sandbox = project().file("docker/notebook/Dockerfile", "FROM scratch\n");
    build_image(&sandbox)
        .arg("notbook")
        .code(2)
        .stderr("build-image: [SANDBOX]/sample has no image notbook\n\nhint: did you mean notebook?\n")
        .run();
    build_image(&sandbox)
        .arg("zzz")
        .code(2)
        .stderr_has("hint: it has dev, notebook\n")
        .run();
    build_image(&configured("[other]\nname = busybox\nprefix = False\n"))
        .arg("other")
        .code(2)
        .stderr(
            "build-image: there is nothing to build for other: docker/other holds no Dockerfile\n\nhint: run-image other runs it\n",
        )
        .run();
}

#[test]
fn an_image_of_a_stack_is_built_by_build_stack() {
    let spec = "images:\n  base: {}\n  dev: {depend_on: base}\n";
    let hint = "hint: base is an image of the stack in spec.yml: build-stack base --no-push\n";
    let stack = Sandbox::new().file("images/spec.yml", spec).dir("images/base");
    build_image(&stack)
        .arg("base")
        .code(2)
        .stderr(&format!(
            "build-image: no docker/ folder in [SANDBOX]/sample or above it\n\n{hint}"
        ))
        .run();
    build_image(&stack)
        .arg("other")
        .code(2)
        .stderr_has("hint: go to the project")
        .run();
    let both = project().file("images/spec.yml", spec);
    build_image(&both)
        .arg("base")
        .code(2)
        .stderr(&format!("build-image: [SANDBOX]/sample has no image base\n\n{hint}"))
        .run();
    // What has a folder in docker/ is built from there, as ever.
    build_image(&both)
        .args(["dev", "--dry-run"])
        .any_stdout()
        .any_stderr()
        .run();
}

#[test]
fn configuration_that_can_not_be_read_is_named() {
    for (config, says) in [
        (&b"[dev]\nname dev\n"[..], "docker/dockerutils.cfg:2"),
        (b"name = dev\n", "docker/dockerutils.cfg:1"),
        (b"[dev]\ntag = a\n[dev]\n", "docker/dockerutils.cfg:3"),
        (b"[dev]\ntag = a\ntag = b\n", "docker/dockerutils.cfg:3"),
        (b"[dev]\ntag = %(none)s\n", "docker/dockerutils.cfg:2"),
        (b"[dev]\ntag = caf\xe9\n", "docker/dockerutils.cfg:2: this is not UTF-8"),
    ] {
        let sandbox = project().file("docker/dockerutils.cfg", config);
        build_image(&sandbox).arg("dev").code(2).stderr_has(says).run();
    }
    build_image(&project().dir("docker/dockerutils.cfg"))
        .arg("dev")
        .code(2)
        .stderr_has("build-image: docker/dockerutils.cfg can't be read: is a directory")
        .run();
    let sandbox = configured("[dev]\n");
    let file = sandbox.project().join("docker/dockerutils.cfg");
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    without_privileges(&sandbox)
        .arg("dev")
        .code(2)
        .stderr_has("build-image: docker/dockerutils.cfg can't be read: Permission denied")
        .run();
}

#[test]
fn an_unknown_key_warns_with_the_nearest() {
    build_image(&configured("[dev]\nbuild_arg = --pull\nqqqq = 1\n"))
        .args(["dev", "--dry-run"])
        .any_stdout()
        .stderr(
            "build-image: warning: docker/dockerutils.cfg:2: [dev] build_arg is not known (did you mean build_args?)\n\
             build-image: warning: docker/dockerutils.cfg:3: [dev] qqqq is not known\n",
        )
        .run();
}

#[test]
fn values_that_mean_nothing_name_file_line_section_and_key() {
    for (config, says, helps) in [
        (
            "[dev]\n\npre_build_script = make && make install\n",
            "docker/dockerutils.cfg:3: [dev] pre_build_script: && only works in a shell",
            "put it into a file, and pre_build_script = ./that-file.sh",
        ),
        (
            "[dev]\npost_build_script = a | b\n",
            ":2: [dev] post_build_script: | only works in a shell",
            "./that-file.sh",
        ),
        (
            "[dev]\nbuild_args = --no-cahce\n",
            "docker/dockerutils.cfg:2: [dev] build_args: ",
            "--no-cache",
        ),
        (
            "[dev]\nbuild_args = --push\n",
            "option --push is not possible in build-image",
            "publish-image",
        ),
        (
            "[dev]\nbuild_args = 'open\n",
            "docker/dockerutils.cfg:2: [dev] build_args",
            "the value is: 'open",
        ),
        (
            "[dev]\nbuild_args = --shm-size big\n",
            "option --shm-size is `big`",
            "512m",
        ),
    ] {
        build_image(&configured(config))
            .arg("dev")
            .code(2)
            .stderr_has(says)
            .stderr_has(helps)
            .run();
    }
    build_image(&configured("[dev]\npull_FROM_on_force = maybe\n"))
        .args(["dev", "-f"])
        .code(2)
        .stderr(
            "build-image: docker/dockerutils.cfg:2: [dev] pull_FROM_on_force: \"maybe\" is neither true nor false\n\n\
             hint: pull_FROM_on_force = True\n",
        )
        .run();
}

#[test]
fn one_name_is_not_for_all_images() {
    for flag in ["-i", "-t"] {
        build_image(&project())
            .args(["all", flag, "x"])
            .code(2)
            .stderr(
                "build-image: -i and -t name one image, but all are to be built\n\n\
                 hint: put name and tag into docker/dockerutils.cfg, or build one image\n",
            )
            .run();
    }
}

#[test]
fn illegal_names_become_legal_and_that_is_said() {
    let sandbox = Sandbox::named("My Project").file("docker/dev/Dockerfile", "FROM scratch\n");
    build_image(&sandbox)
        .args(["dev", "--dry-run"])
        .env("LOGNAME", "CORP\\ann")
        .stdout("docker build --compress -t my-project-dev:CORP-ann -f docker/dev/Dockerfile .\n")
        .stderr(
            "build-image: warning: \"my project-dev\" can't be the name of an image: my-project-dev is used\n\
             build-image: warning: \"CORP\\\\ann\" can't be a tag: CORP-ann is used\n",
        )
        .run();
}

#[test]
fn scripts_run_in_the_root_and_their_code_is_passed_on() {
    let sandbox = configured("[dev]\npre_build_script = ./pre.sh one 'two three'\n")
        .script(
            "pre.sh",
            "#!/bin/sh\necho \"$PWD $#\" > said\necho to the terminal\nexit 7\n",
        )
        .dir("below");
    let engine = building();
    classic(&sandbox, &engine)
        .arg("dev")
        .current_dir("below")
        .code(7)
        .any_stdout()
        .stderr_has("to the terminal")
        .stderr_has("pre-build-script failed with code 7: ./pre.sh one 'two three'")
        .run();
    assert_eq!(sandbox.read("said"), format!("{} 2\n", sandbox.project().display()));
    assert!(engine.requests().iter().all(|request| request.path != "/build"));
    let sandbox = configured("[dev]\npre_build_script = ./absent.sh\n");
    classic(&sandbox, &engine)
        .arg("dev")
        .code(1)
        .any_stdout()
        .stderr_has("pre-build-script can't be started: ./absent.sh")
        .stderr_has("hint: it runs without a shell")
        .run();
}

#[test]
fn rules_that_cannot_be_read_are_not_no_rules() {
    for name in [".dockerignore", "docker/dev/Dockerfile.dockerignore"] {
        let sandbox = project().file(&format!("{name}/a"), "");
        let engine = building();
        classic(&sandbox, &engine)
            .arg("dev")
            .code(1)
            .any_stdout()
            .stderr_has(&format!("{name} can't be read"))
            .stderr_has("hint: it lists what stays on this machine")
            .run();
        assert!(engine.requests().iter().all(|request| request.path != "/build"));
    }
}

/// The names and contents of what the classic builder got.
fn sent(engine: &ScriptedEngine) -> Vec<(String, String)> {
    let requests = engine.requests();
    let build = requests.iter().find(|request| request.path == "/build").unwrap();
    let mut archive = tar::Archive::new(build.body.as_slice());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        let _ = entry.read_to_string(&mut text);
        (entry.path().unwrap().display().to_string(), text)
    });
    entries.collect()
}

#[test]
fn context_dockerfile_and_folder_are_where_the_configuration_says() {
    let config = "[build_image]\nimages_dir = images\n[web]\ncontext = {image_dir}\n[tool]\n\
                  dockerfile = tool_1.2.Dockerfile\n";
    let sandbox = Sandbox::new()
        .file("docker/dockerutils.cfg", config)
        .file("docker/old/Dockerfile", "FROM scratch\n")
        .file("images/web/Dockerfile", "FROM scratch\nCOPY app /app\n")
        .file("images/web/.dockerignore", "*.log\n")
        .file("images/web/app", "1")
        .file("images/web/a.log", "2")
        .file("images/plain/Dockerfile", "FROM scratch\n")
        .file("tool_1.2.Dockerfile", "FROM scratch\n")
        .file("secret", "of the root");
    build_image(&sandbox)
        .args(["all", "--dry-run"])
        .stdout(
            "docker build --compress -t sample-plain:tester -f images/plain/Dockerfile .\n\
             docker build --compress -t sample-tool:tester -f tool_1.2.Dockerfile .\n\
             docker build --compress -t sample-web:tester -f images/web/Dockerfile images/web\n",
        )
        .run();
    let engine = building().on(
        "GET",
        "/images/sample-web:tester/json",
        Reply::json(200, &json!({ "Id": "sha256:4711" })),
    );
    classic(&sandbox, &engine).arg("web").any_stdout().any_stderr().run();
    let names: Vec<String> = sent(&engine).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [".dockerignore", "Dockerfile", "app"]);
    // A file beside the Dockerfile takes precedence. docker's classic builder ignores it; ours reads it as BuildKit
    // does.
    let sandbox = sandbox.file("images/web/Dockerfile.dockerignore", "app\n");
    let engine = building().on(
        "GET",
        "/images/sample-web:tester/json",
        Reply::json(200, &json!({ "Id": "sha256:4711" })),
    );
    classic(&sandbox, &engine).arg("web").any_stdout().any_stderr().run();
    let names: Vec<String> = sent(&engine).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [".dockerignore", "Dockerfile", "Dockerfile.dockerignore", "a.log"]
    );
    build_image(&sandbox)
        .arg("old")
        .code(2)
        .stderr_has("has no image old")
        .run();
}

#[test]
fn a_context_outside_of_the_project_is_refused() {
    for value in ["..", "/", "link"] {
        let sandbox = configured(&format!("[dev]\ncontext = {value}\n")).symlink("link", "../home");
        build_image(&sandbox)
            .arg("dev")
            .code(2)
            .stderr_has(&format!(
                "docker/dockerutils.cfg:2: [dev] context: {value} is outside of the project"
            ))
            .stderr_has("hint: it must be in [SANDBOX]/sample, links included")
            .run();
    }
}

#[test]
fn what_it_is_from_is_built_with_it() {
    let sandbox = Sandbox::new()
        .file("docker/app/Dockerfile", "FROM sample-lib:tester\n")
        .file("docker/lib/Dockerfile", "FROM sample-os:tester\n")
        .file("docker/os/Dockerfile", "FROM scratch\n")
        .file("docker/other/Dockerfile", "FROM sample-os:tester\n");
    let line = |image: &str, tag: &str| {
        format!("docker build --compress -t sample-{image}:{tag} -f docker/{image}/Dockerfile .\n")
    };
    let built = |images: &[&str]| images.iter().map(|image| line(image, "tester")).collect::<String>();
    build_image(&sandbox)
        .args(["app", "--with-bases", "--dry-run"])
        .stdout(&built(&["os", "lib", "app"]))
        .run();
    build_image(&sandbox)
        .args(["os", "--with-bases", "--dry-run"])
        .stdout(&built(&["os"]))
        .run();
    // A name or tag on the command line is for the requested image only.
    build_image(&sandbox)
        .args(["lib", "--with-bases", "-t", "2", "--dry-run"])
        .stdout(&(line("os", "tester") + &line("lib", "2")))
        .run();
    build_image(&sandbox)
        .args(["clean", "--with-bases"])
        .code(2)
        .stderr_has("--with-bases builds, but clean removes")
        .run();
}

#[test]
fn a_from_with_another_tag_than_the_image_is_built_with_warns() {
    let sandbox = Sandbox::new()
        .file(
            "docker/app/Dockerfile",
            "ARG T=old\nFROM sample-lib:$T\nCOPY --from=sample-lib:tester a b\n",
        )
        .file("docker/lib/Dockerfile", "FROM debian\n");
    build_image(&sandbox)
        .args(["app", "--dry-run"])
        .any_stdout()
        .stderr(
            "build-image: warning: docker/app/Dockerfile:2 names sample-lib:old, but image type lib is built with the tag \
             tester\n",
        )
        .run();
    // No warning about the tag that the user gave in this call.
    build_image(&sandbox)
        .args(["app", "-t", "old", "--dry-run"])
        .any_stdout()
        .run();
}

#[test]
fn sections_are_taken_as_they_are_meant() {
    let config = "[build-image]\nimages_dir = docker\n[env_later]\nA = 1\nB = 2\n[DEFAULT]\ntag = 1\n";
    let outcome = build_image(&configured(config))
        .args(["dev", "--dry-run"])
        .any_stdout()
        .stderr(
            "build-image: warning: docker/dockerutils.cfg:1: [build-image] is read as [build_image]; rename it\n\
             build-image: warning: [DEFAULT] tag does not count for dev, which has no section: write [dev] into \
             docker/dockerutils.cfg\n",
        )
        .run();
    assert!(outcome.stdout.contains("sample-dev:tester"), "{outcome}");
    build_image(&configured(config))
        .args(["dev", "--dry-run", "-v"])
        .any_stdout()
        .stderr_has("no key env names [env_later] of the configuration: it has no effect")
        .run();
}

#[test]
fn a_pip_conf_of_the_template_is_sent_and_never_on_the_disk() {
    let sandbox = project().file("pip.conf.template", "[global]\n");
    let engine = building();
    let outcome = classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    assert!(sent(&engine).contains(&("pip.conf".to_owned(), "[global]\n".to_owned())));
    // What docker needs for the same is printed.
    assert!(
        outcome.stderr.contains("cp -p pip.conf.template pip.conf\n"),
        "{outcome}"
    );
    assert!(outcome.stderr.contains("\nrm pip.conf\n"), "{outcome}");
    assert!(!sandbox.project().join("pip.conf").exists());
    build_image(&sandbox)
        .args(["dev", "--dry-run"])
        .stdout(
            "cp -p pip.conf.template pip.conf\n\
             docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .\nrm pip.conf\n",
        )
        .run();
    let sandbox = sandbox.file("pip.conf", "own");
    let engine = building();
    classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    assert!(sent(&engine).contains(&("pip.conf".to_owned(), "own".to_owned())));
    assert_eq!(sandbox.read("pip.conf"), "own");
    build_image(&sandbox)
        .args(["dev", "--dry-run"])
        .stdout("docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .\n")
        .run();
}

#[test]
fn scripts_see_the_pip_conf_and_what_they_write_stays() {
    for (script, stays) in [
        ("cat pip.conf >&2\n", None),
        ("rm pip.conf\necho mine > pip.conf\n", Some("mine\n")),
        ("echo mine > new\nmv new pip.conf\n", Some("mine\n")),
    ] {
        let sandbox = project()
            .file("docker/dockerutils.cfg", "[dev]\npre_build_script = ./write\n")
            .script("write", format!("#!/bin/sh\nset -e\n{script}"))
            .file("pip.conf.template", "[the-template]\n");
        let engine = building();
        let outcome = classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
        let expected = stays.unwrap_or("[the-template]\n");
        assert!(
            sent(&engine).contains(&("pip.conf".to_owned(), expected.to_owned())),
            "{outcome}"
        );
        assert_eq!(stays.is_none(), outcome.stderr.contains("[the-template]"), "{outcome}");
        let there = fs::read_to_string(sandbox.project().join("pip.conf")).ok();
        assert_eq!(there.as_deref(), stays, "{script}");
    }
}

#[test]
fn what_a_killed_build_left_is_known_as_ours() {
    let sandbox = project()
        .file("pip.conf.template", "[global]\n")
        .symlink("pip.conf", "./pip.conf.template");
    let engine = building();
    classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    assert!(sent(&engine).contains(&("pip.conf".to_owned(), "[global]\n".to_owned())));
    assert!(sandbox.project().join("pip.conf").symlink_metadata().is_err());
    // The user's own stays, and is sent as it is.
    let sandbox = sandbox.symlink("pip.conf", "pip.conf.template");
    classic(&sandbox, &building())
        .arg("dev")
        .any_stdout()
        .any_stderr()
        .run();
    assert!(sandbox.project().join("pip.conf").is_symlink());
}

#[test]
fn the_first_of_two_builds_to_end_takes_nothing_from_the_other() {
    let sandbox = project()
        .file("docker/dockerutils.cfg", "[two]\npost_build_script = ./wait\n")
        .file("docker/two/Dockerfile", "FROM scratch\n")
        .script(
            "wait",
            "#!/bin/sh\ntouch waits\nread line < pipe\ncat pip.conf > seen\n",
        )
        .file("pip.conf.template", "[global]\n");
    let at = |name: &str| sandbox.project().join(name);
    sandbox.program("mkfifo").arg(at("pipe")).run();
    let slow = building().on(
        "GET",
        "/images/sample-two:tester/json",
        Reply::json(200, &json!({ "Id": "sha256:4711" })),
    );
    let running = classic(&sandbox, &slow).arg("two").spawn();
    wait::until("the script runs", || at("waits").exists());
    let quick = building();
    classic(&sandbox, &quick).arg("dev").any_stdout().any_stderr().run();
    assert!(sent(&quick).contains(&("pip.conf".to_owned(), "[global]\n".to_owned())));
    assert!(at("pip.conf").exists(), "it was taken from the other build");
    fs::write(at("pipe"), "\n").unwrap();
    let outcome = running.wait();
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(sandbox.read("seen"), "[global]\n");
    assert!(at("pip.conf").symlink_metadata().is_err());
}

#[test]
fn a_pip_conf_template_that_leads_out_of_the_project_is_not_sent() {
    let sandbox = project().file("../home/.netrc", "secret");
    let template = sandbox.project().join("pip.conf.template");
    std::os::unix::fs::symlink(sandbox.home().join(".netrc"), &template).unwrap();
    let engine = building();
    classic(&sandbox, &engine)
        .arg("dev")
        .code(2)
        .stderr_has("pip.conf.template is a link to [SANDBOX]/home/.netrc, outside of the project")
        .stderr_has("hint: if that is intended, put a copy in its place: cp --remove-destination [SANDBOX]/home/.netrc")
        .run();
    assert!(engine.requests().iter().all(|request| request.path != "/build"));
    fs::remove_file(&template).unwrap();
    let sandbox = sandbox.file("config/pip", "[global]\n");
    std::os::unix::fs::symlink("config/pip", &template).unwrap();
    classic(&sandbox, &building())
        .arg("dev")
        .any_stdout()
        .any_stderr()
        .run();
}

#[test]
fn a_dockerfile_that_is_a_link_out_of_the_project_is_not_sent() {
    let sandbox = project().file("../home/.netrc", "secret");
    let dockerfile = sandbox.project().join("docker/dev/Dockerfile");
    let link = |target: &Path| {
        fs::remove_file(&dockerfile).unwrap();
        std::os::unix::fs::symlink(target, &dockerfile).unwrap();
    };
    link(&sandbox.home().join(".netrc"));
    for dry_run in [false, true] {
        let engine = building();
        let build = classic(&sandbox, &engine).arg("dev");
        if dry_run { build.arg("--dry-run") } else { build }
            .code(2)
            .stderr_has("docker/dev/Dockerfile is a link to [SANDBOX]/home/.netrc, outside of the project")
            .stderr_has(
                "hint: if that is intended, put a copy in its place: cp --remove-destination [SANDBOX]/home/.netrc",
            )
            .run();
        assert!(engine.requests().iter().all(|request| request.path != "/build"));
    }
    link(Path::new("../gone"));
    classic(&sandbox, &building())
        .arg("dev")
        .code(2)
        .stderr_has("docker/dev/Dockerfile is a link to ../gone, which can't be read")
        .run();
    // Ignored or not, what it leads to in the project is sent, under its own name.
    let text = "FROM scratch\nCOPY a /a\n";
    let sandbox = sandbox
        .file("a", "content")
        .file("shared/web.txt", text)
        .file(".dockerignore", "shared\n");
    link(Path::new("../../shared/web.txt"));
    let engine = building();
    classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    let request = engine.request("POST", "/build");
    assert!(
        request.query.contains("dockerfile=shared%2Fweb.txt"),
        "{}",
        request.query
    );
    let has = |text: &str| request.body.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("shared/web.txt\0") && has(text));
}

#[test]
fn clean_removes_what_is_there() {
    let sandbox = project().file("docker/two/Dockerfile", "FROM scratch AS builder\nFROM scratch\n");
    build_image(&sandbox)
        .args(["clean", "--dry-run"])
        .stdout("docker rmi sample-dev:tester\ndocker rmi sample-two:tester\ndocker rmi sample-two-builder:tester\n")
        .run();
    let engine = ScriptedEngine::start().on(
        "DELETE",
        "/images/sample-dev:tester",
        Reply::json(200, &json!([{ "Untagged": "sample-dev:tester" }])),
    );
    build_image(&sandbox)
        .arg("clean")
        .engine(&engine)
        .stdout("sample-dev:tester\n")
        .any_stderr()
        .run();
    let outcome = build_image(&sandbox)
        .args(["clean", "--json"])
        .engine(&engine)
        .any_stdout()
        .run();
    assert_eq!(outcome.json(), json!({ "removed": ["sample-dev:tester"] }));
    let used = ScriptedEngine::start()
        .on(
            "DELETE",
            "/images/sample-dev:tester",
            Reply::error(409, "image is being used by running container 12"),
        )
        .on("DELETE", "/images/sample-two:tester", Reply::json(200, &json!([])));
    build_image(&sandbox)
        .args(["clean", "-q"])
        .engine(&used)
        .code(1)
        .stdout("sample-two:tester\n")
        .stderr("build-image: sample-dev:tester: image is being used by running container 12\n")
        .run();
}

#[test]
fn no_secret_is_printed() {
    let config = "[dev]\nbuild_args = --build-arg FOO --secret id=s,env=FOO\n";
    let sandbox = configured(config);
    for flags in [&["--dry-run"][..], &["-v"], &["--json"]] {
        let outcome = build_image(&sandbox)
            .arg("dev")
            .args(flags)
            .env("FOO", "s3cret")
            .code(if flags == ["--dry-run"] { 0 } else { 3 })
            .any_stdout()
            .any_stderr()
            .run();
        assert!(!format!("{outcome}").contains("s3cret"), "{outcome}");
    }
    let classic_config = configured("[dev]\nbuild_args = --build-arg FOO\n");
    let engine = building();
    let outcome = classic(&classic_config, &engine)
        .args(["dev", "-v"])
        .env("FOO", "s3cret")
        .any_stdout()
        .stderr_has("--build-arg FOO ")
        .run();
    assert!(!format!("{outcome}").contains("s3cret"), "{outcome}");
    assert!(engine.request("POST", "/build").query.contains("s3cret"));
}

#[test]
fn an_engine_that_is_not_there_is_code_3() {
    build_image(&project())
        .arg("dev")
        .code(3)
        .stderr(
            "build-image: no engine answers at unix://[SANDBOX]/no-engine.sock: No such file or directory (os error 2)\n\n\
             hint: DOCKER_HOST chose this engine: start it there, or `unset DOCKER_HOST` for the one on this machine\n",
        )
        .run();
    let port = dockerutils_test_support::free_port().unwrap();
    build_image(&project())
        .arg("dev")
        .env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"))
        .code(3)
        .stderr_has(&format!(
            "no engine answers at tcp://127.0.0.1:{port}: Connection refused"
        ))
        .run();
}

#[test]
fn an_engine_that_may_not_be_used_says_how() {
    let sandbox = project();
    let socket = sandbox.home().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    without_privileges(&sandbox)
        .arg("dev")
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .code(3)
        .stderr_has("no engine answers at unix://[SANDBOX]/home/docker.sock: Permission denied")
        .stderr_has(
            "hint: you may not use [SANDBOX]/home/docker.sock: \
             sudo usermod -aG docker $USER, then log in again",
        )
        .run();
}

#[test]
fn what_is_no_engine_is_code_3() {
    for (reply, says) in [
        (Reply::garbage("SSH-2.0-OpenSSH_9.2\r\n\r\n"), "no engine answers"),
        (Reply::hang_up(), "no engine answers"),
        (Reply::bytes("<html>"), "what answers there is not a docker engine"),
        (Reply::error(500, "disk on fire"), "disk on fire"),
    ] {
        let engine = ScriptedEngine::start().on("GET", "/_ping", reply);
        build_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(3)
            .stderr_has(says)
            .stderr_has("hint: ")
            .run();
    }
    let old = ScriptedEngine::start().version("18.09.0", "1.39");
    build_image(&project())
        .arg("dev")
        .engine(&old)
        .code(3)
        .stderr_has("speaks API 1.39, which is older than 1.40")
        .stderr_has("hint: update docker there")
        .run();
}

#[test]
fn an_engine_that_hangs_is_waited_for_twenty_seconds() {
    let engine = ScriptedEngine::start().on("GET", "/_ping", Reply::hang());
    let began = Instant::now();
    build_image(&project())
        .arg("dev")
        .engine(&engine)
        .code(3)
        .stderr_has("does not answer: it took the connection and said nothing for 20s")
        .stderr_has("hint: look at the engine's log")
        .run();
    // Not twice, however busy this machine is.
    assert!(began.elapsed() < Duration::from_secs(39));
}

#[test]
fn an_engine_that_is_slow_is_waited_for() {
    let engine = building().on(
        "GET",
        "/_ping",
        Reply::bytes("OK")
            .header("Api-Version", "1.45")
            .slow(Duration::from_secs(2)),
    );
    classic(&project(), &engine)
        .args(["dev", "-q"])
        .stdout("sha256:4711\n")
        .run();
}

#[test]
fn an_engine_that_dies_in_the_middle_is_code_3() {
    let said = [
        json!({ "stream": "Step 1/2 : FROM scratch\n" }),
        json!({ "stream": "Step 2/2 : RUN make\n" }),
    ];
    for reply in [Reply::stream(&said).dying(), Reply::hang_up()] {
        let sandbox = project().file("pip.conf.template", "");
        let engine = ScriptedEngine::start().on("POST", "/build", reply);
        classic(&sandbox, &engine)
            .arg("dev")
            .code(3)
            .stdout_has("failed")
            .stderr_has("went away")
            .stderr_has("hint: see whether it still runs: docker version")
            .run();
        assert!(!sandbox.project().join("pip.conf").exists() && sandbox.leftovers().is_empty());
    }
    // BuildKit begins with a session.
    for reply in [
        Reply::hang_up(),
        Reply::garbage("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    ] {
        let engine = ScriptedEngine::start()
            .on("POST", "/session", reply.clone())
            .on("POST", "/grpc", reply);
        build_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(3)
            .any_stdout()
            .stderr_has("hint: ")
            .run();
    }
}

#[test]
fn the_engines_own_words_are_passed_on() {
    let sandbox = project();
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::error(500, "no space left on device"));
    classic(&sandbox, &engine)
        .arg("dev")
        .code(1)
        .any_stdout()
        .stderr_has("no space left on device")
        .run();
    let engine = ScriptedEngine::start().on("POST", "/session", Reply::error(500, "session refused"));
    build_image(&sandbox)
        .arg("dev")
        .engine(&engine)
        .code(1)
        .any_stdout()
        .stderr_has("session refused")
        .run();
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    // With a script, pip.conf is there for it.
    let sandbox = configured("[dev]\npre_build_script = ./look\n")
        .script("look", "#!/bin/sh\ntest -e pip.conf\n")
        .file("pip.conf.template", "secret");
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::hang());
    let running = classic(&sandbox, &engine).arg("dev").spawn();
    let copy = sandbox.project().join("pip.conf");
    wait::until("the build has begun", || {
        copy.exists() && engine.requests().iter().any(|request| request.path == "/build")
    });
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    assert!(!copy.exists() && sandbox.leftovers().is_empty());
}

#[test]
fn the_docker_clients_own_files_are_named_where_they_are_damaged() {
    let sandbox = project().file("../home/.docker/config.json", "{");
    build_image(&sandbox)
        .arg("dev")
        .engine(&building())
        .code(2)
        .stderr_has("[SANDBOX]/home/.docker/config.json is not a configuration of docker")
        .stderr_has("hint: ")
        .run();
    build_image(&project())
        .arg("dev")
        .env_remove("DOCKER_HOST")
        .env("DOCKER_CONTEXT", "gone")
        .code(2)
        .stderr_has("the docker context \"gone\" can't be read")
        .stderr_has("docker context ls")
        .run();
    build_image(&project())
        .arg("dev")
        .env("DOCKER_HOST", "tcp://box:http")
        .code(2)
        .stderr_has("DOCKER_HOST is not the address of an engine: \"tcp://box:http\"")
        .run();
}

#[test]
fn a_dockerfile_that_can_not_be_read_is_named() {
    let sandbox = project();
    let file = sandbox.project().join("docker/dev/Dockerfile");
    fs::set_permissions(Path::new(&file), fs::Permissions::from_mode(0o000)).unwrap();
    without_privileges(&sandbox)
        .arg("dev")
        .code(2)
        .stderr_has("docker/dev/Dockerfile can't be read: Permission denied")
        .run();
}

#[test]
fn layers_of_what_is_not_built_say_how_to_build_it() {
    let engine = ScriptedEngine::start().on("GET", IMAGE, Reply::error(404, "No such image"));
    build_image(&project())
        .args(["dev", "--layers"])
        .engine(&engine)
        .code(1)
        .stderr_has("there is no image sample-dev:tester on the engine at")
        .stderr_has("hint: build it first: build-image dev")
        .run();
    build_image(&project())
        .args(["all", "--layers"])
        .code(2)
        .stderr_has("--layers takes one image, not all")
        .run();
    build_image(&project())
        .args(["dev", "--layers", "--dry-run"])
        .stdout("docker save sample-dev:tester\n")
        .run();
    build_image(&project())
        .args(["dev", "--layers", "-j", "2"])
        .code(2)
        .stderr_has("cannot be used with")
        .run();
}

#[test]
fn layers_that_break_off_are_an_error() {
    let there = Reply::json(200, &json!({ "Id": "sha256:4711" }));
    for (reply, says) in [
        (Reply::bytes("no archive"), "the archive can't be read"),
        (Reply::error(500, "disk on fire"), "disk on fire"),
        (Reply::bytes(""), "the archive has no manifest.json"),
    ] {
        let engine = ScriptedEngine::start()
            .on("GET", IMAGE, there.clone())
            .on("GET", "/images/get", reply);
        build_image(&project())
            .args(["dev", "--layers"])
            .engine(&engine)
            .code(1)
            .stderr_has("sample-dev:tester can't be read")
            .stderr_has(says)
            .run();
    }
}

#[test]
fn a_dock_is_chosen_for_one_call_scripts_included() {
    let engine = ScriptedEngine::start();
    let address = engine.tcp();
    let sandbox = Sandbox::new()
        .file(
            "../home/.config/dockerutils/docks.yml",
            format!("version: 1\ndocks:\n- moniker: far\n  tcp:\n    address: {address}\n"),
        )
        .file("docker/dev/Dockerfile", "FROM scratch\n")
        .file("docker/dockerutils.cfg", "[dev]\npre_build_script = ./where\n")
        .script(
            "where",
            "#!/bin/sh\necho \"$DOCKER_HOST|${DOCKER_TLS_VERIFY-unset}\" > where.txt\nexit 1\n",
        );
    let build = || {
        sandbox
            .command("build-image")
            .args(["dev", "--dock", "far"])
            .env("DOCKER_HOST", "tcp://elsewhere:1")
    };
    build()
        .arg("--dry-run")
        .stdout_has(&format!(
            "DOCKER_HOST=tcp://{address} docker build --compress -t sample-dev:tester "
        ))
        .run();
    build()
        .env("DOCKER_TLS_VERIFY", "1")
        .code(1)
        .any_stdout()
        .any_stderr()
        .run();
    assert_eq!(sandbox.read("where.txt"), format!("tcp://{address}|unset\n"));
    sandbox
        .command("build-image")
        .args(["clean", "--dock", "far", "--dry-run"])
        .stdout(&format!("DOCKER_HOST=tcp://{address} docker rmi sample-dev:tester\n"))
        .run();
}

/// docker's configuration with two logins, and a helper for a third registry that leaves a trace where it is started.
fn with_logins(dockerfile: &str) -> Sandbox {
    let login = json!({ "auth": "dTpw" });
    let config = json!({
        "auths": { "named.example": login, "other.example": login },
        "credHelpers": { "helped.example": "trace" },
    });
    Sandbox::new()
        .file("docker/dev/Dockerfile", dockerfile)
        .file("../home/.docker/config.json", config.to_string())
        .script(
            "../home/bin/docker-credential-trace",
            "#!/bin/sh\ntouch \"$HOME/started\"\necho '{\"Username\":\"a\",\"Secret\":\"b\"}'\n",
        )
}

fn path_with_helpers(sandbox: &Sandbox) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", sandbox.home().join("bin").display())
}

#[test]
fn a_far_engine_gets_the_logins_that_its_build_needs() {
    let sandbox = with_logins("FROM named.example/base\n");
    let engine = building();
    classic(&sandbox, &engine)
        .env("PATH", path_with_helpers(&sandbox))
        // As `source dock` sets it.
        .env("DOCKER_IP", "10.0.0.7")
        .arg("dev")
        .any_stdout()
        .any_stderr()
        .run();
    let sent = engine.request("POST", "/build");
    // {"named.example":{"password":"p","username":"u"}}
    let expected = "eyJuYW1lZC5leGFtcGxlIjp7InBhc3N3b3JkIjoicCIsInVzZXJuYW1lIjoidSJ9fQ==";
    assert_eq!(sent.header("x-registry-config"), Some(expected));
    assert!(!sandbox.home().join("started").exists(), "a helper was started in vain");
}

#[test]
fn an_image_whose_name_another_build_gives_at_the_same_time_gets_it_all_the_same() {
    let name = "docker.io/library/sample-dev:tester";
    let refused = [
        format!(
            "creating image {name} failed because it already exists, but accessing it also failed: No such image: {name}"
        ),
        format!(
            "failed to create an image {name} with target sha256:1 after deleting the existing one: AlreadyExists: image \"{name}\": already exists"
        ),
    ];
    let id = format!("sha256:{}", "47".repeat(32));
    let said = [
        json!({ "stream": "Step 1/2 : FROM scratch\n" }),
        json!({ "stream": "Step 2/2 : RUN make\n" }),
        json!({ "aux": { "ID": id } }),
        json!({ "stream": "Successfully built 4711\n" }),
        json!({ "error": refused[0] }),
    ];
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\nRUN make\n");
    let engine = ScriptedEngine::start()
        .on("POST", "/build", Reply::stream(&said))
        .on("POST", "/images/*/tag", Reply::error(500, &refused[0]))
        .on("POST", "/images/*/tag", Reply::error(500, &refused[1]))
        .on("POST", "/images/*/tag", Reply::empty(201))
        .on("GET", IMAGE, Reply::error(404, "No such image"))
        .on("GET", IMAGE, Reply::json(200, &json!({ "Id": id, "Size": 1 })));
    let outcome = classic(&sandbox, &engine).args(["dev", "-q"]).any_stdout().run();
    assert_eq!(outcome.stdout, format!("{id}\n"));
    let tags = engine
        .requests()
        .into_iter()
        .filter(|request| request.path.ends_with("/tag"));
    assert_eq!(tags.count(), 3);
}

#[test]
fn a_registry_that_sends_the_login_back_does_not_have_it_printed_by_a_build() {
    let sandbox = with_logins("FROM named.example/base\n").file(
        "../home/.docker/config.json",
        // The pair `ann:hunter2`.
        json!({ "auths": { "named.example": { "auth": "YW5uOmh1bnRlcjI=" } } }).to_string(),
    );
    let said = json!({ "error": "denied: you said Basic YW5uOmh1bnRlcjI=, which is ann:hunter2" });
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::stream(&[said]));
    let outcome = classic(&sandbox, &engine)
        .arg("dev")
        .any_stdout()
        .code(1)
        .stderr_has("denied: you said Basic ***, which is ann:***\n")
        .run();
    assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
}

#[test]
fn an_engine_in_clear_text_gets_no_login() {
    let sandbox = with_logins("FROM named.example/base\n");
    let engine = building();
    // An address that does not look like this machine's, but leads here.
    let address = engine.tcp().replace("127.0.0.1", "127.1");
    let outcome = build_image(&sandbox)
        .env("DOCKER_HOST", format!("tcp://{address}"))
        .env("DOCKER_BUILDKIT", "0")
        .env("PATH", path_with_helpers(&sandbox))
        .arg("dev")
        .any_stdout()
        .stderr_has("build-image: warning: no login to a registry is sent to the engine at tcp://127.1:")
        .stderr_has("hint: reach the engine by ssh (register-dock USER@HOST), or by TLS")
        .run();
    assert_eq!(outcome.stderr.matches("no login to a registry").count(), 1, "{outcome}");
    assert_eq!(engine.request("POST", "/build").header("x-registry-config"), None);
    assert!(!sandbox.home().join("started").exists(), "a helper was started in vain");
}

/// Nothing else would end the agent after the kill, and it holds keys.
#[test]
fn a_private_ssh_agent_ends_with_the_build_that_is_killed() {
    let sandbox = configured("[dev]\nbuild_args = --ssh default=key\n");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(sandbox.project().join("key"))
        .status();
    assert!(made.unwrap().success());
    // It accepts the session, and never answers on it.
    let engine = ScriptedEngine::start().on("POST", "/session", Reply::hang());
    let running = build_image(&sandbox).engine(&engine).arg("dev").any_stderr().spawn();
    let has_agent = || {
        let folders = fs::read_dir(sandbox.home().join("../tmp")).unwrap();
        folders
            .flatten()
            .any(|folder| UnixStream::connect(folder.path().join("agent")).is_ok())
    };
    wait::until("there is an agent", has_agent);
    wait::until("the session is asked for", || {
        engine.requests().iter().any(|request| request.path == "/session")
    });
    running.signal(Signal::KILL);
    running.wait();
    wait::until("the agent has ended", || !has_agent());
    wait::until("its folder is removed", || sandbox.leftovers().is_empty());
}

#[test]
fn what_was_asked_for_and_can_not_be_done_is_refused_by_name() {
    // The scripted engine has the classic store, and BuildKit only in part: none of these builds gets that far.
    let engine = building();
    for (option, part) in [
        ("--sbom=true", "option --sbom needs containerd's image store"),
        (
            "--provenance=true",
            "option --provenance needs containerd's image store",
        ),
        ("--attest type=sbom", "option --attest type=sbom needs"),
        ("--annotation a=b", "option --annotation a needs"),
        (
            "--cache-to type=registry,ref=x",
            "option --cache-to type=registry needs",
        ),
        (
            "--platform linux/amd64,linux/arm64",
            "option --platform linux/amd64,linux/arm64 needs",
        ),
        ("--build-context x=nowhere", "/nowhere leads nowhere: "),
    ] {
        let sandbox = configured(&format!("[dev]\nbuild_args = {option}\n"));
        let outcome = build_image(&sandbox)
            .engine(&engine)
            .arg("dev")
            .code(2)
            .any_stdout()
            .any_stderr()
            .run();
        assert!(
            outcome.stderr.contains(part) && outcome.stderr.contains("hint: "),
            "{outcome}"
        );
    }
    for (option, part) in [
        (
            "--cache-to type=inline",
            "option --cache-to type=inline needs BuildKit, but the engine at ",
        ),
        ("--no-cache-filter a", "option --no-cache-filter needs BuildKit"),
        ("--metadata-file m", "option --metadata-file needs BuildKit"),
        ("--sbom=true", "option --sbom needs BuildKit"),
        (
            "--cache-from type=local,src=x",
            "option --cache-from type=local needs BuildKit",
        ),
    ] {
        let sandbox = configured(&format!("[dev]\nbuild_args = {option}\n"));
        let outcome = classic(&sandbox, &engine)
            .arg("dev")
            .code(2)
            .any_stdout()
            .any_stderr()
            .run();
        assert!(
            outcome.stderr.contains(part) && outcome.stderr.contains("hint: "),
            "{outcome}"
        );
    }
    for option in ["--label =x", "--build-arg =x"] {
        let sandbox = configured(&format!("[dev]\nbuild_args = {option}\n"));
        build_image(&sandbox)
            .args(["dev", "--dry-run"])
            .code(2)
            .stderr_has("docker/dockerutils.cfg:2: [dev] build_args: option --")
            .stderr_has("has no name before its `=`")
            .run();
    }
    assert!(!engine.requests().iter().any(|request| request.path == "/build"));
}

#[test]
fn a_list_of_cache_references_is_several() {
    let sandbox = configured("[dev]\nbuild_args = --cache-from a:1,b\n");
    let engine = building();
    classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    let query = engine.request("POST", "/build").query;
    // ["a:1","b"]
    assert!(query.contains("cachefrom=%5B%22a%3A1%22%2C%22b%22%5D"), "{query}");
}

#[test]
fn what_only_the_classic_builder_knows_is_passed_over_once_and_said() {
    let sandbox = configured("[dev]\nbuild_args = --memory 1g -c 2\n")
        .file("docker/dev/Dockerfile", "FROM scratch AS builder\nFROM builder\n");
    // It has no session: the warning comes before.
    let engine = building();
    let outcome = build_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .code(1)
        .any_stderr()
        .run();
    for option in ["--memory", "--cpu-shares"] {
        let warning = format!("build-image: warning: option {option} is ignored: this engine builds with BuildKit");
        assert_eq!(outcome.stderr.matches(&warning).count(), 1, "{outcome}");
    }
}

#[test]
fn a_helper_that_is_missing_stops_no_build() {
    let config = json!({ "credHelpers": { "named.example": "missing", "other.example": "missing" } });
    let sandbox = Sandbox::new()
        .file("docker/dev/Dockerfile", "FROM named.example/base\n")
        .file("../home/.docker/config.json", config.to_string());
    let engine = building();
    let outcome = classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    let warning = "build-image: warning: docker-credential-missing gives no login for named.example: ";
    assert!(
        outcome.stderr.contains(warning) && !outcome.stderr.contains("other.example"),
        "{outcome}"
    );
    let said = json!({ "error": "pull access denied for named.example/base, repository does not exist" });
    let engine = ScriptedEngine::start().on("POST", "/build", Reply::stream(&[said]));
    classic(&sandbox, &engine)
        .arg("dev")
        .code(1)
        .any_stdout()
        .stderr_has("hint: docker-credential-missing gives no login for named.example")
        .stderr_has("try it: docker-credential-missing get\n")
        .run();
}

const UNWISE: &str =
    "FROM debian\nARG API_TOKEN\nRUN apt-get update && apt-get install -y wget curl git ca-certificates\n";

fn unwise() -> Sandbox {
    Sandbox::new().file("docker/dev/Dockerfile", UNWISE)
}

/// No engine answers, and none is asked.
fn check<'a>(sandbox: &'a Sandbox, words: &[&str]) -> Invocation<'a> {
    build_image(sandbox)
        .args(words)
        .env("DOCKER_HOST", "unix:///nonexistent")
}

#[test]
fn a_check_says_what_to_write_instead() {
    let sandbox = unwise();
    check(&sandbox, &["dev", "--check"])
        .stdout_has("docker/dev/Dockerfile:1: warning: BaseWithoutVersion: ")
        .stdout_has("    instead of line 1:\n        FROM debian:13\n")
        .stdout_has("docker/dev/Dockerfile:2: serious: SecretsUsedInArgOrEnv: ")
        .stdout_has("    delete it, and begin each RUN that needs it with --mount=type=secret,id=api_token,env=API_TOKEN; ")
        .stdout_has(
            "    instead of line 3:\n        RUN apt-get update && apt-get install --no-install-recommends -y ca-certificates curl git wget \
             && rm -rf /var/lib/apt/lists/*\n",
        )
        .stdout_has("docker/dev/Dockerfile: 1 serious finding, 3 warnings, 1 note\n")
        .run();
    let clean = Sandbox::new().file("docker/dev/Dockerfile", "FROM debian:13-slim\n");
    for how in ["--check", "--check=error"] {
        check(&clean, &["dev", how])
            .stdout("docker/dev/Dockerfile: nothing found\n")
            .run();
    }
}

#[test]
fn what_is_hostile_in_a_dockerfile_reaches_no_file_raw() {
    const HOSTILE: &str = "FROM debian:13-slim\nENV A\x1b[31m_TOKEN=a\0bcdef\nEXPOSE 8\x1b]0;x\x07/TCP\nRUN curl -o /x http://a\x1b[2Jb/x\n\
                           WORKDIR a\x1b[2Jb\nRUN cd a\r && echo \u{202e}b\nRUN c\nMAINTAINER \x1b[31mann\n";
    let is_safe = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}');
    let garbage = "FROM a\0\n\0B\x1b[2J\0O\0M\0 x\n";
    for (text, code) in [(HOSTILE, 0), (garbage, 1)] {
        let sandbox = Sandbox::new().file("docker/dev/Dockerfile", text);
        for how in [
            &["dev", "--check"][..],
            &["dev", "--check", "--json"],
            &["dev", "--check=sarif"],
        ] {
            let outcome = check(&sandbox, how).code(code).any_stdout().run();
            assert!(is_safe(&outcome.stdout), "{:?}", outcome.stdout);
        }
    }
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", HOSTILE);
    let outcome = check(&sandbox, &["dev", "--check"])
        .stdout_has(
            "lines 3 to 8: what to write has characters that can't be shown, and so is only in the output of --json\n",
        )
        .run();
    assert!(!outcome.stdout.contains("WORKDIR /"), "{}", outcome.stdout);
    let document = check(&sandbox, &["dev", "--check", "--json"]).any_stdout().run().json();
    let findings = document["images"][0]["findings"].as_array().unwrap();
    let relative = findings
        .iter()
        .find(|finding| finding["rule"] == "WorkdirRelativePath")
        .unwrap();
    let text = relative["instead"]["text"].as_str().unwrap();
    assert!(text.contains("\nWORKDIR /a\u{1b}[2Jb\n"), "{text:?}");
}

#[test]
fn a_check_is_a_document_for_programs() {
    let sandbox = unwise();
    let document = check(&sandbox, &["all", "--check", "--json"]).any_stdout().run().json();
    let image = &document["images"][0];
    assert_eq!(image["image"], "dev");
    assert_eq!(image["dockerfile"], "docker/dev/Dockerfile");
    let findings = image["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 5, "{document:#}");
    assert_eq!(findings[0]["rule"], "BaseWithoutVersion");
    assert_eq!(findings[0]["line"], 1);
    assert_eq!(findings[0]["instead"]["text"], "FROM debian:13");
    assert!(findings.iter().all(|finding| finding["costs"].is_string()));
    let sarif = check(&sandbox, &["dev", "--check=sarif"]).any_stdout().run().json();
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let rules = sarif["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(results.len(), 5);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "docker/dev/Dockerfile");
        assert!(place["region"]["startLine"].is_u64());
    }
}

#[test]
fn what_is_found_is_an_error_if_that_is_asked_for() {
    let sandbox = unwise();
    check(&sandbox, &["dev", "--check=error"]).code(1).any_stdout().run();
    check(&sandbox, &["dev", "--check=error,sarif"])
        .code(1)
        .any_stdout()
        .run();
    check(&sandbox, &["dev", "--check=eror"])
        .code(2)
        .stderr_has("error")
        .run();
    check(&sandbox, &["dev", "--check", "--layers"])
        .code(2)
        .stderr_has("cannot be used with")
        .run();
    check(&sandbox, &["nothing", "--check"])
        .code(2)
        .stderr_has("no image nothing")
        .run();
    let own = Sandbox::new().file("docker/dev/Dockerfile", format!("# check=error=true\n{UNWISE}"));
    check(&own, &["dev", "--check"]).code(1).any_stdout().run();
}

#[test]
fn rules_are_silenced_in_the_dockerfile_and_in_the_section() {
    let config = "[dev]\ncheck_skip = BaseWithoutVersion, UnsortedPackages\n";
    let sandbox = Sandbox::new()
        .file(
            "docker/dev/Dockerfile",
            format!("# check=skip=SecretsUsedInArgOrEnv,AptListsStays\n{UNWISE}"),
        )
        .file("docker/dockerutils.cfg", config);
    check(&sandbox, &["dev", "--check"])
        .stdout_has("docker/dev/Dockerfile: 2 warnings\n")
        .stderr_has("docker/dev/Dockerfile: # check: there is no rule AptListsStays (did you mean AptListsStay?)")
        .run();
}

#[test]
fn a_broken_dockerfile_has_its_error_and_what_was_found_before() {
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", "FROM debian\nRNU x\nMAINTAINER ann\n");
    check(&sandbox, &["dev", "--check"])
        .code(1)
        .stdout_has("docker/dev/Dockerfile:1: warning: BaseWithoutVersion")
        .stdout_has("docker/dev/Dockerfile:2: error: unknown instruction: RNU (did you mean RUN?)\n")
        .stdout_has("docker/dev/Dockerfile: 1 warning\n")
        .run();
}

#[test]
fn a_check_knows_the_project_around_the_dockerfile() {
    let sandbox = Sandbox::new()
        .file("docker/base/Dockerfile", "FROM debian:13-slim\nUSER 1000\n")
        .file(
            "docker/dev/Dockerfile",
            "FROM sample-base:0.9\nCOPY . /src\nCOPY data /data\nCMD [\"python\", \"/src/app.py\"]\n",
        )
        .file(
            "docker/dockerutils.cfg",
            "[base]\ntag = 1.0\n[dev]\nimage_repo = example.org/\n",
        )
        .file(".dockerignore", "data\n")
        .file(".env", "TOKEN=1\n")
        .file(".git/config", "");
    let outcome = check(&sandbox, &["dev", "--check", "--json"]).any_stdout().run().json();
    let findings = outcome["images"][0]["findings"].as_array().unwrap();
    let rules: Vec<&str> = findings
        .iter()
        .map(|finding| finding["rule"].as_str().unwrap())
        .collect();
    for rule in [
        "OtherTagOfProject",
        "SecretFileCopied",
        "GitHistoryCopied",
        "CopyIgnoredFile",
        "NoSourceLabel",
    ] {
        assert!(rules.contains(&rule), "{rule}: {rules:?}");
    }
    assert_eq!(findings[0]["instead"]["text"], "FROM sample-base:1.0");
}

#[test]
fn a_build_says_what_is_serious_once_for_each_change() {
    let sandbox = Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\nARG API_TOKEN\nARG PASSWORD\n");
    let engine = building();
    let said = "docker/dev/Dockerfile: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\") (line 2), and 1 more like it: \
                build-image dev --check says what to write instead";
    let build = || classic(&sandbox, &engine).arg("dev").any_stdout().any_stderr().run();
    assert!(build().stderr.contains(said));
    assert!(!build().stderr.contains("--check"));
    sandbox.write(
        "docker/dev/Dockerfile",
        "FROM scratch\nARG API_TOKEN\nARG PASSWORD\nENV A=1\n",
    );
    assert!(build().stderr.contains(said));
    // Nothing serious, nothing said.
    sandbox.write("docker/dev/Dockerfile", "FROM scratch\n");
    assert!(!build().stderr.contains("--check"));
}
