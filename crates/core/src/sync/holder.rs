//! The one command that syncs a project and a dock just now, as others ask it: a Unix socket beside the agents', for as
//! long as it holds the lock ([`Memory`]).
//!
//! Which socket that is stands in a file beside the lock, since commands may be started with other runtime directories.
//! What is asked for waits until the round that goes on is done; those who ask for the same get the same round. An asker
//! that goes away takes nothing with it, and a holder that goes away is noticed by the end of the connection: then the asker
//! does the round itself, or asks whoever was first.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::manifest::Memory;
use super::remote::Shell;
use super::request::{Greeting, Hello, HolderReply, LONGEST_REQUEST, PROTOCOL, RemoteReport, RoundRequest};
use super::session::{Notice, Report, Session};
use crate::agent::frame;
use crate::agent::paths::{SOCKET_PATH, own_directory};
use crate::agent::wire::VERSION;
use crate::env::Env;
use crate::error::{Error, Result, WireError};
use crate::private_file;

/// How many askers may be connected at once; the next one waits until one of them is done.
const ASKERS: usize = 256;
/// How long an asker may take for its words, and to take ours.
const WORDS: Duration = Duration::from_secs(20);
/// How often an asker is told that nothing has happened.
const BEAT: Duration = Duration::from_secs(5);
/// How many characters of the lock's name are in the socket's name.
const NAME: usize = 16;

/// How a holder is asked, beside its lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    pub socket: PathBuf,
    /// Its process.
    pub pid: u32,
}

/// What another process asks for.
enum HolderRequest {
    Round(RoundRequest),
    /// That the holder steps aside.
    Leave,
}

/// Somebody who asks, and waits for the answer.
struct Asker {
    wanted: HolderRequest,
    replies: UnboundedSender<HolderReply>,
}

/// What a holder did for others.
#[derive(Debug)]
pub struct Served {
    /// What came out.
    pub report: Report,
    /// Whether whoever asked has heard of it.
    pub is_heard: bool,
}

/// The socket of whoever holds the lock.
pub struct Holder {
    asking: UnboundedReceiver<Asker>,
    /// Who has asked already, in this order.
    waiting: Vec<Asker>,
    serving: JoinHandle<()>,
    close: watch::Sender<bool>,
    files: [PathBuf; 2],
}

impl Holder {
    /// Listens, for as long as this lives, which must not be longer than the lock is held.
    ///
    /// # Errors
    /// No directory for the socket, and one that can't be written.
    pub fn listen(memory: &Memory, env: &Env) -> Result<Self> {
        let directory = own_directory(env)?;
        let name: String = memory.name().chars().take(NAME).collect();
        let socket = directory.join(format!("{name}.sync"));
        let failed = |cause: io::Error| Error::failed(format!("{} can't be served", socket.display())).because(cause);
        if socket.as_os_str().as_bytes().len() > SOCKET_PATH {
            return Err(failed(io::ErrorKind::InvalidFilename.into()));
        }
        // Whoever made it is gone, or we would not have the lock.
        match fs::remove_file(&socket) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(failed)?;
        let (tell, asking) = unbounded_channel();
        let (close, closing) = watch::channel(false);
        let address = Address {
            socket: socket.clone(),
            pid: std::process::id(),
        };
        let holder = Self {
            asking,
            waiting: Vec::new(),
            serving: tokio::spawn(serve(listener, tell, closing)),
            close,
            files: [memory.holder_file(), socket.clone()],
        };
        let text = serde_json::to_vec(&address).map_err(|cause| failed(cause.into()))?;
        private_file::replace_quickly(&memory.holder_file(), &text).map_err(failed)?;
        Ok(holder)
    }

    /// Waits until another process asks for something.
    pub async fn asked(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        match self.asking.recv().await {
            Some(asker) => self.waiting.push(asker),
            None => std::future::pending().await,
        }
    }

    /// Whether another process has asked the holder to step aside.
    pub fn is_to_leave(&mut self) -> bool {
        self.listen_up();
        self.waiting
            .iter()
            .any(|asker| matches!(asker.wanted, HolderRequest::Leave))
    }

    /// Takes in all that was asked for by now, and forgets who has gone.
    fn listen_up(&mut self) {
        while let Ok(asker) = self.asking.try_recv() {
            self.waiting.push(asker);
        }
        self.waiting.retain(|asker| !asker.replies.is_closed());
    }

    /// Those who have asked for this very round.
    fn take(&mut self, request: &RoundRequest) -> Vec<Asker> {
        let same = |asker: &mut Asker| matches!(&asker.wanted, HolderRequest::Round(wanted) if wanted == request);
        self.waiting.extract_if(.., same).collect()
    }

    /// A round of the holder's own, also for those who have asked for the same.
    ///
    /// # Errors
    /// Those of [`Session::sync`].
    pub async fn round<S: Shell>(&mut self, session: &mut Session<S>, request: &RoundRequest) -> Result<Report> {
        self.listen_up();
        let askers = self.take(request);
        let own = Arc::clone(&session.notice);
        round(session, request, &askers, Some(own)).await
    }

    /// The rounds that were asked for by now.
    pub async fn answer<S: Shell>(&mut self, session: &mut Session<S>) -> Vec<Served> {
        self.listen_up();
        let mut served = Vec::new();
        let mut requests: Vec<RoundRequest> = Vec::new();
        for asker in &self.waiting {
            if let HolderRequest::Round(request) = &asker.wanted
                && !requests.contains(request)
            {
                requests.push(request.clone());
            }
        }
        for request in requests {
            let askers = self.take(&request);
            if let Ok(report) = round(session, &request, &askers, None).await {
                served.push(Served {
                    report,
                    is_heard: askers.iter().any(|asker| !asker.replies.is_closed()),
                });
            }
        }
        served
    }

    /// Ends when those who were answered have their answer; the others ask whoever comes next.
    pub async fn close(mut self) {
        self.waiting.clear();
        self.asking.close();
        while self.asking.try_recv().is_ok() {}
        // Whoever listens to it has ended already.
        let _ = self.close.send(true);
        let _ = tokio::time::timeout(WORDS, &mut self.serving).await;
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.serving.abort();
        for file in &self.files {
            // The next holder's takes its place.
            let _ = fs::remove_file(file);
        }
    }
}

/// A round for all of these; what is to be said meanwhile goes to them, and to `own`.
async fn round<S: Shell>(
    session: &mut Session<S>,
    request: &RoundRequest,
    askers: &[Asker],
    own: Option<Notice>,
) -> Result<Report> {
    let listeners: Vec<UnboundedSender<HolderReply>> = askers.iter().map(|asker| asker.replies.clone()).collect();
    let before = Arc::clone(&session.notice);
    session.notice = Arc::new(move |line| {
        for listener in &listeners {
            // Whoever asked has gone.
            let _ = listener.send(HolderReply::Notice(line.to_owned()));
        }
        if let Some(own) = &own {
            own(line);
        }
    });
    let result = fulfil(session, request).await;
    session.notice = before;
    for asker in askers {
        let reply = match &result {
            Ok(report) => HolderReply::Report(RemoteReport::from(report)),
            Err(error) => HolderReply::Failed(WireError::from(error)),
        };
        let _ = asker.replies.send(reply);
    }
    result
}

/// Syncs as it is asked for.
///
/// # Errors
/// Those of [`Session::sync`].
pub(super) async fn fulfil<S: Shell>(session: &mut Session<S>, request: &RoundRequest) -> Result<Report> {
    session.generated.clone_from(&request.generated);
    session.unmade.clone_from(&request.unmade);
    let (brake, with_git) = (session.brake, session.with_git);
    session.with_git |= request.with_git;
    let wanted = request.sync_request(brake);
    let result = match request.from_last_look && session.has_looked() {
        true => session.push(&wanted).await,
        false => session.sync(&wanted, false).await,
    };
    session.with_git = with_git;
    result
}

/// Takes in whoever asks, until told to close; then waits for the last words.
async fn serve(listener: UnixListener, tell: UnboundedSender<Asker>, mut closing: watch::Receiver<bool>) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if conversations.len() < ASKERS => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, tell.clone(), closing.clone()));
                }
                // Too many open files, for example: they become fewer.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = conversations.join_next() => {}
            _ = closing.changed() => break,
        }
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

async fn converse(stream: UnixStream, tell: UnboundedSender<Asker>, mut closing: watch::Receiver<bool>) {
    let mut stream = stream;
    let asked = tokio::select! {
        asked = tokio::time::timeout(WORDS, listen(&mut stream)) => asked,
        _ = closing.changed() => return,
    };
    let Ok(Ok(Some(wanted))) = asked else { return };
    let (replies, mut heard) = unbounded_channel();
    if tell.send(Asker { wanted, replies }).is_err() {
        return;
    }
    drop(tell);
    // Whoever asks hears that it was taken in.
    let taken_in = tokio::time::timeout(WORDS, frame::write_long_message(&mut stream, &HolderReply::Waiting)).await;
    if !matches!(taken_in, Ok(Ok(()))) {
        return;
    }
    let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    loop {
        let reply = tokio::select! {
            biased;
            // None where the holder has gone, or leaves it to the next one.
            reply = heard.recv() => match reply {
                Some(reply) => reply,
                None => return,
            },
            // It has gone: nothing more is said by an asker.
            _ = frame::incoming(&stream) => return,
            _ = beat.tick() => HolderReply::Waiting,
        };
        let is_last = matches!(reply, HolderReply::Report(_) | HolderReply::Failed(_));
        let written = tokio::time::timeout(WORDS, frame::write_long_message(&mut stream, &reply)).await;
        if is_last || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// What an asker wants; `None` if it speaks another version, or only looked.
async fn listen(stream: &mut UnixStream) -> io::Result<Option<HolderRequest>> {
    if stream.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let Some(hello) = frame::read_message::<Hello>(stream).await? else {
        return Ok(None);
    };
    let greeting = Greeting {
        dockerutils_sync: PROTOCOL,
        version: VERSION.to_owned(),
        pid: std::process::id(),
    };
    frame::write_message(stream, &greeting).await?;
    if hello.leave {
        return Ok(Some(HolderRequest::Leave));
    }
    if hello.dockerutils_sync != PROTOCOL {
        return Ok(None);
    }
    let request = frame::read_long_message(stream, LONGEST_REQUEST).await?;
    Ok(request.map(HolderRequest::Round))
}
