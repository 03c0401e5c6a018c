//! One `docker load`, streamed: an archive whose files come piece by piece, compressed for the link, and the engine's
//! verdict.
//!
//! Nothing is loaded unless the archive is complete. Dropping a load before that ends the request in the middle, and
//! engines keep nothing of it.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::docker::connect::adaptive_compression::{Format, PIECE, Pace, Packer, Queue};
use crate::docker::connect::engine::{ApiVersion, Engine, one_line, refusal};
use crate::docker::connect::json_messages::Messages;
use crate::error::{Error, Result};
use dock_client::mutex::lock;

/// How many pieces may wait between reader and compressor.
const PARTS: usize = 2;
/// How many pieces may wait between compressor and link.
const QUEUE: usize = 4;
/// The first API version whose engines decompress zstd (docker 23).
const ZSTD_API: ApiVersion = ApiVersion(1, 42);
/// The size of tar's blocks, in bytes.
const BLOCK: usize = 512;

/// What an archive is made of.
#[derive(Debug)]
pub enum ArchivePart {
    /// A file begins; so many bytes of data follow.
    File {
        path: String,
        /// In bytes.
        size: u64,
    },
    /// Data of the file.
    Data(Bytes),
    /// The archive is complete.
    End,
}

/// An engine did not load an archive.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine's reason.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or the engine is gone.
    #[error(transparent)]
    Lost(#[from] Error),
}

/// Whether an engine decompresses zstd.
pub fn reads_zstd(engine: &Engine) -> bool {
    engine.api() >= ZSTD_API
}

fn format(engine: &Engine) -> Format {
    if reads_zstd(engine) { Format::Zstd } else { Format::Gzip }
}

/// What loads have learned about the link to their engine.
pub type SharedPace = Arc<Mutex<Pace>>;

/// The state before anything is known of the link to this engine.
pub fn pace(engine: &Engine) -> SharedPace {
    Arc::new(Mutex::new(Pace::new(format(engine))))
}

/// Begins a load. What is sent to the first value is loaded while the second is awaited; the second must be polled all
/// the while. `sent` counts bytes of the request's body; `pace` is shared by all loads to the same engine.
pub fn begin(
    engine: &Engine,
    sent: Arc<AtomicU64>,
    pace: SharedPace,
) -> (
    mpsc::Sender<ArchivePart>,
    impl Future<Output = Result<(), LoadError>> + Send + use<>,
) {
    let (parts, coming) = mpsc::channel(PARTS);
    let (frames, body) = mpsc::channel(QUEUE);
    let format = format(engine);
    let packing = tokio::task::spawn_blocking(move || {
        let mut stream = PackedStream {
            packer: Packer::new(format),
            piece: Vec::with_capacity(PIECE),
            frames,
            sent,
            pace,
        };
        if let Err(cause) = pack(coming, &mut stream) {
            // Ends the request in the middle. If the receiver is gone, it has ended already.
            let _ = stream.frames.blocking_send(Err(cause));
        }
    });
    let engine = engine.clone();
    let loading = async move {
        let answered = answer(&engine, body).await;
        // It ends with its queues.
        let _ = packing.await;
        answered
    };
    (parts, loading)
}

async fn answer(engine: &Engine, body: mpsc::Receiver<io::Result<Frame<Bytes>>>) -> Result<(), LoadError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri("/images/load?quiet=1")
        .header("Content-Type", "application/x-tar")
        .body(StreamBody::new(ReceiverStream::new(body)))
        .map_err(|cause| Error::failed("an archive can't be sent").because(cause))?;
    let response = engine.request(request).await?;
    if !response.status().is_success() {
        return Err(LoadError::Refused(refusal(response).await.to_string()));
    }
    let mut messages = Messages::default();
    let mut body = response.into_body().into_data_stream();
    let mut verdict = Ok(());
    // The status says success; an error is in the body.
    while let Some(chunk) = body.next().await {
        for message in messages.push(&chunk.map_err(|cause| engine.lost(cause))?) {
            if let (Some(error), Ok(())) = (message.error, &verdict) {
                verdict = Err(LoadError::Refused(one_line(&error)));
            }
        }
    }
    verdict
}

fn pack(mut parts: mpsc::Receiver<ArchivePart>, stream: &mut PackedStream) -> io::Result<()> {
    let mut left = 0_u64;
    let mut padding = 0_usize;
    loop {
        let part = match parts.try_recv() {
            Ok(part) => part,
            Err(_) => {
                // After a file, the next may take long to come: what there is goes out, and is extracted meanwhile.
                if left == 0 {
                    stream.send_piece()?;
                }
                match parts.blocking_recv() {
                    Some(part) => part,
                    None => break,
                }
            }
        };
        let early = || io::Error::other("a file of the archive has another size than announced");
        match part {
            ArchivePart::File { path, size } => {
                if left != 0 {
                    return Err(early());
                }
                stream.write_all([0; BLOCK].get(..padding).unwrap_or_default())?;
                let mut header = tar::Header::new_gnu();
                header.set_path(&path)?;
                header.set_size(size);
                header.set_mode(0o644);
                header.set_cksum();
                stream.write_all(header.as_bytes())?;
                left = size;
                padding = padding_of(size);
            }
            ArchivePart::Data(data) => {
                left = left.checked_sub(data.len() as u64).ok_or_else(early)?;
                stream.write_all(&data)?;
            }
            ArchivePart::End => {
                if left != 0 {
                    return Err(early());
                }
                // The padding of the last block, and the end of a tar: two blocks of zeros.
                stream.write_all([0; BLOCK].get(..padding).unwrap_or_default())?;
                stream.write_all(&[0; 2 * BLOCK])?;
                return stream.send_piece();
            }
        }
    }
    Err(io::Error::other("the archive broke off"))
}

fn padding_of(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - over) % BLOCK
}

struct PackedStream {
    packer: Packer,
    piece: Vec<u8>,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
    sent: Arc<AtomicU64>,
    pace: SharedPace,
}

impl PackedStream {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        lock(&self.pace)
    }

    fn send_piece(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let level = self.pace().level();
        let packed = Bytes::from(self.packer.pack(&self.piece, level)?);
        let queue = match self.frames.capacity() {
            0 => Queue::Full,
            QUEUE => Queue::Empty,
            _ => Queue::Moving,
        };
        let bytes = packed.len();
        self.frames
            .blocking_send(Ok(Frame::data(packed)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.pace().went(self.piece.len(), bytes, queue);
        self.piece.clear();
        Ok(())
    }
}

impl io::Write for PackedStream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = PIECE - self.piece.len();
        let taken = data.get(..room).unwrap_or(data);
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE {
            self.send_piece()?;
        }
        Ok(taken.len())
    }

    // Pieces go out when they are full; the end of the archive sends the last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
