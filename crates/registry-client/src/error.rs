//! What can go wrong with a registry, and what is said about it.

use dock_client::error::{Class, Error as CommandError};
use dock_client::hint;
use dock_client::text::visible;

/// The most characters of a registry's own words in a message.
const WORDS: usize = 300;

/// Which way a request failed. That something is absent is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It asks for a login, or refuses the one that it was given (401).
    Unauthorized,
    /// It refuses this to this user (403).
    Forbidden,
    /// It answered with another status.
    Server(u16),
    /// It can't be reached, or did not answer in time.
    Unreachable,
    /// More than is read or written at once.
    TooLarge,
    /// A name that no registry takes, or an answer that makes no sense.
    Invalid,
}

/// A request to a registry that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{object}: {what}")]
pub struct Error {
    failure: Failure,
    /// The registry's host, as the user wrote it.
    host: String,
    /// The object: the host, and where there is one, repository and reference.
    object: String,
    what: String,
}

/// What [`Error`]s are made of where the object is not known.
#[derive(Clone, Debug)]
pub(crate) struct RegistryTrouble {
    pub(crate) failure: Failure,
    pub(crate) what: String,
}

impl RegistryTrouble {
    pub(crate) fn new(failure: Failure, what: impl AsRef<str>) -> Self {
        let what = visible(what.as_ref());
        Self {
            failure,
            what: what.chars().take(WORDS).collect(),
        }
    }

    pub(crate) fn unreachable(what: impl AsRef<str>) -> Self {
        Self::new(Failure::Unreachable, what)
    }

    pub(crate) fn invalid(what: impl AsRef<str>) -> Self {
        Self::new(Failure::Invalid, what)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            Failure::TooLarge,
            format!("it has more than the {limit} bytes that are read"),
        )
    }

    /// The error for this object of this registry.
    pub(crate) fn of(self, host: &str, object: &str) -> Error {
        Error {
            failure: self.failure,
            host: host.to_owned(),
            object: visible(object),
            what: self.what,
        }
    }
}

impl Error {
    /// Which way it failed.
    pub const fn failure(&self) -> Failure {
        self.failure
    }

    /// Whether the registry does not take what it was given, whoever gives it and however often: it refuses the type, or the
    /// way. (A login that may not do this, or a failure that may pass, is something else.)
    pub const fn is_not_taken(&self) -> bool {
        matches!(self.failure, Failure::Server(400 | 405 | 406 | 412 | 415 | 422 | 501))
    }

    /// The command or edit that helps.
    pub fn hint(&self) -> String {
        let host = &self.host;
        match self.failure {
            Failure::Unauthorized => hint!("docker login {}", host),
            Failure::Forbidden => hint!(
                "docker login {}, as a user who may do this, or ask who manages the registry for the right",
                host
            ),
            Failure::Server(429) => hint!(
                "wait for some minutes, or raise the limit by a login: docker login {}",
                host
            ),
            Failure::Server(500..) => "try again; if it stays so, ask who manages the registry".to_owned(),
            Failure::Server(_) => "ask who manages the registry whether it allows this".to_owned(),
            Failure::Unreachable => hint!("see whether it answers: curl -i {}", format!("https://{host}/v2/")),
            Failure::TooLarge => "push it again, smaller".to_owned(),
            Failure::Invalid => hint!("see what it answers: curl -i {}", format!("https://{host}/v2/")),
        }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let class = match error.failure {
            Failure::Unreachable => Class::Unreachable,
            _ => Class::Failed,
        };
        let hint = error.hint();
        Self::new(class, error.to_string()).hint(hint)
    }
}
