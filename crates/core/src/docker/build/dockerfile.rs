//! The stages of a Dockerfile: names, bases and the images that it copies from, with the values of `ARG`.
//!
//! Only that is read; the builder reads the rest. Grammar: docker's Dockerfile reference, and what that leaves open,
//! the parser and the Dockerfile frontend of moby/buildkit. A real test compares what is read here with what BuildKit
//! requests from registries.

mod budget;
mod lines;
mod pattern;
pub mod source;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use self::budget::Budget;
use self::lines::Parts;
use self::words::{Lexer, unread_words};
use crate::docker::options::build_options::BuildOptions;
use crate::docker::options::csv;
use crate::docker::options::run_options::platform;
use crate::naming::{canonical, is_reference};

/// The base of a stage without one.
const SCRATCH: &str = "scratch";

/// A Dockerfile's stages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// In the order of the file.
    pub stages: Vec<Stage>,
    /// The stages of each name, by position.
    named: BTreeMap<String, Vec<usize>>,
}

/// One `FROM`, and what its stage copies and mounts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The image or stage that it starts from, with variables replaced; `None` if the builder would refuse it.
    pub base: Option<String>,
    /// `AS name`, in lower case as docker compares it.
    pub name: Option<String>,
    /// Its line, from 1.
    pub line: usize,
    sources: Vec<Source>,
    /// The images that `ONBUILD` makes the stages and images based on this one copy and mount from.
    triggers: Vec<Source>,
}

/// The value of `COPY --from` and `RUN --mount=from=`: a stage, or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    name: String,
    /// A number is a stage for COPY, and an image's name for a mount.
    can_be_number: bool,
}

impl Dockerfile {
    /// Reads a Dockerfile as it is built with these options: build arguments override the defaults of its `ARG`s.
    ///
    /// Lines without meaning are ignored: the builder reports them. Without an option for the platform, this machine's
    /// is used.
    pub fn parse(text: &str, options: &BuildOptions) -> Self {
        let budget = Budget::default();
        let escape = lines::escape(text);
        let lexer = Lexer::new(escape, &budget);
        let lines = lines::read(text, &budget);
        let mut file = Self::default();
        let last = lines.iter().rev().map(|line| Parts::of(&line.text, escape));
        let last = last
            .filter(|parts| parts.keyword == "from")
            .find_map(|parts| stage_name(&parts.words()));
        // None after an ARG that can't be read: the builder builds nothing then.
        let mut globals = Some(predefined(options, last));
        for line in &lines {
            let mut parts = Parts::of(&line.text, escape);
            match (parts.keyword.as_str(), file.stages.last_mut()) {
                ("arg", None) => {
                    for word in unread_words(parts.rest, escape) {
                        globals = globals.and_then(|known| with_argument(known, &word, lexer, options));
                    }
                }
                ("from", _) => {
                    let words = parts.words();
                    let base = match words.as_slice() {
                        [base] => Some(*base),
                        [base, as_word, _] if as_word.eq_ignore_ascii_case("as") => Some(*base),
                        _ => None,
                    };
                    let base = base.zip(globals.as_ref()).and_then(|(base, globals)| {
                        let base = lexer.word(base, globals).ok()?;
                        (!base.is_empty()).then_some(base)
                    });
                    let name = stage_name(&words);
                    if let Some(name) = name.clone() {
                        file.named.entry(name).or_default().push(file.stages.len());
                    }
                    file.stages.push(Stage {
                        base,
                        name,
                        line: line.number,
                        sources: Vec::new(),
                        triggers: Vec::new(),
                    });
                }
                ("onbuild", Some(stage)) => {
                    // An ONBUILD is read where it runs, and no directive of this file counts there.
                    parts = Parts::of(parts.rest, '\\');
                    stage.triggers.extend(sources(&parts));
                }
                (_, Some(stage)) => stage.sources.extend(sources(&parts)),
                (_, None) => {}
            }
        }
        file
    }

    /// Whether a stage has this name.
    pub fn has_stage(&self, name: &str) -> bool {
        self.index_of(name, self.stages.len()).is_some()
    }

    /// The last stage of this name before another.
    fn index_of(&self, name: &str, before: usize) -> Option<usize> {
        let all = self.named.get(&name.to_lowercase())?;
        let after = all.partition_point(|stage| *stage < before);
        all.get(after.checked_sub(1)?).copied()
    }

    /// The stage that another starts from, by position; `None` if it starts from an image.
    pub fn base_of(&self, index: usize) -> Option<usize> {
        self.index_of(self.stages.get(index)?.base.as_deref()?, index)
    }

    /// The stage that is built for `--target`, which may be a number; the last without one.
    fn target(&self, target: Option<&str>) -> Option<usize> {
        let Some(name) = target else {
            return self.stages.len().checked_sub(1);
        };
        let number = || name.parse().ok().filter(|index| *index < self.stages.len());
        self.index_of(name, self.stages.len()).or_else(number)
    }

    /// The images that it is made from: bases that are not stages, and images copied or mounted from.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        (0..self.stages.len()).flat_map(|index| self.base_image(index).into_iter().chain(self.images_used(index)))
    }

    /// The images that BuildKit requests to build `target` (the last stage, without one): those of the stages that it
    /// needs.
    pub fn images_for(&self, target: Option<&str>) -> BTreeSet<&str> {
        let stages = self.stages_for(target).into_iter();
        stages
            .flat_map(|index| self.base_image(index).into_iter().chain(self.images_used(index)))
            .collect()
    }

    /// The stages that are built for `target` (the last one, without it), by position: itself, those that it starts
    /// from, copies from and mounts.
    pub fn stages_for(&self, target: Option<&str>) -> BTreeSet<usize> {
        let mut left: Vec<usize> = self.target(target).into_iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(index) = left.pop() {
            if index < self.stages.len() && reached.insert(index) {
                left.extend(self.base_of(index));
                left.extend(self.sources_of(index).filter_map(|source| self.stage_of(source)));
            }
        }
        reached
    }

    /// The stages whose layers `target` (the last one, without it) is made of, by position: itself, and those that it
    /// starts from.
    pub fn chain_for(&self, target: Option<&str>) -> BTreeSet<usize> {
        let mut chain = BTreeSet::new();
        let mut wanted = self.target(target);
        while let Some(index) = wanted {
            chain.insert(index);
            wanted = self.base_of(index);
        }
        chain
    }

    /// The image that `target` starts from, by way of all stages between.
    pub fn base_for(&self, target: Option<&str>) -> Option<&str> {
        let mut index = self.target(target)?;
        while let Some(base) = self.base_of(index) {
            index = base;
        }
        self.base_image(index)
    }

    /// The images that `ONBUILD` of `target` requests when a Dockerfile based on it is built.
    pub fn images_left_to<'f>(&'f self, target: Option<&str>, other: &Self) -> Vec<&'f str> {
        let stage = self.target(target).and_then(|index| self.stages.get(index));
        let triggers = stage.map(|stage| stage.triggers.as_slice()).unwrap_or_default();
        triggers.iter().filter_map(|source| other.image_of(source)).collect()
    }

    /// What a stage copies and mounts from, by itself and by the ONBUILD of the stage that it starts from.
    fn sources_of(&self, index: usize) -> impl Iterator<Item = &Source> {
        let own = self.stages.get(index).map(|stage| stage.sources.as_slice());
        let base = self.base_of(index).and_then(|base| self.stages.get(base));
        let left = base.map(|stage| stage.triggers.as_slice());
        own.into_iter().chain(left).flatten()
    }

    fn base_image(&self, index: usize) -> Option<&str> {
        let base = self.stages.get(index)?.base.as_deref()?;
        let is_image = self.base_of(index).is_none() && base != SCRATCH && is_reference(base);
        is_image.then_some(base)
    }

    fn images_used(&self, index: usize) -> impl Iterator<Item = &str> {
        self.sources_of(index).filter_map(|source| self.image_of(source))
    }

    fn image_of<'s>(&self, source: &'s Source) -> Option<&'s str> {
        let is_number = source.can_be_number && source.name.parse::<isize>().is_ok();
        let is_image =
            !is_number && !self.has_stage(&source.name) && source.name != SCRATCH && is_reference(&source.name);
        is_image.then_some(source.name.as_str())
    }

    fn stage_of(&self, source: &Source) -> Option<usize> {
        match source.name.parse::<usize>() {
            Ok(index) if source.can_be_number => Some(index),
            _ => self.index_of(&source.name, self.stages.len()),
        }
    }

    /// The line of the first FROM of this image, in whatever form its name is written.
    pub fn line_from(&self, image: &str) -> Option<usize> {
        let wanted = canonical(image);
        let is_wanted = |stage: &&Stage| stage.base.as_deref().is_some_and(|base| canonical(base) == wanted);
        self.stages.iter().find(is_wanted).map(|stage| stage.line)
    }

    /// The instructions that make an image of `target` (the last stage, without one), after its base: those of the
    /// stages that it starts from come first.
    pub fn steps(&self, text: &str, target: Option<&str>) -> Vec<Instruction> {
        let all = instructions(text);
        let mut steps = Vec::new();
        let mut wanted = self.target(target);
        while let Some((index, stage)) = wanted.and_then(|index| Some((index, self.stages.get(index)?))) {
            let end = self.stages.get(index + 1).map_or(usize::MAX, |next| next.line);
            let own = all
                .iter()
                .filter(|step| step.line > stage.line && step.line < end)
                .cloned();
            steps.splice(0..0, own);
            wanted = self.base_of(index);
        }
        steps
    }

    /// The line on which the instruction with this text begins; blanks are not compared.
    pub fn line_of(text: &str, instruction: &str) -> Option<usize> {
        let squeeze = |text: &str| on_one_line(text).to_ascii_lowercase();
        let wanted = squeeze(instruction);
        instructions(text)
            .into_iter()
            .find(|instruction| squeeze(&instruction.text) == wanted)
            .map(|instruction| instruction.line)
    }
}

/// The image of the frontend that `# syntax=` names in the comments at the beginning of a Dockerfile.
pub fn syntax(text: &str) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // A Dockerfile may begin like a script.
    let text = match text.strip_prefix("#!") {
        Some(_) => text.split_once('\n')?.1,
        None => text,
    };
    lines::directive(text, "syntax")?.split(' ').next()
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
    lines::read(text, &Budget::default())
        .into_iter()
        .map(|line| Instruction {
            text: on_one_line(&line.text),
            line: line.number,
        })
        .collect()
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The name that a FROM gives its stage.
fn stage_name(words: &[&str]) -> Option<String> {
    match words {
        [_, as_word, name] if as_word.eq_ignore_ascii_case("as") => Some(name.to_lowercase()),
        _ => None,
    }
}

/// What an instruction copies or mounts from. The builder replaces no variable there.
fn sources(parts: &Parts<'_>) -> Vec<Source> {
    let flags = parts.flags.iter();
    match parts.keyword.as_str() {
        "copy" => flags
            .filter_map(|flag| flag.strip_prefix("--from="))
            .map(|name| Source {
                name: name.to_owned(),
                can_be_number: true,
            })
            .collect(),
        "run" => flags
            .filter_map(|flag| csv::record(flag.strip_prefix("--mount=")?).ok())
            .filter_map(|fields| {
                let fields = fields.iter().filter_map(|field| field.split_once('='));
                let (_, name) = fields.rev().find(|(key, _)| key.eq_ignore_ascii_case("from"))?;
                Some(Source {
                    name: name.to_owned(),
                    can_be_number: false,
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The variables, with those of one word of an ARG before the first FROM; `None` if the builder refuses it. A word
/// without a value leaves the variable as it was.
fn with_argument(
    mut known: BTreeMap<String, String>,
    word: &str,
    lexer: Lexer<'_>,
    options: &BuildOptions,
) -> Option<BTreeMap<String, String>> {
    let (name, default) = match word.split_once('=') {
        Some((name, default)) => (name, Some(default)),
        None => (word, None),
    };
    let value = match (options.build_args.get(name), default) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(default)) => Some(lexer.word(default, &known).ok()?),
        (None, None) => None,
    };
    if let Some(value) = value {
        known.insert(name.to_owned(), value);
    }
    Some(known)
}

/// The variables that an ARG before the first FROM, and a FROM, know by themselves.
fn predefined(options: &BuildOptions, last_stage: Option<String>) -> BTreeMap<String, String> {
    let build = platform::of_linux(None);
    let target = platform::of_linux(options.platform.as_deref());
    let stage = options.target.clone().or(last_stage);
    let mut known = BTreeMap::from([("TARGETSTAGE".to_owned(), stage.unwrap_or_else(|| "default".to_owned()))]);
    for (side, platform) in [("BUILD", build), ("TARGET", target)] {
        let mut parts = platform.split('/');
        let mut add = |what: &str, value: &str| known.insert(format!("{side}{what}"), value.to_owned());
        add("PLATFORM", &platform);
        add("OSVERSION", "");
        for what in ["OS", "ARCH", "VARIANT"] {
            add(what, parts.next().unwrap_or_default());
        }
    }
    for (name, value) in &mut known {
        if let Some(given) = options.build_args.get(name) {
            value.clone_from(given);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[(&str, &str)]) -> BuildOptions {
        BuildOptions {
            build_args: arguments
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..BuildOptions::default()
        }
    }

    fn parse(text: &str) -> Dockerfile {
        Dockerfile::parse(text, &options(&[("TAG", "7")]))
    }

    #[track_caller]
    fn assert_images(text: &str, expected: &[&str]) {
        assert_eq!(parse(text).images().collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn the_steps_of_an_image_are_those_of_its_stages() {
        let text = "FROM a AS one\nRUN 1\nFROM b\nRUN 2\nFROM one AS two\nRUN 3 \\\n  more\nCOPY --from=1 x y\n";
        let file = parse(text);
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

    #[test]
    fn stages_and_their_bases_are_found() {
        let file = parse(
            "# syntax=x\nARG TAG=1\nARG BASE=\"sample-base\"\nFROM --platform=linux/amd64 ${BASE}:$TAG As Builder\n\
             RUN make && \\\n  # a comment inside\n  make install\nfrom builder as last\nCOPY --from=tools/x:1 a b\n\
             RUN --mount=type=bind,from=other,target=/x ls\nCOPY --from=0 a b\nFROM ${NONE:-busybox}\n",
        );
        assert_eq!(
            file.images().collect::<Vec<_>>(),
            ["sample-base:7", "tools/x:1", "other", "busybox"]
        );
        assert!(file.has_stage("builder") && file.has_stage("LAST"));
        assert_eq!(file.stages[0].line, 4);
        assert_eq!(file.line_from("docker.io/library/busybox:latest"), Some(12));
        assert_eq!(file.line_from("alpine"), None);
        assert_eq!(file.images_for(None), ["busybox"].into());
        assert_eq!(file.images_for(Some("builder")), ["sample-base:7"].into());
        assert_eq!(
            file.images_for(Some("last")),
            ["other", "sample-base:7", "tools/x:1"].into()
        );
        assert_eq!(file.base_for(Some("last")), Some("sample-base:7"));
    }

    #[test]
    fn bases_are_words_as_buildkit_reads_them() {
        assert_images("ARG R=p\nFROM ${X:-${R}-zbase:1}\n", &["p-zbase:1"]);
        assert_images(
            "ARG A=1 B=\"x$A\" C='$A'\nFROM a:$B\nFROM b:c\\$\nFROM \"c\":${C#?}\n",
            &["a:x1", "c:A"],
        );
        assert_images("# escape=`\nARG A=`$x\nFROM a:${A#?}\n", &["a:x"]);
        assert_images("ARG TAG\nARG NONE\nFROM a:${TAG}${NONE-none}\n", &["a:7none"]);
        // A build argument without an ARG has no effect, and an ARG of a stage is not a FROM's.
        assert_images("FROM a:${TAG:-1}\nARG X=2\nFROM b:${X:-3}\n", &["a:1", "b:3"]);
        // What the builder refuses is not an image: an illegal name, three words, an ARG that it can't read.
        assert_images(
            "FROM $WHAT\nFROM a:\nFROM A\nFROM a b\nFROM ${A:?}\nFROM scratch\n",
            &[],
        );
        assert_images("ARG A=${B:?}\nFROM a\n", &[]);
    }

    #[test]
    fn what_is_copied_and_mounted_from_is_taken_as_it_stands() {
        assert_images(
            "FROM a AS s\nCOPY --from=\"b:1\" --chown=0 x y\nRUN --mount=type=bind,\"from=c\" --mount=target=/x,FROM=d x\n\
             COPY --from=$TAG x y\nRUN --mount=from=$TAG x\nRUN --mount=type=cache,target=/x x\nCOPY --from=S x y\n\
             COPY --from=-1 x y\nRUN --mount=from=0 x\nRUN --mount=from=scratch x\nADD --from=e x y\nCOPY x --from=f y\n\
             RUN '--mount=from=g'\n",
            &["a", "b:1", "c", "d", "0"],
        );
    }

    #[test]
    fn onbuild_counts_where_something_starts_from_it() {
        let text = "FROM a AS one\nONBUILD COPY --from=b x y\nONBUILD RUN --mount=from=c x\nFROM one AS two\nFROM two AS three\n";
        let file = parse(text);
        assert_eq!(file.images_for(Some("one")), ["a"].into());
        assert_eq!(file.images_for(Some("two")), ["a", "b", "c"].into());
        let other = parse("FROM x AS b\n");
        assert_eq!(file.images_left_to(Some("one"), &other), ["c"]);
        assert_eq!(file.images_left_to(None, &other), [""; 0]);
    }

    #[test]
    fn platforms_are_known_to_a_from() {
        let text = "FROM a:$TARGETARCH$TARGETVARIANT-$TARGETOS-$TARGETSTAGE AS last\n";
        let built = |platform: &str| {
            let options = BuildOptions {
                platform: Some(platform.to_owned()),
                ..options(&[("TARGETOS", "mine")])
            };
            let file = Dockerfile::parse(text, &options);
            file.images().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(built("linux/aarch64"), ["a:arm64-mine-last"]);
        assert_eq!(built("linux/arm,linux/amd64"), ["a:armv7-mine-last"]);
        let here = parse("FROM --platform=$BUILDPLATFORM a:$BUILDARCH\n");
        assert_eq!(
            here.images().next(),
            Some(format!("a:{}", platform::of_linux(None).split('/').nth(1).unwrap()).as_str())
        );
        assert_images("ARG TARGETOS=x\nFROM a:$TARGETOS\n", &["a:x"]);
    }

    #[test]
    fn heredocs_and_directives_are_no_instructions() {
        assert_images(
            "# escape=`\nFROM a\nRUN <<\"EOF\"\nFROM nothing\nEOF\nRUN x `\n FROM neither\nFROM b\n",
            &["a", "b"],
        );
        // Two escapes continue nothing.
        assert_images("FROM a\nRUN x \\\\\nFROM b\n", &["a", "b"]);
    }

    #[test]
    fn the_frontend_is_what_the_first_comments_say() {
        assert_eq!(syntax("# syntax = a/b:1 c\nFROM x\n"), Some("a/b:1"));
        assert_eq!(syntax("#!/usr/bin/x\n# Syntax=a\n"), Some("a"));
        assert_eq!(syntax("# a comment\n# syntax=a\n"), None);
        assert_eq!(syntax("FROM x\n# syntax=a\n"), None);
    }

    #[test]
    fn an_instruction_is_found_by_its_text() {
        let text = "FROM a\n\nRUN   make \\\n   all\n";
        assert_eq!(Dockerfile::line_of(text, "RUN make all"), Some(3));
    }
}
