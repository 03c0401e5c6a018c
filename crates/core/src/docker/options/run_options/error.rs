//! Why an option can't be done.

use std::io;

use thiserror::Error;

use crate::docker::options::flags::FlagError;

/// An option of `docker run` that is wrong, or that this engine can't do. It names the option as the
/// user wrote it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OptionError {
    /// The words are not options of `docker run`.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// The option does not accept the value.
    #[error("option {option} is `{value}`: {reason}")]
    Value {
        /// The option as written.
        option: String,
        value: String,
        reason: String,
    },
    /// Two options that exclude each other.
    #[error("option {option} can't be used together with {other}")]
    Conflict {
        /// One of them.
        option: String,
        other: String,
    },
    /// A file that the option names can't be read.
    #[error("option {option} is `{value}`: the file can't be read")]
    Unreadable {
        /// The option as written.
        option: String,
        value: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A line of a file that the option names is wrong. The line itself may be a secret, so it isn't shown.
    #[error("option {option}: `{file}`, line {line}: {reason}")]
    Line {
        /// The option as written.
        option: String,
        /// The file as written.
        file: String,
        /// Counted from 1.
        line: usize,
        reason: &'static str,
    },
    /// The engine is too old for the option.
    #[error(
        "option {option} needs an engine with API {}.{}, and this one has {}.{}",
        .needed.0, .needed.1, .engine.0, .engine.1
    )]
    TooOld {
        /// The option as written.
        option: String,
        /// The first API version that has it.
        needed: (u32, u32),
        /// The engine's.
        engine: (u32, u32),
    },
    /// The option is for engines on another operating system.
    #[error("option {option} is for an engine on {needed}")]
    OtherSystem {
        /// The option as written.
        option: String,
        /// The system that has it.
        needed: &'static str,
    },
    /// docker has the option, but the engine's API has no field for it.
    #[error("option {option} can't be done through the engine's API: {reason}")]
    Inexpressible {
        /// The option as written.
        option: String,
        /// Why not.
        reason: &'static str,
    },
}

/// An option as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GivenOption {
    /// `-p` or `--publish`, as written.
    pub option: String,
    /// What was given as its value.
    pub value: String,
    /// For a switch: whether it was turned on.
    pub on: bool,
}

impl GivenOption {
    /// The value, read by `read`.
    pub fn read<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, OptionError> {
        read(&self.value).map_err(|reason| self.refuse(reason))
    }

    /// The error that this value is wrong.
    pub fn refuse(&self, reason: impl Into<String>) -> OptionError {
        OptionError::Value {
            option: self.option.clone(),
            value: self.value.clone(),
            reason: reason.into(),
        }
    }

    /// The error that this can't be used together with `other`.
    pub fn conflict(&self, other: impl Into<String>) -> OptionError {
        OptionError::Conflict {
            option: self.option.clone(),
            other: other.into(),
        }
    }

    /// The error that the file it names can't be read.
    pub fn unreadable(&self, source: io::Error) -> OptionError {
        OptionError::Unreadable {
            option: self.option.clone(),
            value: self.value.clone(),
            source,
        }
    }

    /// The error that the engine's API is too old.
    pub fn too_old(&self, needed: (u32, u32), engine: (u32, u32)) -> OptionError {
        OptionError::TooOld {
            option: self.option.clone(),
            needed,
            engine,
        }
    }

    /// The error that the API has no field for it.
    pub fn inexpressible(&self, reason: &'static str) -> OptionError {
        OptionError::Inexpressible {
            option: self.option.clone(),
            reason,
        }
    }
}
