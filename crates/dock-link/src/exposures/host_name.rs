//! The name by which a container finds this machine: `host.docker.internal`, which plain engines do not have. Pure functions
//! of the request to create a container.
//!
//! It is given as `--add-host` would (`HostConfig.ExtraHosts` of the engine's API), and only where a shell exposes a port. Answers
//! show it, as that is what the container has: what `compose up` compares is its own label.

use std::net::IpAddr;

use crate::mounts::json_object::{JsonArray, JsonObject, quote, string};

/// The name, which Docker Desktop has made the usual one.
pub(crate) const HOST_NAME: &str = "host.docker.internal";
/// Containers with this network have that of another one, with its names; the engine refuses more of them.
const OF_ANOTHER: &str = "container:";

/// The request with the name for this address; `None` if it has that name already, can't have it, or something in it is not as
/// expected: the engine says what is wrong.
pub(crate) fn named(body: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let mut root = JsonObject::structure(std::str::from_utf8(body).ok()?)?;
    let mut host = JsonObject::structure(root.get("HostConfig").ok()?.unwrap_or("{}"))?;
    if let Some(mode) = host.get("NetworkMode").ok()?
        && string(mode)?.starts_with(OF_ANOTHER)
    {
        return None;
    }
    let mut hosts = JsonArray::parse(host.get("ExtraHosts").ok()?.unwrap_or("[]"))?;
    for said in hosts.elements() {
        let said = string(said)?;
        // An IPv6 address has more colons; newer clients may write `=`.
        let name = said.split([':', '=']).next().unwrap_or_default();
        if name.eq_ignore_ascii_case(HOST_NAME) {
            return None;
        }
    }
    hosts.push(quote(&format!("{HOST_NAME}:{address}")));
    host.set("ExtraHosts", hosts.render()).ok()?;
    root.set("HostConfig", host.render()).ok()?;
    Some(root.render().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Option<String> {
        let named = named(body.as_bytes(), "172.17.0.1".parse().unwrap())?;
        Some(String::from_utf8(named).unwrap())
    }

    #[test]
    fn a_container_gets_the_name_and_nothing_else_is_changed() {
        assert_eq!(
            of(r#"{"Image":"a", "hostconfig":{"Memory":1e3,"extrahosts":["db:10.0.0.1"]}}"#).as_deref(),
            Some(
                r#"{"Image":"a", "hostconfig":{"Memory":1e3,"extrahosts":["db:10.0.0.1","host.docker.internal:172.17.0.1"]}}"#
            )
        );
        for body in [
            r#"{"Image":"a"}"#,
            r#"{"Image":"a","HostConfig":null}"#,
            r#"{"Image":"a","HostConfig":{"ExtraHosts":null,"NetworkMode":"host"}}"#,
        ] {
            let named: serde_json::Value = serde_json::from_str(&of(body).unwrap()).unwrap();
            assert_eq!(
                named["HostConfig"]["ExtraHosts"],
                serde_json::json!(["host.docker.internal:172.17.0.1"]),
                "{body}"
            );
        }
    }

    #[test]
    fn what_a_client_says_of_the_name_stays_and_so_does_what_can_not_have_it() {
        for body in [
            r#"{"HostConfig":{"ExtraHosts":["host.docker.internal:host-gateway"]}}"#,
            r#"{"HostConfig":{"ExtraHosts":["a:1.2.3.4","HOST.docker.internal=::1"]}}"#,
            r#"{"HostConfig":{"NetworkMode":"container:web"}}"#,
            r#"{"HostConfig":{"ExtraHosts":"x"}}"#,
            r#"{"HostConfig":{"ExtraHosts":[1]}}"#,
            r#"{"HostConfig":{"ExtraHosts":[],"extraHosts":[]}}"#,
            "[]",
            "",
        ] {
            assert_eq!(of(body), None, "{body}");
        }
    }
}
