//! A command line from which every login shell reads exactly these words: sh, dash, busybox, bash, zsh, fish, csh and
//! tcsh.
//!
//! sshd has no argv: it gives one line to the user's login shell. The shells agree on little:
//!
//! - between single quotes, all characters stand for themselves except `'`, `\` (fish), `!` and line feeds (csh);
//! - outside of quotes, a backslash before `'`, `\` or `!` gives that character.
//!
//! There is no way to write a line feed that both csh and sh understand. Words that have one travel as `printf`
//! escapes, which a POSIX shell on the dock turns into a line of its own.

/// Turns its argument's escapes into a line and runs it. Has none of the characters that shells disagree on.
const UNESCAPE: &str = r#"eval "$(printf %b "$1")""#;

/// The line that runs a program with these arguments in place of the login shell, so that its exit code or signal is the
/// command's.
///
/// `None` for an empty list, and if a word has a NUL.
pub(super) fn line<W: AsRef<str>>(words: &[W]) -> Option<String> {
    if words.is_empty() || words.iter().any(|word| word.as_ref().contains('\0')) {
        return None;
    }
    let joined = |quote: fn(&str) -> String| {
        let words: Vec<String> = words.iter().map(|word| quote(word.as_ref())).collect();
        format!("exec {}", words.join(" "))
    };
    if !words.iter().any(|word| word.as_ref().contains('\n')) {
        return Some(joined(quote));
    }
    let escaped = joined(posix).replace('\\', r"\0134").replace('\n', r"\0012");
    Some(format!("exec sh -c {} sh {}", quote(UNESCAPE), quote(&escaped)))
}

/// Quotes a word without line feeds for any login shell.
fn quote(word: &str) -> String {
    if !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte))
    {
        return word.to_owned();
    }
    if word.is_empty() {
        return "''".to_owned();
    }
    let mut quoted = String::new();
    let mut open = false;
    for c in word.chars() {
        let special = matches!(c, '\'' | '\\' | '!');
        if special == open {
            quoted.push('\'');
            open = !special;
        }
        if special {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    if open {
        quoted.push('\'');
    }
    quoted
}

/// Quotes a word for a POSIX shell.
fn posix(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_so_that_all_shells_agree() {
        for (word, quoted) in [
            ("docker", "docker"),
            ("/a-b/c_d.e", "/a-b/c_d.e"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("a\\b", r"'a'\\'b'"),
            ("!!", r"\!\!"),
            ("$HOME `x` \"y\"", "'$HOME `x` \"y\"'"),
            ("~", "'~'"),
            ("A=b", "'A=b'"),
            ("=ls", "'=ls'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
        assert_eq!(line(&["echo", "a b"]).as_deref(), Some("exec echo 'a b'"));
        assert_eq!(line(&["a\0b"]), None);
        assert_eq!(line::<&str>(&[]), None);
    }

    #[test]
    fn line_feeds_travel_escaped() {
        let line = line(&["printf", "%s", "a\nb\\c'd"]).unwrap();
        assert!(!line.contains('\n'), "{line}");
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(output.stdout, b"a\nb\\c'd");
    }
}
