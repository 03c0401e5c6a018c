//! The real `build-stack` in a sandbox, with a repository of git and a scripted registry: help, what needs no engine, and each error
//! with its hint.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking"
)]

use std::collections::BTreeMap;

use dockerutils_core::cli::{Context, GlobalArgs};
use dockerutils_core::env::Env;
use dockerutils_core::output::{Printer, Verbosity};
use dockerutils_stack::input_digest::{ANNOTATION, Inputs};
use dockerutils_stack::planning::{Stack, StackSelection};
use dockerutils_test_support::{Invocation, Misbehaviour, Reply, Sandbox, ScriptedEngine, ScriptedRegistry, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A stack of two images in the registry at this address, committed on branch main.
fn stack(address: &str) -> Sandbox {
    let spec = format!(
        "tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {address}/base}}\n  leaf: {{image_name: {address}/leaf, \
         depend_on: base}}\n"
    );
    let sandbox = Sandbox::new()
        .file("images/spec.yml", spec)
        .file("images/base/Dockerfile", "FROM scratch\nCOPY file /\n")
        .file("images/base/file", "one\n")
        .file(
            "images/leaf/Dockerfile",
            format!("ARG BASE_TAG\nFROM {address}/base:$BASE_TAG\n"),
        );
    sandbox.shell("git init -q -b main");
    sandbox.commit("first");
    sandbox
}

fn build_stack(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("build-stack")
}

/// What both images are made from now, as their annotations have it.
fn annotations(sandbox: &Sandbox) -> Vec<String> {
    let env = Env::from_pairs([("HOME", sandbox.home().to_str().unwrap())]);
    let printer = Printer::new("build-stack", Verbosity::Quiet, false, &env);
    let context = Context::new(env, sandbox.project().to_owned(), printer, GlobalArgs::default(), None);
    let stack = Stack::read(&context, &StackSelection::default()).unwrap();
    let mut all: Vec<Inputs> = Vec::new();
    for target in &stack.targets {
        let parent = target.parent.map(|parent| all[parent].digest());
        all.push(Inputs::of(&stack.graph, target, parent.as_deref(), &BTreeMap::new()).unwrap());
    }
    all.iter()
        .map(|inputs| serde_json::to_string(inputs).unwrap())
        .collect()
}

fn absent() -> Reply {
    let code = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] });
    Reply::json(404, &code)
}

/// A registry that has both images under the tag of main, as they are now; and the stack, on branch work. What else it does is
/// added by `with`; in a path, the API's `/v2` is left out.
fn published(with: impl FnOnce(ScriptedEngine) -> ScriptedEngine) -> (Sandbox, ScriptedEngine) {
    let registry = ScriptedEngine::start().on("GET", "/", Reply::json(200, &json!({})));
    let sandbox = stack(&registry.tcp());
    let mut registry = with(registry);
    for (name, inputs) in ["base", "leaf"].into_iter().zip(annotations(&sandbox)) {
        let blob = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [],
            "annotations": { ANNOTATION: inputs } });
        let reply = || Reply::bytes(manifest.to_string()).header("Content-Type", MANIFEST);
        registry = registry.on("GET", &format!("/{name}/manifests/1.10-main"), reply()).on(
            "GET",
            &format!("/{name}/manifests/sha256:*"),
            reply(),
        );
    }
    let registry = registry
        .on("GET", "/*/manifests/*", absent())
        .on("HEAD", "/*/manifests/*", Reply::empty(404));
    sandbox.shell("git switch -q -c work");
    (sandbox, registry)
}

/// The paths that were written.
fn written(registry: &ScriptedEngine) -> Vec<String> {
    let requests = registry.requests();
    let written = requests.iter().filter(|request| request.method == "PUT");
    written.map(|request| request.path.clone()).collect()
}

fn created() -> Reply {
    Reply::empty(201)
}

fn statuses(document: &Value) -> Vec<&str> {
    let images = document["images"].as_array().unwrap().iter();
    images.map(|image| image["status"].as_str().unwrap()).collect()
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    build_stack(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    build_stack(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn names_of_images_are_completed_without_a_registry() {
    // Nothing listens there.
    let sandbox = stack("127.0.0.1:1").dir("notebooks/deep");
    for directory in ["", "notebooks/deep"] {
        build_stack(&sandbox)
            .args(["--dockerutils-complete", "stack"])
            .current_dir(directory)
            .stdout("base\nleaf\n")
            .run();
    }
    let script = build_stack(&sandbox).args(["--dockerutils-describe", "bash"]);
    script
        .stdout_has("    --only)\n        _dockerutils_words build-stack stack ")
        .run();
}

#[test]
fn wrong_usage_is_code_2() {
    let sandbox = Sandbox::new();
    build_stack(&sandbox)
        .args(["base", "--only", "base"])
        .code(2)
        .stderr_has("cannot be used with")
        .run();
    build_stack(&sandbox)
        .code(2)
        .stderr_has("has no stack: there is no spec.yml in images/ or docker/")
        .stderr_has("hint: name the directory that has it: --dir DIR")
        .run();
    let (sandbox, _registry) = published(|registry| registry);
    build_stack(&sandbox)
        .arg("laef")
        .code(2)
        .stderr_has("the stack has no image \"laef\"")
        .stderr_has("hint: did you mean leaf?")
        .run();
}

#[test]
fn what_is_there_is_copied_without_an_engine() {
    let (sandbox, registry) = published(|registry| registry.on("PUT", "/*/manifests/1.10-work", created()));
    let outcome = build_stack(&sandbox)
        .args(["--base", "main"])
        .stdout_has("base   copied")
        .stdout_has("leaf   copied")
        .stderr_has("the same is there as 1.10-main")
        .run();
    assert_eq!(outcome.stdout.lines().count(), 3, "{outcome}");
    let mut paths = written(&registry);
    paths.sort();
    assert_eq!(paths, ["/base/manifests/1.10-work", "/leaf/manifests/1.10-work"]);
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let (sandbox, registry) = published(|registry| registry);
    build_stack(&sandbox)
        .args(["--base", "main", "--dry-run"])
        .stdout_has("base: copy ")
        .stdout_has("└── leaf: copy ")
        .run();
    let document = build_stack(&sandbox)
        .args(["--base", "main", "--dry-run", "--json"])
        .any_stdout()
        .run()
        .json();
    assert_eq!(document["images"][1]["action"], "copy");
    build_stack(&sandbox)
        .args(["--base", "main", "--no-push", "--json"])
        .any_stdout()
        .run();
    assert_eq!(written(&registry), Vec::<String>::new());
}

#[test]
fn a_refused_copy_stops_its_children_and_is_named() {
    let (sandbox, registry) = published(|registry| {
        registry.on("PUT", "/base/manifests/1.10-work", Reply::empty(507)).on(
            "PUT",
            "/leaf/manifests/1.10-work",
            created(),
        )
    });
    let outcome = build_stack(&sandbox)
        .args(["--base", "main", "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("/base:1.10-work")
        .stderr_has("1 of 2 images failed: base; skipped, as they start from these: leaf")
        .run();
    let document = outcome.json();
    assert_eq!(statuses(&document), ["failed", "skipped"]);
    assert!(
        document["images"][0]["error"].as_str().unwrap().contains("507"),
        "{document}"
    );
    assert_eq!(document["images"][1]["error"], "it starts from base, which failed");
    assert!(document["error"].as_str().unwrap().starts_with("1 of 2 images failed"));
    assert_eq!(written(&registry), ["/base/manifests/1.10-work"]);
}

#[test]
fn what_must_be_built_needs_an_engine() {
    let (sandbox, registry) = published(|registry| registry);
    build_stack(&sandbox)
        .arg("--all")
        .code(3)
        .stderr_has("base: build ")
        .stderr_has("hint: ")
        .run();
    assert_eq!(written(&registry), Vec::<String>::new());
}

#[test]
fn who_writes_skip_ci_gets_nothing_in_ci() {
    let (sandbox, registry) = published(|registry| registry.on("PUT", "/*/manifests/1.10-work", created()));
    sandbox.write("images/README.md", "words");
    sandbox.commit("Words [skip ci]");
    let gitlab = || {
        build_stack(&sandbox)
            .env("GITLAB_CI", "true")
            .env("CI_COMMIT_BRANCH", "work")
    };
    gitlab()
        .stderr("nothing is built: GitLab CI is asked to skip this: \"skip ci\"\n")
        .run();
    let document = gitlab().arg("--json").any_stdout().run().json();
    assert_eq!(document["images"], json!([]));
    assert!(document["skipped"].as_str().unwrap().contains("skip ci"));
    assert_eq!(written(&registry), Vec::<String>::new());
    // By hand, it is what somebody wants now.
    build_stack(&sandbox)
        .args(["--base", "main"])
        .any_stdout()
        .any_stderr()
        .run();
    assert_eq!(written(&registry).len(), 2);
}

/// Two runs in two clones of the same repository, on the same branch.
#[test]
fn two_clones_that_make_the_same_tags_wait_for_each_other() {
    let (sandbox, registry) = published(|registry| {
        registry
            .on("PUT", "/base/manifests/1.10-work", Reply::hang())
            .on("PUT", "/*/manifests/*", created())
    });
    sandbox.shell("cp -R . ../clone; cp -R . ../third; git -C ../third switch -q -c other");
    let first = build_stack(&sandbox).args(["--base", "main"]).code(-9).spawn();
    wait::until("the first writes", || !written(&registry).is_empty());
    registry.answer("PUT", "/base/manifests/1.10-work", created());
    let second = build_stack(&sandbox)
        .current_dir("../clone")
        .args(["--base", "main"])
        .spawn();
    second.wait_for_stderr("waiting for another build-stack (process ");
    // Another branch has other tags.
    build_stack(&sandbox)
        .current_dir("../third")
        .args(["--base", "main"])
        .stdout_has("base   copied")
        .any_stderr()
        .run();
    first.signal(Signal::KILL);
    first.wait();
    let outcome = second.wait();
    assert!(outcome.stdout.contains("leaf   copied"), "{outcome}");
    assert_eq!(outcome.code, 0, "{outcome}");
    assert!(written(&registry).contains(&"/leaf/manifests/1.10-work".to_owned()));
}

/// Somebody gives the tag to another image while this one is tested.
#[test]
fn what_is_another_image_by_now_is_not_pushed() {
    let (sandbox, registry) = published(|registry| registry);
    let sandbox = sandbox.script(
        "images/base/test/waits",
        "#!/bin/sh\ntouch began\nwhile [ ! -e go ]; do sleep 0.05; done\n",
    );
    let said = [
        json!({ "stream": "Step 1/1 : FROM scratch\n" }),
        json!({ "aux": { "ID": "sha256:1" } }),
        json!({ "stream": "Successfully built 1\n" }),
    ];
    let image = |id: &str| Reply::json(200, &json!({ "Id": id, "Os": "linux", "Architecture": "amd64" }));
    let path = "/images/*/base:1.10-work/json";
    let engine = ScriptedEngine::start()
        .on("POST", "/build", Reply::stream(&said))
        .on("GET", path, image("sha256:1"));
    let running = build_stack(&sandbox)
        .engine(&engine)
        .env("DOCKER_BUILDKIT", "0")
        .args(["--all", "--only", "base"])
        .spawn();
    wait::until("its test runs", || sandbox.project().join("began").exists());
    engine.answer("GET", path, image("sha256:2"));
    sandbox.write("go", "");
    let outcome = running.wait();
    assert_eq!(outcome.code, 1, "{outcome}");
    let says = "/base:1.10-work is another image now on ";
    assert!(outcome.stderr.contains(says), "{outcome}");
    assert!(
        outcome.stderr.contains("somebody gave it the name meanwhile"),
        "{outcome}"
    );
    let pushes = engine
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/push"))
        .count();
    assert_eq!((pushes, written(&registry)), (0, Vec::new()), "{outcome}");
}

/// A stack whose images a registry has as they are now, and an engine that holds `base`. `base` has a basic test, which notes that it
/// ran, and a folder for integration tests without a test; nothing is said of either.
fn untested() -> (Sandbox, ScriptedRegistry, ScriptedEngine) {
    let registry = ScriptedRegistry::start();
    let address = registry.address();
    let sandbox = stack(address).script("images/base/test/check", "#!/bin/sh\necho \"$TEST_IMAGE\" >> ran\n");
    let spec = sandbox
        .read("images/spec.yml")
        .replace("/base}", "/base, integration_tests: true}");
    sandbox.write("images/spec.yml", spec);
    sandbox.write("images/base/integration_tests/README.md", "later");
    sandbox.commit("tests");
    for (name, inputs) in ["base", "leaf"].into_iter().zip(annotations(&sandbox)) {
        registry.store(|store| store.image(name, "1.10-main", name, &json!({ ANNOTATION: inputs })));
    }
    let digest = registry.store(|store| store.tag("base", "1.10-main")).unwrap();
    let held = json!({ "Id": "sha256:1", "Os": "linux", "Architecture": "amd64",
        "RepoDigests": [format!("{address}/base@{digest}")] });
    let engine = ScriptedEngine::start()
        .on("GET", "/info", Reply::json(200, &json!({ "ID": "the-engine" })))
        .on(
            "GET",
            &format!("/images/{address}/base:1.10-main/json"),
            Reply::json(200, &held),
        );
    (sandbox, registry, engine)
}

#[test]
fn what_a_killed_build_left_without_a_verdict_is_tested_and_not_built() {
    let (sandbox, registry, engine) = untested();
    build_stack(&sandbox)
        .arg("--dry-run")
        .stdout_has("its basic and integration tests have no verdict: they did not end, or nobody ran them")
        .any_stderr()
        .run();
    let document = build_stack(&sandbox)
        .engine(&engine)
        .arg("--json")
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert_eq!(statuses(&document), ["tested", "unchanged"]);
    let reference = format!("{}/base:1.10-main", registry.address());
    assert_eq!(sandbox.read("ran"), format!("{reference}\n"));
    let posts = engine.requests().into_iter().filter(|request| request.method == "POST");
    assert_eq!(posts.map(|request| request.path).collect::<Vec<_>>(), [""; 0]);
    // It is known now, also of the folder without a test; on any machine.
    let elsewhere = sandbox.home().join("elsewhere");
    let document = build_stack(&sandbox)
        .env("XDG_STATE_HOME", &elsewhere)
        .arg("--json")
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert_eq!(statuses(&document), ["unchanged", "unchanged"]);
    assert_eq!(sandbox.read("ran"), format!("{reference}\n"));
}

#[test]
fn who_tests_or_pushes_nothing_does_not_test_what_is_there() {
    let (sandbox, registry, _engine) = untested();
    for option in ["--no-test", "--no-push"] {
        let document = build_stack(&sandbox)
            .args([option, "--json"])
            .any_stdout()
            .any_stderr()
            .run()
            .json();
        assert_eq!(statuses(&document), ["unchanged", "unchanged"], "{option}");
    }
    assert!(registry.requests("PUT").is_empty());
}

#[test]
fn tests_pass_where_the_registry_takes_no_verdicts_and_that_is_said() {
    let (sandbox, registry, engine) = untested();
    registry.interfere(|request, _| {
        let is_verdict = request.starts_with("PUT /v2/base/manifests/sha256:");
        is_verdict.then_some(Misbehaviour::Status(415))
    });
    let document = build_stack(&sandbox)
        .engine(&engine)
        .arg("--json")
        .any_stdout()
        .stderr_has("the registry takes no verdict of base: its basic tests run again with the next build-stack, and tag-stack needs --force: ")
        .run()
        .json();
    assert_eq!(statuses(&document), ["tested", "unchanged"]);
    // A refusal of the user is an error.
    registry.interfere(|request, _| {
        let is_verdict = request.starts_with("PUT /v2/base/manifests/sha256:");
        is_verdict.then_some(Misbehaviour::Status(403))
    });
    build_stack(&sandbox)
        .engine(&engine)
        .code(1)
        .any_stdout()
        .stderr_has("1 of 2 images failed: base")
        .run();
}
