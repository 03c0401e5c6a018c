//! Rules about what package managers leave in a layer. What a cache is, and how it fills, is in [`crate::ops::caches`].

use super::apt_lists::later_user;
use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script::{Joint, ShellCommand};
use super::subject::{RunStep, Subject};
use crate::ops::caches::{self, Cache, Filling};

const WHY: &str = "What a step leaves, everybody who pulls the image downloads, even if a later step deletes it. Delete it in the same \
                   RUN, or keep it out of the image with a cache mount: then it also makes the next build faster. \
                   `build-image --layers` shows how much it is.";

/// A rule about the cache that this program fills.
const fn staying(
    name: &'static str,
    title: &'static str,
    bad: &'static str,
    good: &'static str,
    check: fn(&Subject<'_>) -> Vec<Remark>,
) -> Rule {
    Rule {
        name,
        severity: Severity::Warning,
        is_of_buildkit: false,
        title,
        why: WHY,
        bad,
        good,
        check,
    }
}

pub(super) const RULES: &[Rule] = &[
    staying(
        "AptListsStay",
        "apt's lists of packages stay in the image",
        "FROM debian:13-slim\nRUN apt-get update && apt-get install -y --no-install-recommends curl\n",
        "FROM debian:13-slim\nRUN apt-get update && apt-get install -y --no-install-recommends curl && rm -rf /var/lib/apt/lists/*\n",
        |subject| stays(subject, "apt-get"),
    ),
    staying(
        "ApkCacheStays",
        "What apk downloaded stays in the image",
        "FROM alpine:3.22\nRUN apk add curl\n",
        "FROM alpine:3.22\nRUN apk add --no-cache curl\n",
        |subject| stays(subject, "apk"),
    ),
    staying(
        "DnfCacheStays",
        "What dnf downloaded stays in the image",
        "FROM fedora:42\nRUN dnf install -y gcc\n",
        "FROM fedora:42\nRUN dnf install -y gcc && dnf clean all\n",
        |subject| stays(subject, "dnf"),
    ),
    staying(
        "YumCacheStays",
        "What yum downloaded stays in the image",
        "FROM amazonlinux:2023\nRUN yum install -y gcc\n",
        "FROM amazonlinux:2023\nRUN yum install -y gcc && yum clean all\n",
        |subject| stays(subject, "yum"),
    ),
    staying(
        "PipCacheStays",
        "What pip downloaded stays in the image",
        "FROM python:3.13-slim\nRUN pip install flask==3.1.0\n",
        "FROM python:3.13-slim\nRUN pip install --no-cache-dir flask==3.1.0\n",
        |subject| stays(subject, "pip"),
    ),
    staying(
        "UvCacheStays",
        "What uv downloaded stays in the image",
        "FROM python:3.13-slim\nRUN uv sync --frozen\n",
        "FROM python:3.13-slim\nRUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen\n",
        |subject| stays(subject, "uv"),
    ),
    staying(
        "CondaCacheStays",
        "What conda downloaded stays in the image",
        "FROM condaforge/miniforge3:25.3.0-3\nRUN conda install --yes numpy\n",
        "FROM condaforge/miniforge3:25.3.0-3\nRUN conda install --yes numpy && conda clean --all --yes\n",
        |subject| stays(subject, "conda"),
    ),
    staying(
        "NpmCacheStays",
        "What npm downloaded stays in the image",
        "FROM node:22-slim\nRUN npm ci\n",
        "FROM node:22-slim\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
        |subject| stays(subject, "npm"),
    ),
    staying(
        "YarnCacheStays",
        "What yarn downloaded stays in the image",
        "FROM node:22-slim\nRUN yarn install --frozen-lockfile\n",
        "FROM node:22-slim\nRUN yarn install --frozen-lockfile && yarn cache clean\n",
        |subject| stays(subject, "yarn"),
    ),
];

/// `python -m pip install` is `pip install`: the arguments after the program that counts.
fn call<'c>(command: &'c ShellCommand, programs: &[&str]) -> Option<Vec<&'c str>> {
    let words = || command.arguments().iter().map(|word| word.text.as_str());
    if programs.contains(&command.program()) {
        return Some(words().collect());
    }
    let mut words = words();
    let is_python = command.program().starts_with("python");
    (is_python && words.next() == Some("-m") && words.next().is_some_and(|module| programs.contains(&module)))
        .then(|| words.collect())
}

/// Whether a command puts something into the cache, and does not keep it out by an option.
fn fills(command: &ShellCommand, filling: &Filling) -> bool {
    let Some(arguments) = call(command, filling.programs) else {
        return false;
    };
    let verb = arguments.iter().find(|word| !word.starts_with('-'));
    let is_default = verb.is_none()
        && command.program() == "yarn"
        && arguments.iter().all(|word| !matches!(*word, "--version" | "--help"));
    let is_kept_out = filling
        .option
        .is_some_and(|option| arguments.iter().any(|word| word.starts_with(option)));
    let is_filling = verb.is_some_and(|verb| {
        // `conda env list` and its like fill nothing.
        let is_of_environments = *verb != "env" || arguments.iter().any(|word| matches!(*word, "create" | "update"));
        filling.verbs.contains(verb) && is_of_environments
    });
    (is_default || is_filling) && !is_kept_out
}

/// The options by which the first yarn is known: a newer one keeps packages in its cache that the program needs.
const OF_FIRST_YARN: [&str; 6] = [
    "--frozen-lockfile",
    "--pure-lockfile",
    "--non-interactive",
    "--production",
    "--prod",
    "global",
];

/// The words that empty the cache which a command filled: by the same program, as it is called there, and by the same user.
fn cleaning_of(command: &ShellCommand, mend: &str) -> Option<String> {
    let text = |word: &super::shell_script::ShellWord| word.text.clone();
    let program = command.words.iter().map(text).find(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        name == command.program()
    })?;
    let is_yarn = command.program() == "yarn";
    if is_yarn
        && !command
            .arguments()
            .iter()
            .any(|word| OF_FIRST_YARN.contains(&word.text.as_str()))
    {
        return None;
    }
    let (first, rest) = mend.split_once(' ')?;
    let cleaning = if first == "rm" {
        mend.to_owned()
    } else {
        format!("{program} {rest}")
    };
    let is_sudo = command.words.iter().any(|word| word.text == "sudo");
    Some(if is_sudo { format!("sudo {cleaning}") } else { cleaning })
}

/// Whether a later command of the RUN empties the cache.
fn empties(command: &ShellCommand, cache: &Cache, filling: &Filling) -> bool {
    let deletes = matches!(command.program(), "rm" | "find")
        && command
            .arguments()
            .iter()
            .any(|word| cache.is_emptied_by_deleting(&word.text));
    let cleans = filling.cleaning.is_some_and(|words| {
        let (program, rest) = words.split_first().unwrap_or((&"", &[]));
        let is_it = command.program() == *program || filling.programs.contains(&command.program());
        is_it && rest.iter().all(|word| command.has(word))
    });
    deletes || cleans
}

/// Whether a variable is set where this RUN's commands see it: before it, or by one of them.
fn is_set(subject: &Subject<'_>, run: &RunStep<'_>, variable: &str) -> bool {
    let assignment = format!("{variable}=");
    let mut words = run.commands.iter().flat_map(|command| &command.words);
    subject.sets_variable(run.step, variable) || words.any(|word| word.text.starts_with(&assignment))
}

/// Whether a mount keeps the cache out of the image: it may lie elsewhere in another user's home.
fn is_mounted(run: &RunStep<'_>, filling: &Filling) -> bool {
    let name = filling.mount.rsplit('/').next().unwrap_or_default();
    let mounts = run.mounts("cache").into_iter().chain(run.mounts("tmpfs"));
    mounts.into_iter().any(|target| {
        let is_around = filling.mount.starts_with(&target) && !target.is_empty();
        is_around || target.starts_with(filling.mount) || target.ends_with(&format!("/{name}"))
    })
}

fn stays(subject: &Subject<'_>, program: &str) -> Vec<Remark> {
    let Some((cache, filling)) = caches::filled_by(program) else {
        return Vec::new();
    };
    let mut remarks = Vec::new();
    for run in subject.runs.iter().filter(|run| subject.is_in_image(run.step)) {
        let Some(at) = run.commands.iter().position(|command| fills(command, filling)) else {
            continue;
        };
        // An update without anything else is another rule's matter.
        let is_lone_update = cache.what.starts_with("apt") && run.commands.len() == 1;
        let is_off = filling.variable.is_some_and(|variable| is_set(subject, run, variable));
        // What empties it counts after the last command that fills it.
        let last = run.commands.iter().rposition(|command| fills(command, filling));
        let mut after = run.commands.iter().skip(last.unwrap_or(at) + 1);
        let is_emptied = after.any(|command| empties(command, cache, filling));
        if is_lone_update || is_off || is_emptied || is_mounted(run, filling) {
            continue;
        }
        let stay = if cache.what.ends_with('s') { "stay" } else { "stays" };
        let message = format!("{} {stay} in the image", cache.what);
        let remark = Remark::of(run.step, message, "everybody who pulls the image downloads it");
        let user = later_user(subject, run, |_| false).filter(|_| cache.what.starts_with("apt"));
        if let Some(user) = user {
            remarks.push(remark.advise(format!(
                "line {} runs {}, which may install from them: let it begin with apt-get update && if it does, then end this RUN with && rm -rf \
                 /var/lib/apt/lists/*",
                user.line, user.program
            )));
            continue;
        }
        let mut remark = mended(remark, subject, run, at, cache, filling);
        if !remark.edits.is_empty() {
            // The lines say it.
            remark.advice = None;
        }
        remarks.push(remark);
    }
    remarks
}

/// The remark with the lines to write, or what to do where they can't be told.
fn mended(
    remark: Remark,
    subject: &Subject<'_>,
    run: &RunStep<'_>,
    at: usize,
    cache: &Cache,
    filling: &Filling,
) -> Remark {
    let Some(command) = run.commands.get(at) else {
        return remark.advise(cache.mend);
    };
    // An option is the least change, then a command at the end, then a mount.
    if let Some(option) = filling.option.filter(|_| cache.mend.contains(option_of(filling))) {
        // With the option, apk reads the index anew: an update before it is for nothing.
        let is_needless = |at: usize, command: &ShellCommand| {
            let is_update = command.program() == "apk" && command.verb().is_some_and(|(_, verb)| verb.text == "update");
            let next = run
                .commands
                .get(at + 1)
                .filter(|next| next.program() == "apk" && next.has("add"));
            let is_joined = command.joint == Joint::And && !command.is_nested && command.outermost.is_some();
            next.filter(|_| is_update && is_joined)
        };
        let fillers = run.commands.iter().enumerate();
        let fillers = fillers
            .filter(|(at, command)| fills(command, filling) || is_needless(*at, command).is_some())
            .filter(|_| run.is_shell());
        let edits = fillers.fold(remark, |remark, (at, command)| {
            if let Some(next) = is_needless(at, command) {
                return remark.replace(command.bytes.start..next.bytes.start, "");
            }
            let verb = command
                .arguments()
                .iter()
                .find(|word| filling.verbs.contains(&word.text.as_str()));
            match verb {
                Some(verb) => remark.insert(verb.bytes.end, format!(" {option}")),
                None => remark,
            }
        });
        return edits.advise(match subject.is_of_root(run.step) {
            true => cache.mend.to_owned(),
            false => format!("use {} {option} in that RUN", command.program()),
        });
    }
    if let Some((_, mend)) = cache.mend.split_once("end that RUN with && ") {
        let Some(cleaning) = cleaning_of(command, mend) else {
            return remark.advise(
                "yarn 1: end that RUN with && yarn cache clean; a newer yarn: enableGlobalCache: true in .yarnrc.yml, and a cache mount \
                 for its directory",
            );
        };
        let remark = remark.advise(format!("end that RUN with && {cleaning}"));
        return match run.end().filter(|_| run.is_shell()) {
            Some(end) => remark.insert(end, run.addition(&cleaning)),
            None => remark,
        };
    }
    if filling.places.iter().any(|variable| is_set(subject, run, variable)) {
        return remark.advise(
            "begin that RUN with --mount=type=cache,target=DIRECTORY, with the directory that its variable names",
        );
    }
    if !subject.is_of_root(run.step) {
        let below = filling.mount.strip_prefix("/root").unwrap_or(filling.mount);
        return remark.advise(format!(
            "begin that RUN with --mount=type=cache,target=HOME{below},uid=UID,gid=GID, with the home and the numbers of the user who runs it"
        ));
    }
    remark.advise(cache.mend).insert(
        run.step.place(run.step.rest),
        format!("--mount=type=cache,target={} ", filling.mount),
    )
}

fn option_of(filling: &Filling) -> &'static str {
    filling.option.unwrap_or("\0")
}
