//! What the [`relay`](super::relay) asks about the requests that pass, and what it may be told.

use hyper::StatusCode;

use crate::link::Over;
use crate::transport::Duplex;

/// Decides about the requests of one connection.
pub(crate) trait EngineHooks: Send + Sync {
    /// What is to be done with a request, and with its response. `target` is the path with its query, as the client
    /// wrote it: it may begin with a version of the API, and be percent-encoded in other ways than expected. Called once
    /// for each request, as soon as its head has come, and before a byte of it is sent on; it must not block.
    fn on_request(&self, method: &str, target: &str) -> Treatment;

    /// Decides about a request that is held. May take its time: answers to earlier requests pass meanwhile. The future is
    /// dropped when the client goes away.
    fn held(&self, request: &HeldRequest) -> impl Future<Output = Verdict> + Send;

    /// Notes a container that was created, by its ID, before the client receives the answer.
    fn created(&self, id: String);

    /// Opens another connection to the engine, for a client whose request is held while the first one ended; the error is what
    /// the client is told.
    fn reopen(&self) -> impl Future<Output = Result<(Box<dyn Duplex>, Over), String>> + Send;

    /// Is awaited before the body of a response is passed whose request's [`Treatment`] says so. Its head has passed.
    fn before_body(&self, target: &str) -> impl Future<Output = ()> + Send;
}

/// What is to be done with a request and its response. The default passes both.
#[derive(Default)]
pub(crate) struct Treatment {
    /// Whether the request is held until [`EngineHooks::held`] has decided: the longest body, in bytes as they come
    /// (with the lines between chunks). A request with a longer one is refused, with status 413.
    pub(crate) hold: Option<usize>,
    /// What is done with the response's body.
    pub(crate) rewrite: Option<Rewrite>,
    /// Whether [`EngineHooks::before_body`] is awaited when the response's body begins; not together with `rewrite`.
    pub(crate) delays: bool,
}

/// A change of a response's body.
///
/// The response is held until its end. So it must not be asked for one that goes on for as long as something lives
/// (`/events`, `/containers/{id}/logs?follow=1`, `/containers/{id}/wait`): nothing in its head tells it from a long
/// document. What passes untouched: a status other than 200 and 201, a body with a `Content-Encoding` or without an
/// end of its own, and what is longer than `limit`.
pub(crate) struct Rewrite {
    /// The longest body, in bytes as they come (with the lines between chunks).
    pub(crate) limit: usize,
    /// Whether a body may have to be changed, from a quick look at it: else it passes at once. Called in the task of the
    /// connection.
    pub(crate) concerns: fn(&[u8]) -> bool,
    /// Makes a new body of the old one; `None` leaves the response as it was, byte for byte. It may wait for this machine's
    /// disks: if it takes too long, the response passes as it was.
    pub(crate) body: BodyChange,
}

/// A pure function of a body; boxed, so that it may know what was found out about its request.
pub(crate) type BodyChange = Box<dyn FnOnce(&[u8]) -> Option<Vec<u8>> + Send>;

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

    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dock_client::mutex::lock;
    use tokio::net::UnixStream;
    use tokio::sync::Semaphore;

    use super::*;

    /// The limit of held requests and responses.
    pub(crate) const LIMIT: usize = 1000;

    /// Holds creations, and changes the bodies of `/containers/x/json` that contain "old".
    pub(crate) struct ScriptedHooks {
        pub(crate) verdict: fn(&HeldRequest) -> Verdict,
        /// Each decision takes one of these.
        pub(crate) decisions: Semaphore,
        /// How many decisions were begun, how many of them came to their end, and how many were dropped or did.
        pub(crate) begun: AtomicUsize,
        pub(crate) decided: AtomicUsize,
        pub(crate) over: AtomicUsize,
        pub(crate) created: Mutex<Vec<String>>,
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
                created: Mutex::default(),
                delayed: Mutex::default(),
                others: Mutex::default(),
            }
        }
    }

    struct CountsWhenDropped<'a>(&'a AtomicUsize);

    impl Drop for CountsWhenDropped<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl EngineHooks for ScriptedHooks {
        fn on_request(&self, method: &str, target: &str) -> Treatment {
            let is_json = target.ends_with("/json");
            Treatment {
                delays: target.contains("/wait"),
                hold: (method == "POST" && target.contains("/containers/create")).then_some(LIMIT),
                rewrite: is_json.then(|| Rewrite {
                    limit: LIMIT,
                    concerns: |body| body.windows(3).any(|word| word == b"old"),
                    body: Box::new(|body| {
                        let text = std::str::from_utf8(body).ok()?;
                        text.contains("old")
                            .then(|| text.replace("old", "brand new").into_bytes())
                    }),
                }),
            }
        }

        async fn held(&self, request: &HeldRequest) -> Verdict {
            let _over = CountsWhenDropped(&self.over);
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.decisions.acquire().await.unwrap().forget();
            self.decided.fetch_add(1, Ordering::SeqCst);
            (self.verdict)(request)
        }

        fn created(&self, id: String) {
            lock(&self.created).push(id);
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
