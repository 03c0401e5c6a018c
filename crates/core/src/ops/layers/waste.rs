//! What of each layer is in vain: replayed layer by layer, as a union file system shows them.

use std::collections::BTreeMap;

use crate::docker::images::image_archive::LayerChange;
use crate::ops::caches::{self, Cache};

/// Names of a path by which waste is grouped.
const GROUP: usize = 3;

/// A layer's size, and what of it is in vain.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Weighed {
    /// Bytes of its files.
    pub(super) size: u64,
    /// Largest first.
    pub(super) wasted: Vec<Waste>,
}

/// Files of a layer that nobody misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waste {
    /// The directory or file, without a slash before it.
    pub(super) path: Vec<u8>,
    /// In bytes.
    pub(super) size: u64,
    pub(super) cause: WasteCause,
}

/// Why it is in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WasteCause {
    /// This layer deletes it.
    Deleted(usize),
    /// This layer has it again, changed in content or in attributes only.
    Replaced(usize),
    /// It is a cache, and still there at the end.
    Kept,
}

impl Waste {
    /// The cache that it is of, if it is of one.
    pub(super) fn cache(&self) -> Option<&'static Cache> {
        caches::cache_of(&self.path)
    }
}

/// A file that the layers so far show.
struct VisibleFile {
    layer: usize,
    size: u64,
}

/// Weighs the layers, lowest first.
pub(super) fn weigh(layers: &[Vec<LayerChange>]) -> Vec<Weighed> {
    let mut shown: BTreeMap<Vec<u8>, VisibleFile> = BTreeMap::new();
    // By the layer that has it, why it is in vain, and where.
    let mut wasted: BTreeMap<(usize, WasteCause, Vec<u8>), u64> = BTreeMap::new();
    let mut waste = |file: &VisibleFile, cause: WasteCause, path: &[u8]| {
        if file.size > 0 {
            let sum = wasted.entry((file.layer, cause, group(path))).or_default();
            *sum = u64::saturating_add(*sum, file.size);
        }
    };
    let mut sizes = vec![0; layers.len()];
    for (number, changes) in layers.iter().enumerate() {
        // A layer's deletions are of what lies below it, wherever in the layer they stand.
        for change in changes {
            let (path, itself) = match change {
                LayerChange::Deleted(path) => (path, true),
                LayerChange::Emptied(path) => (path, false),
                LayerChange::File(..) | LayerChange::Directory(_) => continue,
            };
            if itself && let Some(file) = shown.remove(path) {
                waste(&file, WasteCause::Deleted(number), path);
            }
            for (path, file) in take_below(&mut shown, path) {
                waste(&file, WasteCause::Deleted(number), &path);
            }
        }
        for change in changes {
            match change {
                LayerChange::File(path, size) => {
                    if let Some(file) = shown.remove(path)
                        && file.layer < number
                    {
                        waste(&file, WasteCause::Replaced(number), path);
                    }
                    // It may stand where a directory was.
                    for (path, file) in take_below(&mut shown, path) {
                        waste(&file, WasteCause::Deleted(number), &path);
                    }
                    if let Some(sum) = sizes.get_mut(number) {
                        *sum = u64::saturating_add(*sum, *size);
                    }
                    let file = VisibleFile {
                        layer: number,
                        size: *size,
                    };
                    shown.insert(path.clone(), file);
                }
                LayerChange::Directory(path) => {
                    if let Some(file) = shown.remove(path) {
                        waste(&file, WasteCause::Deleted(number), path);
                    }
                }
                LayerChange::Deleted(_) | LayerChange::Emptied(_) => {}
            }
        }
    }
    for (path, file) in &shown {
        if let Some(depth) = caches::cache_depth(path) {
            let directory = first_names(path, depth);
            let sum = wasted.entry((file.layer, WasteCause::Kept, directory)).or_default();
            *sum = u64::saturating_add(*sum, file.size);
        }
    }
    let mut weighed: Vec<Weighed> = sizes
        .into_iter()
        .map(|size| Weighed {
            size,
            wasted: Vec::new(),
        })
        .collect();
    for ((layer, cause, path), size) in wasted {
        if let Some(layer) = weighed.get_mut(layer) {
            layer.wasted.push(Waste { path, size, cause });
        }
    }
    for layer in &mut weighed {
        layer.wasted.sort_by_key(|waste| std::cmp::Reverse(waste.size));
    }
    weighed
}

/// Takes out what lies in a directory; all, for the root.
fn take_below(shown: &mut BTreeMap<Vec<u8>, VisibleFile>, directory: &[u8]) -> Vec<(Vec<u8>, VisibleFile)> {
    if directory.is_empty() {
        return std::mem::take(shown).into_iter().collect();
    }
    let prefix = [directory, b"/"].concat();
    let paths: Vec<Vec<u8>> = shown
        .range(prefix.clone()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(&prefix))
        .cloned()
        .collect();
    paths.into_iter().filter_map(|path| shown.remove_entry(&path)).collect()
}

/// Where waste at this path is added up: the cache that it is of, else the first directories.
fn group(path: &[u8]) -> Vec<u8> {
    let depth = caches::cache_depth(path).unwrap_or_else(|| {
        let names = path.split(|byte| *byte == b'/').count();
        // A file is named only where it lies right here.
        if names <= GROUP { names } else { GROUP }
    });
    first_names(path, depth)
}

fn first_names(path: &[u8], names: usize) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').take(names).collect();
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> LayerChange {
        LayerChange::File(path.as_bytes().to_vec(), size)
    }

    fn waste(path: &str, size: u64, cause: WasteCause) -> Waste {
        Waste {
            path: path.as_bytes().to_vec(),
            size,
            cause,
        }
    }

    #[test]
    fn what_later_layers_delete_or_replace_is_in_vain() {
        let layers = [
            vec![
                file("usr/lib/a/x/1", 10),
                file("usr/lib/a/2", 20),
                file("etc/p", 1),
                file("data/big", 100),
            ],
            vec![file("etc/p", 2), LayerChange::Deleted(b"usr/lib/a".to_vec())],
            vec![LayerChange::Emptied(b"data".to_vec()), file("data/new", 5)],
        ];
        let weighed = weigh(&layers);
        assert_eq!(weighed.iter().map(|layer| layer.size).collect::<Vec<_>>(), [131, 2, 5]);
        assert_eq!(
            weighed[0].wasted,
            [
                waste("data/big", 100, WasteCause::Deleted(2)),
                waste("usr/lib/a", 30, WasteCause::Deleted(1)),
                waste("etc/p", 1, WasteCause::Replaced(1)),
            ]
        );
        assert!(weighed[1].wasted.is_empty() && weighed[2].wasted.is_empty());
    }

    #[test]
    fn what_a_layer_deletes_it_may_write_anew() {
        let layers = [
            vec![file("a/b", 10)],
            vec![file("a/c", 3), LayerChange::Deleted(b"a".to_vec())],
            vec![file("a", 1)],
        ];
        let weighed = weigh(&layers);
        assert_eq!(weighed[0].wasted, [waste("a/b", 10, WasteCause::Deleted(1))]);
        assert_eq!(weighed[1].wasted, [waste("a/c", 3, WasteCause::Deleted(2))]);
    }

    #[test]
    fn caches_that_stay_are_in_vain() {
        let layers = [vec![
            file("var/lib/apt/lists/deb_main", 40),
            file("var/lib/apt/lists/aux/x", 2),
            file("home/ann/.cache/pip/http/a", 7),
            file("srv/app/.git/objects/1", 9),
            file("var/lib/dpkg/status", 100),
        ]];
        assert_eq!(
            weigh(&layers)[0].wasted,
            [
                waste("var/lib/apt/lists", 42, WasteCause::Kept),
                waste("srv/app/.git", 9, WasteCause::Kept),
                waste("home/ann/.cache/pip", 7, WasteCause::Kept),
            ]
        );
    }

    #[test]
    fn the_sum_of_what_is_wasted_is_at_most_the_layer() {
        let layers = [
            vec![file("a", 5)],
            vec![file("a", 5)],
            vec![LayerChange::Deleted(b"a".to_vec())],
        ];
        for layer in weigh(&layers) {
            assert!(layer.wasted.iter().map(|waste| waste.size).sum::<u64>() <= layer.size);
        }
    }
}
