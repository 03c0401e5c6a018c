//! A project with the image type docker/notebook of this repository, built on the tests' Debian.

use std::fs;
use std::path::Path;

use dockerutils_test_support::Sandbox;
use dockerutils_test_support::lab::{LabEngine, NotebookImage};

/// What docker/notebook consists of.
const FILES: [&str; 8] = [
    "Dockerfile",
    "Dockerfile.dockerignore",
    "etc/jupyter_server_config.json",
    "etc/labconfig/page_config.json",
    "healthcheck.py",
    "jupyter_server_config.py",
    "requirements.txt",
    "start-notebook",
];

/// The certificates that this machine trusts; see the comment in the Dockerfile.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Adds the image type `notebook` to a project. `arguments` are further options of its build, such as `--build-arg
/// NB_UID=1234`. It takes the network of the engine's machine, where PyPI can be reached.
///
/// # Panics
/// When the engine can't get the image that it is built on.
pub fn with_notebook(sandbox: Sandbox, engine: &LabEngine, arguments: &str) -> Sandbox {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docker/notebook");
    let base = engine.notebook_image(NotebookImage::Debian).expect("the lab's Debian");
    let mut options = format!("--network host --build-arg BASE={base} {arguments}");
    if Path::new(CERTIFICATES).exists() {
        options += &format!(" --secret id=ca-certificates,src={CERTIFICATES}");
    }
    let mut sandbox = sandbox.file(
        "docker/dockerutils.cfg",
        format!("[notebook]\nbuild_args = {options}\n"),
    );
    for name in FILES {
        let content = fs::read(from.join(name)).expect("a file of docker/notebook");
        let path = format!("docker/notebook/{name}");
        sandbox = if name == "start-notebook" {
            sandbox.script(&path, content)
        } else {
            sandbox.file(&path, content)
        };
    }
    sandbox
}
