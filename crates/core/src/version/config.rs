//! A project's settings for versioneer: `[tool.versioneer]` in `pyproject.toml`, else `[versioneer]` in `setup.cfg`.
//!
//! Read as versioneer 0.29 reads them: if `pyproject.toml` lacks the table, has an empty one, or is broken TOML,
//! `setup.cfg` is read, whose keys are compared without case. `versionfile_build` and `verbose` are for Python only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Release, VersionError};
use crate::config::ini::{Ini, KeyCase};

const PYPROJECT: &str = "pyproject.toml";
const SETUP_CFG: &str = "setup.cfg";

/// The keys that are read.
const KEYS: [&str; 5] = ["VCS", "style", "versionfile_source", "tag_prefix", "parentdir_prefix"];

/// The settings of versioneer, with paths relative to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// The name of a style; empty for the default.
    pub style: String,
    /// Where the style is written, for errors: `setup.cfg:5: [versioneer] style`.
    pub style_place: String,
    /// The file with the version if there is no git.
    pub versionfile_source: String,
    /// The beginning of tags that are versions; empty for any.
    pub tag_prefix: String,
    /// The beginning of the root folder's name, if there is no git; empty if the name has no version.
    pub parentdir_prefix: String,
}

/// The section for versioneer in one of the two files.
#[derive(Clone, Debug)]
pub struct Section {
    file: &'static str,
    header: &'static str,
    line: Option<usize>,
    /// The line that says that the project uses git.
    vcs_line: &'static str,
    values: BTreeMap<&'static str, (String, Option<usize>)>,
}

impl Configuration {
    /// The configuration of the project in the folder `root`; `None` if no file has a section for versioneer, or the
    /// section has no `versionfile_source`, which the original treats alike.
    ///
    /// # Errors
    /// Files that can't be read, a `VCS` that is missing or not `git`.
    pub fn read(root: &Path, release: Release) -> Result<Option<Self>, VersionError> {
        let setup_cfg = || {
            let Some(text) = read(root, SETUP_CFG)? else {
                return Ok(None);
            };
            match Section::of_setup_cfg(&text) {
                // A broken file does not matter to a project without versioneer: other programs keep their settings
                // there.
                Err(VersionError::Ini(_)) if !text.to_lowercase().contains("versioneer") => Ok(None),
                section => section,
            }
        };
        if !release.reads_pyproject()
            && let Some(section) = setup_cfg()?
        {
            return section.configuration();
        }
        let mut broken = None;
        if let Some(text) = read(root, PYPROJECT)? {
            match Section::of_pyproject(&text) {
                Ok(Some(section)) => return section.configuration(),
                Ok(None) => {}
                // Broken TOML matters only if the section may be in it, and is not in setup.cfg.
                Err(error @ VersionError::Toml { .. }) => broken = text.contains("versioneer").then_some(error),
                Err(error) => return Err(error),
            }
        }
        match (setup_cfg()?, broken) {
            (Some(section), _) => section.configuration(),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }
}

/// See [`super::source_mentioned`].
pub(super) fn source_mentioned(root: &Path) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(['=', ':'])?;
        let is_key = key.trim().eq_ignore_ascii_case("versionfile_source");
        let value = value.trim().trim_matches(['"', '\'']);
        (is_key && !value.is_empty()).then(|| value.to_owned())
    };
    [PYPROJECT, SETUP_CFG].into_iter().find_map(|name| {
        let text = read(root, name).ok().flatten()?;
        text.lines().find_map(value)
    })
}

impl Section {
    /// The table `tool.versioneer` in the text of a `pyproject.toml`, unless it is empty.
    ///
    /// # Errors
    /// Broken TOML, and a value that is not a string.
    pub fn of_pyproject(text: &str) -> Result<Option<Self>, VersionError> {
        let document = DeTable::parse(text).map_err(|error| VersionError::Toml {
            path: PathBuf::from(PYPROJECT),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        })?;
        let found = table(document.get_ref(), "tool").and_then(|tool| table(tool, "versioneer"));
        let Some(table) = found.filter(|table| !table.is_empty()) else {
            return Ok(None);
        };
        let mut section = Self {
            file: PYPROJECT,
            header: "[tool.versioneer]",
            line: None,
            vcs_line: "VCS = \"git\"",
            values: BTreeMap::new(),
        };
        for key in KEYS {
            let Some((written, value)) = table.get_key_value(key) else {
                continue;
            };
            let line = line_of(text, written.span().start);
            section.line.get_or_insert(line);
            match value.get_ref() {
                DeValue::String(value) => section.values.insert(key, (value.to_string(), Some(line))),
                _ => {
                    return Err(VersionError::NotText {
                        place: format!("{PYPROJECT}:{line}: [tool.versioneer] {key}"),
                    });
                }
            };
        }
        Ok(Some(section))
    }

    /// The section `versioneer` in the text of a `setup.cfg`.
    ///
    /// # Errors
    /// Text that configparser would refuse.
    pub fn of_setup_cfg(text: &str) -> Result<Option<Self>, VersionError> {
        let ini = Ini::parse_names(Path::new(SETUP_CFG), text, KeyCase::WithoutCase)?;
        if !ini.has_section("versioneer") {
            return Ok(None);
        }
        let mut section = Self {
            file: SETUP_CFG,
            header: "[versioneer]",
            line: ini.section_line("versioneer"),
            vcs_line: "VCS = git",
            values: BTreeMap::new(),
        };
        for key in KEYS {
            if let Some(value) = ini.get("versioneer", key)? {
                section.values.insert(key, (value, ini.line("versioneer", key)));
            }
        }
        Ok(Some(section))
    }

    /// The section's settings; `None` without a `versionfile_source`.
    ///
    /// # Errors
    /// A `VCS` that is missing or not `git`.
    pub fn configuration(mut self) -> Result<Option<Configuration>, VersionError> {
        match self.values.get("VCS") {
            Some((name, _)) if name == "git" => {}
            Some((name, _)) => {
                return Err(VersionError::Vcs {
                    place: self.place("VCS"),
                    name: name.clone(),
                });
            }
            None => {
                return Err(VersionError::NoVcs {
                    place: self.place(""),
                    line: self.vcs_line,
                });
            }
        }
        let style_place = self.place("style");
        let mut take = |key| self.values.remove(key).map(|(value, _)| value);
        let Some(versionfile_source) = take("versionfile_source") else {
            return Ok(None);
        };
        Ok(Some(Configuration {
            style: take("style").unwrap_or_default(),
            style_place,
            versionfile_source,
            // An INI file can't show where an empty value ends, so people write two quotation marks.
            tag_prefix: take("tag_prefix")
                .filter(|prefix| prefix != "''" && prefix != "\"\"")
                .unwrap_or_default(),
            parentdir_prefix: take("parentdir_prefix").unwrap_or_default(),
        }))
    }

    /// `setup.cfg:5: [versioneer] style`; without a key, the section's own place.
    fn place(&self, key: &str) -> String {
        let (file, header) = (self.file, self.header);
        let line = self.values.get(key).map_or(self.line, |(_, line)| *line);
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{file}{line}: {header} {key}").trim_end().to_owned()
    }
}

fn table<'a, 'i>(parent: &'a DeTable<'i>, key: &str) -> Option<&'a DeTable<'i>> {
    match parent.get(key)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// The text of a file of the root; `None` if it does not exist.
///
/// Bytes that are not UTF-8 become U+FFFD: most keys are not for us, and a file in Latin-1 must not stop a build.
fn read(root: &Path, name: &str) -> Result<Option<String>, VersionError> {
    match crate::project_file::read(&root.join(name)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(VersionError::Unreadable {
            path: root.join(name),
            source,
        }),
    }
}

/// The line, counted from 1, of the byte `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &str = "[versioneer]\nVCS = git\nstyle = pep440\nversionfile_source = src/_version.py\n";

    fn setup_cfg(text: &str) -> Result<Option<Configuration>, VersionError> {
        Section::of_setup_cfg(text)?.map_or(Ok(None), Section::configuration)
    }

    fn pyproject(text: &str) -> Result<Option<Configuration>, VersionError> {
        Section::of_pyproject(text)?.map_or(Ok(None), Section::configuration)
    }

    #[test]
    fn both_files_say_the_same() {
        let ini = setup_cfg(&format!("{COMPLETE}tag_prefix = v\nparentdir_prefix = sample-\n"))
            .unwrap()
            .unwrap();
        let toml = pyproject(
            "[tool.versioneer]\nVCS = 'git'\nstyle = \"pep440\"\nversionfile_source = 'src/_version.py'\n\
             tag_prefix = 'v'\nparentdir_prefix = 'sample-'\n",
        )
        .unwrap()
        .unwrap();
        assert_eq!(ini.style_place, "setup.cfg:3: [versioneer] style");
        assert_eq!(toml.style_place, "pyproject.toml:3: [tool.versioneer] style");
        assert_eq!(
            Configuration {
                style_place: String::new(),
                ..ini
            },
            Configuration {
                style_place: String::new(),
                ..toml
            }
        );
    }

    #[test]
    fn an_empty_prefix_has_four_forms() {
        for prefix in ["", "tag_prefix =\n", "tag_prefix = ''\n", "tag_prefix = \"\"\n"] {
            let found = setup_cfg(&format!("{COMPLETE}{prefix}")).unwrap().unwrap();
            assert_eq!(found.tag_prefix, "", "{prefix}");
        }
    }

    #[test]
    fn keys_of_setup_cfg_have_no_case_and_inherit() {
        let found = setup_cfg("[DEFAULT]\nNAME = src\n[versioneer]\nvcs = git\nVersionFile_Source = %(Name)s/v.py\n");
        assert_eq!(found.unwrap().unwrap().versionfile_source, "src/v.py");
    }

    #[test]
    fn no_section_and_no_source_file_are_no_versioneer() {
        assert_eq!(setup_cfg("[metadata]\nname = x\n").unwrap(), None);
        assert_eq!(setup_cfg("[versioneer]\nVCS = git\n").unwrap(), None);
        for text in ["", "[tool]\nversioneer = 1\n", "tool = 'x'\n", "[tool.versioneer]\n"] {
            assert!(Section::of_pyproject(text).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn errors_name_file_line_section_and_key() {
        let said = |result: Result<Option<Configuration>, VersionError>| result.unwrap_err().to_string();
        assert_eq!(
            said(setup_cfg("\n[versioneer]\n#VCS = git\n")),
            "setup.cfg:2: [versioneer]: VCS is missing"
        );
        assert_eq!(
            said(setup_cfg("[versioneer]\nVCS = hg\n")),
            "setup.cfg:2: [versioneer] VCS: \"hg\" is not a version control system that versioneer knows"
        );
        assert_eq!(
            said(pyproject("[tool.versioneer]\nVCS = 'git'\ntag_prefix = 1\n")),
            "pyproject.toml:3: [tool.versioneer] tag_prefix: this is not a string"
        );
        assert!(said(pyproject("a = 1\nb = \n")).starts_with("pyproject.toml:2: "));
    }

    #[test]
    fn a_broken_file_that_says_nothing_of_versioneer_is_no_matter_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let read = || Configuration::read(folder.path(), Release(0, 29));
        write(SETUP_CFG, "[metadata]\nthis is no line\n");
        assert_eq!(read().unwrap(), None);
        write(
            SETUP_CFG,
            "[metadata]\nthis is no line\n[versioneer]\nVCS = git\nVersionfile_Source : src/_version.py\n",
        );
        assert!(read().unwrap_err().to_string().starts_with("setup.cfg:2"));
        assert_eq!(source_mentioned(folder.path()).as_deref(), Some("src/_version.py"));
        write(PYPROJECT, "[tool.versioneer]\nversionfile_source = 'pkg/v.py'\n");
        assert_eq!(source_mentioned(folder.path()).as_deref(), Some("pkg/v.py"));
    }
}
