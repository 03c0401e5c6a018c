//! The code that docks a shell: fixed text, and values in quotes.

use std::collections::BTreeMap;

use dockerutils_core::ops::docks::environment::{Shell, quote_fish, quote_posix};

/// The shim that bash and zsh source; its functions are between two marks.
const SHIM: &str = include_str!("../shim/dock.sh");
/// The functions for fish.
const FISH: &str = include_str!("../shim/dock.fish");

/// The variables that a shell inherits from the docked shell that started it.
const INHERITED: &str = "DOCKER_HOST DOCKER_IP DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH \
                         TESTCONTAINERS_HOST_OVERRIDE TC_HOST TESTCONTAINERS_CONNECTION_MODE \
                         TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE";

/// Code that sets these lines `NAME=VALUE` in the shell that evaluates it. An adopted shell does not go back to the
/// variables that it inherited from a docked one.
pub(crate) fn of(shell: Shell, adopt: bool, lines: &[String]) -> String {
    let quote = match shell {
        Shell::Fish => quote_fish,
        Shell::Bash | Shell::Zsh => quote_posix,
    };
    let words: String = lines.iter().map(|line| format!(" {}", quote(line))).collect();
    let forget = match (adopt, shell) {
        (false, _) => String::new(),
        (true, Shell::Fish) => format!("set --erase --global {INHERITED}\n"),
        (true, Shell::Bash | Shell::Zsh) => format!("\\builtin unset {INHERITED}\n_DOCK_ADOPTED=yes\n"),
    };
    match shell {
        Shell::Fish => format!("{FISH}{forget}_dock_apply{words}\nfunctions --erase _dock_apply\n"),
        Shell::Bash | Shell::Zsh => format!(
            "{}{forget}if _dock_apply{words}; then _dock_leave 0; else _dock_leave \"$?\"; fi\n{}",
            functions(),
            if adopt { "\\builtin unset _DOCK_ADOPTED\n" } else { "" }
        ),
    }
}

/// Code that only fails.
pub(crate) const fn failure(_: Shell) -> &'static str {
    // All three shells know this command.
    "false"
}

/// The lines by name, for `--json`.
pub(crate) fn document(lines: &[String]) -> BTreeMap<&str, &str> {
    lines.iter().filter_map(|line| line.split_once('=')).collect()
}

fn functions() -> &'static str {
    let (_, rest) = SHIM.split_once("#begin\n").unwrap_or_default();
    rest.split_once("#end\n").map_or("", |(functions, _)| functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_quotes() {
        let lines = ["_DOCK_MONIKER=[dock:it's $(touch pwned)] ".to_owned()];
        let bash = of(Shell::Bash, false, &lines);
        assert!(bash.starts_with("# Keeps a variable's value"), "{bash}");
        assert!(
            bash.contains(r"_dock_apply '_DOCK_MONIKER=[dock:it'\''s $(touch pwned)] '; then"),
            "{bash}"
        );
        let fish = of(Shell::Fish, false, &lines);
        assert!(
            fish.contains(r"_dock_apply '_DOCK_MONIKER=[dock:it\'s $(touch pwned)] '"),
            "{fish}"
        );
        let adopted = of(Shell::Zsh, true, &lines);
        assert!(adopted.contains("\\builtin unset DOCKER_HOST DOCKER_IP"), "{adopted}");
        assert_eq!(document(&lines)["_DOCK_MONIKER"], "[dock:it's $(touch pwned)] ");
    }
}
