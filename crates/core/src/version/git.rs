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

/// Settings that make git run programs or write colours, and have no say in the answers.
const SETTINGS: [&str; 9] = [
    "--no-optional-locks",
    "-c",
    "core.fsmonitor=false",
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
    ask_within(root, arguments, LIMIT)
}

fn ask_within(root: &Path, arguments: &[&str], limit: Duration) -> Result<Said, VersionError> {
    let child = Command::new("git")
        .args(SETTINGS)
        .args(arguments)
        .current_dir(root)
        // It names another repository than the one that the root is in.
        .env_remove("GIT_DIR")
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
        let Err(error) = ask_within(Path::new("/"), &["ls-remote", &url], Duration::from_millis(200)) else {
            panic!("there is an answer");
        };
        assert!(
            error.to_string().starts_with("git ls-remote git://127.0.0.1"),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_failure_is_told_in_gits_words() {
        let Ok(Said::Nothing(why)) = ask(Path::new("/"), &["rev-parse", "--verify", "x"]) else {
            panic!("there is an answer");
        };
        assert!(why.starts_with("fatal: "), "{why}");
    }
}
