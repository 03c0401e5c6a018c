//! What git knows of the commit in the working tree: the nearest tag, the distance to it, the branch.

use super::git::{GitOutput, Repository};
use super::source_file::iso_8601;
use super::{Release, VersionError};

/// The parts of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// The nearest tag, without its prefix; `None` if no tag fits.
    pub tag: Option<String>,
    /// Commits since the tag; all commits without a tag.
    pub distance: u64,
    /// The commit's hash, as short as it is unambiguous; seven digits if there is no tag.
    pub short: String,
    /// The commit's full hash.
    pub long: String,
    /// Files that git knows were changed.
    pub dirty: bool,
    /// The commit is that of the branch `master`; without a branch, `master` contains it.
    pub on_master: bool,
    /// When the commit was made: `2024-01-02T03:04:05+0000`.
    pub date: String,
}

/// The result of asking git.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribeResult {
    /// The pieces.
    Pieces(Pieces),
    /// A commit, and a tag that can't be used.
    Unusable {
        /// The commit's full hash.
        revision: String,
        /// versioneer's words.
        error: String,
    },
    /// git's error: it does not know the folder, has no commit, or is not installed.
    Refused(String),
}

/// The line that `git describe --always --long --dirty` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description<'a> {
    /// The tag and what follows it; `None` if the line is a commit's hash.
    pub tag: Option<TagDistance<'a>>,
    /// Files that git knows were changed.
    pub dirty: bool,
}

/// `TAG-DISTANCE-gHEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagDistance<'a> {
    /// The tag, which can have hyphens.
    pub tag: &'a str,
    /// Commits since the tag.
    pub distance: u64,
    /// The commit's hash, as short as it is unambiguous.
    pub short: &'a str,
}

impl<'a> Description<'a> {
    /// Parses the line; `None` if it has another form.
    pub fn parse(line: &'a str) -> Option<Self> {
        let (rest, dirty) = match line.strip_suffix("-dirty") {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        let tag = match rest.rsplit_once("-g") {
            Some((rest, short)) => {
                let is_short = !short.is_empty() && short.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
                let (tag, distance) = rest.rsplit_once('-')?;
                let is_number = distance.bytes().all(|c| c.is_ascii_digit());
                if tag.is_empty() || !is_number || !is_short {
                    return None;
                }
                Some(TagDistance {
                    tag,
                    distance: distance.parse().ok()?,
                    short,
                })
            }
            None if rest.contains('-') => return None,
            None => None,
        };
        Some(Self { tag, dirty })
    }
}

/// The output of git, or a return with its refusal.
macro_rules! said {
    ($answer:expr) => {
        match $answer? {
            GitOutput::Text(text) => text,
            GitOutput::Nothing(why) => return Ok(DescribeResult::Refused(why)),
        }
    };
}

/// Asks git about the commit that is checked out.
///
/// # Errors
/// A git that takes too long, and a tag that is not UTF-8.
pub(super) fn pieces(
    repository: &Repository<'_>,
    tag_prefix: &str,
    release: Release,
) -> Result<DescribeResult, VersionError> {
    let digit = if release.describes_digits() { "[[:digit:]]" } else { "" };
    let pattern = format!("{tag_prefix}{digit}*");
    let described = said!(repository.ask(&[
        "describe", "--tags", "--dirty", "--always", "--long", "--match", &pattern
    ]));
    let described = String::from_utf8(described).map_err(|error| VersionError::Encoding {
        root: repository.root().to_owned(),
        described: String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })?;
    // Two lines: the commit's hash, and the branch's name.
    let head = said!(repository.ask(&["rev-parse", "HEAD", "--abbrev-ref", "HEAD"]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let long = text(lines.next().unwrap_or_default());
    let mut branch = lines.next().unwrap_or_default().to_owned();
    if branch == b"HEAD" {
        branch = branch_around(&said!(repository.ask(&["branch", "--contains"]))).to_owned();
    }
    let unusable = |error| {
        Ok(DescribeResult::Unusable {
            revision: long.clone(),
            error,
        })
    };
    let Some(description) = Description::parse(&described) else {
        return unusable(format!("unable to parse git-describe output: '{described}'"));
    };
    let (tag, distance, short) = match description.tag {
        Some(TagDistance { tag, distance, short }) => {
            // The prefix may be a pattern, or the tag was renamed.
            let Some(version) = tag.strip_prefix(tag_prefix) else {
                return unusable(format!("tag '{tag}' doesn't start with prefix '{tag_prefix}'"));
            };
            (Some(version.to_owned()), distance, short.to_owned())
        }
        None => {
            let count = text(&said!(repository.ask(&["rev-list", "--count", "HEAD"])));
            (None, count.parse().unwrap_or_default(), long.chars().take(7).collect())
        }
    };
    let date = text(&said!(repository.ask(&["show", "-s", "--format=%ci", "HEAD"])));
    Ok(DescribeResult::Pieces(Pieces {
        tag,
        distance,
        short,
        long,
        dirty: description.dirty,
        on_master: branch == b"master",
        date: iso_8601(date.lines().next_back().unwrap_or_default()),
    }))
}

/// The branch in the output of `git branch --contains` that stands for a commit without a branch: `master`, else the
/// first.
fn branch_around(listed: &[u8]) -> &[u8] {
    let mut lines = listed.split(|byte| *byte == b'\n').peekable();
    // `* (HEAD detached at 4711)`, in the user's language.
    lines.next_if(|line| line.contains(&b'('));
    let mut names = lines.map(|line| line.get(2..).unwrap_or_default()).peekable();
    let first = names.peek().copied().unwrap_or_default();
    names.find(|name| *name == b"master").unwrap_or(first)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_tag_distance_and_commit() {
        let parse =
            |line| Description::parse(line).map(|found| (found.tag.map(|t| (t.tag, t.distance, t.short)), found.dirty));
        assert_eq!(
            parse("v1.0-rc-1-0-gab12"),
            Some((Some(("v1.0-rc-1", 0, "ab12")), false))
        );
        assert_eq!(parse("1.0-12-g4711-dirty"), Some((Some(("1.0", 12, "4711")), true)));
        assert_eq!(parse("1-g1-g2-3-g4"), Some((Some(("1-g1-g2", 3, "4")), false)));
        assert_eq!(parse("47110815"), Some((None, false)));
        assert_eq!(parse("47110815-dirty"), Some((None, true)));
        for line in [
            "1.0-12-gXYZ",
            "1.0-12",
            "1.0-x-g12",
            "-1-g12",
            "1.0--g12",
            "1.0-1-g",
            "1.0-g12",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn master_stands_for_a_commit_without_a_branch() {
        let around = |text: &'static str| text.to_owned().into_bytes();
        for (listed, branch) in [
            ("* (HEAD detached at 4711)\n  a\n+ master\n  z", "master"),
            ("* (kein Branch)\n  a\n  b", "a"),
            ("* (HEAD detached at 4711)", ""),
            ("", ""),
        ] {
            assert_eq!(branch_around(&around(listed)), branch.as_bytes(), "{listed}");
        }
    }
}
