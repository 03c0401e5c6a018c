//! The options of `docker run`, ours against the docker client's: for each command line, at three versions
//! of the API, the request that the client sends to a scripted engine is the request that we would send,
//! and what the client refuses, we refuse. No engine is needed; the docker client is.

// The helpers of a test fail as the test does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::options::flags::FlagError;
use dockerutils_core::docker::options::run_options::{ClientFacts, EngineSystem, OptionError, RunOptions};
use dockerutils_test_support::option_line;
use serde_json::{Map, Value};

/// 20.10, 26.1 and the newest that the client speaks; and an engine on Windows.
const KINDS: [Kind; 4] = [
    Kind {
        api: (1, 41),
        system: EngineSystem::Linux,
    },
    Kind {
        api: (1, 45),
        system: EngineSystem::Linux,
    },
    Kind {
        api: (1, 50),
        system: EngineSystem::Linux,
    },
    Kind {
        api: (1, 50),
        system: EngineSystem::Windows,
    },
];

/// One line is one case. Whether it is taken or refused, and by which engine, the client says.
const LINES: &str = include_str!("run_options/lines.txt");

/// What the client leaves to the engine to refuse, and we refuse ourselves: bollard has no words for it.
/// The last column is the newest API for which it is so.
const STRICTER: [(&str, (u32, u32)); 4] = [
    ("--restart sometimes", (1, 50)),
    ("--mount type=nonsense,dst=/x", (1, 50)),
    ("--mount type=bind,src=/a,dst=/x,bind-propagation=nonsense", (1, 50)),
    ("--isolation nonsense", (1, 50)),
];

/// What the client has in its environment.
const ENVIRONMENT: [(&str, &str); 3] = [("CLIENT", "from the client"), ("EMPTY", ""), ("https_proxy", "lower")];

/// Files in the client's working directory.
const FILES: [(&str, &str); 8] = [
    ("env", "\u{feff}# comment\n\nA=1\n  B = no\n"),
    (
        "good.env",
        "\u{feff}# comment\n\n  A=1\nB=\"quoted\"\nC= spaced \r\nCLIENT\nABSENT\nEMPTY\nD=a=b\n#E=1\n\tF=tab",
    ),
    ("noname.env", "A=1\n=2\n"),
    ("labels", "plain\nkey=value\nCLIENT\n  other=a b\nkey=again\n"),
    ("blank.labels", "a b=c\n"),
    (
        "seccomp.json",
        "{\n  \"defaultAction\" : \"SCMP_ACT_ALLOW\",\n  \"z\": [ 1.0, \"a \\\" b\" , \"\\\\\" ],\n \"a\":1 }\n",
    ),
    ("broken.json", "{\"a\": "),
    (
        "config/config.json",
        r#"{"proxies": {"default": {"httpProxy": "http://proxy:1", "noProxy": "localhost"}}}"#,
    ),
];

const COMMAND: [&str; 2] = ["echo", "-it"];

/// What an engine says of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Kind {
    api: (u32, u32),
    system: EngineSystem,
}

/// A request to create a container: its query and its body.
type Request = (String, Value);

/// An engine that answers pings, and keeps the last container that it was asked to create.
struct Engine {
    socket: PathBuf,
    kind: Arc<Mutex<Kind>>,
    created: Arc<Mutex<Option<Request>>>,
}

impl Engine {
    fn start(socket: PathBuf) -> Engine {
        let listener = UnixListener::bind(&socket).expect("a socket for the scripted engine");
        let engine = Engine {
            socket,
            kind: Arc::default(),
            created: Arc::default(),
        };
        let (kind, created) = (engine.kind.clone(), engine.created.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kind, created) = (kind.clone(), created.clone());
                // A client that goes away in the middle is none of our business.
                thread::spawn(move || serve(stream, &kind, &created));
            }
        });
        engine
    }
}

fn serve(stream: UnixStream, kind: &Mutex<Kind>, created: &Mutex<Option<Request>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut start = String::new();
        if reader.read_line(&mut start)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = start.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, answer) = if target.contains("/_ping") {
            ("200 OK", "OK")
        } else if target.contains("/containers/create") {
            let query = target
                .split_once('?')
                .map(|(_, query)| query.to_owned())
                .unwrap_or_default();
            *created.lock().unwrap() = Some((query, serde_json::from_slice(&body)?));
            ("201 Created", r#"{"Id": "0123456789ab", "Warnings": []}"#)
        } else if target.contains("/images/create") {
            ("200 OK", "{}")
        } else {
            (
                "404 Not Found",
                r#"{"message": "the scripted engine has no such thing"}"#,
            )
        };
        let Kind {
            api: (major, minor),
            system,
        } = *kind.lock().unwrap();
        let head = format!(
            "HTTP/1.1 {status}\r\nApi-Version: {major}.{minor}\r\nOSType: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            if system == EngineSystem::Linux {
                "linux"
            } else {
                "windows"
            },
            answer.len()
        );
        writer.write_all(head.as_bytes())?;
        if method != "HEAD" {
            writer.write_all(answer.as_bytes())?;
        }
    }
}

/// Whether a word is a cluster of one-letter switches.
fn is_switches(word: &str) -> bool {
    word.chars().all(|c| "-ditP".contains(c))
}

/// What the docker client asks of the engine, or its complaint.
fn dockers(words: &[String], engine: &Engine, kind: Kind, home: &Path) -> Result<Request, String> {
    *engine.kind.lock().unwrap() = kind;
    *engine.created.lock().unwrap() = None;
    // docker writes the one of the line before, and refuses to overwrite it.
    let _ = std::fs::remove_file(home.join("id"));
    // `create` needs no terminal and ends at once; it lacks three options of `run`.
    let is_own = |word: &String| match word.strip_prefix("--") {
        Some(long) => ["detach", "sig-proxy", "detach-keys"].contains(&long.split('=').next().unwrap_or_default()),
        None => word.starts_with('-') && word.contains('d') && word.split('=').next().is_some_and(is_switches),
    };
    let command = if words.iter().any(is_own) { "run" } else { "create" };
    let output = Command::new("docker")
        .arg("-H")
        .arg(format!("unix://{}", engine.socket.display()))
        .arg(command)
        .args(words)
        .arg("busybox")
        .args(COMMAND)
        .env_clear()
        .envs(ENVIRONMENT)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("DOCKER_CONFIG", home.join("config"))
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .expect("the docker client, to compare with");
    let request = engine.created.lock().unwrap().take();
    request.ok_or_else(|| {
        String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    })
}

/// What we would ask.
fn ours(words: &[String], engine: &Engine, kind: Kind, home: &Path) -> Result<Request, OptionError> {
    let variables = HashMap::from(ENVIRONMENT);
    let config = ClientConfig::read(&home.join("config")).expect("the client's configuration");
    let address = format!("unix://{}", engine.socket.display());
    let proxies = config.proxy_variables(&address).into_iter();
    let proxies: Vec<_> = proxies.map(|(name, value)| (name.to_owned(), value)).collect();
    let facts = ClientFacts {
        env: &|name| variables.get(name).map(|value| (*value).to_owned()),
        read_file: &|path| std::fs::read(path),
        working_dir: home,
        api_version: kind.api,
        engine_system: kind.system,
        engine_socket: engine.socket.to_str(),
        console_size: (0, 0),
        proxies: &proxies,
        credentials: None,
    };
    let plan = RunOptions::parse(words)?.plan("busybox", &COMMAND.map(str::to_owned), &facts)?;
    let encode = |text: &str| text.replace('/', "%2F");
    let query = [("name", &plan.name), ("platform", &plan.platform)]
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={}", encode(value))))
        .collect::<Vec<_>>()
        .join("&");
    Ok((query, plan.request().expect("a request is JSON")))
}

/// A request without what means nothing: values that are the same as none to an engine. Lists that docker
/// makes from Go's maps, whose order is chance, are sorted.
fn canonical(value: Value, key: &str) -> Option<Value> {
    /// Here, an absent value and an empty one are not the same.
    const TELLING: [&str; 4] = ["MaskedPaths", "ReadonlyPaths", "Init", "StopTimeout"];
    /// In these, the keys are the user's.
    const MAPS: [&str; 12] = [
        "Annotations",
        "Config",
        "DriverOpts",
        "EndpointsConfig",
        "ExposedPorts",
        "Labels",
        "Options",
        "PortBindings",
        "StorageOpt",
        "Sysctls",
        "Tmpfs",
        "Volumes",
    ];
    let telling = TELLING.contains(&key);
    match value {
        Value::Null => None,
        Value::Object(map) => {
            let keep = MAPS.contains(&key);
            let map: Map<String, Value> = map
                .into_iter()
                .filter_map(|(key, value)| {
                    let empty = keep.then_some(Value::Null);
                    Some((key.clone(), canonical(value, if keep { "" } else { &key }).or(empty)?))
                })
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(mut list) => {
            if matches!(key, "Env" | "Binds") {
                list.sort_by_key(Value::to_string);
            }
            let list: Vec<Value> = list
                .into_iter()
                .map(|item| canonical(item, "").unwrap_or(Value::Null))
                .collect();
            (telling || !list.is_empty()).then_some(Value::Array(list))
        }
        value if telling => Some(value),
        value if [Value::from(""), Value::from(0), Value::from(false)].contains(&value) => None,
        value => Some(value),
    }
}

fn lines() -> Vec<&'static str> {
    LINES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    for (name, content) in FILES {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }
    home
}

/// How one line differs, if it does.
fn difference(line: &str, engine: &Engine, kind: Kind, home: &Path) -> (bool, Option<String>) {
    let words = option_line::words(line);
    let theirs = dockers(&words, engine, kind, home);
    let accepted = theirs.is_ok();
    let difference = match (theirs, ours(&words, engine, kind, home)) {
        (Err(_), Err(_)) => None,
        (Ok(_), Err(error)) => Some(format!("docker takes it, ours says: {error}")),
        (Err(complaint), Ok(_)) => Some(format!("ours takes it, docker says: {complaint}")),
        (Ok((their_query, their_body)), Ok((our_query, our_body))) => {
            let (theirs, ours) = (canonical(their_body, ""), canonical(our_body, ""));
            let text = |query: &str, body: &Option<Value>| {
                format!("{query} {}", body.as_ref().map(Value::to_string).unwrap_or_default())
            };
            (their_query != our_query || theirs != ours).then(|| {
                format!(
                    "\n    docker {}\n    ours   {}",
                    text(&their_query, &theirs),
                    text(&our_query, &ours)
                )
            })
        }
    };
    (
        accepted,
        difference.map(|difference| format!("{kind:?}: {line}: {difference}")),
    )
}

#[test]
fn requests_are_those_of_the_docker_client() {
    let lines = lines();
    let cases: Vec<_> = KINDS
        .iter()
        .flat_map(|kind| lines.iter().map(|line| (*line, *kind)))
        .collect();
    let (next, accepted, differences) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let home = home();
                let engine = Engine::start(home.path().join("engine"));
                while let Some((line, kind)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (taken, difference) = difference(line, &engine, *kind, home.path());
                    accepted.fetch_add(usize::from(taken), Ordering::Relaxed);
                    differences.lock().unwrap().extend(difference);
                }
            });
        }
    });
    let (accepted, mut differences) = (accepted.into_inner(), differences.into_inner().unwrap());
    differences.sort();
    println!(
        "{} lines: {accepted} requests compared, {} refusals",
        lines.len(),
        cases.len() - accepted
    );
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    // The scripted engine would make everything a refusal if it were broken.
    assert!(
        accepted > cases.len() / 2,
        "docker took only {accepted} of {} lines",
        cases.len()
    );
}

#[test]
fn where_we_are_stricter_is_known() {
    let home = home();
    let engine = Engine::start(home.path().join("engine"));
    for (line, newest) in STRICTER {
        let words = option_line::words(line);
        for kind in KINDS {
            assert!(
                dockers(&words, &engine, kind, home.path()).is_ok(),
                "{kind:?}: docker refuses {line}"
            );
            let ours = ours(&words, &engine, kind, home.path());
            assert_eq!(ours.is_err(), kind.api <= newest, "{kind:?}: {line}");
        }
    }
}

#[test]
fn every_option_of_docker_run_is_known_and_compared() {
    let output = Command::new("docker")
        .args(["run", "--help"])
        .env("DOCKER_CONFIG", "/nonexistent")
        .output()
        .expect("the docker client, to compare with");
    let help = String::from_utf8(output.stdout).expect("text");
    let options: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().split_once("--").filter(|(short, _)| short.len() <= 4))
        .filter_map(|(_, rest)| rest.split_whitespace().next())
        .collect();
    assert!(options.len() > 90, "too few options in the help: {options:?}");
    let compared: Vec<String> = lines().iter().flat_map(|line| option_line::words(line)).collect();
    let mut missing = Vec::new();
    for option in options {
        let words = [format!("--{option}=x")];
        let unknown = matches!(
            RunOptions::parse(&words),
            Err(OptionError::Flag(FlagError::Unknown { .. }))
        );
        assert!(!unknown, "--{option} is unknown");
        let named = |word: &String| word.strip_prefix("--").and_then(|rest| rest.split('=').next()) == Some(option);
        if option != "help" && !compared.iter().any(named) {
            missing.push(option);
        }
    }
    assert!(missing.is_empty(), "no line has {missing:?}");
}
