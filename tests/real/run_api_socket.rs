//! `--use-api-socket` through run-image and through the docker client: the container has the same socket, and the same
//! logins, those of a credentials store and of a helper among them.

use std::process::Command;

use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::{Sandbox, lab};
use serde_json::Value;

const CONFIG: &str =
    "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\nargs = --use-api-socket --network none\n";
/// A store of logins: a password, and an identity token.
const STORE: &str = r#"#!/bin/sh
case $1 in
list) echo '{"https://one.example/v1/":"ann","two.example":"<token>"}';;
get)
    case $(cat) in
    https://one.example/v1/) echo '{"Username":"ann","Secret":"se:cret"}';;
    two.example) echo '{"Username":"<token>","Secret":"t0ken"}';;
    *) echo 'credentials not found in native keychain'; exit 1;;
    esac;;
esac
"#;
const HELPER: &str = "#!/bin/sh\necho '{\"Username\":\"bob\",\"Secret\":\"three\"}'\n";
const CLIENT_CONFIG: &str = r#"{"credsStore":"lab-store","credHelpers":{"three.example":"lab-helper"}}"#;
const SHOW: &str = "sh -c 'test -S /var/run/docker.sock && stat -c %a /run/secrets/docker/config.json && cat /run/secrets/docker/config.json'";

#[test]
fn the_engines_socket_is_shared_with_the_logins_that_docker_would_share() {
    // The machine's own: the socket's path is the same for the engine.
    let engine = lab::engine("local").unwrap();
    let user = lab::mark().unwrap();
    let sandbox = Sandbox::new()
        .file("docker/dockerutils.cfg", CONFIG)
        .file("client/config.json", CLIENT_CONFIG)
        .script("bin/docker-credential-lab-store", STORE)
        .script("bin/docker-credential-lab-helper", HELPER);
    let path = format!(
        "{}:{}",
        sandbox.project().join("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let config = sandbox.project().join("client");

    let ours = sandbox
        .command("run-image")
        .args(["box", "-q", "-c", SHOW])
        .env("PATH", &path)
        .env("LOGNAME", &user)
        .env("DOCKER_HOST", &engine.host)
        .env("DOCKER_CONFIG", &config)
        .any_stdout()
        .run();
    let mut docker = Command::new("docker");
    docker
        .args([
            "run",
            "--rm",
            "--network=none",
            "--use-api-socket",
            lab::BASE_IMAGE,
            "sh",
            "-c",
        ])
        .arg(SHOW.trim_start_matches("sh -c '").trim_end_matches('\''))
        .env("PATH", &path)
        .env("DOCKER_HOST", &engine.host)
        .env("DOCKER_CONFIG", &config);
    let theirs = capture_text(&mut docker).unwrap();

    let parts = |text: &str| -> (String, Value) {
        let (mode, json) = text.trim().split_once('\n').unwrap();
        (mode.to_owned(), serde_json::from_str(json).unwrap())
    };
    let (ours, theirs) = (parts(&ours.stdout), parts(&theirs));
    assert_eq!(ours.0, theirs.0);
    assert_eq!(ours.1["auths"], theirs.1["auths"]);
    assert_eq!(ours.1["auths"].as_object().unwrap().len(), 3, "{ours:?}");

    // A login that can't be had is none that is left out.
    sandbox
        .command("run-image")
        .args(["box", "-c", "true"])
        .env("PATH", std::env::var("PATH").unwrap())
        .env("LOGNAME", &user)
        .env("DOCKER_HOST", &engine.host)
        .env("DOCKER_CONFIG", &config)
        .code(125)
        .stderr_has("docker-credential-lab-store does not list its logins: it can't be started")
        .stderr_has("hint: try it: docker-credential-lab-store list")
        .run();
}
