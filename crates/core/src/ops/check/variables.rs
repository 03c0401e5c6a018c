//! Names of variables, and where they are used.

use std::iter::Peekable;
use std::str::Chars;

use super::shell_script::ShellCommand;
use super::subject::RunStep;

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
    after_dollars(text, escape, |chars| {
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
        None::<()>
    });
    found
}

/// Why BuildKit refuses to replace the variables of a word: a character after a name in braces that is no operator.
pub(super) fn refused(word: &str, escape: char) -> Option<String> {
    after_dollars(word, escape, |chars| {
        chars.next_if_eq(&'{')?;
        let is_first = chars.peek().is_some_and(|c| c.is_alphabetic() || *c == '_');
        while chars.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {}
        match chars.peek()? {
            '}' | ':' | '+' | '-' | '?' | '#' | '%' | '/' => None,
            other => {
                is_first.then(|| format!("failed to process {word:?}: unsupported modifier ({other}) in substitution"))
            }
        }
    })
}

/// Looks at what stands behind each dollar sign that is neither escaped nor in single quotes, until something is found.
fn after_dollars<T>(
    text: &str,
    escape: char,
    mut look: impl FnMut(&mut Peekable<Chars<'_>>) -> Option<T>,
) -> Option<T> {
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
                let found = look(&mut chars);
                if found.is_some() {
                    return found;
                }
            }
            _ => {}
        }
    }
    None
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

/// Whether a text names a variable in any way: `$NAME`, `${NAME}`, `$Env:NAME` and `%NAME%` of Windows, `printenv NAME`, or in
/// a script's own words.
pub(super) fn names_variable(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + name.len()..).unwrap_or_default();
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Programs that do the same whatever variables of other programs are set.
const PLAIN_PROGRAMS: [&str; 55] = [
    "",
    "[",
    "addgroup",
    "adduser",
    "apk",
    "apt",
    "apt-get",
    "cat",
    "cd",
    "chgrp",
    "chmod",
    "chown",
    "cp",
    "curl",
    "cut",
    "date",
    "dnf",
    "echo",
    "fi",
    "find",
    "grep",
    "groupadd",
    "gunzip",
    "head",
    "id",
    "install",
    "ln",
    "ls",
    "microdnf",
    "mkdir",
    "mktemp",
    "mv",
    "pip",
    "pip3",
    "printf",
    "pwd",
    "rm",
    "rmdir",
    "sed",
    "set",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "true",
    "unzip",
    "useradd",
    "usermod",
    "wc",
    "wget",
    "yum",
];

/// Whether all that a RUN does is done by programs that ask for no variable of a project. A build of sources, or a script,
/// may read any.
pub(super) fn is_plain_run(run: &RunStep<'_>) -> bool {
    let is_plain = |command: &ShellCommand| {
        let is_of_project = command
            .arguments()
            .iter()
            .any(|word| matches!(word.text.as_str(), "." | "-e" | "--editable") || word.text.starts_with("./"));
        let is_pip = command.program().starts_with("pip");
        let has_script = command
            .words
            .iter()
            .any(|word| word.text.contains("$(") || word.text.contains('`'));
        PLAIN_PROGRAMS.contains(&command.program()) && !(is_pip && is_of_project) && !has_script
    };
    !run.commands.is_empty() && run.commands.iter().all(is_plain)
}

/// Variables that tools read by their own names, and that change what they do.
const READ_BY_TOOLS: [&str; 12] = [
    "ASDF_",
    "CMAKE_",
    "CONDA_",
    "GO",
    "NODE_",
    "NPM_",
    "PIP_",
    "PYTHON",
    "RUST",
    "SETUPTOOLS_SCM_",
    "PBR_",
    "SOURCE_DATE_",
];
const OF_VERSION_MANAGERS: [&str; 9] = [
    "PYENV", "RBENV", "NODENV", "JENV", "GOENV", "NVM", "POETRY", "PNPM", "DEBIAN",
];

/// Whether a variable of this name is known to be read by tools that no text names it for.
pub(super) fn is_read_by_tools(name: &str) -> bool {
    READ_BY_TOOLS.iter().any(|begin| name.starts_with(begin))
        || OF_VERSION_MANAGERS.iter().any(|begin| name.split('_').next() == Some(*begin))
        // Versions that installers read, such as INSTALL_K3S_VERSION.
        || name.starts_with("INSTALL_")
        || name == "DESIRED_VERSION"
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
        assert_eq!(
            refused("x${a.b}", '\\').as_deref(),
            Some("failed to process \"x${a.b}\": unsupported modifier (.) in substitution")
        );
        for word in ["${a}", "${a:-b.c}", "'${a.b}'", "\\${a.b}", "${a/b/c}", "$a.b"] {
            assert_eq!(refused(word, '\\'), None, "{word}");
        }
        for text in ["$Env:A", "%A%", "printenv A", "environ['A']", "${!A}"] {
            assert!(names_variable(text, "A"), "{text}");
        }
        assert!(!names_variable("$AB _A A1", "A"));
        for name in [
            "PYENV_VERSION",
            "RBENV_VERSION",
            "GOTOOLCHAIN",
            "SOURCE_DATE_EPOCH",
            "CMAKE_BUILD_TYPE",
        ] {
            assert!(is_read_by_tools(name), "{name}");
        }
        assert!(!is_read_by_tools("APP_VERSION") && !is_read_by_tools("GIT_COMMIT"));
        assert!(is_changing("GIT_COMMIT") && is_changing("org.opencontainers.image.version") && !is_changing("USER"));
    }
}
