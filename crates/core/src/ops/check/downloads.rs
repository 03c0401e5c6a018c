//! Rules about what comes into an image by ADD, and from the network.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script::{Joint, ShellCommand};
use super::subject::{RunStep, Subject};

/// The ends of names that ADD unpacks.
const ARCHIVES: [&str; 11] = [
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tar.lz", ".gz",
];
/// Programs that tell whether a file is what it should be.
const VERIFIERS: [&str; 13] = [
    "sha256sum",
    "sha512sum",
    "sha384sum",
    "sha224sum",
    "sha1sum",
    "md5sum",
    "b2sum",
    "shasum",
    "gpg",
    "gpgv",
    "cosign",
    "minisign",
    "openssl",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "AddInsteadOfCopy",
        severity: Severity::Note,
        is_of_buildkit: false,
        title: "`ADD` where `COPY` does",
        why: "ADD also downloads, and unpacks archives: what it does depends on what a file is. COPY copies.",
        bad: "FROM debian:13-slim\nADD app.conf /etc/app.conf\n",
        good: "FROM debian:13-slim\nCOPY app.conf /etc/app.conf\n",
        check: add_for_copy,
    },
    Rule {
        name: "DownloadWithoutChecksum",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "A download is used as it comes",
        why: "Whoever controls the server, the domain or the way to it decides what is in your image. With a checksum in the Dockerfile \
              another file is refused; without it, the cache also keeps an old file for months.",
        bad: "FROM debian:13-slim\nADD https://example.org/tool-1.0.tar.gz /opt/\n",
        good: "FROM debian:13-slim\nADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d \
               https://example.org/tool-1.0.tar.gz /opt/\n",
        check: without_checksum,
    },
];

fn is_address(word: &str) -> bool {
    let word = word.trim_start_matches(['"', '\'']);
    ["http://", "https://", "ftp://", "git://", "ssh://", "git@"]
        .iter()
        .any(|begin| word.starts_with(begin))
        || word.contains(".git#")
}

fn add_for_copy(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("add") {
        let words: Vec<String> = match &step.json {
            Some(words) => words.clone(),
            None => step.words().into_iter().map(|(_, word)| word.to_owned()).collect(),
        };
        let sources = words.split_last().map(|(_, sources)| sources).unwrap_or_default();
        let only_add = |word: &String| {
            let word = word.trim_matches(['"', '\'']);
            is_address(word)
                || word.contains(['$', '*', '?'])
                || ARCHIVES.iter().any(|end| word.to_lowercase().ends_with(end))
        };
        let has_own_flags = step.flags.iter().any(|flag| {
            ["--checksum", "--keep-git-dir", "--unpack"]
                .iter()
                .any(|own| flag.starts_with(own))
        });
        if sources.is_empty() || has_own_flags || sources.iter().any(only_add) {
            continue;
        }
        let keyword = step.place(0)..step.place(0) + step.written.len();
        let copy = if step.written == step.written.to_lowercase() {
            "copy"
        } else {
            "COPY"
        };
        let remark = Remark::of(
            step,
            "ADD where COPY does",
            "an archive of that name would be unpacked without a word",
        );
        remarks.push(remark.replace(keyword, copy));
    }
    remarks
}

fn without_checksum(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for step in subject.steps("add") {
        let words = step.words();
        let addresses: Vec<&str> = words
            .iter()
            .map(|(_, word)| *word)
            .filter(|word| word.starts_with("http"))
            .collect();
        let is_git = |word: &&str| word.contains(".git");
        if addresses.is_empty() || step.flag("checksum").is_some() || addresses.iter().any(is_git) {
            continue;
        }
        let [address] = addresses.as_slice() else { continue };
        let message = format!("{address} is downloaded without a checksum");
        remarks.push(
            Remark::of(
                step,
                message,
                "whoever controls the server decides what is in the image",
            )
            .advise(format!(
                "write ADD --checksum=sha256:DIGEST {address} ...; {}",
                digest_of(address)
            )),
        );
    }
    for run in &subject.runs {
        let Some((at, address)) = run.commands.iter().enumerate().find_map(|(at, command)| {
            let address = downloaded(run, at, command)?;
            Some((at, address))
        }) else {
            continue;
        };
        if is_verified(run) {
            continue;
        }
        let is_run = run.commands.get(at).is_some_and(|command| command.joint == Joint::Pipe)
            && run
                .commands
                .get(at + 1)
                .is_some_and(|next| matches!(next.program(), "sh" | "bash" | "python" | "python3" | "node" | "perl"));
        let message = match is_run {
            true => format!("{address} is run without a look at it"),
            false => format!("{address} is downloaded without a checksum"),
        };
        let name = address
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("download");
        remarks.push(
            Remark::of(
                run.step,
                message,
                "whoever controls the server decides what is in the image",
            )
            .advise(format!(
                "check it in this RUN before it is used: echo \"DIGEST  FILE\" | sha256sum -c; or download it by an instruction of \
                 its own: ADD --checksum=sha256:DIGEST {address} /tmp/{name}; {}",
                digest_of(&address)
            )),
        );
    }
    remarks
}

/// How to find the digest of a file. In an address, variables of the Dockerfile or its scripts are unknown to a shell.
fn digest_of(address: &str) -> String {
    if address.contains('$') {
        return "curl -fsSL ADDRESS | sha256sum prints the digest, with the values of its variables in the address; it belongs to these \
                values, and changes with them"
            .to_owned();
    }
    format!(
        "curl -fsSL {} | sha256sum prints the digest",
        crate::shell::quote(address)
    )
}

/// The address of what a command downloads to use it.
fn downloaded(run: &RunStep<'_>, at: usize, command: &ShellCommand) -> Option<String> {
    let arguments = command.arguments();
    let is_kept = match command.program() {
        "wget" => !command.has("--spider"),
        "curl" => {
            let saves = |text: &str| {
                let short = text.starts_with('-') && !text.starts_with("--");
                (short && text.contains(['o', 'O']))
                    || matches!(text, "--output" | "--remote-name")
                    || text.starts_with("--output=")
            };
            let is_piped = command.joint == Joint::Pipe;
            let is_written = !command.outputs.is_empty() && !command.outputs.iter().any(|file| file == "/dev/null");
            let is_thrown_away = command.has("/dev/null");
            !is_thrown_away && (is_piped || is_written || arguments.iter().any(|word| saves(&word.text)))
        }
        _ => false,
    };
    // A key or a list of checksums is what something else is checked with.
    let next = run.commands.get(at + 1).map(ShellCommand::program).unwrap_or_default();
    let is_read_only = command.joint == Joint::Pipe
        && matches!(
            next,
            "grep" | "jq" | "cut" | "head" | "sed" | "awk" | "tee" | "gpg" | "apt-key"
        );
    let address = arguments
        .iter()
        .map(|word| word.text.as_str())
        .find(|word| is_address(word))?;
    let is_key = [".asc", ".gpg", ".sig", ".key", "sha256", "SHASUMS"]
        .iter()
        .any(|end| address.contains(end));
    (is_kept && !is_read_only && !is_key).then(|| address.to_owned())
}

fn is_verified(run: &RunStep<'_>) -> bool {
    run.commands.iter().any(|command| {
        VERIFIERS.contains(&command.program())
            || command
                .arguments()
                .iter()
                .any(|word| word.text.starts_with("--checksum="))
    })
}
