//! The list of an image's packages, attached to the image in its registry: another CI runner compares with it, and needs no page of
//! the run before.
//!
//! A document of type [`ARTIFACT_TYPE`] that refers to the image's manifest: `{"format": 1, "apt": {"name": "version"}, ...}`.

use std::collections::BTreeMap;

use dockerutils_core::error::{Error, Result};
use registry_client::{Attachment, Digest, Registry, RemoteDescriptor};
use serde::{Deserialize, Serialize};

use super::packages::PackageLists;
use super::{Earlier, parsed};
use crate::registry_state::Registries;
use crate::spec::Spec;
use crate::tags::{STABLE, StackTarget, stable_tag};

/// The type of the document, as registries list it.
pub const ARTIFACT_TYPE: &str = "application/vnd.dockerutils.stack.packages.v1+json";
/// The type of its content.
const MEDIA_TYPE: &str = "application/json";
/// The form of the content.
const FORMAT: u32 = 1;
/// The most bytes of the content: 20,000 packages have 600 kB.
const LONGEST: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct PackageDocument {
    format: u32,
    #[serde(flatten)]
    packages: PackageLists,
}

/// Attaches packages to the manifest of a repository; nothing happens if the same is attached already.
///
/// # Errors
/// The registry's refusal; more packages than a document may have.
pub async fn attach(registries: &Registries, repository: &str, digest: &str, packages: &PackageLists) -> Result<()> {
    let place = registries.place(repository)?;
    attach_at(place.registry, &place.repository, &parsed(digest)?, packages).await
}

async fn attach_at(registry: &Registry, repository: &str, digest: &Digest, packages: &PackageLists) -> Result<()> {
    if found(registry, repository, digest).await?.as_ref() == Some(packages) {
        return Ok(());
    }
    let document = PackageDocument {
        format: FORMAT,
        packages: packages.clone(),
    };
    let blob = serde_json::to_vec(&document)
        .map_err(|cause| Error::failed("the list of packages has no JSON").because(cause))?;
    if blob.len() > LONGEST {
        return Err(Error::failed(format!(
            "the list of packages has {} bytes, and may have {LONGEST}",
            blob.len()
        )));
    }
    let attachment = Attachment {
        artifact_type: ARTIFACT_TYPE.to_owned(),
        annotations: BTreeMap::new(),
        media_type: MEDIA_TYPE.to_owned(),
        blob: blob.into(),
    };
    registry
        .attach(repository, digest, &attachment)
        .await
        .map(drop)
        .map_err(Error::from)
}

/// The packages that are attached to a manifest; of several lists, the last one.
async fn found(registry: &Registry, repository: &str, digest: &Digest) -> Result<Option<PackageLists>> {
    let listed = registry.referrers(repository, digest, Some(ARTIFACT_TYPE)).await;
    found_listed(registry, repository, digest, &listed.map_err(Error::from)?).await
}

/// The same, of a list of what is attached to the manifest.
pub(crate) async fn found_listed(
    registry: &Registry,
    repository: &str,
    digest: &Digest,
    listed: &[RemoteDescriptor],
) -> Result<Option<PackageLists>> {
    let attached = registry.read_attached(repository, digest, listed, ARTIFACT_TYPE, LONGEST);
    let attached = attached.await.map_err(Error::from)?;
    let documents = attached.iter().rev();
    let mut documents = documents.filter_map(|one| serde_json::from_slice::<PackageDocument>(&one.blob).ok());
    let document = documents.find(|document| document.format == FORMAT);
    Ok(document.map(|document| document.packages))
}

/// The packages that are attached to this manifest of a repository; `None` without a digest, and if there are none.
///
/// # Errors
/// Those of the registry.
pub async fn of_digest(
    registries: &Registries,
    repository: &str,
    digest: Option<&str>,
) -> Result<Option<PackageLists>> {
    let Some(digest) = digest else {
        return Ok(None);
    };
    let place = registries.place(repository)?;
    found(place.registry, &place.repository, &parsed(digest)?).await
}

/// The packages of the image that proved good: at `<prefix>-stable`, else at `stable`. `None` if there is none, if it says nothing of its
/// packages, and if it is the image itself.
///
/// # Errors
/// Those of the registry.
pub async fn of_stable(
    registries: &Registries,
    spec: &Spec,
    target: &StackTarget,
    own: Option<&str>,
) -> Result<Option<Earlier>> {
    let place = registries.place(&target.designation.name)?;
    let plan = spec.plans.iter().find(|plan| plan.name == target.plan);
    for tag in plan.map(stable_tag).into_iter().chain([STABLE.to_owned()]) {
        let head = place
            .registry
            .head(&place.repository, &tag)
            .await
            .map_err(Error::from)?;
        let Some(head) = head else {
            continue;
        };
        if own == Some(head.digest.as_str()) {
            return Ok(None);
        }
        let packages = found(place.registry, &place.repository, &head.digest).await?;
        return Ok(packages.map(|packages| Earlier { name: tag, packages }));
    }
    Ok(None)
}
