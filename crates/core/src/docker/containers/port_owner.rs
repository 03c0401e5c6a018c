//! Who holds a port that a container wants: another container, or a process of this machine.

use std::collections::BTreeSet;

use bollard::query_parameters::ListContainersOptions;

use dock_client::listening::process_of;

use crate::agent::{forwarded_here, paths};
use crate::docker::connect::engine::Engine;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;

/// If the engine says that a port is taken, adds who holds it.
///
/// `local` says whether the engine is on this machine, where processes can be looked at.
pub async fn explain(engine: &Engine, error: Error, local: bool, env: &Env) -> Error {
    let message = error.to_string();
    let Some(port) = taken_port(&message) else {
        return error;
    };
    if let Some(container) = container_of(engine, port).await {
        // No engine gives a container such a name; a hostile one may.
        let guard = if container.starts_with('-') { "-- " } else { "" };
        return Error::new(error.class(), format!("port {port} is taken by container {container}"))
            .because(error)
            .hint(hint!("docker stop {guard}{}, or publish another port", container; guard = guard));
    }
    if local
        && let Ok(directory) = paths::own_directory(env)
        && let Some((dock, container)) = forwarded_here(port, &paths::engine_sockets(&directory), env).await
    {
        return Error::new(
            error.class(),
            format!("port {port} is taken by container {container} of dock {dock}, whose port answers here"),
        )
        .because(error)
        .hint(hint!(
            "publish another port, or leave the dock's where they are: register-dock --force ... {} --forward none",
            dock
        ));
    }
    if local && let Some((pid, name)) = process_of(port) {
        return Error::new(error.class(), format!("port {port} is taken by process {pid} ({name})"))
            .because(error)
            .hint(hint!("kill {}, or publish another port", pid));
    }
    Error::new(error.class(), format!("port {port} is taken"))
        .because(error)
        .hint("publish another port")
}

/// Whether the engine says that a port is taken.
pub fn is_taken(error: &Error) -> bool {
    taken_port(&error.to_string()).is_some()
}

/// The port in the engine's messages: `Bind for 0.0.0.0:5000 failed: port is already allocated` and
/// `listen tcp4 0.0.0.0:5000: bind: address already in use`.
fn taken_port(message: &str) -> Option<u16> {
    if !message.contains("already allocated") && !message.contains("address already in use") {
        return None;
    }
    let mut found = None;
    for (at, _) in message.match_indices(':') {
        let rest = message.get(at + 1..).unwrap_or_default();
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if after.starts_with(':') || after.starts_with(" failed") || after.starts_with(" ->") || after.is_empty() {
            found = number.parse().ok().filter(|port| *port > 0).or(found);
        }
    }
    found
}

/// The ports of the engine's machine that its containers have.
///
/// # Errors
/// The engine's refusal or a broken connection.
pub async fn published(engine: &Engine) -> Result<BTreeSet<u16>> {
    let listing = engine.docker().list_containers(None::<ListContainersOptions>);
    let containers = listing.await.map_err(|cause| engine.error("its containers", cause))?;
    let ports = containers
        .into_iter()
        .flat_map(|container| container.ports.unwrap_or_default());
    Ok(ports.filter_map(|port| port.public_port).collect())
}

async fn container_of(engine: &Engine, port: u16) -> Option<String> {
    let containers = engine
        .docker()
        .list_containers(None::<ListContainersOptions>)
        .await
        .ok()?;
    containers
        .into_iter()
        .find(|container| {
            let ports = container.ports.iter().flatten();
            ports.into_iter().any(|published| published.public_port == Some(port))
        })
        .and_then(|container| container.names?.into_iter().next())
        .map(|name| name.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_the_engines_messages() {
        for (message, port) in [
            (
                "endpoint x (1d2): Bind for 0.0.0.0:5000 failed: port is already allocated",
                Some(5000),
            ),
            (
                "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use",
                Some(8080),
            ),
            ("listen tcp6 [::1]:81: bind: address already in use", Some(81)),
            ("no such image: x:5000", None),
        ] {
            assert_eq!(taken_port(message), port, "{message}");
        }
    }
}
