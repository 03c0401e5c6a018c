//! `ls-dock`, with scripted engines on TCP.

use std::time::{Duration, Instant};

use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine};
use serde_json::json;

/// An engine of one machine.
fn engine(name: &str) -> ScriptedEngine {
    let info = json!({
        "ServerVersion": "26.1.5", "Name": name, "NCPU": 8, "MemTotal": 32_000_000_000_i64, "Images": 7,
        "Containers": 5, "ContainersRunning": 3, "OperatingSystem": "Debian GNU/Linux 13", "Architecture": "x86_64",
        "Runtimes": { "nvidia": {} }, "DockerRootDir": "/nowhere/docker",
    });
    ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info))
}

/// A sandbox whose list has these docks, `(moniker, address)`.
fn sandbox(docks: &[(&str, &str)]) -> Sandbox {
    let entries: String = docks
        .iter()
        .map(|(moniker, address)| {
            let moniker = serde_json::Value::from(*moniker);
            format!("- moniker: {moniker}\n  tcp:\n    address: \"{address}\"\n")
        })
        .collect();
    Sandbox::new().file(
        "../home/.config/dockerutils/docks.yml",
        format!("version: 1\ndocks:\n{entries}"),
    )
}

#[test]
fn the_help_is_the_manual() {
    Sandbox::new()
        .command("ls-dock")
        .arg("-h")
        .stdout(include_str!("help.txt"))
        .run();
    Sandbox::new()
        .command("ls-dock")
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
}

#[test]
fn docks_are_listed_and_the_current_one_is_marked() {
    let (here, far) = (engine("desk"), engine("box"));
    let address = far.tcp();
    let sandbox = sandbox(&[("far", &address)]);
    let listed = sandbox.command("ls-dock").engine(&here).any_stdout().run().stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("  DOCK") && lines.len() == 3, "{listed}");
    assert!(lines[1].starts_with("* localhost  unix://"), "{listed}");
    assert!(lines[2].starts_with("  far        tcp://127.0.0.1:"), "{listed}");
    assert!(lines[2].contains("running  26.1.5      3 of 5"), "{listed}");
    let docked = sandbox
        .command("ls-dock")
        .args(["far", "--wide"])
        .env("DOCKER_HOST", format!("tcp://{address}"))
        .env("_DOCK_MONIKER", "[dock:far] ")
        .stdout_has("* far")
        .stdout_has("32.0 GB   yes")
        .run();
    assert_eq!(docked.stdout.lines().count(), 2);
}

#[test]
fn a_result_that_can_not_be_written_is_no_success() {
    let sandbox = sandbox(&[]);
    let to = |redirection: &str, words: &str| {
        let line = format!("exec \"$0\" {words} {redirection}");
        let ls_dock = dockerutils_test_support::binary("ls-dock");
        let sh = sandbox.program("/bin/sh").args(["-c", &line]).arg(ls_dock);
        sh.spawn().wait()
    };
    for words in ["", "--json", "--help", "--version"] {
        let outcome = to("> /dev/full", words);
        assert_eq!(outcome.code, 1, "{words} {outcome}");
    }
    let outcome = to("> /dev/full", "--json");
    assert!(
        outcome
            .stderr
            .contains("could not be written to stdout: No space left on device"),
        "{outcome}"
    );
    assert!(outcome.stderr.contains("hint: "), "{outcome}");
    // A closed pipe is not an error.
    assert_eq!(to("| true; exit 0", "--json").stderr, "");
}

#[test]
fn json_has_all_that_is_known() {
    let far = engine("box");
    let sandbox = sandbox(&[("far", &far.tcp()), ("dead", "127.0.0.1:1")]);
    let listed = sandbox
        .command("ls-dock")
        .args(["far", "dead", "--json"])
        .code(3)
        .any_stdout()
        .run()
        .json();
    let (far, dead) = (&listed[0], &listed[1]);
    assert_eq!(far["moniker"], "far");
    assert_eq!(far["state"], "running");
    assert_eq!(far["cpus"], 8);
    assert_eq!(far["memory"], 32_000_000_000_i64);
    assert!(far["round_trip_ms"].as_f64().unwrap() < 1000.0);
    assert_eq!(dead["state"], "unreachable");
    assert!(dead["reason"].as_str().unwrap().contains("refused"), "{dead}");
    assert_eq!(dead["hint"], "ls-dock --check dead says what is wrong");
}

#[test]
fn fifty_docks_of_which_ten_are_dead_take_the_time_of_one() {
    let engines: Vec<_> = (0..40).map(|number| engine(&format!("box{number}"))).collect();
    let mut docks: Vec<(String, String)> = engines
        .iter()
        .enumerate()
        .map(|(number, engine)| (format!("dock{number}"), engine.tcp()))
        .collect();
    // Five that accept the connection and never answer, and five where nothing listens.
    let silent: Vec<_> = (0..5)
        .map(|_| ScriptedEngine::start().on("GET", "/_ping", Reply::hang()))
        .collect();
    docks.extend(
        silent
            .iter()
            .enumerate()
            .map(|(number, engine)| (format!("silent{number}"), engine.tcp())),
    );
    docks.extend((0..5).map(|number| (format!("dead{number}"), "127.0.0.1:1".to_owned())));
    let docks: Vec<(&str, &str)> = docks
        .iter()
        .map(|(moniker, address)| (&**moniker, &**address))
        .collect();
    let sandbox = sandbox(&docks);
    let started = Instant::now();
    let listed = sandbox.command("ls-dock").arg("--json").any_stdout().run().json();
    let took = started.elapsed();
    let states = |state: &str| {
        let rows = listed.as_array().unwrap().iter();
        rows.filter(|row| row["moniker"] != "localhost" && row["state"] == state)
            .count()
    };
    assert_eq!((states("running"), states("unreachable")), (40, 10), "{listed}");
    // One after the other, those that say nothing would take five times five seconds.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn what_is_named_and_not_there_gets_a_hint() {
    sandbox(&[("far", "127.0.0.1:1")])
        .command("ls-dock")
        .arg("fra")
        .code(2)
        .stderr_has("ls-dock: there is no dock \"fra\"\n\nhint: is it \"far\"? `ls-dock` lists them all\n")
        .run();
}

#[test]
fn a_damaged_list_is_named_with_its_line() {
    Sandbox::new()
        .file(
            "../home/.config/dockerutils/docks.yml",
            "version: 1\ndocks:\n- moniker: [\n",
        )
        .command("ls-dock")
        .code(2)
        .stderr_has("ls-dock: the list of docks [SANDBOX]/home/.config/dockerutils/docks.yml:")
        .stderr_has("hint: fix the file by hand")
        .run();
}

#[test]
fn hostile_names_and_answers_move_no_cursor_and_run_nothing() {
    let info = json!({ "ServerVersion": "26\u{1b}[2J\u{7}", "Name": "x" });
    let hostile = ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info));
    let sandbox = sandbox(&[("x[$(touch pwned)]", &hostile.tcp())]).file(
        "../home/.docker/10.0.0.7/connection_config.txt",
        "x[$(touch pwned)]=1\nDOCK_MONIKER=\u{1b}[2Jevil$(touch${IFS}pwned)\nDOCK_IP=127.0.0.1\nDOCK_USER=-oProxyCommand=x\n",
    );
    let listed = sandbox.command("ls-dock").any_stdout().any_stderr().run();
    assert!(listed.stdout.contains("x[$(touch pwned)]"), "{listed}");
    assert!(listed.stdout.contains("evil$(touch${IFS}pwned)"), "{listed}");
    assert!(
        !listed.stdout.contains('\u{1b}') && !listed.stdout.contains('\u{7}'),
        "{listed}"
    );
    assert!(!sandbox.project().join("pwned").exists());
}

#[test]
fn a_check_says_what_is_right_and_what_is_wrong() {
    let far = engine("box");
    let sandbox = sandbox(&[("far", &far.tcp()), ("dead", "127.0.0.1:1")]);
    sandbox
        .command("ls-dock")
        .args(["--check", "far"])
        .stdout_has("  ok  route   127.0.0.1:")
        .stdout_has("  ok  engine  docker 26.1.5, API 1.45, classic image store\n")
        .run();
    let found = sandbox
        .command("ls-dock")
        .args(["--check", "dead", "--json"])
        .code(1)
        .any_stdout()
        .run()
        .json();
    let route = &found[0]["findings"][1];
    assert_eq!(
        (&route["check"], &route["verdict"]),
        (&json!("route"), &json!("wrong")),
        "{found}"
    );
    assert!(route["mend"].as_str().unwrap().contains("firewall"));
    sandbox
        .command("ls-dock")
        .arg("--check")
        .code(2)
        .stderr_has("hint: ls-dock --check far")
        .run();
}

#[test]
fn ports_are_forwarded_from_docks_that_ssh_reaches() {
    let sandbox = sandbox(&[("far", "127.0.0.1:1")]);
    sandbox
        .command("ls-dock")
        .args(["--ports", "far"])
        .stderr("no ports are forwarded\nfar: ports are forwarded from docks that ssh reaches\n")
        .run();
    sandbox
        .command("ls-dock")
        .args(["--ports", "--json"])
        .stdout("[]\n")
        .run();
    sandbox
        .command("ls-dock")
        .args(["--ports", "--dry-run"])
        .stdout("ask the agent of far\n")
        .run();
    sandbox
        .command("ls-dock")
        .args(["--ports", "fra"])
        .code(2)
        .stderr_has("there is no dock \"fra\"")
        .run();
}

#[test]
fn an_agent_is_not_started_to_be_asked_for_ports() {
    let list = "version: 1\ndocks:\n- moniker: far\n  ssh:\n    host: nowhere.invalid\n";
    let sandbox = Sandbox::new().file("../home/.config/dockerutils/docks.yml", list);
    sandbox
        .command("ls-dock")
        .args(["--ports", "far"])
        .stderr("no ports are forwarded\nfar: nothing uses it now; its ports are forwarded when something does\n")
        .run();
}

#[test]
fn this_machine_is_localhost_and_local_unless_a_dock_is() {
    let (here, far) = (engine("desk"), engine("box"));
    let address = far.tcp();
    let sandbox = sandbox(&[("far", &address)]);
    for name in ["localhost", "local"] {
        sandbox
            .command("ls-dock")
            .arg(name)
            .engine(&here)
            .stdout_has("* localhost  unix://")
            .run();
    }
    sandbox
        .command("ls-dock")
        .args(["--check", "localhost"])
        .code(2)
        .stderr_has("localhost is this machine, and no dock")
        .run();
    // Lists of earlier versions.
    let sandbox = self::sandbox(&[("local", &address), ("localhost", &address)]);
    sandbox
        .command("ls-dock")
        .arg("local")
        .engine(&here)
        .stdout_has("  local  tcp://")
        .stderr_has("")
        .run();
    sandbox
        .command("ls-dock")
        .engine(&here)
        .any_stdout()
        .stderr_has(&format!(
            "localhost is this machine, and not the dock tcp://{address} that was registered by that name: unregister-dock \
             localhost, then register it under another\n"
        ))
        .stderr_has(&format!(
            "local is the dock tcp://{address}, which was registered by that name; this machine is localhost\n"
        ))
        .run();
    sandbox.command("unregister-dock").arg("localhost").any_stdout().run();
    sandbox.command("ls-dock").engine(&here).any_stdout().any_stderr().run();
}

#[test]
fn an_error_is_in_the_document_whatever_it_is() {
    let sandbox = sandbox(&[("far", "127.0.0.1:1")]);
    for (words, code, kind) in [
        (&["--json", "fra"][..], 2, "usage"),
        (&["--json", "--wide", "--check"], 2, "usage"),
        (&["--json", "--no-such-option"], 2, "usage"),
    ] {
        let said = sandbox
            .command("ls-dock")
            .args(words)
            .code(code)
            .any_stdout()
            .any_stderr()
            .run()
            .json();
        assert_eq!(said["kind"], kind, "{said}");
        assert!(!said["error"].as_str().unwrap().is_empty(), "{said}");
    }
}
