//! Rules about the build context.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::secrets::{excludes, is_whole_context};
use super::subject::Subject;
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::output::{size, visible};

/// A context beyond this is looked at twice: 100 MB take seconds on a good line, and minutes on others.
pub(in crate::ops) const HEAVY_CONTEXT: u64 = 100_000_000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ContextTooLarge",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "The context that is copied is larger than 100 MB",
        why: "All of it is read, sent and stored with each change of any file in it. The five largest entries are named, each with the line for \
              `.dockerignore` that leaves it out.",
        bad: "# with 150 MB of data/ beside it\nFROM debian:13-slim\nCOPY . /src\n",
        good: "# with data in .dockerignore\nFROM debian:13-slim\nCOPY . /src\n",
        check: too_large,
    },
    Rule {
        name: "GitHistoryCopied",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "The history of the repository is copied into the image",
        why: "Each commit, fetch and `git status` changes a file in `.git`, and so runs all steps after the COPY again. The image \
              has all that was ever committed, with what was deleted since.",
        bad: "# with .git beside it\nFROM debian:13-slim\nCOPY . /src\n",
        good: "# with .git in .dockerignore\nFROM debian:13-slim\nCOPY . /src\n",
        check: with_git,
    },
    Rule {
        name: "CopyIgnoredFile",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "A file that `.dockerignore` leaves out is copied",
        why: "The builder does not get it: the build fails, and says that the file does not exist.",
        bad: "# with data in .dockerignore\nFROM debian:13-slim\nCOPY data /data\n",
        good: "# with tmp in .dockerignore\nFROM debian:13-slim\nCOPY data /data\n",
        check: ignored,
    },
];

/// The first instruction that copies all of the context.
fn whole_copy<'s>(subject: &'s Subject<'_>) -> Option<&'s SourceInstruction> {
    let mut steps = subject.source.instructions.iter().filter(|step| step.is_copy());
    steps.find(|step| {
        let words: Vec<&str> = match &step.json {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => step.words().into_iter().map(|(_, word)| word).collect(),
        };
        let sources = words.split_last().map(|(_, sources)| sources).unwrap_or_default();
        step.flag("from").is_none() && sources.iter().any(|source| is_whole_context(source))
    })
}

fn too_large(subject: &Subject<'_>) -> Vec<Remark> {
    let context = &subject.facts.context;
    // What `--exclude` leaves out is not counted apart.
    let is_all = |step: &&SourceInstruction| step.flag("exclude").is_none();
    let Some(step) = whole_copy(subject)
        .filter(is_all)
        .filter(|_| context.size > HEAVY_CONTEXT)
    else {
        return Vec::new();
    };
    let lines: Vec<String> = context
        .heaviest
        .iter()
        .map(|heavy| match visible(&heavy.ignore_line) {
            line if line == heavy.ignore_line => format!("{line} ({})", size(heavy.size)),
            _ => format!(
                "none for {} ({}), whose name has characters that can't be shown",
                visible(&String::from_utf8_lossy(&heavy.path)),
                size(heavy.size)
            ),
        })
        .collect();
    let remark = Remark::of(
        step,
        format!("the context that it copies is {}", size(context.size)),
        "all of it is read, sent and stored with each change",
    );
    vec![remark.advise(format!(
        "lines of .dockerignore that leave out the largest: {}",
        lines.join(", ")
    ))]
}

fn with_git(subject: &Subject<'_>) -> Vec<Remark> {
    let has_git = |step: &&SourceInstruction| subject.facts.context.has_git && !excludes(step, ".git");
    let Some(step) = whole_copy(subject).filter(has_git) else {
        return Vec::new();
    };
    let remark = Remark::of(
        step,
        "it copies .git, the history of the repository",
        "each commit runs all steps after it again",
    );
    vec![remark.advise("put a line .git into .dockerignore")]
}

fn ignored(subject: &Subject<'_>) -> Vec<Remark> {
    // With exceptions, what is left of a directory can't be told from patterns alone; BuildKit does not try, either.
    let Some(patterns) = subject
        .facts
        .ignored
        .as_ref()
        .filter(|patterns| !patterns.has_exceptions())
    else {
        return Vec::new();
    };
    let mut remarks = Vec::new();
    for step in subject.source.instructions.iter().filter(|step| step.is_copy()) {
        if step.flag("from").is_some() || step.json.is_some() {
            continue;
        }
        let words = step.words();
        let sources = words.split_last().map(|(_, sources)| sources).unwrap_or_default();
        for (_, source) in sources {
            let path = source.trim_start_matches("./").trim_matches('/');
            let is_plain = !path.is_empty()
                && path != "."
                && !path.contains(['$', '*', '?', '[', '"', '\''])
                && !path.contains("://")
                && !path.starts_with("<<");
            let parents = path
                .match_indices('/')
                .map(|(at, _)| path.get(..at).unwrap_or_default())
                .chain([path]);
            let is_ignored = |part: &str| patterns.matches(part.as_bytes()).unwrap_or(false);
            if is_plain && parents.into_iter().any(is_ignored) {
                let command = if step.keyword == "add" { "Add" } else { "Copy" };
                let message = format!("Attempting to {command} file {path:?} that is excluded by .dockerignore");
                let remark = Remark::of(step, message, "the build fails: the builder does not get it");
                remarks.push(remark.advise(match visible(path) == path {
                    true => format!("put this line at the end of .dockerignore: !{path}"),
                    false => "give it another name: it has characters that can't be shown".to_owned(),
                }));
            }
        }
    }
    remarks
}
