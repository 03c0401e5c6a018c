//! Rules about who runs in a container.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script;
use super::subject::{RunStep, Subject, is_shell};
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::naming::canonical;

/// Programs of somebody who works or looks around in a container, and of steps that end at once: not services.
const TOOLS: &[&str] = &[
    "sh", "bash", "ash", "dash", "zsh", "fish", "cat", "chmod", "chown", "cp", "curl", "date", "echo", "env", "exit",
    "false", "find", "git", "grep", "head", "id", "ln", "ls", "make", "mkdir", "mv", "printf", "ps", "pwd", "pytest",
    "rm", "rmdir", "sed", "sleep", "sort", "tail", "tar", "test", "touch", "true", "tini", "uname", "wc", "wget",
    "which", "whoami",
];
/// Programs that ask a person what to do, where nothing is named for them to run.
const INTERPRETERS: [&str; 22] = [
    "bpython", "bun", "clojure", "deno", "erl", "ghci", "groovysh", "iex", "ipython", "irb", "jshell", "julia", "lua",
    "node", "ocaml", "perl", "php", "python", "R", "ruby", "scala", "sqlite3",
];
/// Programs that run one of a project, and write nothing themselves.
const RUNNING: [&str; 15] = [
    "bun",
    "daphne",
    "deno",
    "dotnet",
    "gunicorn",
    "hypercorn",
    "java",
    "node",
    "perl",
    "php",
    "python",
    "ruby",
    "tsx",
    "uvicorn",
    "waitress-serve",
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
          its nature gets no line: nginx, say, or a script, which may give up root itself. Nor does what may write files, or has them \
          below root's home: a volume, a directory for data or logs, an option that names a file, a program that nobody knows.",
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

/// The words that are started, the program as it is written: without what only starts it, such as a shell with a script, tini, env.
/// Empty if there are none, or nobody knows.
fn started_by(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    // Each round takes something away; nobody nests them deeper.
    for _ in 0..8 {
        let Some(first) = words.first() else {
            return Vec::new();
        };
        let name = base_name(first).to_owned();
        if is_shell(&name) {
            let is_script = |word: &String| word.starts_with('-') && !word.starts_with("--") && word.contains('c');
            let options = words.iter().skip(1).take_while(|word| word.starts_with('-')).count();
            let has_script = words.iter().skip(1).take(options).any(is_script);
            let rest: Vec<String> = words.iter().skip(1 + options).cloned().collect();
            words = match rest.first() {
                Some(script) if has_script => main_command(script),
                // A file that somebody's shell runs may be anything.
                _ => return words,
            };
        } else if STARTING.contains(&name.as_str()) {
            let is_before = |word: &&String| word.starts_with('-') || (name == "env" && word.contains('='));
            let skipped = match words.iter().position(|word| word == "--") {
                Some(end) => end + 1,
                None => 1 + words.iter().skip(1).take_while(is_before).count(),
            };
            words.drain(..skipped.min(words.len()));
        } else {
            return words;
        }
    }
    Vec::new()
}

/// A path's last part.
fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The name of the program that words start; empty if there is none, or nobody knows.
fn program_in(words: &[String]) -> String {
    let started = started_by(words);
    started
        .first()
        .map_or_else(String::new, |first| base_name(first).to_owned())
}

/// A program's name without the version in it: `python3.13` is `python`.
fn without_version(program: &str) -> &str {
    program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')
}

/// Whether a person types into it, or it only says something and ends.
fn is_of_people(words: &[String]) -> bool {
    let Some((first, rest)) = words.split_first() else {
        return false;
    };
    let program = without_version(base_name(first));
    let says = |word: &String| matches!(word.as_str(), "--help" | "--version" | "-V");
    let is_asking =
        INTERPRETERS.contains(&program) && rest.iter().all(|word| matches!(word.as_str(), "-i" | "-q" | "-a"));
    let is_console = matches!(
        rest.first().map(String::as_str),
        Some("console" | "shell" | "repl" | "test")
    ) && matches!(
        program,
        "rails" | "npm" | "yarn" | "pnpm" | "cargo" | "go" | "flask" | "deno"
    );
    is_asking || is_console || rest.iter().any(says)
}

/// Whether a shell does it itself: no program runs then.
fn is_of_shell(command: &str) -> bool {
    matches!(
        command,
        "" | "fi"
            | "done"
            | "esac"
            | "exit"
            | "["
            | "[["
            | "trap"
            | "cd"
            | "set"
            | "export"
            | "umask"
            | "ulimit"
            | "unset"
            | "source"
            | "."
    )
}

/// The words of the command of a script that stays: the last one, or what that only waits for.
fn main_command(script: &str) -> Vec<String> {
    let commands = shell_script::commands(script);
    let named = || {
        let all = commands.iter();
        all.filter(|command| !is_of_shell(command.program()))
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
        let words = command.words.iter().map(|word| word.text.as_str());
        let written = words.into_iter().find(|word| base_name(word) == command.program());
        [written.unwrap_or_default().to_owned()]
            .into_iter()
            .chain(command.arguments().iter().map(|word| word.text.clone()))
            .collect()
    })
    .unwrap_or_default()
}

/// The program that an exec or shell form starts.
pub(super) fn program_of(step: &SourceInstruction) -> String {
    program_in(&words_of(step))
}

/// What a container of the image runs.
struct Service<'s> {
    /// The instruction that says so.
    step: &'s SourceInstruction,
    /// All of its words.
    words: Vec<String>,
    /// The program's own.
    started: Vec<String>,
}

fn service<'s>(subject: &'s Subject<'_>) -> Option<Service<'s>> {
    let last = |keyword: &str| {
        let step = subject.image_steps().rfind(|step| step.keyword == keyword);
        step.filter(|step| !words_of(step).is_empty())
    };
    let of = |step, words: Vec<String>| Service {
        step,
        started: started_by(&words),
        words,
    };
    let cmd = last("cmd");
    let Some(entrypoint) = last("entrypoint") else {
        return cmd.map(|step| of(step, words_of(step)));
    };
    // Such as tini alone: the command follows. Else the command is its arguments.
    let mut words = words_of(entrypoint);
    let is_starter = program_in(&words).is_empty();
    let step = match cmd {
        Some(cmd) if entrypoint.json.is_some() => {
            words.extend(words_of(cmd));
            if is_starter { cmd } else { entrypoint }
        }
        _ => entrypoint,
    };
    Some(of(step, words))
}

/// Directories that a service writes to, by their names.
const WRITTEN: [&str; 26] = [
    "backup",
    "backups",
    "cache",
    "data",
    "database",
    "db",
    "download",
    "downloads",
    "instance",
    "lib",
    "log",
    "logs",
    "media",
    "output",
    "persist",
    "results",
    "run",
    "sessions",
    "spool",
    "state",
    "static",
    "storage",
    "tmp",
    "upload",
    "uploads",
    "var",
];

/// Whether a path is of root's home, or one of a directory that services write to.
fn is_roots_or_written(path: &str) -> bool {
    let is_below = |directory: &str| path == directory || path.starts_with(&format!("{directory}/"));
    ["/root", "/data", "/var", "/run", "~", "$HOME", "${HOME}"]
        .iter()
        .any(|directory| is_below(directory))
        || [".db", ".sqlite", ".sqlite3", ".log", ".pid", ".sock"]
            .iter()
            .any(|end| path.ends_with(end))
}

/// Words of a RUN that put what is installed into the home of who runs it.
const INTO_HOME: [&str; 10] = [
    "rustup",
    "nvm",
    "pipx",
    "uv tool",
    "uv python",
    "uv sync",
    "playwright",
    "poetry",
    "--user",
    "huggingface",
];

/// Why it is not sure that another user can run a service: what it may have to write, or what root alone can read. `None` if nothing
/// in the Dockerfile says that.
fn against(subject: &Subject<'_>, service: &Service<'_>) -> Option<String> {
    let (program, arguments) = service.started.split_first()?;
    let at = |step: &SourceInstruction| format!("line {}", step.line);
    // A script that does more than to start it.
    let script = service.words.iter().find(|word| word.contains(char::is_whitespace));
    if script.is_some_and(|script| shell_script::commands(script).len() > 1) {
        return Some(format!("{} runs more than one program", at(service.step)));
    }
    let name = without_version(base_name(program));
    let is_installed = ["/usr/bin/", "/usr/local/bin/", "/bin/"]
        .iter()
        .any(|directory| program.starts_with(directory));
    let is_of_image = program.starts_with('/') && !is_roots_or_written(program) && !program.starts_with("/home/");
    let is_copied = || {
        let mut copies = subject.image_steps().filter(|step| step.is_copy());
        copies.any(|step| {
            let target = step
                .words()
                .last()
                .map(|(_, word)| (*word).to_owned())
                .unwrap_or_default();
            ["/usr/local/bin", "/usr/bin", "/bin"]
                .iter()
                .any(|directory| target.starts_with(directory))
        })
    };
    // Busybox's serves files, and no more; one of the same name has logs.
    let base = subject
        .file
        .base_for(subject.options.target.as_deref())
        .unwrap_or_default();
    let is_plain = RUNNING.contains(&name) || (name == "httpd" && repository(base) == "busybox");
    let is_runner = is_plain && (is_installed || !program.contains('/'));
    let is_known = is_runner || is_of_image || (!program.contains('/') && is_copied());
    if !is_known {
        return Some(format!("nothing here says what {} writes", base_name(program)));
    }
    let writes = |word: &&String| {
        let (option, value) = word.split_once('=').unwrap_or((word, word));
        let is_option = word.starts_with('-')
            && [
                "pid",
                "log",
                "output",
                "data",
                "db",
                "dir",
                "store",
                "storage",
                "state",
                "cache",
                "upload",
                "config-dir",
            ]
            .iter()
            .any(|part| option.contains(part));
        is_option
            || *word == "-o"
            || *word == "-D"
            || is_roots_or_written(value)
            || matches!(
                base_name(word),
                "manage.py" | "artisan" | "rails" | "migrate" | "start" | "jupyter" | "notebook"
            )
    };
    if let Some(word) = arguments.iter().find(writes) {
        return Some(format!("{word} in {} says that it may write files", at(service.step)));
    }
    let mut directory = String::new();
    for step in subject.image_steps() {
        let text = step.arguments();
        match step.keyword.as_str() {
            "volume" => return Some(format!("{} is a volume, which it may write to", at(step))),
            "workdir" => {
                let path = text.trim_matches(['"', '\'']);
                directory = match path.starts_with('/') {
                    true => path.to_owned(),
                    false => format!("{directory}/{path}"),
                };
            }
            "env" => {
                let pairs = step.pairs(subject.source.escape);
                let is_written = |value: &str| is_roots_or_written(value) || value.contains("sqlite");
                let value = pairs.iter().find(|(_, value)| value.as_deref().is_some_and(is_written));
                if let Some((name, _)) = value {
                    return Some(format!("{} names files in {}", name, at(step)));
                }
            }
            _ => {}
        }
        // What only fills a cache is not needed.
        let text = text.replace("/root/.cache", "").replace("/root/.npm", "");
        let is_installing = matches!(step.keyword.as_str(), "run" | "copy" | "add" | "env");
        if is_installing && (text.contains("/root") || text.contains("~/") || text.contains("$HOME")) {
            return Some(format!("{} puts files below root's home", at(step)));
        }
        if step.keyword == "run" && INTO_HOME.iter().any(|part| text.contains(part)) {
            return Some(format!("{} may put files below root's home", at(step)));
        }
    }
    let is_below_root = directory == "/root" || directory.starts_with("/root/");
    if is_below_root || directory.contains('$') || directory.split('/').any(|part| WRITTEN.contains(&part)) {
        return Some(format!("it works in {directory}"));
    }
    let makes = |command: &shell_script::ShellCommand| {
        let names = |word: &shell_script::ShellWord| {
            word.text
                .split(['/', '{', ',', '}'])
                .any(|part| WRITTEN.contains(&part))
        };
        matches!(
            command.program(),
            "mkdir" | "install" | "touch" | "chown" | "chmod" | "mkfifo"
        ) && command.arguments().iter().any(names)
    };
    let runs = subject.runs.iter().filter(|run| subject.is_in_image(run.step));
    let mut making = runs.filter(|run| run.commands.iter().any(makes));
    making
        .next()
        .map(|run| format!("{} makes a directory that it may write to", at(run.step)))
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
    let Some(service) = service(subject).filter(|_| !subject.is_windows(stage)) else {
        return Vec::new();
    };
    let step = service.step;
    let program = service.started.first().map(|first| base_name(first).to_owned());
    let program = program.unwrap_or_default();
    let is_in = |names: &[&str]| names.contains(&program.as_str());
    if program.is_empty() || is_of_people(&service.started) || is_in(TOOLS) || is_in(&ROOTS_OWN) || is_in(&DROPPING) {
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
    if let Some(why) = against(subject, &service) {
        return vec![remark.advise(format!(
            "{why}: give what it writes to that user, by COPY --chown={name} or chown in a RUN, then write USER {name} after the last step \
             that needs root"
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
