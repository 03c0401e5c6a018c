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
//! - docker-py reads the head of such an answer through a buffer, and what follows past it: what the buffer took along is
//!   lost. An engine has written the head long before there is any output; on the way here both may arrive in one piece.
//!   So what follows waits until the client has taken the head.
//! - curl sends `Expect: 100-continue` with a longer body and waits for a second. The engine (Go's `net/http`) says
//!   `100 Continue` once it reads the body, so for what is held it must be said here.
//! - Go's server may answer before a body has come to its end, and closes the connection then.
//! - dockerd closes a new connection on which no request has come for five minutes. So while a request is held, and no other
//!   one is under way, it is asked something, and the answer is dropped.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, timeout};

use super::engine_stream::EngineStream;
use super::exchanges::{Exchanges, OwnAnswer, RequestEvent, Requests, ResponseEvent, Responses};
use super::hooks::{Decision, EngineHooks, HeldRequest};
use crate::link::Over;
use crate::relay::{BUFFER, gone, has_gone, taken, write, write_for};
use crate::transport::Duplex;

/// How long a client that was refused has to read why: if unread bytes are left when a socket is closed, the other side
/// fails before it has read.
const LINGER: Duration = Duration::from_secs(2);

/// How long an engine hears nothing while a request is held. Less than half of what dockerd allows.
const QUIET: Duration = Duration::from_secs(120);

/// Relays a client's connection to an engine until both sides are done, the link is over, or the client is gone.
///
/// A link that ends while a request is held is waited for ([`EngineStream`]).
pub(crate) async fn engine<H: EngineHooks>(here: UnixStream, far: Box<dyn Duplex>, over: Over, hooks: &H) {
    let exchanges = Arc::<Exchanges>::default();
    let far = EngineStream::new(far, Arc::clone(&exchanges));
    tokio::select! {
        () = both(here, far.clone(), exchanges, hooks, QUIET) => {}
        // Dropping both sides closes them at once.
        () = far.renewed(over, hooks) => {}
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
    /// [`QUIET`].
    quiet: Duration,
}

async fn both<H: EngineHooks>(
    here: UnixStream,
    far: EngineStream,
    exchanges: Arc<Exchanges>,
    hooks: &H,
    quiet: Duration,
) {
    let (from_here, to_here) = here.into_split();
    let (from_far, to_far) = (far.clone(), far);
    let relay = Relay {
        hooks,
        exchanges,
        quiet,
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
            let early = mem::take(&mut ahead.bytes);
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
                    RequestEvent::Pass(bytes) => write_for(from, to, &bytes).await?,
                    RequestEvent::Held(held) => {
                        let decision = match self.decision(&held.request, from, &mut ahead, to).await {
                            Some(decision) => decision,
                            // The engine's direction closes the connection.
                            None => return Ok(true),
                        };
                        if let Some(bytes) = requests.decide(*held, decision?) {
                            write_for(from, to, &bytes).await?;
                        }
                    }
                    RequestEvent::Closed => return Ok(true),
                    RequestEvent::Undecided => tokio::select! {
                        () = self.exchanges.for_engine.notified() => {}
                        () = gone(from) => return Err(Stop::Broken),
                    },
                    RequestEvent::More => break,
                }
            }
        }
        if let RequestEvent::Pass(bytes) = requests.end(self.hooks) {
            write_for(from, to, &bytes).await?;
        }
        Ok(false)
    }

    /// What is decided about a request; `None` if the connection is not followed any more.
    async fn decision(
        &self,
        request: &HeldRequest,
        from: &mut OwnedReadHalf,
        ahead: &mut Ahead,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Option<Result<Decision, Stop>> {
        let mut held = std::pin::pin!(self.hooks.held(request));
        loop {
            tokio::select! {
                biased;
                () = self.exchanges.raw() => return None,
                decision = &mut held => return Some(Ok(decision)),
                () = ahead.departure(from) => return Some(Err(Stop::Gone)),
                () = sleep(self.quiet) => {}
            }
            if let Some(bytes) = self.exchanges.keep_alive() {
                // An engine that takes nothing more is noticed by its end.
                let _ = write(to, bytes).await;
            }
        }
    }

    /// Passes what the engine sends, and says what is answered here.
    async fn answers(&self, mut from: impl AsyncRead + Unpin, mut to: OwnedWriteHalf) -> EngineEnd {
        let passed = self.pass_answers(&mut from, &mut to).await;
        let _ = to.shutdown().await;
        passed.unwrap_or(EngineEnd::Lost)
    }

    async fn pass_answers(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut OwnedWriteHalf,
    ) -> io::Result<EngineEnd> {
        let mut responses = Responses::new(Arc::clone(&self.exchanges));
        let mut buffer = vec![0; BUFFER];
        let mut failure = None;
        let mut upgraded = false;
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
                    ResponseEvent::Pass(bytes) => {
                        if mem::take(&mut upgraded) {
                            taken(to).await;
                        }
                        write(to, &bytes).await?;
                    }
                    ResponseEvent::Upgraded(head) => {
                        write(to, &head).await?;
                        upgraded = true;
                    }
                    ResponseEvent::Change(whole) => write(to, &whole.changed().await).await?,
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::Ordering;

    use dock_client::mutex::lock;
    use hyper::StatusCode;
    use tokio::sync::{Semaphore, watch};
    use tokio::task::JoinHandle;

    use super::super::hooks::scripted::ScriptedHooks;
    use super::super::hooks::{AnswerTreatment, Rewrite, Treatment, Verdict};
    use super::*;

    const ID: &str = "8d1f6bd1b8f2c3a7f0f27c8ef1c64a4c7f3d7a1cdd8e9f2b5a6c7d8e9f0a1b2c";
    const CREATE: &str = "POST /v1.45/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{}";
    const PING: &str = "GET /_ping HTTP/1.1\r\n\r\n";
    const PONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

    /// A client and an engine with the relay between them.
    struct Scene {
        client: UnixStream,
        engine: UnixStream,
        hooks: Arc<ScriptedHooks>,
        over: watch::Sender<Option<crate::transport::TransportError>>,
        relay: JoinHandle<()>,
    }

    impl Scene {
        fn new(verdict: fn(&HeldRequest) -> Verdict, decisions: usize) -> Self {
            let (client, here) = UnixStream::pair().unwrap();
            let (far, engine) = UnixStream::pair().unwrap();
            let mut hooks = ScriptedHooks::new(verdict);
            hooks.decisions = Semaphore::new(decisions);
            let hooks = Arc::new(hooks);
            let own = Arc::clone(&hooks);
            let (over, watching) = watch::channel(None);
            let relay = tokio::spawn(async move { super::engine(here, Box::new(far), watching, &*own).await });
            Self {
                client,
                engine,
                hooks,
                over,
                relay,
            }
        }

        /// Waits until a decision was begun.
        async fn is_held(&self) {
            while self.hooks.begun.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Expects these bytes and no more so far.
    async fn expect(stream: &mut UnixStream, text: &str) {
        let mut received = vec![0; text.len()];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&received), text);
        assert_eq!(stream.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    async fn rest(stream: &mut UnixStream) -> String {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        rest
    }

    fn changed(_: &HeldRequest) -> Verdict {
        Verdict::Body(b"{\"HostConfig\": {\"Binds\": [\"/dock/a:/a\"]}}".to_vec())
    }

    fn refused(_: &HeldRequest) -> Verdict {
        Verdict::Answer {
            status: StatusCode::NOT_FOUND,
            message: "no \"copy\"".to_owned(),
        }
    }

    /// What is noted of the first request that is held.
    fn noted() -> (usize, String) {
        (0, format!("{{\"Id\":\"{ID}\"}}"))
    }

    const REFUSED: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 26\r\n\r\n{\"message\":\"no \\\"copy\\\"\"}\n";

    #[tokio::test]
    async fn a_creation_that_was_changed_is_noted_before_its_client_hears_of_it() {
        let mut scene = Scene::new(changed, 1);
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        let body = "{\"HostConfig\": {\"Binds\": [\"/dock/a:/a\"]}}";
        let expected = format!(
            "POST /v1.45/containers/create HTTP/1.1\r\nHost: docker\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        expect(&mut scene.engine, &expected).await;
        let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: 73\r\n\r\n{{\"Id\":\"{ID}\"}}");
        assert_eq!(lock(&scene.hooks.noted).len(), 0);
        scene.engine.write_all(answer.as_bytes()).await.unwrap();
        scene.client.readable().await.unwrap();
        assert_eq!(*lock(&scene.hooks.noted), [noted()]);
        expect(&mut scene.client, &answer).await;
    }

    #[tokio::test]
    async fn an_engine_is_asked_something_while_a_request_is_held_and_only_its_answer_to_the_client_passes() {
        for (verdict, passes) in [(changed as fn(&HeldRequest) -> Verdict, true), (refused, false)] {
            let (mut client, here) = UnixStream::pair().unwrap();
            let (far, mut engine) = UnixStream::pair().unwrap();
            let mut hooks = ScriptedHooks::new(verdict);
            hooks.decisions = Semaphore::new(0);
            let hooks = Arc::new(hooks);
            let own = Arc::clone(&hooks);
            let relay = tokio::spawn(async move {
                let exchanges = Arc::<Exchanges>::default();
                let far = EngineStream::new(Box::new(far), Arc::clone(&exchanges));
                both(here, far, exchanges, &*own, Duration::from_millis(20)).await;
            });
            client.write_all(CREATE.as_bytes()).await.unwrap();
            let ping = std::str::from_utf8(super::super::exchanges::KEEP_ALIVE).unwrap();
            let pong = "HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\nContent-Length: 0\r\n\r\n";
            for _ in 0..2 {
                expect(&mut engine, ping).await;
                let (first, rest) = pong.as_bytes().split_at(20);
                engine.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                engine.write_all(rest).await.unwrap();
            }
            // Not answered yet, it is not asked again.
            expect(&mut engine, ping).await;
            hooks.decisions.add_permits(1);
            let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: 73\r\n\r\n{{\"Id\":\"{ID}\"}}");
            if passes {
                let mut head = vec![0; CREATE.len()];
                engine.read_exact(&mut head).await.unwrap();
                assert!(head.starts_with(b"POST "));
                engine.write_all(format!("{pong}{answer}").as_bytes()).await.unwrap();
                expect(&mut client, &answer).await;
                assert_eq!(*lock(&hooks.noted), [noted()]);
            } else {
                engine.write_all(pong.as_bytes()).await.unwrap();
                expect(&mut client, REFUSED).await;
                client.write_all(PING.as_bytes()).await.unwrap();
                expect(&mut engine, PING).await;
                engine.write_all(PONG.as_bytes()).await.unwrap();
                expect(&mut client, PONG).await;
            }
            drop((client, engine));
            relay.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_while_a_request_is_held_is_opened_anew_and_its_client_never_knows() {
        for by_the_link in [true, false] {
            let mut scene = Scene::new(changed, 0);
            let (far, mut another) = UnixStream::pair().unwrap();
            let (_cut, over) = watch::channel(None);
            lock(&scene.hooks.others).push((far, over));
            scene.client.write_all(PING.as_bytes()).await.unwrap();
            expect(&mut scene.engine, PING).await;
            scene.engine.write_all(PONG.as_bytes()).await.unwrap();
            expect(&mut scene.client, PONG).await;
            scene.client.write_all(CREATE.as_bytes()).await.unwrap();
            scene.is_held().await;
            if by_the_link {
                scene.over.send_replace(Some(gone_link()));
            } else {
                drop(mem::replace(&mut scene.engine, UnixStream::pair().unwrap().0));
            }
            while !lock(&scene.hooks.others).is_empty() {
                tokio::task::yield_now().await;
            }
            scene.hooks.decisions.add_permits(1);
            let mut request = vec![0; CREATE.len()];
            another.read_exact(&mut request).await.unwrap();
            assert!(request.starts_with(b"POST /v1.45/containers/create "), "{by_the_link}");
            let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: 73\r\n\r\n{{\"Id\":\"{ID}\"}}");
            another.write_all(answer.as_bytes()).await.unwrap();
            expect(&mut scene.client, &answer).await;
            assert_eq!(*lock(&scene.hooks.noted), [noted()]);
            // An answer is due: no other engine could give it.
            scene.client.write_all(PING.as_bytes()).await.unwrap();
            let mut ping = vec![0; PING.len()];
            while ping != PING.as_bytes() {
                ping.rotate_left(1);
                another
                    .read_exact(ping.last_mut().map(std::slice::from_mut).unwrap())
                    .await
                    .unwrap();
            }
            drop(another);
            assert_eq!(rest(&mut scene.client).await, "");
            drop(scene.client);
            scene.relay.await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_asks_for_a_container_is_told_when_no_other_connection_can_be_opened() {
        let mut scene = Scene::new(changed, 0);
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        scene.is_held().await;
        scene.over.send_replace(Some(gone_link()));
        let answer = rest(&mut scene.client).await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("the dock is gone"),
            "{answer}"
        );
        assert_eq!(lock(&scene.hooks.noted).len(), 0);
        drop(scene.client);
        scene.relay.await.unwrap();
    }

    fn gone_link() -> crate::transport::TransportError {
        crate::transport::TransportError {
            message: "the link is gone".to_owned(),
            hint: None,
            kind: crate::transport::TransportErrorKind::Unreachable,
        }
    }

    /// Changes the body of the first response when a test says so.
    struct SlowHooks(Mutex<Option<std::sync::mpsc::Receiver<()>>>);

    impl EngineHooks for SlowHooks {
        fn on_request(&self, _: &str, _: &str) -> Treatment {
            let rewrite = lock(&self.0).take().map(|go| Rewrite {
                limit: 1000,
                statuses: |_| true,
                note: None,
                concerns: |_, _| true,
                body: Box::new(move |_, _| {
                    let _ = go.recv();
                    Some(b"new".to_vec())
                }),
            });
            Treatment {
                hold: None,
                answer: rewrite.map_or(AnswerTreatment::Passes, AnswerTreatment::Whole),
            }
        }

        async fn held(&self, _: &HeldRequest) -> Decision {
            Verdict::AsItWas.into()
        }

        async fn reopen(&self) -> Result<(Box<dyn Duplex>, Over), String> {
            Err("nothing is held".to_owned())
        }

        async fn before_body(&self, _: &str) {}
    }

    #[tokio::test]
    async fn a_body_that_waits_for_a_disk_holds_up_no_other_connection() {
        let (mut client, here) = UnixStream::pair().unwrap();
        let (far, mut engine) = UnixStream::pair().unwrap();
        let (_cut, over) = watch::channel(None);
        let (go, waits) = std::sync::mpsc::channel();
        let hooks = SlowHooks(Mutex::new(Some(waits)));
        let relay = tokio::spawn(async move { super::engine(here, Box::new(far), over, &hooks).await });
        client.write_all(PING.as_bytes()).await.unwrap();
        expect(&mut engine, PING).await;
        engine.write_all(PONG.as_bytes()).await.unwrap();
        // All of this is one thread.
        let mut other = Scene::new(changed, 1);
        for _ in 0..100 {
            other.client.write_all(PING.as_bytes()).await.unwrap();
            expect(&mut other.engine, PING).await;
            other.engine.write_all(PONG.as_bytes()).await.unwrap();
            expect(&mut other.client, PONG).await;
        }
        go.send(()).unwrap();
        expect(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").await;
        drop((client, engine));
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn answers_to_earlier_requests_pass_while_a_request_is_held_and_ours_follows() {
        let mut scene = Scene::new(refused, 0);
        scene
            .client
            .write_all(format!("{PING}{PING}{CREATE}{PING}").as_bytes())
            .await
            .unwrap();
        expect(&mut scene.engine, &PING.repeat(2)).await;
        scene.is_held().await;
        scene.engine.write_all(PONG.as_bytes()).await.unwrap();
        expect(&mut scene.client, PONG).await;
        scene.hooks.decisions.add_permits(1);
        expect(&mut scene.engine, PING).await;
        assert_eq!(
            scene.client.try_read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        scene.engine.write_all(PONG.as_bytes()).await.unwrap();
        expect(&mut scene.client, &format!("{PONG}{REFUSED}")).await;
        scene.engine.write_all(PONG.as_bytes()).await.unwrap();
        expect(&mut scene.client, PONG).await;
    }

    #[tokio::test]
    async fn our_answer_needs_nothing_of_the_engine() {
        let mut scene = Scene::new(refused, 2);
        for _ in 0..2 {
            scene.client.write_all(CREATE.as_bytes()).await.unwrap();
            expect(&mut scene.client, REFUSED).await;
        }
        scene.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut scene.engine).await, "");
        drop(scene.engine);
        scene.relay.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_goes_away_while_its_request_is_held_is_forgotten() {
        for pipelined in ["", PING, CREATE] {
            let mut scene = Scene::new(changed, 0);
            scene
                .client
                .write_all(format!("{CREATE}{pipelined}").as_bytes())
                .await
                .unwrap();
            scene.is_held().await;
            drop(scene.client);
            scene.relay.await.unwrap();
            assert_eq!(scene.hooks.decided.load(Ordering::SeqCst), 0);
            assert_eq!(Arc::strong_count(&scene.hooks), 1);
            assert_eq!(rest(&mut scene.engine).await, "");
        }
    }

    #[tokio::test]
    async fn a_client_that_only_sends_no_more_has_its_request_held_to_the_end() {
        let mut scene = Scene::new(|_| Verdict::AsItWas, 0);
        scene
            .client
            .write_all(format!("{CREATE}{PING}").as_bytes())
            .await
            .unwrap();
        scene.client.shutdown().await.unwrap();
        scene.is_held().await;
        scene.hooks.decisions.add_permits(1);
        assert_eq!(rest(&mut scene.engine).await, format!("{CREATE}{PING}"));
        scene.engine.write_all(PONG.repeat(2).as_bytes()).await.unwrap();
        drop(scene.engine);
        assert_eq!(rest(&mut scene.client).await, PONG.repeat(2));
        scene.relay.await.unwrap();
    }

    #[tokio::test]
    async fn an_engine_that_goes_away_while_a_request_is_held_is_said() {
        let mut scene = Scene::new(changed, 0);
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        scene.is_held().await;
        drop(scene.engine);
        let answer = rest(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        // Nobody waits for the decision any more, though the client is still there.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(scene.hooks.over.load(Ordering::SeqCst), 1);
        drop(scene.client);
        scene.relay.await.unwrap();
        assert_eq!(scene.hooks.decided.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_malformed_request_is_refused_and_the_connection_closed() {
        let mut scene = Scene::new(changed, 1);
        let head = "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
        scene.client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut scene.client).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        // It may go on sending for a while: that it can is what lets it read the answer.
        scene.client.write_all(&[0; 1000]).await.unwrap();
        drop(scene.client);
        scene.relay.await.unwrap();
        assert_eq!(rest(&mut scene.engine).await, "");
    }

    #[tokio::test]
    async fn a_raw_connection_after_101_ends_in_halves() {
        let mut scene = Scene::new(changed, 1);
        let attach = "POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        scene.client.write_all(attach.as_bytes()).await.unwrap();
        expect(&mut scene.engine, attach).await;
        let upgraded = "HTTP/1.1 101 UPGRADED\r\n\r\n";
        scene.engine.write_all(upgraded.as_bytes()).await.unwrap();
        expect(&mut scene.client, upgraded).await;
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        expect(&mut scene.engine, CREATE).await;
        scene.engine.write_all(b"$ ").await.unwrap();
        expect(&mut scene.client, "$ ").await;
        scene.client.write_all(b"exit").await.unwrap();
        scene.client.shutdown().await.unwrap();
        assert_eq!(rest(&mut scene.engine).await, "exit");
        scene.engine.write_all(b"the last words").await.unwrap();
        drop(scene.engine);
        assert_eq!(rest(&mut scene.client).await, "the last words");
        scene.relay.await.unwrap();
        assert_eq!(scene.hooks.begun.load(Ordering::SeqCst), 0);
    }

    /// What docker-py's buffer takes along with a head is lost.
    #[tokio::test]
    async fn what_follows_the_head_of_another_protocol_waits_until_the_client_has_taken_the_head() {
        for upgraded in [
            "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
        ] {
            let mut scene = Scene::new(changed, 1);
            let exec = "POST /exec/x/start HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            scene.client.write_all(exec.as_bytes()).await.unwrap();
            expect(&mut scene.engine, exec).await;
            scene
                .engine
                .write_all(format!("{upgraded}output").as_bytes())
                .await
                .unwrap();
            scene.engine.shutdown().await.unwrap();
            scene.client.readable().await.unwrap();
            // All that can be done has been done when this thread is idle.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            let mut taken = [0; 4096];
            let count = scene.client.try_read(&mut taken).unwrap();
            assert_eq!(String::from_utf8_lossy(&taken[..count]), upgraded);
            assert_eq!(rest(&mut scene.client).await, "output");
            drop((scene.client, scene.engine));
            scene.relay.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_engine_that_sends_no_more_may_still_receive() {
        let mut scene = Scene::new(changed, 1);
        scene.client.write_all(PING.as_bytes()).await.unwrap();
        expect(&mut scene.engine, PING).await;
        scene.engine.write_all(PONG.as_bytes()).await.unwrap();
        scene.engine.shutdown().await.unwrap();
        assert_eq!(rest(&mut scene.client).await, PONG);
        let load = "POST /images/load HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
        scene.client.write_all(load.as_bytes()).await.unwrap();
        // What would be held does not pass: its answer would not come.
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        drop(scene.client);
        assert_eq!(rest(&mut scene.engine).await, load);
        scene.relay.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_client_sends_before_its_first_line_is_whole_is_not_lost_in_raw_bytes() {
        let mut scene = Scene::new(changed, 1);
        scene.client.write_all(b"GET /").await.unwrap();
        // An answer that nobody asked for: from here on, no answer is followed.
        scene.engine.write_all(PONG.as_bytes()).await.unwrap();
        expect(&mut scene.client, PONG).await;
        scene.client.write_all(b" HTTP/1.1\r\n\r\n").await.unwrap();
        expect(&mut scene.engine, "GET / HTTP/1.1\r\n\r\n").await;
    }

    /// Writes until the other end of the relay takes no more, and gives how many bytes that were.
    async fn fill(stream: &UnixStream, bytes: &[u8]) -> usize {
        let (mut written, mut refusals) = (0, 0);
        while refusals < 1000 {
            match stream.try_write(bytes) {
                Ok(count) => (written, refusals) = (written + count, 0),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => refusals += 1,
                Err(cause) => panic!("{cause}"),
            }
            tokio::task::yield_now().await;
        }
        written
    }

    #[tokio::test]
    async fn a_large_body_passes_and_nothing_of_it_is_kept() {
        const SIZE: usize = 64 * 1024 * 1024;
        let scene = Scene::new(changed, 1);
        let Scene {
            mut client,
            mut engine,
            relay,
            ..
        } = scene;
        let head = format!("POST /images/load HTTP/1.1\r\nContent-Length: {SIZE}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        expect(&mut engine, &head).await;
        // Nobody reads: what is taken is what sockets and two buffers hold.
        let piece = vec![b'x'; 64 * 1024];
        let taken = fill(&client, &piece).await;
        assert!(taken < 2 * 1024 * 1024, "{taken}");
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let sending = async {
            for _ in 0..(SIZE - taken) / piece.len() {
                client.write_all(&piece).await.unwrap();
            }
            client.write_all(&piece[..(SIZE - taken) % piece.len()]).await.unwrap();
            client.write_all(PING.as_bytes()).await.unwrap();
            let mut received = 0;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match client.read(&mut buffer).await.unwrap() {
                    0 => break received,
                    read => received += read,
                }
            }
        };
        let answering = async {
            let mut count = 0;
            let mut buffer = vec![0; 64 * 1024];
            while count < SIZE + PING.len() {
                count += engine.read(&mut buffer).await.unwrap();
            }
            assert_eq!(count, SIZE + PING.len());
            engine.write_all(answer.as_bytes()).await.unwrap();
            for _ in 0..SIZE / piece.len() {
                engine.write_all(b"10000\r\n").await.unwrap();
                engine.write_all(&piece).await.unwrap();
                engine.write_all(b"\r\n").await.unwrap();
            }
            engine.write_all(format!("0\r\n\r\n{PONG}").as_bytes()).await.unwrap();
            drop(engine);
        };
        let (received, ()) = tokio::join!(sending, answering);
        assert_eq!(received, answer.len() + (SIZE / 65536) * (65536 + 9) + 5 + PONG.len());
        drop(client);
        relay.await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_holds_the_engine_up() {
        let mut scene = Scene::new(changed, 1);
        scene.client.write_all(PING.as_bytes()).await.unwrap();
        expect(&mut scene.engine, PING).await;
        scene
            .engine
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            .await
            .unwrap();
        let taken = fill(&scene.engine, &[0; 65536]).await;
        assert!(taken < 2 * 1024 * 1024, "{taken}");
    }

    #[tokio::test]
    async fn what_a_client_sends_while_it_is_held_is_bounded() {
        let mut scene = Scene::new(changed, 0);
        scene.client.write_all(CREATE.as_bytes()).await.unwrap();
        scene.is_held().await;
        let taken = fill(&scene.client, PING.repeat(1000).as_bytes()).await;
        assert!(taken < 2 * 1024 * 1024, "{taken}");
        assert_eq!(
            scene.engine.try_read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
