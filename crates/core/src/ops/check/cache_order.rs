//! Rules about the order of steps: what makes the cache useless, and steps that could be one.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::secrets::{is_secret_name, is_whole_context};
use super::shell_script::{ShellCommand, is_plain_list};
use super::subject::{RunStep, Subject};
use super::variables::{is_changing, is_plain_run, is_read_by_tools, names_variable, uses};
use crate::docker::build::dockerfile::source::SourceInstruction;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "SourcesBeforeDependencies",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "All sources are copied before the dependencies are installed",
        why: "A step is taken from the cache only if nothing that it copies has changed, and neither has any step before it. So each change \
              of any file installs all dependencies again. Copy the list of dependencies first, install them, then copy the rest. \
              Dependencies that an earlier step installs, or fetches, count as installed: `uv sync --no-install-project`, COPY, `uv sync` is \
              such an order, and so is `poetry install --no-root`, COPY, `poetry install --only-root`.",
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
        why: "Every RUN after an ARG has the variable, used or not: another value runs all of them again. Where one of them may read it \
              without naming it, because it runs a script or builds sources, nothing is said.",
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
              a version, revision, date or their like, if the steps after it are sure to do the same without it: a script, a build, \
              and what tools read by themselves (`PYENV_VERSION`, `GOPATH`, `SOURCE_DATE_EPOCH`) do not count.",
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
    /// As COPY takes them; none where an option names them.
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
        lists: "package.json yarn.lock",
    },
    Installing {
        programs: &["pnpm"],
        verbs: &["install", "i"],
        lists: "package.json pnpm-lock.yaml",
    },
    Installing {
        programs: &["bundle", "bundler"],
        verbs: &["install"],
        lists: "Gemfile Gemfile.lock",
    },
    Installing {
        programs: &["composer"],
        verbs: &["install"],
        lists: "composer.json composer.lock",
    },
    Installing {
        programs: &["go"],
        verbs: &["mod"],
        lists: "go.mod go.sum",
    },
    Installing {
        programs: &["poetry"],
        verbs: &["install"],
        lists: "pyproject.toml poetry.lock",
    },
    Installing {
        programs: &["uv"],
        verbs: &["sync"],
        lists: "pyproject.toml uv.lock",
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
    if words
        .iter()
        .any(|word| matches!(*word, "--version" | "--help" | "--dry-run"))
    {
        return None;
    }
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

/// The program by which a command installs or fetches dependencies, from lists or by name.
fn installer(command: &ShellCommand) -> Option<&'static str> {
    let python = command.program().starts_with("python") && command.has("-m") && command.has("pip");
    let program = if python { "pip" } else { command.program() };
    let installing = INSTALLING
        .iter()
        .find(|installing| installing.programs.contains(&program))?;
    let is_verb = |word: &str| installing.verbs.contains(&word) || word == "fetch";
    let is_it = command.arguments().iter().any(|word| is_verb(&word.text));
    installing.programs.first().copied().filter(|_| is_it)
}

/// Whether what a RUN installs was installed or fetched before all of the context is copied: a second step then only adds the
/// project.
fn is_second_step(subject: &Subject<'_>, copy: &SourceInstruction, run: &RunStep<'_>) -> bool {
    let below = copy.stage.map(|stage| subject.stages_below(stage)).unwrap_or_default();
    let installers = |run: &RunStep<'_>| -> Vec<&'static str> { run.commands.iter().filter_map(installer).collect() };
    let now = installers(run);
    let mut before = subject
        .runs
        .iter()
        .filter(|before| before.step.line < copy.line && before.step.stage.is_some_and(|stage| below.contains(&stage)));
    before.any(|before| installers(before).iter().any(|program| now.contains(program)))
}

/// Whether what a RUN downloads stays in a cache mount, and is there again.
fn is_kept_by_mount(run: &RunStep<'_>) -> bool {
    let keeps = |command: &ShellCommand| matches!(installer(command), None | Some("go" | "mvn"));
    run.commands.iter().all(keeps) && !run.mounts("cache").is_empty()
}

/// What to write, in words: which files the program needs before its sources, and with which options it does without these.
fn in_two_steps(program: &str, lists: &str) -> String {
    let first = match program {
        "uv" => "COPY pyproject.toml uv.lock ./, RUN uv sync --no-install-project, COPY . ., RUN uv sync".to_owned(),
        "poetry" => "COPY pyproject.toml poetry.lock ./, RUN poetry install --no-root, COPY . ., RUN poetry install --only-root".to_owned(),
        "composer" => {
            "COPY composer.json composer.lock ./, RUN composer install --no-scripts --no-autoloader, COPY . ., RUN composer install".to_owned()
        }
        "pnpm" => "COPY pnpm-lock.yaml ./, RUN pnpm fetch, COPY . ., RUN pnpm install --offline".to_owned(),
        "npm" | "yarn" => format!(
            "COPY {lists} ./, then this RUN, then COPY . .: with the package.json of each workspace and the scripts that it runs on install, if there are any"
        ),
        "bundle" => "COPY Gemfile Gemfile.lock ./, with the files that they name (.ruby-version, a gemspec), then this RUN, then COPY . .".to_owned(),
        "go" => "COPY go.mod go.sum ./, with the directories that go.mod replaces modules by, then RUN go mod download, then COPY . .".to_owned(),
        "mvn" => "COPY pom.xml ./, with the pom.xml of each module, then this RUN, then COPY . .".to_owned(),
        _ => format!("copy {lists} alone, with the files that it names, install, then copy the rest"),
    };
    format!("so that they are cached: {first}")
}

/// Whether a command installs packages from lists, and reads no other file of the sources.
fn installs_from_lists(command: &ShellCommand) -> bool {
    let reads = |word: &str| {
        let is_option = ["-c", "--constraint", "-f", "--find-links"];
        let is_file = (word.contains('/') && !word.contains("://"))
            || [".whl", ".zip", ".tar.gz"].iter().any(|end| word.ends_with(end));
        is_option
            .iter()
            .any(|option| word == *option || word.starts_with(&format!("{option}=")))
            || is_file
    };
    installer(command) == Some("pip")
        && lists_of(command).is_some()
        && !command.is_nested
        && !command.arguments().iter().any(|word| reads(&word.text))
}

/// Whether a command only deletes what an installation left.
fn only_cleans(command: &ShellCommand) -> bool {
    let is_outside = |word: &str| {
        ["-", "/root/", "/tmp/", "~/"]
            .iter()
            .any(|begin| word.starts_with(begin))
    };
    match command.program() {
        "rm" => command.arguments().iter().all(|word| is_outside(&word.text)),
        "pip" | "pip3" => command.has("cache") && command.has("purge"),
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
            let with_lists = |command| Some((installer(command)?, lists_of(command)?));
            let all: Vec<(&str, String)> = run.commands.iter().filter_map(with_lists).collect();
            let program = all.first()?.0;
            let own = all.into_iter().filter(|(other, _)| *other == program);
            let mut lists: Vec<String> = own.map(|(_, lists)| lists).collect();
            lists.dedup();
            Some((run, program, lists.join(" ")))
        });
        let Some((run, program, lists)) = found else { continue };
        if is_second_step(subject, copy, run) || is_kept_by_mount(run) {
            continue;
        }
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
        .advise(in_two_steps(program, &lists));
        let is_next = subject
            .source
            .of_stage(copy.stage.unwrap_or_default())
            .find(|step| step.line > copy.line)
            .is_some_and(|next| next.line == run.step.line);
        let has_comment = subject.has_comment_above(copy) || subject.has_comment_above(run.step);
        // Which files others read before they install is theirs to know: workspaces, local packages, scripts.
        let only_installs = run
            .commands
            .iter()
            .all(|command| installs_from_lists(command) || only_cleans(command));
        let is_known =
            only_installs && program == "pip" && !absolute && lists.split(' ').all(|list| !list.contains('/'));
        if let (Some(place), true, true, true) = (
            place,
            is_next && !has_comment,
            is_known,
            run.is_shell() && is_plain_list(run.step.arguments()),
        ) {
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

/// The variables that an instruction gives values to, and the keys of labels.
fn defined(step: &SourceInstruction, escape: char) -> Vec<String> {
    match step.keyword.as_str() {
        "arg" | "env" | "label" => step.pairs(escape).into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// An instruction between another and the line where that would be moved to, behind which it would mean something else: it gives
/// a value to a variable that is used there, or to the same label.
fn obstacle<'s>(subject: &'s Subject<'_>, step: &SourceInstruction, until: usize) -> Option<&'s SourceInstruction> {
    let escape = subject.source.escape;
    let used: Vec<String> = uses(step.arguments(), escape)
        .into_iter()
        .map(|used| used.name)
        .collect();
    let own = defined(step, escape);
    let stage = subject.source.of_stage(step.stage.unwrap_or_default());
    let mut between = stage.filter(|other| step.line < other.line && other.line < until);
    between.find(|other| {
        let names = defined(other, escape);
        let is_label = other.keyword == "label";
        let is_same = is_label == (step.keyword == "label") && names.iter().any(|name| own.contains(name));
        is_same || (!is_label && names.iter().any(|name| used.contains(name)))
    })
}

/// The bytes and the text of the move of an instruction to the place before another, or behind all of its stage.
fn moved(
    remark: Remark,
    subject: &Subject<'_>,
    step: &SourceInstruction,
    before: Option<&SourceInstruction>,
) -> Remark {
    let source = subject.source;
    let makes = |other: &&SourceInstruction| matches!(other.keyword.as_str(), "run" | "copy" | "add" | "workdir");
    let last = source.of_stage(step.stage.unwrap_or_default()).rfind(makes);
    let (at, line, place) = match (before, last) {
        (Some(before), _) => (
            source.start_of(subject.line_with_comment(before)),
            before.line,
            format!("before line {}", before.line),
        ),
        (None, Some(last)) => (
            source.start_of(last.end + 1),
            last.end + 1,
            format!("behind line {}", last.end),
        ),
        (None, None) => return remark,
    };
    if let Some(obstacle) = obstacle(subject, step, line) {
        return remark.advise(format!(
            "move it {place}, with the value that it has here: line {} gives another one",
            obstacle.line
        ));
    }
    let Some(own) = subject.movable(step) else {
        return remark.advise(format!("move it {place}, with what the comment above says of it"));
    };
    let text = source
        .text
        .get(own.clone())
        .unwrap_or_default()
        .trim_end_matches(['\n', '\r']);
    let is_at_end = at == source.text.len() && !source.text.ends_with('\n');
    let text = match is_at_end {
        true => format!("\n{text}"),
        false => format!("{text}\n"),
    };
    remark.replace(own, "").insert(at, text)
}

/// Whether RUNs do the same without variables of these names: nothing that may read one is in them.
fn are_without(subject: &Subject<'_>, idle: &[&SourceInstruction], names: &[&str]) -> bool {
    let lines: Vec<usize> = idle.iter().map(|step| step.line).collect();
    let mut runs = subject.runs.iter().filter(|run| lines.contains(&run.step.line));
    !names.iter().any(|name| is_read_by_tools(name) || is_secret_name(name)) && runs.all(is_plain_run)
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
            .any(|name| names_variable(subject.source.lines(other.line, other.end), name))
        {
            return (idle, Some(other));
        }
        idle.push(other);
    }
    (idle, None)
}

/// So many RUNs before which a variable stands for nothing.
fn idle_runs(count: usize) -> String {
    match count {
        1 => "one RUN that does not use it".to_owned(),
        more => format!("{more} RUNs that do not use it"),
    }
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
        if runs == 0 || !counts || !are_without(subject, &idle, &names) {
            continue;
        }
        let name = names.join(" and ");
        let steps = idle_runs(runs);
        let message = match used {
            Some(used) => format!(
                "ARG {name} stands before {steps}: line {} is the first to use it",
                used.line
            ),
            None => format!("ARG {name} stands before {steps}, nor does anything else"),
        };
        let remark = Remark::of(step, message, "another value runs them again");
        remarks.push(match used {
            Some(used) => moved(remark, subject, step, Some(used)),
            None => match subject.movable(step) {
                Some(own) => remark.replace(own, ""),
                None => remark.advise("delete it, and what the comment above says of it"),
            },
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
        if runs == 0 || !are_without(subject, &idle, &names) {
            continue;
        }
        let message = format!("ENV {} stands before {}", names.join(" and "), idle_runs(runs));
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
