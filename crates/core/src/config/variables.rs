//! Replacement variables in the values of `dockerutils.cfg`: `{project_root}` in volumes, `$NAME` and `${NAME}`
//! everywhere, `$$` for a dollar.
//!
//! A value is split into words as a shell splits them, and each word keeps its variables by name: it is *printed* with
//! them, so that no secret shows, and *expanded* when it is run. As in a shell, the value of a variable outside quotes
//! is split at blanks, and quotes in it are plain characters. (The original replaced the variables before it split the
//! text, so that a quote in a password broke the command.)

use std::collections::BTreeMap;

use crate::env::Env;
use crate::shell;

/// A word of a command line, with its variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable { name: String, quoted: bool },
}

/// Replacements for `{name}`; `None` means that braces are plain characters.
pub type Braces<'a> = Option<&'a BTreeMap<&'static str, String>>;

/// What is wrong with a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VariableError {
    /// A quotation is open at the end.
    #[error("a {0} quotation is not closed")]
    OpenQuotation(&'static str),
    /// A backslash at the very end.
    #[error("it ends in a backslash")]
    OpenEscape,
    /// A `$` that begins no name.
    #[error("a $ begins neither $NAME nor ${{NAME}}; write $$ for a dollar")]
    BareDollar,
    /// A `{` or `}` that belongs to no name.
    #[error("a brace stands alone; write {{{{ or }}}} for a brace")]
    BareBrace,
    /// `{name}` with an unknown name.
    #[error("{{{name}}} is not one of {known}")]
    UnknownBrace {
        name: String,
        /// The names that there are, in braces.
        known: String,
    },
    /// `$NAME` that the environment doesn't have.
    #[error("${name} is not set")]
    Unset { name: String },
}

impl VariableError {
    /// The hint.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unset { name } => Some(format!(
                "export {name}=..., or write $${name} for a dollar and that text"
            )),
            _ => None,
        }
    }
}

impl Word {
    /// A word without variables.
    pub fn literal(text: impl Into<String>) -> Self {
        Self {
            pieces: vec![Piece::Literal(text.into())],
        }
    }

    /// A word in which `$NAME` are variables and everything else is literal: always one word.
    ///
    /// # Errors
    /// A `$` that begins no name.
    pub fn quoted(text: &str) -> Result<Self, VariableError> {
        let mut reader = Reader::new(text, None);
        while let Some(c) = reader.chars.next() {
            reader.data(c, true)?;
        }
        reader.begun = true;
        reader.end_word();
        Ok(reader.words.pop().unwrap_or_default())
    }

    /// `NAME=VALUE`, or `NAME` alone, always as one word: one pair of quotes around the whole value is removed, `$NAME`
    /// and `${NAME}` are variables, `$$` is a dollar, and everything else is literal. (The shell has removed its own
    /// quotes before; the value is plain text.)
    ///
    /// # Errors
    /// With `strict`, a `$` that begins no name; without `strict`, that stays a dollar.
    pub fn assignment(text: &str, strict: bool) -> Result<Self, VariableError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (format!("{name}="), value),
            None => (text.to_owned(), ""),
        };
        let inside = |quote| {
            value
                .strip_prefix(quote)
                .and_then(|rest: &str| rest.strip_suffix(quote))
        };
        let value = inside('"').or_else(|| inside('\'')).unwrap_or(value);
        let mut reader = Reader::new(value, None);
        name.chars().for_each(|c| reader.push(c));
        while let Some(c) = reader.chars.next() {
            let behind = reader.chars.clone();
            match reader.data(c, true) {
                Err(VariableError::BareDollar) if !strict => {
                    reader.chars = behind;
                    reader.push(c);
                }
                read => read?,
            }
        }
        reader.begun = true;
        reader.end_word();
        Ok(reader.words.pop().unwrap_or_default())
    }

    /// The same, not split at the blanks of its variables' values.
    #[must_use]
    pub fn unsplit(mut self) -> Self {
        for piece in &mut self.pieces {
            if let Piece::Variable { quoted, .. } = piece {
                *quoted = true;
            }
        }
        self
    }

    /// The words with the values of this environment: usually one.
    ///
    /// # Errors
    /// A variable that is not set.
    pub fn expand(&self, env: &Env) -> Result<Vec<String>, VariableError> {
        let mut words = vec![String::new()];
        let mut splits = false;
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => append(&mut words, text),
                Piece::Variable { name, quoted } => {
                    let value = env
                        .get(name)
                        .ok_or_else(|| VariableError::Unset { name: name.clone() })?;
                    if *quoted {
                        append(&mut words, value);
                        continue;
                    }
                    splits = true;
                    for (index, part) in value.split(char::is_whitespace).enumerate() {
                        if index > 0 {
                            words.push(String::new());
                        }
                        append(&mut words, part);
                    }
                }
            }
        }
        if splits {
            // Blanks at the ends of a value, and an empty value, make no words, as in a shell.
            let keeps_empty = self.pieces.iter().any(|piece| match piece {
                Piece::Literal(_) => true,
                Piece::Variable { quoted, .. } => *quoted,
            });
            let filled = words.iter().any(|word| !word.is_empty());
            words.retain(|word| !word.is_empty() || (keeps_empty && !filled));
        }
        Ok(words)
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable { name, .. } => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The word for printing: quoted for a shell, with its variables by name.
    pub fn print(&self) -> String {
        if let [Piece::Literal(text)] = self.pieces.as_slice() {
            return shell::quote(text).into_owned();
        }
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) if text.is_empty() => String::new(),
                Piece::Literal(text) => shell::quote(text).into_owned(),
                Piece::Variable { name, quoted: true } => format!("\"${{{name}}}\""),
                Piece::Variable { name, quoted: false } => format!("${{{name}}}"),
            })
            .collect()
    }
}

/// Prints words side by side.
pub fn print(words: &[Word]) -> String {
    words.iter().map(Word::print).collect::<Vec<_>>().join(" ")
}

/// Expands words one after the other.
///
/// # Errors
/// As [`Word::expand`].
pub fn expand(words: &[Word], env: &Env) -> Result<Vec<String>, VariableError> {
    let mut expanded = Vec::with_capacity(words.len());
    for word in words {
        expanded.extend(word.expand(env)?);
    }
    Ok(expanded)
}

/// Splits a value into words: Python's `shlex.split`, with variables kept by name, in single quotes, too.
///
/// # Errors
/// An open quotation, a `$` or brace without meaning, an unknown `{name}`.
pub fn parse(text: &str, braces: Braces<'_>) -> Result<Vec<Word>, VariableError> {
    let mut reader = Reader::new(text, braces);
    while let Some(c) = reader.chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => reader.end_word(),
            '\'' => reader.single_quotes()?,
            '"' => reader.double_quotes()?,
            '\\' => {
                let escaped = reader.chars.next().ok_or(VariableError::OpenEscape)?;
                reader.data(escaped, true)?;
            }
            c => reader.data(c, false)?,
        }
    }
    reader.end_word();
    Ok(reader.words)
}

fn append(words: &mut [String], text: &str) {
    if let Some(last) = words.last_mut() {
        last.push_str(text);
    }
}

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    braces: Braces<'a>,
    words: Vec<Word>,
    word: Word,
    begun: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, braces: Braces<'a>) -> Self {
        Self {
            chars: text.chars().peekable(),
            braces,
            words: Vec::new(),
            word: Word::default(),
            begun: false,
        }
    }

    fn end_word(&mut self) {
        if std::mem::take(&mut self.begun) {
            let mut word = std::mem::take(&mut self.word);
            if word.pieces.is_empty() {
                word.pieces.push(Piece::Literal(String::new()));
            }
            self.words.push(word);
        }
    }

    fn single_quotes(&mut self) -> Result<(), VariableError> {
        self.begun = true;
        loop {
            match self.chars.next() {
                None => return Err(VariableError::OpenQuotation("single")),
                Some('\'') => return Ok(()),
                Some(c) => self.data(c, true)?,
            }
        }
    }

    fn double_quotes(&mut self) -> Result<(), VariableError> {
        self.begun = true;
        loop {
            match self.chars.next() {
                None => return Err(VariableError::OpenQuotation("double")),
                Some('"') => return Ok(()),
                Some('\\') => match self.chars.peek().copied() {
                    // Inside double quotes a backslash escapes only these two.
                    Some(c @ ('"' | '\\')) => {
                        self.chars.next();
                        self.push(c);
                    }
                    _ => self.push('\\'),
                },
                Some(c) => self.data(c, true)?,
            }
        }
    }

    /// A character that is not quoting: it may begin a variable.
    fn data(&mut self, c: char, quoted: bool) -> Result<(), VariableError> {
        self.begun = true;
        match c {
            '$' => self.dollar(quoted),
            '{' | '}' if self.braces.is_some() => self.brace(c),
            c => {
                self.push(c);
                Ok(())
            }
        }
    }

    fn push(&mut self, c: char) {
        match self.word.pieces.last_mut() {
            Some(Piece::Literal(text)) => text.push(c),
            _ => self.word.pieces.push(Piece::Literal(c.to_string())),
        }
    }

    fn dollar(&mut self, quoted: bool) -> Result<(), VariableError> {
        let name = match self.chars.peek() {
            Some('$') => {
                self.chars.next();
                self.push('$');
                return Ok(());
            }
            Some('{') => {
                self.chars.next();
                let name = self.identifier();
                if name.is_empty() || self.chars.next() != Some('}') {
                    return Err(VariableError::BareDollar);
                }
                name
            }
            _ => self.identifier(),
        };
        if name.is_empty() {
            return Err(VariableError::BareDollar);
        }
        self.word.pieces.push(Piece::Variable { name, quoted });
        Ok(())
    }

    fn identifier(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_ascii_alphabetic() || *c == '_' || (!name.is_empty() && c.is_ascii_digit()))
        {
            name.push(c);
        }
        name
    }

    fn brace(&mut self, brace: char) -> Result<(), VariableError> {
        if self.chars.next_if_eq(&brace).is_some() {
            self.push(brace);
            return Ok(());
        }
        let Some(replacements) = self.braces.filter(|_| brace == '{') else {
            return Err(VariableError::BareBrace);
        };
        let mut name = String::new();
        loop {
            match self.chars.next() {
                Some('}') => break,
                Some(c) if c != '{' => name.push(c),
                _ => return Err(VariableError::BareBrace),
            }
        }
        let Some(value) = replacements.get(name.as_str()) else {
            let known: Vec<_> = replacements.keys().map(|name| format!("{{{name}}}")).collect();
            return Err(VariableError::UnknownBrace {
                name,
                known: known.join(", "),
            });
        };
        value.chars().for_each(|c| self.push(c));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env() -> Env {
        Env::from_pairs([("A", "1"), ("MANY", " x  y "), ("QUOTE", "it's \"so\""), ("EMPTY", "")])
    }

    fn expanded(text: &str) -> Result<Vec<String>, VariableError> {
        expand(&parse(text, None)?, &env())
    }

    #[test]
    fn the_content_of_a_value_decides_nothing() {
        let env = Env::from_pairs([("X", "a  b"), ("N", "name")]);
        let value = |text: &str, strict| Word::assignment(text, strict).and_then(|word| word.expand(&env));
        for (text, expected) in [
            (r#"A={"k":1}"#, r#"A={"k":1}"#),
            (r#"A={"k": 1}"#, r#"A={"k": 1}"#),
            (r"P=C:\new", r"P=C:\new"),
            (r"RE=^\d+$$", r"RE=^\d+$"),
            ("A=it's", "A=it's"),
            ("A=\"a b\"", "A=a b"),
            ("A='a b'", "A=a b"),
            ("A=\"'a'\"", "A='a'"),
            ("A='a'b'", "A=a'b"),
            ("A=\"", "A=\""),
            ("A=a\\", "A=a\\"),
            ("A= a ", "A= a "),
            ("A='$X'", "A=a  b"),
            ("A=${N}-$$N", "A=name-$N"),
            ("A=b=\"c\"", "A=b=\"c\""),
            ("A=", "A="),
            ("A", "A"),
        ] {
            for strict in [true, false] {
                assert_eq!(value(text, strict), Ok(vec![expected.to_owned()]), "{text}");
            }
        }
        for (text, lenient) in [("A=5$", "A=5$"), ("A=$(id) ${x y}", "A=$(id) ${x y}"), ("A=$5", "A=$5")] {
            assert_eq!(value(text, true), Err(VariableError::BareDollar), "{text}");
            assert_eq!(value(text, false), Ok(vec![lenient.to_owned()]), "{text}");
        }
        assert!(matches!(
            value("A=$UNSET_THERE", false),
            Err(VariableError::Unset { .. })
        ));
    }

    #[test]
    fn variables_are_put_in_where_they_stand() {
        assert_eq!(expanded("-e X=$A -e Y=${A}b").unwrap(), ["-e", "X=1", "-e", "Y=1b"]);
        assert_eq!(expanded("'$A' \"$A\" $$A \\$A").unwrap(), ["1", "1", "$A", "1"]);
        assert_eq!(expanded("$MANY '$MANY'").unwrap(), ["x", "y", " x  y "]);
        assert_eq!(expanded("-e P=$QUOTE").unwrap(), ["-e", "P=it's", "\"so\""]);
        assert_eq!(expanded("$EMPTY \"$EMPTY\" a$EMPTY").unwrap(), ["", "a"]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert_eq!(expanded("$X"), Err(VariableError::Unset { name: "X".into() }));
        assert_eq!(expanded("5$"), Err(VariableError::BareDollar));
        assert_eq!(expanded("${A"), Err(VariableError::BareDollar));
        assert_eq!(expanded("'a"), Err(VariableError::OpenQuotation("single")));
        assert!(
            VariableError::Unset { name: "X".into() }
                .hint()
                .unwrap()
                .contains("$$X")
        );
    }

    #[test]
    fn braces_are_replaced_where_they_mean_something() {
        let replacements = BTreeMap::from([("project_root", "/my code".to_owned()), ("user", "ann".to_owned())]);
        let words = parse("-v {project_root}:/p -v {{x}}:${A}", Some(&replacements)).unwrap();
        assert_eq!(expand(&words, &env()).unwrap(), ["-v", "/my code:/p", "-v", "{x}:1"]);
        let error = parse("{hme}", Some(&replacements)).unwrap_err();
        assert_eq!(error.to_string(), "{hme} is not one of {project_root}, {user}");
        assert_eq!(parse("a}", Some(&replacements)), Err(VariableError::BareBrace));
        assert_eq!(expanded("--format {{.ID}}").unwrap(), ["--format", "{{.ID}}"]);
    }

    #[test]
    fn variables_are_printed_by_name() {
        let words = parse("-e P=$SECRET 'a b' \"x $Y\" $$", None).unwrap();
        assert_eq!(print(&words), "-e P=${SECRET} 'a b' 'x '\"${Y}\" '$'");
    }

    proptest! {
        #[test]
        fn without_variables_it_is_the_split_of_a_shell(text in "[a-c '\"\\\\\t-]{0,30}") {
            let ours = parse(&text, None).ok().map(|words| expand(&words, &Env::default()).unwrap());
            prop_assert_eq!(ours, shell::split(&text).ok());
        }
    }
}
