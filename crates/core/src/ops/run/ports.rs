//! Ports of a container: published on the dock's loopback address where the engine is on another machine, and where they
//! are reached from here.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::agent::{Agent, Port};
use crate::config::variables::Word;
use crate::context::Context;
use crate::docker::connect::dock_engine;
use crate::docker::connect::endpoint::{Choice, Endpoint, Origin};
use crate::docker::containers::container::PublishedPort;
use crate::docker::options::run_options::{RunOptions, publish_on_loopback};
use crate::docks::Forward;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::output::{Printer, visible};
use crate::shell;

/// How long the agent of a dock may take to forward the ports of a container that has just started.
const FORWARDING: Duration = Duration::from_secs(3);
/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(30);
/// Why a port that is forwarded soon is not reached here.
const NOT_YET: &str = "it is not forwarded yet";

/// The options with each port that leaves its address open on the loopback address of the engine's machine; and sentences
/// about those for which that can't be done.
///
/// A word whose variable holds a port is written out: what is printed is what is done, and a port is no secret.
pub(super) fn on_loopback(options: Vec<Word>, env: &Env) -> (Vec<Word>, Vec<String>) {
    let mut notes = Vec::new();
    let parts: Option<Vec<Vec<String>>> = options.iter().map(|word| word.expand(env).ok()).collect();
    let Some(parts) = parts else {
        // A variable that is not set is said by whoever expands the plan.
        return (options, notes);
    };
    let given = parts.concat();
    let Ok(changed) = publish_on_loopback(&given) else {
        return (options, notes);
    };
    if RunOptions::parse(&given).is_ok_and(|parsed| parsed.publishes_all()) {
        notes.push(
            "--publish-all opens the container's ports on every address of the dock; -p PORT opens one on its 127.0.0.1"
                .to_owned(),
        );
    }
    let mut changed = changed.into_iter();
    let options = options.into_iter().zip(parts);
    let words = options.map(|(word, parts)| {
        let now: Vec<String> = changed.by_ref().take(parts.len()).collect();
        match now.as_slice() {
            _ if now == parts => word,
            [one] => Word::literal(one),
            // There may be a secret among them.
            _ => {
                notes.push(format!(
                    "{} publishes ports on every address of the dock; write 127.0.0.1:PORT:PORT in it",
                    word.print()
                ));
                word
            }
        }
    });
    (words.collect(), notes)
}

/// A published port, and where it is reached from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::ops) struct Reached {
    #[serde(flatten)]
    published: PublishedPort,
    /// The port of 127.0.0.1 here that the dock's agent forwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<u16>,
    /// Why it has another number here, or is not forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip)]
    hint: Option<String>,
    #[serde(skip)]
    place: EngineLocation,
}

impl Reached {
    /// Whether the agent of its dock has not come to forward it yet.
    pub(in crate::ops) fn is_pending(&self) -> bool {
        self.here.is_none() && self.reason.as_deref() == Some(NOT_YET)
    }

    /// The port of 127.0.0.1 here that leads to it.
    ///
    /// # Errors
    /// That nothing here leads there: where it is, why, and what helps.
    pub(in crate::ops) fn port_here(&self) -> Result<u16> {
        match (&self.place, self.here) {
            (EngineLocation::Here, _) => Ok(self.published.host_port),
            (EngineLocation::Dock(_), Some(here)) => Ok(here),
            _ => {
                let (what, hint) = line(self).unwrap_or_default();
                let error = Error::failed(what);
                Err(hint.into_iter().fold(error, Error::hint))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EngineLocation {
    /// The engine is on this machine.
    Here,
    /// On a machine at this address, without an agent.
    Far { host: String, ssh: Option<String> },
    /// On this dock, whose agent forwards.
    Dock(String),
}

/// Finds out where the ports of a container that has just started are reached. What an agent forwards is waited for,
/// shortly.
pub(in crate::ops) async fn reached(
    context: &Context,
    choice: &Choice,
    local: bool,
    id: &str,
    published: &[PublishedPort],
) -> Vec<Reached> {
    let plain = |place: EngineLocation| {
        let reached = published.iter().map(|port| Reached {
            published: port.clone(),
            here: None,
            reason: None,
            hint: None,
            place: place.clone(),
        });
        reached.collect::<Vec<_>>()
    };
    if local || published.is_empty() {
        return plain(EngineLocation::Here);
    }
    // That there is no agent to be asked is said as what it means: that nothing is forwarded.
    match agent(choice, &context.env) {
        Ok(Some(agent)) => {
            let mut reached = plain(EngineLocation::Dock(agent.dock().moniker.clone()));
            ask(&agent, id, &mut reached).await;
            reached
        }
        _ => plain(far(choice, &context.env)),
    }
}

fn agent(choice: &Choice, env: &Env) -> Result<Option<Agent>> {
    match &choice.endpoint {
        Endpoint::Unix(socket) => dock_engine::agent_of_socket(socket, env),
        _ => Ok(None),
    }
}

fn far(choice: &Choice, env: &Env) -> EngineLocation {
    match &choice.endpoint {
        Endpoint::Ssh { destination, port, .. } => EngineLocation::Far {
            host: destination
                .rsplit_once('@')
                .map_or(destination.as_str(), |(_, host)| host)
                .to_owned(),
            ssh: Some(match port {
                Some(port) => format!("-p {port} {}", shell::quote(destination)),
                None => shell::quote(destination).into_owned(),
            }),
        },
        Endpoint::Tcp { host, .. } => EngineLocation::Far {
            host: match env.non_empty("DOCKER_IP") {
                Some(address) if choice.origin == Origin::Host => address.to_owned(),
                _ => host.clone(),
            },
            ssh: None,
        },
        Endpoint::Unix(_) => EngineLocation::Far {
            host: env.non_empty("DOCKER_IP").unwrap_or("the engine's machine").to_owned(),
            ssh: None,
        },
    }
}

async fn ask(agent: &Agent, id: &str, reached: &mut [Reached]) {
    let deadline = Instant::now() + FORWARDING;
    loop {
        let Ok(Some(status)) = agent.status(false).await else {
            return reached.iter_mut().for_each(|port| {
                port.reason = Some("the dock's agent does not answer".to_owned());
            });
        };
        if status.forward == Forward::None && status.ports.iter().all(|port| port.container != id) {
            return reached.iter_mut().for_each(|port| {
                port.reason = Some("it is not forwarded, as requested".to_owned());
            });
        }
        let own: Vec<&Port> = status.ports.iter().filter(|port| port.container == id).collect();
        // Each of them, also behind one that is not there yet.
        let found = reached
            .iter_mut()
            .map(|port| find(port, &own))
            .filter(|found| *found)
            .count();
        if found == reached.len() || Instant::now() > deadline {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Takes over what the agent says of a port; says whether it knows it.
fn find(reached: &mut Reached, known: &[&Port]) -> bool {
    let published = &reached.published;
    let is_it = |port: &&&Port| port.inside == published.container && port.port == published.host_port;
    // The same port on IPv4 and IPv6 is forwarded once.
    let exact = known
        .iter()
        .filter(is_it)
        .find(|port| port.address == published.host_ip);
    match exact.or_else(|| known.iter().find(is_it)) {
        Some(port) => {
            reached.here = port.here;
            reached.reason.clone_from(&port.reason);
            reached.hint.clone_from(&port.hint);
            true
        }
        None => {
            reached.reason = Some(NOT_YET.to_owned());
            reached.hint = Some("ls-dock --ports".to_owned());
            false
        }
    }
}

/// Says where the published ports are reached.
pub(super) fn show(printer: &Printer, ports: &[Reached]) {
    let mut said = BTreeSet::new();
    for port in ports {
        let Some((line, hint)) = line(port) else { continue };
        // IPv4 and IPv6 of the same port are one to the user.
        if said.insert(line.clone()) {
            printer.note(&line);
        }
        if let Some(hint) = hint.filter(|hint| said.insert(hint.clone())) {
            printer.note(&format!("  {hint}"));
        }
    }
}

fn line(port: &Reached) -> Option<(String, Option<String>)> {
    let PublishedPort {
        container,
        host_ip,
        host_port,
    } = &port.published;
    let container = visible(container);
    let protocol = container.rsplit_once('/')?.1.to_owned();
    let scheme = if protocol == "tcp" { "http" } else { &protocol };
    let everywhere = matches!(host_ip.as_str(), "" | "0.0.0.0" | "::");
    let bracketed = |address: &str| match address.contains(':') {
        true => format!("[{}]", visible(address)),
        false => visible(address),
    };
    let own = |address: &str| {
        if everywhere {
            address.to_owned()
        } else {
            bracketed(host_ip)
        }
    };
    let because = |reason: &Option<String>| reason.as_deref().map(visible).unwrap_or_default();
    Some(match (&port.place, port.here) {
        (EngineLocation::Here, _) => {
            let line = format!("{container} is at {scheme}://{}:{host_port}", own("127.0.0.1"));
            (line, None)
        }
        (EngineLocation::Dock(_), Some(here)) => {
            let line = format!("{container} is at {scheme}://127.0.0.1:{here}");
            match &port.reason {
                Some(reason) => (format!("{line} ({})", visible(reason)), None),
                None => (line, None),
            }
        }
        (EngineLocation::Dock(dock), None) => {
            let place = format!("{}:{host_port} of {}", own("127.0.0.1"), visible(dock));
            let line = format!("{container} is at {place} only: {}", because(&port.reason));
            (line, port.hint.as_deref().map(visible))
        }
        (EngineLocation::Far { host, ssh }, _) => {
            let is_loopback = host_ip
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
            if !is_loopback {
                let line = format!("{container} is at {scheme}://{}:{host_port}", own(&bracketed(host)));
                return Some((line, None));
            }
            let line = format!(
                "{container} is at {}:{host_port} of {}, and nothing forwards it to this machine",
                bracketed(host_ip),
                visible(host)
            );
            let hint = match ssh {
                Some(ssh) if protocol == "tcp" => {
                    hint!(
                        "ssh -N -L {} {ssh}",
                        format!("{host_port}:{}:{host_port}", bracketed(host_ip));
                        ssh = ssh
                    )
                }
                _ => "docks that ssh reaches forward such ports: register-dock HOST".to_owned(),
            };
            (line, Some(hint))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::variables;

    fn changed(text: &str, env: &Env) -> (String, Vec<String>) {
        let (words, notes) = on_loopback(variables::parse(text, None).unwrap(), env);
        (variables::print(&words), notes)
    }

    #[test]
    fn ports_without_an_address_are_on_the_loopback_address() {
        let env = Env::from_pairs([("PORT", "8888"), ("SECRET", "s3cret"), ("MANY", "-p 80 -e A=s3cret")]);
        let (line, notes) = changed(
            "-it -e A=$SECRET -p 8888:8888 -p 10.0.0.7:1:1 --publish 53:53/udp",
            &env,
        );
        assert_eq!(
            line,
            "-it -e A=${SECRET} -p 127.0.0.1:8888:8888 -p 10.0.0.7:1:1 --publish 127.0.0.1:53:53/udp"
        );
        assert!(notes.is_empty());
        assert_eq!(changed("-p $PORT:80", &env).0, "-p 127.0.0.1:8888:80");
        let (line, notes) = changed("$MANY", &env);
        assert_eq!(line, "${MANY}");
        assert!(
            notes[0].starts_with("${MANY} publishes ports on every address"),
            "{notes:?}"
        );
        assert!(changed("-P", &env).1[0].starts_with("--publish-all"));
        assert_eq!(changed("-p eighty", &env).0, "-p eighty");
    }

    fn reached(place: EngineLocation, published: (&str, &str, u16), here: Option<u16>, reason: Option<&str>) -> String {
        let (container, host_ip, host_port) = published;
        let port = Reached {
            published: PublishedPort {
                container: container.into(),
                host_ip: host_ip.into(),
                host_port,
            },
            here,
            reason: reason.map(str::to_owned),
            hint: None,
            place,
        };
        let (line, hint) = line(&port).unwrap();
        match hint {
            Some(hint) => format!("{line} | {hint}"),
            None => line,
        }
    }

    #[test]
    fn what_is_said_is_true_wherever_the_engine_is() {
        let dock = || EngineLocation::Dock("far".into());
        let loopback = ("80/tcp", "127.0.0.1", 8080);
        assert_eq!(
            reached(EngineLocation::Here, ("80/tcp", "0.0.0.0", 8080), None, None),
            "80/tcp is at http://127.0.0.1:8080"
        );
        assert_eq!(
            reached(dock(), loopback, Some(8081), Some("8080 is taken here by 1/nc")),
            "80/tcp is at http://127.0.0.1:8081 (8080 is taken here by 1/nc)"
        );
        assert_eq!(
            reached(dock(), ("53/udp", "::1", 53), None, Some("only TCP is forwarded")),
            "53/udp is at [::1]:53 of far only: only TCP is forwarded"
        );
        let ssh = EngineLocation::Far {
            host: "box".into(),
            ssh: Some("ann@box".into()),
        };
        assert_eq!(
            reached(ssh.clone(), loopback, None, None),
            "80/tcp is at 127.0.0.1:8080 of box, and nothing forwards it to this machine | ssh -N -L 8080:127.0.0.1:8080 ann@box"
        );
        assert_eq!(
            reached(ssh, ("80/tcp", "0.0.0.0", 8080), None, None),
            "80/tcp is at http://box:8080"
        );
        let tcp = EngineLocation::Far {
            host: "fe80::1".into(),
            ssh: None,
        };
        assert_eq!(
            reached(tcp, ("80/tcp", "::", 8080), None, None),
            "80/tcp is at http://[fe80::1]:8080"
        );
    }
}
