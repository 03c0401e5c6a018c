//! Ports of this machine that a docked shell exposes to the containers on its dock: `source dock NAME --expose PORT`.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, Sshd};
use dockerutils_test_support::{Invocation, Outcome, SlowLink, machine, wait};
use dockerutils_tests::dock_home::DockHome;
use serde_json::{Value, json};

/// What sshd's configuration must say.
const ALLOWED: &str = "GatewayPorts clientspecified";
const IMAGE: &str = lab::BASE_IMAGE;
/// Kills the supervisor and the worker of the shell's dock.
const KILL: &str = "lock=$(cat \"$(dirname \"${DOCKER_HOST#unix://}\")\"/*.lock)\nworker=$(cat /proc/$lock/task/*/children)\n\
                    kill -9 $worker";

/// A server on this machine's loopback, which says something to whoever connects.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(says: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.unwrap().write_all(says.as_bytes());
            }
        });
        Self { port, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A home with the dock `far`, whose sshd has lines of its own; what the test makes there is gone at the end.
struct Bench {
    home: DockHome,
    engine: LabEngine,
    sshd: Sshd,
    /// Names what this test makes.
    mark: String,
}

impl Bench {
    fn new(engine: &str, test: &str, lines: &[&str]) -> Self {
        let bench = Self::unregistered(engine, test, lines);
        bench.register(bench.sshd.ssh().address);
        bench
    }

    fn unregistered(engine: &str, test: &str, lines: &[&str]) -> Self {
        let engine = lab::engine(engine).unwrap();
        Self {
            home: DockHome::new(),
            sshd: engine.sshd(lines).unwrap(),
            engine,
            mark: format!("exposed-{test}-{}", std::process::id()),
        }
    }

    fn register(&self, address: SocketAddr) {
        self.home.use_key(&self.sshd.ssh().key, "");
        let register = self.home.registration(self.sshd.ssh(), address, "ann", "far");
        self.as_itself(register).run();
    }

    fn as_itself<'a>(&self, invocation: Invocation<'a>) -> Invocation<'a> {
        invocation
            .env("USER", &self.mark)
            .env("LOGNAME", &self.mark)
            .env("MARK", &self.mark)
            .env("IMAGE", IMAGE)
    }

    fn shell(&self, shell: &str, script: &str) -> Invocation<'_> {
        let words: &[&str] = match shell {
            "bash" => &["--norc", "--noprofile", "-c"],
            "zsh" => &["-f", "-c"],
            _ => &["--no-config", "-c"],
        };
        let invocation = self.home.program(shell).args(words).args([script]);
        self.as_itself(invocation).limit(Duration::from_secs(180))
    }

    fn bash(&self, script: &str) -> Outcome {
        self.shell("bash", script).spawn().wait()
    }

    /// What a container on the dock reads from this machine's port, whoever made it.
    fn read_there(&self, port: u16) -> String {
        let output = self
            .engine
            .docker()
            .args(["run", "--rm", "--add-host", "host.docker.internal:host-gateway", IMAGE])
            .args(["nc", "-w", "10", "host.docker.internal", &port.to_string()])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn until_closed(&self, port: u16) {
        wait::until(format!("{port} is closed on the dock"), || {
            self.read_there(port).is_empty()
        });
    }

    fn exposed(&self) -> Vec<Value> {
        let listed = self.home.program("ls-dock").args(["--ports", "--json"]);
        let listed = listed.any_stderr().any_stdout().run().json();
        let rows = listed.as_array().unwrap().iter();
        rows.filter_map(|row| row.get("exposed").cloned()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Agents outlive commands, and would outlive this home.
        self.home.program("unregister-dock").arg("far").spawn().wait();
        let listed = self
            .engine
            .docker()
            .args(["ps", "-aq", "--filter", &format!("name={}", self.mark)])
            .output();
        for id in String::from_utf8_lossy(&listed.unwrap().stdout).lines() {
            let _ = self.engine.docker().args(["rm", "-f", id]).output();
        }
    }
}

#[test]
fn a_container_reads_from_a_server_here_and_only_from_the_port_that_was_exposed() {
    for engine in ["20", "26", "28-containerd"] {
        let bench = Bench::new(engine, "reads", &[ALLOWED]);
        let (exposed, other) = (Server::start("from here\n"), Server::start("never\n"));
        let script = format!(
            "source dock far --expose {port} || exit 9\n\
             docker run --rm $IMAGE nc -w 10 host.docker.internal {port}\n\
             docker run --rm $IMAGE nc -w 10 host.docker.internal {other} && echo OTHER\n\
             docker run --rm --network host $IMAGE nc -w 10 host.docker.internal {port}\n\
             docker run --rm --add-host host.docker.internal:127.0.0.1 $IMAGE grep host.docker /etc/hosts\n\
             docker run -d --name $MARK $IMAGE sleep 300 >/dev/null\n\
             docker run --rm --network container:$MARK $IMAGE nc -w 10 host.docker.internal {port}\n\
             docker rm -f $MARK >/dev/null\nls-dock --ports\ncastoff\nls-dock --ports --json",
            port = exposed.port,
            other = other.port
        );
        let said = bench.bash(&script);
        let port = exposed.port;
        assert!(
            said.stderr.contains(&format!(
                "port {port} of this machine is host.docker.internal:{port} in containers on far\n"
            )),
            "{engine} {said}"
        );
        assert_eq!(said.stdout.matches("from here\n").count(), 3, "{engine} {said}");
        assert_eq!(other.connections(), 0, "{engine} {said}");
        assert!(
            !said.stdout.contains("OTHER") && !said.stdout.contains("never"),
            "{engine} {said}"
        );
        assert!(
            said.stdout.contains("127.0.0.1\thost.docker.internal\n"),
            "{engine} {said}"
        );
        let row = format!("far   localhost:{port}  host.docker.internal:{port}");
        assert!(said.stdout.contains(&row), "{engine} {said}");
        assert!(said.stdout.ends_with("[]\n"), "{engine} {said}");
        bench.until_closed(port);
        // Without it, nothing is added to what clients say.
        let plain = bench.bash("source dock far\ndocker run --rm $IMAGE grep -c host.docker /etc/hosts");
        assert!(plain.stdout.contains("0\n"), "{engine} {plain}");
    }
}

#[test]
fn it_is_closed_when_the_last_shell_that_wants_it_leaves_however_that_ends() {
    let bench = Bench::new("26", "leaves", &[ALLOWED]);
    let server = Server::start("from here\n");
    let stay = format!(
        "source dock far --expose {} || exit 9\necho docked >&2\nuntil [ -e go-$0 ]; do sleep 0.05; done",
        server.port
    );
    let start = |name: &str| {
        let words = ["--norc", "--noprofile", "-c", &stay, name];
        let shell = bench.as_itself(bench.home.program("bash").args(words));
        let running = shell.limit(Duration::from_secs(180)).spawn();
        running.wait_for_stderr("docked\n");
        running
    };
    let (first, second) = (start("first"), start("second"));
    assert_eq!(bench.read_there(server.port), "from here\n");
    bench.home.sandbox().write("go-first", "");
    assert_eq!(first.wait().code, 0);
    // One still wants it.
    assert_eq!(bench.read_there(server.port), "from here\n");
    second.signal(rustix::process::Signal::KILL);
    second.wait();
    bench.until_closed(server.port);
    assert_eq!(bench.exposed(), [json!(null); 0]);
}

#[test]
fn it_comes_back_with_the_link_and_with_a_worker_that_was_killed() {
    let bench = Bench::unregistered("26", "back", &[ALLOWED]);
    let cable = SlowLink::start(bench.sshd.ssh().address, Duration::ZERO, None).unwrap();
    bench.register(cable.address());
    let server = Server::start("from here\n");
    let script = format!(
        "source dock far --expose {} || exit 9\necho docked >&2\nuntil [ -e kill ]; do sleep 0.05; done\n{KILL}\necho killed >&2\n\
         until [ -e go ]; do sleep 0.05; done\ncat \"$_DOCK_NOTICE\" 2>/dev/null || true",
        server.port
    );
    let shell = bench.shell("bash", &script).any_stderr().spawn();
    shell.wait_for_stderr("docked\n");
    assert_eq!(bench.read_there(server.port), "from here\n");
    cable.drop_connections();
    wait::until("the link came back", || bench.read_there(server.port) == "from here\n");
    bench.home.sandbox().write("kill", "");
    shell.wait_for_stderr("killed\n");
    wait::until("the worker came back", || {
        bench.read_there(server.port) == "from here\n"
    });
    let row = bench.exposed();
    assert_eq!(row[0]["port"], server.port, "{row:?}");
    assert!(row[0]["address"].as_str().unwrap().starts_with("172."), "{row:?}");
    bench.home.sandbox().write("go", "");
    let said = shell.wait();
    // Nothing was to be said: it is as it was.
    assert_eq!((said.code, &*said.stdout), (0, ""), "{said}");
    bench.until_closed(server.port);
}

#[test]
fn where_the_dock_forbids_it_the_shell_is_docked_and_told_what_to_change() {
    for (lines, part) in [
        (&[][..], "listens only at the dock's own 127.0.0.1"),
        (&["GatewayPorts yes"][..], "at all addresses of the dock"),
        (&[ALLOWED, "AllowTcpForwarding no"][..], "its configuration forbids it"),
    ] {
        let bench = Bench::new("26", "forbids", lines);
        let server = Server::start("never\n");
        let port = server.port;
        let said = bench.bash(&format!(
            "source dock far --expose {port} || exit 9\ndocker run --rm $IMAGE cat /etc/hosts\nls-dock --ports"
        ));
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stderr.contains("docked to far"), "{said}");
        for part in [
            &*format!("port {port} of this machine is not exposed to containers on far: sshd of ann@"),
            part,
            "put `AllowTcpForwarding yes` and `GatewayPorts clientspecified` into /etc/ssh/sshd_config",
            "systemctl reload ssh",
        ] {
            assert!(said.stderr.contains(part), "{lines:?} {part} {said}");
        }
        assert!(!said.stdout.contains("host.docker.internal"), "{lines:?} {said}");
        assert!(
            said.stdout.contains(&format!("far   localhost:{port}  -")),
            "{lines:?} {said}"
        );
        assert_eq!(
            (bench.read_there(port).as_str(), server.connections()),
            ("", 0),
            "{lines:?}"
        );
    }
}

#[test]
fn a_port_of_the_system_and_one_that_is_taken_there_are_refused() {
    let bench = Bench::new("26", "refused", &[ALLOWED]);
    for port in ["0", "22", "1023"] {
        let said = bench.bash(&format!(
            "source dock far --expose {port}; echo $?; echo \"${{DOCKER_HOST-none}}\""
        ));
        assert_eq!(said.stdout, "2\nnone\n", "{said}");
        assert!(
            said.stderr
                .contains(&format!("port {port} of this machine is not exposed")),
            "{said}"
        );
    }
    let server = Server::start("from here\n");
    let said = bench.bash(&format!(
        "source dock far\ndocker run -d --name $MARK -p 0.0.0.0:{port}:80 $IMAGE nc -ll -p 80 -e echo there >/dev/null\ncastoff\n\
         source dock far --expose {port}\ndocker rm -f $MARK >/dev/null\n\
         until docker run --rm $IMAGE nc -w 10 host.docker.internal {port} 2>/dev/null; do sleep 0.2; done\n\
         until grep -q host.docker \"$_DOCK_NOTICE\" 2>/dev/null; do sleep 0.1; done\ncat \"$_DOCK_NOTICE\"",
        port = server.port
    ));
    assert!(
        said.stderr.contains(&format!(":{} is taken on ann@", server.port)),
        "{said}"
    );
    assert!(said.stdout.contains("from here\n"), "{said}");
    let news = format!(
        "dock: port {0} of this machine is host.docker.internal:{0} in containers on far now\n",
        server.port
    );
    assert!(said.stdout.contains(&news), "{said}");
}

#[test]
fn every_shell_exposes_and_castoff_takes_it_back() {
    for (shell, dock) in [("zsh", "source dock far"), ("fish", "dock-env far --shell fish")] {
        machine::require(shell, &[shell], "testing the shell shims").unwrap();
        let bench = Bench::new("26", "shells", &[ALLOWED]);
        let server = Server::start("from here\n");
        let source = if shell == "fish" { " | source" } else { "" };
        let said = bench
            .shell(
                shell,
                &format!(
                    "{dock} --expose {port}{source}\ndocker run --rm $IMAGE nc -w 10 host.docker.internal {port}\ncastoff\n\
                     ls-dock --ports --json",
                    port = server.port
                ),
            )
            .spawn()
            .wait();
        assert_eq!(said.stdout, "from here\n[]\n", "{shell} {said}");
        bench.until_closed(server.port);
    }
}

#[test]
fn compose_finds_nothing_changed_in_a_service_that_got_the_name() {
    machine::require("docker-compose", &["docker-compose"], "testing compose on a dock").unwrap();
    let bench = Bench::new("28-containerd", "compose", &[ALLOWED]);
    let server = Server::start("from here\n");
    bench.home.sandbox().write(
        "docker-compose.yml",
        format!(
            "version: '3.4'\nservices:\n  web:\n    image: {IMAGE}\n    command: sh -c 'nc -w 10 host.docker.internal {}; sleep 300'\n    \
             stop_grace_period: 0s\n",
            server.port
        ),
    );
    let said = bench.bash(&format!(
        "source dock far --expose {}\nset -e\nexport COMPOSE_PROJECT_NAME=$MARK\ndocker-compose up -d\nfirst=$(docker-compose ps -q)\n\
         docker-compose up -d\n[ \"$first\" = \"$(docker-compose ps -q)\" ]\n\
         until docker-compose logs | grep -q 'from here'; do sleep 0.2; done\ncastoff\nsource dock far\ndocker-compose up -d\n\
         [ \"$first\" = \"$(docker-compose ps -q)\" ]\ndocker-compose down",
        server.port
    ));
    assert_eq!(said.code, 0, "{said}");
}
