//! Any text becomes a legal name, a legal one stays as it is, and a reference means the same however it is written.

use dockerutils_core::naming::{
    Designation, canonical, is_repository, is_tag, legal_container_name, legal_repository, legal_tag, nearest, registry,
};

pub(crate) fn fuzz(input: (&str, &str)) {
    let (name, tag) = input;
    let (repository, legal) = (legal_repository(name), legal_tag(tag));
    assert!(is_repository(&repository), "{repository}");
    assert!(is_tag(&legal), "{legal}");
    assert_eq!(is_repository(name), repository == name);
    assert_eq!(is_tag(tag), legal == tag);
    assert_eq!(legal_repository(&repository), repository);
    assert_eq!(legal_tag(&legal), legal);

    let container = legal_container_name(name);
    assert!(
        container.len() >= 2 && container.starts_with(|first: char| first.is_ascii_alphanumeric()),
        "{container}"
    );
    assert!(
        container
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)),
        "{container}"
    );
    assert_eq!(legal_container_name(&container), container);

    let designation = Designation {
        name: repository.into_owned(),
        tag: legal.into_owned(),
    };
    let full = canonical(&designation.to_string());
    assert_eq!(canonical(&full), full);
    assert!(full.ends_with(&format!(":{}", designation.tag)), "{full}");
    assert_eq!(registry(&full), registry(&designation.to_string()));
    // A repository has 255 characters at most, and an engine says so.
    assert!(
        designation.name.len() > 240 || is_repository(&designation.builder().name),
        "{designation}"
    );
    // What is no reference is not to be understood, only to be survived.
    let _ = (canonical(name), registry(name));
    assert_eq!(nearest(name, [name]), Some(name));
    assert!(nearest(name, [tag]).is_none_or(|near| near == tag));
}
