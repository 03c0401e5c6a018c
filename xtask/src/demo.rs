//! `cargo xtask demo`: a real project's image built, run and answering, by the real commands.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dockerutils_test_support::process::{self, announce};
use dockerutils_test_support::{http, local_engine};
use rustix::process::{Pid, Signal, kill_process};

use crate::error::Error;
use crate::install;
use crate::workspace::{Profile, Workspace};

/// The image type of this project that is built and run.
const IMAGE: &str = "degrees";

/// The port that its configuration publishes.
const PORT: u16 = 5000;

/// How long the container may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run() -> Result<(), Error> {
    if !cfg!(target_os = "linux") {
        return Err(Error::Failed(
            "the sample's server is compiled here for a container: run the demo on Linux".to_owned(),
        ));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(Error::file("signal handler"))?;
    }
    let demo = Demo::prepare(interrupted)?;
    let done = demo.play();
    // Also after a failure or Ctrl-C: nothing is left behind.
    let cleaned = demo.clean();
    if demo.interrupted.load(Ordering::Relaxed) {
        return Err(Error::Interrupted);
    }
    done.and(cleaned)
}

struct Demo {
    /// Holds the project and the commands; removed at the end.
    directory: tempfile::TempDir,
    port: u16,
    interrupted: Arc<AtomicBool>,
}

impl Demo {
    fn prepare(interrupted: Arc<AtomicBool>) -> Result<Self, Error> {
        ensure_engine()?;
        let workspace = Workspace::load()?;
        let directory = tempfile::Builder::new()
            .prefix("dockerutils-demo-")
            .tempdir()
            .map_err(Error::file(env::temp_dir()))?;
        announce("building the commands (a minute or two, the first time)");
        install::install(&workspace, Profile::Debug, &directory.path().join("prefix"))?;
        let demo = Self {
            directory,
            port: free_port()?,
            interrupted,
        };
        copy_project(
            &workspace.root.join("docker"),
            &demo.project().join("docker"),
            demo.port,
        )?;
        announce(format_args!("a sample project: {}", demo.project().display()));
        Ok(demo)
    }

    fn play(&self) -> Result<(), Error> {
        self.step("build-image", &[IMAGE])?;
        announce(format_args!("\n$ run-image {IMAGE}"));
        let mut container = Container {
            child: self
                .command("run-image")
                .arg(IMAGE)
                .spawn()
                .map_err(Error::file("run-image"))?,
        };
        let shown = self
            .fetch(&mut container, "/degrees")
            .and_then(|answer| self.show(&answer));
        container.stop()?;
        shown
    }

    fn show(&self, answer: &[u8]) -> Result<(), Error> {
        announce(format_args!("\n$ curl http://127.0.0.1:{}/degrees", self.port));
        io::stdout().write_all(answer).map_err(Error::file("stdout"))
    }

    fn clean(&self) -> Result<(), Error> {
        self.step("build-image", &["clean"])
    }

    /// Runs one of our commands and shows it as one would type it.
    fn step(&self, command: &str, arguments: &[&str]) -> Result<(), Error> {
        announce(format_args!("\n$ {command} {}", arguments.join(" ")));
        Ok(process::run(self.command(command).args(arguments))?)
    }

    fn command(&self, name: &str) -> Command {
        let bin = self.directory.path().join("prefix/bin");
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bin.clone()].into_iter().chain(env::split_paths(&path))).unwrap_or(path);
        let mut command = Command::new(bin.join(name));
        command.current_dir(self.project()).env("PATH", path);
        command
    }

    /// Asks until the server answers.
    fn fetch(&self, container: &mut Container, path: &str) -> Result<Vec<u8>, Error> {
        let started = Instant::now();
        loop {
            if let Ok(answer) = get(self.port, path) {
                return Ok(answer);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if let Some(status) = container.ended()? {
                return Err(Error::Failed(format!(
                    "run-image ended before the server answered ({status})"
                )));
            }
            if started.elapsed() > PATIENCE {
                return Err(Error::Failed(format!(
                    "nothing answers on port {} after {} s",
                    self.port,
                    PATIENCE.as_secs()
                )));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The name of this directory becomes the image's: `university-degrees`.
    fn project(&self) -> PathBuf {
        self.directory.path().join("university")
    }
}

/// run-image in the foreground: a signal to it is one to the container, which is removed when it ends.
struct Container {
    child: Child,
}

impl Container {
    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::file("run-image"))
    }

    fn stop(mut self) -> Result<(), Error> {
        let started = Instant::now();
        let mut signal = Signal::TERM;
        while self.ended()?.is_none() {
            if started.elapsed() > PATIENCE {
                signal = Signal::KILL;
            }
            if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                kill_process(id, signal).map_err(|error| Error::file("run-image")(error.into()))?;
            }
            thread::sleep(Duration::from_millis(200));
        }
        if signal == Signal::KILL {
            return Err(Error::Failed("run-image did not end when it was told to".to_owned()));
        }
        Ok(())
    }
}

/// An engine answers, or one is set up where that is possible.
fn ensure_engine() -> Result<(), Error> {
    // If the user chose an engine, none is installed; the commands say what is wrong with it.
    if env::var_os("DOCKER_HOST").is_some() || env::var_os("DOCKER_CONTEXT").is_some() || context_chosen() {
        return Ok(());
    }
    Ok(local_engine::ensure()?)
}

/// Whether the docker client was told to use another engine than the default one.
fn context_chosen() -> bool {
    let config = env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))
        .and_then(|directory| fs::read(directory.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let context = config
        .as_ref()
        .and_then(|config| config.get("currentContext")?.as_str());
    context.is_some_and(|context| !context.is_empty() && context != "default")
}

/// The sample's own port, or another one if that is taken.
fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .map_err(Error::file("a free port"))?;
    let port = listener.local_addr().map_err(Error::file("a free port"))?.port();
    if port != PORT {
        announce(format_args!(
            "port {PORT} is taken: the sample project publishes {port} instead"
        ));
    }
    Ok(port)
}

/// The sample project is this project's own `docker/degrees`, by itself.
fn copy_project(from: &Path, to: &Path, port: u16) -> Result<(), Error> {
    let image = to.join(IMAGE);
    fs::create_dir_all(&image).map_err(Error::file(&image))?;
    for name in ["Dockerfile", "Dockerfile.dockerignore", "degrees.rs"] {
        let source = from.join(IMAGE).join(name);
        fs::copy(&source, image.join(name)).map_err(Error::file(source))?;
    }
    let config = from.join("dockerutils.cfg");
    let text = fs::read_to_string(&config).map_err(Error::file(config))?;
    let text = text.replace(&format!("{PORT}:{PORT}"), &format!("{port}:{PORT}"));
    let config = to.join("dockerutils.cfg");
    fs::write(&config, text).map_err(Error::file(config))
}

/// The body of the server's answer.
fn get(port: u16, path: &str) -> io::Result<Vec<u8>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    // docker's proxy accepts before the server listens; the connection then ends without an answer.
    http::parse(&answer)
        .filter(|answer| answer.status == 200)
        .map(|answer| answer.body)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
