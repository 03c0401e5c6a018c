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
use fake::http::{self, post};
use fake::{Dock, FakeConnector};
use serde_json::{Value, json};
use tokio::io::BufReader;
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
        let serving = Arc::clone(&engine);
        http::accept(socket, move |stream| Arc::clone(&serving).serve(stream));
        engine
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let Some((head, body)) = http::message(&mut stream).await? else {
                return Ok(());
            };
            let (status, answer) = if head.starts_with("POST ") {
                self.bodies.lock().unwrap().push(serde_json::from_slice(&body)?);
                ("201 Created", json!({ "Id": format!("{:064x}", 1), "Name": "v" }))
            } else {
                ("404 Not Found", json!({}))
            };
            http::respond(&mut stream, status, &answer).await?;
        }
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.bodies.lock().unwrap())
    }
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
    let (status, answer) = post(scene.program().await, CONTAINER, &body).await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["message"].as_str().unwrap().contains("never sent to a dock"),
        "{answer}"
    );
    assert_eq!(scene.engine.asked(), [] as [Value; 0]);
    let (status, answer) = post(scene.own().await, CONTAINER, &body).await;
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
            let (status, answer) = post(stream, path, &labelled).await;
            assert_eq!(status, 201, "{path} {answer}");
            assert_eq!(scene.engine.asked(), [plain], "{path} {mounts:?} {owns}");
        }
    }
}
