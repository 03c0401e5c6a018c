//! Ports of containers on real docks answer on this machine: through a real agent, over a real sshd, from real engines.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, Ssh};
use dockerutils_test_support::wait;
use dockerutils_test_support::{Invocation, Outcome, SlowLink, machine};
use dockerutils_tests::dock_home::DockHome;
use serde_json::Value;

/// How long something may take to become true.
const PATIENCE: Duration = Duration::from_secs(60);

/// A user's home with a project and the dock `far`; its containers are gone at the end.
struct Bench {
    home: DockHome,
    engine: LabEngine,
    /// Names what this test makes.
    mark: String,
}

impl Bench {
    fn new(engine: &str, test: &str) -> Self {
        Self {
            home: DockHome::new(),
            engine: lab::engine(engine).unwrap(),
            mark: format!("ports-{test}-{}", std::process::id()),
        }
    }

    /// Registers `ann` on this sshd of the dock, or on what leads there.
    fn register(self, ssh: &Ssh, address: SocketAddr, words: &[&str]) -> Self {
        self.home.use_key(&ssh.key, "");
        let register = self.home.registration(ssh, address, "ann", "far").args(words);
        self.as_itself(register).run();
        self
    }

    fn usual(engine: &str, test: &str) -> Self {
        let bench = Self::new(engine, test);
        let ssh = bench.engine.ssh().unwrap();
        bench.register(&ssh, ssh.address, &[])
    }

    fn program(&self, program: &str) -> Invocation<'_> {
        self.as_itself(self.home.program(program))
    }

    /// By a user of its own, whose containers are nobody else's.
    fn as_itself<'a>(&self, invocation: Invocation<'a>) -> Invocation<'a> {
        invocation.env("USER", &self.mark).env("LOGNAME", &self.mark)
    }

    /// Runs a script in a shell that is docked to `far`.
    fn docked(&self, words: &str, script: &str) -> Outcome {
        let script = format!("source dock far {words} 2>/dev/null || exit 99\n{script}");
        self.program("bash")
            .args(["--norc", "--noprofile", "-c", &script])
            .spawn()
            .wait()
    }

    fn ports(&self) -> Vec<Value> {
        let listed = self
            .program("ls-dock")
            .args(["--ports", "--json"])
            .any_stderr()
            .any_stdout();
        listed.run().json().as_array().unwrap().clone()
    }

    /// The dock's own docker: what somebody else does there.
    fn on_dock(&self, words: &[&str]) -> String {
        let output = self.engine.docker().args(words).output().unwrap();
        assert!(
            output.status.success(),
            "{words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Agents outlive commands, and would outlive this home.
        self.program("unregister-dock").arg("far").spawn().wait();
        let remove = format!("docker ps -aq --filter name={} | xargs -r docker rm -f", self.mark);
        let host = &self.engine.host;
        Command::new("sh")
            .args(["-c", &remove])
            .env("DOCKER_HOST", host)
            .output()
            .unwrap();
    }
}

/// A port that is free here and, as good as certainly, on the dock.
pub(crate) fn free_port() -> u16 {
    dockerutils_test_support::free_port().unwrap()
}

/// A server in a container that answers each connection with `hello`.
const SERVER: &str = "dockerutils-lab-base:1 nc -ll -p 80 -e echo hello";
/// One that echoes whatever it is told, to the end.
const ECHO: &str = "dockerutils-lab-base:1 nc -ll -p 80 -e cat";

fn heard(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    // A server that has not started yet breaks off.
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

pub(crate) fn answers(port: u16) {
    wait::found("the server answers", || heard(port).filter(|text| text == "hello\n"));
}

pub(crate) fn is_closed(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

#[test]
fn what_docker_run_publishes_on_the_dock_answers_here_and_closes_with_it() {
    let bench = Bench::usual("26", "run");
    let [port, other] = [free_port(), free_port()];
    let name = &bench.mark;
    let said = bench.docked(
        "",
        &format!("docker run -d --name {name} -p {port}:80 -p {other}:80/udp {SERVER}"),
    );
    assert_eq!(said.code, 0, "{said}");
    answers(port);
    let ports = bench.ports();
    assert_eq!(ports.len(), 2, "{ports:#?}");
    assert_eq!(
        (&ports[0]["here"], &ports[0]["name"]),
        (&port.into(), &name.as_str().into())
    );
    assert_eq!(ports[1]["reason"], "only TCP is forwarded", "{ports:#?}");
    // The shell has ended; the container runs, and with it its port.
    assert!(bench.on_dock(&["ps", "--format", "{{.Names}}"]).contains(name));
    answers(port);
    // It starts again with the same port, and the same answer.
    bench.on_dock(&["restart", "-t", "0", name]);
    answers(port);
    bench.on_dock(&["rm", "-f", name]);
    wait::found("the port is closed", || is_closed(port).then_some(()));
}

#[test]
fn run_image_publishes_on_the_dock_s_loopback_address_and_says_where_it_answers() {
    let bench = Bench::usual("28-containerd", "image");
    let port = free_port();
    let config = format!(
        "[web]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\nports = -p {port}:80\ncmd = nc -ll -p 80 -e echo hello\n\
         keep_container = True\n"
    );
    fs::create_dir_all(bench.home.sandbox().project().join("docker")).unwrap();
    fs::write(bench.home.sandbox().project().join("docker/dockerutils.cfg"), config).unwrap();
    let said = bench.docked("", "run-image web -k");
    assert_eq!(said.code, 0, "{said}");
    let line = format!(" -p 127.0.0.1:{port}:80 ");
    assert!(said.stderr.contains(&line), "{said}");
    let place = format!("80/tcp is at http://127.0.0.1:{port}\n");
    assert!(said.stderr.contains(&place), "{said}");
    answers(port);
    let published = bench.on_dock(&["port", said.stdout.trim()]);
    assert_eq!(published, format!("80/tcp -> 127.0.0.1:{port}\n"));
    bench.on_dock(&["rm", "-f", said.stdout.trim()]);
    wait::found("the port is closed", || is_closed(port).then_some(()));

    // Somebody here has it: the next one, and who that is.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let said = bench
        .program("run-image")
        .args(["web", "-k", "--dock", "far"])
        .any_stdout()
        .any_stderr()
        .run();
    let reason = format!("({port} is taken here by {}/", std::process::id());
    assert!(said.stderr.contains(&reason), "{said}");
    let here = bench.ports()[0]["here"].as_u64().unwrap();
    assert!(
        said.stderr.contains(&format!("80/tcp is at http://127.0.0.1:{here} (")),
        "{said}"
    );
    answers(here.try_into().unwrap());
    drop(taken);
    bench.on_dock(&["rm", "-f", said.stdout.trim()]);
}

#[test]
fn a_stream_that_talks_both_ways_for_long_is_carried_byte_by_byte() {
    let bench = Bench::usual("26", "echo");
    let port = free_port();
    let said = bench.docked("", &format!("docker run -d --name {} -p {port}:80 {ECHO}", bench.mark));
    assert_eq!(said.code, 0, "{said}");
    let mut talk = wait::found("the server answers", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A browser's request for a websocket; the server does not speak websocket, and sends the request back.
        stream.write_all(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").ok()?;
        let mut first = [0; 38];
        stream.read_exact(&mut first).ok()?;
        assert!(first.starts_with(b"GET / HTTP/1.1\r\nUpgrade: websocket"));
        Some(stream)
    });
    for round in 0..200_u8 {
        // The frame of a websocket is bytes of any kind.
        let frame = [0x82, 0x7f, round, 0, 0xff, b'\n', b'\r'];
        talk.write_all(&frame).unwrap();
        let mut back = [0; 7];
        talk.read_exact(&mut back).unwrap();
        assert_eq!(back, frame);
    }
    std::thread::sleep(Duration::from_secs(3));
    let large: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut writing = talk.try_clone().unwrap();
    let sent = large.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    talk.read_to_end(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == large, "{} of {} bytes", back.len(), large.len());
}

#[test]
fn what_others_made_stays_on_the_dock_whatever_its_label_until_it_is_asked_for() {
    let bench = Bench::usual("26", "mine");
    let [theirs, labelled] = [free_port(), free_port()];
    let name = &bench.mark;
    let (their_name, label) = (format!("{name}-theirs"), format!("--label=io.dockerutils.user={name}"));
    let server: Vec<&str> = SERVER.split(' ').collect();
    let run = |words: &[&str]| bench.on_dock(&[&["run", "-d"], words, &server].concat());
    let publish = |port: u16| format!("-p{port}:80");
    run(&[
        "--name",
        &their_name,
        "--label=io.dockerutils.user=somebody",
        &publish(theirs),
    ]);
    run(&["--name", name, &label, &publish(labelled)]);
    // One bears our label: whoever may use the engine can have given it that.
    let look = |words: &str, expected: &[u16]| {
        // What the last shell wanted may be there for a moment.
        let expected: String = expected.iter().map(|port| format!("\"here\": {port} ")).collect();
        let script = format!(
            "for i in $(seq 600); do\nsaid=$(ls-dock --ports --json)\n\
             here=$(echo \"$said\" | grep -o '\"here\": [0-9]*' | sort | tr '\\n' ' ')\n\
             [ \"$here\" = '{expected}' ] && exit 0\nsleep 0.1\ndone\necho \"$said\"; exit 1"
        );
        let said = bench.docked(words, &script);
        assert_eq!(said.code, 0, "{said}");
    };
    let listed = bench.docked(
        "",
        "for i in $(seq 600); do ls-dock --ports | grep 'it bears your name, and was not made from here' && exit 0; sleep 0.1; done; \
         exit 1",
    );
    assert_eq!(listed.code, 0, "{listed}");
    assert!(is_closed(labelled) && is_closed(theirs));
    // For this shell, by its number or its name; and somebody else's, if that is what is asked for.
    look(&format!("--forward {labelled}"), &[labelled]);
    look(&format!("--no-forward --forward {their_name}"), &[theirs]);
    look("--no-forward", &[]);
    wait::found("the port is closed", || {
        (is_closed(labelled) && is_closed(theirs)).then_some(())
    });
    let ssh = bench.engine.ssh().unwrap();
    let bench = bench.register(&ssh, ssh.address, &["--force", "--forward", "labelled"]);
    let here = bench.docked(
        "",
        &format!(
            "for i in $(seq 200); do ls-dock --ports | grep -q 127.0.0.1:{labelled} && exit 0; sleep 0.05; done; exit 1"
        ),
    );
    assert_eq!(here.code, 0, "{here}");
    answers(labelled);
    assert!(is_closed(theirs));

    let bench = bench.register(&ssh, ssh.address, &["--force", "--forward", "all"]);
    let here = bench.docked(
        "",
        &format!(
            "for i in $(seq 200); do ls-dock --ports | grep -q 127.0.0.1:{theirs} && exit 0; sleep 0.05; done; exit 1"
        ),
    );
    assert_eq!(here.code, 0, "{here}");
    answers(theirs);
}

#[test]
fn an_sshd_that_forbids_forwarding_is_said_with_the_line_that_helps() {
    let bench = Bench::new("26", "forbids");
    let sshd = bench.engine.sshd(&["AllowTcpForwarding no"]).unwrap();
    let bench = bench.register(sshd.ssh(), sshd.ssh().address, &[]);
    let port = free_port();
    let config = format!(
        "[web]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\nports = -p {port}:80\ncmd = nc -ll -p 80 -e echo hello\n"
    );
    fs::create_dir_all(bench.home.sandbox().project().join("docker")).unwrap();
    fs::write(bench.home.sandbox().project().join("docker/dockerutils.cfg"), config).unwrap();
    let said = bench.docked("", "run-image web -k");
    assert_eq!(said.code, 0, "{said}");
    let line = format!("80/tcp is at 127.0.0.1:{port} of far only: sshd of ");
    assert!(said.stderr.contains(&line), "{said}");
    assert!(
        said.stderr
            .contains("put `AllowTcpForwarding yes` into /etc/ssh/sshd_config"),
        "{said}"
    );
    assert!(is_closed(port));
    bench.on_dock(&["rm", "-f", said.stdout.trim()]);
}

#[test]
fn a_far_link_that_is_cut_and_mended_brings_the_ports_back() {
    let bench = Bench::new("26", "cut");
    let ssh = bench.engine.ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(40), None).unwrap();
    let bench = bench.register(&ssh, link.address(), &["--forward", "labelled"]);
    let [port, later] = [free_port(), free_port()];
    let name = &bench.mark;
    let said = bench.docked("", &format!("docker run -d --name {name} -p {port}:80 {SERVER}"));
    assert_eq!(said.code, 0, "{said}");
    answers(port);
    link.drop_connections();
    // It ends, and another begins, while nobody here can know.
    answers(port);
    link.drop_connections();
    bench.on_dock(&["rm", "-f", name]);
    let label = format!("--label=io.dockerutils.user={name}");
    let publish = format!("-p127.0.0.1:{later}:80");
    let server: Vec<&str> = SERVER.split(' ').collect();
    bench.on_dock(&[&["run", "-d", "--name", name, &label, &publish], &*server].concat());
    answers(later);
    wait::found("the port is closed", || is_closed(port).then_some(()));
}

#[test]
fn compose_in_a_docked_shell_has_its_ports_here() {
    machine::require("docker-compose", &["docker-compose"], "compose in a docked shell").unwrap();
    let bench = Bench::usual("26", "compose");
    let port = free_port();
    let name = &bench.mark;
    let file = format!(
        "version: '3'\nservices:\n  web:\n    image: dockerutils-lab-base:1\n    container_name: {name}\n    command: nc -ll -p 80 -e echo hello\n    \
         ports: ['{port}:80']\n    stop_grace_period: 0s\n"
    );
    fs::write(bench.home.sandbox().project().join("docker-compose.yml"), file).unwrap();
    let project = name.to_lowercase();
    let said = bench.docked("", &format!("docker-compose -p {project} up -d"));
    assert_eq!(said.code, 0, "{said}");
    answers(port);
    let said = bench.docked("", &format!("docker-compose -p {project} down -t 0"));
    assert_eq!(said.code, 0, "{said}");
    wait::found("the port is closed", || is_closed(port).then_some(()));
}

/// A server that sends back what it is told, by a real implementation of websockets.
const WEBSOCKET_SERVER: &str = "
import asyncio, websockets
async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)
async def main():
    async with websockets.serve(echo, '0.0.0.0', 80, max_size=None):
        await asyncio.Future()
asyncio.run(main())
";

const WEBSOCKET_CLIENT: &str = "
import asyncio, os, sys, websockets
address = 'ws://127.0.0.1:' + sys.argv[1]
async def talk(messages):
    async with websockets.connect(address, max_size=None) as socket:
        for message in messages:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
        await asyncio.sleep(2)
        # In fragments, as a stream of text.
        await socket.send(iter(['one ', 'two \\u00e9']))
        assert await socket.recv() == 'one two \\u00e9'
    assert socket.close_code == 1000, socket.close_code
async def main():
    sizes = [0, 1, 125, 126, 65535, 65536, 3_000_000]
    await asyncio.gather(talk([os.urandom(size) for size in sizes]), *(talk([str(number)] * 50) for number in range(20)))
asyncio.run(main())
print('all came back')
";

/// Lists what Python with `websockets` needs of this machine: itself, its library, and the shared objects of both.
const PYTHON_FILES: &str = "
import glob, os, re, subprocess, sys, sysconfig, websockets
library = sysconfig.get_paths()['stdlib']
objects = [sys.executable] + glob.glob(library + '/lib-dynload/*.so')
linked = subprocess.run(['ldd'] + objects, capture_output=True, text=True, check=True).stdout
print(*sorted({sys.executable, library, os.path.dirname(websockets.__file__), *re.findall(r'(/\\S+) \\(0x', linked)}), sep='\\n')
";

#[test]
fn websockets_go_through_a_forwarded_port() {
    let python = |words: &[&str]| {
        // The system's own, which the packages are for.
        let output = Command::new("/usr/bin/python3").args(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let has_it = Command::new("/usr/bin/python3")
        .args(["-c", "import websockets"])
        .output();
    if !has_it.is_ok_and(|output| output.status.success()) {
        machine::install(&["python3", "python3-websockets"], "talking by websockets").unwrap();
    }
    let bench = Bench::usual("26", "websockets");
    let (name, port) = (&bench.mark, free_port());
    let files = python(&["-c", PYTHON_FILES]);
    let names: Vec<&str> = files.lines().map(|file| file.trim_start_matches('/')).collect();
    let mut packed = Command::new("tar")
        .args([
            "-C",
            "/",
            "-ch",
            "--exclude=__pycache__",
            "--exclude=*.a",
            "--exclude=test",
        ])
        .args(&names)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut import = bench.engine.docker();
    import.args(["import", "-", name]).stdin(packed.stdout.take().unwrap());
    let imported = import.output().unwrap();
    assert!(
        imported.status.success() && packed.wait().unwrap().success(),
        "{imported:?}"
    );
    fs::write(bench.home.sandbox().project().join("server.py"), WEBSOCKET_SERVER).unwrap();
    let run = format!("docker run -d --name {name} -p {port}:80 {name} /usr/bin/python3 -c \"$(cat server.py)\"");
    let said = bench.docked("", &run);
    assert_eq!(said.code, 0, "{said}");
    wait::found("the server answers", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").ok()?;
        stream.read(&mut [0]).ok().filter(|read| *read > 0)
    });
    assert_eq!(python(&["-c", WEBSOCKET_CLIENT, &port.to_string()]), "all came back\n");
    bench.on_dock(&["rm", "-f", name]);
    bench.on_dock(&["rmi", name]);
}

#[test]
fn a_link_that_is_silently_cut_and_mended_goes_on_under_a_port() {
    let bench = Bench::new("26", "silent");
    let ssh = bench.engine.ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(20), None).unwrap();
    let bench = bench.register(&ssh, link.address(), &[]);
    let port = free_port();
    let said = bench.docked("", &format!("docker run -d --name {} -p {port}:80 {ECHO}", bench.mark));
    assert_eq!(said.code, 0, "{said}");
    let echo = |stream: &mut TcpStream, text: &[u8]| {
        let mut back = vec![0; text.len()];
        stream.write_all(text)?;
        stream.read_exact(&mut back)?;
        std::io::Result::Ok(back)
    };
    let mut talk = wait::found("the server answers", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(3 * PATIENCE)).unwrap();
        echo(&mut stream, b"hello").ok().map(|_| stream)
    });
    // For a moment: who speaks, and who comes, wait; nothing is lost.
    link.cut();
    let speaking = std::thread::spawn(move || echo(&mut talk, b"patient").map(|back| (talk, back)));
    let coming = std::thread::spawn(move || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(3 * PATIENCE))?;
        echo(&mut stream, b"patient")
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(!speaking.is_finished() && !coming.is_finished());
    link.mend();
    let (mut talk, back) = speaking.join().unwrap().unwrap();
    assert_eq!(
        (back.as_slice(), coming.join().unwrap().unwrap().as_slice()),
        (&b"patient"[..], &b"patient"[..])
    );
    // For so long that the link is given up: what was open hears of it, and the port answers when there is a link again.
    link.cut();
    let trying = std::thread::spawn(move || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(|mut stream| stream.read(&mut [0]))
    });
    talk.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    let broken = talk.read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    link.mend();
    wait::found("the port answers again", || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        echo(&mut stream, b"again").ok()
    });
    drop(trying);
}

/// Kills the agent of the dock, its parent first, which would start another.
const KILL: &str = "lock=$(cat \"$(dirname \"${DOCKER_HOST#unix://}\")\"/*.lock)\nworker=$(cat /proc/$lock/task/*/children)\n\
                    kill -9 $lock $worker";

#[test]
fn what_was_made_from_here_is_known_when_its_agent_was_killed() {
    let bench = Bench::usual("26", "killed");
    let port = free_port();
    let name = &bench.mark;
    let said = bench.docked("", &format!("docker run -d --name {name} -p {port}:80 {SERVER}"));
    assert_eq!(said.code, 0, "{said}");
    answers(port);
    let id = said.stdout.trim();
    let made = wait::found("it is written down", || {
        let state = bench.home.sandbox().home().join(".local/state/dockerutils");
        let files = fs::read_dir(state).ok()?.flatten();
        let file = files
            .map(|file| file.path())
            .find(|file| file.extension().is_some_and(|kind| kind == "made"))?;
        fs::read_to_string(&file).ok()?.contains(id).then_some(file)
    });
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&made).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let killed = bench.docked("", KILL);
    assert_eq!(killed.code, 0, "{killed}");
    wait::found("its port closes", || is_closed(port).then_some(()));
    let said = bench.docked("", "docker ps -q");
    assert_eq!(said.code, 0, "{said}");
    answers(port);
    // One that is removed while nobody listens is forgotten.
    let killed = bench.docked("", KILL);
    assert_eq!(killed.code, 0, "{killed}");
    bench.on_dock(&["rm", "-f", name]);
    let script = format!(
        "for i in $(seq 1000); do grep -q {id} '{}' || exit 0; sleep 0.05; done; exit 1",
        made.display()
    );
    let said = bench.docked("", &script);
    assert_eq!(said.code, 0, "{said}");
}

#[test]
fn a_port_below_1024_is_opened_here_only_where_it_is_named_and_with_rights() {
    // No other test takes such ports, and no server of this machine has all of them.
    let port = (600..1000)
        .rev()
        .map(|number| number - u16::try_from(std::process::id() % 100).unwrap())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("root may listen on such ports");
    let first: u16 = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(
        first > port,
        "every port is free to everybody here: sysctl net.ipv4.ip_unprivileged_port_start=1024"
    );
    for (has_rights, is_named) in [(false, true), (true, true), (true, false)] {
        let bench = Bench::new("26", &format!("low-{has_rights}-{is_named}"));
        let ssh = bench.engine.ssh().unwrap();
        // It must not start the agent, which is to have the rights of the shell.
        let bench = bench.register(&ssh, ssh.address, &["--no-check"]);
        let name = &bench.mark;
        let words = if is_named {
            format!("--forward {port}")
        } else {
            String::new()
        };
        let run = format!(
            "source dock far {words} 2>/dev/null || exit 99\ndocker run -d --name {name} -p {port}:80 {SERVER}\n\
             for i in $(seq 600); do ls-dock --ports | grep -q 127.0.0.1: && break; sleep 0.1; done; ls-dock --ports --json"
        );
        let program = if has_rights {
            bench.program("bash")
        } else {
            // The agent is started by the shell, and has its rights: all of root's but for one.
            let without = [
                "--bounding-set",
                "-net_bind_service",
                "--inh-caps",
                "-net_bind_service",
                "bash",
            ];
            bench.program("setpriv").args(without)
        };
        let said = program.args(["--norc", "--noprofile", "-c", &run]).spawn().wait();
        assert_eq!(said.code, 0, "{said}");
        let (_, listed) = said.stdout.split_once('\n').unwrap();
        let ports: Vec<Value> = serde_json::from_str(listed).unwrap();
        let here = u16::try_from(ports[0]["here"].as_u64().unwrap()).unwrap();
        let expected = match (has_rights, is_named) {
            (true, true) => {
                assert_eq!((here, ports[0]["reason"].as_str()), (port, None), "{ports:#?}");
                continue;
            }
            (false, _) => format!("port {port} needs rights here"),
            (true, false) => {
                format!("{port} is below 1024, which is opened here only where it is asked for by name")
            }
        };
        assert_eq!(ports[0]["reason"], expected, "{ports:#?}");
        assert!((port + 8000..port + 8200).contains(&here), "{ports:#?}");
        answers(here);
        assert!(is_closed(port));
        bench.on_dock(&["rm", "-f", name]);
        wait::found("the port is closed", || is_closed(here).then_some(()));
    }
}
