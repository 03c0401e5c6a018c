//! A session that the user's own OpenSSH client holds, for logins that libssh2 cannot do: keys in a token (PKCS11) or a
//! security key (FIDO), GSSAPI, hostbased; or if our own check cannot decide about the host's key.
//!
//! `ssh -M` logs in, and asks its questions through [`ask`]; OpenSSH checks the host key, with everything that it knows
//! hosts by (certificates, KnownHostsCommand, the domain name system), and the user accepts a new one. Then it listens
//! on a control socket in a private directory, which is used as soon as it exists: one connection carries all channels
//! ([`channels`]), and the directory is removed. The client lives as long as that connection, and so never longer than
//! the agent.

mod ask;
mod channels;
mod wire;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use dock_client::agent::holder::Holder;
use dock_client::agent::paths;
use dock_client::docks::ssh_config::StrictHostKeyChecking;
use dock_client::env::Env;
use dock_client::hint;
use dock_client::mutex::lock;
use dock_link::transport::{Asker, TransportError, TransportErrorKind};

use super::connect::{Cancel, Plan};
use super::handle::Inbox;
use super::resolve::{Resolved, identify, program};
pub use ask::if_asked;
pub(super) use channels::Loop;
use wire::{MessageReader, MessageWriter};

/// Options besides the user's configuration. ssh takes the first value that it is given.
const OPTIONS: [&str; 13] = [
    "ControlPersist=no",
    // This would ask the user about something that is not the matter now.
    "UpdateHostKeys=no",
    "VisualHostKey=no",
    "LogLevel=INFO",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "EscapeChar=none",
    "Tunnel=no",
    "ControlMaster=yes",
];
/// Runs on the dock until we have the control socket. sshd sends small packets without delay only after a session has
/// run something, and the client would end if there were nothing to do.
const PASTIME: &str = "cat >/dev/null";
/// The control socket, relative to the directory.
const CONTROL: &str = "c";
/// The socket for questions.
const QUESTIONS: &str = "q";
/// How often to check whether it is logged in.
const LOOK: Duration = Duration::from_millis(10);
/// How long the client may take for an answer on its own socket.
const ANSWER: Duration = Duration::from_secs(10);
/// How many bytes of its last output are kept for the error.
const SAID: usize = 2048;
/// How long its last output may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

const HELLO: u32 = 1;
const VERSION: u32 = 4;
const PROXY: u32 = 0x1000_000f;
const PROXY_READY: u32 = 0x8000_000f;

/// OpenSSH's client; killed when this is dropped.
pub(super) struct Master {
    child: Child,
    said: Arc<Mutex<StderrTail>>,
    /// `user@host`, for messages.
    name: String,
}

#[derive(Default)]
struct StderrTail {
    bytes: VecDeque<u8>,
    /// Its output has ended.
    over: bool,
}

impl Master {
    /// Its last output.
    fn said(&self) -> String {
        // It may be about to print why it ends.
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let said = lock(&self.said);
            if said.over || Instant::now() > deadline {
                let bytes: Vec<u8> = said.bytes.iter().copied().collect();
                let text = String::from_utf8_lossy(&bytes);
                let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                // After a banner and warnings, only the end is the reason.
                let last = lines.len().saturating_sub(2);
                return super::auth::printable(&lines.get(last..).unwrap_or_default().join("; "));
            }
            drop(said);
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // It ends by itself when its connection to us is closed, unless the network is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(mut stderr: ChildStderr, said: &Mutex<StderrTail>) {
    let mut buffer = [0; 512];
    loop {
        let read = stderr.read(&mut buffer).unwrap_or(0);
        let mut said = lock(said);
        said.over = read == 0;
        said.bytes.extend(buffer.get(..read).unwrap_or_default());
        let surplus = said.bytes.len().saturating_sub(SAID);
        said.bytes.drain(..surplus);
        if said.over {
            return;
        }
    }
}

/// A session that OpenSSH's client has logged in, before its thread takes it over.
pub(super) struct Established {
    socket: UnixStream,
    master: Master,
}

impl Established {
    /// The thread's side of the session.
    pub(super) fn stand(self, inbox: Inbox) -> Loop {
        Loop::new(self.socket, self.master, inbox)
    }
}

/// A private directory that exists for as long as a login takes.
struct Private(PathBuf);

impl Private {
    /// Makes one in the directory of the agents' sockets. Its name has the agent's process number, so that the
    /// directory of a killed agent is found.
    fn make(env: &Env) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let parent = paths::own_directory(env).map_err(io::Error::other)?;
        sweep(&parent);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("login-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // There is no one to report an error to.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of logins whose agent was killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("login-")?.split('-').next()?.parse().ok());
        if pid.is_some_and(|pid| Holder::of(pid).is_none()) {
            // Another agent may be removing it, too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Logs in with OpenSSH's client.
///
/// # Errors
/// When there is no such client, or it cannot log in either.
pub(super) fn establish(
    plan: &Plan,
    resolved: &Resolved,
    asker: &Arc<dyn Asker>,
    cancel: &Cancel,
) -> Result<Established, TransportError> {
    let private = Private::make(&plan.env).map_err(|error| failed(resolved, &error.to_string()))?;
    let server = ask::AskpassServer::open(
        &private.0.join(QUESTIONS),
        Arc::clone(asker),
        &plan.memory,
        resolved.config.batch,
        &version(resolved),
    )
    .map_err(|error| failed(resolved, &error.to_string()))?;
    let result = log_in(plan, resolved, asker.as_ref(), cancel, &private.0);
    let unaccepted = server.close(&plan.memory, result.is_ok());
    result.map_err(|error| match (unaccepted, error.kind) {
        // The client's own last output only says that the verification failed.
        (Some(host), TransportErrorKind::NeedsPerson) => TransportError {
            message: format!(
                "the host key of {} is not known, and was not accepted",
                super::auth::printable(&host)
            ),
            hint: Some(hint!(
                "connect once, and compare the key: ssh {words}";
                words = resolved.words(&plan.access)
            )),
            kind: error.kind,
        },
        _ => error,
    })
}

/// The client's version, as it prints it; empty if it does not.
fn version(resolved: &Resolved) -> String {
    let output = program("ssh", &resolved.env).arg("-V").stdin(Stdio::null()).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .unwrap_or_default()
}

fn log_in(
    plan: &Plan,
    resolved: &Resolved,
    asker: &dyn Asker,
    cancel: &Cancel,
    directory: &Path,
) -> Result<Established, TransportError> {
    let error = |error: io::Error| failed(resolved, &error.to_string());
    let mut ssh = client(plan, resolved, directory).map_err(error)?;
    match asker.ssh_auth_sock() {
        Some(agent) => ssh.env("SSH_AUTH_SOCK", agent),
        None => ssh.env_remove("SSH_AUTH_SOCK"),
    };
    let mut child = ssh.spawn().map_err(error)?;
    let mut pastime: Option<ChildStdin> = child.stdin.take();
    let said = Arc::<Mutex<StderrTail>>::default();
    if let Some(stderr) = child.stderr.take() {
        let said = Arc::clone(&said);
        thread::spawn(move || listen(stderr, &said));
    }
    let mut master = Master {
        child,
        said,
        name: resolved.name(),
    };
    let control = directory.join(CONTROL);
    loop {
        if cancel.is_cancelled() {
            return Err(failed(resolved, "nobody waits for it any more"));
        }
        if let Ok(socket) = UnixStream::connect(&control) {
            let socket = proxy(socket).map_err(error)?;
            drop(pastime.take());
            return Ok(Established { socket, master });
        }
        if master.child.try_wait().map_err(error)?.is_some() {
            return Err(refused(resolved, plan, &master.said()));
        }
        thread::sleep(LOOK);
    }
}

/// The client, about to be started.
fn client(plan: &Plan, resolved: &Resolved, directory: &Path) -> io::Result<Command> {
    let config = &resolved.config;
    let mut ssh = program("ssh", &resolved.env);
    // Relative to the directory, the socket has a short name: the system does not accept long ones.
    ssh.current_dir(directory).args(["-S", CONTROL]);
    for option in OPTIONS {
        ssh.args(["-o", option]);
    }
    // A changed key is refused, whatever the configuration says, as with libssh2.
    let strict = match config.strict {
        StrictHostKeyChecking::Yes => "yes",
        StrictHostKeyChecking::Ask => "ask",
        StrictHostKeyChecking::AcceptNew | StrictHostKeyChecking::Off => "accept-new",
    };
    ssh.args(["-o", &format!("StrictHostKeyChecking={strict}")]);
    if config.alive_interval.is_none() {
        ssh.args(["-o", "ServerAliveInterval=15"]);
    }
    if config.connect_timeout.is_none() {
        ssh.args(["-o", "ConnectTimeout=15"]);
    }
    identify(&mut ssh, &plan.access);
    // A host is data: nothing after this is an option.
    ssh.args(["--", &plan.access.host, PASTIME]);
    ssh.env("SSH_ASKPASS", asking_program(plan)?)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .env(ask::SOCKET, directory.join(QUESTIONS));
    // Before OpenSSH 8.4, this made it ask through the program.
    if resolved.env.non_empty("DISPLAY").is_none() {
        ssh.env("DISPLAY", ":");
    }
    ssh.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(ssh)
}

/// Our own program, which OpenSSH starts to ask.
fn asking_program(plan: &Plan) -> io::Result<PathBuf> {
    if let Some(program) = &plan.asking {
        return Ok(program.clone());
    }
    let own = std::env::current_exe()?;
    if own.exists() {
        return Ok(own);
    }
    // An update may have replaced the file, and the new program asks just as well. The processes that we start can't
    // read `/proc/PID/exe`.
    let newer = own
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
        .map(PathBuf::from);
    newer
        .filter(|path| path.exists())
        .ok_or_else(|| io::Error::other(format!("{} was removed", own.display())))
}

/// Makes a connection to the control socket carry packets from now on.
fn proxy(mut socket: UnixStream) -> io::Result<UnixStream> {
    socket.set_read_timeout(Some(ANSWER))?;
    socket.set_write_timeout(Some(ANSWER))?;
    let hello = MessageWriter::default().number(HELLO).number(VERSION);
    socket.write_all(&hello.framed())?;
    let mut answer = message(&mut socket)?;
    let version = (
        MessageReader(&answer).number(),
        MessageReader(answer.get(4..).unwrap_or_default()).number(),
    );
    if version != (Some(HELLO), Some(VERSION)) {
        return Err(io::Error::other(
            "OpenSSH's client speaks another version of its protocol",
        ));
    }
    socket.write_all(&MessageWriter::default().number(PROXY).number(0).framed())?;
    answer = message(&mut socket)?;
    if MessageReader(&answer).number() != Some(PROXY_READY) {
        return Err(io::Error::other(
            "OpenSSH's client is too old to be used here (7.4 is needed)",
        ));
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn message(socket: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > SAID {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    socket.read_exact(&mut message)?;
    Ok(message)
}

fn failed(resolved: &Resolved, what: &str) -> TransportError {
    TransportError {
        message: format!("cannot connect to {} with OpenSSH's client: {what}", resolved.name()),
        hint: None,
        kind: TransportErrorKind::Unreachable,
    }
}

/// The error for a client that ended, with its own last output.
fn refused(resolved: &Resolved, plan: &Plan, said: &str) -> TransportError {
    let needs_person = [
        "Permission denied",
        "Too many authentication",
        "verification failed",
        "option",
    ]
    .iter()
    .any(|part| said.contains(part));
    TransportError {
        message: format!("OpenSSH's client cannot log in to {}: {said}", resolved.name()),
        hint: Some(match said.contains("Permission denied") {
            true => hint!(
                "let one of your keys in: ssh-copy-id {words}; which were tried, ssh -v {words} shows";
                words = resolved.words(&plan.access)
            ),
            false => hint!("see what happens: ssh -v {words}"; words = resolved.words(&plan.access)),
        }),
        kind: match needs_person {
            true => TransportErrorKind::NeedsPerson,
            false => TransportErrorKind::Unreachable,
        },
    }
}
