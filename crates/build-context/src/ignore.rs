//! `.dockerignore`: reading it and matching paths with it, exactly as the Docker client does.
//!
//! The rules are those of `github.com/moby/patternmatcher` and its `ignorefile`, which the docker client,
//! buildx and BuildKit share: <https://docs.docker.com/build/concepts/context/#dockerignore-files>.
//!
//! ```
//! use build_context::ignore::{Patterns, read};
//!
//! let patterns = Patterns::parse(read(b"# caches\n**/*.pyc\n!keep.pyc\n")?)?;
//! assert!(patterns.matches(b"src/a.pyc")?);
//! assert!(!patterns.matches(b"keep.pyc")?);
//! # Ok::<(), build_context::PatternError>(())
//! ```

use super::pattern::{BadPattern, Matcher, check};

/// The longest line that Docker reads, in bytes: the buffer of Go's `bufio.Scanner`, less the newline.
const LONGEST_LINE: usize = 64 * 1024 - 1;

/// Runes that make a pattern more than the name of a file or folder.
const SPECIAL: &[u8] = b"*[]?^\\";

/// A `.dockerignore` file, or a pattern, that Docker refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A lone `!` (or `!/`): an exception that names nothing.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
    /// A class that is not closed, a range that runs backwards, an unknown escape.
    #[error("syntax error in pattern `{0}`")]
    Syntax(String),
    /// A line of 64 KiB or more.
    #[error("line {0} is too long (64 KiB or more)")]
    LineTooLong(usize),
}

/// Reads a `.dockerignore` file: its patterns in order, clean, relative to the context.
///
/// A byte order mark is dropped; lines that start with `#` in the first column are comments; space around
/// a pattern, and between `!` and its pattern, is dropped; `/dir/`, `./dir` and `dir` are the same.
///
/// # Errors
///
/// [`PatternError::LineTooLong`].
pub fn read(file: &[u8]) -> Result<Vec<Vec<u8>>, PatternError> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let mut patterns = Vec::new();
    for (index, line) in file.split(|byte| *byte == b'\n').enumerate() {
        if line.len() > LONGEST_LINE {
            return Err(PatternError::LineTooLong(index + 1));
        }
        if line.starts_with(b"#") {
            continue;
        }
        match trim(line) {
            b"" => {}
            [b'!', pattern @ ..] => patterns.push([b"!", relative(trim(pattern)).as_slice()].concat()),
            pattern => patterns.push(relative(pattern)),
        }
    }
    Ok(patterns)
}

/// A pattern, clean and without its leading slash.
fn relative(pattern: &[u8]) -> Vec<u8> {
    if pattern.is_empty() {
        return Vec::new();
    }
    let clean = clean(pattern);
    match clean.strip_prefix(b"/") {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        _ => clean,
    }
}

/// An ordered list of patterns, of which the last that matches decides.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    has_exceptions: bool,
    /// No exception has a wildcard, but for a `/*` or `/**` at its end.
    plain_exceptions: bool,
    /// The same of the patterns that are not exceptions.
    plain_patterns: bool,
}

#[derive(Debug, Clone)]
struct Pattern {
    /// It starts with `!`: what it matches is not matched after all.
    exception: bool,
    /// Clean, without the `!`.
    text: Vec<u8>,
    /// Docker compiles a pattern when it first needs it, so a broken one that is never reached does no harm.
    matcher: Result<Matcher, BadPattern>,
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> Result<bool, PatternError> {
        match &self.matcher {
            Ok(matcher) => Ok(matcher.matches(path)),
            Err(BadPattern) => Err(syntax_error(&self.text)),
        }
    }

    fn matches_parent_of(&self, path: &[u8]) -> bool {
        let Ok(matcher) = &self.matcher else {
            return false;
        };
        parents(path).any(|parent| matcher.matches(parent))
    }

    /// What the pattern names before a `/*`, `/**` or `/*/**` at its end.
    fn stem(&self) -> &[u8] {
        let text = self.text.strip_suffix(b"/**").unwrap_or(&self.text);
        text.strip_suffix(b"/*").unwrap_or(text)
    }

    fn is_plain(&self) -> bool {
        !self.stem().iter().any(|byte| SPECIAL.contains(byte))
    }
}

/// What the patterns made of a directory: see [`Patterns::matches_below`].
#[derive(Debug, Clone, Default)]
pub struct ParentMatches(Option<Box<[bool]>>);

/// The builder that a context is for: their clients differ in what an exception (`!`) inside a directory
/// that is left out brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Builder {
    /// All that the exception matches, and the directories on the way to it.
    #[default]
    BuildKit,
    /// What lies where the exception, read as plain text, points; no directories for it.
    Classic,
}

impl Patterns {
    /// Compiles patterns, as [`read`] gives them or as `!`-prefixed globs from elsewhere.
    ///
    /// # Errors
    ///
    /// A lone `!`; what Go's `filepath.Match` refuses. What only the expression behind the pattern shows
    /// to be wrong (`[z-a]`) is told by the match that needs it, as Docker does.
    pub fn parse<I>(patterns: I) -> Result<Self, PatternError>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        let mut compiled = Vec::new();
        for pattern in patterns {
            let pattern = trim(pattern.as_ref());
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (exception, text) = match pattern.strip_prefix(b"!") {
                Some(b"") => return Err(PatternError::EmptyException),
                Some(text) => (true, text.to_vec()),
                None => (false, pattern),
            };
            check(&text).map_err(|BadPattern| syntax_error(&text))?;
            compiled.push(Pattern {
                exception,
                matcher: Matcher::new(&text),
                text,
            });
        }
        let plain = |exception| {
            compiled
                .iter()
                .filter(|pattern| pattern.exception == exception)
                .all(Pattern::is_plain)
        };
        Ok(Self {
            has_exceptions: compiled.iter().any(|pattern| pattern.exception),
            plain_exceptions: plain(true),
            plain_patterns: plain(false),
            patterns: compiled,
        })
    }

    /// Whether there are no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern is an exception (`!`).
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.has_exceptions
    }

    /// Whether the path, or a directory that it is in, is matched (`MatchesOrParentMatches`).
    ///
    /// The path is relative to the context; the context itself (`.`) is never matched.
    ///
    /// # Errors
    ///
    /// [`PatternError::Syntax`], when a broken pattern had to be asked.
    pub fn matches(&self, path: &[u8]) -> Result<bool, PatternError> {
        let path = clean(path);
        if path == b"." {
            return Ok(false);
        }
        let mut matched = false;
        for pattern in &self.patterns {
            // The others could not change the verdict.
            if pattern.exception == matched && (pattern.matches(&path)? || pattern.matches_parent_of(&path)) {
                matched = !pattern.exception;
            }
        }
        Ok(matched)
    }

    /// [`matches`](Self::matches) for one who walks a tree and keeps what the parent directory gave
    /// (`MatchesUsingParentResults`): no parent is matched twice. The path must be clean.
    ///
    /// # Errors
    ///
    /// [`PatternError::Syntax`], when a broken pattern had to be asked.
    pub fn matches_below(&self, path: &[u8], parent: &ParentMatches) -> Result<bool, PatternError> {
        self.evaluate(path, parent, |_, _| {})
    }

    /// [`matches_below`](Self::matches_below) for a directory, with what its entries will need.
    ///
    /// # Errors
    ///
    /// [`PatternError::Syntax`], when a broken pattern had to be asked.
    pub fn matches_directory(
        &self,
        path: &[u8],
        parent: &ParentMatches,
    ) -> Result<(bool, ParentMatches), PatternError> {
        let mut matches = vec![false; self.patterns.len()].into_boxed_slice();
        let matched = self.evaluate(path, parent, |index, matched| {
            if let Some(slot) = matches.get_mut(index) {
                *slot = matched;
            }
        })?;
        Ok((matched, ParentMatches(Some(matches))))
    }

    fn evaluate(
        &self,
        path: &[u8],
        parent: &ParentMatches,
        mut record: impl FnMut(usize, bool),
    ) -> Result<bool, PatternError> {
        let mut matched = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.0.as_ref().and_then(|parent| parent.get(index));
            let matches = if inherited == Some(&true) {
                true
            } else if pattern.exception != matched {
                continue;
            } else {
                pattern.matches(path)? || (inherited.is_none() && pattern.matches_parent_of(path))
            };
            record(index, matches);
            if matches {
                matched = !pattern.exception;
            }
        }
        Ok(matched)
    }

    /// Whether a directory that is left out must be walked all the same, for the sake of an exception.
    #[must_use]
    pub fn exception_below(&self, directory: &[u8], builder: Builder) -> bool {
        if !self.has_exceptions {
            return false;
        }
        let mut exceptions = self.patterns.iter().filter(|pattern| pattern.exception);
        match builder {
            Builder::BuildKit if !self.plain_exceptions => true,
            Builder::BuildKit => exceptions.any(|pattern| is_at_or_below(pattern.stem(), directory)),
            Builder::Classic => exceptions.any(|pattern| is_at_or_below(&pattern.text, directory)),
        }
    }

    /// Whether a directory that no pattern matches may hold what one does.
    #[must_use]
    pub fn match_below(&self, directory: &[u8]) -> bool {
        !self.plain_patterns
            || self
                .patterns
                .iter()
                .filter(|pattern| !pattern.exception)
                .any(|pattern| is_at_or_below(pattern.stem(), directory))
    }
}

fn syntax_error(pattern: &[u8]) -> PatternError {
    PatternError::Syntax(String::from_utf8_lossy(pattern).into_owned())
}

/// Whether a path is a directory or lies in it.
fn is_at_or_below(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The directories that a path is in, outermost first.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .filter_map(|(index, _)| path.get(..index))
}

/// Drops white space (Unicode's) at both ends, as Go's `strings.TrimSpace`.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let Some((rune, width)) = super::pattern::decode(rest) {
        if !rune.is_whitespace() {
            break;
        }
        rest = rest.get(width..).unwrap_or_default();
    }
    // No white space is wider than 3 bytes.
    while let Some(shorter) = (1..=3).find_map(|width| {
        let (shorter, last) = rest.split_at_checked(rest.len().checked_sub(width)?)?;
        let last = str::from_utf8(last).ok()?;
        last.chars().all(char::is_whitespace).then_some(shorter)
    }) {
        rest = shorter;
    }
    rest
}

/// The shortest path that means the same, by text alone, as Go's `filepath.Clean` on Unix.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => match names.last() {
                Some(last) if *last != b".." => {
                    names.pop();
                }
                _ if rooted => {}
                _ => names.push(name),
            },
            name => names.push(name),
        }
    }
    let mut clean = if rooted { b"/".to_vec() } else { Vec::new() };
    clean.extend(names.join(&b'/'));
    if clean.is_empty() { b".".to_vec() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(file: &[u8]) -> Vec<String> {
        let patterns = read(file).unwrap();
        let text = patterns
            .iter()
            .map(|pattern| String::from_utf8_lossy(pattern).into_owned());
        text.collect()
    }

    fn patterns(list: &[&str]) -> Patterns {
        Patterns::parse(list).unwrap()
    }

    #[test]
    fn reads_lines_as_docker_does() {
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"), ["a", "\u{feff}b"]);
        assert_eq!(lines(b"# no\n #yes\n\n  \na # b"), ["#yes", "a # b"]);
        assert_eq!(lines(b" a \t\r\n\xc2\xa0b\xe3\x80\x80\n"), ["a", "b"]);
        assert_eq!(
            lines(b"/a\n/\n//\n./a/\na//b/./c/..\n../a\n/../a"),
            ["a", "/", "/", "a", "a/b", "../a", "a"]
        );
        assert_eq!(lines(b"!a\n! /a/\n!\n! \n!!a\n!/"), ["!a", "!a", "!", "!", "!!a", "!/"]);
        assert_eq!(lines(b"a\\ \n\xffx"), ["a\\", "\u{fffd}x"]);
    }

    #[test]
    fn refuses_long_lines() {
        let line = |length| [b"x\n".to_vec(), vec![b'a'; length]].concat();
        assert!(read(&line(65_535)).is_ok());
        assert_eq!(read(&line(65_536)), Err(PatternError::LineTooLong(2)));
    }

    #[test]
    fn refuses_broken_patterns() {
        let error = |list: &[&str]| Patterns::parse(list).unwrap_err();
        assert_eq!(error(&["!"]), PatternError::EmptyException);
        assert_eq!(error(&["!/"]), PatternError::EmptyException);
        assert_eq!(error(&["a", "![a"]), PatternError::Syntax("[a".to_owned()));
    }

    #[test]
    fn a_broken_pattern_harms_when_it_is_reached() {
        let late = patterns(&["a", "[z-a]"]);
        assert_eq!(late.matches(b"a"), Ok(true));
        assert_eq!(late.matches(b"b"), Err(PatternError::Syntax("[z-a]".to_owned())));
        assert_eq!(patterns(&["![z-a]"]).matches(b"b"), Ok(false));
    }

    #[test]
    fn the_last_pattern_decides() {
        let list = patterns(&["docs", "!docs/README.md", "docs/README.md.bak", "*.md", "!keep.md"]);
        for (path, excluded) in [
            ("docs", true),
            ("docs/a", true),
            ("docs/README.md", false),
            ("docs/README.md/x", false),
            ("a.md", true),
            ("keep.md", false),
            ("x/a.md", false),
            (".", false),
            ("./docs//a/", true),
        ] {
            assert_eq!(list.matches(path.as_bytes()), Ok(excluded), "{path}");
        }
        assert_eq!(patterns(&["*"]).matches(b"."), Ok(false));
        assert_eq!(patterns(&["!a", "a"]).matches(b"a"), Ok(true));
        assert_eq!(patterns(&[" ", ""]).matches(b"a"), Ok(false));
    }

    #[test]
    fn a_walk_gives_what_single_matches_give() {
        let list = patterns(&["a/*/c", "!**/keep", "x", "!x/y", "x/y/z"]);
        for path in ["a/b/c", "a/b/c/keep", "a/b/c/d", "x/y/z/w", "x/y/v", "x/q"] {
            let mut parent = ParentMatches::default();
            for directory in parents(path.as_bytes()) {
                parent = list.matches_directory(directory, &parent).unwrap().1;
            }
            let walked = list.matches_below(path.as_bytes(), &parent);
            assert_eq!(walked, list.matches(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn excluded_directories_are_entered_for_exceptions() {
        let entered = |list: &[&str], directory: &str| {
            let list = patterns(list);
            let ask = |builder| list.exception_below(directory.as_bytes(), builder);
            (ask(Builder::BuildKit), ask(Builder::Classic))
        };
        assert_eq!(entered(&["*"], "a"), (false, false));
        assert_eq!(entered(&["*", "!a/b/c"], "a"), (true, true));
        assert_eq!(entered(&["*", "!a/b/c"], "a/b"), (true, true));
        assert_eq!(entered(&["*", "!a"], "a"), (true, true));
        assert_eq!(entered(&["*", "!a/b"], "ab"), (false, false));
        assert_eq!(entered(&["*", "!a/**"], "a"), (true, true));
        assert_eq!(entered(&["*", "!a/*/b"], "x"), (true, false));
        assert_eq!(entered(&["*", "!**/b"], "x"), (true, false));
    }

    #[test]
    fn cleans_paths_as_go_does() {
        for (path, clean_path) in [
            ("a//b/./c/..", "a/b"),
            ("", "."),
            ("./", "."),
            ("a/..", "."),
            ("../..", "../.."),
            ("a/../../b", "../b"),
            ("/..", "/"),
            ("//a", "/a"),
        ] {
            assert_eq!(clean(path.as_bytes()), clean_path.as_bytes(), "{path}");
        }
    }
}
