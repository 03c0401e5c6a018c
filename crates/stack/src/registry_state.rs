//! What registries hold of the images of a stack, asked about all tags at once.
//!
//! An image says in an annotation of its manifest what it was made from. Of an index, such as buildx pushes, the
//! annotations of the first image count, if it has none itself.

use std::collections::{BTreeMap, BTreeSet};

use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::login::Login;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::{Designation, canonical, registry, split_reference};
use registry_client::{Options, Registry, RegistryCredentials, RemoteManifest, many};

use crate::input_digest::{ANNOTATION, Inputs, pinned};
use crate::plan::{RegistryState, RemoteImage};
use crate::tags::StackTarget;

/// The platform of an entry of an index that is no image, but says something about one.
const NO_PLATFORM: &str = "unknown";

/// The registries of a stack.
#[derive(Debug, Default)]
pub struct Registries {
    by_host: BTreeMap<String, Registry>,
    /// What went wrong with logins, and need not stop us.
    pub warnings: Vec<String>,
}

/// A repository at its registry.
#[derive(Clone, Debug)]
pub struct RemotePlace<'r> {
    pub registry: &'r Registry,
    /// As the registry takes it: `library/debian`.
    pub repository: String,
}

/// A reference as a registry takes it.
struct RemoteReference {
    host: String,
    repository: String,
    /// A tag or digest.
    reference: String,
}

impl RemoteReference {
    fn of(reference: &str) -> Self {
        let full = canonical(reference);
        let (name, tag, digest) = split_reference(&full);
        let (host, repository) = name.split_once('/').unwrap_or(("docker.io", name));
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            reference: digest.or(tag).unwrap_or("latest").to_owned(),
        }
    }
}

impl Registries {
    /// Reaches the registries of these references, with docker's own logins.
    ///
    /// # Errors
    /// One that does not answer.
    pub async fn reach(references: impl IntoIterator<Item = &str>, logins: &ClientConfig) -> Result<Self> {
        let hosts: BTreeMap<String, String> = references
            .into_iter()
            .map(|reference| (RemoteReference::of(reference).host, registry(reference)))
            .collect();
        let mut registries = Self::default();
        let reached = many(hosts, |(host, key)| async move {
            let found = logins.credentials(&key).await;
            let warning = found.warning();
            let credentials = found.login.map_or(RegistryCredentials::Anonymous, credentials);
            let registry = Registry::connect(&host, credentials, Options::default()).await;
            (host, warning, registry)
        });
        for (host, warning, registry) in reached.await {
            registries.warnings.extend(warning);
            registries.by_host.insert(host, registry.map_err(Error::from)?);
        }
        Ok(registries)
    }

    fn of(&self, asked: &RemoteReference) -> Result<&Registry> {
        let found = self.by_host.get(&asked.host);
        found.ok_or_else(|| Error::failed(format!("the registry {} was not reached", asked.host)))
    }

    /// Where a repository is: its registry, and its name there.
    ///
    /// # Errors
    /// A registry that was not reached.
    pub fn place(&self, repository: &str) -> Result<RemotePlace<'_>> {
        let asked = RemoteReference::of(repository);
        Ok(RemotePlace {
            registry: self.of(&asked)?,
            repository: asked.repository,
        })
    }

    /// What is there of all tags of the targets.
    ///
    /// # Errors
    /// Every answer but that a tag is there, or is absent.
    pub async fn state(&self, targets: &[StackTarget]) -> Result<RegistryState> {
        let mut wanted = BTreeSet::new();
        for target in targets {
            for tag in [&target.designation.tag].into_iter().chain(&target.fallbacks) {
                wanted.insert((target.designation.name.clone(), tag.clone()));
            }
        }
        let found = many(wanted, |(name, tag)| async move {
            let designation = Designation { name, tag };
            let image = self.image(&designation.to_string()).await?;
            Ok::<_, Error>((designation, image))
        });
        found.await.into_iter().collect()
    }

    async fn image(&self, reference: &str) -> Result<Option<RemoteImage>> {
        let asked = RemoteReference::of(reference);
        let registry = self.of(&asked)?;
        let manifest = registry.manifest(&asked.repository, &asked.reference).await;
        let Some(manifest) = manifest.map_err(Error::from)? else {
            return Ok(None);
        };
        let mut inputs = inputs(&manifest);
        if inputs.is_none()
            && let Some(first) = first_image(&manifest)
        {
            let inner = registry
                .manifest(&asked.repository, &first)
                .await
                .map_err(Error::from)?;
            inputs = inner.as_ref().and_then(self::inputs);
        }
        Ok(Some(RemoteImage {
            manifest: manifest.digest.as_str().to_owned(),
            inputs,
        }))
    }

    /// The digests of the images outside of the stack that the targets are made from.
    ///
    /// # Errors
    /// One that is absent, or that the registry does not give.
    pub async fn bases(&self, targets: &[StackTarget]) -> Result<BTreeMap<String, String>> {
        let wanted: BTreeSet<&String> = targets.iter().flat_map(|target| &target.bases).collect();
        let unpinned = wanted.into_iter().filter(|base| pinned(base).is_none());
        let found = many(unpinned, |base| async move {
            let asked = RemoteReference::of(base);
            let head = self.of(&asked)?.head(&asked.repository, &asked.reference).await;
            match head.map_err(Error::from)? {
                Some(head) => Ok((base.clone(), head.digest.as_str().to_owned())),
                None => Err(Error::failed(format!(
                    "there is no {base} in its registry, from which the stack is made"
                ))),
            }
        });
        found.await.into_iter().collect()
    }

    /// The tags of repositories; none of one that is absent.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn tags(&self, repositories: BTreeSet<String>) -> Result<BTreeMap<String, Vec<String>>> {
        let found = many(repositories, |repository| async move {
            let asked = RemoteReference::of(&repository);
            let tags = self.of(&asked)?.tags(&asked.repository).await.map_err(Error::from)?;
            Ok::<_, Error>((repository, tags.unwrap_or_default()))
        });
        found.await.into_iter().collect()
    }
}

fn credentials(login: Login) -> RegistryCredentials {
    if !login.registry_token.is_empty() {
        RegistryCredentials::RegistryToken(login.registry_token)
    } else if !login.identity_token.is_empty() {
        RegistryCredentials::IdentityToken(login.identity_token)
    } else {
        RegistryCredentials::Password {
            user: login.user,
            secret: login.secret,
        }
    }
}

/// What an image says that it was made from. What can't be read says nothing.
fn inputs(manifest: &RemoteManifest) -> Option<Inputs> {
    serde_json::from_str(manifest.annotations().get(ANNOTATION)?).ok()
}

/// The digest of the first image of an index.
fn first_image(manifest: &RemoteManifest) -> Option<String> {
    let entries = manifest.document.manifests.as_ref()?.iter();
    let is_image = |platform: Option<&serde_json::Value>| {
        platform
            .and_then(|platform| platform.get("os"))
            .and_then(serde_json::Value::as_str)
            != Some(NO_PLATFORM)
    };
    let mut images = entries.filter(|entry| is_image(entry.other.get("platform")));
    Some(images.next()?.digest.as_str().to_owned())
}
