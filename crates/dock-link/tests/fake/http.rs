//! Enough of HTTP for a fake engine and its clients: connections are accepted, messages with the length of their body are read.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the example uses none of it, each test a part; they panic where a test fails"
)]

use std::io;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Listens on a socket, and serves each connection in a task of its own, until the runtime ends.
pub fn accept<F>(socket: &Path, serve: impl Fn(UnixStream) -> F + Send + 'static)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that goes away is no event, and the subject of some tests.
            tokio::spawn(serve(stream));
        }
    });
}

/// The next message: its head, with the empty line, and its body. `None` where the stream ends instead.
pub async fn message(stream: &mut BufReader<UnixStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if let Some(number) = head[start..].to_lowercase().strip_prefix("content-length: ") {
            length = number.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}

/// Answers a request with a status, such as `404 Not Found`, and a document.
pub async fn respond(stream: &mut BufReader<UnixStream>, status: &str, document: &Value) -> io::Result<()> {
    let body = document.to_string();
    let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(response.as_bytes()).await
}

/// Sends a request, and gives the status and the document of its answer.
pub async fn post(stream: UnixStream, path: &str, document: &Value) -> (u16, Value) {
    let mut stream = BufReader::new(stream);
    let body = document.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = message(&mut stream).await.unwrap().unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}
