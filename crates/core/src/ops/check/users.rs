//! Rules about who runs in a container.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script;
use super::subject::Subject;
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::naming::canonical;

/// Programs of somebody who works or looks around in a container, and of steps that end at once: not services.
const TOOLS: [&str; 27] = [
    "sh", "bash", "ash", "dash", "zsh", "fish", "cat", "date", "echo", "env", "false", "head", "id", "ls", "make",
    "printf", "pwd", "pytest", "sleep", "tail", "test", "true", "tini", "uname", "wc", "which", "whoami",
];
/// Parts of names of images that run as somebody else already.
pub(super) const WITH_USER: [&str; 7] = [
    "nonroot",
    "unprivileged",
    "rootless",
    "jupyter/",
    "micromamba",
    "bitnami/",
    "chainguard/",
];

pub(super) const RULES: &[Rule] = &[Rule {
    name: "RootUser",
    severity: Severity::Warning,
    is_of_buildkit: false,
    title: "A service runs as root",
    why: "Whoever breaks into it is root in the container: they can change all of it, and one fault of the kernel, or one mounted \
          directory, away from being root on the host. A number works without a user of that name. An image that only starts a shell or a \
          tool is not taken for a service, nor is one whose base runs as another user by its name.",
    bad: "FROM python:3.13-slim\nCOPY app.py /app.py\nCMD [\"python\", \"/app.py\"]\n",
    good: "FROM python:3.13-slim\nCOPY app.py /app.py\nUSER 65534:65534\nCMD [\"python\", \"/app.py\"]\n",
    check: root,
}];

/// The program that an exec or shell form starts.
pub(super) fn program_of(step: &SourceInstruction) -> String {
    let name = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    match &step.json {
        Some(words) => words.first().map(|word| name(word)).unwrap_or_default(),
        None => shell_script::commands(step.arguments())
            .first()
            .map(|command| command.program().to_owned())
            .unwrap_or_default(),
    }
}

fn root(subject: &Subject<'_>) -> Vec<Remark> {
    const COSTS: &str = "whoever breaks into it is root in the container";
    let last = |keyword: &str| subject.image_steps().rfind(|step| step.keyword == keyword);
    let user = last("user");
    let started = last("entrypoint").or_else(|| last("cmd"));
    if let Some(step) = user {
        let name = step.arguments().split(':').next().unwrap_or_default();
        if !matches!(name.trim_matches(['"', '\'']), "root" | "0") {
            return Vec::new();
        }
        let is_tool = started.is_none_or(|step| TOOLS.contains(&program_of(step).as_str()));
        let remark = Remark::of(step, "the image runs as root", COSTS);
        // Without a service, it may be meant so: for a base of others.
        return match is_tool {
            true => Vec::new(),
            false => vec![remark.replace(step.span(step.rest..step.rest + step.arguments().len()), "65534:65534")],
        };
    }
    let base = subject
        .file
        .base_for(subject.options.target.as_deref())
        .unwrap_or_default();
    let has_user =
        WITH_USER.iter().any(|part| base.contains(part)) || subject.facts.with_user.contains(&canonical(base));
    let Some(step) = started.filter(|step| !has_user && !TOOLS.contains(&program_of(step).as_str())) else {
        return Vec::new();
    };
    if step.arguments().is_empty() || step.json.as_ref().is_some_and(Vec::is_empty) {
        return Vec::new();
    }
    let remark = Remark::of(step, format!("{} runs as root", program_of(step)), COSTS)
        .advise("files that it writes must belong to that user: COPY --chown=65534:65534");
    vec![remark.insert(subject.source.start_of(step.line), "USER 65534:65534\n")]
}
