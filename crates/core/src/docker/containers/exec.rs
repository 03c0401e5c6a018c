//! A program that is run in a running container (`docker exec`), for its output.

use std::time::Duration;

use bollard::exec::CreateExecOptions;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::container::is_id;
use super::heard::OutputStream;
use super::terminal::{CopyError, Frames};
use crate::docker::connect::engine::{Engine, one_line};
use crate::error::{Error, Result};

/// Bytes read at once.
const BUFFER: usize = 16 * 1024;

/// A program to run in a container. It has no input and no terminal.
#[derive(Clone, Debug)]
pub struct ExecCommand<'a> {
    /// The program and its arguments; no shell is between.
    pub argv: &'a [&'a str],
    /// The user, as `docker exec --user` takes it; `None` for the container's own.
    pub user: Option<&'a str>,
    /// The most bytes of each of its outputs that are kept; a program that says more is not waited for.
    pub most: usize,
    /// How long it may take.
    pub limit: Duration,
}

/// What a program in a container said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Its exit code; `None` if it was not waited for to its end.
    pub code: Option<i64>,
}

impl ExecOutput {
    /// Both outputs as text: stderr behind stdout.
    pub fn text(&self) -> String {
        let (stdout, stderr) = (
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
        );
        format!("{stdout}{stderr}")
    }
}

/// Runs a program in a running container. That it fails, or is not there (codes 126 and 127), is no error.
///
/// # Errors
/// The engine's refusal (the container does not run), a broken connection, or a program that takes longer than its limit. It
/// goes on in the container then: engines have no way to end it.
pub async fn output(engine: &Engine, container: &str, command: &ExecCommand<'_>) -> Result<ExecOutput> {
    let program = command.argv.first().copied().unwrap_or_default();
    match tokio::time::timeout(command.limit, run(engine, container, command)).await {
        Ok(output) => output,
        Err(_) => Err(Error::failed(format!(
            "{program} in container {container} has not ended within {} s",
            command.limit.as_secs()
        ))),
    }
}

async fn run(engine: &Engine, container: &str, command: &ExecCommand<'_>) -> Result<ExecOutput> {
    let owned = |word: &str| word.to_owned();
    let options = CreateExecOptions::<String> {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command.argv.iter().map(|word| owned(word)).collect()),
        user: command.user.map(owned),
        ..CreateExecOptions::default()
    };
    let created = engine.docker().create_exec(container, options).await;
    let id = created.map_err(|cause| engine.error(container, cause))?.id;
    if !is_id(&id) {
        return Err(Error::failed(format!(
            "{} gave a program in container {container} an ID that is not valid: {:?}",
            engine.choice().engine(),
            one_line(&id)
        )));
    }
    let start = Bytes::from_static(br#"{"Detach":false,"Tty":false}"#);
    let path = format!("/exec/{id}/start");
    let mut stream = engine.hijack_with(&path, "tcp", start).await?;
    let mut frames = Frames::default();
    let mut output = ExecOutput::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await.map_err(|cause| engine.lost(cause))?;
        if read == 0 {
            break;
        }
        let taken = frames.take(buffer.get(..read).unwrap_or_default(), |stream, content| {
            match stream {
                OutputStream::Out => &mut output.stdout,
                OutputStream::Err => &mut output.stderr,
            }
            .extend_from_slice(content);
            Ok(())
        });
        if let Err(CopyError::Own(cause) | CopyError::Container(cause)) = taken {
            return Err(engine.lost(cause));
        }
        if output.stdout.len() > command.most || output.stderr.len() > command.most {
            output.stdout.truncate(command.most);
            output.stderr.truncate(command.most);
            return Ok(output);
        }
    }
    frames.end().map_err(|cause| engine.lost(cause))?;
    let ended = engine.docker().inspect_exec(&id).await;
    output.code = ended.map_err(|cause| engine.error(container, cause))?.exit_code;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use serde_json::json;

    use super::*;
    use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};

    async fn connected(engine: &ScriptedEngine) -> Engine {
        let choice = Choice {
            endpoint: Endpoint::Unix(engine.socket()),
            origin: Origin::Host,
        };
        Engine::connect_to(choice).await.unwrap()
    }

    fn command<'a>(argv: &'a [&'a str]) -> ExecCommand<'a> {
        ExecCommand {
            argv,
            user: Some("1000"),
            most: 10,
            limit: Duration::from_secs(60),
        }
    }

    fn scripted(pieces: &[&[u8]]) -> ScriptedEngine {
        ScriptedEngine::start()
            .on("POST", "/containers/web/exec", Reply::json(201, &json!({"Id": "e1"})))
            .on(
                "POST",
                "/exec/e1/start",
                Reply::upgrade(pieces.iter().map(|piece| piece.to_vec())),
            )
            .on(
                "GET",
                "/exec/e1/json",
                Reply::json(200, &json!({"ExitCode": 7, "Running": false})),
            )
    }

    #[tokio::test]
    async fn a_program_in_a_container_says_what_it_has_to_and_ends() {
        let engine = scripted(&[b"\x01\0\0\0\0\0\0\x03out\x02\0\0", b"\0\0\0\0\x03err"]);
        let output = output(&connected(&engine).await, "web", &command(&["printf", "a b", "$HOME"]))
            .await
            .unwrap();
        assert_eq!((output.text(), output.code), ("outerr".to_owned(), Some(7)));
        let asked = engine.request("POST", "/containers/web/exec").json();
        assert_eq!(asked["Cmd"], json!(["printf", "a b", "$HOME"]));
        assert_eq!(asked["User"], "1000");
        assert_ne!(asked["AttachStdin"], true);
    }

    #[tokio::test]
    async fn a_program_that_says_too_much_is_not_waited_for() {
        let engine = scripted(&[b"\x01\0\0\0\0\0\0\x14aaaaaaaaaaaaaaaaaaaa"]);
        let output = output(&connected(&engine).await, "web", &command(&["yes"]))
            .await
            .unwrap();
        assert_eq!(
            (output.stdout.as_slice(), output.code),
            (b"aaaaaaaaaa".as_slice(), None)
        );
    }

    #[tokio::test]
    async fn a_container_that_does_not_run_is_an_error() {
        let engine = ScriptedEngine::start().on(
            "POST",
            "/containers/web/exec",
            Reply::error(409, "container web is not running"),
        );
        let error = output(&connected(&engine).await, "web", &command(&["true"]))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("web is not running"), "{error}");
    }

    #[tokio::test]
    async fn an_engine_that_never_ends_is_not_waited_for_for_ever() {
        let engine = ScriptedEngine::start()
            .on("POST", "/containers/web/exec", Reply::json(201, &json!({"Id": "e1"})))
            .on("POST", "/exec/e1/start", Reply::hang());
        let command = ExecCommand {
            limit: Duration::from_millis(100),
            ..command(&["sleep"])
        };
        let error = output(&connected(&engine).await, "web", &command).await.unwrap_err();
        assert!(
            error.to_string().contains("sleep in container web has not ended"),
            "{error}"
        );
    }
}
