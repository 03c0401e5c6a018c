//! Ports that sshd listens on for this machine: where it does, and what is taken back.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dock_link::transport::{Connection, Listening, Transport, TransportErrorKind};
use dockerutils_test_support::SlowLink;
use dockerutils_test_support::lab::Ssh;
use dockerutils_tests::python::PARAMIKO;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::home::{LONG, Link, dock, finish, line, link, run};

/// What sshd's configuration must say.
const ALLOWED: &str = "GatewayPorts clientspecified";

/// The address by which the dock's containers find it.
async fn gateway(link: &Link) -> Ipv4Addr {
    let asked = "docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' bridge";
    run(link, line(asked)).await.text().trim().parse().unwrap()
}

/// A port of the dock that nothing listens on; tests that run at the same time get another.
async fn free_port(link: &Link) -> u16 {
    let base = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let taken = run(link, line("ss -Htln | awk '{print $4}'")).await.text();
    (base..).find(|port| !taken.contains(&format!(":{port}"))).unwrap()
}

/// Who listens on the dock at this port, as `ss` shows addresses.
async fn listeners(link: &Link, port: u16) -> Vec<String> {
    let said = run(link, line(&format!("ss -Htln sport = :{port} | awk '{{print $4}}'"))).await;
    said.text().lines().map(str::to_owned).collect()
}

/// Waits until nothing listens on the dock at this port.
async fn is_taken_back(link: &Link, port: u16) {
    let looking = async {
        while !listeners(link, port).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, looking).await.expect("it still listens");
}

/// A connection on the dock to this address, which sends a text and prints what comes back.
async fn call(link: &Link, at: SocketAddr, text: &str) -> Connection {
    let line = format!(
        "bash -c 'exec 3<>/dev/tcp/{}/{} && printf %s {text} >&3 && cat <&3'",
        at.ip(),
        at.port()
    );
    timeout(LONG, link.open(super::home::line(&line)))
        .await
        .unwrap()
        .unwrap()
}

async fn next(listening: &mut Listening) -> Connection {
    timeout(LONG, listening.connections.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_connects_there_comes_in_here_until_it_is_taken_back() {
    let dock = dock();
    let sshd = dock.sshd(&[ALLOWED]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let at = SocketAddr::new(gateway(&link).await.into(), free_port(&link).await);
    let mut listening = timeout(LONG, link.listen(at)).await.unwrap().unwrap();
    assert_eq!(listeners(&link, at.port()).await, [at.to_string()]);

    let there = call(&link, at, "ping").await;
    let mut here = next(&mut listening).await;
    let mut said = [0; 4];
    here.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"ping");
    here.stream.write_all(b"pong").await.unwrap();
    here.stream.shutdown().await.unwrap();
    drop(here);
    assert_eq!(finish(there).await.text(), "pong");

    // Bulk, both ways at once.
    let size = 30_000_000;
    let there = link
        .open(line(&format!(
            "bash -c 'exec 3<>/dev/tcp/{}/{} && (head -c {size} /dev/zero >&3 &) && head -c {size} <&3 | wc -c'",
            at.ip(),
            at.port()
        )))
        .await
        .unwrap();
    let here = next(&mut listening).await;
    let (mut from, mut to) = tokio::io::split(here.stream);
    let sending = tokio::spawn(async move {
        to.write_all(&vec![7; size]).await.unwrap();
        to
    });
    let mut heard = vec![0; size];
    timeout(LONG, from.read_exact(&mut heard)).await.unwrap().unwrap();
    let mut to = sending.await.unwrap();
    // Of a stream that is dropped without an end, what is not sent yet is thrown away.
    to.shutdown().await.unwrap();
    drop((from, to));
    assert_eq!(finish(there).await.text().trim(), size.to_string());

    // What is open goes on; nothing new comes in.
    let there = call(&link, at, "on").await;
    let mut here = next(&mut listening).await;
    drop(listening);
    is_taken_back(&link, at.port()).await;
    here.stream.write_all(b"still").await.unwrap();
    here.stream.shutdown().await.unwrap();
    drop(here);
    assert_eq!(finish(there).await.text(), "still");
    let refused = finish(call(&link, at, "x").await).await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("refused"),
        "{:?}",
        String::from_utf8_lossy(&refused.stderr)
    );
    // The same one can be had again.
    let mut listening = timeout(LONG, link.listen(at)).await.unwrap().unwrap();
    let there = call(&link, at, "again").await;
    drop(next(&mut listening).await);
    finish(there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_sshd_does_not_listen_as_asked_nothing_is_exposed_and_it_is_said() {
    let dock = dock();
    for (lines, part) in [
        (&[][..], "listens only at the dock's own 127.0.0.1"),
        (&["GatewayPorts yes"][..], "at all addresses of the dock"),
        (&[ALLOWED, "AllowTcpForwarding no"][..], "its configuration forbids it"),
        (
            &[ALLOWED, "AllowTcpForwarding local"][..],
            "its configuration forbids it",
        ),
        (&[ALLOWED, "PermitListen none"][..], "its configuration forbids it"),
        (&[ALLOWED, "AllowTcpForwarding remote"][..], "does not let it be seen"),
        (&["DisableForwarding yes"][..], "its configuration forbids it"),
    ] {
        let sshd = dock.sshd(lines).unwrap();
        let link = link(sshd.ssh(), "ann").await;
        let at = SocketAddr::new(gateway(&link).await.into(), free_port(&link).await);
        let error = timeout(LONG, link.listen(at)).await.unwrap().err().unwrap();
        assert_eq!(error.kind, TransportErrorKind::Forbidden, "{lines:?} {error}");
        assert!(error.message.contains(part), "{lines:?} {error}");
        let hint = error.hint.unwrap();
        for word in [
            "GatewayPorts clientspecified",
            "AllowTcpForwarding yes",
            "systemctl reload ssh",
        ] {
            assert!(hint.contains(word), "{lines:?} {hint}");
        }
        is_taken_back(&link, at.port()).await;
        // The link is as it was.
        assert_eq!(run(&link, line("echo on")).await.text(), "on\n", "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_there_and_an_address_of_another_machine_are_refused() {
    let dock = dock();
    let sshd = dock.sshd(&[ALLOWED]).unwrap();
    let first = link(sshd.ssh(), "ann").await;
    let second = link(sshd.ssh(), "ann").await;
    let at = SocketAddr::new(gateway(&first).await.into(), free_port(&first).await);
    let mut listening = timeout(LONG, first.listen(at)).await.unwrap().unwrap();
    // It is our own, seen from another link: what comes in is not taken for the other's.
    let refusing = second.listen(at);
    let error = timeout(LONG, refusing).await.unwrap().err().unwrap();
    assert!(error.message.contains(&format!("{at} is taken on ")), "{error}");
    assert_eq!(error.kind, TransportErrorKind::Refused);
    drop(next(&mut listening).await);
    let elsewhere: SocketAddr = "192.0.2.1:5432".parse().unwrap();
    let error = timeout(LONG, second.listen(elsewhere)).await.unwrap().err().unwrap();
    assert!(error.message.contains("does not listen at 192.0.2.1:5432"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_connections_than_there_may_be_are_closed_and_harm_nothing() {
    let dock = dock();
    let sshd = dock.sshd(&[ALLOWED]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let at = SocketAddr::new(gateway(&link).await.into(), free_port(&link).await);
    let mut listening = timeout(LONG, link.listen(at)).await.unwrap().unwrap();
    // Each prints a line when it is closed from here.
    let many = link
        .open(line(&format!(
            "bash -c 'for i in $(seq 100); do (exec 3<>/dev/tcp/{}/{} && cat <&3; echo closed) & done; wait'",
            at.ip(),
            at.port()
        )))
        .await
        .unwrap();
    let mut stdout = many.stream;
    let mut kept = Vec::new();
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    // Of the hundred, at most 64 are open here: the others are told that they are closed.
    let counting = async {
        loop {
            tokio::select! {
                Some(connection) = listening.connections.recv() => kept.push(connection),
                read = stdout.read(&mut buffer) => match read.unwrap() {
                    0 => break,
                    read => heard.extend_from_slice(&buffer[..read]),
                },
            }
            let closed = String::from_utf8_lossy(&heard).matches("closed").count();
            if closed + kept.len() >= 100 {
                break;
            }
        }
    };
    timeout(LONG, counting).await.unwrap();
    assert!((1..=64).contains(&kept.len()), "{}", kept.len());
    // The link carries on, and there is room again once they have ended.
    assert_eq!(run(&link, line("echo on")).await.text(), "on\n");
    kept.clear();
    let mut rest = Vec::new();
    let closing = timeout(LONG, stdout.read_to_end(&mut rest)).await;
    assert!(
        matches!(closing, Ok(Ok(_))),
        "{closing:?} {} {}",
        heard.len(),
        rest.len()
    );
    let there = call(&link, at, "x").await;
    drop(next(&mut listening).await);
    finish(there).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_come_and_go_while_the_link_is_full() {
    let dock = dock();
    let sshd = dock.sshd(&[ALLOWED, "RekeyLimit 4M"]).unwrap();
    // A narrow link: packets are sent in parts all the time, and keys are exchanged meanwhile.
    let cable = SlowLink::start(sshd.ssh().address, Duration::from_millis(2), Some(40_000_000)).unwrap();
    let mut ssh = sshd.ssh().clone();
    ssh.address = cable.address();
    let link = link(&ssh, "ann").await;
    let at = SocketAddr::new(gateway(&link).await.into(), free_port(&link).await);
    let size: usize = 40_000_000;
    let bulk = link.open(line("wc -c")).await.unwrap();
    let (mut counted, mut to_bulk) = tokio::io::split(bulk.stream);
    let sending = tokio::spawn(async move {
        to_bulk.write_all(&vec![0; size]).await.unwrap();
        to_bulk.shutdown().await.unwrap();
    });
    let mut rounds = 0;
    while !sending.is_finished() || rounds < 3 {
        let mut listening = timeout(LONG, link.listen(at)).await.unwrap().unwrap();
        for _ in 0..3 {
            let there = call(&link, at, "x").await;
            let mut here = next(&mut listening).await;
            here.stream.write_all(b"y").await.unwrap();
            here.stream.shutdown().await.unwrap();
            drop(here);
            assert_eq!(finish(there).await.text(), "y");
        }
        drop(listening);
        is_taken_back(&link, at.port()).await;
        rounds += 1;
    }
    sending.await.unwrap();
    let mut said = String::new();
    timeout(LONG, counted.read_to_string(&mut said)).await.unwrap().unwrap();
    assert_eq!(said.trim(), size.to_string());
}

/// A server of ssh that opens connections unasked.
struct HostileDock {
    server: Child,
    ssh: Ssh,
}

impl HostileDock {
    fn start() -> Self {
        let python = PARAMIKO.commands().unwrap().join("python3");
        let mut server = Command::new(python)
            .args(["-c", include_str!("hostile_dock.py")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut said)
            .unwrap();
        let (port, key) = said.trim().split_once(' ').unwrap();
        let ssh = Ssh {
            address: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().unwrap()),
            host_keys: vec![key.to_owned()],
            ..dock().ssh().unwrap()
        };
        Self { server, ssh }
    }
}

impl Drop for HostileDock {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dock_that_opens_connections_unasked_gets_nothing() {
    let dock = HostileDock::start();
    let link = link(&dock.ssh, "ann").await;
    let at: SocketAddr = "10.9.8.7:5432".parse().unwrap();
    let opens = async |address: &str, port: u16| run(&link, line(&format!("open {address} {port}"))).await.text();
    // SSH_OPEN_ADMINISTRATIVELY_PROHIBITED of RFC 4254, 5.1.
    let refused = "refused 1";
    assert_eq!(opens("10.9.8.7", 5432).await, refused, "nothing was asked for yet");
    let mut listening = timeout(LONG, link.listen(at)).await.unwrap().unwrap();
    assert_eq!(run(&link, line("asked")).await.text(), "10.9.8.7:5432");
    for (address, port) in [
        ("10.9.8.7", 22),
        ("10.9.8.7", 5433),
        ("10.9.8.7", 0),
        ("127.0.0.1", 5432),
        ("localhost", 5432),
        ("0.0.0.0", 5432),
        ("*", 5432),
    ] {
        assert_eq!(opens(address, port).await, refused, "{address}:{port}");
    }
    assert_eq!(opens("10.9.8.7", 5432).await, "opened");
    let mut said = [0; 10];
    next(&mut listening).await.stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"from there");
    assert!(listening.connections.try_recv().is_err(), "the others came in, too");
    drop(listening);
    let forgotten = async { while run(&link, line("asked")).await.text() != "" {} };
    timeout(LONG, forgotten).await.unwrap();
    assert_eq!(opens("10.9.8.7", 5432).await, refused, "it was taken back");
}
