//! `publish-image` to Amazon's registry, with real parts: AWS's calls go to moto, and the registry is a real one, under
//! ECR's own name and with TLS, in a dock that the test has for itself.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a harness fails its test by panicking"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dockerutils_test_support::lab::{Store, Suite, Throwaway};
use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Invocation, Sandbox, binary, machine};
use dockerutils_tests::moto::Moto;
use serde_json::{Value, json};

const ACCOUNT: &str = "123456789012";
const REGION: &str = "eu-west-1";
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// The password that moto returns.
const TOKEN: &str = "123456789012-auth-token";
/// What an access key's secret is here.
const KEY: &str = "s3cret-0f-the-k3y";

fn project(name: &str) -> Sandbox {
    Sandbox::named(name)
        .file("docker/dev/Dockerfile", "FROM dockerutils-lab-base:1\n")
        .file(
            "docker/dockerutils.cfg",
            "[dev]\nimage_repo = aws\npublication_tag = {account}.dkr.ecr.{region}.amazonaws.com/team/{image}:{tag}\n",
        )
}

/// publish-image with AWS at this address; the credentials are in a profile.
fn publish<'a>(sandbox: &'a Sandbox, aws: &str) -> Invocation<'a> {
    configure(
        sandbox,
        &format!("[profile work]\nregion = {REGION}\naws_access_key_id = AKIDWORK\naws_secret_access_key = {KEY}\n"),
    );
    with_aws(sandbox.command("publish-image"), aws).arg("dev")
}

fn with_aws<'a>(invocation: Invocation<'a>, aws: &str) -> Invocation<'a> {
    invocation
        .env("AWS_ENDPOINT_URL", aws)
        .env("AWS_PROFILE", "work")
        // Nothing answers there, and the SDK would wait for it.
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

fn configure(sandbox: &Sandbox, config: &str) {
    let folder = sandbox.home().join(".aws");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config"), config).unwrap();
}

fn repositories(moto: &Moto) -> Vec<String> {
    let answer = moto.ecr(REGION, "DescribeRepositories", &json!({}));
    let repositories = answer["repositories"].as_array().cloned().unwrap_or_default();
    let names = repositories
        .iter()
        .filter_map(|repository| repository["repositoryName"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn an_image_goes_to_amazons_registry_and_back() {
    machine::require("strace", &["strace"], "a test that sees every command line").unwrap();
    let moto = Moto::start();
    for store in [Store::Classic, Store::Containerd] {
        let throwaway = Throwaway::start(Suite::Sid, store, None).unwrap();
        let engine = throwaway.engine();
        let registry = Registry::on(engine).user("AWS", TOKEN).named(HOST).start().unwrap();
        let name = format!("ecr-{store}");
        let sandbox = project(&name);
        let source = format!("{name}-dev:tester");
        let reference = format!("{HOST}/team/{source}");
        let docker = |arguments: &[&str]| capture_text(engine.docker().args(arguments)).unwrap();
        docker(&["tag", "dockerutils-lab-base:1", &source]);
        let publish = || publish(&sandbox, &moto.url()).env("DOCKER_HOST", &engine.host);

        // A plan changes nothing.
        let before = repositories(&moto);
        publish()
            .arg("--dry-run")
            .stdout_has(&format!("docker push {reference}\n"))
            .run();
        assert_eq!(repositories(&moto), before);
        assert!(registry.requests("PUT", "/v2/").is_empty());

        let trace = sandbox.project().join("trace");
        let outcome = traced(&sandbox, &moto, &engine.host, &trace);
        let repository = format!("team/{name}-dev");
        assert!(repositories(&moto).contains(&repository), "{outcome}");
        assert!(
            outcome.contains(&format!("made the repository {repository} at {HOST}")),
            "{outcome}"
        );
        assert!(outcome.ends_with(&format!("docker pull {reference}\n")), "{outcome}");
        let trace = fs::read_to_string(trace).unwrap();
        assert!(trace.contains("dock-registry-aws"), "{trace}");
        for secret in [TOKEN, KEY] {
            assert!(!trace.contains(secret) && !outcome.contains(secret), "{trace}{outcome}");
        }

        // It is known the second time, and a docker client gets it with a login of its own.
        let again = publish().arg("--json").any_stdout().any_stderr().run().json();
        assert_eq!(again["images"][0]["status"], "present", "{again}");
        let id = docker(&["inspect", "--format={{.Id}}", &source]);
        docker(&["rmi", "--force", &reference, &source]);
        let folder = sandbox.home().join(".docker");
        let mut login = engine.docker();
        login
            .env("DOCKER_CONFIG", &folder)
            .args(["login", "--username=AWS", HOST]);
        capture(login.arg(format!("--password={TOKEN}"))).unwrap();
        capture(engine.docker().env("DOCKER_CONFIG", &folder).args(["pull", &reference])).unwrap();
        assert_eq!(docker(&["inspect", "--format={{.Id}}", &reference]), id, "{store}");
    }
}

/// Runs `publish-image dev -v` below strace, which writes every command line; gives stderr and stdout.
fn traced(sandbox: &Sandbox, moto: &Moto, host: &str, trace: &Path) -> String {
    let strace = sandbox
        .program("strace")
        .args(["--follow-forks", "--trace=execve", "--string-limit=100000", "--output"])
        .arg(trace)
        .arg(binary("publish-image"))
        .args(["dev", "-v"])
        .env("DOCKER_HOST", host);
    let outcome = with_aws(strace, &moto.url()).any_stdout().any_stderr().run();
    format!("{}{}", outcome.stderr, outcome.stdout)
}

/// Plays the metadata service of an EC2 instance with a role (IMDSv2), as AWS documents it.
fn metadata_service() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 16 * 1024];
            let read = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]);
            let role = "/latest/meta-data/iam/security-credentials/";
            let credentials = json!({ "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC",
                "AccessKeyId": "ASIAROLE", "SecretAccessKey": KEY, "Token": "t0k3n", "Expiration": "2099-01-01T00:00:00Z" });
            let answer = match request.split(' ').nth(1).unwrap_or_default() {
                "/latest/api/token" => Some("imds".to_owned()),
                path if path == role => Some("role".to_owned()),
                path if path == format!("{role}role") => Some(credentials.to_string()),
                _ => None,
            };
            let status = if answer.is_some() { "200 OK" } else { "404 Not Found" };
            let body = answer.unwrap_or_default();
            // A write to a client that has gone may fail.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nX-Aws-Ec2-Metadata-Token-Ttl-Seconds: 600\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

#[test]
fn the_role_of_an_instance_does_as_well() {
    let moto = Moto::start();
    let sandbox = project("ecr-role");
    sandbox
        .command("publish-image")
        .args(["dev", "--dry-run"])
        .env("AWS_ENDPOINT_URL", moto.url())
        .env("AWS_REGION", REGION)
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_service())
        .stdout_has(&format!("docker push {HOST}/team/ecr-role-dev:tester\n"))
        .run();
}

/// Plays an AWS that answers everything with this; counts the calls.
fn answering(status: &'static str, content: &'static str, body: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&calls);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 16 * 1024];
            // A write to a client that has gone may fail.
            let _ = stream.read(&mut request);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Type: {content}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (url, calls)
}

const EXPIRED: &str = "<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code>\
    <Message>The security token included in the request is expired</Message></Error><RequestId>1</RequestId></ErrorResponse>";

#[test]
fn an_expired_token_says_so() {
    let (url, _) = answering("403 Forbidden", "text/xml", EXPIRED);
    let sandbox = project("ecr-expired");
    publish(&sandbox, &url)
        .arg("--dry-run")
        .code(1)
        .stderr(
            "publish-image: AWS does not tell who we are: the credentials or the token have expired: \
             The security token included in the request is expired\n\nhint: aws sso login --profile work\n",
        )
        .run();
    publish(&sandbox, &url)
        .arg("--dry-run")
        .env("AWS_ACCESS_KEY_ID", "AKID")
        .env("AWS_SECRET_ACCESS_KEY", KEY)
        .env_remove("AWS_PROFILE")
        .env("AWS_REGION", REGION)
        .code(1)
        .stderr_has("hint: AWS_ACCESS_KEY_ID and its like are too old")
        .run();
}

/// A profile with SSO whose login is of long ago, and one that never logged in.
#[test]
fn an_sso_login_that_is_over_or_missing_says_so() {
    let sandbox = project("ecr-sso");
    let profile = "[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\nregion = eu-west-1\n\
        [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n";
    configure(&sandbox, profile);
    let publish = || with_aws(sandbox.command("publish-image"), "http://127.0.0.1:1").args(["dev", "--dry-run"]);
    publish()
        .code(1)
        .stderr_has("the profile work is not logged in")
        .stderr_has("hint: aws sso login --profile work\n")
        .run();
    let cache = sandbox.home().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let token = json!({ "accessToken": "t0k3n", "expiresAt": "2020-01-01T00:00:00Z", "region": REGION,
        "startUrl": "https://corp.example/start" });
    // The name is the SHA-1 of `corp`.
    let name =
        capture_text(std::process::Command::new("sh").args(["-c", "printf corp | sha1sum | cut -c1-40"])).unwrap();
    fs::write(cache.join(format!("{name}.json")), token.to_string()).unwrap();
    publish()
        .code(1)
        .stderr_has("the credentials or the token have expired")
        .stderr_has("the SSO token has expired")
        .stderr_has("hint: aws sso login --profile work\n")
        .run();
}

#[test]
fn an_aws_out_of_reach_is_code_3_and_one_that_fails_is_asked_again() {
    let sandbox = project("ecr-reach");
    publish(&sandbox, "http://127.0.0.1:1")
        .arg("--dry-run")
        .code(3)
        .stderr_has("AWS is out of reach")
        .stderr_has("Connection refused")
        .run();
    let (url, calls) = answering("503 Service Unavailable", "text/plain", "");
    publish(&sandbox, &url).arg("--dry-run").code(1).any_stderr().run();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn what_is_not_configured_is_named() {
    let sandbox = project("ecr-none");
    configure(&sandbox, &format!("[profile work]\nregion = {REGION}\n"));
    with_aws(sandbox.command("publish-image"), "http://127.0.0.1:1")
        .args(["dev", "--dry-run"])
        .code(1)
        .stderr_has("no credentials are found, neither in the environment nor in the profile work")
        .stderr_has("hint: aws configure, aws sso login, or export AWS_PROFILE=NAME")
        .run();
    configure(&sandbox, "[profile work]\n");
    with_aws(sandbox.command("publish-image"), "http://127.0.0.1:1")
        .args(["dev", "--dry-run"])
        .code(2)
        .stderr_has("no region of AWS is configured: neither AWS_REGION nor the profile work says one")
        .run();
}

/// The protocol by itself: each request a line, each answer a line, whatever was asked before.
#[test]
fn the_program_answers_line_by_line() {
    let moto = Moto::start();
    let sandbox = project("ecr-lines");
    let ask = format!(
        "nonsense\n\"identity\"\n{{\"repository\":{{\"registry\":\"{HOST}\",\"name\":\"a/b\"}}}}\n\
         {{\"repository\":{{\"registry\":\"{HOST}\",\"name\":\"a/b\"}}}}\n{{\"login\":{{\"registry\":\"evil.example\"}}}}\n"
    );
    configure(
        &sandbox,
        &format!("[profile work]\nregion = us-east-1\naws_access_key_id = AKIDWORK\naws_secret_access_key = {KEY}\n"),
    );
    let outcome = with_aws(sandbox.command("dock-registry-aws"), &moto.url())
        .stdin(ask)
        .any_stdout()
        .run();
    let answers: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), 5, "{outcome}");
    assert_eq!(answers[0]["failure"]["kind"], "failed");
    assert_eq!(
        answers[1],
        json!({ "identity": { "account": ACCOUNT, "region": "us-east-1" } })
    );
    // In the registry's region, not in the configured one.
    assert_eq!(answers[2], json!({ "repository": { "created": true } }));
    assert_eq!(answers[3], json!({ "repository": { "created": false } }));
    assert_eq!(repositories(&moto), ["a/b"]);
    assert_eq!(answers[4]["failure"]["kind"], "usage");
    sandbox
        .command("dock-registry-aws")
        .arg("--help")
        .code(2)
        .stderr_has("publish-image starts this program")
        .run();
}
