//! A registry: Debian's docker-registry as a real process, on this machine or in one of the lab's docks.
//!
//! In a dock it listens on the dock's own loopback address, which engines take for a registry without TLS: each engine
//! has a loopback address of its own, and its settings stay unchanged. With TLS it listens under a name, with a
//! certificate from an authority of the test's own, which the dock's engine is told to trust.
//!
//! ```no_run
//! use dockerutils_test_support::lab;
//! use dockerutils_test_support::registry::Registry;
//!
//! let engine = lab::engine("28").unwrap();
//! let registry = Registry::on(&engine).user("ann", "secret").start().unwrap();
//! assert!(registry.address().starts_with("127.0.0.1:"));
//! ```

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::lab::{self, Lab, LabEngine};
use crate::machine;
use crate::mutex::lock;
use crate::process;

/// The package, and the program in it.
const PACKAGE: &str = "docker-registry";
/// How long it may take to listen, on a machine that is busy compiling.
const START: Duration = Duration::from_secs(30);
/// A salt for bcrypt with its least cost: the passwords are only for tests.
const SALT: &str = "$2y$05$dockerutilstestregiste";
/// Runs the program until stdin ends, so that it ends with the test, however the test ends.
const KEEPER: &str = "\"$0\" serve \"$1\" 2>&1 & registry=$!; cat >/dev/null; kill $registry; wait";

/// The registry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A package cannot be downloaded or installed.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A program failed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The lab cannot be used.
    #[error(transparent)]
    Lab(#[from] lab::Error),
    /// It ended, or did not listen in time.
    #[error("the registry does not listen; it said:\n{0}")]
    Silent(String),
}

/// A registry that is about to be started.
#[derive(Debug)]
pub struct Recipe {
    /// Whose containers reach it, and whose images are removed at the end.
    engine: Option<LabEngine>,
    user: Option<(String, String)>,
    name: Option<String>,
    /// Whether this machine reaches it, too, at the same address.
    is_shared: bool,
}

/// A registry, listening until it is dropped. Then all images whose names begin with its address are removed from the
/// engine.
#[derive(Debug)]
pub struct Registry {
    recipe: Recipe,
    address: String,
    log: Arc<Mutex<String>>,
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its files on this machine, removed at the end.
    _directory: TempDir,
    /// The path of its files where it runs.
    inside: String,
}

impl Registry {
    /// A registry that this engine reaches at its loopback address: in the engine's own container, or on this machine.
    pub fn on(engine: &LabEngine) -> Recipe {
        Recipe {
            engine: Some(engine.clone()),
            user: None,
            name: None,
            is_shared: false,
        }
    }

    /// A registry on this machine that no engine takes part in.
    pub fn here() -> Recipe {
        Recipe {
            engine: None,
            user: None,
            name: None,
            is_shared: false,
        }
    }

    /// What precedes repositories in references: `127.0.0.1:PORT`, or its name.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its log so far, with a line for each request, as `"PUT /v2/...`.
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// The paths of its requests with this method that contain this part, in order. The latest ones may appear a moment
    /// later: the log of a registry in a dock comes through the dock's engine.
    pub fn requests(&self, method: &str, part: &str) -> Vec<String> {
        let begin = format!("\"{method} ");
        let log = self.log();
        let requests = log.lines().filter_map(|line| line.split_once(&begin));
        requests
            .filter_map(|(_, rest)| rest.split(' ').next())
            .filter(|path| path.contains(part))
            .map(str::to_owned)
            .collect()
    }
}

impl Recipe {
    /// Admits only this user.
    #[must_use]
    pub fn user(mut self, user: &str, password: &str) -> Self {
        self.user = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Listens with TLS on port 443 of the dock's own address under this name; the dock resolves the name, and its
    /// engine trusts the certificate. For a dock that the test has for itself.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Lets this machine reach a registry in a dock, too: at the address at which the dock's engine does, through a listener of this
    /// process.
    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// A package that cannot be downloaded or installed, a program that fails, a registry that does not listen.
    pub fn start(self) -> Result<Registry, Error> {
        let program = program()?;
        let directory = tempfile::Builder::new().prefix("du-registry-").tempdir();
        let directory = directory.map_err(file("a temporary directory"))?;
        let path = directory.path();
        let container = self.engine.as_ref().and_then(|engine| engine.container.as_ref());
        let inside = match container {
            Some(_) => format!("/tmp/{}", path.file_name().unwrap_or_default().to_string_lossy()),
            None => path.display().to_string(),
        };
        let listener = match container {
            Some(_) if self.is_shared => Some(TcpListener::bind("127.0.0.1:0").map_err(file("a port"))?),
            _ => None,
        };
        let port = match &listener {
            Some(listener) => Some(listener.local_addr().map_err(file("a port"))?.port()),
            None => None,
        };
        self.write(path, &inside, port)?;
        let (program, mut command) = match container {
            Some(container) => {
                let docker = || Lab::open().map(|lab| lab.docker());
                let copy = |from: &Path, to: &str| -> Result<(), Error> {
                    let target = format!("{container}:{to}");
                    process::capture(docker()?.args(["cp", "--quiet"]).arg(from).arg(target))?;
                    Ok(())
                };
                copy(path, &inside)?;
                copy(&program, &format!("{inside}/{PACKAGE}"))?;
                if let Some(name) = &self.name {
                    let script = format!(
                        "echo \"$(hostname -i | cut -d' ' -f1) {name}\" >> /etc/hosts\n\
                         mkdir -p /etc/docker/certs.d/{name}\n\
                         cp {inside}/ca.crt /etc/docker/certs.d/{name}/ca.crt"
                    );
                    process::capture(docker()?.args(["exec", container, "sh", "-ec", &script]))?;
                }
                let mut exec = docker()?;
                exec.args(["exec", "--interactive", container]);
                exec.args(["sh", "-c", KEEPER]);
                (format!("{inside}/{PACKAGE}"), exec)
            }
            None => {
                let mut shell = Command::new("sh");
                shell.args(["-c", KEEPER]);
                (program.display().to_string(), shell)
            }
        };
        let mut child = command
            .arg(program)
            .arg(format!("{inside}/config.yml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(file("sh"))?;
        let log = Arc::<Mutex<String>>::default();
        if let Some(stdout) = child.stdout.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    let mut log = lock(&log);
                    log.push_str(&String::from_utf8_lossy(&line));
                    log.push('\n');
                }
            });
        }
        let mut registry = Registry {
            stdin: child.stdin.take(),
            child,
            log,
            address: String::new(),
            _directory: directory,
            inside,
            recipe: self,
        };
        registry.address = registry.listening()?;
        if let (Some(listener), Some(port), Some(engine)) = (listener, port, &registry.recipe.engine) {
            registry.address = format!("127.0.0.1:{port}");
            relay(listener, SocketAddr::new(engine.address()?, port));
        }
        Ok(registry)
    }

    fn write(&self, directory: &Path, inside: &str, port: Option<u16>) -> Result<(), Error> {
        let put = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).map_err(file(path))
        };
        let address = match (port, &self.name) {
            (Some(port), _) => format!("0.0.0.0:{port}"),
            (None, Some(_)) => "0.0.0.0:443".to_owned(),
            (None, None) => "127.0.0.1:0".to_owned(),
        };
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {inside}/data}}}}\n\
             http:\n  addr: {address}\n  secret: test\n"
        );
        if let Some(name) = &self.name {
            certificates(directory, name)?;
            config += &format!("  tls: {{certificate: {inside}/server.crt, key: {inside}/server.key}}\n");
        }
        if let Some((user, password)) = &self.user {
            put("htpasswd", &format!("{user}:{}\n", bcrypt(password)?))?;
            config += &format!("auth: {{htpasswd: {{realm: test, path: {inside}/htpasswd}}}}\n");
        }
        put("config.yml", &config)
    }
}

/// Passes on what comes to a listener, until the process ends.
fn relay(listener: TcpListener, to: SocketAddr) {
    thread::spawn(move || {
        for here in listener.incoming().map_while(Result::ok) {
            // Who is refused sees the end of the connection.
            let Ok(there) = TcpStream::connect(to) else { continue };
            let (Ok(mut from), Ok(mut back)) = (here.try_clone(), there.try_clone()) else {
                continue;
            };
            let (mut here, mut there) = (here, there);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut there);
                let _ = there.shutdown(Shutdown::Write);
            });
            thread::spawn(move || {
                let _ = io::copy(&mut back, &mut here);
                let _ = here.shutdown(Shutdown::Write);
            });
        }
    });
}

impl Registry {
    fn listening(&mut self) -> Result<String, Error> {
        let began = Instant::now();
        loop {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("listening on ") {
                let address = rest.split(['"', ',']).next().unwrap_or_default();
                return Ok(self.recipe.name.clone().unwrap_or_else(|| address.to_owned()));
            }
            // The shell around it does not notice its end, as it waits for ours.
            if began.elapsed() > START || log.contains("level=fatal") {
                return Err(Error::Silent(log));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The end of its stdin ends it. A failure from here on must not fail a test.
        drop(self.stdin.take());
        let _ = self.child.wait();
        let Some(engine) = &self.recipe.engine else {
            return;
        };
        let list = ["images", "--digests", "--format={{.Repository}} {{.Tag}} {{.Digest}}"];
        let images = process::capture_text(engine.docker().args(list)).unwrap_or_default();
        for line in images.lines().filter(|line| line.starts_with(&self.address)) {
            let mut words = line.split(' ');
            let (name, tag, digest) = (words.next(), words.next(), words.next());
            let names = [(":", tag), ("@", digest)].map(|(sign, what)| {
                let what = what.filter(|what| *what != "<none>")?;
                Some(format!("{}{sign}{what}", name?))
            });
            // One by one: both may name the same image, which is gone after the first.
            for name in names.into_iter().flatten() {
                let _ = process::capture(engine.docker().args(["rmi", "--force", &name]));
            }
        }
        if let (Some(container), Ok(local)) = (&engine.container, Lab::open()) {
            let remove = ["exec", container, "rm", "-rf", &self.inside];
            let _ = process::capture(local.docker().args(remove));
        }
    }
}

/// A lock between processes, as long as the file is open. Tests run in processes of their own, several at a time; the system
/// releases the lock when one dies.
pub(crate) fn locked(path: &Path) -> Result<File, Error> {
    let lock = File::create(path).and_then(|lock| lock.lock().map(|()| lock));
    lock.map_err(file(path))
}

/// The registry's program. It is unpacked, not installed: Debian's service would start by itself.
fn program() -> Result<PathBuf, Error> {
    let directory = lab::directory()?;
    let program = directory.join(PACKAGE);
    let _lock = locked(&directory.join(format!("{PACKAGE}.lock")))?;
    if !program.exists() {
        let temporary = tempfile::tempdir_in(&directory).map_err(file(&directory))?;
        machine::unpack(PACKAGE, temporary.path(), "a registry to test with")?;
        let unpacked = temporary.path().join("usr/bin").join(PACKAGE);
        fs::rename(&unpacked, &program).map_err(file(unpacked))?;
    }
    Ok(program)
}

/// A hash of a password in the form that docker-registry needs. perl is on every Debian, and the password is passed on
/// stdin.
fn bcrypt(password: &str) -> Result<String, Error> {
    let mut perl = Command::new("perl");
    perl.args(["-e", "print crypt(scalar(<STDIN>), $ARGV[0])", SALT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = perl.spawn().map_err(file("perl"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(password.as_bytes()).map_err(file("perl"))?;
    }
    let output = child.wait_with_output().map_err(file("perl"))?;
    let hash = String::from_utf8_lossy(&output.stdout).into_owned();
    if hash.starts_with(SALT) {
        Ok(hash)
    } else {
        Err(Error::Silent(format!("perl's crypt knows no bcrypt: {hash:?}")))
    }
}

/// An authority (`ca.crt`), and its certificate for this name (`server.crt`, `server.key`).
fn certificates(directory: &Path, name: &str) -> Result<(), Error> {
    machine::require("openssl", &["openssl"], "a registry with TLS")?;
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let openssl =
        |arguments: &[&str]| process::capture(Command::new("openssl").current_dir(directory).args(arguments)).map(drop);
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=dockerutils tests"];
    openssl(&[&authority[..], &key, &["-keyout", "ca.key", "-out", "ca.crt"]].concat())?;
    // A common name has 64 characters at most; the alternative name is the one that is checked.
    let names = format!("subjectAltName=DNS:{name}");
    let request = ["req", "-subj", "/CN=registry", "-addext", &names];
    openssl(&[&request[..], &key, &["-keyout", "server.key", "-out", "server.csr"]].concat())?;
    let sign = [
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
    ];
    openssl(
        &[
            &sign[..],
            &["-CAcreateserial", "-copy_extensions", "copy", "-out", "server.crt"],
        ]
        .concat(),
    )?;
    Ok(())
}

pub(crate) fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
    let path = path.as_ref().to_owned();
    move |source| Error::File { path, source }
}
