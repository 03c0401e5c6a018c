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
    Passing { upgrade: bool },
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
                        return self.refuse(StatusCode::BAD_REQUEST, "the chunks of the request's body are malformed");
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
                self.refuse(StatusCode::BAD_REQUEST, "the request's body is incomplete").0
            }
            RequestState::Closed => RequestEvent::Closed,
            _ => self.doubt(&[]).0,
        }
    }

    /// Carries out what was decided: the bytes for the engine, if there are any.
    pub(super) fn decide(&mut self, held: Held, verdict: Verdict) -> Option<Vec<u8>> {
        let Held { request, head, chunks, upgrade, last, rewrite } = held;
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
                self.state = if last { RequestState::Closed } else { RequestState::Passing { upgrade: false } };
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
        state.due.push_back(Due::Engine(EngineAnswer { is_head, upgrade, rewrite }));
        self.state = if upgrade { RequestState::Undecided } else { RequestState::Passing { upgrade: false } };
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
        let Treatment { hold, rewrite } = hooks.on_request(&parsed.method, &parsed.target);
        self.framing.begin(parsed.body);
        let (is_head, upgrade) = (parsed.method == "HEAD", parsed.fields.upgrade);
        let mut state = self.exchanges.state();
        let Some(limit) = hold else {
            state.due.push_back(Due::Engine(EngineAnswer { is_head, upgrade, rewrite }));
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
        self.state = RequestState::Holding(Box::new(Holding { head, parsed, wire, limit, rewrite }));
        Begun::IsHeld
    }

    /// The held request, of which all has come.
    fn whole(&mut self) -> RequestEvent<'static> {
        let RequestState::Holding(holding) = mem::replace(&mut self.state, RequestState::Closed) else {
            return RequestEvent::Closed;
        };
        let Holding { head, parsed, wire, rewrite, .. } = *holding;
        let RequestHead { method, target, fields, body } = parsed;
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
    /// The connection is to be closed.
    Closed,
    /// More bytes are needed.
    More,
}

/// What is known before a byte of a response is looked at.
enum Front {
    /// The answer of the engine is due; whether its head is kept until it is whole.
    Engine { keeps: bool },
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
        }
    }

    /// The next thing to do, and the bytes after it. To be called again until it needs more; also without bytes.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
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
        let Some(Due::Engine(EngineAnswer { is_head, upgrade, rewrite })) = state.due.pop_front() else {
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
        let HeldResponse { mut head, is_chunked, wire, rewrite } = *held;
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
