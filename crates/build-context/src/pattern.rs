//! One line of `.dockerignore`, compiled.
//!
//! Docker's matcher (`github.com/moby/patternmatcher`) rewrites each pattern, rune by rune, into a
//! regular expression for Go's `regexp`, unless plain comparison will do. The rewriting knows nothing of
//! brackets and passes `\`, `^`, `[` and `]` through, so some patterns mean what Go makes of the result
//! and not what their author meant: `v\d` matches `v1`, `[*]` matches `]`, `*^` matches nothing. A file
//! that Docker sends must be sent by us too, so this module goes the same way: [`translate`] gives the
//! same expression, [`parse`] reads the part of Go's syntax that such an expression can hold, and
//! [`Program`] runs it, in time linear in the path for any pattern.

use std::collections::VecDeque;

/// What Go decodes a byte that is not UTF-8 as, in patterns and in paths.
const INVALID: char = char::REPLACEMENT_CHARACTER;

/// The largest code point: the end of a complemented set.
const LAST: u32 = char::MAX as u32;

/// A pattern that Docker refuses, when it is read or when it is first used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadPattern;

/// How a pattern is compared with a path.
#[derive(Debug, Clone)]
pub(super) enum Matcher {
    /// The path is the pattern.
    Exact(Vec<u8>),
    /// The path starts with this: `dir/**`.
    Prefix(Vec<u8>),
    /// The path ends with this, or is it but for a leading slash: `**/name`.
    Suffix(Vec<u8>),
    /// Everything else.
    Program(Program),
}

impl Matcher {
    /// Compiles a pattern (clean, without its `!`).
    ///
    /// # Errors
    ///
    /// The expression that Docker would make of it does not compile in Go.
    pub(super) fn new(pattern: &[u8]) -> Result<Self, BadPattern> {
        let (shape, expression) = translate(pattern);
        Ok(match shape {
            Shape::Exact => Self::Exact(pattern.to_vec()),
            Shape::Prefix => Self::Prefix(pattern.strip_suffix(b"**").unwrap_or(pattern).to_vec()),
            Shape::Suffix => Self::Suffix(pattern.get(2..).unwrap_or_default().to_vec()),
            Shape::Expression => Self::Program(Program::new(parse(&expression)?)),
        })
    }

    /// Compiles a pattern of Go's `filepath.Match`, which has no `**`.
    ///
    /// # Errors
    ///
    /// The syntax that [`check`] refuses.
    pub(super) fn of_name(pattern: &[u8]) -> Result<Self, BadPattern> {
        let items = tokens(pattern)?.into_iter().map(|token| match token {
            Token::Star => Item::Star(Set::NotSlash),
            Token::Any => Item::One(Set::NotSlash),
            Token::Rune(rune) => Item::One(Set::Rune(rune)),
            Token::Class { negated, ranges } => Item::One(Set::class(negated, ranges)),
        });
        let mut items: Vec<Item> = items.collect();
        items.push(Item::Assert(Assertion::End));
        items.insert(0, Item::Assert(Assertion::Begin));
        Ok(Self::Program(Program::new(vec![items])))
    }

    /// Whether the path matches, by itself (its parents are the caller's affair).
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text),
            Self::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|name| path == name),
            Self::Program(program) => program.matches(path),
        }
    }
}

/// Refuses what Docker refuses when it reads a pattern: what Go's `filepath.Match(pattern, ".")` does.
///
/// Go reads no further than it must to tell that `.` does not match, so `[-` is refused and `a*[-` is not.
///
/// # Errors
///
/// A class that is empty, not closed or has a stray `-`; a `\` at the end.
pub(super) fn check(pattern: &[u8]) -> Result<(), BadPattern> {
    let runes: Vec<char> = runes(pattern).collect();
    let mut rest = runes.as_slice();
    let mut dot_is_matched = false;
    loop {
        while let ['*', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let mut chunk = Vec::new();
        while !matches!(rest, [] | ['*', ..]) {
            let token;
            (token, rest) = next_token(rest)?;
            chunk.push(token);
        }
        // Go goes on to the next star only if all up to it has matched.
        match chunk.as_slice() {
            [token] if !dot_is_matched && token.matches('.') => dot_is_matched = true,
            _ => return Ok(()),
        }
    }
}

/// A token of Go's `filepath.Match`.
enum Token {
    Star,
    Any,
    Rune(char),
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Token {
    fn matches(&self, rune: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => rune != '/',
            Self::Rune(only) => rune == *only,
            Self::Class { negated, ranges } => in_class(rune, *negated, ranges),
        }
    }
}

/// Splits a pattern of `filepath.Match` into tokens.
fn tokens(pattern: &[u8]) -> Result<Vec<Token>, BadPattern> {
    let runes: Vec<char> = runes(pattern).collect();
    let mut rest = runes.as_slice();
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let token;
        (token, rest) = next_token(rest)?;
        tokens.push(token);
    }
    Ok(tokens)
}

/// Splits off a token. There is one, or the pattern is wrong.
fn next_token(rest: &[char]) -> Result<(Token, &[char]), BadPattern> {
    Ok(match rest {
        ['*', rest @ ..] => (Token::Star, rest),
        ['?', rest @ ..] => (Token::Any, rest),
        ['\\', rune, rest @ ..] => (Token::Rune(*rune), rest),
        ['[', '^', rest @ ..] => scan_class(true, rest)?,
        ['[', rest @ ..] => scan_class(false, rest)?,
        [] | ['\\'] => return Err(BadPattern),
        [rune, rest @ ..] => (Token::Rune(*rune), rest),
    })
}

/// Reads a class up to its `]`, which may not come before its first member.
fn scan_class(negated: bool, mut rest: &[char]) -> Result<(Token, &[char]), BadPattern> {
    let mut ranges = Vec::new();
    loop {
        let (low, high);
        (low, rest) = scan_member(rest)?;
        (high, rest) = match rest {
            ['-', rest @ ..] => scan_member(rest)?,
            _ => (low, rest),
        };
        ranges.push((u32::from(low), u32::from(high)));
        if let [']', rest @ ..] = rest {
            return Ok((Token::Class { negated, ranges }, rest));
        }
    }
}

fn scan_member(rest: &[char]) -> Result<(char, &[char]), BadPattern> {
    match rest {
        // Something has to follow: the class is not closed yet.
        [] | ['-' | ']', ..] | [_] | ['\\', _] => Err(BadPattern),
        ['\\', rune, rest @ ..] | [rune, rest @ ..] => Ok((*rune, rest)),
    }
}

/// Which comparison a pattern needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Exact,
    Prefix,
    Suffix,
    Expression,
}

/// The expression that Docker's matcher makes of a pattern, and whether it uses it.
fn translate(pattern: &[u8]) -> (Shape, Vec<char>) {
    let mut shape = Shape::Exact;
    let mut expression = vec!['^'];
    let mut runes = runes(pattern).peekable();
    // Go's text/scanner, with which the pattern is read, drops one there.
    runes.next_if_eq(&'\u{feff}');
    let mut first = true;
    while let Some(rune) = runes.next() {
        match rune {
            '*' if runes.next_if_eq(&'*').is_some() => {
                runes.next_if_eq(&'/');
                if runes.peek().is_some() {
                    expression.extend("(.*/)?".chars());
                    shape = Shape::Expression;
                } else if shape == Shape::Exact {
                    shape = Shape::Prefix;
                } else {
                    expression.extend(".*".chars());
                    shape = Shape::Expression;
                }
                if first {
                    shape = Shape::Suffix;
                }
            }
            '*' => {
                expression.extend("[^/]*".chars());
                shape = Shape::Expression;
            }
            '?' => {
                expression.extend("[^/]".chars());
                shape = Shape::Expression;
            }
            // Docker means to escape `{`, `|` and `}` too, and its bitmap is too narrow for them: in an
            // expression they repeat and separate alternatives.
            '.' | '+' | '(' | ')' | '$' => expression.extend(['\\', rune]),
            '\\' => {
                expression.push(rune);
                if let Some(escaped) = runes.next() {
                    expression.push(escaped);
                    shape = Shape::Expression;
                }
            }
            '[' | ']' => {
                expression.push(rune);
                shape = Shape::Expression;
            }
            _ => expression.push(rune),
        }
        first = false;
    }
    if shape == Shape::Expression {
        expression.push('$');
    }
    (shape, expression)
}

/// One step of an expression. All that [`translate`] can produce is alternatives of sequences of these.
#[derive(Debug, Clone)]
enum Item {
    /// One rune of the set.
    One(Set),
    /// Any number of runes of the set.
    Star(Set),
    /// This many of the items that follow, all or none: `(.*/)?`.
    Maybe(usize),
    /// Nothing, at such a place.
    Assert(Assertion),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assertion {
    Begin,
    End,
    WordBoundary,
    NotWordBoundary,
}

impl Assertion {
    fn holds(self, text: &[u8], position: usize) -> bool {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        let at_boundary = || {
            let before = position.checked_sub(1).and_then(|index| text.get(index));
            is_word(before) != is_word(text.get(position))
        };
        match self {
            Self::Begin => position == 0,
            Self::End => position == text.len(),
            Self::WordBoundary => at_boundary(),
            Self::NotWordBoundary => !at_boundary(),
        }
    }
}

/// A set of runes.
#[derive(Debug, Clone)]
enum Set {
    Rune(char),
    Any,
    NotSlash,
    NotNewline,
    Class { negated: bool, ranges: Box<[(u32, u32)]> },
}

impl Set {
    fn class(negated: bool, ranges: Vec<(u32, u32)>) -> Self {
        Self::Class {
            negated,
            ranges: ranges.into(),
        }
    }

    fn contains(&self, rune: char) -> bool {
        match self {
            Self::Rune(only) => rune == *only,
            Self::Any => true,
            Self::NotSlash => rune != '/',
            Self::NotNewline => rune != '\n',
            Self::Class { negated, ranges } => in_class(rune, *negated, ranges),
        }
    }
}

fn in_class(rune: char, negated: bool, ranges: &[(u32, u32)]) -> bool {
    let rune = u32::from(rune);
    let listed = ranges.iter().any(|(low, high)| (*low..=*high).contains(&rune));
    listed != negated
}

/// Reads an expression of [`translate`] as Go's `regexp/syntax` does with its Perl flags.
///
/// `\pL` and its kind, the general categories of Unicode, are refused: they would need Unicode's tables,
/// and nobody means them in a file name.
fn parse(expression: &[char]) -> Result<Vec<Vec<Item>>, BadPattern> {
    let mut alternatives = Vec::new();
    let mut items = Vec::new();
    let mut rest = expression;
    loop {
        if let Some((repetition, after)) = parse_repetition(rest) {
            repeat(&mut items, repetition)?;
            rest = after;
            // One repetition may not follow another.
            if parse_repetition(rest).is_some() {
                return Err(BadPattern);
            }
            continue;
        }
        rest = match rest {
            [] => {
                alternatives.push(items);
                return Ok(alternatives);
            }
            ['|', rest @ ..] => {
                alternatives.push(std::mem::take(&mut items));
                rest
            }
            ['^', rest @ ..] => {
                items.push(Item::Assert(Assertion::Begin));
                rest
            }
            ['$', rest @ ..] => {
                items.push(Item::Assert(Assertion::End));
                rest
            }
            ['(', '.', '*', '/', ')', '?', rest @ ..] => {
                let directories = [Item::Star(Set::NotNewline), Item::One(Set::Rune('/'))];
                items.push(Item::Maybe(directories.len()));
                items.extend(directories);
                rest
            }
            ['.', '*', rest @ ..] => {
                items.push(Item::Star(Set::NotNewline));
                rest
            }
            ['[', rest @ ..] => {
                let (set, rest) = parse_class(rest)?;
                if let ['*', rest @ ..] = rest {
                    items.push(Item::Star(set));
                    rest
                } else {
                    items.push(Item::One(set));
                    rest
                }
            }
            ['\\', 'Q', rest @ ..] => {
                let end = rest.windows(2).position(|pair| pair == ['\\', 'E']);
                let (literal, rest) = rest.split_at(end.unwrap_or(rest.len()));
                items.extend(literal.iter().map(|rune| Item::One(Set::Rune(*rune))));
                rest.get(2..).unwrap_or_default()
            }
            ['\\', name, rest @ ..] if assertion(*name).is_some() => {
                items.extend(assertion(*name).map(Item::Assert));
                rest
            }
            ['\\', name, rest @ ..] if perl_class(*name).is_some() => {
                let ranges = perl_class(*name).unwrap_or_default();
                items.push(Item::One(Set::class(false, ranges)));
                rest
            }
            ['\\', rest @ ..] => {
                let (rune, rest) = parse_escape(rest)?;
                items.push(Item::One(Set::Rune(rune)));
                rest
            }
            [rune, rest @ ..] => {
                items.push(Item::One(Set::Rune(*rune)));
                rest
            }
        };
    }
}

/// Least and most times.
type Repetition = (usize, Option<usize>);

/// Reads `{2}`, `{2,}` or `{2,3}`. Any other brace is a rune like all others.
fn parse_repetition(rest: &[char]) -> Option<(Repetition, &[char])> {
    let ['{', rest @ ..] = rest else {
        return None;
    };
    let (least, rest) = parse_number(rest)?;
    match rest {
        ['}', rest @ ..] => Some(((least, Some(least)), rest)),
        [',', '}', rest @ ..] => Some(((least, None), rest)),
        [',', rest @ ..] => match parse_number(rest)? {
            (most, ['}', rest @ ..]) => Some(((least, Some(most)), rest)),
            _ => None,
        },
        _ => None,
    }
}

/// Reads a number that does not start with a needless 0.
fn parse_number(rest: &[char]) -> Option<(usize, &[char])> {
    let length = rest.iter().take_while(|rune| rune.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at_checked(length)?;
    if matches!(digits, [] | ['0', _, ..]) {
        return None;
    }
    let number = digits.iter().collect::<String>().parse();
    Some((number.unwrap_or(usize::MAX), rest))
}

/// Repeats the last item.
fn repeat(items: &mut Vec<Item>, (least, most): Repetition) -> Result<(), BadPattern> {
    const MOST: usize = 1000;
    // Go has a limit, too, which is higher.
    const MOST_ITEMS: usize = 1 << 16;
    let is_group = matches!(items.as_slice(), [.., Item::Maybe(_), _, _]);
    if is_group || least.max(most.unwrap_or(0)) > MOST || most.is_some_and(|most| most < least) {
        return Err(BadPattern);
    }
    match items.pop() {
        // A repetition already, or nothing: `|{2}`.
        Some(Item::Star(_) | Item::Maybe(_)) | None => return Err(BadPattern),
        Some(Item::One(set)) => {
            items.extend(std::iter::repeat_n(Item::One(set.clone()), least));
            match most {
                None => items.push(Item::Star(set)),
                Some(most) => {
                    for _ in least..most {
                        items.extend([Item::Maybe(1), Item::One(set.clone())]);
                    }
                }
            }
        }
        // It holds once or as often as one likes.
        Some(assertion @ Item::Assert(_)) => {
            if least > 0 {
                items.push(assertion);
            }
        }
    }
    if items.len() > MOST_ITEMS {
        return Err(BadPattern);
    }
    Ok(())
}

fn assertion(name: char) -> Option<Assertion> {
    Some(match name {
        'A' => Assertion::Begin,
        'z' => Assertion::End,
        'b' => Assertion::WordBoundary,
        'B' => Assertion::NotWordBoundary,
        _ => return None,
    })
}

/// Reads what follows a `[`.
fn parse_class(rest: &[char]) -> Result<(Set, &[char]), BadPattern> {
    let (negated, mut rest) = match rest {
        ['^', rest @ ..] => (true, rest),
        _ => (false, rest),
    };
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        rest = match rest {
            [']', rest @ ..] if !first => return Ok((Set::class(negated, ranges), rest)),
            ['[', ':', tail @ ..] if tail.windows(2).any(|pair| pair == [':', ']']) => {
                let end = tail.windows(2).position(|pair| pair == [':', ']']);
                let (name, tail) = tail.split_at(end.unwrap_or(tail.len()));
                ranges.extend(posix_class(name)?);
                tail.get(2..).unwrap_or_default()
            }
            ['\\', name, rest @ ..] if perl_class(*name).is_some() => {
                ranges.extend(perl_class(*name).unwrap_or_default());
                rest
            }
            _ => {
                let (low, rest) = parse_member(rest)?;
                let (high, rest) = match rest {
                    ['-', end, ..] if *end != ']' => parse_member(rest.get(1..).unwrap_or_default())?,
                    _ => (low, rest),
                };
                if high < low {
                    return Err(BadPattern);
                }
                ranges.push((u32::from(low), u32::from(high)));
                rest
            }
        };
        first = false;
    }
}

fn parse_member(rest: &[char]) -> Result<(char, &[char]), BadPattern> {
    match rest {
        [] => Err(BadPattern),
        ['\\', rest @ ..] => parse_escape(rest),
        [rune, rest @ ..] => Ok((*rune, rest)),
    }
}

/// Reads what follows a `\`, where it stands for one rune.
fn parse_escape(rest: &[char]) -> Result<(char, &[char]), BadPattern> {
    let octal = |rune: &char| rune.to_digit(8);
    match rest {
        ['a', rest @ ..] => Ok(('\x07', rest)),
        ['f', rest @ ..] => Ok(('\x0c', rest)),
        ['n', rest @ ..] => Ok(('\n', rest)),
        ['r', rest @ ..] => Ok(('\r', rest)),
        ['t', rest @ ..] => Ok(('\t', rest)),
        ['v', rest @ ..] => Ok(('\x0b', rest)),
        ['x', '{', rest @ ..] => {
            let end = rest.iter().position(|rune| *rune == '}').ok_or(BadPattern)?;
            let (digits, rest) = rest.split_at_checked(end).ok_or(BadPattern)?;
            let code = u32::from_str_radix(&digits.iter().collect::<String>(), 16);
            let rune = code.ok().and_then(char::from_u32).ok_or(BadPattern)?;
            Ok((rune, rest.get(1..).unwrap_or_default()))
        }
        ['x', high, low, rest @ ..] => {
            let code = high.to_digit(16).zip(low.to_digit(16));
            let rune = code.and_then(|(high, low)| char::from_u32(high * 16 + low));
            Ok((rune.ok_or(BadPattern)?, rest))
        }
        // A single digit other than 0 would refer back to a group.
        ['1'..='7', next, ..] if octal(next).is_none() => Err(BadPattern),
        ['1'..='7'] => Err(BadPattern),
        ['0'..='7', ..] => {
            let digits = rest.iter().take(3).map_while(octal);
            let code = digits.clone().fold(0, |code, digit| code * 8 + digit);
            let rune = char::from_u32(code).ok_or(BadPattern)?;
            Ok((rune, rest.get(digits.count()..).unwrap_or_default()))
        }
        [rune, rest @ ..] if rune.is_ascii() && !rune.is_ascii_alphanumeric() => Ok((*rune, rest)),
        _ => Err(BadPattern),
    }
}

/// The set that `\d` and its like stand for.
fn perl_class(name: char) -> Option<Vec<(u32, u32)>> {
    let ranges: &[(char, char)] = match name.to_ascii_lowercase() {
        'd' => &[('0', '9')],
        's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        _ => return None,
    };
    Some(code_points(ranges, name.is_ascii_uppercase()))
}

/// The set that `[:name:]` or `[:^name:]` stands for, in a class.
fn posix_class(name: &[char]) -> Result<Vec<(u32, u32)>, BadPattern> {
    let (negated, name) = match name {
        ['^', name @ ..] => (true, name),
        name => (false, name),
    };
    let ranges: &[(char, char)] = match name.iter().collect::<String>().as_str() {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err(BadPattern),
    };
    Ok(code_points(ranges, negated))
}

/// The ranges (ascending, apart) as code points, or all that lies between them.
fn code_points(ranges: &[(char, char)], negated: bool) -> Vec<(u32, u32)> {
    let ranges = ranges.iter().map(|(low, high)| (u32::from(*low), u32::from(*high)));
    if !negated {
        return ranges.collect();
    }
    let mut gaps = Vec::new();
    let mut from = 0;
    for (low, high) in ranges {
        if from < low {
            gaps.push((from, low - 1));
        }
        from = high + 1;
    }
    gaps.push((from, LAST));
    gaps
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Program(Vec<Sequence>);

impl Program {
    fn new(alternatives: Vec<Vec<Item>>) -> Self {
        Self(alternatives.into_iter().map(Sequence::new).collect())
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.0.iter().any(|sequence| sequence.matches(text))
    }
}

/// A sequence of items, without the plain text at its two ends.
///
/// Most paths are told apart by that text alone, so the simulation is rarely run.
#[derive(Debug, Clone)]
struct Sequence {
    prefix: Vec<u8>,
    items: Vec<Item>,
    suffix: Vec<u8>,
    /// Whether the path must end where the sequence does.
    anchored: bool,
}

impl Sequence {
    fn new(items: Vec<Item>) -> Self {
        let mut items: VecDeque<Item> = items.into();
        if let Some(Item::Assert(Assertion::Begin)) = items.front() {
            items.pop_front();
        } else {
            // It may start anywhere.
            items.push_front(Item::Star(Set::Any));
        }
        let anchored = matches!(items.back(), Some(Item::Assert(Assertion::End)));
        if anchored {
            items.pop_back();
        }
        let mut prefix = String::new();
        while let Some(rune) = items.front().and_then(plain) {
            prefix.push(rune);
            items.pop_front();
        }
        let mut suffix = Vec::new();
        while let Some(rune) = items.back().and_then(plain).filter(|_| anchored) {
            if ends_with_group(&items) {
                break;
            }
            suffix.push(rune);
            items.pop_back();
        }
        Self {
            prefix: prefix.into_bytes(),
            items: items.into(),
            suffix: suffix.into_iter().rev().collect::<String>().into_bytes(),
            anchored,
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        let start = self.prefix.len();
        let Some(end) = text.len().checked_sub(self.suffix.len()) else {
            return false;
        };
        start <= end && text.starts_with(&self.prefix) && text.ends_with(&self.suffix) && self.run(text, start, end)
    }

    /// Follows all ways through the items at once, rune by rune.
    fn run(&self, text: &[u8], start: usize, end: usize) -> bool {
        let accept = self.items.len();
        let mut here = States::new(accept + 1);
        let mut next = States::new(accept + 1);
        here.insert(0);
        let mut position = start;
        loop {
            let rune = text.get(position..end).and_then(decode);
            // Steps that take no rune only lead forward, so one pass in order sees them all.
            for (index, item) in self.items.iter().enumerate() {
                if !here.contains(index) {
                    continue;
                }
                match item {
                    Item::Maybe(count) => {
                        here.insert(index + 1);
                        here.insert(index + 1 + count);
                    }
                    Item::Assert(assertion) => {
                        if assertion.holds(text, position) {
                            here.insert(index + 1);
                        }
                    }
                    Item::Star(set) => {
                        here.insert(index + 1);
                        if rune.is_some_and(|(rune, _)| set.contains(rune)) {
                            next.insert(index);
                        }
                    }
                    Item::One(set) => {
                        if rune.is_some_and(|(rune, _)| set.contains(rune)) {
                            next.insert(index + 1);
                        }
                    }
                }
            }
            if here.contains(accept) && (rune.is_none() || !self.anchored) {
                return true;
            }
            let Some((_, width)) = rune else {
                return false;
            };
            if next.is_empty() {
                return false;
            }
            position += width;
            std::mem::swap(&mut here, &mut next);
            next.clear();
        }
    }
}

/// The rune that an item stands for in text. [`INVALID`] also stands for bytes that are not UTF-8.
fn plain(item: &Item) -> Option<char> {
    match item {
        Item::One(Set::Rune(rune)) if *rune != INVALID => Some(*rune),
        _ => None,
    }
}

/// Whether the last item is one of those that a [`Item::Maybe`] may leave out.
fn ends_with_group(items: &VecDeque<Item>) -> bool {
    let mut before = items.iter().rev().skip(1);
    matches!(before.next(), Some(Item::Maybe(_))) || matches!(before.next(), Some(Item::Maybe(2..)))
}

/// A set of small numbers that allocates only past 64 of them.
struct States {
    low: u64,
    high: Vec<u64>,
}

impl States {
    fn new(count: usize) -> Self {
        Self {
            low: 0,
            high: vec![0; count.saturating_sub(1) / 64],
        }
    }

    fn word(&mut self, index: usize) -> Option<&mut u64> {
        match (index / 64).checked_sub(1) {
            None => Some(&mut self.low),
            Some(word) => self.high.get_mut(word),
        }
    }

    fn insert(&mut self, index: usize) {
        if let Some(word) = self.word(index) {
            *word |= 1 << (index % 64);
        }
    }

    fn contains(&mut self, index: usize) -> bool {
        self.word(index).is_some_and(|word| *word & (1 << (index % 64)) != 0)
    }

    fn is_empty(&self) -> bool {
        self.low == 0 && self.high.iter().all(|word| *word == 0)
    }

    fn clear(&mut self) {
        self.low = 0;
        self.high.fill(0);
    }
}

/// The runes of a text, as Go decodes them.
fn runes(text: &[u8]) -> impl Iterator<Item = char> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (rune, width) = decode(rest)?;
        rest = rest.get(width..).unwrap_or_default();
        Some(rune)
    })
}

/// The first rune and its width in bytes; a byte that is not UTF-8 is [`INVALID`] and 1 wide.
pub(super) fn decode(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    let width = match first {
        0..0x80 => return Some((char::from(first), 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Some((INVALID, 1)),
    };
    let encoded = text.get(..width).and_then(|text| str::from_utf8(text).ok());
    Some(
        encoded
            .and_then(|text| text.chars().next())
            .map_or((INVALID, 1), |rune| (rune, width)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> Option<bool> {
        check(pattern.as_bytes()).ok()?;
        let matcher = Matcher::new(pattern.as_bytes()).ok()?;
        Some(matcher.matches(path.as_bytes()))
    }

    #[track_caller]
    fn table(rows: &[(&str, &[&str], &[&str])]) {
        for (pattern, yes, no) in rows {
            for path in *yes {
                assert_eq!(matches(pattern, path), Some(true), "{pattern} {path:?}");
            }
            for path in *no {
                assert_eq!(matches(pattern, path), Some(false), "{pattern} {path:?}");
            }
        }
    }

    #[test]
    fn names_and_wildcards() {
        table(&[
            ("a.c", &["a.c"], &["abc", "a", "d/a.c"]),
            ("*.c", &["a.c", ".c", "é.c"], &["a.cc", "d/a.c"]),
            ("d/*", &["d/a", "d/"], &["d", "d/a/b"]),
            ("a?c", &["abc", "aéc"], &["ac", "a/c", "abbc"]),
            ("a*b*c", &["abc", "axbxc", "abbcc"], &["ab", "acb", "ab/c"]),
            ("(a|b)+$", &["(a|b)+$"], &["a", "ab"]),
            ("a^b", &["a^b"], &["ab"]),
        ]);
    }

    #[test]
    fn braces_and_bars() {
        table(&[
            ("{a,b}", &["{a,b}"], &["a"]),
            ("{a,b}?", &["{a,b}x"], &["a"]),
            ("a|?b", &["a", "ax", "xb", "b/xb"], &["b", "/b", "xa"]),
            ("?|", &["a", "", "/"], &[]),
            ("a{2}?", &["aax"], &["ax", "a{2}x"]),
            ("?{2,3}", &["ab", "abc"], &["a", "abcd", "a/"]),
            ("[ab]{2,}", &["ab", "abab"], &["a", "abc"]),
            ("xa{0,2}?", &["xy", "xay", "xaay"], &["xaaay"]),
            ("a{,2}?", &["a{,2}x"], &["aax"]),
            ("a{02}?", &["a{02}x"], &["aax"]),
            ("a?{2}b", &["axxb"], &["axb", "ab"]),
            ("\\x{61}", &["a"], &["x"]),
            ("[{|}]", &["{", "|", "}"], &["a"]),
        ]);
        for pattern in [
            "*{2}",
            "?{2}{2}",
            "?|{2}",
            "?{1001}",
            "?{3,2}",
            "a**/{2}b",
            "?{99999999999999999999}",
        ] {
            assert_eq!(matches(pattern, "a"), None, "{pattern}");
        }
    }

    #[test]
    fn two_stars_cross_directories() {
        table(&[
            ("**", &["a", "a/b", ""], &[]),
            ("**/a", &["a", "x/a", "x/y/a"], &["xa", "a/x"]),
            ("**a", &["a", "xa", "x/a", "x/ya"], &["ax"]),
            ("a/**", &["a/", "a/b", "a/b/c"], &["a", "ab"]),
            ("a**", &["a", "ab", "a/b"], &["ba"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("**/*.c", &["a.c", "x/a.c"], &["a.d", "a.c/x"]),
            ("**/a/**", &["a/", "a/b", "x/a/b"], &["a", "x/a"]),
            ("a**b/c", &["ab/c", "a/x/b/c"], &["axb/c"]),
            ("***", &["a", "a/b"], &[]),
            ("**/a*/c", &["ab/c", "x/a/c"], &["a/b/c"]),
        ]);
        // Go's `.` is no newline, `[^/]` is one.
        table(&[("**/*x", &["a\nx", "b/a\nx"], &["a\n/x"])]);
    }

    #[test]
    fn classes() {
        table(&[
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[^a-c]x", &["dx", "/x"], &["ax"]),
            ("[a\\]]", &["a", "]"], &["\\"]),
            ("[é-ü]", &["ê"], &["e"]),
            ("a]", &["a]"], &["a"]),
            ("[[:alpha:]]1", &["a1"], &["11", ":1"]),
            ("[[:^alpha:]]", &["1", "é"], &["a"]),
            ("[\\d]", &["1"], &["d"]),
        ]);
    }

    #[test]
    fn what_go_makes_of_it() {
        table(&[
            ("v\\d", &["v1"], &["vd", "v\\d"]),
            ("v\\D", &["vd"], &["v1"]),
            ("a\\.b", &["a.b"], &["axb"]),
            ("\\*", &["*"], &["a"]),
            ("\\x61b", &["ab"], &["x61b"]),
            ("\\141b", &["ab"], &["141b"]),
            ("a\\tb", &["a\tb"], &["atb"]),
            ("*^b", &[], &["^b", "ab"]),
            ("a*\\b", &["a", "ab"], &["a-"]),
            ("\\Q[^/]\\E?", &["[^/]x"], &["a"]),
            ("\\Qa", &["a$", "a$x"], &["a"]),
            ("[*]", &["]", "[]", "^/[]"], &["*"]),
            ("[?]", &["[]", "^]", "/]"], &["?"]),
            ("[**]", &["*", "(", "?", "/"], &["a"]),
            ("\u{feff}a*", &["a", "ab"], &["\u{feff}a"]),
            ("\u{feff}a", &["\u{feff}a"], &["a"]),
        ]);
    }

    #[test]
    fn bytes_that_are_not_utf8() {
        let any = Matcher::new(b"?").unwrap();
        assert!(any.matches(b"\xff"));
        assert!(!any.matches(b"\xff\xff"));
        assert!(!any.matches(b"\xe9\x80"));
        let exact = Matcher::new(b"a\xff").unwrap();
        assert!(exact.matches(b"a\xff"));
        assert!(!exact.matches(b"a\xfe"));
        // In an expression, one such byte stands for all of them.
        let expression = Matcher::new(b"a\xff*").unwrap();
        assert!(expression.matches(b"a\xfe.c"));
        assert!(expression.matches("a\u{fffd}".as_bytes()));
    }

    #[test]
    fn refused_when_read() {
        for pattern in [
            "[", "[a", "[]", "[]a]", "[a-]", "[-a]", "[a-b-c]", "\\", "a\\", "*[", ".*[-a]",
        ] {
            assert_eq!(check(pattern.as_bytes()), Err(BadPattern), "{pattern}");
        }
        // Go stops at the first part that `.` does not match.
        for pattern in ["a*[-a]", "a*\\", "?x*[-a]", "[z-a]", "a]"] {
            assert_eq!(check(pattern.as_bytes()), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn refused_when_used() {
        for pattern in [
            "[z-a]",
            "\\y",
            "\\é",
            "\\8",
            "\\1",
            "\\18",
            "\\xg0",
            "[[:nope:]]",
            "\\pr",
            "[\\b]",
            "[a-\\d]",
        ] {
            assert_eq!(check(pattern.as_bytes()), Ok(()), "{pattern}");
            assert!(Matcher::new(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_take_linear_time() {
        let pattern = format!("{}b", "*a".repeat(200));
        let path = "a".repeat(4000);
        assert_eq!(matches(&pattern, &path), Some(false));
        let deep = "**/a/".repeat(100) + "b";
        assert_eq!(matches(&deep, &"a/".repeat(2000)), Some(false));
    }

    #[test]
    fn long_expressions() {
        // More states than one word has.
        let pattern = format!("{}?{}", "[a]".repeat(100), "[b]".repeat(100));
        let path = |middle| format!("{}{middle}{}", "a".repeat(100), "b".repeat(100));
        assert_eq!(matches(&pattern, &path("x")), Some(true));
        assert_eq!(matches(&pattern, &path("")), Some(false));
    }

    #[test]
    fn names_as_go_matches_them() {
        let name = |pattern: &str, name: &str| {
            Matcher::of_name(pattern.as_bytes()).is_ok_and(|matcher| matcher.matches(name.as_bytes()))
        };
        assert!(name("l*", "l1"));
        assert!(name("[*]", "*"));
        assert!(name("\\d", "d"));
        assert!(!name("l?", "l"));
        assert!(!name("[", "["));
    }
}
