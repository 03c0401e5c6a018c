//! The ssh side of the lab's docks: users, keys, and further sshds with a configuration of their own.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::place::wait;
use super::{Error, Lab, LabEngine, create_directory, host_of, write};
use crate::{machine, process};

/// The users of every dock, each with the lab's key: root, `ann` who may use the engine by its group, `bob` who may not.
pub const USERS: [&str; 3] = ["root", "ann", "bob"];

/// The first port of further sshds.
const FIRST_PORT: u16 = 2300;
/// How many ports are tried before giving up.
const PORTS: u16 = 500;

/// Run in the dock as root, with the public key on stdin; prints the host keys. Penalties would hit the tests that fail
/// to log in on purpose, as all tests come from one address. `MaxStartups` is sshd's limit on logins at one time.
const SET_UP: &str = r#"
set -e
rm -f /etc/ssh/ssh_host_*
ssh-keygen -q -A
echo 'MaxStartups 500' > /etc/ssh/sshd_config.d/lab.conf
if sshd -T | grep -qi '^persourcepenalties'; then echo 'PerSourcePenalties no' >> /etc/ssh/sshd_config.d/lab.conf; fi
getent group docker >/dev/null || groupadd docker
for user in ann bob; do
    id -u "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
    # Without a password, the account is locked.
    usermod --password '*' "$user"
done
usermod -aG docker ann
chgrp docker /var/run/docker.sock
key=$(cat)
for user in root ann bob; do
    home=$(getent passwd "$user" | cut -d: -f6)
    install -d -m 700 -o "$user" "$home/.ssh"
    printf '%s\n' "$key" > "$home/.ssh/authorized_keys"
    chown "$user" "$home/.ssh/authorized_keys"
    chmod 600 "$home/.ssh/authorized_keys"
done
# sshd restarts itself, and writes the file when it listens again.
pid=$(cat /run/sshd.pid)
rm -f /run/sshd.pid
kill -HUP "$pid"
for _ in $(seq 3000); do test -s /run/sshd.pid && break; sleep 0.02; done
test -s /run/sshd.pid
cat /etc/ssh/ssh_host_*_key.pub
"#;

/// Starts an sshd on the port `$1` with the lines that follow. sshd goes into the background before it binds its port,
/// so its exit code does not tell whether it got it: a directory is the port's lock, and the file with its process
/// number appears when it listens.
const START: &str = r#"
port=$1; shift
mkdir "/run/sshd-$port.taken" 2>/dev/null || exit 98
file=/run/sshd-$port.pid
rm -f "$file"
for line; do set -- "$@" -o "$line"; shift; done
/usr/sbin/sshd -p "$port" -o "PidFile=$file" "$@" || { code=$?; rmdir "/run/sshd-$port.taken"; exit $code; }
for _ in $(seq 200); do
    test -s "$file" && exit 0
    sleep 0.02
done
exit 98
"#;

/// The exit code of [`START`] if the port is not free.
const TAKEN: i32 = 98;

fn start_sshd(mut sh: Command, port: u16) -> Command {
    sh.args(["-c", START, "sh", &port.to_string()]);
    sh
}

/// How a dock is reached by ssh.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// The address and port of its sshd.
    pub address: SocketAddr,
    /// The private key (ed25519, not encrypted) that every user of [`USERS`] accepts; `.pub` beside it.
    pub key: PathBuf,
    /// Its public host keys, as `ssh-ed25519 AAAA...`; one of each type.
    pub host_keys: Vec<String>,
}

impl Ssh {
    /// The lines of a known_hosts file for this dock.
    pub fn known_hosts(&self) -> String {
        known_hosts(self.address, &self.host_keys)
    }

    /// The same lines for another address that leads there, such as that of a slow link.
    pub fn known_hosts_at(&self, address: SocketAddr) -> String {
        known_hosts(address, &self.host_keys)
    }
}

fn known_hosts(address: SocketAddr, keys: &[String]) -> String {
    let host = match address.port() {
        22 => address.ip().to_string(),
        port => format!("[{}]:{port}", address.ip()),
    };
    keys.iter().map(|key| format!("{host} {key}\n")).collect()
}

impl LabEngine {
    /// Makes the dock ready for ssh, once, and returns how it is reached.
    ///
    /// # Errors
    /// When it is the machine's own engine, which is not a dock, or the set-up fails.
    pub fn ssh(&self) -> Result<Ssh, Error> {
        let lab = Lab::open()?;
        let container = self
            .container
            .as_deref()
            .ok_or_else(|| Error::NoDock(self.name.clone()))?;
        let key = lab.key()?;
        // Beside the dock's socket: removed together with the container that has the users and keys.
        let directory = Path::new(self.host.strip_prefix("unix://").unwrap_or(&self.host))
            .parent()
            .map(Path::to_owned)
            .unwrap_or_default();
        let ready = directory.join("host_keys");
        if !ready.exists() {
            let _lock = wait(
                &directory.join("ssh.lock"),
                "lab: waiting for another process that sets up ssh",
            )?;
            if !ready.exists() {
                write(&ready, &set_up(&lab, container, &key.with_extension("pub"))?)?;
            }
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| Error::File {
                path: path.to_owned(),
                source,
            })
        };
        let host_keys = read(&ready)?.lines().map(key_alone).collect();
        Ok(Ssh {
            address: SocketAddr::new(self.address()?, 22),
            key,
            host_keys,
        })
    }

    /// The dock's address on the machine's own network of containers.
    ///
    /// # Errors
    /// When it is the machine's own engine, or its container is gone.
    pub fn address(&self) -> Result<IpAddr, Error> {
        let container = self
            .container
            .as_deref()
            .ok_or_else(|| Error::NoDock(self.name.clone()))?;
        let mut inspect = Lab::open()?.docker();
        inspect.args(["inspect", "--format", "{{.NetworkSettings.IPAddress}}", container]);
        let address = process::capture_text(&mut inspect)?;
        address.trim().parse().map_err(|_| Error::Vanished)
    }

    /// A command that runs `program` in the dock, as root.
    ///
    /// # Errors
    /// When it is the machine's own engine.
    pub fn exec(&self, program: &str) -> Result<Command, Error> {
        let container = self
            .container
            .as_deref()
            .ok_or_else(|| Error::NoDock(self.name.clone()))?;
        let mut exec = Lab::open()?.docker();
        exec.args(["exec", "--interactive", container, program]);
        Ok(exec)
    }

    /// Starts a further sshd in the dock, on a port of its own, with these lines of sshd_config (`MaxSessions 2`). It
    /// has the dock's users and host keys, and ends when this is dropped.
    ///
    /// # Errors
    /// When sshd does not accept the lines, or no port is free.
    pub fn sshd(&self, lines: &[&str]) -> Result<Sshd, Error> {
        let ssh = self.ssh()?;
        // Tests run in parallel, each in a process: each begins at a port that the others probably don't try first.
        let begin = (std::process::id() % u32::from(PORTS)) as u16;
        let mut refused = None;
        for port in (0..PORTS).map(|step| FIRST_PORT + (begin + step) % PORTS) {
            match process::capture(start_sshd(self.exec("sh")?, port).args(lines)) {
                Ok(_) => {
                    let address = SocketAddr::new(ssh.address.ip(), port);
                    return Ok(Sshd {
                        engine: self.clone(),
                        ssh: Ssh { address, ..ssh },
                        lines: lines.iter().map(|&line| line.to_owned()).collect(),
                    });
                }
                Err(error) if error.code() == Some(TAKEN) => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.map_or(Error::Vanished, Into::into))
    }
}

/// A further sshd of a dock.
#[derive(Debug)]
pub struct Sshd {
    engine: LabEngine,
    ssh: Ssh,
    lines: Vec<String>,
}

impl Sshd {
    /// How it is reached.
    pub const fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    /// Ends it and every session that it serves.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn kill(&self) -> Result<(), Error> {
        let port = self.ssh.address.port();
        // The sessions are its children, each the head of its own process group.
        // All are found before any is killed: an orphan gets another parent.
        let script = "pid=$(cat \"$0\") || exit 0; children=$(pgrep -P \"$pid\"); all=\"$pid $children\"; \
                      for child in $children; do all=\"$all $(pgrep -P \"$child\")\"; done; kill -9 $all; \
                      rm -rf \"$0\" \"${0%.pid}.taken\"";
        let mut sh = self.engine.exec("sh")?;
        sh.args(["-c", script, &format!("/run/sshd-{port}.pid")]);
        // Some of these processes may have ended by themselves.
        let _ = process::capture(&mut sh);
        Ok(())
    }

    /// Starts it again on its port, after [`Sshd::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_again(&self) -> Result<(), Error> {
        let port = self.ssh.address.port();
        process::capture(start_sshd(self.engine.exec("sh")?, port).args(&self.lines))?;
        Ok(())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

impl Lab {
    /// The key that every user of every dock accepts; made if it does not exist.
    fn key(&self) -> Result<PathBuf, Error> {
        let directory = self.shared.join("ssh");
        let key = directory.join("id_ed25519");
        if key.exists() {
            return Ok(key);
        }
        let _lock = wait(
            &directory.join("lock"),
            "lab: waiting for another process that makes its key",
        )?;
        if key.exists() {
            return Ok(key);
        }
        machine::require("ssh-keygen", &["openssh-client"], "the lab's docks")?;
        create_directory(&directory)?;
        let fresh = directory.join("fresh");
        let _ = (fs::remove_file(&fresh), fs::remove_file(fresh.with_extension("pub")));
        process::capture(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "dockerutils-lab", "-f"])
                .arg(&fresh),
        )?;
        // The private key last: if it exists, the public one does, too.
        for (from, to) in [
            (fresh.with_extension("pub"), key.with_extension("pub")),
            (fresh, key.clone()),
        ] {
            fs::rename(&from, &to).map_err(|source| Error::File { path: to, source })?;
        }
        Ok(key)
    }
}

/// Returns the host keys, one from each line.
fn set_up(lab: &Lab, container: &str, public_key: &Path) -> Result<String, Error> {
    let file = |path: &Path, source| Error::File {
        path: path.to_owned(),
        source,
    };
    let key = fs::read(public_key).map_err(|source| file(public_key, source))?;
    let mut exec = super::docker(&host_of(&lab.local));
    exec.args(["exec", "--interactive", container, "sh", "-c", SET_UP]);
    let mut child = exec
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| file(Path::new("docker"), source))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&key).map_err(|source| file(public_key, source))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|source| file(Path::new("docker"), source))?;
    if !output.status.success() {
        return Err(Error::SetUp(container.to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The key without its comment.
fn key_alone(line: &str) -> String {
    line.split(' ').take(2).collect::<Vec<_>>().join(" ")
}
