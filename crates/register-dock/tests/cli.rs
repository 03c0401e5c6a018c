//! `register-dock`, with scripted engines on TCP. What ssh reaches is in the real tests.

use dockerutils_test_support::{Reply, Sandbox, ScriptedEngine};
use serde_json::json;

const LIST: &str = "../home/.config/dockerutils/docks.yml";

fn engine() -> ScriptedEngine {
    let info = json!({
        "ServerVersion": "26.1.5", "NCPU": 8, "MemTotal": 33_600_000_000_i64, "OperatingSystem": "Debian GNU/Linux 13",
        "Architecture": "x86_64", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    });
    ScriptedEngine::start().on("GET", "/info", Reply::json(200, &info))
}

#[test]
fn the_help_is_the_manual() {
    for (flag, text) in [
        ("-h", include_str!("help.txt")),
        ("--help", include_str!("help-long.txt")),
    ] {
        Sandbox::new().command("register-dock").arg(flag).stdout(text).run();
    }
}

#[test]
fn an_engine_on_tcp_is_asked_and_registered() {
    let (engine, sandbox) = (engine(), Sandbox::new());
    let address = engine.tcp();
    let said = sandbox
        .command("register-dock")
        .args(["--host", &format!("tcp://{address}"), "far", "--workspace", "/data"])
        .args(["--forward", "none"])
        .any_stdout()
        .stderr("\nhint: source dock far\n")
        .run();
    assert!(
        said.stdout.starts_with(&format!("far is a dock: tcp://{address}\n")),
        "{said}"
    );
    assert!(
        said.stdout
            .contains("docker 26.1.5, API 1.45, containerd image store, "),
        "{said}"
    );
    assert!(
        said.stdout
            .contains("Debian GNU/Linux 13 x86_64, 8 CPUs, 33.6 GB memory, no GPU\n"),
        "{said}"
    );
    let list = sandbox.read(LIST);
    let expected = format!("- moniker: far\n  tcp:\n    address: {address}\n  workspace: /data\n  forward: none\n");
    assert!(list.ends_with(&format!("version: 1\ndocks:\n{expected}")), "{list}");
    // The same once more changes nothing, and is no failure.
    sandbox
        .command("register-dock")
        .args([
            "--host",
            &format!("tcp://{address}"),
            "far",
            "--workspace",
            "/data",
            "--forward",
            "none",
            "--json",
        ])
        .any_stdout()
        .run();
    assert_eq!(sandbox.read(LIST), list);
    assert!(sandbox.leftovers().is_empty(), "{:?}", sandbox.leftovers());
}

#[test]
fn an_engine_that_does_not_answer_is_not_registered() {
    let sandbox = Sandbox::new();
    sandbox
        .command("register-dock")
        .args(["--host", "tcp://127.0.0.1:1", "dead"])
        .code(3)
        .stderr_has("register-dock: no engine answers at tcp://127.0.0.1:1")
        .stderr_has("\n\nhint: ls-dock --check dead says what is wrong\n")
        .run();
    assert!(!sandbox.project().join(LIST).exists());
    sandbox
        .command("register-dock")
        .args(["--host", "tcp://127.0.0.1:1", "dead", "--no-check"])
        .stdout("dead is a dock: tcp://127.0.0.1:1\n")
        .any_stderr()
        .run();
    assert!(sandbox.read(LIST).contains("dead"));
}

#[test]
fn where_no_sshd_listens_the_hint_is_the_very_way_that_was_tried() {
    Sandbox::new()
        .command("register-dock")
        .args(["ann@127.0.0.1:9", "far"])
        .code(3)
        .stderr_has("try: ssh -v -p 9 ann@127.0.0.1\n")
        .run();
}

#[test]
fn a_moniker_that_is_taken_is_given_only_by_force() {
    let sandbox = Sandbox::new();
    let register = |words: &[&str]| {
        let words = words.iter().chain(&["--no-check"]);
        sandbox.command("register-dock").args(words).any_stdout().any_stderr()
    };
    register(&["ann@10.0.0.7", "far"]).run();
    let refused = register(&["10.0.0.8", "far"]).code(1).run();
    assert!(
        refused
            .stderr
            .contains("there is a dock \"far\" already: ann@10.0.0.7\n\nhint: choose another moniker, or --force"),
        "{refused}"
    );
    register(&["10.0.0.8", "far", "--force"]).run();
    let list = sandbox.read(LIST);
    assert!(list.contains("10.0.0.8") && !list.contains("10.0.0.7"), "{list}");
    // How it is reached is new; what was chosen for it stays, until something else is.
    register(&["10.0.0.8", "far", "-f", "--forward", "all", "--workspace", "/w"]).run();
    register(&["10.0.0.9", "far", "-f", "--port", "2222"]).run();
    let list = sandbox.read(LIST);
    assert!(
        list.contains("10.0.0.9") && list.contains("workspace: /w\n  forward: all\n"),
        "{list}"
    );
    // The same registration again is not a different dock.
    register(&["10.0.0.9", "far", "--port", "2222"]).run();
    register(&["10.0.0.9", "far", "-f", "--forward", "mine"]).run();
    let list = sandbox.read(LIST);
    assert!(
        list.contains("workspace: /w\n") && !list.contains("forward") && !list.contains("2222"),
        "{list}"
    );
}

#[test]
fn all_that_is_said_of_a_machine_is_written_down() {
    let sandbox = Sandbox::new().file("key", "");
    let registered = sandbox
        .command("register-dock")
        .args(["box", "--no-check", "--json", "--port", "2222", "--identity", "key"])
        .args(["--docker-socket", "/run/user/1000/docker.sock"])
        .env("DOCK_USER", "admin")
        .any_stdout()
        .run()
        .json();
    assert_eq!(registered["moniker"], "box");
    let ssh = &registered["ssh"];
    assert_eq!(
        (&ssh["host"], &ssh["user"], &ssh["port"]),
        (&json!("box"), &json!("admin"), &json!(2222))
    );
    assert!(ssh["identity"].as_str().unwrap().ends_with("/sample/key"));
    // A user that is named wins over DOCK_USER.
    for words in [&["bob@box", "one"][..], &["box", "two", "-u", "bob"]] {
        let registered = sandbox
            .command("register-dock")
            .args(words)
            .args(["--no-check", "--json"])
            .env("DOCK_USER", "admin")
            .any_stdout()
            .run()
            .json();
        assert_eq!(registered["ssh"]["user"], "bob");
    }
}

#[test]
fn a_context_of_docker_s_is_a_dock_and_a_dock_is_a_context() {
    let (engine, sandbox) = (engine(), Sandbox::new());
    let address = engine.tcp();
    sandbox
        .command("register-dock")
        .args(["--host", &format!("tcp://{address}"), "far", "--make-context"])
        .stdout_has("  context  docker --context far ps\n")
        .any_stderr()
        .run();
    sandbox
        .command("register-dock")
        .args(["--context", "far", "again"])
        .stdout_has("again is a dock: context far\n")
        .any_stderr()
        .run();
    sandbox
        .command("register-dock")
        .args(["--context", "far", "--make-context"])
        .code(2)
        .stderr_has("the docker context \"far\" exists already")
        .run();
    sandbox
        .command("register-dock")
        .args(["--context", "gone"])
        .code(2)
        .stderr_has("the docker context \"gone\" can't be read")
        .run();
    // A name that docker does not take.
    sandbox
        .command("register-dock")
        .args(["box", "x[$(id)]", "--no-check", "--make-context"])
        .code(2)
        .stderr_has("docker accepts no context of the name")
        .run();
}

#[test]
fn a_machine_is_understood_as_people_write_it() {
    for (words, moniker, place) in [
        (&["ann@box:2222"][..], "box", "ann@box:2222"),
        (&["box:2222"], "box", "box:2222"),
        (&["box:2222", "--port", "2222"], "box", "box:2222"),
        (&["[::1]"], "::1", "::1"),
        (&["ann@[::1]:2222", "near"], "near", "ann@[::1]:2222"),
        (&["fe80::1"], "fe80::1", "fe80::1"),
        (&["ssh://ann@box:2222", "far"], "far", "ann@box:2222"),
        (&["ssh://ann@box:2222"], "box", "ann@box:2222"),
        (&["ssh://box/"], "box", "box"),
        (&["ssh://[::1]:2222"], "::1", "[::1]:2222"),
        (&["--host", "ssh://ann@[::1]:2222", "near"], "near", "ann@[::1]:2222"),
    ] {
        let sandbox = Sandbox::new();
        sandbox
            .command("register-dock")
            .args(words.iter().copied().chain(["--no-check"]))
            .stdout(&format!("{moniker} is a dock: {place}\n"))
            .any_stderr()
            .run();
    }
    let docker = Sandbox::new()
        .command("register-dock")
        .args(["ssh://ann@box:2222/run/d.sock", "far", "--no-check", "--json"])
        .any_stdout()
        .run()
        .json();
    let expected = json!({"host": "box", "user": "ann", "port": 2222, "docker_socket": "/run/d.sock"});
    assert_eq!(docker["ssh"], expected);
}

#[test]
fn what_can_be_no_dock_is_refused_with_a_hint() {
    for (words, message, hint) in [
        (&[][..], "no host is named", "register-dock HOST MONIKER"),
        (&["box", "a/b"], "\"a/b\" can't be a moniker", "choose a short name"),
        (&["box", "a\u{1b}[2Jb"], "can't be a moniker", "choose a short name"),
        (
            &["--", "-oProxyCommand=x"],
            "is not a host",
            "a name, an address, or a Host of ~/.ssh/config",
        ),
        (&["a b"], "\"a b\" is not a host", "a name, an address"),
        (
            &["box:http"],
            "\"box:http\" is not a host: \"http\" is not a port",
            "a name, an address",
        ),
        (
            &["box:"],
            "\"box:\" is not a host: \"\" is not a port",
            "a name, an address",
        ),
        (&["[::1]x"], "\"[::1]x\" is not a host", "a name, an address"),
        (
            &["box:2222", "--port", "22"],
            "two ports are named: 2222 in the address, and --port 22",
            "leave one of them out",
        ),
        (
            &["ssh://box:2222", "--port", "22"],
            "two ports are named",
            "leave one of them out",
        ),
        (&["ssh://a:b@box"], "a password is not allowed here", "tcp://HOST:PORT"),
        (
            &["tcp://box:2375", "x"],
            "is not a machine that ssh reaches",
            "register-dock --host tcp://box:2375 MONIKER",
        ),
        (&["box", "--user=-x"], "\"-x\" is not a user", "-u USER, or DOCK_USER"),
        (
            &["box", "--identity", "/nowhere"],
            "there is no key /nowhere",
            "--identity names",
        ),
        (
            &["box", "--docker-socket", "docker.sock"],
            "is not an absolute path",
            "--docker-socket /...",
        ),
        (
            &["--host", "unix:///run/x.sock", "x"],
            "/run/x.sock is on this machine",
            "docker context create",
        ),
        (&["--host", "npipe://x", "x"], "--host", "tcp://HOST:PORT"),
        (
            &["--host", "tcp://box", "a", "b"],
            "only a moniker goes with it",
            "register-dock --host ... MONIKER",
        ),
        (
            &["--host", "tcp://box", "--tls-dir", "."],
            "has no ca.pem",
            "--tls-dir names",
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox
            .command("register-dock")
            .args(words)
            .code(2)
            .stderr_has(message)
            .stderr_has(&format!("\n\nhint: {hint}"))
            .run();
        assert!(!sandbox.home().join(".config").exists());
    }
}

#[test]
fn the_plan_connects_to_nothing() {
    Sandbox::new()
        .command("register-dock")
        .args(["ann@10.0.0.7", "far", "--make-context", "--dry-run"])
        .stdout(
            "connect to ann@10.0.0.7, and ask its engine\nwrite far (ann@10.0.0.7) to \
             [SANDBOX]/home/.config/dockerutils/docks.yml\ndocker context create far\n",
        )
        .run();
}

#[test]
fn certificates_make_it_the_port_of_tls() {
    let safe = Sandbox::new()
        .file("ca/ca.pem", "")
        .command("register-dock")
        .args([
            "--host",
            "tcp://10.0.0.7",
            "--tls-dir",
            "ca",
            "safe",
            "--no-check",
            "--json",
        ])
        .any_stdout()
        .run()
        .json();
    assert_eq!(safe["tcp"]["address"], "10.0.0.7:2376");
    assert_eq!(safe["tcp"]["tls_dir"], "[SANDBOX]/sample/ca");
}

#[test]
fn quiet_says_the_moniker_and_this_machine_s_names_are_no_monikers() {
    let engine = engine();
    let address = format!("tcp://{}", engine.tcp());
    let sandbox = Sandbox::new();
    sandbox
        .command("register-dock")
        .args(["-q", "--host", &address, "far"])
        .stdout("far\n")
        .run();
    for name in ["localhost", "local"] {
        sandbox
            .command("register-dock")
            .args(["--host", &address, name])
            .code(2)
            .stderr_has(&format!(
                "register-dock: \"{name}\" can't be a moniker: that is what this machine is called\n\nhint: choose a short name"
            ))
            .run();
    }
}
