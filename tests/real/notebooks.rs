//! `run-notebook` on real engines, near and on a dock: with a small server with pages, which every engine of the lab has, and
//! with a JupyterLab in a browser.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Command;
use std::time::Duration;

use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::{Browser, Invocation, Sandbox};
use dockerutils_tests::dock_home::DockHome;

/// A server with the project's pages. Its first page says what it is.
const CONFIGURATION: &str = "[notebook]\nimage = dockerutils-lab-base:1\nport = 3000\npath = index.html\n\
                             cmd = httpd -f -p 3000 -h /home/jovyan/project\n";
pub(crate) const PAGE: &str = "the page of the project";
/// How long a page may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A user's home with a project that serves its own pages; its containers are gone at the end.
pub(crate) struct Place {
    pub(crate) home: DockHome,
    pub(crate) engine: LabEngine,
    /// The user, of whom there is no other.
    pub(crate) mark: String,
    /// What each call says.
    pub(crate) words: Vec<String>,
}

impl Place {
    pub(crate) fn new(engine: &str, test: &str) -> Self {
        let sandbox = Sandbox::named(&format!("notebook-{test}"))
            .file("docker/dockerutils.cfg", CONFIGURATION)
            .file("index.html", PAGE);
        Self::of(sandbox, lab::engine(engine).unwrap(), test)
    }

    /// With a project of the test's own.
    pub(crate) fn of(sandbox: Sandbox, engine: LabEngine, test: &str) -> Self {
        Self {
            home: DockHome::of(sandbox),
            engine,
            mark: format!("notebooks-{test}-{}", std::process::id()),
            words: Vec::new(),
        }
    }

    /// On the machine's own engine.
    pub(crate) fn near(test: &str) -> Self {
        Self::new("local", test)
    }

    /// On a dock, to which `ann` logs in.
    pub(crate) fn far(engine: &str, test: &str) -> Self {
        Self::new(engine, test).docked()
    }

    /// By way of ssh, to which `ann` logs in.
    pub(crate) fn docked(mut self) -> Self {
        let ssh = self.engine.ssh().unwrap();
        self.home.use_key(&ssh.key, "");
        self.words = ["--dock", "far"].map(str::to_owned).to_vec();
        let register = self.home.registration(&ssh, ssh.address, "ann", "far");
        self.as_itself(register).run();
        self
    }

    fn as_itself<'a>(&self, invocation: Invocation<'a>) -> Invocation<'a> {
        invocation
            .env("USER", &self.mark)
            .env("LOGNAME", &self.mark)
            .limit(Duration::from_secs(180))
    }

    pub(crate) fn run_notebook(&self) -> Invocation<'_> {
        let call = self.as_itself(self.home.program("run-notebook")).args(&self.words);
        match self.words.is_empty() {
            true => call.env("DOCKER_HOST", &self.engine.host),
            false => call,
        }
    }

    /// What `docker ps` shows of this user's notebooks.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.dockerutils.user={}", self.mark);
        let mut list = self.engine.docker();
        let output = list
            .args(["ps", "--format", "{{.Names}}", "--filter", &filter])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// What `--list --json` says.
    pub(crate) fn listed(&self) -> serde_json::Value {
        let list = self.run_notebook().args(["--list", "--json"]);
        list.any_stdout().any_stderr().run().json()
    }

    pub(crate) fn in_container(&self, container: &str, words: &[&str]) {
        let mut exec = self.engine.docker();
        let output = exec.args(["exec", container]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let remove = format!(
            "docker ps -aq --filter label=io.dockerutils.user={} | xargs -r docker rm -f",
            self.mark
        );
        Command::new("sh")
            .args(["-c", &remove])
            .env("DOCKER_HOST", &self.engine.host)
            .output()
            .unwrap();
    }
}

/// What a page says.
pub(crate) fn page(url: &str) -> Option<String> {
    let (address, path) = url.trim().strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.split_once("\r\n\r\n")?.1.to_owned())
}

/// The start, a second call that finds it, and the end.
fn comes_and_goes(place: &Place) {
    let started = place
        .run_notebook()
        .args(["--detach", "--no-browser"])
        .any_stdout()
        .any_stderr()
        .run();
    // At once: the URL is printed when it answers.
    assert_eq!(page(&started.stdout).as_deref(), Some(PAGE), "{started}");
    let containers = place.containers();
    let [container] = containers.as_slice() else {
        panic!("one container: {containers:?}\n{started}");
    };
    assert!(started.stderr.contains(&format!(" --name {container} ")), "{started}");
    place
        .run_notebook()
        .arg("--no-browser")
        .stdout(&started.stdout)
        .stderr_has(&format!("container {container} serves this project already"))
        .run();
    let listed = place.listed();
    assert_eq!(listed[0]["container"], container.as_str());
    assert_eq!(listed[0]["error"], serde_json::Value::Null, "{listed}");
    assert_eq!(format!("{}\n", listed[0]["url"].as_str().unwrap()), started.stdout);
    // Another one beside it: a port, and a server, of its own.
    let another = place
        .run_notebook()
        .args(["--new", "--detach", "--no-browser"])
        .any_stdout()
        .any_stderr()
        .run();
    assert_ne!(another.stdout, started.stdout);
    assert_eq!(page(&another.stdout).as_deref(), Some(PAGE), "{another}");
    place
        .run_notebook()
        .arg("--stop")
        .code(125)
        .stderr_has("several notebooks run on ")
        .run();
    let second = place.containers().into_iter().find(|name| name != container).unwrap();
    place
        .run_notebook()
        .args(["--stop", &second])
        .stdout(&format!("{second}: stopped\n"))
        .any_stderr()
        .run();
    place.in_container(container, &["sh", "-c", "echo made > /home/jovyan/project/made"]);
    place
        .run_notebook()
        .arg("--stop")
        .stdout(&format!("{container}: stopped\n"))
        .any_stderr()
        .run();
    assert_eq!(place.containers(), [""; 0]);
    assert_eq!(place.home.sandbox().read("made"), "made\n");
    // Another test's server may have its port by now.
    let listed = place.listed();
    assert_eq!(listed, serde_json::json!([]));
}

#[test]
fn a_server_near_comes_and_goes() {
    comes_and_goes(&Place::near("near"));
}

#[test]
fn a_server_on_a_dock_answers_here_and_what_it_made_comes_when_it_is_ended() {
    comes_and_goes(&Place::far("28", "far"));
}

#[test]
fn ctrl_c_ends_a_server_on_a_dock_and_brings_what_it_made() {
    let place = Place::far("26", "foreground");
    let running = place.run_notebook().arg("--no-browser").spawn();
    running.wait_for_stderr("Ctrl-C stops it");
    let container = place.containers().pop().unwrap();
    place.in_container(&container, &["sh", "-c", "echo made > /home/jovyan/project/made"]);
    running.interrupt();
    let outcome = running.wait();
    assert!(outcome.stderr.contains(&format!("stopping {container}")), "{outcome}");
    assert!(outcome.stdout.starts_with("http://127.0.0.1:"), "{outcome}");
    assert_eq!(
        fs::read_to_string(place.home.sandbox().project().join("made")).unwrap(),
        "made\n"
    );
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn a_server_goes_on_while_the_link_is_away_and_its_log_is_followed_again() {
    let mut place = Place::new("26", "cut");
    let ssh = place.engine.ssh().unwrap();
    place.home.use_key(&ssh.key, "");
    let link = place.home.register_behind_a_link(&place.engine, Duration::ZERO);
    place.words = ["--dock", "far"].map(str::to_owned).to_vec();
    let running = place.run_notebook().arg("--no-browser").spawn();
    running.wait_for_stderr("Ctrl-C stops it");
    let container = place.containers().pop().unwrap();
    link.cut();
    link.drop_connections();
    running.wait_for_stderr("waiting for the link");
    assert_eq!(place.containers(), [container.as_str()]);
    link.mend();
    running.wait_for_stderr(&format!("the link is back, and so is container {container}"));
    place.in_container(
        &container,
        &[
            "sh",
            "-c",
            "echo later > /proc/1/fd/1; echo made > /home/jovyan/project/made",
        ],
    );
    running.wait_for_stderr("later\n");
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(place.home.sandbox().read("made"), "made\n", "{outcome}");
    assert_eq!(place.containers(), [""; 0], "{outcome}");
}

/// A notebook with an empty cell.
pub(crate) const NOTEBOOK: &str = r#"{"cells": [{"cell_type": "code", "execution_count": null, "id": "a", "metadata": {}, "outputs": [],
"source": []}], "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
"nbformat": 4, "nbformat_minor": 5}"#;

/// The page of a JupyterLab, by the URL that is printed: a cell computes, and what it writes is here when the server has ended,
/// and belongs to whom the project belongs.
fn computes_in_the_page(place: &Place, owner: u32) {
    let project = place.home.sandbox().project();
    let image = place.engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let configuration = format!("[notebook]\nimage = {image}\n");
    for file in [
        place.home.sandbox().write("docker/dockerutils.cfg", configuration),
        place.home.sandbox().write("answer.ipynb", NOTEBOOK),
        project.to_owned(),
    ] {
        chown(file, Some(owner), Some(owner)).unwrap();
    }
    let started = place
        .run_notebook()
        .args(["answer.ipynb", "--detach", "--no-browser"])
        .any_stdout()
        .any_stderr()
        .run();
    let url = started.stdout.trim();
    assert!(
        url.contains("/lab/tree/") && url.contains("answer.ipynb?token="),
        "{started}"
    );
    let browser = Browser::start();
    browser.open(url);
    browser.wait_for_notebook();
    assert_eq!(browser.run_cell("6*7"), "42");
    assert_eq!(browser.run_cell("open('made', 'w').write('by the kernel')"), "13");
    browser.picture(&place.mark);
    drop(browser);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.containers(), [""; 0]);
    assert_eq!(place.home.sandbox().read("made"), "by the kernel");
    let made = fs::metadata(project.join("made")).unwrap();
    assert_eq!(made.uid(), owner, "{started}");
}

#[test]
fn a_cell_computes_in_the_page_of_a_server_near() {
    let place = Place::near("page");
    // Root works in another user's project.
    let trusted = format!("trusted_directories: [{:?}]\n", place.home.sandbox().project());
    let settings = place.home.sandbox().home().join(".config/dockerutils");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("config.yml"), trusted).unwrap();
    computes_in_the_page(&place, 1234);
}

#[test]
fn a_cell_computes_in_the_page_of_a_server_on_a_dock() {
    computes_in_the_page(&Place::far("26", "far-page"), 0);
}
