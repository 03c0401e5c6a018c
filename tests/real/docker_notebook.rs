//! docker/notebook, built by build-image on the tests' Debian: what `docs/guides/notebook-image.md` says of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::process::capture;
use dockerutils_test_support::{Browser, Sandbox, wait};
use dockerutils_tests::jupyter::Jupyter;
use dockerutils_tests::notebook_project::{PYPROJECT, files_of, text_of, with_notebook};
use serde_json::Value;

/// The user whom the image is built for, and one whom it does not know.
const USER: u32 = 4321;
const STRANGER: u32 = 5432;

/// A build that installs everything, beside other tests.
const BUILD: Duration = Duration::from_secs(420);

/// A project with the image, removed with it at the end.
struct Built {
    engine: LabEngine,
    sandbox: Sandbox,
    image: String,
}

impl Built {
    fn new(name: &str) -> Self {
        let engine = lab::engine("local").unwrap();
        let project = format!("{name}-{}", lab::mark().unwrap());
        let arguments = format!("--build-arg NB_USER=ann --build-arg NB_UID={USER} --build-arg NB_GID={USER}");
        let sandbox = with_notebook(Sandbox::named(&project), &engine, &arguments)
            .file("pyproject.toml", PYPROJECT)
            .file("sample.py", "answer = 42\n")
            .file("jupytext.toml", "formats = \"ipynb,py:percent\"\n");
        let built = Self {
            image: format!("{project}-notebook:tester"),
            engine,
            sandbox,
        };
        built.build_image(&["notebook", "-q"]);
        built
    }

    fn build_image(&self, arguments: &[&str]) -> String {
        let build = self.sandbox.command("build-image").args(arguments);
        let build = build
            .env("DOCKER_HOST", &self.engine.host)
            .env("LOGNAME", "tester")
            .env("USER", "tester")
            .limit(BUILD);
        build.any_stdout().any_stderr().run().stdout
    }

    /// Starts it for the project, which belongs to this user.
    fn start(&self, user: u32, options: &[&str]) -> Jupyter {
        for path in files_of(self.sandbox.project()) {
            chown(path, Some(user), Some(user)).unwrap();
        }
        let volume = format!("--volume={}:/home/ann/project", self.sandbox.project().display());
        Jupyter::start(&self.engine, &self.image, &[options, &[&volume]].concat(), &[])
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        // What a test leaves behind on its way out fails no test.
        let _ = capture(self.engine.docker().args(["rmi", "--force", &self.image]));
    }
}

#[test]
fn the_image_serves_the_mounted_project_to_its_user() {
    let built = Built::new("nb-serves");
    let project = built.sandbox.project();
    let jupyter = built.start(USER, &["--env=DOCKER_DS_DIFFS=1"]);
    assert_eq!(jupyter.exec(&["cat", "/proc/1/comm"]), "tini");
    assert_eq!(
        jupyter.exec(&["stat", "-c", "%u:%g", "/proc/1"]),
        format!("{USER}:{USER}")
    );
    assert_eq!(jupyter.exec(&["id", "-nG"]), "ann users");
    assert_eq!(jupyter.exec(&["locale", "charmap"]), "UTF-8");
    assert_eq!(jupyter.exec(&["fc-match", "--format=%{family}", "sans"]), "DejaVu Sans");

    // The mounted project is installed, and is where the server begins.
    let import = jupyter.exec(&["sh", "-c", "cd / && python -c 'import sample; print(sample.__file__)'"]);
    assert_eq!(import, "/home/ann/project/sample.py", "{}", jupyter.log());
    jupyter.save_notebook("x.ipynb", &["6*7"]);
    assert!(project.join("x.ipynb").is_file());

    // jupytext pairs it, and the hook leaves its copies.
    let paired = text_of(&project.join("x.py"));
    assert!(paired.contains("# %%") && paired.contains("6*7"), "{paired}");
    let script = text_of(&project.join(".diffs/x.py"));
    assert!(script.contains("6*7") && !script.contains("# %%"), "{script}");
    let page = text_of(&project.join(".diffs/x.html"));
    assert!(page.contains("<!DOCTYPE html>"), "{page}");
    jupyter.save_notebook("x.ipynb", &["7*7"]);
    wait::until("the copies of the second save", || {
        fs::read_to_string(project.join(".diffs/x.py")).is_ok_and(|script| script.contains("7*7"))
    });
    for path in files_of(built.sandbox.project()) {
        assert_eq!(fs::metadata(&path).unwrap().uid(), USER, "{}", path.display());
    }

    wait::until("a healthy container", || {
        let state = jupyter.docker(&["inspect", "--format={{.State.Health.Status}}", jupyter.container()]);
        assert_ne!(state, "unhealthy");
        state == "healthy"
    });
    let image = jupyter.docker(&["image", "inspect", &built.image]);
    let image: Value = serde_json::from_str(&image).unwrap();
    assert_eq!(image[0]["Config"]["User"], USER.to_string());
    // What a hub starts, and a home that hides nothing if it mounts a volume there.
    assert!(!jupyter.exec(&["jupyterhub-singleuser", "--version"]).is_empty());
    let home = jupyter.docker(&["run", "--rm", "--entrypoint=ls", &built.image, "-A", "/home/ann"]);
    assert_eq!(home, "");
}

#[test]
fn the_image_serves_a_user_whom_it_does_not_know() {
    let built = Built::new("nb-stranger");
    let user = format!("--user={STRANGER}");
    let jupyter = built.start(STRANGER, &[&user, "--group-add=users"]);
    jupyter.save_notebook("x.ipynb", &["6*7"]);
    let import = jupyter.exec(&["sh", "-c", "cd / && python -c 'import sample; print(sample.__file__)'"]);
    assert_eq!(import, "/home/ann/project/sample.py", "{}", jupyter.log());
    for path in files_of(built.sandbox.project()) {
        assert_eq!(fs::metadata(&path).unwrap().uid(), STRANGER, "{}", path.display());
    }
    // Nobody has asked for copies.
    assert!(!built.sandbox.project().join(".diffs").exists());
}

#[test]
fn an_image_without_the_script_can_have_it_mounted() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Stacks).unwrap();
    let sandbox = Sandbox::new().file("pyproject.toml", PYPROJECT).file("sample.py", "");
    chown(sandbox.project(), Some(USER), Some(USER)).unwrap();
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/notebook");
    let options = [
        "--user=root".to_owned(),
        format!("--env=NB_UID={USER}"),
        format!("--env=NB_GID={USER}"),
        "--env=DOCKER_DS_DIFFS=1".to_owned(),
        "--env=NOTEBOOK_PROJECT=/home/jovyan/work".to_owned(),
        "--workdir=/home/jovyan/work".to_owned(),
        format!("--volume={}:/home/jovyan/work", sandbox.project().display()),
        format!(
            "--volume={}:/opt/dockerutils:ro",
            files.canonicalize().unwrap().display()
        ),
    ];
    let options = options.each_ref().map(String::as_str);
    let command = ["/opt/dockerutils/start-notebook", "start-notebook.py"];
    let jupyter = Jupyter::start(&engine, &image, &options, &command);
    let import = jupyter.exec(&["sh", "-c", "cd / && python -c 'import sample; print(sample.__file__)'"]);
    assert_eq!(import, "/home/jovyan/work/sample.py", "{}", jupyter.log());
    jupyter.save_notebook("x.ipynb", &["6*7"]);
    assert!(text_of(&sandbox.project().join(".diffs/x.py")).contains("6*7"));
    let page = sandbox.project().join(".diffs/x.html");
    text_of(&page);
    assert_eq!(fs::metadata(page).unwrap().uid(), USER);
}

#[test]
fn the_layers_of_the_image_hold_no_caches() {
    let built = Built::new("nb-layers");
    let report: Value = serde_json::from_str(&built.build_image(&["notebook", "--layers", "--json"])).unwrap();
    let layers = report["layers"].as_array().unwrap();
    // Those of the base have no line. In it, the lists of packages and users are written again.
    let ours: Vec<&Value> = layers.iter().filter(|layer| !layer["line"].is_null()).collect();
    assert!(ours.len() >= 5, "{report:#}");
    for layer in ours {
        assert_eq!(layer["in_vain"].as_array().unwrap().len(), 0, "{report:#}");
    }
}

#[test]
fn a_cell_goes_on_while_no_tab_is_open() {
    let built = Built::new("nb-goes-on");
    let jupyter = built.start(USER, &[]);
    jupyter.save_notebook("x.ipynb", &[]);
    let browser = Browser::start();
    browser.open(&jupyter.url("/lab/tree/x.ipynb"));
    browser.wait_for_notebook();
    // It waits until this test lets it go on, which is after its tab has gone.
    browser.run_cell("import os, time");
    let cell = browser.start_cell("exec('while not os.path.exists(\"go\"): time.sleep(0.1)'); print(6*7)");
    browser.found("a cell that runs", || {
        let kernels = jupyter.get("/api/kernels").json();
        (kernels[0]["execution_state"] == "busy").then_some(())
    });
    browser.open("about:blank");
    built.sandbox.write("go", "");
    // The server writes the output into the notebook, with nobody to look at it.
    wait::until("the output in the file", || {
        let saved = fs::read_to_string(built.sandbox.project().join("x.ipynb"));
        saved.is_ok_and(|notebook| notebook.contains("\"42\\n\""))
    });
    browser.open(&jupyter.url("/lab/tree/x.ipynb"));
    browser.wait_for_notebook();
    browser.found("the output in the page", || {
        (browser.output_so_far(cell) == "42").then_some(())
    });
    browser.picture("a-cell-went-on");
    // What jupyter-collaboration remembers lies in the home, not in the project.
    assert!(!built.sandbox.project().join(".jupyter_ystore.db").exists());
}
