//! Paths inside a container that has not been started: what is there, and which mounts they lead to. Whoever puts something into a
//! container as root asks this before, as an image can have links to where the user's folders are mounted.
//!
//! Facts: the engine's API reference (`HEAD /containers/{id}/archive`), and Go's `io/fs.FileMode`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::query_parameters::InspectContainerOptions;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;

use crate::docker::connect::engine::Engine;
use crate::error::{Error, Result};
use crate::output::visible;

/// The header that describes what is at a path.
const STAT: &str = "X-Docker-Container-Path-Stat";
/// Go's bits of a folder and of a link.
const FOLDER_BIT: u64 = 1 << 31;
const LINK_BIT: u64 = 1 << 27;
/// The most components of a path that are looked at.
const DEEPEST: usize = 64;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// The engine knows no such path.
    Nothing,
    /// A real folder.
    Folder,
    /// A link, and where it leads, as far as the engine says it.
    Link(String),
    /// A file, or anything else.
    Other,
}

#[derive(Deserialize)]
struct Stat {
    mode: u64,
    #[serde(default, rename = "linkTarget")]
    link_target: String,
}

impl PathKind {
    /// What the header of an answer says of this path. Podman gives every path a target, which is the path itself if there is no
    /// link.
    fn of_header(header: &[u8], path: &str) -> Option<Self> {
        let stat: Stat = serde_json::from_slice(&STANDARD.decode(header).ok()?).ok()?;
        let leads_elsewhere = !stat.link_target.is_empty() && stat.link_target != path;
        Some(if stat.mode & LINK_BIT != 0 || leads_elsewhere {
            Self::Link(stat.link_target)
        } else if stat.mode & FOLDER_BIT != 0 {
            Self::Folder
        } else {
            Self::Other
        })
    }
}

/// The paths of one container, as they are before its start: what was asked once is not asked again.
pub struct PathsInside<'a> {
    engine: &'a Engine,
    id: &'a str,
    known: BTreeMap<String, PathKind>,
}

impl<'a> PathsInside<'a> {
    /// Those of this container.
    pub const fn of(engine: &'a Engine, id: &'a str) -> Self {
        Self {
            engine,
            id,
            known: BTreeMap::new(),
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// A broken connection, an engine that does not say it.
    pub async fn at(&mut self, path: &str) -> Result<PathKind> {
        if let Some(found) = self.known.get(path) {
            return Ok(found.clone());
        }
        let unknown = || {
            Error::failed(format!(
                "the engine does not say what is at {} in the image",
                visible(path)
            ))
        };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("path", path)
            .finish();
        let request = Request::builder()
            .method(Method::HEAD)
            .uri(format!("/containers/{}/archive?{query}", self.id))
            .body(Full::<Bytes>::default())
            .map_err(|cause| unknown().because(cause))?;
        let response = self.engine.worked(self.engine.request(request)).await?;
        let found = match response.status() {
            StatusCode::NOT_FOUND => PathKind::Nothing,
            status if status.is_success() => response
                .headers()
                .get(STAT)
                .and_then(|header| PathKind::of_header(header.as_bytes(), path))
                .ok_or_else(unknown)?,
            _ => return Err(unknown()),
        };
        self.known.insert(path.to_owned(), found.clone());
        Ok(found)
    }

    /// Why a path is not one of real folders only, as a clause. What is not there yet is no reason.
    ///
    /// # Errors
    /// As [`Self::at`].
    pub async fn obstacle(&mut self, path: &str) -> Result<Option<String>> {
        for part in ways(path) {
            match self.at(&part).await? {
                PathKind::Folder => {}
                PathKind::Nothing => return Ok(None),
                PathKind::Link(target) => {
                    return Ok(Some(format!(
                        "{} is a link to {} in the image",
                        visible(&part),
                        visible(&target)
                    )));
                }
                PathKind::Other => return Ok(Some(format!("{} is no folder in the image", visible(&part)))),
            }
        }
        Ok(None)
    }

    /// Where the container's mounts really are, with their names: the engine follows the image's links when it mounts.
    ///
    /// # Errors
    /// As [`Self::at`]; links that lead nowhere.
    pub async fn mounts(&mut self) -> Result<Vec<MountInside>> {
        let asked = self
            .engine
            .docker()
            .inspect_container(self.id, None::<InspectContainerOptions>);
        let container = asked.await.map_err(|cause| self.engine.error(self.id, cause))?;
        let mut mounts = Vec::new();
        for mount in container.mounts.unwrap_or_default() {
            let named = mount.destination.unwrap_or_default();
            mounts.push(MountInside {
                place: self.real(&named).await?,
                named,
            });
        }
        Ok(mounts)
    }

    /// A path without the links in it.
    async fn real(&mut self, path: &str) -> Result<String> {
        if names(path).count() > DEEPEST || names(path).any(|name| name == "..") {
            return Err(Error::failed(format!(
                "it is not known where {} is in the container",
                visible(path)
            )));
        }
        let mut real = String::new();
        let mut is_there = true;
        for name in names(path) {
            real = format!("{}/{name}", real.trim_end_matches('/'));
            if !is_there {
                continue;
            }
            match self.at(&real).await? {
                PathKind::Nothing => is_there = false,
                PathKind::Folder | PathKind::Other => {}
                // The engine follows all links of the target.
                PathKind::Link(target) if target.starts_with('/') => real = target,
                PathKind::Link(_) => {
                    return Err(Error::failed(format!(
                        "the engine does not say where the link {} of the image leads",
                        visible(&real)
                    )));
                }
            }
        }
        Ok(if real.is_empty() { "/".to_owned() } else { real })
    }
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInside {
    /// As it was asked for.
    pub named: String,
    /// Where it is.
    pub place: String,
}

impl MountInside {
    /// Whether the mount is at a path, or at a folder above it.
    pub fn is_at_or_above(&self, path: &str) -> bool {
        lies_in(path, &self.place)
    }

    /// Whether the mount is at a path, or below it.
    pub fn is_at_or_below(&self, path: &str) -> bool {
        lies_in(&self.place, path)
    }
}

/// Whether a path is a folder or something in it.
pub fn lies_in(path: &str, folder: &str) -> bool {
    let mut path = names(path);
    names(folder).all(|name| path.next() == Some(name))
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !matches!(*name, "" | "."))
}

/// `/a`, `/a/b` and `/a/b/c` of the last.
fn ways(path: &str) -> Vec<String> {
    let mut way = String::new();
    let next = |name: &str| {
        way = format!("{way}/{name}");
        way.clone()
    };
    names(path).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Option<PathKind> {
        PathKind::of_header(STANDARD.encode(json).as_bytes(), "/opt")
    }

    #[test]
    fn an_answer_says_folder_link_or_another() {
        let folder = r#"{"name":"opt","size":6,"mode":2147484141,"mtime":"2026-01-01T00:00:00Z","linkTarget":""}"#;
        assert_eq!(found(folder), Some(PathKind::Folder));
        assert_eq!(
            found(r#"{"name":"opt","mode":134218239,"linkTarget":"/srv/x"}"#),
            Some(PathKind::Link("/srv/x".into()))
        );
        // Podman's answers: of a folder, and of a link to one.
        assert_eq!(
            found(r#"{"mode":2147484141,"linkTarget":"/opt"}"#),
            Some(PathKind::Folder)
        );
        assert_eq!(
            found(r#"{"mode":2147484141,"linkTarget":"/srv"}"#),
            Some(PathKind::Link("/srv".into()))
        );
        assert_eq!(found(r#"{"mode":420}"#), Some(PathKind::Other));
        for wrong in ["", "{}", r#"{"mode":-1}"#] {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert_eq!(PathKind::of_header(b"\xff", "/opt"), None);
    }

    #[test]
    fn a_mount_is_above_or_below_by_whole_names() {
        let mount = |place: &str| MountInside {
            named: String::new(),
            place: place.into(),
        };
        assert!(mount("/").is_at_or_above("/opt/a") && mount("/opt").is_at_or_above("/opt/a/"));
        assert!(!mount("/op").is_at_or_above("/opt") && !mount("/opt/a").is_at_or_above("/opt"));
        assert!(mount("/opt/a/b").is_at_or_below("/opt//a") && !mount("/opt/ab").is_at_or_below("/opt/a"));
        assert_eq!(ways("/a//b/./c/"), ["/a", "/a/b", "/a/b/c"]);
        assert!(ways("/").is_empty());
    }
}
