//! The log of a suite: a file with the beginning and the end of what was printed, however much that was.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;

use crate::artifacts;

/// How many bytes of the beginning are kept, and how many of the end.
const BEGINNING: usize = 16 << 20;
const END: usize = 1 << 20;

/// A log that is being written.
#[derive(Debug)]
pub(super) struct TestLog {
    path: PathBuf,
    file: File,
    /// How many bytes may still follow the beginning.
    room: usize,
    /// What came after it, as far as it is kept.
    end: VecDeque<u8>,
    most_end: usize,
    /// How many bytes are in neither.
    left_out: u64,
    /// What went wrong first.
    failure: Option<io::Error>,
    is_closed: bool,
}

impl TestLog {
    /// Makes the file, and the directory around it.
    ///
    /// # Errors
    /// A file that can't be written.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Self::bounded(path, BEGINNING, END)
    }

    fn bounded(path: &Path, room: usize, most_end: usize) -> Result<Self> {
        artifacts::made(path.parent().unwrap_or(Path::new(".")))?;
        // What is there, such as a link, is replaced, and not followed.
        let removed = match fs::remove_file(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        let file = removed.and_then(|()| File::create_new(path));
        Ok(Self::of(
            path,
            file.map_err(|cause| unwritable(path, cause))?,
            room,
            most_end,
        ))
    }

    fn of(path: &Path, file: File, room: usize, most_end: usize) -> Self {
        Self {
            path: path.to_owned(),
            file,
            room,
            end: VecDeque::new(),
            most_end,
            left_out: 0,
            failure: None,
            is_closed: false,
        }
    }

    /// Adds what was printed. A failure is told at the end: the tests need not stop for it.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        let (first, rest) = bytes.split_at(bytes.len().min(self.room));
        self.room -= first.len();
        self.put(first);
        self.end.extend(rest);
        let over = self.end.len().saturating_sub(self.most_end);
        self.end.drain(..over);
        self.left_out += over as u64;
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.file.write_all(bytes).err();
        }
    }

    /// Writes the end. What follows is left out: something that a test left running may still print.
    ///
    /// # Errors
    /// Whatever could not be written.
    pub(super) fn close(&mut self) -> Result<PathBuf> {
        self.is_closed = true;
        if self.left_out > 0 {
            let note = format!("\n[... {} bytes are left out here ...]\n", self.left_out);
            self.put(note.as_bytes());
        }
        let end: Vec<u8> = std::mem::take(&mut self.end).into();
        self.put(&end);
        match self.failure.take() {
            Some(cause) => Err(unwritable(&self.path, cause)),
            None => Ok(self.path.clone()),
        }
    }
}

/// The error for a file of results.
pub(super) fn unwritable(path: &Path, cause: io::Error) -> Error {
    let place = path.parent().unwrap_or(path).display().to_string();
    Error::failed(format!("{} can't be written", path.display()))
        .because(cause)
        .hint(hint!("is there room, and may you write there? df -h {}", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_its_beginning_and_its_end() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("logs/x.log");
        let mut log = TestLog::bounded(&path, 4, 3).unwrap();
        log.write(b"abc");
        log.write(b"defgh");
        log.write(b"ij");
        assert_eq!(log.close().unwrap(), path);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "abcd\n[... 3 bytes are left out here ...]\nhij"
        );
        let mut log = TestLog::bounded(&path, 4, 3).unwrap();
        log.write(b"abcdefg");
        log.close().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abcdefg");
    }

    #[test]
    fn a_log_replaces_a_link_and_is_in_no_folder_that_is_one() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = home.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        let path = home.path().join("x.log");
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        TestLog::create(&path).unwrap().close().unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        let logs = home.path().join("logs");
        std::os::unix::fs::symlink(home.path(), &logs).unwrap();
        let error = TestLog::create(&logs.join("x.log")).unwrap_err().to_string();
        assert!(
            error.ends_with("logs is a link: no results are written there"),
            "{error}"
        );
    }

    #[test]
    fn a_log_that_can_not_be_written_is_an_error_with_its_path() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("logs"), "a file").unwrap();
        let error = TestLog::create(&home.path().join("logs/x.log")).unwrap_err();
        assert!(error.to_string().ends_with("logs can't be made"), "{error}");
        let full = Path::new("/dev/full");
        let mut log = TestLog::of(full, File::create(full).unwrap(), BEGINNING, END);
        log.write(b"x");
        assert_eq!(log.close().unwrap_err().to_string(), "/dev/full can't be written");
    }
}
