//! What the client sends.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;

use hyper::StatusCode;

use super::{Due, EngineAnswer, EngineBytes, Exchanges, OwnAnswer, UNDER_WAY, answer, before, joined};
use crate::http::framing::{Body, Framing, FramingEvent, RequestHead, decoded, edited, for_one_request, with_target};
use crate::http::hooks::{AnswerTreatment, Decision, EngineHooks, HeldRequest, Treatment, Verdict};

/// Asks for the body of a request that is held.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why a request is refused that would be held, but is not plain HTTP/1.1.
const NOT_PLAIN: &str = "a request that creates something must be plain HTTP/1.1 here, as its mounts are read before the engine has \
                         it: say HTTP/1.1 in its first line, end each line of its head with CR LF, say the body's length once, and \
                         keep the head below 64 KiB (curl: --http1.1)";
/// Why a request is refused that would be held, but comes on a connection on which too many wait for their answers.
const TOO_MANY: &str = "too many requests wait for their answers on this connection: use another one";

/// Follows what the client sends.
pub(in crate::http) struct Requests {
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
    answer: AnswerTreatment,
}

/// What is to be done with bytes of the client.
pub(in crate::http) enum RequestEvent<'a> {
    /// To be sent to the engine.
    Pass(Cow<'a, [u8]>),
    /// To be decided about; [`Requests::decide`] goes on.
    Held(Box<Held>),
    /// The connection is to be closed once all answers that are due were given: what else comes is to be dropped.
    Closed,
    /// Whether what comes next is HTTP, the engine's answer decides: nothing is to be read until [`Exchanges::for_engine`] says
    /// that there is something new.
    Undecided,
    /// More bytes are needed.
    More,
}

/// A request to be decided about.
pub(in crate::http) struct Held {
    pub(in crate::http) request: HeldRequest,
    head: Vec<u8>,
    /// The body as it came, if it came in chunks.
    chunks: Option<Vec<u8>>,
    upgrade: bool,
    /// Whether the client sends nothing after it.
    last: bool,
    answer: AnswerTreatment,
}

/// What a head means for its request.
enum Begun {
    Passes,
    IsHeld,
    /// It is answered here, and the connection closed.
    Refused,
    /// HTTP/1.0: it passes with this head, and nothing is followed any more.
    IsOld(Vec<u8>),
    Doubt,
}

impl Requests {
    pub(in crate::http) fn new(exchanges: Arc<Exchanges>) -> Self {
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
    pub(in crate::http) fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        hooks: &impl EngineHooks,
    ) -> (RequestEvent<'a>, &'a [u8]) {
        let (engine, undecided) = {
            let state = self.exchanges.state();
            (state.engine, state.undecided)
        };
        match &self.state {
            RequestState::Closed => return (RequestEvent::Closed, &[]),
            RequestState::Holding(_) if engine != EngineBytes::Answers => return self.close(),
            RequestState::Raw => return self.pass(bytes, &[]),
            _ if engine == EngineBytes::Stream => return self.doubt(bytes),
            RequestState::Undecided if undecided => return (RequestEvent::Undecided, bytes),
            RequestState::Undecided => self.state = RequestState::Passing { upgrade: false },
            RequestState::Passing { .. } | RequestState::Holding(_) => {}
        }
        // What is neither sent on nor kept, and the end of it that was not looked at.
        let (mut from, mut rest) = (bytes, bytes);
        loop {
            if self.framing.is_between() {
                // Engines skip line ends that follow the body of an earlier request.
                rest = without_line_ends(rest);
            }
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
                    Begun::Refused => return self.pass_and_close(before(from, rest)),
                    Begun::IsOld(head) => {
                        self.kept = [before(from, rest), &*head].concat();
                        return self.doubt(after);
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
                FramingEvent::Nonsense if in_head => {
                    self.kept.extend_from_slice(here);
                    return self.doubt_head(before(from, rest), hooks);
                }
                FramingEvent::Nonsense => return self.doubt(from),
                FramingEvent::More if in_head => {
                    self.kept.extend_from_slice(here);
                    if !self.is_plausible(here) {
                        return self.doubt_head(before(from, rest), hooks);
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
    pub(in crate::http) fn end(&mut self, hooks: &impl EngineHooks) -> RequestEvent<'static> {
        match &self.state {
            RequestState::Holding(_) => {
                self.refuse(StatusCode::BAD_REQUEST, "the request's body is incomplete")
                    .0
            }
            RequestState::Closed => RequestEvent::Closed,
            // An engine may find the end of the head where it is not looked for here.
            RequestState::Passing { .. } if self.framing.is_in_head() => self.doubt_head(&[], hooks).0,
            _ => self.doubt(&[]).0,
        }
    }

    /// Carries out what was decided: the bytes for the engine, if there are any.
    pub(in crate::http) fn decide(&mut self, held: Held, decision: Decision) -> Option<Vec<u8>> {
        let Held {
            request,
            head,
            chunks,
            upgrade,
            last,
            answer: treatment,
        } = held;
        let Decision {
            verdict,
            answer: decided,
        } = decision;
        let is_head = request.method == "HEAD";
        let bytes = match verdict {
            Verdict::AsItWas => {
                let mut bytes = edited(&head, None);
                bytes.extend_from_slice(&chunks.unwrap_or(request.body));
                bytes
            }
            Verdict::Target(target) => {
                let mut bytes = edited(&with_target(&head, &target), None);
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
        if state.engine != EngineBytes::Answers {
            // Its answer could not be told from what else the engine sends.
            self.state = RequestState::Closed;
            return None;
        }
        state.holds = false;
        state.undecided = upgrade;
        state.due.push_back(Due::Engine(EngineAnswer {
            is_head,
            upgrade,
            treatment: decided.unwrap_or(treatment),
            is_dropped: false,
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
            return self.doubted(&head, NOT_PLAIN, hooks);
        };
        if self.exchanges.state().due.len() >= UNDER_WAY {
            return self.doubted(&head, TOO_MANY, hooks);
        }
        if parsed.is_old {
            return match self.doubted(&head, NOT_PLAIN, hooks) {
                Begun::Doubt => Begun::IsOld(for_one_request(&head)),
                refused => refused,
            };
        }
        let Treatment { hold, answer } = hooks.on_request(&parsed.method, &parsed.target);
        if self.exchanges.state().engine != EngineBytes::Answers {
            // Its answer could not be told from what else the engine sends: what would be held does not pass.
            if hold.is_some() {
                self.exchanges.shut();
                return Begun::Refused;
            }
            self.framing.begin(parsed.body);
            self.state = RequestState::Passing { upgrade: false };
            return Begun::Passes;
        }
        self.framing.begin(parsed.body);
        let (is_head, upgrade) = (parsed.method == "HEAD", parsed.fields.upgrade);
        let mut state = self.exchanges.state();
        let Some(limit) = hold else {
            state.due.push_back(Due::Engine(EngineAnswer {
                is_head,
                upgrade,
                treatment: answer,
                is_dropped: false,
            }));
            state.undecided |= upgrade;
            self.state = RequestState::Passing { upgrade };
            return Begun::Passes;
        };
        if matches!(parsed.body, Body::Sized(length) if length > limit as u64) {
            drop(state);
            self.exchanges.push_own(too_long(limit, is_head));
            return Begun::Refused;
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
            answer,
        }));
        Begun::IsHeld
    }

    /// What becomes of what is no plain head. An engine may understand it all the same: what would be held must not pass.
    fn doubted(&self, head: &[u8], why: &str, hooks: &impl EngineHooks) -> Begun {
        match is_held_post(head, hooks) {
            true if self.exchanges.state().engine != EngineBytes::Answers => {
                self.exchanges.shut();
                Begun::Refused
            }
            true => {
                self.exchanges
                    .push_own(answer(StatusCode::BAD_REQUEST, why, false, true));
                Begun::Refused
            }
            false => Begun::Doubt,
        }
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
            answer,
            ..
        } = *holding;
        let RequestHead {
            method,
            target,
            fields,
            body,
            is_old: _,
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
            answer,
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

    /// How many bytes it keeps.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let held = match &self.state {
            RequestState::Holding(held) => held.head.len() + held.wire.len(),
            _ => 0,
        };
        held + self.kept.len() + self.let_go.len()
    }

    #[cfg(test)]
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.state, RequestState::Raw)
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
            if state.engine == EngineBytes::Answers {
                state.due.push_back(Due::Raw);
            }
        }
        self.let_go.append(&mut self.kept);
        self.pass(from, &[])
    }

    /// Follows nothing any more from a head on that is kept, or refuses it. These bytes come before it.
    fn doubt_head<'a>(&mut self, earlier: &'a [u8], hooks: &impl EngineHooks) -> (RequestEvent<'a>, &'a [u8]) {
        match self.doubted(&self.kept, NOT_PLAIN, hooks) {
            Begun::Refused => self.pass_and_close(earlier),
            _ => {
                self.kept.splice(..0, earlier.iter().copied());
                self.doubt(&[])
            }
        }
    }

    /// Passes these bytes, and nothing after them.
    fn pass_and_close<'a>(&mut self, bytes: &'a [u8]) -> (RequestEvent<'a>, &'a [u8]) {
        self.kept.clear();
        self.framing = Framing::default();
        self.state = RequestState::Closed;
        match bytes {
            [] => (RequestEvent::Closed, &[]),
            bytes => self.pass(bytes, &[]),
        }
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

/// These bytes without line ends before them.
fn without_line_ends(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    bytes.get(begin.unwrap_or(bytes.len())..).unwrap_or_default()
}

/// Whether the first line of a head, as the most lenient engine reads it, asks for something that would be held. What only
/// shows something changes nothing, and passes.
fn is_held_post(head: &[u8], hooks: &impl EngineHooks) -> bool {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("POST"), Some(target)) => hooks.on_request("POST", target).hold.is_some(),
        _ => false,
    }
}

fn too_long(limit: usize, is_head: bool) -> OwnAnswer {
    let message = format!("the request's body is longer than {limit} bytes");
    answer(StatusCode::PAYLOAD_TOO_LARGE, &message, is_head, true)
}
