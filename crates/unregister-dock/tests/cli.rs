//! `unregister-dock`, on lists of its own and of the original.

use dockerutils_test_support::Sandbox;

const LIST: &str = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: 10.0.0.7\n    user: ann\n- moniker: near\n  \
                    tcp:\n    address: 127.0.0.1:2375\n";

fn sandbox() -> Sandbox {
    Sandbox::new()
        .file("../home/.config/dockerutils/docks.yml", LIST)
        .file(
            "../home/.docker/10.0.0.8/connection_config.txt",
            "DOCK_USER=ubuntu\nDOCK_MONIKER=50%\nDOCK_IP=10.0.0.8\n",
        )
        .file("../home/.docker/config.json", "{}")
}

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command("unregister-dock").arg(flag).stdout(text).run();
    }
}

#[test]
fn a_dock_is_taken_off_and_the_others_stay() {
    let sandbox = sandbox();
    sandbox
        .command("unregister-dock")
        .arg("far")
        .stdout("far (ann@10.0.0.7) is not a dock any more\n")
        .run();
    let list = sandbox.read("../home/.config/dockerutils/docks.yml");
    assert!(!list.contains("far") && list.contains("near"), "{list}");
    let removed = sandbox
        .command("unregister-dock")
        .args(["near", "--json"])
        .any_stdout()
        .run();
    assert_eq!(removed.json()["removed"], "near");
    assert!(sandbox.leftovers().is_empty(), "{:?}", sandbox.leftovers());
}

#[test]
fn an_unknown_one_is_no_failure_and_changes_nothing() {
    let sandbox = sandbox();
    sandbox
        .command("unregister-dock")
        .arg("nope")
        .stdout("No moniker found\n")
        .run();
    assert_eq!(sandbox.read("../home/.config/dockerutils/docks.yml"), LIST);
}

#[test]
fn of_the_original_only_its_own_file_goes() {
    let sandbox = sandbox();
    let folder = sandbox.home().join(".docker/10.0.0.8");
    sandbox
        .command("unregister-dock")
        .args(["50%", "--dry-run"])
        .stdout("remove [SANDBOX]/home/.docker/10.0.0.8/connection_config.txt\n")
        .run();
    assert!(folder.exists());
    // By its address, too.
    sandbox
        .command("unregister-dock")
        .arg("10.0.0.8")
        .stdout("50% (ubuntu@10.0.0.8) is not a dock any more\n")
        .run();
    assert!(!folder.exists());
    assert!(sandbox.home().join(".docker/config.json").exists());
}

#[test]
fn an_original_without_an_address_takes_nothing_with_it() {
    let sandbox = Sandbox::new()
        .file(
            "../home/.docker/empty/connection_config.txt",
            "DOCK_MONIKER=evil\nDOCK_IP=\nDOCK_HOSTNAME=../..\n",
        )
        .file("../home/.docker/empty/key.pem", "")
        .file("../home/.docker/config.json", "{}");
    sandbox.command("unregister-dock").arg("evil").any_stdout().run();
    let docker = sandbox.home().join(".docker");
    assert!(!docker.join("empty/connection_config.txt").exists());
    assert!(docker.join("empty/key.pem").exists() && docker.join("config.json").exists());
}

#[test]
fn a_shell_that_is_docked_there_is_warned() {
    sandbox()
        .command("unregister-dock")
        .arg("near")
        .env("_DOCK_MONIKER", "[dock:near] ")
        .any_stdout()
        .stderr_has("warning: this shell is still docked to it: castoff")
        .run();
}
