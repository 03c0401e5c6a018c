//! tag-stack and verdicts with Debian's registry, 50 ms away: what is promoted and refused, two runs at once, logins; and
//! what other programs (oras, openssl) make of verdicts.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockerutils_core::env::Env;
use dockerutils_stack::suites::TestKind;
use dockerutils_stack::verdicts::{self, ARTIFACT_TYPE, Verdict, VerdictKey};
use dockerutils_test_support::registry::Registry as Server;
use dockerutils_test_support::{Invocation, Sandbox, SlowLink, oras, process};
use registry_client::{Digest, EMPTY, MANIFEST, Options, Registry, RegistryCredentials, RemoteDescriptor, many};
use serde_json::{Value, json};

const ROUND_TRIP: Duration = Duration::from_millis(50);
const IMAGES: [&str; 8] = ["base", "science", "ml", "desktop", "r", "julia", "gpu", "course"];
const FROM: &str = "2026.3-main";
const TO: &str = "2026.3-stable";
/// When tests passed, failed, and passed again.
const OLDER: &str = "2026-03-01T10:00:00Z";
const FAILED: &str = "2026-03-02T10:00:00Z";
const NEWER: &str = "2026-03-03T10:00:00Z";

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

/// A registry behind a slow link, with a stack of eight images that it does not hold yet.
struct FarRegistry {
    server: Server,
    address: String,
    sandbox: Sandbox,
    _link: SlowLink,
}

impl FarRegistry {
    fn start() -> Self {
        let server = Server::here().start().unwrap();
        let to: SocketAddr = server.address().parse().unwrap();
        let link = SlowLink::start(to, ROUND_TRIP, None).unwrap();
        let address = link.address().to_string();
        let sandbox = Sandbox::new().file("images/spec.yml", spec(&address));
        let openssl = "openssl genpkey -algorithm ed25519 -out verdict.key; openssl pkey -in verdict.key -pubout -out verdict.pub";
        sandbox.program("/bin/sh").args(["-ec", openssl]).any_stderr().run();
        fs::set_permissions(sandbox.project().join("verdict.key"), fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            server,
            address,
            sandbox,
            _link: link,
        }
    }

    async fn client(&self) -> Registry {
        Registry::connect(&self.address, RegistryCredentials::Anonymous, Options::default())
            .await
            .unwrap()
    }

    fn key(&self) -> VerdictKey {
        let key = VerdictKey::of(&Env::default(), Some(Path::new("verdict.key")), self.sandbox.project());
        key.unwrap().unwrap()
    }

    /// Puts all images by this tag, with what makes them differ from others.
    async fn put(&self, tag: &str, what: &str) {
        let client = self.client().await;
        let put = many(IMAGES, |image| {
            let client = &client;
            async move { put(client, image, tag, what).await }
        });
        put.await;
    }

    /// Attaches verdicts, signed or not, to what the tag of an image names: passed at a time, or failed at [`FAILED`].
    async fn tested(&self, images: &[&str], tag: &str, passed: Option<&str>, key: Option<&VerdictKey>) {
        let client = self.client().await;
        let published = many(images, |image| {
            let client = &client;
            async move {
                let repository = format!("team/{image}");
                let head = client.head(&repository, tag).await.unwrap().unwrap();
                let verdict = Verdict {
                    kind: TestKind::Basic,
                    passed: passed.is_some(),
                    tests: 12,
                    failures: u64::from(passed.is_none()),
                    finished: passed.unwrap_or(FAILED).to_owned(),
                    run: None,
                };
                verdicts::publish(client, &repository, &head.digest, &[verdict], key)
                    .await
                    .unwrap();
            }
        });
        published.await;
    }

    /// What a tag of each image names.
    async fn tags(&self, tag: &str) -> Vec<Option<Digest>> {
        let client = self.client().await;
        let found = many(IMAGES, |image| {
            let client = &client;
            async move { client.head(&format!("team/{image}"), tag).await.unwrap() }
        });
        found
            .await
            .into_iter()
            .map(|head| head.map(|head| head.digest))
            .collect()
    }

    fn tag_stack(&self) -> Invocation<'_> {
        self.sandbox.command("tag-stack").args(["--verdict-key", "verdict.pub"])
    }
}

fn spec(address: &str) -> String {
    let mut spec = "tag: {prefix: 2026.3}\nimages:\n".to_owned();
    for (position, image) in IMAGES.iter().enumerate() {
        let depend = if position == 0 { "" } else { ", depend_on: base" };
        spec += &format!("  {image}: {{image_name: {address}/team/{image}{depend}}}\n");
    }
    spec
}

/// Puts an image that has this in its only layer.
async fn put(client: &Registry, image: &str, tag: &str, what: &str) {
    let repository = format!("team/{image}");
    let layer = client
        .put_blob(&repository, format!("{image} {what}").into())
        .await
        .unwrap();
    client.put_blob(&repository, "{}".into()).await.unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": RemoteDescriptor::of(EMPTY, b"{}"),
        "layers": [{ "mediaType": "text/plain", "digest": layer, "size": image.len() + 1 + what.len() }],
    });
    client
        .put_manifest(&repository, tag, MANIFEST, manifest.to_string().into())
        .await
        .unwrap();
}

#[test]
fn a_stack_is_promoted_in_the_registry() {
    let far = FarRegistry::start();
    let key = far.key();
    run(async {
        far.put(TO, "old").await;
        far.put(FROM, "new").await;
        far.tested(&IMAGES[..7], FROM, Some(OLDER), Some(&key)).await;
    });
    // The last one has no verdict, then one that nobody signed, then one that failed.
    let refused = |why: &str| {
        far.tag_stack()
            .args([FROM, TO])
            .code(1)
            .any_stdout()
            .stderr_has("1 of 8 images did not prove good: course: ")
            .stderr_has(why)
            .run()
    };
    let before = run(far.tags(TO));
    refused("it has no verdict");
    run(far.tested(&["course"], FROM, Some(OLDER), None));
    refused("it has no verdict");
    run(far.tested(&["course"], FROM, None, Some(&key)));
    refused("1 of its basic tests failed");
    assert_eq!(run(far.tags(TO)), before);
    // An older success does not change that.
    run(far.tested(&["course"], FROM, Some(OLDER), Some(&key)));
    refused("1 of its basic tests failed");
    run(far.tested(&["course"], FROM, Some(NEWER), Some(&key)));
    let blobs = far.server.requests("GET", "/blobs/").len();
    far.tag_stack()
        .args([FROM, TO])
        .stdout_has("basic tests passed (12) at ")
        .stdout_has(", signed\n")
        .any_stderr()
        .run();
    let promoted = run(far.tags(FROM));
    assert_eq!(run(far.tags(TO)), promoted);
    // Verdicts and configurations were read, and no layer.
    let read = far.server.requests("GET", "/blobs/").split_off(blobs);
    let layers: Vec<String> = IMAGES
        .iter()
        .map(|image| Digest::of(format!("{image} new").as_bytes()).to_string())
        .collect();
    assert!(!read.is_empty());
    assert!(
        read.iter()
            .all(|path| layers.iter().all(|layer| !path.contains(layer.as_str()))),
        "{read:?}"
    );
    // On to the tag of all; that the tag is new is said.
    far.tag_stack()
        .args([TO, "stable"])
        .stdout_has("there is no stable yet")
        .any_stderr()
        .run();
    assert_eq!(run(far.tags("stable")), promoted);
}

#[test]
fn of_two_runs_at_once_one_or_none_promotes() {
    let far = FarRegistry::start();
    run(async {
        far.put(TO, "old").await;
        far.put(FROM, "one").await;
        far.put("2026.3-fix", "two").await;
    });
    let whole = [TO, FROM, "2026.3-fix"].map(|tag| run(far.tags(tag)));
    let start = |from: &str| {
        far.tag_stack()
            .args([from, TO, "--force"])
            .any_stdout()
            .any_stderr()
            .spawn()
    };
    let running = [start(FROM), start("2026.3-fix")];
    let after: Vec<bool> = running.into_iter().map(|running| running.wait().code == 0).collect();
    let tags = run(far.tags(TO));
    assert!(whole.contains(&tags), "half of each: {tags:?}");
    for (succeeded, expected) in after.iter().zip(&whole[1..]) {
        assert!(!succeeded || tags == *expected);
    }
}

#[test]
fn a_registry_that_wants_a_login_says_so_and_gets_dockers() {
    let server = Server::here().user("ann", "s3cr3t").start().unwrap();
    let sandbox = Sandbox::new().file("images/spec.yml", spec(server.address()));
    let tag_stack = || sandbox.command("tag-stack").args([FROM, TO, "--force"]);
    tag_stack()
        .code(1)
        .stderr_has("the registry asks for a login")
        .stderr_has(&format!("hint: docker login {}", server.address()))
        .run();
    run(async {
        let credentials = RegistryCredentials::Password {
            user: "ann".to_owned(),
            secret: "s3cr3t".to_owned(),
        };
        let client = Registry::connect(server.address(), credentials, Options::default())
            .await
            .unwrap();
        for image in IMAGES {
            put(&client, image, FROM, "new").await;
        }
    });
    let auths = json!({ "auths": { server.address(): { "auth": STANDARD.encode("ann:s3cr3t") } } });
    fs::create_dir_all(sandbox.home().join(".docker")).unwrap();
    fs::write(sandbox.home().join(".docker/config.json"), auths.to_string()).unwrap();
    let document = tag_stack().arg("--json").any_stdout().any_stderr().run().json();
    assert_eq!(document["promoted"], json!(true));
    assert!(!document.to_string().contains("s3cr3t"));
}

#[test]
fn other_programs_see_and_verify_verdicts() {
    let far = FarRegistry::start();
    let key = far.key();
    run(async {
        far.put(FROM, "new").await;
        far.tested(&["base"], FROM, Some(OLDER), Some(&key)).await;
    });
    let oras = oras::program().unwrap();
    let reference = |end: &str| format!("{}/team/base{end}", far.address);
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(&oras);
        command.args(arguments).env("HOME", far.sandbox.home());
        process::capture_text(&mut command).unwrap()
    };
    let discovered = ask(&[
        "discover",
        "--plain-http",
        "--format",
        "json",
        &reference(&format!(":{FROM}")),
    ]);
    let discovered: Value = serde_json::from_str(&discovered).unwrap();
    let listed = discovered["manifests"][0].clone();
    assert_eq!(listed["artifactType"], json!(ARTIFACT_TYPE));
    assert_eq!(listed["annotations"]["io.dockerutils.stack.tests"], json!("basic"));
    assert_eq!(listed["annotations"]["io.dockerutils.stack.result"], json!("passed"));
    let digest = listed["digest"].as_str().unwrap();
    let manifest = ask(&["manifest", "fetch", "--plain-http", &reference(&format!("@{digest}"))]);
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(
        manifest["layers"][0]["mediaType"],
        json!("application/vnd.dsse.envelope.v1+json")
    );
    let blob = manifest["layers"][0]["digest"].as_str().unwrap();
    let envelope = ask(&[
        "blob",
        "fetch",
        "--plain-http",
        "--output",
        "-",
        &reference(&format!("@{blob}")),
    ]);
    let envelope: Value = serde_json::from_str(&envelope).unwrap();
    // DSSE's own words, and openssl's judgement.
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let kind = envelope["payloadType"].as_str().unwrap();
    let message = [
        format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(),
        &payload,
    ]
    .concat();
    let signature = STANDARD
        .decode(envelope["signatures"][0]["sig"].as_str().unwrap())
        .unwrap();
    let project = far.sandbox.project();
    fs::write(project.join("message"), message).unwrap();
    fs::write(project.join("signature"), signature).unwrap();
    let verify = "openssl pkeyutl -verify -pubin -inkey verdict.pub -rawin -in message -sigfile signature";
    far.sandbox
        .program("/bin/sh")
        .args(["-ec", verify])
        .stdout_has("Signature Verified Successfully")
        .run();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["subject"][0]["name"], json!(reference("")));
    assert_eq!(statement["predicate"]["result"], json!("PASSED"));
}
