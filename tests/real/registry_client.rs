//! The client of registries, with Debian's registry: what it reads, writes, copies and attaches is there.

use std::collections::BTreeMap;
use std::future::Future;

use dockerutils_test_support::registry::Registry as Server;
use registry_client::{
    Attachment, Digest, EMPTY, Failure, INDEX, MANIFEST, Options, Registry, RegistryCredentials, RemoteDescriptor, many,
};
use serde_json::json;

const USER: &str = "ann";
const PASSWORD: &str = "~?>~?>s3cr3t";
const KIND: &str = "application/vnd.example.verdict.v1";

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

async fn connect(server: &Server) -> Registry {
    Registry::connect(server.address(), RegistryCredentials::Anonymous, Options::default())
        .await
        .unwrap()
}

/// Puts an image that has this in its only layer by these tags, and returns its digest.
async fn image(registry: &Registry, repository: &str, what: &str, tags: &[&str]) -> Digest {
    let layer = registry.put_blob(repository, what.to_owned().into()).await.unwrap();
    registry.put_blob(repository, "{}".into()).await.unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": RemoteDescriptor::of(EMPTY, b"{}"),
        "layers": [{ "mediaType": "text/plain", "digest": layer, "size": what.len() }],
        "annotations": { "what": what },
    });
    let bytes = manifest.to_string();
    let put = many(tags, |tag| {
        registry.put_manifest(repository, tag, MANIFEST, bytes.clone().into())
    });
    for digest in put.await {
        assert_eq!(digest.unwrap(), Digest::of(bytes.as_bytes()));
    }
    Digest::of(bytes.as_bytes())
}

fn verdict(of: &str) -> Attachment {
    Attachment {
        artifact_type: KIND.to_owned(),
        annotations: BTreeMap::from([("by".to_owned(), of.to_owned())]),
        media_type: "application/json".to_owned(),
        blob: json!({ "by": of }).to_string().into(),
    }
}

#[test]
fn what_is_written_is_read_and_copied() {
    run(async {
        let server = Server::here().start().unwrap();
        let registry = connect(&server).await;
        assert!(!registry.is_encrypted());
        let digest = image(&registry, "team/base", "one", &["1-main"]).await;
        let manifest = registry.manifest("team/base", "1-main").await.unwrap().unwrap();
        assert_eq!(manifest.digest, digest);
        assert_eq!(manifest.annotations()["what"], "one");
        let layer = &manifest.document.layers.as_ref().unwrap()[0];
        let blob = registry.blob("team/base", &layer.digest, 3).await.unwrap();
        assert_eq!(blob.unwrap(), "one");
        let head = registry.head("team/base", "1-main").await.unwrap().unwrap();
        assert_eq!((head.digest, head.size), (digest.clone(), manifest.bytes.len() as u64));

        let copied = registry.copy_tag("team/base", &digest, "1-stable").await.unwrap();
        assert_eq!(copied.as_ref(), Some(&digest));
        let copy = registry.manifest("team/base", "1-stable").await.unwrap().unwrap();
        assert_eq!((copy.bytes, copy.media_type), (manifest.bytes, manifest.media_type));

        for (repository, reference) in [("team/base", "2-main"), ("team/other", "1-main")] {
            assert!(registry.manifest(repository, reference).await.unwrap().is_none());
            assert!(registry.head(repository, reference).await.unwrap().is_none());
        }
        let absent = Digest::of(b"absent");
        assert!(registry.manifest("team/base", absent.as_str()).await.unwrap().is_none());
        assert!(registry.blob("team/base", &absent, 3).await.unwrap().is_none());
        // Debian's registry deletes nothing where its settings don't say so.
        let error = registry.delete("team/base", digest.as_str()).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Server(405), "{error}");
        // A manifest whose layer is nowhere.
        let nowhere = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": RemoteDescriptor::of(EMPTY, b"{}"),
            "layers": [RemoteDescriptor::of("text/plain", b"nowhere")],
        });
        let put = registry.put_manifest("team/base", "x", MANIFEST, nowhere.to_string().into());
        let error = put.await.unwrap_err();
        assert!(matches!(error.failure(), Failure::Server(400 | 404)), "{error}");
    });
}

#[test]
fn all_tags_are_listed() {
    run(async {
        let server = Server::here().start().unwrap();
        let registry = connect(&server).await;
        assert!(registry.tags("team/base").await.unwrap().is_none());
        // Debian's registry knows no pages, and gives them all.
        let tags: Vec<String> = (0..250).map(|number| format!("t{number:03}")).collect();
        let names: Vec<&str> = tags.iter().map(String::as_str).collect();
        image(&registry, "team/base", "one", &names).await;
        assert_eq!(registry.tags("team/base").await.unwrap().unwrap(), tags);
    });
}

#[test]
fn a_login_is_needed_and_used() {
    run(async {
        let server = Server::here().user(USER, PASSWORD).start().unwrap();
        let login = |password: &str| RegistryCredentials::Password {
            user: USER.to_owned(),
            secret: password.to_owned(),
        };
        for credentials in [RegistryCredentials::Anonymous, login("wr0ng")] {
            let registry = Registry::connect(server.address(), credentials, Options::default())
                .await
                .unwrap();
            let error = registry.manifest("team/base", "1").await.unwrap_err();
            assert_eq!(error.failure(), Failure::Unauthorized);
            assert_eq!(error.hint(), format!("docker login {}", server.address()));
            assert!(!format!("{error:?}").contains("wr0ng"));
        }
        let registry = Registry::connect(server.address(), login(PASSWORD), Options::default())
            .await
            .unwrap();
        assert!(registry.manifest("team/base", "1").await.unwrap().is_none());
        let digest = image(&registry, "team/base", "one", &["1"]).await;
        let found = registry.manifest("team/base", "1").await.unwrap().unwrap();
        assert_eq!(found.digest, digest);
    });
}

#[test]
fn what_writers_attach_at_once_is_all_listed() {
    run(async {
        let server = Server::here().start().unwrap();
        let one = connect(&server).await;
        let digest = image(&one, "team/base", "one", &["1"]).await;
        assert!(one.referrers("team/base", &digest, None).await.unwrap().is_empty());
        // Each has connections of its own, as another CI runner has.
        let two = connect(&server).await;
        for round in 0..5 {
            let words = [format!("one {round}"), format!("two {round}")];
            let attached = many([(&one, &words[0]), (&two, &words[1])], |(registry, of)| {
                let digest = &digest;
                async move { registry.attach("team/base", digest, &verdict(of)).await }
            });
            for attached in attached.await {
                attached.unwrap();
            }
        }
        let attached = one.attached("team/base", &digest, KIND, 1000).await.unwrap();
        let mut by: Vec<&str> = attached
            .iter()
            .map(|attached| attached.manifest.annotations()["by"].as_str())
            .collect();
        by.sort_unstable();
        let expected = ["one", "two"].map(|writer| (0..5).map(move |round| format!("{writer} {round}")));
        assert_eq!(by, expected.into_iter().flatten().collect::<Vec<_>>());
        for attached in &attached {
            let said: serde_json::Value = serde_json::from_slice(&attached.blob).unwrap();
            assert_eq!(said["by"], attached.manifest.annotations()["by"].as_str());
        }
        let tag = format!("sha256-{}", digest.hex());
        let index = one.manifest("team/base", &tag).await.unwrap().unwrap();
        assert_eq!(index.media_type, INDEX);
        assert_eq!(index.document.manifests.unwrap().len(), 10);
        // The image itself is as it was.
        let image = one.manifest("team/base", "1").await.unwrap().unwrap();
        assert_eq!(image.digest, digest);
    });
}
