//! What `run-notebook` puts into containers of images that do not have docker/notebook's start script: `.diffs`, the project
//! installed, notebooks that are paired.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::process::capture_text;
use dockerutils_test_support::{Browser, Invocation, Outcome, Sandbox, binary, free_port, http, wait};
use dockerutils_tests::jupyter::Jupyter;
use dockerutils_tests::notebook_project::{PYPROJECT, files_of, text_of};

use crate::notebooks;

/// The user to whom the project belongs.
const USER: u32 = 4321;
/// How long a start may take, beside other tests.
const START: Duration = Duration::from_secs(240);

/// What pairs notebooks with scripts.
const PAIRING: &str = "formats = \"ipynb,py:percent\"\n";
/// The certificates that this machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A project on the machine's own engine, which belongs to [`USER`]; its containers are gone at the end.
struct Place {
    engine: LabEngine,
    sandbox: Sandbox,
    /// The user of this machine, of whom there is no other.
    mark: String,
}

impl Place {
    fn new(test: &str, image: &str, files: &[(&str, &str)]) -> Self {
        let mut sandbox = Sandbox::named(&format!("script-{test}"))
            .file("docker/dockerutils.cfg", format!("[notebook]\nimage = {image}\n"));
        for (name, content) in files {
            sandbox = sandbox.file(name, content);
        }
        // Root works in another user's project.
        let trusted = format!("trusted_directories: [{:?}]\n", sandbox.project());
        let settings = sandbox.home().join(".config/dockerutils");
        fs::create_dir_all(&settings).unwrap();
        fs::write(settings.join("config.yml"), trusted).unwrap();
        let place = Self {
            engine: lab::engine("local").unwrap(),
            mark: format!("{}-{test}", lab::mark().unwrap()),
            sandbox,
        };
        for path in files_of(place.sandbox.project()) {
            chown(path, Some(USER), Some(USER)).unwrap();
        }
        place
    }

    fn run_notebook(&self) -> Invocation<'_> {
        self.sandbox
            .command("run-notebook")
            .env("DOCKER_HOST", &self.engine.host)
            .env("USER", &self.mark)
            .env("LOGNAME", &self.mark)
            .limit(START)
    }

    /// Starts a server, with what the start says.
    fn start(&self, words: &[&str]) -> (Jupyter, Outcome) {
        let outcome = self
            .run_notebook()
            .args(words)
            .args(["--detach", "--no-browser"])
            .env("DOCKER_DS_DIFFS", "1")
            .any_stdout()
            .any_stderr()
            .run();
        let listed = self.run_notebook().args(["--list", "--json"]).any_stdout().run().json();
        (Jupyter::told(&self.engine, &listed[0]), outcome)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let filter = format!("label=io.dockerutils.user={}", self.mark);
        let listed = capture_text(self.engine.docker().args(["ps", "-aq", "--filter", &filter]));
        for container in listed.unwrap_or_default().split_whitespace() {
            // What a test leaves behind on its way out fails no test.
            let _ = capture_text(self.engine.docker().args(["rm", "-f", container]));
        }
    }
}

/// The project is installed, and a notebook that is saved leaves copies, which belong to the user.
fn works_without_our_script(test: &str, image: NotebookImage) {
    let image = lab::engine("local").unwrap().notebook_image(image).unwrap();
    let place = Place::new(
        test,
        &image,
        &[("pyproject.toml", PYPROJECT), ("sample.py", "answer = 42\n")],
    );
    let (jupyter, outcome) = place.start(&[]);
    assert!(
        outcome.stderr.contains("start-notebook: pip install --editable"),
        "{outcome}"
    );
    // Where it would begin without the script.
    let root = jupyter.exec(&["sh", "-c", "readlink /proc/1/cwd"]);
    assert_eq!(root, "/home/jovyan", "{outcome}");
    let files = jupyter.exec(&[
        "stat",
        "-c",
        "%n %u:%g %a",
        "/opt/dockerutils",
        "/opt/dockerutils/start-notebook",
    ]);
    assert_eq!(
        files,
        "/opt/dockerutils 0:0 755\n/opt/dockerutils/start-notebook 0:0 755"
    );
    let user = USER.to_string();
    let import = "cd / && python -B -c 'import sample; print(sample.__file__)'";
    let import = jupyter.exec(&["sh", "-c", import]);
    assert_eq!(import, "/home/jovyan/project/sample.py", "{}", jupyter.log());
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    let project = place.sandbox.project();
    let script = text_of(&project.join(".diffs/x.py"));
    assert!(script.contains("6*7"), "{script}");
    let page = text_of(&project.join(".diffs/x.html"));
    assert!(page.contains("<!DOCTYPE html>"), "{page}");
    for path in files_of(place.sandbox.project()) {
        assert_eq!(
            fs::metadata(&path).unwrap().uid().to_string(),
            user,
            "{}",
            path.display()
        );
    }
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
}

#[test]
fn an_image_of_docker_stacks_installs_the_project_and_copies_notebooks() {
    works_without_our_script("stacks", NotebookImage::Stacks);
}

#[test]
fn a_plain_image_installs_the_project_and_copies_notebooks() {
    works_without_our_script("plain", NotebookImage::Jupyter);
}

#[test]
fn the_printed_lines_make_the_same_container() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let place = Place::new(
        "lines",
        &image,
        &[("setup.py", "from setuptools import setup\nsetup(name='sample')\n")],
    );
    let port = free_port().unwrap().to_string();
    let planned = place
        .run_notebook()
        .args(["--dry-run", "-q", "--port", &port])
        .any_stdout()
        .run();
    let folder = place.sandbox.project().parent().unwrap().display().to_string();
    let lines = planned.stdout.replace("[SANDBOX]", &folder);
    let command = binary("run-notebook");
    let binaries = command.parent().unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", &lines])
        .current_dir(place.sandbox.project())
        .env("DOCKER_HOST", &engine.host)
        .env("JUPYTER_TOKEN", "s3cret")
        .env(
            "PATH",
            format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap()),
        );
    let printed = capture_text(&mut shell).unwrap();
    let id = printed.lines().next().unwrap().to_owned();
    wait::until("the project, installed by the container", || {
        let list = ["exec", &id, "python", "-m", "pip", "list", "--editable"];
        capture_text(engine.docker().args(list)).is_ok_and(|list| list.contains("sample"))
    });
}

#[test]
fn a_read_only_container_starts_without_and_says_so() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let place = Place::new("read-only", &image, &[("setup.py", "")]);
    place.sandbox.write(
        "docker/dockerutils.cfg",
        format!("[notebook]\nimage = {image}\nargs = --read-only --tmpfs /tmp --tmpfs /home/jovyan/.local:mode=1777\n"),
    );
    let (jupyter, outcome) = place.start(&[]);
    assert!(
        outcome
            .stderr
            .contains("as its root file system is read-only; it is for this: the project is installed"),
        "{outcome}"
    );
    jupyter.exec(&["sh", "-c", "! test -e /opt/dockerutils"]);
}

#[test]
fn a_project_that_pairs_is_told_where_jupytext_is_not() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let place = Place::new("unpaired", &image, &[("jupytext.toml", PAIRING)]);
    let (jupyter, outcome) = place.start(&[]);
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    let said = "start-notebook: the project has a jupytext.toml, but the image has no jupytext";
    assert!(
        outcome.stderr.contains(said) && jupyter.log().contains(said),
        "{outcome}"
    );
}

/// An image with jupytext, made of the lab's by the project's own Dockerfile, without our script.
#[test]
fn notebooks_are_paired_in_an_image_without_our_script() {
    let engine = lab::engine("local").unwrap();
    let base = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=secret,id=ca-certificates,mode=0444 \\\n \
         if [ -f /run/secrets/ca-certificates ]; then export PIP_CERT=/run/secrets/ca-certificates; fi \\\n \
         && pip install --quiet --no-cache-dir jupytext\n"
    );
    let place = Place::new(
        "paired",
        &base,
        &[
            ("jupytext.toml", PAIRING),
            ("docker/notebook/Dockerfile", dockerfile.as_str()),
        ],
    );
    let mut arguments = "--network host".to_owned();
    if Path::new(CERTIFICATES).exists() {
        arguments += &format!(" --secret id=ca-certificates,src={CERTIFICATES}");
    }
    place.sandbox.write(
        "docker/dockerutils.cfg",
        format!(
            "[notebook]\nname = {}\nprefix = False\ntag = 1\nbuild_args = {arguments}\n",
            place.mark
        ),
    );
    let (jupyter, _) = place.start(&[]);
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    let project = place.sandbox.project();
    let paired = text_of(&project.join("x.py"));
    assert!(paired.contains("# %%") && paired.contains("6*7"), "{paired}");
    // Beside the copies for reviews.
    let script = text_of(&project.join(".diffs/x.py"));
    assert!(!script.contains("# %%"), "{script}");
    assert_eq!(fs::metadata(project.join("x.py")).unwrap().uid(), USER);
    drop(jupyter);
    let image = format!("{}:1", place.mark);
    capture_text(engine.docker().args(["rmi", "--force", &image])).unwrap();
}

/// The server as a hub starts it, twice: what an image keeps in the home is hidden and said, and the volume is kept.
#[test]
fn as_a_hub_starts_it_the_home_is_a_volume_that_is_kept() {
    let engine = lab::engine("local").unwrap();
    let base = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let place = Place::new("hub", &base, &[]);
    let image = format!("{}:1", place.mark);
    let docker = |words: &[&str]| capture_text(engine.docker().args(words)).unwrap();
    let label = lab::label().unwrap();
    let made = docker(&[
        "run",
        "--detach",
        "--label",
        &label,
        &base,
        "sh",
        "-c",
        "mkdir /home/jovyan/models; echo 1 > /home/jovyan/.condarc",
    ]);
    docker(&["wait", &made]);
    docker(&[
        "commit",
        "--change",
        r#"CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]"#,
        &made,
        &image,
    ]);
    docker(&["rm", &made]);
    let config = format!("[notebook]\nimage = {image}\n");
    place.sandbox.write("docker/dockerutils.cfg", config);

    let (jupyter, outcome) = place.start(&["--as-hub"]);
    assert!(
        outcome.stderr.contains(
            "warning: the image keeps .condarc, models in /home/jovyan: a hub mounts a volume over that folder"
        ),
        "{outcome}"
    );
    let removal = outcome
        .stderr
        .lines()
        .find_map(|line| line.split_once("this removes it: docker volume rm "))
        .unwrap()
        .1
        .to_owned();
    // The page of the hub's program, by the URL that is printed.
    let name: String = place.mark.to_ascii_lowercase();
    assert!(
        outcome.stdout.contains(&format!("/user/{name}/lab?token=")),
        "{outcome}"
    );
    let command = jupyter.exec(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(command.contains("jupyterhub-singleuser"), "{command}");
    assert_eq!(jupyter.get("/api/status").status, 200);
    let stranger = http::send(
        jupyter.address(),
        "GET",
        &format!("/user/{name}/api/status"),
        &["Authorization: token another"],
        b"",
        Duration::from_secs(10),
    );
    assert_eq!(stranger.unwrap().status, 403);
    jupyter.exec(&[
        "sh",
        "-c",
        "! test -e ~/models && echo kept > ~/mine && id -u && stat -c %u ~",
    ]);
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    let saved = fs::metadata(place.sandbox.project().join("x.ipynb")).unwrap();
    assert_eq!(saved.uid(), USER);
    let browser = Browser::start();
    jupyter.save_notebook("project/y.ipynb", &[]);
    browser.open(&jupyter.url("/lab/tree/project/y.ipynb"));
    browser.wait_for_notebook();
    assert_eq!(browser.run_cell("6*7"), "42");
    browser.picture("as-a-hub");
    drop(browser);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    drop(jupyter);

    let (jupyter, again) = place.start(&["--as-hub"]);
    assert!(again.stderr.contains(&removal), "{again}");
    assert_eq!(jupyter.exec(&["sh", "-c", "cat ~/mine"]), "kept");
    let labels = docker(&["volume", "inspect", "--format", "{{json .Labels}}", &removal]);
    assert!(
        labels.contains(&format!("\"io.dockerutils.user\":\"{}\"", place.mark)),
        "{labels}"
    );
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    drop(jupyter);
    docker(&["volume", "rm", &removal]);
    docker(&["rmi", "--force", &image]);
}

/// A dock's engine has no folder of this machine: the script travels by the engine, and the copies come with the files.
#[test]
fn on_a_dock_the_project_is_installed_and_the_copies_come_here() {
    let place = notebooks::Place::far("26", "script");
    let image = place.engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let sandbox = place.home.sandbox();
    sandbox.write("docker/dockerutils.cfg", format!("[notebook]\nimage = {image}\n"));
    sandbox.write("pyproject.toml", PYPROJECT);
    sandbox.write("sample.py", "answer = 42\n");
    let outcome = place
        .run_notebook()
        .args(["--detach", "--no-browser"])
        .env("DOCKER_DS_DIFFS", "1")
        .any_stdout()
        .any_stderr()
        .run();
    assert!(
        outcome.stderr.contains("start-notebook: pip install --editable"),
        "{outcome}"
    );
    let jupyter = Jupyter::told(&place.engine, &place.listed()[0]);
    let import = "cd / && python -B -c 'import sample; print(sample.__file__)'";
    let import = jupyter.exec(&["sh", "-c", import]);
    assert_eq!(import, "/home/jovyan/project/sample.py", "{}", jupyter.log());
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    let script = sandbox.read(".diffs/x.py");
    assert!(script.contains("6*7"), "{script}");
}

/// The newest engine, on a dock: the hub's stand-in runs there, the volume stays there, the page is here.
#[test]
fn as_a_hub_on_a_dock_the_page_is_here_and_the_volume_there() {
    let place = notebooks::Place::far("28", "far-hub");
    let image = place.engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let sandbox = place.home.sandbox();
    sandbox.write("docker/dockerutils.cfg", format!("[notebook]\nimage = {image}\n"));
    let start = || {
        let started = place
            .run_notebook()
            .args(["--as-hub", "--detach", "--no-browser"])
            .any_stdout()
            .any_stderr()
            .run();
        let said = started.stderr.lines();
        let volume = said
            .filter(|line| line.contains("this removes it: "))
            .find_map(|line| line.split_once("docker volume rm "))
            .map(|(_, volume)| volume.to_owned());
        let volume = volume.unwrap_or_else(|| panic!("{started}"));
        (Jupyter::told(&place.engine, &place.listed()[0]), volume)
    };
    let (jupyter, volume) = start();
    let command = jupyter.exec(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    assert!(command.contains("jupyterhub-singleuser"), "{command}");
    assert_eq!(jupyter.get("/api/status").status, 200);
    jupyter.exec(&["sh", "-c", "echo kept > ~/mine"]);
    jupyter.save_notebook("project/x.ipynb", &["6*7"]);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert!(sandbox.read("x.ipynb").contains("6*7"));
    let (jupyter, again) = start();
    assert_eq!(again, volume);
    assert_eq!(jupyter.exec(&["sh", "-c", "cat ~/mine"]), "kept");
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    capture_text(place.engine.docker().args(["volume", "rm", &volume])).unwrap();
}
