//! Any bytes as a request with mounts: it is read or refused, and once translated, its sources are those on the dock.
//! Any bytes as an answer, or as events: once restored, there is nothing left to restore.

use std::collections::BTreeMap;

use dock_link::mounts::answers::{MountAnswer, restore};
use dock_link::mounts::events::unlabelled;
use dock_link::mounts::requests::{MOUNTS, MountRequest, references, sources, translate};

const ANSWERS: [MountAnswer; 9] = [
    MountAnswer::Container,
    MountAnswer::Containers,
    MountAnswer::Volume,
    MountAnswer::Volumes,
    MountAnswer::Service,
    MountAnswer::Services,
    MountAnswer::Task,
    MountAnswer::Tasks,
    MountAnswer::DiskUsage,
];

pub(crate) fn fuzz(body: &[u8]) {
    for kind in [MountRequest::Container, MountRequest::Volume, MountRequest::Service] {
        request(kind, body);
    }
    if let Some(events) = unlabelled(body) {
        assert!(events.len() < body.len());
        assert_eq!(unlabelled(&events), None);
    }
    for kind in ANSWERS {
        if let Some(restored) = restore(kind, body, &|_, _| true) {
            assert_eq!(restore(kind, &restored, &|_, _| true), None);
        }
        assert_eq!(restore(kind, body, &|_, _| false), None);
    }
}

fn request(kind: MountRequest, body: &[u8]) {
    let found = sources(kind, body);
    let nowhere = translate(kind, body, &BTreeMap::new(), &BTreeMap::new());
    let Ok(found) = found else {
        assert!(nowhere.is_err() && references(kind, body).is_err());
        return;
    };
    assert!(nowhere.is_ok());
    let Ok(named) = references(kind, body) else {
        panic!("what has sources that can be read has names that can");
    };
    let is_name = |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '%', '?', '#']);
    assert!(named.volumes.iter().chain(&named.containers).all(is_name));
    assert!(found.len() <= MOUNTS);
    assert!(found.iter().all(|source| source.path.starts_with('/') && !source.path.contains('\0')));
    let paths: BTreeMap<String, String> = found
        .iter()
        .enumerate()
        .map(|(index, source)| (source.path.clone(), format!("/on the dock/{index}")))
        .collect();
    let Ok(translated) = translate(kind, body, &paths, &BTreeMap::new()) else {
        panic!("short paths without a colon are always translated");
    };
    let translated = translated.as_deref().unwrap_or(body);
    let Ok(again) = sources(kind, translated) else {
        panic!("what is translated can be read");
    };
    assert_eq!(references(kind, translated), Ok(named));
    assert_eq!(again.len(), found.len());
    for (there, here) in again.iter().zip(&found) {
        assert_eq!(there.form, here.form);
        assert_eq!(paths.get(&here.path), Some(&there.path));
    }
}
