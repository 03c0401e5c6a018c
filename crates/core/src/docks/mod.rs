//! The list of docks: which machines host an engine for this user, and how each is reached.

mod dock;
pub mod known_hosts;
pub mod list;
pub mod moniker;
pub mod original;
pub mod ssh_config;

pub use dock::{Access, Dock, Forward, SshAccess};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use list::List;
use original::Original;

/// All docks of a user: those that were registered, then those of the original.
#[derive(Clone, Debug)]
pub struct Docks {
    /// Those of the list.
    pub registered: Vec<Dock>,
    /// Those of the original whose monikers are not registered.
    pub originals: Vec<Original>,
}

impl Docks {
    /// Reads both.
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

    /// The dock of this moniker, or else of this address.
    pub fn find(&self, name: &str) -> Option<&Dock> {
        self.iter()
            .find(|dock| dock.moniker == name)
            .or_else(|| self.iter().find(|dock| dock.access.host() == Some(name)))
    }

    /// [`Docks::find`], for what a user asked for.
    ///
    /// # Errors
    /// There is none: with the nearest one in the hint.
    pub fn get(&self, name: &str) -> Result<&Dock> {
        self.find(name).ok_or_else(|| {
            let near = self
                .iter()
                .map(|dock| (strsim::damerau_levenshtein(&dock.moniker, name), &dock.moniker))
                .min()
                .filter(|(distance, _)| *distance <= 1 + name.chars().count() / 3);
            let error = Error::failed(format!("there is no dock {name:?}"));
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
                });
                Ok(())
            })
            .unwrap();
        assert_eq!((host("far"), host("old")), ("box".into(), "10.0.0.2".into()));
        assert_eq!(Docks::read(&env).unwrap().iter().count(), 2);
        let error = Docks::read(&env).unwrap().get("fra").unwrap_err();
        assert!(error.hint_text().unwrap().contains("\"far\""), "{error:?}");
    }
}
