//! Rules about what must not be in an image, because everybody who has the image can read it.

use std::ops::Range;

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script::{Joint, ShellCommand};
use super::subject::{RunStep, Subject};
use super::variables::{is_plain_run, mentions, names_variable, uses};
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::output::visible;
use build_context::Patterns;
use build_context::weight::ignore_line;

/// Parts of names of variables that hold secrets, as BuildKit has them.
const SECRET_PARTS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// Parts with which such a name holds no secret, as BuildKit has them.
const OPEN_PARTS: [&str; 3] = ["public", "file", "version"];

/// Names of files that hold secrets.
const SECRET_FILES: [&str; 22] = [
    ".env",
    ".envrc",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".my.cnf",
    ".git-credentials",
    ".dockercfg",
    ".htpasswd",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials.json",
    "service-account.json",
    "secrets.yml",
    "secrets.yaml",
    "secrets.json",
    "kubeconfig",
    ".vault-token",
];
/// Their ends.
const SECRET_ENDS: [&str; 7] = [".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx"];
/// Directories of secrets.
const SECRET_FOLDERS: [&str; 5] = [".ssh", ".aws", ".gnupg", ".kube", ".docker"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "SecretsUsedInArgOrEnv",
        severity: Severity::Serious,
        is_of_buildkit: true,
        title: "A secret in ARG or ENV",
        why: "The value is in the image's history or configuration: `docker history` and `docker inspect` show it to everybody who has \
              the image. A secret mount is there while a step runs, and nowhere else. A value that is plainly a placeholder, empty, or the path \
              of a file, is a note.",
        bad: "FROM debian:13-slim\nARG API_TOKEN\nRUN fetch --token=\"$API_TOKEN\"\n",
        good: "FROM debian:13-slim\nRUN --mount=type=secret,id=api_token,env=API_TOKEN fetch --token=\"$API_TOKEN\"\n",
        check: in_variables,
    },
    Rule {
        name: "SecretInConfiguration",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "ENV or LABEL has the value of a secret ARG",
        why: "The image's configuration has the value then, whatever the name is: `docker inspect` shows it to everybody who has the image.",
        bad: "# check=skip=SecretsUsedInArgOrEnv\nFROM debian:13-slim\nARG NPM_TOKEN\nENV REGISTRY=https://:$NPM_TOKEN@example.org/\n",
        good: "FROM debian:13-slim\nRUN --mount=type=secret,id=npm_token,env=NPM_TOKEN fetch \"https://:$NPM_TOKEN@example.org/\"\n",
        check: in_values,
    },
    Rule {
        name: "SecretFileCopied",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "A file of secrets is copied into the image",
        why: "It stays in the layer, even if a later step deletes it. That goes for `.env`, keys, `.netrc`, `.npmrc` and their like, and for \
              a whole context in which they are, but for what `--exclude` leaves out; not for public keys and certificates. A secret mount is there while a step runs, and nowhere else.",
        bad: "FROM node:22-slim\nCOPY .npmrc /root/.npmrc\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
        good: "FROM node:22-slim\nRUN --mount=type=cache,target=/root/.npm --mount=type=secret,id=npmrc,target=/root/.npmrc npm ci\n",
        check: in_files,
    },
    Rule {
        name: "SecretInRun",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "A password in a RUN",
        why: "The text of a RUN is in the image's history, for everybody who has the image, and in the repository of the Dockerfile. That goes \
              for a login in an address, `curl -u`, `mysql -p`, `--password=`, a header, a variable, and what is piped into `chpasswd`. \
              Placeholders such as `dummy` and `changeme` do not count.",
        bad: "FROM debian:13-slim\nRUN git clone https://ann:s3cret@example.org/app.git\n",
        good: "FROM debian:13-slim\nRUN --mount=type=secret,id=netrc,target=/root/.netrc git clone https://example.org/app.git\n",
        check: in_runs,
    },
];

/// ENV and LABEL with the value of a secret ARG, under a name that tells nothing.
fn in_values(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.source.instructions.iter() {
        if !matches!(step.keyword.as_str(), "env" | "label") {
            continue;
        }
        for (name, value) in step.pairs(subject.source.escape) {
            let value = value.unwrap_or_default();
            let used = uses(&value, subject.source.escape).into_iter().map(|used| used.name);
            // BuildKit's rule tells it of the name.
            let is_said = step.keyword == "env" && is_secret_name(&name);
            let Some(secret) = used
                .into_iter()
                .find(|used| is_secret_name(used) && subject.declares(step, used))
                .filter(|_| !is_said)
            else {
                continue;
            };
            let keyword = step.keyword.to_uppercase();
            let remark = Remark::of(
                step,
                format!("{keyword} {name} has the value of the secret {secret}"),
                "it is in the image's configuration: docker inspect shows it to everybody who has the image",
            );
            let id = secret.to_lowercase();
            remarks.push(remark.advise(format!(
                "delete it; a step of the build that needs it gets it by RUN --mount=type=secret,id={id},env={name} ..., with \
                 build_args = --secret id={id},env={secret} in the section of docker/dockerutils.cfg"
            )));
        }
    }
    remarks
}

/// Whether a variable of this name holds a secret, as BuildKit sees it.
pub(super) fn is_secret_name(name: &str) -> bool {
    let is_part = |parts: &[&str]| {
        name.split('_')
            .any(|part| parts.iter().any(|other| part.eq_ignore_ascii_case(other)))
    };
    is_part(&SECRET_PARTS) && !is_part(&OPEN_PARTS)
}

/// Whether a file of this path holds secrets.
pub(super) fn is_secret_file(path: &str) -> bool {
    let path = path.trim_matches(['"', '\'']).trim_end_matches('/');
    let mut names = path.split('/').rev();
    let name = names.next().unwrap_or_default();
    let parts: Vec<String> = name.split(['.', '-', '_']).map(str::to_lowercase).collect();
    let has = |words: &[&str]| parts.iter().any(|part| words.contains(&part.as_str()));
    // The last part is the kind of the file: `apt.key` is no private key.
    let is_private = parts.split_last().is_some_and(|(_, before)| {
        before
            .iter()
            .any(|part| matches!(part.as_str(), "key" | "private" | "privkey" | "secret"))
    });
    let is_sample = has(&[
        "example", "sample", "template", "dist", "public", "pub", "pubkey", "test", "tests",
    ]);
    let is_of_packages = has(&[
        "apt",
        "rpm",
        "gpg",
        "pgp",
        "signing",
        "release",
        "archive",
        "keyring",
        "repo",
        "repository",
    ]) && name.ends_with(".key");
    let is_certificate = name.ends_with(".pem")
        && has(&[
            "cert",
            "certs",
            "certificate",
            "certificates",
            "ca",
            "cacert",
            "chain",
            "fullchain",
            "bundle",
            "crt",
            "root",
            "rootca",
        ]);
    let is_open = is_sample || ((is_of_packages || is_certificate) && !is_private);
    let is_variant = name.starts_with(".env.");
    let is_named = SECRET_FILES.contains(&name)
        || is_variant
        || SECRET_ENDS
            .iter()
            .any(|end| name.len() > end.len() && name.ends_with(end));
    let is_in =
        SECRET_FOLDERS.contains(&name) || names.any(|folder| matches!(folder, ".ssh" | ".aws" | ".gnupg" | ".kube"));
    (is_named || is_in) && !is_open
}

/// So many secrets are looked for in all instructions: a file of others decides how many there are.
const SEARCHED: usize = 50;

fn in_variables(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let steps = subject
        .source
        .instructions
        .iter()
        .filter(|step| matches!(step.keyword.as_str(), "arg" | "env"));
    let mut searched = 0;
    // An ARG before the first FROM is of no image.
    for step in steps.filter(|step| step.stage.is_some()) {
        let pairs = step.pairs(subject.source.escape);
        for (name, value) in pairs.iter().filter(|(name, _)| is_secret_name(name)) {
            let keyword = step.keyword.to_uppercase();
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            let value = value.as_deref().unwrap_or_default();
            // BuildKit says it of the name alone.
            let is_of_container = keyword == "ENV" && (value.trim_matches(['"', '\'']).is_empty() || is_path(value));
            if is_placeholder(value) || is_of_container {
                let remark = Remark::of(
                    step,
                    message,
                    "a real value in its place would be in the image for everybody",
                );
                remarks.push(remark.of_severity(Severity::Note).advise(
                    "if the value is no secret, leave it, and write # check=skip=SecretsUsedInArgOrEnv at the beginning",
                ));
                continue;
            }
            let remark = Remark::of(
                step,
                message,
                "everybody who has the image can read the value: docker history shows it",
            );
            let id = name.to_lowercase();
            let is_simple = keyword == "ARG" && pairs.len() == 1 && value.is_empty() && searched < SEARCHED;
            let own = is_simple.then(|| subject.movable(step)).flatten();
            searched += usize::from(own.is_some());
            let users = own.as_ref().and_then(|_| secret_users(subject, step, name));
            remarks.push(match own.zip(users) {
                Some((own, users)) => {
                    let remark = remark.advise(format!(
                        "and in the section of docker/dockerutils.cfg: build_args = --secret id={id},env={name}"
                    ));
                    mounted_instead(remark, own, &users, &format!("id={id},env={name}"))
                }
                _ if keyword == "ENV" => remark.advise(format!(
                    "delete it; a step of the build that needs it gets it by RUN --mount=type=secret,id={id},env={name} ..., with \
                     build_args = --secret id={id},env={name} in the section of docker/dockerutils.cfg; and the container by \
                     environment = -e {name} there"
                )),
                _ => remark.advise(format!(
                    "delete it, and begin each RUN that needs it with --mount=type=secret,id={id},env={name}; in the section of \
                     docker/dockerutils.cfg: build_args = --secret id={id},env={name}"
                )),
            });
        }
    }
    remarks
}

/// The change that deletes what brings a secret, and has the RUNs that use it get it by a mount.
fn mounted_instead(remark: Remark, own: Range<usize>, users: &[&RunStep<'_>], secret: &str) -> Remark {
    users.iter().fold(remark.replace(own, ""), |remark, run| {
        remark.insert(run.step.place(run.step.rest), format!("--mount=type=secret,{secret} "))
    })
}

/// The RUNs that use a variable, if it is certain that nothing else does.
fn secret_users<'s>(subject: &'s Subject<'_>, step: &SourceInstruction, name: &str) -> Option<Vec<&'s RunStep<'s>>> {
    let is_declared = |other: &SourceInstruction| {
        other.keyword == "arg"
            && other
                .pairs(subject.source.escape)
                .iter()
                .any(|(other, _)| other == name)
    };
    let mut users = Vec::new();
    for other in subject
        .source
        .instructions
        .iter()
        .filter(|other| other.line != step.line)
    {
        let run = subject.run(other);
        let is_named = names_variable(subject.source.lines(other.line, other.end), name);
        let is_here = other.stage == step.stage && other.line > step.line;
        match run {
            Some(run) if is_here && is_given(run.step, name) => {}
            Some(run) if is_here && mentions(subject.written(run.step), name) => users.push(run),
            // A script may read it without a word.
            Some(run) if is_here && !is_named && is_plain_run(run) => {}
            Some(_) if !is_here && !is_named && !is_below(subject, other, step) => {}
            None if !is_named || (is_declared(other) && other.stage != step.stage) => {}
            _ => return None,
        }
    }
    (!users.is_empty()).then_some(users)
}

/// Whether an instruction is of a stage that starts from that of another.
fn is_below(subject: &Subject<'_>, step: &SourceInstruction, base: &SourceInstruction) -> bool {
    match (step.stage, base.stage) {
        (Some(stage), Some(base)) => stage != base && subject.stages_below(stage).contains(&base),
        _ => false,
    }
}

/// Whether a value is a placeholder that nobody keeps secret.
fn is_placeholder(value: &str) -> bool {
    const WORDS: [&str; 36] = [
        "api",
        "app",
        "db",
        "user",
        "my",
        "must",
        "be",
        "set",
        "changeme",
        "change",
        "me",
        "dummy",
        "placeholder",
        "example",
        "fake",
        "test",
        "testing",
        "none",
        "null",
        "todo",
        "xxx",
        "xxxx",
        "your",
        "here",
        "replace",
        "default",
        "not",
        "a",
        "real",
        "build",
        "unused",
        "precompile",
        "only",
        "for",
        "assets",
        "secret",
    ];
    const PLAIN: [&str; 13] = [
        "changeme",
        "change",
        "dummy",
        "placeholder",
        "example",
        "fake",
        "test",
        "none",
        "null",
        "todo",
        "your",
        "replace",
        "unused",
    ];
    let value = value.trim_matches(['"', '\'']).to_lowercase();
    let value = value.trim_matches(['<', '>', '*', '-', '_', '.']);
    let parts: Vec<&str> = value
        .split(['_', '-', ' ', '.'])
        .filter(|part| !part.is_empty())
        .collect();
    let is_known = |part: &str| WORDS.contains(&part) || is_secret_name(part);
    let is_certain = |part: &&str| PLAIN.contains(part) || part.chars().all(|c| c == 'x') && part.len() > 2;
    matches!(value, "1" | "0" | "true" | "false")
        || (parts.iter().any(is_certain) && parts.iter().all(|part| is_known(part)))
}

/// Whether a value is a path: of a file that has the secret.
fn is_path(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']);
    value.starts_with('/') && !value.contains(['=', '+', ' '])
}

/// Whether a RUN has a secret by a mount.
fn is_given(step: &SourceInstruction, name: &str) -> bool {
    step.flags_named("mount")
        .any(|mount| mount.split(',').any(|part| part == format!("env={name}")))
}

fn in_files(subject: &Subject<'_>) -> Vec<Remark> {
    const COSTS: &str = "it is in the layer for everybody who has the image, even if a later step deletes it";
    let mut remarks = Vec::new();
    for step in subject.source.instructions.iter().filter(|step| step.is_copy()) {
        // What comes from another stage is not of this machine.
        if step.flag("from").is_some() || !step.bodies.is_empty() {
            continue;
        }
        let words: Vec<String> = match &step.json {
            Some(words) => words.clone(),
            None => step.words().into_iter().map(|(_, word)| word.to_owned()).collect(),
        };
        let Some((target, sources)) = words.split_last() else {
            continue;
        };
        // Keys by which packages are checked are public.
        let is_keyring = [
            "/keyrings",
            "/trusted.gpg",
            "/rpm-gpg",
            "/apk/keys",
            "/ca-certificates",
            "/ssl/certs",
        ]
        .iter()
        .any(|part| target.contains(part));
        for source in sources.iter().filter(|source| is_secret_file(source) && !is_keyring) {
            let remark = Remark::of(step, format!("{source} is copied into the image"), COSTS);
            let movable = subject.movable(step);
            remarks.push(match (sources, movable.zip(mounted(subject, step, source, target))) {
                ([_], Some((own, (id, path, users)))) => {
                    let remark = remark.advise(format!(
                        "and in the section of docker/dockerutils.cfg: build_args = --secret id={id},src={source}"
                    ));
                    mounted_instead(remark, own, &users, &format!("id={id},target={path}"))
                }
                _ => {
                    let id = secret_id(source);
                    remark.advise(format!(
                        "delete it here; a step of the build that reads it gets it by RUN --mount=type=secret,id={id},target=PATH ... (with \
                         uid=UID where another user than root runs it), and build_args = --secret id={id},src={source} in the section \
                         of docker/dockerutils.cfg; the container by volumes or environment there"
                    ))
                }
            });
        }
        let is_excluded = |path: &str| excludes(step, path);
        if sources.iter().any(|source| is_whole_context(source)) {
            let secrets = subject.facts.context.secrets.iter().filter(|path| !is_excluded(path));
            for path in secrets {
                let shown = visible(path);
                let remark = Remark::of(
                    step,
                    format!("{shown} is in the context, and copied into the image with it"),
                    COSTS,
                );
                remarks.push(remark.advise(match shown == *path {
                    true => format!("put this line into .dockerignore: {}", ignore_line(path.as_bytes())),
                    false => "give it another name: a line for .dockerignore can't be shown, as there are characters in this path that \
                              can't be"
                        .to_owned(),
                }));
            }
        }
    }
    remarks
}

/// The id of a secret mount for a file.
fn secret_id(source: &str) -> String {
    let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name.trim_start_matches(['.', '_']).to_lowercase()
}

/// Files of logins, and the programs that read them while they install.
const READERS: [(&str, &[&str]); 4] = [
    (".npmrc", &["npm", "npx", "pnpm", "yarn"]),
    (".netrc", &["git", "curl", "pip", "pip3", "uv", "go", "poetry"]),
    (".pypirc", &["twine"]),
    (".git-credentials", &["git"]),
];

/// The id, the path, and the RUNs that read a file of logins which is copied: if all of that is certain.
fn mounted<'s>(
    subject: &'s Subject<'_>,
    step: &SourceInstruction,
    source: &str,
    target: &str,
) -> Option<(String, String, Vec<&'s RunStep<'s>>)> {
    let name = source.rsplit('/').next().unwrap_or_default();
    let (_, programs) = READERS.iter().find(|(file, _)| *file == name)?;
    let is_written = |word: &str| !word.contains(['$', '"', '\'', '*', '?', '[', ',', ' ']);
    let is_folder = target.ends_with('/') || matches!(target, "." | "..") || !target.ends_with(name);
    if !is_written(source) || !is_written(target) || target.split('/').any(|part| part == "..") {
        return None;
    }
    let target = target.strip_prefix("./").unwrap_or(target).trim_end_matches(['/', '.']);
    // `.npmrc` ends with no dot, and `.` is the directory itself.
    let path = match (
        target.starts_with('/') || target.is_empty() && is_folder && step_is_at_root(step),
        subject.directory(step),
    ) {
        (true, _) => target.to_owned(),
        (false, Some(directory)) => format!("{}/{target}", directory.trim_end_matches('/')),
        (false, None) => return None,
    };
    let path = match is_folder {
        true => format!("{}/{name}", path.trim_end_matches('/')),
        false => path,
    };
    // Without a slash at its end, a target may be a file of that name.
    let is_sure = target_is_sure(step, name);
    let later = subject
        .runs
        .iter()
        .filter(|run| run.step.stage == step.stage && run.step.line > step.line);
    let mut users = Vec::new();
    for run in later {
        let text = subject.source.lines(run.step.line, run.step.end);
        let reads = run.commands.iter().any(|command| programs.contains(&command.program()));
        // One that deletes it, or reads it by its name, needs more than a mount.
        if text.contains(name) || !subject.is_of_root(run.step) || !(reads || is_plain_run(run)) {
            return None;
        }
        if reads {
            users.push(run);
        }
    }
    let is_last = step.stage.is_some_and(|stage| stage + 1 == subject.file.stages.len());
    (is_sure && is_last && !users.is_empty()).then(|| (secret_id(source), path, users))
}

/// Whether the target of a COPY is `/` itself.
fn step_is_at_root(step: &SourceInstruction) -> bool {
    step.words().last().is_some_and(|(_, target)| *target == "/")
}

/// Whether it is certain from how the target of a COPY is written where the file of this name will be.
fn target_is_sure(step: &SourceInstruction, name: &str) -> bool {
    step.words()
        .last()
        .is_some_and(|(_, target)| target.ends_with('/') || *target == "." || target.rsplit('/').next() == Some(name))
}

/// Whether a COPY leaves out a path of the context: by `--exclude`.
pub(super) fn excludes(step: &SourceInstruction, path: &str) -> bool {
    let patterns: Vec<&str> = step.flags_named("exclude").collect();
    let parsed = Patterns::parse(&patterns).ok();
    parsed.is_some_and(|patterns| patterns.matches(path.as_bytes()).unwrap_or(false))
}

/// Whether a source of COPY is all of the context.
pub(super) fn is_whole_context(source: &str) -> bool {
    matches!(source.trim_matches(['"', '\'']), "." | "./" | "/" | "*" | "./*")
}

fn in_runs(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        let commands = run.commands.iter().enumerate();
        let found = commands
            .filter_map(|(at, command)| password_in(command, run.commands.get(at + 1)))
            .next();
        let Some(what) = found else { continue };
        let remark = Remark::of(
            run.step,
            format!("{what} is in the text of a RUN"),
            "the image's history has it, and so has everybody who has the image or the repository",
        );
        remarks.push(remark.advise(
            "give it by a secret mount: RUN --mount=type=secret,id=NAME,env=NAME ..., and build_args = --secret id=NAME,env=NAME",
        ));
    }
    remarks
}

/// Programs of databases, whose `-p` has a password right after it.
const DATABASES: [&str; 8] = [
    "mysql",
    "mysqladmin",
    "mysqldump",
    "mysqlimport",
    "mariadb",
    "mariadb-admin",
    "mariadb-dump",
    "sshpass",
];

/// The password in the words of a command, if there is one.
fn password_in(command: &ShellCommand, next: Option<&ShellCommand>) -> Option<String> {
    let words: Vec<&str> = command.words.iter().map(|word| word.text.as_str()).collect();
    let plain = words.iter().find_map(|word| {
        password_of_address(word)
            .or_else(|| secret_set(word))
            .or_else(|| password_of_option(word))
            .or_else(|| login_of_header(word))
    });
    if plain.is_some() {
        return plain;
    }
    let program = command.program();
    let arguments: Vec<&str> = command.arguments().iter().map(|word| word.text.as_str()).collect();
    let goes_to = |other: &str| command.joint == Joint::Pipe && next.is_some_and(|next| next.program() == other);
    if matches!(program, "echo" | "printf") && goes_to("chpasswd") {
        let login = arguments.iter().find_map(|word| word.split_once(':'));
        return login
            .filter(|(user, password)| is_literal(user) && is_literal(password))
            .map(|(user, _)| format!("the password of {user}"));
    }
    if program == "curl" {
        let mut pairs = arguments.iter().zip(arguments.iter().skip(1));
        let after = pairs.find_map(|(option, value)| matches!(*option, "-u" | "--user").then_some(*value));
        let joined = arguments.iter().find_map(|word| {
            word.strip_prefix("--user=")
                .or_else(|| word.strip_prefix("-u"))
                .filter(|rest| !rest.is_empty())
        });
        let (user, password) = after.or(joined)?.split_once(':')?;
        return (is_literal(user) && is_literal(password) && !is_placeholder(password))
            .then(|| format!("the password of {user}"));
    }
    if DATABASES.contains(&program) {
        let password = arguments.iter().find_map(|word| word.strip_prefix("-p"))?;
        return (password.len() > 2 && is_literal(password) && !is_placeholder(password))
            .then(|| format!("the password for {program}"));
    }
    None
}

/// Whether a text stands for itself: no variable, no output of a command, nothing that is to be filled in.
fn is_literal(text: &str) -> bool {
    !text.is_empty() && !text.contains(['$', '`', '<', '{', '%']) && !text.chars().all(|c| matches!(c, '*' | '!'))
}

/// What `--password=value` tells.
fn password_of_option(word: &str) -> Option<String> {
    const OPTIONS: [&str; 6] = [
        "--password",
        "--passwd",
        "--http-password",
        "--ftp-password",
        "--proxy-password",
        "--pass",
    ];
    let (option, value) = word.split_once('=')?;
    let is_it = OPTIONS.contains(&option) && is_literal(value) && value.len() > 2;
    (is_it && !is_placeholder(value) && !value.starts_with(['/', '@'])).then(|| format!("the value of {option}"))
}

/// What `Authorization: Bearer value` tells.
fn login_of_header(word: &str) -> Option<String> {
    let begin = word.get(..14)?;
    let rest = word.get(14..)?;
    let (kind, value) = rest.trim_start().split_once(' ')?;
    let is_login = begin.eq_ignore_ascii_case("authorization:")
        && ["bearer", "basic", "token"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known));
    let value = value.trim();
    (is_login && value.len() > 3 && is_literal(value) && !is_placeholder(value))
        .then(|| "the value of an Authorization header".to_owned())
}

/// What a word with `://user:password@` tells.
fn password_of_address(word: &str) -> Option<String> {
    let (_, rest) = word.split_once("://")?;
    let (login, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (user, password) = login.split_once(':')?;
    (is_literal(password) && !is_placeholder(password)).then(|| format!("the password of {user}"))
}

/// What a word `TOKEN=value` tells.
fn secret_set(word: &str) -> Option<String> {
    let (name, value) = word.split_once('=')?;
    let is_name = name.len() > 2
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let is_secret = is_secret_name(name) || matches!(name, "PGPASSWORD" | "MYSQL_PWD" | "SSHPASS");
    let is_value = value.len() > 3 && is_literal(value) && !value.starts_with('/') && !is_placeholder(value);
    (is_name && is_value && is_secret).then(|| format!("the value of {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in [
            "API_TOKEN",
            "password",
            "KEY",
            "AWS_SECRET_ACCESS_KEY",
            "AUTH",
            "apikey",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "TOKENS",
            "KEYBOARD",
            "PUBLIC_KEY",
            "PASSWORD_FILE",
            "KEY_VERSION",
            "PATH",
            "MONKEY",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        for path in [
            ".env",
            "conf/.env.production",
            "id_rsa",
            "a/server.key",
            ".aws/credentials",
            ".ssh/",
            "x.pem",
            ".ssh",
            "ca-key.pem",
            "local.pem",
            "release-private.key",
        ] {
            assert!(is_secret_file(path), "{path}");
        }
        for path in [
            ".env.example",
            "ca-cert.pem",
            "key",
            "env",
            ".envoy",
            "id_rsa.pub",
            "monkey",
            "src/.key",
            "apt.key",
            "docker.gpg",
            "ca.pem",
            "server.crt",
            "nginx_signing.key",
            "fullchain.pem",
        ] {
            assert!(!is_secret_file(path), "{path}");
        }
    }

    #[test]
    fn passwords_in_texts_are_found_and_variables_are_not() {
        assert!(password_of_address("https://ann:pw@x/y").is_some());
        for word in ["https://$USER:$PW@x", "https://ann@x/y", "https://x/a:b@c", "x:y@z"] {
            assert!(password_of_address(word).is_none(), "{word}");
        }
        assert!(secret_set("API_TOKEN=abcdef").is_some());
        for word in ["API_TOKEN=$X", "TOKEN=", "PATH=/bin", "token=abcdef", "KEY_FILE=abcd"] {
            assert!(secret_set(word).is_none(), "{word}");
        }
        for value in [
            "dummy",
            "changeme",
            "change-me",
            "your_api_key_here",
            "XXXX",
            "1",
            "<token>",
            "placeholder",
            "\"test\"",
        ] {
            assert!(is_placeholder(value) || !is_literal(value), "{value}");
        }
        for value in ["s3cret", "hunter2", "letmein", "ghp_abc", "secret", "correct-horse"] {
            assert!(!is_placeholder(value) && is_literal(value), "{value}");
        }
    }
}
