//! Images as a registry has them, with packed layers, made by hand: an archive of OCI's layout for `docker load`.

use std::io::Write as _;

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A plain tar.
    Plain,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

/// An archive, and the image in it.
#[derive(Debug)]
pub struct PackedImage {
    /// For `docker load`.
    pub archive: Vec<u8>,
    /// The digest of its manifest.
    pub id: String,
    /// The digest of its configuration.
    pub config: String,
    /// The digests of its layers' plain tars, lowest first.
    pub diff_ids: Vec<String>,
}

/// The digest of these bytes.
pub fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An image for linux/amd64 of these layers, each of one file: its name, its content, and how the layer is packed.
///
/// # Panics
/// When there is no memory for it.
pub fn image(layers: &[(&str, &[u8], Packing)]) -> PackedImage {
    const OCI: &str = "application/vnd.oci.image.";
    let descriptor = |kind: &str, content: &[u8]| json!({ "mediaType": format!("{OCI}{kind}"), "digest": digest(content), "size": content.len() });
    let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let path = |content: &[u8]| digest(content).replace("sha256:", "blobs/sha256/");
    let (mut diff_ids, mut blobs) = (Vec::new(), Vec::new());
    for (name, content, packing) in layers {
        let plain = tar_of(&[(*name, content)]);
        diff_ids.push(digest(&plain));
        let (kind, blob) = match packing {
            Packing::Plain => ("layer.v1.tar", plain),
            Packing::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain).expect("memory takes all");
                ("layer.v1.tar+gzip", encoder.finish().expect("memory takes all"))
            }
            Packing::Zstd => (
                "layer.v1.tar+zstd",
                zstd::encode_all(&plain[..], 3).expect("memory takes all"),
            ),
        };
        blobs.push(descriptor(kind, &blob));
        files.push((path(&blob), blob));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": vec![json!({ "created_by": "by hand" }); layers.len()],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": format!("{OCI}manifest.v1+json"),
        "config": descriptor("config.v1+json", &config), "layers": blobs,
    })
    .to_string()
    .into_bytes();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", &manifest)] });
    let (id, config_digest) = (digest(&manifest), digest(&config));
    files.extend([config, manifest].map(|document| (path(&document), document)));
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    PackedImage {
        archive: tar_of(&files),
        id,
        config: config_digest,
        diff_ids,
    }
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, path, *content)
            .expect("memory takes all");
    }
    archive.into_inner().expect("memory takes all")
}
