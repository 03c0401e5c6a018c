//! Logins that only OpenSSH's own client can make: keys in a token, keys in a security key. The session is then the client's,
//! and does all that one of libssh2's does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dock_agent::ssh::SshTransport;
use dock_link::transport::{Connector, QuestionKind, Transport, TransportErrorKind};
use dockerutils_core::agent::target::{Exec, Exit, Pty, RemoteCommand, Size, Target};
use dockerutils_core::docks::SshAccess;
use dockerutils_test_support::lab::Sshd;
use dockerutils_test_support::wait;
use dockerutils_test_support::{SlowLink, machine, process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, argv, dock, finish, line, ping, run};
use super::logins::sshd_for;

const PIN: &str = "1234";

/// A token in software (softhsm2) with one key, and its PIN.
struct Token {
    home: Home,
    /// PKCS11Provider.
    provider: PathBuf,
    public: String,
}

impl Token {
    fn new() -> Self {
        let home = Home::new(&dock().ssh().unwrap().known_hosts());
        for (program, package) in [("softhsm2-util", "softhsm2"), ("pkcs11-tool", "opensc")] {
            machine::require(program, &[package], "a login with a key in a token").unwrap();
        }
        let tokens = home.path("tokens");
        fs::create_dir(&tokens).unwrap();
        let config = home.path("softhsm2.conf");
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        fs::write(&config, text).unwrap();
        let library = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"];
        let provider = library
            .map(PathBuf::from)
            .into_iter()
            .find(|file| file.exists())
            .unwrap();
        let tool = |program: &str, words: &[&str]| {
            process::capture(Program::new(program).args(words).env("SOFTHSM2_CONF", &config)).unwrap()
        };
        tool(
            "softhsm2-util",
            &[
                "--init-token",
                "--free",
                "--label",
                "dock",
                "--so-pin",
                PIN,
                "--pin",
                PIN,
            ],
        );
        let module = provider.to_str().unwrap();
        tool(
            "pkcs11-tool",
            &[
                "--module",
                module,
                "--login",
                "--pin",
                PIN,
                "--keypairgen",
                "--key-type",
                "rsa:2048",
                "--id",
                "01",
                "--label",
                "dock",
            ],
        );
        let public = tool("ssh-keygen", &["-D", module]);
        Self {
            home,
            provider,
            public: String::from_utf8(public).unwrap(),
        }
    }

    /// A sshd that takes the key, and this home's way to it.
    fn sshd(&self, lines: &[&str]) -> Sshd {
        let sshd = sshd_for(&dock(), &self.public, lines);
        self.home.config(&format!("PKCS11Provider {}", self.provider.display()));
        sshd
    }

    fn connector(&self, access: SshAccess) -> dock_agent::ssh::SshConnector {
        let config = self.home.path("softhsm2.conf").display().to_string();
        self.home.connector_with(access, &[("SOFTHSM2_CONF", config.as_str())])
    }
}

fn of(sshd: &Sshd, user: &str) -> SshAccess {
    SshAccess {
        identity: None,
        ..access(sshd.ssh(), user)
    }
}

async fn log_in(connector: &impl Connector<Transport = SshTransport>, answers: &Arc<Answers>) -> SshTransport {
    let link = timeout(LONG, connector.connect(Arc::clone(answers) as _))
        .await
        .unwrap();
    link.unwrap_or_else(|error| panic!("{error}: {:?}", answers.asked()))
}

/// What OpenSSH's clients of this home are left.
fn clients(home: &Home) -> usize {
    let mark = format!("HOME={}\0", home.path("").display()).replace("/\0", "\0");
    let mut found = 0;
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_ours = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        found += usize::from(is_ours && name.trim() == "ssh");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_token_logs_in_and_its_pin_is_asked_for_once() {
    let token = Token::new();
    // Where a password would be taken, too, the key goes first.
    let sshd = token.sshd(&["PasswordAuthentication yes"]);
    let connector = token.connector(of(&sshd, "ann"));

    let nobody = Answers::nobody();
    let error = timeout(LONG, connector.connect(nobody)).await.unwrap().err().unwrap();
    assert_eq!(error.kind, TransportErrorKind::NeedsPerson, "{error}");
    assert!(error.message.contains("Permission denied"), "{error}");
    assert!(error.message.contains("PKCS11Provider"), "{error}");
    let hint = error.hint.unwrap();
    assert!(
        hint.starts_with("let one of your keys in: ssh-copy-id ") && hint.contains("ssh -v "),
        "{hint}"
    );

    let answers = Answers::of(&[PIN]);
    let link = log_in(&connector, &answers).await;
    let asked = answers.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].prompt.contains("PIN for 'dock'"), "{asked:?}");
    assert_eq!((asked[0].kind, asked[0].echo), (QuestionKind::Secret, false));
    assert_eq!(run(&link, line("id -un")).await.text(), "ann\n");
    assert!(ping(&link).await.unwrap().ends_with("OK"));
    // One that comes back asks nobody, while the first is still there and after it.
    let again = log_in(&connector, &Answers::nobody()).await;
    drop(link);
    assert!(ping(&again).await.unwrap().ends_with("OK"));
    drop(again);
    wait::until("the clients end with their links", || clients(&token.home) == 0);
    let left = fs::read_dir(token.home.path(".cache/dockerutils/run")).unwrap().count();
    assert_eq!(left, 0, "directories of logins are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_openssh_carries_everything_that_one_of_libssh2_does() {
    let token = Token::new();
    let sshd = token.sshd(&[]);
    let connector = token.connector(of(&sshd, "ann"));
    let link = Arc::new(log_in(&connector, &Answers::of(&[PIN])).await);

    // Codes, signals, both outputs, the words of an argument list, an input that ends.
    let output = run(&link, line("echo out; echo err >&2; exit 7")).await;
    assert_eq!((output.text().as_str(), &*output.stderr), ("out\n", &b"err\n"[..]));
    assert_eq!(output.exit, Exit::Code(7));
    assert_eq!(
        run(&link, line("kill -9 $$")).await.exit,
        Exit::Signal("KILL".to_owned())
    );
    let words = run(&link, argv(&["printf", "%s|", "a b", "it's", "x\ny", ""])).await;
    assert_eq!(words.text(), "a b|it's|x\ny||");

    // Much in both directions at once, over several channels.
    let sent: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let copies: Vec<_> = (0..3)
        .map(|_| {
            let (link, sent) = (Arc::clone(&link), sent.clone());
            tokio::spawn(async move {
                let connection = timeout(LONG, link.open(line("cat"))).await.unwrap().unwrap();
                let (mut reader, mut writer) = tokio::io::split(connection.stream);
                let writing = async {
                    writer.write_all(&sent).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let mut came = Vec::new();
                let (_, read) = tokio::join!(writing, reader.read_to_end(&mut came));
                read.unwrap();
                assert!(came == sent, "{} bytes came back of {}", came.len(), sent.len());
                assert_eq!(connection.exec.unwrap().exit.await.unwrap(), Exit::Code(0));
            })
        })
        .collect();
    for copy in copies {
        timeout(LONG, copy).await.unwrap().unwrap();
    }

    // A reader that takes nothing keeps nobody else waiting, and one that goes away ends what it had.
    let stuck = link.open(line("yes; echo never")).await.unwrap();
    assert!(ping(&link).await.unwrap().ends_with("OK"));
    drop(stuck);
    let gone = "pgrep -u ann -x yes >/dev/null && echo there || echo gone";
    let began = Instant::now();
    while run(&link, line(gone)).await.text() != "gone\n" {
        assert!(began.elapsed() < LONG, "what nobody reads goes on");
    }

    // A terminal, and its sizes.
    let mut terminal = link
        .open(Target::Exec(Exec {
            command: RemoteCommand::Line(
                "trap 'stty size; test -t 2 && exit 5' WINCH; stty size; while :; do sleep 0.05; done".to_owned(),
            ),
            pty: Some(Pty {
                term: "xterm".to_owned(),
                size: Size { rows: 31, columns: 101 },
            }),
        }))
        .await
        .unwrap();
    let mut first = [0; 8];
    timeout(LONG, terminal.stream.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&first, b"31 101\r\n");
    let size = Size { rows: 41, columns: 111 };
    terminal.exec.as_ref().unwrap().resize.send(size).await.unwrap();
    let output = finish(terminal).await;
    assert!(output.text().contains("41 111\r\n"), "{}", output.text());
    assert_eq!(output.exit, Exit::Code(5));

    // Ports: one where somebody listens, and one where nobody does.
    let (host, port) = ("127.0.0.1".to_owned(), sshd.ssh().address.port());
    let mut banner = link
        .open(Target::Tcp {
            host: host.clone(),
            port,
        })
        .await
        .unwrap();
    let mut said = [0; 8];
    timeout(LONG, banner.stream.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"SSH-2.0-");
    let refused = link.open(Target::Tcp { host, port: 1 }).await.err().unwrap();
    assert_eq!(refused.kind, TransportErrorKind::Refused, "{refused}");
    assert!(timeout(LONG, link.check()).await.unwrap().unwrap() < LONG);

    // Many channels leave nothing behind.
    for _ in 0..50 {
        let pings = (0..20).map(|_| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { ping(&link).await.unwrap() })
        });
        for ping in pings.collect::<Vec<_>>() {
            assert!(timeout(LONG, ping).await.unwrap().unwrap().ends_with("OK"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sshd_forbids_and_limits_holds_for_openssh_too() {
    let token = Token::new();
    let sshd = token.sshd(&[
        "AllowTcpForwarding no",
        "AllowStreamLocalForwarding no",
        "MaxSessions 2",
    ]);
    let connector = token.connector(of(&sshd, "ann"));
    let link = Arc::new(log_in(&connector, &Answers::of(&[PIN])).await);
    let (host, port) = ("127.0.0.1".to_owned(), 22);
    let error = link.open(Target::Tcp { host, port }).await.err().unwrap();
    assert_eq!(error.kind, TransportErrorKind::Forbidden, "{error}");
    // By docker's own client, and over further sessions, for which nobody is asked.
    let pings: Vec<_> = (0..8)
        .map(|_| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { ping(&link).await.unwrap() })
        })
        .collect();
    for ping in pings {
        assert!(timeout(LONG, ping).await.unwrap().unwrap().ends_with("OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_openssh_that_is_cut_or_killed_breaks_at_once_and_is_made_again() {
    let token = Token::new();
    let sshd = token.sshd(&[]);
    let slow = SlowLink::start(sshd.ssh().address, Duration::ZERO, None).unwrap();
    fs::write(
        token.home.path(".ssh/known_hosts"),
        sshd.ssh().known_hosts_at(slow.address()),
    )
    .unwrap();
    let connector = token.connector(SshAccess {
        host: slow.address().ip().to_string(),
        port: Some(slow.address().port()),
        ..of(&sshd, "ann")
    });
    let mut answers = Answers::of(&[PIN]);
    for how in ["cut", "killed"] {
        let link = log_in(&connector, &answers).await;
        answers = Answers::nobody();
        let mut connection = link.open(line("echo up; sleep 600")).await.unwrap();
        let mut said = [0; 3];
        timeout(LONG, connection.stream.read_exact(&mut said))
            .await
            .unwrap()
            .unwrap();
        match how {
            "cut" => slow.drop_connections(),
            _ => {
                let home = format!("HOME={}", token.home.path("").display());
                let kill = "for p in $(pgrep -x ssh); do tr '\\0' '\\n' </proc/$p/environ | grep -qx \"${0%/}\" && kill -9 $p; done; true";
                process::capture(Program::new("bash").args(["-c", kill, &home])).unwrap();
            }
        }
        let error = timeout(LONG, link.lost()).await.unwrap();
        assert_eq!(error.kind, TransportErrorKind::Unreachable, "{how}: {error}");
        assert!(
            error.message.contains("the link to ann@127.0.0.1 broke: "),
            "{how}: {error}"
        );
        let broken = timeout(LONG, connection.stream.read_exact(&mut said)).await.unwrap();
        assert!(
            broken.is_err(),
            "{how}: the stream ended without the remote side ending it"
        );
        assert!(link.open(line("true")).await.is_err(), "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_key_that_changed_is_refused_by_openssh_itself() {
    let token = Token::new();
    let sshd = token.sshd(&[]);
    let connector = token.connector(of(&sshd, "ann"));
    let link = log_in(&connector, &Answers::of(&[PIN])).await;
    drop(link);
    // From now on OpenSSH goes first, and checks for itself.
    let other = token.home.path("other");
    process::capture(
        Program::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&other),
    )
    .unwrap();
    let public = fs::read_to_string(other.with_extension("pub")).unwrap();
    let known = token.home.path(".ssh/known_hosts");
    let address = sshd.ssh().address;
    fs::write(&known, format!("[{}]:{} {public}", address.ip(), address.port())).unwrap();
    let error = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .err()
        .unwrap();
    assert_eq!(error.kind, TransportErrorKind::NeedsPerson, "{error}");
    assert!(error.message.contains("Host key verification failed"), "{error}");
    fs::write(&known, "").unwrap();
    let error = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .err()
        .unwrap();
    assert_eq!(error.kind, TransportErrorKind::NeedsPerson, "{error}");
}

/// OpenSSH's own stand-in for a security key, which its tests use.
fn security_key(folder: &Path) -> PathBuf {
    machine::unpack("openssh-tests", folder, "a login with a key in a security key").unwrap();
    folder.join("usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_a_security_key_logs_in() {
    let home = Home::new(&dock().ssh().unwrap().known_hosts());
    let provider = security_key(&home.path(""));
    let key = home.path(".ssh/id_sk");
    let mut keygen = Program::new("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519-sk", "-N", "", "-w"])
        .arg(&provider)
        .arg("-f")
        .arg(&key);
    process::capture(&mut keygen).unwrap();
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let sshd = sshd_for(&dock(), &public, &[]);
    home.config(&format!("SecurityKeyProvider {}", provider.display()));
    let connector = home.connector(SshAccess {
        identity: Some(key.clone()),
        ..of(&sshd, "ann")
    });
    // A touch is asked for, and needs no answer.
    let answers = Answers::nobody();
    let link = log_in(&connector, &answers).await;
    assert_eq!(run(&link, line("id -un")).await.text(), "ann\n");
    let asked = answers.asked();
    assert!(
        asked
            .iter()
            .all(|question| question.prompt.contains("presence") && question.echo),
        "{asked:?}"
    );
    assert!(ping(&link).await.unwrap().ends_with("OK"));
}
