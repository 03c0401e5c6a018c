//! A Dockerfile with the place of everything in it: for what is said about its lines, and written instead of them.

use std::ops::Range;

use super::budget::Budget;
use super::lines::{self, Parts};
use super::words::{as_literal, as_pair_value, unread_words};
use crate::naming::nearest;

/// The instructions of BuildKit's Dockerfile frontend.
const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];
/// Those whose arguments may be a JSON list.
const WITH_JSON: [&str; 8] = [
    "add",
    "cmd",
    "copy",
    "entrypoint",
    "healthcheck",
    "run",
    "shell",
    "volume",
];
/// Those that may have no arguments: such a command is reset.
const WITHOUT_ARGUMENTS: [&str; 2] = ["cmd", "entrypoint"];

/// A Dockerfile, up to its first fault.
#[derive(Clone, Debug)]
pub struct DockerfileSource<'t> {
    /// All of it.
    pub text: &'t str,
    /// The character that continues lines.
    pub escape: char,
    /// In their order, up to the fault.
    pub instructions: Vec<SourceInstruction>,
    /// What the builder would refuse it for, if anything.
    pub fault: Option<SourceFault>,
    /// The value of the directive `# check=`.
    pub check: Option<&'t str>,
    /// The bytes at which lines begin.
    starts: Vec<usize>,
}

/// Why a builder refuses a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFault {
    /// From 1; that of the end, if something is missing.
    pub line: usize,
    /// In BuildKit's words.
    pub message: String,
}

/// One instruction in its place.
#[derive(Clone, Debug)]
pub struct SourceInstruction {
    /// In lower case.
    pub keyword: String,
    /// The keyword as it is written.
    pub written: String,
    /// Such as `--from=x`, without quotes and escapes.
    pub flags: Vec<String>,
    /// Its lines joined, without the bodies of here-documents.
    pub text: String,
    /// Where in `text` begins what follows the flags.
    pub rest: usize,
    /// The line that it begins on, from 1.
    pub line: usize,
    /// The line that it ends on.
    pub end: usize,
    /// What follows the flags, if that is a JSON list of strings.
    pub json: Option<Vec<String>>,
    /// The bodies of its here-documents, as bytes of the file.
    pub bodies: Vec<Range<usize>>,
    /// The position of its stage; `None` before the first FROM.
    pub stage: Option<usize>,
    /// Whether an empty line stands among those that are joined.
    pub has_empty_continuation: bool,
    places: Vec<(usize, usize)>,
}

impl<'t> DockerfileSource<'t> {
    /// Reads a Dockerfile. Any text can be read; what can't be built has a fault.
    pub fn read(text: &'t str) -> Self {
        let escape = lines::escape(text);
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(at, _)| at + 1));
        let mut source = Self {
            text,
            escape,
            instructions: Vec::new(),
            fault: None,
            check: lines::directive(text, "check"),
            starts,
        };
        let mut stages = 0;
        for line in lines::read(text, &Budget::default()) {
            let parts = Parts::of(&line.text, escape);
            let fault = fault(&parts, &line, stages);
            if let Some(message) = fault {
                source.fault = Some(SourceFault {
                    line: line.number,
                    message,
                });
                return source;
            }
            if parts.keyword == "from" {
                stages += 1;
            }
            source.instructions.push(instruction(&line, &parts, stages));
        }
        if stages == 0 {
            let message = if source.instructions.is_empty() {
                "file with no instructions"
            } else {
                "no build stage in current context"
            };
            source.fault = Some(SourceFault {
                line: text.lines().count().max(1),
                message: message.to_owned(),
            });
        }
        source
    }

    /// The byte at which a line begins, from 1; the end of the file beyond its last line.
    pub fn start_of(&self, line: usize) -> usize {
        let index = line.saturating_sub(1);
        self.starts.get(index).copied().unwrap_or(self.text.len())
    }

    /// The line, from 1, in which a byte of the file is.
    pub fn line_at(&self, byte: usize) -> usize {
        self.starts.partition_point(|start| *start <= byte)
    }

    /// The lines from the first to the last, both of them included, with their line breaks.
    pub fn lines(&self, first: usize, last: usize) -> &'t str {
        let bytes = self.start_of(first)..self.start_of(last + 1);
        self.text.get(bytes).unwrap_or_default()
    }

    /// The first instruction that ends on this line or later, by position.
    pub fn first_until(&self, line: usize) -> usize {
        self.instructions.partition_point(|step| step.end < line)
    }

    /// The instructions of a stage, without its FROM.
    pub fn of_stage(&self, stage: usize) -> impl DoubleEndedIterator<Item = &SourceInstruction> {
        // Stages stand one after the other.
        let first = self.instructions.partition_point(|step| step.stage < Some(stage));
        let after = self.instructions.partition_point(|step| step.stage <= Some(stage));
        let all = self.instructions.get(first..after).unwrap_or_default().iter();
        all.filter(|step| step.keyword != "from")
    }
}

impl SourceInstruction {
    /// Whether it is COPY or ADD.
    pub fn is_copy(&self) -> bool {
        matches!(self.keyword.as_str(), "copy" | "add")
    }

    /// What follows the flags.
    pub fn arguments(&self) -> &str {
        self.text.get(self.rest..).unwrap_or_default().trim_end()
    }

    /// Where a place of `text` is in the file, in bytes.
    pub fn place(&self, offset: usize) -> usize {
        let after = self.places.partition_point(|(begin, _)| *begin <= offset);
        let part = after.checked_sub(1).and_then(|at| self.places.get(at));
        part.map_or(0, |(begin, place)| place + (offset - begin))
    }

    /// Where a part of `text` is in the file. Lines that are joined in it are in it with what joins them.
    pub fn span(&self, part: Range<usize>) -> Range<usize> {
        if part.is_empty() {
            let place = self.place(part.start);
            return place..place;
        }
        self.place(part.start)..self.place(part.end - 1) + 1
    }

    /// The words after the flags, each with the bytes of the file that it is; quotes do not join words.
    pub fn words(&self) -> Vec<(Range<usize>, &str)> {
        let mut words = Vec::new();
        let mut begin = None;
        let text = self.text.as_str();
        let ends = text.char_indices().chain([(text.len(), ' ')]);
        for (at, c) in ends.filter(|(at, _)| *at >= self.rest) {
            match begin {
                Some(from) if c.is_whitespace() => {
                    words.extend(text.get(from..at).map(|word| (self.span(from..at), word)));
                    begin = None;
                }
                None if !c.is_whitespace() => begin = Some(at),
                _ => {}
            }
        }
        words
    }

    /// The value of the first flag of this name: `--NAME=value`.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags_named(name).next()
    }

    /// The values of the flags of this name.
    pub fn flags_named<'s>(&'s self, name: &str) -> impl Iterator<Item = &'s str> {
        let begin = format!("--{name}=");
        self.flags.iter().filter_map(move |flag| flag.strip_prefix(&begin))
    }

    /// The names and values of `ENV`, `LABEL` and `ARG`, with quotes and escapes in the values; a name alone has none.
    /// The old form `ENV name value` is one pair.
    pub fn pairs(&self, escape: char) -> Vec<(String, Option<String>)> {
        let words = unread_words(self.arguments(), escape);
        if self.is_legacy_pair(escape) {
            let (name, value) = self.arguments().split_once(char::is_whitespace).unwrap_or_default();
            return vec![(name.to_owned(), Some(value.trim().to_owned()))];
        }
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        words.into_iter().map(pair).collect()
    }

    /// The old form `ENV name value` as `name=value`, with the same value: all that follows the name, with quotes, escapes and
    /// variables in it read as in any word. `None` where it can't be told, or stands on several lines.
    pub fn legacy_pair_as_new(&self, escape: char) -> Option<String> {
        let (name, value) = self.pairs(escape).into_iter().next()?;
        let is_one_line = self.line == self.end && self.is_legacy_pair(escape);
        let value = as_pair_value(&value?, escape).filter(|_| is_one_line)?;
        Some(format!("{name}={value}"))
    }

    /// Whether it is `ENV name value` or `LABEL name value`.
    pub fn is_legacy_pair(&self, escape: char) -> bool {
        let words = unread_words(self.arguments(), escape);
        matches!(self.keyword.as_str(), "env" | "label")
            && words.len() > 1
            && words.first().is_some_and(|word| !word.contains('='))
    }
}

/// A word of an instruction that has exactly this value; `None` where that can't be written.
pub fn literal(value: &str, escape: char) -> Option<String> {
    as_literal(value, escape)
}

/// Why BuildKit refuses an instruction, if the reason is in its form.
fn fault(parts: &Parts<'_>, line: &lines::Line, stages: usize) -> Option<String> {
    let keyword = parts.keyword.as_str();
    let upper = keyword.to_uppercase();
    if !KEYWORDS.contains(&keyword) {
        let suggestion = nearest(keyword, KEYWORDS).map(|known| format!(" (did you mean {}?)", known.to_uppercase()));
        return Some(format!(
            "unknown instruction: {upper}{}",
            suggestion.unwrap_or_default()
        ));
    }
    if line.bodies.iter().any(|body| !body.is_ended) {
        return Some("unterminated heredoc".to_owned());
    }
    if stages == 0 && !matches!(keyword, "arg" | "from") {
        return Some("no build stage in current context".to_owned());
    }
    let words = parts.words();
    match keyword {
        "from" => {
            let is_right = match words.as_slice() {
                [_] => true,
                [_, word, _] => word.eq_ignore_ascii_case("as"),
                _ => false,
            };
            (!is_right).then(|| "FROM requires either one or three arguments".to_owned())
        }
        "copy" | "add" if words.len() < 2 && line.bodies.is_empty() => Some(format!(
            "{upper} requires at least two arguments, but only {} were provided",
            words.len()
        )),
        "workdir" | "user" | "stopsignal" | "maintainer" if words.is_empty() => {
            Some(format!("{upper} requires exactly one argument"))
        }
        _ if words.is_empty() && !WITHOUT_ARGUMENTS.contains(&keyword) => {
            Some(format!("{upper} requires at least one argument"))
        }
        _ => None,
    }
}

fn instruction(line: &lines::Line, parts: &Parts<'_>, stages: usize) -> SourceInstruction {
    let text = line.text.as_str();
    // What follows the flags is the end of the text, but for blanks.
    let rest = text.trim_end().len() - parts.rest.len();
    let json = WITH_JSON
        .contains(&parts.keyword.as_str())
        .then(|| {
            parts
                .rest
                .strip_prefix('[')
                .and_then(|_| serde_json::from_str(parts.rest).ok())
        })
        .flatten();
    let written = text.split_whitespace().next().unwrap_or_default();
    SourceInstruction {
        keyword: parts.keyword.clone(),
        written: written.to_owned(),
        flags: parts.flags.clone(),
        text: text.to_owned(),
        rest,
        line: line.number,
        end: line.end,
        json,
        bodies: line.bodies.iter().map(|body| body.bytes.clone()).collect(),
        stage: stages.checked_sub(1),
        has_empty_continuation: line.has_empty_continuation,
        places: line.places.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_where_they_stand() {
        let text = "\u{feff}# check=skip=A\nFROM a\n\nRUN --mount=type=cache,target=/x one \\\n  # a comment\n\n  two <<E\nbody\nE\n\
                    COPY a b\n";
        let source = DockerfileSource::read(text);
        assert_eq!(source.check, Some("skip=A"));
        assert_eq!(source.fault, None);
        let run = &source.instructions[1];
        assert_eq!((run.line, run.end), (4, 9));
        assert_eq!(run.flag("mount"), Some("type=cache,target=/x"));
        let words: Vec<_> = run.words().into_iter().map(|(bytes, _)| &text[bytes]).collect();
        assert_eq!(words, ["one", "two", "<<E"]);
        assert_eq!(&text[run.bodies[0].clone()], "body");
        assert!(run.has_empty_continuation);
        let copy = &source.instructions[2];
        assert_eq!((copy.line, copy.arguments(), copy.stage), (10, "a b", Some(0)));
        assert_eq!(source.lines(10, 10), "COPY a b\n");
    }

    #[test]
    fn what_is_refused_is_so_at_its_line_and_all_before_it_is_there() {
        for (text, line, message, before) in [
            ("", 1, "file with no instructions", 0),
            ("# only\n", 1, "file with no instructions", 0),
            ("ARG A=1\n", 1, "no build stage in current context", 1),
            ("RUN x\nFROM a\n", 1, "no build stage in current context", 0),
            (
                "FROM a\nRNU x\nRUN y\n",
                2,
                "unknown instruction: RNU (did you mean RUN?)",
                1,
            ),
            ("FROM a\nBANANA x\n", 2, "unknown instruction: BANANA", 1),
            ("FROM a b\n", 1, "FROM requires either one or three arguments", 0),
            ("FROM a AS\n", 1, "FROM requires either one or three arguments", 0),
            ("FROM a\nRUN <<E\nx\n", 2, "unterminated heredoc", 1),
            ("FROM a\nUSER\n", 2, "USER requires exactly one argument", 1),
            ("FROM a\nENV\n", 2, "ENV requires at least one argument", 1),
            (
                "FROM a\nCOPY x\n",
                2,
                "COPY requires at least two arguments, but only 1 were provided",
                1,
            ),
        ] {
            let source = DockerfileSource::read(text);
            let fault = SourceFault {
                line,
                message: message.to_owned(),
            };
            assert_eq!(source.fault, Some(fault), "{text:?}");
            assert_eq!(source.instructions.len(), before, "{text:?}");
        }
    }

    #[test]
    fn pairs_have_two_forms() {
        let source = DockerfileSource::read("FROM a\nENV A=1 B=\"2 3\"\nENV C  4 5\nARG D E=6\n");
        let pairs = |index: usize| source.instructions[index].pairs('\\');
        let pair = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        assert_eq!(pairs(1), [pair("A", Some("1")), pair("B", Some("\"2 3\""))]);
        assert_eq!(pairs(2), [pair("C", Some("4 5"))]);
        assert_eq!(pairs(3), [pair("D", None), pair("E", Some("6"))]);
    }
}
