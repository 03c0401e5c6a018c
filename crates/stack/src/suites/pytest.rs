//! pytest: where it is, and what is its.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};

/// pytest's exit code if it found no tests.
pub(super) const NO_TESTS: i32 = 5;
/// How deep below a folder a file for pytest is looked for.
const DEEPEST: usize = 16;
/// How long `python3 -m pytest --version` may take.
const PROBE: Duration = Duration::from_secs(60);

/// How pytest is started: its own program, or the module of `python3`.
pub(super) fn pytest(env: &Env) -> Result<Vec<String>> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    if let Some(program) = on_path("pytest", env) {
        return Ok(vec![text(program)]);
    }
    let python = on_path("python3", env);
    if let Some(python) = &python
        && has_pytest(python, env)
    {
        return Ok(vec![text(python.clone()), "-m".to_owned(), "pytest".to_owned()]);
    }
    let missing = match python {
        Some(python) => format!(
            "there is no pytest on PATH, and {} has no module of that name",
            python.display()
        ),
        None => "there is neither pytest nor python3 on PATH".to_owned(),
    };
    Err(Error::failed(missing).hint(
        "install it with what the tests import: python3 -m venv .venv && . .venv/bin/activate && pip install pytest docker requests",
    ))
}

/// A program of that name in a directory of PATH. A relative entry is ignored: it would be the project's.
fn on_path(name: &str, env: &Env) -> Option<PathBuf> {
    let directories = std::env::split_paths(env.get("PATH").unwrap_or_default());
    let mut candidates = directories
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name));
    candidates.find(|path| is_executable(path))
}

/// Whether this is a file that somebody may execute.
pub(super) fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn has_pytest(python: &Path, env: &Env) -> bool {
    let mut probe = std::process::Command::new(python);
    probe.args(["-m", "pytest", "--version"]).env_clear().envs(env.iter());
    // Not from the working directory, which may hold a folder of that name.
    probe.current_dir("/");
    let quiet = std::process::Stdio::null;
    let Ok(mut child) = probe.stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn() else {
        return false;
    };
    let began = Instant::now();
    while began.elapsed() < PROBE {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => return false,
        }
    }
    // It may have ended just now.
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Whether pytest may find something below this folder: a file of Python.
pub(super) fn has_python(folder: &Path) -> bool {
    has_python_below(folder, 0)
}

fn has_python_below(folder: &Path, depth: usize) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => depth < DEEPEST && has_python_below(&path, depth + 1),
            _ => path.extension().is_some_and(|ending| ending == "py"),
        }
    })
}

/// Whether a file is one of those in which pytest looks for tests by itself, or reads them for fixtures.
pub(super) fn is_pytest_s(name: &str) -> bool {
    name.strip_suffix(".py").is_some_and(|stem| {
        stem.starts_with("test_") || stem.ends_with("_test") || matches!(stem, "conftest" | "__init__")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_pytest_says_how_to_get_it() {
        let home = tempfile::tempdir().unwrap();
        let path = |names: &[&str]| {
            for name in names {
                let program = home.path().join(name);
                fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            }
            Env::from_pairs([("PATH", format!("relative:{}", home.path().display()))])
        };
        let error = pytest(&path(&[])).unwrap_err();
        assert_eq!(error.to_string(), "there is neither pytest nor python3 on PATH");
        let error = pytest(&path(&["python3"])).unwrap_err();
        assert!(
            error.to_string().starts_with("there is no pytest on PATH, and /"),
            "{error}"
        );
        assert!(error.hint_text().unwrap().contains("pip install pytest"), "{error}");
        fs::write(
            home.path().join("python3"),
            "#!/bin/sh\n[ \"$*\" = '-m pytest --version' ]\n",
        )
        .unwrap();
        let python = home.path().join("python3").display().to_string();
        assert_eq!(pytest(&path(&[])).unwrap(), [python.as_str(), "-m", "pytest"]);
        let own = home.path().join("pytest").display().to_string();
        assert_eq!(pytest(&path(&["pytest"])).unwrap(), [own]);
    }
}
