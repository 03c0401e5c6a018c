//! A login to a registry.

use std::fmt;

use base64::Engine as _;
use serde_json::Value;

/// A login to a registry. Of several secrets engines take the first in this order: registry token, identity token, password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User name; empty where only a token is known.
    pub user: String,
    /// Password.
    pub secret: String,
    /// What the registry gave in place of a password, by OAuth.
    pub identity_token: String,
    /// What is sent to the registry as it is.
    pub registry_token: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?}, ..)", self.user)
    }
}

impl Login {
    /// A user with a password.
    pub fn new(user: String, secret: String) -> Self {
        Self {
            user,
            secret,
            ..Self::default()
        }
    }

    /// The fields of docker's entry beside user and password.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("identitytoken", self.identity_token.as_str()),
            ("registrytoken", self.registry_token.as_str()),
        ]
        .into_iter()
        .filter(|(_, token)| !token.is_empty())
    }

    /// All that must stay secret.
    pub(in crate::docker) fn secrets(&self) -> impl Iterator<Item = &str> {
        let password = Some(self.secret.as_str()).filter(|secret| !secret.is_empty());
        password.into_iter().chain(self.tokens().map(|(_, token)| token))
    }

    pub(in crate::docker) fn says_something(&self) -> bool {
        *self != Self::default()
    }

    /// The login as engines take it (the engine's API reference, `AuthConfig`).
    pub(in crate::docker) fn document(&self) -> serde_json::Map<String, Value> {
        let password = [("username", self.user.as_str()), ("password", self.secret.as_str())];
        let said = password.into_iter().filter(|(_, value)| !value.is_empty());
        said.chain(self.tokens())
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }

    /// The `X-Registry-Auth` header with this login: JSON in URL-safe base64 (the engine's API reference,
    /// "Authentication").
    pub fn registry_auth(&self, registry: &str) -> String {
        let mut document = self.document();
        document.insert("serveraddress".to_owned(), registry.into());
        base64::engine::general_purpose::URL_SAFE.encode(Value::Object(document).to_string())
    }
}
