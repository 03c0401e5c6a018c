//! Rules about apt and its kin: what is installed, and how.

use super::apt_lists::later_user;
use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script::{Joint, ShellCommand, ShellWord};
use super::subject::{RunStep, Subject};
use super::variables::is_plain_run;

/// Packages from which on a list is long.
const LONG: usize = 4;
const APT: &[&str] = &["apt-get", "apt"];

/// Packages, and those that they only recommend and hardly work without: certificates for https, headers for a compiler.
const RECOMMENDED: [(&str, &[&str]); 8] = [
    ("cmake", &["gcc", "libc6-dev", "make"]),
    ("curl", &["ca-certificates"]),
    ("gcc", &["libc6-dev"]),
    ("git", &["ca-certificates", "openssh-client"]),
    ("gnupg", &["dirmngr"]),
    ("golang-go", &["gcc", "libc6-dev"]),
    ("python3-pip", &["build-essential", "python3-dev"]),
    ("wget", &["ca-certificates"]),
];

const GOOD: &str = "FROM debian:13-slim\nRUN apt-get update \\\n    && apt-get install -y --no-install-recommends \\\n      ca-certificates \\\n      \
                    curl \\\n    && rm -rf /var/lib/apt/lists/*\n";

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "AptWithoutUpdate",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "`apt-get install` without `apt-get update` in the same RUN",
        why: "The lists of packages are those of an earlier step, which the cache keeps for months. Then packages are not found, or \
              old ones are installed, because a step that did not change is not run again.",
        bad: "FROM debian:13-slim\nRUN apt-get update\nRUN apt-get install -y --no-install-recommends curl\n",
        good: GOOD,
        check: without_update,
    },
    Rule {
        name: "AptUpdateAlone",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "`apt-get update` in a RUN that installs nothing",
        why: "Its lists are in a layer of the image, and a step that installs with them later has old ones.",
        bad: "FROM debian:13-slim\nRUN apt-get update\n",
        good: GOOD,
        check: update_alone,
    },
    Rule {
        name: "AptRecommends",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "`apt-get install` without `--no-install-recommends`",
        why: "Recommended packages come with it that nobody asked for; often they are larger than what was asked for.",
        bad: "FROM debian:13-slim\nRUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*\n",
        good: GOOD,
        check: recommends,
    },
    Rule {
        name: "AptWithoutYes",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "`apt-get` asks whether to go on, and nobody answers",
        why: "Without `-y`, the step fails as soon as a package brings others with it.",
        bad: "FROM debian:13-slim\nRUN apt-get update && apt-get install --no-install-recommends curl && rm -rf /var/lib/apt/lists/*\n",
        good: GOOD,
        check: without_yes,
    },
    Rule {
        name: "AptUpgrade",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "`apt-get upgrade` or `dist-upgrade` in a RUN",
        why: "Upgraded packages are in the image twice: in the base's layer and in this one. The result depends on the day. A newer \
              tag of the base has the same upgrades, once.",
        bad: "FROM debian:13-slim\nRUN apt-get update && apt-get upgrade -y && rm -rf /var/lib/apt/lists/*\n",
        good: "FROM debian:13-slim\n",
        check: upgrade,
    },
    Rule {
        name: "AptForPeople",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "`apt` in a script",
        why: "`apt` is for people at a terminal: its output and options may change, and it says so itself. `apt-get` is for scripts.",
        bad: "FROM debian:13-slim\nRUN apt update && apt install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*\n",
        good: GOOD,
        check: for_people,
    },
    Rule {
        name: "UnsortedPackages",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "A long list of packages is not sorted",
        why: "In a sorted list a package is found, nobody adds it twice, and two branches that each add one can be merged. \
              Lists of four and more count.",
        bad: "FROM debian:13-slim\nRUN apt-get update && apt-get install -y --no-install-recommends \\\n      wget curl git ca-certificates \\\n    \
              && rm -rf /var/lib/apt/lists/*\n",
        good: "FROM debian:13-slim\nRUN apt-get update && apt-get install -y --no-install-recommends \\\n      ca-certificates curl git wget \\\n    \
               && rm -rf /var/lib/apt/lists/*\n",
        check: unsorted,
    },
    Rule {
        name: "DebianFrontendEnv",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "`ENV DEBIAN_FRONTEND` stays in the image",
        why: "Whoever works in a container of it gets no questions from apt there, either. An ARG counts for the build alone.",
        bad: "FROM debian:13-slim\nENV DEBIAN_FRONTEND=noninteractive\n",
        good: "FROM debian:13-slim\nARG DEBIAN_FRONTEND=noninteractive\n",
        check: frontend,
    },
];

/// The words of `apt-get install`'s list: neither options nor their values.
fn packages(command: &ShellCommand) -> Vec<&ShellWord> {
    let Some((verb, _)) = command.verb() else {
        return Vec::new();
    };
    let mut packages = Vec::new();
    let mut is_value = false;
    for word in command.arguments().iter().skip(verb + 1) {
        let takes_value = matches!(
            word.text.as_str(),
            "-o" | "-t" | "-c" | "--target-release" | "--virtual" | "-X" | "--repository"
        );
        if !is_value && !word.text.starts_with('-') {
            packages.push(word);
        }
        is_value = takes_value;
    }
    packages
}

fn does(command: &ShellCommand, verb: &str) -> bool {
    command.verb().is_some_and(|(_, word)| word.text == verb)
}

/// The calls of apt with this verb, and their position in the RUN.
fn apt<'r>(run: &'r RunStep<'_>, verb: &'static str) -> impl Iterator<Item = (usize, &'r ShellCommand)> {
    run.calls(APT).filter(move |(_, command)| does(command, verb))
}

/// Whether an update comes before a command, in the same RUN, or lists of packages are mounted.
fn is_updated(run: &RunStep<'_>, before: usize) -> bool {
    apt(run, "update").any(|(at, _)| at < before)
        || run
            .mounts("cache")
            .iter()
            .any(|target| target.starts_with("/var/lib/apt"))
}

/// What installs with lists of packages.
const INSTALLING: [&str; 4] = ["build-dep", "install", "satisfy", "source"];

/// The first command of a RUN that installs with the lists of another step.
fn without_lists<'r>(run: &'r RunStep<'_>) -> Option<&'r ShellCommand> {
    let mut calls = run.calls(APT);
    let first = calls.find(|(at, command)| {
        let installs = command
            .verb()
            .is_some_and(|(_, verb)| INSTALLING.contains(&verb.text.as_str()));
        let are_files = does(command, "install") && packages(command).iter().all(|word| word.text.ends_with(".deb"));
        installs && !is_updated(run, *at) && !are_files
    });
    first.map(|(_, command)| command)
}

/// Where an update comes before such a command, and its words.
fn own_update(run: &RunStep<'_>, command: &ShellCommand) -> Option<(usize, String)> {
    // What follows `||` or `&` is run under a condition: no place for it there.
    let joint = match command.entry {
        None if run.is_heredoc => "\n",
        None | Some(Joint::And) => " && ",
        // With `set -e`, a fault would be overlooked in a list.
        Some(Joint::Sequence) if run.is_heredoc => "\n",
        Some(Joint::Sequence) => "; ",
        _ => return None,
    };
    let sudo = command.words.first().filter(|word| word.text == "sudo");
    let sudo = sudo.map_or("", |_| "sudo ");
    let at = command.outermost.filter(|_| run.is_shell())?;
    Some((at, format!("{sudo}{} update{joint}", command.program())))
}

/// Whether a RUN has lists of its own once the lines about it are written.
fn gets_lists(run: &RunStep<'_>) -> bool {
    without_lists(run).is_some_and(|command| own_update(run, command).is_some())
}

fn without_update(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        let Some(command) = without_lists(run) else {
            continue;
        };
        let program = command.program().to_owned();
        let verb = command.verb().map(|(_, verb)| verb.text.as_str()).unwrap_or_default();
        let remark = Remark::of(
            run.step,
            format!("{program} {verb} without {program} update in the same RUN"),
            "packages that are not found, or old ones: the cache keeps the lists of an earlier step",
        );
        remarks.push(match own_update(run, command) {
            Some((at, update)) => remark.insert(at, update),
            None => remark.advise(format!("let {program} update come before it, in the same RUN")),
        });
    }
    remarks
}

fn update_alone(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        let mut calls = run
            .calls(APT)
            .filter(|(_, command)| !does(command, "update"))
            .peekable();
        let mut others = run.commands.iter().filter(|command| {
            // Any other program may install: add-apt-repository, a script.
            !APT.contains(&command.program())
                && !matches!(command.program(), "" | "set" | "rm" | "echo" | "true" | "apt-key")
        });
        if apt(run, "update").next().is_none() || calls.peek().is_some() || others.next().is_some() {
            continue;
        }
        let message = "apt-get update in a RUN that installs nothing";
        let remark = Remark::of(
            run.step,
            message,
            "lists in a layer of the image, and old ones for the steps after it",
        );
        // It can go if what it is for is seen: each later RUN that may need the lists calls apt by name, and gets its own.
        let only_updates = run
            .commands
            .iter()
            .all(|command| APT.contains(&command.program()) || deletes_lists(command));
        let later: Vec<_> = subject
            .runs
            .iter()
            .filter(|later| later.step.line > run.step.line && later.step.stage == run.step.stage)
            .collect();
        // After one that installs, its lists are there again.
        let first = later.iter().position(|later| installs(later)).unwrap_or(later.len());
        let are_known = later.iter().take(first).all(|later| is_plain_run(later));
        let is_last = run
            .step
            .stage
            .is_some_and(|stage| stage + 1 == subject.file.stages.len());
        let is_free = later_user(subject, run, gets_lists).is_none();
        let own = subject.movable(run.step);
        remarks.push(match own.filter(|_| only_updates && is_last && are_known && is_free) {
            Some(own) => remark.replace(own, ""),
            None => remark.advise("delete it, and begin the RUN that installs with apt-get update &&"),
        });
    }
    remarks
}

/// Whether a command deletes apt's lists.
fn deletes_lists(command: &ShellCommand) -> bool {
    command.program() == "rm"
        && command
            .arguments()
            .iter()
            .any(|word| word.text.contains("/var/lib/apt"))
}

/// Whether a RUN installs packages by apt.
fn installs(run: &RunStep<'_>) -> bool {
    apt(run, "install").next().is_some()
}

fn recommends(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        for (_, command) in apt(run, "install") {
            let says = |word: &ShellWord| {
                word.text == "--no-install-recommends"
                    || word.text == "--install-recommends"
                    || word.text.to_lowercase().contains("apt::install-recommends=")
            };
            if command.arguments().iter().any(says) || packages(command).is_empty() {
                continue;
            }
            let message = format!("{} install without --no-install-recommends", command.program());
            let mut remark = Remark::of(
                run.step,
                message,
                "packages that nobody asked for, often larger than those asked for",
            );
            if let Some(needed) = unseen_need(subject, command) {
                remarks.push(remark.advise(format!(
                    "add --no-install-recommends, and name what is needed of the recommended packages, such as {needed}: apt-cache depends \
                     PACKAGE shows them"
                )));
                continue;
            }
            if let Some((_, verb)) = command.verb().filter(|_| run.is_shell()) {
                remark = remark.insert(verb.bytes.end, " --no-install-recommends");
                remark = with_recommended(remark, subject, command);
            }
            remarks.push(remark.advise(
                "a package that was only recommended, and is needed, must be named now: apt-cache depends PACKAGE shows them",
            ));
        }
    }
    remarks
}

/// A recommended package that is needed where it can't be told whether it comes otherwise.
fn unseen_need(subject: &Subject<'_>, command: &ShellCommand) -> Option<&'static str> {
    let list = packages(command);
    let is_named = |name: &str| list.iter().any(|word| word.text.split('=').next() == Some(name));
    // R's own packages are compiled on installation.
    if is_named("r-base") && !is_named("r-base-dev") {
        return Some("r-base-dev");
    }
    let is_open = list.iter().any(|word| word.text.contains(['$', '`']));
    let after = subject.source.text.get(command.bytes.end..).unwrap_or_default();
    let downloads = ["https:", "curl", "wget", "git "]
        .iter()
        .any(|part| after.contains(part));
    (is_open && downloads && !is_named("ca-certificates")).then_some("ca-certificates")
}

/// Whether a package depends on another one of those that are recommended.
fn brings(package: &str, other: &str) -> bool {
    match package {
        "build-essential" => matches!(other, "gcc" | "libc6-dev" | "make"),
        "g++" => matches!(other, "gcc" | "libc6-dev"),
        _ => false,
    }
}

/// The remark with the packages that come only because these recommend them, and without which they are of little use.
fn with_recommended(mut remark: Remark, subject: &Subject<'_>, command: &ShellCommand) -> Remark {
    let list = packages(command);
    let name = |word: &ShellWord| word.text.split(['=', ':', '/']).next().unwrap_or_default().to_owned();
    let named: Vec<String> = list.iter().map(|word| name(word)).collect();
    let mut needed: Vec<&str> = RECOMMENDED
        .iter()
        .filter(|(package, _)| named.iter().any(|name| name == package))
        .flat_map(|(_, needed)| *needed)
        .copied()
        .filter(|needed| *needed != "openssh-client" || subject.has_ssh)
        .filter(|needed| !named.iter().any(|name| name == needed || brings(name, needed)))
        .collect();
    needed.sort_unstable();
    needed.dedup();
    for package in needed {
        // Where it belongs in a sorted list.
        let after = list.iter().find(|word| word.text.as_str() > package);
        remark = match (after, list.last()) {
            (Some(after), _) => remark.insert(after.bytes.start, format!("{package} ")),
            (None, Some(last)) => remark.insert(last.bytes.end, format!(" {package}")),
            (None, None) => remark,
        };
    }
    remark
}

fn without_yes(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        for (at, command) in run.calls(APT) {
            let Some((_, verb)) = command.verb() else { continue };
            let asks = matches!(
                verb.text.as_str(),
                "install" | "upgrade" | "dist-upgrade" | "full-upgrade" | "autoremove" | "remove" | "purge"
            );
            let is_yes = |word: &ShellWord| {
                let text = word.text.as_str();
                let short = text.starts_with('-') && !text.starts_with("--");
                (short && (text.contains('y') || text.contains("qq")))
                    || matches!(
                        text,
                        "--yes"
                            | "--assume-yes"
                            | "--quiet=2"
                            | "-q=2"
                            | "--simulate"
                            | "--dry-run"
                            | "--download-only"
                    )
            };
            let before = at.checked_sub(1).and_then(|before| run.commands.get(before));
            let is_answered = before.is_some_and(|before| before.program() == "yes");
            if !asks || is_answered || command.arguments().iter().any(is_yes) {
                continue;
            }
            let message = format!(
                "{} {} asks whether to go on, and nobody answers",
                command.program(),
                verb.text
            );
            let mut remark = Remark::of(
                run.step,
                message,
                "a step that fails as soon as a package brings others with it",
            );
            if run.is_shell() {
                remark = remark.insert(verb.bytes.end, " -y");
            }
            remarks.push(remark);
        }
    }
    remarks
}

fn upgrade(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        for (at, command) in run.calls(APT) {
            let Some((_, verb)) = command.verb() else { continue };
            if !matches!(verb.text.as_str(), "upgrade" | "dist-upgrade" | "full-upgrade") {
                continue;
            }
            let message = format!(
                "{} {} puts packages into the image a second time",
                command.program(),
                verb.text
            );
            let costs = "the base's layer and this one both have them, and the result depends on the day";
            let mut remark =
                Remark::of(run.step, message, costs).advise("use a newer tag of the base for newer packages");
            if !run.is_shell() {
                remarks.push(remark);
                continue;
            }
            let is_upkeep = |command: &ShellCommand| {
                let verb = command.verb().map(|(_, verb)| verb.text.as_str()).unwrap_or_default();
                let is_of_apt = matches!(
                    verb,
                    "update" | "upgrade" | "dist-upgrade" | "full-upgrade" | "clean" | "autoclean" | "autoremove"
                );
                (APT.contains(&command.program()) && is_of_apt) || deletes_lists(command) || command.program() == "set"
            };
            if run.commands.iter().all(is_upkeep) && later_user(subject, run, gets_lists).is_some() {
                // Its lists are there for others.
                remarks.push(remark);
                continue;
            }
            if run.commands.iter().all(is_upkeep) {
                // An update for nothing, and the cleaning after it, go with it.
                remarks.push(match subject.movable(run.step) {
                    Some(own) => remark.replace(own, ""),
                    None => remark,
                });
                continue;
            }
            let next = run.commands.get(at + 1);
            let before = at.checked_sub(1).and_then(|before| run.commands.get(before));
            // It goes together with what joins it to the next command, or to the one before: by `&&`, else it is not sure what
            // that does without it.
            let bytes = match (next, before) {
                (Some(next), _) if command.joint == Joint::And => Some(command.bytes.start..next.bytes.start),
                (None, Some(before)) if before.joint == Joint::And => Some(before.bytes.end..command.bytes.end),
                _ => None,
            };
            let is_removed = |bytes: &std::ops::Range<usize>| {
                let text = subject.source.text.get(bytes.clone()).unwrap_or_default();
                !text.contains(['(', ')', '{', '}', '#'])
            };
            // Lists that nothing else is installed from are left by no line of ours.
            if let Some(bytes) = bytes.filter(|bytes| is_removed(bytes) && installs(run)) {
                remark = remark.replace(bytes, "");
            }
            remarks.push(remark);
        }
    }
    remarks
}

fn for_people(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        let calls: Vec<_> = run.calls(&["apt"]).map(|(_, command)| command).collect();
        if calls.is_empty() {
            continue;
        }
        let mut remark = Remark::of(
            run.step,
            "apt is for people at a terminal, apt-get is for scripts",
            "a warning in the output of each build, and options that may change",
        );
        if run.is_shell() {
            for command in calls {
                let program = command
                    .words
                    .iter()
                    .find(|word| word.text == "apt" || word.text.ends_with("/apt"));
                if let Some(program) = program {
                    remark = remark.replace(program.bytes.clone(), "apt-get");
                }
            }
        }
        remarks.push(remark);
    }
    remarks
}

fn unsorted(subject: &Subject<'_>) -> Vec<Remark> {
    const PROGRAMS: &[&str] = &["apt-get", "apt", "apk", "dnf", "yum", "microdnf"];
    let mut remarks = Vec::new();
    for run in &subject.runs {
        for (_, command) in run
            .calls(PROGRAMS)
            .filter(|(_, command)| does(command, "install") || does(command, "add"))
        {
            let list = packages(command);
            let is_plain = |word: &&ShellWord| !word.text.contains(['$', '`', '/']);
            let mut sorted: Vec<&str> = list.iter().map(|word| word.text.as_str()).collect();
            sorted.sort_unstable();
            let is_sorted = list.iter().map(|word| word.text.as_str()).eq(sorted.iter().copied());
            if list.len() < LONG || is_sorted || !list.iter().all(is_plain) {
                continue;
            }
            let message = format!("the list of {} packages is not sorted", list.len());
            let mut remark = Remark::of(
                run.step,
                message,
                "packages that are named twice, and branches that can't be merged",
            );
            // Comments between the names belong to some of them: who sorts them knows to which.
            let first = list.first().map_or(0, |word| subject.source.line_at(word.bytes.start));
            let last = list.last().map_or(0, |word| subject.source.line_at(word.bytes.end));
            let has_comments =
                (first..=last).any(|line| subject.source.lines(line, line).trim_start().starts_with('#'));
            if has_comments || !run.is_shell() {
                remark = remark.advise("sort them, each comment with the package that it is about");
            } else {
                let mut by_name = list.clone();
                by_name.sort_by(|one, other| one.text.cmp(&other.text));
                for (word, other) in list.iter().zip(by_name).filter(|(word, other)| word.text != other.text) {
                    // As it is written: in its quotes, if it has any.
                    let text = subject.source.text.get(other.bytes.clone()).unwrap_or_default();
                    remark = remark.replace(word.bytes.clone(), text);
                }
            }
            remarks.push(remark);
        }
    }
    remarks
}

fn frontend(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("env") {
        let pairs = step.pairs(subject.source.escape);
        let Some((_, value)) = pairs.iter().find(|(name, _)| name == "DEBIAN_FRONTEND") else {
            continue;
        };
        let remark = Remark::of(
            step,
            "ENV DEBIAN_FRONTEND stays in the image",
            "whoever works in a container of it gets no questions from apt, either",
        );
        let value = value.clone().unwrap_or_default();
        remarks.push(match pairs.len() {
            1 => remark.replace(subject.whole(step), format!("ARG DEBIAN_FRONTEND={value}\n")),
            _ => remark.advise(format!(
                "write ARG DEBIAN_FRONTEND={value}, and take it out of this ENV"
            )),
        });
    }
    remarks
}
