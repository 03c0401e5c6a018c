//! What an agent's worker does, over a link that a test can cut.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dock_client::agent::frame::{read_message, write_message};
use dock_client::agent::paths::AgentPaths;
use dock_client::agent::target::{Exec, Exit, RemoteCommand};
use dock_client::agent::wire::{
    Answer, Call, Failure, FailureKind, Greeting, Hello, PROTOCOL, Reply, Request, VERSION,
};
use dock_client::agent::{Agent, CallOptions, Holder, LinkStatus};
use dock_client::docks::{Access, Dock as DockEntry, Forward, MountPaths, SshAccess};
use dock_client::env::Env;
use dock_link::link::OpenOptions;
use dock_link::log::Log;
use dock_link::prompts::Prompts;
use dock_link::service::{Service, ShutdownReason, Sockets};
use dock_link::timing::Timing;
use engine::Engine;
use fake::{Dock, FakeConnector};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

mod engine;
mod fake;

const PATIENT: CallOptions = CallOptions::unattended();

/// An agent in this process, its dock and its client.
struct Scene {
    directory: tempfile::TempDir,
    dock: Arc<Dock>,
    engine: Arc<Engine>,
    agent: Agent,
    paths: AgentPaths,
    service: Arc<Service<FakeConnector>>,
    running: JoinHandle<ShutdownReason>,
}

fn entry() -> DockEntry {
    DockEntry {
        moniker: "far $(touch x)".into(),
        access: Access::Ssh(SshAccess::default()),
        workspace: None,
        // Ports have their own tests.
        forward: Forward::None,
        mounts: MountPaths::default(),
    }
}

impl Scene {
    fn new() -> Self {
        Self::with(|_| {}, quick())
    }

    fn with(change: impl FnOnce(&mut Dock), timing: Timing) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let env = Env::from_pairs([
            ("XDG_RUNTIME_DIR", directory.path().to_str().unwrap()),
            ("HOME", "/nowhere"),
            ("PATH", ""),
        ]);
        let agent = Agent::of(&entry(), &env).unwrap();
        let paths = AgentPaths::of(&entry(), &env).unwrap();
        paths.prepare().unwrap();
        let socket = directory.path().join("engine.sock");
        let engine = Engine::start(&socket);
        let mut dock = Dock::new(socket);
        change(&mut dock);
        let dock = Arc::new(dock);
        let log = Log::of(&paths, "test");
        let service = Service::new(entry(), paths.clone(), FakeConnector(Arc::clone(&dock)), timing, log);
        let sockets = Sockets {
            control: UnixListener::bind(paths.control_socket()).unwrap(),
            engine: UnixListener::bind(paths.engine_socket()).unwrap(),
        };
        let running = tokio::spawn(Arc::clone(&service).run(sockets));
        Self {
            directory,
            dock,
            engine,
            agent,
            paths,
            service,
            running,
        }
    }

    /// A docker client's connection.
    async fn docker(&self) -> UnixStream {
        UnixStream::connect(self.agent.engine_socket()).await.unwrap()
    }

    async fn ping(&self) -> String {
        ask(self.docker().await, "ping\n").await
    }

    async fn log(&self) -> String {
        fs::read_to_string(self.agent.log_file()).unwrap()
    }
}

/// Short waits, but none so short that a busy machine misses it.
fn quick() -> Timing {
    Timing {
        tick: Duration::from_millis(20),
        open: Duration::from_millis(300),
        check: Duration::from_millis(300),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
        fresh: Duration::from_millis(200),
        ..Timing::default()
    }
}

/// Sends something, and reads all that comes back.
async fn ask(mut stream: UnixStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut heard = String::new();
    limit(stream.read_to_string(&mut heard)).await.unwrap();
    heard
}

async fn limit<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it hangs")
}

/// Waits until a condition holds.
async fn until(mut is_so: impl FnMut() -> bool) {
    limit(async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn line(command: &str) -> Exec {
    Exec {
        command: RemoteCommand::Line(command.into()),
        pty: None,
    }
}

/// A control connection by hand, after the command's first message and the agent's.
async fn greet(scene: &Scene, hello: Hello) -> (UnixStream, Greeting) {
    let mut stream = UnixStream::connect(scene.paths.control_socket()).await.unwrap();
    write_message(&mut stream, &hello).await.unwrap();
    let greeting = limit(read_message(&mut stream)).await.unwrap().unwrap();
    (stream, greeting)
}

fn hello() -> Hello {
    Hello {
        dockerutils_agent: PROTOCOL,
        version: VERSION.into(),
        leave: false,
    }
}

fn call(request: Request, person: bool) -> Call {
    Call {
        request,
        ssh_auth_sock: None,
        person,
        accept_new: false,
        brief: false,
        forward: None,
        named: Vec::new(),
        expose: Vec::new(),
        patience_ms: 0,
    }
}

#[tokio::test]
async fn a_docker_client_says_all_and_still_hears_the_answer() {
    let scene = Scene::new();
    let mut stream = scene.docker().await;
    stream.write_all(b"echo\n").await.unwrap();
    let sent = vec![b'x'; 3_000_000];
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    limit(stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard.len(), sent.len() + "the end".len());
    assert!(heard.ends_with(b"the end"));
}

#[tokio::test]
async fn an_engine_that_refuses_early_is_heard_although_more_was_to_be_said() {
    let scene = Scene::new();
    let mut stream = scene.docker().await;
    stream.write_all(b"refuse\n").await.unwrap();
    // The engine reads none of that, so the connection may break.
    let _ = limit(stream.write_all(&vec![0; 8_000_000])).await;
    // The bytes that were not read make the end a broken one, as without an agent; the answer comes before it.
    let mut heard = [0; 7];
    limit(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"refused");
}

#[tokio::test]
async fn many_who_come_at_once_share_one_link() {
    let scene = Scene::with(|dock| dock.delay = Duration::from_millis(100), quick());
    let pings: Vec<_> = (0..50).map(|_| scene.ping()).collect();
    for pong in futures(pings).await {
        assert_eq!(pong, "pong");
    }
    assert_eq!(scene.dock.attempts(), 1);
    assert_eq!(scene.dock.links.load(Ordering::SeqCst), 1);
}

async fn futures<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_link_that_is_cut_ends_its_streams_at_once_and_comes_back() {
    let scene = Scene::new();
    let mut waiting = scene.docker().await;
    waiting.write_all(b"silent\n").await.unwrap();
    let running = scene.agent.execute(line("echo up; sleep 60"), &PATIENT).await.unwrap();
    let mut stdout = running.stdout;
    limit(stdout.read_exact(&mut [0; 3])).await.unwrap();
    until(|| scene.engine.open() == 1).await;

    scene.dock.set_reachable(false);
    scene.dock.cut();
    let mut nothing = Vec::new();
    // If it is cut in the middle, the client may see an error or an end, but must not be left waiting.
    let _ = limit(waiting.read_to_end(&mut nothing)).await;
    assert!(nothing.is_empty());
    let error = limit(running.exit.wait()).await.unwrap_err();
    assert!(error.to_string().contains("the link was cut"), "{error}");

    let later = tokio::spawn(ask(scene.docker().await, "ping\n"));
    // The client tries again, and again.
    until(|| scene.dock.attempts() > 2).await;
    assert!(!later.is_finished(), "it waits while the dock is away");
    scene.dock.set_reachable(true);
    assert_eq!(limit(later).await.unwrap(), "pong");
}

#[tokio::test]
async fn a_link_that_is_outdated_is_left_to_what_it_carries() {
    let scene = Scene::new();
    let running = scene
        .agent
        .execute(line("echo up; read -r said; echo \"heard $said\""), &PATIENT)
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (running.stdin, running.stdout);
    limit(stdout.read_exact(&mut [0; 3])).await.unwrap();
    assert_eq!((scene.ping().await.as_str(), scene.dock.attempts()), ("pong", 1));

    scene.dock.moves();
    // The next stream gets a link of its own, and the stream that goes on keeps the other.
    assert_eq!((scene.ping().await.as_str(), scene.dock.attempts()), ("pong", 2));
    assert_eq!(scene.ping().await, "pong");
    assert_eq!((scene.dock.attempts(), scene.dock.links.load(Ordering::SeqCst)), (2, 2));
    stdin.write_all(b"still\n").await.unwrap();
    let mut heard = String::new();
    limit(stdout.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "heard still\n");
    limit(running.exit.wait()).await.unwrap();
    drop((stdin, stdout));
    // The link ends with its last stream.
    until(|| scene.dock.links.load(Ordering::SeqCst) == 1).await;
    assert!(
        scene
            .log()
            .await
            .contains("kept only for what it carries: the configuration leads elsewhere")
    );
    assert_eq!((scene.ping().await.as_str(), scene.dock.attempts()), ("pong", 2));

    // If an outdated link breaks, only its own streams see that.
    let running = scene.agent.execute(line("echo up; sleep 60"), &PATIENT).await.unwrap();
    let mut stdout = running.stdout;
    limit(stdout.read_exact(&mut [0; 3])).await.unwrap();
    scene.dock.moves();
    assert_eq!(scene.ping().await, "pong");
    scene.dock.cut();
    let error = limit(running.exit.wait()).await.unwrap_err();
    assert!(error.to_string().contains("the link was cut"), "{error}");
    assert_eq!(scene.ping().await, "pong");
}

#[tokio::test]
async fn a_link_that_never_stood_is_tried_once() {
    let scene = Scene::new();
    scene.dock.set_reachable(false);
    let error = scene.agent.connect(&PATIENT).await.unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert_eq!(scene.dock.attempts(), 1);
    let failure = scene.agent.try_connect(&PATIENT).await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    scene.dock.set_reachable(true);
    // Later callers are not refused because of a failure that is no longer fresh.
    sleep(Duration::from_millis(250)).await;
    assert_eq!(scene.ping().await, "pong");
}

#[tokio::test]
async fn in_a_long_outage_each_waits_for_one_attempt_only() {
    let scene = Scene::new();
    assert_eq!(scene.ping().await, "pong");
    scene.dock.set_reachable(false);
    scene.dock.cut();
    let patience = Duration::from_millis(300);
    let options = CallOptions { patience, ..PATIENT };
    let began = Instant::now();
    assert!(scene.agent.connect(&options).await.is_err());
    assert!(began.elapsed() >= patience / 2, "{:?}", began.elapsed());
    sleep(Duration::from_millis(250)).await;
    let before = scene.dock.attempts();
    assert!(scene.agent.connect(&options).await.is_err());
    assert_eq!(scene.dock.attempts(), before + 1);
    assert!(scene.agent.connect(&CallOptions::impatient()).await.is_err());
    assert_eq!(
        scene.dock.attempts(),
        before + 1,
        "what failed just now is not tried again"
    );
}

#[tokio::test]
async fn a_link_that_died_silently_is_found_out_and_replaced() {
    let scene = Scene::new();
    assert_eq!(scene.ping().await, "pong");
    // A laptop that slept, a router that forgot: nothing comes back, and no error is reported.
    scene.dock.opens.store(false, Ordering::SeqCst);
    scene.dock.answers.store(false, Ordering::SeqCst);
    let later = tokio::spawn(ask(scene.docker().await, "ping\n"));
    until(|| scene.dock.attempts() == 2).await;
    scene.dock.opens.store(true, Ordering::SeqCst);
    scene.dock.answers.store(true, Ordering::SeqCst);
    assert_eq!(limit(later).await.unwrap(), "pong");
    assert!(scene.log().await.contains("no sign of life"));
}

#[tokio::test]
async fn a_link_that_did_not_survive_a_sleep_is_dropped() {
    let scene = Scene::new();
    let log = Log::of(&scene.paths, "test");
    let prompts = Prompts::new(Duration::ZERO, Vec::new());
    let link = dock_link::link::Link::new(FakeConnector(Arc::clone(&scene.dock)), prompts, quick(), log);
    let options = OpenOptions {
        arrival: Instant::now(),
        patience: Duration::ZERO,
        answers: false,
    };
    drop(limit(link.up(options)).await.unwrap());
    link.examine().await;
    assert_eq!(scene.dock.links.load(Ordering::SeqCst), 1, "it is well");
    scene.dock.answers.store(false, Ordering::SeqCst);
    link.examine().await;
    until(|| scene.dock.links.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_dock_that_is_slow_to_open_keeps_its_link() {
    let scene = Scene::new();
    assert_eq!(scene.ping().await, "pong");
    scene.dock.opens.store(false, Ordering::SeqCst);
    let later = tokio::spawn(ask(scene.docker().await, "ping\n"));
    sleep(Duration::from_millis(700)).await;
    assert!(!later.is_finished());
    assert_eq!(scene.dock.attempts(), 1);
    later.abort();
}

#[tokio::test]
async fn a_target_that_is_refused_leaves_the_link_alone() {
    let scene = Scene::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = scene.agent.open_tcp("127.0.0.1", port, &PATIENT).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    far.read_exact(&mut [0; 5]).await.unwrap();
    drop(listener);
    let error = scene.agent.open_tcp("127.0.0.1", port, &PATIENT).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    far.write_all(b"still there").await.unwrap();
    stream.read_exact(&mut [0; 11]).await.unwrap();
    assert_eq!(scene.dock.attempts(), 1);
}

#[tokio::test]
async fn a_docker_client_hears_why_and_what_to_do() {
    let scene = Scene::with(|dock| dock.password = Some("x".into()), quick());
    let request = "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";
    let response = ask(scene.docker().await, request).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let message = body["message"].as_str().unwrap();
    assert!(message.contains("the password is wrong"), "{message}");
    assert!(message.contains("ssh-dock 'far $(touch x)' true"), "{message}");
    // sshd counts failures: without a user to ask, it is not tried again at once.
    let head = ask(scene.docker().await, "HEAD /_ping HTTP/1.1\r\n\r\n").await;
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(scene.dock.attempts(), 1);
}

#[tokio::test]
async fn a_docker_client_that_sends_much_hears_why_too() {
    let scene = Scene::new();
    scene.dock.set_reachable(false);
    let (mut read, mut write) = scene.docker().await.into_split();
    let sending = tokio::spawn(async move {
        let head = b"POST /build HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n";
        write.write_all(head).await?;
        write.write_all(&vec![b'x'; 3_000_000]).await
    });
    let mut response = String::new();
    limit(read.read_to_string(&mut response)).await.unwrap();
    assert!(response.contains("connection refused"), "{response}");
    limit(sending).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_new_agent_of_keys_is_a_reason_to_try_again() {
    let scene = Scene::with(|dock| dock.password = Some("x".into()), quick());
    for attempts in [1, 1] {
        assert!(scene.agent.connect(&PATIENT).await.is_err());
        assert_eq!(scene.dock.attempts(), attempts);
    }
    let (mut stream, _) = greet(&scene, hello()).await;
    let call = Call {
        ssh_auth_sock: Some(scene.directory.path().join("agent")),
        ..call(Request::Link, false)
    };
    write_message(&mut stream, &call).await.unwrap();
    let reply: Reply = limit(read_message(&mut stream)).await.unwrap().unwrap();
    assert!(matches!(reply, Reply::Failed(_)));
    assert_eq!(scene.dock.attempts(), 2);
}

#[tokio::test]
async fn the_person_is_asked_and_others_wait_for_the_answer() {
    let scene = Scene::with(|dock| dock.password = Some("open sesame".into()), quick());
    let (mut stream, _) = greet(&scene, hello()).await;
    write_message(&mut stream, &call(Request::Link, true)).await.unwrap();
    let reply: Reply = limit(read_message(&mut stream)).await.unwrap().unwrap();
    let Reply::Ask(question) = reply else {
        panic!("{reply:?}")
    };
    assert!(!question.echo);
    let others = tokio::spawn(ask(scene.docker().await, "ping\n"));
    sleep(Duration::from_millis(100)).await;
    assert!(!others.is_finished());
    let answer = Answer {
        text: Some("open sesame".into()),
    };
    write_message(&mut stream, &answer).await.unwrap();
    assert_eq!(limit(read_message(&mut stream)).await.unwrap(), Some(Reply::Done));
    assert_eq!(limit(others).await.unwrap(), "pong");
    assert!(!scene.log().await.contains("sesame"));
}

#[tokio::test]
async fn a_person_who_leaves_frees_those_who_wait() {
    let scene = Scene::with(|dock| dock.password = Some("open sesame".into()), quick());
    let (mut stream, _) = greet(&scene, hello()).await;
    write_message(&mut stream, &call(Request::Link, true)).await.unwrap();
    let reply: Reply = limit(read_message(&mut stream)).await.unwrap().unwrap();
    assert!(matches!(reply, Reply::Ask(_)), "{reply:?}");
    let others = tokio::spawn(ask(scene.docker().await, "GET / HTTP/1.1\r\n\r\n"));
    sleep(Duration::from_millis(50)).await;
    drop(stream);
    assert!(limit(others).await.unwrap().starts_with("HTTP/1.1 503"));
    until(|| scene.engine.open() == 0).await;
    let status = scene.agent.status(false).await.unwrap().unwrap();
    assert_eq!(status.streams, 0);
}

#[tokio::test]
async fn a_command_runs_with_its_streams_and_its_code() {
    let scene = Scene::new();
    let mut running = scene
        .agent
        .execute(line("cat; echo oops >&2; exit 7"), &PATIENT)
        .await
        .unwrap();
    let sent = vec![b'y'; 1_000_000];
    let (mut out, mut err) = (Vec::new(), String::new());
    let (_, read, _) = tokio::join!(
        async {
            running.stdin.write_all(&sent).await.unwrap();
            running.stdin.shutdown().await.unwrap();
        },
        running.stdout.read_to_end(&mut out),
        running.stderr.read_to_string(&mut err),
    );
    read.unwrap();
    assert_eq!(out, sent);
    assert_eq!(err, "oops\n");
    assert_eq!(running.exit.wait().await.unwrap(), Exit::Code(7));
    let argv = Exec {
        command: RemoteCommand::Argv(["printf", "%s|", "a b", "$HOME"].map(str::to_owned).into()),
        pty: None,
    };
    let mut running = scene.agent.execute(argv, &PATIENT).await.unwrap();
    let mut said = String::new();
    running.stdout.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "a b|$HOME|");
}

#[tokio::test]
async fn a_command_ends_with_who_started_it() {
    let scene = Scene::new();
    let file = scene.directory.path().join("pid");
    let running = scene
        .agent
        .execute(line(&format!("echo $$ > {}; exec sleep 60", file.display())), &PATIENT)
        .await
        .unwrap();
    let mut pid = None;
    until(|| {
        let text = fs::read_to_string(&file).unwrap_or_default();
        pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
        pid.is_some()
    })
    .await;
    let holder = Holder::of(pid.unwrap()).unwrap();
    assert!(holder.lives());
    drop(running);
    until(|| !holder.lives()).await;
}

#[tokio::test]
async fn a_link_that_nobody_uses_is_dropped_and_the_socket_stays() {
    let timing = Timing {
        idle_link: Duration::from_millis(100),
        ..quick()
    };
    let scene = Scene::with(|_| {}, timing);
    let mut stream = scene.docker().await;
    stream.write_all(b"silent\n").await.unwrap();
    until(|| scene.engine.open() == 1).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.dock.links.load(Ordering::SeqCst), 1, "a stream keeps the link");
    drop(stream);
    until(|| scene.dock.links.load(Ordering::SeqCst) == 0).await;
    assert_eq!(scene.agent.status(true).await.unwrap().unwrap().link, LinkStatus::Idle);
    assert_eq!(scene.ping().await, "pong");
    let status = scene.agent.status(true).await.unwrap().unwrap();
    assert_eq!(status.link.round_trip(), Some(Duration::from_micros(1500)));
}

#[tokio::test]
async fn it_lives_as_long_as_a_shell_and_ends_when_nothing_needs_it() {
    let timing = Timing {
        idle_agent: Duration::from_millis(300),
        ..quick()
    };
    let scene = Scene::with(|_| {}, timing);
    let mut shell = tokio::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(shell.id().unwrap()).unwrap();
    scene.agent.hold(pid, Forward::None).await.unwrap();
    sleep(Duration::from_millis(600)).await;
    assert!(!scene.running.is_finished());
    let status = scene.agent.status(false).await.unwrap().unwrap();
    assert_eq!(status.holders, [Holder::of(pid).unwrap()]);
    // Releasing a hold that another process has does no harm.
    scene.agent.release(1).await.unwrap();
    shell.kill().await.unwrap();
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Idle);
}

#[tokio::test]
async fn one_that_a_docker_context_leads_to_stays_until_it_is_told_to_stop() {
    let timing = Timing {
        idle_agent: Duration::from_millis(200),
        idle_brief: Duration::from_millis(200),
        ..quick()
    };
    let scene = Scene::with(|_| {}, timing);
    scene.agent.stay().await.unwrap();
    sleep(Duration::from_millis(600)).await;
    assert!(!scene.running.is_finished());
    assert_eq!(scene.ping().await, "pong");
    scene.agent.stop().await.unwrap();
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Stopped);
}

#[tokio::test]
async fn a_brief_look_does_not_keep_it() {
    let timing = Timing {
        idle_brief: Duration::from_millis(200),
        ..quick()
    };
    let scene = Scene::with(|_| {}, timing.clone());
    scene.agent.connect(&CallOptions::impatient().briefly()).await.unwrap();
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Idle);
    let scene = Scene::with(|_| {}, timing);
    assert_eq!(scene.ping().await, "pong");
    scene.agent.connect(&CallOptions::impatient().briefly()).await.unwrap();
    sleep(Duration::from_millis(600)).await;
    assert!(!scene.running.is_finished());
}

#[tokio::test]
async fn it_ends_when_its_sockets_were_taken_away() {
    let scene = Scene::new();
    assert_eq!(scene.ping().await, "pong");
    fs::remove_dir_all(scene.agent.engine_socket().parent().unwrap()).unwrap();
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Idle);
}

#[tokio::test]
async fn who_does_not_read_holds_the_engine_up_and_costs_no_memory() {
    let scene = Scene::new();
    let mut stream = scene.docker().await;
    stream.write_all(b"flood\n").await.unwrap();
    let written = || scene.engine.written.load(Ordering::SeqCst);
    until(|| written() > 0).await;
    sleep(Duration::from_millis(500)).await;
    let before = written();
    sleep(Duration::from_millis(500)).await;
    assert_eq!(written(), before);
    assert!(before < 4_000_000, "{before} bytes are on their way");
    limit(stream.read_exact(&mut vec![0; 50_000_000])).await.unwrap();
}

#[tokio::test]
async fn a_client_that_has_gone_leaves_no_stream_behind() {
    let scene = Scene::new();
    // One client that sent everything, one that did not, and one whose bytes are not read.
    for text in [&b"forever\n"[..], b"silent\n", &[b'x'; 6_000_000]] {
        for shut in [true, false] {
            let mut stream = scene.docker().await;
            let _ = timeout(Duration::from_millis(300), stream.write_all(text)).await;
            until(|| scene.engine.open() > 0).await;
            if shut {
                stream.shutdown().await.unwrap();
            }
            drop(stream);
        }
    }
    for _ in 0..1000 {
        if scene.agent.status(false).await.unwrap().unwrap().streams == 0 {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "streams are left: {}",
        scene.agent.status(false).await.unwrap().unwrap().streams
    );
}

#[tokio::test]
async fn commands_of_another_version_part_politely() {
    let scene = Scene::new();
    let foreign = Hello {
        dockerutils_agent: PROTOCOL + 1,
        version: "99.0.0".into(),
        leave: false,
    };
    let (mut stream, greeting) = greet(&scene, foreign.clone()).await;
    assert_eq!((greeting.dockerutils_agent, &*greeting.version), (PROTOCOL, VERSION));
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "there is nothing more to say");

    let mut busy = scene.docker().await;
    busy.write_all(b"silent\n").await.unwrap();
    until(|| scene.engine.open() == 1).await;
    let leave = Hello { leave: true, ..foreign };
    let (_, greeting) = greet(&scene, leave.clone()).await;
    assert_eq!((greeting.streams, greeting.leaving), (1, false));
    drop(busy);
    until(|| scene.engine.open() == 0).await;
    limit(async {
        while !greet(&scene, leave.clone()).await.1.leaving {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Stopped);
}

#[tokio::test]
async fn an_old_agent_that_is_busy_is_named_with_the_way_to_end_it() {
    let directory = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let env = Env::from_pairs([("XDG_RUNTIME_DIR", directory.path().to_str().unwrap()), ("HOME", "/x")]);
    let paths = AgentPaths::of(&entry(), &env).unwrap();
    paths.prepare().unwrap();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _: Option<Hello> = read_message(&mut stream).await.unwrap();
            let greeting =
                serde_json::json!({"dockerutils_agent": 0, "version": "2.9\x1b[2J", "pid": 4711, "streams": 3});
            write_message(&mut stream, &greeting).await.unwrap();
        }
    });
    let error = limit(Agent::of(&entry(), &env).unwrap().connect(&PATIENT))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("2.9, this"), "{error}");
    let hint = error.hint_text().unwrap();
    assert!(hint.contains("3 connections") && hint.contains("kill 4711"), "{hint}");
}

#[tokio::test]
async fn what_is_no_call_is_answered_or_dropped() {
    let scene = Scene::new();
    let (mut stream, _) = greet(&scene, hello()).await;
    write_message(&mut stream, &serde_json::json!({"request": {"fly": {}}}))
        .await
        .unwrap();
    let reply: Reply = limit(read_message(&mut stream)).await.unwrap().unwrap();
    let Reply::Failed(Failure { kind, message, .. }) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(kind, FailureKind::Unknown);
    assert!(message.contains("fly"), "{message}");
    let mut stream = UnixStream::connect(scene.paths.control_socket()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // The client may see an error because its bytes were not read; but it is not kept waiting.
    let _ = limit(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(scene.ping().await, "pong");
}

#[tokio::test]
async fn stopping_breaks_what_is_open() {
    let scene = Scene::new();
    let mut stream = scene.docker().await;
    stream.write_all(b"silent\n").await.unwrap();
    until(|| scene.engine.open() == 1).await;
    scene.service.stop();
    assert_eq!(limit(scene.running).await.unwrap(), ShutdownReason::Stopped);
    let _ = limit(stream.read_to_end(&mut Vec::new())).await;
    until(|| scene.engine.open() == 0).await;
    until(|| scene.dock.links.load(Ordering::SeqCst) == 0).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_leave_memory_and_descriptors_as_they_were() {
    const AT_ONCE: usize = 50;
    let scene = Arc::new(Scene::new());
    let round = async |count: usize| {
        for _ in 0..count / AT_ONCE {
            let pings = (0..AT_ONCE).map(|_| {
                let scene = Arc::clone(&scene);
                tokio::spawn(async move { scene.ping().await })
            });
            for ping in pings.collect::<Vec<_>>() {
                assert_eq!(limit(ping).await.unwrap(), "pong");
            }
        }
        limit(async {
            while scene.agent.status(false).await.unwrap().unwrap().streams > 0 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        // What the last of them closed may still be on its way.
        sleep(Duration::from_millis(100)).await;
    };
    // The allocator reserves memory first.
    round(3000).await;
    let (descriptors, memory) = (descriptors(), resident_kib());
    round(10_000).await;
    assert!(
        self::descriptors() <= descriptors + 2,
        "{descriptors} became {}",
        self::descriptors()
    );
    let grown = resident_kib().saturating_sub(memory);
    // More would mean that each connection left a KiB behind.
    assert!(grown < 8192, "{memory} KiB grew by {grown}");
    assert_eq!(scene.dock.attempts(), 1);
}

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(target_os = "linux")]
fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
