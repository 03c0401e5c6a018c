//! A scripted engine with one notebook's container, whose published port leads to a scripted server.

use std::time::Duration;

use dockerutils_test_support::{Reply, ScriptedEngine};
use serde_json::{Value, json};

use super::label::NotebookLabel;
use super::ready::Awaited;
use crate::context::{Context, GlobalArgs};
use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};
use crate::docker::connect::engine::Engine;
use crate::docker::containers::{LABEL_NOTEBOOK, LABEL_PROJECT, LABEL_USER};
use crate::env::Env;
use crate::jupyter::token::Token;
use crate::output::{Printer, Verbosity};

/// The token of the server.
pub(super) fn token() -> Token {
    Token::from_environment_value("s3cret").unwrap()
}

/// The status of a server, as its API gives it.
pub(super) fn status(connections: u32, kernels: u32) -> Reply {
    let status = json!({
        "started": "2026-11-29T10:00:00Z", "last_activity": "2026-11-29T10:30:00Z",
        "connections": connections, "kernels": kernels,
    });
    Reply::json(200, &status)
        .header("Date", "Sun, 29 Nov 2026 10:31:00 GMT")
        .needs("authorization")
}

/// A Jupyter server that shows JupyterLab below `/`.
pub(super) fn jupyter() -> ScriptedEngine {
    ScriptedEngine::start()
        .on("GET", "/api", Reply::json(200, &json!({"version": "2.14.0"})))
        .on("GET", "/api/status", status(1, 2))
        .on("GET", "/", Reply::empty(302).header("Location", "/lab?"))
}

/// What the engine says of container `c1`, with this port of the machine in place of 8888.
pub(super) fn inspected(port: u16, more: &Value) -> Value {
    let mut inspected = json!({
        "Id": "c1", "Name": "/nb", "Image": "sha256:1", "Created": "2026-11-29T09:59:00Z",
        "State": {"Running": true, "Status": "running", "StartedAt": "2026-11-29T09:59:30.123456789Z"},
        "Config": {
            "Tty": false, "Image": "lab:ann", "Env": ["PATH=/bin", "JUPYTER_TOKEN=s3cret"],
            "Labels": {LABEL_NOTEBOOK: "jupyter:8888/", LABEL_PROJECT: "proj", LABEL_USER: "ann"},
        },
        "HostConfig": {},
        "NetworkSettings": {"Ports": {"8888/tcp": [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]}},
    });
    if let (Some(inspected), Some(more)) = (inspected.as_object_mut(), more.as_object()) {
        inspected.extend(more.clone());
    }
    inspected
}

/// The port of a scripted server.
pub(super) fn port_of(server: &ScriptedEngine) -> u16 {
    server.tcp().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// An engine with the container `c1`, named `nb`, which runs and says nothing. Its port 8888 is this port.
pub(super) fn engine(port: u16) -> ScriptedEngine {
    ScriptedEngine::start()
        .on(
            "GET",
            "/containers/c1/json",
            Reply::json(200, &inspected(port, &json!({}))),
        )
        .on("POST", "/containers/c1/exec", Reply::json(201, &json!({"Id": "e1"})))
        .on("GET", "/exec/e1/json", Reply::json(200, &json!({"ExitCode": 0})))
}

/// The frame of an output.
pub(super) fn frame(stream: u8, text: &str) -> Vec<u8> {
    let mut frame = vec![stream, 0, 0, 0];
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// What a program in the container prints.
pub(super) fn printed(text: &str) -> Reply {
    Reply::upgrade([frame(1, text)])
}

/// Connects to a scripted engine.
pub(super) async fn connected(engine: &ScriptedEngine) -> Engine {
    let choice = Choice {
        endpoint: Endpoint::Unix(engine.socket()),
        origin: Origin::Host,
    };
    Engine::connect_to(choice).await.unwrap()
}

/// What a command runs in that prints nothing.
pub(super) fn context(engine: &ScriptedEngine) -> Context {
    let env = Env::from_pairs([("DOCKER_HOST", engine.host()), ("USER", "ann".to_owned())]);
    let printer = Printer::new("run-notebook", Verbosity::Quiet, false, &env);
    Context::new(env, "/".into(), printer, GlobalArgs::default(), None)
}

/// The server of `c1`.
pub(super) fn awaited<'a>(label: &'a NotebookLabel, token: &'a Token) -> Awaited<'a> {
    Awaited {
        container: "c1",
        name: "nb",
        label,
        token,
        limit: Duration::from_secs(20),
        shows_log: true,
        wants_root_dir: true,
    }
}
