//! The client of one engine: bollard for the plain calls, and the raw connections that bollard does not offer (hijacked
//! streams for BuildKit and terminals, streamed request bodies).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{SystemInfo, SystemVersion};
use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::bounded_stream::{BoundedDialer, Bounds};
use super::client_config::ClientConfig;
use super::connection_error::{self, BoxError, DockDown};
use super::dock_engine::ChosenEngine;
use super::endpoint::{Choice, Endpoint, Origin};
use super::stream::Dialer;
use crate::agent::CallOptions;
use crate::agent::wire::FAILURE_HEADER;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// How long an engine may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one of bollard's calls may take to the end of its answer, and how large that may be. Whatever may take long
/// (builds, pulls, waits) uses [`Engine::request`] and [`Engine::hijack`], where the connection itself is watched, and
/// what is read is bounded where it is read.
const CALL: Bounds = Bounds {
    // A list of ten thousand images is about 10 MiB.
    bytes: 64 << 20,
    time: Duration::from_secs(300),
};
/// How long the answer to any other request may take to begin, or a stream to open.
const QUESTION: Duration = CALL.time;
/// How long an engine may be silent in the middle of long work: a pull, a push, an image that it writes to disk before
/// it sends it. Registries take minutes to put a large layer together; after this time, nobody is at the other end any
/// more.
pub(in crate::docker) const SILENCE: Duration = Duration::from_secs(30 * 60);
/// The most bytes of an error's body that are read: its message is a line.
const REFUSAL: usize = 64 * 1024;
/// The longest part of a message that is shown, in bytes.
const LONGEST_LINE: usize = 4000;
/// How long the body of a short answer may take after its headers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The newest API version that we use; with an older engine, we use the engine's.
const NEWEST_API: ApiVersion = ApiVersion(1, 51);
/// The oldest API that has all we need (docker 20.10).
const OLDEST_API: ApiVersion = ApiVersion(1, 40);

/// A version of the engine's API, such as 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub usize, pub usize);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl ApiVersion {
    /// Parses `1.41`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// What the engine said of itself when it was pinged.
#[derive(Clone, Debug)]
pub struct PingResponse {
    /// The API version that both sides speak.
    pub api: ApiVersion,
    /// `linux` or `windows`.
    pub os: String,
    /// The builder that the engine prefers: `1` is the classic one, `2` BuildKit.
    pub builder: Option<String>,
}

/// A connected engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    dialer: Dialer,
    choice: Arc<Choice>,
    greeting: Arc<PingResponse>,
    /// How long [`Engine::answered`] waits: [`QUESTION`].
    patience: Duration,
}

impl Engine {
    /// Whether the engine answers now, without waiting for it; its agent is started again if it has ended.
    ///
    /// # Errors
    /// As [`ChosenEngine::at`] and [`ChosenEngine::connect`].
    pub async fn answers(&self, env: &Env) -> Result<()> {
        let engine = ChosenEngine::at(Choice::clone(&self.choice), env)?;
        engine.connect(&CallOptions::of_terminal()).await.map(drop)
    }

    /// Connects to this endpoint, and settles on an API version.
    ///
    /// # Errors
    /// [`Error::unreachable`] where nothing answers within twenty seconds, with a hint how to fix it.
    pub async fn connect_to(choice: Choice) -> Result<Self> {
        let dialer = Dialer::new(choice.endpoint.clone());
        let pinging = ping(&dialer);
        let greeting = match tokio::time::timeout(PING_TIMEOUT, pinging).await {
            Ok(answer) => answer.map_err(|cause| unreachable_engine(&choice, cause))?,
            Err(_) => {
                return Err(Error::unreachable(format!("{} does not answer", choice.engine()))
                    .because(format!("it took the connection and said nothing for {PING_TIMEOUT:?}"))
                    .hint(silent_hint(&choice)));
            }
        };
        if greeting.api < OLDEST_API {
            return Err(Error::unreachable(format!(
                "{} speaks API {}, which is older than {OLDEST_API}",
                choice.engine(),
                greeting.api
            ))
            .hint("update docker there to 20.10 or newer"));
        }
        let mut pool = Client::builder(TokioExecutor::new());
        pool.pool_idle_timeout(Duration::from_secs(30));
        let client: Client<BoundedDialer, _> = pool.build(BoundedDialer::new(dialer.clone(), CALL));
        let prefix = format!("/v{}", greeting.api);
        let transport = move |request: BollardRequest| {
            let client = client.clone();
            let request = with_version(request, &prefix);
            async move {
                let response = client.request(request?).await.map_err(bollard::errors::Error::from)?;
                of_engine(response)
                    .await
                    .map_err(|down| std::io::Error::other(down).into())
            }
        };
        let version = ClientVersion {
            major_version: greeting.api.0,
            minor_version: greeting.api.1,
        };
        let docker =
            Docker::connect_with_custom_transport(transport, Some("http://docker"), CALL.time.as_secs(), &version)
                .map_err(|cause| Error::failed("the engine's client can't be made").because(cause))?;
        Ok(Self {
            docker,
            dialer,
            choice: Arc::new(choice),
            greeting: Arc::new(greeting),
            patience: QUESTION,
        })
    }

    /// bollard's client of this engine.
    pub const fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Where the engine is and what chose it.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The engine's answer to the ping.
    pub fn greeting(&self) -> &PingResponse {
        &self.greeting
    }

    /// The API version that both sides speak.
    pub fn api(&self) -> ApiVersion {
        self.greeting.api
    }

    /// The API version, major and minor, that docker's client speaks with this engine: docker 28 speaks 1.50 at most,
    /// and the meaning of an option depends on it.
    pub fn client_api(&self) -> (u32, u32) {
        (1, u32::try_from(self.api().1.min(50)).unwrap_or(50))
    }

    /// The proxy variables that the docker client's configuration sets in builds and containers on this engine.
    pub fn proxy_variables(&self, config: &ClientConfig) -> Vec<(&'static str, String)> {
        config.proxy_variables(&self.choice.endpoint.to_string())
    }

    /// The engine's description of itself and its machine.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn info(&self) -> Result<SystemInfo> {
        self.docker.info().await.map_err(|cause| self.error("info", cause))
    }

    /// The engine's versions.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn version(&self) -> Result<SystemVersion> {
        self.docker
            .version()
            .await
            .map_err(|cause| self.error("version", cause))
    }

    /// Sends a request on a connection of its own and gives the response with its body still to come.
    ///
    /// `path` is that of the API, without its version; the body may be a stream.
    ///
    /// # Errors
    /// A broken connection. An HTTP status is no error here.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Incoming>>
    where
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("/v{}{}", self.greeting.api, parts.uri)
            .parse()
            .map_err(|cause| {
                Error::failed(format!("{} is not a path of the engine's API", parts.uri)).because(cause)
            })?;
        send(&self.dialer, Request::from_parts(parts, body))
            .await
            .map_err(|cause| self.lost(cause))
    }

    /// Waits for the answer to a question: an engine that takes a request and never answers would hold the command for ever.
    ///
    /// # Errors
    /// Those of `answer`, and [`Error::unreachable`] if none comes.
    pub async fn answered<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(self.patience, answer).await
    }

    /// Waits for the first part of an answer that takes the engine long work.
    ///
    /// # Errors
    /// As [`Engine::answered`].
    pub async fn worked<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        self.within(SILENCE, answer).await
    }

    async fn within<T>(&self, limit: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent(limit)),
        }
    }

    /// A stream that waits for each part as for an answer.
    pub(in crate::docker) fn steady<S, T>(&self, parts: S) -> impl Stream<Item = Result<T>> + Send + Unpin + use<S, T>
    where
        S: Stream<Item = Result<T>> + Send + Unpin + 'static,
        T: Send + 'static,
    {
        self.parts_within(self.patience, parts)
    }

    fn parts_within<S, T>(&self, limit: Duration, parts: S) -> impl Stream<Item = Result<T>> + Send + Unpin + use<S, T>
    where
        S: Stream<Item = Result<T>> + Send + Unpin + 'static,
        T: Send + 'static,
    {
        let state = (self.clone(), parts);
        Box::pin(futures_util::stream::try_unfold(
            state,
            move |(engine, mut parts)| async move {
                let next = async { parts.next().await.transpose() };
                let part = engine.within(limit, next).await?;
                Ok(part.map(|part| (part, (engine, parts))))
            },
        ))
    }

    /// The body of an answer that takes long work, chunk by chunk.
    pub fn chunks(&self, response: Response<Incoming>) -> impl Stream<Item = Result<Bytes>> + Send + Unpin + use<> {
        let engine = self.clone();
        let body = response.into_body().into_data_stream();
        self.parts_within(SILENCE, body.map_err(move |cause| engine.lost(cause)))
    }

    fn silent(&self, limit: Duration) -> Error {
        Error::unreachable(format!(
            "{} has said nothing for {} minutes",
            self.choice.engine(),
            limit.as_secs() / 60
        ))
        .hint(silent_hint(&self.choice))
    }

    /// Turns a POST into a raw two-way stream, as `/session`, `/grpc` and `/containers/ID/attach` allow.
    ///
    /// # Errors
    /// The engine's refusal with its own message, a broken connection, or no answer.
    pub async fn hijack(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
        self.answered(self.upgrade(path, protocol, headers, Bytes::new())).await
    }

    /// [`Engine::hijack`] by a request that has a JSON document, as `/exec/ID/start` needs it.
    ///
    /// # Errors
    /// As [`Engine::hijack`].
    pub async fn hijack_with(
        &self,
        path: &str,
        protocol: &str,
        document: Bytes,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
        let headers = [("Content-Type", "application/json")];
        self.answered(self.upgrade(path, protocol, &headers, document)).await
    }

    async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, protocol);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|cause| Error::failed(format!("{path} is not a request")).because(cause))?;
        let response = self.request(request).await?;
        // Engines answer 101, or 200 where they only stop speaking HTTP.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS && response.status() != StatusCode::OK {
            let refused = refusal(response).await;
            let path = path.split('?').next().unwrap_or(path);
            return Err(Error::failed(format!("{} refuses a stream at {path}", self.choice.engine())).because(refused));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|cause| self.lost(cause))?;
        Ok(TokioIo::new(upgraded))
    }

    /// The error of an API call about `object`.
    pub fn error(&self, object: &str, cause: bollard::errors::Error) -> Error {
        match cause {
            bollard::errors::Error::DockerResponseServerError { status_code, message } => {
                let status = StatusCode::from_u16(status_code).unwrap_or_default();
                Error::failed(format!("{object}: {}", refused(status, &message)))
            }
            // The engine is there, and would answer the same again.
            nonsense @ (bollard::errors::Error::JsonDataError { .. }
            | bollard::errors::Error::JsonSerdeError { .. }) => Error::failed(format!(
                "{object}: {} gives an answer that makes no sense",
                self.choice.engine()
            ))
            .because(nonsense),
            other => self.away(Some(object), Box::new(other)),
        }
    }

    /// The connection broke in the middle.
    pub fn lost(&self, cause: impl Into<BoxError>) -> Error {
        self.away(None, cause.into())
    }

    fn away(&self, object: Option<&str>, cause: BoxError) -> Error {
        let engine = self.choice.engine();
        let happened = match self.choice.dock() {
            Some(_) => format!("the connection to {engine} was lost"),
            None => format!("{engine} went away"),
        };
        let message = match object {
            Some(object) => format!("{object}: {happened}"),
            None => happened,
        };
        let error = Error::unreachable(message).because(connection_error::told(cause));
        match &self.choice.origin {
            Origin::Dock(name) => error.hint(hint!("ls-dock --check {} says how it is", name)),
            _ => error.hint("see whether it still runs: docker version"),
        }
    }
}

/// What the engine answered; `None` if it says that there is no such thing.
///
/// # Errors
/// Every other refusal, and a connection that broke.
pub fn found<T>(answer: Result<T, bollard::errors::Error>) -> Result<Option<T>, bollard::errors::Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The engine's own message, which may have line ends and control characters in it, and be of any length.
pub fn one_line(message: &str) -> String {
    let message = message.trim();
    let shown = message
        .get(..message.floor_char_boundary(LONGEST_LINE))
        .unwrap_or(message);
    let mut line: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if shown.len() < message.len() {
        line.push_str("...");
    }
    line
}

/// The body of a short answer of [`Engine::request`]: `most` bytes at most, and within a minute.
///
/// # Errors
/// A broken connection, a larger body, a longer time.
pub async fn answer(response: Response<Incoming>, most: usize) -> Result<Bytes, BoxError> {
    let body = http_body_util::Limited::new(response.into_body(), most).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await??;
    Ok(body.to_bytes())
}

/// Reads the error of a response that is not a success: the engine's own message.
pub async fn refusal(response: Response<Incoming>) -> Error {
    #[derive(serde::Deserialize)]
    struct ErrorResponse {
        message: String,
    }
    let status = response.status();
    let body = beginning(response, REFUSAL).await;
    match serde_json::from_slice::<ErrorResponse>(&body) {
        Ok(ErrorResponse { message }) => Error::failed(refused(status, &message)),
        Err(_) => Error::failed(match one_line(&String::from_utf8_lossy(&body)) {
            line if line.is_empty() => refused(status, ""),
            line => format!("the engine answered {status}: {line}"),
        }),
    }
}

/// Why an engine refused something: its message, and the status if that is empty.
fn refused(status: StatusCode, message: &str) -> String {
    match one_line(message) {
        line if line.is_empty() => format!("the engine answered {status}"),
        line => line,
    }
}

/// As much of a body as arrives within a minute, of so many bytes at most.
async fn beginning(response: Response<Incoming>, most: usize) -> Vec<u8> {
    let mut body = response.into_body().into_data_stream();
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < most
            && let Some(Ok(chunk)) = body.next().await
        {
            bytes.extend_from_slice(&chunk);
        }
    };
    // What arrived until then says more than nothing.
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, reading).await;
    bytes.truncate(most);
    bytes
}

fn with_version(request: BollardRequest, prefix: &str) -> Result<BollardRequest, bollard::errors::Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", hyper::http::uri::PathAndQuery::as_str);
    // bollard sends no version, and an engine then takes its own newest: fields could change their meaning under us.
    let path = if path.starts_with("/v1.") {
        path.to_owned()
    } else {
        format!("{prefix}{path}")
    };
    parts.uri = hyper::Uri::builder()
        .scheme("http")
        .authority("docker")
        .path_and_query(path)
        .build()?;
    Ok(BollardRequest::from_parts(parts, body))
}

async fn send<B>(dialer: &Dialer, mut request: Request<B>) -> Result<Response<Incoming>, BoxError>
where
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    request
        .headers_mut()
        .insert(HOST, hyper::header::HeaderValue::from_static("docker"));
    let stream = dialer.dial().await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    Ok(of_engine(sender.send_request(request).await?).await?)
}

/// The engine's answer, and not that of an agent which could not reach it.
async fn of_engine(response: Response<Incoming>) -> Result<Response<Incoming>, DockDown> {
    if !response.headers().contains_key(FAILURE_HEADER) {
        return Ok(response);
    }
    Err(DockDown {
        message: refusal(response).await.to_string(),
    })
}

async fn ping(dialer: &Dialer) -> Result<PingResponse, BoxError> {
    let request = Request::builder().uri("/_ping").body(Full::<Bytes>::default())?;
    let response = send(dialer, request).await?;
    let status = response.status();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (api, os, builder) = (header("Api-Version"), header("Ostype"), header("Builder-Version"));
    if !status.is_success() {
        return Err(refusal(response).await.into());
    }
    let api = api
        .as_deref()
        .and_then(ApiVersion::parse)
        .ok_or("what answers there is not a docker engine: it names no API version")?;
    Ok(PingResponse {
        api: api.min(NEWEST_API),
        os: os.unwrap_or_else(|| "linux".to_owned()),
        builder,
    })
}

fn unreachable_engine(choice: &Choice, cause: BoxError) -> Error {
    let io_kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let hint = match (&choice.endpoint, io_kind) {
        (Endpoint::Unix(path), Some(std::io::ErrorKind::PermissionDenied)) => {
            hint!(
                "you may not use {}: sudo usermod -aG docker $USER, then log in again",
                path.display()
            )
        }
        (Endpoint::Unix(_), Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused))
            if choice.origin == Origin::Default =>
        {
            "start the engine (sudo systemctl start docker), or name another by DOCKER_HOST".to_owned()
        }
        _ => match &choice.origin {
            Origin::Default => "start the engine (sudo systemctl start docker)".to_owned(),
            Origin::Host => {
                "DOCKER_HOST chose this engine: start it there, or `unset DOCKER_HOST` for the one on this machine"
                    .to_owned()
            }
            Origin::Context(name) => {
                hint!(
                    "the docker context {} chose this engine: start it there, or docker context use default",
                    name
                )
            }
            Origin::Dock(name) => hint!("ls-dock --check {} says what is wrong", name),
        },
    };
    // The agent says which dock it is of.
    if let Some(down) = connection_error::of_agent(&*cause) {
        return Error::unreachable(down.message.clone());
    }
    let hint = match (connection_error::noise(&*cause), &choice.endpoint) {
        (Some(_), Endpoint::Ssh { destination, .. }) => hint!(
            "let the startup files of the shell there (~/.bashrc, ~/.zshenv) print nothing outside a terminal: \
             [ -t 1 ] || return; a dock does without that shell: register-dock {}",
            destination
        ),
        _ => hint,
    };
    // The address of an agent's socket tells a user nothing.
    let message = match (&choice.endpoint, choice.dock()) {
        (Endpoint::Unix(_), Some(moniker)) => format!("the engine of dock {moniker:?} does not answer"),
        _ => format!("no engine answers at {}", choice.endpoint),
    };
    Error::unreachable(message)
        .because(connection_error::told(cause))
        .hint(hint)
}

/// The hint for an engine that is there and stays silent.
fn silent_hint(choice: &Choice) -> String {
    match choice.dock() {
        Some(moniker) => hint!(
            "ls-dock --check {} says how it is; on the dock: journalctl -u docker",
            moniker
        ),
        None => "look at the engine's log (journalctl -u docker) or restart it".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An engine that answers pings, and says `said` to anything else.
    async fn engine(said: &'static str) -> (tempfile::TempDir, Engine) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let read = stream.read(&mut request).await.unwrap();
                    let answer = match request[..read].starts_with(b"GET /_ping") {
                        true => "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n",
                        false => said,
                    };
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    // It stays silent, and does not close the connection.
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
                });
            }
        });
        let choice = Choice {
            endpoint: Endpoint::Unix(socket),
            origin: Origin::Host,
        };
        let mut engine = Engine::connect_to(choice).await.unwrap();
        engine.patience = Duration::from_millis(100);
        (folder, engine)
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
        let (_folder, engine) = engine("").await;
        let streams = engine.hijack("/session", "h2c", &[]).await;
        let Err(error) = streams else { panic!("a stream") };
        assert_eq!(error.class(), crate::error::Class::Unreachable);
        assert!(error.to_string().contains("has said nothing"), "{error}");
        let mut parts = engine.steady(futures_util::stream::iter([Ok(1)]).chain(futures_util::stream::pending()));
        assert_eq!(parts.next().await.unwrap().unwrap(), 1);
        assert!(parts.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_refusal_says_something_whatever_it_is() {
        let request = || Request::get("/x").body(Full::<Bytes>::default()).unwrap();
        let long: &'static str = Box::leak(
            format!(
                "HTTP/1.1 500 Oh\r\nContent-Length: 300000\r\n\r\n{{\"message\":\"{}\"}}",
                "x".repeat(300_000)
            )
            .into_boxed_str(),
        );
        for (said, part) in [
            (
                "HTTP/1.1 307 Go\r\nLocation: http://evil\r\nContent-Length: 0\r\n\r\n",
                "answered 307",
            ),
            (
                "HTTP/1.1 404 No\r\nContent-Length: 14\r\n\r\n{\"message\":\"\"}",
                "answered 404",
            ),
            ("HTTP/1.1 404 No\r\nContent-Length: 15\r\n\r\n{\"message\":\"a\"}", "a"),
            (long, "xxx"),
        ] {
            let (_folder, engine) = engine(said).await;
            let error = refusal(engine.request(request()).await.unwrap()).await.to_string();
            assert!(error.contains(part) && error.len() < LONGEST_LINE + 100, "{error}");
        }
        let cause = bollard::errors::Error::DockerResponseServerError {
            status_code: 307,
            message: String::new(),
        };
        let (_folder, engine) = engine("").await;
        assert!(
            engine
                .error("web", cause)
                .to_string()
                .contains("web: the engine answered 307")
        );
    }
}
