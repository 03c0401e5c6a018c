//! `--publish` and `--expose`.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use bollard::models::PortBinding;

use crate::docker::options::go_values;

/// The ports of the container that `--publish SPEC` opens (`80/tcp`), each with its place on the host.
pub(super) fn publish(spec: &str) -> Result<Vec<(String, PortBinding)>, String> {
    let Published {
        address,
        host,
        container,
        protocol,
    } = Published::read(spec)?;
    let single = container.start() == container.end();
    let mut host_ports = host.clone();
    let bindings = container.map(|port| {
        let host_port = match &host {
            None => String::new(),
            // One port, and several that the host may give it: the engine picks.
            Some(host) if single => text(host),
            Some(_) => host_ports
                .as_mut()
                .and_then(Iterator::next)
                .map(|port| port.to_string())
                .unwrap_or_default(),
        };
        let binding = PortBinding {
            host_ip: Some(address.clone()),
            host_port: Some(host_port),
        };
        (format!("{port}/{protocol}"), binding)
    });
    Ok(bindings.collect())
}

/// The same `--publish` on the loopback address of the host, if the specification has no address.
pub(super) fn on_loopback(spec: &str) -> Result<Option<String>, String> {
    let Published {
        address,
        host,
        container,
        protocol,
    } = Published::read(spec)?;
    if !address.is_empty() {
        return Ok(None);
    }
    let host = host.map(|host| text(&host)).unwrap_or_default();
    let protocol = if protocol == "tcp" {
        String::new()
    } else {
        format!("/{protocol}")
    };
    Ok(Some(format!("127.0.0.1:{host}:{}{protocol}", text(&container))))
}

/// The parts of a `--publish`.
struct Published {
    /// Empty if not given.
    address: String,
    /// As many as the container's, or any number for one port of the container.
    host: Option<RangeInclusive<u16>>,
    container: RangeInclusive<u16>,
    protocol: String,
}

impl Published {
    fn read(spec: &str) -> Result<Published, String> {
        let long = if spec.contains('=') {
            Some(from_fields(spec)?)
        } else {
            None
        };
        let (address, host, container) = parts(long.as_deref().unwrap_or(spec));
        let (container, protocol) = split_protocol(container);
        if container.is_empty() {
            return Err("names no port of the container".to_owned());
        }
        let protocol = protocol.to_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(format!("`{protocol}` is not one of tcp, udp and sctp"));
        }
        let address = bare_address(address)?.to_owned();
        let container = range(container)?;
        let host = if host.is_empty() { None } else { Some(range(host)?) };
        let more = |range: &RangeInclusive<u16>| range.end() - range.start();
        if host
            .as_ref()
            .is_some_and(|host| more(&container) > 0 && more(host) != more(&container))
        {
            return Err("the ranges of ports differ in length".to_owned());
        }
        Ok(Published {
            address,
            host,
            container,
            protocol,
        })
    }
}

fn text(range: &RangeInclusive<u16>) -> String {
    let (start, end) = (range.start(), range.end());
    if start == end {
        start.to_string()
    } else {
        format!("{start}-{end}")
    }
}

/// The ports that `--expose SPEC` names.
pub(super) fn expose(spec: &str) -> Result<Vec<String>, String> {
    if spec.contains(':') {
        return Err("is a port of the container alone".to_owned());
    }
    let (port, protocol) = split_protocol(spec);
    Ok(range(port)?.map(|port| format!("{port}/{protocol}")).collect())
}

/// The long form, `target=80,published=8080,protocol=tcp`, as the short one.
fn from_fields(spec: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in spec.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            // docker reads the other fields of services (`mode`) and ignores them.
            Some((name, _)) if !name.is_empty() => {}
            _ => return Err(format!("`{field}` is not NAME=VALUE")),
        }
    }
    Ok(format!("{published}:{target}/{protocol}"))
}

/// Address, port of the host and port of the container; an IPv6 address has colons of its own.
fn parts(spec: &str) -> (&str, &str, &str) {
    match spec.rsplit_once(':') {
        None => ("", "", spec),
        Some((rest, container)) => match rest.rsplit_once(':') {
            None => ("", rest, container),
            Some((address, host)) => (address, host, container),
        },
    }
}

fn split_protocol(port: &str) -> (&str, &str) {
    let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
    let protocol = protocol.split('/').next().unwrap_or_default();
    (port, if protocol.is_empty() { "tcp" } else { protocol })
}

fn bare_address(address: &str) -> Result<&str, String> {
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    if bare.is_empty() || bare.parse::<IpAddr>().is_ok() {
        Ok(bare)
    } else {
        Err(format!("`{address}` is not an IP address"))
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| {
        let number = go_values::decimal_unsigned(text)
            .ok()
            .and_then(|number| u16::try_from(number).ok());
        number.ok_or_else(|| format!("`{text}` is not a port"))
    };
    let mut ends = text.split('-').map(port);
    let start = ends.next().unwrap_or_else(|| port(""))?;
    let end = ends.next().unwrap_or(Ok(start))?;
    if end < start {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok(start..=end)
}
