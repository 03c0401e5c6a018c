//! The lab is what it says it is: the tests that rely on it need not ask.

use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, Store};
use dockerutils_test_support::process::{self, capture_text};

fn docker(engine: &LabEngine, arguments: &[&str]) -> Result<String, process::Error> {
    capture_text(engine.docker().args(arguments))
}

#[test]
fn the_matrix_is_whole() {
    let engines = lab::engines().unwrap();
    let has = |version: &str, store| {
        let found = engines
            .iter()
            .find(|engine| engine.version.starts_with(version) && engine.store == store);
        assert!(found.is_some(), "no {version} with the {store} store in {engines:#?}");
    };
    has("20.10", Store::Classic);
    for version in ["26.1", "28."] {
        has(version, Store::Classic);
        has(version, Store::Containerd);
    }
}

#[test]
fn each_engine_runs_containers_of_the_base_image() {
    for engine in lab::engines().unwrap() {
        let echo = ["run", "--rm", "--network=none", lab::BASE_IMAGE, "echo", "hello"];
        let said = docker(&engine, &echo).unwrap();
        assert_eq!(said, "hello", "{}", engine.name);
    }
}

#[test]
fn each_engine_publishes_ports() {
    for engine in lab::engines().unwrap() {
        let server = [
            "run",
            "--detach",
            "--rm",
            "--publish=127.0.0.1::80",
            lab::BASE_IMAGE,
            "httpd",
            "-f",
        ];
        let id = docker(&engine, &server).unwrap();
        let address = docker(&engine, &["port", &id, "80"]).unwrap();
        docker(&engine, &["rm", "--force", &id]).unwrap();
        assert!(address.starts_with("127.0.0.1:"), "{}: {address}", engine.name);
    }
}

#[test]
fn asking_again_is_quick_and_gives_the_same() {
    let hosts = || {
        lab::engines()
            .unwrap()
            .into_iter()
            .map(|engine| engine.host)
            .collect::<Vec<_>>()
    };
    let first = hosts();
    let started = std::time::Instant::now();
    assert_eq!(hosts(), first);
    // A tenth of this, on a machine that does nothing else.
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn every_dock_is_reached_by_ssh_by_each_of_its_users() {
    let docks = lab::engines()
        .unwrap()
        .into_iter()
        .filter(|engine| engine.container.is_some());
    for dock in docks {
        let ssh = dock.ssh().unwrap();
        let known_hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(known_hosts.path(), ssh.known_hosts()).unwrap();
        for (user, may) in [("root", true), ("ann", true), ("bob", false)] {
            let mut client = Command::new("ssh");
            client
                .args(["-F", "none", "-o", "BatchMode=yes", "-l", user, "-i"])
                .arg(&ssh.key);
            client.args(["-o", &format!("UserKnownHostsFile={}", known_hosts.path().display())]);
            client.args([&ssh.address.ip().to_string(), "docker version -f '{{.Server.Version}}'"]);
            let output = client.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                (output.status.success(), said.trim() == dock.version),
                (may, may),
                "{user}: {output:?}"
            );
        }
    }
}

#[test]
fn a_further_sshd_of_a_dock_has_its_own_configuration_and_ends() {
    let dock = lab::engine("26").unwrap();
    let sshd = dock.sshd(&["AllowTcpForwarding no"]).unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&sshd.ssh().address, Duration::from_secs(5));
    connect().unwrap();
    sshd.kill().unwrap();
    connect().unwrap_err();
    sshd.start_again().unwrap();
    connect().unwrap();
}
