//! A file of a build context that is sent under another name, too, where the context has none of that name: it is never on
//! the disk, so that nobody can meet it half written, and nothing has to be taken away again.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;

/// What is read under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandIn {
    /// The name, in the context's root.
    pub name: Vec<u8>,
    /// The file, relative to the context, without links on the way to it.
    pub file: Vec<u8>,
    /// The text of a symbolic link of that name that means the same: as good as nothing there.
    pub mark: Vec<u8>,
}

impl StandIn {
    /// Whether the file is to be read in the place of this path of the context that is open here.
    pub(super) fn counts(&self, context: BorrowedFd<'_>, path: &[u8]) -> bool {
        if path != self.name {
            return false;
        }
        match rustix::fs::readlinkat(context, OsStr::from_bytes(path), Vec::new()) {
            Ok(target) => target.as_bytes() == self.mark,
            Err(error) => error == Errno::NOENT,
        }
    }
}
