//! The real `plan-stack` in a sandbox, with a repository of git and a scripted registry: help, plans in all their forms, and each
//! error with its hint.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a harness fails its test by panicking"
)]

use dockerutils_test_support::{Invocation, Reply, Sandbox, ScriptedEngine, ScriptedRegistry};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ANNOTATION: &str = "io.dockerutils.stack.inputs";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A stack of two images in the registry at this address, committed on branch main.
fn stack(address: &str) -> Sandbox {
    let sandbox = Sandbox::new()
        .file(
            "images/spec.yml",
            format!(
                "tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {address}/base}}\n  leaf: {{image_name: \
                 {address}/leaf, depend_on: base}}\n"
            ),
        )
        .file("images/base/Dockerfile", "FROM scratch\nCOPY file /\n")
        .file("images/base/file", "one\n")
        .file("images/base/test/test_base.py", "")
        .file(
            "images/leaf/Dockerfile",
            format!("ARG BASE_TAG\nFROM {address}/base:$BASE_TAG\n"),
        );
    sandbox.shell("git init -q -b main");
    sandbox.commit("first");
    sandbox
}

fn plan_stack(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("plan-stack")
}

fn absent() -> Reply {
    Reply::json(
        404,
        &json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown" }] }),
    )
}

/// A registry without any image, but for those that `with` adds; in a path, the API's `/v2` is left out.
fn registry(with: impl FnOnce(ScriptedEngine) -> ScriptedEngine) -> ScriptedEngine {
    let registry = ScriptedEngine::start().on("GET", "/", Reply::json(200, &json!({})));
    with(registry).on("GET", "/*/manifests/*", absent())
}

/// A manifest that says what its image was made from.
fn image(inputs: &str) -> Reply {
    let blob = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" });
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [],
        "annotations": { ANNOTATION: inputs } });
    Reply::bytes(manifest.to_string()).header("Content-Type", MANIFEST)
}

/// What bake would write into the annotations of both images, if all were built now.
fn annotations(sandbox: &Sandbox) -> [String; 2] {
    let bake = plan_stack(sandbox)
        .args(["--bake", "--all"])
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    ["base", "leaf"].map(|name| {
        let said = bake["target"][name]["annotations"][0].as_str().unwrap().to_owned();
        said.strip_prefix(&format!("manifest:{ANNOTATION}="))
            .unwrap()
            .to_owned()
    })
}

/// A list of what is attached to an image: verdicts of its basic tests, each with its result and its time.
fn verdicts(said: &[(&str, &str)]) -> Value {
    let listed = said.iter().map(|(result, created)| {
        json!({ "mediaType": MANIFEST, "size": 2, "digest": format!("sha256:{}", "5".repeat(64)),
            "artifactType": "application/vnd.dockerutils.stack.verdict.v1+json",
            "annotations": { "io.dockerutils.stack.tests": "basic", "io.dockerutils.stack.result": result,
                "org.opencontainers.image.created": created } })
    });
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed.collect::<Vec<_>>() })
}

/// A stack whose images are in the registry under this tag as they are now, and passed their tests. (What they are made from is known when the
/// registry has its address, which is in a FROM: so it is told afterwards what it holds.)
fn published(tag: &str) -> (Sandbox, ScriptedEngine) {
    let engine = ScriptedEngine::start().on("GET", "/", Reply::json(200, &json!({})));
    let engine = ["base", "leaf"].into_iter().fold(engine, |engine, name| {
        // Asked once by the plan that learns what they are made from.
        engine.on("GET", &format!("/{name}/manifests/{tag}"), absent())
    });
    let engine = engine.on("GET", "/*/manifests/*", absent());
    let passed = verdicts(&[("passed", "2026-10-02T10:00:00Z")]).to_string();
    let engine = engine.on(
        "GET",
        "/base/referrers/*",
        Reply::bytes(passed).header("Content-Type", INDEX),
    );
    let sandbox = stack(&engine.tcp());
    let [base, leaf] = annotations(&sandbox);
    let engine = engine.on("GET", &format!("/base/manifests/{tag}"), image(&base)).on(
        "GET",
        &format!("/leaf/manifests/{tag}"),
        image(&leaf),
    );
    // The last reply of a route is given until another follows it, and then once more.
    assert_eq!(actions(&sandbox, &[]), ["base build", "leaf build"]);
    (sandbox, engine)
}

fn actions(sandbox: &Sandbox, arguments: &[&str]) -> Vec<String> {
    let outcome = plan_stack(sandbox).arg("--json").args(arguments).any_stdout().run();
    let images = outcome.json()["images"].clone();
    let images = images.as_array().unwrap().iter();
    images
        .map(|image| {
            format!(
                "{} {}",
                image["image"].as_str().unwrap(),
                image["action"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    plan_stack(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    plan_stack(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn wrong_usage_and_specs_are_code_2() {
    let sandbox = Sandbox::new();
    plan_stack(&sandbox)
        .args(["--since", "x", "--base", "y"])
        .code(2)
        .stderr_has("cannot be used with")
        .run();
    plan_stack(&sandbox)
        .code(2)
        .stderr_has("has no stack: there is no spec.yml in images/ or docker/")
        .stderr_has("hint: name the directory that has it: --dir DIR")
        .run();
    let wrong = Sandbox::new().file("stack/spec.yml", "images:\n  a: {image_nam: x}\n");
    plan_stack(&wrong)
        .args(["--dir", "stack"])
        .code(2)
        .stderr(
            "plan-stack: [SANDBOX]/sample/stack/spec.yml:2:7: there is no key \"image_nam\" in images.a\n\nhint: did you \
             mean image_name?\n",
        )
        .run();
    let sandbox = stack("127.0.0.1:1");
    plan_stack(&sandbox)
        .args(["--plan", "1.11"])
        .code(2)
        .stderr_has("there is no plan \"1.11\"")
        .run();
    plan_stack(&sandbox)
        .args(["--since", "gone"])
        .code(2)
        .stderr_has("there is no commit \"gone\"")
        .run();
    sandbox.shell("git switch -q -c stable");
    plan_stack(&sandbox)
        .code(2)
        .stderr_has("would get the tag 1.10-stable of the images that proved good")
        .run();
}

#[test]
fn what_is_absent_is_built() {
    let registry = registry(|registry| registry);
    let address = registry.tcp();
    let sandbox = stack(&address);
    plan_stack(&sandbox)
        .stdout(&format!(
            "base: build  ({address}/base:1.10-main)\n│   there is no tag 1.10-main\n└── leaf: build  \
             ({address}/leaf:1.10-main)\n        its parent base is built\n        there is no tag 1.10-main\n"
        ))
        .stderr_has("2 images: 2 to build, 0 to copy, 0 to test again")
        .run();
    plan_stack(&sandbox).arg("--mermaid").stdout_has("n0 --> n1").run();
}

#[test]
fn a_tag_with_the_commit_is_of_what_was_committed() {
    let registry = registry(|registry| registry);
    let sandbox = stack(&registry.tcp());
    let spec = sandbox.read("images/spec.yml");
    sandbox.write(
        "images/spec.yml",
        spec.replace("prefix: 1.10", "prefix: 1.10, sha: true"),
    );
    sandbox.commit("tags with the commit");
    let tags = |says: &str| {
        let outcome = plan_stack(&sandbox).arg("--bake").stderr_has(says).any_stdout().run();
        outcome.json()["target"]["base"]["tags"].as_array().unwrap().len()
    };
    assert_eq!(tags(""), 2);
    sandbox.write("notes.txt", "beside the stack");
    assert_eq!(tags(""), 2);
    sandbox.write("images/base/file", "not committed");
    let says = "no image gets a tag with the commit, as base/file is not committed";
    plan_stack(&sandbox).stderr_has(says).any_stdout().run();
    assert_eq!(tags(""), 1);
}

#[test]
fn what_is_there_is_left_alone_until_it_changes() {
    let (sandbox, _registry) = published("1.10-main");
    assert_eq!(actions(&sandbox, &[]), ["base nothing", "leaf nothing"]);
    sandbox.write("images/base/README.md", "read me");
    assert_eq!(actions(&sandbox, &[]), ["base nothing", "leaf nothing"]);
    sandbox.write("images/base/test/test_base.py", "changed");
    sandbox.commit("a test");
    assert_eq!(actions(&sandbox, &["--since", "HEAD~1"]), ["base test", "leaf nothing"]);
    sandbox.write("images/base/file", "two");
    sandbox.commit("Two");
    plan_stack(&sandbox)
        .args(["--since", "HEAD~1"])
        .stdout_has("files of its context differ\n")
        .stdout_has(" Two\n")
        .stdout_has("its parent base is built\n")
        .any_stderr()
        .run();
}

#[test]
fn what_is_attached_says_what_an_image_without_annotations_was_made_from() {
    let engine = ScriptedEngine::start().on("GET", "/", Reply::json(200, &json!({})));
    let engine = engine.on("GET", "/base/manifests/1.10-main", absent());
    let engine = engine.on("GET", "/base/manifests/sha256-*", absent());
    let engine = engine.on("GET", "/*/manifests/*", absent());
    let sandbox = stack(&engine.tcp());
    let [base, _] = annotations(&sandbox);
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let blob = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": digest });
    let bare = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [] });
    let attached = |inputs: &str| {
        json!({ "mediaType": MANIFEST, "size": 2, "digest": digest, "annotations": { ANNOTATION: inputs },
            "artifactType": "application/vnd.dockerutils.stack.inputs.v1+json" })
    };
    // Builds from other inputs made the same image, and one of them is of these.
    let list = json!({ "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [attached("no JSON"), attached(&base), attached(&base.replace("sha256:", "sha256:0"))] });
    let _engine = engine
        .on(
            "GET",
            "/base/manifests/1.10-main",
            Reply::bytes(bare.to_string()).header("Content-Type", MANIFEST),
        )
        .on("GET", "/base/referrers/*", absent())
        .on(
            "GET",
            "/base/manifests/sha256-*",
            Reply::bytes(list.to_string()).header("Content-Type", INDEX),
        );
    // The image is absent, then it has no list, and then it has.
    assert_eq!(actions(&sandbox, &[]), ["base build", "leaf build"]);
    assert_eq!(actions(&sandbox, &[]), ["base build", "leaf build"]);
    assert_eq!(actions(&sandbox, &["--no-test"]), ["base nothing", "leaf build"]);
}

#[test]
fn a_new_branch_copies() {
    let (sandbox, _registry) = published("1.10-main");
    sandbox.shell("git switch -q -c work");
    assert_eq!(actions(&sandbox, &["--base", "main"]), ["base copy", "leaf copy"]);
    let github = |invocation: Invocation<'_>| -> Value {
        let invocation = invocation
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_HEAD_REF", "other/x");
        let outcome = invocation
            .env("GITHUB_BASE_REF", "main")
            .arg("--json")
            .any_stdout()
            .run();
        outcome.json()
    };
    let said = github(plan_stack(&sandbox));
    assert_eq!(
        (&said["branch"], &said["base_branch"]),
        (&json!("other/x"), &json!("main"))
    );
    assert!(
        said["images"][0]["reference"]
            .as_str()
            .unwrap()
            .ends_with("/base:1.10-other-x")
    );
    assert!(said["images"][0]["from"].as_str().unwrap().ends_with("/base:1.10-main"));
}

/// A stack whose images are in a registry under this tag as they are now; nothing is said of their tests.
fn untested(tag: &str) -> (Sandbox, ScriptedRegistry) {
    let registry = ScriptedRegistry::start();
    let sandbox = stack(registry.address());
    for (name, inputs) in ["base", "leaf"].into_iter().zip(annotations(&sandbox)) {
        registry.store(|store| store.image(name, tag, name, &json!({ ANNOTATION: inputs })));
    }
    (sandbox, registry)
}

/// Attaches verdicts of the basic tests to what a tag of an image names.
fn attach(registry: &ScriptedRegistry, image: &str, tag: &str, said: &[(&str, &str)]) {
    registry.store(|store| {
        let digest = store.tag(image, tag).unwrap();
        store.manifest(
            image,
            &digest.replace(':', "-"),
            INDEX,
            verdicts(said).to_string().as_bytes(),
        );
    });
}

#[test]
fn what_was_pushed_and_never_tested_is_to_be_tested() {
    let (sandbox, registry) = untested("1.10-main");
    plan_stack(&sandbox)
        .stdout_has("base: test again  (")
        .stdout_has("│   its basic tests have no verdict: they did not end, or nobody ran them\n")
        .stdout_has("└── leaf: nothing  (")
        .stderr_has("2 images: 0 to build, 0 to copy, 1 to test again")
        .run();
    let reasons = plan_stack(&sandbox).arg("--json").any_stdout().run().json()["images"][0]["reasons"].clone();
    assert_eq!(
        reasons,
        json!([{ "kind": "tests_unfinished", "unknown": ["basic"], "failed": [] }])
    );
    // Nobody is asked about an image without tests, and about others once.
    let asked = |image: &str| registry.requests(&format!("GET /v2/{image}/referrers/")).len();
    let before = asked("base");
    assert_eq!(actions(&sandbox, &[]), ["base test", "leaf nothing"]);
    assert_eq!((asked("base") - before, asked("leaf")), (1, 0));
    // Who tests by other means leaves tests out, and asks nothing.
    assert_eq!(actions(&sandbox, &["--no-test"]), ["base nothing", "leaf nothing"]);
    assert_eq!((asked("base") - before, asked("leaf")), (1, 0));
    attach(&registry, "base", "1.10-main", &[("failed", "2026-10-02T10:00:00Z")]);
    plan_stack(&sandbox)
        .stdout_has("│   its basic tests failed\n")
        .any_stderr()
        .run();
    attach(&registry, "base", "1.10-main", &[("passed", "2026-10-02T10:00:00Z")]);
    assert_eq!(actions(&sandbox, &[]), ["base nothing", "leaf nothing"]);
}

#[test]
fn what_is_copied_is_tested_where_it_never_was() {
    let (sandbox, registry) = untested("1.10-main");
    sandbox.shell("git switch -q -c work");
    let planned = || {
        let plan = plan_stack(&sandbox)
            .args(["--base", "main", "--json"])
            .any_stdout()
            .run()
            .json();
        ["base", "leaf"].map(|name| {
            let mut images = plan["images"].as_array().unwrap().iter();
            let image = images.find(|image| image["image"] == name).unwrap();
            (image["action"].as_str().unwrap().to_owned(), image["tests"] == true)
        })
    };
    let copy = |tests| ("copy".to_owned(), tests);
    assert_eq!(planned(), [copy(true), copy(false)]);
    let asked = registry.requests("GET /v2/base/referrers/").len();
    assert_eq!((asked, registry.requests("GET /v2/leaf/referrers/").len()), (1, 0));
    attach(&registry, "base", "1.10-main", &[("passed", "2026-10-02T10:00:00Z")]);
    assert_eq!(planned(), [copy(false), copy(false)]);
}

#[test]
fn a_verdict_of_a_time_to_come_is_said_and_does_not_count() {
    let (sandbox, registry) = untested("1.10-main");
    let failed = ("failed", "9999-01-01T00:00:00Z");
    attach(
        &registry,
        "base",
        "1.10-main",
        &[("passed", "2026-10-02T10:00:00Z"), failed],
    );
    plan_stack(&sandbox)
        .stdout_has("base: nothing  (")
        .stderr_has("base: a verdict does not count: its time is still to come")
        .run();
    attach(&registry, "base", "1.10-main", &[("passed", "9999-01-01T00:00:00Z")]);
    plan_stack(&sandbox)
        .stdout_has("base: test again  (")
        .stderr_has("base: a verdict does not count: its time is still to come")
        .run();
}

#[test]
fn a_refusal_is_never_taken_for_absence() {
    for (status, code) in [(401, 1), (403, 1), (500, 1), (503, 1)] {
        let registry = registry(|registry| registry.on("GET", "/leaf/manifests/1.10-main", Reply::empty(status)));
        let sandbox = stack(&registry.tcp());
        let outcome = plan_stack(&sandbox)
            .arg("--json")
            .code(code)
            .any_stdout()
            .any_stderr()
            .run();
        assert!(outcome.json()["error"].as_str().unwrap().contains("/leaf"), "{status}");
    }
    let sandbox = stack("127.0.0.1:1");
    plan_stack(&sandbox).code(3).stderr_has("127.0.0.1:1").run();
}

#[test]
fn tags_are_listed_with_their_branches() {
    let registry = registry(|registry| {
        let tags = json!({ "name": "base", "tags": ["1.10-main", "1.10-old", "1.10-stable", "3.13",
            format!("sha256-{}", "5".repeat(64))] });
        let none = json!({ "errors": [{ "code": "NAME_UNKNOWN" }] });
        let registry = registry.on("GET", "/base/tags/list", Reply::json(200, &tags));
        registry.on("GET", "/leaf/tags/list", Reply::json(404, &none))
    });
    let sandbox = stack(&registry.tcp());
    let listed = plan_stack(&sandbox)
        .args(["--tags", "--json"])
        .any_stdout()
        .run()
        .json();
    let kinds: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["branch", "gone", "stable", "other"]);
    plan_stack(&sandbox)
        .arg("--tags")
        .stdout_has("no branch any more")
        .run();
}

#[test]
fn ci_gets_a_summary_of_the_plan() {
    let registry = registry(|registry| registry);
    let sandbox = stack(&registry.tcp());
    let file = sandbox.write("../summary.md", "before\n");
    let on_github = |arguments: &[&str]| {
        let command = plan_stack(&sandbox).env("GITHUB_STEP_SUMMARY", &file).args(arguments);
        command.any_stdout().any_stderr().run();
        std::fs::read_to_string(&file).unwrap()
    };
    assert_eq!(on_github(&["--dry-run"]), "before\n");
    let text = on_github(&["--json"]);
    assert!(
        text.starts_with("before\n## Plan of the stack\n\n| Image | Action |"),
        "{text}"
    );
    assert!(
        text.contains("\n| leaf | build | <code>") && text.contains("\n```mermaid\nflowchart TD\n"),
        "{text}"
    );
    let on_gitlab = plan_stack(&sandbox)
        .env("GITLAB_CI", "true")
        .env("CI_COMMIT_BRANCH", "work");
    on_gitlab.any_stdout().any_stderr().run();
    assert!(
        sandbox
            .read("artifacts/summary.md")
            .contains("there is no tag 1.10-work")
    );
    // What CI does not take is a warning.
    let command = plan_stack(&sandbox)
        .env("GITHUB_STEP_SUMMARY", "/nowhere/summary.md")
        .any_stdout();
    command
        .stderr_has("the summary can't be written to GITHUB_STEP_SUMMARY=/nowhere/summary.md")
        .run();
}
