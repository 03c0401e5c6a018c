//! The streams of bollard's calls, bounded: bollard collects an answer whole, without a limit, and its own time limit
//! ends with the headers. A hostile engine could fill the memory, or keep a command waiting for ever, byte by byte.
//!
//! A connection carries one request after the other, so what is read since the last write belongs to one answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::stream::{Dialer, EngineStream};

/// How much an answer may be, with its headers, and how long it may take, to its end.
#[derive(Clone, Copy, Debug)]
pub(in crate::docker) struct Bounds {
    /// In bytes.
    pub(in crate::docker) bytes: u64,
    /// From the last byte of the request.
    pub(in crate::docker) time: Duration,
}

/// Opens streams with bounds; hyper's connector.
#[derive(Clone, Debug)]
pub(in crate::docker) struct BoundedDialer {
    dialer: Dialer,
    bounds: Bounds,
}

impl BoundedDialer {
    pub(in crate::docker) const fn new(dialer: Dialer, bounds: Bounds) -> Self {
        Self { dialer, bounds }
    }
}

impl tower_service::Service<Uri> for BoundedDialer {
    type Response = TokioIo<BoundedStream<EngineStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { dialer, bounds } = self.clone();
        Box::pin(async move { Ok(TokioIo::new(BoundedStream::new(dialer.dial().await?, bounds))) })
    }
}

/// A stream whose answers have bounds.
pub(in crate::docker) struct BoundedStream<S> {
    stream: S,
    bounds: Bounds,
    left: u64,
    deadline: Pin<Box<Sleep>>,
}

impl<S> BoundedStream<S> {
    fn new(stream: S, bounds: Bounds) -> Self {
        Self {
            stream,
            bounds,
            left: bounds.bytes,
            deadline: Box::pin(tokio::time::sleep(bounds.time)),
        }
    }

    /// A request is sent: what comes from now on is another answer.
    fn begin(&mut self) {
        self.left = self.bounds.bytes;
        self.deadline.as_mut().reset(Instant::now() + self.bounds.time);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("its answer did not end within {} seconds", this.bounds.time.as_secs()),
            )));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let got = buf.filled().len().saturating_sub(before);
        match this.left.checked_sub(got as u64) {
            Some(left) => this.left = left,
            None => {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("its answer is larger than {} MiB", this.bounds.bytes >> 20),
                )));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin();
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.begin();
        Pin::new(&mut this.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connection for BoundedStream<EngineStream> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn bounded_stream(bytes: u64, time: Duration) -> (BoundedStream<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, engines) = tokio::io::duplex(1 << 20);
        (BoundedStream::new(ours, Bounds { bytes, time }), engines)
    }

    #[tokio::test]
    async fn each_answer_has_its_bound_of_bytes() {
        let (mut ours, mut engine) = bounded_stream(1000, Duration::from_secs(60));
        for _ in 0..3 {
            ours.write_all(b"question").await.unwrap();
            engine.write_all(&[b'x'; 900]).await.unwrap();
            ours.read_exact(&mut [0; 900]).await.unwrap();
        }
        engine.write_all(&[b'x'; 200]).await.unwrap();
        let error = ours.read_exact(&mut [0; 200]).await.unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_never_ends_is_given_up_though_bytes_keep_coming() {
        let (mut ours, mut engine) = bounded_stream(1 << 30, Duration::from_millis(300));
        ours.write_all(b"question").await.unwrap();
        tokio::spawn(async move {
            while engine.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut answer = Vec::new();
        let error = ours.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(!answer.is_empty());
    }
}
