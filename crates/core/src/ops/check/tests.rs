//! All rules: what each finds, what it does not, and that its advice, heeded, ends it.

use std::collections::BTreeSet;

use super::subject::{ContextFacts, Facts};
use super::*;
use crate::ops::build::OtherTag;
use crate::output::visible;
use build_context::Patterns;
use build_context::weight::Heavy;
use dockerutils_test_support::Random;

/// What the rules of a project, and not of a Dockerfile alone, need to find something.
fn facts(rule: &str, is_bad: bool) -> Facts {
    let mut facts = Facts::default();
    match rule {
        "OtherTagOfProject" if is_bad => {
            facts.other_tags.push(OtherTag {
                line: Some(2),
                name: "my-app-base:0.9".to_owned(),
                image: "base".to_owned(),
                tag: "1.0".to_owned(),
            });
        }
        "OtherTagOfProject" => {}
        "NoSourceLabel" => facts.is_published = true,
        "ContextTooLarge" if is_bad => {
            facts.context = ContextFacts {
                size: 150_000_000,
                heaviest: vec![Heavy {
                    path: b"data".to_vec(),
                    size: 149_000_000,
                    is_directory: true,
                    ignore_line: "data".to_owned(),
                }],
                ..ContextFacts::default()
            };
        }
        "GitHistoryCopied" => facts.context.has_git = is_bad,
        "CopyIgnoredFile" => {
            let pattern: &[u8] = if is_bad { b"data" } else { b"tmp" };
            facts.ignored = Some(Patterns::parse([pattern]).unwrap());
        }
        _ => {}
    }
    facts
}

fn checked(text: &str, facts: &Facts) -> Checked {
    check_with(text, &BuildOptions::default(), "", facts, None)
}

fn names(text: &str) -> Vec<String> {
    let checked = checked(text, &Facts::default());
    checked.findings.into_iter().map(|finding| finding.rule).collect()
}

/// The Dockerfile with all lines written that are told, at the places that they name.
fn pasted(text: &str, checked: &Checked) -> String {
    let mut replacements: Vec<&Replacement> = checked.replacements.iter().flatten().collect();
    replacements.sort_by_key(|replacement| std::cmp::Reverse((replacement.first, replacement.last)));
    replacements.dedup();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let mut before = usize::MAX;
    for replacement in replacements {
        let Replacement { first, last, .. } = *replacement;
        assert!(
            last < before,
            "lines {first} to {last} are told twice: {:?}\n{text}",
            checked.replacements
        );
        before = first;
        let new = match replacement.text.as_str() {
            "" => String::new(),
            text => format!("{text}{}", replacement.line_end),
        };
        lines.splice(first - 1..last, [new]);
    }
    lines.concat()
}

/// What is wrong with the lines that are told for a Dockerfile, if anything; `true` if there are lines.
fn fault_of_lines(text: &str) -> Result<bool, String> {
    let first = checked(text, &Facts::default());
    if first.replacements.iter().flatten().next().is_none() {
        return Ok(false);
    }
    let new = pasted(text, &first);
    let second = checked(&new, &Facts::default());
    let rules = |checked: &Checked| -> Vec<String> {
        let found = checked.findings.iter().zip(&checked.replacements);
        found
            .map(|(finding, lines)| format!("{}{}", finding.rule, if lines.is_some() { " with lines" } else { "" }))
            .collect()
    };
    let told = |why: &str| {
        Err(format!(
            "{why}:\n{text}\n{:?}\nbecame\n{new}\n{:?}\n",
            rules(&first),
            rules(&second)
        ))
    };
    if first.fault.is_none() && second.fault.is_some() {
        return told("broken");
    }
    let mut findings = first.findings.iter().zip(&first.replacements);
    if findings.any(|(finding, lines)| !finding.edits.is_empty() && lines.is_none()) {
        return told("no lines where there were changes");
    }
    if second.findings.iter().any(|finding| !finding.edits.is_empty())
        || second.replacements.iter().any(Option::is_some)
    {
        return told("not at an end");
    }
    if !lacks_lists(text) && lacks_lists(&new) {
        return told("without the lists of apt");
    }
    Ok(true)
}

/// Whether some command installs by apt where no lists of packages are: none came with the base.
fn lacks_lists(text: &str) -> bool {
    let source = DockerfileSource::read(text);
    let options = BuildOptions::default();
    let file = Dockerfile::parse(text, &options);
    let none = Facts::default();
    let subject = Subject::new(&source, &file, &none, &options);
    (0..file.stages.len()).any(|stage| {
        let below = subject.stages_below(stage);
        let runs = subject
            .runs
            .iter()
            .filter(|run| run.step.stage.is_some_and(|stage| below.contains(&stage)));
        let mut has_lists = false;
        runs.flat_map(|run| &run.commands).any(|command| {
            let has = |word: &str| command.words.iter().any(|other| other.text == word);
            if has("update") {
                has_lists = true;
            } else if command.program() == "rm" && has("/var/lib/apt/lists/*") {
                has_lists = false;
            }
            let is_apt = has("apt-get") || has("apt") || has("rosdep");
            is_apt && (has("install") || has("build-dep")) && !has_lists
        })
    })
}

#[test]
fn each_rule_finds_its_example_and_not_the_better_one() {
    for rule in rules::rules() {
        let found = checked(rule.bad, &facts(rule.name, true));
        let own: Vec<_> = found
            .findings
            .iter()
            .filter(|finding| finding.rule == rule.name)
            .collect();
        assert!(!own.is_empty(), "{}: {:?}", rule.name, found.findings);
        for finding in own {
            assert!(
                !finding.costs.is_empty() && !finding.message.ends_with('.'),
                "{finding:?}"
            );
            assert!(!finding.edits.is_empty() || finding.advice.is_some(), "{finding:?}");
        }
        let better = checked(rule.good, &facts(rule.name, false));
        let names: Vec<_> = better.findings.iter().map(|finding| &finding.rule).collect();
        assert!(names.is_empty(), "{}: {names:?}", rule.name);
        assert_eq!((found.fault, better.fault), (None, None), "{}", rule.name);
    }
}

#[test]
fn rules_have_names_of_their_own() {
    let names: Vec<_> = rules::rules().map(|rule| rule.name).collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for name in names {
        assert!(
            name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(|c| c.is_ascii_alphanumeric()),
            "{name}"
        );
    }
}

/// Dockerfiles, and the rules that find something in each, in the order of the lines. `B` is a base that nothing is said of.
const CASES: &[(&str, &[&str])] = include!("cases.in");

#[test]
fn cases_are_judged_as_they_should_be() {
    let mut wrong = Vec::new();
    for (text, expected) in CASES {
        let text = text.replace("FROM B", "FROM debian:13-slim");
        let mut found = names(&text);
        found.sort();
        let mut expected: Vec<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        expected.sort();
        if found != expected {
            wrong.push(format!("{text}\n  found {found:?}\n  not {expected:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        CASES.len(),
        wrong.join("\n")
    );
    assert!(CASES.len() + 2 * rules::rules().count() >= 200, "{}", CASES.len());
}

/// Dockerfiles, a rule, and what they are with its lines alone; the same text where it gives no lines. `B` is as in [`CASES`].
const PASTED: &[(&str, &str, &str)] = include!("pasted.in");

#[test]
fn what_is_pasted_does_the_same() {
    let mut wrong = Vec::new();
    let written = |text: &str| text.replace("FROM B", "FROM debian:13-slim");
    for (text, rule, expected) in PASTED {
        let text = written(text);
        let source = DockerfileSource::read(&text);
        let all = checked(&text, &Facts::default()).findings;
        let own: Vec<_> = all.into_iter().filter(|finding| finding.rule == *rule).collect();
        let replacements = composition::replacements(&source, &own, |_| Some(Vec::new()));
        let alone = Checked {
            findings: own.clone(),
            replacements,
            fault: None,
            is_error: false,
            complaints: Vec::new(),
        };
        let now = pasted(&text, &alone);
        if own.is_empty() || now != written(expected) {
            wrong.push(format!("{rule} makes of\n{text}\nthis\n{now}\n{own:?}"));
        }
        let says_what = |finding: &CheckFinding| !finding.edits.is_empty() || finding.advice.is_some();
        if !own.iter().all(says_what) {
            wrong.push(format!("{rule} says nothing to do for\n{text}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        PASTED.len(),
        wrong.join("\n")
    );
}

/// Dockerfiles from a base that nothing is said of, and what they are with all lines written.
const LINES: &[(&str, &str)] = include!("lines.in");

#[test]
fn lines_mean_what_was_there_before() {
    let mut wrong = Vec::new();
    for (text, expected) in LINES {
        let whole = |text: &str| match text.starts_with("FROM ") {
            true => text.to_owned(),
            false => format!("FROM debian:13-slim\nWORKDIR /app\n{text}"),
        };
        let text = whole(text);
        let new = pasted(&text, &checked(&text, &Facts::default()));
        if new != whole(expected) {
            wrong.push(format!("{text}\nbecame\n{new}"));
        }
        wrong.extend(fault_of_lines(&text).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn lines_that_are_written_end_what_they_are_about() {
    let examples = rules::rules().flat_map(|rule| [rule.bad.to_owned(), rule.good.to_owned()]);
    let cases = CASES
        .iter()
        .map(|(text, _)| text.replace("FROM B", "FROM debian:13-slim"));
    let judged: Vec<_> = examples.chain(cases).map(|text| fault_of_lines(&text)).collect();
    let wrong: Vec<&str> = judged
        .iter()
        .filter_map(|judged| judged.as_ref().err().map(String::as_str))
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n----\n"));
    assert!(judged.iter().filter(|judged| **judged == Ok(true)).count() > 80);
}

/// Instructions that rules have something to say about, and some that are in their way.
const PARTS: &[&str] = &include!("parts.in");
const GENERATED: usize = 1_000;

#[test]
fn lines_that_are_written_end_what_they_are_about_in_any_dockerfile() {
    let mut random = Random::new(19);
    let mut wrong = Vec::new();
    let mut with_lines = 0;
    for _ in 0..GENERATED {
        let mut text = String::new();
        if random.one_in(6) {
            text += *random.pick(&["ARG VERSION=13\n", "# syntax=docker/dockerfile:1\n", "# escape=`\n"]);
        }
        for stage in 0..=usize::from(random.one_in(3)) {
            let base = *random.pick(&[
                "debian:13-slim",
                "debian",
                "node:22-slim",
                "python:3.13-slim",
                "alpine:3.22",
                "scratch",
            ]);
            text += &format!(
                "FROM {base}{}\n",
                if stage == 0 && random.one_in(2) { " AS one" } else { "" }
            );
            while !random.one_in(7) {
                text += *random.pick(PARTS);
                text.push('\n');
            }
        }
        if random.one_in(8) {
            text.pop();
        }
        match fault_of_lines(&text) {
            Ok(has_lines) => with_lines += usize::from(has_lines),
            Err(fault) => wrong.push(fault),
        }
    }
    wrong.sort_by_key(String::len);
    let shown: Vec<&str> = wrong.iter().take(12).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} of {GENERATED}\n{}",
        wrong.len(),
        shown.join("\n----\n")
    );
    assert!(with_lines > GENERATED / 2, "{with_lines}");
}

#[test]
fn a_broken_dockerfile_has_its_error_and_the_findings_up_to_there() {
    let checked = checked(
        "FROM debian\nRUN apt-get install -y curl\nRNU x\nRUN apt-get install -y wget\n",
        &Facts::default(),
    );
    assert_eq!(checked.fault.map(|fault| fault.line), Some(3));
    assert!(checked.findings.iter().all(|finding| finding.lines.1 < 3));
    assert!(
        checked
            .findings
            .iter()
            .any(|finding| finding.rule == "BaseWithoutVersion")
    );
    assert!(
        checked
            .findings
            .iter()
            .any(|finding| finding.rule == "AptWithoutUpdate")
    );
}

#[test]
fn what_a_builder_refuses_is_said_in_its_words() {
    for (text, line, message) in [
        (
            "FROM node:alpine:latest\n",
            1,
            "failed to parse stage name \"node:alpine:latest\": invalid reference format",
        ),
        (
            "FROM B\nFROM Node:22\n",
            2,
            "failed to parse stage name \"Node:22\": invalid reference format: repository name (library/Node) must be lowercase",
        ),
        (
            "FROM B\nENV A=1\nENV B=x${a.b}\nRNU\n",
            4,
            "unknown instruction: RNU (did you mean RUN?)",
        ),
        (
            "FROM B\nEXPOSE 80\nWORKDIR /${a.b}\nRUN apt-get update\n",
            3,
            "failed to process \"/${a.b}\": unsupported modifier (.) in substitution",
        ),
    ] {
        let checked = checked(&text.replace("FROM B", "FROM debian:13-slim"), &Facts::default());
        let fault = checked.fault.map(|fault| (fault.line, fault.message));
        assert_eq!(fault, Some((line, message.to_owned())), "{text}");
        assert!(checked.findings.iter().all(|finding| finding.lines.1 < line), "{text}");
    }
    for text in [
        "FROM B\nRUN echo ${a.b}\n",
        "ARG A=node:22\nFROM $A\n",
        "FROM B AS One\nFROM one\n",
    ] {
        let text = text.replace("FROM B", "FROM debian:13-slim");
        assert_eq!(checked(&text, &Facts::default()).fault, None, "{text}");
    }
}

#[test]
fn a_tag_that_moves_is_less_than_none() {
    let severities = |text: &str| -> Vec<Severity> {
        let found = checked(text, &Facts::default()).findings;
        found.into_iter().map(|finding| finding.severity).collect()
    };
    assert_eq!(severities("FROM node\n"), [Severity::Warning]);
    assert_eq!(severities("FROM node:lts\n"), [Severity::Note]);
    let placeholder = "FROM debian:13\nENV SECRET_KEY_BASE=dummy\nENV API_TOKEN=/run/secrets/token\n";
    assert_eq!(severities(placeholder), [Severity::Note, Severity::Note]);
}

#[test]
fn silence_is_by_directive_argument_or_key() {
    let text = "FROM debian\nEXPOSE 80\nRUN true\n";
    assert_eq!(names(text), ["BaseWithoutVersion", "EarlyMetadata"]);
    assert_eq!(
        names(&format!("# check=skip=BaseWithoutVersion\n{text}")),
        ["EarlyMetadata"]
    );
    assert_eq!(names(&format!("# check=skip=all\n{text}")), [""; 0]);
    let by_key = check_text(text, &BuildOptions::default(), "EarlyMetadata");
    assert_eq!(by_key.findings.len(), 1);
    assert!(checked(&format!("# check=error=true\n{text}"), &Facts::default()).is_error);
}

#[test]
fn what_buildkit_says_stands_in_place_of_ours() {
    let warning = |rule: &str, line: usize, message: &str| LintWarning {
        rule: rule.to_owned(),
        message: message.to_owned(),
        description: "about it".to_owned(),
        url: Some("https://x".to_owned()),
        lines: (line, line),
    };
    let lint = [
        warning("StageNameCasing", 1, "its own words"),
        warning("OfTomorrow", 2, "a newer rule"),
    ];
    let text = "FROM debian AS A\nMAINTAINER x\n";
    let merged = check_with(text, &BuildOptions::default(), "", &Facts::default(), Some(&lint));
    let said: Vec<_> = merged
        .findings
        .iter()
        .map(|finding| (finding.rule.as_str(), finding.is_of_engine))
        .collect();
    // It says nothing of the maintainer, and so do we; ours it does not know.
    assert_eq!(
        said,
        [
            ("StageNameCasing", true),
            ("BaseWithoutVersion", false),
            ("OfTomorrow", true)
        ]
    );
    assert_eq!(merged.findings[0].message, "its own words");
    assert!(
        merged.replacements[0]
            .as_ref()
            .is_some_and(|replacement| replacement.text.contains("AS a"))
    );
    let skipped = check_with(
        text,
        &BuildOptions::default(),
        "OfTomorrow",
        &Facts::default(),
        Some(&lint),
    );
    assert_eq!(skipped.findings.len(), 2);
}

#[test]
fn what_is_hostile_in_a_dockerfile_is_shown_by_nobody_raw() {
    // The printer makes it visible; the context's names are so in the sentence already.
    let mut facts = Facts::default();
    facts.context.size = 200_000_000;
    facts.context.heaviest.push(Heavy {
        path: b"x".to_vec(),
        size: 1,
        is_directory: false,
        ignore_line: "x\u{1b}[2J".to_owned(),
    });
    let found = checked("FROM debian:13-slim\nCOPY . /x\n", &facts);
    let advice = found.findings[0].advice.clone().unwrap();
    assert_eq!(visible(&advice), advice);
}

#[test]
fn a_name_that_cannot_be_shown_gets_no_line_of_dockerignore() {
    let mut facts = Facts::default();
    facts.context.secrets = vec!["a\u{1b}[2Jb/.env".to_owned(), "[a]*/.env".to_owned()];
    facts.context.size = 200_000_000;
    for path in ["\u{202e}x", "y"] {
        facts.context.heaviest.push(Heavy {
            path: path.as_bytes().to_vec(),
            size: 1,
            is_directory: false,
            ignore_line: path.to_owned(),
        });
    }
    facts.ignored = Some(Patterns::parse([b"d"]).unwrap());
    let found = checked("FROM debian:13-slim\nCOPY . /x\nCOPY d/\u{1b}x /y\n", &facts);
    let advice: Vec<&str> = found
        .findings
        .iter()
        .filter_map(|finding| finding.advice.as_deref())
        .collect();
    let has = |text: &str| advice.iter().any(|advice| advice.contains(text));
    assert_eq!(
        advice
            .iter()
            .filter(|advice| advice.contains("put this line"))
            .collect::<Vec<_>>(),
        [&"put this line into .dockerignore: \\[a\\]\\*/.env"],
        "{advice:?}"
    );
    assert!(
        has("give it another name: a line for .dockerignore can't be shown"),
        "{advice:?}"
    );
    assert!(
        has("largest: none for \u{fffd}x (1 B), whose name has characters that can't be shown, y (1 B)"),
        "{advice:?}"
    );
    assert!(
        has("give it another name: it has characters that can't be shown"),
        "{advice:?}"
    );
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.message.starts_with("ab/.env is in the context"))
    );
}

#[test]
fn lines_end_as_those_of_the_file() {
    let text = "FROM debian:13-slim\nRUN true \\\n    && apt-get install -y b a d c\nRUN a\nRUN b\nMAINTAINER ann\n";
    let plain = checked(text, &Facts::default());
    let other = checked(&text.replace('\n', "\r\n"), &Facts::default());
    let texts = |checked: &Checked| -> Vec<(String, &str)> {
        let all = checked.replacements.iter().flatten();
        all.map(|lines| (lines.text.clone(), lines.line_end)).collect()
    };
    let expected: Vec<(String, &str)> = texts(&plain)
        .into_iter()
        .map(|(text, _)| (text.replace('\n', "\r\n"), "\r\n"))
        .collect();
    assert!(expected.iter().any(|(text, _)| text.contains('\n')), "{expected:?}");
    assert_eq!(texts(&other), expected);
}

#[test]
fn what_is_too_long_is_left_out_and_named() {
    let long = "RUN true".to_owned() + &" && apt-get install x".repeat(4_000) + "\n";
    let text = format!("FROM debian\n{long}RUN apt-get upgrade -y\n");
    let found = checked(&text, &Facts::default());
    assert_eq!(
        found.complaints,
        ["the script of the RUN on line 2 is not looked at: longer than 32 KiB"]
    );
    let of_long = found.findings.iter().filter(|finding| finding.lines.0 == 2);
    assert_eq!(of_long.count(), 0);
    assert!(found.findings.iter().any(|finding| finding.lines.0 == 3));
    // So many that a file has more than 256 KiB.
    let found = checked(&format!("FROM debian\n{}", long.repeat(6)), &Facts::default());
    assert_eq!(
        found.complaints,
        [
            "it is longer than 256 KiB: only what is before line 5 is looked at",
            "the scripts of the RUNs on lines 2, 3, 4 are not looked at: longer than 32 KiB"
        ]
    );
    assert!(found.fault.is_none());
    let names: Vec<String> = found.findings.into_iter().map(|finding| finding.rule).collect();
    assert_eq!(names, ["BaseWithoutVersion"]);
    // What is missing may be in the part that is not looked at.
    let found = checked(&"ARG X\n".repeat(2_001), &Facts::default());
    assert!(found.fault.is_none(), "{:?}", found.fault);
}

/// The Dockerfiles of a page: fences with `title="....Dockerfile"`.
fn dockerfiles(page: &str) -> Vec<String> {
    let fences = page.split("```dockerfile title=\"").skip(1);
    fences
        .filter_map(|fence| {
            let (title, rest) = fence.split_once("\"\n")?;
            let (text, _) = rest.split_once("\n```")?;
            title.ends_with("Dockerfile").then(|| format!("{text}\n"))
        })
        .collect()
}

#[test]
fn this_projects_own_images_and_guides_have_no_findings() {
    // Dockerfiles as they should not be: the pages are about what is wrong with them.
    const WRONG: [(&str, usize); 4] = [
        ("docs/guides/check.md", 0),
        ("docs/guides/check.md", 2),
        ("docs/guides/layers.md", 0),
        ("docs/guides/notebook-image.md", 0),
    ];
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md"), root.join("docs/concepts.md")];
    let guides = std::fs::read_dir(root.join("docs/guides")).unwrap();
    pages.extend(guides.map(|entry| entry.unwrap().path()));
    let mut texts = Vec::new();
    for page in pages {
        let name = page.strip_prefix(&root).unwrap().display().to_string();
        for (number, text) in dockerfiles(&std::fs::read_to_string(&page).unwrap())
            .into_iter()
            .enumerate()
        {
            if !WRONG.contains(&(name.as_str(), number)) {
                texts.push((format!("{name} {number}"), text));
            }
        }
    }
    for own in ["docker/degrees", "docker/notebook"] {
        let text = std::fs::read_to_string(root.join(own).join("Dockerfile")).unwrap();
        texts.push((own.to_owned(), text));
    }
    assert!(texts.len() > 20, "{}", texts.len());
    let mut wrong = Vec::new();
    for (name, text) in texts {
        for finding in checked(&text, &Facts::default()).findings {
            wrong.push(format!("{name}: {}: {}\n{text}", finding.rule, finding.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
