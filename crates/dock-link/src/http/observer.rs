//! Sees which containers are created through a connection to the engine, from the bytes that pass.
//!
//! It follows the requests and responses of HTTP/1.1 (RFC 9112) on one connection, in pieces of any size, and changes
//! nothing. It keeps only the head of a message, and `POST /containers/create` with its response. In any doubt it stops
//! for good: a container that was missed is found by its label or not at all, while a container that is not the user's
//! would have its ports put on this machine. A connection that both sides agreed to use for something else than HTTP
//! (attach, exec, BuildKit's sessions) is such a doubt.

use std::collections::VecDeque;
use std::mem;

use serde::Deserialize;

use super::framing::{Body, Framing, FramingEvent, RequestHead, ResponseHead};

/// The longest response that is read, in bytes: an ID, and warnings.
const ANSWER: usize = 256 * 1024;
/// How many requests may await their responses; docker clients have one.
const UNDER_WAY: usize = 64;

/// Follows one connection.
#[derive(Debug, Default)]
pub struct HttpObserver {
    requests: Framing,
    responses: Framing,
    /// The requests that are not yet answered.
    asked: VecDeque<RequestKind>,
    /// The part of the response to a creation that has come; `None` if the response is of no interest.
    answer: Option<Vec<u8>>,
    seen: Vec<String>,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestKind {
    /// Creates a container.
    Create,
    /// Its response has no body.
    Head,
    Other,
}

impl HttpObserver {
    /// Whether it has seen something that it does not follow.
    pub const fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Observes bytes of the client. To be called before they are passed on, so that no response can be seen first.
    pub fn see_client(&mut self, mut bytes: &[u8]) {
        while !self.stopped {
            let (event, rest) = self.requests.next(bytes);
            bytes = rest;
            match event {
                FramingEvent::Head(head) => self.request(&head),
                FramingEvent::Body(_) | FramingEvent::End => {}
                FramingEvent::More => return,
                FramingEvent::Nonsense => self.stop(),
            }
        }
    }

    /// Observes bytes of the engine. Returns the IDs of the containers that it has created, to be noted before the client
    /// receives them.
    pub fn see_engine(&mut self, mut bytes: &[u8]) -> Vec<String> {
        while !self.stopped {
            let (event, rest) = self.responses.next(bytes);
            bytes = rest;
            match event {
                FramingEvent::Head(head) => self.response(&head),
                FramingEvent::Body(part) => {
                    if let Some(answer) = &mut self.answer {
                        answer.extend_from_slice(part);
                        if answer.len() > ANSWER {
                            self.answer = None;
                        }
                    }
                }
                FramingEvent::End => {
                    self.seen.extend(self.answer.take().and_then(|text| id(&text)));
                }
                FramingEvent::More => break,
                FramingEvent::Nonsense => self.stop(),
            }
        }
        mem::take(&mut self.seen)
    }

    fn stop(&mut self) {
        let seen = mem::take(&mut self.seen);
        *self = Self {
            seen,
            stopped: true,
            ..Self::default()
        };
    }

    fn request(&mut self, head: &[u8]) {
        match RequestHead::parse(head) {
            Some(head) if !head.fields.upgrade && self.asked.len() < UNDER_WAY => {
                let asked = match head.method.as_str() {
                    "POST" if is_creation(&head.target) => RequestKind::Create,
                    "HEAD" => RequestKind::Head,
                    _ => RequestKind::Other,
                };
                self.asked.push_back(asked);
                self.requests.begin(head.body);
            }
            _ => self.stop(),
        }
    }

    fn response(&mut self, head: &[u8]) {
        let Some(ResponseHead { status, fields }) = ResponseHead::parse(head) else {
            return self.stop();
        };
        match status {
            // Another protocol from here on.
            101 => return self.stop(),
            // The final response follows.
            100..200 => return self.responses.begin(Body::Sized(0)),
            _ => {}
        }
        let Some(asked) = self.asked.pop_front() else {
            return self.stop();
        };
        let body = match fields.body() {
            _ if asked == RequestKind::Head || matches!(status, 204 | 304) => Body::Sized(0),
            Some(Some(body)) => body,
            // Up to the end of the connection: this is how the engine answers a request that turns into a raw stream,
            // and HTTP/1.0.
            Some(None) | None => return self.stop(),
        };
        if fields.raw {
            return self.stop();
        }
        self.answer = (asked == RequestKind::Create && status == 201).then(Vec::new);
        self.responses.begin(body);
    }
}

/// The ID in the response to a creation, in the form that engines write.
fn id(answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Id")]
        id: String,
    }
    let Created { id } = serde_json::from_slice(answer).ok()?;
    is_id(&id).then_some(id)
}

/// Whether a text can be the ID of a container.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a path is `/containers/create`, perhaps with a version of the API before it, or Podman's own.
fn is_creation(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let Some(before) = path.strip_suffix("/containers/create") else {
        return false;
    };
    let mut parts = before.split('/').skip(1);
    let version = parts.next().unwrap_or("v1");
    let is_version = version
        .strip_prefix('v')
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
    is_version && parts.next().is_none_or(|part| part == "libpod") && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::super::framing::HEAD;
    use super::*;

    const ID: &str = "8d1f6bd1b8f2c3a7f0f27c8ef1c64a4c7f3d7a1cdd8e9f2b5a6c7d8e9f0a1b2c";

    fn create() -> String {
        "POST /v1.45/containers/create?name=web HTTP/1.1\r\nHost: docker\r\nContent-Length: 2\r\n\r\n{}".to_owned()
    }

    fn created() -> String {
        let body = format!("{{\"Id\":\"{ID}\",\"Warnings\":[]}}\n");
        format!(
            "HTTP/1.1 201 Created\r\nApi-Version: 1.45\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Lets a conversation pass, cut into pieces of this size; returns what was seen.
    fn seen(conversation: &[(&str, &str)], piece: usize) -> (Vec<String>, bool) {
        let mut observer = HttpObserver::default();
        let mut ids = Vec::new();
        for (request, response) in conversation {
            request
                .as_bytes()
                .chunks(piece)
                .for_each(|part| observer.see_client(part));
            for part in response.as_bytes().chunks(piece) {
                ids.extend(observer.see_engine(part));
            }
        }
        (ids, observer.has_stopped())
    }

    #[test]
    fn a_container_is_seen_however_the_bytes_are_cut() {
        let chunked = format!(
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{{\"Id\": \"\r\n40;x=y\r\n{ID}\r\n2\r\n\"}}\r\n0\r\nA: \
             b\r\n\r\n"
        );
        let load = "POST /images/load HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nPOST \r\n16\r\n/containers/create \
                    HTT\r\n0\r\n\r\n";
        let conversation = [
            (
                "HEAD /_ping HTTP/1.1\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            ),
            (
                load,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            ),
            (&create(), &created()),
            (
                "POST /containers/x/start HTTP/1.1\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
            ),
            (
                "POST /containers/create HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: 0\r\n\r\n",
                &format!("HTTP/1.1 100 Continue\r\n\r\n{chunked}"),
            ),
        ];
        for piece in [1, 2, 3, 7, 100, 100_000] {
            assert_eq!(seen(&conversation, piece), (vec![ID.to_owned(); 2], false), "{piece}");
        }
    }

    #[test]
    fn an_engine_that_answers_before_it_heard_all_mixes_nothing_up() {
        let mut observer = HttpObserver::default();
        observer.see_client(b"POST /containers/create HTTP/1.1\r\nContent-Length: 37\r\n\r\n{\"HostConfig\": ");
        assert_eq!(observer.see_engine(created().as_bytes()), [ID]);
        observer.see_client(b"{\"Binds\": [\"/a:/a\"]}} ");
        observer.see_client(create().as_bytes());
        assert_eq!(observer.see_engine(created().as_bytes()), [ID]);
        assert!(!observer.has_stopped());
    }

    #[test]
    fn requests_that_do_not_wait_for_answers_are_matched() {
        let requests = format!("GET /info HTTP/1.1\r\n\r\n{}{}", create(), create());
        let info = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let refused = "HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n{}\n";
        let responses = format!("{info}{refused}{}", created());
        assert_eq!(seen(&[(&requests, &responses)], 10_000), (vec![ID.to_owned()], false));
    }

    #[test]
    fn what_is_no_creation_says_nothing() {
        let answer = created();
        for request in [
            "GET /containers/create HTTP/1.1\r\n\r\n",
            "POST /containers/x/exec HTTP/1.1\r\n\r\n",
            "POST /v1.45/volumes/containers/create HTTP/1.1\r\n\r\n",
            "POST /containers/create/x HTTP/1.1\r\n\r\n",
            "POST /images/containers/create HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(seen(&[(request, &answer)], 1000), (vec![], false), "{request}");
        }
        for id in ["", "abc", &ID.to_uppercase(), &format!("{}\\n", &ID[1..])] {
            assert_eq!(seen(&[(&create(), &answer.replace(ID, id))], 1000).0, [""; 0], "{id}");
        }
        assert!(is_creation("/v4.0.0/libpod/containers/create?x"));
    }

    #[test]
    fn in_doubt_it_stops_for_good() {
        let upgrade = "POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
        let plain = "POST /containers/x/attach HTTP/1.1\r\n\r\n";
        for (request, response) in [
            (upgrade, ""),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
            ("POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ""),
            (
                "POST /x HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                "",
            ),
            ("POST /x HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ""),
            ("POST /x HTTP/1.1\r\nA: b\r\n c\r\n\r\n", ""),
            ("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", ""),
            ("POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", ""),
            (plain, "HTTP/1.1 101 UPGRADED\r\n\r\n"),
            (
                plain,
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
            ),
            (
                plain,
                "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nContent-Length: 0\r\n\r\n",
            ),
            (plain, "hello\r\n\r\n"),
            ("", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ] {
            let conversation = [(request, response), (&create(), &created())];
            assert_eq!(seen(&conversation, 1000), (vec![], true), "{request}{response}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD));
        assert_eq!(seen(&[(&long, ""), (&create(), &created())], 1000), (vec![], true));
    }
}
