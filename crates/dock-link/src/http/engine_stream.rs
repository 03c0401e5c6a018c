//! The engine's end of a client's connection, which can be opened anew.
//!
//! While a request is held and no answer is due, the engine knows nothing of what its client waits for. If the link breaks then,
//! or the engine closes the connection, another one serves as well, and the client never hears of it.

use std::future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use dock_client::mutex::lock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::exchanges::Exchanges;
use super::hooks::EngineHooks;
use crate::link::{Over, ended};
use crate::transport::Duplex;

/// A handle of the stream: one reads, and one writes.
#[derive(Clone)]
pub(super) struct EngineStream {
    exchanges: Arc<Exchanges>,
    current: Arc<CurrentStream>,
}

struct CurrentStream {
    state: Mutex<StreamAndWakers>,
    /// Notified when the stream has ended and another one is to be opened.
    lost: Notify,
}

struct StreamAndWakers {
    /// `None` while another one is opened.
    stream: Option<Box<dyn Duplex>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl EngineStream {
    pub(super) fn new(stream: Box<dyn Duplex>, exchanges: Arc<Exchanges>) -> Self {
        let state = StreamAndWakers {
            stream: Some(stream),
            reader: None,
            writer: None,
        };
        let current = CurrentStream {
            state: Mutex::new(state),
            lost: Notify::new(),
        };
        Self {
            exchanges,
            current: Arc::new(current),
        }
    }

    /// Opens another stream each time that the link is over, or the engine closes this one, for as long as that is possible. Ends
    /// when the connection is to be closed at once.
    pub(super) async fn renewed(&self, mut over: Over, hooks: &impl EngineHooks) {
        loop {
            tokio::select! {
                _ = ended(&mut over) => {
                    if !self.exchanges.can_begin_anew() {
                        return;
                    }
                    lock(&self.current.state).stream = None;
                }
                () = self.current.lost.notified() => {}
            }
            match hooks.reopen().await {
                Ok((stream, now)) => {
                    over = now;
                    self.put(stream);
                }
                Err(why) => {
                    if !self.exchanges.refuse(&why) {
                        return;
                    }
                    // The connection ends when the client has this answer.
                    future::pending::<()>().await;
                }
            }
        }
    }

    fn put(&self, stream: Box<dyn Duplex>) {
        let mut state = lock(&self.current.state);
        state.stream = Some(stream);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Does something with the stream there is, or waits for another one.
    fn with_stream<T>(
        &self,
        context: &mut Context<'_>,
        act: impl FnOnce(Pin<&mut dyn Duplex>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut state = lock(&self.current.state);
        state.writer = Some(context.waker().clone());
        match &mut state.stream {
            Some(stream) => act(Pin::new(&mut **stream), context),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for EngineStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.current.state);
        state.reader = Some(context.waker().clone());
        let Some(stream) = &mut state.stream else {
            return Poll::Pending;
        };
        let before = buffer.filled().len();
        match Pin::new(&mut **stream).poll_read(context, buffer) {
            Poll::Ready(read) => {
                let has_ended = read.is_err() || buffer.filled().len() == before;
                if has_ended && self.exchanges.can_begin_anew() {
                    state.stream = None;
                    self.current.lost.notify_one();
                    return Poll::Pending;
                }
                Poll::Ready(read)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for EngineStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_stream(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(context, |stream, context| stream.poll_shutdown(context))
    }
}
