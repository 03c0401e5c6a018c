//! Where the results of a run lie, and what their files are called.
//!
//! Three folders, as UCSD's DataHub stack has them: `artifacts/` with a YAML file for each image, `logs/`, and `manifests/`
//! with a page for each image. A file is called as its image, with `-` in place of `/` and `:`. The keys of the YAML file are
//! those of the `Result` in their `scripts/runner.py`, written as a plain mapping that every reader of YAML takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dockerutils_core::config::stack::repository_root;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::output::{one_line, visible};
use registry_client::Digest;
use serde_json::Value;

/// The folder with the results, and those with logs and pages.
const RESULTS: &str = "artifacts";
const LOGS: &str = "logs";
const MANIFESTS: &str = "manifests";
/// The summary of a run, among the results.
const SUMMARY: &str = "summary.md";
/// The most bytes of the name of a file without its ending: the longest ending is far shorter than what is left of 255.
const LONGEST_STEM: usize = 180;
/// How many digits of a digest the name of a shortened stem has.
const DIGITS: usize = 12;

/// The folders of a run's results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    root: PathBuf,
    /// The stems that several images of the stack would have.
    shared: BTreeSet<String>,
}

/// What became of an image in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageResult {
    /// As in the plan.
    pub label: String,
    /// `repository:tag`.
    pub reference: String,
    pub outcome: ImageOutcome,
    /// The digest of its manifest in the registry.
    pub digest: Option<String>,
    /// Whether it was pushed; `None` if nobody tried.
    pub pushed: Option<bool>,
    /// Its tests, in the order in which they ran.
    pub tests: Vec<TestsOfImage>,
    /// How long all of it took.
    pub seconds: f64,
    /// Why it failed, was left out, or what else is to be said.
    pub message: String,
    /// What to read about a failure.
    pub log: Option<PathBuf>,
    /// The last lines of that.
    pub excerpt: Vec<String>,
}

/// How an image ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageOutcome {
    /// It was built, and pushed if that was wanted.
    Built,
    /// Its manifest was given the tag.
    Copied,
    /// What was there passed its tests.
    Tested,
    /// Nothing was to be done.
    #[default]
    Unchanged,
    /// It, or a test of it, failed.
    Failed,
    /// It was left out: an image that it starts from failed, or the run was interrupted.
    LeftOut,
}

impl ImageOutcome {
    /// In a word, for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Copied => "copied",
            Self::Tested => "tested",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::LeftOut => "left out",
        }
    }

    /// Whether the image is there as it should be.
    pub const fn is_good(self) -> bool {
        !matches!(self, Self::Failed | Self::LeftOut)
    }
}

/// Tests of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestsOfImage {
    /// `basic`, `integration` or `workflow`.
    pub kind: String,
    /// `None` where the image has none.
    pub passed: Option<bool>,
    pub tests: usize,
    pub failures: usize,
}

/// What a log is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// What the builder said.
    Build,
    /// What the basic tests said.
    BasicTests,
    /// What the integration tests said.
    IntegrationTests,
    /// What the workflow tests said.
    WorkflowTests,
    /// What the push said.
    Push,
}

impl LogKind {
    const fn ending(self) -> &'static str {
        match self {
            Self::Build => "build.log",
            Self::BasicTests => "basic-tests.log",
            Self::IntegrationTests => "integration-tests.log",
            Self::WorkflowTests => "workflow-tests.log",
            Self::Push => "push.log",
        }
    }
}

impl Artifacts {
    /// The folders below this one; nothing is made before something is written.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            shared: BTreeSet::new(),
        }
    }

    /// The same for the images of a stack: those whose files would have one name (`team/a-b:1`, `team/a/b:1`) get a digest in it.
    #[must_use]
    pub fn of_images(mut self, references: impl IntoIterator<Item = String>) -> Self {
        let references: BTreeSet<String> = references.into_iter().collect();
        let mut known = BTreeSet::new();
        let stems = references.iter().map(|reference| stem(reference));
        self.shared = stems.filter(|stem| !known.insert(stem.clone())).collect();
        self
    }

    /// The folders at the root of the repository that this directory of images is in.
    pub fn of_stack(directory: &Path) -> Self {
        Self::at(repository_root(directory))
    }

    /// The folder with the results; reports of tests belong there, too.
    pub fn results(&self) -> PathBuf {
        self.root.join(RESULTS)
    }

    /// The folder with the logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join(LOGS)
    }

    /// The folder with the pages.
    pub fn manifests(&self) -> PathBuf {
        self.root.join(MANIFESTS)
    }

    /// Makes the three folders.
    ///
    /// # Errors
    /// A folder that can't be made, or is a link: a repository of others could lead it anywhere.
    pub fn make(&self) -> Result<()> {
        [self.results(), self.logs(), self.manifests()]
            .iter()
            .try_for_each(|folder| made(folder))
    }

    /// Where the result of an image lies.
    pub fn result(&self, reference: &str) -> PathBuf {
        self.results().join(format!("{}.yaml", self.stem(reference)))
    }

    /// A report of tests of an image.
    pub fn test_report(&self, reference: &str, ending: &str) -> PathBuf {
        self.results().join(format!("{}.{ending}", self.stem(reference)))
    }

    /// Where a log of an image lies.
    pub fn log(&self, reference: &str, kind: LogKind) -> PathBuf {
        self.logs().join(format!("{}.{}", self.stem(reference), kind.ending()))
    }

    /// Where an image's page lies.
    pub fn page(&self, reference: &str) -> PathBuf {
        self.manifests().join(format!("{}.md", self.stem(reference)))
    }

    /// Whether a file in the folder of the pages is called as that of an image, of this stack or of another.
    pub(crate) fn is_page_json(&self, file: &Path, reference: &str) -> bool {
        let stem = stem(reference);
        [with_digest(&stem, reference), stem]
            .iter()
            .any(|stem| self.manifests().join(format!("{stem}.json")) == file)
    }

    /// Where the same as JSON lies.
    pub fn page_json(&self, reference: &str) -> PathBuf {
        self.manifests().join(format!("{}.json", self.stem(reference)))
    }

    /// Where the summary of a run lies, where CI has no place of its own for it.
    pub fn summary(&self) -> PathBuf {
        self.results().join(SUMMARY)
    }

    /// The name of an image's files, without their endings.
    fn stem(&self, reference: &str) -> String {
        let stem = stem(reference);
        match self.shared.contains(&stem) {
            true => with_digest(&stem, reference),
            false => stem,
        }
    }

    /// Writes the result of an image, and returns its file.
    ///
    /// # Errors
    /// See [`write`].
    pub fn write_result(&self, result: &ImageResult) -> Result<PathBuf> {
        let file = self.result(&result.reference);
        write(&file, yaml(result))?;
        Ok(file)
    }
}

/// Writes a file of results whole, or not at all, and makes its folder. Everybody may read it.
///
/// # Errors
/// What the system says, such as a full disk; the old file stays then. A folder that is a link.
pub fn write(file: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    made(folder)?;
    let written = || {
        let mut builder = tempfile::Builder::new();
        builder.permissions(Permissions::from_mode(0o644));
        let mut new = builder.tempfile_in(folder)?;
        new.write_all(content.as_ref())?;
        new.persist(file).map_err(|error| error.error)
    };
    written().map(drop).map_err(|cause| {
        Error::failed(format!("{} can't be written", file.display()))
            .because(cause)
            .hint(hint!(
                "is the disk full? Look: df {}; for another place: --artifacts DIR",
                folder.display()
            ))
    })
}

/// Makes a folder for results.
///
/// # Errors
/// What the system says; a folder that is a link.
pub(crate) fn made(folder: &Path) -> Result<()> {
    let failed = |cause| {
        Error::failed(format!("{} can't be made", folder.display()))
            .because(cause)
            .hint("name another place: --artifacts DIR")
    };
    fs::create_dir_all(folder).map_err(failed)?;
    match fs::symlink_metadata(folder).map_err(failed)?.is_dir() {
        true => Ok(()),
        false => Err(
            Error::failed(format!("{} is a link: no results are written there", folder.display()))
                .hint(hint!("remove it, or name another place: --artifacts DIR")),
        ),
    }
}

/// The name of an image's files, without their endings, where no other image has the same: the reference with `-` in place of `/` and
/// `:`. A long one is cut, and ends with a digest of the whole.
fn stem(reference: &str) -> String {
    let made: String = reference
        .chars()
        .map(|c| {
            let is_plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if is_plain { c } else { '-' }
        })
        .collect();
    // A file that begins with a dot is hidden.
    let made = made.trim_start_matches('.');
    if made.len() <= LONGEST_STEM && !made.is_empty() {
        return made.to_owned();
    }
    with_digest(made.get(..LONGEST_STEM).unwrap_or(made), reference)
}

/// A stem with a digest of the reference behind it.
fn with_digest(stem: &str, reference: &str) -> String {
    let digest = Digest::of(reference.as_bytes());
    format!("{stem}-{}", digest.hex().get(..DIGITS).unwrap_or_default())
}

/// The result in YAML. Texts are quoted as in JSON, which YAML 1.1 and 1.2 read alike.
fn yaml(result: &ImageResult) -> String {
    let mut details = BTreeMap::from([
        ("image_built", Value::from(result.outcome == ImageOutcome::Built)),
        ("outcome", Value::from(result.outcome.word())),
        ("seconds", Value::from((result.seconds * 10.0).round() / 10.0)),
    ]);
    if let Some(pushed) = result.pushed {
        details.insert("push_success", Value::from(pushed));
    }
    if let Some(digest) = &result.digest {
        details.insert("digest", Value::from(visible(digest)));
    }
    if let Some(log) = &result.log {
        details.insert("log", Value::from(visible(&log.display().to_string())));
    }
    let tests = result.tests.iter().map(|tests| {
        let said = match tests.passed {
            None => "skipped".to_owned(),
            Some(true) => format!("Passed {} tests", tests.kind),
            Some(false) => format!("Failed {} tests", tests.kind),
        };
        (format!("{}_tests", tests.kind), Value::from(said))
    });
    let tests: BTreeMap<String, Value> = tests.collect();
    let mut text = mapping("container_details", details);
    text += &format!("full_image_name: {}\n", Value::from(visible(&result.reference)));
    text += &format!("message: {}\n", Value::from(one_line(&result.message)));
    text += &format!("success: {}\n", result.outcome.is_good());
    text + &mapping("test_results", tests)
}

fn mapping<K: std::fmt::Display>(name: &str, values: BTreeMap<K, Value>) -> String {
    if values.is_empty() {
        return format!("{name}: {{}}\n");
    }
    let lines: Vec<String> = values
        .into_iter()
        .map(|(key, value)| format!("  {key}: {value}\n"))
        .collect();
    format!("{name}:\n{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> ImageResult {
        ImageResult {
            label: "base".to_owned(),
            reference: "ghcr.io/team/base:2026.10-main".to_owned(),
            outcome: ImageOutcome::Failed,
            digest: Some("sha256:12".to_owned()),
            pushed: Some(true),
            tests: ["basic", "integration"]
                .into_iter()
                .zip([Some(false), None])
                .map(|(kind, passed)| TestsOfImage {
                    kind: kind.to_owned(),
                    passed,
                    tests: 3,
                    failures: 1,
                })
                .collect(),
            seconds: 12.345,
            message: "yes: \"no\"\n1:30 # \x1b[31mred\u{85}x".to_owned(),
            log: None,
            excerpt: Vec::new(),
        }
    }

    #[test]
    fn a_result_is_yaml_with_the_known_keys() {
        let home = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::at(home.path());
        let file = artifacts.write_result(&result()).unwrap();
        assert_eq!(
            file,
            home.path().join("artifacts/ghcr.io-team-base-2026.10-main.yaml"),
            "as theirs are called"
        );
        let text = fs::read_to_string(&file).unwrap();
        let read: Value = serde_yaml::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "container_details": {
                "digest": "sha256:12", "image_built": false, "outcome": "failed", "push_success": true, "seconds": 12.3,
            },
            "full_image_name": "ghcr.io/team/base:2026.10-main",
            "message": "yes: \"no\" 1:30 # red\u{fffd}x",
            "success": false,
            "test_results": { "basic_tests": "Failed basic tests", "integration_tests": "skipped" },
        });
        assert_eq!(read, expected, "{text}");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_ne!(mode & 0o004, 0, "CI's other steps read it: {mode:o}");
    }

    #[test]
    fn files_are_written_whole_and_only_into_folders() {
        let home = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::at(home.path().join("results"));
        artifacts.make().unwrap();
        let page = artifacts.page("a:1");
        // What is in the place of the file is replaced, and not followed.
        let elsewhere = home.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &page).unwrap();
        write(&page, "new").unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), "new");
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert_eq!(fs::read_dir(artifacts.manifests()).unwrap().count(), 1);
        fs::remove_dir_all(artifacts.logs()).unwrap();
        std::os::unix::fs::symlink(home.path(), artifacts.logs()).unwrap();
        let error = write(&artifacts.log("a:1", LogKind::Build), "")
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("logs is a link: no results are written there"),
            "{error}"
        );
        fs::write(home.path().join("file"), "").unwrap();
        let error = Artifacts::at(home.path().join("file")).make().unwrap_err();
        assert_eq!(error.hint_text(), Some("name another place: --artifacts DIR"));
    }

    #[test]
    fn results_lie_at_the_root_of_the_repository() {
        let home = tempfile::tempdir().unwrap();
        let images = home.path().join("a/images");
        fs::create_dir_all(&images).unwrap();
        assert_eq!(Artifacts::of_stack(&images), Artifacts::at(home.path().join("a")));
        fs::create_dir(home.path().join(".git")).unwrap();
        assert_eq!(Artifacts::of_stack(&images), Artifacts::at(home.path()));
    }

    #[test]
    fn names_are_bounded_and_differ() {
        assert_eq!(stem("ghcr.io/team/base:1.0-x"), "ghcr.io-team-base-1.0-x");
        assert_eq!(stem("../x"), "-x");
        let long = |end: &str| stem(&format!("{}/x:{end}", "a".repeat(300)));
        assert_ne!(long("1"), long("2"));
        assert!(long("1").len() < 200 && !stem("").is_empty());
        assert_eq!(
            Artifacts::at("/r").log("t/a:1", LogKind::IntegrationTests),
            Path::new("/r/logs/t-a-1.integration-tests.log")
        );
    }

    #[test]
    fn images_of_a_stack_have_files_of_their_own() {
        let references = ["t/a-b:1", "t/a/b:1", "t/c:1"];
        let artifacts = Artifacts::at("/r").of_images(references.map(str::to_owned));
        let files = |reference| {
            [
                artifacts.result(reference),
                artifacts.log(reference, LogKind::Build),
                artifacts.page(reference),
                artifacts.page_json(reference),
                artifacts.test_report(reference, "basic-tests.xml"),
            ]
        };
        let [one, other, plain] = references.map(files);
        assert!(one.iter().all(|file| !other.contains(file)), "{one:?}");
        let begins = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().starts_with("t-a-b-1-");
        assert!(one.iter().chain(&other).all(begins), "{one:?}");
        assert_eq!(plain[0], Path::new("/r/artifacts/t-c-1.yaml"));
        // Whoever selects some of them finds the same files.
        assert!(artifacts.is_page_json(&one[3], "t/a-b:1") && artifacts.is_page_json(&plain[3], "t/c:1"));
        assert!(!artifacts.is_page_json(&one[3], "t/a/b:1"));
    }
}
