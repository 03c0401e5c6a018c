//! Starting an agent.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::paths::AgentPaths;
use crate::docks::Dock;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// The agent's program.
const PROGRAM: &str = "dock-agent";
/// The argument with which systemd starts it when somebody connects to the socket of a docker context, which is its stdin.
pub const CONTEXT: &str = "context";
/// How long it may take to create its sockets, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
/// How much of its error output is shown.
const COMPLAINT: u64 = 4096;
/// Variables that choose an engine: an agent's engine is its dock's, whatever the shell that starts it is docked to.
const ENGINE_VARIABLES: [&str; 5] = [
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "BUILDX_BUILDER",
];

/// What an agent receives on its stdin, so that nothing of a dock is on a command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Where to put its sockets.
    pub paths: AgentPaths,
    /// The agent's dock.
    pub dock: Dock,
}

/// What an agent says on its stdout, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Started {
    /// Its sockets take connections.
    Ready,
    /// There is an agent already, or one that is ending.
    Running,
    /// It can't work.
    Failed {
        /// What happened, to which object.
        message: String,
        /// The exact command or edit that helps.
        hint: Option<String>,
    },
}

/// Starts the agent of a dock, and waits until its sockets are there.
pub(super) async fn start(paths: &AgentPaths, dock: &Dock, env: &Env) -> Result<Started> {
    let failed = |what: &str| Error::failed(format!("the agent of dock {:?} {what}", dock.moniker));
    let program = find(env)?;
    paths.prepare()?;
    paths.sweep(super::STALE);
    let mut command = Command::new(&program);
    command
        .env_clear()
        .envs(env.iter().filter(|(name, _)| !ENGINE_VARIABLES.contains(name)))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // It outlives us; the runtime waits for its end while there is a runtime, and init after that.
    let mut child = command
        .spawn()
        .map_err(|cause| failed(&format!("can't be started ({})", program.display())).because(cause))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let start = serde_json::to_vec(&Start {
        paths: paths.clone(),
        dock: dock.clone(),
    })
    .map_err(|cause| failed("can't be told its dock").because(cause))?;
    let talking = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(&start).await?;
        }
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout.take(COMPLAINT)).read_line(&mut line).await?;
        }
        std::io::Result::Ok(line)
    };
    let line = match tokio::time::timeout(LIMIT, talking).await {
        Ok(Ok(line)) => line,
        Ok(Err(cause)) => return Err(complaint(stderr, failed("ended at its start").because(cause)).await),
        Err(_) => {
            // If it can't be ended, it has ended.
            let _ = child.start_kill();
            return Err(failed(&format!("was not ready within {} s", LIMIT.as_secs()))
                .hint(hint!("look at its log: {}", paths.log_file().display())));
        }
    };
    match serde_json::from_str(&line) {
        Ok(started) => Ok(started),
        Err(_) => Err(complaint(stderr, failed("ended at its start")).await),
    }
}

/// Adds what the program printed before it ended, such as a message about a missing library.
async fn complaint(stderr: Option<tokio::process::ChildStderr>, error: Error) -> Error {
    let mut said = Vec::new();
    if let Some(stderr) = stderr {
        let mut limited = stderr.take(COMPLAINT);
        // What was read before an error or the time limit is worth showing.
        let _ = tokio::time::timeout(Duration::from_secs(1), limited.read_to_end(&mut said)).await;
    }
    match String::from_utf8_lossy(&said).trim() {
        "" => error,
        said => error.because(said.to_owned()),
    }
}

/// The program beside our own, where it was installed; else the one on PATH.
///
/// # Errors
/// A program that is not installed.
pub fn find(env: &Env) -> Result<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let on_path = std::env::split_paths(env.get("PATH").unwrap_or_default())
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(PROGRAM))
        .collect::<Vec<_>>();
    beside
        .into_iter()
        .chain(on_path)
        .find(|program| program.is_file())
        .ok_or_else(|| {
            Error::failed(format!("{PROGRAM} is not installed, and docks are reached through it")).hint(hint!(
                "put {} beside the other programs of dockerutils, or on PATH",
                PROGRAM
            ))
        })
}
