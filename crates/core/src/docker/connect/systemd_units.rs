//! The units of the user's systemd that start the agent of a dock when something uses its docker context.
//!
//! systemd listens on a socket of the context's own ([`Agent::context_socket`]), after each login; when somebody
//! connects, it starts `dock-agent context`, which has the dock's agent serve that socket. The agent's own socket is
//! not systemd's: whoever starts an agent, the agent makes and removes that socket as always. The units hold nothing
//! that a dock says, and of its entry in the list only the name of the context: the address is read from the list when
//! it is needed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::agent::{Agent, paths, start};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::output::visible;
use crate::private_file;

/// The first line of each unit: by it, it is known to be ours.
const MARK: &str = "# Made by register-dock --make-context of dockerutils; unregister-dock removes it.";
/// How long systemctl may take: a manager that hangs must not make us hang.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest path that Linux binds a socket to.
const LONGEST_PATH: usize = 107;
/// The directory of links to the sockets that systemd opens at login.
const WANTS: &str = "sockets.target.wants";
/// The variables by which our programs find the list of docks. systemd may lack what a shell's startup files set.
const PLACES: [&str; 4] = ["HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "DOCKER_CONFIG"];

/// The systemd manager of this user.
#[derive(Debug)]
pub struct UserManager {
    systemctl: PathBuf,
    /// Where it reads the user's own units.
    directory: PathBuf,
    env: Env,
}

/// The units of one agent.
struct Units {
    socket: String,
    service: String,
}

impl Units {
    fn of(agent: &Agent) -> Self {
        let name = format!("dockerutils-{}", agent.paths().identity());
        Self {
            socket: format!("{name}.socket"),
            service: format!("{name}.service"),
        }
    }

    /// Their files in this directory, and the link that has the socket made at login.
    fn files(&self, directory: &Path) -> [PathBuf; 3] {
        [
            directory.join(WANTS).join(&self.socket),
            directory.join(&self.socket),
            directory.join(&self.service),
        ]
    }
}

impl UserManager {
    /// The session of this user; `None` where there is none, or it does not answer.
    pub async fn find(env: &Env) -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let runtime = PathBuf::from(env.non_empty("XDG_RUNTIME_DIR")?);
        let manager = runtime.join("systemd/private");
        // sudo keeps another user's XDG_RUNTIME_DIR.
        if !runtime.is_absolute() || !paths::is_private(&runtime) || !is_socket(&manager) {
            return None;
        }
        let mut session = Self {
            systemctl: on_path("systemctl", env)?,
            directory: PathBuf::new(),
            env: env.clone(),
        };
        // The manager was started with other variables than this shell has.
        let known = session
            .systemctl(&["show", "--property=UnitPath", "--value"])
            .await
            .ok()?;
        session.directory = directories(env).into_iter().find(|directory| {
            let name = directory.to_str();
            name.is_some_and(|name| known.split_whitespace().any(|place| place == name))
        })?;
        Some(session)
    }

    /// What [`UserManager::install`] does, in words.
    pub fn plan(&self, agent: &Agent) -> Vec<String> {
        let units = Units::of(agent);
        let [_, socket, service] = units.files(&self.directory);
        vec![
            format!("write {} and {}", socket.display(), service.display()),
            format!("systemctl --user enable --now {}", units.socket),
        ]
    }

    /// Makes systemd listen for an agent, now and after each login, for the docker context of this name; returns the
    /// socket. If something fails, what was made until then is removed.
    ///
    /// # Errors
    /// A path that can't be in a unit, files that can't be written or are not ours, and systemd's own errors.
    pub async fn install(&self, agent: &Agent, name: &str) -> Result<PathBuf> {
        let installed = self.try_install(agent, name).await;
        if installed.is_err() {
            // The first error is the one that counts.
            let _ = remove(agent, &self.env).await;
        }
        installed
    }

    async fn try_install(&self, agent: &Agent, name: &str) -> Result<PathBuf> {
        let units = Units::of(agent);
        let [_, socket_file, service_file] = units.files(&self.directory);
        let socket = agent.context_socket();
        let texts = [
            (socket_file, socket_unit(name, &socket)?),
            (service_file, service_unit(name, &program(&self.env)?, &self.env)?),
        ];
        agent.paths().prepare()?;
        for (file, text) in &texts {
            let failed = |cause| Error::failed(format!("{} can't be written", file.display())).because(cause);
            if file.exists() && !is_ours(file) {
                return Err(Error::failed(format!("{} exists, and is not ours", file.display()))
                    .hint(hint!("look at it: systemctl --user cat {}", units.socket)));
            }
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)
                .map_err(failed)?;
            private_file::replace(file, text.as_bytes()).map_err(failed)?;
        }
        self.systemctl(&["daemon-reload"]).await?;
        // A unit that has failed before is not started otherwise; most have not.
        let _ = self.systemctl(&["reset-failed", &units.socket, &units.service]).await;
        self.systemctl(&["enable", "--now", &units.socket]).await?;
        if !is_socket(&socket) {
            // systemd believes that it listens, but the file was removed. It makes no new socket while the service
            // runs.
            self.systemctl(&["stop", &units.service]).await?;
            self.systemctl(&["restart", &units.socket]).await?;
        }
        if is_socket(&socket) {
            return Ok(socket);
        }
        Err(
            Error::failed(format!("systemd has made no socket {}", socket.display()))
                .hint(hint!("see what it did: systemctl --user status {}", units.socket)),
        )
    }

    async fn systemctl(&self, words: &[&str]) -> Result<String> {
        let shown = || format!("systemctl --user {}", words.join(" "));
        let running = tokio::process::Command::new(&self.systemctl)
            .arg("--user")
            .args(words)
            .env_clear()
            .envs(self.env.iter())
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(LIMIT, running).await {
            Ok(output) => output.map_err(|cause| Error::failed(format!("{} can't be run", shown())).because(cause))?,
            Err(_) => {
                return Err(Error::failed(format!(
                    "{} did not end within {} s",
                    shown(),
                    LIMIT.as_secs()
                )));
            }
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let error = Error::failed(format!("{} failed", shown()));
        Err(match said.trim() {
            "" => error,
            said => error.because(visible(said)),
        })
    }
}

/// Stops systemd from listening for an agent, and removes its units; true if there were any. What systemd can't do now,
/// it does at its next start.
///
/// # Errors
/// Files that can't be removed.
pub async fn remove(agent: &Agent, env: &Env) -> Result<bool> {
    let units = Units::of(agent);
    let files: Vec<PathBuf> = directories(env)
        .iter()
        .flat_map(|directory| units.files(directory))
        // The link leads to one of the others, so it is looked at before that is removed.
        .filter(|file| is_ours(file))
        .collect();
    if files.is_empty() {
        return Ok(false);
    }
    let session = UserManager::find(env).await;
    if let Some(session) = &session {
        // What fails here has been stopped already, or shows where it matters: the context still answers.
        let _ = session.systemctl(&["disable", "--now", &units.socket]).await;
        let _ = session.systemctl(&["stop", &units.service]).await;
        let _ = session
            .systemctl(&["reset-failed", &units.socket, &units.service])
            .await;
    }
    for file in files.iter().chain([&agent.context_socket()]) {
        match fs::remove_file(file) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(Error::failed(format!("{} can't be removed", file.display())).because(cause));
            }
            _ => {}
        }
    }
    if let Some(session) = &session {
        // systemd's next start forgets them, too.
        let _ = session.systemctl(&["daemon-reload"]).await;
    }
    Ok(true)
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
}

fn is_ours(unit: &Path) -> bool {
    fs::read_to_string(unit).is_ok_and(|text| text.lines().next() == Some(MARK))
}

/// Where the user's own units may be: as this shell has it, and the usual place.
fn directories(env: &Env) -> Vec<PathBuf> {
    let usual = env.home().join(".config");
    let configured = env.non_empty("XDG_CONFIG_HOME").map(PathBuf::from);
    let mut directories: Vec<PathBuf> = configured
        .into_iter()
        .chain([usual])
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("systemd/user"))
        .collect();
    directories.dedup();
    directories
}

/// The absolute directories of PATH, without those that can't be written in a unit.
fn path_directories(env: &Env) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(env.get("PATH").unwrap_or_default())
        .filter(|directory| directory.is_absolute() && directory.to_str().is_some_and(is_plain))
}

fn on_path(program: &str, env: &Env) -> Option<PathBuf> {
    path_directories(env)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The agent's program by the name that an update keeps: the one on PATH, which may be a link, if it is the one beside
/// us.
fn program(env: &Env) -> Result<PathBuf> {
    let beside = start::find(env)?;
    let (Some(name), Ok(real)) = (beside.file_name(), beside.canonicalize()) else {
        return Ok(beside);
    };
    let kept = path_directories(env)
        .map(|directory| directory.join(name))
        .find(|file| file.canonicalize().is_ok_and(|file| file == real));
    Ok(kept.unwrap_or(beside))
}

fn socket_unit(name: &str, socket: &Path) -> Result<String> {
    let path = socket.to_str().filter(|path| is_plain(path) && *path == path.trim());
    let path = path.filter(|path| path.len() <= LONGEST_PATH).ok_or_else(|| {
        let what = format!(
            "systemd can't listen on the path {:?}",
            socket.as_os_str().as_bytes().escape_ascii().to_string()
        );
        Error::failed(what).hint("set XDG_RUNTIME_DIR to a private directory with a short, plain path")
    })?;
    Ok(format!(
        "{MARK}\n\
         [Unit]\n\
         Description=Socket of the docker context {name}\n\
         \n\
         [Socket]\n\
         ListenStream={}\n\
         SocketMode=0600\n\
         DirectoryMode=0700\n\
         RemoveOnStop=yes\n\
         \n\
         [Install]\n\
         WantedBy=sockets.target\n",
        // The rest of the line is the path, whatever is in it; only specifiers count.
        path.replace('%', "%%")
    ))
}

fn service_unit(name: &str, program: &Path, env: &Env) -> Result<String> {
    let program = program.to_str().and_then(quoted).ok_or_else(|| {
        Error::failed(format!(
            "systemd can't start the program at the path {:?}",
            program.display().to_string()
        ))
        .hint("put the programs of dockerutils into a directory with a plain path")
    })?;
    // So that the programs in ~/.ssh/config (ProxyCommand, Match exec) are found as from this shell.
    let directories = std::env::join_paths(path_directories(env)).unwrap_or_default();
    let path = directories
        .to_str()
        .filter(|path| !path.is_empty())
        .map(|path| ("PATH", path));
    let places = PLACES
        .iter()
        .filter_map(|name| Some((*name, env.get(name).filter(|place| place.starts_with('/'))?)));
    let environment: String = path
        .into_iter()
        .chain(places)
        .filter_map(|(name, value)| quoted(&format!("{name}={value}")))
        .map(|assignment| format!("Environment={assignment}\n"))
        .collect();
    // `process`: an agent that it started outlives it. If the program is missing for a minute, as while dockerutils is
    // updated, systemd must not give the socket up for good.
    Ok(format!(
        "{MARK}\n\
         [Unit]\n\
         Description=Agent of the docker context {name}\n\
         StartLimitIntervalSec=120\n\
         StartLimitBurst=30\n\
         \n\
         [Service]\n\
         ExecStart={program} {}\n\
         StandardInput=socket\n\
         StandardOutput=journal\n\
         StandardError=journal\n\
         KillMode=process\n\
         Restart=on-failure\n\
         RestartSec=2\n\
         {environment}",
        start::CONTEXT
    ))
}

/// Whether this can be written in a unit.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A word of a unit's line: in quotes (systemd.syntax(7)), without specifiers (systemd.unit(5)). None for what a line
/// can't hold.
/// A `$` is itself in the path of a program, and in the value of a variable.
fn quoted(word: &str) -> Option<String> {
    if !is_plain(word) {
        return None;
    }
    let escaped = word.replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%");
    Some(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_unit_is_that_word_whatever_is_in_it() {
        for (word, written) in [
            ("/usr/bin/dock-agent", r#""/usr/bin/dock-agent""#),
            ("PATH=/a b:/c\td", ""),
            ("PATH=/a b:/it's", r#""PATH=/a b:/it's""#),
            (r#"/a"b\n%h"#, r#""/a\"b\\n%%h""#),
            ("$HOME ${x} #; é", "\"$HOME ${x} #; é\""),
            (r"ends with \", r#""ends with \\""#),
            ("a\nExecStartPre=/evil", ""),
            ("a\u{0}", ""),
            ("a\u{85}b", ""),
        ] {
            assert_eq!(quoted(word).unwrap_or_default(), written, "{word:?}");
        }
    }

    #[test]
    fn units_hold_what_is_plain_and_refuse_the_rest() {
        let text = socket_unit("far", Path::new("/run/a b%t/x.context.sock")).unwrap();
        assert!(text.contains("\nListenStream=/run/a b%%t/x.context.sock\n"), "{text}");
        assert!(text.starts_with("# Made by register-dock"), "{text}");
        for path in [
            "/run/a\nExec=x/y.sock",
            "/run/y.sock ",
            &format!("/{}", "x".repeat(LONGEST_PATH)),
        ] {
            assert!(socket_unit("far", Path::new(path)).is_err(), "{path}");
        }
        let env = Env::from_pairs([
            ("PATH", "/usr/bin:relative:/odd\nEnvironment=x:/a %b"),
            ("HOME", "/home/ann"),
            ("XDG_STATE_HOME", "relative"),
            ("DOCKER_CONFIG", "/line\nend"),
            ("SSH_AUTH_SOCK", "/tmp/x"),
        ]);
        let text = service_unit("far", Path::new("/opt/my $x/dock-agent"), &env).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("E")).collect();
        assert_eq!(
            lines,
            [
                "ExecStart=\"/opt/my $x/dock-agent\" context",
                "Environment=\"PATH=/usr/bin:/a %%b\"",
                "Environment=\"HOME=/home/ann\"",
            ]
        );
        assert!(service_unit("far", Path::new("/a\nb"), &env).is_err());
    }

    #[tokio::test]
    async fn what_does_not_work_is_taken_away_and_what_is_not_ours_is_left() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".config");
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap()), ("PATH", "/usr/bin:/bin")]);
        let dock = crate::docks::Dock {
            moniker: "far".into(),
            access: crate::docks::Access::Ssh(crate::docks::SshAccess::default()),
            workspace: None,
            forward: crate::docks::Forward::default(),
            mounts: crate::docks::MountPaths::default(),
        };
        let agent = Agent::of(&dock, &env).unwrap();
        // It accepts everything, and does nothing.
        let session = UserManager {
            systemctl: on_path("true", &env).unwrap(),
            directory: config.join("systemd/user"),
            env: env.clone(),
        };
        let units = Units::of(&agent);
        let files = units.files(&session.directory);
        let [_, socket, service] = &files;
        fs::create_dir_all(&session.directory).unwrap();
        fs::write(home.path().join("dock-agent"), "").unwrap();
        let write = || {
            fs::write(socket, socket_unit("far", &agent.context_socket()).unwrap()).unwrap();
            fs::create_dir_all(session.directory.join(WANTS)).unwrap();
            std::os::unix::fs::symlink(socket, &files[0]).unwrap();
        };
        write();
        assert!(remove(&agent, &env).await.unwrap());
        assert!(!remove(&agent, &env).await.unwrap());
        assert!(files.iter().all(|file| file.symlink_metadata().is_err()));
        write();
        fs::write(service, "[Service]\nExecStart=/mine\n").unwrap();
        let path = home.path().to_str().unwrap();
        let env = Env::from_pairs([("HOME", path), ("PATH", &format!("{path}:/usr/bin:/bin"))]);
        let error = UserManager { env, ..session }.install(&agent, "far").await.unwrap_err();
        assert!(error.to_string().contains("exists, and is not ours"), "{error}");
        assert_eq!(fs::read_to_string(service).unwrap(), "[Service]\nExecStart=/mine\n");
        assert!(!socket.exists());
    }

    #[tokio::test]
    async fn without_a_manager_there_is_no_session() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        for variables in [
            &[("PATH", "/usr/bin")][..],
            &[("PATH", "/usr/bin"), ("XDG_RUNTIME_DIR", path)],
        ] {
            assert!(
                UserManager::find(&Env::from_pairs(variables.iter().copied()))
                    .await
                    .is_none()
            );
        }
    }
}
