//! A Unix socket that a real `ssh -L` made leads to a stranger, whatever that says of itself.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dockerutils_test_support::lab::{self, Ssh};
use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine, process, wait};
use serde_json::{Value, json};

/// A tunnel, which ends with the test.
struct Tunnel(Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// From a socket here through the dock's sshd, and from there back to an engine of this test.
fn tunnel(ssh: &Ssh, socket: &Path, known_hosts: &Path, engine: &str) -> Tunnel {
    let there = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    };
    std::fs::write(known_hosts, ssh.known_hosts()).unwrap();
    let child = Command::new(process::on_path("ssh").unwrap())
        .args([
            "-F",
            "none",
            "-N",
            "-o",
            "BatchMode=yes",
            "-o",
            "ExitOnForwardFailure=yes",
        ])
        .arg("-i")
        .arg(&ssh.key)
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .arg("-p")
        .arg(ssh.address.port().to_string())
        .arg("-R")
        .arg(format!("127.0.0.1:{there}:{engine}"))
        .arg("-L")
        .arg(format!("{}:127.0.0.1:{there}", socket.display()))
        .arg(format!("ann@{}", ssh.address.ip()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let tunnel = Tunnel(child);
    wait::until("ssh makes a socket", || UnixStream::connect(socket).is_ok());
    tunnel
}

/// What a container is created with by way of this address.
fn created(sandbox: &Sandbox, engine: &ScriptedEngine, address: &str) -> Value {
    let before = engine.requests().len();
    sandbox
        .command("run-image")
        .args(["dev", "-k"])
        .env("DOCKER_HOST", address)
        .env("AWS_ACCESS_KEY_ID", "k3y")
        .env("AWS_SECRET_ACCESS_KEY", "s3cret")
        .code(125)
        .any_stderr()
        .run();
    let requests = engine.requests();
    let creation = requests
        .iter()
        .skip(before)
        .find(|asked| asked.path == "/containers/create");
    creation.expect("a container is asked for").json()
}

#[test]
fn no_secret_goes_through_a_tunnel_whatever_the_engine_behind_it_says_of_itself() {
    let ssh = lab::engine("26").unwrap().ssh().unwrap();
    let sandbox = Sandbox::new().file(
        "docker/dockerutils.cfg",
        "[dev]\nname = busybox\nprefix = False\ntag = latest\nports = -p 8080:80\n",
    );
    for claims in [
        json!({}),
        json!({ "OperatingSystem": "Docker Desktop", "Name": "docker-desktop" }),
    ] {
        let engine = ScriptedEngine::start()
            .on("GET", "/info", Reply::this_machine(&claims))
            .on(
                "GET",
                "/images/*/json",
                Reply::json(
                    200,
                    &json!({ "Id": "sha256:1", "Architecture": "amd64", "Os": "linux" }),
                ),
            )
            .on("POST", "/containers/create", Reply::error(500, "that is enough"));
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("docker.sock");
        let _tunnel = tunnel(&ssh, &socket, &directory.path().join("known_hosts"), &engine.tcp());
        let far = created(&sandbox, &engine, &format!("unix://{}", socket.display()));
        assert!(
            !far.to_string().contains("s3cret") && !far.to_string().contains("k3y"),
            "{far}"
        );
        let bindings = &far["HostConfig"]["PortBindings"]["80/tcp"];
        assert_eq!(bindings[0]["HostIp"], "127.0.0.1", "{far}");
        let loopback = created(&sandbox, &engine, &format!("tcp://{}", engine.tcp()));
        assert!(!loopback.to_string().contains("s3cret"), "{loopback}");
    }
    // The machine's own engine gets them: this test can fail.
    let engine = ScriptedEngine::start()
        .on(
            "GET",
            "/images/*/json",
            Reply::json(
                200,
                &json!({ "Id": "sha256:1", "Architecture": "amd64", "Os": "linux" }),
            ),
        )
        .on("POST", "/containers/create", Reply::error(500, "that is enough"));
    let own = created(&sandbox, &engine, &engine.host());
    assert!(own.to_string().contains("AWS_SECRET_ACCESS_KEY=s3cret"), "{own}");
}
