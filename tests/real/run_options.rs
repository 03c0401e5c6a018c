//! The options of `docker run` on real engines: for each command line, the container that docker's client creates and the
//! one that ours creates are the same in the engine's own words, and what the engine refuses, it refuses to both alike.
//!
//! What the client itself makes of an option is compared in `crates/core/tests/run_options.rs`, without an engine.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dockerutils_core::agent::CallOptions;
use dockerutils_core::docker::connect::dock_engine::ChosenEngine;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::docker::containers::container;
use dockerutils_core::docker::options::run_options::{ClientFacts, EngineSystem, RunOptions};
use dockerutils_core::env::Env;
use dockerutils_test_support::http;
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::option_line;
use dockerutils_test_support::process::{capture, capture_text};
use serde_json::Value;
use tokio::runtime::Runtime;

/// One line is one case; whether it is taken, the engine says.
const LINES: &str = include_str!("run_options/lines.txt");
/// Where all lines are tried; the others try every tenth, since the image store has no say in most.
const ENGINES: [&str; 3] = ["20", "26", "28"];
const SAMPLE: usize = 10;
/// Engines work on several requests at once, and the client mostly waits for them.
const WORKERS: usize = 6;

const LABEL: &str = "io.dockerutils.test=run-options";
const IMAGE: &str = "dockerutils-lab-base:1";
const COMMAND: [&str; 2] = ["echo", "-it"];
const PATIENCE: Duration = Duration::from_secs(60);

/// What the client has in its environment.
const ENVIRONMENT: [(&str, &str); 2] = [("CLIENT", "from the client"), ("EMPTY", "")];

/// Files in the client's working directory.
const FILES: [(&str, &str); 4] = [
    (
        "good.env",
        "\u{feff}# comment\n\n  A=1\nB=\"quoted\"\nC= spaced \r\nCLIENT\nABSENT\nEMPTY\nD=a=b\n#E=1\n\tF=tab",
    ),
    ("other.env", "A=2\nG=\n"),
    ("labels", "plain\nkey=value\nCLIENT\n  other=a b\nkey=again\n"),
    (
        "seccomp.json",
        "{\n  \"defaultAction\" : \"SCMP_ACT_ALLOW\",\n \"syscalls\": [ ]\n}\n",
    ),
];

/// The user's own networks of the lines; `--ip` needs one whose addresses are known.
const NETWORKS: [(&str, &str); 2] = [
    ("run-options-net", "172.30.212.0/24"),
    ("run-options-other", "172.30.213.0/24"),
];
/// The other container of the lines.
const NEIGHBOUR: &str = "run-options-db";

/// What became of a line.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// What the engine says of the container.
    Created(BTreeMap<String, Value>),
    /// Why the engine made none.
    Refused(String),
    /// Why it was not even asked. Each client has its own words for that.
    Unasked(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(_) => f.write_str("a container"),
            Self::Refused(reason) => write!(f, "refused by the engine: {reason}"),
            Self::Unasked(reason) => write!(f, "refused by the client: {reason}"),
        }
    }
}

/// An engine, and what the lines need there.
struct Site {
    lab: LabEngine,
    socket: PathBuf,
    client: Engine,
}

impl Site {
    fn prepare(lab: LabEngine, runtime: &Runtime) -> Self {
        let env = Env::from_pairs([("DOCKER_HOST", lab.host.as_str())]);
        let engine = ChosenEngine::of_environment(&env).unwrap();
        let site = Self {
            socket: PathBuf::from(lab.host.strip_prefix("unix://").unwrap()),
            client: runtime.block_on(engine.connect(&CallOptions::unattended())).unwrap(),
            lab,
        };
        // What a test that was killed has left.
        site.clean();
        for (name, subnet) in NETWORKS {
            capture(
                site.lab
                    .docker()
                    .args(["network", "create", "--label", LABEL, "--subnet", subnet, name]),
            )
            .unwrap();
        }
        // It runs: nobody joins the network of a container that does not.
        let mut neighbour = site.lab.docker();
        neighbour.args(["run", "--detach", "--name", NEIGHBOUR, "--label", LABEL]);
        neighbour.args([
            "-v",
            "run-options-shared:/shared",
            "-v",
            "/tmp:/host:ro",
            IMAGE,
            "sleep",
            "600",
        ]);
        capture(&mut neighbour).unwrap();
        site
    }

    fn clean(&self) {
        let label = format!("label={LABEL}");
        for (list, remove) in [
            (
                vec!["ps", "--all", "--quiet", "--filter", &label],
                vec!["rm", "--force", "--volumes"],
            ),
            (
                vec!["network", "ls", "--quiet", "--filter", &label],
                vec!["network", "rm"],
            ),
            (
                vec!["volume", "ls", "--quiet", "--filter", "name=^run-options-"],
                vec!["volume", "rm", "--force"],
            ),
        ] {
            let names = capture_text(self.lab.docker().args(list)).unwrap_or_default();
            if !names.is_empty() {
                // A failure of the test itself is the one to be seen.
                let _ = capture(self.lab.docker().args(remove).args(names.lines()));
            }
        }
    }

    /// What the docker client makes of a line.
    fn dockers(&self, words: &[String], home: &Path, runtime: &Runtime) -> Outcome {
        let output = Command::new("docker")
            .args(["--host", &self.lab.host, "create"])
            .args(words)
            .arg(IMAGE)
            .args(COMMAND)
            .env_clear()
            .envs(ENVIRONMENT)
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", home)
            .current_dir(home)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            return self.inspect(String::from_utf8_lossy(&output.stdout).trim(), runtime);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match said.split_once("Error response from daemon: ") {
            Some((_, reason)) => Outcome::Refused(one_line(reason)),
            None => Outcome::Unasked(one_line(&said)),
        }
    }

    /// What we make of it.
    fn ours(&self, words: &[String], home: &Path, runtime: &Runtime) -> Outcome {
        let api = self.client.api();
        let facts = ClientFacts {
            env: &|name| {
                let variable = ENVIRONMENT.iter().find(|(known, _)| *known == name);
                variable.map(|(_, value)| (*value).to_owned())
            },
            read_file: &|path| std::fs::read(path),
            working_dir: home,
            api_version: (1, u32::try_from(api.1.min(50)).unwrap()),
            engine_system: EngineSystem::Linux,
            engine_socket: self.socket.to_str(),
            console_size: (0, 0),
            proxies: &[],
            credentials: None,
        };
        let command = COMMAND.map(str::to_owned);
        let planned = RunOptions::parse(words).and_then(|options| options.plan(IMAGE, &command, &facts));
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return Outcome::Unasked(error.to_string()),
        };
        match runtime.block_on(container::create(&self.client, &plan)) {
            Ok(created) => self.inspect(&created.keep(), runtime),
            Err(error) => {
                let said = error.to_string();
                let engines = said.strip_prefix("the container can't be made: ");
                Outcome::Refused(one_line(engines.unwrap_or(&said)))
            }
        }
    }

    /// What the engine says of a container, which is then removed.
    fn inspect(&self, id: &str, runtime: &Runtime) -> Outcome {
        // Not by our own client, which might leave out what it does not know.
        let answer = http::get(&self.socket, &format!("/containers/{id}/json"), PATIENCE).unwrap();
        runtime.block_on(container::remove(&self.client, id)).unwrap();
        let said = answer.json();
        let name = said["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
        let sections = [
            ("HostConfig", &said["HostConfig"]),
            ("Config", &said["Config"]),
            ("Mounts", &said["Mounts"]),
            ("Networks", &said["NetworkSettings"]["Networks"]),
        ];
        let sections = sections.map(|(section, value)| (section.to_owned(), normal(value.clone(), section, id, &name)));
        Outcome::Created(sections.into())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.clean();
    }
}

/// A value without what differs between two containers that are made alike.
pub(crate) fn normal(value: Value, key: &str, id: &str, name: &str) -> Value {
    match value {
        Value::String(text) => Value::String(anonymous(&text, id, name)),
        Value::Object(map) => {
            let map = map.into_iter().map(|(key, value)| {
                let value = normal(value, &key, id, name);
                (key, value)
            });
            Value::Object(map.collect())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(|item| normal(item, "", id, name)).collect();
            // Client and engine make them of Go's maps, whose order is chance.
            if matches!(key, "Binds" | "Env" | "Links" | "Mounts") {
                list.sort_by_key(|item| item.get("Destination").unwrap_or(item).to_string());
            }
            Value::Array(list)
        }
        other => other,
    }
}

/// A text with the container's ID (its first twelve digits are the host name), its name and the IDs of volumes masked.
fn anonymous(text: &str, id: &str, name: &str) -> String {
    let text = text.replace(id, "<id>").replace(id.get(..12).unwrap(), "<id>");
    // In links it stands between slashes.
    let text = text.replace(&format!("/{name}/"), "/<name>/");
    if text == name {
        "<name>".to_owned()
    } else {
        without_ids(&text)
    }
}

/// IDs are 64 hexadecimal digits.
fn without_ids(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let other = rest
            .bytes()
            .skip(digits)
            .take_while(|byte| !byte.is_ascii_hexdigit())
            .count();
        let (head, tail) = rest.split_at(digits);
        let (between, tail) = tail.split_at(other);
        result.push_str(if digits == 64 { "<id>" } else { head });
        result.push_str(between);
        rest = tail;
    }
    result
}

/// As our errors are: without line ends.
pub(crate) fn one_line(text: &str) -> String {
    let line: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    without_ids(&line)
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    for (name, content) in FILES {
        std::fs::write(home.path().join(name), content).unwrap();
    }
    home
}

/// What differs, in as few words as will do.
fn difference(theirs: &Outcome, ours: &Outcome) -> Option<String> {
    match (theirs, ours) {
        (theirs, ours) if theirs == ours => None,
        (Outcome::Unasked(_), Outcome::Unasked(_)) => None,
        // Where an engine lists names, their order is chance.
        (Outcome::Refused(theirs), Outcome::Refused(ours)) if sorted(theirs) == sorted(ours) => None,
        (Outcome::Created(theirs), Outcome::Created(ours)) => {
            let mut differences = String::new();
            for (section, value) in theirs {
                differing(
                    section,
                    value,
                    ours.get(section).unwrap_or(&Value::Null),
                    &mut differences,
                );
            }
            Some(differences)
        }
        (theirs, ours) => Some(format!("\n    docker: {theirs}\n    ours:   {ours}")),
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split([' ', ',']).collect();
    words.sort_unstable();
    words
}

pub(crate) fn differing(place: &str, theirs: &Value, ours: &Value, differences: &mut String) {
    match (theirs, ours) {
        (theirs, ours) if theirs == ours => {}
        (Value::Object(their_map), Value::Object(our_map)) => {
            let keys: BTreeSet<&String> = their_map.keys().chain(our_map.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differing(&format!("{place}.{key}"), &of(their_map), &of(our_map), differences);
            }
        }
        _ => differences.push_str(&format!("\n    {place}: docker {theirs}, ours {ours}")),
    }
}

#[test]
fn engines_make_the_containers_of_the_docker_client() {
    let lines: Vec<&str> = LINES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(lines.len() >= 150, "only {} lines", lines.len());
    let runtime = Runtime::new().unwrap();
    let engines = lab::engines().unwrap();
    let sites: Vec<Site> = engines
        .into_iter()
        .map(|engine| Site::prepare(engine, &runtime))
        .collect();
    let mut cases: Vec<(&str, &Site)> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let here = |site: &&Site| ENGINES.contains(&site.lab.name.as_str()) || number % SAMPLE == 0;
        cases.extend(sites.iter().filter(here).map(|site| (*line, site)));
    }
    let (next, created, differences) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (cases, next, created, differences, runtime) = (&cases, &next, &created, &differences, &runtime);
            scope.spawn(move || {
                let home = home();
                while let Some((line, site)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut words = vec!["--pull=never".to_owned()];
                    words.extend(option_line::words(line));
                    words.extend(["--label".to_owned(), LABEL.to_owned()]);
                    // Names and ports are the engine's; two workers must not want the same.
                    let words: Vec<String> = words
                        .iter()
                        .map(|word| word.replace("run-options-dev", &format!("run-options-dev{worker}")))
                        .collect();
                    let theirs = site.dockers(&words, home.path(), runtime);
                    // The client's own, which it does not overwrite.
                    let _ = std::fs::remove_file(home.path().join("id"));
                    let ours = site.ours(&words, home.path(), runtime);
                    created.fetch_add(usize::from(matches!(theirs, Outcome::Created(_))), Ordering::Relaxed);
                    if let Some(difference) = difference(&theirs, &ours) {
                        differences
                            .lock()
                            .unwrap()
                            .push(format!("{}: {line}{difference}", site.lab.name));
                    }
                }
            });
        }
    });
    let (created, mut differences) = (created.into_inner(), differences.into_inner().unwrap());
    differences.sort();
    assert!(
        differences.is_empty(),
        "{} of {} cases differ:\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
    // Refusals alone would prove little.
    assert!(
        created * 3 > cases.len() * 2,
        "only {created} of {} containers were made",
        cases.len()
    );
}
