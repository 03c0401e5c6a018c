//! The documents of the archives that are loaded: those of the image, and those of the unnamed images that keep its layers
//! until it is whole.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::running::TransferIdentity;
use crate::docker::images::image_store::{StoredImage, Variant};
use crate::docker::images::manifest::{CONFIG, Descriptor, Digest, INDEX, MANIFEST};
use crate::error::{Error, Result};

/// The label of an image that keeps layers for a transfer: the ID of the image that they are of.
pub const PARTIAL_LABEL: &str = "io.dockerutils.transfer";
/// The label that says whose transfer it is.
pub const USER_LABEL: &str = "io.dockerutils.user";
/// The label with the ID of the machine that the transfer runs on.
pub const MACHINE_LABEL: &str = "io.dockerutils.transfer.machine";
/// The label with that machine's name, for people.
pub const HOST_LABEL: &str = "io.dockerutils.transfer.host";
/// The label with the ID of the transfer.
pub const ID_LABEL: &str = "io.dockerutils.transfer.id";

/// Files of an archive, and the ID of what it loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifests {
    /// Path and content, in the order in which they are written.
    pub files: Vec<(String, Vec<u8>)>,
    /// The ID that the image has in the store.
    pub id: Digest,
    /// All blobs that the image refers to, with their sizes, where the store keeps blobs.
    pub blobs: BTreeMap<Digest, u64>,
}

/// The path of a blob in an archive of OCI's layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The path of a layer in an archive for the classic store.
pub fn layer_path(diff_id: &Digest) -> String {
    format!("{}.tar", diff_id.hex())
}

/// Of an image for the classic store: docker's image specification 1.2.
///
/// # Errors
/// None that these documents could have.
pub fn classic(config: &[u8], diff_ids: &[Digest]) -> Result<Manifests> {
    let id = Digest::of(config);
    let config_path = format!("{}.json", id.hex());
    let layers: Vec<String> = diff_ids.iter().map(layer_path).collect();
    let manifest = json!([{ "Config": config_path, "RepoTags": null, "Layers": layers }]);
    Ok(Manifests {
        files: vec![
            (config_path, config.to_vec()),
            ("manifest.json".to_owned(), bytes(&manifest)?),
        ],
        id,
        blobs: BTreeMap::new(),
    })
}

/// Of an image of one manifest for containerd's store: OCI's image layout.
///
/// # Errors
/// None that these documents could have.
pub fn single(config: &[u8], layers: &[Descriptor]) -> Result<Manifests> {
    let manifest = manifest(Descriptor::of(CONFIG, config), layers, None)?;
    let root = Descriptor::of(MANIFEST, &manifest);
    let documents = [(Digest::of(config), config.to_vec()), (root.digest.clone(), manifest)];
    layout(documents.into_iter().collect(), root, layers)
}

/// Of an image of a store that keeps blobs, for another such: as it is where its layers have the same digests there, else
/// with the digests that they have there. `placed` has each layer of each variant as it is there.
///
/// # Errors
/// A document of the image that is not as it was when it was read.
pub fn whole(image: &StoredImage, variants: &[Variant], placed: &[Vec<Descriptor>]) -> Result<Manifests> {
    let root = image
        .root
        .clone()
        .ok_or_else(|| Error::failed("an image without a manifest has no documents"))?;
    let mut documents = image.documents.clone();
    let mut renamed: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    for (variant, layers) in variants.iter().zip(placed) {
        let same = variant
            .layers
            .iter()
            .zip(layers)
            .all(|(layer, there)| layer.blob.as_ref().is_some_and(|blob| blob.digest == there.digest));
        let Some(digest) = variant.manifest.as_ref().filter(|_| !same) else {
            continue;
        };
        let (Some(old), Some(config)) = (documents.get(digest), documents.get(&variant.config)) else {
            return Err(Error::failed(format!("the manifest {} is gone", digest.short())));
        };
        let annotations = parse(old)?.get("annotations").cloned();
        let new = manifest(Descriptor::of(CONFIG, config), layers, annotations)?;
        let descriptor = Descriptor::of(MANIFEST, &new);
        documents.remove(digest);
        documents.insert(descriptor.digest.clone(), new);
        renamed.insert(digest.clone(), descriptor);
    }
    let root = match renamed.is_empty() {
        true => root,
        false => rename(&root, &mut documents, &mut renamed)?,
    };
    let root = Descriptor {
        platform: None,
        annotations: BTreeMap::new(),
        ..root
    };
    let attached = variants.iter().flat_map(|variant| &variant.attached);
    let blobs: Vec<Descriptor> = placed.iter().flatten().chain(attached).cloned().collect();
    layout(documents, root, &blobs)
}

/// The label, with its value, of what keeps layers for the image with this ID.
pub fn partial_label(image: &Digest) -> String {
    format!("{PARTIAL_LABEL}={image}")
}

/// The configuration of an image that keeps the lowest layers of a variant until the image is whole.
///
/// # Errors
/// None that this document could have.
pub fn partial_config(image: &Digest, identity: &TransferIdentity, variant: &Variant, end: usize) -> Result<Vec<u8>> {
    let diff_ids: Vec<&Digest> = variant.layers.iter().take(end).map(|layer| &layer.diff_id).collect();
    let history = vec![json!({ "created_by": "transfer-image" }); diff_ids.len()];
    let labels: BTreeMap<&str, &str> = [
        (PARTIAL_LABEL, image.as_str()),
        (USER_LABEL, &identity.user),
        (ID_LABEL, &identity.id),
        (HOST_LABEL, &identity.host),
    ]
    .into_iter()
    .chain(identity.machine.as_deref().map(|machine| (MACHINE_LABEL, machine)))
    .collect();
    bytes(&json!({
        "created": jiff::Timestamp::now().to_string(),
        "architecture": variant.platform.architecture,
        "os": variant.platform.os,
        "variant": variant.platform.variant,
        "config": { "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    }))
}

fn manifest(config: Descriptor, layers: &[Descriptor], annotations: Option<Value>) -> Result<Vec<u8>> {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": layers,
    });
    if let (Some(annotations), Some(fields)) = (annotations, manifest.as_object_mut()) {
        fields.insert("annotations".to_owned(), annotations);
    }
    bytes(&manifest)
}

/// Writes an index anew whose parts have other digests now, from the inmost outwards.
fn rename(
    descriptor: &Descriptor,
    documents: &mut BTreeMap<Digest, Vec<u8>>,
    renamed: &mut BTreeMap<Digest, Descriptor>,
) -> Result<Descriptor> {
    if let Some(new) = renamed.get(&descriptor.digest) {
        return Ok(new.clone());
    }
    let Some(text) = documents.get(&descriptor.digest) else {
        // A platform that is not there.
        return Ok(descriptor.clone());
    };
    let mut index = parse(text)?;
    let parts: Vec<Digest> = index
        .get("manifests")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|part| Digest::parse(part.get("digest")?.as_str()?).ok())
        .collect();
    for part in parts {
        let inner = Descriptor {
            digest: part.clone(),
            ..descriptor.clone()
        };
        let new = rename(&inner, documents, renamed)?;
        if new.digest != part {
            renamed.insert(part, new);
        }
    }
    let Some(parts) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
        // A manifest as it was.
        return Ok(descriptor.clone());
    };
    for part in parts.iter_mut().filter_map(Value::as_object_mut) {
        let digest = part.get("digest").and_then(Value::as_str).map(Digest::parse);
        if let Some(new) = digest.and_then(Result::ok).and_then(|digest| renamed.get(&digest)) {
            part.insert("digest".to_owned(), json!(new.digest));
            part.insert("size".to_owned(), json!(new.size));
            part.insert("mediaType".to_owned(), json!(new.media_type));
        }
        // An attestation names the manifest that it is about (BuildKit, "vnd.docker.reference.digest").
        let annotations = part.get_mut("annotations").and_then(Value::as_object_mut);
        for value in annotations.into_iter().flat_map(|annotations| annotations.values_mut()) {
            let digest = value.as_str().map(Digest::parse);
            if let Some(new) = digest.and_then(Result::ok).and_then(|digest| renamed.get(&digest)) {
                *value = json!(new.digest);
            }
        }
    }
    let new = bytes(&index)?;
    let new_descriptor = Descriptor::of(&descriptor.media_type, &new);
    if new_descriptor.digest != descriptor.digest {
        documents.remove(&descriptor.digest);
        documents.insert(new_descriptor.digest.clone(), new);
        renamed.insert(descriptor.digest.clone(), new_descriptor.clone());
    }
    Ok(new_descriptor)
}

/// An archive of OCI's layout without its layers. What is loaded has no name; the index comes last, so that nothing is
/// referred to before it is there.
fn layout(documents: BTreeMap<Digest, Vec<u8>>, root: Descriptor, blobs: &[Descriptor]) -> Result<Manifests> {
    let sizes = documents
        .iter()
        .map(|(digest, text)| (digest.clone(), text.len() as u64));
    let blobs = sizes.chain(blobs.iter().map(|blob| (blob.digest.clone(), blob.size)));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [root] });
    Ok(Manifests {
        blobs: blobs.collect(),
        files: documents
            .into_iter()
            .map(|(digest, text)| (blob_path(&digest), text))
            .chain([
                ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
                ("index.json".to_owned(), bytes(&index)?),
            ])
            .collect(),
        id: root.digest,
    })
}

fn parse(text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text).map_err(|cause| Error::failed("a document of the image is damaged").because(cause))
}

fn bytes(document: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|cause| Error::failed("a document can't be written").because(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::images::image_store::Layer;
    use crate::docker::images::manifest::{Document, ImageConfig, LAYER, Platform};

    fn variant(name: &str, manifest: Option<Digest>, config: &[u8]) -> Variant {
        Variant {
            platform: Platform {
                architecture: name.to_owned(),
                os: "linux".to_owned(),
                variant: None,
            },
            config: Digest::of(config),
            layers: vec![Layer {
                diff_id: Digest::of(name.as_bytes()),
                blob: Some(gzip(name)),
                size: 9,
                unpacked: 9,
            }],
            manifest,
            attached: Vec::new(),
        }
    }

    fn gzip(name: &str) -> Descriptor {
        Descriptor::of(&format!("{LAYER}+gzip"), format!("{name}.gz").as_bytes())
    }

    /// An index of two platforms and what attests one.
    fn image() -> (StoredImage, Vec<Variant>) {
        let mut documents = BTreeMap::new();
        let mut variants = Vec::new();
        let mut parts = Vec::new();
        for name in ["amd64", "arm64"] {
            let config = format!(r#"{{"architecture":"{name}"}}"#).into_bytes();
            let text = manifest(Descriptor::of(CONFIG, &config), &[gzip(name)], None).unwrap();
            parts.push(json!(Descriptor::of(MANIFEST, &text)));
            variants.push(variant(name, Some(Digest::of(&text)), &config));
            documents.insert(Digest::of(&text), text);
            documents.insert(Digest::of(&config), config);
        }
        let mut attestation = json!(Descriptor::of(MANIFEST, b"attestation"));
        attestation["annotations"] = json!({ "vnd.docker.reference.digest": variants[0].manifest.clone().unwrap() });
        parts.push(attestation);
        let index = bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": parts })).unwrap();
        let root = Descriptor::of(INDEX, &index);
        documents.insert(root.digest.clone(), index);
        let image = StoredImage {
            id: root.digest.clone(),
            name: None,
            variants: variants.clone(),
            absent: Vec::new(),
            documents,
            root: Some(root),
        };
        (image, variants)
    }

    #[test]
    fn an_image_with_the_same_blobs_stays_the_same() {
        let (image, variants) = image();
        let placed = [vec![gzip("amd64")], vec![gzip("arm64")]];
        let documents = whole(&image, &variants, &placed).unwrap();
        assert_eq!(documents.id, image.id);
        assert_eq!(documents.blobs.len(), 7);
        assert_eq!(documents.files.last().unwrap().0, "index.json");
    }

    #[test]
    fn other_blobs_are_named_in_manifest_index_and_attestation() {
        let (image, variants) = image();
        let plain = Descriptor::of(LAYER, b"amd64");
        let documents = whole(&image, &variants, &[vec![plain.clone()], vec![gzip("arm64")]]).unwrap();
        assert_ne!(documents.id, image.id);
        assert!(documents.blobs.contains_key(&plain.digest) && !documents.blobs.contains_key(&gzip("amd64").digest));
        let text = |digest: &Digest| {
            let path = blob_path(digest);
            &documents.files.iter().find(|(name, _)| *name == path).unwrap().1
        };
        let Document::Index(parts) = Document::parse(text(&documents.id)).unwrap() else {
            panic!("no index");
        };
        let Document::Manifest { config, layers } = Document::parse(text(&parts[0].digest)).unwrap() else {
            panic!("no manifest");
        };
        assert_eq!((config.digest, layers), (variants[0].config.clone(), vec![plain]));
        assert_eq!(Some(&parts[1].digest), variants[1].manifest.as_ref());
        let about = parts[2].annotations.values().next().unwrap();
        assert_eq!(about, parts[0].digest.as_str());
    }

    #[test]
    fn a_partial_image_is_of_the_lowest_layers() {
        let (image, variants) = image();
        let identity = TransferIdentity {
            id: "0123456789abcdef".to_owned(),
            user: "ann".to_owned(),
            machine: Some("0".repeat(32)),
            host: "laptop".to_owned(),
        };
        let config = partial_config(&image.id, &identity, &variants[0], 1).unwrap();
        let read = ImageConfig::parse(&config).unwrap();
        assert_eq!((read.diff_ids.len(), read.platform.architecture.as_str()), (1, "amd64"));
        let text = String::from_utf8(config.clone()).unwrap();
        for (label, value) in [
            (PARTIAL_LABEL, image.id.as_str()),
            (USER_LABEL, "ann"),
            (ID_LABEL, "0123456789abcdef"),
            (HOST_LABEL, "laptop"),
            (MACHINE_LABEL, "00000000000000000000000000000000"),
        ] {
            assert!(text.contains(&format!(r#""{label}":"{value}""#)), "{text}");
        }
        let no_machines = TransferIdentity {
            machine: None,
            ..identity
        };
        let config_of_none = partial_config(&image.id, &no_machines, &variants[0], 1).unwrap();
        assert!(!String::from_utf8_lossy(&config_of_none).contains(MACHINE_LABEL));
        let documents = classic(&config, &read.diff_ids).unwrap();
        assert_eq!(documents.id, Digest::of(&config));
        assert!(String::from_utf8_lossy(&documents.files[1].1).contains(r#""RepoTags":null"#));
        assert_eq!(single(&config, &[gzip("amd64")]).unwrap().blobs.len(), 3);
    }
}
