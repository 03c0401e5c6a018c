//! Running programs: a failure becomes an error that shows the command and its output.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A program could not be run, or it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("{program}: cannot be started")]
    Start {
        /// The program's name, as given.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program ended with a code other than 0.
    #[error("`{command}` failed ({status}){}", indented(.stderr))]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to stderr, if that was captured.
        stderr: String,
    },
}

impl Error {
    /// The exit code of the program, if it was not ended by a signal.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::Start { .. } => None,
            Self::Failed { status, .. } => status.code(),
        }
    }
}

/// Runs `command` with its streams as they are, and waits for it.
///
/// # Errors
/// When it cannot be started or ends with a code other than 0.
pub fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| start_error(command, source))?;
    check(command, status, "")
}

/// Runs `command` and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started or ends with a code other than 0; what it wrote to stderr is in the error.
pub fn capture(command: &mut Command) -> Result<Vec<u8>, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| start_error(command, source))?;
    check(command, output.status, &String::from_utf8_lossy(&output.stderr))?;
    Ok(output.stdout)
}

/// [`capture`], as text without the space around it.
///
/// # Errors
/// As [`capture`].
pub fn capture_text(command: &mut Command) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&capture(command)?).trim().to_owned())
}

/// Runs `producer | consumer` without a shell, and returns what the consumer wrote to stdout.
///
/// # Errors
/// When either cannot be started or fails: a pipe whose left side failed is never a success.
pub fn pipe(producer: &mut Command, consumer: &mut Command) -> Result<Vec<u8>, Error> {
    let mut left = producer
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| start_error(producer, source))?;
    if let Some(stream) = left.stdout.take() {
        consumer.stdin(stream);
    }
    let right = consumer.stderr(Stdio::piped()).output();
    // `consumer` holds our copy of the pipe's end; without dropping it, a producer whose reader died would get no
    // SIGPIPE.
    consumer.stdin(Stdio::null());
    let left = left.wait().map_err(|source| start_error(producer, source))?;
    let right = right.map_err(|source| start_error(consumer, source))?;
    check(consumer, right.status, &String::from_utf8_lossy(&right.stderr))?;
    check(producer, left, "")?;
    Ok(right.stdout)
}

/// The program `name` on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Debian keeps debootstrap and the like in a directory that is not on a plain user's PATH.
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Prints a message for the user, on stderr.
pub fn announce(message: impl std::fmt::Display) {
    // A closed stderr must not stop the work.
    let _ = writeln!(io::stderr(), "{message}");
}

/// The program and its arguments, for a message; not quoted for a shell.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn start_error(command: &Command, source: io::Error) -> Error {
    Error::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    }
}

fn check(command: &Command, status: ExitStatus, stderr: &str) -> Result<(), Error> {
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        command: shown(command),
        status,
        stderr: stderr.to_owned(),
    })
}

/// The last lines of a program's stderr, below the message: the first ones are rarely the reason.
fn indented(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    let from = lines.len().saturating_sub(15);
    lines.iter().skip(from).map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_shows_the_command_and_its_last_words() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert_eq!(error.code(), Some(3));
        assert_eq!(
            error.to_string(),
            "`sh -c echo why >&2; exit 3` failed (exit status: 3)\n    why"
        );
    }

    #[test]
    fn a_pipe_whose_left_side_fails_is_a_failure() {
        assert!(pipe(&mut Command::new("false"), &mut Command::new("cat")).is_err());
        let mut echo = Command::new("echo");
        assert_eq!(pipe(echo.arg("x"), &mut Command::new("cat")).unwrap(), b"x\n");
    }

    #[test]
    fn a_pipe_whose_reader_dies_ends() {
        assert!(pipe(&mut Command::new("yes"), &mut Command::new("true")).is_err());
    }
}
