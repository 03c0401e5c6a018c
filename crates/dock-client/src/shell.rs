//! Words of a shell: splitting a line of configuration into words, and quoting words for a line to paste.
//!
//! [`split`] is Python's `shlex.split`, by which `build_args`, `volumes` and their like have always been read. What
//! [`quote`] and [`quote_keeping_variables`] return means the same to sh, bash and zsh, at a prompt with history
//! expansion, too. The differential test `tests/shlex.rs` compares [`split`] with Python, and gives the quoted words to
//! the shells.
//!
//! ```
//! use dock_client::shell;
//!
//! let words = shell::split(r#"--build-arg GREETING="good day" ."#)?;
//! assert_eq!(words, ["--build-arg", "GREETING=good day", "."]);
//! assert_eq!(shell::join(&words), "--build-arg 'GREETING=good day' .");
//! # Ok::<(), shell::SplitError>(())
//! ```

use std::borrow::Cow;

/// Why a text can't be split into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A quote that is opened and not closed.
    #[error("no closing quotation")]
    NoClosingQuotation,
    /// A backslash at the very end.
    #[error("no escaped character")]
    NoEscapedCharacter,
}

/// Splits a text into words as Python's `shlex.split(text)` does: quotes and backslashes as in POSIX, nothing is
/// expanded, and `#` begins no comment. Unlike in a shell, a backslash before a line feed stands for the line feed.
///
/// # Errors
///
/// When the text ends inside quotes or after a backslash.
pub fn split(text: &str) -> Result<Vec<String>, SplitError> {
    let mut words = Vec::new();
    // `Some("")` is a word that has begun with quotes.
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(SplitError::NoClosingQuotation)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(SplitError::NoClosingQuotation)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or(SplitError::NoEscapedCharacter)? {
                            c @ ('"' | '\\') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => {
                let c = chars.next().ok_or(SplitError::NoEscapedCharacter)?;
                word.get_or_insert_default().push(c);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Quotes a word, where it needs to be, so that a shell reads it as this one argument.
///
/// The command's own word is another matter: shells take a `KEY=value` in front of it for an assignment. A NUL can't be
/// part of any argument, and is left as it is.
pub fn quote(word: &str) -> Cow<'_, str> {
    if is_plain(word) {
        Cow::Borrowed(word)
    } else if !word.contains('\'') {
        Cow::Owned(enclose('\'', word))
    } else if !word.contains(|c| is_special_in_double_quotes(c) || c == '!') {
        Cow::Owned(enclose('"', word))
    } else {
        Cow::Owned(enclose('\'', &word.replace('\'', r"'\''")))
    }
}

/// Quotes each word and puts spaces between: a command line to paste.
pub fn join<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&quote(word.as_ref()));
    }
    line
}

/// As [`quote`], except that a shell replaces each `$NAME` and `${NAME}` by the variable's value, unsplit.
///
/// Any other `$`, as in `$1`, `$(pwd)` or `${NAME:-x}`, is quoted.
pub fn quote_keeping_variables(word: &str) -> Cow<'_, str> {
    let mut quoted = String::new();
    let mut has_variables = false;
    let mut chars = word.chars();
    loop {
        if let Some((name, rest)) = variable(chars.as_str()) {
            // zsh reads $NAME:h and $NAME[1] as more than the variable; and what follows the braces of ${NAME}
            // may look like more of the name.
            if rest.starts_with([':', '[']) || rest.starts_with(is_name_char) {
                quoted.extend(["${", name, "}"]);
            } else {
                quoted.extend(["$", name]);
            }
            has_variables = true;
            chars = rest.chars();
            continue;
        }
        match chars.next() {
            None => break,
            // History expansion also happens within double quotes, and a backslash before the `!` would stay in the
            // word.
            Some('!') => quoted.push_str(r#""'!'""#),
            Some(c) if is_special_in_double_quotes(c) => quoted.extend(['\\', c]),
            Some(c) => quoted.push(c),
        }
    }
    if !has_variables {
        return quote(word);
    }
    Cow::Owned(enclose('"', &quoted))
}

/// Puts quotes around. bash takes a `^` at the beginning of a line for history expansion, even inside of quotes; so
/// they are closed and opened again before it.
fn enclose(quote: char, text: &str) -> String {
    let text = text.replace("\n^", &format!("\n{quote}{quote}^"));
    format!("{quote}{text}{quote}")
}

/// Whether every shell takes the word as it stands.
fn is_plain(word: &str) -> bool {
    !word.is_empty()
        // %1 is a job to bash.
        && !word.starts_with(['=', '%'])
        // zsh replaces =cmd by the command's path; with MAGIC_EQUAL_SUBST, also behind `=` and `:`.
        && !word.contains("==")
        && !word.contains(":=")
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c))
}

/// Characters that are special between double quotes, except `!`, which no backslash can protect there.
fn is_special_in_double_quotes(c: char) -> bool {
    matches!(c, '$' | '`' | '"' | '\\')
}

/// Splits a text that begins with `$NAME` or `${NAME}` into the name and the rest.
fn variable(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    let (name, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}')?,
        None => text.split_at(text.find(|c| !is_name_char(c)).unwrap_or(text.len())),
    };
    let legal = name.starts_with(|c: char| is_name_char(c) && !c.is_ascii_digit()) && name.chars().all(is_name_char);
    legal.then_some((name, rest))
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_split_as_by_shlex() {
        let cases: [(&str, Result<&[&str], SplitError>); 14] = [
            ("", Ok(&[])),
            (" \t\r\n ", Ok(&[])),
            ("a b\tc\nd", Ok(&["a", "b", "c", "d"])),
            ("'' \"\"", Ok(&["", ""])),
            ("a''b", Ok(&["ab"])),
            ("a #b", Ok(&["a", "#b"])),
            (r"'a\'", Ok(&[r"a\"])),
            (r#""a\"b\\c\d\$e""#, Ok(&[r#"a"b\c\d\$e"#])),
            (r"a\ b \'", Ok(&["a b", "'"])),
            ("a\\\nb", Ok(&["a\nb"])),
            ("a\u{a0}b", Ok(&["a\u{a0}b"])),
            ("'a", Err(SplitError::NoClosingQuotation)),
            ("\"a\\", Err(SplitError::NoEscapedCharacter)),
            ("a\\", Err(SplitError::NoEscapedCharacter)),
        ];
        for (text, expected) in cases {
            let words = split(text);
            let words = words.as_ref().map(Vec::as_slice).map_err(|error| *error);
            match (words, expected) {
                (Ok(words), Ok(expected)) => assert_eq!(words, expected, "{text:?}"),
                (words, expected) => assert_eq!(words.err(), expected.err(), "{text:?}"),
            }
        }
    }

    #[test]
    fn words_stay_readable() {
        for word in [
            "KEY=value",
            "a:b",
            "/x/y",
            "--name=x",
            "-it",
            "1.5",
            "me@host",
            "a,b",
            "50%",
        ] {
            assert_eq!(quote(word), word);
        }
        for (word, quoted) in [
            ("", "''"),
            ("~/x", "'~/x'"),
            ("=ls", "'=ls'"),
            ("a:=ls", "'a:=ls'"),
            ("%1", "'%1'"),
            ("{}", "'{}'"),
            ("$HOME", "'$HOME'"),
            ("é", "'é'"),
            ("it's", "\"it's\""),
            ("it's $5!", r"'it'\''s $5!'"),
            ("a\n^b", "'a\n''^b'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn lines_are_joined() {
        assert_eq!(join(["docker", "run", "a b", ""]), "docker run 'a b' ''");
        assert_eq!(join(Vec::<String>::new()), "");
    }

    #[test]
    fn variables_stay_variables() {
        for (word, quoted) in [
            ("/a/b", "/a/b"),
            ("$5 $(pwd)", "'$5 $(pwd)'"),
            ("${A:-b}", "'${A:-b}'"),
            ("$PWD", "\"$PWD\""),
            ("$PWD/x", "\"$PWD/x\""),
            ("$PWD:/home", "\"${PWD}:/home\""),
            ("${A}b${C}/d", "\"${A}b$C/d\""),
            ("$$A", r#""\$$A""#),
            ("$A `b` \\ \"c\"", r#""$A \`b\` \\ \"c\"""#),
            ("$A!b", r#""$A"'!'"b""#),
            ("é$A[1]", "\"é${A}[1]\""),
        ] {
            assert_eq!(quote_keeping_variables(word), quoted);
        }
    }

    proptest! {
        #[test]
        fn joined_words_split_into_the_same(words in prop::collection::vec("(\\PC|[ \n\t'\"\\\\!$`=~])*", 0..6)) {
            prop_assert_eq!(split(&join(&words)), Ok(words));
        }

        #[test]
        fn words_without_variables_are_quoted_alike(word in "[^$]*") {
            prop_assert_eq!(quote_keeping_variables(&word), quote(&word));
        }
    }
}
