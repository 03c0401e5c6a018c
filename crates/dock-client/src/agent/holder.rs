//! A process that keeps an agent alive: a docked shell.

use serde::{Deserialize, Serialize};

/// A process, distinguished from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: i32,
    /// When it was started, in the system's own unit (clock ticks since boot on Linux); `None` if that is not known.
    pub started: Option<u64>,
}

impl Holder {
    /// The process that has this number now; `None` if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        exists(pid).then(|| Self {
            pid,
            started: started(pid),
        })
    }

    /// Whether it still lives.
    pub fn lives(&self) -> bool {
        exists(self.pid) && (self.started.is_none() || self.started == started(self.pid))
    }
}

/// The processes from this one upwards: itself, its parent and so on. Only itself if the system does not say who its
/// parent is.
pub fn lineage(pid: i32) -> Vec<i32> {
    let mut line = vec![pid];
    // A chain that is longer than any shell's has a loop in it: numbers can be reused while the chain is followed.
    while line.len() < 64
        && let Some(parent) = line.last().and_then(|last| stat(*last, 1)?.parse().ok())
        && parent > 0
    {
        line.push(parent);
    }
    line
}

fn exists(pid: i32) -> bool {
    // Numbers below one name groups of processes, and rustix does not accept them.
    let Some(pid) = Some(pid)
        .filter(|pid| *pid > 0)
        .and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    match rustix::process::test_kill_process(pid) {
        Ok(()) => true,
        // The process exists, and is another user's.
        Err(cause) => cause == rustix::io::Errno::PERM,
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)).
fn started(pid: i32) -> Option<u64> {
    stat(pid, 19)?.parse().ok()
}

/// A field of `/proc/PID/stat`, counted from the state, which is the third. The second is the program's name in
/// parentheses, which may itself hold blanks and parentheses.
#[cfg(target_os = "linux")]
fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A process that has ended and was not waited for is as good as gone.
    if matches!(fields.clone().next()?, "Z" | "X") {
        return None;
    }
    fields.nth(field).map(str::to_owned)
}

#[cfg(not(target_os = "linux"))]
fn stat(_: i32, _: usize) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends_and_is_told_from_its_namesake() {
        let own = Holder::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.lives());
        #[cfg(target_os = "linux")]
        {
            let namesake = Holder {
                started: own.started.map(|ticks| ticks - 1),
                ..own
            };
            assert!(!namesake.lives());
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let holder = Holder::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(holder.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!holder.lives());
        #[cfg(target_os = "linux")]
        {
            let line = lineage(own.pid);
            let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
            assert_eq!(line[..2], [own.pid, parent]);
        }
        assert_eq!(lineage(i32::MAX), [i32::MAX]);
        for nobody in [0, -1, i32::MIN] {
            assert_eq!(Holder::of(nobody), None);
        }
    }
}
