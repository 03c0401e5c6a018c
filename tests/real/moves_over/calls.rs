//! The file `calls` of a project.
//!
//! A line that is not indented is a call, as a shell in the project's root takes it; variables may stand before it.
//! Indented lines under it name the rules by which ours may differ, each with the text that the rule needs: `NAME` or
//! `NAME: TEXT`. The texts of a name that stands there several times are the lines of one. `#` begins a comment line.

use std::fmt;
use std::fs;
use std::path::Path;

/// What is typed, and how ours may differ.
pub struct Call {
    /// A line of shell.
    pub line: String,
    /// Names of rules and their texts.
    pub differences: Vec<(String, String)>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// The calls of a project.
pub fn of(project: &Path) -> Vec<Call> {
    let file = project.join("calls");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut calls: Vec<Call> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        if !line.starts_with(' ') {
            calls.push(Call {
                line: line.to_owned(),
                differences: Vec::new(),
            });
            continue;
        }
        let call = calls
            .last_mut()
            .unwrap_or_else(|| panic!("{}: a rule before any call", file.display()));
        let (name, text) = line.trim().split_once(": ").unwrap_or((line.trim(), ""));
        match call.differences.iter_mut().find(|(known, _)| known == name) {
            Some((_, lines)) => lines.extend(["\n", text]),
            None => call.differences.push((name.to_owned(), text.to_owned())),
        }
    }
    assert!(!calls.is_empty(), "{}: no call", file.display());
    calls
}
