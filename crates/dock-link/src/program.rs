//! The main function of an agent's program.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use dock_client::agent::paths::AgentPaths;
use dock_client::agent::start::{CONTEXT, Start};
use dock_client::docks::Dock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::context_socket;
use crate::handover::{self, Descriptors};
use crate::log::Log;
use crate::service::{Service, ShutdownReason, Sockets};
use crate::supervisor::{self, BoundSockets};
use crate::timing::Timing;
use crate::transport::Connector;

/// The argument that makes a worker of the program. It is not for users.
pub(crate) const WORKER: &str = "worker";
/// The exit code of a worker that was told to end; 0 is that of one that nothing needs.
pub(crate) const STOPPED: u8 = 10;

/// A worker that is ready to serve its dock, with what the supervisor handed over.
pub struct Worker {
    dock: Dock,
    paths: AgentPaths,
    timing: Timing,
    log: Log,
    sockets: Sockets,
    /// At its end once the supervisor has gone.
    lifeline: UnixStream,
    /// Kept locked: while it is, no other agent of this dock starts.
    lock: OwnedFd,
}

impl Worker {
    /// The agent's dock.
    pub const fn dock(&self) -> &Dock {
        &self.dock
    }

    /// The agent's log, for messages of a connector.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// Sets other time limits than the usual ones.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Serves the dock that `connector` reaches, until nothing needs it.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn serve(self, connector: impl Connector) -> io::Result<ShutdownReason> {
        let made = BoundSockets::of([self.paths.control_socket(), self.paths.engine_socket()]);
        let service = Service::new(self.dock, self.paths, connector, self.timing, self.log.clone());
        let mut terminated = signal(SignalKind::terminate())?;
        let stopper = Arc::clone(&service);
        let stopping = tokio::spawn(async move {
            terminated.recv().await;
            stopper.stop();
        });
        // A thread of its own: it blocks, and must not keep the runtime from ending.
        let (log, mut lifeline) = (self.log, self.lifeline.try_clone()?);
        std::thread::spawn(move || {
            while matches!(lifeline.read(&mut [0]), Ok(1..)) {}
            log.line("the supervisor has gone; this worker goes on alone");
        });
        let ending = service.run(self.sockets).await;
        stopping.abort();
        if is_over(&self.lifeline) {
            // No other process would remove them.
            made?.remove();
        }
        drop(self.lock);
        Ok(ending)
    }
}

/// Runs as supervisor, as worker, or as what systemd starts for a docker context; `serve` chooses the connector of a dock, and
/// serves the dock with it.
pub fn main(serve: impl AsyncFnOnce(Worker) -> io::Result<ShutdownReason>) -> ExitCode {
    keep_to_itself();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => supervisor::run().map(|()| ExitCode::SUCCESS),
        [word] if word == WORKER => run_worker(serve).map(|ending| match ending {
            ShutdownReason::Idle => ExitCode::SUCCESS,
            ShutdownReason::Stopped => ExitCode::from(STOPPED),
        }),
        [word] if word == CONTEXT => context_socket::run().map(|()| ExitCode::SUCCESS),
        _ => Err(io::Error::other(
            "it takes no arguments: commands start it when they need it",
        )),
    };
    result.unwrap_or_else(|cause| {
        // The message goes to the stderr of this stage: a terminal, the command that started it, or the log.
        let _ = writeln!(io::stderr(), "dock-agent: {cause}");
        ExitCode::FAILURE
    })
}

/// Keeps what the user typed out of core files: none is written, and a handler of the system's that receives them
/// whatever the limit (`core_pattern` with a pipe) gets none of a process that is not dumpable.
pub fn keep_to_itself() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A system that refuses this has no such files, or a stricter rule.
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Whether the supervisor has gone: it sends nothing on this socket, so only its end makes it readable.
fn is_over(lifeline: &UnixStream) -> bool {
    let mut looked_at = [PollFd::new(lifeline, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked_at, Some(&now)).is_ok_and(|events| events > 0)
}

fn run_worker(serve: impl AsyncFnOnce(Worker) -> io::Result<ShutdownReason>) -> io::Result<ShutdownReason> {
    let lifeline = UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let (Descriptors { control, engine, lock }, Start { paths, dock }) = handover::take(&lifeline)?;
    // The processes that we start must not keep it open.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let mut log = Log::of(&paths, "worker");
    log.take_stderr()?;
    raise_descriptors(&log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let listener = |descriptor: OwnedFd| UnixListener::from_std(descriptor.into());
        let sockets = Sockets {
            control: listener(control)?,
            engine: listener(engine)?,
        };
        serve(Worker {
            dock,
            paths,
            timing: Timing::default(),
            log,
            sockets,
            lifeline,
            lock,
        })
        .await
    });
    // A name look-up that hangs must not delay the end.
    runtime.shutdown_background();
    result
}

/// Each stream takes one or two descriptors; tools that connect a lot soon reach a shell's usual limit of 1024.
fn raise_descriptors(log: &Log) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(cause) = setrlimit(Resource::Nofile, raised) {
        log.line(format!("the limit of descriptors stays as it is: {cause}"));
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_agent_gets_into_a_core_file() {
        keep_to_itself();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(getrlimit(Resource::Core).maximum, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
    }
}
