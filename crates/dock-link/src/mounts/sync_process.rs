//! The process that syncs one project for the agent: the agent's side of [`dock_client::mount_sync`].
//!
//! It is a process of its own because an agent contains nothing of syncing: so the agent stays small, and what parses a
//! dock's files can't harm the connection.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dock_client::error::WireError;
use dock_client::mount_sync::{ARGUMENT, Done, LONGEST_LINE, PROGRAM, SyncCall, SyncOutcome, SyncReply, Task};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// How many requests may be under way; each is that of a client.
const WAITING: usize = 1000;
/// The longest line about the sync, in bytes.
const LONGEST_NOTICE: u64 = 4096;
/// How long its last sync may take when the agent ends.
const LAST_SYNC: Duration = Duration::from_secs(20);
/// How long a process may take for its last sync once nobody needs it any more.
const LAST_ROUND: Duration = Duration::from_secs(900);
/// How long a process may take for its last words once it answers no more.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a task may take. What takes longer is a first sync, and those are a person's.
const LONGEST_TASK: Duration = Duration::from_secs(3600);

/// A task, and where its outcome goes.
type Asked = (Task, oneshot::Sender<SyncOutcome>);

/// The running process. Once this and its clones are dropped, it brings what is left to bring and ends.
#[derive(Clone, Debug)]
pub(super) struct SyncProcess {
    asked: mpsc::Sender<Asked>,
    /// Ends the process at once.
    stop: Arc<Notify>,
    /// What it said last, once it has ended.
    words: watch::Receiver<Option<LastWords>>,
    longest: Duration,
}

impl SyncProcess {
    /// Starts this program for a project; `said` hears what a person should know. This waits for the disk that the project is
    /// on.
    ///
    /// # Errors
    /// A folder that is gone, and a program that can't be started.
    pub(super) fn start(
        program: &Path,
        root: &Path,
        moniker: &str,
        said: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<(Self, JoinHandle<()>), WireError> {
        let child = Command::new(program)
            .args([ARGUMENT, "--quiet", "--dock", moniker])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|cause| unstarted(program, root, &cause))?;
        let (asked, asking) = mpsc::channel(WAITING);
        let stop = Arc::<Notify>::default();
        let (last, words) = watch::channel(None);
        let running = tokio::spawn(run(child, asking, Arc::clone(&stop), last, said));
        let process = Self {
            asked,
            stop,
            words,
            longest: LONGEST_TASK,
        };
        Ok((process, running))
    }

    /// Has a task done. It ends with the process, too, and one that takes too long ends that.
    pub(super) async fn ask(&self, task: Task) -> Result<Done, WireError> {
        let (tell, told) = oneshot::channel();
        let asking = async {
            self.asked.send((task, tell)).await.ok()?;
            told.await.ok()
        };
        match timeout(self.longest, asking).await {
            Ok(Some(SyncOutcome::Done(done))) => Ok(done),
            Ok(Some(SyncOutcome::Failed(failure))) => Err(failure),
            Ok(None) => {
                let mut words = self.words.clone();
                let words = match timeout(2 * LAST_WORDS, words.wait_for(Option::is_some)).await {
                    Ok(Ok(words)) => words.clone().unwrap_or_default(),
                    _ => LastWords::default(),
                };
                Err(ended(words))
            }
            Err(_) => {
                self.stop.notify_one();
                Err(WireError::failed(
                    format!("it took longer than {} minutes", self.longest.as_secs() / 60),
                    Some("sync-up takes the time that it needs, and what has arrived stays".to_owned()),
                ))
            }
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

/// The program beside our own, where it was installed; else the one in an absolute directory of PATH. The process starts in
/// the project's folder, and what lies there must not be run.
pub(super) fn program(path: Option<&OsStr>) -> PathBuf {
    let beside = env::current_exe().ok().map(|own| own.with_file_name(PROGRAM));
    let directories = env::split_paths(path.unwrap_or_default()).filter(|directory| directory.is_absolute());
    let on_path = directories.map(|directory| directory.join(PROGRAM));
    let mut programs = beside.clone().into_iter().chain(on_path);
    let found = programs.find(|program| program.is_file());
    // Where there is none, this is where it is missed.
    found.or(beside).unwrap_or_else(|| Path::new("/").join(PROGRAM))
}

fn unstarted(program: &Path, root: &Path, cause: &io::Error) -> WireError {
    let (why, hint) = match cause.kind() {
        io::ErrorKind::NotFound if !root.is_dir() => (
            "the folder is gone".to_owned(),
            "bring it back, or remove the containers that mount it".to_owned(),
        ),
        io::ErrorKind::NotFound if !program.is_file() => (
            format!("{PROGRAM} is not installed"),
            format!("install {PROGRAM} beside dock-agent: cargo xtask install"),
        ),
        _ => (
            format!("{} can't be started: {cause}", program.display()),
            format!("to see why: {} --help", program.display()),
        ),
    };
    WireError::failed(format!("{} can't be synced: {why}", root.display()), Some(hint))
}

/// The failure of what a process was asked for that has ended.
fn ended(words: LastWords) -> WireError {
    let cause = match words.cause.as_str() {
        "" => String::new(),
        cause => format!(": {cause}"),
    };
    WireError::failed(
        format!("{PROGRAM} ended before it had synced the project{cause}"),
        words.hint,
    )
}

/// What a process said last, as a command prints an error.
#[derive(Clone, Debug, Default)]
struct LastWords {
    cause: String,
    hint: Option<String>,
}

impl LastWords {
    fn hear(&mut self, line: &str) {
        match line.strip_prefix("hint: ") {
            Some(hint) => self.hint = Some(hint.to_owned()),
            None => {
                let cause = line.strip_prefix(PROGRAM).and_then(|rest| rest.strip_prefix(": "));
                *self = Self {
                    cause: cause.unwrap_or(line).to_owned(),
                    hint: None,
                };
            }
        }
    }
}

/// Passes requests on and reads answers, until nobody asks any more and the process has ended.
async fn run(
    mut child: Child,
    mut asking: mpsc::Receiver<Asked>,
    stop: Arc<Notify>,
    last: watch::Sender<Option<LastWords>>,
    said: impl Fn(&str),
) {
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let (mut answers, mut notices) = (BufReader::new(stdout), BufReader::new(stderr));
    let (mut line, mut notice) = (Vec::new(), Vec::new());
    let mut pending: HashMap<u64, oneshot::Sender<SyncOutcome>> = HashMap::new();
    let (mut next, mut speaks, mut words) = (0, true, LastWords::default());
    // A process that does not read holds up nobody: what waits to be written is no more than what is pending.
    let (calls, waiting) = mpsc::unbounded_channel();
    let mut writing = JoinSet::new();
    writing.spawn(write_calls(stdin, waiting));
    let mut calls = Some(calls);
    let mut limit = None;
    loop {
        let over = async {
            match limit {
                Some(limit) => sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            asked = asking.recv(), if calls.is_some() && pending.len() < WAITING => {
                let is_taken = match (asked, &calls) {
                    (Some((task, tell)), Some(calls)) => {
                        next += 1;
                        pending.insert(next, tell);
                        calls.send(SyncCall { id: next, task }).is_ok()
                    }
                    _ => false,
                };
                if !is_taken {
                    // Its stdin ends, and it does its last sync.
                    asking.close();
                    calls = None;
                    limit = Some(Instant::now() + LAST_ROUND);
                }
            }
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
                hear(&mut notice, &mut words, &said);
            }
            () = over => {
                said(&format!("{PROGRAM} took too long for its last sync, and was ended"));
                let _ = child.start_kill();
                break;
            }
            () = stop.notified() => {
                let _ = child.start_kill();
                break;
            }
        }
    }
    asking.close();
    drop(calls);
    let hearing = async {
        while let Ok(true) = read_line(&mut notices, &mut notice, LONGEST_NOTICE).await {
            hear(&mut notice, &mut words, &said);
        }
        // What it ended with was said by itself.
        let _ = child.wait().await;
    };
    // What does not end is killed with its handle.
    let _ = timeout(LAST_WORDS, hearing).await;
    last.send_replace(Some(words));
    // Who asked, or asks still, hears of the end by that of its channel.
}

/// Says a line, and keeps it as what was said last.
fn hear(line: &mut Vec<u8>, words: &mut LastWords, said: &impl Fn(&str)) {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if !text.is_empty() {
        words.hear(text);
        said(text);
    }
    line.clear();
}

/// Writes requests until there are no more, or the process reads none.
async fn write_calls(mut stdin: ChildStdin, mut calls: mpsc::UnboundedReceiver<SyncCall>) {
    while let Some(call) = calls.recv().await {
        if write(&mut stdin, call).await.is_err() {
            return;
        }
    }
}

/// Reads a line, or the next part of a long one; false at the end. Dropping this future loses nothing: what was read is in `line`.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>, most: u64) -> io::Result<bool> {
    let room = most.saturating_sub(line.len() as u64);
    let read = from.take(room).read_until(b'\n', line).await?;
    Ok(read > 0)
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
        let (process, running) = SyncProcess::start(program, root, "far", said).unwrap();
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

    #[tokio::test]
    async fn what_a_process_said_last_is_why_it_ended() {
        let (folder, program) =
            script("read -r one; printf 'a note\nsync-up: no such dock\n\nhint: ls-dock\n' >&2; exit 1");
        let (process, running, heard) = start(&program, folder.path());
        let failure = process.ask(Task::Bring).await.unwrap_err();
        assert!(failure.message.ends_with("the project: no such dock"), "{failure:?}");
        assert_eq!(failure.hint.as_deref(), Some("ls-dock"));
        running.await.unwrap();
        assert_eq!(*lock(&heard), ["a note", "sync-up: no such dock", "hint: ls-dock"]);
    }

    #[tokio::test]
    async fn a_process_that_reads_nothing_holds_up_nobody_and_answers_all_the_same() {
        // More than a pipe holds.
        let send = || Task::Send {
            sources: vec!["x".repeat(200_000)],
        };
        let (folder, program) = script(
            r#"read -r one
for i in 1 2 3; do echo '{"id":'$i',"outcome":{"done":{"workspace":"/w","missing":[]}}}'; done
read -r two; cat >/dev/null"#,
        );
        let (process, running, _) = start(&program, folder.path());
        let (one, two, three) = tokio::join!(process.ask(send()), process.ask(send()), process.ask(send()));
        assert!(one.is_ok() && two.is_ok() && three.is_ok());
        drop(process);
        running.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_never_ends_is_given_up_and_its_process_ended() {
        let (folder, program) = script("exec sleep 1000");
        let (mut process, running, _) = start(&program, folder.path());
        process.longest = Duration::from_millis(50);
        let failure = process.ask(Task::Bring).await.unwrap_err();
        assert!(failure.message.contains("took longer"), "{failure:?}");
        running.await.unwrap();
        assert!(process.has_ended());
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let program = folder.path().join(PROGRAM);
        let failure = unstarted(&program, &folder.path().join("gone"), &cause);
        assert!(failure.message.ends_with("the folder is gone"), "{failure:?}");
        let failure = unstarted(&program, folder.path(), &cause);
        assert!(failure.message.ends_with("sync-up is not installed"), "{failure:?}");
    }

    #[test]
    fn no_program_of_the_projects_own_folder_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let installed = folder.path().join(PROGRAM);
        fs::write(&installed, "").unwrap();
        let path = format!(".::bin:{}", folder.path().display());
        assert_eq!(program(Some(path.as_ref())), installed);
        for path in [Some(".::bin".as_ref()), None] {
            let found = program(path);
            assert!(found.is_absolute() && !found.exists(), "{found:?}");
        }
    }
}
