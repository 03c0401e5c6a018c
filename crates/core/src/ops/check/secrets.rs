//! Rules about what must not be in an image, because everybody who has the image can read it.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::subject::Subject;
use super::variables::mentions;
use crate::docker::build::dockerfile::source::SourceInstruction;
use crate::output::visible;

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
              the image. A secret mount is there while a step runs, and nowhere else.",
        bad: "FROM debian:13-slim\nARG API_TOKEN\nRUN fetch --token=\"$API_TOKEN\"\n",
        good: "FROM debian:13-slim\nRUN --mount=type=secret,id=api_token,env=API_TOKEN fetch --token=\"$API_TOKEN\"\n",
        check: in_variables,
    },
    Rule {
        name: "SecretFileCopied",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "A file of secrets is copied into the image",
        why: "It stays in the layer, even if a later step deletes it. That goes for `.env`, keys, `.netrc`, `.npmrc` and their like, and for \
              a whole context in which they are. A secret mount is there while a step runs, and nowhere else.",
        bad: "FROM node:22-slim\nCOPY .npmrc /root/.npmrc\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
        good: "FROM node:22-slim\nRUN --mount=type=cache,target=/root/.npm --mount=type=secret,id=npmrc,target=/root/.npmrc npm ci\n",
        check: in_files,
    },
    Rule {
        name: "SecretInRun",
        severity: Severity::Serious,
        is_of_buildkit: false,
        title: "A password in a RUN",
        why: "The text of a RUN is in the image's history, for everybody who has the image, and in the repository of the Dockerfile.",
        bad: "FROM debian:13-slim\nRUN git clone https://ann:s3cret@example.org/app.git\n",
        good: "FROM debian:13-slim\nRUN --mount=type=secret,id=netrc,target=/root/.netrc git clone https://example.org/app.git\n",
        check: in_runs,
    },
];

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
    let is_sample = ["example", "sample", "template", "dist", "public", "pub"]
        .iter()
        .any(|part| name.split(['.', '-', '_']).any(|other| other == *part));
    let is_certificate = name.ends_with(".pem")
        && ["cert", "ca", "chain", "bundle", "crt"]
            .iter()
            .any(|part| name.contains(part));
    let is_variant = name.starts_with(".env.");
    let is_named = SECRET_FILES.contains(&name)
        || is_variant
        || SECRET_ENDS
            .iter()
            .any(|end| name.len() > end.len() && name.ends_with(end));
    let is_in =
        SECRET_FOLDERS.contains(&name) || names.any(|folder| matches!(folder, ".ssh" | ".aws" | ".gnupg" | ".kube"));
    (is_named || is_in) && !is_sample && !is_certificate
}

fn in_variables(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let steps = subject
        .source
        .instructions
        .iter()
        .filter(|step| matches!(step.keyword.as_str(), "arg" | "env"));
    // An ARG before the first FROM is of no image.
    for step in steps.filter(|step| step.stage.is_some()) {
        let pairs = step.pairs(subject.source.escape);
        for (name, _) in pairs.iter().filter(|(name, _)| is_secret_name(name)) {
            let keyword = step.keyword.to_uppercase();
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            let mut remark = Remark::of(
                step,
                message,
                "everybody who has the image can read the value: docker history shows it",
            );
            let id = name.to_lowercase();
            let users: Vec<_> = subject
                .runs
                .iter()
                .filter(|run| run.step.stage == step.stage && run.step.line > step.line && !is_given(run.step, name))
                .filter(|run| mentions(subject.written(run.step), name))
                .collect();
            remark = match users.is_empty() && keyword == "ENV" {
                true => remark.advise(format!(
                    "give it to the container, not to the image: environment = -e {name} in the section of docker/dockerutils.cfg"
                )),
                false => remark.advise(format!(
                    "and in the section of docker/dockerutils.cfg: build_args = --secret id={id},env={name}"
                )),
            };
            if pairs.len() == 1 {
                remark = remark.replace(subject.whole(step), "");
                for run in users {
                    let mount = format!("--mount=type=secret,id={id},env={name} ");
                    remark = remark.insert(run.step.place(run.step.rest), mount);
                }
            }
            remarks.push(remark);
        }
    }
    remarks
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
        for source in sources.iter().filter(|source| is_secret_file(source)) {
            let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let id = name.trim_start_matches(['.', '_']).to_lowercase();
            let path = match target.ends_with('/') || target == "." {
                true => format!("{}/{name}", target.trim_end_matches(['/', '.'])),
                false => target.clone(),
            };
            let mut remark = Remark::of(step, format!("{source} is copied into the image"), COSTS).advise(format!(
                "and in the section of docker/dockerutils.cfg: build_args = --secret id={id},src={source}"
            ));
            let next = subject
                .runs
                .iter()
                .find(|run| run.step.stage == step.stage && run.step.line > step.line);
            if let ([_], Some(next)) = (sources, next)
                && path.starts_with('/')
            {
                remark = remark.replace(subject.whole(step), "").insert(
                    next.step.place(next.step.rest),
                    format!("--mount=type=secret,id={id},target={path} "),
                );
            } else if let [_] = sources {
                remark = remark.replace(subject.whole(step), "");
            }
            remarks.push(remark);
        }
        if sources.iter().any(|source| is_whole_context(source)) {
            for path in subject.facts.context.secrets.iter().map(|path| visible(path)) {
                let remark = Remark::of(
                    step,
                    format!("{path} is in the context, and copied into the image with it"),
                    COSTS,
                );
                remarks.push(remark.advise(format!("put this line into .dockerignore: {path}")));
            }
        }
    }
    remarks
}

/// Whether a source of COPY is all of the context.
pub(super) fn is_whole_context(source: &str) -> bool {
    matches!(source.trim_matches(['"', '\'']), "." | "./" | "/" | "*" | "./*")
}

fn in_runs(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for run in &subject.runs {
        let words = run
            .commands
            .iter()
            .flat_map(|command| &command.words)
            .map(|word| word.text.as_str());
        let found = words
            .filter_map(|word| password_of_address(word).or_else(|| secret_set(word)))
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

/// What a word with `://user:password@` tells.
fn password_of_address(word: &str) -> Option<String> {
    let (_, rest) = word.split_once("://")?;
    let (login, _) = rest.split('/').next()?.rsplit_once('@')?;
    let (user, password) = login.split_once(':')?;
    let is_literal = !password.is_empty() && !password.starts_with(['$', '{', '<']) && !password.contains("$(");
    is_literal.then(|| format!("the password of {user}"))
}

/// What a word `TOKEN=value` tells.
fn secret_set(word: &str) -> Option<String> {
    let (name, value) = word.split_once('=')?;
    let is_name = name.len() > 2
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let is_literal = value.len() > 3 && !value.starts_with(['$', '/', '`']) && !value.contains("$(");
    (is_name && is_literal && is_secret_name(name)).then(|| format!("the value of {name}"))
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
    }
}
