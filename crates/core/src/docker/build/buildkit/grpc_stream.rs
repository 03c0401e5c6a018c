//! The answer of a streaming gRPC call, written by hand, so that each message may be compressed or not.
//!
//! Protocol: "gRPC over HTTP/2": a message is a flag (1: compressed as in `grpc-encoding`), its length in four bytes,
//! and its bytes; the status is in the trailers. tonic compresses all messages of a stream or none; here a slow link
//! gets compressed ones, and a fast one does not wait for compression.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::http::{self, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::docker::connect::adaptive_compression::{Format, Pace, Packer, Queue};
use dock_client::mutex::lock;

/// Flag and length, in bytes.
const PREFIX: usize = 5;
/// Batches of messages that wait for the connection; each has a chunk of a file at most. Whether a message is
/// compressed was decided before it waits here, so that only few compressed ones may wait.
const QUEUE: usize = 64;
const PACKED_QUEUE: usize = 16;
/// Smaller messages, in bytes, are not worth compressing.
const WORTH_PACKING: usize = 512;
/// The link's speed is measured over so many bytes: as many as buffers on the way may hold, so that a slow link does
/// not look fast at its beginning.
const LESSON: usize = 2 << 20;
/// About how many bytes are given to the connection at once.
const WRITE: usize = 64 * 1024;

/// The sending end of the stream.
#[derive(Debug)]
pub(super) struct Outlet {
    batches: mpsc::Sender<Bytes>,
    packing: Option<Mutex<Packing>>,
}

#[derive(Debug)]
struct Packing {
    pace: Pace,
    /// Bytes since the last measurement, and how many they were when packed.
    bytes: usize,
    packed: usize,
}

/// The receiver is gone.
#[derive(Debug)]
pub(super) struct Closed;

impl Outlet {
    /// Sends messages from a thread that may wait; they stay together.
    pub(super) fn blocking_send<M: Message>(&self, messages: &[M]) -> Result<(), Closed> {
        self.batches.blocking_send(self.encode(messages)).map_err(|_| Closed)
    }

    /// [`Outlet::blocking_send`], from a task.
    pub(super) async fn send<M: Message>(&self, messages: &[M]) -> Result<(), Closed> {
        self.batches.send(self.encode(messages)).await.map_err(|_| Closed)
    }

    fn encode<M: Message>(&self, messages: &[M]) -> Bytes {
        let length = messages.iter().map(|message| PREFIX + message.encoded_len()).sum();
        let mut batch = BytesMut::with_capacity(length);
        for message in messages {
            let length = message.encoded_len();
            match self.packed(message, length) {
                Some(packed) => put(&mut batch, 1, &packed),
                None => {
                    batch.put_u8(0);
                    batch.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
                    // It fails only without space, and a `BytesMut` grows.
                    let _ = message.encode(&mut batch);
                }
            }
        }
        batch.freeze()
    }

    /// The compressed message, if compressing it is worth the time.
    fn packed(&self, message: &impl Message, length: usize) -> Option<Vec<u8>> {
        let packing = self.packing.as_ref().filter(|_| length >= WORTH_PACKING)?;
        let level = lock(packing).pace.level();
        let packed = match level {
            0 => None,
            level => Packer::new(Format::Gzip).pack(&message.encode_to_vec(), level).ok(),
        };
        let packed = packed.filter(|packed| packed.len() < length);
        lock(packing).learn(length, packed.as_ref().map_or(length, Vec::len), self.queue());
        packed
    }

    fn queue(&self) -> Queue {
        match self.batches.capacity() {
            0 => Queue::Full,
            PACKED_QUEUE => Queue::Empty,
            _ => Queue::Moving,
        }
    }
}

impl Packing {
    fn learn(&mut self, bytes: usize, packed: usize, queue: Queue) {
        self.bytes += bytes;
        self.packed += packed;
        if self.bytes >= LESSON {
            self.pace.went(self.bytes, self.packed, queue);
            (self.bytes, self.packed) = (0, 0);
        }
    }
}

fn put(batch: &mut BytesMut, flag: u8, content: &[u8]) {
    batch.put_u8(flag);
    batch.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
    batch.put_slice(content);
}

/// Whether the caller accepts messages compressed by gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all("grpc-accept-encoding")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|encoding| encoding.trim() == "gzip")
}

/// A response with the messages of the outlet, until that is dropped. `packed`: they may be compressed by gzip.
pub(super) fn response(packed: bool) -> (Outlet, http::Response<tonic::body::Body>) {
    let (batches, queue) = mpsc::channel(if packed { PACKED_QUEUE } else { QUEUE });
    let outlet = Outlet {
        batches,
        packing: packed.then(|| {
            Mutex::new(Packing {
                pace: Pace::new(Format::Gzip),
                bytes: 0,
                packed: 0,
            })
        }),
    };
    let body = Messages { queue, ended: false };
    let mut response = http::Response::new(tonic::body::Body::new(body.boxed_unsync()));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if packed {
        headers.insert(
            HeaderName::from_static("grpc-encoding"),
            HeaderValue::from_static("gzip"),
        );
    }
    (outlet, response)
}

/// The body: the messages of the queue, as many at once as are there, and the status.
struct Messages {
    queue: mpsc::Receiver<Bytes>,
    ended: bool,
}

impl hyper::body::Body for Messages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let Some(first) = ready!(this.queue.poll_recv(context)) else {
            this.ended = true;
            let mut trailers = HeaderMap::new();
            trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        };
        if first.len() >= WRITE {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let mut joined = BytesMut::from(first);
        while joined.len() < WRITE
            && let Ok(next) = this.queue.try_recv()
        {
            joined.put_slice(&next);
        }
        Poll::Ready(Some(Ok(Frame::data(joined.freeze()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::time::Duration;

    #[derive(Clone, PartialEq, Message)]
    struct Chunk {
        #[prost(bytes = "vec", tag = "1")]
        data: Vec<u8>,
    }

    /// The messages of a body, and how many of them were compressed.
    fn parse(mut bytes: &[u8]) -> (Vec<Chunk>, usize) {
        let (mut chunks, mut compressed) = (Vec::new(), 0);
        while let [flag, a, b, c, d, rest @ ..] = bytes {
            let (message, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            let mut plain = message.to_vec();
            if *flag == 1 {
                compressed += 1;
                plain.clear();
                flate2::read::GzDecoder::new(message).read_to_end(&mut plain).unwrap();
            }
            chunks.push(Chunk::decode(plain.as_slice()).unwrap());
            bytes = after;
        }
        assert!(bytes.is_empty());
        (chunks, compressed)
    }

    fn chunks() -> Vec<Chunk> {
        let mut chunks = vec![Chunk { data: Vec::new() }, Chunk { data: vec![7; 100] }];
        chunks.extend((0..200).map(|at| Chunk {
            data: format!("{at} of many ").repeat(4000).into_bytes(),
        }));
        chunks
    }

    /// What arrives if the link takes this long for a batch.
    async fn sent(packed: bool, pause: Duration) -> (Vec<Chunk>, usize) {
        let (outlet, response) = response(packed);
        assert_eq!(response.headers().contains_key("grpc-encoding"), packed);
        let sending = tokio::task::spawn_blocking(move || {
            for pair in chunks().chunks(2) {
                outlet.blocking_send(pair).unwrap();
            }
        });
        let (mut body, mut bytes) = (response.into_body(), Vec::new());
        let mut status = None;
        while let Some(frame) = body.frame().await {
            match frame.unwrap().into_data() {
                Ok(data) => bytes.extend(data),
                Err(frame) => status = frame.into_trailers().ok(),
            }
            tokio::time::sleep(pause).await;
        }
        sending.await.unwrap();
        assert_eq!(status.unwrap()["grpc-status"], "0");
        parse(&bytes)
    }

    #[tokio::test]
    async fn messages_arrive_as_they_were_sent_and_small_ones_where_the_link_is_slow() {
        let (plain, compressed) = sent(false, Duration::ZERO).await;
        assert!(plain == chunks() && compressed == 0, "{compressed}");
        let (slow, compressed) = sent(true, Duration::from_millis(5)).await;
        assert!(slow == chunks() && compressed > 0, "{compressed}");
    }

    #[tokio::test]
    async fn nobody_sends_to_who_has_gone() {
        let (outlet, response) = response(false);
        drop(response);
        outlet.send(&chunks()).await.unwrap_err();
    }

    #[test]
    fn gzip_is_used_only_where_it_is_taken() {
        let headers = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-accept-encoding", HeaderValue::from_static(value));
            headers
        };
        assert!(takes_gzip(&headers("gzip")) && takes_gzip(&headers("identity, gzip")));
        assert!(!takes_gzip(&headers("deflate")) && !takes_gzip(&HeaderMap::new()));
    }
}
