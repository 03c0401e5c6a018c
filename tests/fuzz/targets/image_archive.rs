//! Any bytes are read as an image's archive or refused, also as a layer in an archive that is whole.

use dockerutils_core::docker::images::image_archive::{self, LayerChange};

pub(crate) fn fuzz(bytes: &[u8]) {
    // An error is as good as an image.
    let _ = image_archive::read(bytes);
    let Ok(image) = image_archive::read(&archive(bytes)[..]) else {
        return;
    };
    for change in image.layers.iter().flatten() {
        let path = match change {
            LayerChange::File(path, _)
            | LayerChange::Directory(path)
            | LayerChange::Deleted(path)
            | LayerChange::Emptied(path) => path,
        };
        assert!(!path.starts_with(b"/") && !path.ends_with(b"/"));
    }
}

/// An archive whose one layer is this.
fn archive(layer: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    let manifest = br#"[{"Config":"config","Layers":["layer"]}]"#;
    for (name, content) in [("layer", layer), ("config", b"{}"), ("manifest.json", manifest)] {
        // A header of ustar: the name, mode and size in octal, the sum of its bytes with blanks in the sum's place.
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
