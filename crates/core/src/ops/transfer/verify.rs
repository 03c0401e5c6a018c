//! What is at the destination: the image, whole or not, and the unnamed images that keep its layers until it is.

use std::collections::HashMap;

use bollard::models::ImageSummary;
use bollard::query_parameters::{ListImagesOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::config_of;
use super::manifests::{HOST_LABEL, ID_LABEL, MACHINE_LABEL, Manifests, PARTIAL_LABEL, USER_LABEL};
use super::plan::Plan;
use super::send::{ConnectedEndpoint, Shipment};
use crate::docker::connect::engine::{Engine, found};
use crate::docker::images::image;
use crate::docker::images::image_store::{self, Inventory, Store, StoredImage};
use crate::docker::images::manifest::Digest;
use crate::error::{Error, Result};

/// The name that images have while they are removed: of no registry that there could be.
const REMOVING: &str = "io.dockerutils.transfer/removing";
/// Images that are removed at a time: on a far link, each takes its time.
const REMOVED_AT_ONCE: usize = 4;

/// The ID under which the image is at the destination already, whole.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn present(
    image: &StoredImage,
    plan: &Plan,
    dest: &ConnectedEndpoint,
    inventory: &Inventory,
) -> Result<Option<Digest>> {
    if plan.sent > 0 {
        return Ok(None);
    }
    let id = match inventory {
        Inventory::Classic(_) => config_of(image, plan),
        Inventory::Containerd { .. } if image.root.is_some() && inventory.has_blob(&image.id) => image.id.clone(),
        // By another manifest, of the same configurations: its name leads there.
        Inventory::Containerd { .. } => match &image.name {
            Some(name) => match image::find(&dest.engine, name)
                .await?
                .map(|facts| Digest::parse(&facts.id))
            {
                Some(Ok(id)) => id,
                _ => return Ok(None),
            },
            None => return Ok(None),
        },
    };
    if image::find(&dest.engine, id.as_str())
        .await?
        .is_none_or(|facts| facts.id != id.as_str())
    {
        return Ok(None);
    }
    // One that is not whole is no error here: it is made whole.
    let Ok(there) = dest.store.image(&dest.engine, id.as_str()).await else {
        return Ok(None);
    };
    let whole = plan.variants.iter().all(|variant| {
        let same = |other: &image_store::Variant| {
            other.config == variant.config
                && other.attached == variant.attached
                && other.layers.len() == variant.layers.len()
        };
        there.variants.iter().any(same)
    });
    Ok(whole.then_some(id))
}

/// Looks whether all of the image is at the destination, as it was at its source.
///
/// # Errors
/// What is missing or another, a refusal, or a broken connection.
pub async fn verify(shipment: &Shipment, documents: &Manifests) -> Result<()> {
    let engine = &shipment.dest.engine;
    let at = &engine.choice().endpoint;
    let broken = |what: String| Error::failed(format!("the image did not arrive whole at {at}: {what}"));
    let inspected = match found(engine.docker().inspect_image(documents.id.as_str()).await) {
        Ok(Some(inspected)) => inspected,
        Ok(None) => return Err(broken("it is not there".to_owned())),
        Err(cause) => return Err(engine.error(documents.id.short(), cause)),
    };
    if inspected.id.as_deref() != Some(documents.id.as_str()) {
        return Err(broken(format!("it is not {}", documents.id.short())));
    }
    match &shipment.dest.store {
        Store::Classic => {
            let layers = inspected.root_fs.and_then(|root| root.layers).unwrap_or_default();
            let sent = shipment.plan.variants.first();
            let same = sent.is_some_and(|sent| {
                sent.config == documents.id
                    && layers
                        .iter()
                        .map(String::as_str)
                        .eq(sent.layers.iter().map(|layer| layer.diff_id.as_str()))
            });
            if !same {
                return Err(broken("it has other layers".to_owned()));
            }
        }
        Store::Containerd(content) => {
            let blobs = content.list().await?;
            for (digest, size) in &documents.blobs {
                if blobs.get(digest).is_none_or(|blob| blob.size != *size) {
                    return Err(broken(format!("the blob {} is missing", digest.short())));
                }
            }
            let configs = shipment.plan.variants.iter().map(|variant| &variant.config);
            for config in configs {
                if !documents.blobs.contains_key(config) {
                    return Err(broken(format!("the configuration {} is another", config.short())));
                }
            }
        }
    }
    Ok(())
}

/// An unnamed image that keeps layers of a transfer until all have arrived. What it says is another machine's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialImage {
    pub id: Digest,
    /// The ID of the image that the layers are of.
    pub image: String,
    /// Whose transfer it is.
    pub user: Option<String>,
    /// The ID of the machine that the transfer runs on.
    pub machine: Option<String>,
    /// That machine's name.
    pub host: Option<String>,
    /// The transfer's ID.
    pub transfer: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// The unnamed images that keep layers, by a label.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn partial_images(engine: &Engine, label: &str) -> Result<Vec<PartialImage>> {
    let filters = HashMap::from([("label", vec![PARTIAL_LABEL, label])]);
    let images = list(engine, &filters).await?;
    // One that somebody named is no more ours.
    let unnamed = images.into_iter().filter(is_unnamed);
    Ok(unnamed.filter_map(partial_image).collect())
}

/// The images that somebody is about to remove, or was.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn half_removed(engine: &Engine) -> Result<Vec<Digest>> {
    let filters = HashMap::from([("reference", vec![REMOVING])]);
    let images = list(engine, &filters).await?;
    let unnamed = images.iter().filter(|image| is_unnamed(image));
    Ok(unnamed.filter_map(|image| Digest::parse(&image.id).ok()).collect())
}

async fn list(engine: &Engine, filters: &HashMap<&str, Vec<&str>>) -> Result<Vec<ImageSummary>> {
    let options = ListImagesOptionsBuilder::new().all(true).filters(filters).build();
    let images = engine.docker().list_images(Some(options)).await;
    images.map_err(|cause| engine.error("its images", cause))
}

/// Whether nobody gave an image a name but the one by which we remove it.
fn is_unnamed(image: &ImageSummary) -> bool {
    let ours = Digest::parse(&image.id).ok().map(|id| name_to_remove(&id));
    image
        .repo_tags
        .iter()
        .all(|tag| tag == "<none>:<none>" || ours.as_ref() == Some(tag))
}

fn partial_image(mut image: ImageSummary) -> Option<PartialImage> {
    let mut label = |name: &str| image.labels.remove(name);
    Some(PartialImage {
        image: label(PARTIAL_LABEL)?,
        user: label(USER_LABEL),
        machine: label(MACHINE_LABEL),
        host: label(HOST_LABEL),
        transfer: label(ID_LABEL),
        created: image.created,
        id: Digest::parse(&image.id).ok()?,
    })
}

/// The name of an image while it is removed.
fn name_to_remove(image: &Digest) -> String {
    format!("{REMOVING}:{}", image.hex())
}

/// Removes images that have no name, and nothing that they were made from. One that is not there, and one that somebody
/// names meanwhile, is no failure.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn remove<'a>(engine: &Engine, images: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
    let removed: Vec<_> = images.into_iter().map(|image| remove_one(engine, image)).collect();
    futures_util::stream::iter(removed)
        .buffered(REMOVED_AT_ONCE)
        .try_collect()
        .await
}

/// An engine that is told to remove an image by its ID takes the name away, too, that it may just have been given. By a name
/// that is ours alone, it takes no other.
async fn remove_one(engine: &Engine, image: &Digest) -> Result<()> {
    let name = name_to_remove(image);
    if !image_store::tag_if_there(engine, image, &name).await? {
        return Ok(());
    }
    // The layers of the longest chain are the others', too.
    let options = RemoveImageOptionsBuilder::new().noprune(true).build();
    match found(engine.docker().remove_image(&name, Some(options), None).await) {
        Ok(_) => Ok(()),
        Err(cause) => Err(engine.error(image.short(), cause)),
    }
}

/// Removes an image unless somebody gave it a name.
///
/// # Errors
/// A refusal or a broken connection.
pub async fn remove_unnamed(engine: &Engine, image: &Digest) -> Result<()> {
    let inspected = engine.docker().inspect_image(image.as_str()).await;
    let named = inspected.is_ok_and(|inspected| inspected.repo_tags.is_some_and(|tags| !tags.is_empty()));
    match named {
        true => Ok(()),
        false => remove(engine, [image]).await,
    }
}
