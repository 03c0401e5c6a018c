//! `run-notebook` while things break: the link, the engine, our own processes, a laptop that sleeps, a tab that is reloaded.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine, NotebookImage, Store, Suite, Throwaway};
use dockerutils_test_support::{Browser, Running, Sandbox, SlowLink, process, wait};
use dockerutils_tests::notebook_project::with_notebook;
use rustix::process::Signal;
use serde_json::Value;

use crate::notebooks::{NOTEBOOK, PAGE, Place, page};

/// An agent that is told so takes a link for dead that is silent for two of these.
const ALIVE: Duration = Duration::from_secs(1);

/// A dock behind a link that can be cut.
struct Linked {
    place: Place,
    link: SlowLink,
}

impl Linked {
    fn new(test: &str) -> Self {
        Self::with(test, "")
    }

    /// Whose agent does not wait long.
    fn impatient(test: &str) -> Self {
        let alive = ALIVE.as_secs();
        let lines = format!("Host *\n  ServerAliveInterval {alive}\n  ServerAliveCountMax 2");
        Self::with(test, &lines)
    }

    fn with(test: &str, lines: &str) -> Self {
        let mut place = Place::new("26", test);
        let ssh = place.engine.ssh().unwrap();
        place.home.use_key(&ssh.key, lines);
        let link = place.home.register_behind_a_link(&place.engine, Duration::ZERO);
        place.words = ["--dock", "far"].map(str::to_owned).to_vec();
        Self { place, link }
    }
}

impl Place {
    /// The same on another engine.
    pub(crate) fn on(mut self, engine: &LabEngine) -> Self {
        self.engine = engine.clone();
        self
    }

    /// Serves the project by an image that has JupyterLab, with a notebook of one empty cell.
    pub(crate) fn with_jupyterlab(&self) {
        let image = self.engine.notebook_image(NotebookImage::Jupyter).unwrap();
        let sandbox = self.home.sandbox();
        sandbox.write("docker/dockerutils.cfg", format!("[notebook]\nimage = {image}\n"));
        sandbox.write("lines.ipynb", NOTEBOOK);
    }

    /// The project belongs to this user, who is trusted here.
    pub(crate) fn belongs_to(&self, owner: u32) {
        let project = self.home.sandbox().project();
        let trusted = format!("trusted_directories: [{project:?}]\n");
        let settings = self.home.sandbox().home().join(".config/dockerutils");
        fs::create_dir_all(&settings).unwrap();
        fs::write(settings.join("config.yml"), trusted).unwrap();
        let mut paths = vec![project.to_owned()];
        while let Some(path) = paths.pop() {
            chown(&path, Some(owner), Some(owner)).unwrap();
            if path.is_dir() {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    /// Starts it in the background; what `--json` says.
    pub(crate) fn detached(&self, words: &[&str]) -> Value {
        let start = self.run_notebook().args(words).args(["--detach", "--json"]);
        start.any_stdout().any_stderr().run().json()
    }

    /// Starts it in the foreground, and waits until its URL is printed.
    fn foreground(&self) -> Running {
        let running = self.run_notebook().arg("--no-browser").spawn();
        running.wait_for_stderr("Ctrl-C stops it");
        running
    }

    /// The URL of the only notebook.
    fn url(&self) -> String {
        let listed = self.run_notebook().args(["--list", "--json"]);
        let listed = listed.any_stdout().any_stderr().run().json();
        text(&listed[0], "url")
    }

    /// The processes of this home, of the agents or all.
    fn processes(&self, only_agents: bool) -> Vec<i32> {
        let runtime = self.home.sandbox().project().join("../runtime").canonicalize().unwrap();
        let variable = format!("XDG_RUNTIME_DIR={}", runtime.display()).into_bytes();
        let of_this_home = |folder: &PathBuf| {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            let command = fs::read(folder.join("cmdline")).unwrap_or_default();
            let is_agent = command.windows(10).any(|part| part == b"dock-agent");
            environment.split(|byte| *byte == 0).any(|word| word == variable) && (is_agent || !only_agents)
        };
        let folders = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        let numbers = folders.filter(of_this_home);
        numbers
            .filter_map(|folder| folder.file_name()?.to_str()?.parse().ok())
            .collect()
    }
}

fn text(value: &Value, name: &str) -> String {
    let text = value[name].as_str();
    text.unwrap_or_else(|| panic!("{name}: {value:#}")).to_owned()
}

fn signal(processes: &[i32], signal: Signal) {
    for number in processes {
        let process = rustix::process::Pid::from_raw(*number).unwrap();
        // One that has ended meanwhile is as good.
        let _ = rustix::process::kill_process(process, signal);
    }
}

/// So many lines are printed, five a second.
const LINES: usize = 60;
/// When the link is cut, and when it is mended.
const CUT: usize = 5;
const MENDED: usize = 45;

/// A cell prints while the link is cut by `cut`; all that it printed is in the tab that was open all the time.
fn all_lines_are_in_the_tab(linked: &Linked, cut: impl FnOnce(&SlowLink)) {
    let Linked { place, link } = linked;
    place.with_jupyterlab();
    let started = place.detached(&["lines.ipynb"]);
    let browser = Browser::start();
    browser.open(&text(&started, "url"));
    browser.wait_for_notebook();
    let cell = browser.start_cell(&format!(
        "import time\nfor i in range({LINES}): print(i); open('at', 'w').write(str(i)); time.sleep(0.2)"
    ));
    browser.found("the first lines", || {
        browser
            .output_so_far(cell)
            .lines()
            .any(|line| line == CUT.to_string())
            .then_some(())
    });
    cut(link);
    let container = text(&started, "container");
    wait::until("the lines that are printed while the link is away", || {
        let mut exec = place.engine.docker();
        let at = process::capture_text(exec.args(["exec", &container, "cat", "/home/jovyan/project/at"]));
        at.is_ok_and(|at| at.parse().is_ok_and(|at: usize| at >= MENDED))
    });
    let seen = browser.output_so_far(cell);
    assert!(
        !seen.lines().any(|line| line == (MENDED - 5).to_string()),
        "the link is not cut: {seen}"
    );
    link.mend();
    let wanted: Vec<String> = (0..LINES).map(|line| line.to_string()).collect();
    browser.found("all lines", || {
        (browser.output_so_far(cell).lines().last() == wanted.last().map(String::as_str)).then_some(())
    });
    assert_eq!(browser.output_so_far(cell).lines().collect::<Vec<_>>(), wanted);
    browser.found("the end of the cell", || browser.output(cell));
    // The kernel is the same, and takes more.
    assert_eq!(browser.run_cell("i"), (LINES - 1).to_string());
    browser.picture(&place.mark);
    drop(browser);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.containers(), [""; 0]);
}

#[test]
fn all_lines_are_in_the_tab_when_a_link_comes_back_whose_connections_were_broken() {
    all_lines_are_in_the_tab(&Linked::new("lines-broken"), |link| {
        link.cut();
        link.drop_connections();
    });
}

#[test]
fn all_lines_are_in_the_tab_when_a_link_comes_back_that_was_silent() {
    all_lines_are_in_the_tab(&Linked::new("lines-silent"), SlowLink::cut);
}

#[test]
fn a_server_outlives_the_kill_of_its_command_near_and_is_found_again() {
    outlives_its_command(&Place::near("killed-near"));
}

#[test]
fn a_server_outlives_the_kill_of_its_command_on_a_dock_and_is_found_again() {
    outlives_its_command(&Place::far("28", "killed-far"));
}

/// `kill -9` of run-notebook ends no server; the next call finds it, and `--stop` leaves nothing.
fn outlives_its_command(place: &Place) {
    let running = place.foreground();
    let url = place.url();
    running.signal(Signal::KILL);
    let outcome = running.wait();
    assert_eq!(outcome.stdout, format!("{url}\n"), "{outcome}");
    let containers = place.containers();
    assert_eq!(containers.len(), 1, "{containers:?}");
    place
        .run_notebook()
        .arg("--no-browser")
        .stdout(&format!("{url}\n"))
        .stderr_has("serves this project already")
        .run();
    assert_eq!(page(&url).as_deref(), Some(PAGE));
    place.in_container(&containers[0], &["sh", "-c", "echo made > /home/jovyan/project/made"]);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    assert_eq!(place.containers(), [""; 0]);
    assert_eq!(place.home.sandbox().read("made"), "made\n");
    // The folder is the agent's, who stays for a while.
    let mut left = place.home.sandbox().leftovers();
    left.retain(|name| name != "dockerutils" || place.words.is_empty());
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(place.processes(false), place.processes(true));
}

#[test]
fn a_server_answers_again_when_the_agent_of_its_dock_was_killed() {
    let place = Place::far("26", "agent-killed");
    let running = place.foreground();
    let url = place.url();
    let agents = place.processes(true);
    assert!(!agents.is_empty());
    signal(&agents, Signal::KILL);
    running.wait_for_stderr("the link is back");
    wait::until("an answer at the same address", || page(&url).as_deref() == Some(PAGE));
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(place.containers(), [""; 0], "{outcome}");
}

#[test]
fn a_server_answers_when_a_laptop_wakes_whose_link_went_on() {
    sleeps(&Linked::impatient("asleep"), |_| {});
}

#[test]
fn a_server_answers_when_a_laptop_wakes_whose_connections_were_forgotten() {
    sleeps(&Linked::impatient("asleep-broken"), SlowLink::drop_connections);
}

/// All processes here are stopped for longer than the agent waits for a sign of life.
fn sleeps(linked: &Linked, meanwhile: impl FnOnce(&SlowLink)) {
    let Linked { place, link } = linked;
    let running = place.foreground();
    let url = place.url();
    let container = place.containers().pop().unwrap();
    let processes = place.processes(false);
    signal(&processes, Signal::STOP);
    meanwhile(link);
    let woken = Instant::now() + 4 * ALIVE;
    // What the container does meanwhile is not lost. Nothing that could be awaited happens to a machine that sleeps: only time passes.
    place.in_container(
        &container,
        &[
            "sh",
            "-c",
            "echo meanwhile > /proc/1/fd/1; echo made > /home/jovyan/project/made",
        ],
    );
    std::thread::sleep(woken.saturating_duration_since(Instant::now()));
    signal(&processes, Signal::CONT);
    wait::until("an answer at the same address", || page(&url).as_deref() == Some(PAGE));
    running.wait_for_stderr("meanwhile\n");
    running.interrupt();
    let outcome = running.wait();
    assert_eq!(place.containers(), [""; 0], "{outcome}");
    assert_eq!(place.home.sandbox().read("made"), "made\n", "{outcome}");
}

#[test]
fn an_engine_that_is_restarted_ends_the_server_and_the_next_call_starts_one() {
    let machine = Throwaway::start(Suite::Trixie, Store::Classic, None).unwrap();
    let place = Place::new("26", "engine").on(machine.engine()).docked();
    for kill in [Signal::TERM, Signal::KILL] {
        let running = place.foreground();
        let container = place.containers().pop().unwrap();
        let name = format!("made-{}", kill.as_raw());
        place.in_container(
            &container,
            &["sh", "-c", &format!("echo made > /home/jovyan/project/{name}")],
        );
        machine.stop_engine(kill).unwrap();
        machine.start_engine().unwrap();
        let outcome = running.wait();
        assert!(outcome.stderr.contains("has ended"), "{outcome}");
        assert_eq!(place.home.sandbox().read(&name), "made\n", "{outcome}");
        assert_eq!(place.containers(), [""; 0], "{outcome}");
    }
    let started = place.run_notebook().args(["--detach", "--no-browser"]);
    let started = started.any_stdout().any_stderr().run();
    assert_eq!(page(&started.stdout).as_deref(), Some(PAGE), "{started}");
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
}

/// An image that a test builds; removed at its end.
struct BuiltImage {
    engine: LabEngine,
    reference: String,
}

impl Drop for BuiltImage {
    fn drop(&mut self) {
        // What a test leaves behind on its way out fails no test.
        let _ = process::capture(self.engine.docker().args(["rmi", "--force", &self.reference]));
    }
}

/// The user of docker/notebook, as it is built in tests.
const USER: u32 = 4321;

#[test]
fn a_tab_that_is_reloaded_has_all_output_in_the_end() {
    let engine = lab::engine("local").unwrap();
    let arguments = format!("--build-arg NB_USER=ann --build-arg NB_UID={USER} --build-arg NB_GID={USER}");
    let project = format!("nb-reloaded-{}", lab::mark().unwrap());
    let sandbox = with_notebook(Sandbox::named(&project), &engine, &arguments);
    // Declared before the place, so that its containers go first.
    let mut image = BuiltImage {
        engine: engine.clone(),
        reference: String::new(),
    };
    let place = Place::of(sandbox, engine, "reloaded");
    image.reference = format!("{project}-notebook:{}", place.mark);
    let sandbox = place.home.sandbox();
    sandbox.write("lines.ipynb", NOTEBOOK);
    place.belongs_to(USER);
    let started = place.detached(&["lines.ipynb"]);
    let url = text(&started, "url");
    let browser = Browser::start();
    browser.open(&url);
    browser.wait_for_notebook();
    // It goes on when this test says so, which is after the tab has gone, and again after it has come back.
    browser.run_cell("import os, time");
    let cell = browser.start_cell(
        "for i in range(60): print(i); exec('while i % 20 == 10 and not os.path.exists(\"go%d\" % i): time.sleep(0.1)')",
    );
    browser.found("the first lines", || {
        (browser.output_so_far(cell).lines().last() == Some("10")).then_some(())
    });
    browser.reload();
    sandbox.write("go10", "");
    browser.wait_for(".jp-NotebookPanel .jp-CodeCell .cm-content");
    sandbox.write("go30", "");
    browser.reload();
    sandbox.write("go50", "");
    browser.wait_for(".jp-NotebookPanel .jp-CodeCell .cm-content");
    let wanted: Vec<String> = (0..60).map(|line| line.to_string()).collect();
    browser.found("all lines", || {
        (browser.output_so_far(cell).lines().last() == Some("59")).then_some(())
    });
    assert_eq!(browser.output_so_far(cell).lines().collect::<Vec<_>>(), wanted);
    browser.picture(&place.mark);
    drop(browser);
    place.run_notebook().arg("--stop").any_stdout().any_stderr().run();
    let saved: Value = serde_json::from_str(&place.home.sandbox().read("lines.ipynb")).unwrap();
    let saved = saved["cells"][cell]["outputs"].to_string();
    assert!(saved.contains("59\\n"), "{saved}");
}
