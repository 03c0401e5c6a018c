//! What a transfer is about to send: which layers, in which archives. A value, made of what both stores have.

use std::collections::HashSet;

use crate::docker::images::image_store::{Inventory, Layer, StoredImage, Variant};
use crate::docker::images::manifest::{Digest, Platform};

/// Layers travel together until they are so large: what is sent once more after a cut.
const TOGETHER: u64 = 4 << 20;
/// Archives that are open at a time, where layers come in an order that is not ours.
const MOST_OPEN: u64 = 6;

/// What is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What of the image goes.
    pub variants: Vec<Variant>,
    /// Archives in the order in which they are loaded; the last one completes the image.
    pub archives: Vec<Archive>,
    /// Layers that are sent.
    pub sent: usize,
    /// Layers that are there.
    pub skipped: usize,
    /// Bytes of the layers that are sent, before they are packed for the link.
    pub bytes: u64,
    /// Whether that is their files' size only, which is a little less.
    pub about: bool,
    /// The room that they take at the destination.
    pub room: DiskSpace,
}

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// So much is used at some time, whatever the engine does.
    pub least: u64,
    /// So much may be used, where the engine unpacks nothing before all has come.
    pub most: u64,
}

/// One load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// The variant that it is of: an index of [`Plan::variants`].
    pub variant: usize,
    /// Those of its layers that are in the archive: indices of [`Variant::layers`].
    pub layers: Vec<usize>,
    /// How many of its layers are there after it.
    pub end: usize,
}

impl Plan {
    /// Plans for a store. `target` is what the engine there runs: the classic store takes one variant only, that one where
    /// there is a choice.
    pub fn new(image: &StoredImage, inventory: &Inventory, target: &Platform) -> Self {
        let classic = matches!(inventory, Inventory::Classic(_));
        let variants = match classic {
            true => chosen(image, target).into_iter().cloned().collect(),
            false => image.variants.clone(),
        };
        let mut distinct = HashSet::new();
        let mut sending: HashSet<&Digest> = HashSet::new();
        let mut missing: Vec<(usize, usize)> = Vec::new();
        let (mut sent, mut bytes) = (0, 0_u64);
        for (number, variant) in variants.iter().enumerate() {
            let diff_ids: Vec<Digest> = variant.layers.iter().map(|layer| layer.diff_id.clone()).collect();
            let height = inventory.height(&diff_ids);
            for (at, layer) in variant.layers.iter().enumerate() {
                distinct.insert(&layer.diff_id);
                let there = match classic {
                    true => at < height,
                    false => inventory.layer_blob(layer).is_some(),
                };
                if there {
                    continue;
                }
                let first = sending.insert(&layer.diff_id);
                if first {
                    sent += 1;
                    // Sizes are what an engine says.
                    bytes = bytes.saturating_add(layer.size);
                }
                // On another chain, the classic store wants the file once more.
                if first || classic {
                    missing.push((number, at));
                }
            }
        }
        let skipped = distinct.len() - sent;
        let ordered = image.root.is_some();
        let together = if ordered {
            TOGETHER
        } else {
            TOGETHER.max(bytes / MOST_OPEN)
        };
        let archives = archives(&variants, &missing, together);
        // Of several platforms, the engine unpacks its own.
        let own = chosen(image, target).map(|variant| &variant.config);
        let room = room(classic, &variants, &archives, own);
        Self {
            room,
            sent,
            skipped,
            bytes,
            about: !ordered,
            archives,
            variants,
        }
    }

    /// Whether an archive is the one that completes the image.
    pub fn is_last(&self, archive: usize) -> bool {
        archive + 1 == self.archives.len()
    }

    /// The layers of an archive.
    pub fn layers<'a>(&'a self, archive: &'a Archive) -> impl Iterator<Item = (usize, &'a Layer)> {
        let variant = self.variants.get(archive.variant);
        archive
            .layers
            .iter()
            .filter_map(move |at| Some((*at, variant?.layers.get(*at)?)))
    }

    /// The digests of all layers that are sent, each once.
    pub fn wanted(&self) -> Vec<Digest> {
        let mut seen = HashSet::new();
        self.archives
            .iter()
            .flat_map(|archive| self.layers(archive))
            .map(|(_, layer)| layer.diff_id.clone())
            .filter(|digest| seen.insert(digest.clone()))
            .collect()
    }
}

/// The variant for this platform; the first image where there is none.
pub fn chosen<'a>(image: &'a StoredImage, target: &Platform) -> Option<&'a Variant> {
    let images = || image.variants.iter().filter(|variant| !variant.platform.os.is_empty());
    images()
        .find(|variant| variant.platform.os == target.os && variant.platform.architecture == target.architecture)
        .or_else(|| images().next())
        .or_else(|| image.variants.first())
}

/// The room for what is sent: the layers as they come, and their files. The classic store has an archive's layers as they
/// come until it has unpacked them; containerd's store keeps both.
fn room(classic: bool, variants: &[Variant], archives: &[Archive], own: Option<&Digest>) -> DiskSpace {
    let (mut coming, mut files, mut least) = (0_u64, 0_u64, 0_u64);
    for archive in archives {
        let Some(variant) = variants.get(archive.variant) else {
            continue;
        };
        let (mut packed, mut seen) = (0_u64, HashSet::new());
        for layer in archive.layers.iter().filter_map(|at| variant.layers.get(*at)) {
            let unpacks = classic || Some(&variant.config) == own;
            if unpacks {
                files = files.saturating_add(layer.unpacked);
            }
            // Twice in an image, once in an archive.
            if seen.insert(&layer.diff_id) {
                packed = packed.saturating_add(layer.size);
            }
        }
        coming = coming.saturating_add(packed);
        let now = if classic { packed } else { coming };
        least = least.max(files.saturating_add(now));
    }
    DiskSpace {
        least,
        most: files.saturating_add(coming),
    }
}

fn archives(variants: &[Variant], missing: &[(usize, usize)], together: u64) -> Vec<Archive> {
    let mut archives: Vec<Archive> = Vec::new();
    let mut size = 0_u64;
    for (variant, at) in missing {
        let layer = variants.get(*variant).and_then(|variant| variant.layers.get(*at));
        let layer_size = layer.map_or(0, |layer| layer.size);
        match archives.last_mut() {
            Some(open) if open.variant == *variant && size < together => {
                // A layer twice in one archive is one file.
                open.layers.push(*at);
                open.end = at + 1;
                size = size.saturating_add(layer_size);
            }
            _ => {
                archives.push(Archive {
                    variant: *variant,
                    layers: vec![*at],
                    end: at + 1,
                });
                size = layer_size;
            }
        }
    }
    // What is there above the last missing layer comes with it.
    for archive in &mut archives {
        let layers = variants.get(archive.variant).map_or(0, |variant| variant.layers.len());
        let next = missing
            .iter()
            .find(|(variant, at)| *variant == archive.variant && *at >= archive.end)
            .map_or(layers, |(_, at)| *at);
        archive.end = next;
    }
    if archives.is_empty() {
        archives.push(Archive {
            variant: 0,
            layers: Vec::new(),
            end: variants.first().map_or(0, |variant| variant.layers.len()),
        });
    }
    archives
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::images::content_store::Blob;
    use crate::docker::images::manifest::{Descriptor, LAYER, chain_ids};

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn image(blobs: bool, variants: &[(&str, &[(&str, u64)])]) -> StoredImage {
        let variant = |(architecture, layers): &(&str, &[(&str, u64)])| Variant {
            platform: Platform {
                architecture: (*architecture).to_owned(),
                os: "linux".to_owned(),
                variant: None,
            },
            config: digest(architecture),
            layers: layers
                .iter()
                .map(|(name, size)| Layer {
                    diff_id: digest(name),
                    blob: blobs.then(|| Descriptor::of(LAYER, format!("{name}.gz").as_bytes())),
                    size: *size,
                    unpacked: size * if blobs { 3 } else { 1 },
                })
                .collect(),
            manifest: None,
            attached: Vec::new(),
        };
        StoredImage {
            id: digest("image"),
            name: None,
            variants: variants.iter().map(variant).collect(),
            absent: Vec::new(),
            documents: Default::default(),
            root: blobs.then(|| Descriptor::of(LAYER, b"")),
        }
    }

    fn amd64() -> Platform {
        Platform {
            architecture: "amd64".into(),
            os: "linux".into(),
            variant: None,
        }
    }

    fn blobs(digests: &[&str]) -> Inventory {
        let blob = |name: &&str| {
            let blob = Blob {
                size: 1,
                uncompressed: None,
            };
            (digest(name), blob)
        };
        Inventory::Containerd {
            blobs: digests.iter().map(blob).collect(),
            by_diff_id: Default::default(),
        }
    }

    const MB: u64 = 1 << 20;

    #[test]
    fn the_classic_store_gets_what_is_above_its_chain() {
        let image = image(
            false,
            &[("amd64", &[("a", 50 * MB), ("b", 10), ("c", 20 * MB), ("d", 1)])],
        );
        let chain = chain_ids(&[digest("a"), digest("b")]);
        let plan = Plan::new(&image, &Inventory::Classic(chain.into_iter().collect()), &amd64());
        assert_eq!(
            (plan.sent, plan.skipped, plan.bytes, plan.about),
            (2, 2, 20 * MB + 1, true)
        );
        let ends: Vec<_> = plan
            .archives
            .iter()
            .map(|archive| (archive.layers.clone(), archive.end))
            .collect();
        assert_eq!(ends, [(vec![2], 3), (vec![3], 4)]);
        assert!(plan.is_last(1) && !plan.is_last(0));
        // A layer that is there on another chain is none of this one.
        let other = Inventory::Classic([digest("c")].into());
        assert_eq!(Plan::new(&image, &other, &amd64()).sent, 4);
    }

    #[test]
    fn small_layers_travel_together_and_a_repeated_one_once() {
        let layers = [("a", 1), ("empty", 0), ("b", 2), ("empty", 0), ("c", 9 * MB), ("d", 1)];
        let plan = Plan::new(
            &image(false, &[("amd64", &layers)]),
            &Inventory::Classic(HashSet::new()),
            &amd64(),
        );
        let ends: Vec<_> = plan
            .archives
            .iter()
            .map(|archive| (archive.layers.clone(), archive.end))
            .collect();
        assert_eq!(ends, [(vec![0, 1, 2, 3, 4], 5), (vec![5], 6)]);
        assert_eq!((plan.sent, plan.wanted().len()), (5, 5));
    }

    #[test]
    fn containerd_gets_the_blobs_that_it_lacks_wherever_they_are() {
        let image = image(
            true,
            &[
                ("amd64", &[("a", 5), ("b", 6), ("c", 7)]),
                ("arm64", &[("a", 5), ("x", 8)]),
            ],
        );
        let plan = Plan::new(&image, &blobs(&["a.gz", "c"]), &amd64());
        assert_eq!((plan.sent, plan.skipped, plan.bytes), (2, 2, 14));
        let ends: Vec<_> = plan
            .archives
            .iter()
            .map(|archive| (archive.variant, archive.layers.clone(), archive.end))
            .collect();
        assert_eq!(ends, [(0, vec![1], 3), (1, vec![1], 2)]);
    }

    #[test]
    fn with_nothing_to_send_one_archive_completes_the_image() {
        let image = image(true, &[("amd64", &[("a", 5)])]);
        let plan = Plan::new(&image, &blobs(&["a"]), &amd64());
        assert_eq!((plan.sent, plan.skipped), (0, 1));
        assert_eq!(
            plan.archives,
            [Archive {
                variant: 0,
                layers: vec![],
                end: 1
            }]
        );
    }

    #[test]
    fn room_is_needed_for_what_comes_and_for_what_it_is_unpacked_to() {
        let layers = [("a", 50 * MB), ("b", 20 * MB), ("c", MB)];
        let room = |image: &StoredImage, inventory: &Inventory| {
            let room = Plan::new(image, inventory, &amd64()).room;
            (room.least / MB, room.most / MB)
        };
        let classic = || Inventory::Classic(HashSet::new());
        // One archive after the other: 50 and 50; 50, 20 and 20; 50, 20, 1 and 1.
        let saved = image(false, &[("amd64", &layers)]);
        assert_eq!(room(&saved, &classic()), (100, 142));
        assert_eq!(room(&saved, &blobs(&[])), (142, 142));
        // Packed to a third.
        let packed = image(true, &[("amd64", &layers), ("arm64", &[("x", 10 * MB)])]);
        assert_eq!(room(&packed, &classic()), (230, 284));
        assert_eq!(room(&packed, &blobs(&[])), (294, 294));
        assert_eq!(room(&packed, &blobs(&["a.gz", "b.gz", "c.gz", "x.gz"])), (0, 0));
    }

    #[test]
    fn sizes_that_no_layer_has_are_planned_without_harm() {
        let layers = [("a", u64::MAX / 3), ("b", u64::MAX / 3), ("c", u64::MAX / 3), ("d", 9)];
        for (is_blobs, inventory) in [(false, Inventory::Classic(HashSet::new())), (true, blobs(&[]))] {
            let plan = Plan::new(&image(is_blobs, &[("amd64", &layers)]), &inventory, &amd64());
            assert_eq!((plan.bytes, plan.room.most), (u64::MAX, u64::MAX));
        }
    }

    #[test]
    fn of_several_platforms_the_classic_store_gets_its_own() {
        let image = image(true, &[("arm64", &[("x", 8)]), ("amd64", &[("a", 5)])]);
        let plan = Plan::new(&image, &Inventory::Classic(HashSet::new()), &amd64());
        assert_eq!(plan.variants.len(), 1);
        assert_eq!(plan.variants[0].platform, amd64());
    }
}
