//! Which names a dock may have.
//!
//! A moniker is data wherever it goes; the rules only keep out what users could not type or see. Lists that others
//! wrote (see [`super::original`]) may break these rules, so nothing relies on them for safety.

use crate::text::is_invisible;

/// The longest moniker, in bytes: it stands in prompts and tables.
pub const LONGEST: usize = 64;

/// Why a text can't be a moniker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MonikerError {
    /// Empty.
    #[error("it is empty")]
    Empty,
    /// Longer than [`LONGEST`].
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// It begins with a dash.
    #[error("it begins with a dash, as options do")]
    Dash,
    /// A slash, or one of the names `.` and `..`.
    #[error("it looks like a path")]
    Path,
    /// Whitespace around it, or whitespace other than spaces in it.
    #[error("it has whitespace around it, or whitespace other than spaces in it")]
    Blank,
    /// A control character, or an invisible one.
    #[error("there is an invisible character in it")]
    Invisible,
    /// What this machine is called.
    #[error("that is what this machine is called")]
    Reserved,
}

/// Checks a moniker for a new dock: as [`check`], and not a name of this machine.
///
/// # Errors
/// The rule that it breaks.
pub fn check_new(moniker: &str) -> Result<(), MonikerError> {
    match moniker {
        super::LOCALHOST | super::LOCAL => Err(MonikerError::Reserved),
        _ => check(moniker),
    }
}

/// Checks a moniker that the user gives to a dock.
///
/// # Errors
/// The rule that it breaks.
pub fn check(moniker: &str) -> Result<(), MonikerError> {
    if moniker.is_empty() {
        return Err(MonikerError::Empty);
    }
    if moniker.len() > LONGEST {
        return Err(MonikerError::TooLong);
    }
    if moniker.starts_with('-') {
        return Err(MonikerError::Dash);
    }
    if moniker.contains('/') || moniker == "." || moniker == ".." {
        return Err(MonikerError::Path);
    }
    if moniker.chars().any(is_invisible) {
        return Err(MonikerError::Invisible);
    }
    if moniker.trim() != moniker || moniker.chars().any(|c| c.is_whitespace() && c != ' ') {
        return Err(MonikerError::Blank);
    }
    Ok(())
}

/// The moniker of the dock that this shell is docked to, from the value of `_DOCK_MONIKER` (`[dock:NAME] `).
pub fn of_shell(value: &str) -> Option<&str> {
    let name = value.strip_prefix("[dock:")?;
    name.strip_suffix("] ").or_else(|| name.strip_suffix(']'))
}

/// The text for the moniker in a prompt: bash and zsh expand what is in a prompt, when and how their options say, so
/// what could begin an expansion is replaced. zsh interprets `%`, unless it is doubled.
pub fn in_prompt(moniker: &str, doubles_percent: bool) -> String {
    let mut text = String::from("[dock:");
    for c in moniker.chars() {
        match c {
            '$' | '`' | '\\' | '!' => text.push('?'),
            '%' if doubles_percent => text.push_str("%%"),
            c if is_invisible(c) => text.push('?'),
            c => text.push(c),
        }
    }
    text.push_str("] ");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_typed_and_seen_is_legal() {
        for moniker in [
            "far",
            "gpu-1",
            "10.0.0.7",
            "fe80::1",
            "50%",
            "x[$(touch pwned)]",
            "größe",
            "a.b_c@d",
            "it's",
            "two words",
        ] {
            assert_eq!(check(moniker), Ok(()), "{moniker}");
        }
        for (moniker, why) in [
            ("", MonikerError::Empty),
            ("-s", MonikerError::Dash),
            ("a/b", MonikerError::Path),
            ("..", MonikerError::Path),
            (" a", MonikerError::Blank),
            ("a\u{a0}b", MonikerError::Blank),
            ("a\nb", MonikerError::Invisible),
            ("a\u{202e}b", MonikerError::Invisible),
            ("a\x1b[2J", MonikerError::Invisible),
        ] {
            assert_eq!(check(moniker), Err(why), "{moniker:?}");
        }
        assert_eq!(check(&"a".repeat(65)), Err(MonikerError::TooLong));
        for name in ["localhost", "local"] {
            assert_eq!(
                (check(name), check_new(name)),
                (Ok(()), Err(MonikerError::Reserved)),
                "{name}"
            );
        }
        assert_eq!(check_new("locals"), Ok(()));
    }

    #[test]
    fn the_shell_says_where_it_is_docked() {
        assert_eq!(of_shell("[dock:far] "), Some("far"));
        assert_eq!(of_shell("[dock:x[1]] "), Some("x[1]"));
        assert_eq!(of_shell("far"), None);
    }

    #[test]
    fn a_prompt_expands_nothing_of_a_moniker() {
        assert_eq!(in_prompt("far", true), "[dock:far] ");
        assert_eq!(in_prompt("50%", true), "[dock:50%%] ");
        assert_eq!(in_prompt("50%", false), "[dock:50%] ");
        assert_eq!(
            in_prompt("x[$(touch pwned)]`\\!", false),
            "[dock:x[?(touch pwned)]???] "
        );
    }
}
