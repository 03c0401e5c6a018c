//! The words of a Dockerfile: quotes, escapes and variables in them, as BuildKit's shell lexer reads them.
//!
//! Grammar: `frontend/dockerfile/shell` of moby/buildkit. It resembles a shell's, but differs in some points: the word
//! after `:-` is read even if it is not used, and a quote may stand anywhere in it.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::budget::{Budget, Unreadable};
use super::pattern::Pattern;

/// How deep expansions may be nested. People write two or three.
const DEEPEST: usize = 64;
/// Reads words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    /// The escape character.
    escape: char,
    /// Quotes and escapes stay in the words.
    is_raw: bool,
    /// A variable that is not set stays in the words.
    keeps_unset: bool,
    budget: &'a Budget,
}

impl<'a> Lexer<'a> {
    /// Reads the words of instructions.
    pub(super) const fn new(escape: char, budget: &'a Budget) -> Self {
        Self {
            escape,
            is_raw: false,
            keeps_unset: false,
            budget,
        }
    }

    /// Reads the start of a here-document: the escape is `\` there whatever the Dockerfile has chosen, and no variable
    /// is known.
    pub(super) const fn of_heredocs(budget: &'a Budget) -> Self {
        Self {
            keeps_unset: true,
            ..Self::new('\\', budget)
        }
    }

    /// The same, with quotes and escapes left in the words.
    pub(super) const fn raw(self) -> Self {
        Self { is_raw: true, ..self }
    }

    /// One word: all of the text, with quotes and escapes removed and variables replaced.
    pub(super) fn word(self, text: &str, values: &BTreeMap<String, String>) -> Result<String, Unreadable> {
        Ok(self.read(text, values)?.0)
    }

    /// The words of the text; blanks in a variable's value separate words, too.
    pub(super) fn words(self, text: &str, values: &BTreeMap<String, String>) -> Result<Vec<String>, Unreadable> {
        Ok(self.read(text, values)?.1)
    }

    fn read(self, text: &str, values: &BTreeMap<String, String>) -> Result<(String, Vec<String>), Unreadable> {
        let mut reading = Reading {
            lexer: self,
            values,
            chars: text.chars().peekable(),
            keeps_escapes: self.is_raw,
            depth: 0,
        };
        reading.up_to(None, self.is_raw)
    }
}

/// Words while they are put together.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    /// A character outside of quotes: a blank ends the word.
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn end(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Reading<'a> {
    lexer: Lexer<'a>,
    values: &'a BTreeMap<String, String>,
    chars: Peekable<Chars<'a>>,
    /// Patterns keep their escapes, which they need.
    keeps_escapes: bool,
    depth: usize,
}

impl Reading<'_> {
    fn next(&mut self) -> Result<Option<char>, Unreadable> {
        self.lexer.budget.spend(1)?;
        Ok(self.chars.next())
    }

    /// Everything up to a character, which is consumed, or up to the end.
    fn up_to(&mut self, stop: Option<char>, keeps_escapes: bool) -> Result<(String, Vec<String>), Unreadable> {
        if self.depth == DEEPEST {
            return Err(Unreadable);
        }
        let before = std::mem::replace(&mut self.keeps_escapes, keeps_escapes);
        self.depth += 1;
        let read = self.read_up_to(stop);
        self.depth -= 1;
        self.keeps_escapes = before;
        read
    }

    fn read_up_to(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Unreadable> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&c) = self.chars.peek() {
            if stop == Some(c) {
                self.chars.next();
                return Ok((text, words.end()));
            }
            match c {
                '$' => {
                    let value = self.expansion()?;
                    self.lexer.budget.spend(value.len())?;
                    text.push_str(&value);
                    value.chars().for_each(|c| words.add(c));
                }
                '\'' | '"' => {
                    let quoted = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    self.lexer.budget.spend(quoted.len())?;
                    text.push_str(&quoted);
                    words.word.push_str(&quoted);
                }
                _ if c == self.lexer.escape => {
                    self.next()?;
                    if self.keeps_escapes {
                        text.push(c);
                        words.word.push(c);
                    }
                    let Some(escaped) = self.next()? else { break };
                    text.push(escaped);
                    words.word.push(escaped);
                }
                _ => {
                    self.next()?;
                    text.push(c);
                    words.add(c);
                }
            }
        }
        match stop {
            Some(_) => Err(Unreadable),
            None => Ok((text, words.end())),
        }
    }

    /// Up to the next `'`, no character is special.
    fn single_quoted(&mut self) -> Result<String, Unreadable> {
        let mut text = String::new();
        self.quote(&mut text)?;
        loop {
            match self.next()?.ok_or(Unreadable)? {
                '\'' => break,
                c => text.push(c),
            }
        }
        if self.lexer.is_raw {
            text.push('\'');
        }
        Ok(text)
    }

    /// Up to the next `"`, variables are replaced, and an escape works before special characters.
    fn double_quoted(&mut self) -> Result<String, Unreadable> {
        let mut text = String::new();
        self.quote(&mut text)?;
        loop {
            match *self.chars.peek().ok_or(Unreadable)? {
                '"' => {
                    self.quote(&mut text)?;
                    return Ok(text);
                }
                '$' => {
                    let value = self.expansion()?;
                    self.lexer.budget.spend(value.len())?;
                    text.push_str(&value);
                }
                c => {
                    self.next()?;
                    if c != self.lexer.escape {
                        text.push(c);
                        continue;
                    }
                    if self.keeps_escapes {
                        text.push(c);
                    }
                    match self.chars.peek().copied() {
                        None => {}
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == c => {
                            self.next()?;
                            text.push(escaped);
                        }
                        Some(_) => text.push(c),
                    }
                }
            }
        }
    }

    /// Reads a quoted text.
    fn quote(&mut self, text: &mut String) -> Result<(), Unreadable> {
        let quote = self.next()?;
        if self.lexer.is_raw {
            text.extend(quote);
        }
        Ok(())
    }

    /// `$NAME` and all forms of `${NAME...}`.
    fn expansion(&mut self) -> Result<String, Unreadable> {
        self.next()?;
        if self.chars.peek() != Some(&'{') {
            let name = self.name()?;
            return Ok(match self.values.get(&name) {
                _ if name.is_empty() => "$".to_owned(),
                Some(value) => value.clone(),
                None if self.lexer.keeps_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.next()?;
        if matches!(self.chars.peek(), None | Some('{' | '}' | ':')) {
            return Err(Unreadable);
        }
        let name = self.name()?;
        let value = self.values.get(&name);
        match self.next()?.ok_or(Unreadable)? {
            '}' => Ok(match value {
                Some(value) => value.clone(),
                None if self.lexer.keeps_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' => {
                let operator = self.next()?.ok_or(Unreadable)?;
                self.modified(&name, value, operator, true)
            }
            operator @ ('+' | '-' | '?' | '#' | '%') => self.modified(&name, value, operator, false),
            '/' => self.replaced(&name, value),
            _ => Err(Unreadable),
        }
    }

    /// `${NAME-word}` and similar; with a colon, an empty value counts as unset.
    fn modified(
        &mut self,
        name: &str,
        value: Option<&String>,
        operator: char,
        has_colon: bool,
    ) -> Result<String, Unreadable> {
        let of_pattern = matches!(operator, '#' | '%');
        let (word, _) = self.up_to(Some('}'), of_pattern)?;
        if self.lexer.keeps_unset && value.is_none() {
            let colon = if has_colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let given = value.filter(|value| !has_colon || !value.is_empty());
        // A colon tests whether a value is empty; a pattern does no such test.
        if has_colon && of_pattern {
            return Err(Unreadable);
        }
        match operator {
            '-' => Ok(given.cloned().unwrap_or(word)),
            '+' => Ok(given.map(|_| word).unwrap_or_default()),
            '?' => given.cloned().ok_or(Unreadable),
            '#' | '%' => {
                let longest = word.strip_prefix(operator);
                let pattern: Vec<char> = longest.unwrap_or(&word).chars().collect();
                let text: Vec<char> = value.map(|value| value.chars().collect()).unwrap_or_default();
                let is_longest = longest.is_some();
                if operator == '#' {
                    Pattern::parse(&pattern)?.without_prefix(&text, is_longest, self.lexer.budget)
                } else {
                    Pattern::parse_backwards(&pattern)?.without_suffix(&text, is_longest, self.lexer.budget)
                }
            }
            _ => Err(Unreadable),
        }
    }

    /// `${NAME/pattern/replacement}`, or with two slashes for all matches.
    fn replaced(&mut self, name: &str, value: Option<&String>) -> Result<String, Unreadable> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let (pattern, _) = self.up_to(Some('/'), true)?;
        let (replacement, _) = self.up_to(Some('}'), true)?;
        if self.lexer.keeps_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let pattern: Vec<char> = pattern.chars().collect();
        let text: Vec<char> = value.map(|value| value.chars().collect()).unwrap_or_default();
        Pattern::parse(&pattern)?.replaced(&text, &replacement, all, self.lexer.budget)
    }

    /// The name of a variable: a word, a number, or one of a shell's special characters.
    fn name(&mut self) -> Result<String, Unreadable> {
        let mut name = String::new();
        let first = self.chars.peek().copied();
        match first {
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.next()?),
            Some(c) => {
                let is_number = c.is_ascii_digit();
                let belongs = |c: char| match is_number {
                    true => c.is_ascii_digit(),
                    false => c.is_alphanumeric() || c == '_',
                };
                while self.chars.peek().is_some_and(|c| belongs(*c)) {
                    name.extend(self.next()?);
                }
            }
            None => {}
        }
        Ok(name)
    }
}

/// The words of an instruction such as `ARG A=1 B="2 3"`, with the quotes and escapes that count when the value is
/// read.
pub(super) fn unread_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the end it escapes nothing.
            let Some(escaped) = chars.next() else { break };
            word.extend([c, escaped]);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The value of the old form `ENV name value`, as it is written in the form `name=value`: the same words of all texts that
/// variables may have come of it. `None` for a value that BuildKit refuses, or that is not sure to stay the same.
pub(super) fn as_pair_value(value: &str, escape: char) -> Option<String> {
    let is_quoting = |c: char| matches!(c, '"' | '\'') || c == escape;
    let written = if !value.contains(char::is_whitespace) {
        value.to_owned()
    } else if !value.contains(is_quoting) {
        format!("\"{value}\"")
    } else {
        // A blank outside of quotes is escaped; the rest stays as it is.
        let mut written = String::new();
        let mut quote = None;
        let mut chars = value.chars();
        while let Some(c) = chars.next() {
            match quote {
                None if c.is_whitespace() => written.push(escape),
                None if matches!(c, '"' | '\'') => quote = Some(c),
                Some(open) if open == c => quote = None,
                _ => {}
            }
            written.push(c);
            if c == escape && quote != Some('\'') {
                written.extend(chars.next());
            }
        }
        written
    };
    let is_one = matches!(unread_words(&written, escape).as_slice(), [one] if *one == written);
    is_one
        .then_some(written)
        .filter(|written| means_the_same(written, value, escape))
}

/// A word of an instruction that has exactly this value: in quotes, without variables.
pub(super) fn as_literal(value: &str, escape: char) -> Option<String> {
    let mut written = String::from('"');
    for c in value.chars() {
        if matches!(c, '"' | '$') || c == escape {
            written.push(escape);
        }
        written.push(c);
    }
    written.push('"');
    let budget = Budget::default();
    let read = Lexer::new(escape, &budget).word(&written, &BTreeMap::new());
    (read.as_deref() == Ok(value) && unread_words(&written, escape).len() == 1).then_some(written)
}

/// Whether BuildKit makes the same of two texts, whether their variables are set or not.
fn means_the_same(one: &str, other: &str, escape: char) -> bool {
    let budget = Budget::default();
    let lexer = Lexer::new(escape, &budget);
    let mut all_set = BTreeMap::new();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    for name in other.split(|c| !is_name(c)).filter(|name| !name.is_empty()) {
        all_set.insert(name.to_owned(), format!("a  \"{name}\" b"));
    }
    [BTreeMap::new(), all_set].iter().all(|values| {
        let read = lexer.word(one, values);
        read.is_ok() && read == lexer.word(other, values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_value_is_written_as_a_pair_of_the_same_value() {
        for (value, expected) in [
            ("b", Some("b")),
            ("\"foo bar\"", Some("\"foo bar\"")),
            ("foo bar", Some("\"foo bar\"")),
            ("it's", None),
            ("a \"b c\" d", Some("a\\ \"b c\"\\ d")),
            ("'a  b'", Some("'a  b'")),
            ("C:\\dir", Some("C:\\dir")),
            ("-X \\\"a\\\"", Some("-X\\ \\\"a\\\"")),
            ("$A and ${B:-c d}", Some("\"$A and ${B:-c d}\"")),
            ("a=b", Some("a=b")),
            ("a \\", None),
            ("${A", None),
        ] {
            assert_eq!(as_pair_value(value, '\\').as_deref(), expected, "{value}");
        }
        assert_eq!(as_pair_value("C:\\a b", '`').as_deref(), Some("\"C:\\a b\""));
        assert_eq!(
            as_literal("A \"B\" $C \\d", '\\').as_deref(),
            Some(r#""A \"B\" \$C \\d""#)
        );
        assert_eq!(as_literal("a$b\\c", '`').as_deref(), Some("\"a`$b\\c\""));
    }

    fn values() -> BTreeMap<String, String> {
        [("R", "p"), ("E", ""), ("V", "foo.bar.baz"), ("S", "a/b*c")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[track_caller]
    fn word(text: &str) -> Result<String, Unreadable> {
        Lexer::new('\\', &Budget::default()).word(text, &values())
    }

    #[test]
    fn variables_are_put_in_as_buildkit_does_it() {
        for (text, expected) in [
            ("$R-$NONE-${R}", "p--p"),
            ("${X:-${R}-zbase:1}", "p-zbase:1"),
            ("${X:-\"quoted\"}", "quoted"),
            ("${X:-'$R'}${X:-\"$R\"}", "$Rp"),
            ("${X-a}${E-a}${E:-b}", "ab"),
            ("${R+a}${E+b}${E:+c}${X+d}", "ab"),
            ("${R:?none}${E?none}", "p"),
            ("${X:-${Y:-${Z:-deep}}}", "deep"),
            ("a\"b$R\"'c$R'd", "abpc$Rd"),
            (r#"\$R"\$R\x"'\x'"#, r"$R$R\x\x"),
            ("$1x$$y$", "xy$"),
            ("$", "$"),
            ("a\\", "a"),
        ] {
            assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_buildkit_refuses_is_no_word() {
        for text in [
            "${X:?}",
            "${E:?}",
            "${X?none}",
            "${R:-${X?read, though not used}}",
            "${",
            "${}",
            "${:-a}",
            "${{R}}",
            "${R",
            "${R:-a",
            "${R!a}",
            "${R:=a}",
            "${R:#a}",
            "${R:%%a}",
            "${R/a}",
            "'a",
            "\"a",
            "${R#\\a}",
        ] {
            assert_eq!(word(text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn patterns_are_removed_and_replaced() {
        for (text, expected) in [
            ("${V#*.}", "bar.baz"),
            ("${V##*.}", "baz"),
            ("${V%.*}", "foo.bar"),
            ("${V%%.*}", "foo"),
            ("${V#fo?}", ".bar.baz"),
            ("${V%ba?}", "foo.bar."),
            ("${V#x}${X#x}", "foo.bar.baz"),
            ("${V/ba?/x}", "foo.x.baz"),
            ("${V//ba?/x}", "foo.x.x"),
            ("${V//./}", "foobarbaz"),
            ("${V/./\\/}", r"foo\/bar.baz"),
            ("${S/\\//x}", "axb*c"),
            ("${S%\\**}", "a/b"),
            ("${S#a\\/}", "b*c"),
            ("${V/$R/x}", "foo.bar.baz"),
            ("${R//p/$V}", "foo.bar.baz"),
        ] {
            assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn another_character_can_escape() {
        let budget = Budget::default();
        let lexer = Lexer::new('`', &budget);
        assert_eq!(lexer.word(r"`$R\$R", &values()).as_deref(), Ok(r"$R\p"));
        assert_eq!(
            unread_words("A=`\"x` y B=\"1 2\" C='`' D`", '`'),
            ["A=`\"x` y", "B=\"1 2\"", "C='`'", "D"]
        );
    }

    #[test]
    fn words_that_double_for_ever_and_patterns_that_never_end_are_given_up() {
        let budget = Budget::default();
        let lexer = Lexer::new('\\', &budget);
        let mut values = BTreeMap::from([("A".to_owned(), "aaaaaaaa".to_owned())]);
        let doubled = (0..64).find_map(|_| match lexer.word("$A$A", &values) {
            Ok(word) => {
                values.insert("A".to_owned(), word);
                None
            }
            Err(Unreadable) => Some(()),
        });
        assert_eq!(doubled, Some(()));
        assert!(values["A"].len() as u64 <= crate::docker::build::dockerfile::budget::BUDGET);
        let deep = "${X:-".repeat(100_000);
        assert_eq!(word(&deep), Err(Unreadable));
        let (text, pattern) = ("a".repeat(20_000), "*a".repeat(10_000));
        assert_eq!(
            word(&format!("${{X:-{text}}}${{R//{pattern}b/}}")),
            Ok(format!("{text}p"))
        );
        let values = BTreeMap::from([("A".to_owned(), text)]);
        let budget = Budget::default();
        let lexer = Lexer::new('\\', &budget);
        assert_eq!(lexer.word(&format!("${{A//{pattern}b/}}"), &values), Err(Unreadable));
    }
}
