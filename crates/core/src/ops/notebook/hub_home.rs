//! `--as-hub`: a container as a JupyterHub starts it, with a volume over its user's home folder. The volume is empty at first, as
//! hubs in Kubernetes have it, and kept: one for each project and image.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::RemoveVolumeOptions;
use sha2::{Digest as _, Sha256};

use super::home_content;
use super::start_script::SHELL;
use crate::config::variables::{self, Word};
use crate::docker::connect::engine::{Engine, found};
use crate::docker::containers::container::{self, ContainerFolder};
use crate::docker::containers::path_inside::{PathsInside, lies_in};
use crate::docker::containers::{LABEL_PROJECT, LABEL_USER};
use crate::docker::options::run_options::{ClientFacts, RunOptions};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::legal_container_name;
use crate::output::visible;

/// The home folder that hubs mount over, where an image says no other.
pub(super) const HOME: &str = "/home/jovyan";
/// The label of a volume: the image whose home it is.
const LABEL_HOME: &str = "io.dockerutils.notebook-home";
/// Bytes of the digest in a volume's name.
const KEY: usize = 4;
/// Folders in which no home is.
const SYSTEM: [&str; 12] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/opt/dockerutils",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
];
/// Folders that are no home, and in none.
const SYSTEM_ABOVE: [&str; 3] = ["/opt/dockerutils", "/usr/local/bin", "/var/lib"];
/// How long a volume may be in use by a container that is being removed, and the pause between tries.
const IN_USE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(100);
/// Where a server listens, for what is a URL of the hub's.
const ANYWHERE: &str = "http://0.0.0.0";

/// A home folder with a volume over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubHome {
    /// The volume's name.
    pub volume: String,
    /// The home folder inside.
    pub path: String,
    /// User and group inside, if they are known.
    pub owner: Option<(u32, u32)>,
    /// The user's name on the hub.
    pub user: String,
    /// The project, the user here, and the image: what its labels say.
    labels: [(&'static str, String); 3],
}

impl HubHome {
    /// The home of this user in a container of this image, which belongs to `owner` inside.
    pub fn new(
        (root, project): (&Path, &str),
        user: &str,
        reference: &str,
        path: &str,
        owner: Option<(u32, u32)>,
    ) -> Self {
        let mut digest = Sha256::new();
        for part in [root.as_os_str().as_encoded_bytes(), reference.as_bytes()] {
            digest.update(part);
            digest.update([0]);
        }
        let key: String = digest
            .finalize()
            .iter()
            .take(KEY)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            volume: legal_container_name(&format!("{user}_{project}_home_{key}")),
            path: path.trim_end_matches('/').to_owned(),
            owner,
            user: hub_name(user),
            labels: [
                (LABEL_PROJECT, project.to_owned()),
                (LABEL_USER, user.to_owned()),
                (LABEL_HOME, reference.to_owned()),
            ],
        }
    }

    /// The base path of the server.
    pub fn base_path(&self) -> String {
        format!("/user/{}/", self.user)
    }

    /// The options of `docker run`. What the image has in the folder is not copied to the volume.
    pub fn options(&self, port: u16) -> Vec<String> {
        let url = format!("{ANYWHERE}:{port}{}", self.base_path());
        vec![
            "-v".to_owned(),
            format!("{}:{}:nocopy", self.volume, self.path),
            "-e".to_owned(),
            format!("JUPYTERHUB_USER={}", self.user),
            "-e".to_owned(),
            format!("JUPYTERHUB_SERVICE_URL={url}"),
        ]
    }

    /// The docker command that makes the volume, or leaves one that is there.
    pub fn line(&self, docker_prefix: &str) -> String {
        let mut words: Vec<Word> = ["docker", "volume", "create"].map(Word::literal).to_vec();
        for (label, value) in &self.labels {
            words.extend([Word::literal("--label"), Word::literal(format!("{label}={value}"))]);
        }
        words.push(Word::literal(&self.volume));
        format!("{docker_prefix}{}", variables::print(&words))
    }

    /// The docker command that removes the volume.
    pub fn removal(&self, docker_prefix: &str) -> String {
        hint!("{docker_prefix}docker volume rm {}", self.volume; docker_prefix = docker_prefix)
    }

    /// The folder as an archive has it: it belongs to its user. If that one is not known, everybody in the container may write.
    pub fn folder(&self) -> ContainerFolder {
        ContainerFolder {
            path: self.path.clone(),
            mode: if self.owner.is_some() { 0o755 } else { 0o777 },
            owner: self.owner.unwrap_or_default(),
        }
    }

    /// What `run-notebook --start-files` takes: `HOME:UID:GID`, or `HOME`.
    pub fn word(&self) -> String {
        match self.owner {
            Some((user, group)) => format!("{}:{user}:{group}", self.path),
            None => self.path.clone(),
        }
    }

    /// Makes the volume, or takes the one that is there: `None` then.
    ///
    /// # Errors
    /// A volume of this name that is another's; the engine's refusal.
    pub(super) async fn make(&self, engine: &Engine) -> Result<Option<NewVolume>> {
        let failed = |cause| engine.error(&format!("volume {}", self.volume), cause);
        let before = found(engine.docker().inspect_volume(&self.volume).await).map_err(failed)?;
        let wanted: HashMap<String, String> = self
            .labels
            .iter()
            .map(|(label, value)| ((*label).to_owned(), value.clone()))
            .collect();
        let request = VolumeCreateRequest {
            name: Some(self.volume.clone()),
            labels: Some(wanted.clone()),
            ..VolumeCreateRequest::default()
        };
        let made = engine.docker().create_volume(request).await.map_err(failed)?;
        if wanted
            .iter()
            .all(|(label, value)| made.labels.get(label) == Some(value))
        {
            return Ok(before.is_none().then(|| NewVolume {
                engine: engine.clone(),
                name: self.volume.clone(),
                armed: true,
            }));
        }
        Err(Error::failed(format!(
            "volume {} is there, and was not made by run-notebook --as-hub: it is not mounted over {}",
            self.volume, self.path
        ))
        .hint(hint!("see what it is: docker volume inspect {}", self.volume)))
    }

    /// Refuses a home that is not one of real folders in this container, which has not been started, or that is in a folder which is
    /// mounted: the home is given to its user by root.
    ///
    /// # Errors
    /// Such a home; an engine that does not say what is there.
    pub(super) async fn check(&self, paths: &mut PathsInside<'_>) -> Result<()> {
        if let Some(obstacle) = paths.obstacle(&self.path).await? {
            return Err(self.refused(&obstacle));
        }
        for mount in paths.mounts().await? {
            let is_own = mount.named == self.path && mount.place == self.path;
            if !is_own && mount.is_at_or_above(&self.path) {
                let (named, place) = (visible(&mount.named), visible(&mount.place));
                return Err(self.refused(&format!("it is in {place}, where something is mounted (as {named})")));
            }
        }
        Ok(())
    }

    /// Refuses a home over which no volume can be mounted, by its path.
    ///
    /// # Errors
    /// Such a home.
    pub(super) fn check_path(&self) -> Result<()> {
        match wrong_path(&self.path) {
            Some(obstacle) => Err(self.refused(obstacle)),
            None => Ok(()),
        }
    }

    fn refused(&self, obstacle: &str) -> Error {
        let [_, _, (_, image)] = &self.labels;
        Error::failed(format!(
            "--as-hub mounts no volume over {:?}, the home folder (HOME) of {}: {obstacle}",
            self.path,
            visible(image)
        ))
        .hint("set another in the image's Dockerfile, such as ENV HOME=/home/jovyan, or leave out --as-hub")
    }
}

/// Why no volume is mounted over a path, as a clause.
fn wrong_path(path: &str) -> Option<&'static str> {
    let Some(below) = path.strip_prefix('/') else {
        return Some("it is the root folder, or not absolute");
    };
    if below.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Some("it is not a plain path");
    }
    if path.contains(':') || path.chars().any(char::is_control) {
        return Some("there is a colon or a control character in it");
    }
    let is_system_s =
        SYSTEM.iter().any(|folder| lies_in(path, folder)) || SYSTEM_ABOVE.iter().any(|folder| lies_in(folder, path));
    is_system_s.then_some("it is a folder of the system")
}

/// A volume that was made, and is removed when this is dropped before [`NewVolume::keep`]. The container is to be removed before.
pub(super) struct NewVolume {
    engine: Engine,
    name: String,
    armed: bool,
}

impl NewVolume {
    /// From now on the volume is not removed.
    pub(super) fn keep(mut self) {
        self.armed = false;
    }

    async fn remove(&self) {
        let began = tokio::time::Instant::now();
        loop {
            let removed = self
                .engine
                .docker()
                .remove_volume(&self.name, None::<RemoveVolumeOptions>)
                .await;
            // The engine may still be removing the container that has it.
            let is_used = matches!(
                removed,
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 409, .. })
            );
            if !is_used || began.elapsed() > IN_USE {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for NewVolume {
    fn drop(&mut self) {
        if self.armed {
            container::clean_up(self.remove());
        }
    }
}

/// What `run-notebook --start-files` was told: the folder that its archive begins with.
///
/// # Errors
/// Something else.
pub(super) fn parse_word(word: &str) -> Result<ContainerFolder> {
    let wrong =
        || Error::usage(format!("{word:?} is not HOME or HOME:UID:GID")).hint("run-notebook --dry-run shows the line");
    let mut parts = word.split(':');
    let path = parts.next().filter(|path| path.starts_with('/')).ok_or_else(wrong)?;
    let mut number = || {
        parts
            .next()
            .map(|text| text.parse::<u32>().map_err(|_| wrong()))
            .transpose()
    };
    let owner = match (number()?, number()?) {
        (Some(user), Some(group)) => Some((user, group)),
        (None, _) => None,
        (Some(_), None) => return Err(wrong()),
    };
    Ok(ContainerFolder {
        path: path.to_owned(),
        mode: if owner.is_some() { 0o755 } else { 0o777 },
        owner: owner.unwrap_or_default(),
    })
}

/// A user's name as a hub has it, in a URL.
fn hub_name(user: &str) -> String {
    let made: String = user
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            plain @ ('a'..='z' | '0'..='9' | '-' | '_') => plain,
            _ => '-',
        })
        .collect();
    if made.is_empty() { "user".to_owned() } else { made }
}

/// A sentence about what the image keeps in its home folder, which the volume hides; `None` if that is nothing, or can't be seen.
/// A container of the image, without the volume, is asked and removed.
///
/// # Errors
/// A home over which no volume is mounted; an engine that is out of reach.
pub(super) async fn hidden(engine: &Engine, reference: &str, hub: &HubHome, env: &Env) -> Result<Option<String>> {
    let words = ["--rm", "--network=none", "--user=0", "--entrypoint", SHELL].map(str::to_owned);
    let lookup = |name: &str| env.get(name).map(str::to_owned);
    let facts = ClientFacts::of(engine, &lookup, Path::new("/"));
    let command = ["-c", "exec sleep 60"].map(str::to_owned);
    let planned = RunOptions::parse(&words).and_then(|options| options.plan(reference, &command, &facts));
    let planned = planned.map_err(|cause| Error::failed(visible(&cause.to_string())))?;
    let created = container::create(engine, &planned).await?;
    hub.check(&mut PathsInside::of(engine, created.id())).await?;
    if !container::has(engine, created.id(), SHELL).await? {
        return Ok(None);
    }
    container::start(engine, created.id(), None).await?;
    Ok(home_content::hidden_in_untouched(engine, created.id(), &hub.path).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(root: &str, image: &str) -> HubHome {
        HubHome::new((Path::new(root), "proj"), "Ann.B", image, "/home/jovyan/", Some((7, 8)))
    }

    #[test]
    fn there_is_a_volume_for_each_project_and_image() {
        let first = home("/a/proj", "lab:1");
        assert_eq!(first, home("/a/proj", "lab:1"));
        assert!(
            first.volume.starts_with("Ann.B_proj_home_") && first.volume.len() == 24,
            "{first:?}"
        );
        for other in [home("/b/proj", "lab:1"), home("/a/proj", "lab:2")] {
            assert_ne!(first.volume, other.volume);
        }
        assert_eq!(first.base_path(), "/user/ann-b/");
        assert_eq!(
            first.options(8888).join(" "),
            format!(
                "-v {}:/home/jovyan:nocopy -e JUPYTERHUB_USER=ann-b -e \
                 JUPYTERHUB_SERVICE_URL=http://0.0.0.0:8888/user/ann-b/",
                first.volume
            )
        );
        assert_eq!(
            first.line("DOCKER_HOST=x "),
            format!(
                "DOCKER_HOST=x docker volume create --label io.dockerutils.project=proj --label io.dockerutils.user=Ann.B \
                 --label io.dockerutils.notebook-home=lab:1 {}",
                first.volume
            )
        );
    }

    #[test]
    fn no_volume_is_mounted_over_the_system() {
        let of = |path: &str| HubHome::new((Path::new("/a"), "p"), "ann", "lab:1", path, None).check_path();
        for path in [
            "",
            "/",
            "home",
            "/home/../etc",
            "/home/./a",
            "//home",
            "/home//a",
            "/a:ro",
            "/a\nb",
            "/etc",
            "/etc/x",
            "/opt",
            "/opt/dockerutils",
            "/opt/dockerutils/x",
            "/usr",
            "/usr/local",
            "/bin",
            "/proc/1",
            "/dev/shm",
            "/sys",
            "/var",
        ] {
            let error = of(path).unwrap_err().to_string();
            assert!(error.contains("the home folder (HOME) of lab:1: "), "{path}: {error}");
        }
        for path in [
            "/home/jovyan",
            "/root/",
            "/opt/app",
            "/binary",
            "/usr/src/app",
            "/home",
            "/var/www",
        ] {
            assert!(of(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn the_folder_is_read_as_it_was_written() {
        let known = home("/a", "i");
        assert_eq!(known.word(), "/home/jovyan:7:8");
        let unknown = HubHome {
            owner: None,
            ..known.clone()
        };
        for home in [known, unknown] {
            assert_eq!(parse_word(&home.word()).unwrap(), home.folder());
        }
        for word in ["", "home", "/home:7", "/home:a:b"] {
            assert!(parse_word(word).is_err(), "{word}");
        }
    }
}
