//! How the tests of a stack ended: as a table, or as a document.

use std::path::PathBuf;

use dockerutils_core::error::{Error, ErrorDocument, ExitStatus, Result};
use dockerutils_core::output::table::{Align, Table};
use dockerutils_core::output::{Printer, counted, visible};
use serde::Serialize;

use crate::suites::{SuiteOutcome, SuiteVerdict};

/// What test-stack found out.
#[derive(Debug, Serialize)]
pub(super) struct TestReport {
    /// The tag that was asked for.
    pub(super) tag: Option<String>,
    pub(super) images: Vec<TestedImage>,
}

/// An image, and its suites.
#[derive(Debug, Serialize)]
pub(super) struct TestedImage {
    image: String,
    /// The plan whose tag it has.
    plan: String,
    /// `repository:tag`.
    pub(super) reference: String,
    /// The digest of its manifest in the registry, where it was pulled.
    pub(super) digest: Option<String>,
    pub(super) suites: Vec<SuiteReport>,
    /// How many of the suites the registry was told the end of.
    pub(super) verdicts: usize,
    /// The files of tests that people do.
    pub(super) manual: Vec<PathBuf>,
    #[serde(flatten)]
    why: Option<ErrorDocument>,
    #[serde(skip)]
    status: ExitStatus,
}

/// A suite.
#[derive(Debug, Serialize)]
pub(super) struct SuiteReport {
    #[serde(flatten)]
    pub(super) outcome: SuiteOutcome,
    /// Why it failed, or could not be run. (`kind` is the suite's here, and not the error's.)
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    status: ExitStatus,
}

impl SuiteReport {
    pub(super) fn new(outcome: SuiteOutcome, error: Option<&Error>) -> Self {
        Self {
            outcome,
            error: error.map(Error::with_causes),
            hint: error.and_then(Error::hint_text).map(str::to_owned),
            status: error.map_or(ExitStatus::SUCCESS, |error| error.class().status()),
        }
    }

    /// How it ended, for people.
    fn says(&self) -> String {
        let SuiteOutcome { tests, failures, .. } = &self.outcome;
        match self.outcome.verdict {
            SuiteVerdict::Passed => format!("{} passed", counted(*tests, "test")),
            SuiteVerdict::Failed if *failures > 0 => format!("{failures} of {} failed", counted(*tests, "test")),
            SuiteVerdict::Failed => "failed".to_owned(),
            SuiteVerdict::NoTests => "no tests".to_owned(),
            SuiteVerdict::NotRun => "could not be run".to_owned(),
        }
    }
}

impl TestedImage {
    pub(super) fn new(image: &str, plan: &str, reference: &str) -> Self {
        Self {
            image: image.to_owned(),
            plan: plan.to_owned(),
            reference: reference.to_owned(),
            digest: None,
            suites: Vec::new(),
            verdicts: 0,
            manual: Vec::new(),
            why: None,
            status: ExitStatus::SUCCESS,
        }
    }

    /// It could not be tested.
    pub(super) fn fails(&mut self, error: &Error) {
        self.why = Some(error.document());
        self.status = error.class().status();
    }
}

impl TestReport {
    /// Prints it, and says how the command ends: with the worst of all codes.
    pub(super) fn show(&self, printer: &Printer) -> Result<ExitStatus> {
        if printer.json() {
            printer.result_json(self)?;
        } else {
            let columns = [
                ("IMAGE", Align::Left),
                ("REFERENCE", Align::Left),
                ("TESTS", Align::Left),
                ("RESULT", Align::Left),
                ("TIME", Align::Right),
            ];
            let mut table = Table::new(columns);
            for image in &self.images {
                let row = |kind: &str, result: String, time: String| {
                    [
                        visible(&image.image),
                        visible(&image.reference),
                        kind.to_owned(),
                        result,
                        time,
                    ]
                };
                if image.why.is_some() {
                    table.row(row("-", "could not be tested".to_owned(), "-".to_owned()));
                }
                for suite in &image.suites {
                    let time = match suite.outcome.verdict {
                        SuiteVerdict::Passed | SuiteVerdict::Failed => format!("{:.1} s", suite.outcome.seconds),
                        SuiteVerdict::NoTests | SuiteVerdict::NotRun => "-".to_owned(),
                    };
                    table.row(row(suite.outcome.kind.name(), suite.says(), time));
                }
            }
            printer.table(&table);
        }
        let suites = self.images.iter().flat_map(|image| &image.suites);
        let codes = suites
            .map(|suite| suite.status)
            .chain(self.images.iter().map(|image| image.status));
        let worst = codes.map(ExitStatus::code).max().unwrap_or_default();
        Ok(ExitStatus::from_code(worst))
    }
}
