//! docker's `config.json`: how the docker client reads it and how we read it, compared on generated files with a fixed
//! seed. Both speak to a scripted engine; the docker client is needed, but no engine.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use dockerutils_test_support::{Random, Reply, Sandbox, ScriptedEngine};
use serde_json::{Map, Value, json};

const SEED: u64 = 15;
const REGISTRY: &str = "reg.example:5000";
const HUB: &str = "https://index.docker.io/v1/";

/// What credential helpers do, by their names.
const HELPERS: [(&str, &str); 6] = [
    (
        "ok",
        "echo '{\"ServerURL\":\"x\",\"Username\":\"helped\",\"Secret\":\"s\"}'",
    ),
    (
        "token",
        "echo '{\"ServerURL\":\"x\",\"Username\":\"<token>\",\"Secret\":\"t0ken\"}'",
    ),
    ("none", "echo 'credentials not found in native keychain'; exit 1"),
    ("failing", "echo 'credentials not found'; exit 1"),
    ("silent", "exit 1"),
    ("nonsense", "echo nonsense"),
];

fn sandbox(config: &str) -> Sandbox {
    HELPERS.iter().fold(
        Sandbox::new()
            .file("docker/dev/Dockerfile", "FROM scratch\n")
            .file("docker/dockerutils.cfg", config),
        |sandbox, (name, script)| {
            sandbox.script(
                &format!("../home/bin/docker-credential-{name}"),
                format!("#!/bin/sh\ncat >/dev/null\n{script}\n"),
            )
        },
    )
}

fn path(sandbox: &Sandbox) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", sandbox.home().join("bin").display())
}

/// An entry of `auths`.
fn entry(random: &mut Random, is_damaged: bool) -> Value {
    if is_damaged {
        return json!({ "auth": random.pick(&["?", "YW5u", "OnA=", "YW5uOmE"]) });
    }
    let mut entry = Map::new();
    let pairs = ["ann:a", "ann:s3:cret", "ann:", "ann:pad\0\0", "<token>:"];
    match random.below(5) {
        0 => return Value::Null,
        1 => {}
        2 => {
            entry.insert("username".into(), "bob".into());
            entry.insert("password".into(), "p~?>".into());
        }
        kind => {
            let mut auth = STANDARD.encode(random.pick(&pairs));
            if random.one_in(4) {
                auth.push('\n');
            }
            let name = if kind == 3 { "auth" } else { "Auth" };
            entry.insert(name.into(), auth.into());
        }
    }
    for token in ["identitytoken", "registrytoken"] {
        if random.one_in(5) {
            entry.insert(token.into(), "t".into());
        }
    }
    entry.into()
}

fn helper(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => "".into(),
        2 => "missing".into(),
        _ => random.pick(&HELPERS).0.into(),
    }
}

/// A file. docker stops at an entry that it can't read, and reads entries in any order: so such an entry is the only
/// one.
fn logins(random: &mut Random) -> String {
    let mut auths = Map::new();
    if random.one_in(6) {
        let key = *random.pick(&[REGISTRY, HUB, "other.example"]);
        auths.insert(key.to_owned(), entry(random, true));
    } else {
        // Of two old spellings of one host, docker takes one at random.
        let old = [
            "https://reg.example:5000/v2/",
            "http://reg.example:5000",
            "reg.example:5000/v1/",
        ];
        let keys = [
            REGISTRY,
            *random.pick(&old),
            HUB,
            "index.docker.io",
            "docker.io",
            "reg.example",
        ];
        for key in keys {
            if random.one_in(2) {
                auths.insert(key.to_owned(), entry(random, false));
            }
        }
    }
    let mut file = Map::new();
    let auths = if random.one_in(9) { Value::Null } else { auths.into() };
    file.insert((*random.pick(&["auths", "auths", "Auths"])).to_owned(), auths);
    if random.one_in(3) {
        file.insert("credsStore".to_owned(), helper(random));
    }
    if random.one_in(3) {
        let mut helpers = Map::new();
        for key in [REGISTRY, HUB, "index.docker.io"] {
            if random.one_in(2) {
                helpers.insert(key.to_owned(), helper(random));
            }
        }
        file.insert("credHelpers".to_owned(), helpers.into());
    }
    match random.below(20) {
        0 => String::new(),
        1 => format!("{} behind", Value::from(file)),
        _ => Value::from(file).to_string(),
    }
}

/// The login of the last pull, without the fields that do not identify the user.
fn login(engine: &ScriptedEngine) -> Value {
    let requests = engine.requests();
    let pull = requests.iter().rev().find(|request| request.path == "/images/create");
    let header = pull.unwrap().header("x-registry-auth").unwrap_or_default();
    let mut login: Value = serde_json::from_slice(&URL_SAFE.decode(header).unwrap()).unwrap_or(json!({}));
    for field in ["serveraddress", "auth"] {
        login.as_object_mut().unwrap().remove(field);
    }
    login
}

#[test]
fn logins_are_those_that_the_docker_client_sends() {
    let mut random = Random::new(SEED);
    let sandbox = sandbox(&format!(
        "[app]\nname = {REGISTRY}/app\ntag = 1\nprefix = False\n[hub]\nname = team/app\ntag = 1\nprefix = False\n"
    ));
    let (mut differences, mut said_something) = (Vec::new(), 0);
    for _ in 0..120 {
        let file = logins(&mut random);
        sandbox.write("../home/.docker/config.json", &file);
        let (image, reference) = match random.one_in(4) {
            true => ("hub", "team/app:1".to_owned()),
            false => ("app", format!("{REGISTRY}/app:1")),
        };
        let engine = || ScriptedEngine::start().on("POST", "/images/create", Reply::stream(&[]));
        let (theirs, ours) = (engine(), engine());
        sandbox
            .program("docker")
            .env("PATH", path(&sandbox))
            .engine(&theirs)
            .args(["pull", &reference])
            .any_stdout()
            .any_stderr()
            .run();
        let outcome = sandbox
            .command("run-image")
            .env("PATH", path(&sandbox))
            .engine(&ours)
            .arg(image)
            .code(125)
            .any_stderr()
            .run();
        let (theirs, ours) = (login(&theirs), login(&ours));
        said_something += usize::from(theirs != json!({}));
        if theirs != ours {
            differences.push(format!(
                "{reference}, {file}\n    docker {theirs}\n    ours   {ours}\n{outcome}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(said_something > 30, "{said_something}");
}

#[test]
fn proxies_are_those_that_the_docker_client_sets() {
    let mut random = Random::new(SEED);
    let sandbox = sandbox("[app]\nname = app\ntag = 1\nprefix = False\n");
    let (mut differences, mut said_something) = (Vec::new(), 0);
    for _ in 0..40 {
        let engine = || {
            let image = json!({ "Id": "sha256:1", "Os": "linux", "Architecture": "amd64" });
            ScriptedEngine::start()
                .on("GET", "/images/*/json", Reply::json(200, &image))
                .on("GET", "/containers/*/json", Reply::error(404, "no such container"))
                .on("POST", "/containers/create", Reply::error(500, "no more"))
        };
        let (theirs, ours) = (engine(), engine());
        let mut proxy = || {
            let mut proxy = Map::new();
            for name in [
                "httpProxy",
                "httpsProxy",
                "noProxy",
                "ftpProxy",
                "allProxy",
                "HTTPPROXY",
            ] {
                if random.one_in(3) {
                    let value = random.pick(&["http://p:1", "", "x,y"]);
                    proxy.insert(name.to_owned(), (*value).into());
                }
            }
            Value::from(proxy)
        };
        let [default, here, there] = [proxy(), proxy(), proxy()];
        let mut words: Vec<String> = Vec::new();
        for name in ["HTTP_PROXY", "http_proxy", "No_Proxy", "no_proxy"] {
            if random.one_in(4) {
                let set = random.one_in(2);
                words.extend([
                    "-e".to_owned(),
                    if set { format!("{name}=own") } else { name.to_owned() },
                ]);
            }
        }
        let has_here = random.one_in(2);
        let environment = |engine: &ScriptedEngine, of_docker: bool| {
            let mut proxies = Map::from_iter([("default".to_owned(), default.clone())]);
            proxies.insert("tcp://there:1".to_owned(), there.clone());
            if has_here {
                proxies.insert(engine.host(), here.clone());
            }
            sandbox.write("../home/.docker/config.json", json!({ "proxies": proxies }).to_string());
            let command = match of_docker {
                true => sandbox
                    .program("docker")
                    .arg("create")
                    .args(&words)
                    .arg("app:1")
                    .code(1),
                false => {
                    let command = sandbox.command("run-image").args(["app", "-k"]).code(125);
                    match words.is_empty() {
                        true => command,
                        false => command.args(["-a", &words.join(" ")]),
                    }
                }
            };
            command.engine(engine).any_stdout().any_stderr().run();
            let body = engine.request("POST", "/containers/create").json();
            let mut variables: Vec<String> = serde_json::from_value(body["Env"].clone()).unwrap_or_default();
            variables.sort();
            variables
        };
        let (theirs, ours) = (environment(&theirs, true), environment(&ours, false));
        said_something += usize::from(theirs.len() > 2);
        if theirs != ours {
            differences.push(format!("{words:?}\n    docker {theirs:?}\n    ours   {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(said_something > 20, "{said_something}");
}
