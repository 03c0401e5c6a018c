//! The docked shells (and the docker context) that an agent lives for, and what one agent leaves to the next: a worker that
//! died, or an agent of an older version that left, does not forget them.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dock_client::agent::holder::Holder;
use dock_client::docks::Forward;
use dock_client::private_file;
use serde::{Deserialize, Serialize};

/// What is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shells {
    /// The processes.
    pub(crate) holders: HashSet<Holder>,
    /// Whether there is more than shells to live for: a docker context.
    #[serde(default)]
    pub(crate) stays: bool,
    /// The ssh-agents of their like, the newest last.
    pub(crate) key_agents: Vec<PathBuf>,
    /// Whose ports each of them wants to be forwarded. (A file of 0.1 calls it `wishes`.)
    #[serde(default, alias = "wishes")]
    forwards: Vec<(Holder, Forward)>,
    /// What each of them named besides.
    #[serde(default)]
    named: Vec<(Holder, Vec<String>)>,
    /// What the last ones that said it wanted: what they left open stays so, and what they kept shut, too.
    #[serde(default)]
    last: Option<Forward>,
}

impl Shells {
    /// What the last agent left; nothing where it left nothing, or nothing that can be read.
    pub(crate) fn read(file: &Path) -> Self {
        let mut shells: Self = fs::read(file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        shells.forget_dead();
        if shells.forwards.is_empty() {
            // What a shell of last week wanted is over.
            shells.last = None;
        }
        shells
    }

    /// Lives for this process, too, and takes note of what it wants; says whether that is new.
    pub(crate) fn hold(&mut self, holder: Holder, forward: Forward, named: Vec<String>) -> bool {
        // One that has just ended has no say in this.
        self.forget_dead();
        let wanted = (holder, forward);
        let named = (holder, named);
        let names_as_before = named.1.is_empty() || self.named.contains(&named);
        let is_new = self.holders.insert(holder) || !self.forwards.contains(&wanted) || !names_as_before;
        self.named.retain(|(other, _)| *other != holder);
        if !named.1.is_empty() {
            self.named.push(named);
        }
        self.forwards.retain(|(other, _)| *other != holder);
        self.forwards.push(wanted);
        self.last = self.forward();
        is_new
    }

    /// Lives no longer for this process; says whether it did.
    pub(crate) fn release(&mut self, holder: Holder) -> bool {
        let did = self.holders.remove(&holder);
        self.named.retain(|(other, _)| *other != holder);
        self.forwards.retain(|(other, _)| *other != holder);
        self.last = self.forward();
        did
    }

    /// Whose ports are to be forwarded: what the one wants who wants most; `None` where nobody ever said.
    pub(crate) fn forward(&self) -> Option<Forward> {
        self.forwards.iter().map(|(_, forward)| *forward).max().or(self.last)
    }

    /// Containers and ports that shells which live have named.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        self.named.iter().flat_map(|(_, named)| named).cloned().collect()
    }

    /// Forgets the processes that have ended; says whether there were any.
    pub(crate) fn forget_dead(&mut self) -> bool {
        let before = self.holders.len();
        self.holders.retain(Holder::lives);
        self.forwards.retain(|(holder, _)| self.holders.contains(holder));
        self.named.retain(|(holder, _)| self.holders.contains(holder));
        self.last = self.forward();
        self.holders.len() != before
    }

    /// Writes it down, whole or not at all.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        private_file::replace_quickly(file, &serde_json::to_vec(self)?)
    }
}

/// The path of a file with something behind its name.
pub(crate) fn beside(file: &Path, more: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(more);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_that_live_are_handed_on_and_others_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.shells");
        assert_eq!(Shells::read(&file), Shells::default());
        let own = Holder::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut shells = Shells {
            holders: HashSet::from([own]),
            stays: true,
            key_agents: vec!["/tmp/agent".into()],
            ..Shells::default()
        };
        shells.write(&file).unwrap();
        assert_eq!(Shells::read(&file), shells);
        shells.holders.insert(Holder {
            pid: i32::MAX,
            started: Some(1),
        });
        shells.write(&file).unwrap();
        assert_eq!(Shells::read(&file).holders, HashSet::from([own]));
        fs::write(&file, "{").unwrap();
        assert_eq!(Shells::read(&file), Shells::default());
    }
}
