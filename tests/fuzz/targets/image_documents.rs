//! Any bytes are read as an image's manifest, index or configuration, or refused; what was read says what it is made of.

use dockerutils_core::docker::images::manifest::{Digest, Document, ImageConfig, chain_ids};

pub(crate) fn fuzz(bytes: &[u8]) {
    let check = |digest: &Digest| {
        assert_eq!(digest.hex().len(), 64);
        assert_eq!(Digest::parse(digest.as_str()).expect("it was read"), *digest);
    };
    match Document::parse(bytes) {
        Ok(Document::Index(parts)) => parts.iter().for_each(|part| check(&part.digest)),
        Ok(Document::Manifest { config, layers }) => {
            check(&config.digest);
            layers.iter().for_each(|layer| check(&layer.digest));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(config) = ImageConfig::parse(bytes) {
        let chain = chain_ids(&config.diff_ids);
        assert_eq!(chain.len(), config.diff_ids.len());
        assert_eq!(chain.first(), config.diff_ids.first());
    }
}
