//! Completions for bash, zsh and fish: clap's, and what an argument can name: docks, image types, images of a stack, networks
//! and the like.
//!
//! The shells ask the command itself, `COMMAND --dockerutils-complete KIND`, which prints one candidate a line. They
//! take each line as data: none of the functions here expands a word of it.

mod answers;

use clap_complete::Shell;

use crate::env::Env;
use crate::output::{Printer, Verbosity};

/// Hidden option by which the completions ask a command.
pub(super) const COMPLETE: &str = "--dockerutils-complete";

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CompletionKind {
    /// Docks.
    Docks,
    /// Docks and this machine.
    Places,
    /// What build-image builds.
    Build,
    /// What run-image runs.
    Run,
    /// Images of the stack.
    Stack,
    /// What run-notebook opens: images of the stack, and files.
    Opened,
    /// What publish-image publishes.
    Publish,
    /// Images, and then a destination.
    Transfer,
    /// Networks of the engine.
    Networks,
    /// Machines that ssh knows.
    Hosts,
    /// Docker contexts.
    Contexts,
    /// Containers of the project to go back to.
    Attachable,
    /// Containers with notebooks of the user.
    Notebooks,
    /// What syncs took and `--restore` brings back: here, and on the dock.
    KeptHere,
    KeptThere,
}

impl CompletionKind {
    const ALL: [Self; 15] = [
        Self::Docks,
        Self::Places,
        Self::Build,
        Self::Run,
        Self::Stack,
        Self::Opened,
        Self::Publish,
        Self::Transfer,
        Self::Networks,
        Self::Hosts,
        Self::Contexts,
        Self::Attachable,
        Self::Notebooks,
        Self::KeptHere,
        Self::KeptThere,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Docks => "docks",
            Self::Places => "places",
            Self::Build => "build",
            Self::Run => "run",
            Self::Stack => "stack",
            Self::Opened => "opened",
            Self::Publish => "publish",
            Self::Transfer => "transfer",
            Self::Networks => "networks",
            Self::Hosts => "hosts",
            Self::Contexts => "contexts",
            Self::Attachable => "attachable",
            Self::Notebooks => "notebooks",
            Self::KeptHere => "kept-here",
            Self::KeptThere => "kept-there",
        }
    }

    /// The long option without which the argument names no more than files.
    const fn condition(self) -> Option<&'static str> {
        match self {
            Self::KeptHere | Self::KeptThere => Some("restore"),
            _ => None,
        }
    }

    /// Whether the argument names files, too.
    const fn with_files(self) -> bool {
        matches!(self, Self::Opened)
    }

    /// What an argument of this command names; `None` if it is not the name of anything.
    fn of(command: &str, argument: &clap::Arg) -> Option<Self> {
        let names = argument.get_value_names().unwrap_or_default();
        let value = names.first().map_or("", |name| name.as_str());
        match (command, argument.get_id().as_str(), value) {
            (_, "dock" | "from", "DOCK") => Some(Self::Places),
            (_, _, "DOCK") => Some(Self::Docks),
            (_, _, "NETWORK") => Some(Self::Networks),
            ("build-image", "image", _) => Some(Self::Build),
            ("run-image", "image", _) => Some(Self::Run),
            ("build-stack", "images" | "only", _) | ("test-stack", "only", _) => Some(Self::Stack),
            ("run-notebook", "file", _) => Some(Self::Opened),
            ("publish-image", "image", _) => Some(Self::Publish),
            ("transfer-image", "positional", _) => Some(Self::Transfer),
            ("register-dock", "positional", _) => Some(Self::Hosts),
            ("register-dock", "context", _) => Some(Self::Contexts),
            ("run-image", "attach", _) => Some(Self::Attachable),
            ("run-notebook", "stop", _) => Some(Self::Notebooks),
            ("sync-down", "paths", _) => Some(Self::KeptHere),
            ("sync-up", "paths", _) => Some(Self::KeptThere),
            _ => None,
        }
    }
}

/// Answers a shell: `KIND`, and optionally the number of words before the one to complete.
pub(super) fn answer(command: &'static str, words: &[String], env: &Env) {
    let printer = Printer::new(command, Verbosity::Quiet, false, env);
    let kind = words
        .first()
        .and_then(|word| CompletionKind::ALL.into_iter().find(|kind| kind.word() == word));
    let before = words.get(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    if let Some(kind) = kind {
        let words = answers::answers(kind, before, env);
        words.iter().for_each(|word| printer.result(word));
    }
}

/// bash: adds the words that begin with what is typed, quoted. A colon begins a new word for bash, so the part before
/// the colon is left out.
const BASH_WORDS: &str = r#"
_dockerutils_words() {
    local typed=$3 before='' at=$COMP_CWORD word quoted
    if [[ ${COMP_WORDS[at]} == : ]]; then
        typed='' before=${COMP_WORDS[at - 1]}:
    elif ((at >= 2)) && [[ ${COMP_WORDS[at - 1]} == : ]]; then
        before=${COMP_WORDS[at - 2]}:
    fi
    COMPREPLY=()
    while IFS= read -r word; do
        if [[ $word == "$before"* ]]; then
            printf -v quoted '%q' "${word#"$before"}"
            if [[ ${word#"$before"} == "$typed"* || $quoted == "$typed"* ]]; then
                COMPREPLY+=("$quoted")
            fi
        fi
    done < <(command "$1" --dockerutils-complete "$2" "${4-0}" 2>/dev/null)
}
"#;

/// bash: adds files. As the words are file names then, bash quotes them, and ends a directory with a slash.
const BASH_FILES: &str = r#"        local file
        while IFS= read -r file; do
            COMPREPLY+=("$file")
        done < <(compgen -f -- "$2")
        compopt -o filenames 2>/dev/null
"#;

/// zsh: compadd quotes by itself.
const ZSH_WORDS: &str = r#"
_dockerutils_words() {
    local -a found before
    before=(${${(@)words[2,CURRENT-1]}:#-*})
    found=(${(f)"$(command $1 --dockerutils-complete $2 $#before 2>/dev/null)"})
    compadd -a found
}
_dockerutils_words_and_files() {
    _dockerutils_words $1 $2
    _files
}
_dockerutils_words_with() {
    if [[ -n ${words[(r)--$1]} ]]; then
        _dockerutils_words $2 $3
    else
        _files
    fi
}
"#;

/// The options and arguments of a command for which there are names to complete.
struct CompletionSpec {
    command: String,
    /// Options with their spellings.
    options: Vec<(Vec<String>, CompletionKind)>,
    /// Spellings of all options that take a value.
    valued: Vec<String>,
    /// The first positional argument that names something: its name, whether there may be several, and what it names.
    positional: Option<(String, bool, CompletionKind)>,
}

impl CompletionSpec {
    fn of(command: &clap::Command, name: &str) -> Self {
        let spellings = |argument: &clap::Arg| -> Vec<String> {
            let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
            let longs = longs.into_iter().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            longs.chain(short).collect()
        };
        let valued = || {
            command
                .get_opts()
                .filter(|argument| argument.get_action().takes_values())
        };
        Self {
            command: name.to_owned(),
            options: valued()
                .filter_map(|argument| Some((spellings(argument), CompletionKind::of(name, argument)?)))
                .collect(),
            valued: valued().flat_map(spellings).collect(),
            positional: command.get_positionals().find_map(|argument| {
                let many = matches!(argument.get_action(), clap::ArgAction::Append);
                Some((argument.get_id().to_string(), many, CompletionKind::of(name, argument)?))
            }),
        }
    }

    fn is_empty(&self) -> bool {
        self.options.is_empty() && self.positional.is_none()
    }
}

/// The completions of a command for a shell.
pub(super) fn script(command: &mut clap::Command, name: &str, shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, command, name, &mut out);
    let script = String::from_utf8_lossy(&out).into_owned();
    let names = CompletionSpec::of(command, name);
    if names.is_empty() {
        return script;
    }
    match shell {
        Shell::Bash => bash(&script, &names),
        Shell::Zsh => zsh(&script, &names),
        Shell::Fish => fish(&script, &names),
        _ => script,
    }
}

/// Where an argument names nothing, clap's function is called.
fn bash(script: &str, names: &CompletionSpec) -> String {
    let name = &names.command;
    let own = script
        .lines()
        .find_map(|line| line.strip_suffix("() {"))
        .unwrap_or_default()
        .trim();
    let function = format!("_dockerutils_{}", name.replace('-', "_"));
    let mut body = String::new();
    if !names.options.is_empty() {
        body.push_str("    case $3 in\n");
        for (spellings, kind) in &names.options {
            body.push_str(&format!(
                "    {})\n        _dockerutils_words {name} {} \"$2\"\n        return\n        ;;\n",
                spellings.join(" | "),
                kind.word()
            ));
        }
        body.push_str("    esac\n");
    }
    if let Some((_, many, kind)) = &names.positional {
        let valued = match names.valued.join(" | ") {
            none if none.is_empty() => none,
            valued => format!("        {valued}) index=$((index + 1)) ;;\n"),
        };
        // How many words before this one are neither options nor their values.
        body.push_str(&format!(
            "    local index before=0\n    for ((index = 1; index < COMP_CWORD; index++)); do\n        case \
             ${{COMP_WORDS[index]}} in\n{valued}        -*) ;;\n        *) before=$((before + 1)) ;;\n        \
             esac\n    done\n    if [[ $2 != -* ]] && ((index == COMP_CWORD)){}{}; then\n        _dockerutils_words {name} {} \
             \"$2\" \"$before\"\n{}        return\n    fi\n",
            if *many { "" } else { " && ((before == 0))" },
            match kind.condition() {
                Some(option) => format!(" && [[ \" ${{COMP_WORDS[*]:0:COMP_CWORD}} \" == *' --{option} '* ]]"),
                None => String::new(),
            },
            kind.word(),
            if kind.with_files() { BASH_FILES } else { "" }
        ));
        if *kind == CompletionKind::Docks && !many {
            // Behind the dock's name is a command on the dock, which this machine can't complete.
            body.push_str("    if ((before > 0)); then\n        COMPREPLY=()\n        return\n    fi\n");
        }
    }
    format!(
        "{script}{BASH_WORDS}\n{function}() {{\n{body}    {own} \"$@\"\n}}\n\ncomplete -F {function} -o bashdefault -o \
         default {name}\n"
    )
}

fn zsh(script: &str, names: &CompletionSpec) -> String {
    let mut lines = script.lines();
    // `#compdef NAME` must be the first line.
    let mut out = format!("{}\n{ZSH_WORDS}", lines.next().unwrap_or_default());
    // With a blank before it, zsh calls it as it is.
    let action = |kind: &CompletionKind| match kind.condition() {
        Some(option) => format!(": _dockerutils_words_with {option} {} {}'", names.command, kind.word()),
        None if kind.with_files() => format!(": _dockerutils_words_and_files {} {}'", names.command, kind.word()),
        None => format!(": _dockerutils_words {} {}'", names.command, kind.word()),
    };
    for line in lines {
        let named = names.positional.as_ref().filter(|(id, ..)| {
            let start = line.trim_start_matches(['\'', '*', ':']);
            line.starts_with('\'')
                && start
                    .strip_prefix(id.as_str())
                    .is_some_and(|rest| rest.starts_with(" -- ") || rest.starts_with(':'))
        });
        // `'-n+[...` and `'(--other)--network=[...`
        let option = names.options.iter().find(|(spellings, _)| {
            let start = line.trim_start_matches(['\'', '*']);
            let start = start
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(')'))
                .map_or(start, |(_, rest)| rest);
            let start = start.trim_start_matches('*');
            spellings.iter().any(|spelling| {
                start
                    .strip_prefix(spelling.as_str())
                    .is_some_and(|rest| rest.starts_with(['=', '+']))
            })
        });
        out.push_str(&match (named, option) {
            // `*::` would hide the words before it; for an optional argument zsh offers the next one's values, too.
            (Some((_, _, kind)), _) => line
                .replace(":_default'", &action(kind))
                .replace(":_files'", &action(kind))
                .replacen("'*::", "'*:", 1)
                .replacen("'::", "':", 1),
            (None, Some((_, kind))) => line.replace(":_default'", &action(kind)),
            (None, None) => line.to_owned(),
        });
        out.push('\n');
    }
    out
}

fn fish(script: &str, names: &CompletionSpec) -> String {
    let mut out = script.to_owned();
    let name = &names.command;
    // Each line of the answer is a word.
    let words = |kind: &CompletionKind| {
        format!(
            "(command {name} {COMPLETE} {} (math (count (commandline -opc | string match -v -- \"-*\")) - 1) 2>/dev/null)",
            kind.word()
        )
    };
    for (spellings, kind) in &names.options {
        for spelling in spellings {
            let (dash, word) = match spelling.strip_prefix("--") {
                Some(long) => ("-l", long),
                None => ("-s", spelling.trim_start_matches('-')),
            };
            out.push_str(&format!("complete -c {name} {dash} {word} -x -a '{}'\n", words(kind)));
        }
    }
    if let Some((_, many, kind)) = &names.positional {
        let first = match (many, kind.condition()) {
            (_, Some(option)) => format!(" -n '__fish_contains_opt {option}'"),
            (true, None) => String::new(),
            (false, None) => " -n __fish_is_first_token".to_owned(),
        };
        let files = if kind.with_files() { "" } else { " -f" };
        out.push_str(&format!("complete -c {name}{first}{files} -a '{}'\n", words(kind)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        for (at, kind) in CompletionKind::ALL.into_iter().enumerate() {
            assert_eq!(
                CompletionKind::ALL.iter().position(|other| other.word() == kind.word()),
                Some(at)
            );
        }
    }
}
