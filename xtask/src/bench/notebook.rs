//! Notebooks: how late the URL is printed, how soon a forward answers after a cut, and `run-notebook` beside `docker run -p` with a loop
//! of curl.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::lab::{self, LabEngine, NotebookImage};
use dockerutils_test_support::{free_port, http, machine, process};

use super::far::{Distance, FarDock, NAME};
use super::measure::Samples;
use super::{Comparison, Setting};
use crate::error::Error;

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// How late the URL may be printed after the server answers by itself.
const LATENESS: Duration = Duration::from_millis(1500);
/// How long a forward may take to answer when the link is back.
const RETURN: Duration = Duration::from_secs(5);
/// How long the link is away: longer than the agent's pauses between two tries grow.
const AWAY: Duration = Duration::from_secs(10);
/// How long anything may take at all.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked.
const STEP: Duration = Duration::from_millis(10);
/// The token of the peer.
const TOKEN: &str = "a-token-of-the-bench";

/// Where notebooks run, and how our command gets there.
struct BenchPlace<'a> {
    setting: &'a Setting,
    engine: LabEngine,
    /// On a dock, and not here.
    dock: Option<FarDock>,
    project: tempfile::TempDir,
    /// The user of whom there is no other: by that name, the containers are found.
    user: String,
}

impl<'a> BenchPlace<'a> {
    fn new(setting: &'a Setting, engine: LabEngine, dock: Option<FarDock>) -> Result<Self, Error> {
        let image = engine.notebook_image(NotebookImage::Jupyter)?;
        let project = tempfile::Builder::new()
            .prefix("bench-notebook")
            .tempdir()
            .map_err(Error::file("a temporary directory"))?;
        let docker = project.path().join("docker");
        fs::create_dir(&docker).map_err(Error::file(&docker))?;
        let config = docker.join("dockerutils.cfg");
        fs::write(&config, format!("[notebook]\nimage = {image}\n")).map_err(Error::file(config))?;
        Ok(Self {
            setting,
            engine,
            dock,
            project,
            user: format!("bench{}", std::process::id()),
        })
    }

    fn word(&self) -> &'static str {
        if self.dock.is_some() { "far" } else { "near" }
    }

    fn run_notebook(&self, port: u16) -> Command {
        let mut command = match &self.dock {
            Some(dock) => {
                let mut command = dock.ours("run-notebook");
                command.args(["--dock", NAME]);
                command
            }
            None => {
                let mut command = self.setting.ours("run-notebook");
                command.env("DOCKER_HOST", &self.engine.host);
                command.env("HOME", self.project.path().join("docker"));
                command
            }
        };
        command
            .args(["--no-browser", &format!("--port={port}")])
            .current_dir(self.project.path())
            .env("USER", &self.user)
            .env("LOGNAME", &self.user);
        command
    }

    /// The line that run-notebook prints, for docker.
    fn docker_line(&self, port: u16) -> Result<String, Error> {
        let line = process::capture_text(self.run_notebook(port).arg("--dry-run"))?;
        match line.find("docker run ") {
            Some(at) => Ok(line.split_at(at).1.to_owned()),
            None => Err(Error::Failed(format!("run-notebook printed no docker command: {line}"))),
        }
    }

    /// Removes the containers.
    fn clean(&self) -> Result<(), Error> {
        let filter = format!("label=io.dockerutils.user={}", self.user);
        let listed = process::capture_text(
            self.engine
                .docker()
                .args(["ps", "--all", "--quiet", "--filter", &filter]),
        )?;
        if !listed.is_empty() {
            process::capture(self.engine.docker().args(["rm", "--force"]).args(listed.lines()))?;
        }
        Ok(())
    }

    /// A program that ends as soon as the server on this port of 127.0.0.1 answers there, where it runs.
    fn observer(&self, port: u16) -> Result<Command, Error> {
        let script = format!(
            "trap '' PIPE; until {{ exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /api HTTP/1.0\\r\\n\\r\\n' >&3 \
             && IFS= read -r line <&3 && [[ $line == *' 200 '* ]]; }} 2>/dev/null; do sleep 0.01; done"
        );
        let mut bash = match &self.dock {
            Some(_) => self.engine.exec("bash")?,
            None => Command::new("bash"),
        };
        bash.args(["-c", &script]);
        Ok(bash)
    }
}

impl Drop for BenchPlace<'_> {
    fn drop(&mut self) {
        let _ = self.clean();
    }
}

/// A run-notebook that has printed its URL; killed at its end, while its container goes on.
struct Printed {
    child: Child,
    url: String,
}

impl Printed {
    fn by(mut command: Command, log: &Path) -> Result<Self, Error> {
        let stderr = File::create(log).map_err(Error::file(log))?;
        let name = process::shown(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(Error::file(&name))?;
        let mut url = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut url).map_err(Error::file(&name))?;
        }
        let printed = Self {
            child,
            url: url.trim().to_owned(),
        };
        match printed.url.is_empty() {
            true => Err(Error::Failed(format!(
                "{name} printed no URL:\n{}",
                fs::read_to_string(log).unwrap_or_default()
            ))),
            false => Ok(printed),
        }
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

pub(super) fn run(setting: &Setting) -> Result<Vec<Comparison>, Error> {
    machine::require("curl", &["curl"], "the bench of notebooks")?;
    let distance = Distance {
        round_trip: ROUND_TRIP,
        capacity: None,
    };
    let near = BenchPlace::new(setting, lab::engine("local")?, None)?;
    let dock = FarDock::register(setting, &setting.dock, distance)?;
    let far = BenchPlace::new(setting, setting.dock.clone(), Some(dock))?;
    let mut rows = Vec::new();
    for place in [&near, &far] {
        rows.push(lateness(place)?);
        rows.push(until_a_page(place)?);
    }
    rows.push(after_a_cut(&far)?);
    Ok(rows)
}

/// How late the URL is printed after the server answers where it runs; beside it, how late it may be.
fn lateness(place: &BenchPlace) -> Result<Comparison, Error> {
    let mut row = row(format!("URL after the answer, {}", place.word()), 1.0);
    for _ in 0..place.setting.runs {
        let port = port()?;
        let mut observer = place.observer(port)?;
        let observing = thread::spawn(move || process::capture(&mut observer).map(|_| Instant::now()));
        let printed = Printed::by(place.run_notebook(port), &place.project.path().join("log"))?;
        let at = Instant::now();
        let answered = observing
            .join()
            .map_err(|_| Error::Failed("a thread of the bench ended badly".to_owned()))??;
        row.ours.push(at.saturating_duration_since(answered));
        row.peer.push(LATENESS);
        drop(printed);
        place.clean()?;
    }
    Ok(row)
}

/// From the command to a page that answers here, beside docker with the same options and a loop of curl.
fn until_a_page(place: &BenchPlace) -> Result<Comparison, Error> {
    let mut row = row(format!("until a page, {}", place.word()), 1.1);
    for _ in 0..place.setting.runs {
        let began = Instant::now();
        let printed = Printed::by(place.run_notebook(port()?), &place.project.path().join("log"))?;
        answered(&printed.url)?;
        row.ours.push(began.elapsed());
        drop(printed);
        place.clean()?;

        let port = port()?;
        let url = format!("http://127.0.0.1:{port}/lab?token={TOKEN}");
        let line = place.docker_line(port)?;
        let wait = format!("until curl -fsS -o /dev/null '{url}' 2>/dev/null; do sleep 0.1; done");
        let mut sh = match &place.dock {
            // On a dock, the port is to lead here as well: by OpenSSH's client, which connects meanwhile.
            Some(dock) => dock.by_ssh_in(&format!(
                "ssh -N -o ExitOnForwardFailure=yes -L {port}:127.0.0.1:{port} {NAME} & forward=$!; {line} && {wait}; kill $forward"
            )),
            None => {
                let mut sh = Command::new("sh");
                sh.args(["-ec", &format!("{line}; {wait}")])
                    .env("DOCKER_HOST", &place.engine.host);
                sh
            }
        };
        sh.env("JUPYTER_TOKEN", TOKEN).env("PASSWORD", TOKEN);
        row.peer.push(super::measure::time(&mut sh)?);
        place.clean()?;
    }
    Ok(row)
}

/// From the moment when a link is back whose connections were broken, to the first answer of the forward; beside it, how long that may
/// take.
fn after_a_cut(place: &BenchPlace) -> Result<Comparison, Error> {
    let mut row = row("answer after a cut, far".to_owned(), 1.0);
    let printed = Printed::by(place.run_notebook(port()?), &place.project.path().join("log"))?;
    let link = place.dock.as_ref().map(FarDock::link);
    let link = link.ok_or_else(|| Error::Failed("there is no link to cut".to_owned()))?;
    for _ in 0..place.setting.runs {
        answered(&printed.url)?;
        link.cut();
        link.drop_connections();
        thread::sleep(AWAY);
        link.mend();
        let began = Instant::now();
        answered(&printed.url)?;
        row.ours.push(began.elapsed());
        row.peer.push(RETURN);
    }
    Ok(row)
}

/// Waits until a page answers.
fn answered(url: &str) -> Result<(), Error> {
    let odd = || Error::Failed(format!("this is no URL of a notebook: {url}"));
    let rest = url.strip_prefix("http://127.0.0.1:").ok_or_else(odd)?;
    let (port, path) = rest.split_once('/').ok_or_else(odd)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().map_err(|_| odd())?));
    let began = Instant::now();
    loop {
        let answer = http::send(address, "GET", &format!("/{path}"), &[], b"", PATIENCE);
        if answer.is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Failed(format!("{url} does not answer")));
        }
        thread::sleep(STEP);
    }
}

fn port() -> Result<u16, Error> {
    free_port().map_err(Error::file("a free port"))
}

fn row(what: String, limit: f64) -> Comparison {
    Comparison {
        what,
        ours: Samples::default(),
        peer: Samples::default(),
        limit: Some(limit),
        memory: None,
    }
}
