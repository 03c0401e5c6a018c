//! What an engine has of images: layers, and the parts of an image. The two kinds of store are asked in different ways.
//!
//! The classic store knows layers by the chain of all below them, and shows them only through its images. containerd's
//! store knows blobs by their digests; there, a layer is present only if the content store has its blob: an extracted
//! snapshot, or an image's list of layers, does not prove that. Without the blob, the image can be neither saved nor
//! pushed nor built on.

use std::collections::{BTreeMap, HashMap, HashSet};

use bollard::models::SystemInfo;
use bollard::query_parameters::ListImagesOptionsBuilder;
use futures_util::StreamExt as _;

use super::content_store::{Blob, Content};
use super::image;
use super::manifest::{Descriptor, Digest, Document, ImageConfig, LAYER, Platform, chain_ids};
use crate::docker::connect::engine::{Engine, found};
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{canonical, nearest};

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;
/// The most bytes of a manifest or configuration (containerd's own limit is half of it).
const LONGEST_DOCUMENT: u64 = 16 << 20;
/// The most bytes of all documents of an image together.
const LONGEST_DOCUMENTS: usize = 32 << 20;
/// More layers than any store has.
const MOST_CHAINS: usize = 1 << 20;
/// How deep indexes may be nested.
const DEEPEST_INDEX: usize = 3;

/// An engine's store of images.
#[derive(Clone)]
pub enum Store {
    /// That of graph drivers.
    Classic,
    /// containerd's.
    Containerd(Box<Content>),
}

/// What a store has, at one time.
#[derive(Clone, Debug)]
pub enum Inventory {
    /// Chains of layers.
    Classic(HashSet<Digest>),
    /// Blobs.
    Containerd {
        /// All of them.
        blobs: HashMap<Digest, Blob>,
        /// Compressed layers by the digests of their plain tars.
        by_diff_id: HashMap<Digest, Digest>,
    },
}

/// A layer of an image at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of its plain tar.
    pub diff_id: Digest,
    /// Its blob, if the store keeps blobs.
    pub blob: Option<Descriptor>,
    /// Bytes of the blob; without one, about those of its files.
    pub size: u64,
    /// About how many bytes its files take; for a compressed layer of unknown size, those of the blob.
    pub unpacked: u64,
}

/// An image for one platform, or an attestation about one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub platform: Platform,
    /// The digest of its configuration.
    pub config: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Its manifest's digest, if the store keeps blobs.
    pub manifest: Option<Digest>,
    /// Blobs that are not layers, such as those of an attestation.
    pub attached: Vec<Descriptor>,
}

/// An image at its source, with all parts of it that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Its ID there.
    pub id: Digest,
    /// The name and tag by which it was asked for; `None` if that was an ID or a digest.
    pub name: Option<String>,
    /// One for each platform that is there whole.
    pub variants: Vec<Variant>,
    /// Platforms that the image has, but that are not there.
    pub absent: Vec<Platform>,
    /// Manifests, indexes and configurations, if the store keeps blobs.
    pub documents: BTreeMap<Digest, Vec<u8>>,
    /// The index or manifest that its name leads to, if the store keeps blobs.
    pub root: Option<Descriptor>,
}

impl Store {
    /// The store of an engine with this description of itself.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn of(engine: &Engine, info: &SystemInfo) -> Result<Self> {
        Ok(if Self::is_containerd(info) {
            Self::Containerd(Box::new(Content::open(engine).await?))
        } else {
            Self::Classic
        })
    }

    /// Whether an engine with this description of itself has containerd's store.
    pub fn is_containerd(info: &SystemInfo) -> bool {
        let mut facts = info.driver_status.iter().flatten().flatten();
        facts.any(|word| word.starts_with("io.containerd.snapshotter"))
    }

    /// Lists what the store has.
    ///
    /// # Errors
    /// The engine's refusal or a broken connection.
    pub async fn inventory(&self, engine: &Engine) -> Result<Inventory> {
        match self {
            Self::Classic => Ok(Inventory::Classic(chains(engine).await?)),
            Self::Containerd(content) => {
                let blobs = content.list().await?;
                let by_diff_id = blobs
                    .iter()
                    .filter_map(|(digest, blob)| Some((blob.uncompressed.clone()?, digest.clone())))
                    .collect();
                Ok(Inventory::Containerd { blobs, by_diff_id })
            }
        }
    }

    /// Looks an image up, and checks that all its parts are there.
    ///
    /// # Errors
    /// No such image, with the nearest name; an image with missing parts; the engine's refusal.
    pub async fn image(&self, engine: &Engine, reference: &str) -> Result<StoredImage> {
        let inspected = match found(engine.docker().inspect_image(reference).await) {
            Ok(Some(inspected)) => inspected,
            Ok(None) => return Err(not_there(engine, reference).await?),
            Err(cause) => return Err(engine.error(reference, cause)),
        };
        let damaged = |what: &str| {
            Error::failed(format!(
                "the engine at {} gives {what} of {reference} that is not valid",
                engine.choice().endpoint
            ))
        };
        let id = Digest::parse(inspected.id.as_deref().unwrap_or_default())
            .map_err(|cause| damaged("an ID").because(cause))?;
        let full = canonical(reference);
        let tags = inspected.repo_tags.unwrap_or_default();
        let name = tags.into_iter().find(|tag| canonical(tag) == full);
        match self {
            Self::Classic => {
                let layers = inspected.root_fs.and_then(|root| root.layers).unwrap_or_default();
                let diff_ids = layers
                    .iter()
                    .map(|layer| Digest::parse(layer))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|cause| damaged("a layer").because(cause))?;
                let sizes = sizes(engine, reference, diff_ids.len()).await?;
                let layers = diff_ids.into_iter().zip(sizes).map(|(diff_id, size)| Layer {
                    diff_id,
                    blob: None,
                    size,
                    unpacked: size,
                });
                Ok(StoredImage {
                    variants: vec![Variant {
                        platform: Platform {
                            architecture: inspected.architecture.unwrap_or_default(),
                            os: inspected.os.unwrap_or_default(),
                            variant: inspected.variant.filter(|variant| !variant.is_empty()),
                        },
                        config: id.clone(),
                        layers: layers.collect(),
                        manifest: None,
                        attached: Vec::new(),
                    }],
                    absent: Vec::new(),
                    documents: BTreeMap::new(),
                    root: None,
                    id,
                    name,
                })
            }
            Self::Containerd(content) => {
                let mut reading = Reading {
                    content,
                    blobs: content.list().await?,
                    reference,
                    variants: Vec::new(),
                    absent: Vec::new(),
                    documents: BTreeMap::new(),
                };
                let root = reading.read(&id, None, 0).await?.ok_or_else(|| incomplete(reference))?;
                let mut variants = reading.variants;
                if variants.is_empty() {
                    return Err(incomplete(reference));
                }
                let layers = inspected.root_fs.and_then(|root| root.layers).unwrap_or_default();
                measure(engine, reference, &layers, &mut variants).await;
                Ok(StoredImage {
                    id,
                    name,
                    variants,
                    absent: reading.absent,
                    documents: reading.documents,
                    root: Some(root),
                })
            }
        }
    }
}

impl Inventory {
    /// Whether containerd's store has a blob.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        matches!(self, Self::Containerd { blobs, .. } if blobs.contains_key(digest))
    }

    /// How many layers of this chain, from the lowest, the classic store has.
    pub fn height(&self, diff_ids: &[Digest]) -> usize {
        let Self::Classic(chains) = self else { return 0 };
        let chain = chain_ids(diff_ids);
        // A chain that is there has all below it.
        chain
            .iter()
            .rposition(|chain| chains.contains(chain))
            .map_or(0, |top| top + 1)
    }

    /// The blob in which containerd's store has a layer: the very same blob, else another of the same tar.
    pub fn layer_blob(&self, layer: &Layer) -> Option<(Digest, u64)> {
        let Self::Containerd { blobs, by_diff_id } = self else {
            return None;
        };
        let own = layer.blob.as_ref().map(|blob| &blob.digest);
        let digests = own
            .into_iter()
            .chain([&layer.diff_id])
            .chain(by_diff_id.get(&layer.diff_id));
        digests
            .filter_map(|digest| Some((digest.clone(), blobs.get(digest)?.size)))
            .next()
    }
}

/// The media type of a layer's blob, by its first bytes: gzip, zstd, else a plain tar.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn layer_type(content: &Content, digest: &Digest) -> Result<String> {
    const MAGIC: usize = 4;
    let mut pieces = content.read(digest, Some(MAGIC as u64)).await?;
    let mut head = Vec::new();
    // The engine may send more than was asked for.
    while head.len() < MAGIC
        && let Some(piece) = pieces.next().await
    {
        head.extend_from_slice(&piece?);
    }
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => format!("{LAYER}+gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => format!("{LAYER}+zstd"),
        _ => LAYER.to_owned(),
    })
}

/// Gives an image a name; an image that had the name before loses it.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn tag(engine: &Engine, id: &Digest, name: &str) -> Result<()> {
    image::tag(engine, id.as_str(), name)
        .await
        .map_err(|cause| engine.error(name, cause))
}

/// [`tag`], if the image is still there; true if it was.
///
/// # Errors
/// As [`tag`].
pub async fn tag_if_there(engine: &Engine, id: &Digest, name: &str) -> Result<bool> {
    let named = found(image::tag(engine, id.as_str(), name).await);
    named
        .map(|named| named.is_some())
        .map_err(|cause| engine.error(id.short(), cause))
}

/// The chains of all images of a classic store, those without a name included.
async fn chains(engine: &Engine) -> Result<HashSet<Digest>> {
    let options = ListImagesOptionsBuilder::new().all(true).build();
    let images = engine
        .docker()
        .list_images(Some(options))
        .await
        .map_err(|cause| engine.error("its images", cause))?;
    // A parent, in a chain of build steps, has only layers that its child has, too.
    let parents: HashSet<&str> = images.iter().map(|image| image.parent_id.as_str()).collect();
    let tops = images.iter().filter(|image| !parents.contains(image.id.as_str()));
    let asked = tops.map(|image| async {
        match found(engine.docker().inspect_image(&image.id).await) {
            Ok(Some(inspected)) => Ok(inspected.root_fs.and_then(|root| root.layers).unwrap_or_default()),
            // It was removed meanwhile.
            Ok(None) => Ok(Vec::new()),
            Err(cause) => Err(engine.error(&image.id, cause)),
        }
    });
    let asked: Vec<_> = asked.collect();
    let mut layers = futures_util::stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut chains = HashSet::new();
    while let Some(layers) = layers.next().await {
        let diff_ids: Result<Vec<_>, _> = layers?.iter().map(|layer| Digest::parse(layer)).collect();
        chains.extend(diff_ids.map(|diff_ids| chain_ids(&diff_ids)).unwrap_or_default());
        if chains.len() > MOST_CHAINS {
            let at = &engine.choice().endpoint;
            return Err(Error::failed(format!(
                "the engine at {at} lists more layers than any store has"
            )));
        }
    }
    Ok(chains)
}

/// About how large each layer of a classic store is: the sum of its files.
async fn sizes(engine: &Engine, reference: &str, layers: usize) -> Result<Vec<u64>> {
    let history = engine
        .docker()
        .image_history(reference)
        .await
        .map_err(|cause| engine.error(reference, cause))?;
    // Newest first. Steps without a layer have size 0; so have some layers without files.
    let mut sizes: Vec<u64> = history
        .iter()
        .rev()
        .filter_map(|step| u64::try_from(step.size).ok())
        .filter(|size| *size > 0)
        .collect();
    if sizes.len() > layers {
        sizes.truncate(layers);
    }
    let empty = layers - sizes.len();
    // If it is unknown which layers are empty, the sum is right, and the first layers count as empty.
    sizes.extend(std::iter::repeat_n(0, empty));
    Ok(sizes)
}

/// Fills in the extracted size of the variant with these layers, which is the one that the engine would run.
async fn measure(engine: &Engine, reference: &str, diff_ids: &[String], variants: &mut [Variant]) {
    let same = |variant: &&mut Variant| {
        let own = variant.layers.iter().map(|layer| layer.diff_id.as_str());
        own.eq(diff_ids.iter().map(String::as_str))
    };
    // If nothing is extracted, the size is unknown.
    if let Some(variant) = variants.iter_mut().find(same)
        && let Ok(sizes) = sizes(engine, reference, diff_ids.len()).await
        && sizes.iter().any(|size| *size > 0)
    {
        for (layer, size) in variant.layers.iter_mut().zip(sizes) {
            layer.unpacked = size;
        }
    }
}

async fn not_there(engine: &Engine, reference: &str) -> Result<Error> {
    let options = ListImagesOptionsBuilder::new().build();
    let images = engine
        .docker()
        .list_images(Some(options))
        .await
        .map_err(|cause| engine.error("its images", cause))?;
    let names: Vec<&str> = images
        .iter()
        .flat_map(|image| &image.repo_tags)
        .map(String::as_str)
        .filter(|name| !name.contains('<'))
        .collect();
    let bare = names
        .iter()
        .map(|name| name.rsplit_once(':').map_or(*name, |(repository, _)| repository));
    let near = nearest(reference, names.iter().copied()).or_else(|| nearest(reference, bare));
    let error = Error::failed(format!(
        "there is no image {reference} on the engine at {}",
        engine.choice().endpoint
    ));
    Ok(error.hint(match near {
        Some(near) => hint!("is it {}?", near),
        None => "docker images lists the images".to_owned(),
    }))
}

fn incomplete(reference: &str) -> Error {
    Error::failed(format!("parts of {reference} are not on its engine"))
        .hint("pull or build it there again; what is left of it can be neither saved nor pushed")
}

/// Reads the documents of an image, and checks that the blobs are there.
struct Reading<'a> {
    content: &'a Content,
    blobs: HashMap<Digest, Blob>,
    reference: &'a str,
    variants: Vec<Variant>,
    absent: Vec<Platform>,
    documents: BTreeMap<Digest, Vec<u8>>,
}

impl Reading<'_> {
    /// Reads a manifest or an index and all below it; `None` where it is not there, or not whole.
    async fn read(&mut self, digest: &Digest, said: Option<&Descriptor>, depth: usize) -> Result<Option<Descriptor>> {
        let damaged = |what: &Digest| {
            let what = format!("the document {} of {}", what.short(), self.reference);
            move |cause| Error::failed(what).because(cause)
        };
        if self.documents.values().map(Vec::len).sum::<usize>() > LONGEST_DOCUMENTS {
            return Err(Error::failed(format!(
                "the documents of {} are larger than any image's",
                self.reference
            )));
        }
        let Some(text) = self.content.document(digest, LONGEST_DOCUMENT).await? else {
            return Ok(None);
        };
        let document = Document::parse(&text).map_err(damaged(digest))?;
        let media_type = media_type(&text, &document);
        match document {
            Document::Index(parts) => {
                if depth == DEEPEST_INDEX {
                    return Err(Error::failed(format!(
                        "{} has an index in an index in an index",
                        self.reference
                    )));
                }
                for part in &parts {
                    // Recursion of async functions needs a box.
                    let read = Box::pin(self.read(&part.digest, Some(part), depth + 1)).await?;
                    if read.is_none()
                        && let Some(platform) = &part.platform
                        && platform.os != "unknown"
                    {
                        self.absent.push(platform.clone());
                    }
                }
            }
            Document::Manifest { config, layers } => {
                let Some(config_text) = self.content.document(&config.digest, LONGEST_DOCUMENT).await? else {
                    return Ok(None);
                };
                if layers.iter().any(|layer| !self.blobs.contains_key(&layer.digest)) {
                    return Ok(None);
                }
                let is_image = layers.iter().all(Descriptor::is_layer)
                    && said
                        .and_then(|said| said.platform.as_ref())
                        .is_none_or(|platform| platform.os != "unknown");
                let read = ImageConfig::parse(&config_text);
                let (layers, attached, platform) = if is_image {
                    let read = read.map_err(damaged(&config.digest))?;
                    if read.diff_ids.len() != layers.len() {
                        let cause = super::manifest::ManifestError::Layers {
                            layers: layers.len(),
                            diff_ids: read.diff_ids.len(),
                        };
                        return Err(damaged(digest)(cause));
                    }
                    let layers = layers.into_iter().zip(read.diff_ids).map(|(blob, diff_id)| Layer {
                        diff_id,
                        size: blob.size,
                        unpacked: blob.size,
                        blob: Some(blob),
                    });
                    (layers.collect(), Vec::new(), read.platform)
                } else {
                    (Vec::new(), layers, Platform::default())
                };
                self.variants.push(Variant {
                    platform,
                    config: config.digest.clone(),
                    layers,
                    manifest: Some(digest.clone()),
                    attached,
                });
                self.documents.insert(config.digest, config_text);
            }
        }
        let descriptor = Descriptor {
            platform: said.and_then(|said| said.platform.clone()),
            annotations: said.map(|said| said.annotations.clone()).unwrap_or_default(),
            ..Descriptor::of(&media_type, &text)
        };
        self.documents.insert(digest.clone(), text);
        Ok(Some(descriptor))
    }
}

/// The media type that a document names, else the one that its fields show.
fn media_type(text: &[u8], document: &Document) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct TypedDocument {
        media_type: String,
    }
    match serde_json::from_slice::<TypedDocument>(text) {
        Ok(said) if !said.media_type.is_empty() => said.media_type,
        _ => match document {
            Document::Index(_) => super::manifest::INDEX.to_owned(),
            Document::Manifest { .. } => super::manifest::MANIFEST.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn layer(blob: Option<&str>) -> Layer {
        Layer {
            diff_id: digest("diff"),
            blob: blob.map(|text| Descriptor::of(LAYER, text.as_bytes())),
            size: 1,
            unpacked: 1,
        }
    }

    #[test]
    fn a_chain_is_as_high_as_the_store_has_it() {
        let diff_ids = [digest("a"), digest("b"), digest("c")];
        let chain = chain_ids(&diff_ids);
        let has = |chains: &[&Digest]| Inventory::Classic(chains.iter().map(|chain| (*chain).clone()).collect());
        assert_eq!(has(&[]).height(&diff_ids), 0);
        assert_eq!(has(&[&chain[0], &chain[1]]).height(&diff_ids), 2);
        // The same layer on another one is another chain.
        assert_eq!(has(&[&digest("b"), &digest("c")]).height(&diff_ids), 0);
    }

    #[test]
    fn a_layer_is_there_only_as_a_blob() {
        let blob = |uncompressed: Option<&str>| Blob {
            size: 9,
            uncompressed: uncompressed.map(digest),
        };
        let inventory = |blobs: Vec<(Digest, Blob)>| Inventory::Containerd {
            by_diff_id: blobs
                .iter()
                .filter_map(|(digest, blob)| Some((blob.uncompressed.clone()?, digest.clone())))
                .collect(),
            blobs: blobs.into_iter().collect(),
        };
        let found = |inventory: Inventory, layer: &Layer| inventory.layer_blob(layer).map(|(digest, _)| digest);
        assert_eq!(found(inventory(vec![]), &layer(Some("gz"))), None);
        let both = vec![(digest("gz"), blob(Some("diff"))), (digest("diff"), blob(None))];
        assert_eq!(found(inventory(both.clone()), &layer(Some("gz"))), Some(digest("gz")));
        assert_eq!(found(inventory(both), &layer(None)), Some(digest("diff")));
        let other = vec![(digest("other gz"), blob(Some("diff")))];
        assert_eq!(found(inventory(other), &layer(Some("gz"))), Some(digest("other gz")));
        let chains = Inventory::Classic([digest("diff")].into());
        assert_eq!(chains.layer_blob(&layer(None)), None);
    }
}
