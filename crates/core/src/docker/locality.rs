//! Whether an engine is on this machine. Secrets of the environment go to no other.

use std::path::Path;

use super::endpoint::{Endpoint, Origin};
use super::engine::Engine;
use crate::agent::Agent;
use crate::env::Env;
use crate::error::Result;

/// Where an engine is, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locality {
    /// On this machine.
    Local,
    /// On another: the shell is docked.
    Docked,
}

/// Tells it by the environment and the address alone. A Unix socket may lead elsewhere (`ssh -L`): before a secret is
/// sent, [`confirm`] asks the engine.
pub fn by_address(endpoint: &Endpoint, origin: &Origin, env: &Env) -> Locality {
    // `source dock` sets DOCKER_IP, whatever the address is.
    if env.non_empty("DOCKER_IP").is_some() && *origin == Origin::Host {
        return Locality::Docked;
    }
    if matches!(origin, Origin::Dock(_)) {
        return Locality::Docked;
    }
    match endpoint {
        // An agent's socket is here, and its engine is not: by a docker context, or a pasted DOCKER_HOST.
        Endpoint::Unix(socket) if Agent::is_engine_socket(socket, env) => Locality::Docked,
        Endpoint::Unix(_) => Locality::Local,
        Endpoint::Tcp { host, .. } if is_loopback(host) => Locality::Local,
        Endpoint::Tcp { .. } | Endpoint::Ssh { .. } => Locality::Docked,
    }
}

/// Asks an engine that looks local whether it runs on this machine's kernel.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn confirm(engine: &Engine, env: &Env) -> Result<Locality> {
    let choice = engine.choice();
    if by_address(&choice.endpoint, &choice.origin, env) == Locality::Docked {
        return Ok(Locality::Docked);
    }
    let info = engine.info().await?;
    let kernel = rustix::system::uname();
    // Docker Desktop and its like run in a virtual machine of this one, behind a socket in the user's home.
    let virtual_machine = cfg!(target_os = "macos") || info.operating_system.as_deref() == Some("Docker Desktop");
    let same_kernel = info.kernel_version.as_deref() == kernel.release().to_str().ok()
        && info
            .mem_total
            .is_none_or(|total| memory_total().is_none_or(|own| own == total));
    // In a container, the engine's host has another name, and the same kernel.
    let same_name = info.name.as_deref() == kernel.nodename().to_str().ok() || Path::new("/.dockerenv").exists();
    let by_socket = matches!(choice.endpoint, Endpoint::Unix(_));
    Ok(if (virtual_machine && by_socket) || (same_kernel && same_name) {
        Locality::Local
    } else {
        Locality::Docked
    })
}

/// Whether a host is this machine, by its name or address alone.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Bytes of memory as the kernel counts them; the engine reads the same line. None where there is no `/proc`.
fn memory_total() -> Option<i64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_tells_what_is_plain() {
        let env = Env::default();
        for (address, locality) in [
            ("unix:///var/run/docker.sock", Locality::Local),
            ("tcp://127.0.0.1:2375", Locality::Local),
            ("tcp://10.0.0.1:2375", Locality::Docked),
            ("ssh://box", Locality::Docked),
        ] {
            let endpoint = Endpoint::parse(address, &env).unwrap();
            assert_eq!(by_address(&endpoint, &Origin::Host, &env), locality, "{address}");
        }
        let docked = Env::from_pairs([("DOCKER_IP", "10.0.0.1")]);
        let endpoint = Endpoint::parse("unix:///x", &docked).unwrap();
        assert_eq!(by_address(&endpoint, &Origin::Host, &docked), Locality::Docked);
        let dock = Origin::Dock("far".into());
        assert_eq!(by_address(&endpoint, &dock, &env), Locality::Docked);
    }

    #[test]
    fn an_agent_s_socket_is_of_another_machine_however_it_was_chosen() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("HOME", home.path().to_str().unwrap())]);
        let directory = home.path().join(".cache/dockerutils/run");
        for origin in [Origin::Host, Origin::Context("far".into())] {
            let socket = |name: &str| Endpoint::Unix(directory.join(name));
            assert_eq!(
                by_address(&socket("0123456789abcdef.sock"), &origin, &env),
                Locality::Docked
            );
            assert_eq!(by_address(&socket("docker.sock"), &origin, &env), Locality::Local);
        }
    }
}
