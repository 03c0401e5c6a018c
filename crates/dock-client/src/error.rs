//! The one error type of the commands: what happened, to which object, and the exact next step.
//!
//! Modules that parse or speak a protocol have typed errors of their own ([`thiserror`] enums) and turn them
//! into an [`Error`] where the user's object (a file, an image, an engine) is known. Only the `cli` of dockerutils-core prints one.

use std::fmt;

/// The text of a hint: `format!` that quotes its arguments for the shell that they may be pasted into, as names come
/// from engines, files and strangers. An argument that is not one word of a command (prose, a list, a line that is
/// quoted already) is named behind a semicolon, and is inserted as it is.
///
/// ```
/// use dock_client::hint;
///
/// assert_eq!(hint!("docker stop -- {}", "web"), "docker stop -- web");
/// assert_eq!(hint!("docker stop -- {}", "web; rm -rf ~"), "docker stop -- 'web; rm -rf ~'");
/// assert_eq!(hint!("it has {names}"; names = "a, b"), "it has a, b");
/// ```
///
/// A name in the braces that is not behind the semicolon is refused, because it would not be quoted.
///
/// ```compile_fail
/// let name = "web; rm -rf ~";
/// let _ = dock_client::hint!("docker stop {name}");
/// ```
#[macro_export]
macro_rules! hint {
    // `concat!` keeps the format from taking variables of its surroundings.
    ($format:literal $(, $word:expr)* $(,)? $(; $($name:ident = $text:expr),+ $(,)?)?) => {
        format!(
            concat!($format)
            $(, $crate::shell::quote(&$word.to_string()))*
            $($(, $name = $text)+)?
        )
    };
}

/// What every fallible function above the parsers returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit code of a command. Worse codes compare greater, so that a batch can return the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// An ordinary failure: not found, refused, build failed.
    pub const FAILURE: Self = Self(1);
    /// Wrong usage or configuration.
    pub const USAGE: Self = Self(2);
    /// The engine or dock can't be reached.
    pub const UNREACHABLE: Self = Self(3);
    /// Our own failure, in a command that passes a container's exit code through, as `docker run` does.
    pub const CONTAINER_CLIENT: Self = Self(125);
    /// The connection to a container in the foreground was lost, and the container runs on: `EX_TEMPFAIL` of
    /// sysexits(3), for a failure that can be retried.
    pub const LINK_LOST: Self = Self(75);
    /// Our own failure, in a command that passes a remote command's exit code through, as `ssh` does.
    pub const SSH_CLIENT: Self = Self(255);
    /// Interrupted by the user.
    pub const INTERRUPTED: Self = Self(130);

    /// An arbitrary code, passed through from a container or a script.
    pub const fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// The code in the operating system's form.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// True for code 0.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }
}

/// Which exit code an [`Error`] leads to. In JSON, as between our own programs, it is a word (`"failed"`), or
/// `{"code": 7}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The command line or the configuration is wrong.
    Usage,
    /// An ordinary failure of what was asked for.
    Failed,
    /// The engine or dock does not answer.
    Unreachable,
    /// The user interrupted.
    Interrupted,
    /// A child's or script's own exit code, to be passed on.
    Code(u8),
}

impl Class {
    /// The class as a JSON document names it.
    const fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
            Self::Code(_) => "code",
        }
    }

    /// The exit code of this class.
    pub const fn status(self) -> ExitStatus {
        match self {
            Self::Usage => ExitStatus::USAGE,
            Self::Failed => ExitStatus::FAILURE,
            Self::Unreachable => ExitStatus::UNREACHABLE,
            Self::Interrupted => ExitStatus::INTERRUPTED,
            Self::Code(code) => ExitStatus::from_code(code),
        }
    }
}

/// An [`Error`] in a JSON document: by itself, or as part of the entry of one object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ErrorDocument {
    /// The message and its causes.
    pub error: String,
    /// The exact command or edit that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// `usage`, `failed`, `unreachable`, `interrupted`, or `code` for the exit code of a program that was run.
    pub kind: &'static str,
}

/// What went wrong with one image, in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ErrorOf {
    /// The image, as it was asked for.
    pub image: String,
    #[serde(flatten)]
    pub why: ErrorDocument,
}

/// What was done and, if something went wrong, `failed` beside it: most of our documents have that form.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WithFailures<T> {
    #[serde(flatten)]
    pub done: T,
    /// What went wrong; left out if nothing did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<ErrorOf>,
}

impl ErrorOf {
    /// The failure for this image.
    pub fn image(image: &str, error: &Error) -> Self {
        Self {
            image: image.to_owned(),
            why: error.document(),
        }
    }
}

/// A failure, reported to the user: a lower-case message that names the object, its cause, and a hint.
#[derive(thiserror::Error)]
#[error("{message}")]
pub struct Error {
    class: Class,
    message: String,
    hint: Option<String>,
    needs_person: bool,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

// Boxing would make each `?` allocate twice; the struct is small enough to be returned by value.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("class", &self.class)
            .field("message", &self.message)
            .field("hint", &self.hint)
            .field("cause", &self.cause)
            .finish()
    }
}

impl Error {
    /// An error of the given class. The message starts in lower case, names the object, and has no full stop.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
            needs_person: false,
            cause: None,
        }
    }

    /// The command line or the configuration is wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    /// An ordinary failure of what was asked for: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Class::Failed, message)
    }

    /// The engine or dock does not answer: exit code 3.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Class::Unreachable, message)
    }

    /// The user interrupted: exit code 130.
    pub fn interrupted() -> Self {
        Self::new(Class::Interrupted, "interrupted")
    }

    /// Adds the exact command or edit that helps. [`hint!`](crate::hint!) makes one with names in it; `cargo xtask
    /// tidy` checks that it is used.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the error that this one comes from; it is printed as part of the cause chain.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Marks an error that the user must do something about: waiting does not fix it.
    #[must_use]
    pub const fn for_person(mut self) -> Self {
        self.needs_person = true;
        self
    }

    /// Whether the user must do something about it.
    pub const fn needs_person(&self) -> bool {
        self.needs_person
    }

    /// The class, which decides the exit code.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The message and its causes, on one line.
    pub fn with_causes(&self) -> String {
        let mut text = self.message.clone();
        let mut last = text.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            let message = inner.to_string();
            // Libraries repeat their cause in their own text.
            if !last.contains(&message) {
                text.push_str(": ");
                text.push_str(&message);
            }
            last = message;
            cause = inner.source();
        }
        text
    }

    /// The error as a JSON document holds it.
    pub fn document(&self) -> ErrorDocument {
        ErrorDocument {
            error: self.with_causes(),
            hint: self.hint.clone(),
            kind: self.class.word(),
        }
    }

    /// The exact command or edit that helps, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// An [`Error`], as it travels between two of our own processes, in JSON: from the process that syncs, and from a
/// registry's helper. (An agent says what can be done about a failure, not how a command ends: it has
/// [`Failure`](crate::agent::wire::Failure).)
///
/// ```json
/// {"kind": "unreachable", "message": "AWS is out of reach", "causes": ["connection refused"], "hint": null}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WireError {
    /// The class; [`Class::Failed`] where it is left out.
    #[serde(default = "WireError::usual_kind")]
    pub kind: Class,
    /// What happened, to which object.
    pub message: String,
    /// The causes, outermost first; none where they are left out.
    #[serde(default)]
    pub causes: Vec<String>,
    /// The exact command or edit that helps.
    pub hint: Option<String>,
}

impl WireError {
    /// An ordinary failure, without a cause.
    pub fn failed(message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            kind: Class::Failed,
            message: message.into(),
            causes: Vec::new(),
            hint,
        }
    }

    /// The error with its causes in its message, for a reader that shows nothing else.
    pub fn in_one_line(error: &Error) -> Self {
        Self {
            message: error.with_causes(),
            causes: Vec::new(),
            ..Self::from(error)
        }
    }

    const fn usual_kind() -> Class {
        Class::Failed
    }
}

impl From<&Error> for WireError {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            causes.push(inner.to_string());
            cause = inner.source();
        }
        Self {
            kind: error.class,
            message: error.message.clone(),
            causes,
            hint: error.hint.clone(),
        }
    }
}

impl From<WireError> for Error {
    fn from(failure: WireError) -> Self {
        let mut error = Self::new(failure.kind, failure.message);
        if !failure.causes.is_empty() {
            error = error.because(failure.causes.join(": "));
        }
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_code_its_causes_and_its_hint() {
        for class in [
            Class::Usage,
            Class::Failed,
            Class::Unreachable,
            Class::Interrupted,
            Class::Code(7),
        ] {
            let error = Error::new(class, "it broke")
                .because(Error::failed("inner").because("innermost"))
                .hint("mend it");
            let text = serde_json::to_vec(&WireError::from(&error)).unwrap();
            let again = Error::from(serde_json::from_slice::<WireError>(&text).unwrap());
            assert_eq!((again.class(), again.to_string()), (class, "it broke".to_owned()));
            assert_eq!(again.hint_text(), Some("mend it"));
            let cause = std::error::Error::source(&again).unwrap();
            assert_eq!(cause.to_string(), "inner: innermost");
            let line = WireError::in_one_line(&error);
            assert_eq!(line.message, "it broke: inner: innermost");
            assert_eq!(Error::from(line).with_causes(), error.with_causes());
        }
    }

    #[test]
    fn a_failure_of_an_older_program_is_understood_and_its_fields_are_still_there() {
        // The process that syncs left both out; the holder of a sync, and a command that asks it, always had all four.
        let old: WireError = serde_json::from_str(r#"{"message":"no","hint":null}"#).unwrap();
        assert_eq!(old, WireError::failed("no", None));
        assert_eq!(
            serde_json::to_string(&old).unwrap(),
            r#"{"kind":"failed","message":"no","causes":[],"hint":null}"#
        );
    }
}
