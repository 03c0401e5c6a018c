//! The version of a project, as [versioneer](https://github.com/python-versioneer/python-versioneer) computes it from
//! git, and the file `_version.py.bld` that carries it into an image, where there is no git.
//!
//! ```no_run
//! use std::path::Path;
//! use dockerutils_core::version::Versioneer;
//!
//! if let Some(versioneer) = Versioneer::find(Path::new("."))? {
//!     assert_ne!(versioneer.versions()?.version(), "");
//! }
//! # Ok::<(), dockerutils_core::version::VersionError>(())
//! ```
//!
//! versioneer itself is Python, and is not run here. The answer comes from the first of these that has one, as in its
//! `get_versions()`:
//!
//! 1. the keywords that `git archive` expanded in `versionfile_source` ([`source_file`]);
//! 2. the JSON that `setup.py sdist`, or genversion, wrote there ([`source_file`]);
//! 3. git ([`describe`]), in one of eight styles ([`render`]);
//! 4. the name of the root's folder, or of the two above it, after `parentdir_prefix`;
//! 5. none: version `0+unknown`, with an error in the answer.
//!
//! # Which versioneer
//!
//! A project carries its own `versioneer.py`, and `python setup.py --version` uses that one. An image must not have
//! another version than the wheel beside it, so where releases of versioneer differ in their answers, the release in
//! the file's line `# Version: 0.18` counts ([`Release`]). Without that file or line, it is 0.29. Releases differ:
//!
//! - before 0.19, `pep440-pre` writes `.post.devN`; before 0.21 it writes `.post0.devN` after a tag with `.postN`, too;
//! - before 0.20, the tag of an archive need not continue with a digit after the prefix;
//! - before 0.23, the tag that `git describe` finds need not either;
//! - before 0.28, `pyproject.toml` is not read; here it counts if `setup.cfg` has no section.
//!
//! Plain faults of older releases are not kept: `GIT_DIR` in the environment never counts (0.23), `tag_prefix` may be
//! left out, and all eight styles are known.
//!
//! # Where we differ
//!
//! - A branch's name that is not UTF-8 makes versioneer fail; here it is a branch that is not `master`.
//! - Tags that are not UTF-8, or that a style can't read, are errors with a hint in place of a traceback.
//! - A quotation mark in a tag makes the original write a file that Python can't read; see [`mod@file`].

pub mod config;
pub mod describe;
pub mod file;
pub mod git;
pub mod render;
pub mod source_file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use serde::Serialize;
use serde_json::Value;

use crate::config::ini::IniError;
use crate::error::Error;
use crate::hint;
use config::Configuration;
pub use git::ConfiguredProgram;
use git::Repository;
use render::Style;

/// A project that uses versioneer.
#[derive(Clone, Debug)]
pub struct Versioneer {
    root: PathBuf,
    release: Release,
    configuration: Configuration,
}

/// The release of a `versioneer.py`: its first two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u32, u32);

/// What versioneer's `get_versions()` returns: `version`, `full-revisionid`, `dirty`, `error` and `date`, or whatever
/// the JSON in `versionfile_source` holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Versions {
    values: BTreeMap<String, Value>,
    #[serde(skip)]
    refusal: Option<String>,
    #[serde(skip)]
    unrun: Vec<ConfiguredProgram>,
    #[serde(skip)]
    cut_off: bool,
}

/// Why there is no version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// A configuration file is there, but can't be read.
    #[error("{} can't be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// `setup.cfg` is not an INI file, or a `%(x)s` in it refers to nothing.
    #[error(transparent)]
    Ini(#[from] IniError),
    /// `pyproject.toml`, which has the configuration, is not TOML.
    #[error("{}:{line}: {message}", .path.display())]
    Toml {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// A value in `pyproject.toml` is not a string.
    #[error("{place}: this is not a string")]
    NotText {
        /// `pyproject.toml:3: [tool.versioneer] style`.
        place: String,
    },
    /// The section has no `VCS`.
    #[error("{place}: VCS is missing")]
    NoVcs {
        /// `setup.cfg:3: [versioneer]`.
        place: String,
        /// The line to add.
        line: &'static str,
    },
    /// A version control system other than git.
    #[error("{place}: {name:?} is not a version control system that versioneer knows")]
    Vcs {
        /// `setup.cfg:4: [versioneer] VCS`.
        place: String,
        name: String,
    },
    /// An unknown style.
    #[error("{place}: there is no style {name:?}")]
    Style {
        /// `setup.cfg:5: [versioneer] style`.
        place: String,
        name: String,
    },
    /// There is no number for `pep440-pre` to count up.
    #[error("style pep440-pre can't count up the tag {tag:?}: there is no number after .post")]
    PostRelease {
        /// The tag, without its prefix.
        tag: String,
    },
    /// git's output is not UTF-8: only a tag can be the reason.
    #[error("the nearest tag of {} is not UTF-8: {described:?}", .root.display())]
    Encoding {
        root: PathBuf,
        /// The output of `git describe`, as far as it can be shown.
        described: String,
    },
    /// The `version_json` of the source file is not a JSON object.
    #[error("{}: version_json holds no JSON object", .path.display())]
    Json {
        /// `versionfile_source`.
        path: PathBuf,
        /// Why; `None` if it is another kind of JSON.
        source: Option<serde_json::Error>,
    },
    /// git was stopped after this time.
    #[error("git {arguments} in {} takes longer than {seconds} seconds", .root.display())]
    Slow {
        root: PathBuf,
        arguments: String,
        /// The time limit.
        seconds: u64,
    },
    /// A signal ended git.
    #[error("git {arguments} in {} was stopped ({status})", .root.display())]
    Stopped {
        root: PathBuf,
        arguments: String,
        /// It names the signal.
        status: ExitStatus,
    },
    /// A filter that can't be disabled.
    #[error("{:?} in the configuration of the repository names a program that would be run in any case", .program.key)]
    Filter { program: ConfiguredProgram },
    /// The file can't be written.
    #[error("{} can't be written", .path.display())]
    Unwritable {
        /// `_version.py.bld`.
        path: PathBuf,
        source: io::Error,
    },
}

/// The file that the project's configuration names for its version, even if the configuration can't be read: the value
/// of the first line that looks like it.
pub fn source_mentioned(root: &Path) -> Option<String> {
    config::source_mentioned(root)
}

impl Versioneer {
    /// The versioneer of the project in the folder `root`; `None` if neither its `setup.cfg` nor its `pyproject.toml`
    /// configures one. As in the original, `None` also if `versionfile_source` is missing.
    ///
    /// # Errors
    /// A configuration that can't be read, or that versioneer would refuse.
    pub fn find(root: &Path) -> Result<Option<Self>, VersionError> {
        // versioneer uses the real path, to look for `parentdir_prefix`.
        let root = root.canonicalize().map_err(|source| VersionError::Unreadable {
            path: root.to_owned(),
            source,
        })?;
        let release = Release::of(&root);
        Ok(Configuration::read(&root, release)?.map(|configuration| Self {
            root,
            release,
            configuration,
        }))
    }

    /// The result of the project's `get_versions()`.
    ///
    /// # Errors
    /// All cases in which versioneer ends with an exception, except those in the module's documentation; and a git that
    /// takes too long.
    pub fn versions(&self) -> Result<Versions, VersionError> {
        let Configuration {
            versionfile_source,
            tag_prefix,
            parentdir_prefix,
            ..
        } = &self.configuration;
        let path = self.root.join(versionfile_source);
        if let Some(text) = source_file::read(&path) {
            if let Some(versions) = source_file::from_keywords(&text, tag_prefix, self.release) {
                return Ok(versions);
            }
            if let Some(versions) = source_file::from_json(&text, &path)? {
                return Ok(versions);
            }
        }
        let repository = Repository::around(&self.root)?;
        let refusal = match describe::pieces(&repository, tag_prefix, self.release)? {
            describe::DescribeResult::Pieces(pieces) => {
                let version = render::render(&pieces, self.style()?, self.release)?;
                let versions = Versions::new(version)
                    .revision(Some(pieces.long))
                    .dirty(Some(pieces.dirty))
                    .date(Some(pieces.date));
                return Ok(Versions {
                    cut_off: pieces.tag.is_none() && repository.is_shallow()?,
                    // If nothing was changed, it made no difference.
                    unrun: if pieces.dirty {
                        repository.unrun().to_vec()
                    } else {
                        Vec::new()
                    },
                    ..versions
                });
            }
            describe::DescribeResult::Unusable { revision, error } => {
                return Ok(Versions::new("unknown").revision(Some(revision)).error(&error));
            }
            describe::DescribeResult::Refused(refusal) => refusal,
        };
        let versions = match from_folders(&self.root, parentdir_prefix) {
            Some(version) => Versions::new(version).dirty(Some(false)),
            None => Versions::new("0+unknown").error("unable to compute version"),
        };
        Ok(Versions {
            refusal: Some(refusal),
            ..versions
        })
    }

    /// The path of the file that [`file::write`] writes.
    pub fn file(&self) -> PathBuf {
        self.root.join(file::VERSION_FILE)
    }

    /// The project's file with its version, `versionfile_source`, relative to the root.
    pub fn source(&self) -> &str {
        &self.configuration.versionfile_source
    }

    fn style(&self) -> Result<Style, VersionError> {
        let name = &self.configuration.style;
        Style::named(name).ok_or_else(|| VersionError::Style {
            place: self.configuration.style_place.clone(),
            name: name.clone(),
        })
    }
}

/// The untracked files and directories of a project that git ignores, each directory without its contents, relative to
/// this folder; empty if git can't list them.
pub fn ignored_by_git(root: &Path) -> BTreeSet<Vec<u8>> {
    git::ignored(root).unwrap_or_default()
}

/// Writes `_version.py.bld` for the project in the folder `root`, and returns its path; `None`, without writing, if the
/// project is not configured for versioneer.
///
/// # Errors
/// Those of [`Versioneer::find`] and [`Versioneer::versions`], and a file that can't be written. The old file stays
/// then.
pub fn write_version_file(root: &Path) -> Result<Option<PathBuf>, VersionError> {
    let Some(versioneer) = Versioneer::find(root)? else {
        return Ok(None);
    };
    let path = versioneer.file();
    file::write(&path, &versioneer.versions()?)?;
    Ok(Some(path))
}

/// The version in the name of the root's folder or of one of the two above it.
fn from_folders<'a>(root: &'a Path, prefix: &str) -> Option<std::borrow::Cow<'a, str>> {
    if prefix.is_empty() {
        return None;
    }
    root.ancestors().take(3).find_map(|folder| {
        let name = folder.file_name()?.to_string_lossy();
        Some(match name {
            std::borrow::Cow::Borrowed(name) => name.strip_prefix(prefix)?.into(),
            std::borrow::Cow::Owned(name) => name.strip_prefix(prefix)?.to_owned().into(),
        })
    })
}

impl Release {
    /// The release that is followed if the project does not name its own.
    pub const NEWEST: Self = Self(0, 29);

    /// The release of the `versioneer.py` in a folder.
    fn of(root: &Path) -> Self {
        crate::project_file::read(&root.join("versioneer.py"))
            .ok()
            .and_then(|text| Self::parse(&String::from_utf8_lossy(&text)))
            .unwrap_or(Self::NEWEST)
    }

    /// The release in the head of a `versioneer.py`, where versioneer's installer looks for it, too.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text.lines().take(7).find_map(|line| line.strip_prefix("# Version: "))?;
        let mut parts = number.trim().split(['.', '+']);
        let release = Self(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(release)
    }

    /// Whether a tag must continue with a digit after the prefix for `git describe` to find it.
    pub(crate) fn describes_digits(self) -> bool {
        self >= Self(0, 23)
    }

    /// Whether the tag of an archive must continue with a digit.
    pub(crate) fn archives_digits(self) -> bool {
        self >= Self(0, 20)
    }

    /// Whether `pep440-pre` counts up the `.postN` of a tag.
    pub(crate) fn counts_post_releases(self) -> bool {
        self >= Self(0, 21)
    }

    /// What `pep440-pre` puts before the distance.
    pub(crate) fn pre_mark(self) -> &'static str {
        if self >= Self(0, 19) { ".post0.dev" } else { ".post.dev" }
    }

    /// Whether this release reads `pyproject.toml`.
    pub(crate) fn reads_pyproject(self) -> bool {
        self >= Self(0, 28)
    }
}

impl Versions {
    fn new(version: impl Into<String>) -> Self {
        let mut values: BTreeMap<String, Value> = ["full-revisionid", "dirty", "error", "date"]
            .map(|key| (key.to_owned(), Value::Null))
            .into();
        values.insert("version".to_owned(), Value::String(version.into()));
        Self {
            values,
            refusal: None,
            unrun: Vec::new(),
            cut_off: false,
        }
    }

    fn revision(self, revision: Option<String>) -> Self {
        self.with("full-revisionid", revision.into())
    }

    fn dirty(self, dirty: Option<bool>) -> Self {
        self.with("dirty", dirty.into())
    }

    fn date(self, date: Option<String>) -> Self {
        self.with("date", date.into())
    }

    fn error(self, error: &str) -> Self {
        self.with("error", error.into())
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.values.insert(key.to_owned(), value);
        self
    }

    /// The version; empty if the JSON of the source file has no version.
    pub fn version(&self) -> &str {
        self.values.get("version").and_then(Value::as_str).unwrap_or_default()
    }

    /// Why the version is unknown.
    pub fn unknown(&self) -> Option<&str> {
        self.values.get("error").and_then(Value::as_str)
    }

    /// git's error, if it could not be asked; versioneer does not report it.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// The programs in the repository's own configuration that were not run, if that may be why files count as changed.
    pub fn unrun(&self) -> &[ConfiguredProgram] {
        &self.unrun
    }

    /// Whether no tag was found in a shallow clone: the full history may have one.
    pub const fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// All that `get_versions()` returns, sorted by name.
    pub const fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }
}

impl VersionError {
    /// The hint: an edit or a command.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { path, .. } => hint!("look at it: ls -l {}", path.display()),
            Self::Ini(error) => return error.hint(),
            Self::Toml { .. } => "correct it there, or put [versioneer] into setup.cfg".to_owned(),
            Self::NotText { .. } => "put it into quotation marks".to_owned(),
            Self::NoVcs { line, .. } => hint!("write {line} below it, or remove the section"; line = line),
            Self::Vcs { .. } => "git is the only one".to_owned(),
            Self::Style { name, .. } => {
                let names = Style::ALL.map(|(name, _)| name);
                match crate::naming::nearest(name, names) {
                    Some(near) => hint!("did you mean {}?", near),
                    None => hint!("it is one of {names}"; names = names.join(", ")),
                }
            }
            Self::PostRelease { .. } => "choose another style, or set another tag, such as 1.0.post1".to_owned(),
            Self::Encoding { .. } => "rename it: git tag NAME TAG && git tag -d TAG".to_owned(),
            Self::Json { path, .. } => hint!("git checkout -- {}, or write it again", path.display()),
            Self::Slow { root, .. } => hint!("see what takes so long: git -C {} status", root.display()),
            Self::Stopped { root, arguments, .. } => {
                hint!("see what it does: git -C {} {arguments}", root.display(); arguments = arguments)
            }
            Self::Filter { .. } => "look at .git/config, and remove it there".to_owned(),
            Self::Unwritable { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "run genversion where this checkout can be written to: a file that says the same version is left as it is"
                    .to_owned()
            }
            Self::Unwritable { path, .. } => hint!("see who may write there: ls -ld {}", folder(path).display()),
        })
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

impl From<VersionError> for Error {
    fn from(error: VersionError) -> Self {
        let converted = match &error {
            VersionError::Slow { .. } | VersionError::Stopped { .. } | VersionError::Unwritable { .. } => {
                Self::failed(error.to_string())
            }
            _ => Self::usage(error.to_string()),
        };
        let converted = match error.hint() {
            Some(hint) => converted.hint(hint),
            None => converted,
        };
        match error {
            VersionError::Unreadable { source, .. } | VersionError::Unwritable { source, .. } => {
                converted.because(source)
            }
            VersionError::Json {
                source: Some(source), ..
            } => converted.because(source),
            _ => converted,
        }
    }
}
