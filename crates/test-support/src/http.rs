//! The minimal HTTP that is needed to ask an engine over its Unix socket, and servers on TCP: one request a connection.
//!
//! The crates under test bring an HTTP client; using that one here could hide its own faults.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The body as JSON; `Null` if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Sends `GET path` to the engine that listens on `socket`; no read lasts longer than `limit`.
///
/// # Errors
/// When nothing listens, the engine stays silent, or the answer is not HTTP.
pub fn get(socket: &Path, path: &str, limit: Duration) -> io::Result<HttpResponse> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: docker\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

/// Sends a request with these header fields (`Name: value`) and this body to the server at `address`; neither connecting
/// nor a read lasts longer than `limit`.
///
/// # Errors
/// When nothing listens, the server stays silent, or the answer is not HTTP.
pub fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    fields: &[&str],
    body: &[u8],
    limit: Duration,
) -> io::Result<HttpResponse> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // chromedriver gives no answer to HTTP/1.0.
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for field in fields {
        request.push_str(field);
        request.push_str("\r\n");
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(request.as_bytes())?;
    stream.write_all(body)?;
    let bytes = whole(BufReader::new(stream))?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP"))
}

/// An answer with its chunks joined. It is not read to the end of the connection where the server says how long it is: some
/// servers keep the connection open whatever they are asked.
fn whole(mut reader: impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut length, mut is_chunked) = (None, false);
    loop {
        let line = line(&mut reader)?;
        bytes.extend(line.as_bytes());
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
        is_chunked |= line.starts_with("transfer-encoding:") && line.contains("chunked");
        if line.trim().is_empty() {
            break;
        }
    }
    if is_chunked {
        loop {
            let size = line(&mut reader)?;
            let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
            reader.by_ref().take(size).read_to_end(&mut bytes)?;
            line(&mut reader)?;
            if size == 0 {
                return Ok(bytes);
            }
        }
    }
    match length {
        Some(length) => reader.take(length).read_to_end(&mut bytes)?,
        None => reader.read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Parses an answer without chunks; `None` if it is not HTTP.
pub fn parse(bytes: &[u8]) -> Option<HttpResponse> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = bytes.split_at_checked(end)?;
    let status = std::str::from_utf8(head)
        .ok()?
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?;
    Some(HttpResponse {
        status: status.parse().ok()?,
        body: body.get(4..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_stays_open_does_not_matter() {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream
                    .write_all(b"HTTP/1.1 201 Created\r\nContent-length: 2\r\n\r\n{}")
                    .unwrap();
                stream
            });
            let answer = send(address, "PUT", "/a", &["A: b"], b"x", Duration::from_secs(10)).unwrap();
            assert_eq!((answer.status, answer.body.as_slice()), (201, b"{}".as_slice()));
            let mut request = String::new();
            server.join().unwrap().read_to_string(&mut request).unwrap();
            assert!(request.starts_with("PUT /a HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("\r\nA: b\r\n"), "{request}");
            assert!(request.ends_with("Content-Length: 1\r\n\r\nx"), "{request}");
        });
    }

    #[test]
    fn chunks_are_joined() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\na\r\nx\": \"yyyy\"\r\n1\r\n}\r\n0\r\n\r\n";
        let answer = parse(&whole(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(answer.json()["x"], "yyyy");
    }

    #[test]
    fn an_answer_is_status_and_body() {
        let answer = parse(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"x\":1}").unwrap();
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["x"], 1);
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
    }
}
