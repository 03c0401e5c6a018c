//! A registry that says what a test has it say.

mod answers;
mod connections;
mod logins;
mod proxies;
mod referrers;
mod untag;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::mutex::lock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use crate::{Error, Options, Registry, RegistryCredentials, TimeLimits};

/// A request that the registry got.
#[derive(Clone, Debug)]
pub(super) struct Got {
    /// Such as `GET /v2/`.
    pub(super) line: String,
    /// In lower case, up to their values.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Which one of its connection it is: 1 is the first.
    pub(super) number: usize,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// An answer: the status, header lines, the body.
#[derive(Clone, Debug)]
pub(super) struct Said {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// What is sent in place of all that; nothing follows it.
    raw: Option<Vec<u8>>,
    /// The connection is closed, and nothing is sent.
    hangs_up: bool,
    /// It is sent when as many requests wait here as this is for.
    gate: Option<Arc<Barrier>>,
}

impl Said {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            raw: None,
            hangs_up: false,
            gate: None,
        }
    }

    pub(super) fn with(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    pub(super) fn behind(mut self, gate: &Arc<Barrier>) -> Self {
        self.gate = Some(Arc::clone(gate));
        self
    }

    /// These bytes; then the connection is closed, or, without any, silence.
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self {
            raw: Some(bytes.to_vec()),
            ..Self::new(0, "")
        }
    }

    /// Nothing: the connection is closed.
    pub(super) fn hang_up() -> Self {
        Self {
            hangs_up: true,
            ..Self::new(0, "")
        }
    }

    /// A registry's error.
    pub(super) fn error(status: u16, code: &str) -> Self {
        Self::new(
            status,
            format!(r#"{{"errors":[{{"code":"{code}","message":"so it is"}}]}}"#),
        )
    }
}

/// A scripted registry on a port of its own, without TLS.
#[derive(Clone)]
pub(super) struct Scripted {
    pub(super) address: String,
    got: Arc<Mutex<Vec<Got>>>,
    under_way: Arc<UnderWay>,
}

/// How many requests wait for an answer, and how many did at most.
#[derive(Debug, Default)]
struct UnderWay {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Scripted {
    /// Answers each request as this says; `GET /v2/` is answered with 200 where it says nothing.
    pub(super) async fn start(script: impl Fn(&Got) -> Option<Said> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scripted = Self {
            address,
            got: Arc::default(),
            under_way: Arc::default(),
        };
        let (shared, script) = (scripted.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), Arc::clone(&script)));
            }
        });
        scripted
    }

    pub(super) async fn connect(&self, credentials: RegistryCredentials) -> Result<Registry, Error> {
        Registry::connect(&self.address, credentials, options()).await
    }

    pub(super) async fn anonymous(&self) -> Registry {
        self.connect(RegistryCredentials::Anonymous).await.unwrap()
    }

    /// How many requests waited for an answer at the same time.
    pub(super) fn most_at_once(&self) -> usize {
        self.under_way.most.load(Ordering::SeqCst)
    }

    /// What it got that begins so.
    pub(super) fn got(&self, line: &str) -> Vec<Got> {
        let got = lock(&self.got);
        got.iter().filter(|got| got.line.starts_with(line)).cloned().collect()
    }
}

pub(super) fn options() -> Options {
    Options {
        certificates: Vec::new(),
        limits: TimeLimits {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(20),
            whole: Duration::from_secs(20),
            list: Duration::from_secs(20),
        },
        ..Options::default()
    }
}

/// Lets what is ready go on, so that a connection whose answer was read is idle.
pub(super) async fn settled() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

async fn serve<F>(mut stream: impl AsyncRead + AsyncWrite + Unpin, scripted: Scripted, script: Arc<F>)
where
    F: Fn(&Got) -> Option<Said> + Send + Sync,
{
    let mut bytes = Vec::new();
    for number in 1.. {
        let Some(mut got) = request(&mut stream, &mut bytes).await else {
            return;
        };
        got.number = number;
        lock(&scripted.got).push(got.clone());
        let now = scripted.under_way.now.fetch_add(1, Ordering::SeqCst) + 1;
        scripted.under_way.most.fetch_max(now, Ordering::SeqCst);
        let is_ping = got.line == "GET /v2/";
        let said = script(&got).unwrap_or_else(|| match is_ping {
            true => Said::new(200, "{}"),
            false => Said::error(404, "MANIFEST_UNKNOWN"),
        });
        if let Some(gate) = &said.gate {
            gate.wait().await;
        }
        scripted.under_way.now.fetch_sub(1, Ordering::SeqCst);
        if said.hangs_up {
            return;
        }
        if let Some(raw) = said.raw {
            // Who has read enough closes the connection.
            let _ = stream.write_all(&raw).await;
            if raw.is_empty() {
                // Until the other side gives up.
                let _ = stream.read(&mut [0; 64]).await;
            }
            return;
        }
        let mut head = format!("HTTP/1.1 {} So\r\n", said.status);
        for header in &said.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", said.body.len()));
        let mut answer = head.into_bytes();
        if !got.line.starts_with("HEAD ") {
            answer.extend(&said.body);
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The next request; `None` at the end, and for what is not HTTP, such as TLS.
async fn request(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Option<Got> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if bytes.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return None;
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes.drain(..end + 4).collect()).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.strip_suffix(" HTTP/1.1")?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    while bytes.len() < length {
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Got {
        line,
        headers,
        body: bytes.drain(..length).collect(),
        number: 0,
    })
}
