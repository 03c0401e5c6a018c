//! What a dock sends in place of the files that were asked for: nothing panics, and nothing appears but in the stage.

use std::collections::HashMap;

use dockerutils_core::output::progress::bars::Bars;
use dockerutils_core::sync::compression::Compression;
use dockerutils_core::sync::local::Local;
use dockerutils_core::sync::receive::receive;
use dockerutils_core::sync::{Item, ItemKind, Stamp};

pub(crate) fn fuzz(input: (u8, &[u8])) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (choice, bytes) = input;
    let compression = match choice % 3 {
        0 => Compression::Plain,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let wanted: HashMap<Vec<u8>, Item> = [
        ("a", ItemKind::File, 3),
        ("d/b", ItemKind::File, 0),
        ("l", ItemKind::Symlink, 1),
    ]
    .into_iter()
    .map(|(path, kind, size)| {
        let item = Item {
            kind,
            mode: 0o644,
            stamp: Stamp {
                size,
                ..Stamp::default()
            },
            owner: 0,
            device: 0,
            target: None,
        };
        (path.as_bytes().to_vec(), item)
    })
    .collect();
    let local = Local::open(root.path()).expect("it is there");
    let stage = local.stage().expect("it is ours");
    if let Ok(arrived) = receive(
        &mut &*bytes,
        compression,
        &wanted,
        &stage,
        &Bars::files(None, "bringing", 3, 4),
    ) {
        assert!(arrived.keys().all(|path| wanted.contains_key(path)));
    }
    drop(stage);
    let left = std::fs::read_dir(root.path()).expect("it is there").count();
    assert_eq!(left, 0);
}
