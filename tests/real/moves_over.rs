//! A project moves over unchanged: dockerutils 2.0.7 and ours do the same, or differ as `COMPATIBILITY.md` says.
//!
//! Each folder of `moves_over/projects` is a project, and its file `calls` lists what a user types there. Every call is
//! done twice, in the same folder, environment and terminal, with a `docker` on PATH that only records how it is called:
//!
//! - by the original, from PyPI;
//! - by ours with `--dry-run`, whose lines a shell then runs. What is compared is what the printed lines *do*.
//!
//! Both must come to the same commands in the same order. A difference must be named, under the call, by a [`Rule`] of
//! the list below; a rule that makes no difference fails the test as a difference without a rule does.
//!
//! ```text
//! run-image dev -e A=b=c
//!     env-option: docker run --init --name tester_dev_TIME -e A=b=c --rm -it sample-dev:tester
//! ```

// What a test is made of fails as the test does.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod calls;
mod recording;
mod rules;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use calls::Call;
use dockerutils_test_support::Random;
use dockerutils_tests::python;
use recording::{Stage, Version};
use rules::{Comparison, RULES, Rule};

/// As many as the issue asks for, at least.
const PROJECTS: usize = 10;
/// The keys of an image's section that build-image and run-image read, and what may stand behind those of the latter.
const BUILD_KEYS: [&str; 7] = [
    "build_args",
    "name",
    "post_build_script",
    "pre_build_script",
    "prefix",
    "pull_FROM_on_force",
    "tag",
];
const RUN_KEYS: [&str; 10] = [
    "args",
    "cmd",
    "environment",
    "gpu",
    "init",
    "interactive",
    "keep_container",
    "network",
    "ports",
    "volumes",
];
/// What words are made of. Each is whole by itself, since what is not stops both; the original put values in before it split the text,
/// so those have nothing that a shell would see.
const WORD_PIECES: [&str; 30] = [
    "a", "b-c", "é", "0", "=", ",", ":", "/", ".", "-", "--x=", "'a b'", "\"a b\"", "'\"'", "\"'\"", "'\\'",
    "\"\\\\\"", "\"\\a\"", "\\ ", "\\\"", "\\a", "{", "}", "{user}", "$W.", "${W}", "${X_1}", "\"$W\"", "$$", "'$$'",
];
/// In one call, and calls of each kind.
const WORDS: usize = 60;
const WORD_CALLS: usize = 3;
/// The flags of both commands, as the original has them.
const FLAGS: [(&str, &[&str]); 2] = [
    (
        "build-image",
        &[
            "-f",
            "--force_build_base",
            "-i",
            "--image_name",
            "-t",
            "--image_tag",
            "-p",
            "--pull_base",
        ],
    ),
    (
        "run-image",
        &[
            "-a",
            "--args",
            "-k",
            "--keep",
            "-c",
            "--command",
            "-n",
            "--network",
            "-g",
            "--use-gpu",
            "-e",
            "--env",
        ],
    ),
];

#[test]
fn same_commands_or_a_difference_that_is_named() {
    let original = python::ORIGINAL
        .commands()
        .unwrap_or_else(|error| panic!("dockerutils 2.0.7 is needed: {error}"));
    let projects = projects();
    let used = Mutex::new(BTreeSet::new());
    let findings = Mutex::new(Vec::new());
    let compared = Mutex::new(0);
    // Every call starts three Pythons; projects have nothing in common.
    let queue = Mutex::new(projects.iter());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(|| {
                while let Some(project) = { queue.lock().unwrap().next() } {
                    let stage = Stage::new(project, &original);
                    for call in calls::of(project) {
                        let outcome = compare(&stage, &call);
                        *compared.lock().unwrap() += 1;
                        match outcome {
                            Ok(rules) => used.lock().unwrap().extend(rules),
                            Err(finding) => {
                                let project = project.file_name().unwrap().to_string_lossy().into_owned();
                                findings.lock().unwrap().push(format!("{project}: {call}\n{finding}"));
                            }
                        }
                    }
                }
            });
        }
    });
    let findings = findings.into_inner().unwrap();
    let compared = compared.into_inner().unwrap();
    assert!(
        findings.is_empty(),
        "{} of {compared} calls in {} projects are not as COMPATIBILITY.md says:\n\n{}",
        findings.len(),
        projects.len(),
        findings.join("\n\n")
    );
    let used = used.into_inner().unwrap();
    let unused: Vec<&str> = RULES
        .iter()
        .map(|rule| rule.name)
        .filter(|name| !used.contains(name))
        .collect();
    assert!(unused.is_empty(), "no call needs these rules: {}", unused.join(", "));
}

/// Words that were made at random, in `cmd`, in `--command` and behind a variable: the container gets what the original gave it.
#[test]
fn words_of_any_kind_are_those_of_the_original() {
    let original = python::ORIGINAL
        .commands()
        .unwrap_or_else(|error| panic!("dockerutils 2.0.7 is needed: {error}"));
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("worded");
    let mut random = Random::new(15);
    let mut words = || -> String {
        let word = |random: &mut Random| -> String {
            let count = random.index(4) + 1;
            (0..count).map(|_| *random.pick(&WORD_PIECES)).collect()
        };
        (0..WORDS).map(|_| word(&mut random)).collect::<Vec<_>>().join(" ")
    };
    fs::create_dir_all(project.join("docker")).unwrap();
    let names: Vec<String> = (0..WORD_CALLS).map(|number| format!("t{number}")).collect();
    let images = format!("[run_image]\nsynthetic_images = {}\n", names.join(","));
    let config: String = (0..WORD_CALLS)
        .map(|number| {
            format!(
                "[t{number}]\nname = base\nprefix = False\ntag = 1\ncmd = first {}\n",
                words()
            )
        })
        .collect();
    fs::write(project.join("docker/dockerutils.cfg"), images + &config).unwrap();
    let stage = Stage::new(&project, &original);
    let mut lines: Vec<String> = (0..WORD_CALLS).map(|number| format!("run-image t{number}")).collect();
    lines.extend((0..WORD_CALLS).map(|number| {
        let words = words().replace('\'', "'\\''");
        format!("run-image t{number} --command='first {words}'")
    }));
    for line in lines {
        let line = format!("export W=word X_1=1; {line}");
        let tail = |version| -> Vec<String> {
            let deeds = stage.run(version, &line);
            let [call] = deeds.recorded.as_slice() else {
                panic!("{line}: {} calls; {}", deeds.recorded.len(), deeds.outcome.stderr);
            };
            let image = call.words.iter().position(|word| word == "base:1").unwrap();
            call.words[image..].to_vec()
        };
        let theirs = tail(Version::Original);
        assert!(theirs.len() > WORDS / 2, "{theirs:?}");
        assert_eq!(tail(Version::Ours), theirs, "{line}");
    }
}

/// The projects say something about every key and flag, so that the comparison above is one of everything.
#[test]
fn every_key_and_every_flag_is_in_a_project() {
    let projects = projects();
    assert!(projects.len() >= PROJECTS, "{} projects", projects.len());
    let mut keys = BTreeSet::new();
    let mut words = BTreeSet::new();
    for project in &projects {
        let config = fs::read_to_string(project.join("docker/dockerutils.cfg")).unwrap_or_default();
        keys.extend(
            config
                .lines()
                .filter_map(|line| Some(line.split_once(['=', ':'])?.0.trim().to_owned())),
        );
        for call in calls::of(project) {
            let line = call.line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            let command = FLAGS
                .iter()
                .map(|(name, _)| *name)
                .find(|name| line.iter().any(|word| word == name));
            let command = command.unwrap_or_else(|| panic!("{call} is none of our commands"));
            let flags = line.iter().filter_map(|word| word.split('=').next());
            words.extend(flags.map(|flag| (command, flag.to_owned())));
        }
    }
    let docked = RUN_KEYS.map(|key| format!("{key}_docked"));
    let wanted = BUILD_KEYS
        .into_iter()
        .chain(RUN_KEYS)
        .chain(["env", "synthetic_images"])
        .map(str::to_owned)
        .chain(docked);
    let missing: Vec<String> = wanted.filter(|key| !keys.contains(key)).collect();
    assert!(missing.is_empty(), "no project has the keys {missing:?}");
    for (command, flags) in FLAGS {
        for flag in flags {
            assert!(
                words.contains(&(command, (*flag).to_owned())),
                "no call has {command} {flag}"
            );
        }
    }
}

/// The folders of the projects, sorted.
fn projects() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("real/moves_over/projects");
    let mut projects: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    projects.sort();
    projects
}

/// Does a call both ways; gives the names of the rules that made a difference, or what is not as it should be.
fn compare(stage: &Stage, call: &Call) -> Result<BTreeSet<&'static str>, String> {
    let mut comparison = Comparison {
        original: stage.run(Version::Original, &call.line),
        ours: stage.run(Version::Ours, &call.line),
        stage,
    };
    let named = call
        .differences
        .iter()
        .map(|(name, text)| match RULES.iter().find(|rule| rule.name == name) {
            Some(rule) => Ok((rule, text.as_str())),
            None => Err(format!("  there is no rule {name}")),
        })
        .collect::<Result<Vec<_>, _>>()?;
    // First, so that the texts of the others are compared with what is left.
    let always = RULES.iter().filter(|rule| rule.always).map(|rule| (rule, ""));
    let mut used = BTreeSet::new();
    for (rule, text) in always.chain(named) {
        match (rule.apply)(&mut comparison, text) {
            Ok(true) => {
                used.insert(rule.name);
            }
            Ok(false) if rule.always => {}
            Ok(false) => return Err(described(&comparison, rule, "it makes no difference")),
            Err(why) => return Err(described(&comparison, rule, &why)),
        }
    }
    if comparison.is_same() {
        return Ok(used);
    }
    Err(comparison.difference())
}

fn described(comparison: &Comparison<'_>, rule: &Rule, why: &str) -> String {
    let mut text = format!("  the rule {} ({:?}) does not hold: {why}\n", rule.name, rule.sentence);
    let _ = write!(text, "{}", comparison.difference());
    text
}
