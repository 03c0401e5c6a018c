//! Python packages as PyPI has them, each in a virtual environment that is made once and kept in the cache.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dockerutils_test_support::lab;
use sha2::{Digest as _, Sha256};

/// dockerutils 2.0.7, whose work is done anew here. What it depends on is for AWS, which no test needs.
pub const ORIGINAL: Package<'_> = Package {
    name: "original-2.0.7",
    requirement: "dockerutils==2.0.7 --hash=sha256:6c11171ec2e22272c712438cafc736d6298896fdb14609dda03010152cf8f090\n",
    module: "dockerutils",
};

/// moto, which plays AWS, with all that its server needs; the list is made by
/// `pip-compile --generate-hashes --no-annotate --strip-extras` of `moto`, `flask` and `flask-cors`.
pub const MOTO: Package<'_> = Package {
    name: "moto-5.2.5",
    requirement: include_str!("../moto.txt"),
    module: "moto.server, flask_cors",
};

/// docker's SDK, Testcontainers and pytest-docker; the list is made by `pip-compile --generate-hashes --no-annotate
/// --strip-extras` of `docker`, `testcontainers`, `pytest` and `pytest-docker`.
pub const CONTAINER_TOOLS: Package<'_> = Package {
    name: "container-tools-1",
    requirement: include_str!("../container-tools.txt"),
    module: "docker, testcontainers.core.container, pytest, pytest_docker",
};

/// paramiko, which plays a server of ssh that does what no sshd does; the list is made by `pip-compile --generate-hashes
/// --no-annotate --strip-extras` of `paramiko`.
pub const PARAMIKO: Package<'_> = Package {
    name: "paramiko-5.1.0",
    requirement: include_str!("../paramiko.txt"),
    module: "paramiko",
};

/// A package, and what it is needed for.
#[derive(Debug)]
pub struct Package<'a> {
    /// The name of its environment.
    pub name: &'a str,
    /// What pip is to install, and nothing else: a release does not change.
    pub requirement: &'a str,
    /// What Python must be able to import.
    pub module: &'a str,
}

impl Package<'_> {
    /// The directory of the environment's commands, `python3` among them.
    ///
    /// # Errors
    /// Without python3, its module venv, or PyPI.
    pub fn commands(&self) -> io::Result<PathBuf> {
        let shared = lab::directory().map_err(io::Error::other)?;
        // Another checkout may want other versions at the same time.
        let digest = Sha256::digest(self.requirement);
        let number = digest
            .iter()
            .take(4)
            .fold(0, |number, byte| number << 8 | u32::from(*byte));
        let name = format!("{}-{number:08x}", self.name);
        let environment = shared.join(&name);
        // Tests run in processes of their own, several at a time. The system lets go of the lock when one dies.
        let lock = File::create(shared.join(format!("{name}.lock")))?;
        lock.lock()?;
        let commands = environment.join("bin");
        // Written last, and by a name that says what was installed how.
        let complete = environment.join("complete");
        if fs::read_to_string(&complete).is_ok_and(|made_of| made_of == self.requirement) && self.works(&commands) {
            return Ok(commands);
        }
        if environment.exists() {
            fs::remove_dir_all(&environment)?;
        }
        let mut venv = Command::new("python3");
        made(
            "python3 -m venv (apt-get install python3-venv)",
            venv.args(["-m", "venv"]).arg(&environment),
        )?;
        let file = environment.join("requirement.txt");
        File::create(&file)?.write_all(self.requirement.as_bytes())?;
        let mut pip = Command::new(commands.join("pip"));
        pip.args([
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--disable-pip-version-check",
            "-r",
        ]);
        made(
            &format!("pip install -r {}", file.display()),
            pip.arg(&file).stdin(Stdio::null()),
        )?;
        fs::write(&complete, self.requirement)?;
        Ok(commands)
    }

    /// Whether its Python is still there: a venv is dead when the Python that it was made of was updated.
    fn works(&self, commands: &Path) -> bool {
        let mut python = Command::new(commands.join("python3"));
        python
            .args(["-c", &format!("import {}", self.module)])
            .stderr(Stdio::null());
        python.status().is_ok_and(|status| status.success())
    }
}

fn made(what: &str, command: &mut Command) -> io::Result<()> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(io::Error::other(format!(
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))),
        Err(error) => Err(io::Error::new(error.kind(), format!("{what}: {error}"))),
    }
}
