//! A user's home with docks: our commands and OpenSSH's client on PATH, an ssh configuration, the list of docks.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dockerutils_test_support::lab::{LabEngine, Ssh};
use dockerutils_test_support::wait;
use dockerutils_test_support::{Invocation, Outcome, Sandbox, SlowLink, SshHome, binary};
use serde_json::Value;

const SHIM: &str = include_str!("../../crates/dock/shim/dock.sh");

/// The commands that are on PATH; `dock` is beside them.
const PROGRAMS: [&str; 16] = [
    "register-dock",
    "unregister-dock",
    "ls-dock",
    "ssh-dock",
    "nb-dock",
    "dock-env",
    "dock-agent",
    "build-image",
    "run-image",
    "run-notebook",
    "publish-image",
    "transfer-image",
    "sync-up",
    "sync-down",
    "build-stack",
    "test-stack",
];

/// A home with docks. At its end they are unregistered, and their agents end.
#[derive(Debug)]
pub struct DockHome {
    sandbox: Sandbox,
    ssh: SshHome,
}

impl Default for DockHome {
    fn default() -> Self {
        Self::new()
    }
}

impl DockHome {
    /// A home without docks, and a project called `sample`.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn new() -> Self {
        Self::of(Sandbox::new())
    }

    /// The home of this sandbox.
    ///
    /// # Panics
    /// When it can't be furnished.
    pub fn of(sandbox: Sandbox) -> Self {
        let ssh = SshHome::make(&sandbox.home()).expect("an empty home");
        let mut sandbox = sandbox.script("../home/bin/dock", SHIM);
        for program in PROGRAMS {
            let there = binary(program);
            sandbox = sandbox.symlink(&format!("../home/bin/{program}"), &there.display().to_string());
        }
        Self { sandbox, ssh }
    }

    /// Where it is, with a project.
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// What OpenSSH's client reads.
    pub const fn ssh(&self) -> &SshHome {
        &self.ssh
    }

    /// The list of docks.
    pub fn list_file(&self) -> PathBuf {
        self.sandbox.home().join(".config/dockerutils/docks.yml")
    }

    /// PATH, as this home's shells have it.
    pub fn path(&self) -> String {
        let machine = std::env::var("PATH").unwrap_or_default();
        format!("{}:{machine}", self.ssh.bin().display())
    }

    /// A program on PATH, with no engine chosen.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn program(&self, program: &str) -> Invocation<'_> {
        let path = self.path();
        let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
        let file = places.find(|file| file.is_file());
        self.sandbox
            .program(file.unwrap_or_else(|| panic!("{program} is not on PATH")))
            .env("PATH", path)
            .env("TERM", "xterm")
            .env_remove("DOCKER_HOST")
    }

    /// Runs a script in bash.
    pub fn bash(&self, script: &str) -> Outcome {
        let bash = self
            .program("bash")
            .args(["--norc", "--noprofile", "-c", script])
            .limit(Duration::from_secs(120));
        bash.spawn().wait()
    }

    /// Has the lab's key log in everywhere, behind these lines of `~/.ssh/config`.
    ///
    /// # Panics
    /// When the configuration can't be written.
    pub fn use_key(&self, key: &Path, lines: &str) {
        let key = format!("{lines}\nHost *\n  IdentityFile {}\n", key.display());
        self.ssh.configure(&key).expect("it is ours");
    }

    /// Trusts these hosts.
    ///
    /// # Panics
    /// When known_hosts can't be written.
    pub fn trust(&self, known_hosts: &str) {
        self.ssh.trust(known_hosts).expect("it is ours");
    }

    /// register-dock of `user` on this sshd, reached at `address`, whose host key is known.
    pub fn registration(&self, ssh: &Ssh, address: SocketAddr, user: &str, moniker: &str) -> Invocation<'_> {
        self.trust(&ssh.known_hosts_at(address));
        let register = self
            .program("register-dock")
            .args([&address.ip().to_string(), moniker, "-u", user])
            .any_stdout()
            .any_stderr();
        match address.port() {
            22 => register,
            port => register.args(["--port", &port.to_string()]),
        }
    }

    /// Registers `user` on this engine's machine.
    ///
    /// # Panics
    /// When that fails.
    pub fn register(&self, engine: &LabEngine, user: &str, moniker: &str) -> Outcome {
        let ssh = engine.ssh().expect("a dock");
        self.registration(&ssh, ssh.address, user, moniker).run()
    }

    /// Registers `ann` on this engine's machine as `far`, behind a link of this delay that can be cut.
    ///
    /// # Panics
    /// When that fails.
    pub fn register_behind_a_link(&self, engine: &LabEngine, delay: Duration) -> SlowLink {
        let ssh = engine.ssh().expect("a dock");
        let link = SlowLink::start(ssh.address, delay, None).expect("a port");
        self.registration(&ssh, link.address(), "ann", "far").run();
        link
    }

    /// What ls-dock says, as JSON.
    ///
    /// # Panics
    /// When it fails.
    pub fn list(&self) -> Value {
        let listed = self.program("ls-dock").args(["--json", "--wide"]).any_stdout();
        listed.run().json()
    }

    /// How many agents of this home run, by their sockets.
    pub fn agents(&self) -> usize {
        let sockets = self.sandbox.project().join("../runtime/dockerutils");
        let entries = fs::read_dir(sockets).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "ctl"))
            .count()
    }

    /// Waits until all agents of this home have ended.
    ///
    /// # Panics
    /// When one does not.
    pub fn no_agent_stays(&self) {
        wait::until("all agents have ended", || self.agents() == 0);
    }
}

impl Drop for DockHome {
    fn drop(&mut self) {
        // Agents outlive commands, and would outlive this home.
        let docks = self.program("dock-env").arg("--complete").spawn().wait();
        for moniker in docks.stdout.lines() {
            self.program("unregister-dock").arg(moniker).spawn().wait();
        }
    }
}
