//! A command that runs on a dock, as this process sees it.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, FrameKind};
use super::target::{Exit, Size};
use super::wire::Failure;
use crate::error::{Error, Result};

/// How many bytes of a stream are buffered in this process; unread output holds the command up, as a full pipe does.
const PIPE: usize = 256 * 1024;
/// How many bytes are read at once.
const BUFFER: usize = 64 * 1024;
/// How many new terminal sizes are queued for the agent.
const SIZES: usize = 4;

/// A command on a dock, while it runs. Dropping it closes its connection, and the command sees the end of its terminal
/// or its pipes.
///
/// stdout and stderr come over one connection: a caller who reads one and never the other may hold up the command.
#[derive(Debug)]
pub struct Execution {
    /// To the command's stdin; shutting it down or dropping it ends the command's stdin.
    pub stdin: DuplexStream,
    /// The command's stdout.
    pub stdout: DuplexStream,
    /// The command's stderr; at its end from the start if the command has a terminal.
    pub stderr: DuplexStream,
    /// Tells the command's terminal a new size.
    pub resize: mpsc::Sender<Size>,
    /// How it ended.
    pub exit: PendingExit,
}

/// How a command will have ended; a value to wait for.
#[derive(Debug)]
pub struct PendingExit(oneshot::Receiver<Result<Exit>>);

impl PendingExit {
    /// Waits for the end of the command; all its output is in the streams by then.
    ///
    /// # Errors
    /// A link that was cut, and an agent that has gone.
    pub async fn wait(self) -> Result<Exit> {
        self.0.await.unwrap_or_else(|_| Err(lost(None)))
    }
}

impl Execution {
    /// Takes a control connection on which the agent has said that the command runs.
    pub(super) fn new(connection: UnixStream) -> Self {
        let (stdin, from_caller) = tokio::io::duplex(PIPE);
        let (stdout, to_stdout) = tokio::io::duplex(PIPE);
        let (stderr, to_stderr) = tokio::io::duplex(PIPE);
        let (resize, sizes) = mpsc::channel(SIZES);
        let (mut ended, ending) = oneshot::channel();
        let (from_agent, to_agent) = connection.into_split();
        tokio::spawn(async move {
            let result = tokio::select! {
                result = receive(from_agent, to_stdout, to_stderr) => result,
                never = send(to_agent, from_caller, sizes) => match never {},
                // The caller has dropped all streams.
                () = ended.closed() => return,
            };
            // A caller who doesn't ask how the command ended misses nothing.
            let _ = ended.send(result);
        });
        Self {
            stdin,
            stdout,
            stderr,
            resize,
            exit: PendingExit(ending),
        }
    }
}

/// Passes on what the agent sends of the command, until the command ends.
async fn receive(mut from: OwnedReadHalf, mut stdout: DuplexStream, mut stderr: DuplexStream) -> Result<Exit> {
    let mut payload = Vec::new();
    loop {
        let kind = frame::read(&mut from, &mut payload).await;
        // A stream that is not read any more takes nothing; the command goes on, as its other stream may still be read.
        match kind.map_err(|cause| lost(Some(cause)))? {
            Some(FrameKind::Stdout) => drop(stdout.write_all(&payload).await),
            Some(FrameKind::Stderr) => drop(stderr.write_all(&payload).await),
            Some(FrameKind::Exit) => return serde_json::from_slice(&payload).map_err(|cause| lost(Some(cause.into()))),
            Some(FrameKind::Failure) => {
                let failure: Failure = serde_json::from_slice(&payload).map_err(|cause| lost(Some(cause.into())))?;
                return Err(failure.into_error());
            }
            Some(_) | None => return Err(lost(None)),
        }
    }
}

/// Passes stdin and sizes on. Never returns: that the command ended comes from the agent.
async fn send(
    mut to: OwnedWriteHalf,
    mut stdin: DuplexStream,
    mut sizes: mpsc::Receiver<Size>,
) -> std::convert::Infallible {
    let mut buffer = vec![0; BUFFER];
    let (mut reading, mut resizing) = (true, true);
    loop {
        let sent: io::Result<()> = tokio::select! {
            read = stdin.read(&mut buffer), if reading => match read {
                Ok(read) => {
                    reading = read > 0;
                    frame::write(&mut to, FrameKind::Stdin, buffer.get(..read).unwrap_or_default()).await
                }
                Err(_) => {
                    reading = false;
                    Ok(())
                }
            },
            size = sizes.recv(), if resizing => match size {
                Some(size) => match serde_json::to_vec(&size) {
                    Ok(size) => frame::write(&mut to, FrameKind::Resize, &size).await,
                    Err(cause) => Err(cause.into()),
                },
                None => {
                    resizing = false;
                    Ok(())
                }
            },
            else => std::future::pending().await,
        };
        if sent.is_err() {
            // The agent takes no more; it says why itself.
            return std::future::pending().await;
        }
    }
}

fn lost(cause: Option<io::Error>) -> Error {
    let error = Error::unreachable("the dock's agent is gone, and the command's connection with it")
        .hint("run it again: the agent is started anew");
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}
