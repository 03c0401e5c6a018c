//! The two directions of a connection to the engine, as values: bytes go in, in pieces of any size, and what is to be
//! done with them comes out. The [`relay`](super::relay) reads and writes.
//!
//! [`Requests`] follows what the client sends, [`Responses`] what the engine sends; between them, [`Exchanges`] has the
//! answers that are due, in the order of the requests. An answer of our own waits in that order, too.
//!
//! What is not to be held is passed in the slices in which it came. Only the head of a request is kept until it is
//! whole, as it decides; its first line shows whether it is HTTP at all. In any doubt the connection is raw bytes from
//! there on. If a request is held at that moment, or an answer of our own is due, the connection is closed instead:
//! nobody knows any more where the answer would belong.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard};

use dock_client::mutex::lock;
use hyper::StatusCode;
use tokio::sync::Notify;

use super::framing::{Body, Framing, FramingEvent, RequestHead, ResponseHead, decoded, edited};
use super::hooks::{EngineHooks, HeldRequest, Rewrite, Treatment, Verdict};

/// How many requests may await their answers; docker clients have one.
const UNDER_WAY: usize = 64;
/// Asks for the body of a request that is held.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What both directions of a connection know of each other.
#[derive(Default)]
pub(super) struct Exchanges {
    state: Mutex<State>,
    /// Notified when there may be something to say to the client without the engine.
    pub(super) for_client: Notify,
    /// Notified when requests are not followed any more.
    pub(super) for_engine: Notify,
}

#[derive(Default)]
struct State {
    /// The answers that are due, in the order of the requests.
    due: VecDeque<Due>,
    /// Whether a request is held: its answer is not among those that are due yet.
    holds: bool,
    /// Whether a request to speak another protocol has no answer yet.
    undecided: bool,
    /// Whether what the engine sends is not followed any more, or it sends nothing more.
    raw: bool,
}

/// An answer that is due.
enum Due {
    Engine(EngineAnswer),
    /// Our own, or a request to go on.
    Own(OwnAnswer),
    /// What the client sent from here on is not HTTP.
    Raw,
}

/// What is known of an answer of the engine from its request.
struct EngineAnswer {
    /// It has no body, whatever its head says.
    is_head: bool,
    /// It may agree to speak another protocol.
    upgrade: bool,
    rewrite: Option<Rewrite>,
    /// The request's target, if something is awaited before the response's body.
    delay: Option<String>,
}

/// An answer that the engine does not give.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OwnAnswer {
    pub(super) bytes: Vec<u8>,
    /// Whether the connection is closed after it.
    pub(super) last: bool,
}

impl State {
    fn has_own(&self) -> bool {
        self.due.iter().any(|due| matches!(due, Due::Own(_)))
    }
}

impl Exchanges {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Waits until requests are not followed any more.
    pub(super) async fn raw(&self) {
        while !self.state().raw {
            self.for_engine.notified().await;
        }
    }

    fn push_own(&self, own: OwnAnswer) {
        let mut state = self.state();
        state.holds = false;
        state.due.push_back(Due::Own(own));
        drop(state);
        self.for_client.notify_one();
    }
}

/// An answer as an engine gives it.
fn answer(status: StatusCode, message: &str, is_head: bool, last: bool) -> OwnAnswer {
    let body = serde_json::json!({ "message": message }).to_string();
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len() + 1,
        if last { "Connection: close\r\n" } else { "" },
    );
    if !is_head {
        bytes.push_str(&body);
        bytes.push('\n');
    }
    OwnAnswer {
        bytes: bytes.into_bytes(),
        last,
    }
}

/// The bytes of `from` before `rest`, which is its end.
fn before<'a>(from: &'a [u8], rest: &[u8]) -> &'a [u8] {
    from.get(..from.len().saturating_sub(rest.len())).unwrap_or_default()
}

/// What was kept of earlier pieces, and then these bytes.
fn joined<'a>(mut kept: Vec<u8>, bytes: &'a [u8]) -> Cow<'a, [u8]> {
    if kept.is_empty() {
        return Cow::Borrowed(bytes);
    }
    kept.extend_from_slice(bytes);
    Cow::Owned(kept)
}

/// Follows what the client sends.
pub(super) struct Requests {
    exchanges: Arc<Exchanges>,
    framing: Framing,
    /// The part of a head that has come in earlier pieces.
    kept: Vec<u8>,
    /// What was kept, and is to be passed before what comes.
    let_go: Vec<u8>,
    /// Whether the part of a head has a line that was looked at.
    has_line: bool,
    state: RequestState,
}

enum RequestState {
    /// Requests that pass; `upgrade` if the one under way asks for another protocol.
    Passing {
        upgrade: bool,
    },
    Holding(Box<Holding>),
    /// Another protocol was asked for: the answer decides.
    Undecided,
    Raw,
    /// Nothing is taken any more.
    Closed,
}

struct Holding {
    head: Vec<u8>,
    parsed: RequestHead,
    /// The body as it comes.
    wire: Vec<u8>,
    limit: usize,
    rewrite: Option<Rewrite>,
}

/// What is to be done with bytes of the client.
pub(super) enum RequestEvent<'a> {
    /// To be sent to the engine.
    Pass(Cow<'a, [u8]>),
    /// To be decided about; [`Requests::decide`] goes on.
    Held(Box<Held>),
    /// The connection is to be closed once all answers that are due were given: what else comes is to be dropped.
    Closed,
    /// More bytes are needed.
    More,
}

/// A request to be decided about.
pub(super) struct Held {
    pub(super) request: HeldRequest,
    head: Vec<u8>,
    /// The body as it came, if it came in chunks.
    chunks: Option<Vec<u8>>,
    upgrade: bool,
    /// Whether the client sends nothing after it.
    last: bool,
    rewrite: Option<Rewrite>,
}

/// What a head means for its request.
enum Begun {
    Passes,
    IsHeld,
    TooLong,
    Doubt,
}

impl Requests {
    pub(super) fn new(exchanges: Arc<Exchanges>) -> Self {
        Self {
            exchanges,
            framing: Framing::default(),
            kept: Vec::new(),
            let_go: Vec::new(),
            has_line: false,
            state: RequestState::Passing { upgrade: false },
        }
    }

    /// The next thing to do, and the bytes after it. To be called again until it needs more; also without bytes.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8], hooks: &impl EngineHooks) -> (RequestEvent<'a>, &'a [u8]) {
        let (raw, undecided) = {
            let state = self.exchanges.state();
            (state.raw, state.undecided)
        };
        match &self.state {
            RequestState::Closed => return (RequestEvent::Closed, &[]),
            RequestState::Holding(_) if raw => return self.close(),
            RequestState::Raw => return self.pass(bytes, &[]),
            _ if raw => return self.doubt(bytes),
            // Who goes on before the answer has come does not speak HTTP.
            RequestState::Undecided if undecided && !bytes.is_empty() => return self.doubt(bytes),
            RequestState::Undecided if undecided => return (RequestEvent::More, &[]),
            RequestState::Undecided => self.state = RequestState::Passing { upgrade: false },
            RequestState::Passing { .. } | RequestState::Holding(_) => {}
        }
        // What is neither sent on nor kept, and the end of it that was not looked at.
        let (mut from, mut rest) = (bytes, bytes);
        loop {
            let in_head = self.framing.is_in_head();
            let (event, after) = self.framing.next(rest);
            let here = before(rest, after);
            if let FramingEvent::Head(head) = event {
                self.has_line = false;
                match self.begin(head, hooks) {
                    Begun::Passes => {
                        self.let_go.append(&mut self.kept);
                        rest = after;
                    }
                    Begun::IsHeld => {
                        self.kept.clear();
                        let earlier = before(from, rest);
                        if !earlier.is_empty() {
                            return self.pass(earlier, after);
                        }
                        (from, rest) = (after, after);
                    }
                    Begun::TooLong => {
                        self.kept.clear();
                        self.state = RequestState::Closed;
                        return match before(from, rest) {
                            [] => (RequestEvent::Closed, &[]),
                            earlier => self.pass(earlier, &[]),
                        };
                    }
                    Begun::Doubt => return self.doubt(from),
                }
                continue;
            }
            if let RequestState::Holding(holding) = &mut self.state {
                holding.wire.extend_from_slice(here);
                (from, rest) = (after, after);
                match event {
                    FramingEvent::Nonsense => {
                        return self.refuse(
                            StatusCode::BAD_REQUEST,
                            "the chunks of the request's body are malformed",
                        );
                    }
                    _ if holding.wire.len() > holding.limit => return self.refuse_length(),
                    FramingEvent::End => return (self.whole(), after),
                    FramingEvent::More => return (RequestEvent::More, &[]),
                    _ => continue,
                }
            }
            match event {
                FramingEvent::Nonsense => return self.doubt(from),
                FramingEvent::More if in_head => {
                    self.kept.extend_from_slice(here);
                    if !self.is_plausible(here) {
                        self.kept.truncate(self.kept.len() - here.len());
                        return self.doubt(from);
                    }
                    return self.pass(before(from, rest), &[]);
                }
                FramingEvent::More => return self.pass(from, &[]),
                FramingEvent::End if matches!(self.state, RequestState::Passing { upgrade: true }) => {
                    self.state = RequestState::Undecided;
                    return self.pass(before(from, after), after);
                }
                _ => rest = after,
            }
        }
    }

    /// What is left to do when the client sends no more.
    pub(super) fn end(&mut self) -> RequestEvent<'static> {
        match &self.state {
            RequestState::Holding(_) => {
                self.refuse(StatusCode::BAD_REQUEST, "the request's body is incomplete")
                    .0
            }
            RequestState::Closed => RequestEvent::Closed,
            _ => self.doubt(&[]).0,
        }
    }

    /// Carries out what was decided: the bytes for the engine, if there are any.
    pub(super) fn decide(&mut self, held: Held, verdict: Verdict) -> Option<Vec<u8>> {
        let Held {
            request,
            head,
            chunks,
            upgrade,
            last,
            rewrite,
        } = held;
        let is_head = request.method == "HEAD";
        let bytes = match verdict {
            Verdict::AsItWas => {
                let mut bytes = edited(&head, None);
                bytes.extend_from_slice(&chunks.unwrap_or(request.body));
                bytes
            }
            Verdict::Body(body) => {
                let mut bytes = edited(&head, Some(body.len()));
                bytes.extend_from_slice(&body);
                bytes
            }
            Verdict::Answer { status, message } => {
                self.exchanges.push_own(answer(status, &message, is_head, last));
                self.state = if last {
                    RequestState::Closed
                } else {
                    RequestState::Passing { upgrade: false }
                };
                return None;
            }
        };
        let mut state = self.exchanges.state();
        if state.raw {
            // Its answer could not be told from what else the engine sends.
            self.state = RequestState::Closed;
            return None;
        }
        state.holds = false;
        state.undecided = upgrade;
        state.due.push_back(Due::Engine(EngineAnswer {
            is_head,
            upgrade,
            rewrite,
            delay: None,
        }));
        self.state = if upgrade {
            RequestState::Undecided
        } else {
            RequestState::Passing { upgrade: false }
        };
        Some(bytes)
    }

    /// Notes what is due for a request whose head has come.
    fn begin(&mut self, head: Vec<u8>, hooks: &impl EngineHooks) -> Begun {
        let Some(parsed) = RequestHead::parse(&head) else {
            return Begun::Doubt;
        };
        if self.exchanges.state().due.len() >= UNDER_WAY {
            return Begun::Doubt;
        }
        let Treatment { hold, rewrite, delays } = hooks.on_request(&parsed.method, &parsed.target);
        self.framing.begin(parsed.body);
        let (is_head, upgrade) = (parsed.method == "HEAD", parsed.fields.upgrade);
        let mut state = self.exchanges.state();
        let Some(limit) = hold else {
            let delay = delays.then_some(parsed.target);
            state.due.push_back(Due::Engine(EngineAnswer {
                is_head,
                upgrade,
                rewrite,
                delay,
            }));
            state.undecided |= upgrade;
            self.state = RequestState::Passing { upgrade };
            return Begun::Passes;
        };
        if matches!(parsed.body, Body::Sized(length) if length > limit as u64) {
            drop(state);
            self.exchanges.push_own(too_long(limit, is_head));
            return Begun::TooLong;
        }
        if parsed.fields.expects_continue && !matches!(parsed.body, Body::Sized(0)) {
            state.due.push_back(Due::Own(OwnAnswer {
                bytes: CONTINUE.to_vec(),
                last: false,
            }));
            self.exchanges.for_client.notify_one();
        }
        state.holds = true;
        let wire = Vec::new();
        self.state = RequestState::Holding(Box::new(Holding {
            head,
            parsed,
            wire,
            limit,
            rewrite,
        }));
        Begun::IsHeld
    }

    /// The held request, of which all has come.
    fn whole(&mut self) -> RequestEvent<'static> {
        let RequestState::Holding(holding) = mem::replace(&mut self.state, RequestState::Closed) else {
            return RequestEvent::Closed;
        };
        let Holding {
            head,
            parsed,
            wire,
            rewrite,
            ..
        } = *holding;
        let RequestHead {
            method,
            target,
            fields,
            body,
        } = parsed;
        let (body, chunks) = match body {
            Body::Sized(_) => (wire, None),
            Body::Chunked => (decoded(&wire), Some(wire)),
        };
        RequestEvent::Held(Box::new(Held {
            request: HeldRequest { method, target, body },
            head,
            chunks,
            upgrade: fields.upgrade,
            last: fields.close,
            rewrite,
        }))
    }

    /// Whether what was kept of a head can be one, given that it could before these bytes came.
    fn is_plausible(&mut self, new: &[u8]) -> bool {
        if self.has_line {
            return true;
        }
        if !new.contains(&b'\n') {
            return new.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | 0x80..));
        }
        self.has_line = true;
        RequestHead::may_begin_with(&self.kept)
    }

    /// Passes these bytes, after what was let go.
    fn pass<'a>(&mut self, bytes: &'a [u8], after: &'a [u8]) -> (RequestEvent<'a>, &'a [u8]) {
        match joined(mem::take(&mut self.let_go), bytes) {
            passing if passing.is_empty() => (RequestEvent::More, after),
            passing => (RequestEvent::Pass(passing), after),
        }
    }

    /// Follows nothing any more.
    fn doubt<'a>(&mut self, from: &'a [u8]) -> (RequestEvent<'a>, &'a [u8]) {
        if !matches!(self.state, RequestState::Raw) {
            self.state = RequestState::Raw;
            self.framing = Framing::default();
            let mut state = self.exchanges.state();
            if !state.raw {
                state.due.push_back(Due::Raw);
            }
        }
        self.let_go.append(&mut self.kept);
        self.pass(from, &[])
    }

    fn close(&mut self) -> (RequestEvent<'static>, &'static [u8]) {
        self.state = RequestState::Closed;
        self.framing = Framing::default();
        (RequestEvent::Closed, &[])
    }

    /// Refuses the request that is held.
    fn refuse(&mut self, status: StatusCode, message: &str) -> (RequestEvent<'static>, &'static [u8]) {
        let is_head = matches!(&self.state, RequestState::Holding(holding) if holding.parsed.method == "HEAD");
        self.exchanges.push_own(answer(status, message, is_head, true));
        self.close()
    }

    fn refuse_length(&mut self) -> (RequestEvent<'static>, &'static [u8]) {
        if let RequestState::Holding(holding) = &self.state {
            self.exchanges
                .push_own(too_long(holding.limit, holding.parsed.method == "HEAD"));
        }
        self.close()
    }
}

fn too_long(limit: usize, is_head: bool) -> OwnAnswer {
    let message = format!("the request's body is longer than {limit} bytes");
    answer(StatusCode::PAYLOAD_TOO_LARGE, &message, is_head, true)
}

/// Follows what the engine sends.
pub(super) struct Responses {
    exchanges: Arc<Exchanges>,
    framing: Framing,
    /// The part of a head that has come and was not passed, as the response may have to be changed.
    kept: Vec<u8>,
    /// What was kept, and is to be passed before what comes.
    let_go: Vec<u8>,
    state: ResponseState,
    /// The target of the request whose response comes now, if something is awaited before its body; and once the body has begun.
    delay: Option<String>,
    delayed: Option<String>,
}

enum ResponseState {
    Passing,
    Holding(Box<HeldResponse>),
    Raw,
    /// Nothing is passed any more.
    Closed,
}

struct HeldResponse {
    head: Vec<u8>,
    is_chunked: bool,
    /// The body as it comes.
    wire: Vec<u8>,
    rewrite: Rewrite,
}

/// What is to be done with bytes of the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseEvent<'a> {
    /// To be sent to the client.
    Pass(Cow<'a, [u8]>),
    /// To be sent to the client, whether the engine has sent anything or not.
    Own(OwnAnswer),
    /// The response's body begins, to a request with this target: [`EngineHooks::before_body`] is to be awaited.
    Delay(String),
    /// The connection is to be closed.
    Closed,
    /// More bytes are needed.
    More,
}

/// What is known before a byte of a response is looked at.
enum Front {
    /// The answer of the engine is due; whether its head is kept until it is whole.
    Engine {
        keeps: bool,
    },
    Own(OwnAnswer),
    Raw,
    Nothing,
}

enum Answered {
    Passes,
    IsHeld(HeldResponse),
    Doubt,
}

impl Responses {
    pub(super) fn new(exchanges: Arc<Exchanges>) -> Self {
        Self {
            exchanges,
            framing: Framing::default(),
            kept: Vec::new(),
            let_go: Vec::new(),
            state: ResponseState::Passing,
            delay: None,
            delayed: None,
        }
    }

    /// The next thing to do, and the bytes after it. To be called again until it needs more; also without bytes.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
        if let Some(target) = self.delayed.take() {
            return (ResponseEvent::Delay(target), bytes);
        }
        match self.state {
            ResponseState::Closed => return (ResponseEvent::Closed, &[]),
            ResponseState::Raw => return self.pass(bytes, &[]),
            ResponseState::Passing | ResponseState::Holding(_) => {}
        }
        // What was neither sent on nor kept, and the end of it that was not looked at.
        let (mut from, mut rest) = (bytes, bytes);
        loop {
            if self.framing.is_between() {
                let earlier = before(from, rest);
                match self.front(earlier.is_empty()) {
                    Front::Own(own) => return (ResponseEvent::Own(own), rest),
                    Front::Nothing if !earlier.is_empty() => return self.pass(earlier, rest),
                    Front::Nothing if rest.is_empty() => return (ResponseEvent::More, &[]),
                    // An answer that nobody asked for.
                    Front::Nothing => return self.doubt(from),
                    Front::Raw => {
                        self.state = ResponseState::Raw;
                        return self.pass(from, &[]);
                    }
                    Front::Engine { .. } => {}
                }
            }
            let in_head = self.framing.is_in_head();
            let (event, after) = self.framing.next(rest);
            let here = before(rest, after);
            if let FramingEvent::Head(head) = event {
                match self.answered(head) {
                    Answered::Passes => {
                        self.let_go.append(&mut self.kept);
                        rest = after;
                    }
                    Answered::IsHeld(held) => {
                        self.kept.clear();
                        self.state = ResponseState::Holding(Box::new(held));
                        let earlier = before(from, rest);
                        if !earlier.is_empty() {
                            return self.pass(earlier, after);
                        }
                        (from, rest) = (after, after);
                    }
                    Answered::Doubt => return self.doubt(from),
                }
                continue;
            }
            if let ResponseState::Holding(held) = &mut self.state {
                if matches!(event, FramingEvent::Nonsense) {
                    return self.doubt(from);
                }
                held.wire.extend_from_slice(here);
                (from, rest) = (after, after);
                if held.wire.len() > held.rewrite.limit {
                    self.stop_holding();
                    return self.pass(&[], after);
                }
                match event {
                    FramingEvent::End => return (self.whole(), after),
                    FramingEvent::More => return (ResponseEvent::More, &[]),
                    _ => continue,
                }
            }
            if matches!(event, FramingEvent::Body(part) if !part.is_empty())
                && let Some(target) = self.delay.take()
            {
                let (passed, _) = self.pass(before(from, rest), after);
                // It is passed when what is awaited has come.
                self.let_go.extend_from_slice(here);
                if matches!(passed, ResponseEvent::Pass(_)) {
                    self.delayed = Some(target);
                    return (passed, after);
                }
                return (ResponseEvent::Delay(target), after);
            }
            match event {
                FramingEvent::Nonsense => return self.doubt(from),
                FramingEvent::More if in_head && self.keeps() => {
                    self.kept.extend_from_slice(here);
                    return self.pass(before(from, rest), &[]);
                }
                FramingEvent::More => return self.pass(from, &[]),
                _ => rest = after,
            }
        }
    }

    /// What is left to do when the engine sends no more. To be called again until it needs more.
    pub(super) fn end(&mut self) -> ResponseEvent<'static> {
        if matches!(self.state, ResponseState::Passing | ResponseState::Holding(_)) {
            let is_between = self.framing.is_between();
            {
                let mut state = self.exchanges.state();
                if is_between && state.holds && state.due.is_empty() {
                    state.holds = false;
                    let message = "the engine has closed the connection";
                    let own = answer(StatusCode::SERVICE_UNAVAILABLE, message, false, true);
                    state.raw = true;
                    drop(state);
                    self.state = ResponseState::Closed;
                    self.exchanges.for_engine.notify_one();
                    return ResponseEvent::Own(own);
                }
            }
            return self.doubt(&[]).0;
        }
        match self.state {
            ResponseState::Closed => ResponseEvent::Closed,
            _ => ResponseEvent::More,
        }
    }

    /// What is due now. Takes an answer of our own, if `takes`.
    fn front(&self, takes: bool) -> Front {
        let mut state = self.exchanges.state();
        match state.due.front() {
            Some(Due::Engine(answer)) => Front::Engine {
                keeps: answer.rewrite.is_some(),
            },
            Some(Due::Own(_)) if takes => match state.due.pop_front() {
                Some(Due::Own(own)) => Front::Own(own),
                _ => Front::Nothing,
            },
            Some(Due::Own(_)) | None => Front::Nothing,
            Some(Due::Raw) => Front::Raw,
        }
    }

    fn keeps(&self) -> bool {
        matches!(self.front(false), Front::Engine { keeps: true })
    }

    /// What a head means for its response.
    fn answered(&mut self, head: Vec<u8>) -> Answered {
        let Some(ResponseHead { status, fields }) = ResponseHead::parse(&head) else {
            return Answered::Doubt;
        };
        match status {
            // Another protocol from here on.
            ..100 | 101 => return Answered::Doubt,
            // The final response follows.
            102..200 | 100 => {
                self.framing.begin(Body::Sized(0));
                return Answered::Passes;
            }
            _ => {}
        }
        let mut state = self.exchanges.state();
        let Some(Due::Engine(EngineAnswer {
            is_head,
            upgrade,
            rewrite,
            delay,
        })) = state.due.pop_front()
        else {
            return Answered::Doubt;
        };
        let body = match fields.body() {
            _ if fields.raw => return Answered::Doubt,
            _ if is_head || matches!(status, 204 | 304) => Body::Sized(0),
            Some(Some(body)) => body,
            // Up to the end of the connection: this is how an engine answers a request that turns into a raw stream.
            Some(None) | None => return Answered::Doubt,
        };
        if upgrade {
            // It was refused.
            state.undecided = false;
        }
        drop(state);
        self.delay = delay;
        self.framing.begin(body);
        let fits = |rewrite: &Rewrite| match body {
            Body::Sized(0) => false,
            Body::Sized(length) => length <= rewrite.limit as u64,
            Body::Chunked => true,
        };
        match rewrite.filter(|rewrite| matches!(status, 200 | 201) && !fields.encoded && fits(rewrite)) {
            Some(rewrite) => Answered::IsHeld(HeldResponse {
                head,
                is_chunked: matches!(body, Body::Chunked),
                wire: Vec::new(),
                rewrite,
            }),
            None => Answered::Passes,
        }
    }

    /// The held response, of which all has come.
    fn whole(&mut self) -> ResponseEvent<'static> {
        let ResponseState::Holding(held) = mem::replace(&mut self.state, ResponseState::Passing) else {
            return ResponseEvent::More;
        };
        let HeldResponse {
            mut head,
            is_chunked,
            wire,
            rewrite,
        } = *held;
        let body = match is_chunked {
            true => Cow::Owned(decoded(&wire)),
            false => Cow::Borrowed(&wire),
        };
        if let Some(body) = (rewrite.body)(&body) {
            head = edited(&head, Some(body.len()));
            head.extend_from_slice(&body);
        } else {
            head.extend_from_slice(&wire);
        }
        ResponseEvent::Pass(Cow::Owned(head))
    }

    /// Lets go what was held of a response; the rest of it passes as it comes.
    fn stop_holding(&mut self) {
        if let ResponseState::Holding(held) = mem::replace(&mut self.state, ResponseState::Passing) {
            self.let_go.extend_from_slice(&held.head);
            self.let_go.extend_from_slice(&held.wire);
        }
    }

    /// Passes these bytes, after what was let go.
    fn pass<'a>(&mut self, bytes: &'a [u8], after: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
        match joined(mem::take(&mut self.let_go), bytes) {
            passing if !passing.is_empty() => (ResponseEvent::Pass(passing), after),
            _ if matches!(self.state, ResponseState::Closed) => (ResponseEvent::Closed, &[]),
            _ => (ResponseEvent::More, after),
        }
    }

    /// Follows nothing any more.
    fn doubt<'a>(&mut self, from: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
        self.stop_holding();
        self.let_go.append(&mut self.kept);
        self.framing = Framing::default();
        let mut state = self.exchanges.state();
        let is_broken = state.holds || state.has_own();
        state.raw = true;
        state.undecided = false;
        state.due.clear();
        drop(state);
        self.exchanges.for_engine.notify_one();
        self.state = match is_broken {
            true => ResponseState::Closed,
            false => ResponseState::Raw,
        };
        self.pass(from, &[])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hooks::scripted::{LIMIT, ScriptedHooks};
    use super::*;

    const CREATE: &str =
        "POST /v1.45/containers/create?name=web HTTP/1.1\r\nHost: docker\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}";
    const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
    const PING: &str = "GET /_ping HTTP/1.1\r\n\r\n";
    const PONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    const ATTACH: &str = "POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    const INSPECT: &str = "GET /containers/x/json HTTP/1.1\r\n\r\n";

    /// A connection without sockets.
    struct Conversation {
        requests: Requests,
        responses: Responses,
        hooks: ScriptedHooks,
        /// What the engine receives.
        engine: Vec<u8>,
        /// What the client receives.
        client: Vec<u8>,
        /// Whether each direction was closed by the relay.
        closed: (bool, bool),
        /// The targets of responses whose body was waited with, and how much the client had then.
        delayed: Vec<(String, usize)>,
        /// How many bytes were kept at most.
        most: usize,
    }

    impl Conversation {
        fn new(verdict: fn(&HeldRequest) -> Verdict) -> Self {
            let exchanges = Arc::new(Exchanges::default());
            Self {
                requests: Requests::new(Arc::clone(&exchanges)),
                responses: Responses::new(exchanges),
                hooks: ScriptedHooks::new(verdict),
                engine: Vec::new(),
                client: Vec::new(),
                closed: (false, false),
                delayed: Vec::new(),
                most: 0,
            }
        }

        fn passing() -> Self {
            Self::new(|_| Verdict::AsItWas)
        }

        /// The client sends this, in one piece.
        fn says(&mut self, bytes: &[u8]) -> &mut Self {
            let mut rest = bytes;
            loop {
                let (event, after) = self.requests.next(rest, &self.hooks);
                rest = after;
                match event {
                    RequestEvent::Pass(bytes) => {
                        assert!(!bytes.is_empty());
                        self.engine.extend_from_slice(&bytes);
                    }
                    RequestEvent::Held(held) => {
                        let verdict = (self.hooks.verdict)(&held.request);
                        self.engine
                            .extend(self.requests.decide(*held, verdict).unwrap_or_default());
                    }
                    RequestEvent::Closed => {
                        self.closed.0 = true;
                        break;
                    }
                    RequestEvent::More => break,
                }
            }
            self.note();
            self.hears(&[])
        }

        /// The engine sends this, in one piece.
        fn hears(&mut self, bytes: &[u8]) -> &mut Self {
            let mut rest = bytes;
            while !self.closed.1 {
                let (event, after) = self.responses.next(rest);
                rest = after;
                if self.take(event) {
                    break;
                }
            }
            self.note();
            self
        }

        /// The engine sends nothing more.
        fn ends(&mut self) -> &mut Self {
            while !self.closed.1 {
                let event = self.responses.end();
                if self.take(event) {
                    break;
                }
            }
            self
        }

        fn take(&mut self, event: ResponseEvent<'_>) -> bool {
            match event {
                ResponseEvent::Pass(bytes) => {
                    assert!(!bytes.is_empty());
                    self.client.extend_from_slice(&bytes);
                }
                ResponseEvent::Own(OwnAnswer { bytes, last }) => {
                    self.client.extend_from_slice(&bytes);
                    self.closed.1 |= last;
                }
                ResponseEvent::Delay(target) => self.delayed.push((target, self.client.len())),
                ResponseEvent::Closed => self.closed.1 = true,
                ResponseEvent::More => return true,
            }
            false
        }

        fn note(&mut self) {
            let held = match &self.requests.state {
                RequestState::Holding(held) => held.head.len() + held.wire.len(),
                _ => 0,
            };
            let held_response = match &self.responses.state {
                ResponseState::Holding(held) => held.head.len() + held.wire.len(),
                _ => 0,
            };
            let due = self.requests.exchanges.state().due.len();
            assert!(due <= UNDER_WAY + 2, "{due}");
            let kept = self.requests.kept.len() + self.requests.let_go.len() + self.responses.kept.len();
            self.most = self.most.max(held + held_response + kept + self.responses.let_go.len());
        }

        fn is_raw(&self) -> (bool, bool) {
            (
                matches!(self.requests.state, RequestState::Raw),
                matches!(self.responses.state, ResponseState::Raw),
            )
        }

        /// What the engine and the client have received since the last call.
        fn received(&mut self) -> (String, String) {
            let text = |bytes| String::from_utf8(mem::take(bytes)).unwrap();
            (text(&mut self.engine), text(&mut self.client))
        }
    }

    fn sized(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: {}\r\nZ: z\r\n\r\n{body}",
            body.len()
        )
    }

    fn message(status: &str, text: &str, close: bool) -> String {
        let body = format!("{{\"message\":\"{text}\"}}\n");
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n{body}",
            body.len(),
            if close { "Connection: close\r\n" } else { "" }
        )
    }

    fn no(_: &HeldRequest) -> Verdict {
        Verdict::Answer {
            status: StatusCode::CONFLICT,
            message: "no".to_owned(),
        }
    }

    #[test]
    fn a_request_that_is_held_is_changed_however_the_bytes_are_cut() {
        let changing = |request: &HeldRequest| {
            assert_eq!(request.method, "POST");
            assert_eq!(request.target, "/v1.45/containers/create?name=web");
            assert_eq!(request.body, b"{\"a\":\"b\"}");
            Verdict::Body(b"{\"other\": 1}".to_vec())
        };
        let fields = "Host: docker\r\nA:  b \r\n";
        let first = "POST /v1.45/containers/create?name=web HTTP/1.1\r\n";
        let plain = format!("{first}{fields}Content-Length: 9\r\nZ: z\r\n\r\n{{\"a\":\"b\"}}");
        let chunked = format!(
            "{first}{fields}Transfer-Encoding: chunked\r\nZ: z\r\n\r\n4;x\r\n{{\"a\"\r\n5\r\n:\"b\"}}\r\n0\r\nT: t\r\n\r\n"
        );
        let changed = format!("{first}{fields}Content-Length: 12\r\nZ: z\r\n\r\n{{\"other\": 1}}");
        let other = "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for create in [plain, chunked] {
            let all = format!("{PING}{other}{create}{create}{PING}");
            let expected = format!("{PING}{other}{changed}{changed}{PING}");
            for first in 0..=all.len() {
                for piece in [1, 3, 1000] {
                    let mut conversation = Conversation::new(changing);
                    conversation.says(&all.as_bytes()[..first]);
                    for part in all.as_bytes()[first..].chunks(piece) {
                        conversation.says(part);
                    }
                    assert_eq!(conversation.received(), (expected.clone(), String::new()));
                }
            }
        }
    }

    #[test]
    fn a_request_that_is_let_go_is_the_same_byte_for_byte() {
        let chunked =
            "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n02;x=y\r\n{}\r\n0\r\nT: t\r\n\r\n";
        let empty = "POST /containers/create HTTP/1.1\r\n\r\n";
        let all = format!("{CREATE}{chunked}{empty}{PING}");
        for piece in 1..all.len() {
            let mut conversation = Conversation::passing();
            for part in all.as_bytes().chunks(piece) {
                conversation.says(part);
            }
            assert_eq!(conversation.received().0, all);
        }
    }

    #[test]
    fn what_is_not_held_passes_as_it_comes() {
        let mut conversation = Conversation::passing();
        let head = "POST /images/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        conversation.says(head.as_bytes());
        assert_eq!(conversation.received().0, head);
        for byte in "5\r\nabcde\r\n0\r\n\r\n".chars() {
            conversation.says(byte.to_string().as_bytes());
            assert_eq!(conversation.received().0, byte.to_string());
        }
        let response = format!("HTTP/1.1 100 Continue\r\n\r\n{}", sized("hello"));
        for byte in response.chars() {
            conversation.hears(byte.to_string().as_bytes());
            assert_eq!(conversation.received().1, byte.to_string());
        }
        assert_eq!(conversation.is_raw(), (false, false));
    }

    #[test]
    fn what_is_no_http_passes_as_it_comes() {
        for text in [
            "echo\n",
            "hello world\r\n",
            "PRI * HTTP/2.0\r\n",
            "\x16\x03\x01",
            "\r\n",
            "GET /\n",
        ] {
            let mut conversation = Conversation::passing();
            for byte in text.chars() {
                conversation.says(byte.to_string().as_bytes());
            }
            assert_eq!(conversation.received().0, text, "{text:?}");
            conversation.says(CREATE.as_bytes()).hears(b"what");
            assert_eq!(conversation.received(), (CREATE.to_owned(), "what".to_owned()));
        }
        // The beginning of a request that never becomes one.
        let mut conversation = Conversation::passing();
        conversation.says(PING.as_bytes()).says(b"GE");
        assert_eq!(conversation.received().0, PING);
        let RequestEvent::Pass(rest) = conversation.requests.end() else {
            panic!("nothing is left");
        };
        assert_eq!(&*rest, b"GE");
    }

    #[test]
    fn who_waits_to_be_asked_for_a_body_is_asked() {
        let head = "POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let sent = "POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
        let mut conversation = Conversation::passing();
        conversation.says(PING.as_bytes()).says(head.as_bytes());
        assert_eq!(
            conversation.received(),
            (PING.to_owned(), String::new()),
            "an earlier answer is due"
        );
        conversation.hears(PONG.as_bytes());
        assert_eq!(
            conversation.received().1,
            format!("{PONG}HTTP/1.1 100 Continue\r\n\r\n")
        );
        conversation.says(b"{}").hears(CREATED.as_bytes());
        assert_eq!(conversation.received(), (sent.to_owned(), CREATED.to_owned()));
        // A body that nobody needs to ask for.
        conversation.says(b"POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(
            conversation.received(),
            ("POST /containers/create HTTP/1.1\r\n\r\n".to_owned(), String::new())
        );
        // A request that passes is the engine's to answer.
        let mut conversation = Conversation::passing();
        let other = "POST /x HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        conversation.says(other.as_bytes());
        assert_eq!(conversation.received(), (other.to_owned(), String::new()));
    }

    #[test]
    fn our_own_answers_come_in_the_order_of_the_requests() {
        let mut conversation = Conversation::new(no);
        let own = message("409 Conflict", "no", false);
        conversation.says(format!("{PING}{CREATE}{PING}{CREATE}{CREATE}{PING}").as_bytes());
        assert_eq!(conversation.received(), (PING.repeat(3), String::new()));
        for (number, byte) in PONG.bytes().enumerate() {
            assert_eq!(conversation.client, PONG.as_bytes()[..number]);
            conversation.hears(&[byte]);
        }
        assert_eq!(conversation.received().1, format!("{PONG}{own}"));
        let both = format!("{PONG}{PONG}");
        conversation.hears(both.as_bytes());
        assert_eq!(conversation.received().1, format!("{PONG}{own}{own}{PONG}"));
        conversation.says(CREATE.as_bytes());
        assert_eq!(
            conversation.received(),
            (String::new(), own),
            "at once, since nothing else is due"
        );
        conversation.says(PING.as_bytes()).hears(PONG.as_bytes());
        assert_eq!(conversation.received(), (PING.to_owned(), PONG.to_owned()));
        assert_eq!(conversation.closed, (false, false));
    }

    #[test]
    fn who_sends_nothing_more_has_the_connection_closed_after_our_answer() {
        let mut conversation = Conversation::new(no);
        let last = CREATE.replace("Host", "Connection: keep-alive, Close\r\nHost");
        conversation.says(last.as_bytes()).says(PING.as_bytes());
        assert_eq!(
            conversation.received(),
            (String::new(), message("409 Conflict", "no", true))
        );
        assert_eq!(conversation.closed, (true, true));
    }

    #[test]
    fn a_connection_may_turn_raw_after_a_request_that_was_held() {
        let upgraded = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        for piece in 1..200 {
            let mut conversation = Conversation::new(|_| Verdict::Body(b"{}".to_vec()));
            conversation.says(CREATE.as_bytes());
            conversation.hears(CREATED.as_bytes());
            conversation.received();
            for part in ATTACH.as_bytes().chunks(piece) {
                conversation.says(part);
            }
            assert_eq!(conversation.received().0, ATTACH);
            let answer = format!("{upgraded}HTTP/1.1 is what this container says");
            for part in answer.as_bytes().chunks(piece) {
                conversation.hears(part);
            }
            for part in CREATE.as_bytes().chunks(piece) {
                conversation.says(part);
                assert_eq!(conversation.received().0.as_bytes(), part);
            }
            assert_eq!(conversation.is_raw(), (true, true));
        }
    }

    #[test]
    fn an_engine_that_refuses_another_protocol_is_still_spoken_to_in_http() {
        let mut conversation = Conversation::new(no);
        let with_body = ATTACH.replace("Upgrade: tcp", "Upgrade: tcp\r\nContent-Length: 2") + "{}";
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}";
        for attach in [ATTACH, &with_body] {
            conversation.says(attach.as_bytes()).hears(gone.as_bytes());
            assert_eq!(conversation.received(), (attach.to_owned(), gone.to_owned()));
            conversation.says(CREATE.as_bytes());
            assert_eq!(
                conversation.received(),
                (String::new(), message("409 Conflict", "no", false))
            );
        }
        // Who does not wait for the answer speaks the other protocol.
        conversation.says(format!("{ATTACH}{CREATE}").as_bytes());
        assert_eq!(conversation.received().0, format!("{ATTACH}{CREATE}"));
        conversation.hears(gone.as_bytes()).hears(b"more");
        assert_eq!(conversation.received().1, format!("{gone}more"));
        assert_eq!(conversation.is_raw(), (true, true));
    }

    #[test]
    fn a_doubt_about_a_request_that_is_held_refuses_it_and_closes() {
        let chunked = "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, status, why) in [
            (
                "x\r\n",
                "400 Bad Request",
                "the chunks of the request's body are malformed",
            ),
            (
                "1\r\nab\r\n",
                "400 Bad Request",
                "the chunks of the request's body are malformed",
            ),
            (
                "fffffff\r\n",
                "413 Payload Too Large",
                "the request's body is longer than 1000 bytes",
            ),
        ] {
            let mut conversation = Conversation::passing();
            let request = format!("{PING}{chunked}{body}{}", "x".repeat(2 * LIMIT));
            for part in request.as_bytes().chunks(10) {
                conversation.says(part);
            }
            conversation.says(CREATE.as_bytes());
            assert_eq!(conversation.received(), (PING.to_owned(), String::new()));
            conversation.hears(PONG.as_bytes());
            assert_eq!(
                conversation.received().1,
                format!("{PONG}{}", message(status, why, true))
            );
            assert_eq!(conversation.closed, (true, true));
            assert!(conversation.most < 2 * LIMIT, "{}", conversation.most);
        }
        // A length is known before the body.
        let long = format!(
            "POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            LIMIT + 1
        );
        for piece in [1, 10, 1000] {
            let mut conversation = Conversation::passing();
            for part in long.as_bytes().chunks(piece) {
                conversation.says(part);
            }
            let refused = message(
                "413 Payload Too Large",
                "the request's body is longer than 1000 bytes",
                true,
            );
            assert_eq!(conversation.received(), (String::new(), refused));
            assert_eq!(conversation.closed, (true, true));
        }
        // A client that ends in the middle.
        let mut conversation = Conversation::passing();
        conversation.says(&CREATE.as_bytes()[..CREATE.len() - 1]);
        assert!(matches!(conversation.requests.end(), RequestEvent::Closed));
        conversation.hears(&[]);
        let refused = message("400 Bad Request", "the request's body is incomplete", true);
        assert_eq!(conversation.received(), (String::new(), refused));
    }

    #[test]
    fn a_response_is_changed_however_the_bytes_are_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\nZ: z\r\n\r\n5;x\r\n{\"a\":\r\n6\r\n\"old\"}\r\n0\r\n\r\n";
        let other = "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n00002;x\r\n{}\r\n0\r\n\r\n";
        let early = "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n";
        let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n\"old\"";
        let answers = [
            PONG,
            &format!("{early}{}", sized("{\"a\":\"old\"}")),
            chunked,
            other,
            gone,
            PONG,
        ];
        let changed = sized("{\"a\":\"brand new\"}");
        let expected = format!("{PONG}{early}{changed}{changed}{other}{gone}{PONG}");
        let all = answers.concat();
        for first in 0..=all.len() {
            for piece in [1, 3, 1000] {
                let mut conversation = Conversation::passing();
                conversation.says(format!("{PING}{}{PING}", INSPECT.repeat(4)).as_bytes());
                conversation.hears(&all.as_bytes()[..first]);
                for part in all.as_bytes()[first..].chunks(piece) {
                    conversation.hears(part);
                }
                assert_eq!(conversation.received().1, expected, "{first} {piece}");
                assert_eq!(conversation.is_raw(), (false, false));
            }
        }
    }

    #[test]
    fn a_response_that_can_not_be_changed_passes() {
        let long = "old".repeat(LIMIT);
        let gzip = sized("old").replace("X: y", "Content-Encoding: gzip");
        let vast = sized(&long);
        let chunks = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n3\r\nold\r\n0\r\n\r\n",
            long.len()
        );
        for response in [gzip, vast, chunks] {
            for piece in [1, 7, 999, 100_000] {
                let mut conversation = Conversation::passing();
                conversation.says(INSPECT.as_bytes());
                for part in response.as_bytes().chunks(piece) {
                    conversation.hears(part);
                }
                assert_eq!(conversation.received().1, response);
                assert!(conversation.most < 2 * LIMIT || piece > LIMIT, "{}", conversation.most);
                // The next one is changed again.
                conversation.says(INSPECT.as_bytes()).hears(sized("old").as_bytes());
                assert_eq!(conversation.received().1, sized("brand new"));
            }
        }
        // Without an end of its own.
        let raw = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nold";
        let mut conversation = Conversation::passing();
        conversation.says(INSPECT.as_bytes()).hears(raw.as_bytes());
        assert_eq!(conversation.received().1, raw);
        // A HEAD has a length, and no body.
        let mut conversation = Conversation::passing();
        let head = INSPECT.replace("GET", "HEAD");
        conversation.says(format!("{head}{PING}").as_bytes());
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        conversation.hears(format!("{length}{PONG}").as_bytes());
        assert_eq!(conversation.received().1, format!("{length}{PONG}"));
        // The engine goes away in the middle.
        for cut in 1..sized("old").len() {
            let mut conversation = Conversation::passing();
            conversation
                .says(INSPECT.as_bytes())
                .hears(&sized("old").as_bytes()[..cut]);
            conversation.ends();
            assert_eq!(conversation.received().1, sized("old")[..cut]);
        }
    }

    #[test]
    fn a_client_that_sends_no_more_still_has_its_answers_changed() {
        let mut conversation = Conversation::passing();
        conversation.says(INSPECT.as_bytes());
        conversation.requests.end();
        conversation.hears(sized("old").as_bytes());
        assert_eq!(conversation.received().1, sized("brand new"));
    }

    #[test]
    fn an_engine_that_answers_early_mixes_nothing_up() {
        let mut conversation = Conversation::new(no);
        conversation.says(b"POST /build HTTP/1.1\r\nContent-Length: 1000\r\n\r\n");
        conversation.hears(PONG.as_bytes());
        conversation.received();
        conversation.says(&[b'x'; 1000]).says(CREATE.as_bytes());
        assert_eq!(
            conversation.received(),
            ("x".repeat(1000), message("409 Conflict", "no", false))
        );
    }

    #[test]
    fn an_engine_that_closes_is_said_to_who_waits() {
        let mut conversation = Conversation::passing();
        // As long as something decides, the request is held.
        let (_, _) = conversation
            .requests
            .next(&CREATE.as_bytes()[..CREATE.len() - 1], &conversation.hooks);
        conversation.ends();
        let closed = message("503 Service Unavailable", "the engine has closed the connection", true);
        assert_eq!(conversation.received(), (String::new(), closed));
        conversation.says(&CREATE.as_bytes()[CREATE.len() - 1..]);
        assert_eq!(conversation.received(), (String::new(), String::new()));
        assert_eq!(conversation.closed, (true, true));
        // An earlier answer is due: what would be said here would be taken for it.
        let mut conversation = Conversation::passing();
        conversation.says(PING.as_bytes());
        let (_, _) = conversation
            .requests
            .next(&CREATE.as_bytes()[..CREATE.len() - 1], &conversation.hooks);
        conversation.ends();
        assert_eq!(conversation.received().1, "");
        assert!(conversation.closed.1);
        // Nobody waits: the client's bytes go where they go.
        let mut conversation = Conversation::passing();
        conversation.ends().says(CREATE.as_bytes());
        assert_eq!(conversation.received(), (CREATE.to_owned(), String::new()));
    }

    #[test]
    fn an_engine_that_talks_nonsense_has_the_connection_for_itself() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(100_000));
        for nonsense in [
            PONG,
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\n\r\nup to the end",
            &endless,
        ] {
            for request in [PING, INSPECT] {
                for piece in [1, 100, 100_000] {
                    let mut conversation = Conversation::passing();
                    conversation.says(request.as_bytes());
                    conversation.received();
                    let all = format!("{}{nonsense}", if nonsense == PONG { PONG } else { "" });
                    for part in all.as_bytes().chunks(piece) {
                        conversation.hears(part);
                    }
                    assert_eq!(conversation.received().1, all);
                    assert!(conversation.is_raw().1, "{nonsense:.80}");
                    assert!(conversation.most < 300_000, "{}", conversation.most);
                    // The other direction, too.
                    conversation.says(CREATE.as_bytes());
                    assert_eq!(conversation.received().0, CREATE);
                    // If a request is held, nobody knows where its answer would belong.
                    let mut conversation = Conversation::passing();
                    conversation
                        .says(request.as_bytes())
                        .says(&CREATE.as_bytes()[..CREATE.len() - 1]);
                    conversation.received();
                    for part in all.as_bytes().chunks(piece) {
                        conversation.hears(part);
                    }
                    assert!(conversation.closed.1, "{nonsense:.80}");
                    conversation.says(&CREATE.as_bytes()[CREATE.len() - 1..]);
                    assert_eq!(conversation.received().0, "");
                    assert!(conversation.closed.0);
                }
            }
        }
    }

    #[test]
    fn a_client_that_waits_for_nothing_is_followed_for_a_while() {
        let mut conversation = Conversation::passing();
        let many = PING.repeat(10 * UNDER_WAY);
        conversation.says(many.as_bytes());
        assert_eq!(conversation.received().0, many);
        conversation.hears(PONG.repeat(10 * UNDER_WAY).as_bytes());
        assert_eq!(conversation.received().1, PONG.repeat(10 * UNDER_WAY));
        assert_eq!(conversation.is_raw(), (true, true));
        let endless = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(100_000));
        for piece in [1, 1000] {
            let mut conversation = Conversation::passing();
            for part in endless.as_bytes().chunks(piece) {
                conversation.says(part);
            }
            assert_eq!(conversation.received().0, endless);
            assert!(
                conversation.most <= 2 * super::super::framing::HEAD,
                "{}",
                conversation.most
            );
        }
    }

    /// A request and its response, and whether the request is held.
    fn exchange() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let body = || proptest::collection::vec(any::<u8>(), 0..60);
        let framed = |first: String, body: Vec<u8>, chunk: Option<usize>| {
            let mut message = first.into_bytes();
            match chunk {
                None => {
                    message.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                    message.extend(body);
                }
                Some(size) => {
                    message.extend(b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n");
                    for part in body.chunks(size) {
                        message.extend(format!("{:X};a=b\r\n", part.len()).bytes());
                        message.extend(part);
                        message.extend(b"\r\n");
                    }
                    message.extend(b"0\r\n\r\n");
                }
            }
            message
        };
        let target = prop_oneof![
            Just("/_ping"),
            Just("/containers/x/json"),
            Just("/v1.47/containers/create?name=x"),
            Just("/images/load"),
        ];
        let method = prop_oneof![Just("GET"), Just("POST"), Just("HEAD"), Just("DELETE")];
        let status = prop_oneof![Just(200), Just(201), Just(204), Just(304), Just(404), Just(500)];
        let chunk = || proptest::option::of(1_usize..20);
        (method, target, body(), chunk(), status, body(), chunk(), any::<bool>()).prop_map(
            move |(method, target, body, chunk, status, answer, answer_chunk, hints)| {
                let request = framed(format!("{method} {target} HTTP/1.1\r\nHost: docker\r\n"), body, chunk);
                let first = format!("HTTP/1.1 {status} Text\r\nServer: x\r\n");
                let mut response = match hints {
                    true => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
                    false => Vec::new(),
                };
                response.extend(match method == "HEAD" || matches!(status, 204 | 304) {
                    true => format!("{first}\r\n").into_bytes(),
                    false => framed(first, answer, answer_chunk),
                });
                (request, response)
            },
        )
    }

    proptest! {
        #[test]
        fn valid_conversations_arrive_as_they_were_sent(
            exchanges in proptest::collection::vec(exchange(), 1..8),
            cuts in proptest::collection::vec(1_usize..90, 1..50),
            pipelined in any::<bool>(),
        ) {
            let mut conversation = Conversation::passing();
            let mut cuts = cuts.into_iter().cycle();
            let mut cut = |mut bytes: &[u8], take: &mut dyn FnMut(&[u8])| {
                while let Some(size) = cuts.next().filter(|_| !bytes.is_empty()) {
                    let (piece, rest) = bytes.split_at(size.min(bytes.len()));
                    take(piece);
                    bytes = rest;
                }
            };
            let requests: Vec<u8> = exchanges.iter().flat_map(|(request, _)| request.clone()).collect();
            // What has "old" in it by chance would be changed.
            let responses: Vec<u8> = exchanges.iter().flat_map(|(_, response)| response.clone()).collect();
            prop_assume!(!responses.windows(3).any(|part| part == b"old"));
            if pipelined {
                cut(&requests, &mut |piece| _ = conversation.says(piece));
                cut(&responses, &mut |piece| _ = conversation.hears(piece));
            } else {
                for (request, response) in &exchanges {
                    cut(request, &mut |piece| _ = conversation.says(piece));
                    cut(response, &mut |piece| _ = conversation.hears(piece));
                }
            }
            prop_assert_eq!(conversation.is_raw(), (false, false));
            prop_assert_eq!(conversation.closed, (false, false));
            prop_assert!(conversation.engine == requests);
            prop_assert!(conversation.client == responses);
        }

        #[test]
        fn whatever_is_sent_nothing_breaks_and_nothing_is_made_up(
            pieces in proptest::collection::vec((any::<bool>(), fragment()), 0..40),
        ) {
            let mut conversation = Conversation::passing();
            let mut sent: (Vec<u8>, Vec<u8>) = Default::default();
            for (by_client, piece) in pieces {
                if by_client {
                    sent.0.extend(&piece);
                    conversation.says(&piece);
                } else {
                    sent.1.extend(&piece);
                    conversation.hears(&piece);
                }
                prop_assert!(sent.0.starts_with(&conversation.engine));
            }
            conversation.ends();
            prop_assert!(conversation.most <= 4 * LIMIT, "{}", conversation.most);
        }
    }

    /// What may come, in any order.
    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        let known = [
            CREATE,
            CREATED,
            PING,
            PONG,
            ATTACH,
            INSPECT,
            "HTTP/1.1 101 UPGRADED\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "5\r\nhello\r\n",
            "0\r\n\r\n",
            "\r\n",
        ];
        let known = proptest::sample::select(known.map(|text| text.as_bytes().to_vec()).to_vec());
        let cut = (known.clone(), 0_usize..100).prop_map(|(text, at)| text[at.min(text.len())..].to_vec());
        prop_oneof![4 => known, 1 => cut, 1 => proptest::collection::vec(any::<u8>(), 0..20)]
    }
}
