//! A tag that is deleted, at registries that delete more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dock_client::digest::Digest;
use dock_client::mutex::lock;

use super::{Got, Said, Scripted};
use crate::{Failure, INDEX, Placeholder, Registry, RemoteManifest};

const IMAGE: &str = r#"{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}"#;

/// What `DELETE` of a tag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletes {
    TheTag,
    /// And the manifest with its other tags.
    TheManifest,
    Nothing,
    /// It says that it does, and does not.
    NothingUnsaid,
}

#[derive(Clone)]
struct Tags {
    /// By tag or digest.
    manifests: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    deletes: Deletes,
}

impl Tags {
    fn new(deletes: Deletes) -> Self {
        let image = IMAGE.as_bytes().to_vec();
        let names = ["new", "main", Digest::of(&image).as_str()].map(str::to_owned);
        Self {
            manifests: Arc::new(Mutex::new(names.map(|name| (name, image.clone())).into())),
            deletes,
        }
    }

    fn answer(&self, got: &Got) -> Option<Said> {
        let (method, path) = got.line.split_once(' ')?;
        if path.starts_with("/v2/a/blobs/") {
            return Some(Said::new(200, ""));
        }
        let reference = path.strip_prefix("/v2/a/manifests/")?;
        let mut manifests = lock(&self.manifests);
        match method {
            "PUT" => {
                for name in [reference, Digest::of(&got.body).as_str()] {
                    manifests.insert(name.to_owned(), got.body.clone());
                }
                Some(Said::new(201, ""))
            }
            "DELETE" if self.deletes == Deletes::Nothing => Some(Said::error(405, "UNSUPPORTED")),
            "DELETE" => {
                let bytes = manifests.get(reference).cloned()?;
                match self.deletes {
                    Deletes::TheTag => drop(manifests.remove(reference)),
                    Deletes::TheManifest => manifests.retain(|_, other| *other != bytes),
                    _ => {}
                }
                Some(Said::new(202, ""))
            }
            _ => {
                let bytes = manifests.get(reference)?;
                let said = Said::new(200, bytes.clone()).with(format!("Content-Type: {INDEX}"));
                Some(said.with(format!("Docker-Content-Digest: {}", Digest::of(bytes))))
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let image = IMAGE.as_bytes();
        let manifests = lock(&self.manifests);
        let names = manifests.iter().filter(|(_, bytes)| *bytes == image);
        names
            .map(|(name, _)| name.clone())
            .filter(|name| !name.contains(':'))
            .collect()
    }
}

async fn connected(tags: &Tags) -> (Scripted, Registry, RemoteManifest) {
    let answering = tags.clone();
    let scripted = Scripted::start(move |got| answering.answer(got)).await;
    let registry = scripted.anonymous().await;
    let manifest = registry.manifest("a", "main").await.unwrap().unwrap();
    (scripted, registry, manifest)
}

#[tokio::test]
async fn the_image_and_its_other_tags_stay_whatever_is_deleted_with_a_tag() {
    for deletes in [Deletes::TheTag, Deletes::TheManifest] {
        let tags = Tags::new(deletes);
        let (scripted, registry, manifest) = connected(&tags).await;
        registry.untag("a", "new", &manifest).await.unwrap();
        assert_eq!(tags.names(), ["main"], "{deletes:?}");
        assert!(registry.head("a", manifest.digest.as_str()).await.unwrap().is_some());
        assert!(registry.head("a", "new").await.unwrap().is_none());
        // The image itself was never written: nothing that refers to it was in danger.
        assert!(scripted.got("PUT ").iter().all(|got| got.body != IMAGE.as_bytes()));
        // Again, from where an interruption would have left it.
        let placeholder = Placeholder::of("new", &manifest.digest).unwrap();
        let written = scripted.got("PUT /v2/a/manifests/new").remove(0);
        assert_eq!(Digest::of(&written.body), *placeholder.digest());
        tags.answer(&written).unwrap();
        registry.untag("a", "new", &manifest).await.unwrap();
        assert_eq!(tags.names(), ["main"]);
    }
}

#[tokio::test]
async fn where_no_tag_is_deleted_it_names_what_it_named() {
    for deletes in [Deletes::Nothing, Deletes::NothingUnsaid] {
        let tags = Tags::new(deletes);
        let (scripted, registry, manifest) = connected(&tags).await;
        let error = registry.untag("a", "new", &manifest).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Server(405), "{error}");
        assert_eq!(tags.names(), ["main", "new"], "{deletes:?}");
        let is_touched = !scripted.got("PUT ").is_empty();
        assert_eq!(is_touched, deletes == Deletes::NothingUnsaid);
    }
}
