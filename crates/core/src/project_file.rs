//! Reading small files of a project, which a synced copy or somebody else may have written: a pipe in a file's place holds
//! nobody up, and a device or an endless file does not fill the memory.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The longest file that is read, in bytes: a text that people write is shorter.
pub const LONGEST: u64 = 16 * 1024 * 1024;

/// Opens a regular file. Links are followed, or not.
///
/// # Errors
/// What the system says, and anything but a regular file.
pub fn open(path: &Path, follow: bool) -> io::Result<(File, Metadata)> {
    let mut flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !found.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe or a device, not a file",
        ));
    }
    Ok((file, found))
}

/// All of a regular file.
///
/// # Errors
/// As [`open`], and a file that is longer than [`LONGEST`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    all(open(path, true)?.0)
}

/// What is left of an open file.
///
/// # Errors
/// What the system says, and more than [`LONGEST`].
pub fn all(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 16 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_of_a_sane_length_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        File::create(at("long")).unwrap().set_len(LONGEST + 1).unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        assert_eq!(read(&at("link")).unwrap(), b"text");
        assert!(open(&at("link"), false).is_err());
        for name in ["pipe", "device", "long", "."] {
            assert!(read(&at(name)).is_err(), "{name}");
        }
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
