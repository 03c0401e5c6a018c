//! `run-image` at a terminal and in pipes, on a real engine: a pseudo-terminal takes the part of the user's terminal.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::{Sandbox, Terminal, binary, wait};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};

/// Nothing is built: the section names an image that the lab's engines have.
const CONFIG: &str = "[box]\nname = dockerutils-lab-base\ntag = 1\nprefix = False\n";

/// A project on an engine. The user is the test's own, and so are its containers.
struct Site {
    engine: LabEngine,
    sandbox: Sandbox,
    user: &'static str,
}

impl Site {
    fn new(user: &'static str) -> Self {
        let site = Self {
            engine: lab::engine("20").unwrap(),
            sandbox: Sandbox::new().file("docker/dockerutils.cfg", CONFIG),
            user,
        };
        // A test that failed before may have left some.
        site.remove_containers();
        site
    }

    /// `run-image box -c COMMAND` with pipes.
    fn piped(&self, command: &str) -> Piped {
        let mut child = Command::new(binary("run-image"))
            .args(["box", "-q", "-c", command])
            .env_clear()
            .env("HOME", self.sandbox.home())
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LOGNAME", self.user)
            .env("DOCKER_HOST", &self.engine.host)
            .current_dir(self.sandbox.project())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Piped {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
        }
    }

    /// `run-image box -c COMMAND` at a terminal of 30 rows and 100 columns.
    fn terminal(&self, command: &str) -> Terminal {
        let run = self.sandbox.command("run-image").args(["box", "-q", "-c", command]);
        run.env("LOGNAME", self.user)
            .env("DOCKER_HOST", &self.engine.host)
            .at_terminal()
    }

    fn containers(&self) -> Vec<String> {
        let label = format!("label=io.dockerutils.user={}", self.user);
        let ids = capture_text(
            self.engine
                .docker()
                .args(["ps", "--all", "--quiet", "--filter", &label]),
        )
        .unwrap();
        ids.lines().map(str::to_owned).collect()
    }

    fn remove_containers(&self) {
        for id in self.containers() {
            // `--rm` may have been quicker.
            let _ = capture_text(self.engine.docker().args(["rm", "--force", &id]));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.remove_containers();
    }
}

/// A run with pipes.
struct Piped {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Piped {
    /// Writes all of it to stdin and closes that, reads stdout to its end; gives the code and stdout.
    fn talk(mut self, input: Vec<u8>) -> (Option<i32>, Vec<u8>) {
        let mut stdin = self.stdin.take().unwrap();
        let writing = thread::spawn(move || stdin.write_all(&input));
        let mut output = Vec::new();
        self.stdout.take().unwrap().read_to_end(&mut output).unwrap();
        let code = end(&mut self.child);
        let _ = writing.join().unwrap();
        (code, output)
    }

    /// Reads stdout until this line.
    fn wait_for(&mut self, line: &str) {
        let stdout = self.stdout.as_mut().unwrap();
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(line) {
            let mut byte = [0];
            assert_eq!(
                stdout.read(&mut byte).unwrap(),
                1,
                "{:?}",
                String::from_utf8_lossy(&read)
            );
            read.push(byte[0]);
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

fn end(child: &mut Child) -> Option<i32> {
    wait::found("run-image ends", || child.try_wait().unwrap()).code()
}

#[test]
fn a_shell_answers_and_its_code_is_passed_on() {
    let site = Site::new("pty-shell");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    terminal.type_in("echo $((6 * 7))\r");
    terminal.expect("\r\n42\r\n");
    // Its terminal is one.
    terminal.type_in("tty; test -t 0 -a -t 1 -a -t 2; echo is=$?\r");
    terminal.expect("is=0");
    terminal.type_in("exit 9\r");
    assert_eq!(terminal.end().0, Some(9));
    assert!(site.containers().is_empty());
}

#[test]
fn the_containers_terminal_has_the_size_of_ours() {
    let site = Site::new("pty-size");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    let until = |size: &str| format!("until stty size | grep '^{size}$'; do sleep 0.1; done; echo is=$?\r");
    terminal.type_in(&until("30 100"));
    terminal.expect("is=0");
    terminal.resize(41, 123);
    terminal.type_in(&until("41 123"));
    terminal.expect("is=0");
    terminal.type_in("exit\r");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn ctrl_c_goes_to_the_process_inside() {
    let site = Site::new("pty-ctrl-c");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    // What says so is what the signal is for.
    terminal.type_in("sh -c 'echo sleeping; exec sleep 1000'\r");
    terminal.expect("\r\nsleeping\r\n");
    terminal.type_in("\x03");
    terminal.expect("/ # ");
    terminal.type_in("echo code=$?\r");
    terminal.expect("code=130");
    terminal.type_in("\x04");
    assert_eq!(terminal.end().0, Some(0));
}

#[test]
fn ctrl_z_stops_the_process_inside_and_not_us() {
    let site = Site::new("pty-ctrl-z");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    // What says so is what the signal is for.
    terminal.type_in("sh -c 'echo sleeping; exec sleep 1000'\r");
    terminal.expect("\r\nsleeping\r\n");
    terminal.type_in("\x1a");
    terminal.expect("Stopped");
    terminal.type_in("jobs; kill %1; echo still here\r");
    terminal.expect("\r\nstill here\r\n");
    terminal.type_in("exit 5\r");
    // A shell with stopped jobs wants to be told twice.
    terminal.type_in("exit 5\r");
    assert_eq!(terminal.end().0, Some(5));
}

#[test]
fn the_detach_keys_leave_the_container_running() {
    let site = Site::new("pty-detach");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    terminal.type_in("\x10\x11");
    assert_eq!(terminal.end().0, Some(0));
    let [id] = &site.containers()[..] else {
        panic!("the container has gone");
    };
    let running = capture_text(
        site.engine
            .docker()
            .args(["inspect", "--format", "{{.State.Running}}", id]),
    )
    .unwrap();
    assert_eq!(running, "true");
}

#[test]
fn a_signal_that_ends_us_ends_the_container_and_mends_the_terminal() {
    let site = Site::new("pty-term");
    let mut terminal = site.terminal("sh -c 'echo ready; exec sleep 1000'");
    terminal.expect("ready");
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.end().0, Some(143));
    assert!(site.containers().is_empty());

    // One that goes on; who insists is heeded by us.
    let mut terminal = site.terminal("sh -c 'trap \"echo heard\" TERM; echo ready; while :; do sleep 0.1; done'");
    terminal.expect("ready");
    for _ in 0..2 {
        terminal.signal(Signal::TERM);
        terminal.expect("heard");
    }
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.end().0, Some(130));
    assert!(site.containers().is_empty());
}

#[test]
fn a_terminal_that_is_closed_takes_the_container_with_it() {
    let site = Site::new("pty-hangup");
    let mut terminal = site.terminal("sh");
    terminal.expect("/ # ");
    assert_eq!(terminal.close(), Some(129));
    assert!(site.containers().is_empty());

    // One that does not heed it has not long to live, unless the terminal is still there.
    let mut terminal = site.terminal("sh -c 'trap \"\" HUP; cat'");
    terminal.type_in("x\r");
    terminal.expect("x\r\nx");
    terminal.signal(Signal::HUP);
    // That nothing happens is told by no event.
    thread::sleep(Duration::from_secs(3));
    assert_eq!(site.containers().len(), 1, "a signal alone closes no terminal");
    assert_eq!(terminal.close(), Some(129));
    assert!(site.containers().is_empty());
}

#[test]
fn output_at_the_end_is_not_lost() {
    let site = Site::new("pty-output");
    let command = "sh -c 'yes 0123456789abcde | head -n 100000; exit 3'";
    let (code, screen) = site.terminal(command).end();
    // A terminal shows the end of a line by two characters.
    assert_eq!((code, screen.len()), (Some(3), 1_700_000));
    let (code, output) = site.piped(command).talk(Vec::new());
    assert_eq!((code, output.len()), (Some(3), 1_600_000));
}

#[test]
fn a_pipe_is_copied_and_its_end_passed_on() {
    let site = Site::new("pipe-cat");
    assert_eq!(site.piped("cat").talk(b"hi\n".to_vec()), (Some(0), b"hi\n".to_vec()));
    assert_eq!(site.piped("cat").talk(Vec::new()), (Some(0), Vec::new()));
    // The input may end long before the output.
    let (code, output) = site
        .piped("sh -c 'wc -c; sleep 1; echo late; exit 4'")
        .talk(vec![0; 100_000]);
    assert_eq!((code, output), (Some(4), b"100000\nlate\n".to_vec()));
    assert!(site.containers().is_empty());
}

#[test]
fn a_hundred_megabytes_arrive_whole() {
    let site = Site::new("pipe-large");
    // Numbers are no two pages alike.
    let input: Vec<u8> = (0..25_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = Sha256::digest(&input);
    let (code, output) = site.piped("cat").talk(input);
    assert_eq!((code, output.len()), (Some(0), 100_000_000));
    assert_eq!(Sha256::digest(&output), expected);
}

#[test]
fn without_a_terminal_an_interrupt_is_passed_to_the_container() {
    let site = Site::new("pipe-interrupt");
    let mut run = site.piped("sh -c 'trap \"echo caught; exit 5\" INT; echo ready; while :; do sleep 0.1; done'");
    run.wait_for("ready\n");
    send(&run.child, Signal::INT);
    run.wait_for("caught\n");
    assert_eq!(end(&mut run.child), Some(5));
    assert!(site.containers().is_empty());
}

#[test]
fn a_process_that_closes_its_output_is_waited_for_and_hears_signals() {
    let site = Site::new("pipe-closed");
    let (code, output) = site
        .piped("sh -c 'echo said; exec >&- 2>&-; sleep 2; exit 6'")
        .talk(Vec::new());
    assert_eq!((code, output), (Some(6), b"said\n".to_vec()));
    let mut run = site.piped("sh -c 'trap \"exit 7\" TERM; echo ready; exec >&- 2>&-; while :; do sleep 0.1; done'");
    run.wait_for("ready\n");
    thread::sleep(Duration::from_millis(500));
    send(&run.child, Signal::TERM);
    assert_eq!(end(&mut run.child), Some(7));
}

#[test]
fn a_reader_that_goes_away_ends_the_container() {
    let site = Site::new("pipe-head");
    let mut run = site.piped("sh -c 'while :; do echo line; done'");
    run.wait_for("line\n");
    drop(run.stdout.take());
    // As a shell shows a program that SIGPIPE ended.
    assert_eq!(end(&mut run.child), Some(141));
    // An engine that is busy may still be at it when run-image has waited long enough.
    wait::until("no container is left", || site.containers().is_empty());
}
