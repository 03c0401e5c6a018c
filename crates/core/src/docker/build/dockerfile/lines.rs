//! The instructions of a Dockerfile: lines joined, comments and here-documents left out, flags separated.
//!
//! Grammar: `frontend/dockerfile/parser` of moby/buildkit.

use std::collections::BTreeMap;
use std::ops::Range;

use super::budget::Budget;
use super::words::Lexer;

/// Characters that separate the words of an instruction.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];
/// Instructions that may begin a here-document.
const WITH_HEREDOC: [&str; 3] = ["add", "copy", "run"];
/// Directives for the builder in a comment at the beginning.
const DIRECTIVES: [&str; 3] = ["check", "escape", "syntax"];

/// One instruction as written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Its lines joined, without the bodies of here-documents.
    pub(super) text: String,
    /// The line that it begins on, from 1.
    pub(super) number: usize,
    /// The line that it ends on: that of its last here-document, if it has one.
    pub(super) end: usize,
    /// Where the parts of the text stand: an offset in the text, and the same place in the file, in bytes.
    pub(super) places: Vec<(usize, usize)>,
    /// The bodies of its here-documents, in their order.
    pub(super) bodies: Vec<HeredocBody>,
    /// Whether an empty line stands among those that are joined.
    pub(super) has_empty_continuation: bool,
}

/// The body of a here-document, without the line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeredocBody {
    /// The bytes of the file that it is.
    pub(super) bytes: Range<usize>,
    /// Whether the line that ends it is there.
    pub(super) is_ended: bool,
}

/// An instruction in its parts.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    /// In lower case.
    pub(super) keyword: String,
    /// Such as `--from=x`, without quotes and escapes.
    pub(super) flags: Vec<String>,
    /// Everything after the flags.
    pub(super) rest: &'a str,
}

impl<'a> Parts<'a> {
    /// Splits the text of an instruction.
    pub(super) fn of(text: &'a str, escape: char) -> Self {
        let text = text.trim();
        let (keyword, rest) = text.split_once(BLANKS).unwrap_or((text, ""));
        let (flags, rest) = flags(rest, escape);
        Self {
            keyword: keyword.to_lowercase(),
            flags,
            rest: rest.trim(),
        }
    }

    /// The words after the flags; quotes do not join words.
    pub(super) fn words(&self) -> Vec<&'a str> {
        self.rest.split(BLANKS).filter(|word| !word.is_empty()).collect()
    }

    /// Whether the rest is a JSON list.
    fn is_json(&self) -> bool {
        self.rest.starts_with('[') && serde_json::from_str::<Vec<serde_json::Value>>(self.rest).is_ok()
    }
}

/// The instructions of a Dockerfile.
pub(super) fn read(text: &str, budget: &Budget) -> Vec<Line> {
    let escape = escape(text);
    let mut found = Vec::new();
    let (text, mut offset) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, '\u{feff}'.len_utf8()),
        None => (text, 0),
    };
    let lines = text.split('\n').zip(1..).map(|(line, number)| {
        let begin = offset;
        offset += line.len() + 1;
        (line.trim_end_matches('\r'), begin, number)
    });
    let mut lines = lines.peekable();
    while let Some((line, begin, number)) = lines.next() {
        if is_comment(line) || line.trim_start().is_empty() {
            continue;
        }
        let first = line.trim_start();
        let mut part = continued(first, escape);
        let mut text = part.unwrap_or(first).to_owned();
        let mut places = vec![(0, begin + line.len() - first.len())];
        let mut end = number;
        let mut has_empty_continuation = false;
        while part.is_some()
            && let Some((line, begin, number)) = lines.next()
        {
            // Such lines neither continue an instruction nor end it.
            if is_comment(line) {
                continue;
            }
            if line.trim_start().is_empty() {
                // What follows the last line break of a file is not a line.
                has_empty_continuation |= lines.peek().is_some();
                continue;
            }
            part = continued(line, escape);
            places.push((text.len(), begin));
            text.push_str(part.unwrap_or(line));
            end = number;
        }
        let mut bodies = Vec::new();
        for heredoc in heredocs(&text, escape, budget) {
            let mut body: Option<Range<usize>> = None;
            let mut is_ended = false;
            for (line, begin, number) in lines.by_ref() {
                end = number;
                let words = if heredoc.without_tabs {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if words == heredoc.end {
                    is_ended = true;
                    body.get_or_insert(begin..begin);
                    break;
                }
                body.get_or_insert(begin..begin).end = begin + line.len();
            }
            if let Some(bytes) = body {
                bodies.push(HeredocBody { bytes, is_ended });
            } else {
                bodies.push(HeredocBody { bytes: 0..0, is_ended });
            }
        }
        if !text.trim().is_empty() {
            found.push(Line {
                text,
                number,
                end,
                places,
                bodies,
                has_empty_continuation,
            });
        }
    }
    found
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// What precedes the escape that continues a line; two escapes continue nothing.
fn continued(line: &str, escape: char) -> Option<&str> {
    let part = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!part.ends_with(escape)).then_some(part)
}

/// The value of a directive in the comments at the beginning, as in `# syntax=docker/dockerfile:1`.
pub(super) fn directive<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let mut seen = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.split('\n') {
        let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        // Anything else ends the directives, and a repeated one is refused.
        let known = DIRECTIVES.into_iter().find(|known| **known == *name)?;
        if seen.contains(&known) {
            return None;
        }
        seen.push(known);
        let value = Some(value.trim()).filter(|value| !value.is_empty())?;
        if known == wanted {
            return Some(value);
        }
    }
    None
}

/// The escape character, which also continues a line.
pub(super) fn escape(text: &str) -> char {
    match directive(text, "escape") {
        Some("`") => '`',
        _ => '\\',
    }
}

/// The flags after an instruction's keyword, and the rest.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = flag(rest, escape);
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

fn flag(text: &str, escape: char) -> (String, &str) {
    let mut flag = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (flag, text.get(at..).unwrap_or_default()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (_, c) if c == escape => flag.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => flag.push(c),
        }
    }
    (flag, "")
}

/// A here-document.
#[derive(Debug, PartialEq, Eq)]
struct Heredoc {
    /// The line that ends it.
    end: String,
    /// `<<-`: tabs before that line do not count.
    without_tabs: bool,
}

/// The here-documents that an instruction begins, in their order.
fn heredocs(instruction: &str, escape: char, budget: &Budget) -> Vec<Heredoc> {
    if !instruction.contains("<<") {
        return Vec::new();
    }
    let mut parts = Parts::of(instruction, escape);
    if parts.keyword == "onbuild" {
        parts = Parts::of(parts.rest, escape);
    }
    if !WITH_HEREDOC.contains(&parts.keyword.as_str()) || parts.is_json() {
        return Vec::new();
    }
    let lexer = Lexer::of_heredocs(budget);
    let words = lexer.raw().words(instruction, &BTreeMap::new()).unwrap_or_default();
    words.iter().filter_map(|word| heredoc(word, lexer)).collect()
}

/// The start of a here-document: `<<EOF`, or `3<<-"EOF"`.
fn heredoc(word: &str, lexer: Lexer<'_>) -> Option<Heredoc> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (rest, without_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    if rest.contains('<') {
        return None;
    }
    let words = lexer.words(rest, &BTreeMap::new()).ok()?;
    let [end] = <[String; 1]>::try_from(words).ok()?;
    Some(Heredoc { end, without_tabs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        let lines = read(text, &Budget::default());
        lines.into_iter().map(|line| (line.number, line.text)).collect()
    }

    #[track_caller]
    fn assert_lines(text: &str, expected: &[(usize, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, text)| (*number, (*text).to_owned()))
            .collect();
        assert_eq!(lines(text), expected, "{text:?}");
    }

    #[test]
    fn lines_are_joined_as_they_stand() {
        assert_lines(
            "\u{feff}# comment \\\n\n  FROM a\\\r\nb \\ \t\n\n# between \\\n   AS x\nRUN 1",
            &[(3, "FROM ab    AS x"), (8, "RUN 1")],
        );
        assert_lines("RUN a \\\\\nRUN b \\\n", &[(1, "RUN a \\\\"), (2, "RUN b ")]);
        assert_lines("\\\nFROM a\n\\\n", &[(1, "FROM a")]);
    }

    #[test]
    fn directives_stand_first_and_once() {
        assert_lines(
            "# escape=`\nRUN a `\n b \\\nRUN c\n",
            &[(2, "RUN a  b \\"), (4, "RUN c")],
        );
        assert_eq!(escape("#Escape = ` \n"), '`');
        assert_eq!(escape("# syntax=x\n# escape=`\n"), '`');
        for text in [
            "# a comment\n# escape=`\n",
            "\n# escape=`\n",
            "# other=x\n# escape=`\n",
            "# escape=\\\n# escape=`\n",
            "# escape=x\n",
            "FROM a\n# escape=`\n",
        ] {
            assert_eq!(escape(text), '\\', "{text:?}");
        }
        assert_eq!(directive("# check=skip=all\n# syntax = x y \n", "syntax"), Some("x y"));
    }

    #[test]
    fn here_documents_end_at_their_words() {
        for (begin, end) in [
            ("RUN <<EOF", "EOF"),
            ("RUN <<\"EOF\"", "EOF"),
            ("RUN <<'E F'", "E F"),
            ("RUN <<E\"O\"F", "EOF"),
            ("RUN <<-EOF", "\t\tEOF"),
            ("RUN cat <<EOF > /x", "EOF"),
            ("RUN 3<<EOF cat", "EOF"),
            ("RUN cat <<$A", "$A"),
            ("RUN --mount=type=cache,target=/x <<EOF", "EOF"),
            ("COPY <<EOF /x", "EOF"),
            ("ADD <<EOF /x", "EOF"),
            ("ONBUILD RUN <<EOF", "EOF"),
            ("run <<eof", "eof"),
        ] {
            let text = format!("{begin}\nFROM x\n# EOF\n EOF\n{end}\nFROM y\n");
            assert_lines(&text, &[(1, begin), (6, "FROM y")]);
        }
        assert_lines(
            "RUN <<A cat <<B\nA \nA\nFROM x\nB\nFROM y\n",
            &[(1, "RUN <<A cat <<B"), (6, "FROM y")],
        );
    }

    #[test]
    fn what_is_no_here_document_swallows_nothing() {
        for begin in [
            "RUN <<<EOF",
            "RUN a<<EOF",
            "RUN << EOF",
            "RUN \"<<EOF\"",
            "RUN [\"<<EOF\"]",
            "RUN 'unended <<EOF",
            "CMD <<EOF",
            "ENTRYPOINT <<EOF",
        ] {
            let lines = lines(&format!("{begin}\nFROM y\n"));
            assert_eq!(lines, [(1, begin.to_owned()), (2, "FROM y".to_owned())], "{begin}");
        }
    }

    #[test]
    fn flags_are_taken_apart() {
        let parts = Parts::of(" copy --from=\"a b\" --chown='1'\\:2 -- --x y", '\\');
        assert_eq!(parts.keyword, "copy");
        assert_eq!(parts.flags, ["--from=a b", "--chown=1:2"]);
        assert_eq!(parts.words(), ["--x", "y"]);
        let parts = Parts::of("FROM \"a b\"", '\\');
        assert_eq!((parts.flags.len(), parts.words()), (0, vec!["\"a", "b\""]));
        let parts = Parts::of(r"COPY --from=`a\b x y", '`');
        assert_eq!(parts.flags, [r"--from=a\b"]);
    }
}
