//! A byte stream to an engine: over a Unix socket, TCP, TLS, or the stdio of an ssh client.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::Uri;
use hyper::upgrade::Upgraded;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tls_trust::AnyCertificate;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::io::SyncIoBridge;

use super::endpoint::{Endpoint, Tls};
use crate::agent::Agent;

/// A TCP connection that isn't open by then won't open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What every kind of stream can do.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open byte stream to an engine.
pub enum EngineStream {
    /// A local socket.
    Unix(UnixStream),
    /// Plain TCP.
    Tcp(TcpStream),
    /// Anything else: TLS, the stdio of a program.
    Other(Box<dyn Duplex>),
}

impl EngineStream {
    fn duplex(self: Pin<&mut Self>) -> Pin<&mut dyn Duplex> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream),
            Self::Tcp(stream) => Pin::new(stream),
            Self::Other(stream) => Pin::new(stream),
        }
    }
}

/// Opens streams to one engine; hyper's connector.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Arc<Endpoint>,
}

impl Dialer {
    /// A dialer of this endpoint; nothing is opened yet.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// What the operating system, TLS or ssh says; a TCP connection gives up after ten seconds.
    pub async fn dial(&self) -> io::Result<EngineStream> {
        Ok(match &*self.endpoint {
            // By name, so that an agent knows our own commands: the paths that they have mounted are the dock's.
            Endpoint::Unix(path) => EngineStream::Unix(match Agent::open_engine(path).await {
                Some(stream) => stream,
                None => UnixStream::connect(path).await?,
            }),
            Endpoint::Tcp { host, port, tls } => {
                let connecting = TcpStream::connect((host.as_str(), *port));
                let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                    .await
                    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 seconds"))??;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                match tls {
                    None => EngineStream::Tcp(stream),
                    Some(tls) => EngineStream::Other(Box::new(encrypt(stream, host, tls).await?)),
                }
            }
            Endpoint::Ssh {
                destination,
                port,
                socket,
            } => EngineStream::Other(Box::new(SshStdio::start(destination, *port, socket.as_deref())?)),
        })
    }
}

impl Dialer {
    /// Who listens on the engine's Unix socket: the user's ID, and the process's, if it is visible from here. None if
    /// nobody does, or it is not a Unix socket.
    pub(in crate::docker) async fn peer(&self) -> Option<(u32, Option<i32>)> {
        match self.dial().await.ok()? {
            EngineStream::Unix(stream) => {
                let peer = stream.peer_cred().ok()?;
                Some((peer.uid(), peer.pid()))
            }
            EngineStream::Tcp(_) | EngineStream::Other(_) => None,
        }
    }
}

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<EngineStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    // The address is the endpoint's; the URI holds only the path of the request.
    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dialer.dial().await?)) })
    }
}

impl Connection for EngineStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for EngineStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_read(cx, buf)
    }
}

impl AsyncWrite for EngineStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.duplex().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.duplex().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.duplex().poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }
}

/// The two directions of a raw stream, for a thread each: large amounts are faster without the runtime in between.
pub struct Halves {
    /// What the other side says.
    pub reader: Box<dyn Read + Send>,
    /// What is said to it.
    pub writer: Box<dyn HalfClose>,
}

/// A blocking writer that can say that nothing more will come, while the other direction goes on.
pub trait HalfClose: Write + Send {
    /// Tells the other side.
    ///
    /// # Errors
    /// What the operating system, TLS or ssh says.
    fn close(&mut self) -> io::Result<()>;

    /// Whether the other side has ended the connection, as far as that can be seen without reading from it.
    fn is_over(&self) -> bool {
        false
    }
}

/// Whether a socket has nothing more to read.
fn is_over(socket: impl std::os::fd::AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match recv(socket, &mut [0_u8], flags) {
        Ok((count, _)) => count == 0,
        Err(cause) => cause != Errno::AGAIN && cause != Errno::INTR,
    }
}

impl HalfClose for std::os::unix::net::UnixStream {
    fn is_over(&self) -> bool {
        is_over(self)
    }

    fn close(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl HalfClose for std::net::TcpStream {
    fn is_over(&self) -> bool {
        is_over(self)
    }

    fn close(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<T: AsyncWrite + Send + Unpin> HalfClose for SyncIoBridge<T> {
    fn close(&mut self) -> io::Result<()> {
        self.shutdown()
    }
}

impl Halves {
    /// Splits a stream that hyper has upgraded. Must be called inside the runtime; the halves are for threads outside
    /// of it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn of(upgraded: Upgraded) -> io::Result<Self> {
        let parts = match upgraded.downcast::<TokioIo<EngineStream>>() {
            Ok(parts) => parts,
            Err(upgraded) => return Ok(Self::bridged(TokioIo::new(upgraded), Bytes::new())),
        };
        let early = parts.read_buf;
        match parts.io.into_inner() {
            EngineStream::Unix(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(Self {
                    reader: Box::new(io::Cursor::new(early).chain(stream.try_clone()?)),
                    writer: Box::new(stream),
                })
            }
            EngineStream::Tcp(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(Self {
                    reader: Box::new(io::Cursor::new(early).chain(stream.try_clone()?)),
                    writer: Box::new(stream),
                })
            }
            EngineStream::Other(stream) => Ok(Self::bridged(stream, early)),
        }
    }

    fn bridged(stream: impl Duplex + 'static, early: Bytes) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader: Box::new(io::Cursor::new(early).chain(SyncIoBridge::new(reader))),
            writer: Box::new(SyncIoBridge::new(writer)),
        }
    }
}

/// A peer that vanished without a word (a cut link, a machine that sleeps) is noticed within two minutes.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 6)?;
    Ok(())
}

async fn encrypt(stream: TcpStream, host: &str, tls: &Tls) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let invalid = |cause: Box<dyn std::error::Error + Send + Sync>| io::Error::new(io::ErrorKind::InvalidData, cause);
    let builder = tls_trust::client().map_err(|cause| invalid(cause.into()))?;
    let builder = if tls.verify {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&tls.directory.join("ca.pem"))? {
            roots.add(certificate).map_err(|cause| invalid(cause.into()))?;
        }
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
    };
    let key = tls.directory.join("key.pem");
    let config = if key.exists() {
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|cause| pem_error(&key, cause))?;
        builder
            .with_client_auth_cert(certificates(&tls.directory.join("cert.pem"))?, key)
            .map_err(|cause| invalid(cause.into()))?
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|cause| invalid(cause.into()))?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// TLS over a stream to this machine itself, whoever's certificate the other side shows.
///
/// # Errors
/// What TLS says.
pub(crate) async fn encrypt_unverified<S: Duplex>(
    stream: S,
    host: &'static str,
) -> io::Result<tokio_rustls::client::TlsStream<S>> {
    let config = tls_trust::client()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::default()))
        .with_no_client_auth();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    tls_trust::certificates(file).map_err(|cause| pem_error(file, cause))
}

fn pem_error(file: &Path, cause: rustls::pki_types::pem::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {cause}", file.display()))
}

/// The stdio of `ssh HOST docker system dial-stdio`, which is how the docker client reaches `ssh://` addresses.
struct SshStdio {
    // Killed when the stream is dropped.
    _child: Child,
    stdin: ChildStdin,
    answers: Answers<ChildStdout>,
}

impl SshStdio {
    fn start(destination: &str, port: Option<u16>, socket: Option<&str>) -> io::Result<Self> {
        let mut ssh = Command::new("ssh");
        ssh.args(["-o", "ConnectTimeout=30", "-T"]);
        if let Some(port) = port {
            ssh.arg("-p").arg(port.to_string());
        }
        ssh.args(["--", destination, "docker"]);
        if let Some(socket) = socket {
            // ssh hands one string to the login shell there, so the path must be a word of that shell.
            ssh.arg("--host")
                .arg(&*crate::shell::quote(&format!("unix://{socket}")));
        }
        ssh.args(["system", "dial-stdio"]);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self {
                _child: child,
                stdin,
                answers: Answers::of(stdout),
            }),
            _ => Err(io::Error::other("ssh was started without pipes")),
        }
    }
}

impl AsyncRead for SshStdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.answers.poll_read(cx, buf)
    }
}

impl AsyncWrite for SshStdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

/// How an engine's first answer begins.
const HTTP: &[u8] = b"HTTP/";
/// How many bytes of other output are read.
const LONGEST_NOISE: usize = 1024;

/// What comes from a login shell in an engine's place: a greeting, the output of its startup files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the login shell there prints {said:?}, where the engine's answer should begin")]
pub(in crate::docker) struct Noise {
    /// Its first line that is not blank.
    pub(in crate::docker) said: String,
}

/// Reads an engine's answers through a login shell. If the shell prints something itself, the first read fails with
/// [`Noise`].
struct Answers<R> {
    from: R,
    /// What was read ahead to see whether it is the engine, and is not yet passed on.
    ahead: Vec<u8>,
    is_engine: bool,
}

impl<R: AsyncRead + Unpin> Answers<R> {
    const fn of(from: R) -> Self {
        Self {
            from,
            ahead: Vec::new(),
            is_engine: false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while !self.is_engine {
            let mut chunk = [0; 512];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut chunk))?;
            let is_over = chunk.filled().is_empty();
            self.ahead.extend_from_slice(chunk.filled());
            if HTTP.starts_with(&self.ahead) || self.ahead.starts_with(HTTP) {
                // An answer that is cut short in the middle of the word is the reader's to report.
                self.is_engine = is_over || self.ahead.len() >= HTTP.len();
            } else if let Some(said) = first_line(&self.ahead, is_over) {
                return Poll::Ready(Err(io::Error::other(Noise { said })));
            }
        }
        if self.ahead.is_empty() {
            return Pin::new(&mut self.from).poll_read(cx, buf);
        }
        let given = self.ahead.len().min(buf.remaining());
        let rest = self.ahead.split_off(given);
        buf.put_slice(&std::mem::replace(&mut self.ahead, rest));
        Poll::Ready(Ok(()))
    }
}

/// The first line that is not blank, of what has arrived; `None` if it may go on.
fn first_line(said: &[u8], is_over: bool) -> Option<String> {
    let is_whole = is_over || said.len() >= LONGEST_NOISE;
    let mut begin = 0;
    for (at, byte) in said.iter().enumerate() {
        let line = said.get(begin..at).unwrap_or_default();
        if *byte == b'\n' {
            if !line.trim_ascii().is_empty() {
                return Some(shown(line));
            }
            begin = at + 1;
        }
    }
    is_whole.then(|| shown(said.get(begin..).unwrap_or_default()))
}

/// A line that a stranger wrote, without what the engine said right after it.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.split_once("HTTP/1.").map_or(&*text, |(noise, _)| noise);
    super::engine::one_line(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    /// Reads what `Answers` passes on.
    struct Reader<R>(Answers<R>);

    impl<R: AsyncRead + Unpin> AsyncRead for Reader<R> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.0.poll_read(cx, buf)
        }
    }

    /// What is read of these pieces.
    async fn read(pieces: &[&[u8]]) -> io::Result<Vec<u8>> {
        let pieces: Vec<io::Result<Bytes>> = pieces.iter().map(|&piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let from = tokio_util::io::StreamReader::new(futures_util::stream::iter(pieces));
        let mut all = Vec::new();
        Reader(Answers::of(from)).read_to_end(&mut all).await?;
        Ok(all)
    }

    #[tokio::test]
    async fn an_engine_is_read_as_it_speaks_however_it_comes() {
        let long = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[7; 5000]].concat();
        for size in [1, 2, 5, 6, 511, 513, 6000] {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            assert_eq!(read(&pieces).await.unwrap(), long, "{size}");
        }
        // It was cut off, or ssh has ended.
        assert_eq!(read(&[b"HTT"]).await.unwrap(), b"HTT");
        assert_eq!(read(&[]).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn what_a_login_shell_says_is_shown() {
        let endless = [b'x'; 3000];
        for (pieces, expected) in [
            (
                &[b"Welcome to box!\nHTTP/1.1 200 OK\r\n".as_slice()][..],
                "Welcome to box!",
            ),
            (&[b"\r\n \nHi\x1b[2J", b" there\nmore\n"], "Hi [2J there"),
            (&[b"Hi", b"HTTP/1.1 200 OK\r\n"], "Hi"),
            (&[b"cut"], "cut"),
            (&[b"HTML"], "HTML"),
        ] {
            let error = read(pieces).await.unwrap_err();
            let noise: &Noise = error.get_ref().unwrap().downcast_ref().unwrap();
            assert_eq!(noise.said, expected);
        }
        let error = read(&[&endless]).await.unwrap_err().to_string();
        assert!(error.len() < LONGEST_NOISE + 700, "{error}");
    }
}
