//! What `sync-up` and `sync-down` have in common: which dock and which files are meant. Both test files take these in, and
//! say which command it is by `COMMAND`.

use dockerutils_test_support::Sandbox;

use super::COMMAND;

const LIST: &str = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 127.0.0.1\n    port: 1\n- moniker: tcp\n  tcp:\n    \
                    address: 127.0.0.1:2375\n";

fn sandbox() -> Sandbox {
    Sandbox::new()
        .file("../home/.config/dockerutils/docks.yml", LIST)
        .file("docker/web/Dockerfile", "FROM busybox\n")
}

#[test]
fn without_a_dock_it_says_how_to_name_one() {
    sandbox()
        .command(COMMAND)
        .code(2)
        .stderr(&format!(
            "{COMMAND}: there is no dock to sync with: this shell is not docked\n\nhint: name one with --dock far, or dock to \
             it with: source dock far\n"
        ))
        .run();
    sandbox()
        .command(COMMAND)
        .args(["--dock", "fra"])
        .code(2)
        .stderr_has(&format!("{COMMAND}: there is no dock \"fra\"\n\nhint: is it \"far\"?"))
        .run();
}

#[test]
fn an_engine_alone_takes_no_files() {
    for docked in [false, true] {
        let sandbox = sandbox();
        let command = sandbox.command(COMMAND);
        let command = if docked {
            command.env("_DOCK_MONIKER", "[dock:tcp] ")
        } else {
            command.args(["--dock", "tcp"])
        };
        command
            .code(1)
            .stderr(&format!(
                "{COMMAND}: dock \"tcp\" (tcp://127.0.0.1:2375) is reached by its engine alone, and files travel by ssh\n\n\
                 hint: register it by ssh: register-dock USER@HOST tcp --force\n"
            ))
            .run();
    }
}

#[test]
fn paths_are_of_the_project_and_options_exclude_each_other() {
    for path in ["../elsewhere", "/etc/passwd", "a/../../b"] {
        sandbox()
            .command(COMMAND)
            .args(["--dock", "far", path])
            .code(2)
            .stderr_has(&format!(
                "{COMMAND}: {path} is not in the project\n\nhint: the project is [SANDBOX]/sample\n"
            ))
            .run();
    }
    for words in [
        &["--ours", "--theirs"][..],
        &["--watch", "--list"],
        &["--watch", "a"],
        &["--watch", "--ours"],
    ] {
        sandbox()
            .command(COMMAND)
            .args(words)
            .code(2)
            .stderr_has("cannot be used with")
            .run();
    }
    Sandbox::new()
        .command(COMMAND)
        .args(["--dock", "far"])
        .code(2)
        .stderr_has("no docker/ folder")
        .run();
}

#[test]
fn another_sync_of_the_same_that_can_not_be_asked_is_waited_for() {
    let sandbox = sandbox();
    let root = sandbox.project().canonicalize().unwrap();
    let env = dockerutils_core::env::Env::from_pairs([("HOME", sandbox.home().to_str().unwrap())]);
    let held = dockerutils_core::sync::manifest::Memory::open(&root, "far", &env).unwrap();
    let mut terminal = sandbox.command(COMMAND).args(["--dock", "far"]).at_terminal();
    terminal.expect("waiting for another command, which syncs ");
    drop(held);
    // Nothing listens where the dock is said to be.
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(3), "{shown}");
}

#[test]
fn a_wrong_dockerignore_is_told_before_anything_travels() {
    sandbox()
        .file(".dockerignore", "!\n")
        .command(COMMAND)
        .args(["--dock", "far"])
        .code(2)
        .stderr_has(&format!(
            "{COMMAND}: the project's .dockerignore is wrong: illegal exclusion pattern"
        ))
        .run();
}

#[test]
fn a_restore_excludes_what_only_a_sync_can_do() {
    for word in ["--watch", "--ours", "--theirs", "--delete"] {
        sandbox()
            .command(COMMAND)
            .args(["--restore", word])
            .code(2)
            .stderr_has("cannot be used with")
            .run();
    }
}

#[test]
fn what_is_wrong_with_the_version_stops_no_sync() {
    let broken = "[metadata]\nthis is no line\n";
    let versioneer = "[versioneer]\nVCS = git\nversionfile_source = src/_version.py\n";
    for (text, is_said) in [(broken.to_owned(), false), (format!("{broken}{versioneer}"), true)] {
        let said = sandbox()
            .file("setup.cfg", &text)
            .command(COMMAND)
            .args(["--dock", "far"])
            // Nothing listens at that port, so the command gets this far.
            .code(3)
            .any_stderr()
            .run()
            .stderr;
        assert_eq!(said.contains("setup.cfg:2"), is_said, "{said}");
        assert_eq!(
            said.contains(": the dock gets no version, and src/_version.py stays as it is there\n"),
            is_said,
            "{said}"
        );
    }
}

#[test]
fn this_machine_has_no_copy_to_sync_with() {
    sandbox()
        .command(COMMAND)
        .args(["--dock", "localhost", "--json"])
        .code(2)
        .stdout_has("\"error\": \"localhost is this machine, and no dock\"")
        .any_stderr()
        .run();
}
