//! Conversations without sockets.

use std::mem;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::http::framing::HEAD;
use crate::http::hooks::scripted::{LIMIT, ScriptedHooks};
use crate::http::hooks::{HeldRequest, Verdict};

const CREATE: &str =
    "POST /v1.45/containers/create?name=web HTTP/1.1\r\nHost: docker\r\nContent-Length: 9\r\n\r\n{\"a\":\"b\"}";
const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}";
const PING: &str = "GET /_ping HTTP/1.1\r\n\r\n";
const PONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
const ATTACH: &str = "POST /containers/x/attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
const INSPECT: &str = "GET /containers/x/json HTTP/1.1\r\n\r\n";

/// A connection without sockets.
struct Conversation {
    exchanges: Arc<Exchanges>,
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
    /// How many requests were decided about.
    held: usize,
    /// What the client has sent and the relay has not read, as the engine's answer decides what it is.
    unread: Vec<u8>,
}

impl Conversation {
    fn new(verdict: fn(&HeldRequest) -> Verdict) -> Self {
        let exchanges = Arc::new(Exchanges::default());
        Self {
            requests: Requests::new(Arc::clone(&exchanges)),
            responses: Responses::new(Arc::clone(&exchanges)),
            exchanges,
            hooks: ScriptedHooks::new(verdict),
            engine: Vec::new(),
            client: Vec::new(),
            closed: (false, false),
            delayed: Vec::new(),
            most: 0,
            held: 0,
            unread: Vec::new(),
        }
    }

    fn passing() -> Self {
        Self::new(|_| Verdict::AsItWas)
    }

    /// The client sends this, in one piece.
    fn says(&mut self, bytes: &[u8]) -> &mut Self {
        let unread = [&*mem::take(&mut self.unread), bytes].concat();
        let mut rest = &*unread;
        loop {
            let (event, after) = self.requests.next(rest, &self.hooks);
            rest = after;
            match event {
                RequestEvent::Pass(bytes) => {
                    assert!(!bytes.is_empty());
                    self.engine.extend_from_slice(&bytes);
                }
                RequestEvent::Held(held) => {
                    let decision = self.hooks.decision(self.held, &held.request);
                    self.held += 1;
                    self.engine
                        .extend(self.requests.decide(*held, decision).unwrap_or_default());
                }
                RequestEvent::Closed => {
                    self.closed.0 = true;
                    break;
                }
                RequestEvent::Undecided => {
                    self.unread = rest.to_vec();
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
        match self.unread.is_empty() || self.exchanges.state().undecided {
            true => self,
            false => self.says(&[]),
        }
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
            ResponseEvent::Pass(bytes) | ResponseEvent::Upgraded(bytes) => {
                assert!(!bytes.is_empty());
                self.client.extend_from_slice(&bytes);
            }
            ResponseEvent::Change(whole) => self.client.extend(whole.changed_here()),
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
        let due = self.exchanges.state().due.len();
        assert!(due <= UNDER_WAY + 2, "{due}");
        self.most = self.most.max(self.requests.kept() + self.responses.kept());
    }

    fn is_raw(&self) -> (bool, bool) {
        (self.requests.is_raw(), self.responses.is_raw())
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
fn line_ends_between_requests_pass_and_what_follows_is_held() {
    for piece in [1, 2, 3, 1000] {
        let mut conversation = Conversation::new(|_| Verdict::Body(b"{}".to_vec()));
        let all = format!("\r\n{PING}\r\n\n{CREATE}\n\r\n");
        all.as_bytes().chunks(piece).for_each(|part| {
            conversation.says(part);
        });
        let changed = CREATE.replace("9\r\n\r\n{\"a\":\"b\"}", "2\r\n\r\n{}");
        assert_eq!(conversation.received().0, format!("\r\n{PING}\r\n\n{changed}\n\r\n"));
        assert_eq!(conversation.is_raw(), (false, false));
    }
}

#[test]
fn what_is_no_http_passes_as_it_comes() {
    for text in [
        "echo\n",
        "hello world\r\n",
        "PRI * HTTP/2.0\r\n",
        "\x16\x03\x01",
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
    // After a request that came in pieces.
    let mut conversation = Conversation::passing();
    conversation
        .says(&PING.as_bytes()[..PING.len() - 2])
        .says(b"\r\n")
        .says(b"echo\n");
    assert_eq!(conversation.received().0, format!("{PING}echo\n"));
    // The beginning of a request that never becomes one.
    let mut conversation = Conversation::passing();
    conversation.says(PING.as_bytes()).says(b"GE");
    assert_eq!(conversation.received().0, PING);
    let RequestEvent::Pass(rest) = conversation.requests.end(&conversation.hooks) else {
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
    // Of who does not wait for the answer, that decides what follows.
    conversation.says(format!("{ATTACH}{CREATE}").as_bytes());
    assert_eq!(conversation.received().0, ATTACH);
    conversation.hears(gone.as_bytes());
    let own = message("409 Conflict", "no", false);
    assert_eq!(conversation.received(), (String::new(), format!("{gone}{own}")));
    let upgraded = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    conversation.says(format!("{ATTACH}{CREATE}").as_bytes());
    assert_eq!(conversation.received(), (ATTACH.to_owned(), String::new()));
    conversation.hears(upgraded.as_bytes());
    assert_eq!(conversation.received(), (CREATE.to_owned(), upgraded.to_owned()));
    assert_eq!(conversation.is_raw(), (true, true));
    // An engine that agrees to what nobody has asked for is not followed, and no request that would be held passes.
    let mut conversation = Conversation::new(no);
    conversation.says(PING.as_bytes()).hears(upgraded.as_bytes());
    conversation.received();
    conversation.says(CREATE.as_bytes());
    assert_eq!(conversation.received(), (String::new(), String::new()));
    assert_eq!(conversation.closed, (true, true));
}

#[test]
fn the_logs_of_a_container_end_and_what_comes_after_them_is_followed() {
    for kind in ["raw", "multiplexed"] {
        let logs = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.{kind}-stream\r\nTransfer-Encoding: \
             chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        let mut conversation = Conversation::new(no);
        for _ in 0..2 {
            conversation
                .says(b"GET /v1.44/containers/x/logs?stdout=1 HTTP/1.1\r\n\r\n")
                .hears(logs.as_bytes());
            conversation.received();
            conversation.says(CREATE.as_bytes());
            assert_eq!(
                conversation.received(),
                (String::new(), message("409 Conflict", "no", false))
            );
        }
    }
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
    assert!(matches!(
        conversation.requests.end(&conversation.hooks),
        RequestEvent::Closed
    ));
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
    conversation.requests.end(&conversation.hooks);
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
    // Nobody waits: the client's bytes go where they go, but for what would be held.
    let mut conversation = Conversation::passing();
    conversation.ends().says(PING.as_bytes());
    assert_eq!(conversation.received(), (PING.to_owned(), String::new()));
    conversation.says(CREATE.as_bytes());
    assert_eq!(conversation.received(), (String::new(), String::new()));
    assert_eq!(conversation.closed, (true, true));
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
                // The other direction, too, up to what would be held: it closes the connection.
                let other = format!("{PING}POST /images/load HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
                for part in other.as_bytes().chunks(piece) {
                    conversation.says(part);
                }
                assert_eq!(conversation.received().0, other);
                for part in CREATE.as_bytes().chunks(piece) {
                    conversation.says(part);
                }
                assert_eq!(
                    conversation.received(),
                    (String::new(), String::new()),
                    "{nonsense:.80}"
                );
                assert_eq!(conversation.closed, (true, true));
                // An answer of ours that is due has no place any more.
                if nonsense != PONG {
                    let mut conversation = Conversation::new(no);
                    conversation.says(request.as_bytes()).says(CREATE.as_bytes());
                    for part in all.as_bytes().chunks(piece) {
                        conversation.hears(part);
                    }
                    assert!(conversation.closed.1, "{nonsense:.80}");
                    assert!(all.as_bytes().starts_with(&conversation.client));
                }
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
        assert!(conversation.most <= 2 * HEAD, "{}", conversation.most);
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
        Just("/events"),
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
        "POST /containers/create HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        EVENTS,
        "3\r\nold\r\n",
        "5\r\nhello\r\n",
        "0\r\n\r\n",
        "\r\n",
    ];
    let known = proptest::sample::select(known.map(|text| text.as_bytes().to_vec()).to_vec());
    let cut = (known.clone(), 0_usize..100).prop_map(|(text, at)| text[at.min(text.len())..].to_vec());
    prop_oneof![4 => known, 1 => cut, 1 => proptest::collection::vec(any::<u8>(), 0..20)]
}

#[test]
fn what_is_awaited_before_a_body_comes_between_the_head_and_the_body() {
    let request = "POST /v1.45/containers/web/wait?condition=next-exit HTTP/1.1\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = format!("{head}11\r\n{{\"StatusCode\":0}}\n\r\n0\r\n\r\n");
    for piece in [1, 2, 7, 1000] {
        let mut conversation = Conversation::passing();
        for _ in 0..2 {
            request.as_bytes().chunks(piece).for_each(|part| {
                conversation.says(part);
            });
            response.as_bytes().chunks(piece).for_each(|part| {
                conversation.hears(part);
            });
        }
        assert_eq!(
            String::from_utf8_lossy(&conversation.client),
            response.repeat(2),
            "{piece}"
        );
        let target = "/v1.45/containers/web/wait?condition=next-exit".to_owned();
        // The head has passed, and nothing of the body but the length of its first chunk.
        let before = head.len() + "11\r\n".len();
        let expected = [(target.clone(), before), (target, response.len() + before)];
        assert_eq!(conversation.delayed, expected, "{piece}");
    }
    // Without a body, nothing is awaited.
    let mut conversation = Conversation::passing();
    conversation.says(request.as_bytes());
    conversation.hears(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(conversation.delayed, []);
}

const EVENTS: &str = "GET /v1.45/events?since=0 HTTP/1.1\r\n\r\n";

#[test]
fn each_answer_belongs_to_the_request_that_was_decided_about() {
    let answer = |number: usize| format!("{{\"Id\":\"{number}\"}}");
    let created = |number: usize| CREATED.replace("2\r\n\r\n{}", &format!("10\r\n\r\n{}", answer(number)));
    let failed = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\n\"old\"";
    let shown = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 11\r\n\r\n\"brand new\"";
    for piece in [1, 7, 1000] {
        let mut conversation = Conversation::passing();
        // Four creations and others at once, before anything is answered.
        let all = [CREATE, PING, CREATE, CREATE, PING, CREATE].concat();
        all.as_bytes().chunks(piece).for_each(|part| {
            conversation.says(part);
        });
        let answers = [&created(0), PONG, failed, &created(2), PONG, &created(3)].concat();
        answers.as_bytes().chunks(piece).for_each(|part| {
            conversation.hears(part);
        });
        let expected = [&created(0), PONG, shown, &created(2), PONG, &created(3)].concat();
        assert_eq!(conversation.received(), (all, expected));
        let noted = lock(&conversation.hooks.noted).clone();
        let old = "\"old\"".to_owned();
        assert_eq!(
            noted,
            [(0, answer(0)), (1, old), (2, answer(2)), (3, answer(3))],
            "{piece}"
        );
    }
    // One that was refused here has no answer, and takes none away.
    let mut conversation = Conversation::new(|request| match request.body.len() {
        9 => no(request),
        _ => Verdict::AsItWas,
    });
    let other = CREATE.replace("9\r\n\r\n{\"a\":\"b\"}", "2\r\n\r\n{}");
    conversation.says(format!("{CREATE}{other}").as_bytes());
    conversation.hears(created(1).as_bytes());
    assert_eq!(*lock(&conversation.hooks.noted), [(1, answer(1))]);
}

#[test]
fn what_would_be_held_and_is_no_plain_http_1_1_is_refused() {
    let why = "a request that creates something must be plain HTTP/1.1 here, as its mounts are read before the engine has it: say \
               HTTP/1.1 in its first line, end each line of its head with CR LF, say the body's length once, and keep the head \
               below 64 KiB (curl: --http1.1)";
    let refused = message("400 Bad Request", why, true);
    let vast = format!("POST /containers/create HTTP/1.1\r\nA: {}\r\n", "b".repeat(HEAD));
    for request in [
        "POST /v1.45/containers/create?name=web HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        "POST /containers/create HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
        "POST /containers/create HTTP/1.0\nContent-Length: 2\n\n{}",
        "POST /containers/create HTTP/1.1\nContent-Length: 2\n\n{}",
        "POST /containers/create\r\n",
        "POST /containers/create\n",
        "POST /containers/create HTTP/1.2\r\n\r\n",
        "POST /containers/create HTTP/2.0\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        "POST /containers/create HTTP/1.1\r\nA : b\r\nContent-Length: 2\r\n\r\n{}",
        &vast,
    ] {
        for piece in [1, 9, 100_000] {
            let mut conversation = Conversation::passing();
            let all = format!("{PING}{request}{CREATE}");
            for part in all.as_bytes().chunks(piece) {
                conversation.says(part);
            }
            assert_eq!(
                conversation.received(),
                (PING.to_owned(), String::new()),
                "{request:.80}"
            );
            conversation.hears(PONG.as_bytes());
            assert_eq!(conversation.received().1, format!("{PONG}{refused}"), "{request:.80}");
            assert_eq!(conversation.closed, (true, true));
        }
    }
    // An engine would find the end of this head, which is none here; the client waits for its answer.
    let mut conversation = Conversation::passing();
    conversation.says(b"POST /containers/create HTTP/1.1\r\nContent-Length: 2\n\n{}");
    assert!(matches!(
        conversation.requests.end(&conversation.hooks),
        RequestEvent::Closed
    ));
    conversation.hears(&[]);
    assert_eq!(conversation.received(), (String::new(), refused));
    // As the one that is too many.
    let mut conversation = Conversation::passing();
    conversation.says(format!("{}{CREATE}", PING.repeat(UNDER_WAY)).as_bytes());
    conversation.hears(PONG.repeat(UNDER_WAY).as_bytes());
    let (engine, client) = conversation.received();
    assert_eq!(engine, PING.repeat(UNDER_WAY));
    assert!(client.contains("too many requests wait for their answers"), "{client}");
    // What is said in another protocol is not judged.
    let mut conversation = Conversation::passing();
    let old = "POST /containers/create HTTP/1.0\r\n\r\n";
    conversation.says(ATTACH.as_bytes()).says(old.as_bytes());
    conversation
        .hears(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
        .says(old.as_bytes());
    assert_eq!(conversation.received().0, format!("{ATTACH}{old}{old}"));
}

#[test]
fn what_is_not_held_passes_in_http_1_0_and_nothing_follows_it() {
    for (fields, kept) in [("", ""), ("Connection: keep-alive\r\nA: b\r\n", "A: b\r\n")] {
        for request in ["GET /containers/json", "POST /containers/x/start", "HEAD /_ping"] {
            for piece in [1, 9, 1000] {
                let mut conversation = Conversation::passing();
                let all = format!("{PING}{request} HTTP/1.0\r\n{fields}Content-Length: 2\r\n\r\n{{}}");
                all.as_bytes().chunks(piece).for_each(|part| {
                    conversation.says(part);
                });
                let expected = format!("{PING}{request} HTTP/1.0\r\n{kept}Content-Length: 2\r\n\r\n{{}}");
                assert_eq!(conversation.received().0, expected);
                let answer = format!("{PONG}HTTP/1.0 200 OK\r\n\r\n{{\"old\"}}");
                answer.as_bytes().chunks(piece).for_each(|part| {
                    conversation.hears(part);
                });
                assert_eq!(conversation.received().1, answer);
                assert_eq!(conversation.is_raw(), (true, true));
            }
        }
    }
}

#[test]
fn chunks_are_changed_one_by_one_as_they_come() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |data: &str| format!("{:x}\r\n{data}\r\n", data.len());
    let long = "old".repeat(LIMIT);
    let parts = [
        (head.to_owned(), head.to_owned()),
        (chunk("an event"), chunk("an event")),
        (chunk("an old event"), chunk("an brand new event")),
        ("00C;x=old\r\nan old event\r\n".to_owned(), chunk("an brand new event")),
        (chunk(&long), chunk(&long)),
        (chunk("old"), chunk("brand new")),
    ];
    let end = "0\r\nT: old\r\n\r\n";
    for piece in [1, 5, 100_000] {
        let mut conversation = Conversation::passing();
        conversation.says(EVENTS.as_bytes());
        // Each is passed as soon as it is whole, and nothing of it is kept longer.
        for (part, expected) in &parts {
            part.as_bytes().chunks(piece).for_each(|part| {
                conversation.hears(part);
            });
            assert_eq!(conversation.received().1, *expected, "{piece}");
            assert_eq!(conversation.responses.kept(), 0);
        }
        conversation.hears(end.as_bytes()).hears(&[]);
        assert_eq!(conversation.received().1, end);
        assert!(conversation.most < 3 * LIMIT || piece > LIMIT, "{}", conversation.most);
        conversation.says(PING.as_bytes()).hears(PONG.as_bytes());
        assert_eq!(conversation.received().1, PONG);
        // All in one piece.
        let all: String = parts.iter().map(|(part, _)| part.as_str()).chain([end, PONG]).collect();
        let expected: String = parts.iter().map(|(_, part)| part.as_str()).chain([end, PONG]).collect();
        conversation.says(format!("{EVENTS}{PING}").as_bytes());
        all.as_bytes().chunks(piece).for_each(|part| {
            conversation.hears(part);
        });
        assert_eq!(conversation.received().1, expected);
        assert_eq!(conversation.is_raw(), (false, false));
    }
    // What has no chunks, or is packed, and what ends in the middle.
    for response in [
        sized("old"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            chunk("old")
        ),
        format!("{head}5\r\nold"),
        format!("{head}{}x\r\nold", chunk("event")),
    ] {
        for piece in [1, 100_000] {
            let mut conversation = Conversation::passing();
            conversation.says(EVENTS.as_bytes());
            response.as_bytes().chunks(piece).for_each(|part| {
                conversation.hears(part);
            });
            conversation.ends();
            assert_eq!(conversation.received().1, response);
        }
    }
}
