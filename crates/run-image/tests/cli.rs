//! The real `run-image` in a sandbox, against a scripted engine: help, plans, containers, and each error with its hint.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::thread;
use std::time::Duration;

use dockerutils_test_support::{Invocation, Recorded, Reply, Sandbox, ScriptedEngine, wait};
use serde_json::{Value, json};

const IMAGE: &str = "/images/sample-dev:tester/json";
const LABELS: &str = "--label io.dockerutils.project=sample --label io.dockerutils.user=tester";

fn project() -> Sandbox {
    Sandbox::new().file("docker/dev/Dockerfile", "FROM scratch\n")
}

fn configured(config: &str) -> Sandbox {
    project().file("docker/dockerutils.cfg", config)
}

fn run_image(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("run-image")
}

fn image() -> Reply {
    Reply::json(
        200,
        &json!({ "Id": "sha256:1", "Os": "linux", "Architecture": "amd64" }),
    )
}

/// A frame of a container's output: the stream's number, then the text.
fn frame(stream: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
}

/// An engine whose containers are called `c1`; what they do is added by the test.
fn making() -> ScriptedEngine {
    ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
        )
        .on("DELETE", "/containers/c1", Reply::empty(204))
}

fn attaching() -> ScriptedEngine {
    making().on("POST", "/containers/c1/attach", Reply::upgrade([""])).on(
        "POST",
        "/containers/c1/wait",
        Reply::json(200, &json!({ "StatusCode": 0 })),
    )
}

fn starting() -> ScriptedEngine {
    making()
        .on(
            "POST",
            "/containers/c1/attach",
            Reply::upgrade([frame(1, "out\n"), frame(2, "err\n")]),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204))
}

fn running(code: i64) -> ScriptedEngine {
    starting().on(
        "POST",
        "/containers/c1/wait",
        Reply::json(200, &json!({ "StatusCode": code })),
    )
}

fn published() -> Reply {
    let ports = json!({
        "5000/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "5000" }, { "HostIp": "::", "HostPort": "5000" }],
        "53/udp": [{ "HostIp": "10.0.0.1", "HostPort": "5353" }],
        "9/tcp": null,
    });
    Reply::json(200, &json!({ "NetworkSettings": { "Ports": ports } }))
}

fn created(engine: &ScriptedEngine) -> Recorded {
    engine.request("POST", "/containers/create")
}

fn requests(engine: &ScriptedEngine) -> Vec<String> {
    let asked = engine.requests();
    asked
        .iter()
        .filter(|request| request.path.starts_with("/containers/c"))
        .map(|request| format!("{} {}", request.method, request.path))
        .collect()
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    run_image(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    run_image(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
    run_image(&sandbox).arg("--version").stdout("run-image 3.0.0\n").run();
}

#[test]
fn wrong_usage_is_code_125() {
    let sandbox = project();
    run_image(&sandbox)
        .code(125)
        .stderr_has("<IMAGE>")
        .stderr_has("--help")
        .run();
    run_image(&sandbox)
        .args(["dev", "--kep"])
        .code(125)
        .stderr_has("--keep")
        .run();
    run_image(&sandbox)
        .args(["dev", "--build", "--no-build"])
        .code(125)
        .stderr_has("cannot be used with")
        .run();
}

#[test]
fn a_dry_run_prints_the_command_and_nothing_else() {
    let sandbox = configured("[dev]\nvolumes = -v {project_root}:/p\nports = -p 5000:5000\ncmd = sh -c 'echo $HOME'\n");
    let outcome = run_image(&sandbox).args(["dev", "--dry-run"]).any_stdout().run();
    let (before, after) = outcome.stdout.split_once("--name tester_dev_").unwrap();
    assert_eq!(before, "docker run --init ");
    let (stamp, after) = after.split_once(' ').unwrap();
    assert_eq!(stamp.len(), "26-11-21_09.08.07".len(), "{stamp}");
    assert_eq!(
        after,
        format!("--rm -i -v [SANDBOX]/sample:/p -p 5000:5000 {LABELS} sample-dev:tester sh -c 'echo '\"${{HOME}}\"\n")
    );
}

#[test]
fn a_plan_has_a_json_form() {
    let sandbox = project();
    let outcome = run_image(&sandbox)
        .args(["dev", "--dry-run", "--json"])
        .any_stdout()
        .run();
    let document = outcome.json();
    let line = document["commands"][0].as_str().unwrap();
    assert!(
        line.starts_with("docker run --init --name tester_dev_") && line.ends_with(" sample-dev:tester"),
        "{line}"
    );
}

#[test]
fn the_command_line_beats_the_file() {
    let sandbox = configured("[dev]\nargs = --cpus 2\ncmd = a\nnetwork = net\nenv = vars\n[vars]\nA = file\nB = two\n");
    run_image(&sandbox)
        .args([
            "dev",
            "-a",
            "-m 1g",
            "-c",
            "b c",
            "-n",
            "other",
            "-e",
            "A=b=c",
            "-e",
            "FOO",
            "-t",
            "1.0",
            "--dry-run",
        ])
        .env("FOO", "s3cret")
        .stdout_has(&format!(
            " -e A=b=c -e FOO -e B=two --rm -i --network other -m 1g {LABELS} sample-dev:1.0 b c\n"
        ))
        .run();
}

#[test]
fn synthetic_and_configured_images_are_run() {
    let sandbox = configured(
        "[run_image]\nsynthetic_images = one , two\n[two]\nname = test\n[db]\nname = postgres\ntag = 16\nprefix = False\n",
    );
    for (image, reference) in [
        ("one", "sample-one:tester"),
        ("two", "sample-test:tester"),
        ("db", "postgres:16"),
    ] {
        run_image(&sandbox)
            .args([image, "--dry-run"])
            .stdout_has(&format!(" {reference}\n"))
            .run();
    }
    run_image(&sandbox)
        .args(["db", "--build"])
        .engine(&ScriptedEngine::start())
        .code(125)
        .stderr("run-image: there is nothing to build for db\n\nhint: run it without --build\n")
        .run();
}

#[test]
fn a_container_is_made_attached_started_and_waited_for() {
    let sandbox = configured("[dev]\nargs = --cpus 2\ncmd = a 'b c'\n");
    // A container that ends quickly does not wait for input.
    let talk = Reply::upgrade([frame(1, "out\n"), frame(2, "err\n")]).slow(Duration::from_millis(800));
    let engine = making()
        .on("POST", "/containers/c1/attach", talk)
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 0 })),
        );
    let outcome = run_image(&sandbox)
        .args(["dev", "-e", "A=b=c"])
        .engine(&engine)
        .stdin("typed")
        .stdout("out\n")
        .stderr_has("err\n")
        .run();
    let (rule, rest) = outcome.stderr.split_once('\n').unwrap();
    assert_eq!(rule, "=".repeat(76));
    assert!(rest.starts_with("docker run --init --name tester_dev_"), "{outcome}");
    assert_eq!(
        requests(&engine),
        [
            "POST /containers/create",
            "POST /containers/c1/attach",
            "POST /containers/c1/wait",
            "POST /containers/c1/start",
        ]
    );
    let create = created(&engine);
    assert!(create.query.starts_with("name=tester_dev_"), "{}", create.query);
    let body = create.json();
    assert_eq!(body["Image"], "sample-dev:tester");
    assert_eq!(body["Cmd"], json!(["a", "b c"]));
    assert_eq!(body["Env"], json!(["A=b=c"]));
    assert_eq!(
        (&body["OpenStdin"], &body["Tty"].as_bool().unwrap_or_default()),
        (&json!(true), &false)
    );
    assert_eq!(
        body["Labels"],
        json!({ "io.dockerutils.project": "sample", "io.dockerutils.user": "tester" })
    );
    let host = &body["HostConfig"];
    assert_eq!(
        (&host["AutoRemove"], &host["Init"], &host["NanoCpus"]),
        (&json!(true), &json!(true), &json!(2_000_000_000))
    );
    assert_eq!(engine.request("POST", "/containers/c1/wait").query, "condition=removed");
    let attach = engine.request("POST", "/containers/c1/attach");
    assert_eq!(attach.query, "stream=1&stdin=1&stdout=1&stderr=1");
    wait::until("what was typed arrives", || {
        engine.request("POST", "/containers/c1/attach").body == b"typed"
    });
    assert!(sandbox.leftovers().is_empty());
}

#[test]
fn the_containers_code_is_passed_on() {
    for code in [1, 42, 125, 137] {
        run_image(&project())
            .args(["dev", "-q"])
            .engine(&running(code.into()))
            .code(code)
            .stdout("out\n")
            .stderr("err\n")
            .run();
    }
}

#[test]
fn a_container_that_ends_badly_says_why() {
    let answer = json!({ "StatusCode": 0, "Error": { "Message": "removal failed" } });
    let engine = starting().on("POST", "/containers/c1/wait", Reply::json(200, &answer));
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .code(125)
        .any_stdout()
        .stderr_has("removal failed")
        .run();
}

#[test]
fn published_ports_are_shown_once_each() {
    let engine = running(0).on("GET", "/containers/c1/json", published());
    run_image(&configured("[dev]\nports = -p 5000:5000\n"))
        .arg("dev")
        .engine(&engine)
        .stdout("out\n")
        .stderr_has("5000/tcp is at http://127.0.0.1:5000\n")
        .stderr_has("53/udp is at udp://10.0.0.1:5353\n")
        .run();
}

#[test]
fn kept_containers_run_in_the_background_and_print_their_id() {
    let engine = running(0).on("GET", "/containers/c1/json", published());
    run_image(&project())
        .args(["dev", "-k"])
        .engine(&engine)
        .stdout("c1\n")
        .stderr_has(" -d ")
        .stderr_has("5000/tcp is at http://127.0.0.1:5000\n")
        .run();
    assert_eq!(
        requests(&engine),
        [
            "POST /containers/create",
            "POST /containers/c1/start",
            "GET /containers/c1/json"
        ]
    );
    assert_eq!(created(&engine).json()["HostConfig"]["AutoRemove"], json!(false));
    run_image(&project())
        .args(["dev", "-k", "-q"])
        .engine(&engine)
        .stdout("c1\n")
        .run();
    let outcome = run_image(&project())
        .args(["dev", "-k", "--json"])
        .engine(&engine)
        .any_stdout()
        .run();
    let document = outcome.json();
    assert!(
        document["name"].as_str().unwrap().starts_with("tester_dev_"),
        "{document}"
    );
    assert_eq!(
        (&document["id"], &document["image"]),
        (&json!("c1"), &json!("sample-dev:tester"))
    );
    assert_eq!(
        document["ports"][0],
        json!({ "container": "5000/tcp", "host_ip": "0.0.0.0", "host_port": 5000 })
    );
}

#[test]
fn a_container_that_can_not_be_started_leaves_nothing_behind() {
    for (message, code) in [
        ("driver failed: exec: \"nope\": executable file not found in $PATH", 127),
        ("exec: \"/etc\": permission denied", 126),
        ("disk on fire", 125),
    ] {
        let engine = attaching().on("POST", "/containers/c1/start", Reply::error(500, message));
        for flags in [&[][..], &["-k"]] {
            run_image(&project())
                .arg("dev")
                .args(flags)
                .engine(&engine)
                .code(code)
                .stderr_has(message)
                .run();
        }
        let removed = requests(&engine)
            .iter()
            .filter(|asked| *asked == "DELETE /containers/c1")
            .count();
        assert_eq!(removed, 2, "{message}");
    }
}

#[test]
fn a_name_that_an_engine_supplies_reaches_no_terminal_and_no_shell() {
    let busy = "Bind for 0.0.0.0:5000 failed: port is already allocated";
    let name = "/-web\u{1b}]0;title\u{7}\u{202e}\u{200b}; touch pwned";
    let engine = making()
        .on("POST", "/containers/c1/start", Reply::error(500, busy))
        .on(
            "GET",
            "/containers/json",
            Reply::json(200, &json!([{ "Id": "c0", "Names": [name], "Ports": [{ "PrivatePort": 80, "PublicPort": 5000, "Type": "tcp" }] }])),
        );
    let outcome = run_image(&configured("[dev]\nports = -p 5000:5000\n"))
        .args(["dev", "-k"])
        .engine(&engine)
        .code(125)
        .stderr_has("hint: docker stop -- '-web\u{fffd}]0;title\u{fffd}\u{fffd}\u{fffd}; touch pwned', or publish another port\n")
        .run();
    let hidden = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{200b}');
    assert!(!outcome.stderr.contains(hidden), "{:?}", outcome.stderr);
}

#[test]
fn a_port_that_is_taken_says_by_whom() {
    let busy = "driver failed programming external connectivity on endpoint x (1d2): Bind for 0.0.0.0:5000 failed: port is \
                already allocated";
    let engine = making()
        .on("POST", "/containers/c1/start", Reply::error(500, busy))
        .on(
            "GET",
            "/containers/json",
            Reply::json(200, &json!([{ "Id": "c0", "Names": ["/other"], "Ports": [{ "PrivatePort": 80, "PublicPort": 5000, "Type": "tcp" }] }])),
        );
    run_image(&configured("[dev]\nports = -p 5000:5000\n"))
        .args(["dev", "-k"])
        .engine(&engine)
        .code(125)
        .stderr_has("run-image: port 5000 is taken by container other: ")
        .stderr_has("port is already allocated\n\nhint: docker stop other, or publish another port\n")
        .run();
    // No container has it, so a process of this machine does: this one.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let busy = format!("Error starting userland proxy: listen tcp4 0.0.0.0:{port}: bind: address already in use");
    let engine = making()
        .on("POST", "/containers/c1/start", Reply::error(500, &busy))
        .on("GET", "/containers/json", Reply::json(200, &json!([])));
    let outcome = run_image(&project())
        .args(["dev", "-k"])
        .engine(&engine)
        .code(125)
        .any_stderr()
        .run();
    let holder = if cfg!(target_os = "linux") {
        format!(" by process {}", std::process::id())
    } else {
        String::new()
    };
    assert!(
        outcome.stderr.contains(&format!("port {port} is taken{holder}")),
        "{outcome}"
    );
}

#[test]
fn the_engines_refusals_are_passed_on() {
    for (status, message) in [
        (
            409,
            "Conflict. The container name \"/tester_dev\" is already in use by container \"4711\".",
        ),
        (500, "disk on fire"),
        (400, "invalid reference format"),
    ] {
        let engine = ScriptedEngine::start().on("GET", IMAGE, image()).on(
            "POST",
            "/containers/create",
            Reply::error(status, message),
        );
        run_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(125)
            .stderr_has(message)
            .run();
    }
}

#[test]
fn a_name_that_is_taken_is_not_asked_for() {
    let engine = running(0)
        .on(
            "GET",
            "/containers/tester_dev_*/json",
            Reply::json(200, &json!({ "Id": "c0" })),
        )
        .on(
            "GET",
            "/containers/tester_dev_*/json",
            Reply::error(404, "no such container"),
        );
    let outcome = run_image(&project())
        .arg("dev")
        .engine(&engine)
        .any_stdout()
        .any_stderr()
        .run();
    let asked: Vec<_> = engine
        .requests()
        .into_iter()
        .filter(|request| request.path.starts_with("/containers/tester"))
        .collect();
    assert_eq!(asked.len(), 2);
    let free = asked[1]
        .path
        .trim_start_matches("/containers/")
        .trim_end_matches("/json");
    assert!(created(&engine).query.starts_with(&format!("name={free}&")));
    assert!(outcome.stderr.contains(&format!("--name {free} ")), "{outcome}");
}

#[test]
fn a_name_that_another_run_takes_meanwhile_is_left_to_it() {
    let name = "/containers/tester_dev_*/json";
    let taken = "Conflict. The container name is already in use by container \"4711\".";
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on("GET", name, Reply::error(404, "no such container"))
        .on("POST", "/containers/create", Reply::error(409, taken))
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
        )
        .on("POST", "/containers/c1/attach", Reply::upgrade([frame(1, "out\n")]))
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 0 })),
        )
        .on("DELETE", "/containers/c1", Reply::empty(204));
    let outcome = run_image(&project())
        .arg("dev")
        .engine(&engine)
        .stdout("out\n")
        .any_stderr()
        .run();
    let asked = engine.requests();
    let creates = asked.iter().filter(|request| request.path == "/containers/create");
    let names: Vec<_> = creates
        .map(|request| request.query.split('&').next().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 2);
    assert_ne!(names[0], names[1]);
    // What is printed is what is done.
    let last = outcome.stderr.rfind("--name ").unwrap();
    let made = names[1].strip_prefix("name=").unwrap();
    assert!(
        outcome.stderr[last..].starts_with(&format!("--name {made} ")),
        "{outcome}"
    );
}

#[test]
fn what_the_engine_advises_against_is_said() {
    let answer = json!({ "Id": "c1", "Warnings": ["Your kernel does not support swap limit capabilities"] });
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on("POST", "/containers/create", Reply::json(201, &answer))
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on("GET", "/containers/c1/json", published());
    run_image(&project())
        .args(["dev", "-k", "-q"])
        .engine(&engine)
        .stdout("c1\n")
        .stderr("run-image: warning: Your kernel does not support swap limit capabilities\n")
        .run();
}

#[test]
fn another_architecture_is_warned_of() {
    let foreign = Reply::json(
        200,
        &json!({ "Id": "sha256:1", "Os": "linux", "Architecture": "arm64" }),
    );
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, foreign)
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204));
    run_image(&project())
        .args(["dev", "-k", "-q"])
        .engine(&engine)
        .stdout("c1\n")
        .stderr(
            "run-image: warning: sample-dev:tester is made for linux/arm64 and the engine runs linux/amd64: it will run by \
             emulation, slowly, or not at all\n",
        )
        .run();
}

#[test]
fn an_own_image_that_is_not_there_is_built() {
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, Reply::error(404, "no such image"))
        .on("POST", "/build", Reply::error(500, "unknown instruction: FRMO"));
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .env("DOCKER_BUILDKIT", "0")
        .code(125)
        .stderr_has("docker build --compress -t sample-dev:tester -f docker/dev/Dockerfile .")
        .stderr_has("unknown instruction: FRMO")
        .stderr_has("run-image: dev could not be built, and is not run")
        .run();
    run_image(&project())
        .args(["dev", "--no-build"])
        .engine(&engine)
        .code(125)
        .stderr(
            "run-image: the engine has no image sample-dev:tester, and --no-build is given\n\nhint: build-image dev\n",
        )
        .run();
}

#[test]
fn built_images_are_run_with_nothing_but_their_output_on_stdout() {
    let built = [
        json!({ "stream": "Step 1/1 : FROM scratch\n" }),
        json!({ "aux": { "ID": "sha256:1" } }),
    ];
    for flags in [&[][..], &["--build"], &["--build", "-q"]] {
        let engine = running(0).on("POST", "/build", Reply::stream(&built));
        run_image(&project())
            .arg("dev")
            .args(flags)
            .engine(&engine)
            .env("DOCKER_BUILDKIT", "0")
            .stdout("out\n")
            .stderr_has("err\n")
            .run();
        let builds = engine
            .requests()
            .iter()
            .filter(|request| request.path == "/build")
            .count();
        assert_eq!(builds, usize::from(!flags.is_empty()));
    }
}

#[test]
fn other_images_are_pulled() {
    let sandbox = configured("[db]\nname = reg.example/db\ntag = 16\nprefix = False\n");
    let pulled = [
        json!({ "status": "Pulling from db", "id": "16" }),
        json!({ "status": "Downloading", "id": "l1", "progressDetail": { "current": 5, "total": 10 } }),
        json!({ "status": "Pull complete", "id": "l1" }),
    ];
    let engine = running(0)
        .on(
            "GET",
            "/images/reg.example/db:16/json",
            Reply::error(404, "no such image"),
        )
        .on("GET", "/images/reg.example/db:16/json", image())
        .on("POST", "/images/create", Reply::stream(&pulled));
    run_image(&sandbox)
        .arg("db")
        .engine(&engine)
        .stdout("out\n")
        .stderr_has("docker pull reg.example/db:16\n")
        .run();
    assert!(
        engine
            .request("POST", "/images/create")
            .query
            .contains("fromImage=reg.example%2Fdb%3A16")
    );
}

#[test]
fn a_helper_that_is_missing_stops_no_pull_and_is_named_where_it_is_refused() {
    let sandbox = configured("[db]\nname = reg.example/db\ntag = 16\nprefix = False\n").file(
        "../home/.docker/config.json",
        json!({ "credHelpers": { "reg.example": "missing" } }).to_string(),
    );
    let warning = "run-image: warning: docker-credential-missing gives no login for reg.example: it can't be started";
    let engine = running(0)
        .on(
            "GET",
            "/images/reg.example/db:16/json",
            Reply::error(404, "no such image"),
        )
        .on("GET", "/images/reg.example/db:16/json", image())
        .on("POST", "/images/create", Reply::stream(&[]));
    run_image(&sandbox)
        .arg("db")
        .engine(&engine)
        .stdout("out\n")
        .stderr_has(warning)
        .stderr_has(": trying without a login\n")
        .run();
    let denied = Reply::error(500, "unauthorized: authentication required");
    let engine = ScriptedEngine::start().on("POST", "/images/create", denied);
    run_image(&sandbox)
        .arg("db")
        .engine(&engine)
        .code(125)
        .stderr_has("\n\nhint: docker-credential-missing gives no login for reg.example: it can't be started")
        .stderr_has("try it: docker-credential-missing get\n")
        .run();
}

/// The engine's message if it has an image of the same name for another platform.
fn other_platform() -> Reply {
    let said = "image with reference reg.example/db:16 was found but does not match the specified platform: \
                wanted linux/arm64, actual: linux/amd64";
    Reply::error(404, said)
}

#[test]
fn an_image_that_is_absent_when_the_container_is_made_is_pulled() {
    let sandbox = configured("[db]\nname = reg.example/db\ntag = 16\nprefix = False\n");
    let absent = [other_platform(), Reply::error(404, "No such image: reg.example/db:16")];
    for reply in absent.clone() {
        // The replies are given in turn.
        let engine = ScriptedEngine::start()
            .on("GET", "/images/*/json", image())
            .on("POST", "/images/create", Reply::stream(&[]))
            .on("POST", "/containers/create", reply)
            .on(
                "POST",
                "/containers/create",
                Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
            )
            .on("POST", "/containers/c1/start", Reply::empty(204));
        run_image(&sandbox)
            .args(["db", "-k", "-a", "--platform linux/arm64"])
            .engine(&engine)
            .stdout("c1\n")
            .stderr_has("docker pull reg.example/db:16\n")
            .run();
        let pull = engine.request("POST", "/images/create");
        assert!(pull.query.contains("platform=linux%2Farm64"), "{}", pull.query);
    }
    // There is only one pull, and none with `never`.
    for (pull, reply) in [("--pull=never", &absent[0]), ("--pull=missing", &absent[1])] {
        let engine = ScriptedEngine::start()
            .on("GET", "/images/*/json", image())
            .on("POST", "/images/create", Reply::stream(&[]))
            .on("POST", "/containers/create", reply.clone());
        run_image(&sandbox)
            .args(["db", "-k", "-a", &format!("--platform linux/arm64 {pull}")])
            .engine(&engine)
            .code(125)
            .stderr_has("the container can't be made: ")
            .run();
        let pulls = engine
            .requests()
            .iter()
            .filter(|request| request.path == "/images/create")
            .count();
        assert_eq!(pulls, usize::from(pull == "--pull=missing"));
    }
}

#[test]
fn an_own_image_for_another_platform_is_not_pulled_from_a_stranger() {
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on("POST", "/containers/create", other_platform());
    let outcome = run_image(&project())
        .args(["dev", "-k", "-a", "--platform linux/arm64"])
        .engine(&engine)
        .code(125)
        .stderr_has("the image sample-dev:tester is made for linux/amd64, but is to run as linux/arm64")
        .stderr_has(
            "hint: in [dev] of docker/dockerutils.cfg: build_args = --platform linux/arm64, then: build-image dev\n",
        )
        .run();
    let is_pull = |path: &str| path == "/images/create" || path == "/build";
    assert!(
        !engine.requests().iter().any(|request| is_pull(&request.path)),
        "{outcome}"
    );
}

#[test]
fn an_engine_in_clear_text_gets_no_login() {
    let login = json!({ "auths": { "reg.example": { "auth": "dTpw" } } });
    let image = "name = reg.example/db\ntag = 16\nprefix = False\n";
    let sandbox = configured(&format!("[db]\n{image}[api]\n{image}args = --use-api-socket\n"))
        .file("../home/.docker/config.json", login.to_string());
    let missing = || {
        ScriptedEngine::start()
            .on("GET", "/images/*/json", Reply::error(404, "no such image"))
            .on("POST", "/images/create", Reply::error(404, "denied"))
    };
    let login_for = |engine: &ScriptedEngine, host: &str| {
        run_image(&sandbox)
            .env(
                "DOCKER_HOST",
                format!("tcp://{}", engine.tcp().replace("127.0.0.1", host)),
            )
            .arg("db")
            .code(125)
            .any_stderr()
            .run();
        engine
            .request("POST", "/images/create")
            .header("x-registry-auth")
            .map(str::to_owned)
    };
    assert!(login_for(&missing(), "127.0.0.1").is_some());
    // An address that does not look like this machine's, but leads here.
    assert_eq!(login_for(&missing(), "127.1"), None);
    let engine = missing();
    run_image(&sandbox)
        .env(
            "DOCKER_HOST",
            format!("tcp://{}", engine.tcp().replace("127.0.0.1", "127.1")),
        )
        .arg("api")
        .code(125)
        .stderr_has("all of your logins, but the connection to the engine at tcp://127.1:")
        .stderr_has("hint: reach the engine by ssh")
        .run();
}

#[test]
fn a_registry_that_sends_the_login_back_does_not_have_it_printed() {
    // The pair `ann:hunter2`.
    let pair = "YW5uOmh1bnRlcjI=";
    let login = json!({ "auths": { "reg.example": { "auth": pair } } });
    let sandbox = configured("[db]\nname = reg.example/db\ntag = 16\nprefix = False\n")
        .file("../home/.docker/config.json", login.to_string());
    let said = format!("denied: you said Basic {pair}, which is ann:hunter2");
    for reply in [Reply::error(404, &said), Reply::stream(&[json!({ "error": said })])] {
        let engine = ScriptedEngine::start()
            .on("GET", "/images/*/json", Reply::error(404, "no such image"))
            .on("POST", "/images/create", reply);
        let outcome = run_image(&sandbox)
            .arg("db")
            .engine(&engine)
            .code(125)
            .stderr_has("denied: you said Basic ***, which is ann:***\n")
            .run();
        assert!(!outcome.stderr.contains("hunter2"), "{outcome}");
    }
}

#[test]
fn an_id_is_one_word() {
    let sandbox = configured("[dev]\n");
    let engine = ScriptedEngine::start()
        .on("GET", "/images/*/json", Reply::json(200, &json!({ "Id": "sha256:1" })))
        .on("GET", "/containers/*/json", Reply::error(404, "no such container"))
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": "c1 --volumes /:/host", "Warnings": [] })),
        );
    run_image(&sandbox)
        .args(["dev", "-k", "--no-build"])
        .engine(&engine)
        .code(125)
        .stderr_has("gave the container an ID that is not valid: \"c1 --volumes /:/host\"")
        .run();
}

#[test]
fn a_registrys_refusal_says_what_helps() {
    let sandbox = configured("[db]\nname = reg.example/db\ntag = 16\nprefix = False\n");
    let denied = "pull access denied for reg.example/db, repository does not exist or may require 'docker login'";
    let late = [
        json!({ "status": "Pulling from db" }),
        json!({ "error": denied, "errorDetail": { "message": denied } }),
    ];
    for (reply, helps) in [
        (Reply::error(404, denied), "docker login reg.example\n"),
        (Reply::stream(&late), "docker login reg.example\n"),
        (
            Reply::error(404, "manifest for reg.example/db:16 not found: manifest unknown"),
            "is there such a tag?",
        ),
        (
            Reply::error(500, "toomanyrequests: Rate exceeded"),
            "try again in some minutes",
        ),
        (
            Reply::error(500, "dial tcp: lookup reg.example: no such host"),
            "docker pull reg.example/db:16\n",
        ),
    ] {
        let engine = ScriptedEngine::start()
            .on(
                "GET",
                "/images/reg.example/db:16/json",
                Reply::error(404, "no such image"),
            )
            .on("POST", "/images/create", reply);
        run_image(&sandbox)
            .arg("db")
            .engine(&engine)
            .code(125)
            .stderr_has("reg.example/db:16 can't be pulled: ")
            .stderr_has("\n\nhint: ")
            .stderr_has(helps)
            .run();
    }
    let engine = ScriptedEngine::start().on(
        "GET",
        "/images/reg.example/db:16/json",
        Reply::error(404, "no such image"),
    );
    run_image(&sandbox)
        .args(["db", "-a", "--pull=never"])
        .engine(&engine)
        .code(125)
        .stderr_has("the engine has no image reg.example/db:16, and --pull=never is given")
        .run();
}

#[test]
fn a_pull_that_breaks_off_is_no_success() {
    let sandbox = configured("[db]\nname = db\nprefix = False\n");
    let engine = ScriptedEngine::start()
        .on("GET", "/images/db:tester/json", Reply::error(404, "no such image"))
        .on(
            "POST",
            "/images/create",
            Reply::stream(&[json!({ "status": "Pulling" })]).dying(),
        );
    run_image(&sandbox)
        .arg("db")
        .engine(&engine)
        .code(125)
        .stderr_has("went away")
        .run();
}

#[test]
fn secrets_go_to_an_engine_on_this_machine_and_are_never_printed() {
    let run = |engine: &ScriptedEngine, docker_ip: &str| {
        let outcome = run_image(&configured("[dev]\nargs = -e BAR=$FOO\n"))
            .args(["dev", "-v", "-e", "FOO"])
            .engine(engine)
            .env("AWS_ACCESS_KEY_ID", "k3y")
            .env("AWS_SECRET_ACCESS_KEY", "s3cret-aws")
            .env("AWS_SESSION_TOKEN", "")
            .env("FOO", "s3cret-foo")
            .env("DOCKER_IP", docker_ip)
            .any_stdout()
            .stderr_has("-e FOO ")
            .stderr_has("-e BAR=${FOO} ")
            .run();
        assert!(
            !format!("{outcome}").contains("s3cret") && !outcome.stderr.contains("k3y"),
            "{outcome}"
        );
        let variables = created(engine).json()["Env"].as_array().cloned().unwrap_or_default();
        variables
            .into_iter()
            .filter_map(|pair| pair.as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let own = ["FOO=s3cret-foo", "BAR=s3cret-foo"];
    let aws = ["AWS_ACCESS_KEY_ID=k3y", "AWS_SECRET_ACCESS_KEY=s3cret-aws"];
    let sorted = |mut pairs: Vec<String>| {
        pairs.sort();
        pairs
    };
    let all = sorted([own, aws].concat().into_iter().map(str::to_owned).collect());
    let only_own = sorted(own.map(str::to_owned).into());
    assert_eq!(sorted(run(&running(0), "")), all);
    // `source dock` sets DOCKER_IP.
    assert_eq!(sorted(run(&running(0), "10.0.0.1")), only_own);
    // An engine that says itself that it is on another machine.
    let far = Reply::json(
        200,
        &json!({ "KernelVersion": "1.0-other", "Name": "far", "MemTotal": 1 }),
    );
    assert_eq!(sorted(run(&running(0).on("GET", "/info", far), "")), only_own);
    let nothing = Reply::json(200, &json!({ "OperatingSystem": "Docker Desktop" }));
    assert_eq!(sorted(run(&running(0).on("GET", "/info", nothing), "")), only_own);
    // A socket that leads to another machine, as `ssh -L` makes one: whatever the engine says, and be it the truth.
    for claim in [
        json!({}),
        json!({ "OperatingSystem": "Docker Desktop", "Name": "docker-desktop" }),
    ] {
        let tunnel = running(0).on("GET", "/info", Reply::this_machine(&claim)).behind("ssh");
        assert_eq!(sorted(run(&tunnel, "")), only_own);
    }
}

#[test]
fn why_an_engine_counts_as_far_is_said_and_its_user_may_know_better() {
    let sandbox = configured("[dev]\nports = -p 8080:80\n");
    let created_with = |address: &dyn Fn(&ScriptedEngine) -> String| {
        let engine = running(0).behind("ssh");
        let command = run_image(&sandbox);
        let command = command
            .args(["dev"])
            .engine(&engine)
            .env("AWS_REGION", "eu")
            .env("DOCKERUTILS_LOCAL_ENGINE", address(&engine))
            .any_stdout();
        let outcome = command.any_stderr().run();
        let request = created(&engine).json();
        let port = request["HostConfig"]["PortBindings"]["80/tcp"][0]["HostIp"].clone();
        (
            request["Env"].to_string(),
            port.as_str().map(str::to_owned),
            outcome.stderr,
        )
    };
    let far = |address: &str| {
        let (variables, address_there, stderr) = created_with(&|_| address.to_owned());
        assert!(!variables.contains("AWS_REGION"), "{variables}");
        assert_eq!(address_there.as_deref(), Some("127.0.0.1"));
        assert!(
            stderr.contains("counts as one on another machine: ssh listens on its socket, and may lead anywhere"),
            "{stderr}"
        );
        assert!(stderr.contains("export DOCKERUTILS_LOCAL_ENGINE=unix:///"), "{stderr}");
    };
    far("");
    far("unix:///other.sock");
    let (variables, address_there, stderr) = created_with(&ScriptedEngine::host);
    assert!(variables.contains("AWS_REGION=eu"), "{variables}");
    assert_eq!(address_there.as_deref().unwrap_or_default(), "");
    assert!(!stderr.contains("another machine"), "{stderr}");
}

#[test]
fn a_dry_run_prints_what_the_run_would_do_at_a_tunnel() {
    let sandbox = configured("[dev]\nvolumes = -v /a:/a\nvolumes_docked = -v /b:/b\n");
    let dry_run = |engine: &ScriptedEngine| {
        let command = run_image(&sandbox).args(["dev", "--dry-run"]).engine(engine);
        let outcome = command.env("AWS_REGION", "eu").any_stdout().any_stderr().run();
        assert!(
            engine.requests().is_empty(),
            "it asks no engine: {:?}",
            engine.requests()
        );
        outcome
    };
    let far = dry_run(&running(0).behind("ssh"));
    assert!(far.stdout.contains(" --rm -i -v /b:/b --label"), "{far}");
    assert!(
        far.stderr
            .contains("counts as one on another machine: ssh listens on its socket, and may lead anywhere"),
        "{far}"
    );
    let near = dry_run(&running(0));
    assert!(
        near.stdout.contains(" -e AWS_REGION --rm -i -v /a:/a --label"),
        "{near}"
    );
    assert_eq!(near.stderr, "");
}

#[test]
fn docked_keys_win_where_docked() {
    let sandbox = configured("[dev]\nvolumes = -v /a:/a\nvolumes_docked = -v /b:/b\n");
    run_image(&sandbox)
        .args(["dev", "--dry-run"])
        .env("DOCKER_HOST", "tcp://10.0.0.1:2375")
        .env("AWS_REGION", "eu")
        .stdout_has(" --rm -i -v /b:/b --label")
        .run();
    run_image(&sandbox)
        .args(["dev", "--dry-run"])
        .env("AWS_REGION", "eu")
        .stdout_has(" -e AWS_REGION --rm -i -v /a:/a ")
        .run();
}

/// An engine that refuses to make a container.
fn refusing(status: u16, said: &str) -> ScriptedEngine {
    ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on(
            "GET",
            "/containers/tester_dev_*/json",
            Reply::error(404, "no such container"),
        )
        .on("POST", "/containers/create", Reply::error(status, said))
}

#[test]
fn an_image_that_does_not_say_what_it_runs_gets_a_hint() {
    for said in ["No command specified", "no command specified"] {
        run_image(&configured("[dev]\n"))
            .arg("dev")
            .engine(&refusing(400, said))
            .code(125)
            .stderr_has(&format!("run-image: the container can't be made: {said}\n"))
            .stderr_has(
                "\n\nhint: the image does not say what to run: write a CMD in its Dockerfile, the key cmd in its section, \
                 or run-image -c ",
            )
            .run();
    }
}

#[test]
fn kernel_memory_reaches_an_engine_that_has_it() {
    let sandbox = configured("[dev]\nargs = --kernel-memory 5m -m 1g\n");
    for (api, sent) in [("1.41", json!(5 << 20)), ("1.45", Value::Null)] {
        let engine = running(0).version("20.10", api);
        run_image(&sandbox)
            .arg("dev")
            .engine(&engine)
            .any_stdout()
            .any_stderr()
            .run();
        let host = created(&engine).json()["HostConfig"].clone();
        assert_eq!(
            (&host["KernelMemory"], &host["Memory"]),
            (&sent, &json!(1 << 30)),
            "{api}"
        );
    }
    run_image(&sandbox)
        .arg("dev")
        .engine(&refusing(400, "this kernel has no such limit").version("20.10", "1.41"))
        .code(125)
        .stderr_has("the container can't be made: this kernel has no such limit")
        .run();
}

#[test]
fn docked_ports_are_on_the_dock_s_loopback_address() {
    let sandbox = configured("[dev]\nports = -p 8888:8888 -p 0.0.0.0:1:1\nargs = -P\n");
    run_image(&sandbox)
        .args(["dev", "--dry-run"])
        .env("DOCKER_HOST", "ssh://ann@box")
        .stdout_has(" -p 127.0.0.1:8888:8888 -p 0.0.0.0:1:1 -P --label")
        .stderr_has("warning: --publish-all opens the container's ports on every address of the dock")
        .run();
    run_image(&sandbox)
        .args(["dev", "--dry-run"])
        .stdout_has(" -p 8888:8888 -p 0.0.0.0:1:1 -P --label")
        .run();
}

#[test]
fn without_an_agent_nothing_is_said_to_be_here() {
    let loopback =
        json!({ "NetworkSettings": { "Ports": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] } } });
    let engine = running(0).on("GET", "/containers/c1/json", Reply::json(200, &loopback));
    run_image(&configured("[dev]\nports = -p 8080:80\n"))
        .args(["dev", "-k"])
        .env("DOCKER_HOST", format!("tcp://{}", engine.tcp()))
        .env("DOCKER_IP", "10.0.0.7")
        .stdout("c1\n")
        .stderr_has(" -p 127.0.0.1:8080:80 ")
        .stderr_has("80/tcp is at 127.0.0.1:8080 of 10.0.0.7, and nothing forwards it to this machine\n")
        .run();
}

#[test]
fn a_secret_on_the_way_to_an_error_stays_one() {
    let engine = making().on("POST", "/containers/c1/start", Reply::error(500, "disk on fire"));
    for flags in [
        &["-k"][..],
        &["-k", "-a", "--no-such-option"],
        &["-k", "-a", "--memory $FOO"],
    ] {
        let outcome = run_image(&project())
            .args(["dev", "-v", "-e", "FOO"])
            .args(flags)
            .engine(&engine)
            .env("FOO", "s3cret")
            .code(125)
            .any_stderr()
            .run();
        assert!(!outcome.stderr.contains("s3cret"), "{outcome}");
    }
}

#[test]
fn there_must_be_a_project() {
    run_image(&Sandbox::new())
        .arg("dev")
        .code(125)
        .stderr_has("no docker/ folder in")
        .stderr_has("\n\nhint: ")
        .run();
    run_image(&Sandbox::new().file("docker/Dockerfile", "FROM scratch\n"))
        .arg("dev")
        .code(125)
        .stderr_has("hint: mkdir [SANDBOX]/sample/docker/dev && mv ")
        .run();
    run_image(&project().file("docker/notebook/Dockerfile", ""))
        .arg("notbook")
        .code(125)
        .stderr("run-image: [SANDBOX]/sample has no image notbook\n\nhint: did you mean notebook?\n")
        .run();
}

#[test]
fn values_that_mean_nothing_name_file_line_section_and_key() {
    for (config, says, helps) in [
        (
            "[dev]\nvolumes = -v {hme}/x:/x\n",
            "docker/dockerutils.cfg:2: [dev] volumes: {hme} is not one of {home}, {project}, {project_root}, {user}",
            "",
        ),
        (
            "[dev]\nenv = none\n",
            "docker/dockerutils.cfg:2: [dev] env: there is no section [none]",
            "hint: add it: [none]",
        ),
        (
            "[dev]\ncmd = 'open\n",
            "docker/dockerutils.cfg:2: [dev] cmd: a single quotation is not closed",
            "",
        ),
        (
            "[dev]\ncmd = echo $NOT_SET\n",
            "docker/dockerutils.cfg:2: [dev] cmd: $NOT_SET is not set",
            "write $$NOT_SET for a dollar",
        ),
        (
            "[dev]\nargs = --cpus many\n",
            "docker/dockerutils.cfg:2: [dev] args: option --cpus",
            "hint: ",
        ),
        (
            "[dev]\nargs = --no-such-thing\n",
            "docker/dockerutils.cfg:2: [dev] args: unknown option",
            "--no-such-thing",
        ),
        ("[dev\n", "docker/dockerutils.cfg:1", "hint: "),
    ] {
        for flag in [None, Some("--dry-run")] {
            run_image(&configured(config))
                .arg("dev")
                .args(flag)
                .engine(&running(0))
                .code(125)
                .stderr_has(says)
                .stderr_has(helps)
                .run();
        }
    }
}

#[test]
fn an_unknown_key_warns_with_the_nearest() {
    run_image(&configured(
        "[dev]\nvolume = -v a:b\nenv = vars\n[vars]\nANYTHING = 1\n",
    ))
    .args(["dev", "--dry-run"])
    .any_stdout()
    .stderr("run-image: warning: docker/dockerutils.cfg:2: [dev] volume is not known (did you mean volumes?)\n")
    .run();
}

#[test]
fn illegal_names_become_legal_and_that_is_said() {
    let sandbox = Sandbox::named("My Project").file("docker/dev/Dockerfile", "FROM scratch\n");
    run_image(&sandbox)
        .args(["dev", "--dry-run"])
        .env("LOGNAME", "CORP\\ann")
        .stdout_has("--name CORP-ann_dev_")
        .stderr_has("\"my project-dev\" can't be the name of an image: my-project-dev is used")
        .stderr_has("can't be a tag: CORP-ann is used")
        .run();
}

#[test]
fn the_cidfile_must_not_be_there_yet() {
    let sandbox = configured("[dev]\nargs = --cidfile cid\n");
    run_image(&sandbox)
        .arg("dev")
        .engine(&running(0))
        .stdout("out\n")
        .any_stderr()
        .run();
    assert_eq!(sandbox.read("cid"), "c1");
    let engine = running(0);
    run_image(&sandbox)
        .arg("dev")
        .engine(&engine)
        .code(125)
        .stderr_has("cid exists already")
        .stderr_has("hint: remove it, or name another\n")
        .run();
    assert!(requests(&engine).is_empty());
}

#[test]
fn a_terminal_that_is_asked_for_must_be_there() {
    run_image(&configured("[dev]\ninteractive = -it\n"))
        .arg("dev")
        .engine(&running(0))
        .code(125)
        .stderr_has("-t needs a terminal, but stdin is not one")
        .stderr_has("hint: ")
        .run();
}

#[test]
fn gpus_must_be_there_where_they_are_asked_for() {
    run_image(&project())
        .args(["dev", "-g"])
        .engine(&running(0))
        .code(125)
        .stderr_has("has no GPU for containers")
        .stderr_has("hint: install nvidia-container-toolkit")
        .run();
    for (info, words) in [
        (
            json!({ "Runtimes": { "nvidia": { "path": "x" } } }),
            " --runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all ",
        ),
        (
            json!({ "DiscoveredDevices": [{ "Source": "cdi", "ID": "nvidia.com/gpu=0" }] }),
            " --gpus all ",
        ),
    ] {
        let engine = running(0).on("GET", "/info", Reply::this_machine(&info));
        run_image(&project())
            .args(["dev", "-g"])
            .engine(&engine)
            .any_stdout()
            .stderr_has(words)
            .run();
    }
}

#[test]
fn an_engine_that_is_not_there_is_code_125() {
    run_image(&project())
        .arg("dev")
        .code(125)
        .stderr_has("no engine answers at unix://[SANDBOX]/no-engine.sock")
        .stderr_has("hint: ")
        .run();
    for reply in [
        Reply::garbage("SSH-2.0\r\n\r\n"),
        Reply::hang_up(),
        Reply::error(500, "disk on fire"),
    ] {
        let engine = ScriptedEngine::start().on("GET", "/_ping", reply);
        run_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(125)
            .stderr_has("hint: ")
            .run();
    }
}

#[test]
fn an_engine_that_dies_in_the_middle_is_code_125() {
    let cut = |reply: Reply| making().on("POST", "/containers/c1/attach", reply);
    for engine in [
        ScriptedEngine::start().on("GET", IMAGE, Reply::hang_up()),
        ScriptedEngine::start()
            .on("GET", IMAGE, image())
            .on("POST", "/containers/create", Reply::hang_up()),
        cut(Reply::hang_up()),
        cut(Reply::upgrade([""])).on("POST", "/containers/c1/wait", Reply::hang_up()),
    ] {
        run_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(125)
            .any_stdout()
            .stderr_has("went away")
            .stderr_has("hint: see whether it still runs: docker version")
            .run();
    }
}

#[test]
fn a_container_that_may_run_is_left_by_an_engine_that_dies() {
    let found = |state: Value| {
        Reply::json(
            200,
            &json!({ "Id": "c1", "Name": "/sample", "State": state, "Config": {}, "HostConfig": {} }),
        )
    };
    for engine in [
        attaching().on("POST", "/containers/c1/start", Reply::hang_up()),
        starting().on("POST", "/containers/c1/wait", Reply::stream(&[]).dying()),
        starting().on(
            "POST",
            "/containers/c1/wait",
            Reply::garbage("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        ),
    ] {
        let engine = engine.on("GET", "/containers/c1/json", found(json!({ "Running": true })));
        run_image(&project())
            .arg("dev")
            .engine(&engine)
            .code(75)
            .any_stdout()
            .stderr_has("was lost: it goes on there")
            .stderr_has("hint: run-image --attach tester_dev_")
            .run();
        assert!(!requests(&engine).contains(&"DELETE /containers/c1".to_owned()));
    }
    // A container that was not started is not reported as lost.
    let engine = attaching().on("POST", "/containers/c1/start", Reply::hang_up()).on(
        "GET",
        "/containers/c1/json",
        found(json!({ "Status": "created" })),
    );
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .code(125)
        .stderr_has("was lost before it was started")
        .run();
    assert!(requests(&engine).contains(&"DELETE /containers/c1".to_owned()));
}

#[test]
fn of_several_that_were_cut_off_and_are_gone_each_is_said() {
    let sandbox = project();
    let engine = ScriptedEngine::start();
    let records = sandbox.home().join(".local/state/dockerutils/foreground");
    std::fs::create_dir_all(&records).unwrap();
    let root = sandbox.project().canonicalize().unwrap();
    for name in ["one", "two"] {
        let record = json!({
            "id": format!("{name}-id"), "name": name, "engine": engine.host(), "dock": null, "root": root,
            "watch": false, "process": null, "is_said": true,
        });
        std::fs::write(records.join(format!("{name}-id.json")), record.to_string()).unwrap();
    }
    let engine = engine
        .on("GET", "/containers/one-id/json", Reply::error(404, "No such container"))
        .on("GET", "/containers/two-id/json", Reply::error(404, "No such container"));
    run_image(&sandbox)
        .arg("--attach")
        .engine(&engine)
        .code(125)
        .stderr_has("container one has ended meanwhile")
        .stderr_has("container two has ended meanwhile")
        .stderr_has("its exit code and its last output are gone")
        .run();
}

#[test]
fn streams_that_end_before_the_start_are_a_lost_engine() {
    // The answer to `wait` comes late: the streams have ended by then.
    let ended = Reply::json(200, &json!({ "StatusCode": 0 })).slow(Duration::from_millis(200));
    let engine = making()
        .on("POST", "/containers/c1/attach", Reply::upgrade([""]).too_early())
        .on("POST", "/containers/c1/wait", ended)
        .on("POST", "/containers/c1/start", Reply::empty(204));
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .code(125)
        .stderr_has("went away")
        .run();
    assert_eq!(
        requests(&engine),
        [
            "POST /containers/create",
            "POST /containers/c1/attach",
            "POST /containers/c1/wait",
            "DELETE /containers/c1",
            // Asks whether it is gone.
            "GET /containers/c1/json"
        ]
    );
}

#[test]
fn output_that_is_no_output_is_refused() {
    let engine = making()
        .on(
            "POST",
            "/containers/c1/attach",
            Reply::upgrade(["<html>not a frame</html>"]),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 0 })),
        );
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .code(125)
        .stderr_has("not a stream of frames")
        .run();
    assert!(requests(&engine).contains(&"DELETE /containers/c1".to_owned()));
}

#[test]
fn output_in_many_pieces_arrives_whole() {
    let whole = [frame(1, "one "), frame(2, "two "), frame(1, ""), frame(1, "three\n")].concat();
    let bytes: Vec<Vec<u8>> = whole.iter().map(|byte| vec![*byte]).collect();
    let engine = making()
        .on(
            "POST",
            "/containers/c1/attach",
            Reply::upgrade(bytes).slow(Duration::from_millis(1)),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 3 })),
        );
    run_image(&project())
        .args(["dev", "-q"])
        .engine(&engine)
        .code(3)
        .stdout("one three\n")
        .stderr("two ")
        .run();
}

#[test]
fn an_interrupt_before_the_start_leaves_nothing_behind() {
    for (method, silent) in [
        ("GET", IMAGE),
        ("POST", "/containers/c1/attach"),
        ("POST", "/containers/c1/wait"),
        ("POST", "/containers/c1/start"),
    ] {
        let engine = ScriptedEngine::start()
            .on(method, silent, Reply::hang())
            .on("GET", IMAGE, image())
            .on(
                "POST",
                "/containers/create",
                Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
            )
            .on("POST", "/containers/c1/attach", Reply::upgrade([""]))
            .on(
                "POST",
                "/containers/c1/wait",
                Reply::json(200, &json!({ "StatusCode": 0 })),
            )
            .on("DELETE", "/containers/c1", Reply::empty(204));
        let sandbox = project();
        let running = run_image(&sandbox).arg("dev").engine(&engine).spawn();
        wait::until("the engine is asked", || {
            engine.requests().iter().any(|request| request.path == silent)
        });
        running.interrupt();
        let outcome = running.wait();
        assert_eq!(outcome.code, 130, "{silent}: {outcome}");
        let asked = |request: &str| requests(&engine).iter().any(|made| made == request);
        assert_eq!(
            asked("DELETE /containers/c1"),
            asked("POST /containers/create"),
            "{silent}"
        );
        assert!(sandbox.leftovers().is_empty());
    }
}

#[test]
fn a_container_that_is_made_too_late_is_removed() {
    let slow = Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })).slow(Duration::from_secs(1));
    let engine = ScriptedEngine::start()
        .on("GET", IMAGE, image())
        .on("POST", "/containers/create", slow)
        .on("DELETE", "/containers/c1", Reply::empty(204));
    let sandbox = project();
    let running = run_image(&sandbox).arg("dev").engine(&engine).spawn();
    wait::until("the engine is asked", || {
        engine
            .requests()
            .iter()
            .any(|request| request.path == "/containers/create")
    });
    running.interrupt();
    assert_eq!(running.wait().code, 130);
    assert_eq!(requests(&engine), ["POST /containers/create", "DELETE /containers/c1"]);
}

#[test]
fn signals_are_passed_to_the_container() {
    let engine = making()
        .on(
            "POST",
            "/containers/c1/attach",
            Reply::upgrade([frame(1, "ready\n"), Vec::new()]).slow(Duration::from_secs(2)),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on("POST", "/containers/c1/kill", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 143 })),
        );
    let sandbox = project();
    let running = run_image(&sandbox).arg("dev").engine(&engine).spawn();
    wait::until("the engine is asked", || {
        engine
            .requests()
            .iter()
            .any(|request| request.path == "/containers/c1/start")
    });
    thread::sleep(Duration::from_millis(300));
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(outcome.code, 143, "{outcome}");
    assert_eq!(engine.request("POST", "/containers/c1/kill").query, "signal=SIGINT");
}

#[test]
fn an_engine_of_old_is_spoken_to_in_its_own_version() {
    let engine = running(0).version("20.10.24", "1.41");
    run_image(&project())
        .arg("dev")
        .engine(&engine)
        .any_stdout()
        .any_stderr()
        .run();
    let spoken: Vec<Value> = engine
        .requests()
        .into_iter()
        .filter(|request| request.path != "/_ping")
        .map(|request| request.version.into())
        .collect();
    assert!(spoken.iter().all(|version| version == "1.41"), "{spoken:?}");
}

/// A list of docks with one that answers at this address.
fn with_dock(sandbox: Sandbox, address: &str) -> Sandbox {
    sandbox.file(
        "../home/.config/dockerutils/docks.yml",
        format!("version: 1\ndocks:\n- moniker: far\n  tcp:\n    address: {address}\n"),
    )
}

#[test]
fn a_dock_is_chosen_for_one_call_and_gets_no_secrets() {
    let sandbox = Sandbox::new().file(
        "docker/dockerutils.cfg",
        "[dev]\nname = busybox\ntag = latest\nprefix = False\nvolumes = -v /here:/x\nvolumes_docked = -v /there:/x\n",
    );
    let planned = with_dock(sandbox, "10.0.0.7:2375")
        .command("run-image")
        .args(["dev", "--dry-run", "--dock", "far"])
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("DOCKER_HOST", "unix:///var/run/docker.sock")
        .env("DOCKER_TLS_VERIFY", "1")
        .any_stdout()
        .run();
    assert!(
        planned
            .stdout
            .starts_with("DOCKER_TLS_VERIFY= DOCKER_HOST=tcp://10.0.0.7:2375 docker run "),
        "{planned}"
    );
    assert!(
        planned.stdout.contains("-v /there:/x") && !planned.stdout.contains("AWS"),
        "{planned}"
    );
}

#[test]
fn a_dock_that_is_not_there_is_named() {
    with_dock(
        Sandbox::new().file("docker/dockerutils.cfg", "[dev]\nname = busybox\n"),
        "10.0.0.7:2375",
    )
    .command("run-image")
    .args(["dev", "--dock", "fra"])
    .code(125)
    .stderr_has("there is no dock \"fra\"\n\nhint: is it \"far\"? `ls-dock` lists them all\n")
    .run();
}

/// A repository with a stack in this folder, on branch `work`.
fn stack(folder: &str) -> Sandbox {
    let spec = "tag: {prefix: 1.10}\nimages:\n  base: {image_name: r.example/t/base}\n";
    let sandbox = Sandbox::new()
        .file(&format!("{folder}/spec.yml"), spec)
        .file(&format!("{folder}/base/Dockerfile"), "FROM scratch\n")
        .dir("notebooks");
    let git = sandbox.program("/bin/sh").args(["-c", "git init -q -b work"]);
    git.any_stderr().run();
    sandbox
}

#[test]
fn an_image_of_a_stack_is_known_by_its_directory() {
    let sandbox = stack("images");
    let line = |arguments: &[&str]| {
        let run = run_image(&sandbox).current_dir("notebooks").args(arguments);
        run.arg("--dry-run").any_stdout().run().stdout
    };
    let said = line(&["base"]);
    assert!(
        said.starts_with("(cd .. && docker run ") || said.contains("docker run --init --name tester_base_"),
        "{said}"
    );
    assert!(said.trim_end().ends_with(" r.example/t/base:1.10-work"), "{said}");
    let said = line(&["base", "-t", "1.10-stable", "-c", "python -V"]);
    assert!(
        said.trim_end().ends_with(" r.example/t/base:1.10-stable python -V"),
        "{said}"
    );
    run_image(&sandbox)
        .args(["bas", "--dry-run"])
        .code(125)
        .stderr_has("run-image: ")
        .run();
    run_image(&sandbox)
        .args(["base", "--build"])
        .engine(&ScriptedEngine::start())
        .code(125)
        .stderr_has("there is nothing to build for base\n\nhint: build-stack base --no-push")
        .run();
}

#[test]
fn an_image_of_a_stack_that_the_engine_has_is_run_and_another_is_pulled() {
    let sandbox = stack("images");
    let here = "/images/r.example/t/base:1.10-work/json";
    let engine = running(3).on("GET", here, image());
    let run = run_image(&sandbox).arg("base").engine(&engine).code(3);
    run.stdout("out\n").any_stderr().run();
    assert_eq!(created(&engine).json()["Image"], "r.example/t/base:1.10-work");
    let absent = Reply::error(404, "manifest for r.example/t/base:1.10-work not found");
    let engine = making()
        .on("GET", here, Reply::error(404, "No such image"))
        .on("POST", "/images/create", absent);
    run_image(&sandbox)
        .arg("base")
        .engine(&engine)
        .code(125)
        .stderr_has("r.example/t/base:1.10-work can't be pulled")
        .stderr_has("hint: build it here: build-stack base --no-push")
        .run();
}

#[test]
fn where_the_configuration_names_the_image_too_it_is_said_which_is_run() {
    let named = stack("docker").file(
        "docker/dockerutils.cfg",
        "[base]\nname = own\ntag = 1\nargs = --cpus 2\n",
    );
    run_image(&named)
        .args(["base", "--dry-run"])
        .stdout_has(" sample-own:1\n")
        .stderr_has("base is the image that [base] of docker/dockerutils.cfg names, and not r.example/t/base:1.10-work of spec.yml")
        .run();
    let options = stack("docker").file("docker/dockerutils.cfg", "[base]\nargs = --cpus 2\n");
    run_image(&options)
        .args(["base", "--dry-run"])
        .stdout_has(" --cpus 2 ")
        .stdout_has(" r.example/t/base:1.10-work\n")
        .stderr_has(
            "base is r.example/t/base:1.10-work of spec.yml: [base] of docker/dockerutils.cfg names no other image",
        )
        .run();
    // A file of that name that is no stack changes nothing.
    let other = project().file("docker/spec.yml", "openapi: 3.0.0\n");
    let said = run_image(&other).args(["dev", "--dry-run"]).any_stdout().run();
    assert!(said.stdout.ends_with(" sample-dev:tester\n"), "{said}");
}
