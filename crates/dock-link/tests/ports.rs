//! Ports of containers that answer here, over a link that a test can cut. The dock is this machine: what containers publish
//! there listens on 127.0.0.2, and answers on 127.0.0.1.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::{Agent, CallOptions, Port, ShellDemand, Status};
use dock_client::docks::{Access, Dock as DockEntry, Forward, MountPaths, SshAccess};
use dock_client::env::Env;
use dock_link::log::Log;
use dock_link::service::{Service, ShutdownReason, Sockets};
use dock_link::timing::Timing;
use fake::{Dock, FakeConnector, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

mod fake;

const PATIENT: CallOptions = CallOptions::unattended();
/// Where servers of the dock listen.
const THERE: &str = "127.0.0.2";

/// An engine: containers that a test starts and stops, and its events.
struct Engine {
    containers: Mutex<Vec<Value>>,
    events: broadcast::Sender<String>,
    made: AtomicUsize,
    listed: AtomicUsize,
}

impl Engine {
    fn start(socket: &Path) -> Arc<Self> {
        let engine = Arc::new(Self {
            containers: Mutex::default(),
            events: broadcast::channel(100).0,
            made: AtomicUsize::new(0),
            listed: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&engine);
        http::accept(socket, move |stream| Arc::clone(&serving).serve(stream));
        engine
    }

    async fn serve(self: Arc<Self>, stream: UnixStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let Some((head, _)) = http::message(&mut stream).await? else {
                return Ok(());
            };
            if head.starts_with("GET /events?filters=") {
                let mut events = self.events.subscribe();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    .await?;
                loop {
                    let event = events.recv().await.unwrap();
                    stream
                        .write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())
                        .await?;
                }
            }
            let (status, body) = if head.starts_with("GET /containers/json ") {
                self.listed.fetch_add(1, Ordering::SeqCst);
                ("200 OK", json!(*self.containers.lock().unwrap()))
            } else if head.starts_with("POST /v1.45/containers/create?name=") {
                let id = id(1000 + self.made.fetch_add(1, Ordering::SeqCst));
                ("201 Created", json!({ "Id": id }))
            } else {
                ("404 Not Found", json!({}))
            };
            http::respond(&mut stream, status, &body).await?;
        }
    }

    fn tell(&self, action: &str, id: &str, user: Option<&str>) {
        // The labels of a container are among its attributes.
        let attributes = user.map_or_else(|| json!({}), |user| json!({ "io.dockerutils.user": user }));
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id, "Attributes": attributes } });
        // No one need listen.
        let _ = self.events.send(format!("{event}\n"));
    }

    /// Starts a container that publishes these ports.
    fn run(&self, id: &str, user: Option<&str>, ports: &[(&str, u16)]) {
        let ports: Vec<Value> = ports
            .iter()
            .map(|(kind, port)| json!({ "IP": THERE, "PrivatePort": 80, "PublicPort": port, "Type": kind }))
            .collect();
        let labels = user.map(|user| json!({ "io.dockerutils.user": user }));
        let container = json!({ "Id": id, "Created": 1, "Names": ["/web"], "Labels": labels, "Ports": ports });
        self.containers.lock().unwrap().push(container);
        self.tell("start", id, user);
    }

    fn rename(&self, id: &str, name: &str) {
        for container in self.containers.lock().unwrap().iter_mut() {
            if container["Id"] == id {
                container["Names"] = json!([format!("/{name}")]);
            }
        }
        self.tell("rename", id, None);
    }

    fn end(&self, id: &str) {
        self.containers
            .lock()
            .unwrap()
            .retain(|container| container["Id"] != id);
        self.tell("die", id, None);
    }
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// A server on the dock, which echoes everything up to the end and then says so.
async fn server() -> u16 {
    let listener = TcpListener::bind((THERE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                    // The other side may have gone.
                    let _ = to.write_all(b"the end").await;
                }
            });
        }
    });
    port
}

struct Scene {
    directory: tempfile::TempDir,
    dock: Arc<Dock>,
    engine: Arc<Engine>,
    agent: Agent,
    paths: AgentPaths,
    service: Arc<Service<FakeConnector>>,
    running: JoinHandle<ShutdownReason>,
}

fn user() -> String {
    Env::from_process().user()
}

impl Scene {
    /// An agent that a docked shell holds: this process.
    async fn docked(forward: Forward) -> Self {
        let scene = Self::new(Forward::Mine);
        scene.hold(forward).await;
        scene.agent.connect(&PATIENT).await.unwrap();
        scene
            .until(|_| scene.engine.listed.load(Ordering::SeqCst) > 0 || forward == Forward::None)
            .await;
        scene
    }

    fn new(forward: Forward) -> Self {
        let directory = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let path = directory.path().to_str().unwrap();
        let env = Env::from_pairs([
            ("XDG_RUNTIME_DIR", path),
            ("XDG_STATE_HOME", path),
            ("HOME", "/nowhere"),
            ("PATH", ""),
        ]);
        let entry = DockEntry {
            moniker: "far".into(),
            access: Access::Ssh(SshAccess::default()),
            workspace: None,
            forward,
            mounts: MountPaths::default(),
        };
        let paths = AgentPaths::of(&entry, &env).unwrap();
        paths.prepare().unwrap();
        let socket = directory.path().join("engine.sock");
        let engine = Engine::start(&socket);
        let dock = Arc::new(Dock::new(socket));
        let agent = Agent::of(&entry, &env).unwrap();
        let (service, running) = serve(&entry, &paths, &dock);
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

    async fn hold(&self, forward: Forward) {
        let own = i32::try_from(std::process::id()).unwrap();
        self.agent.hold(own, forward).await.unwrap();
    }

    async fn status(&self) -> Status {
        self.agent.status(false).await.unwrap().expect("it runs")
    }

    async fn ports(&self) -> Vec<Port> {
        self.status().await.ports
    }

    async fn until(&self, is_so: impl Fn(&[Port]) -> bool) -> Vec<Port> {
        let found = timeout(Duration::from_secs(20), async {
            loop {
                let ports = self.ports().await;
                if is_so(&ports) {
                    return ports;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        match found.await {
            Ok(ports) => ports,
            Err(_) => panic!("{:#?}\n{}", self.ports().await, self.log()),
        }
    }

    /// Makes a container as a docker client does, and gives its ID.
    async fn create(&self) -> String {
        self.create_of(&json!({})).await
    }

    async fn create_of(&self, body: &Value) -> String {
        let stream = UnixStream::connect(self.agent.engine_socket()).await.unwrap();
        let (_, answer) = http::post(stream, "/v1.45/containers/create?name=web", body).await;
        answer["Id"].as_str().unwrap().to_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.agent.log_file()).unwrap()
    }
}

fn serve(
    entry: &DockEntry,
    paths: &AgentPaths,
    dock: &Arc<Dock>,
) -> (Arc<Service<FakeConnector>>, JoinHandle<ShutdownReason>) {
    let timing = Timing {
        tick: Duration::from_millis(20),
        idle_agent: Duration::from_millis(400),
        idle_link: Duration::from_millis(200),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
        fresh: Duration::from_millis(200),
        ..Timing::default()
    };
    let connector = FakeConnector(Arc::clone(dock));
    let service = Service::new(entry.clone(), paths.clone(), connector, timing, Log::of(paths, "test"));
    for socket in [paths.control_socket(), paths.engine_socket()] {
        // From an earlier agent.
        let _ = fs::remove_file(socket);
    }
    let sockets = Sockets {
        control: UnixListener::bind(paths.control_socket()).unwrap(),
        engine: UnixListener::bind(paths.engine_socket()).unwrap(),
    };
    let running = tokio::spawn(Arc::clone(&service).run(sockets));
    (service, running)
}

/// Sends something to a port here, up to the end, and returns all that comes back.
async fn echo(port: u16, text: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut heard))
        .await
        .unwrap()
        .unwrap();
    heard
}

async fn is_closed(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_err()
}

#[tokio::test]
async fn a_published_port_answers_here_while_its_container_runs() {
    let scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port), ("udp", port)]);
    let ports = scene.until(|ports| ports.len() == 2).await;
    assert_eq!((ports[0].here, &*ports[0].inside), (Some(port), "80/tcp"));
    assert_eq!((ports[1].here, &*ports[1].inside), (None, "80/udp"));
    assert_eq!(ports[1].reason.as_deref(), Some("only TCP is forwarded"));
    // The client sends everything, and still reads the answer.
    assert_eq!(echo(port, "hello ").await, "hello the end");
    let large = "x".repeat(3_000_000);
    assert_eq!(echo(port, &large).await.len(), large.len() + "the end".len());
    // A connection that is idle for long stays open.
    let mut idle = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    idle.write_all(b"a").await.unwrap();
    idle.read_exact(&mut [0]).await.unwrap();
    sleep(Duration::from_millis(600)).await;
    idle.write_all(b"b").await.unwrap();
    idle.read_exact(&mut [0]).await.unwrap();
    assert!(!scene.running.is_finished());
    scene.engine.end(&id(1));
    scene.until(<[Port]>::is_empty).await;
    assert!(is_closed(port).await);
}

#[tokio::test]
async fn many_connections_come_and_go_and_leave_nothing() {
    let scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    scene.until(|ports| ports.len() == 1).await;
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    echo(port, "warm").await;
    let before = descriptors();
    for _ in 0..10 {
        let talks: Vec<_> = (0..30)
            .map(|number| tokio::spawn(echo(port, if number % 2 == 0 { "a" } else { "b" })))
            .collect();
        for talk in talks {
            talk.await.unwrap();
        }
        // A client that breaks off.
        drop(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while descriptors() > before + 3 || scene.status().await.streams > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} and {before}", descriptors());
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_label_alone_forwards_nothing_until_that_is_asked_for() {
    let scene = Scene::docked(Forward::Mine).await;
    let own = i32::try_from(std::process::id()).unwrap();
    let notice = scene.agent.notice_file(own);
    let [theirs, labelled, made] = [server().await, server().await, server().await];
    scene.engine.run(&id(1), Some("somebody else"), &[("tcp", theirs)]);
    scene.engine.run(&id(2), Some(&user()), &[("tcp", labelled)]);
    let through_us = scene.create().await;
    scene.engine.run(&through_us, None, &[("tcp", made)]);
    let ports = scene
        .until(|ports| ports.iter().any(|port| port.here.is_some()) && ports.len() == 2)
        .await;
    let stays = ports.iter().find(|port| port.port == labelled).unwrap();
    assert_eq!(stays.here, None, "{ports:#?}");
    assert_eq!(
        stays.reason.as_deref(),
        Some("it bears your name, and was not made from here")
    );
    assert!(
        stays.hint.as_ref().unwrap().contains("source dock far --forward"),
        "{ports:#?}"
    );
    assert!(is_closed(labelled).await && is_closed(theirs).await);
    assert_eq!(echo(made, "").await, "the end");
    // An opened port is announced at the prompt; and, once only, that a label alone forwards nothing.
    let said = fs::read_to_string(&notice).unwrap();
    assert!(
        said.contains(&format!("dock: 127.0.0.1:{made} is 80/tcp of web on far now\n")),
        "{said}"
    );
    assert_eq!(said.matches("that one only bears your name").count(), 1, "{said}");
    fs::write(&notice, "").unwrap();
    scene.engine.tell("rename", &id(2), Some(&user()));
    // Named by its number, for as long as the shell lives.
    let asked = vec![labelled.to_string()];
    let demand = ShellDemand {
        forward: Forward::Mine,
        named: asked,
        ..ShellDemand::default()
    };
    scene.agent.hold_with(own, demand).await.unwrap();
    scene
        .until(|ports| ports.iter().all(|port| port.here.is_some()) && ports.len() == 2)
        .await;
    assert_eq!(echo(labelled, "").await, "the end");
    let said = fs::read_to_string(&notice).unwrap();
    assert!(
        said.contains(&format!("127.0.0.1:{labelled} is 80/tcp")) && !said.contains("only bears"),
        "{said}"
    );
    scene.hold(Forward::Mine).await;
    scene.until(|ports| ports.iter().any(|port| port.here.is_none())).await;
    assert!(is_closed(labelled).await);

    scene.hold(Forward::Labelled).await;
    scene
        .until(|ports| ports.iter().all(|port| port.here.is_some()) && ports.len() == 2)
        .await;
    scene.hold(Forward::All).await;
    scene.until(|ports| ports.len() == 3).await;
    assert_eq!(echo(theirs, "").await, "the end");
    scene.hold(Forward::None).await;
    scene.until(<[Port]>::is_empty).await;
    assert!(is_closed(made).await && is_closed(theirs).await);
    assert_eq!(scene.status().await.forward, Forward::None);
}

#[tokio::test]
async fn what_is_not_true_any_more_is_not_said_at_a_later_prompt() {
    let scene = Scene::docked(Forward::Mine).await;
    let notice = scene.agent.notice_file(i32::try_from(std::process::id()).unwrap());
    let said = || fs::read_to_string(&notice).unwrap_or_default();
    let [first, second, labelled] = [server().await, server().await, server().await];
    let (one, other) = (scene.create().await, scene.create().await);
    scene.engine.run(&one, None, &[("tcp", first)]);
    scene.engine.run(&other, None, &[("tcp", second)]);
    scene.engine.run(&id(1), Some(&user()), &[("tcp", labelled)]);
    scene
        .until(|ports| ports.len() == 3 && ports.iter().filter(|port| port.here.is_some()).count() == 2)
        .await;
    let line = |port: u16, name: &str| format!("dock: 127.0.0.1:{port} is 80/tcp of {name} on far now\n");
    for part in [
        &line(first, "web"),
        &line(second, "web"),
        "that one only bears your name",
    ] {
        assert!(said().contains(part), "{part}: {}", said());
    }
    // Two containers that have ended, and one that was renamed.
    scene.engine.end(&one);
    scene.engine.end(&id(1));
    scene.engine.rename(&other, "shop");
    scene
        .until(|ports| ports.len() == 1 && ports.iter().all(|port| port.name == "shop"))
        .await;
    assert!(is_closed(first).await);
    assert_eq!(said(), line(second, "shop"));
    // What a prompt has shown is past.
    fs::write(&notice, "").unwrap();
    scene.engine.end(&other);
    scene.until(<[Port]>::is_empty).await;
    assert_eq!(said(), "");
    // Nobody has read of the label, so the next one is said.
    scene.engine.run(&id(2), Some(&user()), &[("tcp", first)]);
    scene.until(|ports| ports.len() == 1).await;
    assert_eq!(said().matches("that one only bears your name").count(), 1, "{}", said());
}

#[tokio::test]
async fn what_is_not_tcp_is_said_once_of_each_container_that_it_stays_there() {
    let scene = Scene::docked(Forward::Mine).await;
    let notice = scene.agent.notice_file(i32::try_from(std::process::id()).unwrap());
    let line = "dock: 80/udp of web stays on far: only TCP is forwarded\n";
    let said = || fs::read_to_string(&notice).unwrap_or_default().matches(line).count();
    // Keeps the link, which is dropped where nothing needs it.
    let kept = scene.create().await;
    scene.engine.run(&kept, None, &[("tcp", server().await)]);
    scene.until(|ports| ports.len() == 1).await;
    let (one, other) = (scene.create().await, scene.create().await);
    // Nobody reads of the first before it ends.
    scene.engine.run(&one, None, &[("udp", 5353)]);
    scene.until(|ports| ports.len() == 2).await;
    assert_eq!(said(), 1);
    scene.engine.end(&one);
    scene.until(|ports| ports.len() == 1).await;
    assert_eq!(said(), 0);
    scene.engine.run(&one, None, &[("udp", 5353)]);
    scene.until(|ports| ports.len() == 2).await;
    assert_eq!(said(), 1);
    // A prompt has shown it: not again when it restarts, but of the next container.
    fs::write(&notice, "").unwrap();
    scene.engine.end(&one);
    scene.until(|ports| ports.len() == 1).await;
    scene.engine.run(&one, None, &[("udp", 5353)]);
    scene.until(|ports| ports.len() == 2).await;
    assert_eq!(said(), 0);
    scene.engine.run(&other, None, &[("udp", 5354)]);
    scene.until(|ports| ports.len() == 3).await;
    assert_eq!(said(), 1);
}

#[tokio::test]
async fn any_number_of_ports_with_names_of_any_length_makes_no_status_too_long() {
    let scene = Scene::docked(Forward::Mine).await;
    let port = server().await;
    let through_us = scene.create().await;
    scene.engine.run(&through_us, None, &[("tcp", port)]);
    for number in 0..300 {
        let ports: Vec<Value> = (1..10_u16)
            .map(|port| json!({ "IP": THERE, "PrivatePort": port, "PublicPort": 20_000 + port, "Type": "tcp" }))
            .collect();
        let container = json!({ "Id": id(number), "Created": 0, "Names": [format!("/{}", "\u{1}".repeat(2000))],
            "Labels": { "io.dockerutils.user": user() }, "Ports": ports });
        scene.engine.containers.lock().unwrap().push(container);
    }
    scene.engine.tell("start", &through_us, None);
    scene
        .until(|ports| ports.len() > 5 && ports[0].here == Some(port))
        .await;
    assert!(scene.status().await.more_ports > 100);
}

#[tokio::test]
async fn an_engine_that_is_only_looked_at_has_no_ports_here() {
    let scene = Scene::new(Forward::Labelled);
    let port = server().await;
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    scene.agent.connect(&CallOptions::impatient().briefly()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    assert!(scene.ports().await.is_empty() && is_closed(port).await);
    assert_eq!(scene.engine.listed.load(Ordering::SeqCst), 0);
    // A command of the user's is more than a brief call.
    scene.create().await;
    scene.until(|ports| ports.len() == 1).await;
}

#[tokio::test]
async fn a_port_that_is_taken_here_gets_the_next_free_one() {
    let scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    let taken = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    let ports = scene.until(|ports| ports.len() == 1).await;
    let here = ports[0].here.unwrap();
    assert!(here > port && here < port + 100, "{ports:?}");
    let own = format!("{port} is taken here by {}/", std::process::id());
    assert!(ports[0].reason.as_ref().unwrap().starts_with(&own), "{ports:?}");
    assert_eq!(echo(here, "x").await, "xthe end");
    // The port keeps its number here, and gets its own one when it starts anew.
    drop(taken);
    scene.engine.tell("rename", &id(1), None);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.ports().await[0].here, Some(here));
    scene.engine.end(&id(1));
    scene.until(<[Port]>::is_empty).await;
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    assert_eq!(scene.until(|ports| ports.len() == 1).await[0].here, Some(port));
}

#[tokio::test]
async fn a_port_that_another_dock_s_container_has_is_said_to_be_its() {
    let scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    let first = scene.until(|ports| ports.len() == 1).await;
    let (here, name) = (first[0].here.unwrap(), first[0].name.clone());
    // The file that its supervisor would have written.
    let entry = serde_json::to_vec(scene.agent.dock()).unwrap();
    fs::write(scene.paths.dock_file(), entry).unwrap();
    let path = scene.directory.path().to_str().unwrap();
    let env = Env::from_pairs([
        ("XDG_RUNTIME_DIR", path),
        ("XDG_STATE_HOME", path),
        ("HOME", "/nowhere"),
        ("PATH", ""),
    ]);
    let near = DockEntry {
        moniker: "near".into(),
        forward: Forward::Labelled,
        ..scene.agent.dock().clone()
    };
    let paths = AgentPaths::of(&near, &env).unwrap();
    let socket = scene.directory.path().join("near.sock");
    let engine = Engine::start(&socket);
    let (service, running) = serve(&near, &paths, &Arc::new(Dock::new(socket)));
    let agent = Agent::of(&near, &env).unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    agent.hold(own, Forward::Labelled).await.unwrap();
    agent.connect(&PATIENT).await.unwrap();
    engine.run(&id(2), Some(&user()), &[("tcp", here)]);
    let found = timeout(Duration::from_secs(20), async {
        loop {
            if let Some(status) = agent.status(false).await.unwrap()
                && let [found] = status.ports.as_slice()
            {
                return found.clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    let found = found.await.unwrap();
    assert_eq!(
        found.reason,
        Some(format!("{here} is taken here by {name} of dock far"))
    );
    service.stop();
    running.await.unwrap();
}

#[tokio::test]
async fn somebody_on_ipv6_alone_has_the_port_too() {
    let scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    let Ok(_taken) = TcpListener::bind(("::1", port)).await else {
        panic!("this machine has no IPv6 loopback address");
    };
    scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
    let ports = scene.until(|ports| ports.len() == 1).await;
    assert_ne!(ports[0].here, Some(port));
    assert!(TcpStream::connect(("::1", ports[0].here.unwrap())).await.is_ok());
}

#[tokio::test]
async fn a_container_that_restarts_has_its_port_again_or_another_one() {
    let scene = Scene::docked(Forward::Labelled).await;
    let [one, other] = [server().await, server().await];
    for port in [one, one, other, one] {
        scene.engine.run(&id(1), Some(&user()), &[("tcp", port)]);
        let ports = scene.until(|ports| ports.len() == 1 && ports[0].port == port).await;
        assert_eq!(ports[0].here, Some(port), "{}", scene.log());
        assert_eq!(echo(port, "").await, "the end");
        // The container's end and its next start come at once.
        scene.engine.end(&id(1));
    }
    scene.until(<[Port]>::is_empty).await;
}

#[tokio::test]
async fn a_link_that_was_cut_brings_back_what_runs_by_then() {
    let scene = Scene::docked(Forward::Labelled).await;
    let [stays, ends, comes] = [server().await, server().await, server().await];
    for (number, port) in [(1, stays), (2, ends)] {
        scene.engine.run(&id(number), Some(&user()), &[("tcp", port)]);
    }
    scene.until(|ports| ports.len() == 2).await;
    let mut open = TcpStream::connect(("127.0.0.1", stays)).await.unwrap();
    open.write_all(b"a").await.unwrap();
    open.read_exact(&mut [0]).await.unwrap();
    scene.dock.set_reachable(false);
    scene.dock.cut();
    // The connection breaks, instead of ending as if complete.
    let broken = timeout(Duration::from_secs(10), open.read(&mut [0])).await.unwrap();
    assert_eq!(broken.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    scene.engine.end(&id(2));
    scene.engine.run(&id(3), Some(&user()), &[("tcp", comes)]);
    // A client that connects meanwhile waits.
    let waiting = tokio::spawn(echo(stays, "patient "));
    sleep(Duration::from_millis(300)).await;
    scene.dock.set_reachable(true);
    assert_eq!(waiting.await.unwrap(), "patient the end");
    let ports = scene
        .until(|ports| ports.iter().any(|port| port.here == Some(comes)))
        .await;
    assert_eq!(ports.len(), 2, "{ports:?}");
    assert!(is_closed(ends).await);
}

#[tokio::test]
async fn a_dock_that_forbids_forwarding_is_said_once_with_what_helps() {
    let scene = Scene::docked(Forward::Labelled).await;
    scene.dock.forwards.store(false, Ordering::SeqCst);
    let port = server().await;
    for number in 0..3 {
        scene.engine.run(&id(number), Some(&user()), &[("tcp", port)]);
    }
    let ports = scene.until(|ports| ports.len() == 3).await;
    assert_eq!(ports[0].here, None);
    assert_eq!(ports[0].reason.as_deref(), Some("sshd forbids forwarding"));
    assert_eq!(ports[0].hint.as_deref(), Some("AllowTcpForwarding yes"));
    assert!(is_closed(port).await);
    assert_eq!(
        scene.log().matches("AllowTcpForwarding yes").count(),
        1,
        "{}",
        scene.log()
    );
}

#[tokio::test]
async fn it_lives_for_a_container_of_its_user_and_no_longer() {
    let scene = Scene::new(Forward::All);
    let [own, theirs] = [server().await, server().await];
    let id = scene.create().await;
    scene.engine.run(&id, None, &[("tcp", own)]);
    scene
        .engine
        .run(&self::id(1), Some("somebody else"), &[("tcp", theirs)]);
    scene.until(|ports| ports.len() == 2).await;
    // Much longer than the agent lives without use, or keeps a link.
    sleep(Duration::from_millis(1200)).await;
    assert_eq!(echo(own, "").await, "the end");
    scene.engine.end(&id);
    let ending = timeout(Duration::from_secs(10), scene.running).await.unwrap().unwrap();
    assert_eq!(ending, ShutdownReason::Idle);
    assert!(is_closed(theirs).await);
}

#[tokio::test]
async fn the_next_agent_knows_what_was_made_through_the_last_one() {
    let mut scene = Scene::docked(Forward::Labelled).await;
    let port = server().await;
    let id = scene.create().await;
    scene.engine.run(&id, None, &[("tcp", port)]);
    scene.until(|ports| ports.len() == 1).await;
    let file = scene.paths.made_file();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !fs::read_to_string(&file).is_ok_and(|text| text.contains(&id)) {
        assert!(tokio::time::Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(file.starts_with(scene.directory.path()));
    // The ports of an agent that dies are closed by the system.
    scene.running.abort();
    scene.service.stop();
    let _ = scene.running.await;
    // A shell holds the next one, which makes the link unasked.
    let entry = scene.agent.dock().clone();
    (scene.service, scene.running) = serve(&entry, &scene.paths, &scene.dock);
    let ports = scene.until(|ports| ports.len() == 1).await;
    assert_eq!(ports[0].container, id);
    scene.engine.tell("destroy", &id, None);
    while fs::read_to_string(&file).unwrap().contains(&id) {
        assert!(tokio::time::Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
}
