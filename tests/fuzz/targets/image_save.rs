//! Any bytes are read as what `docker save` streams, or refused: a layer that is handed on has just the bytes that were said,
//! and all that was wanted is handed on where it is said so.

use std::collections::BTreeSet;

use dockerutils_core::docker::images::image_save::{self, LayerPaths, Pass, SavedPart};
use dockerutils_core::docker::images::manifest::Digest;

pub(crate) fn fuzz(bytes: &[u8]) {
    let id = Digest::of(b"id");
    let layers = [Digest::of(b"low"), Digest::of(b"middle"), Digest::of(b"top")];
    let names = LayerPaths::of(&id, &layers);
    for names in [names.certain(), names] {
        let wanted = layers[1..].to_vec();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1024);
        let archive = bytes.to_vec();
        let all = layers.to_vec();
        let reading = std::thread::spawn(move || image_save::read(&archive[..], &names, &all, &wanted, &sender));
        let mut seen = BTreeSet::new();
        let mut left = 0;
        while let Some(found) = receiver.blocking_recv() {
            match found {
                SavedPart::Layer(digest, size) => {
                    assert_eq!(left, 0);
                    assert!(layers[1..].contains(&digest) && seen.insert(digest));
                    left = size;
                }
                SavedPart::Data(data) => left -= data.len() as u64,
                SavedPart::End => assert_eq!(left, 0),
                SavedPart::Config(_) => {}
            }
        }
        if let Ok(Pass::Whole) = reading.join().expect("it does not panic") {
            assert_eq!(seen.len(), 2);
        }
    }
}
