//! Asking the command that syncs a project and a dock just now: see [`super::holder`].

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use super::holder::Address;
use super::manifest::Memory;
use super::request::{Greeting, Hello, HolderReply, LONGEST_REPLY, PROTOCOL, RoundRequest};
use super::session::Report;
use crate::agent::frame;
use crate::agent::paths::is_private;
use crate::agent::wire::VERSION;
use crate::error::WireError;

/// How long a holder may take for its first words, and be silent afterwards.
const SILENCE: Duration = Duration::from_secs(20);

/// How long to wait for an answer before that is reported.
const UNSAID: Duration = Duration::from_secs(1);

/// What came of asking.
#[derive(Debug)]
pub enum AskOutcome {
    /// The round is done.
    Report(Box<Report>),
    /// The round could not be done.
    Failed(WireError),
    /// The holder has ended, or leaves it to the next one.
    Ended,
    /// There is no holder, or it does not answer.
    Nobody,
}

/// Asks for a round; without a request, that the holder steps aside.
pub async fn ask(memory: &Memory, request: Option<&RoundRequest>, notice: &(dyn Fn(&str) + Send + Sync)) -> AskOutcome {
    match Asking::begin(memory, request).await {
        Ok(asking) => asking.answer(notice).await,
        Err(asked) => asked,
    }
}

/// What was asked, and is not answered yet.
#[derive(Debug)]
pub struct Asking {
    stream: UnixStream,
    pid: u32,
}

impl Asking {
    /// Says what is wanted.
    ///
    /// # Errors
    /// What there is instead of an answer.
    pub async fn begin(memory: &Memory, request: Option<&RoundRequest>) -> Result<Self, AskOutcome> {
        let (stream, greeting) = greet(memory, request.is_none()).await.ok_or(AskOutcome::Nobody)?;
        let mut asking = Self {
            stream,
            pid: greeting.pid,
        };
        match request {
            None => {}
            Some(request) if greeting.dockerutils_sync == PROTOCOL => {
                let written = frame::write_long_message(&mut asking.stream, request).await;
                written.map_err(|_| AskOutcome::Ended)?;
            }
            // It would misunderstand, but for this.
            Some(_) => asking.stream = greet(memory, true).await.ok_or(AskOutcome::Nobody)?.0,
        }
        Ok(asking)
    }

    /// Waits until the holder has said something, which it does when it has taken in what is wanted; false where it has gone.
    pub async fn is_heard(&self) -> bool {
        matches!(frame::incoming(&self.stream).await, Ok(true))
    }

    /// Waits for the answer.
    pub async fn answer(self, notice: &(dyn Fn(&str) + Send + Sync)) -> AskOutcome {
        let Self { mut stream, pid } = self;
        let unsaid = Instant::now() + UNSAID;
        let mut is_said = false;
        loop {
            if !is_said && tokio::time::timeout_at(unsaid, frame::incoming(&stream)).await.is_err() {
                is_said = true;
                notice(&format!("waiting for process {pid}, which syncs the same just now"));
            }
            let reply = tokio::time::timeout(SILENCE, frame::read_long_message(&mut stream, LONGEST_REPLY)).await;
            match reply {
                Ok(Ok(Some(HolderReply::Waiting))) => {}
                Ok(Ok(Some(HolderReply::Notice(line)))) => notice(&line),
                Ok(Ok(Some(HolderReply::Report(outcome)))) => return AskOutcome::Report(Box::new(outcome.into())),
                Ok(Ok(Some(HolderReply::Failed(failure)))) => return AskOutcome::Failed(failure),
                Ok(Ok(None) | Err(_)) => return AskOutcome::Ended,
                // It was stopped, or hangs.
                Err(_) => return AskOutcome::Nobody,
            }
        }
    }
}

/// The process that holds the lock, by what it has written down.
pub fn address(memory: &Memory) -> Option<Address> {
    let text = fs::read(memory.holder_file()).ok()?;
    serde_json::from_slice(&text).ok()
}

async fn greet(memory: &Memory, leave: bool) -> Option<(UnixStream, Greeting)> {
    let address = address(memory)?;
    if !address.socket.parent().is_some_and(is_private) {
        return None;
    }
    let greeting = tokio::time::timeout(SILENCE, greet_at(&address.socket, leave)).await;
    greeting.ok()?.ok()
}

async fn greet_at(socket: &Path, leave: bool) -> io::Result<(UnixStream, Greeting)> {
    let mut stream = UnixStream::connect(socket).await?;
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let hello = Hello {
        dockerutils_sync: PROTOCOL,
        version: VERSION.to_owned(),
        leave,
    };
    frame::write_message(&mut stream, &hello).await?;
    let greeting = frame::read_message(&mut stream).await?;
    Ok((stream, greeting.ok_or(io::ErrorKind::ConnectionReset)?))
}
