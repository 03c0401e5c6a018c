//! A file that is put into a project for the time of a command, and taken away when it ends, unless it has become somebody
//! else's meanwhile: what has another inode or change time than the file that was made stays.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that was put somewhere; taken away at the latest when this is dropped, then in silence.
#[derive(Debug)]
#[must_use = "the file is taken away when this is dropped"]
pub struct PlacedFile {
    path: PathBuf,
    /// None where it was taken away, or may not be.
    made: Option<Stamp>,
}

/// How it went with a file that was to be taken away.
#[derive(Debug)]
pub enum Taken {
    /// It is away, by whomever.
    Away,
    /// It is not the one that was made, or was changed, and stays.
    Another,
    /// It is the one that was made, and can't be removed.
    Stuck(io::Error),
}

/// What tells a file from any other that has been at its path, and from itself after a change: nobody sets a change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl PlacedFile {
    /// Puts a file where none is, and has it filled. One that can't be filled is no more there.
    ///
    /// # Errors
    /// A file or link that is there (`AlreadyExists`), and what the system says.
    pub fn place(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<Self> {
        // It may hold a password: nobody else opens it before it has its mode.
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut placed = Self {
            path: path.to_owned(),
            made: Some(Stamp::of(&file.metadata()?)),
        };
        let filled = fill(&mut file);
        // Asked of the open file: at its path there may be another one by now.
        placed.made = file.metadata().ok().as_ref().map(Stamp::of).or(placed.made);
        filled.map(|()| placed)
    }

    /// Takes it away, and says how that went.
    pub fn take_away(mut self) -> Taken {
        self.remove()
    }

    fn remove(&mut self) -> Taken {
        let Some(made) = self.made.take() else {
            return Taken::Away;
        };
        let removed = match self.path.symlink_metadata() {
            Ok(there) if Stamp::of(&there) != made => return Taken::Another,
            Ok(_) => fs::remove_file(&self.path),
            Err(cause) => Err(cause),
        };
        match removed {
            Ok(()) => Taken::Away,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Taken::Away,
            Err(cause) => Taken::Stuck(cause),
        }
    }
}

impl Drop for PlacedFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::SystemTime;

    use super::*;

    fn placed(path: &Path) -> PlacedFile {
        PlacedFile::place(path, |file| file.write_all(b"made")).unwrap()
    }

    #[test]
    fn a_file_is_there_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = placed(&path);
        assert_eq!(fs::read(&path).unwrap(), b"made");
        // Whoever reads it changes nothing.
        assert!(matches!(file.take_away(), Taken::Away));
        assert!(!path.exists());
        drop(placed(&path));
        assert!(!path.exists());
        let file = placed(&path);
        fs::remove_file(&path).unwrap();
        assert!(matches!(file.take_away(), Taken::Away));
    }

    #[test]
    fn what_somebody_else_put_there_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let other = folder.path().join("other");
        let by_rename = || {
            fs::write(&other, "made").unwrap();
            fs::rename(&other, &path).unwrap();
        };
        let anew = || {
            fs::remove_file(&path).unwrap();
            fs::write(&path, "made").unwrap();
        };
        let link = || {
            fs::remove_file(&path).unwrap();
            symlink("nowhere", &path).unwrap();
        };
        // The times that can be set are set back.
        let within = || {
            let before = path.metadata().unwrap().modified().unwrap();
            fs::write(&path, "mine").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(before).unwrap();
        };
        let mode = || fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let folder_there = || {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        };
        let changes: [&dyn Fn(); 6] = [&by_rename, &anew, &link, &within, &mode, &folder_there];
        for (number, change) in changes.into_iter().enumerate() {
            let file = placed(&path);
            wait_for_tick(&path);
            change();
            assert!(matches!(file.take_away(), Taken::Another), "{number}");
            assert!(path.symlink_metadata().is_ok(), "{number}");
            let _ = fs::remove_file(&path);
        }
    }

    /// Waits until a change made now has another time than the file's: the clock of a file system has ticks.
    fn wait_for_tick(path: &Path) {
        let probe = path.with_extension("probe");
        let before = Stamp::of(&path.metadata().unwrap()).changed;
        let began = SystemTime::now();
        loop {
            fs::write(&probe, "").unwrap();
            if Stamp::of(&probe.metadata().unwrap()).changed > before {
                break;
            }
            assert!(began.elapsed().unwrap().as_secs() < 60, "the clock stands still");
        }
        fs::remove_file(&probe).unwrap();
    }

    #[test]
    fn nothing_is_written_over_and_nothing_half_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        symlink("nowhere", &path).unwrap();
        let error = PlacedFile::place(&path, |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(path.symlink_metadata().is_ok() && !folder.path().join("nowhere").exists());
        fs::remove_file(&path).unwrap();
        let full = |file: &mut File| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = PlacedFile::place(&path, full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!path.exists());
    }
}
