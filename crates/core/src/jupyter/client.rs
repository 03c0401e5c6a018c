//! The REST API of a server, as far as commands need it.
//!
//! Each request has a connection of its own, a limit of time, and a limit for its answer: the server may hang, may be
//! anything else that listens there, and may have been told anything. The token is sent in the header `Authorization`, and
//! never in a path, which servers log.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

use super::base_path::BasePath;
use super::runtime_file::is_loopback;
use super::token::Token;
use crate::docker::connect::stream::{self, Duplex};

/// How long a request may take, from the connection to the end of its answer. A server that is starting takes the
/// connection, and answers when it has loaded its extensions.
const LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of an answer: a list of a thousand kernels is about 300 kB.
const LARGEST_ANSWER: usize = 1 << 20;
/// The longest name, path or state of a kernel that is kept, in characters.
const LONGEST_TEXT: usize = 1000;

/// A connection that is opened in some other way than by an address here.
type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Duplex>>> + Send>>;

/// Opens connections to a server by any way, such as an agent's streams.
#[derive(Clone)]
pub struct ServerDialer(Arc<dyn Fn() -> Dialing + Send + Sync>);

impl ServerDialer {
    /// A dialer that calls `dial` for each connection.
    pub fn new<F>(dial: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Box<dyn Duplex>>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(dial())))
    }
}

impl fmt::Debug for ServerDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerDialer")
    }
}

/// Where a server is reached from here.
#[derive(Clone, Debug)]
pub enum ServerAddress {
    /// A TCP port.
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        port: u16,
    },
    /// A Unix socket of this machine.
    Unix(PathBuf),
    /// Any other stream.
    Dialed(ServerDialer),
}

impl ServerAddress {
    /// A port of 127.0.0.1.
    pub fn here(port: u16) -> Self {
        Self::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }
}

/// Why a server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Nothing answers: nobody listens, the connection ended, or the time was over. It may still be starting.
    #[error("it does not answer")]
    Silent(#[source] io::Error),
    /// The token is not the server's.
    #[error("it does not accept the token (HTTP status {0})")]
    TokenRefused(StatusCode),
    /// It answers something else than success.
    #[error("it answers HTTP status {0}")]
    Status(StatusCode),
    /// What it answers is not what a Jupyter server answers.
    #[error("it does not answer as a Jupyter server: {0}")]
    Nonsense(String),
    /// The token would cross a network where others could read it, or reach somebody else.
    #[error("{0} is not an address of this machine: the token is not sent over a network")]
    NotHere(String),
}

/// What answers at `api`, where no token is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    /// A Jupyter server of this version.
    Jupyter {
        /// As `2.14.0`.
        version: String,
    },
    /// Something that speaks HTTP, with this status.
    Other(StatusCode),
}

/// What a server says of itself (`api/status`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    pub started: Timestamp,
    /// When a kernel or a page last did something.
    pub last_activity: Timestamp,
    /// How long ago that was, by the server's own clock.
    pub idle: Duration,
    /// Open connections to kernels.
    pub connections: u32,
    /// Running kernels, busy or not.
    pub kernels: u32,
}

/// A running kernel (`api/kernels`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub id: String,
    /// The kernel's kind, such as `python3`.
    pub name: String,
    /// `idle`, `busy`, `starting` and others.
    pub execution_state: String,
    /// When it last said something.
    pub last_activity: Option<Timestamp>,
    /// Pages and programs that are connected to it.
    pub connections: u32,
}

impl Kernel {
    /// Whether it works, or is about to: what it has computed would be lost.
    pub fn is_busy(&self) -> bool {
        !matches!(self.execution_state.as_str(), "idle" | "dead" | "unknown")
    }
}

/// What a kernel was started for (`api/sessions`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSession {
    /// [`Kernel::id`].
    pub kernel: String,
    /// The notebook's path below the server's folder, or the name of a console.
    pub path: String,
    /// `notebook`, `console` and others.
    pub kind: String,
}

/// The client of one server. Nothing is opened before it is asked something.
#[derive(Clone, Debug)]
pub struct ServerClient {
    address: ServerAddress,
    base_path: BasePath,
    secure: bool,
    token: Token,
    limit: Duration,
}

impl ServerClient {
    /// A client of the server at this address, below this path; `secure` if it speaks https.
    pub fn new(address: ServerAddress, base_path: BasePath, secure: bool, token: &Token) -> Self {
        Self {
            address,
            base_path,
            secure,
            token: token.clone(),
            limit: LIMIT,
        }
    }

    /// The same with another limit for each request.
    #[must_use]
    pub const fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The path under which the server answers.
    pub const fn base_path(&self) -> &BasePath {
        &self.base_path
    }

    /// What answers at `api`. The token is not sent.
    ///
    /// # Errors
    /// [`ServerError::Silent`].
    pub async fn answers(&self) -> Result<ApiAnswer, ServerError> {
        #[derive(Deserialize)]
        struct VersionAnswer {
            version: String,
        }
        let (status, _, body) = self.ask(Method::GET, &self.base_path.join("api"), false).await?;
        let version = serde_json::from_slice::<VersionAnswer>(&body).ok();
        Ok(match version {
            Some(VersionAnswer { version }) if status.is_success() => ApiAnswer::Jupyter { version: kept(version) },
            _ => ApiAnswer::Other(status),
        })
    }

    /// The HTTP status of a page, by its path on the server, for what is not Jupyter. The token is not sent, and a redirection
    /// is not followed.
    ///
    /// # Errors
    /// [`ServerError::Silent`].
    pub async fn page(&self, path: &str) -> Result<StatusCode, ServerError> {
        Ok(self.head_of(path, false).await?.status())
    }

    /// Whether the page that the server itself shows first is JupyterLab's.
    ///
    /// # Errors
    /// [`ServerError::Silent`].
    pub async fn shows_lab(&self) -> Result<bool, ServerError> {
        // It leads from its root to its first page: `/lab?`, `/tree?`.
        let response = self.head_of(self.base_path.as_str(), true).await?;
        let lab = self.base_path.join("lab");
        let first = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        Ok(first.and_then(|first| first.split('?').next()).is_some_and(|path| {
            path.strip_prefix(&lab)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }))
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// [`ServerError`]: above all, a token that is not its own.
    pub async fn status(&self) -> Result<ServerStatus, ServerError> {
        #[derive(Deserialize)]
        struct Status {
            started: String,
            last_activity: String,
            connections: u32,
            kernels: u32,
        }
        let (headers, answer): (_, Status) = self.get("api/status").await?;
        let (started, last_activity) = (time(&answer.started)?, time(&answer.last_activity)?);
        // A dock's clock may differ from ours.
        let date = headers.get(DATE).and_then(|value| value.to_str().ok());
        let now = date
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
            .map_or_else(Timestamp::now, |now| now.timestamp());
        Ok(ServerStatus {
            started,
            last_activity,
            idle: Duration::try_from(now.duration_since(last_activity)).unwrap_or_default(),
            connections: answer.connections,
            kernels: answer.kernels,
        })
    }

    /// Whether it lets in whoever asks: it says of itself what only its user may know. The token is not sent.
    ///
    /// # Errors
    /// [`ServerError::Silent`].
    pub async fn is_open(&self) -> Result<bool, ServerError> {
        let (status, _, _) = self.ask(Method::GET, &self.base_path.join("api/status"), false).await?;
        Ok(status.is_success())
    }

    /// The running kernels. Asking is no activity.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn kernels(&self) -> Result<Vec<Kernel>, ServerError> {
        #[derive(Deserialize)]
        struct KernelAnswer {
            id: String,
            #[serde(default)]
            name: String,
            #[serde(default)]
            execution_state: Option<String>,
            #[serde(default)]
            last_activity: Option<String>,
            #[serde(default)]
            connections: Option<u32>,
        }
        let (_, answers): (_, Vec<KernelAnswer>) = self.get("api/kernels?no_track_activity=1").await?;
        let kernels = answers.into_iter().map(|kernel| Kernel {
            id: kept(kernel.id),
            name: kept(kernel.name),
            execution_state: kept(kernel.execution_state.unwrap_or_else(|| "unknown".to_owned())),
            last_activity: kernel.last_activity.and_then(|text| text.parse().ok()),
            connections: kernel.connections.unwrap_or_default(),
        });
        Ok(kernels.collect())
    }

    /// What the kernels were started for. Asking is no activity.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn sessions(&self) -> Result<Vec<KernelSession>, ServerError> {
        #[derive(Deserialize)]
        struct SessionAnswer {
            #[serde(default)]
            path: String,
            #[serde(default, rename = "type")]
            kind: String,
            kernel: Option<OfKernel>,
        }
        #[derive(Deserialize)]
        struct OfKernel {
            id: String,
        }
        let (_, answers): (_, Vec<SessionAnswer>) = self.get("api/sessions?no_track_activity=1").await?;
        let sessions = answers.into_iter().filter_map(|session| {
            Some(KernelSession {
                kernel: kept(session.kernel?.id),
                path: kept(session.path),
                kind: kept(session.kind),
            })
        });
        Ok(sessions.collect())
    }

    /// Whether the server itself holds the documents that are open (jupyter-collaboration). It writes down what was typed a second
    /// later, unless its configuration says otherwise (`YDocExtension.document_save_delay`). Which documents it has not written
    /// down yet, its API does not tell: they are only in its websockets, as updates of Yjs.
    ///
    /// # Errors
    /// [`ServerError::Silent`].
    pub async fn holds_documents(&self) -> Result<bool, ServerError> {
        // Sessions of documents are made by PUT only: a GET says whether there are any.
        let path = self.base_path.join("api/collaboration/session/?no_track_activity=1");
        let (status, _, _) = self.ask(Method::GET, &path, true).await?;
        Ok(status == StatusCode::METHOD_NOT_ALLOWED)
    }

    /// Has the server end its kernels, and then itself. It answers before it does so.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn shutdown(&self) -> Result<(), ServerError> {
        let (status, _, _) = self
            .ask(Method::POST, &self.base_path.join("api/shutdown"), true)
            .await?;
        accepted(status)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<(hyper::HeaderMap, T), ServerError> {
        let (status, headers, body) = self.ask(Method::GET, &self.base_path.join(path), true).await?;
        accepted(status)?;
        let answer = serde_json::from_slice(&body).map_err(|cause| ServerError::Nonsense(cause.to_string()))?;
        Ok((headers, answer))
    }

    /// An answer with its whole body.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        with_token: bool,
    ) -> Result<(StatusCode, hyper::HeaderMap, Bytes), ServerError> {
        let asking = async {
            let (parts, body) = self.send(method, path, with_token).await?.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map_err(|cause| match cause.is::<http_body_util::LengthLimitError>() {
                true => ServerError::Nonsense(format!("an answer of more than {LARGEST_ANSWER} bytes")),
                false => ServerError::Silent(io::Error::other(cause)),
            })?;
            Ok((parts.status, parts.headers, body.to_bytes()))
        };
        self.in_time(asking).await
    }

    /// An answer whose body does not matter.
    async fn head_of(&self, path: &str, with_token: bool) -> Result<Response<Incoming>, ServerError> {
        self.in_time(self.send(Method::GET, path, with_token)).await
    }

    async fn in_time<T>(&self, asking: impl Future<Output = Result<T, ServerError>>) -> Result<T, ServerError> {
        match tokio::time::timeout(self.limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(ServerError::Silent(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {:?}", self.limit),
            ))),
        }
    }

    async fn send(&self, method: Method, path: &str, with_token: bool) -> Result<Response<Incoming>, ServerError> {
        if with_token
            && let ServerAddress::Tcp { host, .. } = &self.address
            && !is_loopback(host)
        {
            return Err(ServerError::NotHere(host.clone()));
        }
        let mut request = Request::builder()
            .method(&method)
            .uri(path)
            .header(HOST, self.host())
            .header(ACCEPT, "application/json, */*")
            .header(CONNECTION, "close");
        if method == Method::POST {
            request = request.header(CONTENT_LENGTH, "0");
        }
        if with_token {
            let mut value = HeaderValue::from_str(&format!("token {}", self.token.reveal()))
                .map_err(|_| ServerError::Nonsense("a token that no header carries".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|cause| ServerError::Nonsense(format!("{path:?} is not a path: {cause}")))?;
        let stream = self.dial().await.map_err(ServerError::Silent)?;
        let silent = |cause: hyper::Error| ServerError::Silent(io::Error::other(cause));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(silent)?;
        // It ends with the answer, or when the answer is dropped.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(silent)
    }

    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        let plain: Box<dyn Duplex> = match &self.address {
            ServerAddress::Tcp { host, port } => Box::new(TcpStream::connect((host.as_str(), *port)).await?),
            ServerAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
            ServerAddress::Dialed(dialer) => (dialer.0)().await?,
        };
        if !self.secure {
            return Ok(plain);
        }
        // A server that speaks https on its own machine has a certificate that it made itself, or one for the name by which
        // others know the machine: neither can be verified for 127.0.0.1. Nothing is lost: `send` sends the token only to
        // this machine's own ports and sockets and to an agent's streams, where a server without https gets it as well.
        Ok(Box::new(stream::encrypt_unverified(plain, "localhost").await?))
    }

    /// What stands in the header `Host`: servers on a loopback address refuse names that they don't know.
    fn host(&self) -> String {
        match &self.address {
            ServerAddress::Tcp { host, port } => match host.parse() {
                Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
                _ => format!("{host}:{port}"),
            },
            ServerAddress::Unix(_) | ServerAddress::Dialed(_) => "localhost".to_owned(),
        }
    }
}

fn accepted(status: StatusCode) -> Result<(), ServerError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ServerError::TokenRefused(status)),
        status => Err(ServerError::Status(status)),
    }
}

fn time(text: &str) -> Result<Timestamp, ServerError> {
    text.parse()
        .map_err(|_| ServerError::Nonsense(format!("{:?} is not a time", kept(text.to_owned()))))
}

/// A text of the server's, in a length that is kept and shown.
fn kept(text: String) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use dockerutils_test_support::{Reply, ScriptedEngine};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn token() -> Token {
        Token::from_environment_value("s3cret").unwrap()
    }

    /// A client of a scripted server behind `/user/ann/`.
    fn client(server: &ScriptedEngine) -> ServerClient {
        let base = BasePath::parse("/user/ann").unwrap();
        ServerClient::new(ServerAddress::Unix(server.socket()), base, false, &token())
    }

    #[tokio::test]
    async fn the_api_is_asked_below_the_base_path_and_the_token_is_in_a_header_only() {
        let status = json!({
            "started": "2026-11-29T10:00:00.000000Z", "last_activity": "2026-11-29T10:30:00.5Z", "connections": 2, "kernels": 1,
        });
        let server = ScriptedEngine::start()
            .on("GET", "/user/ann/api", Reply::json(200, &json!({"version": "2.14.0"})))
            .on(
                "GET",
                "/user/ann/api/status",
                Reply::json(200, &status).header("Date", "Sun, 29 Nov 2026 10:31:00 GMT"),
            )
            .on("POST", "/user/ann/api/shutdown", Reply::empty(200));
        let client = client(&server);
        let version = "2.14.0".to_owned();
        assert_eq!(client.answers().await.unwrap(), ApiAnswer::Jupyter { version });
        let status = client.status().await.unwrap();
        assert_eq!((status.connections, status.kernels), (2, 1));
        assert_eq!(status.started.to_string(), "2026-11-29T10:00:00Z");
        // By the server's clock.
        assert_eq!(status.idle, Duration::from_millis(59_500));
        client.shutdown().await.unwrap();
        let api = server.request("GET", "/user/ann/api");
        assert_eq!(api.header("authorization"), None);
        for (method, path) in [("GET", "/user/ann/api/status"), ("POST", "/user/ann/api/shutdown")] {
            let request = server.request(method, path);
            assert_eq!(request.header("authorization"), Some("token s3cret"));
            assert_eq!(request.header("host"), Some("localhost"));
            assert!(!request.query.contains("s3cret"), "{}", request.query);
        }
    }

    #[tokio::test]
    async fn kernels_and_what_they_are_for_are_listed_and_that_is_no_activity() {
        let server = ScriptedEngine::start()
            .on(
                "GET",
                "/user/ann/api/kernels",
                Reply::json(
                    200,
                    &json!([
                        {"id": "k1", "name": "python3", "execution_state": "busy", "connections": 1,
                         "last_activity": "2026-11-29T10:30:00Z"},
                        {"id": "k2", "name": "ir", "execution_state": "idle", "connections": 0, "last_activity": "once"},
                        {"id": "k3"},
                    ]),
                ),
            )
            .on(
                "GET",
                "/user/ann/api/sessions",
                Reply::json(
                    200,
                    &json!([
                        {"id": "s", "path": "a/b.ipynb", "name": "", "type": "notebook", "kernel": {"id": "k1"}},
                        {"id": "t", "path": "x", "type": "console", "kernel": null},
                    ]),
                ),
            );
        let client = client(&server);
        let kernels = client.kernels().await.unwrap();
        let busy: Vec<&str> = kernels
            .iter()
            .filter(|kernel| kernel.is_busy())
            .map(|kernel| kernel.id.as_str())
            .collect();
        assert_eq!((kernels.len(), busy), (3, vec!["k1"]));
        assert_eq!(kernels[1].last_activity, None);
        let sessions = client.sessions().await.unwrap();
        assert_eq!(sessions.len(), 1);
        assert_eq!(
            (sessions[0].kernel.as_str(), sessions[0].path.as_str()),
            ("k1", "a/b.ipynb")
        );
        for request in server.requests() {
            assert_eq!(request.query, "no_track_activity=1");
        }
    }

    #[tokio::test]
    async fn the_first_page_is_lab_or_something_else() {
        for (reply, is_lab) in [
            (Reply::empty(302).header("Location", "/user/ann/lab?"), true),
            (Reply::empty(302).header("Location", "/user/ann/lab/tree/x"), true),
            (Reply::empty(302).header("Location", "/user/ann/tree?"), false),
            (Reply::empty(302).header("Location", "/user/ann/labels"), false),
            (Reply::bytes("<html>"), false),
        ] {
            let server = ScriptedEngine::start().on("GET", "/user/ann/", reply);
            assert_eq!(client(&server).shows_lab().await.unwrap(), is_lab);
        }
    }

    #[tokio::test]
    async fn a_server_that_holds_the_documents_is_known() {
        for (status, holds) in [(405, true), (404, false), (200, false)] {
            let server =
                ScriptedEngine::start().on("GET", "/user/ann/api/collaboration/session/", Reply::error(status, "x"));
            assert_eq!(client(&server).holds_documents().await.unwrap(), holds, "{status}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_apart() {
        let long = "x".repeat(LARGEST_ANSWER);
        for (reply, part) in [
            (Reply::error(403, "Forbidden"), "does not accept the token"),
            (Reply::error(404, "no"), "HTTP status 404"),
            (Reply::bytes("<html>"), "not answer as a Jupyter server"),
            (Reply::json(200, &json!([])), "not answer as a Jupyter server"),
            (
                Reply::json(
                    200,
                    &json!({"started": "now", "last_activity": "", "connections": 0, "kernels": 0}),
                ),
                "\"now\" is not a time",
            ),
            (Reply::json(200, &json!({ "started": long })), "more than"),
            (Reply::hang_up(), "does not answer"),
            (Reply::garbage("SSH-2.0-OpenSSH\r\n"), "does not answer"),
            (Reply::hang(), "does not answer"),
        ] {
            let server = ScriptedEngine::start().on("GET", "/user/ann/api/status", reply);
            let client = client(&server).within(Duration::from_millis(500));
            let error = client.status().await.unwrap_err();
            assert!(error.to_string().contains(part), "{error}: {part}");
            assert!(!format!("{client:?}{error:?}").contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn the_token_stays_on_this_machine() {
        let address = ServerAddress::Tcp {
            host: "notebooks.example".to_owned(),
            port: 80,
        };
        let client = ServerClient::new(address, BasePath::default(), true, &token());
        let error = client.status().await.unwrap_err();
        assert!(matches!(error, ServerError::NotHere(_)), "{error}");
    }

    #[tokio::test]
    async fn a_server_with_its_own_certificate_is_asked_over_tcp() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/jupyter/samples/self_signed");
        let certificate = CertificateDer::from_pem_file(format!("{folder}.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(format!("{folder}.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"version\":\"2.1\"}";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            String::from_utf8(request[..read].to_vec()).unwrap()
        });
        let client = ServerClient::new(ServerAddress::here(port), BasePath::default(), true, &token());
        let version = "2.1".to_owned();
        assert_eq!(client.answers().await.unwrap(), ApiAnswer::Jupyter { version });
        let request = serving.await.unwrap().to_lowercase();
        assert!(request.starts_with("get /api http/1.1"), "{request}");
        assert!(request.contains(&format!("host: 127.0.0.1:{port}")), "{request}");
        // One that speaks no https does not answer.
        let plain = ScriptedEngine::start();
        let port = plain.tcp().rsplit_once(':').unwrap().1.parse().unwrap();
        let client = ServerClient::new(ServerAddress::here(port), BasePath::default(), true, &token())
            .within(Duration::from_secs(2));
        assert!(matches!(client.answers().await, Err(ServerError::Silent(_))));
    }

    #[tokio::test]
    async fn any_stream_leads_to_a_server() {
        let server = ScriptedEngine::start().on("GET", "/api", Reply::json(404, &json!({})));
        let socket = server.socket();
        let dialer = ServerDialer::new(move || {
            let socket = socket.clone();
            async move { Ok(Box::new(UnixStream::connect(socket).await?) as Box<dyn Duplex>) }
        });
        let client = ServerClient::new(ServerAddress::Dialed(dialer), BasePath::default(), false, &token());
        assert_eq!(client.answers().await.unwrap(), ApiAnswer::Other(StatusCode::NOT_FOUND));
        assert_eq!(client.page("/api").await.unwrap(), StatusCode::NOT_FOUND);
    }
}
