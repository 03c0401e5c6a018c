//! Any text is read as what a registry's headers say: which login it asks for, and where its list goes on.

use registry_client::{Challenge, next_page};

pub(crate) fn fuzz(input: (&str, &str)) {
    let (one, two) = input;
    let both = Challenge::of([one, two]);
    // Bearer is better than Basic, wherever it stands.
    let each = [Challenge::of([one]), Challenge::of([two])];
    let is_bearer = |found: &Option<Challenge>| matches!(found, Some(Challenge::Bearer { .. }));
    assert_eq!(is_bearer(&both), each.iter().any(is_bearer));
    assert_eq!(both.is_some(), each.iter().any(Option::is_some));
    if let Some(Challenge::Bearer { realm, service, error }) = &both {
        for said in [Some(realm), service.as_ref(), error.as_ref()].into_iter().flatten() {
            assert!(said.len() <= one.len().max(two.len()));
        }
    }
    if let Some(target) = next_page(one) {
        assert!(one.contains(&format!("<{target}>")), "{target:?}");
    }
}
