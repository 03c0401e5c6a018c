//! Bytes: of commands, terminals, the engine and TCP; many at once, large ones, half-closed ones.

use std::time::{Duration, Instant};

use dock_agent::ssh::SshTransport;
use dock_link::transport::{Connection, Connector, Transport, TransportErrorKind};
use dockerutils_core::agent::target::{Exec, Exit, Pty, RemoteCommand, Size, Target};
use dockerutils_test_support::{SlowLink, machine};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::home::{Answers, Home, LONG, access, argv, dock, finish, line, link, ping, run};

const MB: usize = 1_000_000;

#[tokio::test]
async fn the_engine_answers_and_commands_run() {
    let ssh = dock().ssh().unwrap();
    for user in ["root", "ann"] {
        let link = link(&ssh, user).await;
        let answer = ping(&link).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK"),
            "{answer}"
        );
        let output = run(&link, line("echo out; echo err >&2; id -un; exit 7")).await;
        assert_eq!(output.text(), format!("out\n{user}\n"));
        assert_eq!((output.stderr, output.exit), (b"err\n".to_vec(), Exit::Code(7)));
        assert!(timeout(LONG, link.check()).await.unwrap().unwrap() < LONG);
    }
}

#[tokio::test]
async fn commands_end_by_code_or_signal_after_all_their_output() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    for (command, exit) in [
        ("true", Exit::Code(0)),
        ("exit 255", Exit::Code(255)),
        ("kill -TERM $$", Exit::Signal("TERM".to_owned())),
        ("kill -9 $$", Exit::Signal("KILL".to_owned())),
        ("no-such-command-here", Exit::Code(127)),
    ] {
        assert_eq!(run(&link, line(command)).await.exit, exit, "{command}");
    }
    let many = run(&link, line("seq 1 200000; seq 1 100000 >&2; exit 3")).await;
    assert_eq!(many.exit, Exit::Code(3));
    assert!(many.stdout.ends_with(b"\n200000\n") && many.stdout.len() == 1_288_895);
    assert!(many.stderr.ends_with(b"\n100000\n") && many.stderr.len() == 588_895);
}

#[tokio::test]
async fn a_half_closed_stream_goes_on_in_the_other_direction() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    // Ours is closed: the far side counts what came, and answers.
    let mut connection = link.open(line("wc -c; sleep 0.3; echo later")).await.unwrap();
    connection.stream.write_all(&vec![b'x'; 3 * MB]).await.unwrap();
    connection.stream.shutdown().await.unwrap();
    assert_eq!(finish(connection).await.text(), "3000000\nlater\n");
    // Theirs is closed: what we send still arrives.
    let path = format!("/tmp/h-c-{}", std::process::id());
    let mut connection = link.open(line(&format!("exec >&- 2>&-; cat > {path}"))).await.unwrap();
    assert_eq!(connection.stream.read(&mut [0; 8]).await.unwrap(), 0);
    connection.stream.write_all(b"still heard").await.unwrap();
    connection.stream.shutdown().await.unwrap();
    assert_eq!(finish(connection).await.exit, Exit::Code(0));
    let read = run(&link, line(&format!("cat {path}; rm {path}"))).await;
    assert_eq!(read.text(), "still heard");
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_its_command() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let mark = format!("31{:05}", std::process::id() % 100_000);
    let connection = link
        .open(line(&format!("exec cat >/dev/null {mark}- -")))
        .await
        .unwrap();
    let endless = link
        .open(line(&format!("while echo {mark}; do :; done")))
        .await
        .unwrap();
    drop((connection, endless));
    let begun = Instant::now();
    loop {
        let output = run(
            &link,
            line(&format!("pgrep -u ann -f '[{}]{}' | wc -l", &mark[..1], &mark[1..])),
        )
        .await;
        if output.text().trim() == "0" {
            break;
        }
        assert!(begun.elapsed() < LONG, "{}", output.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn terminal(command: RemoteCommand, rows: u16, columns: u16) -> Target {
    Target::Exec(Exec {
        command,
        pty: Some(Pty {
            term: "xterm-256color".to_owned(),
            size: Size { rows, columns },
        }),
    })
}

#[tokio::test]
async fn a_terminal_has_its_size_and_is_told_a_new_one() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let script = RemoteCommand::Line(
        "echo $TERM; trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done".to_owned(),
    );
    let Connection { mut stream, exec } = link.open(terminal(script, 33, 101)).await.unwrap();
    let mut exec = exec.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"33 101\r\n") {
        assert!(timeout(LONG, stream.read_buf(&mut said)).await.unwrap().unwrap() > 0);
    }
    assert!(said.starts_with(b"xterm-256color\r\n"));
    exec.resize.send(Size { rows: 50, columns: 77 }).await.unwrap();
    let mut rest = String::new();
    timeout(LONG, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.ends_with("50 77\r\n"), "{rest:?}");
    assert_eq!(exec.exit.await.unwrap(), Exit::Code(5));
    let mut errors = Vec::new();
    assert_eq!(exec.stderr.read_to_end(&mut errors).await.unwrap(), 0);

    // A login shell.
    let Connection { mut stream, exec } = link.open(terminal(RemoteCommand::Shell, 24, 80)).await.unwrap();
    stream
        .write_all(b"shopt -q login_shell && echo lo''gin; exit 4\n")
        .await
        .unwrap();
    let mut said = String::new();
    timeout(LONG, stream.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.contains("\rlogin\r\n") || said.contains("\nlogin\r\n"), "{said:?}");
    assert_eq!(exec.unwrap().exit.await.unwrap(), Exit::Code(4));
}

/// Sends bytes to a command that hashes them, and gives both hashes.
async fn upload(link: &SshTransport, length: usize, command: &str) -> (String, String) {
    let mut connection = link.open(line(command)).await.unwrap();
    // Bytes that do not compress, and no two chunks alike.
    let mut chunk = vec![0; MB];
    let mut urandom = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut urandom, &mut chunk).unwrap();
    let mut hash = Context::new(&SHA256);
    for number in 0..length / MB {
        chunk[..8].copy_from_slice(&number.to_le_bytes());
        hash.update(&chunk);
        connection.stream.write_all(&chunk).await.unwrap();
    }
    connection.stream.shutdown().await.unwrap();
    let printed = finish(connection).await.text();
    (hex(hash), printed.split(' ').next().unwrap().trim().to_owned())
}

/// Fetches what a command prints, and gives its hash beside that which the command says of it on stderr.
async fn download(link: &SshTransport, length: usize) -> (String, String) {
    let script = format!("head -c {length} /dev/urandom | tee /dev/stderr | sha256sum");
    // The noise comes by stderr, the hash by stdout: both are streams.
    let Connection { mut stream, exec } = link.open(line(&script)).await.unwrap();
    let mut exec = exec.unwrap();
    stream.shutdown().await.unwrap();
    let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; 256 * 1024]);
    loop {
        let count = exec.stderr.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    let mut printed = String::new();
    stream.read_to_string(&mut printed).await.unwrap();
    assert_eq!(exec.exit.await.unwrap(), Exit::Code(0));
    (hex(hash), printed.split(' ').next().unwrap().to_owned())
}

fn hex(hash: Context) -> String {
    hash.finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What this process has in memory, in MB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_streams_arrive_whole_in_both_directions_and_memory_stays_flat() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let before = resident();
    let ((sent, received), (got, said)) = timeout(LONG * 2, async {
        tokio::join!(upload(&link, 300 * MB, "sha256sum"), download(&link, 300 * MB))
    })
    .await
    .unwrap();
    assert_eq!(sent, received);
    assert_eq!(got, said);
    let grown = resident().saturating_sub(before);
    assert!(grown < 60, "{grown} MB more in memory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_agreed_upon_while_bytes_flow() {
    let dock = dock();
    let sshd = dock.sshd(&["RekeyLimit 4M"]).unwrap();
    let link = link(sshd.ssh(), "ann").await;
    let ((sent, received), (got, said)) = timeout(LONG * 2, async {
        tokio::join!(upload(&link, 40 * MB, "sha256sum"), download(&link, 40 * MB))
    })
    .await
    .unwrap();
    assert_eq!(sent, received);
    assert_eq!(got, said);
}

#[tokio::test]
async fn a_reader_that_waits_holds_up_nobody_and_is_bounded() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let before = resident();
    let mut stalled = Vec::new();
    for _ in 0..3 {
        stalled.push(
            link.open(line("head -c 200000000 /dev/zero; echo end >&2"))
                .await
                .unwrap(),
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..20 {
        let begun = Instant::now();
        assert!(ping(&link).await.unwrap().ends_with("OK"));
        assert!(begun.elapsed() < LONG, "{:?}", begun.elapsed());
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 80, "{grown} MB more in memory");
    // What waited is whole when it is read at last.
    for connection in stalled {
        let output = finish(connection).await;
        assert_eq!(
            (output.stdout.len(), output.stderr.as_slice()),
            (200_000_000, &b"end\n"[..])
        );
    }
}

#[tokio::test]
async fn channels_by_the_hundred_are_open_at_once() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(timeout(LONG, link.open(Target::Engine)).await.unwrap().unwrap());
    }
    for connection in &mut open {
        let request = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        connection.stream.write_all(request).await.unwrap();
    }
    for mut connection in open {
        let mut answer = String::new();
        timeout(LONG, connection.stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.contains("\"ApiVersion\":\"1.45\""), "{answer}");
    }
}

#[tokio::test]
async fn a_thousand_connections_leave_nothing_behind() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut marks = Vec::new();
    for round in 0..2 {
        for _ in 0..500 {
            assert!(ping(&link).await.unwrap().ends_with("OK"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        marks.push((descriptors(), resident()));
        let _ = round;
    }
    assert!(
        marks[1].0 <= marks[0].0 + 2 && marks[1].1 <= marks[0].1 + 3,
        "{marks:?}"
    );
    let left = run(&link, line("ls /proc/$PPID/fd | wc -l")).await.text();
    assert!(left.trim().parse::<u32>().unwrap() < 40, "{left} descriptors of sshd");
}

#[tokio::test]
async fn ports_of_the_dock_are_reached_and_refusals_are_told() {
    let link = link(&dock().ssh().unwrap(), "ann").await;
    let tcp = |port| Target::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    };
    let mut connection = link.open(tcp(22)).await.unwrap();
    let mut banner = [0; 8];
    timeout(LONG, connection.stream.read_exact(&mut banner))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&banner, b"SSH-2.0-");
    let error = link.open(tcp(1)).await.err().unwrap();
    assert_eq!(error.kind, TransportErrorKind::Refused);
    assert!(error.message.contains("127.0.0.1 port 1"), "{error}");
    // The link stands.
    assert!(ping(&link).await.unwrap().ends_with("OK"));
}

#[tokio::test]
async fn words_reach_a_command_as_they_are_whatever_the_login_shell() {
    let words = [
        "",
        "a b",
        "it's",
        "\"x\" $HOME `id` $(id)",
        "\\ \\n \\\\",
        "!! !x a!b",
        "~ ~root *.c [a-z] {a,b} ?",
        "#x",
        "=ls",
        "a=b",
        "%1 ^x^y",
        "é ☃",
        "a\nb",
        "\n'\\!\n",
        "-n",
        ";|&<>()",
        "\t",
    ];
    let mut command = vec!["printf", "[%s]"];
    command.extend(words);
    let expected: String = words.iter().map(|word| format!("[{word}]")).collect();
    let dock = dock();
    machine_shells();
    let shells = [
        "sh",
        "dash",
        "bash",
        "zsh",
        "fish",
        "tcsh",
        "busybox sh",
        "bash --posix",
        "zsh -o rcquotes",
    ];
    // The very line that is sent: a command that prints it is the user's login shell there.
    let sshd = dock
        .sshd(&["ForceCommand printf %s \"$SSH_ORIGINAL_COMMAND\""])
        .unwrap();
    let catching = link(sshd.ssh(), "ann").await;
    let sent = run(&catching, argv(&command)).await.text();
    for shell in shells {
        let mut program = shell.split(' ');
        let mut shell_command = std::process::Command::new(program.next().unwrap());
        shell_command
            .args(program)
            .args(["-c", &sent])
            .env("HOME", "/nonexistent");
        let output = shell_command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{shell}: {output:?}");
    }
    let real = link(&dock.ssh().unwrap(), "ann").await;
    assert_eq!(run(&real, argv(&command)).await.text(), expected);
    assert_eq!(
        run(&real, argv(&["sh", "-c", "kill -HUP $$"])).await.exit,
        Exit::Signal("HUP".to_owned())
    );
}

/// The shells that people log in with.
fn machine_shells() {
    for (program, package) in [
        ("zsh", "zsh"),
        ("fish", "fish"),
        ("tcsh", "tcsh"),
        ("busybox", "busybox-static"),
    ] {
        machine::require(program, &[package], "quoting for every login shell").unwrap();
    }
}

#[tokio::test]
async fn a_far_dock_answers_in_two_round_trips_and_one_channel_holds_up_no_other() {
    let ssh = dock().ssh().unwrap();
    let slow = SlowLink::start(ssh.address, Duration::from_millis(50), None).unwrap();
    let home = Home::new(&ssh.known_hosts_at(slow.address()));
    let mut to = access(&ssh, "ann");
    to.host = slow.address().ip().to_string();
    to.port = Some(slow.address().port());
    let connector = home.connector(to);
    let link = timeout(LONG, connector.connect(Answers::nobody()))
        .await
        .unwrap()
        .unwrap();
    let link = std::sync::Arc::new(link);
    ping(&link).await.unwrap();
    // One to open, one for the answer; its end comes with it. Three would never be so quick, and on a machine that is busy
    // two are, sooner or later.
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        ping(&link).await.unwrap();
        if asked.elapsed() < Duration::from_millis(145) {
            break;
        }
        assert!(begun.elapsed() < LONG, "no answer came in two round trips");
    }
    let begun = Instant::now();
    loop {
        let trip = timeout(LONG, link.check()).await.unwrap().unwrap();
        assert!(trip >= Duration::from_millis(50), "{trip:?}");
        if trip < Duration::from_millis(100) {
            break;
        }
        assert!(begun.elapsed() < LONG, "no check came back in one round trip");
    }

    // While bytes flow in both directions.
    let busy = link.clone();
    let mut flows = JoinSet::new();
    flows.spawn(async move { download(&busy, 60 * MB).await });
    let busy = link.clone();
    flows.spawn(async move { upload(&busy, 30 * MB, "sha256sum").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    // What else this machine does may make any of them late, but not all.
    let begun = Instant::now();
    let mut took = Duration::MAX;
    while took >= Duration::from_millis(1500) {
        assert!(begun.elapsed() < LONG, "no answer comes while bytes flow: {took:?}");
        let asked = Instant::now();
        ping(&link).await.unwrap();
        took = asked.elapsed();
    }
    while let Some(hashes) = flows.join_next().await {
        let (one, other) = hashes.unwrap();
        assert_eq!(one, other);
    }
}
