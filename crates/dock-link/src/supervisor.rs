//! The parent of an agent: makes the sockets, keeps them, and starts the worker again when it dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::start::{Start, Started};
use dock_client::hint;
use dock_client::private_file;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::process::{Pid, Signal, kill_process, setsid, umask};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::handover::{self, Descriptors};
use crate::log::Log;
use crate::program::{STOPPED, WORKER};
use crate::shells::beside;

/// A worker that lived so long did not die of its start.
const GOOD_LIFE: Duration = Duration::from_secs(10);
/// The first pause before a worker is started again; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so many workers that died at once there is no use in another; a command that needs the agent starts it anew.
const TRIES: u32 = 12;
/// How long a worker may take to end when it is told to.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The longest description of a dock.
const START: u64 = 1024 * 1024;

/// Reads what to do from stdin, and does it until nothing needs the agent.
pub(crate) fn run() -> io::Result<()> {
    let start = read_start()?;
    // No terminal of a shell that ends takes it along, and none is written to.
    if let Err(cause) = setsid() {
        // Started from a terminal by hand it leads its own group already, which is as good.
        if cause != rustix::io::Errno::PERM {
            return Err(cause.into());
        }
    }
    umask(Mode::RWXG | Mode::RWXO);
    let mut log = Log::of(&start.paths, "agent");
    let (descriptors, made) = match prepare(&start) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return say(&Started::Running),
        Err(cause) => {
            return say(&Started::Failed {
                message: format!(
                    "the agent of dock {:?} can't make its sockets: {cause}",
                    start.dock.moniker
                ),
                hint: Some(hint!("look at {}", start.paths.engine_socket().display())),
            });
        }
    };
    log.take_stderr()?;
    log.line(format!(
        "dockerutils {} for dock {:?}",
        dock_client::agent::wire::VERSION,
        start.dock.moniker
    ));
    say(&Started::Ready)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(supervise(&start, &descriptors, &made, &log));
    match &result {
        Ok(()) => log.line("ended"),
        Err(cause) => log.line(format!("failed: {cause}")),
    }
    // The last of all: who waits for the end may remove the log, too.
    made.remove();
    result
}

fn read_start() -> io::Result<Start> {
    let stdin = io::stdin();
    if io::IsTerminal::is_terminal(&stdin) {
        return Err(io::Error::other("it is started by the commands that need it"));
    }
    let mut text = Vec::new();
    stdin.lock().take(START).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn say(started: &Started) -> io::Result<()> {
    let mut line = serde_json::to_vec(started)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    // A command that was interrupted meanwhile does not hear it.
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    Ok(())
}

/// Takes the lock, and makes the sockets. None where another agent has the lock.
fn prepare(start: &Start) -> io::Result<Option<(Descriptors, BoundSockets)>> {
    let paths = &start.paths;
    let Some(mut lock) = take_lock(paths)? else {
        return Ok(None);
    };
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())?;
    // Before the sockets: who finds one finds its dock.
    private_file::replace_quickly(&paths.dock_file(), &serde_json::to_vec(&start.dock)?)?;
    let control = bind(&paths.control_socket())?;
    let engine = bind(&paths.engine_socket())?;
    let made = BoundSockets::of([paths.control_socket(), paths.engine_socket()])?;
    let descriptors = Descriptors {
        control: control.into(),
        engine: engine.into(),
        lock: lock.into(),
    };
    Ok(Some((descriptors, made)))
}

/// Locks the file that one agent has locked while it lives.
fn take_lock(paths: &AgentPaths) -> io::Result<Option<File>> {
    let path = paths.lock_file();
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(cause) => return Err(cause.into()),
        }
        // It may have been removed, and made anew by another, before it was locked.
        let current = fs::metadata(&path).ok().map(|found| found.ino());
        if current == Some(file.metadata()?.ino()) {
            return Ok(Some(file));
        }
    }
}

/// Binds a socket where an agent that was killed may have left its own.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    // Who may connect is decided by the mode of the file; this process has one thread yet.
    let before = umask(Mode::XUSR | Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The paths of sockets that were made, told from those that another agent made since.
#[derive(Debug)]
pub(crate) struct BoundSockets(Vec<(PathBuf, u64)>);

impl BoundSockets {
    /// Takes note of what is at these paths now.
    pub(crate) fn of(paths: [PathBuf; 2]) -> io::Result<Self> {
        paths
            .into_iter()
            .map(|path| {
                let inode = fs::symlink_metadata(&path)?.ino();
                Ok((path, inode))
            })
            .collect::<io::Result<_>>()
            .map(Self)
    }

    fn own(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|(path, inode)| {
            let found = fs::symlink_metadata(path).ok()?;
            (found.ino() == *inode).then_some(path.as_path())
        })
    }

    /// Removes them.
    pub(crate) fn remove(&self) {
        for path in self.own() {
            // What has gone already needs no removing.
            let _ = fs::remove_file(path);
        }
    }

    /// Puts them out of reach, without losing who waits in their queues.
    fn hide(&self) -> Vec<(PathBuf, PathBuf)> {
        self.own()
            .filter_map(|path| {
                let hidden = beside(path, ".gone");
                fs::rename(path, &hidden).ok()?;
                Some((path.to_owned(), hidden))
            })
            .collect()
    }
}

/// Keeps a worker at work until one ends for good.
async fn supervise(start: &Start, descriptors: &Descriptors, made: &BoundSockets, log: &Log) -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    // Nobody's terminal is ours.
    let _hangup = signal(SignalKind::hangup())?;
    let mut tries = 0;
    loop {
        let began = Instant::now();
        // Its end of the socket is closed when we end, however that comes.
        let (mut worker, lifeline) = spawn_worker()?;
        if let Err(cause) = handover::give(&lifeline, descriptors, start) {
            // It died at once; how, is seen below.
            log.line(format!("the worker took nothing: {cause}"));
        }
        let status = tokio::select! {
            status = worker.wait() => status?,
            _ = terminated.recv() => return end(worker, log).await,
            _ = interrupted.recv() => return end(worker, log).await,
        };
        match status.code() {
            Some(0) if !is_wanted(made, descriptors)? => return Ok(()),
            Some(0) => {
                tries = 0;
                continue;
            }
            Some(code) if code == i32::from(STOPPED) => return Ok(()),
            _ => {}
        }
        tries = if began.elapsed() < GOOD_LIFE { tries + 1 } else { 1 };
        log.line(format!("the worker died ({status}); {tries} in a row"));
        if tries >= TRIES {
            return Err(io::Error::other("the worker dies again and again"));
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << (tries - 1).min(16)).min(LONGEST_PAUSE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = terminated.recv() => return Ok(()),
        }
    }
}

fn spawn_worker() -> io::Result<(Child, UnixStream)> {
    let (lifeline, end) = UnixStream::pair()?;
    let child = Command::new(own_program()?)
        .arg(WORKER)
        .stdin(Stdio::from(OwnedFd::from(end)))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok((child, lifeline))
}

/// The very program that runs, even where an update has put another in its place: both must understand each other.
fn own_program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let itself = Path::new("/proc/self/exe");
    match (fs::metadata(itself), fs::metadata(&path)) {
        (Ok(own), Ok(there)) if own.ino() == there.ino() && own.dev() == there.dev() => Ok(path),
        (Ok(_), _) => Ok(itself.to_owned()),
        // No such file but on Linux.
        (Err(_), _) => Ok(path),
    }
}

/// Has the worker end, as we were told to.
async fn end(mut worker: Child, log: &Log) -> io::Result<()> {
    log.line("told to end by a signal");
    let pid = worker
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // A failure means that it has ended.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(LAST_WORDS, worker.wait()).await.is_err() {
        worker.kill().await?;
    }
    Ok(())
}

/// Whether somebody connected while the worker ended for want of work. Nobody new can, once the sockets are out of reach;
/// so what is in their queues now is all that there is, and is not lost.
fn is_wanted(made: &BoundSockets, descriptors: &Descriptors) -> io::Result<bool> {
    let hidden = made.hide();
    let mut queues = [
        PollFd::new(&descriptors.control, PollFlags::IN),
        PollFd::new(&descriptors.engine, PollFlags::IN),
    ];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let wanted = poll(&mut queues, Some(&now))? > 0;
    for (path, hidden) in hidden {
        if wanted {
            fs::rename(hidden, path)?;
        } else {
            fs::remove_file(hidden)?;
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_at_the_last_moment_is_not_turned_away() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a.ctl", "a.sock"].map(|name| directory.path().join(name));
        let [control, engine] = paths.each_ref().map(|path| bind(path).unwrap());
        let made = BoundSockets::of(paths.clone()).unwrap();
        let descriptors = Descriptors {
            control: control.into(),
            engine: engine.try_clone().unwrap().into(),
            lock: File::open("/dev/null").unwrap().into(),
        };
        let client = UnixStream::connect(&paths[1]).unwrap();
        assert!(is_wanted(&made, &descriptors).unwrap());
        assert!(paths.iter().all(|path| path.exists()), "the next worker serves them");
        let (mut served, _) = engine.accept().unwrap();
        served.write_all(b"served").unwrap();
        drop(served);
        let mut heard = String::new();
        (&client).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "served");

        assert!(!is_wanted(&made, &descriptors).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn sockets_that_another_agent_made_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a.ctl", "a.sock"].map(|name| directory.path().join(name));
        let _ours = paths.each_ref().map(|path| bind(path).unwrap());
        let made = BoundSockets::of(paths.clone()).unwrap();
        let _theirs = bind(&paths[1]).unwrap();
        made.remove();
        assert!(!paths[0].exists());
        assert!(paths[1].exists());
    }
}
