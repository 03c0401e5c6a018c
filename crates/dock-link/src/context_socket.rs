//! The socket of a docker context, on which systemd listens for the agent.
//!
//! What systemd starts when somebody connects ([`run`]) serves nobody itself: it gives the listening socket to the dock's agent,
//! which it starts as every command does, and stays until that ends; then systemd looks after the socket again. So an agent
//! need not know who started it, there is one as always, and an agent of another version is replaced as always. Who connects
//! meanwhile waits in the socket's queue.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dock_client::agent::Agent;
use dock_client::agent::paths::AgentPaths;
use dock_client::agent::wire::FailureKind;
use dock_client::docks::{Access, Docks};
use dock_client::env::Env;
use dock_client::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::umask;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::service::{REQUEST_LIMIT, refuse};

/// How long it stays without work: systemd gives a socket up for which it has to start something again and again.
const LINGER: Duration = Duration::from_secs(15);
/// What systemd sets for a process that it starts; an agent must not have these.
const OF_SYSTEMD: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MANAGERPID",
    "SYSTEMD_EXEC_PID",
];

/// Takes a socket only if it is the listening one at this path.
pub(crate) fn check(socket: OwnedFd, path: &Path) -> io::Result<UnixListener> {
    let (listener, bound) = listener(socket)?;
    if bound != path {
        return Err(io::Error::other(format!("it is bound to {}", bound.display())));
    }
    Ok(listener)
}

/// A listening Unix socket, and the path that it is bound to.
fn listener(socket: OwnedFd) -> io::Result<(UnixListener, PathBuf)> {
    if socket_type(&socket)? != SocketType::STREAM {
        return Err(io::Error::other("it is no socket for streams"));
    }
    // No such question on macOS, where accepting tells.
    #[cfg(not(target_vendor = "apple"))]
    if !rustix::net::sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::other("it does not listen"));
    }
    let listener = UnixListener::from(socket);
    // Fails for what is no Unix socket.
    let address = listener.local_addr()?;
    let path = address.as_pathname().map(Path::to_owned);
    let path = path.ok_or_else(|| io::Error::other("it has no path"))?;
    listener.set_nonblocking(true)?;
    Ok((listener, path))
}

/// Serves the socket that is this process's stdin, for as long as somebody connects.
pub(crate) fn run() -> io::Result<()> {
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    let cannot = |cause: io::Error| io::Error::other(format!("systemd starts it for a docker context: {cause}"));
    let (listener, path) = listener(stdin).map_err(cannot)?;
    let variables = Env::from_process();
    let env = Env::from_pairs(variables.iter().filter(|(name, _)| !OF_SYSTEMD.contains(name)));
    // A socket elsewhere, or where others have a hand in, may be anybody's.
    let is_one = AgentPaths::of_engine_socket(&path, &env)
        .is_some_and(|paths| paths.context_socket() == path && paths.check().is_ok());
    if !is_one {
        let what = format!("{} is no socket of a docker context of yours", path.display());
        return Err(cannot(io::Error::other(what)));
    }
    umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // What we start must not hold on to the socket, which may be stdout, too.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    while is_waited_for(&listener, LINGER)? {
        if let Err(error) = runtime.block_on(serve(&listener, &path, &env)) {
            let _ = writeln!(io::stderr(), "dock-agent: {}", error.with_causes());
            // Left in the queue, they would have us started again and again.
            runtime.block_on(refuse_all(&listener, &error));
        }
    }
    Ok(())
}

/// Whether somebody is in the queue, or comes within this time.
fn is_waited_for(listener: &UnixListener, limit: Duration) -> io::Result<bool> {
    let end = Instant::now() + limit;
    loop {
        let rest = end.saturating_duration_since(Instant::now());
        let rest = Timespec::try_from(rest).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&rest)) {
            Ok(events) => return Ok(events > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Has the agent of the dock serve the socket, until it ends.
async fn serve(listener: &UnixListener, path: &Path, env: &Env) -> Result<()> {
    // Read each time: it may have been registered anew.
    let docks = Docks::read(env)?;
    let mut agents = docks
        .iter()
        .filter(|dock| matches!(dock.access, Access::Ssh(_)))
        .filter_map(|dock| Agent::of(dock, env).ok());
    let agent = agents.find(|agent| agent.context_socket() == path).ok_or_else(|| {
        Error::failed(format!("no dock has the socket {} any more", path.display()))
            .hint("`docker context ls` shows which context leads there; remove it, or: register-dock --make-context")
    })?;
    agent.serve(listener.as_fd()).await
}

/// Tells those in the queue what is wrong.
async fn refuse_all(listener: &UnixListener, error: &Error) {
    let hint = error.hint_text().map(|hint| format!(" ({hint})"));
    let message = format!("{}{}", error.with_causes(), hint.unwrap_or_default());
    let mut tasks = JoinSet::new();
    // It does not block: an error is its end.
    while let Ok((stream, _)) = listener.accept() {
        let message = message.clone();
        tasks.spawn(async move {
            stream.set_nonblocking(true)?;
            let refusing = refuse(UnixStream::from_std(stream)?, FailureKind::Unreachable, &message);
            timeout(2 * REQUEST_LIMIT, refusing).await.unwrap_or(Ok(()))
        });
    }
    // Who has gone already misses nothing.
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_that_listens_there_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let [path, other] = ["a.sock", "b.sock"].map(|name| directory.path().join(name));
        let listening = UnixListener::bind(&path).unwrap();
        check(listening.try_clone().unwrap().into(), &path).unwrap();
        assert!(check(listening.into(), &other).is_err());
        let (connected, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(check(connected.into(), &path).is_err());
        let datagrams = std::os::unix::net::UnixDatagram::bind(&other).unwrap();
        assert!(check(datagrams.into(), &other).is_err());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(check(tcp.into(), &path).is_err());
        assert!(check(File::open("/dev/null").unwrap().into(), &path).is_err());
    }
}
