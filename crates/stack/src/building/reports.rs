//! The files that a run leaves behind: a result for each image, an index of the pages, what CI shows.

use std::path::PathBuf;

use dockerutils_core::cli::Context;
use dockerutils_core::error::Result;

use super::outcome::{StackResult, StackStatus};
use crate::artifacts::{Artifacts, ImageOutcome, ImageResult, TestsOfImage};
use crate::plan::StackPlan;
use crate::suites::{SuiteOutcome, SuiteVerdict};
use crate::{manifests, summary};

impl StackStatus {
    const fn outcome(self) -> ImageOutcome {
        match self {
            Self::Built => ImageOutcome::Built,
            Self::Copied => ImageOutcome::Copied,
            Self::Tested => ImageOutcome::Tested,
            Self::Unchanged => ImageOutcome::Unchanged,
            Self::Failed => ImageOutcome::Failed,
            Self::Skipped => ImageOutcome::LeftOut,
        }
    }
}

impl StackResult {
    /// The same, as files and CI have it.
    fn of_image(&self) -> ImageResult {
        ImageResult {
            label: self.planned.label.clone(),
            reference: self.planned.reference.clone(),
            outcome: self.status.outcome(),
            digest: self.digest.clone(),
            pushed: self.pushed,
            tests: self.suites.iter().map(tests).collect(),
            seconds: self.seconds,
            message: self.why.as_ref().map(|why| why.error.clone()).unwrap_or_default(),
            log: self.log.clone(),
            excerpt: self
                .excerpts
                .iter()
                .flat_map(|text| text.lines())
                .map(str::to_owned)
                .collect(),
        }
    }
}

fn tests(outcome: &SuiteOutcome) -> TestsOfImage {
    TestsOfImage {
        kind: outcome.kind.name().to_owned(),
        passed: match outcome.verdict {
            SuiteVerdict::Passed => Some(true),
            SuiteVerdict::Failed => Some(false),
            SuiteVerdict::NoTests | SuiteVerdict::NotRun => None,
        },
        tests: outcome.tests,
        failures: outcome.failures,
    }
}

/// Writes the results of a run, the index of all pages, and the summary where CI shows it: of that the file.
///
/// # Errors
/// A file that can't be written.
pub fn write(
    context: &Context,
    artifacts: &Artifacts,
    plan: &StackPlan,
    results: &[StackResult],
) -> Result<Option<PathBuf>> {
    let images: Vec<ImageResult> = results.iter().map(StackResult::of_image).collect();
    artifacts.make()?;
    for image in &images {
        artifacts.write_result(image)?;
    }
    manifests::write_index(artifacts)?;
    summary::write(&context.env, artifacts, &summary::of_run(plan, &images))
}
