//! A temporary home and project, and our commands run in it.
//!
//! The harness fails the test by panicking, as `assert!` does: tests would only unwrap an error.
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::mutex::lock;
use crate::{ScriptedEngine, Terminal, wait};

/// How long a command may run, unless the test says otherwise: one that builds several images on a machine that is busy
/// takes more than a minute.
const LIMIT: Duration = Duration::from_secs(240);

/// The path of a program of this workspace, built by the same cargo run as the test itself.
///
/// # Panics
/// When it was not built: tests of the package `dockerutils-tests` need an earlier `cargo build --bins`.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    // target/debug/deps/cli-0123 -> target/debug/NAME
    let path = test
        .ancestors()
        .nth(2)
        .expect("a test lies in target/PROFILE/deps")
        .join(name);
    assert!(path.exists(), "{} was not built: cargo build --bins", path.display());
    path
}

/// A temporary directory with a home, a project and a place for temporary files, removed at the end of the test.
#[derive(Debug)]
pub struct Sandbox {
    directory: TempDir,
    project: PathBuf,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A sandbox whose project is called `sample`.
    pub fn new() -> Self {
        Self::named("sample")
    }

    /// A sandbox whose project's directory is called `name`.
    pub fn named(name: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("du")
            .tempdir()
            .expect("a temporary directory");
        // Commands print the canonical path; on macOS, /tmp is a link.
        let root = directory.path().canonicalize().expect("it was just made");
        for part in ["home", "tmp", "runtime", name] {
            fs::create_dir(root.join(part)).expect("an empty directory takes another");
        }
        // The XDG specification requires this mode, and careful programs check it.
        fs::set_permissions(root.join("runtime"), fs::Permissions::from_mode(0o700)).expect("it is ours");
        Self {
            project: root.join(name),
            directory,
        }
    }

    /// The project's directory, where commands run.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// The home directory that commands see.
    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// Writes `content` to the file `path`, relative to the project, and makes its directories.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    /// [`Sandbox::file`], executable.
    #[must_use]
    pub fn script(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let file = self.write(path, content);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("it was just written");
        self
    }

    /// Makes the directory `path`, relative to the project.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        fs::create_dir_all(self.project.join(path)).expect(path);
        self
    }

    /// Makes the symbolic link `path`, relative to the project, with this target.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        let link = self.project.join(path);
        fs::create_dir_all(link.parent().expect("a link lies in a directory")).expect(path);
        symlink(target, link).expect(path);
        self
    }

    /// Writes a file of the project, perhaps again, in the middle of a test; returns its path.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.project.join(path);
        fs::create_dir_all(file.parent().expect("a file lies in a directory")).expect(path);
        fs::write(&file, content).expect(path);
        file
    }

    /// The content of a file of the project.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.project.join(path)).expect(path)
    }

    /// The temporary files and sockets that commands left behind; a good test asserts that there are none.
    pub fn leftovers(&self) -> Vec<String> {
        let directories = ["tmp", "runtime"].map(|part| self.root().join(part));
        let entries = directories
            .iter()
            .flat_map(|directory| fs::read_dir(directory).expect("it is ours"));
        entries
            .map(|entry| entry.expect("it is ours").file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// One of our commands, to be run in the project: with a clean environment, and no engine to talk to.
    pub fn command(&self, name: &str) -> Invocation<'_> {
        self.program(binary(name))
    }

    /// Runs a script of `sh` in the project, such as commands of git; it ends at the first that fails.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, script: &str) {
        let shell = self.program("/bin/sh").args(["-ec", script]);
        shell.any_stdout().any_stderr().run();
    }

    /// Commits all of the project to its repository of git.
    ///
    /// # Panics
    /// When git refuses.
    pub fn commit(&self, message: &str) {
        let identity = "-c user.name=ann -c user.email=ann@example.org";
        self.shell(&format!("git add -A; git {identity} commit -qm '{message}'"));
    }

    /// [`Sandbox::command`] for any program.
    pub fn program(&self, program: impl Into<PathBuf>) -> Invocation<'_> {
        let root = self.root();
        let nowhere = format!("unix://{}", root.join("no-engine.sock").display());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let environment = [
            ("HOME", root.join("home").into_os_string()),
            ("TMPDIR", root.join("tmp").into_os_string()),
            ("XDG_RUNTIME_DIR", root.join("runtime").into_os_string()),
            ("PATH", path),
            ("USER", "tester".into()),
            ("LOGNAME", "tester".into()),
            ("LANG", "C.UTF-8".into()),
            // Without it, a test would find the engine of the user who runs it.
            ("DOCKER_HOST", nowhere.into()),
        ];
        Invocation {
            sandbox: self,
            program: program.into(),
            arguments: Vec::new(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            directory: self.project.clone(),
            stdin: Vec::new(),
            code: 0,
            stdout: Expected::default(),
            stderr: Expected::default(),
            limit: LIMIT,
        }
    }

    fn root(&self) -> &Path {
        // The parent of the project rather than the TempDir's own path: the former is canonical.
        self.project.parent().unwrap_or_else(|| self.directory.path())
    }
}

/// The expected content of a stream; empty, unless the test says otherwise.
#[derive(Debug, Clone, Default)]
enum Expected {
    #[default]
    Nothing,
    Exactly(String),
    Parts(Vec<String>),
    Anything,
}

impl Expected {
    fn add(&mut self, part: &str) {
        match self {
            Self::Parts(parts) => parts.push(part.to_owned()),
            _ => *self = Self::Parts(vec![part.to_owned()]),
        }
    }

    fn check(&self, stream: &str, outcome: &Outcome, text: &str) {
        match self {
            Self::Nothing => assert!(text.is_empty(), "{stream} should be empty\n{outcome}"),
            Self::Exactly(expected) => assert!(text == expected, "{stream} should be:\n{expected}\n{outcome}"),
            Self::Parts(parts) => {
                for part in parts {
                    assert!(text.contains(part), "{stream} should contain:\n{part}\n{outcome}");
                }
            }
            Self::Anything => {}
        }
    }
}

/// A command about to run, and what is expected of it: exit code 0 and no output, unless said otherwise.
#[derive(Debug)]
#[must_use = "nothing happens before run() or spawn()"]
pub struct Invocation<'a> {
    sandbox: &'a Sandbox,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, OsString>,
    directory: PathBuf,
    stdin: Vec<u8>,
    code: i32,
    stdout: Expected,
    stderr: Expected,
    limit: Duration,
}

impl<'a> Invocation<'a> {
    /// One more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. The lab's engines are in containers, and would be taken for remote ones: so a test
    /// whose DOCKER_HOST leads to one also declares it to be on this machine.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        if name == "DOCKER_HOST" && value.to_string_lossy().contains("/dockerutils-lab/") {
            self.environment
                .insert("DOCKERUTILS_LOCAL_ENGINE".to_owned(), value.to_owned());
        }
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable that the sandbox sets.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Uses this engine.
    pub fn engine(self, engine: &ScriptedEngine) -> Self {
        self.env("DOCKER_HOST", engine.host())
    }

    /// Runs in this directory, relative to the project, instead of in the project.
    pub fn current_dir(mut self, directory: &str) -> Self {
        self.directory = self.sandbox.project.join(directory);
        self
    }

    /// What it reads from stdin.
    pub fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    /// The exit code it should end with.
    pub fn code(mut self, code: i32) -> Self {
        self.code = code;
        self
    }

    /// Expects exactly this on stdout.
    pub fn stdout(mut self, text: &str) -> Self {
        self.stdout = Expected::Exactly(text.to_owned());
        self
    }

    /// Expects this as a part of stdout; several calls add up.
    pub fn stdout_has(mut self, part: &str) -> Self {
        self.stdout.add(part);
        self
    }

    /// Accepts anything on stdout.
    pub fn any_stdout(mut self) -> Self {
        self.stdout = Expected::Anything;
        self
    }

    /// Expects exactly this on stderr.
    pub fn stderr(mut self, text: &str) -> Self {
        self.stderr = Expected::Exactly(text.to_owned());
        self
    }

    /// Expects this as a part of stderr; several calls add up.
    pub fn stderr_has(mut self, part: &str) -> Self {
        self.stderr.add(part);
        self
    }

    /// Accepts anything on stderr.
    pub fn any_stderr(mut self) -> Self {
        self.stderr = Expected::Anything;
        self
    }

    /// How long it may run, instead of the usual time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end and checks what was expected.
    ///
    /// # Panics
    /// When the exit code or a stream is not as expected, or it takes too long.
    pub fn run(self) -> Outcome {
        let (code, stdout, stderr) = (self.code, self.stdout.clone(), self.stderr.clone());
        let outcome = self.spawn().wait();
        assert!(outcome.code == code, "the exit code should be {code}\n{outcome}");
        stdout.check("stdout", &outcome, &outcome.stdout);
        stderr.check("stderr", &outcome, &outcome.stderr);
        outcome
    }

    /// Starts it at a terminal, and checks nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn at_terminal(self) -> Terminal {
        let mut command = Terminal::command(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .env("TERM", "xterm")
            .current_dir(&self.directory);
        Terminal::start(command)
    }

    /// Starts it, for a test that has to do something in the middle, and checks nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(self) -> Running {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let Some(mut stdin) = child.stdin.take() {
            // In a thread, and without an error: a command need not read its stdin.
            thread::spawn(move || stdin.write_all(&self.stdin));
        }
        Running {
            stdout: child.stdout.take().map(collect),
            stderr: child.stderr.take().map(collect),
            child,
            root: self.sandbox.root().display().to_string(),
            deadline: Instant::now() + self.limit,
        }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Option<Output>,
    stderr: Option<Output>,
    root: String,
    deadline: Instant,
}

impl Running {
    /// Interrupts it, as Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When its end has been waited for already.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process has an id");
        kill_process(id, signal).expect("a process of ours takes our signals");
    }

    /// Whether it has ended; [`Running::wait`] says how.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has written this to stderr.
    ///
    /// # Panics
    /// When it does not.
    pub fn wait_for_stderr(&self, text: &str) {
        let written = || self.stderr.as_ref().map(Output::so_far).unwrap_or_default();
        wait::until(format_args!("{text:?} on stderr"), || {
            String::from_utf8_lossy(&written()).contains(text)
        });
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes too long; it is killed then.
    pub fn wait(mut self) -> Outcome {
        let mut memory = 0;
        let status = loop {
            memory = memory.max(own_memory(self.child.id()));
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break Some(status);
            }
            if Instant::now() > self.deadline {
                // If it can't be killed, it ended just now.
                let _ = self.child.kill();
                let _ = self.child.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let text = |stream: Option<Output>| {
            let bytes = stream.map(Output::whole).unwrap_or_default();
            // The sandbox's path differs from run to run; a snapshot must not.
            String::from_utf8_lossy(&bytes).replace(&self.root, "[SANDBOX]")
        };
        let code = status.and_then(|status| {
            use std::os::unix::process::ExitStatusExt;
            status.code().or_else(|| status.signal().map(|signal| 128 + signal))
        });
        let outcome = Outcome {
            code: code.unwrap_or(-1),
            stdout: text(self.stdout.take()),
            stderr: text(self.stderr.take()),
            memory,
        };
        assert!(status.is_some(), "it took too long, and was killed\n{outcome}");
        outcome
    }
}

/// The memory of a process that does not come from files, in KiB (proc_pid_status(5)); 0 if it can't be read.
fn own_memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    own.and_then(|own| own.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

impl Drop for Running {
    /// A test that fails before it waits must not leave a process: it is asked to end, as it may have things to remove,
    /// then killed.
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        self.signal(Signal::TERM);
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        // If it can't be killed, it ended just now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; as in a shell, 128 plus the signal's number if a signal ended it.
    pub code: i32,
    /// What it wrote to stdout, the sandbox's path in it replaced by `[SANDBOX]`.
    pub stdout: String,
    /// What it wrote to stderr, likewise.
    pub stderr: String,
    /// The peak memory in KiB that was seen while it was waited for, without that of its program's file, which is large
    /// in a build for tests; 0 if the system does not report it as Linux does.
    pub memory: u64,
}

impl Outcome {
    /// stdout as the one JSON document that `--json` promises.
    ///
    /// # Panics
    /// When it is not one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "--- exit code {}\n--- stdout\n{}--- stderr\n{}---",
            self.code, self.stdout, self.stderr
        )
    }
}

/// A stream that is read while the test goes on: a full pipe would stop the command.
#[derive(Debug)]
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Output {
    fn so_far(&self) -> Vec<u8> {
        lock(&self.bytes).clone()
    }

    /// All of it, when it has ended.
    fn whole(self) -> Vec<u8> {
        // What was read before an error is worth showing.
        let _ = self.thread.join();
        std::mem::take(&mut *lock(&self.bytes))
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> Output {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let collected = Arc::clone(&bytes);
    let thread = thread::spawn(move || {
        let mut piece = vec![0; 64 * 1024];
        loop {
            match stream.read(&mut piece) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let mut bytes = lock(&collected);
                    bytes.extend_from_slice(piece.get(..length).unwrap_or_default());
                }
            }
        }
    });
    Output { bytes, thread }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_nobody_waits_for_ends_with_its_test() {
        let sandbox = Sandbox::new();
        let running = sandbox.program("/bin/sleep").arg("60").spawn();
        let id = Pid::from_raw(i32::try_from(running.child.id()).unwrap()).unwrap();
        rustix::process::test_kill_process(id).unwrap();
        drop(running);
        rustix::process::test_kill_process(id).unwrap_err();
    }

    #[test]
    fn a_program_sees_the_sandbox_and_nothing_else() {
        let sandbox = Sandbox::named("sample-dir").file("docker/web/Dockerfile", "FROM scratch\n");
        let outcome = sandbox
            .program("/bin/sh")
            .args(["-c", "pwd; echo $HOME; ls docker; env | grep -c CARGO"])
            .code(1)
            .any_stdout()
            .run();
        assert_eq!(outcome.stdout, "[SANDBOX]/sample-dir\n[SANDBOX]/home\nweb\n0\n");
        assert!(sandbox.leftovers().is_empty());
    }

    #[test]
    #[should_panic(expected = "stderr should be empty")]
    fn a_stream_that_is_not_expected_must_be_empty() {
        Sandbox::new().program("/bin/sh").args(["-c", "echo oops >&2"]).run();
    }

    #[test]
    #[should_panic(expected = "it took too long")]
    fn a_command_that_hangs_fails_its_test() {
        Sandbox::new()
            .program("/bin/sleep")
            .arg("60")
            .limit(Duration::from_millis(50))
            .run();
    }

    #[test]
    fn an_interrupt_arrives() {
        let sandbox = Sandbox::new();
        let running = sandbox.program("/bin/sleep").arg("60").spawn();
        running.interrupt();
        assert_eq!(running.wait().code, 130);
    }
}
