//! What containers mount of this machine, as clients say it, and what becomes of it on the dock.
//!
//! - [`requests`]: which requests carry mounts; their sources, and other paths in the place of these;
//! - [`answers`]: which answers show mounts, and what the client said in the place of the dock's paths;
//! - [`events`]: the engine's stream of events, which shows labels;
//! - [`label`]: what an object remembers of its translation;
//! - `sources`: where the source of a mount is: in a project here, or on the dock;
//! - `dock_paths`: what the dock says of paths;
//! - `inherited`: what is mounted by way of volumes and other containers;
//! - `messages`: paths in what an engine says of a failure;
//! - `other_requests`: which requests concern mounts though they carry none;
//! - `translation`: what becomes of the requests of one client, from all of these;
//! - `projects`: the projects that are mounted, and what keeps them in step; `sync_process`: the process that does;
//! - `translated_paths`: what this machine remembers of its translations, which bounds what a dock's word can do;
//! - `json_object`: JSON of which only some values are changed.

use std::borrow::Cow;

pub mod answers;
mod dock_paths;
pub mod events;
mod inherited;
pub(crate) mod json_object;
pub mod label;
mod messages;
mod other_requests;
pub(crate) mod projects;
pub mod requests;
pub(crate) mod sources;
mod sync_process;
mod translated_paths;
pub(crate) mod translation;

/// The path of a request's target in the engine's API: without the version before it and the query after it, and without
/// escapes, as an engine sees it (Go's `net/url`). `None` for what an engine takes for no path.
///
/// A path of Podman's own API keeps its `/libpod`, so that it is not taken for one of the engine's.
fn api_path(target: &str) -> Option<Cow<'_, str>> {
    let path = target.split('?').next()?;
    // The absolute form, which is for proxies (RFC 9112, section 3.2.2), with an authority or without one.
    let path = match path.split_once(':') {
        Some((_, rest)) if !path.starts_with('/') => match rest.strip_prefix("//") {
            Some(rest) => rest.get(rest.find('/')?..)?,
            None => rest,
        },
        _ => path,
    };
    if !path.contains('%') {
        return without_version(path).map(Cow::Borrowed);
    }
    let decoded = percent_decoded(path.bytes(), |byte| byte)?;
    without_version(&decoded).map(|path| Cow::Owned(path.to_owned()))
}

/// The text of these bytes, in which `%41` is an `A`; the others are as `plain` says. `None` for another escape, and for what is
/// not UTF-8.
fn percent_decoded(mut encoded: impl Iterator<Item = u8>, plain: fn(u8) -> u8) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.size_hint().0);
    while let Some(byte) = encoded.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [encoded.next()?, encoded.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => plain(byte),
        });
    }
    String::from_utf8(bytes).ok()
}

fn without_version(path: &str) -> Option<&str> {
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let (version, _) = rest.split_once('/')?;
        let is_version = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        is_version.then(|| rest.get(version.len()..))?
    });
    Some(versioned.unwrap_or(path))
}

/// The ID or the name between the two ends of a path; `None` if there is nothing between them.
fn between<'a>(path: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_api_has_neither_version_nor_query() {
        for (target, path) in [
            ("/volumes", "/volumes"),
            ("/v1.41/volumes?filters=%7B%7D", "/volumes"),
            ("/v1.52/volumes/v1.41", "/volumes/v1.41"),
            ("/v4.0.0/libpod/volumes", "/libpod/volumes"),
            ("/v1.41/v1.41/volumes", "/v1.41/volumes"),
            ("/volumes/create", "/volumes/create"),
            ("/vx/volumes", "/vx/volumes"),
            ("/v/volumes", "/v/volumes"),
            ("/v1.41", "/v1.41"),
            ("http://docker/v1.41/volumes?a=/b", "/volumes"),
            ("/volumes/a://b", "/volumes/a://b"),
            ("http:/v1.41/containers/create", "/containers/create"),
            ("/v1.41/containers/%63reate", "/containers/create"),
            ("/%76%31.41%2Fcontainers/create?%3F", "/containers/create"),
            ("/volumes/a+b", "/volumes/a+b"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(api_path(target).as_deref(), Some(path), "{target}");
        }
        for target in ["http://docker", "/%", "/%6", "/%+6", "/%ff"] {
            assert_eq!(api_path(target), None, "{target}");
        }
    }

    #[test]
    fn a_name_is_between_the_ends_of_a_path() {
        assert_eq!(between("/services/a/update", "/services/", "/update"), Some("a"));
        for path in [
            "/services//update",
            "/services/update",
            "/services/a",
            "/tasks/a/update",
        ] {
            assert_eq!(between(path, "/services/", "/update"), None, "{path}");
        }
    }
}
