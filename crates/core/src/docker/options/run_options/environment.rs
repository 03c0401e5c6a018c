//! `--env`, `--env-file`, `--label` and `--label-file`.

use std::collections::HashMap;
use std::path::Path;

use super::error::{GivenOption, OptionError};
use super::facts::ClientFacts;

/// Finds an environment variable of the client.
type Look<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment variables or the labels of the container: those of files first, then the single ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pairs {
    /// Files with one pair on each line.
    pub files: Vec<GivenOption>,
    /// `NAME=VALUE` or `NAME`.
    pub single: Vec<GivenOption>,
}

impl Pairs {
    /// Adds one environment variable.
    pub fn variable(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        if name(&entry.value).is_empty() {
            // Only the fault is shown: what follows may be a secret.
            return Err(GivenOption {
                value: "=...".to_owned(),
                ..entry
            }
            .refuse("has no name"));
        }
        self.single.push(entry);
        Ok(())
    }

    /// Adds one label.
    pub fn label(&mut self, entry: GivenOption) -> Result<(), OptionError> {
        let name = name(&entry.value).trim_start_matches([' ', '\t']);
        if name.is_empty() {
            return Err(entry.refuse("has no name"));
        }
        if name.contains([' ', '\t']) {
            return Err(entry.refuse("has a blank in its name"));
        }
        self.single.push(entry);
        Ok(())
    }

    /// Whether some `--env` sets this variable, or takes it from the client's environment.
    pub fn names(&self, variable: &str) -> bool {
        self.single.iter().any(|entry| name(&entry.value) == variable)
    }

    /// The variables, as `NAME=VALUE`. A `NAME` alone is one that the client doesn't have: the engine then leaves out
    /// the image's variable of that name.
    pub fn variables(&self, facts: &ClientFacts<'_>) -> Result<Vec<String>, OptionError> {
        let mut variables = Vec::new();
        for file in &self.files {
            variables.extend(lines(file, facts, Some(facts.env))?);
        }
        let mut single: Vec<(&str, String)> = Vec::new();
        for entry in &self.single {
            let name = name(&entry.value);
            let pair = match (entry.value.contains('='), (facts.env)(name)) {
                (false, Some(value)) => format!("{name}={value}"),
                _ => entry.value.clone(),
            };
            match single.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = pair,
                None => single.push((name, pair)),
            }
        }
        variables.extend(single.into_iter().map(|(_, pair)| pair));
        for (name, value) in facts.proxies {
            if !self.names(name) {
                variables.push(format!("{name}={value}"));
            }
        }
        Ok(variables)
    }

    /// The labels by name.
    pub fn labels(&self, facts: &ClientFacts<'_>) -> Result<HashMap<String, String>, OptionError> {
        let mut labels = HashMap::new();
        for file in &self.files {
            labels.extend(lines(file, facts, None)?.iter().map(|line| pair(line)));
        }
        labels.extend(self.single.iter().map(|entry| pair(&entry.value)));
        Ok(labels)
    }
}

fn name(text: &str) -> &str {
    text.split_once('=').map_or(text, |(name, _)| name)
}

/// `NAME=VALUE` as two parts; without `=`, the value is empty.
pub(super) fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// The pairs of a file. A name without value is looked up, and left out when it isn't found.
fn lines(entry: &GivenOption, facts: &ClientFacts<'_>, look_up: Option<Look<'_>>) -> Result<Vec<String>, OptionError> {
    let bytes = (facts.read_file)(&facts.working_dir.join(Path::new(&entry.value)))
        .map_err(|source| entry.unreadable(source))?;
    let mut pairs = Vec::new();
    let content = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let fault = |reason| OptionError::Line {
            option: entry.option.clone(),
            file: entry.value.clone(),
            line: index + 1,
            reason,
        };
        let line = std::str::from_utf8(line).map_err(|_| fault("is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = name(line);
        if name.is_empty() {
            return Err(fault("has no name before its `=`"));
        }
        if name.contains([' ', '\t']) {
            return Err(fault("has a blank in its name"));
        }
        if line.contains('=') {
            pairs.push(line.to_owned());
        } else if let Some(value) = look_up.and_then(|look_up| look_up(name)) {
            pairs.push(format!("{name}={value}"));
        }
    }
    Ok(pairs)
}
