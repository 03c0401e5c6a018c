//! A program in a process group that ends with it, and with us: what a test starts does not stay.
//!
//! The first process of the group is a shell, the *keeper*. It waits for the end of our pipe to it. When we are killed, the system closes
//! that pipe, and the keeper ends the group: it interrupts it, so that pytest removes its containers, and kills what stays. It
//! holds the lock until then, so that no other suite meets the rest of this one. (`PR_SET_PDEATHSIG` would be Linux's alone, would
//! kill pytest in the middle, and nothing that pytest started; and it is told the end of a thread.)

use std::fs::File;
use std::io::{self, Write as _};
use std::process::{Child as StdChild, Command as StdCommand, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// How long a program may take to clean up: pytest ends the fixtures, which remove their containers; and how long one that does not
/// know of an interruption.
const GRACE: Duration = Duration::from_secs(10);
const TERMINATION: Duration = Duration::from_secs(2);
/// The pause between two looks at a program that is to end.
const LOOK: Duration = Duration::from_millis(20);
/// `$1`: how often it looks, in the time of [`GRACE`], whether the program still runs. Its stdin has the number of the program in the
/// first line. It is of the group, too, so the last line ends itself.
const KEEPER: &str = "trap '' HUP INT QUIT TERM
read -r program
read -r line
kill -INT 0
while [ -n \"$program\" ] && [ \"$1\" -gt 0 ] && kill -0 \"$program\" 2>/dev/null; do
    set -- $(($1 - 1))
    sleep 0.1 || sleep 1
done
kill -KILL 0";
const LOOKS: &str = "100";

/// A program that runs. When this is dropped, its group is asked to end, and then made to.
pub(super) struct ProgramGroup {
    child: Child,
    /// The first of the group. It is awaited last: as long as it is not, no other group has this number.
    keeper: StdChild,
    has_ended: bool,
}

impl ProgramGroup {
    /// Starts the program, with a keeper that holds the lock.
    ///
    /// # Errors
    /// One of the two can't be started.
    pub(super) fn start(command: &mut Command, lock: Option<&File>) -> io::Result<Self> {
        let held = match lock {
            Some(file) => Stdio::from(file.try_clone()?),
            None => Stdio::null(),
        };
        let mut shell = StdCommand::new("/bin/sh");
        shell
            .args(["-c", KEEPER, "dockerutils", LOOKS])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(held)
            .stderr(Stdio::null())
            .process_group(0);
        let mut keeper = shell.spawn()?;
        let number = i32::try_from(keeper.id()).map_err(io::Error::other);
        let child = number.and_then(|number| command.process_group(number).spawn());
        let child = match child {
            Ok(child) => child,
            Err(cause) => {
                // It waits for nothing, and has nobody to end.
                let _ = keeper.kill().and_then(|()| keeper.wait());
                return Err(cause);
            }
        };
        if let (Some(told), Some(program)) = (&mut keeper.stdin, child.id()) {
            // Without it, it would not wait before it kills.
            let _ = writeln!(told, "{program}");
        }
        Ok(Self {
            child,
            keeper,
            has_ended: false,
        })
    }

    /// Waits for the program, not for the rest of its group.
    ///
    /// # Errors
    /// What the system says.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let ended = self.child.wait().await;
        self.has_ended = true;
        ended
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > limit {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    fn kill(&self, signal: Signal) {
        let group = i32::try_from(self.keeper.id()).ok().and_then(Pid::from_raw);
        // Nobody may be left of it.
        let _ = group.map(|group| kill_process_group(group, signal));
    }
}

impl Drop for ProgramGroup {
    fn drop(&mut self) {
        if !self.has_ended {
            // As Ctrl-C: pytest removes its containers then.
            self.kill(Signal::INT);
            if !self.ends_within(GRACE) {
                self.kill(Signal::TERM);
                self.ends_within(TERMINATION);
            }
        }
        self.kill(Signal::KILL);
        self.ends_within(TERMINATION);
        // It has been killed.
        let _ = self.keeper.wait();
    }
}
