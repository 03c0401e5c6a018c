//! What sshd may forbid: forwarding, more than a few sessions, the engine's socket.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dock_agent::ssh::{SshConnector, SshTransport};
use dock_link::transport::{Connector, Transport, TransportErrorKind};
use dockerutils_core::agent::target::Target;
use dockerutils_core::docks::SshAccess;
use dockerutils_test_support::binary;
use dockerutils_test_support::lab::{LabEngine, Sshd};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, Link, access, dock, line, link, ping, run};
use super::logins::in_dock;

/// A Unix socket whose connections go to a dock's engine.
struct Served {
    folder: tempfile::TempDir,
}

impl Served {
    fn new(link: Arc<Link>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let link = link.clone();
                tokio::spawn(async move {
                    let mut far = link
                        .open(Target::Engine)
                        .await
                        .unwrap_or_else(|error| panic!("{error}"))
                        .stream;
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    let _ = near.shutdown().await;
                });
            }
        });
        Self { folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

/// `docker version`, twenty at once, as `xargs -P20` does.
async fn twenty_at_once(link: Link) {
    let served = Served::new(Arc::new(link));
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let mut docker = tokio::process::Command::new("docker");
        docker
            .arg("-H")
            .arg(format!("unix://{}", served.socket().display()))
            .arg("version")
            .env("DOCKER_CONFIG", "/nonexistent");
        docker.stdin(Stdio::null());
        all.spawn(async move { timeout(LONG * 2, docker.output()).await.unwrap().unwrap() });
    }
    while let Some(output) = all.join_next().await {
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("26.1"), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_clients_get_through_few_sessions_and_startups() {
    let dock = dock();
    for lines in [
        vec!["MaxSessions 2", "MaxStartups 2:100:2"],
        vec![
            "MaxSessions 2",
            "MaxStartups 2:100:2",
            "AllowStreamLocalForwarding no",
            "AllowTcpForwarding no",
        ],
        vec!["MaxSessions 1", "MaxStartups 2:100:2", "DisableForwarding yes"],
    ] {
        let sshd = dock.sshd(&lines).unwrap();
        twenty_at_once(link(sshd.ssh(), "ann").await).await;
    }
}

#[tokio::test]
async fn commands_go_on_beyond_the_limit_of_sessions() {
    let dock = dock();
    let sshd = dock.sshd(&["MaxSessions 2", "MaxStartups 2:100:2"]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let mut waiting = Vec::new();
    for _ in 0..9 {
        waiting.push(timeout(LONG, link.open(line("cat"))).await.unwrap().unwrap());
    }
    for (number, mut connection) in waiting.into_iter().enumerate() {
        connection
            .stream
            .write_all(format!("{number}").as_bytes())
            .await
            .unwrap();
        connection.stream.shutdown().await.unwrap();
        assert_eq!(super::home::finish(connection).await.text(), number.to_string());
    }
}

#[tokio::test]
async fn without_forwarding_the_client_there_carries_the_engine() {
    let dock = dock();
    let sshd = dock.sshd(&["AllowStreamLocalForwarding no"]).unwrap();
    let by_client = link(sshd.ssh(), "ann").await;
    for _ in 0..3 {
        assert!(ping(&by_client).await.unwrap().ends_with("OK"));
    }
    // Ports are another option's.
    let tcp = Target::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 22,
    };
    by_client.open(tcp.clone()).await.unwrap();
    let sshd = dock.sshd(&["AllowTcpForwarding no"]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let error = link.open(tcp).await.err().unwrap();
    assert!(
        error.message.contains("forbids forwarding to 127.0.0.1 port 22"),
        "{error}"
    );
    assert!(error.hint.unwrap().contains("AllowTcpForwarding yes"));
    assert!(ping(&link).await.unwrap().ends_with("OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sshd_forbids_no_longer_is_used_at_a_new_connection() {
    let dock = dock();
    // The limits of a key are read at each login, as a sshd that was reloaded has others.
    let key = std::fs::read_to_string(dock.ssh().unwrap().key.with_extension("pub")).unwrap();
    let file = format!("/etc/ssh/forbids-{}", std::process::id());
    let say = |limits: &str| {
        in_dock(
            &dock,
            &format!("cat > {file}; chmod 644 {file}"),
            &format!("{limits}{key}"),
        )
    };
    say("no-port-forwarding ");
    let sshd = dock.sshd(&[&format!("AuthorizedKeysFile {file}")]).unwrap();
    let home = Home::new(&sshd.ssh().known_hosts());
    let connector = SshConnector::asking_again_after(
        Duration::ZERO,
        access(sshd.ssh(), "ann"),
        home.env(),
        Some(binary("dock-agent")),
    );
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), 22);
    let tcp = Target::Tcp { host, port };
    assert_eq!(link.outdated().await, None);
    assert_eq!(
        link.open(tcp.clone()).await.err().unwrap().kind,
        TransportErrorKind::Forbidden
    );
    // By docker's client there.
    assert!(ping(&link).await.unwrap().ends_with("OK"));
    for _ in 0..5 {
        assert_eq!(link.outdated().await, None, "it forbids as before");
    }
    say("");
    let began = Instant::now();
    let why = loop {
        if let Some(why) = link.outdated().await {
            break why;
        }
        assert!(began.elapsed() < LONG, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(why, "sshd allows by now what it forbade");
    // What stands goes on as it is; what is made now is allowed all.
    assert!(ping(&link).await.unwrap().ends_with("OK"));
    let again = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    again.open(tcp).await.unwrap();
    let path = "/var/run/docker.sock".to_owned();
    again.open(Target::Socket { path }).await.unwrap();
    assert_eq!(again.outdated().await, None);
    in_dock(&dock, &format!("rm {file}"), "");
}

#[tokio::test]
async fn an_address_that_changes_in_the_configuration_outdates_the_link() {
    let dock = dock();
    let (one, other) = (dock.sshd(&[]).unwrap(), dock.sshd(&[]).unwrap());
    let known = one.ssh().known_hosts() + &other.ssh().known_hosts();
    let home = Home::new(&known);
    let included = home.path(".ssh/more");
    let at = |sshd: &Sshd| {
        let address = sshd.ssh().address;
        format!("Host box\n  HostName {}\n  Port {}\n", address.ip(), address.port())
    };
    std::fs::write(&included, at(&one)).unwrap();
    home.config(&format!("Include {}", included.display()));
    let connector = home.connector(SshAccess {
        host: "box".to_owned(),
        port: None,
        ..access(one.ssh(), "ann")
    });
    let port_of = async |link: &SshTransport| {
        run(link, line("echo ${SSH_CONNECTION##* }"))
            .await
            .text()
            .trim()
            .to_owned()
    };
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(port_of(&link).await, one.ssh().address.port().to_string());
    assert_eq!(link.outdated().await, None);
    // What leads to the same place, and what makes no sense, change nothing.
    for more in ["# a comment\n", "Compression no\n", "HostName\n"] {
        std::fs::write(&included, at(&one) + more).unwrap();
        assert_eq!(link.outdated().await, None, "{more}");
    }
    std::fs::write(&included, at(&other)).unwrap();
    let why = link.outdated().await.unwrap();
    assert!(why.contains(&format!("port {}", other.ssh().address.port())), "{why}");
    let again = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(port_of(&again).await, other.ssh().address.port().to_string());
    assert_eq!(again.outdated().await, None);
    // What stands goes on where it is.
    assert_eq!(port_of(&link).await, one.ssh().address.port().to_string());
}

#[tokio::test]
async fn a_login_shell_that_prints_something_is_heard_by_nobody() {
    let noisy = "ForceCommand echo Welcome to box; exec sh -c \"$SSH_ORIGINAL_COMMAND\"";
    for lines in [&[noisy][..], &[noisy, "AllowStreamLocalForwarding no"]] {
        let sshd = dock().sshd(lines).unwrap();
        let link = link(sshd.ssh(), "ann").await;
        for _ in 0..2 {
            let answer = ping(&link).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("OK"), "{answer}");
        }
    }
}

async fn refused(dock: &LabEngine, sshd: Option<&Sshd>, user: &str, socket: Option<&str>) -> (String, String) {
    let ssh = sshd.map_or_else(|| dock.ssh().unwrap(), |sshd| sshd.ssh().clone());
    let home = Home::new(&ssh.known_hosts());
    let mut to = access(&ssh, user);
    to.docker_socket = socket.map(str::to_owned);
    let connector = home.connector(to);
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    let error = ping(&link).await.err().unwrap();
    let kind = match user {
        "bob" => TransportErrorKind::Denied,
        _ => TransportErrorKind::Refused,
    };
    assert_eq!(error.kind, kind);
    // The link stands.
    assert_eq!(run(&link, line("echo yes")).await.text(), "yes\n");
    (error.message, error.hint.unwrap())
}

#[tokio::test]
async fn a_socket_that_is_refused_is_explained_with_its_mend() {
    let dock = dock();
    let forbidding = dock.sshd(&["AllowStreamLocalForwarding no"]).unwrap();
    for sshd in [None, Some(&forbidding)] {
        let (message, hint) = refused(&dock, sshd, "bob", None).await;
        assert!(
            message.contains("user bob may not use the engine") && message.contains("group docker"),
            "{message}"
        );
        assert!(hint.contains("sudo usermod -aG docker bob"), "{hint}");
        let (message, hint) = refused(&dock, sshd, "ann", Some("/nowhere/docker.sock")).await;
        assert!(
            message.contains("has no engine socket /nowhere/docker.sock"),
            "{message}"
        );
        assert!(hint.contains("--docker-socket"), "{hint}");
        let (message, _) = refused(&dock, sshd, "ann", Some("/etc/passwd")).await;
        assert!(
            message.contains("/etc/passwd on ann@") && message.contains("is no socket"),
            "{message}"
        );
        // A path is data.
        let (message, _) = refused(&dock, sshd, "ann", Some("/x'; touch /tmp/h-c-pwned; '")).await;
        assert!(message.contains("has no engine socket"), "{message}");
    }
    let link = link(&dock.ssh().unwrap(), "ann").await;
    let left = run(&link, line("ls /tmp/h-c-pwned 2>&1; true")).await;
    assert!(left.text().contains("No such file"), "{}", left.text());
}

#[tokio::test]
async fn what_a_key_may_not_do_is_told() {
    let dock = dock();
    let sshd = dock.sshd(&["PermitTTY no"]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let terminal = Target::Exec(dockerutils_core::agent::target::Exec {
        command: dockerutils_core::agent::target::RemoteCommand::Shell,
        pty: Some(dockerutils_core::agent::target::Pty {
            term: "xterm".to_owned(),
            size: dockerutils_core::agent::target::Size { rows: 24, columns: 80 },
        }),
    });
    let error = timeout(LONG, link.open(terminal)).await.unwrap().err().unwrap();
    assert!(error.message.contains("denies a terminal"), "{error}");
    assert_eq!(run(&link, line("echo yes")).await.text(), "yes\n");
}
