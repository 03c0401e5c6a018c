//! What is to be built: the context, the Dockerfile, the names, the options; and what is sent in place of links.

use std::path::{Path, PathBuf};

use crate::docker::options::build_options::BuildOptions;
use crate::error::{Error, Result};
use crate::hint;
use crate::project_file;
use build_context::ignore;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The folder of the build context.
    pub context: PathBuf,
    /// The Dockerfile; outside the context, too.
    pub dockerfile: PathBuf,
    /// Names that the image gets, `repository:tag`.
    pub tags: Vec<String>,
    /// Everything else.
    pub options: BuildOptions,
}

impl BuildRequest {
    /// The same request again, after all of its steps have run.
    pub(super) fn cached(&self) -> Self {
        let mut again = self.clone();
        again.options.no_cache = false;
        again.options.no_cache_filter.clear();
        again
    }

    /// The ignore patterns of a folder of the build. For its context, BuildKit prefers the file beside the Dockerfile
    /// to the root's `.dockerignore`; the classic client knows only the latter.
    ///
    /// # Errors
    /// A file that makes no sense.
    pub fn ignored(&self, folder: &Path) -> Result<Vec<Vec<u8>>> {
        let mut beside = self.dockerfile.clone().into_os_string();
        beside.push(".dockerignore");
        let beside = (folder == self.context).then(|| PathBuf::from(beside));
        let mut text = Vec::new();
        for file in beside.into_iter().chain([folder.join(".dockerignore")]) {
            match project_file::read(&file) {
                Ok(found) => {
                    text = found;
                    break;
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                // Without it, everything that it leaves out would be sent.
                Err(cause) => {
                    return Err(Error::failed(format!("{} can't be read", file.display()))
                        .because(cause)
                        .hint(
                            "it lists what stays on this machine: put a text file there, or remove it to send \
                             everything",
                        ));
                }
            }
        }
        ignore::read(&text).map_err(|cause| {
            Error::failed(format!("the .dockerignore of {} can't be read", folder.display())).because(cause)
        })
    }
}

/// The target of a Dockerfile that is a symbolic link; `None` if it is a plain file. No builder follows a link by
/// itself, so the target is sent in its place.
///
/// # Errors
/// It leads nowhere, or out of the project: a cloned project brings its own links, and could send any file of this
/// machine.
pub fn link_target(dockerfile: &Path, context: &Path) -> Result<Option<PathBuf>> {
    let Ok(said) = dockerfile.read_link() else {
        return Ok(None);
    };
    let target = dockerfile.canonicalize().map_err(|cause| {
        Error::usage(format!(
            "{} is a link to {}, which can't be read",
            dockerfile.display(),
            said.display()
        ))
        .because(cause)
    })?;
    // The folder of an image type may be a link itself: its owner put the files there.
    let mut folders = [Some(context), dockerfile.parent()].into_iter().flatten();
    if folders.any(|folder| folder.canonicalize().is_ok_and(|folder| target.starts_with(folder))) {
        return Ok(Some(target));
    }
    Err(link_out(dockerfile, &target))
}

/// The error of a link that leads out of the project.
pub(super) fn link_out(link: &Path, target: &Path) -> Error {
    let (link, target) = (link.display(), target.display());
    Error::usage(format!(
        "{link} is a link to {target}, outside of the project: its content would be sent to the engine"
    ))
    .hint(hint!(
        "if that is intended, put a copy in its place: cp --remove-destination {} {}",
        target,
        link
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_try_takes_from_the_cache_what_the_first_has_made() {
        let request = BuildRequest {
            context: "/project".into(),
            dockerfile: "/project/Dockerfile".into(),
            tags: vec!["sample:1".into()],
            options: BuildOptions {
                no_cache: true,
                no_cache_filter: vec!["stage".into()],
                pull: true,
                ..BuildOptions::default()
            },
        };
        let again = request.cached();
        assert!(!again.options.no_cache && again.options.no_cache_filter.is_empty());
        assert!(again.options.pull);
        assert_eq!((again.context, again.tags), (request.context, request.tags));
    }
}
