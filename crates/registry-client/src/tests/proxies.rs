//! Registries that are reached by a proxy.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dock_client::env::Env;
use dock_client::mutex::lock;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Said, Scripted, options, serve};
use crate::{Error, Failure, INDEX, Options, Proxies, Registry, RegistryCredentials};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/samples");
/// The name in the samples' certificate, which nobody resolves.
const HOST: &str = "reg.example:5000";
/// `ann:s3cret` and `bob:w0rd`
const TO_PROXY: &str = "Basic YW5uOnMzY3JldA==";
const TO_REGISTRY: &str = "Basic Ym9iOncwcmQ=";

/// A proxy that answers a CONNECT with this, and then is the registry itself.
async fn proxy(answer: &'static str, registry: &Scripted) -> (String, Arc<Mutex<Vec<String>>>) {
    let config = rustls::ServerConfig::builder_with_provider(tls_trust::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(format!("{SAMPLES}/server.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(format!("{SAMPLES}/server.key")).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, registry) = (Arc::<Mutex<Vec<String>>>::default(), registry.clone());
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (heads, registry, acceptor) = (Arc::clone(&seen), registry.clone(), acceptor.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                lock(&heads).push(String::from_utf8(head).unwrap());
                stream.write_all(answer.as_bytes()).await?;
                let stream = acceptor.accept(stream).await?;
                let script = |got: &super::Got| {
                    Some(match (got.line.as_str(), got.header("authorization")) {
                        (_, Some(TO_REGISTRY)) => {
                            let index = r#"{"schemaVersion":2,"manifests":[]}"#;
                            Said::new(200, index).with(format!("Content-Type: {INDEX}"))
                        }
                        _ => Said::error(401, "UNAUTHORIZED").with("WWW-Authenticate: Basic realm=x"),
                    })
                };
                serve(stream, registry, Arc::new(script)).await;
                std::io::Result::Ok(())
            });
        }
    });
    (address, heads)
}

fn by(proxy: &str) -> Options {
    let url = format!("http://ann:s3cret@{proxy}");
    Options {
        proxies: Proxies::from_env(&Env::from_pairs([("HTTP_PROXY", &url), ("https_proxy", &url)])),
        ..options()
    }
}

async fn connect(options: Options) -> Result<Registry, Error> {
    let bob = RegistryCredentials::Password {
        user: "bob".to_owned(),
        secret: "w0rd".to_owned(),
    };
    Registry::connect(HOST, bob, options).await
}

/// A folder like docker's, with the samples' authority for the host.
fn certificates() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join(HOST);
    fs::create_dir(&place).unwrap();
    fs::copy(format!("{SAMPLES}/ca.crt"), place.join("ca.crt")).unwrap();
    let folders = vec![folder.path().to_owned()];
    (folder, folders)
}

#[tokio::test]
async fn a_proxy_leads_to_the_registry_and_sees_only_its_own_login() {
    let scripted = Scripted::start(|_| None).await;
    let (address, heads) = proxy("HTTP/1.1 200 Connection established\r\n\r\n", &scripted).await;
    let (_folder, folders) = certificates();
    let mut options = by(&address);
    options.certificates = folders;
    let registry = connect(options).await.unwrap();
    assert!(registry.is_encrypted());
    assert!(registry.manifest("a", "1").await.unwrap().is_some());
    let heads = lock(&heads).clone();
    for head in &heads {
        assert!(head.starts_with("CONNECT reg.example:5000 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(TO_PROXY), "{head}");
        assert!(!head.contains(TO_REGISTRY), "{head}");
    }
    assert!(!heads.is_empty());
    // Through TLS, and with the registry's login alone.
    let got = scripted.got("GET /v2/a/manifests/1").remove(0);
    assert_eq!(got.header("authorization"), Some(TO_REGISTRY));
    assert_eq!(got.header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_proxy_that_does_not_lead_there_is_named_without_its_login() {
    let scripted = Scripted::start(|_| None).await;
    for (answer, says) in [
        ("HTTP/1.1 407 So\r\n\r\n", "proxy authorization required"),
        ("HTTP/1.1 403 So\r\n\r\n", "unsuccessful"),
        ("220 smtp.example\r\n\r\n", "unsuccessful"),
    ] {
        let (address, _) = proxy(answer, &scripted).await;
        let error = connect(by(&address)).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Unreachable);
        let message = error.to_string();
        let begin = format!("{HOST}: the proxy http://{address} does not lead to {HOST}: ");
        assert!(message.starts_with(&begin), "{message}");
        assert!(message.contains(says), "{message}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let message = connect(by(&address)).await.unwrap_err().to_string();
    assert!(
        message.contains(&format!("the proxy http://{address} does not lead")),
        "{message}"
    );
    assert!(message.contains("refused"), "{message}");
    let mut wrong = options();
    wrong.proxies = Proxies::from_env(&Env::from_pairs([("HTTPS_PROXY", "ftp://ann:s3cret@p.example")]));
    let error = connect(wrong).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    assert!(error.to_string().contains("HTTPS_PROXY is not the URL"), "{error}");
}

#[tokio::test]
async fn a_registry_without_tls_is_asked_for_by_its_whole_url() {
    let scripted = Scripted::start(|got| match got.line.as_str() {
        "GET http://reg.example:5000/v2/" => Some(Said::new(200, "{}")),
        line if line.starts_with("CONNECT ") => Some(Said::new(405, "")),
        _ => None,
    })
    .await;
    let mut options = by(&scripted.address);
    options.insecure = true;
    let registry = connect(options).await.unwrap();
    assert!(!registry.is_encrypted());
    let got = scripted.got("GET http://reg.example:5000/v2/").remove(0);
    assert_eq!(got.header("proxy-authorization"), Some(TO_PROXY));
    assert_eq!(got.header("host"), Some(HOST));
}

#[tokio::test]
async fn a_loopback_registry_is_reached_without_a_proxy() {
    let proxy = Scripted::start(|_| None).await;
    let scripted = Scripted::start(|_| None).await;
    let registry = Registry::connect(&scripted.address, RegistryCredentials::Anonymous, by(&proxy.address))
        .await
        .unwrap();
    assert!(registry.manifest("a", "1").await.unwrap().is_none());
    assert_eq!(scripted.got("GET /v2/a/manifests/1").len(), 1);
    assert_eq!(proxy.got("").len(), 0);
}
