//! The real `genversion` in a sandbox: help, the file and the version, and each error with its hint.
//!
//! That the versions are versioneer's is shown by `tests/real/versioneer.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dockerutils_test_support::{Invocation, Sandbox, binary};
use serde_json::json;

const SECTION: &str = "[versioneer]\nVCS = git\nversionfile_source = sample/_version.py\nparentdir_prefix = sample-\n";
const FILE: &str = "_version.py.bld";

/// A project that is not a repository: its folder's name has the version.
fn project() -> Sandbox {
    with(SECTION)
}

fn with(setup_cfg: &str) -> Sandbox {
    Sandbox::named("sample-1.5")
        .file("docker/dev/Dockerfile", "FROM scratch\n")
        .file("setup.cfg", setup_cfg)
}

fn genversion(sandbox: &Sandbox) -> Invocation<'_> {
    // A repository around the temporary directory must not be used.
    let around = sandbox.project().parent().unwrap_or_else(|| Path::new("/"));
    sandbox.command("genversion").env("GIT_CEILING_DIRECTORIES", around)
}

/// A commit in the project, with a tag.
fn tagged(sandbox: &Sandbox, tag: &str) {
    let script = "git init -q && git add setup.cfg && \
                  git -c user.name=ann -c user.email=ann@example.org commit -qm first && git tag \"$0\"";
    sandbox.program("/bin/sh").args(["-c", script, tag]).run();
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    genversion(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    genversion(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
    genversion(&sandbox).arg("--version").stdout("genversion 3.0.0\n").run();
}

#[test]
fn wrong_usage_is_code_2() {
    genversion(&project()).arg("dev").code(2).stderr_has("'dev'").run();
}

#[test]
fn the_version_is_written_and_printed() {
    let sandbox = project();
    tagged(&sandbox, "1.0");
    genversion(&sandbox).stdout("1.0\n").run();
    let file = sandbox.read(FILE);
    assert!(file.contains("\"version\": \"1.0\"") && file.ends_with("return json.loads(version_json)\n\n"));
    sandbox.write("setup.cfg", format!("{SECTION}# changed\n"));
    let outcome = genversion(&sandbox).stdout_has("1.0+0.g").run();
    assert!(outcome.stdout.ends_with(".dirty\n") && sandbox.read(FILE).contains(outcome.stdout.trim()));
    assert!(sandbox.leftovers().is_empty());
}

#[test]
fn it_works_from_a_folder_below_the_root() {
    let sandbox = project().dir("src/deep");
    genversion(&sandbox).current_dir("src/deep").stdout("1.5\n").run();
    assert!(sandbox.project().join(FILE).is_file());
}

#[test]
fn json_is_what_get_versions_returns() {
    let sandbox = project();
    let outcome = genversion(&sandbox).arg("--json").any_stdout().run();
    let expected = json!({ "version": "1.5", "full-revisionid": null, "dirty": false, "error": null, "date": null });
    assert_eq!(outcome.json(), expected);
    let outcome = genversion(&with("")).arg("--json").any_stdout().run();
    assert_eq!(outcome.json(), json!(null));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = project();
    genversion(&sandbox)
        .arg("--dry-run")
        .stdout("write [SANDBOX]/sample-1.5/_version.py.bld: 1.5\n")
        .run();
    assert!(!sandbox.project().join(FILE).exists());
}

#[test]
fn verbose_says_what_is_written() {
    genversion(&project())
        .arg("-v")
        .stdout("1.5\n")
        .stderr("write [SANDBOX]/sample-1.5/_version.py.bld: 1.5\n")
        .run();
}

#[test]
fn without_versioneer_it_is_silent() {
    let sandbox = with("[metadata]\nname = sample\n");
    genversion(&sandbox).run();
    assert!(!sandbox.project().join(FILE).exists());
    sandbox.write("versioneer.py", "");
    genversion(&sandbox)
        .stderr(
            "genversion: warning: versioneer.py is not configured, so no version is written: neither setup.cfg nor \
             pyproject.toml sets VCS and versionfile_source\n",
        )
        .run();
}

#[test]
fn a_version_that_says_nothing_is_warned_of() {
    let sandbox = with("[versioneer]\nVCS = git\nversionfile_source = v.py\n");
    genversion(&sandbox)
        .stdout("0+unknown\n")
        .stderr_has(
            "genversion: warning: the version is 0+unknown: unable to compute version (fatal: not a git repository",
        )
        .run();
    assert!(sandbox.read(FILE).contains("\"error\": \"unable to compute version\""));
    // A PATH without programs.
    genversion(&sandbox)
        .env("PATH", sandbox.home())
        .stdout("0+unknown\n")
        .stderr_has("unable to compute version (git is not installed)\n")
        .run();
}

#[test]
fn a_git_that_is_stopped_is_no_version() {
    let sandbox = project().script("bin/git", "#!/bin/sh\nkill -TERM $$\n");
    genversion(&sandbox)
        .env("PATH", sandbox.project().join("bin"))
        .code(1)
        .stderr_has("genversion: git config --show-scope")
        .stderr_has(" in [SANDBOX]/sample-1.5 was stopped (signal: 15 (SIGTERM))\n\nhint: see what it does: git -C ")
        .run();
    assert!(!sandbox.project().join(FILE).exists());
}

#[test]
fn a_wrong_configuration_names_its_place() {
    for (setup_cfg, says) in [
        (
            "[versioneer]\nVCS = hg\n",
            "genversion: setup.cfg:2: [versioneer] VCS: \"hg\" is not a version control system that versioneer knows\n\n\
             hint: git is the only one\n",
        ),
        (
            "[versioneer]\n#VCS = git\n",
            "genversion: setup.cfg:1: [versioneer]: VCS is missing\n\n\
             hint: write VCS = git below it, or remove the section\n",
        ),
        ("[versioneer]\nVCS\n", "genversion: setup.cfg:2: "),
    ] {
        genversion(&with(setup_cfg))
            .code(2)
            .stderr_has(says)
            .stderr_has("hint: ")
            .run();
    }
    let sandbox = with(&format!("{SECTION}style = pep400\n"));
    tagged(&sandbox, "1.0");
    genversion(&sandbox)
        .code(2)
        .stderr(
            "genversion: setup.cfg:5: [versioneer] style: there is no style \"pep400\"\n\nhint: did you mean pep440?\n",
        )
        .run();
    let broken = with("").file("pyproject.toml", "[tool.versioneer]\nVCS = git\n");
    genversion(&broken)
        .code(2)
        .stderr_has("genversion: pyproject.toml:2: ")
        .stderr_has("hint: correct it there, or put [versioneer] into setup.cfg\n")
        .run();
    assert!(!sandbox.project().join(FILE).exists());
}

#[test]
fn a_tag_that_can_not_be_used_is_named() {
    let sandbox = with(&format!("{SECTION}style = pep440-pre\n"));
    tagged(&sandbox, "1.0.postx");
    let commit = "git -c user.name=ann -c user.email=ann@example.org commit -qm second --allow-empty";
    sandbox.program("/bin/sh").args(["-c", commit]).run();
    genversion(&sandbox)
        .code(2)
        .stderr_has("style pep440-pre can't count up the tag \"1.0.postx\"")
        .stderr_has("hint: choose another style")
        .run();
}

#[test]
fn json_in_the_source_file_that_is_broken_is_named() {
    let sandbox = project().file("sample/_version.py", "version_json = '''\n{\n'''  # END VERSION_JSON\n");
    genversion(&sandbox)
        .code(2)
        .stderr_has("genversion: [SANDBOX]/sample-1.5/sample/_version.py: version_json holds no JSON object: EOF")
        .stderr_has("hint: git checkout ")
        .run();
}

#[test]
fn a_shallow_clone_without_its_tag_warns() {
    let sandbox = project();
    tagged(&sandbox, "1.0");
    let commit = "git -c user.name=ann -c user.email=ann@example.org commit -qm second --allow-empty && \
                  git rev-parse HEAD > .git/shallow";
    sandbox.program("/bin/sh").args(["-c", commit]).run();
    let outcome = genversion(&sandbox)
        .stdout_has("0+untagged.1.g")
        .stderr_has("genversion: warning: the version is 0+untagged.1.g")
        .stderr_has("get the rest: git fetch --unshallow --tags\n")
        .run();
    assert!(sandbox.read(FILE).contains(outcome.stdout.trim()));
    // With all of the history, and where a shallow clone has the tag, there is nothing to say.
    fs::remove_file(sandbox.project().join(".git/shallow")).unwrap();
    genversion(&sandbox).stdout_has("1.0+1.g").run();
    let tag = "git rev-parse HEAD > .git/shallow && git tag 2.0";
    sandbox.program("/bin/sh").args(["-c", tag]).run();
    genversion(&sandbox).stdout("2.0\n").run();
}

#[test]
fn a_checkout_that_can_not_be_written_to_needs_no_more_than_the_same_version() {
    let sandbox = project();
    genversion(&sandbox).stdout("1.5\n").run();
    let mode = |mode| fs::set_permissions(sandbox.project(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let without_privileges = || match sandbox.program("id").arg("-u").any_stdout().run().stdout.trim() {
        "0" => sandbox
            .program("setpriv")
            .args(["--bounding-set", "-dac_override,-dac_read_search"])
            .arg(binary("genversion")),
        _ => sandbox.command("genversion"),
    };
    let around = sandbox.project().parent().unwrap();
    without_privileges()
        .env("GIT_CEILING_DIRECTORIES", around)
        .stdout("1.5\n")
        .run();
    mode(0o755);
    sandbox.write(FILE, "of before");
    mode(0o555);
    without_privileges()
        .env("GIT_CEILING_DIRECTORIES", around)
        .code(1)
        .stderr_has("_version.py.bld can't be written: Permission denied")
        .stderr_has("hint: see who may write there: ls -ld [SANDBOX]/sample-1.5\n")
        .run();
    mode(0o755);
    assert_eq!(sandbox.read(FILE), "of before");
}

#[test]
fn a_file_that_can_not_be_written_keeps_what_was_there() {
    // A folder in its place makes it fail, also as root.
    let sandbox = project().dir(FILE);
    genversion(&sandbox)
        .code(1)
        .stderr_has("genversion: [SANDBOX]/sample-1.5/_version.py.bld can't be written: ")
        .stderr_has("hint: see who may write there: ls -ld [SANDBOX]/sample-1.5\n")
        .run();
    let names = fs::read_dir(sandbox.project()).into_iter().flatten().flatten();
    assert_eq!(names.count(), 3, "a temporary file is left behind");
}

#[test]
fn a_folder_without_a_project_is_code_2() {
    genversion(&Sandbox::new())
        .code(2)
        .stderr_has("genversion: no docker/ folder in [SANDBOX]/sample or above it")
        .stderr_has("hint: ")
        .run();
}
