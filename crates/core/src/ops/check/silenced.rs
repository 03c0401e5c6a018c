//! Which rules are silent: by `# check=` in the Dockerfile, as BuildKit has it, by its build argument, and by the key `check_skip`.

use std::collections::BTreeSet;

use super::rules::{ONLY_OF_BUILDKIT, rules};
use crate::docker::options::build_options::BuildOptions;
use crate::docker::options::flags::parse_bool;
use crate::naming::nearest;

/// BuildKit's build argument with the same meaning as the directive.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The rules that are silent.
#[derive(Debug, Default)]
pub(super) struct Silenced {
    names: BTreeSet<String>,
    all: bool,
    /// Findings are errors.
    pub(super) is_error: bool,
    /// Sentences about what has no effect.
    pub(super) complaints: Vec<String>,
}

impl Silenced {
    /// `key` is the value of `check_skip`: names with blanks or commas between them.
    pub(super) fn of(directive: Option<&str>, options: &BuildOptions, key: &str) -> Self {
        let mut silenced = Self::default();
        // The argument replaces the directive, as with BuildKit.
        let (value, place) = match (options.build_args.get(ARGUMENT), directive) {
            (Some(value), _) => (value.as_str(), ARGUMENT),
            (None, value) => (value.unwrap_or_default(), "# check"),
        };
        for part in value.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("skip", names)) => silenced.skip(names, place),
                Some(("error", value)) => match parse_bool(value) {
                    Some(is_error) => silenced.is_error = is_error,
                    None => silenced
                        .complaints
                        .push(format!("{place}: error={value} is neither true nor false")),
                },
                Some(("experimental", _)) => {}
                _ => silenced
                    .complaints
                    .push(format!("{place}: {part} is neither skip=NAMES nor error=true")),
            }
        }
        silenced.skip(key, "check_skip");
        silenced
    }

    fn skip(&mut self, names: &str, place: &str) {
        for name in names.split([',', ' ', '\n', '\t']).filter(|name| !name.is_empty()) {
            if name == "all" {
                self.all = true;
                continue;
            }
            let known = || rules().map(|rule| rule.name).chain(ONLY_OF_BUILDKIT);
            if !known().any(|other| other == name) {
                let near = nearest(name, known())
                    .map(|near| format!(" (did you mean {near}?)"))
                    .unwrap_or_default();
                self.complaints.push(format!("{place}: there is no rule {name}{near}"));
            }
            self.names.insert(name.to_owned());
        }
    }

    /// Whether nothing is said by this rule.
    pub(super) fn silences(&self, rule: &str) -> bool {
        self.all || self.names.contains(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_silenced_where_buildkit_reads_it_and_by_the_key() {
        let options = BuildOptions::default();
        let silenced = Silenced::of(Some("skip=RootUser, AptUpgrade;error=true"), &options, "UnusedStage");
        for rule in ["RootUser", "AptUpgrade", "UnusedStage"] {
            assert!(silenced.silences(rule), "{rule}");
        }
        assert!(!silenced.silences("EarlyArg") && silenced.is_error && silenced.complaints.is_empty());
        assert!(Silenced::of(Some("skip=all"), &options, "").silences("EarlyArg"));
        assert!(Silenced::of(None, &options, "all").silences("EarlyArg"));
        let wrong = Silenced::of(Some("skip=RootUsr;error=maybe;x"), &options, "");
        assert_eq!(wrong.complaints.len(), 3, "{wrong:?}");
        assert!(wrong.complaints[0].contains("did you mean RootUser?"));
        let options = BuildOptions {
            build_args: [(ARGUMENT.to_owned(), "skip=EarlyArg".to_owned())].into(),
            ..BuildOptions::default()
        };
        let silenced = Silenced::of(Some("skip=RootUser"), &options, "");
        assert!(silenced.silences("EarlyArg") && !silenced.silences("RootUser"));
    }
}
