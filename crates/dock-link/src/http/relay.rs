//! Bytes between a docker client and the engine of a dock; some requests are held, and changed or answered here.
//!
//! What is not held passes as [`raw`](crate::relay::raw) passes it: each piece as soon as it was read, and each
//! direction to its own end. What is held, [`EngineHooks`] say; what happens then is in [`super::exchanges`].
//!
//! What clients and engines do, and what was made of it:
//!
//! - docker's CLI and other programs in Go keep connections open and use them for one request after the other. They do
//!   not pipeline: a request is sent when the answer to the last one has come. They send creations with a
//!   `Content-Length`; Java's clients send them in chunks.
//! - attach, exec and BuildKit's `/session` and `/grpc` ask to speak another protocol (`Upgrade`). Docker's CLI dials
//!   for each of them, docker-py takes a connection of its pool and gives it back if the engine refuses: such a
//!   connection is HTTP still.
//! - curl sends `Expect: 100-continue` with a longer body and waits for a second. The engine (Go's `net/http`) says
//!   `100 Continue` once it reads the body, so for what is held it must be said here.
//! - Go's server may answer before a body has come to its end, and closes the connection then.
//! - dockerd closes a new connection on which no request has come for five minutes: if a request is held that long, its
//!   client is answered 503.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::mutex::lock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::exchanges::{Exchanges, OwnAnswer, RequestEvent, Requests, ResponseEvent, Responses};
use super::hooks::{EngineHooks, HeldRequest, Verdict};
use super::observer::HttpObserver;
use crate::link::{Over, ended};
use crate::relay::{BUFFER, gone, has_gone, write, write_for};
use crate::transport::Duplex;

/// How long a client that was refused has to read why: if unread bytes are left when a socket is closed, the other side
/// fails before it has read.
const LINGER: Duration = Duration::from_secs(2);

/// Relays a client's connection to an engine until both sides are done, the link is over, or the client is gone.
pub(crate) async fn engine<H: EngineHooks>(here: UnixStream, far: Box<dyn Duplex>, mut over: Over, hooks: &H) {
    tokio::select! {
        () = both(here, far, hooks) => {}
        // Dropping both sides closes them at once.
        _ = ended(&mut over) => {}
    }
}

/// How the client's direction ended.
enum ClientEnd {
    /// The client sends no more, or the engine takes no more.
    Ended(OwnedReadHalf),
    /// The client has gone while a request of it was held.
    Gone,
}

/// How the engine's direction ended.
enum EngineEnd {
    /// It sends no more.
    Ended,
    /// What it sent can't be delivered.
    Lost,
    /// Nothing more is to be relayed.
    Closed,
}

/// What both directions of a connection share.
struct Relay<'a, H> {
    hooks: &'a H,
    exchanges: Arc<Exchanges>,
    /// Sees what the engine sees, and what it sends.
    observer: Mutex<HttpObserver>,
}

async fn both<H: EngineHooks>(here: UnixStream, far: impl AsyncRead + AsyncWrite + Unpin, hooks: &H) {
    let (from_here, to_here) = here.into_split();
    let (from_far, to_far) = tokio::io::split(far);
    let relay = Relay {
        hooks,
        exchanges: Arc::default(),
        observer: Mutex::default(),
    };
    let out = relay.requests(from_here, to_far);
    let back = relay.answers(from_far, to_here);
    tokio::pin!(out, back);
    tokio::select! {
        end = &mut out => if let ClientEnd::Ended(from_here) = end {
            tokio::select! {
                _ = back => {}
                () = gone(&from_here) => {}
            }
        },
        end = &mut back => match end {
            // The engine may still receive.
            EngineEnd::Ended => drop(out.await),
            EngineEnd::Lost => {}
            EngineEnd::Closed => drop(timeout(LINGER, out).await),
        }
    }
}

impl<H: EngineHooks> Relay<'_, H> {
    /// Passes what the client sends, until it sends no more.
    async fn requests(&self, mut from: OwnedReadHalf, mut to: impl AsyncWrite + Unpin) -> ClientEnd {
        let passed = self.pass_requests(&mut from, &mut to).await;
        match passed {
            Ok(true) => discard(&mut from).await,
            // An engine that takes no more may still send.
            Ok(false) | Err(Stop::Broken) => {}
            Err(Stop::Gone) => return ClientEnd::Gone,
        }
        let _ = to.shutdown().await;
        ClientEnd::Ended(from)
    }

    /// Gives whether there is more to come, which is to be dropped.
    async fn pass_requests(&self, from: &mut OwnedReadHalf, to: &mut (impl AsyncWrite + Unpin)) -> Result<bool, Stop> {
        let mut requests = Requests::new(Arc::clone(&self.exchanges));
        let mut buffer = vec![0; BUFFER];
        let mut ahead = Ahead::default();
        loop {
            let early = std::mem::take(&mut ahead.bytes);
            let piece = if !early.is_empty() {
                &*early
            } else if ahead.has_ended {
                break;
            } else {
                let read = tokio::select! {
                    read = from.read(&mut buffer) => match read? {
                        0 => break,
                        read => read,
                    },
                    // The engine has changed something.
                    () = self.exchanges.for_engine.notified() => 0,
                };
                buffer.get(..read).unwrap_or_default()
            };
            let mut rest = piece;
            loop {
                let (event, after) = requests.next(rest, self.hooks);
                rest = after;
                match event {
                    RequestEvent::Pass(bytes) => self.send(from, to, &bytes).await?,
                    RequestEvent::Held(held) => {
                        let verdict = match self.decision(&held.request, from, &mut ahead).await {
                            Some(verdict) => verdict,
                            // The engine's direction closes the connection.
                            None => return Ok(true),
                        };
                        if let Some(bytes) = requests.decide(*held, verdict?) {
                            self.send(from, to, &bytes).await?;
                        }
                    }
                    RequestEvent::Closed => return Ok(true),
                    RequestEvent::More => break,
                }
            }
        }
        if let RequestEvent::Pass(bytes) = requests.end() {
            self.send(from, to, &bytes).await?;
        }
        Ok(false)
    }

    /// What is decided about a request; `None` if the connection is not followed any more.
    async fn decision(
        &self,
        request: &HeldRequest,
        from: &mut OwnedReadHalf,
        ahead: &mut Ahead,
    ) -> Option<Result<Verdict, Stop>> {
        tokio::select! {
            biased;
            () = self.exchanges.raw() => None,
            verdict = self.hooks.held(request) => Some(Ok(verdict)),
            () = ahead.departure(from) => Some(Err(Stop::Gone)),
        }
    }

    async fn send(&self, from: &OwnedReadHalf, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        // Before they are sent, so that no answer can be seen first.
        lock(&self.observer).see_client(bytes);
        write_for(from, to, bytes).await
    }

    /// Passes what the engine sends, and says what is answered here.
    async fn answers(&self, mut from: impl AsyncRead + Unpin, mut to: OwnedWriteHalf) -> EngineEnd {
        let passed = self.pass_answers(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        passed.unwrap_or(EngineEnd::Lost)
    }

    async fn pass_answers(&self, from: &mut (impl AsyncRead + Unpin), to: &mut OwnedWriteHalf) -> io::Result<EngineEnd> {
        let mut responses = Responses::new(Arc::clone(&self.exchanges));
        let mut buffer = vec![0; BUFFER];
        let mut failure = None;
        loop {
            let read = tokio::select! {
                read = from.read(&mut buffer) => Some(read),
                () = self.exchanges.for_client.notified() => None,
            };
            let (piece, has_ended) = match read {
                Some(Ok(read)) => (buffer.get(..read).unwrap_or_default(), read == 0),
                Some(Err(cause)) => {
                    failure = Some(cause);
                    (&[][..], true)
                }
                None => (&[][..], false),
            };
            let seen = lock(&self.observer).see_engine(piece);
            seen.into_iter().for_each(|id| self.hooks.created(id));
            let mut rest = piece;
            let mut ending = false;
            loop {
                let event = match ending {
                    false => {
                        let (event, after) = responses.next(rest);
                        rest = after;
                        event
                    }
                    true => responses.end(),
                };
                match event {
                    ResponseEvent::Pass(bytes) => write(to, &bytes).await?,
                    ResponseEvent::Own(OwnAnswer { bytes, last }) => {
                        write(to, &bytes).await?;
                        if last {
                            return Ok(EngineEnd::Closed);
                        }
                    }
                    ResponseEvent::Delay(target) => self.hooks.before_body(&target).await,
                    ResponseEvent::Closed => return Ok(EngineEnd::Closed),
                    ResponseEvent::More if has_ended && !ending => ending = true,
                    ResponseEvent::More => break,
                }
            }
            if has_ended {
                return failure.map_or(Ok(EngineEnd::Ended), Err);
            }
        }
    }
}

/// Why the client's direction stopped before its end.
enum Stop {
    /// The engine takes no more, or the client's socket is broken.
    Broken,
    /// The client has gone.
    Gone,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// What the client has sent while a request of it was held.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    /// Whether it sends nothing after them.
    has_ended: bool,
}

impl Ahead {
    /// Waits until the client has gone. One that only sends no more is waited for: so do programs that write a request and
    /// close their half.
    async fn departure(&mut self, from: &mut OwnedReadHalf) {
        while !self.has_ended && self.bytes.len() < BUFFER {
            self.bytes.reserve(4096);
            match from.read_buf(&mut self.bytes).await {
                Ok(0) => self.has_ended = true,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        if !(self.has_ended && has_gone(from)) {
            gone(from).await;
        }
    }
}

/// Reads to the end, and drops what comes.
async fn discard(from: &mut OwnedReadHalf) {
    let mut buffer = vec![0; BUFFER];
    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
}
