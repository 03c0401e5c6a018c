//! Rules about the order of steps: what makes the cache useless, and steps that could be one.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::secrets::is_whole_context;
use super::shell_script::{ShellCommand, is_plain_list};
use super::subject::{RunStep, Subject};
use super::variables::{is_changing, mentions};
use crate::docker::build::dockerfile::source::SourceInstruction;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "SourcesBeforeDependencies",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "All sources are copied before the dependencies are installed",
        why: "A step is taken from the cache only if nothing that it copies has changed, and neither has any step before it. So each change \
              of any file installs all dependencies again. Copy the list of dependencies first, install them, then copy the rest.",
        bad: "FROM python:3.13-slim\nWORKDIR /app\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt\n",
        good: "FROM python:3.13-slim\nWORKDIR /app\nCOPY requirements.txt ./\nRUN pip install --no-cache-dir -r requirements.txt\nCOPY . .\n",
        check: sources_first,
    },
    Rule {
        name: "RunsCouldBeOne",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "RUN steps in a row that could be one",
        why: "Each RUN is a layer of the image. What one of them deletes stays in the layer of the one before. Steps with mounts or options \
              of their own, with `cd` or variables of the shell, with anything but `&&` and `|` between their commands, with a comment between \
              them, and those of stages that are not in the image, do not count. If you want the cache to keep the first step apart, say so in a comment between them.",
        bad: "FROM debian:13-slim\nRUN mkdir /srv/app\nRUN chmod 700 /srv/app\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app \\\n    && chmod 700 /srv/app\n",
        check: runs_in_a_row,
    },
    Rule {
        name: "EarlyArg",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "An ARG stands before steps that do not use it",
        why: "Every RUN after an ARG has the variable, used or not: another value runs all of them again.",
        bad: "FROM debian:13-slim\nARG VERSION\nRUN mkdir /srv/app\nRUN --network=none echo \"$VERSION\" > /srv/app/version\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app\nARG VERSION\nRUN --network=none echo \"$VERSION\" > /srv/app/version\n",
        check: early_arg,
    },
    Rule {
        name: "EarlyEnv",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "An ENV that changes often stands before steps that do not use it",
        why: "Every step after an ENV has the variable: another value runs all of them again. That counts for a variable that is named after \
              a version, revision, date or their like.",
        bad: "FROM debian:13-slim\nENV APP_REVISION=4711\nRUN mkdir /srv/app\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app\nENV APP_REVISION=4711\n",
        check: early_env,
    },
    Rule {
        name: "EarlyMetadata",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "LABEL or EXPOSE before the steps that make the image",
        why: "Neither does anything while the image is built. With the classic builder, each change of them runs the steps after them \
              again; an ARG in a label has to stand before them for that. A label counts if its name or value changes from build to build.",
        bad: "FROM debian:13-slim\nEXPOSE 8080\nRUN mkdir /srv/app\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app\nEXPOSE 8080\n",
        check: early_metadata,
    },
];

/// How dependencies are installed, and the files that list them.
struct Installing {
    programs: &'static [&'static str],
    verbs: &'static [&'static str],
    /// As COPY takes them; none where an option names them. With `*`, one that is not there is no fault.
    lists: &'static str,
}

const INSTALLING: [Installing; 10] = [
    Installing {
        programs: &["pip", "pip3"],
        verbs: &["install"],
        lists: "",
    },
    Installing {
        programs: &["npm"],
        verbs: &["ci", "install", "i"],
        lists: "package*.json",
    },
    Installing {
        programs: &["yarn"],
        verbs: &["install"],
        lists: "package.json yarn.lock*",
    },
    Installing {
        programs: &["pnpm"],
        verbs: &["install", "i"],
        lists: "package.json pnpm-lock.yaml*",
    },
    Installing {
        programs: &["bundle", "bundler"],
        verbs: &["install"],
        lists: "Gemfile Gemfile.lock*",
    },
    Installing {
        programs: &["composer"],
        verbs: &["install"],
        lists: "composer.json composer.lock*",
    },
    Installing {
        programs: &["go"],
        verbs: &["mod"],
        lists: "go.mod go.sum*",
    },
    Installing {
        programs: &["poetry"],
        verbs: &["install"],
        lists: "pyproject.toml poetry.lock*",
    },
    Installing {
        programs: &["uv"],
        verbs: &["sync"],
        lists: "pyproject.toml uv.lock*",
    },
    Installing {
        programs: &["mvn", "mvnw"],
        verbs: &["dependency:go-offline", "dependency:resolve"],
        lists: "pom.xml",
    },
];

/// The files that list what a command installs, if it installs dependencies from lists.
fn lists_of(command: &ShellCommand) -> Option<String> {
    let python = command.program().starts_with("python") && command.has("-m") && command.has("pip");
    let program = if python { "pip" } else { command.program() };
    let words: Vec<&str> = command.arguments().iter().map(|word| word.text.as_str()).collect();
    let installing = INSTALLING
        .iter()
        .find(|installing| installing.programs.contains(&program))?;
    let verb = words.iter().position(|word| installing.verbs.contains(word))?;
    let after = words.get(verb + 1..).unwrap_or_default();
    if program == "pip" {
        // What is a package of its own needs its sources.
        if after
            .iter()
            .any(|word| matches!(*word, "." | "-e" | "--editable") || word.starts_with("./") || word.starts_with(".["))
        {
            return None;
        }
        let mut lists = Vec::new();
        for (at, word) in after.iter().enumerate() {
            match (*word, word.strip_prefix("--requirement=")) {
                ("-r" | "--requirement", _) => lists.extend(after.get(at + 1)),
                (_, Some(_)) => lists.push(word),
                _ => {}
            }
        }
        let lists: Vec<&str> = lists
            .into_iter()
            .map(|list| list.strip_prefix("--requirement=").unwrap_or(list))
            .collect();
        return (!lists.is_empty() && lists.iter().all(|list| !list.contains('$'))).then(|| lists.join(" "));
    }
    // Packages that are named are no list.
    let names = after.iter().any(|word| !word.starts_with('-'));
    let is_list = match program {
        "go" => after.first() == Some(&"download"),
        "npm" | "yarn" | "pnpm" => !names && !command.has("-g") && !command.has("--global"),
        _ => true,
    };
    is_list.then(|| installing.lists.to_owned())
}

/// Whether a command installs dependencies from lists in the directory where it is, and needs nothing else of the sources.
fn installs_alone(command: &ShellCommand) -> bool {
    // Another directory's lists are elsewhere.
    let elsewhere = [
        "--prefix",
        "--cwd",
        "--dir",
        "-C",
        "--directory",
        "--project",
        "--gemfile",
        "-f",
        "--workspace",
        "-w",
    ];
    let is_elsewhere = |word: &str| {
        elsewhere.iter().any(|option| {
            word.strip_prefix(option)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    };
    // These install the project itself, or run its scripts, unless they are told not to.
    let needed: &[&str] = match command.program() {
        "composer" => &["--no-scripts", "--no-autoloader"],
        "poetry" => &["--no-root"],
        "uv" => &["--no-install-project"],
        _ => &[],
    };
    lists_of(command).is_some()
        && !command.is_nested
        && needed.iter().all(|option| command.has(option))
        && !command.arguments().iter().any(|word| is_elsewhere(&word.text))
}

/// Whether a command only deletes what an installation left.
fn only_cleans(command: &ShellCommand) -> bool {
    let cleans = |words: [&str; 2]| words.iter().all(|word| command.has(word));
    match command.program() {
        "rm" => command
            .arguments()
            .iter()
            .filter(|word| !word.text.starts_with('-'))
            .all(|word| {
                word.text.starts_with("/root/") || word.text.starts_with("/tmp/") || word.text.starts_with("~/")
            }),
        "npm" | "yarn" => cleans(["cache", "clean"]),
        "pip" | "pip3" => cleans(["cache", "purge"]),
        "pnpm" => cleans(["store", "prune"]),
        _ => false,
    }
}

fn sources_first(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for copy in subject.steps("copy").chain(subject.steps("add")) {
        let words = copy.words();
        let Some(((_, target), sources)) = words.split_last() else {
            continue;
        };
        if copy.flag("from").is_some()
            || copy.json.is_some()
            || !sources.iter().any(|(_, source)| is_whole_context(source))
        {
            continue;
        }
        let later = |run: &&RunStep<'_>| run.step.stage == copy.stage && run.step.line > copy.line;
        let found = subject.runs.iter().filter(later).find_map(|run| {
            let lists = run.commands.iter().find_map(lists_of)?;
            Some((run, lists))
        });
        let Some((run, lists)) = found else { continue };
        let absolute = lists.split(' ').any(|list| list.starts_with('/'));
        let is_file = matches!(subject.directory(run.step), Some(directory) if directory.trim_end_matches('/') == target.trim_end_matches('/'));
        let place = match *target {
            "." | "./" => Some("./".to_owned()),
            target if is_file && !absolute => Some(format!("{}/", target.trim_end_matches('/'))),
            _ => None,
        };
        let mut remark = Remark::of(
            copy,
            format!(
                "all of the context is copied before line {} installs dependencies",
                run.step.line
            ),
            "each change of any file installs all dependencies again",
        )
        .advise(format!("copy {lists} alone, install, then copy the rest"));
        let is_next = subject
            .source
            .of_stage(copy.stage.unwrap_or_default())
            .find(|step| step.line > copy.line)
            .is_some_and(|next| next.line == run.step.line);
        let only_installs = run
            .commands
            .iter()
            .all(|command| installs_alone(command) || only_cleans(command));
        if let (Some(place), true, true, true) = (place, is_next, only_installs, run.is_shell()) {
            let head = copy.text.get(..copy.rest).unwrap_or_default();
            let head = head.replacen(&copy.written, "COPY", usize::from(copy.keyword == "add"));
            let moved = format!("{head}{lists} {place}\n{}\n", subject.written(run.step));
            let copied = subject.written(copy);
            remark = remark.advise(
                "copy other files that the installation reads in the same way: what the lists name, or its scripts",
            );
            remark = remark.replace(
                subject.source.start_of(copy.line)..subject.source.start_of(run.step.end + 1),
                format!("{moved}{copied}\n"),
            );
        }
        remarks.push(remark);
    }
    remarks
}

/// Commands that change the shell for what comes after them.
const LEAVING: [&str; 26] = [
    "cd", "export", "set", "source", ".", "exit", "umask", "ulimit", "alias", "unset", "trap", "pushd", "popd",
    "shopt", "read", "declare", "typeset", "local", "readonly", "let", "hash", "enable", "wait", "return", "break",
    "shift",
];

/// Whether a RUN can be joined to others: it means the same there, and changes nothing for them.
fn is_joinable(run: &RunStep<'_>) -> bool {
    let changes = |command: &ShellCommand| LEAVING.contains(&command.program()) || command.program().is_empty();
    let is_plain = run.is_shell() && run.step.bodies.is_empty() && run.step.flags.is_empty();
    let text = run.step.arguments();
    is_plain
        && !run.commands.is_empty()
        && !run.commands.iter().any(changes)
        && is_plain_list(text)
        && !text.contains("$!")
        && !text.contains("$?")
        && !text.contains("$_")
}

fn runs_in_a_row(subject: &Subject<'_>) -> Vec<Remark> {
    let mut rows: Vec<Vec<&RunStep<'_>>> = Vec::new();
    let all = &subject.source.instructions;
    let mut before: Option<&SourceInstruction> = None;
    for step in all {
        let run = subject.runs.iter().find(|run| run.step.line == step.line);
        if let Some(run) = run.filter(|run| is_joinable(run) && subject.is_in_image(run.step)) {
            let continues = before.is_some_and(|before| {
                let between = subject.source.lines(before.end + 1, step.line.saturating_sub(1));
                let is_row = rows
                    .last()
                    .and_then(|row| row.last())
                    .is_some_and(|last| last.step.line == before.line);
                is_row && before.end < step.line && (before.end + 1 == step.line || between.trim().is_empty())
            });
            match rows.last_mut() {
                Some(row) if continues => row.push(run),
                _ => rows.push(vec![run]),
            }
        }
        before = Some(step);
    }
    let mut remarks = Vec::new();
    for row in rows.iter().filter(|row| row.len() > 1) {
        let (Some(first), Some(last)) = (row.first(), row.last()) else {
            continue;
        };
        // Dependencies that the cache keeps apart from each other are worth a layer.
        if row
            .iter()
            .any(|run| run.commands.iter().any(|command| lists_of(command).is_some()))
        {
            continue;
        }
        let message = format!("{} RUN steps in a row that could be one", row.len());
        let mut remark = Remark::of(
            first.step,
            message,
            "a layer for each, and what one deletes stays in that of the one before",
        );
        remark.lines = (first.step.line, last.step.end);
        for pair in row.windows(2) {
            let [one, other] = pair else { continue };
            let Some(end) = one.end() else { continue };
            let joint = format!(" {}\n    && ", subject.source.escape);
            remark = remark.replace(end..other.step.place(other.step.rest), joint);
        }
        remarks.push(remark);
    }
    remarks
}

/// The bytes and the text of the move of an instruction to the place before another, or behind all of its stage.
fn moved(
    remark: Remark,
    subject: &Subject<'_>,
    step: &SourceInstruction,
    before: Option<&SourceInstruction>,
) -> Remark {
    let text = format!("{}\n", subject.written(step));
    let remark = remark.replace(subject.whole(step), "");
    match before {
        Some(before) => remark.insert(subject.source.start_of(before.line), text),
        None => {
            let stage = step.stage.unwrap_or_default();
            let makes =
                |other: &&SourceInstruction| matches!(other.keyword.as_str(), "run" | "copy" | "add" | "workdir");
            match subject.source.of_stage(stage).rfind(makes) {
                Some(last) => {
                    let at = subject.source.start_of(last.end + 1);
                    let is_at_end = at == subject.source.text.len() && !subject.source.text.ends_with('\n');
                    remark.insert(
                        at,
                        if is_at_end {
                            format!("\n{}", text.trim_end())
                        } else {
                            text
                        },
                    )
                }
                None => remark,
            }
        }
    }
}

/// The instructions of the stage after one: those up to the first that uses any of these variables, and that one.
fn until_used<'s>(
    subject: &'s Subject<'_>,
    step: &SourceInstruction,
    names: &[&str],
) -> (Vec<&'s SourceInstruction>, Option<&'s SourceInstruction>) {
    let stage = step.stage.unwrap_or_default();
    let mut idle = Vec::new();
    for other in subject.source.of_stage(stage).filter(|other| other.line > step.line) {
        if names
            .iter()
            .any(|name| mentions(subject.source.lines(other.line, other.end), name))
        {
            return (idle, Some(other));
        }
        idle.push(other);
    }
    (idle, None)
}

fn early_arg(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("arg").filter(|step| step.stage.is_some()) {
        let pairs = step.pairs(subject.source.escape);
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        let (idle, used) = until_used(subject, step, &names);
        let runs = idle.iter().filter(|step| step.keyword == "run").count();
        // One that nothing mentions may be read by a program all the same, and others of the same name count again.
        let counts = used.is_some() || names.iter().all(|name| is_changing(name));
        if runs == 0 || !counts {
            continue;
        }
        let name = names.join(" and ");
        let steps = if runs == 1 {
            "one RUN".to_owned()
        } else {
            format!("{runs} RUNs")
        };
        let message = match used {
            Some(used) => format!(
                "ARG {name} stands before {steps} without it: line {} is the first to use it",
                used.line
            ),
            None => format!("ARG {name} stands before {steps}, and nothing uses it"),
        };
        let remark = Remark::of(step, message, "another value runs them again");
        remarks.push(match used {
            Some(used) => moved(remark, subject, step, Some(used)),
            None => remark.replace(subject.whole(step), ""),
        });
    }
    remarks
}

fn early_env(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("env") {
        let pairs = step.pairs(subject.source.escape);
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        // Programs read others by themselves.
        if names.is_empty() || !names.iter().all(|name| is_changing(name)) {
            continue;
        }
        let (idle, used) = until_used(subject, step, &names);
        let runs = idle.iter().filter(|step| step.keyword == "run").count();
        if runs == 0 {
            continue;
        }
        let message = format!("ENV {} stands before {runs} RUN without it", names.join(" and "));
        let remark = Remark::of(step, message, "another value runs all steps after it again");
        remarks.push(moved(remark, subject, step, used));
    }
    remarks
}

fn early_metadata(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.source.instructions.iter() {
        let is_early = match step.keyword.as_str() {
            "expose" => true,
            "label" => step
                .pairs(subject.source.escape)
                .iter()
                .any(|(name, value)| is_changing(name) || value.as_deref().is_some_and(|value| value.contains('$'))),
            _ => false,
        };
        let stage = step.stage.unwrap_or_default();
        let later = subject.source.of_stage(stage).filter(|other| other.line > step.line);
        let runs = later.filter(|other| other.keyword == "run").count();
        if !is_early || runs == 0 {
            continue;
        }
        let message = format!(
            "{} stands before steps that make the image",
            step.keyword.to_uppercase()
        );
        let remark = Remark::of(
            step,
            message,
            "with the classic builder, each change of it runs these steps again",
        );
        remarks.push(moved(remark, subject, step, None));
    }
    remarks
}
