//! How the host is reached: the whole of the user's ssh configuration, jump hosts, proxies, and names that are none.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use dock_link::transport::{Connector, TransportErrorKind};
use dockerutils_core::docks::SshAccess;
use dockerutils_test_support::lab;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, dock, line, ping, run};

fn host(name: &str) -> SshAccess {
    SshAccess {
        host: name.to_owned(),
        ..SshAccess::default()
    }
}

#[tokio::test]
async fn the_configuration_is_honoured_whole() {
    let dock = dock();
    let ssh = dock.ssh().unwrap();
    let sshd = dock.sshd(&["AllowUsers ann"]).unwrap();
    let home = Home::new(&sshd.ssh().known_hosts());
    fs::copy(&ssh.key, home.path(".ssh/key of ann-22")).unwrap();
    fs::write(
        home.path(".ssh/more"),
        format!(
            "Match host {}\n  Port {}\n",
            ssh.address.ip(),
            sshd.ssh().address.port()
        ),
    )
    .unwrap();
    home.config(&format!(
        "Host d?ck\n  HostName {}\n  User ann\n  IdentityFile \"~/.ssh/key of %r-22\"\n  Compression yes\n  Ciphers aes256-ctr\nInclude {}\n",
        ssh.address.ip(),
        home.path(".ssh/more").display()
    ));
    let connector = home.connector(host("dock"));
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run(&link, line("id -un")).await.text(), "ann\n");
    assert!(ping(&link).await.unwrap().ends_with("OK"));
    // What the user says of the dock wins.
    let said = SshAccess {
        user: Some("root".to_owned()),
        port: Some(22),
        identity: Some(ssh.key.clone()),
        ..host("dock")
    };
    fs::write(home.path(".ssh/known_hosts"), ssh.known_hosts()).unwrap();
    let link = timeout(LONG, home.connector(said).connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run(&link, line("id -un")).await.text(), "root\n");
    // A configuration that ssh refuses is an error with what ssh says.
    home.config("NoSuchOption 7");
    let error = connector.connect(Answers::nobody()).await.err().unwrap();
    assert!(error.message.to_lowercase().contains("nosuchoption"), "{error}");
    assert_eq!(error.kind, TransportErrorKind::NeedsPerson);
}

#[tokio::test]
async fn jump_hosts_and_proxies_lead_there() {
    let far = dock().ssh().unwrap();
    let jump = lab::engine("28").unwrap().ssh().unwrap();
    let home = Home::new(&(far.known_hosts() + &jump.known_hosts()));
    let hosts = |route: &str| {
        home.config(&format!(
            "Host jump\n  HostName {}\n  User bob\n  IdentityFile {key}\nHost far\n  HostName {}\n  User ann\n  IdentityFile {key}\n  {route}\n",
            jump.address.ip(),
            far.address.ip(),
            key = far.key.display()
        ));
    };
    let own = home.path("bin/ssh");
    for route in [
        "ProxyJump jump".to_owned(),
        // Twice over the same one.
        format!("ProxyJump jump,bob@{}:22", jump.address.ip()),
        format!("ProxyCommand {} -W %h:%p jump", own.display()),
    ] {
        // The second hop has no alias, so its key comes from the line for all hosts.
        hosts(&route);
        let all = fs::read_to_string(home.path(".ssh/config")).unwrap();
        fs::write(
            home.path(".ssh/config"),
            format!("{all}  IdentityFile {}\n", far.key.display()),
        )
        .unwrap();
        let link = timeout(LONG, home.connector(host("far")).connect(Answers::nobody()))
            .await
            .unwrap();
        let link = link.unwrap_or_else(|error| panic!("{route}: {error}"));
        let output = run(&link, line("hostname; id -un; echo $SSH_CONNECTION")).await.text();
        assert!(output.starts_with("dockerutils-lab-26\nann\n"), "{output}");
        assert!(output.contains(&jump.address.ip().to_string()), "{output}");
        assert!(ping(&link).await.unwrap().ends_with("OK"));
    }
    // A route that fails says why.
    hosts("ProxyJump nobody@jump");
    let error = timeout(LONG, home.connector(host("far")).connect(Answers::nobody()))
        .await
        .unwrap();
    let error = error.err().unwrap();
    assert!(error.message.contains("the proxy says: "), "{error}");
    assert!(error.message.contains("Permission denied (publickey"), "{error}");
    hosts("ProxyCommand echo 'no way' >&2; exit 1");
    let error = timeout(LONG, home.connector(host("far")).connect(Answers::nobody()))
        .await
        .unwrap();
    let error = error.err().unwrap();
    assert!(error.message.contains("no way"), "{error}");
}

#[tokio::test]
async fn names_that_would_be_options_or_commands_are_refused() {
    let home = Home::new("");
    home.config(&format!("ProxyCommand touch {}/%n", home.path("pwned").display()));
    for bad in [
        "-oProxyCommand=touch x",
        "$(touch pwned)",
        "a;touch pwned",
        "`x`",
        "a b",
        "",
        "x|y",
    ] {
        let error = home
            .connector(host(bad))
            .connect(Answers::nobody())
            .await
            .err()
            .unwrap();
        assert!(error.message.contains("is no host name"), "{error}");
    }
    let user = SshAccess {
        user: Some("-oProxyCommand=touch x".to_owned()),
        ..host("dock")
    };
    let error = home.connector(user).connect(Answers::nobody()).await.err().unwrap();
    assert!(error.message.contains("is no user name"), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_is_given_up_in_time() {
    // A port where nothing listens.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let home = Home::new("");
    let at = |port| SshAccess {
        port: Some(port),
        ..host("127.0.0.1")
    };
    let error = home.connector(at(port)).connect(Answers::nobody()).await.err().unwrap();
    assert_eq!(error.kind, TransportErrorKind::Unreachable);
    assert!(error.message.contains("refused"), "{error}");

    // One that takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    home.config("ConnectTimeout 1");
    let port = silent.local_addr().unwrap().port();
    let error = home.connector(at(port)).connect(Answers::nobody()).await.err().unwrap();
    assert!(error.message.contains("does not answer within 1 s"), "{error}");

    home.config("");
    let error = home
        .connector(host("no-such-host.invalid"))
        .connect(Answers::nobody())
        .await
        .err()
        .unwrap();
    assert!(error.message.contains("cannot find the address"), "{error}");
}

#[tokio::test]
async fn a_machine_without_ssh_connects_with_the_defaults() {
    let ssh = dock().ssh().unwrap();
    let home = Home::new(&ssh.known_hosts());
    let env = dockerutils_core::env::Env::from_pairs([
        ("HOME", home.path("").display().to_string()),
        ("PATH", home.path("empty").display().to_string()),
        ("LOGNAME", "root".to_owned()),
    ]);
    let connector = dock_agent::ssh::SshConnector::new(access(&ssh, "ann"), env);
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(run(&link, line("id -un")).await.text(), "ann\n");
}
