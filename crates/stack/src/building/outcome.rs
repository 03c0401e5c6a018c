//! What came of each image, for people and as a document.

use std::path::PathBuf;

use dockerutils_core::error::{Error, ErrorDocument, ExitStatus};
use dockerutils_core::ops::build::BuildNumbers;
use dockerutils_core::output::counted;
use dockerutils_core::output::table::{Align, Table};
use serde::Serialize;

use crate::plan::PlannedImage;
use crate::suites::SuiteOutcome;

/// What came of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StackStatus {
    /// It was built; and pushed, unless that was not wanted.
    Built,
    /// Its manifest has the branch's tag now.
    Copied,
    /// What was there passed its tests.
    Tested,
    /// There was nothing to do.
    Unchanged,
    /// It failed, or its tests did.
    Failed,
    /// An image that it starts from failed.
    Skipped,
}

impl StackStatus {
    const fn word(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Copied => "copied",
            Self::Tested => "tested",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// An image of the plan, with what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct StackResult {
    #[serde(flatten)]
    pub planned: PlannedImage,
    pub status: StackStatus,
    /// The digest of the manifest that the registry has by the branch's tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The references that lead to it in the registry now.
    pub tags: Vec<String>,
    /// How long it took, without waiting for others.
    pub seconds: f64,
    /// Its build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildNumbers>,
    /// Its tests that ran.
    pub suites: Vec<SuiteOutcome>,
    /// Whether it was removed from the engine, as `prune` in spec.yml wants it.
    pub pruned: bool,
    /// Whether it was pushed; `None` if nobody tried.
    #[serde(skip)]
    pub pushed: Option<bool>,
    /// The file with what its build, or the tests that failed, said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The page that describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<PathBuf>,
    /// Why it failed, or was skipped.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub why: Option<ErrorDocument>,
    /// The last lines of the step that failed, and the Dockerfile around its line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excerpts: Vec<String>,
    /// The exit code that it asks for.
    #[serde(skip)]
    pub code: ExitStatus,
}

impl StackResult {
    /// The result of an image of which nothing has come yet.
    pub const fn of(planned: PlannedImage) -> Self {
        Self {
            planned,
            status: StackStatus::Unchanged,
            digest: None,
            tags: Vec::new(),
            seconds: 0.0,
            build: None,
            suites: Vec::new(),
            pruned: false,
            pushed: None,
            log: None,
            page: None,
            why: None,
            excerpts: Vec::new(),
            code: ExitStatus::SUCCESS,
        }
    }

    /// It failed for this reason.
    pub fn failed(&mut self, error: &Error) {
        self.status = StackStatus::Failed;
        self.code = error.class().status();
        self.why = Some(error.document());
    }
}

/// The error that names all that failed; `None` where nothing did.
pub fn failure(results: &[StackResult]) -> Option<Error> {
    let of = |status| {
        let images = results.iter().filter(move |result| result.status == status);
        images.map(|result| result.planned.label.as_str()).collect::<Vec<_>>()
    };
    let (failed, skipped) = (of(StackStatus::Failed), of(StackStatus::Skipped));
    if failed.is_empty() {
        return None;
    }
    let mut message = format!(
        "{} of {} failed: {}",
        failed.len(),
        counted(results.len(), "image"),
        failed.join(", ")
    );
    if !skipped.is_empty() {
        message += &format!("; skipped, as they start from these: {}", skipped.join(", "));
    }
    Some(Error::failed(message).hint("mend it, and call the same again: what is done is not done twice"))
}

/// The worst code.
pub fn status(results: &[StackResult]) -> ExitStatus {
    let codes = results.iter().map(|result| result.code);
    codes.max().unwrap_or(ExitStatus::SUCCESS)
}

/// A line for each image.
pub fn table(results: &[StackResult]) -> Table {
    let mut table = Table::new([
        ("IMAGE", Align::Left),
        ("STATUS", Align::Left),
        ("SECONDS", Align::Right),
        ("REFERENCE", Align::Left),
    ]);
    for result in results {
        table.row([
            result.planned.label.clone(),
            result.status.word().to_owned(),
            format!("{:.1}", result.seconds),
            result.planned.reference.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action;

    fn result(label: &str, status: StackStatus) -> StackResult {
        let mut result = StackResult::of(PlannedImage {
            label: label.to_owned(),
            image: label.to_owned(),
            plan: "p".to_owned(),
            parent: None,
            reference: format!("{label}:1"),
            action: Action::Build,
            tests: true,
            input: String::new(),
            reasons: Vec::new(),
        });
        result.status = status;
        result
    }

    #[test]
    fn all_that_failed_are_named() {
        use StackStatus::{Built, Failed, Skipped};
        assert!(failure(&[result("a", Built)]).is_none());
        let results = [
            result("a", Built),
            result("b", Failed),
            result("c", Skipped),
            result("d", Failed),
        ];
        assert_eq!(
            failure(&results).unwrap().to_string(),
            "2 of 4 images failed: b, d; skipped, as they start from these: c"
        );
    }

    #[test]
    fn an_error_is_beside_the_plan_in_the_document() {
        let mut failed = result("a", StackStatus::Built);
        failed.failed(&Error::unreachable("the registry is gone").hint("start it"));
        let document = serde_json::to_value(&failed).unwrap();
        assert_eq!(document["error"], "the registry is gone");
        assert_eq!(document["hint"], "start it");
        assert_eq!(document["status"], "failed");
        assert_eq!(document["action"], "build");
        assert_eq!(status(&[failed]), ExitStatus::UNREACHABLE);
    }
}
