//! `publish-image` on real engines, to real registries: what arrives, what is not sent twice, each refusal, and that no
//! secret is seen by anybody.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use base64::Engine as _;
use dockerutils_test_support::lab::{self, LabEngine};
use dockerutils_test_support::process::{self, capture, capture_text};
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Invocation, Outcome, Sandbox, free_port, machine, wait};
use serde_json::{Value, json};

const USER: &str = "ann";
/// In base64 of the standard alphabet it has signs that the URL-safe one has not: a push with such a one would be refused.
const PASSWORD: &str = "~?>~?>s3cr3t";

/// A project whose image `dev` is on an engine, and goes to a registry of that engine's.
struct Site {
    engine: LabEngine,
    registry: Registry,
    sandbox: Sandbox,
    project: String,
}

impl Site {
    /// `project` is the test's own name: its images bear it.
    fn new(engine: &LabEngine, project: &str) -> Self {
        let registry = Registry::on(engine).user(USER, PASSWORD).start().unwrap();
        let config = format!("[dev]\nimage_repo = {}\n", registry.address());
        let site = Self {
            sandbox: Sandbox::named(project)
                .file("docker/dev/Dockerfile", "FROM dockerutils-lab-base:1\n")
                .file("docker/dockerutils.cfg", config),
            engine: engine.clone(),
            project: project.to_owned(),
            registry,
        };
        site.make_base();
        site.commit("first");
        site
    }

    /// The image's first layer. Engines remember for each layer where they pushed it, and mix that up where two pushes of
    /// one layer meet: each test has one of its own.
    fn make_base(&self) {
        let mut tar = Command::new("tar");
        self.sandbox.write("base", format!("base {}", self.registry.address()));
        tar.args(["--create", "--directory"])
            .arg(self.sandbox.project())
            .arg("base");
        let mut import = self.engine.docker();
        let labels = format!("LABEL {} {}", lab::label().unwrap(), self.label());
        import.args([
            "import",
            "--change",
            &labels,
            "-",
            &format!("{}-dev:base", self.project),
        ]);
        process::pipe(&mut tar, &mut import).unwrap();
    }

    /// Makes the image anew: its base, and a layer with this content.
    fn commit(&self, content: &str) {
        let docker = |arguments: &[&str]| capture_text(self.engine.docker().args(arguments)).unwrap();
        let container = format!("{}-layer", self.project);
        docker(&[
            "create",
            "--name",
            &container,
            &format!("{}-dev:base", self.project),
            "sh",
        ]);
        let file = self
            .sandbox
            .write("layer", format!("{content} {}", self.registry.address()));
        docker(&["cp", &file.display().to_string(), &format!("{container}:/layer")]);
        docker(&["commit", &container, &self.source()]);
        docker(&["rm", &container]);
    }

    /// The label of all images of this test.
    fn label(&self) -> String {
        format!("io.dockerutils.test={}", self.project)
    }

    fn source(&self) -> String {
        format!("{}-dev:tester", self.project)
    }

    fn reference(&self) -> String {
        format!("{}/{}", self.registry.address(), self.source())
    }

    /// Writes docker's configuration with this login in it.
    fn log_in(&self, user: &str, password: &str) {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let mut auths = serde_json::Map::new();
        auths.insert(self.registry.address().to_owned(), json!({ "auth": auth }));
        self.configure(&json!({ "auths": auths }));
    }

    fn configure(&self, config: &Value) {
        let docker = self.sandbox.home().join(".docker");
        fs::create_dir_all(&docker).unwrap();
        fs::write(docker.join("config.json"), config.to_string()).unwrap();
    }

    fn publish(&self) -> Invocation<'_> {
        self.sandbox
            .command("publish-image")
            .env("DOCKER_HOST", &self.engine.host)
            .arg("dev")
            .any_stderr()
    }

    fn publish_json(&self) -> Value {
        let outcome = self.publish().arg("--json").any_stdout().run();
        outcome.json()["images"][0].clone()
    }

    /// The tags that manifests were written by, in order, once there are as many as are expected.
    fn written(&self, count: usize) -> Vec<String> {
        let paths = wait::found(format_args!("{count} manifests"), || {
            let paths = self.registry.requests("PUT", "/manifests/");
            (paths.len() >= count).then_some(paths)
        });
        let tags = paths.iter().filter_map(|path| path.rsplit('/').next());
        tags.map(str::to_owned).collect()
    }

    fn image_id(&self, reference: &str) -> String {
        capture_text(self.engine.docker().args(["inspect", "--format={{.Id}}", reference])).unwrap()
    }

    /// The docker client, logged in as we are.
    fn docker(&self) -> Command {
        let mut docker = self.engine.docker();
        docker.env("DOCKER_CONFIG", self.sandbox.home().join(".docker"));
        docker
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // There only where the image could not be made.
        let container = format!("{}-layer", self.project);
        let _ = capture(self.engine.docker().args(["rm", "--force", &container]));
        let list = ["images", "--format={{.Repository}}:{{.Tag}}"];
        let images = capture_text(self.engine.docker().args(list)).unwrap_or_default();
        let ours = images
            .lines()
            .filter(|image| image.contains(&format!("{}-dev:", self.project)));
        for image in ours {
            let _ = capture(self.engine.docker().args(["rmi", "--force", image]));
        }
        // Those that another one has taken the name from.
        let list = ["images", "--quiet", "--filter", &format!("label={}", self.label())];
        for image in capture_text(self.engine.docker().args(list))
            .unwrap_or_default()
            .lines()
        {
            let _ = capture(self.engine.docker().args(["rmi", "--force", image]));
        }
    }
}

/// Runs a test on all engines side by side.
fn everywhere(project: &str, test: impl Fn(&Site) + Sync) {
    let engines = lab::engines().unwrap();
    thread::scope(|scope| {
        for engine in &engines {
            let test = &test;
            scope.spawn(move || test(&Site::new(engine, project)));
        }
    });
}

#[test]
fn what_is_published_can_be_pulled() {
    everywhere("pub-pull", |site| {
        let name = &site.engine.name;
        site.log_in(USER, PASSWORD);
        let reference = site.reference();
        let outcome = site.publish().stdout(&format!("docker pull {reference}\n")).run();
        let lines = format!("docker tag {} {reference}\ndocker push {reference}\n", site.source());
        assert!(outcome.stderr.contains(&lines), "{name}: {outcome}");
        let id = site.image_id(&site.source());
        let docker = |arguments: &[&str]| capture_text(site.docker().args(arguments)).unwrap();
        docker(&["rmi", "--force", &reference]);
        docker(&["pull", &reference]);
        assert_eq!(site.image_id(&reference), id, "{name}");
    });
}

#[test]
fn what_is_there_already_is_not_pushed_again() {
    everywhere("pub-again", |site| {
        let name = &site.engine.name;
        site.log_in(USER, PASSWORD);
        let first = site.publish_json();
        assert_eq!(first["status"], "pushed", "{name}: {first}");
        assert_eq!(first["reference"], site.reference(), "{name}");
        assert_eq!(first["pull"], format!("docker pull {}", site.reference()), "{name}");
        assert_eq!(
            first["layers"],
            json!({ "pushed": 2, "mounted": 0, "present": 0 }),
            "{name}: {first}"
        );
        let second = site.publish_json();
        assert_eq!(second["status"], "present", "{name}: {second}");
        assert_eq!(second["digest"], first["digest"], "{name}");
        // What changed is pushed, and no more than that.
        site.commit("second");
        let third = site.publish_json();
        assert_ne!(third["digest"], first["digest"], "{name}");
        assert_eq!(
            third["layers"],
            json!({ "pushed": 1, "mounted": 0, "present": 1 }),
            "{name}: {third}"
        );
        // A tag that leads to another image now is set anew, though every layer is there.
        let tags = ["--publish-tag", "one", "--publish-tag", "two"];
        let images = site.publish().args(tags).arg("--json").any_stdout().run().json();
        let images = images["images"].as_array().unwrap();
        assert_eq!(images.len(), 2, "{name}");
        for image in images {
            assert_eq!(image["digest"], third["digest"], "{name}: {image}");
            assert_eq!(image["layers"]["pushed"], 0, "{name}: {images:?}");
        }
        // The second call wrote nothing.
        assert_eq!(site.written(4), ["tester", "tester", "one", "two"], "{name}");
    });
}

#[test]
fn the_printed_lines_do_the_same() {
    everywhere("pub-lines", |site| {
        site.log_in(USER, PASSWORD);
        let lines = site.publish().arg("--dry-run").any_stdout().run().stdout;
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", &lines])
            .env("DOCKER_HOST", &site.engine.host)
            .env("DOCKER_CONFIG", site.sandbox.home().join(".docker"));
        let said = capture_text(&mut shell).unwrap();
        let ours = site.publish_json();
        // docker has just pushed it: there is nothing left to do.
        assert_eq!(ours["status"], "present", "{}: {ours}", site.engine.name);
        assert!(said.contains(ours["digest"].as_str().unwrap()), "{said} {ours}");
        // By docker alone: the dry run wrote nothing, and there was nothing left to write.
        assert_eq!(site.written(1), ["tester"], "{}", site.engine.name);
    });
}

#[test]
fn a_wrong_login_and_none_are_refused_in_the_registrys_words() {
    everywhere("pub-denied", |site| {
        let hint = format!("hint: docker login {}", site.registry.address());
        let wrong = "wr0ng-passw0rd";
        site.log_in(USER, wrong);
        let outcome = site.publish().code(1).run();
        assert!(outcome.stderr.contains(&hint), "{}: {outcome}", site.engine.name);
        assert!(outcome.stderr.contains("can't be pushed: "), "{outcome}");
        assert!(!outcome.stderr.contains(wrong), "{outcome}");
        site.configure(&json!({}));
        let outcome = site.publish().code(1).run();
        assert!(outcome.stderr.contains(&hint), "{}: {outcome}", site.engine.name);
        let images = site.publish().arg("--json").code(1).any_stdout().run().json();
        let image = &images["images"][0];
        assert_eq!(
            (&image["reference"], &image["status"]),
            (&json!(site.reference()), &json!("failed"))
        );
        assert!(
            image["error"].as_str().unwrap().contains("can't be pushed: "),
            "{images}"
        );
        assert!(
            format!("hint: {}", image["hint"].as_str().unwrap()).starts_with(&hint),
            "{images}"
        );
    });
}

/// A front of a registry: it answers the first requests that write a manifest by itself, and is a plain tunnel for all
/// else. (Where a layer's upload fails, engines try it again by themselves, for a minute.)
struct Front {
    address: String,
    seen: Arc<AtomicUsize>,
}

impl Front {
    /// `answer` is what the first `count` of the requests that `is_meant` knows by their first line are told; none cuts the
    /// connection.
    fn new(registry: &str, count: usize, answer: Option<&'static str>, is_meant: fn(&str) -> bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::<AtomicUsize>::default();
        let (shared, registry) = (Arc::clone(&seen), registry.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (seen, registry) = (Arc::clone(&shared), registry.clone());
                // A side that goes away is a part of the test.
                thread::spawn(move || drop(serve(&client, &registry, &seen, (count, answer, is_meant))));
            }
        });
        Self { address, seen }
    }
}

/// Serves a connection. Engines make a new one for each request to a registry.
fn serve(
    mut client: &TcpStream,
    registry: &str,
    seen: &AtomicUsize,
    (count, answer, is_meant): (usize, Option<&str>, fn(&str) -> bool),
) -> io::Result<()> {
    let mut begin = vec![0; 16 * 1024];
    let read = client.read(&mut begin)?;
    begin.truncate(read);
    let line = String::from_utf8_lossy(&begin);
    let line = line.lines().next().unwrap_or_default();
    if is_meant(line) && seen.fetch_add(1, Ordering::Relaxed) < count {
        return match answer {
            Some(answer) => write!(
                client,
                "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            None => client.shutdown(Shutdown::Both),
        };
    }
    let mut server = TcpStream::connect(registry)?;
    server.write_all(&begin)?;
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Both)
    });
    let mut from = client.try_clone()?;
    let _ = io::copy(&mut from, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}

/// On the machine's own engine: the front is on this machine.
fn behind_a_front(test: &str, count: usize, answer: Option<&'static str>) -> (Site, Front) {
    let is_write = |line: &str| line.starts_with("PUT ") && line.contains("/manifests/");
    behind_a_front_for(test, count, answer, is_write)
}

fn behind_a_front_for(
    test: &str,
    count: usize,
    answer: Option<&'static str>,
    is_meant: fn(&str) -> bool,
) -> (Site, Front) {
    let project = format!("{test}-{}x{}", lab::mark().unwrap(), std::process::id());
    let site = Site::new(&lab::engine("local").unwrap(), &project);
    let front = Front::new(site.registry.address(), count, answer, is_meant);
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let mut auths = serde_json::Map::new();
    auths.insert(front.address.clone(), json!({ "auth": auth }));
    site.configure(&json!({ "auths": auths }));
    site.sandbox.write(
        "docker/dockerutils.cfg",
        format!("[dev]\nimage_repo = {}\n", front.address),
    );
    (site, front)
}

#[test]
fn a_registry_that_is_busy_or_broken_for_a_while_is_tried_again() {
    thread::scope(|scope| {
        for (project, answer) in [
            ("pub-busy", Some("429 Too Many Requests")),
            ("pub-503", Some("503 Service Unavailable")),
            ("pub-cut", None),
        ] {
            scope.spawn(move || {
                let (site, front) = behind_a_front(project, 2, answer);
                let outcome = site.publish().any_stdout().run();
                for pause in ["next try in 1 s", "next try in 2 s"] {
                    assert!(outcome.stderr.contains(pause), "{project}: {outcome}");
                }
                assert_eq!(front.seen.load(Ordering::Relaxed), 3, "{project}: {outcome}");
                // What the first try sent is not forgotten.
                let layers = "layers: 2 pushed, 0 mounted, 0 there already";
                assert!(outcome.stderr.contains(layers), "{outcome}");
                let pull = format!("docker pull {}/{}\n", front.address, site.source());
                assert_eq!(outcome.stdout, pull);
            });
        }
    });
}

#[test]
fn a_registry_whose_first_answer_is_that_it_is_busy_or_broken_gets_the_login_later() {
    thread::scope(|scope| {
        for (project, answer) in [
            ("pub-first-429", "429 Too Many Requests"),
            ("pub-first-500", "500 Internal Server Error"),
            ("pub-first-503", "503 Service Unavailable"),
        ] {
            scope.spawn(move || {
                let is_first = |line: &str| line.starts_with("GET /v2/ ");
                let (site, front) = behind_a_front_for(project, 1, Some(answer), is_first);
                let outcome = site.publish().any_stdout().run();
                assert!(outcome.stderr.contains("next try in 1 s"), "{project}: {outcome}");
                assert!(front.seen.load(Ordering::Relaxed) > 1, "{project}: {outcome}");
            });
        }
    });
}

#[test]
fn a_registry_that_only_fails_is_borne_for_a_minute() {
    let is_upload = |line: &str| line.starts_with("POST ") && line.contains("/blobs/uploads/");
    let (site, front) = behind_a_front_for("pub-only-500", 100_000, Some("500 Internal Server Error"), is_upload);
    let outcome = site.publish().code(1).run();
    for part in [
        "the engine tries again in 5 s",
        "the engine tries again in 20 s",
        "500 Internal Server Error; next try in 1 s",
        "hint: look at the registry's log, or try again later",
    ] {
        assert!(outcome.stderr.contains(part), "{part}: {outcome}");
    }
    // The engine makes five tries of each of two layers. Of the second time that it is asked, few are waited for.
    assert!(!outcome.stderr.contains("next try in 2 s"), "{outcome}");
    assert!(front.seen.load(Ordering::Relaxed) < 20, "{outcome}");
}

#[test]
fn a_registry_that_is_down_is_code_3() {
    let site = Site::new(&lab::engine("20").unwrap(), "pub-down");
    // Nobody listens there.
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    site.sandbox
        .write("docker/dockerutils.cfg", format!("[dev]\nimage_repo = {address}\n"));
    let outcome = site.publish().code(3).run();
    assert!(outcome.stderr.contains("connection refused"), "{outcome}");
    assert!(
        outcome.stderr.contains(&format!(
            "hint: does the engine's machine reach the registry? Try there: curl http://{address}/v2/"
        )),
        "{outcome}"
    );
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let (site, front) = behind_a_front("pub-forbidden", 100, Some("403 Forbidden"));
    let outcome = site.publish().code(1).run();
    assert!(!outcome.stderr.contains("next try"), "{outcome}");
    assert_eq!(front.seen.load(Ordering::Relaxed), 1, "{outcome}");
}

#[test]
fn a_layer_of_another_repository_is_mounted() {
    let site = Site::new(&lab::engine("20").unwrap(), "pub-mount");
    site.log_in(USER, PASSWORD);
    assert_eq!(site.publish_json()["layers"]["pushed"], 2);
    let tag = format!("{}/other/pub-mount-dev:1", site.registry.address());
    site.sandbox
        .write("docker/dockerutils.cfg", format!("[dev]\npublication_tag = {tag}\n"));
    let image = site.publish_json();
    assert_eq!(image["reference"], tag);
    assert_eq!(
        image["layers"],
        json!({ "pushed": 0, "mounted": 2, "present": 0 }),
        "{image}"
    );
}

/// A credential helper of docker's, which gives our login.
fn helper(site: &Site) -> PathBuf {
    let answer = json!({ "ServerURL": site.registry.address(), "Username": USER, "Secret": PASSWORD });
    // The secret is in a file of the helper's: a script with it in it would have it on no command line either.
    let store = site.sandbox.write("bin/store", answer.to_string());
    let script = site.sandbox.write(
        "bin/docker-credential-test",
        format!(
            "#!/bin/sh\ntest \"$1\" = get || exit 1\ncat >/dev/null\ncat {}\n",
            store.display()
        ),
    );
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script.parent().unwrap().to_owned()
}

/// All forms in which the secret could be seen.
fn forms() -> Vec<String> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let pair = format!("{USER}:{PASSWORD}");
    vec![
        PASSWORD.to_owned(),
        STANDARD.encode(&pair),
        URL_SAFE.encode(&pair),
        STANDARD.encode(PASSWORD),
        URL_SAFE.encode(PASSWORD),
    ]
}

fn assert_unseen(what: &str, text: &str) {
    for form in forms() {
        assert!(!text.contains(&form), "the secret is seen ({what}): {text}");
    }
}

#[test]
fn no_secret_is_on_a_command_line_or_in_any_output() {
    machine::require("strace", &["strace"], "a test that sees every command line").unwrap();
    let site = Site::new(&lab::engine("20").unwrap(), "pub-secret");
    let bin = helper(&site);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut helpers = serde_json::Map::new();
    helpers.insert(site.registry.address().to_owned(), json!("test"));
    site.configure(&json!({ "credHelpers": helpers }));
    let trace = |name: &str| site.sandbox.project().join(format!("{name}.trace"));
    for (name, options) in [
        ("plan", &["--dry-run"][..]),
        ("verbose", &["-v"][..]),
        ("json", &["--json", "-v", "--publish-tag", "json"][..]),
        ("quiet", &["-q", "--publish-tag", "quiet"][..]),
    ] {
        let outcome = traced(&site, &trace(name), options, &path);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        assert_unseen(name, &outcome.stdout);
        assert_unseen(name, &outcome.stderr);
        let trace = fs::read_to_string(trace(name)).unwrap();
        assert!(trace.contains("publish-image"), "strace sees us: {trace}");
        assert_eq!(
            trace.contains("docker-credential-test"),
            name != "plan",
            "strace sees the helper: {trace}"
        );
        assert_unseen(name, &trace);
    }
    // The login was good for all that.
    assert_eq!(site.written(3), ["tester", "json", "quiet"]);
}

/// Runs publish-image below strace, which writes every command line, whole, with its environment.
fn traced(site: &Site, trace: &Path, options: &[&str], path: &str) -> Outcome {
    site.sandbox
        .program("strace")
        .args([
            "--follow-forks",
            "--trace=execve",
            "--string-limit=100000",
            "--no-abbrev",
            "--output",
        ])
        .arg(trace)
        .arg(dockerutils_test_support::binary("publish-image"))
        .arg("dev")
        .args(options)
        .env("DOCKER_HOST", &site.engine.host)
        .env("PATH", path)
        .spawn()
        .wait()
}
