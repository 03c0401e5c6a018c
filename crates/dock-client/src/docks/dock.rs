//! One dock: its moniker and how it is reached. Data only, and possibly hostile: nothing here is ever part of a shell's
//! command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A dock as the list holds it, and as an agent receives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dock {
    /// Its name; unique in the list.
    pub moniker: String,
    /// How its engine is reached.
    #[serde(flatten)]
    pub access: Access,
    /// The directory there under which workspaces lie; `None` for the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Whose published ports are forwarded to this machine.
    #[serde(default, skip_serializing_if = "Forward::is_usual")]
    pub forward: Forward,
    /// What a path of a bind mount means that a client names.
    #[serde(default, skip_serializing_if = "MountPaths::is_usual")]
    pub mounts: MountPaths,
}

/// What the source of a bind mount means, for containers that are created by way of a dock's agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountPaths {
    /// A path of this machine where it is in a project that was sent to the dock.
    #[default]
    Translated,
    /// A path of the dock, as its engine takes it.
    Literal,
}

impl MountPaths {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose published ports on a dock are forwarded to this machine; ordered from the fewest to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// No ports.
    None,
    /// Those of containers that were made through this user's agents.
    #[default]
    Mine,
    /// Also those of containers that bear this user's label, whoever set it.
    Labelled,
    /// Those of all containers.
    All,
}

impl Forward {
    /// Its name in the list of docks.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mine => "mine",
            Self::Labelled => "labelled",
            Self::All => "all",
        }
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// The least number of a port of this machine that containers on a dock may reach: below are the system's own services.
pub const LEAST_EXPOSED: u16 = 1024;

/// How a dock's engine is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// A machine that ssh reaches.
    Ssh(SshAccess),
    /// An engine that listens on TCP.
    Tcp {
        /// `HOST:PORT`, an IPv6 address in brackets.
        address: String,
        /// Folder that holds `ca.pem`, `cert.pem` and `key.pem`; `None` for plain HTTP.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls_dir: Option<PathBuf>,
    },
    /// A context of docker's own.
    Context { name: String },
}

/// What the user said about a machine that ssh reaches; the rest is in `~/.ssh/config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshAccess {
    /// A host name, an address, or a `Host` of `~/.ssh/config`.
    pub host: String,
    /// The user there; `None` for that of the ssh configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The port of sshd; `None` for that of the ssh configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The private key; `None` for those of the ssh configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The engine's socket there; `None` for [`ENGINE_SOCKET`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_socket: Option<String>,
}

/// The engine's socket on a dock whose entry names no other.
pub const ENGINE_SOCKET: &str = "/var/run/docker.sock";

impl SshAccess {
    /// The path of the engine's socket there.
    pub fn engine_socket(&self) -> &str {
        self.docker_socket.as_deref().unwrap_or(ENGINE_SOCKET)
    }
}

impl Access {
    /// The host or address as the user gave it; `None` if only docker knows it.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Ssh(ssh) => Some(&ssh.host),
            Self::Tcp { address, .. } => Some(host_of(address)),
            Self::Context { .. } => None,
        }
    }

    /// Where it is, as one word: `ann@box:2222`, `tcp://box:2376`, `context colima`.
    pub fn place(&self) -> String {
        match self {
            Self::Ssh(ssh) => {
                let user = ssh.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = ssh.port.map(|port| format!(":{port}")).unwrap_or_default();
                let host = if ssh.host.contains(':') && !port.is_empty() {
                    format!("[{}]", ssh.host)
                } else {
                    ssh.host.clone()
                };
                format!("{user}{host}{port}")
            }
            Self::Tcp { address, .. } => format!("tcp://{address}"),
            Self::Context { name } => format!("context {name}"),
        }
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}
