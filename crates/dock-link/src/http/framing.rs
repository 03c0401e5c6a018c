//! Where one message of HTTP/1.1 (RFC 9112) ends and the next begins, in bytes that come in pieces of any size.
//!
//! It is strict: what two programs could understand differently is no message.

use std::mem;

/// The longest head of a message, in bytes: it may hold a registry's credentials.
pub(super) const HEAD: usize = 64 * 1024;
/// The longest line between chunks, in bytes.
const LINE: usize = 1024;

/// What the head of a message says about its body.
#[derive(Debug, Default)]
pub(super) struct HeaderFields {
    length: Option<u64>,
    chunked: bool,
    pub(super) upgrade: bool,
    /// The media type of a stream without HTTP's framing.
    pub(super) raw: bool,
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
    pub(super) fn body(&self) -> Option<Option<Body>> {
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

/// The head of a request.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) method: String,
    /// The path with its query, as the client wrote it.
    pub(super) target: String,
    pub(super) fields: HeaderFields,
    pub(super) body: Body,
}

impl RequestHead {
    /// Parses a head with its empty line; `None` if it is not plain HTTP/1.1.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = lines(head);
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let mut words = first.split(' ');
        let (method, target, version, end) = (words.next()?, words.next()?, words.next()?, words.next());
        if end.is_some() || version != "HTTP/1.1" || method.is_empty() || method == "CONNECT" {
            return None;
        }
        let fields = HeaderFields::parse(lines)?;
        Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            body: fields.body()?.unwrap_or(Body::Sized(0)),
            fields,
        })
    }
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
        let mut lines = lines(head);
        let first = lines.next()?;
        let rest = first.strip_prefix(b"HTTP/1.1 ")?;
        let (digits, reason) = rest.split_at_checked(3)?;
        if !(reason.is_empty() || reason.starts_with(b" ")) || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let fields = HeaderFields::parse(lines)?;
        Some(Self { status, fields })
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
