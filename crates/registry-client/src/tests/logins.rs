//! Logins: where they go, and where they never go.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Said, Scripted};
use crate::{Failure, RegistryCredentials, many};

const SECRET: &str = "s3cret";

fn ann() -> RegistryCredentials {
    RegistryCredentials::Password {
        user: "ann".to_owned(),
        secret: SECRET.to_owned(),
    }
}

/// `ann:s3cret`
const BASIC: &str = "Basic YW5uOnMzY3JldA==";

fn index() -> Said {
    Said::new(200, r#"{"schemaVersion":2,"manifests":[]}"#).with(format!("Content-Type: {}", crate::INDEX))
}

fn challenged(challenge: &str) -> Option<Said> {
    Some(Said::error(401, "UNAUTHORIZED").with(format!("WWW-Authenticate: {challenge}")))
}

#[tokio::test]
async fn a_password_is_sent_where_it_is_asked_for() {
    let scripted = Scripted::start(|got| match got.header("authorization") {
        Some(BASIC) => Some(index()),
        _ => challenged("Basic realm=\"x\""),
    })
    .await;
    let registry = scripted.connect(ann()).await.unwrap();
    assert!(registry.manifest("a", "1").await.unwrap().is_some());
    // It is known by now what it asks for: nothing is asked twice.
    assert_eq!(scripted.got("GET /v2/a/").len(), 1);
    let wrong = RegistryCredentials::Password {
        user: "ann".to_owned(),
        secret: "wr0ng".to_owned(),
    };
    for (credentials, words) in [
        (wrong, "refuses the login"),
        (RegistryCredentials::Anonymous, "asks for a login"),
    ] {
        let registry = scripted.connect(credentials).await.unwrap();
        let error = registry.manifest("a", "1").await.unwrap_err();
        assert_eq!(error.failure(), Failure::Unauthorized);
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error}{error:?}{registry:?}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_once_for_all_that_need_it() {
    let token = Scripted::start(|got| {
        let (_, query) = got.line.split_once('?').unwrap();
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let scope = &pairs.iter().find(|(name, _)| name == "scope").unwrap().1;
        let service = pairs.iter().any(|(name, value)| name == "service" && value == "reg");
        assert!(service, "{query}");
        let is_ann = got.header("authorization") == Some(BASIC);
        Some(match scope.as_str() {
            "repository:a:pull" if is_ann => Said::new(200, r#"{"token":"t0ken","expires_in":300}"#),
            "repository:a:pull,push" if is_ann => Said::new(200, r#"{"access_token":"wr1te"}"#),
            "repository:broken:pull" => Said::new(503, "t0ken"),
            "repository:odd:pull" => Said::new(200, r#"{"tok":"t0ken"}"#),
            "repository:denied:pull" => Said::error(403, "DENIED"),
            _ => Said::error(401, "UNAUTHORIZED"),
        })
    })
    .await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"reg\"", token.address);
    let scripted = Scripted::start(move |got| {
        let authorization = got.header("authorization").unwrap_or_default();
        match (got.line.as_str(), authorization) {
            (line, "Bearer t0ken") if line.starts_with("GET /v2/a/") => Some(index()),
            (line, "Bearer wr1te") if line.starts_with("PUT /v2/a/") => Some(Said::new(201, "")),
            _ => challenged(&realm),
        }
    })
    .await;
    let registry = scripted.connect(ann()).await.unwrap();
    let tags: Vec<String> = (0..8).map(|number| format!("t{number}")).collect();
    for found in many(&tags, |tag| registry.manifest("a", tag)).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(token.got("GET /token").len(), 1);
    registry
        .put_manifest("a", "new", crate::INDEX, "{}".into())
        .await
        .unwrap();
    assert_eq!(token.got("GET /token").len(), 2);
    for (repository, failure) in [
        ("broken", Failure::Server(503)),
        ("odd", Failure::Invalid),
        ("denied", Failure::Forbidden),
        ("other", Failure::Unauthorized),
    ] {
        let error = registry.manifest(repository, "1").await.unwrap_err();
        assert_eq!(error.failure(), failure, "{error}");
        assert!(!format!("{error:?}").contains("t0ken"), "{error:?}");
    }
    // The password never went to the registry itself, which asked for a token.
    assert!(
        scripted
            .got("")
            .iter()
            .all(|got| got.header("authorization") != Some(BASIC))
    );
}

#[tokio::test]
async fn a_token_that_ended_is_replaced_once() {
    let given = AtomicUsize::new(0);
    let token = Scripted::start(move |_| {
        let number = given.fetch_add(1, Ordering::SeqCst);
        Some(Said::new(200, format!(r#"{{"token":"t{number}"}}"#)))
    })
    .await;
    let realm = format!("Bearer realm=\"http://{}/\"", token.address);
    let scripted = Scripted::start(move |got| match (got.line.as_str(), got.header("authorization")) {
        ("GET /v2/a/manifests/1", Some("Bearer t0")) => Some(index()),
        ("GET /v2/a/manifests/2", Some("Bearer t1")) => Some(index()),
        _ => challenged(&realm),
    })
    .await;
    let registry = scripted.connect(ann()).await.unwrap();
    assert!(registry.manifest("a", "1").await.unwrap().is_some());
    assert!(registry.manifest("a", "2").await.unwrap().is_some());
    let error = registry.manifest("a", "3").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unauthorized);
    assert_eq!(scripted.got("GET /v2/a/manifests/3").len(), 2);
}

#[tokio::test]
async fn a_right_that_a_login_lacks_is_forbidden() {
    let token = Scripted::start(|_| Some(Said::new(200, r#"{"token":"t"}"#))).await;
    let realm = format!("Bearer realm=\"http://{}/\"", token.address);
    let scripted = Scripted::start(move |got| match got.header("authorization") {
        Some(_) => challenged(&format!("{realm},error=\"insufficient_scope\"")),
        None => challenged(&realm),
    })
    .await;
    let registry = scripted.connect(ann()).await.unwrap();
    let error = registry.manifest("a", "1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Forbidden, "{error}");
    let registry = scripted.anonymous().await;
    let error = registry.manifest("a", "1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unauthorized, "{error}");
}

#[tokio::test]
async fn an_identity_token_is_sent_in_a_body() {
    let token = Scripted::start(|got| {
        let body = String::from_utf8(got.body.clone()).unwrap();
        let right = "grant_type=refresh_token&client_id=dockerutils&scope=repository%3Aa%3Apull&refresh_token=s3cret";
        Some(match got.line == "POST /token" && body == right {
            true => Said::new(200, r#"{"access_token":"t"}"#),
            false => Said::new(400, body),
        })
    })
    .await;
    let realm = format!("Bearer realm=\"http://{}/token\"", token.address);
    let scripted = Scripted::start(move |got| match got.header("authorization") {
        Some("Bearer t" | "Bearer r4w") => Some(index()),
        _ => challenged(&realm),
    })
    .await;
    for credentials in [
        RegistryCredentials::IdentityToken(SECRET.to_owned()),
        RegistryCredentials::RegistryToken("r4w".to_owned()),
    ] {
        let registry = scripted.connect(credentials).await.unwrap();
        assert!(registry.manifest("a", "1").await.unwrap().is_some());
    }
    assert_eq!(token.got("").len(), 1);
}

#[tokio::test]
async fn no_login_goes_to_a_strangers_realm_without_tls() {
    // Another loopback address is another host.
    for realm in [
        "http://127.0.0.2:1/",
        "ftp://127.0.0.1/",
        "nonsense",
        "http://ann:b@127.0.0.1:1/",
    ] {
        let scripted = Scripted::start(move |_| challenged(&format!("Bearer realm=\"{realm}\""))).await;
        let registry = scripted.connect(ann()).await.unwrap();
        let error = registry.manifest("a", "1").await.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid, "{error}");
        assert!(!format!("{error:?}").contains(SECRET));
        assert!(scripted.got("").iter().all(|got| got.header("authorization").is_none()));
    }
}

#[tokio::test]
async fn a_redirect_carries_no_login_to_another_place() {
    let other = Scripted::start(|got| match got.line.as_str() {
        "GET /stored" => Some(index()),
        "PUT /upload?a=b&digest=sha256%3A44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" => {
            Some(Said::new(201, ""))
        }
        _ => Some(Said::new(500, "")),
    })
    .await;
    let address = other.address.clone();
    let scripted = Scripted::start(move |got| {
        let authorization = got.header("authorization");
        let to = |path: &str| format!("Location: {path}");
        match (got.line.as_str(), authorization) {
            (_, None) => challenged("Basic realm=x"),
            ("GET /v2/a/manifests/away", _) => Some(Said::new(307, "").with(to(&format!("http://{address}/stored")))),
            ("GET /v2/a/manifests/here", _) => Some(Said::new(302, "").with(to("near"))),
            ("GET /v2/a/manifests/near", _) => Some(index()),
            ("GET /v2/a/manifests/round", _) => Some(Said::new(302, "").with(to("round"))),
            ("GET /v2/a/manifests/file", _) => Some(Said::new(302, "").with(to("file:///etc/passwd"))),
            ("POST /v2/a/blobs/uploads/", _) => {
                Some(Said::new(202, "").with(to(&format!("http://{address}/upload?a=b"))))
            }
            _ => Some(Said::error(404, "BLOB_UNKNOWN")),
        }
    })
    .await;
    let registry = scripted.connect(ann()).await.unwrap();
    for reference in ["away", "here"] {
        assert!(
            registry.manifest("a", reference).await.unwrap().is_some(),
            "{reference}"
        );
    }
    for reference in ["round", "file"] {
        let error = registry.manifest("a", reference).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid, "{error}");
    }
    registry.put_blob("a", "{}".into()).await.unwrap();
    let there = other.got("");
    assert_eq!(there.len(), 2, "{there:?}");
    assert!(
        there.iter().all(|got| got.header("authorization").is_none()),
        "{there:?}"
    );
}
