//! What a command and an agent say to each other on the control socket, before the raw bytes.
//!
//! The command sends [`Hello`] and, at once, its [`Call`]; the agent answers with a [`Greeting`] and then with
//! [`Reply`]s: any number of questions, each of which the command answers with an [`Answer`], and one that ends the
//! handshake. All are JSON in frames ([`super::frame`]). `Hello` and `Greeting` stay readable for every version to
//! come: they let an old agent and a new command part in good order.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::holder::Holder;
use super::target::Target;
use crate::docks::Forward;
use crate::error::Error;

/// The version of what follows `Hello` and `Greeting`; raised when either side would misunderstand the other.
pub const PROTOCOL: u32 = 1;
/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first message of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The command's [`PROTOCOL`].
    pub dockerutils_agent: u32,
    /// The command's version.
    pub version: String,
    /// Asks the agent to end, if nothing is open, so that one of the command's own version can take over. Nothing
    /// follows this.
    #[serde(default)]
    pub leave: bool,
}

/// The first message of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The agent's [`PROTOCOL`].
    pub dockerutils_agent: u32,
    /// The agent's version.
    pub version: String,
    /// The number of the agent's process, to be killed if nothing else helps.
    pub pid: u32,
    /// How many streams are open.
    pub streams: usize,
    /// Whether the agent ends now, as the command asked.
    #[serde(default)]
    pub leaving: bool,
}

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub request: Request,
    /// The ssh-agent of the command's shell.
    #[serde(default)]
    pub ssh_auth_sock: Option<PathBuf>,
    /// Whether the user can be asked.
    #[serde(default)]
    pub person: bool,
    /// Whether a host key that is not known yet is trusted without asking.
    #[serde(default)]
    pub accept_new: bool,
    /// Whether the agent may end seconds after this call, if no other call has used it.
    #[serde(default)]
    pub brief: bool,
    /// Whose ports are to be forwarded for the docked shell that asks the agent to live for it.
    #[serde(default)]
    pub forward: Option<Forward>,
    /// Further containers, by name or ID, and ports that the dock's engine listens on, to be forwarded for it.
    #[serde(default)]
    pub named: Vec<String>,
    /// Ports of this machine's loopback that are to be opened to the containers on the dock for it.
    #[serde(default)]
    pub expose: Vec<u16>,
    /// How long to wait for a link that is down to come back, in milliseconds.
    pub patience_ms: u64,
}

/// What an agent is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Opens a stream.
    Open(Target),
    /// Speaks the engine's API, as on the engine's socket, for a command of ours: the paths that it has the engine mount are
    /// the dock's.
    Engine,
    /// Brings the link up, so that the engine's socket works without questions.
    Link,
    /// Reports its status.
    Status {
        /// Whether to measure the round trip, if the link is up.
        measure: bool,
    },
    /// Waits until it is settled which of these ports of this machine containers on the dock reach, and tells.
    Exposed(Vec<u16>),
    /// Waits until the dock shows that it is there, however long that takes.
    Life,
    /// Lives at least as long as this process.
    Hold(Holder),
    /// Need no longer live for this process.
    Release(Holder),
    /// Lives until it is told to stop: a docker context leads to its socket.
    Stay,
    /// Serves another listening socket of the engine, that of a docker context on which systemd listens, until who asks closes
    /// the connection. It is not what keeps the agent alive. After the first [`Reply::Done`] the socket follows, as a
    /// descriptor ([`super::descriptor`]), after the second one it is served.
    Serve,
    /// Ends, and breaks what is open.
    Stop,
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A question to the user.
    Ask(Question),
    /// Done; a stream follows if one was asked for.
    Done,
    /// The agent's status.
    Status(Status),
    /// What became of ports that are to be exposed.
    Exposed(Vec<ExposedPort>),
    /// The request failed.
    Failed(Failure),
}

/// A question to the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What is shown.
    pub prompt: String,
    /// Whether the typed answer is shown: false for passwords.
    pub echo: bool,
    /// What the question is about.
    pub kind: QuestionKind,
}

/// What a question is about: some are answered by an option of the command, without the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuestionKind {
    /// Passphrases, passwords, second factors.
    Secret,
    /// Whether a host key that is not known yet is to be trusted: `yes` or `no`.
    HostKey,
}

/// What the user answered; it may be a secret, and is shown nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `None` if there was no answer.
    pub text: Option<String>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, to which object.
    pub message: String,
    /// The exact command or edit that helps.
    pub hint: Option<String>,
    /// What can be done about it.
    pub kind: FailureKind,
}

/// The header of an HTTP response that an agent gives in the engine's place, with the [`FailureKind`] in its JSON form:
/// the response does not come from an engine.
pub const FAILURE_HEADER: &str = "x-dockerutils-failure";

/// What can be done about a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The link is down; trying again may help.
    Unreachable,
    /// The user must do something first.
    NeedsPerson,
    /// The dock refuses this target; the link is up.
    Refused,
    /// The dock's configuration forbids all targets of this kind; the link is up.
    Forbidden,
    /// The user may not use this target; the link is up.
    Denied,
    /// The agent does not understand the call.
    Unknown,
}

impl Failure {
    /// The failure as a command reports it.
    pub fn into_error(self) -> Error {
        let error = match self.kind {
            FailureKind::Unreachable => Error::unreachable(self.message),
            FailureKind::NeedsPerson => Error::unreachable(self.message).for_person(),
            FailureKind::Refused | FailureKind::Forbidden | FailureKind::Denied | FailureKind::Unknown => {
                Error::failed(self.message)
            }
        };
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// The status of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's [`VERSION`].
    pub version: String,
    /// The worker's process number.
    pub pid: u32,
    /// Its link to the dock.
    pub link: LinkStatus,
    /// How many streams are open.
    pub streams: usize,
    /// The processes that it lives for.
    pub holders: Vec<Holder>,
    /// Whose published ports it forwards.
    #[serde(default)]
    pub forward: Forward,
    /// Those ports, including those that can't be forwarded.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// How many more such ports there are, which are not listed.
    #[serde(default)]
    pub more_ports: usize,
    /// The ports of this machine that docked shells have opened to the containers there.
    #[serde(default)]
    pub exposed: Vec<ExposedPort>,
    /// The containers that mount projects of this machine, as far as they fit.
    #[serde(default)]
    pub mounts: Vec<ProjectMount>,
}

/// A container on the dock that mounts a project of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProjectMount {
    /// The container's ID.
    pub container: String,
    /// Its name; empty if it is not known.
    pub name: String,
    /// Whether it runs: then both sides are kept in step.
    pub running: bool,
    /// The project's folder here.
    pub project: PathBuf,
    /// Its copy on the dock.
    pub workspace: String,
}

/// A port that a container on the dock publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The container's ID.
    pub container: String,
    pub name: String,
    /// Port and protocol inside: `8888/tcp`.
    pub inside: String,
    /// The address that the engine listens on.
    pub address: String,
    /// The port that it listens on.
    pub port: u16,
    /// The port of 127.0.0.1 here that leads there; `None` if it is not forwarded.
    pub here: Option<u16>,
    /// Why the local port has another number, or the port is not forwarded.
    pub reason: Option<String>,
    /// The exact command or edit that helps.
    pub hint: Option<String>,
}

/// A port of this machine's loopback that is to be open to the containers on the dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedPort {
    /// Its number, here and there.
    pub port: u16,
    /// The dock's address at which it answers, that of its containers' gateway; `None` if it does not.
    pub address: Option<String>,
    /// Why it does not.
    pub reason: Option<String>,
    /// The exact command or edit that helps.
    pub hint: Option<String>,
}

/// The link of an agent to its dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkStatus {
    /// It is up.
    Up {
        /// For this many seconds.
        seconds: u64,
        /// A round trip to the dock and back, in microseconds; `None` if it was not measured, or nothing came back.
        round_trip_us: Option<u64>,
    },
    /// It is not needed now, and is made again when it is.
    Idle,
    /// It is being made.
    Connecting,
    /// It could not be made, or broke.
    Down(Failure),
}

impl LinkStatus {
    /// The round trip, if it was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Up { round_trip_us, .. } => round_trip_us.map(Duration::from_micros),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_are_understood_whatever_another_version_adds() {
        let hello: Hello =
            serde_json::from_str(r#"{"dockerutils_agent":7,"version":"9.0.0","colour":"blue"}"#).unwrap();
        assert_eq!((hello.dockerutils_agent, hello.leave), (7, false));
        let greeting: Greeting =
            serde_json::from_str(r#"{"dockerutils_agent":7,"version":"9","pid":1,"streams":0,"mood":[]}"#).unwrap();
        assert!(!greeting.leaving);
    }
}
