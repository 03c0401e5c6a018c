//! The process that syncs one project for the agent: the agent's side of [`dock_client::mount_sync`].
//!
//! It is a process of its own because an agent contains nothing of syncing: so the agent stays small, and what parses a
//! dock's files can't harm the connection.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use dock_client::mount_sync::{
    ARGUMENT, Done, LONGEST_LINE, PROGRAM, SyncCall, SyncFailure, SyncOutcome, SyncReply, Task,
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// How many requests may wait to be written.
const WAITING: usize = 64;
/// The longest line about the sync, in bytes.
const LONGEST_NOTICE: u64 = 4096;
/// How long its last sync may take when the agent ends.
const LAST_SYNC: Duration = Duration::from_secs(20);

/// A task, and where its outcome goes.
type Asked = (Task, oneshot::Sender<SyncOutcome>);

/// The running process. Once this and its clones are dropped, it brings what is left to bring and ends.
#[derive(Clone, Debug)]
pub(super) struct SyncProcess {
    asked: mpsc::Sender<Asked>,
}

impl SyncProcess {
    /// Starts it for a project; `said` hears what a person should know.
    ///
    /// # Errors
    /// A program that can't be started.
    pub(super) fn start(
        root: &Path,
        moniker: &str,
        said: impl Fn(&str) + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        Self::start_program(&program(), root, moniker, said)
    }

    fn start_program(
        program: &Path,
        root: &Path,
        moniker: &str,
        said: impl Fn(&str) + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let mut child = Command::new(program)
            .args([ARGUMENT, "--quiet", "--dock", moniker])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (asked, asking) = mpsc::channel(WAITING);
        let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let running = tokio::spawn(run(child, stdin, asking, said));
        Ok((Self { asked }, running))
    }

    /// Has a task done. It ends with the process, too.
    pub(super) async fn ask(&self, task: Task) -> Result<Done, SyncFailure> {
        let (tell, told) = oneshot::channel();
        let outcome = match self.asked.send((task, tell)).await {
            Ok(()) => told.await.ok(),
            Err(_) => None,
        };
        match outcome {
            Some(SyncOutcome::Done(done)) => Ok(done),
            Some(SyncOutcome::Failed(failure)) => Err(failure),
            None => Err(SyncFailure {
                message: format!("{PROGRAM} ended before it had synced the project"),
                hint: None,
            }),
        }
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.asked.is_closed()
    }
}

/// Waits for processes that are ending, and ends those that take too long.
pub(super) async fn finish(running: impl IntoIterator<Item = JoinHandle<()>>) {
    let limit = Instant::now() + LAST_SYNC;
    for mut process in running {
        if timeout_at(limit, &mut process).await.is_err() {
            // The child is killed with its task.
            process.abort();
        }
    }
}

/// The program beside our own, where it was installed; else the one on PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name(PROGRAM))
        .filter(|program| program.is_file());
    beside.unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// Writes requests and reads answers, until nobody asks any more and the process has ended.
async fn run(mut child: Child, stdin: ChildStdin, mut asking: mpsc::Receiver<Asked>, said: impl Fn(&str)) {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return;
    };
    let (mut answers, mut notices) = (BufReader::new(stdout), BufReader::new(stderr));
    let (mut line, mut notice) = (Vec::new(), Vec::new());
    let mut pending: HashMap<u64, oneshot::Sender<SyncOutcome>> = HashMap::new();
    let (mut stdin, mut next, mut speaks) = (Some(stdin), 0, true);
    loop {
        tokio::select! {
            asked = asking.recv(), if stdin.is_some() => match asked {
                Some((task, tell)) => {
                    next += 1;
                    pending.insert(next, tell);
                    let written = match &mut stdin {
                        Some(stdin) => write(stdin, SyncCall { id: next, task }).await,
                        None => Ok(()),
                    };
                    if written.is_err() {
                        stdin = None;
                    }
                }
                // Its stdin ends, and it does its last sync.
                None => stdin = None,
            },
            read = read_line(&mut answers, &mut line, LONGEST_LINE as u64) => {
                let answer = match read {
                    Ok(true) => serde_json::from_slice::<SyncReply>(&line),
                    Ok(false) | Err(_) => break,
                };
                // A program of another version says something else.
                let Ok(answer) = answer else { break };
                line.clear();
                if let Some(tell) = pending.remove(&answer.id) {
                    // Who asked may have gone.
                    let _ = tell.send(answer.outcome);
                }
            }
            read = read_line(&mut notices, &mut notice, LONGEST_NOTICE), if speaks => {
                speaks = matches!(read, Ok(true));
                tell_line(&notice, &said);
                notice.clear();
            }
        }
    }
    asking.close();
    drop(pending);
    drop(stdin);
    while let Ok(true) = read_line(&mut notices, &mut notice, LONGEST_NOTICE).await {
        tell_line(&notice, &said);
        notice.clear();
    }
    // What it ended with was said by itself.
    let _ = child.wait().await;
}

/// Reads a line, or the next part of a long one; false at the end. Dropping this future loses nothing: what was read is in `line`.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>, most: u64) -> io::Result<bool> {
    let room = most.saturating_sub(line.len() as u64);
    let read = from.take(room).read_until(b'\n', line).await?;
    Ok(read > 0)
}

fn tell_line(line: &[u8], said: &impl Fn(&str)) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if !text.is_empty() {
        said(text);
    }
}

async fn write(stdin: &mut ChildStdin, request: SyncCall) -> io::Result<()> {
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    stdin.write_all(&line).await?;
    stdin.flush().await
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Arc, Mutex};

    use dock_client::mutex::lock;

    use super::*;

    /// A program that is this script, in a folder of its own.
    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        (folder, program)
    }

    fn start(program: &Path, root: &Path) -> (SyncProcess, JoinHandle<()>, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hearing = Arc::clone(&heard);
        let said = move |line: &str| lock(&hearing).push(line.to_owned());
        let (process, running) = SyncProcess::start_program(program, root, "far", said).unwrap();
        (process, running, heard)
    }

    #[tokio::test]
    async fn answers_reach_whoever_asked_in_any_order() {
        let (folder, program) = script(
            r#"echo "$*" >&2
read -r one; read -r two
echo '{"id":2,"outcome":{"failed":{"message":"no","hint":"do"}}}'
echo '{"id":1,"outcome":{"done":{"workspace":"/w","missing":[]}}}'
cat >/dev/null
echo 'the last words' >&2
"#,
        );
        let (process, running, heard) = start(&program, folder.path());
        let send = Task::Send {
            sources: vec!["src".into()],
        };
        let (one, two) = tokio::join!(process.ask(send), process.ask(Task::Bring));
        let (done, failed) = if one.is_ok() { (one, two) } else { (two, one) };
        assert_eq!(done.unwrap().workspace, "/w");
        assert_eq!(failed.unwrap_err().hint.as_deref(), Some("do"));
        drop(process);
        running.await.unwrap();
        assert_eq!(*lock(&heard), ["--for-agent --quiet --dock far", "the last words"]);
    }

    #[tokio::test]
    async fn a_process_that_ends_or_talks_nonsense_fails_what_was_asked() {
        for text in [
            "exit 1",
            "read -r one; exit 0",
            "read -r one; echo hello; cat >/dev/null",
        ] {
            let (folder, program) = script(text);
            let (process, running, _) = start(&program, folder.path());
            let failure = process.ask(Task::Bring).await.unwrap_err();
            assert!(failure.message.contains("ended before"), "{text}");
            running.await.unwrap();
            assert!(process.has_ended(), "{text}");
        }
    }
}
