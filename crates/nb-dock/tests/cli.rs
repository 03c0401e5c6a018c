//! `nb-dock`: which dock is meant and what would be run there. The connection and JupyterLab itself are in the real tests.

use dockerutils_test_support::Sandbox;

const LIST: &str = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 10.0.0.7\n    user: ann\n- moniker: tcp\n  tcp:\n    \
                    address: 127.0.0.1:2375\n";

fn sandbox() -> Sandbox {
    Sandbox::new().file("../home/.config/dockerutils/docks.yml", LIST)
}

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command("nb-dock").arg(flag).stdout(text).run();
    }
}

#[test]
fn the_plan_is_the_command_on_the_dock() {
    for (words, plan) in [
        (&["far"][..], "ssh-dock far 'jupyter-lab --no-browser'\n"),
        (
            &["far", "--env", "/opt/torch", "--", "--LabApp.collaborative=True"],
            "ssh-dock far '/opt/torch/bin/jupyter-lab --no-browser --LabApp.collaborative=True'\n",
        ),
        (
            &["far", "--launch", "srun --gres=gpu:1"],
            "ssh-dock far 'srun --gres=gpu:1 jupyter-lab --no-browser'\n",
        ),
        (&["far", "--stop=0f3a"], "stop the server 0f3a on far\n"),
    ] {
        sandbox()
            .command("nb-dock")
            .arg("--dry-run")
            .args(words)
            .stdout(plan)
            .run();
    }
    let planned = sandbox()
        .command("nb-dock")
        .args(["far", "--dry-run", "--json"])
        .any_stdout()
        .run();
    assert_eq!(
        planned.json(),
        serde_json::json!({ "commands": ["ssh-dock far 'jupyter-lab --no-browser'"] })
    );
}

#[test]
fn a_docked_shell_needs_no_name() {
    sandbox()
        .command("nb-dock")
        .arg("--dry-run")
        .env("_DOCK_MONIKER", "[dock:far] ")
        .stdout("ssh-dock far 'jupyter-lab --no-browser'\n")
        .run();
    sandbox()
        .command("nb-dock")
        .code(2)
        .stderr_has("which dock? None is named, and this shell is not docked")
        .run();
}

#[test]
fn what_can_not_be_done_is_said_before_anything_is_connected() {
    for (words, message, hint) in [
        (
            &["tcp"][..],
            "\"tcp\" is tcp://127.0.0.1:2375: its engine is all that can be reached",
            "hint: register its machine",
        ),
        (
            &["far", "--launch", "'"],
            "--launch \"'\" can't be split into words",
            "hint: it takes a command in one word",
        ),
        (
            &["far", "--launch", ""],
            "--launch names no command",
            "hint: nb-dock --launch 'srun --gres=gpu:1'",
        ),
        (
            &["far", "--", "a\nb"],
            "has a line feed in it",
            "hint: put it into a file",
        ),
    ] {
        let said = sandbox().command("nb-dock").args(words).code(2).any_stderr().run();
        assert!(said.stderr.contains(message) && said.stderr.contains(hint), "{said}");
    }
    for words in [
        &["far", "--list", "--detach"][..],
        &["far", "--stop", "--no-browser"],
        &["far", "--port", "70000"],
    ] {
        let said = sandbox().command("nb-dock").args(words).code(2).any_stderr().run();
        assert!(said.stdout.is_empty(), "{said}");
    }
    let said = sandbox()
        .command("nb-dock")
        .args(["nope", "--json"])
        .code(2)
        .any_stdout()
        .any_stderr()
        .run();
    assert!(
        said.json()["error"].as_str().unwrap().contains("no dock \"nope\""),
        "{said}"
    );
}
