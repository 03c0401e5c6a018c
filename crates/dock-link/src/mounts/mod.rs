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

/// The path of a request's target in the engine's API: without the version before it and the query after it.
///
/// A path of Podman's own API keeps its `/libpod`, so that it is not taken for one of the engine's.
fn api_path(target: &str) -> Option<&str> {
    let path = target.split('?').next()?;
    // The absolute form, which is for proxies (RFC 9112, section 3.2.2).
    let path = match path.split_once("://") {
        Some((_, rest)) if !path.starts_with('/') => rest.get(rest.find('/')?..)?,
        _ => path,
    };
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
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(api_path(target), Some(path), "{target}");
        }
        assert_eq!(api_path("http://docker"), None);
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
