//! Rules about CMD and ENTRYPOINT.

use super::finding::{Remark, Severity};
use super::rules::Rule;
use super::shell_script::{self, Joint, is_plain_list};
use super::subject::Subject;
use super::users::program_of;
use crate::docker::build::dockerfile::source::SourceInstruction;

/// Programs that start several services.
const SUPERVISORS: [&str; 8] = [
    "supervisord",
    "runsvdir",
    "s6-svscan",
    "monit",
    "circusd",
    "systemd",
    "pm2-runtime",
    "foreman",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "JSONArgsRecommended",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "CMD or ENTRYPOINT in shell form",
        why: "A shell is process 1 then, and does not pass signals on: `docker stop` waits ten seconds and kills the service in the middle \
              of its work.",
        bad: "FROM debian:13-slim\nCMD sleep 600\n",
        good: "FROM debian:13-slim\nCMD [\"sleep\", \"600\"]\n",
        check: shell_form,
    },
    Rule {
        name: "MultipleInstructionsDisallowed",
        severity: Severity::Warning,
        is_of_buildkit: true,
        title: "Several CMD, ENTRYPOINT or HEALTHCHECK in one stage",
        why: "Only the last one counts.",
        bad: "FROM debian:13-slim\nCMD [\"sleep\", \"1\"]\nCMD [\"sleep\", \"2\"]\n",
        good: "FROM debian:13-slim\nCMD [\"sleep\", \"2\"]\n",
        check: repeated,
    },
    Rule {
        name: "SeveralServices",
        severity: Severity::Warning,
        is_of_buildkit: false,
        title: "Several services in one container",
        why: "If one of them ends, nobody notices: the container runs on. Their logs are mixed, and they can't be updated, restarted or limited \
              one by one. An image type for each does all of that.",
        bad: "FROM debian:13-slim\nCMD [\"sh\", \"-c\", \"redis-server & exec sleep 600\"]\n",
        good: "FROM debian:13-slim\nCMD [\"sleep\", \"600\"]\n",
        check: several,
    },
];

fn shell_form(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let steps = subject
        .source
        .instructions
        .iter()
        .filter(|step| matches!(step.keyword.as_str(), "cmd" | "entrypoint"));
    for step in steps.filter(|step| step.json.is_none() && !step.arguments().is_empty()) {
        // Whoever chooses a shell wants it.
        let stages = step.stage.map(|stage| subject.stages_below(stage)).unwrap_or_default();
        let mut before = subject
            .source
            .instructions
            .iter()
            .filter(|other| other.line < step.line);
        if before.any(|other| other.keyword == "shell" && other.stage.is_some_and(|stage| stages.contains(&stage))) {
            continue;
        }
        let message = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            step.written
        );
        let remark = Remark::of(
            step,
            message,
            "docker stop waits ten seconds, then kills it in the middle of its work",
        );
        let stage = step.stage.unwrap_or_default();
        if subject.is_windows(stage) {
            remarks.push(remark.advise("write it as a JSON list: [\"program\", \"argument\"]"));
            continue;
        }
        // The shell form ignores CMD; as a list, the words of CMD would be its arguments.
        let has_command = step.keyword == "entrypoint"
            && subject
                .source
                .instructions
                .iter()
                .any(|other| other.keyword == "cmd" && other.stage.is_some_and(|other| other >= stage));
        let bytes = step.span(step.rest..step.rest + step.arguments().len());
        let script = step.arguments();
        remarks.push(match exec_form(script, has_command) {
            Some(list) => remark.replace(bytes, list),
            None if script.contains("{{") => {
                remark.advise("write it as a JSON list where it is made from this template: [\"program\", \"argument\"]")
            }
            None => remark.advise(
                "copy a script with these commands, in which exec begins the one that stays, and start it by a JSON list: [\"/start.sh\"]",
            ),
        });
    }
    remarks
}

/// Commands that a shell does itself: nothing can replace the shell by them.
const OF_SHELL: [&str; 12] = [
    "cd", "export", "set", "source", ".", "exit", "ulimit", "umask", "eval", "wait", "trap", "read",
];

/// A script as a JSON list: its words, where no shell is needed for them. `None` if it is more than one command, or a template of another
/// program: a list with a shell around it would get the signals no better.
fn exec_form(script: &str, needs_shell: bool) -> Option<String> {
    let commands = shell_script::commands(script);
    let [one] = commands.as_slice() else { return None };
    let is_single = one.joint == Joint::End && !one.is_nested && !OF_SHELL.contains(&one.program());
    if !is_single || script.contains("{{") || one.variables().next().is_some() {
        return None;
    }
    let is_of_words = !needs_shell
        && !script.contains(['$', '`', '*', '?', '~', '>', '<', '#', '[', '!'])
        && is_plain_list(script.strip_prefix("exec ").unwrap_or(script));
    let words: Vec<String> = if is_of_words {
        let words = one.words.iter().map(|word| word.text.clone());
        words.skip_while(|word| word == "exec").collect()
    } else if is_plain_list(script) {
        // One that replaces its shell gets the signals.
        ["/bin/sh".to_owned(), "-c".to_owned(), format!("exec {script}")].into()
    } else if script.starts_with("exec ") {
        ["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()].into()
    } else {
        return None;
    };
    let words: Vec<String> = words
        .iter()
        .map(|word| serde_json::Value::from(word.as_str()).to_string())
        .collect();
    Some(format!("[{}]", words.join(", ")))
}

fn repeated(subject: &Subject<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    for stage in 0..subject.file.stages.len() {
        for keyword in ["cmd", "entrypoint", "healthcheck"] {
            let steps: Vec<&SourceInstruction> = subject
                .source
                .of_stage(stage)
                .filter(|step| step.keyword == keyword)
                .collect();
            let Some((_, ignored)) = steps.split_last() else {
                continue;
            };
            for (step, next) in ignored.iter().zip(steps.iter().skip(1)) {
                let message = format!(
                    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                    next.written
                );
                let remark = Remark::of(step, message, "a line that looks as if it did something");
                remarks.push(match subject.movable(step) {
                    Some(own) => remark.replace(own, ""),
                    None => remark.advise("delete it, and what the comment above says of it"),
                });
            }
        }
    }
    remarks
}

fn several(subject: &Subject<'_>) -> Vec<Remark> {
    let last = |keyword: &str| subject.image_steps().rfind(|step| step.keyword == keyword);
    let steps = [last("entrypoint"), last("cmd")].into_iter().flatten();
    let mut remarks = Vec::new();
    for step in steps {
        let script = match &step.json {
            None => Some(step.arguments().to_owned()),
            Some(words) if words.iter().any(|word| word == "-c" || word == "-lc") => words.last().cloned(),
            Some(_) => None,
        };
        let program = program_of(step);
        let commands = script.as_deref().map(shell_script::commands).unwrap_or_default();
        let started = |command: &shell_script::ShellCommand| {
            let is_service =
                matches!(command.program(), "service" | "systemctl" | "rc-service") && command.has("start");
            is_service || SUPERVISORS.contains(&command.program())
        };
        // What only keeps the container alive is none; what goes into the background by itself is one.
        let daemon = |command: &shell_script::ShellCommand| {
            matches!(command.program(), "cron" | "crond" | "sshd" | "rsyslogd" | "atd") && command.joint != Joint::End
        };
        let behind = commands
            .iter()
            .any(|command| command.joint == Joint::Background || daemon(command));
        if !SUPERVISORS.contains(&program.as_str()) && !behind && !commands.iter().any(started) {
            continue;
        }
        let remark = Remark::of(
            step,
            "several services in one container",
            "one that ends is not noticed, and none can be restarted or limited alone",
        );
        remarks.push(remark.advise("make an image type for each: a folder below docker/ with a Dockerfile of its own"));
    }
    remarks
}
