//! The list of docks: which machines host an engine for this user, and how each is reached.

pub mod destination;
mod dock;
pub mod known_hosts;
pub mod list;
pub mod moniker;
pub mod original;
pub mod ssh_config;

pub use dock::{Access, Dock, ENGINE_SOCKET, Forward, LEAST_EXPOSED, MountPaths, SshAccess};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use list::List;
use original::Original;

/// The name of this machine wherever a dock can be named. No dock can have it.
pub const LOCALHOST: &str = "localhost";
/// Another name for this machine, from earlier versions; a dock that was registered by that name comes first.
pub const LOCAL: &str = "local";

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// This machine.
    Here,
    /// A dock.
    Dock(&'a Dock),
}

/// All docks of a user: those that were registered, then those of the original.
#[derive(Clone, Debug)]
pub struct Docks {
    /// Those of the list.
    pub registered: Vec<Dock>,
    /// Those of the original whose monikers are not registered.
    pub originals: Vec<Original>,
}

impl Docks {
    /// Reads the list, and the docks of the original.
    ///
    /// # Errors
    /// A list that is damaged.
    pub fn read(env: &Env) -> Result<Self> {
        let registered = list(env).read()?;
        let originals = original::docks(&env.home().join(".docker"))
            .into_iter()
            .filter(|original| registered.iter().all(|dock| dock.moniker != original.dock.moniker))
            .collect();
        Ok(Self { registered, originals })
    }

    /// All of them, registered ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Dock> {
        self.registered
            .iter()
            .chain(self.originals.iter().map(|original| &original.dock))
    }

    /// The dock of this moniker, or else of this address; `None` if the name means this machine.
    pub fn find(&self, name: &str) -> Option<&Dock> {
        if name == LOCALHOST {
            return None;
        }
        self.of_moniker(name).or_else(|| {
            self.iter()
                .find(|dock| name != LOCAL && dock.access.host() == Some(name))
        })
    }

    /// The dock that was registered under this moniker, even if the name means this machine by now.
    pub fn of_moniker(&self, moniker: &str) -> Option<&Dock> {
        self.iter().find(|dock| dock.moniker == moniker)
    }

    /// This machine, or the dock of this name.
    ///
    /// # Errors
    /// As [`Docks::get`].
    pub fn named(&self, name: &str) -> Result<Named<'_>> {
        match self.find(name) {
            None if self.is_here(name) => Ok(Named::Here),
            _ => self.get(name).map(Named::Dock),
        }
    }

    /// A dock's name for a hint: that of the first dock.
    pub fn example(&self) -> &str {
        self.iter().next().map_or("NAME", |dock| dock.moniker.as_str())
    }

    /// Whether this name means this machine.
    pub fn is_here(&self, name: &str) -> bool {
        name == LOCALHOST || (name == LOCAL && self.of_moniker(LOCAL).is_none())
    }

    /// A sentence for users who have a dock whose name means, or meant, this machine.
    pub fn doubt(&self, name: &str) -> Option<String> {
        let dock = self.of_moniker(name)?;
        let place = crate::text::visible(&dock.access.place());
        match name {
            LOCALHOST => Some(format!(
                "{LOCALHOST} is this machine, and not the dock {place} that was registered by that name: unregister-dock \
                 {LOCALHOST}, then register it under another"
            )),
            LOCAL => Some(format!(
                "{LOCAL} is the dock {place}, which was registered by that name; this machine is {LOCALHOST}"
            )),
            _ => None,
        }
    }

    /// [`Docks::find`], for a name that the user gave.
    ///
    /// # Errors
    /// No dock of this name: the hint has the most similar one.
    pub fn get(&self, name: &str) -> Result<&Dock> {
        self.find(name).ok_or_else(|| {
            if self.is_here(name) {
                let error = Error::usage(format!("{name} is this machine, and no dock"));
                return match self.doubt(name) {
                    Some(doubt) => error.hint(doubt),
                    None => error.hint("name a dock: `ls-dock` lists them"),
                };
            }
            let near = self
                .iter()
                .map(|dock| (strsim::damerau_levenshtein(&dock.moniker, name), &dock.moniker))
                .min()
                .filter(|(distance, _)| *distance <= 1 + name.chars().count() / 3);
            // As an image type that is not there: it was mistyped.
            let error = Error::usage(format!("there is no dock {name:?}"));
            match near {
                Some((_, near)) => {
                    error.hint(hint!("is it {near}? `ls-dock` lists them all"; near = format!("{near:?}")))
                }
                None => error.hint("`ls-dock` lists the docks, `register-dock HOST MONIKER` adds one"),
            }
        })
    }
}

/// The user's list.
pub fn list(env: &Env) -> List {
    List::at(env.config_dir(), env.writers())
}

/// The moniker of the dock that the shell is docked to.
pub fn current(env: &Env) -> Option<&str> {
    env.non_empty("_DOCK_MONIKER").and_then(moniker::of_shell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registered_docks_win_over_the_original_s() {
        let home = tempfile::tempdir().unwrap();
        for (address, moniker) in [("10.0.0.1", "far"), ("10.0.0.2", "old"), ("10.0.0.3", "far")] {
            let folder = home.path().join(".docker").join(address);
            std::fs::create_dir_all(&folder).unwrap();
            let text = format!("DOCK_MONIKER={moniker}\nDOCK_IP={address}\n");
            std::fs::write(folder.join("connection_config.txt"), text).unwrap();
        }
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let host = |name: &str| {
            let docks = Docks::read(&env).unwrap();
            docks.get(name).unwrap().access.host().unwrap().to_owned()
        };
        assert_eq!((host("far"), host("10.0.0.3")), ("10.0.0.1".into(), "10.0.0.3".into()));
        list(&env)
            .change(|docks| {
                docks.push(Dock {
                    moniker: "far".into(),
                    access: Access::Ssh(SshAccess {
                        host: "box".into(),
                        ..SshAccess::default()
                    }),
                    workspace: None,
                    forward: Forward::default(),
                    mounts: MountPaths::default(),
                });
                Ok(())
            })
            .unwrap();
        assert_eq!((host("far"), host("old")), ("box".into(), "10.0.0.2".into()));
        assert_eq!(Docks::read(&env).unwrap().iter().count(), 2);
        let error = Docks::read(&env).unwrap().get("fra").unwrap_err();
        assert!(error.hint_text().unwrap().contains("\"far\""), "{error:?}");
        assert_eq!(error.class(), crate::error::Class::Usage);
    }
}
