//! Names of variables, and where they are used.

/// Parts of names whose values change from build to build.
const CHANGING: [&str; 14] = [
    "VERSION",
    "REVISION",
    "COMMIT",
    "SHA",
    "DATE",
    "TIMESTAMP",
    "TIME",
    "BRANCH",
    "CACHEBUST",
    "REF",
    "VCS",
    "CREATED",
    "BUILD",
    "REV",
];

/// Variables that BuildKit sets for every FROM, and for the stages that declare them.
pub(super) const OF_PLATFORMS: [&str; 9] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

/// A use of a variable in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VariableUse {
    pub(super) name: String,
    /// Whether a word stands for it where it is not set, or it is an error then: `${A:-x}`, `${A?}`.
    pub(super) has_default: bool,
}

/// The variables that a text uses, in their order. What is in single quotes or escaped is no variable.
pub(super) fn uses(text: &str, escape: char) -> Vec<VariableUse> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    let (mut single, mut double) = (false, false);
    while let Some(c) = chars.next() {
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            _ if c == escape && !single => {
                chars.next();
            }
            '$' if !single => {
                let in_braces = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(part) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(part);
                }
                let has_default = in_braces && chars.peek().is_some_and(|c| *c != '}');
                let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                if is_name {
                    found.push(VariableUse { name, has_default });
                }
            }
            _ => {}
        }
    }
    found
}

/// Whether a shell's script, or an instruction, uses a variable: `$NAME` or `${NAME...}`.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('$').any(|(at, _)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        rest.strip_prefix(name).is_some_and(|after| !after.starts_with(is_part))
    })
}

/// Whether the value of a variable or label of this name changes from build to build.
pub(super) fn is_changing(name: &str) -> bool {
    let mut parts = name.split(['_', '.', '-']);
    parts.any(|part| CHANGING.iter().any(|changing| part.eq_ignore_ascii_case(changing)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_where_they_count() {
        let names = |text| -> Vec<String> { uses(text, '\\').into_iter().map(|used| used.name).collect() };
        assert_eq!(names("$A-${B}${C:-d} '$E' \\$F \"$G\" $1 $ ${"), ["A", "B", "C", "G"]);
        assert!(uses("${C:-d}", '\\')[0].has_default && !uses("${C}", '\\')[0].has_default);
        assert!(mentions("x ${A:-1}", "A") && mentions("$A.b", "A") && !mentions("$AB A ${AA}", "A"));
        assert!(is_changing("GIT_COMMIT") && is_changing("org.opencontainers.image.version") && !is_changing("USER"));
    }
}
