//! The patterns of `${NAME#pattern}` and similar: `*`, `?`, and `\` before a character that is meant literally.
//!
//! BuildKit makes a regular expression of them (`frontend/dockerfile/shell` of moby/buildkit), so that neither `*` nor
//! `?` matches the end of a line, and the replacement for all matches may name a group.

use super::budget::{Budget, Unreadable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatternToken {
    Any,
    One,
    Is(char),
}

/// A pattern.
#[derive(Debug)]
pub(super) struct Pattern(Vec<PatternToken>);

/// The range of a match, with its shortest or longest end.
#[derive(Clone, Copy)]
struct Ends {
    shortest: usize,
    longest: usize,
}

impl Pattern {
    pub(super) fn parse(pattern: &[char]) -> Result<Self, Unreadable> {
        let mut parts = Vec::with_capacity(pattern.len());
        let mut chars = pattern.iter().copied().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' => parts.push(PatternToken::Any),
                '?' => parts.push(PatternToken::One),
                '\\' => match chars.peek() {
                    // Escaped for the expansion around it, which these characters would end.
                    Some('}' | '/') => {}
                    Some(&escaped @ ('*' | '?' | '\\')) => {
                        chars.next();
                        parts.push(PatternToken::Is(escaped));
                    }
                    _ => return Err(Unreadable),
                },
                c => parts.push(PatternToken::Is(c)),
            }
        }
        Ok(Self(parts))
    }

    /// A pattern for texts that are read from their end.
    pub(super) fn parse_backwards(pattern: &[char]) -> Result<Self, Unreadable> {
        let Self(mut parts) = Self::parse(pattern)?;
        parts.reverse();
        Ok(Self(parts))
    }

    /// The text without the shortest or longest match at its beginning.
    pub(super) fn without_prefix(&self, text: &[char], longest: bool, budget: &Budget) -> Result<String, Unreadable> {
        Ok(text.iter().skip(self.removed(text, longest, budget)?).collect())
    }

    /// The text without the match at its end; the pattern was parsed backwards.
    pub(super) fn without_suffix(&self, text: &[char], longest: bool, budget: &Budget) -> Result<String, Unreadable> {
        let backwards: Vec<char> = text.iter().rev().copied().collect();
        let removed = self.removed(&backwards, longest, budget)?;
        Ok(text.iter().take(text.len().saturating_sub(removed)).collect())
    }

    fn removed(&self, text: &[char], longest: bool, budget: &Budget) -> Result<usize, Unreadable> {
        let ends = self.ends(text, 0, budget)?;
        Ok(ends.map_or(0, |ends| if longest { ends.longest } else { ends.shortest }))
    }

    /// The text with the first match or all matches replaced, each as long as possible.
    pub(super) fn replaced(
        &self,
        text: &[char],
        replacement: &str,
        all: bool,
        budget: &Budget,
    ) -> Result<String, Unreadable> {
        let mut made = String::new();
        // The end of the last match, and where the search goes on.
        let (mut done, mut from) = (0, 0);
        while let Some((start, end)) = self.next_match(text, from, budget)? {
            made.extend(text.get(done..start).unwrap_or_default());
            if !all {
                made.push_str(replacement);
                done = end;
                break;
            }
            // An empty match right after another match is skipped.
            if end > done || start == 0 {
                let matched = text.get(start..end).unwrap_or_default();
                let filled = filled(replacement, matched);
                budget.spend(filled.len())?;
                made.push_str(&filled);
            }
            done = end;
            from = end.max(from + 1);
        }
        made.extend(text.get(done..).unwrap_or_default());
        Ok(made)
    }

    fn next_match(&self, text: &[char], from: usize, budget: &Budget) -> Result<Option<(usize, usize)>, Unreadable> {
        for start in from..=text.len() {
            if let Some(ends) = self.ends(text, start, budget)? {
                return Ok(Some((start, ends.longest)));
            }
        }
        Ok(None)
    }

    /// Where a match from here can end. All ways of matching are followed at once.
    fn ends(&self, text: &[char], start: usize, budget: &Budget) -> Result<Option<Ends>, Unreadable> {
        let Self(parts) = self;
        let mut found: Option<Ends> = None;
        // Whether the parts before this one may match what was read so far.
        let mut reached = vec![false; parts.len() + 1];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        let mut rest = text.get(start..).unwrap_or_default().iter();
        let mut position = start;
        loop {
            budget.spend(reached.len())?;
            let mut before = false;
            for (index, here) in reached.iter_mut().enumerate() {
                let passed = index.checked_sub(1).and_then(|index| parts.get(index)) == Some(&PatternToken::Any);
                *here |= before && passed;
                before = *here;
            }
            if before {
                let shortest = found.map_or(position, |ends| ends.shortest);
                found = Some(Ends {
                    shortest,
                    longest: position,
                });
            }
            let Some(&c) = rest.next() else { return Ok(found) };
            let mut next = vec![false; reached.len()];
            for (index, part) in parts.iter().enumerate() {
                let goes_to = match part {
                    PatternToken::Any if c != '\n' => index,
                    PatternToken::One if c != '\n' => index + 1,
                    PatternToken::Is(wanted) if *wanted == c => index + 1,
                    _ => continue,
                };
                if reached.get(index) == Some(&true)
                    && let Some(there) = next.get_mut(goes_to)
                {
                    *there = true;
                }
            }
            if !next.contains(&true) {
                return Ok(found);
            }
            reached = next;
            position += 1;
        }
    }
}

/// A replacement with the match in place of `$0`; there are no other groups, and `$$` is a dollar.
fn filled(replacement: &str, matched: &[char]) -> String {
    let mut made = String::new();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        made.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            made.push('$');
            rest = after;
            continue;
        }
        match group(after) {
            Some((name, after)) => {
                if !name.is_empty() && name.bytes().all(|byte| byte == b'0') {
                    made.extend(matched);
                }
                rest = after;
            }
            None => {
                made.push('$');
                rest = after;
            }
        }
    }
    made.push_str(rest);
    made
}

/// The name of a group after a dollar, and what follows it.
fn group(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        true => Some((name, after.strip_prefix('}')?)),
        false => Some((name, after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, pattern: &str, replacement: &str) -> String {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let pattern = Pattern::parse(&chars(pattern)).unwrap();
        pattern
            .replaced(&chars(text), replacement, true, &Budget::default())
            .unwrap()
    }

    #[test]
    fn all_matches_are_replaced_as_go_replaces_them() {
        for (text, pattern, replacement, expected) in [
            ("abc", "", "-", "-a-b-c-"),
            ("abc", "*", "-", "-"),
            ("aXbX", "X", "$$", "a$b$"),
            ("aXbX", "X", "[$0${0}$1$name]", "a[XX]b[XX]"),
            ("aX", "X", "$ ${ $", "a$ ${ $"),
            ("a\nb", "*", "-", "-\n-"),
            ("", "x", "-", ""),
        ] {
            assert_eq!(replaced(text, pattern, replacement), expected, "{text:?} {pattern:?}");
        }
    }
}
