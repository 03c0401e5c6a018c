//! What breaks: links that are cut, sshd that dies, callers that give up.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use dock_agent::ssh::SshTransport;
use dock_link::transport::{Connector, Transport, TransportErrorKind};
use dockerutils_core::agent::target::Target;
use dockerutils_test_support::SlowLink;
use dockerutils_test_support::lab::Ssh;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, dock, line, link, ping, run};

/// A link through another that can be cut, which is dead when so many signs of life, one a second, were not answered.
async fn cuttable(ssh: &Ssh, cable: &SlowLink, most: u32) -> SshTransport {
    let home = Home::new(&ssh.known_hosts_at(cable.address()));
    home.config(&format!("ServerAliveInterval 1\nServerAliveCountMax {most}"));
    let mut to = access(ssh, "ann");
    to.host = cable.address().ip().to_string();
    to.port = Some(cable.address().port());
    let connector = home.connector(to);
    timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_link_that_is_cut_is_noticed_and_its_streams_fail() {
    let ssh = dock().ssh().unwrap();
    let cable = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    let link = cuttable(&ssh, &cable, 2).await;
    let mut following = link.open(line("echo first; sleep 1000")).await.unwrap();
    let mut said = [0; 6];
    following.stream.read_exact(&mut said).await.unwrap();
    cable.cut();
    let reason = timeout(LONG, link.lost()).await.unwrap();
    assert_eq!(reason.kind, TransportErrorKind::Unreachable);
    assert!(
        reason.message.contains("is dead: nothing was heard for 2 s"),
        "{reason}"
    );
    // An end of file would look like output that is complete.
    let error = timeout(LONG, following.stream.read(&mut said))
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("nothing was heard"), "{error}");
    assert!(timeout(LONG, following.exec.unwrap().exit).await.unwrap().is_err());
    let error = timeout(LONG, link.open(Target::Engine)).await.unwrap().err().unwrap();
    assert_eq!(error.kind, TransportErrorKind::Unreachable);
    assert!(timeout(LONG, link.check()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_link_that_ends_while_keys_are_exchanged_is_no_disagreement() {
    let ssh = dock().ssh().unwrap();
    let broken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = broken.local_addr().unwrap();
    let to = ssh.address;
    std::thread::spawn(move || {
        // The first connection ends behind sshd's banner; the second one lasts.
        let (near, far) = (broken.accept().unwrap().0, TcpStream::connect(to).unwrap());
        let mut banner = Vec::new();
        while !banner.ends_with(b"\n") {
            let mut byte = [0];
            (&far).read_exact(&mut byte).unwrap();
            banner.push(byte[0]);
        }
        (&near).write_all(&banner).unwrap();
        drop((near, far));
        let (near, far) = (broken.accept().unwrap().0, TcpStream::connect(to).unwrap());
        let (there, back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut &there, &mut &far));
        let _ = std::io::copy(&mut &back, &mut &near);
    });
    let home = Home::new(&ssh.known_hosts_at(address));
    let mut to = access(&ssh, "ann");
    to.host = address.ip().to_string();
    to.port = Some(address.port());
    let connector = home.connector(to);
    let link = timeout(LONG, connector.connect(Answers::nobody()));
    let link = link.await.unwrap().unwrap();
    assert!(ping(&link).await.unwrap().ends_with("OK"));
}

#[tokio::test]
async fn a_cut_that_is_mended_in_time_loses_nothing() {
    let ssh = dock().ssh().unwrap();
    let cable = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    // However late this test is to repair it.
    let link = cuttable(&ssh, &cable, 60).await;
    let connection = link.open(line("seq 1 100000; sleep 1; seq 1 100000")).await.unwrap();
    cable.cut();
    // No event tells that nothing happens; half a second is more than what was on its way takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    cable.mend();
    assert_eq!(super::home::finish(connection).await.stdout.len(), 2 * 588_895);
}

#[tokio::test]
async fn an_idle_link_stays_and_gives_signs_of_life() {
    let ssh = dock().ssh().unwrap();
    let cable = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    let link = cuttable(&ssh, &cable, 4).await;
    let (before, _) = cable.bytes();
    // It is time itself that is waited for: with four signs of life unanswered, it would be lost by then.
    assert!(timeout(Duration::from_secs(5), link.lost()).await.is_err());
    let (after, _) = cable.bytes();
    assert!((1..2000).contains(&(after - before)), "{} bytes in 5 s", after - before);
    assert!(ping(&link).await.unwrap().ends_with("OK"));
}

#[tokio::test]
async fn connections_that_are_reset_and_sshd_that_dies_are_noticed_at_once() {
    let dock = dock();
    let ssh = dock.ssh().unwrap();
    let cable = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    // A death that only silence tells would take longer than this test has.
    let first = cuttable(&ssh, &cable, 600).await;
    let mut following = first.open(Target::Engine).await.unwrap();
    cable.drop_connections();
    let reason = timeout(LONG, first.lost()).await.unwrap();
    assert!(reason.message.contains("broke"), "{reason}");
    assert!(
        timeout(LONG, following.stream.read(&mut [0; 8]))
            .await
            .unwrap()
            .is_err()
    );

    let sshd = dock.sshd(&[]).unwrap();
    let second = link(sshd.ssh(), "ann").await;
    ping(&second).await.unwrap();
    sshd.kill().unwrap();
    let reason = timeout(LONG, second.lost()).await.unwrap();
    assert!(!reason.message.contains("nothing was heard"), "{reason}");
}

#[tokio::test]
async fn a_link_that_is_dropped_is_taken_down_with_its_streams() {
    let dock = dock();
    let sshd = dock.sshd(&[]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let mut following = link.open(line("sleep 1000")).await.unwrap();
    drop(link);
    let error = timeout(LONG, following.stream.read(&mut [0; 8]))
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    let observer = super::home::link(&dock.ssh().unwrap(), "root").await;
    let begun = Instant::now();
    let port = sshd.ssh().address.port();
    loop {
        let left = run(
            &observer,
            line(&format!("ss -Htn state established sport = :{port} | wc -l")),
        )
        .await
        .text();
        if left.trim() == "0" {
            break;
        }
        assert!(begun.elapsed() < LONG, "{left}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn who_gives_up_connecting_leaves_no_thread() {
    let ssh = dock().ssh().unwrap();
    let cable = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    cable.cut();
    let home = Home::new(&ssh.known_hosts_at(cable.address()));
    let mut to = access(&ssh, "ann");
    to.host = cable.address().ip().to_string();
    to.port = Some(cable.address().port());
    let connector = home.connector(to);
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    for _ in 0..5 {
        assert!(
            timeout(Duration::from_millis(300), connector.connect(Answers::nobody()))
                .await
                .is_err()
        );
    }
    let begun = Instant::now();
    // Each connection to the cable has threads of its own, which the cable ends with it.
    drop(cable);
    while threads() > before {
        assert!(begun.elapsed() < LONG, "{} of {before}", threads());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
