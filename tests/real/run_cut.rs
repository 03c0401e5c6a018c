//! A container in the foreground of `run-image` whose link is cut, or whose run-image is killed: it goes on, it is said where,
//! and `run-image --attach` goes back to it.

use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::{Invocation, Outcome, Sandbox, SlowLink, wait};
use dockerutils_tests::dock_home::DockHome;
use rustix::process::Signal;
use serde_json::Value;

use crate::ports;

/// What the link takes.
const DELAY: Duration = Duration::from_millis(10);
/// Nothing is built: the section names an image that the lab's engines have.
const CONFIG: &str = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\n";
/// Says something, waits to be told to go on, says more, waits, and ends with 7.
const SCRIPT: &str = "sh -c 'echo one; printf pa; until test -e /go; do sleep 0.05; done; echo rt; echo two; echo three >&2; until test -e /end; \
                      do sleep 0.05; done; echo four; exit 7'";

/// A project and a dock behind a link that can be cut.
struct Site {
    home: DockHome,
    engine: LabEngine,
    link: SlowLink,
    user: &'static str,
}

impl Site {
    fn new(user: &'static str) -> Self {
        // The dock keeps the workspace of an earlier time, which is another checkout's.
        let home = DockHome::of(Sandbox::named(&format!("{user}-{}", std::process::id())));
        let engine = lab::engine("26").unwrap();
        home.use_key(&engine.ssh().unwrap().key, "");
        let link = home.register_behind_a_link(&engine, DELAY);
        home.sandbox().write("docker/dockerutils.cfg", CONFIG);
        let site = Self {
            home,
            engine,
            link,
            user,
        };
        // A test that failed before may have left some.
        site.remove_containers();
        site
    }

    fn run_image(&self, words: &[&str]) -> Invocation<'_> {
        self.home
            .program("run-image")
            .args(words)
            .args(["--dock", "far"])
            .env("LOGNAME", self.user)
            .limit(Duration::from_secs(90))
    }

    fn docker(&self, words: &[&str]) -> String {
        capture_text(self.engine.docker().args(words)).unwrap()
    }

    fn containers(&self) -> Vec<String> {
        let label = format!("label=io.dockerutils.user={}", self.user);
        let names = self.docker(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// The only container, once it is there.
    fn container(&self) -> String {
        wait::found("a container", || self.containers().pop())
    }

    fn says(&self, name: &str, what: &str) {
        wait::until(format_args!("{name} says {what}"), || {
            let logs = self.engine.docker().args(["logs", name]).output().unwrap();
            String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()).contains(what)
        });
    }

    fn tell(&self, name: &str, file: &str) {
        self.docker(&["exec", name, "touch", file]);
    }

    fn remove_containers(&self) {
        for name in self.containers() {
            // `--rm` may have been quicker.
            let _ = capture_text(self.engine.docker().args(["rm", "--force", &name]));
        }
    }

    /// Runs the script with these options, and cuts its link behind its first line: the container's name, and how run-image ended.
    fn cut_off(&self, options: &[&str]) -> (String, Outcome) {
        let words = [&["box"], options, &["-c", SCRIPT]].concat();
        let running = self.run_image(&words).spawn();
        let name = self.container();
        self.says(&name, "one");
        self.link.drop_connections();
        (name, running.wait())
    }

    fn nothing_stays(&self) {
        wait::until("all containers have gone", || self.containers().is_empty());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.remove_containers();
    }
}

#[test]
fn a_cut_link_leaves_the_container_and_one_goes_back_to_it() {
    let site = Site::new("cut-pipe");
    let (name, outcome) = site.cut_off(&[]);
    assert_eq!(outcome.code, 75, "{outcome}");
    for part in [
        format!("run-image: the connection to container {name} on dock \"far\" was lost: it goes on there"),
        format!("hint: run-image --attach {name} --dock far"),
        format!("docker rm -f {name}"),
    ] {
        assert!(outcome.stderr.contains(&part), "{part}: {outcome}");
    }
    for inside in ["chunk size", "unexpected EOF", "unix://", "hyper", "tonic"] {
        let shown = outcome.stderr.lines().filter(|line| !line.contains("docker r"));
        assert!(
            !shown.into_iter().any(|line| line.contains(inside)),
            "{inside}: {outcome}"
        );
    }
    assert_eq!(site.containers(), std::slice::from_ref(&name));

    site.tell(&name, "/go");
    let running = site.run_image(&["--attach"]).spawn();
    site.says(&name, "three");
    // It is back when it shows that: a container that has ended before is gone.
    running.wait_for_stderr("three");
    site.tell(&name, "/end");
    let again = running.wait();
    assert_eq!(again.code, 7, "{again}");
    // How much came before the cut depends on the moment.
    let whole = format!("{}{}", outcome.stdout, again.stdout);
    assert_eq!(whole, "one\npart\ntwo\nfour\n", "{outcome}{again}");
    assert!(again.stderr.contains("three\n"), "{again}");
    site.nothing_stays();
    site.run_image(&["--attach"])
        .code(125)
        .stderr_has("no run-image of this project was cut off")
        .run();
}

#[test]
fn what_ended_while_the_link_was_down_is_said() {
    let site = Site::new("cut-ended");
    let (name, outcome) = site.cut_off(&[]);
    assert_eq!(outcome.code, 75);
    site.tell(&name, "/go");
    site.tell(&name, "/end");
    site.nothing_stays();
    site.run_image(&["--attach"])
        .code(125)
        .stderr_has(&format!(
            "container {name} has ended meanwhile, and the engine of dock \"far\" has removed it"
        ))
        .run();

    // One that the engine keeps shows all, and its code.
    let (name, outcome) = site.cut_off(&["-a", "--rm=false"]);
    assert_eq!(outcome.code, 75);
    site.tell(&name, "/go");
    site.tell(&name, "/end");
    wait::until("it has ended", || {
        site.docker(&["inspect", "--format", "{{.State.Running}}", &name]) == "false"
    });
    let again = site.run_image(&["--attach", &name]).spawn().wait();
    assert_eq!(
        (again.code, again.stdout.ends_with("two\nfour\n")),
        (7, true),
        "{again}"
    );
}

#[test]
fn at_a_terminal_one_goes_back_to_the_same_shell() {
    let site = Site::new("cut-tty");
    let mut terminal = site.run_image(&["box", "-c", "sh"]).at_terminal();
    terminal.expect("/ # ");
    terminal.type_in("mark=$((6 * 7)); echo is=$mark\r");
    terminal.expect("is=42");
    let name = site.container();
    site.link.drop_connections();
    terminal.expect("it goes on there");
    assert_eq!(terminal.end().0, Some(75));

    let mut terminal = site.run_image(&["--attach", &name]).at_terminal();
    terminal.expect("back at container");
    terminal.type_in("\r");
    terminal.expect("/ # ");
    terminal.type_in("echo still=$mark\r");
    terminal.expect("still=42");
    terminal.type_in("exit 9\r");
    assert_eq!(terminal.end().0, Some(9));
    site.nothing_stays();
}

#[test]
fn a_closed_terminal_and_a_signal_end_it_after_one_came_back_too() {
    let site = Site::new("cut-end");
    for closes in [true, false] {
        let mut terminal = site.run_image(&["box", "-c", "sh"]).at_terminal();
        terminal.expect("/ # ");
        site.link.drop_connections();
        terminal.expect("it goes on there");
        assert_eq!(terminal.end().0, Some(75));
        let mut terminal = site.run_image(&["--attach"]).at_terminal();
        terminal.expect("back at container");
        terminal.type_in("\r");
        terminal.expect("/ # ");
        if closes {
            assert_eq!(terminal.close(), Some(129));
        } else {
            // A shell heeds no SIGTERM; who insists is heeded by us.
            for _ in 0..3 {
                terminal.signal(Signal::TERM);
                std::thread::sleep(Duration::from_millis(300));
            }
            assert!(matches!(terminal.end().0, Some(130 | 143)));
        }
        site.nothing_stays();
    }
}

#[test]
fn its_ports_answer_here_when_one_came_back_and_ctrl_c_ends_it() {
    let site = Site::new("cut-ports");
    let port = ports::free_port();
    let sandbox = site.home.sandbox();
    sandbox.write("docker/dockerutils.cfg", format!("{CONFIG}ports = -p {port}:80\n"));
    // A process that has no handler hears no signal as number one.
    let serve = "sh -c 'trap \"echo heard; exit 5\" INT; echo ready; nc -ll -p 80 -e echo hello & \
                 until test -e /go; do sleep 0.05; done; echo going; wait; wait'";
    let mut terminal = site.run_image(&["box", "-c", serve]).at_terminal();
    terminal.expect("ready");
    ports::answers(port);
    let name = site.container();
    site.link.drop_connections();
    terminal.expect("it goes on there");
    assert_eq!(terminal.end().0, Some(75));

    let mut terminal = site.run_image(&["--attach"]).at_terminal();
    terminal.expect(&format!("back at container {name}"));
    terminal.expect(&format!("80/tcp is at http://127.0.0.1:{port}"));
    ports::answers(port);
    site.tell(&name, "/go");
    terminal.expect("going");
    terminal.type_in("\x03");
    terminal.expect("heard");
    assert_eq!(terminal.end().0, Some(5));
    site.nothing_stays();
    wait::until("the port is closed", || ports::is_closed(port));
}

#[test]
fn without_a_terminal_an_interrupt_reaches_it_after_one_came_back() {
    let site = Site::new("cut-interrupt");
    let script = "sh -c 'trap \"echo heard; exit 5\" INT; echo one; until test -e /go; do sleep 0.05; done; echo going; \
                  while :; do sleep 0.1; done'";
    let running = site.run_image(&["box", "-c", script]).spawn();
    let name = site.container();
    site.says(&name, "one");
    site.link.drop_connections();
    assert_eq!(running.wait().code, 75);
    let running = site
        .home
        .program("sh")
        .args(["-c", "exec run-image --attach --dock far > out"])
        .env("LOGNAME", site.user)
        .limit(Duration::from_secs(90))
        .spawn();
    site.tell(&name, "/go");
    let out = site.home.sandbox().project().join("out");
    let said = || std::fs::read_to_string(&out).unwrap_or_default();
    wait::until("it is back at the container", || said().contains("going\n"));
    running.interrupt();
    let outcome = running.wait();
    assert_eq!((outcome.code, said().ends_with("heard\n")), (5, true), "{outcome}");
    site.nothing_stays();
}

#[test]
fn a_container_whose_run_image_was_killed_is_said_by_the_next_command() {
    let site = Site::new("cut-killed");
    let running = site.run_image(&["box", "-a", "--rm=false", "-c", SCRIPT]).spawn();
    let name = site.container();
    site.says(&name, "one");
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, 137);
    assert_eq!(site.containers(), std::slice::from_ref(&name));
    let next = || site.run_image(&["box", "-q", "-c", "true"]).any_stderr().run();
    let warning = format!("warning: container {name} still runs on dock \"far\", and its run-image was killed");
    assert!(next().stderr.contains(&warning), "it is said");
    assert!(!next().stderr.contains("still runs"), "and once only");
    site.tell(&name, "/go");
    site.tell(&name, "/end");
    let again = site.run_image(&["--attach"]).spawn().wait();
    assert_eq!((again.code, &*again.stdout), (7, "one\npart\ntwo\nfour\n"), "{again}");
}

#[test]
fn what_it_made_is_brought_when_it_ends_after_one_came_back() {
    let site = Site::new("cut-watch");
    let sandbox = site.home.sandbox();
    sandbox.write(
        "docker/dockerutils.cfg",
        format!("{CONFIG}volumes = -v {{project_root}}/out:/out\n"),
    );
    sandbox.write("out/there", "");
    let script = "sh -c 'echo one; until test -e /go; do sleep 0.05; done; echo made > /out/result; exit 3'";
    let running = site
        .run_image(&["box", "--watch", "-a", "--rm=false", "-c", script])
        .spawn();
    let name = site.container();
    site.says(&name, "one");
    site.link.drop_connections();
    let outcome = running.wait();
    assert_eq!(outcome.code, 75, "{outcome}");
    site.tell(&name, "/go");
    let again = site.run_image(&["--attach"]).spawn().wait();
    assert_eq!(again.code, 3, "{again}");
    assert_eq!(sandbox.read("out/result"), "made\n", "{again}");
}

#[test]
fn the_death_of_both_agents_leaves_it_running_and_said() {
    let site = Site::new("cut-agents");
    let mut terminal = site.run_image(&["box", "-c", "sh"]).at_terminal();
    terminal.expect("/ # ");
    let name = site.container();
    let killed = site.home.bash(
        "for lock in \"$XDG_RUNTIME_DIR\"/dockerutils/*.lock; do pid=$(cat \"$lock\"); pkill -9 -P \"$pid\"; kill -9 \"$pid\"; done",
    );
    assert!(killed.code == 0, "{killed}");
    terminal.expect("it goes on there");
    assert_eq!(terminal.end().0, Some(75));
    assert_eq!(site.containers(), [name]);
}

#[test]
fn under_json_it_is_told_which_failure_it_was() {
    let site = Site::new("cut-json");
    let (name, outcome) = site.cut_off(&["--json"]);
    assert_eq!(outcome.code, 75, "{outcome}");
    let line = outcome.stderr.lines().find(|line| line.starts_with('{')).unwrap();
    let error: Value = serde_json::from_str(line).unwrap();
    assert_eq!(error["kind"], "connection_lost", "{error}");
    assert_eq!(error["container"], name.as_str(), "{error}");
    assert_eq!(error["state"], "running", "{error}");
    assert_eq!(error["dock"], "far", "{error}");
}

#[test]
fn dockers_own_client_leaves_it_running_by_the_same_fault() {
    let site = Site::new("cut-docker");
    let script = format!(
        "source dock far; docker run --rm -i --label io.dockerutils.user={} dockerutils-lab-base:1 {SCRIPT} </dev/null; echo code=$?; castoff",
        site.user
    );
    let running = site.home.program("bash").args(["-c", &script]).spawn();
    let name = site.container();
    site.says(&name, "one");
    site.link.drop_connections();
    let outcome = running.wait();
    assert!(!outcome.stdout.contains("code=0"), "{outcome}");
    assert_eq!(site.containers(), [name]);
}
