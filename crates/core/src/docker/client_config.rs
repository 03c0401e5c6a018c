//! The docker client's own configuration, `config.json`: credentials of registries, proxies, the current context.
//!
//! Read, never written here. Format: docker's reference of `~/.docker/config.json`; helpers speak the protocol of
//! docker-credential-helpers (`get` with the registry on stdin, JSON on stdout).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use crate::error::{Error, Result};
use crate::hint;

/// A helper may ask a key ring that waits for a person, but not for ever.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What is in `config.json`; an absent file is an empty one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientConfig {
    #[serde(skip)]
    file: PathBuf,
    #[serde(deserialize_with = "null_is_empty")]
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    #[serde(deserialize_with = "null_is_empty")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    proxies: BTreeMap<String, Proxy>,
    current_context: Option<String>,
    detach_keys: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

// Secrets must not reach a log by way of a derived Debug.
impl std::fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthEntry(..)")
    }
}

/// The `proxies` of one engine, or of `default`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Proxy {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
    ftp_proxy: Option<String>,
    all_proxy: Option<String>,
}

/// As Go's `encoding/json` has it, by which docker reads the file: null leaves a value empty, an entry of a map, too.
fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<BTreeMap<String, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let entries = Option::<BTreeMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(entries
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect())
}

/// A login to a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name; empty where the secret is an identity token.
    pub user: String,
    /// Password or identity token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({:?}, ..)", self.user)
    }
}

impl ClientConfig {
    /// Reads `config.json` in this folder.
    ///
    /// # Errors
    /// A file that can't be read or is damaged, named.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        let mut config = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice::<Self>(&text).map_err(|cause| {
                Error::usage(format!("{} is no configuration of docker", file.display()))
                    .because(cause)
                    .hint("mend the file, or name another folder by DOCKER_CONFIG")
            })?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(cause) => return Err(Error::usage(format!("{} can't be read", file.display())).because(cause)),
        };
        config.file = file;
        Ok(config)
    }

    /// The docker context that is set, if it is another than the default.
    pub fn current_context(&self) -> Option<&str> {
        self.current_context
            .as_deref()
            .filter(|name| !name.is_empty() && *name != "default")
    }

    /// The keys that detach from a container, where the user set others.
    pub fn detach_keys(&self) -> Option<&str> {
        self.detach_keys.as_deref()
    }

    /// The proxy variables that docker sets in builds and containers on the engine at this address, both spellings.
    pub fn proxy_variables(&self, engine: &str) -> Vec<(&'static str, String)> {
        let Some(proxy) = self.proxies.get(engine).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        [
            ("HTTP_PROXY", "http_proxy", &proxy.http_proxy),
            ("HTTPS_PROXY", "https_proxy", &proxy.https_proxy),
            ("NO_PROXY", "no_proxy", &proxy.no_proxy),
            ("FTP_PROXY", "ftp_proxy", &proxy.ftp_proxy),
            ("ALL_PROXY", "all_proxy", &proxy.all_proxy),
        ]
        .into_iter()
        .filter_map(|(upper, lower, value)| Some((upper, lower, value.clone().filter(|value| !value.is_empty())?)))
        .flat_map(|(upper, lower, value)| [(upper, value.clone()), (lower, value)])
        .collect()
    }

    /// Registries that logins are known for, in the file and with helpers of their own.
    pub fn registries(&self) -> std::collections::BTreeSet<String> {
        self.auths.keys().chain(self.cred_helpers.keys()).cloned().collect()
    }

    /// Whether there may be a login: in the file, with a helper, or in a store.
    pub fn has_logins(&self) -> bool {
        let has_store = self.creds_store.as_ref().is_some_and(|store| !store.is_empty());
        has_store || !self.auths.is_empty() || !self.cred_helpers.is_empty()
    }

    /// A `config.json` with every login that there is, those of helpers and stores among them; none where there is none.
    ///
    /// # Errors
    /// As [`ClientConfig::credentials`].
    pub async fn resolved(&self) -> Result<Option<String>> {
        let mut registries = self.registries();
        if let Some(store) = self.creds_store.as_ref().filter(|store| !store.is_empty()) {
            registries.extend(list_of_store(store).await?);
        }
        let mut auths = serde_json::Map::new();
        for registry in registries {
            if let Some(login) = self.credentials(&registry).await? {
                let entry = if login.user.is_empty() {
                    serde_json::json!({ "identitytoken": login.secret })
                } else {
                    let auth = format!("{}:{}", login.user, login.secret);
                    serde_json::json!({ "auth": base64::engine::general_purpose::STANDARD.encode(auth) })
                };
                auths.insert(registry, entry);
            }
        }
        Ok((!auths.is_empty()).then(|| serde_json::json!({ "auths": auths }).to_string()))
    }

    /// The login for a registry: from its helper, the credentials store, or the file; none where there is none.
    ///
    /// `registry` is a host with port, or `https://index.docker.io/v1/` for Docker Hub.
    ///
    /// # Errors
    /// A helper that isn't there or fails, and a damaged entry.
    pub async fn credentials(&self, registry: &str) -> Result<Option<Login>> {
        let host = host_of(registry);
        let helper = self
            .cred_helpers
            .get(registry)
            .or_else(|| self.cred_helpers.get(host).filter(|helper| !helper.is_empty()))
            .or(self.creds_store.as_ref())
            .filter(|helper| !helper.is_empty());
        if let Some(helper) = helper
            && let Some(login) = ask_helper(helper, registry).await?
        {
            return Ok(Some(login));
        }
        self.auths
            .get(registry)
            .or_else(|| {
                self.auths
                    .iter()
                    .find(|(key, _)| host_of(key) == host)
                    .map(|(_, entry)| entry)
            })
            .map(|entry| entry.login(registry, &self.file))
            .transpose()
            .map(Option::flatten)
    }

    /// The name of the user whose login this is: that of the login itself, or, beside an identity token, that of the
    /// file's entry. None where neither says it.
    pub fn user_of(&self, registry: &str, login: &Login) -> Option<String> {
        if !login.user.is_empty() {
            return Some(login.user.clone());
        }
        let entry = self.auths.get(registry)?;
        let of_auth = || {
            let bytes = base64::engine::general_purpose::STANDARD.decode(entry.auth.as_ref()?);
            let text = String::from_utf8(bytes.ok()?).ok()?;
            Some(text.split_once(':')?.0.to_owned())
        };
        entry
            .username
            .clone()
            .or_else(of_auth)
            .filter(|user| !user.is_empty() && user != TOKEN_USER)
    }
}

impl Login {
    /// The `X-Registry-Auth` header with this login: JSON in URL-safe base64 (the engine's API reference,
    /// "Authentication").
    pub fn registry_auth(&self, registry: &str) -> String {
        let json = if self.user.is_empty() {
            serde_json::json!({ "identitytoken": self.secret, "serveraddress": registry })
        } else {
            serde_json::json!({ "username": self.user, "password": self.secret, "serveraddress": registry })
        };
        base64::engine::general_purpose::URL_SAFE.encode(json.to_string())
    }
}

impl AuthEntry {
    fn login(&self, registry: &str, file: &Path) -> Result<Option<Login>> {
        let damaged = || {
            Error::usage(format!("the login for {registry} in {} is damaged", file.display()))
                .hint(hint!("docker login {}", registry))
        };
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Login {
                user: String::new(),
                secret: token.clone(),
            }));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(auth)
                .map_err(|_| damaged())?;
            let text = String::from_utf8(bytes).map_err(|_| damaged())?;
            let (user, secret) = text.split_once(':').ok_or_else(damaged)?;
            return Ok(Some(Login {
                user: user.to_owned(),
                // docker pads old entries with NULs.
                secret: secret.trim_end_matches('\0').to_owned(),
            }));
        }
        match (&self.username, &self.password) {
            (Some(user), Some(secret)) => Ok(Some(Login {
                user: user.clone(),
                secret: secret.clone(),
            })),
            _ => Ok(None),
        }
    }
}

/// The host in a key of `auths`, which may be written with scheme and path.
pub(super) fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split_once('/').map_or(rest, |(host, _)| host)
}

async fn ask_helper(helper: &str, registry: &str) -> Result<Option<Login>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let helper = Helper::new(helper, "get", format!("gives no login for {registry}"));
    let Some(said) = helper.run(registry).await? else {
        return Ok(None);
    };
    let answer: Answer = serde_json::from_slice(&said).map_err(|_| helper.failed("its answer is no JSON"))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(Login {
        user: if answer.username == TOKEN_USER {
            String::new()
        } else {
            answer.username
        },
        secret: answer.secret,
    }))
}

/// The registries that a store has logins for.
async fn list_of_store(store: &str) -> Result<Vec<String>> {
    let helper = Helper::new(store, "list", "does not list its logins".to_owned());
    let Some(said) = helper.run("").await? else {
        return Ok(Vec::new());
    };
    let users: BTreeMap<String, String> =
        serde_json::from_slice(&said).map_err(|_| helper.failed("its answer is no JSON"))?;
    Ok(users.into_keys().collect())
}

/// One call of a credential helper: a verb on its command line, the question on stdin, the answer on stdout
/// (docker/docker-credential-helpers).
struct Helper {
    program: String,
    verb: &'static str,
    /// What it means that it fails.
    failure: String,
}

impl Helper {
    fn new(name: &str, verb: &'static str, failure: String) -> Self {
        Self {
            program: format!("docker-credential-{name}"),
            verb,
            failure,
        }
    }

    fn failed(&self, why: &str) -> Error {
        let Self { program, verb, failure } = self;
        Error::failed(format!("{program} {failure}: {why}")).hint(hint!("try it: {} {}", program, verb))
    }

    /// Gives what it says, or none where it has nothing of the kind.
    async fn run(&self, question: &str) -> Result<Option<Vec<u8>>> {
        let mut child = tokio::process::Command::new(&self.program)
            .arg(self.verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| self.failed("it can't be started").because(cause))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that answers without reading is right, too.
            let _ = stdin.write_all(question.as_bytes()).await;
        }
        let output = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output())
            .await
            .map_err(|_| self.failed("no answer within a minute"))?
            .map_err(|cause| self.failed("it broke off").because(cause))?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        // The helpers' protocol has no code for it, only this sentence.
        if said.trim().starts_with("credentials not found") {
            return Ok(None);
        }
        Err(self.failed(&super::engine::one_line(&said)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ClientConfig {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        ClientConfig::read(folder.path()).unwrap()
    }

    #[test]
    fn null_is_empty_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            r#"{"auths":null,"credsStore":null,"credHelpers":null,"proxies":null,"currentContext":null,"detachKeys":null}"#,
            r#"{"auths":{"reg.example":null},"credHelpers":{"reg.example":null},"proxies":{"default":null}}"#,
            r#"{"auths":{"reg.example":{"auth":null,"username":null,"password":null,"identitytoken":null}},"proxies":{"default":{"httpProxy":null}}}"#,
        ] {
            std::fs::write(folder.path().join("config.json"), text).unwrap();
            let config = ClientConfig::read(folder.path()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(config.proxy_variables("unix:///x"), [], "{text}");
            assert_eq!(config.current_context(), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_login_is_found_under_every_spelling_of_its_registry() {
        // "ann:s3:cret"
        let config = config(r#"{"auths":{"https://reg.example:5000/v2/":{"auth":"YW5uOnMzOmNyZXQ="}}}"#);
        let login = config.credentials("reg.example:5000").await.unwrap().unwrap();
        assert_eq!((login.user.as_str(), login.secret.as_str()), ("ann", "s3:cret"));
        assert_eq!(config.credentials("other.example").await.unwrap(), None);
        assert!(!format!("{config:?}{login:?}").contains("cret"));
    }

    #[tokio::test]
    async fn the_header_is_url_safe() {
        let config = config(r#"{"auths":{"r":{"username":"u","password":"~?>~?>"}}}"#);
        let header = config.credentials("r").await.unwrap().unwrap().registry_auth("r");
        assert!(!header.contains('+') && !header.contains('/'), "{header}");
    }

    #[tokio::test]
    async fn an_identity_token_has_a_user_where_the_file_says_it() {
        // "ann:" and "<token>:"
        for (auth, user) in [("YW5uOg==", Some("ann")), ("PHRva2VuPjo=", None), ("?", None)] {
            let config = config(&format!(
                r#"{{"auths":{{"r":{{"auth":"{auth}","identitytoken":"t0ken"}}}}}}"#
            ));
            let login = config.credentials("r").await.unwrap().unwrap();
            assert_eq!(config.user_of("r", &login).as_deref(), user, "{auth}");
            let header = base64::engine::general_purpose::URL_SAFE
                .decode(login.registry_auth("r"))
                .unwrap();
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(&header).unwrap(),
                serde_json::json!({ "identitytoken": "t0ken", "serveraddress": "r" })
            );
        }
    }

    #[tokio::test]
    async fn a_missing_helper_is_named() {
        let config = config(r#"{"credsStore":"nowhere-to-be-found"}"#);
        let error = config.credentials("r").await.unwrap_err();
        assert!(
            error.to_string().contains("docker-credential-nowhere-to-be-found"),
            "{error}"
        );
    }

    #[test]
    fn proxies_come_in_both_spellings() {
        let config = config(r#"{"proxies":{"default":{"httpProxy":"http://p:1"},"tcp://x:1":{"noProxy":"a"}}}"#);
        assert_eq!(
            config.proxy_variables("unix:///var/run/docker.sock"),
            [("HTTP_PROXY", "http://p:1".into()), ("http_proxy", "http://p:1".into())]
        );
        assert_eq!(config.proxy_variables("tcp://x:1").len(), 2);
    }
}
