//! What the [`relay`](super::relay) asks about the requests that pass, and what it may be told.

use hyper::StatusCode;

use crate::link::Over;
use crate::transport::Duplex;

/// Decides about the requests of one connection.
pub(crate) trait EngineHooks: Send + Sync {
    /// What is to be done with a request, and with its response. `target` is the path with its query, as the client
    /// wrote it: it may begin with a version of the API, and be percent-encoded in other ways than expected. Called as soon
    /// as a request's head has come, and before a byte of it is sent on; it must not block.
    fn on_request(&self, method: &str, target: &str) -> Treatment;

    /// Decides about a request that is held. May take its time: answers to earlier requests pass meanwhile. The future is
    /// dropped when the client goes away.
    fn held(&self, request: &HeldRequest) -> impl Future<Output = Decision> + Send;

    /// Opens another connection to the engine, for a client whose request is held while the first one ended; the error is what
    /// the client is told.
    fn reopen(&self) -> impl Future<Output = Result<(Box<dyn Duplex>, Over), String>> + Send;

    /// Is awaited before the body of a response is passed that is [`Delayed`](AnswerTreatment::Delayed). Its head has passed.
    fn before_body(&self, target: &str) -> impl Future<Output = ()> + Send;
}

/// What is to be done with a request and its response. The default passes both.
#[derive(Default)]
pub(crate) struct Treatment {
    /// Whether the request is held until [`EngineHooks::held`] has decided: the longest body, in bytes as they come
    /// (with the lines between chunks). A request with a longer one is refused, with status 413; so is, with status 400, a
    /// `POST` that is not plain HTTP/1.1, as it can't be read with certainty.
    pub(crate) hold: Option<usize>,
    pub(crate) answer: AnswerTreatment,
}

/// What is done with a response.
#[derive(Default)]
pub(crate) enum AnswerTreatment {
    /// It passes as it comes.
    #[default]
    Passes,
    /// It is held until its end, and then noted or changed.
    Whole(Rewrite),
    /// It passes chunk by chunk, some of them changed.
    Chunks(ChunkRewrite),
    /// Its body is passed once [`EngineHooks::before_body`] of this target is over.
    Delayed(String),
}

/// A change of a response's body.
///
/// The response is held until its end. So it must not be asked for one that goes on for as long as something lives
/// (`/events`, `/containers/{id}/logs?follow=1`, `/containers/{id}/wait`): nothing in its head tells it from a long
/// document. What passes untouched, and is not noted: another status, a body with a `Content-Encoding` or without an
/// end of its own, an empty one, and what is longer than `limit`.
pub(crate) struct Rewrite {
    /// The longest body, in bytes as they come (with the lines between chunks).
    pub(crate) limit: usize,
    /// Which responses are meant, by their status.
    pub(crate) statuses: fn(u16) -> bool,
    /// Hears of the response before a byte of it is passed. Called in the task of the connection.
    pub(crate) note: Option<AnswerNote>,
    /// Whether a body may have to be changed, from its status and a quick look at it: else it passes at once. Called in the
    /// task of the connection.
    pub(crate) concerns: fn(u16, &[u8]) -> bool,
    /// Makes a new body of the old one; `None` leaves the response as it was, byte for byte. It may wait for this machine's
    /// disks: if it takes too long, the response passes as it was.
    pub(crate) body: BodyChange,
}

/// A function of a status and a body; boxed, so that it may know what was found out about its request.
pub(crate) type AnswerNote = Box<dyn FnOnce(u16, &[u8]) + Send>;

/// A pure function of a status and a body; boxed for the same reason.
pub(crate) type BodyChange = Box<dyn FnOnce(u16, &[u8]) -> Option<Vec<u8>> + Send>;

/// A change of single chunks of a response's body, for one that goes on for as long as something lives. A body that does not
/// come in chunks passes untouched, and so does one with a `Content-Encoding`.
#[derive(Clone, Copy)]
pub(crate) struct ChunkRewrite {
    /// The longest chunk, in bytes as it comes (with its length). A longer one passes as it comes.
    pub(crate) limit: usize,
    /// Makes a new chunk of the old one, not an empty one; `None` leaves it as it was, byte for byte. Called in the task of
    /// the connection: it must not block.
    pub(crate) chunk: fn(&[u8]) -> Option<Vec<u8>>,
}

/// A whole request that was not sent on.
#[cfg_attr(not(test), allow(dead_code, reason = "no request is held yet"))]
#[derive(Debug)]
pub(crate) struct HeldRequest {
    pub(crate) method: String,
    /// The path with its query, as the client wrote it.
    pub(crate) target: String,
    /// Without the lines between chunks.
    pub(crate) body: Vec<u8>,
}

/// What becomes of a held request and its response.
pub(crate) struct Decision {
    pub(crate) verdict: Verdict,
    /// What is done with the response, in the place of what the request's [`Treatment`] says.
    pub(crate) answer: Option<AnswerTreatment>,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, answer: None }
    }
}

/// What becomes of a held request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent byte for byte as it came, but for an `Expect: 100-continue`, which was answered here.
    AsItWas,
    /// It is sent with this body, and its length; the other fields of the head stay as they are, in their order.
    Body(Vec<u8>),
    /// It is sent with another target, which has no blank in it, and its body as it came.
    Target(String),
    /// It is not sent. The client receives this status and `{"message": ...}`, as an engine does it, and may go on with
    /// other requests. A status of 200 or above that has a body.
    Answer { status: StatusCode, message: String },
}

#[cfg(test)]
pub(super) mod scripted {
    //! Hooks that a test writes.

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use dock_client::mutex::lock;
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;

    use super::*;

    /// The limit of held requests and responses.
    pub(crate) const LIMIT: usize = 1000;

    /// Holds creations and notes the answers to them, and changes the bodies of `/containers/x/json`, and the chunks of
    /// `/events`, that contain "old".
    pub(crate) struct ScriptedHooks {
        pub(crate) verdict: fn(&HeldRequest) -> Verdict,
        /// Each decision takes one of these.
        pub(crate) decisions: Semaphore,
        /// How many decisions were begun, how many of them came to their end, and how many were dropped or did.
        pub(crate) begun: AtomicUsize,
        pub(crate) decided: AtomicUsize,
        pub(crate) over: AtomicUsize,
        /// The bodies of what requests were answered with that were decided about, and the numbers of those decisions.
        pub(crate) noted: Arc<Mutex<Vec<(usize, String)>>>,
        /// The targets whose responses' bodies were waited with.
        pub(crate) delayed: Mutex<Vec<String>>,
        /// What is opened when a connection is opened anew.
        pub(crate) others: Mutex<Vec<(UnixStream, Over)>>,
    }

    impl ScriptedHooks {
        pub(crate) fn new(verdict: fn(&HeldRequest) -> Verdict) -> Self {
            Self {
                verdict,
                decisions: Semaphore::new(1000),
                begun: AtomicUsize::new(0),
                decided: AtomicUsize::new(0),
                over: AtomicUsize::new(0),
                noted: Arc::default(),
                delayed: Mutex::default(),
                others: Mutex::default(),
            }
        }

        /// What is decided about a request, the answer to which is noted with this number.
        pub(crate) fn decision(&self, number: usize, request: &HeldRequest) -> Decision {
            let noted = Arc::clone(&self.noted);
            Decision {
                verdict: (self.verdict)(request),
                answer: Some(AnswerTreatment::Whole(Rewrite {
                    limit: LIMIT,
                    statuses: |_| true,
                    note: Some(Box::new(move |_, body| {
                        lock(&noted).push((number, String::from_utf8_lossy(body).into_owned()));
                    })),
                    concerns: |_, body| body.windows(3).any(|word| word == b"old"),
                    body: Box::new(|status, body| (status >= 400).then(|| brand_new(body))?),
                })),
            }
        }
    }

    /// What has "old" in it, with something else there.
    fn brand_new(body: &[u8]) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(body).ok()?;
        text.contains("old")
            .then(|| text.replace("old", "brand new").into_bytes())
    }

    struct CountsWhenDropped<'a>(&'a AtomicUsize);

    impl Drop for CountsWhenDropped<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl EngineHooks for ScriptedHooks {
        fn on_request(&self, method: &str, target: &str) -> Treatment {
            let answer = if target.contains("/wait") {
                AnswerTreatment::Delayed(target.to_owned())
            } else if target.contains("/events") {
                AnswerTreatment::Chunks(ChunkRewrite {
                    limit: LIMIT,
                    chunk: brand_new,
                })
            } else if target.ends_with("/json") {
                AnswerTreatment::Whole(Rewrite {
                    limit: LIMIT,
                    statuses: |status| matches!(status, 200 | 201),
                    note: None,
                    concerns: |_, body| body.windows(3).any(|word| word == b"old"),
                    body: Box::new(|_, body| brand_new(body)),
                })
            } else {
                AnswerTreatment::Passes
            };
            Treatment {
                hold: (method == "POST" && target.contains("/containers/create")).then_some(LIMIT),
                answer,
            }
        }

        async fn held(&self, request: &HeldRequest) -> Decision {
            let _over = CountsWhenDropped(&self.over);
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            self.decisions.acquire().await.unwrap().forget();
            self.decided.fetch_add(1, Ordering::SeqCst);
            self.decision(number, request)
        }

        async fn reopen(&self) -> Result<(Box<dyn Duplex>, Over), String> {
            match lock(&self.others).pop() {
                Some((stream, over)) => Ok((Box::new(stream), over)),
                None => Err("the dock is gone".to_owned()),
            }
        }

        async fn before_body(&self, target: &str) {
            self.decisions.acquire().await.unwrap().forget();
            lock(&self.delayed).push(target.to_owned());
        }
    }
}
