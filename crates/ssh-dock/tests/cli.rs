//! `ssh-dock`: which dock and which command are meant. The connection itself is in the real tests.

use dockerutils_test_support::Sandbox;

const LIST: &str = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 10.0.0.7\n    user: ann\n    port: 2222\n- \
                    moniker: tcp\n  tcp:\n    address: 127.0.0.1:2375\n";

fn sandbox() -> Sandbox {
    Sandbox::new().file("../home/.config/dockerutils/docks.yml", LIST)
}

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command("ssh-dock").arg(flag).stdout(text).run();
    }
}

#[test]
fn the_plan_is_the_command_of_the_ssh_client() {
    for (words, plan) in [
        (
            &["far", "ls", "-l", "*"][..],
            "ssh -p 2222 -l ann -- 10.0.0.7 ls -l '*'\n",
        ),
        (&["-t", "far"], "ssh -t -p 2222 -l ann -- 10.0.0.7\n"),
        (
            &["-l", "bob", "far", "rsync", "--server", "-e.LsfxCIvu", ".", "/data"],
            "ssh -p 2222 -l bob -- 10.0.0.7 rsync --server -e.LsfxCIvu . /data\n",
        ),
        (&["root@far", "id"], "ssh -p 2222 -l root -- 10.0.0.7 id\n"),
        (
            &["-s", "-L 8888:localhost:8888 -N", "far"],
            "ssh -L 8888:localhost:8888 -N -p 2222 -l ann -- 10.0.0.7\n",
        ),
    ] {
        sandbox()
            .command("ssh-dock")
            .arg("--dry-run")
            .args(words)
            .stdout(plan)
            .run();
    }
}

#[test]
fn a_docked_shell_needs_no_name() {
    sandbox()
        .command("ssh-dock")
        .arg("--dry-run")
        .env("_DOCK_MONIKER", "[dock:far] ")
        .stdout("ssh -p 2222 -l ann -- 10.0.0.7\n")
        .run();
    sandbox()
        .command("ssh-dock")
        .args(["ls", "/tmp"])
        .env("_DOCK_MONIKER", "[dock:far] ")
        .code(255)
        .stderr_has("there is no dock \"ls\"\n\nhint: a command comes after the dock's name: ssh-dock far ls /tmp\n")
        .run();
    sandbox()
        .command("ssh-dock")
        .code(255)
        .stderr_has("which dock? None is named, and this shell is not docked")
        .run();
}

#[test]
fn own_failures_are_255() {
    sandbox()
        .command("ssh-dock")
        .arg("tcp")
        .code(255)
        .stderr_has("\"tcp\" is tcp://127.0.0.1:2375: its engine is all that can be reached")
        .stderr_has("hint: register its machine")
        .run();
    sandbox().command("ssh-dock").arg("--nope").code(255).any_stderr().run();
    sandbox()
        .command("ssh-dock")
        .args(["-s", "'", "far"])
        .code(255)
        .stderr_has("hint: -s takes options of ssh in one word")
        .run();
}
