//! Small commands on a dock whose output is read here.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::agent::target::{Exec, Exit, RemoteCommand};
use crate::agent::{Agent, CallOptions};
use crate::error::{Error, Result};
use crate::output::visible;
use crate::sync::remote::login_shell;

/// So much of what a dock says is read; more is none of the answers that we ask for.
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// So much more is let through.
const EXCESS: u64 = 16 * 1024 * 1024;

/// What a command on a dock said, and how it ended.
#[derive(Debug)]
pub struct ScriptOutput {
    /// How it ended.
    pub exit: Exit,
    /// Its stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it complained about, in the same form.
    pub stderr: String,
}

/// Runs `script` with `sh` on the dock; `arguments` are its `$1` and so on.
///
/// # Errors
/// A dock that can't be reached or refuses, and no end within `limit`.
pub async fn run(
    agent: &Agent,
    script: &str,
    arguments: &[&str],
    options: &CallOptions,
    limit: Duration,
) -> Result<ScriptOutput> {
    run_with_input(agent, script, arguments, b"", options, limit).await
}

/// [`run`], with a stdin: what is secret is not among the arguments, which all users of the dock can see.
///
/// # Errors
/// As [`run`].
pub async fn run_with_input(
    agent: &Agent,
    script: &str,
    arguments: &[&str],
    input: &[u8],
    options: &CallOptions,
    limit: Duration,
) -> Result<ScriptOutput> {
    let words = ["sh", "-c", script, "sh"];
    let argv = words.iter().chain(arguments);
    let exec = Exec {
        command: RemoteCommand::Argv(argv.map(|word| (*word).to_owned()).collect()),
        pty: None,
    };
    let dock = &agent.dock().moniker;
    let running = async {
        let execution = agent.execute(exec, options).await?;
        let mut stdin = execution.stdin;
        let feeding = async move {
            // A script that reads no more says why by itself.
            let _ = stdin.write_all(input).await;
            Ok(())
        };
        let ((), stdout, stderr) =
            tokio::try_join!(feeding, read(execution.stdout, dock), read(execution.stderr, dock))?;
        let exit = execution.exit.wait().await?;
        Ok(ScriptOutput { exit, stdout, stderr })
    };
    tokio::time::timeout(limit, running).await.unwrap_or_else(|_| {
        Err(Error::unreachable(format!(
            "a command on dock {:?} did not end within {} s",
            agent.dock().moniker,
            limit.as_secs()
        )))
    })
}

async fn read(mut from: impl AsyncRead + Unpin, dock: &str) -> Result<String> {
    let mut bytes = Vec::new();
    // What was read before it broke may be enough; that it broke is told by how the command ended.
    let _ = (&mut from).take(OUTPUT_LIMIT).read_to_end(&mut bytes).await;
    // The rest is let through, so that the command comes to its end; one that goes on and on has none.
    match tokio::io::copy(&mut from.take(EXCESS), &mut tokio::io::sink()).await {
        Ok(EXCESS..) => {
            let error = Error::failed(format!("the output of a command on {} does not end", visible(dock)));
            Err(error.hint(login_shell(dock)))
        }
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_is_read_to_its_end_where_it_has_one() {
        assert!(
            read(tokio::io::repeat(b'x'), "far")
                .await
                .unwrap_err()
                .hint_text()
                .unwrap()
                .starts_with("ssh-dock far sh ")
        );
        let long = vec![b'x'; 1024 * 1024];
        assert_eq!(read(long.as_slice(), "far").await.unwrap().len() as u64, OUTPUT_LIMIT);
    }
}
