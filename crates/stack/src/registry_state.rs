//! What registries hold of the images of a stack, asked about all tags at once.
//!
//! An image says in an annotation of its manifest what it was made from. Of an index, such as buildx pushes, the
//! annotations of the first image count, if it has none itself. What an engine with the classic store pushes has no
//! annotations: what it was made from is attached to it, as a referrer of type [`INPUTS_TYPE`] with that annotation, which
//! the registry's list of referrers repeats. Only images without the annotation are asked for it.

use std::collections::{BTreeMap, BTreeSet};

use dockerutils_core::docker::connect::client_config::ClientConfig;
use dockerutils_core::docker::connect::login::Login;
use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::naming::{Designation, canonical, registry, split_reference};
use jiff::Timestamp;
use registry_client::{
    Attachment, Digest, Options, Proxies, Registry, RegistryCredentials, RemoteDescriptor, RemoteManifest, many,
};
use serde_json::json;

use crate::input_digest::{ANNOTATION, Inputs, pinned};
use crate::plan::{RegistryState, RemoteImage};
use crate::tags::StackTarget;
use crate::verdicts;

/// The type of what is attached to an image that has no annotation. Its blob is the [`Inputs`] in JSON, and so is its
/// annotation [`ANNOTATION`].
pub const INPUTS_TYPE: &str = "application/vnd.dockerutils.stack.inputs.v1+json";
/// The platform of an entry of an index that is no image, but says something about one.
const NO_PLATFORM: &str = "unknown";

/// The registries of a stack.
#[derive(Debug, Default)]
pub struct Registries {
    by_host: BTreeMap<String, Registry>,
    /// What went wrong with logins, and need not stop us.
    pub warnings: Vec<String>,
}

/// A reference, and the registry that it is of.
#[derive(Clone, Debug)]
pub struct RemotePlace<'r> {
    pub registry: &'r Registry,
    /// As the registry calls it.
    pub repository: String,
    /// A tag or digest.
    pub reference: String,
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
    /// Reaches the registries of these references, with docker's own logins, and by the proxies that the environment names.
    ///
    /// # Errors
    /// One that does not answer.
    pub async fn reach(references: impl IntoIterator<Item = &str>, logins: &ClientConfig, env: &Env) -> Result<Self> {
        let options = &Options {
            proxies: Proxies::from_env(env),
            ..Options::default()
        };
        let hosts: BTreeMap<String, String> = references
            .into_iter()
            .map(|reference| (RemoteReference::of(reference).host, registry(reference)))
            .collect();
        let mut registries = Self::default();
        let reached = many(hosts, |(host, key)| async move {
            let found = logins.credentials(&key).await;
            let warning = found.warning();
            let credentials = found.login.map_or(RegistryCredentials::Anonymous, credentials);
            let registry = Registry::connect(&host, credentials, options.clone()).await;
            (host, warning, registry)
        });
        for (host, warning, registry) in reached.await {
            registries.warnings.extend(warning);
            registries.by_host.insert(host, registry.map_err(Error::from)?);
        }
        Ok(registries)
    }

    /// Where a reference is, in one of the registries that were reached.
    ///
    /// # Errors
    /// Its registry was not reached.
    pub fn place(&self, reference: &str) -> Result<RemotePlace<'_>> {
        let RemoteReference {
            host,
            repository,
            reference,
        } = RemoteReference::of(reference);
        match self.by_host.get(&host) {
            Some(registry) => Ok(RemotePlace {
                registry,
                repository,
                reference,
            }),
            None => Err(Error::failed(format!("the registry {host} was not reached"))),
        }
    }

    /// What is there of all tags of the targets; and of those with tests, what is said of them at their own tag.
    ///
    /// # Errors
    /// Every answer but that a tag is there, or is absent.
    pub async fn state(
        &self,
        targets: &[StackTarget],
        has_tests: impl Fn(&StackTarget) -> bool,
    ) -> Result<RegistryState> {
        let mut wanted = BTreeSet::new();
        for target in targets {
            let own = [(&target.designation.tag, has_tests(target))];
            for (tag, with_tests) in own.into_iter().chain(target.fallbacks.iter().map(|tag| (tag, false))) {
                wanted.insert((target.designation.name.clone(), tag.clone(), with_tests));
            }
        }
        let found = many(wanted, |(name, tag, with_tests)| async move {
            let designation = Designation { name, tag };
            let image = self.read(&designation.to_string(), with_tests).await?;
            Ok::<_, Error>((designation, image))
        });
        found.await.into_iter().collect()
    }

    /// Adds what is said of the tests of these images, which are in the state, and of which nobody asked that yet.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn add_tests(&self, state: &mut RegistryState, images: &[Designation]) -> Result<()> {
        let there = |image: &Designation| state.get(image)?.as_ref().map(|there| there.manifest.clone());
        let asked = images.iter().filter_map(|image| Some((image, there(image)?)));
        let said = many(asked, |(image, manifest)| async move {
            let place = self.place(&image.to_string())?;
            let wrong = |cause| Error::failed(format!("{image} has no valid digest in its registry")).because(cause);
            let digest = Digest::parse(&manifest).map_err(wrong)?;
            let listed = place.registry.referrers(&place.repository, &digest, None).await;
            let said = verdicts::said(&listed.map_err(Error::from)?, Timestamp::now());
            Ok::<_, Error>((image, said))
        });
        let answers = said.await;
        for answer in answers {
            let (image, said) = answer?;
            if let Some(Some(there)) = state.get_mut(image) {
                there.tests = Some(said);
            }
        }
        Ok(())
    }

    /// The digest of what is there under this tag; `None` where there is nothing.
    ///
    /// # Errors
    /// Every answer but these two.
    pub async fn digest(&self, reference: &str) -> Result<Option<String>> {
        let place = self.place(reference)?;
        let head = place.registry.head(&place.repository, &place.reference).await;
        Ok(head.map_err(Error::from)?.map(|head| head.digest.as_str().to_owned()))
    }

    /// What there is of a reference, but for what is said of its tests; `None` if it is absent.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn image(&self, reference: &str) -> Result<Option<RemoteImage>> {
        self.read(reference, false).await
    }

    /// The same; what is said about its tests is only asked where `with_tests` says so.
    async fn read(&self, reference: &str, with_tests: bool) -> Result<Option<RemoteImage>> {
        let place = self.place(reference)?;
        let Some(manifest) = place.manifest(&place.reference).await? else {
            return Ok(None);
        };
        let own = annotated(&manifest);
        let (is_silent, first) = (own.is_none(), first_image(&manifest));
        let inside = async {
            match first.filter(|_| is_silent) {
                Some(first) => place.manifest(&first).await,
                None => Ok(None),
            }
        };
        let lists = is_silent || with_tests;
        let listed = async {
            match lists {
                true => {
                    let listed = place.registry.referrers(&place.repository, &manifest.digest, None);
                    listed.await.map_err(Error::from)
                }
                false => Ok(Vec::new()),
            }
        };
        let (inner, listed) = tokio::try_join!(inside, listed)?;
        Ok(Some(RemoteImage {
            manifest: manifest.digest.as_str().to_owned(),
            inputs: own.map_or_else(|| inputs_of(inner.as_ref(), &listed), |own| vec![own]),
            tests: lists.then(|| verdicts::said(&listed, Timestamp::now())),
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
            let place = self.place(base)?;
            let head = place.registry.head(&place.repository, &place.reference).await;
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
            let place = self.place(&repository)?;
            let tags = place.registry.tags(&place.repository).await.map_err(Error::from)?;
            Ok::<_, Error>((repository, tags.unwrap_or_default()))
        });
        found.await.into_iter().collect()
    }
}

impl RemotePlace<'_> {
    async fn manifest(&self, reference: &str) -> Result<Option<RemoteManifest>> {
        let manifest = self.registry.manifest(&self.repository, reference).await;
        manifest.map_err(Error::from)
    }

    /// Attaches to the image of this digest what it was made from.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn attach_inputs(&self, digest: &Digest, inputs: &Inputs) -> Result<()> {
        let said = json!(inputs).to_string();
        let attachment = Attachment {
            artifact_type: INPUTS_TYPE.to_owned(),
            annotations: BTreeMap::from([(ANNOTATION.to_owned(), said.clone())]),
            media_type: INPUTS_TYPE.to_owned(),
            blob: said.into(),
        };
        let attached = self.registry.attach(&self.repository, digest, &attachment).await;
        attached.map(drop).map_err(Error::from)
    }

    /// Gives the manifest of this digest a tag; nothing is pulled or pushed. Says nothing where the tag is of it already.
    ///
    /// # Errors
    /// There is no such manifest any more; and those of the registry.
    pub async fn tag(&self, digest: &Digest, tag: &str) -> Result<()> {
        let there = self.registry.head(&self.repository, tag).await.map_err(Error::from)?;
        if there.is_some_and(|there| there.digest == *digest) {
            return Ok(());
        }
        let copied = self.registry.copy_tag(&self.repository, digest, tag).await;
        match copied.map_err(Error::from)? {
            Some(_) => Ok(()),
            None => Err(Error::failed(format!(
                "{}@{digest} is not there any more, and can't be tagged {tag}",
                self.repository
            ))
            .hint("somebody has removed it meanwhile: call it again, and it is built")),
        }
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

/// What is said of an image whose own manifest has no annotation: by the first image of an index, else by what is attached.
pub(crate) fn inputs_of(inner: Option<&RemoteManifest>, listed: &[RemoteDescriptor]) -> Vec<Inputs> {
    match inner.and_then(annotated) {
        Some(inputs) => vec![inputs],
        None => attached_inputs(listed),
    }
}

/// What an image says that it was made from. What can't be read says nothing.
pub(crate) fn annotated(manifest: &RemoteManifest) -> Option<Inputs> {
    serde_json::from_str(manifest.annotations().get(ANNOTATION)?).ok()
}

/// What a list of referrers says that an image was made from, in its order.
fn attached_inputs(listed: &[RemoteDescriptor]) -> Vec<Inputs> {
    let listed = listed
        .iter()
        .filter(|one| one.artifact_type.as_deref() == Some(INPUTS_TYPE));
    let said = listed.filter_map(|one| one.annotations.get(ANNOTATION));
    said.filter_map(|said| serde_json::from_str(said).ok()).collect()
}

/// The digest of the first image of an index.
pub(crate) fn first_image(manifest: &RemoteManifest) -> Option<String> {
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
