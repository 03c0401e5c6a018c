//! Where one message of HTTP/1.1 (RFC 9112) ends and the next begins, in bytes that come in pieces of any size.
//!
//! It is strict: what two programs could understand differently is no message.

use std::mem;

use httparse::Header;

/// The longest head of a message, in bytes: it may hold a registry's credentials.
pub(super) const HEAD: usize = 64 * 1024;
/// The longest line between chunks, in bytes.
const LINE: usize = 1024;

/// The most fields in a head; docker clients send about ten.
const FIELDS: usize = 128;

/// What the fields of a message's head say about its body, and about the connection.
#[derive(Debug, Default)]
pub(super) struct HeaderFields {
    length: Option<u64>,
    chunked: bool,
    pub(super) upgrade: bool,
    /// The media type of a stream without HTTP's framing.
    pub(super) raw: bool,
    /// A `Content-Encoding`, such as gzip.
    pub(super) encoded: bool,
    /// `Connection: close`: no other message follows.
    pub(super) close: bool,
    /// `Expect: 100-continue`: the body is sent once it is asked for.
    pub(super) expects_continue: bool,
}

impl HeaderFields {
    /// `None` if the fields are not plain.
    fn read(headers: &[Header<'_>]) -> Option<Self> {
        let mut fields = Self::default();
        for Header { name, value } in headers {
            let value = value.trim_ascii();
            if name.eq_ignore_ascii_case("content-length") {
                let digits = std::str::from_utf8(value).ok()?;
                if fields.length.is_some() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                fields.length = Some(digits.parse().ok()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if fields.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return None;
                }
                fields.chunked = true;
            } else if name.eq_ignore_ascii_case("upgrade") {
                fields.upgrade = true;
            } else if name.eq_ignore_ascii_case("content-type") {
                fields.raw |= value.starts_with(b"application/vnd.docker.raw-stream")
                    || value.starts_with(b"application/vnd.docker.multiplexed-stream");
            } else if name.eq_ignore_ascii_case("content-encoding") {
                fields.encoded |= !value.eq_ignore_ascii_case(b"identity");
            } else if name.eq_ignore_ascii_case("connection") {
                let mut options = value.split(|byte| *byte == b',');
                fields.close |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
            } else if name.eq_ignore_ascii_case("expect") {
                fields.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Some(fields)
    }

    /// The body: `None` if the head has both a length and chunks, `Some(None)` if it has neither.
    pub(super) fn body(&self) -> Option<Option<Body>> {
        match (self.length, self.chunked) {
            (Some(_), true) => None,
            (Some(length), false) => Some(Some(Body::Sized(length))),
            (None, true) => Some(Some(Body::Chunked)),
            (None, false) => Some(None),
        }
    }
}

/// Whether every line of a head ends with CR LF, and the first one is not empty: other programs, and `httparse`, take
/// more than that, and could see the head's end elsewhere.
fn has_plain_lines(head: &[u8]) -> bool {
    let is_bare = |pair: &[u8]| matches!(pair, [before, b'\n'] if *before != b'\r');
    !matches!(head, [b'\r' | b'\n', ..]) && !head.windows(2).any(is_bare)
}

/// The head of a request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: String,
    /// The path with its query, as the client wrote it.
    pub(super) target: String,
    pub(super) fields: HeaderFields,
    pub(super) body: Body,
    /// Whether it is HTTP/1.0, which has neither chunks nor, unless both sides say so, another request after it.
    pub(super) is_old: bool,
}

impl RequestHead {
    /// Parses a head with its empty line; `None` if it is not plain HTTP/1.1 or 1.0.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(head) != Ok(httparse::Status::Complete(head.len())) || !is_plain_request(&request, head) {
            return None;
        }
        let fields = HeaderFields::read(request.headers)?;
        Some(Self {
            method: request.method?.to_owned(),
            target: request.path?.to_owned(),
            is_old: request.version == Some(0),
            body: fields.body()?.unwrap_or(Body::Sized(0)),
            fields,
        })
    }

    /// Whether bytes that have come so far can become the head of a request. To be asked when the first line has come,
    /// and not for each piece: it looks at all bytes.
    pub(super) fn may_begin_with(part: &[u8]) -> bool {
        let mut headers = [httparse::EMPTY_HEADER; FIELDS];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(part).is_ok() && is_plain_request(&request, part)
    }
}

fn is_plain_request(request: &httparse::Request<'_, '_>, head: &[u8]) -> bool {
    request.version.is_none_or(|minor| minor <= 1) && request.method != Some("CONNECT") && has_plain_lines(head)
}

/// The head of a response.
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// The status code.
    pub(super) status: u16,
    pub(super) fields: HeaderFields,
}

impl ResponseHead {
    /// Parses a head with its empty line; `None` if it is not plain HTTP/1.1.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let mut headers = [httparse::EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(head);
        if parsed != Ok(httparse::Status::Complete(head.len())) || response.version != Some(1) || !has_plain_lines(head)
        {
            return None;
        }
        Some(Self {
            status: response.code?,
            fields: HeaderFields::read(response.headers)?,
        })
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Sized(u64),
    Chunked,
}

/// Finds where one message ends and the next begins, in one direction.
#[derive(Debug, Default)]
pub(super) struct Framing {
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

pub(super) enum FramingEvent<'a> {
    Head(Vec<u8>),
    Body(&'a [u8]),
    End,
    /// More bytes are needed.
    More,
    Nonsense,
}

impl Framing {
    /// Sets the body of the message whose head was returned.
    pub(super) fn begin(&mut self, body: Body) {
        self.state = match body {
            Body::Sized(length) => FramingState::Sized(length),
            Body::Chunked => FramingState::Size,
        };
    }

    /// Whether it is in the head of a message, or before it.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, FramingState::Head)
    }

    /// Whether it is between two messages: nothing of the next one has come.
    pub(super) fn is_between(&self) -> bool {
        self.is_in_head() && self.partial.is_empty()
    }

    /// Whether it is before the length of a chunk, nothing of which has come.
    pub(super) fn is_before_chunk(&self) -> bool {
        matches!(self.state, FramingState::Size) && self.partial.is_empty()
    }

    /// The next event, and the bytes after it.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> (FramingEvent<'a>, &'a [u8]) {
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
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            // Some programs end a line here already.
            return (FramingEvent::Nonsense, &[]);
        }
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

/// A whole body that came in chunks, without the lines between them.
pub(super) fn decoded(chunks: &[u8]) -> Vec<u8> {
    let mut framing = Framing::default();
    framing.begin(Body::Chunked);
    let (mut body, mut rest) = (Vec::new(), chunks);
    loop {
        let (event, after) = framing.next(rest);
        rest = after;
        match event {
            FramingEvent::Body(part) => body.extend_from_slice(part),
            _ => return body,
        }
    }
}

/// The head of a request with another target.
pub(super) fn with_target(head: &[u8], target: &str) -> Vec<u8> {
    let mut parts = head.splitn(3, |byte| *byte == b' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(method), Some(_), Some(rest)) => [method, b" ", target.as_bytes(), b" ", rest].concat(),
        // No head of a request.
        _ => head.to_vec(),
    }
}

/// The head of a request of HTTP/1.0 that does not ask for another one on its connection.
pub(super) fn for_one_request(head: &[u8]) -> Vec<u8> {
    let keeps_alive = |line: &&[u8]| {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return false;
        };
        let (name, value) = line.split_at(colon);
        let mut options = value.get(1..).unwrap_or_default().split(|byte| *byte == b',');
        name.eq_ignore_ascii_case(b"connection")
            && options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
    };
    let lines = head.split_inclusive(|byte| *byte == b'\n').enumerate();
    let kept = lines.filter(|(number, line)| *number == 0 || !keeps_alive(line));
    kept.flat_map(|(_, line)| line).copied().collect()
}

/// The head of a message with another length of its body, if one is given, and without what the body no longer has:
/// chunks, trailers. `Expect: 100-continue` is left out, too. The other lines are the same, in their order.
pub(super) fn edited(head: &[u8], length: Option<usize>) -> Vec<u8> {
    let mut length = length.map(|length| (length, false));
    let mut edited = Vec::with_capacity(head.len() + 32);
    for (number, line) in head.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(0));
        let is = |other: &str| number > 0 && name.eq_ignore_ascii_case(other.as_bytes());
        let is_end = line == b"\r\n";
        let has_length = is("content-length") || is("transfer-encoding");
        if let Some((length, is_said)) = &mut length
            && !*is_said
            && (has_length || is_end)
        {
            edited.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
            *is_said = true;
        }
        let expects = is("expect")
            && value
                .get(1..)
                .unwrap_or_default()
                .trim_ascii()
                .eq_ignore_ascii_case(b"100-continue");
        if !(expects || length.is_some() && (has_length || is("trailer"))) {
            edited.extend_from_slice(line);
        }
    }
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_request(head: &str) -> bool {
        RequestHead::parse(head.as_bytes()).is_some()
    }

    #[test]
    fn only_the_target_of_a_head_is_another_one() {
        assert_eq!(
            with_target(b"GET /a?b=c HTTP/1.1\r\nA: b c\r\n\r\n", "/d?e=%20"),
            b"GET /d?e=%20 HTTP/1.1\r\nA: b c\r\n\r\n"
        );
    }

    #[test]
    fn a_request_of_http_1_0_is_alone_on_its_connection() {
        let is_old = |version: &str| {
            let head = format!("GET /a HTTP/{version}\r\n\r\n");
            RequestHead::parse(head.as_bytes()).map(|head| head.is_old)
        };
        assert_eq!(
            (is_old("1.0"), is_old("1.1"), is_old("1.2")),
            (Some(true), Some(false), None)
        );
        for (fields, expected) in [
            ("A: b\r\nConnection: Keep-Alive\r\nC: d\r\n", "A: b\r\nC: d\r\n"),
            ("connection:a , keep-alive\r\n", ""),
            (
                "Connection: close\r\nKeep-Alive: 5\r\n",
                "Connection: close\r\nKeep-Alive: 5\r\n",
            ),
            ("X-Connection: keep-alive\r\n", "X-Connection: keep-alive\r\n"),
        ] {
            let head = format!("GET /a:b HTTP/1.0\r\n{fields}\r\n");
            let expected = format!("GET /a:b HTTP/1.0\r\n{expected}\r\n");
            assert_eq!(String::from_utf8(for_one_request(head.as_bytes())).unwrap(), expected);
        }
    }

    #[test]
    fn what_programs_could_understand_differently_is_no_head() {
        assert!(is_request("GET /a HTTP/1.1\r\nA: b\r\n\r\n"));
        assert!(is_request("GET /a?b=%2f HTTP/1.1\r\n\r\n"));
        for head in [
            "GET /a HTTP/1.2\r\n\r\n",
            "GET /a HTTP/0.9\r\n\r\n",
            "GET /a\r\n\r\n",
            "GET  /a HTTP/1.1\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
            "\r\nGET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\nA: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\nContent-Length: 3\r\n\r\n",
            "GET /a HTTP/1.1\n\nA: b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            "GET /a HTTP/1.1\r\nA : b\r\n\r\n",
            "GET /a HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "GET /a HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "GET /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /a HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
        ] {
            assert!(!is_request(head), "{head:?}");
        }
        let status = |head: &str| ResponseHead::parse(head.as_bytes()).map(|head| head.status);
        assert_eq!(status("HTTP/1.1 204\r\n\r\n"), Some(204));
        assert_eq!(status("HTTP/1.1 204 No Content\r\n\r\n"), Some(204));
        for head in [
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        ] {
            assert_eq!(status(head), None, "{head:?}");
        }
    }

    #[test]
    fn a_request_can_be_told_by_its_first_line() {
        for (part, may) in [
            ("POST /v1.45/containers/create HTTP/1.1\r\nHost: do", true),
            ("GET / HTTP/1.1\r\n", true),
            ("echo\n", false),
            ("hello world\r\n", false),
            ("PRI * HTTP/2.0\r\n", false),
            ("GET / HTTP/1.0\r\n", true),
            ("GET /\r\n", false),
            ("GET / HTTP/1.1\n", false),
            ("\r\n", false),
        ] {
            assert_eq!(RequestHead::may_begin_with(part.as_bytes()), may, "{part:?}");
        }
    }

    #[test]
    fn a_head_gets_another_length_and_keeps_the_rest() {
        let head = b"POST /a:b HTTP/1.1\r\nHost: docker\r\ntransfer-encoding: chunked\r\nExpect: 100-Continue\r\nTrailer: x\r\n\
                     X-A:b: c\r\n\r\n";
        let text = |length| String::from_utf8(edited(head, length)).unwrap();
        assert_eq!(
            text(Some(7)),
            "POST /a:b HTTP/1.1\r\nHost: docker\r\nContent-Length: 7\r\nX-A:b: c\r\n\r\n"
        );
        assert_eq!(
            text(None),
            "POST /a:b HTTP/1.1\r\nHost: docker\r\ntransfer-encoding: chunked\r\nTrailer: x\r\nX-A:b: c\r\n\r\n"
        );
        let bare = b"POST / HTTP/1.1\r\nExpect: other\r\n\r\n";
        assert_eq!(edited(bare, None), bare);
        assert_eq!(
            edited(bare, Some(0)),
            b"POST / HTTP/1.1\r\nExpect: other\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(
            decoded(b"3;a=b\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
            b"abc0123456789"
        );
        assert_eq!(decoded(b"0\r\n\r\n"), b"");
        assert_eq!(decoded(b"1;a\nb\r\nx\r\n0\r\n\r\n"), b"", "a bare line feed");
    }
}
