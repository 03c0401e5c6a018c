//! Who the host is: known_hosts, as OpenSSH takes them.

use std::fs;
use std::process::Command;

use dock_agent::ssh::SshTransport;
use dock_link::transport::{Connector, QuestionKind, TransportError, TransportErrorKind};
use dockerutils_test_support::lab::{Ssh, Sshd};
use dockerutils_test_support::process;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, dock};
use super::logins::in_dock;

async fn connect(home: &Home, ssh: &Ssh, answers: std::sync::Arc<Answers>) -> Result<SshTransport, TransportError> {
    let connector = home.connector(access(ssh, "root"));
    timeout(LONG, connector.connect(answers)).await.unwrap()
}

fn known_hosts(home: &Home) -> String {
    fs::read_to_string(home.path(".ssh/known_hosts")).unwrap()
}

/// The dock's key of this type, as a line of known_hosts.
fn of_type(ssh: &Ssh, kind: &str) -> String {
    let known = ssh.known_hosts();
    let line = known.lines().find(|line| line.split(' ').nth(1) == Some(kind));
    format!("{}\n", line.unwrap())
}

#[tokio::test]
async fn an_unknown_key_is_shown_accepted_and_recorded() {
    let ssh = dock().ssh().unwrap();
    let home = Home::new("");
    let answers = Answers::of(&["yes"]);
    connect(&home, &ssh, answers.clone()).await.unwrap();
    let asked = answers.asked();
    assert_eq!(
        (asked.len(), asked[0].kind, asked[0].echo),
        (1, QuestionKind::HostKey, true)
    );
    // The fingerprint as ssh itself prints it.
    let recorded = known_hosts(&home);
    assert_eq!(recorded, of_type(&ssh, "ssh-ed25519"));
    let mut keygen = Command::new("ssh-keygen");
    keygen.arg("-lf").arg(home.path(".ssh/known_hosts"));
    let printed = process::capture_text(&mut keygen).unwrap();
    let fingerprint = printed.split(' ').nth(1).unwrap();
    assert!(asked[0].prompt.contains(fingerprint), "{} {printed}", asked[0].prompt);
    // Now it is known, and nobody is asked. ssh itself takes the entry.
    connect(&home, &ssh, Answers::nobody()).await.unwrap();
    assert_eq!(known_hosts(&home), recorded);
    let mut real = Command::new(home.path("bin/ssh"));
    real.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-i"]);
    real.arg(&ssh.key).arg(format!("root@{}", ssh.address.ip())).arg("true");
    process::capture(&mut real).unwrap();
}

#[tokio::test]
async fn an_unknown_key_is_refused_without_a_yes() {
    let ssh = dock().ssh().unwrap();
    let home = Home::new("");
    for (answers, why) in [
        (Answers::nobody(), "nobody is there"),
        (Answers::of(&["no"]), "was not accepted"),
        (Answers::of(&[""]), "was not accepted"),
    ] {
        let error = connect(&home, &ssh, answers).await.err().unwrap();
        assert!(error.message.contains(why), "{error}");
        assert_eq!(error.kind, TransportErrorKind::NeedsPerson);
    }
    assert_eq!(known_hosts(&home), "");
}

#[tokio::test]
async fn strict_host_key_checking_is_obeyed() {
    let ssh = dock().ssh().unwrap();
    let home = Home::new("");
    home.config("StrictHostKeyChecking yes");
    let answers = Answers::of(&["yes"]);
    let error = connect(&home, &ssh, answers.clone()).await.err().unwrap();
    assert!(error.message.contains("takes no new ones"), "{error}");
    assert!(answers.asked().is_empty());
    for mode in ["accept-new", "no"] {
        fs::write(home.path(".ssh/known_hosts"), "").unwrap();
        home.config(&format!("StrictHostKeyChecking {mode}"));
        connect(&home, &ssh, Answers::nobody()).await.unwrap();
        assert_eq!(known_hosts(&home), of_type(&ssh, "ssh-ed25519"));
    }
}

#[tokio::test]
async fn a_changed_key_is_refused_with_file_line_and_mend() {
    let ssh = dock().ssh().unwrap();
    let host = ssh.address.ip();
    // Another host's key of each type under this host's name.
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    process::capture(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&other),
    )
    .unwrap();
    let key = fs::read_to_string(other.with_extension("pub")).unwrap();
    let home = Home::new(&format!("# mine\n{host} {key}"));
    for mode in ["ask", "no", "accept-new"] {
        home.config(&format!("StrictHostKeyChecking {mode}"));
        let answers = Answers::of(&["yes"]);
        let error = connect(&home, &ssh, answers.clone()).await.err().unwrap();
        let place = format!("{}:2", home.path(".ssh/known_hosts").display());
        assert!(
            error.message.contains("has changed") && error.message.contains(&place),
            "{error}"
        );
        assert_eq!(error.kind, TransportErrorKind::NeedsPerson);
        assert!(answers.asked().is_empty());
        let hint = error.hint.unwrap();
        let (_, mend) = hint.split_once(": ").unwrap();
        assert!(
            mend.starts_with("ssh-keygen -f ") && mend.ends_with(&format!(" -R {host}")),
            "{mend}"
        );
        if mode == "accept-new" {
            // The suggested fix works.
            process::capture(Command::new("sh").args(["-c", mend])).unwrap();
            connect(&home, &ssh, Answers::nobody()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_host_known_by_another_type_of_key_is_asked_for_that() {
    let ssh = dock().ssh().unwrap();
    for kind in ["ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"] {
        let home = Home::new(&of_type(&ssh, kind));
        connect(&home, &ssh, Answers::nobody()).await.unwrap();
    }
    // What the configuration excludes is not asked for: then it is a new key, and the known one is named.
    let home = Home::new(&of_type(&ssh, "ssh-rsa"));
    home.config("HostKeyAlgorithms ssh-ed25519");
    let answers = Answers::of(&["yes"]);
    connect(&home, &ssh, answers.clone()).await.unwrap();
    assert!(answers.asked()[0].prompt.contains("another type: ssh-rsa"));
}

#[tokio::test]
async fn hashed_names_ports_patterns_aliases_and_revocations_are_understood() {
    let dock = dock();
    let ssh = dock.ssh().unwrap();
    let home = Home::new("");
    home.config("HashKnownHosts yes");
    connect(&home, &ssh, Answers::of(&["yes"])).await.unwrap();
    assert!(known_hosts(&home).starts_with("|1|"), "{}", known_hosts(&home));
    connect(&home, &ssh, Answers::nobody()).await.unwrap();

    let sshd = dock.sshd(&[]).unwrap();
    let port = sshd.ssh().address.port();
    let home = Home::new("");
    connect(&home, sshd.ssh(), Answers::of(&["yes"])).await.unwrap();
    let name = format!("[{}]:{port}", ssh.address.ip());
    assert!(known_hosts(&home).starts_with(&name), "{}", known_hosts(&home));
    // As ssh, a host on another port is known by its bare name, too.
    connect(&Home::new(&ssh.known_hosts()), sshd.ssh(), Answers::nobody())
        .await
        .unwrap();

    let key = of_type(&ssh, "ssh-ed25519").split_once(' ').unwrap().1.to_owned();
    let pattern = Home::new(&format!("172.*,!10.* {key}"));
    connect(&pattern, &ssh, Answers::nobody()).await.unwrap();

    let alias = Home::new(&format!("the-dock {key}"));
    alias.config("HostKeyAlias the-dock");
    connect(&alias, sshd.ssh(), Answers::nobody()).await.unwrap();

    let revoked = Home::new(&format!("@revoked * {key}{}", ssh.known_hosts()));
    let error = connect(&revoked, &ssh, Answers::of(&["yes"])).await.err().unwrap();
    assert!(
        error.message.contains("revoked") && error.message.contains("known_hosts:1"),
        "{error}"
    );
}

#[tokio::test]
async fn revoked_keys_are_refused_and_a_program_that_knows_host_keys_is_asked() {
    let dock = dock();
    let ssh = dock.ssh().unwrap();
    let key = of_type(&ssh, "ssh-ed25519").split_once(' ').unwrap().1.to_owned();
    let home = Home::new(&ssh.known_hosts());
    let other = home.path("other");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&other)
        .status()
        .unwrap();
    assert!(made.success());
    let foreign = fs::read_to_string(other.with_extension("pub")).unwrap();
    let keys = home.path("keys");
    let krl = home.path("krl");
    for (revoked, expected) in [(&key, false), (&foreign, true)] {
        fs::write(&keys, format!("# gone\n{revoked}\n")).unwrap();
        let made = Command::new("ssh-keygen")
            .args(["-q", "-k", "-f"])
            .args([&krl, &keys])
            .status()
            .unwrap();
        assert!(made.success());
        for file in [&keys, &krl] {
            home.config(&format!("RevokedHostKeys {}", file.display()));
            let connected = connect(&home, &ssh, Answers::of(&["yes"])).await;
            match connected.err() {
                None => assert!(expected, "{}", file.display()),
                Some(error) => assert!(!expected && error.message.contains("is revoked by"), "{error}"),
            }
        }
    }
    // A list that can't be read, or is not valid.
    fs::write(&krl, "SSHKRL\n\0nonsense").unwrap();
    for file in [home.path("nowhere"), krl] {
        home.config(&format!("RevokedHostKeys {}", file.display()));
        let error = connect(&home, &ssh, Answers::of(&["yes"])).await.err().unwrap();
        assert!(error.message.contains("can't be checked"), "{error}");
    }

    let home = Home::new("");
    let says = home.path("says");
    fs::write(&says, ssh.known_hosts()).unwrap();
    home.config(&format!("KnownHostsCommand /bin/cat {}", says.display()));
    connect(&home, &ssh, Answers::nobody()).await.unwrap();
    // What it does not know is asked about, as by ssh: here, that is OpenSSH's own question.
    fs::write(&says, "").unwrap();
    for (answers, kept) in [(Answers::nobody(), false), (Answers::of(&["no"]), false)] {
        let error = connect(&home, &ssh, answers).await.err().unwrap();
        assert!(error.message.contains("is not known, and was not accepted"), "{error}");
        assert_eq!(error.kind, TransportErrorKind::NeedsPerson);
        assert_eq!(!known_hosts(&home).is_empty(), kept);
    }
    let answers = Answers::of(&["yes"]);
    connect(&home, &ssh, answers.clone()).await.unwrap();
    let asked = answers.asked();
    assert_eq!(
        (asked.len(), asked[0].kind, asked[0].echo),
        (1, QuestionKind::HostKey, true)
    );
    assert_eq!(known_hosts(&home), of_type(&ssh, "ssh-ed25519"));
}

/// Whether the real client gets in with this home, asking nobody.
fn ssh_gets_in(home: &Home, ssh: &Ssh) -> bool {
    let mut real = Command::new(home.path("bin/ssh"));
    real.args(["-o", "BatchMode=yes", "-p", &ssh.address.port().to_string(), "-i"]);
    real.arg(&ssh.key).arg(format!("root@{}", ssh.address.ip())).arg("true");
    process::capture(&mut real).is_ok()
}

/// An authority for host keys, and a sshd that shows a certificate of it.
fn certified(home: &Home) -> (String, Sshd) {
    let dock = dock();
    let authority = home.path("authority");
    let mut keygen = Command::new("ssh-keygen");
    process::capture(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&authority)).unwrap();
    let ssh = dock.ssh().unwrap();
    let key = ssh.host_keys.iter().find(|key| key.starts_with("ssh-ed25519")).unwrap();
    let public = home.path("host.pub");
    fs::write(&public, format!("{key}\n")).unwrap();
    let mut sign = Command::new("ssh-keygen");
    let names = ssh.address.ip().to_string();
    sign.args(["-q", "-s"])
        .arg(&authority)
        .args(["-I", "box", "-h", "-n", &names]);
    process::capture(sign.arg(&public)).unwrap();
    let certificate = fs::read_to_string(home.path("host-cert.pub")).unwrap();
    let name = format!("/etc/ssh/host-cert-{}.pub", std::process::id());
    in_dock(&dock, &format!("cat > {name}"), &certificate);
    let sshd = dock
        .sshd(&[
            "HostKey /etc/ssh/ssh_host_ed25519_key",
            &format!("HostCertificate {name}"),
        ])
        .unwrap();
    let public = fs::read_to_string(authority.with_extension("pub")).unwrap();
    (public, sshd)
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_ssh_knows_by_an_authority_or_a_name_with_blanks_is_known() {
    let home = Home::new("");
    let (authority, certified) = certified(&home);
    let plain = dock().sshd(&["HostKey /etc/ssh/ssh_host_ed25519_key"]).unwrap();
    let other = home.path("other");
    let mut keygen = Command::new("ssh-keygen");
    process::capture(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other)).unwrap();
    let other = fs::read_to_string(other.with_extension("pub")).unwrap();
    let ip = plain.ssh().address.ip();
    let blanks = home.path("a name  with blanks");
    let file = |option: &str| format!("{option} \"{}\"", blanks.display());
    let of_both = |keys: &str| {
        let at = |sshd: &Sshd| format!("[{ip}]:{} {keys}", sshd.ssh().address.port());
        at(&certified) + &at(&plain)
    };
    let signed_by = |key: &str| format!("@cert-authority {ip},[{ip}]:* {key}");
    let key = of_type(certified.ssh(), "ssh-ed25519")
        .split_once(' ')
        .unwrap()
        .1
        .to_owned();
    // What is in known_hosts, in the file with blanks in its name (where there is one), in the configuration; and with which of
    // the two sshds that is enough.
    for (known, more, config, expected) in [
        (signed_by(&authority), None, String::new(), [true, false]),
        (signed_by(&other), None, String::new(), [false, false]),
        (
            format!("@cert-authority {ip} {authority}"),
            None,
            String::new(),
            [true, false],
        ),
        (
            format!("@cert-authority 10.0.0.1 {authority}"),
            None,
            String::new(),
            [false, false],
        ),
        (
            signed_by(&authority) + &format!("@revoked * {authority}"),
            None,
            String::new(),
            [false, false],
        ),
        // The authority counts, whatever else is said of the host.
        (
            signed_by(&authority) + &of_both(&other),
            None,
            String::new(),
            [true, false],
        ),
        (
            signed_by(&authority) + &of_both(&key),
            None,
            String::new(),
            [true, true],
        ),
        (
            signed_by(&authority),
            None,
            "HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com".to_owned(),
            [true, false],
        ),
        (
            String::new(),
            Some(of_both(&key)),
            file("UserKnownHostsFile"),
            [true, true],
        ),
        (
            String::new(),
            Some(of_both(&other)),
            file("UserKnownHostsFile"),
            [false, false],
        ),
        (
            String::new(),
            Some(of_both(&key)),
            file("GlobalKnownHostsFile"),
            [true, true],
        ),
        (of_both(&key), None, file("GlobalKnownHostsFile"), [true, true]),
        (String::new(), None, file("UserKnownHostsFile"), [false, false]),
        (
            of_both(&key),
            Some(format!("@revoked * {key}")),
            file("GlobalKnownHostsFile"),
            [false, false],
        ),
        (
            of_both(&key),
            Some(other.clone()),
            file("RevokedHostKeys"),
            [true, true],
        ),
        (
            of_both(&key),
            Some(key.clone()),
            file("RevokedHostKeys"),
            [false, false],
        ),
    ] {
        home.config(&config);
        for (sshd, expected) in [&certified, &plain].into_iter().zip(expected) {
            fs::write(home.path(".ssh/known_hosts"), &known).unwrap();
            let _ = fs::remove_file(&blanks);
            if let Some(more) = &more {
                fs::write(&blanks, more).unwrap();
            }
            let what = format!("{known}{more:?}\n{config}");
            assert_eq!(ssh_gets_in(&home, sshd.ssh()), expected, "ssh itself: {what}");
            let result = connect(&home, sshd.ssh(), Answers::nobody()).await;
            assert_eq!(result.is_ok(), expected, "{what}: {:?}", result.err());
        }
    }
    // Without an authority that knows it, a person decides, and the key is where it belongs.
    home.config(&file("UserKnownHostsFile"));
    let _ = fs::remove_file(&blanks);
    connect(&home, plain.ssh(), Answers::of(&["yes"])).await.unwrap();
    connect(&home, plain.ssh(), Answers::nobody()).await.unwrap();
    assert_eq!(fs::read_to_string(&blanks).unwrap().lines().count(), 1);
    assert!(ssh_gets_in(&home, plain.ssh()));
    home.config("");
    fs::write(home.path(".ssh/known_hosts"), signed_by(&authority)).unwrap();
    let answers = Answers::of(&["yes"]);
    connect(&home, plain.ssh(), answers.clone()).await.unwrap();
    assert_eq!(answers.asked()[0].kind, QuestionKind::HostKey);
    connect(&home, plain.ssh(), Answers::nobody()).await.unwrap();
}
