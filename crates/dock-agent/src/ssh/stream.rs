//! The local ends of a channel as the runtime's streams. An end of file that did not come from the dock is an error
//! here: output that a broken link cut off must not look complete.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use dock_client::agent::target::{Exit, Size};
use dock_link::transport::{Connection, ExecSide, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::handle::{ChannelPart, Ends, Handle, Notifier};

/// A value that lives as long as a connection does.
pub(super) type Kept = Option<Arc<dyn Send + Sync>>;

/// One end: readable, and for [`ChannelPart::Stream`] writable, too.
pub(super) struct ChannelEnd {
    inner: UnixStream,
    /// The end came from the dock.
    clean: Arc<AtomicBool>,
    fate: watch::Receiver<Option<TransportError>>,
    notifier: Notifier,
    id: u64,
    part: ChannelPart,
    /// Its end was written.
    ended: bool,
    _kept: Kept,
}

impl ChannelEnd {
    fn broken(&self) -> io::Error {
        let reason = self.fate.borrow().as_ref().map(ToString::to_string);
        let reason = reason.unwrap_or_else(|| "the ssh session was closed".to_owned());
        io::Error::new(io::ErrorKind::ConnectionReset, reason)
    }
}

impl AsyncRead for ChannelEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before || room == 0 => Poll::Ready(Ok(())),
            // A pair whose other end was closed with unread bytes reports "reset" after its last byte.
            Poll::Ready(_) if self.clean.load(Ordering::Acquire) => Poll::Ready(Ok(())),
            Poll::Ready(_) => Poll::Ready(Err(self.broken())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for ChannelEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Ready(Err(_)) if self.fate.borrow().is_some() => Poll::Ready(Err(self.broken())),
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has no buffer to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        match Pin::new(&mut self.inner).poll_shutdown(cx) {
            // The other end is gone already.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl Drop for ChannelEnd {
    fn drop(&mut self) {
        let part = match self.part {
            ChannelPart::Stream if self.ended => ChannelPart::Reader,
            part => part,
        };
        self.notifier.drop_part(self.id, part);
    }
}

/// Makes the connection of a channel's ends. Called within the runtime. `kept` lives as long as the connection.
pub(super) fn connection(ends: Ends, handle: &Handle, kept: Kept) -> io::Result<Connection> {
    connection_on(ends, handle.fate(), handle.notifier(), kept)
}

/// [`connection`], for who has not the handle itself.
pub(super) fn connection_on(
    ends: Ends,
    fate: &watch::Receiver<Option<TransportError>>,
    notifier: &Notifier,
    kept: Kept,
) -> io::Result<Connection> {
    let Ends {
        id,
        stream,
        stream_end,
        exec,
    } = ends;
    let end = |stream: StdStream, clean, part| {
        Ok::<_, io::Error>(ChannelEnd {
            inner: UnixStream::from_std(stream)?,
            clean,
            fate: fate.clone(),
            notifier: notifier.clone(),
            id,
            part,
            ended: false,
            _kept: kept.clone(),
        })
    };
    let stream = Box::new(end(stream, stream_end, ChannelPart::Stream)?);
    let exec = match exec {
        None => None,
        Some(ends) => {
            let stderr = Box::new(end(ends.stderr, ends.stderr_end, ChannelPart::Stderr)?);
            let (resize, sizes) = mpsc::channel(4);
            let (exit, exited) = oneshot::channel();
            tokio::spawn(watch_exec(notifier.clone(), id, sizes, ends.exit, exit, kept.clone()));
            Some(ExecSide {
                stderr,
                resize,
                exit: exited,
            })
        }
    };
    Ok(Connection { stream, exec })
}

/// Passes terminal sizes and the exit code between the two sides of a command.
async fn watch_exec(
    notifier: Notifier,
    id: u64,
    mut sizes: mpsc::Receiver<Size>,
    mut ended: oneshot::Receiver<Exit>,
    mut exit: oneshot::Sender<Exit>,
    _kept: Kept,
) {
    let mut resizable = true;
    loop {
        tokio::select! {
            size = sizes.recv(), if resizable => match size {
                Some(size) => notifier.resize(id, size),
                None => resizable = false,
            },
            code = &mut ended => {
                if let Ok(code) = code {
                    // The receiver may have gone.
                    let _ = exit.send(code);
                }
                return;
            }
            () = exit.closed() => {
                notifier.drop_part(id, ChannelPart::Exit);
                return;
            }
        }
    }
}
