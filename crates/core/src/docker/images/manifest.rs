//! The documents that an image consists of beside its layers: configuration, manifest, index; and digests.
//!
//! Formats: OCI's image specification 1.1 and docker's manifest schema 2, whose documents have the same fields.

use std::collections::BTreeMap;
use std::fmt;

pub use dock_client::digest::Digest;
use serde::{Deserialize, Serialize};

/// Media types that we write.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of an index: one image for several platforms.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Of an image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Of a layer that is a plain tar.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// docker's own media type of an index.
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The most entries of an index, and the most layers of a manifest.
const LONGEST_LIST: usize = 1024;

/// A document that is not of an image.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON, or lacks what it must have.
    #[error("it is damaged")]
    Json(#[from] serde_json::Error),
    /// It lists more than any image has.
    #[error("it lists {0} parts")]
    Long(usize),
    /// A manifest and a configuration that do not belong together.
    #[error("its manifest has {layers} layers, and its configuration {diff_ids}")]
    Layers {
        /// How many the manifest has.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
}

/// How one document refers to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// The platform of a manifest in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Other notes, such as an attestation's type.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// A descriptor of a document.
    pub fn of(media_type: &str, document: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(document),
            size: document.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether it is of a layer's tar, compressed or not, unlike attestations and the like.
    pub fn is_layer(&self) -> bool {
        let tar = self.media_type.split('+').next().unwrap_or_default();
        tar == LAYER
            || tar == "application/vnd.oci.image.layer.nondistributable.v1.tar"
            || self.media_type.starts_with("application/vnd.docker.image.rootfs.")
    }
}

/// What an image runs on, as Go names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default)]
    pub os: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// One image for several platforms, or parts that say something of others.
    Index(Vec<Descriptor>),
    /// An image for one platform.
    Manifest {
        config: Descriptor,
        /// Its layers, lowest first.
        layers: Vec<Descriptor>,
    },
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            #[serde(default)]
            media_type: String,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            #[serde(default)]
            layers: Vec<Descriptor>,
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        let index = raw.media_type == INDEX || raw.media_type == DOCKER_INDEX || raw.config.is_none();
        let document = match (raw.manifests, raw.config) {
            (Some(manifests), _) if index => Self::Index(manifests),
            (_, Some(config)) => Self::Manifest {
                config,
                layers: raw.layers,
            },
            _ => {
                return Err(ManifestError::Json(serde::de::Error::custom(
                    "it is neither a manifest nor an index",
                )));
            }
        };
        match &document {
            Self::Index(parts) | Self::Manifest { layers: parts, .. } if parts.len() > LONGEST_LIST => {
                Err(ManifestError::Long(parts.len()))
            }
            _ => Ok(document),
        }
    }
}

/// The part of an image's configuration that we read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    pub platform: Platform,
    /// Digests of its layers' plain tars, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(flatten)]
            platform: Platform,
            #[serde(default)]
            rootfs: RootFs,
        }
        #[derive(Default, Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Option<Vec<Digest>>,
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        let diff_ids = raw.rootfs.diff_ids.unwrap_or_default();
        if diff_ids.len() > LONGEST_LIST {
            return Err(ManifestError::Long(diff_ids.len()));
        }
        Ok(Self {
            platform: raw.platform,
            diff_ids,
        })
    }
}

/// For each layer, the digest of it and all below it: the classic store's key of the layer (OCI's image specification,
/// "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> Digest {
        Digest::parse(&format!("sha256:{}", c.to_string().repeat(64))).unwrap()
    }

    #[test]
    fn chains_are_as_the_specification_has_them() {
        let (a, b, c) = (digest('a'), digest('b'), digest('c'));
        let chain = chain_ids(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(chain[2], Digest::of(format!("{} {c}", chain[1]).as_bytes()));
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn manifests_and_indexes_of_either_kind_are_read() {
        let part = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":7}}"#, digest('1'));
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#,
            part(CONFIG),
            part("application/vnd.docker.image.rootfs.diff.tar.gzip")
        );
        let Document::Manifest { layers, config } = Document::parse(manifest.as_bytes()).unwrap() else {
            panic!("no manifest");
        };
        assert!(layers[0].is_layer() && !config.is_layer());
        let index = format!(r#"{{"mediaType":"{DOCKER_INDEX}","manifests":[{}]}}"#, part(MANIFEST));
        assert!(matches!(Document::parse(index.as_bytes()).unwrap(), Document::Index(parts) if parts.len() == 1));
        for wrong in [
            "{}",
            "[]",
            "",
            r#"{"layers":[]}"#,
            r#"{"config":{"digest":"sha256:x"}}"#,
        ] {
            assert!(Document::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_configuration_tells_its_layers_and_platform() {
        let text = format!(
            r#"{{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest('2')
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            (config.platform.to_string().as_str(), config.diff_ids.len()),
            ("linux/arm64", 1)
        );
        assert!(
            ImageConfig::parse(br#"{"rootfs":{"diff_ids":null}}"#)
                .unwrap()
                .diff_ids
                .is_empty()
        );
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["md5:1"]}}"#).is_err());
    }
}
