//! Values that were made at random reach a container as docker and as Python take them: content decides nothing.
//!
//! The oracle for `-e` and for sections that `env` names is Python's own `string.Template` (the original expanded by it), behind the one
//! rule of `docs/concepts.md` that is ours: one pair of quotes around the whole value is taken off. What it gives, the docker client
//! is given as it is, and both containers must have the same environment in the engine's words.

// What a test is made of fails as the test does.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::{Random, Sandbox, lab};
use serde_json::{Value, json};

const SEED: u64 = 15;
/// For each of the two ways; all of one way are variables of one container.
const VALUES: usize = 400;
const CONFIG: &str = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\ncmd = true\n";
/// Variables of the environment that values name. What is in them must not be read again.
const VARIABLES: [(&str, &str); 4] = [
    ("PLAIN", "text"),
    ("BLANKS", " two  words "),
    ("QUOTES", "a\"b'c\\"),
    ("DOLLARS", "$PLAIN $$ {PLAIN}"),
];
/// All that means something to a shell, to docker, to JSON, to configparser or to a pattern.
const PIECES: [&str; 52] = [
    "a",
    "B",
    "é",
    "日",
    "0",
    " ",
    "  ",
    "\"",
    "\"",
    "'",
    "'",
    "\\",
    "\\\\",
    "\\n",
    "\\\"",
    "{",
    "}",
    "{}",
    "{PLAIN}",
    "{\"k\":1}",
    "{\"k\": [1, 2]}",
    "C:\\new",
    "^\\d+",
    "=",
    "==",
    ",",
    ":",
    ";",
    "#",
    " # ",
    "!",
    "*",
    "?",
    "~",
    "`id`",
    "|",
    "&&",
    "(",
    ")",
    "<",
    ">",
    "-",
    "--",
    "/",
    "$$",
    "$PLAIN-",
    "${PLAIN}",
    "$BLANKS/",
    "${QUOTES}x",
    "$DOLLARS.",
    "$$PLAIN",
    "http://u:p@h/?q=1&r=2",
];
/// What only `-e` takes: dollars that begin no name, lines, and percent signs, which are configparser's.
const ARGUMENT_PIECES: [&str; 8] = ["$ ", "$1", "${ ", "${}", "\n", "\t", "%", "%(name)s"];
/// What Python makes of values, or of the section of a file.
const ORACLE: &str = r#"
import configparser, json, string, sys
given = json.load(sys.stdin)
def plain(value):
    for quote in '"\'':
        if len(value) > 1 and value[0] == quote == value[-1]:
            return value[1:-1]
    return value
out = {}
if given["file"] is None:
    for name, value in given["values"].items():
        out[name] = string.Template(plain(value)).safe_substitute(given["variables"])
else:
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string(given["file"])
    for name, value in parser["env_box"].items():
        out[name] = string.Template(plain(value)).substitute(given["variables"])
json.dump(out, sys.stdout)
"#;

#[test]
fn what_is_in_a_value_decides_nothing() {
    let mut random = Random::new(SEED);
    let pieces = [&PIECES[..], &ARGUMENT_PIECES[..]].concat();
    let values = made(&mut random, &pieces);
    let expected = oracle(&json!({ "values": values, "variables": variables(), "file": null }));
    let options: Vec<String> = values
        .iter()
        .flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")])
        .collect();
    same_environment(CONFIG, &options, &expected);
}

#[test]
fn what_is_in_a_value_of_a_section_decides_nothing() {
    let mut random = Random::new(SEED + 1);
    let values = made(&mut random, &PIECES);
    let lines: String = values
        .iter()
        // As a person writes a percent sign there; none of the pieces has one.
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let config = format!("{CONFIG}env = env_box\n\n[env_box]\n{lines}");
    let expected = oracle(&json!({ "values": null, "variables": variables(), "file": config }));
    assert_eq!(expected.len(), VALUES);
    same_environment(&config, &[], &expected);
}

fn made(random: &mut Random, pieces: &[&str]) -> BTreeMap<String, String> {
    (0..VALUES)
        .map(|number| {
            let count = random.index(7);
            let mut value: String = (0..count).map(|_| *random.pick(pieces)).collect();
            if pieces.len() > PIECES.len() && random.one_in(10) {
                value.push('$');
            }
            // Seldom by chance, and the one thing that is taken off.
            if random.one_in(6) {
                let quote = *random.pick(&["\"", "'"]);
                value = format!("{quote}{value}{quote}");
            }
            (format!("V{number:03}"), value)
        })
        .collect()
}

fn variables() -> BTreeMap<&'static str, &'static str> {
    VARIABLES.into()
}

fn oracle(given: &Value) -> BTreeMap<String, String> {
    let mut python = Command::new("python3")
        .args(["-ISc", ORACLE])
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Python reads all before it writes.
    python
        .stdin
        .take()
        .unwrap()
        .write_all(given.to_string().as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "python: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Ours with these options, and docker with what is expected, make containers with the same environment.
fn same_environment(config: &str, options: &[String], expected: &BTreeMap<String, String>) {
    let engine = lab::engine("26").unwrap();
    let sandbox = Sandbox::new().file("docker/dockerutils.cfg", config);
    let mut ours = sandbox
        .command("run-image")
        .args(["box", "--keep", "--json"])
        .args(options)
        .env("LOGNAME", lab::mark().unwrap())
        .env("DOCKER_HOST", &engine.host)
        .any_stdout()
        .any_stderr();
    for (name, value) in VARIABLES {
        ours = ours.env(name, value);
    }
    let ours = ours.run().json()["id"].as_str().unwrap().to_owned();
    let mut docker = engine.docker();
    docker.arg("create");
    for (name, value) in expected {
        docker.arg("-e").arg(format!("{name}={value}"));
    }
    let theirs = capture_text(docker.args([lab::BASE_IMAGE, "true"])).unwrap();
    let environment = |container: &str| -> BTreeMap<String, String> {
        let mut inspect = engine.docker();
        inspect.args(["inspect", "--format", "{{json .Config.Env}}", container]);
        let list: Vec<String> = serde_json::from_slice(&capture(&mut inspect).unwrap()).unwrap();
        list.iter()
            .filter_map(|variable| variable.split_once('='))
            .filter(|(name, _)| expected.contains_key(*name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let (found, wanted) = (environment(&ours), environment(theirs.trim()));
    capture(
        engine
            .docker()
            .args(["rm", "--force", "--volumes", &ours, theirs.trim()]),
    )
    .unwrap();
    assert_eq!(&wanted, expected, "docker itself");
    for (name, value) in &wanted {
        assert_eq!(found.get(name), Some(value), "{name}");
    }
}
