//! The agent of a dock, as docker's own client sees it: over OpenSSH's sshd, with links that are cut and processes that are
//! killed.
//!
//! The client is the machine's own, Debian's; it knows nothing of agents but the socket that DOCKER_HOST names.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use dockerutils_core::agent::{Agent, CallOptions, LinkStatus, Status};
use dockerutils_core::docks::{Access, Dock, Forward, MountPaths, SshAccess};
use dockerutils_core::env::Env;
use dockerutils_test_support::lab::{self, LabEngine, Ssh};
use dockerutils_test_support::process::capture;
use dockerutils_test_support::{SlowLink, SshHome, binary};
use rustix::process::{Pid, Signal, kill_process};

const PATIENT: CallOptions = CallOptions::unattended();
/// Longer than anything here takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// A home, and the agent of one dock in it.
struct Site {
    home: tempfile::TempDir,
    env: Env,
    agent: Agent,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Site {
    fn drop(&mut self) {
        for pid in self.processes() {
            // One that has ended meanwhile needs no killing.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Site {
    /// The agent of the dock behind this sshd, reached at its own address.
    fn new(ssh: &Ssh) -> Self {
        Self::at(ssh, ssh.address, &ssh.key)
    }

    /// The same, reached at another address that leads there, with this key.
    fn at(ssh: &Ssh, address: SocketAddr, key: &Path) -> Self {
        let home = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let ssh_home = SshHome::make(home.path()).unwrap();
        ssh_home.trust(&ssh.known_hosts_at(address)).unwrap();
        let programs = binary("dock-agent").parent().unwrap().to_owned();
        let env = Env::from_pairs([
            ("HOME", home.path().to_str().unwrap()),
            ("XDG_RUNTIME_DIR", home.path().to_str().unwrap()),
            (
                "PATH",
                &format!("{}:{}:/usr/bin:/bin", ssh_home.bin().display(), programs.display()),
            ),
        ]);
        let dock = Dock {
            moniker: "far".into(),
            access: Access::Ssh(SshAccess {
                host: address.ip().to_string(),
                user: Some("ann".into()),
                port: Some(address.port()),
                identity: Some(key.to_owned()),
                docker_socket: None,
            }),
            workspace: None,
            forward: Forward::default(),
            mounts: MountPaths::default(),
        };
        Self {
            agent: Agent::of(&dock, &env).unwrap(),
            env,
            home,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn connect(&self) {
        self.runtime.block_on(self.agent.connect(&PATIENT)).unwrap();
    }

    fn status(&self, measure: bool) -> Status {
        self.runtime.block_on(self.agent.status(measure)).unwrap().unwrap()
    }

    /// docker, in a shell that is docked here.
    fn docker(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("DOCKER_HOST", self.agent.docker_host())
            .args(arguments);
        docker
    }

    fn docker_says(&self, arguments: &[&str]) -> String {
        String::from_utf8(capture(&mut self.docker(arguments)).unwrap()).unwrap()
    }

    /// The processes whose home this is.
    fn processes(&self) -> Vec<Pid> {
        let mark = format!("HOME={}\0", self.home.path().display());
        let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let is_one = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
            is_one.then(|| Pid::from_raw(pid))?
        });
        found.collect()
    }

    fn worker(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.status(false).pid).unwrap()).unwrap()
    }

    fn supervisor(&self) -> Pid {
        let lock = fs::read_to_string(self.agent.engine_socket().with_extension("lock")).unwrap();
        Pid::from_raw(lock.trim().parse().unwrap()).unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.agent.log_file()).unwrap_or_default()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so() {
            assert!(Instant::now() < deadline, "not within {LONG:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn dock() -> LabEngine {
    lab::engine("26").unwrap()
}

/// Waits for a child, and kills it when it takes too long.
fn finish(child: Child) -> Output {
    let id = i32::try_from(child.id()).unwrap();
    let (done, watched) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if watched.recv_timeout(LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(Pid::from_raw(id).unwrap(), Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    watch.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn piped(command: &mut Command) -> &mut Command {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
}

#[test]
fn dockers_own_client_does_its_work_through_the_agent() {
    let engine = dock();
    let site = Site::new(&engine.ssh().unwrap());
    site.connect();
    let version = site.docker_says(&["version", "--format", "{{.Server.Version}}"]);
    assert!(version.starts_with("26."), "{version}");

    // stdin ends, and the answer comes after.
    let mut cat = piped(&mut site.docker(&[
        "run",
        "--rm",
        "-i",
        "dockerutils-lab-base:1",
        "sh",
        "-c",
        "cat; echo the end; exit 7",
    ]))
    .spawn()
    .unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    let sent = vec![b'x'; 2_000_000];
    let writing = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = finish(cat);
    writing.join().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 2_000_000 + "the end\n".len());

    let name = format!("agent-work-{}", std::process::id());
    site.docker_says(&["run", "-d", "--name", &name, "dockerutils-lab-base:1", "sleep", "600"]);
    assert!(site.docker_says(&["ps"]).contains(&name));
    let file = site.home.path().join("file");
    fs::write(&file, vec![b'y'; 3_000_000]).unwrap();
    let there = format!("{name}:/tmp/file");
    site.docker_says(&["cp", file.to_str().unwrap(), &there]);
    assert_eq!(
        site.docker_says(&["exec", &name, "wc", "-c", "/tmp/file"])
            .split(' ')
            .next(),
        Some("3000000")
    );
    let back = site.home.path().join("back");
    site.docker_says(&["cp", &there, back.to_str().unwrap()]);
    assert_eq!(fs::metadata(&back).unwrap().len(), 3_000_000);
    site.docker_says(&["rm", "-f", &name]);

    // An image goes out and comes in.
    let archive = site.home.path().join("image.tar");
    site.docker_says(&["save", "-o", archive.to_str().unwrap(), "dockerutils-lab-base:1"]);
    assert!(
        site.docker_says(&["load", "-i", archive.to_str().unwrap()])
            .contains("dockerutils-lab-base:1")
    );
    site.until("all streams are closed", || site.status(false).streams == 0);
    // All of it over one link.
    assert_eq!(site.log().matches("the link stands").count(), 1, "{}", site.log());
}

#[test]
fn twenty_clients_at_once_get_through_the_narrowest_sshd() {
    let engine = dock();
    let narrow = ["MaxSessions 2", "MaxStartups 2:100:2"];
    for forwarding in [true, false] {
        let mut lines = narrow.to_vec();
        if !forwarding {
            lines.push("AllowStreamLocalForwarding no");
        }
        let sshd = engine.sshd(&lines).unwrap();
        let site = Site::new(sshd.ssh());
        site.connect();
        let clients: Vec<_> = (0..20)
            .map(|_| {
                piped(&mut site.docker(&["version", "--format", "{{.Server.APIVersion}}"]))
                    .spawn()
                    .unwrap()
            })
            .collect();
        for client in clients {
            assert_eq!(succeeded(&finish(client)), "1.45\n", "forwarding: {forwarding}");
        }
    }
}

#[test]
fn the_next_docker_command_after_a_cut_waits_and_works() {
    let engine = dock();
    let ssh = engine.ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::from_millis(20), None).unwrap();
    let site = Site::at(&ssh, link.address(), &ssh.key);
    site.connect();
    let round_trip = site.status(true).link.round_trip().unwrap();
    assert!(round_trip >= Duration::from_millis(20), "{round_trip:?}");

    // A router that forgets: what is open fails at once, and what comes next works.
    let mut speaker = Speaker::start(&site);
    link.drop_connections();
    speaker.breaks(&site);
    assert!(
        site.docker_says(&["ps"]).contains(&speaker.name),
        "it is only the link that broke"
    );

    // A cable that is pulled: nobody is told, and nothing comes back until it is in again.
    link.cut();
    let later = piped(&mut site.docker(&["version", "--format", "{{.Server.Os}}"]))
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    link.mend();
    assert_eq!(succeeded(&finish(later)), "linux\n");
}

/// `docker run` of a container that has said something, and will say no more.
struct Speaker {
    name: String,
    client: Child,
    engine: LabEngine,
}

impl Speaker {
    fn start(site: &Site) -> Self {
        let name = format!("agent-speaker-{}", std::process::id());
        let words = [
            "run",
            "--rm",
            "--name",
            &name,
            "dockerutils-lab-base:1",
            "sh",
            "-c",
            "echo up; sleep 600",
        ];
        let mut client = piped(&mut site.docker(&words)).spawn().unwrap();
        let mut said = [0; 3];
        client.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(&said, b"up\n");
        Self {
            name,
            client,
            engine: dock(),
        }
    }

    /// The client ends, soon, and not as if all were well.
    fn breaks(&mut self, site: &Site) {
        let deadline = Instant::now() + LONG;
        loop {
            if let Some(status) = self.client.try_wait().unwrap() {
                return assert!(!status.success(), "what was cut is no success");
            }
            assert!(
                Instant::now() < deadline,
                "docker run hangs: {:?}\n{}",
                site.status(false),
                site.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
        let mut docker = Command::new("docker");
        let _ = capture(docker.args(["-H", &self.engine.host, "rm", "-f", &self.name]));
    }
}

#[test]
fn a_long_cut_is_noticed_and_the_link_made_again() {
    let engine = dock();
    let ssh = engine.ssh().unwrap();
    let link = SlowLink::start(ssh.address, Duration::ZERO, None).unwrap();
    let site = Site::at(&ssh, link.address(), &ssh.key);
    site.connect();
    link.cut();
    let later = piped(&mut site.docker(&["version", "--format", "{{.Server.Os}}"]))
        .spawn()
        .unwrap();
    // Longer than a stream may take to open, and a sign of life to come back.
    site.until("the dead link is dropped", || site.log().contains("the link is over"));
    // The cable is in again, in another network: the old connections are gone.
    link.drop_connections();
    link.mend();
    assert_eq!(succeeded(&finish(later)), "linux\n");
    assert_eq!(site.log().matches("the link stands").count(), 2, "{}", site.log());
}

#[test]
fn an_sshd_that_is_started_anew_is_waited_for() {
    let engine = dock();
    let sshd = engine.sshd(&[]).unwrap();
    let site = Site::new(sshd.ssh());
    site.connect();
    let mut speaker = Speaker::start(&site);
    sshd.kill().unwrap();
    speaker.breaks(&site);
    let later = piped(&mut site.docker(&["version", "--format", "{{.Server.Os}}"]))
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    sshd.start_again().unwrap();
    assert_eq!(succeeded(&finish(later)), "linux\n");
}

#[test]
fn plain_docker_survives_the_death_of_either_process() {
    let engine = dock();
    let site = Site::new(&engine.ssh().unwrap());
    site.connect();
    for _ in 0..2 {
        kill_process(site.worker(), Signal::KILL).unwrap();
        assert_eq!(site.docker_says(&["version", "--format", "{{.Server.Os}}"]), "linux\n");
    }
    kill_process(site.supervisor(), Signal::KILL).unwrap();
    assert_eq!(site.docker_says(&["version", "--format", "{{.Server.Os}}"]), "linux\n");
    // Both dead, a command of ours starts it again, on the same socket, although it knows no more than that.
    kill_process(site.worker(), Signal::KILL).unwrap();
    site.until("the worker is dead", || site.processes().is_empty());
    let socket = site.agent.engine_socket();
    let found = Agent::of_engine_socket(&socket, &site.env).unwrap().unwrap();
    site.runtime.block_on(found.connect(&PATIENT)).unwrap();
    assert_eq!(site.docker_says(&["version", "--format", "{{.Server.Os}}"]), "linux\n");
    site.runtime.block_on(found.stop()).unwrap();
    site.until("it has ended", || site.processes().is_empty());
    assert!(!socket.exists());
}

#[test]
fn a_docker_client_is_told_why_it_is_not_let_in() {
    let engine = dock();
    let ssh = engine.ssh().unwrap();
    let other = tempfile::tempdir().unwrap();
    let key = other.path().join("key");
    capture(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key),
    )
    .unwrap();
    let site = Site::at(&ssh, ssh.address, &key);
    let error = site.runtime.block_on(site.agent.connect(&PATIENT)).unwrap_err();
    assert!(error.hint_text().is_some(), "{error:?}");
    let output = site.docker(&["ps"]).output().unwrap();
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains(r#"dock "far" can't be reached"#), "{said}");
    assert!(matches!(site.status(false).link, LinkStatus::Down(_)));
}

#[test]
fn thousands_of_connections_leave_the_worker_as_it_was() {
    const AT_ONCE: usize = 25;
    let engine = dock();
    let site = Site::new(&engine.ssh().unwrap());
    site.connect();
    let socket = site.agent.engine_socket();
    let round = |count: usize| {
        for _ in 0..count / AT_ONCE {
            let pings: Vec<_> = (0..AT_ONCE).map(|_| ping(socket.clone())).collect();
            for ping in pings {
                let answer = ping.join().unwrap();
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        }
        site.until("all streams are closed", || site.status(false).streams == 0);
    };
    // The allocator takes its share first.
    round(1500);
    let worker = site.worker();
    let (descriptors, memory) = (descriptors(worker), resident_kib(worker));
    round(4000);
    assert_eq!(site.worker(), worker, "it did not die meanwhile");
    let (more, grown) = (self::descriptors(worker), resident_kib(worker).saturating_sub(memory));
    assert!(more <= descriptors + 2, "{descriptors} descriptors became {more}");
    // A few KiB that each left behind would be more.
    assert!(grown < 8192, "{memory} KiB grew by {grown}");
}

fn ping(socket: PathBuf) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
        .unwrap()
        .count()
}

fn resident_kib(pid: Pid) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
