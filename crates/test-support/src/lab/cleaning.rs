//! Removing the lab.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use super::place::{self, LABEL_DIRECTORY, Lab};
use super::rootfs::{BASE_NAME, DOCK_IMAGES};
use super::{Error, LABEL, LABEL_BASE, share};
use crate::process;

/// How many things are removed at one time.
const AT_ONCE: usize = 8;

/// The kinds of things that labs have on the machine's engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ObjectKind {
    Container,
    Volume,
    Network,
    Image,
}

impl ObjectKind {
    const ALL: [Self; 4] = [Self::Container, Self::Volume, Self::Network, Self::Image];

    /// The word that docker uses for it.
    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Image => "image",
        }
    }

    /// Options of `docker ... ls`: each line begins with the name that `docker ... rm` takes; names and labels follow.
    fn list(self) -> &'static [&'static str] {
        match self {
            Self::Container => &["--all", "--format={{.ID}} {{.Names}} {{.Image}} {{.Labels}}"],
            Self::Volume => &["--format={{.Name}} {{.Labels}}"],
            Self::Network => &["--format={{.ID}} {{.Name}} {{.Labels}}"],
            Self::Image => &["--format={{.Repository}}:{{.Tag}} {{.ID}}"],
        }
    }

    /// Options of `docker ... rm`.
    fn remove(self) -> &'static [&'static str] {
        match self {
            Self::Container => &["--force", "--volumes"],
            Self::Volume | Self::Image => &["--force"],
            Self::Network => &[],
        }
    }
}

/// The lab of another checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Other {
    /// Its id.
    pub id: String,
    /// Where it keeps its files, if that is known.
    pub directory: Option<PathBuf>,
    /// Whether a process uses it; true if that can't be found out.
    pub in_use: bool,
}

impl Lab {
    /// Stops its engines and removes what they stored, and everything that its tests left on the machine's engine. The
    /// images that the engines run from stay.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn down(&self) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.remove(&self.id, &self.directory)?;
        if self.others()?.is_empty() {
            share::lower();
        }
        Ok(())
    }

    /// Removes the labs of all checkouts, then their images and what they share. A lab that a process uses stays, with
    /// all that it needs.
    ///
    /// # Errors
    /// When the machine's engine refuses, or a lab of another checkout is in use.
    pub fn down_all(&self) -> Result<(), Error> {
        self.down()?;
        let mut in_use = Vec::new();
        // Held to the end, so that no process begins to use a lab whose images are being removed.
        let mut locks = Vec::new();
        for (id, directory) in self.others()? {
            // Without a directory, there is no way to find the lab's files.
            let directory = directory.unwrap_or_default();
            match used(&directory) {
                Ok(Use::InUse) => in_use.push(directory.display().to_string()),
                Err(source) => in_use.push(format!("{} ({source})", directory.display())),
                Ok(Use::Unused(lock)) => {
                    locks.push(lock);
                    self.remove(&id, &directory)?;
                }
            }
        }
        if !in_use.is_empty() {
            return Err(Error::InUse(in_use.join("\n    ")));
        }
        let _lock = self.lock_images()?;
        self.remove_unlabelled()?;
        self.remove_images()?;
        match fs::remove_dir_all(&self.shared) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::File {
                path: self.shared.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The labs of other checkouts: those that have something on the machine's engine, and those whose files are beside
    /// ours.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn other_labs(&self) -> Result<Vec<Other>, Error> {
        let others = self.others()?.into_iter().map(|(id, directory)| Other {
            in_use: directory
                .as_deref()
                .is_some_and(|directory| !matches!(used(directory), Ok(Use::Unused(_)))),
            id,
            directory,
        });
        Ok(others.collect())
    }

    /// What this lab has on the machine's engine: containers, volumes, networks, images of its tests, each as `volume NAME`.
    ///
    /// # Errors
    /// When the machine's engine refuses.
    pub fn holdings(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for kind in ObjectKind::ALL {
            let lines = self.lines(kind, &self.id)?;
            names.extend(lines.iter().map(|line| {
                let mut words = line.split(' ');
                let (first, second) = (words.next(), words.next());
                let name = match kind {
                    ObjectKind::Container | ObjectKind::Network => second,
                    ObjectKind::Volume | ObjectKind::Image => first,
                };
                format!("{} {}", kind.word(), name.unwrap_or_default())
            }));
        }
        Ok(names)
    }

    fn others(&self) -> Result<BTreeMap<String, Option<PathBuf>>, Error> {
        let mut others = BTreeMap::new();
        for kind in ["container", "volume"] {
            let format = format!("--format={{{{.Label {LABEL:?}}}}} {{{{.Label {LABEL_DIRECTORY:?}}}}}");
            let mut list = self.docker();
            list.args([kind, "ls", &format, "--filter", &format!("label={LABEL}")]);
            if kind == "container" {
                list.arg("--all");
            }
            for line in process::capture_text(&mut list)?.lines() {
                if let Some((id, directory)) = line.split_once(' ') {
                    let known = others.entry(id.to_owned()).or_insert(None);
                    if !directory.is_empty() {
                        *known = Some(PathBuf::from(directory));
                    }
                }
            }
        }
        for entry in fs::read_dir(&self.shared).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_id(&name) {
                others.insert(name, Some(entry.path()));
            }
        }
        others.remove(&self.id);
        Ok(others)
    }

    /// The lines of `docker ... ls` for everything of this kind that the lab with this id has.
    fn lines(&self, kind: ObjectKind, id: &str) -> Result<Vec<String>, Error> {
        let said = process::capture_text(self.docker().args([kind.word(), "ls"]).args(kind.list()))?;
        let (label, mark) = (format!("{LABEL}={id}"), format!("lab{id}"));
        let ours = said
            .lines()
            .filter(|line| line.contains(&label) || line.contains(&mark));
        Ok(ours.map(str::to_owned).collect())
    }

    fn remove(&self, id: &str, directory: &Path) -> Result<(), Error> {
        for kind in ObjectKind::ALL {
            let lines = self.lines(kind, id)?;
            self.remove_each(kind, lines.iter().filter_map(|line| line.split(' ').next()))?;
        }
        // Images of tests that have lost their names.
        self.remove_labelled(&format!("{LABEL}={id}"))?;
        // The locks stay: a process that waits for a removed file would wait for another lock than the processes after
        // it.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                match fs::remove_dir_all(&path) {
                    // Another user's directory; it is useless without its container.
                    Err(source) if source.kind() == io::ErrorKind::PermissionDenied && id != self.id => {}
                    removed => removed.map_err(|source| Error::File { path, source })?,
                }
            }
        }
        Ok(())
    }

    fn remove_each<'a>(&self, kind: ObjectKind, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let names: BTreeSet<&str> = names.collect();
        // In parallel: removing what an engine stored takes seconds. Few at a time, as there may be hundreds.
        for few in names.into_iter().collect::<Vec<_>>().chunks(AT_ONCE) {
            thread::scope(|scope| {
                let removing: Vec<_> = few
                    .iter()
                    .map(|name| scope.spawn(|| self.remove_one(kind, name)))
                    .collect();
                removing
                    .into_iter()
                    .try_for_each(|thread| thread.join().unwrap_or(Err(Error::Thread)))
            })?;
        }
        Ok(())
    }

    fn remove_one(&self, kind: ObjectKind, name: &str) -> Result<(), Error> {
        let removed = process::capture(self.docker().args([kind.word(), "rm"]).args(kind.remove()).arg(name));
        match removed {
            // It is no failure if the thing is gone already.
            Err(error) if !error.to_string().to_lowercase().contains("no such") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Removes the docks of earlier versions of the lab, which had no labels.
    fn remove_unlabelled(&self) -> Result<(), Error> {
        for kind in [ObjectKind::Container, ObjectKind::Volume] {
            let said = process::capture_text(self.docker().args([kind.word(), "ls"]).args(kind.list()))?;
            let old = said.lines().filter(|line| {
                let name = line.split(' ').nth(usize::from(kind == ObjectKind::Container));
                name.is_some_and(|name| name.starts_with("dockerutils-lab-")) && !line.contains(LABEL)
            });
            self.remove_each(kind, old.filter_map(|line| line.split(' ').next()))?;
        }
        Ok(())
    }

    /// Removes the images of docks, the base image, and what was built on it.
    fn remove_images(&self) -> Result<(), Error> {
        for repository in [DOCK_IMAGES, BASE_NAME] {
            let mut list = self.docker();
            list.args(["image", "ls", repository, "--format={{.Repository}}:{{.Tag}}"]);
            let names = process::capture_text(&mut list)?;
            self.remove_each(ObjectKind::Image, names.lines().filter(|name| !name.contains("<none>")))?;
        }
        self.remove_labelled(LABEL_BASE)
    }

    /// Removes the images that bear a label.
    fn remove_labelled(&self, label: &str) -> Result<(), Error> {
        let mut before = String::new();
        loop {
            let mut list = self.docker();
            list.args(["image", "ls", "--quiet", "--filter", &format!("label={label}")]);
            let ids = process::capture_text(&mut list)?;
            let mut last = Ok(());
            // An image that another is built on can only be removed after that one.
            for id in ids.lines() {
                let removed = self.remove_one(ObjectKind::Image, id);
                last = last.and(removed);
            }
            if ids.is_empty() || ids == before {
                return last;
            }
            before = ids;
        }
    }
}

/// Whether a lab may be removed.
enum Use {
    /// It may, as long as the lock is held.
    Unused(Option<File>),
    /// It may not: a process uses it.
    InUse,
}

fn used(directory: &Path) -> io::Result<Use> {
    // A directory that does not exist is not in use.
    if !directory.try_exists()? {
        return Ok(Use::Unused(None));
    }
    Ok(place::unused(directory)?.map_or(Use::InUse, |lock| Use::Unused(Some(lock))))
}

/// Whether a name has the form of a [`Lab::id`].
fn is_id(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
