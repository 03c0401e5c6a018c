//! What a dock says of its files: nothing panics, and no path that comes out of it leads out of the project.

use build_context::{Builder, Selector};
use dockerutils_core::sync::{is_acceptable, listing};

pub(crate) fn fuzz(text: &[u8]) {
    let Ok(mut selector) = Selector::new(&[b"*.log".to_vec(), b"!keep.log".to_vec()], Builder::default()) else {
        return;
    };
    let whole = [text, b"//status 0\n"].concat();
    for text in [text, &whole] {
        let Ok(listing) = listing::read(text, &mut selector) else {
            continue;
        };
        for (path, item) in &listing.tree {
            assert!(is_acceptable(path));
            assert!(item.mode <= 0o777);
            listing::expectation(path, &item.stamp, true);
        }
    }
}
