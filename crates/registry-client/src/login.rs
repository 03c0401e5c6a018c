//! Who asks: logins, and the tokens that registries give for them (docker's "Token Authentication Specification" and
//! "OAuth2 Token Authentication").

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dock_client::mutex::lock;
use hyper::Method;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

use crate::challenge::Challenge;
use crate::error::{Failure, RegistryTrouble};
use crate::exchange::{Connections, RegistryCall, RegistryReply};

/// The most bytes of an answer with a token.
const TOKEN: usize = 256 * 1024;
/// How long a token is good if the realm does not say (docker's specification), and the longest that we keep one.
const LIFETIME: u64 = 60;
const LONGEST: u64 = 3600;
/// A token that ends so soon is not used.
const SPARE: Duration = Duration::from_secs(10);

/// A login to a registry, in the forms that docker's `config.json` has.
#[derive(Clone, Default)]
pub enum RegistryCredentials {
    /// None: what is public can be read.
    #[default]
    Anonymous,
    /// A user and a password or access token.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        secret: String,
    },
    /// What the registry gave in place of a password, by OAuth (docker's `identitytoken`).
    IdentityToken(String),
    /// What is sent to the registry as it is (docker's `registrytoken`).
    RegistryToken(String),
}

// Secrets must not reach a log by way of a derived Debug.
impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { user, .. } => write!(f, "Password({user:?}, ..)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(..)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(..)"),
        }
    }
}

/// A token, and until when it is used.
struct BearerToken {
    header: HeaderValue,
    until: Instant,
}

/// Tokens by scope. Who finds none gets it while the others wait, so that requests side by side ask for one token.
type Tokens = HashMap<String, Arc<tokio::sync::Mutex<Option<BearerToken>>>>;

/// A login at one registry, with what the registry asks for.
pub(crate) struct Login {
    credentials: RegistryCredentials,
    /// What it asks for, once it did.
    challenge: Mutex<Option<Challenge>>,
    tokens: Mutex<Tokens>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?}, ..)", self.credentials)
    }
}

impl Login {
    pub(crate) fn new(credentials: RegistryCredentials) -> Self {
        Self {
            credentials,
            challenge: Mutex::default(),
            tokens: Mutex::default(),
        }
    }

    /// Learns from an answer what the registry asks for.
    pub(crate) fn learn(&self, reply: &RegistryReply) -> Option<Challenge> {
        let headers = reply.headers.get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::of(headers.iter().filter_map(|value| value.to_str().ok()))?;
        let mut known = challenge.clone();
        if let Challenge::Bearer { error, .. } = &mut known {
            *error = None;
        }
        *lock(&self.challenge) = Some(known);
        Some(challenge)
    }

    /// The header that a request with this scope is sent with. Without `refused`, a token that is known is taken.
    pub(crate) async fn header(
        &self,
        connections: &Connections,
        home: &Url,
        scope: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryTrouble> {
        if let RegistryCredentials::RegistryToken(token) = &self.credentials {
            return secret(format!("Bearer {token}")).map(Some);
        }
        let challenge = lock(&self.challenge).clone();
        match (challenge, &self.credentials) {
            (None, _) => Ok(None),
            (Some(Challenge::Basic), RegistryCredentials::Password { user, secret: word }) => {
                let pair = STANDARD.encode(format!("{user}:{word}"));
                secret(format!("Basic {pair}")).map(Some)
            }
            (Some(Challenge::Basic), _) => Ok(None),
            (Some(Challenge::Bearer { realm, service, .. }), _) => {
                let place = Arc::clone(lock(&self.tokens).entry(scope.to_owned()).or_default());
                let mut place = place.lock().await;
                let known = place.as_ref().filter(|token| token.until > Instant::now());
                if let Some(known) = known.filter(|known| Some(&known.header) != refused) {
                    return Ok(Some(known.header.clone()));
                }
                let token = self.token(connections, home, &realm, service.as_deref(), scope).await?;
                Ok(Some(place.insert(token).header.clone()))
            }
        }
    }

    /// Whether there is a login at all.
    pub(crate) const fn is_anonymous(&self) -> bool {
        matches!(self.credentials, RegistryCredentials::Anonymous)
    }

    async fn token(
        &self,
        connections: &Connections,
        home: &Url,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<BearerToken, RegistryTrouble> {
        let mut url = trusted(home, realm)?;
        let mut call = RegistryCall::new(Method::GET, url.clone(), TOKEN);
        let mut authorization = None;
        match &self.credentials {
            RegistryCredentials::IdentityToken(token) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.extend_pairs([
                    ("grant_type", "refresh_token"),
                    ("client_id", "dockerutils"),
                    ("scope", scope),
                    ("refresh_token", token),
                ]);
                form.extend_pairs(service.map(|service| ("service", service)));
                call.method = Method::POST;
                call.content_type = Some("application/x-www-form-urlencoded".to_owned());
                call.body = Bytes::from(form.finish());
            }
            credentials => {
                url.query_pairs_mut()
                    .extend_pairs(service.map(|service| ("service", service)))
                    .append_pair("scope", scope);
                if let RegistryCredentials::Password { user, secret: word } = credentials {
                    url.query_pairs_mut().append_pair("account", user);
                    let pair = STANDARD.encode(format!("{user}:{word}"));
                    authorization = Some(secret(format!("Basic {pair}"))?);
                }
            }
        }
        call.url = url;
        let reply = connections.ask_realm(home, &call, authorization.as_ref()).await?;
        let host = call.url.host_str().unwrap_or_default();
        match reply.status.as_u16() {
            200 => {}
            401 if self.is_anonymous() => {
                return Err(RegistryTrouble::new(Failure::Unauthorized, "it asks for a login"));
            }
            401 => {
                return Err(RegistryTrouble::new(
                    Failure::Unauthorized,
                    format!("the login that is known is refused by {host}, which gives tokens for it"),
                ));
            }
            403 if self.is_anonymous() => {
                return Err(RegistryTrouble::new(
                    Failure::Unauthorized,
                    format!("{host}, which gives tokens for it, gives none without a login"),
                ));
            }
            403 => {
                return Err(RegistryTrouble::new(
                    Failure::Forbidden,
                    format!("{host}, which gives tokens for it, refuses one to this user"),
                ));
            }
            status => {
                return Err(RegistryTrouble::new(
                    Failure::Server(status),
                    format!("{host}, which gives tokens for it, answers {status}"),
                ));
            }
        }
        /// The answer of docker's and of OAuth's form.
        #[derive(Deserialize)]
        struct TokenAnswer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let given: Option<TokenAnswer> = serde_json::from_slice(&reply.body).ok();
        let lifetime = given.as_ref().and_then(|given| given.expires_in).unwrap_or(LIFETIME);
        let text = given.and_then(|given| given.token.filter(|token| !token.is_empty()).or(given.access_token));
        // What the answer was may have a token in it: it is not shown.
        let Some(text) = text else {
            return Err(RegistryTrouble::invalid(format!(
                "{host} answers with something that is not a token"
            )));
        };
        let lifetime = Duration::from_secs(lifetime.clamp(LIFETIME, LONGEST));
        Ok(BearerToken {
            header: secret(format!("Bearer {text}"))?,
            until: Instant::now() + lifetime.saturating_sub(SPARE),
        })
    }
}

/// The URL of a realm, if a login may go there: over TLS to any host that the registry names, as with docker; or to the
/// registry's own host, on any port, where the registry itself is reached without TLS.
fn trusted(home: &Url, realm: &str) -> Result<Url, RegistryTrouble> {
    let url = Url::parse(realm).ok();
    let url = url.filter(|url| url.host_str().is_some() && url.username().is_empty() && url.password().is_none());
    let Some(mut url) = url else {
        return Err(RegistryTrouble::invalid(format!(
            "it sends for a token to {realm:?}, which is not a URL"
        )));
    };
    url.set_fragment(None);
    let is_own = home.scheme() == "http" && url.scheme() == "http" && url.host_str() == home.host_str();
    match url.scheme() == "https" || is_own {
        true => Ok(url),
        false => Err(RegistryTrouble::invalid(format!(
            "it sends for a token to {}://{}, where no login is sent",
            url.scheme(),
            url.host_str().unwrap_or_default()
        ))),
    }
}

/// A header that logs leave out.
pub(crate) fn secret(text: String) -> Result<HeaderValue, RegistryTrouble> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| RegistryTrouble::invalid("a login or token has characters that no header can have"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_goes_to_tls_or_to_the_registry_itself() {
        let plain = Url::parse("http://127.0.0.1:5000/").unwrap();
        let home = Url::parse("https://reg.example/").unwrap();
        for (home, realm, right) in [
            (&home, "https://auth.example/token?x=1", true),
            (&home, "http://auth.example/token", false),
            (&home, "http://reg.example/token", false),
            (&plain, "http://127.0.0.1:6000/token", true),
            (&plain, "http://127.0.0.2:5000/token", false),
            (&plain, "https://auth.example/token", true),
            (&home, "https://ann:secret@auth.example/", false),
            (&home, "file:///etc/passwd", false),
            (&home, "/token", false),
            (&home, "", false),
        ] {
            let url = trusted(home, realm);
            assert_eq!(url.is_ok(), right, "{realm}: {url:?}");
            let text = format!("{url:?}");
            assert!(right || !text.contains("http://reg.example/token"), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        for credentials in [
            RegistryCredentials::Password {
                user: "ann".into(),
                secret: "s3cret".into(),
            },
            RegistryCredentials::IdentityToken("s3cret".into()),
            RegistryCredentials::RegistryToken("s3cret".into()),
        ] {
            let login = Login::new(credentials.clone());
            assert!(!format!("{credentials:?} {login:?}").contains("s3cret"));
        }
        assert!(!format!("{:?}", secret("Bearer s3cret".into()).unwrap()).contains("s3cret"));
    }
}
