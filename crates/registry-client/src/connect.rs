//! The connection to a registry: whether with TLS, whom we trust, how a request is sent and a refusal understood.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use crate::challenge::Challenge;
use crate::error::{Error, Failure, RegistryTrouble};
use crate::exchange::{Connections, RegistryCall, RegistryReply, TimeLimits, led_to};
use crate::login::{Login, RegistryCredentials};
use crate::names;
use crate::proxies::Proxies;
use crate::tls::{Certificates, system_roots};

/// The most bytes of an answer whose contents matter only for a message.
pub(crate) const WORDS: usize = 256 * 1024;
/// Where docker has the certificates of single registries.
const CERTIFICATES: &str = "/etc/docker/certs.d";
/// The codes of a registry that say that something is absent. Harbor says `NOT_FOUND`; the others are of the
/// distribution specification, "Error Codes".
const ABSENT: [&str; 4] = ["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "BLOB_UNKNOWN", "NOT_FOUND"];

/// How a registry is asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// The most requests that are under way at once.
    pub at_once: usize,
    /// Whether the registry may be reached without TLS, or with a certificate of nobody that we know, as docker's
    /// `insecure-registries` allow. One on a loopback address always may.
    pub insecure: bool,
    /// Folders like docker's `certs.d`; the first that has a folder for the host counts.
    pub certificates: Vec<PathBuf>,
    /// By which proxies hosts are reached; by default by none.
    pub proxies: Proxies,
    /// How long an answer may take.
    pub limits: TimeLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_once: 16,
            insecure: false,
            certificates: vec![PathBuf::from(CERTIFICATES)],
            proxies: Proxies::default(),
            limits: TimeLimits::default(),
        }
    }
}

/// A registry that answers. Clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Connected>,
}

#[derive(Debug)]
struct Connected {
    /// As the user wrote it.
    host: String,
    /// The root of its API, such as `https://reg.example/v2/`.
    home: Url,
    connections: Connections,
    login: Login,
    permits: Semaphore,
}

/// What a request is about, for its scope and for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) repository: &'a str,
    /// A tag or digest; empty for the repository as a whole.
    pub(crate) reference: &'a str,
}

/// What a request needs the right to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Right {
    Read,
    Write,
    Delete,
}

impl Right {
    /// The actions of a token's scope.
    const fn actions(self) -> &'static str {
        match self {
            Self::Read => "pull",
            Self::Write => "pull,push",
            Self::Delete => "pull,delete",
        }
    }
}

/// What a registry says of an error (distribution specification, "Error Codes").
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// Reaches a registry, and learns whether it has TLS and what login it asks for. The login itself is tried by the
    /// first request that needs it.
    ///
    /// `host` is what precedes the repository in a reference: `HOST` or `HOST:PORT`. A registry on a loopback address, and
    /// one that is [insecure](Options::insecure), is reached without TLS where it has none, as engines do.
    ///
    /// # Errors
    /// [`Failure::Unreachable`], [`Failure::Forbidden`] or [`Failure::Server`] if it does not answer as a registry does,
    /// [`Failure::Invalid`] for a host that is no name, or certificates that can't be read.
    pub async fn connect(host: &str, credentials: RegistryCredentials, options: Options) -> Result<Self, Error> {
        let reached = Self::reach(host, credentials, options).await;
        reached.map_err(|trouble| trouble.of(host, host))
    }

    async fn reach(host: &str, credentials: RegistryCredentials, options: Options) -> Result<Self, RegistryTrouble> {
        let api = names::api_host(host)?;
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{api}/v2/")).map_err(|error| RegistryTrouble::invalid(error.to_string()))
        };
        let secure = url("https")?;
        let is_lax = options.insecure || is_loopback(&secure);
        let folders = options.certificates.clone();
        let name = host.to_owned();
        // Reading some hundred certificates takes a while, and is not asynchronous.
        let configured = tokio::task::spawn_blocking(move || {
            let certificates = Certificates::of(&folders, &name)?;
            let system = system_roots();
            let own = match is_lax {
                true => certificates.unverified()?,
                false => certificates.verified(&system, true)?,
            };
            Ok((own, certificates.verified(&system, false)?))
        });
        let (own, others) = configured
            .await
            .unwrap_or_else(|error| Err(RegistryTrouble::invalid(error.to_string())))?;
        let connections = Connections::new(own, others, options.proxies, options.limits, options.at_once);
        let login = Login::new(credentials);
        let mut home = secure;
        let mut answer = ping(&connections, &login, &home).await;
        if is_lax && matches!(&answer, Err(trouble) if trouble.failure == Failure::Unreachable) {
            home = url("http")?;
            let plain = ping(&connections, &login, &home).await;
            answer = match (answer, plain) {
                (Err(secure), Err(mut plain)) if plain.failure == Failure::Unreachable => {
                    plain.what = format!("{}; with TLS: {}", plain.what, secure.what);
                    Err(plain)
                }
                (_, plain) => plain,
            };
        }
        answer?;
        Ok(Self {
            shared: Arc::new(Connected {
                host: host.to_owned(),
                home,
                connections,
                login,
                permits: Semaphore::new(options.at_once.clamp(1, Semaphore::MAX_PERMITS)),
            }),
        })
    }

    /// What precedes repositories in references.
    pub fn host(&self) -> &str {
        &self.shared.host
    }

    /// Whether it is reached over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.shared.home.scheme() == "https"
    }

    /// The error for an object of this registry.
    pub(crate) fn error(&self, subject: Subject<'_>, trouble: RegistryTrouble) -> Error {
        let host = self.host();
        trouble.of(host, &names::object(host, subject.repository, subject.reference))
    }

    /// The URL of a part of a repository, such as `tags/list`, both checked before.
    pub(crate) fn url(&self, subject: Subject<'_>, part: &str) -> Result<Url, RegistryTrouble> {
        let repository = names::repository(self.host(), subject.repository)?;
        let url = self.shared.home.join(&format!("{repository}/{part}"));
        url.map_err(|error| RegistryTrouble::invalid(error.to_string()))
    }

    /// Where a redirect or an upload leads.
    pub(crate) fn led_to(&self, reply: &RegistryReply) -> Result<Url, RegistryTrouble> {
        led_to(&self.shared.home, reply)
    }

    /// Reads all pages of a list, within the time that there is for one.
    pub(crate) async fn in_time<T>(
        &self,
        list: impl Future<Output = Result<T, RegistryTrouble>>,
    ) -> Result<T, RegistryTrouble> {
        let limit = self.shared.connections.limits().list;
        let read = tokio::time::timeout(limit, list).await;
        read.unwrap_or_else(|_| {
            Err(RegistryTrouble::unreachable(format!(
                "its list did not end within {} s",
                limit.as_secs_f32().ceil()
            )))
        })
    }

    /// Whether a URL is of the registry itself.
    pub(crate) fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.shared.home.origin()
    }

    /// Sends a request with the login that the registry asks for. Whatever it answers but 401 and 403 is an answer.
    pub(crate) async fn send(
        &self,
        subject: Subject<'_>,
        right: Right,
        call: &RegistryCall,
    ) -> Result<RegistryReply, RegistryTrouble> {
        let Connected {
            home,
            connections,
            login,
            permits,
            ..
        } = &*self.shared;
        let _permit = permits
            .acquire()
            .await
            .map_err(|error| RegistryTrouble::invalid(error.to_string()))?;
        let repository = names::repository(self.host(), subject.repository)?;
        let scope = format!("repository:{repository}:{}", right.actions());
        let sent = login.header(connections, home, &scope, None).await?;
        let mut reply = connections.send(home, call, sent.as_ref()).await?;
        let mut challenge = None;
        // A token may have ended before its time, and some registries ask for a login only where one is needed.
        if reply.status == StatusCode::UNAUTHORIZED && self.is_home(&reply.url) {
            challenge = login.learn(&reply);
            let other = login.header(connections, home, &scope, sent.as_ref()).await?;
            if challenge.is_some() && other.is_some() && other != sent {
                reply = connections.send(home, call, other.as_ref()).await?;
                challenge = login.learn(&reply).filter(|_| reply.status == StatusCode::UNAUTHORIZED);
            }
        }
        let is_short =
            matches!(&challenge, Some(Challenge::Bearer { error: Some(error), .. }) if error == "insufficient_scope");
        match reply.status {
            StatusCode::UNAUTHORIZED if is_short && !login.is_anonymous() => Err(RegistryTrouble::new(
                Failure::Forbidden,
                with_words("the login that is known has no right to this", &reply),
            )),
            StatusCode::UNAUTHORIZED => Err(RegistryTrouble::new(
                Failure::Unauthorized,
                match login.is_anonymous() {
                    true => "the registry asks for a login",
                    false => "the registry refuses the login that is known",
                },
            )),
            StatusCode::FORBIDDEN => Err(RegistryTrouble::new(
                Failure::Forbidden,
                with_words("the registry refuses this", &reply),
            )),
            _ => Ok(reply),
        }
    }
}

/// Asks whether this is a registry, without a login.
async fn ping(connections: &Connections, login: &Login, home: &Url) -> Result<(), RegistryTrouble> {
    let call = RegistryCall::new(Method::GET, home.clone(), WORDS);
    let reply = connections.send(home, &call, None).await?;
    match reply.status {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED => match login.learn(&reply) {
            Some(_) => Ok(()),
            None => Err(RegistryTrouble::invalid(
                "it asks for a login of a kind that we don't know",
            )),
        },
        StatusCode::FORBIDDEN => Err(RegistryTrouble::new(
            Failure::Forbidden,
            with_words("the registry refuses to speak to us", &reply),
        )),
        StatusCode::NOT_FOUND => Err(RegistryTrouble::invalid(
            "what answers there is not a registry: it has no /v2/",
        )),
        _ => Err(unexpected(&reply)),
    }
}

/// The trouble of a status that was not asked for.
pub(crate) fn unexpected(reply: &RegistryReply) -> RegistryTrouble {
    let status = reply.status.as_u16();
    RegistryTrouble::new(
        Failure::Server(status),
        with_words(&format!("the registry answers {}", reply.status), reply),
    )
}

/// Whether a 404 says that the object is absent; else what answers may be a proxy or another server.
pub(crate) fn is_absent(reply: &RegistryReply) -> bool {
    reply.status == StatusCode::NOT_FOUND && errors(reply).iter().any(|error| ABSENT.contains(&error.code.as_str()))
}

/// Whether the registry names one of these codes.
pub(crate) fn has_code(reply: &RegistryReply, codes: &[&str]) -> bool {
    errors(reply).iter().any(|error| codes.contains(&error.code.as_str()))
}

fn errors(reply: &RegistryReply) -> Vec<ErrorEntry> {
    serde_json::from_slice::<ErrorBody>(&reply.body)
        .map(|body| body.errors)
        .unwrap_or_default()
}

/// A text, and what the registry says itself.
fn with_words(text: &str, reply: &RegistryReply) -> String {
    match errors(reply).into_iter().next() {
        Some(error) if !error.message.is_empty() => format!("{text}: {}", error.message),
        Some(error) if !error.code.is_empty() => format!("{text}: {}", error.code),
        _ => text.to_owned(),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
