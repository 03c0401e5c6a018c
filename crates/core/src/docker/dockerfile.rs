//! What a Dockerfile says of its stages: names, bases and the images that it copies from, with `ARG` put in.
//!
//! Only that is read; the builder reads the rest. Grammar: docker's Dockerfile reference (parser directives, line
//! continuation, heredocs, `ARG` before the first `FROM`).

use std::collections::BTreeMap;

use crate::naming::canonical;

/// A Dockerfile's stages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// In the order of the file.
    pub stages: Vec<Stage>,
    /// Images of `COPY --from` and `RUN --mount=...,from=`, stages left out.
    pub copied_from: Vec<String>,
}

/// One `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image or stage that it starts from, variables put in; none of it where a variable is unknown.
    pub base: Option<String>,
    /// `AS name`, in lower case as docker compares it.
    pub name: Option<String>,
    /// Its line, from 1.
    pub line: usize,
}

impl Dockerfile {
    /// Reads a Dockerfile; `build_args` beat the defaults of its `ARG`s.
    ///
    /// Lines that mean nothing are passed over: the builder complains of them.
    pub fn parse(text: &str, build_args: &BTreeMap<String, String>) -> Self {
        let mut file = Self::default();
        let mut globals: BTreeMap<String, String> = BTreeMap::new();
        let mut from = Vec::new();
        for instruction in instructions(text) {
            let (keyword, rest) = instruction
                .text
                .split_once(char::is_whitespace)
                .unwrap_or((&instruction.text, ""));
            let words: Vec<&str> = rest.split_whitespace().collect();
            match keyword.to_ascii_uppercase().as_str() {
                "ARG" if file.stages.is_empty() => {
                    for word in words {
                        let (name, default) = word.split_once('=').unwrap_or((word, ""));
                        let default = substitute(unquote(default), &globals).unwrap_or_default();
                        let value = build_args.get(name).cloned().unwrap_or(default);
                        globals.insert(name.to_owned(), value);
                    }
                }
                "FROM" => {
                    let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
                    let name = match words.as_slice() {
                        [_, as_word, name, ..] if as_word.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
                        _ => None,
                    };
                    file.stages.push(Stage {
                        base: words.first().and_then(|base| substitute(unquote(base), &globals)),
                        name,
                        line: instruction.line,
                    });
                }
                "COPY" | "ADD" | "RUN" => from.extend(
                    words
                        .iter()
                        .take_while(|word| word.starts_with("--"))
                        .filter_map(|word| source_of(word))
                        .filter_map(|source| substitute(source, &globals)),
                ),
                _ => {}
            }
        }
        file.copied_from = from
            .into_iter()
            .filter(|source| source.parse::<usize>().is_err() && !file.has_stage(source))
            .collect();
        file
    }

    /// Whether a stage has this name.
    pub fn has_stage(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.stages.iter().any(|stage| stage.name.as_deref() == Some(&name))
    }

    /// The images that it is made of: bases that are no stages, and images copied from.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let bases = self.stages.iter().enumerate().filter_map(|(index, stage)| {
            let base = stage.base.as_deref()?;
            let earlier = self.stages.get(..index)?;
            let lower = base.to_ascii_lowercase();
            (!earlier.iter().any(|stage| stage.name.as_deref() == Some(&lower)) && base != "scratch").then_some(base)
        });
        bases.chain(self.copied_from.iter().map(String::as_str))
    }

    /// The line of the first FROM of this image, by whatever form of its name.
    pub fn line_from(&self, image: &str) -> Option<usize> {
        let wanted = canonical(image);
        let is_wanted = |stage: &&Stage| stage.base.as_deref().is_some_and(|base| canonical(base) == wanted);
        self.stages.iter().find(is_wanted).map(|stage| stage.line)
    }

    /// The instructions that an image of `target` (the last stage, without one) is made by, after its base: those of
    /// the stages that it starts from, first.
    pub fn steps(&self, text: &str, target: Option<&str>) -> Vec<Instruction> {
        let index_of = |name: &str, before: usize| {
            let name = name.to_ascii_lowercase();
            let named = |stage: &Stage| stage.name.as_deref() == Some(&name);
            let earlier = self.stages.get(..before)?;
            let number = || name.parse().ok().filter(|index| *index < before);
            earlier.iter().rposition(named).or_else(number)
        };
        let mut wanted = match target {
            Some(name) => index_of(name, self.stages.len()),
            None => self.stages.len().checked_sub(1),
        };
        let all = instructions(text);
        let mut steps = Vec::new();
        while let Some((index, stage)) = wanted.and_then(|index| Some((index, self.stages.get(index)?))) {
            let end = self.stages.get(index + 1).map_or(usize::MAX, |next| next.line);
            let own = all
                .iter()
                .filter(|step| step.line > stage.line && step.line < end)
                .cloned();
            steps.splice(0..0, own);
            // A number is a stage in COPY --from alone, never in FROM.
            wanted = stage
                .base
                .as_deref()
                .filter(|base| base.parse::<usize>().is_err())
                .and_then(|base| index_of(base, index));
        }
        steps
    }

    /// The line on which the instruction of this text begins, compared without regard to blanks.
    pub fn line_of(text: &str, instruction: &str) -> Option<usize> {
        let squeeze = |text: &str| {
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .to_ascii_lowercase()
        };
        let wanted = squeeze(instruction);
        instructions(text)
            .into_iter()
            .find(|instruction| squeeze(&instruction.text) == wanted)
            .map(|instruction| instruction.line)
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its words on one line, without the body of a heredoc.
    pub text: String,
    /// The line that it begins on, from 1.
    pub line: usize,
}

impl Instruction {
    /// Its first word, in upper case.
    pub fn keyword(&self) -> String {
        self.text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase()
    }
}

/// Instructions with their continuation lines joined, without comments and heredoc bodies.
fn instructions(text: &str) -> Vec<Instruction> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape_directive(text);
    let mut found: Vec<Instruction> = Vec::new();
    let mut open: Option<Instruction> = None;
    let mut heredocs: Vec<String> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(end) = heredocs.first() {
            if line.trim_start_matches('\t') == end {
                heredocs.remove(0);
            }
            continue;
        }
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (part, goes_on) = match trimmed.strip_suffix(escape) {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        let instruction = open.get_or_insert(Instruction {
            text: String::new(),
            line: index + 1,
        });
        if !instruction.text.is_empty() {
            instruction.text.push(' ');
        }
        instruction.text.push_str(part.trim());
        if !goes_on && let Some(instruction) = open.take() {
            heredocs = heredoc_ends(&instruction.text);
            found.push(instruction);
        }
    }
    found.extend(open);
    found
}

fn escape_directive(text: &str) -> char {
    text.lines()
        .map_while(|line| line.trim().strip_prefix('#'))
        .filter_map(|comment| comment.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("escape"))
        .and_then(|(_, value)| value.trim().chars().next())
        .unwrap_or('\\')
}

/// The words that end the heredocs begun in a RUN, COPY or ADD.
fn heredoc_ends(instruction: &str) -> Vec<String> {
    let keyword = instruction.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(keyword))
    {
        return Vec::new();
    }
    instruction
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("<<"))
        .map(|word| word.strip_prefix('-').unwrap_or(word))
        .map(unquote)
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
        .map(str::to_owned)
        .collect()
}

fn source_of(flag: &str) -> Option<&str> {
    if let Some(source) = flag.strip_prefix("--from=") {
        return Some(source);
    }
    flag.strip_prefix("--mount=")?
        .split(',')
        .find_map(|field| field.strip_prefix("from="))
}

fn unquote(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

/// Puts `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}` in; none where a name is unknown.
fn substitute(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let after = after.get(1..)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, modifier) = match after.strip_prefix('{') {
            Some(braced) => {
                let (inner, tail) = braced.split_once('}')?;
                rest = tail;
                let end = inner.find(|c| !is_name(c)).unwrap_or(inner.len());
                inner.split_at(end)
            }
            None => {
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                let (name, tail) = after.split_at(end);
                rest = tail;
                (name, "")
            }
        };
        let value = values.get(name).filter(|value| !value.is_empty());
        if let Some(default) = modifier.strip_prefix(":-") {
            out.push_str(value.map_or(default, String::as_str));
        } else if let Some(other) = modifier.strip_prefix(":+") {
            out.push_str(value.map_or("", |_| other));
        } else {
            out.push_str(value?);
        }
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_an_image_are_those_of_its_stages() {
        let text = "FROM a AS one\nRUN 1\nFROM b\nRUN 2\nFROM one AS two\nRUN 3 \\\n  more\nCOPY --from=1 x y\n";
        let file = Dockerfile::parse(text, &BTreeMap::new());
        let steps = |target| -> Vec<(usize, String)> {
            let steps = file.steps(text, target);
            steps.into_iter().map(|step| (step.line, step.text)).collect()
        };
        let line = |line, text: &str| (line, text.to_owned());
        let last = [line(2, "RUN 1"), line(6, "RUN 3 more"), line(8, "COPY --from=1 x y")];
        assert_eq!(steps(None), last);
        assert_eq!(steps(Some("Two")), last);
        assert_eq!(steps(Some("1")), [line(4, "RUN 2")]);
        assert_eq!(steps(Some("nowhere")), []);
    }

    fn parse(text: &str) -> Dockerfile {
        Dockerfile::parse(text, &BTreeMap::from([("TAG".to_owned(), "7".to_owned())]))
    }

    #[test]
    fn stages_and_their_bases_are_found() {
        let file = parse(
            "# syntax=x\nARG TAG=1\nARG BASE=\"sample-base\"\nFROM --platform=linux/amd64 ${BASE}:$TAG As Builder\n\
             RUN make && \\\n  # a comment inside\n  make install\nfrom builder as last\nCOPY --from=tools/x:1 a b\n\
             RUN --mount=type=bind,from=other,target=/x ls\nCOPY --from=0 a b\nFROM ${NONE:-busybox}\n",
        );
        assert_eq!(
            file.images().collect::<Vec<_>>(),
            ["sample-base:7", "busybox", "tools/x:1", "other"]
        );
        assert!(file.has_stage("builder") && file.has_stage("LAST"));
        assert_eq!(file.stages[0].line, 4);
        assert_eq!(file.line_from("docker.io/library/busybox:latest"), Some(12));
        assert_eq!(file.line_from("alpine"), None);
    }

    #[test]
    fn heredocs_and_directives_are_no_instructions() {
        let file = parse("# escape=`\nFROM a\nRUN <<EOF\nFROM nothing\nEOF\nRUN x `\n FROM neither\nFROM b\n");
        assert_eq!(file.images().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn an_unknown_variable_makes_no_base() {
        assert_eq!(parse("FROM $WHAT\nFROM scratch\n").images().count(), 0);
    }

    #[test]
    fn an_instruction_is_found_by_its_text() {
        let text = "FROM a\n\nRUN   make \\\n   all\n";
        assert_eq!(Dockerfile::line_of(text, "RUN make all"), Some(3));
    }
}
