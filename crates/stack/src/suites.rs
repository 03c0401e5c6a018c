//! The tests of an image of a stack, run on an image that an engine has.
//!
//! As UCSD's DataHub stack has them:
//!
//! - *basic* tests are in `tests_common/` beside the images' directories, and in `test/` of the image;
//! - *integration* tests are in `integration_tests/` of an image whose section in spec.yml says so;
//! - *workflow* tests are in the image itself, at `/opt/workflow_tests`, and run there;
//! - *manual* tests, in `manual_tests/`, are run by nobody: they are listed.
//!
//! The first two run on this machine. pytest is started once for the folders of a kind, from the root of the repository, with
//! `TEST_IMAGE` set and the root on `PYTHONPATH`; its exit codes 0 and 5 (no tests) are good. Then each executable file that is
//! directly in those folders, in the same surroundings: 0 is good.

mod child;
mod engine_lock;
mod junit;
mod on_host;
mod program_group;
mod pytest;
mod test_log;
mod workflow;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dockerutils_core::cli::Context;
use dockerutils_core::docker::connect::endpoint::Choice;
use dockerutils_core::docker::connect::engine::Engine;
use dockerutils_core::env::Env;
use dockerutils_core::error::{Error, Result};
use dockerutils_core::hint;
use dockerutils_core::output::counted;
use serde::{Deserialize, Serialize};

use crate::artifacts::{Artifacts, LogKind};
use crate::graph::StackImage;
use crate::spec::Spec;
pub use on_host::{SuitePlan, SuiteStep};

/// The directory with the basic tests of all images, beside theirs.
pub const COMMON_TESTS: &str = "tests_common";
/// The file with the fixtures of all tests below its directory.
pub(crate) const CONFTEST: &str = "conftest.py";
/// The directory of an image with its basic tests.
pub const BASIC_TESTS: &str = "test";
/// The directory of an image with its integration tests.
pub const INTEGRATION_TESTS: &str = "integration_tests";
/// The directory of an image with its workflow tests, which its Dockerfile copies to [`WORKFLOW_TESTS_INSIDE`].
pub const WORKFLOW_TESTS: &str = "workflow_tests";
/// Where workflow tests are in an image.
pub const WORKFLOW_TESTS_INSIDE: &str = "/opt/workflow_tests";
/// The directory of an image with what only people test.
const MANUAL_TESTS: &str = "manual_tests";
/// How long a suite may take. A suite of UCSD's takes minutes.
pub const LIMIT: Duration = Duration::from_secs(2 * 60 * 60);
/// The longest message of a failed test, in characters.
const LONGEST_MESSAGE: usize = 500;

/// Which tests of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TestKind {
    /// Those of all images and of this one, on the engine that built it, before it is pushed.
    Basic,
    /// Those that follow the push.
    Integration,
    /// Those in the image.
    Workflow,
}

impl TestKind {
    /// All of them, in the order in which they are run.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Integration, Self::Workflow];
    /// Those that build-stack runs.
    pub const OF_BUILDS: [Self; 2] = [Self::Basic, Self::Integration];

    /// Its name, as `--kind` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Integration => "integration",
            Self::Workflow => "workflow",
        }
    }
}

impl fmt::Display for TestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TestKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("there is no kind of tests {name:?}"))
    }
}

/// What is to be tested, and where.
#[derive(Clone, Copy, Debug)]
pub struct SuiteRequest<'r> {
    pub spec: &'r Spec,
    pub image: &'r StackImage,
    /// The image's name for people; with its plan, where there are several.
    pub label: &'r str,
    pub kind: TestKind,
    /// The image, as the engine knows it: `repository:tag`.
    pub reference: &'r str,
    /// The root of the repository, where tests are started.
    pub root: &'r Path,
    /// Where JUnit files and logs are put.
    pub artifacts: &'r Artifacts,
    /// Workflow tests get the GPUs.
    pub gpu: bool,
    /// How long the suite may take, without waiting for others: [`LIMIT`].
    pub limit: Duration,
}

/// How a suite ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuiteOutcome {
    pub kind: TestKind,
    pub verdict: SuiteVerdict,
    /// How many tests ran, an executable file counting as one; without those that were skipped.
    pub tests: usize,
    /// How many of them failed.
    pub failures: usize,
    /// How long it took.
    pub seconds: f64,
    /// The failed ones that are known by name.
    pub failed: Vec<FailedTest>,
    /// Why it failed, where no test did: pytest ended in another way, the time was up.
    pub problem: Option<String>,
    /// JUnit files: pytest's own, and one for the executable files.
    pub junit: Vec<PathBuf>,
    /// All that was printed, as far as there is room for it; none without tests.
    pub log: Option<PathBuf>,
}

/// The sum of a suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SuiteVerdict {
    /// All of them did what they should.
    Passed,
    /// One of them did not.
    Failed,
    /// There are none.
    NoTests,
    /// They could not be run.
    NotRun,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailedTest {
    /// Its name: `images.base.test.test_start::test_server`, or the path of an executable file.
    pub name: String,
    /// What is said about it, in a line.
    pub message: String,
}

impl SuiteRequest<'_> {
    /// The folders with the tests of this kind that are there, on this machine.
    pub fn folders(&self) -> Vec<PathBuf> {
        folders(self.spec, &self.image.name, &self.image.directory, self.kind)
    }

    /// A JUnit file of this suite: `artifacts/ghcr.io-team-base-2026.10-main.basic-tests.xml`.
    fn junit(&self, ending: &str) -> PathBuf {
        self.artifacts
            .test_report(self.reference, &format!("{}-tests{ending}", self.kind))
    }

    /// Its log.
    fn log(&self) -> PathBuf {
        let kind = match self.kind {
            TestKind::Basic => LogKind::BasicTests,
            TestKind::Integration => LogKind::IntegrationTests,
            TestKind::Workflow => LogKind::WorkflowTests,
        };
        self.artifacts.log(self.reference, kind)
    }
}

impl SuiteOutcome {
    /// The outcome of no tests.
    fn none(kind: TestKind) -> Self {
        Self {
            kind,
            verdict: SuiteVerdict::NoTests,
            tests: 0,
            failures: 0,
            seconds: 0.0,
            failed: Vec::new(),
            problem: None,
            junit: Vec::new(),
            log: None,
        }
    }

    /// The outcome of tests that could not be run.
    pub fn not_run(kind: TestKind, why: &Error) -> Self {
        Self {
            verdict: SuiteVerdict::NotRun,
            problem: Some(why.with_causes()),
            ..Self::none(kind)
        }
    }

    /// The error of a suite that failed: it names the image, the kind and the log.
    pub fn error(&self, label: &str, reference: &str) -> Option<Error> {
        if self.verdict != SuiteVerdict::Failed {
            return None;
        }
        let what = match (&self.problem, self.failures) {
            (Some(problem), 0) => problem.clone(),
            (_, failures) => format!("{} of {} failed", failures, counted(self.tests, "test")),
        };
        let error = Error::failed(format!("the {} tests of {label} ({reference}): {what}", self.kind));
        Some(match &self.log {
            Some(log) => error.hint(hint!("all that they printed is in {}", log.display())),
            None => error,
        })
    }
}

/// The folders with the tests of a kind that are there, on this machine: of the image of this name in this directory. Integration tests
/// are those that spec.yml speaks of.
fn folders(spec: &Spec, name: &str, directory: &Path, kind: TestKind) -> Vec<PathBuf> {
    let own = |folder: &str| directory.join(folder);
    let folders = match kind {
        TestKind::Basic => [common_tests(directory), Some(own(BASIC_TESTS))],
        TestKind::Integration if !spec.image(name).is_some_and(|section| section.integration_tests) => [None, None],
        TestKind::Integration => [Some(own(INTEGRATION_TESTS)), None],
        TestKind::Workflow => [Some(own(WORKFLOW_TESTS)), None],
    };
    folders.into_iter().flatten().filter(|folder| folder.is_dir()).collect()
}

/// The directory with the basic tests of all images, beside the directory of one.
fn common_tests(directory: &Path) -> Option<PathBuf> {
    directory.parent().map(|images| images.join(COMMON_TESTS))
}

/// Whether there is a folder for tests of this kind of the image of this name in this directory.
pub fn has_tests(spec: &Spec, name: &str, directory: &Path, kind: TestKind) -> bool {
    !folders(spec, name, directory, kind).is_empty()
}

/// The folders of an image with tests of any kind, and that of all images.
pub(crate) fn all_folders(image: &StackImage) -> Vec<PathBuf> {
    let own = [BASIC_TESTS, INTEGRATION_TESTS, WORKFLOW_TESTS].map(|name| image.directory.join(name));
    common_tests(&image.directory).into_iter().chain(own).collect()
}

/// The files that people are to look at by themselves, in the order of their names.
pub fn manual_tests(image: &StackImage) -> Vec<PathBuf> {
    let entries = fs::read_dir(image.directory.join(MANUAL_TESTS))
        .into_iter()
        .flatten()
        .flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}

/// The lines that do the same in a shell, in the root of the repository: none without tests on this machine, and one for workflow
/// tests, wherever those are.
///
/// # Errors
/// pytest is needed, and not there; an engine that other programs can't be led to.
pub fn lines(request: &SuiteRequest<'_>, engine: &Choice, env: &Env) -> Result<Vec<String>> {
    Ok(match request.kind {
        TestKind::Basic | TestKind::Integration => SuitePlan::new(request, engine, env)?.lines(),
        TestKind::Workflow => vec![workflow::line(request, &env.user())],
    })
}

/// Runs a suite. Its output is shown as progress, and kept in the log; of a suite that failed, the last lines are printed.
///
/// Suites of pytest and executable files wait for each other on an engine, unless the spec says `parallel: true`: also for those of
/// other processes of this user, as long as those live.
///
/// # Errors
/// Tests that can't be run: no pytest, files that can't be written, an engine that fails. That tests fail is an outcome.
pub async fn run(context: &Context, engine: &Engine, request: &SuiteRequest<'_>) -> Result<SuiteOutcome> {
    request.artifacts.make()?;
    match request.kind {
        TestKind::Basic | TestKind::Integration => on_host::run(context, engine, request).await,
        TestKind::Workflow => workflow::run(context, engine, request).await,
    }
}
