//! What is checked out around a directory: the least that names of images need.

use std::path::Path;

use dockerutils_core::error::Result;
use dockerutils_core::version::git::Repository;

use super::GitFolder;

/// A repository as it is checked out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkout {
    /// HEAD's commit, in full.
    pub commit: Option<String>,
    /// The branch of HEAD; `None` where HEAD is detached.
    pub branch: Option<String>,
}

impl Checkout {
    /// Asks git about this directory.
    ///
    /// # Errors
    /// git takes too long.
    pub fn around(directory: &Path) -> Result<Self> {
        let git = GitFolder {
            repository: Repository::around(directory)?,
            directory,
        };
        Ok(Self {
            commit: git.commit("HEAD")?,
            branch: git.text(&["symbolic-ref", "--quiet", "--short", "HEAD"])?,
        })
    }
}
