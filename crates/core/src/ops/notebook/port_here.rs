//! The port of this machine that leads to a port of a container, wherever the container is.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::Context;
use crate::docker::connect::engine::Engine;
use crate::docker::containers::container::published_ports;
use crate::error::{Error, Result};
use crate::ops::run::ports;
use crate::output::visible;

/// How long the agent of a dock may take to forward the ports of a container that has just started, over a slow link.
const FORWARDING: Duration = Duration::from_secs(30);

/// The port of 127.0.0.1 here that leads to a TCP port inside a running container; `None` if that is not published.
///
/// # Errors
/// A port that is published, and that nothing here leads to; the engine's refusal.
pub(super) async fn port_here(
    context: &Context,
    engine: &Engine,
    local: bool,
    id: &str,
    inside: u16,
) -> Result<Option<u16>> {
    let name = format!("{inside}/tcp");
    let published: Vec<_> = published_ports(engine, id)
        .await?
        .into_iter()
        .filter(|port| port.container == name)
        .collect();
    // Whoever listens on 127.0.0.1 at the number of a port that is published elsewhere would get the token.
    let is_here = |address: &str| matches!(address, "" | "0.0.0.0" | "127.0.0.1" | "::" | "::1");
    if local
        && let Some(elsewhere) = published.first()
        && !published.iter().any(|port| is_here(&port.host_ip))
    {
        return Err(Error::failed(format!(
            "port {inside} of the notebook is published on {} only, and not on 127.0.0.1",
            visible(&elsewhere.host_ip)
        ))
        .hint("leave that address out of ports in [notebook]; --bind ADDRESS lets others reach a notebook"));
    }
    let deadline = Instant::now() + FORWARDING;
    loop {
        let reached = ports::reached(context, engine.choice(), local, id, &published).await;
        // The same port may be published on IPv4 and IPv6.
        let mut found = reached.iter().map(ports::Reached::port_here);
        let Some(first) = found.next() else {
            return Ok(None);
        };
        if let Some(port) = found.find_map(Result::ok).filter(|_| first.is_err()) {
            return Ok(Some(port));
        }
        if first.is_ok() || !reached.iter().any(ports::Reached::is_pending) || Instant::now() > deadline {
            return first.map(Some);
        }
    }
}
