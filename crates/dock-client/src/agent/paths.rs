//! Where the sockets and files of an agent are.
//!
//! All lie in one private directory: `$XDG_RUNTIME_DIR/dockerutils`, else `dockerutils/run` below the user's cache. Their
//! names are a short hash of the dock, because the path of a socket may have 103 bytes at most (`sockaddr_un` on macOS),
//! and because a moniker is data, not a file name. They stay the same as long as the dock's access does.

use std::fs::DirBuilder;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::docks::Dock;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hexadecimal::hex;
use crate::{hint, private_file};

/// The longest path of a socket that every system takes, with room for the temporary name under which it is made.
pub const SOCKET_PATH: usize = 100;
/// The last part of the path of the sockets' directory; `run` may follow.
const DIRECTORY: &str = "dockerutils";
/// What follows the identity in the name of the socket of a docker context, before `.sock`.
const CONTEXT: &str = ".context";
/// The extension of a control socket.
const CONTROL: &str = "ctl";
/// What the extension of a notice begins with; the process number of its shell follows.
const NOTICE: &str = "notice-";
/// How many bytes of the hash form an agent's name.
const IDENTITY: usize = 8;

/// The sockets and files of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPaths {
    directory: PathBuf,
    /// The directory for files that outlive a restart of the machine.
    state: PathBuf,
    identity: String,
}

impl AgentPaths {
    /// The paths of this dock's agent. Nothing is created yet.
    ///
    /// # Errors
    /// No directory, or one whose path is too long.
    pub fn of(dock: &Dock, env: &Env) -> Result<Self> {
        let paths = Self {
            directory: runtime_directory(env)?,
            state: state_directory(env),
            identity: identity(dock)?,
        };
        if paths.engine_socket().as_os_str().as_bytes().len() > SOCKET_PATH {
            return Err(Error::failed(format!(
                "the path of a socket in {} would be longer than the system allows",
                paths.directory.display()
            ))
            .hint("set XDG_RUNTIME_DIR to a private directory with a short path"));
        }
        Ok(paths)
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// A directory that can't be made, or that others may use.
    pub fn prepare(&self) -> Result<()> {
        make_private(&self.directory)
    }

    /// Checks that what is in the sockets' directory was put there by this user. Another user who may write to a folder
    /// above it could serve a socket there, and would receive passphrases. A directory that does not exist yet passes.
    ///
    /// # Errors
    /// A directory that another user owns, or may use.
    pub fn check(&self) -> Result<()> {
        match not_private(&self.directory) {
            None | Some(ABSENT) => Ok(()),
            Some(why) => Err(
                Error::failed(format!("sockets in {} are not used: {why}", self.directory.display())).hint(hint!(
                    "see who put it there: ls -ld {}; then remove it",
                    self.directory.display()
                )),
            ),
        }
    }

    /// The agent's paths for this engine socket, in whatever private directory of this user it is; `None` if the socket
    /// is not an agent's.
    pub fn of_engine_socket(socket: &Path, env: &Env) -> Option<Self> {
        let socket = if has_shape(socket) {
            socket.to_owned()
        } else {
            socket.canonicalize().ok().filter(|real| has_shape(real))?
        };
        let directory = socket.parent()?.to_owned();
        // The agent may have been started in another environment.
        let is_ours = runtime_directory(env).is_ok_and(|own| own == directory) || not_private(&directory).is_none();
        let identity = identity_in(&socket)?.to_owned();
        is_ours.then(|| Self {
            directory,
            state: state_directory(env),
            identity,
        })
    }

    /// The control socket of the agent that serves this engine socket, which may be named by way of a link; `None` if it is
    /// not an agent's.
    pub fn control_of(socket: &Path) -> Option<PathBuf> {
        let socket = if has_shape(socket) {
            socket.to_owned()
        } else {
            socket.canonicalize().ok().filter(|real| has_shape(real))?
        };
        let identity = identity_in(&socket)?;
        Some(socket.with_file_name(format!("{identity}.{CONTROL}")))
    }

    /// Whether this is the path of an agent's engine socket, of any user and in any environment, also by way of a link.
    pub fn is_engine_socket(socket: &Path) -> bool {
        has_shape(socket) || socket.canonicalize().is_ok_and(|real| has_shape(&real))
    }

    /// The socket that speaks the engine's API; what DOCKER_HOST names.
    pub fn engine_socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// The socket of the docker context, where systemd listens for the agent: whoever connects has it started. It speaks the
    /// engine's API, too, and is systemd's: an agent never makes or removes it.
    pub fn context_socket(&self) -> PathBuf {
        self.file("context.sock")
    }

    /// The hash that names the agent: hexadecimal digits.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The socket on which commands speak to the agent itself.
    pub fn control_socket(&self) -> PathBuf {
        self.file(CONTROL)
    }

    /// Locked by the agent that runs, so that there is only one; holds its process number.
    pub fn lock_file(&self) -> PathBuf {
        self.file("lock")
    }

    /// The agent's dock, in JSON: a command that knows only the socket starts the agent again from it.
    pub fn dock_file(&self) -> PathBuf {
        self.file("dock")
    }

    /// What an agent leaves to its successor: the shells that it lives for.
    pub fn shells_file(&self) -> PathBuf {
        self.file("shells")
    }

    /// The agent's message to the docked shell of this process, for its next prompt; missing if there is nothing to
    /// say.
    pub fn notice_file(&self, shell: i32) -> PathBuf {
        self.file(&format!("{NOTICE}{shell}"))
    }

    /// All [`AgentPaths::notice_file`]s that exist, with their shells.
    pub fn notice_files(&self) -> Vec<(i32, PathBuf)> {
        let beginning = format!("{}.{NOTICE}", self.identity);
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let shell = name.to_str()?.strip_prefix(&beginning)?.parse().ok()?;
                Some((shell, entry.path()))
            })
            .collect()
    }

    /// The agent's log, limited in size.
    pub fn log_file(&self) -> PathBuf {
        self.file("log")
    }

    /// The older half of the log.
    pub fn old_log_file(&self) -> PathBuf {
        self.file("log.1")
    }

    /// The IDs of the containers that were made through this agent's sockets, in JSON. The containers outlive a restart
    /// of this machine, so the file is in the user's state directory, which is made along with it.
    pub fn made_file(&self) -> PathBuf {
        self.state.join(format!("{}.made", self.identity))
    }

    /// The file with the paths that were mounted, below the state directory.
    pub fn mounted_file(&self) -> PathBuf {
        self.state.join(format!("{}.mounted", self.identity))
    }

    /// Exists once the user was told that the label alone forwards no port.
    pub fn told_file(&self) -> PathBuf {
        self.state.join(format!("{}.told", self.identity))
    }

    /// Removes the files of agents of the same directory that ended this long ago or longer: of docks that were never
    /// registered, that were registered otherwise, or that can't be reached any more. What is needed again is made
    /// again. A file that can't be removed does no harm.
    pub fn sweep(&self, age: Duration) {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries {
            let lock = entry.path();
            let name = lock.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(identity) = name.strip_suffix(".lock").filter(|text| is_identity(text)) else {
                continue;
            };
            let other = Self {
                identity: identity.to_owned(),
                ..self.clone()
            };
            let heard = [&lock, &other.log_file(), &other.dock_file()]
                .into_iter()
                .filter_map(|file| file.metadata().ok()?.modified().ok())
                .max();
            let is_old = heard.is_some_and(|heard| heard.elapsed().is_ok_and(|since| since >= age));
            // If the lock is held, an agent lives; and while we hold it, none starts.
            let Ok(held) = private_file::open_lock(&lock) else {
                continue;
            };
            if !is_old || held.try_lock().is_err() {
                continue;
            }
            for file in [other.engine_socket(), other.control_socket()]
                .into_iter()
                .chain(other.files())
            {
                let _ = std::fs::remove_file(file);
            }
        }
    }

    /// All files that an agent leaves in the directory of sockets, its lock last.
    pub fn files(&self) -> Vec<PathBuf> {
        let notices = self.notice_files().into_iter().map(|(_, file)| file);
        let files = [
            self.dock_file(),
            self.shells_file(),
            self.log_file(),
            self.old_log_file(),
            self.lock_file(),
        ];
        notices.chain(files).collect()
    }

    /// The user's state directory, as it was when this agent was started.
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.identity))
    }
}

fn is_identity(text: &str) -> bool {
    text.len() == 2 * IDENTITY && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a path looks like that of an engine's socket, an agent's own or a docker context's, by the name of its directory and
/// its own.
fn has_shape(socket: &Path) -> bool {
    let is_directory =
        |directory: &Path| directory.ends_with(DIRECTORY) || directory.ends_with(Path::new(DIRECTORY).join("run"));
    identity_in(socket).is_some() && socket.parent().is_some_and(is_directory)
}

/// The identity in the name of an engine's socket.
fn identity_in(socket: &Path) -> Option<&str> {
    let name = socket.file_name()?.to_str()?.strip_suffix(".sock")?;
    let identity = name.strip_suffix(CONTEXT).unwrap_or(name);
    is_identity(identity).then_some(identity)
}

/// A hash of the user, the moniker and the access. The fields of a struct have a fixed order, so the same dock has the
/// same JSON.
fn identity(dock: &Dock) -> Result<String> {
    let access = serde_json::to_string(&dock.access)
        .map_err(|cause| Error::failed(format!("the dock {:?} can't be named", dock.moniker)).because(cause))?;
    let user = rustix::process::geteuid().as_raw();
    let digest = Sha256::digest(format!("{user}\0{}\0{access}", dock.moniker));
    Ok(hex(digest.get(..IDENTITY).unwrap_or_default()))
}

/// The private directory of all agents of this user, created if it does not exist.
///
/// # Errors
/// No suitable directory, one that can't be made, or that others may use.
pub fn own_directory(env: &Env) -> Result<PathBuf> {
    let directory = runtime_directory(env)?;
    make_private(&directory)?;
    Ok(directory)
}

/// Whether others can't tamper with what lies in this directory.
pub fn is_private(directory: &Path) -> bool {
    not_private(directory).is_none()
}

/// The engine sockets in a directory of agents, without those of docker contexts, which lead to the same agents.
pub fn engine_sockets(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_own = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()).is_some_and(is_identity);
    entries
        .map(|entry| entry.path())
        .filter(|path| has_shape(path) && is_own(path))
        .collect()
}

/// The directory of all agents of this user.
fn runtime_directory(env: &Env) -> Result<PathBuf> {
    // The XDG specification: absolute, owned by the user, private. One that is not (sudo keeps that of another user) is
    // ignored.
    let runtime = env
        .non_empty("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.is_absolute() && not_private(directory).is_none());
    if let Some(directory) = runtime {
        return Ok(directory.join(DIRECTORY));
    }
    let cache = match env.non_empty("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory,
        _ if cfg!(target_os = "macos") => env.home().join("Library/Caches"),
        _ => env.home().join(".cache"),
    };
    if !cache.is_absolute() {
        return Err(Error::failed("there is no directory for the sockets of agents")
            .hint("set HOME, or XDG_RUNTIME_DIR to a private directory"));
    }
    Ok(cache.join(DIRECTORY).join("run"))
}

/// The XDG specification's directory for data that is worth keeping and is no configuration.
pub fn state_directory(env: &Env) -> PathBuf {
    let directory = match env.non_empty("XDG_STATE_HOME").map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory,
        _ if cfg!(target_os = "macos") => env.home().join("Library/Application Support"),
        _ => env.home().join(".local/state"),
    };
    directory.join("dockerutils")
}

fn make_private(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|cause| {
            Error::failed(format!("{} can't be made", directory.display()))
                .because(cause)
                .hint("set XDG_RUNTIME_DIR to a private directory of yours")
        })?;
    match not_private(directory) {
        None => Ok(()),
        Some(why) => Err(
            Error::failed(format!("sockets can't be put into {}: {why}", directory.display()))
                .hint(hint!("remove it, or: chmod 700 {}", directory.display())),
        ),
    }
}

/// What [`not_private`] says of a directory that does not exist.
const ABSENT: &str = "it is not there";

/// Why others could tamper with this directory; `None` if they can't.
fn not_private(directory: &Path) -> Option<&'static str> {
    // About the link itself, not what it points to.
    match directory.symlink_metadata() {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Some(ABSENT),
        Err(_) => Some("it can't be looked at"),
        Ok(found) if !found.is_dir() => Some("it is not a directory"),
        Ok(found) if found.uid() != rustix::process::geteuid().as_raw() => Some("it belongs to another user"),
        Ok(found) if found.mode() & 0o077 != 0 => Some("others may use it"),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::docks::Access;

    fn dock(moniker: &str, address: &str) -> Dock {
        Dock {
            moniker: moniker.into(),
            access: Access::Tcp {
                address: address.into(),
                tls_dir: None,
            },
            workspace: None,
            forward: crate::docks::Forward::default(),
            mounts: crate::docks::MountPaths::default(),
        }
    }

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap()
    }

    fn env(name: &str, directory: &Path) -> Env {
        Env::from_pairs([("HOME", "/nowhere"), (name, directory.to_str().unwrap())])
    }

    #[test]
    fn what_agents_left_that_ended_long_ago_goes_and_what_lives_stays() {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
        let directory = private();
        let env = env("XDG_RUNTIME_DIR", directory.path());
        let paths = |moniker: &str| AgentPaths::of(&dock(moniker, "far:1"), &env).unwrap();
        let (old, young, lives) = (paths("old"), paths("young"), paths("lives"));
        old.prepare().unwrap();
        for paths in [&old, &young, &lives] {
            for file in paths.files() {
                fs::write(&file, "x").unwrap();
                if paths != &young {
                    let before = std::time::SystemTime::now() - 2 * WEEK;
                    fs::File::open(&file).unwrap().set_modified(before).unwrap();
                }
            }
        }
        let held = private_file::open_lock(&lives.lock_file()).unwrap();
        held.lock().unwrap();
        young.sweep(WEEK);
        let is_there = |paths: &AgentPaths| paths.files().iter().filter(|file| file.exists()).count();
        assert_eq!(is_there(&old), 0);
        assert_eq!(is_there(&young), young.files().len());
        assert_eq!(is_there(&lives), lives.files().len());
    }

    #[test]
    fn the_socket_of_a_dock_stays_the_same_and_is_its_own() {
        let directory = private();
        let env = env("XDG_RUNTIME_DIR", directory.path());
        let paths = AgentPaths::of(&dock("x[$(touch pwned)]", "far:1"), &env).unwrap();
        let again = Dock {
            workspace: Some("/elsewhere".into()),
            ..dock("x[$(touch pwned)]", "far:1")
        };
        assert_eq!(AgentPaths::of(&again, &env).unwrap(), paths);
        assert_ne!(
            AgentPaths::of(&dock("x[$(touch pwned)]", "far:2"), &env).unwrap(),
            paths
        );
        assert_ne!(AgentPaths::of(&dock("y", "far:1"), &env).unwrap(), paths);
        let name = paths.engine_socket();
        let name = name.file_stem().unwrap().to_str().unwrap();
        assert!(
            name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{name}"
        );
        assert_eq!(
            AgentPaths::of_engine_socket(&paths.engine_socket(), &env),
            Some(paths.clone())
        );
        assert_eq!(
            AgentPaths::of_engine_socket(&paths.context_socket(), &env),
            Some(paths.clone())
        );
        for socket in [paths.context_socket(), paths.engine_socket()] {
            assert_eq!(AgentPaths::control_of(&socket), Some(paths.control_socket()));
        }
        assert_eq!(AgentPaths::control_of(Path::new("/var/run/docker.sock")), None);
        paths.prepare().unwrap();
        for socket in [paths.context_socket(), paths.engine_socket()] {
            fs::write(socket, "").unwrap();
        }
        let directory = paths.engine_socket();
        assert_eq!(engine_sockets(directory.parent().unwrap()), [paths.engine_socket()]);
        for other in [
            "/var/run/docker.sock",
            "/run/0123456789abcdef.sock",
            "/run/user/1/dockerutils/0123456789abcdef.other.sock",
            paths.control_socket().to_str().unwrap(),
        ] {
            assert_eq!(AgentPaths::of_engine_socket(Path::new(other), &env), None, "{other}");
        }
    }

    #[test]
    fn what_others_may_use_holds_no_sockets() {
        let directory = private();
        let shared = directory.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
        let cache = directory.path().join("cache");
        let both = Env::from_pairs([
            ("XDG_RUNTIME_DIR", shared.to_str().unwrap()),
            ("XDG_CACHE_HOME", cache.to_str().unwrap()),
        ]);
        let paths = AgentPaths::of(&dock("a", "far:1"), &both).unwrap();
        assert!(paths.engine_socket().starts_with(cache.join("dockerutils/run")));
        assert!(!cache.exists());
        paths.check().unwrap();
        paths.prepare().unwrap();
        fs::set_permissions(cache.join("dockerutils/run"), fs::Permissions::from_mode(0o750)).unwrap();
        let error = paths.prepare().unwrap_err();
        assert!(error.to_string().contains("others may use it"), "{error}");
        let error = paths.check().unwrap_err();
        assert!(error.to_string().contains("others may use it"), "{error}");
        fs::remove_dir(cache.join("dockerutils/run")).unwrap();
        std::os::unix::fs::symlink("/tmp", cache.join("dockerutils/run")).unwrap();
        let error = paths.prepare().unwrap_err();
        assert!(error.to_string().contains("not a directory"), "{error}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_with_its_mend() {
        let directory = private();
        let error = AgentPaths::of(
            &dock("a", "far:1"),
            &env("XDG_CACHE_HOME", &directory.path().join("x".repeat(90))),
        )
        .unwrap_err();
        assert!(error.hint_text().unwrap().contains("XDG_RUNTIME_DIR"), "{error:?}");
    }
}
