//! Projects of notebooks: with the image type docker/notebook of this repository, built on the tests' Debian; as a package.

use std::fs;
use std::path::{Path, PathBuf};

use dockerutils_test_support::lab::{LabEngine, NotebookImage};
use dockerutils_test_support::{Sandbox, wait};

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

/// A package that needs nothing to be built with but setuptools.
pub const PYPROJECT: &str = "\
[build-system]
requires = [\"setuptools\"]
build-backend = \"setuptools.build_meta\"
[project]
name = \"sample\"
version = \"1\"
[tool.setuptools]
py-modules = [\"sample\"]
";

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

/// All files and folders of a project, itself first.
///
/// # Panics
/// When one can't be read.
pub fn files_of(project: &Path) -> Vec<PathBuf> {
    let mut found = vec![project.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("a folder of the project");
            found.extend(entries.map(|entry| entry.expect("an entry of the project").path()));
        }
    }
    found
}

/// The text of a file, once it is there.
///
/// # Panics
/// When it does not come.
pub fn text_of(file: &Path) -> String {
    wait::found(file.display(), || fs::read_to_string(file).ok())
}
