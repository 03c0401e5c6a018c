//! Whose projects are read: the user's own and root's, and those in directories that the user's own configuration
//! names.
//!
//! A project runs programs (`pre_build_script`), mounts folders and sends files. In a shared folder, the `docker/`
//! found above the working directory may be another user's (git had this as CVE-2022-24765). The rule is that of git's
//! `safe.directory`: the owner of the root, its `docker/` and `docker/dockerutils.cfg` counts, and if one of them is a
//! symbolic link, the owner of the link, too. So does the owner of each file that has an effect unasked
//! (`.dockerignore`, `pip.conf.template`, the Dockerfile that is built, the scripts that are run): in one's own folder
//! that others may write to, it may be theirs. As with git, `sudo` keeps the projects of the user who called it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::own::OwnConfiguration;
use crate::env::{self, Env};
use crate::error::{Error, Result};
use crate::hint;

/// The calling user, and where their configuration is.
#[derive(Clone, Debug)]
pub struct Caller {
    users: Vec<u32>,
    /// The users who may write `configuration`.
    writers: Vec<u32>,
    home: PathBuf,
    configuration: PathBuf,
}

impl Caller {
    /// The user of this process. If `sudo` made it root's, also the one who called `sudo`.
    pub fn of_process(env: &Env) -> Self {
        Self {
            users: env.users(),
            writers: env.writers(),
            home: env.home(),
            configuration: OwnConfiguration::file(env),
        }
    }

    /// Whether this owner is the caller or root.
    pub fn is(&self, owner: u32) -> bool {
        self.users.contains(&owner)
    }

    /// Whether another user may have put things into a directory on the way upwards: everyone may write to it, and it
    /// is not the caller's own. (`/tmp` is the example. That root owns it says nothing of who put files there.)
    pub fn is_open_to_all(&self, directory: &fs::Metadata) -> bool {
        let own = self.users.iter().any(|user| *user == directory.uid() && *user != 0);
        directory.mode() & 0o002 != 0 && !own
    }

    /// Checks that the project of this root may be read.
    ///
    /// # Errors
    /// It belongs to another user, and is in no directory that the caller trusts; a configuration of the caller that
    /// can't be read.
    pub fn check(&self, root: &Path, files: &[impl AsRef<Path>]) -> Result<()> {
        let paths = std::iter::once(root.to_owned()).chain(files.iter().map(|file| root.join(file)));
        for path in paths {
            if let Some(owner) = foreign_owner(&path, |owner| self.is(owner)) {
                self.check_owner(root, &path, owner)?;
            }
        }
        Ok(())
    }

    /// Checks that a file with this owner, in the project of this root, may be read.
    ///
    /// # Errors
    /// As [`Caller::check`].
    pub fn check_owner(&self, root: &Path, path: &Path, owner: u32) -> Result<()> {
        if self.is(owner) || self.trusts(root)? {
            return Ok(());
        }
        let user = env::user_of(owner).unwrap_or_else(|| format!("user {owner}"));
        let entry = serde_json::Value::from(root.display().to_string());
        Err(Error::usage(format!(
            "{} belongs to {user}: another user's project is not used",
            path.display()
        ))
        .hint(hint!(
            "read docker/dockerutils.cfg there; if you trust all who can write to it, put it into {}: \
             trusted_directories: [{entry}]",
            self.configuration.display();
            entry = entry
        )))
    }

    fn trusts(&self, root: &Path) -> Result<bool> {
        let own = OwnConfiguration::read_file(&self.configuration, &self.writers)?;
        let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        Ok(own.trusted_directories.iter().any(|entry| self.names(entry, &real)))
    }

    /// `*`: all. `/srv/*`: all below. Else the directory itself. A relative path matches nothing.
    fn names(&self, entry: &str, root: &Path) -> bool {
        if entry == "*" {
            return true;
        }
        let (entry, below) = match entry.strip_suffix("/*") {
            Some(parent) => (parent, true),
            None => (entry, false),
        };
        let directory = match entry.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None if entry == "~" => self.home.clone(),
            None if entry.is_empty() && below => PathBuf::from("/"),
            None => PathBuf::from(entry),
        };
        if !directory.is_absolute() {
            return false;
        }
        let directory = directory.canonicalize().unwrap_or(directory);
        if below {
            root != directory && root.starts_with(&directory)
        } else {
            root == directory
        }
    }
}

/// The owner of a path, or of the symbolic link there, if it is not one of ours; `None` also if nothing is there.
fn foreign_owner(path: &Path, is_ours: impl Fn(u32) -> bool) -> Option<u32> {
    let link = fs::symlink_metadata(path).ok()?;
    let target = fs::metadata(path).ok();
    [Some(link), target]
        .into_iter()
        .flatten()
        .map(|found| found.uid())
        .find(|owner| !is_ours(*owner))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A caller who does not own the files of this test.
    fn another(folder: &Path) -> Caller {
        Caller {
            users: vec![rustix::process::geteuid().as_raw().wrapping_add(4711)],
            writers: vec![rustix::process::geteuid().as_raw()],
            home: folder.to_owned(),
            configuration: folder.join("config.yml"),
        }
    }

    fn own(folder: &Path) -> Caller {
        Caller {
            users: vec![rustix::process::geteuid().as_raw()],
            ..another(folder)
        }
    }

    #[test]
    fn a_project_of_another_user_is_refused_with_its_owner_and_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("project");
        fs::create_dir_all(root.join("docker")).unwrap();
        own(folder.path()).check(&root, &["docker", "nothing"]).unwrap();
        let error = another(folder.path()).check(&root, &["docker"]).unwrap_err();
        let owner = env::user_of(rustix::process::geteuid().as_raw()).unwrap();
        assert!(error.to_string().contains(&format!("belongs to {owner}")), "{error}");
        let hint = error.hint_text().unwrap();
        assert!(hint.contains("config.yml: trusted_directories: [\"/"), "{hint}");
    }

    #[test]
    fn trusted_directories_are_those_of_the_callers_own_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        let root = home.join("srv/project");
        fs::create_dir_all(&root).unwrap();
        symlink(home.join("srv"), home.join("link")).unwrap();
        let mut caller = another(&home);
        // The configuration really is the caller's.
        let file = caller.configuration.clone();
        let mut trusts = |entries: &str| {
            fs::write(&file, format!("trusted_directories: [{entries}]\n")).unwrap();
            caller.users = vec![rustix::process::geteuid().as_raw()];
            caller.trusts(&root)
        };
        for entries in [
            "'*'",
            "~/srv/project",
            "~/srv/project/",
            "~/link/project",
            "~/srv/*",
            "~/*",
            "'/*'",
        ] {
            assert!(trusts(entries).unwrap(), "{entries}");
        }
        for entries in ["", "~/srv", "srv/project", "project", "~/srv/project/*", "/srv/*"] {
            assert!(!trusts(entries).unwrap(), "{entries}");
        }
        fs::write(&file, "trusted: []\n").unwrap();
        let error = own(&home).trusts(&root).unwrap_err();
        assert!(error.to_string().contains("config.yml"), "{error}");
        fs::write(&file, "trusted_directories: ['*']\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let error = own(&home).trusts(&root).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("written by others"), "{cause}");
    }

    #[test]
    fn sudo_keeps_the_users_own_projects() {
        let caller = Caller::of_process(&Env::from_pairs([("SUDO_UID", "4711")]));
        assert_eq!(caller.is(4711), rustix::process::geteuid().is_root());
        assert!(caller.is(0) && caller.is(rustix::process::geteuid().as_raw()));
    }
}
