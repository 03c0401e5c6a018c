//! A registry in this process that keeps what is written, as Debian's does, and misbehaves when the test tells it to.
//!
//! It speaks HTTP/1.1 by hand, with threads. It lists no referrers, and deletes tags only where it is told so: that is the
//! usual registry.
#![expect(clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::mutex::lock;

/// Media type of OCI's manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A scripted registry, listening from its start to the end of the test's process.
#[derive(Clone)]
pub struct ScriptedRegistry {
    address: String,
    shared: Arc<Mutex<RegistryShared>>,
}

struct RegistryShared {
    store: RegistryStore,
    interference: Interference,
    requests: Vec<String>,
}

/// What is done about a request before it is answered: the store may be changed, as another writer would. `None` lets the
/// registry answer.
pub type Interference = Box<dyn FnMut(&str, &mut RegistryStore) -> Option<Misbehaviour> + Send>;

/// How a scripted registry misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// This status, and nothing is done.
    Status(u16),
    /// What was asked for is done, and the connection closed without an answer.
    DoneUnsaid,
    /// The connection is closed, and nothing is done.
    HangUp,
    /// Nothing is done or said until the other side closes the connection.
    Silence,
}

/// What a scripted registry holds.
#[derive(Debug, Default)]
pub struct RegistryStore {
    /// By repository and tag or digest.
    manifests: BTreeMap<(String, String), StoredManifest>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// Whether a tag can be deleted.
    pub deletes_tags: bool,
    /// Whether the manifest, with all its tags, is deleted with a tag.
    pub deletes_manifests: bool,
}

#[derive(Clone, Debug)]
struct StoredManifest {
    media_type: String,
    bytes: Vec<u8>,
}

impl RegistryStore {
    /// Puts an image that is like no other of another name, and returns the digest of its manifest.
    pub fn image(&mut self, repository: &str, tag: &str, what: &str, annotations: &Value) -> String {
        let config = json!({ "what": what, "config": { "Labels": annotations } }).to_string();
        let layer = what.as_bytes().to_vec();
        let describe = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "size": bytes.len(), "digest": digest(bytes) });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)],
            "annotations": annotations,
        });
        for blob in [config.into_bytes(), layer] {
            self.blobs.insert(digest(&blob), blob);
        }
        self.manifest(repository, tag, MANIFEST, manifest.to_string().as_bytes())
    }

    /// Puts a manifest by this tag or digest, and returns its digest.
    pub fn manifest(&mut self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> String {
        let stored = StoredManifest {
            media_type: media_type.to_owned(),
            bytes: bytes.to_vec(),
        };
        let digest = digest(bytes);
        for reference in [reference, &digest] {
            self.manifests
                .insert((repository.to_owned(), reference.to_owned()), stored.clone());
        }
        digest
    }

    /// The digest of what a tag names.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<String> {
        let stored = self.manifests.get(&(repository.to_owned(), tag.to_owned()))?;
        Some(digest(&stored.bytes))
    }

    /// Forgets a tag or a manifest.
    pub fn forget(&mut self, repository: &str, reference: &str) {
        self.manifests.remove(&(repository.to_owned(), reference.to_owned()));
    }

    fn answer(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> RegistryAnswer {
        if path == "/v2/" {
            return RegistryAnswer::new(200, "{}");
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let Some(path) = path.strip_prefix("/v2/") else {
            return RegistryAnswer::error(404, "NOT_FOUND");
        };
        if let Some((repository, reference)) = path.split_once("/manifests/") {
            return self.manifests(method, repository, reference, content_type, body);
        }
        let Some((repository, rest)) = path.split_once("/blobs/") else {
            return RegistryAnswer::new(404, "404 page not found");
        };
        match method {
            "POST" => RegistryAnswer::new(202, "").with("Location", &format!("/v2/{repository}/blobs/uploads/1?x=1")),
            "PUT" => {
                let asked = query.split('&').find_map(|pair| pair.strip_prefix("digest="));
                let digest = digest(body);
                match asked.map(|asked| asked.replace("%3A", ":")) == Some(digest.clone()) {
                    true => {
                        self.blobs.insert(digest, body.to_vec());
                        RegistryAnswer::new(201, "")
                    }
                    false => RegistryAnswer::error(400, "DIGEST_INVALID"),
                }
            }
            _ => match self.blobs.get(rest) {
                Some(blob) => RegistryAnswer::new(200, blob.clone()),
                None => RegistryAnswer::error(404, "BLOB_UNKNOWN"),
            },
        }
    }

    fn manifests(
        &mut self,
        method: &str,
        repository: &str,
        reference: &str,
        content_type: &str,
        body: &[u8],
    ) -> RegistryAnswer {
        let place = (repository.to_owned(), reference.to_owned());
        match method {
            "PUT" => {
                let digest = self.manifest(repository, reference, content_type, body);
                RegistryAnswer::new(201, "").with("Docker-Content-Digest", &digest)
            }
            "DELETE" if !self.deletes_tags => RegistryAnswer::error(405, "UNSUPPORTED"),
            "DELETE" => match self.manifests.remove(&place) {
                Some(deleted) => {
                    let with_it = |other: &StoredManifest| other.bytes == deleted.bytes;
                    if self.deletes_manifests {
                        self.manifests
                            .retain(|(other, _), stored| other != repository || !with_it(stored));
                    }
                    RegistryAnswer::new(202, "")
                }
                None => RegistryAnswer::error(404, "MANIFEST_UNKNOWN"),
            },
            _ => match self.manifests.get(&place) {
                Some(stored) => RegistryAnswer::new(200, stored.bytes.clone())
                    .with("Content-Type", &stored.media_type)
                    .with("Docker-Content-Digest", &digest(&stored.bytes)),
                None => RegistryAnswer::error(404, "MANIFEST_UNKNOWN"),
            },
        }
    }
}

impl ScriptedRegistry {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let registry = Self {
            address: listener.local_addr().expect("it is bound").to_string(),
            shared: Arc::new(Mutex::new(RegistryShared {
                store: RegistryStore::default(),
                interference: Box::new(|_, _| None),
                requests: Vec::new(),
            })),
        };
        let serving = registry.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let registry = serving.clone();
                // Some tests have clients that go away in the middle.
                thread::spawn(move || drop(registry.converse(&stream)));
            }
        });
        registry
    }

    /// What precedes repositories in references: `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Looks at what it holds, or changes it.
    pub fn store<T>(&self, change: impl FnOnce(&mut RegistryStore) -> T) -> T {
        change(&mut lock(&self.shared).store)
    }

    /// From here on, each request (`PUT /v2/base/manifests/stable`) is shown to this first.
    pub fn interfere(
        &self,
        interference: impl FnMut(&str, &mut RegistryStore) -> Option<Misbehaviour> + Send + 'static,
    ) {
        lock(&self.shared).interference = Box::new(interference);
    }

    /// The requests so far that begin so, in order.
    pub fn requests(&self, begin: &str) -> Vec<String> {
        let shared = lock(&self.shared);
        let found = shared.requests.iter().filter(|request| request.starts_with(begin));
        found.cloned().collect()
    }

    fn converse(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            // What is no HTTP, such as TLS, is not UTF-8 either.
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split_whitespace();
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (mut length, mut content_type) = (0, String::new());
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.split_once(':') else {
                    break;
                };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                    "content-type" => value.trim().clone_into(&mut content_type),
                    _ => {}
                }
            }
            let mut body = Vec::new();
            reader.by_ref().take(length).read_to_end(&mut body)?;
            let answer = {
                let mut shared = lock(&self.shared);
                let shared = &mut *shared;
                let request = format!("{method} {path}");
                let misbehaviour = (shared.interference)(&request, &mut shared.store);
                shared.requests.push(request);
                let mut answer = || shared.store.answer(method, path, &content_type, &body);
                match misbehaviour {
                    None => Some(answer()),
                    Some(Misbehaviour::Status(status)) => Some(RegistryAnswer::error(status, "UNKNOWN")),
                    Some(Misbehaviour::DoneUnsaid) => {
                        answer();
                        return Ok(());
                    }
                    Some(Misbehaviour::HangUp) => return Ok(()),
                    Some(Misbehaviour::Silence) => None,
                }
            };
            let Some(answer) = answer else {
                reader.read_to_end(&mut Vec::new())?;
                return Ok(());
            };
            stream.write_all(&answer.bytes(method == "HEAD"))?;
        }
    }
}

/// An answer.
struct RegistryAnswer {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl RegistryAnswer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    fn error(status: u16, code: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": format!("so it is: {code}") }] });
        Self::new(status, body.to_string())
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}\r\n"));
        self
    }

    fn bytes(&self, is_head: bool) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {} Scripted\r\n{}Content-Length: {}\r\n\r\n",
            self.status,
            self.headers.concat(),
            self.body.len()
        );
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend(&self.body);
        }
        bytes
    }
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter()
        .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
