//! What a rule found: its line, what it costs, and what to write instead.

use std::ops::Range;

use serde::Serialize;

use crate::docker::build::dockerfile::source::{DockerfileSource, SourceInstruction};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good practice; nothing breaks without it.
    Note,
    /// It costs time, space or surprises.
    Warning,
    /// A secret leaves this machine, or each change builds everything again. A build itself says so, too.
    Serious,
}

impl Severity {
    /// The word that is shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Serious => "serious",
        }
    }
}

/// A change of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// The bytes that are replaced; none of them, where something is put in.
    pub(super) bytes: Range<usize>,
    /// What is there then.
    pub(super) text: String,
}

/// What a rule found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinding {
    /// The name of the rule.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// The lines that it is about, from 1, the last one included.
    pub lines: (usize, usize),
    /// What is so, in a sentence without a full stop.
    pub message: String,
    /// What it costs, or risks.
    pub costs: String,
    /// What to do that is not a line of the Dockerfile, or beside it.
    pub advice: Option<String>,
    /// Whether it is the engine's BuildKit that found it.
    pub is_of_engine: bool,
    /// What to write instead.
    pub(super) edits: Vec<Edit>,
}

/// What a rule says of one place; its name and severity are the rule's.
#[derive(Clone, Debug, Default)]
pub(super) struct Remark {
    pub(super) lines: (usize, usize),
    pub(super) message: String,
    pub(super) costs: String,
    pub(super) advice: Option<String>,
    pub(super) edits: Vec<Edit>,
    /// Where it is not the rule's.
    pub(super) severity: Option<Severity>,
}

impl Remark {
    /// A remark about an instruction.
    pub(super) fn of(step: &SourceInstruction, message: impl Into<String>, costs: impl Into<String>) -> Self {
        Self {
            lines: (step.line, step.end),
            message: message.into(),
            costs: costs.into(),
            ..Self::default()
        }
    }

    /// The same with another severity than its rule's.
    pub(super) const fn of_severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    /// The same with something to do beside the Dockerfile.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The same with other bytes in place of these.
    pub(super) fn replace(mut self, bytes: Range<usize>, text: impl Into<String>) -> Self {
        self.edits.push(Edit {
            bytes,
            text: text.into(),
        });
        self
    }

    /// The same with something put in.
    pub(super) fn insert(self, at: usize, text: impl Into<String>) -> Self {
        self.replace(at..at, text)
    }
}

/// Lines to write in place of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replacement {
    /// The first line that they replace, from 1.
    pub first: usize,
    /// The last one.
    pub last: usize,
    /// What to write; empty, where the lines are to go.
    pub text: String,
}

/// In bytes; each finding has its own text, and there may be hundreds.
const LONGEST: usize = 64 * 1024;

/// What to write instead, for each finding: where several are about the same instructions, the same for all of them.
pub(super) fn replacements(source: &DockerfileSource<'_>, findings: &[CheckFinding]) -> Vec<Option<Replacement>> {
    // The edits that go together: of each finding all, or none.
    let mut taken: Vec<&Edit> = Vec::new();
    let mut regions: Vec<Option<(usize, usize)>> = Vec::new();
    let mut is_taken = Vec::new();
    for finding in findings {
        let fits = finding.edits.iter().all(|edit| {
            taken
                .iter()
                .all(|other| *other == edit || !collide(&edit.bytes, &other.bytes))
        });
        if fits {
            for edit in &finding.edits {
                if !taken.contains(&edit) {
                    taken.push(edit);
                }
            }
        }
        is_taken.push(fits);
        regions.push(region(source, &finding.edits));
    }
    // Regions that touch the same instruction become one.
    let mut joined: Vec<(usize, usize)> = Vec::new();
    let of_taken = regions.iter().zip(&is_taken).filter(|(_, is_taken)| **is_taken);
    for (first, last) in of_taken.filter_map(|(region, _)| *region) {
        let (mut first, mut last) = (first, last);
        joined.retain(|(other_first, other_last)| {
            let apart = *other_last < first || last < *other_first;
            if !apart {
                first = first.min(*other_first);
                last = last.max(*other_last);
            }
            apart
        });
        joined.push((first, last));
    }
    findings
        .iter()
        .zip(regions)
        .zip(is_taken)
        .map(|((finding, region), is_taken)| {
            let (first, last) = region?;
            if !is_taken {
                let own: Vec<&Edit> = finding.edits.iter().collect();
                return written(source, first, last, &own);
            }
            let (first, last) = joined
                .iter()
                .copied()
                .find(|(from, to)| *from <= first && last <= *to)?;
            written(source, first, last, &taken)
        })
        .collect()
}

/// Whether two changes can't both be made: insertions at one place can.
fn collide(one: &Range<usize>, other: &Range<usize>) -> bool {
    match (one.is_empty(), other.is_empty()) {
        (true, true) => false,
        (true, false) => other.start < one.start && one.start < other.end,
        (false, true) => one.start < other.start && other.start < one.end,
        (false, false) => one.start < other.end && other.start < one.end,
    }
}

/// The lines of the instructions that edits are in.
fn region(source: &DockerfileSource<'_>, edits: &[Edit]) -> Option<(usize, usize)> {
    let first = edits.iter().map(|edit| edit.bytes.start).min()?;
    let last = edits
        .iter()
        .map(|edit| edit.bytes.end.max(edit.bytes.start + 1) - 1)
        .max()?;
    let mut lines = (usize::MAX, 0);
    for step in &source.instructions {
        let bytes = source.start_of(step.line)..source.start_of(step.end + 1);
        if bytes.start <= last && first < bytes.end {
            lines = (lines.0.min(step.line), lines.1.max(step.end));
        }
    }
    if lines.1 == 0 {
        // After the last instruction.
        let step = source.instructions.last()?;
        lines = (step.line, step.end);
    }
    Some(lines)
}

/// The lines with the edits that are in them; `None` if they are more than anybody pastes.
fn written(source: &DockerfileSource<'_>, first: usize, last: usize, edits: &[&Edit]) -> Option<Replacement> {
    let (begin, end) = (source.start_of(first), source.start_of(last + 1));
    if end.saturating_sub(begin) > LONGEST {
        return None;
    }
    let mut inside: Vec<&&Edit> = edits
        .iter()
        .filter(|edit| begin <= edit.bytes.start && edit.bytes.end <= end)
        .collect();
    inside.sort_by_key(|edit| (edit.bytes.start, edit.bytes.end));
    let mut text = String::new();
    let mut at = begin;
    for edit in inside {
        text.push_str(source.text.get(at..edit.bytes.start).unwrap_or_default());
        text.push_str(&edit.text);
        at = edit.bytes.end.max(at);
    }
    text.push_str(source.text.get(at..end).unwrap_or_default());
    let text = text.trim_end_matches(['\n', '\r']).to_owned();
    Some(Replacement { first, last, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(edits: &[(Range<usize>, &str)]) -> CheckFinding {
        CheckFinding {
            rule: "Rule".to_owned(),
            severity: Severity::Note,
            lines: (1, 1),
            message: String::new(),
            costs: String::new(),
            advice: None,
            is_of_engine: false,
            edits: edits
                .iter()
                .map(|(bytes, text)| Edit {
                    bytes: bytes.clone(),
                    text: (*text).to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn changes_of_the_same_lines_are_written_together() {
        let source = DockerfileSource::read("FROM a\nRUN b \\\n  c\nRUN d\n");
        let findings = [
            finding(&[(0..4, "from")]),
            finding(&[(11..12, "B")]),
            finding(&[(17..18, "C"), (18..18, " e")]),
            finding(&[(17..18, "X")]),
            finding(&[]),
        ];
        let replacement = |first, last, text: &str| {
            Some(Replacement {
                first,
                last,
                text: text.to_owned(),
            })
        };
        assert_eq!(
            replacements(&source, &findings),
            [
                replacement(1, 1, "from a"),
                replacement(2, 3, "RUN B \\\n  C e"),
                replacement(2, 3, "RUN B \\\n  C e"),
                replacement(2, 3, "RUN b \\\n  X"),
                None,
            ]
        );
    }
}
