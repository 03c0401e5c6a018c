//! `pip.conf`, made from `pip.conf.template` for a build if the project has no `pip.conf`.
//!
//! dockerutils 2.0.7 copied the template for the time of the build. Two builds at once removed each other's copy, and
//! then made an image with packages from the public index. So it is never on the disk here: the builder gets the
//! template under both names. Only scripts of the project see it, as a link: that is there whole or not at all, has the
//! template's content whoever leaves it, and differs from a link of the user's own by its text.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation};
use rustix::io::Errno;

use crate::error::{Error, Result};
use build_context::{ContextDir, StandIn, WalkError};

/// The file that pip reads.
pub const NAME: &str = "pip.conf";
/// The file that it is made from.
pub const TEMPLATE: &str = "pip.conf.template";
/// The text of our link. Nobody else writes it so: without the `./`, a link means the same.
const MARK: &str = "./pip.conf.template";

/// Opens the folder of a build's context, with its template under both names.
///
/// # Errors
/// As [`ContextDir::open`].
pub fn open(context: &Path) -> std::result::Result<ContextDir, WalkError> {
    let opened = ContextDir::open(context)?;
    let file = context.join(TEMPLATE).canonicalize().ok();
    // A link out of the context was refused before; one that appeared since is ignored.
    let file = file.as_deref().and_then(|file| file.strip_prefix(opened.path()).ok());
    let stand_in = file.map(|file| StandIn {
        name: NAME.into(),
        file: file.as_os_str().as_bytes().to_vec(),
        mark: MARK.into(),
    });
    Ok(opened.with_stand_in(stand_in))
}

/// Whether `pip.conf` is made from the template for a build of this context.
///
/// # Errors
/// A template that is a link out of the context.
pub fn is_made(context: &Path) -> Result<bool> {
    let (template, own) = (context.join(TEMPLATE), context.join(NAME));
    let has_own = own.symlink_metadata().is_ok() && !is_ours(&own);
    if has_own || !template.is_file() {
        return Ok(false);
    }
    let failed = |cause| Error::failed(format!("{} can't be read", template.display())).because(cause);
    // A cloned project brings its own links: the target of this one would silently be in the build context.
    let target = template.canonicalize().map_err(failed)?;
    if !target.starts_with(context.canonicalize().map_err(failed)?) {
        return Err(super::request::link_out(&template, &target));
    }
    Ok(true)
}

fn is_ours(path: &Path) -> bool {
    path.read_link().is_ok_and(|target| target.as_os_str() == MARK)
}

/// `pip.conf` as a link to the template, for the scripts of a build. The last user of the link removes it.
#[derive(Debug)]
#[must_use = "the link is taken away when this is dropped"]
pub struct Linked {
    /// Locked, shared with all that use the link.
    folder: File,
}

impl Linked {
    /// Puts the link into a folder; `None` if it has a `pip.conf` of its own. A link that a killed build left is
    /// reused.
    ///
    /// # Errors
    /// A folder that can't be written to.
    pub fn place(folder: &Path) -> io::Result<Option<Self>> {
        let folder = File::open(folder)?;
        // Waits while another build removes its link, which is quick.
        match rustix::fs::flock(&folder, FlockOperation::LockShared) {
            // A file system without locks: the link is there, but nobody knows who is last.
            Ok(()) | Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => {}
            Err(cause) => return Err(cause.into()),
        }
        match rustix::fs::symlinkat(MARK, &folder, NAME) {
            Ok(()) => Ok(Some(Self { folder })),
            Err(Errno::EXIST) => {
                let linked = Self { folder };
                let is_ours = linked.is_there();
                Ok(is_ours.then_some(linked))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Removes the link that a killed build left, unless another one uses it.
    pub fn sweep(folder: &Path) {
        if is_ours(&folder.join(NAME))
            && let Ok(folder) = File::open(folder)
        {
            drop(Self { folder });
        }
    }

    fn is_there(&self) -> bool {
        let target = rustix::fs::readlinkat(self.folder.as_fd(), NAME, Vec::new());
        target.is_ok_and(|target| target.as_bytes() == MARK.as_bytes())
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        // Our lock becomes exclusive only if nobody else has one. If not, it is lost, and the last user removes the
        // link.
        let locked = rustix::fs::flock(&self.folder, FlockOperation::NonBlockingLockExclusive);
        if locked != Err(Errno::WOULDBLOCK) && self.is_there() {
            let _ = rustix::fs::unlinkat(self.folder.as_fd(), NAME, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TEMPLATE), "[global]\n").unwrap();
        folder
    }

    #[test]
    fn the_link_goes_with_the_last_that_uses_it() {
        let folder = project();
        let file = folder.path().join(NAME);
        let place = || Linked::place(folder.path()).unwrap();
        let (first, second) = (place().unwrap(), place().unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "[global]\n");
        assert!(is_made(folder.path()).unwrap());
        drop(first);
        Linked::sweep(folder.path());
        assert!(file.exists());
        drop(second);
        assert!(file.symlink_metadata().is_err());
        // A killed build leaves the link without a lock.
        symlink(MARK, &file).unwrap();
        drop(place().unwrap());
        assert!(file.symlink_metadata().is_err());
        symlink(MARK, &file).unwrap();
        Linked::sweep(folder.path());
        assert!(file.symlink_metadata().is_err());
    }

    #[test]
    fn many_at_once_leave_nothing_and_each_finds_it_there() {
        let folder = project();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _linked = Linked::place(folder.path()).unwrap().unwrap();
                        assert_eq!(fs::read(folder.path().join(NAME)).unwrap(), b"[global]\n");
                    }
                });
            }
        });
        assert!(folder.path().join(NAME).symlink_metadata().is_err());
    }

    #[test]
    fn what_is_the_users_own_stays() {
        let folder = project();
        let file = folder.path().join(NAME);
        symlink(TEMPLATE, &file).unwrap();
        assert!(!is_made(folder.path()).unwrap());
        assert!(Linked::place(folder.path()).unwrap().is_none());
        Linked::sweep(folder.path());
        assert!(file.is_symlink());
        fs::remove_file(&file).unwrap();
        // A file that the user writes meanwhile stays.
        let linked = Linked::place(folder.path()).unwrap().unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, "own").unwrap();
        drop(linked);
        assert_eq!(fs::read_to_string(&file).unwrap(), "own");
    }
}
