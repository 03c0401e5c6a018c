//! BuildKit's rules about how a Dockerfile is written.

use std::collections::BTreeSet;

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::subject::Subject;
use super::variables::{self, OF_PLATFORMS, uses};
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::naming::nearest;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ConsistentInstructionCasing",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "Instructions are written in different cases",
        why: "It is read more easily in one.",
        bad: "FROM debian:13-slim\nrun mkdir /srv/app\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app\n",
        check: casing,
    },
    Rule {
        name: "NoEmptyContinuation",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "An empty line inside an instruction",
        why: "Builders accept it, and warn that one day they will not. A comment may stand there.",
        bad: "FROM debian:13-slim\nRUN mkdir /srv/app && \\\n\n    chmod 700 /srv/app\n",
        good: "FROM debian:13-slim\nRUN mkdir /srv/app && \\\n    chmod 700 /srv/app\n",
        check: empty_lines,
    },
    Rule {
        name: "WorkdirRelativePath",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "The first WORKDIR is relative",
        why: "It lies below the directory of the base then, which may be another one in its next version.",
        bad: "FROM debian:13-slim\nWORKDIR app\n",
        good: "FROM debian:13-slim\nWORKDIR /app\n",
        check: relative_directory,
    },
    Rule {
        name: "UndefinedVar",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "A variable is used that nothing defines",
        why: "It is empty. Variables that a base image defines are known to the engine alone: without it, this is said only of images from \
              `scratch`, and where the name is nearly that of a variable which is defined.",
        bad: "FROM debian:13-slim\nENV APP_HOME=/srv/app\nWORKDIR $APP_HOMW\n",
        good: "FROM debian:13-slim\nENV APP_HOME=/srv/app\nWORKDIR $APP_HOME\n",
        check: undefined,
    },
    Rule {
        name: "LegacyKeyValueFormat",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "`ENV name value` without an equals sign",
        why: "Only one variable fits into a line then: all that follows its name is the value. A second `NAME value` after it becomes a part \
              of the first one's value, without a word.",
        bad: "FROM debian:13-slim\nENV LANG C.UTF-8\n",
        good: "FROM debian:13-slim\nENV LANG=C.UTF-8\n",
        check: legacy_pairs,
    },
    Rule {
        name: "ExposeProtoCasing",
        severity: Severity::Note,
        is_of_buildkit: true,
        title: "A protocol in EXPOSE has capital letters",
        why: "The protocols are `tcp` and `udp`.",
        bad: "FROM debian:13-slim\nEXPOSE 53/UDP\n",
        good: "FROM debian:13-slim\nEXPOSE 53/udp\n",
        check: protocol_casing,
    },
    Rule {
        name: "ExposeInvalidFormat",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "EXPOSE with an address or a port of the host",
        why: "EXPOSE only says on which ports the container listens. `ports = -p 8080:80` in the section publishes them.",
        bad: "FROM debian:13-slim\nEXPOSE 127.0.0.1:8080:80\n",
        good: "FROM debian:13-slim\nEXPOSE 80\n",
        check: expose_format,
    },
];

fn is_lower(text: &str) -> bool {
    text.to_lowercase() == text
}

fn is_upper(text: &str) -> bool {
    text.to_uppercase() == text
}

fn casing(subject: &Subject<'_>) -> Vec<Remark> {
    // An ARG before the first FROM is of no stage, and BuildKit does not count it.
    let steps: Vec<&SourceInstruction> = subject
        .source
        .instructions
        .iter()
        .filter(|step| step.stage.is_some())
        .collect();
    let lower = steps.iter().filter(|step| is_lower(&step.written)).count();
    let upper = steps
        .iter()
        .filter(|step| !is_lower(&step.written) && is_upper(&step.written))
        .count();
    let is_lower_right = lower > upper;
    let mut remarks = Vec::new();
    for step in steps {
        let is_right = if is_lower_right {
            is_lower(&step.written)
        } else {
            is_upper(&step.written)
        };
        if !is_right {
            let (case, right) = match is_lower_right {
                true => ("lowercase", step.written.to_lowercase()),
                false => ("uppercase", step.written.to_uppercase()),
            };
            let message = format!(
                "Command '{}' should match the case of the command majority ({case})",
                step.written
            );
            let keyword = step.place(0)..step.place(0) + step.written.len();
            remarks.push(Remark::of(step, message, "it is harder to read").replace(keyword, right));
        }
    }
    remarks
}

fn empty_lines(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject
        .source
        .instructions
        .iter()
        .filter(|step| step.has_empty_continuation)
    {
        let mut remark = Remark::of(step, "Empty continuation line", "a later builder refuses it");
        // BuildKit notes it where the lines that are joined end.
        let joined = subject.source.line_at(step.place(step.text.len().saturating_sub(1)));
        remark.lines = (joined, joined);
        let last = step.bodies.first().map_or(usize::MAX, |body| body.start);
        for line in step.line..=step.end {
            let begin = subject.source.start_of(line);
            if begin < last && subject.source.lines(line, line).trim().is_empty() {
                remark = remark.replace(begin..subject.source.start_of(line + 1), "");
            }
        }
        remarks.push(remark);
    }
    remarks
}

fn relative_directory(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for stage in 0..subject.file.stages.len() {
        let below = subject.stages_below(stage);
        let is_set = below
            .iter()
            .skip(1)
            .any(|stage| subject.source.of_stage(*stage).any(|step| step.keyword == "workdir"));
        let first = subject.source.of_stage(stage).find(|step| step.keyword == "workdir");
        let Some(step) = first.filter(|_| !is_set) else {
            continue;
        };
        let path = step.arguments();
        let bare = path.trim_matches(['"', '\'']);
        // A path of Windows, or a variable, may be absolute.
        if bare.starts_with(['/', '\\', '$']) || bare.get(1..2) == Some(":") {
            continue;
        }
        let message = format!("Relative workdir {bare:?} can have unexpected results if the base image changes");
        let remark = Remark::of(step, message, "files that lie elsewhere after the base's next version");
        let bytes = step.span(step.rest..step.rest + path.len());
        remarks.push(remark.replace(bytes, format!("/{bare}")));
    }
    remarks
}

/// Instructions in which variables are replaced.
const EXPANDING: [&str; 9] = [
    "add",
    "copy",
    "env",
    "expose",
    "label",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// The first word in which the builder can't replace variables: its line, and why.
pub(super) fn refused(subject: &Subject<'_>) -> Option<(usize, String)> {
    let steps = subject.source.instructions.iter();
    let mut steps = steps
        .filter(|step| EXPANDING.contains(&step.keyword.as_str()) || matches!(step.keyword.as_str(), "from" | "arg"));
    steps.find_map(|step| {
        let escape = subject.source.escape;
        let words: Vec<String> = match step.keyword.as_str() {
            "env" | "label" | "arg" => step.pairs(escape).into_iter().filter_map(|(_, value)| value).collect(),
            "user" | "stopsignal" | "workdir" => vec![step.arguments().to_owned()],
            _ if step.json.is_some() => step.json.clone().unwrap_or_default(),
            _ => step.words().into_iter().map(|(_, word)| word.to_owned()).collect(),
        };
        let why = words.iter().find_map(|word| variables::refused(word, escape))?;
        Some((step.line, why))
    })
}

/// So many names that are not set are compared with those that are: a file of others decides how many there are.
const COMPARED: usize = 500;

fn undefined(subject: &Subject<'_>) -> Vec<Remark> {
    const KNOWN: [&str; 9] = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "FTP_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "PATH",
    ];
    let mut remarks = Vec::new();
    let steps = subject
        .source
        .instructions
        .iter()
        .filter(|step| EXPANDING.contains(&step.keyword.as_str()));
    let mut compared = 0;
    for step in steps.filter(|step| step.stage.is_some() && step.bodies.is_empty()) {
        let mut seen: BTreeSet<String> = BTreeSet::new();
        for used in uses(step.arguments(), subject.source.escape) {
            let name = used.name;
            let is_given = subject.options.build_args.contains_key(&name);
            if used.has_default
                || is_given
                || OF_PLATFORMS.contains(&name.as_str())
                || KNOWN.contains(&name.as_str())
                || seen.contains(&name)
                || subject.sets_variable(step, &name)
            {
                continue;
            }
            let stages = step.stage.map(|stage| subject.stages_below(stage)).unwrap_or_default();
            let others = match compared < COMPARED {
                true => subject.variables(step),
                false => Vec::new(),
            };
            compared += 1;
            let near = nearest(&name, others).filter(|_| name.len() > 3);
            let lowest = stages.last().and_then(|stage| subject.file.stages.get(*stage));
            let is_from_nothing = lowest.is_some_and(|stage| stage.base.as_deref() == Some("scratch"));
            if near.is_none() && !is_from_nothing {
                continue;
            }
            let suggestion = near.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            let mut remark = Remark::of(
                step,
                format!("Usage of undefined variable '${name}'{suggestion}"),
                "it is empty",
            );
            if let Some(near) = near {
                for (at, _) in step.text.match_indices(&name).filter(|(at, _)| *at >= step.rest) {
                    let before = step.text.get(..at).unwrap_or_default();
                    if before.ends_with('$') || before.ends_with("${") {
                        remark = remark.replace(step.span(at..at + name.len()), near);
                    }
                }
            }
            remarks.push(remark);
            seen.insert(name);
        }
    }
    remarks
}

fn legacy_pairs(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject
        .source
        .instructions
        .iter()
        .filter(|step| step.is_legacy_pair(subject.source.escape))
    {
        let keyword = step.keyword.to_uppercase();
        let message =
            format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
        let remark = Remark::of(
            step,
            message,
            "all of the line after the name is its value, a second name, too",
        );
        let bytes = step.span(step.rest..step.rest + step.arguments().len());
        let remark = match step.legacy_pair_as_new(subject.source.escape) {
            Some(pair) => remark.replace(bytes, pair),
            None => remark.advise(format!(
                "write {keyword} NAME=VALUE, with VALUE in double quotes, and one for each name that was meant"
            )),
        };
        remarks.push(remark);
    }
    remarks
}

fn protocol_casing(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("expose") {
        for (bytes, port) in step.words() {
            if let Some((number, protocol)) = port.split_once('/')
                && !is_lower(protocol)
                && !protocol.contains('$')
            {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                let remark = Remark::of(step, message, "a name that other tools do not know");
                remarks.push(remark.replace(bytes, format!("{number}/{}", protocol.to_lowercase())));
            }
        }
    }
    remarks
}

fn expose_format(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("expose") {
        for (bytes, port) in step.words() {
            if port.contains(':') && !port.contains('$') {
                let message =
                    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
                let own = port.rsplit(':').next().unwrap_or(port).to_owned();
                let remark = Remark::of(step, message, "the address and the host's port have no effect");
                remarks.push(remark.replace(bytes, own));
            }
        }
    }
    remarks
}
