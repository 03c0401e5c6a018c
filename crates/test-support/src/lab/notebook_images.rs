//! The images of the lab with notebook servers, and with a browser to look at them.
//!
//! They are made on the machine's own engine: each in a container of the image below, by a script, with packages of
//! Debian and PyPI. Their names have a digest of the recipe, so that a change makes them anew, and checkouts with different
//! recipes don't meet. A dock gets one when a test asks for it.

use std::path::{Path, PathBuf};
use std::thread;

use super::place::{digest, wait};
use super::rootfs::{DOCK_IMAGES, Rootfs, image, make, require_debootstrap};
use super::{Error, Lab, LabEngine, write};
use crate::process::{self, announce};

/// The certificates that this machine trusts: a proxy between here and PyPI may have one of its own.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The release of Debian that all of them are made of, and what it has beside the packages that every Debian has.
const DEBIAN: (&str, &str) = ("trixie", "ca-certificates");

/// What debootstrap downloads and leaves behind; Debian's own images have none of it either.
const DOWNLOADS: &[&str] = &["./var/cache/apt/*", "./var/lib/apt/lists/*"];

/// The versions of everything that comes from PyPI.
const REQUIREMENTS: &str = include_str!("../../../../docker/notebook/requirements.txt");

/// An image of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotebookImage {
    /// Debian, and nothing else: what docker/notebook is built on.
    Debian,
    /// A plain JupyterLab on port 8888, started by the image's command, as the user jovyan (1000, group users).
    Jupyter,
    /// What behaves as the images of docker-stacks do: its entrypoint, its command, its variables.
    Stacks,
    /// A server on port 8787 that asks of who starts it what an image of RStudio asks.
    Rstudio,
    /// A JupyterLab of docker-stacks' kind with a desktop behind jupyter-server-proxy: a real VNC server, and an xterm on it.
    Desktop,
    /// Chromium, and chromedriver.
    Browser,
}

/// What an image is made of.
struct Recipe {
    /// The image below; without one, debootstrap makes it.
    parent: Option<NotebookImage>,
    /// What root does in a container of the image below.
    script: &'static str,
    /// What the script finds in `/mnt/recipe`.
    files: &'static [(&'static str, &'static str)],
    /// Lines of a Dockerfile, for what an image says of itself.
    changes: &'static [&'static str],
}

impl NotebookImage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Debian,
        Self::Jupyter,
        Self::Stacks,
        Self::Rstudio,
        Self::Desktop,
        Self::Browser,
    ];

    /// Its name on every engine that has it.
    pub fn reference(self) -> String {
        let recipe = self.recipe();
        let mut text = match recipe.parent {
            Some(parent) => format!("{MAKING}{}", parent.reference()),
            None => [&[DEBIAN.0, DEBIAN.1], DOWNLOADS].concat().concat(),
        };
        text.extend([BEGIN, recipe.script, END]);
        for (name, content) in recipe.files {
            text.push_str(name);
            text.push_str(content);
        }
        text.extend(recipe.changes.iter().copied());
        format!("{DOCK_IMAGES}:{}-{}", self.word(), digest(text.as_bytes()))
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Jupyter => "jupyter",
            Self::Stacks => "stacks",
            Self::Rstudio => "rstudio",
            Self::Desktop => "desktop",
            Self::Browser => "browser",
        }
    }

    fn recipe(self) -> Recipe {
        match self {
            Self::Debian => Recipe {
                parent: None,
                script: "",
                files: &[],
                changes: &[],
            },
            Self::Jupyter => Recipe {
                parent: Some(Self::Debian),
                script: include_str!("notebook_images/jupyter.sh"),
                files: &[("requirements.txt", REQUIREMENTS)],
                changes: &[
                    "ENV HOME=/home/jovyan",
                    "ENV PATH=/opt/jupyter/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "EXPOSE 8888",
                    "USER 1000",
                    "WORKDIR /home/jovyan",
                    r#"CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]"#,
                ],
            },
            Self::Stacks => Recipe {
                parent: Some(Self::Jupyter),
                script: include_str!("notebook_images/stacks.sh"),
                files: &[
                    ("start.sh", include_str!("notebook_images/start.sh")),
                    ("start-notebook.py", include_str!("notebook_images/start-notebook.py")),
                    ("start-notebook.sh", include_str!("notebook_images/start-notebook.sh")),
                    (
                        "start-singleuser.py",
                        include_str!("notebook_images/start-singleuser.py"),
                    ),
                ],
                changes: &[
                    "ENV JUPYTER_PORT=8888",
                    "ENV NB_GID=100",
                    "ENV NB_UID=1000",
                    "ENV NB_USER=jovyan",
                    "USER 1000",
                    "WORKDIR /home/jovyan",
                    r#"ENTRYPOINT ["tini", "-g", "--", "start.sh"]"#,
                    r#"CMD ["start-notebook.py"]"#,
                ],
            },
            Self::Rstudio => Recipe {
                parent: Some(Self::Debian),
                script: include_str!("notebook_images/rstudio.sh"),
                files: &[("rstudio.py", include_str!("notebook_images/rstudio.py"))],
                changes: &["EXPOSE 8787", "WORKDIR /home/rstudio", r#"CMD ["/init"]"#],
            },
            Self::Desktop => Recipe {
                parent: Some(Self::Stacks),
                script: include_str!("notebook_images/desktop.sh"),
                files: &[("xstartup", include_str!("notebook_images/xstartup.sh"))],
                changes: &[
                    "ENV JUPYTER_REMOTE_DESKTOP_PROXY_XSTARTUP=/usr/local/bin/xstartup",
                    "USER 1000",
                    "WORKDIR /home/jovyan",
                    r#"ENTRYPOINT ["tini", "-g", "--", "start.sh"]"#,
                    r#"CMD ["start-notebook.py"]"#,
                ],
            },
            Self::Browser => Recipe {
                parent: Some(Self::Debian),
                script: include_str!("notebook_images/browser.sh"),
                files: &[],
                changes: &[r#"CMD ["chromedriver"]"#],
            },
        }
    }
}

/// Counted up when [`build`] makes another image of the same recipe.
const MAKING: u32 = 2;
const BEGIN: &str = include_str!("notebook_images/begin.sh");
const END: &str = include_str!("notebook_images/end.sh");

/// Makes sure that the machine's own engine has this image, and returns its name.
///
/// # Errors
/// When it does not exist and can't be made.
pub fn notebook_image(wanted: NotebookImage) -> Result<String, Error> {
    let lab = Lab::open()?;
    lab.hold()?;
    ensure(&lab, wanted)
}

/// [`notebook_image`] for all of them, those that don't need one another side by side.
///
/// # Errors
/// As there.
pub fn notebook_images() -> Result<(), Error> {
    let lab = Lab::open()?;
    lab.hold()?;
    thread::scope(|scope| {
        let making: Vec<_> = NotebookImage::ALL
            .iter()
            .map(|image| scope.spawn(|| ensure(&lab, *image)))
            .collect();
        making
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Err(Error::Thread)).map(drop))
    })
}

impl LabEngine {
    /// Makes sure that this engine has the image, and returns its name. A dock gets it from the machine's own engine, which
    /// takes some seconds, once.
    ///
    /// # Errors
    /// When it can't be made, or this engine does not take it.
    pub fn notebook_image(&self, wanted: NotebookImage) -> Result<String, Error> {
        let socket = Path::new(self.host.trim_start_matches("unix://"));
        let name = wanted.reference();
        if image(socket, &name).is_some() {
            return Ok(name);
        }
        let lab = Lab::open()?;
        lab.hold()?;
        ensure(&lab, wanted)?;
        if socket == lab.local {
            return Ok(name);
        }
        // One load at a time: two of the same image would send it twice.
        let _lock = wait(
            &socket.with_file_name("notebook-images.lock"),
            "lab: waiting for another process that loads an image",
        )?;
        if image(socket, &name).is_none() {
            announce(format_args!("lab: loading {name} into {}", self.name));
            process::pipe(lab.docker().args(["save", &name]), self.docker().arg("load"))?;
        }
        Ok(name)
    }
}

fn ensure(lab: &Lab, wanted: NotebookImage) -> Result<String, Error> {
    let name = wanted.reference();
    if image(&lab.local, &name).is_some() {
        return Ok(name);
    }
    lab.require_engine()?;
    let recipe = wanted.recipe();
    let parent = recipe.parent.map(|parent| ensure(lab, parent)).transpose()?;
    let _lock = wait(
        &lab.shared.join(format!("{}.lock", wanted.word())),
        &format!("lab: waiting for another process that makes {name}"),
    )?;
    if image(&lab.local, &name).is_some() {
        return Ok(name);
    }
    match parent {
        None => {
            let rootfs = Rootfs {
                image: name.clone(),
                release: DEBIAN.0,
                packages: DEBIAN.1.to_owned(),
                without: DOWNLOADS,
            };
            require_debootstrap(lab, std::slice::from_ref(&rootfs))?;
            make(lab, &rootfs)?;
        }
        Some(parent) => build(lab, wanted, &parent)?,
    }
    Ok(name)
}

/// Runs the recipe's script in a container of the image below, and makes an image of what that leaves.
fn build(lab: &Lab, wanted: NotebookImage, parent: &str) -> Result<(), Error> {
    let recipe = wanted.recipe();
    let name = wanted.reference();
    announce(format_args!("lab: making {name}, once"));
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let directory = tempfile::tempdir_in(&lab.directory).map_err(file(&lab.directory))?;
    let place = directory.path();
    write(&place.join("make.sh"), &format!("{BEGIN}\n{}\n{END}", recipe.script))?;
    for (name, content) in recipe.files {
        write(&place.join(name), content)?;
    }
    let certificates = PathBuf::from(CERTIFICATES);
    // The name has the lab's mark: what a killed process leaves is removed with the lab. It bears no label: the image would
    // inherit it, and all of its containers.
    let container = format!("{}-makes-{}", lab.mark(), wanted.word());
    process::capture(lab.docker().args(["rm", "--force", &container]))?;
    let mut run = lab.docker();
    run.args(["run", "--name", &container, "--user=0", "--workdir=/", "--network=host"]);
    run.arg(format!("--volume={}:/mnt/recipe:ro", place.display()));
    if certificates.exists() {
        run.arg(format!("--volume={CERTIFICATES}:/mnt/ca-certificates.crt:ro"));
    }
    // An image of docker-stacks becomes its user, whoever is asked for, unless its entrypoint is left out. Only if the image
    // gets one of its own: a commit keeps the container's, also with `--change 'ENTRYPOINT []'` (20.10.24).
    if recipe.changes.iter().any(|change| change.starts_with("ENTRYPOINT ")) {
        run.args(["--entrypoint=sh", parent]);
    } else {
        run.args([parent, "sh"]);
    }
    let made = process::capture(run.arg("/mnt/recipe/make.sh")).and_then(|_| {
        let mut commit = lab.docker();
        commit.arg("commit");
        for change in recipe.changes {
            commit.args(["--change", change]);
        }
        process::capture(commit.args([&container, &name]))
    });
    process::capture(lab.docker().args(["rm", "--force", &container]))?;
    made?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_what_it_is_made_of() {
        let names: Vec<String> = NotebookImage::ALL.map(NotebookImage::reference).to_vec();
        for (index, name) in names.iter().enumerate() {
            let (repository, tag) = name.split_once(':').unwrap();
            assert_eq!(repository, DOCK_IMAGES);
            assert!(!names.get(..index).unwrap().contains(name));
            assert!(tag.len() > 9);
        }
    }
}
