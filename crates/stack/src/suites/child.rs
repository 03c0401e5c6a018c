//! A program of a suite: with what it printed, within its time, and ended with all that it started.

use std::fs::File;
use std::io::{PipeReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dockerutils_core::error::{Error, Result};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::program_group::ProgramGroup;
use super::test_log::TestLog;

/// Bytes read at once.
const BUFFER: usize = 16 * 1024;
/// So many pieces wait to be shown.
const WAITING: usize = 64;
/// How long the rest of what was printed is waited for, when the program has ended and something that it left holds the pipe.
const REST: Duration = Duration::from_secs(2);

/// A log that the threads share which read what programs print.
pub(super) type SharedLog = Arc<Mutex<TestLog>>;

/// Ends a shared log.
///
/// # Errors
/// Whatever could not be written.
pub(super) fn close(log: &SharedLog) -> Result<PathBuf> {
    log.lock().unwrap_or_else(PoisonError::into_inner).close()
}

/// Adds to a shared log.
pub(super) fn write(log: &SharedLog, bytes: &[u8]) {
    log.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProgramEnd {
    Code(i32),
    Signal(i32),
    /// It was ended because its time was up.
    TimedOut,
}

impl ProgramEnd {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// It for people, of a program with this much time.
    pub(super) fn says(self, limit: Duration) -> String {
        match self {
            Self::Code(code) => format!("exit code {code}"),
            Self::Signal(signal) => format!("ended by signal {signal}"),
            Self::TimedOut => format!("not done within {} s", limit.as_secs()),
        }
    }
}

/// Runs a program to its end. Both its streams go to the log, and piece by piece to `shown`. `lock` is held as long as anything of
/// it runs: when this process is killed, too.
///
/// # Errors
/// A program that can't be started.
pub(super) async fn run(
    mut command: Command,
    program: &Path,
    limit: Duration,
    log: &SharedLog,
    lock: Option<&File>,
    mut shown: impl FnMut(&[u8]),
) -> Result<ProgramEnd> {
    let failed = |cause: std::io::Error| {
        Error::failed(format!("{} can't be started", program.display()))
            .because(cause)
            .hint("it runs without a shell; is what its first line (#!) names installed?")
    };
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let also = writer.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(also);
    let mut group = ProgramGroup::start(&mut command, lock).map_err(failed)?;
    // Its ends of the pipe.
    drop(command);
    let mut pieces = read(reader, log);
    let time = tokio::time::sleep(limit);
    tokio::pin!(time);
    let mut is_open = true;
    let ended = loop {
        tokio::select! {
            piece = pieces.recv(), if is_open => match piece {
                Some(piece) => shown(&piece),
                None => is_open = false,
            },
            status = group.wait() => break ProgramEnd::of(status.map_err(failed)?),
            () = &mut time => break ProgramEnd::TimedOut,
        }
    };
    // What it left running ends with it.
    tokio::task::block_in_place(|| drop(group));
    let rest = async {
        while let Some(piece) = pieces.recv().await {
            shown(&piece);
        }
    };
    // Only what went into a session of its own still holds the pipe.
    let _ = tokio::time::timeout(REST, rest).await;
    Ok(ended)
}

/// Reads a pipe in a thread of its own: a program that is asked to end can still print, while nobody awaits it.
fn read(mut from: PipeReader, log: &SharedLog) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..count).unwrap_or_default();
            write(&log, piece);
            // Perhaps nobody shows it any more.
            let _ = sender.blocking_send(piece.to_vec());
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::fs;

    use dockerutils_test_support::wait;
    use rustix::process::Pid;

    use super::*;

    struct Bench {
        home: tempfile::TempDir,
        log: SharedLog,
    }

    impl Bench {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let log = Arc::new(Mutex::new(TestLog::create(&home.path().join("log")).unwrap()));
            Self { home, log }
        }

        fn command(&self, script: &str) -> Command {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).current_dir(self.home.path());
            command
        }

        async fn run(&self, script: &str, limit: Duration) -> (ProgramEnd, String) {
            let mut said = Vec::new();
            let ended = run(
                self.command(script),
                Path::new("/bin/sh"),
                limit,
                &self.log,
                None,
                |piece: &[u8]| said.extend(piece),
            );
            let ended = ended.await.unwrap();
            (ended, String::from_utf8(said).unwrap())
        }

        fn file(&self, name: &str) -> String {
            fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    fn lives(pid: &str) -> bool {
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::test_kill_process(pid).is_ok()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_streams_are_shown_and_kept_in_their_order() {
        let bench = Bench::new();
        let (ended, said) = bench.run("echo a; echo b >&2; echo c; exit 3", LONG).await;
        assert_eq!((ended, said.as_str()), (ProgramEnd::Code(3), "a\nb\nc\n"));
        assert_eq!(bench.file("log"), "a\nb\nc\n");
        let (ended, _) = bench.run("kill -9 $$", LONG).await;
        assert_eq!(ended.says(LONG), "ended by signal 9");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_program_leaves_running_ends_with_it() {
        let bench = Bench::new();
        let (ended, said) = bench.run("sleep 600 & echo $! > left; echo done", LONG).await;
        assert_eq!((ended, said.as_str()), (ProgramEnd::Code(0), "done\n"));
        let left = bench.file("left");
        wait::until("what was left ends", || !lives(&left));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_program_that_takes_too_long_can_clean_up() {
        let bench = Bench::new();
        let script = "trap 'echo cleaned > cleaned; exit 0' INT; echo ready; while :; do sleep 0.05; done";
        let (ended, said) = bench.run(script, Duration::from_secs(2)).await;
        assert_eq!((ended, said.as_str()), (ProgramEnd::TimedOut, "ready\n"));
        assert_eq!(bench.file("cleaned"), "cleaned\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_interruption_ends_the_group_after_it_cleaned_up() {
        let bench = Bench::new();
        // More than a pipe holds, while nobody listens.
        let script = "echo $$ > group; trap 'head -c 300000 /dev/zero; echo cleaned > cleaned; exit 0' INT; echo ready\n\
                      while :; do sleep 0.05; done";
        let (told, heard) = tokio::sync::oneshot::channel();
        let mut told = Some(told);
        let running = run(
            bench.command(script),
            Path::new("sh"),
            LONG,
            &bench.log,
            None,
            |_: &[u8]| {
                told.take().into_iter().for_each(|told| told.send(()).unwrap());
            },
        );
        tokio::select! {
            _ = running => panic!("it ended"),
            _ = heard => {}
        }
        assert_eq!(bench.file("cleaned"), "cleaned\n");
        let group = bench.file("group");
        wait::until("the group ends", || !lives(&group));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_program_that_is_not_there_is_an_error() {
        let bench = Bench::new();
        let command = Command::new("/nonexistent/check");
        let error = run(
            command,
            Path::new("/nonexistent/check"),
            LONG,
            &bench.log,
            None,
            |_: &[u8]| {},
        )
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/check can't be started");
    }
}
