//! Who needs apt's lists of packages after the step that made them.

use super::shell_script::ShellCommand;
use super::subject::{RunStep, Subject, is_shell};

/// What an earlier step's lists are needed for: the line of the RUN, and the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListUser {
    pub(super) line: usize,
    pub(super) program: String,
}

/// Verbs of apt that work without lists.
const WITHOUT_LISTS: [&str; 10] = [
    "autoclean",
    "autoremove",
    "autopurge",
    "clean",
    "distclean",
    "mark",
    "purge",
    "remove",
    "update",
    "check",
];
/// Programs that install by apt, or may.
const BY_APT: [&str; 19] = [
    "add-apt-repository",
    "ansible-playbook",
    "apt-add-repository",
    "apt-cache",
    "apt-fast",
    "apt-file",
    "chef-client",
    "dselect",
    "eatmydata",
    "gdebi",
    "gdebi-core",
    "install2.r",
    "mk-build-deps",
    "nala",
    "pkcon",
    "playwright",
    "puppet",
    "rosdep",
    "salt-call",
];
/// Words that are there where another program is to install packages of the system.
const OF_SYSTEM: [&str; 8] = [
    "apt-get",
    "aptitude",
    "apt",
    "install-deps",
    "--with-deps",
    "build-dep",
    "playwright",
    "rosdep",
];
/// Scripts of a project that are known to build it, and no more.
const BUILDING: [&str; 6] = ["configure", "gradlew", "manage.py", "mvnw", "bootstrap", "autogen.sh"];

/// Whether a command runs apt with its lists, or something that may.
fn may_use_lists(command: &ShellCommand) -> bool {
    let program = command.program();
    if matches!(program, "apt" | "apt-get" | "aptitude") {
        return command
            .verb()
            .is_none_or(|(_, verb)| !WITHOUT_LISTS.contains(&verb.text.as_str()));
    }
    if BY_APT.contains(&program) || is_script(command) {
        return true;
    }
    // echo and its like only write the words.
    let names_apt = |text: &str| {
        let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words.any(|word| OF_SYSTEM.contains(&word))
    };
    let words = command.words.iter().map(|word| word.text.as_str());
    match program {
        "" | "echo" | "printf" | "rm" | "ls" | "cat" | "mkdir" | "cp" | "mv" | "test" | "[" | "grep" | "sed"
        | "tee" => words
            .filter(|text| text.contains("$(") || text.contains('`'))
            .any(names_apt),
        _ => words.filter(|text| !text.contains("/apt/")).any(names_apt),
    }
}

/// Whether a command runs a script that may do anything.
fn is_script(command: &ShellCommand) -> bool {
    let program = command.program();
    if is_shell(program) || matches!(program, "source" | ".") {
        return true;
    }
    let named = command
        .words
        .iter()
        .map(|word| word.text.as_str())
        .find(|word| word.rsplit('/').next() == Some(program));
    let Some((directory, _)) = named.and_then(|word| word.rsplit_once('/')) else {
        return program.ends_with(".sh");
    };
    let is_of_programs = !directory.starts_with('.') && (directory.ends_with("/bin") || directory.ends_with("/sbin"));
    program.ends_with(".sh") || (!is_of_programs && !BUILDING.contains(&program))
}

/// What becomes of the lists in a RUN.
enum FateOfLists {
    /// It begins with lists of its own, and so do those after it.
    Updated,
    Used(String),
    Untouched,
}

fn fate(run: &RunStep<'_>) -> FateOfLists {
    let has_mount = run
        .mounts("cache")
        .iter()
        .any(|target| target.starts_with("/var/lib/apt"));
    if has_mount {
        return FateOfLists::Untouched;
    }
    if run.commands.is_empty() {
        // Another shell's script, or an interpreter's.
        return FateOfLists::Used(run.step.written.clone());
    }
    for command in &run.commands {
        let is_apt = matches!(command.program(), "apt" | "apt-get" | "aptitude");
        let updates = command.verb().is_some_and(|(_, verb)| verb.text == "update");
        if is_apt && updates && !command.is_nested {
            return FateOfLists::Updated;
        }
        if may_use_lists(command) {
            return FateOfLists::Used(command.program().to_owned());
        }
    }
    FateOfLists::Untouched
}

/// The first step after this one that may use its lists: in its stage, or in one that begins with it. `has_own` are RUNs that are
/// sure to have their own.
pub(super) fn later_user(
    subject: &Subject<'_>,
    run: &RunStep<'_>,
    has_own: impl Fn(&RunStep<'_>) -> bool,
) -> Option<ListUser> {
    let own = run.step.stage?;
    // Stages whose lists are newer than those of this RUN.
    let mut renewed: Vec<usize> = Vec::new();
    for later in subject.runs.iter().filter(|later| later.step.line > run.step.line) {
        let Some(stage) = later.step.stage else { continue };
        let below = subject.stages_below(stage);
        if !below.contains(&own) || below.iter().any(|stage| renewed.contains(stage)) {
            continue;
        }
        match fate(later) {
            FateOfLists::Updated => renewed.push(stage),
            _ if has_own(later) => renewed.push(stage),
            FateOfLists::Used(program) => {
                return Some(ListUser {
                    line: later.step.line,
                    program,
                });
            }
            FateOfLists::Untouched => {}
        }
    }
    None
}
