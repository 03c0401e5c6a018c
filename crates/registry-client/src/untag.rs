//! Deleting a tag and nothing else.
//!
//! `DELETE` of a tag deletes the tag alone at some registries, and the manifest with all its tags at others; at these also
//! what refers to the manifest (its verdicts and signatures), which nobody could write again. No registry says
//! beforehand which of the two it does. So the tag is first written to name a placeholder that nothing else names, and
//! then deleted: whatever goes with it is the placeholder.

use std::collections::BTreeMap;

use bytes::Bytes;
use dock_client::digest::Digest;

use crate::connect::{Registry, Subject};
use crate::error::{Error, Failure, RegistryTrouble};
use crate::manifest::{EMPTY, EMPTY_BLOB, MANIFEST, ManifestDocument, RemoteDescriptor, RemoteManifest};

/// What a placeholder is.
const PLACEHOLDER_TYPE: &str = "application/vnd.dockerutils.placeholder.v1";
/// Annotations that make it like no other.
const TAG: &str = "io.dockerutils.placeholder.tag";
const REPLACED: &str = "io.dockerutils.placeholder.replaced";

/// What a tag names for the moment before it is deleted: a manifest without contents.
#[derive(Clone, Debug)]
pub struct Placeholder {
    digest: Digest,
    bytes: Bytes,
}

impl Placeholder {
    /// The one for a tag that names this digest: always the same, so that it is known again.
    ///
    /// # Errors
    /// [`serde_json`]'s, which no text leads to.
    pub fn of(tag: &str, replaced: &Digest) -> Result<Self, serde_json::Error> {
        let document = ManifestDocument {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: Some(PLACEHOLDER_TYPE.to_owned()),
            config: Some(RemoteDescriptor::of(EMPTY, EMPTY_BLOB)),
            layers: Some(vec![RemoteDescriptor::of(EMPTY, EMPTY_BLOB)]),
            annotations: BTreeMap::from([
                (TAG.to_owned(), tag.to_owned()),
                (REPLACED.to_owned(), replaced.to_string()),
            ]),
            ..ManifestDocument::default()
        };
        let bytes = Bytes::from(serde_json::to_vec(&document)?);
        Ok(Self {
            digest: Digest::of(&bytes),
            bytes,
        })
    }

    /// Its digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Registry {
    /// Deletes a tag that names this manifest, and nothing else; the manifest and its other tags stay. If the registry
    /// deletes no tags, it names the manifest afterwards as before.
    ///
    /// # Errors
    /// [`Failure::Server`] with 405 or 400 where the registry does not allow it, and the others. If it can't be reached
    /// in the middle, the tag may name the [`Placeholder`]: call it again.
    pub async fn untag(&self, repository: &str, tag: &str, manifest: &RemoteManifest) -> Result<(), Error> {
        let subject = Subject {
            repository,
            reference: tag,
        };
        let placeholder = Placeholder::of(tag, &manifest.digest)
            .map_err(|error| self.error(subject, RegistryTrouble::invalid(error.to_string())))?;
        // Most registries delete nothing: that is found out by a tag that nobody has.
        let nobodys = format!("absent-{}", placeholder.digest.hex());
        self.delete(repository, &nobodys).await?;
        self.put_blob(repository, Bytes::from_static(EMPTY_BLOB)).await?;
        self.put_manifest(repository, tag, MANIFEST, placeholder.bytes.clone())
            .await?;
        let deleted = async {
            self.delete(repository, tag).await?;
            let left = self.head(repository, tag).await?;
            Ok::<_, Error>(left.filter(|left| left.digest == placeholder.digest))
        };
        let failure = match deleted.await {
            Ok(None) => return Ok(()),
            Ok(Some(_)) => self.error(
                subject,
                RegistryTrouble::new(
                    Failure::Server(405),
                    "the registry says that it deletes it, and does not",
                ),
            ),
            Err(failure) => failure,
        };
        self.put_manifest(repository, tag, &manifest.media_type, manifest.bytes.clone())
            .await?;
        Err(failure)
    }
}
