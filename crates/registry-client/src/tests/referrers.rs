//! Referrers: the registry's own list, and the index by the fallback tag.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dock_client::digest::Digest;
use dock_client::mutex::lock;
use serde_json::{Value, json};

use super::{Got, Said, Scripted};
use crate::{Attachment, Failure, INDEX, MANIFEST};

const KIND: &str = "application/vnd.example.verdict.v1";
const IMAGE: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

fn attachment() -> Attachment {
    Attachment {
        artifact_type: KIND.to_owned(),
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        media_type: "application/json".to_owned(),
        blob: r#"{"passed":true}"#.into(),
    }
}

/// A registry that keeps what is written, as Debian's does: without a list of referrers.
#[derive(Clone, Default)]
struct ManifestStore {
    manifests: Arc<Mutex<BTreeMap<String, StoredManifest>>>,
}

/// A media type, and the bytes.
type StoredManifest = (String, Vec<u8>);

impl ManifestStore {
    fn answer(&self, got: &Got) -> Option<Said> {
        let mut manifests = lock(&self.manifests);
        let (method, path) = got.line.split_once(' ')?;
        if path.starts_with("/v2/a/blobs/") {
            return Some(match method {
                "HEAD" => Said::new(200, ""),
                _ => Said::new(200, attachment().blob),
            });
        }
        let reference = path.strip_prefix("/v2/a/manifests/")?.to_owned();
        let media_type = got.header("content-type").unwrap_or_default();
        match method {
            "PUT" => {
                manifests.insert(
                    Digest::of(&got.body).to_string(),
                    (media_type.to_owned(), got.body.clone()),
                );
                manifests.insert(reference, (media_type.to_owned(), got.body.clone()));
                Some(Said::new(201, ""))
            }
            "GET" | "HEAD" => {
                let (media_type, bytes) = manifests.get(&reference)?;
                let said = Said::new(200, bytes.clone());
                Some(
                    said.with(format!("Content-Type: {media_type}"))
                        .with(format!("Docker-Content-Digest: {}", Digest::of(bytes))),
                )
            }
            _ => None,
        }
    }

    fn put(&self, reference: &str, media_type: &str, bytes: &[u8]) {
        lock(&self.manifests).insert(reference.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    fn json(&self, reference: &str) -> Value {
        serde_json::from_slice(&lock(&self.manifests)[reference].1).unwrap()
    }
}

/// The store with an image, the image's digest, and the tag of its referrers.
fn with_image() -> (ManifestStore, Digest, String) {
    let store = ManifestStore::default();
    let digest = Digest::of(IMAGE.as_bytes());
    store.put(digest.as_str(), INDEX, IMAGE.as_bytes());
    let tag = format!("sha256-{}", digest.hex());
    (store, digest, tag)
}

#[tokio::test]
async fn without_a_list_of_the_registry_the_tag_has_it() {
    let (store, digest, tag) = with_image();
    let answering = store.clone();
    let scripted = Scripted::start(move |got| answering.answer(got)).await;
    let registry = scripted.anonymous().await;
    assert!(registry.referrers("a", &digest, None).await.unwrap().is_empty());
    let listed = registry.attach("a", &digest, &attachment()).await.unwrap();
    assert_eq!(store.json(&tag)["manifests"][0]["artifactType"], KIND);
    assert_eq!(store.json(&tag)["manifests"][0]["annotations"]["a"], "b");
    let manifest = store.json(listed.digest.as_str());
    assert_eq!(manifest["subject"]["digest"], digest.as_str());
    assert_eq!(manifest["subject"]["mediaType"], INDEX);
    // The same again changes nothing.
    let again = registry.attach("a", &digest, &attachment()).await.unwrap();
    assert_eq!(again, listed);
    assert_eq!(scripted.got(&format!("PUT /v2/a/manifests/{tag}")).len(), 1);
    assert_eq!(registry.referrers("a", &digest, Some(KIND)).await.unwrap(), [listed]);
    assert!(registry.referrers("a", &digest, Some("x")).await.unwrap().is_empty());
    let attached = registry.attached("a", &digest, KIND, 100).await.unwrap();
    assert_eq!(attached.len(), 1);
    assert_eq!(attached[0].blob, attachment().blob);
    let error = registry
        .attach("a", &Digest::of(b"x"), &attachment())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
}

#[tokio::test]
async fn an_entry_that_another_writer_undid_is_written_again() {
    let (store, digest, tag) = with_image();
    let foreign = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"foreign"), "size": 7, "new": true });
    let (answering, place, other) = (store.clone(), tag.clone(), foreign.clone());
    let undone = Mutex::new(false);
    let scripted = Scripted::start(move |got| {
        let said = answering.answer(got);
        // Another writer read the same as we did, and writes after us.
        let mut undone = lock(&undone);
        if got.line == format!("PUT /v2/a/manifests/{place}") && !*undone {
            *undone = true;
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [other] });
            answering.put(&place, INDEX, index.to_string().as_bytes());
        }
        said
    })
    .await;
    let registry = scripted.anonymous().await;
    let listed = registry.attach("a", &digest, &attachment()).await.unwrap();
    let entries = store.json(&tag)["manifests"].clone();
    assert_eq!(entries[0], foreign);
    assert_eq!(entries[1]["digest"], listed.digest.as_str());
    assert_eq!(entries.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_entry_that_is_gone_stops_no_new_one() {
    let (store, digest, tag) = with_image();
    let gone = json!({ "mediaType": MANIFEST, "digest": Digest::of(b"gone"), "size": 7 });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [gone] });
    store.put(&tag, INDEX, index.to_string().as_bytes());
    let (answering, place) = (store.clone(), tag.clone());
    let scripted = Scripted::start(move |got| {
        let names_it = String::from_utf8_lossy(&got.body).contains(Digest::of(b"gone").hex());
        match got.line == format!("PUT /v2/a/manifests/{place}") && names_it {
            true => Some(Said::error(400, "MANIFEST_BLOB_UNKNOWN")),
            false => answering.answer(got),
        }
    })
    .await;
    let registry = scripted.anonymous().await;
    let listed = registry.attach("a", &digest, &attachment()).await.unwrap();
    let entries = store.json(&tag)["manifests"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 1);
    assert_eq!(entries[0]["digest"], listed.digest.as_str());
}

#[tokio::test]
async fn a_registry_with_a_list_of_its_own_needs_no_tag() {
    let (store, digest, tag) = with_image();
    let answering = store.clone();
    let path = format!("GET /v2/a/referrers/{digest}");
    let (entry, other) = (
        json!({ "mediaType": MANIFEST, "digest": Digest::of(b"1"), "size": 1, "artifactType": KIND }),
        json!({ "mediaType": MANIFEST, "digest": Digest::of(b"2"), "size": 1, "artifactType": "x" }),
    );
    let scripted = Scripted::start(move |got| {
        let page = |entry: &Value| {
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
            Said::new(200, index.to_string()).with(format!("Content-Type: {INDEX}"))
        };
        if got.line == path {
            let next = format!("Link: <{}?next=1>; rel=\"next\"", path.split_once(' ').unwrap().1);
            return Some(page(&entry).with(next));
        }
        if got.line.starts_with(&path) {
            return Some(page(&other));
        }
        let said = answering.answer(got)?;
        Some(said.with("OCI-Subject: here"))
    })
    .await;
    let registry = scripted.anonymous().await;
    registry.attach("a", &digest, &attachment()).await.unwrap();
    assert!(scripted.got(&format!("PUT /v2/a/manifests/{tag}")).is_empty());
    let listed = registry.referrers("a", &digest, None).await.unwrap();
    assert_eq!(listed.len(), 2);
    let of_kind = registry.referrers("a", &digest, Some(KIND)).await.unwrap();
    assert_eq!(of_kind.len(), 1);
    // What is listed, and is not there, is attached to nothing.
    assert!(registry.attached("a", &digest, KIND, 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_listed_and_refers_to_another_image_is_left_out() {
    let (store, digest, tag) = with_image();
    let answering = store.clone();
    let scripted = Scripted::start(move |got| answering.answer(got)).await;
    let registry = scripted.anonymous().await;
    let listed = registry.attach("a", &digest, &attachment()).await.unwrap();
    // Somebody enters the verdict of one image into the list of another.
    let bad = r#"{"schemaVersion":2,"manifests":[],"annotations":{"bad":"yes"}}"#;
    let bad_digest = Digest::of(bad.as_bytes());
    store.put(bad_digest.as_str(), INDEX, bad.as_bytes());
    let index = store.json(&tag).to_string();
    store.put(&format!("sha256-{}", bad_digest.hex()), INDEX, index.as_bytes());
    assert_eq!(registry.referrers("a", &bad_digest, None).await.unwrap(), [listed]);
    assert!(registry.attached("a", &bad_digest, KIND, 100).await.unwrap().is_empty());
    // And a tag of this form may be an image's.
    let image = json!({ "schemaVersion": 2, "layers": [] }).to_string();
    store.put(&tag, MANIFEST, image.as_bytes());
    for failed in [
        registry.referrers("a", &digest, None).await.unwrap_err(),
        registry.attach("a", &digest, &attachment()).await.unwrap_err(),
    ] {
        assert_eq!(failed.failure(), Failure::Invalid, "{failed}");
    }
}

#[tokio::test]
async fn more_documents_than_are_read_are_an_error() {
    let (store, digest, tag) = with_image();
    let entry = |number: u32| json!({ "mediaType": MANIFEST, "digest": Digest::of(&number.to_le_bytes()), "size": 1, "artifactType": KIND });
    let entries: Vec<Value> = (0..501).map(entry).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    store.put(&tag, INDEX, index.to_string().as_bytes());
    let answering = store.clone();
    let scripted = Scripted::start(move |got| answering.answer(got)).await;
    let registry = scripted.anonymous().await;
    let error = registry.attached("a", &digest, KIND, 100).await.unwrap_err();
    assert_eq!(error.failure(), Failure::TooLarge, "{error}");
    assert_eq!(scripted.got("GET /v2/a/manifests/sha256:").len(), 0);
    // Those of another type do not count.
    assert!(registry.attached("a", &digest, "x", 100).await.unwrap().is_empty());
}
