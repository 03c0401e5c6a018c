//! Rules about who runs in a container.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script;
use super::subject::{RunStep, Subject, is_shell};
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::naming::canonical;

/// Programs of somebody who works or looks around in a container, and of steps that end at once: not services.
const TOOLS: [&str; 27] = [
    "sh", "bash", "ash", "dash", "zsh", "fish", "cat", "date", "echo", "env", "false", "head", "id", "ls", "make",
    "printf", "pwd", "pytest", "sleep", "tail", "test", "true", "tini", "uname", "wc", "which", "whoami",
];
/// Programs that are nothing without root: no other user can start a session, or a container.
const ROOTS_OWN: [&str; 7] = ["sshd", "cron", "crond", "systemd", "init", "dockerd", "containerd"];
/// Services that start as root, for a port or for others that they start, and give the work to other users themselves.
const GIVING_UP_ROOT: [&str; 14] = [
    "nginx",
    "supervisord",
    "apache2",
    "apache2ctl",
    "apachectl",
    "apache2-foreground",
    "httpd-foreground",
    "php-fpm",
    "dovecot",
    "postfix",
    "named",
    "vsftpd",
    "s6-svscan",
    "runsvdir",
];
/// Programs that start another one as another user.
const DROPPING: [&str; 9] = [
    "gosu",
    "su-exec",
    "setpriv",
    "runuser",
    "su",
    "chpst",
    "setuser",
    "s6-setuidgid",
    "sudo",
];
/// Programs that only start another one: their options go up to `--`, or to the first word.
const STARTING: [&str; 8] = [
    "tini",
    "tini-static",
    "dumb-init",
    "catatonit",
    "exec",
    "env",
    "nohup",
    "nice",
];
/// Commands that keep a script alive beside what it started.
const WAITING: [&str; 4] = ["tail", "wait", "sleep", "cat"];

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
/// Images that run as a user of their own.
const RUNNING_AS_USER: [&str; 13] = [
    "apache/airflow",
    "apache/kafka",
    "docker.elastic.co/elasticsearch/elasticsearch",
    "docker.elastic.co/kibana/kibana",
    "docker.elastic.co/logstash/logstash",
    "elasticsearch",
    "grafana/grafana",
    "jenkins/agent",
    "jenkins/jenkins",
    "mambaorg/micromamba",
    "memcached",
    "prom/prometheus",
    "solr",
];
/// Images whose own entrypoint starts the service as another user.
const WITH_DROPPING_ENTRYPOINT: [&str; 10] = [
    "cassandra",
    "couchdb",
    "mariadb",
    "mongo",
    "mysql",
    "neo4j",
    "postgis/postgis",
    "postgres",
    "rabbitmq",
    "redis",
];
/// Images that have a user for what is run in them, and its name.
const USERS: [(&str, &str); 8] = [
    ("apache/airflow", "airflow"),
    ("denoland/deno", "deno"),
    ("elasticsearch", "elasticsearch"),
    ("docker.elastic.co/elasticsearch/elasticsearch", "elasticsearch"),
    ("jenkins/jenkins", "jenkins"),
    ("node", "node"),
    ("oven/bun", "bun"),
    ("solr", "solr"),
];
/// Nobody in particular: this number needs no user of that name.
const NOBODY: &str = "65534:65534";

pub(super) const RULES: &[Rule] = &[Rule {
    name: "RootUser",
    severity: Severity::Warning,
    is_of_buildkit: false,
    title: "A service runs as root",
    why: "Whoever breaks into it is root in the container: they can change all of it, and one fault of the kernel, or one mounted \
          directory, away from being root on the host. A number works without a user of that name. An image that only starts a shell or a \
          tool is not taken for a service, nor is one whose base runs as another user, or whose entrypoint gives up root. `USER` stands after the \
          last step that needs root; on images that have a user for this, such as `node`, it names that one. What starts as root by \
          its nature gets no line: nginx, say, or a script, which may give up root itself.",
    bad: "FROM python:3.13-slim\nCOPY app.py /app.py\nCMD [\"python\", \"/app.py\"]\n",
    good: "FROM python:3.13-slim\nCOPY app.py /app.py\nUSER 65534:65534\nCMD [\"python\", \"/app.py\"]\n",
    check: root,
}];

/// The words that an exec or shell form starts; a shell's, for the latter.
fn words_of(step: &SourceInstruction) -> Vec<String> {
    match &step.json {
        Some(words) => words.clone(),
        None if step.arguments().is_empty() => Vec::new(),
        None => ["/bin/sh", "-c", step.arguments()].map(str::to_owned).into(),
    }
}

/// The program that words start, without what only starts it: a shell with a script, tini, env. Empty if there is none, or nobody
/// knows.
fn program_in(words: &[String]) -> String {
    let mut words = words.to_vec();
    // Each round takes something away; nobody nests them deeper.
    for _ in 0..8 {
        let Some(first) = words.first() else {
            return String::new();
        };
        let name = first.rsplit('/').next().unwrap_or(first).to_owned();
        if is_shell(&name) {
            let is_script = |word: &String| word.starts_with('-') && !word.starts_with("--") && word.contains('c');
            let options = words.iter().skip(1).take_while(|word| word.starts_with('-')).count();
            let has_script = words.iter().skip(1).take(options).any(is_script);
            let rest: Vec<String> = words.iter().skip(1 + options).cloned().collect();
            words = match rest.first() {
                Some(script) if has_script => main_command(script),
                // A file that somebody's shell runs may be anything.
                _ => return name,
            };
        } else if STARTING.contains(&name.as_str()) {
            let is_before = |word: &&String| word.starts_with('-') || (name == "env" && word.contains('='));
            let skipped = match words.iter().position(|word| word == "--") {
                Some(end) => end + 1,
                None => 1 + words.iter().skip(1).take_while(is_before).count(),
            };
            words.drain(..skipped.min(words.len()));
        } else {
            return name;
        }
    }
    String::new()
}

/// The words of the command of a script that stays: the last one, or what that only waits for.
fn main_command(script: &str) -> Vec<String> {
    let commands = shell_script::commands(script);
    let named = || {
        let all = commands.iter();
        all.filter(|command| !matches!(command.program(), "" | "fi" | "done" | "esac" | "exit" | "[" | "[["))
    };
    let is_service =
        |command: &&shell_script::ShellCommand| !TOOLS.contains(&command.program()) && command.program() != "wait";
    let last = named().next_back();
    let waits = last.is_some_and(|last| WAITING.contains(&last.program()));
    let main = match waits {
        true => named().rfind(is_service).or(last),
        false => last,
    };
    main.map(|command| {
        let program = [command.program().to_owned()].into_iter();
        program
            .chain(command.arguments().iter().map(|word| word.text.clone()))
            .collect()
    })
    .unwrap_or_default()
}

/// The program that an exec or shell form starts.
pub(super) fn program_of(step: &SourceInstruction) -> String {
    program_in(&words_of(step))
}

/// The program that a container of the image runs, and the instruction that says so.
fn service<'s>(subject: &'s Subject<'_>) -> Option<(&'s SourceInstruction, String)> {
    let last = |keyword: &str| {
        let step = subject.image_steps().rfind(|step| step.keyword == keyword);
        step.filter(|step| !words_of(step).is_empty())
    };
    let cmd = last("cmd");
    let Some(entrypoint) = last("entrypoint") else {
        return cmd.map(|step| (step, program_of(step)));
    };
    // Such as tini alone: the command follows.
    let mut words = words_of(entrypoint);
    let own = program_in(&words);
    match (own.is_empty(), cmd) {
        (true, Some(cmd)) if entrypoint.json.is_some() => {
            words.extend(words_of(cmd));
            Some((cmd, program_in(&words)))
        }
        _ => Some((entrypoint, own)),
    }
}

/// The name of an image without its tag, as the tables have it.
fn repository(base: &str) -> String {
    let full = canonical(base);
    let full = full.split('@').next().unwrap_or_default();
    let bare = match full.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => full,
    };
    let bare = bare.strip_prefix("docker.io/").unwrap_or(bare);
    bare.strip_prefix("library/").unwrap_or(bare).to_owned()
}

fn root(subject: &Subject<'_>) -> Vec<Remark> {
    const COSTS: &str = "whoever breaks into it is root in the container";
    let Some(stage) = subject.chain.last().copied() else {
        return Vec::new();
    };
    let Some((step, program)) = service(subject).filter(|_| !subject.is_windows(stage)) else {
        return Vec::new();
    };
    let is_in = |names: &[&str]| names.contains(&program.as_str());
    if program.is_empty() || is_in(&TOOLS) || is_in(&ROOTS_OWN) || is_in(&DROPPING) {
        return Vec::new();
    }
    let base = subject
        .file
        .base_for(subject.options.target.as_deref())
        .unwrap_or_default();
    let repository = repository(base);
    let has_entrypoint = subject
        .image_steps()
        .any(|step| step.keyword == "entrypoint" && program != "docker-entrypoint.sh");
    if WITH_DROPPING_ENTRYPOINT.contains(&repository.as_str()) && !has_entrypoint {
        return Vec::new();
    }
    let user = subject.image_steps().rfind(|step| step.keyword == "user");
    match user {
        Some(user) => {
            let name = user.arguments().split(':').next().unwrap_or_default();
            if !matches!(name.trim_matches(['"', '\'']), "root" | "0") {
                return Vec::new();
            }
        }
        None => {
            let has_user = WITH_USER.iter().any(|part| base.contains(part))
                || RUNNING_AS_USER.contains(&repository.as_str())
                || subject.facts.with_user.contains(&canonical(base));
            if has_user {
                return Vec::new();
            }
        }
    }
    // What a script starts is not seen here; but a program that gives up root is not installed for nothing.
    let is_script = program.ends_with(".sh") || program.contains("entrypoint");
    let drops = |run: &RunStep<'_>| {
        ["gosu", "su-exec"]
            .iter()
            .any(|name| subject.written(run.step).contains(name))
    };
    if is_script && subject.runs.iter().any(drops) {
        return Vec::new();
    }
    let name = USERS
        .iter()
        .find(|(image, _)| *image == repository)
        .map_or(NOBODY, |(_, name)| *name);
    let remark = Remark::of(user.unwrap_or(step), format!("{program} runs as root"), COSTS);
    if is_script {
        return vec![remark.advise(format!(
            "write USER {name} after the last step that needs root; or let {program} start the service as another user, by setpriv or gosu"
        ))];
    }
    if is_in(&GIVING_UP_ROOT) {
        return vec![remark.advise(format!(
            "{program} starts as root and gives the work to other users: see in its configuration that it does, or use an image in which it \
             starts as another user"
        ))];
    }
    let remark = remark.advise(format!(
        "files that it writes must belong to that user: COPY --chown={name}"
    ));
    let needs_root = |step: &&SourceInstruction| {
        matches!(
            step.keyword.as_str(),
            "run" | "copy" | "add" | "workdir" | "volume" | "shell"
        )
    };
    let last = subject.source.of_stage(stage).rfind(needs_root);
    vec![match (user, last) {
        (Some(user), last) if user.stage == Some(stage) && last.is_none_or(|last| last.line < user.line) => {
            remark.replace(user.span(user.rest..user.rest + user.arguments().len()), name)
        }
        (_, Some(last)) => after(remark, subject, last, name),
        (_, None) if step.stage == Some(stage) => {
            remark.insert(subject.source.start_of(step.line), format!("USER {name}\n"))
        }
        (_, None) => match subject.source.of_stage(stage).next_back() {
            Some(last) => after(remark, subject, last, name),
            None => remark,
        },
    }]
}

/// The remark with a USER behind an instruction.
fn after(remark: Remark, subject: &Subject<'_>, step: &SourceInstruction, name: &str) -> Remark {
    let source = subject.source;
    let mut line = step.end + 1;
    let is_blank =
        |line: usize| source.start_of(line) < source.text.len() && source.lines(line, line).trim().is_empty();
    while is_blank(line) {
        line += 1;
    }
    let at = source.start_of(line);
    let is_open = at == source.text.len() && !source.text.ends_with('\n');
    match is_open {
        true => remark.insert(at, format!("\nUSER {name}")),
        false => remark.insert(at, format!("USER {name}\n")),
    }
}
