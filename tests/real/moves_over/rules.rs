//! The differences that `COMPATIBILITY.md` allows, each with its sentence.
//!
//! Most rules are told, under the call, what the original should have done; the shell does it, so that it is recorded as
//! everything is. Others make the change by themselves. In either case what comes out must be what ours does, word by
//! word.

use std::fmt::Write as _;

use super::recording::{Deeds, Recorded, Stage, Version};

/// A difference that is allowed.
pub struct Rule {
    /// By which calls name it.
    pub name: &'static str,
    /// What allows it: a sentence of `COMPATIBILITY.md`, or where said so, of `DESIGN.md`.
    pub sentence: &'static str,
    /// Whether it holds for every call, unnamed.
    pub always: bool,
    /// Takes the difference out; false if there is no difference.
    pub apply: fn(&mut Comparison<'_>, &str) -> Result<bool, String>,
}

/// Everything by which ours may differ.
pub const RULES: [Rule; 23] = [
    Rule {
        name: "time",
        sentence: "--name <user>_<image>_<%y-%m-%d_%H.%M.%S>",
        always: true,
        apply: time,
    },
    Rule {
        name: "labels",
        sentence: "DESIGN.md: Containers, volumes and networks that we create bear labels (in the printed line, too; \
                   comparisons with docker leave them out).",
        always: true,
        apply: labels,
    },
    Rule {
        name: "aws-by-name",
        sentence: "Mend: AWS secrets are on argv.",
        always: true,
        apply: aws_by_name,
    },
    Rule {
        name: "aws-stays-home",
        sentence: "Never to an engine that is not on this machine, whatever way it was chosen.",
        always: false,
        apply: aws_stays_home,
    },
    Rule {
        name: "docked-by-address",
        sentence: "`<key>_docked` wins when docked (DESIGN.md: however it got there).",
        always: false,
        apply: instead,
    },
    Rule {
        name: "keep",
        sentence: "Never works there, must here: `-k`.",
        always: false,
        apply: keep,
    },
    Rule {
        name: "key",
        sentence: "Never works there, must here: the keys `environment`, `interactive`, `keep_container`, `init`.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "env-option",
        sentence: "Never works there, must here: `-e A=b=c`, `-e FOO` (from the environment); `-e` beating the file.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "env-blank",
        sentence: "`env` names another section, whose keys are environment variables.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "braces",
        sentence: "In `volumes`: `{project_root}`, [...], then `$name` and `${name}`.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "unset-variable",
        sentence: "Never works there, must here: an unset `$X` (an error that names it).",
        always: false,
        apply: refused,
    },
    Rule {
        name: "synthetic-spaces",
        sentence: "Never works there, must here: spaces in the synthetic list.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "pull-false",
        sentence: "Never works there, must here: `pull_FROM_on_force=False`.",
        always: false,
        apply: pull_false,
    },
    Rule {
        name: "as-builder",
        sentence: "Never works there, must here: `AS builder`.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "order",
        sentence: "Never works there, must here: `all` in dependency order.",
        always: false,
        apply: order,
    },
    Rule {
        name: "clean",
        sentence: "`clean` removes, and an absent image is no failure.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "base-keeps-its-name",
        sentence: "`-i` and `-t` name the image asked for, not `base` beside it.",
        always: false,
        apply: instead,
    },
    Rule {
        name: "all-has-no-name",
        sentence: "`-i` and `-t` name the image asked for [...]; with `all`, refused.",
        always: false,
        apply: refused,
    },
    Rule {
        name: "script-for-a-shell",
        sentence: "A script with `&&`, `|`, `>` or `;` as a word of its own is refused with a hint to put it in a file.",
        always: false,
        apply: refused,
    },
    Rule {
        name: "directory-without-dockerfile",
        sentence: "Mend, also: every directory under docker/ counts as an image.",
        always: false,
        apply: refused,
    },
    Rule {
        name: "root-above",
        sentence: "Look for it from the current directory upwards (the original looks only in the current directory).",
        always: false,
        apply: instead,
    },
    Rule {
        name: "configuration-only",
        sentence: "Image types: [...] plus configuration-only images (`name`, `tag`, `prefix=False`).",
        always: false,
        apply: instead,
    },
    Rule {
        name: "legal-name",
        sentence: "A name or tag that is no legal reference is made one, predictably, and said.",
        always: false,
        apply: instead,
    },
];

/// What both did.
pub struct Comparison<'a> {
    /// What dockerutils 2.0.7 did, and then what the rules say that it should have done.
    pub original: Deeds,
    /// What ours did.
    pub ours: Deeds,
    /// Where they did it.
    pub stage: &'a Stage,
}

impl Comparison<'_> {
    /// Whether both did the same, and both succeeded or failed.
    pub fn is_same(&self) -> bool {
        self.original.recorded == self.ours.recorded && self.original.succeeded() == self.ours.succeeded()
    }

    /// What both did, in readable form: `-` the original, `+` ours; and what was said where one failed.
    pub fn difference(&self) -> String {
        let mut text = String::new();
        for (sign, who, deeds, other) in [
            ('-', "the original", &self.original, &self.ours),
            ('+', "ours", &self.ours, &self.original),
        ] {
            for (index, recorded) in deeds.recorded.iter().enumerate() {
                let sign = if other.recorded.get(index) == Some(recorded) {
                    ' '
                } else {
                    sign
                };
                let _ = writeln!(text, "  {sign} {}", recorded.shown());
            }
            if deeds.recorded.is_empty() || deeds.outcome.code != 0 {
                let _ = writeln!(text, "  {sign} {who} ended with code {}", deeds.outcome.code);
                for line in deeds.outcome.stderr.lines() {
                    let _ = writeln!(text, "  {sign}   | {line}");
                }
            }
        }
        text
    }

    fn both(&mut self) -> impl Iterator<Item = &mut Recorded> {
        self.original.recorded.iter_mut().chain(&mut self.ours.recorded)
    }
}

/// The time in a container's name: both must have one, of that form.
fn time(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let mut found = false;
    for recorded in comparison.both() {
        let name = recorded
            .words
            .iter()
            .position(|word| word == "--name")
            .map(|flag| flag + 1);
        let Some(word) = name.and_then(|name| recorded.words.get_mut(name)) else {
            continue;
        };
        let form = "_00-00-00_00.00.00";
        let begin = word.len().saturating_sub(form.len());
        let stamp = word.get(begin..).unwrap_or_default();
        let digits_as_zeros: String = stamp
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        if digits_as_zeros != form {
            return Err(format!("no time at the end of {word}"));
        }
        word.replace_range(begin.., "_TIME");
        found = true;
    }
    Ok(found)
}

/// Our labels, which must be the last options of every `docker run`.
fn labels(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let project = comparison
        .stage
        .root()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut found = false;
    for recorded in comparison.ours.recorded.iter_mut().filter(|recorded| recorded.is_run()) {
        let label = format!("io.dockerutils.project={project}");
        let words = ["--label", &label, "--label", "io.dockerutils.user="];
        let at = recorded
            .words
            .windows(words.len())
            .position(|window| window.iter().zip(words).all(|(word, label)| word.starts_with(label)))
            .ok_or("there are none")?;
        recorded.words.drain(at..at + words.len());
        found = true;
    }
    Ok(found)
}

const AWS: &str = "AWS_";

/// `-e AWS_REGION`, by which docker takes the value from the environment: the value that the original wrote out.
fn aws_by_name(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let mut found = false;
    for recorded in comparison.ours.recorded.iter_mut().filter(|recorded| recorded.is_run()) {
        let by_name = recorded.by_name.clone();
        for at in recorded.variables() {
            let Some(word) = recorded.words.get_mut(at).filter(|word| word.starts_with(AWS)) else {
                continue;
            };
            if word.contains('=') {
                continue;
            }
            let value = by_name.get(word.as_str()).and_then(Option::as_deref);
            let value = value.ok_or_else(|| format!("docker would find no {word}"))?;
            *word = format!("{word}={value}");
            recorded.by_name.remove(word.split('=').next().unwrap_or_default());
            found = true;
        }
    }
    Ok(found)
}

/// No variable of AWS goes to a far engine.
fn aws_stays_home(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let mut found = false;
    for recorded in &mut comparison.original.recorded {
        while let Some(at) = recorded
            .variables()
            .into_iter()
            .find(|at| recorded.words[*at].starts_with(AWS))
        {
            recorded.words.drain(at - 1..=at);
            found = true;
        }
    }
    Ok(found)
}

/// The original's `-k` put the word `True` between the options, where docker took it for the image.
fn keep(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let mut found = false;
    for recorded in &mut comparison.original.recorded {
        let before = recorded.words.len();
        recorded.words.retain(|word| word != "True");
        found |= recorded.words.len() < before;
    }
    Ok(found)
}

/// The original took any word for true.
fn pull_false(comparison: &mut Comparison<'_>, _: &str) -> Result<bool, String> {
    let mut found = false;
    for recorded in &mut comparison.original.recorded {
        let before = recorded.words.len();
        recorded.words.retain(|word| word != "--pull");
        found |= recorded.words.len() < before;
    }
    Ok(found)
}

/// The order of the images, by type, as the text has it. The original's is that of the directory: any.
fn order(comparison: &mut Comparison<'_>, text: &str) -> Result<bool, String> {
    let types: Vec<&str> = text.split_whitespace().collect();
    let place = |recorded: &Recorded| {
        types.iter().position(|image| {
            let parts = [
                format!("docker/{image}/"),
                format!("-{image}:"),
                format!("-{image}-builder:"),
            ];
            parts
                .iter()
                .any(|part| recorded.words.iter().any(|word| word.contains(part)))
        })
    };
    if let Some(stranger) = comparison
        .original
        .recorded
        .iter()
        .find(|recorded| place(recorded).is_none())
    {
        return Err(format!("of none of these types: {}", stranger.shown()));
    }
    comparison.original.recorded.sort_by_key(place);
    Ok(true)
}

/// What the text does, instead of what the original did.
fn instead(comparison: &mut Comparison<'_>, text: &str) -> Result<bool, String> {
    let stated = comparison.stage.run(Version::Original, text);
    if stated.recorded.is_empty() || !stated.succeeded() {
        return Err(format!("its text does nothing: {}", stated.outcome));
    }
    let differs = stated.recorded != comparison.original.recorded;
    comparison.original = stated;
    Ok(differs)
}

/// Ours refuses, and says the text; nothing is called. The original went on, or broke down in its own way.
fn refused(comparison: &mut Comparison<'_>, text: &str) -> Result<bool, String> {
    let ours = &comparison.ours;
    if ours.succeeded() || !ours.recorded.is_empty() {
        return Err("ours does not refuse it".to_owned());
    }
    if text.is_empty() || !ours.outcome.stderr.contains(text) {
        return Err(format!("ours does not say {text:?}: {}", ours.outcome.stderr));
    }
    if comparison.original.outcome.stderr.contains(text) {
        return Ok(false);
    }
    comparison.original = Deeds {
        recorded: Vec::new(),
        outcome: ours.outcome.clone(),
    };
    Ok(true)
}
