//! The processes of an agent: started at once by many, killed in every order, told to end.
//!
//! The program is `examples/dock-agent.rs`, which cargo builds with the tests.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::start::{Start, Started};
use dock_client::agent::target::{Exec, Exit, RemoteCommand};
use dock_client::agent::{Agent, CallOptions, Holder, Status};
use dock_client::docks::{self, Access, Dock, Forward, MountPaths, SshAccess};
use dock_client::env::Env;
use dockerutils_test_support::{machine, wait};
use engine::Engine;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

mod engine;
mod fake;

const PATIENT: CallOptions = CallOptions::unattended();

/// A dock whose agent is a process; it is killed at the end of the test, in any case.
struct Scene {
    directory: tempfile::TempDir,
    _engine: Arc<Engine>,
    agent: Agent,
    env: Env,
    dock: Dock,
}

impl Drop for Scene {
    fn drop(&mut self) {
        for pid in processes(self.directory.path()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Scene {
    fn new(host: &str) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let socket = directory.path().join("engine.sock");
        let engine = Engine::start(&socket);
        let env = env(directory.path(), &programs());
        let dock = Dock {
            moniker: "x[$(touch pwned)]".into(),
            access: Access::Ssh(SshAccess {
                host: host.into(),
                docker_socket: Some(socket.to_str().unwrap().into()),
                ..SshAccess::default()
            }),
            workspace: None,
            forward: Forward::None,
            mounts: MountPaths::default(),
        };
        Self {
            agent: Agent::of(&dock, &env).unwrap(),
            directory,
            _engine: engine,
            env,
            dock,
        }
    }

    async fn ping(&self) -> String {
        ask(&self.agent.engine_socket(), "ping\n").await
    }

    async fn status(&self) -> Status {
        self.agent.status(false).await.unwrap().expect("it runs")
    }

    /// The numbers of the supervisor and of the worker.
    async fn pids(&self) -> (Pid, Pid) {
        let worker = i32::try_from(self.status().await.pid).unwrap();
        let lock = self.agent.engine_socket().with_extension("lock");
        let supervisor: i32 = fs::read_to_string(lock).unwrap().trim().parse().unwrap();
        (Pid::from_raw(supervisor).unwrap(), Pid::from_raw(worker).unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.agent.log_file()).unwrap_or_default()
    }

    async fn until_gone(&self) {
        let found = timeout(Duration::from_secs(60), async {
            while !processes(self.directory.path()).is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(found.await.is_ok(), "processes are left:\n{}", self.log());
    }
}

fn env(directory: &Path, path: &Path) -> Env {
    Env::from_pairs([
        ("XDG_RUNTIME_DIR", directory.to_str().unwrap()),
        ("HOME", directory.to_str().unwrap()),
        ("PATH", &format!("{}:/usr/bin:/bin", path.display())),
        ("DOCKER_HOST", "unix:///nowhere.sock"),
    ])
}

/// Where cargo puts examples: `target/PROFILE/examples`, beside the tests' `deps`.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.ancestors().nth(2).unwrap().join("examples");
    assert!(
        directory.join("dock-agent").is_file(),
        "cargo builds examples with the tests"
    );
    directory
}

/// The processes whose home is this directory: no other agent has it.
fn processes(home: &Path) -> Vec<Pid> {
    let mark = format!("HOME={}\0", home.display());
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let is_one = environment.windows(mark.len()).any(|part| part == mark.as_bytes());
        // A process that has ended and was not waited for has no environment.
        is_one.then(|| Pid::from_raw(pid))?
    });
    found.collect()
}

/// What is answered on a socket.
async fn ask(socket: &Path, words: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    let mut heard = String::new();
    limit(stream.read_to_string(&mut heard)).await.unwrap();
    heard
}

async fn limit<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it hangs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_started_when_it_is_needed_and_leaves_only_what_starts_it_again() {
    let scene = Scene::new("here");
    assert_eq!(scene.agent.status(false).await.unwrap(), None, "a look starts nothing");
    scene.agent.release(1).await.unwrap();
    scene.agent.stop().await.unwrap();
    assert!(processes(scene.directory.path()).is_empty());
    scene.agent.connect(&PATIENT).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
    let files: Vec<_> = fs::read_dir(scene.agent.engine_socket().parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    for file in &files {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert!(mode & 0o177 == 0, "{}: {mode:o}", file.display());
    }
    assert!(files.contains(&scene.agent.engine_socket()), "{files:?}");
    let (supervisor, worker) = scene.pids().await;
    for pid in [supervisor, worker] {
        let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap();
        assert!(!command.contains("touch"), "{command:?}");
        assert_eq!(
            rustix::process::getsid(Some(pid)).unwrap(),
            supervisor,
            "a session of its own"
        );
        let environment = fs::read_to_string(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap();
        assert!(!environment.contains("DOCKER_HOST"), "{environment:?}");
    }

    scene.agent.stop().await.unwrap();
    scene.until_gone().await;
    assert!(!scene.agent.engine_socket().exists());
    // A command that knows no more than DOCKER_HOST.
    let found = Agent::of_engine_socket(&scene.agent.engine_socket(), &scene.env)
        .unwrap()
        .unwrap();
    assert_eq!(found.dock(), &scene.dock);
    found.connect(&PATIENT).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
    found.remove().await.unwrap();
    scene.until_gone().await;
    let left = fs::read_dir(scene.agent.engine_socket().parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_start_it_at_once_get_one() {
    let scene = Scene::new("here");
    for _ in 0..3 {
        let starts: Vec<_> = (0..12)
            .map(|_| {
                let agent = scene.agent.clone();
                tokio::spawn(async move {
                    agent.connect(&PATIENT).await.unwrap();
                    agent.status(false).await.unwrap().unwrap().pid
                })
            })
            .collect();
        let mut pids = Vec::new();
        for start in starts {
            pids.push(limit(start).await.unwrap());
        }
        pids.dedup();
        assert_eq!(pids.len(), 1, "{pids:?}");
        assert_eq!(scene.ping().await, "pong");
        // The agents that came too late have gone.
        limit(async {
            while processes(scene.directory.path()).len() > 2 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        scene.agent.stop().await.unwrap();
    }
    scene.until_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_is_replaced_and_nobody_is_turned_away() {
    let scene = Scene::new("here");
    let own = i32::try_from(std::process::id()).unwrap();
    scene.agent.hold(own, Forward::None).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
    let (supervisor, first) = scene.pids().await;
    for _ in 0..5 {
        let (_, worker) = scene.pids().await;
        kill_process(worker, Signal::KILL).unwrap();
        // Plain docker, which knows nothing of agents, waits in the socket's queue.
        assert_eq!(scene.ping().await, "pong");
    }
    let (same, last) = scene.pids().await;
    assert_eq!(same, supervisor);
    assert_ne!(last, first);
    assert_eq!(scene.status().await.holders, [Holder::of(own).unwrap()]);
    assert!(scene.log().contains("the worker died (signal: 9"), "{}", scene.log());
}

/// Starts a second agent beside the one that runs, by hand.
async fn start_another(scene: &Scene) -> Started {
    let mut child = tokio::process::Command::new(programs().join("dock-agent"))
        .env_clear()
        .envs(scene.env.iter())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let start = Start {
        paths: AgentPaths::of(&scene.dock, &scene.env).unwrap(),
        dock: scene.dock.clone(),
    };
    let text = serde_json::to_vec(&start).unwrap();
    child.stdin.take().unwrap().write_all(&text).await.unwrap();
    let output = limit(child.wait_with_output()).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_that_is_killed_takes_nothing_along() {
    let scene = Scene::new("here");
    let line = RemoteCommand::Line("cat; exit 3".into());
    let exec = Exec {
        command: line,
        pty: None,
    };
    let mut running = scene.agent.execute(exec, &PATIENT).await.unwrap();
    let (supervisor, worker) = scene.pids().await;
    kill_process(supervisor, Signal::KILL).unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(scene.ping().await, "pong");
    running.stdin.write_all(b"still here").await.unwrap();
    running.stdin.shutdown().await.unwrap();
    let mut heard = String::new();
    limit(running.stdout.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "still here");
    assert_eq!(running.exit.wait().await.unwrap(), Exit::Code(3));
    // No second agent comes up beside it.
    assert_eq!(start_another(&scene).await, Started::Running);
    scene.agent.connect(&PATIENT).await.unwrap();
    assert_eq!(scene.pids().await.1, worker);

    kill_process(worker, Signal::KILL).unwrap();
    limit(async {
        while UnixStream::connect(scene.agent.engine_socket()).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(scene.agent.engine_socket().exists(), "it could not tidy up");
    scene.agent.connect(&PATIENT).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
    assert_ne!(scene.pids().await, (supervisor, worker));

    // A worker that is alone also ends as it should.
    let (supervisor, _) = scene.pids().await;
    kill_process(supervisor, Signal::KILL).unwrap();
    limit(async {
        while scene.log().matches("goes on alone").count() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    scene.agent.stop().await.unwrap();
    scene.until_gone().await;
    assert!(!scene.agent.engine_socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_both_processes_and_removes_the_sockets() {
    let scene = Scene::new("here");
    for signal in [Signal::TERM, Signal::INT] {
        scene.agent.connect(&PATIENT).await.unwrap();
        let (supervisor, _) = scene.pids().await;
        kill_process(supervisor, signal).unwrap();
        scene.until_gone().await;
        assert!(!scene.agent.engine_socket().exists());
    }
    // A closed terminal must not matter to it.
    scene.agent.connect(&PATIENT).await.unwrap();
    let (supervisor, worker) = scene.pids().await;
    kill_process(supervisor, Signal::HUP).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.pids().await, (supervisor, worker));
    // The worker by itself: as it was told to end, no other replaces it.
    kill_process(worker, Signal::TERM).unwrap();
    scene.until_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dock_that_was_only_looked_at_has_no_agent_for_long() {
    let scene = Scene::new("down");
    let look = CallOptions::impatient().briefly();
    let failure = scene.agent.try_connect(&look).await.unwrap().unwrap_err();
    assert!(failure.message.contains("refused"), "{failure:?}");
    scene.until_gone().await;
    assert!(!scene.agent.engine_socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_is_named_with_its_process() {
    let scene = Scene::new("here");
    scene.agent.connect(&PATIENT).await.unwrap();
    let (supervisor, worker) = scene.pids().await;
    kill_process(worker, Signal::STOP).unwrap();
    limit(async {
        while !is_stopped(worker) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let error = limit(scene.agent.connect(&PATIENT)).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    let hint = error.hint_text().unwrap().to_owned();
    assert!(
        hint.contains(&format!("kill {}", supervisor.as_raw_nonzero())),
        "{hint}"
    );
    // The hint is right, even though the worker is stopped.
    kill_process(supervisor, Signal::TERM).unwrap();
    scene.until_gone().await;
    scene.agent.connect(&PATIENT).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_it_from_starting_is_said() {
    let scene = Scene::new("here");
    let nowhere = env(scene.directory.path(), Path::new("/nowhere"));
    let error = Agent::of(&scene.dock, &nowhere)
        .unwrap()
        .connect(&PATIENT)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("dock-agent is not installed"), "{error}");

    let broken = scene.directory.path().join("bin");
    fs::create_dir(&broken).unwrap();
    let program = broken.join("dock-agent");
    fs::write(&program, "#!/bin/sh\necho 'libfoo.so: no such file' >&2\nexit 127\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = env(scene.directory.path(), &broken);
    let error = limit(Agent::of(&scene.dock, &path).unwrap().connect(&PATIENT))
        .await
        .unwrap_err();
    let cause = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(cause.contains("libfoo.so"), "{error:?}");

    // A file that is not a socket is in its way.
    fs::create_dir_all(scene.agent.engine_socket()).unwrap();
    let error = limit(scene.agent.connect(&PATIENT)).await.unwrap_err();
    assert!(error.to_string().contains("can't make its sockets"), "{error}");
    scene.until_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_it_says_that_others_start_it() {
    let program = programs().join("dock-agent");
    let output = tokio::process::Command::new(&program)
        .arg("--help")
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("commands start it"));
    let unfed = tokio::process::Command::new(&program)
        .stdin(std::process::Stdio::null())
        .output();
    assert!(!limit(unfed).await.unwrap().status.success());
}

/// Whether every thread of a process is stopped (the third field of `stat`, proc(5)).
fn is_stopped(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

/// `connect` in a terminal of its own, made by script(1), and its output.
struct Terminal {
    child: tokio::process::Child,
    seen: String,
}

impl Terminal {
    fn open(scene: &Scene, before: &str, after: &str) -> Self {
        let connect = programs().join("connect");
        let socket = scene.directory.path().join("engine.sock");
        let Access::Ssh(SshAccess { host, .. }) = &scene.dock.access else {
            unreachable!("it was made so");
        };
        let line = format!("{before}{} {host} {}{after}", connect.display(), socket.display());
        let mut script = tokio::process::Command::new("script");
        script
            .args(["-qec", &line, "/dev/null"])
            .env_clear()
            .envs(scene.env.iter())
            .env("SHELL", "/bin/sh")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true);
        Self {
            child: script.spawn().unwrap(),
            seen: String::new(),
        }
    }

    async fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    async fn until(&mut self, text: &str) {
        let found = timeout(Duration::from_secs(30), async {
            while !self.seen.contains(text) {
                let mut buffer = [0; 1024];
                let read = self.child.stdout.as_mut().unwrap().read(&mut buffer).await.unwrap();
                assert!(read > 0, "the terminal is closed");
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        assert!(found.await.is_ok(), "{text:?} is not seen:\n{}", self.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_asked_at_the_terminal_and_not_overheard() {
    let scene = Scene::new("needs-password");
    let mut terminal = Terminal::open(&scene, "", "; stty -a");
    terminal.until("password: ").await;
    terminal.type_in("wrong\n").await;
    terminal.until("failed: the password is wrong").await;
    terminal.until(" echo ").await;

    // Another command may try at once.
    let mut terminal = Terminal::open(&scene, "", "");
    terminal.until("password: ").await;
    terminal.type_in("open sesame\n").await;
    terminal.until("connected").await;
    assert!(!terminal.seen.contains("sesame"), "{}", terminal.seen);

    // The agent is detached from the terminal, and goes on without it.
    limit(terminal.child.wait()).await.unwrap();
    let mut again = Terminal::open(&scene, "", "");
    again.until("connected").await;
    assert!(!again.seen.contains("password"), "{}", again.seen);
    for entry in fs::read_dir(scene.directory.path().join("dockerutils")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read(&path).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains("sesame"), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_interrupts_gets_the_terminal_back() {
    let scene = Scene::new("needs-password");
    let mut terminal = Terminal::open(&scene, "trap : INT; ", "; stty -a");
    terminal.until("password: ").await;
    terminal.type_in("half a pass").await;
    terminal.type_in("\x03").await;
    terminal.until("interrupted").await;
    terminal.until(" echo ").await;
    assert!(!terminal.seen.contains("half"), "{}", terminal.seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_takes_too_long_is_told_and_gets_the_terminal_back() {
    let scene = Scene::new("needs-password-soon");
    let mut terminal = Terminal::open(&scene, "", "; stty -a");
    terminal.until("password: ").await;
    terminal.until("failed: the password is wrong").await;
    terminal.until(" echo ").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_background_nobody_is_asked() {
    let scene = Scene::new("needs-password");
    // A question from the background would stop the job (SIGTTIN).
    let mut terminal = Terminal::open(&scene, "set -m; ", " & wait");
    terminal.until("failed: the password is wrong").await;
    assert!(!terminal.seen.contains("password: "), "{}", terminal.seen);
}

/// systemd's own small program that listens, and becomes what it is to start when somebody connects.
fn listen_as_systemd(scene: &Scene, socket: &Path) -> tokio::process::Child {
    machine::require("systemd-socket-activate", &["systemd"], "what systemd starts").unwrap();
    fs::create_dir_all(socket.parent().unwrap()).unwrap();
    fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    let said = scene.directory.path().join("said");
    let child = tokio::process::Command::new("systemd-socket-activate")
        .args(["--inetd", "-E", "XDG_RUNTIME_DIR", "-E", "HOME", "-E", "PATH", "-l"])
        .arg(socket)
        .arg(programs().join("dock-agent"))
        .arg("context")
        .env_clear()
        .envs(scene.env.iter())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    wait::until("systemd-socket-activate listens", || {
        fs::read_to_string(&said).unwrap().contains("Listening on ")
    });
    child
}

/// What the list of docks is to hold.
fn list_docks(scene: &Scene, listed: &[Dock]) {
    let changed = docks::list(&scene.env).change(|docks| {
        *docks = listed.to_vec();
        Ok(())
    });
    changed.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_to_the_socket_of_a_context_has_the_agent_started() {
    let scene = Scene::new("here");
    list_docks(&scene, std::slice::from_ref(&scene.dock));
    let context = scene.agent.context_socket();
    let mut started = listen_as_systemd(&scene, &context);
    assert_eq!(scene.agent.status(false).await.unwrap(), None, "nobody has connected");
    let pings: Vec<_> = (0..20)
        .map(|_| {
            let context = context.clone();
            tokio::spawn(async move { ask(&context, "ping\n").await })
        })
        .collect();
    for ping in pings {
        assert_eq!(ping.await.unwrap(), "pong");
    }
    // It is an agent as any other: commands reach it, and its own socket is there.
    let (supervisor, worker) = scene.pids().await;
    assert_ne!(
        Some(supervisor.as_raw_nonzero().get()),
        started.id().map(|id| id.cast_signed())
    );
    assert_eq!(scene.ping().await, "pong");
    assert!(
        scene.status().await.holders.is_empty(),
        "it does not live for the context"
    );
    // A worker that dies, an agent that ends, an agent that is killed: the next one gets the next agent.
    kill_process(worker, Signal::KILL).unwrap();
    assert_eq!(ask(&context, "ping\n").await, "pong");
    scene.agent.stop().await.unwrap();
    assert_eq!(ask(&context, "ping\n").await, "pong");
    let (supervisor, worker) = scene.pids().await;
    for pid in [supervisor, worker] {
        kill_process(pid, Signal::KILL).unwrap();
    }
    assert_eq!(ask(&context, "ping\n").await, "pong");

    // What systemd started goes; what came through it is served to its end, and no new one.
    let mut open = UnixStream::connect(&context).await.unwrap();
    assert_eq!(scene.ping().await, "pong");
    limit(async {
        while scene.status().await.streams == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    started.kill().await.unwrap();
    limit(async {
        while UnixStream::connect(&context).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    open.write_all(b"ping\n").await.unwrap();
    let mut heard = String::new();
    limit(open.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "pong");
    scene.agent.stop().await.unwrap();
    scene.until_gone().await;
    assert!(context.exists(), "an agent removes its own sockets");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_is_served_by_the_agent_that_runs_and_one_without_a_dock_says_so() {
    let scene = Scene::new("here");
    list_docks(&scene, std::slice::from_ref(&scene.dock));
    scene.agent.connect(&PATIENT).await.unwrap();
    let before = scene.pids().await;
    let context = scene.agent.context_socket();
    let mut started = listen_as_systemd(&scene, &context);
    assert_eq!(ask(&context, "ping\n").await, "pong");
    assert_eq!(scene.pids().await, before);
    list_docks(&scene, &[]);
    assert_eq!(ask(&context, "ping\n").await, "pong", "the agent serves it still");
    scene.agent.stop().await.unwrap();
    for _ in 0..3 {
        let answer = ask(&context, "GET /_ping HTTP/1.1\r\n\r\n").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("no dock has the socket "),
            "{answer}"
        );
    }
    assert_eq!(scene.agent.status(false).await.unwrap(), None);
    // Registered again, it works again, without a new start.
    list_docks(&scene, std::slice::from_ref(&scene.dock));
    assert_eq!(ask(&context, "ping\n").await, "pong");
    scene.agent.stop().await.unwrap();
    // Not at once, so that systemd does not start it again and again.
    let began = std::time::Instant::now();
    assert!(limit(started.wait()).await.unwrap().success());
    assert!(began.elapsed() > Duration::from_secs(5));
    scene.until_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_elsewhere_or_where_others_have_a_hand_in_is_not_served() {
    let scene = Scene::new("here");
    list_docks(&scene, std::slice::from_ref(&scene.dock));
    let context = scene.agent.context_socket();
    let elsewhere = scene.directory.path().join("elsewhere.sock");
    let own = scene.agent.engine_socket();
    for (socket, mode) in [(&elsewhere, 0o700), (&own, 0o700), (&context, 0o750)] {
        let mut started = listen_as_systemd(&scene, socket);
        fs::set_permissions(socket.parent().unwrap(), fs::Permissions::from_mode(mode)).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(socket).unwrap();
        assert!(!limit(started.wait()).await.unwrap().success());
        let said = fs::read_to_string(scene.directory.path().join("said")).unwrap();
        assert!(said.contains("is no socket of a docker context of yours"), "{said}");
        fs::remove_file(socket).unwrap();
    }
    assert_eq!(fs::read_dir(context.parent().unwrap()).unwrap().count(), 0);
}
