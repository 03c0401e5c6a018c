//! What a promotion is planned from: asked of registries side by side, and of git.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dockerutils_core::error::{Error, Result};
use registry_client::{Registry, RemoteDescriptor, RemoteManifest, many};
use serde::Deserialize;

use super::{CommitRange, ImageFacts, PromotionFacts, TaggedImage};
use crate::history;
use crate::manifests::travelling;
use crate::registry_state::{Registries, annotated, first_image, inputs_of};
use crate::suites::TestKind;
use crate::verdicts::{self, FoundVerdicts, VerdictPublicKey};

/// The annotation, and label, with the commit that an image was made from (OCI's image specification, "Pre-Defined
/// Annotation Keys").
const REVISION: &str = "org.opencontainers.image.revision";
/// The most bytes of an image's configuration that are read for its labels.
const CONFIGURATION: usize = 1024 * 1024;
/// How many commits are shown.
const COMMITS: usize = 10;

/// An image that is to be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedImage {
    /// The image's name.
    pub image: String,
    /// The repository with its registry.
    pub repository: String,
    /// The image of the stack that it starts from.
    pub parent: Option<String>,
    /// The kinds of tests of which there must be a verdict.
    pub tests: Vec<TestKind>,
}

/// The manifests of an image's two tags, as they are written back.
#[derive(Clone, Debug)]
pub struct PromotedManifests {
    pub from: Option<RemoteManifest>,
    pub to: Option<RemoteManifest>,
}

/// The labels of an image's configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    config: Option<Labelled>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Labelled {
    labels: Option<BTreeMap<String, String>>,
}

/// Asks registries about these images: what both tags name, and what is known of the tests. The manifests are in the order of
/// the images.
///
/// # Errors
/// Every answer but that a tag is there, or is absent.
pub async fn ask(
    registries: &Registries,
    images: &[PromotedImage],
    (from, to): (&str, &str),
    key: Option<&VerdictPublicKey>,
) -> Result<(PromotionFacts, Vec<PromotedManifests>)> {
    let asked = many(images, |image| async move {
        let place = registries.place(&image.repository)?;
        let (registry, repository) = (place.registry, place.repository.as_str());
        let promoted = async {
            let Some(manifest) = manifest(registry, repository, from).await? else {
                return Ok((None, None, FoundVerdicts::default()));
            };
            let listed = listed(registry, repository, &manifest).await?;
            let (tagged, verdicts) = tokio::try_join!(
                tagged(registry, repository, &manifest, &listed),
                verdicts::find_listed(registry, repository, &manifest.digest, &listed, key)
            )?;
            Ok::<_, Error>((Some(manifest), Some(tagged), verdicts))
        };
        let replaced = async {
            let Some(manifest) = manifest(registry, repository, to).await? else {
                return Ok((None, None));
            };
            let listed = listed(registry, repository, &manifest).await?;
            let tagged = tagged(registry, repository, &manifest, &listed).await?;
            Ok::<_, Error>((Some(manifest), Some(tagged)))
        };
        let (promoted, replaced) = tokio::try_join!(promoted, replaced)?;
        let facts = ImageFacts {
            image: image.image.clone(),
            repository: image.repository.clone(),
            from: promoted.1,
            to: replaced.1,
            verdicts: promoted.2,
            parent: image.parent.clone(),
            tests: image.tests.clone(),
        };
        let manifests = PromotedManifests {
            from: promoted.0,
            to: replaced.0,
        };
        Ok::<_, Error>((facts, manifests))
    });
    let asked: Result<Vec<_>> = asked.await.into_iter().collect();
    let (images, manifests) = asked?.into_iter().unzip();
    let facts = PromotionFacts {
        from: from.to_owned(),
        to: to.to_owned(),
        images,
        ..PromotionFacts::default()
    };
    Ok((facts, manifests))
}

/// Adds the commits between the revisions of what is promoted and of what is there, as git in this directory knows them.
///
/// # Errors
/// git fails or takes too long.
pub fn add_commits(facts: &mut PromotionFacts, directory: &Path) -> Result<()> {
    let pairs = facts.images.iter().filter_map(|image| {
        let (old, new) = (image.to.as_ref()?, image.from.as_ref()?);
        let pair = (old.revision.clone()?, new.revision.clone()?);
        (old.digest != new.digest && pair.0 != pair.1).then_some(pair)
    });
    let pairs: BTreeSet<(String, String)> = pairs.collect();
    for (old, new) in pairs {
        if let Some((commits, are_more)) = history::between(directory, &old, &new, COMMITS)? {
            facts.commits.insert((old, new), CommitRange { commits, are_more });
        }
    }
    Ok(())
}

async fn manifest(registry: &Registry, repository: &str, tag: &str) -> Result<Option<RemoteManifest>> {
    registry.manifest(repository, tag).await.map_err(Error::from)
}

/// What is attached to a manifest.
async fn listed(registry: &Registry, repository: &str, manifest: &RemoteManifest) -> Result<Vec<RemoteDescriptor>> {
    let listed = registry.referrers(repository, &manifest.digest, None).await;
    listed.map_err(Error::from)
}

/// What a manifest, and what is attached to it, say of the image; of an index, its first image does, if the index says
/// nothing itself.
async fn tagged(
    registry: &Registry,
    repository: &str,
    manifest: &RemoteManifest,
    listed: &[RemoteDescriptor],
) -> Result<TaggedImage> {
    let (said, packages) = tokio::try_join!(said(registry, repository, manifest, listed), async {
        // They only explain: what can't be read says nothing.
        let found = travelling::found_listed(registry, repository, &manifest.digest, listed).await;
        Ok(found.ok().flatten())
    })?;
    Ok(TaggedImage { packages, ..said })
}

/// What it was made from.
async fn said(
    registry: &Registry,
    repository: &str,
    manifest: &RemoteManifest,
    listed: &[RemoteDescriptor],
) -> Result<TaggedImage> {
    let mut tagged = TaggedImage {
        digest: manifest.digest.clone(),
        inputs: annotated(manifest).into_iter().collect(),
        revision: manifest.annotations().get(REVISION).cloned(),
        packages: None,
    };
    let inner = match first_image(manifest) {
        Some(first) if tagged.inputs.is_empty() || tagged.revision.is_none() => {
            self::manifest(registry, repository, &first).await?
        }
        _ => None,
    };
    if tagged.inputs.is_empty() {
        tagged.inputs = inputs_of(inner.as_ref(), listed);
    }
    let image = inner.as_ref().unwrap_or(manifest);
    tagged.revision = tagged.revision.or_else(|| image.annotations().get(REVISION).cloned());
    if let (None, Some(config)) = (&tagged.revision, &image.document.config) {
        // It only explains: what can't be read says nothing.
        let bytes = registry.blob(repository, &config.digest, CONFIGURATION).await;
        let bytes = bytes.ok().flatten().unwrap_or_default();
        let configuration: Configuration = serde_json::from_slice(&bytes).unwrap_or_default();
        let labels = configuration.config.and_then(|config| config.labels);
        tagged.revision = labels.and_then(|mut labels| labels.remove(REVISION));
    }
    Ok(tagged)
}
