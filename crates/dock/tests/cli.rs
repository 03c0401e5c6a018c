//! `dock-env`, with scripted engines on TCP. The shells themselves are in the real tests.

use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine};
use serde_json::json;

fn engine() -> ScriptedEngine {
    let info = json!({ "ServerVersion": "26.1.5", "Name": "box", "NCPU": 8 });
    ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info))
}

fn sandbox(address: &str) -> Sandbox {
    let list = format!(
        "version: 1\ndocks:\n- moniker: far\n  tcp:\n    address: {address}\n- moniker: it's $(touch pwned)\n  tcp:\n    address: {address}\n"
    );
    Sandbox::new().file("../home/.config/dockerutils/docks.yml", list)
}

#[test]
fn the_help_is_the_manual() {
    Sandbox::new()
        .command("dock-env")
        .arg("-h")
        .stdout(include_str!("help.txt"))
        .run();
}

#[test]
fn lines_are_for_the_shim_and_say_which_engine_answers() {
    let engine = engine();
    let address = engine.tcp();
    let sandbox = sandbox(&address);
    sandbox
        .command("dock-env")
        .args(["far", "--lines", "--shell", "zsh"])
        .stdout(&format!(
            "DOCKER_HOST=tcp://{address}\nDOCKER_IP=127.0.0.1\n_DOCK_MONIKER=[dock:far] \nprompt=[dock:far] \n"
        ))
        .stderr("docked to far: docker 26.1.5 on box, 8 CPUs\n")
        .run();
    let plain = sandbox
        .command("dock-env")
        .args(["far", "--json"])
        .env("DOCKERUTILS_DISABLE_PROMPT", "yes")
        .any_stdout()
        .run()
        .json();
    assert_eq!(plain["_DOCK_MONIKER"], "[dock:far] ");
    assert_eq!(plain["prompt"], json!(null));
}

#[test]
fn values_of_code_are_in_quotes() {
    let engine = engine();
    let sandbox = sandbox(&engine.tcp());
    for (shell, quoted) in [
        ("bash", r" '_DOCK_MONIKER=[dock:it'\''s $(touch pwned)] '"),
        ("zsh", r" '_DOCK_MONIKER=[dock:it'\''s $(touch pwned)] '"),
        ("fish", r" '_DOCK_MONIKER=[dock:it\'s $(touch pwned)] '"),
    ] {
        sandbox
            .command("dock-env")
            .args(["it's $(touch pwned)", "--shell", shell])
            .stdout_has(quoted)
            .any_stderr()
            .run();
    }
}

#[test]
fn a_failure_is_code_that_fails() {
    let sandbox = sandbox("127.0.0.1:1");
    sandbox
        .command("dock-env")
        .args(["far", "--shell", "fish"])
        .code(3)
        .stdout("false\n")
        .stderr_has("dock-env: no engine answers at tcp://127.0.0.1:1")
        .run();
    sandbox
        .command("dock-env")
        .args(["near", "--lines"])
        .code(2)
        .stderr_has("there is no dock \"near\"\n\nhint: ")
        .run();
    sandbox
        .command("dock-env")
        .args(["far", "--lines"])
        .env("_DOCK_MONIKER", "[dock:near] ")
        .code(1)
        .stderr("dock-env: this shell is docked to \"near\" already, and not to \"far\"\n\nhint: castoff\n")
        .run();
}

#[test]
fn a_context_is_docked_to_by_the_address_that_it_stands_for() {
    // The SHA-256 of the context's name, `far`.
    const FOLDER: &str = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
    let engine = engine();
    let address = engine.tcp();
    let sandbox = Sandbox::new()
        .file(
            &format!("../home/.docker/contexts/meta/{FOLDER}/meta.json"),
            json!({ "Name": "far", "Metadata": {}, "Endpoints": { "docker": { "Host": format!("tcp://{address}") } } })
                .to_string(),
        )
        .file(
            "../home/.config/dockerutils/docks.yml",
            "version: 1\ndocks:\n- moniker: again\n  context:\n    name: far\n- moniker: safe\n  tcp:\n    address: \
             10.0.0.7:2376\n    tls_dir: /my certs\n",
        );
    sandbox
        .command("dock-env")
        .args(["again", "--lines"])
        .stdout_has(&format!("DOCKER_HOST=tcp://{address}\nDOCKER_IP=127.0.0.1\n"))
        .any_stderr()
        .run();
    sandbox
        .command("dock-env")
        .args(["safe", "--dry-run"])
        .stdout(
            "export DOCKER_HOST=tcp://10.0.0.7:2376\nexport DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH='/my certs'\n",
        )
        .run();
}

#[test]
fn monikers_are_listed_for_completion_and_those_that_break_lines_are_not() {
    sandbox("127.0.0.1:1")
        .file(
            "../home/.docker/10.0.0.8/connection_config.txt",
            "DOCK_MONIKER=a\u{1b}b\nDOCK_IP=10.0.0.8\n",
        )
        .file(
            "../home/.docker/10.0.0.9/connection_config.txt",
            "DOCK_MONIKER=old\nDOCK_IP=10.0.0.9\n",
        )
        .command("dock-env")
        .arg("--complete")
        .stdout("far\nit's $(touch pwned)\nold\n")
        .run();
    Sandbox::new()
        .file("../home/.config/dockerutils/docks.yml", "docks: [")
        .command("dock-env")
        .arg("--complete")
        .run();
}

#[test]
fn the_dock_that_it_is_docked_to_is_said_once_and_a_shell_below_is_adopted() {
    let engine = engine();
    let address = engine.tcp();
    let sandbox = sandbox(&address);
    let docked = || sandbox.command("dock-env").env("_DOCK_MONIKER", "[dock:far] ");
    docked()
        .args(["far", "--lines"])
        .code(1)
        .stderr(
            "dock-env: this shell is docked to \"far\" already\n\nhint: castoff goes back; in a shell that was started in a docked \
             one: source dock\n",
        )
        .run();
    for words in [&["--adopt", "--lines"][..], &["far", "--adopt", "--lines"]] {
        docked()
            .args(words)
            .stdout_has(&format!("DOCKER_HOST=tcp://{address}\n"))
            .any_stderr()
            .run();
    }
    docked()
        .args(["--adopt", "near", "--lines"])
        .code(1)
        .stderr_has("docked to \"far\" already, and not to \"near\"")
        .run();
    sandbox
        .command("dock-env")
        .args(["--adopt", "--lines"])
        .code(2)
        .any_stderr()
        .run();
}
