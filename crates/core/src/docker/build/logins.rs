//! Which registry logins an engine gets for a build.
//!
//! docker gives an engine all of them: the classic builder's `X-Registry-Config` has every login of `config.json` and
//! its helpers, and BuildKit's session answers for whichever host the engine names. An engine of this machine gets the
//! same here. One elsewhere gets what its work needs: Docker Hub's, and those of the registries that the build names.
//! Over TCP without TLS it gets none: everyone on the way could read them.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use tokio::sync::mpsc::WeakSender;

use super::dockerfile::{self, Dockerfile};
use super::events::{BuildEvent, Events};
use super::request::BuildRequest;
use crate::docker::connect::client_config::{ClientConfig, host_of};
use crate::docker::connect::endpoint::Endpoint;
use crate::docker::connect::locality::Locality;
use crate::docker::connect::login::Login;
use crate::docker::connect::redaction::Redaction;
use crate::naming::registry;
use crate::project_file;

/// Docker Hub's key in `auths`, and its other names.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
const NAMES_OF_HUB: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// The logins of docker's configuration, as far as an engine may have them.
#[derive(Clone, Debug)]
pub struct Logins {
    config: Arc<ClientConfig>,
    reach: Reach,
    /// The registries that the build itself names.
    named: BTreeSet<String>,
    /// The logins that the engine was given.
    given: Redaction,
    /// Receives warnings about logins that can't be read. Weak: the build's end is the end of its events.
    events: Option<WeakSender<BuildEvent>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    All,
    /// Only those of these registries, by their keys in `auths`.
    Of(BTreeSet<String>),
}

impl Logins {
    /// The logins that an engine may have for a build.
    pub fn of_build(
        config: &Arc<ClientConfig>,
        endpoint: &Endpoint,
        locality: Locality,
        request: &BuildRequest,
    ) -> Self {
        let named = registries(request);
        let reach = match locality {
            _ if endpoint.is_in_clear() => Reach::Of(BTreeSet::new()),
            Locality::Local => Reach::All,
            Locality::Docked => Reach::Of(named.clone()),
        };
        Self {
            config: Arc::clone(config),
            reach,
            named,
            given: Redaction::default(),
            events: None,
        }
    }

    /// The same, with warnings about logins that can't be read.
    #[must_use]
    pub fn telling(mut self, events: &Events) -> Self {
        self.events = Some(events.downgrade());
        self
    }

    /// A message of an engine or a registry, without the logins that the engine was given.
    pub fn clean(&self, said: &str) -> String {
        self.given.clean(said)
    }

    async fn give(&self, key: &str, is_wanted: bool) -> Option<Login> {
        let found = self.config.credentials(key).await;
        if let Some(login) = &found.login {
            self.given.add(key, login);
        }
        if is_wanted
            && let (Some(warning), Some(hint)) = (found.warning(), found.hint())
            && let Some(events) = self.events.as_ref().and_then(WeakSender::upgrade)
        {
            // The receiver is gone if the build is over.
            let _ = events.send(BuildEvent::NoLogin { warning, hint }).await;
        }
        found.login
    }

    /// The login for a registry, by whatever name the engine has for it; `None` without one, or if the engine must not
    /// have it. No helper is started for a registry that the engine must not have.
    pub async fn credentials(&self, asked: &str) -> Option<Login> {
        self.give(&self.key(asked)?, true).await
    }

    /// The key in `auths` of a registry that the engine names.
    fn key(&self, asked: &str) -> Option<String> {
        let host = host_of(asked);
        let key = if NAMES_OF_HUB.contains(&host) {
            DOCKER_HUB
        } else {
            asked
        };
        match &self.reach {
            Reach::All => Some(key.to_owned()),
            Reach::Of(keys) => keys.iter().find(|known| host_of(known) == host_of(key)).cloned(),
        }
    }

    /// The header `X-Registry-Config` of the classic builder, which must hold all logins beforehand; `None` without
    /// logins.
    pub async fn registry_config(&self) -> Option<String> {
        let keys = match &self.reach {
            Reach::All => self.config.registries(),
            Reach::Of(keys) => keys.clone(),
        };
        let mut logins = serde_json::Map::new();
        for key in keys {
            let is_named = self.named.iter().any(|named| host_of(named) == host_of(&key));
            if let Some(login) = self.give(&key, is_named).await {
                logins.insert(key, login.document().into());
            }
        }
        (!logins.is_empty())
            .then(|| base64::engine::general_purpose::URL_SAFE.encode(serde_json::Value::Object(logins).to_string()))
    }
}

/// The registries that a build uses: those of its bases, of what it copies and mounts from, of its frontend, its
/// caches, its further contexts and the images that make its attestations. Always Docker Hub, for names without a
/// registry.
fn registries(request: &BuildRequest) -> BTreeSet<String> {
    let options = &request.options;
    let bytes = project_file::read(&request.dockerfile).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let dockerfile = Dockerfile::parse(&text, options);
    let caches = options.cache_from.iter().chain(&options.cache_to);
    let contexts = options.contexts.iter();
    let generators = options.attestations.values();
    dockerfile
        .images()
        .chain(dockerfile::syntax(&text))
        .chain(options.build_args.get("BUILDKIT_SYNTAX").map(String::as_str))
        .chain(caches.filter_map(|cache| cache.values.get("ref").map(String::as_str)))
        .chain(contexts.filter_map(|(_, place)| place.strip_prefix("docker-image://")))
        .chain(generators.filter_map(|values| values.split(',').find_map(|value| value.strip_prefix("generator="))))
        .map(registry)
        .chain([DOCKER_HUB.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::docker::options::build_options::{Attributes, BuildOptions};
    use crate::env::Env;

    fn config(registries: &[&str]) -> Arc<ClientConfig> {
        let folder = tempfile::tempdir().unwrap();
        let auths: serde_json::Map<String, serde_json::Value> = registries
            .iter()
            .map(|registry| {
                // The pair `u:p`.
                ((*registry).to_owned(), serde_json::json!({ "auth": "dTpw" }))
            })
            .collect();
        let helpers = serde_json::json!({ "helped.example": "never-to-be-started" });
        let text = serde_json::json!({ "auths": auths, "credHelpers": helpers }).to_string();
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        Arc::new(ClientConfig::read(folder.path()).unwrap())
    }

    fn request(folder: &std::path::Path, dockerfile: &str, options: BuildOptions) -> BuildRequest {
        std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        BuildRequest {
            context: folder.to_owned(),
            dockerfile: folder.join("Dockerfile"),
            tags: vec!["x:1".to_owned()],
            options,
        }
    }

    #[test]
    fn a_build_asks_the_registries_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |reference: &str| Attributes {
            kind: "registry".to_owned(),
            values: BTreeMap::from([("ref".to_owned(), reference.to_owned())]),
        };
        let options = BuildOptions {
            build_args: BTreeMap::from([("REG".to_owned(), "arg.example".to_owned())]),
            cache_from: vec![cache("from.example/c")],
            cache_to: vec![cache("to.example:5000/c:1")],
            contexts: vec![
                ("a".to_owned(), "docker-image://context.example/x".to_owned()),
                ("b".to_owned(), "https://git.example/x.git".to_owned()),
            ],
            attestations: BTreeMap::from([("attest:sbom".to_owned(), "generator=sbom.example/x".to_owned())]),
            ..BuildOptions::default()
        };
        let text = "# syntax = syntax.example/dockerfile:1\nARG REG=default.example\nFROM ${REG}/base AS one\nFROM one\n\
                    COPY --from=copy.example/tools a b\nRUN --mount=type=bind,from=mount.example/x,target=/x ls\n\
                    LABEL a=label.example/x\n";
        let found = registries(&request(folder.path(), text, options));
        let expected = [
            "arg.example",
            "context.example",
            "copy.example",
            "from.example",
            DOCKER_HUB,
            "mount.example",
            "sbom.example",
            "syntax.example",
            "to.example:5000",
        ];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    #[tokio::test]
    async fn a_far_engine_gets_what_its_build_needs_and_no_helper_is_started_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let build = request(folder.path(), "FROM https.example/x\n", BuildOptions::default());
        let config = config(&["https://https.example/v2/", "secret.example", DOCKER_HUB]);
        let env = Env::default();
        let logins = |address: &str, locality| {
            let endpoint = Endpoint::parse(address, &env).unwrap();
            Logins::of_build(&config, &endpoint, locality, &build)
        };
        let far = logins("ssh://box", Locality::Docked);
        for asked in ["https.example", "registry-1.docker.io", "docker.io", DOCKER_HUB] {
            assert!(far.credentials(asked).await.is_some(), "{asked}");
        }
        for asked in [
            "secret.example",
            "helped.example",
            "https://helped.example/v2/",
            "",
            "https.example.evil",
        ] {
            assert_eq!(far.credentials(asked).await, None, "{asked}");
        }
        let header = far.registry_config().await.unwrap();
        let text = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
        let sent: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            sent.keys().map(String::as_str).collect::<Vec<_>>(),
            ["https.example", DOCKER_HUB]
        );
        // A local engine gets them all. A missing helper stops nothing, and does not concern this build.
        let near = logins("unix:///var/run/docker.sock", Locality::Local);
        let (events, mut heard) = tokio::sync::mpsc::channel(9);
        let near = near.telling(&events);
        assert!(near.credentials("secret.example").await.is_some());
        let header = near.registry_config().await.unwrap();
        let text = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
        let sent: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        assert_eq!(sent.len(), 3);
        assert!(heard.try_recv().is_err());
        // If its login is requested, it does.
        assert_eq!(near.credentials("helped.example").await, None);
        let Ok(BuildEvent::NoLogin { warning, hint }) = heard.try_recv() else {
            panic!("nothing is told");
        };
        assert!(
            warning.contains("never-to-be-started") && hint.contains("try it"),
            "{warning} {hint}"
        );
        // This does not delay the end of the build's events.
        drop(events);
        assert!(heard.recv().await.is_none());
        // In clear text, none at all.
        let plain = logins("tcp://10.0.0.7:2375", Locality::Docked);
        assert_eq!(plain.registry_config().await, None);
        assert_eq!(plain.credentials("https.example").await, None);
    }
}
