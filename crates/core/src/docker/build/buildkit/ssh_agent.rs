//! The ssh agents that `--ssh` offers to a build: existing sockets, or private agents that hold key files.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::docker::options::build_options::SshForward;
use crate::error::{Error, Result};

/// A private agent is ready within milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Agents by the name that the Dockerfile uses. Private ones end when this is dropped.
#[derive(Default)]
pub struct Agents {
    agents: Vec<Agent>,
}

struct Agent {
    id: String,
    socket: PathBuf,
    // Ended on drop.
    _private: Option<Private>,
}

/// Runs an agent, and ends it when our end of its stdin is closed: by us, or by the system if we are killed. Keys must
/// not stay in an agent that nobody knows of. Signals of the terminal are handled by us.
///
/// `$1`: the socket; `$2`: its folder.
const KEEPER: &str = "trap '' HUP INT QUIT TERM
ssh-agent -D -a \"$1\" >/dev/null 2>&1 </dev/null &
read -r line
kill -9 \"$!\"
rm -rf -- \"$2\"";
/// How long the shell that runs the agent may take to end it.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A private agent, run by a shell, and the folder of its socket.
struct Private {
    keeper: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Private {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let began = Instant::now();
        // If it still runs after that, it ends by itself: its stdin is closed.
        while began.elapsed() < END_TIMEOUT && matches!(self.keeper.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Agents {
    /// Starts the agents that the build options name.
    ///
    /// A key file is put into an `ssh-agent` of its own, so that the key never leaves OpenSSH's memory, and `ssh-add`
    /// asks for the passphrase of an encrypted one.
    ///
    /// # Errors
    /// A path that isn't there, and errors of ssh-agent and ssh-add.
    pub async fn start(forwards: &[SshForward]) -> Result<Self> {
        let mut agents = Vec::new();
        for forward in forwards {
            let mut keys = Vec::new();
            let mut socket = None;
            for path in &forward.paths {
                let kind = std::fs::metadata(path)
                    .map_err(|cause| Error::usage(format!("--ssh {}: {}", forward.id, path.display())).because(cause))?
                    .file_type();
                if std::os::unix::fs::FileTypeExt::is_socket(&kind) {
                    socket = Some(path.clone());
                } else {
                    keys.push(path.as_path());
                }
            }
            agents.push(match socket {
                Some(_) if forward.paths.len() > 1 => {
                    return Err(Error::usage(format!(
                        "--ssh {}: only one agent socket can have this name",
                        forward.id
                    )));
                }
                Some(socket) => Agent {
                    id: forward.id.clone(),
                    socket,
                    _private: None,
                },
                None => private_agent(&forward.id, &keys).await?,
            });
        }
        Ok(Self { agents })
    }

    /// The socket of the agent with this name.
    pub fn socket(&self, id: &str) -> Option<&Path> {
        self.agents
            .iter()
            .find(|agent| agent.id == id)
            .map(|agent| agent.socket.as_path())
    }
}

async fn private_agent(id: &str, keys: &[&Path]) -> Result<Agent> {
    let failed = |what: &str| {
        Error::failed(format!("--ssh {id}: {what}")).hint("install OpenSSH's client: ssh-agent and ssh-add")
    };
    let folder = tempfile::Builder::new()
        .prefix("dockerutils-ssh-")
        .tempdir()
        .map_err(|cause| failed("no private folder for an agent can be made").because(cause))?;
    let socket = folder.path().join("agent");
    let mut keeper = Command::new("sh");
    keeper
        .args(["-c", KEEPER, "dockerutils"])
        .arg(&socket)
        .arg(folder.path());
    keeper
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A Ctrl-C is for us.
        .process_group(0);
    let keeper = keeper
        .spawn()
        .map_err(|cause| failed("ssh-agent can't be started").because(cause))?;
    let private = Private {
        keeper,
        _folder: folder,
    };
    let ready = async {
        // The socket exists a moment before it accepts connections.
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(START_TIMEOUT, ready).await.is_err() {
        return Err(failed("ssh-agent did not start within five seconds"));
    }
    let added = Command::new("ssh-add")
        .arg("-q")
        .arg("--")
        .args(keys)
        .env("SSH_AUTH_SOCK", &socket)
        .status()
        .await
        .map_err(|cause| failed("ssh-add can't be started").because(cause))?;
    if !added.success() {
        let names: Vec<_> = keys.iter().map(|key| key.display().to_string()).collect();
        return Err(Error::failed(format!(
            "--ssh {id}: ssh-add refused {}",
            names.join(", ")
        )));
    }
    Ok(Agent {
        id: id.to_owned(),
        socket,
        _private: Some(private),
    })
}
