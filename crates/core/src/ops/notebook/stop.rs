//! Stopping a server properly: it is asked to end its kernels and itself, then told to by a signal, then killed.
//!
//! SIGINT is not used: a Jupyter server only asks a question at its terminal then, and goes on after five seconds.

use std::fmt;
use std::time::Duration;

use crate::docker::connect::engine::Engine;
use crate::docker::containers::{container, foreground};
use crate::error::{Error, ExitStatus, Result};
use crate::hint;
use crate::jupyter::client::{ServerClient, ServerError};
use crate::output::progress::waiting::WaitingRow;
use crate::output::{Printer, visible};

/// How long a server that holds the open documents gets to write down what was typed last: it does so after a second.
const SAVING: Duration = Duration::from_secs(2);
/// How long a server may take to end by itself: it gives its kernels five seconds, and its extensions some more.
const SHUTDOWN: Duration = Duration::from_secs(15);
/// How long a container may take to end after SIGTERM, as `docker stop` waits.
const TERMINATION: Duration = Duration::from_secs(10);
/// How long it may take to be gone after SIGKILL.
const KILL: Duration = Duration::from_secs(10);
/// How long the engine may take to remove it then.
const REMOVAL: Duration = Duration::from_secs(10);

/// A kernel whose work would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusyKernel {
    /// The kernel's kind, such as `python3`.
    pub kernel: String,
    /// `busy`, `starting` or another state.
    pub state: String,
    /// The notebook that it was started for, below the server's folder.
    pub path: Option<String>,
}

impl fmt::Display for BusyKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, state) = (visible(&self.kernel), visible(&self.state));
        match &self.path {
            Some(path) => write!(f, "{} ({kernel} is {state})", visible(path)),
            None => write!(f, "a kernel without a notebook ({kernel} is {state})"),
        }
    }
}

/// So many kernels are named.
const NAMED: usize = 20;

/// The kernels that work now, with the notebooks that they work for: the first [`NAMED`] of them.
///
/// # Errors
/// [`ServerError`].
pub async fn busy_kernels(client: &ServerClient) -> Result<Vec<BusyKernel>, ServerError> {
    let mut busy = client.kernels().await?;
    busy.retain(|kernel| kernel.is_busy());
    // It may tell of thousands.
    busy.truncate(NAMED);
    if busy.is_empty() {
        return Ok(Vec::new());
    }
    // Names only explain.
    let sessions = client.sessions().await.unwrap_or_default();
    let kernels = busy.into_iter().map(|kernel| BusyKernel {
        path: sessions
            .iter()
            .find(|session| session.kernel == kernel.id)
            .map(|session| session.path.clone()),
        kernel: kernel.name,
        state: kernel.execution_state,
    });
    Ok(kernels.collect())
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It had ended before.
    WasGone,
    /// By itself, as it was asked to: its kernels have ended, too.
    Properly,
    /// By SIGTERM.
    Terminated,
    /// By SIGKILL.
    Killed,
}

/// Ends the server in a container, and the container with it. `client` is the server's, where it has one; `now` resolves when
/// the user does not want to wait any longer (the second Ctrl-C): then the container is killed.
///
/// # Errors
/// The engine is out of reach, or can't end the container.
pub async fn stop(
    engine: &Engine,
    id: &str,
    name: &str,
    client: Option<&ServerClient>,
    now: impl Future<Output = ()>,
    printer: &Printer,
) -> Result<Stopped> {
    let found = foreground::find(engine, id).await?;
    let is_removed = found.as_ref().is_some_and(|found| found.options.remove);
    if found.is_none_or(|found| found.ended.is_some()) {
        return Ok(Stopped::WasGone);
    }
    let _row = WaitingRow::new(
        printer,
        &format!("stopping container {name}"),
        std::time::Instant::now(),
    );
    let ending = foreground::wait(engine, id, "not-running").await?;
    tokio::pin!(ending, now);
    let in_peace = async {
        if let Some(client) = client {
            if client.holds_documents().await.unwrap_or_default() {
                tokio::time::sleep(SAVING).await;
            }
            // That it refuses, or has gone already, is no reason to stop here.
            match client.shutdown().await {
                Ok(()) => {
                    if ended(ending.as_mut(), SHUTDOWN).await? {
                        return Ok(Some(Stopped::Properly));
                    }
                    printer.note(&format!(
                        "container {name} has not ended {} s after its server was shut down: it gets SIGTERM",
                        SHUTDOWN.as_secs()
                    ));
                }
                Err(error) => printer.detail(&format!("the server in container {name} was not shut down: {error}")),
            }
        }
        container::signal(engine, id, "SIGTERM").await;
        let is_over = ended(ending.as_mut(), TERMINATION).await?;
        Ok::<_, Error>(is_over.then_some(Stopped::Terminated))
    };
    let stopped = tokio::select! {
        stopped = in_peace => stopped?,
        () = now => None,
    };
    let stopped = match stopped {
        Some(stopped) => stopped,
        None => {
            container::signal(engine, id, "SIGKILL").await;
            if !ended(ending, KILL).await? {
                return Err(not_ended(name));
            }
            Stopped::Killed
        }
    };
    if is_removed {
        let removing = async { foreground::wait(engine, id, "removed").await?.await };
        // Until it is gone, its volumes are in use. A container that is not there any more is an error of the question only.
        let _ = ended(removing, REMOVAL).await;
    }
    Ok(stopped)
}

fn not_ended(name: &str) -> Error {
    Error::failed(format!(
        "container {name} has not ended {} s after SIGKILL",
        KILL.as_secs()
    ))
    .hint(hint!(
        "see whether the engine's machine is well, then: docker rm -f -- {}",
        name
    ))
}

/// Whether a container ends within this time.
async fn ended(ending: impl Future<Output = Result<ExitStatus>>, limit: Duration) -> Result<bool> {
    match tokio::time::timeout(limit, ending).await {
        Ok(ended) => ended.map(|_| true),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::json;

    use super::super::samples::{connected, context, engine, inspected, token};
    use super::*;
    use crate::jupyter::base_path::BasePath;
    use crate::jupyter::client::ServerAddress;

    fn client(server: &ScriptedEngine) -> ServerClient {
        ServerClient::new(
            ServerAddress::Unix(server.socket()),
            BasePath::default(),
            false,
            &token(),
        )
    }

    async fn stopped(engine: &ScriptedEngine, client: Option<&ServerClient>, now: bool) -> Result<Stopped> {
        let now = async {
            if !now {
                std::future::pending::<()>().await;
            }
        };
        let printer = context(engine).printer;
        stop(&connected(engine).await, "c1", "nb", client, now, &printer).await
    }

    fn signals(engine: &ScriptedEngine) -> Vec<String> {
        let requests = engine.requests();
        let kills = requests.iter().filter(|request| request.path == "/containers/c1/kill");
        kills.map(|request| request.query.clone()).collect()
    }

    fn ending(engine: ScriptedEngine, after: Duration) -> ScriptedEngine {
        engine.on("POST", "/containers/c1/kill", Reply::empty(204)).on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({"StatusCode": 0})).slow(after),
        )
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_ends_by_itself_when_it_is_asked_to() {
        let server = ScriptedEngine::start().on("POST", "/api/shutdown", Reply::empty(200));
        let engine = ending(engine(1), Duration::from_millis(100));
        assert_eq!(
            stopped(&engine, Some(&client(&server)), false).await.unwrap(),
            Stopped::Properly
        );
        assert_eq!(
            server.request("POST", "/api/shutdown").header("authorization"),
            Some("token s3cret")
        );
        assert!(signals(&engine).is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_holds_the_documents_gets_the_time_to_write_them_down() {
        let server = ScriptedEngine::start()
            .on("GET", "/api/collaboration/session/", Reply::error(405, "PUT"))
            .on("POST", "/api/shutdown", Reply::empty(200));
        let engine = ending(engine(1), Duration::from_millis(100));
        let began = std::time::Instant::now();
        assert_eq!(
            stopped(&engine, Some(&client(&server)), false).await.unwrap(),
            Stopped::Properly
        );
        assert!(began.elapsed() >= SAVING);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn without_a_server_that_listens_the_container_gets_a_signal() {
        let server = ScriptedEngine::start().on("POST", "/api/shutdown", Reply::error(403, "no"));
        for client in [None, Some(client(&server))] {
            let engine = ending(engine(1), Duration::from_millis(100));
            assert_eq!(
                stopped(&engine, client.as_ref(), false).await.unwrap(),
                Stopped::Terminated
            );
            assert_eq!(signals(&engine), ["signal=SIGTERM"]);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_user_who_does_not_wait_has_it_killed() {
        let server = ScriptedEngine::start().on("POST", "/api/shutdown", Reply::hang());
        let engine = ending(engine(1), Duration::from_millis(100));
        assert_eq!(
            stopped(&engine, Some(&client(&server)), true).await.unwrap(),
            Stopped::Killed
        );
        assert_eq!(signals(&engine), ["signal=SIGKILL"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_container_that_the_engine_removes_is_gone_when_it_is_stopped() {
        let removed = json!({"HostConfig": {"AutoRemove": true}});
        let engine = ScriptedEngine::start()
            .on("GET", "/containers/c1/json", Reply::json(200, &inspected(1, &removed)))
            .on("POST", "/containers/c1/kill", Reply::empty(204))
            .on(
                "POST",
                "/containers/c1/wait",
                Reply::json(200, &json!({"StatusCode": 0})),
            );
        assert_eq!(stopped(&engine, None, false).await.unwrap(), Stopped::Terminated);
        let requests = engine.requests();
        let waits = requests.iter().filter(|request| request.path == "/containers/c1/wait");
        let conditions: Vec<&str> = waits.map(|request| request.query.as_str()).collect();
        assert_eq!(conditions, ["condition=not-running", "condition=removed"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_has_ended_is_not_stopped_again() {
        let ended = json!({"State": {"Running": false, "ExitCode": 0}});
        let engine = ScriptedEngine::start().on("GET", "/containers/c1/json", Reply::json(200, &inspected(1, &ended)));
        assert_eq!(stopped(&engine, None, false).await.unwrap(), Stopped::WasGone);
        assert_eq!(
            stopped(&ScriptedEngine::start(), None, false).await.unwrap(),
            Stopped::WasGone
        );
    }

    #[tokio::test]
    async fn busy_kernels_are_named_by_their_notebooks() {
        let kernel = |id: &str, state: &str| json!({"id": id, "name": "python3", "execution_state": state});
        let kernels = json!([kernel("k1", "busy"), kernel("k2", "idle"), kernel("k3", "starting")]);
        let sessions = json!([{"path": "a\u{1b}[2J/b.ipynb", "type": "notebook", "kernel": {"id": "k1"}}]);
        let server = ScriptedEngine::start()
            .on("GET", "/api/kernels", Reply::json(200, &kernels))
            .on("GET", "/api/sessions", Reply::json(200, &sessions));
        let busy = busy_kernels(&client(&server)).await.unwrap();
        let names: Vec<String> = busy.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "a/b.ipynb (python3 is busy)",
                "a kernel without a notebook (python3 is starting)"
            ]
        );
        let idle = ScriptedEngine::start().on("GET", "/api/kernels", Reply::json(200, &json!([kernel("k2", "idle")])));
        assert_eq!(busy_kernels(&client(&idle)).await.unwrap(), []);
    }
}
