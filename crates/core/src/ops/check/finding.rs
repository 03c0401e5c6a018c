//! What a rule found: its line, what it costs, and what to write instead.

use std::ops::Range;

use serde::Serialize;

use crate::docker::build::dockerfile::source::SourceInstruction;

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
    /// What to write, with the line ends of the file but without the last one; empty, where the lines are to go.
    pub text: String,
    /// What ends a line in the file.
    #[serde(skip)]
    pub line_end: &'static str,
    /// Rules that would find something in these lines once the findings about them are heeded: that is changed, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
}
