//! What git says about a stack: the branch, and the files that changed, with the commits that changed them.
//!
//! git explains a plan; what is to be built is decided by content. So a range that CI names and this clone lacks is said,
//! and nothing is guessed in its place.

mod checkout;
mod ci;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::version::git::{GitOutput, Repository};
use serde::Serialize;

pub use checkout::Checkout;
pub use ci::{CiSystem, CiVariables};

/// Where git has its branches, and those of the origin.
const LOCAL: &str = "refs/heads/";
const ORIGIN: &str = "refs/remotes/origin/";

/// Where a range begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeStart {
    /// `--since REV`: this commit.
    Since(String),
    /// `--base BRANCH`: where the branch and HEAD parted.
    Base(String),
}

/// What git says about a directory of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// HEAD's commit, in full.
    pub commit: Option<String>,
    /// The branch of HEAD; `None` where HEAD is detached.
    pub branch: Option<String>,
    /// All branches, here and at the origin.
    pub branches: BTreeSet<String>,
    /// The branch that the origin's HEAD is on, as it was when it was cloned.
    pub default_branch: Option<String>,
    /// HEAD's commit message.
    pub message: String,
    /// The first commit of the range, which is not in it, in full; `None` without a range.
    pub since: Option<String>,
    /// The files that differ from there, relative to the directory; without a range, those that are not committed.
    pub changed: BTreeMap<String, Changes>,
    /// The text of a file at the beginning of the range, if it was there: `spec.yml`.
    pub spec_before: Option<String>,
    /// What is not known, and why.
    pub notes: Vec<String>,
}

/// How a file came to differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The commits that changed it, newest first.
    pub commits: Vec<CommitLine>,
    /// It differs from HEAD, too.
    pub is_uncommitted: bool,
}

/// A commit, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitLine {
    /// Its abbreviated ID.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

impl History {
    /// Asks git about this directory.
    ///
    /// A range that is `asked` for must be there; one that only CI names may be missing, which is noted.
    ///
    /// # Errors
    /// git fails or takes too long; the range that is asked for begins nowhere.
    pub fn read(directory: &Path, start: Option<&RangeStart>, is_asked: bool, spec: &str) -> Result<Self> {
        let git = GitFolder {
            repository: Repository::around(directory)?,
            directory,
        };
        let mut history = Self::default();
        if git.text(&["rev-parse", "--show-prefix"])?.is_none() {
            if is_asked && let Some(start) = start {
                return Err(Error::usage(format!(
                    "{} is in no repository of git, and has no {}",
                    directory.display(),
                    start.name()
                )));
            }
            history
                .notes
                .push(format!("{} is in no repository of git", directory.display()));
            return Ok(history);
        }
        history.branch = git.text(&["symbolic-ref", "--quiet", "--short", "HEAD"])?;
        history.commit = git.text(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])?;
        let names = git.text(&[
            "for-each-ref",
            "--format=%(refname)",
            "refs/heads",
            "refs/remotes/origin",
        ])?;
        let names = names.unwrap_or_default();
        let names = names
            .lines()
            .filter_map(|name| name.strip_prefix(LOCAL).or_else(|| name.strip_prefix(ORIGIN)));
        history.branches = names.filter(|name| *name != "HEAD").map(str::to_owned).collect();
        let default = git.text(&["symbolic-ref", "--quiet", &format!("{ORIGIN}HEAD")])?;
        history.default_branch = default.and_then(|name| Some(name.strip_prefix(ORIGIN)?.to_owned()));
        if history.commit.is_some() {
            history.message = git.text(&["log", "-1", "--format=%B"])?.unwrap_or_default();
        }
        if let Some(start) = start {
            match git.beginning(start) {
                Ok(since) => git.since(&since, spec, &mut history)?,
                Err(error) if is_asked => return Err(error),
                Err(error) => history
                    .notes
                    .push(format!("what changed is not known: {}", error.with_causes())),
            }
        }
        git.uncommitted(&mut history)?;
        Ok(history)
    }

    /// The branch that is built: that of CI, else HEAD's.
    ///
    /// # Errors
    /// There is no repository, or HEAD is detached, and nothing else names a branch.
    pub fn branch<'b>(&'b self, ci: Option<&'b CiVariables>) -> Result<&'b str> {
        let named = ci.and_then(|ci| ci.branch.as_deref()).or(self.branch.as_deref());
        named.ok_or_else(|| {
            let unknown =
                |why: &str| Error::usage(format!("the branch, of which the tags are made, is not known: {why}"));
            // A repository without a commit is on a branch.
            if self.commit.is_none() {
                return unknown("the stack is in no repository of git").hint("git init");
            }
            match ci {
                Some(ci) => unknown(&format!("{} builds a tag or a commit, and no branch", ci.system.name()))
                    .hint("run this for branches only, or name one before: git switch -C BRANCH"),
                None => unknown("HEAD is on none").hint("git switch BRANCH"),
            }
        })
    }
}

impl RangeStart {
    fn name(&self) -> &str {
        match self {
            Self::Since(name) | Self::Base(name) => name,
        }
    }
}

/// The commits between two, newest first, that changed something in this directory; `None` where this clone lacks one of them.
/// At most `most`, and whether there are more.
///
/// # Errors
/// git fails or takes too long.
pub fn between(directory: &Path, old: &str, new: &str, most: usize) -> Result<Option<(Vec<CommitLine>, bool)>> {
    let git = GitFolder {
        repository: Repository::around(directory)?,
        directory,
    };
    // What a label says is a commit in full, or nothing: never an option or a name.
    let is_id = |name: &str| matches!(name.len(), 40 | 64) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_id(old) || !is_id(new) || git.commit(old)?.is_none() || git.commit(new)?.is_none() {
        return Ok(None);
    }
    let count = format!("--max-count={}", most + 1);
    let log = git.text(&["log", &count, "--format=%h %s", &format!("{old}..{new}"), "--", "."])?;
    let mut commits: Vec<CommitLine> = log.unwrap_or_default().lines().map(CommitLine::read).collect();
    let are_more = commits.len() > most;
    commits.truncate(most);
    Ok(Some((commits, are_more)))
}

impl CommitLine {
    /// Reads `ID SUBJECT`.
    fn read(line: &str) -> Self {
        let (id, subject) = line.split_once(' ').unwrap_or((line, ""));
        Self {
            id: id.to_owned(),
            subject: subject.to_owned(),
        }
    }
}

/// A repository, asked from a directory of it.
struct GitFolder<'d> {
    repository: Repository<'d>,
    directory: &'d Path,
}

impl GitFolder<'_> {
    fn bytes(&self, arguments: &[&str]) -> Result<Option<Vec<u8>>> {
        Ok(match self.repository.ask(arguments)? {
            GitOutput::Text(text) => Some(text),
            GitOutput::Nothing(_) => None,
        })
    }

    fn text(&self, arguments: &[&str]) -> Result<Option<String>> {
        Ok(self
            .bytes(arguments)?
            .map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// An answer that must be there.
    fn needed(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        match self.repository.ask(arguments)? {
            GitOutput::Text(text) => Ok(text),
            GitOutput::Nothing(why) => Err(Error::failed(format!(
                "git can't tell what changed in {}: {why}",
                self.directory.display()
            ))),
        }
    }

    fn commit(&self, name: &str) -> Result<Option<String>> {
        // A name that begins with a dash would be an option.
        if name.starts_with('-') {
            return Ok(None);
        }
        let found = self.text(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])?;
        Ok(found.filter(|id| !id.is_empty()))
    }

    /// The commit at which a range begins.
    fn beginning(&self, start: &RangeStart) -> Result<String> {
        let shallow = self.repository.is_shallow()?;
        let missing = |what: String, name: &str| match shallow {
            true => Error::usage(format!(
                "{what}: this clone is shallow, and lacks the commits before it"
            ))
            .hint("get the rest: git fetch --unshallow"),
            false => Error::usage(what).hint(hint!("git fetch origin {}", name)),
        };
        match start {
            RangeStart::Since(name) => self
                .commit(name)?
                .ok_or_else(|| missing(format!("there is no commit {name:?}"), name)),
            RangeStart::Base(name) => {
                // In CI only the branch that is built has a local name.
                let remote = format!("{ORIGIN}{name}");
                let found = match self.commit(&remote)? {
                    Some(found) => Some(found),
                    None => self.commit(name)?,
                };
                let base = found.ok_or_else(|| missing(format!("there is no branch {name:?}"), name))?;
                let parted = self.text(&["merge-base", &base, "HEAD"])?.filter(|id| !id.is_empty());
                parted.ok_or_else(|| missing(format!("{name:?} and HEAD have no commit in common"), name))
            }
        }
    }

    /// The files that differ between a commit and HEAD, and the commits between that changed them.
    fn since(&self, since: &str, spec: &str, history: &mut History) -> Result<()> {
        let differing = self.needed(&[
            "diff",
            "--no-ext-diff",
            "--no-renames",
            "--relative",
            "--name-only",
            "-z",
            since,
            "HEAD",
        ])?;
        for path in paths(&differing) {
            history.changed.entry(path).or_default();
        }
        // Of a merge, only what none of its parents has.
        let range = format!("{since}..HEAD");
        let log = self.needed(&[
            "log",
            "--no-renames",
            "--relative",
            "-c",
            "--name-only",
            "-z",
            "--format=%x01%h %s",
            &range,
        ])?;
        for commit in log.split(|byte| *byte == 1) {
            let mut parts = commit.split(|byte| matches!(*byte, 0 | b'\n'));
            let line = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let commit = CommitLine::read(&line);
            for path in parts.filter(|path| !path.is_empty()) {
                if let Some(changes) = history.changed.get_mut(&*String::from_utf8_lossy(path)) {
                    changes.commits.push(commit.clone());
                }
            }
        }
        history.spec_before = self.text(&["show", &format!("{since}:./{spec}")])?;
        history.since = Some(since.to_owned());
        Ok(())
    }

    /// The files that are not as HEAD has them.
    fn uncommitted(&self, history: &mut History) -> Result<()> {
        let mut listed = self.needed(&["ls-files", "--others", "--exclude-standard", "-z"])?;
        if history.commit.is_some() {
            listed.push(0);
            listed.extend(self.needed(&[
                "diff",
                "--no-ext-diff",
                "--no-renames",
                "--relative",
                "--name-only",
                "-z",
                "HEAD",
            ])?);
        }
        for path in paths(&listed) {
            history.changed.entry(path).or_default().is_uncommitted = true;
        }
        Ok(())
    }
}

fn paths(listed: &[u8]) -> impl Iterator<Item = String> {
    let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    paths.map(|path| String::from_utf8_lossy(path).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// A repository with directories of images in `images/`.
    struct Made(tempfile::TempDir);

    impl Made {
        fn new() -> Self {
            let made = Self(tempfile::tempdir().unwrap());
            made.git(&["init", "-q", "-b", "main"]);
            made.write("images/a/Dockerfile", "FROM scratch\n");
            made.write("images/spec.yml", "images: {a: {}}\n");
            made.commit("first");
            made
        }

        fn git(&self, arguments: &[&str]) -> String {
            let identity = [
                "-c",
                "user.name=ann",
                "-c",
                "user.email=ann@example.org",
                "-c",
                "protocol.file.allow=always",
            ];
            let out = Command::new("git")
                .args(identity)
                .args(arguments)
                .current_dir(self.0.path())
                .output()
                .unwrap();
            assert!(out.status.success(), "{arguments:?} {out:?}");
            String::from_utf8(out.stdout).unwrap().trim().to_owned()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn commit(&self, message: &str) {
            self.git(&["add", "-A"]);
            self.git(&["commit", "-q", "-m", message]);
        }

        fn read(&self, start: RangeStart) -> Result<History> {
            History::read(&self.0.path().join("images"), Some(&start), true, "spec.yml")
        }
    }

    fn said(history: &History) -> Vec<String> {
        let line = |(path, changes): (&String, &Changes)| {
            let subjects: Vec<_> = changes.commits.iter().map(|commit| commit.subject.as_str()).collect();
            let uncommitted = if changes.is_uncommitted { " uncommitted" } else { "" };
            format!("{path}: {}{uncommitted}", subjects.join(", "))
        };
        history.changed.iter().map(line).collect()
    }

    #[test]
    fn changed_files_come_with_their_commits() {
        let made = Made::new();
        made.write("images/a/x", "1");
        made.commit("x is made");
        made.write("images/a/x", "2");
        made.write("images/b/ü y", "1");
        made.write("other", "1");
        made.commit("full rebuild\n\nof all");
        made.write("images/a/gone", "1");
        made.commit("made");
        fs::remove_file(made.0.path().join("images/a/gone")).unwrap();
        made.commit("and removed");
        made.write("images/a/Dockerfile", "FROM other\n");
        made.write("images/a/new", "1");
        let history = made.read(RangeStart::Since("HEAD~4".to_owned())).unwrap();
        assert_eq!(
            said(&history),
            [
                "a/Dockerfile:  uncommitted",
                "a/new:  uncommitted",
                "a/x: full rebuild, x is made",
                "b/ü y: full rebuild"
            ]
        );
        assert_eq!(history.branch.as_deref(), Some("main"));
        assert_eq!(history.message, "and removed");
        assert_eq!(history.spec_before.as_deref(), Some("images: {a: {}}"));
    }

    #[test]
    fn a_base_is_where_the_branches_parted() {
        let made = Made::new();
        made.git(&["switch", "-q", "-c", "work"]);
        made.write("images/a/x", "1");
        made.commit("mine");
        made.git(&["switch", "-q", "main"]);
        made.write("images/a/y", "1");
        made.commit("theirs");
        made.git(&["switch", "-q", "work"]);
        let base = || RangeStart::Base("main".to_owned());
        assert_eq!(said(&made.read(base()).unwrap()), ["a/x: mine"]);
        made.git(&["merge", "-q", "-m", "merged", "main"]);
        // What came with the merge is the base's.
        assert_eq!(said(&made.read(base()).unwrap()), ["a/x: mine"]);
        let since = made.read(RangeStart::Since("HEAD~1".to_owned())).unwrap();
        assert_eq!(said(&since), ["a/y: theirs"]);
    }

    #[test]
    fn the_commits_between_two_are_those_of_the_directory() {
        let made = Made::new();
        let old = made.git(&["rev-parse", "HEAD"]);
        for number in 1..4 {
            made.write("images/a/x", &number.to_string());
            made.commit(&format!("x {number}"));
        }
        made.write("elsewhere", "1");
        made.commit("elsewhere");
        let new = made.git(&["rev-parse", "HEAD"]);
        let images = made.0.path().join("images");
        let subjects = |most| {
            let (commits, are_more) = between(&images, &old, &new, most).unwrap().unwrap();
            let subjects: Vec<String> = commits.into_iter().map(|commit| commit.subject).collect();
            (subjects.join(" "), are_more)
        };
        assert_eq!(subjects(3), ("x 3 x 2 x 1".to_owned(), false));
        assert_eq!(subjects(1), ("x 3".to_owned(), true));
        let absent = "0".repeat(40);
        for strange in [absent.as_str(), "HEAD", "--output=x", ""] {
            assert_eq!(between(&images, strange, &new, 3).unwrap(), None, "{strange}");
            assert_eq!(between(&images, &old, strange, 3).unwrap(), None, "{strange}");
        }
    }

    #[test]
    fn a_shallow_clone_is_said_and_not_guessed() {
        let made = Made::new();
        made.write("images/a/x", "1");
        made.commit("second");
        let first = made.git(&["rev-parse", "HEAD~1"]);
        let url = format!("file://{}", made.0.path().display());
        made.git(&["clone", "-q", "--depth", "1", &url, "shallow"]);
        let images = made.0.path().join("shallow/images");
        let start = RangeStart::Since(first.clone());
        let error = History::read(&images, Some(&start), true, "spec.yml").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("there is no commit {first:?}: this clone is shallow, and lacks the commits before it")
        );
        assert_eq!(error.hint_text(), Some("get the rest: git fetch --unshallow"));
        let history = History::read(&images, Some(&start), false, "spec.yml").unwrap();
        assert!(history.notes[0].starts_with("what changed is not known: there is no commit"));
        assert_eq!(history.since, None);
        let option = made.read(RangeStart::Since("--output=x".to_owned())).unwrap_err();
        assert_eq!(option.to_string(), "there is no commit \"--output=x\"");
    }
}
