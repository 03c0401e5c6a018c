//! Calls of the dock's shell: input, output and errors.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dock_client::mutex::lock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_util::io::SyncIoBridge;

use crate::agent::target::{Exec, Exit, RemoteCommand};
use crate::agent::{Agent, CallOptions};
use crate::error::{Error, Result};
use crate::hint;
use crate::output::visible;

/// How much of a script's complaints is kept.
const COMPLAINTS: usize = 64 * 1024;
/// How much a script may complain, or print after all that was asked for.
const EXCESS: u64 = 16 * 1024 * 1024;
/// How long a script may take to end after all its output has come.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// How much output may come before a script's own first line.
const GREETINGS: usize = 256 * 1024;

/// The streams of a program that runs.
pub struct Streams {
    /// Its stdin, at its end when it is shut down.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// How it will have ended.
    pub exit: Pin<Box<dyn Future<Output = Result<Exit>> + Send>>,
}

/// Where programs are run.
pub trait Shell: Send + Sync {
    /// Runs a program with these arguments.
    fn run(&self, argv: Vec<String>) -> impl Future<Output = Result<Streams>> + Send;

    /// The dock, by its moniker.
    fn dock(&self) -> &str;
}

/// A dock, by its agent.
#[derive(Clone, Debug)]
pub struct DockShell {
    pub agent: Agent,
    /// How it is called.
    pub options: CallOptions,
    /// Whether it was reached at some time.
    pub reached: Arc<AtomicBool>,
}

impl Shell for DockShell {
    async fn run(&self, argv: Vec<String>) -> Result<Streams> {
        let exec = Exec {
            command: RemoteCommand::Argv(argv),
            pty: None,
        };
        let execution = self.agent.execute(exec, &self.options).await?;
        self.reached.store(true, Ordering::Release);
        Ok(Streams {
            stdin: Box::new(execution.stdin),
            stdout: Box::new(execution.stdout),
            stderr: Box::new(execution.stderr),
            exit: Box::pin(execution.exit.wait()),
        })
    }

    fn dock(&self) -> &str {
        &self.agent.dock().moniker
    }
}

/// What a script is given, beside its arguments.
pub type Feed<F> = Box<dyn FnOnce(&mut dyn Write) -> Result<F> + Send>;
/// What is made of what it says.
pub type Take<T> = Box<dyn FnOnce(&mut dyn Read) -> Result<T> + Send>;

/// How a call came out.
#[derive(Debug)]
pub struct CallOutput<F, T> {
    pub fed: Result<F>,
    pub taken: Result<T>,
    /// How it ended.
    pub exit: Exit,
    /// What it complained about.
    pub complaints: String,
    /// Whether it complained about more than that.
    pub complaints_cut: bool,
    dock: String,
}

impl<F, T> CallOutput<F, T> {
    /// Both results of a call that ended well.
    ///
    /// # Errors
    /// What went wrong, with the dock's own messages.
    pub fn ok(self, doing: &str) -> Result<(F, T)> {
        let failed = Failed {
            exit: self.exit,
            complaints: self.complaints,
            dock: self.dock,
        };
        if failed.exit != Exit::Code(0) {
            return Err(match (self.fed, self.taken) {
                // A file here that can't be read breaks the script, too.
                (Err(error), _) if failed.exit == Exit::Code(76) => error,
                _ => failed.error(doing),
            });
        }
        // Where what was fed broke, the rest is a consequence.
        let fed = self.fed?;
        Ok((fed, self.taken?))
    }
}

struct Failed {
    exit: Exit,
    complaints: String,
    dock: String,
}

impl Failed {
    fn error(&self, doing: &str) -> Error {
        let error = Error::failed(format!("{} could not {doing}", visible(&self.dock)));
        let last = self
            .complaints
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty());
        let full =
            self.complaints.contains("No space left on device") || self.complaints.contains("Disk quota exceeded");
        let code = match &self.exit {
            Exit::Code(code) => format!("the script there ended with code {code}"),
            Exit::Signal(name) => format!("the script there was ended by SIG{}", visible(name)),
        };
        // Of tar's lines, the last says only that there were others.
        let telling = self
            .complaints
            .lines()
            .find(|line| line.contains("No space left") || line.contains("quota"));
        let error = error.because(telling.or(last).map_or(code, visible));
        if full {
            error.hint(hint!(
                "its disk is full; nothing of this sync was put in place. ssh-dock {} df -h shows what is left",
                self.dock
            ))
        } else if self.complaints.contains("not found") {
            error.hint(
                "the dock needs a POSIX shell and find, stat, sha256sum, xargs, tar, mv and cmp, as busybox has them",
            )
        } else {
            error.hint("try again; what has arrived stays, and every file is whole")
        }
    }
}

/// Runs a script, with the word of this call as its first argument.
///
/// # Errors
/// A link that breaks; what the script itself makes wrong is in the reply.
pub async fn call<F: Send + 'static, T: Send + 'static>(
    shell: &impl Shell,
    script: &str,
    word: &str,
    arguments: &[&str],
    feed: Feed<F>,
    take: Take<T>,
) -> Result<CallOutput<F, T>> {
    // What the two give goes past the call, whose code, with that of the runtime's tasks, is compiled once.
    let (fed, taken) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
    let (keep_fed, keep_taken) = (Arc::clone(&fed), Arc::clone(&taken));
    let feed: Feed<()> = Box::new(move |to| {
        *lock(&keep_fed) = Some(feed(to)?);
        Ok(())
    });
    let take: Take<()> = Box::new(move |from| {
        *lock(&keep_taken) = Some(take(from)?);
        Ok(())
    });
    let output = exchange(shell, script, word, arguments, feed, take).await?;
    Ok(CallOutput {
        fed: output.fed.and_then(|()| lock(&fed).take().ok_or_else(not_run)),
        taken: output.taken.and_then(|()| lock(&taken).take().ok_or_else(not_run)),
        exit: output.exit,
        complaints: output.complaints,
        complaints_cut: output.complaints_cut,
        dock: output.dock,
    })
}

/// A thread that panicked, or was never started.
fn not_run() -> Error {
    Error::failed("a part of the sync could not be run")
}

/// [`call`], whatever is fed and taken.
async fn exchange(
    shell: &impl Shell,
    script: &str,
    word: &str,
    arguments: &[&str],
    feed: Feed<()>,
    take: Take<()>,
) -> Result<CallOutput<(), ()>> {
    let fixed = ["sh", "-c", script, "sh", word];
    let argv = fixed.iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    let Streams {
        stdin,
        stdout,
        mut stderr,
        exit,
    } = shell.run(argv).await?;
    let greeting = format!("dockerutils-sync {word}\n");
    let dock = shell.dock().to_owned();
    let taken_from = dock.clone();
    let feeding = tokio::task::spawn_blocking(move || {
        let mut bridge = SyncIoBridge::new(stdin);
        let fed = feed(&mut bridge);
        // Also of what broke: the script is to see its end.
        let _ = bridge.shutdown();
        fed
    });
    let (tell, taken_in) = tokio::sync::oneshot::channel();
    let taking = tokio::task::spawn_blocking(move || {
        let mut bridge = SyncIoBridge::new(stdout);
        let taken = skip_greetings(&mut bridge, greeting.as_bytes(), &taken_from).and_then(|()| take(&mut bridge));
        // Whoever asked has gone.
        let _ = tell.send(());
        // The script comes to its end only when somebody listens.
        match io::copy(&mut (&mut bridge).take(EXCESS), &mut io::sink()) {
            Ok(EXCESS..) => Err(taken.err().unwrap_or_else(|| too_much(&taken_from))),
            _ => Ok(taken),
        }
    });
    let complaining = async {
        let mut complaints = Vec::new();
        let mut buffer = vec![0; 8192];
        let mut all = 0;
        let mut cut = false;
        while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
            all += read as u64;
            if all >= EXCESS {
                return Err(too_much(&dock));
            }
            let room = COMPLAINTS.saturating_sub(complaints.len()).min(read);
            cut |= room < read;
            complaints.extend_from_slice(buffer.get(..room).unwrap_or_default());
        }
        Ok((String::from_utf8_lossy(&complaints).into_owned(), cut))
    };
    let thread = |_| not_run();
    // The first that says too much ends all: with its streams and its exit, the connection goes.
    let all = async {
        tokio::try_join!(
            async { feeding.await.map_err(thread) },
            async { taking.await.map_err(thread)? },
            complaining,
            async { Ok(exit.await) },
        )
    };
    let late = async {
        let _ = taken_in.await;
        tokio::time::sleep(AFTERWARDS).await;
    };
    let (fed, taken, (complaints, complaints_cut), exit) = tokio::select! {
        all = all => all?,
        () = late => return Err(too_much(&dock)),
    };
    Ok(CallOutput {
        fed,
        taken,
        exit: exit?,
        complaints,
        complaints_cut,
        dock,
    })
}

fn too_much(dock: &str) -> Error {
    Error::failed(format!(
        "what {} sends does not end, though all that was requested has arrived",
        visible(dock)
    ))
    .hint(login_shell(dock))
}

/// What shows whether the login shell of a dock gets in the way.
pub fn login_shell(dock: &str) -> String {
    hint!(
        "ssh-dock {} sh -c 'echo works' should print \"works\" and end; look at what the login shell there does",
        dock
    )
}

/// Feeds paths, each with a NUL after it.
pub fn feed_paths(paths: &[Vec<u8>]) -> Feed<()> {
    let mut text = Vec::new();
    for path in paths {
        text.extend_from_slice(b"./");
        text.extend_from_slice(path);
        text.push(0);
    }
    feed_text(text)
}

/// Feeds a text as it is.
pub fn feed_text(text: Vec<u8>) -> Feed<()> {
    Box::new(move |to| to.write_all(&text).or_else(gone).map_err(|cause| broken(&cause)))
}

/// Feeds nothing.
pub fn feed_nothing() -> Feed<()> {
    Box::new(|_| Ok(()))
}

/// A script that ended early says why by itself.
fn gone(cause: io::Error) -> io::Result<()> {
    match cause.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::WriteZero => Ok(()),
        _ => Err(cause),
    }
}

/// The link broke in the middle.
pub fn broken(cause: &io::Error) -> Error {
    Error::unreachable(format!("the connection to the dock broke: {cause}"))
        .hint("try again; what has arrived stays, and every file is whole")
}

/// Reads past what a login shell prints, to the script's first line.
fn skip_greetings(from: &mut dyn Read, greeting: &[u8], dock: &str) -> Result<()> {
    let mut line = Vec::new();
    let mut read = 0;
    let mut byte = [0];
    while read < GREETINGS {
        match from.read(&mut byte) {
            Ok(1..) => {}
            Ok(_) => break,
            Err(cause) => return Err(broken(&cause)),
        }
        read += 1;
        line.extend_from_slice(&byte);
        if byte == *b"\n" {
            if line.ends_with(greeting) {
                return Ok(());
            }
            line.clear();
        }
    }
    let error = Error::failed(format!(
        "the shell of {} does not run the commands that it gets",
        visible(dock)
    ));
    Err(error.hint(login_shell(dock)))
}

/// Reads a line of a script, without its line feed.
///
/// # Errors
/// A stream that ends, and a line that is longer than any of ours.
pub fn read_line(from: &mut dyn Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 16 * 1024 {
        match from.read(&mut byte) {
            Ok(1..) if byte == *b"\n" => {
                return String::from_utf8(line).map_err(|_| Error::failed("the dock's answer is not UTF-8"));
            }
            Ok(1..) => line.extend_from_slice(&byte),
            Ok(_) => break,
            Err(cause) => return Err(broken(&cause)),
        }
    }
    Err(Error::unreachable("the dock's answer is cut short").hint("try again"))
}
