//! What the engine sends.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use super::{Due, EngineAnswer, EngineBytes, Exchanges, OwnAnswer, answer, before, joined};
use crate::disk;
use crate::http::framing::{Body, Framing, FramingEvent, ResponseHead, decoded, edited};
use crate::http::hooks::{AnswerTreatment, BodyChange, ChunkRewrite, Rewrite};

/// How long the change of a response may take.
const CHANGE: Duration = Duration::from_secs(10);

/// Follows what the engine sends.
pub(in crate::http) struct Responses {
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
    /// A response of which each chunk is held until it is whole.
    Chunks(HeldChunk),
    Raw,
    /// Nothing is passed any more.
    Closed,
}

struct HeldResponse {
    head: Vec<u8>,
    status: u16,
    is_chunked: bool,
    /// The body as it comes.
    wire: Vec<u8>,
    rewrite: Rewrite,
}

/// The part of a chunk that has come.
struct HeldChunk {
    /// As it comes, with its length.
    wire: Vec<u8>,
    /// What it carries.
    data: Vec<u8>,
    /// Whether it is too long, and passes.
    passes: bool,
    rewrite: ChunkRewrite,
}

impl HeldChunk {
    const fn new(rewrite: ChunkRewrite) -> Self {
        Self {
            wire: Vec::new(),
            data: Vec::new(),
            passes: false,
            rewrite,
        }
    }

    /// Lets go what has come, the whole chunk or the part of one that is too long.
    fn take(&mut self, is_whole: bool) -> Vec<u8> {
        let (wire, data) = (mem::take(&mut self.wire), mem::take(&mut self.data));
        let passes = mem::replace(&mut self.passes, !is_whole);
        if passes || !is_whole {
            return wire;
        }
        match (self.rewrite.chunk)(&data).filter(|changed| !changed.is_empty()) {
            Some(changed) => [format!("{:x}\r\n", changed.len()).as_bytes(), &*changed, b"\r\n"].concat(),
            None => wire,
        }
    }
}

/// What is to be done with bytes of the engine.
pub(in crate::http) enum ResponseEvent<'a> {
    /// To be sent to the client.
    Pass(Cow<'a, [u8]>),
    /// A head after which both sides speak another protocol; to be sent to the client. What follows it is to be sent once
    /// the client has taken it.
    Upgraded(Cow<'a, [u8]>),
    /// To be sent to the client, whether the engine has sent anything or not.
    Own(OwnAnswer),
    /// A whole response, whose body may have to be changed.
    Change(Box<WholeResponse>),
    /// The body of a response begins, to a request with this target: `EngineHooks::before_body` is to be awaited.
    Delay(String),
    /// The connection is to be closed.
    Closed,
    /// More bytes are needed.
    More,
}

/// A response of which all has come.
pub(in crate::http) struct WholeResponse {
    head: Vec<u8>,
    /// The body as it came.
    wire: Arc<Vec<u8>>,
    is_chunked: bool,
    status: u16,
    change: BodyChange,
}

impl WholeResponse {
    /// The bytes for the client, as they are to be.
    pub(in crate::http) async fn changed(self) -> Vec<u8> {
        let Self {
            head,
            wire,
            is_chunked,
            status,
            change,
        } = self;
        let own = Arc::clone(&wire);
        let changing = disk::within(CHANGE, move || change(status, &body_of(&own, is_chunked)));
        finished(head, &wire, changing.await.flatten())
    }

    #[cfg(test)]
    pub(super) fn changed_here(self) -> Vec<u8> {
        let body = (self.change)(self.status, &body_of(&self.wire, self.is_chunked));
        finished(self.head, &self.wire, body)
    }
}

fn body_of(wire: &[u8], is_chunked: bool) -> Cow<'_, [u8]> {
    match is_chunked {
        true => Cow::Owned(decoded(wire)),
        false => Cow::Borrowed(wire),
    }
}

/// The head and the body, which may be another one than came.
fn finished(head: Vec<u8>, wire: &[u8], body: Option<Vec<u8>>) -> Vec<u8> {
    let (mut head, body) = match &body {
        Some(body) => (edited(&head, Some(body.len())), &**body),
        None => (head, wire),
    };
    head.extend_from_slice(body);
    head
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
    IsHeldByChunk(ChunkRewrite),
    /// Nobody asked for it but we.
    IsDropped,
    /// It is not followed any more.
    Doubt(EngineBytes),
}

impl Responses {
    pub(in crate::http) fn new(exchanges: Arc<Exchanges>) -> Self {
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
    pub(in crate::http) fn next<'a>(&mut self, bytes: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
        if let Some(target) = self.delayed.take() {
            return (ResponseEvent::Delay(target), bytes);
        }
        match self.state {
            ResponseState::Closed => return (ResponseEvent::Closed, &[]),
            ResponseState::Raw if self.exchanges.state().shut => return (ResponseEvent::Closed, &[]),
            ResponseState::Raw => return self.pass(bytes, &[]),
            ResponseState::Passing | ResponseState::Holding(_) | ResponseState::Chunks(_) => {}
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
                    Front::Nothing => return self.doubt(EngineBytes::Unknown, from),
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
                    held @ (Answered::IsHeld(_) | Answered::IsDropped) => {
                        self.kept.clear();
                        if let Answered::IsHeld(held) = held {
                            self.state = ResponseState::Holding(Box::new(held));
                        }
                        let earlier = before(from, rest);
                        if !earlier.is_empty() {
                            return self.pass(earlier, after);
                        }
                        (from, rest) = (after, after);
                    }
                    Answered::IsHeldByChunk(rewrite) => {
                        self.let_go.append(&mut self.kept);
                        self.state = ResponseState::Chunks(HeldChunk::new(rewrite));
                        return self.pass(before(from, after), after);
                    }
                    Answered::Doubt(EngineBytes::Stream) => {
                        let (event, _) = self.doubt(EngineBytes::Stream, before(from, after));
                        return match event {
                            ResponseEvent::Pass(head) => (ResponseEvent::Upgraded(head), after),
                            event => (event, after),
                        };
                    }
                    Answered::Doubt(sends) => return self.doubt(sends, from),
                }
                continue;
            }
            if let ResponseState::Chunks(chunk) = &mut self.state {
                if matches!(event, FramingEvent::Nonsense) {
                    return self.doubt(EngineBytes::Unknown, from);
                }
                if let FramingEvent::Body(part) = event {
                    chunk.data.extend_from_slice(part);
                }
                chunk.wire.extend_from_slice(here);
                (from, rest) = (after, after);
                let is_end = matches!(event, FramingEvent::End);
                let is_whole = is_end || self.framing.is_before_chunk();
                if is_whole || chunk.passes || chunk.wire.len() > chunk.rewrite.limit {
                    self.let_go.append(&mut chunk.take(is_whole));
                }
                if is_end {
                    self.state = ResponseState::Passing;
                }
                match event {
                    _ if !self.let_go.is_empty() => return self.pass(&[], after),
                    FramingEvent::More => return (ResponseEvent::More, &[]),
                    _ => continue,
                }
            }
            if let ResponseState::Holding(held) = &mut self.state {
                if matches!(event, FramingEvent::Nonsense) {
                    return self.doubt(EngineBytes::Unknown, from);
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
                FramingEvent::Nonsense => return self.doubt(EngineBytes::Unknown, from),
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
    pub(in crate::http) fn end(&mut self) -> ResponseEvent<'static> {
        if matches!(
            self.state,
            ResponseState::Passing | ResponseState::Holding(_) | ResponseState::Chunks(_)
        ) {
            let is_between = self.framing.is_between();
            {
                let mut state = self.exchanges.state();
                if is_between && state.holds && state.due.is_empty() {
                    state.holds = false;
                    let message = "the engine has closed the connection";
                    let own = answer(StatusCode::SERVICE_UNAVAILABLE, message, false, true);
                    state.engine = EngineBytes::Unknown;
                    drop(state);
                    self.state = ResponseState::Closed;
                    self.exchanges.for_engine.notify_one();
                    return ResponseEvent::Own(own);
                }
            }
            return self.doubt(EngineBytes::Unknown, &[]).0;
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
                keeps: answer.is_dropped || matches!(answer.treatment, AnswerTreatment::Whole(_)),
            },
            Some(Due::Own(_)) if takes => match state.due.pop_front() {
                Some(Due::Own(own)) => Front::Own(own),
                _ => Front::Nothing,
            },
            Some(Due::Own(_)) | None => Front::Nothing,
            Some(Due::Raw) => Front::Raw,
        }
    }

    /// Whether the request whose answer is due has asked for another protocol.
    fn may_upgrade(&self) -> bool {
        matches!(self.exchanges.state().due.front(), Some(Due::Engine(answer)) if answer.upgrade)
    }

    fn keeps(&self) -> bool {
        matches!(self.front(false), Front::Engine { keeps: true })
    }

    /// What a head means for its response.
    fn answered(&mut self, head: Vec<u8>) -> Answered {
        let Some(ResponseHead { status, fields }) = ResponseHead::parse(&head) else {
            return Answered::Doubt(EngineBytes::Unknown);
        };
        match status {
            // Another protocol from here on.
            101 if self.may_upgrade() => return Answered::Doubt(EngineBytes::Stream),
            ..100 | 101 => return Answered::Doubt(EngineBytes::Unknown),
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
            treatment,
            is_dropped,
        })) = state.due.pop_front()
        else {
            return Answered::Doubt(EngineBytes::Unknown);
        };
        let body = match fields.body() {
            _ if is_head || matches!(status, 204 | 304) => Body::Sized(0),
            Some(Some(body)) => body,
            // Up to the end of the connection: this is how an engine answers a request that turns into a raw stream.
            Some(None) if fields.raw || upgrade => return Answered::Doubt(EngineBytes::Stream),
            Some(None) | None => return Answered::Doubt(EngineBytes::Unknown),
        };
        if upgrade {
            // It was refused.
            state.undecided = false;
            self.exchanges.for_engine.notify_one();
        }
        drop(state);
        self.framing.begin(body);
        if is_dropped {
            return Answered::IsDropped;
        }
        let is_chunked = matches!(body, Body::Chunked);
        let fits = |rewrite: &Rewrite| match body {
            Body::Sized(0) => false,
            Body::Sized(length) => length <= rewrite.limit as u64,
            Body::Chunked => true,
        };
        match treatment {
            AnswerTreatment::Whole(rewrite) if (rewrite.statuses)(status) && !fields.encoded && fits(&rewrite) => {
                Answered::IsHeld(HeldResponse {
                    head,
                    status,
                    is_chunked,
                    wire: Vec::new(),
                    rewrite,
                })
            }
            AnswerTreatment::Chunks(rewrite) if is_chunked && !fields.encoded => Answered::IsHeldByChunk(rewrite),
            AnswerTreatment::Delayed(target) => {
                self.delay = Some(target);
                Answered::Passes
            }
            AnswerTreatment::Passes | AnswerTreatment::Whole(_) | AnswerTreatment::Chunks(_) => Answered::Passes,
        }
    }

    /// The held response, of which all has come.
    fn whole(&mut self) -> ResponseEvent<'static> {
        let ResponseState::Holding(held) = mem::replace(&mut self.state, ResponseState::Passing) else {
            return ResponseEvent::More;
        };
        let HeldResponse {
            head,
            status,
            is_chunked,
            wire,
            rewrite,
        } = *held;
        let is_concerned = {
            let body = body_of(&wire, is_chunked);
            if let Some(note) = rewrite.note {
                note(status, &body);
            }
            (rewrite.concerns)(status, &body)
        };
        if !is_concerned {
            return ResponseEvent::Pass(Cow::Owned(finished(head, &wire, None)));
        }
        ResponseEvent::Change(Box::new(WholeResponse {
            head,
            wire: Arc::new(wire),
            is_chunked,
            status,
            change: rewrite.body,
        }))
    }

    /// Lets go what was held of a response; the rest of it passes as it comes.
    fn stop_holding(&mut self) {
        match mem::replace(&mut self.state, ResponseState::Passing) {
            ResponseState::Holding(held) => {
                self.let_go.extend_from_slice(&held.head);
                self.let_go.extend_from_slice(&held.wire);
            }
            ResponseState::Chunks(chunk) => self.let_go.extend_from_slice(&chunk.wire),
            ResponseState::Passing | ResponseState::Raw | ResponseState::Closed => {}
        }
    }

    /// How many bytes it keeps.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let held = match &self.state {
            ResponseState::Holding(held) => held.head.len() + held.wire.len(),
            ResponseState::Chunks(chunk) => chunk.wire.len() + chunk.data.len(),
            _ => 0,
        };
        held + self.kept.len() + self.let_go.len()
    }

    #[cfg(test)]
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.state, ResponseState::Raw)
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
    fn doubt<'a>(&mut self, sends: EngineBytes, from: &'a [u8]) -> (ResponseEvent<'a>, &'a [u8]) {
        self.stop_holding();
        self.let_go.append(&mut self.kept);
        self.framing = Framing::default();
        let mut state = self.exchanges.state();
        let is_broken = state.holds || state.has_own();
        state.engine = sends;
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
