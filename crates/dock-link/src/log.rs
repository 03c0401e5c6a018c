//! What an agent did, in a file of limited size.
//!
//! Both processes of an agent write to it, seldom: each line opens the file anew, so that it does not matter which
//! process has moved it aside. No secret is ever given to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use dock_client::agent::paths::AgentPaths;
use dock_client::text::visible;

/// Past this size, in bytes, the log becomes the old log, and replaces the previous old log.
const LIMIT: u64 = 512 * 1024;
/// The longest line: a dock must not be able to fill the log.
const LINE: usize = 2000;

/// A log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    file: PathBuf,
    old: PathBuf,
    who: &'static str,
    takes_stderr: bool,
}

impl Log {
    /// The log of the agent with these paths, for the part of it that is called `who`.
    pub fn of(paths: &AgentPaths, who: &'static str) -> Self {
        Self {
            file: paths.log_file(),
            old: paths.old_log_file(),
            who,
            takes_stderr: false,
        }
    }

    /// Redirects this process's stderr into the log, from now on: panics, and messages of libraries.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn take_stderr(&mut self) -> io::Result<()> {
        self.takes_stderr = true;
        Ok(rustix::stdio::dup2_stderr(self.open()?)?)
    }

    /// Writes a line. A full disk must not stop the service.
    pub fn line(&self, text: impl AsRef<str>) {
        let _ = self.try_line(text.as_ref());
    }

    fn try_line(&self, text: &str) -> io::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let text: String = visible(text).chars().take(LINE).collect();
        let mut file = self.open()?;
        if file.metadata()?.len() > LIMIT {
            fs::rename(&self.file, &self.old)?;
            file = self.open()?;
            if self.takes_stderr {
                rustix::stdio::dup2_stderr(&file)?;
            }
        }
        // In one write, so that the lines of two processes don't mix.
        file.write_all(format!("{now} {} {}: {text}\n", self.who, std::process::id()).as_bytes())
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_log_is_private_and_does_not_grow_without_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log {
            file: directory.path().join("log"),
            old: directory.path().join("log.1"),
            who: "test",
            takes_stderr: false,
        };
        for number in 0..1000 {
            log.line(format!("{number}\r\x1b[2J{}", "x".repeat(3000)));
        }
        for file in [&log.file, &log.old] {
            let metadata = fs::metadata(file).unwrap();
            assert!(metadata.len() <= LIMIT + 2 * LINE as u64);
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
        let text = fs::read_to_string(&log.file).unwrap();
        assert!(text.lines().last().unwrap().contains(": 999\u{fffd}xxx"));
        assert!(!text.contains('\x1b'));
    }
}
