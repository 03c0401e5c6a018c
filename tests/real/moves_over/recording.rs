//! Doing a call by the original or by ours, and what the programs on PATH heard of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use dockerutils_test_support::{Outcome, Sandbox, binary};
use serde_json::Value;

/// Writes down how it was called: a line of JSON for each call. `docker` is this program, and so is `record`, by which
/// the scripts of projects tell that they ran. Of variables it knows what docker would look at: those of `-e NAME`.
const RECORDER: &str = r#"
import json, os, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
by_name = {name: os.environ.get(name) for flag, name in zip(words, words[1:]) if flag == "-e" and "=" not in name}
directory = os.path.relpath(os.getcwd(), os.environ["RECORDED_ROOT"])
with open(os.environ["RECORDED_CALLS"], "a") as calls:
    calls.write(json.dumps({"directory": directory, "words": words, "by_name": by_name}) + "\n")
"#;
/// Runs a program with a new terminal for its stdin. The original asks docker for a terminal whether there is one or
/// not; ours looks.
const TERMINAL: &str = "
import os, pty, sys
terminal, stdin = pty.openpty()
os.dup2(stdin, 0)
sys.exit(os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:]))
";

/// Who does a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// dockerutils 2.0.7.
    Original,
    /// Ours: what `--dry-run` prints, run by the shell.
    Ours,
}

/// A call of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Where it was called, seen from the project's root.
    pub directory: String,
    /// The program's name and its arguments.
    pub words: Vec<String>,
    /// The values of variables that docker would take from the environment; none for one that is not set.
    pub by_name: BTreeMap<String, Option<String>>,
}

/// What a call came to.
pub struct Deeds {
    /// The programs that were called.
    pub recorded: Vec<Recorded>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Deeds {
    /// Whether the call ended with 0.
    pub fn succeeded(&self) -> bool {
        self.outcome.code == 0
    }
}

/// A copy of a project, and the commands of both versions.
pub struct Stage {
    sandbox: Sandbox,
    original: PathBuf,
}

impl Stage {
    /// Copies a project; `original` is the directory of the original's commands.
    pub fn new(project: &Path, original: &Path) -> Self {
        let name = project
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name in UTF-8");
        let sandbox = Sandbox::named(name);
        copy(project, sandbox.project());
        let stage = Self {
            sandbox,
            original: original.to_owned(),
        };
        let python = original.join("python3");
        for name in ["docker", "record"] {
            // Neither the site's packages nor PYTHON* variables: it starts in no time, and the same everywhere.
            stage.program(
                &format!("stub/{name}"),
                &format!("#!{} -SE\n{RECORDER}", python.display()),
            );
        }
        for name in ["build-image", "run-image"] {
            let ours = binary(name);
            let script = format!(
                "#!/bin/sh\nlines=$('{}' --dry-run \"$@\") || exit\neval \"$lines\"\n",
                ours.display()
            );
            stage.program(&format!("ours/{name}"), &script);
        }
        stage
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        self.sandbox.project()
    }

    /// Does a call.
    pub fn run(&self, version: Version, line: &str) -> Deeds {
        let commands = match version {
            Version::Original => self.original.clone(),
            Version::Ours => self.beside("ours"),
        };
        let calls = self.beside("recorded");
        let _ = fs::remove_file(&calls);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = [commands, self.beside("stub")]
            .into_iter()
            .chain(std::env::split_paths(&path));
        let path: OsString = std::env::join_paths(directories).expect("no colon in a temporary directory");
        let outcome = self
            .sandbox
            .program(self.original.join("python3"))
            .args(["-ISc", TERMINAL, "sh", "-c", line])
            .env("PATH", path)
            .env("RECORDED_CALLS", &calls)
            .env("RECORDED_ROOT", self.root())
            .env_remove("DOCKER_HOST")
            .spawn()
            .wait();
        let text = fs::read_to_string(&calls).unwrap_or_default();
        Deeds {
            recorded: text.lines().map(Recorded::parse).collect(),
            outcome,
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.root().with_file_name(name)
    }

    fn program(&self, path: &str, text: &str) {
        let file = self.beside(path);
        fs::create_dir_all(file.parent().expect("in a directory")).expect("a directory of the sandbox");
        fs::write(&file, text).expect("a file of the sandbox");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("it was just written");
    }
}

impl Recorded {
    fn parse(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).expect("the recorder writes JSON");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Self {
            directory: text(&value["directory"]).expect("a directory"),
            words: value["words"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(text)
                .collect(),
            by_name: value["by_name"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
        }
    }

    /// Whether a container was run.
    pub fn is_run(&self) -> bool {
        self.words.starts_with(&["docker".to_owned(), "run".to_owned()])
    }

    /// Where the words stand that set a variable: each behind a `-e`.
    pub fn variables(&self) -> Vec<usize> {
        (1..self.words.len()).filter(|at| self.words[at - 1] == "-e").collect()
    }

    /// The words, each that is not plain in quotes, and the directory where it is not the root.
    pub fn shown(&self) -> String {
        let mut shown = String::new();
        for word in &self.words {
            let plain = !word.is_empty()
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-./:=,{}$".contains(c));
            let _ = if plain {
                write!(shown, "{word} ")
            } else {
                write!(shown, "{word:?} ")
            };
        }
        if self.directory != "." {
            let _ = write!(shown, "(in {})", self.directory);
        }
        shown.trim_end().to_owned()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory of the sandbox");
    for entry in fs::read_dir(from).expect("a project") {
        let entry = entry.expect("a project");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file of a project");
        }
    }
}
