//! What becomes of requests that create something with mounts, over an agent's two sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dock_client::agent::Agent;
use dock_client::agent::paths::AgentPaths;
use dock_client::docks::{Access, Dock as DockEntry, Forward, MountPaths, SshAccess};
use dock_client::env::Env;
use dock_link::log::Log;
use dock_link::service::{Service, Sockets};
use dock_link::timing::Timing;
use fake::{Dock, FakeConnector};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

mod fake;

/// An engine that creates whatever it is asked for, and keeps what it was asked.
#[derive(Default)]
struct Engine {
    bodies: Mutex<Vec<Value>>,
}

impl Engine {
    fn start(socket: &Path) -> Arc<Self> {
        let engine = Arc::new(Self::default());
        let listener = UnixListener::bind(socket).unwrap();
        let serving = Arc::clone(&engine);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let engine = Arc::clone(&serving);
                tokio::spawn(async move {
                    // A client that goes away is no event.
                    let _ = engine.serve(stream).await;
                });
            }
        });
        engine
    }

    async fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let Some((head, body)) = message(&mut stream).await? else {
                return Ok(());
            };
            let (status, answer) = if head.starts_with("POST ") {
                self.bodies.lock().unwrap().push(serde_json::from_slice(&body)?);
                ("201 Created", json!({ "Id": format!("{:064x}", 1), "Name": "v" }))
            } else {
                ("404 Not Found", json!({}))
            };
            let answer = answer.to_string();
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            stream.write_all(response.as_bytes()).await?;
        }
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.bodies.lock().unwrap())
    }
}

/// A message of HTTP with the length of its body, or none.
async fn message(stream: &mut BufReader<UnixStream>) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Ok(None);
        }
        if let Some(number) = head[start..].to_lowercase().strip_prefix("content-length: ") {
            length = number.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}

/// Sends a request, and gives the status and the body of its answer.
async fn ask(stream: UnixStream, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = BufReader::new(stream);
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, body) = message(&mut stream).await.unwrap().unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

struct Scene {
    _directory: tempfile::TempDir,
    engine: Arc<Engine>,
    agent: Agent,
}

impl Scene {
    fn new(mounts: MountPaths) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let path = directory.path().to_str().unwrap();
        let env = Env::from_pairs([
            ("XDG_RUNTIME_DIR", path),
            ("XDG_STATE_HOME", path),
            ("HOME", "/nowhere"),
            ("PATH", ""),
        ]);
        let entry = DockEntry {
            moniker: "far".into(),
            access: Access::Ssh(SshAccess::default()),
            workspace: None,
            forward: Forward::None,
            mounts,
        };
        let paths = AgentPaths::of(&entry, &env).unwrap();
        paths.prepare().unwrap();
        let socket = directory.path().join("engine.sock");
        let engine = Engine::start(&socket);
        let connector = FakeConnector(Arc::new(Dock::new(socket)));
        let log = Log::of(&paths, "test");
        let service = Service::new(entry.clone(), paths.clone(), connector, Timing::default(), log);
        let sockets = Sockets {
            control: UnixListener::bind(paths.control_socket()).unwrap(),
            engine: UnixListener::bind(paths.engine_socket()).unwrap(),
        };
        tokio::spawn(service.run(sockets));
        Self {
            _directory: directory,
            engine,
            agent: Agent::of(&entry, &env).unwrap(),
        }
    }

    /// As any program, whatever it says of itself.
    async fn program(&self) -> UnixStream {
        UnixStream::connect(self.agent.engine_socket()).await.unwrap()
    }

    /// As a command of ours.
    async fn own(&self) -> UnixStream {
        Agent::open_engine(&self.agent.engine_socket()).await.unwrap()
    }
}

const CONTAINER: &str = "/v1.45/containers/create";

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_ours_is_known_by_its_call_and_not_by_a_label() {
    let scene = Scene::new(MountPaths::default());
    let body = json!({
        "Image": "i", "Labels": {"io.dockerutils.project": "app", "io.dockerutils.user": "ann"},
        "HostConfig": {"Binds": ["/:/host"]},
    });
    let (status, answer) = ask(scene.program().await, CONTAINER, &body).await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["message"].as_str().unwrap().contains("never sent to a dock"),
        "{answer}"
    );
    assert_eq!(scene.engine.asked(), [] as [Value; 0]);
    let (status, answer) = ask(scene.own().await, CONTAINER, &body).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(scene.engine.asked(), [body]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_a_thing_the_label_that_says_what_is_mounted() {
    let label = json!({"io.dockerutils.mounts": "{\"/w/app\":\"/home/ann/app\"}", "a": "b"});
    for (mounts, owns) in [
        (MountPaths::default(), false),
        (MountPaths::default(), true),
        (MountPaths::Literal, false),
    ] {
        let scene = Scene::new(mounts);
        for (path, labelled, plain) in [
            (CONTAINER, json!({"Labels": label}), json!({"Labels": {"a": "b"}})),
            (
                "/volumes/create",
                json!({"Labels": label}),
                json!({"Labels": {"a": "b"}}),
            ),
            (
                "/v1.45/services/create",
                json!({"Labels": label, "TaskTemplate": {"ContainerSpec": {"Labels": label}}}),
                json!({"Labels": {"a": "b"}, "TaskTemplate": {"ContainerSpec": {"Labels": {"a": "b"}}}}),
            ),
        ] {
            let stream = if owns { scene.own().await } else { scene.program().await };
            let (status, answer) = ask(stream, path, &labelled).await;
            assert_eq!(status, 201, "{path} {answer}");
            assert_eq!(scene.engine.asked(), [plain], "{path} {mounts:?} {owns}");
        }
    }
}
