//! What the commands take from a registry: bases to build from, images to run; with a login, and in their newest form.

use std::fs;

use base64::Engine as _;
use dockerutils_test_support::lab::{BASE_IMAGE, LabEngine};
use dockerutils_test_support::process::{capture, capture_text};
use dockerutils_test_support::registry::Registry;
use dockerutils_test_support::{Invocation, Sandbox};
use dockerutils_tests::site::{self, Site};
use serde_json::json;

const USER: &str = "ann";
const PASSWORD: &str = "~?>~?>s3cr3t";

/// An image in a registry that asks for a password; it is made anew at will.
struct Published {
    engine: LabEngine,
    registry: Registry,
    sandbox: Sandbox,
    name: String,
}

impl Published {
    fn new(site: &Site, sandbox: Sandbox, name: &str) -> Self {
        Self {
            registry: Registry::on(&site.engine).user(USER, PASSWORD).start().unwrap(),
            engine: site.engine.clone(),
            sandbox,
            name: name.to_owned(),
        }
    }

    fn reference(&self) -> String {
        format!("{}/{}:1", self.registry.address(), self.name)
    }

    fn docker(&self, arguments: &[&str]) -> String {
        capture_text(self.engine.docker().args(arguments)).unwrap()
    }

    fn log_in(&self, password: &str) {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let mut auths = serde_json::Map::new();
        auths.insert(self.registry.address().to_owned(), json!({ "auth": auth }));
        let folder = self.sandbox.home().join(".docker");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.json"), json!({ "auths": auths }).to_string()).unwrap();
    }

    /// Puts an image with this in its file `/what` into the registry. The engine keeps it by no name; what it had by the
    /// reference, it has still.
    fn publish(&self, what: &str) {
        let container = self.docker(&["create", BASE_IMAGE, "cat", "/what"]);
        let file = self.sandbox.write("what", what);
        self.docker(&["cp", &file.display().to_string(), &format!("{container}:/what")]);
        let before = self.image_id();
        self.docker(&["commit", &container, &self.reference()]);
        self.docker(&["rm", &container]);
        self.log_in(PASSWORD);
        let mut push = self.engine.docker();
        push.env("DOCKER_CONFIG", self.sandbox.home().join(".docker"));
        capture(push.args(["push", &self.reference()])).unwrap();
        match before {
            Some(id) => drop(self.docker(&["tag", &id, &self.reference()])),
            None => drop(self.docker(&["rmi", "--force", &self.reference()])),
        }
    }

    fn image_id(&self) -> Option<String> {
        let inspect = ["image", "inspect", "--format={{.Id}}", &self.reference()];
        capture_text(self.engine.docker().args(inspect)).ok()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // A test that failed before may not have it.
        let _ = capture(self.engine.docker().args(["rmi", "--force", &self.reference()]));
    }
}

#[test]
fn a_private_base_is_built_from_and_pulled_anew_on_demand() {
    const PROJECT: &str = "reg-base";
    site::everywhere(|site| {
        let _images = site.images(PROJECT);
        let published = Published::new(site, Sandbox::named(PROJECT), &format!("base-{}", site.tag()));
        let sandbox = &published.sandbox;
        sandbox.write(
            "docker/web/Dockerfile",
            format!("FROM {}\nRUN cat /what > /seen\n", published.reference()),
        );
        published.publish("first");
        let build = || site.build_image(sandbox).arg("web").any_stdout();
        let seen = || site.file(&format!("{PROJECT}-web:{}", site.tag()), "/seen");

        // The registry lets nobody in without the right password.
        published.log_in("wr0ng-passw0rd");
        let outcome = build().code(1).run();
        assert!(!outcome.stderr.contains("wr0ng-passw0rd"), "{site}: {outcome}");
        published.log_in(PASSWORD);
        let outcome = build().run();
        assert!(!outcome.stderr.contains(PASSWORD), "{site}: {outcome}");
        assert_eq!(seen(), "first", "{site}");

        // It would stay without a name.
        published.docker(&["rmi", "--force", &format!("{PROJECT}-web:{}", site.tag())]);
        published.publish("second");
        build().arg("-p").run();
        assert_eq!(seen(), "second", "{site}");
    });
}

#[test]
fn run_image_pulls_as_it_is_told() {
    const PROJECT: &str = "reg-run";
    site::on_buildkit(|site| {
        let published = Published::new(site, Sandbox::named(PROJECT), "run");
        let sandbox = &published.sandbox;
        let name = format!("{}/run", published.registry.address());
        sandbox.write(
            "docker/dockerutils.cfg",
            format!("[app]\nname = {name}\ntag = 1\nprefix = False\nkeep_container = False\n"),
        );
        let run = |pull: &str| -> Invocation<'_> {
            sandbox
                .command("run-image")
                .args(["app", "-a", &format!("--network=none {pull}")])
                .env("DOCKER_HOST", &site.engine.host)
                .env("LOGNAME", "reg-run")
                .any_stderr()
        };
        published.publish("first");

        // Nothing is there yet.
        let outcome = run("--pull=never").code(125).run();
        assert!(outcome.stderr.contains("has no image"), "{site}: {outcome}");
        published.log_in("wr0ng-passw0rd");
        let outcome = run("").code(125).run();
        let hint = format!("docker login {}", published.registry.address());
        assert!(outcome.stderr.contains(&hint), "{site}: {outcome}");
        published.log_in(PASSWORD);
        let outcome = run("").stdout("first").run();
        assert!(
            outcome.stderr.contains(&format!("docker pull {name}:1")),
            "{site}: {outcome}"
        );

        // What is there is taken, until the newest is asked for.
        published.publish("second");
        run("").stdout("first").run();
        run("--pull=missing").stdout("first").run();
        run("--pull=never").stdout("first").run();
        run("--pull=always").stdout("second").run();
        run("").stdout("second").run();
    });
}
