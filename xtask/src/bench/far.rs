//! A distant dock: one of the lab's behind a slow link, in a home directory where it is registered as `far`, and where
//! `ssh far` reaches it, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{Client, LabEngine};
use dockerutils_test_support::{SlowLink, SshHome, process};

use super::Setting;
use crate::error::Error;

/// The dock's moniker, and its `Host` in the ssh configuration.
pub(super) const NAME: &str = "far";

/// How far away a dock is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Distance {
    pub(super) round_trip: Duration,
    /// Bits a second; `None` for no limit.
    pub(super) capacity: Option<u64>,
}

/// The dock. Its agent ends with this value.
pub(super) struct FarDock {
    home: tempfile::TempDir,
    bin: PathBuf,
    /// It lasts as long as the dock does.
    link: SlowLink,
    /// What a docked shell has in DOCKER_HOST.
    docker_host: String,
}

impl FarDock {
    /// Puts the link before the dock's sshd, and registers it.
    pub(super) fn register(setting: &Setting, engine: &LabEngine, distance: Distance) -> Result<Self, Error> {
        let home = tempfile::Builder::new()
            .prefix("far")
            .tempdir()
            .map_err(Error::file("a temporary directory"))?;
        let ssh = engine.ssh()?;
        let link =
            SlowLink::start(ssh.address, distance.round_trip, distance.capacity).map_err(Error::file("a slow link"))?;
        let ssh_home = SshHome::make(home.path()).map_err(Error::file(home.path()))?;
        // A copy: a container sees this directory and no other.
        let (key, run) = (ssh_home.ssh().join("id"), home.path().join("run"));
        let copied =
            fs::copy(&ssh.key, &key).and_then(|_| fs::set_permissions(&key, fs::Permissions::from_mode(0o600)));
        copied.map_err(Error::file(&key))?;
        let made = fs::create_dir(&run).and_then(|()| fs::set_permissions(&run, fs::Permissions::from_mode(0o700)));
        made.map_err(Error::file(&run))?;
        let config = format!(
            "Host {NAME}\n  HostName {}\n  Port {}\n  User ann\n  IdentityFile {}\n  IdentitiesOnly yes\n",
            link.address().ip(),
            link.address().port(),
            key.display()
        );
        ssh_home
            .configure(&config)
            .and_then(|()| ssh_home.trust(&ssh.known_hosts_at(link.address())))
            .map_err(Error::file(ssh_home.ssh()))?;
        let mut dock = Self {
            home,
            bin: setting.bin.clone(),
            link,
            docker_host: String::new(),
        };
        process::capture(dock.ours("register-dock").args([NAME, NAME]))?;
        // As a docked shell does: the agent stays while this process lives.
        let pid = std::process::id().to_string();
        let lines = process::capture_text(dock.ours("dock-env").args([NAME, "--lines", "--pid", &pid]))?;
        let host = lines.lines().find_map(|line| line.strip_prefix("DOCKER_HOST="));
        let host = host.ok_or_else(|| Error::Failed(format!("dock-env names no DOCKER_HOST:\n{lines}")))?;
        host.clone_into(&mut dock.docker_host);
        Ok(dock)
    }

    /// One of our programs, in this home.
    pub(super) fn ours(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        self.settle(&mut command);
        command.env_remove("DOCKER_HOST");
        command
    }

    /// The machine's docker client in a shell that is docked.
    pub(super) fn docked(&self) -> Command {
        self.docked_program("docker")
    }

    /// Any program in a shell that is docked.
    pub(super) fn docked_program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        self.settle(&mut command);
        command.env("DOCKER_HOST", &self.docker_host);
        command
    }

    /// The machine's docker client by its own `ssh://`.
    pub(super) fn by_ssh(&self) -> Command {
        let mut docker = Command::new("docker");
        self.settle(&mut docker);
        docker.env("DOCKER_HOST", format!("ssh://{NAME}"));
        docker
    }

    /// A script of the shell in which docker's client goes by its own `ssh://`.
    pub(super) fn by_ssh_in(&self, script: &str) -> Command {
        let mut sh = Command::new("sh");
        self.settle(&mut sh);
        sh.args(["-ec", script]).env("DOCKER_HOST", format!("ssh://{NAME}"));
        sh
    }

    /// The link to the dock.
    pub(super) const fn link(&self) -> &SlowLink {
        &self.link
    }

    /// docker's client with buildx, by its own `ssh://`: the command is `env`, which takes the program as its argument.
    pub(super) fn buildx_by_ssh(&self, client: &Client, directory: &Path) -> Command {
        let mut exec = client.exec(directory, "env");
        exec.arg(format!("HOME={}", self.home.path().display()));
        exec.arg(format!("PATH={}/bin:/usr/bin:/bin", self.home.path().display()));
        exec.arg(format!("DOCKER_HOST=ssh://{NAME}"));
        exec
    }

    /// The directory that a container must see for [`FarDock::buildx_by_ssh`].
    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    fn settle(&self, command: &mut Command) {
        let mut path = self.home.path().join("bin").into_os_string();
        for part in [self.bin.as_os_str(), &std::env::var_os("PATH").unwrap_or_default()] {
            path.push(":");
            path.push(part);
        }
        for variable in [
            "DOCKER_CONTEXT",
            "DOCKER_TLS_VERIFY",
            "DOCKER_CERT_PATH",
            "DOCKER_CONFIG",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "BUILDX_BUILDER",
            "SSH_AUTH_SOCK",
        ] {
            command.env_remove(variable);
        }
        command
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .env("PATH", path);
    }
}

impl Drop for FarDock {
    fn drop(&mut self) {
        // The agent would end by itself, some minutes later.
        let _ = process::capture(self.ours("unregister-dock").arg(NAME));
    }
}
