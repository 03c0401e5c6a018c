//! Asking the `git` command, as versioneer does: arguments and no shell, in the project's root.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::VersionError;

/// How long one command may take. Looking for changes in the largest trees takes a few seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// Settings that make git run programs or write colours, and have no say in the answers. `safe.directory` is the user's: in
/// another user's repository, git says so.
const SETTINGS: [&str; 11] = [
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "log.showSignature=false",
    "-c",
    "color.ui=false",
    "-c",
    "column.ui=never",
];

/// What git says.
pub(super) enum Said {
    /// Its stdout, without blanks at both ends.
    Text(Vec<u8>),
    /// It failed or is not there: why.
    Nothing(String),
}

/// Runs git.
///
/// # Errors
/// It takes longer than 30 seconds, or a signal ends it.
pub(super) fn ask(root: &Path, arguments: &[&str]) -> Result<Said, VersionError> {
    ask_within(root, arguments, LIMIT, "none")
}

fn ask_within(root: &Path, arguments: &[&str], limit: Duration, protocols: &str) -> Result<Said, VersionError> {
    let child = Command::new("git")
        .args(SETTINGS)
        .args(arguments)
        .current_dir(root)
        // It names another repository than the one that the root is in.
        .env_remove("GIT_DIR")
        // In a partial clone, a question may fetch what is missing, by whatever program the repository names.
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_ALLOW_PROTOCOL", protocols)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Said::Nothing("git is not installed".to_owned()));
        }
        Err(error) => return Ok(Said::Nothing(format!("git can't be run: {error}"))),
    };
    let output = output(&mut child, limit);
    if output.is_none() {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait();
    let Some((stdout, stderr)) = output else {
        return Err(VersionError::Slow {
            root: root.to_owned(),
            arguments: arguments.join(" "),
            seconds: limit.as_secs(),
        });
    };
    match status {
        // Interrupted with us, or crashed: it would have had an answer.
        Ok(status) if status.signal().is_some() => Err(VersionError::Stopped {
            root: root.to_owned(),
            arguments: arguments.join(" "),
            status,
        }),
        Ok(status) if status.success() => Ok(Said::Text(stdout.trim_ascii().to_owned())),
        Ok(status) => Ok(Said::Nothing(match String::from_utf8_lossy(&stderr).trim() {
            "" => format!("git {} ended with {status}", arguments.join(" ")),
            said => said.to_owned(),
        })),
        Err(error) => Ok(Said::Nothing(format!("git can't be waited for: {error}"))),
    }
}

/// All of stdout and stderr; none where the time is over before their ends.
fn output(child: &mut Child, limit: Duration) -> Option<(Vec<u8>, Vec<u8>)> {
    let deadline = Instant::now() + limit;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let all = |stream: mpsc::Receiver<Vec<u8>>| {
        stream
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .ok()
    };
    Some((all(stdout)?, all(stderr)?))
}

/// Reads a stream to its end in a thread, so that neither of two fills up.
fn collect(stream: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is what there is.
            let _ = stream.read_to_end(&mut bytes);
        }
        // Nobody listens after the limit.
        let _ = sender.send(bytes);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_that_takes_too_long_is_stopped() {
        let began = Instant::now();
        // It waits for an answer on a connection that nobody takes.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("git://{}/x", listener.local_addr().unwrap());
        let Err(error) = ask_within(Path::new("/"), &["ls-remote", &url], Duration::from_millis(200), "git") else {
            panic!("there is an answer");
        };
        assert!(
            error.to_string().starts_with("git ls-remote git://127.0.0.1"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_a_repository_names_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let ran = root.join("ran");
        let git = |arguments: &[&str]| {
            let git = Command::new("git").args(arguments).current_dir(root).output().unwrap();
            assert!(git.status.success(), "{git:?}");
        };
        git(&["init", "-q"]);
        let identity = ["-c", "user.name=a", "-c", "user.email=a@b"];
        git(&[&identity[..], &["commit", "-q", "--allow-empty", "-m", "x"]].concat());
        std::fs::write(root.join("hook"), format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("hook"), mode).unwrap();
        std::fs::copy(root.join("hook"), root.join(".git/hooks/post-index-change")).unwrap();
        git(&["config", "core.fsmonitor", "./hook"]);
        git(&["config", "protocol.ext.allow", "always"]);
        let url = format!("ext::touch {}", ran.display());
        for arguments in [&["status"][..], &["update-index", "--refresh"], &["ls-remote", &url]] {
            ask(root, arguments).unwrap();
            assert!(!ran.exists(), "{arguments:?}");
        }
        // Without our settings, it does.
        git(&["status"]);
        assert!(ran.exists());
    }

    #[test]
    fn a_failure_is_told_in_gits_words() {
        let Ok(Said::Nothing(why)) = ask(Path::new("/"), &["rev-parse", "--verify", "x"]) else {
            panic!("there is an answer");
        };
        assert!(why.starts_with("fatal: "), "{why}");
    }
}
