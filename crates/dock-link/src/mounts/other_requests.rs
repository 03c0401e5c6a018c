//! Requests that carry no mounts of the engine's API, and concern them all the same:
//!
//! - `POST /commit` makes an image of a container, with its labels, which would say on other machines what this one has where;
//! - `GET /containers/json` finds containers by the sources of their mounts, which clients know as they said them
//!   (`docker ps --filter volume=PATH`);
//! - Podman's own API (`/libpod`) creates containers and volumes by other documents, which are not translated.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::label::LABEL;
use super::{api_path, percent_decoded};

/// Such a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OtherRequest {
    /// Makes an image of this container, by its name or ID.
    Commit(String),
    /// Lists containers that mount one of these: volumes by their names, and paths.
    List(Vec<String>),
    /// Creates something by Podman's own API.
    Podman,
}

impl OtherRequest {
    /// Which request this is, by its method and its target (RFC 9112, section 3.2).
    pub(super) fn of(method: &str, target: &str) -> Option<Self> {
        match (method, &*api_path(target)?) {
            ("POST", "/commit") => value(target, "container").map(Self::Commit),
            ("GET", "/containers/json") => {
                let wanted = volumes(&filters(target)?);
                wanted
                    .iter()
                    .any(|volume| volume.starts_with('/'))
                    .then_some(Self::List(wanted))
            }
            (
                "POST",
                "/libpod/containers/create"
                | "/libpod/volumes/create"
                | "/libpod/pods/create"
                | "/libpod/play/kube"
                | "/libpod/kube/play"
                | "/libpod/kube/apply",
            ) => Some(Self::Podman),
            _ => None,
        }
    }
}

/// The target of a commit whose image does not say what the container mounts.
pub(super) fn unlabelled(target: &str) -> String {
    format!("{target}&changes={}", encoded(&format!("LABEL {LABEL}=")))
}

/// The target of a list that also finds what mounts these paths; `None` if it is no list by volumes.
pub(super) fn finding_also(target: &str, paths: &[String]) -> Option<String> {
    let mut filters = filters(target)?;
    match filters.get_mut("volume")? {
        Value::Array(volumes) => volumes.extend(paths.iter().cloned().map(Value::from)),
        Value::Object(volumes) => volumes.extend(paths.iter().map(|path| (path.clone(), true.into()))),
        _ => return None,
    }
    let (path, query) = target.split_once('?')?;
    let pairs = query.split('&').map(|pair| match pair.starts_with("filters=") {
        true => format!("filters={}", encoded(&Value::Object(filters.clone()).to_string())),
        false => pair.to_owned(),
    });
    Some(format!("{path}?{}", pairs.collect::<Vec<_>>().join("&")))
}

/// Whether a document of Podman's API may have a path of the engine's machine mounted. What can't be read here may: Podman
/// reads YAML, too, and more JSON than there is.
pub(super) fn mounts_a_path(body: &[u8]) -> bool {
    if body.trim_ascii().is_empty() {
        return false;
    }
    let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
        let is_in = |word: &[u8]| body.windows(word.len()).any(|part| part == word);
        // A pod or its like, in YAML: what has no such field mounts no path.
        let is_kube = is_in(b"apiVersion:") && is_in(b"kind:");
        return !is_kube || is_in(b"hostPath") || is_in(b"\\");
    };
    let text = |object: &Map<String, Value>, name: &str| match field(object, name) {
        Some(Value::String(text)) => text.to_owned(),
        _ => String::new(),
    };
    let is_bind = |mount: &Value| match mount {
        Value::Object(mount) => text(mount, "type") == "bind" || text(mount, "source").starts_with('/'),
        _ => false,
    };
    let is_list = matches!(field(&body, "mounts"), Some(Value::Array(mounts)) if mounts.iter().any(is_bind));
    let is_overlay = matches!(field(&body, "overlay_volumes"), Some(Value::Array(overlays)) if !overlays.is_empty());
    let is_device = match field(&body, "options") {
        Some(Value::Object(options)) => text(options, "device").starts_with('/') && text(options, "o").contains("bind"),
        _ => false,
    };
    is_list || is_overlay || is_device || field(&body, "apiVersion").is_some()
}

fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut fields = object.iter();
    fields
        .find(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn volumes(filters: &Map<String, Value>) -> Vec<String> {
    match filters.get("volume") {
        Some(Value::Array(volumes)) => volumes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::Object(volumes)) => volumes.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

fn filters(target: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(&value(target, "filters")?).ok()
}

/// The first value of this name in the query of a target.
fn value(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(other, _)| decoded(other).is_some_and(|other| other == name))?;
    decoded(value)
}

/// The text of a value in a query; `None` if it is not UTF-8.
fn decoded(value: &str) -> Option<String> {
    percent_decoded(value.bytes(), |byte| if byte == b'+' { b' ' } else { byte })
}

/// A text as a value in a query.
fn encoded(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => value.push(char::from(byte)),
            // Writing to a string can't fail.
            _ => drop(write!(value, "%{byte:02X}")),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_image_of_a_container_does_not_say_what_that_mounts() {
        let target = "/v1.45/commit?container=web%2F1&repo=a";
        assert_eq!(
            OtherRequest::of("POST", target),
            Some(OtherRequest::Commit("web/1".into()))
        );
        let changed = unlabelled(target);
        assert_eq!(value(&changed, "changes").unwrap(), "LABEL io.dockerutils.mounts=");
        assert_eq!(value(&changed, "repo").unwrap(), "a");
        assert_eq!(
            OtherRequest::of("POST", "/commit?c%6fntainer=a"),
            Some(OtherRequest::Commit("a".into()))
        );
        for (method, target) in [
            ("GET", target),
            ("POST", "/commit"),
            ("POST", "/v1.45/images/commit?container=a"),
        ] {
            assert_eq!(OtherRequest::of(method, target), None, "{target}");
        }
    }

    #[test]
    fn a_list_by_paths_finds_them_by_their_places_on_the_dock_too() {
        let more = ["/w/app".to_owned()];
        for (filters, expected) in [
            (
                r#"{"status":["running"],"volume":["/home/ann/a b","v"]}"#,
                r#"{"status":["running"],"volume":["/home/ann/a b","v","/w/app"]}"#,
            ),
            (
                r#"{"volume":{"/home/ann/a b":true,"v":true}}"#,
                r#"{"volume":{"/home/ann/a b":true,"v":true,"/w/app":true}}"#,
            ),
        ] {
            let target = format!("/v1.45/containers/json?all=1&filters={}&size=1", encoded(filters));
            let wanted = OtherRequest::List(vec!["/home/ann/a b".into(), "v".into()]);
            assert_eq!(OtherRequest::of("GET", &target), Some(wanted));
            let also = finding_also(&target, &more).unwrap();
            let said: Value = serde_json::from_str(&value(&also, "filters").unwrap()).unwrap();
            assert_eq!(said, serde_json::from_str::<Value>(expected).unwrap());
            assert!(also.starts_with("/v1.45/containers/json?all=1&filters=") && also.ends_with("&size=1"));
        }
        for query in [
            "",
            "?all=1",
            "?filters=%7B%7D",
            "?filters=nonsense",
            "?filters=%7B%22volume%22%3A%5B%22v%22%5D%7D",
            "?filters=%7B%22volume%22%3A3%7D",
            "?filters=%ff",
            "?filters=%2",
        ] {
            assert_eq!(
                OtherRequest::of("GET", &format!("/containers/json{query}")),
                None,
                "{query}"
            );
        }
    }

    #[test]
    fn what_podmans_own_api_mounts_is_seen() {
        assert_eq!(
            OtherRequest::of("POST", "/v5.0.0/libpod/containers/create"),
            Some(OtherRequest::Podman)
        );
        assert_eq!(OtherRequest::of("POST", "/v5.0.0/libpod/containers/a/start"), None);
        for body in [
            r#"{"mounts":[{"type":"tmpfs"},{"type":"bind","source":"/home/ann","destination":"/a"}]}"#,
            r#"{"Mounts":[{"Source":"/home/ann"}]}"#,
            r#"{"Driver":"local","Options":{"o":"bind","device":"/home/ann"}}"#,
            r#"{"overlay_volumes":[{"source":"/home/ann"}]}"#,
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
            "apiVersion: v1\nkind: Pod\nspec:\n  volumes:\n  - hostPath:\n      path: /home/ann\n",
            r#"{"mounts":[]} {}"#,
            "[]",
        ] {
            assert!(mounts_a_path(body.as_bytes()), "{body}");
        }
        for body in [
            "",
            "{}",
            "apiVersion: v1\nkind: Pod\n",
            r#"{"mounts":[]}"#,
            r#"{"mounts":[{"type":"tmpfs","source":"tmpfs"}],"volumes":[{"Name":"v"}]}"#,
            r#"{"Options":{"o":"size=1","device":"tmpfs"}}"#,
        ] {
            assert!(!mounts_a_path(body.as_bytes()), "{body}");
        }
    }

    proptest! {
        #[test]
        fn a_value_is_read_as_it_was_written(text in ".*") {
            prop_assert_eq!(value(&format!("/a?b=c&d={}", encoded(&text)), "d"), Some(text));
        }

        #[test]
        fn any_target_is_read(target in "/(commit|containers/json)[?]?[%a-f0-9&={}\":,+]{0,40}") {
            let _ = (OtherRequest::of("POST", &target), OtherRequest::of("GET", &target));
        }
    }
}
