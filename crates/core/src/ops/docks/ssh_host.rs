//! What this machine knows of a dock's host: what `~/.ssh/config` makes of its name, and the keys in known_hosts.

use std::process::Stdio;
use std::time::Duration;

use crate::docks::SshAccess;
use crate::docks::known_hosts::{KnownHosts, fingerprint, key_type};
use crate::docks::ssh_config::{Local, SshConfig, Tokens, check_host, check_user};
use crate::env::Env;
use crate::error::{Error, Result};

/// `Match exec` of the configuration may run commands of the user's; they have so long.
const LIMIT: Duration = Duration::from_secs(10);
/// Nothing that `ssh -G` prints is longer.
const OUTPUT_LIMIT: usize = 1024 * 1024;

/// The ssh configuration for a dock, with what the dock's own entry says over it.
///
/// # Errors
/// An illegal host or user name, and a configuration that ssh can't read.
pub async fn resolve(access: &SshAccess, env: &Env) -> Result<SshConfig> {
    let wrong = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Error::usage(format!("the ssh configuration for {:?} can't be used", access.host)).because(cause)
    };
    check_host(&access.host).map_err(|cause| wrong(cause.into()))?;
    if let Some(user) = &access.user {
        check_user(user).map_err(|cause| wrong(cause.into()))?;
    }
    let mut config = match ask_ssh(access, env).await.map_err(|cause| wrong(cause.into()))? {
        Some(output) => SshConfig::parse(&output, &access.host, &env.user()),
        None => SshConfig::defaults(&access.host, &env.user()),
    };
    if let Some(user) = &access.user {
        config.user.clone_from(user);
    }
    if let Some(port) = access.port {
        config.port = port;
    }
    Ok(config)
}

/// What `ssh -G` prints; `None` where there is no ssh.
async fn ask_ssh(access: &SshAccess, env: &Env) -> Result<Option<String>, std::io::Error> {
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.env_clear().envs(env.iter()).arg("-G");
    if let Some(port) = access.port {
        ssh.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &access.user {
        ssh.args(["-l", user]);
    }
    // A host is data: behind this, nothing is an option.
    ssh.args(["--", &access.host]).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(LIMIT, ssh.output()).await {
        Err(_) => {
            return Err(std::io::Error::other(format!(
                "ssh -G takes more than {} s",
                LIMIT.as_secs()
            )));
        }
        Ok(Err(cause)) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(output) => output?,
    };
    let text = |bytes: &[u8]| {
        let bytes = bytes.get(..OUTPUT_LIMIT).unwrap_or(bytes);
        String::from_utf8_lossy(bytes).into_owned()
    };
    if output.status.success() {
        Ok(Some(text(&output.stdout)))
    } else {
        Err(std::io::Error::other(text(&output.stderr).trim().to_owned()))
    }
}

/// The keys that a host is known by, each as `ED25519 SHA256:... (FILE:LINE)`; empty where it is not known yet.
pub fn known_keys(config: &SshConfig, access: &SshAccess, env: &Env) -> Vec<String> {
    let local = Local {
        home: env.home(),
        user: env.user(),
        uid: rustix::process::getuid().as_raw(),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let tokens = Tokens::new(config, &access.host, &local);
    let variable = |name: &str| env.get(name).map(str::to_owned);
    let files = config
        .user_known_hosts
        .iter()
        .chain(&config.global_known_hosts)
        .filter_map(|file| tokens.file(file, &variable).ok());
    // What can't be read is for the one to say who must trust it.
    let Ok(hosts) = KnownHosts::read(files) else {
        return Vec::new();
    };
    hosts
        .keys(&config.known_host_name())
        .into_iter()
        .filter_map(|(key, place)| {
            let kind = key_type(key)?;
            // As ssh calls them: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `sk-ssh-ed25519@openssh.com`.
            let kind = ["ED25519", "ECDSA", "RSA", "DSA"]
                .into_iter()
                .find(|short| kind.to_uppercase().contains(short))
                .unwrap_or(kind);
            Some(format!("{kind} {} ({place})", fingerprint(key)))
        })
        .collect()
}
