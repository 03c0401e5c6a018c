//! The gRPC side of an engine: a connection to its `/grpc`, where BuildKit and the content store answer.

use std::time::Duration;

use tonic::transport::Channel;

use super::engine::Engine;
use crate::error::Result;

/// The flow-control window of a stream, in bytes: more than any link's bandwidth times its delay.
pub(in crate::docker) const WINDOW: u32 = 8 << 20;
/// The window of all streams of a connection together, where messages are small and come faster than they are read: in
/// effect no limit. h2 treats a peer as hostile that sends many small frames which nobody has read yet, and allows half
/// of this window; BuildKit asks for each file of a context with a frame of ten bytes.
pub(in crate::docker) const SMALL_MESSAGES: u32 = 1 << 30;
/// An engine that answers no ping within these two times is gone: an answer may take hours, a ping never does.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(40);

/// Opens a connection, with a window for all its streams together. It ends when the last copy of the channel is dropped.
///
/// # Errors
/// An engine without `/grpc`, or a broken connection.
pub(in crate::docker) async fn connect(engine: &Engine, window: u32) -> Result<Channel> {
    let stream = engine.hijack("/grpc", "h2c", &[]).await?;
    // This is the only connection: the channel must not dial again.
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: hyper::Uri| {
        let stream = stream.take();
        async move {
            stream
                .map(hyper_util::rt::TokioIo::new)
                .ok_or_else(|| std::io::Error::other("the engine closed the connection"))
        }
    });
    tonic::transport::Endpoint::from_static("http://docker")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(window)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|cause| engine.lost(cause))
}
