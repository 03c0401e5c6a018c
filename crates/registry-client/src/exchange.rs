//! One request and its answer: bounded in time and size, over connections that are used again.
//!
//! A registry, or what stands before it, may close an idle connection at the moment at which we use it. hyper-util sends
//! a request again only if nothing of it was written yet. So a request that can be repeated, and whose connection had
//! answered before and then ended without an answer, is sent once more, over a connection that is certainly new (Go's
//! net/http does the same).

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, PROXY_AUTHORIZATION,
    USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::timeout;
use url::Url;

use crate::dial::{Dialer, HasAnswered, innermost};
use crate::error::{Failure, RegistryTrouble};
use crate::proxies::Proxies;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// The most redirects that are followed.
const REDIRECTS: usize = 5;
/// The slowest link that is waited for: what is sent at this rate, in bytes a second, arrives in time.
const SLOWEST: u64 = 16 * 1024;
const OUR_NAME: &str = concat!("dockerutils/", env!("CARGO_PKG_VERSION"));

type Hyper = Client<HttpsConnector<Dialer>, Full<Bytes>>;

/// How long a registry may take.
#[derive(Clone, Copy, Debug)]
pub struct TimeLimits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until an answer begins, and between two parts of it.
    pub answer: Duration,
    /// For one answer as a whole.
    pub whole: Duration,
    /// For all pages of a list.
    pub list: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            whole: Duration::from_secs(300),
            list: Duration::from_secs(300),
        }
    }
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct RegistryCall {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
    /// The most bytes of the answer.
    pub(crate) limit: usize,
}

impl RegistryCall {
    pub(crate) const fn new(method: Method, url: Url, limit: usize) -> Self {
        Self {
            method,
            url,
            accept: None,
            content_type: None,
            body: Bytes::new(),
            limit,
        }
    }

    /// Whether it may be sent again when it is not known what became of it. An upload that is begun twice is an upload
    /// that nobody ends.
    fn is_repeatable(&self) -> bool {
        self.method != Method::POST || self.body.is_empty()
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct RegistryReply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Where it came from, after redirects.
    pub(crate) url: Url,
}

impl RegistryReply {
    /// A header, if it is there once and is a text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The media type without its parameters.
    pub(crate) fn media_type(&self) -> &str {
        let given = self.header("content-type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim()
    }
}

/// The connections to a registry, and to other hosts that it names: those never see the client certificate.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    own: Pool,
    others: Pool,
    proxies: Arc<Proxies>,
    limits: TimeLimits,
}

/// Connections that are used again, and those that are not.
#[derive(Clone, Debug)]
struct Pool {
    kept: Hyper,
    new: Hyper,
}

impl Pool {
    fn new(dialer: Dialer, tls: ClientConfig, most_idle: usize) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialer);
        let client = |most_idle| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(most_idle)
                .build(connector.clone())
        };
        Self {
            kept: client(most_idle),
            new: client(0),
        }
    }
}

impl Connections {
    pub(crate) fn new(
        own: ClientConfig,
        others: ClientConfig,
        proxies: Proxies,
        limits: TimeLimits,
        most_idle: usize,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(IDLE));
        tcp.set_connect_timeout(Some(limits.connect));
        // A proxy may have TLS itself; it never sees the client certificate either.
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(others.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp.clone());
        let proxies = Arc::new(proxies);
        let dialer = Dialer::new(tcp, to_proxy, Arc::clone(&proxies));
        Self {
            own: Pool::new(dialer.clone(), own, most_idle),
            others: Pool::new(dialer, others, most_idle),
            proxies,
            limits,
        }
    }

    /// How long a registry may take.
    pub(crate) const fn limits(&self) -> &TimeLimits {
        &self.limits
    }

    /// Sends a call to the registry at `home`, and follows redirects of what is only read. `authorization` goes to the
    /// registry itself alone.
    pub(crate) async fn send(
        &self,
        home: &Url,
        call: &RegistryCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<RegistryReply, RegistryTrouble> {
        let mut call = call.clone();
        for _ in 0..=REDIRECTS {
            let reply = self.once(home, &call, authorization).await?;
            let follows = matches!(call.method, Method::GET | Method::HEAD)
                && matches!(reply.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !follows {
                return Ok(reply);
            }
            call.url = led_to(home, &reply)?;
        }
        Err(RegistryTrouble::invalid(format!(
            "it redirects more than {REDIRECTS} times"
        )))
    }

    /// Sends a call once. `authorization` goes to the registry itself alone.
    pub(crate) async fn once(
        &self,
        home: &Url,
        call: &RegistryCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<RegistryReply, RegistryTrouble> {
        let is_home = call.url.origin() == home.origin();
        self.exchange(is_home, call, authorization.filter(|_| is_home)).await
    }

    /// Asks the realm of a registry, which [`login`](crate::login) found to be trusted. Redirects are not followed.
    pub(crate) async fn ask_realm(
        &self,
        home: &Url,
        call: &RegistryCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<RegistryReply, RegistryTrouble> {
        self.exchange(call.url.origin() == home.origin(), call, authorization)
            .await
    }

    async fn exchange(
        &self,
        is_home: bool,
        call: &RegistryCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<RegistryReply, RegistryTrouble> {
        let pool = if is_home { &self.own } else { &self.others };
        let upload = Duration::from_secs(call.body.len() as u64 / SLOWEST);
        let limit = self.limits.connect + self.limits.answer + upload;
        let mut answer = timeout(limit, pool.kept.request(self.request(call, authorization)?)).await;
        if let Ok(Err(error)) = &answer
            && call.is_repeatable()
            && was_idle(error)
        {
            answer = timeout(limit, pool.new.request(self.request(call, authorization)?)).await;
        }
        let answer: Response<_> = match answer {
            Ok(answer) => answer.map_err(|error| RegistryTrouble::unreachable(causes(&error)))?,
            Err(_) => return Err(silent(limit)),
        };
        HasAnswered::note(answer.extensions());
        let (head, body) = answer.into_parts();
        let said = head
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if call.method != Method::HEAD && said.is_some_and(|said| said > call.limit as u64) {
            return Err(RegistryTrouble::too_large(call.limit));
        }
        let read = self.read(body, call.limit);
        let Ok(body) = timeout(self.limits.whole, read).await else {
            return Err(silent(self.limits.whole));
        };
        Ok(RegistryReply {
            status: head.status,
            headers: head.headers,
            body: body?,
            url: call.url.clone(),
        })
    }

    fn request(
        &self,
        call: &RegistryCall,
        authorization: Option<&HeaderValue>,
    ) -> Result<Request<Full<Bytes>>, RegistryTrouble> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.url.as_str())
            .header(USER_AGENT, OUR_NAME);
        if let Some(accept) = &call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(content_type) = &call.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if call.body.is_empty() && matches!(call.method, Method::POST | Method::PUT) {
            request = request.header(CONTENT_LENGTH, 0);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut request = request
            .body(Full::new(call.body.clone()))
            .map_err(|error| RegistryTrouble::invalid(format!("this can't be asked: {error}")))?;
        let proxy = self.proxies.of(request.uri())?;
        // Through TLS a proxy sees no header: the dialer tells it.
        if let Some(proxy) = proxy.filter(|_| call.url.scheme() == "http")
            && let Some(authorization) = proxy.authorization()?
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization);
        }
        Ok(request)
    }

    async fn read(&self, mut body: hyper::body::Incoming, limit: usize) -> Result<Bytes, RegistryTrouble> {
        let mut bytes = BytesMut::new();
        loop {
            let Ok(frame) = timeout(self.limits.answer, body.frame()).await else {
                return Err(silent(self.limits.answer));
            };
            let Some(frame) = frame else {
                return Ok(bytes.freeze());
            };
            let frame =
                frame.map_err(|error| RegistryTrouble::unreachable(format!("its answer broke off: {error}")))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > limit {
                    return Err(RegistryTrouble::too_large(limit));
                }
                bytes.extend_from_slice(data);
            }
        }
    }
}

/// Where a redirect, or the `Location` of an upload, leads: never from TLS to a connection without it.
pub(crate) fn led_to(home: &Url, reply: &RegistryReply) -> Result<Url, RegistryTrouble> {
    let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location else {
        return Err(RegistryTrouble::invalid(format!(
            "it answers {} and does not say where to go on",
            reply.status.as_u16()
        )));
    };
    let Ok(url) = reply.url.join(location) else {
        return Err(RegistryTrouble::invalid(format!("it leads to {location:?}")));
    };
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && home.scheme() == "http");
    match is_safe && url.username().is_empty() && url.password().is_none() {
        true => Ok(url),
        // A query may have a signature in it.
        false => Err(RegistryTrouble::invalid(format!(
            "it leads from {} to {}://{}, where we don't follow",
            home.scheme(),
            url.scheme(),
            url.host_str().unwrap_or_default()
        ))),
    }
}

fn silent(limit: Duration) -> RegistryTrouble {
    RegistryTrouble::new(
        Failure::Unreachable,
        format!("it did not answer within {} s", limit.as_secs_f32().ceil()),
    )
}

/// Whether the connection had been idle, and ended before an answer came over it.
fn was_idle(error: &ClientError) -> bool {
    let is_reused = error.connect_info().is_some_and(HasAnswered::of);
    let ended = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    // An answer that makes no sense is an answer.
    is_reused && ended.is_some_and(|error| !error.is_parse() && !error.is_user())
}

fn causes(error: &ClientError) -> String {
    let ended = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    match ended {
        Some(ended) if ended.is_incomplete_message() => "it closed the connection without an answer".to_owned(),
        _ => innermost(error),
    }
}
