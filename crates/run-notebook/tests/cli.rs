//! The real `run-notebook` in a sandbox, against a scripted engine whose published port leads to a scripted server.
#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockerutils_test_support::{Invocation, Recorded, Reply, Sandbox, ScriptedEngine};
use serde_json::{Value, json};

const DEFAULT: &str = "/images/resero/docker-ds:latest/json";

fn run_notebook(sandbox: &Sandbox) -> Invocation<'_> {
    sandbox.command("run-notebook")
}

/// A call for which the engine is on this machine.
fn at<'a>(sandbox: &'a Sandbox, engine: &ScriptedEngine) -> Invocation<'a> {
    run_notebook(sandbox)
        .engine(engine)
        .env("DOCKERUTILS_LOCAL_ENGINE", engine.host())
}

fn project() -> Sandbox {
    Sandbox::new().file("docker/dockerutils.cfg", "")
}

fn stacks() -> Reply {
    let config = json!({
        "Entrypoint": ["tini", "-g", "--", "start.sh"], "Cmd": ["start-notebook.py"], "User": "1000",
        "Env": ["HOME=/home/jovyan"], "ExposedPorts": { "8888/tcp": {} },
    });
    Reply::json(
        200,
        &json!({ "Id": "sha256:1", "Os": "linux", "Architecture": "amd64", "Config": config }),
    )
}

/// A server, and the port of this machine at which it answers.
struct Server {
    scripted: ScriptedEngine,
    port: u16,
}

/// A Jupyter server that shows JupyterLab.
fn jupyter() -> Server {
    let status = json!({
        "started": "2026-11-29T10:00:00Z", "last_activity": "2026-11-29T10:30:00Z", "connections": 1, "kernels": 2,
    });
    let scripted = ScriptedEngine::start()
        .on("GET", "/api", Reply::json(200, &json!({"version": "2.14.0"})))
        .on("GET", "/api/status", Reply::json(200, &status).needs("authorization"))
        .on("GET", "/api/kernels", Reply::json(200, &json!([])))
        .on("GET", "/api/sessions", Reply::json(200, &json!([])))
        .on("POST", "/api/shutdown", Reply::empty(200))
        .on("GET", "/", Reply::empty(302).header("Location", "/lab?"));
    let port = scripted.tcp().rsplit_once(':').unwrap().1.parse().unwrap();
    Server { scripted, port }
}

/// The engine's description of what is at a path of a container, by Go's file mode.
fn described(mode: u64, link_target: &str) -> Reply {
    let stat =
        json!({ "name": "x", "size": 1, "mode": mode, "mtime": "2026-01-01T00:00:00Z", "linkTarget": link_target });
    Reply::empty(200).header("X-Docker-Container-Path-Stat", &STANDARD.encode(stat.to_string()))
}

fn folder() -> Reply {
    described((1 << 31) | 0o755, "")
}

fn link_to(target: &str) -> Reply {
    described((1 << 27) | 0o777, target)
}

/// What the engine says of a container that has this folder mounted.
fn inspected(id: &str, port: u16, root: &str) -> Reply {
    published(id, 8888, port, root)
}

/// The same, with another port inside.
fn published(id: &str, inside: u16, port: u16, root: &str) -> Reply {
    Reply::json(200, &inspection(id, inside, port, root))
}

fn inspection(id: &str, inside: u16, port: u16, root: &str) -> Value {
    let ports = json!({ format!("{inside}/tcp"): [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}] });
    json!({
        "Id": id, "Name": "/tester_notebook_1", "Image": "sha256:1",
        "State": {"Running": true, "Status": "running", "StartedAt": "2026-11-29T09:59:30Z"},
        "Config": {
            "Tty": false, "Image": "resero/docker-ds:latest", "Env": ["JUPYTER_TOKEN=s3cret"],
            "Labels": {
                "io.dockerutils.notebook": "jupyter:8888/", "io.dockerutils.project": "sample",
                "io.dockerutils.user": "tester",
            },
        },
        "HostConfig": {},
        "Mounts": [{"Type": "bind", "Source": root, "Destination": "/home/jovyan/project"}],
        "NetworkSettings": {"Ports": ports},
    })
}

/// An engine of this machine, with the default image, and no container.
fn empty() -> ScriptedEngine {
    ScriptedEngine::start()
        .on("GET", "/info", Reply::this_machine(&json!({})))
        .on("POST", "/images/create", Reply::stream(&[json!({"status": "done"})]))
        .on("GET", DEFAULT, stacks())
}

/// An engine that makes a container, whose port leads to this server. What it lists, how it starts, and how it ends, is
/// added by the test.
fn making(id: &str, server: &Server) -> ScriptedEngine {
    making_at(id, 8888, server)
}

/// The same, with another port inside.
fn making_at(id: &str, inside: u16, server: &Server) -> ScriptedEngine {
    let of = |what: &str| format!("/containers/{id}{what}");
    empty()
        .on(
            "GET",
            "/containers/tester_notebook_*/json",
            Reply::error(404, "no such container"),
        )
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": id, "Warnings": [] })),
        )
        .on("DELETE", &of(""), Reply::empty(204))
        .on("POST", &of("/attach"), Reply::upgrade([""]))
        .on("GET", &of("/logs"), Reply::bytes("").endless())
        .on("GET", &of("/json"), published(id, inside, server.port, ""))
}

fn started(engine: ScriptedEngine, id: &str) -> ScriptedEngine {
    engine
        .on("POST", &format!("/containers/{id}/start"), Reply::empty(204))
        .on("POST", &format!("/containers/{id}/wait"), Reply::stream(&[]).endless())
}

fn listing(engine: ScriptedEngine, ids: &[&str]) -> ScriptedEngine {
    let listed: Vec<Value> = ids.iter().map(|id| json!({ "Id": id })).collect();
    engine.on("GET", "/containers/json", Reply::json(200, &json!(listed)))
}

/// An engine on which `c1` runs for this project already.
fn running(sandbox: &Sandbox, server: &Server) -> ScriptedEngine {
    let root = sandbox.project().display().to_string();
    listing(empty(), &["c1"]).on("GET", "/containers/c1/json", inspected("c1", server.port, &root))
}

fn variables(created: &Recorded) -> Vec<String> {
    let body = created.json();
    let pairs = body.get("Env").and_then(Value::as_array).unwrap().iter();
    pairs.map(|pair| pair.as_str().unwrap().to_owned()).collect()
}

#[test]
fn help_is_as_it_was() {
    let sandbox = Sandbox::new();
    run_notebook(&sandbox).arg("-h").stdout(include_str!("help.txt")).run();
    run_notebook(&sandbox)
        .arg("--help")
        .stdout(include_str!("help-long.txt"))
        .run();
    run_notebook(&sandbox)
        .arg("--version")
        .stdout("run-notebook 3.0.0\n")
        .run();
}

#[test]
fn wrong_usage_is_code_125() {
    let sandbox = project();
    for (words, part) in [
        (&["--port", "0"][..], "--port"),
        (&["--idle", "soon"], "--idle"),
        (&["--list", "--detach"], "cannot be used with"),
        (&["--stop", "--list"], "cannot be used with"),
        (&["--bind", "0.0.0.0", "--detach"], "cannot be used with"),
        (&["--bind", "everywhere"], "--bind"),
    ] {
        run_notebook(&sandbox).args(words).code(125).stderr_has(part).run();
    }
    run_notebook(&sandbox)
        .args(["none.ipynb", "--dry-run"])
        .code(125)
        .stderr_has("none.ipynb can't be opened")
        .run();
}

#[test]
fn a_dry_run_prints_the_line_and_no_token() {
    let sandbox = project();
    let outcome = run_notebook(&sandbox)
        .args(["--dry-run", "-q"])
        .env("JUPYTER_TOKEN", "weak-one")
        .any_stdout()
        .run();
    let line = outcome.stdout.trim_end();
    let (before, after) = line.split_once("--name tester_notebook_").unwrap();
    assert_eq!(before, "docker run --init ", "{line}");
    assert!(after.starts_with("20") && after.contains(" --rm -d "), "{line}");
    let ours = " -e NOTEBOOK_MODE=lab -e JUPYTER_TOKEN -p 127.0.0.1:8888:8888 -v \
                [SANDBOX]/sample:/home/jovyan/project ";
    let labels = " --label io.dockerutils.project=sample --label io.dockerutils.user=tester --label \
                  io.dockerutils.notebook=jupyter:8888/ resero/docker-ds:latest";
    assert!(after.contains(ours) && after.ends_with(labels), "{line}");
    assert!(!line.contains("weak-one"), "{line}");
    let document = run_notebook(&sandbox)
        .args(["--dry-run", "--json"])
        .any_stdout()
        .run()
        .json();
    assert!(document["commands"][0].as_str().unwrap().starts_with("docker run "));
}

#[test]
fn a_dry_run_shows_what_is_put_into_the_container() {
    let sandbox = project().file("setup.py", "");
    let outcome = run_notebook(&sandbox)
        .arg("--dry-run")
        .env("DOCKER_DS_DIFFS", "1")
        .any_stdout()
        .stderr_has(
            "docker/notebook's start script is put into the container, at /opt/dockerutils/start-notebook: the project is \
             installed (pip install -e), notebooks that are saved are copied to .diffs",
        )
        .run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let [create, fill, start] = lines.as_slice() else {
        panic!("{outcome}");
    };
    assert!(
        create.starts_with("docker create --init --name ") && create.contains(" -e DOCKER_DS_DIFFS=1 "),
        "{outcome}"
    );
    assert!(
        create.ends_with(" resero/docker-ds:latest /opt/dockerutils/start-notebook --stay start-notebook.py"),
        "{outcome}"
    );
    assert!(
        fill.starts_with("run-notebook --start-files | docker cp - tester_notebook_") && fill.ends_with(":/"),
        "{outcome}"
    );
    assert!(start.starts_with("docker start tester_notebook_"), "{outcome}");
}

#[test]
fn the_start_script_goes_into_a_container_with_a_shell() {
    let sandbox = project().file("pyproject.toml", "[project]\nname = \"sample\"\n");
    let server = jupyter();
    let engine = listing(started(making("c1", &server), "c1"), &[])
        .on("HEAD", "/containers/c1/archive", folder())
        .on("PUT", "/containers/c1/archive", Reply::empty(200));
    at(&sandbox, &engine)
        .args(["--detach", "--no-browser"])
        .any_stdout()
        .any_stderr()
        .run();
    let put = engine.request("PUT", "/containers/c1/archive");
    for name in ["start-notebook", "jupyter_server_config.py"] {
        let path = format!("opt/dockerutils/{name}");
        assert!(
            put.body.windows(path.len()).any(|part| part == path.as_bytes()),
            "{name}"
        );
    }
    let body = engine.request("POST", "/containers/create").json();
    assert_eq!(
        body["Cmd"],
        json!(["/opt/dockerutils/start-notebook", "--stay", "start-notebook.py"])
    );
}

/// Links of an image would have the engine write into what is mounted, as root.
#[test]
fn nothing_is_put_into_a_container_through_the_image_s_links() {
    let sandbox = project().file("pyproject.toml", "[project]\nname = \"sample\"\n");
    let server = jupyter();
    let refused = |engine: ScriptedEngine, obstacle: &str| {
        let engine = listing(started(engine, "c1"), &[]).on("PUT", "/containers/c1/archive", Reply::empty(200));
        at(&sandbox, &engine)
            .args(["--detach", "--no-browser"])
            .any_stdout()
            .stderr_has(&format!(
                "without docker/notebook's start script, as {obstacle}; it is for this: "
            ))
            .run();
        assert!(!engine.requests().iter().any(|request| request.method == "PUT"));
    };
    let asked = |replies: Vec<Reply>| {
        // The shell is asked for first.
        let making = making("c1", &server).on("HEAD", "/containers/c1/archive", folder());
        let on = |engine: ScriptedEngine, reply| engine.on("HEAD", "/containers/c1/archive", reply);
        replies.into_iter().fold(making, on)
    };
    refused(
        asked(vec![link_to("/home/jovyan/project")]),
        "/opt is a link to /home/jovyan/project in the image",
    );
    refused(
        asked(vec![folder(), link_to("/home/jovyan/project")]),
        "/opt/dockerutils is a link to /home/jovyan/project in the image",
    );
    // The engine follows the link when it mounts.
    refused(
        asked(vec![
            folder(),
            folder(),
            folder(),
            folder(),
            link_to("/opt/dockerutils"),
        ]),
        "the mount at /home/jovyan/project leads to /opt/dockerutils by a link in the image",
    );
    refused(
        asked(vec![Reply::empty(200)]),
        "the engine does not say what is at /opt in the image",
    );
}

#[test]
fn what_the_printed_line_gives_docker_cp_is_printed() {
    let sandbox = project();
    let files = run_notebook(&sandbox).arg("--start-files").any_stdout().run();
    assert!(files.stdout.contains("opt/dockerutils/start-notebook"));
    assert!(!files.stdout.contains("hub_standin.py\0"));
    let files = run_notebook(&sandbox)
        .arg("--start-files=/home/ann:7:8")
        .any_stdout()
        .run();
    assert!(files.stdout.starts_with("home/ann/\0") && files.stdout.contains("opt/dockerutils/hub_standin.py\0"));
    run_notebook(&sandbox)
        .arg("--start-files=home")
        .code(125)
        .stderr_has("\"home\" is not HOME or HOME:UID:GID")
        .run();
}

#[test]
fn as_a_hub_starts_it_a_volume_is_made_first() {
    let sandbox = project();
    let engine = empty();
    let outcome = at(&sandbox, &engine)
        .args(["--as-hub", "--dry-run"])
        .any_stdout()
        .any_stderr()
        .run();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{outcome}");
    assert!(
        lines[0].starts_with("docker volume create --label io.dockerutils.project=sample "),
        "{outcome}"
    );
    assert!(
        lines[1].contains(":/home/root:nocopy -e JUPYTERHUB_USER=tester ")
            || lines[1].contains(":/home/jovyan:nocopy "),
        "{outcome}"
    );
    assert!(
        outcome
            .stderr
            .contains("this removes it: docker volume rm tester_sample_home_"),
        "{outcome}"
    );
    // A dry run makes nothing.
    assert!(!engine.requests().iter().any(|request| request.method == "POST"));
}

#[test]
fn a_volume_that_is_another_s_is_not_mounted() {
    let sandbox = project();
    let engine = listing(making("c1", &jupyter()), &[])
        .on("HEAD", "/containers/c1/archive", Reply::empty(404))
        .on("GET", "/volumes/*", Reply::error(404, "no such volume"))
        .on(
            "POST",
            "/volumes/create",
            Reply::json(
                201,
                &json!({ "Name": "x", "Driver": "local", "Mountpoint": "/x", "Labels": {}, "Scope": "local", "Options": {} }),
            ),
        );
    at(&sandbox, &engine)
        .arg("--as-hub")
        .code(125)
        .stderr_has("is there, and was not made by run-notebook --as-hub")
        .stderr_has("docker volume inspect tester_sample_home_")
        .run();
}

#[test]
fn a_read_only_container_is_not_started_as_a_hub_does() {
    let sandbox = project().file("docker/dockerutils.cfg", "[notebook]\nargs = --read-only\n");
    at(&sandbox, &empty())
        .args(["--as-hub", "--dry-run"])
        .code(125)
        .stderr_has("[notebook] has --read-only")
        .stderr_has("take --read-only out of [notebook], or leave out --as-hub")
        .run();
}

#[test]
fn no_volume_is_made_for_a_home_behind_a_link() {
    let sandbox = project();
    let engine =
        listing(making("c1", &jupyter()), &[]).on("HEAD", "/containers/c1/archive", link_to("/home/jovyan/project"));
    at(&sandbox, &engine)
        .arg("--as-hub")
        .code(125)
        .stderr_has(
            "the home folder (HOME) of resero/docker-ds:latest: /home is a link to /home/jovyan/project in the image",
        )
        .stderr_has("or leave out --as-hub")
        .run();
    let requests = engine.requests();
    assert!(!requests.iter().any(|request| request.path.starts_with("/volumes")));
    assert!(requests.iter().any(|request| request.method == "DELETE"));
}

#[test]
fn a_new_volume_is_removed_when_the_start_fails() {
    let sandbox = project();
    let root = |reply: &str| {
        let labels = json!({
            "io.dockerutils.project": "sample", "io.dockerutils.user": "tester",
            "io.dockerutils.notebook-home": "resero/docker-ds:latest",
        });
        let volume = json!({
            "Name": "x", "Driver": "local", "Mountpoint": "/x", "Labels": labels, "Scope": "local", "Options": {},
        });
        let there = match reply {
            "new" => Reply::error(404, "no such volume"),
            _ => Reply::json(200, &volume),
        };
        let engine = listing(making("c1", &jupyter()), &[])
            .on("HEAD", "/containers/c1/archive", Reply::empty(404))
            .on("GET", "/volumes/*", there)
            .on("POST", "/volumes/create", Reply::json(201, &volume))
            .on("PUT", "/containers/c1/archive", Reply::empty(200))
            .on("POST", "/containers/c1/wait", Reply::stream(&[]).endless())
            .on("POST", "/containers/c1/start", Reply::error(500, "no such device"))
            .on("DELETE", "/volumes/*", Reply::error(409, "volume is in use"))
            .on("DELETE", "/volumes/*", Reply::empty(204));
        at(&sandbox, &engine)
            .arg("--as-hub")
            .code(125)
            .stderr_has("no such device")
            .run();
        let requests = engine.requests();
        let gone = requests
            .iter()
            .filter(|request| request.method == "DELETE" && request.path.starts_with("/volumes/"));
        gone.count()
    };
    assert_eq!((root("new"), root("old")), (2, 0));
}

#[test]
fn an_image_without_a_shell_starts_as_it_is() {
    let sandbox = project().file("setup.py", "");
    let server = jupyter();
    let engine =
        listing(started(making("c1", &server), "c1"), &[]).on("HEAD", "/containers/c1/archive", Reply::empty(404));
    at(&sandbox, &engine)
        .args(["--detach", "--no-browser"])
        .any_stdout()
        .stderr_has(
            "warning: the container starts without docker/notebook's start script, as the image has no /bin/sh; it is for this: \
             the project is installed (pip install -e)\n",
        )
        .run();
    let requests = engine.requests();
    let created: Vec<Value> = requests
        .iter()
        .filter(|request| request.path == "/containers/create")
        .map(|request| request.json()["Cmd"].clone())
        .collect();
    assert_eq!(created.len(), 2);
    assert_eq!(created[1], json!(["start-notebook.py"]));
    assert!(!requests.iter().any(|request| request.method == "PUT"));
}

#[test]
fn a_dry_run_asks_the_engine_about_the_image() {
    let sandbox = project();
    let engine = empty();
    at(&sandbox, &engine)
        .args(["--dry-run", "-q", "--", "--debug"])
        .stdout_has(" resero/docker-ds:latest start-notebook.py --debug\n")
        .run();
}

#[test]
fn the_url_is_printed_when_the_server_answers() {
    let sandbox = project().file("a b.ipynb", "{}");
    let server = jupyter();
    let engine = listing(started(making("c1", &server), "c1"), &[]);
    let outcome = at(&sandbox, &engine)
        .args(["a b.ipynb", "--detach", "--no-browser"])
        .any_stdout()
        .any_stderr()
        .run();
    let created = engine.request("POST", "/containers/create");
    let variables = variables(&created);
    let token = variables
        .iter()
        .find_map(|pair| pair.strip_prefix("JUPYTER_TOKEN="))
        .unwrap();
    assert_eq!(token.len(), 48);
    assert_eq!(
        outcome.stdout,
        format!(
            "http://127.0.0.1:{}/lab/tree/project/a%20b.ipynb?token={token}\n",
            server.port
        )
    );
    // The line, how it was decided whose files they are, and how it is ended.
    let stderr = &outcome.stderr;
    for part in [
        "docker run --name tester_notebook_",
        " -e JUPYTER_TOKEN -p 127.0.0.1:",
        "run-notebook --stop tester_notebook_",
    ] {
        assert!(stderr.contains(part), "{part}\n{outcome}");
    }
    assert!(!stderr.contains(token), "{outcome}");
    assert!(!engine.requests().iter().any(|request| request.method == "DELETE"));
    let body = created.json();
    assert_eq!(body["Labels"]["io.dockerutils.notebook"], "jupyter:8888/");
    assert_eq!(body["HostConfig"]["AutoRemove"], true);
    assert!(
        body["HostConfig"]["PortBindings"]["8888/tcp"][0]["HostIp"] == "127.0.0.1",
        "{body}"
    );
}

#[test]
fn json_has_all_fields() {
    let sandbox = project();
    let server = jupyter();
    let engine = listing(started(making("c1", &server), "c1"), &[]);
    let document = at(&sandbox, &engine)
        .args(["--new", "--detach", "--json"])
        .any_stdout()
        .any_stderr()
        .run()
        .json();
    let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
    let mut expected = [
        "url",
        "token",
        "container",
        "dock",
        "image",
        "port",
        "started",
        "idle_seconds",
        "kernels",
        "connections",
        "error",
    ];
    expected.sort_unstable();
    assert_eq!(fields, expected);
    // Only the container that it made is looked at.
    let is_listing = |request: &&Recorded| request.path == "/containers/json";
    assert_eq!(
        engine.requests().iter().filter(is_listing).count(),
        1,
        "the ports that are taken"
    );
    assert_eq!(document["port"], server.port);
    assert_eq!(document["error"], Value::Null);
    let url = document["url"].as_str().unwrap();
    assert!(
        url.starts_with(&format!("http://127.0.0.1:{}/lab?token=", server.port)),
        "{url}"
    );
}

#[test]
fn a_second_call_finds_the_first_one_s_server() {
    let sandbox = project();
    let server = jupyter();
    let engine = running(&sandbox, &server);
    at(&sandbox, &engine)
        .arg("--no-browser")
        .stdout(&format!("http://127.0.0.1:{}/lab?token=s3cret\n", server.port))
        .stderr_has("container tester_notebook_1 serves this project already")
        .run();
    assert!(
        !engine
            .requests()
            .iter()
            .any(|request| request.path == "/containers/create")
    );
}

#[test]
fn a_second_call_opens_the_page_that_the_first_one_opened() {
    let sandbox = project();
    let server = jupyter();
    let root = sandbox.project().display().to_string();
    let mut container = inspection("c1", 8888, server.port, &root);
    container["Config"]["Labels"]["io.dockerutils.notebook-page"] = json!("desktop");
    let engine = listing(empty(), &["c1"]).on("GET", "/containers/c1/json", Reply::json(200, &container));
    at(&sandbox, &engine)
        .arg("--no-browser")
        .stdout(&format!("http://127.0.0.1:{}/desktop?token=s3cret\n", server.port))
        .any_stderr()
        .run();
    at(&sandbox, &engine)
        .args(["--no-browser", "--path", "vscode"])
        .stdout(&format!("http://127.0.0.1:{}/vscode?token=s3cret\n", server.port))
        .any_stderr()
        .run();
}

#[test]
fn a_second_call_opens_another_page_of_a_page_server() {
    let sandbox = project().file("a.txt", "");
    let server = jupyter();
    let root = sandbox.project().display().to_string();
    let mut container = inspection("c1", 8888, server.port, &root);
    container["Config"]["Labels"]["io.dockerutils.notebook"] = json!("page:8888/docs");
    let engine = listing(empty(), &["c1"]).on("GET", "/containers/c1/json", Reply::json(200, &container));
    at(&sandbox, &engine)
        .args(["--no-browser", "--path", "api", "a.txt"])
        .stdout(&format!("http://127.0.0.1:{}/api\n", server.port))
        .stderr_has("opens no file by its URL")
        .run();
}

#[test]
fn a_server_that_asks_for_no_token_is_warned_of_once() {
    let sandbox = project();
    let status = json!({
        "started": "2026-11-29T10:00:00Z", "last_activity": "2026-11-29T10:30:00Z", "connections": 0, "kernels": 0,
    });
    let scripted = ScriptedEngine::start().on("GET", "/api/status", Reply::json(200, &status));
    let port = scripted.tcp().rsplit_once(':').unwrap().1.parse().unwrap();
    let server = Server { scripted, port };
    let engine = running(&sandbox, &server);
    let outcome = at(&sandbox, &engine)
        .arg("--no-browser")
        .any_stdout()
        .any_stderr()
        .run();
    let warnings = outcome.stderr.matches("warning: the server asks for no token").count();
    assert_eq!(warnings, 1, "{outcome}");
}

#[test]
fn a_server_of_another_folder_with_the_same_name_is_not_taken() {
    let sandbox = project();
    let (other, own) = (jupyter(), jupyter());
    let engine = listing(started(making("c2", &own), "c2"), &["c1"]).on(
        "GET",
        "/containers/c1/json",
        inspected("c1", other.port, "/elsewhere/sample"),
    );
    at(&sandbox, &engine)
        .args(["--detach", "--no-browser"])
        .stdout_has(&format!("http://127.0.0.1:{}/lab?token=", own.port))
        .any_stderr()
        .run();
}

#[test]
fn a_taken_port_is_passed_over() {
    let sandbox = project();
    let server = jupyter();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = taken.local_addr().unwrap().port();
    let refused = "driver failed: Bind for 127.0.0.1:1 failed: port is already allocated";
    let refusing = making_at("c1", number, &server).on("POST", "/containers/c1/start", Reply::error(500, refused));
    let engine = listing(started(refusing, "c1"), &[]);
    at(&sandbox, &engine)
        .args(["--detach", "--no-browser", "--port", &number.to_string()])
        .any_stdout()
        .any_stderr()
        .run();
    let asked = engine.requests();
    let created: Vec<u16> = asked
        .iter()
        .filter(|request| request.path == "/containers/create")
        .filter_map(|request| {
            let body = request.json();
            let bindings = body["HostConfig"]["PortBindings"].as_object()?.values().next()?.clone();
            bindings[0]["HostPort"].as_str()?.parse().ok()
        })
        .collect();
    // This machine's own, and the one that the engine refused.
    assert_eq!(created.len(), 2, "{created:?}");
    assert!(created[0] > number && created[1] > created[0], "{number}: {created:?}");
    assert!(asked.iter().any(|request| request.method == "DELETE"));
}

#[test]
fn a_container_that_dies_at_its_start_shows_its_last_lines() {
    let sandbox = project();
    let engine = listing(empty(), &[])
        .on(
            "GET",
            "/containers/tester_notebook_*/json",
            Reply::error(404, "no such container"),
        )
        .on(
            "POST",
            "/containers/create",
            Reply::json(201, &json!({ "Id": "c1", "Warnings": [] })),
        )
        .on("DELETE", "/containers/c1", Reply::empty(204))
        .on(
            "POST",
            "/containers/c1/attach",
            Reply::upgrade([frame(2, "first\nno module jupyter\n")]),
        )
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 3 })),
        )
        .on("POST", "/containers/c1/start", Reply::empty(204))
        .on("GET", "/containers/c1/json", Reply::error(404, "no such container"));
    at(&sandbox, &engine)
        .arg("--detach")
        .code(3)
        .stderr_has("  no module jupyter\n")
        .stderr_has(" ended with code 3 before its server answered\n")
        .run();
}

fn frame(stream: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
}

#[test]
fn an_image_that_is_not_there_is_an_error_where_it_is_not_pulled() {
    let sandbox = project();
    let engine = ScriptedEngine::start()
        .on("GET", "/info", Reply::this_machine(&json!({})))
        .on("GET", "/containers/json", Reply::json(200, &json!([])))
        .on("GET", DEFAULT, Reply::error(404, "no such image"));
    at(&sandbox, &engine)
        .env("DOCKER_DS_DONT_PULL", "1")
        .code(125)
        .stderr_has("run-notebook: the engine has no image resero/docker-ds:latest, and DOCKER_DS_DONT_PULL is set")
        .stderr_has("run-notebook --image")
        .run();
}

#[test]
fn a_build_that_fails_stops_it() {
    let sandbox = project().file("docker/notebook/Dockerfile", "FROM scratch\n");
    let engine = listing(ScriptedEngine::start(), &[])
        .on("GET", "/info", Reply::this_machine(&json!({})))
        .on("POST", "/build", Reply::error(500, "unknown instruction: FRMO"));
    at(&sandbox, &engine)
        .env("DOCKER_BUILDKIT", "0")
        .code(125)
        .stderr_has("unknown instruction: FRMO")
        .stderr_has("run-notebook: notebook could not be built, and is not run")
        .run();
    let made = |request: &Recorded| request.path == "/containers/create";
    assert!(!engine.requests().iter().any(made));
}

#[test]
fn a_hub_s_token_is_not_passed_on() {
    let sandbox = project().file(
        "docker/dockerutils.cfg",
        "[notebook]\nenvironment = -e JUPYTERHUB_API_TOKEN -e KEPT=1\nargs = -e FOO=x$JUPYTERHUB_API_TOKEN\n",
    );
    let server = jupyter();
    let engine = listing(started(making("c1", &server), "c1"), &[]);
    at(&sandbox, &engine)
        .env("JUPYTERHUB_API_TOKEN", "of-the-hub")
        .args(["--detach", "--no-browser"])
        .any_stdout()
        .stderr_has("JUPYTERHUB_API_TOKEN is not passed on")
        .run();
    let variables = variables(&engine.request("POST", "/containers/create"));
    assert!(variables.contains(&"KEPT=1".to_owned()), "{variables:?}");
    // Nor where the configuration names it.
    assert!(variables.contains(&"FOO=x".to_owned()), "{variables:?}");
    assert!(!variables.iter().any(|pair| pair.contains("of-the-hub")));
}

#[test]
fn ctrl_c_stops_the_server_properly() {
    let sandbox = project();
    let server = jupyter();
    // Two wait for its end while it runs; then it has ended.
    let engine = listing(started(making("c1", &server), "c1"), &[])
        .on("POST", "/containers/c1/wait", Reply::stream(&[]).endless())
        .on(
            "POST",
            "/containers/c1/wait",
            Reply::json(200, &json!({ "StatusCode": 0 })),
        );
    let running = at(&sandbox, &engine).arg("--no-browser").spawn();
    running.wait_for_stderr("Ctrl-C stops it");
    running.interrupt();
    let outcome = running.wait();
    assert!(outcome.stderr.contains("stopping tester_notebook_"), "{outcome}");
    server.scripted.request("POST", "/api/shutdown");
}

#[test]
fn notebooks_are_listed_and_ended() {
    let sandbox = project();
    let server = jupyter();
    let engine = running(&sandbox, &server).on(
        "POST",
        "/containers/c1/wait",
        Reply::json(200, &json!({ "StatusCode": 0 })),
    );
    let listed = at(&sandbox, &engine)
        .args(["--list", "--json"])
        .any_stdout()
        .run()
        .json();
    assert_eq!(
        listed[0]["url"],
        format!("http://127.0.0.1:{}/lab?token=s3cret", server.port)
    );
    assert_eq!(
        (&listed[0]["kernels"], &listed[0]["connections"]),
        (&json!(2), &json!(1))
    );
    at(&sandbox, &engine)
        .arg("--list")
        .stdout_has("CONTAINER")
        .stdout_has("tester_notebook_1")
        .run();
    at(&sandbox, &engine)
        .args(["--stop", "another"])
        .code(125)
        .stderr_has("no notebook another of tester runs on ")
        .stderr_has("run-notebook --list")
        .run();
    at(&sandbox, &engine)
        .arg("--stop")
        .stdout("tester_notebook_1: stopped\n")
        .any_stderr()
        .run();
    server.scripted.request("POST", "/api/shutdown");
}

#[test]
fn an_image_of_a_stack_is_known_by_its_directory() {
    let spec = "tag: {prefix: 1.10}\nimages:\n  base: {image_name: r.example/t/base}\n";
    let sandbox = Sandbox::new()
        .file("images/spec.yml", spec)
        .file("images/base/Dockerfile", "FROM scratch\n");
    let git = sandbox.program("/bin/sh").args(["-c", "git init -q -b work"]);
    git.any_stderr().run();
    let said = run_notebook(&sandbox)
        .args(["base", "--dry-run"])
        .any_stdout()
        .any_stderr()
        .run();
    assert!(said.stdout.contains(" r.example/t/base:1.10-work"), "{said}");
    // A file of that name is one.
    sandbox.write("base", "");
    let said = run_notebook(&sandbox)
        .args(["base", "--dry-run"])
        .any_stdout()
        .any_stderr();
    assert!(!said.run().stdout.contains("r.example"));
}
