//! The real `tag-stack` in a sandbox, with a scripted registry: help, what is promoted and refused, each error with its hint, and
//! what is left when a registry fails in the middle.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use dockerutils_test_support::{Invocation, Misbehaviour, Sandbox, ScriptedRegistry, wait};
use registry_client::{Attachment, Digest, Options, Registry, RegistryCredentials};
use serde_json::{Value, json};

const ARTIFACT_TYPE: &str = "application/vnd.dockerutils.stack.verdict.v1+json";

/// A registry with two images of the tag `1.10-main`, the first of which is `1.10-stable` in an older form.
fn registry() -> ScriptedRegistry {
    let registry = ScriptedRegistry::start();
    registry.store(|store| {
        store.image("base", "1.10-main", "base new", &json!({}));
        store.image("base", "1.10-stable", "base old", &json!({}));
        store.image("leaf", "1.10-main", "leaf new", &json!({}));
    });
    registry
}

/// The same, with verdicts of the images' basic tests.
fn tested(base: bool, leaf: bool) -> ScriptedRegistry {
    let registry = registry();
    verdict(&registry, "base", base, "2026-10-02T10:00:00Z");
    verdict(&registry, "leaf", leaf, "2026-10-02T10:00:00Z");
    registry
}

/// Attaches a verdict of the basic tests, without a signature, to what `1.10-main` of an image names.
fn verdict(registry: &ScriptedRegistry, image: &str, passed: bool, finished: &str) {
    verdict_of(registry, image, "basic", passed, finished);
}

/// The same, of any kind of tests; by hand, as another program would.
fn verdict_of(registry: &ScriptedRegistry, image: &str, kind: &str, passed: bool, finished: &str) {
    let digest = registry.store(|store| store.tag(image, "1.10-main")).unwrap();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": format!("{}/{image}", registry.address()),
            "digest": { "sha256": digest.strip_prefix("sha256:").unwrap() },
        }],
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": if passed { "PASSED" } else { "FAILED" },
            "configuration": [{ "name": kind }],
            "io.dockerutils.stack": { "kind": kind, "tests": 3, "failures": u64::from(!passed), "finishedOn": finished },
        },
    });
    let attachment = Attachment {
        artifact_type: ARTIFACT_TYPE.to_owned(),
        annotations: std::collections::BTreeMap::new(),
        media_type: "application/vnd.in-toto+json".to_owned(),
        blob: statement.to_string().into(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Registry::connect(registry.address(), RegistryCredentials::Anonymous, Options::default()).await;
        let digest = Digest::parse(&digest).unwrap();
        client.unwrap().attach(image, &digest, &attachment).await.unwrap();
    });
}

fn stack(registry: &ScriptedRegistry) -> Sandbox {
    stack_at(registry.address())
}

fn stack_at(address: &str) -> Sandbox {
    Sandbox::new().file(
        "images/spec.yml",
        format!(
            "tag: {{prefix: 1.10}}\nimages:\n  base: {{image_name: {address}/base}}\n  leaf: {{image_name: {address}/leaf, \
             depend_on: base}}\n"
        ),
    )
}

fn tag_stack(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("tag-stack")
}

fn promote(sandbox: &Sandbox) -> Invocation<'_> {
    tag_stack(sandbox).args(["1.10-main", "1.10-stable"])
}

/// What a tag of both images names.
fn tags(registry: &ScriptedRegistry, tag: &str) -> [Option<String>; 2] {
    registry.store(|store| ["base", "leaf"].map(|image| store.tag(image, tag)))
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    tag_stack(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    tag_stack(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn what_proved_good_is_promoted() {
    let registry = tested(true, true);
    let sandbox = stack(&registry);
    promote(&sandbox)
        .stdout_has("    basic tests passed (3) at 2026-10-02T10:00:00Z, not signed\n")
        .stdout_has("    there is no 1.10-stable yet\n")
        .stderr_has("the verdicts are not checked by a key")
        .run();
    assert_eq!(tags(&registry, "1.10-stable"), tags(&registry, "1.10-main"));
    // And on to the tag of all.
    tag_stack(&sandbox)
        .args(["1.10-stable", "stable", "-q"])
        .any_stdout()
        .any_stderr()
        .run();
    assert_eq!(tags(&registry, "stable"), tags(&registry, "1.10-main"));
    promote(&sandbox)
        .stdout_has("1.10-stable is ")
        .stdout_has(" already  (")
        .any_stderr()
        .run();
    assert!(registry.requests("GET /v2/base/blobs/uploads").is_empty());
}

#[test]
fn a_dry_run_shows_and_changes_nothing() {
    let registry = tested(true, true);
    let sandbox = stack(&registry);
    let before = tags(&registry, "1.10-stable");
    let document = promote(&sandbox)
        .args(["--dry-run", "--json"])
        .any_stdout()
        .run()
        .json();
    assert_eq!(document["promoted"], json!(false));
    assert_eq!(document["images"][0]["action"], json!("move"));
    assert_eq!(document["images"][0]["before"], json!(before[0].clone().unwrap()));
    assert_eq!(document["images"][0]["verdicts"][0]["signature"], json!("none"));
    assert_eq!(document["images"][1]["before"], Value::Null);
    assert_eq!(document["images"][1]["changes"][0]["kind"], json!("new"));
    assert_eq!(tags(&registry, "1.10-stable"), before);
    let document = promote(&sandbox).arg("--json").any_stdout().any_stderr().run().json();
    assert_eq!(document["promoted"], json!(true));
    assert_eq!(document["images"][1]["result"], json!("moved"));
}

#[test]
fn what_did_not_prove_good_is_refused_unless_forced() {
    let registry = tested(true, false);
    let sandbox = stack(&registry);
    let before = tags(&registry, "1.10-stable");
    promote(&sandbox)
        .code(1)
        .any_stdout()
        .stderr_has("1 of 2 images did not prove good: leaf: 1 of its basic tests failed at 2026-10-02T10:00:00Z")
        .stderr_has("hint: test-stack 1.10-main; to promote them all the same: --force")
        .run();
    let document = promote(&sandbox)
        .arg("--json")
        .code(1)
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert_eq!(document["kind"], json!("failed"));
    assert_eq!(document["images"][1]["objections"][0]["kind"], json!("failed"));
    assert_eq!(tags(&registry, "1.10-stable"), before);
    // A newer success counts in its place.
    verdict(&registry, "leaf", true, "2026-10-02T11:00:00Z");
    promote(&sandbox).any_stdout().any_stderr().run();
    let untested = self::registry();
    let sandbox = stack(&untested);
    promote(&sandbox)
        .code(1)
        .any_stdout()
        .stderr_has("2 of 2 images did not prove good: base: it has no verdict, leaf: it has no verdict")
        .run();
    promote(&sandbox)
        .arg("--force")
        .any_stdout()
        .stderr_has("promoted by --force: 2 images did not prove good")
        .run();
    assert_eq!(tags(&untested, "1.10-stable"), tags(&untested, "1.10-main"));
}

#[test]
fn with_a_key_a_verdict_without_a_signature_does_not_count() {
    let registry = tested(true, true);
    let sandbox = stack(&registry);
    let openssl = "openssl genpkey -algorithm ed25519 -out verdict.key; openssl pkey -in verdict.key -pubout -out \
                   verdict.pub; chmod 644 verdict.key";
    sandbox.program("/bin/sh").args(["-ec", openssl]).any_stderr().run();
    promote(&sandbox)
        .args(["--verdict-key", "verdict.pub"])
        .code(1)
        .stdout_has("    a verdict does not count: it is not signed\n")
        .stderr_has("base: it has no verdict")
        .run();
    promote(&sandbox)
        .env("DOCKERUTILS_VERDICT_KEY", sandbox.read("verdict.pub"))
        .code(1)
        .any_stdout()
        .stderr_has("base: it has no verdict")
        .run();
    promote(&sandbox)
        .args(["--verdict-key", "verdict.key"])
        .code(2)
        .stderr_has("others may read the key")
        .stderr_has("hint: chmod 600 ")
        .run();
}

#[test]
fn wrong_usage_is_code_2() {
    let registry = registry();
    let sandbox = stack(&registry);
    tag_stack(&sandbox).code(2).any_stderr().run();
    tag_stack(&sandbox)
        .args(["a/b", "stable"])
        .code(2)
        .stderr_has("\"a/b\" can't be a tag")
        .run();
    tag_stack(&sandbox)
        .args(["stable", "stable"])
        .code(2)
        .stderr_has("\"stable\" is to get the tag that it has")
        .run();
    promote(&sandbox)
        .args(["--plan", "2.0"])
        .code(2)
        .stderr_has("there is no plan \"2.0\"")
        .run();
    promote(&sandbox)
        .args(["--dir", "nowhere"])
        .code(2)
        .stderr_has("nowhere/spec.yml can't be read")
        .run();
}

#[test]
fn an_image_that_is_absent_stops_all() {
    let registry = tested(true, true);
    registry.store(|store| store.forget("leaf", "1.10-main"));
    let before = tags(&registry, "1.10-stable");
    let sandbox = stack(&registry);
    promote(&sandbox)
        .arg("--force")
        .code(1)
        .any_stdout()
        .stderr_has(&format!("there is no {}/leaf:1.10-main", registry.address()))
        .stderr_has("hint: see which images there are: plan-stack --tags")
        .run();
    assert_eq!(tags(&registry, "1.10-stable"), before);
    assert!(registry.requests("PUT /v2/base/manifests/1.10-stable").is_empty());
}

#[test]
fn a_refusal_is_never_taken_for_absence() {
    for status in [401, 403, 500, 503] {
        for part in [
            "leaf/manifests/1.10-main",
            "leaf/manifests/1.10-stable",
            "leaf/manifests/sha256-",
        ] {
            let registry = tested(true, true);
            let before = tags(&registry, "1.10-stable");
            let path = format!("GET /v2/{part}");
            registry.interfere(move |request, _| request.starts_with(&path).then_some(Misbehaviour::Status(status)));
            let sandbox = stack(&registry);
            let outcome = promote(&sandbox)
                .args(["--json", "--force"])
                .code(1)
                .any_stdout()
                .any_stderr()
                .run();
            assert!(
                outcome.json()["error"].as_str().unwrap().contains("/leaf"),
                "{status} {part}"
            );
            assert_eq!(tags(&registry, "1.10-stable"), before);
        }
    }
    promote(&stack_at("127.0.0.1:1"))
        .code(3)
        .stderr_has("127.0.0.1:1")
        .run();
}

/// A registry with tested images, of which `leaf` has another under the tag that is moved.
fn tested_with_an_older_leaf() -> ScriptedRegistry {
    let registry = tested(true, true);
    registry.store(|store| {
        store.image("leaf", "1.10-stable", "leaf old", &json!({}));
    });
    registry
}

#[test]
fn a_registry_that_fails_in_the_middle_is_as_it_was() {
    let registry = tested_with_an_older_leaf();
    let before = tags(&registry, "1.10-stable");
    registry
        .interfere(|request, _| (request == "PUT /v2/leaf/manifests/1.10-stable").then_some(Misbehaviour::Status(500)));
    let sandbox = stack(&registry);
    promote(&sandbox)
        .code(1)
        .any_stdout()
        .stderr_has("no image was promoted: ")
        .stderr_has("the registry answers 500")
        .run();
    assert_eq!(tags(&registry, "1.10-stable"), before);
    let document = promote(&sandbox)
        .arg("--json")
        .code(1)
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert_eq!(document["promoted"], json!(false));
    assert!(["restored", "not_moved"].contains(&document["images"][0]["result"].as_str().unwrap()));
    assert_eq!(document["images"][1]["result"], json!("not_moved"));
}

#[test]
fn an_interruption_in_the_middle_of_a_write_is_answered_at_once() {
    let registry = tested_with_an_older_leaf();
    let before = tags(&registry, "1.10-stable");
    let write = "PUT /v2/leaf/manifests/1.10-stable";
    registry.interfere(move |request, _| (request == write).then_some(Misbehaviour::Silence));
    let sandbox = stack(&registry);
    let running = promote(&sandbox).spawn();
    wait::until("leaf's tag is written", || !registry.requests(write).is_empty());
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    let said = "interrupted: the tags that were moved are put back";
    assert!(outcome.stderr.contains(said), "{outcome}");
    assert!(outcome.stderr.contains("no image was promoted: "), "{outcome}");
    assert_eq!(tags(&registry, "1.10-stable"), before);
}

#[test]
fn who_interrupts_again_is_told_what_is_left() {
    let registry = tested(true, true);
    let before = tags(&registry, "1.10-stable");
    let write = "PUT /v2/base/manifests/1.10-stable";
    let mut is_gone = false;
    registry.interfere(move |request, _| {
        is_gone |= request == write;
        is_gone.then_some(Misbehaviour::Silence)
    });
    let sandbox = stack(&registry);
    let running = promote(&sandbox).spawn();
    wait::until("base's tag is written", || !registry.requests(write).is_empty());
    running.interrupt();
    running.wait_for_stderr("interrupt it again to leave them");
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    let address = registry.address();
    let old = before[0].clone().unwrap();
    for said in [
        format!("could not be put back: {address}/base:1.10-stable"),
        format!("docker buildx imagetools create --tag {address}/base:1.10-stable {address}/base@{old}"),
    ] {
        assert!(outcome.stderr.contains(&said), "{outcome}");
    }
}

#[test]
fn no_registry_is_asked_while_somebody_types() {
    for shell in ["bash", "zsh", "fish"] {
        let sandbox = Sandbox::new();
        let script = tag_stack(&sandbox)
            .args(["--dockerutils-describe", shell])
            .any_stdout()
            .run();
        assert!(!script.stdout.contains("--dockerutils-complete"), "{shell}");
    }
}

#[test]
fn a_verdict_is_needed_of_each_kind_of_tests_that_an_image_has() {
    let registry = tested(true, true);
    let sandbox = stack(&registry)
        .dir("images/leaf/test")
        .dir("images/base/integration_tests");
    let spec = sandbox
        .read("images/spec.yml")
        .replace("/base}", "/base, integration_tests: true}");
    sandbox.write("images/spec.yml", spec);
    promote(&sandbox)
        .code(1)
        .any_stdout()
        .stderr_has("1 of 2 images did not prove good: base: it has no verdict of its integration tests\n")
        .stderr_has("hint: test-stack 1.10-main; ")
        .run();
    verdict_of(&registry, "base", "integration", true, "2026-10-02T10:00:00Z");
    promote(&sandbox).any_stdout().any_stderr().run();
    // One of another kind is not enough.
    let other = self::registry();
    verdict_of(&other, "base", "basic", true, "2026-10-02T10:00:00Z");
    verdict_of(&other, "leaf", "workflow", true, "2026-10-02T10:00:00Z");
    let sandbox = stack(&other).dir("images/leaf/test");
    let document = promote(&sandbox)
        .arg("--json")
        .code(1)
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    assert_eq!(
        document["images"][1]["objections"],
        json!([{ "kind": "not_tested", "tests": "basic" }])
    );
}

#[test]
fn a_failure_of_a_time_to_come_is_said_and_stops_nobody() {
    let registry = tested(true, true);
    verdict(&registry, "leaf", false, "9999-01-01T00:00:00Z");
    promote(&stack(&registry))
        .stdout_has("    a verdict does not count: its time is still to come\n")
        .any_stderr()
        .run();
}
