//! Who the user is: keys of every kind, agents, certificates, passwords, several factors.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dock_link::transport::{Connector, QuestionKind, TransportErrorKind};
use dockerutils_core::docks::SshAccess;
use dockerutils_test_support::lab::{LabEngine, Ssh, Sshd};
use dockerutils_test_support::process;
use dockerutils_test_support::wait;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, dock, line, run};

/// A sshd that takes these public keys for every user.
pub fn sshd_for(dock: &LabEngine, keys: &str, lines: &[&str]) -> Sshd {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("/etc/ssh/h-c-{}-{number}", std::process::id());
    in_dock(dock, &format!("cat > {name}; chmod 644 {name}"), keys);
    let file = format!("AuthorizedKeysFile {name}");
    let mut all = vec![file.as_str()];
    all.extend(lines);
    dock.sshd(&all).unwrap()
}

pub fn in_dock(dock: &LabEngine, script: &str, stdin: &str) {
    let mut sh = dock.exec("sh").unwrap();
    let mut child = sh.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
}

fn keygen(home: &Home, name: &str, words: &[&str]) -> PathBuf {
    let path = home.path(".ssh").join(name);
    process::capture(Command::new("ssh-keygen").arg("-q").args(words).arg("-f").arg(&path)).unwrap();
    path
}

fn public(key: &Path) -> String {
    fs::read_to_string(format!("{}.pub", key.display())).unwrap()
}

fn with(ssh: &Ssh, key: Option<&Path>) -> SshAccess {
    SshAccess {
        identity: key.map(Path::to_owned),
        ..access(ssh, "root")
    }
}

/// An ssh-agent of this test alone.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(home: &Home) -> Self {
        let socket = home.path("agent");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait::until("the agent's socket", || socket.exists());
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        process::capture(
            Command::new("ssh-add")
                .arg("-q")
                .arg(key)
                .env("SSH_AUTH_SOCK", &self.socket),
        )
        .unwrap();
    }

    fn answers(&self) -> Arc<Answers> {
        Answers::with_agent(self.socket.clone())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_kind_of_key_logs_in_and_an_encrypted_one_is_asked_for_once() {
    let dock = dock();
    let known = dock.ssh().unwrap();
    let home = Home::new(&known.known_hosts());
    let kinds = [
        ("ed25519", vec!["-t", "ed25519"]),
        ("ecdsa-256", vec!["-t", "ecdsa", "-b", "256"]),
        ("ecdsa-521", vec!["-t", "ecdsa", "-b", "521"]),
        ("rsa", vec!["-t", "rsa", "-b", "2048"]),
        ("rsa-pem", vec!["-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ("ecdsa-pem", vec!["-t", "ecdsa", "-m", "PEM"]),
        ("rsa-pkcs8", vec!["-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
    ];
    let mut keys = Vec::new();
    let mut publics = String::new();
    for (name, words) in &kinds {
        for (suffix, passphrase) in [("", ""), ("-enc", "sesame")] {
            let words = [words.as_slice(), &["-N", passphrase]].concat();
            let key = keygen(&home, &format!("{name}{suffix}"), &words);
            publics.push_str(&public(&key));
            keys.push((key, !passphrase.is_empty()));
        }
    }
    let sshd = sshd_for(&dock, &publics, &[]);
    for (key, encrypted) in keys {
        let connector = home.connector(with(sshd.ssh(), Some(&key)));
        let answers = Answers::of(&["sesame"]);
        let first = timeout(LONG, connector.connect(answers.clone())).await.unwrap();
        let first = first.unwrap_or_else(|error| panic!("{}: {error}", key.display()));
        assert_eq!(run(&first, line("id -un")).await.text(), "root\n");
        let asked = answers.asked();
        assert_eq!(asked.len(), usize::from(encrypted), "{}", key.display());
        for question in asked {
            assert_eq!((question.kind, question.echo), (QuestionKind::Secret, false));
            assert!(
                question.prompt.contains(&key.display().to_string()),
                "{}",
                question.prompt
            );
        }
        // A link that comes back asks nobody.
        timeout(LONG, connector.connect(Answers::nobody()))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn a_passphrase_is_asked_again_when_it_is_wrong_and_never_in_vain() {
    let dock = dock();
    let home = Home::new(&dock.ssh().unwrap().known_hosts());
    let key = keygen(&home, "id", &["-t", "ed25519", "-N", "sesame"]);
    let keys_alone = ["PasswordAuthentication no", "KbdInteractiveAuthentication no"];
    let sshd = sshd_for(&dock, &public(&key), &keys_alone);
    let connector = home.connector(with(sshd.ssh(), Some(&key)));

    let nobody = connector.connect(Answers::nobody()).await.err().unwrap();
    assert_eq!(nobody.kind, TransportErrorKind::NeedsPerson);
    assert!(nobody.message.contains("is encrypted"), "{nobody}");
    assert_eq!(nobody.hint.unwrap(), format!("ssh-add {}", key.display()));

    let answers = Answers::of(&["open", "sesame"]);
    timeout(LONG, connector.connect(answers.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answers.asked().len(), 2);

    let answers = Answers::of(&["a", "b", "c", "d", "e"]);
    let fresh = home.connector(with(sshd.ssh(), Some(&key)));
    let error = fresh.connect(answers.clone()).await.err().unwrap();
    let asked = answers.asked();
    let passphrases = asked.iter().filter(|question| question.prompt.contains("passphrase"));
    assert_eq!(passphrases.count(), 3, "NumberOfPasswordPrompts");
    assert!(error.message.contains("no passphrase that was given opens"), "{error}");

    // A server that does not take the key: nobody is asked for its passphrase.
    let other = dock.sshd(&[
        "AuthorizedKeysFile /dev/null",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
    ]);
    let other = other.unwrap();
    let answers = Answers::of(&["sesame"]);
    let refused = home.connector(with(other.ssh(), Some(&key)));
    let error = refused.connect(answers.clone()).await.err().unwrap();
    assert!(answers.asked().is_empty());
    assert!(
        error.message.contains("it allows: publickey") && error.message.contains("SHA256:"),
        "{error}"
    );
    let port = other.ssh().address.port();
    let hint = format!(
        "ssh-copy-id -i {}.pub -p {port} root@{}",
        key.display(),
        other.ssh().address.ip()
    );
    assert_eq!(error.hint.unwrap(), hint);
}

#[tokio::test]
async fn keys_of_the_agent_are_used() {
    let dock = dock();
    let home = Home::new(&dock.ssh().unwrap().known_hosts());
    let agent = Agent::start(&home);
    let (first, second) = (
        keygen(&home, "first", &["-t", "ed25519", "-N", ""]),
        keygen(&home, "second", &["-t", "rsa", "-b", "2048", "-N", ""]),
    );
    agent.add(&first);
    agent.add(&second);
    let sshd = sshd_for(&dock, &public(&second), &[]);
    fs::remove_file(&second).unwrap();
    let connector = home.connector(with(sshd.ssh(), None));
    timeout(LONG, connector.connect(agent.answers()))
        .await
        .unwrap()
        .unwrap();

    // IdentitiesOnly: of the agent's keys, only those that the configuration names, by their public half.
    home.config(&format!("IdentitiesOnly yes\nIdentityFile {}", first.display()));
    let error = connector.connect(agent.answers()).await.err().unwrap();
    assert!(error.message.contains("refuses the login"), "{error}");
    home.config(&format!("IdentitiesOnly yes\nIdentityFile {}", second.display()));
    timeout(LONG, connector.connect(agent.answers()))
        .await
        .unwrap()
        .unwrap();

    // IdentityAgent wins over the shell's.
    home.config("IdentityAgent none");
    assert!(connector.connect(agent.answers()).await.is_err());
    home.config(&format!("IdentityAgent {}", agent.socket.display()));
    timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    home.config("");
    let error = connector.connect(Answers::nobody()).await.err().unwrap();
    assert!(error.message.contains("no key to try"), "{error}");
}

#[tokio::test]
async fn a_server_that_has_enough_of_keys_is_not_tried_again() {
    let dock = dock();
    let home = Home::new(&dock.ssh().unwrap().known_hosts());
    let agent = Agent::start(&home);
    for number in 0..8 {
        agent.add(&keygen(&home, &format!("key{number}"), &["-t", "ed25519", "-N", ""]));
    }
    let sshd = sshd_for(&dock, "", &["MaxAuthTries 4"]);
    let connector = home.connector(with(sshd.ssh(), None));
    let error = connector.connect(agent.answers()).await.err().unwrap();
    assert!(
        error.message.contains("ended the connection during the login"),
        "{error}"
    );
    assert_eq!(error.kind, TransportErrorKind::NeedsPerson);
    assert!(error.hint.unwrap().contains("IdentitiesOnly"));
}

#[tokio::test]
async fn certificates_of_users_log_in() {
    let dock = dock();
    let home = Home::new(&dock.ssh().unwrap().known_hosts());
    let authority = keygen(&home, "ca", &["-t", "ed25519", "-N", ""]);
    let name = format!("/etc/ssh/h-c-ca-{}", std::process::id());
    in_dock(&dock, &format!("cat > {name}"), &public(&authority));
    let sshd = dock
        .sshd(&["AuthorizedKeysFile none", &format!("TrustedUserCAKeys {name}")])
        .unwrap();
    for words in [&["-t", "ed25519"][..], &["-t", "ecdsa"], &["-t", "rsa", "-b", "2048"]] {
        let key = keygen(&home, words[1], &[words, &["-N", ""]].concat());
        let mut sign = Command::new("ssh-keygen");
        sign.args(["-q", "-s"])
            .arg(&authority)
            .args(["-I", "me", "-n", "root", "-V", "+1h"]);
        process::capture(sign.arg(format!("{}.pub", key.display()))).unwrap();
        let connector = home.connector(with(sshd.ssh(), Some(&key)));
        let link = timeout(LONG, connector.connect(Answers::nobody())).await.unwrap();
        link.unwrap_or_else(|error| panic!("{words:?}: {error}"));

        // The agent keeps certificates with their keys.
        let agent = Agent::start(&home);
        agent.add(&key);
        let elsewhere = home.connector(with(sshd.ssh(), None));
        let link = timeout(LONG, elsewhere.connect(agent.answers())).await.unwrap();
        // libssh2 would let the agent sign for RSA with SHA-1; so OpenSSH's own client logs in.
        link.unwrap_or_else(|error| panic!("{words:?} by the agent: {error}"));
        drop(agent);
        let _ = fs::remove_file(home.path("agent"));

        // CertificateFile names it where it lies elsewhere.
        let moved = home.path("certificate");
        fs::rename(format!("{}-cert.pub", key.display()), &moved).unwrap();
        assert!(connector.connect(Answers::nobody()).await.is_err());
        home.config(&format!("CertificateFile {}", moved.display()));
        timeout(LONG, connector.connect(Answers::nobody()))
            .await
            .unwrap()
            .unwrap();
        home.config("");
    }
}

/// A user of the dock for one test, with a password; removed at its end.
struct Person<'a> {
    dock: &'a LabEngine,
    name: String,
}

impl<'a> Person<'a> {
    fn new(dock: &'a LabEngine, password: &str) -> Self {
        let name = format!("hc{}", std::process::id());
        in_dock(
            dock,
            &format!("useradd --create-home {name} && chpasswd"),
            &format!("{name}:{password}\n"),
        );
        Self { dock, name }
    }
}

impl Drop for Person<'_> {
    fn drop(&mut self) {
        let name = &self.name;
        in_dock(
            self.dock,
            &format!("userdel --force --remove {name} >/dev/null 2>&1; true"),
            "",
        );
    }
}

#[tokio::test]
async fn passwords_and_several_factors_are_asked_for() {
    let dock = dock();
    let home = Home::new(&dock.ssh().unwrap().known_hosts());
    let key = keygen(&home, "id", &["-t", "ed25519", "-N", ""]);
    let person = Person::new(&dock, "sesame");
    let of = |sshd: &Sshd| SshAccess {
        user: Some(person.name.clone()),
        ..with(sshd.ssh(), Some(&key))
    };
    for (lines, again) in [
        (
            vec!["PasswordAuthentication yes", "KbdInteractiveAuthentication no"],
            true,
        ),
        (
            vec![
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication yes",
                "UsePAM yes",
            ],
            true,
        ),
        (
            vec!["PasswordAuthentication yes", "AuthenticationMethods publickey,password"],
            true,
        ),
        (
            vec![
                "UsePAM yes",
                "KbdInteractiveAuthentication yes",
                "AuthenticationMethods publickey,keyboard-interactive",
            ],
            true,
        ),
    ] {
        let keys = if lines.iter().any(|line| line.contains("publickey,")) {
            public(&key)
        } else {
            String::new()
        };
        let sshd = sshd_for(&dock, &keys, &lines);
        let connector = home.connector(of(&sshd));
        let answers = Answers::of(&["wrong", "sesame"]);
        let link = timeout(LONG, connector.connect(answers.clone())).await.unwrap();
        let link = link.unwrap_or_else(|error| panic!("{lines:?}: {error}"));
        assert_eq!(run(&link, line("id -un")).await.text(), format!("{}\n", person.name));
        let asked = answers.asked();
        assert_eq!(asked.len(), 2, "{lines:?} {asked:?}");
        assert!(
            asked
                .iter()
                .all(|question| !question.echo && question.kind == QuestionKind::Secret)
        );
        let came_back = timeout(LONG, connector.connect(Answers::nobody())).await.unwrap();
        assert_eq!(came_back.is_ok(), again, "{lines:?}");
        let error = home
            .connector(of(&sshd))
            .connect(Answers::nobody())
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind, TransportErrorKind::NeedsPerson, "{error}");
    }
}

#[tokio::test]
async fn a_key_that_others_may_read_is_not_used_as_by_ssh() {
    let ssh = dock().ssh().unwrap();
    let home = Home::new(&ssh.known_hosts());
    let key = home.path(".ssh/id_of_mine");
    fs::copy(&ssh.key, &key).unwrap();
    let mine = SshAccess {
        identity: Some(key.clone()),
        ..access(&ssh, "ann")
    };
    for (mode, expected) in [
        (0o600, true),
        (0o400, true),
        (0o640, false),
        (0o604, false),
        (0o644, false),
        (0o620, false),
    ] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let mut real = Command::new(home.path("bin/ssh"));
        real.args(["-o", "BatchMode=yes", "-i"]).arg(&key);
        real.arg(format!("ann@{}", ssh.address.ip())).arg("true");
        assert_eq!(process::capture(&mut real).is_ok(), expected, "ssh itself: {mode:o}");
        let connector = home.connector(mine.clone());
        let result = timeout(LONG, connector.connect(Answers::nobody())).await.unwrap();
        assert_eq!(result.is_ok(), expected, "{mode:o}");
        if let Some(error) = result.err() {
            let said = format!("{} is open to others (its mode is {mode:04o})", key.display());
            assert!(error.message.contains(&said), "{error}");
            assert_eq!(error.hint.unwrap(), format!("chmod 600 {}", key.display()));
        }
    }
    // Where a password would do, it is said before the question.
    let sshd = dock()
        .sshd(&["PasswordAuthentication yes", "AuthenticationMethods password publickey"])
        .unwrap();
    fs::write(home.path(".ssh/known_hosts"), sshd.ssh().known_hosts()).unwrap();
    let answers = Answers::of(&["wrong"]);
    let connector = home.connector(SshAccess {
        identity: Some(key.clone()),
        ..access(sshd.ssh(), "ann")
    });
    assert!(
        timeout(LONG, connector.connect(answers.clone()))
            .await
            .unwrap()
            .is_err()
    );
    let prompt = &answers.asked()[0].prompt;
    assert!(
        prompt.contains(&format!("chmod 600 {}\n", key.display())) && prompt.ends_with("'s password: "),
        "{prompt}"
    );
}
