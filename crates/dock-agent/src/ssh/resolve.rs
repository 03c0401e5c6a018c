//! The user's ssh configuration for a dock: what `ssh -G` prints, or OpenSSH's defaults if there is no ssh.

use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dock_client::docks::SshAccess;
use dock_client::docks::ssh_config::{Local, SshConfig, SshConfigError, Tokens, check_host, check_user};
use dock_client::env::Env;
use dock_client::hint;
use dock_link::transport::{TransportError, TransportErrorKind};

/// `Match exec` may run the user's commands; they may take this long.
const LIMIT: Duration = Duration::from_secs(30);

/// A dock's ssh configuration, and what is needed to expand it.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) config: SshConfig,
    pub(super) tokens: Tokens,
    /// The host as the user named it.
    pub(super) given: String,
    pub(super) env: Env,
    /// There is an OpenSSH client.
    pub(super) has_ssh: bool,
    /// The files of the configuration, as they were when they were read.
    pub(super) files: Vec<(PathBuf, Stamp)>,
}

/// Identifies one version of a file: its inode, its size and its modification time. `None` if there is no file.
pub(super) type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Whether one of these files has changed.
pub(super) fn have_changed(files: &[(PathBuf, Stamp)]) -> bool {
    files.iter().any(|(path, before)| stamp(path) != *before)
}

impl Resolved {
    /// Where the configuration leads: two configurations with the same text here connect to the same sshd as the same
    /// user.
    pub(super) fn leads_to(&self) -> String {
        let config = &self.config;
        format!(
            "{}@{} port {}, {:?}, {:?}",
            config.user,
            config.hostname.to_ascii_lowercase(),
            config.port,
            config.proxy_jump,
            config.proxy_command
        )
    }

    /// `user@host`, for messages and for commands to paste.
    pub(super) fn name(&self) -> String {
        format!("{}@{}", self.config.user, self.given)
    }

    /// The words after `ssh` or `ssh-copy-id` that name this dock.
    pub(super) fn words(&self, access: &SshAccess) -> String {
        let port = access.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        let user = access.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{port}{}", dock_client::shell::quote(&format!("{user}{}", self.given)))
    }

    /// A file that the configuration names.
    pub(super) fn file(&self, value: &str) -> Result<PathBuf, TransportError> {
        let variable = |name: &str| self.env.get(name).map(str::to_owned);
        self.tokens.file(value, &variable).map_err(|error| bad(&error))
    }

    /// Files that the configuration names.
    pub(super) fn files(&self, values: &[String]) -> Result<Vec<PathBuf>, TransportError> {
        values.iter().map(|value| self.file(value)).collect()
    }
}

/// Resolves the configuration for what the user said about a dock, which wins over the configuration.
///
/// # Errors
/// When a name is not valid, or ssh can't read its configuration.
pub(super) fn resolve(access: &SshAccess, env: &Env) -> Result<Resolved, TransportError> {
    check_host(&access.host).map_err(|error| bad(&error))?;
    if let Some(user) = &access.user {
        check_user(user).map_err(|error| bad(&error))?;
    }
    let user = env.user();
    let said = ask_ssh(access, env)?;
    let has_ssh = said.is_some();
    // A file that does not exist yet may be created later.
    let mut files = vec![env.home().join(".ssh/config"), PathBuf::from("/etc/ssh/ssh_config")];
    let mut config = match said {
        Some((output, read)) => {
            files.extend(read);
            SshConfig::parse(&output, &access.host, &user)
        }
        None => SshConfig::defaults(&access.host, &user),
    };
    if let Some(user) = &access.user {
        config.user.clone_from(user);
    }
    if let Some(port) = access.port {
        config.port = port;
    }
    if let Some(identity) = &access.identity {
        let identity = escaped(identity);
        config.identity_files.retain(|file| *file != identity);
        config.identity_files.insert(0, identity);
    }
    check_host(&config.hostname).map_err(|error| bad(&error))?;
    check_user(&config.user).map_err(|error| bad(&error))?;
    let local = Local {
        home: env.home(),
        user,
        uid: rustix::process::getuid().as_raw(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let tokens = Tokens::new(&config, &access.host, &local);
    Ok(Resolved {
        config,
        tokens,
        given: access.host.clone(),
        env: env.clone(),
        has_ssh,
        files: files
            .into_iter()
            .map(|path| {
                let stamp = stamp(&path);
                (path, stamp)
            })
            .collect(),
    })
}

/// A path as the configuration would write it.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}

fn bad(error: &SshConfigError) -> TransportError {
    TransportError {
        message: format!("cannot use the ssh configuration: {error}"),
        hint: None,
        kind: TransportErrorKind::NeedsPerson,
    }
}

/// What `ssh -G` prints, and which files it has read; `None` if there is no ssh.
fn ask_ssh(access: &SshAccess, env: &Env) -> Result<Option<(String, Vec<PathBuf>)>, TransportError> {
    let mut ssh = program("ssh", env);
    // With -v, ssh names the files that it reads.
    ssh.args(["-G", "-v"]);
    identify(&mut ssh, access);
    // A host is data: nothing after this is an option.
    ssh.args(["--", &access.host]);
    ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |what: String| TransportError {
        message: format!("ssh cannot read its configuration for {}: {what}", access.host),
        hint: Some(hint!("see what it says: ssh -G {}", access.host)),
        kind: TransportErrorKind::NeedsPerson,
    };
    let mut child = match ssh.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let output = child.stdout.take().map(|pipe| thread::spawn(move || text(pipe)));
    let errors = child.stderr.take().map(|pipe| thread::spawn(move || text(pipe)));
    let join =
        |reader: Option<thread::JoinHandle<String>>| reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    match wait(&mut child, LIMIT) {
        Some(true) => Ok(Some((join(output), read_files(&join(errors))))),
        Some(false) => {
            let said = join(errors);
            let is_chatter = |line: &&str| line.starts_with("debug1: ") || line.starts_with("OpenSSH_");
            let said: Vec<&str> = said.lines().filter(|line| !is_chatter(line)).collect();
            Err(failed(said.join("\n").trim().to_owned()))
        }
        None => Err(failed(format!("it took more than {} s", LIMIT.as_secs()))),
    }
}

/// The files that OpenSSH says it reads.
fn read_files(said: &str) -> Vec<PathBuf> {
    let named = said
        .lines()
        .filter_map(|line| line.strip_prefix("debug1: Reading configuration data "));
    named.map(|path| PathBuf::from(path.trim_end())).collect()
}

/// Gives ssh what the user said about a dock besides its host.
pub(super) fn identify(ssh: &mut Command, access: &SshAccess) {
    if let Some(port) = access.port {
        ssh.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &access.user {
        ssh.args(["-l", user]);
    }
    if let Some(identity) = &access.identity {
        ssh.arg("-i").arg(escaped(identity));
    }
}

/// A program with the environment of the call.
pub(super) fn program(name: &str, env: &Env) -> Command {
    let mut command = Command::new(name);
    command.env_clear().envs(env.iter());
    command
}

fn text(pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // Nothing that ssh prints is longer.
    let _ = pipe.take(1024 * 1024).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the process succeeded; `None` if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Option<bool> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if begun.elapsed() < limit => thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}
