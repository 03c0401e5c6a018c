//! The documents of a registry: manifests and indexes, with what we read of them.
//!
//! Formats: OCI's image specification 1.1 and docker's manifest schema 2, whose documents have the same fields. Fields
//! that are not named here are kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use dock_client::digest::Digest;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Media type of OCI's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of OCI's index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of the blob `{}`, which stands where there is nothing to say.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The blob `{}`.
pub(crate) const EMPTY_BLOB: &[u8] = b"{}";

/// The most bytes of a manifest or index: what registries take (OCI's distribution specification, "Pushing
/// Manifests").
pub const LARGEST_MANIFEST: usize = 4 * 1024 * 1024;

/// A manifest or index, as a registry has it.
#[derive(Clone, Debug)]
pub struct RemoteManifest {
    /// Of the bytes; verified.
    pub digest: Digest,
    pub media_type: String,
    /// As they are there; written again, they have the same digest.
    pub bytes: Bytes,
    pub document: ManifestDocument,
}

/// What HEAD tells of a manifest. It is the registry's word: nothing is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    pub digest: Digest,
    pub media_type: String,
    /// In bytes.
    pub size: u64,
}

/// What a manifest or index says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestDocument {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, if it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Of a manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<RemoteDescriptor>,
    /// Of a manifest, lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<RemoteDescriptor>>,
    /// Of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<Vec<RemoteDescriptor>>,
    /// The manifest that it says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<RemoteDescriptor>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How one document refers to a blob or to another document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteDescriptor {
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// What it is, in a list of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Its platform, among others.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl RemoteDescriptor {
    /// A descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
            other: BTreeMap::new(),
        }
    }
}

/// Why a document is not one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAManifest {
    #[error("it is not a manifest: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it says that it is {says:?}, and the registry says {given:?}")]
    Type { says: String, given: String },
    #[error("it is a manifest and an index at the same time")]
    Both,
}

impl RemoteManifest {
    /// Reads a document that a registry gave as this media type.
    pub(crate) fn read(media_type: &str, bytes: Bytes) -> Result<Self, NotAManifest> {
        let document: ManifestDocument = serde_json::from_slice(&bytes)?;
        // Who reads one part of such a document sees another image than who reads the other (GHSA-77vh-xpmg-72qh).
        if let Some(says) = document.media_type.as_deref().filter(|says| *says != media_type) {
            return Err(NotAManifest::Type {
                says: says.to_owned(),
                given: media_type.to_owned(),
            });
        }
        if document.manifests.is_some() && (document.config.is_some() || document.layers.is_some()) {
            return Err(NotAManifest::Both);
        }
        Ok(Self {
            digest: Digest::of(&bytes),
            media_type: media_type.to_owned(),
            bytes,
            document,
        })
    }

    /// Its annotations.
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.document.annotations
    }

    /// How others refer to it.
    pub fn descriptor(&self) -> RemoteDescriptor {
        RemoteDescriptor::of(&self.media_type, &self.bytes)
    }
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media_type: &str, text: &str) -> Result<RemoteManifest, NotAManifest> {
        RemoteManifest::read(media_type, Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let digest = Digest::of(b"x");
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1,"platform":{{"os":"linux"}}}}],"annotations":null,"new":[1]}}"#
        );
        let document = read(INDEX, &text).unwrap().document;
        assert!(document.annotations.is_empty());
        let again: Value = serde_json::from_str(&serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(again["new"][0], 1);
        assert_eq!(again["manifests"][0]["platform"]["os"], "linux");
    }

    #[test]
    fn a_document_with_two_meanings_is_refused() {
        let layers = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(read(INDEX, layers), Err(NotAManifest::Both)));
        let other = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#);
        assert!(matches!(read(MANIFEST, &other), Err(NotAManifest::Type { .. })));
        assert!(read(INDEX, &other).is_ok());
        for wrong in ["", "[]", "{}", r#"{"schemaVersion":2,"config":{"digest":"sha256:x"}}"#] {
            assert!(matches!(read(MANIFEST, wrong), Err(NotAManifest::Json(_))), "{wrong}");
        }
    }
}
