//! The frames of an agent's control socket: one byte for the kind, four for the length (big-endian), then that many
//! bytes.
//!
//! Frames carry the handshake, and all of an [`Exec`](super::target::Exec); after the handshake for an engine or a TCP
//! port the bytes are raw.

use std::io;

use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

/// The longest payload of a frame. A frame of data holds what one read gave; a longer frame is not one of ours.
pub const FRAME_LIMIT: usize = 256 * 1024;
/// How many bytes precede the payload.
pub const HEADER: usize = 5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A message of the handshake, in JSON.
    Message,
    /// Bytes for the command's stdin; an empty frame is the end of it.
    Stdin,
    /// A new size of the command's terminal, in JSON.
    Resize,
    /// Bytes of the command's stdout.
    Stdout,
    /// Bytes of the command's stderr.
    Stderr,
    /// How the command ended, in JSON; the last frame.
    Exit,
    /// Why the command can't be followed any longer, in JSON; the last frame.
    Failure,
}

impl FrameKind {
    const ALL: [Self; 7] = [
        Self::Message,
        Self::Stdin,
        Self::Resize,
        Self::Stdout,
        Self::Stderr,
        Self::Exit,
        Self::Failure,
    ];

    const fn code(self) -> u8 {
        self as u8
    }

    fn of(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Reads a frame and puts its payload into `payload`. `None` if the other side has closed between two frames.
///
/// # Errors
/// A stream that breaks within a frame, and bytes that are not a frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin), payload: &mut Vec<u8>) -> io::Result<Option<FrameKind>> {
    let mut header = [0; HEADER];
    let mut known = 0;
    while let Some(rest) = header.get_mut(known..).filter(|rest| !rest.is_empty()) {
        match from.read(rest).await? {
            0 if known == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => known += read,
        }
    }
    let [code, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    let kind = FrameKind::of(code)
        .filter(|_| length <= FRAME_LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what came over the socket is no frame"))?;
    payload.resize(length, 0);
    from.read_exact(payload).await?;
    Ok(Some(kind))
}

/// Writes a frame.
///
/// # Errors
/// A stream that breaks, and a payload that is longer than a frame may be.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), kind: FrameKind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&encode(kind, payload)?).await
}

/// A frame in one piece: it can only be torn by a write that does not finish.
///
/// # Errors
/// A payload that is longer than a frame may be.
pub fn encode(kind: FrameKind, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend(header(kind, payload.len())?);
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// The bytes that precede a payload of this length.
///
/// # Errors
/// A payload that is longer than a frame may be.
pub fn header(kind: FrameKind, length: usize) -> io::Result<[u8; HEADER]> {
    let [a, b, c, d] = u32::try_from(length)
        .ok()
        .filter(|_| length <= FRAME_LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame can't be this long"))?
        .to_be_bytes();
    Ok([kind.code(), a, b, c, d])
}

/// Reads a message of the handshake; `None` if the other side has closed instead.
///
/// # Errors
/// A stream that breaks, and a frame that holds something else.
pub async fn read_message<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<M>> {
    let mut payload = Vec::new();
    match read(from, &mut payload).await? {
        None => Ok(None),
        Some(FrameKind::Message) => Ok(Some(serde_json::from_slice(&payload)?)),
        Some(kind) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of kind {kind:?} in place of a message"),
        )),
    }
}

/// Reads a message that may be longer than a frame: its length, in a message, then frames of [`FrameKind::Stdout`].
/// `None` if the other side has closed instead.
///
/// # Errors
/// As [`read_message`], and a message that is longer than `limit`.
pub async fn read_long_message<M: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Option<M>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(length) = read_message::<usize>(from).await? else {
        return Ok(None);
    };
    if length > limit {
        return Err(wrong("a message is longer than it may be"));
    }
    let (mut text, mut payload) = (Vec::new(), Vec::new());
    while text.len() < length {
        match read(from, &mut payload).await? {
            Some(FrameKind::Stdout) if !payload.is_empty() && text.len() + payload.len() <= length => {
                text.extend_from_slice(&payload);
            }
            Some(_) => return Err(wrong("a message is not as long as it was said to be")),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Writes a message that may be longer than a frame.
///
/// # Errors
/// As [`write`].
pub async fn write_long_message(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    write_message(to, &text.len()).await?;
    for part in text.chunks(FRAME_LIMIT) {
        write(to, FrameKind::Stdout, part).await?;
    }
    Ok(())
}

/// Waits until something can be read, and does not read it; false if that is the end of the stream.
///
/// # Errors
/// A stream that breaks.
pub async fn incoming(stream: &UnixStream) -> io::Result<bool> {
    loop {
        stream.readable().await?;
        // The runtime may be wrong about that; only the system knows.
        let peeked = stream.try_io(Interest::READABLE, || {
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let (_, length) = rustix::net::recv(stream, &mut [0; 1], flags)?;
            Ok(length > 0)
        });
        match peeked {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Writes a message of the handshake.
///
/// # Errors
/// As [`write`].
pub async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    write(to, FrameKind::Message, &serde_json::to_vec(message)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_as_they_were_written_whatever_cuts_them() {
        let (mut one, mut other) = tokio::io::duplex(3);
        let writing = async move {
            for kind in FrameKind::ALL {
                write(&mut one, kind, format!("{kind:?}").as_bytes()).await.unwrap();
            }
            write(&mut one, FrameKind::Stdin, b"").await.unwrap();
        };
        let reading = async move {
            let mut payload = Vec::new();
            for expected in FrameKind::ALL {
                assert_eq!(read(&mut other, &mut payload).await.unwrap(), Some(expected));
                assert_eq!(payload, format!("{expected:?}").as_bytes());
            }
            assert_eq!(read(&mut other, &mut payload).await.unwrap(), Some(FrameKind::Stdin));
            assert!(payload.is_empty());
            assert_eq!(read(&mut other, &mut payload).await.unwrap(), None);
        };
        tokio::join!(writing, reading);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_refused_before_it_is_read() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x00\xff\xff\xff\xff",
            b"\x07\0\0\0\0",
            b"\x01\0\0\0\x04ab",
            b"\x01\0",
        ] {
            let mut from = bytes;
            assert!(read(&mut from, &mut Vec::new()).await.is_err(), "{bytes:?}");
        }
        assert!(encode(FrameKind::Stdout, &vec![0; FRAME_LIMIT + 1]).is_err());
    }
}
