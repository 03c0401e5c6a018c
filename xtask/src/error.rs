//! What can go wrong in a chore.

use std::io;
use std::path::{Path, PathBuf};

use dockerutils_test_support::{lab, local_engine, machine, process};

/// A chore failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Process(#[from] process::Error),
    #[error(transparent)]
    Machine(#[from] machine::Error),
    #[error(transparent)]
    LocalEngine(#[from] local_engine::Error),
    #[error(transparent)]
    Lab(#[from] lab::Error),
    #[error("{what} said what we do not understand")]
    Json {
        what: &'static str,
        source: serde_json::Error,
    },
    #[error("{0}")]
    Failed(String),
    #[error("interrupted")]
    Interrupted,
    /// Everything has been reported already.
    #[error("failed")]
    Silent,
}

impl Error {
    /// The exit code: the shell's code for an interrupt, or 1.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            _ => 1,
        }
    }

    /// Turns an I/O error into one that names `path`.
    pub(crate) fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::File { path, source }
    }
}
