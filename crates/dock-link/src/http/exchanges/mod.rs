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

mod requests;
mod responses;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use dock_client::mutex::lock;
use dock_client::text::visible;
use hyper::StatusCode;
use tokio::sync::Notify;

use super::hooks::AnswerTreatment;
pub(super) use requests::{RequestEvent, Requests};
pub(super) use responses::{ResponseEvent, Responses};

/// A request of our own, whose answer is dropped. Engines know it from 19.03 on.
pub(super) const KEEP_ALIVE: &[u8] = b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";

/// How many requests may await their answers; docker clients have one.
const UNDER_WAY: usize = 64;

/// What both directions of a connection know of each other.
#[derive(Default)]
pub(in crate::http) struct Exchanges {
    state: Mutex<State>,
    /// Notified when there may be something to say to the client without the engine.
    pub(in crate::http) for_client: Notify,
    /// Notified when requests are not followed any more.
    pub(in crate::http) for_engine: Notify,
}

#[derive(Default)]
struct State {
    /// The answers that are due, in the order of the requests.
    due: VecDeque<Due>,
    /// Whether a request is held: its answer is not among those that are due yet.
    holds: bool,
    /// Whether a request to speak another protocol has no answer yet.
    undecided: bool,
    /// What the engine sends.
    engine: EngineBytes,
    /// Whether the connection is to be closed, though what the engine sends is not followed any more.
    shut: bool,
}

/// What an engine sends on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EngineBytes {
    /// Answers, which are followed.
    #[default]
    Answers,
    /// A stream that both sides have agreed on, to the end: what the client sends belongs to it.
    Stream,
    /// Something that is not understood, or nothing more. What the client sends may be requests.
    Unknown,
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
    treatment: AnswerTreatment,
    /// Whether it answers [`KEEP_ALIVE`].
    is_dropped: bool,
}

/// An answer that the engine does not give.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct OwnAnswer {
    pub(in crate::http) bytes: Vec<u8>,
    /// Whether the connection is closed after it.
    pub(in crate::http) last: bool,
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
    pub(in crate::http) async fn raw(&self) {
        while self.state().engine == EngineBytes::Answers {
            self.for_engine.notified().await;
        }
    }

    /// What is to be sent to an engine that waits for a request that is held: it closes a connection on which none comes.
    /// `None` where an answer is due anyway.
    pub(in crate::http) fn keep_alive(&self) -> Option<&'static [u8]> {
        let mut state = self.state();
        if state.engine != EngineBytes::Answers || !state.holds || !state.due.is_empty() {
            return None;
        }
        state.due.push_back(Due::Engine(EngineAnswer {
            is_head: true,
            upgrade: false,
            treatment: AnswerTreatment::Passes,
            is_dropped: true,
        }));
        Some(KEEP_ALIVE)
    }

    /// Whether all that is under way is a request that is held: the engine knows nothing of it.
    pub(in crate::http) fn can_begin_anew(&self) -> bool {
        let state = self.state();
        state.holds && state.engine == EngineBytes::Answers && state.due.is_empty()
    }

    /// Has the client told that the dock's engine is not reached any more, if all that is under way is a request that is held.
    pub(in crate::http) fn refuse(&self, why: &str) -> bool {
        if !self.can_begin_anew() {
            return false;
        }
        self.push_own(answer(StatusCode::SERVICE_UNAVAILABLE, why, false, true));
        // Nobody waits for a decision any more.
        self.state().engine = EngineBytes::Unknown;
        self.for_engine.notify_one();
        true
    }

    /// Has the connection closed: nobody could tell any more to what an answer of ours belongs.
    fn shut(&self) {
        self.state().shut = true;
        self.for_client.notify_one();
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
    // It names what a client or a dock has said, and is shown by whatever program asked.
    let body = serde_json::json!({ "message": visible(message) }).to_string();
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

#[cfg(test)]
mod tests;
