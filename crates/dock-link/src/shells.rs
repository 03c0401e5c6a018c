//! The docked shells (and the docker context) that an agent lives for, kept in a file so that the next agent has them:
//! after a worker that died, or an agent of an older version that made room.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dock_client::agent::ShellDemand;
use dock_client::agent::holder::Holder;
use dock_client::docks::Forward;
use dock_client::private_file;
use serde::{Deserialize, Serialize};

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shells {
    /// The processes.
    pub(crate) holders: HashSet<Holder>,
    /// Whether there is a reason to live besides shells: a docker context.
    #[serde(default)]
    pub(crate) stays: bool,
    /// The ssh-agents of such shells, the newest last.
    pub(crate) key_agents: Vec<PathBuf>,
    /// Whose ports are to be forwarded for each of them. (A file of 0.1 calls it `wishes`.)
    #[serde(default, alias = "wishes")]
    forwards: Vec<(Holder, Forward)>,
    /// Further containers and ports for each of them, by name or number.
    #[serde(default)]
    named: Vec<(Holder, Vec<String>)>,
    /// The ports of this machine that are to be exposed for each of them.
    #[serde(default)]
    exposed: Vec<(Holder, BTreeSet<u16>)>,
    /// Whose ports were forwarded for the last shells that asked for it: this stays in force when they have ended.
    #[serde(default)]
    last: Option<Forward>,
}

impl Shells {
    /// What the last agent left; empty if it left nothing, or nothing that can be read.
    pub(crate) fn read(file: &Path) -> Self {
        let mut shells: Self = fs::read(file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        shells.forget_dead();
        if shells.forwards.is_empty() {
            // No shell lives: what the last ones wanted no longer holds.
            shells.last = None;
        }
        shells
    }

    /// Lives for this process, too, and notes what it wants; returns whether that is new.
    pub(crate) fn hold(&mut self, holder: Holder, demand: ShellDemand) -> bool {
        let ShellDemand { forward, named, expose } = demand;
        // A process that has just ended must not have an influence.
        self.forget_dead();
        let wanted = (holder, forward);
        let named = (holder, named);
        let names_as_before = named.1.is_empty() || self.named.contains(&named);
        let exposed = (holder, BTreeSet::from_iter(expose));
        let exposes_as_before = exposed.1.is_empty() || self.exposed.contains(&exposed);
        let is_new =
            self.holders.insert(holder) || !self.forwards.contains(&wanted) || !names_as_before || !exposes_as_before;
        self.exposed.retain(|(other, _)| *other != holder);
        if !exposed.1.is_empty() {
            self.exposed.push(exposed);
        }
        self.named.retain(|(other, _)| *other != holder);
        if !named.1.is_empty() {
            self.named.push(named);
        }
        self.forwards.retain(|(other, _)| *other != holder);
        self.forwards.push(wanted);
        self.last = self.forward();
        is_new
    }

    /// Lives no longer for this process; returns whether it did.
    pub(crate) fn release(&mut self, holder: Holder) -> bool {
        let did = self.holders.remove(&holder);
        self.named.retain(|(other, _)| *other != holder);
        self.exposed.retain(|(other, _)| *other != holder);
        self.forwards.retain(|(other, _)| *other != holder);
        self.last = self.forward();
        did
    }

    /// Whose ports are to be forwarded: the widest request of all shells; `None` if there never was one.
    pub(crate) fn forward(&self) -> Option<Forward> {
        self.forwards.iter().map(|(_, forward)| *forward).max().or(self.last)
    }

    /// The containers and ports that living shells have named.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        self.named.iter().flat_map(|(_, named)| named).cloned().collect()
    }

    /// The ports of this machine that living shells have exposed.
    pub(crate) fn exposed(&self) -> BTreeSet<u16> {
        self.exposed.iter().flat_map(|(_, ports)| ports).copied().collect()
    }

    /// Forgets the processes that have ended; returns whether there were any.
    pub(crate) fn forget_dead(&mut self) -> bool {
        let before = self.holders.len();
        self.holders.retain(Holder::lives);
        self.forwards.retain(|(holder, _)| self.holders.contains(holder));
        self.named.retain(|(holder, _)| self.holders.contains(holder));
        self.exposed.retain(|(holder, _)| self.holders.contains(holder));
        self.last = self.forward();
        self.holders.len() != before
    }

    /// Writes the file, whole or not at all.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        private_file::replace_quickly(file, &serde_json::to_vec(self)?)
    }
}

/// A path with a suffix added to its file name.
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
