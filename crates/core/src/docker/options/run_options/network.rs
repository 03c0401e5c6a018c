//! `--network` and what belongs to an attachment: addresses, aliases, links. Also the checks of names
//! and addresses for `--add-host`, `--dns-search` and `--mac-address`.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::{EndpointIpamConfig, EndpointSettings};

use super::error::{GivenOption, OptionError};
use super::facts::ClientFacts;
use crate::docker::options::{csv, go_values};

/// The network of a container if none is named.
const DEFAULT: &str = "default";

/// One network that the container is attached to.
#[derive(Debug, Clone, PartialEq)]
struct Attachment {
    entry: GivenOption,
    name: String,
    endpoint: EndpointSettings,
}

/// The networks, and the options that apply to the first of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Networks {
    attachments: Vec<Attachment>,
    pub aliases: Vec<GivenOption>,
    pub links: Vec<GivenOption>,
    pub link_local: Vec<GivenOption>,
    pub ipv4: Option<GivenOption>,
    pub ipv6: Option<GivenOption>,
    pub mac: Option<GivenOption>,
}

impl Networks {
    /// Adds `--network NAME` or `--network name=NAME,alias=...`.
    pub fn attach(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        let (name, endpoint) = if is_long(&entry.value) {
            entry.read(endpoint)?
        } else {
            (entry.value.clone(), EndpointSettings::default())
        };
        if name.trim().is_empty() {
            return Err(entry.refuse("names no network"));
        }
        if self.attachments.iter().any(|known| known.name == name) {
            return Err(entry.refuse("was named before"));
        }
        if endpoint.aliases.is_some() {
            check_alias(&entry, &name)?;
        }
        self.attachments.push(Attachment { entry, name, endpoint });
        Ok(())
    }

    /// The engine's `NetworkMode`: the first network.
    pub fn mode(&self) -> &str {
        self.attachments.first().map_or(DEFAULT, |first| &first.name)
    }

    /// The settings of each attachment, by the network's name.
    pub fn endpoints(&self, facts: &ClientFacts<'_>) -> Result<HashMap<String, EndpointSettings>, OptionError> {
        if let (Some(own), Some(other)) = (
            self.attachments
                .iter()
                .find(|attachment| is_user_defined(&attachment.name)),
            self.attachments
                .iter()
                .find(|attachment| !is_user_defined(&attachment.name)),
        ) {
            return Err(other.entry.conflict(format!("{} {}", own.entry.option, own.name)));
        }
        // docker has no other way to send it, and older engines don't know this one.
        if let Some(entry) = self.hardware_address().filter(|_| facts.api_version < (1, 44)) {
            return Err(entry.too_old((1, 44), facts.api_version));
        }
        let mut endpoints = HashMap::new();
        match self.attachments.split_first() {
            None => {
                endpoints.insert(
                    DEFAULT.to_owned(),
                    self.first_endpoint(DEFAULT, &EndpointSettings::default())?,
                );
            }
            Some((first, others)) => {
                let endpoint = self.first_endpoint(&first.name, &first.endpoint)?;
                // The engine makes this one by itself; docker leaves it out for old engines.
                if !others.is_empty() || endpoint != EndpointSettings::default() {
                    endpoints.insert(first.name.clone(), endpoint);
                }
                for other in others {
                    endpoints.insert(other.name.clone(), other.endpoint.clone());
                }
            }
        }
        Ok(endpoints)
    }

    /// The first option that sets a hardware address.
    fn hardware_address(&self) -> Option<&GivenOption> {
        let own = self
            .attachments
            .iter()
            .find(|attachment| attachment.endpoint.mac_address.is_some());
        self.mac.as_ref().or(own.map(|attachment| &attachment.entry))
    }

    /// The settings of the first network: its own, and those of `--ip`, `--network-alias` and the like.
    fn first_endpoint(&self, name: &str, own: &EndpointSettings) -> Result<EndpointSettings, OptionError> {
        let mut endpoint = own.clone();
        let twice = |entry: &GivenOption, field| Err(entry.conflict(format!("--network {name},{field}=...")));
        if let Some(entry) = self.aliases.first() {
            if endpoint.aliases.is_some() {
                return twice(entry, "alias");
            }
            check_alias(entry, name)?;
            endpoint.aliases = Some(values(&self.aliases));
        }
        // On the default bridge, a link is an option of the container.
        if !self.links.is_empty() && is_user_defined(name) {
            endpoint.links = Some(values(&self.links));
        }
        if let Some(entry) = &self.mac {
            if endpoint.mac_address.is_some() {
                return twice(entry, "mac-address");
            }
            endpoint.mac_address = Some(entry.value.clone());
        }
        let mut ipam = endpoint.ipam_config.take().unwrap_or_default();
        if let Some(entry) = self.ipv4.as_ref().filter(|entry| !entry.value.is_empty()) {
            if ipam.ipv4_address.is_some() {
                return twice(entry, "ip");
            }
            ipam.ipv4_address = Some(entry.value.clone());
        }
        if let Some(entry) = self.ipv6.as_ref().filter(|entry| !entry.value.is_empty()) {
            if ipam.ipv6_address.is_some() {
                return twice(entry, "ip6");
            }
            ipam.ipv6_address = Some(entry.value.clone());
        }
        if let Some(entry) = self.link_local.first() {
            if ipam.link_local_ips.is_some() {
                return twice(entry, "link-local-ip");
            }
            ipam.link_local_ips = Some(values(&self.link_local));
        }
        endpoint.ipam_config = (ipam != EndpointIpamConfig::default()).then_some(ipam);
        Ok(endpoint)
    }
}

fn values(entries: &[GivenOption]) -> Vec<String> {
    entries.iter().map(|entry| entry.value.clone()).collect()
}

/// Aliases exist where the engine runs a name server: on networks that users made.
fn check_alias(entry: &GivenOption, network: &str) -> Result<(), OptionError> {
    if is_user_defined(network) {
        return Ok(());
    }
    Err(entry.refuse("an alias needs a network of your own (docker network create)"))
}

fn is_user_defined(name: &str) -> bool {
    !matches!(name, DEFAULT | "bridge" | "host" | "none") && !name.starts_with("container:")
}

/// Whether a value is written as `name=...`: an `=` between two letters, as docker distinguishes them.
fn is_long(value: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    value.match_indices('=').any(|(at, _)| {
        let (before, after) = value.split_at(at);
        before.ends_with(is_word) && after.strip_prefix('=').is_some_and(|after| after.starts_with(is_word))
    })
}

fn endpoint(value: &str) -> Result<(String, EndpointSettings), String> {
    let mut name = String::new();
    let mut endpoint = EndpointSettings::default();
    let mut ipam = EndpointIpamConfig::default();
    for field in csv::record(value)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("`{field}` is not NAME=VALUE"))?;
        // docker converts the values to lower case, too, including the names of networks.
        let (key, value) = (
            key.to_lowercase().trim().to_owned(),
            value.to_lowercase().trim().to_owned(),
        );
        match key.as_str() {
            "name" => name = value,
            "alias" => endpoint.aliases.get_or_insert_default().push(value),
            "ip" => ipam.ipv4_address = Some(value).filter(|value| !value.is_empty()),
            "ip6" => ipam.ipv6_address = Some(value).filter(|value| !value.is_empty()),
            "mac-address" => {
                if !value.is_empty() {
                    mac(&value)?;
                    endpoint.mac_address = Some(value);
                }
            }
            "link-local-ip" => ipam.link_local_ips.get_or_insert_default().push(value),
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or("has a driver-opt without `=`")?;
                let options = endpoint.driver_opts.get_or_insert_default();
                options.insert(key.trim().to_owned(), value.trim().to_owned());
            }
            "gw-priority" => {
                let priority = go_values::decimal_integer(&value).map_err(|reason| format!("gw-priority {reason}"))?;
                endpoint.gw_priority = Some(priority).filter(|priority| *priority != 0);
            }
            _ => return Err(format!("`{key}` is not one of its fields")),
        }
    }
    if name.is_empty() {
        return Err("names no network".to_owned());
    }
    endpoint.ipam_config = (ipam != EndpointIpamConfig::default()).then_some(ipam);
    Ok((name, endpoint))
}

/// An IP address in its usual spelling, as `--dns` sends it.
pub(super) fn address(text: &str) -> Result<String, String> {
    let address: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("`{text}` is not an IP address"))?;
    Ok(address.to_canonical().to_string())
}

/// A hardware address of 6, 8 or 20 bytes, in pairs of digits (`:` or `-`) or in fours (`.`).
pub(super) fn mac(text: &str) -> Result<(), String> {
    let trimmed = text.trim();
    let groups = |separator: char, digits: usize| {
        let groups: Vec<&str> = trimmed.split(separator).collect();
        let legal = groups
            .iter()
            .all(|group| group.len() == digits && group.chars().all(|c| c.is_ascii_hexdigit()));
        legal && matches!(groups.len() * digits, 12 | 16 | 40)
    };
    if groups(':', 2) || groups('-', 2) || groups('.', 4) {
        Ok(())
    } else {
        Err(format!("`{text}` is not a hardware address, such as 92:d0:c6:0a:29:33"))
    }
}

/// `--add-host NAME:ADDRESS`, as the engine reads it: `=` and brackets are the client's.
pub(super) fn extra_host(text: &str) -> Result<String, String> {
    let (host, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or("is not HOST:ADDRESS")?;
    if host.is_empty() || host.contains(':') {
        return Err("is not HOST:ADDRESS".to_owned());
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|bare| !bare.is_empty());
    let bare = bare.unwrap_or(address);
    if bare != "host-gateway" {
        self::address(bare)?;
    }
    Ok(format!("{host}:{bare}"))
}

/// `--dns-search`: a domain, or `.` for none.
pub(super) fn search_domain(text: &str) -> Result<String, String> {
    let text = text.trim_matches(' ');
    if text == "." {
        return Ok(text.to_owned());
    }
    let domain = text.trim_end();
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let is_label = |label: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        // Because of a slip in docker's expression, a label may begin with a colon.
        let label = label.trim_start_matches(':');
        label.starts_with(edge) && label.ends_with(edge) && label.chars().all(|c| edge(c) || c == '-')
    };
    let legal = domain.split('.').all(is_label) && domain.contains(|c: char| c.is_ascii_alphabetic());
    if legal && domain.len() < 255 {
        Ok(domain.to_owned())
    } else {
        Err("is not a domain".to_owned())
    }
}

/// `--link CONTAINER` or `--link CONTAINER:ALIAS`.
pub(super) fn link(text: &str) -> Result<String, String> {
    if text.is_empty() || text.matches(':').count() > 1 {
        return Err("is not CONTAINER:ALIAS".to_owned());
    }
    Ok(text.to_owned())
}
