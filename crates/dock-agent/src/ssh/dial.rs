//! The socket under an ssh session: a TCP connection, or a process's stdin and stdout (ProxyJump, ProxyCommand).

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dock_client::docks::SshAccess;
use dock_client::docks::destination::Destination;
use dock_client::docks::ssh_config::{AddressFamily, SshConfigError};
use dock_client::hint;
use dock_client::mutex::lock;
use dock_link::transport::{TransportError, TransportErrorKind};

use super::resolve::{Resolved, program};

/// How long each address is tried, unless ConnectTimeout is set.
const CONNECT: Duration = Duration::from_secs(15);

/// How many bytes of a proxy's last output are kept for the error.
const SAID: usize = 2048;

/// A connection to sshd.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Proxy(UnixStream, Proxy),
}

impl Socket {
    /// The socket's other descriptor.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Proxy(stream, _) => stream.as_fd(),
        }
        .try_clone_to_owned()
    }
}

/// The process that carries a session; killed when this is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    said: Arc<Mutex<VecDeque<u8>>>,
}

impl Proxy {
    /// Its last output on stderr, on one line.
    pub(super) fn said(&self) -> String {
        // It may be about to print why it ends.
        thread::sleep(Duration::from_millis(50));
        let said = lock(&self.said);
        let bytes: Vec<u8> = said.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // The text may come from anywhere: it must not move the cursor.
        lines.join("; ").chars().filter(|c| !c.is_control()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects as the configuration says. `agent` is the socket of the ssh-agent, for a jump host.
///
/// # Errors
/// When there is no way to connect, with a hint if one is known.
pub(super) fn dial(resolved: &Resolved, access: &SshAccess, agent: Option<&PathBuf>) -> Result<Socket, TransportError> {
    let config = &resolved.config;
    if let Some(jumps) = &config.proxy_jump {
        return proxy(jump(jumps, resolved)?, resolved, agent);
    }
    if let Some(command) = &config.proxy_command {
        return proxy(proxy_command(command, resolved)?, resolved, agent);
    }
    tcp(resolved, access).map(Socket::Tcp)
}

fn tcp(resolved: &Resolved, access: &SshAccess) -> Result<TcpStream, TransportError> {
    let config = &resolved.config;
    let target = format!("{} port {}", config.hostname, config.port);
    let unknown = |what: String| TransportError {
        message: format!("cannot find the address of {}: {what}", config.hostname),
        hint: Some(hint!("see where it leads: ssh -G {} | grep hostname", resolved.given)),
        kind: TransportErrorKind::Unreachable,
    };
    let addresses = (config.hostname.as_str(), config.port)
        .to_socket_addrs()
        .map_err(|error| unknown(error.to_string()))?;
    let addresses: Vec<SocketAddr> = addresses
        .filter(|address| match config.family {
            AddressFamily::Any => true,
            AddressFamily::Inet => address.is_ipv4(),
            AddressFamily::Inet6 => address.is_ipv6(),
        })
        .collect();
    let limit = config.connect_timeout.unwrap_or(CONNECT);
    let mut last = None;
    for attempt in 0..config.attempts {
        if attempt > 0 {
            thread::sleep(Duration::from_secs(1));
        }
        for address in &addresses {
            match TcpStream::connect_timeout(address, limit) {
                Ok(stream) => {
                    // Without it the link is only slow.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
    }
    let Some(error) = last else {
        return Err(unknown("it has no address of the requested family".to_owned()));
    };
    let what = match error.kind() {
        io::ErrorKind::TimedOut => format!("no answer within {} s", limit.as_secs()),
        _ => error.to_string(),
    };
    Err(TransportError {
        message: format!("cannot reach {target}: {what}"),
        hint: (error.kind() == io::ErrorKind::ConnectionRefused)
            .then(|| format!("sshd does not listen there; try: ssh -v {}", resolved.words(access))),
        kind: TransportErrorKind::Unreachable,
    })
}

/// The command that `ssh` itself would run for ProxyJump: another ssh, with the configuration of the jump host.
fn jump(jumps: &str, resolved: &Resolved) -> Result<Command, TransportError> {
    let config = &resolved.config;
    // The last jump host is the nearest to the dock; ssh reaches it through the ones before it.
    let (through, last) = match jumps.rsplit_once(',') {
        Some((through, last)) => (Some(through), last),
        None => (None, jumps),
    };
    let jump = Destination::parse(last).map_err(|error| bad_proxy("ProxyJump", &error))?;
    let mut ssh = program("ssh", &resolved.env);
    if let Some(user) = jump.user {
        ssh.args(["-l", user]);
    }
    if let Some(port) = jump.port {
        ssh.args(["-p", &port.to_string()]);
    }
    if let Some(through) = through {
        for hop in through.split(',') {
            Destination::parse(hop).map_err(|error| bad_proxy("ProxyJump", &error))?;
        }
        ssh.args(["-J", through]);
    }
    ssh.args(["-o", "ClearAllForwardings=yes", "-T"]);
    ssh.args(["-W", &format!("[{}]:{}", config.hostname, config.port)]);
    ssh.args(["--", jump.host]);
    Ok(ssh)
}

/// The command of ProxyCommand, run as ssh does: by the user's own shell. The names in it were checked: see
/// `check_host`.
fn proxy_command(command: &str, resolved: &Resolved) -> Result<Command, TransportError> {
    let expanded = resolved
        .tokens
        .expand(command)
        .map_err(|error| bad_proxy("ProxyCommand", &error))?;
    let mut shell = program(resolved.env.non_empty("SHELL").unwrap_or("/bin/sh"), &resolved.env);
    shell.args(["-c", &format!("exec {expanded}")]);
    Ok(shell)
}

fn bad_proxy(option: &str, error: &SshConfigError) -> TransportError {
    TransportError {
        message: format!("cannot use {option} of the ssh configuration: {error}"),
        hint: None,
        kind: TransportErrorKind::NeedsPerson,
    }
}

fn proxy(mut command: Command, resolved: &Resolved, agent: Option<&PathBuf>) -> Result<Socket, TransportError> {
    let failed = |error: io::Error| TransportError {
        message: format!("cannot start the proxy to {}: {error}", resolved.name()),
        hint: None,
        kind: TransportErrorKind::Unreachable,
    };
    let (near, far) = UnixStream::pair().map_err(failed)?;
    let stdin = far.try_clone().map_err(failed)?;
    command
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(Stdio::from(OwnedFd::from(far)))
        .stderr(Stdio::piped());
    if let Some(agent) = agent {
        command.env("SSH_AUTH_SOCK", agent);
    }
    let mut child = command.spawn().map_err(failed)?;
    // The command holds the other end, too.
    drop(command);
    let said = Arc::new(Mutex::new(VecDeque::new()));
    if let Some(stderr) = child.stderr.take() {
        let said = Arc::clone(&said);
        thread::spawn(move || listen(stderr, &said));
    }
    Ok(Socket::Proxy(near, Proxy { child, said }))
}

/// Keeps the last output, until the process ends.
fn listen(mut stderr: impl Read, said: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 512];
    while let Ok(count) = stderr.read(&mut buffer) {
        if count == 0 {
            return;
        }
        let mut said = lock(said);
        said.extend(buffer.get(..count).unwrap_or_default());
        let over = said.len().saturating_sub(SAID);
        said.drain(..over);
    }
}
