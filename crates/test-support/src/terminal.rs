//! A program at a terminal: a pseudo-terminal, as a user would sit at.
#![expect(clippy::panic, clippy::expect_used, reason = "a harness fails its test by panicking")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::mutex::lock;

/// How long to wait: an engine under load may take longer than a user would wait.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to check what is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// A window's size, until it is resized.
const ROWS: u16 = 30;
const COLUMNS: u16 = 100;

/// A program at a terminal of 30 rows and 100 columns; it is the session's first process.
#[derive(Debug)]
pub struct Terminal {
    master: OwnedFd,
    /// Keeps the terminal open when the program has closed it, so that its modes can be read.
    keeper: File,
    child: Child,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How many bytes of the output [`Terminal::expect`] has passed.
    seen: usize,
    /// The sizes of the window, each with how many bytes had been shown when it was set.
    sizes: Vec<(usize, u16, u16)>,
    reading: JoinHandle<()>,
    closed: Arc<AtomicBool>,
}

impl Terminal {
    /// A command that runs `program` at a terminal, once it is given to [`Terminal::start`]. Its process number is the
    /// program's.
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program);
        command
    }

    /// Starts a command from [`Terminal::command`].
    ///
    /// # Panics
    /// When the system gives no terminal, or the program cannot be started.
    pub fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let slave = || {
            let options = File::options()
                .read(true)
                .write(true)
                .open(OsStr::new(name.to_str().expect("a terminal's name is plain")));
            options.expect("it is unlocked")
        };
        tcsetwinsize(&master, size(ROWS, COLUMNS)).expect("a terminal has a size");
        let before = tcgetattr(&master).expect("a terminal has modes");
        let keeper = slave();
        command.stdin(slave()).stdout(slave()).stderr(slave());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", crate::process::shown(&command)));
        // The command holds the other end.
        drop(command);
        let screen = Arc::<Mutex<Vec<u8>>>::default();
        let closed = Arc::<AtomicBool>::default();
        let (shown, closing) = (Arc::clone(&screen), Arc::clone(&closed));
        let mut reader = File::from(master.try_clone().expect("a descriptor"));
        let reading = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // After the last slave is closed, reading gives an error.
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                let mut shown = lock(&shown);
                shown.extend_from_slice(buffer.get(..read).unwrap_or_default());
                if closing.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Self {
            master,
            keeper,
            child,
            before,
            screen,
            seen: 0,
            sizes: vec![(0, ROWS, COLUMNS)],
            reading,
            closed,
        }
    }

    /// Everything that was shown so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown()).into_owned()
    }

    fn shown(&self) -> Vec<u8> {
        lock(&self.screen).clone()
    }

    fn wait(&self, what: &str, until: impl Fn() -> bool) {
        let began = Instant::now();
        while !until() {
            assert!(
                began.elapsed() < PATIENCE,
                "{what} does not come; on the terminal: {}",
                self.text()
            );
            thread::sleep(LOOK);
        }
    }

    /// Waits until this text is shown, after the texts that were waited for before.
    ///
    /// # Panics
    /// When it does not come.
    pub fn expect(&mut self, text: &str) {
        let seen = self.seen;
        let place = || {
            let shown = self.shown();
            let new = shown.get(seen..).unwrap_or_default();
            new.windows(text.len()).position(|window| window == text.as_bytes())
        };
        self.wait(&format!("{text:?}"), || place().is_some());
        let at = place().unwrap_or_default();
        self.seen += at + text.len();
    }

    /// The rows of the screen as a user sees them, without the empty ones at its end.
    ///
    /// # Panics
    /// When a size is zero.
    pub fn rows(&self) -> Vec<String> {
        rows(&self.shown(), &self.sizes)
    }

    /// Waits until the rows of the screen meet this condition, and returns them.
    ///
    /// # Panics
    /// When they never do.
    pub fn rows_when(&self, what: &str, are_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        let began = Instant::now();
        loop {
            let rows = self.rows();
            if are_so(&rows) {
                return rows;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{what} does not come; on the screen: {rows:#?}"
            );
            thread::sleep(LOOK);
        }
    }

    /// Waits for the program, as [`Terminal::end`], and returns the exit code and the rows of the screen that it
    /// leaves.
    ///
    /// # Panics
    /// As there.
    pub fn end_with_rows(self) -> (Option<i32>, Vec<String>) {
        let sizes = self.sizes.clone();
        let (code, shown) = self.end();
        (code, rows(shown.as_bytes(), &sizes))
    }

    /// Waits until the terminal does not echo what is typed.
    ///
    /// # Panics
    /// When it always echoes.
    pub fn wait_for_silence(&self) {
        self.wait("silence", || {
            let modes = tcgetattr(&self.keeper).expect("a terminal has modes");
            !modes.local_modes.contains(LocalModes::ECHO)
        });
    }

    /// Waits until the kernel has handed over what was typed without echo, as a user's pause would: the kernel does so
    /// on a thread of its own, and there is no event for it.
    ///
    /// # Panics
    /// When the terminal echoes.
    pub fn wait_until_taken(&self) {
        self.wait_for_silence();
        thread::sleep(Duration::from_millis(300));
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal accepts no more.
    pub fn type_in(&self, keys: &str) {
        let typed = rustix::io::write(&self.master, keys.as_bytes()).expect("a terminal takes keys");
        assert_eq!(typed, keys.len(), "the terminal takes no more");
    }

    /// Resizes the window.
    ///
    /// # Panics
    /// When the terminal does not accept the size.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.sizes.push((self.shown().len(), rows, columns));
        tcsetwinsize(&self.master, size(rows, columns)).expect("a terminal has a size");
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a process has an id"), signal).expect("a process of ours takes our signals");
    }

    /// Closes the window: the terminal is gone, whatever the program does. Returns the exit code.
    ///
    /// # Panics
    /// When the program does not end.
    pub fn close(mut self) -> Option<i32> {
        self.closed.store(true, Ordering::Relaxed);
        // The echo wakes the thread that reads.
        self.type_in("#");
        self.reading.join().expect("it only reads");
        drop((self.master, self.keeper));
        end(&mut self.child, &self.screen)
    }

    /// Waits for the program; the terminal must be as it was before. Returns the exit code and everything that was
    /// shown.
    ///
    /// # Panics
    /// When the program does not end, or leaves the terminal in another mode.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = end(&mut self.child, &self.screen);
        let after = tcgetattr(&self.keeper).expect("a terminal has modes");
        assert_eq!(
            format!("{after:?}"),
            format!("{:?}", self.before),
            "the terminal's modes"
        );
        drop(self.keeper);
        self.reading.join().expect("it only reads");
        let screen = lock(&self.screen);
        (code, String::from_utf8_lossy(&screen).into_owned())
    }
}

fn end(child: &mut Child, screen: &Mutex<Vec<u8>>) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status.code();
        }
        if began.elapsed() > PATIENCE {
            // If it can't be killed, it ended just now.
            let _ = child.kill();
            let screen = lock(screen);
            panic!("the program does not end: {}", String::from_utf8_lossy(&screen));
        }
        thread::sleep(LOOK);
    }
}

/// What a terminal emulator of these sizes shows, if it leaves lines as they are when it is resized.
fn rows(shown: &[u8], sizes: &[(usize, u16, u16)]) -> Vec<String> {
    let count = |number: u16| NonZero::new(number).expect("a window has a size");
    let mut parser = vt100::Parser::new(count(ROWS), count(COLUMNS), 0);
    let mut at = 0;
    for (from, rows, columns) in sizes {
        parser.process(shown.get(at..*from).unwrap_or_default());
        parser.screen_mut().set_size(count(*rows), count(*columns));
        at = *from;
    }
    parser.process(shown.get(at..).unwrap_or_default());
    let columns = parser.screen().size().1.into();
    let rows = parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned());
    let mut rows: Vec<String> = rows.collect();
    while rows.last().is_some_and(String::is_empty) {
        rows.pop();
    }
    rows
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
