//! What can be opened on a dock: its engine, a Unix socket, a TCP port, a command.

use serde::{Deserialize, Serialize};

/// What is to be opened on a dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A connection to the dock's engine.
    Engine,
    /// A connection to a Unix socket of the dock, without a fallback if the dock forbids it.
    Socket {
        /// Its path there.
        path: String,
    },
    /// A connection from the dock to this host and TCP port, as the dock sees them.
    Tcp {
        /// Host name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A command on the dock.
    Exec(Exec),
}

/// A command to be run on a dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// What is run.
    pub command: RemoteCommand,
    /// Its terminal; `None` for pipes.
    pub pty: Option<Pty>,
}

/// What a dock's login shell is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteCommand {
    /// A login shell.
    Shell,
    /// One line for the user's login shell, whichever that is; what `ssh HOST WORDS...` sends.
    Line(String),
    /// A program and its arguments, quoted so that every login shell reads exactly these words.
    Argv(Vec<String>),
}

/// A terminal on the dock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pty {
    /// The value of TERM.
    pub term: String,
    pub size: Size,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// How a command on a dock ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By a signal, without the `SIG` of its name.
    Signal(String),
}
