//! Connections that are closed at the moment at which they are used again.

use std::collections::BTreeSet;
use std::sync::Arc;

use dock_client::digest::Digest;
use tokio::sync::Barrier;

use super::{Got, Said, Scripted, settled};
use crate::{Failure, INDEX, RegistryCredentials, many};

const INDEX_TEXT: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

/// What a registry with everything says.
fn answered(got: &Got) -> Said {
    let (method, path) = got.line.split_once(' ').unwrap();
    match method {
        "PUT" => Said::new(201, ""),
        "DELETE" => Said::new(202, ""),
        "POST" => Said::new(202, "").with("Location: /v2/a/blobs/uploads/1"),
        "HEAD" if path.contains("/blobs/") => Said::error(404, "BLOB_UNKNOWN"),
        _ => Said::new(200, INDEX_TEXT)
            .with(format!("Content-Type: {INDEX}"))
            .with(format!("Docker-Content-Digest: {}", Digest::of(INDEX_TEXT.as_bytes()))),
    }
}

#[tokio::test]
async fn what_is_sent_over_a_connection_that_is_just_closed_is_sent_again() {
    // Each connection answers once, and ends at the second request.
    let scripted = Scripted::start(|got| {
        Some(match got.number {
            1 => answered(got),
            _ => Said::hang_up(),
        })
    })
    .await;
    let registry = scripted.anonymous().await;
    let all = ["DELETE", "GET", "HEAD", "POST", "PUT"];
    let lost = || -> BTreeSet<String> {
        let got = scripted.got("").into_iter().filter(|got| got.number == 2);
        got.map(|got| got.line.split_once(' ').unwrap().0.to_owned()).collect()
    };
    // Each is sent until it was the second on its connection.
    for _ in 0..20 {
        for asked in 0..2 {
            settled().await;
            assert!(registry.manifest("a", "1").await.unwrap().is_some());
            settled().await;
            assert!(registry.head("a", "1").await.unwrap().is_some());
            settled().await;
            let put = registry.put_manifest("a", "2", INDEX, INDEX_TEXT.into()).await;
            put.unwrap();
            settled().await;
            assert!(registry.delete("a", "3").await.unwrap());
            settled().await;
            if asked == 0 {
                registry.put_blob("a", "x".into()).await.unwrap();
            }
        }
        if lost().len() == all.len() {
            break;
        }
    }
    assert!(lost().iter().eq(all.iter()), "{:?}", lost());
}

#[tokio::test]
async fn any_number_of_connections_may_be_closed_at_once() {
    const CONNECTIONS: usize = 8;
    let gate = Arc::new(Barrier::new(CONNECTIONS));
    let waiting = Arc::clone(&gate);
    let scripted = Scripted::start(move |got| {
        Some(match (got.number, got.line.ends_with("/first")) {
            (_, true) => answered(got).behind(&waiting),
            (1, _) => answered(got),
            _ => Said::hang_up(),
        })
    })
    .await;
    let registry = scripted.anonymous().await;
    // As many connections as requests, all of which are kept; the one of the beginning is one of them.
    for found in many(0..CONNECTIONS, |_| registry.manifest("a", "first")).await {
        assert!(found.unwrap().is_some());
    }
    for found in many(0..CONNECTIONS, |_| registry.manifest("a", "second")).await {
        assert!(found.unwrap().is_some());
    }
    // Also one after the other, where each may meet one that is closed.
    for _ in 0..CONNECTIONS {
        assert!(registry.manifest("a", "second").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn who_always_closes_is_asked_once_more_and_no_more() {
    let scripted = Scripted::start(|got| match got.line.as_str() {
        "GET /v2/" => None,
        _ => Some(Said::hang_up()),
    })
    .await;
    let registry = scripted.anonymous().await;
    settled().await;
    let error = registry.manifest("a", "1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable);
    assert_eq!(
        error.to_string(),
        format!("{}/a:1: it closed the connection without an answer", scripted.address)
    );
    assert_eq!(scripted.got("GET /v2/a/").len(), 2);
    // Over a connection that never answered, it was no accident.
    let error = registry.manifest("a", "2").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable);
    assert_eq!(scripted.got("GET /v2/a/manifests/2").len(), 1);
}

#[tokio::test]
async fn an_identity_token_is_not_sent_twice() {
    let token = Scripted::start(|got| {
        Some(match got.number {
            1 => Said::new(200, r#"{"access_token":"t"}"#),
            _ => Said::hang_up(),
        })
    })
    .await;
    let realm = format!("Bearer realm=\"http://{}/token\"", token.address);
    let scripted = Scripted::start(move |got| {
        Some(match got.header("authorization") {
            Some(_) => answered(got),
            None => Said::error(401, "UNAUTHORIZED").with(format!("WWW-Authenticate: {realm}")),
        })
    })
    .await;
    let registry = scripted
        .connect(RegistryCredentials::IdentityToken("s3cret".to_owned()))
        .await
        .unwrap();
    assert!(registry.manifest("a", "1").await.unwrap().is_some());
    settled().await;
    let error = registry.manifest("b", "1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unreachable, "{error}");
    assert_eq!(token.got("POST /token").len(), 2);
}
