//! The calls to AWS.

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecr::error::ProvideErrorMetadata as _;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use base64::Engine as _;
use dock_client::error::Error;
use dock_client::registry_helper::{Answer, EcrRegistry, Identity, Request};

use crate::failure::{Situation, is_denied, malformed};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one call may take, its retries included.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long getting credentials may take: a program of the user's may ask a key ring. The SDK's own limit is five
/// seconds.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(45);
/// The first call, and two more if AWS is busy or out of reach.
const TRIES: u32 = 3;

/// AWS, as the environment configures it.
pub(crate) struct Client {
    config: SdkConfig,
    situation: Situation,
}

impl Client {
    pub(crate) async fn new() -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(TRIES))
            .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS_TIMEOUT).build())
            .load()
            .await;
        Self {
            config,
            situation: Situation::from_process(),
        }
    }

    pub(crate) async fn answer(&self, request: &Request) -> Result<Answer, Error> {
        match request {
            Request::Identity => self.identity().await.map(Answer::Identity),
            Request::Login { registry } => self.login(&parsed(registry)?).await,
            Request::Repository { registry, name } => {
                let created = self.repository(&parsed(registry)?, name).await?;
                Ok(Answer::Repository { created })
            }
        }
    }

    async fn identity(&self) -> Result<Identity, Error> {
        let Some(region) = self.config.region() else {
            return Err(self.situation.no_region());
        };
        let answer = aws_sdk_sts::Client::new(&self.config)
            .get_caller_identity()
            .send()
            .await
            .map_err(|error| self.situation.explain("AWS does not tell who we are", &error))?;
        let account = answer.account().ok_or_else(|| malformed("sts:GetCallerIdentity"))?;
        Ok(Identity {
            account: account.to_owned(),
            region: region.to_string(),
        })
    }

    async fn login(&self, registry: &EcrRegistry) -> Result<Answer, Error> {
        let answer = self
            .ecr(registry)
            .get_authorization_token()
            .send()
            .await
            .map_err(|error| {
                self.situation
                    .explain(&format!("AWS gives no login for {}", registry.host()), &error)
            })?;
        // A token is valid for every registry that this user may use.
        answer
            .authorization_data()
            .iter()
            .find_map(|data| user_and_password(data.authorization_token()?))
            .map(|(user, secret)| Answer::Login { user, secret })
            .ok_or_else(|| malformed("ecr:GetAuthorizationToken"))
    }

    /// Creates a repository if there is none; true if it was created.
    async fn repository(&self, registry: &EcrRegistry, name: &str) -> Result<bool, Error> {
        let ecr = self.ecr(registry);
        let failed = format!("the repository {name} at {}", registry.host());
        let found = ecr
            .describe_repositories()
            .registry_id(&registry.account)
            .repository_names(name)
            .send()
            .await;
        match found {
            Ok(_) => return Ok(false),
            Err(error) if error.code() == Some("RepositoryNotFoundException") => {}
            // A user who may push may still not be allowed to describe repositories. If it is missing, the push says
            // so.
            Err(error) if is_denied(error.code()) => return Ok(false),
            Err(error) => return Err(self.situation.explain(&format!("{failed} can't be looked up"), &error)),
        }
        let made = ecr
            .create_repository()
            .registry_id(&registry.account)
            .repository_name(name)
            .send()
            .await;
        match made {
            Ok(_) => Ok(true),
            // Another process created it in between.
            Err(error) if error.code() == Some("RepositoryAlreadyExistsException") => Ok(false),
            Err(error) => Err(self.situation.explain(&format!("{failed} can't be made"), &error)),
        }
    }

    /// ECR in the region of this registry, whichever is configured.
    fn ecr(&self, registry: &EcrRegistry) -> aws_sdk_ecr::Client {
        let config = aws_sdk_ecr::config::Builder::from(&self.config)
            .region(Region::new(registry.region.clone()))
            .build();
        aws_sdk_ecr::Client::from_conf(config)
    }
}

/// The token is `user:password` in base64 (ECR's API reference, AuthorizationData).
fn user_and_password(token: &str) -> Option<(String, String)> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(token).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    (!user.is_empty() && !password.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

fn parsed(registry: &str) -> Result<EcrRegistry, Error> {
    EcrRegistry::parse(registry).ok_or_else(|| {
        Error::usage(format!("{registry} is no registry of Amazon's"))
            .hint("it would be ACCOUNT.dkr.ecr.REGION.amazonaws.com")
    })
}

/// HTTPS by rustls with ring, as in the rest of the programs: the SDK's own choice, aws-lc, needs a C compiler and cmake.
fn http_client() -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let variable = |names: [&str; 2]| {
        names
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    // HTTPS only: plain HTTP is for the credentials of instances and containers, whose addresses no proxy reaches.
    let proxy = variable(["HTTPS_PROXY", "https_proxy"])
        .and_then(|address| ProxyConfig::https(address).ok())
        .map_or_else(ProxyConfig::disabled, |proxy| {
            match variable(["NO_PROXY", "no_proxy"]) {
                Some(rules) => proxy.no_proxy(rules),
                None => proxy,
            }
        });
    let trust = trust();
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(proxy.clone()));
        let connector = connector.tls_provider(Provider::Rustls(CryptoMode::Ring));
        match TlsContext::builder().with_trust_store(trust.clone()).build() {
            Ok(context) => connector.tls_context(context).build(),
            // Without valid certificates in AWS_CA_BUNDLE, the system's remain.
            Err(_) => connector.build(),
        }
    })
}

/// The system's certificates, and those of AWS_CA_BUNDLE, which the SDK for Rust does not read by itself.
fn trust() -> TrustStore {
    let store = TrustStore::default();
    match std::env::var_os("AWS_CA_BUNDLE").and_then(|file| std::fs::read(file).ok()) {
        Some(pem) => store.with_pem_certificate(pem),
        None => store,
    }
}

#[cfg(test)]
mod tests {
    use dock_client::error::Class;

    use super::*;

    #[test]
    fn a_token_is_a_user_and_a_password() {
        let token = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        assert_eq!(
            user_and_password(&token("AWS:a:b")),
            Some(("AWS".to_owned(), "a:b".to_owned()))
        );
        for broken in [token("AWS"), token("AWS:"), token(":x"), "?".to_owned()] {
            assert_eq!(user_and_password(&broken), None, "{broken}");
        }
    }

    #[test]
    fn a_registry_of_somebody_elses_is_refused() {
        let failure = parsed("registry.example").unwrap_err();
        assert_eq!(failure.class(), Class::Usage);
        assert!(failure.to_string().contains("registry.example"));
    }
}
