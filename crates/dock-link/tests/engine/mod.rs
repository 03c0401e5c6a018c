//! An engine that does what the first line of a connection says.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::fake::http;

/// An engine, and what a test can observe of it.
#[derive(Default)]
pub struct Engine {
    /// How many connections are open.
    pub open: AtomicUsize,
    /// How many bytes it could send.
    pub written: AtomicUsize,
}

impl Engine {
    /// Serves until the runtime ends.
    pub fn start(socket: &Path) -> Arc<Self> {
        let engine = Arc::new(Self::default());
        let serving = Arc::clone(&engine);
        http::accept(socket, move |stream| {
            let engine = Arc::clone(&serving);
            async move {
                engine.open.fetch_add(1, Ordering::SeqCst);
                let served = engine.serve(stream).await;
                engine.open.fetch_sub(1, Ordering::SeqCst);
                served
            }
        });
        engine
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end() {
            // As attach does: reads to the end of its input, and then sends its last output.
            "echo" => {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await?;
                stream.write_all(&all).await?;
                stream.write_all(b"the end").await?;
            }
            "ping" => stream.write_all(b"pong").await?,
            "flood" => loop {
                self.written
                    .fetch_add(stream.write(&[0; 65536]).await?, Ordering::SeqCst);
            },
            // An early refusal: answers, and reads no more.
            "refuse" => stream.write_all(b"refused").await?,
            // As events does while there are none: until the other side closes, or for ever.
            "silent" => drop(stream.read(&mut [0]).await?),
            _ => std::future::pending().await,
        }
        Ok(())
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}
