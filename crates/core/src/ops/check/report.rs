//! What a check found, for people and for programs.

use serde::Serialize;

use super::facts::CheckedImage;
use super::finding::{Replacement, Severity};
use super::{CheckFinding, CheckOptions, Checked, sarif};
use crate::error::Result;
use crate::output::{Printer, counted, is_invisible, one_line, visible};

/// What is found in the Dockerfile of one image type.
#[derive(Debug, Serialize)]
pub struct Report {
    image: String,
    /// Relative to the root.
    pub(super) dockerfile: String,
    pub(super) findings: Vec<ReportedFinding>,
    /// What a builder would refuse it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ReportedFault>,
    #[serde(skip)]
    is_error: bool,
}

/// A finding, as documents have it.
#[derive(Debug, Serialize)]
pub(super) struct ReportedFinding {
    pub(super) rule: String,
    pub(super) severity: Severity,
    /// `dockerutils` or `buildkit`: whose words these are.
    found_by: &'static str,
    pub(super) file: String,
    /// From 1.
    pub(super) line: usize,
    pub(super) end_line: usize,
    pub(super) message: String,
    pub(super) costs: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
    /// Lines to write in place of others: the same for all findings in the same lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) instead: Option<Replacement>,
}

/// Why nothing after a line was looked at.
#[derive(Debug, Serialize)]
pub(super) struct ReportedFault {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Report {
    pub(super) fn new(image: &CheckedImage, checked: Checked) -> Self {
        let file = visible(&image.file.display().to_string());
        let found = checked.findings.into_iter().zip(checked.replacements);
        Self {
            image: image.image.clone(),
            findings: found
                .map(|(finding, instead)| reported(&file, finding, instead))
                .collect(),
            dockerfile: file,
            error: checked.fault.map(|fault| ReportedFault {
                line: fault.line,
                message: one_line(&fault.message),
            }),
            is_error: checked.is_error,
        }
    }

    pub(super) const fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    pub(super) const fn has_fault(&self) -> bool {
        self.error.is_some()
    }

    /// Whether the Dockerfile itself says that findings are errors.
    pub(super) const fn is_error(&self) -> bool {
        self.is_error
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// What a finding says may be a word of the Dockerfile, or the engine's: it is made visible here, for what is no terminal, too.
fn reported(file: &str, finding: CheckFinding, instead: Option<Replacement>) -> ReportedFinding {
    ReportedFinding {
        rule: one_line(&finding.rule),
        severity: finding.severity,
        found_by: if finding.is_of_engine {
            "buildkit"
        } else {
            "dockerutils"
        },
        file: file.to_owned(),
        line: finding.lines.0,
        end_line: finding.lines.1,
        message: one_line(&finding.message),
        costs: one_line(&finding.costs),
        advice: finding.advice.as_deref().map(one_line),
        instead,
    }
}

/// Prints them: as text, JSON or SARIF.
pub(super) fn print(printer: &Printer, reports: &[Report], how: CheckOptions) -> Result<()> {
    if how.is_sarif {
        return printer.result_json(&sarif::document(reports));
    }
    if printer.json() {
        return printer.result_json(&serde_json::json!({ "images": reports }));
    }
    for report in reports {
        lines(report).iter().for_each(|line| printer.result(line));
    }
    Ok(())
}

/// The lines of a text that is to be pasted; `None` if characters in it would not be there where it is shown.
fn pasteable(text: &str) -> Option<impl Iterator<Item = &str>> {
    // A byte order mark at the beginning means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_shown = |line: &str| !line.chars().any(|c| c != '\t' && is_invisible(c));
    text.lines().all(is_shown).then(|| text.lines())
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let findings = &report.findings;
    for (index, finding) in findings.iter().enumerate() {
        let place = format!("{}:{}", finding.file, finding.line);
        lines.push(format!(
            "{place}: {}: {}: {}",
            finding.severity.word(),
            finding.rule,
            finding.message
        ));
        lines.push(format!("    costs: {}", finding.costs));
        // Lines that several findings change are written once, after the last of these.
        let later = findings
            .iter()
            .skip(index + 1)
            .any(|other| other.instead == finding.instead);
        if let Some(instead) = finding.instead.as_ref().filter(|_| !later) {
            let what = match instead.first == instead.last {
                true => format!("line {}", instead.first),
                false => format!("lines {} to {}", instead.first, instead.last),
            };
            if instead.text.trim().is_empty() {
                lines.push(format!("    delete {what}"));
            } else if let Some(written) = pasteable(&instead.text) {
                lines.push(format!("    instead of {what}:"));
                lines.extend(written.map(|line| format!("        {line}").trim_end().to_owned()));
            } else {
                lines.push(format!(
                    "    {what}: what to write has characters that can't be shown, and so is only in the output of --json"
                ));
            }
            if !instead.also.is_empty() {
                lines.push(format!("    these lines also heed {}", instead.also.join(", ")));
            }
        }
        if let Some(advice) = &finding.advice {
            lines.push(format!("    {advice}"));
        }
    }
    if let Some(fault) = &report.error {
        lines.push(format!(
            "{}:{}: error: {}",
            report.dockerfile, fault.line, fault.message
        ));
        lines.push("    a builder refuses it; what comes after it was not checked".to_owned());
    }
    let counts = [
        (report.count(Severity::Serious), "serious finding"),
        (report.count(Severity::Warning), "warning"),
        (report.count(Severity::Note), "note"),
    ];
    let counts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| counted(count, what))
        .collect();
    let sum = match (counts.is_empty(), report.has_fault()) {
        (true, false) => "nothing found".to_owned(),
        (true, true) => "broken".to_owned(),
        (false, _) => counts.join(", "),
    };
    lines.push(format!("{}: {sum}", report.dockerfile));
    lines
}
