//! Reading small files of a project, which may come from a synced copy or another user: a pipe in place of a file does
//! not block, and a device or an endless file does not fill the memory.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

/// The longest file that is read, in bytes: texts that users write are shorter.
pub const LONGEST: u64 = 16 * 1024 * 1024;

/// Opens a regular file; follows links only if told to.
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

/// How long to wait for data that another program writes into a pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// All of a file that an option names. It may be a pipe, as a shell makes it of `<(...)`: its data is waited for, but
/// not for ever.
///
/// # Errors
/// What the system says, more than [`LONGEST`], and a pipe out of which nothing comes.
pub fn read_named(path: &Path) -> io::Result<Vec<u8>> {
    read_named_within(path, PATIENCE)
}

fn read_named_within(path: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if file.metadata()?.is_file() {
        return all(file);
    }
    let deadline = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut piece = [0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&limit)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(cause) => return Err(cause.into()),
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("nothing came out of it for {} s", patience.as_secs()),
                ));
            }
            Ok(_) => {}
        }
        match (&file).read(&mut piece) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(cause) => return Err(cause),
        }
        if bytes.len() as u64 > LONGEST {
            return Err(too_long());
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 16 MiB")
}

/// All of a file of the user's own that controls what commands do: a list of docks, a configuration. It is only read if
/// no other user can have written it; the folder that it lies in may be shared.
///
/// # Errors
/// As [`read`]; [`io::ErrorKind::PermissionDenied`] if the file, or the link to it, belongs to a user who is not in
/// `ours`, or everyone may write to it.
pub fn read_own(path: &Path, ours: impl Fn(u32) -> bool) -> io::Result<Vec<u8>> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let link = path.symlink_metadata()?;
    let (file, found) = open(path, true)?;
    if !ours(link.uid()) || !ours(found.uid()) {
        return refused("it belongs to another user, and is not trusted");
    }
    if found.mode() & 0o002 != 0 {
        return refused("it can be written by others, and is not trusted");
    }
    all(file)
}

/// The rest of an open file.
///
/// # Errors
/// What the system says, and more than [`LONGEST`].
pub fn all(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(too_long());
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

    #[test]
    fn a_pipe_that_an_option_names_is_read_and_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "A=1").unwrap();
        assert_eq!(read_named(&at("file")).unwrap(), b"A=1");
        let (reader, mut writer) = io::pipe().unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let substitution = at("substitution");
        symlink(format!("/dev/fd/{descriptor}"), &substitution).unwrap();
        let writing = std::thread::spawn(move || {
            for _ in 0..3 {
                io::Write::write_all(&mut writer, &[b'x'; 50_000]).unwrap();
            }
        });
        assert_eq!(read_named(&substitution).unwrap().len(), 150_000);
        writing.join().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        let error = read_named_within(&at("pipe"), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        for name in ["/dev/zero", "/"] {
            assert!(read_named(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn what_somebody_else_can_have_written_is_no_file_of_the_users_own() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own");
        std::fs::write(&file, "text").unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(read_own(&file, |owner| owner == own).unwrap(), b"text");
        let refused = |result: io::Result<Vec<u8>>| result.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
        assert!(refused(read_own(&file, |owner| owner != own)));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o602)).unwrap();
        assert!(refused(read_own(&file, |owner| owner == own)));
    }
}
