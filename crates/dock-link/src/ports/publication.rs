//! Which numbers a container's ports get, where its client leaves that to the engine. Pure functions of the request.
//!
//! An engine picks such a number when it starts the container, without knowing what is taken on this machine; each begins
//! with the same ones, so that two docks collide with their first containers. So it is told a range instead, all of
//! which is free here: `"HostPort": "20160-20167"` (the engine's API reference, `HostConfig.PortBindings`, and
//! docker-run(1) on ranges). It picks one that no other container has, each time that the container starts. Each port of
//! a container has a range of its own: older engines choose for each address by itself, and would choose a number for
//! 127.0.0.1 that another port has on all addresses.

use std::collections::BTreeSet;

use crate::mounts::json_object::{JsonArray, JsonObject, boolean, quote, string};

/// How many numbers there are for each port: some may be taken on the dock.
pub(super) const WIDTH: u16 = 8;
/// The longest name of an image.
const IMAGE: usize = 512;

/// How many TCP ports of a request to create a container have no number. `exposed` are those of its image.
pub(super) fn unnumbered(body: &[u8], exposed: &BTreeSet<String>) -> usize {
    ranged(body, exposed, 0).map_or(0, |(count, _)| count)
}

/// The request with ranges, from this number on, for all ports that have no number; `None` if there are none, or something in the
/// request is not as expected: the engine says what is wrong.
pub(super) fn numbered(body: &[u8], exposed: &BTreeSet<String>, first: u16) -> Option<Vec<u8>> {
    let (count, body) = ranged(body, exposed, first)?;
    (count > 0).then(|| body.into_bytes())
}

/// The image whose ports are all published, whichever they are (`docker run -P`).
pub(super) fn publishes_all_of(body: &[u8]) -> Option<String> {
    let root = JsonObject::structure(std::str::from_utf8(body).ok()?)?;
    let host = JsonObject::structure(root.get("HostConfig").ok()??)?;
    if !publishes_all(&host)? {
        return None;
    }
    let image = string(root.get("Image").ok()??)?.into_owned();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    (image.bytes().all(is_name) && !image.contains("..") && image.len() <= IMAGE).then_some(image)
}

fn publishes_all(host: &JsonObject<'_>) -> Option<bool> {
    Some(host.get("PublishAllPorts").ok()?.and_then(boolean).unwrap_or_default())
}

fn ranged(body: &[u8], exposed: &BTreeSet<String>, first: u16) -> Option<(usize, String)> {
    let mut root = JsonObject::structure(std::str::from_utf8(body).ok()?)?;
    let mut host = JsonObject::structure(root.get("HostConfig").ok()??)?;
    let mut ports = JsonObject::map(host.get("PortBindings").ok()?.unwrap_or("{}"))?;
    let (mut count, mut bound) = (0, BTreeSet::new());
    let range = |count: usize| {
        let start = first.saturating_add(u16::try_from(count).ok()?.saturating_mul(WIDTH));
        Some(quote(&format!("{start}-{}", start.saturating_add(WIDTH - 1))))
    };
    for key in ports.keys() {
        let (Some(port), Some(json)) = (tcp(&key), ports.get(&key).ok()?) else {
            continue;
        };
        let mut bindings = JsonArray::parse(json)?;
        let mut is_unnumbered = false;
        for (index, json) in bindings.elements().into_iter().enumerate() {
            bound.insert(port);
            if json == "null" {
                continue;
            }
            let mut binding = JsonObject::structure(json)?;
            let number = match binding.get("HostPort").ok()? {
                Some(json) => string(json)?,
                None => "".into(),
            };
            if matches!(&*number, "" | "0") {
                is_unnumbered = true;
                binding.set("HostPort", range(count)?).ok()?;
                bindings.set(index, binding.render());
            }
        }
        ports.set(&key, bindings.render()).ok()?;
        count += usize::from(is_unnumbered);
    }
    if publishes_all(&host)? {
        let said = JsonObject::map(root.get("ExposedPorts").ok()?.unwrap_or("{}"))?.keys();
        for key in said.iter().chain(exposed) {
            // The engine leaves alone what has a binding.
            if tcp(key).is_some_and(|port| bound.insert(port)) {
                let binding = format!("[{{\"HostIp\":\"\",\"HostPort\":{}}}]", range(count)?);
                ports.set(key, binding).ok()?;
                count += 1;
            }
        }
    }
    if count > 0 {
        host.set("PortBindings", ports.render()).ok()?;
        root.set("HostConfig", host.render()).ok()?;
    }
    Some((count, root.render()))
}

/// The number of a TCP port: `80/tcp`, or `80`.
fn tcp(key: &str) -> Option<u16> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    protocol.eq_ignore_ascii_case("tcp").then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str, exposed: &[&str]) -> Option<String> {
        let exposed = exposed.iter().map(|&port| port.to_owned()).collect();
        let count = unnumbered(body.as_bytes(), &exposed);
        let numbered = numbered(body.as_bytes(), &exposed, 20_000);
        assert_eq!(count > 0, numbered.is_some(), "{body}");
        numbered.map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_port_without_a_number_gets_the_range_and_nothing_else_is_changed() {
        let body = r#"{"Image":"a", "hostconfig":{ "PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":""},{}],"81":[{"HostPort":"0"}],
            "82/tcp":[{"HostPort":"8082"}],"83/tcp":[{"HostPort":"1-5"}],"53/udp":[{"HostPort":""}],"84/tcp":[],"85/tcp":null},"Memory":1e3}}"#;
        let changed = r#"{"Image":"a", "hostconfig":{ "PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"20000-20007"},{"HostPort":"20000-20007"}],"81":[{"HostPort":"20008-20015"}],
            "82/tcp":[{"HostPort":"8082"}],"83/tcp":[{"HostPort":"1-5"}],"53/udp":[{"HostPort":""}],"84/tcp":[],"85/tcp":null},"Memory":1e3}}"#;
        assert_eq!(of(body, &["99/tcp"]).as_deref(), Some(changed));
        assert_eq!(unnumbered(body.as_bytes(), &BTreeSet::new()), 2);
    }

    #[test]
    fn all_exposed_ports_are_given_one_where_all_are_published() {
        let body = r#"{"Image":"a:1","ExposedPorts":{"80/tcp":{},"53/udp":{},"81/tcp":{}},"HostConfig":{"PublishAllPorts":true,"PortBindings":{"81/tcp":[{"HostPort":"8081"}],"82/tcp":[]}}}"#;
        let changed = of(body, &["80/tcp", "82/tcp", "54/udp"]).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&changed).unwrap()["HostConfig"]["PortBindings"],
            serde_json::json!({
                "80/tcp": [{"HostIp": "", "HostPort": "20000-20007"}],
                "81/tcp": [{"HostPort": "8081"}],
                "82/tcp": [{"HostIp": "", "HostPort": "20008-20015"}],
            })
        );
        assert_eq!(publishes_all_of(body.as_bytes()).as_deref(), Some("a:1"));
        let bare = r#"{"Image":"a","HostConfig":{"PublishAllPorts":true}}"#;
        assert!(
            of(bare, &["80/tcp"])
                .unwrap()
                .contains(r#""PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"20000-20007"}]}"#)
        );
        assert_eq!(of(bare, &[]), None);
    }

    #[test]
    fn what_is_not_as_expected_is_left_to_the_engine() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"HostConfig":null}"#,
            r#"{"HostConfig":{}}"#,
            r#"{"HostConfig":{"PortBindings":null}}"#,
            r#"{"HostConfig":{"PortBindings":[]}}"#,
            r#"{"HostConfig":{"PortBindings":{"x/tcp":[{}]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":{}}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[null]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"","hostport":""}]}}}"#,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{}],"80/tcp":[{}]}}}"#,
            "\u{fffd}",
        ] {
            assert_eq!(of(body, &["80/tcp"]), None, "{body}");
        }
        let odd = r#"{"Image":"../../a?b","HostConfig":{"PublishAllPorts":true}}"#;
        assert_eq!(publishes_all_of(odd.as_bytes()), None);
    }
}
