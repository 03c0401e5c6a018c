//! The docker client's own configuration, `config.json`: credentials of registries, proxies, the current context.
//!
//! Only read here, and read as docker reads it, by Go's `encoding/json`: null is an empty value, names match in any
//! case, and what follows the first document is ignored. Format: docker's reference of `~/.docker/config.json`, and of
//! `DOCKER_AUTH_CONFIG`, which brings logins by the environment. Which login counts is as in docker's client 28.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::credential_helper::{self, TOKEN_USER};
use super::login::Login;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// The environment's own logins.
const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";
/// Go's base64, which ignores the last bits.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// What is in `config.json`, and the logins of the environment; an absent or empty file says nothing.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    file: PathBuf,
    auths: BTreeMap<String, AuthEntry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
    proxies: BTreeMap<String, Proxy>,
    current_context: String,
    detach_keys: Option<String>,
    /// The logins of the environment, or why they make no sense.
    given: Given,
}

/// The logins of `DOCKER_AUTH_CONFIG`.
#[derive(Clone, Debug, Default)]
struct Given {
    logins: BTreeMap<String, Login>,
    wrong: Option<String>,
}

#[derive(Clone, Default)]
struct AuthEntry {
    auth: String,
    login: Login,
}

// Secrets must not reach a log by way of a derived Debug.
impl fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthEntry(..)")
    }
}

/// The `proxies` of one engine, or of `default`.
#[derive(Clone, Debug, Default)]
struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

/// The login that counts at a registry.
#[derive(Debug, Default)]
pub struct FoundLogin {
    /// `None` without a login for this registry.
    pub login: Option<Login>,
    /// What went wrong, and need not stop us: public images need no login.
    pub trouble: Option<Error>,
}

impl FoundLogin {
    /// A sentence about what went wrong, for a warning.
    pub fn warning(&self) -> Option<String> {
        let goes_on = match &self.login {
            Some(_) => "docker's config.json has another, which is used",
            None => "trying without a login",
        };
        let trouble = self.trouble.as_ref()?;
        Some(format!("{}: {goes_on}", trouble.with_causes()))
    }

    /// The hint if the registry refuses, and something went wrong before.
    pub fn hint(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let mend = trouble.hint_text().unwrap_or("docker login");
        Some(hint!("{what}: {mend}"; what = trouble.with_causes(), mend = mend))
    }
}

/// An object in the order of its text, names in lower case.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> Result<Object, E> {
                Ok(Object(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    fields.push((name.to_lowercase(), value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_any(ObjectVisitor)
    }
}

/// What docker would not accept in a document.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("{0} is not a string")]
    Text(String),
    #[error("{0} is not known")]
    Unknown(String),
    #[error("there is more than one document")]
    More,
    #[error("the auth of {0} is missing or damaged")]
    Auth(String),
}

fn text(name: &str, value: Value) -> Result<String, Wrong> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        _ => Err(Wrong::Text(name.to_owned())),
    }
}

/// A map whose keys are the user's, each value read by `read`.
fn entries<T>(value: Value, read: impl Fn(&str, Value) -> Result<T, Wrong>) -> Result<BTreeMap<String, T>, Wrong> {
    let entries: Option<BTreeMap<String, Value>> = serde_json::from_value(value)?;
    let entries = entries.unwrap_or_default().into_iter();
    entries
        .map(|(key, value)| {
            let read = read(&key, value)?;
            Ok((key, read))
        })
        .collect()
}

/// The fields of an object that are texts and known to `field`.
fn texts<T>(
    value: Value,
    read: &mut T,
    field: impl for<'a> Fn(&'a mut T, &str) -> Option<&'a mut String>,
) -> Result<(), Wrong> {
    let Object(fields) = serde_json::from_value(value)?;
    for (name, value) in fields {
        if let Some(place) = field(read, &name) {
            *place = text(&name, value)?;
        }
    }
    Ok(())
}

impl ClientConfig {
    /// What the docker client would read in this environment.
    ///
    /// # Errors
    /// As [`ClientConfig::read`].
    pub fn of(env: &Env) -> Result<Self> {
        let mut config = Self::read(&env.docker_config_dir())?;
        if let Some(given) = env.non_empty(AUTH_VARIABLE) {
            config.given = Given::parse(given);
        }
        Ok(config)
    }

    /// Reads `config.json` in this folder.
    ///
    /// # Errors
    /// A file that can't be read or is damaged, named.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("config.json");
        let mut config = match std::fs::read(&file) {
            Ok(text) => Self::parse(&text).map_err(|cause| {
                Error::usage(format!("{} is not a configuration of docker", file.display()))
                    .because(cause)
                    .hint("correct the file, or name another folder with DOCKER_CONFIG")
            })?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(cause) => return Err(Error::usage(format!("{} can't be read", file.display())).because(cause)),
        };
        config.file = file;
        Ok(config)
    }

    fn parse(bytes: &[u8]) -> Result<Self, Wrong> {
        let mut config = Self::default();
        let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Object>();
        let Some(first) = documents.next() else {
            return Ok(config);
        };
        for (name, value) in first?.0 {
            match name.as_str() {
                "auths" => config.auths = entries(value, |_, value| AuthEntry::read(value))?,
                "credsstore" => config.creds_store = text(&name, value)?,
                "credhelpers" => config.cred_helpers = entries(value, text)?,
                "proxies" => config.proxies = entries(value, |_, value| Proxy::read(value))?,
                "currentcontext" => config.current_context = text(&name, value)?,
                "detachkeys" => config.detach_keys = Some(text(&name, value)?).filter(|keys| !keys.is_empty()),
                _ => {}
            }
        }
        Ok(config)
    }

    /// The docker context that is set, if it is another than the default.
    pub fn current_context(&self) -> Option<&str> {
        Some(self.current_context.as_str()).filter(|name| !name.is_empty() && *name != "default")
    }

    /// The keys that detach from a container, where the user set others.
    pub fn detach_keys(&self) -> Option<&str> {
        self.detach_keys.as_deref()
    }

    /// The proxy variables that docker sets in builds and containers on the engine at this address, each in both spellings.
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
        .filter(|(_, _, value)| !value.is_empty())
        .flat_map(|(upper, lower, value)| [(upper, value.clone()), (lower, value.clone())])
        .collect()
    }

    /// Registries that logins are known for: in the environment, in the file, and with helpers of their own.
    pub fn registries(&self) -> BTreeSet<String> {
        let given = self.given.logins.keys();
        given
            .chain(self.auths.keys())
            .chain(self.cred_helpers.keys())
            .cloned()
            .collect()
    }

    /// Whether there may be a login: in the environment, in the file, with a helper, or in a store.
    pub fn has_logins(&self) -> bool {
        !self.creds_store.is_empty() || !self.registries().is_empty()
    }

    /// A `config.json` with every login that there is, those of helpers and stores among them, `None` without logins;
    /// and warnings about those that can't be read.
    ///
    /// # Errors
    /// A store that does not list what it has.
    pub async fn resolved(&self) -> Result<(Option<String>, Vec<String>)> {
        let mut registries = self.registries();
        if !self.creds_store.is_empty() {
            registries.extend(credential_helper::registries(&self.creds_store).await?);
        }
        let mut auths = serde_json::Map::new();
        let mut warnings = Vec::new();
        for registry in registries {
            let found = self.credentials(&registry).await;
            warnings.extend(found.warning());
            if let Some(login) = found.login {
                let mut entry = serde_json::Map::new();
                if !login.user.is_empty() {
                    let auth = format!("{}:{}", login.user, login.secret);
                    let auth = base64::engine::general_purpose::STANDARD.encode(auth);
                    entry.insert("auth".to_owned(), auth.into());
                }
                for (name, token) in login.tokens() {
                    entry.insert(name.to_owned(), token.into());
                }
                auths.insert(registry, entry.into());
            }
        }
        let document = (!auths.is_empty()).then(|| serde_json::json!({ "auths": auths }).to_string());
        Ok((document, warnings))
    }

    /// The login for a registry: the environment's, else that of its helper or of the store, else the file's. A
    /// helper's failure, and a damaged entry, are in `trouble`.
    ///
    /// `registry` is a host with port, or `https://index.docker.io/v1/` for Docker Hub.
    pub async fn credentials(&self, registry: &str) -> FoundLogin {
        if let Some(login) = self.given.logins.get(registry) {
            return FoundLogin {
                login: Some(login.clone()),
                trouble: None,
            };
        }
        let helper = self.cred_helpers.get(registry).unwrap_or(&self.creds_store);
        let mut found = FoundLogin::default();
        if !helper.is_empty() {
            match credential_helper::login(helper, registry).await {
                // If the helper has no login for the registry, none is used. It knows no registry tokens.
                Ok(login) => {
                    let token = self.in_file(registry).and_then(|found| found.login);
                    let registry_token = token.map(|login| login.registry_token).unwrap_or_default();
                    let login = Login {
                        registry_token,
                        ..login.unwrap_or_default()
                    };
                    found.login = Some(login).filter(Login::says_something);
                }
                Err(trouble) => found = self.in_file(registry).unwrap_or_default().but(trouble),
            }
        } else {
            found = self.in_file(registry).unwrap_or_default();
        }
        match &self.given.wrong {
            Some(why) => found.but(
                Error::usage(format!("{AUTH_VARIABLE} is ignored: {why}"))
                    .hint("it must be {\"auths\": {\"HOST\": {\"auth\": BASE64_OF_USER:PASSWORD}}}"),
            ),
            None => found,
        }
    }

    /// The file's own entry for a registry.
    fn in_file(&self, registry: &str) -> Option<FoundLogin> {
        let entry = self.auths.get(registry).or_else(|| {
            let mut old = self.auths.iter().filter(|(key, _)| host_of(key) == registry);
            old.next().map(|(_, entry)| entry)
        })?;
        Some(match entry.login() {
            Some(login) => FoundLogin {
                login: Some(login).filter(Login::says_something),
                trouble: None,
            },
            None => FoundLogin::default().but(
                Error::failed(format!(
                    "the login for {registry} in {} is damaged",
                    self.file.display()
                ))
                .hint(hint!("docker login {}", registry)),
            ),
        })
    }

    /// The name of the user whose login this is: that of the login itself, or, beside an identity token, that of the
    /// file's entry. None where neither says it.
    pub fn user_of(&self, registry: &str, login: &Login) -> Option<String> {
        let of_file = || Some(self.auths.get(registry)?.login()?.user);
        Some(login.user.clone())
            .filter(|user| !user.is_empty())
            .or_else(of_file)
            .filter(|user| !user.is_empty() && user != TOKEN_USER)
    }
}

impl FoundLogin {
    /// The same with something that went wrong; what went wrong before counts more.
    fn but(mut self, trouble: Error) -> Self {
        self.trouble.get_or_insert(trouble);
        self
    }
}

impl Given {
    fn parse(document: &str) -> Self {
        match Self::logins(document) {
            Ok(logins) => Self { logins, wrong: None },
            Err(wrong) => Self {
                logins: BTreeMap::new(),
                wrong: Some(wrong.to_string()),
            },
        }
    }

    /// Only `auths`, and in it only `auth`: an ignored field may be the one that was meant.
    fn logins(document: &str) -> Result<BTreeMap<String, Login>, Wrong> {
        let mut documents = serde_json::Deserializer::from_str(document).into_iter::<Object>();
        let mut logins = BTreeMap::new();
        for (name, value) in documents.next().transpose()?.map(|object| object.0).unwrap_or_default() {
            if name != "auths" {
                return Err(Wrong::Unknown(name));
            }
            logins = entries(value, |registry, value| {
                let Object(fields) = serde_json::from_value(value)?;
                let mut entry = AuthEntry::default();
                for (name, value) in fields {
                    match name.as_str() {
                        "auth" => entry.auth = text(&name, value)?,
                        _ => return Err(Wrong::Unknown(name)),
                    }
                }
                let damaged = || Wrong::Auth(registry.to_owned());
                entry.login().filter(Login::says_something).ok_or_else(damaged)
            })?;
        }
        if documents.next().is_some() {
            return Err(Wrong::More);
        }
        Ok(logins)
    }
}

impl AuthEntry {
    fn read(value: Value) -> Result<Self, Wrong> {
        let mut entry = Self::default();
        texts(value, &mut entry, |entry, name| {
            Some(match name {
                "auth" => &mut entry.auth,
                "username" => &mut entry.login.user,
                "password" => &mut entry.login.secret,
                "identitytoken" => &mut entry.login.identity_token,
                "registrytoken" => &mut entry.login.registry_token,
                _ => return None,
            })
        })?;
        Ok(entry)
    }

    /// The login; `None` if it is damaged, and nothing else is there.
    fn login(&self) -> Option<Login> {
        let mut login = self.login.clone();
        if !self.auth.is_empty() {
            match self.pair() {
                Some((user, secret)) => (login.user, login.secret) = (user, secret),
                None if login.says_something() => {}
                None => return None,
            }
        }
        Some(login)
    }

    /// User and password of `auth`.
    fn pair(&self) -> Option<(String, String)> {
        let text: String = self.auth.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
        let (user, secret) = text.split_once(':').filter(|(user, _)| !user.is_empty())?;
        // docker pads old entries with NULs.
        Some((user.to_owned(), secret.trim_matches('\0').to_owned()))
    }
}

impl Proxy {
    fn read(value: Value) -> Result<Self, Wrong> {
        let mut proxy = Self::default();
        texts(value, &mut proxy, |proxy, name| {
            Some(match name {
                "httpproxy" => &mut proxy.http_proxy,
                "httpsproxy" => &mut proxy.https_proxy,
                "noproxy" => &mut proxy.no_proxy,
                "ftpproxy" => &mut proxy.ftp_proxy,
                "allproxy" => &mut proxy.all_proxy,
                _ => return None,
            })
        })?;
        Ok(proxy)
    }
}

/// The host in a key of `auths`, which may be written with scheme and path.
pub(in crate::docker) fn host_of(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split_once('/').map_or(rest, |(host, _)| host)
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

    #[test]
    fn the_file_is_read_as_go_reads_json() {
        for (text, context) in [
            ("", None),
            (" \n", None),
            ("null", None),
            (r#"{"CurrentContext":"far"}"#, Some("far")),
            (
                r#"{"currentContext":"one","currentContext":"two"} trailing"#,
                Some("two"),
            ),
            (r#"{"HttpHeaders":{"a":1},"currentContext":"far"}"#, Some("far")),
        ] {
            assert_eq!(config(text).current_context(), context, "{text}");
        }
        for text in [
            "[]",
            "{",
            r#"{"auths":3}"#,
            r#"{"auths":{"r":{"auth":3}}}"#,
            r#"{"proxies":3}"#,
        ] {
            assert!(ClientConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    async fn login(config: &ClientConfig, registry: &str) -> Option<Login> {
        let found = config.credentials(registry).await;
        assert!(found.trouble.is_none(), "{found:?}");
        found.login
    }

    #[tokio::test]
    async fn a_login_is_found_under_every_spelling_of_its_registry() {
        // "ann:s3:cret"
        let config = config(r#"{"auths":{"https://reg.example:5000/v2/":{"auth":"YW5uOnMzOmNyZXQ="}}}"#);
        let found = login(&config, "reg.example:5000").await.unwrap();
        assert_eq!((found.user.as_str(), found.secret.as_str()), ("ann", "s3:cret"));
        assert_eq!(login(&config, "other.example").await, None);
        assert!(!format!("{config:?}{found:?}").contains("cret"));
    }

    #[tokio::test]
    async fn the_header_is_url_safe() {
        let config = config(r#"{"auths":{"r":{"username":"u","password":"~?>~?>"}}}"#);
        let header = login(&config, "r").await.unwrap().registry_auth("r");
        assert!(!header.contains('+') && !header.contains('/'), "{header}");
    }

    #[tokio::test]
    async fn an_identity_token_has_a_user_where_the_file_says_it() {
        // "ann:" and "<token>:"
        for (auth, user, sent) in [
            ("YW5uOg==", Some("ann"), Some("ann")),
            ("PHRva2VuPjo=", None, Some("<token>")),
            ("?", None, None),
        ] {
            let config = config(&format!(
                r#"{{"auths":{{"r":{{"auth":"{auth}","identitytoken":"t0ken"}}}}}}"#
            ));
            let login = login(&config, "r").await.unwrap();
            assert_eq!(config.user_of("r", &login).as_deref(), user, "{auth}");
            let header = base64::engine::general_purpose::URL_SAFE
                .decode(login.registry_auth("r"))
                .unwrap();
            let mut expected = serde_json::json!({ "identitytoken": "t0ken", "serveraddress": "r" });
            if let Some(sent) = sent {
                expected["username"] = sent.into();
            }
            assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_missing_helper_is_named_and_stops_nothing() {
        let missing = config(r#"{"credsStore":"nowhere-to-be-found"}"#);
        let found = missing.credentials("r").await;
        assert_eq!(found.login, None);
        let warning = found.warning().unwrap();
        assert!(
            warning.starts_with("docker-credential-nowhere-to-be-found gives no login for r: it can't be started")
                && warning.ends_with(": trying without a login"),
            "{warning}"
        );
        let hint = found.hint().unwrap();
        assert!(
            hint.ends_with("try it: docker-credential-nowhere-to-be-found get"),
            "{hint}"
        );
        // The file's own entry is next.
        let text = r#"{"credHelpers":{"r":"nowhere-to-be-found"},"auths":{"r":{"auth":"YW5uOmE="}}}"#;
        let found = config(text).credentials("r").await;
        assert_eq!(found.login, Some(Login::new("ann".into(), "a".into())));
        assert!(found.warning().unwrap().ends_with("which is used"));
    }

    #[tokio::test]
    async fn a_damaged_login_stops_nothing() {
        for auth in ["?", "YW5u", "OnA="] {
            let config = config(&format!(r#"{{"auths":{{"r":{{"auth":"{auth}"}}}}}}"#));
            let found = config.credentials("r").await;
            assert_eq!(found.login, None);
            assert!(found.warning().unwrap().contains("is damaged"), "{found:?}");
            assert!(found.hint().unwrap().ends_with("docker login r"), "{found:?}");
        }
    }

    #[tokio::test]
    async fn the_environments_logins_count_first() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"auths":{"r":{"auth":"YW5uOmE="},"s":{"auth":"YW5uOmE="}}}"#;
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        let of = |given: &str| {
            let folder = folder.path().display().to_string();
            ClientConfig::of(&Env::from_pairs([
                ("DOCKER_CONFIG", folder.as_str()),
                (AUTH_VARIABLE, given),
            ]))
            .unwrap()
        };
        let (ann, bob) = (
            Login::new("ann".into(), "a".into()),
            Login::new("bob".into(), "b".into()),
        );
        // "bob:b"
        let config = of(r#"{"auths":{"r":{"auth":"Ym9iOmI="},"t":{"auth":"Ym9iOmI="}}}"#);
        for (registry, user) in [("r", Some(&bob)), ("s", Some(&ann)), ("t", Some(&bob)), ("u", None)] {
            assert_eq!(login(&config, registry).await.as_ref(), user, "{registry}");
        }
        assert!(config.registries().contains("t"));
        assert!(!format!("{config:?}").contains("\"b\""));
        for (given, is_right) in [
            ("", true),
            (r#"{"auths":null}"#, true),
            ("{}", true),
            ("nonsense", false),
            (r#"{"auths":{"t":{"auth":"Ym9iOmI="}},"credsStore":"x"}"#, false),
            (r#"{"auths":{"t":{"auth":"Ym9iOmI=","identitytoken":"x"}}}"#, false),
            (r#"{"auths":{"t":{"username":"x"}}}"#, false),
            (r#"{"auths":{"t":{}}}"#, false),
            (r#"{"auths":{"t":{"auth":"?"}}}"#, false),
            ("{} {}", false),
        ] {
            let found = of(given).credentials("r").await;
            assert_eq!(found.login.as_ref(), Some(&ann), "{given}");
            let warned = found.warning().is_some_and(|text| text.starts_with(AUTH_VARIABLE));
            assert_eq!(warned, !is_right, "{given}: {found:?}");
        }
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
