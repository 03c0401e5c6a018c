//! A whole conversation of a docker client and an engine without sockets, of which nothing is changed: for who looks at what
//! passes, cut anywhere.

use std::sync::{Arc, Mutex};

use dock_client::mutex::lock;

use super::exchanges::{Exchanges, OwnAnswer, RequestEvent, Requests, ResponseEvent, Responses};
use super::hooks::{AnswerTreatment, ChunkRewrite, Decision, EngineHooks, HeldRequest, Rewrite, Treatment, Verdict};
use crate::link::Over;
use crate::transport::Duplex;

/// The longest body that is held, in bytes.
const LIMIT: usize = 1 << 20;

/// What has passed in a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What the engine has received.
    pub engine: Vec<u8>,
    /// What the client has received.
    pub client: Vec<u8>,
    /// The bodies of the answers to requests that were held.
    pub noted: Vec<Vec<u8>>,
}

/// Holds creations and lets them go as they were.
#[derive(Default)]
struct LetGo(Arc<Mutex<Vec<Vec<u8>>>>);

impl EngineHooks for LetGo {
    fn on_request(&self, method: &str, target: &str) -> Treatment {
        let is_creation = method == "POST" && target.ends_with("/create");
        let answer = match target {
            "/events" => AnswerTreatment::Chunks(ChunkRewrite {
                limit: LIMIT,
                chunk: |_| None,
            }),
            "/wait" => AnswerTreatment::Delayed(target.to_owned()),
            _ => AnswerTreatment::Passes,
        };
        Treatment {
            hold: is_creation.then_some(LIMIT),
            answer,
        }
    }

    async fn held(&self, _: &HeldRequest) -> Decision {
        self.decision()
    }

    async fn reopen(&self) -> Result<(Box<dyn Duplex>, Over), String> {
        Err("there is no other one".to_owned())
    }

    async fn before_body(&self, _: &str) {}
}

impl LetGo {
    fn decision(&self) -> Decision {
        let noted = Arc::clone(&self.0);
        Decision {
            verdict: Verdict::AsItWas,
            answer: Some(AnswerTreatment::Whole(Rewrite {
                limit: LIMIT,
                statuses: |_| true,
                note: Some(Box::new(move |_, body| lock(&noted).push(body.to_vec()))),
                concerns: |_, _| false,
                body: Box::new(|_, _| None),
            })),
        }
    }
}

/// What passes when a client has sent this, in pieces of this many bytes, and then the engine.
pub fn pass(piece: usize, client: &[u8], engine: &[u8]) -> Passed {
    let exchanges = Arc::<Exchanges>::default();
    let mut requests = Requests::new(Arc::clone(&exchanges));
    let mut responses = Responses::new(exchanges);
    let (hooks, mut passed) = (LetGo::default(), Passed::default());
    'requests: for part in client.chunks(piece.max(1)) {
        let mut rest = part;
        loop {
            let (event, after) = requests.next(rest, &hooks);
            rest = after;
            match event {
                RequestEvent::Pass(bytes) => passed.engine.extend_from_slice(&bytes),
                RequestEvent::Held(held) => {
                    let bytes = requests.decide(*held, hooks.decision());
                    passed.engine.extend(bytes.unwrap_or_default());
                }
                // The engine has not answered yet.
                RequestEvent::Closed | RequestEvent::Undecided => break 'requests,
                RequestEvent::More => break,
            }
        }
    }
    // Without any bytes, too: an answer of our own may be due.
    'responses: for part in engine.chunks(piece.max(1)).chain([&[][..]]) {
        let mut rest = part;
        loop {
            let (event, after) = responses.next(rest);
            rest = after;
            match event {
                ResponseEvent::Pass(bytes) | ResponseEvent::Upgraded(bytes) => passed.client.extend_from_slice(&bytes),
                ResponseEvent::Own(OwnAnswer { bytes, last }) => {
                    passed.client.extend_from_slice(&bytes);
                    if last {
                        break 'responses;
                    }
                }
                ResponseEvent::Change(_) | ResponseEvent::Delay(_) => {}
                ResponseEvent::Closed => break 'responses,
                ResponseEvent::More => break,
            }
        }
    }
    passed.noted = std::mem::take(&mut *lock(&hooks.0));
    passed
}
