//! Files that only the user may read, written whole or not at all, and locks between processes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Replaces a file by one with mode 0600: readers see either the old or the new content, whole, even after a power cut.
///
/// # Errors
/// What the operating system says; the old file is unchanged then.
pub fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let directory = written(file, content, true)?;
    File::open(directory)?.sync_all()
}

/// As [`replace`], for content that can be created again: a power cut may leave the old file, or an empty one.
///
/// # Errors
/// As [`replace`].
pub fn replace_quickly(file: &Path, content: &[u8]) -> io::Result<()> {
    written(file, content, false).map(drop)
}

fn written<'a>(file: &'a Path, content: &[u8], durable: bool) -> io::Result<&'a Path> {
    let directory = file.parent().unwrap_or(Path::new("."));
    // It is created with mode 0600.
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(content)?;
    if durable {
        new.as_file().sync_all()?;
    }
    new.persist(file).map_err(|error| error.error)?;
    Ok(directory)
}

/// Opens a file to be locked, created if it does not exist. Its content does not matter.
///
/// # Errors
/// What the operating system says.
pub fn open_lock(file: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_users_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "old").unwrap();
        for write in [replace, replace_quickly] {
            write(&file, b"new").unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"new");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(replace(&directory.path().join("nowhere/file"), b"").is_err());
        let lock = directory.path().join("lock");
        let _held = (open_lock(&lock).unwrap(), open_lock(&lock).unwrap());
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no temporary file stays"
        );
    }
}
