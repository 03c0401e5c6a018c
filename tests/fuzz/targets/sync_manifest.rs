//! The manifest of a sync, and the mark of a workspace: what is read is written the same again.

use dockerutils_core::sync::manifest::Manifest;
use dockerutils_core::sync::owner::Owner;

pub(crate) fn fuzz(text: &[u8]) {
    if let Some(manifest) = Manifest::parse(text) {
        let again = manifest.render().expect("it was JSON before");
        assert_eq!(Manifest::parse(&again).as_ref(), Some(&manifest));
    }
    if let Some(owner) = std::str::from_utf8(text).ok().and_then(Owner::parse) {
        assert_eq!(Owner::parse(&owner.render()), Some(owner));
    }
}
