//! What another user of this machine put into a shared folder: nothing of it is read, run or spoken to by any command.

use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use dockerutils_core::agent::paths::AgentPaths;
use dockerutils_core::docks::{self, Dock};
use dockerutils_core::env::Env;
use dockerutils_test_support::Sandbox;

/// A user who is neither root nor whoever runs the tests; there need be no such user.
const ANOTHER: u32 = 47_114;

/// Gives a path to a user, as root or by way of sudo.
fn give(path: &Path, user: u32) {
    if chown(path, Some(user), None).is_err() {
        let mut sudo = Command::new("sudo");
        let done = sudo.args(["-n", "chown", &user.to_string()]).arg(path).status();
        assert!(done.is_ok_and(|status| status.success()), "chown {}", path.display());
    }
}

/// Gives a path back at the end, so that the sandbox can be removed.
struct Given<'a>(&'a Path);

impl<'a> Given<'a> {
    fn new(path: &'a Path) -> Self {
        give(path, ANOTHER);
        Self(path)
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        give(self.0, rustix::process::geteuid().as_raw());
    }
}

fn sandbox() -> Sandbox {
    Sandbox::new()
        .file("docker/dev/Dockerfile", "FROM scratch\n")
        .file(
            "docker/dockerutils.cfg",
            "[dev]\npre_build_script = ./ran.sh\n[setup]\nname = setup\n",
        )
        .script("ran.sh", "#!/bin/sh\ntouch ran\n")
        .file("mine/notes", "")
}

#[test]
fn no_command_reads_another_users_project() {
    for theirs in ["", "docker", "docker/dockerutils.cfg"] {
        let sandbox = sandbox();
        let path = sandbox.project().join(theirs);
        let _given = Given::new(&path);
        let below = Path::new("[SANDBOX]/sample").join(theirs).display().to_string();
        let told = format!("{} belongs to user {ANOTHER}", below.trim_end_matches('/'));
        for (command, arguments, code) in [
            ("build-image", &["dev"][..], 2),
            ("build-image", &["dev", "--layers"], 2),
            ("run-image", &["dev"], 125),
            ("publish-image", &["dev"], 2),
            ("transfer-image", &["dev", "ssh://nowhere.invalid"], 2),
            ("genversion", &[], 2),
            ("sync-up", &["--dock", "nowhere"], 2),
        ] {
            // From below, as in a folder of one's own in a shared one.
            sandbox
                .command(command)
                .args(arguments)
                .current_dir("mine")
                .code(code)
                .stderr_has(&told)
                .stderr_has("config.yml: trusted_directories: [\"[SANDBOX]/sample\"]")
                .run();
        }
        assert!(!sandbox.project().join("ran").exists());
    }
}

#[test]
fn the_user_can_trust_it_and_the_project_can_not() {
    let sandbox = sandbox().file("docker/config.yml", "trusted_directories: ['*']\n");
    let _given = Given::new(sandbox.project());
    sandbox
        .command("build-image")
        .args(["dev", "--dry-run"])
        .code(2)
        .stderr_has("belongs to user")
        .run();
    let own = sandbox.home().join(".config/dockerutils");
    std::fs::create_dir_all(&own).unwrap();
    let list = format!("trusted_directories:\n  - {}\n", sandbox.project().display());
    std::fs::write(own.join("config.yml"), list).unwrap();
    sandbox
        .command("build-image")
        .args(["dev", "--dry-run"])
        .stdout_has("docker build")
        .any_stderr()
        .run();
}

#[test]
fn single_files_of_another_user_in_a_project_of_ones_own_are_not_obeyed() {
    for theirs in [
        "docker/dev",
        "docker/dev/Dockerfile",
        "docker/dev/Dockerfile.dockerignore",
        ".dockerignore",
        "pip.conf.template",
        "ran.sh",
    ] {
        for script in ["./ran.sh", "sh ran.sh"] {
            let sandbox = Sandbox::new()
                .file("docker/dev/Dockerfile", "FROM scratch\n")
                .file("docker/dev/Dockerfile.dockerignore", "")
                .file(
                    "docker/dockerutils.cfg",
                    format!("[dev]\npre_build_script = {script}\n"),
                )
                .file(".dockerignore", "")
                .file("pip.conf.template", "")
                .script("ran.sh", "#!/bin/sh\ntouch ran\n");
            let path = sandbox.project().join(theirs);
            let _given = Given::new(&path);
            sandbox
                .command("build-image")
                .arg("dev")
                .code(2)
                .stderr_has(&format!("{theirs} belongs to user {ANOTHER}"))
                .stderr_has("trusted_directories: [\"[SANDBOX]/sample\"]")
                .run();
            assert!(!sandbox.project().join("ran").exists());
        }
    }
}

/// A stack runs its tests, sends its files to an engine, and pushes images with the caller's logins.
#[test]
fn no_command_uses_another_users_stack_or_what_is_theirs_in_one() {
    let sandbox = || {
        let sandbox = Sandbox::new()
            .file("images/spec.yml", "images: {base: {image_name: 127.0.0.1:1/base}}\n")
            .file("images/change_ignore.json", "{}")
            .file("images/base/Dockerfile", "FROM scratch\n")
            .file("images/base/.dockerignore", "")
            .script("images/tests_common/all", "#!/bin/sh\ntouch ran\n")
            .script("images/base/test/one", "#!/bin/sh\ntouch ran\n");
        sandbox.shell("git init -q -b main");
        sandbox.commit("first");
        sandbox
    };
    for theirs in [
        "images",
        "images/spec.yml",
        "images/change_ignore.json",
        "images/base",
        "images/base/Dockerfile",
        "images/base/.dockerignore",
        "images/base/test",
        "images/tests_common",
    ] {
        let sandbox = sandbox();
        let path = sandbox.project().join(theirs);
        let _given = Given::new(&path);
        for (command, arguments, code) in [
            ("build-stack", &["--describe"][..], 2),
            ("build-stack", &[], 2),
            ("plan-stack", &[], 2),
            ("test-stack", &[], 2),
            ("run-image", &["base"], 125),
            ("run-notebook", &["base"], 125),
        ] {
            sandbox
                .command(command)
                .args(arguments)
                .code(code)
                .stderr_has(&format!("{theirs} belongs to user {ANOTHER}"))
                .stderr_has("config.yml: trusted_directories: [\"[SANDBOX]/sample\"]")
                .run();
        }
        assert!(!sandbox.project().join("ran").exists());
    }
    // Neither is a single test of theirs run.
    let sandbox = sandbox();
    let path = sandbox.project().join("images/base/test/one");
    let _given = Given::new(&path);
    sandbox
        .command("test-stack")
        .args(["--dry-run", "--kind", "basic"])
        .code(2)
        .stderr_has(&format!("images/base/test/one belongs to user {ANOTHER}"))
        .run();
}

#[test]
fn nothing_is_said_to_an_agents_socket_in_a_directory_of_another_user() {
    let list = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 127.0.0.1\n";
    let sandbox = Sandbox::new()
        .file("../home/.config/dockerutils/docks.yml", list)
        .file("docker/dev/Dockerfile", "FROM scratch\n");
    let home = sandbox.home();
    let env = Env::from_pairs([("HOME", home.to_str().unwrap())]);
    let dock: Dock = docks::list(&env).read().unwrap().remove(0);
    let paths = AgentPaths::of(&dock, &env).unwrap();
    let directory = home.join(".cache/dockerutils/run");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    let listener = UnixListener::bind(paths.control_socket()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let _given = Given::new(&directory);
    for (command, arguments, code) in [
        ("ssh-dock", &["far", "true"][..], 255),
        ("dock-env", &["far", "--lines"], 1),
        ("build-image", &["dev", "--dock", "far"], 1),
    ] {
        sandbox
            .command(command)
            .args(arguments)
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("DOCKER_HOST")
            .code(code)
            .any_stdout()
            .stderr_has("are not used: it belongs to another user")
            .stderr_has("hint: see who put it there: ls -ld")
            .run();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "{command}"
        );
    }
}
