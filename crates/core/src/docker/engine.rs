//! The client of one engine: bollard for the plain calls, and the raw connections that it has no door for
//! (hijacked streams for BuildKit and terminals, streamed request bodies).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{SystemInfo, SystemVersion};
use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::client_config::ClientConfig;
use super::endpoint::{Choice, Endpoint, Origin};
use super::metered::{Bounds, MeteredDialer};
use super::stream::Dialer;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// How long an engine may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one of bollard's calls may take to the end of its answer, and how large that may be. All that may last (builds, pulls,
/// waits) goes by [`Engine::request`] and [`Engine::hijack`], where the connection itself is watched, and what is read is
/// bounded where it is read.
const CALL: Bounds = Bounds {
    // The list of ten thousand images has about ten.
    bytes: 64 << 20,
    time: Duration::from_secs(300),
};
/// An error's message is a line.
const REFUSAL: usize = 64 * 1024;
/// How long the body of a short answer may take, whose headers are there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The newest API whose fields we send; an older engine is spoken to in its own.
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
pub struct Greeting {
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
    greeting: Arc<Greeting>,
}

impl Engine {
    /// Connects to the engine that the environment chooses, and settles on an API version. Where that is a dock whose agent
    /// has ended, the agent is started again.
    ///
    /// # Errors
    /// [`Error::unreachable`] where nothing answers within twenty seconds, with what would mend it.
    pub async fn connect(env: &Env) -> Result<Self> {
        let choice = Endpoint::choose(env)?;
        super::docked::revive(&choice.endpoint, env).await?;
        Self::connect_to(choice).await
    }

    /// Connects to this endpoint.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub async fn connect_to(choice: Choice) -> Result<Self> {
        let dialer = Dialer::new(choice.endpoint.clone());
        let pinging = ping(&dialer);
        let greeting = match tokio::time::timeout(PING_TIMEOUT, pinging).await {
            Ok(answer) => answer.map_err(|cause| unreachable_engine(&choice, cause))?,
            Err(_) => {
                return Err(
                    Error::unreachable(format!("the engine at {} does not answer", choice.endpoint))
                        .because(format!("it took the connection and said nothing for {PING_TIMEOUT:?}"))
                        .hint("look at the engine's log (journalctl -u docker) or restart it"),
                );
            }
        };
        if greeting.api < OLDEST_API {
            return Err(Error::unreachable(format!(
                "the engine at {} speaks API {}, which is older than {OLDEST_API}",
                choice.endpoint, greeting.api
            ))
            .hint("update docker there to 20.10 or newer"));
        }
        let mut pool = Client::builder(TokioExecutor::new());
        pool.pool_idle_timeout(Duration::from_secs(30));
        let client: Client<MeteredDialer, _> = pool.build(MeteredDialer::new(dialer.clone(), CALL));
        let prefix = format!("/v{}", greeting.api);
        let transport = move |request: BollardRequest| {
            let client = client.clone();
            let request = with_version(request, &prefix);
            async move { client.request(request?).await.map_err(bollard::errors::Error::from) }
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

    /// What the engine said of itself.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// The API version that both sides speak.
    pub fn api(&self) -> ApiVersion {
        self.greeting.api
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
            .map_err(|cause| Error::failed(format!("{} is no path of the engine's API", parts.uri)).because(cause))?;
        send(&self.dialer, Request::from_parts(parts, body))
            .await
            .map_err(|cause| self.lost(cause))
    }

    /// Turns a POST into a raw two-way stream, as `/session`, `/grpc` and `/containers/ID/attach` allow.
    ///
    /// # Errors
    /// The engine's refusal with its own message, or a broken connection.
    pub async fn hijack(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
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
            .body(Full::new(Bytes::new()))
            .map_err(|cause| Error::failed(format!("{path} is no request")).because(cause))?;
        let response = self.request(request).await?;
        // Engines answer 101, or 200 where they only stop speaking HTTP.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS && response.status() != StatusCode::OK {
            let refused = refusal(response).await;
            let path = path.split('?').next().unwrap_or(path);
            return Err(Error::failed(format!(
                "the engine at {} refuses a stream at {path}",
                self.choice.endpoint
            ))
            .because(refused));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|cause| self.lost(cause))?;
        Ok(TokioIo::new(upgraded))
    }

    /// Says what an API call about `object` failed of.
    pub fn error(&self, object: &str, cause: bollard::errors::Error) -> Error {
        match cause {
            bollard::errors::Error::DockerResponseServerError { message, .. } => {
                Error::failed(format!("{object}: {}", one_line(&message)))
            }
            // It is there, and asked again it would say the same.
            nonsense @ (bollard::errors::Error::JsonDataError { .. }
            | bollard::errors::Error::JsonSerdeError { .. }) => Error::failed(format!(
                "{object}: the engine at {} gives an answer that makes no sense",
                self.choice.endpoint
            ))
            .because(nonsense),
            other => Error::unreachable(format!("{object}: the engine at {} went away", self.choice.endpoint))
                .because(other)
                .hint("look whether it still runs: docker version"),
        }
    }

    /// The connection broke in the middle.
    pub fn lost(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::unreachable(format!("the engine at {} went away", self.choice.endpoint))
            .because(cause)
            .hint("look whether it still runs: docker version")
    }
}

/// The engine's own message, which may have line ends and control characters in it.
pub fn one_line(message: &str) -> String {
    message
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The body of a short answer of [`Engine::request`]: of so many bytes at most, and within a minute.
///
/// # Errors
/// A broken connection, a larger body, a longer time.
pub async fn answer(response: Response<Incoming>, most: usize) -> Result<Bytes, BoxError> {
    let body = http_body_util::Limited::new(response.into_body(), most).collect();
    let body = tokio::time::timeout(ANSWER_TIMEOUT, body).await??;
    Ok(body.to_bytes())
}

/// Reads the error of a response that is no success: the engine's own message.
pub async fn refusal(response: Response<Incoming>) -> Error {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let status = response.status();
    let body = answer(response, REFUSAL).await.unwrap_or_default();
    match serde_json::from_slice::<Message>(&body) {
        Ok(Message { message }) => Error::failed(one_line(&message)),
        Err(_) => Error::failed(format!(
            "the engine answered {status}: {}",
            one_line(&String::from_utf8_lossy(&body))
        )),
    }
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

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
    Ok(sender.send_request(request).await?)
}

async fn ping(dialer: &Dialer) -> Result<Greeting, BoxError> {
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
        .ok_or("what answers there is no docker engine: it names no API version")?;
    Ok(Greeting {
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
                "you may not use {}: sudo usermod -aG docker $USER, then log in anew",
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
    Error::unreachable(format!("no engine answers at {}", choice.endpoint))
        .because(cause)
        .hint(hint)
}
