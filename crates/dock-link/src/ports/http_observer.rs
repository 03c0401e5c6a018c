//! Sees which containers are created through a connection to the engine, and what they mount, from the bytes that pass.
//!
//! It follows the requests and responses of HTTP/1.1 (RFC 9112) on one connection, in pieces of any size, and changes
//! nothing. It keeps only the head of a message, and `POST /containers/create` with its response. In any doubt it stops
//! for good: a container that was missed is found by its label or not at all, while a container that is not the user's
//! would have its ports put on this machine. A connection that both sides agreed to use for something else than HTTP
//! (attach, exec, BuildKit's sessions) is such a doubt.

use std::collections::{HashMap, VecDeque};
use std::mem;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::LABEL_PROJECT;

/// The longest head of a message, in bytes: it may hold a registry's credentials.
const HEAD: usize = 64 * 1024;
/// The longest line between chunks, in bytes.
const LINE: usize = 1024;
/// The longest response that is read, in bytes: an ID, and warnings.
const ANSWER: usize = 256 * 1024;
/// The longest creation request that is read, in bytes; the mounts of a longer one are not known.
const CREATION: usize = 1024 * 1024;
/// How many paths of the engine's machine are reported for one creation.
const SOURCES: usize = 32;
/// The longest path: the kernel's own limit.
const PATH: usize = 4096;
/// How many requests may await their responses; docker clients have one.
const UNDER_WAY: usize = 64;

/// Follows one connection.
#[derive(Debug, Default)]
pub struct HttpObserver {
    requests: Framing,
    responses: Framing,
    /// The requests that are not yet answered.
    asked: VecDeque<RequestKind>,
    /// The part of a creation request that has come; `None` if the request is of no interest.
    creation: Option<Vec<u8>>,
    /// The part of its response that has come, and what is to be mounted; `None` if the response is of no interest.
    answer: Option<(Vec<u8>, Vec<String>)>,
    seen: Vec<Creation>,
    stopped: bool,
}

/// The result of a request to create a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Creation {
    /// The container's ID; `None` if the engine refused the request.
    pub id: Option<String>,
    /// The paths of the engine's machine that it was to mount; empty if our own command asked, which has checked them.
    pub sources: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum RequestKind {
    /// With what is to be mounted, once the whole request has come.
    Create(Vec<String>),
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
                FramingEvent::Body(part) => {
                    if let Some(creation) = &mut self.creation {
                        creation.extend_from_slice(part);
                        if creation.len() > CREATION {
                            self.creation = None;
                        }
                    }
                }
                // If the engine has answered before the request's end, its entry is gone already.
                FramingEvent::End => {
                    if let Some(body) = self.creation.take()
                        && let Some(RequestKind::Create(mounted)) = self.asked.back_mut()
                    {
                        *mounted = sources(&body);
                    }
                }
                FramingEvent::More => return,
                FramingEvent::Nonsense => self.stop(),
            }
        }
    }

    /// Observes bytes of the engine. Returns what it says about containers that were to be created, to be noted before
    /// the client receives it.
    pub fn see_engine(&mut self, mut bytes: &[u8]) -> Vec<Creation> {
        while !self.stopped {
            let (event, rest) = self.responses.next(bytes);
            bytes = rest;
            match event {
                FramingEvent::Head(head) => self.response(&head),
                FramingEvent::Body(part) => {
                    if let Some((answer, _)) = &mut self.answer {
                        answer.extend_from_slice(part);
                        if answer.len() > ANSWER {
                            self.answer = None;
                        }
                    }
                }
                FramingEvent::End => {
                    if let Some((text, sources)) = self.answer.take()
                        && let Some(id) = id(&text)
                    {
                        self.seen.push(Creation { id: Some(id), sources });
                    }
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
        match parse_request(head) {
            Some((asked, body)) if self.asked.len() < UNDER_WAY => {
                self.creation = matches!(asked, RequestKind::Create(_)).then(Vec::new);
                self.asked.push_back(asked);
                self.requests.begin(body);
            }
            _ => self.stop(),
        }
    }

    fn response(&mut self, head: &[u8]) {
        let Some((status, fields)) = parse_response(head) else {
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
        self.answer = None;
        if let RequestKind::Create(sources) = asked {
            match status {
                201 => self.answer = Some((Vec::new(), sources)),
                // A missing path is refused like this if it was given as `--mount`.
                400 if !sources.is_empty() => self.seen.push(Creation { id: None, sources }),
                _ => {}
            }
        }
        self.responses.begin(body);
    }
}

/// The paths of the engine's machine that a creation mounts: `HostConfig.Binds` (`SOURCE:TARGET[:OPTIONS]`, where a
/// source that does not begin with a slash is a volume) and the binds of `HostConfig.Mounts`.
fn sources(creation: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct CreateBody {
        labels: Option<HashMap<String, IgnoredAny>>,
        host_config: Option<Host>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Host {
        binds: Option<Vec<String>>,
        mounts: Option<Vec<Mount>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Mount {
        r#type: Option<String>,
        source: Option<String>,
    }
    let Ok(CreateBody { labels, host_config }) = serde_json::from_slice(creation) else {
        return Vec::new();
    };
    if labels.is_some_and(|labels| labels.contains_key(LABEL_PROJECT)) {
        return Vec::new();
    }
    let Some(Host { binds, mounts }) = host_config else {
        return Vec::new();
    };
    let binds = binds.unwrap_or_default().into_iter();
    let binds = binds.filter_map(|bind| bind.split(':').next().map(str::to_owned));
    let mounts = mounts.unwrap_or_default().into_iter();
    let mounts = mounts
        .filter(|mount| mount.r#type.as_deref() == Some("bind"))
        .filter_map(|mount| mount.source);
    let mut sources: Vec<String> = Vec::new();
    for source in binds.chain(mounts) {
        let is_path = source.starts_with('/') && source.len() < PATH && !source.contains('\0');
        if is_path && !sources.contains(&source) && sources.len() < SOURCES {
            sources.push(source);
        }
    }
    sources
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

/// What the head of a message says about its body.
#[derive(Debug, Default)]
struct HeaderFields {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    /// The media type of a stream without HTTP's framing.
    raw: bool,
}

impl HeaderFields {
    /// The fields between a message's first line and the empty line; `None` if they are not plain.
    fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let mut fields = Self::default();
        for line in lines.take_while(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.is_empty() || name.iter().any(|byte| byte.is_ascii_whitespace()) {
                // A line that continues the previous one is obsolete, and could hide something.
                return None;
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                let digits = std::str::from_utf8(value).ok()?;
                if fields.length.is_some() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                fields.length = Some(digits.parse().ok()?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if fields.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                fields.chunked = true;
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                fields.upgrade = true;
            } else if name.eq_ignore_ascii_case(b"content-type") {
                fields.raw |= value.starts_with(b"application/vnd.docker.raw-stream")
                    || value.starts_with(b"application/vnd.docker.multiplexed-stream");
            }
        }
        Some(fields)
    }

    /// The body: `None` if the head has both a length and chunks, `Some(None)` if it has neither.
    fn body(&self) -> Option<Option<Body>> {
        match (self.length, self.chunked) {
            (Some(_), true) => None,
            (Some(length), false) => Some(Some(Body::Sized(length))),
            (None, true) => Some(Some(Body::Chunked)),
            (None, false) => Some(None),
        }
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn parse_request(head: &[u8]) -> Option<(RequestKind, Body)> {
    let mut lines = lines(head);
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let mut words = first.split(' ');
    let (method, target, version, end) = (words.next()?, words.next()?, words.next()?, words.next());
    if end.is_some() || version != "HTTP/1.1" || method.is_empty() || method == "CONNECT" {
        return None;
    }
    let fields = HeaderFields::parse(lines)?;
    if fields.upgrade {
        return None;
    }
    let body = fields.body()?.unwrap_or(Body::Sized(0));
    let asked = match method {
        "POST" if is_creation(target) => RequestKind::Create(Vec::new()),
        "HEAD" => RequestKind::Head,
        _ => RequestKind::Other,
    };
    Some((asked, body))
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

fn parse_response(head: &[u8]) -> Option<(u16, HeaderFields)> {
    let mut lines = lines(head);
    let first = lines.next()?;
    let rest = first.strip_prefix(b"HTTP/1.1 ")?;
    let (digits, reason) = rest.split_at_checked(3)?;
    if !(reason.is_empty() || reason.starts_with(b" ")) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((status, HeaderFields::parse(lines)?))
}

/// How a body ends.
#[derive(Clone, Copy, Debug)]
enum Body {
    Sized(u64),
    Chunked,
}

/// Finds where one message ends and the next begins, in one direction.
#[derive(Debug, Default)]
struct Framing {
    state: FramingState,
    /// The part of a head or a line that has come.
    partial: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum FramingState {
    #[default]
    Head,
    /// A body of which this many bytes are to come.
    Sized(u64),
    /// The line before a chunk.
    Size,
    /// This many bytes of a chunk are to come.
    Chunk(u64),
    /// The line end after a chunk.
    AfterChunk,
    /// The lines after the last chunk.
    Trailer,
}

enum FramingEvent<'a> {
    Head(Vec<u8>),
    Body(&'a [u8]),
    End,
    /// More bytes are needed.
    More,
    Nonsense,
}

impl Framing {
    /// Sets the body of the message whose head was returned.
    fn begin(&mut self, body: Body) {
        self.state = match body {
            Body::Sized(length) => FramingState::Sized(length),
            Body::Chunked => FramingState::Size,
        };
    }

    /// The next event, and the bytes after it.
    fn next<'a>(&mut self, bytes: &'a [u8]) -> (FramingEvent<'a>, &'a [u8]) {
        match self.state {
            FramingState::Sized(0) => {
                self.state = FramingState::Head;
                (FramingEvent::End, bytes)
            }
            FramingState::Chunk(0) => {
                self.state = FramingState::AfterChunk;
                (FramingEvent::Body(&[]), bytes)
            }
            _ if bytes.is_empty() => (FramingEvent::More, bytes),
            FramingState::Head => match self.until(b"\r\n\r\n", HEAD, bytes) {
                Taken::Whole(head, rest) => (FramingEvent::Head(head), rest),
                Taken::Part => (FramingEvent::More, &[]),
                Taken::TooMuch => (FramingEvent::Nonsense, &[]),
            },
            FramingState::Sized(left) | FramingState::Chunk(left) => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (part, rest) = bytes.split_at(here);
                let left = left - part.len() as u64;
                self.state = match self.state {
                    FramingState::Sized(_) => FramingState::Sized(left),
                    _ => FramingState::Chunk(left),
                };
                (FramingEvent::Body(part), rest)
            }
            FramingState::Size | FramingState::AfterChunk | FramingState::Trailer => self.line(bytes),
        }
    }

    fn line<'a>(&mut self, bytes: &'a [u8]) -> (FramingEvent<'a>, &'a [u8]) {
        let (line, rest) = match self.until(b"\r\n", LINE, bytes) {
            Taken::Whole(line, rest) => (line, rest),
            Taken::Part => return (FramingEvent::More, &[]),
            Taken::TooMuch => return (FramingEvent::Nonsense, &[]),
        };
        let line = line.strip_suffix(b"\r\n").unwrap_or(&line);
        self.state = match self.state {
            FramingState::Size => match chunk_size(line) {
                Some(0) => FramingState::Trailer,
                Some(size) => FramingState::Chunk(size),
                None => return (FramingEvent::Nonsense, &[]),
            },
            FramingState::AfterChunk if line.is_empty() => FramingState::Size,
            FramingState::Trailer if line.is_empty() => {
                self.state = FramingState::Head;
                return (FramingEvent::End, rest);
            }
            FramingState::Trailer => FramingState::Trailer,
            _ => return (FramingEvent::Nonsense, &[]),
        };
        // Nothing of the body yet. A loop instead of recursion: there may be as many lines as fit into a buffer.
        (FramingEvent::Body(&[]), rest)
    }

    /// Takes bytes up to and with `end`.
    fn until<'a>(&mut self, end: &[u8], limit: usize, bytes: &'a [u8]) -> Taken<'a> {
        let before = self.partial.len();
        let taken = bytes.len().min(limit.saturating_sub(before));
        self.partial.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        // The end may have begun in an earlier piece.
        let from = before.saturating_sub(end.len() - 1);
        let searched = self.partial.get(from..).unwrap_or_default();
        match searched.windows(end.len()).position(|window| window == end) {
            Some(at) => {
                let length = from + at + end.len();
                self.partial.truncate(length);
                let rest = bytes.get(length - before..).unwrap_or_default();
                Taken::Whole(mem::take(&mut self.partial), rest)
            }
            None if self.partial.len() >= limit => Taken::TooMuch,
            None => Taken::Part,
        }
    }
}

enum Taken<'a> {
    Whole(Vec<u8>, &'a [u8]),
    Part,
    TooMuch,
}

/// The size in the line before a chunk; what follows a semicolon is an extension.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
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
                ids.extend(observer.see_engine(part).into_iter().filter_map(|seen| seen.id));
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

    fn mounted(body: &str, answer: &str) -> Vec<Creation> {
        let plain = format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let (one, other) = body.split_at(body.len() / 2);
        let parts = [one, other].into_iter().filter(|part| !part.is_empty());
        let chunks: String = parts.map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
        let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
        let found: Vec<Vec<Creation>> = [plain, chunked]
            .iter()
            .flat_map(|rest| [1, 7, 100_000].map(|piece| (rest, piece)))
            .map(|(rest, piece)| {
                let mut observer = HttpObserver::default();
                // Another request on the same connection, before and after it.
                let other = "POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
                let empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                let request = format!("{other}POST /v1.41/containers/create HTTP/1.1\r\n{rest}{other}");
                let response = format!("{empty}{answer}{empty}");
                request
                    .as_bytes()
                    .chunks(piece)
                    .for_each(|part| observer.see_client(part));
                let parts = response.as_bytes().chunks(piece);
                let seen = parts.flat_map(|part| observer.see_engine(part)).collect();
                assert!(!observer.has_stopped());
                seen
            })
            .collect();
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
        found[0].clone()
    }

    #[test]
    fn what_is_mounted_is_seen_with_the_answer() {
        let host = r#"{"Binds": ["/a b:/x:ro", "volume:/v", "/a b:/y", "~/no:/z", ":/"],
                       "Mounts": [{"Type": "bind", "Source": "/c", "Target": "/c"}, {"Type": "volume", "Source": "/d"},
                                  {"Type": "tmpfs"}, {"Type": "bind", "Source": "relative"}]}"#;
        let body = format!(r#"{{"Image": "busybox", "Labels": {{"a": "b"}}, "HostConfig": {host}}}"#);
        let sources = vec!["/a b".to_owned(), "/c".to_owned()];
        let made = Creation {
            id: Some(ID.to_owned()),
            sources: sources.clone(),
        };
        assert_eq!(mounted(&body, &created()), [made]);
        let refused = "HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(mounted(&body, refused), [Creation { id: None, sources }]);
        // The image does not exist; it is pulled, and the whole request is sent again.
        assert_eq!(mounted(&body, &refused.replace("400 Bad", "404 Bad")), []);
        let plain = Creation {
            id: Some(ID.to_owned()),
            sources: Vec::new(),
        };
        let own = body.replace("\"a\"", "\"io.dockerutils.project\"");
        let many: Vec<String> = (0..SOURCES * 2).map(|number| format!("/{number}:/x")).collect();
        let many = serde_json::json!({ "HostConfig": { "Binds": many } }).to_string();
        assert_eq!(mounted(&many, &created())[0].sources.len(), SOURCES);
        let long = serde_json::json!({ "HostConfig": { "Binds": [format!("/{}:/x", "y".repeat(PATH))] } });
        let vast = format!("{body}{}", " ".repeat(CREATION));
        for body in [
            own.as_str(),
            "{}",
            "",
            "[",
            "null",
            r#"{"HostConfig": null}"#,
            r#"{"HostConfig": {"Binds": null, "Mounts": null}}"#,
            r#"{"HostConfig": {"Binds": [1]}}"#,
            &"[".repeat(100_000),
            &long.to_string(),
            &vast,
        ] {
            assert_eq!(
                mounted(body, &created()),
                std::slice::from_ref(&plain),
                "{}",
                &body[..body.len().min(80)]
            );
        }
    }

    #[test]
    fn an_engine_that_answers_before_it_heard_all_mixes_nothing_up() {
        let mut observer = HttpObserver::default();
        observer.see_client(b"POST /containers/create HTTP/1.1\r\nContent-Length: 37\r\n\r\n{\"HostConfig\": ");
        assert_eq!(observer.see_engine(created().as_bytes())[0].sources, [""; 0]);
        observer.see_client(b"{\"Binds\": [\"/a:/a\"]}} ");
        observer.see_client(create().as_bytes());
        assert_eq!(observer.see_engine(created().as_bytes())[0].sources, [""; 0]);
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
