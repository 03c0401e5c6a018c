//! The INI dialect of Python's configparser, in which `dockerutils.cfg` is written.
//!
//! It reads what `configparser.ConfigParser()` reads (CPython 3.11, with `optionxform = str`, so that keys are
//! case-sensitive): the same sections, keys and values, and the same kinds of error. The differential test
//! `tests/configparser.rs` compares the two. [`KeyCase::WithoutCase`] is the dialect of `setup.cfg`. Reference:
//! <https://docs.python.org/3/library/configparser.html#supported-ini-file-structure>.
//!
//! ```
//! use std::path::Path;
//! use dockerutils_core::config::ini::Ini;
//!
//! let text = "[DEFAULT]\ndata = /data\n\n[dev]\nvolumes = -v %(data)s:/data\n    -v /tmp:/tmp\n";
//! let ini = Ini::parse(Path::new("docker/dockerutils.cfg"), text)?;
//! assert_eq!(
//!     ini.get("dev", "volumes")?.as_deref(),
//!     Some("-v /data:/data\n-v /tmp:/tmp")
//! );
//! # Ok::<(), dockerutils_core::config::ini::IniError>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// The section whose keys every other section inherits.
pub const DEFAULT_SECTION: &str = "DEFAULT";

/// How many values deep an expansion may go before it counts as endless: configparser's `MAX_INTERPOLATION_DEPTH`.
const MAX_DEPTH: usize = 10;

/// The most bytes of referenced text in one expansion. configparser has no such limit: ten keys of a few lines each
/// make it fill the memory. Linux accepts 128 KiB as one argument of a process, so no real value is near.
const MAX_EXPANSION: usize = 1 << 20;

/// A configuration file: sections of keys, each with its line.
#[derive(Clone, Debug)]
pub struct Ini {
    path: PathBuf,
    names: KeyCase,
    defaults: Section,
    sections: Vec<Section>,
}

/// How the names of keys are compared; names of sections are always case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCase {
    /// `optionxform = str`: as written.
    AsWritten,
    /// configparser's default: in lower case.
    WithoutCase,
}

impl KeyCase {
    fn of(self, key: &str) -> Cow<'_, str> {
        match self {
            Self::AsWritten => key.into(),
            Self::WithoutCase => key.to_lowercase().into(),
        }
    }
}

/// A section in file order. Lookups are linear: a file has tens of keys, and their order matters.
#[derive(Clone, Debug)]
struct Section {
    name: String,
    /// The line of the first header; `None` for a `DEFAULT` that the file doesn't have.
    line: Option<usize>,
    entries: Vec<IniEntry>,
}

#[derive(Clone, Debug)]
struct IniEntry {
    key: String,
    line: usize,
    value: String,
}

impl Ini {
    /// Parses `text`, the decoded contents of `path`, which is only named in errors.
    ///
    /// A byte order mark is a character like any other, as for Python's `open(path, encoding="utf-8")`.
    ///
    /// # Errors
    ///
    /// The first duplicate section, duplicate key or line before any section; failing these, all lines that are not
    /// part of the format, in one [`IniError::Parsing`]. Bad `%` forms are found by [`Ini::get`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, IniError> {
        Self::parse_names(path, text, KeyCase::AsWritten)
    }

    /// [`Ini::parse`] with another way of comparing keys.
    ///
    /// # Errors
    ///
    /// As [`Ini::parse`].
    pub fn parse_names(path: &Path, text: &str, names: KeyCase) -> Result<Self, IniError> {
        let mut parser = Parser::new(path, names);
        for (index, line) in lines(text).enumerate() {
            parser.line(index + 1, line)?;
        }
        parser.finish()
    }

    /// A file without sections, for a project without a `dockerutils.cfg`.
    pub fn empty(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            names: KeyCase::AsWritten,
            defaults: Section::new(DEFAULT_SECTION, None),
            sections: Vec::new(),
        }
    }

    /// The file this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the sections in file order, without `DEFAULT`.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|section| section.name.as_str())
    }

    /// Whether the file has this section. As in configparser, `DEFAULT` does not count.
    pub fn has_section(&self, section: &str) -> bool {
        self.sections().any(|name| name == section)
    }

    /// The keys that [`Ini::get`] finds in a section: its own, then those that only `DEFAULT` sets.
    pub fn keys(&self, section: &str) -> Vec<&str> {
        let Some(own) = self.section(section) else {
            return Vec::new();
        };
        let inherited = self.default_keys().filter(|(key, _)| own.entry(key).is_none());
        own.keys().chain(inherited).map(|(key, _)| key).collect()
    }

    /// The keys set in the section itself, each with its line.
    pub fn own_keys(&self, section: &str) -> impl Iterator<Item = (&str, usize)> {
        self.section(section).into_iter().flat_map(Section::keys)
    }

    /// The keys set in `DEFAULT`, each with its line.
    pub fn default_keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.defaults.keys()
    }

    /// The value of a key, its own or from `DEFAULT`, with `%(name)s` and `%%` replaced; `None` where there is no
    /// such section or key. `DEFAULT` is accepted as a section.
    ///
    /// # Errors
    ///
    /// The `Interpolation…` kinds of [`IniError`], placed at the key in whose value the text is written.
    pub fn get(&self, section: &str, key: &str) -> Result<Option<String>, IniError> {
        let Some((origin, entry)) = self.lookup(section, key) else {
            return Ok(None);
        };
        let mut expansion = Expansion {
            ini: self,
            section,
            asked: (origin, entry),
            trail: Vec::new(),
            text: String::new(),
            budget: MAX_EXPANSION,
        };
        expansion.append(origin, entry)?;
        Ok(Some(expansion.text))
    }

    /// The value of a key as written, its own or from `DEFAULT`.
    pub fn raw(&self, section: &str, key: &str) -> Option<&str> {
        self.lookup(section, key).map(|(_, entry)| entry.value.as_str())
    }

    /// The line that sets a key, in the section or in `DEFAULT`.
    pub fn line(&self, section: &str, key: &str) -> Option<usize> {
        self.lookup(section, key).map(|(_, entry)| entry.line)
    }

    /// The line of a section's header; for `DEFAULT`, which can have several, the first.
    pub fn section_line(&self, section: &str) -> Option<usize> {
        self.section(section)?.line
    }

    /// The names that `%(name)s` refers to anywhere in the values of a section and of `DEFAULT`: keys that may
    /// have no other use.
    pub fn references(&self, section: &str) -> BTreeSet<String> {
        self.section(section)
            .into_iter()
            .chain([&self.defaults])
            .flat_map(|section| &section.entries)
            .flat_map(|entry| Pieces(&entry.value))
            .filter_map(|piece| match piece {
                Piece::Reference(name) => Some(name.to_owned()),
                _ => None,
            })
            .collect()
    }

    fn section(&self, name: &str) -> Option<&Section> {
        if name == DEFAULT_SECTION {
            return Some(&self.defaults);
        }
        self.sections.iter().find(|section| section.name == name)
    }

    /// The entry that a key has in a section, and the section that holds it: this one or `DEFAULT`.
    fn lookup(&self, section: &str, key: &str) -> Option<(&Section, &IniEntry)> {
        let key = self.names.of(key);
        [self.section(section)?, &self.defaults]
            .into_iter()
            .find_map(|origin| Some((origin, origin.entry(&key)?)))
    }
}

impl Section {
    fn new(name: &str, line: Option<usize>) -> Self {
        Self {
            name: name.to_owned(),
            line,
            entries: Vec::new(),
        }
    }

    fn entry(&self, key: &str) -> Option<&IniEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), entry.line))
    }
}

/// The lines of a text with Python's universal newlines: `\n`, `\r\n` and a lone `\r` end one; U+0085, U+2028 and
/// form feeds don't. A line may be missing or empty at the very end, where the format ignores it.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// Spaces as in Python's `str.isspace` and `\s`: Unicode's White_Space and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// Reads a file line by line. It stops at errors that configparser raises at once; the others wait for the end.
struct Parser {
    ini: Ini,
    current: Current,
    /// Whether an indented or blank line belongs to the last key of the current section.
    continues: bool,
    /// The indentation of the last line that was not a continuation; a continuation is indented more than this.
    indent: usize,
    bad: Vec<BadLine>,
}

/// Where keys go. A named section is always the last one, since none can be opened twice.
enum Current {
    None,
    Defaults,
    Named,
}

struct BadLine {
    line: usize,
    section: String,
    text: String,
}

impl Parser {
    fn new(path: &Path, names: KeyCase) -> Self {
        Self {
            ini: Ini {
                names,
                ..Ini::empty(path)
            },
            current: Current::None,
            continues: false,
            indent: 0,
            bad: Vec::new(),
        }
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), IniError> {
        let text = line.trim_matches(is_space);
        if text.starts_with(['#', ';']) {
            return Ok(());
        }
        if text.is_empty() {
            self.continue_value("");
            return Ok(());
        }
        let indent = line.chars().take_while(|&c| is_space(c)).count();
        if indent > self.indent && self.continue_value(text) {
            return Ok(());
        }
        self.indent = indent;
        match header(text) {
            Some(name) => self.open_section(number, name),
            None => self.set(number, text),
        }
    }

    /// Adds a line to the value that is being read, if there is one.
    fn continue_value(&mut self, text: &str) -> bool {
        if !self.continues {
            return false;
        }
        let Some(entry) = self.section().and_then(|section| section.entries.last_mut()) else {
            return false;
        };
        entry.value.push('\n');
        entry.value.push_str(text);
        true
    }

    fn open_section(&mut self, line: usize, name: &str) -> Result<(), IniError> {
        // A section never begins with a continuation, however deep its first key is indented.
        self.continues = false;
        if name == DEFAULT_SECTION {
            self.ini.defaults.line.get_or_insert(line);
            self.current = Current::Defaults;
            return Ok(());
        }
        if let Some(first) = self.ini.section_line(name) {
            return Err(IniError::DuplicateSection {
                at: self.place(line, Some(name), None),
                first,
            });
        }
        self.ini.sections.push(Section::new(name, Some(line)));
        self.current = Current::Named;
        Ok(())
    }

    fn set(&mut self, line: usize, text: &str) -> Result<(), IniError> {
        let names = self.ini.names;
        let Some(section) = self.section() else {
            return Err(IniError::MissingSectionHeader {
                at: self.place(line, None, None),
                text: excerpt(text),
            });
        };
        let Some((key, value)) = text.split_once(['=', ':']) else {
            // The key before can still be continued, as in configparser.
            self.reject(line, text);
            return Ok(());
        };
        let key = names.of(key.trim_end_matches(is_space));
        if let Some(first) = section.entry(&key).map(|entry| entry.line) {
            let section = section.name.clone();
            return Err(IniError::DuplicateOption {
                at: self.place(line, Some(&section), Some(&key)),
                first,
            });
        }
        let has_key = !key.is_empty();
        // Also if the key is empty, which is an error: a second one is a duplicate all the same.
        section.entries.push(IniEntry {
            key: key.into_owned(),
            line,
            value: value.trim_start_matches(is_space).to_owned(),
        });
        self.continues = has_key;
        if !has_key {
            self.reject(line, text);
        }
        Ok(())
    }

    fn reject(&mut self, line: usize, text: &str) {
        let section = self.section().map(|section| section.name.clone()).unwrap_or_default();
        self.bad.push(BadLine {
            line,
            section,
            text: excerpt(text),
        });
    }

    fn finish(mut self) -> Result<Ini, IniError> {
        let mut bad = self.bad.into_iter();
        if let Some(first) = bad.next() {
            return Err(IniError::Parsing {
                at: Box::new(ConfigLocation {
                    path: self.ini.path,
                    line: first.line,
                    section: Some(first.section),
                    key: None,
                }),
                text: first.text,
                others: bad.map(|bad| bad.line).collect(),
            });
        }
        let sections = self.ini.sections.iter_mut().chain([&mut self.ini.defaults]);
        for entry in sections.flat_map(|section| &mut section.entries) {
            let end = entry.value.trim_end_matches(is_space).len();
            entry.value.truncate(end);
        }
        Ok(self.ini)
    }

    fn section(&mut self) -> Option<&mut Section> {
        match self.current {
            Current::None => None,
            Current::Defaults => Some(&mut self.ini.defaults),
            Current::Named => self.ini.sections.last_mut(),
        }
    }

    fn place(&self, line: usize, section: Option<&str>, key: Option<&str>) -> Box<ConfigLocation> {
        Box::new(ConfigLocation {
            path: self.ini.path.clone(),
            line,
            section: section.map(str::to_owned),
            key: key.map(str::to_owned),
        })
    }
}

/// The name in `[name]`, up to the last bracket; what follows that is ignored.
fn header(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('[')?.rsplit_once(']')?;
    (!name.is_empty()).then_some(name)
}

/// One part of a value as written.
enum Piece<'a> {
    Text(&'a str),
    /// `%%`
    Percent,
    /// `%(name)s`
    Reference(&'a str),
    /// A `%` that begins neither, with what follows it.
    Stray(&'a str),
}

/// The pieces of the rest of a value.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (text, rest) = self.0.split_at(self.0.find('%').unwrap_or(self.0.len()));
        if !text.is_empty() {
            self.0 = rest;
            return Some(Piece::Text(text));
        }
        let after = rest.strip_prefix('%')?;
        let (piece, rest) = if let Some(rest) = after.strip_prefix('%') {
            (Piece::Percent, rest)
        } else if let Some((name, rest)) = reference(after) {
            (Piece::Reference(name), rest)
        } else {
            (Piece::Stray(rest), after)
        };
        self.0 = rest;
        Some(piece)
    }
}

/// Splits what follows a `%` into the name of a reference and the rest.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix('(')?.split_once(')')?;
    let rest = rest.strip_prefix('s')?;
    (!name.is_empty()).then_some((name, rest))
}

/// The expansion of one value, seen from one section: names are looked up there, wherever the value is written.
struct Expansion<'a> {
    ini: &'a Ini,
    section: &'a str,
    asked: (&'a Section, &'a IniEntry),
    /// The keys from the requested one to the one being read.
    trail: Vec<&'a str>,
    text: String,
    /// How many more bytes of referenced text are allowed. Each reference costs one more, so that empty values that
    /// refer to each other end, too.
    budget: usize,
}

impl<'a> Expansion<'a> {
    fn append(&mut self, origin: &'a Section, entry: &'a IniEntry) -> Result<(), IniError> {
        self.trail.push(&entry.key);
        if self.trail.len() > MAX_DEPTH && entry.value.contains('%') {
            return Err(IniError::InterpolationDepth {
                at: self.asked(),
                trail: self.trail.iter().map(|&key| key.to_owned()).collect(),
            });
        }
        for piece in Pieces(&entry.value) {
            match piece {
                Piece::Text(text) => self.text.push_str(text),
                Piece::Percent => self.text.push('%'),
                Piece::Reference(name) => {
                    let Some((origin, referred)) = self.ini.lookup(self.section, name) else {
                        return Err(IniError::InterpolationMissingOption {
                            at: self.place(origin, entry),
                            section: self.section.to_owned(),
                            missing: name.to_owned(),
                        });
                    };
                    self.budget = self
                        .budget
                        .checked_sub(referred.value.len() + 1)
                        .ok_or_else(|| IniError::InterpolationSize { at: self.asked() })?;
                    self.append(origin, referred)?;
                }
                Piece::Stray(rest) => {
                    return Err(IniError::InterpolationSyntax {
                        at: self.place(origin, entry),
                        text: excerpt(rest),
                    });
                }
            }
        }
        self.trail.pop();
        Ok(())
    }

    /// Errors from many values together are placed at the key that the caller requested.
    fn asked(&self) -> Box<ConfigLocation> {
        let (origin, entry) = self.asked;
        self.place(origin, entry)
    }

    fn place(&self, origin: &Section, entry: &IniEntry) -> Box<ConfigLocation> {
        Box::new(ConfigLocation {
            path: self.ini.path.clone(),
            line: entry.line,
            section: Some(origin.name.clone()),
            key: Some(entry.key.clone()),
        })
    }
}

/// The beginning of a text, enough to recognise it in the file.
fn excerpt(text: &str) -> String {
    const LENGTH: usize = 40;
    let mut chars = text.lines().next().unwrap_or_default().chars();
    let mut excerpt: String = chars.by_ref().take(LENGTH).collect();
    if chars.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

/// Where in a file an error is. Displayed as `path:line: [section] key`, as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLocation {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; for an error in a value, that of its key.
    pub line: usize,
    /// The section, if the file had one by then.
    pub section: Option<String>,
    /// The key, if the error is about one.
    pub key: Option<String>,
}

impl fmt::Display for ConfigLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)?;
        if let Some(section) = &self.section {
            write!(f, ": [{section}]")?;
        }
        match self.key.as_deref() {
            Some("") => write!(f, " (a key without a name)"),
            Some(key) => write!(f, " {key}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a configuration file. The kinds are configparser's, except [`IniError::InterpolationSize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IniError {
    /// A section that the file has already.
    #[error("{at}: the section is already in line {first}")]
    DuplicateSection {
        /// The second header.
        at: Box<ConfigLocation>,
        /// The line of the first.
        first: usize,
    },
    /// A key that its section has already.
    #[error("{at}: the key is already set in line {first}")]
    DuplicateOption {
        /// The second setting.
        at: Box<ConfigLocation>,
        /// The line of the first.
        first: usize,
    },
    /// A line before any section.
    #[error("{at}: {text:?} stands before the first [section]")]
    MissingSectionHeader { at: Box<ConfigLocation>, text: String },
    /// Lines that are neither a section, nor a key with a value, nor part of a value.
    #[error("{at}: {text:?} is neither a [section] nor key = value{}", and_lines(others))]
    Parsing {
        /// The first such line.
        at: Box<ConfigLocation>,
        text: String,
        /// The other such lines.
        others: Vec<usize>,
    },
    /// A `%` that begins neither `%%` nor `%(name)s`.
    #[error("{at}: {text:?}: a % must begin %% or %(name)s")]
    InterpolationSyntax {
        /// The key in whose value it is.
        at: Box<ConfigLocation>,
        /// The text from the `%` on, shortened.
        text: String,
    },
    /// A reference to a key that isn't there.
    #[error("{at}: \"%({missing})s\" refers to {missing}, which is {}", unset_in(section))]
    InterpolationMissingOption {
        /// The key in whose value it is.
        at: Box<ConfigLocation>,
        /// The section in which it was looked up; not the key's own if the key is in `DEFAULT`.
        section: String,
        /// The name.
        missing: String,
    },
    /// References that are nested more than ten deep; nearly always a circle.
    #[error("{at}: {}", endless(trail))]
    InterpolationDepth {
        /// The requested key.
        at: Box<ConfigLocation>,
        /// The keys that refer to each other, from the requested one.
        trail: Vec<String>,
    },
    /// References that make a value of more than 1 MiB.
    #[error("{at}: the references make a value of more than {} MiB", MAX_EXPANSION >> 20)]
    InterpolationSize {
        /// The requested key.
        at: Box<ConfigLocation>,
    },
}

impl IniError {
    /// Where the error is.
    pub fn place(&self) -> &ConfigLocation {
        match self {
            Self::DuplicateSection { at, .. }
            | Self::DuplicateOption { at, .. }
            | Self::MissingSectionHeader { at, .. }
            | Self::Parsing { at, .. }
            | Self::InterpolationSyntax { at, .. }
            | Self::InterpolationMissingOption { at, .. }
            | Self::InterpolationDepth { at, .. }
            | Self::InterpolationSize { at } => at,
        }
    }

    /// The edit that helps.
    pub fn hint(&self) -> Option<String> {
        let line = self.place().line;
        let key = self.place().key.as_deref().unwrap_or_default();
        Some(match self {
            Self::DuplicateSection { first, .. } => {
                format!("remove line {line} and move the keys below it to the section in line {first}")
            }
            Self::DuplicateOption { first, .. } => {
                format!("remove line {line} or line {first}")
            }
            Self::MissingSectionHeader { text, .. } if text.starts_with('\u{feff}') => {
                "save the file as UTF-8 without a byte order mark".to_owned()
            }
            Self::MissingSectionHeader { .. } => {
                format!("put a section before line {line}, such as [run_image], or begin the line with #")
            }
            Self::Parsing { text, .. } if text.starts_with('[') => {
                let name = match text.trim_matches(['[', ']']) {
                    "" => "name",
                    name => name,
                };
                format!("write line {line} as [{name}]")
            }
            Self::Parsing { text, .. } if text.starts_with(['=', ':']) => {
                format!("write a key at the beginning of line {line}")
            }
            Self::Parsing { .. } => {
                format!("write line {line} as key = value, or indent it to continue the value above it")
            }
            Self::InterpolationSyntax { text, .. } if text.starts_with("%(") => {
                format!("in {key}, write %(name)s to refer to another key, or %%( for the text itself")
            }
            Self::InterpolationSyntax { .. } => format!("in {key}, write %% for a percent sign"),
            Self::InterpolationMissingOption { section, missing, .. } => {
                format!("set {missing} in [{section}], or write %%({missing})s for the text itself")
            }
            Self::InterpolationDepth { trail, .. } => {
                let key = trail.last().map_or(key, String::as_str);
                format!("write out the value of {key} instead of a %(name)s in it")
            }
            Self::InterpolationSize { .. } => {
                format!("use fewer %(name)s in {key} and in the keys that it refers to")
            }
        })
    }
}

fn and_lines(others: &[usize]) -> String {
    match others {
        [] => String::new(),
        [line] => format!("; nor is line {line}"),
        lines => {
            let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
            format!("; nor are lines {}", lines.join(", "))
        }
    }
}

fn endless(trail: &[String]) -> String {
    let circle = trail.iter().enumerate().find_map(|(at, key)| {
        trail
            .get(..at)
            .filter(|before| before.contains(key))
            .and(trail.get(..=at))
    });
    match circle {
        Some(circle) => format!("the references go in a circle: {}", circle.join(" -> ")),
        None => format!("the references go more than {MAX_DEPTH} deep: {}", trail.join(" -> ")),
    }
}

fn unset_in(section: &str) -> String {
    if section == DEFAULT_SECTION {
        "not set in [DEFAULT]".to_owned()
    } else {
        format!("set neither in [{section}] nor in [DEFAULT]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATH: &str = "docker/dockerutils.cfg";

    fn parse(text: &str) -> Ini {
        Ini::parse(Path::new(PATH), text).expect("legal file")
    }

    fn parse_error(text: &str) -> IniError {
        Ini::parse(Path::new(PATH), text).expect_err("illegal file")
    }

    fn get_error(text: &str, key: &str) -> IniError {
        parse(text).get("dev", key).expect_err("illegal value")
    }

    fn told(error: &IniError) -> (String, String) {
        (error.to_string(), error.hint().expect("a hint"))
    }

    #[test]
    fn names_of_keys_have_case_or_none() {
        let text = "[DEFAULT]\nDir = src\n[a]\nFile = %(dIR)s/x\n";
        let read = |text, names| Ini::parse_names(Path::new("setup.cfg"), text, names);
        let ini = read(text, KeyCase::WithoutCase).unwrap();
        assert_eq!(ini.get("a", "FILE").unwrap().as_deref(), Some("src/x"));
        assert_eq!(ini.keys("a"), ["file", "dir"]);
        assert!(read(text, KeyCase::AsWritten).unwrap().get("a", "File").is_err());
        let twice = "[a]\nb = 1\nB = 2\n";
        assert!(read(twice, KeyCase::AsWritten).is_ok() && read(twice, KeyCase::WithoutCase).is_err());
    }

    #[test]
    fn keys_inherit_and_keep_their_order() {
        let ini = parse("[DEFAULT]\nb = 1\nz = 2\n[dev]\nz = 3\na: 4\n[test]\n");
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["dev", "test"]);
        assert_eq!(ini.keys("dev"), ["z", "a", "b"]);
        assert_eq!(ini.own_keys("dev").collect::<Vec<_>>(), [("z", 5), ("a", 6)]);
        assert_eq!(ini.default_keys().collect::<Vec<_>>(), [("b", 2), ("z", 3)]);
        assert_eq!(ini.keys("test"), ["b", "z"]);
        assert_eq!(ini.get("test", "z"), Ok(Some("2".to_owned())));
        assert_eq!(ini.get("dev", "z"), Ok(Some("3".to_owned())));
        assert_eq!(ini.get("dev", "B"), Ok(None), "keys are case-sensitive");
        assert_eq!(ini.get("none", "b"), Ok(None), "nothing is inherited without a section");
        assert_eq!(ini.raw("DEFAULT", "b"), Some("1"));
        assert!(!ini.has_section("DEFAULT"));
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let ini = parse("# one\r\n[DEFAULT]\rb = 1\n[dev]\n\na = x\n  y\nc = z\n[DEFAULT]\nd = 1\n");
        assert_eq!(ini.section_line("DEFAULT"), Some(2));
        assert_eq!(ini.section_line("dev"), Some(4));
        assert_eq!(ini.section_line("none"), None);
        assert_eq!(ini.line("dev", "a"), Some(6));
        assert_eq!(ini.line("dev", "c"), Some(8));
        assert_eq!(ini.line("dev", "b"), Some(3));
        assert_eq!(ini.line("dev", "d"), Some(10));
        assert_eq!(parse("[dev]\n").section_line("DEFAULT"), None);
    }

    #[test]
    fn values_span_lines() {
        let ini = parse("[dev]\nvolumes =\n  -v a:b\n\n  # why\n  -v c:d\n\nargs = -x # kept\n");
        assert_eq!(ini.raw("dev", "volumes"), Some("\n-v a:b\n\n-v c:d"));
        assert_eq!(ini.raw("dev", "args"), Some("-x # kept"));
    }

    #[test]
    fn references_are_found_whether_or_not_they_can_be_followed() {
        let ini = parse("[DEFAULT]\nx = %(y)s\n[dev]\na = %%(no)s %(b)s % %(c)s\n");
        let names: Vec<String> = ini.references("dev").into_iter().collect();
        assert_eq!(names, ["b", "c", "y"]);
    }

    #[test]
    fn a_missing_key_is_told_where_it_is_written() {
        assert_eq!(
            told(&get_error("[dev]\nvolumes = %(hme)s\n", "volumes")),
            (
                format!(
                    "{PATH}:2: [dev] volumes: \"%(hme)s\" refers to hme, which is set neither in [dev] nor in [DEFAULT]"
                ),
                "set hme in [dev], or write %%(hme)s for the text itself".to_owned()
            )
        );
        let error = get_error("[DEFAULT]\nx = %(y)s\n[dev]\na = %(x)s\n", "a");
        assert_eq!(
            error.to_string(),
            format!("{PATH}:2: [DEFAULT] x: \"%(y)s\" refers to y, which is set neither in [dev] nor in [DEFAULT]")
        );
    }

    #[test]
    fn stray_percent_signs_are_told() {
        assert_eq!(
            told(&get_error("[dev]\na = 50% off\n", "a")),
            (
                format!("{PATH}:2: [dev] a: \"% off\": a % must begin %% or %(name)s"),
                "in a, write %% for a percent sign".to_owned()
            )
        );
        let hint = get_error("[dev]\na = %(b\n", "a").hint();
        assert_eq!(
            hint.as_deref(),
            Some("in a, write %(name)s to refer to another key, or %%( for the text itself")
        );
    }

    #[test]
    fn circles_end() {
        let (message, hint) = told(&get_error("[dev]\na = %(b)s\nb = %(a)s\n", "a"));
        assert_eq!(
            message,
            format!("{PATH}:2: [dev] a: the references go in a circle: a -> b -> a")
        );
        assert_eq!(hint, "write out the value of a instead of a %(name)s in it");
    }

    #[test]
    fn ten_references_deep_is_legal() {
        let chain = |length: usize| -> String {
            let links: String = (0..length).map(|n| format!("k{n} = %(k{})s\n", n + 1)).collect();
            format!("[dev]\n{links}k{length} = end\n")
        };
        assert_eq!(parse(&chain(10)).get("dev", "k0"), Ok(Some("end".to_owned())));
        assert!(matches!(
            get_error(&chain(11), "k0"),
            IniError::InterpolationDepth { .. }
        ));
    }

    #[test]
    fn expansions_are_bounded_in_size_and_time() {
        let doubling = |leaf: &str| -> String {
            let levels: String = (0..9)
                .map(|n| format!("k{n} = {}\n", format!("%(k{})s", n + 1).repeat(16)))
                .collect();
            format!("[dev]\n{levels}k9 = {leaf}\n")
        };
        for leaf in ["lol", ""] {
            let (message, _) = told(&get_error(&doubling(leaf), "k0"));
            assert_eq!(
                message,
                format!("{PATH}:2: [dev] k0: the references make a value of more than 1 MiB")
            );
        }
    }

    #[test]
    fn duplicates_name_both_lines() {
        assert_eq!(
            told(&parse_error("[dev]\na = 1\n[dev]\n")),
            (
                format!("{PATH}:3: [dev]: the section is already in line 1"),
                "remove line 3 and move the keys below it to the section in line 1".to_owned()
            )
        );
        assert_eq!(
            told(&parse_error("[dev]\na = 1\nb = 2\na : 3\n")),
            (
                format!("{PATH}:4: [dev] a: the key is already set in line 2"),
                "remove line 4 or line 2".to_owned()
            )
        );
    }

    #[test]
    fn lines_outside_the_format_are_told_together() {
        assert_eq!(
            told(&parse_error("[dev]\nvolumes\na = 1\nports\n")),
            (
                format!("{PATH}:2: [dev]: \"volumes\" is neither a [section] nor key = value; nor is line 4"),
                "write line 2 as key = value, or indent it to continue the value above it".to_owned()
            )
        );
        let hint = |text| parse_error(text).hint().expect("a hint");
        assert_eq!(hint("[dev]\n[test\n"), "write line 2 as [test]");
        assert_eq!(hint("[dev]\n[]\n"), "write line 2 as [name]");
        assert_eq!(hint("[dev]\n= 1\n"), "write a key at the beginning of line 2");
    }

    #[test]
    fn lines_before_any_section_are_told() {
        let (message, hint) = told(&parse_error("a = 1\n"));
        assert_eq!(
            message,
            format!("{PATH}:1: \"a = 1\" stands before the first [section]")
        );
        assert_eq!(
            hint,
            "put a section before line 1, such as [run_image], or begin the line with #"
        );
        let (_, hint) = told(&parse_error("\u{feff}[dev]\n"));
        assert_eq!(hint, "save the file as UTF-8 without a byte order mark");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|[\\[\\]=:%()s \n\r\t#;])*") {
            if let Ok(ini) = Ini::parse(Path::new(PATH), &text) {
                for section in ini.sections() {
                    for key in ini.keys(section) {
                        prop_assert!(ini.line(section, key).is_some());
                        if let Err(error) = ini.get(section, key) {
                            prop_assert!(error.hint().is_some());
                        }
                    }
                }
            }
        }
    }
}
