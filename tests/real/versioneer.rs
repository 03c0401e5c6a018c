//! genversion says what versioneer says: the same dictionary, and the same bytes in `_version.py.bld`.
//!
//! Each project of `versioneer/cases.rs` is made by git, with a `versioneer.py` of PyPI in it. For each style, genversion
//! and the `gen_version_file()` of dockerutils 2.0.7 are run there, and must come to the same. What the releases of
//! versioneer do differently is held together in the style in which all of it shows.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod cases;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::thread;

use cases::{CASES, Case, Outcome, PRELUDE};
use dockerutils_test_support::Sandbox;
use dockerutils_tests::python::{ORIGINAL, Package};
use serde_json::{Value, json};

const STYLES: &[&str] = &[
    "pep440",
    "pep440-branch",
    "pep440-post",
    "pep440-pre",
    "pep440-old",
    "pep440-post-branch",
    "git-describe",
    "git-describe-long",
];

/// The newest, and those before which something changed.
const RELEASES: [Package<'_>; 4] = [
    Package {
        name: "versioneer-0.29",
        requirement: "versioneer==0.29 --hash=sha256:0f1a137bb5d6811e96a79bb0486798aeae9b9c6efc24b389659cebb0ee396cb9\n",
        module: "versioneer",
    },
    Package {
        name: "versioneer-0.22",
        requirement: "versioneer==0.22 --hash=sha256:dee243f8f084351a1d79eabefc2e55d58aa8a2af086a7e41602a6aafbd972a34\n",
        module: "versioneer",
    },
    Package {
        name: "versioneer-0.20",
        requirement: "versioneer==0.20 --hash=sha256:927980017ccc52faafed31bb9e8db47ee404a521e023b1e89b2062255131e5f8\n",
        module: "versioneer",
    },
    Package {
        name: "versioneer-0.18",
        requirement: "versioneer==0.18 --hash=sha256:08e395c0acc544f78645b9c0ebfccaf47950ae61e0c85bd1aaea98ff59609aeb\n",
        module: "versioneer",
    },
];

/// The issue asks for as many, at least.
const PROJECTS: usize = 60;

#[test]
fn every_style_of_every_project_is_versioneers() {
    let [newest, ..] = &RELEASES;
    let compared = compare(newest, CASES.iter(), STYLES);
    assert!(compared >= PROJECTS * STYLES.len(), "{compared} compared");
}

#[test]
fn older_releases_are_followed() {
    for release in RELEASES.iter().skip(1) {
        let cases = CASES.iter().filter(|case| case.ages);
        let compared = compare(release, cases, &["pep440-pre"]);
        assert!(compared > 0, "nothing is compared with {}", release.name);
    }
}

/// Compares cases in these styles, two at a time, and returns how many comparisons there were.
fn compare<'a>(release: &Package<'_>, cases: impl Iterator<Item = &'a Case> + Send, styles: &[&str]) -> usize {
    let versioneer = source(release);
    let next = Mutex::new(cases);
    let (compared, differences) = (Mutex::new(0), Mutex::new(String::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut oracle = Oracle::start();
                loop {
                    let Some(case) = next.lock().unwrap().next() else {
                        break;
                    };
                    let project = Project::make(case, &versioneer);
                    let styles = if case.configuration.1.contains("STYLE") {
                        styles
                    } else {
                        &[""]
                    };
                    for style in styles {
                        *compared.lock().unwrap() += 1;
                        if let Some(difference) = project.differs(style, &mut oracle) {
                            let place = format!("{}, {style}, {}", case.name, release.name);
                            writeln!(differences.lock().unwrap(), "--- {place}\n{difference}").unwrap();
                        }
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{differences}");
    compared.into_inner().unwrap()
}

/// The `versioneer.py` that a release puts into a project.
fn source(release: &Package<'_>) -> Vec<u8> {
    let commands = release
        .commands()
        .unwrap_or_else(|error| panic!("{} is needed: {error}", release.name));
    let program = "import base64, sys, versioneer\n\
                   sys.stdout.buffer.write(base64.b64decode(versioneer.VERSIONEER_b64))";
    let output = Command::new(commands.join("python3"))
        .args(["-c", program])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A project on disk.
struct Project<'a> {
    case: &'a Case,
    sandbox: Sandbox,
    root: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl<'a> Project<'a> {
    fn make(case: &'a Case, versioneer: &[u8]) -> Self {
        let sandbox = Sandbox::new();
        let around = sandbox.project().parent().unwrap().display().to_string();
        let mut environment = vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("HOME", sandbox.home().display().to_string()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            // Where a test's temporary files are in a repository.
            ("GIT_CEILING_DIRECTORIES", around),
        ];
        let mut shell = sandbox.program("/bin/sh");
        for (name, value) in &environment {
            shell = shell.env(name, value);
        }
        let script = format!("set -eu\n{PRELUDE}\n{}", case.script);
        shell.args(["-c", &script]).any_stdout().any_stderr().run();
        let root = sandbox.project().join(case.root);
        for (path, text) in [
            ("versioneer.py", versioneer),
            ("docker/dev/Dockerfile", b"FROM scratch\n"),
        ] {
            sandbox.write(&format!("{}/{path}", case.root), text);
        }
        environment.retain(|(name, _)| case.variable.is_none_or(|(other, _)| *name != other));
        environment.extend(case.variable.map(|(name, value)| (name, value.to_owned())));
        Self {
            case,
            sandbox,
            root,
            environment,
        }
    }

    /// What is not the same.
    fn differs(&self, style: &str, oracle: &mut Oracle) -> Option<String> {
        let (name, text) = self.case.configuration;
        fs::write(self.root.join(name), text.replace("STYLE", style)).unwrap();
        let file = self.root.join("_version.py.bld");
        let mut genversion = self
            .sandbox
            .command("genversion")
            .arg("--json")
            .current_dir(self.case.root);
        for (name, value) in &self.environment {
            genversion = genversion.env(name, value);
        }
        let ours = genversion.spawn().wait();
        let theirs = oracle.ask(&self.root, &self.environment, &file);
        let bytes = fs::read_to_string(&file).ok();
        if file.exists() {
            fs::remove_file(&file).unwrap();
        }
        let failed = theirs["exception"].as_str();
        let same = match (self.case.outcome, failed) {
            (Outcome::Answered, failed) => failed.is_some() && ours.code == 0 && theirs["ours"] == ours.json(),
            (_, Some(_)) => ours.code == 2 && ours.stderr.contains("hint: ") && bytes.is_none(),
            (_, None) if ours.code != 0 => false,
            (Outcome::Same, None) => {
                ours.json() == theirs["versions"]
                    && theirs["ours"] == theirs["versions"]
                    && bytes.as_deref() == theirs["text"].as_str()
            }
            // The bytes are the better ones, and a rule that makes no difference is none.
            (Outcome::Mended, None) => {
                ours.json() == theirs["versions"]
                    && theirs["ours"] == theirs["versions"]
                    && bytes.as_deref() != theirs["text"].as_str()
            }
        };
        (!same).then(|| format!("{theirs:#}\n{ours}\n{}", bytes.unwrap_or_default()))
    }
}

/// The original, in one process for many projects.
struct Oracle {
    process: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Self {
        let commands = ORIGINAL
            .commands()
            .unwrap_or_else(|error| panic!("dockerutils 2.0.7 is needed: {error}"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/real/versioneer/oracle.py");
        let mut process = Command::new(commands.join("python3"))
            .args(["-X", "utf8", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // git's complaints, which are part of many cases.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            questions: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    fn ask(&mut self, root: &Path, environment: &[(&str, String)], file: &Path) -> Value {
        let environment: serde_json::Map<String, Value> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let question = json!({ "root": root, "environment": environment, "file": file });
        writeln!(self.questions, "{question}").expect("the oracle listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the oracle speaks");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("the oracle says {answer:?}: {error}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It is in no project, and has nothing to put away.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
