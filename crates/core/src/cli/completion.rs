//! Completions for bash, zsh and fish: clap's, and the monikers of docks where an argument is one.
//!
//! An argument whose value is named `DOCK` is a moniker. The shells ask `dock-env --complete` for them, a line each, and take
//! each line as data: none of the functions here expands a word of it.

use clap_complete::Shell;

/// The name of values that are docks.
const DOCK: &str = "DOCK";

/// bash: adds the monikers that begin with the word, quoted.
const BASH_DOCKS: &str = r#"
_dockerutils_docks() {
    local dock quoted
    COMPREPLY=()
    while IFS= read -r dock; do
        printf -v quoted '%q' "$dock"
        if [[ $dock == "$1"* || $quoted == "$1"* ]]; then
            COMPREPLY+=("$quoted")
        fi
    done < <(command dock-env --complete 2>/dev/null)
}
"#;

/// zsh: compadd quotes by itself.
const ZSH_DOCKS: &str = r#"
_dockerutils_docks() {
    local -a docks
    docks=(${(f)"$(command dock-env --complete 2>/dev/null)"})
    compadd -a docks
}
"#;

/// fish: each line of the answer is a word.
const FISH_DOCKS: &str = "(command dock-env --complete 2>/dev/null)";

/// What a command has of docks.
struct Docks {
    /// Long options whose value is a dock.
    options: Vec<String>,
    /// Options, as they are typed, whose value is something else.
    others: Vec<String>,
    /// The name of the positional argument that is a dock, and whether there may be several.
    positional: Option<(String, bool)>,
}

impl Docks {
    fn of(command: &clap::Command) -> Self {
        let is_dock = |argument: &&clap::Arg| {
            let names = argument.get_value_names().unwrap_or_default();
            names.iter().any(|name| name.as_str() == DOCK)
        };
        let takes_value = |argument: &&clap::Arg| argument.get_action().takes_values();
        let options = || command.get_opts().filter(takes_value);
        Self {
            options: options()
                .filter(is_dock)
                .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
                .collect(),
            others: options()
                .flat_map(|argument| {
                    let long = argument.get_long().map(|long| format!("--{long}"));
                    let short = argument.get_short().map(|short| format!("-{short}"));
                    long.into_iter().chain(short)
                })
                .collect(),
            positional: command.get_positionals().find(is_dock).map(|argument| {
                (
                    argument.get_id().to_string(),
                    matches!(argument.get_action(), clap::ArgAction::Append),
                )
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
    let docks = Docks::of(command);
    if docks.is_empty() {
        return script;
    }
    match shell {
        Shell::Bash => bash(&script, name, &docks),
        Shell::Zsh => zsh(&script, &docks),
        Shell::Fish => fish(&script, name, &docks),
        _ => script,
    }
}

/// clap's function is asked where no dock is meant.
fn bash(script: &str, name: &str, docks: &Docks) -> String {
    let own = script
        .lines()
        .find_map(|line| line.strip_suffix("() {"))
        .unwrap_or_default()
        .trim();
    let function = format!("_dockerutils_{}", name.replace('-', "_"));
    let mut body = String::new();
    if !docks.options.is_empty() {
        let options = docks.options.join(" | ");
        body.push_str(&format!(
            "    case $3 in\n    {options})\n        _dockerutils_docks \"$2\"\n        return\n        ;;\n    esac\n"
        ));
    }
    if let Some((_, many)) = docks.positional {
        let others = match docks.others.join(" | ") {
            none if none.is_empty() => none,
            others => format!("        {others}) index=$((index + 1)) ;;\n"),
        };
        // How many words before this one are neither options nor their values.
        body.push_str(&format!(
            "    local index before=0\n    for ((index = 1; index < COMP_CWORD; index++)); do\n        case \
             ${{COMP_WORDS[index]}} in\n{others}        -*) ;;\n        *) before=$((before + 1)) ;;\n        \
             esac\n    done\n    if [[ $2 != -* ]] && ((index == COMP_CWORD)){}; then\n        _dockerutils_docks \
             \"$2\"\n        return\n    fi\n",
            if many { "" } else { " && ((before == 0))" }
        ));
        if !many {
            // What comes behind the dock is a command there, of which this machine knows nothing.
            body.push_str("    if ((before > 0)); then\n        COMPREPLY=()\n        return\n    fi\n");
        }
    }
    format!(
        "{script}{BASH_DOCKS}\n{function}() {{\n{body}    {own} \"$@\"\n}}\n\ncomplete -F {function} -o bashdefault -o \
         default {name}\n"
    )
}

fn zsh(script: &str, docks: &Docks) -> String {
    let mut lines = script.lines();
    // `#compdef NAME` stands first.
    let mut out = format!("{}\n{ZSH_DOCKS}", lines.next().unwrap_or_default());
    let positional = docks.positional.as_ref().map(|(id, _)| id.as_str());
    for line in lines {
        let is_positional = positional.is_some_and(|id| {
            let start = line.trim_start_matches(['\'', '*', ':']);
            line.starts_with('\'')
                && start
                    .strip_prefix(id)
                    .is_some_and(|rest| rest.starts_with(" -- ") || rest.starts_with(':'))
        });
        let line = line.replace(&format!(":{DOCK}:_default"), &format!(":{DOCK}:_dockerutils_docks"));
        out.push_str(&if is_positional {
            // `*::` would hide the words before it.
            line.replace(":_default'", ":_dockerutils_docks'")
                .replacen("'*::", "'*:", 1)
        } else {
            line
        });
        out.push('\n');
    }
    out
}

fn fish(script: &str, name: &str, docks: &Docks) -> String {
    let mut out = script.to_owned();
    for option in &docks.options {
        let option = option.trim_start_matches('-');
        out.push_str(&format!("complete -c {name} -l {option} -x -a '{FISH_DOCKS}'\n"));
    }
    if let Some((_, many)) = docks.positional {
        let first = if many { "" } else { " -n __fish_is_first_token" };
        out.push_str(&format!("complete -c {name}{first} -f -a '{FISH_DOCKS}'\n"));
    }
    out
}
