//! What a registry may answer, and what we make of it.

use std::sync::Arc;
use std::time::Duration;

use dock_client::digest::Digest;
use dock_client::error::{Class, Error as CommandError};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Said, Scripted, options};
use crate::{Failure, INDEX, LARGEST_MANIFEST, MANIFEST, Registry, RegistryCredentials, many};

const INDEX_TEXT: &str = r#"{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}"#;

fn index() -> Said {
    Said::new(200, INDEX_TEXT).with(format!("Content-Type: {INDEX}; charset=utf-8"))
}

#[tokio::test]
async fn a_manifest_is_read_and_verified() {
    let registry = Scripted::start(|got| match got.line.as_str() {
        "GET /v2/team/base/manifests/1" => {
            let digest = Digest::of(INDEX_TEXT.as_bytes());
            Some(index().with(format!("Docker-Content-Digest: {digest}")))
        }
        line if line.starts_with("GET /v2/team/base/manifests/sha256:") => Some(index()),
        "GET /v2/team/base/manifests/lie" => {
            Some(index().with(format!("Docker-Content-Digest: {}", Digest::of(b"other"))))
        }
        "GET /v2/team/base/manifests/text" => Some(Said::new(200, "hello").with("Content-Type: text/html")),
        _ => None,
    });
    let registry = registry.await.anonymous().await;
    let manifest = registry.manifest("team/base", "1").await.unwrap().unwrap();
    assert_eq!(manifest.annotations()["a"], "b");
    assert_eq!(manifest.media_type, INDEX);
    let by_digest = registry.manifest("team/base", manifest.digest.as_str()).await.unwrap();
    assert_eq!(by_digest.unwrap().bytes, INDEX_TEXT);
    assert!(registry.manifest("team/base", "absent").await.unwrap().is_none());
    let other = Digest::of(b"other");
    for reference in ["lie", "text", other.as_str(), "..", "a/b"] {
        let error = registry.manifest("team/base", reference).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid, "{reference}: {error}");
        assert!(error.to_string().contains("/team/base"), "{error}");
    }
    let error = registry.manifest("Team", "1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
}

#[tokio::test]
async fn only_a_registrys_own_404_is_absent() {
    let scripted = Scripted::start(|got| {
        let (method, path) = got.line.split_once(' ').unwrap();
        let status = path.rsplit('/').next().unwrap();
        Some(match status {
            _ if path == "/v2/" => return None,
            // HEAD says nothing more.
            "page" if method == "HEAD" => Said::new(404, ""),
            "page" => Said::new(404, "<html>"),
            "unknown" => Said::error(404, "NAME_UNKNOWN"),
            "harbor" => Said::error(404, "NOT_FOUND"),
            status => Said::error(status.parse().unwrap(), "SO"),
        })
    })
    .await;
    let registry = scripted.anonymous().await;
    for absent in ["unknown", "harbor"] {
        assert!(registry.manifest("a", absent).await.unwrap().is_none(), "{absent}");
        assert!(registry.head("a", absent).await.unwrap().is_none(), "{absent}");
    }
    for (reference, failure, hint) in [
        ("page", Failure::Server(404), "whether it allows"),
        ("401", Failure::Unauthorized, "docker login 127.0.0.1"),
        ("403", Failure::Forbidden, "docker login 127.0.0.1"),
        ("429", Failure::Server(429), "wait"),
        ("500", Failure::Server(500), "try again"),
        ("503", Failure::Server(503), "try again"),
        ("301", Failure::Invalid, "curl -i https://127.0.0.1"),
        ("418", Failure::Server(418), "whether it allows"),
    ] {
        for error in [
            registry.manifest("a", reference).await.unwrap_err(),
            registry.head("a", reference).await.unwrap_err(),
        ] {
            assert_eq!(error.failure(), failure, "{reference}: {error}");
            let object = format!("{}/a:{reference}: ", scripted.address);
            assert!(error.to_string().starts_with(&object), "{error}");
            assert!(error.hint().contains(hint), "{}", error.hint());
            assert_eq!(CommandError::from(error).class(), Class::Failed);
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let scripted = Scripted::start(|got| match got.line.as_str() {
        "GET /v2/a/manifests/said" => Some(Said::new(200, vec![b' '; LARGEST_MANIFEST + 1])),
        "GET /v2/a/manifests/chunks" => {
            let mut raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..5 {
                raw.extend(format!("{:x}\r\n", 1024 * 1024).bytes());
                raw.resize(raw.len() + 1024 * 1024, b' ');
                raw.extend(b"\r\n");
            }
            Some(Said::raw(&raw))
        }
        "GET /v2/a/manifests/short" => Some(Said::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")),
        line if line.starts_with("GET /v2/a/blobs/") => Some(Said::new(200, vec![0; 1000])),
        _ => None,
    })
    .await;
    let registry = scripted.anonymous().await;
    for (reference, failure) in [
        ("said", Failure::TooLarge),
        ("chunks", Failure::TooLarge),
        ("short", Failure::Unreachable),
    ] {
        let error = registry.manifest("a", reference).await.unwrap_err();
        assert_eq!(error.failure(), failure, "{reference}: {error}");
    }
    let blob = vec![0; 1000];
    let (digest, other) = (Digest::of(&blob), Digest::of(b"other"));
    assert_eq!(registry.blob("a", &digest, 1000).await.unwrap().unwrap(), blob);
    for (digest, most, failure) in [(&digest, 999, Failure::TooLarge), (&other, 1000, Failure::Invalid)] {
        let error = registry.blob("a", digest, most).await.unwrap_err();
        assert_eq!(error.failure(), failure, "{error}");
    }
}

#[tokio::test]
async fn who_does_not_answer_is_unreachable() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let error = Registry::connect(&address, RegistryCredentials::Anonymous, options())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable);
    assert!(error.to_string().starts_with(&format!("{address}: ")), "{error}");
    assert_eq!(CommandError::from(error).class(), Class::Unreachable);

    let scripted = Scripted::start(|got| got.line.ends_with("/silent").then(|| Said::raw(b""))).await;
    let mut options = options();
    options.limits.answer = Duration::from_millis(20);
    options.limits.connect = Duration::from_millis(500);
    let registry = Registry::connect(&scripted.address, RegistryCredentials::Anonymous, options)
        .await
        .unwrap();
    let error = registry.manifest("a", "silent").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable);
    assert!(error.to_string().contains("did not answer within"), "{error}");
}

#[tokio::test]
async fn another_server_is_not_a_registry() {
    for (status, failure) in [
        (404, Failure::Invalid),
        (401, Failure::Invalid),
        (403, Failure::Forbidden),
        (502, Failure::Server(502)),
    ] {
        let scripted = Scripted::start(move |_| Some(Said::new(status, "<html>"))).await;
        let error = scripted.connect(RegistryCredentials::Anonymous).await.unwrap_err();
        assert_eq!(error.failure(), failure, "{status}: {error}");
    }
    for host in ["", "a/b", "ann@reg.example", "reg.example:port"] {
        let connected = Registry::connect(host, RegistryCredentials::Anonymous, options()).await;
        assert_eq!(connected.unwrap_err().failure(), Failure::Invalid, "{host}");
    }
}

#[tokio::test]
async fn a_loopback_registry_with_anyones_certificate_is_reached_over_tls() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/src/samples/server");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(format!("{samples}.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(format!("{samples}.key")).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let read = stream.read(&mut [0; 4096]).await.unwrap();
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(answer.as_bytes()).await.unwrap();
        read
    });
    let registry = Registry::connect(&address, RegistryCredentials::Anonymous, options())
        .await
        .unwrap();
    assert!(registry.is_encrypted());
    assert!(serving.await.unwrap() > 0);
}

#[tokio::test]
async fn all_pages_of_tags_are_read_and_none_of_another_place() {
    let scripted = Scripted::start(|got| match got.line.as_str() {
        "GET /v2/a/tags/list?n=1000" => {
            Some(Said::new(200, r#"{"tags":["c","b"]}"#).with("Link: </v2/a/tags/list?last=c&n=2>; rel=\"next\""))
        }
        "GET /v2/a/tags/list?last=c&n=2" => Some(Said::new(200, r#"{"tags":["a"]}"#)),
        "GET /v2/none/tags/list?n=1000" => Some(Said::new(200, r#"{"tags":null}"#)),
        "GET /v2/lured/tags/list?n=1000" => {
            Some(Said::new(200, r#"{"tags":[]}"#).with("Link: <https://127.0.0.9/x>; rel=next"))
        }
        // Each page leads to itself.
        "GET /v2/round/tags/list?n=1000" => {
            Some(Said::new(200, r#"{"tags":["x"]}"#).with("Link: </v2/round/tags/list?n=1000>; rel=next"))
        }
        "GET /v2/gone/tags/list?n=1000" => Some(Said::error(404, "NAME_UNKNOWN")),
        _ => None,
    })
    .await;
    let registry = scripted.anonymous().await;
    assert_eq!(registry.tags("a").await.unwrap().unwrap(), ["a", "b", "c"]);
    assert!(registry.tags("none").await.unwrap().unwrap().is_empty());
    assert!(registry.tags("gone").await.unwrap().is_none());
    assert_eq!(registry.tags("lured").await.unwrap_err().failure(), Failure::Invalid);
    assert_eq!(registry.tags("round").await.unwrap_err().failure(), Failure::TooLarge);
}

#[tokio::test]
async fn a_tag_is_copied_by_writing_the_same_bytes() {
    let digest = Digest::of(INDEX_TEXT.as_bytes());
    let source = format!("GET /v2/a/manifests/{digest}");
    let scripted = Scripted::start(move |got| match got.line.as_str() {
        line if line == source => Some(index()),
        "PUT /v2/a/manifests/new" => Some(Said::new(201, "")),
        "PUT /v2/a/manifests/full" => Some(Said::error(500, "UNKNOWN")),
        line if line.starts_with("DELETE /v2/a/manifests/sha256:") => Some(Said::error(405, "UNSUPPORTED")),
        "DELETE /v2/a/manifests/old" => Some(Said::new(202, "")),
        _ => None,
    })
    .await;
    let registry = scripted.anonymous().await;
    assert_eq!(
        registry.copy_tag("a", &digest, "new").await.unwrap(),
        Some(digest.clone())
    );
    let put = scripted.got("PUT /v2/a/manifests/new").remove(0);
    assert_eq!(put.body, INDEX_TEXT.as_bytes());
    assert_eq!(put.header("content-type"), Some(INDEX));
    assert_eq!(registry.copy_tag("a", &Digest::of(b"x"), "new").await.unwrap(), None);
    let error = registry.copy_tag("a", &digest, "full").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Server(500));
    assert!(error.to_string().ends_with("so it is"), "{error}");
    assert!(registry.delete("a", "old").await.unwrap());
    assert!(!registry.delete("a", "absent").await.unwrap());
    let error = registry.delete("a", digest.as_str()).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Server(405));
    let large = vec![b' '; LARGEST_MANIFEST + 1];
    let error = registry
        .put_manifest("a", "x", MANIFEST, large.into())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::TooLarge);
    assert!(scripted.got("PUT /v2/a/manifests/x").is_empty());
}

#[tokio::test]
async fn as_many_are_asked_at_once_as_are_allowed() {
    let gate = Arc::new(tokio::sync::Barrier::new(3));
    // Each answer waits until three have asked.
    let scripted = Scripted::start(move |got| (got.line != "GET /v2/").then(|| index().behind(&gate))).await;
    let mut options = options();
    options.at_once = 3;
    let registry = Registry::connect(&scripted.address, RegistryCredentials::Anonymous, options)
        .await
        .unwrap();
    let tags: Vec<String> = (0..21).map(|number| format!("t{number}")).collect();
    let found = many(&tags, |tag| registry.manifest("a", tag)).await;
    assert_eq!(found.len(), 21);
    assert!(found.iter().all(|found| found.as_ref().unwrap().is_some()));
    assert_eq!(scripted.most_at_once(), 3);
}

#[tokio::test]
async fn a_list_has_one_budget_for_all_its_pages() {
    // Each page is as large as one may be, and leads to another.
    let page = |filler: String, items: &str, next: &str| {
        Said::new(200, format!("{{{items},\"x\":\"{filler}\"}}"))
            .with(format!("Content-Type: {INDEX}"))
            .with(format!("Link: <{next}>; rel=next"))
    };
    let scripted = Scripted::start(move |got| {
        let (_, path) = got.line.split_once(' ').unwrap();
        let next = format!("{path}0");
        match path {
            path if path.starts_with("/v2/a/tags/list") => {
                Some(page(" ".repeat((4 << 20) - 100), r#""tags":["x"]"#, &next))
            }
            path if path.starts_with("/v2/a/referrers/") => {
                let items = r#""schemaVersion":2,"manifests":[]"#;
                Some(page(" ".repeat((4 << 20) - 100), items, &next))
            }
            _ => None,
        }
    })
    .await;
    let registry = scripted.anonymous().await;
    let digest = Digest::of(b"x");
    for error in [
        registry.tags("a").await.unwrap_err(),
        registry.referrers("a", &digest, None).await.unwrap_err(),
    ] {
        assert_eq!(error.failure(), Failure::TooLarge, "{error}");
    }
    assert_eq!(scripted.got("GET /v2/a/tags/").len(), 5);
    assert_eq!(scripted.got("GET /v2/a/referrers/").len(), 5);
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up_though_pages_keep_coming() {
    let scripted = Scripted::start(|got| {
        let (_, path) = got.line.split_once(' ').unwrap();
        let next = format!("Link: <{path}>; rel=next");
        match path {
            path if path.starts_with("/v2/a/tags/list") => Some(Said::new(200, r#"{"tags":["x"]}"#).with(next)),
            path if path.starts_with("/v2/a/referrers/") => {
                let page = Said::new(200, r#"{"schemaVersion":2,"manifests":[]}"#);
                Some(page.with(format!("Content-Type: {INDEX}")).with(next))
            }
            _ => None,
        }
    })
    .await;
    let mut options = options();
    // No page comes within no time.
    options.limits.list = Duration::ZERO;
    let registry = Registry::connect(&scripted.address, RegistryCredentials::Anonymous, options)
        .await
        .unwrap();
    for error in [
        registry.tags("a").await.unwrap_err(),
        registry.referrers("a", &Digest::of(b"x"), None).await.unwrap_err(),
    ] {
        assert_eq!(error.failure(), Failure::Unreachable, "{error}");
        assert!(error.to_string().contains("did not end within"), "{error}");
    }
}
