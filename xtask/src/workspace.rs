//! The workspace as cargo knows it: where it is, and which commands it has.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockerutils_test_support::{machine, process};
use serde_json::Value;

use crate::error::Error;

/// The workspace.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    /// Every package with a program under `crates/`, by name.
    pub(crate) programs: Vec<Program>,
    /// Every package.
    pub(crate) packages: Vec<Package>,
    /// Packages that are not built in everyday work, each with the test stage that builds it.
    ///
    /// A package says so in its manifest: `[package.metadata.dockerutils] stage = "aws"`.
    staged: Vec<(String, String)>,
}

/// A package, and the workspace's packages that it depends on.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) directory: PathBuf,
    /// Packages of the workspace that it is built with.
    pub(crate) dependencies: Vec<String>,
    /// Further packages of the workspace that its tests are built with.
    pub(crate) dev_dependencies: Vec<String>,
    /// Whether users call its program.
    pub(crate) is_command: bool,
    /// Whether it has a stage of its own.
    pub(crate) is_staged: bool,
    /// Whether the examples in its documentation are run.
    pub(crate) has_examples: bool,
}

/// A package under `crates/` with a program of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// The package's directory.
    pub(crate) directory: PathBuf,
}

impl Program {
    /// Whether users call it; the others (`dock-agent` and its like) are started by commands.
    pub(crate) fn is_command(&self) -> bool {
        !self.name.starts_with("dock-")
    }
}

impl Workspace {
    /// Asks cargo; nothing is downloaded.
    pub(crate) fn load() -> Result<Self, Error> {
        let metadata = process::capture(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
        let metadata: Value = serde_json::from_slice(&metadata).map_err(|source| Error::Json {
            what: "cargo metadata",
            source,
        })?;
        let root = PathBuf::from(text(&metadata, "workspace_root"));
        let crates = root.join("crates");
        let mut programs: Vec<Program> = list(&metadata, "packages")
            .filter_map(|package| program(package, &crates))
            .collect();
        programs.sort_by(|one, other| one.name.cmp(&other.name));
        let staged = list(&metadata, "packages")
            .filter_map(|package| Some((text(package, "name").to_owned(), stage(package)?.to_owned())));
        let packages = list(&metadata, "packages").map(|package| {
            let name = text(package, "name");
            let needs = |is_dev: bool| {
                let of_kind = list(package, "dependencies")
                    // Only packages of the workspace have a path; `kind` is `null`, `build` or `dev`.
                    .filter(|dependency| {
                        dependency.get("path").is_some() && (text(dependency, "kind") == "dev") == is_dev
                    });
                of_kind.map(|dependency| text(dependency, "name").to_owned()).collect()
            };
            Package {
                name: name.to_owned(),
                directory: directory(package).map(Path::to_owned).unwrap_or_default(),
                dependencies: needs(false),
                dev_dependencies: needs(true),
                is_command: programs
                    .iter()
                    .any(|program| program.name == name && program.is_command()),
                is_staged: stage(package).is_some(),
                has_examples: list(package, "targets")
                    .any(|target| target.get("doctest").and_then(Value::as_bool) == Some(true)),
            }
        });
        Ok(Self {
            packages: packages.collect(),
            target: PathBuf::from(text(&metadata, "target_directory")),
            root,
            programs,
            staged: staged.collect(),
        })
    }

    /// The programs that users call.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &Program> {
        self.programs.iter().filter(|program| program.is_command())
    }

    /// cargo's options for the packages of everyday work: all but those that have a stage of their own.
    pub(crate) fn everyday(&self) -> impl Iterator<Item = &str> {
        let excluded = self.staged.iter().flat_map(|(package, _)| ["--exclude", package]);
        std::iter::once("--workspace").chain(excluded)
    }

    /// [`Workspace::everyday`], and what this stage builds: features are then those of everyday work.
    pub(crate) fn everyday_with<'a>(&'a self, stage: &'a str) -> impl Iterator<Item = &'a str> {
        let excluded = self.staged.iter().filter(move |(_, of)| of != stage);
        std::iter::once("--workspace").chain(excluded.flat_map(|(package, _)| ["--exclude", package]))
    }

    /// The packages of a stage.
    pub(crate) fn packages_of<'a>(&'a self, stage: &'a str) -> impl Iterator<Item = &'a str> {
        let of_stage = self.staged.iter().filter(move |(_, of)| of == stage);
        of_stage.map(|(package, _)| package.as_str())
    }

    /// Whether this package is left out of everyday work.
    pub(crate) fn is_staged(&self, name: &str) -> bool {
        self.staged.iter().any(|(package, _)| package == name)
    }

    /// The programs that [`Workspace::build`] builds with this profile.
    pub(crate) fn built(&self, profile: Profile) -> impl Iterator<Item = &Program> {
        self.programs
            .iter()
            .filter(move |program| matches!(profile, Profile::Installed) || !self.is_staged(&program.name))
    }

    /// cargo, in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// Makes sure that a library is installed which cargo does not provide: libssh2, in dock-agent, takes its ciphers
    /// from it.
    pub(crate) fn require_libraries() -> Result<(), Error> {
        const LIBRARIES: [&str; 2] = ["pkg-config", "libssl-dev"];
        const WHY: &str = "compiling dock-agent";
        machine::require("pkg-config", &LIBRARIES, WHY)?;
        match process::capture(Command::new("pkg-config").args(["--exists", "openssl"])) {
            Ok(_) => Ok(()),
            Err(_) => Ok(machine::install(&LIBRARIES, WHY)?),
        }
    }

    /// Builds the programs of a profile, and returns the directory that they are in.
    pub(crate) fn build(&self, profile: Profile) -> Result<PathBuf, Error> {
        Self::require_libraries()?;
        let mut build = self.cargo();
        build.args(["build", "--quiet", "--bins"]);
        match profile {
            // As the tests are built, so that both share what they depend on.
            Profile::Debug => drop(build.args(self.everyday())),
            Profile::Release | Profile::Installed => {
                build.arg("--release");
                for program in self.built(profile) {
                    build.args(["--package", &program.name]);
                }
            }
        }
        process::run(&mut build)?;
        Ok(self.target.join(match profile {
            Profile::Debug => "debug",
            Profile::Release | Profile::Installed => "release",
        }))
    }
}

/// How programs are built.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to build.
    Debug,
    /// Quick to run; those of everyday work.
    Release,
    /// As Release, with those that have a stage of their own.
    Installed,
}

/// What a program prints about itself, by the hidden option that all programs have from the core: so xtask needs none
/// of their code.
pub(crate) fn describe(directory: &Path, program: &Program, page: &str) -> Result<Vec<u8>, Error> {
    Ok(process::capture(
        Command::new(directory.join(&program.name)).args(["--dockerutils-describe", page]),
    )?)
}

fn cargo() -> Command {
    // The cargo that runs xtask, whatever its toolchain.
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

fn program(package: &Value, crates: &Path) -> Option<Program> {
    let name = text(package, "name");
    let directory = directory(package)?;
    let is_program = list(package, "targets")
        .any(|target| text(target, "name") == name && list(target, "kind").any(|kind| kind == "bin"));
    (is_program && directory.starts_with(crates)).then(|| Program {
        name: name.to_owned(),
        description: package.get("description").and_then(Value::as_str).map(str::to_owned),
        directory: directory.to_owned(),
    })
}

fn directory(package: &Value) -> Option<&Path> {
    Path::new(text(package, "manifest_path")).parent()
}

/// The stage that builds the package, by its manifest.
fn stage(package: &Value) -> Option<&str> {
    package.pointer("/metadata/dockerutils/stage")?.as_str()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}
