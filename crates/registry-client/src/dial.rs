//! How a connection is made: directly, or by the proxy that the environment names.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::{fmt, io};

use hyper::Uri;
use hyper::http::Extensions;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::proxies::{Proxies, ProxyProtocol, RegistryProxy};

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn StdError + Send + Sync>;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    tcp: HttpConnector,
    /// For proxies that have TLS themselves.
    to_proxy: HttpsConnector<HttpConnector>,
    proxies: Arc<Proxies>,
}

/// A connection.
pub(crate) struct Dialled {
    stream: Stream,
    /// Requests go to a proxy, with their whole URL.
    is_proxied: bool,
    has_answered: HasAnswered,
}

/// Whether an answer came over a connection, so that a further request was sent over one that had been idle.
#[derive(Clone, Debug, Default)]
pub(crate) struct HasAnswered(Arc<AtomicBool>);

impl HasAnswered {
    /// Notes it for the connection of this answer.
    pub(crate) fn note(answer: &Extensions) {
        if let Some(Self(flag)) = answer.get() {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// What was noted for this connection.
    pub(crate) fn of(connection: &Connected) -> bool {
        let mut extensions = Extensions::new();
        connection.get_extras(&mut extensions);
        extensions
            .get()
            .is_some_and(|Self(flag): &Self| flag.load(Ordering::Relaxed))
    }
}

/// A connection by way of a proxy that failed. The proxy is named without its login.
#[derive(Debug)]
struct ProxyFailure {
    proxy: String,
    to: String,
    cause: String,
}

impl fmt::Display for ProxyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proxy, to, cause } = self;
        write!(f, "the proxy {proxy} does not lead to {to}: {cause}")
    }
}

impl StdError for ProxyFailure {}

impl Dialer {
    pub(crate) const fn new(
        tcp: HttpConnector,
        to_proxy: HttpsConnector<HttpConnector>,
        proxies: Arc<Proxies>,
    ) -> Self {
        Self { tcp, to_proxy, proxies }
    }

    /// A connection by way of a proxy, and whether the proxy reads the requests itself.
    async fn by(mut self, proxy: &RegistryProxy, to: Uri) -> Result<(Stream, bool), BoxError> {
        match proxy.protocol {
            ProxyProtocol::Http if to.scheme_str() == Some("http") => {
                Ok((self.to_proxy.call(proxy.uri.clone()).await?, true))
            }
            ProxyProtocol::Http => {
                let mut tunnel = Tunnel::new(proxy.uri.clone(), self.to_proxy);
                if let Some(authorization) = proxy.authorization().map_err(|trouble| trouble.what)? {
                    tunnel = tunnel.with_auth(authorization);
                }
                Ok((tunnel.call(to).await?, false))
            }
            ProxyProtocol::Socks5 => {
                let mut socks = SocksV5::new(proxy.uri.clone(), self.tcp);
                if let Some((user, password)) = proxy.login.clone() {
                    socks = socks.with_auth(user, password);
                }
                Ok((MaybeHttpsStream::Http(socks.call(to).await?), false))
            }
        }
    }
}

impl Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Dialled, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut dialer = self.clone();
        Box::pin(async move {
            let proxy = dialer.proxies.of(&to).map_err(|trouble| trouble.what)?.cloned();
            let (stream, is_proxied) = match proxy {
                None => (MaybeHttpsStream::Http(dialer.tcp.call(to).await?), false),
                Some(proxy) => {
                    let to = with_port(to)?;
                    let name = to.authority().map(ToString::to_string).unwrap_or_default();
                    dialer.by(&proxy, to).await.map_err(|error| ProxyFailure {
                        proxy: proxy.to_string(),
                        to: name,
                        cause: innermost(&*error),
                    })?
                }
            };
            Ok(Dialled {
                stream,
                is_proxied,
                has_answered: HasAnswered::default(),
            })
        })
    }
}

/// The same with its port, which a proxy must be told.
fn with_port(url: Uri) -> Result<Uri, BoxError> {
    if url.port().is_some() {
        return Ok(url);
    }
    let scheme = url.scheme_str().unwrap_or_default();
    let port = if scheme == "https" { 443 } else { 80 };
    Ok(format!("{scheme}://{}:{port}/", url.host().unwrap_or_default()).parse()?)
}

/// The innermost cause says most: the others are `client error (Connect)` and the like.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        self.stream
            .connected()
            .proxy(self.is_proxied)
            .extra(self.has_answered.clone())
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}
