//! Sentences for the people in docked shells: each is shown at the shell's next prompt, and all are in the log.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use dock_client::agent::paths::AgentPaths;
use dock_client::mutex::lock;
use dock_client::private_file;
use dock_client::text::visible;

use crate::log::Log;
use crate::shells::Shells;

/// The most that waits for a prompt, in bytes.
const NOTICE: u64 = 4096;

/// The notices of one agent.
pub(crate) struct Notices {
    moniker: String,
    paths: AgentPaths,
    log: Log,
    shells: Arc<Mutex<Shells>>,
    /// Held while a notice is written, so that notices from before stay in it.
    leaving: Mutex<()>,
}

impl Notices {
    /// Without the notices of an earlier agent.
    pub(crate) fn new(moniker: String, paths: AgentPaths, shells: Arc<Mutex<Shells>>, log: Log) -> Arc<Self> {
        let notices = Self {
            moniker,
            paths,
            log,
            shells,
            leaving: Mutex::default(),
        };
        // An agent that was killed may have left notices.
        notices.clean();
        Arc::new(notices)
    }

    /// Shows this line at the next prompt of every docked shell; returns how many there are.
    pub(crate) fn tell_all(&self, line: &str) -> usize {
        let shells: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for shell in &shells {
            if let Err(cause) = self.leave(*shell, &format!("dock: {}\n", visible(line))) {
                self.log.line(format!("a notice can't be written: {cause}"));
            }
        }
        shells.len()
    }

    /// Takes back what was told to all and still waits for a prompt, since it is not true any more; `instead` is told in its place.
    /// Gives at how many shells it waited.
    pub(crate) fn take_back(&self, line: &str, instead: Option<&str>) -> usize {
        let of = |line: &str| format!("dock: {}\n", visible(line));
        let (old, new) = (of(line), instead.map(of).unwrap_or_default());
        let _alone = lock(&self.leaving);
        let mut waited = 0;
        for (_, file) in self.paths.notice_files() {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            if !text.split_inclusive('\n').any(|line| line == old) {
                continue;
            }
            waited += 1;
            let lines = text.split_inclusive('\n');
            let left: String = lines
                .map(|line| if line == old { new.as_str() } else { line })
                .collect();
            if let Err(cause) = private_file::replace_quickly(&file, left.as_bytes()) {
                self.log.line(format!("a shell can't be told: {cause}"));
            }
        }
        waited
    }

    /// The dock's moniker.
    pub(crate) fn moniker(&self) -> &str {
        &self.moniker
    }

    /// Leaves a text for a shell's next prompt.
    fn leave(&self, shell: i32, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let _alone = lock(&self.leaving);
        let file = self.paths.notice_file(shell);
        let before = match fs::metadata(&file) {
            // A shell that shows no notices has them in the log.
            Ok(found) if found.len() > NOTICE => return Ok(()),
            Ok(_) => fs::read(&file)?,
            Err(_) => Vec::new(),
        };
        private_file::replace_quickly(&file, &[&before, text.as_bytes()].concat())
    }

    /// Forgets the notices for this shell: an earlier one may have had its number.
    pub(crate) fn forget(&self, shell: i32) {
        // There seldom is a file.
        let _ = fs::remove_file(self.paths.notice_file(shell));
    }

    /// Removes the notices for shells that are gone.
    pub(crate) fn clean(&self) {
        let alive: Vec<i32> = lock(&self.shells).holders.iter().map(|holder| holder.pid).collect();
        for (shell, _) in self.paths.notice_files() {
            if !alive.contains(&shell) {
                self.forget(shell);
            }
        }
    }
}
