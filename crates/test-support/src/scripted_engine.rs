//! A Docker engine on a Unix socket that answers as the test tells it to, and records the requests.
//!
//! It speaks HTTP/1.1 by hand, with threads: small enough to be read, and able to misbehave in every way that a real
//! engine, or the network in between, can.
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mutex::lock;

/// How long [`Reply::hang`] is silent: longer than any test runs.
const FOREVER: Duration = Duration::from_secs(3600);

/// A scripted engine, listening from its start to the end of the test.
///
/// It introduces itself as 26.1.5 (API 1.45, BuildKit) until the test says otherwise; a request without a scripted
/// answer gets a 404 with a message that says so.
#[derive(Debug)]
pub struct ScriptedEngine {
    directory: TempDir,
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    routes: Vec<Route>,
    recorded: Vec<Recorded>,
}

#[derive(Debug)]
struct Route {
    method: String,
    pattern: String,
    replies: VecDeque<Reply>,
}

/// A request that the engine received.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The path without the API's version and without the query, as `/containers/create`.
    pub path: String,
    /// The API's version that the path began with, as `1.45`; empty if it had none.
    pub version: String,
    /// The query, as it was sent.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body; of an upgraded connection, what was sent after the upgrade.
    pub body: Vec<u8>,
}

impl Recorded {
    /// The body as JSON; `Null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A scripted answer of the engine.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    /// Each piece is sent by itself, so that a client reads it as a chunk.
    pieces: Vec<Vec<u8>>,
    kind: ReplyKind,
    /// The time before the answer, and between its pieces.
    delay: Duration,
    /// Whether an upgraded connection ends before the start of its container.
    too_early: bool,
    /// A header without which a request is refused.
    needs: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyKind {
    /// A body of known length.
    Whole,
    /// A body in chunks.
    Stream,
    /// A body in chunks that breaks off: the connection is closed before its end.
    Die,
    /// A body in chunks that does not end.
    Endless,
    /// 101, then bytes in both directions.
    Upgrade,
    /// Bytes that are not HTTP.
    Raw,
    /// Nothing at all.
    Hang,
}

impl Reply {
    /// A JSON document.
    pub fn json(status: u16, document: &Value) -> Self {
        Self::new(status, ReplyKind::Whole, vec![document.to_string().into_bytes()])
            .header("Content-Type", "application/json")
    }

    /// An error as engines send it.
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &json!({ "message": message }))
    }

    /// A status without a body.
    pub fn empty(status: u16) -> Self {
        Self::new(status, ReplyKind::Whole, Vec::new())
    }

    /// Status 200 and any bytes.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, ReplyKind::Whole, vec![body.into()])
    }

    /// Status 200 and JSON documents one after the other, as builds, pulls and events report.
    pub fn stream(documents: &[Value]) -> Self {
        Self::new(
            200,
            ReplyKind::Stream,
            documents
                .iter()
                .map(|document| format!("{document}\r\n").into_bytes())
                .collect(),
        )
        .header("Content-Type", "application/json")
    }

    /// An upgraded connection (attach, exec): sends these pieces, then closes its sending half, and records what comes.
    ///
    /// Before its container is started, nothing is sent, and the streams stay open: the pieces of an attachment wait
    /// for the start, as an engine's do.
    pub fn upgrade<P: Into<Vec<u8>>>(pieces: impl IntoIterator<Item = P>) -> Self {
        Self::new(101, ReplyKind::Upgrade, pieces.into_iter().map(Into::into).collect())
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
            .header("Content-Type", "application/vnd.docker.raw-stream")
    }

    /// Bytes instead of HTTP, then the end of the connection.
    pub fn garbage(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(0, ReplyKind::Raw, vec![bytes.into()])
    }

    /// What an engine on this machine reports about itself, as far as it shows which machine that is, with these
    /// additions.
    pub fn this_machine(more: &Value) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo").lines().find_map(|line| {
            let number = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
            number.trim().parse::<u64>().ok()
        });
        let mut info = json!({
            "KernelVersion": read("/proc/sys/kernel/osrelease").trim(),
            "Name": read("/proc/sys/kernel/hostname").trim(),
            "MemTotal": memory.map(|kibibytes| kibibytes * 1024),
        });
        if let (Some(info), Some(more)) = (info.as_object_mut(), more.as_object()) {
            info.extend(more.clone());
        }
        Self::json(200, &info)
    }

    /// Closes the connection before any answer.
    pub fn hang_up() -> Self {
        Self::garbage(Vec::new())
    }

    /// Sends no answer, and keeps the connection open.
    pub fn hang() -> Self {
        Self::new(0, ReplyKind::Hang, Vec::new())
    }

    /// Closes the connection instead of ending the body.
    #[must_use]
    pub fn dying(mut self) -> Self {
        self.kind = ReplyKind::Die;
        self
    }

    /// Keeps the body open after its pieces: a log that is followed, a container that is waited for.
    #[must_use]
    pub fn endless(mut self) -> Self {
        self.kind = ReplyKind::Endless;
        self
    }

    /// Waits this long before the answer, and between the pieces of its body.
    #[must_use]
    pub fn slow(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// An upgraded connection that ends at once, whether the container was started or not.
    #[must_use]
    pub fn too_early(mut self) -> Self {
        self.too_early = true;
        self
    }

    /// The reply only to requests with this header, named in lower case; others are refused (403).
    #[must_use]
    pub fn needs(mut self, header: &str) -> Self {
        self.needs = Some(header.to_owned());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn new(status: u16, kind: ReplyKind, pieces: Vec<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            pieces,
            kind,
            delay: Duration::ZERO,
            too_early: false,
            needs: None,
        }
    }
}

impl Default for ScriptedEngine {
    fn default() -> Self {
        Self::start()
    }
}

impl ScriptedEngine {
    /// Starts to listen.
    pub fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("du")
            .tempdir()
            .expect("a temporary directory");
        // It plays an engine of this machine, and commands recognize one by the name of the program that listens.
        let _ = std::fs::write("/proc/self/comm", "dockerd");
        let listener = UnixListener::bind(directory.path().join("docker.sock")).expect("a short path");
        let script = Arc::<Mutex<Script>>::default();
        let shared = Arc::clone(&script);
        // The thread ends with the test's process; while it waits for connections, it costs nothing.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // Some tests have clients that go away in the middle.
                thread::spawn(move || drop(converse(&stream, &shared)));
            }
        });
        Self { directory, script }
    }

    /// Gives the program that listens another name than an engine's, as if `ssh -L` had made the socket. Applies to all
    /// engines of the test's process.
    #[must_use]
    pub fn behind(self, program: &str) -> Self {
        std::fs::write("/proc/self/comm", program).expect("the name of this process");
        self
    }

    /// Answers `method path` with `reply`. `path` has no version and no query; a `*` in it stands for any text.
    ///
    /// If this is called again for the same path, the replies are given in turn, and the last one from then on.
    #[must_use]
    pub fn on(self, method: &str, path: &str, reply: Reply) -> Self {
        let mut script = lock(&self.script);
        let same = |route: &&mut Route| route.method == method && route.pattern == path;
        match script.routes.iter_mut().find(same) {
            Some(route) => route.replies.push_back(reply),
            None => {
                let replies = VecDeque::from([reply]);
                script.routes.push(Route {
                    method: method.to_owned(),
                    pattern: path.to_owned(),
                    replies,
                });
            }
        }
        drop(script);
        self
    }

    /// From now on, answers `method path` with `reply` alone: in the middle of a test, after what it has awaited.
    pub fn answer(&self, method: &str, path: &str, reply: Reply) {
        let mut script = lock(&self.script);
        script
            .routes
            .retain(|route| route.method != method || route.pattern != path);
        let route = Route {
            method: method.to_owned(),
            pattern: path.to_owned(),
            replies: VecDeque::from([reply]),
        };
        // Before patterns that would match it, too.
        script.routes.insert(0, route);
    }

    /// Introduces itself as another version: `("20.10.24", "1.41")`.
    #[must_use]
    pub fn version(self, version: &str, api: &str) -> Self {
        let ping = ping(api);
        self.on("HEAD", "/_ping", ping.clone())
            .on("GET", "/_ping", ping)
            .on("GET", "/version", about(version, api))
    }

    /// Its address, for DOCKER_HOST.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Listens on TCP, too, and returns `127.0.0.1:PORT`.
    ///
    /// # Panics
    /// When the machine has no free port.
    pub fn tcp(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let socket = self.socket();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(engine) = UnixStream::connect(&socket) else {
                    return;
                };
                let (Ok(mut from_client), Ok(mut from_engine)) = (client.try_clone(), engine.try_clone()) else {
                    return;
                };
                let (mut to_client, mut to_engine) = (client, engine);
                // When one side goes away, the other is closed, too.
                thread::spawn(move || {
                    let _ = io::copy(&mut from_client, &mut to_engine);
                    let _ = to_engine.shutdown(Shutdown::Write);
                });
                thread::spawn(move || {
                    let _ = io::copy(&mut from_engine, &mut to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
            }
        });
        address
    }

    /// The path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        lock(&self.script).recorded.clone()
    }

    /// The only request of `method path`.
    ///
    /// # Panics
    /// When there was none, or more than one.
    pub fn request(&self, method: &str, path: &str) -> Recorded {
        let requests = self.requests();
        let mut found = requests
            .iter()
            .filter(|request| request.method == method && matches(path, &request.path));
        match (found.next(), found.next()) {
            (Some(request), None) => request.clone(),
            (one, _) => {
                let all: Vec<_> = requests
                    .iter()
                    .map(|request| format!("{} {}", request.method, request.path))
                    .collect();
                let count = if one.is_some() { "more than one" } else { "no" };
                panic!("{count} {method} {path} among: {all:#?}")
            }
        }
    }
}

/// Answers all requests of one connection.
fn converse(stream: &UnixStream, script: &Mutex<Script>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(request) = read_request(&mut reader, stream)? {
        let last = request.header("connection") == Some("close");
        let container = request.path.strip_suffix("/attach").map(str::to_owned);
        let (index, reply) = {
            let mut script = lock(script);
            let reply = script.reply(&request);
            let head = request.method == "HEAD";
            script.recorded.push(request);
            (
                script.recorded.len() - 1,
                if head {
                    Reply {
                        pieces: Vec::new(),
                        ..reply
                    }
                } else {
                    reply
                },
            )
        };
        let begin = || {
            if let Some(container) = container.filter(|_| reply.kind == ReplyKind::Upgrade && !reply.too_early) {
                wait_for_start(script, &container);
            }
        };
        if !send(stream, &reply, begin)? {
            return Ok(());
        }
        if reply.kind == ReplyKind::Upgrade {
            let mut sent = Vec::new();
            reader.read_to_end(&mut sent)?;
            if let Some(recorded) = lock(script).recorded.get_mut(index) {
                recorded.body = sent;
            }
            return Ok(());
        }
        if last {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

impl Script {
    fn reply(&mut self, request: &Recorded) -> Reply {
        let route = |route: &&mut Route| route.method == request.method && matches(&route.pattern, &request.path);
        if let Some(route) = self.routes.iter_mut().find(route) {
            let needed = route.replies.front().and_then(|reply| reply.needs.as_deref());
            if needed.is_some_and(|header| request.header(header).is_none()) {
                return Reply::error(403, "forbidden");
            }
            let next = if route.replies.len() > 1 {
                route.replies.pop_front()
            } else {
                route.replies.front().cloned()
            };
            return next.unwrap_or_else(Reply::hang_up);
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET" | "HEAD", "/_ping") => ping("1.45"),
            ("GET", "/version") => about("26.1.5", "1.45"),
            ("GET", "/info") => {
                let store = json!([["Backing Filesystem", "extfs"]]);
                let info = json!({ "ServerVersion": "26.1.5", "Driver": "overlay2", "DriverStatus": store,
                    "OSType": "linux", "Architecture": "x86_64", "Runtimes": { "runc": { "path": "runc" } } });
                Reply::this_machine(&info)
            }
            (method, path) => Reply::error(404, &format!("the scripted engine has no reply for {method} {path}")),
        }
    }
}

fn ping(api: &str) -> Reply {
    let headers = [
        ("Api-Version", api),
        ("Builder-Version", "2"),
        ("Docker-Experimental", "false"),
        ("Ostype", "linux"),
    ];
    headers
        .into_iter()
        .fold(Reply::bytes("OK"), |reply, (name, value)| reply.header(name, value))
}

fn about(version: &str, api: &str) -> Reply {
    let about =
        json!({ "Version": version, "ApiVersion": api, "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64" });
    Reply::json(200, &about)
}

/// Reads a request; `None` at the end of the connection.
fn read_request(reader: &mut impl BufRead, mut stream: &UnixStream) -> io::Result<Option<Recorded>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (version, path) = split_version(path);
    let mut request = Recorded {
        method,
        path: path.to_owned(),
        version: version.to_owned(),
        query: query.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        request
            .headers
            .push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding") == Some("chunked") {
        request.body = read_chunks(reader)?;
    } else if let Some(length) = request.header("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Waits until the start of `container`, as `/containers/c1`, was requested.
fn wait_for_start(script: &Mutex<Script>, container: &str) {
    let start = format!("{container}/start");
    while !lock(script).recorded.iter().any(|request| request.path == start) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a reply; returns whether the connection goes on after it. `begin` returns when the body may follow the head.
fn send(mut stream: &UnixStream, reply: &Reply, begin: impl FnOnce()) -> io::Result<bool> {
    thread::sleep(reply.delay);
    if reply.kind == ReplyKind::Hang {
        thread::sleep(FOREVER);
        return Ok(false);
    }
    if reply.kind != ReplyKind::Raw {
        stream.write_all(head(reply).as_bytes())?;
    }
    begin();
    for (index, piece) in reply.pieces.iter().enumerate() {
        if index > 0 {
            thread::sleep(reply.delay);
        }
        match reply.kind {
            ReplyKind::Stream | ReplyKind::Die | ReplyKind::Endless => {
                write!(stream, "{:x}\r\n", piece.len())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            }
            _ => stream.write_all(piece)?,
        }
    }
    match reply.kind {
        ReplyKind::Stream => stream.write_all(b"0\r\n\r\n")?,
        ReplyKind::Upgrade => stream.shutdown(Shutdown::Write)?,
        ReplyKind::Raw | ReplyKind::Die => {
            stream.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        ReplyKind::Endless => {
            thread::sleep(FOREVER);
            return Ok(false);
        }
        ReplyKind::Whole | ReplyKind::Hang => {}
    }
    Ok(true)
}

fn head(reply: &Reply) -> String {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.kind {
        // 204 and 304 have no body by definition, and no length.
        ReplyKind::Whole if reply.status != 204 && reply.status != 304 => {
            head.push_str(&format!(
                "Content-Length: {}\r\n",
                reply.pieces.iter().map(Vec::len).sum::<usize>()
            ));
        }
        ReplyKind::Stream | ReplyKind::Die | ReplyKind::Endless => head.push_str("Transfer-Encoding: chunked\r\n"),
        _ => {}
    }
    head + "\r\n"
}

/// `/v1.45/info` is `1.45` and `/info`.
fn split_version(path: &str) -> (&str, &str) {
    let Some((version, _)) = path.strip_prefix("/v").and_then(|rest| rest.split_once('/')) else {
        return ("", path);
    };
    if !version.starts_with(|first: char| first.is_ascii_digit()) {
        return ("", path);
    }
    (version, path.get(version.len() + 2..).unwrap_or_default())
}

/// Whether `text` matches `pattern`; a `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| matches(rest, tail.get(at..).unwrap_or("")))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    fn ask(engine: &ScriptedEngine, path: &str) -> io::Result<http::HttpResponse> {
        http::get(&engine.socket(), path, Duration::from_millis(300))
    }

    #[test]
    fn paths_are_matched_without_version_and_query() {
        assert_eq!(split_version("/v1.45/info"), ("1.45", "/info"));
        assert_eq!(split_version("/volumes/x"), ("", "/volumes/x"));
        assert!(matches("/images/*/json", "/images/a/b:c/json"));
        assert!(!matches("/images/*/json", "/images/a/b:c/history"));
    }

    #[test]
    fn replies_are_given_in_turn_and_the_last_one_ever_after() {
        let engine = ScriptedEngine::start()
            .on("GET", "/images/*/json", Reply::error(404, "no such image"))
            .on("GET", "/images/*/json", Reply::json(200, &json!({ "Id": "sha256:1" })));
        let statuses = [1, 2, 3].map(|_| ask(&engine, "/v1.45/images/web/json?x=y").unwrap().status);
        assert_eq!(statuses, [404, 200, 200]);
        assert_eq!(engine.requests()[0].version, "1.45");
        assert_eq!(engine.requests()[0].query, "x=y");
    }

    #[test]
    fn it_introduces_itself() {
        let engine = ScriptedEngine::start();
        assert_eq!(ask(&engine, "/version").unwrap().json()["ApiVersion"], "1.45");
        assert_eq!(ask(&engine, "/nothing").unwrap().status, 404);
        let old = ScriptedEngine::start().version("20.10.24", "1.41");
        assert_eq!(ask(&old, "/version").unwrap().json()["Version"], "20.10.24");
    }

    #[test]
    fn bodies_are_recorded_whole_or_in_chunks() {
        let engine = ScriptedEngine::start().on("POST", "/containers/create", Reply::empty(201));
        for request in [
            "POST /containers/create HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        ] {
            let mut stream = UnixStream::connect(engine.socket()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
        }
        assert!(
            engine
                .requests()
                .iter()
                .all(|request| request.json() == json!({ "a": 1 }))
        );
    }

    #[test]
    fn an_upgraded_connection_goes_both_ways() {
        let attached = Reply::upgrade(["hello"]).too_early();
        let engine = ScriptedEngine::start().on("POST", "/containers/*/attach", attached);
        let mut stream = UnixStream::connect(engine.socket()).unwrap();
        stream
            .write_all(b"POST /containers/c1/attach?stream=1 HTTP/1.1\r\n\r\nworld")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
        // The whole request is known once the engine has read to the end, which it does after its answer.
        let began = std::time::Instant::now();
        while engine.request("POST", "/containers/*/attach").body != b"world" {
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", engine.requests());
            thread::yield_now();
        }
    }

    #[test]
    fn it_misbehaves_when_told_to() {
        let dying = Reply::stream(&[json!({ "stream": "Step 1/2" })]).dying();
        let engine = ScriptedEngine::start()
            .on("GET", "/silent", Reply::hang())
            .on("GET", "/garbage", Reply::garbage("SSH-2.0\r\n\r\n"))
            .on("GET", "/closed", Reply::hang_up())
            .on("GET", "/dying", dying);
        assert!(ask(&engine, "/silent").is_err());
        assert!(ask(&engine, "/garbage").is_err());
        assert!(ask(&engine, "/closed").is_err());
        let body = ask(&engine, "/dying").unwrap().body;
        assert!(!body.ends_with(b"0\r\n\r\n"));
    }
}
