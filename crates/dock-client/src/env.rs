//! The environment variables of a call, read once at the start so that everything below is a function of values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A snapshot of the environment.
///
/// Names and values that are not UTF-8 are left out: no variable that a command reads can have such a value.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
}

/// The variables that carry AWS credentials; they are passed to engines on this machine only, and always by name.
pub const AWS_VARIABLES: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
];

/// The variable that holds the address of an engine which the user declares to be on this machine, if that can't be
/// detected: one in a virtual machine that ssh leads to, or that of the machine around this container.
pub const LOCAL_ENGINE: &str = "DOCKERUTILS_LOCAL_ENGINE";

impl Env {
    /// The environment of this process.
    pub fn from_process() -> Self {
        Self {
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        }
    }

    /// An environment of just these variables.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self {
            variables: pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }

    /// The value of a variable; an empty one is `Some("")`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of a variable that is set and not empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The user's home directory: HOME, or else that of the password database.
    pub fn home(&self) -> PathBuf {
        self.non_empty("HOME")
            .map(PathBuf::from)
            .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned()))
            .unwrap_or_else(|| Path::new("/").to_owned())
    }

    /// The users whose files count as the caller's own: the user of this process and root; if `sudo` started it as
    /// root, also the user who called `sudo`.
    pub fn users(&self) -> Vec<u32> {
        let own = rustix::process::geteuid().as_raw();
        let mut users = vec![own, 0];
        if own == 0 {
            users.extend(self.get("SUDO_UID").and_then(|uid| uid.parse::<u32>().ok()));
        }
        users
    }

    /// The users who may write the caller's own configuration: [`Env::users`], and the owner of the home folder, which
    /// may be another user if it is mounted into a container that runs as root.
    pub fn writers(&self) -> Vec<u32> {
        let home = std::fs::metadata(self.home()).ok();
        let owner = home.map(|home| std::os::unix::fs::MetadataExt::uid(&home));
        self.users().into_iter().chain(owner).collect()
    }

    /// The directory of our own configuration: `dockerutils` in XDG_CONFIG_HOME, or else in the system's directory for
    /// such files.
    pub fn config_dir(&self) -> PathBuf {
        const NAME: &str = "dockerutils";
        // The XDG specification: a relative path is to be ignored.
        if let Some(directory) = self.non_empty("XDG_CONFIG_HOME").filter(|path| path.starts_with('/')) {
            return Path::new(directory).join(NAME);
        }
        let system = directories::ProjectDirs::from("", "", NAME).map(|dirs| dirs.config_dir().to_owned());
        match (system, self.non_empty("HOME")) {
            (Some(system), _) if cfg!(target_os = "macos") => system,
            (_, Some(home)) => Path::new(home).join(".config").join(NAME),
            (Some(system), None) => system,
            (None, None) => self.home().join(".config").join(NAME),
        }
    }

    /// Where docker keeps config.json: DOCKER_CONFIG, else `~/.docker`.
    pub fn docker_config_dir(&self) -> PathBuf {
        self.non_empty("DOCKER_CONFIG")
            .map_or_else(|| self.home().join(".docker"), PathBuf::from)
    }

    /// The user's name as Python's `getpass.getuser` finds it: LOGNAME, USER, LNAME, USERNAME, then the password
    /// database.
    pub fn user(&self) -> String {
        ["LOGNAME", "USER", "LNAME", "USERNAME"]
            .iter()
            .find_map(|name| self.non_empty(name))
            .map(str::to_owned)
            .or_else(|| id(&["-un"]))
            .unwrap_or_else(|| "user".to_owned())
    }
}

/// The name of the user with this number; `None` if there is no such user.
pub fn user_of(uid: u32) -> Option<String> {
    id(&["-un", "--", &uid.to_string()])
}

/// A user's name from `id`: the password database may be LDAP or NSS, which only libc reads, and libc's interface is
/// not reentrant; one call on a rare path is not worth `unsafe`.
fn id(arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new("id").args(arguments).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found_in_the_order_of_getpass() {
        let env = Env::from_pairs([("USER", "bob"), ("LNAME", "carl")]);
        assert_eq!(env.user(), "bob");
        assert_eq!(Env::from_pairs([("LOGNAME", "ann"), ("USER", "bob")]).user(), "ann");
        assert_eq!(Env::from_pairs([("LOGNAME", ""), ("USERNAME", "dora")]).user(), "dora");
        assert!(!Env::default().user().is_empty());
    }
}
