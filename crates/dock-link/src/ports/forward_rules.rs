//! Which ports are to be forwarded, from what the engine reports about its containers. Pure functions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use dock_client::docks::Forward;
use serde::Deserialize;

use super::LABEL_USER;

/// A name of at least this many hexadecimal digits may be the beginning of an ID.
const SHORT_ID: usize = 12;

/// A container in the engine's list (`GET /containers/json`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    id: String,
    #[serde(default)]
    created: i64,
    names: Option<Vec<String>>,
    labels: Option<HashMap<String, String>>,
    ports: Option<Vec<Binding>>,
}

/// One of its ports.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(rename = "IP", default)]
    ip: String,
    private_port: u16,
    /// `None` if the port is not published.
    public_port: Option<u16>,
    #[serde(rename = "Type")]
    protocol: String,
}

/// A port that a container publishes on the dock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// The container's ID.
    pub(super) container: String,
    /// Port and protocol inside: `8888/tcp`.
    pub(super) inside: String,
    /// The address that the engine listens on.
    pub(super) address: String,
    /// The port that the engine listens on.
    pub(super) port: u16,
}

/// A port, and what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedPort {
    pub(super) key: Key,
    /// The container's name.
    pub(super) name: String,
    /// Whether the container is this user's.
    pub(super) own: bool,
    /// The address at which the dock itself reaches it; `None` if it can't be forwarded.
    pub(super) host: Option<String>,
    /// Why it is to be forwarded.
    pub(super) claim: Claim,
}

/// Why a port is to be forwarded, the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// Its container only bears the user's label, which anyone may have set: the port is shown, but stays on the dock.
    LabelAlone,
    /// It is one of those that were asked for as a group.
    Asked,
    /// Its container or its number was named.
    Named,
}

/// Whose containers are forwarded.
pub(super) struct Whose<'a> {
    pub(super) forward: Forward,
    /// Further containers and ports, by name or number.
    pub(super) named: &'a BTreeSet<String>,
    pub(super) user: &'a str,
    /// Whether a container was made through this agent.
    pub(super) made: &'a dyn Fn(&str) -> bool,
}

impl Whose<'_> {
    /// Whether a container with this ID and this user's label may have ports to be forwarded or shown.
    pub(super) fn concerns(&self, id: &str, user: Option<&str>) -> bool {
        self.forward == Forward::All || !self.named.is_empty() || user == Some(self.user) || (self.made)(id)
    }

    fn names(&self, container: &Container) -> bool {
        let names = container.names.iter().flatten();
        let by_name = |name: &String| self.named.contains(name.trim_start_matches('/'));
        let mut by_id = self.named.iter().filter(|named| named.len() >= SHORT_ID);
        names.into_iter().any(by_name) || by_id.any(|named| container.id.starts_with(named.as_str()))
    }

    /// The ports to be forwarded, those of the oldest container first: it had its number before the others.
    pub(super) fn ports(&self, mut containers: Vec<Container>) -> Vec<WantedPort> {
        containers.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        let mut all = Vec::new();
        for container in containers {
            let label = container.labels.as_ref().and_then(|labels| labels.get(LABEL_USER));
            let is_labelled = label.is_some_and(|label| label == self.user);
            let made = self.forward >= Forward::Mine && (self.made)(&container.id);
            let own = made || is_labelled && self.forward >= Forward::Labelled;
            let is_named = self.names(&container);
            let start = all.len();
            ports(&container, own, &mut all);
            let claim = |port: &WantedPort| match () {
                () if is_named || self.named.contains(&port.key.port.to_string()) => Some(Claim::Named),
                () if own || self.forward == Forward::All => Some(Claim::Asked),
                () if is_labelled && self.forward == Forward::Mine => Some(Claim::LabelAlone),
                () => None,
            };
            let claimed: Vec<WantedPort> = all
                .split_off(start)
                .into_iter()
                .filter_map(|port| {
                    let claim = claim(&port)?;
                    Some(WantedPort { claim, ..port })
                })
                .collect();
            all.extend(claimed);
        }
        // A label that a stranger set must not take a number from a port that was asked for.
        all.sort_by_key(|port| std::cmp::Reverse(port.claim));
        all
    }
}

fn ports(container: &Container, own: bool, all: &mut Vec<WantedPort>) {
    let name = container
        .names
        .iter()
        .flatten()
        .next()
        .map_or(container.id.as_str(), |name| name.trim_start_matches('/'));
    // The same port on all IPv4 and on all IPv6 addresses is one port to the user.
    let mut listened: BTreeMap<(u16, u16, &str), BTreeSet<&str>> = BTreeMap::new();
    for binding in container.ports.iter().flatten() {
        if let Some(public) = binding.public_port.filter(|port| *port > 0) {
            let place = (binding.private_port, public, binding.protocol.as_str());
            listened.entry(place).or_default().insert(&binding.ip);
        }
    }
    for ((private, public, protocol), addresses) in listened {
        let has_all_of_ipv4 = addresses.iter().any(|address| matches!(*address, "" | "0.0.0.0"));
        for address in addresses {
            if has_all_of_ipv4 && address == "::" {
                continue;
            }
            all.push(WantedPort {
                key: Key {
                    container: container.id.clone(),
                    inside: format!("{private}/{protocol}"),
                    address: address.to_owned(),
                    port: public,
                },
                name: name.to_owned(),
                own,
                host: (protocol == "tcp").then(|| reached(address)),
                claim: Claim::LabelAlone,
            });
        }
    }
}

/// The address at which a machine reaches what it listens on there itself.
fn reached(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if !address.is_unspecified() => address.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".to_owned(),
        Ok(IpAddr::V6(address)) => address.to_string(),
        _ => "127.0.0.1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(json: &str) -> Vec<Container> {
        serde_json::from_str(json).unwrap()
    }

    fn shown(forward: Forward, named: &[&str], json: &str) -> Vec<String> {
        let named = named.iter().map(|&name| name.to_owned()).collect();
        let whose = Whose {
            forward,
            named: &named,
            user: "ann",
            made: &|id| id == "made",
        };
        whose
            .ports(containers(json))
            .into_iter()
            .map(|port| {
                let host = port.host.unwrap_or_else(|| "-".into());
                let stays = if port.claim == Claim::LabelAlone { " stays" } else { "" };
                format!("{} {} {host} {}{stays}", port.name, port.key.inside, port.key.port)
            })
            .collect()
    }

    const LIST: &str = r#"[
        {"Id": "other", "Created": 3, "Names": ["/theirs"], "Labels": {"io.dockerutils.user": "bob"},
         "Ports": [{"IP": "0.0.0.0", "PrivatePort": 1, "PublicPort": 1, "Type": "tcp"}]},
        {"Id": "labelled", "Created": 2, "Names": ["/web"], "Labels": {"io.dockerutils.user": "ann"},
         "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                   {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                   {"PrivatePort": 81, "Type": "tcp"},
                   {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"}]},
        {"Id": "made", "Created": 1, "Names": null, "Labels": null,
         "Ports": [{"IP": "::", "PrivatePort": 5, "PublicPort": 5, "Type": "tcp"},
                   {"IP": "10.0.0.7", "PrivatePort": 6, "PublicPort": 6, "Type": "tcp"},
                   {"IP": "10.0.0.8", "PrivatePort": 6, "PublicPort": 6, "Type": "tcp"}]},
        {"Id": "bare", "Created": 9}
    ]"#;

    #[test]
    fn a_label_alone_forwards_nothing_unless_that_is_asked_for() {
        let made = ["made 5/tcp ::1 5", "made 6/tcp 10.0.0.7 6", "made 6/tcp 10.0.0.8 6"];
        let labelled = ["web 53/udp - 53", "web 80/tcp 127.0.0.1 8080"];
        let stay = ["web 53/udp - 53 stays", "web 80/tcp 127.0.0.1 8080 stays"];
        let theirs = ["theirs 1/tcp 127.0.0.1 1"];
        let all = |parts: &[&[&str]]| -> Vec<String> { parts.concat().into_iter().map(str::to_owned).collect() };
        assert_eq!(shown(Forward::Mine, &[], LIST), all(&[&made, &stay]));
        assert_eq!(shown(Forward::Labelled, &[], LIST), all(&[&made, &labelled]));
        assert_eq!(shown(Forward::All, &[], LIST), all(&[&made, &labelled, &theirs]));
        assert_eq!(shown(Forward::None, &[], LIST), [""; 0]);
        // Named ports come first, whosever they are.
        assert_eq!(shown(Forward::None, &["web"], LIST), labelled);
        assert_eq!(shown(Forward::None, &["1", "6"], LIST), all(&[&made[1..], &theirs]));
        let found = shown(Forward::Mine, &["8080", "theirs"], LIST);
        assert_eq!(found, all(&[&labelled[1..], &theirs, &made, &stay[..1]]));
    }
}
